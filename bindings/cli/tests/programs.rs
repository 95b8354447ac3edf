// SPDX-License-Identifier: BSD-2-Clause
//! mpserver and mpclient carry datagrams: real programs, real sockets, loopback.

#![allow(clippy::disallowed_methods, reason = "these tests are about real time")]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{App, PATIENCE, Program, Service, World, wait_until};

/// A service that puts the port of whoever asks in front of the answer.
fn port_service() -> Service {
    Service::start(|datagram, from| Some([&from.port().to_be_bytes(), datagram].concat()))
}

/// The file of a client with one path to `to`.
fn path(to: SocketAddr) -> String {
    format!("127.0.0.1 {}\n", to.port())
}

#[test]
fn a_datagram_goes_through_and_its_answer_comes_back() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let client = world.connected_client(&server);

    assert_eq!(App::of(client.address()).ask(b"hello"), b"hello");
}

#[test]
fn a_bridge_between_the_ends_needs_no_key() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let bridge = support::bridge(&world, server.address(), &[]);
    let client = world.connected_client(&bridge);

    assert_eq!(App::of(client.address()).ask(b"hello"), b"hello");
}

#[test]
fn datagrams_of_all_sizes_pass_whole_both_ways_and_once() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let client = world.client(&path(server.address()).repeat(3), &[]);
    client.expect_count(" is up", 3);
    let app = App::of(client.address());

    for size in [0, 1, 2, 1200, 1400, 1472, 1473, 9000, 20_000, 60_000] {
        let datagram: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        assert!(app.ask(&datagram) == datagram, "{size} bytes");
    }
    let copy = app.receive(Duration::from_millis(200));
    assert!(copy.is_none(), "{copy:?}");
}

#[test]
fn two_applications_behind_one_client_get_their_own_answers() {
    let world = World::new();
    let service = port_service();
    let server = world.server(service.address, &[]);
    let client = world.connected_client(&server);
    let (one, two) = (App::of(client.address()), App::of(client.address()));

    for round in 0..20_u8 {
        one.send(&[1, round]);
        two.send(&[2, round]);
    }

    let answers = |app: &App| -> Vec<Vec<u8>> {
        (0..20).map(|_| app.receive(PATIENCE).expect("an answer comes")).collect()
    };
    let (of_one, of_two) = (answers(&one), answers(&two));
    assert!(of_one.iter().all(|answer| answer[2] == 1 && answer[..2] == of_one[0][..2]));
    assert!(of_two.iter().all(|answer| answer[2] == 2 && answer[..2] == of_two[0][..2]));
    assert_ne!(of_one[0][..2], of_two[0][..2], "each application has a port of its own there");
}

#[test]
fn two_clients_of_one_server_get_their_own_answers() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let clients = [world.connected_client(&server), world.connected_client(&server)];
    let apps: Vec<App> = clients.iter().map(|client| App::of(client.address())).collect();

    for round in 0..20_u8 {
        for (number, app) in apps.iter().enumerate() {
            app.send(&[number as u8, round]);
        }
    }
    for (number, app) in apps.iter().enumerate() {
        let mut rounds: Vec<u8> = (0..20)
            .map(|_| {
                let answer = app.receive(PATIENCE).expect("an answer comes");
                assert_eq!(usize::from(answer[0]), number);
                answer[1]
            })
            .collect();
        rounds.sort_unstable();
        assert!(rounds.into_iter().eq(0..20));
    }
}

#[test]
fn at_the_limit_a_new_application_is_refused_and_the_old_ones_go_on() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &["--flows", "2"]);
    let client = world.connected_client(&server);
    let (one, two) = (App::of(client.address()), App::of(client.address()));
    assert_eq!(one.ask(b"one"), b"one");
    assert_eq!(two.ask(b"two"), b"two");

    let three = App::of(client.address());
    three.send(b"three");

    assert!(three.receive(Duration::from_millis(300)).is_none());
    server.expect_line(&["warn", "refused", "limit", "flows"], PATIENCE);
    assert_eq!(one.ask(b"one again"), b"one again");
    assert_eq!(two.ask(b"two again"), b"two again");
}

#[test]
fn at_the_limit_of_the_client_a_new_application_is_refused_and_the_old_ones_go_on() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let client = world.client(&path(server.address()), &["--flows", "1"]);
    client.expect(" is up");
    let one = App::of(client.address());
    assert_eq!(one.ask(b"one"), b"one");

    let two = App::of(client.address());
    two.send(b"two");

    assert!(two.receive(Duration::from_millis(300)).is_none());
    client.expect_line(&["warn", "refused", "limit", "flows"], PATIENCE);
    assert_eq!(one.ask(b"one again"), b"one again");
}

