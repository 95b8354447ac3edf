// SPDX-License-Identifier: BSD-2-Clause
//! Every datagram on the one path on which it is expected to arrive first.

use super::Candidate;
use crate::proto::num::path_bit;
use crate::proto::time::Time;
use std::time::Duration;

/// How much smaller the cost of another path must be.
const HYSTERESIS: f64 = 0.9;
/// What losing every datagram would cost: 1 % of loss weighs as much as 10 ms.
const ALL_LOST: Duration = Duration::from_secs(1);
/// What a path that was left cost while it was in use is remembered for so long: an unused path
/// looks good as soon as the queue is gone that it was left for. Three times as long, up to the
/// second value, if it was in use for less than [`SOON`] times as long.
const MEMORY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));
const LONGER: u32 = 3;
const SOON: u32 = 4;

/// Which path is in use, and what is remembered of the others.
#[derive(Clone, Debug, Default)]
pub struct Fastest {
    current: Option<InUse>,
    left: Vec<Left>,
}

#[derive(Clone, Copy, Debug)]
struct InUse {
    slot: u8,
    since: Time,
    /// At last.
    cost: Duration,
}

/// A path that was left.
#[derive(Clone, Copy, Debug)]
struct Left {
    slot: u8,
    at: Time,
    /// When it was.
    cost: Duration,
    remembered: Duration,
}

/// When a datagram that is sent now is expected to arrive, later for what may be lost; `None` for a
/// path without a measurement.
pub fn cost(path: &Candidate) -> Option<Duration> {
    let way = path.rtt?.div_f64(2.0).saturating_add(path.queue);
    Some(way.saturating_add(ALL_LOST.mul_f64(path.loss.clamp(0.0, 1.0))))
}

impl Fastest {
    /// The set with the best of the usable paths; all of them while none is measured.
    pub fn choose(&mut self, now: Time, usable: &[Candidate]) -> u32 {
        let measured = || usable.iter().filter_map(|path| Some((path.slot, cost(path)?)));
        // What it costs that is in use; it may not be usable any longer.
        let mut stays = None;
        if let Some(current) = &mut self.current {
            stays = measured().find(|(slot, _)| *slot == current.slot).map(|(_, cost)| cost);
            current.cost = stays.unwrap_or(current.cost);
        }
        let in_use = self.current.map(|current| current.slot);
        let others = measured().filter(|(slot, _)| Some(*slot) != in_use);
        let best = others.map(|(slot, cost)| (cost.max(self.remembered(now, slot)), slot)).min();
        match (stays, best) {
            (Some(cost), Some((best, _))) if best >= cost.mul_f64(HYSTERESIS) => {}
            (Some(_), None) => {}
            (_, Some((cost, slot))) => {
                self.leave(now);
                self.current = Some(InUse { slot, since: now, cost });
            }
            (None, None) => {
                self.leave(now);
                return usable.iter().fold(0, |set, path| set | path_bit(path.slot));
            }
        }
        self.current.map_or(0, |current| path_bit(current.slot))
    }

    /// The path in this slot is another one now.
    pub fn forget(&mut self, slot: u8) {
        self.current = self.current.filter(|current| current.slot != slot);
        self.left.retain(|left| left.slot != slot);
    }

    /// The path that is in use is not, from now on.
    fn leave(&mut self, now: Time) {
        let Some(InUse { slot, since, cost }) = self.current.take() else { return };
        let (least, most) = MEMORY;
        let before = self.left.iter().find(|left| left.slot == slot).map(|left| left.remembered);
        let again = before.filter(|time| now.since(since) < time.saturating_mul(SOON));
        let remembered = again.map_or(least, |time| time.saturating_mul(LONGER).min(most));
        self.left.retain(|left| left.slot != slot);
        self.left.push(Left { slot, at: now, cost, remembered });
    }

