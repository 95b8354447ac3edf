// SPDX-License-Identifier: BSD-2-Clause
//! A peer that holds a key, and what it may cause at the other end.

use crate::pair::*;
use mptunnel_core::proto::client::{Client, PathSettings};
use mptunnel_core::proto::config::{ClientConfig, ClientKeys, ServerConfig, ServerKey};
use mptunnel_core::proto::crypto::{PublicKey, StaticSecret};
use mptunnel_core::proto::dataplane::DataPlane;
use mptunnel_core::proto::event::{ClientEvent, ServerEvent};
use mptunnel_core::proto::frame::{CLOSE_FINISHED, Frame, FrameList};
use mptunnel_core::proto::route::Route;
use mptunnel_core::proto::wire::Kind;
use mptunnel_core::sim::rng::Rng;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

#[test]
fn a_storm_of_closed_flows_is_told_to_a_bound() {
    let mut pair = Pair::connected(1);
    let mut frames = FrameList::new();
    for flow in 1..10_000 {
        frames = frames.push(Frame::Close { code: CLOSE_FINISHED, flow });
    }
    let inner = frames.finish();
    for _ in 0..10 {
        let (_, bytes) = pair.client_session().seal_ctrl(pair.now, inner.clone()).unwrap();
        pair.up.push(Wire { path: 0, bytes });
        let (_, bytes) = pair.server_session().seal_ctrl(pair.now, inner.clone()).unwrap();
        pair.down.push(Wire { path: 0, bytes });
    }
    pair.settle();

    let up = pair.server_told(|e| matches!(e, ServerEvent::FlowClosed(..)));
    let down = pair.client_told(|e| matches!(e, ClientEvent::FlowClosed(..)));
    assert!((1..=100).contains(&up) && (1..=100).contains(&down), "{up} {down}");
}

#[test]
fn a_thousand_flows_that_end_at_once_make_twenty_messages_a_second() {
    let mut pair = Pair::connected(4);
    let peer = pair.peer();
    for flow in 1..=1_000 {
        pair.client.close_flow(pair.now, flow);
        pair.server.close_flow(pair.now, peer, flow, CLOSE_FINISHED);
    }
    pair.collect();

    assert_eq!((pair.up.len(), pair.down.len()), (20 * 4, 20 * 4));
    pair.settle();
    assert_eq!(pair.server_told(|e| matches!(e, ServerEvent::FlowClosed(..))), 20, "once each");
    assert_eq!(pair.client_told(|e| matches!(e, ClientEvent::FlowClosed(..))), 20);
}

#[test]
fn a_server_that_asks_for_new_keys_all_the_time_is_heard_once_per_session() {
    let mut pair = Pair::connected(1);
    pair.run(S);
    let mut attempts = BTreeSet::new();
    for _ in 0..60 {
        pair.now = pair.now + 100 * MS;
        pair.server_says(0, FrameList::new().push(Frame::RekeyRequest));
        let request = pair.down.pop().unwrap();
        pair.deliver_down(request);
        pair.client.handle_timeout(pair.now);
        pair.collect();
        let inits = pair.up.drain(..).filter(|wire| wire.bytes[0] == 1);
        attempts.extend(inits.map(|wire| wire.bytes[4..8].to_vec()));
    }
    assert_eq!(attempts.len(), 1, "in six seconds");
}

/// The server with static keys, and INITs of clients that it does not list.
fn strangers(count: u64) -> (Pair, Vec<Vec<u8>>) {
    let secret = |n: u8| StaticSecret::new([n; 32]).unwrap();
    let listed = secret(9);
    let clients = HashMap::from([(listed.public(), None)]);
    let server = ServerConfig::new(vec![ServerKey::Static { own: secret(8), clients }]);
    let keys = |own, server: PublicKey| ClientKeys::Static { own, server, psk: None };
    let client = ClientConfig::new(keys(listed, secret(8).public()));
    let pair = Pair::with(1, client, server);
    let inits = (0..count)
        .map(|n| {
            let config = ClientConfig::new(keys(secret(7), secret(8).public()));
            let mut client =
                Client::new(config, Arc::<DataPlane>::default(), Box::new(Rng::new(100 + n)));
            let id = client.add_path(pair.now, PathSettings::default()).unwrap();
            let remote = SocketAddr::from(([10, 0, 0, 1], 4_000));
            client.path_opened(pair.now, id, Route { socket: 0, remote, local: None }, MTU);
            client.poll_transmit().unwrap().bytes
        })
        .collect();
    (pair, inits)
}

#[test]
fn clients_that_are_refused_push_out_no_session_and_no_news() {
    let (mut pair, inits) = strangers(250);
    pair.collect();
    let mine = pair.up.pop().unwrap();
    pair.deliver_up(mine);
    assert_eq!(pair.server.pending_len(), 1);

    // Two hundred in one second, and the rest in the next ones: no load.
    for (n, init) in (0u32..).zip(inits.iter().cycle().take(300)) {
        let remote = SocketAddr::from(([10, 9, 0, 1], 1_000 + n as u16));
        let route = Route { socket: 0, remote, local: None };
        pair.server.handle_stranger(pair.now, &route, Kind::InitKey, init);
        pair.now = pair.now + 10 * MS;
    }
    let (_, more) = strangers(10);
    drop(more);

    assert_eq!(pair.server.pending_len(), 1, "the session of the listed client is still there");
    pair.collect();
    let refused = pair.server_told(|e| matches!(e, ServerEvent::Refused(_)));
    assert!((1..=5).contains(&refused), "{refused} in three seconds");
}
