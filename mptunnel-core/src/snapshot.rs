// SPDX-License-Identifier: BSD-2-Clause
//! Everything that can be seen of an endpoint, as values and as text.
//!
//! JSON comes from `serde_json`, built as values: no type of the public interface implements a
//! trait of another crate. The Prometheus text is written here. The libraries for it keep the
//! counters themselves, in a registry that the program owns; ours are in the sessions and in the
//! threads that count them, and what is left to do is one line per value with three characters to
//! escape (Prometheus text format 0.0.4).

mod json;

use crate::PeerId;
use crate::options::Role;
use crate::relay::RelayStats;
use crate::stats::{PairInfo, PathInfo, PeerInfo, SessionInfo, Stats};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// What an endpoint looks like at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// Which end it is.
    pub role: Role,
    /// The version of the library.
    pub version: &'static str,
    /// The ids of the keys in use. Not secret.
    pub key_ids: Vec<String>,
    /// Its counters.
    pub stats: Stats,
    /// The paths of a client; none at a server.
    pub paths: Vec<PathInfo>,
    /// The clients of a server, with their paths, in the order in which they came; none at a
    /// client. Shared with the server, which uses the memory again once all snapshots are dropped.
    pub peers: Arc<Vec<PeerInfo>>,
    /// The tunnel of a client as a whole; each of a server's [`peers`](Self::peers) has its own.
    pub session: SessionInfo,
    /// What the relay around it has carried, if there is one.
    pub relay: Option<RelayStats>,
}

impl Snapshot {
    /// As text in the exposition format of Prometheus (0.0.4, `text/plain`). Every value carries
    /// its peer (0 at a client), its path and the name of the path as labels.
    pub fn to_prometheus(&self) -> String {
        let mut text = Exposition::default();
        let stats = &self.stats;
        let info =
            [("role", role_word(self.role)), ("version", self.version), ("backend", stats.backend)];
        text.family("mptunnel_info", "gauge", "What this endpoint is.").sample(&info, 1.0);
        text.family("mptunnel_connected", "gauge", "Whether there is a session, or any client.")
            .sample(&[], f64::from(u8::from(stats.connected)));
        text.family(
            "mptunnel_dropped_packets_total",
            "counter",
            "Packets removed or refused, by reason; duplicate: copies of what had come already.",
        );
        for (reason, count) in &stats.drops {
            text.sample(&[("reason", reason)], count_of(*count));
        }
        for (name, help, count) in [
            (
                "unattributed_packets",
                "Packets from an address that is no path's.",
                stats.unattributed,
            ),
            ("queue_dropped", "Datagrams that the application did not fetch.", stats.queue_dropped),
            ("reorder_held", "Datagrams that waited for an earlier one.", stats.reorder.held),
            ("reorder_given_up", "Datagrams that waited in vain.", stats.reorder.given_up),
            ("reorder_late", "Datagrams that came after their turn.", stats.reorder.late),
            ("events_dropped", "Events that the application did not fetch.", stats.events_dropped),
            ("socket_errors", "Errors that sockets reported.", stats.socket_errors),
            (
                "kernel_dropped",
                "Arrivals dropped by the kernel: buffer full.",
                stats.kernel_dropped,
            ),
        ] {
            let name = format!("mptunnel_{name}_total");
            text.family(&name, "counter", help).sample(&[], count_of(count));
        }
        text.family(
            "mptunnel_receive_buffer_bytes",
            "gauge",
            "Receive buffer of the first socket.",
        )
        .sample(&[], count_of(stats.receive_buffer as u64));
        if self.role == Role::Server {
            text.family("mptunnel_peers", "gauge", "Clients that are connected.")
                .sample(&[], count_of(self.peers.len() as u64));
            text.family("mptunnel_peer_restarts_total", "counter", "Restarts of a client.");
            for peer in self.peers.iter() {
                let id = peer.id.to_string();
                text.sample(&[("peer", &id)], f64::from(peer.restarts));
            }
        }
        if let Some(relay) = &self.relay {
            relay_to(relay, &mut text);
        }
        self.sessions_to(&mut text);
        self.paths_to(&mut text);
        text.text
    }

