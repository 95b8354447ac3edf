// SPDX-License-Identifier: BSD-2-Clause
//! A server and a client, each driven as the I/O threads drive it, with the invariants that hold
//! whatever arrives; and the wire between them.

use super::vectors;
use mptunnel_core::proto::admission::Admission;
use mptunnel_core::proto::client::{Client, PathSettings};
use mptunnel_core::proto::config::{ClientConfig, ClientKeys, ServerConfig, ServerKey};
use mptunnel_core::proto::dataplane::{DataPlane, LastSession, Received};
use mptunnel_core::proto::drop::DropReason;
use mptunnel_core::proto::event::{ClientEvent, PathId, PeerId, ServerEvent, Transmit};
use mptunnel_core::proto::pace::Part;
use mptunnel_core::proto::route::Route;
use mptunnel_core::proto::server::Server;
use mptunnel_core::proto::session::Session;
use mptunnel_core::proto::time::Time;
use mptunnel_core::proto::view::{SendView, Target};
use mptunnel_core::proto::wire::Kind;
use mptunnel_core::sim::rng::Rng;
use mptunnel_core::sim::world::{Sink, Watch};
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Some time after the start of the machine.
pub const START: Time = Time::from_micros(1_000_000_000);
/// Timers that go off at one moment, before that counts as standing still.
const MAX_TURNS: u32 = 16;

/// The addresses from which packets reach the server: those of the client's paths, then others.
pub fn address(number: usize) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), 1_000 + number as u16).into()
}

/// What the server sees of a packet from there.
fn route_at_server(source: SocketAddr) -> Route {
    Route { socket: 0, remote: source, local: Some(Ipv4Addr::new(10, 2, 0, 1).into()) }
}

/// A path of the client: its socket has the number of the path.
pub fn route_at_client(path: usize) -> Route {
    let bridge = (Ipv4Addr::new(10, 1, 0, path as u8), 4_000);
    Route { socket: path as u32, remote: bridge.into(), local: None }
}

/// What both machines have: the plane, and which numbers came through it.
struct Receiver {
    plane: Arc<DataPlane>,
    last: LastSession,
    /// Sessions by their indices: a session of the same index may follow when one is gone.
    delivered: HashMap<u32, (Arc<Session>, HashSet<u64>)>,
}

impl Receiver {
    fn new(plane: Arc<DataPlane>) -> Self {
        Receiver { plane, last: LastSession::default(), delivered: HashMap::new() }
    }

    /// I1, for everybody: also for who holds the key.
    fn deliver(
        delivered: &mut HashMap<u32, (Arc<Session>, HashSet<u64>)>,
        session: &Arc<Session>,
        number: u64,
    ) {
        let index = session.local_index();
        let (known, numbers) =
            delivered.entry(index).or_insert_with(|| (session.clone(), HashSet::new()));
        if !Arc::ptr_eq(known, session) {
            (*known, *numbers) = (session.clone(), HashSet::new());
        }
        assert!(numbers.insert(number), "I1: {number} of session {index:08x} is delivered twice");
    }
}

/// I4: what went to an address and what came from it.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    authentic: usize,
    other: usize,
    sent: usize,
    proven: bool,
}

/// How long copies of one INIT must get the same answer: so long the server keeps it.
const SAME_ANSWER_FOR: Duration = Duration::from_secs(20);

/// What became of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was authentic.
    Taken,
    /// It was left to the control side, which may have believed it: INIT, RESP, COOKIE, NOSESSION.
    Stranger,
    /// It was not, or was of no use.
    Dropped(DropReason),
}

impl Outcome {
    /// Whether the packet has proven that it comes from who holds the key. Some do, and are dropped
    /// because of what is in them.
    fn is_vouched_for(self) -> bool {
        use DropReason::{Duplicate, Malformed, ReassemblyEvicted, TooOld, UnknownKind};
        match self {
            Outcome::Taken => true,
            Outcome::Stranger => false,
            Outcome::Dropped(reason) => {
                matches!(reason, Duplicate | Malformed | ReassemblyEvicted | TooOld | UnknownKind)
            }
        }
    }
}

