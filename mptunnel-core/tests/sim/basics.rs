// SPDX-License-Identifier: BSD-2-Clause
//! A tunnel comes up, carries datagrams both ways, and goes down.

use crate::support::*;
use mptunnel_core::proto::event::{ClientEvent, ServerEvent};
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{PathSpec, World};

#[test]
fn a_tunnel_over_four_paths_delivers_every_datagram_once_each_way() {
    with_seeds("a_tunnel_over_four_paths_delivers_every_datagram_once_each_way", 4, |seed| {
        let (mut world, server, client) = tunnel(seed, 4, 100 * MS);
        world.start_all();
        world.run_for(S);
        world.stream_both_ways(client, 1_000, 200);
        world.run_for(5 * S - MS);
        world.stop_streams();
        world.run_for(S);

        world.verify();
        for way in [Up, Down] {
            assert_eq!(world.ledger().of(client, way).count(), 5_000);
            assert!(world.ledger().of(client, way).all(|d| d.delivered_at.is_some()));
        }
        let is_up = |e: &ServerEvent| matches!(e, ServerEvent::PathUp(..));
        assert_eq!(count_server_events(&world, server, is_up), 4);
        assert_eq!(count_client_events(&world, client, |e| *e == ClientEvent::SessionUp), 1);
        world.assert_drains();
    });
}

#[test]
fn the_same_seed_gives_the_same_packets_at_the_same_times() {
    let run = |seed| {
        let lossy = PathSpec::both(mptunnel_core::sim::link::LinkConfig::cellular());
        let (mut world, _, client) = tunnel_over(seed, vec![lossy; 3]);
        world.start_all();
        world.stream_both_ways(client, 200, 300);
        world.run_for(10 * S);
        world.verify();
        world.trace()
    };
    with_seeds("the_same_seed_gives_the_same_packets_at_the_same_times", 4, |seed| {
        assert_eq!(run(seed), run(seed));
        assert_ne!(run(seed), run(seed + 1_000));
    });
}

#[test]
fn nothing_happens_without_anybody() {
    let mut world = World::new(1);
    world.run_for(S);
    assert_eq!(world.trace(), World::new(2).trace());
}
