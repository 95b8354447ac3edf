// SPDX-License-Identifier: BSD-2-Clause
//! Limits on how often something may happen.

use super::time::Time;
use std::time::Duration;

/// CLOSE of flows that one end of a session sends.
pub const CLOSES_PER_S: u32 = 20;
/// CLOSE of flows of one session that the other end acts on. More, as the seconds of both clocks
/// begin at different times, and what is late comes together.
pub const CLOSES_HEARD_PER_S: u32 = 64;

/// So many in each second of the clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerSecond {
    second: u64,
    taken: u32,
}

impl PerSecond {
    /// Takes one, if fewer than `limit` were taken in this second.
    pub fn take(&mut self, now: Time, limit: u32) -> bool {
        self.roll(now);
        let free = self.taken < limit;
        if free {
            self.taken = self.taken.saturating_add(1);
        }
        free
    }

    /// Counts one and tells how many there were in this second, this one included.
    pub fn count(&mut self, now: Time) -> u32 {
        self.roll(now);
        self.taken = self.taken.saturating_add(1);
        self.taken
    }

    fn roll(&mut self, now: Time) {
        let second = now.as_micros() / 1_000_000;
        if self.second != second {
            (self.second, self.taken) = (second, 0);
        }
    }
}

/// A bucket that fills at a rate up to a depth.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    /// Thousandths of a token.
    level: u64,
    at: Time,
}

impl TokenBucket {
    /// Full.
    pub fn new(now: Time, depth: u32) -> Self {
        TokenBucket { level: u64::from(depth).saturating_mul(1000), at: now }
    }

    /// Takes one token, if there is one after filling up at `rate` per second to `depth`.
    pub fn take(&mut self, now: Time, rate: u32, depth: u32) -> bool {
        let elapsed = now.since(self.at);
        let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        if ms > 0 {
            let filled = ms.saturating_mul(u64::from(rate));
            self.level =
                self.level.saturating_add(filled).min(u64::from(depth).saturating_mul(1000));
            self.at = self.at + Duration::from_millis(ms);
        }
        let left = self.level.checked_sub(1000);
        self.level = left.unwrap_or(self.level);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_limit_and_the_next_one_begins_anew() {
        let mut limit = PerSecond::default();
        let granted = (0..10).filter(|_| limit.take(Time::from_micros(5), 3)).count();
        assert_eq!(granted, 3);
        assert!(limit.take(Time::from_micros(1_000_000), 3));
    }

    #[test]
    fn a_bucket_gives_its_depth_at_once_and_its_rate_afterwards() {
        let mut bucket = TokenBucket::new(Time::default(), 5);
        let at_once = (0..10).filter(|_| bucket.take(Time::default(), 100, 5)).count();
        assert_eq!(at_once, 5);

        let later =
            (1..=1_000u64).filter(|ms| bucket.take(Time::from_micros(ms * 1_000), 100, 5)).count();
        assert_eq!(later, 100);
    }
}
