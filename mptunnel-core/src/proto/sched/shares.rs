// SPDX-License-Identifier: BSD-2-Clause
//! How much of the traffic each path gets in mode weighted: by its weight, and less while it does
//! not carry that. An automatic weight has no other bound than what the path carries.
//!
//! A path that is congested is left with what it delivers, so that after a few rounds all that are
//! get as much as they carry, whatever the others get: if it gets the part s of a load of 1 and
//! delivers c < s, its next part is c / (c + 1 - s), and the fixed point of that is c.
//!
//! What was sent before the last cut says nothing of the share after it, and would cut a second
//! time: it is not looked at.
//!
//! Automatic shares all grow alike, which changes nothing: the next cut is where the next packet is
//! too much. What has a weight of its own is to get back to it, so more than was too much once has
//! to be tried, and while the path carries no more each trial costs a queue, and perhaps packets.
//! After each trial in vain the next one waits twice as long, 1 s to 60 s, as TCP probes a window
//! of zero (RFC 9293, section 3.8.6.1). So a weight that is just wrong costs next to nothing, and a
//! path whose capacity comes back waits about as long as it was bad, and 60 s at most; from a tenth
//! it grows to all of it within another 10 s.

use super::gate::{Best, Gate, bloat, is_queued};
use super::{Candidate, Dealer, Measured, Plan, Rule};
use crate::proto::num::{approximate, path_bit, rough, widen};
use crate::proto::time::Time;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Loss beyond that of the best path from which on a path gets too much, and the same with a queue
/// in front of it; and of how many packets a loss is believed.
const CONGESTED_LOSS: f64 = 0.02;
const CONGESTED_LOSS_QUEUED: f64 = 0.005;
const ENOUGH: f32 = 20.0;
/// A queue beyond that of the best path that means the same.
const CONGESTED_QUEUE: Duration = Duration::from_millis(30);
/// A path that loses is left with what it delivers, and a little less; one answer cuts its share to
/// a third at most.
const LESS: f64 = 0.99;
const CUT: f64 = 0.3;
/// One that delays more and more is left with so much.
const DELAYED: f64 = 0.93;
/// One that does not answer a probe, and the next ones neither. A single probe is lost easily: if
/// that moved a share far, the others would get more than they carry.
const MISSED: f64 = 0.85;
const MISSED_AGAIN: f64 = 0.5;
/// One that is not used any more begins with so much of what it had.
const AFRESH: f64 = 0.25;
/// What an answer without any of that adds: near the share that was too much, far from it, and
/// where the path carries so much more than then that it is another one.
const GROWTH: f64 = 1.01;
const RETURN: f64 = 1.04;
const LEAP: f64 = 1.08;
/// How far is far.
const NEAR: f64 = 0.9;
/// Before more is tried than was too much: at first, and at most.
const HOLD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A trial that went well for so long was not in vain.
const PROVEN: Duration = Duration::from_secs(10);
/// A path that carries so much of what it carried at the last trial is another one.
const CHANGED: f64 = 0.7;
/// The share of the best path if all weights are automatic, times 16.
const BEST_SHARE: f64 = 16_000.0;

/// What a PONG told of the packets sent between two PINGs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Told {
    /// When the later one of the two was sent.
    pub until: Time,
    /// Packets sent between them.
    pub sent: u64,
    /// Of these, lost ones.
    pub lost: u64,
}

/// The shares of all paths of one peer.
#[derive(Debug, Default)]
pub struct Shares {
    dealer: Arc<Dealer>,
    /// What was dealt last.
    dealt: Vec<(u8, u32)>,
    of: BTreeMap<u8, Share>,
}

/// What one path may get.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// A weight, times 16; of a path with a weight of its own a bound, infinite if there is none.
    size: f64,
    /// What it was before the path was away, or what the path delivered when it was congested last.
    known: f64,
    /// When it was made smaller last.
    cut_at: Time,
    /// The weight of the path when it was looked at; 0: automatic.
    weight: u16,
    /// What was left of it when the last trial failed.
    tried: f64,
    /// When more may be tried than was too much once, and how long that waits after a cut.
    try_at: Time,
    hold: Duration,
    /// What was sent until then has been told of.
    told_until: Time,
    /// What was told since it was looked at.
    told: Measured,
    /// Whether there is an answer that was not looked at.
    is_fresh: bool,
    /// Excess of the round trip at the last answer.
    bloat: Duration,
    /// Unanswered probes that were looked at.
    misses: u32,
}

impl Shares {
    /// A PONG came.
    pub fn on_answer(&mut self, slot: u8, told: Told) {
        let Some(share) = self.of.get_mut(&slot) else { return };
        let begins = std::mem::replace(&mut share.told_until, told.until);
        if begins >= share.cut_at {
            share.told.sent += rough(told.sent);
            share.told.lost += rough(told.lost);
            share.is_fresh = true;
        }
    }

