// SPDX-License-Identifier: BSD-2-Clause
//! Everything at once, at random: whatever happened, the invariants hold, nothing that arrived is
//! lost, and traffic flows again when it is over.

use crate::support::*;
use mptunnel_core::proto::client::PathSettings;
use mptunnel_core::proto::config::{ClientConfig, ClientKeys, ServerConfig, ServerKey};
use mptunnel_core::proto::crypto::StaticSecret;
use mptunnel_core::proto::time::Time;
use mptunnel_core::sim::link::{Burst, LinkConfig};
use mptunnel_core::sim::rng::Rng;
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{ClientNo, Datagram, PathNo, PathSpec, ServerNo, World};
use std::collections::HashMap;
use std::time::Duration;

fn any_link(dice: &mut Rng) -> LinkConfig {
    let ms = |dice: &mut Rng, most| Duration::from_millis(dice.range(0..most));
    let share = |dice: &mut Rng, most: f64| if dice.chance(0.5) { dice.f64() * most } else { 0.0 };
    let burst = Burst::gaps(0.02 * dice.f64(), 0.02 + dice.f64() * 0.5);
    LinkConfig {
        loss: share(dice, 0.3),
        fades: None,
        burst: Some(burst).filter(|_| dice.chance(0.3)),
        delay: ms(dice, 300),
        jitter: ms(dice, 50),
        in_order: dice.chance(0.5),
        reorder: share(dice, 0.2),
        reorder_delay: ms(dice, 1_000),
        duplicate: share(dice, 0.3),
        copies: dice.range(1..4) as u32,
        corrupt: share(dice, 0.1),
        rate: std::num::NonZeroU64::new(dice.range(4_000..200_000)).filter(|_| dice.chance(0.3)),
        buffer: dice.range(1_500..100_000) as usize,
        mtu: None,
        down: false,
    }
}

/// A server and a few clients with the same mode and links of all kinds.
fn any_world(seed: u64) -> (World, ServerNo, Vec<ClientNo>) {
    let mut world = World::new(seed);
    let mut dice = world.dice("world");
    let (static_keys, clear) = (dice.chance(0.3), dice.chance(0.2));
    let threshold = if dice.chance(0.2) { 0 } else { 200 };
    let clients = dice.range(1..4) as u8;
    let own = |number: u8| StaticSecret::new([number; 32]).expect("not all zero");
    let server = world.add_server(move || {
        let mut config = ServerConfig::new(vec![if static_keys {
            let listed = (0..clients).map(|n| (own(100 + n).public(), None));
            ServerKey::Static { own: own(1), clients: HashMap::from_iter(listed) }
        } else {
            ServerKey::Psk(psk(1))
        }]);
        config.common.clear = clear;
        config.load_threshold = threshold;
        config
    });
    let clients = (0..clients).map(|number| {
        let paths: Vec<PathSpec> = (0..dice.range(1..5))
            .map(|_| PathSpec {
                up: any_link(&mut dice),
                down: any_link(&mut dice),
                max_packet: dice.range(548..1_500) as usize,
                settings: PathSettings { backup: dice.chance(0.2), ..PathSettings::default() },
            })
            .collect();
        world.add_client(server, paths, move || {
            let mut config = ClientConfig::new(if static_keys {
                let server = own(1).public();
                ClientKeys::Static { own: own(100 + number), server, psk: None }
            } else {
                ClientKeys::Psk(psk(1))
            });
            config.name = Some(format!("client {number}"));
            config.common.clear = clear;
            config
        })
    });
    let clients = clients.collect();
    (world, server, clients)
}

fn any_path(world: &World, client: ClientNo, dice: &mut Rng) -> PathNo {
    path(client, dice.range(0..world.client(client).paths.len() as u64) as usize)
}

