// SPDX-License-Identifier: BSD-2-Clause
//! What sessions cost in memory, idle and busy, and what is left of them (G8).

use crate::support::*;
use allocation_counter::measure;
use mptunnel_core::proto::dataplane::{LastSession, Received};
use mptunnel_core::proto::view::PacketSink;
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{PathSpec, ServerNo, World};
use std::time::Duration;

/// What a server holds, in bytes: what its end gives back.
fn memory_of(world: &mut World, server: ServerNo) -> i64 {
    drop(world.server_mut(server).take_watch());
    -measure(|| world.kill_server(server)).bytes_current
}

#[test]
fn an_idle_session_costs_at_most_32_kib_after_two_rekeys() {
    let sessions = 256 * number_from("MPTUNNEL_RUNS").unwrap_or(1) as i64;
    let mut world = World::new(1);
    let server = world.add_server(server_config);
    world.start_server(server);
    for _ in 0..sessions {
        let paths = vec![PathSpec::rtt(40 * MS); 4];
        let client = world.add_client(server, paths, client_config);
        world.start_client(client);
        world.run_for(2 * MS);
    }
    world.run_for(S);
    world.run_for(245 * S);
    let peers = world.server(server).server().expect("it runs").peers().count();
    assert_eq!(peers as i64, sessions);

    let each = memory_of(&mut world, server) / sessions;

    println!("{each} bytes per session over four paths");
    assert!(each <= 32 * 1024, "{each} bytes");
}

#[test]
fn a_session_with_all_its_32_paths_stays_within_its_budget_too() {
    let mut world = World::new(1);
    let server = world.add_server(server_config);
    world.start_server(server);
    for _ in 0..16 {
        let paths = vec![PathSpec::rtt(40 * MS); 32];
        let client = world.add_client(server, paths, client_config);
        world.start_client(client);
    }
    world.run_for(245 * S);
    let each = memory_of(&mut world, server) / 16;
    println!("{each} bytes per session over 32 paths");
    assert!(each <= 32 * 1024, "{each} bytes");
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let after = |rounds: u32| {
        let mut world = World::new(1);
        let server = world.add_server(server_config);
        let client = world.add_client(server, vec![PathSpec::rtt(20 * MS); 2], client_config);
        world.start_server(server);
        for _ in 0..rounds {
            world.start_client(client);
            world.run_for(100 * MS);
            for way in [Up, Down] {
                world.send(client, way, 0, 3_000).expect("it is up");
            }
            world.run_for(100 * MS);
            world.stop_client(client);
        }
        world.verify();
        world.assert_drains();
        memory_of(&mut world, server)
    };
    // By then the tables have grown to what the longest timer of 30 s needs.
    let (few, many) = (after(1_000), after(3_000));
    println!("{few} bytes after 1,000 clients, {many} after 3,000");
    assert!(many - few <= 4 * 1024, "{few} bytes after 1,000 clients, {many} after 3,000");
}

/// Keeps one packet.
struct OneRoom(Vec<u8>);

impl PacketSink for OneRoom {
    fn room(&mut self, len: usize) -> &mut [u8] {
        self.0.resize(len, 0);
        &mut self.0
    }

    fn commit(&mut self, _: usize, _: u32) {}
}

#[test]
fn in_the_steady_state_no_datagram_allocates() {
    for aes in [false, true] {
        assert_no_allocations(aes);
    }
}

fn assert_no_allocations(aes: bool) {
    let mut world = World::new(1);
    let server = world.add_server(move || {
        let mut config = server_config();
        config.common.aes_hardware = aes;
        config
    });
    let client = world.add_client(server, vec![PathSpec::rtt(20 * MS); 2], move || {
        let mut config = client_config();
        config.common.aes_hardware = aes;
        config
    });
    world.start_all();
    world.run_for(S);
    // Windows grow while they learn the rate.
    world.stream_both_ways(client, 1_000, 1_200);
    world.run_for(4 * S);
    let view = world.client(client).client().expect("it runs").view().get().expect("it is up");
    let name = if aes { "aes-256-gcm" } else { "chacha20-poly1305" };
    assert_eq!(view.session.cipher().name(), name);
    let plane = world.server(server).plane().expect("it runs").clone();
    let peer = world.server(server).peer_of(client).expect("it is known");
    let machine = world.server(server).server().expect("it runs");
    let route = machine.peer(peer).and_then(|p| p.route(0)).expect("it is proven");
    let (mut last, mut room) = (LastSession::default(), OneRoom(Vec::with_capacity(2_048)));
    let (mut here, mut there) =
        (world.client(client).local(world.now()), world.server(server).local(world.now()));
    let payload = [7; 1_200];
    let mut delivered = 0;

    let used = measure(|| {
        for _ in 0..10_000 {
            here = here + Duration::from_micros(1_000);
            there = there + Duration::from_micros(1_000);
            view.send(here, 0, &payload, &mut room).expect("it fits");
            if let Received::Data { .. } = plane.receive(there, &route, &mut room.0, &mut last) {
                delivered += 1;
            }
        }
    });

    assert_eq!((delivered, used.count_total), (10_000, 0));
}