/// A server with both modes of keys.
pub struct ServerEnd {
    pub machine: Server,
    watch: Watch,
    receiver: Receiver,
    pub out: Vec<Transmit>,
    accounts: HashMap<SocketAddr, Account>,
    /// The INIT in hand without its MACs, and those that were answered before.
    init: Option<Vec<u8>>,
    answers: HashMap<Vec<u8>, (Time, Vec<u8>)>,
    sessions: usize,
    turns: (Time, u32),
}

pub fn server_config() -> ServerConfig {
    let listed = [(vectors::client_static().public(), None)];
    let own = ServerKey::Static { own: vectors::server_static(), clients: HashMap::from(listed) };
    ServerConfig::new(vec![ServerKey::Psk(vectors::psk()), own])
}

impl ServerEnd {
    pub fn new(config: ServerConfig) -> Self {
        let plane = Arc::new(DataPlane::default());
        let sessions = config.sessions;
        let machine = Server::new(config, plane.clone(), Box::new(Rng::new(1)));
        ServerEnd {
            machine,
            watch: Watch::default(),
            receiver: Receiver::new(plane),
            out: Vec::new(),
            accounts: HashMap::new(),
            init: None,
            answers: HashMap::new(),
            sessions,
            turns: (START, 0),
        }
    }

    /// A packet arrives. Asserts I1, I3, I4, I5, I6 and I7.
    pub fn receive(&mut self, now: Time, source: SocketAddr, packet: &[u8]) -> Outcome {
        let before = self.digest();
        let (route, mut buffer) = (route_at_server(source), packet.to_vec());
        let Receiver { plane, last, delivered } = &mut self.receiver;
        let len = packet.len();
        let outcome = match plane.receive(now, &route, &mut buffer, last) {
            Received::Data { session, number, .. } => {
                account(&mut self.accounts, source).authentic += len;
                if session.is_confirmed() || self.machine.promote(now, session) {
                    Receiver::deliver(delivered, session, number);
                }
                Outcome::Taken
            }
            Received::Control { session, inner, len } => {
                account(&mut self.accounts, source).authentic += len;
                let session = session.clone();
                self.machine.handle_control(now, &session, &route, inner, len);
                Outcome::Taken
            }
            Received::Stranger(kind, datagram) => {
                account(&mut self.accounts, source).other += len;
                self.init = (matches!(kind, Kind::InitPsk | Kind::InitKey))
                    .then(|| packet[..len - 32].to_vec());
                self.machine.handle_stranger(now, &route, kind, datagram);
                Outcome::Stranger
            }
            Received::Stored { session } => {
                account(&mut self.accounts, source).authentic += len;
                if !session.is_confirmed() {
                    self.machine.promote(now, session);
                }
                Outcome::Taken
            }
            Received::Dropped(reason) => {
                account(&mut self.accounts, source).other += len;
                Outcome::Dropped(reason)
            }
        };
        if !outcome.is_vouched_for() {
            assert_eq!(self.digest(), before, "I6: changed by what nobody has vouched for");
        }
        self.pump(now);
        self.init = None;
        outcome
    }

    /// Polls until nothing is wanted any more.
    pub fn pump(&mut self, now: Time) {
        loop {
            if self.machine.take_pacer_wish() {
                self.machine.start_pacing(now);
            }
            if let Some(event) = self.machine.poll_event() {
                if let ServerEvent::PathUp(_, _, route) | ServerEvent::PathMoved(_, _, route) =
                    event
                {
                    account(&mut self.accounts, route.remote).proven = true;
                }
            } else if let Some(transmit) = self.machine.poll_transmit() {
                self.watch.on_sent(now, &transmit.bytes);
                self.on_resp(now, &transmit.bytes);
                self.leave(transmit);
            } else {
                break;
            }
        }
        let peers = self.machine.peer_count();
        assert!(peers <= self.sessions, "I5: {peers} peers");
        assert!(self.machine.pending_len() <= 256, "I5: {}", self.machine.pending_len());
        for peer in self.machine.peers() {
            assert!(peer.slots().count() <= 32, "I5: slots");
            assert!(peer.sessions().count() <= 6, "I5: sessions");
        }
        let next = self.machine.poll_timeout();
        self.turns = turn(self.turns, now, next);
        if next.is_some_and(|at| at <= now) {
            self.machine.handle_timeout(now);
            self.pump(now);
        }
    }

