// SPDX-License-Identifier: BSD-2-Clause
//! `mptunnel doctor` as a user runs it, against what goes wrong with real programs on loopback.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "these tests are about real sockets"
)]

mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{MPTUNNEL, Program, Service, World, bridge, output, unused_port};

/// How long it waits for answers, in seconds: where some come and some do not, and where none do.
const WAIT: &str = "1";
const SHORT_WAIT: &[&str] = &["--wait", "0.4"];

/// What it found, and its exit status.
struct Found {
    status: Option<i32>,
    findings: Vec<Value>,
}

impl Found {
    fn of(world: &World, args: &[&str]) -> Found {
        let wait: &[&str] = if args.contains(&"--wait") { &[] } else { &["--wait", WAIT] };
        let args = [&["doctor", "--json"], wait, args].concat();
        let (status, out, err) = output(world.command(MPTUNNEL, &args));
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
        let findings = report["findings"].as_array().unwrap().clone();
        let worst = findings.iter().map(|finding| match finding["level"].as_str().unwrap() {
            "ok" => 0,
            "warning" => 1,
            "fault" => 2,
            other => panic!("{other}"),
        });
        assert_eq!(worst.max(), status, "{out}");
        Found { status, findings }
    }

    /// With a client's configuration of this text, for a port that is free.
    fn of_client(world: &World, config: &str, args: &[&str]) -> Found {
        let file = world.write("client.conf", config);
        Found::of(world, &[&["127.0.0.1:0", file.to_str().unwrap()], args].concat())
    }

    /// The one finding of this level about `subject`: what it says, and the remedy.
    #[track_caller]
    fn about(&self, subject: &str, level: &str) -> String {
        let found: Vec<&Value> = self
            .findings
            .iter()
            .filter(|f| f["level"] == level)
            .filter(|f| match subject {
                "" => f["subject"] == "",
                end => f["subject"].as_str().unwrap().ends_with(end),
            })
            .collect();
        assert_eq!(found.len(), 1, "{subject} {level}: {:#?}", self.findings);
        let text = |key: &str| found[0][key].as_str().unwrap_or_default();
        assert!(level == "ok" || !text("remedy").is_empty(), "{:?}", found[0]);
        format!("{} -> {}", text("text"), text("remedy"))
    }

    /// The subjects of all findings of this level in a section.
    fn subjects(&self, check: &str, level: &str) -> Vec<&str> {
        let found = self.findings.iter().filter(|f| f["check"] == check && f["level"] == level);
        found.map(|f| f["subject"].as_str().unwrap()).collect()
    }
}

const SERVER: &str = "Server and paths";

/// A server with two bridges, and the configuration of its clients.
fn two_bridges(world: &World, server: &Program) -> ([Program; 2], String) {
    let bridges = [(); 2].map(|()| bridge(world, server.address(), &[]));
    let [one, two] = [0, 1].map(|at| bridges[at].port());
    (bridges, format!("127.0.0.1 {one} name=one\n127.0.0.1 {two} name=two\n"))
}

#[test]
fn a_dead_bridge_a_silent_bridge_and_a_dead_server_are_told_apart() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let ([one, two], config) = two_bridges(&world, &server);

    let healthy = Found::of_client(&world, &config, &[]);
    assert_eq!(healthy.subjects(SERVER, "ok"), ["server", "one", "two"]);
    assert!(healthy.status < Some(2), "{:#?}", healthy.findings);

    one.signal(Signal::SIGUSR1);
    one.expect("blackout begins");
    let silent = Found::of_client(&world, &config, &[]);
    assert_eq!(silent.subjects(SERVER, "ok"), ["server", "two"]);
    let text = silent.about("one", "fault");
    assert!(text.contains("though the server answers on other paths: this bridge"), "{text}");
    assert!(text.contains("-> at 127.0.0.1: is the bridge running"), "{text}");

    one.kill();
    let dead = Found::of_client(&world, &config, &[]);
    assert_eq!(dead.subjects(SERVER, "ok"), ["server", "two"]);
    let text = dead.about("one", "fault");
    assert!(text.contains("nothing listens there"), "{text}");
    assert!(text.contains("mptunnel bridge --listen"), "{text}");

    let id = server.expect("key id ").split("key id ").nth(1).unwrap()[..16].to_owned();
    server.kill();
    let gone = Found::of_client(&world, &config, SHORT_WAIT);
    assert_eq!(gone.subjects(SERVER, "fault"), ["server", "one", "two"]);
    let text = gone.about("server", "fault");
    assert!(text.contains("mpserver is not running, its key is not the one here"), "{text}");
    assert!(text.contains(&format!("compare key id {id}")), "{text}");
    assert!(gone.about("two", "fault").contains("this says nothing of the bridge"));
    assert_eq!(gone.status, Some(2));
    drop(two);
}

