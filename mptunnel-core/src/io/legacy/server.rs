// SPDX-License-Identifier: BSD-2-Clause
//! The server's end on real sockets.

use super::life::Life;
use super::outbound::{Lane, Outbound};
use crate::handler::{Handler, Source};
use crate::io::client::EventSink;
use crate::io::clock;
use crate::io::errors::ErrorCounts;
use crate::io::outgoing::Outcome;
use crate::io::recv::{RecvBatch, Wait};
use crate::io::room::Room;
use crate::io::send::SendBatch;
use crate::io::socket::UdpSocket;
use crate::io::wake::{PollFd, poll};
use crate::legacy::{HEADER_LEN, News, Remote, Server, Usage, ctl};
use crate::options::Settings;
use crate::proto::drop::DropCounters;
use crate::proto::route::PathCounts;
use crate::proto::time::Time;
use crate::sending::SendOptions;
use crate::stats::{PathInfo, PathState, PeerInfo, SessionInfo, Traffic};
use crate::sync::Mutex;
use crate::{Error, Event, PathId, PeerId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// The one client.
pub(crate) const PEER: PeerId = PeerId(1);
/// Always the same process of the client, as far as flows go: what is open towards the target
/// outlives a restart, as in the classic server.
pub(crate) const EPOCH: u32 = 0;
/// Flows have numbers from 1 to this.
const MAX_FLOW: u16 = 0xfffe;
/// The next block of numbers is reserved in time at a million datagrams a second.
const TOP_UP: Duration = Duration::from_millis(20);

struct Shared {
    life: Life,
    outbound: Outbound,
    drops: Arc<DropCounters>,
    listeners: Vec<Arc<UdpSocket>>,
    /// The number of what the client sends: another one after each end of a flow, because datagrams
    /// of one that has ended are dropped for a while.
    flow: AtomicU16,
    restarts: AtomicU32,
    window: AtomicU32,
    settings: Settings,
}

/// A running server.
pub(crate) struct ServerIo {
    shared: Arc<Shared>,
}

impl ServerIo {
    /// Starts the thread on sockets that are bound already.
    pub(crate) fn start(
        settings: &Settings,
        listeners: Vec<UdpSocket>,
        mut handler: Box<dyn Handler>,
        sink: EventSink,
    ) -> Result<ServerIo, Error> {
        let shared = Arc::new(Shared {
            life: Life::new(sink)?,
            outbound: Outbound::new(settings)?,
            drops: Arc::default(),
            listeners: listeners.into_iter().map(Arc::new).collect(),
            flow: AtomicU16::new(1),
            restarts: AtomicU32::new(0),
            window: AtomicU32::new(0),
            settings: settings.clone(),
        });
        super::warn();
        let (body, failed) = (shared.clone(), shared.clone());
        let end = ServerIo { shared };
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

    /// Whether the client is known.
    pub(crate) fn is_ready(&self) -> bool {
        !self.shared.outbound.lanes().all.is_empty()
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

    /// What passed over all sources, those that are gone as well.
    pub(crate) fn counts(&self) -> PathCounts {
        let lanes = self.shared.outbound.lanes();
        self.shared.outbound.counts(lanes.all.iter().map(|lane| &lane.usage))
    }

    /// What the kernel dropped at the sockets, and the size of a receive buffer.
    pub(crate) fn kernel(&self) -> (u64, usize) {
        let sockets = &self.shared.listeners;
        let dropped = sockets.iter().map(|socket| u64::from(socket.receive_drops())).sum();
        (dropped, sockets.first().map_or(0, |socket| socket.granted_buffers().recv))
    }

    /// Sends datagrams to the client.
    pub(crate) fn send<'d>(
        &self,
        peer: PeerId,
        batch: &mut SendBatch,
        datagrams: impl Iterator<Item = &'d [u8]>,
    ) -> Result<Outcome, Error> {
        self.know(peer)?;
        self.shared.outbound.send(&self.shared.life, batch, datagrams)
    }

    /// As [`send`](Self::send), with wishes.
    pub(crate) fn send_all<'d>(
        &self,
        peer: PeerId,
        batch: &Mutex<SendBatch>,
        room: &Room,
        datagrams: impl Iterator<Item = &'d [u8]> + Clone,
        options: &SendOptions,
    ) -> Result<usize, Error> {
        self.know(peer)?;
        self.shared.outbound.send_all(&self.shared.life, batch, room, datagrams, options)
    }

    /// # Errors
    /// [`Error::UnknownPeer`] if it is not the one client, or that is not known yet.
    pub(crate) fn know(&self, peer: PeerId) -> Result<(), Error> {
        self.check()?;
        match peer.client() == PEER && self.is_ready() {
            true => Ok(()),
            false => Err(Error::UnknownPeer(peer)),
        }
    }

    /// A flow has ended: what comes next belongs to another one.
    pub(crate) fn close_flow(&self, peer: PeerId, flow: u16) {
        if peer.client() == PEER {
            self.shared.end_flow(flow);
        }
    }

    /// The one client, if it is known.
    pub(crate) fn peers(&self) -> Vec<PeerInfo> {
        let lanes = self.shared.outbound.lanes();
        if lanes.all.is_empty() {
            return Vec::new();
        }
        vec![PeerInfo {
            session: SessionInfo::default(),
            id: PEER,
            restarts: self.shared.restarts.load(Relaxed),
            paths: lanes.all.iter().map(|lane| info(&self.shared, lane)).collect(),
            traffic: Traffic::of(self.counts()),
            mode: "redundant",
            cipher: "none",
            window: self.shared.window.load(Relaxed) as usize,
        }]
    }
}

impl Drop for ServerIo {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn end_flow(&self, flow: u16) {
        let next = if flow >= MAX_FLOW { 1 } else { flow + 1 };
        // Unless it has ended already.
        let _ = self.flow.compare_exchange(flow, next, Relaxed, Relaxed);
    }
}

fn info(shared: &Shared, lane: &Lane) -> PathInfo {
    let slot = lane.path.slot_at_server().unwrap_or(u8::MAX);
    let recent = super::timers(&shared.settings).displace();
    let silent = lane.usage.heard_at().map_or(Duration::MAX, |at| clock::now().since(at));
    let mut info = PathInfo {
        id: lane.path,
        slot,
        name: format!("path {slot}"),
        up: silent < recent,
        state: if silent < recent { PathState::Up } else { PathState::Down },
        reason: format!("heard {} s ago", silent.as_secs()).into(),
        remote: lane.to.map(|(remote, _)| remote),
        ..PathInfo::default()
    };
    info.count(lane.usage.counts());
    info
}

/// What the thread owns.
struct Engine {
    shared: Arc<Shared>,
    machine: Server,
    batch: SendBatch,
    topped_up: Time,
}

impl Engine {
    fn new(shared: Arc<Shared>) -> Self {
        let settings = &shared.settings;
        let machine = Server::new(super::timers(settings), settings.window, shared.drops.clone());
        shared.window.store(machine.window(), Relaxed);
        Engine { machine, batch: SendBatch::default(), topped_up: Time::default(), shared }
    }

    /// The body of the thread.
    fn run(mut self, handler: &mut dyn Handler) {
        let shared = self.shared.clone();
        let mut batch = RecvBatch::default();
        let mut fds = vec![PollFd::readable(&shared.life.wake)];
        fds.extend(shared.listeners.iter().map(|socket| PollFd::readable(&**socket)));
        loop {
            shared.life.wake.clear();
            // Asked after the wake-up was cleared: stopping sets the flag first.
            if shared.life.is_stopping() {
                return;
            }
            self.tend();
            let left = self.due().since(clock::now());
            if let Err(error) = poll(&mut fds, Some(left)) {
                panic!("poll(2) on open descriptors does not fail: {error}");
            }
            for ((number, socket), fd) in (0u32..).zip(&shared.listeners).zip(&fds[1..]) {
                if fd.is_ready() {
                    self.receive(number, socket, &mut batch, handler);
                }
            }
        }
    }

    fn due(&self) -> Time {
        // Bounded: the clock counts suspend, poll(2) does not.
        let bound = clock::now() + Duration::from_secs(5);
        let sends = self.machine.sources().filter_map(|(.., usage)| usage.sent_at()).max();
        let top_up = match sends.is_some_and(|at| at >= self.topped_up) {
            true => self.topped_up + TOP_UP,
            false => Time::NEVER,
        };
        self.machine.poll_timeout().min(top_up).min(bound)
    }

    /// Everything but receiving.
    fn tend(&mut self) {
        let now = clock::now();
        // They are counted. Which of its sources an unconnected socket means, nobody knows.
        self.shared.outbound.take_troubles();
        if now.since(self.topped_up) >= TOP_UP {
            self.topped_up = now;
            self.shared.outbound.numbers.top_up();
        }
        if self.machine.poll_timeout() <= now {
            self.machine.handle_timeout(now);
        }
        self.act();
    }

    /// Takes what is there on one socket.
    fn receive(
        &mut self,
        number: u32,
        socket: &UdpSocket,
        batch: &mut RecvBatch,
        handler: &mut dyn Handler,
    ) {
        let messages = match batch.recv(socket, Wait::DontWait) {
            Ok(messages) => messages,
            Err(error) => return self.shared.outbound.errors.count(PathId(0), &error),
        };
        let now = clock::now();
        let flow = self.shared.flow.load(Relaxed);
        for index in 0..messages {
            let mut message = batch.message(index);
            let (address, local) = (message.remote, message.local_ip);
            let remote = Remote { socket: number, address };
            for datagram in message.segments() {
                let Some((slot, payload)) = self.machine.receive(now, remote, local, datagram)
                else {
                    continue;
                };
                // Before it is delivered: who takes it can answer at once.
                self.act();
                let path = Some(PathId::of_slot(slot));
                let source = Source { peer: PEER, epoch: EPOCH, flow, path, superseded: false };
                handler.datagram(&source, payload);
            }
        }
        if messages > 0 {
            handler.batch_end();
        }
        self.act();
    }

    /// Does what the machine asks for, and tells what happened.
    fn act(&mut self) {
        let mut speak = Vec::new();
        let mut events = Vec::new();
        let mut changed = false;
        while let Some(news) = self.machine.poll_news() {
            match news {
                News::Up(slot, remote) => {
                    changed = true;
                    events.push(Event::PeerPathUp(PEER, slot, remote.address));
                }
                News::Gone(slot, _) => {
                    changed = true;
                    let lanes = self.shared.outbound.lanes();
                    let path = PathId::of_slot(slot);
                    if let Some(lane) = lanes.all.iter().find(|lane| lane.path == path) {
                        self.shared.outbound.keep(path, &lane.usage);
                    }
                    events.push(Event::PeerPathSilent(PEER, slot));
                }
                News::Moved(_) => changed = true,
                News::Speak(slot) => speak.push(slot),
                News::Restarted => {
                    self.shared.restarts.fetch_add(1, Relaxed);
                    events.push(Event::PeerRestarted(PEER));
                }
            }
        }
        if changed {
            let was_known = !self.shared.outbound.lanes().all.is_empty();
            self.publish();
            let is_known = self.machine.sources().next().is_some();
            match (was_known, is_known) {
                (false, true) => events.insert(0, Event::PeerUp(PEER)),
                (true, false) => {
                    // Its flow ends with it, and datagrams of a flow that has ended are dropped.
                    self.shared.end_flow(self.shared.flow.load(Relaxed));
                    events.push(Event::PeerGone(PEER, "nothing came from it for long".to_owned()));
                }
                _ => {}
            }
        }
        events.into_iter().for_each(|event| self.shared.life.tell(event));
        for slot in speak {
            self.speak(slot);
        }
    }

    fn speak(&mut self, slot: u8) {
        let path = PathId::of_slot(slot);
        let lanes = self.shared.outbound.lanes();
        let Some(lane) = lanes.all.iter().find(|lane| lane.path == path) else { return };
        let packet: [u8; HEADER_LEN] = ctl(self.shared.outbound.iv());
        self.shared.outbound.send_one(&self.shared.life, &mut self.batch, lane, &packet);
    }

    /// Shows senders which sources there are now.
    fn publish(&mut self) {
        let lane = |(slot, remote, local, usage): (u8, Remote, _, &Arc<Usage>)| {
            Some(Lane {
                path: PathId::of_slot(slot),
                socket: self.shared.listeners.get(remote.socket as usize)?.clone(),
                to: Some((remote.address, local)),
                usage: usage.clone(),
                backup: false,
            })
        };
        let lanes = self.machine.sources().filter_map(lane).collect();
        self.shared.outbound.publish(lanes);
    }
}
