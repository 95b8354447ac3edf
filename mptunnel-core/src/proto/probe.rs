// SPDX-License-Identifier: BSD-2-Clause
//! When to send a PING on a path, and what its answer or its silence means. Used by both ends.

use super::entropy::{Entropy, jittered};
use super::frame::{PING_BACKUP, Ping, Pong};
use super::health::Health;

use super::route::PathCounts;
use super::sched::{Candidate, Told};
use super::time::Time;
use super::view::ACTIVE_AFTER_DATA;
use std::collections::VecDeque;
use std::time::Duration;

/// Between the first PINGs of a session on a path, until something is heard on it.
const FIRST_INTERVAL: Duration = Duration::from_millis(100);
/// How many of them at most.
const FIRST_PINGS: u8 = 10;
/// A PING is unanswered after this, or after two round trips.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// Unanswered PINGs in a row after which a path is down.
const MISSES_UNTIL_DOWN: u32 = 3;
/// The same while the path is heard: with 20 % loss each way, three misses in a row come every five
/// seconds, ten every half an hour.
const MISSES_THOUGH_HEARD: u32 = 10;
/// While a path is in doubt it is asked so many times as often. What is asked between is not missed:
/// a path that is full loses many PINGs, and one that is dead answers none of ten.
const IN_DOUBT: f64 = 5.0;
/// PINGs on the way of which the answer is still of use: 8 s at the active interval, as long as a
/// handshake may take, and the first ones of a session.
const REMEMBERED: usize = 48;

/// How long an answer to a padded PING may be overtaken by others.
const PADDED_KEPT: Duration = Duration::from_secs(2);

/// How often to probe.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// While data flows or an answer is missing.
    pub active: Duration,
    /// Otherwise.
    pub idle: Duration,
}

/// The probing of one path from one end.
#[derive(Clone, Debug)]
pub struct Probe {
    seq: u32,
    sent: VecDeque<SentPing>,
    due: Time,
    first: u8,
    misses: u32,
    missed_since: Option<Time>,
    /// What the answers told.
    pub health: Health,
}

#[derive(Clone, Debug)]
struct SentPing {
    seq: u32,
    pn: u64,
    session: u32,
    at: Time,
    tx_pkts: u64,
    /// Never asked after, or asked after in vain.
    missed: bool,
    /// Sent between two others that count: padded, or because the path is in doubt.
    between: bool,
    /// Bytes of the packet if that was padded; 0 if not.
    size: u16,
}

/// What a PONG meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answered {
    /// The number of the packet in which the PING travelled.
    pub pn: u64,
    /// The session of that packet.
    pub session: u32,
    /// Bytes of that packet if it was padded; 0 if not.
    pub size: u16,
    /// How much longer the round trip was than the shortest one of the path.
    pub excess: Duration,
    /// What became of the packets before it.
    pub told: Told,
}

impl Probe {
    /// A path that is to be probed at once.
    pub fn new(now: Time) -> Self {
        Probe {
            seq: 0,
            sent: VecDeque::new(),
            due: now,
            first: FIRST_PINGS,
            misses: 0,
            missed_since: None,
            health: Health::default(),
        }
    }

    /// A new socket: probe at once. If the old one got no answers, the new one has yet to do
    /// better: the pace of probing goes on where it was, or a path that is dead for good would be
    /// probed quickly for ever, as its socket is made anew all the time.
    pub fn on_new_socket(&mut self, now: Time) {
        if self.missed_since.is_some() {
            self.due = now;
            self.health.on_new_peer();
        } else {
            self.restart(now);
        }
    }

    /// Another address: probe at once and quickly, with numbers that go on, so that the other end
    /// does not take them for old ones.
    pub fn restart(&mut self, now: Time) {
        (self.due, self.first) = (now, FIRST_PINGS);
        (self.misses, self.missed_since) = (0, None);
        self.sent.clear();
        self.health.on_new_peer();
    }

    /// A new session on the same socket: probe at once and quickly, forget no estimate.
    /// PINGs of the old session that are still out will not be answered, and that means nothing.
    pub fn quicken(&mut self, now: Time) {
        (self.due, self.first) = (now, FIRST_PINGS);
        for ping in &mut self.sent {
            ping.missed = true;
        }
    }

    /// Numbers go on after `seq`: the slot has been used before.
    pub fn continue_after(&mut self, seq: u32) {
        self.seq = seq;
    }

    /// The number of the last PING.
    pub fn seq(&self) -> u32 {
        self.seq
    }

