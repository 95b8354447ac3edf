// SPDX-License-Identifier: BSD-2-Clause
//! A client on real sockets: one connected socket for each path, a thread that receives, one that
//! keeps time, one that opens sockets.
//!
//! ```text
//!   application ── send ──► batch ──────────────► sockets          (on the caller's thread)
//!   mpt-receive: sockets ─► data plane ─► handler │ control        (CTRL and handshakes only)
//!   mpt-timer:   alarm ───► control ────► sockets
//!   mpt-paths:   names, sockets ─────────► control, table of sockets
//! ```
//!
//! Lock order: control, then the table of sockets, then queues. No system call is made under the
//! control lock: what it wants sent is taken out first.

use super::clock;
use super::errors::ErrorCounts;
use super::fork::ForkGuard;
use super::order::Delivery;
use super::outgoing::{Outcome, Outgoing, Sockets};
use super::pacing::Hands;
use super::paths::{PathJob, PathJobs};
use super::recv::{RecvBatch, Wait};
use super::room::Patience;
use super::send::{SendBatch, SendReport};
use super::socket::UdpSocket;
use super::thread::{self, Alarm};
use super::wake::{EventFd, PollFd, poll};
use crate::handler::{Handler, Source};
use crate::proto::client::{Client, PathSettings};
use crate::proto::dataplane::{DataPlane, LastSession, Received};
use crate::proto::event::{ClientEvent, PathDownReason, PathId, PeerId, Transmit};
use crate::proto::num::path_bit;
use crate::proto::route::Route;
use crate::proto::time::Time;
use crate::proto::view::{SendRefused, SendView, Target, ViewCell};
use crate::proto::wire::MAX_PATHS;
use crate::sync::{Mutex, RwLock};
use crate::{Error, Event};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a message is repeated that nobody acknowledges: CLOSE.
const FAREWELLS: u32 = 3;
/// Between them.
const FAREWELL_GAP: Duration = Duration::from_millis(50);
/// How long closing waits for the threads.
const JOIN_WITHIN: Duration = Duration::from_secs(2);
/// How often the kernel is asked for the path MTU that routers reported.
const MTU_CHECK: Duration = Duration::from_secs(5);

/// How often, while a path does not answer, its source address is compared with the kernel's choice.
const SOURCE_CHECK: Duration = Duration::from_millis(500);

/// What becomes of an endpoint's events.
pub(crate) type EventSink = Box<dyn Fn(Event) + Send + Sync>;

/// A path's socket, as senders and the receiver use it.
#[derive(Clone)]
pub(crate) struct PathSocket {
    /// Its number; never used again while the slot exists.
    pub(crate) id: u32,
    pub(crate) path: PathId,
    pub(crate) remote: SocketAddr,
    /// The address and port that it sends from.
    pub(crate) local: Option<SocketAddr>,
    /// The two addresses, local and remote, of the path's last socket if one was another.
    pub(crate) before: Option<(SocketAddr, SocketAddr)>,
    pub(crate) socket: Arc<UdpSocket>,
}

/// The sockets of all paths, by the slot in their number.
pub(crate) type SocketTable = [Option<PathSocket>; MAX_PATHS];

/// The slot of the socket numbered `id`.
pub(crate) fn slot_of(id: u32) -> usize {
    id as usize % MAX_PATHS
}

/// What all threads of a client share.
pub(crate) struct ClientShared {
    pub(crate) control: Mutex<Client>,
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) view: Arc<ViewCell>,
    pub(crate) sockets: RwLock<Arc<SocketTable>>,
    pub(crate) names: Mutex<HashMap<PathId, String>>,
    pub(crate) jobs: PathJobs,
    /// Wakes the receiver: the table of sockets changed, or it is over.
    pub(crate) wake: EventFd,
    failed: OnceLock<String>,
    pub(crate) refused: Mutex<Option<String>>,
    /// How many sockets paths have had.
    socket_count: AtomicU32,
    /// Errors that sockets reported, by path: for the log and the status.
    /// What the kernel dropped on sockets that are closed.
    gone_drops: AtomicU64,
    pub(crate) errors: ErrorCounts,
    /// For the packets of the control side.
    control_batch: Mutex<SendBatch>,
    alarm: Alarm,
    /// Rings when a packet may leave that waits on a path with a rate.
    turn: Alarm,
    /// Whether somebody listens to that.
    paced: AtomicBool,
    sink: EventSink,
    fork: ForkGuard,
    stopping: AtomicBool,
}

