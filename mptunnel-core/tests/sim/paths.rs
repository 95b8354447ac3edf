// SPDX-License-Identifier: BSD-2-Clause
//! Paths that die, flap, stand by, are added and removed.

use crate::support::*;
use mptunnel_core::proto::client::PathSettings;
use mptunnel_core::proto::config::ServerConfig;
use mptunnel_core::proto::event::{ClientEvent, PathDownReason};
use mptunnel_core::sim::link::LinkConfig;
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{ClientNo, PathSpec, ServerNo, World};
use std::time::Duration;

fn paths_up(world: &World, client: ClientNo) -> usize {
    world.client(client).client().expect("it runs").paths().filter(|p| p.up).count()
}

/// Packets that went into a path's link towards the server.
fn sent_up(world: &World, client: ClientNo, index: usize) -> u64 {
    let net = &world.client(client).paths[index];
    net.counters().0.sent + net.swallowed().0
}

#[test]
fn a_tunnel_comes_up_exactly_if_one_of_its_paths_lives() {
    for dead in 0..16u32 {
        let (mut world, _, client) = tunnel(1, 4, 60 * MS);
        for index in 0..4 {
            world.set_dark(path(client, index), dead & (1 << index) != 0);
        }
        world.start_all();
        world.run_for(2 * S);
        assert_eq!(world.client(client).is_up(), dead != 15, "dead: {dead:04b}");
        assert_eq!(paths_up(&world, client), 4 - dead.count_ones() as usize);

        world.set_all_dark(client, false);
        assert!(world.run_while_not(10 * S, |w| paths_up(w, client) == 4), "all revive");
    }
}

#[test]
fn a_path_that_flaps_a_hundred_times_is_up_again_within_two_seconds_each_time() {
    let (mut world, _, client) = tunnel(1, 2, 60 * MS);
    world.start_all();
    world.stream_both_ways(client, 20, 60);
    world.run_for(2 * S);
    let mut dice = world.dice("flaps");
    for flap in 0..100 {
        world.set_dark(path(client, 1), true);
        // Longer and shorter than it takes to notice, and than it takes to make a new socket.
        world.run_for(Duration::from_millis(dice.range(100..15_000)));
        world.set_dark(path(client, 1), false);
        // What the I/O layer does when a link comes back.
        world.open_path(path(client, 1));
        assert!(world.run_while_not(2 * S, |w| paths_up(w, client) == 2), "flap {flap}");
    }
    world.verify();
}

#[test]
fn a_dead_path_is_noticed_within_a_second_and_a_half_and_revives_by_itself() {
    let (mut world, _, client) = tunnel(1, 2, 60 * MS);
    world.start_all();
    world.stream_both_ways(client, 20, 60);
    world.run_for(2 * S);
    let id = world.client(client).paths[1].id.expect("it runs");
    let down = ClientEvent::PathDown(id, PathDownReason::NoAnswer);
    for (dark, revives_within) in [(5, 1), (30, 1), (300, 2)] {
        let before = count_client_events(&world, client, |e| *e == down);
        world.set_dark(path(client, 1), true);
        let noticed = |w: &World| count_client_events(w, client, |e| *e == down) > before;
        assert!(world.run_while_not(1_500 * MS, noticed));
        world.run_for(dark * S);

        world.set_dark(path(client, 1), false);
        assert!(world.run_while_not(revives_within * S, |w| paths_up(w, client) == 2), "{dark}");
    }
    // It was never news that the other path works.
    let up = |e: &ClientEvent| matches!(e, ClientEvent::PathUp(path) if *path != id);
    assert_eq!(count_client_events(&world, client, up), 1);
    world.verify();
}

#[test]
fn a_dead_path_gets_copies_for_half_a_minute_and_then_few_probes() {
    let (mut world, _, client) = tunnel(1, 2, 60 * MS);
    world.start_all();
    world.stream(client, Up, 50, 60);
    world.run_for(2 * S);
    world.set_dark(path(client, 1), true);
    let during = |world: &mut World, seconds: u32| {
        let before = sent_up(world, client, 1);
        world.run_for(seconds * S);
        (sent_up(world, client, 1) - before) as f64 / f64::from(seconds)
    };
    assert!(during(&mut world, 28) > 50.0, "copies and probes");
    world.run_for(5 * S);
    let probes = during(&mut world, 20);
    assert!((1.8..2.5).contains(&probes), "{probes} per second");
    world.run_for(60 * S);
    let probes = during(&mut world, 60);
    assert!((0.9..1.3).contains(&probes), "{probes} per second");
    world.stop_streams();
    world.run_for(60 * S);
    let probes = during(&mut world, 60);
    assert!((0.1..0.5).contains(&probes), "{probes} per second on an idle tunnel");
    world.verify();
}

fn with_backup(seed: u64) -> (World, ServerNo, ClientNo) {
    let active = PathSpec::rtt(60 * MS);
    let settings = PathSettings { backup: true, ..PathSettings::default() };
    let backup = PathSpec { settings, ..PathSpec::rtt(60 * MS) };
    tunnel_over(seed, vec![active, backup])
}

