// SPDX-License-Identifier: BSD-2-Clause
//! How large packets may be is found out by asking, without a word from any router.

use crate::support::*;
use mptunnel_core::proto::client::{PathSettings, PathState};
use mptunnel_core::sim::link::LinkConfig;
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{ClientNo, Direction, PathSpec, ServerNo, World};
use std::time::Duration;

/// The size that is safe without asking, in bytes of UDP payload.
const SAFE: usize = 1_232;

fn link(mtu: usize, loss: f64) -> LinkConfig {
    LinkConfig { delay: 20 * MS, mtu: Some(mtu), loss, ..LinkConfig::default() }
}

/// A tunnel over one path, whose interfaces take 1,472 bytes, and the links what is given.
fn over(seed: u64, up: LinkConfig, down: LinkConfig) -> (World, ServerNo, ClientNo) {
    let spec = PathSpec { up, down, ..PathSpec::rtt(40 * MS) };
    let (mut world, server, client) = tunnel_over(seed, vec![spec]);
    world.start_all();
    assert!(world.run_while_not(5 * S, |w| size(w, server, client, Up) > 0));
    (world, server, client)
}

/// What one end sends at most on the path.
fn size(world: &World, server: ServerNo, client: ClientNo, way: Direction) -> usize {
    match way {
        Up => {
            let machine = world.client(client).client().expect("it runs");
            match machine.paths().next().expect("it has a path").state {
                PathState::Open { max_packet, .. } if machine.session().is_some() => max_packet,
                _ => 0,
            }
        }
        Down => {
            let host = world.server(server);
            let peer = host.peer_of(client).and_then(|id| host.server()?.peer(id));
            peer.and_then(|peer| peer.slots().next()).map_or(0, |slot| slot.pmtu.size())
        }
    }
}

fn sizes(world: &World, server: ServerNo, client: ClientNo) -> (usize, usize) {
    (size(world, server, client, Up), size(world, server, client, Down))
}

/// Datagrams sent from `since` on that were lost.
fn lost_since(world: &World, since: usize) -> usize {
    world.ledger().all()[since..].iter().filter(|d| d.delivered_at.is_none()).count()
}

#[test]
fn what_the_interface_takes_is_used_after_one_round_trip_and_nothing_is_lost_before() {
    let (mut world, server, client) = over(1, link(1_472, 0.0), link(1_472, 0.0));
    assert_eq!(size(&world, server, client, Up), SAFE);
    world.stream_both_ways(client, 200, 1_400);
    world.run_for(200 * MS);
    assert_eq!(sizes(&world, server, client), (1_472, 1_472));

    world.stop_streams();
    world.run_for(S);
    world.verify();
    // The server may answer only when the client's address is known.
    assert!(world.ledger().of(client, Up).all(|d| d.delivered_at.is_some()));
}

#[test]
fn a_narrower_link_that_says_nothing_is_found_out_each_way_within_a_few_bytes() {
    for (up, down) in [(1_400, 1_300), (1_250, 1_464), (1_460, 1_240)] {
        let (mut world, server, client) = over(1, link(up, 0.0), link(down, 0.0));
        world.run_for(200 * MS);
        let since = world.ledger().all().len();
        world.stream_both_ways(client, 200, 1_400);
        world.run_for(15 * S);
        world.stop_streams();
        world.run_for(S);

        let found = sizes(&world, server, client);
        assert!((up - 8..=up).contains(&found.0), "{found:?} of {up}, {down}");
        assert!((down - 8..=down).contains(&found.1), "{found:?} of {up}, {down}");
        assert_eq!(lost_since(&world, since), 0, "datagrams are cut until then");
        world.verify();
    }
}

#[test]
fn not_even_the_safe_size_is_taken_for_granted() {
    let (mut world, server, client) = over(1, link(1_000, 0.0), link(1_000, 0.0));
    world.stream_both_ways(client, 100, 1_400);
    world.run_for(20 * S);
    let since = world.ledger().all().len();
    world.run_for(5 * S);
    world.stop_streams();
    world.run_for(S);

    let found = sizes(&world, server, client);
    assert!((992..=1_000).contains(&found.0) && (992..=1_000).contains(&found.1), "{found:?}");
    assert_eq!(lost_since(&world, since), 0);
}

