// SPDX-License-Identifier: BSD-2-Clause
//! When the bridge loses everything: by the clock, and by hand.

use std::time::Duration;

use mptunnel_core::proto::time::Time;

/// A switch that two timers and two signals turn. What came last holds.
#[derive(Clone, Debug)]
pub struct Blackout {
    dark: bool,
    after: Option<Duration>,
    lasts: Option<Duration>,
    begins: Time,
    ends: Time,
}

impl Blackout {
    /// Light, until `after` the first datagram; then dark, for as long as it `lasts` or for ever.
    pub fn new(after: Option<Duration>, lasts: Option<Duration>) -> Self {
        Blackout { dark: false, after, lasts, begins: Time::NEVER, ends: Time::NEVER }
    }

    /// A datagram came; the first one starts the clock.
    pub fn on_datagram(&mut self, now: Time) {
        if let Some(after) = self.after.take() {
            self.begins = now + after;
            self.ends = self.lasts.map_or(Time::NEVER, |lasts| self.begins + lasts);
        }
    }

    /// Somebody turned the switch by hand.
    pub fn turn(&mut self, dark: bool) {
        self.dark = dark;
    }

    /// Turns the switch if its time has come.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.begins <= now {
            self.begins = Time::NEVER;
            self.dark = true;
        }
        if self.ends <= now {
            self.ends = Time::NEVER;
            self.dark = false;
        }
    }

    /// When the switch will turn by itself.
    pub fn poll_timeout(&self) -> Option<Time> {
        Some(self.begins.min(self.ends)).filter(|&at| at != Time::NEVER)
    }

    /// True while everything is lost.
    pub fn is_dark(&self) -> bool {
        self.dark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_starts_with_the_first_datagram_and_runs_once() {
        let mut blackout = Blackout::new(Some(seconds(10)), Some(seconds(5)));
        assert_eq!(blackout.poll_timeout(), None);

        blackout.on_datagram(at(100));
        blackout.on_datagram(at(103));

        assert_eq!(blackout.poll_timeout(), Some(at(110)));
        let dark: Vec<bool> = [109, 110, 114, 115]
            .map(|now| {
                blackout.handle_timeout(at(now));
                blackout.is_dark()
            })
            .into();
        assert_eq!(dark, [false, true, true, false]);
        assert_eq!(blackout.poll_timeout(), None);
        blackout.on_datagram(at(120));
        assert_eq!(blackout.poll_timeout(), None);
    }

    #[test]
    fn without_an_end_a_blackout_lasts_until_somebody_ends_it() {
        let mut blackout = Blackout::new(Some(seconds(0)), None);
        blackout.on_datagram(at(1));
        blackout.handle_timeout(at(1));
        assert!(blackout.is_dark() && blackout.poll_timeout().is_none());

        blackout.turn(false);
        blackout.handle_timeout(at(1_000_000));

        assert!(!blackout.is_dark());
    }

    #[test]
    fn a_blackout_that_was_overslept_is_over() {
        let mut blackout = Blackout::new(Some(seconds(10)), Some(seconds(5)));
        blackout.on_datagram(at(0));

        blackout.handle_timeout(at(60));

        assert!(!blackout.is_dark());
    }

    fn at(s: u64) -> Time {
        Time::default() + seconds(s)
    }

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }
}
