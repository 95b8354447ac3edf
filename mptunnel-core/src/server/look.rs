// SPDX-License-Identifier: BSD-2-Clause
//! What can be seen of a server's end.

use super::{End, Server};
use crate::io::clock;
use crate::io::legacy;
use crate::options::Role;
use crate::proto::arrivals::Observed;
use crate::proto::crypto::BACKEND;
use crate::proto::server::{Peer, Slot};
use crate::proto::time::Time;
use crate::snapshot::Snapshot;
use crate::stats::{PathInfo, PathState, PeerInfo, SessionInfo, Stats, Traffic, Worth};
use crate::{Error, PathId, PeerId};
use std::sync::atomic::Ordering::Relaxed;

impl Server {
    /// All clients, in the order in which they came; none in a forked child.
    pub fn peers(&self) -> Vec<PeerInfo> {
        if self.io.is_forked() {
            return Vec::new();
        }
        let now = clock::now();
        let mut peers: Vec<PeerInfo> = match &self.io {
            End::Ours(io) => {
                io.shared.control.lock().peers().map(|peer| info_of(now, peer)).collect()
            }
            End::Legacy(io) => io.peers(),
        };
        peers.sort_by_key(|peer| peer.id);
        let paths = peers.iter_mut().flat_map(|peer| {
            let id = peer.id;
            peer.paths.iter_mut().map(move |path| (id, path))
        });
        self.trend.lock().note(now, paths);
        peers
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
            End::Ours(io) => io.shared.control.lock().peer(peer.client()).map(|p| info_of(now, p)),
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

    /// Counters of the whole server.
    pub fn stats(&self) -> Stats {
        let shared = match &self.io {
            End::Ours(io) => &io.shared,
            End::Legacy(io) => return self.legacy_stats(io),
        };
        let sockets = shared.listeners.iter().flatten();
        let first = sockets.clone().next();
        let (connected, counts) = {
            let server = shared.control.lock();
            (server.peers().next().is_some(), server.counts())
        };
        Stats {
            connected,
            traffic: Traffic::of(counts),
            drops: shared.plane.drops.snapshot(),
            unattributed: shared.plane.unattributed.load(Relaxed),
            queue_dropped: self.inbox.dropped(),
            reorder: shared.plane.order.get(),
            events_dropped: self.inbox.events_dropped(),
            socket_errors: shared.errors.total(),
            errors: shared.errors.of(PathId(0)),
            kernel_dropped: sockets.map(|s| u64::from(s.receive_drops())).sum(),
            receive_buffer: first.map_or(0, |s| s.granted_buffers().recv),
            mode: "",
            cipher: "",
            backend: BACKEND,
        }
    }

    fn legacy_stats(&self, io: &legacy::ServerIo) -> Stats {
        let (kernel_dropped, receive_buffer) = io.kernel();
        Stats {
            connected: io.is_ready(),
            traffic: Traffic::of(io.counts()),
            drops: io.drops().snapshot(),
            queue_dropped: self.inbox.dropped(),
            events_dropped: self.inbox.events_dropped(),
            socket_errors: io.socket_errors(),
            kernel_dropped,
            receive_buffer,
            cipher: "none",
            backend: BACKEND,
            ..Stats::default()
        }
    }

    /// Everything that can be seen of the server.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            role: Role::Server,
            version: env!("CARGO_PKG_VERSION"),
            key_ids: self.key_ids.clone(),
            stats: self.stats(),
            paths: Vec::new(),
            peers: self.peers(),
            session: SessionInfo::default(),
            relay: None,
        }
    }
}

fn info_of(now: Time, peer: &Peer) -> PeerInfo {
    let paths: Vec<PathInfo> = peer.slots().map(|slot| path_of(now, peer, slot)).collect();
    let session = SessionInfo::new(peer.counts(), peer.session_counts(), &paths, peer.observed());
    PeerInfo {
        id: peer.id,
        restarts: peer.epoch,
        session: SessionInfo { rekeys: peer.rekeys, peer_restarts: peer.epoch, ..session },
        paths,
        traffic: Traffic::of(peer.counts()),
        cipher: peer.current.cipher().name(),
        mode: peer.agreement().policy().mode.word(),
        window: peer.current.window_bits(),
    }
}

fn path_of(now: Time, peer: &Peer, slot: &Slot) -> PathInfo {
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
    info.count(peer.slot_counts(slot));
    info
}
