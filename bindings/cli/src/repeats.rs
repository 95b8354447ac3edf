// SPDX-License-Identifier: BSD-2-Clause
//! A bound on log lines that strangers can bring about: one of each text, and a few in all, per
//! minute; how many were left out is told with the next one.

use std::time::{Duration, Instant};

/// How long a line stands for those like it.
const WINDOW: Duration = Duration::from_secs(60);
/// Different lines in that time.
const LINES: usize = 5;

/// The lines of one kind.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    begin: Option<Instant>,
    told: Vec<String>,
    left_out: u64,
}

impl Repeats {
    /// The line to write for `text`, if it is time for one.
    pub(crate) fn line(&mut self, now: Instant, text: String) -> Option<String> {
        if self.begin.is_none_or(|begin| now.duration_since(begin) >= WINDOW) {
            self.begin = Some(now);
            self.told.clear();
        }
        if self.told.len() >= LINES || self.told.contains(&text) {
            self.left_out += 1;
            return None;
        }
        let line = match std::mem::take(&mut self.left_out) {
            0 => text.clone(),
            left_out => format!("{text} (left out since the last such line: {left_out})"),
        };
        self.told.push(text);
        Some(line)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a point in time to count from")]
mod tests {
    use super::*;

    #[test]
    fn the_same_line_is_written_once_a_minute_with_how_often_it_was_left_out() {
        let mut repeats = Repeats::default();
        let begin = Instant::now();
        let mut line = |s: u64| repeats.line(begin + Duration::from_secs(s), "no".to_owned());

        assert_eq!(line(0).as_deref(), Some("no"));
        assert!((1..60).all(|s| line(s).is_none()));
        assert_eq!(line(60).as_deref(), Some("no (left out since the last such line: 59)"));
        assert_eq!(line(61), None);
        assert_eq!(line(180).as_deref(), Some("no (left out since the last such line: 1)"));
    }

    #[test]
    fn many_different_lines_are_cut_off_as_well() {
        let mut repeats = Repeats::default();
        let begin = Instant::now();

        let written = (0..1_000).filter_map(|n| repeats.line(begin, n.to_string())).count();

        assert_eq!(written, LINES);
        let next = repeats.line(begin + WINDOW, "next".to_owned()).unwrap();
        assert_eq!(next, "next (left out since the last such line: 995)");
    }
}
