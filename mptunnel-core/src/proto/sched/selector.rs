// SPDX-License-Identifier: BSD-2-Clause
//! From what is known of the paths of one peer to the plan that its senders follow.

use super::adaptive::Adaptive;
use super::fastest::{Fastest, cost};
use super::gate::{Best, Gate, bloat};
use super::{Candidate, Dealer, Failback, Mode, Plan, Policy, Rule, Sample, redundant};
use crate::proto::arrivals::{Observed, Pair};
use crate::proto::num::{approximate, path_bit};
use crate::proto::time::Time;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// One datagram of so many is sent on a path that is not in use, so that its quality stays known.
const SAMPLE_STEP: u32 = 64;
/// How long an active path has to be good before a backup gives way.
const RETURN_AFTER: Duration = Duration::from_secs(1);
/// How much smaller the cost of an active path must be for [`Failback::Better`].
const BETTER: f64 = 0.9;

/// What is remembered about the paths of one peer from one plan to the next. Almost nothing in
/// redundant mode.
#[derive(Debug, Default)]
pub struct Selector {
    /// Since when an active path covers again; `None` while a backup is not needed.
    standing_in: Option<StandIn>,
    memory: Option<Box<Memory>>,
}

/// A backup has taken over.
#[derive(Clone, Copy, Debug)]
struct StandIn {
    /// Since when an active path has been good again.
    covered_since: Option<Time>,
}

/// What the policies other than redundant remember.
#[derive(Debug, Default)]
struct Memory {
    mode: Mode,
    gates: BTreeMap<u8, Gate>,
    fastest: Fastest,
    adaptive: Adaptive,
    dealer: Arc<Dealer>,
    shares: Vec<(u8, u32)>,
    /// Of paths with an automatic weight, and of those that were congested.
    limits: BTreeMap<u8, Share>,
    best: Option<Best>,
}

/// What a path may get after it has lost or delayed more than the best one.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// A weight, times 16; of a path with a weight of its own a limit.
    size: f64,
    /// Whether there is a measurement that was not looked at.
    is_fresh: bool,
    /// Unanswered probes that were looked at.
    misses: u32,
}

/// Loss and queue, beyond those of the best path, from which on a path gets too much; and of how
/// many packets such a loss is believed.
const CONGESTED_LOSS: f64 = 0.02;
const CONGESTED_QUEUE: Duration = Duration::from_millis(30);
const ENOUGH: f32 = 20.0;
/// A path that loses is left with what it delivers, and a little less; one answer cuts its share to
/// a third at most.
const LESS: f64 = 0.97;
const CUT: f64 = 0.3;
/// One that delays is left with so much.
const DELAYED: f64 = 0.93;
/// One that does not answer a probe, and the next ones neither. A single probe is lost easily: if
/// that moved a share far, the others would get more than they carry.
const MISSED: f64 = 0.85;
const MISSED_AGAIN: f64 = 0.5;
/// One that is not used any more begins with so much of what it had.
const AFRESH: f64 = 0.25;
/// What an answer without either adds.
const GROWTH: f64 = 1.04;
/// The share of the best path if all weights are automatic, times 16.
const BEST_SHARE: f64 = 16_000.0;

impl Selector {
    /// The plan for the paths as they are now.
    pub fn plan(
        &mut self,
        now: Time,
        candidates: &[Candidate],
        policy: &Policy,
        observed: Option<&Observed>,
    ) -> Plan {
        if policy.mode == Mode::Redundant {
            self.memory = None;
        } else {
            let memory = self.memory.get_or_insert_default();
            if memory.mode != policy.mode {
                // What one policy remembers is of no use to another; what is known of paths is.
                (memory.fastest, memory.adaptive) = Default::default();
                memory.mode = policy.mode;
            }
            memory.judge(now, candidates);
        }
        let join = self.stand_in(now, candidates, policy.failback);
        let Some(memory) = &mut self.memory else {
            let chosen = redundant::choose(candidates, join);
            return with_sample(Plan::all_on(chosen), candidates, |path| path.backup);
        };
        let (usable, extra) = memory.pool(candidates, join);
        let mut plan = match policy.mode {
            Mode::Redundant => Plan::all_on(bits(&usable)),
            Mode::Fastest => Plan::all_on(memory.fastest.choose(now, &usable)),
            Mode::Weighted => memory.deal(&usable),
            Mode::Adaptive => {
                let pair = |a, b| observed.map_or(Pair::default(), |o| o.pair(a, b));
                let mix = memory.adaptive.choose(now, &usable, policy, pair);
                let rule = if mix.more == 0 { Rule::Same(mix.base) } else { Rule::Mixed(mix) };
                Plan { chosen: mix.base | mix.more, rule, ..Plan::default() }
            }
        };
        plan.usable = bits(&usable);
        if extra != 0 {
            // Short, and rare: who is in doubt sends more, not less.
            plan = Plan { usable: plan.usable, ..Plan::all_on(plan.chosen | extra) };
        }
        with_sample(plan, candidates, |_| true)
    }

