// SPDX-License-Identifier: BSD-2-Clause
//! The relay at the server's end: one target, a socket towards it for each flow.

use super::collect::Collector;
use super::{JOIN_WITHIN, RelayStats, SWEEP};
use crate::handler::{Handler, Source};
use crate::io::clock;
use crate::io::epoll::{Epoll, Ready};
use crate::io::recv::{RecvBatch, Wait};
use crate::io::send::{SendBatch, SendReport};
use crate::io::socket::{Family, SocketConfig, UdpSocket};
use crate::io::thread;
use crate::io::wake::EventFd;
use crate::proto::time::Time;
use crate::server::{PeerHandle, Server, ServerBuilder, ServerSender};
use crate::sync::{Mutex, RwLock};
use crate::{Error, Event, PeerId, Snapshot};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// Datagrams of a flow that ended are dropped for this long: they must not open it again.
const QUARANTINE: Duration = Duration::from_secs(30);
/// Ended flows that are remembered for that.
const MAX_ENDED: usize = 4_096;
/// A client is told at most this often that there is no room for a flow, or that it has ended.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// The number of the wake-up in the set of sockets; flows count from 1.
const WAKE: u64 = 0;
/// Batches that one socket may have before the others get their turn.
const TURNS: usize = 4;

/// How a [`ServerRelay`] is to be.
#[derive(Clone, Debug)]
pub struct ServerRelayConfig {
    /// Where datagrams go; `None` until it is known, see [`ServerRelay::set_target`].
    pub target: Option<SocketAddr>,
    /// Flows of one client at most.
    pub flows_per_client: usize,
    /// Flows of all clients at most: each takes a descriptor.
    pub flows: usize,
    /// A flow that carried nothing for this long is over.
    pub flow_timeout: Duration,
    /// Bytes of socket buffer to ask for.
    pub socket_buffer: usize,
    /// Whether the kernel may cut and join runs of datagrams.
    pub offload: bool,
    /// Threads that take datagrams from the target, 1 to 32.
    pub threads: u8,
}

/// Which flow of which process of which client.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct FlowKey {
    peer: PeerId,
    epoch: u32,
    flow: u16,
}

struct Flow {
    key: FlowKey,
    /// Its number in the set of sockets; never used again.
    number: u64,
    socket: UdpSocket,
    to: PeerHandle,
    /// When it last carried something, in microseconds.
    used: AtomicU64,
}

#[derive(Default)]
struct Flows {
    by_key: HashMap<FlowKey, Arc<Flow>>,
    by_number: HashMap<u64, Arc<Flow>>,
    per_peer: HashMap<PeerId, HashSet<FlowKey>>,
    next_number: u64,
    ended: VecDeque<(FlowKey, Time)>,
    /// The flows in it: asked for each datagram without a flow.
    resting: HashMap<FlowKey, Time>,
    /// When clients were last told that they have no such flow.
    told: HashMap<FlowKey, Time>,
    /// Of the flows that ended.
    kernel_dropped: u64,
}

#[derive(Default)]
struct Counters {
    refused: AtomicU64,
    to_tunnel: AtomicU64,
    from_tunnel: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Said {
    full: Option<Time>,
    target: Option<Time>,
}

struct Shared {
    /// Set right after the server was bound: its handler needs it.
    server: OnceLock<std::sync::Weak<Server>>,
    config: RwLock<ServerRelayConfig>,
    target: RwLock<Option<SocketAddr>>,
    flows: RwLock<Flows>,
    /// For each thread, the sockets of the flows that are its own.
    sets: Vec<Epoll>,
    wake: EventFd,
    counters: Counters,
    stopping: AtomicBool,
    said: Mutex<Said>,
}

/// Carries the datagrams of all clients of a server to one target and back.
pub struct ServerRelay {
    server: Arc<Server>,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Events that were lost, as of the last look.
    missed: AtomicU64,
}

impl ServerRelay {
    /// Binds the server that `builder` describes, and begins to carry.
    ///
    /// # Errors
    /// What [`ServerBuilder::bind`] returns; [`Error::Io`] if descriptors have run out.
    pub fn start(config: ServerRelayConfig, builder: ServerBuilder) -> Result<Self, Error> {
        let io = |op: &'static str| move |source| Error::Io { op: op.to_owned(), source };
        let shared = Arc::new(Shared {
            server: OnceLock::new(),
            target: RwLock::new(config.target),
            sets: (0..config.threads.max(1))
                .map(|_| Epoll::new())
                .collect::<Result<_, _>>()
                .map_err(io("epoll"))?,
            config: RwLock::new(config),
            flows: RwLock::default(),
            wake: EventFd::new().map_err(io("eventfd"))?,
            counters: Counters::default(),
            stopping: AtomicBool::new(false),
            said: Mutex::default(),
        });
        for set in &shared.sets {
            set.add(&shared.wake, WAKE).map_err(io("epoll"))?;
        }
        let upstream = shared.clone();
        let builder = builder.handlers(move || Upstream::new(upstream.clone()));
        let server = Arc::new(builder.bind()?);
        let _ = shared.server.set(Arc::downgrade(&server));
        let relay =
            ServerRelay { server, shared, threads: Mutex::default(), missed: AtomicU64::new(0) };
        for number in 0..relay.shared.sets.len() {
            relay.carry_down(number).map_err(io("starting thread mpt-target"))?;
        }
        Ok(relay)
    }

