// SPDX-License-Identifier: BSD-2-Clause
//! What is seen of an endpoint, at one moment and from one to the next.

use crate::{KEY, SOON, server, tunnel, wait_for};
use mptunnel_core::{PathInfo, PeerInfo, Server, Snapshot, Tunnel};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

#[test]
fn a_snapshot_agrees_with_itself_while_traffic_flows() {
    let (server, port) = server();
    let tunnel = Arc::new(
        Tunnel::builder()
            .key(&KEY)
            .path(&format!("to=127.0.0.1:{port} name=a"))
            .path(&format!("to=127.0.0.1:{port} name=b"))
            .connect()
            .unwrap(),
    );
    wait_for(|| tunnel.paths().iter().all(|path| path.up));
    let (over, sender) = (Arc::new(AtomicBool::new(false)), tunnel.clone());
    let stop = over.clone();
    let sending = std::thread::spawn(move || {
        while !stop.load(Relaxed) {
            // Nobody fetches them, and what the sockets do not take is counted as well.
            let _ = sender.send(&[7; 100]);
        }
    });

    let sum =
        |paths: &[PathInfo], count: fn(&PathInfo) -> u64| paths.iter().map(count).sum::<u64>();
    let (start, mut looks, mut seen) = (Instant::now(), 0, 0);
    while looks < 300 || seen < 1_000 {
        assert!(start.elapsed() < SOON, "{seen} packets in {looks} looks");
        looks += 1;
        let here = tunnel.snapshot();
        assert_eq!(here.stats.traffic.sent, sum(&here.paths, |path| path.sent));
        assert_eq!(here.stats.traffic.received, sum(&here.paths, |path| path.received));
        let there = server.snapshot();
        let [peer] = &there.peers[..] else { panic!("{:?}", there.peers) };
        assert_eq!(peer.traffic.received, sum(&peer.paths, |path| path.received));
        assert_eq!(there.stats.traffic, peer.traffic);
        assert!(there.stats.connected && server.peer_count().unwrap() == 1);
        let traffic = peer.traffic;
        assert_eq!(peer.session.first_packets, traffic.received - traffic.duplicates);
        seen = traffic.received;
    }
    over.store(true, Relaxed);
    sending.join().unwrap();
}

#[test]
fn snapshots_of_a_server_follow_its_clients_though_they_look_at_few_of_them() {
    let (server, port) = server();
    assert_eq!(server.snapshot().peers.len(), 0);
    let mut tunnels: Vec<Tunnel> = (0..3).map(|_| tunnel(port, 1)).collect();
    let paths = |peers: &[PeerInfo]| peers.iter().map(|p| p.paths.len()).collect::<Vec<_>>();
    wait_for(|| server.snapshot().peers.iter().filter(|peer| peer.paths[0].up).count() == 3);
    let old = server.snapshot();
    let received = |index: usize| server.snapshot().peers[index].traffic.received;

    // Datagrams of an idle client, a new path, another policy.
    let before = received(1);
    for _ in 0..100 {
        tunnels[1].send(b"x").unwrap();
    }
    wait_for(|| received(1) >= before + 100);
    wait_for(|| received(1) == server.peers()[1].traffic.received);
    tunnels[2].add_path(&format!("to=127.0.0.1:{port}")).unwrap();
    wait_for(|| paths(&server.snapshot().peers) == [1, 1, 2]);
    server.set("mode", "fastest").unwrap();
    assert!(server.snapshot().peers.iter().all(|peer| peer.mode == "fastest"));
    assert_eq!(server.snapshot().peers[0].mode, server.peers()[0].mode);

    // Time passes for who keeps still.
    let since = |snapshot: &Snapshot| snapshot.peers[0].paths[0].since;
    wait_for(|| since(&server.snapshot()) > since(&old) + Duration::from_secs(1));
    wait_for(|| {
        let (seen, now) = (server.snapshot(), server.peers());
        now[0].paths[0].since < since(&seen) + Duration::from_millis(1_500)
    });

    // Clients go and come; sums never fall.
    server.dismiss(old.peers[1].id);
    tunnels.remove(1).close();
    let (mut last, mut joined) = (old.stats.traffic.received, false);
    wait_for(|| {
        let all = server.snapshot();
        assert!(all.stats.traffic.received >= last, "{all:?}");
        last = all.stats.traffic.received;
        if all.peers.len() == 2 && !joined {
            tunnels.push(tunnel(port, 1));
            joined = true;
        }
        joined && all.peers.len() == 3
    });
    let (seen, now) = (server.snapshot(), server.peers());
    let ids = |peers: &[PeerInfo]| peers.iter().map(|peer| peer.id).collect::<Vec<_>>();
    assert_eq!(ids(&seen.peers), ids(&now));
    assert_eq!(paths(&seen.peers), [1, 2, 1]);

    // Who still has a snapshot sees what it was.
    assert_eq!((old.peers.len(), paths(&old.peers)), (3, vec![1, 1, 1]));
    assert!(old.peers[1].traffic.received <= before);
}

