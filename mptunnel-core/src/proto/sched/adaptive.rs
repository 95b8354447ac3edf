// SPDX-License-Identifier: BSD-2-Clause
//! The fewest copies that meet the target of residual loss, and on which paths.
//!
//! The chance that all copies are lost is the product of the paths' losses where these are
//! independent. Where the sample shows that two paths lose together, a copy on the second one is
//! worth what it is when the first one has lost. Between two whole numbers of copies a share of the
//! datagrams gets one more. More copies come at once; fewer come slowly.

use super::{Candidate, Measured, Policy};
use crate::proto::arrivals::Pair;
use crate::proto::num::path_bit;
use crate::proto::time::Time;
use std::time::Duration;

/// What is aimed at, as a part of the target: measurements are off by a little.
const AIM: f64 = 0.75;
/// The number of copies sinks by so much in a second.
const LOWERED_PER_S: f64 = 0.1;
/// The loss of a path that is not measured yet.
const UNKNOWN: f64 = 0.1;
/// Packets after which a path counts as measured.
const ENOUGH: f32 = 20.0;
/// How much better another path must be to take the place of one that is in use.
const HYSTERESIS: f64 = 0.8;

/// On which paths datagrams go.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mix {
    /// All of them.
    pub base: u32,
    /// And some here.
    pub more: u32,
    /// How many of 65,536 those are.
    pub share: u16,
}

/// How many copies are made at present.
#[derive(Clone, Copy, Debug, Default)]
pub struct Adaptive {
    copies: Option<f64>,
    at: Time,
    used: u32,
}

/// The share that a path loses: in the long run, or lately if that is worse beyond doubt.
fn loss_of(path: &Candidate) -> f64 {
    let Measured { sent, lost } = path.lasting;
    if sent < ENOUGH {
        return UNKNOWN;
    }
    let lasting = f64::from(lost / sent);
    let recent = path.recent;
    let expected = f64::from(recent.sent) * lasting;
    let doubt = 3.0 * (expected * (1.0 - lasting)).max(0.0).sqrt() + 2.0;
    if f64::from(recent.lost) > expected + doubt { recent.fraction() } else { lasting }
}

/// The chance that `path` loses what the paths in `others` have lost.
fn given_lost(path: &Candidate, others: &[Candidate], pairs: &impl Fn(u8, u8) -> Pair) -> f64 {
    let alone = loss_of(path);
    let with = others.iter().filter_map(|other| {
        let pair = pairs(path.slot, other.slot);
        let lost_other =
            f64::from(if other.slot < path.slot { pair.lost_low } else { pair.lost_high });
        let lost_path =
            f64::from(if other.slot < path.slot { pair.lost_high } else { pair.lost_low });
        let (sent, both) = (f64::from(pair.sent), f64::from(pair.lost_both));
        let by_chance = lost_other * lost_path / sent.max(1.0);
        let beyond_doubt = both > by_chance + 3.0 * by_chance.sqrt() + 2.0;
        beyond_doubt.then(|| both / lost_other.max(1.0))
    });
    with.fold(alone, f64::max).min(1.0)
}

impl Adaptive {
    /// The mix that meets the target of `policy`; `pairs` tells how two paths lose together.
    pub fn choose(
        &mut self,
        now: Time,
        usable: &[Candidate],
        policy: &Policy,
        pairs: impl Fn(u8, u8) -> Pair,
    ) -> Mix {
        let aim = f64::from(policy.target_loss_ppb) * 1e-9 * AIM;
        let (order, chances) = self.order(usable, aim, &pairs);
        let most = limit(order.len(), policy);
        let copies = needed(&chances, aim).min(most);
        // The first time everything is in use: nothing is known yet.
        let before = self.copies.unwrap_or(most).min(most);
        let passed = self
            .copies
            .map_or(0.0, |_| now.since(self.at).min(Duration::from_secs(1)).as_secs_f64());
        let copies = copies.max(before - passed * LOWERED_PER_S);
        (self.copies, self.at) = (Some(copies), now);

        let mut mix = Mix::default();
        for (rank, path) in (0u8..).zip(&order) {
            let bit = path_bit(path.slot);
            let left = copies - f64::from(rank);
            if left >= 1.0 - 1e-9 || rank == 0 {
                mix.base |= bit;
            } else if left > 0.0 {
                mix.more = bit;
                mix.share = sixty_fourths(left);
            }
        }
        self.used = mix.base;
        mix
    }

