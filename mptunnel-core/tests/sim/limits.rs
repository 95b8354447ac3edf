// SPDX-License-Identifier: BSD-2-Clause
//! Numbers and keys at the end of their lives, and a server that is full (G11).

use crate::support::*;
use mptunnel_core::proto::drop::DropReason;
use mptunnel_core::proto::event::{ClientEvent, ServerEvent};
use mptunnel_core::proto::session::Session;
use mptunnel_core::proto::view::SendRefused;
use mptunnel_core::proto::wire::{PN_LIMIT, Refusal};
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{ClientNo, PathSpec, ServerNo, World};
use std::sync::Arc;
use std::time::Duration;

fn running(seed: u64, rtt: Duration) -> (World, ServerNo, ClientNo) {
    let (mut world, server, client) = tunnel(seed, 2, rtt);
    world.start_all();
    world.run_for(S);
    world.send(client, Up, 0, 10).expect("it is up");
    world.run_for(S);
    (world, server, client)
}

fn client_session(world: &World, client: ClientNo) -> Arc<Session> {
    let machine = world.client(client).client().expect("it runs");
    machine.session().expect("it is up").clone()
}

fn server_session(world: &World, server: ServerNo, client: ClientNo) -> Arc<Session> {
    let host = world.server(server);
    let peer = host.peer_of(client).expect("it is known");
    host.server().expect("it runs").peer(peer).expect("it is here").current.clone()
}

#[test]
fn numbers_pass_32_and_60_bits_without_a_loss() {
    for start in [(1u64 << 32) - 5, (1 << 60) - 5] {
        let (mut world, server, client) = running(1, 50 * MS);
        client_session(&world, client).set_next_pn(start);
        server_session(&world, server, client).set_next_pn(start);
        world.stream_both_ways(client, 500, 50);
        world.run_for(3 * S);
        world.stop_streams();
        world.run_for(S);

        world.verify();
        assert!(world.ledger().all().iter().all(|d| d.delivered_at.is_some()));
        // At 2^60 new keys are made.
        let rekeyed = count_client_events(&world, client, |e| *e == ClientEvent::Rekeyed);
        assert_eq!(rekeyed, usize::from(start > 1 << 40));
    }
}

#[test]
fn at_the_limit_of_numbers_nothing_more_is_sealed_and_new_keys_are_made() {
    let (mut world, _, client) = running(1, 50 * MS);
    client_session(&world, client).set_next_pn(PN_LIMIT - 5);
    // No timer goes off before these.
    let sent: Vec<bool> = (0..10).map(|_| world.send(client, Up, 0, 50).is_ok()).collect();
    assert_eq!(sent, [true, true, true, true, true, false, false, false, false, false]);
    assert_eq!(world.send(client, Up, 0, 50), Err(SendRefused::NoSession));

    world.run_for(2 * S);

    assert_eq!(count_client_events(&world, client, |e| *e == ClientEvent::Rekeyed), 1);
    assert!(world.send(client, Up, 0, 50).is_ok());
    world.run_for(S);
    world.verify();
    assert!(world.ledger().all().iter().all(|d| d.delivered_at.is_some()));
}

#[test]
fn refused_sends_do_not_move_the_counter() {
    let (world, server, client) = running(1, 50 * MS);
    for session in [client_session(&world, client), server_session(&world, server, client)] {
        session.set_next_pn(PN_LIMIT);
        for _ in 0..1 << 23 {
            assert_eq!(session.reserve(), None);
        }
        assert_eq!(session.next_pn(), PN_LIMIT);
    }
}

#[test]
fn keys_live_180_seconds_at_both_ends_and_not_longer() {
    let (mut world, _, client) = running(1, 50 * MS);
    let up_since = world.now().before(2 * S);
    for path in world.paths_of(client) {
        world.faults(path, Up).no_handshakes = true;
    }
    for (age, alive) in [(119, true), (121, true), (179, true), (181, false)] {
        world.run_until(up_since + age * S);
        for way in [Up, Down] {
            let sent = world.send(client, way, 0, 50);
            world.run_for(100 * MS);
            let delivered =
                sent.ok().is_some_and(|number| world.ledger().get(number).delivered_at.is_some());
            assert_eq!((sent.is_ok(), delivered), (alive, alive), "{way:?} at {age} s");
        }
    }
    world.verify();
}

