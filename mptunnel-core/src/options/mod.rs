// SPDX-License-Identifier: BSD-2-Clause
//! Every setting, once: its key, type, unit, range, default, help and whether it can change live.
//!
//! [`OPTIONS`] is the only place where a setting is described. [`Settings`] holds the values; the
//! flags of the programs, the configuration file, the endpoint URI, `--help` and the reference
//! documentation are derived from the table, and so are the bindings to other languages.
//!
//! ```text
//!   flag ──────┐
//!   file line ─┤                        ┌── Settings (typed fields)
//!   URI query ─┼── key, text ── table ──┤
//!   binding ───┘                        └── OptionError (key, value, what was expected)
//! ```
//!
//! Nothing here opens a socket or reads a clock; [`ConfigFile::load`] is the only function that
//! touches the file system.

mod credentials;
mod error;
mod file;
mod host;
mod nearest;
mod path;
mod reference;
mod settings;
mod spec;
mod table;
mod uri;
mod value;

pub use credentials::{Credentials, CredentialsError};
pub use error::OptionError;
pub use file::{ConfigErrors, ConfigFile, LineError, LineErrorKind, OptionLine, PathLine};
pub use host::{AddressError, HostPort, parse_listen};
pub use path::{MAX_PATHS, PATH_WORDS, PathError, PathRate, PathRole, PathSpec, PathWord};
pub(crate) use path::{renamed_after, unused_name};
pub use reference::reference_markdown;
pub use settings::{CipherChoice, Failback, Mode, Protocol, Settings};
pub use spec::{Kind, OptionSpec, Place, Range, Role, Scope, Unit};
pub use table::OPTIONS;
pub use uri::{EndpointUri, UriError};
pub use value::{format_duration, parse_duration};
