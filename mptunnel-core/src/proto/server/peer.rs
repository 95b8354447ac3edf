// SPDX-License-Identifier: BSD-2-Clause
//! One client as the server sees it: its sessions, its paths, what senders may use.

use super::super::arrivals::Observed;
use super::super::event::{PeerId, Transmit};
use super::super::frame::{Frame, FrameList, LEARN_RATE, Pong};
use super::super::limit::PerSecond;
use super::super::num::{path_bit, widen};
use super::super::pace::Pace;
use super::super::probe::{Answered, Intervals, Mood, is_busy};
use super::super::route::{PathCounts, Route};
use super::super::sched::{Agreement, Candidate, Plan, Policy, Rank, Selector};
use super::super::session::{Session, SessionCounts};
use super::super::throttle::{Rate, Throttle};
use super::super::time::Time;
use super::super::view::{SendView, Target, ViewCell};
use super::PeerKey;
use super::slots::{SAFE_PACKET, Slot};
use crate::proto::entropy::Entropy;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// 1,000 bits.
const BYTES_PER_KBIT: u64 = 125;
/// A session that only receives any more.
pub(super) const PREVIOUS_KEPT: Duration = Duration::from_secs(30);
/// Boots of a peer that are remembered after they were replaced.
const BOOTS: usize = 4;
/// Two clients under one name take turns this often in [`CONFLICT_WITHIN`] before it is called so.
const CONFLICT_AFTER: usize = 3;
/// See [`CONFLICT_AFTER`]; also how long the newcomer is refused.
const CONFLICT_WITHIN: Duration = Duration::from_secs(30);

/// A client with at least one confirmed session.
pub struct Peer {
    /// Its public name.
    pub id: PeerId,
    pub(super) key: PeerKey,
    pub(super) boot: u64,
    /// How often the client was restarted.
    pub epoch: u32,
    /// How often its keys were renewed.
    pub rekeys: u32,
    /// Counts of sessions that are over.
    total: SessionCounts,
    replaced_boots: VecDeque<u64>,
    turns: VecDeque<Time>,
    /// The session to send under.
    pub current: Arc<Session>,
    previous: VecDeque<Previous>,
    /// Boxed, as a node of the tree has room for eleven and is half empty.
    pub(super) slots: BTreeMap<u8, Box<Slot>>,
    /// What paths of earlier processes counted.
    gone: PathCounts,
    pub(super) view: Arc<ViewCell>,
    pub(super) deadline: Time,
    /// It said goodbye: nothing is sent any more, and late datagrams are delivered until then.
    pub(super) leaves_at: Option<Time>,
    pub(super) flows_closed: PerSecond,
    pub(super) closes_heard: PerSecond,
    pub(super) intervals: Intervals,
    pub(super) agreement: Agreement,
    pub(super) selector: Selector,
    /// Where paths led before they moved to where they are: of few, as few move.
    moved: Vec<(u8, SocketAddr)>,
    /// What a sample of the datagrams told about the paths.
    pub(super) observed: Option<Box<Observed>>,
    /// The number of the latest list of peers to whom something happened that it is in.
    pub(super) touched: u32,
    /// How fast packets leave on a path, where the client told something of that: of few, as few
    /// clients know.
    throttles: Vec<(u8, Throttle)>,
    /// Whether somebody sends what waits on a path: nothing may before.
    pub(super) has_pacer: bool,
}

struct Previous {
    session: Arc<Session>,
    until: Time,
    boot: u64,
}

impl Peer {
    pub(super) fn new(
        now: Time,
        id: PeerId,
        key: PeerKey,
        boot: u64,
        current: Arc<Session>,
        intervals: Intervals,
        policy: Policy,
    ) -> Self {
        Peer {
            id,
            key,
            boot,
            epoch: 0,
            rekeys: 0,
            total: SessionCounts::default(),
            replaced_boots: VecDeque::new(),
            turns: VecDeque::new(),
            current,
            previous: VecDeque::new(),
            slots: BTreeMap::new(),
            gone: PathCounts::default(),
            view: Arc::new(ViewCell::default()),
            deadline: now,
            leaves_at: None,
            flows_closed: PerSecond::default(),
            closes_heard: PerSecond::default(),
            intervals,
            agreement: Agreement::new(true, policy),
            selector: Selector::default(),
            moved: Vec::new(),
            observed: None,
            touched: 0,
            throttles: Vec::new(),
            has_pacer: false,
        }
    }

