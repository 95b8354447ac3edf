// SPDX-License-Identifier: BSD-2-Clause
//! The words that describe a path, the same in files, URIs, flags and bindings.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::host::{AddressError, HostPort};
use super::nearest::nearest;

/// One path, as its user describes it.
///
/// As text: words `KEY=VALUE` between blanks or commas, in any order, such as
/// `to=bridge1.example:4000 if=wwan0 weight=3 role=backup name=lte`. [`PATH_WORDS`] lists them.
#[derive(Clone, Debug, PartialEq)]
pub struct PathSpec {
    /// The bridge, or the server itself. `None`: the server named by the endpoint.
    pub to: Option<HostPort>,
    /// The interface that the path is bound to.
    pub interface: Option<String>,
    /// The local address that the path sends from.
    pub source: Option<IpAddr>,
    /// The firewall mark of its packets (Linux).
    pub mark: Option<u32>,
    /// Its share under `mode=weighted`, 1 to 65535; 0: `auto`, as it is measured.
    pub weight: u32,
    /// Whether it carries traffic, or waits until no active path is up.
    pub role: PathRole,
    /// What it can carry upwards, from here: packets leave no faster.
    pub rate: PathRate,
    /// What it can carry to here: the server sends no faster, to the nearest kbit/s.
    pub rate_down: PathRate,
    /// What it costs to use, 0 by default. No unit: modes `fastest` and `adaptive` take cheaper
    /// paths first, both ways.
    pub cost: Option<u8>,
    /// What logs and statistics call it.
    pub name: Option<String>,
    /// The largest IP packet it carries, bytes, 576 to 65535. `None`: as the option `mtu` says.
    pub mtu: Option<u16>,
    /// Under `protocol = legacy`: whether its port is changed when nothing comes down for long,
    /// which a bridge that serves its first port only cannot follow.
    pub rotate: bool,
}

/// What the link of a path can carry in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum PathRate {
    /// Not known: packets leave as they come.
    #[default]
    Unknown,
    /// So many Mbit/s, 0.001 to 1,000,000, headers of IP and UDP included.
    Mbit(f64),
    /// Not known, and found out: from the delay of probes and from what arrives of the packets
    /// between them.
    Auto,
}

impl PathRate {
    fn of_word(word: &str) -> Option<PathRate> {
        match word {
            "none" => Some(PathRate::Unknown),
            "auto" => Some(PathRate::Auto),
            _ => mbit(word).map(PathRate::Mbit),
        }
    }

    fn word(self) -> Option<String> {
        match self {
            PathRate::Unknown => None,
            PathRate::Mbit(rate) => Some(rate.to_string()),
            PathRate::Auto => Some("auto".to_owned()),
        }
    }
}

/// Whether a path carries traffic all the time.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum PathRole {
    /// It carries traffic whenever it is up.
    #[default]
    Active,
    /// It carries traffic only when no active path is up.
    Backup,
}

/// One of the words that describe a path.
#[derive(Clone, Copy, Debug)]
pub struct PathWord {
    /// The word before `=`.
    pub key: &'static str,
    /// What stands behind it, such as `HOST:PORT`.
    pub placeholder: &'static str,
    /// The form of its value, with unit and range.
    pub expected: &'static str,
    /// One line of help, lower case, no full stop.
    pub help: &'static str,
}

