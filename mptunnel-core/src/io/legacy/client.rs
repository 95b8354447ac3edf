// SPDX-License-Identifier: BSD-2-Clause
//! The client's end on real sockets.

use super::bridge::{Bridge, Found, NOT_YET};
use super::life::Life;
use super::outbound::{Lane, Outbound};
use crate::handler::{Handler, Source};
use crate::hook::SocketHook;
use crate::io::client::EventSink;
use crate::io::clock;
use crate::io::errors::ErrorCounts;
use crate::io::outgoing::Outcome;
use crate::io::paths::PathPlan;
use crate::io::recv::{RecvBatch, Wait};
use crate::io::room::Room;
use crate::io::send::SendBatch;
use crate::io::socket::UdpSocket;
use crate::io::wake::{PollFd, poll};
use crate::legacy::{Action, Client, HEADER_LEN, Usage, ctl};
use crate::options::{HostPort, MAX_PATHS, PathRole, PathSpec, Settings};
use crate::proto::drop::DropCounters;
use crate::proto::route::PathCounts;
use crate::proto::time::Time;
use crate::sending::SendOptions;
use crate::stats::{PathInfo, PathState};
use crate::sync::Mutex;
use crate::{Error, Event, PathId, PeerId};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// The next block of numbers is reserved in time at a million datagrams a second.
const TOP_UP: Duration = Duration::from_millis(20);

/// Something for the thread to do.
enum Job {
    Add(PathPlan),
    Remove(PathId),
    Change(PathId, HostPort, Box<PathSpec>),
    Resolved(PathId, Found),
}

/// What others see of a path.
struct Entry {
    slot: u8,
    name: String,
    words: String,
    backup: bool,
    usage: Arc<Usage>,
    remote: Option<SocketAddr>,
    /// Why it is down; `None`: it is up.
    trouble: Option<String>,
    since: Time,
}

struct Shared {
    life: Life,
    outbound: Outbound,
    drops: Arc<DropCounters>,
    jobs: Mutex<VecDeque<Job>>,
    board: Mutex<BTreeMap<PathId, Entry>>,
    last_path: AtomicU32,
    /// The application that sent last: what comes down is its.
    flow: AtomicU16,
    connected: AtomicBool,
    settings: Settings,
    hook: Option<SocketHook>,
}

/// A running client.
pub(crate) struct ClientIo {
    shared: Arc<Shared>,
}

impl ClientIo {
    /// Starts the thread. Paths are added afterwards.
    pub(crate) fn start(
        settings: &Settings,
        hook: Option<SocketHook>,
        mut handler: Box<dyn Handler>,
        sink: EventSink,
    ) -> Result<ClientIo, Error> {
        let shared = Arc::new(Shared {
            life: Life::new(sink)?,
            outbound: Outbound::new(settings)?,
            drops: Arc::default(),
            jobs: Mutex::default(),
            board: Mutex::default(),
            last_path: AtomicU32::new(0),
            flow: AtomicU16::new(0),
            connected: AtomicBool::new(false),
            settings: settings.clone(),
            hook,
        });
        super::warn();
        let (body, failed) = (shared.clone(), shared.clone());
        let end = ClientIo { shared };
        end.shared.life.start(
            move || Engine::new(body).run(&mut *handler),
            move |why| failed.life.fail(&why),
        )?;
        Ok(end)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        self.shared.life.check()
    }

    pub(crate) fn is_forked(&self) -> bool {
        self.shared.life.is_forked()
    }

    /// Stops the thread, within a bound. There is no goodbye in this protocol.
    pub(crate) fn close(&self) {
        if self.shared.life.stop() {
            self.shared.outbound.publish(Vec::new());
            self.shared.outbound.numbers.close();
        }
    }

    /// Whether there is a path to send over: more cannot be known of a peer that does not answer.
    pub(crate) fn is_ready(&self) -> bool {
        !self.shared.outbound.lanes().all.is_empty()
    }

