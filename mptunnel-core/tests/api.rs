// SPDX-License-Identifier: BSD-2-Clause
//! What an application can do with an endpoint beyond sending and receiving, on real sockets.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests wait for threads of the library, against a real clock and with a bound"
)]

use mptunnel_core::options::Role;
use mptunnel_core::{
    Config, Datagram, Endpoint, Error, Event, Handler, PathId, PathInfo, PeerId, PeerInfo,
    SendOptions, Server, Snapshot, SocketHook, Source, Tunnel,
};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

const KEY: [u8; 32] = [7; 32];
/// How long anything may take before a test gives up: generous, for machines that are busy.
const SOON: Duration = Duration::from_secs(15);
/// How long to wait before a look at what has changed.
const A_MOMENT: Duration = Duration::from_millis(50);

fn config() -> Config {
    let mut config = Config::new();
    config.key(&KEY);
    config
}

fn server() -> (Server, u16) {
    let server = Server::builder().key(&KEY).listen("127.0.0.1:0".parse().unwrap()).bind().unwrap();
    let port = server.local_addrs()[0].port();
    (server, port)
}

/// A tunnel with paths that are all up.
fn tunnel(port: u16, paths: usize) -> Tunnel {
    let mut builder = Tunnel::builder().key(&KEY);
    for n in 0..paths {
        builder = builder.path(&format!("to=127.0.0.1:{port} name=p{n}"));
    }
    let tunnel = builder.connect().unwrap();
    wait_for(|| tunnel.paths().iter().all(|path| path.up));
    tunnel
}

fn wait_for(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < deadline, "it does not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn duplicates(server: &Server) -> u64 {
    server.stats().drops.iter().find(|(reason, _)| *reason == "duplicate").unwrap().1
}

#[test]
fn both_ends_open_from_a_line_of_text() {
    let listener = Endpoint::open("mpt-listen://127.0.0.1:0?sessions=3", &config()).unwrap();
    let port = listener.local_addrs()[0].port();
    let mut paths = config();
    paths.set("path", "name=second").unwrap();
    let uri = format!("mpt://127.0.0.1:{port}?path=name=first");
    let client = Endpoint::open(&uri, &paths).unwrap();
    assert_eq!((listener.role(), client.role()), (Role::Server, Role::Client));
    assert!(matches!(listener.add_path("if=lo"), Err(Error::Unsupported(_))));

    client.wait_ready(Some(SOON)).unwrap();
    listener.wait_ready(Some(SOON)).unwrap();
    let mut buffer = [0; 16];
    let before = mptunnel_core::clock();
    client.send_with(b"ping", PeerId(0), &SendOptions::new()).unwrap();
    let arrival = listener.recv_with(&mut buffer, Some(SOON)).unwrap();
    assert_eq!(&buffer[..arrival.len], b"ping");
    assert!((before..=mptunnel_core::clock()).contains(&arrival.time));
    assert!(arrival.path.is_some(), "the server knows which path was the first");
    listener.send_with(b"pong", arrival.peer, &SendOptions::new()).unwrap();
    let arrival = client.recv_with(&mut buffer, Some(SOON)).unwrap();
    assert_eq!((&buffer[..arrival.len], arrival.peer), (&b"pong"[..], PeerId(0)));

    let names = |paths: Vec<mptunnel_core::PathInfo>| {
        paths.into_iter().map(|path| path.name).collect::<Vec<_>>()
    };
    assert_eq!(names(client.paths(PeerId(0)).unwrap()), ["first", "second"]);
    let peer = listener.peers()[0].id;
    wait_for(|| listener.paths(peer).unwrap().len() == 2);
    assert!(matches!(listener.paths(PeerId(99)), Err(Error::UnknownPeer(PeerId(99)))));
    assert!(matches!(client.paths(peer), Err(Error::UnknownPeer(_))));
    assert!(client.snapshot().to_json().contains("\"name\":\"second\""));
    assert!(listener.snapshot().to_prometheus().contains("mptunnel_peers 1\n"));
}

#[test]
fn what_the_uri_says_goes_before_the_config_and_an_option_of_the_other_end_is_refused() {
    let mut both = config();
    both.set("idle-interval", "3s").unwrap();
    both.set("max-payload", "1000").unwrap();
    let client = Endpoint::open("mpt://127.0.0.1:9?max-payload=500", &both).unwrap();
    assert_eq!(client.get("idle-interval").unwrap().as_deref(), Some("3s"));
    assert_eq!(client.max_payload(), 500);

    both.set("sessions", "3").unwrap();
    let refused = Endpoint::open("mpt://127.0.0.1:9", &both).err().unwrap();
    assert_eq!(refused.to_string(), "sessions is not an option of a client: it belongs to server");
    let error = Config::new().set("wndow", "1").unwrap_err();
    assert_eq!(error.to_string(), "unknown option \"wndow\": did you mean \"window\"?");
    let error = Endpoint::open("mpt://127.0.0.1:9", &Config::new()).err().unwrap();
    assert!(error.to_string().starts_with("no key"), "{error}");
    assert!(matches!(Endpoint::open("mpt://", &config()), Err(Error::Config(_))));
}

