// SPDX-License-Identifier: BSD-2-Clause
//! What went wrong with the classic mptunnel, one test for each: reproduced in the way that broke
//! it, with what ours does instead.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real time and real sockets"
)]

mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use support::{App, MPCLIENT, MPSERVER, PATIENCE, Program, Service, World, output};

/// A server with an echo behind it, a client connected to it, and an application that works.
fn tunnel(world: &World) -> (Service, Program, Program, App) {
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let client = world.connected_client(&server);
    server.expect("path 0 is up");
    client.expect(" is up");
    let app = App::of(client.address());
    assert_eq!(app.ask(b"before"), b"before");
    (echo, server, client, app)
}

/// Where the client's first path sends from, as the server sees it.
fn path_of_client(server: &Program) -> SocketAddr {
    let line = server.expect("path 0 is up from ");
    line.rsplit("from ").next().unwrap().parse().unwrap()
}

#[test]
fn one_datagram_from_anybody_kills_neither_end() {
    let world = World::new();
    let (_echo, mut server, mut client, app) = tunnel(&world);
    let targets = [server.address(), path_of_client(&server)];

    for target in targets {
        let stranger = App::of(target);
        for byte in 0..=255 {
            stranger.send(&[byte]);
        }
        // A classic header whose length decodes to 0x7fffffff.
        let poison = *b"\x01\0\0\0\x45\x25\x3d\x73\xad\x48\xbc\xa2\xdb\x08\x50\xa3";
        for length in 0..=poison.len() {
            stranger.send(&poison[..length]);
        }
    }

    // The garbage may have filled a buffer.
    app.until_answered();
    assert!(server.is_running() && client.is_running());
}

#[test]
fn no_more_is_passed_on_than_was_received() {
    let world = World::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let target = Service::start(move |datagram, _| {
        record.lock().unwrap().push(datagram.to_vec());
        Some(datagram.to_vec())
    });
    let server = world.server(target.address, &[]);
    let client = world.connected_client(&server);
    let app = App::of(client.address());
    // Fills every buffer with something that must not leave again.
    assert_eq!(app.ask(&[b's'; 9_000]).len(), 9_000);

    // A classic header that claims 600 bytes, with two behind it: to the server nothing, from an
    // application a datagram of 18 bytes like any other.
    let claim = *b"\0\0\0\0\x02\0\0\0\x01\0\0\0\x58\x02\0\0AB";
    App::of(server.address()).send(&claim);
    assert_eq!(app.ask(&claim), claim);

    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2, "the stranger's datagram was passed on");
    assert_eq!(seen[1], claim);
}

#[test]
fn a_stranger_gets_nothing_of_the_tunnel() {
    let world = World::new();
    // Answers each datagram with many, so that there is much to be had.
    let chatty = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = chatty.local_addr().unwrap();
    let server = world.server(address, &[]);
    let client = world.connected_client(&server);
    let app = App::of(client.address());
    app.send(b"subscribe");
    let mut buffer = [0; 100];
    chatty.set_read_timeout(Some(PATIENCE)).unwrap();
    let (_, subscriber) = chatty.recv_from(&mut buffer).unwrap();

    let strangers = [App::of(server.address()), App::of(server.address())];
    strangers[0].send(b"x");
    // A valid header of the classic program: type CTL.
    strangers[1].send(b"\0\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0");
    for _ in 0..100 {
        chatty.send_to(b"for the subscriber only", subscriber).unwrap();
        assert_eq!(app.receive(PATIENCE).as_deref(), Some(&b"for the subscriber only"[..]));
    }

    for stranger in &strangers {
        assert_eq!(stranger.receive(Duration::from_millis(100)), None);
    }
}

#[test]
fn an_end_that_is_restarted_is_not_ignored() {
    let world = World::new();
    let (echo, server, client, app) = tunnel(&world);
    let (server_port, client_port) = (server.port(), client.port());
    for _ in 0..100 {
        app.until_answered();
    }

    // It counts from 1 again, and the other end has seen those numbers.
    client.kill();
    let client = world.start(MPCLIENT, &[&format!("127.0.0.1:{client_port}"), "client.conf"]);
    client.port();
    app.until_answered();

    server.kill();
    let _server = world.server_at(server_port, echo.address, &[]);
    app.until_answered();
}

#[test]
fn an_empty_datagram_stops_nothing_in_either_direction() {
    let world = World::new();
    let (_echo, server, client, app) = tunnel(&world);
    let descriptors = (server.descriptors(), client.descriptors());

    for _ in 0..20 {
        assert_eq!(app.ask(b""), b"", "an empty datagram is a datagram");
    }

    assert_eq!(app.ask(b"after"), b"after");
    server.expect_descriptors(descriptors.0);
    client.expect_descriptors(descriptors.1);
}

#[test]
fn a_closed_target_port_exhausts_nothing_and_is_told_once() {
    let world = World::new();
    let port = support::unused_port();
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let server = world.server(target, &[]);
    let client = world.connected_client(&server);
    let app = App::of(client.address());
    app.send(b"first");
    server.expect_line(&["warn", &format!("target {target}")], PATIENCE);
    let descriptors = server.descriptors();

    for _ in 0..200 {
        app.send(b"to nobody");
        sleep(Duration::from_millis(1));
    }

    server.expect_descriptors(descriptors);
    assert_eq!(server.count(&format!("target {target}: ")), 1, "{}", server.log());
    // Once there is somebody, the same flow reaches them; first with what was still under way.
    let socket = UdpSocket::bind(target).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    app.send(b"at last");
    let mut buffer = [0; 100];
    let last = (0..=200)
        .map(|_| socket.recv(&mut buffer).map(|len| buffer[..len].to_vec()).unwrap())
        .find(|datagram| datagram != b"to nobody");
    assert_eq!(last.as_deref(), Some(&b"at last"[..]));
}

