// SPDX-License-Identifier: BSD-2-Clause
//! What changes while an endpoint runs: its paths, its options, and that it ends.

use crate::{A_MOMENT, KEY, SOON, config, duplicates, server, tunnel, wait_for};
use mptunnel_core::{Datagram, Endpoint, Error, Event, PathId, Server, SocketHook, Tunnel};
use std::sync::{Arc, Mutex};

#[test]
fn a_host_sees_every_socket_with_the_words_of_its_path_and_may_refuse_it() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = seen.clone();
    let hook = SocketHook::new(move |_, words| {
        notes.lock().unwrap().push(words.to_owned());
        if words.contains("name=refused") {
            return Err(std::io::Error::from_raw_os_error(libc::EPERM));
        }
        Ok(())
    });
    let mut config = config();
    config.socket_hook(Some(hook));
    let server = Endpoint::open("mpt-listen://127.0.0.1:0", &config).unwrap();
    let port = server.local_addrs()[0].port();
    let uri = format!("mpt://127.0.0.1:{port}?path=name=taken&path=name=refused");
    let client = Endpoint::open(&uri, &config).unwrap();

    client.wait_ready(Some(SOON)).unwrap();
    loop {
        if let Event::PathDown(_, name, why) = client.next_event(Some(SOON)).unwrap() {
            assert!(name == "refused" && why.contains("socket hook"), "{name}: {why}");
            break;
        }
    }

    let seen = seen.lock().unwrap();
    assert_eq!(seen[0], "listen=127.0.0.1:0");
    assert!(seen.contains(&format!("to=127.0.0.1:{port} name=taken")), "{seen:?}");
    drop(seen);
    let no = SocketHook::new(|_, _| Err(std::io::Error::from_raw_os_error(libc::EPERM)));
    config.socket_hook(Some(no));
    let refused = Endpoint::open("mpt-listen://127.0.0.1:0", &config);
    assert!(matches!(refused, Err(Error::Io { .. })));
}

#[test]
fn no_two_paths_have_the_same_name() {
    let (_server, port) = server();
    let client = tunnel(port, 1);
    let to = format!("to=127.0.0.1:{port}");
    let [first, second] = [0, 1].map(|_| client.add_path(&to).unwrap());
    let path = |id| client.paths().into_iter().find(|path| path.id == id).unwrap();
    let name = path(first).name;
    assert_eq!((&*name, path(second).name), (&to["to=".len()..], format!("{name}#2")));

    client.set_path(second, "name", "other").unwrap();

    for taken in [
        client.set_path(second, "name", &name).unwrap_err(),
        client.add_path(&format!("{to} name=other")).unwrap_err(),
    ] {
        assert!(taken.to_string().contains("another path has the name"), "{taken}");
    }
}

#[test]
fn a_path_changes_while_the_tunnel_runs() {
    let (server, port) = server();
    let (other, other_port) = self::server();
    let client = tunnel(port, 2);
    let [first, second] = [0, 1].map(|n| client.paths()[n].id);
    let path = |id| client.paths().into_iter().find(|path| path.id == id).unwrap();

    client.set_path(first, "name", "renamed").unwrap();
    assert_eq!(path(first).name, "renamed");
    let taken = client.set_path(second, "name", "renamed").unwrap_err();
    assert!(taken.to_string().contains("another path has the name"), "{taken}");

    client.set_path(second, "role", "backup").unwrap();
    assert!(path(second).backup);
    let before = duplicates(&server);
    let mut buffer = [0; 9];
    for _ in 0..5 {
        client.send(b"x").unwrap();
        server.recv_from_timeout(&mut buffer, SOON).unwrap();
    }
    assert_eq!(duplicates(&server), before, "a backup carries nothing beside an active path");

    let whole = path(first).max_packet;
    client.set_path(first, "mtu", "1000").unwrap();
    wait_for(|| path(first).max_packet == 1000 - 28 && path(first).max_packet < whole);

    client.set_path(first, "to", &format!("127.0.0.1:{other_port}")).unwrap();
    client.set_path(second, "to", &format!("127.0.0.1:{other_port}")).unwrap();
    wait_for(|| path(first).remote.is_some_and(|remote| remote.port() == other_port));
    other.wait_ready(Some(SOON)).unwrap();
    assert_eq!(path(first).name, "renamed");
    let plain = client.add_path(&format!("to=127.0.0.1:{port}")).unwrap();
    client.set_path(plain, "to", &format!("127.0.0.1:{other_port}")).unwrap();
    assert_eq!(path(plain).name, format!("127.0.0.1:{other_port}"), "nobody gave it a name");

    client.set_path(first, "weight", "3").unwrap();
    assert!(path(first).words.contains("weight=3"), "{}", path(first).words);
    let wrong = client.set_path(first, "mtu", "1").unwrap_err();
    assert!(wrong.to_string().contains("from 576 to 65535"), "{wrong}");
    let wrong = client.set_path(first, "nam", "x").unwrap_err();
    assert!(wrong.to_string().contains("did you mean \"name=\""), "{wrong}");
    let unknown = client.set_path(PathId(99), "name", "x");
    assert!(matches!(unknown, Err(Error::UnknownPath(PathId(99)))));
}

