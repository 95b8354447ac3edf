// SPDX-License-Identifier: BSD-2-Clause
//! What can be seen of a client's end.

use super::{End, Tunnel};
use crate::PeerId;
use crate::io::client::{ClientShared, SocketTable};
use crate::io::clock;
use crate::options::{PathSpec, Role};
use crate::proto::arrivals::Observed;
use crate::proto::client::{Client, ClientPath, PathState as SocketState};
use crate::proto::time::Time;
use crate::snapshot::Snapshot;
use crate::stats::{PathInfo, PathState, SessionInfo, Stats, Traffic, Worth};
use std::borrow::Cow;
use std::sync::Arc;

impl Tunnel {
    /// Everything that can be seen of the tunnel.
    pub fn snapshot(&self) -> Snapshot {
        let seen = self.look();
        Snapshot {
            role: Role::Client,
            version: env!("CARGO_PKG_VERSION"),
            key_ids: vec![self.key_id.clone()],
            stats: seen.stats,
            paths: seen.paths,
            peers: Arc::default(),
            session: seen.session,
            relay: None,
        }
    }

    /// All paths as they are now, in the order of their slots; none in a forked child.
    pub fn paths(&self) -> Vec<PathInfo> {
        self.look().paths
    }

    /// The tunnel as a whole.
    pub fn session(&self) -> SessionInfo {
        self.look().session
    }

    /// Counters of the tunnel; none in a forked child.
    pub fn stats(&self) -> Stats {
        self.look().stats
    }

    /// Everything, in one pass.
    fn look(&self) -> Seen {
        if self.io.is_forked() {
            return Seen::default();
        }
        let now = clock::now();
        let mut seen = match &self.io {
            End::Ours(io) => self.look_at(&io.shared, now),
            End::Legacy(io) => Seen {
                paths: io.paths(),
                session: SessionInfo::default(),
                stats: Stats::of_legacy(
                    &self.inbox,
                    io.is_connected(),
                    Traffic::of(io.counts()),
                    io.drops(),
                    io.errors(),
                    io.kernel(),
                ),
            },
        };
        // In the order of their numbers, as the trend wants them: that of slots is another one once
        // a path was removed.
        let mut by_id: Vec<&mut PathInfo> = seen.paths.iter_mut().collect();
        by_id.sort_by_key(|path| path.id);
        self.trend.lock().note(now, by_id.into_iter().map(|path| (PeerId(0), path)));
        seen
    }

    fn look_at(&self, shared: &ClientShared, now: Time) -> Seen {
        let specs = self.specs.lock();
        let sockets = shared.sockets.read().clone();
        let view = shared.view.get();
        let client = shared.control.lock();
        let mut counts = client.gone();
        let info = |path: &ClientPath| {
            let its = client.path_counts(path);
            counts += its;
            let mut info = info_of(shared, now, &client, path, specs.get(&path.id), &sockets);
            info.count(its);
            info
        };
        let paths: Vec<PathInfo> = client.paths().map(info).collect();
        let mut session =
            SessionInfo::new(counts, client.session_counts(), &paths, client.observed());
        (session.rekeys, session.peer_restarts) = client.renewals();
        let mode = client.agreement().policy().mode.word();
        let silent = client.silent_for(now);
        drop(client);
        let first = sockets.iter().flatten().next();
        let stats = Stats {
            connected: view.is_some(),
            silent,
            kernel_dropped: shared.kernel_dropped(),
            receive_buffer: first.map_or(0, |path| path.socket.granted_buffers().recv),
            mode,
            cipher: view.map_or("", |view| view.session.cipher().name()),
            ..Stats::of(&shared.plane, &self.inbox, Traffic::of(counts), &shared.errors)
        };
        Seen { paths, session, stats }
    }
}

/// What one look sees.
#[derive(Default)]
struct Seen {
    paths: Vec<PathInfo>,
    session: SessionInfo,
    stats: Stats,
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
    let (state, reason) = state_of(shared, now, client, path);
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
        queue: path.throttle.pace().map(|pace| pace.waiting(now)),
        worth_out: score(Observed::outgoing),
        worth_in: score(Observed::incoming),
        errors: shared.errors.of(path.id),
        ..PathInfo::default()
    };
    info.measure(now, &path.probe.health);
    info
}

/// The state of a path, and why it is so.
fn state_of(
    shared: &ClientShared,
    now: Time,
    client: &Client,
    path: &ClientPath,
) -> (PathState, Cow<'static, str>) {
    let trouble = || shared.jobs.trouble(path.id);
    let because = |trouble: Option<String>| trouble.map_or(String::new(), |t| format!(": {t}"));
    let has_session = client.status().connected;
    match (path.state, path.up) {
        (SocketState::Closed, _) => {
            let why = trouble().unwrap_or_else(|| "its socket is being opened".to_owned());
            (PathState::NoSocket, why.into())
        }
        (_, true) if !has_session => {
            let why = "the server went away, or the session is too old; a new one is asked for";
            (PathState::Starting, why.into())
        }
        (_, true) => (PathState::Up, "its probes are answered".into()),
        (_, false) if !path.has_answered() => {
            let why = format!("nothing has answered yet{}", because(trouble()));
            (PathState::Starting, why.into())
        }
        (_, false) => {
            // Without a session there are no probes.
            let missed = path.probe.missed_since().filter(|_| has_session);
            let seconds = now.since(missed.unwrap_or(path.since)).as_secs();
            let what = if has_session { "no probe was" } else { "no handshake was" };
            let why = format!("{what} answered for {seconds} s{}", because(trouble()));
            (PathState::Down, why.into())
        }
    }
}
