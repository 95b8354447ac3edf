// SPDX-License-Identifier: BSD-2-Clause
//! The client's state machine.
//!
//! - `handle_*` and `path_*` tell it what the network, the clock or a socket did.
//! - `add_path`, `remove_path`, `close` tell it what the application wants.
//! - `poll_*` asks what to do next. After any of the above, poll each until it is empty:
//!   [`poll_transmit`](Client::poll_transmit), [`poll_event`](Client::poll_event),
//!   [`poll_reopen`](Client::poll_reopen), and [`poll_timeout`](Client::poll_timeout) last.
//!
//! `now` never decreases from one call to the next. DATA does not pass through here: receivers use
//! the [`DataPlane`], senders the [`ViewCell`].
//!
//! ```text
//!            add_path              RESP, status 0
//!   idle ───────────────► attempt ────────────────► up ◄──────────────┐
//!                            ▲                       │ rekey, silence, │ RESP, status 0
//!                            │ keys end              │ NOSESSION, CLOSE│
//!                            └────────────── up, with an attempt beside it
//! ```

mod attempt;
mod control;
mod handshake;
mod paths;
mod timers;

use super::arrivals::Observed;
use super::budget::MemoryBudget;
use super::config::{ClientConfig, ClientKeys};
use super::crypto::{self, KeySet, Secret, mac};
use super::dataplane::DataPlane;
use super::entropy::{Entropy, random_u64};
use super::event::{ClientEvent, PathId, Reopen, Transmit};
use super::frame::{CLOSE_FINISHED, Frame, FrameList};
use super::limit::{CLOSES_PER_S, PerSecond};
use super::num::widen;
use super::route::PathCounts;
use super::sched::{Agreement, Policy, Selector};
use super::session::{Session, SessionCounts};
use super::time::Time;
use super::view::ViewCell;
use super::wire::{FLOW_ALL, MAX_PATHS, Refusal};
use attempt::Attempt;
use control::ControlLog;
pub use paths::{ClientPath, PathSettings, PathState};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// A session that only receives any more, for packets still on the way.
const PREVIOUS_KEPT: Duration = Duration::from_secs(30);
/// The same after a CLOSE, which may have overtaken data: the skew that the window remembers.
const CLOSED_KEPT: Duration = Duration::from_millis(2_500);

/// The client's side of a tunnel.
pub struct Client {
    config: ClientConfig,
    keys: KeySet,
    /// Guards what the server sends to us.
    guard_rx: Secret<32>,
    peer_id: [u8; 16],
    boot_id: u64,
    entropy: Box<dyn Entropy>,
    plane: Arc<DataPlane>,
    view: Arc<ViewCell>,
    budget: Arc<MemoryBudget>,
    /// Memory for unfinished datagrams.
    pieces: Arc<MemoryBudget>,

    paths: [Option<ClientPath>; MAX_PATHS],
    next_path: u32,
    /// The last PING number used in each slot: the server takes lower ones for copies.
    slot_seq: [u32; MAX_PATHS],
    /// The slots of which the server may know what they carry to here, as bits.
    rates_told: u32,
    /// What removed paths counted.
    gone: PathCounts,

    current: Option<Arc<Session>>,
    previous: VecDeque<Previous>,
    server_boot: Option<u64>,
    /// Counts of sessions that are over.
    total: SessionCounts,
    /// How often keys were renewed.
    rekeys: u32,
    /// How often the server was another process than before.
    restarts: u32,
    rekey_at: Time,
    /// Whether the server's wish for new keys was heard in this session: once is enough.
    rekey_asked: bool,
    probe_interval: Option<Duration>,

    attempts: VecDeque<Attempt>,
    last_attempt: Option<Time>,
    /// Why a handshake should begin as soon as it may.
    wanted: Option<Wanted>,
    not_before: Time,
    backoff: Duration,
    outage_since: Option<Time>,
    told_silent: bool,
    /// An upper bound of the round trip, from the echo in RESP, until a PONG tells more.
    rtt_bound: Duration,
    log: ControlLog,
    agreement: Agreement,
    selector: Selector,
    /// What a sample of the datagrams told about the paths.
    observed: Option<Box<Observed>>,
    flows_closed: PerSecond,
    closes_heard: PerSecond,
    /// The server said goodbye for good; until then late datagrams are still delivered.
    finished_at: Option<Time>,
    closed: bool,