/// Clients as text, but for what changes from one moment to the next.
fn lasting(peers: &[PeerInfo]) -> String {
    let mut peers = peers.to_vec();
    for path in peers.iter_mut().flat_map(|peer| &mut peer.paths) {
        (path.since, path.last_1s, path.last_10s) = (Duration::ZERO, None, None);
    }
    format!("{peers:?}")
}

#[test]
fn a_snapshot_shows_what_a_fresh_look_shows_though_sums_were_asked_for_in_between() {
    let (server, port) = server();
    let mut tunnels: Vec<Tunnel> = (0..3).map(|_| tunnel(port, 2)).collect();
    wait_for(|| server.peers().iter().flat_map(|peer| &peer.paths).all(|path| path.up));
    let agree = || {
        wait_for(|| {
            let sums = server.stats().traffic;
            let (seen, all) = (server.snapshot(), server.peers());
            lasting(&seen.peers) == lasting(&all) && sums == seen.stats.traffic
        });
    };
    agree();

    server.set("mode", "fastest").unwrap();
    let before = server.stats().traffic.received;
    assert!(server.snapshot().peers.iter().all(|peer| peer.mode == "fastest"));
    for _ in 0..50 {
        tunnels[1].send(b"x").unwrap();
    }
    wait_for(|| server.stats().traffic.received >= before + 50);
    agree();

    // One goes, another one comes, and one gets a path.
    let gone = server.snapshot().peers[0].id;
    server.dismiss(gone);
    tunnels.remove(0).close();
    assert!(server.stats().traffic.received >= before + 50);
    assert!(server.snapshot().peers.iter().all(|peer| peer.id != gone));
    tunnels.push(tunnel(port, 1));
    tunnels[0].add_path(&format!("to=127.0.0.1:{port}")).unwrap();
    wait_for(|| {
        server.stats();
        server.snapshot().peers.iter().map(|peer| peer.paths.len()).eq([3, 2, 1])
    });
    agree();

    // Who never wants more than sums gets them, to the last client.
    tunnels.drain(..).for_each(|tunnel| tunnel.close());
    wait_for(|| !server.stats().connected);
    assert_eq!(server.snapshot().stats.traffic, server.stats().traffic);
}

#[test]
fn durations_in_snapshots_grow_though_lists_of_all_clients_are_asked_for_all_the_time() {
    let at = "127.0.0.1:0".parse().unwrap();
    let server = Server::builder().key(&KEY).option("idle-interval", "20").listen(at);
    let server = server.bind().unwrap();
    let to = server.local_addrs()[0].to_string();
    let client = Tunnel::builder().key(&KEY).server(&to).option("idle-interval", "20");
    let _client = client.connect().unwrap();
    wait_for(|| server.peers().iter().any(|peer| peer.paths.iter().any(|path| path.up)));
    let since = || server.snapshot().peers[0].paths[0].since;
    // Whatever its first probes change has happened by then.
    wait_for(|| since() > Duration::from_secs(1));

    let (start, begun) = (since(), Instant::now());
    wait_for(|| server.peers().len() == 1 && since() > start + Duration::from_millis(900));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
