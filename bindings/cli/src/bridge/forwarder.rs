// SPDX-License-Identifier: BSD-2-Clause
//! The loop of the bridge.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mptunnel_core::proto::time::Time;
use mptunnel_core::sim::link::LinkConfig;
use mptunnel_core::sim::rng::Rng;
use mptunnel_core::sim::schedule::Schedule;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use super::blackout::Blackout;
use super::lane::{Exit, Lane};
use super::peers::{Peer, PeerId, Peers};
use super::report::{Tallies, Throttle};
use super::udp::{Batch, Port, Ready, Received, Target, Watch};
use super::{BridgeArgs, BridgeError, HostPort, ListenAt};

/// The bridge: listening ports, peers, and what is due when.
pub struct Forwarder {
    start: Instant,
    destination: SocketAddr,
    listeners: Vec<Listener>,
    peers: Peers,
    /// The peers' sockets.
    watch: Watch,
    /// Peers whose lanes have something to send. An entry may be early or of a peer that is gone.
    agenda: Schedule<PeerId>,
    /// Bytes of memory that emulated links take.
    held: usize,
    signals: SignalDelivery<UnixStream, SignalOnly>,
    blackout: Blackout,
    /// Whether blackouts concern the way up and the way down.
    darkens: [bool; 2],
    links: [Option<LinkConfig>; 2],
    seeds: Rng,
    stats_every: Option<Duration>,
    stats_at: Time,
    warnings: Warnings,
}

struct Listener {
    port: Port,
    /// What happened to peers that are gone.
    past: Tallies,
    /// Peers that ever came.
    peers: u64,
    /// Datagrams of peers for which there was no socket.
    rejected: u64,
}

#[derive(Default)]
struct Warnings {
    full: Throttle,
    no_socket: Throttle,
    send: Throttle,
}

/// A seed unlike that of other bridges, and short enough to be typed.
fn any_seed() -> u64 {
    u64::from(RandomState::new().hash_one(std::process::id()) as u32)
}

impl Forwarder {
    /// Opens the sockets, and prints a line for each listening port.
    pub fn new(args: BridgeArgs) -> Result<Self, BridgeError> {
        let signals = listen_to_signals()
            .map_err(|source| BridgeError::System { what: "listen to signals", source })?;
        let watch =
            Watch::new().map_err(|source| BridgeError::System { what: "watch sockets", source })?;
        let destination = find(&args.to)?;
        let listeners =
            args.listen.iter().map(Listener::open).collect::<Result<Vec<Listener>, _>>()?;
        for listener in &listeners {
            let at = listener.port.local_addr().map_err(|source| BridgeError::System {
                what: "find out the port of a socket",
                source,
            })?;
            print(format_args!("listening on {at} -> {destination}"));
        }
        let max_peers = affordable(args.max_peers, listeners.len());
        let impairments = &args.impairments;
        let links = impairments.links();
        let seed = impairments.seed.unwrap_or_else(any_seed);
        if links.iter().any(Option::is_some) {
            print(format_args!("random decisions by --seed {seed}"));
        }
        Ok(Forwarder {
            start: Instant::now(),
            destination,
            listeners,
            peers: Peers::new(max_peers, args.idle),
            watch,
            agenda: Schedule::new(),
            held: 0,
            signals,
            blackout: Blackout::new(impairments.blackhole_after, impairments.blackhole_for),
            darkens: impairments.directions(),
            links,
            seeds: Rng::new(seed),
            stats_every: args.stats,
            stats_at: args.stats.map_or(Time::NEVER, |every| Time::default() + every),
            warnings: Warnings::default(),
        })
    }