#[test]
fn a_link_that_becomes_narrower_is_noticed_within_three_seconds() {
    with_seeds("a_link_that_becomes_narrower_is_noticed_within_three_seconds", 5, |seed| {
        let (mut world, server, client) = over(seed, link(1_472, 0.0), link(1_472, 0.0));
        world.stream_both_ways(client, 200, 1_400);
        world.run_for(7 * S);
        for way in [Up, Down] {
            world.set_link(path(client, 0), way, link(1_350, 0.0));
        }
        let is_small = |w: &World| sizes(w, server, client) == (SAFE, SAFE);
        let start = world.now();
        assert!(world.run_while_not(4 * S, |w| size(w, server, client, Up) == SAFE));
        assert!(world.now().since(start) <= 3 * S, "{:?}", world.now().since(start));
        assert!(world.run_while_not(S, |w| is_small(w) || size(w, server, client, Down) < 1_472));
        let since = world.ledger().all().len();
        world.run_for(15 * S);
        world.stop_streams();
        world.run_for(S);

        let found = sizes(&world, server, client);
        assert!((1_342..=1_350).contains(&found.0), "{found:?}");
        assert!((1_342..=1_350).contains(&found.1), "{found:?}");
        assert_eq!(lost_since(&world, since), 0);
    });
}

#[test]
fn a_link_that_becomes_wider_is_used_after_two_minutes_of_data() {
    let (mut world, server, client) = over(1, link(1_350, 0.0), link(1_350, 0.0));
    world.stream_both_ways(client, 20, 1_400);
    world.run_for(15 * S);
    assert!(size(&world, server, client, Up) <= 1_350);

    for way in [Up, Down] {
        world.set_link(path(client, 0), way, link(1_472, 0.0));
    }
    let wide = |w: &World| sizes(w, server, client) == (1_472, 1_472);
    assert!(world.run_while_not(130 * S, wide), "{:?}", sizes(&world, server, client));
}

#[test]
fn loss_and_jitter_are_no_reason_for_smaller_packets() {
    with_seeds("loss_and_jitter_are_no_reason_for_smaller_packets", 4, |seed| {
        let bad = LinkConfig { jitter: 10 * MS, ..link(1_472, 0.2) };
        let (mut world, server, client) = over(seed, bad.clone(), bad);
        world.stream_both_ways(client, 100, 1_400);
        let wide = |w: &World| sizes(w, server, client) == (1_472, 1_472);
        assert!(world.run_while_not(5 * S, wide), "{:?}", sizes(&world, server, client));
        for _ in 0..600 {
            world.run_for(100 * MS);
            assert_eq!(sizes(&world, server, client), (1_472, 1_472));
        }
    });
}

#[test]
fn a_path_that_is_dark_for_a_while_keeps_its_size() {
    let (mut world, server, client) = over(1, link(1_472, 0.0), link(1_472, 0.0));
    world.stream_both_ways(client, 100, 1_400);
    world.run_for(3 * S);
    for way in [Up, Down] {
        world.set_link(path(client, 0), way, LinkConfig { down: true, ..link(1_472, 0.0) });
    }
    world.run_for(5 * S);
    for way in [Up, Down] {
        world.set_link(path(client, 0), way, link(1_472, 0.0));
    }
    world.run_for(5 * S);
    assert_eq!(sizes(&world, server, client), (1_472, 1_472));
}

#[test]
fn a_size_that_the_user_names_is_used_at_once_and_nothing_is_probed() {
    let settings = PathSettings { fixed_size: true, ..PathSettings::default() };
    let spec = PathSpec { settings, max_packet: 1_400, ..PathSpec::rtt(40 * MS) };
    let (mut world, server, client) = tunnel_over(1, vec![spec]);
    world.capture();
    world.start_all();
    world.run_for(100 * MS);
    assert_eq!(size(&world, server, client, Up), 1_400);
    world.stream(client, Up, 100, 1_000);
    world.run_for(20 * S);

    let ctrl = |c: &mptunnel_core::sim::world::Captured| c.parcel.bytes()[0] == 6;
    let captured = world.captured();
    let longest = captured.iter().filter(|c| c.direction == Up && ctrl(c));
    assert_eq!(longest.map(|c| c.parcel.bytes().len()).max(), Some(116));
}

#[test]
fn an_idle_path_is_not_probed_for_its_size() {
    let (mut world, _, client) = over(1, link(1_400, 0.0), link(1_400, 0.0));
    world.run_for(30 * S);
    world.capture();
    world.run_for(Duration::from_secs(300));

    let captured = world.captured();
    assert!(captured.len() > 100);
    assert!(captured.iter().all(|c| c.parcel.bytes().len() <= 160));
    let _ = client;
}