/// A running client.
pub(crate) struct ClientIo {
    pub(crate) shared: Arc<ClientShared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl ClientIo {
    /// Starts the threads. Paths are added afterwards.
    pub(crate) fn start(
        client: Client,
        plane: Arc<DataPlane>,
        mut handler: Box<dyn Handler>,
        sink: EventSink,
    ) -> Result<ClientIo, Error> {
        let io = |op: &'static str| move |source| Error::Io { op: op.to_owned(), source };
        let hold = client.reorder();
        let shared = Arc::new(ClientShared {
            view: client.view(),
            control: Mutex::new(client),
            plane,
            sockets: RwLock::new(Arc::new([const { None }; MAX_PATHS])),
            names: Mutex::default(),
            jobs: PathJobs::default(),
            wake: EventFd::new().map_err(io("eventfd"))?,
            failed: OnceLock::new(),
            refused: Mutex::new(None),
            socket_count: AtomicU32::new(0),
            gone_drops: AtomicU64::new(0),
            errors: ErrorCounts::default(),
            control_batch: Mutex::default(),
            alarm: Alarm::new(),
            turn: Alarm::new(),
            paced: AtomicBool::new(false),
            sink,
            fork: ForkGuard::new().map_err(io("memory for the fork guard"))?,
            stopping: AtomicBool::new(false),
        });
        let running = ClientIo { shared, threads: Mutex::default() };
        let receiver = running.shared.clone();
        running.spawn("mpt-receive", move || {
            receive(&receiver, Delivery::new(&mut *handler, &receiver.plane, hold));
        })?;
        let timer = running.shared.clone();
        running.spawn("mpt-timer", move || keep_time(&timer))?;
        let opener = running.shared.clone();
        running.spawn("mpt-paths", move || super::paths::run(&opener))?;
        Ok(running)
    }

    /// There is a path with a rate: packets that wait for their turn need a thread, which others do
    /// without.
    pub(crate) fn pace_paths(&self) -> Result<(), Error> {
        if self.shared.paced.swap(true, Relaxed) {
            return Ok(());
        }
        let shared = self.shared.clone();
        self.spawn("mpt-pace", move || keep_pace(&shared))
    }

    fn spawn(&self, name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let shared = self.shared.clone();
        let thread = thread::start(name, body, move |why| shared.fail(&why))
            .map_err(|source| Error::Io { op: format!("starting thread {name}"), source })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Says goodbye and stops the threads, within a bound. Does nothing the second time.
    pub(crate) fn close(&self) {
        if self.shared.stopping.swap(true, Relaxed) {
            return;
        }
        if self.shared.is_forked() {
            // The threads exist in the parent only, and what wakes them is the parent's as well.
            self.threads.lock().clear();
            return;
        }
        for turn in 0..FAREWELLS {
            let connected = self.shared.view.get().is_some() || turn > 0;
            if !connected {
                break;
            }
            self.shared.with_control(|client, now| client.say_goodbye(now));
            if turn + 1 < FAREWELLS {
                std::thread::sleep(FAREWELL_GAP);
            }
        }
        self.shared.with_control(|client, _| client.close());
        self.shared.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        if !thread::join(threads, JOIN_WITHIN) {
            log::warn!(target: "mptunnel::io", "a thread did not stop in time and is left behind");
        }
        // Not when the last lookup of a name gives its share back, which may take long.
        *self.shared.sockets.write() = Arc::new([const { None }; MAX_PATHS]);
    }
}

impl Drop for ClientIo {
    fn drop(&mut self) {
        self.close();
    }
}

impl ClientShared {
    /// Whether calls may go on; the reason if not.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.fork.is_child() {
            return Err(Error::Forked);
        }
        if let Some(why) = self.failed.get() {
            return Err(Error::Failed(why.clone()));
        }
        if self.stopping.load(Relaxed) {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Whether this process is a child of the one that opened the tunnel.
    pub(crate) fn is_forked(&self) -> bool {
        self.fork.is_child()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    fn fail(&self, why: &str) {
        log::error!(target: "mptunnel::io", "the tunnel failed and stops: {why}");
        self.failed.get_or_init(|| why.to_owned());
        self.stop();
        (self.sink)(Event::Closed);
    }

    fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.alarm.stop();
        self.turn.stop();
        self.jobs.stop();
        self.wake.set();
    }

    /// Runs `change` on the state machine, then does what it asks for: events, new sockets, and
    /// packets, which are sent after the lock is released.
    pub(crate) fn with_control<R>(&self, change: impl FnOnce(&mut Client, Time) -> R) -> R {
        let mut transmits = Vec::new();
        let result = {
            let mut client = self.control.lock();
            let result = change(&mut client, clock::now());
            self.drain(&mut client, &mut transmits);
            result
        };
        self.transmit(&transmits);
        result
    }

    fn drain(&self, client: &mut Client, transmits: &mut Vec<Transmit>) {
        transmits.extend(std::iter::from_fn(|| client.poll_transmit()));
        while let Some(event) = client.poll_event() {
            self.tell(event);
        }
        while let Some(reopen) = client.poll_reopen() {
            self.jobs.push(PathJob::Reopen(reopen));
        }
        if let Some(at) = client.poll_timeout() {
            self.alarm.bring_forward(at);
        }
    }

    fn tell(&self, event: ClientEvent) {
        let name = |id| self.names.lock().get(&id).cloned().unwrap_or_default();
        if matches!(event, ClientEvent::SessionUp | ClientEvent::ServerRestarted) {
            *self.refused.lock() = None;
        }
        match event {
            ClientEvent::PathUp(id) => self.jobs.push(PathJob::Answers(id)),
            // Told by the thread that opens sockets, which knows the cause.
            ClientEvent::PathDown(_, PathDownReason::NoSocket) => return,
            _ => {}
        }
        (self.sink)(match event {
            ClientEvent::SessionUp => Event::Connected,
            ClientEvent::Rekeyed => Event::Rekeyed(PeerId(0)),
            ClientEvent::ServerRestarted => Event::ServerRestarted,
            ClientEvent::SessionLost => Event::Disconnected,
            ClientEvent::ServerSilent(silence) => Event::ServerSilent(silence),
            ClientEvent::Refused(why) => {
                *self.refused.lock() = Some(why.to_string());
                Event::Refused(why.to_string())
            }
            ClientEvent::CookieMode => Event::ServerUnderLoad,
            ClientEvent::Closed => Event::Closed,
            ClientEvent::ServerGoingAway => Event::ServerGoingAway,
            ClientEvent::PathUp(id) => Event::PathUp(id, name(id)),
            ClientEvent::PathDown(id, why) => {
                let cause = self.jobs.trouble(id).map_or_else(String::new, |t| format!(" ({t})"));
                Event::PathDown(id, name(id), format!("{why}{cause}"))
            }
            ClientEvent::FlowClosed(flow, code) => {
                Event::FlowClosed { peer: PeerId(0), epoch: 0, flow, code }
            }
        });
    }

    /// Tells the application about something that the state machine does not know of.
    pub(crate) fn tell_event(&self, event: Event) {
        (self.sink)(event);
    }

    fn transmit(&self, transmits: &[Transmit]) {
        if transmits.is_empty() || self.fork.is_child() {
            return;
        }
        let table = self.sockets.read().clone();
        let mut batch = self.control_batch.lock();
        for transmit in transmits {
            if let Some(path) = find(&table, transmit.route.socket) {
                let report = batch.send_one(&path.socket, &transmit.bytes, None);
                if report.too_big > 0 {
                    // A probe for a size that the kernel knows better about.
                    self.jobs.push(PathJob::CheckMtu(path.path));
                } else if let Some(error) = &report.error {
                    self.on_socket_error(path.path, error);
                }
            }
        }
    }

    pub(crate) fn on_socket_error(&self, path: PathId, error: &std::io::Error) {
        self.errors.count(path, error);
        self.jobs.push(PathJob::Trouble(path, error.raw_os_error().unwrap_or(0)));
    }

    /// Sends a batch of datagrams, each sealed once, over all chosen paths.
    pub(crate) fn send<'d>(
        &self,
        batch: &mut SendBatch,
        datagrams: impl Iterator<Item = (u16, &'d [u8])>,
    ) -> Result<Outcome, Error> {
        let (view, now) = self.view_to_send()?;
        self.send_with(&view, now, batch, datagrams)
    }

    /// What may be sent with now, for a sender that chooses among the paths itself.
    pub(crate) fn view_to_send(&self) -> Result<(Arc<SendView>, Time), Error> {
        self.check()?;
        let view = self.view.get().ok_or_else(|| self.not_connected())?;
        let now = clock::now();
        if view.ends_a_pause(now) {
            self.with_control(|client, now| client.on_data_after_pause(now));
        }
        Ok((view, now))
    }

    /// Sends with a view, as a whole or narrowed.
    pub(crate) fn send_with<'d>(
        &self,
        view: &SendView,
        now: Time,
        batch: &mut SendBatch,
        datagrams: impl Iterator<Item = (u16, &'d [u8])>,
    ) -> Result<Outcome, Error> {
        let table = self.sockets.read().clone();
        let sockets = ClientSockets { shared: self, table: &table };
        let sent = Outgoing::new(batch, view, &sockets).send_all(now, datagrams);
        sent.map_err(|(refused, len)| self.refused_send(refused, len))
    }

    /// The socket of a path; an error if there is no such path, or if it has none.
    pub(crate) fn slot_of_path(&self, path: PathId) -> Result<u8, Error> {
        let table = self.sockets.read().clone();
        match (0u8..).zip(&*table).find(|(_, p)| p.as_ref().is_some_and(|p| p.path == path)) {
            Some((slot, _)) => Ok(slot),
            None if self.names.lock().contains_key(&path) => Err(Error::NoPath),
            None => Err(Error::UnknownPath(path)),
        }
    }

    /// Waits for room in the sockets of the chosen paths.
    pub(crate) fn wait_for_room(
        &self,
        view: &SendView,
        patience: &mut Patience<'_>,
    ) -> Result<bool, Error> {
        let table = self.sockets.read().clone();
        let chosen = view.targets.iter().filter(|t| view.chosen() & path_bit(t.slot) != 0);
        let socket = |t: &Target| Some(&*find(&table, t.route.socket)?.socket);
        let sockets: Vec<&UdpSocket> = chosen.filter_map(socket).collect();
        patience.wait(&sockets)
    }

    fn refused_send(&self, refused: SendRefused, len: usize) -> Error {
        match refused {
            SendRefused::TooLarge { max } => Error::PayloadTooLarge { len, max },
            SendRefused::NoPath => Error::NoPath,
            SendRefused::NoSession => self.not_connected(),
        }
    }

    /// Why there is no session, as far as anybody knows.
    pub(crate) fn not_connected(&self) -> Error {
        if let Some(why) = &*self.refused.lock() {
            return Error::Refused(why.clone());
        }
        let has_socket = self.sockets.read().iter().any(Option::is_some);
        Error::NotConnected(if has_socket {
            "no answer from the server yet: it is down, the paths are blocked, or the keys differ"
                .to_owned()
        } else {
            match self.jobs.last_trouble() {
                Some((path, why)) => {
                    let name = self.names.lock().get(&path).cloned().unwrap_or_default();
                    format!("path {name}: {why}")
                }
                None => "no path has a socket yet".to_owned(),
            }
        })
    }

    /// A number for a socket of `slot` that no other one has: datagrams of a socket that was just
    /// replaced must not pass for those of its successor.
    pub(crate) fn next_socket_id(&self, slot: u8) -> u32 {
        let count = self.socket_count.fetch_add(1, Relaxed) % (u32::MAX / MAX_PATHS as u32);
        count * MAX_PATHS as u32 + u32::from(slot)
    }

    /// Puts a new socket into the table and tells the state machine; or takes it out.
    pub(crate) fn replace_socket(&self, slot: usize, socket: Option<PathSocket>) {
        {
            let mut table = self.sockets.write();
            let mut new = (**table).clone();
            if let Some(old) = std::mem::replace(&mut new[slot], socket) {
                self.gone_drops.fetch_add(old.socket.receive_drops().into(), Relaxed);
            }
            *table = Arc::new(new);
        }
        self.wake.set();
    }

    /// Arrivals that the kernel dropped for want of room, on all sockets that there were.
    pub(crate) fn kernel_dropped(&self) -> u64 {
        // Under the lock, or one that is being replaced would count twice or not at all.
        let table = self.sockets.read();
        let open = table.iter().flatten().map(|path| u64::from(path.socket.receive_drops()));
        open.sum::<u64>() + self.gone_drops.load(Relaxed)
    }

    /// Adds a path; its socket is opened by the thread for paths.
    pub(crate) fn add_path(&self, settings: PathSettings) -> Option<(PathId, u8)> {
        let name = settings.name.clone();
        let id = self.with_control(|client, now| {
            let id = client.add_path(now, settings)?;
            let slot = client.paths().find(|p| p.id == id)?.slot;
            Some((id, slot))
        })?;
        self.names.lock().insert(id.0, name);
        Some(id)
    }
}

/// The socket numbered `id`, if it is still in use.
fn find(table: &SocketTable, id: u32) -> Option<&PathSocket> {
    table[slot_of(id)].as_ref().filter(|p| p.id == id)
}

struct ClientSockets<'a> {
    shared: &'a ClientShared,
    table: &'a SocketTable,
}

impl Sockets for ClientSockets<'_> {
    fn with<R>(&self, route: &Route, send: impl FnOnce(&UdpSocket, bool) -> R) -> Option<R> {
        find(self.table, route.socket).map(|path| send(&path.socket, true))
    }

