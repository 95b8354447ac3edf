// SPDX-License-Identifier: BSD-2-Clause
//! One direction as its receiver sees it: each datagram once, also from a peer that was restarted.
//!
//! A classic end counts from 1 again after a restart, and says nothing about it. So numbers that are
//! not new are looked at: four of them from one source, each above the one before, are a peer that
//! counts, not copies that are late, provided that nobody counts *ahead* meanwhile. A number far
//! ahead of all others, forged or not, is recovered from in the same way: what the peer really sends
//! then lies below the window.
//!
//! A mistake costs datagrams that are delivered twice, and no more.

use super::codec::{self, Kind};
use super::timers::Timers;
use super::window::{Place, Window};
use crate::proto::drop::DropReason;
use crate::proto::time::Time;
use std::collections::VecDeque;

/// Rising numbers that make a run.
const RUN: u32 = 4;

/// How many numbers that filled gaps are remembered: two seconds of 8,000 a second, 64 KiB.
const FILLED: usize = 1 << 14;

/// Numbers of one source that were not ahead, one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    last: u32,
    count: u32,
    /// Whether one of them lay in the window.
    inside: bool,
}

/// What a datagram was.
#[derive(Debug, Eq, PartialEq)]
pub enum Arrival<'d> {
    /// New: to be delivered.
    Data(&'d [u8]),
    /// New, and the first one of a peer that counts anew.
    Restarted(&'d [u8]),
    /// A sign of life.
    Control,
    /// Sound, and not to be delivered: it came before, or is too old to know.
    Copy(DropReason),
    /// Not sound: whoever sent it is not to be believed.
    Refused(DropReason),
}

/// The receiving side of one direction.
#[derive(Debug)]
pub struct Receiver {
    window: Window,
    timers: Timers,
    /// When a number was ahead of all others last.
    ahead: Time,
    /// The numbers that filled gaps since then, the latest [`FILLED`] of them: if it turns out that
    /// the peer counts anew, they were its new ones, and copies of them may still come.
    filled: VecDeque<u32>,
}

impl Receiver {
    /// A receiver whose window remembers `window` numbers or more.
    pub fn new(window: u32, timers: Timers) -> Self {
        let window = Window::new(window);
        Receiver { window, timers, ahead: Time::default(), filled: VecDeque::new() }
    }

    /// How many numbers it remembers.
    pub fn window(&self) -> u32 {
        self.window.size()
    }

    /// Takes a datagram. `run` belongs to its source, and to this receiver.
    pub fn receive<'d>(&mut self, now: Time, run: &mut Run, datagram: &'d mut [u8]) -> Arrival<'d> {
        let opened = match codec::open(datagram) {
            Ok(opened) => opened,
            Err(reason) => return Arrival::Refused(reason),
        };
        if opened.kind == Kind::Control {
            return Arrival::Control;
        }
        let place = self.window.mark(opened.id);
        if place == Place::Ahead {
            self.ahead = now;
            self.filled.clear();
            *run = Run::default();
            return Arrival::Data(opened.payload);
        }
        if place == Place::Gap {
            if self.filled.len() == FILLED {
                self.filled.pop_front();
            }
            self.filled.push_back(opened.id);
        }
        if self.is_counting(now, run, opened.id, place) && !self.is_copy(opened.id, place) {
            *run = Run::default();
            self.window.restart_at(opened.id);
            for id in self.filled.drain(..) {
                self.window.mark(id);
            }
            self.ahead = now;
            return Arrival::Restarted(opened.payload);
        }
        match place {
            Place::Ahead | Place::Gap => Arrival::Data(opened.payload),
            Place::Seen => Arrival::Copy(DropReason::Duplicate),
            Place::Below => Arrival::Copy(DropReason::TooOld),
        }
    }

    /// Whether `id` was already taken from a peer that seems to count anew.
    fn is_copy(&self, id: u32, place: Place) -> bool {
        place == Place::Seen && self.filled.contains(&id)
    }

    /// Whether `id`, which is not ahead, is the end of a run that shows a peer that counts anew.
    ///
    /// One that fills a gap is delivered and is part of the run all the same: a peer that counts
    /// through numbers of which some never came would else be deaf to us between them for long.
    fn is_counting(&self, now: Time, run: &mut Run, id: u32, place: Place) -> bool {
        if id == run.last {
            return false;
        }
        if id < run.last {
            *run = Run::default();
        }
        run.last = id;
        run.count = run.count.saturating_add(1);
        run.inside |= place != Place::Below;
        run.count >= RUN && now.since(self.ahead) >= self.timers.quiet(run.inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::legacy::seal;
    use std::time::Duration;

    fn receiver() -> Receiver {
        Receiver::new(1 << 16, Timers::new(Duration::from_secs(60)))
    }

    fn at(ms: u64) -> Time {
        Time::from_micros(1_000_000_000 + ms * 1_000)
    }

    /// Whether each number was delivered.
    fn feed(
        receiver: &mut Receiver,
        run: &mut Run,
        ms: u64,
        ids: impl IntoIterator<Item = u32>,
    ) -> Vec<bool> {
        let mut delivered = Vec::new();
        for id in ids {
            let mut packet = [0; 17];
            seal(&mut packet, Kind::Data, id, 0);
            let arrival = receiver.receive(at(ms), run, &mut packet);
            delivered.push(matches!(arrival, Arrival::Data(_) | Arrival::Restarted(_)));
        }
        delivered
    }

    #[test]
    fn a_peer_that_starts_again_far_behind_is_followed_a_second_later() {
        let (mut receiver, mut run) = (receiver(), Run::default());
        feed(&mut receiver, &mut run, 0, [100_000]);

        assert_eq!(feed(&mut receiver, &mut run, 999, 1..=4), [false; 4]);
        assert_eq!(feed(&mut receiver, &mut run, 1_000, 5..=7), [true; 3]);
        assert_eq!(feed(&mut receiver, &mut run, 1_001, 1..=4), [true; 4], "late copies");
    }

    #[test]
    fn a_peer_that_starts_again_nearby_is_followed_after_five_seconds() {
        let (mut receiver, mut run) = (receiver(), Run::default());
        feed(&mut receiver, &mut run, 0, 1..=5_000);

        let mut fresh = Run::default();
        assert_eq!(feed(&mut receiver, &mut fresh, 4_999, 1..=100), [false; 100]);
        assert_eq!(feed(&mut receiver, &mut fresh, 5_000, 101..=110), [true; 10]);
    }

    #[test]
    fn three_numbers_are_not_enough_and_repeats_do_not_count() {
        let (mut receiver, mut run) = (receiver(), Run::default());
        feed(&mut receiver, &mut run, 0, [100_000]);

        let ids = [1, 1, 2, 2, 2, 3, 3, 3, 3];
        assert_eq!(feed(&mut receiver, &mut run, 60_000, ids), [false; 9]);
        // A step back begins a new run.
        assert_eq!(feed(&mut receiver, &mut run, 60_000, [2, 3, 4]), [false; 3]);
        assert_eq!(feed(&mut receiver, &mut run, 60_000, [5, 6]), [true; 2]);
    }

    #[test]
    fn gaps_do_not_hide_a_peer_that_counts_through_them() {
        let (mut receiver, mut run) = (receiver(), Run::default());
        // One in three never came.
        feed(&mut receiver, &mut run, 0, (1..=5_000).filter(|id| id % 3 != 0));

        let mut fresh = Run::default();
        let delivered: Vec<bool> = (1..=400)
            .flat_map(|id| feed(&mut receiver, &mut fresh, u64::from(id) * 20, [id]))
            .collect();

        // 250 numbers are five seconds.
        assert!(delivered[250..].iter().all(|delivered| *delivered));
        assert!(!delivered[..249].iter().all(|delivered| *delivered));
    }

    #[test]
    fn what_filled_a_gap_before_the_peer_was_followed_comes_once_also_after() {
        let (mut receiver, mut run) = (receiver(), Run::default());
        // This end was restarted when the peer was at 100; then the peer was.
        feed(&mut receiver, &mut run, 0, 101..=150);

        let (mut fast, mut slow) = (Run::default(), Run::default());
        assert_eq!(feed(&mut receiver, &mut fast, 1_000, 1..=50), [true; 50]);
        // The copy that comes when it is clear that nobody counts ahead any more is still a copy.
        assert_eq!(feed(&mut receiver, &mut slow, 5_000, 47..=50), [false; 4]);
        assert_eq!(feed(&mut receiver, &mut fast, 5_000, 51..=60), [true; 10]);
        let mut slowest = Run::default();
        assert_eq!(feed(&mut receiver, &mut slowest, 5_001, 1..=60), [false; 60]);
        assert_eq!(feed(&mut receiver, &mut fast, 5_002, 61..=200), [true; 140]);
    }

    #[test]
    fn late_copies_restart_nothing_while_others_count_ahead() {
        let (mut receiver, mut fast, mut slow) = (receiver(), Run::default(), Run::default());
        // 100,000 datagrams a second, copies three seconds late: far below the window.
        for id in 1..=500_000u32 {
            let ms = u64::from(id) / 100;
            assert_eq!(feed(&mut receiver, &mut fast, ms, [id]), [true]);
            if let Some(late) = id.checked_sub(300_000).filter(|late| *late > 0) {
                assert_eq!(feed(&mut receiver, &mut slow, ms, [late]), [false], "{late}");
            }
        }
    }

    #[test]
    fn a_number_far_ahead_is_recovered_from() {
        let (mut receiver, mut run, mut stranger) = (receiver(), Run::default(), Run::default());
        feed(&mut receiver, &mut run, 0, 1..=50);
        let poison = i32::MAX.unsigned_abs();
        assert_eq!(feed(&mut receiver, &mut stranger, 1, [poison]), [true]);

        assert_eq!(feed(&mut receiver, &mut run, 1_000, 51..=60), [false; 10]);
        assert_eq!(feed(&mut receiver, &mut run, 1_001, 61..=70), [true; 10]);
    }
}
