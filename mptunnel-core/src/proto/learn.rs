// SPDX-License-Identifier: BSD-2-Clause
//! The rate of a path of which nobody knows what it carries (`rate=auto`), from what its answers
//! tell.
//!
//! ```text
//!              a queue in two answers in a row
//!    as it comes ─────────────────────────────▶ a rate: what arrived, and less while packets wait
//!       ▲                                               on the way; with each answer 5 to 25 %
//!       │                                               more while none do and some wait here
//!       │   nothing waited here for a minute, or          │
//!       ╰── a queue that stays when less is sent ─────────╯
//! ```
//!
//! A queue is a one-way time above the shortest one of the last 20 to 40 s, as in LEDBAT (RFC 6817,
//! section 2.4.2): the way back does not enter, so that who fills the link down does not slow the
//! link up. The most that arrived between two of the last PINGs while packets waited all along is
//! what the link carries, as in BBR (Cardwell et al.: "BBR: Congestion-Based Congestion Control",
//! 2016).
//!
//! Loss slows nothing: a link that drops what it cannot carry has no queue, so nobody gains by
//! dropping it here, and one that loses at random would be slowed down for nothing. This takes the
//! place of no congestion control of the application (RFC 8085, section 3.1): it keeps what is too
//! much where it delays nobody.

use super::frame::Pong;
use super::num::{approximate, micros, whole};
use super::pace::HEADERS;
use super::probe::Answered;
use super::time::Time;
use std::time::Duration;

/// Beyond so much, and so many times the jitter, packets wait on the way.
const QUEUE: Duration = Duration::from_millis(20);
const JITTERS: u32 = 3;
/// With less than this they do not.
const NO_QUEUE: Duration = Duration::from_millis(5);
/// What a new sample moves the mean of the jitter by, and how much a sample counts at most while a
/// rate is kept: that moves the queue as well.
const JITTER_GAIN: u32 = 8;
const OWN_JITTER: Duration = Duration::from_millis(5);
/// Bytes that wait at least where a rate is learnt: two packets.
const LEAST_QUEUE: f64 = 3_000.0;
/// How long a queue has to be to be emptied at the lowest rate, and what part of what the link
/// carries that is; and the part with hardly a queue.
const LONG_QUEUE: Duration = Duration::from_millis(500);
const DRAIN: (f64, f64) = (0.2, 0.95);
/// What is sent when the queue is gone, as a part of what the link carries.
const AFTER_DRAIN: f64 = 0.98;
/// What an answer adds to the rate: at first, and after so many that found it too low.
const GROWTH: f64 = 1.05;
const FAST_GROWTH: f64 = 1.25;
const FAST_AFTER: u32 = 4;
/// A rate is forgotten after such a time in which nothing waited for it.
const FORGET: Duration = Duration::from_secs(60);
/// A queue that does not become shorter by a third, or by so much, in such a time, though less is
/// sent, is not ours, or the way has become longer. Then the path is left alone for a while, twice
/// as long each time.
const PATIENCE: Duration = Duration::from_secs(1);
const SHORTER: (f64, Duration) = (0.67, Duration::from_millis(300));
const LEAVE_ALONE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(160));
/// But if what the link carries turns out to be so much less, what was sent was still too much.
const MUCH_LESS: f64 = 0.8;
/// The shortest one-way time is that of one or two such spans: clocks drift by some ms in them.
const SPAN: Duration = Duration::from_secs(20);
/// After such a silence all begins anew: what is told of the other clock goes round in 71 minutes.
const LONG_AGO: Duration = Duration::from_secs(600);
/// What arrived in less time than this says little of a rate.
const ENOUGH: Duration = Duration::from_millis(40);
/// Bytes per second below which no rate goes: 64 kbit/s, a few probes and a little of each second.
const LEAST: f64 = 8_000.0;

