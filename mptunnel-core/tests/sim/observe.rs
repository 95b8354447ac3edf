// SPDX-License-Identifier: BSD-2-Clause
//! What is told of a tunnel agrees with what happened to it.

use crate::support::*;
use mptunnel_core::proto::losses::{Direction as Way, Losses};
use mptunnel_core::proto::route::PathCounts;
use mptunnel_core::proto::server::Peer;
use mptunnel_core::sim::link::LinkConfig;
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{ClientNo, PathSpec, ServerNo, World};

fn peer(world: &World, server: ServerNo, client: ClientNo) -> &Peer {
    let host = world.server(server);
    let peer = host.peer_of(client).expect("it is known");
    host.server().expect("it runs").peer(peer).expect("it is here")
}

/// Everything that the client's paths, and the same paths at the server, have counted.
fn counts(world: &World, server: ServerNo, client: ClientNo) -> [PathCounts; 2] {
    let sum = |all: &mut dyn Iterator<Item = PathCounts>| {
        all.fold(PathCounts::default(), |mut sum, counts| {
            sum += counts;
            sum
        })
    };
    let host = world.client(client).client().expect("it runs");
    let peer = peer(world, server, client);
    [
        sum(&mut host.paths().map(|path| host.path_counts(path))),
        sum(&mut peer.slots().map(|slot| peer.slot_counts(slot))),
    ]
}

#[test]
fn a_tunnel_that_has_lost_nothing_says_so_from_its_first_probe_on() {
    let (mut world, server, client) = tunnel(1, 3, 60 * MS);
    world.start_all();
    for _ in 0..20 {
        world.run_for(100 * MS);
        let host = world.client(client).client().expect("it runs");
        let ours = host.paths().map(|path| &path.probe.health);
        let known = world.server(server).peer_of(client).map(|_| peer(&world, server, client));
        let theirs = known.into_iter().flat_map(Peer::slots).map(|slot| &slot.probe.health);
        for health in ours.chain(theirs) {
            let lost = [health.loss_out(), health.loss_in()].map(Option::unwrap_or_default);
            assert_eq!(lost, [0.0, 0.0], "after {:?}", world.now());
        }
    }
}

#[test]
fn packets_and_bytes_of_both_ends_add_up_and_copies_are_half_of_them_on_two_paths() {
    for (paths, share_of_copies) in [(1, 0.0), (2, 0.5), (4, 0.75)] {
        let (mut world, server, client) = tunnel(1, paths, 60 * MS);
        world.start_all();
        world.run_for(S);
        world.stream_both_ways(client, 500, 5);
        world.run_for(5 * S);
        world.stop_streams();
        // Keys are renewed on the way: the counts of the old ones are kept.
        world.run_for(130 * S);
        let [here, there] = counts(&world, server, client);
        let ours = world.client(client).client().expect("it runs").session_counts();
        let theirs = peer(&world, server, client).session_counts();

        for (sent, received, whole) in [(here, there, theirs), (there, here, ours)] {
            // Nothing is lost; what was sent last may be on its way.
            let on_the_way = sent.tx_pkts - received.rx_pkts;
            assert!(on_the_way <= 2 * paths as u64, "{sent:?} {received:?}");
            // Probes come once.
            let copies = received.rx_dups as f64 / received.rx_pkts as f64;
            assert!((copies - share_of_copies).abs() < 0.15, "{copies} with {paths} paths");
            let bytes = whole.copied_bytes as f64 / received.rx_bytes as f64;
            assert!((bytes - share_of_copies).abs() < 0.15, "{bytes} with {paths} paths");
            assert_eq!(whole.late, 0);
        }
        world.verify();
    }
}

#[test]
fn renewed_keys_and_restarts_are_counted_on_both_ends() {
    let (mut world, server, client) = tunnel(1, 2, 60 * MS);
    world.start_all();
    world.stream(client, Up, 2, 700);
    world.run_for(300 * S);

    let (rekeys, restarts) = world.client(client).client().expect("it runs").renewals();
    assert_eq!((rekeys, restarts), (2, 0));
    assert_eq!(peer(&world, server, client).rekeys, 2);

    world.kill_server(server);
    world.start_server(server);
    world.run_for(2 * S);
    assert_eq!(world.client(client).client().expect("it runs").renewals(), (2, 1));
    assert_eq!(peer(&world, server, client).epoch, 0, "it is the server that was restarted");
}

