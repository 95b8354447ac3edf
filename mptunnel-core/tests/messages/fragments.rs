// SPDX-License-Identifier: BSD-2-Clause
//! Pieces of datagrams that are never completed.

use crate::pair::*;
use mptunnel_core::proto::drop::DropReason;
use mptunnel_core::proto::event::ServerEvent;

fn piece(pair: &Pair, total: u16, count: u8, len: usize) -> Vec<u8> {
    let session = pair.client_session();
    let whole = session.reserve().unwrap();
    let mut extra = whole.to_le_bytes().to_vec();
    extra.extend([0, count]);
    extra.extend(total.to_le_bytes());
    let pn = session.reserve().unwrap();
    let mut bytes = vec![0; 48 + len];
    session.seal_data(pn, 0, 1, &extra, &vec![1; len], &mut bytes).unwrap();
    bytes
}

#[test]
fn pieces_of_a_datagram_that_is_larger_than_agreed_are_refused() {
    let mut config = client_config();
    config.common.max_payload = 2_000;
    let mut pair = Pair::with(1, config, server_config());
    pair.run(S);

    let bytes = piece(&pair, 2_001, 2, 1_100);
    pair.deliver_up(Wire { path: 0, bytes });

    assert_eq!(pair.server_plane.drops.of(DropReason::Malformed), 1);
}

#[test]
fn unfinished_datagrams_are_given_up_by_time_even_if_nothing_more_comes() {
    let mut pair = Pair::connected(1);
    for _ in 0..100 {
        let bytes = piece(&pair, 60_000, 50, 1_200);
        pair.deliver_up(Wire { path: 0, bytes });
    }
    assert!(pair.server_session().unfinished_bytes() > 900_000);

    pair.run(10 * S);

    assert_eq!(pair.server_session().unfinished_bytes(), 0);
}

#[test]
fn a_piece_of_a_datagram_is_the_first_packet_that_makes_a_session_the_peers() {
    let mut pair = Pair::new(1);
    pair.collect();
    for init in std::mem::take(&mut pair.up) {
        pair.deliver_up(init);
    }
    pair.collect();
    for answer in std::mem::take(&mut pair.down) {
        pair.deliver_down(answer);
    }
    // The probes of the client are lost, and the rest of its datagram.
    let bytes = piece(&pair, 2_000, 2, 1_100);
    assert_eq!(pair.server.peers().count(), 0);

    pair.deliver_up(Wire { path: 0, bytes });
    pair.collect();

    assert_eq!(pair.server.peers().count(), 1);
    assert_eq!(pair.server_told(|event| matches!(event, ServerEvent::PeerUp(_))), 1);
    assert_eq!(pair.server_session().local_index(), pair.client_session().remote_index());
    assert!(pair.server_session().unfinished_bytes() > 0, "the piece is kept");
}
