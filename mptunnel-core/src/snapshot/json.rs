// SPDX-License-Identifier: BSD-2-Clause
//! A snapshot as JSON. Each struct is taken apart into all of its fields, so that the compiler says
//! if one is forgotten; the bindings compare what they have with the keys here.

use super::{Snapshot, errno_name, role_word};
use crate::options::Role;
use crate::relay::RelayStats;
use crate::stats::{
    Losses, Lost, OrderCounts, PairInfo, PathInfo, PeerInfo, Quality, Queue, SessionInfo, Span,
    Stats, Traffic, Worth,
};
use crate::{PathId, PeerId};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

impl Snapshot {
    /// As one JSON object. Times are in microseconds, losses fractions from 0 to 1, and what is not
    /// measured yet is `null`. Later versions add members and remove none.
    pub fn to_json(&self) -> String {
        let Snapshot { role, version, key_ids, stats, paths, peers, session, relay } = self;
        let mut all = stats_json(stats);
        all["role"] = json!(role_word(*role));
        all["version"] = json!(version);
        all["key_ids"] = json!(key_ids);
        let (key, list) = match role {
            Role::Client => ("paths", paths.iter().map(path_json).collect()),
            Role::Server => ("peers", peers.iter().map(peer_json).collect()),
        };
        all[key] = Value::Array(list);
        if *role == Role::Client {
            all["session"] = session_json(session);
        }
        if let Some(relay) = relay {
            all["relay"] = relay_json(relay);
        }
        all.to_string()
    }
}