    /// Whether anything sound ever came from the server.
    pub(crate) fn is_connected(&self) -> bool {
        self.shared.connected.load(Relaxed)
    }

    pub(crate) fn max_payload(&self) -> usize {
        super::max_payload(&self.shared.settings)
    }

    pub(crate) fn drops(&self) -> &DropCounters {
        &self.shared.drops
    }

    pub(crate) fn errors(&self) -> &ErrorCounts {
        &self.shared.outbound.errors
    }

    /// What passed over all paths, those that are gone as well.
    pub(crate) fn counts(&self) -> PathCounts {
        let board = self.shared.board.lock();
        self.shared.outbound.counts(board.values().map(|entry| &entry.usage))
    }

    /// What the kernel dropped at the sockets in use, and the size of a receive buffer.
    pub(crate) fn kernel(&self) -> (u64, usize) {
        let lanes = self.shared.outbound.lanes();
        let dropped = lanes.all.iter().map(|lane| u64::from(lane.socket.receive_drops())).sum();
        (dropped, lanes.all.first().map_or(0, |lane| lane.socket.granted_buffers().recv))
    }

    /// Sends datagrams, each with the application that it is of.
    pub(crate) fn send<'d>(
        &self,
        batch: &mut SendBatch,
        datagrams: impl Iterator<Item = (u16, &'d [u8])>,
    ) -> Result<Outcome, Error> {
        let shared = &*self.shared;
        let datagrams = datagrams.map(|(flow, bytes)| {
            shared.flow.store(flow, Relaxed);
            bytes
        });
        shared.outbound.send(&shared.life, batch, datagrams)
    }

    /// As [`send`](Self::send), with wishes.
    pub(crate) fn send_all<'d>(
        &self,
        batch: &Mutex<SendBatch>,
        room: &Room,
        flow: u16,
        datagrams: impl Iterator<Item = &'d [u8]> + Clone,
        options: &SendOptions,
    ) -> Result<usize, Error> {
        let shared = &*self.shared;
        if let Some(path) = options.path
            && !shared.board.lock().contains_key(&path)
        {
            return Err(Error::UnknownPath(path));
        }
        shared.flow.store(flow, Relaxed);
        shared.outbound.send_all(&shared.life, batch, room, datagrams, options)
    }

    /// Adds a path, which has a name.
    pub(crate) fn add_path(&self, to: HostPort, spec: PathSpec) -> Option<PathId> {
        let shared = &*self.shared;
        let mut board = shared.board.lock();
        let slots = 0..u8::try_from(MAX_PATHS).unwrap_or(u8::MAX);
        let slot = slots.into_iter().find(|slot| board.values().all(|e| e.slot != *slot))?;
        let id = PathId(shared.last_path.fetch_add(1, Relaxed) + 1);
        board.insert(id, Entry::new(slot, &spec));
        drop(board);
        if !spec.rotate {
            log::warn!(
                target: "mptunnel::legacy",
                "path {}: with rotate=off a classic server forgets it when nothing came down for \
                 60 s, and the first answers after that are lost on it",
                spec.name.as_deref().unwrap_or("?")
            );
        }
        self.push(Job::Add(PathPlan {
            id,
            slot,
            to,
            spec,
            buffer: usize::try_from(shared.settings.socket_buffer).unwrap_or(0),
            offload: shared.settings.offload,
            mtu: 0,
            hook: shared.hook.clone(),
        }));
        Some(id)
    }

    /// Removes a path; `false` if there is none.
    pub(crate) fn remove_path(&self, id: PathId) -> bool {
        let Some(entry) = self.shared.board.lock().remove(&id) else { return false };
        self.shared.outbound.keep(id, &entry.usage);
        self.push(Job::Remove(id));
        true
    }

    /// Gives a path another description; `false` if there is none.
    pub(crate) fn set_path(&self, id: PathId, to: HostPort, spec: PathSpec) -> bool {
        match self.shared.board.lock().get_mut(&id) {
            Some(entry) => entry.describe(&spec),
            None => return false,
        }
        self.push(Job::Change(id, to, Box::new(spec)));
        true
    }

    /// All paths as they are now, in the order of their slots.
    pub(crate) fn paths(&self) -> Vec<PathInfo> {
        let now = clock::now();
        let board = self.shared.board.lock();
        let mut paths: Vec<PathInfo> =
            board.iter().map(|(id, entry)| entry.info(*id, now, self.errors())).collect();
        paths.sort_by_key(|path| path.slot);
        paths
    }

    fn push(&self, job: Job) {
        self.shared.jobs.lock().push_back(job);
        self.shared.life.wake.set();
    }
}