/// What is known of the link of one path, in one direction.
#[derive(Clone, Debug, Default)]
pub struct Learner {
    last: Option<Point>,
    base: Option<Base>,
    /// How long the queue was at the last two answers, the latest first.
    queues: [Duration; 2],
    /// How far one-way times stray, beyond a steady growth of the queue.
    jitter: Duration,
    /// Bytes per second that leave; `None`: as they come.
    rate: Option<f64>,
    /// What the link carries, by the last answers.
    carries: f64,
    /// Bytes per second that arrived between the last answers, the latest first.
    arrived: [f64; 4],
    /// When the rate was changed: what was sent before says nothing of it.
    changed_at: Time,
    /// Answers in a row that found the rate too low.
    growths: u32,
    /// When something waited for the rate last.
    needed_at: Time,
    /// When the queue began, or was found to be shorter, and how long it was.
    queued: Option<(Time, Duration)>,
    /// Until then the path is left alone, and how long that was: zero if it never was.
    rests_until: Time,
    rest: Duration,
}

/// What one PONG told.
#[derive(Clone, Copy, Debug)]
struct Point {
    session: u32,
    sent_at: Time,
    t_rx: u32,
    packets: u64,
    bytes: u64,
}

/// The shortest one-way time, up to a constant: the clocks of both ends do not agree.
#[derive(Clone, Copy, Debug)]
struct Base {
    since: Time,
    now: u32,
    before: u32,
}

impl Base {
    fn new(at: Time, transit: u32) -> Self {
        Base { since: at, now: transit, before: transit }
    }

    /// Takes a one-way time into account; how much above the shortest one it is.
    fn excess(&mut self, at: Time, transit: u32) -> Duration {
        if at.since(self.since) >= SPAN {
            (self.before, self.now, self.since) = (self.now, transit, at);
        }
        let above = |base: u32| transit.wrapping_sub(base).cast_signed();
        if above(self.now) < 0 {
            self.now = transit;
        }
        let excess = above(self.now).max(above(self.before)).max(0);
        Duration::from_micros(excess.unsigned_abs().into())
    }
}

impl Learner {
    /// Bytes per second at which packets should leave, headers of IP and UDP included; `None`: as
    /// they come.
    pub fn rate(&self) -> Option<u64> {
        self.rate.map(whole)
    }

    /// A PONG came. `waited`: packets had to wait for the rate since the one before.
    pub fn on_answer(&mut self, now: Time, pong: &Pong, answered: &Answered, waited: bool) {
        if waited {
            self.needed_at = now;
        }
        let sent_at = answered.told.until;
        let point = Point {
            session: answered.session,
            sent_at,
            t_rx: pong.t_rx,
            packets: pong.rx_pkts,
            bytes: pong.rx_bytes,
        };
        // A padded one takes longer through a slow link.
        if pong.t_rx == 0 || answered.size > 0 {
            return;
        }
        let follows =
            |last: &Point| last.session == point.session && sent_at.since(last.sent_at) < LONG_AGO;
        let Some(last) = self.last.filter(follows) else {
            // The other end may be another one, with another clock.
            (self.last, self.base) = (Some(point), None);
            return;
        };
        let transit = pong.t_rx.wrapping_sub(sent_at.low_micros());
        // A queue may have been there before. But one that was found to be none is none.
        let excess = if self.rest.is_zero() { answered.excess } else { Duration::ZERO };
        let excess = u32::try_from(micros(excess)).unwrap_or(0);
        let base = self.base.get_or_insert(Base::new(sent_at, transit.wrapping_sub(excess)));
        let queue = base.excess(sent_at, transit);
        let Some(arrived) = point.rate_since(&last) else { return };
        self.last = Some(point);
        let [first, second, third, _] = self.arrived;
        self.arrived = [arrived, first, second, third];
        let [before, earlier] = self.queues;
        self.queues = [queue, before];
        // Half of the second difference: that of a queue which grows or shrinks steadily is 0.
        let stray = queue.saturating_add(earlier).abs_diff(before.saturating_mul(2)).mul_f64(0.5);
        let stray = if self.rate.is_some() { stray.min(OWN_JITTER) } else { stray };
        let moved = self.jitter.saturating_mul(JITTER_GAIN.saturating_sub(1)).saturating_add(stray);
        self.jitter = moved.checked_div(JITTER_GAIN).unwrap_or_default();
        let long = QUEUE.saturating_add(self.jitter.saturating_mul(JITTERS));
        if now < self.rests_until || sent_at < self.changed_at {
            return;
        }
        match self.rate {
            // A probe or a sample now and then has no queue, however late it comes.
            None if arrived * queue.as_secs_f64() < LEAST_QUEUE => {}
            None if queue > long && before > long && queue >= before.mul_f64(0.9) => {
                self.carries = arrived;
                self.slow_down(now, queue);
            }
            None => {}
            Some(_) if queue > long => self.on_queue(now, sent_at, [queue, before], arrived),
            Some(rate) => self.on_no_queue(now, rate, arrived, waited),
        }
    }

