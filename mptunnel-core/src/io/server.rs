// SPDX-License-Identifier: BSD-2-Clause
//! A server on real sockets: one or more listening sockets, a thread that receives on them, one
//! that keeps time, and from the first path with a rate on one that keeps the pace of those.
//!
//! Lock order and division of work are those of the client (`io/client.rs`): CTRL and handshakes go
//! through the control lock, datagrams do not.

use super::clock;
use super::errors::ErrorCounts;
use super::fork::ForkGuard;
use super::order::Delivery;
use super::outgoing::{Outcome, Outgoing, Sockets};
use super::pacing::{Hands, Turns};
use super::paths::max_packet;
use super::recv::{RecvBatch, Wait};
use super::room::Patience;
use super::send::{SendBatch, SendReport};
use super::socket::{UdpSocket, route_mtu};
use super::thread::{self, Alarm};
use super::wake::{EventFd, PollFd, poll};
use crate::handler::{Handler, Source};
use crate::proto::dataplane::{DataPlane, LastSession, Received};
use crate::proto::event::{PathId, PeerGoneReason, PeerId, ServerEvent, Transmit};
use crate::proto::num::path_bit;
use crate::proto::route::Route;
use crate::proto::server::Server;
use crate::proto::session::Session;
use crate::proto::time::Time;
use crate::proto::view::{SendRefused, SendView, Target, ViewCell};
use crate::sync::{Mutex, RwLock};
use crate::{Error, Event};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use super::client::EventSink;

/// How often CLOSE is said.
const FAREWELLS: u32 = 3;
/// Between them.
const FAREWELL_GAP: Duration = Duration::from_millis(50);
/// How long closing waits for the threads.
const JOIN_WITHIN: Duration = Duration::from_secs(2);

/// What all threads of a server share.
pub(crate) struct ServerShared {
    pub(crate) control: Mutex<Server>,
    pub(crate) plane: Arc<DataPlane>,
    /// For each address that is listened on, a socket for each thread.
    pub(crate) listeners: Vec<Vec<UdpSocket>>,
    views: RwLock<HashMap<PeerId, Arc<ViewCell>>>,
    failed: OnceLock<String>,
    /// Errors that sockets reported.
    pub(crate) errors: ErrorCounts,
    /// The path MTU to assume, with all headers; 0 = ask the kernel.
    mtu: u16,
    wake: EventFd,
    control_batch: Mutex<SendBatch>,
    alarm: Alarm,
    /// Rings when a packet may leave that waits on a path with a rate.
    turn: Alarm,
    turns: Turns,
    sink: EventSink,
    fork: ForkGuard,
    stopping: AtomicBool,
}