    /// Sends a datagram to a peer, through the view, as the application's thread does.
    pub fn send(&mut self, now: Time, peer: PeerId, flow: u16, payload: &[u8]) {
        let Some(view) = self.machine.view(peer).and_then(|cell| cell.get()) else { return };
        let pauses = view.ends_a_pause(now);
        for transmit in packets(&mut self.watch, &view, now, flow, payload) {
            self.leave(transmit);
        }
        if pauses {
            self.machine.on_data_after_pause(now, peer);
        }
        self.pump(now);
    }

    /// I4.
    fn leave(&mut self, transmit: Transmit) {
        let account = account(&mut self.accounts, transmit.route.remote);
        account.sent += transmit.bytes.len();
        let allowed = 3 * account.authentic + account.other;
        assert!(account.proven || account.sent <= allowed, "I4: {account:?}");
        self.out.push(transmit);
    }

    /// I3.
    fn on_resp(&mut self, now: Time, packet: &[u8]) {
        if let (Ok(Kind::Resp), Some(core)) = (Kind::of(packet), self.init.take()) {
            let (since, first) = self.answers.entry(core).or_insert((now, packet.to_vec()));
            if first != packet && now.since(*since) >= SAME_ANSWER_FOR {
                (*since, *first) = (now, packet.to_vec());
            }
            assert_eq!(first, packet, "I3: two different answers");
        }
    }

    /// Everything that nothing unauthenticated may change.
    pub fn digest(&self) -> String {
        let mut text = String::new();
        let mut peers: Vec<_> = self.machine.peers().collect();
        peers.sort_by_key(|peer| peer.id);
        for peer in peers {
            let _ = write!(text, "{} {:08x}", peer.id, peer.current.local_index());
            for session in peer.sessions() {
                let _ = write!(text, " {:08x} {:?}", session.local_index(), session.heard());
            }
            for slot in peer.slots() {
                let candidate = slot.candidate.as_ref().map(|c| c.route);
                let _ = write!(text, " {} {:?} {candidate:?}", slot.id, slot.active);
                let _ = write!(text, " {} {:?}", slot.last_seq, slot.last_heard);
            }
        }
        text
    }
}

/// A client with its paths, all open.
pub struct ClientEnd {
    pub machine: Client,
    pub watch: Watch,
    receiver: Receiver,
    pub out: Vec<Transmit>,
    pub paths: Vec<PathId>,
    pub ups: u32,
    turns: (Time, u32),
}

pub fn client_config() -> ClientConfig {
    ClientConfig {
        name: Some("client".into()),
        ..ClientConfig::new(ClientKeys::Psk(vectors::psk()))
    }
}

pub fn static_client_config() -> ClientConfig {
    let (own, server) = (vectors::client_static(), vectors::server_static().public());
    ClientConfig::new(ClientKeys::Static { own, server, psk: None })
}

impl ClientEnd {
    pub fn new(now: Time, config: ClientConfig, paths: usize) -> Self {
        let plane = Arc::new(DataPlane::default());
        let machine = Client::new(config, plane.clone(), Box::new(Rng::new(2)));
        let mut end = ClientEnd {
            machine,
            watch: Watch::default(),
            receiver: Receiver::new(plane),
            out: Vec::new(),
            paths: Vec::new(),
            ups: 0,
            turns: (START, 0),
        };
        for path in 0..paths {
            let id = end.machine.add_path(now, PathSettings::default()).expect("there is room");
            end.machine.path_opened(now, id, route_at_client(path), 1_472);
            end.paths.push(id);
        }
        end.pump(now);
        end
    }

