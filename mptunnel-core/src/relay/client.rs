// SPDX-License-Identifier: BSD-2-Clause
//! The relay at the client's end: one local socket, many applications.

use super::collect::Collector;
use super::{JOIN_WITHIN, MAX_FLOW, RelayStats, SWEEP};
use crate::handler::{Handler, Source};
use crate::io::clock;
use crate::io::recv::{RecvBatch, Wait};
use crate::io::send::SendReport;
use crate::io::socket::{SocketConfig, UdpSocket};
use crate::io::thread;
use crate::proto::time::Time;
use crate::sync::{Mutex, RwLock};
use crate::tunnel::{Tunnel, TunnelBuilder, TunnelSender};
use crate::{Error, Event, Snapshot};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// A number is not used again for this long after its flow ended: late datagrams of the old
/// application must not reach a new one.
const QUARANTINE: Duration = Duration::from_secs(60);
/// How long a flow that the server refused keeps quiet.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// How often it is looked whether the application that has the one place of the legacy protocol is
/// still there.
const LOOK_FOR_HOLDER: Duration = Duration::from_millis(100);

/// Numbers without a flow that the server is told of at once: what CLOSE is limited to.
const MAX_ORPHANS: usize = 20;

/// How a [`ClientRelay`] is to be.
#[derive(Clone, Debug)]
pub struct ClientRelayConfig {
    /// Where applications send to.
    pub listen: SocketAddr,
    /// Flows at most.
    pub flows: usize,
    /// A flow that carried nothing for this long is over.
    pub flow_timeout: Duration,
    /// Bytes of socket buffer to ask for.
    pub socket_buffer: usize,
    /// Whether the kernel may cut and join runs of datagrams.
    pub offload: bool,
}

/// An application: where it sends from, and which of our addresses it sends to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct App {
    remote: SocketAddr,
    local: Option<IpAddr>,
}

struct Flow {
    number: u16,
    app: App,
    /// When it last carried something, in microseconds.
    used: AtomicU64,
    /// Whether its number is somebody else's by now, or nobody's.
    ended: AtomicBool,
    /// Until when it keeps quiet because the server refused it, in microseconds.
    quiet_until: AtomicU64,
}

#[derive(Default)]
struct Flows {
    by_app: HashMap<App, Arc<Flow>>,
    by_number: HashMap<u16, Arc<Flow>>,
    last_number: u16,
    quarantine: VecDeque<(u16, Time)>,
    /// The numbers in it: asked for each new flow.
    resting: HashSet<u16>,
}

#[derive(Default)]
struct Counters {
    refused: AtomicU64,
    to_tunnel: AtomicU64,
    from_tunnel: AtomicU64,
    dropped: AtomicU64,
}

/// When something was said last.
#[derive(Default)]
struct Said {
    full: Option<Time>,
    tunnel: Option<Time>,
    orphans: Option<Time>,
    holder: Option<Time>,
}

struct Shared {
    socket: UdpSocket,
    /// The protocol has room for one application only.
    exclusive: bool,
    config: RwLock<ClientRelayConfig>,
    flows: RwLock<Flows>,
    /// Numbers without a flow on which the server still sends: it did not hear that they ended.
    orphans: Mutex<BTreeSet<u16>>,
    counters: Counters,
    stopping: AtomicBool,
    said: Mutex<Said>,
}

/// Carries the datagrams of local applications over a tunnel.
pub struct ClientRelay {
    tunnel: Arc<Tunnel>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    local: SocketAddr,
}

impl ClientRelay {
    /// Binds the local socket, opens the tunnel that `builder` describes, and begins to carry.
    ///
    /// # Errors
    /// [`Error::Io`] if the local address cannot be bound; what [`TunnelBuilder::connect`] returns.
    pub fn start(config: ClientRelayConfig, builder: TunnelBuilder) -> Result<Self, Error> {
        let mut socket = SocketConfig::new(config.listen);
        // With a wildcard address, answers must leave from the address that was asked.
        socket.packet_info = config.listen.ip().is_unspecified();
        (socket.recv_buffer, socket.send_buffer) = (config.socket_buffer, config.socket_buffer);
        socket.offload = config.offload;
        let socket = UdpSocket::open(&socket).map_err(|error| error.of_listening(config.listen))?;
        let local = socket
            .local_addr()
            .map_err(|source| Error::Io { op: "asking for the local port".to_owned(), source })?;
        let shared = Arc::new(Shared {
            socket,
            exclusive: builder.is_legacy(),
            config: RwLock::new(config),
            flows: RwLock::default(),
            orphans: Mutex::default(),
            counters: Counters::default(),
            stopping: AtomicBool::new(false),
            said: Mutex::default(),
        });
        let downstream = Downstream::new(shared.clone());
        let tunnel = Arc::new(builder.handler(downstream).connect()?);
        let (upstream, sender) = (shared.clone(), tunnel.sender());
        let (failed, of) = (shared.clone(), tunnel.clone());
        let thread = thread::start(
            "mpt-local",
            move || carry_up(&upstream, sender),
            move |why| {
                log::error!(target: "mptunnel::relay", "the relay failed and stops: {why}");
                failed.stopping.store(true, Relaxed);
                of.close();
            },
        )
        .map_err(|source| Error::Io { op: "starting thread mpt-local".to_owned(), source })?;
        Ok(ClientRelay { tunnel, shared, thread: Mutex::new(Some(thread)), local })
    }