#[test]
fn a_path_at_the_server_tells_since_when_it_is_so_and_where_it_came_from() {
    let (mut world, server, client) = tunnel(1, 2, 60 * MS);
    let way = path(client, 0);
    world.start_all();
    world.stream_both_ways(client, 50, 2_000);
    world.run_for(S);
    let slot = |w: &World| {
        let peer = peer(w, server, client);
        let slot = peer.slots().next().expect("it was heard");
        (slot.active.map(|route| route.remote), peer.led_before(slot.id), slot.since())
    };
    let (first, before, up_since) = slot(&world);
    assert_eq!(before, None);
    // The server has a clock of its own.
    let now = |w: &World| w.server(server).local(w.now());
    assert!(now(&world).since(up_since) < S);

    world.rebind(way);
    world.run_for(2 * S);
    let (second, before, since) = slot(&world);
    assert_ne!(second, first);
    assert_eq!((before, since), (first, up_since), "it moved, and was never down");

    world.faults(way, Up).dark = true;
    world.faults(way, Down).dark = true;
    world.run_for(10 * S);
    let silent_since = slot(&world).2;
    let ago = now(&world).since(silent_since);
    assert!(ago > 5 * S && ago < 8 * S, "{ago:?}");
}

/// What the client says of what it sends on its path, and the server of what it receives there.
fn losses_up(world: &World, server: ServerNo, client: ClientNo) -> [Losses; 2] {
    let (host, at) = (world.client(client), world.client(client).local(world.now()));
    let path = host.client().and_then(|c| c.paths().next()).expect("it has a path");
    let slot = peer(world, server, client).slots().next().expect("it has a path");
    let there = world.server(server).local(world.now());
    [path.probe.health.losses(at, Way::Out), slot.probe.health.losses(there, Way::In)]
}

#[test]
fn losses_of_the_last_second_the_last_ten_and_all_are_what_the_link_lost() {
    let clean = LinkConfig { delay: 20 * MS, ..LinkConfig::default() };
    let lossy = LinkConfig { loss: 0.2, ..clean.clone() };
    let (mut world, server, client) = tunnel_over(1, vec![PathSpec::both(clean.clone())]);
    let way = path(client, 0);
    world.start_all();
    world.stream_both_ways(client, 2_000, 100);
    world.run_for(12 * S);
    for told in losses_up(&world, server, client) {
        // Packets that are too large for the link are tried as well.
        assert!(told.total.lost < 20 && told.last_1s.lost == 0, "{told:?}");
    }
    let share = |told: &mptunnel_core::Lost| told.fraction().expect("it is busy");

    world.set_link(way, Up, lossy);
    world.run_for(2 * S);
    for told in losses_up(&world, server, client) {
        assert!((share(&told.last_1s) - 0.2).abs() < 0.06, "{told:?}");
        assert!((share(&told.last_10s) - 0.04).abs() < 0.02, "{told:?}");
    }
    world.run_for(10 * S);
    for told in losses_up(&world, server, client) {
        assert!((share(&told.last_10s) - 0.2).abs() < 0.03, "{told:?}");
    }

    world.set_link(way, Up, clean);
    world.run_for(2 * S);
    for told in losses_up(&world, server, client) {
        assert_eq!(told.last_1s.lost, 0, "{told:?}");
        assert!((0.1..0.2).contains(&share(&told.last_10s)), "{told:?}");
    }
    world.stop_streams();
    world.run_for(20 * S);
    let (up, _) = world.client(client).paths[0].counters();
    for told in losses_up(&world, server, client) {
        // But for those before the first answer and behind the last one.
        assert!(up.lost_random.abs_diff(told.total.lost) < 20, "{up:?} {told:?}");
        assert!(up.sent.abs_diff(told.total.sent) < 20, "{up:?} {told:?}");
        assert_eq!((told.last_1s.sent, told.last_10s.sent), (0, 0), "it is idle");
    }
}

#[test]
fn whoever_looks_is_told_to_whom_something_happened_and_nobody_is_remembered_for_ever() {
    let (mut world, server, client) = tunnel(1, 2, 20 * MS);
    let other = world.add_client(server, vec![PathSpec::rtt(20 * MS)], client_config);
    let touched = |w: &mut World| {
        let server = w.server_mut(server).server_mut().expect("it runs");
        server.take_touched().map(|touched| (touched.changed, touched.gone))
    };
    world.start_all();
    world.run_for(2 * S);
    let ids = [client, other].map(|c| world.server(server).peer_of(c).expect("it is known"));
    assert_eq!(touched(&mut world), None, "nobody has looked");
    assert_eq!(touched(&mut world), Some((vec![], vec![])));

    // Probes, every five seconds.
    world.run_for(12 * S);
    let (mut changed, gone) = touched(&mut world).expect("somebody has looked");
    changed.sort_unstable();
    assert_eq!((changed, gone), (ids.to_vec(), vec![]));

    world.stop_client(other);
    world.run_for(4 * S);
    let (changed, gone) = touched(&mut world).expect("somebody has looked");
    assert!(changed.contains(&ids[1]) && gone == [ids[1]], "{changed:?} {gone:?}");

    for _ in 0..80 {
        world.start_client(other);
        world.run_for(200 * MS);
        world.stop_client(other);
        world.run_for(3 * S);
    }
    assert_eq!(touched(&mut world), None, "nobody has looked for long");
}