    /// The path in this slot is another one now.
    pub fn forget(&mut self, slot: u8) {
        if let Some(memory) = &mut self.memory {
            memory.gates.remove(&slot);
            memory.limits.remove(&slot);
        }
    }

    /// A PONG brought a measurement of a path.
    pub fn on_answer(&mut self, slot: u8) {
        if let Some(share) = self.memory.as_mut().and_then(|m| m.limits.get_mut(&slot)) {
            share.is_fresh = true;
        }
    }

    /// The gate of a path, if the policy has gates.
    pub fn gate(&self, slot: u8) -> Option<&Gate> {
        self.memory.as_ref()?.gates.get(&slot)
    }

    /// Copies per datagram, on average, if the policy decides on them by itself.
    pub fn copies(&self) -> Option<f64> {
        self.memory.as_ref().filter(|m| m.mode == Mode::Adaptive)?.adaptive.copies()
    }

    /// Whether the backups carry traffic.
    fn stand_in(&mut self, now: Time, candidates: &[Candidate], failback: Failback) -> bool {
        let gates = self.memory.as_ref().map(|memory| &memory.gates);
        let open = |path: &&Candidate| {
            gates.is_none_or(|gates| gates.get(&path.slot).is_some_and(Gate::is_open))
        };
        let covering = || candidates.iter().filter(|path| path.covers()).filter(open);
        let backups = || candidates.iter().filter(|path| path.backup && path.alive).filter(open);
        let covered = covering().next().is_some();
        let Some(stand_in) = &mut self.standing_in else {
            if !covered {
                self.standing_in = Some(StandIn { covered_since: None });
            }
            return !covered;
        };
        if !covered {
            stand_in.covered_since = None;
            return true;
        }
        let since = *stand_in.covered_since.get_or_insert(now);
        let best = |costs: &mut dyn Iterator<Item = Duration>| costs.min();
        let returns = match failback {
            _ if backups().next().is_none() => true,
            Failback::Always => now.since(since) >= RETURN_AFTER,
            Failback::Better => {
                let active = best(&mut covering().filter_map(cost));
                let backup = best(&mut backups().filter_map(cost));
                let better =
                    active.zip(backup).is_some_and(|(active, b)| active < b.mul_f64(BETTER));
                better && now.since(since) >= RETURN_AFTER
            }
            Failback::Never => false,
        };
        if returns {
            self.standing_in = None;
        }
        !returns
    }
}

impl Memory {
    fn judge(&mut self, now: Time, candidates: &[Candidate]) {
        self.gates.retain(|slot, _| candidates.iter().any(|path| path.slot == *slot));
        let best = Best::of(candidates);
        self.best = Some(best);
        for path in candidates {
            self.gates.entry(path.slot).or_default().update(now, path, best);
        }
    }

    /// The paths to choose from, and those that get a copy of everything while they are in doubt.
    fn pool(&self, candidates: &[Candidate], join: bool) -> (Vec<Candidate>, u32) {
        let is_open = |path: &&Candidate| self.gates.get(&path.slot).is_some_and(Gate::is_open);
        let of = |backup| move |path: &&Candidate| path.backup == backup;
        let open = |backup| -> Vec<Candidate> {
            candidates.iter().filter(of(backup)).filter(is_open).copied().collect()
        };
        let (active, backup) = (open(false), open(true));
        if join && !backup.is_empty() {
            // Suspected, not yet silent: the datagrams may arrive there all the same.
            let doubtful: Vec<Candidate> =
                active.into_iter().filter(|path| !path.covers()).collect();
            return (backup, bits(&doubtful));
        }
        if !active.is_empty() {
            return (active, 0);
        }
        // Nothing is fit: whatever answers, or else whatever there is, actives first.
        let any = |keep: &dyn Fn(&Candidate) -> bool| -> Vec<Candidate> {
            candidates.iter().filter(|path| keep(path)).copied().collect()
        };
        let alive = any(&|path| path.alive);
        let rest = if alive.is_empty() { any(&|_| true) } else { alive };
        (rest, 0)
    }

