// SPDX-License-Identifier: BSD-2-Clause
//! The machines: what outlives a process, and the processes on them.

use super::net::PathNet;
use super::watch::Watch;
use super::{ClientNo, Incarnation, ServerNo};
use crate::proto::client::Client;
use crate::proto::config::{ClientConfig, ServerConfig};
use crate::proto::dataplane::{DataPlane, LastSession};
use crate::proto::event::{ClientEvent, PeerId, ServerEvent};
use crate::proto::reorder::{OrderCounts, Reorder};
use crate::proto::server::Server;
use crate::proto::time::Time;
use crate::proto::view::ViewCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A machine on which a client runs, or does not.
pub struct ClientHost {
    pub(super) config: Box<dyn Fn() -> ClientConfig>,
    pub(super) server: ServerNo,
    pub(super) clock: Clock,
    /// Its paths, in the order in which the client is told of them.
    pub paths: Vec<PathNet>,
    pub(super) process: Option<Process<Client>>,
    /// Everything that any client here ever told.
    pub events: Vec<(Time, ClientEvent)>,
    pub(super) asleep: bool,
    /// Sockets that the client asked to be made anew.
    pub reopened: u32,
}

/// A machine on which a server runs, or does not.
pub struct ServerHost {
    pub(super) config: Box<dyn Fn() -> ServerConfig>,
    pub(super) clock: Clock,
    pub(super) process: Option<Process<Server>>,
    /// Everything that any server here ever told.
    pub events: Vec<(Time, ServerEvent)>,
    /// Which peer each client is, as far as its packets told.
    pub(super) peers: HashMap<ClientNo, PeerId>,
}

/// One run of a client or server, from start to end.
pub(super) struct Process<M> {
    pub incarnation: Incarnation,
    pub started: Time,
    pub plane: Arc<DataPlane>,
    pub last: LastSession,
    pub machine: M,
    /// Number and flow of datagrams that wait for those before them, if the option says so.
    pub order: Option<Reorder<(u32, u16)>>,
    pub watch: Watch,
    /// When it got its first datagram, and when its own first one was delivered.
    pub first_in: Option<Time>,
    pub first_out: Option<Time>,
    /// How often its timer went off.
    pub wakeups: u64,
    /// How often at the same moment.
    pub turns: (Time, u32),
}

impl<M> Process<M> {
    pub fn new(
        incarnation: Incarnation,
        now: Time,
        plane: Arc<DataPlane>,
        machine: M,
        hold: Duration,
    ) -> Self {
        Process {
            incarnation,
            started: now,
            plane,
            last: LastSession::default(),
            machine,
            order: (!hold.is_zero()).then(|| Reorder::new(hold)),
            watch: Watch::default(),
            first_in: None,
            first_out: None,
            wakeups: 0,
            turns: (now, 0),
        }
    }
}

/// A machine's clock: that of the world, moved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    ahead_us: i64,
}

impl Clock {
    /// A clock that shows `shown` when that of the world shows `now`.
    pub fn showing(now: Time, shown: Time) -> Self {
        Clock { ahead_us: shown.as_micros() as i64 - now.as_micros() as i64 }
    }

    /// What it shows.
    pub fn show(self, now: Time) -> Time {
        Time::from_micros(now.as_micros().saturating_add_signed(self.ahead_us))
    }

    /// When, by the clock of the world, it will show `shown`.
    pub fn when(self, shown: Time) -> Time {
        if shown == Time::NEVER {
            return Time::NEVER;
        }
        Time::from_micros(shown.as_micros().saturating_add_signed(-self.ahead_us))
    }
}

impl ClientHost {
    /// The client, while one runs.
    pub fn client(&self) -> Option<&Client> {
        Some(&self.process.as_ref()?.machine)
    }

    /// The client, to be told something; follow it by [`World::settle`](super::World::settle).
    pub fn client_mut(&mut self) -> Option<&mut Client> {
        Some(&mut self.process.as_mut()?.machine)
    }

    /// The client's data plane.
    pub fn plane(&self) -> Option<&Arc<DataPlane>> {
        Some(&self.process.as_ref()?.plane)
    }

    /// What became of datagrams that were to be put in order, and how many wait.
    pub fn order(&self) -> Option<(OrderCounts, usize)> {
        let order = self.process.as_ref()?.order.as_ref()?;
        Some((order.counts, order.len()))
    }

    /// The watch over the client that runs.
    pub fn watch(&self) -> Option<&Watch> {
        Some(&self.process.as_ref()?.watch)
    }

    /// Whether the client has a session.
    pub fn is_up(&self) -> bool {
        self.client().is_some_and(|c| c.session().is_some())
    }

    /// What the clock of this machine shows.
    pub fn local(&self, now: Time) -> Time {
        self.clock.show(now)
    }

    pub(super) fn view(&self) -> Option<Arc<ViewCell>> {
        Some(self.client()?.view())
    }
}

impl ServerHost {
    /// The server, while one runs.
    pub fn server(&self) -> Option<&Server> {
        Some(&self.process.as_ref()?.machine)
    }

    /// The server, to be told something; follow it by [`World::settle`](super::World::settle).
    pub fn server_mut(&mut self) -> Option<&mut Server> {
        Some(&mut self.process.as_mut()?.machine)
    }

    /// The server's data plane.
    pub fn plane(&self) -> Option<&Arc<DataPlane>> {
        Some(&self.process.as_ref()?.plane)
    }

    /// What became of datagrams that were to be put in order, and how many wait.
    pub fn order(&self) -> Option<(OrderCounts, usize)> {
        let order = self.process.as_ref()?.order.as_ref()?;
        Some((order.counts, order.len()))
    }

    /// The watch over the server that runs.
    pub fn watch(&self) -> Option<&Watch> {
        Some(&self.process.as_ref()?.watch)
    }

    /// Takes the watch away, so that only what the server itself holds is left.
    pub fn take_watch(&mut self) -> Option<Watch> {
        Some(std::mem::take(&mut self.process.as_mut()?.watch))
    }

    /// Which peer a client is.
    pub fn peer_of(&self, client: ClientNo) -> Option<PeerId> {
        self.peers.get(&client).copied()
    }

    /// What the clock of this machine shows.
    pub fn local(&self, now: Time) -> Time {
        self.clock.show(now)
    }

    pub(super) fn view(&self, client: ClientNo) -> Option<Arc<ViewCell>> {
        self.server()?.view(self.peer_of(client)?)
    }
}

/// When a process did what an application notices.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    /// Which process.
    pub incarnation: Incarnation,
    /// When it was started.
    pub started: Time,
    /// When it got its first datagram.
    pub first_in: Option<Time>,
    /// When its own first datagram was delivered.
    pub first_out: Option<Time>,
    /// How often its timer went off.
    pub wakeups: u64,
}

impl<M> Process<M> {
    pub fn lifetime(&self) -> Lifetime {
        Lifetime {
            incarnation: self.incarnation,
            started: self.started,
            first_in: self.first_in,
            first_out: self.first_out,
            wakeups: self.wakeups,
        }
    }
}
