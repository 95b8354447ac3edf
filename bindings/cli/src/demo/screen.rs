// SPDX-License-Identifier: BSD-2-Clause
//! Where the table goes: redrawn in place on a terminal, and otherwise a line each second.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use terminal_size::{Height, Width, terminal_size_of};

use super::scene::PATHS;
use super::table::{self, Paint, Style, TIMELINE, View, WIDTH};
use super::tally::Report;
use super::verdict::{Verdict, percent};

/// Standard output.
pub struct Screen {
    style: Style,
    total: Duration,
    mode: Mode,
}

enum Mode {
    /// A terminal of this many rows.
    Live { rows: usize, drawn: usize, redraw_at: Option<Instant> },
    /// Anything else.
    Plain { seconds: usize, events: usize },
}

impl Screen {
    /// Begins to show a demo of length `total`, in place only if that is possible.
    pub fn open(plain: bool, total: Duration) -> io::Result<Screen> {
        let stdout = io::stdout();
        let size = terminal_size_of(&stdout).filter(|_| !plain && stdout.is_terminal());
        let fits = |(Width(columns), Height(rows)): &(Width, Height)| {
            usize::from(*columns) >= WIDTH && usize::from(*rows) >= LEAST_ROWS
        };
        let mode = match size.filter(fits) {
            Some((_, Height(rows))) => Mode::Live { rows: rows.into(), drawn: 0, redraw_at: None },
            None => Mode::Plain { seconds: 0, events: 0 },
        };
        let live = matches!(mode, Mode::Live { .. });
        let style = Style { colour: live && !is_set("NO_COLOR"), unicode: live && is_utf8() };
        let screen = Screen { style, total, mode };
        screen.print(&[table::heading(style, total), vec![String::new()]].concat())?;
        if live {
            // Hides the cursor (DECTCEM), which would flicker.
            write_out("\x1b[?25l")?;
        } else {
            screen.print(&[seconds_heading()])?;
        }
        Ok(screen)
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
                self.print(&lines)
            }
        }
    }

    /// Draws everything anew over what was drawn before.
    fn redraw(&mut self, view: &View) -> io::Result<()> {
        let Mode::Live { rows, drawn, .. } = &mut self.mode else { return Ok(()) };
        let mut lines = table_and_legend(self.style, view);
        // The cursor stands below the last line, and all lines must stay within its reach.
        let room = (*rows - 1).saturating_sub(lines.len());
        let events = &view.events[view.events.len().saturating_sub(room)..];
        lines.extend(events.iter().map(|event| table::event(self.style, event)));
        // Back to the first line (CUU); what is longer than the new line is erased (EL), and what
        // is below the last one (ED). Nothing wraps while the window is made narrower (DECAWM).
        let mut text = "\x1b[?7l".to_owned();
        if *drawn > 0 {
            text += &format!("\x1b[{drawn}A");
        }
        for line in &lines {
            text += &format!("\r{line}\x1b[K\n");
        }
        text += "\x1b[J\x1b[?7h";
        *drawn = lines.len();
        write_out(&text)
    }

    /// Shows the whole, and what it means.
    pub fn close(self, view: &View, verdict: &Verdict) -> io::Result<()> {
        let mut lines = Vec::new();
        let mut conclusion = vec![verdict.to_string()];
        if let Mode::Live { drawn, .. } = &self.mode {
            // In the order of time now: if not all fits the screen, the end does.
            if *drawn > 0 {
                write_out(&format!("\x1b[{drawn}A\r\x1b[J"))?;
            }
            lines.extend(view.events.iter().map(|event| table::event(self.style, event)));
            conclusion = wrapped(&conclusion[0], WIDTH);
        }
        lines.push(String::new());
        lines.extend(table_and_legend(self.style, view));
        let paint = if verdict.faults().is_empty() { Paint::Bold } else { Paint::Red };
        lines.extend(conclusion.iter().map(|line| self.style.paint(paint, line)));
        self.print(&lines)
    }

    fn print(&self, lines: &[String]) -> io::Result<()> {
        write_out(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if matches!(self.mode, Mode::Live { .. }) {
            // The cursor is back; if the terminal is gone, nobody misses it.
            let _ = write_out("\x1b[?25h");
        }
    }
}

fn table_and_legend(style: Style, view: &View) -> Vec<String> {
    let gap = || vec![String::new()];
    [table::table(style, view), gap(), table::legend(style), gap()].concat()
}

/// A text in lines of at most `width` columns.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= width => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
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

fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Whether a variable is set to something (as <https://no-color.org> has it).
pub(crate) fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// Whether the locale says that the terminal shows UTF-8 (locale(7)).
pub(crate) fn is_utf8() -> bool {
    let values = ["LC_ALL", "LC_CTYPE", "LANG"].map(|variable| env::var(variable).ok());
    let first = values.into_iter().flatten().find(|value| !value.is_empty());
    first.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.ends_with("utf-8") || locale.ends_with("utf8")
    })
}

const REDRAW_EVERY: Duration = Duration::from_millis(100);
/// Rows for the table, its legend, and a few events.
const LEAST_ROWS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_wrapped_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("one two three", 6), ["one", "two", "three"]);
    }

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