#[test]
fn a_packet_that_outlives_its_key_on_the_way_is_not_opened() {
    let (mut world, server, client) = running(1, 400 * MS);
    for path in world.paths_of(client) {
        world.faults(path, Up).no_handshakes = true;
    }
    // The server's key is half a round trip older.
    let died = client_session(&world, client).born() + 180 * S;
    let left = died.since(world.client(client).local(world.now()));
    world.run_for(left.saturating_sub(100 * MS));
    world.send(client, Up, 0, 50).expect("the client's key lives");
    world.run_for(S);

    assert_eq!(world.ledger().all().last().map(|d| d.delivered_at), Some(None));
    let drops = &world.server(server).plane().expect("it runs").drops;
    assert!(drops.of(DropReason::KeyExpired) >= 1);
    world.verify();
}

#[test]
fn after_an_hour_of_sleep_the_old_keys_are_dead_and_new_ones_come_within_a_second() {
    let (mut world, server, client) = running(1, 50 * MS);
    world.stream_both_ways(client, 50, 50);
    world.run_for(S);
    world.suspend_client(client);
    world.run_for(3_600 * S);
    assert_eq!(world.server(server).server().expect("it runs").peers().count(), 0);
    let sent = world.ledger().all().len();

    world.resume_client(client);

    assert!(world.send(client, Up, 0, 50).is_err(), "nothing is sealed with old keys");
    assert_eq!(count_client_events(&world, client, |e| *e == ClientEvent::SessionLost), 1);
    assert!(world.run_while_not(S, |w| {
        w.ledger().all()[sent..].iter().any(|d| d.delivered_at.is_some())
    }));
    world.verify();
}

/// A server with room for `sessions` clients, and three clients.
fn full_server(sessions: usize) -> (World, ServerNo, [ClientNo; 3]) {
    let mut world = World::new(1);
    let server = world.add_server(move || {
        let mut config = server_config();
        config.sessions = sessions;
        config
    });
    let clients =
        [0, 1, 2].map(|_| world.add_client(server, vec![PathSpec::rtt(50 * MS)], client_config));
    world.start_server(server);
    (world, server, clients)
}

#[test]
fn a_full_server_refuses_strangers_and_serves_those_it_knows() {
    let (mut world, server, clients) = full_server(2);
    world.start_client(clients[0]);
    world.start_client(clients[1]);
    world.run_for(S);
    world.start_client(clients[2]);
    // Long enough for rekeys.
    world.run_for(130 * S);

    let full = ClientEvent::Refused(Refusal::SessionLimit);
    assert!(count_client_events(&world, clients[2], |e| *e == full) >= 4);
    for client in &clients[..2] {
        assert_eq!(count_client_events(&world, *client, |e| *e == full), 0);
        assert_eq!(count_client_events(&world, *client, |e| *e == ClientEvent::Rekeyed), 1);
    }

    world.stop_client(clients[0]);

    assert!(world.run_while_not(65 * S, |w| w.client(clients[2]).is_up()), "after its back-off");
    world.run_for(S);
    assert_eq!(world.server(server).server().expect("it runs").peers().count(), 2);
}

#[test]
fn of_two_strangers_at_the_same_moment_one_gets_the_last_place_and_the_other_is_told() {
    let (mut world, server, clients) = full_server(1);
    world.start_client(clients[0]);
    world.start_client(clients[1]);
    world.run_for(10 * S);

    let full = ClientEvent::Refused(Refusal::SessionLimit);
    let refused = |client| count_client_events(&world, client, |e| *e == full);
    assert_eq!(
        [refused(clients[0]) > 0, refused(clients[1]) > 0].iter().filter(|r| **r).count(),
        1
    );
    assert_eq!(world.server(server).server().expect("it runs").peers().count(), 1);
    let told = |e: &ServerEvent| *e == ServerEvent::Refused(Refusal::SessionLimit);
    assert!(count_server_events(&world, server, told) > 0);
}
