// SPDX-License-Identifier: BSD-2-Clause
//! The command line of `mptunnel ping`: that of mpclient, and how to measure.

use std::path::Path;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches, value_parser};
use mptunnel_core::options::{Place, Unit};

use super::plot::Plot;
use crate::args::{ClientArgs, Wrong, option_flags, take_flags};
use crate::time;

/// The arguments of `mptunnel ping`.
#[derive(Clone, Debug, PartialEq)]
pub struct PingArgs {
    pub(crate) client: ClientArgs,
    /// How many rounds; `None`: until it is interrupted.
    pub(crate) count: Option<u64>,
    pub(crate) interval: Duration,
    /// Whether the target echoes.
    pub(crate) echo: bool,
    /// Whether to leave everything out but the summary.
    pub(crate) quiet: bool,
    /// Where to draw what came of it.
    pub(crate) plot: Option<Plot>,
    /// Whether to write lines on a terminal as well.
    pub(crate) plain: bool,
}

impl Args for PingArgs {
    fn augment_args(command: Command) -> Command {
        let switch =
            |id: &'static str, help| Arg::new(id).long(id).action(ArgAction::SetTrue).help(help);
        command
            .about("Measure round trip and loss over each path and over the tunnel, side by side")
            .long_about(ABOUT)
            .after_help(EXAMPLES)
            .override_usage("mptunnel ping [OPTIONS] [LISTEN_PORT] <CONFIG>")
            .arg(
                Arg::new(WORDS)
                    .value_name("CONFIG")
                    .num_args(1..=2)
                    .required(true)
                    .help("mpclient's configuration file; its LISTEN_PORT is not used"),
            )
            .arg(
                Arg::new(COUNT)
                    .short('c')
                    .long(COUNT)
                    .value_name("N")
                    .value_parser(value_parser!(u64).range(1..))
                    .help("End after N rounds [default: at Ctrl-C]"),
            )
            .arg(
                Arg::new(INTERVAL)
                    .short('i')
                    .long(INTERVAL)
                    .value_name("TIME")
                    .default_value("200ms")
                    .value_parser(time::parser(Unit::Seconds, time::ms(20), time::ms(60_000)))
                    .help("Time between rounds, 20ms to 60s; a number alone is in seconds"),
            )
            .arg(switch(ECHO, "Send datagrams through the tunnel: the target has to echo them"))
            .arg(
                Arg::new(PLOT)
                    .long(PLOT)
                    .value_name("FILE")
                    .value_parser(|name: &str| name.parse::<Plot>())
                    .help("Draw loss and latency over time, at the end: FILE.png or FILE.svg"),
            )
            .arg(switch(QUIET, "Only the summary").short('q'))
            .arg(switch(PLAIN, "A line for each round, as without a terminal"))
            .args(option_flags(&[Place::ClientProgram]))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for PingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<PingArgs, Error> {
        let client = client(matches).map_err(|(kind, message)| {
            Self::augment_args(Command::new("ping")).error(kind, message)
        })?;
        Ok(PingArgs {
            client,
            count: matches.get_one(COUNT).copied(),
            interval: *matches.get_one(INTERVAL).expect("it has a default"),
            echo: matches.get_flag(ECHO),
            plot: matches.get_one(PLOT).cloned(),
            quiet: matches.get_flag(QUIET),
            plain: matches.get_flag(PLAIN),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn client(matches: &ArgMatches) -> Result<ClientArgs, Wrong> {
    let words: Vec<&Path> =
        matches.get_many::<String>(WORDS).into_iter().flatten().map(Path::new).collect();
    let flags = take_flags(matches, Place::ClientProgram)?;
    ClientArgs::of_words(words.first().copied(), words.get(1).copied(), flags)
}

const WORDS: &str = "words";
const COUNT: &str = "count";
const INTERVAL: &str = "interval";
const ECHO: &str = "echo";
const PLOT: &str = "plot";
const QUIET: &str = "quiet";
const PLAIN: &str = "plain";

const ABOUT: &str = "\
Measure round trip and loss over each path and over the tunnel, side by side.

A client of its own, with the arguments of mpclient, beside any that runs. In each round all paths \
are asked at one moment, with the protocol's own probes, so nothing has to answer behind mpserver \
and no datagram gets to the target.

  a path    the time until its answer came; lost if none came
  tunnel    the time until the first answer came over any path; lost if none came over all of \
them. With --echo, the time until a datagram of 40 bytes came back that was sent through the \
tunnel to the target, which has to send everything back as it is.

Without --echo the tunnel is no worse than shown: it also delivers what goes out over one path and \
comes back over another. Rounds that are closer together than a path's jitter overtake each other \
there, and those overtaken count as lost.

Pull a cable while it runs: an outage of a path is told when five rounds in a row and half a second \
(three rounds, if they are further apart) have gone unanswered, with the moment it began. What comes late after all is no loss in the summary.";

const EXAMPLES: &str = "\
Examples:
  Until Ctrl-C, in one window, while you pull cables:
      mptunnel ping client.conf

  A hundred rounds, ten a second, and the summary only:
      mptunnel ping -q -c 100 -i 0.1 client.conf

  Until Ctrl-C, and then a picture:
      mptunnel ping --plot night.png client.conf

Exit status: 0 if the tunnel answered, 1 if it never did, 2 if arguments, file or key are wrong.";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<PingArgs, String> {
        let command = PingArgs::augment_args(Command::new("ping"));
        let matches = command.try_get_matches_from(format!("ping {words}").split(' '));
        matches.and_then(|m| PingArgs::from_arg_matches(&m)).map_err(|e| e.to_string())
    }

    #[test]
    fn the_arguments_are_those_of_mpclient_and_how_to_measure() {
        let args = parse("client.conf").unwrap();
        assert_eq!((args.count, args.interval), (None, Duration::from_millis(200)));

        let args = parse("-c 3 -i 0.5 --echo 3001 client.conf --mtu 1400").unwrap();
        assert_eq!((args.count, args.interval), (Some(3), Duration::from_millis(500)));
        assert!(args.echo && args.client.flags.len() == 2);
    }

    #[test]
    fn wrong_use_explains_itself() {
        for (words, expected) in [
            ("-c 0 client.conf", "1.."),
            ("-i 0.01 client.conf", "expected a time from 20ms to 60s"),
            ("3000", "CONFIG is missing"),
            ("client.conf --plot a.gif", "expected a name that ends in .png or .svg"),
            ("client.conf --mtu 9", "--mtu \"9\": expected"),
        ] {
            let error = parse(words).unwrap_err();
            assert!(error.contains(expected), "{words}: {error}");
        }
    }
}
