// SPDX-License-Identifier: BSD-2-Clause
//! The faults of the classic programs that datagrams bring about, each as it broke them: here
//! nothing happens but a counter. Those that take sockets are in the tests of the programs.

use crate::vectors::{POISON, REFUSED, bytes};
use crate::world::World;
use mptunnel_core::proto::drop::DropReason;

/// Either end in the middle of a conversation.
fn both() -> [World; 2] {
    [World::our_server(), World::our_client()].map(|mut world| {
        world.up(b"first");
        world.run(1_000);
        world.down(b"second");
        world.run(1_000);
        world
    })
}

/// Sends a datagram to our end, whichever it is.
fn inject(world: &mut World, datagram: &[u8]) {
    match world.server {
        crate::world::ServerEnd::Ours(_) => world.stranger((7, 7), datagram),
        crate::world::ServerEnd::Old(_) => world.stranger_to_client(datagram),
    }
}

fn dropped(world: &mut World, reason: DropReason) -> u64 {
    match world.server {
        crate::world::ServerEnd::Ours(_) => world.our_end().drops.of(reason),
        crate::world::ServerEnd::Old(_) => world.ours().drops.of(reason),
    }
}

fn delivered(world: &mut World) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    (world.at_server().clone(), world.at_client().clone())
}

#[test]
fn fault_1_no_datagram_touches_more_than_its_own_bytes() {
    for mut world in both() {
        let before = delivered(&mut world);
        for byte in 0..=255 {
            inject(&mut world, &[byte]);
        }
        let (_, x3, _) = REFUSED[0];
        for len in 0..=bytes(x3).len() {
            inject(&mut world, &bytes(x3)[..len]);
        }

        assert_eq!(delivered(&mut world), before);
        assert_eq!(dropped(&mut world, DropReason::BadLength), 256 + 16);
        assert_eq!(dropped(&mut world, DropReason::BadHeader), 1);
    }
}

#[test]
fn fault_2_no_more_is_passed_on_than_was_received() {
    for mut world in both() {
        let before = delivered(&mut world);
        for (_, hex, _) in REFUSED {
            inject(&mut world, &bytes(hex));
        }
        assert_eq!(delivered(&mut world), before);
        assert_eq!(dropped(&mut world, DropReason::BadHeader), 7);
        assert_eq!(dropped(&mut world, DropReason::Malformed), 3);
    }
}

#[test]
fn fault_3_a_stranger_is_no_source_before_a_sound_header() {
    let mut world = World::our_server();
    world.up(b"first");
    world.run(1_000);
    let sources = world.our_end().sources();

    for datagram in [&b""[..], b"x", &[0; 16], &[0xff; 1_400]] {
        world.stranger((8, 8), datagram);
    }

    assert_eq!(world.our_end().sources(), sources);
}

#[test]
fn fault_4_a_forged_number_ends_nothing() {
    for mut world in both() {
        inject(&mut world, &bytes(POISON));
        world.every(10, 3_000, |world| {
            world.up(b"up");
            world.down(b"down");
        });
        world.run(1_000);
        let before = (world.at_server().len(), world.at_client().len());
        world.up(b"up");
        world.down(b"down");
        world.run(1_000);
        assert_eq!(
            (world.at_server().len(), world.at_client().len()),
            (before.0 + 1, before.1 + 1)
        );
    }
}

#[test]
fn fault_7_an_empty_datagram_is_carried_like_any_other() {
    for mut world in both() {
        world.up(b"");
        world.down(b"");
        world.run(1_000);
        assert_eq!(world.at_server().last().unwrap(), b"");
        assert_eq!(world.at_client().last().unwrap(), b"");
    }
}

#[test]
fn fault_14_large_datagrams_are_sent_whole() {
    let mut world = World::our_server();
    world.up(b"first");
    world.run(1_000);
    world.down(&[7; 9_000]);
    world.run(1_000);
    assert_eq!(world.at_client().iter().map(Vec::len).collect::<Vec<_>>(), [9_000]);
}
