// SPDX-License-Identifier: BSD-2-Clause
//! The numbers that this end gives to its datagrams.
//!
//! A classic end ignores numbers that it has seen, for ever, but takes any leap ahead. So a counter
//! goes on above the last one used, also after a restart: it is kept in a file, in blocks, of which
//! only the end is written down before the first number of it is used.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The highest number that is ever used. One more would be the last that a classic end can count,
/// and behind it everything is dropped.
pub const LAST: u32 = i32::MAX.unsigned_abs() - 1;

/// The number from which on the end is in sight: 134 million left, 37 hours at 1000 datagrams a
/// second.
pub const NEAR_THE_END: u32 = LAST - (1 << 27);

/// Numbers that are reserved at a time: what a crash costs at most, 1 in 32,768 of all.
pub const BLOCK: u32 = 1 << 16;

/// Why there is no number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The block is used up: the next one has to be reserved first.
    Unreserved,
    /// All numbers are used up, for good.
    UsedUp,
}

/// A counter for any number of threads.
#[derive(Debug)]
pub struct Counter {
    /// The next number.
    next: AtomicU32,
    /// The highest number that may be used.
    reserved: AtomicU32,
}

impl Counter {
    /// Goes on behind `last`; 0 begins at 1. Nothing is reserved yet.
    pub fn after(last: u32) -> Self {
        let last = last.min(LAST);
        Counter { next: AtomicU32::new(last.saturating_add(1)), reserved: AtomicU32::new(last) }
    }

    /// The next number.
    ///
    /// # Errors
    /// See [`Refusal`]. Asking again at the end moves nothing.
    pub fn take(&self) -> Result<u32, Refusal> {
        self.check(self.next.load(Relaxed))?;
        // Between the two lines others may have taken what was left: then a number stays unused.
        self.check(self.next.fetch_add(1, Relaxed))
    }

    fn check(&self, id: u32) -> Result<u32, Refusal> {
        if id > LAST {
            Err(Refusal::UsedUp)
        } else if id > self.reserved.load(Relaxed) {
            Err(Refusal::Unreserved)
        } else {
            Ok(id)
        }
    }

    /// The number up to which to reserve now, if half of the block or more is used.
    pub fn wants(&self) -> Option<u32> {
        let (used, reserved) = (self.used(), self.reserved.load(Relaxed));
        let short = reserved.saturating_sub(used) < BLOCK / 2 && reserved < LAST;
        short.then(|| used.max(reserved).saturating_add(BLOCK).min(LAST))
    }

    /// Lets the numbers up to `last` be used.
    pub fn reserve(&self, last: u32) {
        self.reserved.fetch_max(last.min(LAST), Relaxed);
    }

    /// The highest number that was used; 0 if none was.
    pub fn used(&self) -> u32 {
        self.next.load(Relaxed).saturating_sub(1).min(LAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_at_one_and_are_used_once_reserved() {
        let counter = Counter::after(0);
        assert_eq!(counter.take(), Err(Refusal::Unreserved));
        assert_eq!(counter.wants(), Some(BLOCK));

        counter.reserve(2);
        assert_eq!((counter.take(), counter.take()), (Ok(1), Ok(2)));
        assert_eq!(counter.take(), Err(Refusal::Unreserved));
        assert_eq!((counter.used(), counter.wants()), (2, Some(2 + BLOCK)));
    }

    #[test]
    fn the_next_block_is_wanted_at_half_of_the_last() {
        let counter = Counter::after(7);
        counter.reserve(7 + BLOCK);
        for _ in 0..BLOCK / 2 {
            assert_eq!(counter.wants(), None);
            counter.take().unwrap();
        }
        counter.take().unwrap();
        assert_eq!(counter.wants(), Some(7 + 2 * BLOCK));
    }

    #[test]
    fn at_the_end_everything_is_refused_and_nothing_moves() {
        let counter = Counter::after(LAST - 2);
        assert_eq!(counter.wants(), Some(LAST));
        counter.reserve(u32::MAX);

        assert_eq!((counter.take(), counter.take()), (Ok(LAST - 1), Ok(LAST)));
        for _ in 0..1_000 {
            assert_eq!(counter.take(), Err(Refusal::UsedUp));
        }
        assert_eq!((counter.used(), counter.wants()), (LAST, None));
        assert_eq!(Counter::after(u32::MAX).take(), Err(Refusal::UsedUp));
    }
}
