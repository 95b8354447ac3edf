// SPDX-License-Identifier: BSD-2-Clause
//! How the option table describes one option.

use std::fmt;

use super::error::OptionError;
use super::settings::Settings;
use super::value::{self, Value};

/// Everything there is to know about one option.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The name, in kebab-case: the same in files, URIs, flags (`--KEY`) and bindings.
    pub key: &'static str,
    /// What kind of value it takes.
    pub kind: Kind,
    /// What a number without a unit means.
    pub unit: Unit,
    /// The smallest and the largest value. `None` where there is nothing to bound.
    pub range: Option<Range>,
    /// The default as text. `None`: not set.
    pub default: Option<&'static str>,
    /// One line of help, lower case, no full stop.
    pub help: &'static str,
    /// Whether a running endpoint takes a new value at once.
    pub live: bool,
    /// Who has this option.
    pub scope: Scope,
    pub(super) get: fn(&Settings) -> Option<Value>,
    pub(super) put: fn(&mut Settings, Value),
}

/// What kind of value an option takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `on yes true 1` or `off no false 0`.
    Switch,
    /// A time: `250ms`, `1.5s`, `2m`, `1h`, `500us`.
    Duration,
    /// An amount of memory: `65536`, `256KiB`, `4M` (powers of 1024), `4MB` (powers of 1000).
    Size,
    /// A whole number.
    Count,
    /// A share: `0.0001`, `1e-4` or `0.01%`.
    Share,
    /// A short text.
    Text,
    /// The name of a file.
    File,
    /// A public key: 32 bytes in base64.
    PublicKey,
    /// A local address: `PORT` (on 127.0.0.1), `ADDR:PORT` or `[ADDR]:PORT`.
    Listen,
}

/// What a number without a unit means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// The option has no unit.
    None,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Packets of mptunnel.
    Packets,
    /// Events per second.
    PerSecond,
    /// Hundredths.
    Percent,
}

/// The smallest and the largest value, both allowed.
///
/// Durations count in milliseconds, sizes in bytes, shares in billionths, texts by their length in
/// bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Range {
    /// The smallest value.
    pub min: u64,
    /// The largest value.
    pub max: u64,
    /// What the value 0 means, where it is allowed although it lies below `min`.
    pub zero: Option<&'static str>,
}

impl Range {
    /// The range `min..=max`.
    pub const fn new(min: u64, max: u64) -> Range {
        Range { min, max, zero: None }
    }

    /// The range `min..=max`, and 0 with the meaning `zero`.
    pub const fn or_zero(min: u64, max: u64, zero: &'static str) -> Range {
        Range { min, max, zero: Some(zero) }
    }

    pub(super) fn contains(&self, n: u64) -> bool {
        (n == 0 && self.zero.is_some()) || (self.min..=self.max).contains(&n)
    }
}

/// Which end of a tunnel.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Role {
    /// The end that knows where the other one is.
    Client,
    /// The end that waits for clients.
    Server,
}

/// Where options are about to be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// A client endpoint of the library.
    ClientLibrary,
    /// A server endpoint of the library.
    ServerLibrary,
    /// The program mpclient.
    ClientProgram,
    /// The program mpserver.
    ServerProgram,
}

impl Place {
    /// Which end of a tunnel this place is.
    pub fn role(self) -> Role {
        match self {
            Place::ClientLibrary | Place::ClientProgram => Role::Client,
            Place::ServerLibrary | Place::ServerProgram => Role::Server,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::ClientLibrary => "a client",
            Place::ServerLibrary => "a server",
            Place::ClientProgram => "mpclient",
            Place::ServerProgram => "mpserver",
        })
    }
}

/// Who has an option: one role or both, in the programs, in the library, or in both.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Scope {
    client: bool,
    server: bool,
    library: bool,
    programs: bool,
}

