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
/// Between two changes for the sake of a better path, at first; doubled while changes follow each
/// other closely, so that two paths that look better unused do not take turns.
const DWELL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Which path is in use, and since when.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fastest {
    current: Option<u8>,
    changed_at: Time,
    dwell: Duration,
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
        let measured = usable.iter().filter_map(|path| Some((cost(path)?, path.slot)));
        let Some((best_cost, best)) = measured.min() else {
            self.current = None;
            return usable.iter().fold(0, |set, path| set | path_bit(path.slot));
        };
        let current = usable.iter().find(|path| Some(path.slot) == self.current);
        let stays = current.and_then(cost).is_some_and(|cost| {
            let better = best_cost < cost.mul_f64(HYSTERESIS);
            !better || now.since(self.changed_at) < self.dwell
        });
        if let Some(current) = current.filter(|_| stays) {
            return path_bit(current.slot);
        }
        if self.current != Some(best) {
            let (least, most) = DWELL;
            let often = now.since(self.changed_at) < self.dwell.saturating_mul(4);
            let dwell = if often { self.dwell.saturating_mul(2) } else { least };
            (self.current, self.changed_at, self.dwell) = (Some(best), now, dwell.min(most));
        }
        path_bit(best)
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
