// SPDX-License-Identifier: BSD-2-Clause
//! One path of a client: its name looked up, its socket opened, what is wrong with it.

use crate::io::paths::{Managed, PathPlan};
use crate::io::socket::UdpSocket;
use crate::io::thread;
use crate::legacy::Usage;
use crate::options::{HostPort, PathRole, PathSpec};
use crate::proto::time::Time;
use crate::{Event, PathId};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// The first pause after a failure; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A refusal by the bridge's host counts for so long after the last one, if more was sent since.
const REFUSAL_COUNTS: Duration = Duration::from_secs(2);

/// Why a path is down at first.
pub(super) const NOT_YET: &str = "it has no socket yet";

/// What a lookup found, or why it found nothing.
pub(super) type Found = Result<Vec<SocketAddr>, String>;

/// One bridge, or the server itself.
pub(super) struct Bridge {
    managed: Managed,
    pub(super) usage: Arc<Usage>,
    /// The number of the port in use.
    pub(super) port: Option<u32>,
    wants_socket: bool,
    resolving: bool,
    pause: Duration,
    next_try: Time,
    /// When its host said last that nothing listens there.
    refused: Option<Time>,
    /// Why it is down; `None`: it is up.
    pub(super) trouble: Option<String>,
    /// When that changed.
    pub(super) since: Time,
}

impl Bridge {
    pub(super) fn new(plan: PathPlan, now: Time) -> Self {
        Bridge {
            managed: Managed::new(plan, now),
            usage: Arc::default(),
            port: None,
            wants_socket: true,
            resolving: false,
            pause: Duration::ZERO,
            next_try: now,
            refused: None,
            trouble: Some(NOT_YET.to_owned()),
            since: now,
        }
    }

    pub(super) fn id(&self) -> PathId {
        self.managed.plan.id
    }

    pub(super) fn spec(&self) -> &PathSpec {
        &self.managed.plan.spec
    }

    pub(super) fn name(&self) -> &str {
        self.managed.name()
    }

    pub(super) fn is_backup(&self) -> bool {
        self.spec().role == PathRole::Backup
    }

    /// When there is something to do about it.
    pub(super) fn due(&self) -> Time {
        let open = match self.wants_socket && !self.resolving {
            true => self.next_try,
            false => Time::NEVER,
        };
        // Whether more was sent by then is looked at then.
        open.min(self.refused.map_or(Time::NEVER, |at| at + REFUSAL_COUNTS))
    }

    /// Wants a fresh port: for a name, of where it leads now.
    pub(super) fn rotate(&mut self, now: Time) {
        self.managed.resolved_at = None;
        (self.wants_socket, self.next_try) = (true, now);
    }

    /// Takes over a new description. Whether it needs another socket.
    pub(super) fn change(&mut self, now: Time, to: HostPort, spec: PathSpec) -> bool {
        let old = self.spec();
        let elsewhere = self.managed.plan.to != to;
        let another = elsewhere
            || (&old.interface, old.source, old.mark) != (&spec.interface, spec.source, spec.mark);
        self.managed.plan.spec = spec;
        if elsewhere {
            self.managed.addresses = to.socket_addr().into_iter().collect();
            self.managed.plan.to = to;
        }
        if another {
            self.rotate(now);
        }
        another
    }

    /// Tries to have a socket if it wants one; `answer` is called when a lookup is done.
    pub(super) fn attempt(
        &mut self,
        now: Time,
        answer: impl FnOnce(Found) + Send + 'static,
    ) -> Option<Result<(UdpSocket, SocketAddr), String>> {
        if !self.wants_socket || self.resolving || self.next_try > now {
            return None;
        }
        let plan = &self.managed.plan;
        if plan.to.socket_addr().is_none() && self.managed.resolved_at.is_none() {
            self.resolving = true;
            let to = plan.to.clone();
            // A lookup may take its time, and is never waited for.
            let lookup = move || {
                let found = (to.host(), to.port()).to_socket_addrs();
                answer(found.map(Iterator::collect).map_err(|error| error.to_string()));
            };
            if let Err(error) = thread::start("mpt-resolve", lookup, |_| ()) {
                self.on_resolved(now, Err(error.to_string()));
            }
            return None;
        }
        Some(self.managed.open())
    }

