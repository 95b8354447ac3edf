// SPDX-License-Identifier: BSD-2-Clause
//! Every offload with every other: what is sent arrives, whole and in order.

use super::*;

/// Segmentation on and off, joining on and off, over IPv4 and IPv6.
fn each_offload(check: impl Fn(&UdpSocket, &UdpSocket, bool, bool)) {
    for local in [V4, V6] {
        for (gso, gro) in [(true, true), (true, false), (false, true), (false, false)] {
            let (receiver, sender) = pair(local);
            assert!(sender.gso(), "Linux 4.18 or newer");
            if !gso {
                assert!(sender.disable_gso());
            }
            if !gro {
                receiver.disable_gro().unwrap();
            }
            check(&receiver, &sender, gso, gro);
        }
    }
}

#[test]
fn datagrams_of_every_size_arrive_whole_and_in_order() {
    each_offload(|receiver, sender, gso, gro| {
        for len in [0, 1, 1200, 1400, 9000, 60_000, 65_507] {
            let sent = numbered((80_000 / len.max(1)).clamp(1, 100), len);
            let mut batch = batch(sent.iter().map(|bytes| (bytes.as_slice(), 1)));

            let report = batch.send(sender, 1, None);

            assert_eq!((report.packets, report.bytes), (sent.len(), sent.len() * len));
            assert_eq!((report.dropped, report.too_big), (0, 0));
            // Beyond the path MTU, the caller is told that these arrive in fragments.
            if len + 48 <= sender.path_mtu().unwrap() {
                assert!(report.error.is_none(), "{:?}", report.error);
            }
            assert!(arrived(receiver) == sent, "{len} bytes, GSO {gso}, GRO {gro}");
        }
    });
}

#[test]
fn unequal_sizes_in_one_batch_keep_their_borders() {
    each_offload(|receiver, sender, gso, gro| {
        let sizes = [1400, 1400, 600, 600, 1400, 0, 0, 1, 1, 1200, 7, 1400, 1399, 1399];
        let sent: Vec<_> = sizes.iter().flat_map(|len| numbered(1, *len)).collect();

        let report = batch(sent.iter().map(|bytes| (bytes.as_slice(), 1))).send(sender, 1, None);

        assert_eq!(report.packets, sizes.len());
        assert!(arrived(receiver) == sent, "GSO {gso}, GRO {gro}");
    });
}

#[test]
fn a_run_crosses_the_loopback_as_one_message_only_if_both_sides_have_the_offload() {
    each_offload(|receiver, sender, gso, gro| {
        let sent = numbered(40, 1200);
        let report = batch(sent.iter().map(|bytes| (bytes.as_slice(), 1))).send(sender, 1, None);
        assert_eq!(report.packets, 40);

        let mut batch = RecvBatch::new(64);
        let messages = batch.recv(receiver, Wait::First).unwrap();

        assert_eq!(messages, if gso && gro { 1 } else { 40 });
        let first = batch.message(0);
        assert_eq!(first.segment_size, 1200);
        assert_eq!(first.bytes.len(), if gso && gro { 48_000 } else { 1200 });
        assert_eq!(first.remote, sender.local_addr().unwrap());
        assert_eq!(batch.discarded(), 0);
    });
}

#[test]
fn the_boundaries_of_a_run_are_none_of_the_stream() {
    each_offload(|receiver, sender, _, _| {
        for (count, len) in [(64, 1000), (65, 1000), (63, 1000), (50, 1300), (51, 1300), (130, 9)] {
            let sent = numbered(count, len);
            let mut batch = batch(sent.iter().map(|bytes| (bytes.as_slice(), 1)));

            let report = batch.send(sender, 1, None);

            assert_eq!(report.packets, count);
            assert!(arrived(receiver) == sent, "{count} of {len} bytes");
        }
    });
}

#[test]
fn packets_dealt_out_to_two_paths_arrive_on_theirs() {
    each_offload(|receiver, sender, gso, gro| {
        let (other, to_other) = pair(V4);
        let sent = numbered(60, 1200);
        let dealt = sent.iter().enumerate().map(|(n, bytes)| (bytes.as_slice(), 1 << (n % 2)));
        let mut batch = batch(dealt);

        assert_eq!(batch.send(sender, 1, None).packets, 30);
        assert_eq!(batch.send(&to_other, 2, None).packets, 30);

        let odd: Vec<_> = sent.iter().skip(1).step_by(2).cloned().collect();
        let mut received = RecvBatch::new(64);
        let messages = received.recv(receiver, Wait::First).unwrap();
        // Joined over the other path's packets that lie between.
        assert_eq!(messages, if gso && gro { 1 } else { 30 });
        let even = sent.iter().step_by(2);
        let bytes = (0..messages).flat_map(|index| received.message(index).bytes.to_vec());
        assert!(bytes.eq(even.flatten().copied()));
        assert!(arrived(&other) == odd);
    });
}

#[test]
fn a_batch_is_used_again_after_it_was_cleared() {
    let (receiver, sender) = pair(V4);
    let mut batch = SendBatch::new();
    for round in 0..50u8 {
        batch.room(100).unwrap().fill(round);
        batch.commit(100, 1);
        batch.room(50).unwrap().fill(!round);
        batch.commit(50, 1);

        assert_eq!(batch.send(&sender, 1, None).packets, 2);
        batch.clear();

        assert_eq!(batch.send(&sender, 1, None).packets, 0);
        assert_eq!(arrived(&receiver), [vec![round; 100], vec![!round; 50]]);
    }
}

#[test]
fn more_datagrams_than_buffers_take_several_calls() {
    let (receiver, sender) = pair(V4);
    receiver.disable_gro().unwrap();
    let sent = numbered(5, 100);
    let report = batch(sent.iter().map(|bytes| (bytes.as_slice(), 1))).send(&sender, 1, None);
    assert_eq!(report.packets, 5);

    let mut batch = RecvBatch::new(2);
    let mut calls = Vec::new();
    let mut datagrams = Vec::new();
    for wait in [Wait::First, Wait::First, Wait::First, Wait::DontWait] {
        let messages = batch.recv(&receiver, wait).unwrap();
        calls.push(messages);
        datagrams.extend((0..messages).map(|index| batch.message(index).bytes.to_vec()));
    }

    assert_eq!(calls, [2, 2, 1, 0]);
    assert_eq!(datagrams, sent);
}
