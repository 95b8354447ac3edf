// SPDX-License-Identifier: BSD-2-Clause
//! A tunnel and a server in one process, over real sockets on loopback.

use super::{KEY, SOON, server};
use mptunnel_core::{Error, Event, Server, Tunnel};
use std::time::{Duration, Instant};

/// A tunnel whose paths may not be up yet.
fn tunnel(port: u16, paths: usize) -> Tunnel {
    let mut builder = Tunnel::builder().key(&KEY);
    for _ in 0..paths {
        builder = builder.path(&format!("to=127.0.0.1:{port}"));
    }
    builder.connect().unwrap()
}

#[test]
fn datagrams_of_every_size_pass_whole_and_once_both_ways() {
    let (server, port) = server();
    let client = tunnel(port, 3);
    client.wait_ready(Some(SOON)).unwrap();
    let mut buffer = vec![0; 65_507];

    for size in [0, 1, 1_200, 1_400, 1_472, 9_000, 60_000, 65_507] {
        let sent: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        client.send(&sent).unwrap();
        let (len, peer) = server.recv_from_timeout(&mut buffer, SOON).unwrap();
        assert_eq!(&buffer[..len], sent, "{size} up");
        server.send_to(&sent, peer).unwrap();
        let len = client.recv_timeout(&mut buffer, SOON).unwrap();
        assert_eq!(&buffer[..len], sent, "{size} down");
    }

    let copies = client.recv_timeout(&mut buffer, Duration::from_millis(200));
    assert!(matches!(copies, Err(Error::TimedOut(_))), "{copies:?}");
}

#[cfg(feature = "ring")]
#[test]
fn the_cipher_is_that_of_the_option_and_can_be_seen_at_both_ends() {
    let with = |cipher: &str| {
        let listen = "127.0.0.1:0".parse().unwrap();
        let server = Server::builder().key(&KEY).listen(listen).option("cipher", cipher);
        let server = server.bind().unwrap();
        let path = format!("to={}", server.local_addrs()[0]);
        (server, Tunnel::builder().key(&KEY).path(&path))
    };
    // `auto` on one machine is `auto` with the same hardware twice.
    for (cipher, name) in [("chacha20", "chacha20-poly1305"), ("aes256gcm", "aes-256-gcm")] {
        let (server, client) = with(cipher);
        let client = client.option("cipher", cipher).connect().unwrap();
        client.wait_ready(Some(SOON)).unwrap();
        client.send(b"hello").unwrap();
        let (len, peer) = server.recv_from_timeout(&mut [0; 8], SOON).unwrap();
        server.send_to(b"world", peer).unwrap();
        assert_eq!((len, client.recv_timeout(&mut [0; 8], SOON).unwrap()), (5, 5));
        assert_eq!((client.stats().cipher, server.peers()[0].cipher), (name, name));
    }

    let (_server, client) = with("aes256gcm");
    let client = client.option("cipher", "chacha20").connect().unwrap();
    let refused = client.wait_ready(Some(SOON)).unwrap_err();
    assert!(matches!(refused, Error::Refused(_)));
    let text = refused.to_string();
    for words in ["cipher=chacha20 at the client", "cipher=aes256gcm at the server"] {
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(client.stats().cipher, "");
}

#[test]
fn a_datagram_above_the_maximum_is_refused_with_the_maximum_in_the_message() {
    let (_server, port) = server();
    let client = tunnel(port, 1);
    client.wait_ready(Some(SOON)).unwrap();

    let refused = client.send(&vec![0; 65_508]).unwrap_err();

    assert!(matches!(refused, Error::PayloadTooLarge { len: 65_508, max: 65_507 }));
    assert!(refused.to_string().contains("65507"), "{refused}");
}

#[test]
fn a_path_that_cannot_work_is_told_once_and_with_its_cause() {
    let client = Tunnel::builder()
        .key(&KEY)
        .path("to=127.0.0.1:9 name=refused")
        .path("to=no-such-host.invalid:9 name=lost")
        .connect()
        .unwrap();

    let mut told = Vec::new();
    loop {
        // Both, and then nothing more for a while.
        let wait = if told.len() < 2 { SOON } else { Duration::from_secs(2) };
        match client.next_event(Some(wait)) {
            Ok(Event::PathDown(_, name, why)) => told.push((name, why)),
            Ok(_) => {}
            Err(_) => break,
        }
    }

    told.sort();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].0 == "lost" && told[0].1.contains("does not resolve"), "{told:?}");
    assert!(told[1].0 == "refused" && told[1].1.contains("nothing listens there"), "{told:?}");
}

