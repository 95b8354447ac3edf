// SPDX-License-Identifier: BSD-2-Clause
//! Datagrams of every size over paths of every width: whole, cut, or refused.

use crate::support::*;
use mptunnel_core::proto::view::SendRefused;
use mptunnel_core::sim::link::LinkConfig;
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{ClientNo, PathSpec, World};

const SIZES: [usize; 12] = [0, 1, 3, 4, 1_196, 1_200, 1_400, 1_436, 1_472, 9_000, 60_000, 65_507];

/// A tunnel over paths that carry packets of these sizes, in bytes of UDP payload.
fn over_widths(seed: u64, widths: &[usize], loss: f64) -> (World, ClientNo) {
    let paths = widths.iter().map(|width| {
        let link = LinkConfig {
            mtu: Some(*width),
            delay: 20 * MS,
            jitter: 5 * MS,
            loss,
            ..LinkConfig::default()
        };
        PathSpec { max_packet: *width, ..PathSpec::both(link) }
    });
    let (mut world, _, client) = tunnel_over(seed, paths.collect());
    world.start_all();
    world.run_for(2 * S);
    (world, client)
}

#[test]
fn every_size_arrives_once_and_whole_each_way() {
    for widths in [&[1_472][..], &[1_232], &[548], &[65_507], &[1_472, 9_000, 65_507, 548]] {
        let (mut world, client) = over_widths(1, widths, 0.0);
        for way in [Up, Down] {
            for size in SIZES {
                let number = world.send(client, way, 0, size).expect("it fits");
                world.run_for(S);
                let datagram = world.ledger().get(number);
                assert!(datagram.delivered_at.is_some(), "{size} {way:?} over {widths:?}");
            }
        }
        world.verify();
    }
}

#[test]
fn what_exceeds_udp_is_refused_and_nothing_is_sent() {
    let (mut world, client) = over_widths(1, &[1_472, 65_507], 0.0);
    for way in [Up, Down] {
        world.capture();
        let refused = world.send(client, way, 0, 65_508);
        assert_eq!(refused, Err(SendRefused::TooLarge { max: 65_507 }));
        assert!(world.captured().iter().all(|c| c.parcel.cargo.is_none()));
    }
}

#[test]
fn a_datagram_whole_on_one_path_and_cut_on_another_is_delivered_once() {
    with_seeds("a_datagram_whole_on_one_path_and_cut_on_another_is_delivered_once", 4, |seed| {
        let (mut world, client) = over_widths(seed, &[1_472, 9_000, 800], 0.3);
        let mut dice = world.dice("sizes");
        for _ in 0..1_500 {
            let size = dice.range(0..6_000) as usize;
            for way in [Up, Down] {
                // Under such loss the tunnel may be between two sessions.
                let _ = world.send(client, way, 0, size);
            }
            world.run_for(2 * MS);
        }
        world.run_for(5 * S);

        world.verify();
        let all = world.ledger().all();
        let delivered = all.iter().filter(|d| d.delivered_at.is_some()).count();
        let arrived = all.iter().filter(|d| d.arrived_at.is_some()).count();
        println!("{} sent, {arrived} arrived, {delivered} delivered", all.len());
        assert_eq!(arrived, delivered);
        assert!(delivered * 10 > all.len() * 7 && delivered < all.len());
    });
}

#[test]
fn a_path_that_turns_out_narrower_is_cut_for_as_soon_as_that_is_known() {
    let (mut world, client) = over_widths(1, &[1_472], 0.0);
    let narrow = LinkConfig { mtu: Some(1_280), delay: 20 * MS, ..LinkConfig::default() };
    world.set_link(path(client, 0), Up, narrow);
    let lost = world.send(client, Up, 0, 1_400).expect("nobody knows yet");
    world.run_for(S);
    assert!(world.ledger().get(lost).delivered_at.is_none());

    // What EMSGSIZE tells the I/O layer.
    let now = world.client(client).local(world.now());
    let host = world.client_mut(client);
    let id = host.paths[0].id.expect("it runs");
    host.client_mut().expect("it runs").set_path_mtu(now, id, 1_280);
    world.settle();

    let kept = world.send(client, Up, 0, 1_400).expect("it is cut");
    world.run_for(S);
    assert!(world.ledger().get(kept).delivered_at.is_some());
    world.verify();
}

#[test]
fn a_fresh_tunnel_answers_large_datagrams_before_its_address_is_proven() {
    let (mut world, _, client) = tunnel_over(1, vec![PathSpec::rtt(200 * MS)]);
    world.start_all();
    // INIT and RESP take 200 ms, the PING 100 more, CHALLENGE and RESPONSE again 200.
    world.run_for(205 * MS);
    let question = world.send(client, Up, 0, 9_000).expect("there is a session");
    world.run_for(110 * MS);
    assert!(world.ledger().get(question).delivered_at.is_some());

    let answer = world.send(client, Down, 0, 20_000).expect("there is a path");
    let beyond = world.send(client, Down, 0, 20_000).expect("there is a path");
    world.run_for(S);

    // Three bytes for each that came: 20,000 for 9,000, and not twice.
    assert!(world.ledger().get(answer).delivered_at.is_some());
    assert!(world.ledger().get(beyond).delivered_at.is_none());
}

#[test]
fn the_smaller_of_both_ends_limits_binds_both() {
    let mut world = World::new(1);
    let server = world.add_server(|| {
        let mut config = server_config();
        config.common.max_payload = 1_000;
        config
    });
    let client = world.add_client(server, vec![PathSpec::rtt(40 * MS)], client_config);
    world.start_all();
    world.run_for(S);
    for way in [Up, Down] {
        assert!(world.send(client, way, 0, 1_000).is_ok());
        assert_eq!(world.send(client, way, 0, 1_001), Err(SendRefused::TooLarge { max: 1_000 }));
    }
}
