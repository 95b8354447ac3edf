// SPDX-License-Identifier: BSD-2-Clause
//! Clients, servers and the paths between them in virtual time.
//!
//! ```text
//!   client ── path 0 ──▷ link up ──▷ translator ──▷ server
//!     │   ◁── link down ◁── translator ◁────────────┘
//!     └───── path 1 …
//! ```
//!
//! Every process is driven as the I/O threads drive it: datagrams go through
//! [`DataPlane::receive`](crate::proto::dataplane::DataPlane::receive) and
//! [`SendView::send`](crate::proto::view::SendView::send), everything else through the state
//! machines. Time jumps exactly to the next arrival or to the next `poll_timeout`, never further:
//! a machine that wants something done must say so.

mod agenda;
mod digest;
mod host;
mod ledger;
mod net;
mod operate;
mod parcel;
mod receive;
mod send;
mod traffic;
mod watch;

use super::rng::Rng;
use crate::proto::time::Time;
use agenda::{Actor, Agenda};
pub use digest::{client_digest, server_digest};
pub use host::{ClientHost, Lifetime, ServerHost};
pub use ledger::{Datagram, Direction, Ledger, payload};
pub use net::{Faults, PathNet, PathSpec};
pub use parcel::{Cargo, Parcel};
pub use send::Sink;
use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
pub use traffic::{Traffic, TrafficNo};
use watch::Trace;
pub use watch::{Account, Watch};

/// Names a client's machine.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientNo(pub usize);

/// Names a server's machine.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServerNo(pub usize);

/// Names a path of a client's machine.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PathNo {
    /// Whose path.
    pub client: ClientNo,
    /// Which, from 0.
    pub index: usize,
}

/// Names one process: one run of one endpoint. Never used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Incarnation(pub u32);

/// A network and the machines at its ends.
///
/// The same seed and the same calls give the same packets at the same times: compare
/// [`trace`](Self::trace). The invariants are asserted while it runs, those about delivery when
/// [`verify`](Self::verify) is called.
pub struct World {
    now: Time,
    rng: Rng,
    agenda: Agenda,
    clients: Vec<ClientHost>,
    servers: Vec<ServerHost>,
    traffic: Vec<Traffic>,
    ledger: Ledger,
    /// Which path has which address at the server's side of its translator.
    outer: HashMap<SocketAddr, PathNo>,
    addresses: u32,
    incarnations: u32,
    trace: Trace,
    scratch: Vec<u8>,
    captured: Option<Vec<Captured>>,
    strays: Strays,
    /// What packets carry that wait for their turn, by session and number.
    waiting: HashMap<Vec<u8>, Cargo>,
    /// The clients for which packets wait at their servers.
    waited_for: BTreeSet<ClientNo>,
}

/// A packet that an observer saw as it was sent.
#[derive(Clone, Debug)]
pub struct Captured {
    /// When.
    pub at: Time,
    /// On which path.
    pub path: PathNo,
    /// Which way.
    pub direction: Direction,
    /// The packet.
    pub parcel: Parcel,
}

/// What servers sent to addresses that no path has: to those an attacker made up, or to where a
/// path was before.
#[derive(Clone, Debug, Default)]
pub struct Strays {
    /// How many packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The last one.
    pub last: Option<(SocketAddr, Vec<u8>)>,
}

/// Timers that go off at one moment, before that counts as standing still.
const MAX_TURNS: u32 = 16;

impl World {
    /// An empty world. All its chances follow from the seed.
    pub fn new(seed: u64) -> Self {
        World {
            now: Time::from_micros(1_000_000),
            rng: Rng::new(seed),
            agenda: Agenda::default(),
            clients: Vec::new(),
            servers: Vec::new(),
            traffic: Vec::new(),
            ledger: Ledger::default(),
            outer: HashMap::new(),
            addresses: 0,
            incarnations: 0,
            trace: Trace::default(),
            scratch: Vec::with_capacity(2_048),
            captured: None,
            strays: Strays::default(),
            waiting: HashMap::new(),
            waited_for: BTreeSet::new(),
        }
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Jumps from event to event until nothing is due before `end`.
    pub fn run_until(&mut self, end: Time) {
        while let Some((due, actor)) = self.agenda.pop(end) {
            self.now = self.now.max(due);
            match actor {
                Actor::Lane(path, direction) => self.deliver_due(path, direction),
                Actor::Client(client) => self.wake_client(client),
                Actor::Server(server) => self.wake_server(server),
                Actor::Traffic(number) => self.send_due(number),
            }
        }
        self.now = self.now.max(end);
    }

    /// Runs for this long.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Runs until `done`, looking every millisecond; `false` if that takes longer than `limit`.
    pub fn run_while_not(&mut self, limit: Duration, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) {
            if self.now >= end {
                return false;
            }
            self.run_for(Duration::from_millis(1));
        }
        true
    }

