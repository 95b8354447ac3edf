// SPDX-License-Identifier: BSD-2-Clause
//! New keys take over under load without losing or repeating anything (G7).

use crate::support::*;
use mptunnel_core::proto::config::ClientConfig;
use mptunnel_core::proto::event::{ClientEvent, ServerEvent};
use mptunnel_core::sim::link::LinkConfig;
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{ClientNo, PathSpec, ServerNo, World};
use std::time::Duration;

/// A tunnel that rekeys every `interval`, over four paths of which the slowest lags 2 s behind.
fn busy_rekeying(
    seed: u64,
    interval: Duration,
    previous: usize,
    loss: f64,
) -> (World, ServerNo, ClientNo) {
    let mut world = World::new(seed);
    let server = world.add_server(move || {
        let mut config = server_config();
        config.common.previous_sessions = previous;
        config
    });
    let paths = [0, 100, 700, 2_000].map(|skew| {
        let delay = Duration::from_millis(50 + skew);
        PathSpec::both(LinkConfig { delay, loss, ..LinkConfig::default() })
    });
    let client = world.add_client(server, paths, move || {
        let mut config = client_config();
        config.common.rekey_after = interval;
        config.common.previous_sessions = previous;
        ClientConfig { attempt_gap: Duration::ZERO, ..config }
    });
    world.start_all();
    let all_proven =
        |w: &World| count_server_events(w, server, |e| matches!(e, ServerEvent::PathUp(..))) == 4;
    assert!(world.run_while_not(60 * S, all_proven));
    (world, server, client)
}

fn rekeys(world: &World, server: ServerNo) -> usize {
    count_server_events(world, server, |e| matches!(e, ServerEvent::Rekeyed(_)))
}

#[test]
fn rekeys_every_200_ms_at_10_kpps_with_2_s_of_skew_lose_nothing() {
    with_seeds("rekeys_every_200_ms_at_10_kpps_with_2_s_of_skew_lose_nothing", 1, |seed| {
        let (mut world, server, client) = busy_rekeying(seed, 200 * MS, 16, 0.0);
        let before = rekeys(&world, server);
        world.stream_both_ways(client, 10_000, 40);
        world.run_for(10 * S);
        world.stop_streams();
        world.run_for(3 * S);

        world.verify();
        let lost = world.ledger().all().iter().filter(|d| d.delivered_at.is_none()).count();
        let made = rekeys(&world, server) - before;
        println!("{made} rekeys, {} datagrams, {lost} lost", world.ledger().all().len());
        // A round trip of 100 ms comes on top.
        assert!(made >= 40, "{made}");
        assert_eq!((world.ledger().all().len() >= 200_000, lost), (true, 0));
        assert_no_loss_to_windows(&world, server, client);
    });
}

#[test]
fn with_the_default_of_four_previous_sessions_rekeys_5_s_apart_lose_nothing() {
    let test = "with_the_default_of_four_previous_sessions_rekeys_5_s_apart_lose_nothing";
    with_seeds(test, 1, |seed| {
        let (mut world, server, client) = busy_rekeying(seed, 5 * S, 4, 0.0);
        world.stream_both_ways(client, 2_000, 40);
        world.run_for(30 * S);
        world.stop_streams();
        world.run_for(3 * S);

        world.verify();
        assert!(rekeys(&world, server) >= 6);
        assert!(world.ledger().all().iter().all(|d| d.delivered_at.is_some()));
        assert_no_loss_to_windows(&world, server, client);
    });
}

#[test]
fn rekeys_on_lossy_links_lose_only_what_every_link_loses() {
    with_seeds("rekeys_on_lossy_links_lose_only_what_every_link_loses", 3, |seed| {
        let (mut world, server, client) = busy_rekeying(seed, 200 * MS, 16, 0.2);
        world.stream_both_ways(client, 2_000, 40);
        world.run_for(10 * S);
        world.stop_streams();
        world.run_for(3 * S);

        world.verify();
        assert!(rekeys(&world, server) >= 20);
        for way in [Up, Down] {
            let all = world.ledger().of(client, way);
            let arrived = all.clone().filter(|d| d.arrived_at.is_some()).count();
            let delivered = all.clone().filter(|d| d.delivered_at.is_some()).count();
            assert_eq!(arrived, delivered, "every copy that arrived could be opened");
            // 0.2^4 = 0.16 % of 20,000 = 32, σ = 5.7.
            let lost = all.count() - delivered;
            assert!((9..=55).contains(&lost), "{way:?}: {lost} lost");
        }
    });
}

/// No window forgot what the skew still needed.
fn assert_no_loss_to_windows(world: &World, server: ServerNo, client: ClientNo) {
    use mptunnel_core::proto::drop::DropReason::{AuthFailed, TooOld, UnknownIndex};
    for plane in [world.server(server).plane(), world.client(client).plane()] {
        let drops = &plane.expect("it runs").drops;
        for reason in [TooOld, AuthFailed, UnknownIndex] {
            assert_eq!(drops.of(reason), 0, "{reason:?}");
        }
    }
}

#[test]
fn while_no_handshake_passes_the_old_keys_serve_until_their_end_and_recovery_is_quick() {
    let test = "while_no_handshake_passes_the_old_keys_serve_until_their_end_and_recovery_is_quick";
    with_seeds(test, 2, |seed| {
        let (mut world, _, client) = tunnel(seed, 2, 100 * MS);
        world.start_all();
        world.run_for(S);
        let born = world.now();
        world.stream_both_ways(client, 20, 40);
        for path in world.paths_of(client) {
            world.faults(path, Down).no_handshakes = true;
        }

        world.run_for(178 * S);
        world.verify();
        assert!(world.ledger().all().iter().rev().skip(50).all(|d| d.delivered_at.is_some()));
        assert_eq!(count_client_events(&world, client, |e| *e == ClientEvent::Rekeyed), 0);
        world.run_for(30 * S);
        assert_eq!(count_client_events(&world, client, |e| *e == ClientEvent::SessionLost), 1);
        assert!(!world.client(client).is_up());
        let until = world.now().since(born).as_secs();
        let attempts = world.client(client).watch().expect("it runs").attempts();
        assert!(attempts.len() as u64 <= 2 + until / 8, "{attempts:?}");

        for path in world.paths_of(client) {
            world.faults(path, Down).no_handshakes = false;
        }
        assert!(world.run_while_not(1_250 * MS, |w| w.client(client).is_up()));
    });
}

#[test]
fn clients_do_not_rekey_in_step() {
    let mut world = World::new(1);
    let server = world.add_server(server_config);
    for _ in 0..20 {
        world.add_client(server, vec![PathSpec::rtt(40 * MS)], client_config);
    }
    world.start_all();
    world.run_for(125 * S);

    let mut times: Vec<u64> = Vec::new();
    for client in (0..20).map(ClientNo) {
        let events = &world.client(client).events;
        let rekeyed = events.iter().find(|(_, e)| *e == ClientEvent::Rekeyed);
        times.push(rekeyed.expect("it rekeyed").0.as_micros() / 1_000_000);
    }
    times.sort_unstable();
    assert!(times[0] >= 110 && times[19] <= 122, "{times:?}");
    times.dedup();
    assert!(times.len() >= 5, "{times:?}");
}
