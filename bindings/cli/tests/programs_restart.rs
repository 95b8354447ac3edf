// SPDX-License-Identifier: BSD-2-Clause
//! Either end, or both, are killed and started again under load, and nobody touches the other.

#![allow(clippy::disallowed_methods, reason = "these tests are about real time")]

mod support;

use std::time::{Duration, Instant};

use support::{App, MPCLIENT, Program, Service, World};

/// The promise is one second after the socket is bound; machines that test are slow.
const SOON: Duration = Duration::from_secs(2);

/// An mpclient that listens on `port`, in the world of another one.
fn client_at(world: &World, port: u16) -> Program {
    let client = world.start(MPCLIENT, &[&format!("127.0.0.1:{port}"), "client.conf"]);
    client.port();
    client
}

/// Traffic for longer than the pause that a client makes between two handshakes.
fn steady_traffic(app: &App) {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1_200) {
        app.until_answered();
    }
}

/// How long `app` waits for an answer, and that it waits no longer than promised.
#[track_caller]
fn recovers(app: &App, what: &str) {
    let took = app.until_answered();
    println!("{what}: answers after {took:?}");
    assert!(took < SOON, "{what}: {took:?}");
}

#[test]
fn a_server_that_was_killed_and_started_again_carries_on_at_once() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let port = server.port();
    let client = world.client(&format!("127.0.0.1 {port}\n").repeat(3), &[]);
    client.expect_count(" is up", 3);
    let app = App::of(client.address());
    steady_traffic(&app);

    let mut server = server;
    for round in 0..3 {
        server.kill();
        // Traffic that meets nobody: sockets report that nothing listens.
        for _ in 0..50 {
            app.send(b"lost");
            app.receive(Duration::from_millis(2));
        }
        server = world.server_at(port, echo.address, &[]);
        recovers(&app, &format!("server, round {round}"));
        steady_traffic(&app);
    }
    client.expect("the server was restarted");
}

#[test]
fn a_client_that_was_killed_and_started_again_carries_on_at_once() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let mut client = world.connected_client(&server);
    let port = client.port();
    let app = App::of(client.address());
    steady_traffic(&app);

    for round in 0..3 {
        client.kill();
        app.send(b"lost");
        client = client_at(&world, port);
        recovers(&app, &format!("client, round {round}"));
        steady_traffic(&app);
    }
}

#[test]
fn a_client_with_a_name_is_known_again_after_it_was_killed() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let client = world.client(&format!("127.0.0.1 {}\nname = office\n", server.port()), &[]);
    client.expect(" is up");
    let port = client.port();
    let app = App::of(client.address());
    steady_traffic(&app);

    client.kill();
    let _again = client_at(&world, port);

    recovers(&app, "client with a name");
    server.expect("client 1 was restarted");
    assert_eq!(server.count("client 2 connected"), 0, "{}", server.log());
}

#[test]
fn both_ends_may_be_killed_at_once() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let client = world.connected_client(&server);
    let (server_port, client_port) = (server.port(), client.port());
    let app = App::of(client.address());
    steady_traffic(&app);

    server.kill();
    client.kill();
    let _client = client_at(&world, client_port);
    let _server = world.server_at(server_port, echo.address, &[]);

    recovers(&app, "both");
}

#[test]
fn a_bridge_that_was_killed_and_started_again_carries_on_although_its_port_is_new() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let bridge = support::bridge(&world, server.address(), &[]);
    let client = world.connected_client(&bridge);
    let app = App::of(client.address());
    steady_traffic(&app);

    let (listen, to) = (bridge.address().to_string(), server.address().to_string());
    bridge.kill();
    app.send(b"lost");
    let again = world.start(support::MPTUNNEL, &["bridge", "-l", &listen, "-t", &to]);
    again.port();

    recovers(&app, "bridge");
}

#[test]
fn a_server_that_ends_in_order_and_comes_back_is_found_again() {
    let world = World::new();
    let echo = Service::echo();
    let mut server = world.server(echo.address, &[]);
    let port = server.port();
    let client = world.connected_client(&server);
    let app = App::of(client.address());
    steady_traffic(&app);

    let (status, _) = server.stop(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(status.code(), Some(0));
    client.expect("the server is going away");
    let _again = world.server_at(port, echo.address, &[]);

    recovers(&app, "server after an orderly stop");
}