/// The words that describe a path, in the order in which [`PathSpec`] prints them.
pub static PATH_WORDS: &[PathWord] = &[
    PathWord {
        key: "to",
        placeholder: "HOST:PORT",
        expected: "HOST:PORT, such as bridge1.example:4000 or [2001:db8::1]:4000",
        help: "the bridge, or the server itself",
    },
    PathWord {
        key: "if",
        placeholder: "NAME",
        expected: "the name of an interface, 1 to 15 bytes, such as eth0",
        help: "send through this interface only",
    },
    PathWord {
        key: "src",
        placeholder: "ADDR",
        expected: "a local IP address, such as 192.0.2.7",
        help: "send from this local address",
    },
    PathWord {
        key: "mark",
        placeholder: "NUMBER",
        expected: "a whole number from 0 to 4294967295, or 0x and hexadecimal digits",
        help: "firewall mark of the packets, for policy routing (Linux)",
    },
    PathWord {
        key: "weight",
        placeholder: "NUMBER|auto",
        expected: "a whole number from 1 to 65535, or auto; for a path that waits, use role=backup",
        help: "share of the traffic in mode weighted; auto: as it is measured (default 1)",
    },
    PathWord {
        key: "role",
        placeholder: "active|backup",
        expected: "active or backup",
        help: "backup: only when no active path is up (default active)",
    },
    PathWord {
        key: "rate",
        placeholder: "MBIT|auto|none",
        expected: "a number of Mbit/s from 0.001 to 1000000, such as 20 or 0.5, or auto, or none",
        help: "what the link can carry upwards, in Mbit/s: packets leave no faster; auto: it is found out (default none)",
    },
    PathWord {
        key: "rate-down",
        placeholder: "MBIT|auto|none",
        expected: "a number of Mbit/s from 0.001 to 1000000, such as 20 or 0.5, or auto, or none",
        help: "what the link can carry to here, in Mbit/s: the server sends no faster; auto: it finds out (default none)",
    },
    PathWord {
        key: "cost",
        placeholder: "NUMBER",
        expected: "a whole number from 0 to 255",
        help: "what it costs to use: modes fastest and adaptive take cheaper paths first (default 0)",
    },
    PathWord {
        key: "name",
        placeholder: "TEXT",
        expected: "a name of 1 to 64 bytes without blanks, commas and control characters",
        help: "what logs and statistics call the path (default HOST:PORT)",
    },
    PathWord {
        key: "mtu",
        placeholder: "BYTES",
        expected: "a whole number of bytes from 576 to 65535",
        help: "largest IP packet on this path, if it is known",
    },
    PathWord {
        key: "rotate",
        placeholder: "on|off",
        expected: "on or off",
        help: "legacy: off keeps its port, for a bridge that serves one only (default on)",
    },
];

/// Why a text does not describe a path.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// The word is none of [`PATH_WORDS`]. `nearest` is what was probably meant.
    #[error("unknown word {word:?}{}", hint(.word, .nearest))]
    Unknown {
        /// The word as it was given.
        word: String,
        /// The known word, without its `=`.
        nearest: Option<&'static str>,
    },
    /// The value has the wrong form or is out of range.
    #[error("{word}: expected {expected}")]
    Value {
        /// The word as it was given.
        word: String,
        /// The form, unit and range of its values.
        expected: &'static str,
    },
    /// What follows `to=` is no host and port.
    #[error("to={value}: {cause}")]
    To {
        /// What stands behind `to=`.
        value: String,
        /// What is wrong with it.
        cause: AddressError,
    },
    /// The same word twice.
    #[error("{key}= is given twice: keep one of {first:?} and {second:?}")]
    Repeated {
        /// The word.
        key: &'static str,
        /// The first value.
        first: String,
        /// The second one.
        second: String,
    },
    /// The local address and the remote one are of different families.
    #[error("src={src} cannot reach {to}: one is IPv4, the other IPv6")]
    Families {
        /// The local address.
        src: IpAddr,
        /// The remote one.
        to: HostPort,
    },
}

impl Default for PathSpec {
    fn default() -> PathSpec {
        PathSpec {
            to: None,
            interface: None,
            source: None,
            mark: None,
            weight: 1,
            role: PathRole::Active,
            rate: PathRate::Unknown,
            rate_down: PathRate::Unknown,
            cost: None,
            name: None,
            mtu: None,
            rotate: true,
        }
    }
}

