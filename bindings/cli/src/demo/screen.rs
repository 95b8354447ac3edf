// SPDX-License-Identifier: BSD-2-Clause
//! Where the table goes: redrawn in place on a terminal, and otherwise a line each second.

use std::io;
use std::time::{Duration, Instant};

use super::scene::PATHS;
use super::table::{self, TIMELINE, View, WIDTH};
use super::tally::Report;
use super::verdict::{Verdict, percent};
use crate::terminal::{self, Canvas, Paint, Style, wrapped, write_out};

/// Standard output.
pub struct Screen {
    style: Style,
    total: Duration,
    mode: Mode,
}

enum Mode {
    /// A terminal of this many rows.
    Live { rows: usize, canvas: Canvas, redraw_at: Option<Instant> },
    /// Anything else.
    Plain { seconds: usize, events: usize },
}

impl Screen {
    /// Begins to show a demo of length `total`, in place only if that is possible.
    pub fn open(plain: bool, total: Duration) -> io::Result<Screen> {
        let size = terminal::size().filter(|_| !plain);
        let fits = |(columns, rows): &(usize, usize)| *columns >= WIDTH && *rows >= LEAST_ROWS;
        let size = size.filter(fits);
        let style = size.map_or(Style::default(), |_| Style::of_terminal());
        let heading = [table::heading(style, total), vec![String::new()]].concat();
        print(&heading)?;
        let mode = match size {
            Some((_, rows)) => Mode::Live { rows, canvas: Canvas::open()?, redraw_at: None },
            None => {
                print(&[seconds_heading()])?;
                Mode::Plain { seconds: 0, events: 0 }
            }
        };
        Ok(Screen { style, total, mode })
    }

    /// Parts of the whole time of which it wants to know the share delivered.
    pub fn parts(&self) -> u32 {
        match self.mode {
            Mode::Live { .. } => TIMELINE,
            Mode::Plain { .. } => u32::try_from(self.total.as_secs()).unwrap_or(1).max(1),
        }
    }

    /// Shows what there is to see, if there is something new.
    pub fn show(&mut self, view: &View) -> io::Result<()> {
        let now = Instant::now();
        match &mut self.mode {
            Mode::Live { redraw_at: Some(at), .. } if now < *at => Ok(()),
            Mode::Live { redraw_at, .. } => {
                *redraw_at = Some(now + REDRAW_EVERY);
                self.redraw(view)
            }
            Mode::Plain { seconds, events } => {
                let mut lines = Vec::new();
                for event in &view.events[*events..] {
                    lines.push(table::event(self.style, event));
                }
                for second in *seconds..view.tunnel.timeline.len() {
                    lines.push(second_line(view, second));
                }
                (*seconds, *events) = (view.tunnel.timeline.len(), view.events.len());
                print(&lines)
            }
        }
    }

    /// Draws everything anew over what was drawn before.
    fn redraw(&mut self, view: &View) -> io::Result<()> {
        let Mode::Live { rows, canvas, .. } = &mut self.mode else { return Ok(()) };
        let mut lines = table_and_legend(self.style, view);
        // The cursor stands below the last line, and all lines must stay within its reach.
        let room = (*rows - 1).saturating_sub(lines.len());
        let events = &view.events[view.events.len().saturating_sub(room)..];
        lines.extend(events.iter().map(|event| table::event(self.style, event)));
        canvas.redraw(&lines)
    }

    /// Shows the whole, and what it means.
    pub fn close(mut self, view: &View, verdict: &Verdict) -> io::Result<()> {
        let mut lines = Vec::new();
        let mut conclusion = vec![verdict.to_string()];
        if let Mode::Live { canvas, .. } = &mut self.mode {
            // In the order of time now: if not all fits the screen, the end does.
            canvas.erase()?;
            lines.extend(view.events.iter().map(|event| table::event(self.style, event)));
            conclusion = wrapped(&conclusion[0], WIDTH);
        }
        lines.push(String::new());
        lines.extend(table_and_legend(self.style, view));
        let paint = if verdict.faults().is_empty() { Paint::Bold } else { Paint::Red };
        lines.extend(conclusion.iter().map(|line| self.style.paint(paint, line)));
        print(&lines)
    }
}

fn print(lines: &[String]) -> io::Result<()> {
    write_out(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

fn table_and_legend(style: Style, view: &View) -> Vec<String> {
    let gap = || vec![String::new()];
    [table::table(style, view), gap(), table::legend(style), gap()].concat()
}

/// The title of the lines that are written each second.
fn seconds_heading() -> String {
    let paths = (1..=PATHS.len()).map(|path| format!("path {path} alone"));
    let columns = paths.chain(["tunnel".to_owned()]).map(|name| format!("{name:>17}"));
    format!(" second{}", columns.collect::<String>())
}

/// What was delivered of the datagrams sent in one second, and the median of all round trips.
fn second_line(view: &View, second: usize) -> String {
    let column = |report: &Report| {
        let share = report.timeline.get(second).map_or(String::new(), |share| percent(*share));
        let round_trip = report.round_trip.map_or(String::new(), table::millis);
        format!("{share:>9}{round_trip:>8}")
    };
    let columns: String = view.alone.iter().chain([&view.tunnel]).map(column).collect();
    format!("{:>7}{columns}", second + 1)
}

const REDRAW_EVERY: Duration = Duration::from_millis(100);
/// Rows for the table, its legend, and a few events.
const LEAST_ROWS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_a_line_of_columns() {
        let report = |share, ms| Report {
            timeline: vec![0.5, share],
            round_trip: Some(Duration::from_millis(ms)),
            ..Report::default()
        };
        let view = View {
            now: Duration::from_secs(3),
            alone: vec![report(0.81, 41), report(0.0, 71), report(0.8049, 121)],
            tunnel: report(1.0, 41),
            removed: None,
            path_down: Some(1),
            server_down: false,
            events: Vec::new(),
        };

        assert_eq!(
            [seconds_heading(), second_line(&view, 1)],
            [
                " second     path 1 alone     path 2 alone     path 3 alone           tunnel",
                "      2   81.0 %   41 ms    0.0 %   71 ms   80.4 %  121 ms  100.0 %   41 ms",
            ]
        );
    }
}
