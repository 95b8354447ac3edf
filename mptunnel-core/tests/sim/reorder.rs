// SPDX-License-Identifier: BSD-2-Clause
//! Order, where it was asked for: within its bound in time, flow by flow, and without loss.

use crate::support::*;
use mptunnel_core::sim::link::LinkConfig;
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{ClientNo, Datagram, Direction, PathSpec, ServerNo, World};
use std::collections::HashMap;
use std::time::Duration;

/// A tunnel over paths of these delays and losses, on which both ends let datagrams wait.
fn ordered(
    seed: u64,
    (client_waits, server_waits): (Duration, Duration),
    paths: &[(u64, f64)],
) -> (World, ServerNo, ClientNo) {
    let mut world = World::new(seed);
    let server = world.add_server(move || {
        let mut config = server_config();
        config.common.reorder = server_waits;
        config
    });
    let path = |(ms, loss): &(u64, f64)| {
        let delay = Duration::from_millis(*ms);
        PathSpec::both(LinkConfig { delay, loss: *loss, ..LinkConfig::default() })
    };
    let paths: Vec<_> = paths.iter().map(path).collect();
    let client = world.add_client(server, paths, move || {
        let mut config = client_config();
        config.common.reorder = client_waits;
        config
    });
    world.start_all();
    world.run_for(2 * S);
    (world, server, client)
}

/// How many datagrams of one direction were delivered after a later one of their flow.
fn inversions(world: &World, client: ClientNo, way: Direction) -> usize {
    let mut latest: HashMap<u16, u64> = HashMap::new();
    let mut count = 0;
    for datagram in world.ledger().of(client, way) {
        let Some(rank) = datagram.rank else { continue };
        let latest = latest.entry(datagram.flow).or_default();
        count += usize::from(rank < *latest);
        *latest = rank.max(*latest);
    }
    count
}

fn longest_wait(world: &World, client: ClientNo, way: Direction) -> Duration {
    let wait = |d: &Datagram| Some(d.delivered_at?.since(d.arrived_at?));
    world.ledger().of(client, way).filter_map(wait).max().expect("something arrived")
}

/// Sends datagrams both ways in turns over the paths, 1 ms apart.
fn stripe(world: &mut World, client: ClientNo, paths: u32, count: u32) {
    for turn in 0..count {
        for way in [Up, Down] {
            let flow = (turn / paths % 3) as u16;
            world.send_over(client, way, flow, 100, Some(1 << (turn % paths))).unwrap();
        }
        world.run_for(MS);
    }
    world.run_for(S);
}

#[test]
fn datagrams_dealt_out_over_unequal_paths_come_in_order_where_that_was_asked_for() {
    let hold = 50 * MS;
    let (mut world, server, client) = ordered(1, (Duration::ZERO, hold), &[(5, 0.0), (40, 0.0)]);
    stripe(&mut world, client, 2, 1_000);

    world.verify();
    assert_eq!(inversions(&world, client, Up), 0);
    assert!(inversions(&world, client, Down) > 300, "nobody asked the server to mark");
    // The skew, less the 5 ms by which the one before in the flow was sent earlier.
    assert_eq!(longest_wait(&world, client, Up), 30 * MS);
    assert_eq!(longest_wait(&world, client, Down), Duration::ZERO);
    let (counts, waiting) = world.server(server).order().unwrap();
    assert!(counts.held > 300, "{counts:?}");
    assert_eq!((counts.given_up, counts.late, waiting), (0, 0, 0));
}

#[test]
fn a_copy_that_comes_for_a_lost_one_takes_its_place() {
    with_seeds("a_copy_that_comes_for_a_lost_one_takes_its_place", 3, |seed| {
        let (hold, paths) = (50 * MS, [(5, 0.2), (40, 0.0)]);
        let (mut world, _, client) = ordered(seed, (hold, hold), &paths);
        world.stream_both_ways(client, 1_000, 100);
        world.run_for(2 * S);
        world.stop_streams();
        world.run_for(S);

        world.verify();
        for way in [Up, Down] {
            assert_eq!(inversions(&world, client, way), 0, "{way:?}");
            // The skew, less the millisecond by which the lost one was sent earlier.
            assert_eq!(longest_wait(&world, client, way), 34 * MS, "{way:?}");
            assert!(world.ledger().of(client, way).all(|d| d.delivered_at.is_some()));
        }
    });
}