impl PathSpec {
    /// Reads words, telling everything that is wrong with them and not only the first.
    pub(super) fn parse_words<'a>(
        words: impl Iterator<Item = &'a str>,
    ) -> Result<PathSpec, Vec<PathError>> {
        let mut spec = PathSpec::default();
        let mut seen: Vec<(&'static str, &str)> = Vec::new();
        let mut errors = Vec::new();
        for text in words {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            let known = PATH_WORDS.iter().find(|word| word.key == key && text.contains('='));
            let Some(known) = known else {
                let nearest = nearest(key, PATH_WORDS.iter().map(|word| word.key));
                errors.push(PathError::Unknown { word: text.to_owned(), nearest });
                continue;
            };
            if let Some((key, first)) = seen.iter().find(|(key, _)| *key == known.key) {
                let (first, second) = ((*first).to_owned(), value.to_owned());
                errors.push(PathError::Repeated { key, first, second });
                continue;
            }
            seen.push((known.key, value));
            if let Err(error) = spec.set(known, text, value) {
                errors.push(error);
            }
        }
        if let Err(error) = spec.check_families(None) {
            errors.push(error);
        }
        if errors.is_empty() { Ok(spec) } else { Err(errors) }
    }

    /// Changes one word.
    ///
    /// # Errors
    ///
    /// Nothing changes if there is no such word, or if the value has the wrong form or does not go
    /// with another one.
    pub fn set_word(&mut self, key: &str, value: &str) -> Result<(), PathError> {
        let text = format!("{key}={value}");
        let Some(known) = PATH_WORDS.iter().find(|word| word.key == key) else {
            let nearest = nearest(key, PATH_WORDS.iter().map(|word| word.key));
            return Err(PathError::Unknown { word: text, nearest });
        };
        let mut changed = self.clone();
        changed.set(known, &text, value)?;
        changed.check_families(None)?;
        *self = changed;
        Ok(())
    }

    fn set(&mut self, word: &'static PathWord, text: &str, value: &str) -> Result<(), PathError> {
        let malformed = || PathError::Value { word: text.to_owned(), expected: word.expected };
        match word.key {
            "to" => {
                let failed = |cause| PathError::To { value: value.to_owned(), cause };
                self.to = Some(value.parse().map_err(failed)?);
            }
            "if" => {
                // 1 to IFNAMSIZ - 1 bytes, no slash, no colon (net/core/dev.c, dev_valid_name). Linux
                // would take a comma, but between words that is where one ends.
                let sound = (1..=15).contains(&value.len())
                    && !value.contains(['/', ':', ','])
                    && !value.chars().any(|c| c.is_whitespace() || c.is_control());
                self.interface = Some(sound.then(|| value.to_owned()).ok_or_else(malformed)?);
            }
            "src" => self.source = Some(value.parse().map_err(|_| malformed())?),
            "mark" => {
                let mark = match value.strip_prefix("0x") {
                    Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                        u32::from_str_radix(hex, 16).ok()
                    }
                    Some(_) => None,
                    None => number(value),
                };
                self.mark = Some(mark.ok_or_else(malformed)?);
            }
            "weight" => {
                self.weight = match value {
                    "auto" => 0,
                    _ => {
                        number(value).filter(|n| (1..=65_535).contains(n)).ok_or_else(malformed)?
                    }
                };
            }
            "role" => {
                self.role = match value {
                    "active" => PathRole::Active,
                    "backup" => PathRole::Backup,
                    _ => return Err(malformed()),
                }
            }
            "rate" => self.rate = PathRate::of_word(value).ok_or_else(malformed)?,
            "rate-down" => self.rate_down = PathRate::of_word(value).ok_or_else(malformed)?,
            "cost" => {
                let cost = number(value).and_then(|cost| u8::try_from(cost).ok());
                self.cost = Some(cost.ok_or_else(malformed)?);
            }
            "name" => {
                let sound = (1..=64).contains(&value.len())
                    && !value.contains(',')
                    && !value.chars().any(|c| c.is_whitespace() || c.is_control());
                self.name = Some(sound.then(|| value.to_owned()).ok_or_else(malformed)?);
            }
            "mtu" => {
                let mtu = number(value).and_then(|mtu| u16::try_from(mtu).ok());
                self.mtu = Some(mtu.filter(|mtu| *mtu >= 576).ok_or_else(malformed)?);
            }
            "rotate" => {
                self.rotate = match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err(malformed()),
                }
            }
            other => unreachable!("PATH_WORDS lists {other:?}, which PathSpec does not know"),
        }
        Ok(())
    }

    /// Whether the local address can reach the remote one, which is `home` for a path without `to`.
    pub(super) fn check_families(&self, home: Option<&HostPort>) -> Result<(), PathError> {
        let (Some(src), Some(to)) = (self.source, self.to.as_ref().or(home)) else {
            return Ok(());
        };
        match to.is_ipv6() {
            Some(v6) if v6 != src.is_ipv6() => Err(PathError::Families { src, to: to.clone() }),
            _ => Ok(()),
        }
    }

    /// The value of one word as text, `None` where it is the default.
    fn get(&self, key: &str) -> Option<String> {
        match key {
            "to" => self.to.as_ref().map(HostPort::to_string),
            "if" => self.interface.clone(),
            "src" => self.source.map(|ip| ip.to_string()),
            "mark" => self.mark.map(|mark| mark.to_string()),
            "weight" => match self.weight {
                0 => Some("auto".to_owned()),
                weight => (weight != 1).then(|| weight.to_string()),
            },
            "role" => (self.role == PathRole::Backup).then(|| self.role.to_string()),
            "rate" => self.rate.word(),
            "rate-down" => self.rate_down.word(),
            "cost" => self.cost.map(|cost| cost.to_string()),
            "name" => self.name.clone(),
            "mtu" => self.mtu.map(|mtu| mtu.to_string()),
            "rotate" => (!self.rotate).then(|| "off".to_owned()),
            other => unreachable!("PATH_WORDS lists {other:?}, which PathSpec does not know"),
        }
    }
}

