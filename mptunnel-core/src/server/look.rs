// SPDX-License-Identifier: BSD-2-Clause
//! What can be seen of a server's end.

use super::{End, Server};
use crate::io::clock;
use crate::io::server::ServerShared;
use crate::options::Role;
use crate::proto::arrivals::Observed;
use crate::proto::route::PathCounts;
use crate::proto::server::{Peer, Slot};
use crate::proto::time::Time;
use crate::snapshot::Snapshot;
use crate::stats::{PathInfo, PathState, PeerInfo, SessionInfo, Stats, Traffic, Worth};
use crate::{Error, PathId, PeerId};
use std::hint::black_box;
use std::sync::Arc;

impl Server {
    /// All clients, in the order in which they came; none in a forked child. Looks at each of them
    /// anew, so that every value is of this moment, some milliseconds for thousands of clients:
    /// [`snapshot`](Self::snapshot) is cheaper.
    pub fn peers(&self) -> Vec<PeerInfo> {
        if self.io.is_forked() {
            return Vec::new();
        }
        let now = clock::now();
        let mut peers: Vec<PeerInfo> = match &self.io {
            End::Ours(io) => at_each(&io.shared, |peer| {
                let mut info = PeerInfo::default();
                see(now, peer, &mut info);
                info
            }),
            End::Legacy(io) => io.peers(),
        };
        peers.sort_by_key(|peer| peer.id);
        self.trend.lock().note(now, peers.iter_mut().flat_map(paths_of));
        peers
    }

    /// How many clients are connected.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn peer_count(&self) -> Result<usize, Error> {
        if self.io.is_forked() {
            return Err(Error::Forked);
        }
        Ok(match &self.io {
            End::Ours(io) => io.shared.control.lock().peer_count(),
            End::Legacy(io) => io.peers().len(),
        })
    }

    /// The clients that are connected, in the order in which they came: without looking at them.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn peer_ids(&self) -> Result<Vec<PeerId>, Error> {
        if self.io.is_forked() {
            return Err(Error::Forked);
        }
        let mut ids: Vec<PeerId> = match &self.io {
            End::Ours(io) => io.shared.control.lock().peers().map(|peer| peer.id).collect(),
            End::Legacy(io) => io.peers().iter().map(|peer| peer.id).collect(),
        };
        ids.sort_unstable();
        Ok(ids)
    }

    /// One client.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`] if it is not connected; [`Error::Forked`].
    pub fn peer(&self, peer: PeerId) -> Result<PeerInfo, Error> {
        if self.io.is_forked() {
            return Err(Error::Forked);
        }
        let now = clock::now();
        let info = match &self.io {
            End::Ours(io) => {
                let mut info = PeerInfo::default();
                let server = io.shared.control.lock();
                server.peer(peer.client()).map(|peer| {
                    see(now, peer, &mut info);
                    info
                })
            }
            End::Legacy(io) => io.peers().into_iter().find(|info| info.id == peer.client()),
        };
        let mut info = info.ok_or(Error::UnknownPeer(peer))?;
        let id = info.id;
        let trend = self.trend.lock();
        let mut teller = trend.teller(now);
        for path in &mut info.paths {
            teller.tell(0, id, path);
        }
        Ok(info)
    }

    /// The paths of one client.
    ///
    /// # Errors
    /// As [`peer`](Self::peer).
    pub fn paths(&self, peer: PeerId) -> Result<Vec<PathInfo>, Error> {
        self.peer(peer).map(|peer| peer.paths)
    }

    /// Counters of the whole server; none in a forked child. Looks only at clients to whom something
    /// happened since the last call, as [`snapshot`](Self::snapshot) does.
    pub fn stats(&self) -> Stats {
        if self.io.is_forked() {
            return Stats::default();
        }
        let (has_peers, traffic) = match &self.io {
            End::Ours(io) => self.seen.lock().sums(clock::now(), &io.shared),
            End::Legacy(io) => (io.is_ready(), Traffic::of(io.counts())),
        };
        self.stats_of(has_peers, traffic)
    }

    fn stats_of(&self, has_peers: bool, traffic: Traffic) -> Stats {
        let shared = match &self.io {
            End::Ours(io) => &io.shared,
            End::Legacy(io) => {
                return Stats::of_legacy(
                    &self.inbox,
                    io.is_ready(),
                    traffic,
                    io.drops(),
                    io.errors(),
                    io.kernel(),
                );
            }
        };
        let sockets = shared.listeners.iter().flatten();
        Stats {
            connected: has_peers,
            kernel_dropped: sockets.clone().map(|s| u64::from(s.receive_drops())).sum(),
            receive_buffer: sockets.clone().next().map_or(0, |s| s.granted_buffers().recv),
            ..Stats::of(&shared.plane, &self.inbox, traffic, &shared.errors)
        }
    }

    /// Everything that can be seen of the server.
    ///
    /// Looks only at clients to whom something happened since the last snapshot: of the others, all
    /// that changes because time passes ([`PathInfo::since`], what changed or was lost lately, the
    /// seconds in a reason) is up to a second old. The first datagrams that a client sends after a
    /// pause may be counted with its next probe only (client's option `probe-interval`). Cheapest
    /// once the last snapshot was dropped, whose memory is used again.
    pub fn snapshot(&self) -> Snapshot {
        let (peers, traffic) = match &self.io {
            _ if self.io.is_forked() => Default::default(),
            End::Ours(io) => {
                let mut seen = self.seen.lock();
                let mut trend = self.trend.lock();
                seen.look(clock::now(), &io.shared, &mut trend)
            }
            End::Legacy(io) => (Arc::new(self.peers()), Traffic::of(io.counts())),
        };
        Snapshot {
            role: Role::Server,
            version: env!("CARGO_PKG_VERSION"),
            key_ids: self.key_ids.clone(),
            stats: self.stats_of(!peers.is_empty(), traffic),
            paths: Vec::new(),
            peers,
            session: SessionInfo::default(),
            relay: None,
        }
    }
}