impl Scope {
    /// Both ends.
    pub const BOTH: Scope = Scope { client: true, server: true, library: true, programs: true };
    /// Clients only.
    pub const CLIENT: Scope = Scope { server: false, ..Scope::BOTH };
    /// Servers only.
    pub const SERVER: Scope = Scope { client: false, ..Scope::BOTH };
    /// Both ends in the library, not the programs.
    pub const LIBRARY: Scope = Scope { programs: false, ..Scope::BOTH };
    /// Both programs, not the library.
    pub const PROGRAMS: Scope = Scope { library: false, ..Scope::BOTH };
    /// The program mpclient, not the library.
    pub const CLIENT_PROGRAM: Scope = Scope { library: false, ..Scope::CLIENT };

    /// Whether `place` has the option.
    pub fn covers(self, place: Place) -> bool {
        match place {
            Place::ClientLibrary => self.client && self.library,
            Place::ServerLibrary => self.server && self.library,
            Place::ClientProgram => self.client && self.programs,
            Place::ServerProgram => self.server && self.programs,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (client, server) = match self.library {
            true => ("client", "server"),
            false => ("mpclient", "mpserver"),
        };
        match (self.client, self.server) {
            (true, true) => write!(f, "{client}, {server}")?,
            (true, false) => f.write_str(client)?,
            (false, _) => f.write_str(server)?,
        }
        f.write_str(if self.programs { "" } else { " (library)" })
    }
}

impl OptionSpec {
    /// The option named `key`, if there is one.
    pub fn find(key: &str) -> Option<&'static OptionSpec> {
        super::table::OPTIONS.iter().find(|spec| spec.key == key)
    }

    /// Whether `place` has this option.
    ///
    /// # Errors
    ///
    /// [`OptionError::Elsewhere`] if not.
    pub fn check_place(&self, place: Place) -> Result<(), OptionError> {
        if self.scope.covers(place) {
            return Ok(());
        }
        Err(OptionError::Elsewhere { key: self.key, place, owner: self.scope.to_string() })
    }