#[test]
fn a_config_takes_the_options_and_paths_of_a_file_of_either_end() {
    let directory = std::env::temp_dir().join(format!("mptunnel-api-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = |name: &str, text: &str| {
        let file = directory.join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let mut client = config();
    client.load(file("client", "127.0.0.1 9 name=one\nwindow = 8192\n")).unwrap();
    let mut server = config();
    server.load(file("server", "sessions = 17\n")).unwrap();
    let error = config().load(file("wrong", "127.0.0.1 9\nwndow = 1\n")).unwrap_err();
    let missing = config().load(directory.join("missing")).unwrap_err();
    std::fs::remove_dir_all(&directory).unwrap();

    let client = Endpoint::open("mpt://127.0.0.1:10", &client).unwrap();
    assert_eq!(client.get("window").unwrap().as_deref(), Some("8192"));
    assert_eq!(client.paths(PeerId(0)).unwrap()[0].words, "to=127.0.0.1:9 name=one");
    let server = Endpoint::open("mpt-listen://127.0.0.1:0", &server).unwrap();
    assert_eq!(server.get("sessions").unwrap().as_deref(), Some("17"));
    assert!(error.to_string().contains(":2: unknown option \"wndow\""), "{error}");
    assert!(missing.to_string().contains("missing"), "{missing}");
}

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
fn a_path_whose_name_another_one_has_can_be_changed_in_all_else() {
    let (_server, port) = server();
    let client = tunnel(port, 1);
    let [first, second] = [0, 1].map(|_| client.add_path(&format!("to=127.0.0.1:{port}")).unwrap());

    client.set_path(first, "role", "backup").unwrap();
    client.set_path(second, "name", "other").unwrap();

    let path = |id| client.paths().into_iter().find(|path| path.id == id).unwrap();
    assert!(path(first).backup);
    let taken = client.set_path(second, "name", &path(first).name).unwrap_err();
    assert!(taken.to_string().contains("another path has the name"), "{taken}");
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
    assert_eq!((&*path(first).name, &*path(second).name), ("renamed", "p1"));
    // One that nobody named is called after where it leads.
    let third = client.add_path(&format!("to=127.0.0.1:{port}")).unwrap();
    assert_eq!(path(third).name, format!("127.0.0.1:{port}"));
    client.set_path(third, "to", &format!("127.0.0.1:{other_port}")).unwrap();
    assert_eq!(path(third).name, format!("127.0.0.1:{other_port}"));

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

/// A forwarder between one client and a server, which swallows the next packet with a datagram in
/// a direction when it is told to.
struct Forwarder {
    port: u16,
    swallow: Arc<[AtomicBool; 2]>,
    stop: Arc<AtomicBool>,
}

impl Forwarder {
    fn to(server: u16) -> Self {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (front, back) = (bind(), bind());
        back.connect(("127.0.0.1", server)).unwrap();
        let made = Forwarder {
            port: front.local_addr().unwrap().port(),
            swallow: Arc::default(),
            stop: Arc::default(),
        };
        let client = Arc::new(Mutex::new(None));
        for (way, from, to) in [(0, front.try_clone(), back.try_clone()), (1, Ok(back), Ok(front))]
        {
            let (from, to, client) = (from.unwrap(), to.unwrap(), client.clone());
            let (swallow, stop) = (made.swallow.clone(), made.stop.clone());
            from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 2_048];
                while !stop.load(Relaxed) {
                    let Ok((len, source)) = from.recv_from(&mut buffer) else { continue };
                    let is_data = matches!(buffer[0], 7 | 8);
                    if is_data && swallow[way].swap(false, Relaxed) {
                        continue;
                    }
                    // An end that has closed is no concern of this test.
                    let _ = match way {
                        0 => {
                            *client.lock().unwrap() = Some(source);
                            to.send(&buffer[..len])
                        }
                        _ => to.send_to(&buffer[..len], client.lock().unwrap().unwrap()),
                    };
                }
            });
        }
        made
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// Tells what comes, and when, on the receive thread.
struct Teller(mpsc::Sender<(Vec<u8>, Instant)>);

impl Handler for Teller {
    fn datagram(&mut self, _: &Source, bytes: &[u8]) {
        self.0.send((bytes.to_vec(), Instant::now())).unwrap();
    }
}

#[test]
fn what_waits_for_a_lost_datagram_is_delivered_in_time_to_queue_and_handler() {
    /// As long as it may be: a machine that is busy must not take it for the time between two
    /// datagrams.
    const HOLD: Duration = Duration::from_secs(1);
    let (told, tells) = mpsc::channel();
    let server = Server::builder()
        .key(&KEY)
        .option("reorder", "1s")
        .listen("127.0.0.1:0".parse().unwrap())
        .handler(Teller(told))
        .bind()
        .unwrap();
    let forwarder = Forwarder::to(server.local_addrs()[0].port());
    let tunnel = Tunnel::builder()
        .key(&KEY)
        .option("reorder", "1000")
        .path(&format!("to=127.0.0.1:{}", forwarder.port))
        .connect()
        .unwrap();
    tunnel.wait_ready(Some(SOON)).unwrap();
    let mut buffer = [0; 64];
    let heard = |n: u8| {
        let (bytes, at) = tells.recv_timeout(SOON).unwrap();
        assert_eq!(bytes, [n]);
        at
    };

    // The handler at the server, whose thread sleeps in a read.
    tunnel.send(&[1]).unwrap();
    heard(1);
    forwarder.swallow[0].store(true, Relaxed);
    let start = Instant::now();
    for n in 2..5 {
        tunnel.send(&[n]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(heard(3).duration_since(start) >= HOLD);
    heard(4);
    wait_for(|| server.stats().reorder.given_up == 1);
    assert_eq!((server.stats().reorder.held, server.stats().reorder.late), (2, 0));

    // The queue at the client.
    let peer = server.peers()[0].id;
    server.send_to(&[1], peer).unwrap();
    assert_eq!(tunnel.recv_timeout(&mut buffer, SOON).unwrap(), 1);
    forwarder.swallow[1].store(true, Relaxed);
    let start = Instant::now();
    for n in 2..5 {
        server.send_to(&[n], peer).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    tunnel.recv_timeout(&mut buffer, SOON).unwrap();
    assert_eq!(buffer[0], 3);
    assert!(start.elapsed() >= HOLD);
    tunnel.recv_timeout(&mut buffer, SOON).unwrap();
    assert_eq!(buffer[0], 4);
    wait_for(|| tunnel.stats().reorder.given_up == 1);
}

#[test]
fn a_path_with_a_rate_sends_what_waits_later_and_drops_what_would_come_too_late() {
    let (server, port) = server();
    let tunnel = Tunnel::builder()
        .key(&KEY)
        .path(&format!("to=127.0.0.1:{port} rate=8 mtu=1500"))
        .connect()
        .unwrap();
    wait_for(|| tunnel.paths().iter().all(|path| path.up));
    let path = || tunnel.paths()[0].clone();
    let mut buffer = [0; 2_000];
    let mut receive = || server.recv_from_timeout(&mut buffer, A_MOMENT).is_ok();
    let all = [&[7; 1_000][..]; 200];
    keeps_to_8_mbit_per_second(|| tunnel.send_batch(all).unwrap(), &mut receive, path);

    // Whoever waits for room gets it: more than would fit.
    let patient = SendOptions::new().timeout(Some(SOON));
    wait_for(|| {
        let start = Instant::now();
        let rest = all.into_iter().take(100);
        assert_eq!(tunnel.send_batch_with(rest, PeerId(0), &patient).unwrap(), 100);
        assert!(start.elapsed() >= Duration::from_millis(40), "{:?}", start.elapsed());
        arrivals(&mut receive, path) > 60
    });

    tunnel.set_path(path().id, "rate", "800").unwrap();
    wait_for(|| {
        tunnel.send_batch(all).unwrap();
        arrivals(&mut receive, path) == 200
    });
}

/// How many datagrams arrive until nothing waits on `path` any more.
fn arrivals(mut receive: impl FnMut() -> bool, path: impl Fn() -> PathInfo) -> u64 {
    let mut received = 0;
    wait_for(|| {
        let waits = path().queue.is_some_and(|queue| queue.packets > 0);
        let came = receive();
        received += u64::from(came);
        !waits && !came
    });
    received
}

/// Of 200 datagrams of 1,000 bytes that are sent at once no more leave than 8 Mbit/s have room for,
/// and the rest is dropped.
fn keeps_to_8_mbit_per_second(
    send: impl Fn(),
    mut receive: impl FnMut() -> bool,
    path: impl Fn() -> PathInfo,
) {
    // 1,064 bytes with headers of 1,000,000 per second: 5 leave at once, 47 within 50 ms. What a
    // machine that is busy would send too late is dropped as well: then once more.
    wait_for(|| {
        let (before, start) = (path().send_dropped, Instant::now());
        send();
        let sending = u64::try_from(start.elapsed().as_millis()).unwrap();
        let received = arrivals(&mut receive, &path);
        assert_eq!(received + path().send_dropped - before, 200);
        assert!(received <= 52 + sending, "{received} of 200 in {sending} ms");
        let least = Duration::from_millis(received.saturating_sub(5));
        assert!(start.elapsed() >= least, "{received} in {:?}", start.elapsed());
        received >= 20
    });
}

#[test]
fn what_waits_on_a_path_with_a_rate_is_seen_while_it_waits() {
    let (server, port) = server();
    let tunnel = Tunnel::builder()
        .key(&KEY)
        .path(&format!("to=127.0.0.1:{port} rate=8 mtu=1500 name=slow"))
        .path(&format!("to=127.0.0.1:{port} name=fast"))
        .connect()
        .unwrap();
    wait_for(|| tunnel.paths().iter().all(|path| path.up));
    let datagrams = vec![[7; 1_000]; 20];

    // It takes 15 ms to leave, in which this thread may be asleep: then another one.
    wait_for(|| {
        tunnel.send_batch(datagrams.iter().map(|datagram| &datagram[..])).unwrap();
        let [slow, fast] = &tunnel.paths()[..] else { panic!("two paths") };
        let queue = slow.queue.unwrap();
        assert!(queue.packets <= 60 && (queue.packets == 0) == (queue.bytes == 0), "{queue:?}");
        assert!(queue.bytes.div_ceil(queue.packets.max(1)) < 1_100, "{queue:?}");
        assert!(fast.queue.is_none(), "it has no rate");
        queue.bytes >= 1_000 && queue.delay > Duration::ZERO
    });
    wait_for(|| tunnel.paths()[0].queue.unwrap().packets == 0);

    let peer = server.peers()[0].id;
    assert!(server.paths(peer).unwrap().iter().all(|path| path.queue.is_none()));
}

#[test]
fn a_server_keeps_to_the_rate_that_its_client_names_and_drops_what_would_come_too_late() {
    // Finding out the MTU of the loopback interface would take all of the rate.
    let builder = Server::builder().key(&KEY).option("mtu", "1500");
    let server = builder.listen("127.0.0.1:0".parse().unwrap()).bind().unwrap();
    let port = server.local_addrs()[0].port();
    let paths =
        [format!("to=127.0.0.1:{port} rate-down=8 mtu=1500"), format!("to=127.0.0.1:{port}")];
    let tunnel = Tunnel::builder().key(&KEY).path(&paths[0]).connect().unwrap();
    wait_for(|| tunnel.paths().iter().all(|path| path.up));
    wait_for(|| server.peers().first().is_some_and(|peer| peer.paths[0].queue.is_some()));
    let peer = server.peers()[0].id;
    let path = |slot: usize| server.paths(peer).unwrap()[slot].clone();
    let mut buffer = [0; 2_000];
    let mut receive = || tunnel.recv_timeout(&mut buffer, A_MOMENT).is_ok();
    let all = [&[7; 1_000][..]; 200];
    keeps_to_8_mbit_per_second(
        || server.send_batch_to(all, peer).unwrap(),
        &mut receive,
        || path(0),
    );

    // Whoever waits for room gets it, more than would fit, and another client knows nothing of it.
    let other = Tunnel::builder().key(&KEY).path(&paths[1]).connect().unwrap();
    wait_for(|| server.peers().iter().any(|its| its.id != peer && its.paths[0].up));
    let other_peer = server.peers().iter().find(|its| its.id != peer).unwrap().id;
    let patient = SendOptions::new().timeout(Some(SOON));
    wait_for(|| {
        let rest = all.into_iter().take(100);
        assert_eq!(server.send_batch_with(rest, peer, &patient).unwrap(), 100);
        server.send_to(b"at once", other_peer).unwrap();
        assert_eq!(other.recv_timeout(&mut [0; 100], SOON).unwrap(), 7);
        arrivals(&mut receive, || path(0)) > 60
    });
    assert!(server.paths(other_peer).unwrap()[0].queue.is_none());

    // Another rate, and what waits is seen until it has left.
    let id = tunnel.paths()[0].id;
    tunnel.set_path(id, "rate-down", "0.5").unwrap();
    wait_for(|| {
        server.send_batch_to(all.into_iter().take(4), peer).unwrap_or_default();
        path(0).queue.unwrap().packets > 0
    });
    wait_for(|| path(0).queue.unwrap().packets == 0);
    tunnel.set_path(id, "rate-down", "800").unwrap();
    wait_for(|| {
        let before = path(0).send_dropped;
        server.send_batch_to(all, peer).unwrap_or_default();
        path(0).send_dropped == before
    });
}

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
