// SPDX-License-Identifier: BSD-2-Clause
//! Order, for who asks for it: datagrams of a flow are delivered as they were sent, if those that
//! are missing come within a bound of time and memory.
//!
//! ```text
//!   numbers   17   19   20   23          of the session: CTRL, pieces and other flows take some too
//!   marks      4    5    6    8          of the flow: 7 is missing, it has a number below 23
//!             ──────────────┐  └─ waits until the one marked 7 is there, or its time is over
//!             delivered     └─ last
//! ```
//!
//! Packet numbers give the order, but do not tell whether anything is missing: all flows share
//! them. So the sender also counts the datagrams of each flow, and that *mark* stands in the head
//! of DATA. It is short, as it only has to tell neighbours apart.
//!
//! Nothing is lost here. What comes after its turn, because its time was over, is delivered at
//! once; so is everything for which there is no room.

use super::session::PacketNumbers;
use super::time::Time;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Marks go from 1 to this and begin again; 0 is none. They take 14 bits on the wire.
pub const MARKS: u16 = (1 << 14) - 1;

/// Flows whose place is remembered, of all peers together.
const MAX_LINES: usize = 4_096;
/// A flow that is silent for so long may be forgotten; its next datagram is then the first.
const LINE_LIFE: Duration = Duration::from_secs(10);
/// Between two searches for flows to forget.
const SWEEP: Duration = Duration::from_secs(1);
/// Bytes that wait, of all flows together: 50 ms at 1.3 Gbit/s.
const MAX_BYTES: usize = 8 << 20;
/// Datagrams that wait, of all flows together.
const MAX_HELD: usize = 16_384;
/// Buffers kept for those that will have to wait.
const MAX_SPARE: usize = 1_024;

/// The mark after `mark`; 0 comes before the first.
fn following(mark: u16) -> u16 {
    if mark >= MARKS { 1 } else { mark.saturating_add(1) }
}

/// How many marks lie between two, of which the second is the later.
fn between(before: u16, mark: u16) -> u16 {
    let span = mark.saturating_add(MARKS).saturating_sub(before).saturating_sub(1);
    span.checked_rem(MARKS).unwrap_or(0)
}

/// Counts the datagrams of each flow of one session, for a peer that puts them in order.
#[derive(Default)]
pub struct Marker {
    last: Mutex<HashMap<u16, u16>>,
}

impl Marker {
    /// Takes a number of the session and a mark of the flow, both at once: of two datagrams, that
    /// with the later number has the later mark, whichever threads sent them.
    // Out of the way of the many that need no marks.
    #[cold]
    pub fn take(&self, numbers: &PacketNumbers, flow: u16) -> Option<(u64, u16)> {
        let mut last = self.last.lock();
        let number = numbers.take()?;
        let mark = last.entry(flow).or_insert(0);
        *mark = following(*mark);
        Some((number, *mark))
    }
}

/// Which keys a datagram came under: later ones are greater. When they were made, and their index.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Era(pub Time, pub u32);

/// The place of a datagram among all others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// Who sent it; 0 at a client.
    pub peer: u64,
    /// Which application.
    pub flow: u16,
    /// Under which keys.
    pub era: Era,
    /// Its number, or that of the whole if it came in pieces.
    pub number: u64,
    /// Its mark; 0 if the sender does not count.
    pub mark: u16,
}

/// What became of datagrams. Monotonic.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OrderCounts {
    /// Waited for an earlier one.
    pub held: u64,
    /// Waited in vain: delivered without all earlier ones, because time or room was over.
    pub given_up: u64,
    /// Came after their turn, and were delivered out of order.
    pub late: u64,
}

/// The [`OrderCounts`] of all threads together.
#[derive(Debug, Default)]
pub struct OrderCounters {
    held: AtomicU64,
    given_up: AtomicU64,
    late: AtomicU64,
}

impl OrderCounters {
    /// Adds what one thread has counted, and begins that count again.
    pub fn add(&self, counts: &mut OrderCounts) {
        let OrderCounts { held, given_up, late } = std::mem::take(counts);
        if held | given_up | late > 0 {
            self.held.fetch_add(held, Relaxed);
            self.given_up.fetch_add(given_up, Relaxed);
            self.late.fetch_add(late, Relaxed);
        }
    }

    /// What was counted so far.
    pub fn get(&self) -> OrderCounts {
        OrderCounts {
            held: self.held.load(Relaxed),
            given_up: self.given_up.load(Relaxed),
            late: self.late.load(Relaxed),
        }
    }
}