    /// The paths in the order in which they are worth a copy, and the chance that the first one, two,
    /// three … all lose.
    fn order(
        &self,
        usable: &[Candidate],
        aim: f64,
        pairs: &impl Fn(u8, u8) -> Pair,
    ) -> (Vec<Candidate>, Vec<f64>) {
        let favoured = |path: &Candidate, badness: f64| {
            if self.used & path_bit(path.slot) != 0 { badness * HYSTERESIS } else { badness }
        };
        let mut rest = usable.to_vec();
        let (mut order, mut chances, mut all): (Vec<Candidate>, _, _) =
            (Vec::new(), Vec::new(), 1.0);
        while !rest.is_empty() {
            let ranked = rest.iter().enumerate().map(|(at, path)| {
                let loss = given_lost(path, &order, pairs);
                let wait = path.rtt.unwrap_or(Duration::from_secs(60)).as_secs_f64();
                // Of several paths that are good enough the fastest one is the best.
                let enough = all * loss <= aim;
                let badness = if enough { 0.0 } else { favoured(path, loss) };
                (path.cost, badness, favoured(path, wait), at, loss)
            });
            let best = ranked
                .min_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.total_cmp(&b.2)));
            let Some((.., at, loss)) = best else { break };
            order.push(rest.remove(at));
            all *= loss;
            chances.push(all);
        }
        (order, chances)
    }

    /// Copies per datagram, on average.
    pub fn copies(&self) -> Option<f64> {
        self.copies
    }
}

/// How many copies it takes: between two whole numbers, as many datagrams get the larger one as
/// are needed for the mean to meet the aim.
fn needed(chances: &[f64], aim: f64) -> f64 {
    let mut before: Option<f64> = None;
    let mut count = 0.0;
    for chance in chances {
        if *chance <= aim {
            return match before {
                Some(before) => count + ((before - aim) / (before - chance)).clamp(0.0, 1.0),
                None => 1.0,
            };
        }
        before = Some(*chance);
        count += 1.0;
    }
    count
}

/// Copies that the policy allows with so many paths.
fn limit(paths: usize, policy: &Policy) -> f64 {
    let paths = f64::from(u16::try_from(paths).unwrap_or(u16::MAX));
    let copies = if policy.max_copies == 0 { paths } else { paths.min(policy.max_copies.into()) };
    let budget = if policy.budget == 0 { copies } else { 1.0 + f64::from(policy.budget) / 100.0 };
    copies.min(budget).max(1.0)
}