    /// When the next PING or the next judgement is due.
    pub fn deadline(&self) -> Time {
        self.sent.iter().find(|p| !p.missed).map_or(self.due, |p| self.due.min(self.answer_by(p)))
    }

    /// Whether a PING is due.
    pub fn is_due(&self, now: Time) -> bool {
        self.due <= now
    }

    /// Whether a packet that leaves anyway should carry the next PING: it would be due soon. So two
    /// ends that are idle fall into step, and wake each other up half as often.
    pub fn may_ride(&self, now: Time, busy: bool, intervals: Intervals) -> bool {
        let interval = if busy { intervals.active } else { intervals.idle };
        self.first == 0 && self.due <= now + interval.mul_f64(0.5)
    }

    /// Probe now.
    pub fn hurry(&mut self, now: Time) {
        self.due = self.due.min(now);
    }

    /// A PING came while data flows. What this end receives brings no PING of its own forward, so
    /// one that was idle until then would learn for seconds nothing of the path on which it answers.
    pub fn keep_pace(&mut self, now: Time, busy: bool, intervals: Intervals) {
        if busy && self.missed_since.is_none() {
            self.due = self.due.min(now + intervals.active);
        }
    }

    /// Makes the next PING and sets the time of the one after it. The caller puts it into the
    /// packet numbered `pn`.
    pub fn next_ping(
        &mut self,
        now: Time,
        slot: u8,
        backup: bool,
        mood: Mood,
        counts: PathCounts,
        entropy: &mut dyn Entropy,
    ) -> Ping {
        let heard = mood.heard_on_path;
        if heard {
            self.first = 0;
        }
        let interval = if self.first > 0 {
            self.first = self.first.saturating_sub(1);
            FIRST_INTERVAL
        } else {
            jittered(self.interval(now, &mood), entropy)
        };
        let active = mood.intervals.active;
        // The first ones are close enough.
        let in_doubt = self.first == 0 && (1..MISSES_UNTIL_DOWN).contains(&self.misses);
        let (between, wait) = if in_doubt {
            (self.is_between(now, active), interval.min(active.div_f64(IN_DOUBT)))
        } else {
            (false, interval)
        };
        self.due = now + wait;
        self.seq = self.seq.saturating_add(1);
        if self.sent.len() >= REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back(SentPing {
            seq: self.seq,
            pn: 0,
            session: mood.session,
            at: now,
            tx_pkts: counts.tx_pkts,
            missed: between,
            between,
            size: 0,
        });
        self.ping(now, slot, backup, interval, counts)
    }

    /// Makes a PING beside the others, for a packet that is padded to `size` bytes. That it goes
    /// unanswered says nothing about the path.
    pub fn padded_ping(
        &mut self,
        now: Time,
        slot: u8,
        backup: bool,
        session: u32,
        counts: PathCounts,
        size: u16,
    ) -> Ping {
        self.seq = self.seq.saturating_add(1);
        if self.sent.len() >= REMEMBERED {
            self.sent.pop_front();
        }
        let (seq, tx_pkts) = (self.seq, counts.tx_pkts);
        self.sent.push_back(SentPing {
            seq,
            pn: 0,
            session,
            at: now,
            tx_pkts,
            missed: true,
            between: true,
            size,
        });
        let next = self.due.since(now).max(Duration::from_millis(10));
        self.ping(now, slot, backup, next, counts)
    }

    /// Whether it is too early for a PING that counts.
    fn is_between(&self, now: Time, active: Duration) -> bool {
        let last = self.sent.iter().rev().find(|ping| !ping.between);
        // A tenth is jitter.
        last.is_some_and(|ping| now.since(ping.at) < active.mul_f64(0.85))
    }

    fn ping(&self, now: Time, slot: u8, backup: bool, next: Duration, counts: PathCounts) -> Ping {
        Ping {
            path: slot,
            flags: if backup { PING_BACKUP } else { 0 },
            next_10ms: u16::try_from(next.as_millis().div_ceil(10)).unwrap_or(u16::MAX),
            seq: self.seq,
            t_tx: now.as_micros(),
            tx_pkts: counts.tx_pkts,
            tx_bytes: counts.tx_bytes,
        }
    }

    /// Often while data flows or an answer is missing; a path that stays silent is asked less and
    /// less, or one dead path would cost an idle phone 1.4 GB a month.
    fn interval(&self, now: Time, mood: &Mood) -> Duration {
        let Intervals { active, idle } = mood.intervals;
        let Some(since) = self.missed_since else {
            return if mood.busy { active } else { idle };
        };
        match (now.since(since).as_secs(), mood.busy) {
            (0..10, _) => active,
            (10..60, _) => active.max(Duration::from_millis(500)),
            (_, true) => active.max(Duration::from_secs(1)),
            (_, false) => idle,
        }
    }