#[test]
fn a_backup_path_carries_probes_and_the_sample_only_until_the_other_one_dies() {
    let (mut world, _, client) = with_backup(1);
    world.start_all();
    world.run_for(2 * S);
    world.capture();
    world.stream_both_ways(client, 100, 60);
    world.run_for(5 * S);
    let on_backup =
        |c: &&mptunnel_core::sim::world::Captured| c.path.index == 1 && c.parcel.cargo.is_some();
    // One datagram in 64 of 500 each way.
    let sample = world.captured().iter().filter(on_backup).count();
    assert!((14..=18).contains(&sample), "{sample}");

    let sent = world.ledger().all().len();
    world.set_dark(path(client, 0), true);
    let died = world.now();
    let takes_over = |w: &World| {
        let later = &w.ledger().all()[sent..];
        [Up, Down]
            .iter()
            .all(|way| later.iter().any(|d| d.direction == *way && d.delivered_at.is_some()))
    };
    // The server calls a path silent after 3 s.
    assert!(world.run_while_not(4 * S, takes_over));
    println!("taken over after {:?}", world.now().since(died));

    world.set_dark(path(client, 0), false);
    world.run_for(3 * S);
    world.captured();
    world.run_for(3 * S);
    let sample = world.captured().iter().filter(on_backup).count();
    assert!(sample <= 18, "stands by again: {sample}");
    world.verify();
}

#[test]
fn paths_can_be_removed_and_added_again_and_again_under_load() {
    with_seeds("paths_can_be_removed_and_added_again_and_again_under_load", 2, |seed| {
        let (mut world, server, client) = tunnel(seed, 3, 60 * MS);
        world.start_all();
        world.run_for(S);
        world.stream_both_ways(client, 100, 60);
        for round in 0..60 {
            let victim = path(client, round % 3);
            world.remove_path(victim);
            world.run_for(700 * MS);
            world.readd_path(victim);
            let all_up = |w: &World| paths_up(w, client) == 3;
            assert!(world.run_while_not(S, all_up), "round {round}: the new path comes up");
        }
        world.stop_streams();
        world.run_for(S);

        world.verify();
        assert!(world.ledger().all().iter().all(|d| d.delivered_at.is_some()));
        let peer = world.server(server).peer_of(client).expect("it is known");
        let machine = world.server(server).server().expect("it runs");
        assert_eq!(machine.peer(peer).expect("it is here").slots().count(), 3);
    });
}

/// Copies of one INIT that come at very different times make one session, or one that nobody uses.
#[test]
fn inits_that_come_seconds_and_minutes_late_displace_nothing() {
    let paths = [60, 4_000, 12_000, 50_000, 90_000].map(|ms| {
        let up = LinkConfig { delay: ms / 2 * MS, ..LinkConfig::default() };
        let down = LinkConfig { delay: 30 * MS, ..LinkConfig::default() };
        PathSpec { up, down, ..PathSpec::rtt(S) }
    });
    let (mut world, server, client) = tunnel_over(1, paths.into());
    world.start_all();
    world.stream_both_ways(client, 20, 60);
    for _ in 0..80 {
        world.run_for(S);
        world.verify();
        let machine = world.server(server).server().expect("it runs");
        assert_eq!(machine.peers().count(), 1);
    }
    world.stop_streams();
    world.run_for(60 * S);
    let is = |wanted: ClientEvent| count_client_events(&world, client, |e| *e == wanted);
    assert_eq!((is(ClientEvent::SessionUp), is(ClientEvent::SessionLost)), (1, 0));
    world.assert_drains();
}

fn always_under_load() -> ServerConfig {
    ServerConfig { load_threshold: 0, ..server_config() }
}

#[test]
fn a_server_under_load_for_ever_is_reached_over_every_path_with_its_own_cookie() {
    let mut world = World::new(1);
    let server = world.add_server(always_under_load);
    let paths = [60, 80, 200, 400].map(|rtt| PathSpec::rtt(rtt * MS));
    let client = world.add_client(server, paths, client_config);
    world.start_all();
    let start = world.now();
    assert!(world.run_while_not(S, |w| w.client(client).is_up()));
    assert!(world.now().since(start) <= 125 * MS, "two round trips");
    world.stream_both_ways(client, 50, 60);

    // Several secrets of the server, several rekeys, two restarts.
    world.run_for(400 * S);
    world.verify();
    assert_eq!(count_client_events(&world, client, |e| *e == ClientEvent::SessionLost), 0);
    let rekeyed = count_client_events(&world, client, |e| *e == ClientEvent::Rekeyed);
    assert!((3..=4).contains(&rekeyed), "{rekeyed}");
    for _ in 0..2 {
        world.kill_server(server);
        world.start_server(server);
        let sent = world.ledger().all().len();
        let back = |w: &World| w.ledger().all()[sent..].iter().any(|d| d.delivered_at.is_some());
        assert!(world.run_while_not(S, back), "also with a cookie of the old server");
        world.run_for(10 * S);
    }
    world.verify();
}

#[test]
fn a_server_under_load_is_reached_over_lossy_paths() {
    with_seeds("a_server_under_load_is_reached_over_lossy_paths", 20, |seed| {
        let mut world = World::new(seed);
        let server = world.add_server(always_under_load);
        let lossy = LinkConfig { loss: 0.3, delay: 30 * MS, ..LinkConfig::default() };
        let client = world.add_client(server, vec![PathSpec::both(lossy); 2], client_config);
        world.start_all();
        assert!(world.run_while_not(5 * S, |w| w.client(client).is_up()));
    });
}