    /// A packet arrives at the socket of a path. Asserts I1, I5, I6 and I7.
    pub fn receive(&mut self, now: Time, path: usize, packet: &[u8]) -> Outcome {
        let before = self.digest();
        let (route, mut buffer) = (route_at_client(path), packet.to_vec());
        let Receiver { plane, last, delivered } = &mut self.receiver;
        let outcome = match plane.receive(now, &route, &mut buffer, last) {
            Received::Data { session, number, .. } => {
                Receiver::deliver(delivered, session, number);
                Outcome::Taken
            }
            Received::Control { session, inner, .. } => {
                let session = session.clone();
                self.machine.handle_control(now, &session, &route, inner);
                Outcome::Taken
            }
            Received::Stranger(kind, datagram) => {
                self.machine.handle_stranger(now, &route, kind, datagram);
                Outcome::Stranger
            }
            Received::Stored { .. } => Outcome::Taken,
            Received::Dropped(reason) => Outcome::Dropped(reason),
        };
        if outcome != Outcome::Stranger && !outcome.is_vouched_for() {
            assert_eq!(self.digest(), before, "I6: changed by what nobody has vouched for");
        }
        self.pump(now);
        outcome
    }

    pub fn pump(&mut self, now: Time) {
        loop {
            if let Some(transmit) = self.machine.poll_transmit() {
                self.watch.on_sent(now, &transmit.bytes);
                self.out.push(transmit);
            } else if let Some(event) = self.machine.poll_event() {
                self.ups += u32::from(matches!(
                    event,
                    ClientEvent::SessionUp | ClientEvent::ServerRestarted
                ));
            } else if let Some(wish) = self.machine.poll_reopen() {
                if let Some(path) = self.paths.iter().position(|id| *id == wish.path) {
                    self.machine.path_opened(now, wish.path, route_at_client(path), 1_472);
                }
            } else {
                break;
            }
        }
        let sessions = self.receiver.plane.len();
        assert!(sessions <= 5, "I5: {sessions} sessions");
        let next = self.machine.poll_timeout();
        self.turns = turn(self.turns, now, next);
        if next.is_some_and(|at| at <= now) {
            self.machine.handle_timeout(now);
            self.pump(now);
        }
    }

    pub fn send(&mut self, now: Time, flow: u16, payload: &[u8]) {
        let Some(view) = self.machine.view().get() else { return };
        let pauses = view.ends_a_pause(now);
        self.out.extend(packets(&mut self.watch, &view, now, flow, payload));
        if pauses {
            self.machine.on_data_after_pause(now);
        }
        self.pump(now);
    }

    fn digest(&self) -> String {
        let session = self.machine.session().map(|s| (s.local_index(), s.heard()));
        let mut text = format!("{session:?}");
        for path in self.machine.paths() {
            let (misses, rtt) = (path.probe.misses(), path.probe.health.srtt());
            let _ = write!(text, " {} {} {misses} {rtt:?}", path.slot, path.up);
        }
        text
    }
}

/// I10, in the small: who wants to be woken does something then.
fn turn((at, turns): (Time, u32), now: Time, next: Option<Time>) -> (Time, u32) {
    if at != now || next.is_none_or(|next| next > now) {
        return (now, 0);
    }
    assert!(turns < MAX_TURNS, "poll_timeout stands still");
    (now, turns + 1)
}