    /// Forwards until a signal says to stop.
    pub fn run(&mut self) -> Result<(), BridgeError> {
        let mut batch = Batch::new();
        loop {
            let ready = self
                .wait()
                .map_err(|source| BridgeError::System { what: "wait for datagrams", source })?;
            let (signals, listeners) = ready.sources.split_at(1);
            if signals == [true] && self.handle_signals() {
                self.print_stats("final");
                return Ok(());
            }
            for (listener, _) in listeners.iter().enumerate().filter(|(_, ready)| **ready) {
                self.receive_from_peers(listener, &mut batch);
            }
            for id in ready.sockets {
                self.receive_from_destination(PeerId(id), &mut batch);
            }
            self.handle_timeouts();
        }
    }

    /// Waits for signals and listening ports, in this order, and for the peers' sockets.
    fn wait(&self) -> io::Result<Ready> {
        let sources: Vec<BorrowedFd<'_>> = std::iter::once(self.signals.get_read().as_fd())
            .chain(self.listeners.iter().map(|listener| listener.port.socket().as_fd()))
            .collect();
        let upstreams = self.peers.iter().map(|(id, peer)| (id.0, peer.upstream.socket()));
        let timeout = self.poll_timeout().map(|at| at.since(self.now()));
        self.watch.wait(&sources, upstreams, timeout)
    }

    /// Acts on the signals that came; true if one says to stop.
    fn handle_signals(&mut self) -> bool {
        let now = self.now();
        let signals: Vec<i32> = self.signals.pending().collect();
        for signal in &signals {
            match *signal {
                SIGUSR1 => self.turn_blackout(now, |blackout| blackout.turn(true)),
                SIGUSR2 => self.turn_blackout(now, |blackout| blackout.turn(false)),
                _ => return true,
            }
        }
        false
    }

    fn receive_from_peers(&mut self, listener: usize, batch: &mut Batch) {
        for _ in 0..ROUNDS {
            let now = self.now();
            let outcome = batch.receive(self.listeners[listener].port.socket());
            let received: Vec<Received<'_>> = batch.iter().collect();
            if !received.is_empty() {
                self.blackout.on_datagram(now);
                self.turn_blackout(now, |blackout| blackout.handle_timeout(now));
            }
            for of_one_peer in received.chunk_by(|a, b| (a.from, a.local) == (b.from, b.local)) {
                self.forward_up(listener, of_one_peer, now);
            }
            if is_exhausted(&outcome) {
                break;
            }
        }
    }