    /// The path in this slot is another one now.
    pub fn forget(&mut self, slot: u8) {
        self.of.remove(&slot);
    }

    /// Paths and their shares, as they were dealt last.
    #[cfg(test)]
    pub fn dealt(&self) -> &[(u8, u32)] {
        &self.dealt
    }

    /// Deals the traffic out to these paths.
    pub fn deal(
        &mut self,
        now: Time,
        usable: &[Candidate],
        gates: &BTreeMap<u8, Gate>,
        best: Best,
    ) -> Plan {
        let fixed = || usable.iter().filter(|path| path.weight > 0);
        let count = approximate(widen(fixed().count()));
        let sum: f64 = fixed().map(|path| f64::from(path.weight)).sum();
        // Among paths with weights an automatic one begins in the middle.
        let average = if count > 0.0 { sum * 16.0 / count } else { BEST_SHARE };
        for (slot, dealt) in &self.dealt {
            let is_used = usable.iter().any(|path| path.slot == *slot);
            let was_bad = gates.get(slot).is_none_or(Gate::was_closed);
            if let Some(share) = self.of.get_mut(slot).filter(|_| !is_used && was_bad) {
                // Of a weight, what it was before it fell silent stays known.
                let before = if share.weight > 0 { share.known } else { 0.0 };
                share.known = before.max(f64::from(*dealt));
                share.size = share.known * AFRESH;
            }
        }
        let by_rate = self.per_rate(usable);
        let mut dealt: Vec<(u8, u32)> = Vec::with_capacity(usable.len());
        for path in usable {
            let first = by_rate.zip(path.rate).map_or(average, |(by, rate)| by * approximate(rate));
            let share = self.of.entry(path.slot).or_insert_with(|| Share::new(now));
            let size = share.look(now, path, first, best);
            let part = gates.get(&path.slot).map_or(16, Gate::sixteenths);
            dealt.push((path.slot, (size.saturating_mul(part) / 16).max(1)));
        }
        self.scale(usable);
        if dealt != self.dealt {
            self.dealer.set(&dealt);
            self.dealt = dealt;
        }
        let chosen = usable.iter().fold(0, |set, path| set | path_bit(path.slot));
        Plan { chosen, rule: Rule::Dealt(self.dealer.clone()), ..Plan::default() }
    }

    /// What automatic shares come to for each byte per second that their links are told to carry:
    /// with so much a further one begins. `None` if no such share or rate is known.
    fn per_rate(&self, usable: &[Candidate]) -> Option<f64> {
        let told = || usable.iter().filter(|p| p.weight == 0).filter_map(|p| Some((p, p.rate?)));
        let size =
            |slot| self.of.get(&slot).map(|share| share.size).filter(|size| size.is_finite());
        let known = told().filter_map(|(path, rate)| Some((size(path.slot)?, approximate(rate))));
        let (sizes, rates) = known.fold((0.0, 0.0), |(a, b), (size, rate)| (a + size, b + rate));
        if rates > 0.0 {
            return Some(sizes / rates);
        }
        // The first ones: the largest gets what the best has.
        let all = usable.iter().all(|path| path.weight == 0);
        let most = told().map(|(_, rate)| approximate(rate)).fold(0.0, f64::max);
        (all && most > 0.0).then_some(BEST_SHARE / most)
    }

    /// Only the proportions matter: as large as may be, which is until the first path has all of
    /// its weight, or if all weights are automatic, until the largest share has the size of one.
    fn scale(&mut self, usable: &[Candidate]) {
        let sizes = || usable.iter().filter_map(|path| Some((path, self.of.get(&path.slot)?.size)));
        let fixed = sizes().filter(|(path, _)| path.weight > 0);
        let room = fixed.map(|(path, size)| f64::from(path.weight) * 16.0 / size);
        let room = room.reduce(f64::min).unwrap_or_else(|| {
            BEST_SHARE / sizes().map(|(_, size)| size).fold(0.0, f64::max).max(1.0)
        });
        // A path that is not cut is infinite, and leaves none.
        if room > 0.0 {
            self.of.values_mut().for_each(|share| share.scale(room));
        }
    }
}

impl Share {
    fn new(now: Time) -> Self {
        Share {
            size: f64::INFINITY,
            known: 0.0,
            cut_at: now,
            weight: 0,
            tried: 0.0,
            try_at: now,
            hold: HOLD.0,
            told_until: now,
            told: Measured::default(),
            is_fresh: false,
            bloat: Duration::ZERO,
            misses: 0,
        }
    }

