// SPDX-License-Identifier: BSD-2-Clause
//! Pieces of datagrams that are never completed.

use crate::pair::*;
use mptunnel_core::proto::drop::DropReason;

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
