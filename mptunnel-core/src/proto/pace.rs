// SPDX-License-Identifier: BSD-2-Clause
//! The pace of a path whose rate is known: packets leave no faster than the link carries them, so
//! that they wait here, where a late one can be dropped, and not in a buffer on the way.
//!
//! ```text
//!   packet ──▶ is there a token? ── yes ──▶ leaves at once
//!                    │ no
//!                    ▼
//!              queue, as long as it would leave within the bound ── else dropped
//!                    │
//!                    ╰──▶ leaves when its token is there; a timer says when
//! ```
//!
//! The bucket is kept as the time at which it is empty (GCRA, ITU-T I.371): no clock ticks while
//! nothing is sent.

use super::num::widen;
use super::session::Session;
use super::time::Time;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What the bucket holds: so much may leave at once after a pause, and so late may the timer be
/// without loss of rate.
const BURST: Duration = Duration::from_millis(5);
/// Bytes that the bucket holds at least: one packet of Ethernet's size.
const LEAST_BURST: u64 = 1_500;
/// Bytes that wait at most on a path whose rate somebody else names, with 24 for each packet: 84 ms
/// at 100 Mbit/s.
const GUEST_MOST: usize = 1 << 20;
/// Bytes that further pieces of datagrams may take beyond that: two of the largest datagrams.
const PIECES_MOST: usize = 128 << 10;
/// Bytes of memory that an empty queue keeps.
const EMPTY_MOST: usize = 128 << 10;
/// Bytes of headers that a link carries with each packet: IPv4 and UDP.
pub const HEADERS: u64 = 28;
/// A rate at which nothing waits.
pub const UNBOUNDED: u64 = u64::MAX;

/// The pace of one path, shared by all who send on it.
pub struct Pace {
    state: Mutex<State>,
}

struct State {
    /// Bytes per second.
    rate: u64,
    /// Nanoseconds that a byte takes, times 2^16.
    byte_ns_16: u64,
    burst_ns: u64,
    bound: Duration,
    /// Bytes that the queue may take.
    most: usize,
    /// When the bucket would be full again, in nanoseconds.
    full_at: u64,
    queue: VecDeque<Queued>,
    /// What all of the queue takes, in nanoseconds.
    queued_ns: u64,
    /// Bytes of the queue, one packet behind the other.
    bytes: VecDeque<u8>,
    /// Whether a packet had to wait, or was dropped, since somebody asked.
    waited: bool,
}

struct Queued {
    len: usize,
    /// From then on it is too late.
    late_at: Time,
    session: Arc<Session>,
}

/// How a packet stands to those before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// A datagram, or its first piece: it may have to stay behind.
    First,
    /// A further piece of a datagram of which the path has taken the first: it goes whatever the
    /// queue is like, or the others would be of no use. A datagram of 64 KiB takes longer than the
    /// bound on a slow link.
    Next,
}

/// What waits on a path whose rate is known, or is learnt (word `rate` at a client, `rate-down` at
/// the server), so that it leaves no faster than the link carries it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Queue {
    /// Packets that wait.
    pub packets: u64,
    /// Bytes of these: UDP payload.
    pub bytes: u64,
    /// How long a packet that is sent now would wait. One that would for longer than the bound
    /// (option `path-queue`, 50 ms) is dropped, and counted among those that the path did not take.
    pub delay: Duration,
    /// Bytes per second that leave, headers of IPv4 and UDP included; `None` if there is no such
    /// bound now: the rate is yet to be learnt, or was forgotten.
    pub rate: Option<u64>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Offer {
    /// It may leave now.
    Now,
    /// It was taken, and leaves later.
    Queued,
    /// It would leave too late.
    Dropped,
}

impl Pace {
    /// `rate` bytes per second, headers of IP and UDP included; nothing waits for longer than
    /// `bound`.
    pub fn new(rate: u64, bound: Duration) -> Self {
        let mut state = State {
            rate,
            byte_ns_16: 0,
            burst_ns: 0,
            bound,
            most: usize::MAX,
            full_at: 0,
            queue: VecDeque::new(),
            queued_ns: 0,
            bytes: VecDeque::new(),
            waited: false,
        };
        state.set_rate(Time::default(), rate);
        Pace { state: Mutex::new(state) }
    }