/// Clients that are looked at under one lock, for some tenths of a millisecond: others, who may have
/// packets to answer, wait for no longer.
pub(super) const AT_ONCE: usize = 64;

/// Looks at all clients that there are now, in no order.
fn at_each<T>(shared: &ServerShared, look: impl Fn(&Peer) -> T) -> Vec<T> {
    let ids: Vec<PeerId> = shared.control.lock().peers().map(|peer| peer.id).collect();
    let mut all = Vec::with_capacity(ids.len());
    for some in ids.chunks(AT_ONCE) {
        {
            let server = shared.control.lock();
            all.extend(some.iter().filter_map(|id| server.peer(*id)).map(&look));
        }
        shared.control.give_way();
    }
    all
}

/// The paths of a client, for the trend.
pub(super) fn paths_of(peer: &mut PeerInfo) -> impl Iterator<Item = (PeerId, &mut PathInfo)> {
    let id = peer.id;
    peer.paths.iter_mut().map(move |path| (id, path))
}

/// Has what [`see`] reads of some clients fetched from memory. What they have stands in many places,
/// each of which tells where the next one is: who looks at one client after the other waits for each
/// of them in turn, but a processor waits for many at a time if nothing else lies between.
pub(super) fn fetch<'p>(peers: impl Iterator<Item = &'p Peer> + Clone) {
    for peer in peers.clone() {
        black_box((peer.epoch, peer.current.last_data(), peer.current.cipher()));
    }
    let slots = peers.flat_map(|peer| peer.slots().map(move |slot| (peer, slot)));
    let slots: Vec<(&Peer, &Slot)> = slots.collect();
    for (_, slot) in &slots {
        black_box((slot.last_seq, slot.silent, slot.active.is_some(), slot.pmtu.size()));
    }
    for (peer, slot) in &slots {
        let health = &slot.probe.health;
        black_box((peer.current.path(slot.id).heard_us(), health.srtt(), slot.total.tx_pkts));
    }
}

/// The same for what it writes.
pub(super) fn fetch_infos<'p>(infos: impl Iterator<Item = &'p PeerInfo>) {
    for path in infos.flat_map(|info| &info.paths) {
        black_box((path.slot, path.since, path.received, path.worth_in.samples));
        black_box((path.losses_in.total.sent, path.quality.rtt, path.last_10s.is_some()));
    }
}

/// Looks at a client; what it has counted.
pub(super) fn see(now: Time, peer: &Peer, info: &mut PeerInfo) -> PathCounts {
    let mut counts = peer.gone();
    let mut number = 0;
    // No room for four where there are two.
    info.paths.reserve_exact(peer.slots().size_hint().0.saturating_sub(info.paths.len()));
    for slot in peer.slots() {
        if info.paths.len() == number {
            info.paths.push(PathInfo { slot: u8::MAX, ..PathInfo::default() });
        }
        counts += see_path(now, peer, slot, &mut info.paths[number]);
        number += 1;
    }
    info.paths.truncate(number);
    let session = SessionInfo::new(counts, peer.session_counts(), &info.paths, peer.observed());
    info.id = peer.id;
    info.restarts = peer.epoch;
    info.session = SessionInfo { rekeys: peer.rekeys, peer_restarts: peer.epoch, ..session };
    info.traffic = Traffic::of(counts);
    info.cipher = peer.current.cipher().name();
    info.mode = peer.agreement().policy().mode.word();
    info.window = peer.current.window_bits();
    counts
}

fn see_path(now: Time, peer: &Peer, slot: &Slot, info: &mut PathInfo) -> PathCounts {
    let (state, reason) = match slot {
        Slot { active: None, .. } => (PathState::Starting, "its address is not proven yet".into()),
        Slot { silent: true, last_heard, .. } => {
            let seconds = now.since(*last_heard).as_secs();
            (PathState::Down, format!("no probe of the client came for {seconds} s").into())
        }
        _ => (PathState::Up, "the client's probes come".into()),
    };
    let score = |of: fn(&Observed, u8) -> _| {
        peer.observed().map_or_else(Worth::default, |observed| Worth::of(of(observed, slot.id)))
    };
    if info.slot != slot.id {
        // Who looks again and again makes no new text of what stays.
        *info = PathInfo {
            id: PathId::of_slot(slot.id),
            slot: slot.id,
            name: format!("path {}", slot.id),
            ..PathInfo::default()
        };
    }
    info.up = state == PathState::Up;
    info.state = state;
    info.reason = reason;
    info.since = now.since(slot.since());
    info.backup = slot.backup;
    info.remote = slot.active.map(|route| route.remote);
    info.remote_before = peer.led_before(slot.id);
    info.worth_out = score(Observed::outgoing);
    info.worth_in = score(Observed::incoming);
    info.max_packet = slot.pmtu.size();
    info.queue = peer.pace_in_force(slot.id).map(|pace| pace.waiting(now));
    info.measure(now, &slot.probe.health);
    let counts = peer.slot_counts(slot);
    info.count(counts);
    counts
}
