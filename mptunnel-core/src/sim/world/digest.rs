// SPDX-License-Identifier: BSD-2-Clause
//! The state of a machine as one text, counters apart: what nothing unauthenticated may change.

use super::{ClientHost, ServerHost};
use crate::proto::route::Route;
use std::fmt::Write;

/// Everything about a client that shows, except its counters.
pub fn client_digest(host: &ClientHost) -> String {
    let Some(client) = host.client() else { return "off".into() };
    let mut text = format!("{:?} {:?}", client.status(), host.plane().map(|p| p.len()));
    if let Some(session) = client.session() {
        let (index, peer) = (session.local_index(), session.remote_index());
        let _ = write!(text, " {index:08x}/{peer:08x} heard {:?}", session.heard());
    }
    for path in client.paths() {
        let _ = write!(
            text,
            "\n{} {} {:?} up {} since {:?} probes {:?} rtt {:?}",
            path.id,
            path.slot,
            path.state,
            path.up,
            path.since,
            path.probe,
            path.probe.health.srtt(),
        );
    }
    let _ = write!(text, "\nnext {:?}", client.poll_timeout());
    text
}

/// Everything about a server that shows, except its counters. `pending` handshakes are left out:
/// an INIT that is a copy may begin one.
pub fn server_digest(host: &ServerHost) -> String {
    let Some(server) = host.server() else { return "off".into() };
    let mut peers: Vec<_> = server.peers().collect();
    peers.sort_by_key(|peer| peer.id);
    let mut text = format!("{} sessions", host.plane().map_or(0, |p| p.len()));
    for peer in peers {
        let _ = write!(text, "\npeer {} current {:08x}", peer.id, peer.current.local_index());
        for session in peer.sessions() {
            let _ = write!(
                text,
                " {:08x}:{:?}:{}",
                session.local_index(),
                session.heard(),
                session.is_superseded()
            );
        }
        for slot in peer.slots() {
            let candidate: Option<Route> = slot.candidate.as_ref().map(|c| c.route);
            let _ = write!(
                text,
                "\n{} {:?} {candidate:?} {} {:?} {:?} {} {} {} {:?}",
                slot.id,
                slot.active,
                slot.last_seq,
                slot.last_heard,
                slot.announced_ms,
                slot.backup,
                slot.silent,
                slot.lingered,
                slot.probe,
            );
        }
    }
    text
}