    /// As [`new`](Self::new), for a rate that somebody else names: what waits takes no more than a
    /// fixed amount of memory, whatever the rate is.
    pub fn for_a_guest(rate: u64, bound: Duration) -> Self {
        let mut pace = Pace::new(rate, bound);
        pace.state.get_mut().most = GUEST_MOST;
        pace
    }

    /// Packets leave at this rate from now on, in bytes per second; those that wait as well.
    pub fn set_rate(&self, now: Time, rate: u64) {
        self.state.lock().set_rate(now, rate);
    }

    /// May `packet`, sealed under `session`, leave now? If not it is copied, and given back by
    /// [`take`](Self::take) when it may.
    pub fn offer(&self, now: Time, session: &Arc<Session>, packet: &[u8], part: Part) -> Offer {
        let mut state = self.state.lock();
        let takes = state.takes_packet(packet.len());
        if state.queue.is_empty() && state.may_leave(now) {
            state.leave(now, takes);
            return Offer::Now;
        }
        state.waited = true;
        let wait = Duration::from_nanos(state.wait(now));
        if wait > state.bound && part == Part::First || !state.has_room(packet.len(), part) {
            return Offer::Dropped;
        }
        // The timer may be late, and by so much a packet may be as well.
        let late_at = now + wait.max(state.bound).saturating_add(BURST);
        state.queued_ns = state.queued_ns.saturating_add(takes);
        state.bytes.extend(packet);
        let session = session.clone();
        state.queue.push_back(Queued { len: packet.len(), late_at, session });
        Offer::Queued
    }

    /// A packet of `len` bytes leaves that waits for nobody: CTRL. Where it alone takes more than
    /// the rate, that is not held against what comes later for longer than the bound.
    pub fn charge(&self, now: Time, len: usize) {
        let mut state = self.state.lock();
        let takes = state.takes_packet(len);
        let (before, most) = (state.full_at, state.burst_ns.saturating_add(nanos(state.bound)));
        state.leave(now, takes);
        state.full_at = state.full_at.min(since_start(now).saturating_add(most)).max(before);
    }

    /// Gives back, in `packet`, the next one of those that wait, if it may leave now, and the session
    /// that sealed it; or none of its bytes, if it has waited for too long.
    pub fn take(&self, now: Time, packet: &mut Vec<u8>) -> Option<Arc<Session>> {
        packet.clear();
        let mut state = self.state.lock();
        let state = &mut *state;
        let first = state.queue.front()?;
        let takes = state.takes_packet(first.len);
        let is_late = first.late_at <= now;
        if !is_late && !state.may_leave(now) {
            return None;
        }
        let Queued { len, session, .. } = state.queue.pop_front()?;
        state.queued_ns = state.queued_ns.saturating_sub(takes);
        let bytes = state.bytes.drain(..len);
        if !is_late {
            packet.extend(bytes);
            state.leave(now, takes);
        } else {
            drop(bytes);
        }
        if state.queue.is_empty() {
            // What rounding has left of it.
            state.queued_ns = 0;
            state.give_memory_back();
        }
        Some(session)
    }

    /// Forgets what waits, as what the path `slot` did not take: it leads nowhere any more.
    pub fn give_up(&self, slot: u8) {
        let mut state = self.state.lock();
        for queued in state.queue.drain(..) {
            queued.session.path(slot).on_send_dropped(1);
        }
        state.bytes.clear();
        state.queued_ns = 0;
        state.give_memory_back();
    }

    /// When the next packet may leave; `None` if none waits.
    pub fn deadline(&self) -> Option<Time> {
        let state = self.state.lock();
        let first = state.queue.front()?;
        let token = state.full_at.saturating_sub(state.burst_ns).div_ceil(1_000);
        Some(Time::from_micros(token).min(first.late_at))
    }