    fn sessions_to(&self, text: &mut Exposition) {
        let own = (self.role == Role::Client).then_some((PeerId(0), &self.session));
        let theirs = self.peers.iter().map(|peer| (peer.id, &peer.session));
        let sessions: Vec<(PeerId, &SessionInfo)> = own.into_iter().chain(theirs).collect();
        for metric in SESSION_METRICS {
            text.family(&format!("mptunnel_session_{}", metric.name), metric.kind, metric.help);
            for (peer, session) in &sessions {
                let Some(value) = (metric.value)(session) else { continue };
                text.sample(&[("peer", &peer.to_string())], value);
            }
        }
        for metric in PAIR_METRICS {
            text.family(&format!("mptunnel_pair_{}", metric.name), metric.kind, metric.help);
            for (peer, pair) in
                sessions.iter().flat_map(|(p, s)| s.pairs.iter().map(move |i| (p, i)))
            {
                let Some(value) = (metric.value)(pair) else { continue };
                let (peer, one) = (peer.to_string(), pair.one.to_string());
                let other = pair.other.to_string();
                text.sample(&[("peer", &peer), ("one", &one), ("other", &other)], value);
            }
        }
    }

    fn paths_to(&self, text: &mut Exposition) {
        let own = self.paths.iter().map(|path| (PeerId(0), path));
        let theirs = self.peers.iter().flat_map(|p| p.paths.iter().map(|path| (p.id, path)));
        let paths: Vec<(PeerId, &PathInfo)> = own.chain(theirs).collect();
        for metric in PATH_METRICS {
            text.family(&format!("mptunnel_path_{}", metric.name), metric.kind, metric.help);
            for (peer, path) in &paths {
                let Some(value) = (metric.value)(path) else { continue };
                let (peer, id) = (peer.to_string(), path.id.to_string());
                text.sample(&[("peer", &peer), ("path", &id), ("name", &path.name)], value);
            }
        }
        text.family("mptunnel_path_errors_total", "counter", "Errors of its socket, by errno.");
        for (peer, path) in &paths {
            let (peer, id) = (peer.to_string(), path.id.to_string());
            for (errno, count) in &path.errors {
                let errno = errno_name(*errno);
                let labels =
                    [("peer", &*peer), ("path", &*id), ("name", &*path.name), ("errno", &*errno)];
                text.sample(&labels, count_of(*count));
            }
        }
    }
}

/// One value that every path has, or every session.
struct Metric<T> {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// `None`: not measured yet.
    value: fn(&T) -> Option<f64>,
}

const fn metric<T>(
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&T) -> Option<f64>,
) -> Metric<T> {
    Metric { name, kind, help, value }
}

static SESSION_METRICS: &[Metric<SessionInfo>] = &[
    metric("rekeys_total", "counter", "How often keys were renewed.", |s| Some(s.rekeys.into())),
    metric("peer_restarts_total", "counter", "How often the other end was restarted.", |s| {
        Some(s.peer_restarts.into())
    }),
    metric("first_packets_total", "counter", "Packets received for the first time.", |s| {
        Some(count_of(s.first_packets))
    }),
    metric("first_bytes_total", "counter", "Bytes of these: what was received for good.", |s| {
        Some(count_of(s.first_bytes))
    }),
    metric("copies_total", "counter", "Packets received again, and removed.", |s| {
        Some(count_of(s.copies))
    }),
    metric("late_total", "counter", "Packets that came when the window had passed them.", |s| {
        Some(count_of(s.late))
    }),
    metric(
        "residual_loss_out_ratio",
        "gauge",
        "Fraction that came on no path, by a sample.",
        |s| s.residual_loss_out,
    ),
];

static PAIR_METRICS: &[Metric<PairInfo>] = &[
    metric("loss_correlation", "gauge", "How much two paths lose together, -1 to 1.", |p| {
        p.correlation
    }),
    metric("lost_both_ratio", "gauge", "Fraction that both paths lost.", |p| Some(p.lost_both)),
];

