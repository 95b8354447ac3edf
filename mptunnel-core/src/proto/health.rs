// SPDX-License-Identifier: BSD-2-Clause
//! What probes tell about one path: round trip, jitter, loss in each direction.

use super::num::approximate;
use super::time::Time;
use std::time::Duration;

/// Estimates for one path. All of them start unknown.
#[derive(Clone, Debug, Default)]
pub struct Health {
    srtt: Option<Duration>,
    last_rtt: Option<Duration>,
    min_rtt: Option<Duration>,
    jitter: Duration,
    last_transit: Option<(u64, u64)>,
    lost_out: LossEstimate,
    lost_in: LossEstimate,
    last_pong: Option<Time>,
}

/// Loss of one direction, as a mean in which a packet's weight halves every seven probes.
#[derive(Clone, Debug, Default)]
struct LossEstimate {
    session: u32,
    last: Option<(u64, u64)>,
    sent: f64,
    arrived: f64,
}

/// How much of the past a new sample leaves: 0.9 per probe.
const MEMORY: f64 = 0.9;

impl LossEstimate {
    /// The sender had sent `sent` packets, of which `arrived` had arrived. Differences are taken
    /// within one session only, because the counters start again with each.
    fn add(&mut self, session: u32, sent: u64, arrived: u64) {
        let before = self.last.filter(|_| self.session == session);
        if let Some((sent_before, arrived_before)) = before {
            // An old answer overtaken by a newer one tells nothing new.
            let Some(sent_now) = sent.checked_sub(sent_before) else { return };
            let arrived_now = arrived.saturating_sub(arrived_before);
            self.sent = self.sent * MEMORY + approximate(sent_now);
            self.arrived = self.arrived * MEMORY + approximate(arrived_now);
        }
        (self.session, self.last) = (session, Some((sent, arrived)));
    }

    fn fraction(&self) -> Option<f64> {
        (self.sent >= 1.0).then(|| (1.0 - self.arrived / self.sent).clamp(0.0, 1.0))
    }
}

impl Health {
    /// A PONG came: `rtt` without the time that the peer held the PING.
    pub fn on_rtt(&mut self, now: Time, rtt: Duration) {
        // RFC 6298, section 2: the smoothed mean moves by an eighth of the difference.
        self.srtt = Some(match self.srtt {
            None => rtt,
            Some(srtt) => srtt.mul_f64(0.875).saturating_add(rtt.mul_f64(0.125)),
        });
        self.last_rtt = Some(rtt);
        self.min_rtt = Some(self.min_rtt.map_or(rtt, |min| min.min(rtt)));
        self.last_pong = Some(now);
    }

    /// A PONG told that of `sent` packets of this session `arrived` had arrived.
    pub fn on_arrivals(&mut self, session: u32, sent: u64, arrived: u64) {
        self.lost_out.add(session, sent, arrived);
    }

    /// A PING came, stamped `t_tx` by the peer's clock; of `sent` packets that the peer had sent
    /// `arrived` had arrived.
    pub fn on_ping(&mut self, now: Time, t_tx: u64, session: u32, sent: u64, arrived: u64) {
        // RFC 3550, section 6.4.1: a sixteenth of the change of the transit time. Only differences
        // of the two clocks enter, so they need not agree.
        let here = now.as_micros();
        if let Some((there_before, here_before)) = self.last_transit {
            let there = t_tx.saturating_sub(there_before);
            let change = here.saturating_sub(here_before).abs_diff(there);
            let change = Duration::from_micros(change);
            self.jitter =
                self.jitter.mul_f64(15.0 / 16.0).saturating_add(change.mul_f64(1.0 / 16.0));
        }
        self.last_transit = Some((t_tx, here));
        self.lost_in.add(session, sent, arrived);
    }

    /// The peer's clock or the path is another one: forget the transit time.
    pub fn on_new_peer(&mut self) {
        self.last_transit = None;
    }

    /// Smoothed round trip.
    pub fn srtt(&self) -> Option<Duration> {
        self.srtt
    }

    /// The latest round trip.
    pub fn last_rtt(&self) -> Option<Duration> {
        self.last_rtt
    }

    /// The shortest round trip ever seen on this path.
    pub fn min_rtt(&self) -> Option<Duration> {
        self.min_rtt
    }

    /// Jitter of arriving probes, smoothed.
    pub fn jitter(&self) -> Duration {
        self.jitter
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
        self.last_pong
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
        assert_eq!((health.last_rtt(), health.min_rtt()), (Some(180 * MS), Some(100 * MS)));
    }

    #[test]
    fn loss_is_unknown_at_first_and_then_the_share_that_did_not_arrive() {
        let mut health = Health::default();
        health.on_arrivals(1, 1000, 900);
        assert_eq!(health.loss_out(), None);

        health.on_arrivals(1, 2000, 1700);

        assert!((health.loss_out().unwrap() - 0.2).abs() < 1e-9);
    }

    #[test]
    fn counters_that_start_again_with_a_session_are_not_taken_for_loss() {
        let mut health = Health::default();
        health.on_arrivals(1, 1000, 1000);
        health.on_arrivals(1, 2000, 2000);

        health.on_arrivals(2, 10, 10);
        health.on_arrivals(2, 1010, 1010);

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
}
