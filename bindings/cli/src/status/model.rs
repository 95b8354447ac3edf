// SPDX-License-Identifier: BSD-2-Clause
//! What a running program tells of itself, as read from its JSON: what it does not tell, because it
//! is older or newer, is left open.

use std::time::Duration;

use serde_json::Value;

use crate::terminal::harmless;

/// A running program at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) program: String,
    pub(crate) version: String,
    pub(crate) pid: u64,
    pub(crate) uptime: Duration,
    pub(crate) is_server: bool,
    pub(crate) connected: bool,
    /// For how long the server has not answered, from 5 s on.
    pub(crate) silent: Option<Duration>,
    pub(crate) cipher: Option<String>,
    pub(crate) mode: String,
    pub(crate) listen: Vec<String>,
    pub(crate) flows: u64,
    pub(crate) to_tunnel: u64,
    pub(crate) from_tunnel: u64,
    /// Clients of a server.
    pub(crate) peers: u64,
    /// Packets dropped, by reason; copies are not among them.
    pub(crate) dropped: Vec<(String, u64)>,
    /// Copies removed.
    pub(crate) copies: u64,
    /// Arrivals that the kernel dropped.
    pub(crate) kernel_dropped: u64,
    /// Those of a client, or of all clients of a server.
    pub(crate) paths: Vec<Path>,
}

/// A path at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path {
    /// What a user calls it: its name, or `CLIENT/PATH` at a server.
    pub(crate) name: String,
    pub(crate) id: u64,
    /// The client that it belongs to, at a server.
    pub(crate) peer: Option<u64>,
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) since: Duration,
    pub(crate) backup: bool,
    pub(crate) remote: Option<String>,
    pub(crate) max_packet: u64,
    pub(crate) rtt: Option<Duration>,
    pub(crate) min_rtt: Option<Duration>,
    pub(crate) last_rtt: Option<Duration>,
    pub(crate) jitter: Option<Duration>,
    pub(crate) loss_out: Option<f64>,
    pub(crate) loss_in: Option<f64>,
    /// In the last second, and in the last ten.
    pub(crate) loss_out_1s: Option<f64>,
    pub(crate) loss_in_1s: Option<f64>,
    pub(crate) loss_out_10s: Option<f64>,
    pub(crate) loss_in_10s: Option<f64>,
    /// Packets that wait to leave at its rate, if it has one, and for how long.
    pub(crate) queued: Option<u64>,
    pub(crate) queue_delay: Option<Duration>,
    /// That rate, in bits per second.
    pub(crate) rate: Option<f64>,
    pub(crate) sent: u64,
    pub(crate) send_dropped: u64,
    pub(crate) received: u64,
    pub(crate) wins: u64,
    /// By a sample of what was sent on it and on others: the share that came on it only.
    pub(crate) only_out: Option<f64>,
    /// How much earlier than the second copy the first came, of those that came on it first.
    pub(crate) lead_out: Option<Duration>,
    /// The path that loses most together with it, and how much: -1 to 1.
    pub(crate) fails_with: Option<(u64, f64)>,
    /// Where it led before it moved.
    pub(crate) remote_before: Option<String>,
    /// Errors of its socket.
    pub(crate) errors: Vec<(String, u64)>,
    /// In the last second.
    pub(crate) bits_out: Option<f64>,
    pub(crate) bits_in: Option<f64>,
}

impl Status {
    /// From the answer to `status`.
    pub(crate) fn of(json: &Value) -> Status {
        let text = |key| text(json, key);
        let is_server = text("role") == "server";
        let dropped = json["dropped"].as_object().into_iter().flatten();
        let dropped: Vec<(String, u64)> =
            dropped.map(|(name, count)| (name.clone(), count.as_u64().unwrap_or(0))).collect();
        let copies = dropped.iter().find(|(name, _)| name == "duplicate");
        let peers = json["peers"].as_array().map_or(&[][..], Vec::as_slice);
        let own = json["paths"].as_array().into_iter().flatten();
        let own = own.map(|path| Path::of(path, None, &json["session"]));
        let theirs = peers.iter().flat_map(|peer| {
            let id = count(peer, "id");
            let paths = peer["paths"].as_array().into_iter().flatten();
            paths.map(move |path| Path::of(path, Some(id), &peer["session"]))
        });
        let listen = json["listen"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Status {
            program: text("program"),
            version: text("version"),
            pid: count(json, "pid"),
            uptime: json["uptime_s"].as_f64().map(Duration::from_secs_f64).unwrap_or_default(),
            is_server,
            connected: json["connected"] == true,
            silent: json["silent_us"].as_u64().map(Duration::from_micros),
            cipher: json["cipher"].as_str().map(harmless),
            mode: json["mode"].as_str().map_or_else(|| modes_of(peers), harmless),
            listen: listen.map(harmless).collect(),
            flows: count(&json["relay"], "flows"),
            to_tunnel: count(&json["relay"], "to_tunnel"),
            from_tunnel: count(&json["relay"], "from_tunnel"),
            peers: peers.len() as u64,
            copies: copies.map_or(0, |(_, count)| *count),
            dropped: dropped
                .into_iter()
                .filter(|(name, count)| name != "duplicate" && *count > 0)
                .collect(),
            kernel_dropped: count(json, "kernel_dropped") + count(&json["relay"], "kernel_dropped"),
            paths: own.chain(theirs).collect(),
        }
    }

    /// The path that a user calls `wanted`: by its name, or by its number.
    pub(crate) fn path(&self, wanted: &str) -> Option<&Path> {
        let by_name = self.paths.iter().find(|path| path.name == wanted);
        let by_number = || {
            let number = |path: &&Path| path.peer.is_none() && path.id.to_string() == wanted;
            self.paths.iter().find(number)
        };
        by_name.or_else(by_number)
    }
}

impl Path {
    /// What was measured lately, unless nothing passes: then it is what was before.
    pub(crate) fn while_up(&self, measured: Option<f64>) -> Option<f64> {
        measured.filter(|_| self.state == "up")
    }

