// SPDX-License-Identifier: BSD-2-Clause
//! Addresses at the server: followed when they move, believed only when proven, never leaked.

use crate::support::*;
use mptunnel_core::proto::event::ServerEvent;
use mptunnel_core::proto::wire::Kind;
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{ClientNo, PathSpec, ServerNo, World};
use std::net::SocketAddr;
use std::time::Duration;

fn slots(world: &World, server: ServerNo, client: ClientNo) -> Vec<Option<SocketAddr>> {
    let host = world.server(server);
    let peer = host.peer_of(client).expect("it is known");
    let peer = host.server().expect("it runs").peer(peer).expect("it is here");
    peer.slots().map(|s| s.active.map(|route| route.remote)).collect()
}

#[test]
fn a_thousand_rebinds_are_followed_within_a_second_and_leave_nothing_behind() {
    let (mut world, server, client) = tunnel(1, 1, 60 * MS);
    world.start_all();
    world.run_for(S);
    world.stream_both_ways(client, 50, 60);
    let mut dice = world.dice("rebinds");
    for _ in 0..1_000 {
        world.run_for(Duration::from_millis(dice.range(1_000..1_300)));
        world.rebind(path(client, 0));
        let sent = world.ledger().all().len();
        let followed = world.run_while_not(S, |w| {
            let later = &w.ledger().all()[sent..];
            later.iter().any(|d| d.direction == Down && d.delivered_at.is_some())
        });
        assert!(followed, "downstream follows");
        assert_eq!(slots(&world, server, client).len(), 1);
    }
    world.verify();
    // Nor sessions: those of the last rekeys only.
    assert!(world.server(server).plane().expect("it runs").len() <= 5);
}

/// Somebody on the way copies a PING of a path that only carries upwards, and sends it from the
/// address of a victim, which thereby is the path's next candidate.
#[test]
fn what_one_unproven_address_has_earned_is_not_spent_on_another() {
    let (mut world, server, client) = tunnel(1, 1, 60 * MS);
    let way = path(client, 0);
    world.start_all();
    // The answer to the INIT passes, and nothing after it.
    world.run_for(61 * MS);
    world.faults(way, Down).dark = true;
    world.stream(client, Up, 500, 1_000);
    world.run_for(1_200 * MS);
    world.capture();
    world.run_for(200 * MS);
    let mut captured = world.captured();
    captured.retain(|c| c.direction == Up && Kind::of(c.parcel.bytes()) == Ok(Kind::Ctrl));
    let ping = captured.last().expect("a PING was on its way").parcel.bytes().to_vec();

    let victim = SocketAddr::from(([203, 0, 113, 1], 9));
    world.inject_at_server(server, victim, &ping);
    for _ in 0..100 {
        let _ = world.send(client, Down, 0, 1_000);
    }

    let account = world.server(server).watch().expect("it runs").account(victim);
    assert!(account.authentic > 0 && account.sent > 0, "{account:?}");
    assert!(account.sent <= 3 * account.authentic, "{account:?}");
}

#[test]
fn restarted_bridges_lose_what_they_held_and_nothing_else() {
    with_seeds("restarted_bridges_lose_what_they_held_and_nothing_else", 3, |seed| {
        let (mut world, server, client) = tunnel(seed, 3, 60 * MS);
        world.start_all();
        world.run_for(S);
        world.stream_both_ways(client, 200, 60);
        for round in 0..30 {
            world.restart_bridge(path(client, round % 3));
            world.run_for(900 * MS);
        }
        world.stop_streams();
        world.run_for(S);

        world.verify();
        let lost = world.ledger().all().iter().filter(|d| d.delivered_at.is_none()).count();
        assert_eq!(lost, 0, "two other paths carry each datagram");
        assert_eq!(slots(&world, server, client).len(), 3);
    });
}

#[test]
fn many_clients_behind_one_bridge_are_kept_apart() {
    let mut world = World::new(1);
    let server = world.add_server(server_config);
    let clients: Vec<ClientNo> = (0..20)
        .map(|_| world.add_client(server, vec![PathSpec::rtt(60 * MS); 2], client_config))
        .collect();
    world.start_all();
    world.run_for(S);
    for client in &clients {
        world.stream_both_ways(*client, 50, 60);
    }
    world.run_for(5 * S);
    world.stop_streams();
    world.run_for(S);

    world.verify();
    assert!(world.ledger().all().iter().all(|d| d.delivered_at.is_some()));
}

/// A hostile bridge copies the client's probes from an address of its own and passes the
/// challenge on: then it is a path. When it stops passing packets, the path moves back.
#[test]
fn a_path_that_a_relay_stole_is_back_within_a_second_of_its_silence() {
    let (mut world, server, client) = tunnel(1, 1, 60 * MS);
    world.start_all();
    world.run_for(S);
    world.stream_both_ways(client, 50, 60);
    world.run_for(S);
    let thief = SocketAddr::from(([198, 51, 100, 7], 9));
    world.capture();
    let is_moved = |w: &World| slots(w, server, client) == [Some(thief)];
    for _ in 0..3_000 {
        let heard = world.captured();
        for packet in heard.iter().filter(|c| c.direction == Up) {
            if packet.parcel.bytes()[0] == Kind::Ctrl.code() {
                world.inject_at_server(server, thief, packet.parcel.bytes());
                if let Some((to, answer)) = world.take_stray()
                    && to == thief
                {
                    world.inject_at_client(path(client, 0), &answer);
                }
            }
        }
        if is_moved(&world) {
            break;
        }
        world.run_for(MS);
    }
    assert!(is_moved(&world), "the theft took place");

    let back = world.run_while_not(S, |w| !is_moved(w));

    assert!(back, "the genuine address is proven again");
    world.run_for(S);
    world.stop_streams();
    world.run_for(S);
    world.verify();
}

#[test]
fn a_silent_path_is_reported_left_out_after_half_a_minute_and_forgotten_after_three() {
    let (mut world, server, client) = tunnel(1, 2, 60 * MS);
    world.start_all();
    world.run_for(S);
    world.stream_both_ways(client, 20, 60);
    world.run_for(S);
    world.set_dark(path(client, 1), true);
    world.run_for(10 * S);
    let silent = |e: &ServerEvent| matches!(e, ServerEvent::PathSilent(_, 1));
    assert_eq!(count_server_events(&world, server, silent), 1);
    // Also those to the address that the path had before its socket was made anew.
    let swallowed = |w: &World| w.client(client).paths[1].swallowed().1 + w.strays().packets;

    let copies = |w: &mut World, seconds: u32| {
        let before = swallowed(w);
        w.run_for(seconds * S);
        (swallowed(w) - before) / u64::from(seconds)
    };
    assert!(copies(&mut world, 10) >= 20, "copies still go there");
    world.run_for(15 * S);
    assert!(copies(&mut world, 10) <= 1, "nothing goes there any more");
    world.run_for(140 * S);
    assert_eq!(slots(&world, server, client).len(), 1);

    world.set_dark(path(client, 1), false);
    world.run_for(2 * S);
    assert_eq!(slots(&world, server, client).len(), 2);
    world.verify();
}
