// SPDX-License-Identifier: BSD-2-Clause
//! The command line of `mptunnel doctor`: that of mpclient or that of mpserver, which the number of
//! words tells apart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches, value_parser};
use mptunnel_core::options::{OPTIONS, OptionSpec, Place, Unit};

use crate::args::{
    ClientArgs, ServerArgs, Wrong, fork, legacy_flag, option_flags, take_flags, with_legacy,
};
use crate::time;

/// Which end to look at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    Client(ClientArgs),
    Server(ServerArgs),
}

/// The arguments of `mptunnel doctor`.
#[derive(Clone, Debug, PartialEq)]
pub struct DoctorArgs {
    pub(crate) end: End,
    pub(crate) json: bool,
    /// How long to wait for answers.
    pub(crate) wait: Duration,
}

impl Args for DoctorArgs {
    fn augment_args(command: Command) -> Command {
        command
            .about("Look for what keeps a tunnel from working, and tell the remedy")
            .long_about(ABOUT)
            .after_help(EXAMPLES)
            .override_usage(
                "mptunnel doctor [OPTIONS] [LISTEN_PORT] <CONFIG>\n       \
                 mptunnel doctor [OPTIONS] <LISTEN_PORT> <TARGET_HOST> <TARGET_PORT>",
            )
            .arg(
                Arg::new(WORDS)
                    .value_name("ARGUMENTS")
                    .num_args(1..=3)
                    .required(true)
                    .help("Those of mpclient (1 or 2) or of mpserver (3), as they are"),
            )
            .arg(
                Arg::new(CONFIG)
                    .short('c')
                    .long("config")
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .help("mpserver's configuration file"),
            )
            .arg(
                Arg::new(JSON)
                    .long(JSON)
                    .action(ArgAction::SetTrue)
                    .help("One JSON object in place of text"),
            )
            .arg(
                Arg::new(WAIT)
                    .long(WAIT)
                    .value_name("TIME")
                    .default_value("4s")
                    .value_parser(time::parser(Unit::Seconds, time::ms(100), time::ms(60_000)))
                    .help(
                        "How long to wait for answers, 100ms to 60s; a number alone is in seconds",
                    ),
            )
            .arg(legacy_flag())
            // How much the programs log means nothing here, but may stand on their command lines.
            .arg(Arg::new("verbose").short('v').long("verbose").action(ArgAction::Count).hide(true))
            .arg(Arg::new("quiet").short('q').long("quiet").action(ArgAction::Count).hide(true))
            .args(option_flags(&[Place::ClientProgram, Place::ServerProgram]))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for DoctorArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<DoctorArgs, Error> {
        let end = end(matches).map_err(|(kind, message)| {
            let command = Self::augment_args(Command::new("doctor"));
            command.clone().error(kind, message)
        })?;
        Ok(DoctorArgs {
            end,
            json: matches.get_flag(JSON),
            wait: *matches.get_one(WAIT).expect("it has a default"),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn end(matches: &ArgMatches) -> Result<End, Wrong> {
    let words: Vec<&str> =
        matches.get_many::<String>(WORDS).into_iter().flatten().map(String::as_str).collect();
    let config = matches.get_one::<PathBuf>(CONFIG).cloned();
    let (place, other, its) = match words.len() {
        3 => (Place::ServerProgram, Place::ClientProgram, "mpclient"),
        _ => (Place::ClientProgram, Place::ServerProgram, "mpserver"),
    };
    let foreign = |spec: &&OptionSpec| spec.scope.covers(other) && !spec.scope.covers(place);
    let given = |spec: &&OptionSpec| matches.get_one::<String>(spec.key).is_some();
    if let Some(spec) = OPTIONS.iter().filter(foreign).find(given) {
        let message = format!("--{} is an option of {its} only", spec.key);
        return Err((ErrorKind::ArgumentConflict, message));
    }
    let flags = with_legacy(matches, take_flags(matches, place)?);
    let fork = fork(matches);
    match words[..] {
        [listen, host, port] => {
            let args = ServerArgs::of_words([listen, host, port], config, flags)?;
            Ok(End::Server(ServerArgs { fork, ..args }))
        }
        _ if config.is_some() => Err((
            ErrorKind::ArgumentConflict,
            "--config goes with the three arguments of mpserver: a client's file stands alone"
                .to_owned(),
        )),
        _ => {
            let word = |at: usize| words.get(at).map(Path::new);
            let args = ClientArgs::of_words(word(0), word(1), flags)?;
            Ok(End::Client(ClientArgs { fork, ..args }))
        }
    }
}

const WORDS: &str = "words";
const CONFIG: &str = "doctor-config";
const JSON: &str = "json";
const WAIT: &str = "wait";

const ABOUT: &str = "\
Look for what keeps a tunnel from working, and tell the remedy.

Takes the arguments of mpclient, or of mpserver, as they are, and looks at: the configuration, the \
key files, names and how fast they resolve, the way that each path takes out of this machine (if=, \
src=, routes), filters, socket buffers, MTUs, and whether the server answers over each path. For \
that it connects under a name of its own and with a session of its own: a client that is running \
is not disturbed, nothing is changed or made, and no datagram gets to the target.";

const EXAMPLES: &str = "\
Examples:
  On the client, with the file that mpclient has:
      mptunnel doctor client.conf

  On the server, with the arguments that mpserver has:
      mptunnel doctor 2000 127.0.0.1 1194

Exit status: 0 all is well, 1 warnings, 2 faults or wrong arguments.";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<DoctorArgs, String> {
        let command = DoctorArgs::augment_args(Command::new("doctor"));
        let matches = command.try_get_matches_from(format!("doctor {words}").split(' '));
        matches.and_then(|m| DoctorArgs::from_arg_matches(&m)).map_err(|e| e.to_string())
    }

    #[test]
    fn the_number_of_words_tells_which_end() {
        let end = |words| parse(words).unwrap().end;

        assert!(matches!(end("client.conf"), End::Client(_)));
        let End::Client(args) = end("3001 client.conf --mtu 1400") else { panic!() };
        assert_eq!(args.flags.len(), 2);
        let End::Server(args) = end("2000 localhost 53 --sessions 9 -c s.conf") else { panic!() };
        assert_eq!((args.listen_port, args.target.port()), (2000, 53));
        let End::Client(args) = end("-v --legacy=greensea client.conf") else { panic!() };
        assert_eq!(args.flags, [("protocol", "legacy".to_owned())]);
        assert_eq!(args.fork, Some(crate::args::Fork::Greensea));
        assert_eq!(parse("client.conf --wait 0.5").unwrap().wait, Duration::from_millis(500));
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        for (words, expected) in [
            ("client.conf --sessions 9", "--sessions is an option of mpserver only"),
            ("2000 localhost 53 --listen 1", "--listen is an option of mpclient only"),
            ("client.conf -c server.conf", "--config goes with the three arguments of mpserver"),
            ("3000", "CONFIG is missing"),
            ("client.conf --wait 0", "expected a time from 100ms to 60s"),
            ("2000 localhost 0", "TARGET_HOST TARGET_PORT"),
        ] {
            let error = parse(words).unwrap_err();
            assert!(error.contains(expected), "{words}: {error}");
            assert!(error.contains("sage: mptunnel doctor") || words.contains("--wait"), "{error}");
        }
    }
}