    fn of(json: &Value, peer: Option<u64>, session: &Value) -> Path {
        let time = |key: &str| json[key].as_u64().map(Duration::from_micros);
        let rate = |key: &str| {
            let span = &json["last_1s"];
            let seconds = span["length_us"].as_f64()? / 1e6;
            Some(span[key].as_f64()? * 8.0 / seconds)
        };
        let lost = |way: &str, span: &str| json[way][span]["fraction"].as_f64();
        let worth = &json["worth_out"];
        let samples = worth["samples"].as_f64().filter(|samples| *samples > 0.0);
        let errors = json["errors"].as_object().into_iter().flatten();
        Path {
            only_out: samples.and_then(|samples| Some(worth["only"].as_f64()? / samples)),
            lead_out: worth["mean_lead_us"].as_u64().map(Duration::from_micros),
            fails_with: fails_with(count(json, "id"), session),
            remote_before: json["remote_before"].as_str().map(harmless),
            errors: errors
                .map(|(name, count)| (harmless(name), count.as_u64().unwrap_or(0)))
                .collect(),
            name: match peer {
                None => text(json, "name"),
                Some(peer) => format!("{peer}/{}", count(json, "slot")),
            },
            id: count(json, "id"),
            peer,
            state: text(json, "state").replace('_', " "),
            reason: text(json, "reason"),
            since: time("since_us").unwrap_or_default(),
            backup: json["backup"] == true,
            remote: json["remote"].as_str().map(harmless),
            max_packet: count(json, "max_packet"),
            rtt: time("rtt_us"),
            min_rtt: time("min_rtt_us"),
            last_rtt: time("last_rtt_us"),
            jitter: time("jitter_us"),
            loss_out: json["loss_out"].as_f64(),
            loss_in: json["loss_in"].as_f64(),
            loss_out_1s: lost("losses_out", "last_1s"),
            loss_in_1s: lost("losses_in", "last_1s"),
            loss_out_10s: lost("losses_out", "last_10s"),
            loss_in_10s: lost("losses_in", "last_10s"),
            queued: json["queue"]["packets"].as_u64(),
            queue_delay: json["queue"]["delay_us"].as_u64().map(Duration::from_micros),
            rate: json["queue"]["rate_bytes_per_s"].as_f64().map(|bytes| bytes * 8.0),
            sent: count(json, "sent"),
            send_dropped: count(json, "send_dropped"),
            received: count(json, "received"),
            wins: count(json, "wins"),
            bits_out: rate("sent_bytes"),
            bits_in: rate("received_bytes"),
        }
    }

    /// What it is, as the end of a sentence about it.
    pub(crate) fn verb_and_state(&self) -> String {
        match &*self.state {
            "no socket" => "has no socket".to_owned(),
            state => format!("is {state}"),
        }
    }

    /// The share of what came on it that came there first.
    pub(crate) fn first(&self) -> Option<f64> {
        (self.received > 0).then(|| self.wins as f64 / self.received as f64)
    }
}

/// The modes that count for the clients of a server, which may differ.
fn modes_of(peers: &[Value]) -> String {
    let mut modes: Vec<&str> = peers.iter().filter_map(|peer| peer["mode"].as_str()).collect();
    modes.sort_unstable();
    modes.dedup();
    modes.join("/")
}

/// Of all pairs with the path `id`, the one whose losses are correlated most.
fn fails_with(id: u64, session: &Value) -> Option<(u64, f64)> {
    let pairs = session["pairs"].as_array()?.iter().filter_map(|pair| {
        let (one, other) = (count(pair, "one"), count(pair, "other"));
        let with = if one == id { other } else { one };
        let correlation = pair["correlation"].as_f64()?;
        (one == id || other == id).then_some((with, correlation))
    });
    pairs.max_by(|a, b| a.1.total_cmp(&b.1))
}

fn text(json: &Value, key: &str) -> String {
    harmless(json[key].as_str().unwrap_or("?"))
}

fn count(json: &Value, key: &str) -> u64 {
    json[key].as_u64().unwrap_or(0)
}
