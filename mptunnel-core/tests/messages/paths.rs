// SPDX-License-Identifier: BSD-2-Clause
//! Paths that come, go and fail.

use crate::pair::*;
use mptunnel_core::proto::client::PathState;
use mptunnel_core::proto::config::ServerLimits;
use mptunnel_core::proto::dataplane::LastSession;
use mptunnel_core::proto::drop::DropReason;
use mptunnel_core::proto::frame::{Frame, FrameList};
use mptunnel_core::proto::route::Route;

#[test]
fn a_client_without_a_session_has_its_sockets_made_anew() {
    // A socket keeps the source address of the network in which it was connected, and a name the
    // address that it had: who wakes up elsewhere would search for ever.
    let mut pair = Pair::new(2);
    pair.server_alive = false;

    pair.run(300 * S);

    for path in pair.paths.clone() {
        let times: Vec<_> =
            pair.reopens.iter().filter(|(_, r)| r.path == path).map(|(at, _)| *at).collect();
        assert!((20..=45).contains(&times.len()), "{} in 300 s", times.len());
        assert!(times.windows(2).all(|w| w[1].since(w[0]) >= 400 * MS), "with a back-off");
    }
    pair.server_alive = true;
    pair.run(3 * S);
    assert!(pair.client.session().is_some());
}

#[test]
fn a_restarted_server_measures_the_paths_as_before() {
    let mut pair = Pair::connected(1);
    pair.run(300 * S);
    pair.restart_server();
    pair.run(30 * S);

    let peer = pair.server.peer(pair.peer()).unwrap();
    let slot = peer.slots().next().unwrap();

    assert!(slot.probe.health.srtt().is_some(), "the client answers the probes of the new one");
}

#[test]
fn a_late_answer_does_not_bring_up_a_path_that_lost_its_socket() {
    let mut pair = Pair::connected(2);
    pair.run(S);
    pair.down.clear();
    // Answers are on their way …
    let mut answers = Vec::new();
    for _ in 0..700 {
        pair.now = pair.now + 10 * MS;
        pair.client.handle_timeout(pair.now);
        pair.collect();
        for wire in std::mem::take(&mut pair.up) {
            pair.deliver_up(wire);
        }
        pair.collect();
        answers.extend(pair.down.drain(..).filter(|wire| wire.path == 0));
    }
    assert!(!answers.is_empty());
    // … when the socket goes.
    pair.client.path_closed(pair.now, pair.paths[0]);
    for answer in answers {
        pair.deliver_down(answer);
    }

    let path = pair.client.paths().next().unwrap();
    assert!(!path.up);
}

#[test]
fn another_idle_interval_counts_from_the_next_probe_on_at_both_ends() {
    let sent = |pair: &mut Pair, time| {
        let counts = |pair: &Pair| {
            let client = pair.client.paths().next().unwrap();
            let server = pair.server.peer(pair.peer()).unwrap();
            let slot = server.slots().next().unwrap();
            (pair.client.path_counts(client).tx_pkts, server.slot_counts(slot).tx_pkts)
        };
        let before = counts(pair);
        pair.run(time);
        let after = counts(pair);
        (after.0 - before.0, after.1 - before.1)
    };
    let mut pair = Pair::connected(1);
    pair.run(60 * S);
    let (client, server) = sent(&mut pair, 60 * S);
    assert!(client <= 30 && server <= 30, "{client}, {server}");

    pair.client.set_idle_interval(500 * MS);
    let limits = ServerLimits {
        sessions: 10,
        session_timeout: 180 * S,
        handshakes_per_s: 100,
        load_threshold: 100,
        source_rate: 100,
        source_burst: 100,
        idle_interval: 500 * MS,
    };
    pair.server.set_limits(pair.now, limits);
    pair.run(10 * S);
    let (client, server) = sent(&mut pair, 60 * S);
    assert!(client >= 100 && server >= 100, "{client}, {server}");
}

#[test]
fn senders_are_told_of_another_order_of_the_paths_when_a_measurement_makes_one() {
    let mut pair = Pair::connected(2);
    pair.run(10 * S);
    let slow = pair.client.view().get().unwrap().ranked[0];
    // From now on, what goes out on the best path is held for 100 ms.
    for _ in 0..400 {
        pair.now = pair.now + 100 * MS;
        pair.client.handle_timeout(pair.now);
        pair.server.handle_timeout(pair.now);
        pair.collect();
        let (held, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut pair.up).into_iter().partition(|w| w.path == u32::from(slow));
        pair.up = rest;
        pair.settle();
        pair.now = pair.now + 100 * MS;
        held.into_iter().for_each(|wire| pair.deliver_up(wire));
        pair.settle();
    }

    let view = pair.client.view().get().unwrap();
    assert_eq!(view.ranked, [1 - slow, slow]);
    assert_eq!(view.best(1), 1 << (1 - slow));
    assert_eq!((view.best(2), view.up), (0b11, 0b11));
    let of_server = pair.server.view(pair.peer()).unwrap().get().unwrap();
    assert_eq!(of_server.ranked.len(), 2);
}

#[test]
fn data_of_the_flow_number_that_means_the_session_is_dropped() {
    let mut pair = Pair::connected(1);
    pair.send_up(0, 0xffff, b"x");
    pair.settle();

    assert_eq!(pair.got_up, []);
    assert_eq!(pair.server_plane.drops.of(DropReason::Malformed), 1);
}

