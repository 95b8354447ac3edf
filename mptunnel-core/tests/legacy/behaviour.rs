// SPDX-License-Identifier: BSD-2-Clause
//! How our ends get along with classic ones, and with each other.

use crate::old::{Ms, OldServer};
use crate::vectors::{POISON, bytes};
use crate::world::{Bridge, ClientEnd, OurClient, ServerEnd, World};

const SECOND: Ms = 1_000;

/// Requests and answers, each `every` milliseconds; how many of each arrived.
fn talk(world: &mut World, every: Ms, for_ms: Ms) -> (usize, usize) {
    let before = (world.at_server().len(), world.at_client().len());
    world.every(every, for_ms, |world| {
        world.up(b"request");
        world.down(b"answer");
    });
    world.run(5 * SECOND);
    (world.at_server().len() - before.0, world.at_client().len() - before.1)
}

fn worlds() -> [(&'static str, World); 3] {
    [
        ("our client", World::our_client()),
        ("our server", World::our_server()),
        ("both", World::both_ours()),
    ]
}

#[test]
fn everything_arrives_once_whichever_end_is_ours() {
    for (name, mut world) in worlds() {
        world.up(b"first");
        world.run(SECOND);
        assert_eq!(talk(&mut world, 10, 10 * SECOND), (1_000, 1_000), "{name}");
    }
}

#[test]
fn both_forms_are_received_and_clear_ones_are_taken_by_every_peer() {
    for encrypts in [false, true] {
        for iv in [0, 0x1234_5678] {
            let (mut one, mut other) = (World::our_client(), World::our_server());
            one.ours().iv = iv;
            let ServerEnd::Old(server) = &mut one.server else { unreachable!() };
            server.encrypts = encrypts;
            other.our_end().iv = iv;
            let ClientEnd::Old(client) = &mut other.client else { unreachable!() };
            client.encrypts = encrypts;
            for mut world in [one, other] {
                world.up(b"first");
                world.run(SECOND);
                assert_eq!(talk(&mut world, 100, SECOND), (10, 10), "{encrypts} {iv}");
            }
        }
    }
}

#[test]
fn of_three_bridges_that_lose_thirty_per_cent_one_copy_is_enough() {
    for (name, mut world) in worlds() {
        world.up(b"first");
        world.run(SECOND);
        world.bridges = vec![Bridge::new(20, 30); 3];
        let (up, down) = talk(&mut world, 10, 100 * SECOND);
        // 0.3³ = 2.7 %, give or take five standard deviations of 0.16 %.
        for count in [up, down] {
            assert!((9_650..=9_810).contains(&count), "{name}: {count} of 10,000");
        }
    }
}

/// Traffic, then a restart, then how long until the first datagram of the fresh process arrives.
fn restart_and_wait(mut world: World, datagrams: u64, which: fn(&mut World)) -> Ms {
    world.up(b"first");
    world.run(SECOND);
    // Ten datagrams each millisecond where there are many.
    let burst = if datagrams > 10_000 { 10 } else { 1 };
    world.every(1, datagrams / burst, |world| {
        for _ in 0..burst {
            world.up(b"up");
            world.down(b"down");
        }
    });
    world.run(SECOND);
    which(&mut world);
    let begin = world.now;
    let before = (world.at_server().len(), world.at_client().len());
    for _ in 0..10_000 {
        world.up(b"up");
        world.down(b"down");
        world.run(10);
        if world.at_server().len() > before.0 && world.at_client().len() > before.1 {
            break;
        }
    }
    // From then on it is as if nothing had happened.
    let waited = world.now - begin;
    world.run(SECOND);
    assert_eq!(talk(&mut world, 10, SECOND), (100, 100));
    waited
}

#[test]
fn a_restart_of_our_end_is_not_noticed_by_a_classic_one() {
    for datagrams in [5_000, 70_000] {
        let client = restart_and_wait(World::our_client(), datagrams, World::restart_client);
        let server = restart_and_wait(World::our_server(), datagrams, World::restart_server);
        assert!(client <= 50 && server <= 50, "{datagrams}: {client} and {server} ms");
    }
}

#[test]
fn a_classic_end_that_was_restarted_is_heard_again_within_seconds() {
    for (datagrams, within) in [(5_000, 6 * SECOND), (70_000, 2 * SECOND)] {
        let server = restart_and_wait(World::our_client(), datagrams, World::restart_server);
        let client = restart_and_wait(World::our_server(), datagrams, World::restart_client);
        assert!(client <= within && server <= within, "{datagrams}: {client} and {server} ms");
    }
}

#[test]
fn restarts_of_either_end_heal_at_once_between_our_ends() {
    for which in [World::restart_client, World::restart_server] {
        let waited = restart_and_wait(World::both_ours(), 5_000, which);
        assert!(waited <= 50, "{waited} ms");
    }
}

#[test]
fn the_first_answer_after_a_minute_of_silence_downstream_arrives() {
    for (name, mut world) in worlds() {
        world.up(b"request");
        world.run(SECOND);
        world.down(b"answer");
        world.every(SECOND, 65 * SECOND, |world| world.up(b"more"));

        world.down(b"late answer");
        world.run(SECOND);

        assert_eq!(world.at_client().last().unwrap(), b"late answer", "{name}");
        assert_eq!(world.at_client().len(), 2, "{name}");
    }
}

#[test]
fn the_first_exchange_after_silence_in_both_directions_arrives() {
    for (name, mut world) in worlds() {
        for silence in [65, 75, 100, 250, 400, 1_000] {
            world.up(b"request");
            world.run(SECOND);
            world.down(b"answer");
            world.run(silence * SECOND);
            let before = world.at_client().len();
            world.up(b"request");
            world.run(100);
            world.down(b"answer");
            world.run(SECOND);
            assert_eq!(world.at_client().len(), before + 1, "{name}: after {silence} s");
        }
    }
}

#[test]
fn a_stream_that_only_flows_downstream_does_not_end() {
    for (name, mut world) in [("client", World::our_client()), ("both", World::both_ours())] {
        world.up(b"begin");
        world.run(SECOND);
        world.every(500, 600 * SECOND, |world| world.down(b"stream"));
        world.run(SECOND);
        assert_eq!(world.at_client().len(), 1_200, "{name}");
    }
    // A classic client gives no sign of life: until it is forgotten.
    let mut world = World::our_server();
    world.up(b"begin");
    world.run(SECOND);
    world.every(500, 290 * SECOND, |world| world.down(b"stream"));
    assert_eq!(world.at_client().len(), 580);
}

#[test]
fn a_datagram_out_of_the_blue_reaches_an_idle_client() {
    // Nothing at all for a quarter of an hour: ports that are changed in time stay known.
    let mut world = World::our_client();
    world.run(900 * SECOND);
    world.down(b"news");
    world.run(SECOND);
    assert_eq!(*world.at_client(), [b"news"]);

    let mut world = World::both_ours();
    world.run(900 * SECOND);
    world.down(b"news");
    world.run(SECOND);
    assert_eq!(*world.at_client(), [b"news"]);
    assert_eq!(world.ours().ports(), 3, "a server of ours gives signs of life: no port changes");
}

#[test]
fn a_port_that_was_replaced_is_listened_on_for_a_while() {
    let mut world = World::our_client();
    world.bridges = vec![Bridge::new(2 * SECOND, 0); 3];
    world.run(44 * SECOND);
    // On its way to the old ports when they are replaced.
    world.down(b"news");
    world.run(1_500);
    assert_eq!(world.ours().ports(), 6);
    world.run(SECOND);
    assert_eq!(*world.at_client(), [b"news"]);
}

#[test]
fn copies_three_seconds_late_are_removed_and_restart_nothing() {
    for (name, mut world) in worlds() {
        world.bridges[2] = Bridge::new(3 * SECOND, 0);
        world.up(b"first");
        world.run(4 * SECOND);
        let (up, down) = talk(&mut world, 2, 20 * SECOND);
        assert_eq!((up, down), (10_000, 10_000), "{name}");
        let seen = match name {
            "our client" => world.ours().restarts_seen,
            _ => world.our_end().restarts_seen,
        };
        assert_eq!(seen, 0, "{name}");
    }
}

#[test]
fn a_number_without_room_above_it_is_delivered_and_recovered_from() {
    let mut world = World::our_server();
    talk(&mut world, 10, SECOND);
    world.stranger((9, 9), &bytes(POISON));
    assert_eq!(world.at_server().last().unwrap(), b"x");
    assert!(talk(&mut world, 10, 10 * SECOND).0 >= 890, "deaf for a second, and four datagrams");

    let mut world = World::our_client();
    talk(&mut world, 10, SECOND);
    world.stranger_to_client(&bytes(POISON));
    assert!(talk(&mut world, 10, 10 * SECOND).1 >= 890);
}

#[test]
fn a_classic_client_keeps_its_ports_and_so_plain_socat_stays_alive() {
    let mut world = World::our_server();
    for bridge in &mut world.bridges {
        bridge.plain_socat = true;
    }
    world.up(b"first");
    world.run(SECOND);
    let sources = world.our_end().sources();
    // Upstream only, for ten minutes: a silent server would have had it change its ports.
    world.every(100, 600 * SECOND, |world| world.up(b"stream"));
    world.run(SECOND);

    assert_eq!(world.our_end().sources(), sources);
    assert_eq!(world.at_server().len(), 6_001);
    world.down(b"answer");
    world.run(SECOND);
    assert_eq!(*world.at_client(), [b"answer"]);
}

#[test]
fn sources_that_are_silent_for_five_minutes_are_forgotten() {
    let mut world = World::our_server();
    world.up(b"first");
    world.run(299 * SECOND);
    assert_eq!(world.our_end().sources().len(), 3);
    world.run(2 * SECOND);
    assert_eq!(world.our_end().sources(), []);
}

#[test]
fn strangers_take_no_more_than_the_places_there_are_and_none_that_is_in_use() {
    let mut world = World::our_server();
    world.up(b"first");
    world.run(SECOND);
    let hello = bytes("00000000 01000000 01000000 00000000");
    (100..10_000).for_each(|port| world.stranger((5, port), &hello));

    assert_eq!(world.our_end().sources().len(), 32);
    assert_eq!(talk(&mut world, 10, SECOND), (100, 100));
    // Those who fall silent make room.
    world.every(SECOND, 61 * SECOND, |world| world.up(b"more"));
    world.stranger((6, 6), &hello);
    assert!(world.our_end().sources().contains(&(6, 6)));
    assert_eq!(talk(&mut world, 10, SECOND), (100, 100));
}

#[test]
fn an_idle_client_of_a_classic_server_changes_its_ports_at_the_stated_pace() {
    let mut world = World::our_client();
    world.run(440 * SECOND);
    let ServerEnd::Old(server) = &world.server else { unreachable!() };
    let known = server.bridges.len();
    assert_eq!((world.ours().ports(), known), (3 * 10, 3 * 10));
    // The first datagram goes to those of the last five minutes, from then on one copy per bridge.
    world.down(b"news");
    world.up(b"more");
    world.run(62 * SECOND);
    world.up(b"more");
    world.down(b"news");
    let ServerEnd::Old(server) = &world.server else { unreachable!() };
    assert!(server.bridges.len() <= 2 * 3, "{}", server.bridges.len());
}

#[test]
fn a_lost_first_sign_of_life_is_followed_by_others() {
    let client = ClientEnd::Ours(OurClient::new(0, 3, 0, 0));
    let server = ServerEnd::Old(OldServer::new(false));
    let mut world = World::new(client, server, vec![Bridge::new(10, 100); 3]);
    world.run(100);
    world.bridges = vec![Bridge::new(10, 0); 3];
    world.run(2 * SECOND);
    let ServerEnd::Old(server) = &world.server else { unreachable!() };
    assert_eq!(server.bridges.len(), 3);
}
