// SPDX-License-Identifier: BSD-2-Clause
//! Who is the same client: by name, by key, and two who claim to be one.

use crate::support::*;
use mptunnel_core::proto::config::ClientConfig;
use mptunnel_core::proto::event::{ClientEvent, PeerGoneReason, ServerEvent};
use mptunnel_core::proto::wire::Refusal;
use mptunnel_core::sim::world::Direction::Up;
use mptunnel_core::sim::world::{PathSpec, World};

#[test]
fn two_clients_under_one_name_are_told_of_the_conflict() {
    with_seeds("two_clients_under_one_name_are_told_of_the_conflict", 3, |seed| {
        let mut world = World::new(seed);
        let server = world.add_server(server_config);
        let clients = [0, 1].map(|_| {
            world.add_client(server, vec![PathSpec::rtt(60 * MS); 2], || ClientConfig {
                name: Some("same".into()),
                ..client_config()
            })
        });
        world.start_all();
        for client in clients {
            world.stream(client, Up, 20, 60);
        }
        world.run_for(60 * S);

        let conflict = ServerEvent::Refused(Refusal::IdConflict);
        assert!(count_server_events(&world, server, |e| *e == conflict) > 0);
        let told = ClientEvent::Refused(Refusal::IdConflict);
        let told = clients.map(|c| count_client_events(&world, c, |e| *e == told));
        assert!(told.iter().sum::<usize>() > 0, "{told:?}");
        assert_eq!(world.server(server).server().expect("it runs").peers().count(), 1);
        world.verify();
    });
}

#[test]
fn a_client_with_a_name_is_the_same_peer_after_a_restart_and_one_without_is_another() {
    for named in [true, false] {
        let mut world = World::new(1);
        let server = world.add_server(server_config);
        let client = world.add_client(server, vec![PathSpec::rtt(60 * MS)], move || ClientConfig {
            name: named.then(|| "a".into()),
            ..client_config()
        });
        world.start_all();
        world.run_for(S);
        world.kill_client(client);
        world.start_client(client);
        world.run_for(S);

        let restarted = |e: &ServerEvent| matches!(e, ServerEvent::PeerRestarted(_));
        assert_eq!(count_server_events(&world, server, restarted), usize::from(named));
        let peers = |w: &World| w.server(server).server().expect("it runs").peers().count();
        assert_eq!(peers(&world), if named { 1 } else { 2 });

        world.run_for(200 * S);
        let gone =
            |e: &ServerEvent| matches!(e, ServerEvent::PeerGone(_, PeerGoneReason::TimedOut));
        assert_eq!(count_server_events(&world, server, gone), usize::from(!named));
        assert_eq!(peers(&world), 1);
    }
}
