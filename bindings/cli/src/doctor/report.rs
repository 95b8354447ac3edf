// SPDX-License-Identifier: BSD-2-Clause
//! What was found: as text for a terminal of 80 columns or more, and as JSON.

use std::io::{self, IsTerminal};

use serde_json::{Value, json};

use crate::terminal::{self, Paint, Style, harmless, wrapped, write_out};

/// How bad a finding is. The number is the exit status of a report that has nothing worse.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Level {
    /// As it should be, or good to know.
    Ok = 0,
    /// It works, but not as well as it could, or not for long.
    Warning = 1,
    /// Something does not work.
    Fault = 2,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Finding {
    /// What it is about: a path, a name, a file. Empty: this machine or the tunnel as a whole.
    pub(crate) subject: String,
    pub(crate) level: Level,
    /// One sentence without its end.
    pub(crate) text: String,
    /// What to do about it, one line.
    pub(crate) remedy: Option<String>,
}

impl Finding {
    pub(crate) fn ok(subject: impl Into<String>, text: impl Into<String>) -> Finding {
        let (subject, text) = (subject.into(), text.into());
        Finding { subject, level: Level::Ok, text, remedy: None }
    }

    pub(crate) fn warning(
        subject: impl Into<String>,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding { level: Level::Warning, remedy: Some(remedy.into()), ..Self::ok(subject, text) }
    }

    pub(crate) fn fault(
        subject: impl Into<String>,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding { level: Level::Fault, remedy: Some(remedy.into()), ..Self::ok(subject, text) }
    }
}

/// A report under way: sections of findings, told as they come.
pub(crate) struct Report {
    json: bool,
    role: &'static str,
    look: Look,
    sections: Vec<(&'static str, Vec<Finding>)>,
}

/// How it is shown.
#[derive(Clone, Copy, Default)]
struct Look {
    width: usize,
    style: Style,
}

impl Report {
    /// A report on one end of a tunnel, `client` or `server`.
    pub(crate) fn new(json: bool, role: &'static str) -> Report {
        let look = match terminal::size() {
            Some((columns, _)) => {
                Look { width: columns.clamp(40, 100), style: Style::of_terminal() }
            }
            None => Look { width: 80, style: Style::default() },
        };
        Report { json, role, look, sections: vec![] }
    }

    /// Tells what was found about one matter, if anything was.
    pub(crate) fn section(&mut self, check: &'static str, findings: Vec<Finding>) {
        if findings.is_empty() {
            return;
        }
        if !self.json {
            let mut text = heading(self.look.style, check);
            findings.iter().for_each(|finding| text += &lines(self.look, finding));
            put(&text);
        }
        self.sections.push((check, findings));
    }

    /// On a terminal: what takes a while now. The next section takes its place.
    pub(crate) fn busy(&self, with: &str) {
        if !self.json && io::stderr().is_terminal() && self.look.style.colour {
            eprint!("{with} ...\r");
        }
    }

    /// Tells the sum of it, and the exit status.
    pub(crate) fn close(self) -> Level {
        let count = |level| self.findings().filter(|finding| finding.level == level).count();
        let (faults, warnings) = (count(Level::Fault), count(Level::Warning));
        let worst = self.findings().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        if self.json {
            put(&format!("{:#}\n", self.to_json(worst)));
        } else {
            let number = |count, what| match count {
                1 => format!("1 {what}"),
                _ => format!("{count} {what}s"),
            };
            let verdict = match (faults, warnings) {
                (0, 0) => "everything is as it should be".to_owned(),
                _ => format!(
                    "{}, {}{}",
                    number(faults, "fault"),
                    number(warnings, "warning"),
                    self.subjects()
                ),
            };
            let verdict = wrapped(&verdict, self.look.width).join("\n");
            put(&format!("\n{verdict}\n"));
        }
        worst
    }

    /// What is not as it should be, in few words: the report may have scrolled away.
    fn subjects(&self) -> String {
        let mut subjects: Vec<&str> = Vec::new();
        for finding in self.findings().filter(|finding| finding.level != Level::Ok) {
            if !finding.subject.is_empty() && !subjects.contains(&finding.subject.as_str()) {
                subjects.push(&finding.subject);
            }
        }
        if subjects.is_empty() { String::new() } else { format!(": {}", subjects.join(", ")) }
    }

    fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.sections.iter().flat_map(|(_, findings)| findings)
    }

    fn to_json(&self, worst: Level) -> Value {
        let findings = self.sections.iter().flat_map(|(check, findings)| {
            findings.iter().map(move |finding| {
                json!({
                    "check": check,
                    "subject": finding.subject,
                    "level": word(finding.level),
                    "text": finding.text,
                    "remedy": finding.remedy,
                })
            })
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "role": self.role,
            "verdict": word(worst),
            "findings": findings.collect::<Vec<_>>(),
        })
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Fault => "fault",
    }
}

fn heading(style: Style, check: &str) -> String {
    // What `busy` wrote is erased (EL).
    let erase = if style.colour { "\x1b[K" } else { "" };
    format!("{erase}{}\n", style.paint(Paint::Bold, check))
}

/// A finding with its remedy, wrapped.
fn lines(look: Look, finding: &Finding) -> String {
    let (label, colour) = match finding.level {
        Level::Ok => ("ok", Paint::Green),
        Level::Warning => ("warning", Paint::Yellow),
        Level::Fault => ("FAULT", Paint::Red),
    };
    let label = look.style.paint(colour, &format!("{label:<8}"));
    let sentence = match finding.subject.as_str() {
        "" => finding.text.clone(),
        subject => format!("{subject}: {}", finding.text),
    };
    let room = look.width.saturating_sub(INDENT);
    let mut text = String::new();
    for (number, line) in wrapped(&harmless(&sentence), room).iter().enumerate() {
        match number {
            0 => text += &format!("  {label} {line}\n"),
            _ => text += &format!("{:INDENT$}{line}\n", ""),
        }
    }
    let remedy = finding.remedy.iter().flat_map(|r| wrapped(&harmless(r), room.saturating_sub(3)));
    for (number, line) in remedy.enumerate() {
        let arrow = if number == 0 { "-> " } else { "   " };
        text += &format!("{:INDENT$}{arrow}{line}\n", "");
    }
    text
}

fn put(text: &str) {
    // Who closed the pipe has read enough; the exit status still tells.
    let _ = write_out(text);
}

/// Where the sentence of a finding begins.
const INDENT: usize = 11;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_wrapped_and_its_remedy_stands_below() {
        let finding = Finding::fault("path a", "it is broken in many ways", "mend it with care");

        assert_eq!(
            lines(Look { width: 32, ..Look::default() }, &finding),
            "  FAULT    path a: it is broken\n           in many ways\n           -> mend it with \
             care\n"
        );
    }

    #[test]
    fn the_worst_finding_is_the_verdict_and_json_names_all() {
        let mut report = Report::new(true, "client");
        report.section("Key", vec![Finding::ok("psk", "read"), Finding::warning("", "w", "r")]);

        let value = report.to_json(Level::Warning);

        assert_eq!(value["findings"][1]["remedy"], "r");
        assert_eq!(value["findings"][0]["remedy"], Value::Null);
        assert_eq!(value["verdict"], "warning");
        assert_eq!(Level::Fault as u8, 2);
    }
}
