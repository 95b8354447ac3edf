// SPDX-License-Identifier: BSD-2-Clause
//! What SIGHUP changes: only what differs between the configuration in force and the one that was
//! read again.

use mptunnel_core::Tunnel;
use mptunnel_core::options::{OPTIONS, OptionSpec, PathSpec, Settings};

/// Which options differ.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct OptionChanges {
    /// Those that a running program takes at once.
    pub live: Vec<&'static str>,
    /// Those that it takes when it is started again.
    pub at_restart: Vec<&'static str>,
}

/// Takes over what can be changed at run time from `read` to `in_force`, and tells what differs.
pub(crate) fn take_over(in_force: &mut Settings, read: &Settings) -> OptionChanges {
    let mut changes = OptionChanges::default();
    let differs = |spec: &&OptionSpec| in_force.get(spec.key) != read.get(spec.key);
    for spec in OPTIONS.iter().filter(differs).collect::<Vec<_>>() {
        match (spec.live, read.get(spec.key)) {
            (true, Some(value)) => {
                in_force.set(spec.key, &value).expect("a value that was read is read again");
                changes.live.push(spec.key);
            }
            _ => changes.at_restart.push(spec.key),
        }
    }
    changes
}

/// Tells the operator which options were changed and which were not, and whether anything was.
pub(crate) fn report(program: &str, changes: &OptionChanges, paths_changed: bool) {
    if !changes.live.is_empty() {
        log::info!("configuration read again: {} changed", changes.live.join(", "));
    }
    if !changes.at_restart.is_empty() {
        log::warn!(
            "configuration read again: restart {program} for the new value of {}",
            changes.at_restart.join(", ")
        );
    }
    if *changes == OptionChanges::default() && !paths_changed {
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

/// Gives a running tunnel the paths `read` in place of `in_force`. Those that are the same in both
/// are not touched; one that changed is made anew under its name. Returns whether any differed.
pub(crate) fn change_paths(
    tunnel: &Tunnel,
    in_force: &mut Vec<PathSpec>,
    read: Vec<PathSpec>,
) -> bool {
    let (gone, new) = differences(in_force, &read);
    if gone.is_empty() && new.is_empty() {
        return false;
    }
    let running = tunnel.paths();
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
    *in_force = read;
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
    fn live_options_are_taken_over_and_others_wait_for_a_restart() {
        let mut in_force = Settings::default();
        let mut read = Settings::default();
        read.set("flows", "7").unwrap();
        read.set("mtu", "1400").unwrap();
        read.set("key-file", "/k").unwrap();

        let changes = take_over(&mut in_force, &read);

        assert_eq!(changes.live, ["flows"]);
        assert_eq!(changes.at_restart, ["key-file", "mtu"]);
        assert_eq!((in_force.flows, in_force.mtu, &in_force.key_file), (7, 0, &None));
        assert_eq!(take_over(&mut in_force, &read).live, [""; 0]);
    }
}
