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
/// What an answer without any of that adds: near the share that was too much, and far from it.
const GROWTH: f64 = 1.01;
const RETURN: f64 = 1.04;
/// How far is far.
const NEAR: f64 = 0.9;
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
                share.known = f64::from(*dealt);
                share.size = share.known * AFRESH;
            }
        }
        let mut dealt: Vec<(u8, u32)> = Vec::with_capacity(usable.len());
        for path in usable {
            let share = self.of.entry(path.slot).or_insert_with(|| Share::new(now));
            let size = share.look(now, path, average, best);
            let part = gates.get(&path.slot).map_or(16, Gate::sixteenths);
            dealt.push((path.slot, (size.saturating_mul(part) / 16).max(1)));
        }
        if count == 0.0 {
            // All weights are automatic, and only their proportions matter.
            let sizes = usable.iter().filter_map(|path| Some(self.of.get(&path.slot)?.size));
            let most = sizes.fold(0.0, f64::max).max(1.0);
            for share in self.of.values_mut() {
                share.size *= BEST_SHARE / most;
                share.known *= BEST_SHARE / most;
            }
        }
        if dealt != self.dealt {
            self.dealer.set(&dealt);
            self.dealt = dealt;
        }
        let chosen = usable.iter().fold(0, |set, path| set | path_bit(path.slot));
        Plan { chosen, rule: Rule::Dealt(self.dealer.clone()), ..Plan::default() }
    }
}

impl Share {
    fn new(now: Time) -> Self {
        Share {
            size: f64::INFINITY,
            known: 0.0,
            cut_at: now,
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
        let missed = path.misses > std::mem::replace(&mut self.misses, path.misses);
        if missed {
            let before = self.size.min(most);
            self.cut(now, most, if path.misses == 1 { MISSED } else { MISSED_AGAIN });
            self.known = self.known.max(before);
        } else if std::mem::take(&mut self.is_fresh) {
            self.judge(now, path, most, best);
        }
        if self.size >= most {
            self.size = f64::INFINITY;
        }
        if self.size.is_finite() { stepped(self.size) } else { whole }
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
                return self.cut(now, most, (arrived * LESS).clamp(CUT, 1.0));
            }
        }
        if self.bloat > best.bloat.saturating_add(CONGESTED_QUEUE) {
            // While it shrinks the share is small enough.
            if self.bloat >= bloat_before {
                self.cut(now, most, DELAYED);
            }
            return;
        }
        // What has a weight of its own soon goes on beyond what was too much once. Automatic ones
        // grow alike: those that are congested say enough.
        let is_far =
            self.size < self.known * NEAR || (most.is_finite() && self.size * NEAR > self.known);
        self.size *= if is_far { RETURN } else { GROWTH };
    }

    fn cut(&mut self, now: Time, most: f64, to: f64) {
        self.size = (self.size.min(most) * to).max(1.0);
        self.known = self.size;
        self.cut_at = now;
        self.told = Measured::default();
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
