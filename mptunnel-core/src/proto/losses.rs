// SPDX-License-Identifier: BSD-2-Clause
//! What was lost of what a path carried: in the last second, in the last ten, and ever.
//!
//! Whoever looks finds the same, however often it or anybody else looks: what is told of losses is
//! put into a ring of cells by the clock of the protocol, when it is told. Reading changes nothing.
//!
//! ```text
//!   told with a PING or a PONG
//!             │                              now
//!             ▼                               ▼
//!   ┌────┬────┬────┬────┬────┐ 5 × ¼ s: the last second and what there is of the next quarter
//!   └────┴────┴────┴────┴────┘
//!   ┌──────┬──────┬ … ┬──────┐ 11 × 1 s: the last ten seconds, likewise
//!   └──────┴──────┴ … ┴──────┘
//! ```

use super::time::Time;

/// Microseconds of a cell of the short ring, and of the long one.
const SHORT_CELL_US: u64 = 250_000;
const LONG_CELL_US: u64 = 1_000_000;
/// One more than the time to look back on takes: the newest cell is not full yet.
const SHORT_CELLS: usize = 5;
const LONG_CELLS: usize = 11;

/// Packets of which it is known what became of them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Lost {
    /// Packets sent of which the receiving end has told how many arrived: copies and control
    /// included.
    pub sent: u64,
    /// Of these, packets that did not arrive.
    pub lost: u64,
}

impl Lost {
    pub(crate) const fn of((sent, lost): (u64, u64)) -> Lost {
        Lost { sent, lost }
    }

    /// The fraction that was lost, 0 to 1; `None` if nothing was told of.
    pub fn fraction(&self) -> Option<f64> {
        (self.sent > 0)
            .then(|| super::num::approximate(self.lost) / super::num::approximate(self.sent))
    }
}

/// What was lost in one direction of a path, as the ends tell each other with their probes (every
/// 250 ms while data flows). An outage is told of when it is over.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Losses {
    /// Told of within the last 1.00 to 1.25 s. Nothing on a path that carries nothing but probes.
    pub last_1s: Lost,
    /// Told of within the last 10 to 11 s, likewise.
    pub last_10s: Lost,
    /// Since there has been this path. Monotonic.
    pub total: Lost,
}

/// One of the two directions of a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// What this end sends.
    Out,
    /// What it receives.
    In,
}

/// The last seconds of a path, in both directions.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    short: Ring<SHORT_CELLS, SHORT_CELL_US>,
    long: Ring<LONG_CELLS, LONG_CELL_US>,
}

impl Windows {
    /// At `now` it was told of `sent` packets that `lost` of them are lost.
    pub fn add(&mut self, now: Time, direction: Direction, sent: u64, lost: u64) {
        self.short.add(now, direction, sent, lost);
        self.long.add(now, direction, sent, lost);
    }

    /// What was told in the last second, and in the last ten.
    pub fn lately(&self, now: Time, direction: Direction) -> [Lost; 2] {
        [self.short.sum(now, direction), self.long.sum(now, direction)]
    }
}

/// `N` cells of `US` microseconds each, the one of a time at its number modulo `N`.
#[derive(Clone, Debug)]
struct Ring<const N: usize, const US: u64> {
    cells: [Cell; N],
    /// The number of the newest cell; those of older ones, and of none that is newer, are in the
    /// ring.
    newest: u64,
}

/// Counts of both directions. A quarter of a second has less than 2^32 packets.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    sent: [u32; 2],
    lost: [u32; 2],
}

impl<const N: usize, const US: u64> Default for Ring<N, US> {
    fn default() -> Self {
        Ring { cells: [Cell::default(); N], newest: 0 }
    }
}

impl<const N: usize, const US: u64> Ring<N, US> {
    fn number(now: Time) -> u64 {
        now.as_micros().checked_div(US).unwrap_or(0)
    }

    fn place(number: u64) -> usize {
        let cells = super::num::widen(N);
        usize::try_from(number.checked_rem(cells).unwrap_or(0)).unwrap_or(0)
    }