    fn deal(&mut self, usable: &[Candidate]) -> Plan {
        let fixed = || usable.iter().filter(|path| path.weight > 0);
        let count = approximate(crate::proto::num::widen(fixed().count()));
        let sum: f64 = fixed().map(|path| f64::from(path.weight)).sum();
        // Among paths with weights an automatic one begins in the middle.
        let average = if count > 0.0 { sum * 16.0 / count } else { BEST_SHARE };
        for (slot, share) in &self.shares {
            let is_used = usable.iter().any(|path| path.slot == *slot);
            let was_bad = self.gates.get(slot).is_none_or(Gate::was_closed);
            if let Some(limit) = self.limits.get_mut(slot).filter(|_| !is_used && was_bad) {
                limit.size = f64::from(*share) * AFRESH;
            }
        }
        let mut shares: Vec<(u8, u32)> = Vec::with_capacity(usable.len());
        for path in usable {
            shares.push((path.slot, self.share(path, average)));
        }
        if count == 0.0 {
            // All weights are automatic, and only their proportions matter.
            let sizes = usable.iter().filter_map(|path| Some(self.limits.get(&path.slot)?.size));
            let most = sizes.fold(0.0, f64::max).max(1.0);
            self.limits.values_mut().for_each(|share| share.size *= BEST_SHARE / most);
        }
        if shares != self.shares {
            self.dealer.set(&shares);
            self.shares = shares;
        }
        let rule = Rule::Dealt(self.dealer.clone());
        Plan { chosen: bits(usable), rule, ..Plan::default() }
    }

    /// The share of a path: its weight, times 16, or less after it was congested or away.
    fn share(&mut self, path: &Candidate, average: f64) -> u32 {
        let whole = u32::from(path.weight).saturating_mul(16);
        let (fixed, most) = (whole > 0, f64::from(whole));
        let unlimited = Share { size: f64::INFINITY, is_fresh: false, misses: 0 };
        let limit = self.limits.entry(path.slot).or_insert(unlimited);
        if !fixed && limit.size.is_infinite() {
            limit.size = average;
        }
        let missed = path.misses > std::mem::replace(&mut limit.misses, path.misses);
        if std::mem::take(&mut limit.is_fresh) || missed {
            let change = self.best.map_or(1.0, |best| best.change(path));
            let change = match path.misses {
                _ if !missed => change,
                1 => MISSED,
                _ => MISSED_AGAIN,
            };
            let size = if fixed && change < 1.0 { limit.size.min(most) } else { limit.size };
            limit.size = (size * change).max(1.0);
        }
        if fixed && limit.size >= most {
            limit.size = f64::INFINITY;
        }
        let size = if limit.size.is_finite() { stepped(limit.size) } else { whole };
        let part = self.gates.get(&path.slot).map_or(16, Gate::sixteenths);
        (size.saturating_mul(part) / 16).max(1)
    }
}

impl Best {
    /// By how much the share of a path should change, compared with the best one.
    fn change(self, path: &Candidate) -> f64 {
        let lost = path.recent.at_least() - self.loss;
        if path.recent.sent >= ENOUGH && lost > CONGESTED_LOSS {
            let arrived = (1.0 - path.recent.fraction()) / (1.0 - self.loss).max(0.01);
            return (arrived * LESS).clamp(CUT, 1.0);
        }
        let delayed = bloat(path) > self.bloat.saturating_add(CONGESTED_QUEUE);
        if delayed { DELAYED } else { GROWTH }
    }
}

/// `size` in steps of about 3 %: noise is not to begin a new sequence with each answer.
fn stepped(size: f64) -> u32 {
    let mut share = 1u32;
    while share < 1 << 20 {
        let next = share.saturating_add((share / 32).max(1));
        if f64::from(next) > size {
            break;
        }
        share = next;
    }
    share
}

