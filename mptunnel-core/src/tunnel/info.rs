// SPDX-License-Identifier: BSD-2-Clause
//! What can be seen of a tunnel and its paths.

use super::{End, Tunnel};
use crate::PeerId;
use crate::io::client::ClientShared;
use crate::io::clock;
use crate::io::legacy;
use crate::options::PathSpec;
use crate::proto::client::{Client, ClientPath, PathState as SocketState};
use crate::proto::crypto::BACKEND;
use crate::proto::time::Time;
use crate::stats::{PathInfo, PathState, Quality, Stats, Traffic};
use std::borrow::Cow;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

impl Tunnel {
    /// All paths as they are now, in the order of their slots; none in a forked child.
    pub fn paths(&self) -> Vec<PathInfo> {
        if self.io.is_forked() {
            return Vec::new();
        }
        let now = clock::now();
        let mut paths: Vec<PathInfo> = match &self.io {
            End::Ours(io) => {
                let specs = self.specs.lock();
                let client = io.shared.control.lock();
                client
                    .paths()
                    .map(|path| info_of(&io.shared, now, &client, path, specs.get(&path.id)))
                    .collect()
            }
            End::Legacy(io) => io.paths(),
        };
        // In the order of their numbers, as the trend wants them: that of slots is another one once
        // a path was removed.
        let mut by_id: Vec<&mut PathInfo> = paths.iter_mut().collect();
        by_id.sort_by_key(|path| path.id);
        self.trend.lock().note(now, by_id.into_iter().map(|path| (PeerId(0), path)));
        paths
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
        Stats {
            connected: shared.view.get().is_some(),
            traffic: Traffic::of(shared.control.lock().counts()),
            drops: shared.plane.drops.snapshot(),
            unattributed: shared.plane.unattributed.load(Relaxed),
            queue_dropped: self.inbox.dropped(),
            reorder: shared.plane.order.get(),
            events_dropped: self.inbox.events_dropped(),
            socket_errors: shared.socket_errors.load(Relaxed),
            kernel_dropped: shared.kernel_dropped(),
            receive_buffer,
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
) -> PathInfo {
    let (remote, max_packet) = match path.state {
        SocketState::Open { route, max_packet } => (Some(route.remote), max_packet),
        SocketState::Closed => (None, 0),
    };
    let (state, reason) = state_of(shared, now, path);
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
        max_packet,
        quality: Quality::of(&path.probe.health),
        ..PathInfo::default()
    };
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
