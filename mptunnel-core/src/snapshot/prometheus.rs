// SPDX-License-Identifier: BSD-2-Clause
//! A snapshot as text in the exposition format of Prometheus. Each struct has a table of what is
//! told of it; a test compares all of them with the numbers in JSON.
//!
//! It is written here. The libraries for it keep the counters themselves, in a registry that the
//! program owns; ours are in the sessions and in the threads that count them, and what is left to
//! do is one line per value with three characters to escape (Prometheus text format 0.0.4).

use super::{Snapshot, errno_name, role_word};
use crate::PeerId;
use crate::options::Role;
use crate::relay::RelayStats;
use crate::stats::{PairInfo, PathInfo, PeerInfo, SessionInfo, Stats, Traffic};
use std::fmt::{Display, Write};
use std::time::Duration;

impl Snapshot {
    /// As text in the exposition format of Prometheus (0.0.4, `text/plain`). What belongs to a peer
    /// has its number as a label (0 at a client), what belongs to a path also its number and its
    /// name. Times are in seconds, losses fractions from 0 to 1, and what is not measured yet is
    /// left out. It has all numbers of [`to_json`](Self::to_json) except those that Prometheus makes
    /// of its counters: what passed within a time.
    pub fn to_prometheus(&self) -> String {
        let mut text = Exposition::default();
        let stats = &self.stats;
        let info = labels(&[
            ("role", role_word(self.role)),
            ("version", self.version),
            ("backend", stats.backend),
        ]);
        text.family("mptunnel_info", "gauge", "What this endpoint is.").sample(&info, 1);
        text.all("", ENDPOINT_METRICS, &[(String::new(), stats)]);
        text.all("", TRAFFIC_METRICS, &[(String::new(), &stats.traffic)]);
        text.family(
            "mptunnel_dropped_packets_total",
            "counter",
            "Packets removed or refused, by reason; duplicate: copies of what had come already.",
        );
        for (reason, count) in &stats.drops {
            text.sample(&labels(&[("reason", reason)]), count);
        }
        text.family(
            "mptunnel_errors_total",
            "counter",
            "Errors that sockets reported, by errno, those of paths that are gone included.",
        );
        for (errno, count) in &stats.errors {
            text.sample(&labels(&[("errno", &errno_name(*errno))]), count);
        }
        if let Some(relay) = &self.relay {
            text.all("relay_", RELAY_METRICS, &[(String::new(), relay)]);
        }
        if self.role == Role::Server {
            self.peers_to(&mut text);
        }
        self.sessions_to(&mut text);
        self.paths_to(&mut text);
        text.text
    }

    fn peers_to(&self, text: &mut Exposition) {
        let peers: Vec<_> = self.peers.iter().map(|peer| (of_peer(peer.id), peer)).collect();
        let traffic: Vec<_> = peers.iter().map(|(of, peer)| (of.clone(), &peer.traffic)).collect();
        text.family("mptunnel_peers", "gauge", "Clients that are connected.")
            .sample("", peers.len());
        text.all("peer_", PEER_METRICS, &peers);
        text.all("peer_", TRAFFIC_METRICS, &traffic);
    }

    fn sessions_to(&self, text: &mut Exposition) {
        let own = (self.role == Role::Client).then_some((PeerId(0), &self.session));
        let all = own.into_iter().chain(self.peers.iter().map(|peer| (peer.id, &peer.session)));
        let mut sessions = Vec::new();
        let mut pairs = Vec::new();
        for (peer, session) in all {
            sessions.push((of_peer(peer), session));
            for pair in &session.pairs {
                let [peer, one, other] = [peer.0, pair.one.0.into(), pair.other.0.into()]
                    .map(|number: u64| number.to_string());
                pairs.push((labels(&[("peer", &peer), ("one", &one), ("other", &other)]), pair));
            }
        }
        text.all("session_", SESSION_METRICS, &sessions);
        text.all("pair_", PAIR_METRICS, &pairs);
    }

