// SPDX-License-Identifier: BSD-2-Clause
//! The command lines of mpclient and mpserver: the arguments of the classic programs, and a flag
//! for each row of the option table.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValue;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, Error, value_parser};
use mptunnel_core::options::{
    HostPort, Kind, OPTIONS, OptionError, OptionSpec, Place, Settings, parse_listen,
};

use crate::change::path_words;
use crate::log::Verbosity;

/// Options that were given as flags.
pub(crate) type Flags = Vec<(&'static str, String)>;

/// What is wrong with a command line, for the command that reads it to tell with its usage.
pub(crate) type Wrong = (ErrorKind, String);

/// The command line of mpclient: `mpclient [LISTEN_PORT] CONFIG`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientArgs {
    /// The configuration file.
    pub config: PathBuf,
    /// The options given as flags, and LISTEN_PORT as `listen`. They are checked.
    pub flags: Vec<(&'static str, String)>,
    /// Whose words to take, if a classic program was named with `--legacy=`.
    pub fork: Option<Fork>,
    /// How much to log.
    pub verbosity: Verbosity,
}

/// The command line of mpserver: `mpserver LISTEN_PORT TARGET_HOST TARGET_PORT`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerArgs {
    /// The address to listen on. `None`: all addresses, IPv4 and IPv6.
    pub listen_address: Option<IpAddr>,
    /// The port to listen on. 0: the system chooses.
    pub listen_port: u16,
    /// Where datagrams go to.
    pub target: HostPort,
    /// A configuration file with options.
    pub config: Option<PathBuf>,
    /// The options given as flags. They are checked.
    pub flags: Vec<(&'static str, String)>,
    /// Whose words to take, if a classic program was named with `--legacy=`.
    pub fork: Option<Fork>,
    /// How much to log.
    pub verbosity: Verbosity,
}

/// Which of the classic programs is replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fork {
    /// greensea/mptunnel: obfuscates unless `MPTUNNEL_ENCRYPT` says otherwise.
    Greensea,
    /// bitforgebr/mptunnel: does not, unless `MPTUNNEL_ENCRYPT` says otherwise.
    Bitforgebr,
}

impl ClientArgs {
    /// Reads a command line. The first item is the name of the program.
    ///
    /// # Errors
    ///
    /// The arguments are wrong, or ask for help or the version: print the error with
    /// [`Error::print`] and end with [`Error::exit_code`], or do both with [`Error::exit`].
    pub fn parse_from<T>(args: impl IntoIterator<Item = T>) -> Result<ClientArgs, Error>
    where
        T: Into<OsString> + Clone,
    {
        let mut command = client_command();
        let matches = command.try_get_matches_from_mut(args)?;
        let word = |id| matches.get_one::<PathBuf>(id).map(PathBuf::as_path);
        let fork = fork(&matches);
        take_flags(&matches, Place::ClientProgram)
            .map(|flags| with_legacy(&matches, flags))
            .and_then(|flags| ClientArgs::of_words(word(LISTEN_PORT), word(CONFIG), flags))
            .map(|args| ClientArgs { fork, verbosity: verbosity(&matches), ..args })
            .map_err(|(kind, message)| command.error(kind, message))
    }

    /// What the words and the checked flags of a command line ask for.
    pub(crate) fn of_words(
        listen: Option<&Path>,
        config: Option<&Path>,
        mut flags: Flags,
    ) -> Result<ClientArgs, Wrong> {
        // The one word that is given is the file, whichever comes first in the usage line.
        let (listen, config) = match (listen, config) {
            (Some(listen), Some(config)) => (Some(listen.to_string_lossy()), config),
            (Some(port), None) if is_port(port) && !port.exists() => {
                return Err((
                    ErrorKind::MissingRequiredArgument,
                    format!("CONFIG is missing: {:?} is a port and not a file", port.display()),
                ));
            }
            (Some(config), None) => (None, config),
            (None, _) => {
                return Err((
                    ErrorKind::MissingRequiredArgument,
                    "CONFIG is missing: name a file with one path per line, HOST PORT".to_owned(),
                ));
            }
        };
        if let Some(listen) = listen {
            if flags.iter().any(|(key, _)| *key == "listen") {
                return Err((
                    ErrorKind::ArgumentConflict,
                    "LISTEN_PORT and --listen say the same: keep one of them".to_owned(),
                ));
            }
            Settings::default()
                .set("listen", &listen)
                .map_err(|error| (ErrorKind::ValueValidation, argument(LISTEN_PORT, &error)))?;
            flags.push(("listen", listen.into_owned()));
        }
        let config = config.to_owned();
        Ok(ClientArgs { config, flags, fork: None, verbosity: Verbosity::Normal })
    }
}

