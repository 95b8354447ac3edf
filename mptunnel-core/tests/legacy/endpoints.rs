// SPDX-License-Identifier: BSD-2-Clause
//! The mode in the library, on real sockets: the same calls as ever.

#![allow(clippy::disallowed_methods, reason = "one test waits for threads of the library")]

use mptunnel_core::{
    Config, Datagram, Endpoint, Error, Event, PeerId, SendOptions, Server, Tunnel,
};
use std::time::{Duration, Instant};

/// For machines that are busy.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(15));

fn pair(options: &str) -> (Endpoint, Endpoint) {
    let uri = format!("mpt-listen://127.0.0.1:0?protocol=legacy{options}");
    let server = Endpoint::open(&uri, &Config::new()).unwrap();
    let Endpoint::Server(bound) = &server else { unreachable!() };
    let port = bound.local_addrs()[0].port();
    let uri = format!("mpt://127.0.0.1:{port}?protocol=legacy{options}&path=name=a&path=name=b");
    let client = Endpoint::open(&uri, &Config::new()).unwrap();
    client.wait_ready(PATIENCE).unwrap();
    server.wait_ready(PATIENCE).unwrap();
    (client, server)
}

fn recv(end: &Endpoint) -> (Vec<u8>, PeerId) {
    let mut buffer = vec![0; 65_536];
    let arrival = end.recv_with(&mut buffer, PATIENCE).unwrap();
    (buffer[..arrival.len].to_vec(), arrival.peer)
}

#[test]
fn both_ends_talk_through_the_calls_of_the_library() {
    for options in ["", "&obfuscate=on"] {
        let (client, server) = pair(options);
        let plain = SendOptions::new();
        for size in [0, 1, 1_400, 65_491] {
            client.send_with(&vec![7; size], PeerId(0), &plain).unwrap();
            let (datagram, peer) = recv(&server);
            assert_eq!(datagram, vec![7; size]);
            server.send_with(&datagram, peer, &plain).unwrap();
            assert_eq!(recv(&client).0, vec![7; size]);
        }
        assert_eq!(client.max_payload(), 65_491);
        let refused = client.send_with(&[0; 65_492], PeerId(0), &plain);
        assert!(matches!(refused, Err(Error::PayloadTooLarge { len: 65_492, max: 65_491 })));
        // One copy on each path, and each datagram once.
        // Each path has sent its signs of life as well, and the last copies are on their way still.
        let paths = || client.paths(PeerId(0)).unwrap();
        let drops = || server.stats().drops;
        let removed = || drops().iter().find(|(name, _)| *name == "duplicate").unwrap().1;
        let deadline = Instant::now() + PATIENCE.unwrap();
        while !paths().iter().all(|path| path.up && path.sent >= 5) || removed() < 3 {
            assert!(Instant::now() < deadline, "{:?}, {} removed", paths(), removed());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn wishes_are_granted_where_the_protocol_has_room_for_them() {
    let (client, server) = pair("");
    let path = client.paths(PeerId(0)).unwrap()[1].id;
    client.send_with(b"one", PeerId(0), &SendOptions::new().path(path)).unwrap();
    client.send_with(b"two", PeerId(0), &SendOptions::new().copies(1)).unwrap();
    assert_eq!((recv(&server).0, recv(&server).0), (b"one".to_vec(), b"two".to_vec()));
    assert_eq!(server.stats().drops.iter().find(|(name, _)| *name == "duplicate").unwrap().1, 0);

    let many: Vec<Vec<u8>> = (0..2_000u32).map(|n| n.to_le_bytes().to_vec()).collect();
    let patient = SendOptions::new().timeout(PATIENCE);
    let datagrams = many.iter().map(Vec::as_slice);
    assert_eq!(client.send_batch_with(datagrams, PeerId(0), &patient).unwrap(), 2_000);
    let mut slots = vec![Datagram::with_capacity(100); 2_000];
    let mut taken = 0;
    while taken < 2_000 {
        taken += server.recv_batch(&mut slots[taken..], PATIENCE).unwrap();
    }
    assert!(slots.iter().zip(&many).all(|(slot, sent)| slot.bytes() == sent));
    assert!(matches!(
        client.send_with(b"x", PeerId(7), &SendOptions::new()),
        Err(Error::UnknownPeer(_))
    ));
}

#[test]
fn what_happens_is_told_and_closing_wakes_who_waits() {
    let (client, server) = pair("");
    let until = |end: &Endpoint, wanted: fn(&Event) -> bool| {
        while !wanted(&end.next_event(PATIENCE).unwrap()) {}
    };
    until(&client, |event| matches!(event, Event::PathUp(..)));
    // Our server answers a sign of life with one.
    until(&client, |event| matches!(event, Event::Connected));
    until(&server, |event| matches!(event, Event::PeerUp(_)));
    until(&server, |event| matches!(event, Event::PeerPathUp(..)));
    assert!(client.stats().connected && server.stats().connected);
    assert_eq!(server.peers().len(), 1);
    assert!(client.snapshot().to_json().contains("\"cipher\":\"none\""));

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.recv_with(&mut [0; 10], None));
        server.interrupt();
        while !waiting.is_finished() {
            server.interrupt();
            std::thread::yield_now();
        }
        assert!(matches!(waiting.join().unwrap(), Err(Error::Interrupted)));
    });
    client.close();
    server.close();
    assert!(matches!(client.recv_with(&mut [0; 10], None), Err(Error::Closed)));
    let refused = client.send_with(b"x", PeerId(0), &SendOptions::new());
    assert!(matches!(refused, Err(Error::Closed)));
}

