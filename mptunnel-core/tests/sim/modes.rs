// SPDX-License-Identifier: BSD-2-Clause
//! Keys and modes of the two ends: they agree, or nothing passes and the right end says why (G14).

use crate::support::*;
use mptunnel_core::proto::config::{ClientConfig, ClientKeys, ServerConfig, ServerKey};
use mptunnel_core::proto::crypto::{Psk, PublicKey, StaticSecret};
use mptunnel_core::proto::event::{ClientEvent, ServerEvent};
use mptunnel_core::proto::wire::Refusal;
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{ClientNo, PathSpec, ServerNo, World};
use std::collections::HashMap;

/// What one end is configured with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Keys {
    /// The shared key of this number.
    Psk(u8),
    /// Static keys: the client's number, the server's number, and the shared key on top.
    Static { client: u8, server: u8, psk: Option<u8> },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct End {
    keys: Keys,
    clear: bool,
}

fn secret(number: u8) -> StaticSecret {
    StaticSecret::new([number; 32]).expect("not all zero")
}

fn public(number: u8) -> PublicKey {
    secret(number).public()
}

fn client_of(end: End) -> ClientConfig {
    let mut config = ClientConfig::new(match end.keys {
        Keys::Psk(number) => ClientKeys::Psk(psk(number)),
        Keys::Static { client, server, psk: on_top } => {
            ClientKeys::Static { own: secret(client), server: public(server), psk: on_top.map(psk) }
        }
    });
    config.common.clear = end.clear;
    config
}

fn server_of(end: End) -> ServerConfig {
    let mut config = ServerConfig::new(vec![match end.keys {
        Keys::Psk(number) => ServerKey::Psk(psk(number)),
        Keys::Static { client, server, psk: on_top } => ServerKey::Static {
            own: secret(server),
            clients: HashMap::from([(public(client), on_top.map(psk))]),
        },
    }]);
    config.common.clear = end.clear;
    config
}

/// Runs a minute with traffic both ways.
fn minute(client_end: End, server_end: End) -> (World, ServerNo, ClientNo) {
    let mut world = World::new(1);
    let server = world.add_server(move || server_of(server_end));
    let paths = vec![PathSpec::rtt(40 * MS); 2];
    let client = world.add_client(server, paths, move || client_of(client_end));
    world.capture();
    world.start_all();
    world.stream_both_ways(client, 20, 100);
    world.run_for(60 * S);
    world.verify();
    (world, server, client)
}

const PSK: Keys = Keys::Psk(1);
const STATIC: Keys = Keys::Static { client: 2, server: 3, psk: None };
const STATIC_PSK: Keys = Keys::Static { client: 2, server: 3, psk: Some(4) };

#[test]
fn equal_keys_and_modes_carry_datagrams_and_readable_ones_only_where_asked() {
    for keys in [PSK, STATIC, STATIC_PSK] {
        for clear in [false, true] {
            let end = End { keys, clear };
            let (mut world, _, client) = minute(end, end);

            for way in [Up, Down] {
                let delivered = world.ledger().of(client, way);
                assert!(delivered.filter(|d| d.delivered_at.is_some()).count() > 1_190);
            }
            let readable = world.captured().iter().filter(|c| shows_payload(c)).count();
            assert_eq!(readable > 0, clear, "{end:?}");
        }
    }
}

/// Whether a DATA packet holds the bytes of its datagram as they are.
fn shows_payload(captured: &mptunnel_core::sim::world::Captured) -> bool {
    let Some(cargo) = captured.parcel.cargo else { return false };
    let payload = mptunnel_core::sim::world::payload(cargo.datagram, 100);
    captured.parcel.bytes().windows(payload.len()).any(|w| w == payload)
}

#[test]
fn differing_keys_and_modes_carry_nothing_and_the_right_end_says_why() {
    let other_psk = Keys::Psk(9);
    let other_client = Keys::Static { client: 9, server: 3, psk: None };
    let other_server = Keys::Static { client: 2, server: 9, psk: None };
    let other_on_top = Keys::Static { client: 2, server: 3, psk: Some(9) };
    let all = [PSK, other_psk, STATIC, other_client, other_server, STATIC_PSK, other_on_top];
    let mut combinations = 0;
    for client_keys in all {
        for server_keys in all {
            for (client_clear, server_clear) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                let client_end = End { keys: client_keys, clear: client_clear };
                let server_end = End { keys: server_keys, clear: server_clear };
                if client_end != server_end {
                    combinations += 1;
                    assert_refused(client_end, server_end);
                }
            }
        }
    }
    assert_eq!(combinations, 7 * 7 * 4 - 7 * 2);
}