impl Drop for ClientIo {
    fn drop(&mut self) {
        self.close();
    }
}

impl Entry {
    fn new(slot: u8, spec: &PathSpec) -> Self {
        let mut entry = Entry {
            slot,
            name: String::new(),
            words: String::new(),
            backup: false,
            usage: Arc::default(),
            remote: None,
            trouble: Some(NOT_YET.to_owned()),
            since: clock::now(),
        };
        entry.describe(spec);
        entry
    }

    fn describe(&mut self, spec: &PathSpec) {
        self.name = spec.name.clone().unwrap_or_default();
        self.words = spec.to_string();
        self.backup = spec.role == PathRole::Backup;
    }

    fn info(&self, id: PathId, now: Time, errors: &ErrorCounts) -> PathInfo {
        let mut info = PathInfo {
            id,
            slot: self.slot,
            name: self.name.clone(),
            words: self.words.clone(),
            up: self.trouble.is_none(),
            state: match (&self.trouble, self.remote) {
                (None, _) => PathState::Up,
                (Some(_), None) => PathState::NoSocket,
                (Some(_), Some(_)) => PathState::Down,
            },
            reason: match (&self.trouble, self.usage.heard_at()) {
                (Some(why), _) => why.clone().into(),
                (None, Some(at)) => format!("heard {} s ago", now.since(at).as_secs()).into(),
                (None, None) => "it has a socket, and nothing came in yet".into(),
            },
            since: now.since(self.since),
            backup: self.backup,
            remote: self.remote,
            errors: errors.of(id),
            ..PathInfo::default()
        };
        info.count(self.usage.counts());
        info
    }
}

/// A port that is open: in use, or replaced a while ago.
struct Port {
    path: PathId,
    remote: SocketAddr,
    socket: Arc<UdpSocket>,
}

/// What the thread owns.
struct Engine {
    shared: Arc<Shared>,
    machine: Client,
    bridges: BTreeMap<PathId, Bridge>,
    ports: BTreeMap<u32, Port>,
    next_port: u32,
    /// Whether ports were opened or closed since they were last gathered.
    changed: bool,
    batch: SendBatch,
    topped_up: Time,
}

impl Engine {
    fn new(shared: Arc<Shared>) -> Self {
        let settings = &shared.settings;
        let machine = Client::new(super::timers(settings), settings.window, shared.drops.clone());
        Engine {
            machine,
            bridges: BTreeMap::new(),
            ports: BTreeMap::new(),
            next_port: 1,
            changed: true,
            batch: SendBatch::default(),
            topped_up: Time::default(),
            shared,
        }
    }

    /// The body of the thread.
    fn run(mut self, handler: &mut dyn Handler) {
        let shared = self.shared.clone();
        let mut batch = RecvBatch::default();
        let (mut numbers, mut fds) = (Vec::new(), Vec::new());
        loop {
            let woken = shared.life.wake.clear();
            // Asked after the wake-up was cleared: stopping sets the flag first.
            if shared.life.is_stopping() {
                return;
            }
            if woken {
                self.take_jobs();
            }
            self.tend();
            if std::mem::take(&mut self.changed) {
                numbers = self.ports.keys().copied().collect();
                fds = vec![PollFd::readable(&shared.life.wake)];
                fds.extend(self.ports.values().map(|port| PollFd::readable(&*port.socket)));
            }
            let left = self.due().since(clock::now());
            if let Err(error) = poll(&mut fds, Some(left)) {
                panic!("poll(2) on open descriptors does not fail: {error}");
            }
            for (number, fd) in numbers.iter().zip(&fds[1..]) {
                if fd.is_ready() {
                    self.receive(*number, &mut batch, handler);
                }
            }
        }
    }

