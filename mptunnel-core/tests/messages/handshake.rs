// SPDX-License-Identifier: BSD-2-Clause
//! Handshake messages that come late or out of order.

use crate::pair::*;
use mptunnel_core::proto::event::{ClientEvent, ServerEvent};
use mptunnel_core::proto::frame::{Frame, FrameList};

#[test]
fn an_answer_that_comes_when_the_server_has_forgotten_the_session_is_not_accepted() {
    let mut pair = Pair::new(1);
    pair.collect();
    for init in std::mem::take(&mut pair.up) {
        pair.deliver_up(init);
    }
    pair.collect();
    let resp = pair.down.pop().unwrap();
    // The machine sleeps, and the answer lies in the socket's buffer when it wakes up.
    pair.now = pair.now + 60 * S;
    pair.server.handle_timeout(pair.now);

    pair.deliver_down(resp);

    assert!(pair.client.session().is_none());
}

#[test]
fn a_session_that_is_confirmed_after_its_successor_does_not_take_its_place() {
    let mut pair = Pair::connected(1);
    let request = FrameList::new().push(Frame::RekeyRequest);
    pair.run(2 * S);
    pair.server_says(0, request);
    // The client has new keys; what it says under them is on a slow path.
    let mut slow = Vec::new();
    let first = pair.client_session().local_index();
    for _ in 0..8 {
        for wire in std::mem::take(&mut pair.down) {
            pair.deliver_down(wire);
        }
        let renewed = pair.client_session().local_index() != first;
        pair.collect();
        for wire in std::mem::take(&mut pair.up) {
            if renewed && wire.bytes[0] == 6 { slow.push(wire) } else { pair.deliver_up(wire) }
        }
        pair.collect();
    }
    assert!(!slow.is_empty());
    let second = pair.client_session();
    // A hint or silence brings another handshake, which wins the race.
    pair.now = pair.now + 3 * S;
    pair.client.handle_timeout(pair.now);
    pair.run(4 * S);
    let third = pair.client_session();
    assert_ne!(third.local_index(), second.local_index());
    assert_eq!(pair.server_session().local_index(), third.remote_index());

    for wire in slow {
        pair.deliver_up(wire);
    }

    assert_eq!(pair.server_session().local_index(), third.remote_index());
    assert_eq!(pair.server_told(|e| matches!(e, ServerEvent::PeerRestarted(_))), 0);
}

#[test]
fn a_round_trip_of_two_seconds_is_no_reason_for_a_second_handshake() {
    let mut pair = Pair::new(1);
    let mut on_the_way: Vec<(u32, bool, Wire)> = Vec::new();
    // A tick is 50 ms.
    for tick in 0..200u32 {
        pair.client.handle_timeout(pair.now);
        pair.server.handle_timeout(pair.now);
        let (due, rest): (Vec<_>, Vec<_>) =
            on_the_way.into_iter().partition(|(at, _, _)| *at <= tick);
        on_the_way = rest;
        for (_, up, wire) in due {
            if up { pair.deliver_up(wire) } else { pair.deliver_down(wire) }
        }
        pair.collect();
        on_the_way.extend(pair.up.drain(..).map(|wire| (tick + 20, true, wire)));
        on_the_way.extend(pair.down.drain(..).map(|wire| (tick + 20, false, wire)));
        pair.now = pair.now + 50 * MS;
    }
    assert!(pair.client.session().is_some());
    assert_eq!(pair.client_told(|e| *e == ClientEvent::Rekeyed), 0);
}