    fn on_report(&self, target: &Target, report: &SendReport) {
        let Some(path) = find(self.table, target.route.socket) else { return };
        if let Some(error) = &report.error {
            self.shared.on_socket_error(path.path, error);
        }
        if report.too_big > 0 {
            self.shared.jobs.push(PathJob::CheckMtu(path.path));
        }
    }

    fn on_queued(&self, at: Time) {
        self.shared.turn.bring_forward(at);
    }
}

/// The thread that receives on all paths.
fn receive(shared: &ClientShared, mut out: Delivery<'_>) {
    let mut batch = RecvBatch::default();
    let mut last = LastSession::batching();
    loop {
        shared.wake.clear();
        // Asked after the wake-up was cleared: stopping sets the flag first.
        if shared.is_stopping() {
            return;
        }
        let table = shared.sockets.read().clone();
        let open: Vec<&PathSocket> = table.iter().flatten().collect();
        let mut fds: Vec<PollFd> = std::iter::once(PollFd::readable(&shared.wake))
            .chain(open.iter().map(|path| PollFd::readable(&*path.socket)))
            .collect();
        // Until the table changes: the wake-up is readable then.
        loop {
            if let Err(error) = poll(&mut fds, out.patience()) {
                panic!("poll(2) on open descriptors does not fail: {error}");
            }
            let (woken, ready) = fds.split_first().expect("the wake-up is always there");
            for (path, fd) in open.iter().zip(ready) {
                if fd.is_ready() {
                    receive_from(shared, path, &mut batch, &mut last, &mut out);
                }
            }
            out.wake();
            if woken.is_ready() {
                break;
            }
        }
    }
}