/// Puts the datagrams that one thread receives in order. `M` is what is known of each.
pub struct Reorder<M> {
    hold: Duration,
    lines: HashMap<(u64, u16), Line<M>>,
    /// All that wait, in the order in which their time is over; some have been delivered already.
    waiting: VecDeque<Waiting>,
    held: usize,
    bytes: usize,
    spare: Vec<Vec<u8>>,
    swept: Time,
    /// What became of datagrams.
    pub counts: OrderCounts,
}

/// One flow.
struct Line<M> {
    era: Era,
    /// Number and mark of the last one that was delivered in order.
    last: Option<(u64, u16)>,
    used: Time,
    /// Those that wait, by number.
    held: VecDeque<Held<M>>,
}

struct Held<M> {
    number: u64,
    mark: u16,
    meta: M,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Waiting {
    due: Time,
    peer: u64,
    flow: u16,
    era: Era,
    number: u64,
}

impl<M> Line<M> {
    fn new(era: Era, now: Time) -> Self {
        Line { era, last: None, used: now, held: VecDeque::new() }
    }

    /// Whether nothing is missing before this one.
    fn is_next(&self, number: u64, mark: u16) -> bool {
        match self.last {
            // Between neighbouring numbers there is nothing, whatever the marks say.
            Some((last, before)) => between(before, mark) == 0 || last.saturating_add(1) == number,
            None => between(0, mark) == 0,
        }
    }
}

impl<M> Reorder<M> {
    /// Nothing waits for longer than `hold`.
    pub fn new(hold: Duration) -> Self {
        Reorder {
            hold,
            lines: HashMap::new(),
            waiting: VecDeque::new(),
            held: 0,
            bytes: 0,
            spare: Vec::new(),
            swept: Time::default(),
            counts: OrderCounts::default(),
        }
    }

    /// When [`expire`](Self::expire) has to be called; `None` while nothing waits.
    pub fn deadline(&self) -> Option<Time> {
        self.waiting.front().map(|first| first.due)
    }

    /// Datagrams that wait.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// A datagram has arrived: hands out what may be delivered now, in order.
    pub fn take(
        &mut self,
        now: Time,
        place: Place,
        meta: M,
        bytes: &[u8],
        out: &mut impl FnMut(M, &[u8]),
    ) {
        if place.mark == 0 || !self.make_line(now, &place) {
            return out(meta, bytes);
        }
        let Some(line) = self.lines.get_mut(&(place.peer, place.flow)) else {
            return out(meta, bytes);
        };
        line.used = now;
        if place.era > line.era {
            // Numbers have begun again: nothing that is missing is worth waiting for.
            self.release(&place, u64::MAX, out);
            let Some(line) = self.lines.get_mut(&(place.peer, place.flow)) else { return };
            (line.era, line.last) = (place.era, None);
        }
        let Some(line) = self.lines.get_mut(&(place.peer, place.flow)) else { return };
        let passed = line.last.is_some_and(|(last, _)| place.number <= last);
        if place.era < line.era || passed {
            self.counts.late = self.counts.late.saturating_add(1);
            return out(meta, bytes);
        }
        let is_first = line.held.front().is_none_or(|first| place.number < first.number);
        if is_first && line.is_next(place.number, place.mark) {
            line.last = Some((place.number, place.mark));
            out(meta, bytes);
            if !line.held.is_empty() {
                self.release(&place, place.number, out);
            }
            self.forget_delivered();
            return;
        }
        self.hold(now, place, meta, bytes);
        while self.bytes > MAX_BYTES || self.held > MAX_HELD {
            let Some(oldest) = self.waiting.front().copied() else { break };
            self.give_up(&oldest, out);
        }
    }

    /// Hands out those whose time is over, and what they held up.
    pub fn expire(&mut self, now: Time, out: &mut impl FnMut(M, &[u8])) {
        while let Some(oldest) = self.waiting.front().copied().filter(|first| first.due <= now) {
            self.give_up(&oldest, out);
        }
    }

    /// Finds room for a flow that is not known; `false` if there is none.
    fn make_line(&mut self, now: Time, place: &Place) -> bool {
        let key = (place.peer, place.flow);
        if self.lines.contains_key(&key) {
            return true;
        }
        if self.lines.len() >= MAX_LINES {
            // Not for each datagram of a peer that begins flow after flow.
            if now.since(self.swept) >= SWEEP {
                self.swept = now;
                let used = |line: &Line<M>| now.since(line.used) < LINE_LIFE;
                self.lines.retain(|_, line| !line.held.is_empty() || used(line));
            }
            if self.lines.len() >= MAX_LINES {
                return false;
            }
        }
        self.lines.insert(key, Line::new(place.era, now));
        true
    }