#[test]
fn a_wrong_key_looks_like_a_dead_server_and_both_ends_name_the_key_ids() {
    let [world, other] = [World::new(), World::new()];
    let control = other.root.join("control.sock").display().to_string();
    let server = other.server(unused(), &["--control", &control]);

    let config = format!("127.0.0.1 {} name=p\n", server.port());
    let found = Found::of_client(&world, &config, SHORT_WAIT);

    let text = found.about("server", "fault");
    let id = text.split("key id ").nth(1).unwrap()[..16].to_owned();
    assert!(text.contains("first line of mpserver's log"), "{text}");
    server.expect(&format!("somebody tried with key id {id}"));

    let port = server.port().to_string();
    let there = Found::of(&other, &[&port, "127.0.0.1", "9", "--control", &control]);
    let tries = there.findings.iter().find(|finding| finding["check"] == "Clients").unwrap();
    assert_eq!(tries["text"], "no client is connected");
    let text = there.about("", "warning");
    assert!(text.contains("tries with a key that is not this server's -> "), "{text}");
}

#[test]
fn a_client_that_runs_with_the_same_settings_is_not_disturbed() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let config = format!("127.0.0.1 {} name=p\nname = alice\n", server.port());
    let client = world.client(&config, &[]);
    client.expect("path p is up");
    server.expect("client 1 connected");

    let port = client.port().to_string();
    let file = world.root.join("client.conf");
    let found = Found::of(&world, &[&port, file.to_str().unwrap()]);

    assert_eq!(found.subjects(SERVER, "ok"), ["server", "p"]);
    assert!(found.about(&format!(":{port}"), "ok").contains("in use, by a running mpclient"));
    server.expect("client 2 connected");
    assert_eq!(support::App::of(client.address()).ask(b"still here"), b"still here");
    assert_eq!(server.count("client 1"), 2, "connected, its path up: {}", server.log());
    assert!(!client.log().contains("down"), "{}", client.log());
}

#[test]
fn with_a_key_pair_a_client_that_runs_keeps_its_session() {
    let world = World::new();
    let key = world.root.join("private.key");
    let (_, _, err) = output(world.command(MPTUNNEL, &["genkey", "-o", "private.key"]));
    let (_, public, _) = output(world.command(MPTUNNEL, &["pubkey", "private.key"]));
    assert_eq!(err, "");
    let running = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let config = format!(
        "127.0.0.1 9 name=p\nprivate-key-file = {}\npeer-key = {public}\nlisten = {}\n",
        key.display(),
        running.local_addr().unwrap()
    );
    let file = world.write("client.conf", &config);

    let found = Found::of(&world, &[file.to_str().unwrap()]);

    let text = found.about("server", "warning");
    assert!(text.contains("knows this client by its private key"), "{text}");
    assert!(text.contains("-> stop mpclient"), "{text}");
}

#[test]
fn keys_that_cannot_be_used_are_told_with_the_remedy_and_ports_are_looked_at_all_the_same() {
    let world = World::new();
    let config = format!("127.0.0.1 {} name=p\n", unused_port());
    let key = world.key_file();
    let key_is = |expected: &[&str]| {
        let found = Found::of_client(&world, &config, &[]);
        let text = found.about("psk", "fault");
        assert!(expected.iter().all(|words| text.contains(words)), "{text}");
        assert!(found.about("server", "warning").contains("not asked"));
        assert!(found.about("p", "fault").contains("nothing listens there"));
    };

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    key_is(&["open to other users (mode 0644)", "-> chmod 600 /"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "not a key\n").unwrap();
    key_is(&["not a key: expected 44 characters of base64", "copy the server's key file"]);
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o700)).unwrap();
    key_is(&["cannot be read (Is a directory"]);
    fs::remove_dir(&key).unwrap();

    let text = Found::of_client(&world, &config, &[]).about("", "fault");
    assert!(text.contains("no key; looked for") && text.contains("--key-file"), "{text}");
}