/// Something happens to somebody.
fn mishap(world: &mut World, server: ServerNo, client: ClientNo, dice: &mut Rng) {
    let victim = any_path(world, client, dice);
    let way = if dice.chance(0.5) { Up } else { Down };
    match dice.range(0..22) {
        0 => world.kill_server(server),
        1 => world.stop_server(server),
        2 => world.kill_client(client),
        3 => world.stop_client(client),
        4 => world.set_server_clock(server, Time::from_micros(dice.range(0..1 << 40))),
        5 => world.set_client_clock(client, Time::from_micros(dice.range(0..1 << 40))),
        6 => world.suspend_client(client),
        7 => world.resume_client(client),
        8 => world.rebind(victim),
        9 => world.restart_bridge(victim),
        10 => world.close_path(victim),
        11 => world.open_path(victim),
        12 => world.remove_path(victim),
        13 => world.readd_path(victim),
        14 => world.set_link(victim, way, any_link(dice)),
        15 => {
            let faults = world.faults(victim, way);
            faults.dark = dice.chance(0.3);
            faults.grey = dice.chance(0.3);
            faults.slow_socket = dice.chance(0.3);
            faults.no_handshakes = dice.chance(0.3);
        }
        16 => world.set_all_dark(client, dice.chance(0.5)),
        17 => set_width(world, victim, dice.range(300..1_500) as usize),
        18 => world.run_for(Duration::from_secs(dice.range(1..20))),
        19 if dice.chance(0.2) => world.run_for(Duration::from_secs(dice.range(30..250))),
        _ => world.start_all(),
    }
}

/// The I/O layer learns another width of a path.
fn set_width(world: &mut World, path: PathNo, bytes: usize) {
    let now = world.client(path.client).local(world.now());
    let host = world.client_mut(path.client);
    host.paths[path.index].spec.max_packet = bytes;
    if let (Some(id), Some(machine)) = (host.paths[path.index].id, host.client_mut()) {
        machine.set_path_mtu(now, id, bytes);
    }
    world.settle();
}

/// All is well again.
fn heal(world: &mut World, clients: &[ClientNo]) {
    world.start_all();
    for client in clients {
        world.resume_client(*client);
        for path in world.paths_of(*client) {
            let net = &world.client(*client).paths[path.index];
            match (net.id, net.has_socket) {
                (None, _) => world.readd_path(path),
                (_, false) => world.open_path(path),
                _ => {}
            }
            for way in [Up, Down] {
                *world.faults(path, way) = Default::default();
                let link = LinkConfig { delay: 50 * MS, ..LinkConfig::default() };
                world.set_link(path, way, link);
            }
        }
    }
}

fn chaos(seed: u64) -> u64 {
    let (mut world, server, clients) = any_world(seed);
    let mut dice = world.dice("chaos");
    world.start_all();
    for client in &clients {
        world.stream_both_ways(*client, 30, dice.range(0..2_000) as usize);
    }
    for _ in 0..60 {
        let client = clients[dice.range(0..clients.len() as u64) as usize];
        mishap(&mut world, server, client, &mut dice);
        world.run_for(Duration::from_millis(dice.range(0..1_500)));
        world.verify();
    }

    heal(&mut world, &clients);
    let healed = world.now();
    let flows = |w: &World, client, way| {
        let later = w.ledger().all().iter().rev().take_while(|d| d.sent_at > healed);
        later.filter(|d| d.delivered_at.is_some()).any(|d| d.client == client && d.direction == way)
    };
    let all_flow =
        |w: &World| clients.iter().all(|client| flows(w, *client, Up) && flows(w, *client, Down));
    assert!(world.run_while_not(5 * S, all_flow), "traffic flows again");
    world.run_for(5 * S);
    let well = world.now();
    world.run_for(2 * S);
    world.stop_streams();
    world.run_for(S);
    world.verify();
    let lost = |d: &&Datagram| d.sent_at > well && d.delivered_at.is_none();
    let lost: Vec<_> = world.ledger().all().iter().filter(lost).take(3).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let trace = world.trace();
    world.assert_drains();
    trace
}

#[test]
fn whatever_happens_no_invariant_breaks_and_the_tunnels_recover() {
    with_seeds("whatever_happens_no_invariant_breaks_and_the_tunnels_recover", 80, |seed| {
        chaos(seed);
    });
}

#[test]
fn chaos_is_repeatable() {
    with_seeds("chaos_is_repeatable", 3, |seed| assert_eq!(chaos(seed), chaos(seed)));
}
