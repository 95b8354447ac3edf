// SPDX-License-Identifier: BSD-2-Clause
//! The files with keys: there, private, and of the right form. Nothing is made or changed.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use mptunnel_core::keyfile::{self, Key, KeyFileError, Privacy};
use mptunnel_core::options::{Credentials, Role, Settings};
use nix::unistd::{Uid, User};

use super::report::{Finding, Level};
use crate::config::Environment;
use crate::exit::describe;
use crate::keys::{self, KeyError};

/// What is to be said of the keys of one end; `settings` then names the file that was found.
/// Whether they can be used is whether none of it is a fault.
pub(crate) fn check(
    settings: &mut Settings,
    environment: &Environment,
    role: Role,
) -> Vec<Finding> {
    // As a client looks for it at either end: a server would make one.
    let named = settings.credentials(role).is_ok_and(|found| found != Credentials::None);
    if !named && let Err(error) = keys::locate_for_client(settings, environment) {
        return vec![not_found(&error, role)];
    }
    let privacy = match settings.allow_insecure_keys {
        true => Privacy::Ignored,
        false => Privacy::Required,
    };
    let one = |file: &Path| inspect(file, keyfile::read_key(file, privacy).map(key_id));
    let private = |file: &Path| inspect(file, keyfile::read_key(file, privacy).map(no_id));
    let several = |file: &Path| {
        let ids = keyfile::read_keys(file, privacy)
            .map(|all| all.iter().map(|key| keys::key_id(key)).collect::<Vec<_>>().join(", "));
        inspect(file, ids.map(|ids| format!("key id {ids}")))
    };
    match settings.credentials(role) {
        Err(error) => {
            vec![Finding::fault("", error.to_string(), "correct the key options")]
        }
        Ok(Credentials::None) => Vec::new(),
        Ok(Credentials::Psk { file }) if role == Role::Client => vec![one(file)],
        Ok(Credentials::Psk { file }) => vec![several(file)],
        Ok(Credentials::Passphrase { file, name }) => {
            let read = keyfile::read_passphrase(file, privacy);
            vec![inspect(file, read.map(|_| format!("a passphrase, tunnel-name {name}")))]
        }
        Ok(Credentials::ClientKeys { private_key_file, psk_file, .. }) => {
            [Some(private(private_key_file)), psk_file.map(one)].into_iter().flatten().collect()
        }
        Ok(Credentials::ServerKeys { private_key_file, allowed_keys_file, psk_file }) => {
            let clients = keyfile::read_allowed_keys(allowed_keys_file, privacy)
                .map(|list| format!("{} clients are allowed", list.len()));
            let list = inspect(allowed_keys_file, clients);
            [Some(private(private_key_file)), Some(list), psk_file.map(several)]
                .into_iter()
                .flatten()
                .collect()
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the key is wiped here")]
fn key_id(key: Key) -> String {
    format!("key id {}", keys::key_id(&key))
}

#[allow(clippy::needless_pass_by_value, reason = "the key is wiped here")]
fn no_id(_: Key) -> String {
    "a private key".to_owned()
}

/// One file that was read, or not.
fn inspect(file: &Path, read: Result<String, KeyFileError>) -> Finding {
    let subject = file.display().to_string();
    let what = match read {
        Ok(what) => what,
        Err(error) => {
            let (text, remedy) = explain(file, &error);
            return Finding::fault(subject, text, remedy);
        }
    };
    let Ok(metadata) = fs::metadata(file) else { return Finding::ok(subject, what) };
    let mode = metadata.permissions().mode() & 0o7777;
    let owner = match User::from_uid(Uid::from_raw(metadata.uid())) {
        Ok(Some(user)) => user.name,
        _ => metadata.uid().to_string(),
    };
    let text = format!("{what}; mode {mode:04o}, owner {owner}");
    let finding = Finding::ok(subject, text);
    if mode & 0o077 == 0 || what.ends_with("allowed") {
        return finding;
    }
    // It was read, so allow-insecure-keys is on, or the bits do not matter to reading.
    let remedy = format!("chmod 600 {}", file.display());
    Finding { level: Level::Warning, remedy: Some(remedy), ..finding }
}

fn explain(file: &Path, error: &KeyFileError) -> (String, String) {
    let copy = "copy the server's key file here again, as it is (scp -p)".to_owned();
    let path = file.display();
    match error {
        KeyFileError::Readable { mode, .. } => (
            format!("open to other users (mode {mode:04o}), so the programs refuse it"),
            format!("chmod 600 {path}"),
        ),
        KeyFileError::Writable { mode, .. } => (
            format!("other users can write to it (mode {mode:04o}), so the programs refuse it"),
            format!("chmod go-w {path}"),
        ),
        KeyFileError::Read { source, .. } => match source.kind() {
            io::ErrorKind::NotFound => (
                "there is no such file".to_owned(),
                "copy the server's key file there, or name another one with --key-file".to_owned(),
            ),
            io::ErrorKind::PermissionDenied => (
                "this user may not read it".to_owned(),
                format!("run as the user who owns it, or: chown $USER {path}"),
            ),
            _ => (format!("cannot be read ({source})"), copy),
        },
        other => (describe(other), copy),
    }
}

fn not_found(error: &KeyError, role: Role) -> Finding {
    match (error, role) {
        (KeyError::NoKey { looked_at }, Role::Client) => {
            let places: Vec<String> =
                looked_at.iter().map(|path| path.display().to_string()).collect();
            Finding::fault(
                "",
                format!("no key; looked for {}", places.join(" and ")),
                "copy the key file that mpserver made at its first run to one of these places, or \
                 name it with --key-file",
            )
        }
        (KeyError::NoKey { .. }, Role::Server) => {
            Finding::ok("", "none yet: mpserver makes one at its first run, and says where")
        }
        (other, _) => {
            let text = describe(other).replace('\n', " ");
            Finding::fault("", text, "name the key file with --key-file")
        }
    }
}