#[test]
fn an_application_that_went_away_makes_room_after_the_flow_timeout() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &["--flow-timeout", "1s"]);
    let client = world.client(&path(server.address()), &["--flows", "1", "--flow-timeout", "1s"]);
    client.expect(" is up");
    assert_eq!(App::of(client.address()).ask(b"one"), b"one");

    let two = App::of(client.address());
    wait_until(
        || {
            two.send(b"two");
            two.receive(Duration::from_millis(50)).is_some()
        },
        || "the first application still takes the room".to_owned(),
    );
}

#[test]
fn garbage_from_strangers_changes_nothing_and_is_not_answered() {
    let world = World::new();
    let echo = Service::echo();
    let mut server = world.server(echo.address, &[]);
    let mut client = world.connected_client(&server);
    let app = App::of(client.address());
    assert_eq!(app.ask(b"before"), b"before");

    // To the server's port, and to the port from which the client's path sends.
    let port = server.expect("path 0 is up from 127.0.0.1:");
    let before = server.log();
    let port = port.rsplit(':').next().unwrap().parse().unwrap();
    let strangers = [App::of(server.address()), App::of(SocketAddr::from(([127, 0, 0, 1], port)))];
    let mut random = 1_u64;
    for size in (0..2_000).chain([9_000, 60_000]) {
        let garbage: Vec<u8> = (0..size)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (random >> 56) as u8
            })
            .collect();
        for stranger in &strangers {
            stranger.send(&garbage);
        }
    }
    // What looks like one of ours by its first bytes.
    for kind in 0..=255 {
        for stranger in &strangers {
            stranger.send(&[&[kind, 1, 0, 0], &[0; 156][..]].concat());
            stranger.send(&[&[kind, 1, 0, 0], &[0; 204][..]].concat());
        }
    }

    // The garbage may have filled a buffer.
    app.until_answered();
    for stranger in &strangers {
        assert!(stranger.receive(Duration::from_millis(200)).is_none(), "it was answered");
    }
    assert!(server.is_running() && client.is_running());
    let news = server.log()[before.len()..].to_owned();
    let news: Vec<&str> = news.lines().filter(|line| !line.is_empty()).collect();
    assert!(news.len() <= 1 && news.iter().all(|line| line.contains("not ours")), "{news:?}");
}

#[test]
fn a_path_that_cannot_work_waits_beside_a_good_one_and_one_line_says_why() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let nobody = support::unused_port();
    let config = format!(
        "no-such-host.invalid 4000 name=unresolvable\n\
         127.0.0.1 {nobody} name=refused\n\
         127.0.0.1 {good} if=nosuchif0 name=interface\n\
         127.0.0.1 {good} src=192.0.2.77 name=source\n\
         127.0.0.1 {good} name=good\n",
        good = server.port(),
    );
    let client = world.client(&config, &[]);

    client.expect("path good is up");
    let app = App::of(client.address());
    assert_eq!(app.ask(b"hello"), b"hello");
    for (name, why) in [
        ("unresolvable", "no-such-host.invalid does not resolve"),
        ("refused", "refuses: nothing listens there"),
        ("interface", "there is no interface nosuchif0"),
        ("source", "no interface has the address 192.0.2.77"),
    ] {
        client.expect_line(&["warn", &format!("path {name} is down"), why], PATIENCE);
    }
    // Long enough for several attempts of each.
    sleep(Duration::from_secs(6));
    assert_eq!(app.ask(b"hello again"), b"hello again");
    for name in ["unresolvable", "refused", "interface", "source"] {
        assert_eq!(client.count(&format!("path {name}")), 1, "{}", client.log());
    }
}

#[test]
fn a_bridge_that_comes_back_is_used_again() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let bridge = support::bridge(&world, server.address(), &[]);
    let (port, to) = (bridge.port().to_string(), server.address().to_string());
    let client = world.client(
        &format!("127.0.0.1 {port} name=bridge\n127.0.0.1 {} name=direct\n", server.port()),
        &[],
    );
    client.expect_count(" is up", 2);

    bridge.kill();
    client.expect_line(&["path bridge is down", "nothing listens there"], PATIENCE);
    let listen = format!("127.0.0.1:{port}");
    let _again = world.start(support::MPTUNNEL, &["bridge", "-l", &listen, "-t", &to]);

    client.expect_count("path bridge is up", 2);
    assert_eq!(App::of(client.address()).ask(b"hello"), b"hello");
}