/// Takes what is there on one path.
fn receive_from(
    shared: &ClientShared,
    path: &PathSocket,
    batch: &mut RecvBatch,
    last: &mut LastSession,
    out: &mut Delivery<'_>,
) {
    let messages = match batch.recv(&path.socket, Wait::DontWait) {
        Ok(messages) => messages,
        // An ICMP error that the socket reports once. The reader lives on.
        Err(error) => return shared.on_socket_error(path.path, &error),
    };
    if messages == 0 {
        return;
    }
    let now = clock::now();
    let route = Route { socket: path.id, remote: path.remote, local: None };
    for index in 0..messages {
        let mut message = batch.message(index);
        for datagram in message.segments() {
            receive_one(shared, now, &route, path.path, datagram, last, out);
        }
    }
    shared.plane.settle(last);
    out.batch_end(now);
}

fn receive_one(
    shared: &ClientShared,
    now: Time,
    route: &Route,
    path: PathId,
    datagram: &mut [u8],
    last: &mut LastSession,
    out: &mut Delivery<'_>,
) {
    match shared.plane.receive(now, route, datagram, last) {
        Received::Data { session, flow, number, mark, payload, .. } => {
            let source =
                Source { peer: PeerId(0), epoch: 0, flow, path: Some(path), superseded: false };
            out.datagram(now, session, (number, mark), source, payload.bytes());
        }
        Received::Control { session, inner, .. } => {
            shared.with_control(|client, now| client.handle_control(now, session, route, inner));
        }
        Received::Stranger(kind, datagram) => {
            shared.with_control(|client, now| client.handle_stranger(now, route, kind, datagram));
        }
        Received::Stored { .. } | Received::Dropped(_) => {}
    }
}

/// The thread that sends what waited for its turn on paths with a rate.
fn keep_pace(shared: &ClientShared) {
    let mut hands = Hands::default();
    while shared.turn.wait() {
        // Without a session nothing is sent; what waits is too late when there is one again.
        let Some(view) = shared.view.get() else { continue };
        let table = shared.sockets.read().clone();
        let next = hands.send_due(&view, &ClientSockets { shared, table: &table });
        shared.turn.bring_forward(next.unwrap_or(Time::NEVER));
    }
}

/// The thread that keeps time.
fn keep_time(shared: &ClientShared) {
    let mut mtu_checked = clock::now();
    let mut sources_checked = clock::now();
    while shared.alarm.wait() {
        let silent = shared.with_control(|client, now| {
            client.handle_timeout(now);
            client.silent_paths().collect::<Vec<_>>()
        });
        let now = clock::now();
        if !silent.is_empty() && now.since(sources_checked) >= SOURCE_CHECK {
            sources_checked = now;
            for path in silent {
                shared.jobs.push(PathJob::CheckSource(path));
            }
        }
        if now.since(mtu_checked) >= MTU_CHECK {
            mtu_checked = now;
            shared.jobs.push(PathJob::CheckAllMtus);
        }
    }
}
