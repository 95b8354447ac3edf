// SPDX-License-Identifier: BSD-2-Clause
//! `mptunnel status` and `mptunnel explain`: how a running mpclient or mpserver is, and why.

mod explain;
mod live;
mod model;
mod table;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{ArgGroup, Args};
use mptunnel_core::options::Unit;
use serde_json::{Value, json};

use crate::control::client::{Connection, ControlError, Which};
use crate::exit::{Exit, fail};
use crate::terminal::{self, Style};
use crate::time;
use model::Status;
use table::{count_or, mbit_or, millis_or, percent_or};

/// Show how a running mpclient or mpserver is
///
/// Draws a table of its paths, again every second: q or Ctrl-C ends it. Without a terminal it
/// prints the table once. The program is found by its control socket, which only the user who
/// started it, and root, can open.
#[derive(Args, Clone, Debug)]
#[command(after_help = status_help(), group = ArgGroup::new("form"))]
pub struct StatusArgs {
    /// Print the table once
    #[arg(long, group = "form")]
    once: bool,
    /// Print everything as one JSON object
    #[arg(long, group = "form")]
    json: bool,
    /// Print everything as Prometheus text
    #[arg(long, group = "form")]
    prometheus: bool,
    /// Print a line about this path, and another one every second
    #[arg(long, value_name = "PATH", group = "form")]
    watch: Option<String>,
    /// Time from one table or line to the next, 100ms to 1h; a number alone is in seconds
    #[arg(
        long, value_name = "TIME", default_value = "1s",
        value_parser = time::parser(Unit::Seconds, time::ms(100), time::ms(3_600_000))
    )]
    interval: Duration,
    #[command(flatten)]
    which: Which,
}

/// Explain the state of a path
///
/// Says why the path is in its state, since when, what happened to it lately, and what would change
/// it.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXIT_STATUS)]
pub struct ExplainArgs {
    /// The name of the path, or its number; CLIENT/PATH at an mpserver
    path: String,
    #[command(flatten)]
    which: Which,
}

/// What a shell sees of how the tools end that talk to a running program.
pub const EXIT_STATUS: &str = "\
Exit status: 0 done, 1 the program did not do it or ended, 2 the request is wrong, 3 no such \
program runs.";

/// What the columns mean, and the exit status.
fn status_help() -> String {
    let mut text = "Columns:".to_owned();
    for line in table::LEGEND.iter().chain(&table::LEGEND_IF_WIDE) {
        for line in terminal::wrapped(line, 76) {
            text += &format!("\n  {line}");
        }
    }
    format!("{text}\n\n{EXIT_STATUS}")
}

/// Shows a running program.
pub fn run(args: &StatusArgs) -> ExitCode {
    end(status(args))
}

/// Explains a path.
pub fn explain(args: &ExplainArgs) -> ExitCode {
    end(explain::print(&args.path, &args.which))
}