    /// Forwards what one peer sent.
    fn forward_up(&mut self, listener: usize, received: &[Received<'_>], now: Time) {
        let [Received { from, local, .. }, ..] = *received else { return };
        let datagrams = received.iter().flat_map(Received::datagrams);
        let known = self.peers.find(listener, from);
        let Some(id) = known.or_else(|| self.welcome(listener, from, now)) else {
            self.listeners[listener].rejected += datagrams.count() as u64;
            return;
        };
        let dark = self.is_dark(UP);
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.used = now;
        peer.target.from = local;
        let exit = Exit { port: &mut peer.upstream, target: None };
        peer.up.forward(now, dark, datagrams, &mut self.held, exit);
        self.settle(id, now);
    }

    fn receive_from_destination(&mut self, id: PeerId, batch: &mut Batch) {
        for _ in 0..ROUNDS {
            let now = self.now();
            let dark = self.is_dark(DOWN);
            // It may have made room for another one since the wait.
            let Some(peer) = self.peers.get_mut(id) else { return };
            let outcome = batch.receive(peer.upstream.socket());
            if let Err(e) = &outcome
                && e.kind() != io::ErrorKind::WouldBlock
            {
                peer.up.on_refused();
            }
            if batch.iter().next().is_some() {
                peer.used = now;
                let datagrams = batch.iter().flat_map(|received| received.datagrams());
                let port = &mut self.listeners[peer.listener].port;
                let exit = Exit { port, target: Some(&peer.target) };
                peer.down.forward(now, dark, datagrams, &mut self.held, exit);
                self.settle(id, now);
            }
            if is_exhausted(&outcome) {
                break;
            }
        }
    }

    /// Notes when a peer's lanes want attention next, and reports errors in sending.
    fn settle(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if let Some(at) = peer.poll_timeout()
            && at < peer.armed
        {
            peer.armed = at;
            self.agenda.insert(at, id);
        }
        if let Some(e) = peer.up.take_error().or(peer.down.take_error())
            && let Some(more) = self.warnings.send.pass(now)
        {
            log::warn!("a datagram could not be sent: {e} ({more} such errors before)");
        }
    }

    /// Opens the upstream socket of a new peer.
    fn welcome(&mut self, listener: usize, from: SocketAddr, now: Time) -> Option<PeerId> {
        if let Some(peer) = self.peers.make_room() {
            if let Some(more) = self.warnings.full.pass(now) {
                log::warn!(
                    "all peers allowed are here: the one idle longest, for {:.0?}, makes room for \
                     a new one ({more} did so before); --max-peers raises the limit",
                    now.since(peer.used),
                );
            }
            self.forget(peer);
        }
        let id = self.peers.next_id();
        let upstream = Port::connect(self.destination)
            .and_then(|upstream| self.watch.add(upstream.socket(), id.0).map(|()| upstream));
        let upstream = match upstream {
            Ok(upstream) => upstream,
            Err(e) => {
                if let Some(more) = self.warnings.no_socket.pass(now) {
                    log::warn!("a new peer is ignored: no socket for it: {e} ({more} before)");
                }
                return None;
            }
        };
        let ordinal = self.listeners[listener].peers;
        self.listeners[listener].peers += 1;
        let lane = |direction: usize| {
            let seed = self.seeds.fork(&format!("{listener} {ordinal} {direction}")).u64();
            let down = self.is_dark(direction);
            let config = self.links[direction].clone();
            Lane::new(config.map(|config| LinkConfig { down, ..config }), seed)
        };
        let (up, down) = (lane(UP), lane(DOWN));
        log::debug!("new peer {from}");
        Some(self.peers.insert(Peer {
            listener,
            target: Target { to: from, from: None },
            upstream,
            up,
            down,
            used: now,
            armed: Time::NEVER,
        }))
    }

    fn forget(&mut self, peer: Peer) {
        log::debug!("forgets peer {}", peer.target.to);
        self.held -= peer.held();
        let past = &mut self.listeners[peer.listener].past;
        peer.up.add_to(&mut past.up);
        peer.down.add_to(&mut past.down);
    }

    fn poll_timeout(&self) -> Option<Time> {
        let stats = Some(self.stats_at).filter(|&at| at != Time::NEVER);
        [self.agenda.next(), self.peers.poll_timeout(), self.blackout.poll_timeout(), stats]
            .into_iter()
            .flatten()
            .min()
    }

    fn handle_timeouts(&mut self) {
        let now = self.now();
        self.turn_blackout(now, |blackout| blackout.handle_timeout(now));
        while let Some(id) = self.agenda.pop(now) {
            self.release(id, now);
        }
        while let Some(peer) = self.peers.pop_expired(now) {
            self.forget(peer);
        }
        if let Some(every) = self.stats_every
            && self.stats_at <= now
        {
            self.print_stats("stats");
            // After a suspend, once is enough.
            self.stats_at =
                Some(self.stats_at + every).filter(|&at| at > now).unwrap_or(now + every);
        }
    }

    /// Sends what a peer's lanes have due.
    fn release(&mut self, id: PeerId, now: Time) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.armed = Time::NEVER;
        let exit = Exit { port: &mut peer.upstream, target: None };
        peer.up.release(now, &mut self.held, exit);
        let port = &mut self.listeners[peer.listener].port;
        let exit = Exit { port, target: Some(&peer.target) };
        peer.down.release(now, &mut self.held, exit);
        self.settle(id, now);
    }

    fn turn_blackout(&mut self, now: Time, turn: impl FnOnce(&mut Blackout)) {
        let before = self.blackout.is_dark();
        turn(&mut self.blackout);
        if self.blackout.is_dark() == before {
            return;
        }
        log::info!("blackout {}", if before { "ends" } else { "begins" });
        let (up, down) = (self.is_dark(UP), self.is_dark(DOWN));
        for peer in self.peers.iter_mut() {
            peer.up.turn(now, up);
            peer.down.turn(now, down);
        }
    }

