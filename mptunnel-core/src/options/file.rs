// SPDX-License-Identifier: BSD-2-Clause
//! The configuration file: the one of the classic mptunnel client, with options and path words.
//!
//! ```text
//! # a comment: the first character of its line, blanks aside
//! bridge1.example 4000
//! 192.0.2.1 4000 if=wwan0 role=backup name=lte
//! fd00::1 4000
//! to=bridge4.example:4000 weight=3
//! rekey-interval = 60s
//! ```
//!
//! A line is a path (`HOST PORT` and path words, or path words that begin with `to=`) or an option
//! (`KEY = VALUE`, the value up to the end of the line). Blank lines, and carriage returns at the
//! end of a line, do no harm. A path without a name is called after where it goes, `HOST:PORT`, and
//! from the second one to the same place on `HOST:PORT#2`, `HOST:PORT#3`, in the order of the file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::OptionError;
use super::host::{AddressError, HostPort};
use super::path::{self, MAX_PATHS, PATH_WORDS, PathError, PathSpec};
use super::settings::Settings;
use super::spec::{OptionSpec, Place, Role};

/// What a configuration file says, checked line by line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigFile {
    /// The options, in order.
    pub options: Vec<OptionLine>,
    /// The paths, in order, each with `to` and a name.
    pub paths: Vec<PathLine>,
}

/// One option of a configuration file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OptionLine {
    /// The line, from 1.
    pub line: usize,
    /// The option.
    pub key: &'static str,
    /// Its value as text.
    pub value: String,
}

/// One path of a configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct PathLine {
    /// The line, from 1.
    pub line: usize,
    /// The path.
    pub spec: PathSpec,
}

/// All that is wrong with a configuration file: it cannot be read, or some of its lines are not
/// understood. Prints one line `FILE:LINE: message` for each.
#[derive(Debug)]
pub enum ConfigErrors {
    /// The file cannot be read.
    Read {
        /// The file as it was named.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// Lines are not understood.
    Lines {
        /// The file as it was named.
        file: String,
        /// Each of them, in order. Not empty.
        errors: Vec<LineError>,
    },
}

/// What is wrong with one line.
#[derive(Clone, Debug, PartialEq)]
pub struct LineError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub kind: LineErrorKind,
}

/// What can be wrong with a line.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LineErrorKind {
    /// A word of a path is not understood.
    #[error(transparent)]
    Path(PathError),
    /// The host or the port of a path is not understood.
    #[error(transparent)]
    Address(AddressError),
    /// A path has a host and nothing else.
    #[error("no port behind {0:?}: expected HOST PORT, such as bridge1.example 4000")]
    NoPort(String),
    /// Host and port are joined by a colon.
    #[error("{0:?}: host and port stand apart: write {host:?}", host = apart(.0))]
    Joined(String),
    /// A path has both `HOST PORT` and `to=`.
    #[error("to= is given twice: the line begins with host and port already")]
    ToTwice,
    /// A path word stands where an option belongs.
    #[error(
        "{0} is a word of a path: write it behind host and port, such as \
         bridge1.example 4000 {0}=VALUE"
    )]
    PathWord(&'static str),
    /// An option was not taken.
    #[error(transparent)]
    Option(OptionError),
    /// An option has no value.
    #[error("{key} has no value: expected {key} = VALUE, or remove the line")]
    NoValue {
        /// The option.
        key: &'static str,
    },
    /// The same option a second time.
    #[error("{key} is set already in line {first}: remove one of the two")]
    Repeated {
        /// The option.
        key: &'static str,
        /// The line of the first one.
        first: usize,
    },
    /// The same path name a second time.
    #[error("the path of line {first} has the name {name:?} already: names must differ")]
    DuplicateName {
        /// The name.
        name: String,
        /// The line of the first one.
        first: usize,
    },
    /// More paths than a session has room for.
    #[error("more than {MAX_PATHS} paths: remove this one or another one")]
    TooManyPaths,
    /// A path in the file of a server.
    #[error("a server has no paths of its own: this line belongs to the file of a client")]
    PathOfServer,
    /// The line is not UTF-8.
    #[error("this line is not UTF-8 text")]
    NotText,
    /// The line is a key, as those of key files are. It is not repeated here.
    #[error(
        "this is a key, as a key file has it: name that file with key-file = FILE in the \
         configuration, which is another file"
    )]
    Key,
    /// More lines are not understood than are worth telling.
    #[error("and more is wrong from here on: is this a configuration file?")]
    TooManyErrors,
    /// The file is larger than any configuration.
    #[error("the file is too large for a configuration file")]
    TooLarge,
}