static PATH_METRICS: &[Metric<PathInfo>] = &[
    metric("up", "gauge", "Whether the path answers.", |p| Some(f64::from(u8::from(p.up)))),
    metric("backup", "gauge", "Whether it waits until no other path is up.", |p| {
        Some(f64::from(u8::from(p.backup)))
    }),
    metric("since_seconds", "gauge", "For how long it has been up, or not.", |p| {
        seconds(Some(p.since))
    }),
    metric("sent_packets_total", "counter", "Packets sent.", |p| Some(count_of(p.sent))),
    metric("sent_bytes_total", "counter", "Bytes sent.", |p| Some(count_of(p.sent_bytes))),
    metric("send_dropped_packets_total", "counter", "Packets that its socket did not take.", |p| {
        Some(count_of(p.send_dropped))
    }),
    metric("received_packets_total", "counter", "Packets received.", |p| {
        Some(count_of(p.received))
    }),
    metric("received_bytes_total", "counter", "Bytes received.", |p| {
        Some(count_of(p.received_bytes))
    }),
    metric("wins_total", "counter", "Packets that it brought first.", |p| Some(count_of(p.wins))),
    metric("duplicates_total", "counter", "Packets that another path had brought before.", |p| {
        Some(count_of(p.duplicates))
    }),
    metric("max_packet_bytes", "gauge", "Largest packet that fits it.", |p| {
        Some(count_of(p.max_packet as u64))
    }),
    metric("rtt_seconds", "gauge", "Smoothed round trip.", |p| seconds(p.quality.rtt)),
    metric("rtt_min_seconds", "gauge", "Shortest round trip.", |p| seconds(p.quality.min_rtt)),
    metric("jitter_seconds", "gauge", "Jitter of what arrives.", |p| {
        seconds(Some(p.quality.jitter))
    }),
    metric("loss_out_ratio", "gauge", "Fraction lost on the way out.", |p| p.quality.loss_out),
    metric("loss_in_ratio", "gauge", "Fraction lost on the way in.", |p| p.quality.loss_in),
    metric("known_out_packets_total", "counter", "Packets sent whose fate is known.", |p| {
        Some(count_of(p.losses_out.total.sent))
    }),
    metric("lost_out_packets_total", "counter", "Of these, packets that did not arrive.", |p| {
        Some(count_of(p.losses_out.total.lost))
    }),
    metric("loss_out_1s_ratio", "gauge", "Fraction lost on the way out in the last second.", |p| {
        p.losses_out.last_1s.fraction()
    }),
    metric("loss_out_10s_ratio", "gauge", "Fraction lost on the way out in ten seconds.", |p| {
        p.losses_out.last_10s.fraction()
    }),
    metric("known_in_packets_total", "counter", "Packets of the other end likewise.", |p| {
        Some(count_of(p.losses_in.total.sent))
    }),
    metric("lost_in_packets_total", "counter", "Of these, packets that did not arrive.", |p| {
        Some(count_of(p.losses_in.total.lost))
    }),
    metric("loss_in_1s_ratio", "gauge", "Fraction lost on the way in in the last second.", |p| {
        p.losses_in.last_1s.fraction()
    }),
    metric("loss_in_10s_ratio", "gauge", "Fraction lost on the way in in ten seconds.", |p| {
        p.losses_in.last_10s.fraction()
    }),
    metric("queue_packets", "gauge", "Packets that wait to leave at its rate.", |p| {
        p.queue.map(|queue| count_of(queue.packets))
    }),
    metric("queue_bytes", "gauge", "Bytes of these.", |p| p.queue.map(|q| count_of(q.bytes))),
    metric("queue_delay_seconds", "gauge", "How long a packet sent now would wait.", |p| {
        seconds(p.queue.map(|queue| queue.delay))
    }),
    metric("rate_bytes_per_second", "gauge", "At which packets leave, told or learnt.", |p| {
        p.queue.and_then(|queue| queue.rate).map(count_of)
    }),
    metric("samples_out_total", "counter", "Datagrams of a sample that were sent on it.", |p| {
        Some(count_of(p.worth_out.samples))
    }),
    metric("samples_first_out_total", "counter", "Of these, those that came on it first.", |p| {
        Some(count_of(p.worth_out.first))
    }),
    metric("samples_only_out_total", "counter", "Of these, those that came on it only.", |p| {
        Some(count_of(p.worth_out.only))
    }),
    metric("lead_out_seconds", "gauge", "Mean time until the second copy came there.", |p| {
        seconds(p.worth_out.mean_lead)
    }),
    metric("samples_in_total", "counter", "Datagrams of a sample that came on it.", |p| {
        Some(count_of(p.worth_in.samples))
    }),
    metric("samples_first_in_total", "counter", "Of these, those that came on it first.", |p| {
        Some(count_of(p.worth_in.first))
    }),
    metric("samples_only_in_total", "counter", "Of these, those that came on it only.", |p| {
        Some(count_of(p.worth_in.only))
    }),
    metric("lead_in_seconds", "gauge", "Mean time until the second copy came here.", |p| {
        seconds(p.worth_in.mean_lead)
    }),
];

