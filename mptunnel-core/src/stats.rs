// SPDX-License-Identifier: BSD-2-Clause
//! What can be seen of an endpoint. Counters are monotonic and never cleared by reading.

use crate::inbox::Inbox;
use crate::io::errors::ErrorCounts;
use crate::proto::arrivals::{Observed, Pair, Score};
use crate::proto::crypto::BACKEND;
use crate::proto::dataplane::DataPlane;
use crate::proto::drop::DropCounters;
use crate::proto::health::Health;
use crate::proto::losses::Direction;
pub use crate::proto::losses::{Losses, Lost};
pub use crate::proto::pace::Queue;
pub use crate::proto::reorder::OrderCounts;
use crate::proto::route::PathCounts;
use crate::proto::session::SessionCounts;
use crate::proto::time::Time;
use crate::{PathId, PeerId};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
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
    /// The address that a client's path sends from; `None` at a server.
    pub local: Option<SocketAddr>,
    /// Where it led before it moved to where it is, if it ever did.
    pub remote_before: Option<SocketAddr>,
    /// What a client's path sent from before it moved.
    pub local_before: Option<SocketAddr>,
    /// The largest packet that fits, in bytes of UDP payload.
    pub max_packet: usize,
    /// Round trip and loss as measured.
    pub quality: Quality,
    /// What was lost of what this end sent on it, lately and ever. Nothing under the legacy
    /// protocol, which tells of no losses.
    pub losses_out: Losses,
    /// The same of what the other end sent.
    pub losses_in: Losses,
    /// What waits to leave at the rate of the path, now, and that rate; `None` if it has none, as
    /// under the legacy protocol: the word `rate` at a client, `rate-down` of its client at a server.
    /// One that is to be learnt has none until packets waited on the way for the first time.
    pub queue: Option<Queue>,
    /// Packets sent, copies and control included, handshakes not.
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
    /// What it is worth to the datagrams that this end sends, as the peer tells of a sample.
    pub worth_out: Worth,
    /// What it is worth to the datagrams that this end receives, in a sample.
    pub worth_in: Worth,
    /// Errors that its socket reported, by errno; none at a server, whose sockets are no path's own:
    /// see [`Stats::errors`].
    pub errors: Vec<(i32, u64)>,
    /// What changed within about a second. `None` unless somebody has looked at the endpoint about
    /// a second ago as well.
    pub last_1s: Option<Span>,
    /// What changed within about ten seconds, likewise.
    pub last_10s: Option<Span>,
}

/// What a path is worth beside the others, in one direction, by a sample of the datagrams.
/// Monotonic.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Worth {
    /// Datagrams of the sample that were sent on it (of what is received: that came on it).
    pub samples: u64,
    /// Of these, datagrams that came on it.
    pub arrived: u64,
    /// Datagrams that came on it first.
    pub first: u64,
    /// Datagrams that came on no other path, though they were sent on others as well (of what is
    /// received: whether or not they were).
    pub only: u64,
    /// How much earlier than the second copy the first one came, on the mean, of those that came
    /// on it first.
    pub mean_lead: Option<Duration>,
}

impl Worth {
    pub(crate) fn of(score: Score) -> Worth {
        Worth {
            samples: score.samples,
            arrived: score.arrived,
            first: score.first,
            only: score.only,
            mean_lead: score.mean_lead(),
        }
    }
}

/// How much two paths lose together of what this end sends, by a sample of the latest datagrams
/// that went on both.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct PairInfo {
    /// One of them.
    pub one: PathId,
    /// The other one.
    pub other: PathId,
    /// How many datagrams that is; older ones count less.
    pub samples: f64,
    /// Fraction of these that `one` lost.
    pub lost_one: f64,
    /// Fraction that `other` lost.
    pub lost_other: f64,
    /// Fraction that both lost.
    pub lost_both: f64,
    /// The correlation of their losses (phi of the 2×2 table), -1 to 1: 0 where they fail
    /// independently, 1 where always together. `None` until each has lost something.
    pub correlation: Option<f64>,
}

/// One tunnel as a whole: the client's, or that of one client at a server. Counters are monotonic.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SessionInfo {
    /// How often keys were renewed.
    pub rekeys: u32,
    /// How often the other end's process was another one than before.
    pub peer_restarts: u32,
    /// Packets received for the first time, on all paths together.
    pub first_packets: u64,
    /// Bytes of these: what is left of `received_bytes` without copies. Its growth is the goodput,
    /// heads of mptunnel and control included.
    pub first_bytes: u64,
    /// Packets received again, and removed.
    pub copies: u64,
    /// Packets that came when the window had passed them.
    pub late: u64,
    /// Fraction of the datagrams sent that came on no path, as the peer tells of the latest 4,096
    /// of a sample; `None` until it has told.
    pub residual_loss_out: Option<f64>,
    /// Datagrams sent of which the peer has told what became of them.
    pub samples_out: u64,
    /// Each pair of paths that datagrams of the sample went on.
    pub pairs: Vec<PairInfo>,
}