impl ConfigFile {
    /// Reads the configuration file `file` for use at `place`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or lines of it are not understood: all of them are told, or the
    /// first 20.
    pub fn load(file: &Path, place: Place) -> Result<ConfigFile, ConfigErrors> {
        let name = file.display().to_string();
        let mut bytes = Vec::new();
        let read = File::open(file).and_then(|f| f.take(MAX_FILE + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => ConfigFile::parse(&name, &bytes, place),
            Err(source) => Err(ConfigErrors::Read { file: name, source }),
        }
    }

    /// Reads the text of a configuration file for use at `place`. Messages call the file `name`.
    ///
    /// # Errors
    ///
    /// Lines are not understood: all of them are told, or the first 20.
    pub fn parse(name: &str, text: &[u8], place: Place) -> Result<ConfigFile, ConfigErrors> {
        let mut parser = Parser { place, config: ConfigFile::default(), errors: Vec::new() };
        if u64::try_from(text.len()).is_ok_and(|len| len > MAX_FILE) {
            parser.errors.push(LineError { line: 1, kind: LineErrorKind::TooLarge });
        } else {
            // Editors on some systems put a byte order mark before everything else.
            let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
            for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
                let number = index + 1;
                match std::str::from_utf8(line) {
                    Ok(line) => parser.take_line(number, line.trim()),
                    Err(_) => parser.fail(number, LineErrorKind::NotText),
                }
                if parser.errors.len() > MAX_ERRORS {
                    // Probably another file by mistake, of which messages tell no more than they
                    // have to.
                    parser.errors.truncate(MAX_ERRORS);
                    parser.fail(number, LineErrorKind::TooManyErrors);
                    break;
                }
            }
        }
        if !parser.errors.is_empty() {
            return Err(ConfigErrors::Lines { file: name.to_owned(), errors: parser.errors });
        }
        path::name_paths(parser.config.paths.iter_mut().map(|path| &mut path.spec), None);
        Ok(parser.config)
    }

    /// Sets the options of this file in `settings`.
    pub fn apply(&self, settings: &mut Settings) {
        for option in &self.options {
            settings
                .set(option.key, &option.value)
                .expect("options were checked when the file was parsed");
        }
    }
}

struct Parser {
    place: Place,
    config: ConfigFile,
    errors: Vec<LineError>,
}

impl Parser {
    fn fail(&mut self, line: usize, kind: LineErrorKind) {
        self.errors.push(LineError { line, kind });
    }

    fn take_line(&mut self, line: usize, text: &str) {
        if text.is_empty() || text.starts_with('#') {
            return;
        }
        // The key file in place of the configuration: messages end up in logs and in questions to
        // others, so they must not repeat it.
        let first = text.split_ascii_whitespace().next();
        if first.is_some_and(|word| crate::keyfile::decode(word).is_some()) {
            return self.fail(line, LineErrorKind::Key);
        }
        match text.split_once('=') {
            Some(("to", _)) => self.take_path(line, path::words(text), None),
            Some((key, value)) if !key.trim_end().contains([' ', '\t', ',']) => {
                self.take_option(line, key.trim_end(), value.trim_start());
            }
            _ => self.take_host(line, text),
        }
    }

