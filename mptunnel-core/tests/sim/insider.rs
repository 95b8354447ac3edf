// SPDX-License-Identifier: BSD-2-Clause
//! A peer that holds good keys and behaves as badly as it can: it harms nobody but itself.

use crate::support::*;
use mptunnel_core::proto::drop::DropReason;
use mptunnel_core::proto::entropy::Entropy;
use mptunnel_core::proto::event::ServerEvent;
use mptunnel_core::proto::frame::{Frame, FrameList, Ping, Pong};
use mptunnel_core::proto::session::Session;
use mptunnel_core::proto::wire::{DATA_OVERHEAD, FRAGMENT_OVERHEAD};
use mptunnel_core::sim::rng::Rng;
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{ClientNo, PathSpec, ServerNo, World};
use std::net::SocketAddr;
use std::sync::Arc;

/// A server, an honest client under load, and one whose keys an attacker has.
fn with_insider(seed: u64) -> (World, ServerNo, [ClientNo; 2]) {
    let mut world = World::new(seed);
    let server = world.add_server(server_config);
    let clients =
        [0, 1].map(|_| world.add_client(server, vec![PathSpec::rtt(50 * MS); 2], client_config));
    world.start_all();
    world.run_for(S);
    world.stream_both_ways(clients[0], 200, 60);
    world.run_for(S);
    (world, server, clients)
}

fn session_of(world: &World, client: ClientNo) -> Arc<Session> {
    let machine = world.client(client).client().expect("it runs");
    machine.session().expect("it is up").clone()
}

fn server_session_for(world: &World, server: ServerNo, client: ClientNo) -> Arc<Session> {
    let peer = world.server(server).peer_of(client).expect("it is known");
    let machine = world.server(server).server().expect("it runs");
    machine.peer(peer).expect("it is here").current.clone()
}

fn assert_honest_unharmed(world: &mut World, honest: ClientNo) {
    world.stop_streams();
    world.run_for(S);
    world.verify();
    for way in [Up, Down] {
        assert!(world.ledger().of(honest, way).all(|d| d.delivered_at.is_some()));
    }
}

fn any_frame(dice: &mut Rng) -> Frame {
    let path = dice.range(0..34) as u8;
    let nonce = dice.bytes();
    match dice.range(0..6) {
        0 | 1 => Frame::Ping(Ping {
            path,
            flags: dice.u64() as u8,
            next_10ms: dice.u64() as u16,
            seq: any_number(dice) as u32,
            t_tx: any_number(dice),
            tx_pkts: any_number(dice),
            tx_bytes: any_number(dice),
        }),
        2 => Frame::Pong(Pong {
            path,
            seq: any_number(dice) as u32,
            t_tx: any_number(dice),
            hold_us: any_number(dice) as u32,
            t_rx: any_number(dice) as u32,
            rx_pkts: any_number(dice),
            rx_bytes: any_number(dice),
        }),
        3 => Frame::Challenge { path, nonce },
        4 => Frame::Response { path, nonce },
        _ => Frame::Close { code: dice.u64() as u16, flow: dice.range(0..0xffff) as u16 },
    }
}

/// Small, large, or anything.
fn any_number(dice: &mut Rng) -> u64 {
    match dice.range(0..4) {
        0 => dice.range(0..100),
        1 => u64::MAX - dice.range(0..100),
        2 => u64::from(u32::MAX) - dice.range(0..100),
        _ => dice.u64(),
    }
}

/// The inner of a CTRL: a few frames, or bytes that look like some.
fn any_inner(dice: &mut Rng) -> Vec<u8> {
    if dice.chance(0.2) {
        let mut inner = vec![0; dice.range(64..200) as usize];
        dice.fill(&mut inner);
        inner[0] = dice.range(0..8) as u8;
        // Not the end of the session.
        inner.iter_mut().for_each(|byte| *byte &= 0x7f);
        return inner;
    }
    let frames = dice.range(1..4);
    (0..frames).fold(FrameList::new(), |list, _| list.push(any_frame(dice))).finish()
}

#[test]
fn a_client_that_sends_any_frames_from_any_address_harms_only_itself() {
    with_seeds("a_client_that_sends_any_frames_from_any_address_harms_only_itself", 2, |seed| {
        let (mut world, server, [honest, insider]) = with_insider(seed);
        let mut dice = world.dice("insider");
        for round in 0..20_000 {
            let session = session_of(&world, insider);
            let now = world.client(insider).local(world.now());
            let sealed = session.seal_ctrl(now, any_inner(&mut dice));
            let (_, packet) = sealed.expect("the keys are good");
            let source = match dice.range(0..4) {
                own @ 0..2 => world.client(insider).paths[own as usize].outer,
                // Another client's address is no different from a stranger's.
                2 => world.client(honest).paths[0].outer,
                _ => SocketAddr::from(([203, 0, 113, 1], dice.range(1..50) as u16)),
            };
            world.inject_at_server(server, source, &packet);
            if round % 10 == 0 {
                world.run_for(2 * MS);
            }
        }
        assert_eq!(world.server(server).server().expect("it runs").peers().count(), 2);
        assert_honest_unharmed(&mut world, honest);
        let moved = |e: &ServerEvent| matches!(e, ServerEvent::PathMoved(..));
        assert_eq!(count_server_events(&world, server, moved), 0, "no address was proven");
    });
}

