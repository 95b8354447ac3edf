// SPDX-License-Identifier: BSD-2-Clause
//! What can be seen of a server's end.

use super::{End, Server};
use crate::io::clock;
use crate::options::Role;
use crate::proto::arrivals::Observed;
use crate::proto::route::PathCounts;
use crate::proto::server::{Peer, Slot};
use crate::proto::time::Time;
use crate::snapshot::Snapshot;
use crate::stats::{PathInfo, PathState, PeerInfo, SessionInfo, Stats, Traffic, Worth};
use crate::{Error, PathId, PeerId};

impl Server {
    /// All clients, in the order in which they came; none in a forked child.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.look().0
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

    /// All clients, and what they and those that are gone have counted, in one pass.
    fn look(&self) -> (Vec<PeerInfo>, Traffic) {
        if self.io.is_forked() {
            return Default::default();
        }
        let now = clock::now();
        let (mut peers, counts) = match &self.io {
            End::Ours(io) => {
                let server = io.shared.control.lock();
                let mut counts = server.gone();
                let info = |peer: &Peer| {
                    let (info, its) = info_of(now, peer);
                    counts += its;
                    info
                };
                (server.peers().map(info).collect(), counts)
            }
            End::Legacy(io) => (io.peers(), io.counts()),
        };
        peers.sort_by_key(|peer| peer.id);
        let paths = peers.iter_mut().flat_map(|peer| {
            let id = peer.id;
            peer.paths.iter_mut().map(move |path| (id, path))
        });
        self.trend.lock().note(now, paths);
        (peers, Traffic::of(counts))
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
                io.shared.control.lock().peer(peer.client()).map(|p| info_of(now, p).0)
            }
            End::Legacy(io) => io.peers().into_iter().find(|info| info.id == peer.client()),
        };
        let mut info = info.ok_or(Error::UnknownPeer(peer))?;
        let id = info.id;
        self.trend.lock().tell(now, info.paths.iter_mut().map(|path| (id, path)));
        Ok(info)
    }

    /// The paths of one client.
    ///
    /// # Errors
    /// As [`peer`](Self::peer).
    pub fn paths(&self, peer: PeerId) -> Result<Vec<PathInfo>, Error> {
        self.peer(peer).map(|peer| peer.paths)
    }

    /// Counters of the whole server; none in a forked child.
    pub fn stats(&self) -> Stats {
        if self.io.is_forked() {
            return Stats::default();
        }
        let (has_peers, counts) = match &self.io {
            End::Ours(io) => {
                let server = io.shared.control.lock();
                (server.peer_count() > 0, server.counts())
            }
            End::Legacy(io) => (io.is_ready(), io.counts()),
        };
        self.stats_of(has_peers, Traffic::of(counts))
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
                    io.socket_errors(),
                    io.kernel(),
                );
            }
        };
        let sockets = shared.listeners.iter().flatten();
        Stats {
            connected: has_peers,
            socket_errors: shared.errors.total(),
            errors: shared.errors.of(PathId(0)),
            kernel_dropped: sockets.clone().map(|s| u64::from(s.receive_drops())).sum(),
            receive_buffer: sockets.clone().next().map_or(0, |s| s.granted_buffers().recv),
            ..Stats::of(&shared.plane, &self.inbox, traffic)
        }
    }

    /// Everything that can be seen of the server.
    pub fn snapshot(&self) -> Snapshot {
        let (peers, traffic) = self.look();
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

/// A client, and what it has counted.
fn info_of(now: Time, peer: &Peer) -> (PeerInfo, PathCounts) {
    let mut counts = peer.gone();
    let path = |slot: &Slot| {
        let (info, its) = path_of(now, peer, slot);
        counts += its;
        info
    };
    let paths: Vec<PathInfo> = peer.slots().map(path).collect();
    let session = SessionInfo::new(counts, peer.session_counts(), &paths, peer.observed());
    let info = PeerInfo {
        id: peer.id,
        restarts: peer.epoch,
        session: SessionInfo { rekeys: peer.rekeys, peer_restarts: peer.epoch, ..session },
        paths,
        traffic: Traffic::of(counts),
        cipher: peer.current.cipher().name(),
        mode: peer.agreement().policy().mode.word(),
        window: peer.current.window_bits(),
    };
    (info, counts)
}

fn path_of(now: Time, peer: &Peer, slot: &Slot) -> (PathInfo, PathCounts) {
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
    let mut info = PathInfo {
        id: PathId::of_slot(slot.id),
        slot: slot.id,
        name: format!("path {}", slot.id),
        up: state == PathState::Up,
        state,
        reason,
        since: now.since(slot.since()),
        backup: slot.backup,
        remote: slot.active.map(|route| route.remote),
        remote_before: peer.led_before(slot.id),
        worth_out: score(Observed::outgoing),
        worth_in: score(Observed::incoming),
        max_packet: slot.pmtu.size(),
        ..PathInfo::default()
    };
    info.measure(now, &slot.probe.health);
    let counts = peer.slot_counts(slot);
    info.count(counts);
    (info, counts)
}
