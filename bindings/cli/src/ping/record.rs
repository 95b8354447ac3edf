// SPDX-License-Identifier: BSD-2-Clause
//! What came of each round: all paths are asked at one moment, and each answers or does not.

use std::time::Duration;

/// All rounds so far. Times count from the first one.
pub(crate) struct Record {
    rounds: Vec<Duration>,
    /// The paths in their order, and the tunnel last.
    pub(crate) lanes: Vec<Lane>,
    /// Unanswered rounds in a row that make an outage.
    outage_rounds: usize,
}

/// One path, or the tunnel.
pub(crate) struct Lane {
    pub(crate) name: String,
    /// The round trip of each round, in ms; NaN without an answer. (A day of five rounds a second
    /// and lane takes 1.7 MB.)
    answers: Vec<f32>,
    /// Smoothed as RFC 6298 has it, in ms.
    smoothed: Option<f32>,
    /// The sum of the rounds before `summed`, to which no answer will come any more.
    sum: Sum,
    summed: usize,
    /// Rounds that were looked at for an outage, and how many of the last of them were lost.
    judged: usize,
    lost_in_a_row: usize,
    pub(crate) outages: Vec<Outage>,
}

/// A time without answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Outage {
    /// When the first round of it was asked.
    pub(crate) from: Duration,
    /// When the first round after it was asked; `None`: it lasts.
    pub(crate) until: Option<Duration>,
    /// Its rounds.
    pub(crate) rounds: usize,
}

/// What became of a round on one lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    /// The answer came, after so many milliseconds.
    Answered(f32),
    /// It may still come.
    Pending,
    /// It should have come.
    Lost,
}

/// Something that the operator wants to know at once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct News {
    pub(crate) lane: usize,
    pub(crate) outage: Outage,
}

/// What `ping` says at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Summary {
    pub(crate) sent: usize,
    pub(crate) answered: usize,
    /// Milliseconds; `None` without an answer.
    pub(crate) times: Option<Times>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Times {
    pub(crate) min: f64,
    pub(crate) avg: f64,
    pub(crate) max: f64,
    /// The standard deviation, as ping(8) has it.
    pub(crate) mdev: f64,
}

impl Summary {
    /// The share without an answer, in per cent.
    pub(crate) fn loss(&self) -> f64 {
        let lost = self.sent.saturating_sub(self.answered);
        if self.sent == 0 { 0.0 } else { 100.0 * lost as f64 / self.sent as f64 }
    }
}

impl Record {
    /// For paths of these names, asked every `interval`.
    pub(crate) fn new(paths: impl IntoIterator<Item = String>, interval: Duration) -> Record {
        let names = paths.into_iter().chain(["tunnel".to_owned()]);
        let rounds = OUTAGE_AFTER.as_secs_f64() / interval.as_secs_f64();
        let least = if interval <= OUTAGE_AFTER { OUTAGE_ROUNDS } else { OUTAGE_SLOW_ROUNDS };
        Record {
            rounds: Vec::new(),
            lanes: names.map(Lane::new).collect(),
            outage_rounds: (rounds.ceil() as usize).max(least),
        }
    }

    /// All lanes are asked at `at`.
    pub(crate) fn ask(&mut self, at: Duration) {
        self.rounds.push(at);
        self.lanes.iter_mut().for_each(|lane| lane.answers.push(f32::NAN));
    }

    /// An answer to what was asked at `asked`. One to another moment is of no round.
    pub(crate) fn answer(&mut self, lane: usize, asked: Duration, round_trip: Duration) {
        if let Ok(round) = self.rounds.binary_search(&asked) {
            self.lanes[lane].answer(round, round_trip.as_secs_f32() * 1e3);
        }
    }

    /// How many rounds there were.
    pub(crate) fn len(&self) -> usize {
        self.rounds.len()
    }

    /// When a round was asked.
    pub(crate) fn asked(&self, round: usize) -> Duration {
        self.rounds[round]
    }

    /// What became of a round on a lane.
    pub(crate) fn fate(&self, lane: usize, round: usize, now: Duration) -> Fate {
        self.lanes[lane].fate(round, self.rounds[round], now)
    }

    /// Whether nothing is to be waited for in this round any more.
    pub(crate) fn is_settled(&self, round: usize, now: Duration) -> bool {
        (0..self.lanes.len()).all(|lane| self.fate(lane, round, now) != Fate::Pending)
    }

    /// Whether nothing is to be waited for any more.
    pub(crate) fn is_all_settled(&self, now: Duration) -> bool {
        let young = |round: &usize| self.rounds[*round] + LONGEST_PATIENCE > now;
        (0..self.len()).rev().take_while(young).all(|round| self.is_settled(round, now))
    }

