// SPDX-License-Identifier: BSD-2-Clause
//! What is shown while it runs, a table in place on a terminal and a line for each round anywhere
//! else, and the summary.

use std::time::Duration;

use super::record::{Fate, News, Record, Summary};
use crate::terminal::{self, Canvas, Paint, Style, clipped, columns, shortened, write_out};

/// Standard output.
pub(crate) struct Screen {
    style: Style,
    mode: Mode,
    interval: Duration,
    /// What happened so far, as lines.
    events: Vec<String>,
}

enum Mode {
    /// A table in place.
    Live { canvas: Canvas, redraw_at: Duration },
    /// A line for each round: so many were written, and so many events.
    Lines { rounds: usize, events: usize },
    /// The summary only.
    Quiet,
}

impl Screen {
    /// Begins to show.
    pub(crate) fn open(quiet: bool, plain: bool, interval: Duration) -> Screen {
        let canvas = || size().and_then(|_| Canvas::open().ok());
        let mode = match (quiet, plain) {
            (true, _) => Mode::Quiet,
            (false, true) => LINES,
            (false, false) => {
                canvas().map_or(LINES, |canvas| Mode::Live { canvas, redraw_at: Duration::ZERO })
            }
        };
        let style = match mode {
            Mode::Live { .. } => Style::of_terminal(),
            _ => Style::default(),
        };
        Screen { style, mode, interval, events: Vec::new() }
    }

    /// Says something before the first round.
    pub(crate) fn say(&self, line: &str) {
        if !matches!(self.mode, Mode::Quiet) {
            put(&format!("{line}\n"));
        }
    }

    /// Something happened at `at`.
    pub(crate) fn event(&mut self, at: Duration, text: &str) {
        self.events.push(format!("{:9.3} s  {text}", at.as_secs_f64()));
    }

    /// An outage began or ended.
    pub(crate) fn news(&mut self, now: Duration, record: &Record, news: &News) {
        let name = &record.lanes[news.lane].name;
        let outage = news.outage;
        let text = match outage.until {
            None => format!("{name}: OUTAGE since {:.1} s", outage.from.as_secs_f64()),
            Some(until) => format!(
                "{name}: answers again, after {} without ({} rounds)",
                seconds(until.saturating_sub(outage.from)),
                outage.rounds
            ),
        };
        self.event(now, &text);
    }

    /// Shows what is new.
    pub(crate) fn show(&mut self, record: &Record, now: Duration) {
        match &mut self.mode {
            Mode::Quiet => {}
            Mode::Lines { rounds, events } => {
                let mut text = String::new();
                for event in &self.events[*events..] {
                    text += &format!("{event}\n");
                }
                while *rounds < record.len() && record.is_settled(*rounds, now) {
                    text += &round_line(record, *rounds, now);
                    *rounds += 1;
                }
                *events = self.events.len();
                put(&text);
            }
            Mode::Live { redraw_at, .. } if now < *redraw_at => {}
            Mode::Live { canvas, redraw_at } => {
                *redraw_at = now + REDRAW_EVERY;
                let (width, rows) = size().unwrap_or((80, 24));
                let mut lines = table(self.style, record, self.interval, now, width);
                // The cursor stands below the last line, and all lines stay within its reach.
                lines.truncate(rows.saturating_sub(2));
                let room = rows.saturating_sub(2 + lines.len());
                lines.push(String::new());
                let events = self.events.iter().rev().take(room).rev();
                lines.extend(events.map(|event| clipped(event, width)));
                // The terminal is gone: the signal that says so ends this.
                let _ = canvas.redraw(&lines);
            }
        }
    }

    /// Shows what happened, in order, and the sum of it.
    pub(crate) fn close(mut self, record: &Record, now: Duration, echo: bool) {
        let mut text = String::new();
        if let Mode::Live { canvas, .. } = &mut self.mode {
            let _ = canvas.erase();
            self.events.iter().for_each(|event| text += &format!("{event}\n"));
        } else {
            self.show(record, now);
        }
        let width = terminal::size().map_or(usize::MAX, |(columns, _)| columns);
        text += &summary(record, now, self.interval, echo, width);
        put(&text);
    }
}

/// One round, when nothing more is to be expected of it.
fn round_line(record: &Record, round: usize, now: Duration) -> String {
    let mut line = format!("{:9.3} s", record.asked(round).as_secs_f64());
    for (number, lane) in record.lanes.iter().enumerate() {
        let fate = match record.fate(number, round, now) {
            Fate::Answered(ms) => format!("{} ms", millis(ms.into())),
            Fate::Pending | Fate::Lost => "lost".to_owned(),
        };
        line += &format!("  {} {fate:>8}", lane.name);
    }
    line + "\n"
}