    fn hold(&mut self, now: Time, place: Place, meta: M, bytes: &[u8]) {
        let Place { peer, flow, era, number, mark } = place;
        let Some(line) = self.lines.get_mut(&(peer, flow)) else { return };
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.extend_from_slice(bytes);
        let at = line.held.partition_point(|other| other.number < number);
        line.held.insert(at, Held { number, mark, meta, bytes: copy });
        self.held = self.held.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes.len());
        self.counts.held = self.counts.held.saturating_add(1);
        let due = now + self.hold;
        self.waiting.push_back(Waiting { due, peer, flow, era, number });
        // Those that were delivered leave this queue when their time comes; not so if it is long.
        if self.waiting.len() > MAX_HELD.saturating_mul(2) {
            let lines = &self.lines;
            self.waiting.retain(|w| lines.get(&(w.peer, w.flow)).is_some_and(|l| l.holds(w)));
        }
    }

    /// Delivers one that waits, and all that come before it.
    fn give_up(&mut self, oldest: &Waiting, out: &mut impl FnMut(M, &[u8])) {
        self.waiting.pop_front();
        let line = self.lines.get(&(oldest.peer, oldest.flow));
        if line.is_some_and(|line| line.holds(oldest)) {
            self.counts.given_up = self.counts.given_up.saturating_add(1);
            let &Waiting { peer, flow, era, number, .. } = oldest;
            self.release(&Place { peer, flow, era, number, mark: 0 }, number, out);
        }
        self.forget_delivered();
    }

    /// Delivers those up to `through`, and behind them as many as nothing is missing before.
    fn release(&mut self, place: &Place, through: u64, out: &mut impl FnMut(M, &[u8])) {
        let Some(line) = self.lines.get_mut(&(place.peer, place.flow)) else { return };
        while let Some(first) = line.held.front() {
            if first.number > through && !line.is_next(first.number, first.mark) {
                break;
            }
            let Some(Held { number, mark, meta, mut bytes }) = line.held.pop_front() else { break };
            line.last = Some((number, mark));
            out(meta, &bytes);
            self.held = self.held.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(bytes.len());
            if self.spare.len() < MAX_SPARE {
                bytes.clear();
                self.spare.push(bytes);
            }
        }
    }

    /// Nobody is to be woken for what has been delivered.
    fn forget_delivered(&mut self) {
        if self.held == 0 {
            self.waiting.clear();
        }
        while let Some(first) = self.waiting.front() {
            if self.lines.get(&(first.peer, first.flow)).is_some_and(|line| line.holds(first)) {
                break;
            }
            self.waiting.pop_front();
        }
    }
}