    /// The outages that began or ended since the last call.
    pub(crate) fn watch(&mut self, now: Duration) -> Vec<News> {
        let mut news = Vec::new();
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            lane.sum_up(&self.rounds, now);
            let told = lane.watch(&self.rounds, self.outage_rounds, now);
            news.extend(told.into_iter().map(|outage| News { lane: number, outage }));
        }
        news
    }

    /// The sum of a lane, without what may still be answered.
    pub(crate) fn summary(&self, lane: usize, now: Duration) -> Summary {
        let pending = (0..self.len()).rev();
        let pending = pending.take_while(|round| self.rounds[*round] + LONGEST_PATIENCE > now);
        let pending = pending.filter(|round| self.fate(lane, *round, now) == Fate::Pending).count();
        self.lanes[lane].summary(pending)
    }
}

impl Lane {
    fn new(name: String) -> Lane {
        Lane {
            name,
            answers: Vec::new(),
            smoothed: None,
            sum: Sum::default(),
            summed: 0,
            judged: 0,
            lost_in_a_row: 0,
            outages: Vec::new(),
        }
    }

    fn answer(&mut self, round: usize, ms: f32) {
        let Some(known) = self.answers.get_mut(round) else { return };
        // Of several answers the first one counts: that is what a tunnel delivers.
        if known.is_nan() || ms < *known {
            if round < self.summed {
                self.sum.add(ms);
            }
            *known = ms;
        }
        self.smoothed = Some(self.smoothed.map_or(ms, |smoothed| smoothed + (ms - smoothed) / 8.0));
    }

    /// How long an answer may take: as the library itself judges its paths.
    fn patience(&self) -> Duration {
        let Some(smoothed) = self.smoothed else { return FIRST_PATIENCE };
        Duration::from_secs_f32(smoothed * 2e-3).clamp(LEAST_PATIENCE, LONGEST_PATIENCE)
    }

    fn fate(&self, round: usize, asked: Duration, now: Duration) -> Fate {
        match self.answers[round] {
            ms if !ms.is_nan() => Fate::Answered(ms),
            _ if now.saturating_sub(asked) < self.patience() => Fate::Pending,
            _ => Fate::Lost,
        }
    }

    /// The last answer, in ms.
    pub(crate) fn last(&self) -> Option<f32> {
        self.answers.iter().rev().copied().find(|ms| !ms.is_nan())
    }

    /// Whether it is in an outage.
    pub(crate) fn is_out(&self) -> bool {
        self.outages.last().is_some_and(|outage| outage.until.is_none())
    }

    fn watch(&mut self, rounds: &[Duration], enough: usize, now: Duration) -> Vec<Outage> {
        let mut news = Vec::new();
        while let Some(asked) = rounds.get(self.judged).copied() {
            match self.fate(self.judged, asked, now) {
                Fate::Pending => break,
                Fate::Lost => {
                    self.lost_in_a_row += 1;
                    if let Some(outage) = self.outages.last_mut().filter(|o| o.until.is_none()) {
                        outage.rounds = self.lost_in_a_row;
                    } else if self.lost_in_a_row >= enough {
                        let from = rounds[self.judged + 1 - self.lost_in_a_row];
                        let rounds = self.lost_in_a_row;
                        self.outages.push(Outage { from, until: None, rounds });
                        news.extend(self.outages.last());
                    }
                }
                Fate::Answered(_) => {
                    self.lost_in_a_row = 0;
                    if let Some(outage) = self.outages.last_mut().filter(|o| o.until.is_none()) {
                        outage.until = Some(asked);
                        news.push(*outage);
                    }
                }
            }
            self.judged += 1;
        }
        news
    }

    /// Adds up what is so old that it stays as it is.
    fn sum_up(&mut self, rounds: &[Duration], now: Duration) {
        while rounds.get(self.summed).is_some_and(|asked| *asked + SUMMED_AFTER < now) {
            self.sum.add(self.answers[self.summed]);
            self.summed += 1;
        }
    }

    fn summary(&self, pending: usize) -> Summary {
        let mut sum = self.sum;
        self.answers[self.summed..].iter().for_each(|ms| sum.add(*ms));
        let sent = self.answers.len().saturating_sub(pending);
        Summary { sent, answered: sum.count, times: sum.times() }
    }
}

/// Answers added up.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: usize,
    sum: f64,
    squares: f64,
    min: f64,
    max: f64,
}

