// SPDX-License-Identifier: BSD-2-Clause
use super::*;
use crate::stats::Stats;
use crate::{
    Losses, Lost, OrderCounts, PairInfo, PathId, PathState, PeerId, Quality, Queue, Span, Traffic,
    Worth,
};
use serde_json::{Value, json};
use std::time::Duration;

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
        silent: None,
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
    assert_eq!((&client["cipher"], &client["mode"]), (&json!("aes-256-gcm"), &json!("weighted")));
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

/// A snapshot in which nothing is empty and no two numbers are the same.
fn full_snapshot(role: Role) -> Snapshot {
    let last = std::cell::Cell::new(1_000_u64);
    let next = || {
        last.set(last.get() + 1);
        last.get()
    };
    let small = || u32::try_from(next()).unwrap();
    let size = || usize::try_from(next()).unwrap();
    let time = || Duration::from_micros(next());
    let fraction = || next() as f64 / 65_536.0;
    let traffic = || Traffic {
        sent: next(),
        sent_bytes: next(),
        send_dropped: next(),
        received: next(),
        received_bytes: next(),
        wins: next(),
        duplicates: next(),
    };
    let lost = || Lost { lost: next(), sent: next() };
    let losses = || Losses { last_1s: lost(), last_10s: lost(), total: lost() };
    let worth = || Worth {
        samples: next(),
        arrived: next(),
        first: next(),
        only: next(),
        mean_lead: Some(time()),
    };
    let span = || {
        let length = time();
        let (sent, sent_bytes, received, received_bytes) = (next(), next(), next(), next());
        Some(Span { length, sent, sent_bytes, received, received_bytes })
    };
    let path = || PathInfo {
        id: PathId(small()),
        slot: 31,
        name: "a".to_owned(),
        words: "to=h:1 name=a".to_owned(),
        up: true,
        state: PathState::Up,
        reason: "its probes are answered".into(),
        since: time(),
        backup: true,
        remote: Some("192.0.2.1:4000".parse().unwrap()),
        local: Some("192.0.2.7:5000".parse().unwrap()),
        remote_before: Some("192.0.2.2:4000".parse().unwrap()),
        local_before: Some("192.0.2.8:5000".parse().unwrap()),
        max_packet: size(),
        quality: Quality {
            rtt: Some(time()),
            last_rtt: Some(time()),
            min_rtt: Some(time()),
            jitter: time(),
            loss_out: Some(fraction()),
            loss_in: Some(fraction()),
        },
        losses_out: losses(),
        losses_in: losses(),
        queue: Some(Queue { packets: next(), bytes: next(), delay: time(), rate: Some(next()) }),
        sent: next(),
        sent_bytes: next(),
        send_dropped: next(),
        received: next(),
        received_bytes: next(),
        wins: next(),
        duplicates: next(),
        worth_out: worth(),
        worth_in: worth(),
        errors: vec![(libc::ECONNREFUSED, next()), (9_999, next())],
        last_1s: span(),
        last_10s: span(),
    };
    let session = || SessionInfo {
        rekeys: small(),
        peer_restarts: small(),
        first_packets: next(),
        first_bytes: next(),
        copies: next(),
        late: next(),
        residual_loss_out: Some(fraction()),
        samples_out: next(),
        pairs: vec![PairInfo {
            one: PathId(small()),
            other: PathId(small()),
            samples: fraction(),
            lost_one: fraction(),
            lost_other: fraction(),
            lost_both: fraction(),
            correlation: Some(fraction()),
        }],
    };
    let peer = || PeerInfo {
        id: PeerId(next()),
        restarts: small(),
        paths: vec![path(), path()],
        traffic: traffic(),
        cipher: "aes-256-gcm",
        mode: "fastest",
        window: size(),
        session: session(),
    };
    Snapshot {
        role,
        version: "1.2.3",
        key_ids: vec!["ab".into()],
        stats: Stats {
            connected: true,
            silent: Some(Duration::from_micros(next())),
            traffic: traffic(),
            mode: "weighted",
            drops: vec![("duplicate", next()), ("too_old", next())],
            unattributed: next(),
            queue_dropped: next(),
            reorder: OrderCounts { held: next(), given_up: next(), late: next() },
            events_dropped: next(),
            socket_errors: next(),
            kernel_dropped: next(),
            receive_buffer: size(),
            errors: vec![(libc::ECONNREFUSED, next()), (libc::EPERM, next())],
            cipher: "aes-256-gcm",
            backend: "soft",
        },
        paths: if role == Role::Client { vec![path(), path()] } else { vec![] },
        peers: Arc::new(if role == Role::Server { vec![peer(), peer()] } else { vec![] }),
        session: session(),
        relay: Some(RelayStats {
            flows: size(),
            flows_refused: next(),
            to_tunnel: next(),
            from_tunnel: next(),
            dropped: next(),
            kernel_dropped: next(),
        }),
    }
}

/// Every number in JSON, with where it stands, times in seconds.
fn numbers(place: &str, value: &Value, found: &mut Vec<(String, f64)>) {
    match value {
        Value::Null => panic!("{place} is empty: nothing is compared"),
        Value::Number(number) => {
            let unit = if place.ends_with("_us") { 1e6 } else { 1.0 };
            found.push((place.to_owned(), number.as_f64().unwrap() / unit));
        }
        Value::Array(list) => list.iter().for_each(|value| numbers(place, value, found)),
        Value::Object(members) => {
            for (key, value) in members {
                numbers(&format!("{place}.{key}"), value, found);
            }
        }
        Value::Bool(_) | Value::String(_) => {}
    }
}

/// Whether a number of JSON has no use as a metric.
fn is_no_metric(place: &str) -> bool {
    let (before, key) = place.rsplit_once('.').unwrap();
    let lately = before.ends_with(".last_1s") || before.ends_with(".last_10s");
    match key {
        // Names: they are labels, or nobody asks for them.
        "id" | "slot" | "one" | "other" => true,
        // Of two counters that are there.
        "fraction" => !lately,
        // Prometheus makes them of the counters.
        _ if lately => true,
        // What came on a path is all there is to know of what came: it is `samples`.
        "arrived" => before.ends_with(".worth_in"),
        _ => false,
    }
}

#[test]
fn every_number_of_json_is_one_sample_for_prometheus_and_nothing_else_is() {
    for role in [Role::Client, Role::Server] {
        let snapshot = full_snapshot(role);
        let mut all = Vec::new();
        numbers("", &serde_json::from_str(&snapshot.to_json()).unwrap(), &mut all);
        let text = snapshot.to_prometheus();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples: Vec<(&str, f64)> = samples
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(name, value)| (name, value.parse().unwrap()))
            .collect();
        let same = |one: f64, other: f64| (one - other).abs() <= one.abs() * 1e-12;

        let (left_out, told): (Vec<_>, Vec<_>) =
            all.iter().partition(|(place, _)| is_no_metric(place));
        for (place, number) in &told {
            let found: Vec<_> = samples.iter().filter(|(_, value)| same(*value, *number)).collect();
            assert_eq!(found.len(), 1, "{place} = {number} as {role:?}: {found:?}");
        }
        // What is true or false, that it is there, and how many peers there are.
        let facts = ["_up{", "_backup{", "mptunnel_connected", "mptunnel_info{", "mptunnel_peers"];
        for (name, value) in &samples {
            let known = told.iter().any(|(_, number)| same(*number, *value))
                || facts.iter().any(|fact| name.contains(fact));
            assert!(known, "{name} {value} is not in JSON");
        }
        assert!(told.len() > 100 && left_out.len() > 40, "{} {}", told.len(), left_out.len());
    }
}
