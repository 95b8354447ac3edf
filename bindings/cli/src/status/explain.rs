// SPDX-License-Identifier: BSD-2-Clause
//! Why a path is in its state, since when, and what would change it.

use serde_json::{Value, json};

use super::model::{Path, Status};
use super::table::{age, mbit_or, millis, millis_or, percent, percent_or};
use crate::control::client::{Connection, ControlError, Which};
use crate::terminal::{harmless, wrapped};

/// Columns of the text.
const WIDTH: usize = 79;
/// Columns of what stands before it.
const LABEL: usize = 10;
/// Losses that are correlated more than this have a cause in common.
const TOGETHER: f64 = 0.3;
/// Events of the path that are told.
const EVENTS: usize = 5;

/// Prints what is known of a path.
pub(super) fn print(path: &str, which: &Which) -> Result<(), ControlError> {
    let mut program = Connection::find(which)?;
    let status = super::ask(&mut program)?;
    let events = program.ask(&json!({ "ask": "recent" }))?;
    let path = super::find(&status, path)?;
    super::print(&text(&status, path, &events))
}

fn text(status: &Status, path: &Path, events: &Value) -> String {
    let mut lines = vec![format!(
        "path {} of {} {} {}, for {}",
        path.name,
        status.program,
        status.pid,
        path.verb_and_state(),
        age(path.since)
    )];
    let mut say = |label: &str, text: &str| {
        for (number, line) in wrapped(text, WIDTH - LABEL).into_iter().enumerate() {
            let label = if number == 0 { label } else { "" };
            lines.push(format!("{label:<LABEL$}{line}"));
        }
    };
    say("why", &path.reason);
    if let Some(remote) = &path.remote {
        // A move of this end's address alone is none of the other end's.
        let before = path.remote_before.as_ref().filter(|before| *before != remote);
        let before = before.map_or(String::new(), |before| format!("; before it moved, {before}"));
        say("leads to", &format!("{remote}{before}"));
    }
    say("measured", &measured(path));
    if let Some(queued) = path.queued {
        say("pace", &pace(path, queued));
    }
    if let Some(only) = path.only_out {
        let mut text = format!(
            "of what is sent on it and on others, {} comes on it alone, by a sample",
            percent(only)
        );
        if let Some(lead) = path.lead_out {
            text += &format!("; where it is the first, it is by {}", millis(lead));
        }
        say("worth", &text);
    }
    let with = path.fails_with.filter(|(_, correlation)| *correlation > TOGETHER);
    if let Some((with, correlation)) = with {
        let other = status.paths.iter().find(|p| p.id == with && p.peer == path.peer);
        let name = other.map_or("?", |other| &*other.name);
        say(
            "beware",
            &format!(
                "it loses together with {name} (correlation {correlation:.2}): do both take the \
                 same way?"
            ),
        );
    }
    if !path.errors.is_empty() {
        let errors: Vec<String> = path.errors.iter().map(|(e, n)| format!("{e} {n}")).collect();
        say("errors", &errors.join(", "));
    }
    let latest = latest(path, events);
    for (number, event) in latest.iter().enumerate() {
        say(if number == 0 { "lately" } else { "" }, event);
    }
    if latest.is_empty() {
        say("lately", "nothing happened to it that the program remembers");
    }
    for (number, way) in what_would_change_it(status, path).iter().enumerate() {
        say(if number == 0 { "to change" } else { "" }, &format!("- {way}"));
    }
    lines.join("\n")
}

fn measured(path: &Path) -> String {
    if path.rtt.is_none() && path.received == 0 {
        return format!("nothing yet; {} packets sent, none received", path.sent);
    }
    format!(
        "round trip {} (least {}, last {}), jitter {}, lost {} on the way out and {} in; {} packets \
         sent, {} received, of which it was the first with {}; {} Mbit/s out, {} in",
        millis_or(path.rtt),
        millis_or(path.min_rtt),
        millis_or(path.last_rtt),
        millis_or(path.jitter),
        percent_or(path.loss_out),
        percent_or(path.loss_in),
        path.sent,
        path.received,
        percent_or(path.first()),
        mbit_or(path.bits_out),
        mbit_or(path.bits_in),
    )
}

/// How fast packets leave, where somebody told a rate, or it was found out.
fn pace(path: &Path, queued: u64) -> String {
    match path.rate {
        Some(rate) => format!(
            "no more than {} Mbit/s leave here; {queued} packets wait, one that is sent now for {}; {} \
             were too many so far, or too many for the socket",
            mbit_or(Some(rate)),
            millis_or(path.queue_delay),
            path.send_dropped,
        ),
        None => "packets leave as they come until some wait on the way".to_owned(),
    }
}

/// The latest events of the path, and those of the whole tunnel that concern it.
fn latest(path: &Path, events: &Value) -> Vec<String> {
    let is_its = |event: &&Value| {
        event["path"].as_u64() == Some(path.id) && event["peer"].as_u64() == path.peer
    };
    let its: Vec<&Value> = events.as_array().into_iter().flatten().filter(is_its).collect();
    let latest = &its[its.len().saturating_sub(EVENTS)..];
    let line = |event: &&Value| {
        let word = |key: &str| harmless(event[key].as_str().unwrap_or("?"));
        format!("{} {}", word("time"), word("text"))
    };
    latest.iter().map(line).collect()
}