    transmits: VecDeque<Transmit>,
    events: VecDeque<ClientEvent>,
    reopens: VecDeque<Reopen>,
    /// PINGs that were answered, for who measures; `None` for everybody else.
    answers: Option<VecDeque<PingAnswer>>,
}

/// A PING that was answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PingAnswer {
    /// The path that it was for.
    pub path: PathId,
    /// When it was sent.
    pub asked: Time,
    /// Until the PONG came, without the time that the server held it.
    pub round_trip: Duration,
}

/// A session that only receives any more.
struct Previous {
    session: Arc<Session>,
    until: Time,
    /// Which start of the server it belongs to.
    boot: Option<u64>,
}

/// Why a handshake should begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wanted {
    /// There is no session.
    NoSession,
    /// The keys are old enough.
    Rekey,
    /// Nothing is heard, or the server says that it does not know us.
    Suspicion,
}

/// What was last known of a client, for its application.
#[derive(Clone, Debug)]
pub struct ClientStatus {
    /// Whether there is a session.
    pub connected: bool,
    /// Whether a handshake is under way.
    pub attempting: bool,
    /// Since when nothing is heard.
    pub outage_since: Option<Time>,
    /// When the last authentic packet came.
    pub last_heard: Option<Time>,
    /// Packets that the receive window remembers.
    pub window_bits: usize,
}

impl Client {
    /// A client without paths. It shares `plane` with the receivers.
    pub fn new(config: ClientConfig, plane: Arc<DataPlane>, mut entropy: Box<dyn Entropy>) -> Self {
        let (keys, guard_rx) = match &config.keys {
            ClientKeys::Psk(psk) => {
                let keys = KeySet::for_psk(psk);
                let guard = Secret::new(*keys.mac1.expose());
                (keys, guard)
            }
            ClientKeys::Static { own, server, .. } => {
                (KeySet::for_server_public(server), crypto::mac1_key_of(&own.public()))
            }
        };
        let agreement = Agreement::new(false, config.common.policy);
        let mut peer_id = [0; 16];
        match &config.name {
            Some(name) => {
                peer_id = mac::mac16(&mac::hash(&[b"mpt1 peer"]), &[name.as_bytes()]);
            }
            None => entropy.fill(&mut peer_id),
        }
        let boot_id = random_u64(&mut *entropy);
        let budget = Arc::new(MemoryBudget::new(config.common.window_memory));
        Client {
            config,
            keys,
            guard_rx,
            peer_id,
            boot_id,
            entropy,
            plane,
            view: Arc::new(ViewCell::default()),
            budget,
            pieces: Arc::new(MemoryBudget::new(MemoryBudget::DEFAULT)),
            paths: [const { None }; MAX_PATHS],
            next_path: 1,
            slot_seq: [0; MAX_PATHS],
            rates_told: 0,
            gone: PathCounts::default(),
            current: None,
            previous: VecDeque::new(),
            server_boot: None,
            total: SessionCounts::default(),
            rekeys: 0,
            restarts: 0,
            rekey_at: Time::NEVER,
            rekey_asked: false,
            probe_interval: None,
            attempts: VecDeque::new(),
            last_attempt: None,
            wanted: Some(Wanted::NoSession),
            not_before: Time::default(),
            backoff: Duration::ZERO,
            outage_since: None,
            told_silent: false,
            rtt_bound: Duration::ZERO,
            log: ControlLog::default(),
            agreement,
            selector: Selector::default(),
            observed: None,
            flows_closed: PerSecond::default(),
            closes_heard: PerSecond::default(),
            finished_at: None,
            closed: false,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            reopens: VecDeque::new(),
            answers: None,
        }
    }

    /// What senders use.
    pub fn view(&self) -> Arc<ViewCell> {
        self.view.clone()
    }

    /// The id under which the shared key, or the server's key, is logged. Not secret.
    pub fn key_id(&self) -> [u8; 8] {
        self.keys.key_id
    }

    /// How long datagrams wait for those before them; zero: not at all.
    pub fn reorder(&self) -> Duration {
        self.config.common.reorder
    }

