// SPDX-License-Identifier: BSD-2-Clause
//! Lines for the terminal: counters, and warnings that do not repeat without end.

use std::fmt;
use std::time::Duration;

use mptunnel_core::proto::time::Time;

use super::lane::Tally;

/// Both directions of a listening port, as one line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tallies {
    /// Towards the destination.
    pub up: Tally,
    /// Back to the peers.
    pub down: Tally,
}

impl fmt::Display for Tallies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "up {} down {}", self.up, self.down)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in={} out={} bytes_out={}", self.link.sent, self.out, self.bytes_out)?;
        let rest = [
            ("lost", self.link.lost_random),
            ("burst", self.link.lost_burst),
            ("dark", self.link.lost_down),
            ("overflow", self.link.overflowed),
            ("too_large", self.link.too_large),
            ("duplicated", self.link.duplicated),
            ("corrupted", self.link.corrupted),
            ("reordered", self.link.reordered),
            ("refused", self.refused),
            ("blocked", self.blocked),
            ("failed", self.failed),
        ];
        for (name, count) in rest.into_iter().filter(|(_, count)| *count > 0) {
            write!(f, " {name}={count}")?;
        }
        Ok(())
    }
}

/// Lets a repeating warning through once in a minute.
#[derive(Debug, Default)]
pub struct Throttle {
    quiet_until: Time,
    suppressed: u64,
}

impl Throttle {
    /// The number of warnings suppressed since the last one, if this one may be printed.
    pub fn pass(&mut self, now: Time) -> Option<u64> {
        if now < self.quiet_until {
            self.suppressed += 1;
            return None;
        }
        self.quiet_until = now + MINUTE;
        Some(std::mem::take(&mut self.suppressed))
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_what_was_not_sent_and_leaves_zeros_out() {
        let mut tallies = Tallies::default();
        tallies.up.link.sent = 10;
        tallies.up.link.lost_random = 3;
        tallies.up.out = 7;
        tallies.up.bytes_out = 700;
        tallies.down.failed = 2;

        assert_eq!(
            tallies.to_string(),
            "up in=10 out=7 bytes_out=700 lost=3 down in=0 out=0 bytes_out=0 failed=2"
        );
    }

    #[test]
    fn a_repeating_warning_passes_once_a_minute_with_the_number_suppressed() {
        let at = |s| Time::default() + Duration::from_secs(s);
        let mut throttle = Throttle::default();

        let passed: Vec<_> = [0, 1, 59, 60, 61].map(|s| throttle.pass(at(s))).into();

        assert_eq!(passed, [Some(0), None, None, Some(2), None]);
    }
}
