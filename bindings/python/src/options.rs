// SPDX-License-Identifier: BSD-2-Clause
//! From the words of a caller to the settings of an endpoint.

use crate::errors::config;
use mptunnel_core::keyfile;
use mptunnel_core::options::{
    EndpointUri, Kind, OPTIONS, OptionSpec, PATH_WORDS, PathSpec, PathWord, Place, Protocol, Role,
    Settings, Unit,
};
use pyo3::prelude::*;

/// What an endpoint is made from.
pub(crate) struct Plan {
    /// Where the server is, or where to listen; as text.
    pub(crate) at: String,
    pub(crate) settings: Settings,
    pub(crate) paths: Vec<PathSpec>,
}

/// Reads `at`, a URI or an address, and lets `options` override what it says.
pub(crate) fn plan(
    py: Python<'_>,
    role: Role,
    at: &str,
    options: &[(String, String)],
    paths: &[String],
    has_key: bool,
) -> PyResult<Plan> {
    if at.is_empty() {
        return Err(config(
            py,
            match role {
                Role::Client => "uri is empty: expected mpt://HOST:PORT or HOST:PORT",
                Role::Server => "addr is empty: expected ADDR:PORT, such as [::]:4000, or a port",
            },
        ));
    }
    let mut plan = Plan { at: at.to_owned(), settings: Settings::default(), paths: Vec::new() };
    if at.contains("://") {
        let uri: EndpointUri = at.parse().map_err(|error| config(py, error))?;
        match (role, uri.role) {
            (Role::Client, Role::Server) => {
                return Err(config(py, "mpt-listen:// describes a server: use listen()"));
            }
            (Role::Server, Role::Client) => {
                return Err(config(py, "mpt:// describes a client: use open()"));
            }
            _ => {}
        }
        uri.apply(&mut plan.settings);
        plan.at = uri.at.to_string();
        plan.paths = uri.paths;
    }
    let place = match role {
        Role::Client => Place::ClientLibrary,
        Role::Server => Place::ServerLibrary,
    };
    for (key, value) in options {
        if let Some(spec) = OptionSpec::find(key) {
            spec.check_place(place).map_err(|error| config(py, error))?;
        }
        plan.settings.set(key, value).map_err(|error| config(py, error))?;
    }
    for words in paths {
        let spec = words.parse().map_err(|error| config(py, format!("path {words:?}: {error}")))?;
        plan.paths.push(spec);
    }
    // The classic protocol knows none.
    let has_keys = plan.settings.protocol != Protocol::Legacy;
    if has_keys && !has_key && CREDENTIALS.iter().all(|key| plan.settings.get(key).is_none()) {
        return Err(config(py, NO_KEY));
    }
    Ok(plan)
}

/// Any of them says what to encrypt with; whether it is enough, the library knows.
const CREDENTIALS: [&str; 5] =
    ["key-file", "passphrase-file", "private-key-file", "peer-key", "allowed-keys-file"];

const NO_KEY: &str = "no key: pass key_file= the name of a file that `python -m mptunnel genkey` \
                      made, or key= what mptunnel.genkey() returned; the same key on both ends";

/// One row of the option table: key, kind, unit of a bare number, choices, default, what is
/// expected, help, whether it can change live, for clients, for servers.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    Vec<&'static str>,
    Option<&'static str>,
    String,
    &'static str,
    bool,
    bool,
    bool,
);

/// The option table: what each option is called, takes and means.
#[pyfunction]
pub(crate) fn option_table() -> Vec<Row> {
    OPTIONS
        .iter()
        .map(|spec| {
            let (kind, choices) = match spec.kind {
                Kind::Choice(words) => ("choice", words.to_vec()),
                Kind::Switch => ("switch", Vec::new()),
                Kind::Duration => ("duration", Vec::new()),
                Kind::Size => ("size", Vec::new()),
                Kind::Count => ("count", Vec::new()),
                Kind::Share => ("share", Vec::new()),
                Kind::Text => ("text", Vec::new()),
                Kind::File => ("file", Vec::new()),
                Kind::PublicKey => ("public-key", Vec::new()),
                Kind::Listen => ("listen", Vec::new()),
            };
            let unit = match spec.unit {
                Unit::None => "",
                Unit::Milliseconds => "ms",
                Unit::Seconds => "s",
                Unit::Bytes => "bytes",
                Unit::Packets => "packets",
                Unit::PerSecond => "per second",
                Unit::Percent => "per cent",
            };
            (
                spec.key,
                kind,
                unit,
                choices,
                spec.default,
                spec.expected(),
                spec.help,
                spec.live,
                spec.scope.covers(Place::ClientLibrary),
                spec.scope.covers(Place::ServerLibrary),
            )
        })
        .collect()
}

/// The words that describe a path: each with its form, what its value may be, and what it means.
#[pyfunction]
pub(crate) fn path_words() -> Vec<(String, &'static str, &'static str)> {
    let row =
        |word: &PathWord| (format!("{}={}", word.key, word.placeholder), word.expected, word.help);
    PATH_WORDS.iter().map(row).collect()
}

/// A new key: 32 bytes from the system's random source, as 44 characters of base64.
#[pyfunction]
pub(crate) fn generate_key(py: Python<'_>) -> PyResult<String> {
    let key = keyfile::generate().map_err(|error| config(py, error))?;
    Ok(keyfile::encode(&key).to_string())
}