    /// The session in use.
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.current.as_ref()
    }

    /// The policy that counts for both directions, and what this end and the other one want.
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// What the policy remembers of the paths.
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Follows another policy from now on, and tells the server.
    pub fn set_policy(&mut self, now: Time, policy: Policy) {
        if *self.agreement.own() != policy {
            self.agreement.set(policy);
            self.publish(now);
            self.drive(now);
        }
    }

    /// What a sample of the datagrams told about the paths; `None` until there is any.
    pub fn observed(&self) -> Option<&Observed> {
        self.observed.as_deref()
    }

    /// What all sessions together have counted.
    pub fn session_counts(&self) -> SessionCounts {
        let live = self.current.iter().chain(self.previous.iter().map(|p| &p.session));
        live.fold(self.total, |mut sum, session| {
            sum += session.counts();
            sum
        })
    }

    /// How often keys were renewed, and how often the server was restarted.
    pub fn renewals(&self) -> (u32, u32) {
        (self.rekeys, self.restarts)
    }

    /// For how long the server has not answered, from the moment on at which that was told.
    pub fn silent_for(&self, now: Time) -> Option<Duration> {
        let since = self.outage_since.filter(|_| self.told_silent)?;
        let heard = self.current.as_ref().map(|session| session.heard());
        Some(now.since(heard.unwrap_or(since)))
    }

    /// What is known now.
    pub fn status(&self) -> ClientStatus {
        ClientStatus {
            connected: self.current.is_some(),
            attempting: !self.attempts.is_empty(),
            outage_since: self.outage_since,
            last_heard: self.current.as_ref().map(|s| s.heard()),
            window_bits: self.current.as_ref().map_or(0, |s| s.window_bits()),
        }
    }

    /// The next packet to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next piece of news.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// The next path whose socket should be made anew.
    pub fn poll_reopen(&mut self) -> Option<Reopen> {
        self.reopens.pop_front()
    }

    /// Probes idle paths this often from the next probe on.
    pub fn set_idle_interval(&mut self, interval: Duration) {
        self.config.common.intervals.idle = interval;
    }

    /// Tells the server that the tunnel is finished. Nobody acknowledges that, so it may be said
    /// more than once before [`close`](Self::close).
    pub fn say_goodbye(&mut self, now: Time) {
        self.send_close(now, FLOW_ALL);
    }

    /// Stops the client for good, without another word.
    pub fn close(&mut self) {
        self.closed = true;
        self.attempts.clear();
        self.wanted = None;
        self.drop_current(Time::default());
    }

    /// Tells the server that `flow` has ended, unless it was told of twenty this second: the others
    /// end there by their idle timeout.
    pub fn close_flow(&mut self, now: Time, flow: u16) {
        self.send_close(now, flow);
    }

    /// Sealed once and sent on every path, so that the server acts on one of the copies.
    fn send_close(&mut self, now: Time, flow: u16) {
        if flow != FLOW_ALL && !self.flows_closed.take(now, CLOSES_PER_S) {
            return;
        }
        let Some(session) = self.current.clone() else { return };
        let frames = FrameList::new().push(Frame::Close { code: CLOSE_FINISHED, flow });
        let Ok((pn, bytes)) = session.seal_ctrl(now, frames.finish()) else { return };
        self.log.remember(now, pn, &bytes);
        for path in self.paths.iter().flatten() {
            if let PathState::Open { route, .. } = path.state {
                session.path(path.slot).on_sent(1, widen(bytes.len()));
                self.transmits.push_back(Transmit { route, bytes: bytes.clone() });
            }
        }
    }

    fn tell(&mut self, event: ClientEvent) {
        log::debug!(target: "mptunnel::client", "{event:?}");
        self.events.push_back(event);
    }

    /// Forgets a session that the server refused or ended.
    fn drop_current(&mut self, now: Time) {
        if let Some(session) = self.current.take() {
            self.retire(&session);
        }
        while let Some(previous) = self.previous.pop_front() {
            self.retire(&previous.session);
        }
        self.publish(now);
    }

    /// Takes a session out of service and keeps its counts.
    fn retire(&mut self, session: &Session) {
        self.plane.remove(session.local_index());
        self.total += session.counts();
        for path in self.paths.iter_mut().flatten() {
            path.total += session.path(path.slot).counts();
        }
    }

    fn refused(&mut self, now: Time, why: Refusal) {
        self.attempts.clear();
        self.backoff = match why {
            Refusal::ShuttingDown => Duration::from_millis(500),
            _ => self
                .backoff
                .saturating_mul(2)
                .clamp(Duration::from_secs(5), Duration::from_secs(60)),
        };
        self.not_before = now + self.backoff;
        self.wanted.get_or_insert(Wanted::NoSession);
        self.tell(ClientEvent::Refused(why));
    }
}
