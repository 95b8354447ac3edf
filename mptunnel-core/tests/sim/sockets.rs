// SPDX-License-Identifier: BSD-2-Clause
//! Sockets that come and go: what a lost address, a dead interface or a full buffer look like.

use crate::support::*;
use mptunnel_core::proto::event::{ClientEvent, PathDownReason};
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{PathSpec, World};
use std::time::Duration;

#[test]
fn sockets_that_close_and_open_at_random_moments_lose_no_surviving_copy() {
    with_seeds("sockets_that_close_and_open_at_random_moments_lose_no_surviving_copy", 6, |seed| {
        let (mut world, _, client) = tunnel(seed, 4, 60 * MS);
        let mut dice = world.dice("sockets");
        world.start_all();
        world.run_for(S);
        world.stream_both_ways(client, 100, 100);
        let mut open = [true; 4];
        for _ in 0..200 {
            world.run_for(Duration::from_millis(dice.range(1..400)));
            let index = dice.range(0..4) as usize;
            open[index] = !open[index];
            if open[index] {
                world.open_path(path(client, index));
            } else {
                world.close_path(path(client, index));
            }
        }
        for index in 0..4 {
            world.open_path(path(client, index));
        }
        world.run_for(2 * S);

        world.verify();
        let healthy = world.now();
        world.run_for(5 * S);
        world.stop_streams();
        world.run_for(S);
        for way in [Up, Down] {
            let later = world.ledger().of(client, way).filter(|d| d.sent_at > healthy);
            assert!(later.clone().count() >= 499);
            assert!(later.clone().all(|d| d.delivered_at.is_some()));
        }
    });
}

#[test]
fn a_client_without_any_socket_waits_without_spinning() {
    let (mut world, _, client) = tunnel(1, 2, 60 * MS);
    world.start_all();
    for index in 0..2 {
        world.close_path(path(client, index));
    }

    world.run_for(400 * S);
    let wakeups = world.client_lifetime(client).expect("it runs").wakeups;
    assert!(wakeups < 2_000, "{wakeups}");

    world.open_path(path(client, 1));
    assert!(world.run_while_not(S, |w| w.client(client).is_up()));
}

#[test]
fn a_path_without_a_socket_is_down_and_says_why() {
    let (mut world, _, client) = tunnel(1, 2, 60 * MS);
    world.start_all();
    world.run_for(S);

    world.close_path(path(client, 0));

    let id = world.client(client).paths[0].id.expect("the client lives");
    let down = ClientEvent::PathDown(id, PathDownReason::NoSocket);
    assert_eq!(count_client_events(&world, client, |e| *e == down), 1);
}

#[test]
fn a_dark_minute_costs_few_wakeups_and_few_packets() {
    let (mut world, _, client) = tunnel(1, 2, 60 * MS);
    world.start_all();
    world.stream_both_ways(client, 10, 100);
    world.run_for(5 * S);
    let before = world.client_lifetime(client).expect("it runs").wakeups;
    let swallowed =
        |world: &World| -> u64 { world.client(client).paths.iter().map(|p| p.swallowed().0).sum() };
    world.set_all_dark(client, true);

    world.run_for(60 * S);

    let wakeups = world.client_lifetime(client).expect("it runs").wakeups - before;
    // PINGs and INITs every 250 ms and less often later, and their judgements.
    assert!(wakeups < 60 * 20, "{wakeups} wake-ups");
    // Beside 600 datagrams on two paths.
    assert!(swallowed(&world) < 1_200 + 60 * 2 * 8, "{} packets", swallowed(&world));
}

#[test]
fn a_full_socket_on_one_path_does_not_delay_the_others() {
    let run = |slow: bool| {
        let paths = vec![PathSpec::rtt(100 * MS), PathSpec::rtt(120 * MS)];
        let (mut world, _, client) = tunnel_over(3, paths);
        world.start_all();
        world.run_for(S);
        world.faults(path(client, 1), Up).slow_socket = slow;
        world.stream_both_ways(client, 200, 100);
        world.run_for(10 * S);
        world.stop_streams();
        world.run_for(S);
        world.verify();
        let ledger = world.ledger();
        ledger.of(client, Up).map(|d| d.latency().expect("it arrives")).collect::<Vec<_>>()
    };
    assert_eq!(run(true), run(false));
}
