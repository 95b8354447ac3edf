// SPDX-License-Identifier: BSD-2-Clause
//! A tunnel that nobody uses: up, cheap, and no larger after a night than before.

use crate::support::*;
use mptunnel_core::proto::event::{ClientEvent, ServerEvent};
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{ClientNo, PathSpec, World};

fn attempts(world: &World, client: ClientNo) -> usize {
    world.client(client).watch().expect("it runs").attempts().len()
}

fn packets_up(world: &World, client: ClientNo) -> u64 {
    world.client(client).paths.iter().map(|p| p.counters().0.sent + p.swallowed().0).sum()
}

#[test]
fn an_idle_tunnel_with_a_dead_path_makes_no_needless_handshakes() {
    let (mut world, _, client) = tunnel(1, 3, 40 * MS);
    world.start_all();
    world.run_for(10 * S);
    world.set_dark(path(client, 1), true);

    world.run_for(600 * S);

    // The first one, and a rekey every two minutes.
    assert!((5..=7).contains(&attempts(&world, client)), "{}", attempts(&world, client));
}

#[test]
fn an_idle_tunnel_with_a_very_slow_path_makes_no_needless_handshakes() {
    let paths = [40, 2_000, 3_500].map(|rtt| PathSpec::rtt(rtt * MS));
    let (mut world, _, client) = tunnel_over(1, paths.into());
    world.start_all();

    world.run_for(100 * S);

    assert_eq!(attempts(&world, client), 1);
    let up = world.client(client).client().expect("it runs").paths().filter(|p| p.up).count();
    assert_eq!(up, 3);
}

#[test]
fn eight_idle_hours_leave_the_tunnel_up_and_nothing_behind() {
    let (mut world, server, client) = tunnel(1, 2, 40 * MS);
    world.start_all();
    world.run_for(600 * S);
    let tables = |w: &World| {
        let (server, client) = (w.server(server), w.client(client));
        let peers = server.server().expect("it runs").peers().count();
        let slots: usize =
            server.server().expect("it runs").peers().map(|p| p.slots().count()).sum();
        let pending = server.server().expect("it runs").pending_len();
        let sessions = server.plane().expect("it runs").len();
        (peers, slots, pending, sessions.max(2), client.plane().expect("it runs").len().max(2))
    };
    assert_eq!(tables(&world), (1, 2, 0, 2, 2));
    let (packets, woken) = (packets_up(&world, client), wakeups(&world, client));

    for hour in 1..=8 {
        world.run_for(3_600 * S);
        assert_eq!(tables(&world), (1, 2, 0, 2, 2), "after {hour} h");
    }

    let is = |wanted: ClientEvent| count_client_events(&world, client, |e| *e == wanted);
    assert_eq!((is(ClientEvent::SessionUp), is(ClientEvent::SessionLost)), (1, 0));
    // Every 110 to 120 s.
    assert!((248..=268).contains(&is(ClientEvent::Rekeyed)), "{}", is(ClientEvent::Rekeyed));
    let silent = |e: &ServerEvent| matches!(e, ServerEvent::PathSilent(..));
    assert_eq!(count_server_events(&world, server, silent), 0);
    // On each path a PING and a PONG every 5 s, and what a rekey takes.
    let per_s = (packets_up(&world, client) - packets) as f64 / 28_800.0;
    assert!(per_s < 1.0, "{per_s} packets per second");
    let woken = (wakeups(&world, client) - woken) as f64 / 28_800.0;
    assert!(woken < 2.0, "{woken} wake-ups per second");
    for way in [Up, Down] {
        let number = world.send(client, way, 0, 100).expect("it is up");
        world.run_for(S);
        assert!(world.ledger().get(number).delivered_at.is_some());
    }
    world.verify();
}

fn wakeups(world: &World, client: ClientNo) -> u64 {
    world.client_lifetime(client).expect("it runs").wakeups
}

#[test]
fn a_tunnel_over_one_very_slow_path_comes_up_with_one_handshake() {
    let (mut world, server, client) = tunnel(1, 1, 3_000 * MS);
    world.start_all();
    world.run_for(60 * S);
    assert_eq!(attempts(&world, client), 1);

    world.stream_both_ways(client, 10, 60);
    world.run_for(10 * S);
    world.kill_server(server);
    world.start_server(server);
    let start = world.now();
    world.run_for(20 * S);

    let later = world.ledger().of(client, Down).filter(|d| d.sent_at > start);
    assert!(later.filter(|d| d.delivered_at.is_some()).count() > 50);
    assert_eq!(attempts(&world, client), 2);
    world.verify();
}