    fn carry_down(&self, number: usize) -> std::io::Result<()> {
        let (downstream, sender) = (self.shared.clone(), self.server.sender());
        let (failed, of) = (self.shared.clone(), Arc::downgrade(&self.server));
        let thread = thread::start(
            &thread::numbered("mpt-target", number),
            move || carry_down(&downstream, &downstream.sets[number], sender),
            move |why| {
                log::error!(target: "mptunnel::relay", "the relay failed and stops: {why}");
                failed.stop();
                if let Some(server) = of.upgrade() {
                    server.close();
                }
            },
        )?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// The server, for its state and its clients.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Sends new flows elsewhere from now on; flows that are open stay where they are.
    pub fn set_target(&self, target: SocketAddr) {
        *self.shared.target.write() = Some(target);
    }

    /// Changes how many flows there may be, of one client and of all together, and how long an idle
    /// one lasts. Flows that are open stay open even if they are too many.
    pub fn set_flow_limits(&self, per_client: usize, all: usize, timeout: Duration) {
        let mut config = self.shared.config.write();
        (config.flows_per_client, config.flows) = (per_client, all);
        config.flow_timeout = timeout;
    }

    /// What was carried.
    pub fn stats(&self) -> RelayStats {
        let counters = &self.shared.counters;
        let flows = self.shared.flows.read();
        let of_open = flows.by_key.values().map(|flow| u64::from(flow.socket.receive_drops()));
        RelayStats {
            flows: flows.by_key.len(),
            flows_refused: counters.refused.load(Relaxed),
            to_tunnel: counters.to_tunnel.load(Relaxed),
            from_tunnel: counters.from_tunnel.load(Relaxed),
            dropped: counters.dropped.load(Relaxed),
            kernel_dropped: flows.kernel_dropped + of_open.sum::<u64>(),
        }
    }

    /// Everything that can be seen of the relay and of its end of the tunnel.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { relay: Some(self.stats()), ..self.server.snapshot() }
    }

    /// The server's next event, after the relay has done its part about it. Has to be called again
    /// and again; `None` after the timeout.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Interrupted`].
    pub fn next_event(&self, timeout: Duration) -> Result<Option<Event>, Error> {
        for key in self.shared.sweep() {
            self.server.close_flow(key.peer, key.flow, false);
        }
        let missed = self.server.events_dropped();
        if self.missed.swap(missed, Relaxed) != missed {
            // The end of a process or of a client may be among them.
            let peers: Vec<PeerId> = self.shared.flows.read().per_peer.keys().copied().collect();
            peers.into_iter().for_each(|peer| self.end_former(peer));
        }
        let event = match self.server.next_event(Some(timeout.min(SWEEP))) {
            Ok(event) => event,
            Err(Error::TimedOut(_) | Error::WouldBlock) => return Ok(None),
            Err(error) => return Err(error),
        };
        match &event {
            // A later process may have a flow of the same number by now.
            Event::FlowClosed { peer, epoch, flow, .. } => {
                self.shared.end_of(*peer, |key| (key.epoch, key.flow) == (*epoch, *flow));
            }
            Event::PeerGone(peer, _) => self.shared.end_of(*peer, |_| true),
            Event::PeerRestarted(peer) => self.end_former(*peer),
            _ => {}
        }
        Ok(Some(event))
    }