#[cfg(target_os = "linux")]
#[test]
fn a_target_that_cannot_be_found_makes_nothing_spin() {
    let world = World::new();
    let server = world.start(MPSERVER, &["127.0.0.1:0", "no-such-host.invalid", "1"]);
    let client = world.connected_client(&server);
    let app = App::of(client.address());
    server.expect("cannot be found");

    let before = processor_ticks(&server);
    for _ in 0..100 {
        app.send(b"to nobody");
        sleep(Duration::from_millis(10));
    }

    // 100 ticks a second; a program that spins would have used one whole second or more.
    let used = processor_ticks(&server) - before;
    assert!(used < 30, "{used} ticks");
}

/// The processor time that a program has used, in ticks: utime and stime of proc(5).
#[cfg(target_os = "linux")]
fn processor_ticks(program: &Program) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", program.pid())).unwrap();
    // The name, in parentheses, may hold anything; what follows it begins with field 3.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_bridge_that_does_not_resolve_kills_nothing_and_the_others_work() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let config = format!("bridge1.invalid 4000\n127.0.0.1 {}\n", server.port());

    let mut client = world.client(&config, &[]);

    client.expect_line(&["warn", "bridge1.invalid:4000 is down", "does not resolve"], PATIENCE);
    client.expect(" is up");
    assert_eq!(App::of(client.address()).ask(b"hello"), b"hello");
    assert!(client.is_running());
}

#[test]
fn a_configuration_of_the_classic_program_is_taken_with_all_its_oddities() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let config = format!(
        "# bridges\r\n\r\n   \n  127.0.0.1   {port}\r\n#127.0.0.1 1\nlocalhost\t{port}",
        port = server.port()
    );

    let client = world.client(&config, &[]);

    client.expect_count(" is up", 2);
    assert_eq!(App::of(client.address()).ask(b"hello"), b"hello");
}

#[test]
fn the_local_port_is_open_to_this_host_only_unless_told_otherwise() {
    let world = World::new();
    let config = world.write("client.conf", "127.0.0.1 9\n");
    let config = config.to_str().unwrap();
    let port = support::unused_port();

    let closed = world.start(MPCLIENT, &[&port.to_string(), config]);
    closed.expect(&format!("listens on 127.0.0.1:{port}"));
    // Not on all addresses: this one would be taken.
    UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), port)).unwrap();

    let open = world.start(MPCLIENT, &["0.0.0.0:0", config]);
    open.expect("listens on 0.0.0.0:");
    assert!(UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), open.port())).is_err());
}

#[test]
fn the_server_listens_on_the_port_that_it_was_told() {
    let world = World::new();
    let port = support::unused_port();

    let server = world.start(MPSERVER, &[&port.to_string(), "127.0.0.1", "9"]);

    assert_eq!(server.port(), port);
    assert!(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_err(), "nobody has the port");
}

#[test]
fn both_families_reach_a_server() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let port = server.port();
    let client = world.client(&format!("::1 {port} name=six\n127.0.0.1 {port} name=four\n"), &[]);

    client.expect("path four is up");
    if UdpSocket::bind("[::1]:0").is_ok() {
        client.expect("path six is up");
    }
    assert_eq!(App::of(client.address()).ask(b"hello"), b"hello");
}

#[test]
fn failure_is_no_success() {
    let world = World::new();
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let config = world.write("client.conf", "127.0.0.1 9\n");
    let config = config.to_str().unwrap();
    let code = |program, args: &[&str]| output(world.command(program, args)).0;

    assert_eq!(code(MPSERVER, &[&taken, "localhost", "9"]), Some(1));
    assert_eq!(code(MPCLIENT, &[&taken, config]), Some(1));
    assert_eq!(code(MPSERVER, &["70000", "localhost", "9"]), Some(2));
    assert_eq!(code(MPSERVER, &["2000", "localhost", "70000"]), Some(2));
    assert_eq!(code(MPSERVER, &["2000"]), Some(2));
    assert_eq!(code(MPCLIENT, &[]), Some(2));
    assert_eq!(code(MPCLIENT, &["70000", config]), Some(2));
}

#[test]
fn large_datagrams_keep_their_shape_in_both_directions() {
    let world = World::new();
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let record = sizes.clone();
    let target = Service::start(move |datagram, _| {
        record.lock().unwrap().push(datagram.len());
        Some(datagram.to_vec())
    });
    let server = world.server(target.address, &[]);
    let client = world.connected_client(&server);
    let app = App::of(client.address());

    for size in [7_999, 8_000, 8_001, 9_000, 16_001, 60_000] {
        assert_eq!(app.ask(&vec![7; size]).len(), size);
    }

    assert_eq!(*sizes.lock().unwrap(), [7_999, 8_000, 8_001, 9_000, 16_001, 60_000]);
    assert_eq!(app.receive(Duration::from_millis(100)), None);
}

#[test]
fn nothing_is_logged_per_packet() {
    let world = World::new();
    let (_echo, server, client, app) = tunnel(&world);
    let lines = (server.log(), client.log());

    for _ in 0..200 {
        app.ask(b"quiet");
    }

    assert_eq!((server.log(), client.log()), lines);
}
