// SPDX-License-Identifier: BSD-2-Clause
//! The end of a tunnel, said by either side, while packets are still on slow paths.

use crate::support::*;
use mptunnel_core::proto::config::ClientConfig;
use mptunnel_core::proto::event::{ClientEvent, PeerGoneReason, ServerEvent};
use mptunnel_core::sim::world::Direction::{self, Down, Up};
use mptunnel_core::sim::world::{ClientNo, PathSpec, ServerNo, World};

/// A fast and a slow path, both proven, the slow one a second behind.
fn fast_and_slow(seed: u64) -> (World, ServerNo, ClientNo) {
    let paths = [40, 2_000].map(|rtt| PathSpec::rtt(rtt * MS));
    let (mut world, server, client) = tunnel_over(seed, paths.into());
    world.start_all();
    world.run_for(6 * S);
    (world, server, client)
}

/// Sends a datagram of which only the slow copy survives.
fn send_slowly(world: &mut World, client: ClientNo, way: Direction) -> u32 {
    world.faults(path(client, 0), way).grey = true;
    let number = world.send(client, way, 0, 60).expect("it is up");
    world.faults(path(client, 0), way).grey = false;
    number
}

fn is_gone(event: &ServerEvent, why: PeerGoneReason) -> bool {
    matches!(event, ServerEvent::PeerGone(_, reason) if *reason == why)
}

#[test]
fn a_client_that_leaves_is_gone_once_its_late_packets_had_their_time() {
    let (mut world, server, client) = fast_and_slow(1);
    let number = send_slowly(&mut world, client, Up);

    world.stop_client(client);
    world.run_for(500 * MS);

    let gone = |e: &ServerEvent| is_gone(e, PeerGoneReason::Closed);
    assert!(world.ledger().get(number).delivered_at.is_none());
    world.run_for(S);
    assert!(world.ledger().get(number).delivered_at.is_some(), "CLOSE overtook it");
    assert_eq!(count_server_events(&world, server, gone), 0, "nothing comes after the news");
    world.run_for(S + 500 * MS);
    assert_eq!(count_server_events(&world, server, gone), 1);
    world.run_for(5 * S);
    assert!(world.server(server).plane().expect("it runs").is_empty());
    world.verify();
}

#[test]
fn a_client_that_is_dismissed_is_told_and_still_gets_what_was_on_its_way() {
    let (mut world, server, client) = fast_and_slow(1);
    let number = send_slowly(&mut world, client, Down);

    world.dismiss(client);
    world.run_for(500 * MS);

    let closed = |e: &ClientEvent| *e == ClientEvent::Closed;
    assert!(world.send(client, Up, 0, 10).is_err(), "nothing more is sent");
    assert!(world.ledger().get(number).delivered_at.is_none());
    world.run_for(S);
    assert!(world.ledger().get(number).delivered_at.is_some(), "CLOSE overtook it");
    assert_eq!(count_client_events(&world, client, closed), 0, "nothing comes after the news");
    world.run_for(S + 500 * MS);
    assert_eq!(count_client_events(&world, client, closed), 1);
    world.run_for(60 * S);
    assert_eq!(world.server(server).server().expect("it runs").peers().count(), 0);
    assert!(world.client(client).plane().expect("it runs").is_empty());
    assert_eq!(world.client(client).client().and_then(|c| c.poll_timeout()), None);
    world.verify();
}

#[test]
fn a_client_that_is_dismissed_amid_a_rekey_stays_dismissed() {
    for after_ms in 0..60 {
        let mut world = World::new(1);
        let server = world.add_server(server_config);
        let client = world.add_client(server, vec![PathSpec::rtt(40 * MS); 2], || {
            let mut config = client_config();
            config.common.rekey_after = 5 * S;
            config
        });
        world.start_all();
        let begun = |w: &World| w.client(client).watch().is_some_and(|w| w.attempts().len() == 2);
        assert!(world.run_while_not(10 * S, begun));
        world.run_for(after_ms * MS);

        world.dismiss(client);
        world.run_for(30 * S);

        let closed = count_client_events(&world, client, |e| *e == ClientEvent::Closed);
        assert_eq!(closed, 1, "{after_ms} ms into the rekey");
        let peers = world.server(server).server().expect("it runs").peers().count();
        assert_eq!(peers, 0, "{after_ms} ms into the rekey");
    }
}

#[test]
fn a_late_farewell_of_an_earlier_process_does_not_end_the_new_session() {
    let (mut world, server, client) = fast_and_slow(1);
    // Only the slow path carries the farewell.
    world.faults(path(client, 0), Up).dark = true;
    world.stop_client(client);
    world.faults(path(client, 0), Up).dark = false;
    world.start_client(client);
    world.run_for(500 * MS);
    world.stream_both_ways(client, 50, 60);
    world.run_for(5 * S);
    world.stop_streams();
    world.run_for(2 * S);

    let gone = |e: &ServerEvent| matches!(e, ServerEvent::PeerGone(..));
    assert_eq!(count_server_events(&world, server, gone), 0);
    assert!(world.ledger().all().iter().all(|d| d.delivered_at.is_some()));
    world.verify();
}

#[test]
fn a_client_whose_farewell_is_lost_is_forgotten_after_three_minutes() {
    let (mut world, server, client) = fast_and_slow(1);
    world.set_all_dark(client, true);
    world.stop_client(client);
    world.run_for(175 * S);
    let gone = |e: &ServerEvent| is_gone(e, PeerGoneReason::TimedOut);
    assert_eq!(count_server_events(&world, server, gone), 0);
    world.run_for(10 * S);
    assert_eq!(count_server_events(&world, server, gone), 1);
    assert!(world.server(server).plane().expect("it runs").is_empty());
}

#[test]
fn a_client_that_is_closed_locally_stops_at_once() {
    let mut world = World::new(1);
    let server = world.add_server(server_config);
    let client = world.add_client(server, vec![PathSpec::rtt(40 * MS)], || ClientConfig {
        name: Some("x".into()),
        ..client_config()
    });
    world.start_all();
    world.run_for(S);
    world.client_mut(client).client_mut().expect("it runs").close();
    world.settle();
    world.capture();

    world.run_for(10 * S);

    let sent = world.captured().iter().filter(|c| c.direction == Up).count();
    assert_eq!(sent, 0);
    assert_eq!(world.client(client).client().and_then(|c| c.poll_timeout()), None);
}