    fn due(&self) -> Time {
        let bridges = self.bridges.values().map(Bridge::due).min().unwrap_or(Time::NEVER);
        // Bounded: the clock counts suspend, poll(2) does not.
        let bound = clock::now() + Duration::from_secs(5);
        let sends = self.bridges.values().filter_map(|bridge| bridge.usage.sent_at()).max();
        let top_up = match sends.is_some_and(|at| at >= self.topped_up) {
            true => self.topped_up + TOP_UP,
            false => Time::NEVER,
        };
        self.machine.poll_timeout().min(bridges).min(top_up).min(bound)
    }

    fn take_jobs(&mut self) {
        let now = clock::now();
        let jobs = std::mem::take(&mut *self.shared.jobs.lock());
        for job in jobs {
            match job {
                Job::Add(plan) => self.add(now, plan),
                Job::Remove(id) => {
                    self.bridges.remove(&id);
                    let its = self.ports.iter().filter(|(_, port)| port.path == id);
                    let its: Vec<u32> = its.map(|(number, _)| *number).collect();
                    its.into_iter().for_each(|number| self.close_port(number));
                    self.publish();
                }
                Job::Change(id, to, spec) => {
                    if let Some(bridge) = self.bridges.get_mut(&id) {
                        bridge.change(now, to, *spec);
                        self.publish();
                    }
                }
                Job::Resolved(id, found) => {
                    let bridge = self.bridges.get_mut(&id);
                    let event = bridge.and_then(|bridge| {
                        let why = bridge.on_resolved(now, found)?;
                        bridge.failed(now, why)
                    });
                    self.tell(id, event);
                }
            }
        }
    }

    fn add(&mut self, now: Time, plan: PathPlan) {
        let mut board = self.shared.board.lock();
        // It may be gone again.
        let Some(entry) = board.get_mut(&plan.id) else { return };
        let id = plan.id;
        let bridge = Bridge::new(plan, now);
        entry.usage = bridge.usage.clone();
        drop(board);
        self.bridges.insert(id, bridge);
    }

    /// Everything but receiving.
    fn tend(&mut self) {
        let now = clock::now();
        for (path, errno) in self.shared.outbound.take_troubles() {
            let event = self.bridges.get_mut(&path).and_then(|b| b.on_error(now, errno));
            self.tell(path, event);
        }
        if now.since(self.topped_up) >= TOP_UP {
            self.topped_up = now;
            self.shared.outbound.numbers.top_up();
        }
        let due: Vec<PathId> =
            self.bridges.values().filter(|b| b.due() <= now).map(Bridge::id).collect();
        for id in due {
            self.attempt(now, id);
        }
        if self.machine.poll_timeout() <= now {
            self.machine.handle_timeout(now);
        }
        self.act(now);
    }

    fn attempt(&mut self, now: Time, id: PathId) {
        let Some(bridge) = self.bridges.get_mut(&id) else { return };
        let mut event = bridge.tick(now);
        let answer = self.shared.clone();
        let attempt = bridge.attempt(now, move |found| {
            answer.jobs.lock().push_back(Job::Resolved(id, found));
            answer.life.wake.set();
        });
        match attempt {
            Some(Ok((socket, remote))) => {
                let number = self.next_port;
                self.next_port = self.next_port.wrapping_add(1);
                let port = Port { path: id, remote, socket: Arc::new(socket) };
                self.ports.insert(number, port);
                self.changed = true;
                let (usage, rotates) = (bridge.usage.clone(), bridge.spec().rotate);
                event = bridge.opened(now, number).or(event);
                self.machine.opened(now, number, id, usage, rotates);
                self.publish();
            }
            Some(Err(why)) => event = bridge.failed(now, why).or(event),
            None => {}
        }
        self.tell(id, event);
    }