    /// Tells in which packet the PING just made travels.
    pub fn sent_in(&mut self, pn: u64) {
        if let Some(last) = self.sent.back_mut() {
            last.pn = pn;
        }
    }

    /// Takes a PONG into account; `None` if it answers no PING that is remembered.
    ///
    /// `current` is the session in use: counts of another one say nothing about loss.
    pub fn on_pong(&mut self, now: Time, pong: &Pong, current: u32) -> Option<Answered> {
        let at =
            self.sent.iter().position(|p| p.seq == pong.seq && p.at.as_micros() == pong.t_tx)?;
        let ping = self.sent.remove(at)?;
        let hold = Duration::from_micros(u64::from(pong.hold_us));
        let rtt = now.since(ping.at).saturating_sub(hold);
        let (sent, lost) = if ping.session == current {
            self.health.on_arrivals(now, ping.session, ping.tx_pkts, pong.rx_pkts)
        } else {
            (0, 0)
        };
        self.health.on_rtt(now, rtt);
        // PINGs sent before the answered one are of no more interest.
        // Of padded ones, answers may be overtaken by smaller ones.
        self.sent.retain(|p| p.seq > pong.seq || (p.size > 0 && now.since(p.at) < PADDED_KEPT));
        if self.sent.is_empty() {
            // An idle path holds no memory for the PINGs that a busy one had under way.
            self.sent = VecDeque::new();
        }
        (self.misses, self.missed_since, self.first) = (0, None, 0);
        let told = Told { until: ping.at, sent, lost };
        let excess = rtt.saturating_sub(self.health.min_rtt().unwrap_or(rtt));
        Some(Answered { pn: ping.pn, session: ping.session, size: ping.size, excess, told })
    }

    /// Counts PINGs whose time is over. The first miss brings the next PING forward; what follows
    /// a later one is due by the ladder of [`interval`](Self::interval).
    pub fn judge(&mut self, now: Time, active: Duration) {
        let within = self.answer_within();
        let answered_until_now = self.missed_since.is_none();
        for ping in self.sent.iter_mut().filter(|p| !p.missed && p.at + within <= now) {
            ping.missed = true;
            self.misses = self.misses.saturating_add(1);
            self.missed_since = Some(self.missed_since.map_or(ping.at, |since| since.min(ping.at)));
        }
        if answered_until_now && self.missed_since.is_some() {
            self.due = self.due.min(now + active);
        }
    }

    /// Whether so many PINGs in a row went unanswered that the path counts as down. `heard` is when
    /// anything authentic last came on it: a path that loses much is not down while it is heard,
    /// unless so many answers are missing that it carries one way only.
    pub fn is_down(&self, now: Time, heard: Time) -> bool {
        let three_rtt = self.health.srtt().unwrap_or_default().saturating_mul(3);
        let Some(since) = self.missed_since else { return false };
        let misses = if heard > since { MISSES_THOUGH_HEARD } else { MISSES_UNTIL_DOWN };
        self.misses >= misses && now.since(since) >= three_rtt
    }

    /// PINGs in a row that went unanswered.
    pub fn misses(&self) -> u32 {
        self.misses
    }

    /// What a policy may know of this path.
    pub fn candidate(&self, slot: u8, heard: Time) -> Candidate {
        let (recent, lasting) = self.health.losses_out();
        Candidate {
            slot,
            misses: self.misses,
            heard: self.missed_since.is_none_or(|since| heard > since),
            rtt: self.health.quick_rtt(),
            min_rtt: self.health.min_rtt(),
            loss: self.health.expected_loss(),
            recent,
            lasting,
            ..Candidate::default()
        }
    }

    /// Since when PINGs go unanswered.
    pub fn missed_since(&self) -> Option<Time> {
        self.missed_since
    }

    fn answer_by(&self, ping: &SentPing) -> Time {
        ping.at + self.answer_within()
    }

    /// How long an answer may take.
    pub fn answer_within(&self) -> Duration {
        self.health.srtt().unwrap_or_default().saturating_mul(2).max(ANSWER_WITHIN)
    }
}

/// What else decides how often to probe.
#[derive(Clone, Copy, Debug)]
pub struct Mood {
    /// The index of the session in which the PING travels.
    pub session: u32,
    /// Whether the application sent or received lately.
    pub busy: bool,
    /// Whether anything has been heard on this path in this session.
    pub heard_on_path: bool,
    /// How often to probe.
    pub intervals: Intervals,
}