    fn remembered(&self, now: Time, slot: u8) -> Duration {
        let left = self.left.iter().find(|left| left.slot == slot);
        let left = left.filter(|left| now.since(left.at) < left.remembered);
        left.map_or(Duration::ZERO, |left| left.cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(slot: u8, rtt_ms: Option<u64>, loss: f64) -> Candidate {
        let rtt = rtt_ms.map(Duration::from_millis);
        Candidate { slot, alive: true, rtt, loss, ..Candidate::default() }
    }

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn an_unmeasured_path_never_beats_a_measured_one() {
        let mut fastest = Fastest::default();
        assert_eq!(fastest.choose(at(1), &[path(0, None, 0.0), path(1, None, 0.0)]), 0b11);
        assert_eq!(fastest.choose(at(2), &[path(0, None, 0.0), path(1, Some(900), 0.0)]), 0b10);
    }

    #[test]
    fn another_path_must_be_a_tenth_better() {
        let mut fastest = Fastest::default();
        assert_eq!(fastest.choose(at(1), &[path(0, Some(100), 0.0), path(1, Some(120), 0.0)]), 1);
        assert_eq!(fastest.choose(at(9), &[path(0, Some(100), 0.0), path(1, Some(91), 0.0)]), 1);
        assert_eq!(fastest.choose(at(9), &[path(0, Some(100), 0.0), path(1, Some(89), 0.0)]), 2);
    }

    #[test]
    fn loss_weighs_as_delay_does() {
        let mut fastest = Fastest::default();
        let lossy = [path(0, Some(20), 0.1), path(1, Some(200), 0.0)];
        assert_eq!(fastest.choose(at(1), &lossy), 0b10, "10 + 100 ms against 100");
        let queue = Duration::from_millis(100);
        let queued = Candidate { queue, ..path(0, Some(20), 0.0) };
        assert_eq!(Fastest::default().choose(at(1), &[queued, path(1, Some(200), 0.0)]), 0b10);
    }

    #[test]
    fn a_path_that_looks_good_only_while_it_is_not_used_is_tried_ever_more_rarely() {
        let mut fastest = Fastest::default();
        let (mut used, mut tries) = ([0; 2], 0);
        let mut last = 2;
        // Five minutes. Used, path 0 gets slower by 20 ms in each tenth of a second.
        let mut queue = 0;
        for tenth in 0..3_000u64 {
            let now = Time::from_micros(1_000_000 + tenth * 100_000);
            let chosen =
                fastest.choose(now, &[path(0, Some(20 + queue), 0.0), path(1, Some(50), 0.0)]);
            queue = if chosen == 1 { queue + 20 } else { 0 };
            used[usize::from(chosen != 1)] += 1;
            tries += u32::from(chosen == 1 && last != 1);
            last = chosen;
        }
        assert!(tries <= 10, "{tries} times");
        assert!(used[0] * 100 <= used[1] * 2, "{used:?}");

        // Where the other one is worse than what is remembered, there is no reason to wait.
        let now = Time::from_micros(301_000_000);
        assert_eq!(fastest.choose(now, &[path(0, Some(20), 0.0), path(1, Some(300), 0.0)]), 1);
    }

    #[test]
    fn a_path_that_stops_being_the_best_right_after_it_was_chosen_is_left_at_once() {
        let mut fastest = Fastest::default();
        let costs = [(20, 60, 1), (60, 20, 2), (60, 20, 2), (60, 20, 2), (20, 60, 1), (200, 60, 2)];
        for (second, (a, b, expected)) in (0..).zip(costs) {
            let chosen =
                fastest.choose(at(second), &[path(0, Some(a), 0.0), path(1, Some(b), 0.0)]);
            assert_eq!(chosen, expected, "second {second}");
        }
    }

    #[test]
    fn a_path_that_is_gone_is_left_at_once_and_one_that_is_better_now_and_then_is_not_chased() {
        let mut fastest = Fastest::default();
        let mut changes = 0;
        let mut last = 0;
        for tenth in 0..600u64 {
            let (a, b) = if tenth / 10 % 2 == 0 { (20, 40) } else { (40, 20) };
            let now = Time::from_micros(1_000_000 + tenth * 100_000);
            let chosen = fastest.choose(now, &[path(0, Some(a), 0.0), path(1, Some(b), 0.0)]);
            changes += u32::from(chosen != last);
            last = chosen;
        }
        assert!(changes < 10, "{changes} in a minute");

        let left = if last == 1 { path(1, Some(500), 0.0) } else { path(0, Some(500), 0.0) };
        assert_eq!(fastest.choose(at(62), &[left]), path_bit(left.slot));
    }
}