#[test]
fn counting_in_batches_comes_to_the_same_as_counting_each_packet() {
    // Two paths deliver three datagrams each, twice over: one of the two is the first to bring each.
    let counts = |last: LastSession| {
        let mut pair = Pair::connected(2);
        pair.server_plane.settle(&mut pair.server_last);
        pair.server_last = last;
        for path in [0, 1, 1, 0] {
            for n in 0..3u8 {
                pair.send_up(path, 5, &[n; 40]);
            }
        }
        let sent: Vec<_> = std::mem::take(&mut pair.up);
        for wire in sent.iter().chain(&sent).cloned() {
            pair.deliver_up(wire);
        }
        pair.server_plane.settle(&mut pair.server_last);
        let peer = pair.server.peer(pair.peer()).unwrap();
        let slots: Vec<_> = peer.slots().map(|slot| peer.slot_counts(slot)).collect();
        (slots, pair.server_plane.drops.snapshot(), pair.got_up.len())
    };

    let each = counts(LastSession::default());

    assert_eq!(each.2, 12);
    assert!(each.0.iter().all(|slot| slot.rx_dups == 6), "{:?}", each.0);
    assert_eq!(counts(LastSession::batching()), each);
}

#[test]
fn a_response_with_a_wrong_nonce_proves_nothing() {
    let mut pair = Pair::connected(1);
    let peer = pair.peer();
    let before = pair.server.peer(peer).unwrap().route(0);
    pair.client_says(0, FrameList::new().push(Frame::Response { path: 0, nonce: [0; 8] }));
    pair.settle();
    assert_eq!(pair.server.peer(peer).unwrap().route(0), before);
}

#[test]
fn who_measures_gets_the_answer_of_each_path_to_the_moment_of_asking() {
    let mut pair = Pair::connected(3);
    assert_eq!(pair.client.take_answers().count(), 0, "nobody measures");
    let asked: Vec<_> = (0..2)
        .map(|_| {
            let now = pair.now;
            pair.client.probe(now);
            pair.run(100 * MS);
            now
        })
        .collect();

    let answers: Vec<_> = pair.client.take_answers().collect();

    for at in asked {
        let mut paths: Vec<_> =
            answers.iter().filter(|answer| answer.asked == at).map(|answer| answer.path).collect();
        paths.sort_unstable();
        assert_eq!(paths, pair.paths, "{answers:?}");
    }
    assert!(answers.iter().all(|answer| answer.round_trip <= 2 * MS), "{answers:?}");
    assert_eq!(pair.client.take_answers().count(), 0, "each is told once");
}

#[test]
fn a_path_in_a_used_slot_begins_at_zero_and_the_sums_only_grow() {
    let mut pair = Pair::connected(2);
    let second = pair.paths[1];
    pair.run(10 * S);
    let counts = |pair: &Pair, slot| {
        let path = pair.client.paths().find(|p| p.slot == slot).unwrap();
        pair.client.path_counts(path)
    };
    let before = (counts(&pair, 1), pair.client.counts());
    assert!(before.0.tx_pkts > 2 && before.0.rx_pkts > 2);

    pair.client.remove_path(pair.now, second);
    assert_eq!(pair.client.counts(), before.1);

    // The keys stay, so the session counts on where it was.
    let third = pair.client.add_path(pair.now, Default::default()).unwrap();
    assert_eq!(counts(&pair, 1), Default::default());
    assert_eq!(pair.client.counts(), before.1);
    let route = pair.client.paths().find_map(|p| match p.state {
        PathState::Open { route, .. } => Some(route),
        PathState::Closed => None,
    });
    let route = Route { socket: 1, ..route.unwrap() };
    pair.client.path_opened(pair.now, third, route, MTU);
    pair.run(2 * S);
    let young = counts(&pair, 1);
    assert!((1..before.0.tx_pkts).contains(&young.tx_pkts), "{young:?}");

    // New keys take the counts of the old session over, those of before the path as well.
    pair.run(600 * S);
    let (old, all) = (counts(&pair, 1), pair.client.counts());
    assert!(old.tx_pkts > young.tx_pkts && old.tx_pkts < 10_000, "{old:?}");
    assert_eq!(all.tx_pkts, before.0.tx_pkts + counts(&pair, 0).tx_pkts + old.tx_pkts);
}

#[test]
fn what_a_server_counts_stays_when_a_client_restarts_and_when_it_goes() {
    let mut pair = Pair::connected(2);
    pair.run(10 * S);
    let peer = pair.peer();
    let of = |pair: &Pair| pair.server.peer(peer).unwrap().counts();
    let slot_0 = |pair: &Pair| {
        let peer = pair.server.peer(peer).unwrap();
        peer.slot_counts(peer.slots().next().unwrap())
    };
    let (before, first) = (of(&pair), slot_0(&pair));
    assert!(first.rx_pkts > 2);

    pair.restart_client();
    pair.run(S);
    assert_eq!(pair.peer(), peer);
    assert_eq!(pair.server.peer(peer).unwrap().epoch, 1);

    let (after, second) = (of(&pair), slot_0(&pair));
    assert!(second.rx_pkts < first.rx_pkts, "{second:?} after {first:?}");
    assert!(after.rx_pkts > before.rx_pkts && after.tx_pkts > before.tx_pkts);

    // The sessions of the first process end meanwhile.
    pair.run(300 * S);
    assert!(of(&pair).rx_pkts > after.rx_pkts);
    assert!(slot_0(&pair).rx_pkts < of(&pair).rx_pkts - first.rx_pkts);
    let all = pair.server.counts();
    pair.server.dismiss(pair.now, peer);
    assert!(pair.server.peer(peer).is_none());
    assert!(pair.server.counts().rx_pkts >= all.rx_pkts);
}
