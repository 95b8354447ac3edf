// SPDX-License-Identifier: BSD-2-Clause
//! A path with a rate: packets wait at its near end, not for long, and nobody waits for them.

mod sim;

use mptunnel_core::proto::client::PathSettings;
use mptunnel_core::sim::link::LinkConfig;
use mptunnel_core::sim::world::Direction::Up;
use mptunnel_core::sim::world::{ClientNo, PathSpec, World};
use sim::*;
use std::num::NonZeroU64;
use std::time::Duration;

/// Bytes per second of the slow link: 1 Mbit/s.
const SLOW: u64 = 125_000;

/// A link of 1 Mbit/s with 20 ms of delay and room for eight seconds, on a path that says so or
/// does not.
fn slow(rate: Option<u64>) -> PathSpec {
    let up = LinkConfig {
        delay: 20 * MS,
        rate: NonZeroU64::new(SLOW),
        buffer: 1_000_000,
        ..LinkConfig::default()
    };
    let settings = PathSettings { rate, ..PathSettings::default() };
    PathSpec { up, settings, ..PathSpec::rtt(40 * MS) }
}

/// A tunnel over these paths, up and with all sizes found out.
fn over(paths: Vec<PathSpec>) -> (World, ClientNo) {
    let (mut world, _, client) = tunnel_over(1, paths);
    world.start_all();
    world.run_for(2 * S);
    (world, client)
}

/// Delivered datagrams, and the longest way.
fn delivered(world: &World, client: ClientNo) -> (usize, Duration) {
    let latencies = world.ledger().of(client, Up).filter_map(|d| d.latency());
    let latencies: Vec<_> = latencies.collect();
    (latencies.len(), latencies.into_iter().max().expect("something arrived"))
}

/// Copies that a path did not take.
fn dropped(world: &World, client: ClientNo, index: usize) -> u64 {
    let machine = world.client(client).client().expect("it runs");
    let path = machine.paths().nth(index).expect("it is there");
    machine.path_counts(path).tx_dropped
}

#[test]
fn twice_what_a_link_carries_fills_it_and_not_its_buffer() {
    let mut results = Vec::new();
    for rate in [None, Some(SLOW)] {
        let (mut world, client) = over(vec![slow(rate)]);
        // 250 packets a second of 1,000 bytes, 1,028 with headers, where 121 pass.
        world.stream(client, Up, 250, 964);
        world.run_for(5 * S);
        world.stop_streams();
        let sent = world.ledger().of(client, Up).count();
        world.run_for(10 * S);
        world.verify();

        let (count, longest) = delivered(&world, client);
        assert_eq!(sent as u64, count as u64 + dropped(&world, client, 0), "{rate:?}");
        results.push((count, longest));
    }
    let [(_, unpaced), (count, paced)] = results[..] else { unreachable!() };
    assert!(unpaced > 2 * S, "{unpaced:?}");
    // 20 ms on the way, 8 ms through the link, 50 ms of waiting, 12 ms that the bucket lets go at
    // once, and a probe of the path's size that goes ahead of all.
    assert!(paced <= 102 * MS, "{paced:?}");
    assert!((595..=620).contains(&count), "{count} in five seconds");
}

#[test]
fn a_slow_path_delays_and_costs_nothing_beside_a_fast_one() {
    let (mut world, client) = over(vec![slow(Some(SLOW)), PathSpec::rtt(10 * MS)]);
    world.stream(client, Up, 1_000, 964);
    world.run_for(3 * S);
    world.stop_streams();
    world.run_for(S);

    world.verify();
    assert!(world.ledger().of(client, Up).all(|d| d.latency() == Some(5 * MS)));
    let lost = dropped(&world, client, 0);
    assert!((2_600..=2_680).contains(&lost), "{lost} copies");
    assert_eq!(dropped(&world, client, 1), 0);
}

#[test]
fn pieces_of_a_datagram_are_taken_together_or_not_at_all() {
    let (mut world, client) = over(vec![slow(Some(SLOW))]);
    for _ in 0..20 {
        // Three pieces: 34 ms of the link.
        world.send(client, Up, 0, 4_000).expect("there is a path");
        world.run_for(20 * MS);
    }
    world.run_for(3 * S);

    world.verify();
    let (count, longest) = delivered(&world, client);
    // 400 ms at 34 ms each, and what waited at the end.
    assert!((12..=15).contains(&count) && longest < 180 * MS, "{count} within {longest:?}");

    let large = world.send(client, Up, 0, 60_000).expect("there is a path");
    world.run_for(3 * S);
    assert!(world.ledger().get(large).delivered_at.is_some(), "half a second of the link");
}

#[test]
fn a_rate_may_change_and_an_idle_path_needs_no_timer() {
    let (mut world, client) = over(vec![slow(Some(SLOW / 10))]);
    world.stream(client, Up, 100, 964);
    world.run_for(2 * S);
    let before = delivered(&world, client).0;
    let now = world.client(client).local(world.now());
    let host = world.client_mut(client);
    let id = host.paths[0].id.expect("it runs");
    let settings = PathSettings { rate: Some(SLOW), ..PathSettings::default() };
    assert!(host.client_mut().expect("it runs").set_path(now, id, settings));
    world.settle();
    world.run_for(2 * S);
    world.stop_streams();
    world.run_for(S);
    let after = delivered(&world, client).0 - before;
    assert!((15..=30).contains(&before) && (185..=210).contains(&after), "{before}, {after}");

    world.run_for(30 * S);
    let wakeups = world.client_lifetime(client).expect("it runs").wakeups;
    world.run_for(60 * S);
    let wakeups = world.client_lifetime(client).expect("it runs").wakeups - wakeups;
    assert!(wakeups < 60, "{wakeups} wake-ups in a minute");
}