/// A share as a number of 65,536, in steps of a 64th: a new number means a new view.
fn sixty_fourths(share: f64) -> u16 {
    let step = (1..64u16).find(|step| f64::from(*step) >= share * 64.0);
    step.unwrap_or(63).saturating_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(slot: u8, loss: f32, rtt_ms: u64) -> Candidate {
        Candidate {
            slot,
            alive: true,
            rtt: Some(Duration::from_millis(rtt_ms)),
            recent: Measured { sent: 500.0, lost: 500.0 * loss },
            lasting: Measured { sent: 10_000.0, lost: 10_000.0 * loss },
            ..Candidate::default()
        }
    }

    fn policy() -> Policy {
        Policy { target_loss_ppb: 100_000, ..Policy::default() }
    }

    #[test]
    fn cheap_paths_come_first_and_dear_ones_only_if_those_do_not_suffice() {
        let dear = |path| Candidate { cost: 1, ..path };
        let (mix, _) = settled(&[dear(path(0, 0.0, 10)), path(1, 0.0, 90)], &policy(), independent);
        assert_eq!((mix.base, mix.more), (0b10, 0), "a good path is enough");

        let lossy = [dear(path(0, 0.0, 10)), path(1, 0.05, 90)];
        let (mix, _) = settled(&lossy, &policy(), independent);
        assert_eq!((mix.base, mix.more), (0b10, 0b01), "the target counts");
    }

    fn independent(_: u8, _: u8) -> Pair {
        Pair::default()
    }

    /// What it comes to after a minute.
    fn settled(
        paths: &[Candidate],
        policy: &Policy,
        pairs: impl Fn(u8, u8) -> Pair + Copy,
    ) -> (Mix, f64) {
        let mut adaptive = Adaptive::default();
        let mut mix = Mix::default();
        for tick in 0..240 {
            mix = adaptive.choose(Time::from_micros(tick * 250_000), paths, policy, pairs);
        }
        (mix, adaptive.copies().unwrap())
    }

    #[test]
    fn four_independent_paths_of_5_percent_take_a_little_more_than_three_copies() {
        let paths: Vec<_> = (0..4).map(|slot| path(slot, 0.05, 20)).collect();
        let (mix, copies) = settled(&paths, &policy(), independent);
        assert!((3.3..3.5).contains(&copies), "{copies}");
        assert_eq!((mix.base, mix.more), (0b0111, 0b1000));
        let share = f64::from(mix.share) / 65_536.0;
        let loss = 0.05f64.powi(3) * (1.0 - share) + 0.05f64.powi(4) * share;
        assert!(loss < 1e-4, "{loss}");
    }

    #[test]
    fn of_clean_paths_the_fastest_alone_is_enough() {
        let paths = [path(0, 0.0, 40), path(1, 0.0, 20), path(2, 0.0, 30)];
        let (mix, copies) = settled(&paths, &policy(), independent);
        assert_eq!((mix, copies), (Mix { base: 0b010, more: 0, share: 0 }, 1.0));
    }

    #[test]
    fn two_paths_that_lose_together_are_not_counted_twice() {
        let together = |a: u8, b: u8| {
            let both = if a.min(b) == 0 && a.max(b) == 1 { 50.0 } else { 2.5 };
            Pair { sent: 1_000.0, lost_low: 50.0, lost_high: 50.0, lost_both: both }
        };
        let paths: Vec<_> = (0..4).map(|slot| path(slot, 0.05, 20)).collect();
        let (mix, copies) = settled(&paths, &policy(), together);
        // Three independent ones lose 1.25e-4; the fourth copy adds nothing.
        assert_eq!(mix.base, 0b1111);
        assert!(copies > 3.99);

        let easy = Policy { target_loss_ppb: 5_000_000, ..policy() };
        let (mix, _) = settled(&paths, &easy, together);
        assert_ne!(mix.base & 0b11, 0b11, "{mix:?}");
    }

    #[test]
    fn copies_come_at_once_and_go_slowly() {
        let mut adaptive = Adaptive::default();
        let good = [path(0, 0.0, 20), path(1, 0.0, 30), path(2, 0.0, 40)];
        let (mix, _) = settled(&good, &policy(), independent);
        assert_eq!(mix.base, 1);
        let mut at = |seconds: u64, paths: &[Candidate]| {
            let now = Time::from_micros(seconds * 1_000_000);
            adaptive.choose(now, paths, &policy(), independent);
            adaptive.copies().unwrap()
        };
        assert_eq!(at(1, &good), 3.0, "at first, everything");
        assert!((2.0..2.95).contains(&at(2, &good)));
        (3..30).for_each(|s| assert!(at(s, &good) >= 1.0));
        assert_eq!(at(30, &good), 1.0);

        let mut sudden = good;
        sudden[0].recent = Measured { sent: 500.0, lost: 50.0 };
        sudden[1].recent = sudden[0].recent;
        sudden[2].recent = sudden[0].recent;
        assert_eq!(at(31, &sudden), 3.0);
    }

    #[test]
    fn the_number_of_copies_and_the_budget_bound_it() {
        let paths: Vec<_> = (0..4).map(|slot| path(slot, 0.3, 20)).collect();
        let bounded = |max_copies, budget| {
            settled(&paths, &Policy { max_copies, budget, ..policy() }, independent)
        };
        assert_eq!(bounded(0, 0).1, 4.0);
        assert_eq!(bounded(2, 0).1, 2.0);
        let (mix, copies) = bounded(0, 50);
        assert_eq!((mix.base.count_ones(), mix.more.count_ones(), copies), (1, 1, 1.5));
        assert_eq!(mix.share, 32_768);
        assert_eq!(bounded(1, 300).0.base.count_ones(), 1);
    }

    #[test]
    fn without_a_path_there_is_none() {
        assert_eq!(settled(&[], &policy(), independent).0, Mix::default());
    }
}
