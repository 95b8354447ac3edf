// SPDX-License-Identifier: BSD-2-Clause
//! What the programs do for `protocol = legacy`: no key, and a place for the last number sent.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use mptunnel_core::options::{Protocol, Role, Settings};

use crate::config::Environment;

/// Whether the classic protocol is asked for.
pub(crate) fn is_asked_for(settings: &Settings) -> bool {
    settings.protocol == Protocol::Legacy
}

/// Names a file for the last number sent, if the user named none: one for each port that is listened
/// on. Without a place for it the library says what that means.
pub(crate) fn locate_state(
    settings: &mut Settings,
    environment: &Environment,
    role: Role,
    port: u16,
) {
    // A port that the system picks is another one at each start.
    if settings.legacy_state.is_some() || port == 0 {
        return;
    }
    let Some(directory) = state_directory(environment) else { return };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    if let Err(error) = made {
        log::warn!("cannot make {}: {error}", directory.display());
        return;
    }
    let role = match role {
        Role::Client => "client",
        Role::Server => "server",
    };
    settings.legacy_state = Some(directory.join(format!("legacy-{role}-{port}")));
}

/// As the XDG base directory specification has it, a variable that is empty or relative counts as
/// not set.
fn state_directory(environment: &Environment) -> Option<PathBuf> {
    let absolute = |path: &&Path| path.is_absolute();
    let of_service = environment.state_directory.as_deref().map(Path::new).filter(absolute);
    if let Some(directory) = of_service {
        return Some(directory.to_owned());
    }
    let home = || {
        let home = environment.home.as_deref().filter(|home| home.is_absolute() && home.is_dir());
        home.map(|home| home.join(".local/state"))
    };
    let state_home = environment.state_home.as_deref().map(Path::new).filter(absolute);
    Some(state_home.map(Path::to_owned).or_else(home)?.join("mptunnel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(of_service: &str, state_home: &str, home: &str) -> Option<PathBuf> {
        state_directory(&Environment {
            state_directory: Some(of_service.into()),
            state_home: Some(state_home.into()),
            home: Some(home.into()),
            ..Environment::default()
        })
    }

    #[test]
    fn the_state_is_where_the_service_manager_or_the_user_keeps_state() {
        assert_eq!(directory("/var/lib/x", "/s", "/"), Some("/var/lib/x".into()));
        assert_eq!(directory("", "/s", "/"), Some("/s/mptunnel".into()));
        assert_eq!(directory("", "relative", "/"), Some("/.local/state/mptunnel".into()));
        assert_eq!(directory("", "", "/no/such/home"), None);
    }

    #[test]
    fn a_file_that_was_named_stays_and_a_port_of_the_system_s_choice_has_none() {
        let environment = Environment { state_home: Some("/s".into()), ..Environment::default() };
        let mut named = Settings { legacy_state: Some("/f".into()), ..Settings::default() };
        locate_state(&mut named, &environment, Role::Server, 2000);
        assert_eq!(named.legacy_state, Some("/f".into()));

        let mut any = Settings::default();
        locate_state(&mut any, &environment, Role::Client, 0);
        assert_eq!(any.legacy_state, None);
    }
}