    /// What a value looks like in a usage line, such as `DURATION`.
    pub fn placeholder(&self) -> &'static str {
        match (self.kind, self.unit) {
            (Kind::Choice(_), _) => "WORD",
            (Kind::Switch, _) => "on|off",
            (Kind::Duration, _) => "DURATION",
            (Kind::Size, _) => "SIZE",
            (Kind::Count, Unit::Bytes) => "BYTES",
            (Kind::Count, Unit::Packets) => "PACKETS",
            (Kind::Count, Unit::PerSecond) => "PER_SECOND",
            (Kind::Count, Unit::Percent) => "PERCENT",
            (Kind::Count, _) => "NUMBER",
            (Kind::Share, _) => "SHARE",
            (Kind::Text, _) => "TEXT",
            (Kind::File, _) => "FILE",
            (Kind::PublicKey, _) => "PUBLIC_KEY",
            (Kind::Listen, _) => "[ADDR:]PORT",
        }
    }

    /// What a value must look like, with unit and range: the end of an error message.
    pub fn expected(&self) -> String {
        match self.kind {
            Kind::Choice([only]) => only.to_string(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Switch => "on or off".to_owned(),
            Kind::Duration => format!("a duration{}, such as 250ms, 1.5s or 2m", self.bounds()),
            Kind::Size => format!("a size in bytes{}, such as 65536, 256KiB or 4M", self.bounds()),
            Kind::Count => format!("a whole number{}", self.bounds()),
            Kind::Share => format!("a share{}, such as 0.0001, 1e-4 or 0.01%", self.bounds()),
            Kind::Text => match self.range {
                Some(Range { min, max, .. }) => format!(
                    "a text of {min} to {max} bytes without control characters and without blanks \
                     at its ends"
                ),
                None => "a text".to_owned(),
            },
            Kind::File => "the name of a file".to_owned(),
            Kind::PublicKey => {
                "a public key: 44 characters of base64, as printed by mptunnel pubkey".to_owned()
            }
            Kind::Listen => {
                "PORT, ADDR:PORT or [IPV6]:PORT, such as 3000, 0.0.0.0:3000 or [::1]:3000"
                    .to_owned()
            }
        }
    }

    /// The range in words, such as ` from 50ms to 5s (without unit: ms)`, or nothing.
    pub fn bounds(&self) -> String {
        let Some(range) = self.range else { return String::new() };
        let text = |n| value::format_bound(self.kind, n);
        let mut words = format!(" from {} to {}", text(range.min), text(range.max));
        match (self.kind, self.unit) {
            (Kind::Duration, Unit::Seconds) => words.push_str(" (without unit: s)"),
            (Kind::Duration, _) => words.push_str(" (without unit: ms)"),
            (Kind::Count, Unit::Bytes) => words.push_str(" bytes"),
            (Kind::Count, Unit::Packets) => words.push_str(" packets"),
            (Kind::Count, Unit::PerSecond) => words.push_str(" per second"),
            (Kind::Count, Unit::Percent) => words.push_str(" per cent"),
            _ => {}
        }
        if let Some(zero) = range.zero {
            words.push_str(", or 0: ");
            words.push_str(zero);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_of_the_programs_is_none_of_the_library_and_the_other_way_round() {
        assert!(Scope::PROGRAMS.covers(Place::ClientProgram));
        assert!(Scope::PROGRAMS.covers(Place::ServerProgram));
        assert!(!Scope::PROGRAMS.covers(Place::ClientLibrary));
        assert!(!Scope::PROGRAMS.covers(Place::ServerLibrary));
        assert!(Scope::CLIENT_PROGRAM.covers(Place::ClientProgram));
        assert!(!Scope::CLIENT_PROGRAM.covers(Place::ServerProgram));
        assert!(Scope::SERVER.covers(Place::ServerLibrary));
        assert!(!Scope::SERVER.covers(Place::ClientLibrary));
        assert!(Scope::LIBRARY.covers(Place::ServerLibrary));
        assert!(!Scope::LIBRARY.covers(Place::ClientProgram));
    }

    #[test]
    fn who_has_an_option_is_told_by_name() {
        assert_eq!(Scope::BOTH.to_string(), "client, server");
        assert_eq!(Scope::SERVER.to_string(), "server");
        assert_eq!(Scope::LIBRARY.to_string(), "client, server (library)");
        assert_eq!(Scope::PROGRAMS.to_string(), "mpclient, mpserver");
        assert_eq!(Scope::CLIENT_PROGRAM.to_string(), "mpclient");
    }

    #[test]
    fn zero_is_in_the_range_only_where_it_has_a_meaning() {
        assert!(Range::or_zero(576, 65535, "find out").contains(0));
        assert!(!Range::or_zero(576, 65535, "find out").contains(575));
        assert!(!Range::new(576, 65535).contains(0));
        assert!(Range::new(576, 65535).contains(576));
        assert!(Range::new(576, 65535).contains(65535));
        assert!(!Range::new(576, 65535).contains(65536));
    }

    #[test]
    fn the_expected_form_names_unit_and_range() {
        let expected = |key| OptionSpec::find(key).unwrap().expected();

        assert_eq!(
            expected("probe-interval"),
            "a duration from 50ms to 5s (without unit: ms), such as 250ms, 1.5s or 2m"
        );
        assert_eq!(expected("mtu"), "a whole number from 576 to 65535 bytes, or 0: find out");
        assert_eq!(
            expected("window-memory"),
            "a size in bytes from 1MiB to 4GiB, such as 65536, 256KiB or 4M"
        );
        assert_eq!(expected("mode"), "one of redundant, weighted, fastest, adaptive");
        assert_eq!(
            expected("target-loss"),
            "a share from 0.000000001 to 0.5, such as 0.0001, 1e-4 or 0.01%"
        );
    }
}