    /// Where packets wait on a path, if its client told what it carries, or that was found out.
    pub fn pace(&self, slot: u8) -> Option<&Arc<Pace>> {
        self.throttle(slot)?.pace()
    }

    /// The same, once somebody sends what waits there: until then packets leave as they come.
    pub fn pace_in_force(&self, slot: u8) -> Option<&Arc<Pace>> {
        self.pace(slot).filter(|_| self.has_pacer)
    }

    fn throttle(&self, slot: u8) -> Option<&Throttle> {
        self.throttles.iter().find(|(of, _)| *of == slot).map(|(_, throttle)| throttle)
    }

    fn throttle_mut(&mut self, slot: u8) -> Option<&mut Throttle> {
        self.throttles.iter_mut().find(|(of, _)| *of == slot).map(|(_, throttle)| throttle)
    }

    /// The client told what a path carries to it: kbit/s, 0 if it does not know, or
    /// [`LEARN_RATE`]. What waits may do so for at most `bound`. Whether anything may wait now.
    pub(super) fn set_rate(&mut self, now: Time, slot: u8, kbit: u32, bound: Duration) -> bool {
        let at = self.throttles.iter().position(|(of, _)| *of == slot);
        let rate = match kbit {
            0 => {
                let gone = at.map(|at| self.throttles.swap_remove(at).1);
                if let Some(pace) = gone.as_ref().and_then(Throttle::pace) {
                    self.publish(now);
                    pace.give_up(slot);
                }
                return !self.throttles.is_empty();
            }
            LEARN_RATE => Rate::Learnt,
            kbit => Rate::Told(u64::from(kbit).saturating_mul(BYTES_PER_KBIT)),
        };
        if at.is_none() && self.slots.contains_key(&slot) {
            self.throttles.push((slot, Throttle::for_a_guest(bound)));
        }
        if let Some(throttle) = self.throttle_mut(slot) {
            let had = throttle.pace().is_some();
            throttle.set(now, rate);
            if throttle.pace().is_some() != had {
                self.publish(now);
            }
        }
        !self.throttles.is_empty()
    }

    /// A PONG came on a path: its rate may be another one. Whether views have to be published.
    pub(super) fn learn_rate(&mut self, now: Time, pong: &Pong, answered: &Answered) -> bool {
        let its = self.throttle_mut(pong.path);
        its.is_some_and(|throttle| throttle.on_answer(now, pong, answered))
    }

    /// Somebody sends what waits on a path, from now on.
    pub(super) fn start_pacing(&mut self, now: Time) {
        self.has_pacer = true;
        if !self.throttles.is_empty() {
            self.publish(now);
        }
    }

    /// Forgets what waits on paths that are not in `usable`, a set of bits: nobody sends it.
    pub(super) fn give_up_but(&self, usable: u32) {
        for (slot, throttle) in &self.throttles {
            if usable & path_bit(*slot) == 0
                && let Some(pace) = throttle.pace()
            {
                pace.give_up(*slot);
            }
        }
    }

    /// Forgets the rates of slots that are gone.
    pub(super) fn forget_rates(&mut self) {
        let slots = &self.slots;
        self.throttles.retain(|(slot, _)| slots.contains_key(slot));
    }

    /// Where a path led before it moved to where it is, if it ever did.
    pub fn led_before(&self, slot: u8) -> Option<SocketAddr> {
        self.moved.iter().find(|(of, _)| *of == slot).map(|(_, address)| *address)
    }

    /// A path moved away from `old`.
    pub(super) fn note_move(&mut self, now: Time, slot: u8, old: SocketAddr) {
        if let Some(throttle) = self.throttle_mut(slot) {
            throttle.on_new_route(now);
        }
        self.moved.retain(|(of, _)| *of != slot);
        self.moved.push((slot, old));
    }