    fn on_queue(&mut self, now: Time, sent_at: Time, [queue, before]: [Duration; 2], arrived: f64) {
        // What arrived is what the link carries, if it was busy all the time.
        let busy = before > NO_QUEUE;
        // Of single answers half may be jitter. Who believed each would send less and less.
        let most = self.arrived.into_iter().fold(0.0, f64::max);
        let arrived = if queue > LONG_QUEUE { arrived } else { most };
        let carries = if busy { arrived } else { self.carries.min(arrived / AFTER_DRAIN) };
        let (since, was) = *self.queued.get_or_insert((now, queue));
        if carries < self.carries * MUCH_LESS {
            self.queued = Some((now, queue));
        } else if sent_at.since(since) >= PATIENCE {
            let (part, time) = SHORTER;
            if queue > was.mul_f64(part).max(was.saturating_sub(time)) {
                return self.rest(now);
            }
            self.queued = Some((now, queue));
        }
        if queue >= before.mul_f64(0.9) {
            self.carries = carries;
            self.slow_down(now, queue);
        }
    }

    fn slow_down(&mut self, now: Time, queue: Duration) {
        let (least, most) = DRAIN;
        let length = approximate(micros(queue)) / approximate(micros(LONG_QUEUE));
        self.set(now, self.carries * (1.0 - length).clamp(least, most));
        (self.growths, self.needed_at) = (0, now);
        self.queued.get_or_insert((now, queue));
    }

    fn on_no_queue(&mut self, now: Time, rate: f64, arrived: f64, waited: bool) {
        self.queued = None;
        self.carries = self.carries.max(arrived);
        if rate < self.carries * AFTER_DRAIN {
            self.growths = 0;
            self.set(now, self.carries * AFTER_DRAIN);
        } else if waited {
            let growth = if self.growths < FAST_AFTER { GROWTH } else { FAST_GROWTH };
            self.growths = self.growths.saturating_add(1);
            self.set(now, rate * growth);
        } else if now.since(self.needed_at) >= FORGET {
            let Learner { last, base, rest, .. } = *self;
            *self = Learner { last, base, rest, ..Learner::default() };
        }
    }

    /// Leaves the path alone.
    fn rest(&mut self, now: Time) {
        let (first, most) = LEAVE_ALONE;
        let rest = self.rest.saturating_mul(2).clamp(first, most);
        let rests_until = now + rest;
        *self = Learner { last: self.last, rests_until, rest, ..Learner::default() };
    }

    fn set(&mut self, now: Time, rate: f64) {
        (self.rate, self.changed_at) = (Some(rate.max(LEAST)), now);
    }
}

