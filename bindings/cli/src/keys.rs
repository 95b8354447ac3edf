// SPDX-License-Identifier: BSD-2-Clause
//! Where the programs find their key, and what happens at the first run.
//!
//! If the options name a key, a passphrase or static keys, these are used. Otherwise a shared key
//! is looked for in this order:
//!
//! 1. the file that `MPTUNNEL_KEY_FILE` names,
//! 2. `/etc/mptunnel/psk`,
//! 3. `$XDG_CONFIG_HOME/mptunnel/psk` or `~/.config/mptunnel/psk`.
//!
//! A file that is named but missing, or there but unusable, is an error: it is never skipped,
//! overwritten or created, because an end that silently uses another key looks like a dead server.
//! Only a server that finds nothing at all makes the last of these files.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use mptunnel_core::keyfile::{self, KeyFileError};
use mptunnel_core::options::{Credentials, CredentialsError, Role, Settings};
use mptunnel_core::proto::crypto::{KeySet, Psk};

use crate::config::Environment;

/// A key file that a server made at its first run. Prints what the user has to know and do; the key
/// itself is not part of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FirstRun {
    /// The file.
    pub path: PathBuf,
    /// What logs call the key.
    pub key_id: String,
}

/// Why there is no key to work with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A key file cannot be made.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// `MPTUNNEL_KEY_FILE` is set to nothing.
    #[error("MPTUNNEL_KEY_FILE is empty: name a file, or unset it")]
    EmptyEnvironment,
    /// Whether there is a key file cannot be told.
    #[error("cannot look for a key in {}; name the key file with --key-file", path.display())]
    Hidden {
        /// The file that may be there or not.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A client has found no key.
    #[error("{}", no_key(.looked_at))]
    NoKey {
        /// The places where it looked, in order.
        looked_at: Vec<PathBuf>,
    },
    /// A server has found no key, and has no place to make one.
    #[error(
        "no key, and no home directory to make one in: make one with \
         `mptunnel genpsk --output FILE` and name it with --key-file FILE, or put it at {}",
        system.display()
    )]
    NoHome {
        /// The system's key file.
        system: PathBuf,
    },
    /// The key options do not go together.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Finds the key of a client, and names it in `settings`.
///
/// # Errors
///
/// There is none. The message says what to do.
pub fn locate_for_client(
    settings: &mut Settings,
    environment: &Environment,
) -> Result<(), KeyError> {
    if settings.credentials(Role::Client)? != Credentials::None {
        return Ok(());
    }
    match find(environment)? {
        Found::File(path) => settings.key_file = Some(path),
        Found::Nothing { looked_at } => return Err(KeyError::NoKey { looked_at }),
    }
    Ok(())
}

/// Finds the key of a server, and names it in `settings`. If none is configured and there is none,
/// makes one, and tells so.
///
/// # Errors
///
/// There is none, and it cannot be made. The message says what to do.
pub fn locate_for_server(
    settings: &mut Settings,
    environment: &Environment,
) -> Result<Option<FirstRun>, KeyError> {
    if settings.credentials(Role::Server)? != Credentials::None {
        return Ok(None);
    }
    if let Found::File(path) = find(environment)? {
        settings.key_file = Some(path);
        return Ok(None);
    }
    let path = user_key(environment)
        .ok_or_else(|| KeyError::NoHome { system: system_key(environment) })?;
    if let Some(directory) = path.parent() {
        keyfile::create_directory(directory)?;
    }
    settings.key_file = Some(path.clone());
    let key = keyfile::generate()?;
    match keyfile::create(&path, &key) {
        Ok(()) => Ok(Some(FirstRun { path, key_id: key_id(&key) })),
        // Another server was faster: its key is the key of both.
        Err(KeyFileError::Exists { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What logs call a shared key.
pub(crate) fn key_id(key: &[u8; 32]) -> String {
    let psk = Psk::new(*key).expect("a key that was just made is not all zero");
    KeySet::for_psk(&psk).key_id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the default places hold.
enum Found {
    /// A file that is there, or that the environment names whether it is there or not.
    File(PathBuf),
    /// No file is there.
    Nothing { looked_at: Vec<PathBuf> },
}

fn find(environment: &Environment) -> Result<Found, KeyError> {
    match &environment.key_file {
        Some(path) if path.is_empty() => return Err(KeyError::EmptyEnvironment),
        Some(path) => return Ok(Found::File(path.into())),
        None => {}
    }
    let mut looked_at = Vec::new();
    for path in [Some(system_key(environment)), user_key(environment)].into_iter().flatten() {
        match path.symlink_metadata() {
            // Even a link to nowhere: somebody meant it to be the key.
            Ok(_) => return Ok(Found::File(path)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => looked_at.push(path),
                _ => return Err(KeyError::Hidden { path, source: error }),
            },
        }
    }
    Ok(Found::Nothing { looked_at })
}

fn system_key(environment: &Environment) -> PathBuf {
    environment.system_directory.join(KEY_NAME)
}

/// The user's key file, if the user has a home. As the XDG base directory specification has it, a
/// variable that is empty or relative counts as not set.
fn user_key(environment: &Environment) -> Option<PathBuf> {
    let config_home = environment.config_home.as_deref().map(Path::new);
    let directory = match config_home.filter(|directory| directory.is_absolute()) {
        Some(directory) => directory.to_owned(),
        // A home that is not there is never made: it would be somebody's mistake come true.
        None => {
            environment.home.as_deref().filter(|h| h.is_absolute() && h.is_dir())?.join(".config")
        }
    };
    Some(directory.join("mptunnel").join(KEY_NAME))
}

fn no_key(looked_at: &[PathBuf]) -> String {
    let mut text = String::from("no key: a client needs the key file of its server. Looked for");
    for path in looked_at {
        text.push_str("\n  ");
        text.push_str(&path.display().to_string());
    }
    let there = looked_at.last().filter(|_| looked_at.len() > 1);
    match there.and_then(|path| Some((path, path.parent()?))) {
        Some((path, directory)) => text.push_str(&format!(
            "\nmpserver said at its first run where its file is. Copy it from there, such as\
             \n  mkdir -p -m 700 {directory}\
             \n  scp -p SERVER:.config/mptunnel/psk {path}\
             \nor name a file with --key-file FILE.",
            directory = quoted(directory),
            path = quoted(path),
        )),
        None => text.push_str(
            "\nand there is no home directory. mpserver said at its first run where its file is: \
             copy it from there\nand name it with --key-file FILE.",
        ),
    }
    text
}

impl fmt::Display for FirstRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "first run: made a new key, {path} (key id {key_id})\n\
             Every client needs a copy of this file, and nobody else may have one. Such as:\n  \
             ssh CLIENT mkdir -p -m 700 .config/mptunnel\n  \
             scp -p {quoted} CLIENT:.config/mptunnel/psk",
            path = self.path.display(),
            key_id = self.key_id,
            quoted = quoted(&self.path),
        )
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@%:,".contains(&b)) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

const KEY_NAME: &str = "psk";

#[cfg(all(test, unix))]
#[path = "keys_tests.rs"]
mod tests;
