// SPDX-License-Identifier: BSD-2-Clause
//! What became of the datagrams of one contender: a path alone, or the tunnel.

use std::time::Duration;

/// The datagrams that were sent, by number, and the echoes that came back. Times count from the
/// start of the measurement.
#[derive(Debug, Default)]
pub struct Tally {
    sent: Vec<Sent>,
    twice: u64,
    altered: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Duration,
    round_trip: Option<Duration>,
}

/// A [`Tally`] as it is at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Datagrams sent so far.
    pub sent: usize,
    /// Of these, the ones whose echo came back.
    pub delivered: usize,
    /// The share of datagrams without an echo, 0 to 1, among those that are not on their way any
    /// more; `None` before there is one.
    pub loss: Option<f64>,
    /// The median round trip.
    pub round_trip: Option<Duration>,
    /// Echoes that came again.
    pub twice: u64,
    /// Echoes that were not what had been sent.
    pub altered: u64,
    /// The share delivered of what was sent in each part of the whole time, 0 to 1, as far as it
    /// is known.
    pub timeline: Vec<f64>,
}

impl Report {
    /// The share delivered of all that was sent, 0 to 1.
    pub fn share(&self) -> f64 {
        share(self.delivered, self.sent).unwrap_or(0.0)
    }
}

impl Tally {
    /// The next datagram is sent at `at`. Returns its number.
    pub fn on_sent(&mut self, at: Duration) -> u32 {
        self.sent.push(Sent { at, round_trip: None });
        u32::try_from(self.sent.len() - 1).expect("a demo sends for minutes, not for months")
    }

    /// The echo of `number` came back at `at`.
    pub fn on_echo(&mut self, number: u32, at: Duration) {
        match usize::try_from(number).ok().and_then(|number| self.sent.get_mut(number)) {
            Some(sent) if sent.round_trip.is_none() => {
                sent.round_trip = Some(at.saturating_sub(sent.at));
            }
            Some(_) => self.twice += 1,
            None => self.altered += 1,
        }
    }

    /// Something came back that had never been sent.
    pub fn on_altered(&mut self) {
        self.altered += 1;
    }

    /// When the first echo came of what was sent after `start`.
    pub fn first_echo_since(&self, start: Duration) -> Option<Duration> {
        let first = self.sent.partition_point(|sent| sent.at <= start);
        let echoes = self.sent[first..].iter();
        echoes.filter_map(|sent| Some(sent.at + sent.round_trip?)).min()
    }

    /// The share delivered, 0 to 1, of what was not sent from `start` to `end`.
    pub fn share_outside(&self, start: Duration, end: Duration) -> Option<f64> {
        let outside = || self.sent.iter().filter(|sent| sent.at < start || sent.at > end);
        share(outside().filter(|sent| sent.round_trip.is_some()).count(), outside().count())
    }

    /// How things are at `now`, with a timeline of `parts` parts for the whole time, `total`.
    /// Datagrams sent less than `on_their_way` ago may still come back.
    pub fn report(
        &self,
        now: Duration,
        on_their_way: Duration,
        total: Duration,
        parts: u32,
    ) -> Report {
        let settled = now.saturating_sub(on_their_way);
        let judged = &self.sent[..self.sent.partition_point(|sent| sent.at <= settled)];
        let mut round_trips: Vec<Duration> =
            self.sent.iter().filter_map(|sent| sent.round_trip).collect();
        let part = total / parts;
        let timeline = (1..=parts).take_while(|end| part * *end <= settled).map_while(|end| {
            let before = |end| self.sent.partition_point(|sent| sent.at < part * end);
            let of_part = &self.sent[before(end - 1)..before(end)];
            share(count_delivered(of_part), of_part.len())
        });
        Report {
            sent: self.sent.len(),
            delivered: round_trips.len(),
            loss: share(judged.len() - count_delivered(judged), judged.len()),
            round_trip: median(&mut round_trips),
            twice: self.twice,
            altered: self.altered,
            timeline: timeline.collect(),
        }
    }
}

fn count_delivered(sent: &[Sent]) -> usize {
    sent.iter().filter(|sent| sent.round_trip.is_some()).count()
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn median(values: &mut [Duration]) -> Option<Duration> {
    let middle = values.len().checked_sub(1)? / 2;
    Some(*values.select_nth_unstable(middle).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Ten datagrams, 100 ms apart, of which these come back after these many milliseconds.
    fn tally(echoes: &[(u32, u64)]) -> Tally {
        let mut tally = Tally::default();
        for number in 0..10 {
            assert_eq!(tally.on_sent(ms(100 * u64::from(number))), number);
        }
        for (number, after) in echoes {
            tally.on_echo(*number, ms(100 * u64::from(*number) + after));
        }
        tally
    }

    #[test]
    fn what_is_on_its_way_is_not_lost() {
        let tally = tally(&[(0, 20), (2, 40), (9, 30)]);

        let report = tally.report(ms(950), ms(250), ms(1000), 4);

        assert_eq!((report.sent, report.delivered), (10, 3));
        // Of the eight that were sent up to 700 ms, two came back.
        assert_eq!(report.loss, Some(0.75));
        assert_eq!(report.round_trip, Some(ms(30)));
        // Three were sent in the first 250 ms and two in the next; the third part is not over.
        assert_eq!(report.timeline, [2.0 / 3.0, 0.0]);
        assert_eq!(report.share(), 0.3);
    }

    #[test]
    fn nothing_is_said_of_datagrams_before_there_is_one() {
        assert_eq!(Tally::default().report(ms(0), ms(0), ms(1000), 4), Report::default());
    }

    #[test]
    fn an_echo_counts_once_and_its_repetition_as_such() {
        let mut tally = tally(&[(3, 10), (3, 11), (3, 90)]);
        tally.on_echo(10, ms(950));
        tally.on_altered();

        let report = tally.report(ms(1000), ms(0), ms(1000), 1);

        assert_eq!((report.delivered, report.twice, report.altered), (1, 2, 2));
        assert_eq!(report.round_trip, Some(ms(10)));
    }

    #[test]
    fn an_outage_ends_with_the_first_echo_of_what_was_sent_in_it() {
        // The echo of number 2 comes late, but was sent before.
        let tally = tally(&[(2, 400), (7, 60), (6, 180)]);

        assert_eq!(tally.first_echo_since(ms(200)), Some(ms(760)));
        assert_eq!(tally.first_echo_since(ms(700)), None);
        assert_eq!(tally.share_outside(ms(300), ms(500)), Some(3.0 / 7.0));
        assert_eq!(tally.share_outside(ms(0), ms(900)), None);
    }
}
