// SPDX-License-Identifier: BSD-2-Clause
//! Either side may be restarted at any time: a tunnel in use is back within a second (G6).

use crate::support::*;
use mptunnel_core::proto::config::ClientConfig;
use mptunnel_core::proto::event::{ClientEvent, ServerEvent};
use mptunnel_core::proto::time::Time;
use mptunnel_core::proto::wire::Refusal;
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{ClientNo, Direction, Lifetime, PathSpec, ServerNo, World};
use std::time::Duration;

/// Who is restarted in a storm.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Who {
    Server,
    Client,
    Both,
}

/// From the start of a process to its first datagram each way.
#[derive(Default)]
struct Gaps {
    up: Vec<Duration>,
    down: Vec<Duration>,
    stuck: usize,
}

impl Gaps {
    fn add(&mut self, started: Time, up: Option<Time>, down: Option<Time>) {
        let (Some(up), Some(down)) = (up, down) else {
            self.stuck += 1;
            return;
        };
        self.up.push(up.since(started));
        self.down.push(down.since(started));
    }

    fn assert_gate(&mut self, what: &str, p50: Duration, p99: Duration) {
        assert_eq!(self.stuck, 0, "{what}: stuck");
        for (way, gaps) in [("up", &mut self.up), ("down", &mut self.down)] {
            let reached = [0.5, 0.99, 1.0].map(|share| quantile(gaps, share));
            println!("{what}, {way}: {} restarts, p50, p99, max {reached:?}", gaps.len());
            assert!(reached[0] < p50, "{what}, {way}: p50 {:?}", reached[0]);
            assert!(reached[1] < p99, "{what}, {way}: p99 {:?}", reached[1]);
            assert!(reached[2] < 3 * S, "{what}, {way}: max {:?}", reached[2]);
        }
    }
}

/// Kills `who` again and again under 1,000 datagrams per second each way over four bridges, half
/// of the time with a farewell.
fn storm(world: &mut World, server: ServerNo, client: ClientNo, who: Who, gaps: &mut Gaps) {
    let mut dice = world.dice("storm");
    world.start_all();
    world.stream_both_ways(client, 1_000, 60);
    world.run_for(2 * S);
    for _ in 0..20 {
        let orderly = dice.chance(0.5);
        match who {
            Who::Client if orderly => world.stop_client(client),
            Who::Server if orderly => world.stop_server(server),
            Who::Client => world.kill_client(client),
            Who::Server => world.kill_server(server),
            Who::Both => {
                world.kill_client(client);
                world.kill_server(server);
            }
        }
        world.run_for(Duration::from_millis(dice.range(0..500)));
        world.start_all();
        world.run_for(Duration::from_millis(dice.range(500..3_000)));
        // In a short round the second direction may not be back yet.
        world.run_while_not(3 * S, |w| is_back(w, server, client));
        let (server_life, client_life) = lives(world, server, client);
        match who {
            Who::Client => {
                gaps.add(client_life.started, client_life.first_out, client_life.first_in);
            }
            _ => gaps.add(server_life.started, server_life.first_in, server_life.first_out),
        }
        world.verify();
        assert_paced(world, client, S);
    }
}

fn lives(world: &World, server: ServerNo, client: ClientNo) -> (Lifetime, Lifetime) {
    let server = world.server_lifetime(server).expect("the server runs");
    (server, world.client_lifetime(client).expect("the client runs"))
}

fn is_back(world: &World, server: ServerNo, client: ClientNo) -> bool {
    let (server, client) = lives(world, server, client);
    [server.first_in, server.first_out, client.first_in, client.first_out]
        .iter()
        .all(Option::is_some)
}

/// Attempts of the client that runs now began at least `gap` apart.
fn assert_paced(world: &World, client: ClientNo, gap: Duration) {
    let attempts = world.client(client).watch().expect("the client runs").attempts();
    for pair in attempts.windows(2) {
        assert!(pair[1].since(pair[0]) >= gap, "attempts at {pair:?}");
    }
}

fn named(name: String) -> ClientConfig {
    ClientConfig { name: Some(name), ..client_config() }
}