impl<M> Line<M> {
    /// Whether this one still waits.
    fn holds(&self, waiting: &Waiting) -> bool {
        self.era == waiting.era
            && self.held.binary_search_by_key(&waiting.number, |held| held.number).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::crypto::Cipher;
    use proptest::prelude::*;

    const HOLD: Duration = Duration::from_millis(50);

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1_000)
    }

    /// Delivers to a list.
    struct Bench {
        order: Reorder<u64>,
        era: Era,
        out: Vec<u64>,
    }

    impl Bench {
        fn new() -> Self {
            Bench { order: Reorder::new(HOLD), era: Era(at(0), 1), out: Vec::new() }
        }

        fn take(&mut self, ms: u64, flow: u16, number: u64, mark: u16) {
            let place = Place { peer: 1, flow, era: self.era, number, mark };
            let out = &mut self.out;
            self.order.take(at(ms), place, number, &number.to_le_bytes(), &mut |meta, bytes| {
                assert_eq!(bytes, meta.to_le_bytes());
                out.push(meta);
            });
        }

        fn expire(&mut self, ms: u64) {
            let out = &mut self.out;
            self.order.expire(at(ms), &mut |meta, _| out.push(meta));
        }

        /// What was delivered since the last call.
        fn delivered(&mut self) -> Vec<u64> {
            std::mem::take(&mut self.out)
        }
    }

    #[test]
    fn what_comes_in_order_never_waits_though_numbers_are_missing_between() {
        let mut bench = Bench::new();
        for (number, mark) in [(3, 1), (4, 2), (9, 3), (300, 4)] {
            bench.take(number, 7, number, mark);
        }

        assert_eq!(bench.delivered(), [3, 4, 9, 300]);
        assert_eq!((bench.order.counts, bench.order.deadline()), (OrderCounts::default(), None));
    }

    #[test]
    fn what_comes_early_waits_for_those_before_it_and_no_longer() {
        let mut bench = Bench::new();
        for (number, mark) in [(1, 1), (5, 4), (4, 3), (6, 5)] {
            bench.take(10, 7, number, mark);
        }
        assert_eq!(bench.delivered(), [1]);
        assert_eq!(bench.order.deadline(), Some(at(60)));

        bench.take(20, 7, 2, 2);

        assert_eq!(bench.delivered(), [2, 4, 5, 6]);
        assert_eq!((bench.order.len(), bench.order.bytes), (0, 0));
        assert_eq!(bench.order.deadline(), None);
        assert_eq!(bench.order.counts, OrderCounts { held: 3, given_up: 0, late: 0 });
    }

    #[test]
    fn a_gap_is_given_up_in_time_and_what_filled_it_comes_late_but_comes() {
        let mut bench = Bench::new();
        bench.take(0, 7, 1, 1);
        bench.take(10, 7, 5, 5);
        bench.take(30, 7, 3, 3);
        bench.take(30, 7, 6, 6);
        bench.delivered();

        bench.expire(59);
        assert!(bench.delivered().is_empty());
        // 5 has waited for 50 ms: 3 goes ahead of it, 6 follows at once.
        bench.expire(60);
        assert_eq!(bench.delivered(), [3, 5, 6]);
        assert_eq!(bench.order.deadline(), None);

        bench.take(61, 7, 2, 2);
        bench.take(62, 7, 7, 7);
        assert_eq!(bench.delivered(), [2, 7]);
        assert_eq!(bench.order.counts, OrderCounts { held: 3, given_up: 1, late: 1 });
    }

    #[test]
    fn one_flow_does_not_wait_for_another() {
        let mut bench = Bench::new();
        bench.take(0, 1, 1, 1);
        bench.take(0, 2, 2, 1);
        // 3 of flow 1 is missing.
        bench.take(0, 1, 4, 3);
        bench.take(0, 2, 5, 2);

        assert_eq!(bench.delivered(), [1, 2, 5]);
        bench.expire(50);
        assert_eq!(bench.delivered(), [4]);
    }

    #[test]
    fn the_first_of_a_session_is_waited_for() {
        let mut bench = Bench::new();
        bench.take(0, 1, 2, 2);
        assert!(bench.delivered().is_empty());
        bench.take(5, 1, 1, 1);
        assert_eq!(bench.delivered(), [1, 2]);
    }

    #[test]
    fn new_keys_end_the_wait_under_old_ones() {
        let mut bench = Bench::new();
        let old = bench.era;
        for (number, mark) in [(100, 1), (102, 3)] {
            bench.take(0, 1, number, mark);
        }
        bench.era = Era(at(1), 9);
        bench.take(2, 1, 0, 1);
        assert_eq!(bench.delivered(), [100, 102, 0]);

        bench.era = old;
        bench.take(3, 1, 101, 2);
        bench.era = Era(at(1), 9);
        bench.take(4, 1, 1, 2);
        assert_eq!(bench.delivered(), [101, 1]);
        assert_eq!((bench.order.counts.late, bench.order.deadline()), (1, None));
    }

    #[test]
    fn datagrams_without_a_mark_pass() {
        let mut bench = Bench::new();
        for number in [5, 3, 4] {
            bench.take(0, 1, number, 0);
        }
        assert_eq!(bench.delivered(), [5, 3, 4]);
    }

    #[test]
    fn marks_begin_again_after_their_last() {
        assert_eq!((following(0), following(1), following(MARKS)), (1, 2, 1));
        assert_eq!((between(MARKS, 1), between(MARKS - 1, 1), between(5, 5)), (0, 1, MARKS - 1));

        let mut bench = Bench::new();
        let mut mark = 0;
        for number in 0..=u64::from(MARKS) {
            mark = following(mark);
            bench.take(number, 1, number, mark);
        }
        assert_eq!(bench.delivered().len(), usize::from(MARKS) + 1);
        assert_eq!(bench.order.counts.held, 0);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let mut bench = Bench::new();
        bench.take(0, 1, 1, 1);
        bench.delivered();
        for number in 3..3 + MAX_HELD as u64 + 10 {
            // Every second one is missing, so that none lets the next one go.
            let mark = u16::try_from(number * 2 % u64::from(MARKS)).unwrap().max(1);
            bench.take(0, 1, number * 2, mark);
        }
        assert_eq!(bench.order.len(), MAX_HELD);
        assert_eq!(bench.delivered()[..3], [6, 8, 10]);

        let mut bench = Bench::new();
        let big = vec![0; 60_000];
        let mut out = 0;
        for number in 1..200 {
            let place = Place { peer: 1, flow: 1, era: bench.era, number: number * 9, mark: 9 };
            bench.order.take(at(0), place, 0, &big, &mut |_, _| out += 1);
            assert!(bench.order.bytes <= MAX_BYTES);
        }
        assert!(out > 0 && bench.order.len() + out == 199);
    }

    #[test]
    fn flows_that_are_remembered_are_bounded_and_old_ones_make_room() {
        let mut bench = Bench::new();
        for flow in 0..5_000 {
            bench.take(0, flow, u64::from(flow), 1);
        }
        assert_eq!(bench.order.lines.len(), MAX_LINES);
        assert_eq!(bench.delivered().len(), 5_000);

        bench.take(60_000, 6_000, 9_000, 1);
        assert_eq!(bench.order.lines.len(), 1);
    }

    #[test]
    fn those_that_wait_no_more_leave_the_queue_of_deadlines() {
        let mut bench = Bench::new();
        bench.order.hold = Duration::from_secs(1);
        let mut mark = 0;
        // One of another flow waits all the time.
        bench.take(0, 2, 0, 2);
        for pair in 0..200_000 {
            let first = following(mark);
            mark = following(first);
            bench.take(0, 1, 2 + pair * 2, mark);
            bench.take(0, 1, 1 + pair * 2, first);
        }
        assert_eq!(bench.delivered().len(), 400_000);
        assert!(bench.order.waiting.len() <= 2 * MAX_HELD + 1);
    }

    #[test]
    fn of_two_datagrams_that_with_the_later_number_has_the_later_mark() {
        let numbers = PacketNumbers::starting_at(0, Cipher::ChaCha20Poly1305);
        let marker = Marker::default();
        let taken: Vec<(u64, u16)> = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let take = |_| marker.take(&numbers, 7).unwrap();
                        (0..2_000).map(take).collect::<Vec<_>>()
                    })
                })
                .collect();
            takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
        });

        assert!(taken.iter().all(|(number, mark)| *number + 1 == u64::from(*mark)));
    }

    proptest! {
        /// Any delays and losses: nothing is lost or repeated here, nothing waits for too long,
        /// and what is not late is in order.
        #[test]
        fn whatever_happens_on_the_way_each_is_delivered_once_and_in_time(
            sent in proptest::collection::vec((0u64..3, 0u64..120, 0u8..10), 1..120),
        ) {
            let mut arrivals = Vec::new();
            let (mut number, mut marks) = (0, [0u16; 3]);
            for (at, (flow, delay, loss)) in sent.iter().enumerate() {
                number += 1 + flow;
                let mark = &mut marks[*flow as usize];
                *mark = following(*mark);
                if *loss > 0 {
                    arrivals.push((at as u64 + delay, *flow as u16, number, *mark));
                }
            }
            arrivals.sort_unstable();
            let mut bench = Bench::new();
            let mut done: Vec<(u64, u64)> = Vec::new();
            let mut late = 0;
            let mut step = |bench: &mut Bench, now: u64| {
                done.extend(bench.delivered().into_iter().map(|number| (number, now)));
            };
            for (ms, flow, number, mark) in &arrivals {
                while let Some(due) = bench.order.deadline().filter(|due| *due < at(*ms)) {
                    let ms = due.as_micros() / 1_000;
                    bench.expire(ms);
                    step(&mut bench, ms);
                }
                bench.take(*ms, *flow, *number, *mark);
                step(&mut bench, *ms);
            }
            while let Some(due) = bench.order.deadline() {
                let ms = due.as_micros() / 1_000;
                bench.expire(ms);
                step(&mut bench, ms);
            }
            prop_assert!(bench.order.is_empty());
            prop_assert_eq!(done.len(), arrivals.len());
            let mut last = HashMap::new();
            for (number, when) in &done {
                let (came, flow, ..) = arrivals.iter().find(|a| a.2 == *number).unwrap();
                prop_assert!(at(*when) <= at(*came) + HOLD);
                let last = last.entry(*flow).or_insert(0);
                if *number < *last {
                    late += 1;
                    prop_assert_eq!(when, came, "a late one does not wait");
                }
                *last = (*number).max(*last);
            }
            prop_assert_eq!(late, bench.order.counts.late);
        }
    }
}
