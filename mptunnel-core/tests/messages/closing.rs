// SPDX-License-Identifier: BSD-2-Clause
//! CLOSE, and what is still on the way when it comes.

use crate::pair::*;
use mptunnel_core::proto::event::{ClientEvent, ServerEvent};
use mptunnel_core::proto::frame::{CLOSE_FINISHED, CLOSE_GOING_AWAY, Frame, FrameList};

const ALL: u16 = 0xffff;

fn close(code: u16, flow: u16) -> FrameList {
    FrameList::new().push(Frame::Close { code, flow })
}

#[test]
fn data_that_the_servers_goodbye_overtook_is_still_delivered() {
    let mut pair = Pair::connected(1);
    pair.send_down(0, 0, b"late");
    let late = pair.down.pop().unwrap();
    pair.server_says(0, close(CLOSE_FINISHED, ALL));
    pair.settle();

    pair.run(2 * S);
    pair.deliver_down(late);

    assert_eq!(pair.got_down, [(0, b"late".to_vec())]);
    assert!(pair.client.view().get().is_none(), "nothing is sent any more");
    assert_eq!(pair.client_told(|e| *e == ClientEvent::Closed), 0);
    pair.run(S);
    assert_eq!(pair.client_told(|e| *e == ClientEvent::Closed), 1);
    assert!(pair.client_plane.is_empty());
}

#[test]
fn a_server_that_goes_away_gets_no_more_data_and_one_attempt_a_second() {
    let mut pair = Pair::connected(2);
    pair.run(5 * S);
    pair.send_down(0, 0, b"late");
    let late = pair.down.pop().unwrap();
    pair.server_says(0, close(CLOSE_GOING_AWAY, ALL));
    let goodbye = pair.down.pop().unwrap();
    pair.server_alive = false;
    pair.restart_server();
    pair.deliver_down(goodbye.clone());
    assert!(pair.client.view().get().is_none());

    pair.run(2 * S);
    pair.deliver_down(late);
    assert_eq!(pair.got_down.len(), 1);
    pair.run(S);
    assert!(pair.client_plane.is_empty(), "the old session is over");
    pair.deliver_down(goodbye);
    assert!(pair.rings < 500, "{}", pair.rings);

    pair.server_alive = true;
    pair.run(S);
    assert!(pair.client.session().is_some());
    assert_eq!(pair.client_told(|e| *e == ClientEvent::ServerRestarted), 1);
}

#[test]
fn a_goodbye_under_the_keys_before_a_rekey_counts() {
    let mut pair = Pair::connected(1);
    let old = pair.server_session();
    pair.server_says(0, FrameList::new().push(Frame::RekeyRequest));
    pair.run(S);
    assert_ne!(pair.server_session().local_index(), old.local_index());
    let (_, bytes) = old.seal_ctrl(pair.now, close(CLOSE_GOING_AWAY, ALL).finish()).unwrap();

    pair.deliver_down(Wire { path: 0, bytes });
    pair.collect();

    assert_eq!(pair.client_told(|e| *e == ClientEvent::ServerGoingAway), 1);
}

#[test]
fn a_goodbye_of_a_server_before_its_restart_does_not_count() {
    let mut pair = Pair::connected(1);
    let old = pair.server_session();
    pair.run(2 * S);
    pair.restart_server();
    pair.run(10 * S);
    assert_eq!(pair.client_told(|e| *e == ClientEvent::ServerRestarted), 1);
    let (_, bytes) = old.seal_ctrl(pair.now, close(CLOSE_FINISHED, ALL).finish()).unwrap();

    pair.deliver_down(Wire { path: 0, bytes });
    pair.run(5 * S);

    assert!(pair.client.session().is_some());
    assert_eq!(pair.client_told(|e| *e == ClientEvent::Closed), 0);
}

#[test]
fn data_that_the_clients_goodbye_overtook_is_delivered_before_the_client_is_gone() {
    let mut pair = Pair::connected(1);
    pair.send_up(0, 7, b"late");
    let late = pair.up.pop().unwrap();
    pair.client.say_goodbye(pair.now);
    pair.client.close();
    pair.settle();

    pair.run(2 * S);
    pair.deliver_up(late);
    pair.collect();

    assert_eq!(pair.got_up, [(7, b"late".to_vec())]);
    let gone = |e: &ServerEvent| matches!(e, ServerEvent::PeerGone(..));
    assert_eq!(pair.server_told(gone), 0);
    pair.run(S);
    assert_eq!(pair.server_told(gone), 1);
    assert_eq!(pair.server.peers().count(), 0);
    assert!(pair.server_plane.is_empty());
}

#[test]
fn a_client_that_comes_back_right_after_its_goodbye_stays() {
    let mut pair = Pair::connected(1);
    pair.client.say_goodbye(pair.now);
    pair.settle();
    pair.run(60 * S);

    assert!(pair.client.session().is_some());
    assert_eq!(pair.server.peers().count(), 1);
    pair.send_down(0, 0, b"x");
    pair.settle();
    assert_eq!(pair.got_down.len(), 1);
}