/// Whether data moved so lately that paths are probed often.
pub fn is_busy(now: Time, last_data: Time) -> bool {
    now.since(last_data) <= ACTIVE_AFTER_DATA && last_data != Time::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::rng::Rng;

    const MS: Duration = Duration::from_millis(1);
    const INTERVALS: Intervals =
        Intervals { active: Duration::from_millis(250), idle: Duration::from_secs(5) };

    fn mood(busy: bool, heard: bool) -> Mood {
        Mood { session: 1, busy, heard_on_path: heard, intervals: INTERVALS }
    }

    fn ping(probe: &mut Probe, now: Time, mood: Mood) -> Ping {
        probe.next_ping(now, 0, false, mood, PathCounts::default(), &mut Rng::new(1))
    }

    fn pong(ping: &Ping) -> Pong {
        Pong {
            path: 0,
            seq: ping.seq,
            t_tx: ping.t_tx,
            hold_us: 0,
            t_rx: 0,
            rx_pkts: 0,
            rx_bytes: 0,
        }
    }

    #[test]
    fn the_first_ten_pings_come_every_100_ms_until_something_is_heard() {
        let mut probe = Probe::new(Time::default());
        let mut now = Time::default();
        for _ in 0..10 {
            assert_eq!(probe.due, now);
            ping(&mut probe, now, mood(false, false));
            now = now + 100 * MS;
        }
        ping(&mut probe, now, mood(false, false));
        assert!(probe.due.since(now) > 4 * Duration::from_secs(1), "slow from then on");

        let mut heard = Probe::new(Time::default());
        ping(&mut heard, Time::default(), mood(true, true));
        assert!((225..=275).contains(&heard.due.since(Time::default()).as_millis()));
    }

    #[test]
    fn a_path_is_down_after_three_unanswered_pings_and_not_before() {
        let mut probe = Probe::new(Time::default());
        let mut now = Time::default();
        let mut last = None;
        for expected in [false, false, true] {
            last = Some(ping(&mut probe, now, mood(true, true)));
            now = now + ANSWER_WITHIN;
            probe.judge(now, INTERVALS.active);
            assert_eq!(probe.is_down(now, Time::default()), expected);
        }

        assert!(probe.on_pong(now, &pong(&last.unwrap()), 1).is_some());

        assert!(!probe.is_down(now, Time::default()), "a late answer brings it back");
    }

    #[test]
    fn a_path_that_is_heard_is_down_after_ten_unanswered_pings_only() {
        let mut probe = Probe::new(Time::default());
        let mut now = Time::default();
        for n in 1..=10 {
            ping(&mut probe, now, mood(true, true));
            now = now + ANSWER_WITHIN;
            probe.judge(now, INTERVALS.active);
            assert_eq!(probe.is_down(now, now), n == 10, "{n}");
        }
    }

    #[test]
    fn an_unanswered_ping_on_an_idle_path_brings_the_next_one_forward() {
        let mut probe = Probe::new(Time::default());
        ping(&mut probe, Time::default(), mood(false, true));
        let missed = Time::default() + ANSWER_WITHIN;

        probe.judge(missed, INTERVALS.active);

        assert_eq!(probe.due, missed + INTERVALS.active);
    }

    #[test]
    fn the_time_that_the_peer_held_the_ping_is_not_part_of_the_round_trip() {
        let mut probe = Probe::new(Time::default());
        let first = ping(&mut probe, Time::default(), mood(true, true));

        probe.on_pong(Time::default() + 80 * MS, &Pong { hold_us: 30_000, ..pong(&first) }, 1);
        assert_eq!(probe.health.last_rtt(), Some(50 * MS));

        let second = ping(&mut probe, Time::default(), mood(true, true));
        probe.on_pong(Time::default() + 80 * MS, &Pong { hold_us: 90_000, ..pong(&second) }, 1);
        assert_eq!(probe.health.last_rtt(), Some(Duration::from_micros(1)), "never below");
    }

    #[test]
    fn a_pong_that_answers_nothing_is_ignored() {
        let mut probe = Probe::new(Time::default());
        let sent = ping(&mut probe, Time::default(), mood(true, true));

        let wrong_number = Pong { seq: 99, ..pong(&sent) };
        let wrong_time = Pong { t_tx: 99, ..pong(&sent) };

        assert_eq!(probe.on_pong(Time::default(), &wrong_number, 1), None);
        assert_eq!(probe.on_pong(Time::default(), &wrong_time, 1), None);
    }
}