fn relay_to(relay: &RelayStats, text: &mut Exposition) {
    let flows = count_of(relay.flows as u64);
    text.family("mptunnel_relay_flows", "gauge", "Applications in use now.").sample(&[], flows);
    for (name, help, count) in [
        ("to_tunnel", "Datagrams from the applications or the target.", relay.to_tunnel),
        ("from_tunnel", "Datagrams to the applications or the target.", relay.from_tunnel),
        ("dropped", "Datagrams of either direction that were not passed on.", relay.dropped),
        ("kernel_dropped", "Arrivals dropped by the kernel: buffer full.", relay.kernel_dropped),
        ("flows_refused", "Applications refused: the limit is reached.", relay.flows_refused),
    ] {
        let name = format!("mptunnel_relay_{name}_total");
        text.family(&name, "counter", help).sample(&[], count_of(count));
    }
}

fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(|time| time.as_secs_f64())
}

/// The format knows only floating point: exact up to 2^53.
fn count_of(count: u64) -> f64 {
    count as f64
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Server => "server",
    }
}

/// What errno(3) calls an error, such as `ECONNREFUSED`, of those that sockets report; its number
/// otherwise.
pub fn errno_name(errno: i32) -> String {
    let names = [
        (libc::EACCES, "EACCES"),
        (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::EHOSTUNREACH, "EHOSTUNREACH"),
        (libc::EINVAL, "EINVAL"),
        (libc::EIO, "EIO"),
        (libc::EMSGSIZE, "EMSGSIZE"),
        (libc::ENETDOWN, "ENETDOWN"),
        (libc::ENETUNREACH, "ENETUNREACH"),
        (libc::ENOBUFS, "ENOBUFS"),
        (libc::ENODEV, "ENODEV"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EPERM, "EPERM"),
    ];
    let name = names.iter().find(|(number, _)| *number == errno);
    name.map_or_else(|| errno.to_string(), |(_, name)| (*name).to_owned())
}

/// Text in the exposition format.
#[derive(Default)]
struct Exposition {
    text: String,
    family: String,
}