    fn paths_to(&self, text: &mut Exposition) {
        let own = self.paths.iter().map(|path| (PeerId(0), path));
        let theirs = self.peers.iter().flat_map(|p| p.paths.iter().map(|path| (p.id, path)));
        let all = own.chain(theirs);
        let paths: Vec<_> =
            all.clone().map(|(peer, path)| (of_path(peer, path, None), path)).collect();
        text.all("path_", PATH_METRICS, &paths);
        text.family("mptunnel_path_errors_total", "counter", "Errors of its socket, by errno.");
        for (peer, path) in all {
            for (errno, count) in &path.errors {
                text.sample(&of_path(peer, path, Some(*errno)), count);
            }
        }
    }
}

/// One value that every path has, or every session.
struct Metric<T> {
    name: &'static str,
    help: &'static str,
    value: Value<T>,
}

enum Value<T> {
    Counter(fn(&T) -> u64),
    /// `None`: not measured yet.
    Gauge(fn(&T) -> Option<f64>),
}

const fn counter<T>(name: &'static str, help: &'static str, value: fn(&T) -> u64) -> Metric<T> {
    Metric { name, help, value: Value::Counter(value) }
}

const fn gauge<T>(
    name: &'static str,
    help: &'static str,
    value: fn(&T) -> Option<f64>,
) -> Metric<T> {
    Metric { name, help, value: Value::Gauge(value) }
}

static ENDPOINT_METRICS: &[Metric<Stats>] = &[
    gauge("connected", "Whether there is a session, or any client.", |s| truth(s.connected)),
    gauge(
        "silent_seconds",
        "For how long the server has not answered on any path; absent while it does.",
        |s| seconds(s.silent),
    ),
    counter("unattributed_packets_total", "Packets from an address that is no path's.", |s| {
        s.unattributed
    }),
    counter("queue_dropped_total", "Datagrams that the application did not fetch.", |s| {
        s.queue_dropped
    }),
    counter("reorder_held_total", "Datagrams that waited for an earlier one.", |s| s.reorder.held),
    counter("reorder_given_up_total", "Datagrams that waited in vain.", |s| s.reorder.given_up),
    counter("reorder_late_total", "Datagrams that came after their turn.", |s| s.reorder.late),
    counter("events_dropped_total", "Events that the application did not fetch.", |s| {
        s.events_dropped
    }),
    counter("socket_errors_total", "Errors that sockets reported.", |s| s.socket_errors),
    counter("kernel_dropped_total", "Arrivals dropped by the kernel: buffer full.", |s| {
        s.kernel_dropped
    }),
    gauge("receive_buffer_bytes", "Receive buffer of the first socket.", |s| {
        number(s.receive_buffer as u64)
    }),
];

/// Of the endpoint, and of each client of a server, over all paths there ever were.
static TRAFFIC_METRICS: &[Metric<Traffic>] = &[
    counter("sent_packets_total", "Packets sent over all paths, copies included.", |t| t.sent),
    counter("sent_bytes_total", "Bytes of these.", |t| t.sent_bytes),
    counter("send_dropped_packets_total", "Packets that sockets did not take.", |t| t.send_dropped),
    counter("received_packets_total", "Packets received over all paths.", |t| t.received),
    counter("received_bytes_total", "Bytes of these.", |t| t.received_bytes),
    counter("wins_total", "Packets that were the first of their copies.", |t| t.wins),
    counter("duplicates_total", "Packets that another path had brought before.", |t| t.duplicates),
];

static RELAY_METRICS: &[Metric<RelayStats>] = &[
    gauge("flows", "Applications in use now.", |r| number(r.flows as u64)),
    counter("to_tunnel_total", "Datagrams from the applications or the target.", |r| r.to_tunnel),
    counter("from_tunnel_total", "Datagrams to the applications or the target.", |r| r.from_tunnel),
    counter("dropped_total", "Datagrams of either direction that were not passed on.", |r| {
        r.dropped
    }),
    counter("kernel_dropped_total", "Arrivals dropped by the kernel: buffer full.", |r| {
        r.kernel_dropped
    }),
    counter("flows_refused_total", "Applications refused: the limit is reached.", |r| {
        r.flows_refused
    }),
];

