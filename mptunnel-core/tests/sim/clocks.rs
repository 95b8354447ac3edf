// SPDX-License-Identifier: BSD-2-Clause
//! What the clocks show does not matter, only that they run (G17).

use crate::support::*;
use mptunnel_core::proto::time::Time;
use mptunnel_core::sim::world::Direction::{Down, Up};
use std::time::Duration;

/// Half a minute with restarts of both sides, the server's clock and the client's showing these
/// times at each start. Returns when which datagram was sent and how long it took.
fn restarts(seed: u64, server_shows: Time, client_shows: Time) -> Vec<(Time, Option<Duration>)> {
    let (mut world, server, client) = tunnel(seed, 3, 80 * MS);
    world.set_server_clock(server, server_shows);
    world.set_client_clock(client, client_shows);
    world.start_all();
    world.stream_both_ways(client, 50, 60);
    for round in 0..6 {
        world.run_for(3 * S);
        if round % 2 == 0 {
            world.set_server_clock(server, server_shows);
        } else {
            world.set_client_clock(client, client_shows);
        }
        world.run_for(200 * MS);
        world.start_all();
    }
    world.run_for(3 * S);
    world.verify();
    world.ledger().all().iter().map(|d| (d.sent_at, d.latency())).collect()
}

#[test]
fn clocks_that_show_anything_at_all_change_nothing() {
    with_seeds("clocks_that_show_anything_at_all_change_nothing", 3, |seed| {
        let years = |n: u64| Time::from_micros(n * 365 * 86_400_000_000);
        let usual = restarts(seed, years(1), years(1));
        assert!(usual.iter().filter(|(_, latency)| latency.is_some()).count() > 1_500);
        let starts = [Time::default(), Time::from_micros(1), years(56), years(136), years(50_000)];
        for server_shows in starts {
            for client_shows in starts {
                let other = restarts(seed, server_shows, client_shows);
                assert_eq!(usual, other, "{server_shows:?} {client_shows:?}");
            }
        }
    });
}

#[test]
fn a_machine_booted_at_zero_sends_and_receives_at_once() {
    let (mut world, server, client) = tunnel(1, 1, 80 * MS);
    world.set_server_clock(server, Time::default());
    world.set_client_clock(client, Time::default());
    world.start_all();
    world.run_for(S);
    for way in [Up, Down] {
        let number = world.send(client, way, 0, 50).expect("it is up");
        world.run_for(S);
        assert!(world.ledger().get(number).delivered_at.is_some());
    }
    world.verify();
}