/// Tells how a tool ends.
pub(crate) fn end(done: Result<(), ControlError>) -> ExitCode {
    match done {
        Ok(()) => Exit::Success.into(),
        // Whoever reads the output has seen enough, as `head` does.
        Err(ControlError::Lost(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Exit::Success.into()
        }
        Err(error) => fail("mptunnel", &error, error.exit()),
    }
}

fn status(args: &StatusArgs) -> Result<(), ControlError> {
    let mut program = Connection::find(&args.which)?;
    let interval = args.interval;
    if args.json {
        return print(&program.ask(&json!({ "ask": "status" }))?.to_string());
    }
    if args.prometheus {
        let text = program.ask(&json!({ "ask": "prometheus" }))?;
        return print(text.as_str().unwrap_or_default().trim_end());
    }
    if let Some(path) = &args.watch {
        return watch(&mut program, path, interval);
    }
    match terminal::size().filter(|_| !args.once) {
        Some(_) => live::show(&mut program, interval),
        None => once(&mut program),
    }
}

/// The status now.
fn ask(program: &mut Connection) -> Result<Status, ControlError> {
    program.ask(&json!({ "ask": "status" })).map(|json: Value| Status::of(&json))
}

fn once(program: &mut Connection) -> Result<(), ControlError> {
    print_once(&ask(program)?)
}

fn print_once(status: &Status) -> Result<(), ControlError> {
    let width = terminal::size().map_or(table::WIDTH, |(columns, _)| columns.max(table::WIDTH));
    let is_terminal = io::stdout().is_terminal();
    let style = if is_terminal { Style::of_terminal() } else { Style::default() };
    let lines = [
        table::heading(style, status, width),
        vec![String::new()],
        table::table(style, status, width),
        vec![String::new()],
        table::remarks(style, status, width),
    ];
    print(&lines.concat().join("\n"))
}

/// One line for each moment, until Ctrl-C.
fn watch(program: &mut Connection, path: &str, interval: Duration) -> Result<(), ControlError> {
    // Elsewhere than on a terminal there is room for everything.
    let width = terminal::size().map_or(usize::MAX, |(columns, _)| columns);
    let mut titles = Some(watch_titles(width));
    loop {
        let status = ask(program)?;
        find(&status, path)?;
        titles.take().map_or(Ok(()), |titles| print(&titles))?;
        print(&watch_line(&crate::log::now_utc(), find(&status, path)?, width))?;
        pause(interval);
    }
}

/// A column of the lines about one path: its title, its width, and what stands in it.
type WatchColumn = (&'static str, usize, fn(&model::Path) -> String);

/// The most useful first.
static WATCHED: &[WatchColumn] = &[
    ("state", 10, |path| path.state.clone()),
    ("RTT", 9, |path| millis_or(path.rtt)),
    ("jitter", 9, |path| millis_or(path.jitter.filter(|_| path.rtt.is_some()))),
    ("lost>", 7, |path| percent_or(path.while_up(path.loss_out))),
    ("<lost", 7, |path| percent_or(path.while_up(path.loss_in))),
    ("Mbit>", 7, |path| mbit_or(path.bits_out)),
    ("<Mbit", 7, |path| mbit_or(path.bits_in)),
    ("first", 7, |path| percent_or(path.first())),
    ("1s>", 7, |path| percent_or(path.loss_out_1s)),
    ("<1s", 7, |path| percent_or(path.loss_in_1s)),
    ("10s>", 7, |path| percent_or(path.loss_out_10s)),
    ("<10s", 7, |path| percent_or(path.loss_in_10s)),
    ("queue", 7, |path| count_or(path.queued)),
];

/// The columns for which there is room behind the time, and how much the time takes: of a terminal
/// that is too narrow for its date, the time of day.
fn watched(width: usize) -> (usize, &'static [WatchColumn]) {
    let [whole, of_day] = [25, 10];
    let time = if width >= whole + 63 { whole } else { of_day };
    let mut used = time;
    let fits = |(_, column, _): &&WatchColumn| {
        used += column;
        used < width
    };
    (time, &WATCHED[..WATCHED.iter().take_while(fits).count()])
}

fn watch_titles(width: usize) -> String {
    let (time, columns) = watched(width);
    let titles = columns.iter().map(|(title, width, _)| format!("{title:>width$}"));
    format!("{:<time$}", "time") + &titles.collect::<String>()
}

fn watch_line(now: &str, path: &model::Path, width: usize) -> String {
    let (time, columns) = watched(width);
    let now = if time < now.len() { now.get(11..19).unwrap_or(now) } else { now };
    let cells = columns.iter().map(|(_, width, cell)| format!("{:>width$}", cell(path)));
    format!("{now:<time$}") + &cells.collect::<String>()
}

/// The path that a user means.
fn find<'s>(status: &'s Status, wanted: &str) -> Result<&'s model::Path, ControlError> {
    status.path(wanted).ok_or_else(|| {
        let names: Vec<&str> = status.paths.iter().take(20).map(|path| &*path.name).collect();
        let known = match &names[..] {
            [] => "there is none now".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        ControlError::Refused {
            text: format!("there is no path {wanted}: {known}"),
            is_usage: true,
        }
    })
}

/// Prints a line, or several.
pub(crate) fn print(text: &str) -> Result<(), ControlError> {
    terminal::write_out(&format!("{text}\n")).map_err(ControlError::Lost)
}

#[allow(clippy::disallowed_methods, reason = "a line each second is what was asked for")]
fn pause(interval: Duration) {
    thread::sleep(interval);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_about_a_path_has_the_columns_for_which_there_is_room() {
        let status = Status::of(&json!({"paths": [{"name": "a", "state": "up"}]}));
        let line = |width| watch_line("2026-01-02T03:04:05.678Z", &status.paths[0], width);

        for width in [60, 80, 100, 200] {
            assert!(line(width).len() <= width, "{}", line(width));
            assert_eq!(line(width).len(), watch_titles(width).len());
        }
        assert!(watch_titles(80).ends_with("  first"), "{}", watch_titles(80));
        assert!(line(80).starts_with("03:04:05 "), "{}", line(80));
        assert!(watch_titles(usize::MAX).ends_with("  queue"));
        assert!(line(usize::MAX).starts_with("2026-01-02T03:04:05.678Z "));
    }
}