impl Point {
    /// Bytes per second that arrived since an earlier one, if the time was long enough.
    fn rate_since(&self, earlier: &Point) -> Option<f64> {
        let time = self.t_rx.wrapping_sub(earlier.t_rx).cast_signed();
        let time = Duration::from_micros(u64::try_from(time).ok()?);
        if self.sent_at <= earlier.sent_at || time < ENOUGH {
            return None;
        }
        let packets = self.packets.saturating_sub(earlier.packets);
        let bytes = self.bytes.saturating_sub(earlier.bytes);
        let bytes = bytes.saturating_add(packets.saturating_mul(HEADERS));
        Some(approximate(bytes) / time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sched::Told;

    const MS: Duration = Duration::from_millis(1);

    /// A path that is asked every 250 ms; the other end's clock is as far from ours as `clock` says.
    struct Path {
        learner: Learner,
        now: Time,
        session: u32,
        clock: u32,
        bytes: u64,
    }

    impl Path {
        fn new(clock: u32) -> Self {
            let now = Time::from_micros(5_000_000);
            Path { learner: Learner::default(), now, session: 1, clock, bytes: 0 }
        }

        /// A PING that takes `way` to the other end, by when `bytes` more have arrived, and 10 ms
        /// back.
        fn ask(&mut self, way: Duration, bytes: u64, waited: bool) -> Option<u64> {
            let sent_at = self.now;
            self.bytes += bytes;
            let t_rx = (sent_at + way).low_micros().wrapping_add(self.clock);
            let told = Told { until: sent_at, sent: 0, lost: 0 };
            let excess = way.saturating_sub(20 * MS);
            let answered = Answered { pn: 0, session: self.session, size: 0, excess, told };
            let pong = Pong {
                path: 0,
                seq: 0,
                t_tx: 0,
                hold_us: 0,
                t_rx,
                rx_pkts: 0,
                rx_bytes: self.bytes,
            };
            self.learner.on_answer(sent_at + way + 10 * MS, &pong, &answered, waited);
            self.now = self.now + 250 * MS;
            self.learner.rate()
        }

        /// More and more packets wait, behind which 25,000 bytes arrive between two PINGs.
        fn fill(&mut self) -> Option<u64> {
            (0..3).for_each(|_| assert_eq!(self.ask(20 * MS, 25_000, false), None));
            self.ask(60 * MS, 29_000, false);
            self.ask(100 * MS, 29_000, false)
        }
    }

    #[test]
    fn a_queue_in_two_answers_gives_a_rate_whatever_the_clock_over_there_says() {
        for clock in [0, 1 << 31, u32::MAX - 5_150_000, 7] {
            // What arrived in 290 ms, less a sixth for a queue of 80 ms.
            let rate = Path::new(clock).fill().expect("it is learnt");
            assert!((83_000..85_000).contains(&rate), "{rate} at {clock}");
        }
    }

    #[test]
    fn the_rate_grows_while_it_is_needed_and_is_forgotten_when_it_is_not() {
        let mut path = Path::new(0);
        path.fill();
        let rates: Vec<u64> = (0..8).filter_map(|_| path.ask(20 * MS, 20_000, true)).collect();
        let growths = rates.windows(2).map(|two| two[1] as f64 / two[0] as f64);
        let growths: Vec<u64> = growths.map(|growth| (growth * 100.0).round() as u64).collect();
        assert_eq!(growths, [105, 105, 105, 105, 125, 125, 125]);

        let idle = (0..300).position(|_| path.ask(20 * MS, 2_000, false).is_none());
        assert!((238..=242).contains(&idle.expect("a minute")), "{idle:?}");
        path.fill();
        assert!(path.learner.rate().is_some());
    }

    #[test]
    fn another_process_over_there_has_another_clock_and_other_counts() {
        let mut path = Path::new(0);
        let rate = path.fill();
        (path.session, path.clock, path.bytes) = (2, 3_000_000_000, 0);
        assert_eq!(path.ask(20 * MS, 0, false), rate);
        assert!(path.ask(20 * MS, 20_000, false) >= rate);
        assert!(path.learner.queues[0].is_zero());
    }

    #[test]
    fn a_queue_that_is_there_already_is_seen_and_one_that_is_none_once_only() {
        let mut path = Path::new(0);
        for _ in 0..4 {
            path.ask(500 * MS, 25_000, false);
        }
        assert!(path.learner.rate().is_some_and(|rate| rate < 50_000));

        let mut rates = (0..400).map(|_| path.ask(500 * MS, 25_000, true));
        assert!(rates.by_ref().take(10).any(|rate| rate.is_none()), "less did not make it shorter");
        assert!(rates.all(|rate| rate.is_none()));
    }

    #[test]
    fn a_long_sleep_is_no_queue_and_learning_goes_on() {
        for minutes in [11, 36, 71, 600] {
            let mut path = Path::new(0);
            path.ask(20 * MS, 25_000, false);
            path.now = path.now + minutes * Duration::from_secs(60);
            assert!(path.fill().is_some(), "{minutes} minutes");
        }
    }

    #[test]
    fn an_end_that_does_not_tell_when_pings_come_teaches_nothing() {
        let mut path = Path::new(0);
        for way in 0..20 {
            path.clock = 0u32.wrapping_sub((path.now + 50 * way * MS).low_micros());
            assert_eq!(path.ask(50 * way * MS, 90_000, true), None);
        }
        assert!(path.learner.last.is_none());
    }
}