#[test]
fn a_target_that_is_a_name_is_looked_up_without_stopping_the_start() {
    let world = World::new();
    let echo = Service::echo();
    let port = echo.address.port().to_string();
    let server = world.start(support::MPSERVER, &["127.0.0.1:0", "localhost", &port]);
    server.expect(&format!("target localhost:{port} is at 127.0.0.1:{port}"));
    let client = world.connected_client(&server);
    assert_eq!(App::of(client.address()).ask(b"hello"), b"hello");

    let lost = world.start(support::MPSERVER, &["127.0.0.1:0", "no-such-host.invalid", "1"]);
    lost.expect_line(&["warn", "no-such-host.invalid:1 cannot be found", "trying again"], PATIENCE);
    world.connected_client(&lost);
}

#[test]
fn sighup_changes_the_paths_that_differ_and_only_those() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let port = server.port();
    let client =
        world.client(&format!("127.0.0.1 {port} name=stays\n127.0.0.1 {port} name=goes\n"), &[]);
    client.expect_count(" is up", 2);
    let app = App::of(client.address());
    assert_eq!(app.ask(b"before"), b"before");
    let reload = |text: &str| {
        world.write("client.conf", text);
        client.signal(Signal::SIGHUP);
    };

    reload(&format!("127.0.0.1 {port} name=comes\n127.0.0.1 {port} name=stays\n"));
    client.expect("read again: added path comes");
    client.expect("read again: removed path goes");
    client.expect("path comes is up");
    assert_eq!(app.ask(b"after"), b"after");

    reload(&format!("127.0.0.1 {port} name=comes src=127.0.0.1\n127.0.0.1 {port} name=stays\n"));
    client.expect("read again: changed path comes");
    client.expect_count("path comes is up", 2);
    assert_eq!(client.count("path stays is up"), 1);
    assert_eq!(client.count("is down"), 0, "{}", client.log());
    assert_eq!(app.ask(b"at the end"), b"at the end");

    client.signal(Signal::SIGHUP);
    client.expect("read again: it is as before");
}

#[test]
fn sighup_with_a_broken_file_says_so_and_changes_nothing() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let client = world.connected_client(&server);

    world.write("client.conf", "127.0.0.1 1 name=new\n127.0.0.1 2 wieght=3\n");
    client.signal(Signal::SIGHUP);

    client.expect_line(&["error", "client.conf:2: unknown word \"wieght=3\""], PATIENCE);
    client.expect("the configuration stays as it was");
    assert_eq!(App::of(client.address()).ask(b"hello"), b"hello");
    assert_eq!(client.count("path new"), 0);
}

#[test]
fn sighup_takes_over_live_options_and_names_those_that_need_a_restart() {
    let world = World::new();
    let echo = Service::echo();
    let file = world.write("server.conf", "flows = 1\n");
    let server = world.server(echo.address, &["--config", file.to_str().unwrap()]);
    let client = world.connected_client(&server);
    let (one, two) = (App::of(client.address()), App::of(client.address()));
    assert_eq!(one.ask(b"one"), b"one");

    fs::write(&file, "flows = 2\nmtu = 1300\n").unwrap();
    server.signal(Signal::SIGHUP);

    server.expect("read again: flows changed");
    server.expect_line(&["warn", "restart mpserver for the new value of mtu"], PATIENCE);
    assert_eq!(two.ask(b"two"), b"two");
    assert_eq!(one.ask(b"one again"), b"one again");
}

#[test]
fn signals_end_both_programs_cleanly_within_a_second() {
    let world = World::new();
    let echo = Service::echo();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = world.server(echo.address, &[]);
        let mut client = world.connected_client(&server);
        assert_eq!(App::of(client.address()).ask(b"hello"), b"hello");

        let clean = |program: &mut Program| {
            let (status, took) = program.stop(signal);
            assert_eq!(status.code(), Some(0), "{}", program.log());
            assert!(took < Duration::from_secs(1), "{took:?}");
        };
        clean(&mut client);
        server.expect("client 1 is gone: it said goodbye");
        clean(&mut server);
    }
}

#[test]
fn signals_end_programs_that_have_nobody_to_talk_to() {
    let world = World::new();
    let mut client = world.client("no-such-host.invalid 1\n127.0.0.1 9\n", &[]);
    let mut server = world.server(SocketAddr::from(([127, 0, 0, 1], 9)), &[]);

    for program in [&mut client, &mut server] {
        let (status, took) = program.stop(Signal::SIGTERM);
        assert_eq!(status.code(), Some(0));
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}
