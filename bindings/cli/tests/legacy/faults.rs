// SPDX-License-Identifier: BSD-2-Clause
//! The faults of the classic programs, reproduced against ours in the mode that speaks as they do.
//! Those of datagrams alone are in the tests of the library as well, in virtual time.

use crate::lab::Kind::{Classic, Ours};
use crate::lab::{Lab, answered};
use crate::support::{App, MPCLIENT, PATIENCE, Program, unused_port};
use nix::sys::signal::Signal;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Both ends ours, one bridge less, and an application that works.
fn tunnel() -> (Lab, App) {
    let mut lab = Lab::new("1");
    lab.start_server(Ours);
    lab.config = format!("127.0.0.1 {}\n", lab.server_port);
    lab.start_client(Ours);
    let app = lab.app();
    app.until_answered();
    (lab, app)
}

/// A counter that a program tells.
fn expect_counter(program: &Program, name: &str) {
    program.signal(Signal::SIGUSR1);
    program.expect_line(&["counters:", name], PATIENCE);
}

const X3: [u8; 16] = *b"\x01\0\0\0\x45\x25\x3d\x73\xad\x48\xbc\xa2\xdb\x08\x50\xa3";
const X5: [u8; 18] = *b"\0\0\0\0\x02\0\0\0\x01\0\0\0\x58\x02\0\0AB";
const X11: [u8; 17] = *b"\0\0\0\0\x02\0\0\0\xff\xff\xff\x7f\x01\0\0\0x";

#[test]
fn faults_1_to_4_of_datagrams_from_anybody() {
    let (mut lab, app) = tunnel();
    let stranger = App::of(lab.server_address());
    for byte in 0..=255 {
        stranger.send(&[byte]);
    }
    (0..=X3.len()).for_each(|len| stranger.send(&X3[..len]));
    stranger.send(&X5);
    assert_eq!(answered(&app, 50), 50);
    expect_counter(lab.server(), "bad_len=");
    expect_counter(lab.server(), "bad_header=");
    // None of them made it a source.
    assert_eq!(stranger.receive(Duration::from_millis(50)), None);

    // What is sound is taken, and recovered from.
    stranger.send(&X11);
    app.until_answered();
    assert_eq!(answered(&app, 50), 50);
    assert!(lab.server.as_mut().unwrap().is_running());
}

#[test]
fn faults_7_and_8_of_the_target() {
    let mut lab = Lab::new("0");
    let port = unused_port();
    lab.echo.address.set_port(port);
    lab.start_server(Ours);
    lab.config = format!("127.0.0.1 {}\n", lab.server_port);
    lab.start_client(Ours);
    let app = lab.app();
    app.send(b"first");
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    lab.server().expect_line(&["warn", &format!("target {target}")], PATIENCE);
    let descriptors = lab.server().descriptors();
    for _ in 0..100 {
        app.send(b"");
        std::thread::sleep(Duration::from_millis(1));
    }
    lab.server().expect_descriptors(descriptors);

    // Once there is somebody, they are reached, by empty datagrams as well.
    let socket = UdpSocket::bind(target).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    app.send(b"");
    let (len, from) = socket.recv_from(&mut [0; 100]).unwrap();
    assert_eq!(len, 0);
    socket.send_to(b"", from).unwrap();
    assert_eq!(app.receive(PATIENCE).unwrap(), b"");
    lab.server().expect_descriptors(descriptors);
}

#[test]
fn fault_9_of_a_bridge_that_does_not_resolve() {
    let mut lab = Lab::new("0");
    lab.start_server(Classic);
    lab.config = format!("bridge1.invalid 4000\n127.0.0.1 {}\n", lab.server_port);
    lab.start_client(Ours);
    let words = ["warn", "bridge1.invalid:4000 is down", "does not resolve"];
    lab.client().expect_line(&words, PATIENCE);
    let app = lab.app();
    app.until_answered();
    assert_eq!(answered(&app, 50), 50);
    assert!(lab.client.as_mut().unwrap().is_running());
}

#[test]
fn a_bridge_that_is_not_there_is_told_once_and_used_when_it_comes() {
    let mut lab = Lab::new("0");
    lab.start_server(Ours);
    let port = unused_port();
    lab.config = format!("127.0.0.1 {port}\n");
    lab.start_client(Ours);
    let app = lab.app();
    app.send(b"x");
    lab.client().expect_line(&["warn", "refuses: nothing listens there"], PATIENCE);
    (0..50).for_each(|_| app.send(b"x"));
    let listen = format!("127.0.0.1:{port}");
    let to = lab.server_address().to_string();
    let bridge = ["bridge", "--listen", &listen, "--to", &to];
    let _bridge = lab.world.start(crate::support::MPTUNNEL, &bridge);
    app.until_answered();
    lab.client().expect_count(" is up", 2);
    assert_eq!(lab.client().count("refuses"), 1);
}

#[test]
fn faults_11_and_13_of_the_local_port_and_of_failure() {
    let lab = Lab::new("0");
    let config = lab.world.write("client.conf", "127.0.0.1 9\nprotocol = legacy\n");
    let port = unused_port();
    let at = port.to_string();
    let client = lab.world.start(MPCLIENT, &[&at, config.to_str().unwrap()]);
    client.expect(&format!("listens on 127.0.0.1:{port}"));
    // Not on all addresses: this one would be taken.
    UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), port)).unwrap();

    let args = [at.as_str(), config.to_str().unwrap()];
    let (status, _, text) = crate::support::output(lab.world.command(MPCLIENT, &args));
    assert_eq!(status, Some(1), "{text}");
}