    /// The tunnel, for its state and its paths.
    pub fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// Where applications send to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Changes how many flows there may be and how long an idle one lasts. Flows that are open stay
    /// open even if they are too many.
    pub fn set_flow_limits(&self, flows: usize, timeout: Duration) {
        let mut config = self.shared.config.write();
        (config.flows, config.flow_timeout) = (flows, timeout);
    }

    /// What was carried.
    pub fn stats(&self) -> RelayStats {
        let counters = &self.shared.counters;
        RelayStats {
            flows: self.shared.flows.read().by_number.len(),
            flows_refused: counters.refused.load(Relaxed),
            to_tunnel: counters.to_tunnel.load(Relaxed),
            from_tunnel: counters.from_tunnel.load(Relaxed),
            dropped: counters.dropped.load(Relaxed),
            kernel_dropped: self.shared.socket.receive_drops().into(),
        }
    }

    /// Everything that can be seen of the relay and of its end of the tunnel.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { relay: Some(self.stats()), ..self.tunnel.snapshot() }
    }

    /// The tunnel's next event, after the relay has done its part about it. Has to be called again
    /// and again; `None` after the timeout.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Interrupted`].
    pub fn next_event(&self, timeout: Duration) -> Result<Option<Event>, Error> {
        let idle = self.shared.sweep();
        let orphans = self.shared.take_orphans();
        for number in idle.into_iter().chain(orphans) {
            self.tunnel.close_flow(number);
        }
        let event = match self.tunnel.next_event(Some(timeout.min(SWEEP))) {
            Ok(event) => event,
            Err(Error::TimedOut(_) | Error::WouldBlock) => return Ok(None),
            Err(error) => return Err(error),
        };
        if let Event::FlowClosed { flow, code, .. } = &event {
            self.shared.on_flow_closed(*flow, *code);
        }
        Ok(Some(event))
    }

    /// Stops carrying, says goodbye, closes the tunnel; within a bound.
    pub fn close(&self) {
        self.shared.stopping.store(true, Relaxed);
        self.shared.socket.stop_reading();
        let thread = self.thread.lock().take();
        thread::join(thread.into_iter().collect(), JOIN_WITHIN);
        self.tunnel.close();
    }
}

impl Drop for ClientRelay {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// The flow of an application, a new one if need be; `None` if there is no room.
    fn flow_of(&self, app: App, now: Time) -> Option<Arc<Flow>> {
        if let Some(flow) = self.flows.read().by_app.get(&app) {
            return Some(flow.clone());
        }
        if self.exclusive {
            self.make_room(app, now)?;
        }
        let limit = self.config.read().flows;
        let mut flows = self.flows.write();
        let number = match flows.by_number.len() < limit {
            true => flows.unused_number(now),
            false => None,
        };
        let Some(number) = number else {
            drop(flows);
            self.counters.refused.fetch_add(1, Relaxed);
            self.say_full(now, app, limit);
            return None;
        };
        let flow = Arc::new(Flow {
            number,
            app,
            used: AtomicU64::new(now.as_micros()),
            ended: AtomicBool::new(false),
            quiet_until: AtomicU64::new(0),
        });
        flows.by_app.insert(app, flow.clone());
        flows.by_number.insert(number, flow.clone());
        log::debug!(target: "mptunnel::relay", "flow {number}: application at {}", app.remote);
        Some(flow)
    }

    /// Under the legacy protocol: ends the flow of an application that is gone, so that this one has
    /// its place. `None` if it is still there: nothing on the wire would tell the two apart.
    fn make_room(&self, app: App, now: Time) -> Option<()> {
        let holder = self.flows.read().by_number.values().next().cloned();
        let Some(holder) = holder else { return Some(()) };
        {
            let mut said = self.said.lock();
            if said.holder.is_some_and(|at| now.since(at) < LOOK_FOR_HOLDER) {
                self.counters.refused.fetch_add(1, Relaxed);
                return None;
            }
            said.holder = Some(now);
        }
        // An application of this host that is gone has left its port, and no other one can be bound
        // while it is there. Of other hosts' it is known only by its silence (flow-timeout).
        if UdpSocket::open(&SocketConfig::new(holder.app.remote)).is_ok() {
            log::info!(
                target: "mptunnel::relay",
                "the application at {} is gone, {} takes its place", holder.app.remote, app.remote
            );
            self.flows.write().end(holder.number, now);
            return Some(());
        }
        self.counters.refused.fetch_add(1, Relaxed);
        let mut said = self.said.lock();
        if said.full.is_none_or(|at| now.since(at) >= Duration::from_secs(60)) {
            said.full = Some(now);
            log::warn!(
                target: "mptunnel::relay",
                "the application at {} is refused: protocol = legacy carries one application, which \
                 is the one at {} (until it sends nothing and gets nothing for flow-timeout)",
                app.remote, holder.app.remote
            );
        }
        None
    }

