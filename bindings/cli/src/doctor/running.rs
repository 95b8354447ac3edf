// SPDX-License-Identifier: BSD-2-Clause
//! What an mpserver that runs has to say, through its control socket: where it sees its clients, and
//! what it had to drop.

use std::path::Path;

use mptunnel_core::options::Settings;
use serde_json::{Value, json};

use super::report::Finding;
use crate::control::client::{Connection, Which};

/// Asks the mpserver that listens on `port`; nothing if there is none, or it is not ours to ask.
pub(crate) fn check(settings: &Settings, port: u16) -> Vec<Finding> {
    let connection = match settings.control.as_path() {
        off if off == Path::new("off") => return Vec::new(),
        auto if auto == Path::new("auto") => {
            Connection::find(&Which { control: Some("mpserver".to_owned()) })
        }
        socket => Connection::open(socket),
    };
    let Ok(mut connection) = connection else { return Vec::new() };
    let Ok(status) = connection.ask(&json!({ "ask": "status" })) else { return Vec::new() };
    let port = format!(":{port}");
    let listens = status["listen"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if listens.into_iter().any(|at| at.ends_with(&port)) { judge(&status) } else { Vec::new() }
}

fn judge(status: &Value) -> Vec<Finding> {
    let peers = status["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut findings: Vec<Finding> = peers.iter().take(SHOWN).map(seen_at).collect();
    match peers.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => {
            findings.push(Finding::ok("", format!("and {more} clients more")));
        }
        _ if peers.is_empty() => findings.push(Finding::ok("", "no client is connected")),
        _ => {}
    }
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let strangers = count(&status["dropped"]["unknown_key"]);
    if strangers > 0 {
        findings.push(Finding::warning(
            "",
            format!("{strangers} tries with a key that is not this server's"),
            "if that is your client, copy this server's key file to it; the log has the key id",
        ));
    }
    let overflows = count(&status["kernel_dropped"]);
    if overflows > 0 {
        findings.push(Finding::warning(
            "",
            format!("{overflows} bursts found a socket buffer full, and lost datagrams"),
            "raise net.core.rmem_max and socket-buffer, and restart mpserver",
        ));
    }
    findings
}

/// Where a client is seen: the last bridge or router before the server, path by path.
fn seen_at(peer: &Value) -> Finding {
    let paths = peer["paths"].as_array().into_iter().flatten();
    let seen: Vec<String> = paths
        .map(|path| {
            let at = path["remote"].as_str().unwrap_or("nowhere");
            format!("{at} (path {})", path["slot"])
        })
        .collect();
    Finding::ok(format!("client {}", peer["id"]), format!("seen from {}", seen.join(", ")))
}

/// Clients that are named.
const SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::report::Level;
    use super::*;

    #[test]
    fn clients_are_named_with_their_addresses_and_what_was_dropped_is_warned_of() {
        let client = |id| json!({ "id": id, "paths": [{ "slot": 0, "remote": "192.0.2.1:5" }] });
        let clients: Vec<Value> = (1..=10).map(client).collect();
        let dropped = json!({ "unknown_key": 3 });
        let status = json!({ "peers": clients, "dropped": dropped, "kernel_dropped": 2 });

        let findings = judge(&status);

        assert_eq!(findings.len(), SHOWN + 3);
        assert_eq!(findings[0].subject, "client 1");
        assert_eq!(findings[0].text, "seen from 192.0.2.1:5 (path 0)");
        assert_eq!(findings[SHOWN].text, "and 2 clients more");
        assert!(findings[SHOWN + 1..].iter().all(|finding| finding.level == Level::Warning));
        assert_eq!(judge(&json!({})), [Finding::ok("", "no client is connected")]);
    }
}
