// SPDX-License-Identifier: BSD-2-Clause
//! The only notion of time the protocol has: a number that somebody else counts.

use std::time::Duration;

/// A point on the injected monotonic clock, in microseconds since an arbitrary origin.
///
/// The clock counts time spent in suspend (`CLOCK_BOOTTIME` on Linux), because keys must be dead
/// after a night's sleep. Arithmetic saturates: a wrong clock may delay a timer, never panic.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time(u64);

impl Time {
    /// The end of time: a timer set to it never fires.
    pub const NEVER: Time = Time(u64::MAX);

    /// The point `us` microseconds after the origin.
    pub const fn from_micros(us: u64) -> Self {
        Time(us)
    }

    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The low 32 bits of [`as_micros`](Self::as_micros): enough to tell times apart that are less
    /// than half an hour away from each other.
    pub const fn low_micros(self) -> u32 {
        let [a, b, c, d, ..] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// The time from `earlier` to `self`, or zero if `earlier` is later.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// `duration` before `self`, or the origin.
    pub fn before(self, duration: Duration) -> Time {
        Time(self.0.saturating_sub(micros(duration)))
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(micros(duration)))
    }
}

/// `duration` in whole microseconds; more than 584,000 years count as that.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
