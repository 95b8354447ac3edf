// SPDX-License-Identifier: BSD-2-Clause
//! One path between a client and its server: two links, and a translator of addresses.

use super::parcel::Parcel;
use super::{Direction, PathNo};
use crate::proto::client::PathSettings;
use crate::proto::event::PathId;
use crate::proto::route::Route;
use crate::proto::time::Time;
use crate::proto::wire::MAX_PATHS;
use crate::sim::link::{Counters, Link, LinkConfig};
use crate::sim::rng::Rng;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// What a path is like at first.
#[derive(Clone, Debug)]
pub struct PathSpec {
    /// From the client to the server.
    pub up: LinkConfig,
    /// And back.
    pub down: LinkConfig,
    /// The largest packet that both ends know to fit, in bytes of UDP payload.
    pub max_packet: usize,
    /// What the client's application says about it.
    pub settings: PathSettings,
}

impl PathSpec {
    /// A path with this round trip and no other fault.
    pub fn rtt(rtt: Duration) -> Self {
        Self::both(LinkConfig { delay: rtt / 2, ..LinkConfig::default() })
    }

    /// The same link in both directions.
    pub fn both(link: LinkConfig) -> Self {
        PathSpec {
            up: link.clone(),
            down: link,
            max_packet: 1_472,
            settings: PathSettings::default(),
        }
    }
}

/// What is wrong with one direction of a path, besides what its link does.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Faults {
    /// Nothing passes.
    pub dark: bool,
    /// CTRL and handshakes pass, DATA does not.
    pub grey: bool,
    /// DATA and CTRL pass, the messages of the handshake and NOSESSION do not.
    pub no_handshakes: bool,
    /// The sender's socket takes nothing.
    pub slow_socket: bool,
}

/// Towards or from the server.
pub(super) struct Lane {
    pub link: Link<Parcel>,
    pub faults: Faults,
    /// Counts of links that were thrown away.
    pub before: Counters,
    /// Packets that a fault swallowed.
    pub swallowed: u64,
}

/// One path as the network knows it.
pub struct PathNet {
    pub(super) no: PathNo,
    /// The settings it was made with.
    pub spec: PathSpec,
    /// The client's name for it, while the client lives.
    pub id: Option<PathId>,
    /// Whether the client's I/O layer has a socket.
    pub has_socket: bool,
    /// What the server sees as the source.
    pub outer: SocketAddr,
    pub(super) up: Lane,
    pub(super) down: Lane,
    links_made: u32,
    sockets_made: u32,
}

impl Lane {
    fn new(config: LinkConfig, seed: u64) -> Self {
        Lane {
            link: Link::new(config, seed),
            faults: Faults::default(),
            before: Counters::default(),
            swallowed: 0,
        }
    }

    /// Puts a packet into the link unless a fault swallows it.
    pub fn send(&mut self, now: Time, parcel: Parcel) {
        let Faults { dark, grey, no_handshakes, .. } = self.faults;
        let swallow = match parcel.bytes().first() {
            Some(1..=5) => dark || no_handshakes,
            Some(7 | 8) => dark || grey,
            _ => dark,
        };
        if swallow {
            self.swallowed += 1;
        } else {
            self.link.send(now, parcel);
        }
    }

    pub fn counters(&self) -> Counters {
        let mut sum = self.before;
        sum += self.link.counters();
        sum
    }
}

impl PathNet {
    pub(super) fn new(no: PathNo, spec: PathSpec, outer: SocketAddr, rng: &Rng) -> Self {
        let seed = |way: &str| rng.fork(&format!("{no:?} {way}")).u64();
        PathNet {
            no,
            id: None,
            has_socket: false,
            outer,
            up: Lane::new(spec.up.clone(), seed("up")),
            down: Lane::new(spec.down.clone(), seed("down")),
            spec,
            links_made: 0,
            sockets_made: 0,
        }
    }

    /// The bridge as the client knows it, and the socket of the moment.
    pub fn route(&self) -> Route {
        let bridge = Ipv4Addr::new(10, 1, 0, self.no.index as u8);
        let socket = self.sockets_made * MAX_PATHS as u32 + self.no.index as u32;
        Route { socket, remote: (bridge, 4_000).into(), local: None }
    }

    /// Which path has this socket, or had it.
    pub(super) fn index_of(socket: u32) -> usize {
        socket as usize % MAX_PATHS
    }

    /// Whether `route` leads out of the socket of the moment.
    pub(super) fn is_open_on(&self, route: &Route) -> bool {
        self.has_socket && self.route().socket == route.socket
    }

    /// The I/O layer made a socket.
    pub(super) fn make_socket(&mut self) -> Route {
        self.has_socket = true;
        self.sockets_made += 1;
        self.route()
    }

    /// Where a packet of this direction comes from, as its receiver sees it.
    pub(super) fn source(&self, direction: Direction) -> SocketAddr {
        match direction {
            Direction::Up => self.outer,
            Direction::Down => self.route().remote,
        }
    }

    /// Both links lose what is in them.
    pub(super) fn lose_flights(&mut self, rng: &Rng) {
        self.links_made += 1;
        for (way, lane) in [("up", &mut self.up), ("down", &mut self.down)] {
            let seed = rng.fork(&format!("{:?} {way} {}", self.no, self.links_made)).u64();
            lane.before = lane.counters();
            lane.link = Link::new(lane.link.config().clone(), seed);
        }
    }

    /// What the links did, up and down.
    pub fn counters(&self) -> (Counters, Counters) {
        (self.up.counters(), self.down.counters())
    }

    /// Packets that blackouts and grey holes swallowed, up and down.
    pub fn swallowed(&self) -> (u64, u64) {
        (self.up.swallowed, self.down.swallowed)
    }
}