static PEER_METRICS: &[Metric<PeerInfo>] = &[
    counter("restarts_total", "Restarts of a client.", |p| p.restarts.into()),
    gauge("window_packets", "Packets that its receive window remembers.", |p| {
        number(p.window as u64)
    }),
];

static SESSION_METRICS: &[Metric<SessionInfo>] = &[
    counter("rekeys_total", "How often keys were renewed.", |s| s.rekeys.into()),
    counter("peer_restarts_total", "How often the other end was restarted.", |s| {
        s.peer_restarts.into()
    }),
    counter("first_packets_total", "Packets received for the first time.", |s| s.first_packets),
    counter("first_bytes_total", "Bytes of these: what was received for good.", |s| s.first_bytes),
    counter("copies_total", "Packets received again, and removed.", |s| s.copies),
    counter("late_total", "Packets that came when the window had passed them.", |s| s.late),
    gauge("residual_loss_out_ratio", "Fraction that came on no path, by a sample.", |s| {
        s.residual_loss_out
    }),
    counter("samples_out_total", "Datagrams sent whose fate the other end has told.", |s| {
        s.samples_out
    }),
];

static PAIR_METRICS: &[Metric<PairInfo>] = &[
    gauge("samples", "Datagrams of a sample sent on both; older ones count less.", |p| {
        Some(p.samples)
    }),
    gauge("loss_correlation", "How much two paths lose together, -1 to 1.", |p| p.correlation),
    gauge("lost_one_ratio", "Fraction that the first one lost.", |p| Some(p.lost_one)),
    gauge("lost_other_ratio", "Fraction that the other one lost.", |p| Some(p.lost_other)),
    gauge("lost_both_ratio", "Fraction that both paths lost.", |p| Some(p.lost_both)),
];

static PATH_METRICS: &[Metric<PathInfo>] = &[
    gauge("up", "Whether the path answers.", |p| truth(p.up)),
    gauge("backup", "Whether it waits until no other path is up.", |p| truth(p.backup)),
    gauge("since_seconds", "For how long it has been up, or not.", |p| seconds(Some(p.since))),
    counter("sent_packets_total", "Packets sent.", |p| p.sent),
    counter("sent_bytes_total", "Bytes sent.", |p| p.sent_bytes),
    counter("send_dropped_packets_total", "Packets that its socket did not take.", |p| {
        p.send_dropped
    }),
    counter("received_packets_total", "Packets received.", |p| p.received),
    counter("received_bytes_total", "Bytes received.", |p| p.received_bytes),
    counter("wins_total", "Packets that it brought first.", |p| p.wins),
    counter("duplicates_total", "Packets that another path had brought before.", |p| p.duplicates),
    gauge("max_packet_bytes", "Largest packet that fits it.", |p| number(p.max_packet as u64)),
    gauge("rtt_seconds", "Smoothed round trip.", |p| seconds(p.quality.rtt)),
    gauge("rtt_last_seconds", "Latest round trip.", |p| seconds(p.quality.last_rtt)),
    gauge("rtt_min_seconds", "Shortest round trip.", |p| seconds(p.quality.min_rtt)),
    gauge("jitter_seconds", "Jitter of what arrives.", |p| seconds(Some(p.quality.jitter))),
    gauge("loss_out_ratio", "Fraction lost on the way out.", |p| p.quality.loss_out),
    gauge("loss_in_ratio", "Fraction lost on the way in.", |p| p.quality.loss_in),
    counter("known_out_packets_total", "Packets sent whose fate is known.", |p| {
        p.losses_out.total.sent
    }),
    counter("lost_out_packets_total", "Of these, packets that did not arrive.", |p| {
        p.losses_out.total.lost
    }),
    gauge("loss_out_1s_ratio", "Fraction lost on the way out in the last second.", |p| {
        p.losses_out.last_1s.fraction()
    }),
    gauge("loss_out_10s_ratio", "Fraction lost on the way out in ten seconds.", |p| {
        p.losses_out.last_10s.fraction()
    }),
    counter("known_in_packets_total", "Packets of the other end likewise.", |p| {
        p.losses_in.total.sent
    }),
    counter("lost_in_packets_total", "Of these, packets that did not arrive.", |p| {
        p.losses_in.total.lost
    }),
    gauge("loss_in_1s_ratio", "Fraction lost on the way in in the last second.", |p| {
        p.losses_in.last_1s.fraction()
    }),
    gauge("loss_in_10s_ratio", "Fraction lost on the way in in ten seconds.", |p| {
        p.losses_in.last_10s.fraction()
    }),
    gauge("queue_packets", "Packets that wait to leave at its rate.", |p| {
        p.queue.and_then(|queue| number(queue.packets))
    }),
    gauge("queue_bytes", "Bytes of these.", |p| p.queue.and_then(|queue| number(queue.bytes))),
    gauge("queue_delay_seconds", "How long a packet sent now would wait.", |p| {
        seconds(p.queue.map(|queue| queue.delay))
    }),
    gauge("rate_bytes_per_second", "At which packets leave, told or learnt.", |p| {
        p.queue.and_then(|queue| queue.rate).and_then(number)
    }),
    counter("samples_out_total", "Datagrams of a sample that were sent on it.", |p| {
        p.worth_out.samples
    }),
    counter("samples_arrived_out_total", "Of these, those that came on it.", |p| {
        p.worth_out.arrived
    }),
    counter("samples_first_out_total", "Of these, those that came on it first.", |p| {
        p.worth_out.first
    }),
    counter("samples_only_out_total", "Of these, those that came on it only.", |p| {
        p.worth_out.only
    }),
    gauge("lead_out_seconds", "Mean time until the second copy came there.", |p| {
        seconds(p.worth_out.mean_lead)
    }),
    counter("samples_in_total", "Datagrams of a sample that came on it.", |p| p.worth_in.samples),
    counter("samples_first_in_total", "Of these, those that came on it first.", |p| {
        p.worth_in.first
    }),
    counter("samples_only_in_total", "Of these, those that came on it only.", |p| p.worth_in.only),
    gauge("lead_in_seconds", "Mean time until the second copy came here.", |p| {
        seconds(p.worth_in.mean_lead)
    }),
];