    /// What waits, and for how long what is offered now would.
    pub fn waiting(&self, now: Time) -> Queue {
        let state = self.state.lock();
        Queue {
            packets: widen(state.queue.len()),
            bytes: widen(state.bytes.len()),
            delay: Duration::from_nanos(state.wait(now)),
            rate: (state.rate != UNBOUNDED).then_some(state.rate),
        }
    }

    /// Whether a packet had to wait, or was dropped, since this was asked last.
    pub fn has_waited(&self) -> bool {
        std::mem::take(&mut self.state.lock().waited)
    }

    /// How long a packet that is offered now would wait.
    pub fn queue(&self, now: Time) -> Duration {
        Duration::from_nanos(self.state.lock().wait(now))
    }
}

impl State {
    fn set_rate(&mut self, now: Time, rate: u64) {
        self.rate = rate;
        // Above 2^46 bytes per second a byte takes no time.
        let byte_ns_16 = (1_000_000_000u64 << 16).checked_div(rate).unwrap_or(u64::MAX);
        let before = u128::from(std::mem::replace(&mut self.byte_ns_16, byte_ns_16));
        // What has left at the rate before, and what waits, is as many bytes as it was.
        let scaled = |ns: u64| {
            let ns = u128::from(ns).saturating_mul(byte_ns_16.into());
            u64::try_from(ns.checked_div(before).unwrap_or(0)).unwrap_or(u64::MAX)
        };
        let debt = self.full_at.saturating_sub(since_start(now));
        self.full_at = since_start(now).saturating_add(scaled(debt));
        self.queued_ns = scaled(self.queued_ns);
        self.burst_ns = nanos(BURST).max(self.takes(LEAST_BURST));
    }

    fn takes_packet(&self, len: usize) -> u64 {
        self.takes(widen(len).saturating_add(HEADERS))
    }