#[test]
fn options_that_are_live_change_at_once_and_others_say_that_they_do_not() {
    let (server, port) = server();
    let client = tunnel(port, 1);

    // The smallest queue holds no two of the largest datagrams.
    server.set("receive-queue", "64KiB").unwrap();
    assert_eq!(server.get("receive-queue").unwrap().as_deref(), Some("64KiB"));
    for _ in 0..3 {
        client.send(&[0; 40_000]).unwrap();
    }
    wait_for(|| server.stats().queue_dropped == 2);

    let fixed = client.set("window", "8192").unwrap_err();
    assert!(fixed.to_string().starts_with("window counts only at the start"), "{fixed}");
    assert_eq!(client.get("window").unwrap().as_deref(), Some("262144"));
    let foreign = client.set("sessions", "1").unwrap_err();
    assert!(foreign.to_string().starts_with("sessions is not an option of a client"), "{foreign}");
    assert!(client.get("sessions").is_err() && client.get("no-such").is_err());
    assert!(matches!(client.set("idle-interval", "1us"), Err(Error::Config(_))));
    assert_eq!(client.get("name").unwrap(), None);

    server.set("sessions", "1").unwrap();
    let second = Tunnel::builder().key(&KEY).path(&format!("to=127.0.0.1:{port}")).connect();
    let refused = second.unwrap().wait_ready(Some(SOON));
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    server.set("session-timeout", "1s").unwrap();
    client.set_path(client.paths()[0].id, "to", "127.0.0.1:9").unwrap();
    wait_for(|| server.peers().is_empty());
}

#[test]
fn an_interruption_and_the_end_return_every_call_that_waits() {
    for close in [false, true] {
        let (server, port) = server();
        let client = tunnel(port, 1);
        let lonely = Tunnel::builder().key(&KEY).path("to=127.0.0.1:9").connect().unwrap();
        let empty = Server::builder().key(&KEY).port(0).bind().unwrap();
        // Nothing else happens from then on.
        while !matches!(client.next_event(Some(SOON)).unwrap(), Event::PathUp(..)) {}
        while !matches!(server.next_event(Some(SOON)).unwrap(), Event::PeerPathUp(..)) {}
        std::thread::scope(|scope| {
            let calls = [
                scope.spawn(|| client.recv(&mut [0; 9]).map(drop)),
                scope.spawn(|| client.recv_batch(&mut [Datagram::default()], None).map(drop)),
                scope.spawn(|| client.next_event(None).map(drop)),
                scope.spawn(|| server.recv_from(&mut [0; 9]).map(drop)),
                scope.spawn(|| server.next_event(None).map(drop)),
                scope.spawn(|| lonely.wait_ready(None)),
                scope.spawn(|| empty.wait_ready(None)),
            ];
            // Only who waits by then is interrupted, which cannot be seen from here.
            wait_for(|| {
                std::thread::sleep(A_MOMENT);
                for tunnel in [&client, &lonely] {
                    if close { tunnel.close() } else { tunnel.interrupt() }
                }
                for server in [&server, &empty] {
                    if close { server.close() } else { server.interrupt() }
                }
                calls.iter().all(|call| call.is_finished())
            });
            for call in calls {
                let outcome = call.join().unwrap();
                match (close, &outcome) {
                    (false, Err(Error::Interrupted)) | (true, Err(Error::Closed)) => {}
                    _ => panic!("{outcome:?}"),
                }
            }
        });
    }
}
