// SPDX-License-Identifier: BSD-2-Clause
//! `mptunnel path`, `get`, `set` and `events`: change a running mpclient or mpserver, and follow
//! what happens to it.

use std::fmt::Write;
use std::io;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use mptunnel_core::options::{HostPort, PATH_WORDS};
use serde_json::{Value, json};

use crate::control::client::{Connection, ControlError, Which};
use crate::control::operate::NO_PATHS;
use crate::status::{EXIT_STATUS, end, print};
use crate::terminal::{self, columns, harmless, wrapped, write_out};

/// List, add, change and remove paths of a running mpclient
///
/// Until SIGHUP makes mpclient read its configuration file again, whose paths are the ones that
/// count then.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXIT_STATUS)]
pub struct PathArgs {
    #[command(subcommand)]
    what: PathCommand,
    #[command(flatten)]
    which: Which,
}

#[derive(Clone, Debug, Subcommand)]
enum PathCommand {
    /// List the paths, in words that `path add` and a configuration file take
    List,
    /// Add a path
    #[command(after_help = path_words())]
    Add {
        /// `to=HOST:PORT`, or HOST:PORT alone, or HOST PORT as in a configuration file, and words
        /// from the list below
        #[arg(required = true, value_name = "WORD=VALUE")]
        words: Vec<String>,
    },
    /// Change a path
    #[command(after_help = path_words())]
    Set {
        /// Its name, or its number
        path: String,
        /// What to change, such as `role=backup`
        #[arg(required = true, value_name = "WORD=VALUE")]
        words: Vec<String>,
    },
    /// Remove a path
    Remove {
        /// Its name, or its number
        path: String,
    },
}

/// What can be said of a path, as help shows it.
pub(crate) fn path_words() -> String {
    let mut text = "Words of a path:".to_owned();
    for word in PATH_WORDS {
        let _ = write!(text, "\n  {}={}", word.key, word.placeholder);
        for line in wrapped(word.help, 70) {
            let _ = write!(text, "\n          {line}");
        }
    }
    text
}

/// Show the options of a running program
#[derive(Args, Clone, Debug)]
#[command(after_help = EXIT_STATUS)]
pub struct GetArgs {
    /// The option; without one, all that the program has
    key: Option<String>,
    #[command(flatten)]
    which: Which,
}

/// Change an option of a running program
///
/// `mptunnel get` shows which options can be changed while it runs. The change is lost when the
/// program ends or reads its configuration file again: write it there as well.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXIT_STATUS)]
pub struct SetArgs {
    /// The option, such as `flows`
    key: String,
    /// Its value
    #[arg(allow_hyphen_values = true)]
    value: String,
    #[command(flatten)]
    which: Which,
}

/// Follow what happens to a running program
///
/// Prints a line for each event from now on, until Ctrl-C.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXIT_STATUS)]
pub struct EventsArgs {
    /// First print the latest events, up to 256
    #[arg(long)]
    recent: bool,
    /// Do not wait for new events: print the latest ones and end
    #[arg(long, conflicts_with = "recent")]
    once: bool,
    /// Print each event as a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Which,
}

/// Lists or changes the paths of an mpclient.
pub fn path(args: &PathArgs) -> ExitCode {
    end(change_path(args))
}

fn change_path(args: &PathArgs) -> Result<(), ControlError> {
    // What is wrong whoever runs is told first.
    let added = match &args.what {
        PathCommand::Add { words } => with_destination(words)?,
        _ => String::new(),
    };
    let mut program = Connection::find_client(&args.which)?;
    match &args.what {
        PathCommand::List => {
            let status = program.ask(&json!({ "ask": "status" }))?;
            if status["role"] == "server" {
                return Err(ControlError::Usage(NO_PATHS.to_owned()));
            }
            let paths = status["paths"].as_array().map_or(&[][..], Vec::as_slice);
            let word = |path: &Value, key: &str| harmless(path[key].as_str().unwrap_or("?"));
            for path in paths {
                let state = word(path, "state").replace('_', " ");
                let id = path["id"].as_u64().unwrap_or(0);
                print(&format!("{id:>4}  {state:<10} {}", word(path, "words")))?;
            }
            Ok(())
        }
        PathCommand::Add { .. } => {
            let added = program.ask(&json!({ "ask": "path-add", "words": added }))?;
            print(&format!("path {} added", added["id"]))
        }
        PathCommand::Set { path, words } => {
            let words = words.join(" ");
            program.ask(&json!({ "ask": "path-set", "path": path, "words": words })).map(drop)
        }
        PathCommand::Remove { path } => {
            program.ask(&json!({ "ask": "path-remove", "path": path })).map(drop)
        }
    }
}

/// The words of a path, which may begin with where it leads: HOST:PORT, or HOST PORT as a line of a
/// configuration file does.
fn with_destination(words: &[String]) -> Result<String, ControlError> {
    // A known word without its value: the program says what it takes.
    let is_word = |text: &str| text.contains('=') || PATH_WORDS.iter().any(|word| word.key == text);
    let (host, rest) = match words {
        [host, rest @ ..] if !is_word(host) => (host, rest),
        _ => return Ok(words.join(" ")),
    };
    let (to, rest) = match rest {
        [port, rest @ ..] if !is_word(port) => (HostPort::from_words(host, port), rest),
        rest => (host.parse(), rest),
    };
    let to = to.map_err(|error| {
        let text = format!(
            "{error}\nfor example: mptunnel path add bridge4.example 4000 name=spare role=backup"
        );
        ControlError::Usage(text)
    })?;
    Ok(std::iter::once(format!("to={to}"))
        .chain(rest.iter().cloned())
        .collect::<Vec<_>>()
        .join(" "))
}