    fn takes(&self, bytes: u64) -> u64 {
        let ns = u128::from(bytes).saturating_mul(u128::from(self.byte_ns_16)) >> 16;
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// Whether the queue has memory for a packet. Further pieces have some of their own.
    fn has_room(&self, len: usize, part: Part) -> bool {
        let records = self.queue.len().saturating_add(1).saturating_mul(size_of::<Queued>());
        let more = if part == Part::Next { PIECES_MOST } else { 0 };
        self.bytes.len().saturating_add(len).saturating_add(records)
            <= self.most.saturating_add(more)
    }

    /// An empty queue holds no memory for the full one that it was.
    fn give_memory_back(&mut self) {
        if self.bytes.capacity() > EMPTY_MOST {
            self.bytes = VecDeque::new();
            self.queue = VecDeque::new();
        }
    }

    fn may_leave(&self, now: Time) -> bool {
        self.full_at <= since_start(now).saturating_add(self.burst_ns)
    }

    fn leave(&mut self, now: Time, takes: u64) {
        self.full_at = self.full_at.max(since_start(now)).saturating_add(takes);
    }

    /// Nanoseconds until what is offered now would leave.
    fn wait(&self, now: Time) -> u64 {
        let last = self.full_at.saturating_add(self.queued_ns);
        last.saturating_sub(since_start(now).saturating_add(self.burst_ns))
    }
}

fn since_start(now: Time) -> u64 {
    now.as_micros().saturating_mul(1_000)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::session::tests::end;

    const BOUND: Duration = Duration::from_millis(50);

    /// Offers packets of `size` every `gap` µs for `time` µs, with a timer that is `lag` µs late;
    /// when each left, and how many were dropped.
    fn run(pace: &Pace, size: usize, gap: u64, time: u64, lag: u64) -> (Vec<(u64, u64)>, usize) {
        let session = Arc::new(end(1, 2, false));
        let (mut left, mut dropped) = (Vec::new(), 0);
        let mut buffer = Vec::new();
        let mut wake = u64::MAX;
        for us in 0..time {
            let now = Time::from_micros(us);
            if us.is_multiple_of(gap) {
                let mut packet = us.to_le_bytes().to_vec();
                packet.resize(size, 0);
                match pace.offer(now, &session, &packet, Part::First) {
                    Offer::Now => left.push((us, us)),
                    Offer::Queued => wake = wake.min(pace.deadline().unwrap().as_micros() + lag),
                    Offer::Dropped => dropped += 1,
                }
            }
            if us >= wake {
                while pace.take(now, &mut buffer).is_some() {
                    let sent = buffer.first_chunk().expect("none is late");
                    left.push((us, u64::from_le_bytes(*sent)));
                }
                wake = pace.deadline().map_or(u64::MAX, |at| at.as_micros() + lag);
            }
        }
        (left, dropped)
    }

    #[test]
    fn what_the_link_carries_passes_at_once() {
        // 1,000 packets of 1,250 bytes with headers, each second: 10 Mbit/s.
        let pace = Pace::new(1_250_000, BOUND);
        let (left, dropped) = run(&pace, 1_222, 1_000, 1_000_000, 0);
        assert_eq!((left.len(), dropped), (1_000, 0));
        assert!(left.iter().all(|(when, offered)| when == offered));
    }

    #[test]
    fn twice_as_much_leaves_at_the_rate_in_order_within_the_bound_and_the_rest_is_dropped() {
        for lag in [0, 1_000, 4_000] {
            let pace = Pace::new(1_250_000, BOUND);
            let (left, dropped) = run(&pace, 1_222, 500, 2_000_000, lag);

            // 2,000 in two seconds, and what the bucket held.
            assert!((1_990..=2_010).contains(&left.len()), "{} at {lag}", left.len());
            assert!(dropped > 1_900);
            assert!(left.is_sorted_by_key(|(_, offered)| *offered));
            let longest = left.iter().map(|(when, offered)| when - offered).max().unwrap();
            assert!((45_000..=50_000 + 5_000).contains(&longest), "{longest} at {lag}");
        }
    }

    #[test]
    fn a_packet_that_is_too_late_is_given_up() {
        let pace = Pace::new(125_000, BOUND);
        let session = Arc::new(end(1, 2, false));
        let mut buffer = Vec::new();
        let offers: Vec<Offer> = (0..4)
            .map(|_| pace.offer(Time::from_micros(9), &session, &[7; 1_222], Part::First))
            .collect();
        assert_eq!(offers, [Offer::Now, Offer::Now, Offer::Queued, Offer::Queued]);
        let waiting = pace.waiting(Time::from_micros(9));
        assert_eq!((waiting.packets, waiting.bytes), (2, 2 * 1_222));
        assert_eq!(waiting.delay, pace.queue(Time::from_micros(9)));
        assert!(pace.take(Time::from_micros(10), &mut buffer).is_none());

        // The machine slept.
        let late = Time::from_micros(9_000_000);
        for _ in 0..2 {
            assert!(pace.take(late, &mut buffer).is_some() && buffer.is_empty());
        }
        assert!(pace.take(late, &mut buffer).is_none());
        let nothing = Queue { rate: Some(125_000), ..Queue::default() };
        assert_eq!((pace.deadline(), pace.waiting(late)), (None, nothing));
        assert_eq!(pace.offer(late, &session, &[7; 1_222], Part::First), Offer::Now);
    }

    #[test]
    fn pieces_follow_the_first_however_long_that_takes() {
        let pace = Pace::new(125_000, BOUND);
        let session = Arc::new(end(1, 2, false));
        let (start, mut buffer) = (Time::from_micros(0), Vec::new());
        assert_eq!(pace.offer(start, &session, &[0; 1_222], Part::First), Offer::Now);
        for _ in 0..40 {
            assert_ne!(pace.offer(start, &session, &[0; 1_222], Part::Next), Offer::Dropped);
        }
        assert_eq!(pace.offer(start, &session, &[0; 1_222], Part::First), Offer::Dropped);
        let mut left = 0;
        for us in 0..500_000 {
            while pace.take(Time::from_micros(us), &mut buffer).is_some() {
                assert_eq!(buffer.len(), 1_222, "none is late");
                left += 1;
            }
        }
        assert!(left >= 39 && pace.deadline().is_none());
    }

    #[test]
    fn another_rate_counts_for_those_that_wait_as_well() {
        let pace = Pace::new(125_000, BOUND);
        let session = Arc::new(end(1, 2, false));
        let now = Time::from_micros(0);
        while pace.offer(now, &session, &[0; 1_222], Part::First) != Offer::Dropped {}
        assert!(pace.queue(now) > BOUND);
        pace.set_rate(now, 1_250_000);
        assert!(pace.queue(now) < Duration::from_millis(30));
        assert_eq!(pace.offer(now, &session, &[0; 1_222], Part::First), Offer::Queued);
    }

    #[test]
    fn what_left_at_a_slow_rate_does_not_hold_up_a_faster_one() {
        let pace = Pace::new(1_250, BOUND);
        let session = Arc::new(end(1, 2, false));
        let mut now = Time::from_micros(0);
        // More CTRL than the rate, for a minute.
        for _ in 0..600 {
            now = now + Duration::from_millis(100);
            pace.charge(now, 472);
        }
        assert!(pace.queue(now) <= BOUND, "{:?}", pace.queue(now));
        // Two packets, of which each takes a second.
        while pace.offer(now, &session, &[0; 1_222], Part::First) == Offer::Now {}
        pace.set_rate(now, 1_250_000);

        assert_eq!(pace.queue(now), Duration::ZERO);
        pace.set_rate(now, 1_250);
        assert!(pace.queue(now) < Duration::from_secs(2));
    }

    #[test]
    fn a_guest_fills_a_fixed_amount_of_memory_whatever_rate_he_names() {
        let now = Time::from_micros(0);
        for (rate, size) in [(12_500_000, 36), (125_000_000, 1_222), (u64::MAX >> 20, 9_000)] {
            let session = Arc::new(end(1, 2, false));
            let pace = Pace::for_a_guest(rate, Duration::from_secs(1));
            // The clock stands still, so all but a burst waits.
            pace.state.lock().full_at = 1 << 40;
            pace.state.lock().bound = Duration::from_secs(1 << 20);
            let mut count = 0;
            while pace.offer(now, &session, &vec![0; size], Part::First) == Offer::Queued {
                count += 1;
            }
            let held = |pace: &Pace| {
                let state = pace.state.lock();
                state.bytes.len() + state.queue.len() * size_of::<Queued>()
            };
            assert!(held(&pace) <= GUEST_MOST && held(&pace) > GUEST_MOST / 8 * 7, "{rate}");
            while pace.offer(now, &session, &vec![0; size], Part::Next) == Offer::Queued {
                count += 1;
            }
            assert!(held(&pace) <= GUEST_MOST + PIECES_MOST, "{rate}");

            pace.give_up(7);
            assert_eq!(session.path(7).counts().tx_dropped, count);
            assert_eq!((held(&pace), pace.deadline()), (0, None));
            assert!(pace.state.lock().bytes.capacity() <= EMPTY_MOST);
            pace.give_up(7);
            assert_eq!(session.path(7).counts().tx_dropped, count);
            assert_eq!(pace.offer(now, &session, &[0; 100], Part::First), Offer::Queued);
        }
    }

    #[test]
    fn slow_and_fast_rates_hold() {
        for rate in [1_250, 125_000, 125_000_000, 12_500_000_000] {
            let pace = Pace::new(rate, BOUND);
            let state = pace.state.lock();
            let (takes, exact) = (state.takes(1_000_000), 1e15 / rate as f64);
            assert!((takes as f64 - exact).abs() <= exact / 5_000.0, "{takes} of {exact}");
            assert!(state.burst_ns >= state.takes(LEAST_BURST));
        }
    }
}