fn truth(is: bool) -> Option<f64> {
    Some(f64::from(u8::from(is)))
}

fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(|time| time.as_secs_f64())
}

/// The format knows only floating point: exact up to 2^53.
fn number(count: u64) -> Option<f64> {
    Some(count as f64)
}

fn of_peer(peer: PeerId) -> String {
    labels(&[("peer", &peer.to_string())])
}

fn of_path(peer: PeerId, path: &PathInfo, errno: Option<i32>) -> String {
    let (peer, id, errno) = (peer.to_string(), path.id.to_string(), errno.map(errno_name));
    let of_path = [("peer", &*peer), ("path", &*id), ("name", &*path.name)];
    match &errno {
        None => labels(&of_path),
        Some(errno) => labels(&[&of_path[..], &[("errno", errno)]].concat()),
    }
}

/// What follows the name of a metric: `{one="…",other="…"}`.
fn labels(labels: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (label, value) in labels {
        let before = if text.is_empty() { '{' } else { ',' };
        // Writing to a string does not fail.
        let _ = write!(text, "{before}{label}=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text + "}"
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
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self
    }

    fn sample(&mut self, labels: &str, value: impl Display) {
        let _ = writeln!(self.text, "{}{labels} {value}", self.family);
    }

    /// All metrics of a table, of everything that has them, each with its labels.
    fn all<T>(&mut self, prefix: &str, metrics: &[Metric<T>], of: &[(String, &T)]) {
        for Metric { name, help, value } in metrics {
            let name = format!("mptunnel_{prefix}{name}");
            match value {
                Value::Counter(value) => {
                    self.family(&name, "counter", help);
                    of.iter().for_each(|(labels, of)| self.sample(labels, value(of)));
                }
                Value::Gauge(value) => {
                    self.family(&name, "gauge", help);
                    for (labels, of) in of {
                        if let Some(value) = value(of) {
                            self.sample(labels, value);
                        }
                    }
                }
            }
        }
    }
}