/// When the first datagram that was sent at `start` or later was delivered, after that.
fn first_delivery(world: &World, client: ClientNo, way: Direction, start: Time) -> Duration {
    let later = world.ledger().of(client, way).filter(|d| d.sent_at >= start);
    let first = later.filter_map(|d| d.delivered_at).min();
    first.expect("something is delivered").since(start)
}

#[test]
fn a_server_killed_again_and_again_is_back_within_a_second() {
    let mut gaps = Gaps::default();
    with_seeds("a_server_killed_again_and_again_is_back_within_a_second", 5, |seed| {
        let (mut world, server, client) = tunnel(seed, 4, 100 * MS);
        storm(&mut world, server, client, Who::Server, &mut gaps);
    });
    gaps.assert_gate("server", 500 * MS, S);
}

#[test]
fn a_client_killed_again_and_again_is_back_within_a_second() {
    let mut gaps = Gaps::default();
    with_seeds("a_client_killed_again_and_again_is_back_within_a_second", 5, |seed| {
        let (mut world, server, client) = tunnel(seed, 4, 100 * MS);
        storm(&mut world, server, client, Who::Client, &mut gaps);
        // One process after the other is no conflict of names.
        let conflict = ServerEvent::Refused(Refusal::IdConflict);
        assert_eq!(count_server_events(&world, server, |e| *e == conflict), 0);
    });
    gaps.assert_gate("client", 500 * MS, S);
}

#[test]
fn both_sides_killed_again_and_again_are_back_within_a_second() {
    let mut gaps = Gaps::default();
    with_seeds("both_sides_killed_again_and_again_are_back_within_a_second", 5, |seed| {
        let (mut world, server, client) = tunnel(seed, 4, 100 * MS);
        storm(&mut world, server, client, Who::Both, &mut gaps);
    });
    gaps.assert_gate("both", 500 * MS, S);
}

#[test]
fn without_the_hint_a_restarted_server_is_found_by_suspicion() {
    let mut gaps = Gaps::default();
    with_seeds("without_the_hint_a_restarted_server_is_found_by_suspicion", 5, |seed| {
        let mut world = World::new(seed);
        let server = world.add_server(server_config);
        let paths = vec![PathSpec::rtt(100 * MS); 4];
        let client = world.add_client(server, paths, || ClientConfig {
            honour_hints: false,
            ..named("client".into())
        });
        storm(&mut world, server, client, Who::Server, &mut gaps);
    });
    gaps.assert_gate("no hint", S, 1_200 * MS);
}

#[test]
fn a_hundred_clients_return_at_once_within_a_second_of_the_servers_restart() {
    for rtt in [100 * MS, 250 * MS] {
        with_seeds(
            "a_hundred_clients_return_at_once_within_a_second_of_the_servers_restart",
            1,
            |seed| {
                let mut world = World::new(seed);
                let server = world.add_server(server_config);
                let clients: Vec<ClientNo> = (0..100)
                    .map(|n| {
                        let paths = vec![PathSpec::rtt(rtt); 4];
                        world.add_client(server, paths, move || named(format!("client {n}")))
                    })
                    .collect();
                world.start_all();
                world.run_for(2 * S);
                for client in &clients {
                    world.stream_both_ways(*client, 20, 60);
                }
                world.run_for(2 * S);

                world.kill_server(server);
                world.run_for(300 * MS);
                let start = world.now();
                world.start_server(server);
                world.run_for(3 * S);

                world.verify();
                let gaps = clients.iter().flat_map(|c| [(c, Up), (c, Down)]);
                let gaps = gaps.map(|(client, way)| first_delivery(&world, *client, way, start));
                println!("RTT {rtt:?}: all are back after {:?}", gaps.max());
                for client in clients {
                    for way in [Up, Down] {
                        let gap = first_delivery(&world, client, way, start);
                        assert!(gap < S, "{client:?} {way:?}: {gap:?} at RTT {rtt:?}");
                    }
                    assert_paced(&world, client, S);
                }
            },
        );
    }
}

