// SPDX-License-Identifier: BSD-2-Clause
//! What SIGHUP changes: only what differs between the configuration in force and the one that was
//! read again.

use mptunnel_core::Tunnel;
use mptunnel_core::options::{OPTIONS, OptionSpec, PathSpec, Settings};

/// Which options differ.
#[derive(Debug, Default)]
pub(crate) struct OptionChanges {
    /// Those that a running program takes at once, with their new values.
    pub live: Vec<(&'static OptionSpec, String)>,
    /// Those that it takes when it is started again.
    pub at_restart: Vec<&'static str>,
}

/// Which options of `read` differ from those in force.
pub(crate) fn differing(in_force: &Settings, read: &Settings) -> OptionChanges {
    let mut changes = OptionChanges::default();
    for spec in OPTIONS.iter().filter(|spec| in_force.get(spec.key) != read.get(spec.key)) {
        match (spec.live, read.get(spec.key)) {
            (true, Some(value)) => changes.live.push((spec, value)),
            _ => changes.at_restart.push(spec.key),
        }
    }
    changes
}

/// Tells the operator which options were changed and which were not, and whether anything was.
pub(crate) fn report(program: &str, changes: &OptionChanges, paths_changed: bool) {
    if !changes.live.is_empty() {
        let keys: Vec<&str> = changes.live.iter().map(|(spec, _)| spec.key).collect();
        log::info!("configuration read again: {} changed", keys.join(", "));
    }
    if !changes.at_restart.is_empty() {
        log::warn!(
            "configuration read again: restart {program} for the new value of {}",
            changes.at_restart.join(", ")
        );
    }
    if changes.live.is_empty() && changes.at_restart.is_empty() && !paths_changed {
        log::info!("configuration read again: it is as before");
    }
}

/// Tells why nothing was changed.
pub(crate) fn report_error(error: &dyn std::error::Error) {
    for line in crate::exit::describe(error).lines() {
        log::error!("{line}");
    }
    log::error!("the configuration stays as it was");
}

/// Gives a running tunnel the paths `read` in place of those that it has. Those that are the same in
/// both are not touched; one that changed is made anew under its name. Returns whether any differed.
pub(crate) fn change_paths(tunnel: &Tunnel, read: &[PathSpec]) -> bool {
    let running = tunnel.paths();
    let in_force: Vec<PathSpec> =
        running.iter().filter_map(|path| path.words.parse().ok()).collect();
    let (gone, new) = differences(&in_force, read);
    if gone.is_empty() && new.is_empty() {
        return false;
    }
    for spec in &gone {
        let path = running.iter().find(|path| Some(&path.name) == spec.name.as_ref());
        if let Some(Err(error)) = path.map(|path| tunnel.remove_path(path.id)) {
            log::error!("path {}: not removed: {error}", name(spec));
        }
    }
    for spec in &new {
        if let Err(error) = tunnel.add_path_spec(spec.clone()) {
            log::error!("path {}: not added: {error}", name(spec));
        }
    }
    let changed = |spec: &&PathSpec| gone.iter().any(|old| old.name == spec.name);
    let (changed, added): (Vec<_>, Vec<_>) = new.iter().partition(changed);
    let removed = gone.iter().filter(|old| new.iter().all(|spec| spec.name != old.name)).collect();
    for (what, paths) in [("added", added), ("removed", removed), ("changed", changed)] {
        if !paths.is_empty() {
            let names: Vec<&str> = paths.into_iter().map(name).collect();
            log::info!("configuration read again: {what} path {}", names.join(", "));
        }
    }
    true
}

/// The paths of `old` that `new` has no more, and those of `new` that `old` did not have.
fn differences(old: &[PathSpec], new: &[PathSpec]) -> (Vec<PathSpec>, Vec<PathSpec>) {
    let without = |these: &[PathSpec], those: &[PathSpec]| {
        these.iter().filter(|spec| !those.contains(spec)).cloned().collect()
    };
    (without(old, new), without(new, old))
}

/// What logs call a path: the configuration file has given each one a name.
pub(crate) fn name(path: &PathSpec) -> &str {
    path.name.as_deref().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &[&str]) -> Vec<PathSpec> {
        text.iter().map(|words| words.parse().unwrap()).collect()
    }

    #[test]
    fn of_the_paths_only_those_that_differ_are_touched() {
        let old = paths(&["to=a:1 name=a", "to=b:1 name=b", "to=c:1 name=c"]);
        let new = paths(&["to=d:1 name=d", "to=b:1 name=b if=x", "to=a:1 name=a"]);

        let (gone, added) = differences(&old, &new);

        assert_eq!(gone, paths(&["to=b:1 name=b", "to=c:1 name=c"]));
        assert_eq!(added, paths(&["to=d:1 name=d", "to=b:1 if=x name=b"]));
        assert_eq!(differences(&old, &old), (vec![], vec![]));
    }

    #[test]
    fn live_options_are_told_from_those_that_wait_for_a_restart() {
        let mut read = Settings::default();
        read.set("flows", "7").unwrap();
        read.set("mtu", "1400").unwrap();
        read.set("key-file", "/k").unwrap();

        let changes = differing(&Settings::default(), &read);

        let live: Vec<_> =
            changes.live.iter().map(|(spec, value)| (spec.key, &value[..])).collect();
        assert_eq!(live, [("flows", "7")]);
        assert_eq!(changes.at_restart, ["key-file", "mtu"]);
        assert!(differing(&read, &read).live.is_empty());
    }
}
