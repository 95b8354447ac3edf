// SPDX-License-Identifier: BSD-2-Clause
//! The clock that the protocol is driven with.

use crate::proto::time::Time;

/// Reads the monotonic clock that also counts suspend (`CLOCK_BOOTTIME`), in microseconds since
/// the system was started.
///
/// The kernel answers without a system call (vDSO) on the common architectures.
pub(crate) fn now() -> Time {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };

    // SAFETY: clock_gettime(2) writes one `timespec` to the pointer, which is a live local.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    assert_eq!(status, 0, "CLOCK_BOOTTIME exists since Linux 2.6.39");

    // Both fields are non-negative: the clock starts at zero with the system.
    let micros = now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000;
    Time::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn time_passes_and_never_decreases() {
        let start = now();
        let mut last = start;

        while last.since(start) < Duration::from_millis(2) {
            let next = now();
            assert!(next >= last, "{next:?} is before {last:?}");
            last = next;
        }
    }

    #[test]
    fn the_unit_is_a_microsecond() {
        let (before, wall) = (now(), std::time::Instant::now());

        std::thread::sleep(Duration::from_millis(20));

        let (ours, theirs) = (now().since(before), wall.elapsed());
        assert!(ours >= Duration::from_millis(20), "{ours:?}");
        assert!(ours.abs_diff(theirs) < Duration::from_millis(10), "{ours:?} against {theirs:?}");
    }
}