fn micros(time: Option<Duration>) -> Value {
    time.map_or(Value::Null, |time| json!(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
}

fn stats_json(stats: &Stats) -> Value {
    let Stats {
        connected,
        silent,
        traffic,
        mode,
        drops,
        unattributed,
        queue_dropped,
        reorder: OrderCounts { held, given_up, late },
        events_dropped,
        socket_errors,
        errors,
        kernel_dropped,
        receive_buffer,
        cipher,
        backend,
    } = stats;
    json!({
        "connected": connected,
        "silent_us": micros(*silent),
        "traffic": traffic_json(traffic),
        "mode": Some(mode).filter(|word| !word.is_empty()),
        "cipher": Some(cipher).filter(|name| !name.is_empty()),
        "backend": backend,
        "dropped": drops.iter().copied().collect::<BTreeMap<_, _>>(),
        "unattributed": unattributed,
        "queue_dropped": queue_dropped,
        "reorder": { "held": held, "given_up": given_up, "late": late },
        "events_dropped": events_dropped,
        "socket_errors": socket_errors,
        "kernel_dropped": kernel_dropped,
        "receive_buffer": receive_buffer,
        "errors": errors_json(errors),
    })
}

fn relay_json(relay: &RelayStats) -> Value {
    let RelayStats { flows, flows_refused, to_tunnel, from_tunnel, dropped, kernel_dropped } =
        relay;
    json!({
        "flows": flows,
        "flows_refused": flows_refused,
        "to_tunnel": to_tunnel,
        "from_tunnel": from_tunnel,
        "dropped": dropped,
        "kernel_dropped": kernel_dropped,
    })
}

fn traffic_json(traffic: &Traffic) -> Value {
    let Traffic { sent, sent_bytes, send_dropped, received, received_bytes, wins, duplicates } =
        traffic;
    json!({
        "sent": sent,
        "sent_bytes": sent_bytes,
        "send_dropped": send_dropped,
        "received": received,
        "received_bytes": received_bytes,
        "wins": wins,
        "duplicates": duplicates,
    })
}

fn path_json(path: &PathInfo) -> Value {
    let PathInfo {
        id: PathId(id),
        slot,
        name,
        words,
        up,
        state,
        reason,
        since,
        backup,
        remote,
        local,
        remote_before,
        local_before,
        max_packet,
        quality: Quality { rtt, last_rtt, min_rtt, jitter, loss_out, loss_in },
        losses_out,
        losses_in,
        queue,
        sent,
        sent_bytes,
        send_dropped,
        received,
        received_bytes,
        wins,
        duplicates,
        worth_out,
        worth_in,
        errors,
        last_1s,
        last_10s,
    } = path;
    json!({
        "id": id,
        "slot": slot,
        "name": name,
        "words": words,
        "up": up,
        "state": state.name(),
        "reason": reason,
        "since_us": micros(Some(*since)),
        "backup": backup,
        "remote": remote.map(|remote| remote.to_string()),
        "local": local.map(|local| local.to_string()),
        "remote_before": remote_before.map(|remote| remote.to_string()),
        "local_before": local_before.map(|local| local.to_string()),
        "max_packet": max_packet,
        "rtt_us": micros(*rtt),
        "last_rtt_us": micros(*last_rtt),
        "min_rtt_us": micros(*min_rtt),
        "jitter_us": micros(Some(*jitter)),
        "loss_out": loss_out,
        "loss_in": loss_in,
        "losses_out": losses_json(losses_out),
        "losses_in": losses_json(losses_in),
        "queue": queue.as_ref().map(queue_json),
        "sent": sent,
        "sent_bytes": sent_bytes,
        "send_dropped": send_dropped,
        "received": received,
        "received_bytes": received_bytes,
        "wins": wins,
        "duplicates": duplicates,
        "worth_out": worth_json(worth_out),
        "worth_in": worth_json(worth_in),
        "errors": errors_json(errors),
        "last_1s": last_1s.as_ref().map(span_json),
        "last_10s": last_10s.as_ref().map(span_json),
    })
}

fn losses_json(losses: &Losses) -> Value {
    let Losses { last_1s, last_10s, total } = losses;
    let json = |known: &Lost| {
        let Lost { sent, lost } = known;
        json!({ "sent": sent, "lost": lost, "fraction": known.fraction() })
    };
    json!({ "last_1s": json(last_1s), "last_10s": json(last_10s), "total": json(total) })
}

fn queue_json(queue: &Queue) -> Value {
    let Queue { packets, bytes, delay, rate } = queue;
    json!({
        "packets": packets,
        "bytes": bytes,
        "delay_us": micros(Some(*delay)),
        "rate_bytes_per_s": rate,
    })
}

fn span_json(span: &Span) -> Value {
    let Span { length, sent, sent_bytes, received, received_bytes } = span;
    json!({
        "length_us": micros(Some(*length)),
        "sent": sent,
        "sent_bytes": sent_bytes,
        "received": received,
        "received_bytes": received_bytes,
    })
}

fn worth_json(worth: &Worth) -> Value {
    let Worth { samples, arrived, first, only, mean_lead } = worth;
    json!({
        "samples": samples,
        "arrived": arrived,
        "first": first,
        "only": only,
        "mean_lead_us": micros(*mean_lead),
    })
}

fn errors_json(errors: &[(i32, u64)]) -> BTreeMap<String, u64> {
    errors.iter().map(|(errno, count)| (errno_name(*errno), *count)).collect()
}

fn session_json(session: &SessionInfo) -> Value {
    let SessionInfo {
        rekeys,
        peer_restarts,
        first_packets,
        first_bytes,
        copies,
        late,
        residual_loss_out,
        samples_out,
        pairs,
    } = session;
    json!({
        "rekeys": rekeys,
        "peer_restarts": peer_restarts,
        "first_packets": first_packets,
        "first_bytes": first_bytes,
        "copies": copies,
        "late": late,
        "residual_loss_out": residual_loss_out,
        "samples_out": samples_out,
        "pairs": pairs.iter().map(pair_json).collect::<Vec<_>>(),
    })
}

fn pair_json(pair: &PairInfo) -> Value {
    let PairInfo { one, other, samples, lost_one, lost_other, lost_both, correlation } = pair;
    json!({
        "one": one.0,
        "other": other.0,
        "samples": samples,
        "lost_one": lost_one,
        "lost_other": lost_other,
        "lost_both": lost_both,
        "correlation": correlation,
    })
}

fn peer_json(peer: &PeerInfo) -> Value {
    let PeerInfo { id: PeerId(id), restarts, paths, traffic, cipher, mode, window, session } = peer;
    json!({
        "id": id,
        "restarts": restarts,
        "mode": mode,
        "cipher": cipher,
        "window": window,
        "traffic": traffic_json(traffic),
        "session": session_json(session),
        "paths": paths.iter().map(path_json).collect::<Vec<_>>(),
    })
}