    /// The policy that counts for both directions, and what this end wants.
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// What the policy remembers of the paths.
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// What a sample of the datagrams told about the paths; `None` until there is any.
    pub fn observed(&self) -> Option<&Observed> {
        self.observed.as_deref()
    }

    /// The path slots that were ever heard, in the order of their numbers.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.values().map(Box::as_ref)
    }

    /// All sessions, the current one first.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        std::iter::once(&self.current).chain(self.previous.iter().map(|p| &p.session))
    }

    /// The slot of a path, a new one if it was never heard.
    pub(super) fn slot_mut(&mut self, id: u8, now: Time) -> &mut Slot {
        let (previous, boot) = (&self.previous, self.boot);
        self.slots.entry(id).or_insert_with(|| {
            // Sessions of an earlier process go on for a while, with what they counted.
            let others = previous.iter().filter(|p| p.boot != boot);
            let before = others.fold(PathCounts::default(), |mut sum, previous| {
                sum += previous.session.path(id).counts();
                sum
            });
            Box::new(Slot { total: before.below_zero(), ..Slot::new(id, now) })
        })
    }

    /// What was sent and received in a slot, over all sessions of this boot.
    pub fn slot_counts(&self, slot: &Slot) -> PathCounts {
        self.sessions().fold(slot.total, |mut sum, session| {
            sum += session.path(slot.id).counts();
            sum
        })
    }

    /// What was sent and received by earlier processes.
    pub fn gone(&self) -> PathCounts {
        self.gone
    }

    /// What was sent and received in all, by earlier processes as well: never less than before.
    pub fn counts(&self) -> PathCounts {
        self.slots().fold(self.gone, |mut sum, slot| {
            sum += self.slot_counts(slot);
            sum
        })
    }

    /// What all sessions together have counted.
    pub fn session_counts(&self) -> SessionCounts {
        self.sessions().fold(self.total, |mut sum, session| {
            sum += session.counts();
            sum
        })
    }

    /// New keys of the same boot, or of a new one (`restarted`), take over. Returns sessions that
    /// have to leave the table.
    pub(super) fn take_over(
        &mut self,
        now: Time,
        session: Arc<Session>,
        boot: u64,
        keep: usize,
    ) -> Vec<Arc<Session>> {
        if self.boot != boot {
            self.give_up_but(0);
        }
        let gone = self.counts();
        let old = std::mem::replace(&mut self.current, session);
        self.leaves_at = None;
        if self.boot == boot {
            self.rekeys = self.rekeys.saturating_add(1);
            self.current.on_data(old.last_data());
            for slot in self.slots.values_mut() {
                slot.probe.quicken(now);
            }
        } else {
            self.epoch = self.epoch.saturating_add(1);
            // Addresses, PING numbers and rates of another process mean nothing.
            self.gone = gone;
            self.throttles.clear();
            self.slots.clear();
            self.moved.clear();
            self.observed = None;
            self.selector = Selector::default();
            self.agreement.on_new_peer();
            old.supersede();
            for previous in &self.previous {
                previous.session.supersede();
            }
            self.note_turn(now, boot);
        }
        let previous = Previous { session: old, until: now + PREVIOUS_KEPT, boot: self.boot };
        self.boot = boot;
        self.keep_previous(previous, keep)
    }

    /// A session that is older than the one in use is confirmed: it only receives. Returns sessions
    /// that have to leave the table.
    pub(super) fn keep_late(
        &mut self,
        now: Time,
        session: Arc<Session>,
        boot: u64,
        keep: usize,
    ) -> Vec<Arc<Session>> {
        if boot != self.boot {
            session.supersede();
        }
        self.keep_previous(Previous { session, until: now + PREVIOUS_KEPT, boot }, keep)
    }

    fn keep_previous(&mut self, previous: Previous, keep: usize) -> Vec<Arc<Session>> {
        self.previous.push_back(previous);
        let surplus = self.previous.len().saturating_sub(keep);
        let gone: Vec<_> = self.previous.drain(..surplus).map(|p| p.session).collect();
        self.keep_counts(&gone);
        gone
    }

    fn keep_counts(&mut self, gone: &[Arc<Session>]) {
        for session in gone {
            self.total += session.counts();
            for slot in self.slots.values_mut() {
                slot.total += session.path(slot.id).counts();
            }
        }
    }

    /// Takes out sessions whose time is over.
    pub(super) fn expire_previous(&mut self, now: Time) -> Vec<Arc<Session>> {
        let over = self.previous.iter().take_while(|p| p.until <= now).count();
        let gone: Vec<_> = self.previous.drain(..over).map(|p| p.session).collect();
        self.keep_counts(&gone);
        gone
    }

    /// Whether a session belongs to the boot that is in use.
    pub(super) fn is_of_this_boot(&self, session: &Session) -> bool {
        session.local_index() == self.current.local_index()
            || self
                .previous
                .iter()
                .any(|p| p.boot == self.boot && p.session.local_index() == session.local_index())
    }

    fn note_turn(&mut self, now: Time, new_boot: u64) {
        let came_back = self.replaced_boots.contains(&new_boot);
        self.replaced_boots.retain(|boot| *boot != self.boot && *boot != new_boot);
        self.replaced_boots.push_back(self.boot);
        if self.replaced_boots.len() > BOOTS {
            self.replaced_boots.pop_front();
        }
        if came_back {
            self.turns.push_back(now);
            if self.turns.len() > CONFLICT_AFTER.saturating_add(1) {
                self.turns.pop_front();
            }
        }
    }

    /// Whether `boot` takes turns with the one in use: two clients have the same name.
    pub(super) fn conflicts(&self, now: Time, boot: u64) -> bool {
        let lately = self.turns.iter().filter(|at| now.since(**at) < CONFLICT_WITHIN).count();
        lately > CONFLICT_AFTER && boot != self.boot && self.replaced_boots.contains(&boot)
    }

    pub(super) fn validated_slots(&self) -> Vec<u8> {
        self.slots.values().filter(|s| s.active.is_some()).map(|s| s.id).collect()
    }

    /// Seals one CTRL for the proven address of a slot; its number.
    pub(super) fn send(
        &mut self,
        now: Time,
        slot: u8,
        frames: FrameList,
        out: &mut VecDeque<Transmit>,
    ) -> Option<u64> {
        if self.leaves_at.is_some() {
            return None;
        }
        self.send_inner(now, slot, frames.finish(), out)
    }

    fn send_inner(
        &mut self,
        now: Time,
        slot: u8,
        inner: Vec<u8>,
        out: &mut VecDeque<Transmit>,
    ) -> Option<u64> {
        let route = self.slots.get(&slot)?.active?;
        let (pn, bytes) = self.current.seal_ctrl(now, inner).ok()?;
        self.current.path(slot).on_sent(1, widen(bytes.len()));
        if let Some(pace) = self.pace(slot) {
            pace.charge(now, bytes.len());
        }
        out.push_back(Transmit { route, bytes });
        Some(pn)
    }

    /// Seals one CTRL for all proven addresses: the client acts on one of the copies.
    pub(super) fn send_everywhere(
        &mut self,
        now: Time,
        frames: FrameList,
        out: &mut VecDeque<Transmit>,
    ) {
        if self.leaves_at.is_some() {
            return;
        }
        let Ok((_, bytes)) = self.current.seal_ctrl(now, frames.finish()) else { return };
        for slot in self.slots.values() {
            if let Some(route) = slot.active {
                self.current.path(slot.id).on_sent(1, widen(bytes.len()));
                if let Some(pace) = self.pace(slot.id) {
                    pace.charge(now, bytes.len());
                }
                out.push_back(Transmit { route, bytes: bytes.clone() });
            }
        }
    }

    /// Seals one CTRL for the unproven address of a slot, as far as its credit goes.
    pub(super) fn send_to_candidate(
        &mut self,
        now: Time,
        slot: u8,
        frames: FrameList,
        out: &mut VecDeque<Transmit>,
    ) {
        let Some(candidate) = self.slots.get(&slot).and_then(|s| s.candidate.as_ref()) else {
            return;
        };
        let target = Target {
            slot,
            route: candidate.route,
            max_packet: SAFE_PACKET,
            credit: Some(candidate.credit.clone()),
            pace: None,
        };
        let Ok((_, bytes)) = self.current.seal_ctrl(now, frames.finish()) else { return };
        if target.may_send(&self.current, bytes.len()) {
            self.current.path(slot).on_sent(1, widen(bytes.len()));
            out.push_back(Transmit { route: target.route, bytes });
        }
    }

    /// Sends a PING on every proven path that is due.
    pub(super) fn send_due_pings(
        &mut self,
        now: Time,
        entropy: &mut dyn Entropy,
        out: &mut VecDeque<Transmit>,
    ) {
        for id in self.validated_slots() {
            let due = self.slots.get(&id).is_some_and(|s| !s.lingered && s.probe.is_due(now));
            if due {
                let frames = FrameList::new();
                self.send_ping(now, id, frames, entropy, out);
            }
        }
    }

    /// Sends PINGs in packets of the sizes that are to be tried, on proven paths that are heard: an
    /// unproven address gets none, so nobody can have a victim flooded with them.
    pub(super) fn send_size_probes(&mut self, now: Time, out: &mut VecDeque<Transmit>) {
        if self.leaves_at.is_some() {
            return;
        }
        let busy = is_busy(now, self.current.last_data());
        let index = self.current.local_index();
        let mut changed = false;
        for id in self.validated_slots() {
            let counts = self.current.path(id).counts();
            let Some(slot) = self.slots.get_mut(&id).filter(|s| !s.lingered && !s.silent) else {
                continue;
            };
            let (queued, patience) = (slot.probe.health.is_queued(), slot.probe.answer_within());
            let step = slot.pmtu.poll(now, busy, queued, patience);
            changed |= step.changed;
            let Some(size) = step.probe else { continue };
            let ping = slot.probe.padded_ping(now, id, false, index, counts, size);
            let inner = FrameList::new().push(Frame::Ping(ping)).finish_for(usize::from(size));
            self.send_inner(now, id, inner, out);
        }
        if changed {
            self.publish(now);
        }
    }

    /// Appends a PING to `frames` and sends them on a proven path.
    pub(super) fn send_ping(
        &mut self,
        now: Time,
        id: u8,
        frames: FrameList,
        entropy: &mut dyn Entropy,
        out: &mut VecDeque<Transmit>,
    ) {
        let counts = self.current.path(id).counts();
        let mood = Mood {
            session: self.current.local_index(),
            busy: is_busy(now, self.current.last_data()),
            heard_on_path: self.current.path(id).heard_us() > 0,
            intervals: self.intervals,
        };
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let ping = slot.probe.next_ping(now, id, false, mood, counts, entropy);
        let mut frames = frames.push(Frame::Ping(ping));
        if self.current.wants_rekey() {
            // Only the client can make new keys, and it cannot know how much we have sealed. Said
            // with every PING, until it was heard.
            frames = frames.push(Frame::RekeyRequest);
        }
        let frames = self.with_news(now, frames);
        let pn = self.send(now, id, frames, out);
        if let (Some(pn), Some(slot)) = (pn, self.slots.get_mut(&id)) {
            slot.probe.sent_in(pn);
        }
    }

    /// Adds what else there is to tell: the policy, and the sample, if there is more than one path
    /// to tell apart.
    pub(super) fn with_news(&mut self, now: Time, mut frames: FrameList) -> FrameList {
        if let Some(setting) = self.agreement.to_tell() {
            frames = frames.push(Frame::Setting(setting));
        }
        let several = self.slots.len() > 1;
        let Some(report) = self.current.arrivals.report(now).filter(|_| several) else {
            return frames;
        };
        self.observed.get_or_insert_default().on_own_report(&report);
        frames.push(Frame::Arrivals(report))
    }

    /// Publishes what senders may use, and what receivers attribute to which path.
    pub(super) fn publish(&mut self, now: Time) {
        let routes = || {
            let active = self.slots.values().filter_map(|s| Some((s.id, s.active.as_ref()?)));
            let candidate =
                self.slots.values().filter_map(|s| Some((s.id, &s.candidate.as_ref()?.route)));
            active.chain(candidate)
        };
        for session in self.sessions() {
            session.routes.replace(routes());
            for slot in self.slots.values() {
                let is_unproven = slot.active.is_none() && slot.candidate.is_some();
                session.path(slot.id).set_unproven(is_unproven);
            }
        }
        if self.leaves_at.is_some() {
            self.view.set(None);
            self.give_up_but(0);
            return;
        }
        let usable = self.usable();
        let pace = |slot| self.pace_in_force(slot).cloned();
        let slots = self.slots.values().filter(|s| usable & path_bit(s.id) != 0);
        let target = |slot: &Slot| match (&slot.active, &slot.candidate) {
            (Some(route), _) => Some(Target {
                slot: slot.id,
                route: *route,
                max_packet: slot.pmtu.size(),
                credit: None,
                pace: pace(slot.id),
            }),
            // Nothing waits for an unproven address: when its turn comes, another one may be in
            // its place, which has earned nothing.
            (None, Some(c)) => Some(Target {
                slot: slot.id,
                route: c.route,
                max_packet: SAFE_PACKET,
                credit: Some(c.credit.clone()),
                pace: None,
            }),
            (None, None) => None,
        };
        let targets = slots.clone().filter_map(|slot| target(slot)).collect();
        let up = slots.filter(|slot| slot.is_up());
        let up = up.fold(0, |set, slot| set | path_bit(slot.id));
        let (plan, ranked) = (self.plan(now), self.ranking());
        let session = self.current.clone();
        self.view.set(Some(SendView { session, targets, plan, ranked, up }));
        self.give_up_but(usable);
    }

    /// The paths that may get datagrams at all, as bits.
    fn usable(&self) -> u32 {
        let heard_last = self.slots.values().max_by_key(|s| (s.last_heard, s.id)).map(|s| s.id);
        let usable = self.slots.values().filter(|slot| {
            let stays = !slot.lingered || Some(slot.id) == heard_last;
            stays && (slot.active.is_some() || slot.candidate.is_some())
        });
        usable.fold(0, |set, slot| set | path_bit(slot.id))
    }

    /// What the policy makes of the paths as they are now.
    fn plan(&mut self, now: Time) -> Plan {
        let usable = self.usable();
        let candidate = |slot: &Slot| {
            let heard = Time::from_micros(self.current.path(slot.id).heard_us());
            Candidate {
                backup: slot.backup,
                alive: slot.is_up(),
                weight: slot.weight,
                cost: slot.cost,
                queue: self.throttle(slot.id).map_or(Duration::ZERO, |its| its.queue(now)),
                rate: self.throttle(slot.id).and_then(Throttle::told),
                ..slot.probe.candidate(slot.id, heard.max(slot.last_heard))
            }
        };
        let slots = self.slots.values().filter(|s| usable & path_bit(s.id) != 0);
        let candidates: Vec<Candidate> = slots.map(|slot| candidate(slot)).collect();
        let policy = self.agreement.policy();
        self.selector.plan(now, &candidates, policy, self.observed.as_deref())
    }

    /// The slots of all paths, the best first.
    fn ranking(&self) -> Vec<u8> {
        let rank = |s: &Slot| Rank::new(s.id, s.is_up(), s.probe.health.srtt());
        Rank::order(self.slots().map(rank).collect())
    }

    /// Publishes another plan, or another order of the paths, if a measurement made one.
    pub(super) fn replan(&mut self, now: Time) {
        let Some(view) = self.view.get() else { return };
        let (plan, ranked) = (self.plan(now), self.ranking());
        if view.ranked != ranked || view.plan != plan {
            self.view.set(Some(SendView { ranked, plan, ..(*view).clone() }));
        }
    }

    /// The next point in time at which something has to be done for this peer.
    pub(super) fn next_deadline(&self, session_timeout: Duration) -> Time {
        if let Some(leaves_at) = self.leaves_at {
            return leaves_at;
        }
        let mut next = self.current.heard() + session_timeout;
        if let Some(previous) = self.previous.front() {
            next = next.min(previous.until);
        }
        self.slots.values().map(|s| s.deadline()).fold(next, Time::min)
    }

    /// The route of a slot's proven address.
    pub fn route(&self, slot: u8) -> Option<Route> {
        self.slots.get(&slot)?.active
    }
}
