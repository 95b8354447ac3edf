// SPDX-License-Identifier: BSD-2-Clause
//! The thread that gives each path of a client its socket: names, interfaces, back-off.
//!
//! A path that cannot have a socket now waits and tries again, without holding up the others; one
//! event says why. Names are looked up on a thread of their own, because a lookup may take as
//! long as it likes.

use super::client::{ClientShared, PathSocket, slot_of};
use super::clock;
use super::socket::{Family, SocketConfig, SocketError, UdpSocket};
use crate::Event;
use crate::hook::SocketHook;
use crate::options::{HostPort, PathSpec};
use crate::proto::event::{PathId, Reopen};
use crate::proto::route::Route;
use crate::proto::time::Time;
use crate::proto::wire::MAX_DATAGRAM;
use crate::sync::{Condvar, Mutex};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// The first pause after a failure; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A name that worked is looked up again at most this often.
const RESOLVE_AGAIN: Duration = Duration::from_secs(5);
/// The same error of a path is told again after this.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// What a socket reported explains the silence of its path for this long.
const TROUBLE_COUNTS: Duration = Duration::from_secs(20);
/// Tries to get the same port back while the old socket is on its way out.
const SAME_PORT_TRIES: u32 = 10;

/// Something for the thread to do.
pub(crate) enum PathJob {
    /// A new path wants a socket.
    Open(Box<PathPlan>),
    /// The state machine wants another socket for a path.
    Reopen(Reopen),
    /// The path is gone.
    Close(PathId),
    /// A path is to be as described here from now on.
    Change(PathId, HostPort, Box<PathSpec>),
    /// A socket reported this errno.
    Trouble(PathId, i32),
    /// A path answers: what was said about its trouble is past.
    Answers(PathId),
    /// A packet did not fit the path.
    CheckMtu(PathId),
    /// Routers may have reported smaller MTUs.
    CheckAllMtus,
    /// A path does not answer, or not yet: its interface may have another address now.
    CheckSource(PathId),
    /// A lookup ended.
    Resolved(PathId, Result<Vec<SocketAddr>, String>),
}

impl PathJob {
    /// Whether it only tells something that will be told again if it lasts.
    fn is_news_only(&self) -> bool {
        match self {
            PathJob::Trouble(..)
            | PathJob::CheckMtu(_)
            | PathJob::CheckAllMtus
            | PathJob::CheckSource(_) => true,
            PathJob::Open(_)
            | PathJob::Reopen(_)
            | PathJob::Close(_)
            | PathJob::Change(..)
            | PathJob::Answers(_)
            | PathJob::Resolved(..) => false,
        }
    }

    fn same_news(&self, other: &PathJob) -> bool {
        match (self, other) {
            (PathJob::Trouble(path, errno), PathJob::Trouble(other, code)) => {
                path == other && errno == code
            }
            (PathJob::CheckMtu(path), PathJob::CheckMtu(other))
            | (PathJob::CheckSource(path), PathJob::CheckSource(other)) => path == other,
            (PathJob::CheckAllMtus, PathJob::CheckAllMtus) => true,
            _ => false,
        }
    }
}

/// How a path gets its socket.
pub(crate) struct PathPlan {
    pub(crate) id: PathId,
    pub(crate) slot: u8,
    pub(crate) to: HostPort,
    pub(crate) spec: PathSpec,
    /// Bytes of socket buffer to ask for.
    pub(crate) buffer: usize,
    /// Whether the kernel may cut and join runs of packets.
    pub(crate) offload: bool,
    /// Bytes of a packet with all headers, if the user says so; 0 = ask the kernel.
    pub(crate) mtu: u16,
    /// Sees each socket before it is used.
    pub(crate) hook: Option<SocketHook>,
}

impl PathPlan {
    fn open(&self, config: &SocketConfig) -> Result<UdpSocket, SocketError> {
        let words = PathSpec { to: Some(self.to.clone()), ..self.spec.clone() };
        let words = || words.to_string();
        UdpSocket::open_with(config, |fd| SocketHook::call(self.hook.as_ref(), fd, &words()))
    }
}

/// The jobs of the thread, and the last trouble of each path.
#[derive(Default)]
pub(crate) struct PathJobs {
    state: Mutex<JobState>,
    news: Condvar,
}

#[derive(Default)]
struct JobState {
    jobs: VecDeque<PathJob>,
    stopped: bool,
    troubles: BTreeMap<PathId, (String, Time)>,
}