impl Exposition {
    /// Begins the samples of one name.
    fn family(&mut self, name: &str, kind: &str, help: &str) -> &mut Self {
        name.clone_into(&mut self.family);
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(&self.family);
        let mut before = '{';
        for (label, text) in labels {
            let _ = write!(self.text, "{before}{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
            before = ',';
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Losses, Lost, OrderCounts, PathId, PathState, Quality, Queue, Span, Traffic, Worth,
    };
    use serde_json::{Value, json};

    fn path(id: u32, name: &str) -> PathInfo {
        PathInfo {
            id: PathId(id),
            slot: 0,
            name: name.to_owned(),
            words: format!("to=h:1 name={name}"),
            up: true,
            state: PathState::Up,
            reason: "its probes are answered".into(),
            since: Duration::from_secs(1),
            backup: false,
            remote: Some("192.0.2.1:4000".parse().unwrap()),
            max_packet: 1_472,
            quality: Quality {
                rtt: Some(Duration::from_micros(1_500)),
                loss_out: Some(0.25),
                ..Quality::default()
            },
            losses_out: Losses {
                last_1s: Lost::of((4, 1)),
                last_10s: Lost::of((50, 5)),
                total: Lost::of((800, 16)),
            },
            queue: Some(Queue {
                packets: 3,
                bytes: 3_600,
                delay: Duration::from_millis(40),
                rate: Some(90_000),
            }),
            losses_in: Losses { total: Lost::of((5, 0)), ..Losses::default() },
            sent: 10,
            sent_bytes: 1_000,
            send_dropped: 1,
            received: 20,
            received_bytes: 2_000,
            wins: 15,
            duplicates: 5,
            local: Some("192.0.2.7:5000".parse().unwrap()),
            remote_before: None,
            local_before: Some("192.0.2.8:5000".parse().unwrap()),
            worth_out: Worth {
                samples: 9,
                only: 4,
                mean_lead: Some(Duration::from_millis(3)),
                ..Worth::default()
            },
            worth_in: Worth::default(),
            errors: vec![(libc::ECONNREFUSED, 2), (9_999, 1)],
            last_1s: Some(Span { length: Duration::from_secs(1), sent: 3, ..Span::default() }),
            last_10s: None,
        }
    }

    fn snapshot(role: Role) -> Snapshot {
        let stats = Stats {
            connected: true,
            traffic: Traffic { sent_bytes: 9, ..Traffic::default() },
            mode: if role == Role::Client { "weighted" } else { "" },
            drops: vec![("duplicate", 5), ("too_old", 0)],
            unattributed: 1,
            queue_dropped: 2,
            reorder: OrderCounts { held: 7, given_up: 2, late: 1 },
            events_dropped: 3,
            socket_errors: 4,
            kernel_dropped: 6,
            receive_buffer: 65_536,
            errors: vec![],
            cipher: if role == Role::Client { "aes-256-gcm" } else { "" },
            backend: "soft",
        };
        let pair = PairInfo {
            one: PathId(7),
            other: PathId(8),
            samples: 100.0,
            lost_one: 0.2,
            lost_other: 0.2,
            lost_both: 0.2,
            correlation: Some(1.0),
        };
        let session = SessionInfo { rekeys: 2, late: 1, pairs: vec![pair], ..Default::default() };
        let peer = PeerInfo {
            id: PeerId(3),
            restarts: 1,
            paths: vec![path(1, "p")],
            traffic: Traffic::default(),
            cipher: "aes-256-gcm",
            mode: "fastest",
            window: 4_096,
            session: session.clone(),
        };
        let (paths, peers) = match role {
            Role::Client => (vec![path(7, "a\"b\\c")], Arc::default()),
            Role::Server => (vec![], Arc::new(vec![peer])),
        };
        let relay = Some(RelayStats { flows: 2, to_tunnel: 7, ..RelayStats::default() });
        let (version, key_ids) = ("1.2.3", vec!["ab".into()]);
        Snapshot { role, version, key_ids, stats, paths, peers, session, relay }
    }

    #[test]
    fn json_says_what_the_snapshot_says() {
        let client: Value = serde_json::from_str(&snapshot(Role::Client).to_json()).unwrap();
        assert_eq!(client["role"], "client");
        assert_eq!(
            (&client["cipher"], &client["mode"]),
            (&json!("aes-256-gcm"), &json!("weighted"))
        );
        assert_eq!(client["dropped"]["duplicate"], 5);
        assert_eq!(client["traffic"]["sent_bytes"], 9);
        assert_eq!(client["reorder"]["given_up"], 2);
        assert_eq!(client["paths"][0]["name"], "a\"b\\c");
        assert_eq!(client["paths"][0]["rtt_us"], 1_500);
        assert_eq!(client["paths"][0]["last_rtt_us"], Value::Null);
        assert_eq!(client["paths"][0]["wins"], 15);
        assert_eq!(client["relay"]["to_tunnel"], 7);
        assert_eq!(client["paths"][0]["state"], "up");
        assert_eq!(client["paths"][0]["last_1s"]["sent"], 3);
        assert_eq!(client["paths"][0]["last_10s"], Value::Null);
        assert_eq!(client["paths"][0]["local_before"], "192.0.2.8:5000");
        assert_eq!(client["paths"][0]["worth_out"]["mean_lead_us"], 3_000);
        assert_eq!(client["paths"][0]["errors"], json!({"ECONNREFUSED": 2, "9999": 1}));
        let lost = |sent, lost, fraction: Option<f64>| json!({ "sent": sent, "lost": lost, "fraction": fraction });
        let (out, none) = (&client["paths"][0]["losses_out"], lost(0, 0, None));
        assert_eq!(out["last_1s"], lost(4, 1, Some(0.25)));
        assert_eq!(out["last_10s"], lost(50, 5, Some(0.1)));
        assert_eq!(out["total"], lost(800, 16, Some(0.02)));
        assert_eq!(client["paths"][0]["losses_in"]["last_1s"], none);
        let queue = json!({
            "packets": 3, "bytes": 3_600, "delay_us": 40_000, "rate_bytes_per_s": 90_000,
        });
        assert_eq!(client["paths"][0]["queue"], queue);
        assert_eq!(client["session"]["rekeys"], 2);
        assert_eq!(client["session"]["pairs"][0]["correlation"], 1.0);

        let server: Value = serde_json::from_str(&snapshot(Role::Server).to_json()).unwrap();
        assert_eq!((&server["cipher"], &server["mode"]), (&Value::Null, &Value::Null));
        assert_eq!(server["peers"][0]["mode"], "fastest");
        assert_eq!(server["peers"][0]["cipher"], "aes-256-gcm");
        assert_eq!(server["peers"][0]["id"], 3);
        assert_eq!(server["peers"][0]["traffic"]["sent"], 0);
        assert_eq!(server["peers"][0]["session"]["late"], 1);
        assert_eq!(server["session"], Value::Null);
        assert_eq!(server["peers"][0]["paths"][0]["received_bytes"], 2_000);
    }

    #[test]
    fn prometheus_text_has_each_name_once_with_help_type_and_escaped_labels() {
        let text = snapshot(Role::Client).to_prometheus();

        let line = r#"mptunnel_path_wins_total{peer="0",path="7",name="a\"b\\c"} 15"#;
        assert!(text.lines().any(|l| l == line), "{text}");
        assert!(text.lines().any(|l| l.ends_with(" 0.0015") && l.contains("rtt_seconds{")));
        assert!(!text.contains("rtt_min_seconds{"), "what is not measured has no sample");
        let of_path = r#"{peer="0",path="7",name="a\"b\\c"}"#;
        for (name, value) in [
            ("lost_out_packets_total", "16"),
            ("known_out_packets_total", "800"),
            ("loss_out_1s_ratio", "0.25"),
            ("loss_out_10s_ratio", "0.1"),
            ("known_in_packets_total", "5"),
            ("queue_packets", "3"),
            ("queue_bytes", "3600"),
            ("queue_delay_seconds", "0.04"),
            ("rate_bytes_per_second", "90000"),
        ] {
            let line = format!("mptunnel_path_{name}{of_path} {value}");
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        assert!(!text.contains("loss_in_1s_ratio{"), "nothing was told");
        assert!(text.contains("mptunnel_dropped_packets_total{reason=\"duplicate\"} 5\n"));
        assert!(text.contains("\nmptunnel_connected 1\n"));
        assert!(text.contains("\nmptunnel_relay_to_tunnel_total 7\n"));

        let line = r#"mptunnel_pair_loss_correlation{peer="0",one="7",other="8"} 1"#;
        assert!(text.lines().any(|l| l == line), "{text}");
        assert!(text.contains("\",errno=\"ECONNREFUSED\"} 2\n"), "{text}");
        let names: Vec<&str> =
            text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(names.contains(&name), "{line}");
            let kind = format!("# TYPE {name} counter");
            assert_eq!(name.ends_with("_total"), text.lines().any(|l| l == kind), "{line}");
        }

        let server = snapshot(Role::Server).to_prometheus();
        assert!(server.contains("mptunnel_peers 1\n"), "{server}");
        assert!(server.contains("mptunnel_path_up{peer=\"3\",path=\"1\",name=\"p\"} 1\n"));
    }
}
