// SPDX-License-Identifier: BSD-2-Clause
//! From what is known of the paths of one peer to the plan that its senders follow.

use super::adaptive::Adaptive;
use super::fastest::{Fastest, cost};
use super::gate::{Best, Gate};
use super::shares::{Shares, Told};
use super::{Candidate, Failback, Mode, Plan, Policy, Rule, Sample, redundant};
use crate::proto::arrivals::{Observed, Pair};
use crate::proto::num::path_bit;
use crate::proto::time::Time;
use std::collections::BTreeMap;
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
    shares: Shares,
}

impl Selector {
    /// The plan for the paths as they are now.
    pub fn plan(
        &mut self,
        now: Time,
        candidates: &[Candidate],
        policy: &Policy,
        observed: Option<&Observed>,
    ) -> Plan {
        let mut best = None;
        if policy.mode == Mode::Redundant {
            self.memory = None;
        } else {
            let memory = self.memory.get_or_insert_default();
            if memory.mode != policy.mode {
                // What one policy remembers is of no use to another; what is known of paths is.
                (memory.fastest, memory.adaptive) = Default::default();
                memory.mode = policy.mode;
            }
            best = Some(memory.judge(now, candidates));
        }
        let join = self.stand_in(now, candidates, policy.failback);
        let (Some(memory), Some(best)) = (&mut self.memory, best) else {
            let chosen = redundant::choose(candidates, join);
            return with_sample(Plan::all_on(chosen), candidates, |path| path.backup);
        };
        let (usable, extra) = memory.pool(candidates, join);
        let mut plan = match policy.mode {
            Mode::Redundant => Plan::all_on(bits(&usable)),
            Mode::Fastest => Plan::all_on(memory.fastest.choose(now, &cheapest(&usable))),
            Mode::Weighted => memory.shares.deal(now, &usable, &memory.gates, best),
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
            memory.shares.forget(slot);
            memory.fastest.forget(slot);
        }
    }

    /// A PONG brought a measurement of a path.
    pub fn on_answer(&mut self, slot: u8, told: Told) {
        if let Some(memory) = &mut self.memory {
            memory.shares.on_answer(slot, told);
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
    /// Which paths are fit; what is best among them.
    fn judge(&mut self, now: Time, candidates: &[Candidate]) -> Best {
        let best = Best::of(candidates);
        let shared = self.mode == Mode::Weighted;
        self.gates.retain(|slot, _| candidates.iter().any(|path| path.slot == *slot));
        for path in candidates {
            self.gates.entry(path.slot).or_default().update(now, path, best, shared);
        }
        best
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
}

/// Those of the paths that cost least.
fn cheapest(paths: &[Candidate]) -> Vec<Candidate> {
    let least = paths.iter().map(|path| path.cost).min();
    paths.iter().filter(|path| Some(path.cost) == least).copied().collect()
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

        /// A PING of just now is answered: `lost` of `sent` packets before it were lost.
        fn answer(&mut self, slot: u8, sent: u64, lost: u64) {
            self.selector.on_answer(slot, Told { until: self.now, sent, lost });
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
            let shares = run.selector.memory.as_ref().unwrap().shares.dealt().to_vec();
            let total: f64 = shares.iter().map(|(_, share)| f64::from(*share)).sum();
            for (at, (_, share)) in shares.iter().enumerate() {
                let sent = 5_600.0 * f64::from(*share) / total;
                let lost = (sent - capacities[at]).max(0.0) as f32;
                // A queue comes with loss, so that gates stay open for a while.
                let rtt = Some(if lost > 0.0 { 70 * MS } else { 20 * MS });
                let recent = super::super::Measured { sent: sent as f32, lost };
                paths[at] = Candidate { recent, rtt, ..paths[at] };
                run.answer(at as u8, sent as u64, lost as u64);
                if round >= 200 {
                    average[at] += f64::from(lost) / sent / 200.0;
                }
            }
        }
        println!("{average:?}");
        assert!(average.iter().all(|lost| *lost < 0.002), "{average:?}");
    }

    #[test]
    fn a_path_that_is_congested_gets_less_than_its_weight_until_it_is_not() {
        let mut run = Run::new(Mode::Weighted, Failback::Always);
        let share = |run: &Run| run.selector.memory.as_ref().unwrap().shares.dealt()[0].1;
        let weighing = |lost| {
            let recent = super::super::Measured { sent: 500.0, lost };
            Candidate { weight: 10, recent, rtt: Some(60 * MS), ..path(0) }
        };
        run.step(&[weighing(0.0), path(1)]);
        assert_eq!(share(&run), 160);
        let mut shares = Vec::new();
        for _ in 0..4 {
            run.answer(0, 500, 150);
            run.step(&[weighing(150.0), path(1)]);
            shares.push(share(&run));
        }
        // What was sent before a cut says nothing of the share after it.
        assert_eq!(shares[0], shares[1]);
        assert_eq!(shares[2], shares[3]);
        assert!((105..=112).contains(&shares[0]) && (70..=78).contains(&shares[2]), "{shares:?}");
        // Without a new measurement nothing changes.
        run.step(&[weighing(150.0), path(1)]);
        assert_eq!(share(&run), shares[3]);
        let good = Candidate { rtt: Some(20 * MS), ..weighing(0.0) };
        for _ in 0..40 {
            run.answer(0, 500, 0);
            run.step(&[good, path(1)]);
        }
        assert_eq!(share(&run), 160);
    }
}