    /// A lookup ended. An address that worked before is better than none.
    pub(super) fn on_resolved(&mut self, now: Time, found: Found) -> Option<String> {
        self.resolving = false;
        self.next_try = now;
        match found {
            Ok(addresses) if !addresses.is_empty() => self.managed.addresses = addresses,
            _ if !self.managed.addresses.is_empty() => {}
            Ok(_) => {
                return Some(format!("the name {} has no address", self.managed.plan.to.host()));
            }
            Err(error) => {
                let host = self.managed.plan.to.host();
                return Some(format!("the name {host} does not resolve ({error})"));
            }
        }
        self.managed.resolved_at = Some(now);
        None
    }

    /// It has a socket.
    pub(super) fn opened(&mut self, now: Time, port: u32) -> Option<Event> {
        self.port = Some(port);
        (self.wants_socket, self.pause, self.refused) = (false, Duration::ZERO, None);
        self.is_up(now)
    }

    /// It could not have one now.
    pub(super) fn failed(&mut self, now: Time, why: String) -> Option<Event> {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.next_try = now + self.pause;
        self.managed.turn = self.managed.turn.wrapping_add(1);
        self.managed.resolved_at = None;
        // The old port, if there is one, goes on.
        if self.port.is_some() {
            log::debug!(target: "mptunnel::path", "path {}: no fresh port: {why}", self.name());
            return None;
        }
        self.is_down(now, why)
    }

    /// Its socket reported an error.
    pub(super) fn on_error(&mut self, now: Time, errno: i32) -> Option<Event> {
        let to = &self.managed.plan.to;
        let why = match errno {
            libc::EMSGSIZE => return None,
            libc::ECONNREFUSED => format!("{to} refuses: nothing listens there"),
            libc::ENETUNREACH | libc::EHOSTUNREACH => format!("no route to {to}"),
            errno => std::io::Error::from_raw_os_error(errno).to_string(),
        };
        self.refused = Some(now);
        // The address that it sends from is gone, or the interface.
        let dead = [libc::EADDRNOTAVAIL, libc::ENODEV, libc::ENXIO, libc::EINVAL];
        if dead.contains(&errno) && !self.wants_socket {
            (self.wants_socket, self.next_try) = (true, now + FIRST_PAUSE);
        }
        self.is_down(now, why)
    }

    /// Something sound came in on it.
    pub(super) fn heard(&mut self, now: Time) -> Option<Event> {
        self.trouble.as_ref()?;
        self.refused = None;
        self.is_up(now)
    }

    /// Nobody refuses any more, as far as one can know of a peer that does not answer.
    pub(super) fn tick(&mut self, now: Time) -> Option<Event> {
        let refused = self.refused.filter(|at| now.since(*at) >= REFUSAL_COUNTS)?;
        let tried = refused + REFUSAL_COUNTS / 2;
        if self.port.is_some() && self.usage.sent_at().is_some_and(|sent| sent > tried) {
            self.refused = None;
            return self.is_up(now);
        }
        // Nothing was sent that could have been refused: later.
        self.refused = Some(now);
        None
    }

    fn is_up(&mut self, now: Time) -> Option<Event> {
        self.trouble.take()?;
        self.since = now;
        Some(Event::PathUp(self.id(), self.name().to_owned()))
    }

    fn is_down(&mut self, now: Time, why: String) -> Option<Event> {
        if self.trouble.as_ref() == Some(&why) {
            return None;
        }
        if self.trouble.is_none() {
            self.since = now;
        }
        self.trouble = Some(why.clone());
        Some(Event::PathDown(self.id(), self.name().to_owned(), why))
    }
}