/// A running server.
pub(crate) struct ServerIo {
    pub(crate) shared: Arc<ServerShared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl ServerIo {
    /// Starts the threads on sockets that are bound already.
    pub(crate) fn start(
        server: Server,
        plane: Arc<DataPlane>,
        listeners: Vec<Vec<UdpSocket>>,
        mtu: u16,
        handlers: Vec<Box<dyn Handler>>,
        sink: EventSink,
    ) -> Result<ServerIo, Error> {
        let io = |op: &'static str| move |source| Error::Io { op: op.to_owned(), source };
        let hold = server.reorder();
        let shared = Arc::new(ServerShared {
            control: Mutex::new(server),
            plane,
            listeners,
            views: RwLock::default(),
            failed: OnceLock::new(),
            errors: ErrorCounts::default(),
            mtu,
            wake: EventFd::new().map_err(io("eventfd"))?,
            control_batch: Mutex::default(),
            alarm: Alarm::new(),
            turn: Alarm::new(),
            turns: Turns::default(),
            sink,
            fork: ForkGuard::new().map_err(io("memory for the fork guard"))?,
            stopping: AtomicBool::new(false),
        });
        let running = ServerIo { shared, threads: Mutex::default() };
        for (number, mut handler) in handlers.into_iter().enumerate() {
            let receiver = running.shared.clone();
            let name = thread::numbered("mpt-receive", number);
            running.spawn(&name, move || {
                receive(&receiver, number, Delivery::new(&mut *handler, &receiver.plane, hold));
            })?;
        }
        let timer = running.shared.clone();
        running.spawn("mpt-timer", move || keep_time(&timer))?;
        Ok(running)
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let shared = self.shared.clone();
        let thread = thread::start(name, body, move |why| shared.fail(&why))
            .map_err(|source| Error::Io { op: format!("starting thread {name}"), source })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Says goodbye to all clients and stops the threads, within a bound. Does nothing the second
    /// time.
    pub(crate) fn close(&self) {
        if self.shared.stopping.swap(true, Relaxed) {
            return;
        }
        if self.shared.fork.is_child() {
            self.threads.lock().clear();
            return;
        }
        for turn in 0..FAREWELLS {
            let peers = self.shared.with_control(|server, now| {
                server.close(now);
                server.peers().count()
            });
            if peers == 0 {
                break;
            }
            if turn + 1 < FAREWELLS {
                std::thread::sleep(FAREWELL_GAP);
            }
        }
        self.shared.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        if !thread::join(threads, JOIN_WITHIN) {
            log::warn!(target: "mptunnel::io", "a thread did not stop in time and is left behind");
        }
    }
}

impl Drop for ServerIo {
    fn drop(&mut self) {
        self.close();
    }
}

impl ServerShared {
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

    /// Whether this process is a child of the one that opened the server.
    pub(crate) fn is_forked(&self) -> bool {
        self.fork.is_child()
    }

    fn fail(&self, why: &str) {
        log::error!(target: "mptunnel::io", "the server failed and stops: {why}");
        self.failed.get_or_init(|| why.to_owned());
        self.stop();
        (self.sink)(Event::Closed);
    }

    fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.alarm.stop();
        self.turn.stop();
        self.wake.set();
        for socket in self.listeners.iter().flatten() {
            socket.stop_reading();
        }
    }

    /// Runs `change` on the state machine, then does what it asks for.
    pub(crate) fn with_control<R>(&self, change: impl FnOnce(&mut Server, Time) -> R) -> R {
        let mut transmits = Vec::new();
        let mut proven = Vec::new();
        let result = {
            let mut server = self.control.lock();
            let result = change(&mut server, clock::now());
            transmits.extend(std::iter::from_fn(|| server.poll_transmit()));
            while let Some(event) = server.poll_event() {
                self.on_event(&server, event, &mut proven);
            }
            if let Some(at) = server.poll_timeout() {
                self.alarm.bring_forward(at);
            }
            result
        };
        self.transmit(&transmits);
        for (peer, slot, route) in proven {
            let bytes = self.max_packet_of(&route);
            self.set_path_mtu(peer, slot, bytes);
        }
        result
    }

    /// What the interface towards a client's path takes.
    fn set_path_mtu(&self, peer: PeerId, slot: u8, bytes: usize) {
        self.with_control(|server, now| server.set_path_mtu(now, peer, slot, bytes));
    }

    /// The largest packet for a route, as far as the kernel and the user know.
    fn max_packet_of(&self, route: &Route) -> usize {
        let known = route_mtu(route.local, route.remote).unwrap_or(1_500);
        let mtu = match self.mtu {
            0 => known,
            mtu => known.min(usize::from(mtu)),
        };
        max_packet(mtu, route.remote)
    }

    fn on_event(&self, server: &Server, event: ServerEvent, proven: &mut Vec<(PeerId, u8, Route)>) {
        (self.sink)(match event {
            ServerEvent::PeerUp(id) => {
                if let Some(view) = server.view(id) {
                    self.views.write().insert(id, view);
                }
                Event::PeerUp(id)
            }
            ServerEvent::PeerRestarted(id) => Event::PeerRestarted(id),
            ServerEvent::Rekeyed(id) => Event::Rekeyed(id),
            ServerEvent::PeerGone(id, why) => {
                self.views.write().remove(&id);
                Event::PeerGone(id, reason(why).to_owned())
            }
            ServerEvent::PathUp(id, slot, route) => {
                proven.push((id, slot, route));
                Event::PeerPathUp(id, slot, route.remote)
            }
            ServerEvent::PathMoved(id, slot, route) => {
                proven.push((id, slot, route));
                Event::PeerPathMoved(id, slot, route.remote)
            }
            ServerEvent::PathSilent(id, slot) => Event::PeerPathSilent(id, slot),
            ServerEvent::FlowClosed(peer, epoch, flow) => {
                Event::FlowClosed { peer, epoch, flow, code: 0 }
            }
            ServerEvent::UnknownKey(id) => Event::UnknownKey(hex(&id)),
            ServerEvent::Refused(why) => Event::PeerRefused(why.to_string()),
        });
    }

    fn transmit(&self, transmits: &[Transmit]) {
        if transmits.is_empty() || self.fork.is_child() {
            return;
        }
        let mut batch = self.control_batch.lock();
        for transmit in transmits {
            if let Some(socket) = self.socket(&transmit.route) {
                let to = Some((transmit.route.remote, transmit.route.local));
                if let Some(error) = &batch.send_one(socket, &transmit.bytes, to).error {
                    self.errors.count(PathId(0), error);
                }
            }
        }
    }

    /// The socket to send from. Any of a listener's does; a lock they do not have.
    fn socket(&self, route: &Route) -> Option<&UdpSocket> {
        self.listeners.get(route.socket as usize)?.first()
    }

    /// The view of a peer, for senders.
    pub(crate) fn view(&self, peer: PeerId) -> Option<Arc<ViewCell>> {
        self.views.read().get(&peer).cloned()
    }

    /// Sends a batch of datagrams to one peer, each sealed once, over all its chosen paths.
    pub(crate) fn send<'d>(
        &self,
        peer: PeerId,
        cell: &ViewCell,
        batch: &mut SendBatch,
        datagrams: impl Iterator<Item = (u16, &'d [u8])>,
    ) -> Result<Outcome, Error> {
        let (view, now) = self.view_to_send(peer, cell)?;
        self.send_with(peer, &view, now, batch, datagrams)
    }

    /// What may be sent to a peer with now, for a sender that chooses among the paths itself.
    pub(crate) fn view_to_send(
        &self,
        peer: PeerId,
        cell: &ViewCell,
    ) -> Result<(Arc<SendView>, Time), Error> {
        self.check()?;
        let view = cell.get().ok_or(Error::UnknownPeer(peer))?;
        let now = clock::now();
        if view.ends_a_pause(now) {
            self.with_control(|server, now| server.on_data_after_pause(now, peer));
        }
        Ok((view, now))
    }

    /// Waits for room in the sockets of the chosen paths.
    pub(crate) fn wait_for_room(
        &self,
        view: &SendView,
        patience: &mut Patience<'_>,
    ) -> Result<bool, Error> {
        let chosen = view.targets.iter().filter(|t| view.chosen() & path_bit(t.slot) != 0);
        let mut numbers: Vec<u32> = chosen.map(|t| t.route.socket).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let socket = |n: &u32| self.listeners.get(*n as usize)?.first();
        let sockets: Vec<&UdpSocket> = numbers.iter().filter_map(socket).collect();
        patience.wait(&sockets)
    }

    /// Sends with a view, as a whole or narrowed.
    pub(crate) fn send_with<'d>(
        &self,
        peer: PeerId,
        view: &SendView,
        now: Time,
        batch: &mut SendBatch,
        datagrams: impl Iterator<Item = (u16, &'d [u8])>,
    ) -> Result<Outcome, Error> {
        let sockets = ServerSockets { shared: self, peer };
        let sent = Outgoing::new(batch, view, &sockets).send_all(now, datagrams);
        sent.map_err(|(refused, len)| match refused {
            SendRefused::TooLarge { max } => Error::PayloadTooLarge { len, max },
            SendRefused::NoPath => Error::NoPath,
            SendRefused::NoSession => {
                Error::NotConnected("the client's keys have ended".to_owned())
            }
        })
    }
}

struct ServerSockets<'a> {
    shared: &'a ServerShared,
    peer: PeerId,
}