    fn say_full(&self, now: Time, app: App, limit: usize) {
        let mut said = self.said.lock();
        if said.full.is_none_or(|at| now.since(at) >= Duration::from_secs(60)) {
            said.full = Some(now);
            log::warn!(
                target: "mptunnel::relay",
                "the application at {} is refused: {limit} flows are open, which is the limit \
                 (option flows); they go on",
                app.remote
            );
        }
    }

    fn say_not_sent(&self, now: Time, error: &Error) {
        let mut said = self.said.lock();
        if said.tunnel.is_none_or(|at| now.since(at) >= Duration::from_secs(60)) {
            said.tunnel = Some(now);
            log::warn!(target: "mptunnel::relay", "datagrams of applications are lost: {error}");
        }
    }

    /// Ends flows that carried nothing for long; their numbers.
    fn sweep(&self) -> Vec<u16> {
        let now = clock::now();
        let timeout = self.config.read().flow_timeout;
        let over = |flow: &Arc<Flow>| {
            let used = Time::from_micros(flow.used.load(Relaxed));
            now.since(used) >= timeout
        };
        let idle: Vec<u16> = {
            let flows = self.flows.read();
            flows.by_number.values().filter(|f| over(f)).map(|f| f.number).collect()
        };
        if !idle.is_empty() {
            let mut flows = self.flows.write();
            for number in &idle {
                flows.end(*number, now);
            }
        }
        idle
    }

    fn on_orphan(&self, number: u16) {
        let mut orphans = self.orphans.lock();
        if orphans.len() < MAX_ORPHANS && (1..=MAX_FLOW).contains(&number) {
            orphans.insert(number);
        }
    }

    /// What the server is to be told of now; at most once a second.
    fn take_orphans(&self) -> BTreeSet<u16> {
        let now = clock::now();
        let mut said = self.said.lock();
        if said.orphans.is_some_and(|at| now.since(at) < SWEEP) {
            return BTreeSet::new();
        }
        said.orphans = Some(now);
        std::mem::take(&mut *self.orphans.lock())
    }

    fn on_flow_closed(&self, number: u16, code: u16) {
        let now = clock::now();
        if code == crate::proto::frame::CLOSE_LIMIT {
            if let Some(flow) = self.flows.read().by_number.get(&number) {
                flow.quiet_until.store((now + REFUSED_FOR).as_micros(), Relaxed);
            }
            self.counters.refused.fetch_add(1, Relaxed);
        } else {
            self.flows.write().end(number, now);
        }
    }
}

impl Flows {
    fn unused_number(&mut self, now: Time) -> Option<u16> {
        while let Some((number, at)) = self.quarantine.front().copied() {
            if now.since(at) < QUARANTINE {
                break;
            }
            self.quarantine.pop_front();
            self.resting.remove(&number);
        }
        if self.resting.len() + self.by_number.len() >= usize::from(MAX_FLOW) {
            return None;
        }
        // Numbers go round, so that the one that was free longest comes next.
        for _ in 0..MAX_FLOW {
            self.last_number = if self.last_number >= MAX_FLOW { 1 } else { self.last_number + 1 };
            let number = self.last_number;
            if !self.resting.contains(&number) && !self.by_number.contains_key(&number) {
                return Some(number);
            }
        }
        None
    }

    fn end(&mut self, number: u16, now: Time) {
        if let Some(flow) = self.by_number.remove(&number) {
            self.by_app.remove(&flow.app);
            flow.ended.store(true, Relaxed);
            self.quarantine.push_back((number, now));
            self.resting.insert(number);
            log::debug!(target: "mptunnel::relay", "flow {number}: over");
        }
    }
}