#[test]
fn first_datagrams_arrive_as_early_as_the_protocol_promises() {
    let (mut world, server, client) = tunnel(1, 2, 100 * MS);
    world.start_server(server);
    world.run_for(S);
    let start = world.now();
    world.start_client(client);
    // What comes up earns three times its size, and the small ones that go down use that up: the
    // large ones do not fit beside them.
    world.stream(client, Up, 1_000, 4);
    world.stream(client, Down, 2_000, 60);
    let large = world.stream(client, Down, 1_000, 1_000);
    world.run_for(S);

    let at = |way, size| {
        let of_size = world.ledger().of(client, way).filter(|d| d.size == size);
        let sent = of_size.filter(|d| d.delivered_at.is_some()).map(|d| d.sent_at).min();
        sent.expect("something arrives").since(start)
    };
    assert_eq!(at(Up, 4), 100 * MS, "the client sends after one round trip");
    assert_eq!(at(Down, 60), 150 * MS, "the server within its credit half a one later");
    assert_eq!(at(Down, 1_000), 250 * MS, "and without limit one after that");
    assert!(world.traffic(large).sent > 0);
}

#[test]
fn a_server_that_closes_first_and_refuses_for_a_while_costs_no_more_than_a_crash() {
    with_seeds(
        "a_server_that_closes_first_and_refuses_for_a_while_costs_no_more_than_a_crash",
        3,
        |seed| {
            let (mut world, server, client) = tunnel(seed, 4, 100 * MS);
            world.start_all();
            world.stream_both_ways(client, 100, 60);
            world.run_for(3 * S);

            let now = world.server(server).local(world.now());
            world.server_mut(server).server_mut().expect("it runs").close(now);
            world.settle();
            world.run_for(2_700 * MS);
            world.stop_server(server);
            world.run_for(10 * MS);
            let start = world.now();
            world.start_server(server);
            world.run_for(2 * S);

            let refused = ClientEvent::Refused(Refusal::ShuttingDown);
            let refusals = count_client_events(&world, client, |e| *e == refused);
            assert!((4..=7).contains(&refusals), "every half second: {refusals}");
            assert_eq!(count_client_events(&world, client, |e| *e == ClientEvent::Closed), 0);
            for way in [Up, Down] {
                let gap = first_delivery(&world, client, way, start);
                assert!(gap < S, "{way:?}: {gap:?}");
            }
            assert_paced(&world, client, 500 * MS);
            world.verify();
        },
    );
}

#[test]
fn an_idle_tunnel_notices_a_restarted_server_with_its_next_probe() {
    with_seeds("an_idle_tunnel_notices_a_restarted_server_with_its_next_probe", 5, |seed| {
        let (mut world, server, client) = tunnel(seed, 2, 100 * MS);
        world.start_all();
        world.run_for(Duration::from_millis(60_000 + seed * 1_111));

        world.kill_server(server);
        world.start_server(server);

        let has_peer = |w: &World| w.server(server).peer_of(client).is_some();
        assert!(world.run_while_not(6_500 * MS, has_peer), "an idle interval and a second");
    });
}

#[test]
fn after_darkness_traffic_flows_within_a_probe_and_a_round_trip() {
    for (dark, limit) in [(5, 400), (60, 650), (150, 1_250), (200, 1_350)] {
        let test = "after_darkness_traffic_flows_within_a_probe_and_a_round_trip";
        with_seeds(test, 3, |seed| {
            let (mut world, _, client) = tunnel(seed, 4, 100 * MS);
            world.start_all();
            world.stream_both_ways(client, 20, 60);
            world.run_for(5 * S);
            world.set_all_dark(client, true);
            world.run_for(dark * S);

            let start = world.now();
            world.set_all_dark(client, false);
            world.run_for(3 * S);

            for way in [Up, Down] {
                let gap = first_delivery(&world, client, way, start);
                assert!(gap < limit * MS, "{way:?} after {dark} s: {gap:?}");
            }
            assert_paced(&world, client, S);
            world.verify();
        });
    }
}