    /// Does what the machine asks for.
    fn act(&mut self, now: Time) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Speak(number) => self.speak(number),
                Action::Rotate(path) => {
                    if let Some(bridge) = self.bridges.get_mut(&path) {
                        log::debug!(
                            target: "mptunnel::path",
                            "path {}: nothing comes down, taking a fresh port", bridge.name()
                        );
                        bridge.rotate(now);
                    }
                }
                Action::Close(number) => self.close_port(number),
                Action::Restarted => self.shared.life.tell(Event::ServerRestarted),
                Action::Connected => {
                    self.shared.connected.store(true, Relaxed);
                    self.shared.life.tell(Event::Connected);
                }
            }
        }
    }

    fn speak(&mut self, number: u32) {
        let Some(port) = self.ports.get(&number) else { return };
        let Some(bridge) = self.bridges.get(&port.path) else { return };
        let lane = port.lane(bridge);
        let packet: [u8; HEADER_LEN] = ctl(self.shared.outbound.iv());
        self.shared.outbound.send_one(&self.shared.life, &mut self.batch, &lane, &packet);
    }

    fn close_port(&mut self, number: u32) {
        self.ports.remove(&number);
        self.machine.closed(number);
        self.changed = true;
    }

    /// Takes what is there on one port.
    fn receive(&mut self, number: u32, batch: &mut RecvBatch, handler: &mut dyn Handler) {
        let Some(port) = self.ports.get(&number) else { return };
        let path = port.path;
        let messages = match batch.recv(&port.socket, Wait::DontWait) {
            Ok(messages) => messages,
            // An ICMP error that the socket reports once. That of a port that is not in use any
            // more says nothing.
            Err(error) => {
                let current = self.bridges.get(&path).is_some_and(|b| b.port == Some(number));
                if current {
                    self.shared.outbound.on_error(&self.shared.life, path, &error);
                }
                return;
            }
        };
        let now = clock::now();
        let flow = self.shared.flow.load(Relaxed);
        let source =
            Source { peer: PeerId(0), epoch: 0, flow, path: Some(path), superseded: false };
        for index in 0..messages {
            let mut message = batch.message(index);
            for datagram in message.segments() {
                if let Some(payload) = self.machine.receive(now, number, datagram) {
                    handler.datagram(&source, payload);
                }
            }
        }
        if messages > 0 {
            handler.batch_end();
            let heard = |b: &mut Bridge| (b.usage.heard_at() >= Some(now)).then(|| b.heard(now));
            let event = self.bridges.get_mut(&path).and_then(|b| heard(b).flatten());
            self.tell(path, event);
        }
        self.act(now);
    }

    /// Tells the application about a path, and shows it on the board.
    fn tell(&mut self, path: PathId, event: Option<Event>) {
        let Some(event) = event else { return };
        if let Some(bridge) = self.bridges.get(&path)
            && let Some(entry) = self.shared.board.lock().get_mut(&path)
        {
            entry.trouble.clone_from(&bridge.trouble);
            entry.since = bridge.since;
        }
        self.shared.life.tell(event);
    }

    /// Shows senders and the board which sockets there are now.
    fn publish(&mut self) {
        let mut lanes = Vec::new();
        let mut board = self.shared.board.lock();
        for (id, bridge) in &self.bridges {
            let Some(port) = bridge.port.and_then(|number| self.ports.get(&number)) else {
                continue;
            };
            lanes.push(port.lane(bridge));
            if let Some(entry) = board.get_mut(id) {
                entry.remote = Some(port.remote);
            }
        }
        drop(board);
        self.shared.outbound.publish(lanes);
    }
}

impl Port {
    fn lane(&self, bridge: &Bridge) -> Lane {
        Lane {
            path: self.path,
            socket: self.socket.clone(),
            to: None,
            usage: bridge.usage.clone(),
            backup: bridge.is_backup(),
        }
    }
}
