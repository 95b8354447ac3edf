// SPDX-License-Identifier: BSD-2-Clause
//! What can be seen of a client's end.

use super::{End, Tunnel};
use crate::PeerId;
use crate::io::client::{ClientShared, SocketTable};
use crate::io::clock;
use crate::io::legacy;
use crate::options::{PathSpec, Role};
use crate::proto::arrivals::Observed;
use crate::proto::client::{Client, ClientPath, PathState as SocketState};
use crate::proto::crypto::BACKEND;
use crate::proto::time::Time;
use crate::snapshot::Snapshot;
use crate::stats::{PathInfo, PathState, SessionInfo, Stats, Traffic, Worth};
use std::borrow::Cow;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

impl Tunnel {
    /// Everything that can be seen of the tunnel.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            role: Role::Client,
            version: env!("CARGO_PKG_VERSION"),
            key_ids: vec![self.key_id.clone()],
            stats: self.stats(),
            paths: self.paths(),
            peers: Vec::new(),
            session: self.session(),
            relay: None,
        }
    }

    /// All paths as they are now, in the order of their slots; none in a forked child.
    pub fn paths(&self) -> Vec<PathInfo> {
        self.paths_and_session().0
    }

    /// The tunnel as a whole.
    pub fn session(&self) -> SessionInfo {
        self.paths_and_session().1
    }

    fn paths_and_session(&self) -> (Vec<PathInfo>, SessionInfo) {
        if self.io.is_forked() {
            return (Vec::new(), SessionInfo::default());
        }
        let now = clock::now();
        let (mut paths, session) = match &self.io {
            End::Ours(io) => self.look(&io.shared, now),
            End::Legacy(io) => (io.paths(), SessionInfo::default()),
        };
        // In the order of their numbers, as the trend wants them: that of slots is another one once
        // a path was removed.
        let mut by_id: Vec<&mut PathInfo> = paths.iter_mut().collect();
        by_id.sort_by_key(|path| path.id);
        self.trend.lock().note(now, by_id.into_iter().map(|path| (PeerId(0), path)));
        (paths, session)
    }

    fn look(&self, shared: &ClientShared, now: Time) -> (Vec<PathInfo>, SessionInfo) {
        let specs = self.specs.lock();
        let client = shared.control.lock();
        let sockets = shared.sockets.read().clone();
        let info =
            |path: &ClientPath| info_of(shared, now, &client, path, specs.get(&path.id), &sockets);
        let paths: Vec<PathInfo> = client.paths().map(info).collect();
        let mut session =
            SessionInfo::new(client.counts(), client.session_counts(), &paths, client.observed());
        (session.rekeys, session.peer_restarts) = client.renewals();
        (paths, session)
    }

    /// Counters of the tunnel.
    pub fn stats(&self) -> Stats {
        let shared = match &self.io {
            End::Ours(io) => &io.shared,
            End::Legacy(io) => return self.legacy_stats(io),
        };
        let sockets = shared.sockets.read().clone();
        let first = sockets.iter().flatten().next();
        let receive_buffer = first.map_or(0, |path| path.socket.granted_buffers().recv);
        let (counts, mode) = {
            let client = shared.control.lock();
            (client.counts(), client.agreement().policy().mode.word())
        };
        Stats {
            connected: shared.view.get().is_some(),
            traffic: Traffic::of(counts),
            drops: shared.plane.drops.snapshot(),
            unattributed: shared.plane.unattributed.load(Relaxed),
            queue_dropped: self.inbox.dropped(),
            reorder: shared.plane.order.get(),
            events_dropped: self.inbox.events_dropped(),
            socket_errors: shared.errors.total(),
            errors: Vec::new(),
            kernel_dropped: shared.kernel_dropped(),
            receive_buffer,
            mode,
            cipher: shared.view.get().map_or("", |view| view.session.cipher().name()),
            backend: BACKEND,
        }
    }

    fn legacy_stats(&self, io: &legacy::ClientIo) -> Stats {
        let (kernel_dropped, receive_buffer) = io.kernel();
        Stats {
            connected: io.is_connected(),
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
}

fn info_of(
    shared: &ClientShared,
    now: Time,
    client: &Client,
    path: &ClientPath,
    spec: Option<&PathSpec>,
    sockets: &SocketTable,
) -> PathInfo {
    let (remote, max_packet) = match path.state {
        SocketState::Open { route, max_packet } => (Some(route.remote), max_packet),
        SocketState::Closed => (None, 0),
    };
    let (state, reason) = state_of(shared, now, path);
    let socket = sockets.iter().flatten().find(|socket| socket.path == path.id);
    let before = socket.and_then(|socket| socket.before);
    let score = |of: fn(&Observed, u8) -> _| {
        client.observed().map_or_else(Worth::default, |o| Worth::of(of(o, path.slot)))
    };
    let mut info = PathInfo {
        id: path.id,
        slot: path.slot,
        name: path.settings.name.clone(),
        words: spec.map(PathSpec::to_string).unwrap_or_default(),
        up: path.up,
        state,
        reason,
        since: now.since(path.since),
        backup: path.settings.backup,
        remote,
        local: socket.and_then(|socket| socket.local),
        remote_before: before.map(|(_, remote)| remote),
        local_before: before.map(|(local, _)| local),
        max_packet,
        queue: path.pace.as_ref().map(|pace| pace.waiting(now)),
        worth_out: score(Observed::outgoing),
        worth_in: score(Observed::incoming),
        errors: shared.errors.of(path.id),
        ..PathInfo::default()
    };
    info.measure(now, &path.probe.health);
    info.count(client.path_counts(path));
    info
}

/// The state of a path, and why it is so.
fn state_of(shared: &ClientShared, now: Time, path: &ClientPath) -> (PathState, Cow<'static, str>) {
    let trouble = || shared.jobs.trouble(path.id);
    let because = |trouble: Option<String>| trouble.map_or(String::new(), |t| format!(": {t}"));
    match (path.state, path.up) {
        (SocketState::Closed, _) => {
            let why = trouble().unwrap_or_else(|| "its socket is being opened".to_owned());
            (PathState::NoSocket, why.into())
        }
        (_, true) => (PathState::Up, "its probes are answered".into()),
        (_, false) if !path.has_answered() => {
            let why = format!("nothing has answered yet{}", because(trouble()));
            (PathState::Starting, why.into())
        }
        (_, false) => {
            let silent = path.probe.missed_since().map_or(Duration::ZERO, |at| now.since(at));
            let seconds = silent.as_secs();
            let why = format!("no probe was answered for {seconds} s{}", because(trouble()));
            (PathState::Down, why.into())
        }
    }
}