    fn add(&mut self, now: Time, direction: Direction, sent: u64, lost: u64) {
        let number = Self::number(now);
        let passed = usize::try_from(number.saturating_sub(self.newest)).unwrap_or(N);
        for back in (0u64..).take(passed.min(N)) {
            if let Some(cell) = self.cells.get_mut(Self::place(number.saturating_sub(back))) {
                *cell = Cell::default();
            }
        }
        self.newest = self.newest.max(number);
        let of = usize::from(direction == Direction::In);
        if let Some(cell) = self.cells.get_mut(Self::place(number)) {
            for (counts, more) in [(&mut cell.sent, sent), (&mut cell.lost, lost)] {
                if let Some(count) = counts.get_mut(of) {
                    *count = count.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
                }
            }
        }
    }

    fn sum(&self, now: Time, direction: Direction) -> Lost {
        let of = usize::from(direction == Direction::In);
        let stale = Self::number(now).saturating_sub(self.newest);
        let live = N.saturating_sub(usize::try_from(stale).unwrap_or(N));
        let mut sum = Lost::default();
        for back in (0u64..).take(live) {
            let Some(number) = self.newest.checked_sub(back) else { break };
            let Some(cell) = self.cells.get(Self::place(number)) else { break };
            let count = |counts: [u32; 2]| u64::from(counts.get(of).copied().unwrap_or(0));
            sum.sent = sum.sent.saturating_add(count(cell.sent));
            sum.lost = sum.lost.saturating_add(count(cell.lost));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1_000)
    }

    /// Tells of 10 packets every 250 ms from `from` to `until`, in milliseconds, `lost` of them
    /// lost.
    fn tell(windows: &mut Windows, from: u64, until: u64, lost: u64) {
        for ms in (from..until).step_by(250) {
            windows.add(at(ms), Direction::Out, 10, lost);
        }
    }

    #[test]
    fn the_last_second_and_the_last_ten_are_summed_up() {
        let mut windows = Windows::default();
        tell(&mut windows, 0, 20_000, 0);
        tell(&mut windows, 20_000, 22_000, 5);

        let [one, ten] = windows.lately(at(21_999), Direction::Out);
        assert_eq!((one.sent, one.lost), (50, 25));
        assert_eq!((ten.sent, ten.lost), (10 * 44, 8 * 5));
        assert_eq!(one.fraction(), Some(0.5));
        let nothing = [Lost::default(); 2];
        assert_eq!(windows.lately(at(21_999), Direction::In), nothing);
        assert_eq!(nothing[0].fraction(), None);
    }

    #[test]
    fn what_was_told_is_forgotten_in_time_though_nothing_more_is() {
        let mut windows = Windows::default();
        windows.add(at(5_000), Direction::Out, 8, 2);
        windows.add(at(5_000), Direction::In, 7, 1);

        let mut last = [(0, 0); 2];
        for ms in (5_000..20_000).step_by(10) {
            let [one, ten] = windows.lately(at(ms), Direction::Out);
            for (last, lost) in last.iter_mut().zip([one, ten]) {
                assert!(lost.sent == 8 || lost.sent == 0);
                if lost.sent == 8 {
                    *last = (ms, lost.lost);
                }
            }
        }
        // It stood at the very beginning of its cells.
        assert_eq!(last, [(6_240, 2), (15_990, 2)]);
        let [one, ten] = windows.lately(at(6_000), Direction::In);
        assert_eq!((one, ten), (Lost::of((7, 1)), Lost::of((7, 1))));
    }

    #[test]
    fn a_long_pause_leaves_nothing_of_what_was_before_it() {
        for pause in [1_500, 11_000, 12_000, 2_750_000, 1 << 40] {
            let mut windows = Windows::default();
            tell(&mut windows, 0, 12_000, 5);
            let then = 12_000 + pause;
            windows.add(at(then), Direction::Out, 3, 0);

            let [one, ten] = windows.lately(at(then), Direction::Out);
            assert_eq!((one.sent, one.lost), (3, 0), "after {pause}");
            assert_eq!(ten.lost == 0, pause >= 11_000, "{ten:?} after {pause}");
        }
    }
}