/// What makes the path go to another state, by itself or by its user.
fn what_would_change_it(status: &Status, path: &Path) -> Vec<String> {
    let name = &path.name;
    let mut ways = Vec::new();
    let mut say = |text: String| ways.push(text);
    match (&*path.state, status.is_server) {
        ("up", false) => {
            say("it goes down when three probes in a row are not answered and nothing else comes on \
                 it (ten, while something does)".to_owned());
            if path.backup {
                say(format!(
                    "it is a backup, and carries traffic only while no active path is up: mptunnel \
                     path set {name} role=active makes it one of them"
                ));
            } else {
                say(format!(
                    "mptunnel path set {name} role=backup keeps it for when no other path is up"
                ));
            }
        }
        ("up", true) => say("it goes down when no probe of its client comes for three times the \
                             interval that the client announced, and not before 3 s"
            .to_owned()),
        ("down", true) => {
            say("one probe of the client from there brings it back; look at it from \
                               the side of the client, with mptunnel explain there"
                .to_owned())
        }
        ("starting", true) => say("the client has to answer a challenge that was sent to this \
                                   address, which proves that it is there"
            .to_owned()),
        ("no socket", _) => {
            say("it is tried again by itself, at first after 0.5 s and then at least every 10 s; \
                 nothing else has to be done once the cause is gone"
                .to_owned());
            say(remedy(path));
        }
        (state, _) => {
            if state == "down" {
                say("one answered probe brings it back; it is probed all the time".to_owned());
            } else {
                say("one answer of the server on it makes it up; it is probed all the time"
                    .to_owned());
            }
            say(remedy(path));
            if !status.connected || status.silent.is_some() {
                say("no other path answers either: is the server running, and do the key ids in \
                     both logs agree?"
                    .to_owned());
            }
        }
    }
    ways
}

/// What its user can do about the trouble of a path.
fn remedy(path: &Path) -> String {
    let (name, remote) = (&path.name, path.remote.as_deref().unwrap_or("its bridge"));
    let reason = &path.reason;
    if reason.contains("refuses") {
        format!(
            "start the bridge or server at {remote}, or correct its port: mptunnel path set {name} to=HOST:PORT"
        )
    } else if reason.contains("interface") || reason.contains("address") && reason.contains("src=")
    {
        format!(
            "bring the interface up (ip link, ip addr), or name another one: mptunnel path set {name} if=NAME"
        )
    } else if reason.contains("resolve") || reason.contains("no address") {
        format!(
            "check the name and the name server, or give an address: mptunnel path set {name} to=ADDR:PORT"
        )
    } else if reason.contains("route") {
        "check the routes of this host (ip route get ADDRESS)".to_owned()
    } else {
        format!(
            "check that {remote} runs and forwards UDP to the server, and that no firewall is in \
             the way"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(state: &str, reason: &str, backup: bool) -> String {
        let status = Status::of(&json!({
            "program": "mpclient", "pid": 7, "role": "client", "connected": true,
            "paths": [{
                "id": 3, "name": "lte", "state": state, "reason": reason, "backup": backup,
                "since_us": 12_000_000, "remote": "192.0.2.1:4000", "sent": 10, "received": 5, "wins": 4,
                "worth_out": {"samples": 100, "only": 25, "mean_lead_us": 3_000},
                "errors": {"ECONNREFUSED": 7}, "remote_before": "192.0.2.9:1",
                "queue": {"packets": 4, "delay_us": 12_000, "rate_bytes_per_s": 1_250_000},
            }, {"id": 2, "name": "dsl"}],
            "session": {"pairs": [{"one": 2, "other": 3, "correlation": 0.8}]},
        }));
        let events = json!([
            {"time": "T1", "text": "path lte is up", "path": 3, "peer": null},
            {"time": "T2", "text": "path other is up", "path": 2, "peer": null},
        ]);
        text(&status, &status.paths[0], &events)
    }

    #[test]
    fn a_path_is_explained_by_its_reason_its_past_and_its_remedy() {
        let text = explained("down", "no probe was answered for 12 s: h:1 refuses: nothing", false);

        assert!(
            text.starts_with("path lte of mpclient 7 is down, for 12s\nwhy       no probe"),
            "{text}"
        );
        assert!(text.contains("\nlately    T1 path lte is up\n"), "{text}");
        assert!(!text.contains("path other is up"), "{text}");
        assert!(text.contains("before it moved, 192.0.2.9:1"), "{text}");
        assert!(text.contains("25.0% comes on it alone"), "{text}");
        assert!(
            text.contains("\npace      no more than 10.0 Mbit/s leave here; 4 packets wait"),
            "{text}"
        );
        assert!(text.contains("it loses together with dsl (correlation 0.80)"), "{text}");
        assert!(text.contains("ECONNREFUSED 7"), "{text}");
        assert!(text.contains("start the bridge or server at 192.0.2.1:4000"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }

    #[test]
    fn each_state_has_something_that_would_change_it() {
        for (state, reason, backup, expected) in [
            ("up", "its probes are answered", false, "role=backup"),
            ("up", "its probes are answered", true, "role=active"),
            ("starting", "nothing has answered yet", false, "no firewall"),
            ("no_socket", "there is no interface wwan0", false, "if=NAME"),
            ("no_socket", "the name b does not resolve (x)", false, "name server"),
        ] {
            let text = explained(state, reason, backup);
            assert!(text.contains(expected), "{text}");
        }
    }
}
