// SPDX-License-Identifier: BSD-2-Clause
//! What probes tell about one path: round trip, jitter, loss in each direction.

use super::losses::{Direction, Losses, Lost, Windows};
use super::num::{micros, rough};
use super::sched::Measured;
use super::time::Time;
use std::time::Duration;

/// Estimates for one path. All of them start unknown.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Times in microseconds; 0: unknown. A round trip counts as at least one.
    srtt_us: u32,
    quick_us: u32,
    last_us: u32,
    min_us: u32,
    jitter_us: f32,
    has_transit: bool,
    last_transit: (u64, u64),
    lost_out: LossEstimate,
    lost_in: LossEstimate,
    /// The origin of time: none came.
    last_pong: Time,
    /// What was lost lately: while it is told of often. On the heap, as a server has many paths of
    /// which few are busy.
    windows: Option<Box<Windows>>,
}

/// A direction that is told of less often than this is idle: its probes say little of loss.
const OFTEN: Duration = Duration::from_secs(2);
/// But so many packets are more than probes, as after an outage.
const MANY: u64 = 16;

/// What the network doubles looks the same as [`LossEstimate::early`]; it is to hide few losses.
const EARLY_AT_MOST: u8 = 16;

/// Loss of one direction: three means that forget at different speeds, and sums.
#[derive(Clone, Debug, Default)]
struct LossEstimate {
    /// Packets sent and arrived when it was last told.
    last: (u64, u64),
    session: u32,
    /// Whether `last` says anything.
    known: bool,
    /// Packets that had arrived by then without being counted as sent: who sends them counts them
    /// afterwards, and a PING may be made in between. They are among those of the next difference,
    /// where nothing arrives for them.
    early: u8,
    means: [Measured; 3],
    total: (u64, u64),
}

/// What a new sample leaves of the past, per probe: a third of it for changes that cannot wait; a
/// weight that halves every seven probes; one that halves every nine seconds, for what is small.
const MEMORY: [f32; 3] = [0.3, 0.9, 0.98];

impl LossEstimate {
    /// The sender had sent `sent` packets, of which `arrived` had arrived. Differences are taken
    /// within one session only, because the counters start again with each. Tells how many were
    /// sent since it was last told, and how many of them are lost.
    fn add(&mut self, session: u32, sent: u64, arrived: u64) -> (u64, u64) {
        let mut told = (0, 0);
        if self.known && self.session == session {
            let (sent_before, arrived_before) = self.last;
            // An old answer overtaken by a newer one tells nothing new.
            let Some(sent_now) = sent.checked_sub(sent_before) else { return told };
            let came = arrived.saturating_sub(arrived_before).saturating_add(self.early.into());
            let lost = sent_now.saturating_sub(came);
            let early = u8::try_from(came.saturating_sub(sent_now)).unwrap_or(u8::MAX);
            self.early = early.min(EARLY_AT_MOST);
            let (known, lost_before) = self.total;
            self.total = (known.saturating_add(sent_now), lost_before.saturating_add(lost));
            told = (sent_now, lost);
            for (mean, memory) in self.means.iter_mut().zip(MEMORY) {
                mean.sent = mean.sent * memory + rough(sent_now);
                mean.lost = mean.lost * memory + rough(lost);
            }
        }
        (self.session, self.last, self.known) = (session, (sent, arrived), true);
        told
    }

    fn fraction(&self) -> Option<f64> {
        let [_, mean, _] = self.means;
        (mean.sent >= 1.0).then(|| mean.fraction())
    }
}

/// Whether a round trip means that packets wait, where the shortest one is `least`: a quarter of it
/// and 5 ms more.
pub fn is_queue(rtt: Duration, least: Duration) -> bool {
    rtt > least.mul_f64(1.25).saturating_add(Duration::from_millis(5))
}

/// `duration` in microseconds, 1 to 71 minutes.
fn known_us(duration: Duration) -> u32 {
    u32::try_from(micros(duration)).unwrap_or(u32::MAX).max(1)
}