#[test]
fn without_a_server_sending_says_that_there_is_no_connection_and_silence_is_told() {
    let client = tunnel(9, 1);

    assert!(matches!(client.send(b"x"), Err(Error::NotConnected(_))));
    let ready = client.wait_ready(Some(Duration::from_millis(50)));
    assert!(matches!(ready, Err(Error::NotConnected(_))), "{ready:?}");
    loop {
        let event = client.next_event(Some(SOON)).unwrap();
        if matches!(event, Event::ServerSilent(_)) {
            assert!(event.to_string().contains("different keys"), "{event}");
            break;
        }
    }
}

#[test]
fn a_path_may_be_added_and_removed_while_datagrams_flow() {
    let (server, port) = server();
    let client = tunnel(port, 1);
    client.wait_ready(Some(SOON)).unwrap();
    let first = client.paths()[0].id;
    let second = client.add_path(&format!("to=127.0.0.1:{port} name=second")).unwrap();
    let mut buffer = [0; 100];
    let mut exchange = |n: u8| {
        client.send(&[n]).unwrap();
        let (len, peer) = server.recv_from_timeout(&mut buffer, SOON).unwrap();
        assert_eq!(&buffer[..len], [n]);
        server.send_to(&[n], peer).unwrap();
        assert_eq!(client.recv_timeout(&mut buffer, SOON).unwrap(), 1);
    };
    (0..10).for_each(&mut exchange);
    loop {
        let event = client.next_event(Some(SOON)).unwrap();
        if matches!(&event, Event::PathUp(id, _) if *id == second) {
            break;
        }
    }

    client.remove_path(first).unwrap();
    (10..20).for_each(&mut exchange);

    assert_eq!(client.paths().iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["second"]);
    assert!(matches!(client.remove_path(first), Err(Error::UnknownPath(_))));
}

#[test]
fn closing_returns_waiting_calls_and_tells_the_other_end() {
    let (server, port) = server();
    let client = tunnel(port, 2);
    client.wait_ready(Some(SOON)).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.recv(&mut [0; 10]));
        client.close();
        assert!(matches!(waiting.join().unwrap(), Err(Error::Closed)));
    });
    assert!(matches!(client.send(b"x"), Err(Error::Closed)));
    loop {
        let event = server.next_event(Some(SOON)).unwrap();
        if matches!(event, Event::PeerGone(..)) {
            break;
        }
    }
}

#[test]
fn several_threads_deliver_everything_once_and_end_with_their_endpoint() {
    const EACH: u32 = 500;
    let server = Server::builder()
        .key(&KEY)
        .listen("127.0.0.1:0".parse().unwrap())
        .option("threads", "4")
        .bind()
        .unwrap();
    let port = server.local_addrs()[0].port();
    let clients: Vec<Tunnel> = (0..8)
        .map(|_| {
            let mut builder = Tunnel::builder().key(&KEY);
            for _ in 0..4 {
                builder = builder.path(&format!("to=127.0.0.1:{port}"));
            }
            builder.connect().unwrap()
        })
        .collect();
    let mut buffer = [0; 100];

    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| {
                client.wait_ready(Some(SOON)).unwrap();
                for number in 0..EACH {
                    client.send(&number.to_le_bytes()).unwrap();
                }
            });
        }
        let mut seen = std::collections::HashMap::new();
        for _ in 0..EACH * 8 {
            let (len, peer) = server.recv_from_timeout(&mut buffer, SOON).unwrap();
            let count = seen.entry((peer, buffer[..len].to_vec())).or_insert(0);
            *count += 1;
            assert_eq!((len, *count), (4, 1));
            server.send_to(&buffer[..len], peer).unwrap();
        }
    });
    for client in &clients {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..EACH {
            let len = client.recv_timeout(&mut buffer, SOON).unwrap();
            assert!(seen.insert(buffer[..len].to_vec()));
        }
    }

    // They are joined within a bound, which `close` reports to the log only. The kernel lists them
    // for a moment longer.
    let threads = || {
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter(|task| {
                let name = std::fs::read_to_string(task.as_ref().unwrap().path().join("comm"));
                name.is_ok_and(|name| name.trim() == "mpt-receive-3")
            })
            .count()
    };
    assert!(threads() > 0);
    server.close();
    let deadline = Instant::now() + SOON;
    while threads() > 0 {
        assert!(Instant::now() < deadline, "a thread is left");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn one_handler_for_several_threads_is_refused_with_what_to_do() {
    struct Nobody;
    impl mptunnel_core::Handler for Nobody {
        fn datagram(&mut self, _: &mptunnel_core::Source, _: &[u8]) {}
    }
    let builder = Server::builder().key(&KEY).listen("127.0.0.1:0".parse().unwrap());

    let refused = builder.option("threads", "2").handler(Nobody).bind().err().unwrap().to_string();

    assert!(refused.contains("threads") && refused.contains("`handlers`"), "{refused}");
}