    /// A client's machine.
    pub fn client(&self, client: ClientNo) -> &ClientHost {
        &self.clients[client.0]
    }

    /// A client's machine, to be changed; follow it by [`settle`](Self::settle).
    pub fn client_mut(&mut self, client: ClientNo) -> &mut ClientHost {
        &mut self.clients[client.0]
    }

    /// A server's machine.
    pub fn server(&self, server: ServerNo) -> &ServerHost {
        &self.servers[server.0]
    }

    /// A server's machine, to be changed; follow it by [`settle`](Self::settle).
    pub fn server_mut(&mut self, server: ServerNo) -> &mut ServerHost {
        &mut self.servers[server.0]
    }

    /// All datagrams.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The process on a client's machine.
    pub fn client_lifetime(&self, client: ClientNo) -> Option<Lifetime> {
        Some(self.clients[client.0].process.as_ref()?.lifetime())
    }

    /// The process on a server's machine.
    pub fn server_lifetime(&self, server: ServerNo) -> Option<Lifetime> {
        Some(self.servers[server.0].process.as_ref()?.lifetime())
    }

    /// A number that stands for everything that happened so far.
    pub fn trace(&self) -> u64 {
        self.trace.digest()
    }

    /// Randomness for a test, independent of that of the world.
    pub fn dice(&self, label: &str) -> Rng {
        self.rng.fork("test").fork(label)
    }

    /// Packets that went to addresses which no path has.
    pub fn strays(&self) -> &Strays {
        &self.strays
    }

    /// The last packet that went to such an address, once.
    pub fn take_stray(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.strays.last.take()
    }

    /// From now on all packets are kept as they are sent, for an attacker.
    pub fn capture(&mut self) {
        self.captured = Some(Vec::new());
    }

    /// What was captured since the last call.
    pub fn captured(&mut self) -> Vec<Captured> {
        self.captured.replace(Vec::new()).unwrap_or_default()
    }

    /// Polls every machine: after a call to one that did not go through the world.
    pub fn settle(&mut self) {
        for number in 0..self.clients.len() {
            self.drive_client(ClientNo(number));
        }
        for number in 0..self.servers.len() {
            self.drive_server(ServerNo(number));
        }
    }

    /// Asserts what must hold at any moment: P3 for all datagrams so far, and I5.
    ///
    /// # Panics
    /// If a datagram of which an intact copy reached its receiver, which had the keys, was not
    /// delivered; or if a table is larger than it may be.
    pub fn verify(&self) {
        let lost: Vec<_> = self.ledger.wrongly_lost().take(3).collect();
        assert!(lost.is_empty(), "P3: arrived, but not delivered: {lost:?}");
        self.verify_tables();
    }

    /// Asserts I5: no table is larger than it may be.
    ///
    /// # Panics
    /// See above.
    pub fn verify_tables(&self) {
        for host in &self.servers {
            let Some(process) = &host.process else { continue };
            let server = &process.machine;
            let (mut peers, mut sessions) = (0, server.pending_len());
            for peer in server.peers() {
                peers += 1;
                sessions += peer.sessions().count();
                assert!(peer.slots().count() <= 32, "I5: slots of {}", peer.id);
            }
            let config = (host.config)();
            assert!(peers <= config.sessions, "I5: {peers} peers");
            assert!(server.pending_len() <= 256, "I5: {} pending", server.pending_len());
            // Sessions whose client said goodbye may stay a little.
            let kept = process.plane.len();
            assert!(kept >= sessions, "I5: {sessions} sessions, but {kept} in the table");
            assert!(
                kept <= sessions + self.clients.len() * (config.common.previous_sessions + 1),
                "I5: {sessions} sessions, but {kept} in the table"
            );
        }
        for host in &self.clients {
            let Some(process) = &host.process else { continue };
            let limit = 1 + (host.config)().common.previous_sessions;
            assert!(process.plane.len() <= limit, "I5: {} sessions", process.plane.len());
        }
    }

    fn new_incarnation(&mut self) -> Incarnation {
        self.incarnations += 1;
        Incarnation(self.incarnations)
    }

    /// An address behind the bridge number `bridge` that nobody had before: one host, many ports.
    fn new_address(&mut self, bridge: usize) -> SocketAddr {
        self.addresses += 1;
        // 32,768 ports per host.
        let hosts = self.addresses >> 15 << 8;
        let host = Ipv4Addr::from_bits(0x0a40_0000 + hosts + bridge as u32);
        (host, 32_768 + (self.addresses % 32_768) as u16).into()
    }

    fn note(&mut self, bytes: &[u8]) {
        self.trace.note_bytes(self.now, bytes);
    }
}
