// SPDX-License-Identifier: BSD-2-Clause
//! The client's end: source ports towards the bridges, and what a classic server has to see of them.
//!
//! A classic server knows a client by its source addresses. It drops one at the moment of its use if
//! the last datagram from it and the last one to it lie 60 s apart, whichever was earlier. So a port
//! on which nothing came down for 45 s is replaced by a fresh one, whose two times begin together; a
//! sign of life on the *old* one would bring about just what it is to prevent. And who receives and
//! has nothing to send gives a sign of life, because then the other of the two times stands still.

use super::receiver::{Arrival, Receiver, Run};
use super::timers::Timers;
use super::usage::Usage;
use crate::proto::drop::DropCounters;
use crate::proto::event::PathId;
use crate::proto::num::widen;
use crate::proto::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Signs of life with which a port begins: each of them may be lost.
const ANNOUNCEMENTS: u8 = 3;

/// What is to be done. Ports have the numbers that [`Client::opened`] was told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Send a sign of life from this port.
    Speak(u32),
    /// Open a fresh port for this path, and tell it with [`Client::opened`].
    Rotate(PathId),
    /// Close this port.
    Close(u32),
    /// Tell the application that the server counts anew: it was restarted.
    Restarted,
    /// Tell the application that a first datagram came from the server.
    Connected,
}

/// One source port.
#[derive(Debug)]
struct Port {
    path: PathId,
    usage: Arc<Usage>,
    /// Whether it may be replaced.
    rotates: bool,
    opened: Time,
    /// When something came down last.
    down: Option<Time>,
    /// Signs of life that are left to give at its beginning.
    announcements: u8,
    /// When a sign of life was asked for last, whether or not it could be sent.
    spoke: Time,
    /// When it was replaced.
    retired: Option<Time>,
    /// Whether a fresh one was asked for.
    asked: bool,
    run: Run,
}

/// The client's end of one tunnel. See the [module](super) for how it is driven.
#[derive(Debug)]
pub struct Client {
    timers: Timers,
    receiver: Receiver,
    ports: BTreeMap<u32, Port>,
    actions: VecDeque<Action>,
    drops: Arc<DropCounters>,
    connected: bool,
}

impl Client {
    /// A client without ports. `window`: numbers that a late copy may lag behind.
    pub fn new(timers: Timers, window: u32, drops: Arc<DropCounters>) -> Self {
        Client {
            timers,
            receiver: Receiver::new(window, timers),
            ports: BTreeMap::new(),
            actions: VecDeque::new(),
            drops,
            connected: false,
        }
    }

    /// How many numbers its window remembers.
    pub fn window(&self) -> u32 {
        self.receiver.window()
    }

    /// `path` has a new source port, numbered `port`, and sends from there now. Its former one, if
    /// any, is listened on for a while. `rotates`: it may be replaced, which a bridge that serves
    /// the first port only (`socat` without `fork`) cannot follow.
    pub fn opened(&mut self, now: Time, port: u32, path: PathId, usage: Arc<Usage>, rotates: bool) {
        for old in self.ports.values_mut().filter(|old| old.path == path) {
            old.retired.get_or_insert(now);
        }
        self.actions.push_back(Action::Speak(port));
        let port_of = Port {
            path,
            usage,
            rotates,
            opened: now,
            down: None,
            announcements: ANNOUNCEMENTS.saturating_sub(1),
            spoke: now,
            retired: None,
            asked: false,
            run: Run::default(),
        };
        self.ports.insert(port, port_of);
    }

    /// A port is closed.
    pub fn closed(&mut self, port: u32) {
        self.ports.remove(&port);
    }

    /// Takes a datagram that came to `port`, and returns what is to be delivered of it. Afterwards
    /// there may be [actions](Self::poll_action).
    pub fn receive<'d>(
        &mut self,
        now: Time,
        port: u32,
        datagram: &'d mut [u8],
    ) -> Option<&'d [u8]> {
        let port = self.ports.get_mut(&port)?;
        let bytes = widen(datagram.len());
        let arrival = self.receiver.receive(now, &mut port.run, datagram);
        if let Arrival::Refused(reason) = arrival {
            self.drops.count(reason);
            return None;
        }
        port.down = Some(now);
        port.usage.on_heard(now, bytes, matches!(arrival, Arrival::Copy(_)));
        if !std::mem::replace(&mut self.connected, true) {
            self.actions.push_back(Action::Connected);
        }
        match arrival {
            Arrival::Data(payload) => Some(payload),
            Arrival::Restarted(payload) => {
                self.actions.push_back(Action::Restarted);
                Some(payload)
            }
            Arrival::Copy(reason) => {
                self.drops.count(reason);
                None
            }
            Arrival::Control | Arrival::Refused(_) => None,
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        let timers = self.timers;
        for (number, port) in &mut self.ports {
            if port.due(timers) > now {
                continue;
            }
            if port.retired.is_some() {
                self.actions.push_back(Action::Close(*number));
                // Until it is closed, which the next call would ask for again.
                port.retired = Some(now);
            } else if port.rotation(timers) <= now {
                port.asked = true;
                self.actions.push_back(Action::Rotate(port.path));
            } else {
                port.announcements = port.announcements.saturating_sub(1);
                port.spoke = now;
                self.actions.push_back(Action::Speak(*number));
            }
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), at the latest.
    pub fn poll_timeout(&self) -> Time {
        self.ports.values().map(|port| port.due(self.timers)).min().unwrap_or(Time::NEVER)
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }
}

impl Port {
    /// When something is to be done about it.
    fn due(&self, timers: Timers) -> Time {
        match self.retired {
            Some(at) => at + timers.linger(),
            None => self.rotation(timers).min(self.sign(timers)),
        }
    }

    /// When it is to be replaced.
    fn rotation(&self, timers: Timers) -> Time {
        if !self.rotates || self.asked {
            return Time::NEVER;
        }
        self.down.unwrap_or(self.opened).max(self.opened) + timers.rotate()
    }

    /// When a sign of life is to be given.
    fn sign(&self, timers: Timers) -> Time {
        let said = self.usage.sent_at().unwrap_or(self.spoke).max(self.spoke);
        if self.announcements > 0 {
            let given = u32::from(ANNOUNCEMENTS.saturating_sub(self.announcements));
            return self.opened + timers.announce().saturating_mul(given);
        }
        // Only while something comes down that nothing answers.
        match self.down {
            Some(down) if down > said => said + timers.speak(),
            _ => Time::NEVER,
        }
    }
}