fn is_port(word: &Path) -> bool {
    word.to_str().is_some_and(|word| parse_listen(word).is_ok())
}

impl ServerArgs {
    /// Reads a command line. The first item is the name of the program.
    ///
    /// # Errors
    ///
    /// As [`ClientArgs::parse_from`].
    pub fn parse_from<T>(args: impl IntoIterator<Item = T>) -> Result<ServerArgs, Error>
    where
        T: Into<OsString> + Clone,
    {
        let mut command = server_command();
        let matches = command.try_get_matches_from_mut(args)?;
        let word = |id| matches.get_one::<String>(id).expect("three arguments are required");
        let words = [LISTEN_PORT, TARGET_HOST, TARGET_PORT].map(|id| word(id).as_str());
        let config = matches.get_one::<PathBuf>(CONFIG).cloned();
        let fork = fork(&matches);
        take_flags(&matches, Place::ServerProgram)
            .map(|flags| with_legacy(&matches, flags))
            .and_then(|flags| ServerArgs::of_words(words, config, flags))
            .map(|args| ServerArgs { fork, verbosity: verbosity(&matches), ..args })
            .map_err(|(kind, message)| command.error(kind, message))
    }

    /// What the words and the checked flags of a command line ask for.
    pub(crate) fn of_words(
        [listen, host, port]: [&str; 3],
        config: Option<PathBuf>,
        flags: Flags,
    ) -> Result<ServerArgs, Wrong> {
        let wrong = |name: &str, cause: &dyn std::error::Error| {
            (ErrorKind::ValueValidation, format!("{name}: {cause}"))
        };
        let (listen_address, listen_port) =
            parse_listen(listen).map_err(|error| wrong(LISTEN_PORT, &error))?;
        let joined = match host {
            host if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{port}"),
            host => format!("{host}:{port}"),
        };
        let target = joined.parse().map_err(|error| wrong("TARGET_HOST TARGET_PORT", &error))?;
        let (fork, verbosity) = (None, Verbosity::Normal);
        Ok(ServerArgs { listen_address, listen_port, target, config, flags, fork, verbosity })
    }
}

/// The command line of mpclient, for help, completions and manual pages.
pub fn client_command() -> Command {
    base("mpclient", Place::ClientProgram)
        .about("Carry UDP applications to an mpserver over several paths at once")
        .long_about(CLIENT_ABOUT)
        .after_long_help(format!("{CLIENT_EXAMPLES}\n\n{}", path_words()))
        // clap cannot place an optional word before a required one once flags stand between them:
        // `parse_from` does.
        .override_usage("mpclient [OPTIONS] [LISTEN_PORT] <CONFIG>")
        .arg(
            Arg::new(LISTEN_PORT).value_parser(value_parser!(PathBuf)).help(
                "Where applications send to: PORT on 127.0.0.1, or ADDR:PORT [default: 3000]",
            ),
        )
        .arg(
            Arg::new(CONFIG)
                .value_parser(value_parser!(PathBuf))
                .help("File with one path per line: HOST PORT, and options"),
        )
}

/// The command line of mpserver, for help, completions and manual pages.
pub fn server_command() -> Command {
    base("mpserver", Place::ServerProgram)
        .about("Receive what mpclients send over several paths, and hand it to a UDP service")
        .long_about(SERVER_ABOUT)
        .after_long_help(SERVER_EXAMPLES)
        .arg(
            Arg::new(LISTEN_PORT)
                .required(true)
                .help("Where bridges and clients send to: PORT on all addresses, or ADDR:PORT"),
        )
        .arg(
            Arg::new(TARGET_HOST)
                .required(true)
                .help("The host of the UDP service, name or address"),
        )
        .arg(Arg::new(TARGET_PORT).required(true).help("The port of the UDP service"))
        .arg(
            Arg::new(CONFIG)
                .short('c')
                .long("config")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("File with options, lines KEY = VALUE"),
        )
}