#[test]
fn a_server_that_sends_any_frames_gets_no_more_than_answers() {
    with_seeds("a_server_that_sends_any_frames_gets_no_more_than_answers", 2, |seed| {
        let (mut world, server, [honest, victim]) = with_insider(seed);
        let mut dice = world.dice("insider");
        let sent =
            |w: &World| -> u64 { w.client(victim).paths.iter().map(|p| p.counters().0.sent).sum() };
        let before = sent(&world);
        for round in 0..20_000 {
            let session = server_session_for(&world, server, victim);
            let now = world.server(server).local(world.now());
            let sealed = session.seal_ctrl(now, any_inner(&mut dice));
            let (_, packet) = sealed.expect("the keys are good");
            let index = dice.range(0..2) as usize;
            world.inject_at_client(path(victim, index), &packet);
            if round % 10 == 0 {
                world.run_for(2 * MS);
            }
        }
        assert!(sent(&world) - before < 20_000 + 4 * 10 * 4, "one answer for one question");
        assert!(world.client(victim).is_up());
        assert_honest_unharmed(&mut world, honest);
    });
}

#[test]
fn a_response_with_other_bytes_than_the_challenge_proves_nothing() {
    let (mut world, server, [honest, insider]) = with_insider(1);
    let victim = SocketAddr::from(([203, 0, 113, 1], 9));
    let mut dice = world.dice("insider");
    for round in 0..2_000 {
        let session = session_of(&world, insider);
        let now = world.client(insider).local(world.now());
        let ping = Ping {
            path: 9,
            flags: 0,
            next_10ms: 0,
            seq: 1 + round,
            t_tx: 0,
            tx_pkts: 0,
            tx_bytes: 0,
        };
        let response = Frame::Response { path: 9, nonce: dice.bytes() };
        for frame in [Frame::Ping(ping), response] {
            let frames = FrameList::new().push(frame).finish();
            let (_, packet) = session.seal_ctrl(now, frames).expect("the keys are good");
            world.inject_at_server(server, victim, &packet);
        }
        world.run_for(MS);
    }
    let account = world.server(server).watch().expect("it runs").account(victim);
    assert!(account.sent > 0 && !account.proven, "{account:?}");
    assert_honest_unharmed(&mut world, honest);
}

#[test]
fn many_pings_in_one_packet_earn_no_credit_at_all() {
    let (mut world, server, [honest, insider]) = with_insider(1);
    let victim = SocketAddr::from(([203, 0, 113, 1], 9));
    let session = session_of(&world, insider);
    for round in 0..100 {
        let now = world.client(insider).local(world.now());
        let frames = (0..32).fold(FrameList::new(), |list, path| {
            let seq = 1_000 + round;
            let ping = Ping { path, flags: 0, next_10ms: 0, seq, t_tx: 0, tx_pkts: 0, tx_bytes: 0 };
            list.push(Frame::Ping(ping))
        });
        let (_, packet) = session.seal_ctrl(now, frames.finish()).expect("the keys are good");
        world.inject_at_server(server, victim, &packet);
        world.run_for(MS);
    }
    assert_eq!(world.server(server).watch().expect("it runs").account(victim).sent, 0);
    let drops = &world.server(server).plane().expect("it runs").drops;
    assert_eq!(drops.of(DropReason::Malformed), 100);
    assert_honest_unharmed(&mut world, honest);
}

/// 32 slots, each with its own candidate at the victim's address.
#[test]
fn every_slot_of_an_insider_together_bring_a_victim_three_bytes_for_one() {
    let (mut world, server, [honest, insider]) = with_insider(1);
    world.stream(insider, Down, 2_000, 60);
    let victim = SocketAddr::from(([203, 0, 113, 1], 9));
    for round in 0..2_000 {
        let session = session_of(&world, insider);
        let now = world.client(insider).local(world.now());
        let path = 2 + (round % 30) as u8;
        let seq = 1 + round;
        let ping = Ping { path, flags: 0, next_10ms: 0, seq, t_tx: 0, tx_pkts: 0, tx_bytes: 0 };
        let frames = FrameList::new().push(Frame::Ping(ping)).finish();
        let (_, packet) = session.seal_ctrl(now, frames).expect("the keys are good");
        world.inject_at_server(server, victim, &packet);
        world.run_for(MS);
    }
    let account = world.server(server).watch().expect("it runs").account(victim);
    let ratio = account.sent as f64 / account.authentic as f64;
    println!("{account:?}: {ratio:.2}");
    assert!((2.0..=3.0).contains(&ratio), "{ratio}");
    assert_honest_unharmed(&mut world, honest);
}

#[test]
fn unknown_kinds_and_endless_pieces_are_dropped_within_their_budget() {
    let (mut world, server, [honest, insider]) = with_insider(1);
    let mut dice = world.dice("insider");
    let source = world.client(insider).paths[0].outer;
    for round in 0..50_000u64 {
        let session = session_of(&world, insider);
        let number = session.reserve().expect("the keys are good");
        let (kind, head, piece) = if dice.chance(0.1) {
            (dice.range(2..128) as u8, Vec::new(), vec![0; 20])
        } else {
            // The first piece of a datagram that never gets another.
            let mut head = number.saturating_sub(1).to_le_bytes().to_vec();
            head.extend([0, 200]);
            head.extend(60_000u16.to_le_bytes());
            (1, head, vec![0; 300])
        };
        let mut packet = vec![0; DATA_OVERHEAD + head.len() + piece.len()];
        session.seal_data(number, 0, kind, &head, &piece, &mut packet).expect("it fits");
        world.inject_at_server(server, source, &packet);
        if round % 20 == 0 {
            world.run_for(MS);
        }
    }
    const { assert!(FRAGMENT_OVERHEAD == DATA_OVERHEAD + 12) };
    let drops = &world.server(server).plane().expect("it runs").drops;
    assert!(drops.of(DropReason::UnknownKind) > 4_000);
    assert_eq!(world.ledger().of(insider, Up).count(), 0);
    assert_honest_unharmed(&mut world, honest);
}
