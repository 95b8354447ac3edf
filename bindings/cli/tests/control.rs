// SPDX-License-Identifier: BSD-2-Clause
//! Running programs are seen and changed through their control sockets: real processes.

#![allow(clippy::disallowed_methods, reason = "these tests are about real time")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{
    App, MPCLIENT, MPTUNNEL, PATIENCE, Program, Service, World, unused_port, wait_until,
};

/// The control socket of a program, once it is there.
fn socket_of(world: &World, program: &Program, name: &str) -> PathBuf {
    let path = world.root.join(format!("run/mptunnel/{name}-{}.sock", program.pid()));
    wait_until(|| path.exists(), || format!("no {}", path.display()));
    path
}

/// Runs `mptunnel` to its end: its exit status, and what it wrote to standard output and error.
fn mptunnel(world: &World, args: &[&str]) -> (Option<i32>, String, String) {
    support::output(world.command(MPTUNNEL, args))
}

/// The same, of which the output is wanted.
#[track_caller]
fn ask(world: &World, args: &[&str]) -> String {
    let (status, out, err) = mptunnel(world, args);
    assert_eq!(status, Some(0), "{args:?}: {err}");
    out
}

/// What `mptunnel status --json` says of the mpclient.
#[track_caller]
fn status(world: &World) -> Value {
    serde_json::from_str(&ask(world, &["status", "--json", "--control", "mpclient"])).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_control_socket_is_its_owners_alone_and_goes_with_the_program() {
    let world = World::new();
    let mut client = world.client("127.0.0.1 9\n", &[]);

    let socket = socket_of(&world, &client, "mpclient");

    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    client.stop(Signal::SIGTERM);
    assert!(!socket.exists());
}

#[test]
fn a_running_pair_is_shown_in_every_form() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let client = world.connected_client(&server);
    App::of(client.address()).ask(b"hello");
    socket_of(&world, &server, "mpserver");

    // Two programs: a choice is asked for.
    let (code, _, err) = mptunnel(&world, &["status"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("choose one with --control"), "{err}");
    let (one, other) = (server.pid().to_string(), client.pid().to_string());
    assert!(err.contains(&format!("--control {one}")) && err.contains(&other), "{err}");

    // As a table, which standard output gets once if it is no terminal.
    let table = ask(&world, &["status", "--control", &client.pid().to_string()]);
    assert!(table.starts_with(&format!("mpclient {}: connected, ", client.pid())), "{table}");
    assert!(table.lines().any(|line| line.contains(" up ")), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    let table = ask(&world, &["status", "--once", "--control", "mpserver"]);
    assert!(table.contains(": 1 client, redundant, ") && table.contains("\n1/0 "), "{table}");

    // For programs.
    let json = status(&world);
    assert_eq!(json["program"], "mpclient");
    assert_eq!(json["paths"][0]["state"], "up");
    assert_eq!(json["relay"]["to_tunnel"], 1);
    let text = ask(&world, &["status", "--prometheus", "--control", "mpserver"]);
    assert!(text.contains("\nmptunnel_relay_from_tunnel_total 1\n"), "{text}");
    assert!(text.contains("\nmptunnel_peer_wins_total{peer=\"1\"} "), "{text}");
    assert!(text.contains("\nmptunnel_uptime_seconds "), "{text}");

    // And why.
    let path = json["paths"][0]["name"].as_str().unwrap();
    let text = ask(&world, &["explain", path, "--control", "mpclient"]);
    assert!(text.contains("its probes are answered") && text.contains("path 127."), "{text}");
    let text = ask(&world, &["explain", "1/0", "--control", "mpserver"]);
    assert!(text.contains("path 1/0 of mpserver"), "{text}");
    let (code, _, err) = mptunnel(&world, &["explain", "nope", "--control", "mpclient"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("there is no path nope: there are 127.0.0.1:"), "{err}");
}

#[test]
fn without_a_program_the_tools_say_so() {
    let world = World::new();
    for args in [&["status"][..], &["path", "list"], &["set", "flows", "7"], &["events"]] {
        let (code, _, err) = mptunnel(&world, args);
        assert_eq!(code, Some(3), "{err}");
        assert!(err.contains("no mpclient and no mpserver runs here"), "{err}");
    }
    let (code, _, err) = mptunnel(&world, &["status", "--control", "./nowhere"]);
    assert_eq!(code, Some(3));
    assert!(err.contains("cannot reach ./nowhere"), "{err}");
}

#[test]
fn paths_are_added_changed_and_removed_while_traffic_flows() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let dead = unused_port();
    let client = world.client(&format!("127.0.0.1 {dead} name=dead\n"), &[]);
    let app = App::of(client.address());
    let events = world.start(MPTUNNEL, &["events", "--recent", "--control", "mpclient"]);
    events.expect("path dead is down: 127.0.0.1");

    let to = format!("to=127.0.0.1:{}", server.port());
    ask(&world, &["path", "add", &to, "name=good"]);

    events.expect("path good is up");
    app.until_answered();
    ask(&world, &["path", "remove", "dead"]);
    ask(&world, &["path", "set", "good", "role=backup", "weight=3"]);
    let listed = ask(&world, &["path", "list"]);
    assert_eq!(listed, format!("   2  up         {to} weight=3 role=backup name=good\n"));
    assert_eq!(status(&world)["paths"][0]["backup"], true);
    app.until_answered();

    // What is wrong changes nothing.
    for (args, expected) in [
        (&["set", "good", "weight=2", "role=spare"][..], "role=spare: expected active or backup"),
        (&["set", "bad", "weight=2"], "there is no path bad: there are good"),
        (&["set", "good", "weight"], "\"weight\" is not WORD=VALUE"),
        (&["add", "to=127.0.0.1:1", "name=good"], "there is a path good already"),
        (&["add", "wieght=1"], "did you mean \"weight=\"?"),
        (&["remove", "bad"], "there is no path bad"),
    ] {
        let (code, _, err) = mptunnel(&world, &[&["path"], args].concat());
        assert_eq!(code, Some(2), "{args:?}: {err}");
        assert!(err.contains(expected), "{args:?}: {err}");
    }
    assert_eq!(ask(&world, &["path", "list"]), listed);
    let (code, _, err) = mptunnel(&world, &["path", "remove", "x", "--control", "mpserver"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("it learns those of its clients"), "{err}");

    // The configuration file counts again once it is read again.
    client.signal(Signal::SIGHUP);
    client.expect("configuration read again: added path dead");
    client.expect("configuration read again: removed path good");
}

#[test]
fn a_live_option_takes_effect_and_others_say_what_to_do() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let client = world.connected_client(&server);
    let set = |key, value| mptunnel(&world, &["set", key, value, "--control", "mpclient"]);
    let get = |key| ask(&world, &["get", key, "--control", "mpclient"]);
    App::of(client.address()).ask(b"the first application");

    assert_eq!(set("flows", "1").0, Some(0));
    App::of(client.address()).send(b"the second one");

    wait_until(
        || status(&world)["relay"]["flows_refused"] == 1,
        || format!("{}", status(&world)["relay"]),
    );
    assert_eq!(get("flows"), "1\n");
    assert_eq!(set("idle-interval", "7s").0, Some(0));
    assert_eq!(get("idle-interval"), "7s\n");
    let all = ask(&world, &["get", "--control", "mpclient"]);
    assert!(all.contains("\nidle-interval       7s                      live  time"), "{all}");
    for (key, value, expected) in [
        ("flows", "many", "expected a whole number from 1 to 65535"),
        ("flow", "1", "unknown option \"flow\": did you mean \"flows\"?"),
        ("mtu", "1400", "counts only at the start: write mtu = 1400 into"),
        ("sessions", "5", "sessions is not an option of mpclient"),
    ] {
        let (code, _, err) = set(key, value);
        assert_eq!(code, Some(2), "{key}: {err}");
        assert!(err.contains(expected), "{key}: {err}");
    }

    // SIGHUP makes it as the file has it.
    client.signal(Signal::SIGHUP);
    client.expect("configuration read again: idle-interval, flows changed");
    assert_eq!((get("idle-interval"), get("flows")), ("5s\n".into(), "1024\n".into()));
}

#[test]
fn a_server_takes_live_options_at_sighup_and_from_the_control_socket() {
    let world = World::new();
    let echo = Service::echo();
    let options = world.write("server.conf", "sessions = 9\n");
    let server = world.server(echo.address, &["-c", options.to_str().unwrap()]);
    socket_of(&world, &server, "mpserver");
    let sessions = || ask(&world, &["get", "sessions"]);

    ask(&world, &["set", "sessions", "1"]);
    assert_eq!(sessions(), "1\n");
    let (code, _, err) = mptunnel(&world, &["path", "list", "--control", "mpserver"]);
    assert!(code == Some(2) && err.contains("no paths of its own"), "{code:?} {err}");
    let _one = world.connected_client(&server);
    let (file, port) = (world.write("second.conf", ""), server.port());
    fs::write(&file, format!("127.0.0.1 {port}\nname = second\n")).unwrap();
    let second = world.start(MPCLIENT, &["127.0.0.1:0", file.to_str().unwrap()]);
    second.expect("refused by the server");

    server.signal(Signal::SIGHUP);
    server.expect("configuration read again: sessions changed");
    assert_eq!(ask(&world, &["get", "sessions", "--control", "mpserver"]), "9\n");
}

#[test]
fn a_server_that_went_away_and_a_program_that_ended_are_told_as_such() {
    let world = World::new();
    let echo = Service::echo();
    let mut server = world.server(echo.address, &[]);
    let mut client = world.connected_client(&server);
    socket_of(&world, &client, "mpclient");
    let name = status(&world)["paths"][0]["name"].as_str().unwrap().to_owned();
    let only = ["--control", "mpclient"];
    let watch = ["status", "--interval", "100ms", "--watch", &name, only[0], only[1]];
    let mut watch = Program::start(world.command(MPTUNNEL, &watch));
    watch.expect("<lost");

    server.stop(Signal::SIGTERM);
    client.expect("the server is going away");
    let path = &status(&world)["paths"][0];
    assert_ne!(path["state"], "up", "{path}");
    assert!(path["reason"].as_str().unwrap().contains("went away"), "{path}");
    client.expect("no answer from the server for");
    let (path, seconds) = (&status(&world)["paths"][0], "no handshake was answered for ");
    assert_eq!(path["state"], "down");
    assert!(path["reason"].as_str().unwrap().contains(seconds), "{path}");

    client.stop(Signal::SIGTERM);
    watch.expect(&format!("mpclient {} has ended", client.pid()));
    assert_eq!(watch.wait().code(), Some(1));
}

#[test]
fn the_place_of_the_socket_can_be_chosen_and_there_can_be_none() {
    let world = World::new();
    let precious = world.write("precious", "text");
    let chosen = world.root.join("here.sock");
    let start = |control: &str| {
        let file = world.write("client.conf", "127.0.0.1 9\n");
        let mut args = vec!["127.0.0.1:0", file.to_str().unwrap(), "--control", control];
        args.push("-v");
        world.start(MPCLIENT, &args)
    };

    let client = start(chosen.to_str().unwrap());
    client.port();
    wait_until(|| chosen.exists(), || client.log());
    assert_eq!(mode(&chosen), 0o600);
    let here = ask(&world, &["status", "--control", chosen.to_str().unwrap()]);
    assert!(here.contains("NOT CONNECTED"), "{here}");
    assert_eq!(mptunnel(&world, &["status"]).0, Some(3), "it is not where the tools look");

    let mut second = start(chosen.to_str().unwrap());
    assert_eq!(second.wait().code(), Some(1));
    second.expect("belongs to a running program");
    let mut third = start(precious.to_str().unwrap());
    assert_eq!(third.wait().code(), Some(1));
    third.expect("exists and is no socket");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "text");

    let off = start("off");
    off.port();
    off.expect("is down");
    assert_eq!(mptunnel(&world, &["status"]).0, Some(3));
}

#[test]
fn strange_visitors_are_answered_or_sent_away_and_hold_up_nobody() {
    let world = World::new();
    let client = world.client("127.0.0.1 9\n", &[]);
    let socket = socket_of(&world, &client, "mpclient");
    let connect = || UnixStream::connect(&socket).unwrap();
    let say = |stream: &mut UnixStream, text: &[u8]| {
        let said = stream.write_all(text);
        said.unwrap_or_else(|error| panic!("{error}\n{}", client.log()));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    };

    // Many who say nothing, or half of something.
    let mut idle: Vec<UnixStream> = (0..15).map(|_| connect()).collect();
    idle[0].write_all(b"{\"ask\":").unwrap();
    let mut last = connect();
    assert!(say(&mut last, b"{\"ask\":\"hello\"}\n").starts_with("{\"ok\":{"));
    let mut line = String::new();
    BufReader::new(connect()).read_line(&mut line).unwrap();
    assert!(line.contains("16 others are asking already"), "{line}");
    drop(idle);

    assert!(say(&mut last, b"what\n").contains("this is no JSON"));
    assert!(say(&mut last, b"{\"ask\":\"what\"}\n").contains("knows no request \\\"what\\\""));
    assert!(say(&mut last, b"{\"ask\":\"set\",\"key\":\"flows\"}\n").contains("value"));
    assert!(say(&mut last, b"[]\n").contains("\\\"ask\\\" is missing"));
    assert!(say(&mut last, &[b'x'; 5_000]).contains("at most 4096 bytes"));
    // That was the end.
    assert_eq!(last.read(&mut [0; 1]).unwrap_or(0), 0);

    // There is room again, once it is noticed that they are gone: a process that another test is
    // about to start may have their sockets a little longer.
    let has_room = || {
        let (mut stream, mut line) = (connect(), String::new());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It is closed at once if there is none.
        let _ = stream.write_all(b"{\"ask\":\"hello\"}\n");
        let _ = BufReader::new(stream).read_line(&mut line);
        line.starts_with("{\"ok\":{")
    };
    wait_until(has_room, || client.log());

    // Two requests at once are answered one after the other.
    let mut both = connect();
    let two = b"{\"ask\":\"get\",\"key\":\"flows\"}\n{\"ask\":\"recent\"}\n";
    both.write_all(two).unwrap();
    let answers: Vec<String> = BufReader::new(&both).lines().take(2).map(Result::unwrap).collect();
    assert!(answers[0].contains("1024") && answers[1].starts_with("{\"ok\":["), "{answers:?}");

    // One who follows, and one who asks for much and reads nothing, do not hold up the next.
    let mut follower = connect();
    assert_eq!(say(&mut follower, b"{\"ask\":\"events\"}\n"), "{\"ok\":null}\n");
    let mut greedy = connect();
    greedy.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    while greedy.write_all(&b"{\"ask\":\"status\"}\n".repeat(100)).is_ok() {}
    assert!(say(&mut connect(), b"{\"ask\":\"hello\"}\n").contains("mpclient"));
    client.signal(Signal::SIGUSR1);
    client.expect("counters:");
}

#[test]
fn who_follows_events_from_a_number_misses_none_that_came_since() {
    let world = World::new();
    let dead = format!("127.0.0.1 {} name=dead\n", unused_port());
    let client = world.client(&dead, &[]);
    let stream = UnixStream::connect(socket_of(&world, &client, "mpclient")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    client.expect("path dead is down");

    (&stream).write_all(b"{\"ask\":\"events\",\"from\":0}\n").unwrap();

    let lines: Vec<String> = BufReader::new(&stream).lines().take(2).map(Result::unwrap).collect();
    assert_eq!(lines[0], "{\"ok\":null}");
    let first: Value = serde_json::from_str(&lines[1]).unwrap();
    assert_eq!(
        (&first["event"]["number"], &first["event"]["event"]),
        (&0.into(), &"path_down".into())
    );
}

/// Asks over HTTP, and returns all that comes.
#[allow(clippy::disallowed_types, reason = "a monitor asks over TCP")]
fn http(port: &str, request: &str) -> String {
    let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
#[allow(clippy::disallowed_types, reason = "a monitor asks over TCP")]
fn metrics_are_served_where_they_are_asked_for() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &["--metrics", "0", "--control", "off"]);
    let client = world.connected_client(&server);
    App::of(client.address()).ask(b"hello");
    server.expect("path 0 is up");
    let line = server.expect("metrics at http://127.0.0.1:");
    let port = line.rsplit(':').next().unwrap().trim_end_matches("/metrics").to_owned();
    // Somebody who is slow holds up nobody.
    let mut slow = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    slow.write_all(b"GET /met").unwrap();

    let answer = http(&port, "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n");

    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", text.len())), "{head}");
    assert!(text.contains("\nmptunnel_peers 1\n"), "{text}");
    assert!(
        text.contains("\nmptunnel_path_up{peer=\"1\",path=\"1\",name=\"path 0\"} 1\n"),
        "{text}"
    );
    assert!(http(&port, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
    slow.write_all(b"rics HTTP/1.0\r\n\r\n").unwrap();
    let mut late = String::new();
    slow.read_to_string(&mut late).unwrap();
    assert!(late.starts_with("HTTP/1.1 200 "), "{late}");

    // A port that is taken is told, and nothing is served unless it was asked for.
    let args = ["0", "127.0.0.1", "9", "--metrics", &port];
    let mut second = world.start(support::MPSERVER, &args);
    assert_eq!(second.wait().code(), Some(1));
    second.expect(&format!("cannot serve metrics on 127.0.0.1:{port}: choose another"));
    assert_eq!(client.count("metrics"), 0);
}

#[test]
fn the_dashboard_asks_for_nothing_that_is_not_there() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let _client = world.connected_client(&server);
    let names = |program: &str| -> Vec<String> {
        let text = ask(&world, &["status", "--prometheus", "--control", program]);
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let there = [names("mpclient"), names("mpserver")].concat();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/grafana/mptunnel.json");
    let text = fs::read_to_string(file).unwrap();
    serde_json::from_str::<Value>(&text).unwrap();

    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let wanted: Vec<&str> = text
        .match_indices("mptunnel_")
        .map(|(at, _)| text[at..].split(|c| !is_part(c)).next().unwrap())
        .collect();

    assert!(wanted.len() > 20, "{wanted:?}");
    for name in wanted {
        assert!(there.iter().any(|known| known == name), "{name} is not among {there:#?}");
    }
}