    /// Ends the flows of a client's earlier processes, and all of them if it is gone. Those of the
    /// new process may have begun already.
    fn end_former(&self, peer: PeerId) {
        let epoch = self.server.epoch(peer);
        self.shared.end_of(peer, |key| epoch.is_none_or(|epoch| key.epoch < epoch));
    }

    /// Stops carrying, tells all clients, closes the server; within a bound.
    pub fn close(&self) {
        self.shared.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        thread::join(threads, JOIN_WITHIN);
        self.server.close();
    }
}

impl Drop for ServerRelay {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.wake.set();
    }

    /// The set, and so the thread, that has the flow of this number.
    fn set_of(&self, number: u64) -> &Epoll {
        &self.sets[(number % self.sets.len() as u64) as usize]
    }

    /// The flow of a datagram, a new one if need be; `None` if it has none.
    fn flow_of(&self, source: &Source, now: Time) -> Option<Arc<Flow>> {
        let key = FlowKey { peer: source.peer, epoch: source.epoch, flow: source.flow };
        let is_resting = {
            let flows = self.flows.read();
            if let Some(flow) = flows.by_key.get(&key) {
                return Some(flow.clone());
            }
            // What is refused all the time must cost no more than this.
            if flows.told.get(&key).is_some_and(|at| now.since(*at) < TELL_AGAIN) {
                return None;
            }
            flows.resting.get(&key).is_some_and(|at| now.since(*at) < QUARANTINE)
        };
        // What a replaced process of the client still sends opens nothing; flow 0 is the library's.
        if source.superseded || source.flow == 0 || source.flow == u16::MAX {
            return None;
        }
        let (per_client, all) = {
            let config = self.config.read();
            (config.flows_per_client, config.flows)
        };
        let mut flows = self.flows.write();
        if is_resting {
            // Late, or the client did not hear that the flow has ended.
            self.tell_closed(&mut flows, key, now, false);
            return None;
        }
        let of_peer = flows.per_peer.get(&key.peer).map_or(0, HashSet::len);
        let full = if of_peer >= per_client {
            Some(format!("it has {per_client}, which is the limit (option flows)"))
        } else if flows.by_key.len() >= all {
            Some(format!(
                "all clients have {all}, which is the limit (options sessions and flows, \
                          or the number of open files, ulimit -n)"
            ))
        } else {
            None
        };
        if let Some(why) = full {
            self.refuse(&mut flows, key, now, &why);
            return None;
        }
        let target = (*self.target.read())?;
        let socket = match self.open(target) {
            Ok(socket) => socket,
            Err(error) => {
                self.refuse(&mut flows, key, now, &format!("no socket to {target}: {error}"));
                return None;
            }
        };
        let server = self.server.get()?.upgrade()?;
        let to = server.handle(key.peer).ok()?;
        flows.next_number += 1;
        let number = flows.next_number;
        if let Err(error) = self.set_of(number).add(&socket, number) {
            self.refuse(&mut flows, key, now, &format!("epoll: {error}"));
            return None;
        }
        let used = AtomicU64::new(now.as_micros());
        let flow = Arc::new(Flow { key, number, socket, to, used });
        flows.by_key.insert(key, flow.clone());
        flows.by_number.insert(number, flow.clone());
        flows.per_peer.entry(key.peer).or_default().insert(key);
        log::debug!(target: "mptunnel::relay", "client {} flow {}: begins", key.peer, key.flow);
        Some(flow)
    }

    fn open(&self, target: SocketAddr) -> std::io::Result<UdpSocket> {
        let mut config = SocketConfig::any(Family::of(target));
        {
            let ours = self.config.read();
            (config.recv_buffer, config.send_buffer) = (ours.socket_buffer, ours.socket_buffer);
            config.offload = ours.offload;
        }
        let socket = UdpSocket::open(&config).map_err(|error| error.source)?;
        socket.connect(target).map_err(|error| error.source)?;
        Ok(socket)
    }

    /// Tells the client, now and then, that there is no room; the operator once a minute.
    fn refuse(&self, flows: &mut Flows, key: FlowKey, now: Time, why: &str) {
        self.counters.refused.fetch_add(1, Relaxed);
        self.tell_closed(flows, key, now, true);
        let mut said = self.said.lock();
        if said.full.is_none_or(|at| now.since(at) >= Duration::from_secs(60)) {
            said.full = Some(now);
            log::warn!(
                target: "mptunnel::relay",
                "client {}: a new flow is refused: {why}; open flows go on", key.peer
            );
        }
    }