/// Gives each path without a name one: where it goes to, as `HOST:PORT`, and `HOST:PORT#2`,
/// `HOST:PORT#3` from the second one to the same place on. `home` is where a path without `to`
/// goes.
pub(super) fn name_paths<'a>(
    paths: impl IntoIterator<Item = &'a mut PathSpec>,
    home: Option<&HostPort>,
) {
    let mut paths: Vec<&mut PathSpec> = paths.into_iter().collect();
    let mut taken: Vec<String> = paths.iter().filter_map(|path| path.name.clone()).collect();
    for path in paths.iter_mut().filter(|path| path.name.is_none()) {
        let Some(to) = path.to.as_ref().or(home) else { continue };
        let name = unused_name(to.to_string(), |name| !taken.iter().any(|its| its == name));
        taken.push(name.clone());
        path.name = Some(name);
    }
}

/// The name of a path that goes to `new` now, if it was named after `old`, where it went before.
pub(crate) fn renamed_after(
    name: &str,
    old: &HostPort,
    new: &HostPort,
    is_free: impl Fn(&str) -> bool,
) -> Option<String> {
    // Behind it may be the interface, or a number that told it from another path.
    let rest = name.strip_prefix(&old.to_string())?;
    let interface = match rest.bytes().next() {
        None | Some(b'#') => "",
        Some(b'%') => rest,
        Some(_) => return None,
    };
    Some(unused_name(format!("{new}{interface}"), is_free))
}

/// `name`, or `name#2`, `name#3` and so on if others have that.
pub(crate) fn unused_name(name: String, is_free: impl Fn(&str) -> bool) -> String {
    let numbered = (2u32..).map(|count| format!("{name}#{count}"));
    let mut names = std::iter::once(name.clone()).chain(numbered);
    names.find(|name| is_free(name)).unwrap_or(name)
}

/// The words of a line or a spec.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty())
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A rate in Mbit/s, in plain decimal digits.
fn mbit(text: &str) -> Option<f64> {
    let decimal = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let rate = text.parse().ok().filter(|_| decimal);
    rate.filter(|rate| (0.001..=1_000_000.0).contains(rate))
}

fn hint(word: &str, nearest: &Option<&'static str>) -> String {
    if let Some(key) = nearest {
        return format!(": did you mean \"{key}=\"?");
    }
    if word.starts_with('#') {
        return ": a comment needs a line of its own".to_owned();
    }
    let known: Vec<String> = PATH_WORDS.iter().map(|word| format!("{}=", word.key)).collect();
    format!(": expected one of {}", known.join(" "))
}

impl fmt::Display for PathSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut blank = "";
        for word in PATH_WORDS {
            if let Some(value) = self.get(word.key) {
                write!(f, "{blank}{}={value}", word.key)?;
                blank = " ";
            }
        }
        Ok(())
    }
}

impl fmt::Display for PathRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathRole::Active => "active",
            PathRole::Backup => "backup",
        })
    }
}

impl FromStr for PathSpec {
    type Err = PathError;

    fn from_str(text: &str) -> Result<PathSpec, PathError> {
        PathSpec::parse_words(words(text)).map_err(|mut errors| errors.swap_remove(0))
    }
}

/// Paths of one endpoint, at most: the path slots that a server keeps per session (PROTOCOL.md).
pub const MAX_PATHS: usize = 32;

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