/// What leaves at once, and what has waited for its turn until now.
fn packets(
    watch: &mut Watch,
    view: &SendView,
    now: Time,
    flow: u16,
    payload: &[u8],
) -> Vec<Transmit> {
    let (mut sink, mut admission, mut leaving) = (Sink::default(), Admission::default(), vec![]);
    let mut leave = |session: &Session, target: &Target, bytes: &[u8]| {
        session.path(target.slot).on_sent(1, bytes.len() as u64);
        leaving.push(Transmit { route: target.route, bytes: bytes.to_vec() });
    };
    let _ = view.send(now, flow, payload, &mut sink);
    let known = view.targets.iter().fold(0, |set, target| set | 1 << target.slot);
    for (number, (bytes, paths)) in sink.packets.iter().enumerate() {
        watch.on_sent(now, bytes);
        let part = if number == 0 { Part::First } else { Part::Next };
        let said = admission.admit(view, now, bytes, *paths, part);
        let sets = [said.now, said.queued, said.dropped, said.unearned];
        assert_eq!(sets.iter().sum::<u32>() & !known, 0, "one thing for each path: {said:?}");
        for target in view.targets.iter().filter(|t| said.now & 1 << t.slot != 0) {
            assert!(bytes.len() <= target.max_packet, "too large for its path");
            leave(&view.session, target, bytes);
        }
    }
    let mut packet = Vec::new();
    for target in &view.targets {
        let Some(pace) = &target.pace else { continue };
        while let Some(session) = pace.take(now, &mut packet) {
            if !packet.is_empty() {
                leave(&session, target, &packet);
            }
        }
    }
    leaving
}

fn account(accounts: &mut HashMap<SocketAddr, Account>, address: SocketAddr) -> &mut Account {
    accounts.entry(address).or_default()
}

/// Both, and the time, which is the same at both.
pub struct Pair {
    pub now: Time,
    pub server: ServerEnd,
    pub client: ClientEnd,
    /// What was sent, by either end: whether it was the client, and the packet.
    pub captured: Vec<(bool, Vec<u8>)>,
}

/// So many of the packets that were captured last are kept.
const CAPTURED: usize = 64;

impl Pair {
    pub fn new(server: ServerConfig, client: ClientConfig, paths: usize) -> Self {
        let (now, server) = (START, ServerEnd::new(server));
        Pair { now, server, client: ClientEnd::new(now, client, paths), captured: Vec::new() }
    }

    /// Delivers what was sent, and the answers to that, until nothing is under way.
    pub fn exchange(&mut self) {
        for _ in 0..8 {
            if self.client.out.is_empty() && self.server.out.is_empty() {
                break;
            }
            for packet in self.take_up() {
                let source = address(packet.route.socket as usize);
                self.server.receive(self.now, source, &packet.bytes);
            }
            for packet in self.take_down() {
                let paths = 0..self.client.paths.len();
                if let Some(path) = paths.into_iter().find(|p| address(*p) == packet.route.remote) {
                    self.client.receive(self.now, path, &packet.bytes);
                }
            }
        }
    }

    pub fn take_up(&mut self) -> Vec<Transmit> {
        let packets = std::mem::take(&mut self.client.out);
        self.capture(true, &packets);
        packets
    }

    pub fn take_down(&mut self) -> Vec<Transmit> {
        let packets = std::mem::take(&mut self.server.out);
        self.capture(false, &packets);
        packets
    }

    fn capture(&mut self, is_up: bool, packets: &[Transmit]) {
        self.captured.extend(packets.iter().map(|packet| (is_up, packet.bytes.clone())));
        let surplus = self.captured.len().saturating_sub(CAPTURED);
        self.captured.drain(..surplus);
    }

    /// Time passes; timers go off at their time, the first of them exactly.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..64 {
            let timeouts = [self.server.machine.poll_timeout(), self.client.machine.poll_timeout()];
            let Some(next) = timeouts.into_iter().flatten().min().filter(|at| *at < end) else {
                break;
            };
            self.now = self.now.max(next);
            self.tick();
        }
        self.now = end;
        self.tick();
    }

    fn tick(&mut self) {
        self.server.machine.handle_timeout(self.now);
        self.server.pump(self.now);
        self.client.machine.handle_timeout(self.now);
        self.client.pump(self.now);
    }

    /// The session that a client holds and an attacker may have stolen.
    pub fn client_session(&self) -> Option<Arc<Session>> {
        self.client.machine.session().cloned()
    }

    /// The server's end of it.
    pub fn server_session(&self) -> Option<(PeerId, Arc<Session>)> {
        let peer = self.server.machine.peers().min_by_key(|peer| peer.id)?;
        Some((peer.id, peer.current.clone()))
    }
}