#[test]
fn paths_come_and_go_and_change_while_it_runs() {
    let (client, server) = pair("");
    let Endpoint::Server(bound) = &server else { unreachable!() };
    let port = bound.local_addrs()[0].port();
    let [first, second] = client.paths(PeerId(0)).unwrap().try_into().unwrap();
    let third = client.add_path(&format!("to=127.0.0.1:{port} name=c")).unwrap();
    client.remove_path(first.id).unwrap();
    client.set_path(second.id, "to", &format!("127.0.0.2:{port}")).unwrap();
    assert!(matches!(client.remove_path(first.id), Err(Error::UnknownPath(_))));
    assert!(matches!(
        client.send_with(b"x", PeerId(0), &SendOptions::new().path(first.id)),
        Err(Error::UnknownPath(_))
    ));

    let only = SendOptions::new().path(third).timeout(PATIENCE);
    let sent = (0..1_000).any(|_| match client.send_with(b"third", PeerId(0), &only) {
        Ok(()) => true,
        Err(Error::NoPath) => {
            let _ = client.next_event(Some(Duration::from_millis(10)));
            false
        }
        Err(error) => panic!("{error}"),
    });
    assert!(sent, "the new path has no socket");
    assert_eq!(recv(&server).0, b"third");
}

#[test]
#[allow(clippy::disallowed_types, reason = "it holds a port")]
fn errors_of_sockets_are_counted_by_number_of_each_path_and_of_those_that_are_gone() {
    // Nobody listens on this port of the neighbouring address.
    let held = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let uri = format!("mpt://127.0.0.2:{port}?protocol=legacy&path=name=a");
    let client = Endpoint::open(&uri, &Config::new()).unwrap();
    // It speaks by itself, and is refused.
    while !matches!(client.next_event(PATIENCE).unwrap(), Event::PathDown(..)) {}

    let path = client.paths(PeerId(0)).unwrap().remove(0);
    client.remove_path(path.id).unwrap();
    let stats = client.stats();

    let refused = |errors: &[(i32, u64)]| match errors {
        [(libc::ECONNREFUSED, count)] => *count,
        other => panic!("{other:?}"),
    };
    assert!(refused(&path.errors) >= 1 && refused(&stats.errors) >= refused(&path.errors));
    assert_eq!(stats.socket_errors, refused(&stats.errors));
    assert!(client.snapshot().to_json().contains("\"errors\":{\"ECONNREFUSED\":"));
}

#[test]
fn protection_that_is_asked_for_in_vain_is_refused() {
    let tunnel = || Tunnel::builder().server("127.0.0.1:9").option("protocol", "legacy");
    let error = tunnel().key(&[1; 32]).connect().err().unwrap().to_string();
    assert!(error.contains("protocol = legacy has no keys"), "{error}");
    let server = Server::builder().port(0).option("protocol", "legacy");
    assert!(server.option("threads", "2").bind().is_err());
    assert_eq!(tunnel().connect().unwrap().key_id(), "none");
}