fn duration(us: u32) -> Option<Duration> {
    (us > 0).then(|| Duration::from_micros(us.into()))
}

impl Health {
    /// A PONG came: `rtt` without the time that the peer held the PING. What it tells of losses
    /// comes first.
    pub fn on_rtt(&mut self, now: Time, rtt: Duration) {
        let us = known_us(rtt);
        let moved = |mean: u32, kept: u32, of: u32| match mean {
            0 => us,
            mean => {
                let sum = u64::from(mean).saturating_mul(kept.into()).saturating_add(us.into());
                let mean = sum.checked_div(of.into()).unwrap_or(sum);
                u32::try_from(mean).unwrap_or(u32::MAX).max(1)
            }
        };
        // RFC 6298, section 2: the smoothed mean moves by an eighth of the difference.
        self.srtt_us = moved(self.srtt_us, 7, 8);
        self.quick_us = moved(self.quick_us, 1, 2);
        self.last_us = us;
        self.min_us = if self.min_us == 0 { us } else { self.min_us.min(us) };
        self.last_pong = now;
    }

    /// A PONG told that of `sent` packets of this session `arrived` had arrived. How many were sent
    /// since that was last told, and how many of them are lost.
    pub fn on_arrivals(&mut self, now: Time, session: u32, sent: u64, arrived: u64) -> (u64, u64) {
        let told = self.lost_out.add(session, sent, arrived);
        self.keep_windows(now, Direction::Out, told);
        told
    }

    /// Puts what was told at `now` into the windows, if there are any or should be.
    fn keep_windows(&mut self, now: Time, direction: Direction, (sent, lost): (u64, u64)) {
        let (_, ping) = self.last_transit;
        let (this, other) = match direction {
            Direction::Out => (self.last_pong, Time::from_micros(ping)),
            Direction::In => (Time::from_micros(ping), self.last_pong),
        };
        if now.since(this) < OFTEN || sent >= MANY {
            self.windows.get_or_insert_default();
        } else if now.since(other) >= OFTEN {
            self.windows = None;
        }
        if let Some(windows) = &mut self.windows {
            windows.add(now, direction, sent, lost);
        }
    }

    /// A PING came, stamped `t_tx` by the peer's clock; of `sent` packets that the peer had sent
    /// `arrived` had arrived.
    pub fn on_ping(&mut self, now: Time, t_tx: u64, session: u32, sent: u64, arrived: u64) {
        // RFC 3550, section 6.4.1: a sixteenth of the change of the transit time. Only differences
        // of the two clocks enter, so they need not agree.
        let here = now.as_micros();
        if self.has_transit {
            let (there_before, here_before) = self.last_transit;
            let there = t_tx.saturating_sub(there_before);
            let change = rough(here.saturating_sub(here_before).abs_diff(there));
            self.jitter_us += (change - self.jitter_us) / 16.0;
        }
        let told = self.lost_in.add(session, sent, arrived);
        self.keep_windows(now, Direction::In, told);
        (self.has_transit, self.last_transit) = (true, (t_tx, here));
    }

    /// The peer's clock or the path is another one: forget the transit time.
    pub fn on_new_peer(&mut self) {
        self.has_transit = false;
    }

    /// Smoothed round trip.
    pub fn srtt(&self) -> Option<Duration> {
        duration(self.srtt_us)
    }

    /// The same, moved by half of the difference by each answer.
    pub fn quick_rtt(&self) -> Option<Duration> {
        duration(self.quick_us)
    }

    /// The latest round trip.
    pub fn last_rtt(&self) -> Option<Duration> {
        duration(self.last_us)
    }

    /// The shortest round trip ever seen on this path.
    pub fn min_rtt(&self) -> Option<Duration> {
        duration(self.min_us)
    }

    /// Whether packets wait in front of the path now.
    pub fn is_queued(&self) -> bool {
        is_queue(self.quick_rtt().unwrap_or_default(), self.min_rtt().unwrap_or_default())
    }

    /// Jitter of arriving probes, smoothed.
    pub fn jitter(&self) -> Duration {
        Duration::from_secs_f64(f64::from(self.jitter_us.max(0.0)) / 1e6)
    }