/// What both programs have: the flags for logging, and one for each option that `place` has.
fn base(name: &'static str, place: Place) -> Command {
    Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .arg(
            Arg::new(VERBOSE)
                .short('v')
                .long(VERBOSE)
                .action(ArgAction::Count)
                .conflicts_with(QUIET)
                .help("Log more: flows, sockets, renewed keys; -vv: everything (RUST_LOG goes before)"),
        )
        .arg(
            Arg::new(QUIET)
                .short('q')
                .long(QUIET)
                .action(ArgAction::Count)
                .help("Log less: warnings and errors, and with -qq errors only"),
        )
        .arg(legacy_flag())
        .args(option_flags(&[place]))
}

/// The flag that names the program to replace.
pub(crate) fn legacy_flag() -> Arg {
    Arg::new(LEGACY)
        .long(LEGACY)
        .value_name("PROGRAM")
        .value_parser([
            PossibleValue::new("greensea"),
            PossibleValue::new("bitforgebr"),
            PossibleValue::new("any").hide(true),
        ])
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("any")
        .conflicts_with("protocol")
        .help("Talk to a classic mptunnel, without any protection (protocol = legacy)")
}

/// A flag for each option that one of `places` has.
pub(crate) fn option_flags(places: &[Place]) -> impl Iterator<Item = Arg> {
    let covered = |spec: &&OptionSpec| places.iter().any(|place| spec.scope.covers(*place));
    OPTIONS.iter().filter(covered).map(|spec| {
        Arg::new(spec.key)
            .long(spec.key)
            .value_name(spec.placeholder())
            .help(help(spec))
            .help_heading("Options, also as lines KEY = VALUE of the configuration file")
            .hide_short_help(true)
            // `--mtu -1` is a wrong value of --mtu, and not an unknown flag -1.
            .allow_hyphen_values(true)
    })
}

/// The help of one flag: its meaning, form and default.
fn help(spec: &OptionSpec) -> String {
    let form = match (spec.kind, spec.range) {
        // Where there is one word only, the default says it.
        (Kind::Choice([_]), _) => String::new(),
        (Kind::Choice(_), _) => spec.expected(),
        (Kind::Text, Some(range)) => format!("{} to {} bytes", range.min, range.max),
        _ => spec.bounds().trim_start().to_owned(),
    };
    let default = spec.default.map(|default| format!("default: {default}"));
    let facts: Vec<String> =
        [form].into_iter().filter(|form| !form.is_empty()).chain(default).collect();
    // As clap begins its own: with a capital letter.
    let mut text = spec.help[..1].to_uppercase() + &spec.help[1..];
    if !facts.is_empty() {
        text.push_str(&format!(" [{}]", facts.join("; ")));
    }
    text
}

/// The options that were given, checked against the table. They are checked here and not by clap,
/// which would repeat a value that may be a secret in the wrong place.
pub(crate) fn take_flags(matches: &ArgMatches, place: Place) -> Result<Flags, Wrong> {
    let mut flags = Flags::new();
    for spec in OPTIONS.iter().filter(|spec| spec.scope.covers(place)) {
        let Some(value) = matches.get_one::<String>(spec.key) else { continue };
        Settings::default().set(spec.key, value).map_err(|error| {
            (ErrorKind::ValueValidation, argument(&format!("--{}", spec.key), &error))
        })?;
        flags.push((spec.key, value.clone()));
    }
    Ok(flags)
}

/// What is wrong with the argument `name`.
fn argument(name: &str, error: &OptionError) -> String {
    match error {
        OptionError::Value { value, expected, .. } => {
            format!("{name} {value:?}: expected {expected}")
        }
        other => format!("{name}: {other}"),
    }
}