impl PathJobs {
    /// Adds a job.
    pub(crate) fn push(&self, job: PathJob) {
        let mut state = self.state.lock();
        // A dead bridge answers each packet with an error: once in the queue is enough.
        let known = job.is_news_only() && state.jobs.iter().any(|queued| queued.same_news(&job));
        if !known {
            state.jobs.push_back(job);
            self.news.notify_one();
        }
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.news.notify_all();
    }

    /// What was wrong with a path a moment ago.
    pub(crate) fn trouble(&self, path: PathId) -> Option<String> {
        let state = self.state.lock();
        let (why, at) = state.troubles.get(&path)?;
        (clock::now().since(*at) < TROUBLE_COUNTS).then(|| why.clone())
    }

    /// The path that was in trouble last, and why.
    pub(crate) fn last_trouble(&self) -> Option<(PathId, String)> {
        let state = self.state.lock();
        let (path, (why, _)) = state.troubles.iter().max_by_key(|(_, (_, at))| *at)?;
        Some((*path, why.clone()))
    }

    fn set_trouble(&self, path: PathId, why: &str) {
        self.state.lock().troubles.insert(path, (why.to_owned(), clock::now()));
    }

    fn end_trouble(&self, path: PathId) {
        self.state.lock().troubles.remove(&path);
    }

    /// The next job, or `None` at `until`; `Err` when it is over.
    fn next(&self, until: Time) -> Result<Option<PathJob>, ()> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return Err(());
            }
            if let Some(job) = state.jobs.pop_front() {
                return Ok(Some(job));
            }
            let left = until.since(clock::now());
            if left.is_zero() {
                return Ok(None);
            }
            let _ = self.news.wait_for(&mut state, left.min(Duration::from_secs(5)));
        }
    }
}

/// One path as this thread sees it; how it opens its socket is the same under the legacy protocol.
pub(super) struct Managed {
    pub(super) plan: PathPlan,
    pub(super) addresses: Vec<SocketAddr>,
    /// Which of the addresses is tried; the next one after a failure.
    pub(super) turn: usize,
    pub(super) resolved_at: Option<Time>,
    resolving: bool,
    port: u16,
    /// The addresses, local and remote, that its sockets had: those of the last one, and those
    /// before.
    addresses_now: Option<(SocketAddr, SocketAddr)>,
    addresses_before: Option<(SocketAddr, SocketAddr)>,
    wants_socket: bool,
    /// Whether the state machine believes that there is a socket.
    is_open: bool,
    fresh_port: bool,
    pause: Duration,
    next_try: Time,
    /// What was told last, until the path answers.
    told: Option<(String, Time)>,
}

/// The body of the thread.
pub(crate) fn run(shared: &Arc<ClientShared>) {
    let mut paths: BTreeMap<PathId, Managed> = BTreeMap::new();
    loop {
        let due = paths.values().filter(|p| p.wants_socket && !p.resolving).map(|p| p.next_try);
        let until = due.min().unwrap_or(Time::NEVER);
        match shared.jobs.next(until) {
            Err(()) => return,
            Ok(Some(job)) => take(shared, &mut paths, job),
            Ok(None) => {}
        }
        let now = clock::now();
        for path in paths.values_mut() {
            if path.wants_socket && !path.resolving && path.next_try <= now {
                path.attempt(shared, now);
            }
        }
    }
}

fn take(shared: &Arc<ClientShared>, paths: &mut BTreeMap<PathId, Managed>, job: PathJob) {
    let now = clock::now();
    match job {
        PathJob::Open(plan) => {
            paths.insert(plan.id, Managed::new(*plan, now));
        }
        PathJob::Close(id) => {
            // The slot may be another path's by now.
            if let Some(path) = paths.remove(&id) {
                shared.jobs.end_trouble(id);
                path.take_out(shared);
            }
        }
        PathJob::Change(id, to, spec) => {
            if let Some(path) = paths.get_mut(&id) {
                path.change(shared, now, to, *spec);
            }
        }
        PathJob::Reopen(reopen) => {
            if let Some(path) = paths.get_mut(&reopen.path) {
                log::debug!(
                    target: "mptunnel::path",
                    "path {}: making its socket anew", path.name()
                );
                path.wants_socket = true;
                path.fresh_port = reopen.fresh_port;
                path.turn = path.turn.wrapping_add(1);
                path.next_try = path.next_try.min(now);
            }
        }
        PathJob::Trouble(id, errno) => {
            if let Some(path) = paths.get_mut(&id) {
                path.on_trouble(shared, now, errno);
            }
        }
        PathJob::Answers(id) => {
            if let Some(path) = paths.get_mut(&id) {
                path.told = None;
                shared.jobs.end_trouble(id);
            }
        }
        PathJob::CheckMtu(id) => {
            if let Some(path) = paths.get(&id) {
                path.check_mtu(shared);
            }
        }
        PathJob::CheckSource(id) => {
            if let Some(path) = paths.get_mut(&id) {
                path.check_source(shared, now);
            }
        }
        PathJob::CheckAllMtus => {
            for path in paths.values() {
                path.check_mtu(shared);
            }
        }
        PathJob::Resolved(id, result) => {
            if let Some(path) = paths.get_mut(&id) {
                path.on_resolved(shared, now, result);
            }
        }
    }
}