impl Sockets for ServerSockets<'_> {
    fn with<R>(&self, route: &Route, send: impl FnOnce(&UdpSocket, bool) -> R) -> Option<R> {
        self.shared.socket(route).map(|socket| send(socket, false))
    }

    fn on_report(&self, target: &Target, report: &SendReport) {
        if let Some(error) = &report.error {
            self.shared.errors.count(PathId(0), error);
        }
        if report.too_big > 0 {
            let bytes = self.shared.max_packet_of(&target.route);
            if bytes < target.max_packet {
                self.shared.set_path_mtu(self.peer, target.slot, bytes);
            }
        }
    }

    fn on_queued(&self, at: Time) {
        if self.shared.turns.note(at, self.peer.client()) {
            self.shared.turn.bring_forward(at);
        }
    }
}

fn reason(why: PeerGoneReason) -> &'static str {
    match why {
        PeerGoneReason::Closed => "it said goodbye",
        PeerGoneReason::TimedOut => "not heard for the session timeout",
        PeerGoneReason::Dismissed => "dismissed",
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The thread that keeps time. It starts the one that keeps the pace, when there is something to do
/// for it.
fn keep_time(shared: &Arc<ServerShared>) {
    let mut pacer = None;
    while shared.alarm.wait() {
        let wanted = shared.with_control(|server, now| {
            server.handle_timeout(now);
            server.take_pacer_wish()
        });
        if wanted && pacer.is_none() {
            let (its, failing) = (shared.clone(), shared.clone());
            let failed = move |why: String| failing.fail(&why);
            match thread::start("mpt-pace", move || keep_pace(&its), failed) {
                Ok(thread) => {
                    pacer = Some(thread);
                    shared.with_control(|server, now| server.start_pacing(now));
                }
                // The client asks again. Without it packets leave as they come.
                Err(error) => log::warn!(
                    target: "mptunnel::io",
                    "no thread to keep to the rates of clients' links ({error}): packets leave as they \
                     come; end other programs or raise the limit of tasks, clients ask again"
                ),
            }
        }
    }
    // It was told to stop together with this one.
    thread::join(pacer.into_iter().collect(), JOIN_WITHIN);
}

/// The thread that sends what waited for its turn on paths with a rate.
fn keep_pace(shared: &ServerShared) {
    let mut hands = Hands::default();
    while shared.turn.wait() {
        let now = clock::now();
        while let Some(peer) = shared.turns.take(now) {
            // What waits for a peer that is gone went with it.
            let Some(view) = shared.view(peer).and_then(|cell| cell.get()) else { continue };
            if let Some(next) = hands.send_due(&view, &ServerSockets { shared, peer }) {
                shared.turns.note(next, peer);
            }
        }
        if let Some(at) = shared.turns.next() {
            shared.turn.bring_forward(at);
        }
    }
}

/// A thread that receives: from all clients, or from those whose datagrams the kernel gives to its
/// sockets if there are several threads.
fn receive(shared: &ServerShared, number: usize, mut out: Delivery<'_>) {
    let sockets: Vec<&UdpSocket> = shared.listeners.iter().map(|group| &group[number]).collect();
    let mut batch = RecvBatch::default();
    let mut last = LastSession::batching();
    if let [socket] = &sockets[..] {
        // One socket: the read itself waits, which saves a call of poll(2) per wake-up.
        while !shared.stopping.load(Relaxed) {
            let wait = match out.patience() {
                None => Wait::First,
                Some(patience) => {
                    wait_for(&mut [PollFd::readable(*socket)], Some(patience));
                    Wait::DontWait
                }
            };
            receive_from(shared, 0, socket, wait, &mut batch, &mut last, &mut out);
            out.wake();
        }
        return;
    }
    let mut fds: Vec<PollFd> = std::iter::once(PollFd::readable(&shared.wake))
        .chain(sockets.iter().map(|socket| PollFd::readable(*socket)))
        .collect();
    loop {
        wait_for(&mut fds, out.patience());
        // The only thing that wakes a server is its end.
        if shared.stopping.load(Relaxed) {
            return;
        }
        for (number, socket) in (0u32..).zip(&sockets) {
            if fds[number as usize + 1].is_ready() {
                let wait = Wait::DontWait;
                receive_from(shared, number, socket, wait, &mut batch, &mut last, &mut out);
            }
        }
        out.wake();
    }
}

fn wait_for(fds: &mut [PollFd], patience: Option<Duration>) {
    if let Err(error) = poll(fds, patience) {
        panic!("poll(2) on open descriptors does not fail: {error}");
    }
}

fn receive_from(
    shared: &ServerShared,
    number: u32,
    socket: &UdpSocket,
    wait: Wait,
    batch: &mut RecvBatch,
    last: &mut LastSession,
    out: &mut Delivery<'_>,
) {
    let messages = match batch.recv(socket, wait) {
        Ok(messages) => messages,
        Err(error) => return shared.errors.count(PathId(0), &error),
    };
    if messages == 0 {
        return;
    }
    let now = clock::now();
    for index in 0..messages {
        let mut message = batch.message(index);
        let route = Route { socket: number, remote: message.remote, local: message.local_ip };
        for datagram in message.segments() {
            receive_one(shared, now, &route, datagram, last, out);
        }
    }
    shared.plane.settle(last);
    out.batch_end(now);
}

fn receive_one(
    shared: &ServerShared,
    now: Time,
    route: &Route,
    datagram: &mut [u8],
    last: &mut LastSession,
    out: &mut Delivery<'_>,
) {
    match shared.plane.receive(now, route, datagram, last) {
        Received::Data { session, flow, path, number, mark, payload } => {
            if promoted(shared, session) {
                let source = Source {
                    peer: PeerId(session.peer()),
                    epoch: session.epoch(),
                    flow,
                    path: path.map(PathId::of_slot),
                    superseded: session.is_superseded(),
                };
                out.datagram(now, session, (number, mark), source, payload.bytes());
            }
        }
        Received::Control { session, inner, len } => {
            shared.with_control(|server, now| {
                server.handle_control(now, session, route, inner, len);
            });
        }
        Received::Stranger(kind, datagram) => {
            shared.with_control(|server, now| server.handle_stranger(now, route, kind, datagram));
        }
        Received::Stored { session } => {
            promoted(shared, session);
        }
        Received::Dropped(_) => {}
    }
}

/// Whether the session is the peer's. It becomes so with the first packet under its keys.
fn promoted(shared: &ServerShared, session: &Arc<Session>) -> bool {
    session.is_confirmed() || shared.with_control(|server, now| server.promote(now, session))
}