/// `--legacy` is `protocol = legacy` as a flag.
pub(crate) fn with_legacy(matches: &ArgMatches, mut flags: Flags) -> Flags {
    if matches.contains_id(LEGACY) {
        flags.push(("protocol", "legacy".to_owned()));
    }
    flags
}

/// Whose words to take.
pub(crate) fn fork(matches: &ArgMatches) -> Option<Fork> {
    match matches.get_one::<String>(LEGACY)?.as_str() {
        "greensea" => Some(Fork::Greensea),
        "bitforgebr" => Some(Fork::Bitforgebr),
        _ => None,
    }
}

fn verbosity(matches: &ArgMatches) -> Verbosity {
    Verbosity::from_flags(matches.get_count(VERBOSE), matches.get_count(QUIET))
}

const LISTEN_PORT: &str = "LISTEN_PORT";
const CONFIG: &str = "CONFIG";
const TARGET_HOST: &str = "TARGET_HOST";
const TARGET_PORT: &str = "TARGET_PORT";
const LEGACY: &str = "legacy";
const VERBOSE: &str = "verbose";
const QUIET: &str = "quiet";

const CLIENT_ABOUT: &str = "\
Carry UDP applications to an mpserver over several paths at once.

Applications send to mpclient instead of the remote service. Each datagram goes out over every \
path of the configuration file, encrypted; mpserver hands the first copy that arrives to the \
service, and answers come back in the same way. A path that fails is tried again; the others carry \
on.";

const CLIENT_EXAMPLES: &str = "\
Example: two bridges and the server itself, in a file client.conf

  # HOST PORT, and words from the list below
  bridge1.example 4000
  bridge2.example 4000 if=wwan0 role=backup name=lte
  server.example 2000

  # any of the options above, without the dashes
  rekey-interval = 60s

Applications of this host send to 127.0.0.1:3000:

  mpclient client.conf

Applications of other hosts, too, to port 5000 of this one:

  mpclient 0.0.0.0:5000 client.conf

Key: mpclient needs the key file that mpserver made at its first run. It is looked for in \
--key-file, then the environment variable MPTUNNEL_KEY_FILE, then /etc/mptunnel/psk, then \
~/.config/mptunnel/psk.

A flag goes before a line of the configuration file, and that before the environment. \
MPTUNNEL_ENCRYPT=0, on both ends, is the same as --encrypt off. With --legacy it means what it \
meant in the classic program, and the port is 3210 unless another one is given. \
SIGHUP reads the file again: \
paths are added, removed and changed, the others carry on. \
SIGUSR1 logs counters. `mptunnel status` shows a running mpclient, and `mptunnel path` and \
`mptunnel set` change it.

Exit status: 0 after SIGTERM or SIGINT, 1 on failure, 2 if arguments, file or key are wrong.";

const SERVER_ABOUT: &str = "\
Receive what mpclients send over several paths, and hand it to a UDP service.

Clients reach mpserver directly or through bridges, which are plain UDP forwarders without a key. \
The service sees one flow of datagrams per application behind a client, each from a port of its \
own, and its answers go back over all paths.";

const SERVER_EXAMPLES: &str = "\
Examples:

  An OpenVPN server on this host:
      mpserver 2000 127.0.0.1 1194

  A service on another host, clients on one address of this host only:
      mpserver 192.0.2.1:2000 game.example 27015

  A bridge, on another host, to port 2000 of server.example:
      socat udp-listen:4000,fork udp:server.example:2000

Key: at its first run mpserver makes a key file, says where it is, and how to copy it to the \
clients. It is looked for in --key-file, then the environment variable MPTUNNEL_KEY_FILE, then \
/etc/mptunnel/psk, then ~/.config/mptunnel/psk.

A flag goes before a line of the configuration file, and that before the environment. \
MPTUNNEL_ENCRYPT=0, on both ends, is the same as --encrypt off; with --legacy it means what it \
meant in the classic program. SIGHUP reads the file again: what \
can change at once does, and the log names the rest. SIGUSR1 logs counters. `mptunnel status` shows \
a running mpserver, and `mptunnel set` changes it.

Exit status: 0 after SIGTERM or SIGINT, 1 on failure, 2 if arguments, file or key are wrong.";

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
