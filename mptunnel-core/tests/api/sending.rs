// SPDX-License-Identifier: BSD-2-Clause
//! Datagrams with wishes, and the applications behind a peer.

use crate::{SOON, duplicates, server, tunnel, wait_for};
use mptunnel_core::{Datagram, Error, PathId, PeerId, SendOptions, Tunnel};

#[test]
fn copies_choose_how_many_paths_carry_a_datagram() {
    let (server, port) = server();
    let client = tunnel(port, 3);
    let mut buffer = [0; 9];
    for (copies, expected) in [(0, 2), (1, 0), (2, 1), (3, 2), (200, 2)] {
        let before = duplicates(&server);
        for n in 0..20u8 {
            client.send_with(&[n], &SendOptions::new().copies(copies)).unwrap();
            server.recv_from_timeout(&mut buffer, SOON).unwrap();
            assert_eq!(buffer[0], n);
        }
        let removed = || duplicates(&server) - before;
        wait_for(|| removed() >= 20 * expected);
        assert_eq!(removed(), 20 * expected, "{copies} copies");
    }

    let (_, peer) = {
        client.send(b"x").unwrap();
        server.recv_from_timeout(&mut buffer, SOON).unwrap()
    };
    let removed = |client: &Tunnel| {
        client.stats().drops.iter().find(|(reason, _)| *reason == "duplicate").unwrap().1
    };
    wait_for(|| server.paths(peer).unwrap().iter().filter(|path| path.up).count() == 3);
    let before = removed(&client);
    for _ in 0..20 {
        server.send_with(b"x", peer, &SendOptions::new().copies(2)).unwrap();
        client.recv_timeout(&mut buffer, SOON).unwrap();
    }
    wait_for(|| removed(&client) - before >= 20);
    assert_eq!(removed(&client) - before, 20, "the server's way has copies as well");
}

#[test]
fn a_pinned_datagram_takes_its_path_and_no_other() {
    let (server, port) = server();
    let client = tunnel(port, 3);
    let mut slots = [Datagram::with_capacity(9)];
    let before = duplicates(&server);
    let mut peer = PeerId(0);
    for path in client.paths() {
        for _ in 0..5 {
            client.send_with(b"x", &SendOptions::new().path(path.id).copies(3)).unwrap();
            assert_eq!(server.recv_batch(&mut slots, Some(SOON)).unwrap(), 1);
            assert_eq!(slots[0].path, Some(PathId(u32::from(path.slot) + 1)));
            peer = slots[0].peer;
        }
    }
    wait_for(|| server.paths(peer).unwrap().iter().all(|path| path.up));
    for path in server.paths(peer).unwrap() {
        server.send_with(b"x", peer, &SendOptions::new().path(path.id)).unwrap();
        let arrival = client.recv_with(&mut [0; 9], Some(SOON)).unwrap();
        let its = client.paths().into_iter().find(|p| p.slot == path.slot).unwrap();
        assert_eq!(arrival.path, Some(its.id));
    }
    assert_eq!(duplicates(&server), before);

    let pin = |path| SendOptions::new().path(path);
    let unknown = client.send_with(b"x", &pin(PathId(99)));
    assert!(matches!(unknown, Err(Error::UnknownPath(PathId(99)))), "{unknown:?}");
    let dead = client.add_path("to=127.0.0.1:9 name=dead").unwrap();
    let down = client.send_with(b"x", &pin(dead));
    assert!(matches!(down, Err(Error::NoPath)), "{down:?}");
    let unknown = server.send_with(b"x", peer, &pin(PathId(33)));
    assert!(matches!(unknown, Err(Error::UnknownPath(_))), "{unknown:?}");
    let none = server.send_with(b"x", peer, &pin(PathId(30)));
    assert!(matches!(none, Err(Error::NoPath)), "{none:?}");
}

#[test]
fn a_batch_with_wishes_is_taken_whole_whatever_its_sizes() {
    let (server, port) = server();
    let client = tunnel(port, 2);
    let sizes = [0, 1, 1_400, 60_000, 1_400, 65_507, 3, 65_507, 65_507, 0];
    let sent: Vec<Vec<u8>> = (0u8..).zip(sizes).map(|(n, size)| vec![n; size]).collect();
    let wish = SendOptions::new().copies(1).timeout(Some(SOON));

    let taken = client.send_batch_with(sent.iter().map(Vec::as_slice), PeerId(0), &wish).unwrap();

    assert_eq!(taken, sent.len());
    let mut buffer = vec![0; 65_507];
    for datagram in &sent {
        let (len, _) = server.recv_from_timeout(&mut buffer, SOON).unwrap();
        assert_eq!(&buffer[..len], datagram);
    }
    let large = vec![0; 65_508];
    let mixed = [b"fits".as_slice(), &large, b"not reached"];
    assert_eq!(client.send_batch_with(mixed, PeerId(0), &wish).unwrap(), 1);
    let error = client.send_batch_with([&large[..]], PeerId(0), &wish).unwrap_err();
    assert!(matches!(error, Error::PayloadTooLarge { len: 65_508, max: 65_507 }));
    let error = client.send_batch_with([&b"x"[..]], PeerId(5), &wish).unwrap_err();
    assert!(matches!(error, Error::UnknownPeer(PeerId(5))));
    assert_eq!(client.send_batch_with([], PeerId(0), &wish).unwrap(), 0);
}

#[test]
fn applications_behind_one_client_are_peers_that_can_be_answered() {
    let (server, port) = server();
    let client = tunnel(port, 2);
    let mut buffer = [0; 9];
    for flow in [1, 7, 65_534] {
        let to = PeerId(0).with_flow(flow);
        client.send_batch_with([&b"up"[..]], to, &SendOptions::new()).unwrap();
        let (len, peer) = server.recv_from_timeout(&mut buffer, SOON).unwrap();
        assert_eq!((&buffer[..len], peer.flow()), (&b"up"[..], flow));
        assert_eq!(peer.client(), server.peers()[0].id);
        assert_eq!(server.peer(peer).unwrap().id, peer.client());

        server.send_to(b"down", peer).unwrap();
        let arrival = client.recv_with(&mut buffer, Some(SOON)).unwrap();
        assert_eq!((arrival.len, arrival.peer), (4, to));
    }
}