    fn take_option(&mut self, line: usize, key: &str, value: &str) {
        let spec = OptionSpec::find(key);
        if spec.is_none()
            && let Some(word) = PATH_WORDS.iter().find(|word| word.key == key)
        {
            return self.fail(line, LineErrorKind::PathWord(word.key));
        }
        if let Some(spec) = spec {
            let key = spec.key;
            if value.is_empty() {
                return self.fail(line, LineErrorKind::NoValue { key });
            }
            if let Some(first) = self.config.options.iter().find(|option| option.key == key) {
                let first = first.line;
                return self.fail(line, LineErrorKind::Repeated { key, first });
            }
            if let Err(error) = spec.check_place(self.place) {
                return self.fail(line, LineErrorKind::Option(error));
            }
        }
        match (Settings::default().set(key, value), spec) {
            (Err(error), _) => self.fail(line, LineErrorKind::Option(error)),
            (Ok(()), None) => unreachable!("an option that can be set is in the table"),
            (Ok(()), Some(spec)) => {
                let value = value.to_owned();
                self.config.options.push(OptionLine { line, key: spec.key, value });
            }
        }
    }

    /// Takes a path that begins with host and port.
    fn take_host(&mut self, line: usize, text: &str) {
        let mut words = path::words(text);
        let Some(host) = words.next() else {
            // A line of commas.
            let error = AddressError::NoHost(text.to_owned());
            return self.fail(line, LineErrorKind::Address(error));
        };
        let port = match words.next() {
            Some(port) if !port.contains('=') => port,
            _ if host.parse::<HostPort>().is_ok() => {
                return self.fail(line, LineErrorKind::Joined(host.to_owned()));
            }
            _ => return self.fail(line, LineErrorKind::NoPort(host.to_owned())),
        };
        match HostPort::from_words(host, port) {
            Ok(to) => self.take_path(line, words, Some(to)),
            Err(error) => {
                self.fail(line, LineErrorKind::Address(error));
                // What else is wrong with the line is told as well.
                if let Err(errors) = PathSpec::parse_words(words) {
                    self.fail_all(line, errors);
                }
            }
        }
    }

    fn take_path<'a>(
        &mut self,
        line: usize,
        words: impl Iterator<Item = &'a str>,
        to: Option<HostPort>,
    ) {
        if self.place.role() == Role::Server {
            return self.fail(line, LineErrorKind::PathOfServer);
        }
        let mut spec = match PathSpec::parse_words(words) {
            Ok(spec) => spec,
            Err(errors) => return self.fail_all(line, errors),
        };
        match (to, &spec.to) {
            (Some(_), Some(_)) => return self.fail(line, LineErrorKind::ToTwice),
            (Some(to), None) => spec.to = Some(to),
            (None, _) => {}
        }
        if let Err(error) = spec.check_families(None) {
            return self.fail(line, LineErrorKind::Path(error));
        }
        let twin = |path: &&PathLine| path.spec.name.is_some() && path.spec.name == spec.name;
        if let Some(first) = self.config.paths.iter().find(twin) {
            let first = first.line;
            let name = spec.name.unwrap_or_default();
            return self.fail(line, LineErrorKind::DuplicateName { name, first });
        }
        if self.config.paths.len() == MAX_PATHS {
            return self.fail(line, LineErrorKind::TooManyPaths);
        }
        self.config.paths.push(PathLine { line, spec });
    }

    fn fail_all(&mut self, line: usize, errors: Vec<PathError>) {
        for error in errors {
            self.fail(line, LineErrorKind::Path(error));
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigErrors::Read { file, .. } => {
                write!(f, "cannot read configuration file {file}")
            }
            ConfigErrors::Lines { file, errors } => {
                for (index, error) in errors.iter().enumerate() {
                    let end = if index == 0 { "" } else { "\n" };
                    write!(f, "{end}{file}:{}: {}", error.line, error.kind)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConfigErrors {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConfigErrors::Read { source, .. } => Some(source),
            ConfigErrors::Lines { .. } => None,
        }
    }
}

/// `HOST:PORT` as the file wants it.
fn apart(joined: &str) -> String {
    joined
        .parse::<HostPort>()
        .map_or_else(|_| joined.to_owned(), |place| format!("{} {}", place.host(), place.port()))
}

/// Bytes of the largest file that is read: far above any configuration, far below `/dev/zero`.
const MAX_FILE: u64 = 1 << 20;

/// So many mistakes are told, and that there are more.
const MAX_ERRORS: usize = 20;

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