/// The thread that carries from the applications into the tunnel.
fn carry_up(shared: &Shared, mut sender: TunnelSender) {
    let mut batch = RecvBatch::default();
    let mut flows: Vec<Option<Arc<Flow>>> = Vec::new();
    let mut last: Option<Arc<Flow>> = None;
    loop {
        let received = batch.recv(&shared.socket, Wait::First);
        if shared.stopping.load(Relaxed) {
            return;
        }
        let messages = match received {
            Ok(messages) => messages,
            // An application that went away: its ICMP error says nothing about the others.
            Err(error) => {
                log::debug!(target: "mptunnel::relay", "local socket: {error}");
                continue;
            }
        };
        let now = clock::now();
        flows.clear();
        for index in 0..messages {
            let message = batch.peek(index);
            let app = App { remote: message.remote, local: message.local_ip };
            let flow = match &last {
                Some(flow) if flow.app == app && !flow.ended.load(Relaxed) => Some(flow.clone()),
                _ => shared.flow_of(app, now),
            };
            let flow = flow.filter(|flow| flow.quiet_until.load(Relaxed) <= now.as_micros());
            if let Some(flow) = &flow {
                flow.used.store(now.as_micros(), Relaxed);
            }
            last.clone_from(&flow);
            flows.push(flow);
        }
        let mut count = 0;
        let datagrams = flows
            .iter()
            .enumerate()
            .filter_map(|(index, flow)| flow.as_ref().map(|flow| (index, flow.number)));
        let datagrams = datagrams.flat_map(|(index, number)| {
            batch.peek(index).segments().map(move |bytes| (number, bytes))
        });
        let result = sender.send(datagrams.inspect(|_| count += 1));
        shared.counters.to_tunnel.fetch_add(count, Relaxed);
        if let Err(error) = result {
            shared.counters.dropped.fetch_add(count, Relaxed);
            shared.say_not_sent(now, &error);
        }
    }
}

/// Carries from the tunnel to the applications, on the thread that receives.
struct Downstream {
    shared: Arc<Shared>,
    out: Collector<App>,
    /// The flow of the previous datagram, in one batch: most batches belong to few flows.
    last: Option<Arc<Flow>>,
    carried: u64,
}

impl Downstream {
    fn new(shared: Arc<Shared>) -> Self {
        Downstream { shared, out: Collector::new(), last: None, carried: 0 }
    }
}

impl Handler for Downstream {
    fn datagram(&mut self, source: &Source, bytes: &[u8]) {
        if self.last.as_ref().is_none_or(|flow| flow.number != source.flow) {
            self.last = self.shared.flows.read().by_number.get(&source.flow).cloned();
            match &self.last {
                Some(flow) => flow.used.store(clock::now().as_micros(), Relaxed),
                None => self.shared.on_orphan(source.flow),
            }
        }
        let Some(flow) = &self.last else {
            self.shared.counters.dropped.fetch_add(1, Relaxed);
            return;
        };
        self.carried += 1;
        let shared = &self.shared;
        self.out.push(&flow.app, bytes, &mut |batch, bit, app: &App| shared.pass(batch, bit, app));
    }

    fn batch_end(&mut self) {
        let shared = &self.shared;
        self.out.flush(&mut |batch, bit, app: &App| shared.pass(batch, bit, app));
        shared.counters.from_tunnel.fetch_add(std::mem::take(&mut self.carried), Relaxed);
        // Not kept longer than a batch: the number may become another application's.
        self.last = None;
    }
}

impl Shared {
    fn pass(&self, batch: &mut crate::io::send::SendBatch, bit: u32, app: &App) -> SendReport {
        let report = batch.send(&self.socket, bit, Some((app.remote, app.local)));
        let lost = report.dropped + report.too_big;
        if lost > 0 {
            self.counters.dropped.fetch_add(lost as u64, Relaxed);
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_rest_are_found_quickly_and_none_is_given_out_too_soon() {
        let mut flows = Flows::default();
        for number in 1..=MAX_FLOW {
            flows.quarantine.push_back((number, Time::default()));
            flows.resting.insert(number);
        }
        let rest = Time::default() + QUARANTINE;

        // A search through all pairs would take minutes.
        for _ in 0..1_000 {
            assert_eq!(flows.unused_number(Time::default()), None);
        }
        assert_eq!(flows.unused_number(rest), Some(1));
        assert!(flows.resting.is_empty() && flows.quarantine.is_empty());
    }

    #[test]
    fn a_flow_that_ends_rests_and_tells_whoever_still_holds_it() {
        let mut flows = Flows::default();
        let app = App { remote: "127.0.0.1:1".parse().unwrap(), local: None };
        let number = flows.unused_number(Time::default()).unwrap();
        let flow = Arc::new(Flow {
            number,
            app,
            used: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            quiet_until: AtomicU64::new(0),
        });
        flows.by_app.insert(app, flow.clone());
        flows.by_number.insert(number, flow.clone());

        flows.end(number, Time::default());

        assert!(flow.ended.load(Relaxed));
        assert!(flows.by_app.is_empty() && flows.by_number.is_empty());
        assert_ne!(flows.unused_number(Time::default()), Some(number));
    }
}