    fn tell_closed(&self, flows: &mut Flows, key: FlowKey, now: Time, refused: bool) {
        if flows.told.len() >= MAX_ENDED {
            return;
        }
        flows.told.insert(key, now);
        if let Some(server) = self.server.get().and_then(std::sync::Weak::upgrade) {
            server.close_flow(key.peer, key.flow, refused);
        }
    }

    fn say_target(&self, now: Time, error: &std::io::Error) {
        let mut said = self.said.lock();
        if said.target.is_none_or(|at| now.since(at) >= Duration::from_secs(60)) {
            said.target = Some(now);
            let target = self.target.read().map_or("?".to_owned(), |t| t.to_string());
            if error.kind() == std::io::ErrorKind::ConnectionRefused {
                log::warn!(
                    target: "mptunnel::relay",
                    "target {target}: nothing listens there; datagrams are lost until it does"
                );
            } else {
                log::warn!(target: "mptunnel::relay", "target {target}: {error}");
            }
        }
    }

    /// Ends flows that carried nothing for long.
    fn sweep(&self) -> Vec<FlowKey> {
        let now = clock::now();
        let timeout = self.config.read().flow_timeout;
        let over = |flow: &Arc<Flow>| {
            let used = Time::from_micros(flow.used.load(Relaxed));
            now.since(used) >= timeout
        };
        let mut idle: Vec<FlowKey> = {
            let flows = self.flows.read();
            flows.by_key.values().filter(|flow| over(flow)).map(|flow| flow.key).collect()
        };
        let mut flows = self.flows.write();
        flows.told.retain(|_, at| now.since(*at) < TELL_AGAIN);
        // Unless it was used meanwhile.
        idle.retain(|key| flows.by_key.get(key).is_some_and(&over));
        for key in &idle {
            flows.end(key, now);
        }
        idle
    }

    /// Ends flows of one client.
    fn end_of(&self, peer: PeerId, over: impl Fn(&FlowKey) -> bool) {
        let now = clock::now();
        let mut flows = self.flows.write();
        let Some(its) = flows.per_peer.get(&peer) else { return };
        let keys: Vec<FlowKey> = its.iter().filter(|key| over(key)).copied().collect();
        for key in keys {
            flows.end(&key, now);
        }
    }

    fn pass(&self, batch: &mut SendBatch, bit: u32, flow: &Flow) -> SendReport {
        let report = batch.send(&flow.socket, bit, None);
        let lost = report.dropped + report.too_big;
        if lost > 0 {
            self.counters.dropped.fetch_add(lost as u64, Relaxed);
        }
        if let Some(error) = &report.error {
            self.say_target(clock::now(), error);
        }
        report
    }
}

impl Flows {
    /// Takes a flow out and lets its number rest.
    fn end(&mut self, key: &FlowKey, now: Time) {
        let Some(flow) = self.by_key.remove(key) else { return };
        self.by_number.remove(&flow.number);
        self.kernel_dropped += u64::from(flow.socket.receive_drops());
        if let Some(its) = self.per_peer.get_mut(&key.peer) {
            its.remove(key);
            if its.is_empty() {
                self.per_peer.remove(&key.peer);
            }
        }
        while self.ended.len() >= MAX_ENDED
            || self.ended.front().is_some_and(|(_, at)| now.since(*at) >= QUARANTINE)
        {
            let Some((rested, since)) = self.ended.pop_front() else { break };
            // It may have begun and ended again in between.
            if self.resting.get(&rested) == Some(&since) {
                self.resting.remove(&rested);
            }
        }
        self.ended.push_back((*key, now));
        self.resting.insert(*key, now);
        log::debug!(target: "mptunnel::relay", "client {} flow {}: over", key.peer, key.flow);
    }
}

/// Two flows are the same destination if they are the same flow.
#[derive(Clone)]
struct ToTarget(Arc<Flow>);

impl PartialEq for ToTarget {
    fn eq(&self, other: &Self) -> bool {
        self.0.number == other.0.number
    }
}

/// Carries from the tunnel to the target, on the thread that receives.
struct Upstream {
    shared: Arc<Shared>,
    out: Collector<ToTarget>,
    /// The flow of the previous datagram, in one batch: most batches belong to few flows.
    last: Option<ToTarget>,
    carried: u64,
}

impl Upstream {
    fn new(shared: Arc<Shared>) -> Self {
        Upstream { shared, out: Collector::new(), last: None, carried: 0 }
    }
}