fn bits(paths: &[Candidate]) -> u32 {
    paths.iter().fold(0, |set, path| set | path_bit(path.slot))
}

/// Adds the sample: on the paths that answer, are not in use and that `wanted` names.
fn with_sample(
    mut plan: Plan,
    candidates: &[Candidate],
    wanted: impl Fn(&Candidate) -> bool,
) -> Plan {
    let always = match &plan.rule {
        Rule::Mixed(mix) => mix.base,
        _ => plan.chosen,
    };
    let idle = candidates.iter().filter(|path| path.alive && wanted(path));
    let paths = idle.fold(0, |set, path| set | path_bit(path.slot)) & !always;
    if paths != 0 {
        // However many paths are sampled, together they cost one datagram in 64.
        let step = paths.count_ones().next_power_of_two().saturating_mul(SAMPLE_STEP);
        plan.sample = Sample { mask: u64::from(step.saturating_sub(1)), paths };
        plan.chosen |= paths;
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn path(slot: u8) -> Candidate {
        let rtt = Some(20 * MS);
        Candidate { slot, alive: true, weight: 1, rtt, min_rtt: rtt, ..Candidate::default() }
    }

    fn backup(slot: u8) -> Candidate {
        Candidate { backup: true, ..path(slot) }
    }

    fn down(path: Candidate) -> Candidate {
        Candidate { alive: false, misses: 5, ..path }
    }

    fn policy(mode: Mode, failback: Failback) -> Policy {
        Policy { mode, failback, ..Policy::default() }
    }

    /// The paths of everything but the sample.
    fn carried(plan: &Plan) -> u32 {
        let mut turns = super::super::Turns::default();
        (1..64).fold(0, |set, number| set | plan.pick(number, &mut turns))
    }

    struct Run {
        selector: Selector,
        policy: Policy,
        now: Time,
    }

    impl Run {
        fn new(mode: Mode, failback: Failback) -> Self {
            let policy = policy(mode, failback);
            Run { selector: Selector::default(), policy, now: Time::from_micros(1_000_000) }
        }

        /// What is carried where, a quarter of a second later.
        fn step(&mut self, paths: &[Candidate]) -> u32 {
            self.now = self.now + 250 * MS;
            carried(&self.selector.plan(self.now, paths, &self.policy, None))
        }

        /// Quarters of a second until `expected` carries everything.
        fn until(&mut self, paths: &[Candidate], expected: u32) -> Option<u32> {
            (1..400).find(|_| self.step(paths) == expected)
        }
    }

    const MODES: [Mode; 4] = [Mode::Redundant, Mode::Weighted, Mode::Fastest, Mode::Adaptive];

    #[test]
    fn a_backup_carries_the_sample_alone_until_no_active_path_is_sure_to_work() {
        for mode in MODES {
            let mut run = Run::new(mode, Failback::Always);
            assert_eq!(run.step(&[path(0), backup(1)]), 0b01, "{mode:?}");
            let plan = run.selector.plan(run.now, &[path(0), backup(1)], &run.policy, None);
            assert_eq!(plan.sample, Sample { mask: 63, paths: 0b10 }, "{mode:?}");

            let suspected = Candidate { misses: 1, ..path(0) };
            assert_eq!(run.step(&[suspected, backup(1)]), 0b11, "{mode:?}: at the first doubt");
            let expected = if mode == Mode::Redundant { 0b11 } else { 0b10 };
            assert_eq!(run.step(&[down(path(0)), backup(1)]), expected, "{mode:?}");
        }
    }

    #[test]
    fn traffic_returns_from_a_backup_as_the_fail_back_policy_says() {
        for mode in MODES {
            let slow = Candidate { rtt: Some(100 * MS), ..path(0) };
            for (failback, back, expected) in [
                (Failback::Always, slow, true),
                (Failback::Better, slow, false),
                (Failback::Better, Candidate { rtt: Some(10 * MS), ..path(0) }, true),
                (Failback::Never, path(0), false),
            ] {
                let mut run = Run::new(mode, failback);
                run.step(&[path(0), backup(1)]);
                run.step(&[down(path(0)), backup(1)]);
                let waited = run.until(&[back, backup(1)], 0b01);
                assert_eq!(waited.is_some(), expected, "{mode:?} {failback:?}");
                assert!(waited.is_none_or(|quarters| quarters >= 4), "not at the first sign");
                // The backup fails: nobody stays with it.
                assert_eq!(run.step(&[back, down(backup(1))]), 0b01, "{mode:?} {failback:?}");
            }
        }
    }

    #[test]
    fn in_every_mode_but_redundant_a_bad_path_is_sampled_and_not_used() {
        for mode in [Mode::Weighted, Mode::Fastest, Mode::Adaptive] {
            let mut run = Run::new(mode, Failback::Always);
            let good = super::super::Measured { sent: 500.0, lost: 0.0 };
            let bad = super::super::Measured { sent: 500.0, lost: 250.0 };
            let of = |slot, recent| Candidate { recent, lasting: recent, ..path(slot) };
            run.step(&[of(0, good), of(1, good)]);

            assert_eq!(run.step(&[of(0, bad), of(1, good)]), 0b10, "{mode:?}");

            let plan = run.selector.plan(run.now, &[of(0, bad), of(1, good)], &run.policy, None);
            assert_eq!((plan.usable, plan.sample.paths), (0b10, 0b01), "{mode:?}");
        }
    }

    #[test]
    fn if_no_path_is_fit_whatever_answers_is_used() {
        for mode in [Mode::Weighted, Mode::Fastest, Mode::Adaptive] {
            let mut run = Run::new(mode, Failback::Always);
            run.step(&[path(0), path(1)]);
            let silent = Candidate { misses: 3, ..path(0) };
            assert_ne!(run.step(&[silent, down(path(1))]) & 0b01, 0, "{mode:?}");
            assert_ne!(run.step(&[down(path(0)), down(path(1))]), 0, "{mode:?}");
            assert_eq!(run.step(&[]), 0);
        }
    }

    #[test]
    fn automatic_weights_become_what_the_paths_deliver() {
        let mut run = Run::new(Mode::Weighted, Failback::Always);
        let capacities = [1_000.0f64, 2_000.0, 3_000.0];
        let auto = |slot| Candidate { weight: 0, ..path(slot) };
        let mut paths: Vec<Candidate> = (0..3).map(auto).collect();
        let mut average = [0.0; 3];
        for round in 0..400 {
            run.step(&paths);
            let shares = run.selector.memory.as_ref().unwrap().shares.clone();
            let total: f64 = shares.iter().map(|(_, share)| f64::from(*share)).sum();
            for (at, (_, share)) in shares.iter().enumerate() {
                let sent = 5_600.0 * f64::from(*share) / total;
                let lost = (sent - capacities[at]).max(0.0) as f32;
                // A queue comes with loss, so that gates stay open for a while.
                let rtt = Some(if lost > 0.0 { 70 * MS } else { 20 * MS });
                let recent = super::super::Measured { sent: sent as f32, lost };
                paths[at] = Candidate { recent, rtt, ..paths[at] };
                run.selector.on_answer(at as u8);
                if round >= 200 {
                    average[at] += f64::from(lost) / sent / 200.0;
                }
            }
        }
        println!("{average:?}");
        assert!(average.iter().all(|lost| *lost < 0.02), "{average:?}");
    }

    #[test]
    fn a_path_that_is_congested_gets_less_than_its_weight_until_it_is_not() {
        let mut run = Run::new(Mode::Weighted, Failback::Always);
        let share = |run: &Run| run.selector.memory.as_ref().unwrap().shares[0].1;
        let weighing = |lost| {
            let recent = super::super::Measured { sent: 500.0, lost };
            Candidate { weight: 10, recent, rtt: Some(60 * MS), ..path(0) }
        };
        run.step(&[weighing(0.0), path(1)]);
        assert_eq!(share(&run), 160);
        for _ in 0..3 {
            run.selector.on_answer(0);
            run.step(&[weighing(150.0), path(1)]);
        }
        assert!((45..60).contains(&share(&run)), "{}", share(&run));
        // Without a new measurement nothing changes.
        run.step(&[weighing(150.0), path(1)]);
        assert!((45..60).contains(&share(&run)));
        let good = Candidate { rtt: Some(20 * MS), ..weighing(0.0) };
        for _ in 0..40 {
            run.selector.on_answer(0);
            run.step(&[good, path(1)]);
        }
        assert_eq!(share(&run), 160);
    }
}
