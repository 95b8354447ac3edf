// SPDX-License-Identifier: BSD-2-Clause
//! What can be seen of an endpoint. Counters are monotonic and never cleared by reading.

use crate::proto::health::Health;
pub use crate::proto::reorder::OrderCounts;
use crate::proto::route::PathCounts;
use crate::{PathId, PeerId};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

/// One path, at a client or of one client at a server.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PathInfo {
    /// Its name for calls.
    pub id: PathId,
    /// Its number on the wire, 0 to 31.
    pub slot: u8,
    /// What the user calls it.
    pub name: String,
    /// What describes it, as [`PathSpec`](crate::options::PathSpec) prints it; empty at a server.
    pub words: String,
    /// Whether probes are answered (client) or heard (server).
    pub up: bool,
    /// What state it is in.
    pub state: PathState,
    /// Why it is in that state, in words.
    pub reason: Cow<'static, str>,
    /// How long `up` has been as it is.
    pub since: Duration,
    /// Whether it waits until no other path is up.
    pub backup: bool,
    /// The other end of its socket; `None` while it has none.
    pub remote: Option<SocketAddr>,
    /// The largest packet that fits, in bytes of UDP payload.
    pub max_packet: usize,
    /// Round trip and loss as measured.
    pub quality: Quality,
    /// Packets sent, copies and control included.
    pub sent: u64,
    /// Bytes of these.
    pub sent_bytes: u64,
    /// Packets that the socket did not take.
    pub send_dropped: u64,
    /// Packets received.
    pub received: u64,
    /// Bytes of these.
    pub received_bytes: u64,
    /// Packets that this path brought first: `received` without `duplicates`.
    pub wins: u64,
    /// Packets that another path had brought before.
    pub duplicates: u64,
    /// What changed within about a second. `None` unless somebody has looked at the endpoint about
    /// a second ago as well.
    pub last_1s: Option<Span>,
    /// What changed within about ten seconds, likewise.
    pub last_10s: Option<Span>,
}

/// What state a path is in.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum PathState {
    /// Nothing has answered on it yet (client), or its address is not proven yet (server).
    #[default]
    Starting,
    /// It is in use, or ready to be.
    Up,
    /// It has fallen silent, and is tried again and again.
    Down,
    /// A client's path that cannot be tried: its name does not resolve, its interface is missing …
    NoSocket,
}

impl PathState {
    /// One word for it, which stays the same between versions.
    pub fn name(self) -> &'static str {
        match self {
            PathState::Starting => "starting",
            PathState::Up => "up",
            PathState::Down => "down",
            PathState::NoSocket => "no_socket",
        }
    }
}

/// What changed on a path within a span of time that ends now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Span {
    /// How long it is.
    pub length: Duration,
    /// Packets sent, copies and control included.
    pub sent: u64,
    /// Bytes of these.
    pub sent_bytes: u64,
    /// Packets received.
    pub received: u64,
    /// Bytes of these.
    pub received_bytes: u64,
}

/// What probes tell about a path. `None` = not measured yet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Quality {
    /// Smoothed round trip (RFC 6298).
    pub rtt: Option<Duration>,
    /// The latest round trip.
    pub last_rtt: Option<Duration>,
    /// The shortest one.
    pub min_rtt: Option<Duration>,
    /// Jitter of what arrives (RFC 3550).
    pub jitter: Duration,
    /// Fraction lost on the way out, 0 to 1.
    pub loss_out: Option<f64>,
    /// Fraction lost on the way in, 0 to 1.
    pub loss_in: Option<f64>,
}

impl Quality {
    pub(crate) fn of(health: &Health) -> Self {
        Quality {
            rtt: health.srtt(),
            last_rtt: health.last_rtt(),
            min_rtt: health.min_rtt(),
            jitter: health.jitter(),
            loss_out: health.loss_out(),
            loss_in: health.loss_in(),
        }
    }
}

impl PathInfo {
    pub(crate) fn count(&mut self, counts: PathCounts) {
        self.sent = counts.tx_pkts;
        self.sent_bytes = counts.tx_bytes;
        self.send_dropped = counts.tx_dropped;
        self.received = counts.rx_pkts;
        self.received_bytes = counts.rx_bytes;
        self.duplicates = counts.rx_dups;
        self.wins = counts.rx_pkts.saturating_sub(counts.rx_dups);
    }
}

/// What went over all paths together, also over those that are gone: never less than before.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Traffic {
    /// Packets sent, copies and control included.
    pub sent: u64,
    /// Bytes of these.
    pub sent_bytes: u64,
    /// Packets that sockets did not take.
    pub send_dropped: u64,
    /// Packets received.
    pub received: u64,
    /// Bytes of these.
    pub received_bytes: u64,
    /// Packets that were the first of their copies.
    pub wins: u64,
    /// Packets that another path had brought before.
    pub duplicates: u64,
}

impl Traffic {
    pub(crate) fn of(counts: PathCounts) -> Self {
        Traffic {
            sent: counts.tx_pkts,
            sent_bytes: counts.tx_bytes,
            send_dropped: counts.tx_dropped,
            received: counts.rx_pkts,
            received_bytes: counts.rx_bytes,
            wins: counts.rx_pkts.saturating_sub(counts.rx_dups),
            duplicates: counts.rx_dups,
        }
    }
}

/// One client of a server.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Its name for calls.
    pub id: PeerId,
    /// How often its process was restarted.
    pub restarts: u32,
    /// Its paths.
    pub paths: Vec<PathInfo>,
    /// Of all its processes.
    pub traffic: Traffic,
    /// What its packets are sealed with: `chacha20-poly1305` or `aes-256-gcm`.
    pub cipher: &'static str,
    /// Packets that its receive window remembers.
    pub window: usize,
}

/// Counters of a whole endpoint.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Whether there is a session (client), or any peer (server).
    pub connected: bool,
    /// Of all paths, and of all peers.
    pub traffic: Traffic,
    /// Copies removed and datagrams dropped, by reason.
    pub drops: Vec<(&'static str, u64)>,
    /// Packets from an address that is no path's.
    pub unattributed: u64,
    /// Datagrams that the application did not fetch in time.
    pub queue_dropped: u64,
    /// What became of datagrams that were to be put in order (option `reorder`).
    pub reorder: OrderCounts,
    /// Events that the application did not fetch in time.
    pub events_dropped: u64,
    /// Errors that sockets reported.
    pub socket_errors: u64,
    /// Arrivals that the kernel dropped because a socket's receive buffer was full; a run of
    /// datagrams that arrived together counts once.
    pub kernel_dropped: u64,
    /// Bytes of receive buffer that the system granted to the first socket, 0 without a socket.
    pub receive_buffer: usize,
    /// What packets are sealed with: `chacha20-poly1305` or `aes-256-gcm`. Empty at a client while
    /// there is no session, and at a server, where each [`PeerInfo`] has its own.
    pub cipher: &'static str,
    /// The AEAD backend.
    pub backend: &'static str,
}