#[test]
fn what_is_lost_holds_up_its_own_flow_only_and_no_longer_than_the_bound() {
    with_seeds("what_is_lost_holds_up_its_own_flow_only_and_no_longer_than_the_bound", 3, |seed| {
        let (mut world, _, client) = ordered(seed, (20 * MS, 20 * MS), &[(5, 0.05)]);
        stripe(&mut world, client, 1, 2_000);

        world.verify();
        for way in [Up, Down] {
            assert_eq!(longest_wait(&world, client, way), 20 * MS);
            assert_eq!(inversions(&world, client, way), 0);
            let all: Vec<&Datagram> = world.ledger().of(client, way).collect();
            let mut complete = [true; 3];
            let mut waited = 0;
            for datagram in all {
                let flow = usize::from(datagram.flow);
                let (Some(arrived), Some(delivered)) = (datagram.arrived_at, datagram.delivered_at)
                else {
                    complete[flow] = false;
                    continue;
                };
                if delivered > arrived {
                    assert!(!complete[flow], "only a gap in the own flow is a reason to wait");
                    waited += 1;
                } else {
                    complete[flow] = true;
                }
            }
            assert!(waited > 50, "{waited}");
        }
    });
}

#[test]
fn pieces_and_whole_datagrams_share_one_order() {
    let mut world = World::new(1);
    let server = world.add_server(|| {
        let mut config = server_config();
        config.common.reorder = 50 * MS;
        config
    });
    let narrow = LinkConfig { delay: 40 * MS, mtu: Some(700), ..LinkConfig::default() };
    let wide = LinkConfig { delay: 5 * MS, loss: 0.2, ..LinkConfig::default() };
    let paths = [
        PathSpec { max_packet: 700, ..PathSpec::both(narrow) },
        PathSpec { max_packet: 1_472, ..PathSpec::both(wide) },
    ];
    let client = world.add_client(server, paths, client_config);
    world.start_all();
    world.run_for(2 * S);
    world.stream(client, Up, 500, 1_300);
    world.run_for(2 * S);
    world.stop_streams();
    world.run_for(S);

    world.verify();
    assert_eq!(inversions(&world, client, Up), 0);
    assert!(world.ledger().of(client, Up).all(|d| d.delivered_at.is_some()));
    let (counts, _) = world.server(server).order().unwrap();
    assert!(counts.held > 50 && counts.given_up == 0, "{counts:?}");
}

#[test]
fn new_keys_and_a_restarted_client_lose_nothing_that_waits() {
    with_seeds("new_keys_and_a_restarted_client_lose_nothing_that_waits", 3, |seed| {
        let mut world = World::new(seed);
        let server = world.add_server(|| {
            let mut config = server_config();
            config.common.reorder = 100 * MS;
            config
        });
        let path = |ms| {
            let delay = Duration::from_millis(ms);
            PathSpec::both(LinkConfig { delay, loss: 0.1, ..LinkConfig::default() })
        };
        let client = world.add_client(server, [path(5), path(40)], || {
            let mut config = client_config();
            config.name = Some("client".into());
            config.common.rekey_after = S;
            config
        });
        world.start_all();
        world.run_for(2 * S);
        world.stream_both_ways(client, 500, 100);
        for _ in 0..3 {
            world.run_for(3 * S);
            world.kill_client(client);
            world.run_for(100 * MS);
            world.start_client(client);
        }
        world.run_for(3 * S);
        world.stop_streams();
        world.run_for(S);

        world.verify();
        assert!(longest_wait(&world, client, Up) <= 100 * MS);
        let (counts, waiting) = world.server(server).order().unwrap();
        assert!(counts.held > 500 && waiting == 0, "{counts:?}");
    });
}