    /// What was lost on the way out: of the last one or two probes, and of a quarter of a minute.
    pub fn losses_out(&self) -> (Measured, Measured) {
        let [recent, _, lasting] = self.lost_out.means;
        (recent, lasting)
    }

    /// The share of what is sent now that will be lost. An outage of the past is forgotten when
    /// enough has arrived since.
    pub fn expected_loss(&self) -> f64 {
        let (recent, _) = self.losses_out();
        let mean = self.loss_out().unwrap_or(0.0);
        let enough = recent.sent >= 20.0;
        if enough { mean.min(recent.fraction().max(mean / 10.0)) } else { mean }
    }

    /// What was lost in one direction, as seen at `now`.
    pub fn losses(&self, now: Time, direction: Direction) -> Losses {
        let total = match direction {
            Direction::Out => self.lost_out.total,
            Direction::In => self.lost_in.total,
        };
        let lately = self.windows.as_ref().map(|windows| windows.lately(now, direction));
        let [last_1s, last_10s] = lately.unwrap_or_default();
        Losses { last_1s, last_10s, total: Lost::of(total) }
    }

    /// Fraction lost on the way out, 0 to 1.
    pub fn loss_out(&self) -> Option<f64> {
        self.lost_out.fraction()
    }

    /// Fraction lost on the way in, 0 to 1.
    pub fn loss_in(&self) -> Option<f64> {
        self.lost_in.fraction()
    }