impl Stats {
    /// What both ends of the protocol mptunnel/1 have.
    pub(crate) fn of(
        plane: &DataPlane,
        inbox: &Inbox,
        traffic: Traffic,
        errors: &ErrorCounts,
    ) -> Stats {
        Stats {
            traffic,
            drops: plane.drops.snapshot(),
            unattributed: plane.unattributed.load(Relaxed),
            reorder: plane.order.get(),
            ..Stats::of_either(inbox, errors)
        }
    }

    /// What both ends of the legacy protocol have; `kernel` is arrivals dropped and bytes of buffer.
    pub(crate) fn of_legacy(
        inbox: &Inbox,
        connected: bool,
        traffic: Traffic,
        drops: &DropCounters,
        errors: &ErrorCounts,
        kernel: (u64, usize),
    ) -> Stats {
        let (kernel_dropped, receive_buffer) = kernel;
        Stats {
            connected,
            traffic,
            drops: drops.snapshot(),
            kernel_dropped,
            receive_buffer,
            cipher: "none",
            ..Stats::of_either(inbox, errors)
        }
    }

    fn of_either(inbox: &Inbox, errors: &ErrorCounts) -> Stats {
        let errors = errors.all();
        Stats {
            socket_errors: errors.iter().map(|(_, count)| count).sum(),
            errors,
            queue_dropped: inbox.dropped(),
            events_dropped: inbox.events_dropped(),
            backend: BACKEND,
            ..Stats::default()
        }
    }
}

impl SessionInfo {
    /// From what all paths and all sessions there ever were have counted.
    pub(crate) fn new(
        traffic: PathCounts,
        counts: SessionCounts,
        paths: &[PathInfo],
        observed: Option<&Observed>,
    ) -> Self {
        let mut pairs = Vec::new();
        if let Some(observed) = observed {
            for (number, one) in paths.iter().enumerate() {
                for other in &paths[number + 1..] {
                    let pair = observed.pair(one.slot, other.slot);
                    pairs.extend(PairInfo::of(one, other, &pair));
                }
            }
        }
        SessionInfo {
            first_packets: traffic.rx_pkts.saturating_sub(traffic.rx_dups),
            first_bytes: traffic.rx_bytes.saturating_sub(counts.copied_bytes),
            copies: traffic.rx_dups,
            late: counts.late,
            residual_loss_out: observed.and_then(Observed::residual_loss),
            samples_out: observed.map_or(0, Observed::samples),
            pairs,
            ..SessionInfo::default()
        }
    }
}

impl PairInfo {
    fn of(one: &PathInfo, other: &PathInfo, pair: &Pair) -> Option<PairInfo> {
        let share = |count: f32| f64::from(count) / f64::from(pair.sent);
        // What is told of a pair goes by the order of the slots.
        let (lost_one, lost_other) = match one.slot < other.slot {
            true => (pair.lost_low, pair.lost_high),
            false => (pair.lost_high, pair.lost_low),
        };
        (pair.sent >= 1.0).then(|| PairInfo {
            one: one.id,
            other: other.id,
            samples: pair.sent.into(),
            lost_one: share(lost_one),
            lost_other: share(lost_other),
            lost_both: share(pair.lost_both),
            correlation: pair.correlation(),
        })
    }
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
    /// Packets sent, copies and control included, handshakes not.
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
    fn of(health: &Health) -> Self {
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
    pub(crate) fn measure(&mut self, now: Time, health: &Health) {
        self.quality = Quality::of(health);
        self.losses_out = health.losses(now, Direction::Out);
        self.losses_in = health.losses(now, Direction::In);
    }

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
    /// Packets sent, copies and control included, handshakes not.
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
    /// The option `mode` that counts for it, in both directions: it may have been set at its end.
    pub mode: &'static str,
    /// Packets that its receive window remembers.
    pub window: usize,
    /// Its tunnel as a whole.
    pub session: SessionInfo,
}

/// Counters of a whole endpoint.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Whether there is a session (client), or any peer (server).
    pub connected: bool,
    /// For how long the server has not answered on any path, from 5 s on; `None` while it does, at
    /// a server, and under the legacy protocol. A session outlives about three minutes of this.
    pub silent: Option<Duration>,
    /// Of all paths, and of all peers.
    pub traffic: Traffic,
    /// The option `mode` that counts in both directions: it may have been set at the server. Empty
    /// at a server, where every peer has its own.
    pub mode: &'static str,
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
    /// These by errno, those of paths that are gone included.
    pub errors: Vec<(i32, u64)>,
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