/// The table: a heading, and a line for each lane with the latest rounds drawn.
fn table(
    style: Style,
    record: &Record,
    interval: Duration,
    now: Duration,
    width: usize,
) -> Vec<String> {
    let longest = record.lanes.iter().map(|lane| columns(&lane.name)).max().unwrap_or(0);
    let names = longest.clamp(6, (width / 5).clamp(12, 40));
    let cells = width.saturating_sub(names + NUMBERS + 3);
    let span = seconds(interval.saturating_mul(u32::try_from(cells).unwrap_or(1)));
    let heading = format!(
        "{:<names$}{:>8}{:>8}{:>8}{:>8}{:>8}  last {span}",
        "ms", "now", "min", "avg", "max", "loss"
    );
    let mut lines = vec![style.paint(Paint::Dim, &clipped(&heading, width))];
    let first = record.len().saturating_sub(cells);
    let slowest = (first..record.len())
        .flat_map(|round| (0..record.lanes.len()).map(move |lane| (lane, round)))
        .filter_map(|(lane, round)| match record.fate(lane, round, now) {
            Fate::Answered(ms) => Some(ms),
            _ => None,
        })
        .fold(1.0, f32::max);
    for (number, lane) in record.lanes.iter().enumerate() {
        let summary = record.summary(number, now);
        let (Summary { times, .. }, loss) = (summary, summary.loss());
        let number_of = |value: Option<f64>| value.map_or("-".to_owned(), millis);
        let last = match lane.is_out() {
            true => format!("{:>8}", "silent"),
            false => format!("{:>8}", number_of(lane.last().map(f64::from))),
        };
        let last = style.paint(if lane.is_out() { Paint::Red } else { Paint::Bold }, &last);
        let numbers = [times.map(|t| t.min), times.map(|t| t.avg), times.map(|t| t.max)]
            .map(|value| format!("{:>8}", number_of(value)));
        let share = format!("{:>8}", per_cent(loss));
        let share = if loss > 0.0 { style.paint(Paint::Yellow, &share) } else { share };
        let drawn: String = (first..record.len())
            .map(|round| cell(style, record.fate(number, round, now), slowest))
            .collect();
        let name = shortened(&lane.name, names);
        lines.push(format!("{name:<names$}{last}{}{share}  {drawn}", numbers.concat()));
    }
    lines
}

/// A round as one character: how long it took, against the longest that is in sight.
fn cell(style: Style, fate: Fate, slowest: f32) -> String {
    match (fate, style.unicode) {
        (Fate::Answered(ms), true) => {
            let level = (ms / slowest * 7.0).round().clamp(0.0, 7.0) as u32;
            char::from_u32(0x2581 + level).unwrap_or('.').to_string()
        }
        (Fate::Answered(_), false) => ".".to_owned(),
        (Fate::Pending, _) => " ".to_owned(),
        (Fate::Lost, _) => style.paint(Paint::Red, "x"),
    }
}

/// What is said at the end, in lines that fit `width` as far as names can be shortened.
fn summary(record: &Record, now: Duration, interval: Duration, echo: bool, width: usize) -> String {
    let longest = record.lanes.iter().map(|lane| columns(&lane.name)).max().unwrap_or(0);
    let names = longest.clamp(6, width.saturating_sub(SUMMARY).clamp(12, 40));
    let rounds = record.len();
    let how = if echo { "datagrams echoed by the target" } else { "first answer over any path" };
    let mut text = format!(
        "\n{rounds} rounds, one every {}; tunnel: {how}\n\n{:<names$}{:>6}{:>9}{:>8}  {:<28}outage\n",
        seconds(interval),
        "",
        "sent",
        "answered",
        "loss",
        "min/avg/max/mdev ms"
    );
    for (number, lane) in record.lanes.iter().enumerate() {
        let summary = record.summary(number, now);
        let times = summary
            .times
            .map_or("-".to_owned(), |t| [t.min, t.avg, t.max, t.mdev].map(millis).join("/"));
        let out = lane
            .outages
            .iter()
            .map(|outage| outage.until.unwrap_or(now).saturating_sub(outage.from))
            .max();
        let out = match (out, lane.outages.len()) {
            (None, _) => "none".to_owned(),
            (Some(out), 1) => seconds(out),
            (Some(out), more) => format!("{more}, {}", seconds(out)),
        };
        text += &format!(
            "{:<names$}{:>6}{:>9}{:>8}  {times:<28}{out}\n",
            shortened(&lane.name, names),
            summary.sent,
            summary.answered,
            per_cent(summary.loss()),
        );
    }
    text
}

