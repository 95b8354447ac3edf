// SPDX-License-Identifier: BSD-2-Clause
//! A minute without traffic, in one direction or both: where the classic programs lose datagrams or
//! whole paths. The time that passes is what these tests are about.

use crate::lab::Kind::{Classic, Ours};
use crate::lab::{Kind, Lab, answered, at_once, seconds};
use crate::support::App;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// Server and client.
const ALL: [(Kind, Kind); 3] = [(Classic, Ours), (Ours, Classic), (Ours, Ours)];

/// A target that answers when it is told to, in place of the echo.
struct Target {
    socket: UdpSocket,
    peer: Option<std::net::SocketAddr>,
}

impl Target {
    fn of(lab: &mut Lab) -> Target {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        lab.echo.address = socket.local_addr().unwrap();
        Target { socket, peer: None }
    }

    /// Waits for a datagram of the application.
    fn receive(&mut self) -> Vec<u8> {
        let mut buffer = [0; 2_048];
        let (len, peer) = self.socket.recv_from(&mut buffer).unwrap();
        self.peer = Some(peer);
        buffer[..len].to_vec()
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.peer.unwrap()).unwrap();
    }
}

/// Calls `each` ten times a classic second until `time` is over.
fn meanwhile(time: Duration, mut each: impl FnMut()) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        each();
        std::thread::sleep(seconds(1));
    }
}

fn exchange(app: &App, target: &mut Target) {
    app.send(b"hello");
    assert_eq!(target.receive(), b"hello");
    target.send(b"welcome");
    assert_eq!(app.receive(Duration::from_secs(15)).unwrap(), b"welcome");
}

/// A tunnel over three bridges of `socat`, whose target has the application's address.
fn tunnel(server: Kind, client: Kind) -> (Lab, App, Target) {
    let mut lab = Lab::new("1");
    let mut target = Target::of(&mut lab);
    lab.start_server(server);
    (0..3).for_each(|_| lab.socat(",fork"));
    lab.start_client(client);
    let app = lab.app();
    exchange(&app, &mut target);
    (lab, app, target)
}

fn after_upstream_only_the_first_answer_arrives((server, client): (Kind, Kind)) {
    let (_lab, app, mut target) = tunnel(server, client);
    meanwhile(seconds(65), || {
        app.send(b"more");
        assert_eq!(target.receive(), b"more");
    });
    target.send(b"late");
    let answer = app.receive(Duration::from_secs(1));
    assert_eq!(answer.as_deref(), Some(&b"late"[..]), "{server:?} {client:?}");
}

fn a_stream_that_only_flows_downstream_does_not_end((server, client): (Kind, Kind)) {
    let (_lab, app, target) = tunnel(server, client);
    meanwhile(seconds(75), || {
        target.send(b"stream");
        let datagram = app.receive(Duration::from_secs(1));
        assert_eq!(datagram.as_deref(), Some(&b"stream"[..]), "{server:?} {client:?}");
    });
}

fn after_silence_in_both_directions_the_first_exchange_works((server, client): (Kind, Kind)) {
    let (_lab, app, mut target) = tunnel(server, client);
    std::thread::sleep(seconds(75));
    exchange(&app, &mut target);
}

#[test]
fn more_than_a_minute_of_silence_in_one_direction_or_both_costs_nothing() {
    let cases = [
        after_upstream_only_the_first_answer_arrives,
        a_stream_that_only_flows_downstream_does_not_end,
        after_silence_in_both_directions_the_first_exchange_works,
    ];
    at_once(cases, |case| at_once(ALL, case));
}

#[test]
fn plain_socat_stays_alive_behind_our_server() {
    at_once([Classic, Ours], |client| {
        let mut lab = Lab::new("1");
        let mut target = Target::of(&mut lab);
        lab.start_server(Ours);
        lab.socat("");
        lab.start_client(client);
        let app = lab.app();
        exchange(&app, &mut target);

        // A classic server would have fallen silent, and the client taken another port.
        meanwhile(seconds(75), || {
            app.send(b"more");
            assert_eq!(target.receive(), b"more");
        });

        target.send(b"answer");
        assert_eq!(app.receive(Duration::from_secs(1)).as_deref(), Some(&b"answer"[..]));
        assert_eq!(lab.client().count("has a new port"), 0);
    });
}

#[test]
fn a_path_that_does_not_rotate_keeps_plain_socat_alive_before_a_classic_server() {
    let mut lab = Lab::new("1");
    lab.start_server(Classic);
    lab.socat("");
    lab.config = lab.config.replace('\n', " rotate=off\n");
    lab.start_client(Ours);
    lab.client().expect("with rotate=off");
    let app = lab.app();
    app.until_answered();

    std::thread::sleep(seconds(75));

    // The first answers are lost, as the warning says; the way is not.
    app.until_answered();
    assert_eq!(answered(&app, 50), 50);
}