    /// When the last PONG came.
    pub fn last_pong(&self) -> Option<Time> {
        Some(self.last_pong).filter(|at| *at > Time::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_smoothed_round_trip_follows_rfc_6298() {
        let mut health = Health::default();
        health.on_rtt(Time::default(), 100 * MS);
        health.on_rtt(Time::default(), 180 * MS);

        assert_eq!(health.srtt(), Some(110 * MS));
        assert_eq!(health.quick_rtt(), Some(140 * MS));
        assert_eq!((health.last_rtt(), health.min_rtt()), (Some(180 * MS), Some(100 * MS)));
    }

    #[test]
    fn loss_is_unknown_at_first_and_then_the_share_that_did_not_arrive() {
        let mut health = Health::default();
        health.on_arrivals(Time::default(), 1, 1000, 900);
        assert_eq!(health.loss_out(), None);

        health.on_arrivals(Time::default(), 1, 2000, 1700);

        assert!((health.loss_out().unwrap() - 0.2).abs() < 1e-6);
        let total = health.losses(Time::default(), Direction::Out).total;
        assert_eq!((total.sent, total.lost), (1_000, 200));
    }

    #[test]
    fn the_means_forget_at_different_speeds() {
        let mut health = Health::default();
        for probe in 0..=40 {
            health.on_arrivals(Time::default(), 1, probe * 100, probe * 100);
        }
        health.on_arrivals(Time::default(), 1, 4_100, 4_050);

        let (recent, lasting) = health.losses_out();
        assert!((recent.fraction() - 0.35).abs() < 0.01, "{recent:?}");
        assert!((health.loss_out().unwrap() - 0.05).abs() < 0.01);
        assert!((lasting.fraction() - 0.0178).abs() < 0.001, "{lasting:?}");
    }

    #[test]
    fn a_packet_that_arrives_before_it_is_counted_as_sent_is_not_lost_afterwards() {
        let mut health = Health::default();
        let mut lost = |sent, arrived| health.on_arrivals(Time::default(), 1, sent, arrived).1;
        let told = [(0, 0), (100, 101), (200, 201), (300, 300), (400, 398), (500, 498)];
        assert_eq!(told.map(|(sent, arrived)| lost(sent, arrived)), [0, 0, 0, 0, 2, 0]);

        // The network doubles one in a hundred, and then loses sixty.
        for probe in 6..100 {
            assert_eq!(lost(probe * 100, probe * 101 - 8), 0);
        }
        assert_eq!(lost(10_000, 9_991 + 40), 60 - u64::from(EARLY_AT_MOST));
    }

    #[test]
    fn counters_that_start_again_with_a_session_are_not_taken_for_loss() {
        let mut health = Health::default();
        health.on_arrivals(Time::default(), 1, 1000, 1000);
        health.on_arrivals(Time::default(), 1, 2000, 2000);

        health.on_arrivals(Time::default(), 2, 10, 10);
        health.on_arrivals(Time::default(), 2, 1010, 1010);

        assert_eq!(health.loss_out(), Some(0.0));
    }

    #[test]
    fn an_overtaken_answer_and_more_arrivals_than_departures_do_no_harm() {
        let mut health = Health::default();
        for (sent, arrived) in [(100, 100), (50, 50), (200, 230)] {
            health.on_ping(Time::from_micros(sent), sent, 1, sent, arrived);
        }
        assert_eq!(health.loss_in(), Some(0.0));
    }

    #[test]
    fn jitter_needs_no_common_clock() {
        let mut health = Health::default();
        for i in 0..400u64 {
            let wobble = if i % 2 == 0 { 0 } else { 8_000 };
            health.on_ping(Time::from_micros(i * 250_000 + wobble), 9_999 + i * 250_000, 1, i, i);
        }
        let ms = health.jitter().as_secs_f64() * 1e3;
        assert!((7.5..8.5).contains(&ms), "{ms}");
    }
    /// A path on which PINGs and PONGs come every `every` ms from `from` to `until`, each of which
    /// tells of `sent` packets more, one in ten of them lost.
    fn run(health: &mut Health, from: u64, until: u64, every: usize, sent: u64) {
        for ms in (from..until).step_by(every) {
            let now = Time::from_micros(ms * 1_000);
            let (before, arrived) = health.lost_in.last;
            let (all, came) = (before + sent, arrived + sent - sent / 10);
            health.on_ping(now, ms * 1_000, 1, all, came);
            health.on_arrivals(now, 1, all, came);
            health.on_rtt(now, MS);
        }
    }

    #[test]
    fn a_busy_path_knows_its_losses_of_the_last_seconds_and_an_idle_one_holds_no_memory_for_them() {
        let mut health = Health::default();
        run(&mut health, 1_000, 21_000, 250, 100);
        let now = Time::from_micros(20_999_000);
        for direction in [Direction::Out, Direction::In] {
            let Losses { last_1s, last_10s, total } = health.losses(now, direction);
            assert_eq!((last_1s.sent, last_1s.lost), (500, 50));
            assert_eq!((last_10s.sent, last_10s.lost), (4_400, 440));
            assert_eq!((total.sent, total.lost), (7_900, 790));
        }

        run(&mut health, 26_000, 37_000, 5_000, 3);

        assert!(health.windows.is_none());
        let Losses { last_10s, total, .. } = health.losses(now, Direction::Out);
        assert_eq!((last_10s, total.sent), (Lost::default(), 7_909));
    }

    #[test]
    fn what_an_outage_cost_is_told_when_it_is_over_and_one_silent_direction_spoils_nothing() {
        let mut health = Health::default();
        run(&mut health, 1_000, 3_000, 250, 100);
        let back = Time::from_micros(60_000_000);
        health.on_arrivals(back, 1, 1_000, 740);
        health.on_rtt(back, MS);
        let told = health.losses(back, Direction::Out).last_1s;
        assert_eq!((told.sent, told.lost), (200, 180));

        // PINGs come, PONGs do not, but for one every ten seconds.
        for ms in (61_000..91_000).step_by(250) {
            let now = Time::from_micros(ms * 1_000);
            let sent = ms - 60_000;
            health.on_ping(now, ms * 1_000, 1, 1_000 + sent, 1_000 + sent);
            if ms % 10_000 == 0 {
                health.on_arrivals(now, 1, 1_000 + sent / 10_000, 740);
                health.on_rtt(now, MS);
            }
        }
        let told = health.losses(Time::from_micros(90_999_000), Direction::In).last_10s;
        assert_eq!((told.sent, told.lost), (11_000, 0));
    }
}