/// A share as text; what is not nothing is never shown as nothing.
pub(crate) fn per_cent(share: f64) -> String {
    let rounded = format!("{share:.1} %");
    match rounded.as_str() {
        "0.0 %" if share > 0.0 => "<0.1 %".to_owned(),
        "100.0 %" if share < 100.0 => ">99.9 %".to_owned(),
        _ => rounded,
    }
}

/// Milliseconds with the digits that matter.
pub(crate) fn millis(ms: f64) -> String {
    match ms {
        ..10.0 => format!("{ms:.2}"),
        ..100.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

pub(crate) fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

/// Columns and rows of the terminal, if there is one with room for the table.
fn size() -> Option<(usize, usize)> {
    terminal::size().filter(|(columns, rows)| *columns >= 60 && *rows >= 6)
}

fn put(text: &str) {
    // Who closed the pipe has read enough; the exit status still tells.
    let _ = write_out(text);
}

/// Before the first line.
const LINES: Mode = Mode::Lines { rounds: 0, events: 0 };
/// Columns of the five numbers.
const NUMBERS: usize = 40;
/// Columns of the summary behind the names.
const SUMMARY: usize = 64;
const REDRAW_EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(200);

    /// Two paths, of which the second one falls silent after half of `rounds`.
    fn record(rounds: u32, names: [&str; 2]) -> Record {
        let mut record = Record::new(names.map(str::to_owned), STEP);
        for round in 0..rounds {
            let at = STEP * round;
            record.ask(at);
            for lane in [0, 1, 2] {
                if lane != 1 || round < rounds / 2 {
                    record.answer(lane, at, Duration::from_millis(12 + 20 * (lane as u64 % 2)));
                }
            }
        }
        record.watch(STEP * (rounds + 20));
        record
    }

    #[test]
    fn every_line_of_the_table_fits_the_terminal() {
        for width in [60, 80, 200] {
            let names = ["a.very.long.name.of.a.bridge.example:4000", "two"];
            let record = record(300, names);
            let lines = table(Style::default(), &record, STEP, STEP * 320, width);

            assert!(lines.iter().all(|line| columns(line) <= width), "{lines:#?}");
            assert_eq!(lines.len(), 4);
            assert!(
                lines[2].contains("silent") && lines[2].ends_with(&"x".repeat(4)),
                "{lines:#?}"
            );
        }
    }

    #[test]
    fn the_summary_has_a_line_for_each_path_and_the_tunnel() {
        let text = summary(&record(10, ["one", "two"]), STEP * 30, STEP, false, 80);

        let expected = "
10 rounds, one every 200 ms; tunnel: first answer over any path

        sent answered    loss  min/avg/max/mdev ms         outage
one       10       10   0.0 %  12.0/12.0/12.0/0.00         none
two       10        5  50.0 %  32.0/32.0/32.0/0.00         5.0 s
tunnel    10       10   0.0 %  12.0/12.0/12.0/0.00         none
";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_summary_fits_the_terminal() {
        let names = ["a.very.long.name.of.a.bridge.example:4000", "two"];
        let [narrow, wide] =
            [80, 200].map(|width| summary(&record(300, names), STEP * 320, STEP, false, width));

        assert!(narrow.lines().all(|line| columns(line) <= 80), "{narrow}");
        assert!(narrow.contains("\na.very...le:4000 "), "{narrow}");
        assert!(wide.contains("a.very.long.name.of."), "{wide}");
    }

    #[test]
    fn a_round_is_a_line_and_a_cell() {
        let record = record(10, ["one", "two"]);

        let line = round_line(&record, 9, STEP * 30);
        assert_eq!(line, "    1.800 s  one  12.0 ms  two     lost  tunnel  12.0 ms\n");
        let unicode = Style { unicode: true, ..Style::default() };
        assert_eq!(cell(unicode, Fate::Answered(32.0), 32.0), "█");
        assert_eq!(cell(unicode, Fate::Answered(0.1), 32.0), "▁");
        assert_eq!(cell(Style::default(), Fate::Lost, 32.0), "x");
    }

    #[test]
    fn what_is_not_nothing_is_not_shown_as_nothing() {
        assert_eq!(
            [0.0, 0.01, 99.99, 100.0].map(per_cent),
            ["0.0 %", "<0.1 %", ">99.9 %", "100.0 %"]
        );
        assert_eq!([0.5, 12.34, 1234.0].map(millis), ["0.50", "12.3", "1234"]);
    }
}