/// Shows options.
pub fn get(args: &GetArgs) -> ExitCode {
    end(show_options(args))
}

fn show_options(args: &GetArgs) -> Result<(), ControlError> {
    let mut program = Connection::find(&args.which)?;
    let options = program.ask(&json!({ "ask": "get", "key": args.key }))?;
    let options = options.as_array().map_or(&[][..], Vec::as_slice);
    let word = |option: &Value, key: &str| harmless(option[key].as_str().unwrap_or(""));
    if args.key.is_some() {
        return options.iter().try_for_each(|option| print(&word(option, "value")));
    }
    // Elsewhere than on a terminal an option is a line, and the columns are where they always are.
    let width = terminal::size().map_or(usize::MAX, |(columns, _)| columns);
    let longest = options.iter().map(|option| columns(&word(option, "value"))).max().unwrap_or(0);
    let values = if width == usize::MAX { 22 } else { longest.min(22) } + 2;
    for option in options {
        let live = if option["live"] == true { "live" } else { "" };
        let [key, value, help] = ["key", "value", "help"].map(|key| word(option, key));
        let facts = format!("{key:<20}{value:<values$}{live:<6}");
        print(&option_line(&facts, &help, width))?;
    }
    Ok(())
}

/// An option with its help, which goes on below itself.
fn option_line(facts: &str, help: &str, width: usize) -> String {
    let indent = columns(facts);
    let lines = wrapped(help, width.saturating_sub(indent).max(20));
    facts.to_owned() + &lines.join(&format!("\n{:indent$}", ""))
}

/// Changes an option.
pub fn set(args: &SetArgs) -> ExitCode {
    let change = || {
        let request = json!({ "ask": "set", "key": args.key, "value": args.value });
        Connection::find(&args.which)?.ask(&request).map(drop)
    };
    end(change())
}

/// Prints events.
pub fn events(args: &EventsArgs) -> ExitCode {
    end(follow(args))
}

fn follow(args: &EventsArgs) -> Result<(), ControlError> {
    let mut program = Connection::find(&args.which)?;
    let show = |event: &Value| -> io::Result<()> {
        if args.json {
            return write_out(&format!("{event}\n"));
        }
        let word = |key: &str| harmless(event[key].as_str().unwrap_or("?"));
        write_out(&format!("{} {} {}\n", word("time"), word("level"), word("text")))
    };
    let mut from = None;
    if args.recent || args.once {
        let recent = program.ask(&json!({ "ask": "recent" }))?;
        // What happens until the next request is not to be missed.
        from = Some(0);
        for event in recent.as_array().into_iter().flatten() {
            show(event).map_err(ControlError::Lost)?;
            from = event["number"].as_u64().map(|number| number + 1).or(from);
        }
    }
    if args.once {
        return Ok(());
    }
    program.follow(from, |event| show(event).map(|()| true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_of_an_option_goes_on_below_itself_where_the_line_ends() {
        let line = |width| option_line("flows  1024  live  ", "most of all, at one time", width);

        assert_eq!(line(usize::MAX), "flows  1024  live  most of all, at one time");
        assert_eq!(line(42), format!("flows  1024  live  most of all, at one\n{:19}time", ""));
    }

    #[test]
    fn a_path_may_be_added_as_a_line_of_a_configuration_file_has_it() {
        for (typed, meant) in [
            ("10.0.0.2 4001 name=a", "to=10.0.0.2:4001 name=a"),
            ("fe80::1 4001", "to=[fe80::1]:4001"),
            ("to=10.0.0.2:4001 name=a", "to=10.0.0.2:4001 name=a"),
            ("name=a to=10.0.0.2:4001", "name=a to=10.0.0.2:4001"),
            ("10.0.0.2:4001 name=a", "to=10.0.0.2:4001 name=a"),
            ("[fe80::1]:4001", "to=[fe80::1]:4001"),
            ("if=eth0", "if=eth0"),
            ("name", "name"),
        ] {
            let words: Vec<String> = typed.split(' ').map(str::to_owned).collect();
            assert_eq!(with_destination(&words).unwrap(), meant);
        }
    }

    #[test]
    fn a_path_that_leads_nowhere_is_refused_with_what_is_missing_and_an_example() {
        for (typed, what) in [
            ("10.0.0.2", "\"10.0.0.2\" has no port: expected HOST:PORT, such as 10.0.0.2:4000"),
            ("bridge name=a", "\"bridge\" has no port: expected HOST:PORT, such as bridge:4000"),
            ("bridge eth0", "port \"eth0\": expected a number from 1 to 65535"),
            ("10.0.0.2 70000", "port \"70000\": expected a number from 1 to 65535"),
            ("fe80::1", "\"fe80::1\": an IPv6 address before a port needs brackets"),
        ] {
            let words: Vec<String> = typed.split(' ').map(str::to_owned).collect();
            let error = with_destination(&words).unwrap_err();
            let text = error.to_string();
            assert!(
                text.starts_with(what) && text.contains("\nfor example: mptunnel path add "),
                "{text}"
            );
            assert_eq!(error.exit() as u8, 2, "{typed}");
        }
    }
}