    fn is_dark(&self, direction: usize) -> bool {
        self.darkens[direction] && self.blackout.is_dark()
    }

    fn print_stats(&self, what: &str) {
        let elapsed = self.now().since(Time::default()).as_secs_f64();
        for (index, listener) in self.listeners.iter().enumerate() {
            let mut tallies = listener.past;
            let mut count = 0;
            for (_, peer) in self.peers.iter().filter(|(_, peer)| peer.listener == index) {
                peer.up.add_to(&mut tallies.up);
                peer.down.add_to(&mut tallies.down);
                count += 1;
            }
            let port = listener.port.local_addr().map_or(0, |at| at.port());
            let rejected = listener.rejected;
            print(format_args!(
                "{what} {elapsed:.1}s port={port} peers={count} rejected={rejected} {tallies}"
            ));
        }
    }

    /// Time since the start.
    fn now(&self) -> Time {
        Time::default() + self.start.elapsed()
    }
}

impl Listener {
    fn open(at: &ListenAt) -> Result<Self, BridgeError> {
        let port = Port::listen(at.address, at.port)
            .map_err(|source| BridgeError::Listen { at: *at, source })?;
        Ok(Listener { port, past: Tallies::default(), peers: 0, rejected: 0 })
    }
}

/// The first address of the destination that this machine has a route to.
fn find(to: &HostPort) -> Result<SocketAddr, BridgeError> {
    let mut no_address = io::Error::from(io::ErrorKind::NotFound);
    let addresses = (to.host.as_str(), to.port)
        .to_socket_addrs()
        .map_err(|source| BridgeError::Resolve { to: to.clone(), source })?;
    for address in addresses {
        match Port::connect(address) {
            Ok(_) => return Ok(address),
            Err(e) => no_address = e,
        }
    }
    Err(BridgeError::Connect { to: to.clone(), source: no_address })
}

fn listen_to_signals() -> io::Result<SignalDelivery<UnixStream, SignalOnly>> {
    let (read, write) = UnixStream::pair()?;
    SignalDelivery::with_pipe(read, write, SignalOnly, [SIGINT, SIGTERM, SIGUSR1, SIGUSR2])
}

/// How many of the wanted peers may have a socket each, after raising the limit as far as allowed.
fn affordable(max_peers: usize, listeners: usize) -> usize {
    let others = (listeners + OTHER_DESCRIPTORS) as u64;
    let wanted = max_peers as u64 + others;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return max_peers };
    let raised = wanted.min(hard);
    let limit = if soft >= wanted {
        soft
    } else if setrlimit(Resource::RLIMIT_NOFILE, raised, hard).is_ok() {
        raised
    } else {
        soft
    };
    let affordable = usize::try_from(limit.saturating_sub(others)).unwrap_or(usize::MAX);
    if affordable < max_peers {
        log::warn!(
            "the limit of {limit} open files leaves room for {affordable} peers, not {max_peers}; \
             `ulimit -n {wanted}` raises it"
        );
    }
    affordable.clamp(1, max_peers)
}

/// True if there is nothing more to receive at the moment. An error that is the answer to a sent
/// datagram hides what waits behind it.
fn is_exhausted(outcome: &io::Result<bool>) -> bool {
    match outcome {
        Ok(more) => !more,
        Err(e) => e.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Prints a line. That nobody reads it is no reason to stop forwarding.
fn print(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Directions, as indices.
const UP: usize = 0;
const DOWN: usize = 1;

/// System calls at one socket before the others have their turn.
const ROUNDS: usize = 4;

/// Descriptors that are neither listening ports nor peers: standard streams, signals, and what
/// looking up a name needs.
const OTHER_DESCRIPTORS: usize = 16;