/// What the client is told, if the server can tell him.
fn expected_refusal(client_end: End, server_end: End) -> Option<Refusal> {
    let mode = match (client_end.clear, server_end.clear) {
        (true, false) => Some(Refusal::EncryptionRequired),
        (false, true) => Some(Refusal::ClearRequired),
        _ => None,
    };
    match (client_end.keys, server_end.keys) {
        (Keys::Psk(a), Keys::Psk(b)) if a == b => mode,
        (
            Keys::Static { client: c1, server: s1, psk: p1 },
            Keys::Static { client: c2, server: s2, psk: p2 },
        ) if s1 == s2 => match (c1 == c2, p1 == p2) {
            // Sealed with no shared key on top: who has one cannot read it.
            (false, _) => p1.is_none().then_some(Refusal::NotAuthorised),
            (true, true) => mode,
            (true, false) => None,
        },
        _ => None,
    }
}

fn assert_refused(client_end: End, server_end: End) {
    let what = format!("client {client_end:?}, server {server_end:?}");
    let (mut world, server, client) = minute(client_end, server_end);
    assert_eq!(world.ledger().all().len(), 0, "{what}: nothing was taken to be sent");
    assert!(world.captured().iter().all(|c| c.parcel.cargo.is_none()), "{what}");
    assert!(!world.client(client).is_up(), "{what}");
    assert_eq!(world.server(server).server().expect("it runs").peers().count(), 0, "{what}");
    let sessions = world.server(server).plane().expect("it runs").len();
    assert!(sessions <= 8, "{what}: {sessions} pending");

    let events = &world.client(client).events;
    let refusals: Vec<_> = events
        .iter()
        .filter_map(|(_, e)| if let ClientEvent::Refused(why) = e { Some(*why) } else { None })
        .collect();
    match expected_refusal(client_end, server_end) {
        Some(why) => {
            // At 0, 5, 15 and 35 s.
            assert_eq!(refusals, vec![why; 4], "{what}");
            let told = |e: &ServerEvent| *e == ServerEvent::Refused(why);
            assert!(count_server_events(&world, server, told) >= 4, "{what}");
        }
        None => {
            assert_eq!(refusals, [], "{what}");
            let silent = |e: &ClientEvent| matches!(e, ClientEvent::ServerSilent(_));
            assert_eq!(count_client_events(&world, client, silent), 1, "{what}");
            let host = world.client(client);
            let silent = host.client().expect("it runs").silent_for(host.local(world.now()));
            assert!(silent > Some(5 * S), "{what}: {silent:?}");
        }
    }
    // A key that the server does not have at all is shown to its operator, once a second at most.
    let same_id = match (client_end.keys, server_end.keys) {
        (Keys::Psk(a), Keys::Psk(b)) => a == b,
        (Keys::Static { server: a, .. }, Keys::Static { server: b, .. }) => a == b,
        _ => false,
    };
    let unknown = |e: &ServerEvent| matches!(e, ServerEvent::UnknownKey(_));
    let unknown = count_server_events(&world, server, unknown);
    assert_eq!((1..=61).contains(&unknown), !same_id, "{what}: {unknown}");
}

#[test]
fn a_wait_for_a_silent_server_is_paced() {
    let (mut world, _, client) = tunnel(1, 1, 40 * MS);
    world.start_client(client);
    world.run_for(119 * S);

    let (up, _) = world.client(client).paths[0].counters();
    // Every 250 ms for 10 s, every 500 ms to 60 s, every second from then on.
    assert!((180..=225).contains(&up.sent), "{}", up.sent);
    let attempts = world.client(client).watch().expect("it runs").attempts().len();
    assert_eq!(attempts, 15, "one each 8 s");
}

/// One PSK among several, each a trust domain of its own.
#[test]
fn a_server_with_several_keys_serves_the_holders_of_each() {
    let mut world = World::new(1);
    let keys = || (1..=3).map(|n| ServerKey::Psk(psk(n))).collect();
    let server = world.add_server(move || ServerConfig::new(keys()));
    for number in 1..=4u8 {
        world.add_client(server, vec![PathSpec::rtt(40 * MS)], move || {
            let key: Psk = psk(number);
            // The same name under two keys is two clients.
            ClientConfig { name: Some("x".into()), ..ClientConfig::new(ClientKeys::Psk(key)) }
        });
    }
    world.start_all();
    world.run_for(S);

    let up: Vec<bool> = (0..4).map(|n| world.client(ClientNo(n)).is_up()).collect();
    assert_eq!(up, [true, true, true, false]);
    assert_eq!(world.server(server).server().expect("it runs").peers().count(), 3);
}