impl Sum {
    /// Adds a round; one without an answer is NaN.
    fn add(&mut self, ms: f32) {
        if ms.is_nan() {
            return;
        }
        let ms = f64::from(ms);
        self.min = if self.count == 0 { ms } else { self.min.min(ms) };
        self.max = self.max.max(ms);
        self.count += 1;
        (self.sum, self.squares) = (self.sum + ms, self.squares + ms * ms);
    }

    fn times(&self) -> Option<Times> {
        if self.count == 0 {
            return None;
        }
        let avg = self.sum / self.count as f64;
        let mdev = (self.squares / self.count as f64 - avg * avg).max(0.0).sqrt();
        Some(Times { min: self.min, avg, max: self.max, mdev })
    }
}

/// How long an answer may take before there is a first one, at least, and at most.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
const LEAST_PATIENCE: Duration = Duration::from_millis(250);
const LONGEST_PATIENCE: Duration = Duration::from_secs(4);
/// Rounds are added up for good after this: a session does not wait longer for anything.
const SUMMED_AFTER: Duration = Duration::from_secs(60);
/// An outage is so many unanswered rounds in a row, over so long a time: less is loss. (Five are one
/// in 3,000 on a path that loses a fifth, three are one in 125; but who asks seldom waits long.)
const OUTAGE_ROUNDS: usize = 5;
const OUTAGE_SLOW_ROUNDS: usize = 3;
const OUTAGE_AFTER: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Ten rounds, 200 ms apart, of one path that answers these after 20 ms.
    fn record(answered: &[usize]) -> Record {
        let mut record = Record::new(["p".to_owned()], ms(200));
        for round in 0..10 {
            record.ask(ms(200 * round));
        }
        for round in answered {
            record.answer(0, ms(200 * *round as u64), ms(20));
        }
        record
    }

    #[test]
    fn an_answer_belongs_to_the_round_that_was_asked() {
        let mut record = record(&[0]);
        record.answer(0, ms(210), ms(20));

        assert_eq!(record.fate(0, 0, ms(2_000)), Fate::Answered(20.0));
        assert_eq!(record.fate(0, 1, ms(2_000)), Fate::Lost);
        assert_eq!(record.fate(0, 9, ms(2_049)), Fate::Pending);
        assert_eq!(record.fate(0, 9, ms(2_050)), Fate::Lost);
        record.answer(0, ms(1_800), ms(900));
        assert_eq!(record.fate(0, 9, ms(2_700)), Fate::Answered(900.0), "late is not lost");
    }

    #[test]
    fn an_outage_is_told_once_with_the_moment_it_began_and_once_with_its_end() {
        let mut record = record(&[0, 1, 8]);

        // The round of 1,200 ms is the fifth one without an answer; it is given up 250 ms later.
        (0..10).for_each(|round| record.answer(1, ms(200 * round), ms(20)));
        assert_eq!(record.watch(ms(1_449)), []);
        let begun = record.watch(ms(1_450));
        let outage = Outage { from: ms(400), until: None, rounds: 5 };
        assert_eq!(begun, [News { lane: 0, outage }]);
        assert!(record.lanes[0].is_out());

        let ended = record.watch(ms(2_000));
        let outage = Outage { from: ms(400), until: Some(ms(1_600)), rounds: 6 };
        assert_eq!(ended[0], News { lane: 0, outage });
        assert_eq!(record.lanes[0].outages, [outage]);
    }

    #[test]
    fn single_losses_are_no_outage() {
        let mut record = record(&[0, 2, 5, 8]);

        assert!(record.watch(ms(5_000)).iter().all(|news| news.lane != 0));
    }

    #[test]
    fn the_summary_is_that_of_ping() {
        let mut record = record(&[0, 1]);
        record.answer(0, ms(400), ms(50));

        let summary = record.summary(0, ms(1_900));

        assert_eq!((summary.sent, summary.answered), (9, 3), "the last one may still come");
        assert!((summary.loss() - 66.67).abs() < 0.01);
        let times = summary.times.unwrap();
        assert_eq!((times.min, times.avg, times.max), (20.0, 30.0, 50.0));
        assert!((times.mdev - 14.14).abs() < 0.01, "{times:?}");
        let much_later = ms(100_000);
        record.watch(much_later);
        record.answer(0, ms(1_800), ms(40));
        let summary = record.summary(0, much_later);
        assert_eq!((summary.sent, summary.answered), (10, 4));
        assert_eq!(summary.times.unwrap().avg, 32.5);
        assert_eq!(record.summary(1, ms(9_000)).times, None);
    }
}