impl Handler for Upstream {
    fn datagram(&mut self, source: &Source, bytes: &[u8]) {
        let key = FlowKey { peer: source.peer, epoch: source.epoch, flow: source.flow };
        if self.last.as_ref().is_none_or(|to| to.0.key != key) {
            let now = clock::now();
            self.last = self.shared.flow_of(source, now).map(ToTarget);
            if let Some(to) = &self.last {
                to.0.used.store(now.as_micros(), Relaxed);
            }
        }
        let Some(to) = &self.last else {
            self.shared.counters.dropped.fetch_add(1, Relaxed);
            return;
        };
        self.carried += 1;
        let shared = &self.shared;
        self.out.push(to, bytes, &mut |batch, bit, to: &ToTarget| shared.pass(batch, bit, &to.0));
    }

    fn batch_end(&mut self) {
        let shared = &self.shared;
        self.out.flush(&mut |batch, bit, to: &ToTarget| shared.pass(batch, bit, &to.0));
        shared.counters.from_tunnel.fetch_add(std::mem::take(&mut self.carried), Relaxed);
        // Not kept longer than a batch: the flow may end, and its socket must then be closed.
        self.last = None;
    }
}

/// A thread that carries from the target into the tunnel.
fn carry_down(shared: &Shared, sockets: &Epoll, mut sender: ServerSender) {
    let mut batch = RecvBatch::default();
    let mut ready = Ready::new(64);
    loop {
        if let Err(error) = sockets.wait(&mut ready, Duration::from_secs(60)) {
            panic!("epoll_wait(2) on a set that lives does not fail: {error}");
        }
        if shared.stopping.load(Relaxed) {
            return;
        }
        for number in ready.numbers() {
            let flow = shared.flows.read().by_number.get(&number).cloned();
            if let Some(flow) = flow {
                carry_from(shared, &flow, &mut batch, &mut sender);
            }
        }
    }
}

fn carry_from(shared: &Shared, flow: &Flow, batch: &mut RecvBatch, sender: &mut ServerSender) {
    for _ in 0..TURNS {
        let messages = match batch.recv(&flow.socket, Wait::DontWait) {
            Ok(0) => return,
            Ok(messages) => messages,
            // A target that is not there: an event with a counter, the socket is kept.
            Err(error) => return shared.say_target(clock::now(), &error),
        };
        flow.used.store(clock::now().as_micros(), Relaxed);
        let mut count = 0;
        let datagrams = (0..messages).flat_map(|index| batch.peek(index).segments());
        let datagrams = datagrams.inspect(|_| count += 1).map(|bytes| (flow.key.flow, bytes));
        let result = sender.send(&flow.to, datagrams);
        shared.counters.to_tunnel.fetch_add(count, Relaxed);
        if result.is_err() {
            shared.counters.dropped.fetch_add(count, Relaxed);
        }
        if messages < batch.capacity() {
            return;
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_types, reason = "the target is a plain socket")]
mod tests {
    use super::*;
    use crate::Tunnel;
    use std::net::UdpSocket as Plain;

    #[test]
    fn flows_end_with_their_client_even_if_its_end_is_lost_among_other_events() {
        let target = Plain::bind("127.0.0.1:0").unwrap();
        target.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let config = ServerRelayConfig {
            target: Some(target.local_addr().unwrap()),
            flows_per_client: 2,
            flows: 10,
            flow_timeout: Duration::from_secs(3_600),
            socket_buffer: 0,
            offload: true,
            threads: 1,
        };
        let builder = Server::builder().key(&[7; 32]).listen("127.0.0.1:0".parse().unwrap());
        let relay = ServerRelay::start(config, builder).unwrap();
        let to = relay.server().local_addrs()[0].to_string();
        let tunnel = Arc::new(Tunnel::builder().key(&[7; 32]).server(&to).connect().unwrap());
        tunnel.wait_ready(Some(Duration::from_secs(5))).unwrap();
        tunnel.sender().send([(5, &b"x"[..])]).unwrap();
        target.recv(&mut [0; 10]).unwrap();
        assert_eq!(relay.stats().flows, 1);
        while relay.next_event(Duration::ZERO).unwrap().is_some() {}

        let peer = relay.server().peers()[0].id;
        tunnel.close();
        relay.server().dismiss(peer);
        for _ in 0..2_000 {
            relay.server().tell(Event::ServerUnderLoad);
        }

        relay.next_event(Duration::ZERO).unwrap();
        assert_eq!(relay.stats().flows, 0);
    }
}