impl Managed {
    pub(super) fn new(plan: PathPlan, now: Time) -> Self {
        Managed {
            addresses: plan.to.socket_addr().into_iter().collect(),
            plan,
            turn: 0,
            resolved_at: None,
            resolving: false,
            port: 0,
            addresses_now: None,
            addresses_before: None,
            wants_socket: true,
            is_open: false,
            fresh_port: false,
            pause: Duration::ZERO,
            next_try: now,
            told: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.plan.spec.name.as_deref().unwrap_or("?")
    }

    /// Takes over a new description, with a new socket if the old one does not fit it.
    fn change(&mut self, shared: &Arc<ClientShared>, now: Time, to: HostPort, spec: PathSpec) {
        let old = std::mem::replace(&mut self.plan.spec, spec);
        let new = &self.plan.spec;
        let elsewhere = self.plan.to != to;
        if elsewhere {
            self.addresses = to.socket_addr().into_iter().collect();
            (self.plan.to, self.turn, self.resolved_at) = (to, 0, None);
        }
        let same_socket = !elsewhere
            && old.interface == new.interface
            && old.source == new.source
            && old.mark == new.mark;
        if same_socket {
            self.check_mtu(shared);
        } else {
            (self.wants_socket, self.next_try) = (true, now);
        }
    }

    /// Tries to give the path a socket: looks the name up if that is due, or opens one.
    fn attempt(&mut self, shared: &Arc<ClientShared>, now: Time) {
        let is_name = self.plan.to.socket_addr().is_none();
        let stale = self.resolved_at.is_none_or(|at| now.since(at) >= RESOLVE_AGAIN);
        if is_name && stale {
            self.resolve(shared);
            return;
        }
        // The old socket has to go first: two cannot have one port.
        if self.port != 0 && !self.fresh_port {
            self.take_out(shared);
        }
        match self.open() {
            Ok((socket, remote)) => self.opened(shared, now, socket, remote),
            Err(why) => self.failed(shared, now, why),
        }
    }

    /// Looks the name up on another thread, which may take its time and is never waited for.
    fn resolve(&mut self, shared: &Arc<ClientShared>) {
        self.resolving = true;
        let (id, to) = (self.plan.id, self.plan.to.clone());
        let answer = shared.clone();
        let lookup = move || {
            let found = (to.host(), to.port()).to_socket_addrs();
            let result = found.map(Iterator::collect).map_err(|error| error.to_string());
            answer.jobs.push(PathJob::Resolved(id, result));
        };
        if let Err(error) = super::thread::start("mpt-resolve", lookup, |_| ()) {
            shared.jobs.push(PathJob::Resolved(id, Err(error.to_string())));
        }
    }

    fn on_resolved(
        &mut self,
        shared: &Arc<ClientShared>,
        now: Time,
        result: Result<Vec<SocketAddr>, String>,
    ) {
        self.resolving = false;
        match result {
            Ok(addresses) if !addresses.is_empty() => {
                self.resolved_at = Some(now);
                self.addresses = addresses;
                self.next_try = now;
            }
            Ok(_) => {
                let why = format!("the name {} has no address", self.plan.to.host());
                self.failed(shared, now, why);
            }
            Err(error) => {
                let why = format!("the name {} does not resolve ({error})", self.plan.to.host());
                // An address that worked before is better than none.
                if self.addresses.is_empty() {
                    self.failed(shared, now, why);
                } else {
                    log::debug!(target: "mptunnel::path", "path {}: {why}", self.name());
                    self.resolved_at = Some(now);
                    self.next_try = now;
                }
            }
        }
    }

    pub(super) fn open(&mut self) -> Result<(UdpSocket, SocketAddr), String> {
        let spec = &self.plan.spec;
        let fits = |a: &&SocketAddr| spec.source.is_none_or(|s| s.is_ipv4() == a.is_ipv4());
        let usable: Vec<SocketAddr> = self.addresses.iter().filter(fits).copied().collect();
        let Some(remote) = usable.get(self.turn.checked_rem(usable.len()).unwrap_or(0)).copied()
        else {
            return Err(format!("{} has no address of the family of src=", self.plan.to));
        };
        let source = spec.source.unwrap_or(match Family::of(remote) {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        });
        let port = if self.fresh_port { 0 } else { self.port };
        let mut config = SocketConfig::new(SocketAddr::new(source, port));
        config.interface.clone_from(&spec.interface);
        config.mark = spec.mark;
        config.recv_buffer = self.plan.buffer;
        config.send_buffer = self.plan.buffer;
        config.offload = self.plan.offload;
        let socket = self.bind(config).map_err(|error| self.explain(&error))?;
        socket.connect(remote).map_err(|error| self.explain(&error))?;
        Ok((socket, remote))
    }

    /// Binds, to the old port if possible: a plain forwarder knows the path by it. The old socket
    /// may still be held by a sender for a moment.
    fn bind(&self, mut config: SocketConfig) -> Result<UdpSocket, SocketError> {
        for _ in 0..SAME_PORT_TRIES {
            match self.plan.open(&config) {
                Err(e)
                    if config.local.port() != 0
                        && e.source.raw_os_error() == Some(libc::EADDRINUSE) =>
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
                other => return other,
            }
        }
        config.local.set_port(0);
        self.plan.open(&config)
    }

    /// An error with the thing and the remedy in it.
    fn explain(&self, error: &SocketError) -> String {
        let spec = &self.plan.spec;
        let interface = spec.interface.as_deref().unwrap_or("");
        match (error.op, error.source.raw_os_error()) {
            (_, Some(libc::ENODEV)) => format!("there is no interface {interface}"),
            (_, Some(libc::EADDRNOTAVAIL)) => match spec.source {
                Some(source) => format!("no interface has the address {source} (src=)"),
                None => "there is no local address for it".to_owned(),
            },
            (_, Some(libc::ENETUNREACH)) if !interface.is_empty() => {
                format!("there is no route to {} through {interface}", self.plan.to)
            }
            (_, Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => {
                format!("there is no route to {}", self.plan.to)
            }
            (op, _) => format!("{op}: {}", error.source),
        }
    }

    fn opened(
        &mut self,
        shared: &Arc<ClientShared>,
        now: Time,
        socket: UdpSocket,
        remote: SocketAddr,
    ) {
        let slot = usize::from(self.plan.slot);
        let id = shared.next_socket_id(self.plan.slot);
        debug_assert_eq!(slot_of(id), slot);
        let local = socket.local_addr().ok();
        self.port = local.map_or(0, |a| a.port());
        if let Some(now) = local.map(|local| (local, remote))
            && self.addresses_now != Some(now)
        {
            self.addresses_before = self.addresses_now.replace(now);
        }
        (self.wants_socket, self.fresh_port, self.pause) = (false, false, Duration::ZERO);
        let max_packet = self.max_packet(&socket, remote);
        log::debug!(target: "mptunnel::path", "path {}: port {} to {remote}", self.name(), self.port);
        let before = self.addresses_before;
        let socket = Arc::new(socket);
        let path = PathSocket { id, path: self.plan.id, remote, local, before, socket };
        shared.replace_socket(slot, Some(path));
        self.is_open = true;
        let route = Route { socket: id, remote, local: None };
        shared.with_control(|client, now| {
            client.path_opened(now, self.plan.id, route, max_packet);
        });
        // A socket that reports at once that it is dead is not replaced at once.
        self.next_try = now + FIRST_PAUSE;
    }

    fn failed(&mut self, shared: &Arc<ClientShared>, now: Time, why: String) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.next_try = now + self.pause;
        self.turn = self.turn.wrapping_add(1);
        shared.jobs.set_trouble(self.plan.id, &why);
        let had_socket = std::mem::take(&mut self.is_open);
        if had_socket || self.is_news(now, &why) {
            self.tell_down(shared, now, why);
        }
        self.take_out(shared);
        if had_socket {
            shared.with_control(|client, now| client.path_closed(now, self.plan.id));
        }
    }

    /// Takes this path's socket, and no other path's, out of the table.
    fn take_out(&self, shared: &ClientShared) {
        let slot = usize::from(self.plan.slot);
        let is_its = |p: &PathSocket| p.path == self.plan.id;
        if shared.sockets.read()[slot].as_ref().is_some_and(is_its) {
            shared.replace_socket(slot, None);
        }
    }

    fn tell_down(&mut self, shared: &ClientShared, now: Time, why: String) {
        shared.tell_event(Event::PathDown(self.plan.id, self.name().to_owned(), why.clone()));
        self.told = Some((why, now));
    }

    fn is_news(&self, now: Time, why: &str) -> bool {
        self.told.as_ref().is_none_or(|(old, at)| old != why || now.since(*at) >= TELL_AGAIN)
    }

    /// A socket reported an error: most say that nobody listens at the bridge, some that the socket
    /// itself is dead.
    fn on_trouble(&mut self, shared: &Arc<ClientShared>, now: Time, errno: i32) {
        let why = match errno {
            libc::ECONNREFUSED => format!("{} refuses: nothing listens there", self.plan.to),
            libc::EMSGSIZE => {
                self.check_mtu(shared);
                return;
            }
            libc::ENETUNREACH | libc::EHOSTUNREACH => format!("no route to {}", self.plan.to),
            errno => std::io::Error::from_raw_os_error(errno).to_string(),
        };
        shared.jobs.set_trouble(self.plan.id, &why);
        // Once, until it answers again: whoever does not listen refuses every probe. Of a path that
        // is up, the news is that it goes down, if it does; then this is told as the reason.
        let is_up = || shared.control.lock().paths().any(|path| path.id == self.plan.id && path.up);
        if self.told.is_none() && !is_up() {
            self.tell_down(shared, now, why);
        }
        if matches!(errno, libc::EADDRNOTAVAIL | libc::ENODEV | libc::ENXIO) {
            self.wants_socket = true;
        }
    }

    /// A connected socket keeps its source address when the interface gets another one, and no
    /// error tells: packets leave with an address that is gone (SagerNet/sing-box#1415). So the
    /// kernel is asked which one it would choose now; if that is another one, the socket is made
    /// anew at once, with the same port.
    fn check_source(&mut self, shared: &Arc<ClientShared>, now: Time) {
        if self.plan.spec.source.is_some() || self.wants_socket {
            return;
        }
        let table = shared.sockets.read().clone();
        let Some(path) = &table[usize::from(self.plan.slot)] else { return };
        let Ok(bound) = path.socket.local_addr() else { return };
        if self.source_now(path.remote).is_some_and(|source| source != bound.ip()) {
            log::info!(
                target: "mptunnel::path",
                "path {}: its local address is not {} any more, taking the new one",
                self.name(), bound.ip()
            );
            (self.wants_socket, self.next_try) = (true, now);
        }
    }

    /// The source address that a new socket towards `remote` would get.
    fn source_now(&self, remote: SocketAddr) -> Option<IpAddr> {
        let mut config = SocketConfig::any(Family::of(remote));
        config.interface.clone_from(&self.plan.spec.interface);
        config.mark = self.plan.spec.mark;
        let socket = self.plan.open(&config).ok()?;
        socket.connect(remote).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    }

    fn check_mtu(&self, shared: &Arc<ClientShared>) {
        let table = shared.sockets.read().clone();
        let Some(path) = &table[usize::from(self.plan.slot)] else { return };
        let max_packet = self.max_packet(&path.socket, path.remote);
        shared.with_control(|client, now| client.set_path_mtu(now, self.plan.id, max_packet));
    }

    fn max_packet(&self, socket: &UdpSocket, remote: SocketAddr) -> usize {
        let known = socket.path_mtu().unwrap_or(1_500);
        let set = match self.plan.spec.mtu.unwrap_or(self.plan.mtu) {
            0 => known,
            mtu => known.min(usize::from(mtu)),
        };
        max_packet(set, remote)
    }
}

/// The UDP payload that fits `mtu` bytes on the way to `remote`.
pub(crate) fn max_packet(mtu: usize, remote: SocketAddr) -> usize {
    // IPv4 20 + UDP 8, IPv6 40 + UDP 8.
    let headers = if remote.is_ipv4() { 28 } else { 48 };
    mtu.saturating_sub(headers).clamp(128, MAX_DATAGRAM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::{Handler, Source};
    use crate::io::client::ClientIo;
    use crate::io::entropy::OsEntropy;
    use crate::proto::client::{Client, PathSettings};
    use crate::proto::config::{ClientConfig, ClientKeys};
    use crate::proto::crypto::Psk;
    use crate::proto::dataplane::DataPlane;

    struct Nobody;

    impl Handler for Nobody {
        fn datagram(&mut self, _: &Source, _: &[u8]) {}
    }

    fn client() -> ClientIo {
        let plane = Arc::new(DataPlane::default());
        let config = ClientConfig::new(ClientKeys::Psk(Psk::new([1; 32]).unwrap()));
        let client = Client::new(config, plane.clone(), Box::new(OsEntropy));
        ClientIo::start(client, plane, Box::new(Nobody), Box::new(|_| ())).unwrap()
    }

    fn plan(client: &ClientIo, to: &str) -> PathPlan {
        let (id, slot) = client.shared.add_path(PathSettings::default()).unwrap();
        let to = to.parse().unwrap();
        PathPlan {
            id,
            slot,
            to,
            spec: PathSpec::default(),
            buffer: 0,
            offload: true,
            mtu: 0,
            hook: None,
        }
    }

    fn socket_of(client: &ClientIo, is: impl Fn(&PathSocket) -> bool) -> PathSocket {
        let deadline = clock::now() + Duration::from_secs(5);
        loop {
            let table = client.shared.sockets.read().clone();
            if let Some(path) = table.iter().flatten().find(|path| is(path)) {
                return path.clone();
            }
            assert!(clock::now() < deadline, "no such socket");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_socket_made_anew_keeps_its_port_unless_a_fresh_one_is_asked_for() {
        let client = client();
        let plan = plan(&client, "127.0.0.1:9");
        let path = plan.id;
        client.shared.jobs.push(PathJob::Open(Box::new(plan)));
        let first = socket_of(&client, |_| true);
        let (id, port) = (first.id, first.socket.local_addr().unwrap().port());
        drop(first);

        client.shared.jobs.push(PathJob::Reopen(Reopen { path, fresh_port: false }));
        let second = socket_of(&client, |path| path.id != id);
        let id = second.id;
        assert_eq!(second.socket.local_addr().unwrap().port(), port);

        client.shared.jobs.push(PathJob::Reopen(Reopen { path, fresh_port: true }));
        let third = socket_of(&client, |path| path.id != id);
        assert_ne!(third.socket.local_addr().unwrap().port(), port);
    }

    #[test]
    fn after_a_failure_the_next_address_of_a_name_is_tried() {
        let client = client();
        let now = clock::now();
        let mut path = Managed::new(plan(&client, "bridge.invalid:9"), now);
        path.resolved_at = Some(now);
        // Connecting to the broadcast address is refused with EACCES.
        path.addresses = ["255.255.255.255:9", "127.0.0.1:9"].map(|a| a.parse().unwrap()).into();

        path.attempt(&client.shared, now);
        assert!(client.shared.sockets.read().iter().all(Option::is_none));
        path.attempt(&client.shared, now);

        assert_eq!(socket_of(&client, |_| true).remote, "127.0.0.1:9".parse().unwrap());
    }

    #[test]
    fn the_end_of_a_path_leaves_the_socket_of_its_successor_in_the_slot_alone() {
        let client = client();
        let now = clock::now();
        let mut paths = BTreeMap::new();
        let first = plan(&client, "127.0.0.1:9");
        let (gone, slot) = (first.id, first.slot);
        paths.insert(gone, Managed::new(first, now));
        paths.get_mut(&gone).unwrap().attempt(&client.shared, now);
        let old = socket_of(&client, |_| true).id;
        client.shared.with_control(|client, now| client.remove_path(now, gone));

        let second = plan(&client, "127.0.0.1:10");
        let stays = second.id;
        assert_eq!(second.slot, slot);
        paths.insert(stays, Managed::new(second, now));
        paths.get_mut(&stays).unwrap().attempt(&client.shared, now);
        take(&client.shared, &mut paths, PathJob::Close(gone));

        assert_ne!(socket_of(&client, |path| path.path == stays).id, old);
    }

    #[test]
    fn a_storm_of_errors_takes_one_place_in_the_queue_and_displaces_nothing() {
        let jobs = PathJobs::default();
        for _ in 0..100_000 {
            jobs.push(PathJob::Trouble(PathId(1), libc::ECONNREFUSED));
        }
        jobs.push(PathJob::Close(PathId(2)));

        let next = || jobs.next(Time::default());
        assert!(matches!(next(), Ok(Some(PathJob::Trouble(PathId(1), _)))));
        assert!(matches!(next(), Ok(Some(PathJob::Close(PathId(2))))));
        assert!(matches!(next(), Ok(None)));
    }
}