#[test]
fn names_interfaces_and_addresses_that_are_not_there_are_told_per_path() {
    let world = World::new();
    let server = world.server(unused(), &[]);
    let port = server.port();
    let config = format!(
        "nothing.invalid {port} name=nameless\n127.0.0.1 {port} if=none0 name=unplugged\n\
         127.0.0.1 {port} src=203.0.113.77 name=elsewhere\n127.0.0.1 {port} name=fine mtu=65535\n\
         socket-buffer = 4MiB\n"
    );

    let found = Found::of_client(&world, &config, &[]);

    let text = found.about("nothing.invalid", "fault");
    assert!(text.contains("does not resolve") && text.contains("check the spelling"), "{text}");
    assert_eq!(found.subjects("Routes", "fault"), ["unplugged", "elsewhere"]);
    let routes = |name| {
        let of = |f: &&Value| f["check"] == "Routes" && f["subject"] == name;
        found.findings.iter().find(of).unwrap().to_string()
    };
    assert!(routes("unplugged").contains("there is no interface none0 (if=)"));
    assert!(routes("unplugged").contains("this machine has lo"));
    assert!(routes("elsewhere").contains("no interface has the address 203.0.113.77"));
    assert!(routes("fine").contains("to 127.0.0.1 by lo from 127.0.0.1"));
    assert_eq!(found.subjects(SERVER, "ok"), ["server", "fine"]);
    assert_eq!(found.subjects("Names", "fault"), ["nothing.invalid"]);
    assert_eq!(found.subjects("Socket buffers", "ok").len(), 2);
}

#[test]
fn a_server_is_found_running_or_not_and_its_target_listening_or_not() {
    let world = World::new();
    let echo = Service::echo();
    let target = echo.address.port().to_string();
    let port = unused_port().to_string();

    let idle = Found::of(&world, &[&port, "127.0.0.1", &target]);
    assert!(idle.about(&format!(":{port}"), "ok").contains("free; mpserver is not running"));
    assert!(idle.about(&target, "ok").contains("a program of this machine listens there"));

    let control = world.root.join("control.sock").display().to_string();
    let server = world.server(echo.address, &["--control", &control]);
    let _client = world.connected_client(&server);
    let port = server.port().to_string();
    let closed = unused_port().to_string();
    let running = Found::of(&world, &[&port, "localhost", &closed, "--control", &control]);
    assert!(running.about("client 1", "ok").contains("seen from 127.0.0.1:"));
    assert!(running.about(&format!(":{port}"), "ok").contains("mpserver is running and answers"));
    assert!(running.about(&closed, "warning").contains("nothing on this machine listens there"));

    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = stranger.local_addr().unwrap().port().to_string();
    let taken = Found::of(&world, &[&[&port, "127.0.0.1", &target], SHORT_WAIT].concat());
    let text = taken.about(&format!(":{port}"), "fault");
    assert!(text.contains("does not answer to this key") && text.contains("ss -ulpn"), "{text}");
}

#[test]
fn text_fits_80_columns_and_ends_with_the_sum() {
    let world = World::new();
    let file = world.write(
        "client.conf",
        &format!("127.0.0.1 {} name=p\nsocket-buffer = 64KiB\n", unused_port()),
    );
    let args = ["doctor", "--wait", "0.3", "127.0.0.1:0", file.to_str().unwrap()];

    let (status, out, err) = output(world.command(MPTUNNEL, &args));

    assert_eq!((status, err.as_str()), (Some(2), ""));
    let long: Vec<&str> = out.lines().filter(|line| line.len() > 80).collect();
    assert!(long.iter().all(|line| line.contains(world.root.to_str().unwrap())), "{long:#?}");
    assert!(out.contains("\nServer and paths\n  FAULT    server: not reached"), "{out}");
    assert!(out.contains("\n           -> start mpserver or the bridges"), "{out}");
    assert!(out.lines().last().unwrap().starts_with("2 faults, 0 warnings: server, p"), "{out}");
}

#[test]
fn wrong_use_explains_itself() {
    let world = World::new();
    let wrong = |args: &[&str]| {
        let (status, out, err) = output(world.command(MPTUNNEL, &[&["doctor"], args].concat()));
        assert_eq!(status, Some(2), "{out}{err}");
        out + &err
    };

    assert!(wrong(&[]).contains("mptunnel doctor [OPTIONS] [LISTEN_PORT] <CONFIG>"));
    assert!(wrong(&["3000"]).contains("CONFIG is missing: \"3000\" is a port and not a file"));
    assert!(wrong(&["none.conf"]).contains("none.conf: "));
    let file = world.write("bad.conf", "127.0.0.1 4000 wieght=3\n");
    let text = wrong(&[file.to_str().unwrap()]);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("bad.conf: line 1: unknown word"), "{text}");
    assert!(text.contains("did you mean \"weight=\"?"), "{text}");
}

fn unused() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9).into()
}