    /// Takes what is new of the path into account; its weight, times 16, or less.
    fn look(&mut self, now: Time, path: &Candidate, average: f64, best: Best) -> u32 {
        let whole = u32::from(path.weight).saturating_mul(16);
        let most = if whole > 0 { f64::from(whole) } else { f64::INFINITY };
        if whole == 0 && self.size.is_infinite() {
            self.size = average;
        }
        if std::mem::replace(&mut self.weight, path.weight) != path.weight {
            (self.try_at, self.hold) = (now, HOLD.0);
        }
        let missed = path.misses > std::mem::replace(&mut self.misses, path.misses);
        if missed {
            self.on_miss(now, path, most);
        } else if std::mem::take(&mut self.is_fresh) {
            self.judge(now, path, most, best);
        }
        if self.size >= most {
            self.size = f64::INFINITY;
        }
        if self.size.is_finite() { stepped(self.size) } else { whole }
    }

    /// The path has not answered.
    fn on_miss(&mut self, now: Time, path: &Candidate, most: f64) {
        // One that is full loses probes as well, one after the other, and is not dead. If it was
        // full for a trial, it gets what was not too much, less what it takes to empty the queue.
        let is_trial = self.is_trial(now, most);
        let is_full = most.is_finite() && is_queued(path);
        let part = match path.misses {
            _ if is_trial => DELAYED * self.known / self.size.min(most),
            1 if is_full => DELAYED,
            2 if is_full => MISSED,
            1 => MISSED,
            _ => MISSED_AGAIN,
        };
        let known = if is_trial { self.known } else { self.known.max(self.size.min(most)) };
        self.cut(now, most, part);
        self.known = known;
        self.wait(now, is_trial);
    }

    /// The path has answered.
    fn judge(&mut self, now: Time, path: &Candidate, most: f64, best: Best) {
        let bloat_before = std::mem::replace(&mut self.bloat, bloat(path));
        if self.told.sent >= ENOUGH {
            let told = std::mem::take(&mut self.told);
            let excess = told.at_least() - best.loss;
            let bound = if is_queued(path) { CONGESTED_LOSS_QUEUED } else { CONGESTED_LOSS };
            if excess > bound {
                let arrived = (1.0 - told.fraction()) / (1.0 - best.loss).max(0.01);
                return self.reduce(now, most, (arrived * LESS).clamp(CUT, 1.0));
            }
        }
        if self.bloat > best.bloat.saturating_add(CONGESTED_QUEUE) {
            // While it shrinks the share is small enough.
            if self.bloat >= bloat_before {
                self.reduce(now, most, DELAYED);
            }
            return;
        }
        self.size *= self.growth(now, most);
    }

    fn growth(&self, now: Time, most: f64) -> f64 {
        if self.size < self.known * NEAR {
            return RETURN;
        }
        // Automatic ones grow alike: those that are congested say enough.
        if most.is_infinite() || self.size < self.known {
            return GROWTH;
        }
        if now < self.try_at {
            return 1.0;
        }
        match self.size / self.known {
            beyond if beyond * CHANGED > 1.0 => LEAP,
            beyond if beyond * NEAR > 1.0 => RETURN,
            _ => GROWTH,
        }
    }

    /// Whether more is tried than was too much once.
    fn is_trial(&self, now: Time, most: f64) -> bool {
        let was_cut = most.is_finite() && self.known > 0.0;
        was_cut && self.size > self.known && now.since(self.try_at) < PROVEN
    }

    /// What was measured says that it is too much.
    fn reduce(&mut self, now: Time, most: f64, to: f64) {
        self.cut(now, most, to);
        if self.size < self.tried * CHANGED || now.since(self.try_at) >= PROVEN {
            (self.tried, self.hold) = (self.size, HOLD.0);
            self.wait(now, false);
        } else {
            self.wait(now, now >= self.try_at);
        }
    }

    fn cut(&mut self, now: Time, most: f64, to: f64) {
        self.size = (self.size.min(most) * to).max(1.0);
        self.known = self.size;
        self.cut_at = now;
        self.told = Measured::default();
    }

    /// Until the next trial; twice as long if one has failed.
    fn wait(&mut self, now: Time, has_failed: bool) {
        if has_failed {
            (self.tried, self.hold) = (self.size, self.hold.saturating_mul(2).min(HOLD.1));
        }
        self.try_at = now + self.hold;
    }

    fn scale(&mut self, by: f64) {
        self.size *= by;
        self.known *= by;
        self.tried *= by;
    }
}

/// `size` in steps of about 1 %: noise is not to begin a new sequence with each answer.
fn stepped(size: f64) -> u32 {
    let mut share = 1u32;
    while share < 1 << 20 {
        let next = share.saturating_add((share / 100).max(1));
        if f64::from(next) > size {
            break;
        }
        share = next;
    }
    share
}
