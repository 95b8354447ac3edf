// SPDX-License-Identifier: BSD-2-Clause
//! What each option does, seen from outside.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use mptunnel_core::Tunnel;
use mptunnel_core::keyfile;
use nix::sys::signal::Signal;

use crate::bench::{Case, End, Options, Pair, threads};
use crate::support::{App, PATIENCE, Program, Service, wait_until};
use crate::wire::Fate;

/// An option, and what shows its effect.
pub type Entry = (&'static str, fn(&Case));

/// A function for each option. Those that take long come first.
pub const ALL: &[Entry] = &[
    ("idle-interval", idle_interval),
    ("failback", failback),
    ("target-loss", target_loss),
    ("window", window),
    ("handshake-rate", handshake_rate),
    ("source-rate", source_rate),
    ("probe-interval", probe_interval),
    ("session-timeout", session_timeout),
    ("flow-timeout", flow_timeout),
    ("passphrase-file", passphrase_file),
    ("tunnel-name", tunnel_name),
    ("reassembly-memory", reassembly_memory),
    ("offload", offload),
    ("legacy-timeout", legacy_timeout),
    ("mode", mode),
    ("max-copies", max_copies),
    ("budget", budget),
    ("key-file", key_file),
    ("private-key-file", private_key_file),
    ("peer-key", peer_key),
    ("allowed-keys-file", allowed_keys_file),
    ("allow-insecure-keys", allow_insecure_keys),
    ("name", name),
    ("encrypt", encrypt),
    ("cipher", cipher),
    ("rekey-interval", rekey_interval),
    ("max-payload", max_payload),
    ("mtu", mtu),
    ("reorder", reorder),
    ("path-queue", path_queue),
    ("sessions", sessions),
    ("flows", flows),
    ("cookie-threshold", cookie_threshold),
    ("source-burst", source_burst),
    ("threads", threads_),
    ("socket-buffer", socket_buffer),
    ("listen", listen),
    ("control", control),
    ("metrics", metrics),
    ("protocol", protocol),
    ("obfuscate", obfuscate),
    ("legacy-state", legacy_state),
];

/// What takes gigabytes of traffic to see: a test of the library for each.
pub const ELSEWHERE: &[(&str, &str, &str)] = &[(
    "window-memory",
    include_str!("../../../../mptunnel-core/src/setup.rs"),
    "the_memory_options_bound_what_windows_and_pieces_take",
)];

/// Paths. Finding out the MTU of the loopback interface would take packets that count.
const ONE: &[&str] = &["name=a mtu=1500"];
const TWO: &[&str] = &["name=a mtu=1500", "name=b mtu=1500"];
const THREE: &[&str] = &["name=a mtu=1500", "name=b mtu=1500", "name=c mtu=1500"];

fn nowhere() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9).into()
}

fn mode(case: &Case) {
    case.pair(&[("mode", "weighted")], &[], TWO).expect_one_copy();
}

/// Where a fifth is lost, the default takes two copies.
fn target_loss(case: &Case) {
    let options = &[("mode", "adaptive"), ("target-loss", "0.4")];
    let mut pair = case.pair(options, &[], TWO);
    pair.open_flow();
    for wire in &pair.wires {
        let mut count = 0_u32;
        wire.rule(case.end.other(), move |packet| {
            count += u32::from(packet.len() == 36 + 100);
            if packet.len() == 36 + 100 && count.is_multiple_of(5) {
                Fate::IsLost
            } else {
                Fate::Passes
            }
        });
    }
    let loss = |path: &serde_json::Value| path["loss_out"].as_f64().unwrap_or(0.0);
    wait_until(
        || {
            pair.copies();
            pair.session()["paths"].as_array().unwrap().iter().any(|path| loss(path) > 0.1)
        },
        || "the loss is not measured".to_owned(),
    );
    // A tenth less a second, if they were two already.
    wait_until(|| pair.copies() < 1.9, || "there are more copies".to_owned());
}

/// Of three copies, with which it begins, the third would be gone in ten seconds.
fn max_copies(case: &Case) {
    case.pair(&[("max-copies", "1"), ("mode", "adaptive")], &[], THREE).expect_one_copy();
}

fn budget(case: &Case) {
    case.pair(&[("budget", "1"), ("mode", "adaptive")], &[], THREE).expect_one_copy();
}

/// Once used, the backup stays in use though the other path is back.
fn failback(case: &Case) {
    let words = &["name=a", "name=b role=backup"];
    // A server takes a path for silent after three intervals: 15 s without these, if it is idle.
    let mut pair = case.pair(
        &[("failback", "never"), ("idle-interval", "1s")],
        &[("idle-interval", "1s")],
        words,
    );
    pair.open_flow();
    let to = case.end.other();
    let is_mark = |packet: &[u8]| packet.len() == 36 + 333;
    let marks = |pair: &Pair| pair.wires[1].count(to, is_mark);
    let first_path = |pair: &Pair, up: bool, since: u64| {
        let path = pair.session()["paths"][0].clone();
        path["up"] == up && path["since_us"].as_u64().unwrap() > since
    };

    pair.wires[0].cut(true);
    wait_until(|| first_path(&pair, false, 0), || "the path does not go down".to_owned());
    pair.send_through(to, &[0; 333]);
    pair.wires[0].cut(false);
    wait_until(
        || {
            pair.send_through(to, &[1; 333]);
            // Twice the time after which it returns by default.
            first_path(&pair, true, 2_000_000)
        },
        || "it does not come back".to_owned(),
    );
    let before = marks(&pair);
    for number in 0..20_u8 {
        pair.send_through(to, &[number; 333]);
    }
    wait_until(|| marks(&pair) >= before + 20, || "it has returned".to_owned());
}

fn key_file(case: &Case) {
    let file = case.world.root.join("other");
    keyfile::create(&file, &keyfile::generate().unwrap()).unwrap();
    let options: Options = &[("key-file", file.to_str().unwrap())];
    // The key that is found without the option is another one.
    case.pair(options, options, ONE).send_through(case.end, b"hello");
}

fn words_file(case: &Case) -> String {
    let file = case.world.write("words", "correct horse battery staple\n");
    file.to_str().unwrap().to_owned()
}

/// Starts the program in question on its own: its log says with which key.
fn alone(case: &Case, options: Options) -> Program {
    match case.end {
        End::Client => case.client("127.0.0.1 9\n", options),
        End::Server => case.server(nowhere(), options),
    }
}

fn passphrase_file(case: &Case) {
    let file = words_file(case);
    let program = alone(case, &[("passphrase-file", &file), ("tunnel-name", "one")]);
    // As the Python package has it.
    program.expect("key id 75aa1288ed395625");
}

fn tunnel_name(case: &Case) {
    let file = words_file(case);
    let program = alone(case, &[("tunnel-name", "one"), ("passphrase-file", &file)]);
    program.expect("key id 75aa1288ed395625");
}

/// The key pairs of RFC 7748, section 6.1.
const ALICE: [&str; 2] = [
    "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=",
    "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=",
];
const BOB: [&str; 2] = [
    "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=",
    "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=",
];

/// Both ends with key pairs: the client is Alice, the server is Bob and knows her.
fn key_pair(case: &Case) {
    let write = |name, text: &str| case.world.write(name, text).to_str().unwrap().to_owned();
    let (alice, bob) = (write("alice", ALICE[0]), write("bob", BOB[0]));
    let allowed = write("allowed", ALICE[1]);
    let client: Options = &[("private-key-file", &alice), ("peer-key", BOB[1])];
    let server: Options = &[("private-key-file", &bob), ("allowed-keys-file", &allowed)];
    let mut pair = match case.end {
        End::Client => case.pair(client, server, ONE),
        End::Server => case.pair(server, client, ONE),
    };
    pair.send_through(case.end, b"hello");
}

fn private_key_file(case: &Case) {
    key_pair(case);
}

fn peer_key(case: &Case) {
    key_pair(case);
}

fn allowed_keys_file(case: &Case) {
    key_pair(case);
}

fn allow_insecure_keys(case: &Case) {
    fs::set_permissions(case.world.key_file(), fs::Permissions::from_mode(0o644)).unwrap();
    // Without it a program ends before it listens.
    alone(case, &[("allow-insecure-keys", "on")]);
}

fn name(case: &Case) {
    let echo = Service::echo();
    let server = case.server(echo.address, &[]);
    for restarts in 0..2 {
        let client = case.client(&to(&server), &[("name", "one")]);
        client.expect(" is up");
        let peers = || case.status(&server)["peers"].clone();
        wait_until(|| peers()[0]["restarts"] == restarts, || format!("{}", peers()));
        assert_eq!(peers().as_array().unwrap().len(), 1);
        client.kill();
    }
}

/// The line of a path to a program.
fn to(server: &Program) -> String {
    format!("127.0.0.1 {}\n", server.port())
}

fn encrypt(case: &Case) {
    let off: Options = &[("encrypt", "off")];
    let mut pair = case.pair(off, off, ONE);
    for end in [End::Server, End::Client] {
        pair.send_through(end, b"who can read this");
        assert!(pair.wires[0].saw(end, |packet| contains(packet, b"who can read this")));
    }
}

fn contains(packet: &[u8], text: &[u8]) -> bool {
    packet.windows(text.len()).any(|part| part == text)
}

fn cipher(case: &Case) {
    for (value, expected) in [("chacha20", "chacha20-poly1305"), ("aes256gcm", "aes-256-gcm")] {
        let pair = case.pair(&[("cipher", value)], &[], ONE);
        assert_eq!(pair.session()["cipher"], expected);
    }
}

/// Every 250 ms without it.
fn probe_interval(case: &Case) {
    let mut pair = case.pair(&[("probe-interval", "50ms")], &[], ONE);
    pair.send_through(End::Server, b"in use");
    pair.expect_dense(End::Client, 10, Duration::from_millis(200));
}

/// Every 5 s without it; a path in use is probed every 250 ms, and an idle one not more often.
fn idle_interval(case: &Case) {
    let pair = case.pair(&[("idle-interval", "100ms")], &[], ONE);
    pair.expect_dense(case.end, 8, Duration::from_millis(500));
}

fn rekey_interval(case: &Case) {
    let pair = case.pair(&[("rekey-interval", "100ms")], &[], ONE);
    wait_until(
        || pair.session()["session"]["rekeys"].as_u64().unwrap() > 0,
        || format!("{}", pair.status()),
    );
}

/// A packet that lags behind by 4,200 is dropped; without the option the window grows so far.
fn window(case: &Case) {
    let mut pair = case.pair(&[("window", "4096")], &[], ONE);
    pair.open_flow();
    let end = case.end;
    let hold = |packet: &[u8]| if packet.len() == 36 + 333 { Fate::Waits } else { Fate::Passes };
    pair.wires[0].rule(end, hold);
    pair.send(end, &[0; 333]);
    pair.wires[0].expect_waiting(end, 1);
    for round in 0..28_u8 {
        for _ in 0..150 {
            pair.send(end, b"");
        }
        pair.send_through(end, &[round]);
    }
    pair.wires[0].release(end);
    let late = pair.send_through(end, b"last");
    assert!(late.is_empty(), "{late:?}");
    assert_eq!(pair.status()["dropped"]["too_old"], 1);
}

fn max_payload(case: &Case) {
    let mut pair = case.pair(&[("max-payload", "100")], &[], ONE);
    for end in [End::Server, End::Client] {
        pair.send(end, &[1; 101]);
        assert!(pair.send_through(end, &[2; 100]).is_empty(), "to {end:?}");
    }
}

fn mtu(case: &Case) {
    let pair = case.pair(&[("mtu", "1000")], &[], &["name=a"]);
    assert_eq!(pair.session()["paths"][0]["max_packet"], 1000 - 28);
}

fn reorder(case: &Case) {
    let mut pair = case.pair(&[("reorder", "1s")], &[], ONE);
    let end = case.end;
    let hold = |packet: &[u8]| if packet.len() == 36 + 333 { Fate::Waits } else { Fate::Passes };
    pair.send_through(end, b"first");
    pair.wires[0].rule(end, hold);
    let mut attempt = || {
        let start = Instant::now();
        pair.send(end, &[2; 333]);
        pair.send(end, b"third");
        pair.wires[0].expect_waiting(end, 1);
        let early = pair.receive(end, Duration::from_millis(100));
        pair.wires[0].release(end);
        let in_time = start.elapsed() < Duration::from_millis(900);
        let before_last = pair.send_through(end, b"last");
        if in_time {
            assert_eq!(early, None);
            assert_eq!(before_last, [&[2; 333][..], b"third"]);
        }
        in_time
    };
    // A machine that is busy may take longer than it waits for a datagram: then once more.
    wait_until(&mut attempt, || "it is never in time".to_owned());
}

/// All of what takes 0.2 s at that rate waits; a quarter without the option.
fn path_queue(case: &Case) {
    let (words, mine): (_, Options) = match case.end {
        End::Client => ("name=a mtu=1500 rate=1", &[("path-queue", "1s")]),
        End::Server => ("name=a mtu=1500 rate-down=1", &[("path-queue", "1s"), ("mtu", "1500")]),
    };
    let mut pair = case.pair(mine, &[], &[words]);
    pair.open_flow();
    let is_paced = || !pair.session()["paths"][0]["queue"].is_null();
    wait_until(is_paced, || "it has no rate".to_owned());
    let to = case.end.other();
    // A machine that is busy may send some of them too late even so: then once more.
    let mut attempt = || {
        for number in 0..20 {
            pair.send(to, &[number; 1200]);
        }
        let came = || pair.receive(to, Duration::from_secs(1));
        let came: Vec<Vec<u8>> = std::iter::from_fn(came).take(20).collect();
        came.iter().zip(0..20).all(|(data, number)| *data == [number; 1200]) && came.len() == 20
    };
    wait_until(&mut attempt, || "some are dropped".to_owned());
}

/// Of two unfinished datagrams of 40 kB there is room for one.
fn reassembly_memory(case: &Case) {
    let mut pair = case.pair(&[("reassembly-memory", "64KiB")], &[("mtu", "1500")], ONE);
    let end = case.end;
    pair.send_through(end, &[0; 40_000]);
    let big = |packet: &[u8]| packet.len() > 1_000;
    let pieces = pair.wires[0].count(end, big);
    let mut count = 0;
    pair.wires[0].rule(end, move |packet| {
        count += usize::from(big(packet));
        if big(packet) && count.is_multiple_of(pieces) { Fate::Waits } else { Fate::Passes }
    });
    for number in [1, 2] {
        pair.send(end, &[number; 40_000]);
        pair.wires[0].expect_waiting(end, number.into());
    }
    pair.wires[0].release(end);
    assert_eq!(pair.send_through(end, b"last").len(), 1);
}

/// A client in this process.
fn guest(case: &Case, server: &Program) -> Tunnel {
    let builder = Tunnel::builder().key_file(case.world.key_file());
    builder.server(&server.address().to_string()).connect().unwrap()
}

fn sessions(case: &Case) {
    let server = case.server(nowhere(), &[("sessions", "1")]);
    let first = guest(case, &server);
    first.wait_ready(Some(PATIENCE)).unwrap();
    let second = guest(case, &server);
    let refused = second.wait_ready(Some(PATIENCE)).unwrap_err();
    assert!(matches!(refused, mptunnel_core::Error::Refused(_)), "{refused}");
}

fn session_timeout(case: &Case) {
    let pair = case.pair(&[("session-timeout", "1s")], &[], ONE);
    pair.wires[0].cut(true);
    let peers = || pair.status()["peers"].as_array().unwrap().len();
    wait_until(|| peers() == 0, || "it is not forgotten".to_owned());
}

fn flows(case: &Case) {
    let mut pair = case.pair(&[("flows", "1")], &[], ONE);
    pair.open_flow();
    App::of(pair.client.address()).send(b"another application");
    let refused = || pair.status()["relay"]["flows_refused"].as_u64().unwrap();
    wait_until(|| refused() > 0, || "it is not refused".to_owned());
}

fn flow_timeout(case: &Case) {
    let mut pair = case.pair(&[("flow-timeout", "1s")], &[], ONE);
    pair.open_flow();
    let flows = || pair.status()["relay"]["flows"].as_u64().unwrap();
    wait_until(|| flows() == 0, || "it is not forgotten".to_owned());
}

/// Four clients come at once until so many of their handshakes are dropped. The four are through
/// after three drops each, unless the limit lasts.
fn limited(case: &Case, options: Options, drops: u64) {
    let server = case.server(nowhere(), options);
    // They come at once however busy the machine is: what came while it stood still.
    server.signal(Signal::SIGSTOP);
    let guests = [(); 4].map(|()| {
        let before = unread(&server);
        let guest = guest(case, &server);
        wait_until(|| unread(&server) > before, || "no handshake comes".to_owned());
        guest
    });
    server.signal(Signal::SIGCONT);
    let dropped = || case.status(&server)["dropped"]["rate_limited"].as_u64().unwrap();
    wait_until(|| dropped() >= drops, || format!("{} handshakes dropped", dropped()));
    wait_until(
        || guests.iter().any(|guest| guest.wait_ready(Some(Duration::ZERO)).is_ok()),
        || "none comes through".to_owned(),
    );
}

/// What lies unread in the sockets on a program's port, by the kernel's count (proc_net(5)).
fn unread(program: &Program) -> u64 {
    let port = format!(":{:04X}", program.address().port());
    let tables = ["udp", "udp6"].map(|name| fs::read_to_string(format!("/proc/net/{name}")));
    let tables = tables.map(Result::unwrap_or_default).join("\n");
    let queues = tables.lines().filter_map(|line| {
        let mut columns = line.split_whitespace();
        columns.nth(1).filter(|local| local.ends_with(&port))?;
        let (_, unread) = columns.nth(2)?.split_once(':')?;
        u64::from_str_radix(unread, 16).ok()
    });
    queues.sum()
}

fn handshake_rate(case: &Case) {
    limited(case, &[("handshake-rate", "1")], 8);
}

fn source_rate(case: &Case) {
    limited(case, &[("source-rate", "1"), ("source-burst", "1"), ("cookie-threshold", "0")], 8);
}

/// At one in a second it makes no difference how close together they come.
fn source_burst(case: &Case) {
    limited(case, &[("source-burst", "1"), ("source-rate", "1"), ("cookie-threshold", "0")], 1);
}

fn cookie_threshold(case: &Case) {
    let server = case.server(nowhere(), &[("cookie-threshold", "0")]);
    let event = guest(case, &server).next_event(Some(PATIENCE)).unwrap();
    assert_eq!(event.to_string(), "the server is under load and checks addresses");
}

/// A batch leaves in one piece with it, and without it packet by packet.
fn offload(case: &Case) {
    for (value, expected) in [("on", true), ("off", false)] {
        let mut pair = case.pair(&[("offload", value), ("mtu", "1500")], &[], ONE);
        pair.open_flow();
        pair.wires[0].catch_bursts();
        let to = case.end.other();
        // What came while it stood still is a batch.
        pair.mine().signal(Signal::SIGSTOP);
        for _ in 0..20 {
            pair.send(to, &[0; 500]);
        }
        pair.mine().signal(Signal::SIGCONT);
        let came = || pair.wires[0].lengths(to, |packet| packet.len() >= 500);
        wait_until(|| came().iter().sum::<usize>() >= 20 * 536, || format!("{:?}", came()));
        assert_eq!(came().iter().any(|len| *len > 1500), expected, "{:?}", came());
    }
}

fn threads_(case: &Case) {
    let server = case.server(nowhere(), &[("threads", "3")]);
    let count = || threads(&server, "mpt-receive");
    // A thread gives itself its name.
    wait_until(|| count() == 3, || format!("{} threads receive", count()));
}

fn socket_buffer(case: &Case) {
    let pair = case.pair(&[("socket-buffer", "64KiB")], &[], ONE);
    assert_eq!(pair.status()["receive_buffer"], 65_536);
}

fn listen(case: &Case) {
    let client = case.client("127.0.0.1 9\n", &[("listen", "127.0.0.2:0")]);
    client.expect("listens on 127.0.0.2:");
}

fn control(case: &Case) {
    let place = case.world.root.join("here");
    let _program = alone(case, &[("control", place.to_str().unwrap())]);
    assert!(place.exists());
}

fn metrics(case: &Case) {
    let program = alone(case, &[("metrics", "0")]);
    let line = program.expect("metrics at http://127.0.0.1:");
    let address = line.split("http://").nth(1).unwrap().trim_end_matches("/metrics");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\nmptunnel_connected 0\n"), "{answer}");
}

/// A sign of life of the classic mptunnel, in clear.
const SIGN_OF_LIFE: [u8; 16] = [0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];

/// A socket of a classic program.
fn classic() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Signs of life that a program sends to a classic one.
fn signs_of_life(case: &Case, options: Options, count: usize) {
    let plain = classic();
    let is_sign = |_| {
        let mut buffer = [0; 100];
        let (len, from) = plain.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..len], SIGN_OF_LIFE);
        if case.end == End::Client {
            plain.send_to(&SIGN_OF_LIFE, from).unwrap();
        }
    };
    match case.end {
        End::Client => {
            let path = format!("127.0.0.1 {}\n", plain.local_addr().unwrap().port());
            let _client = case.client(&path, options);
            (0..count).for_each(is_sign);
        }
        End::Server => {
            let server = case.server(nowhere(), options);
            plain.send_to(&SIGN_OF_LIFE, server.address()).unwrap();
            (0..count).for_each(is_sign);
        }
    }
}

fn protocol(case: &Case) {
    signs_of_life(case, &[("protocol", "legacy")], 1);
}

/// Up to three at once, and then one every third of a second; every 20 s without the option.
fn legacy_timeout(case: &Case) {
    signs_of_life(case, &[("legacy-timeout", "1s"), ("protocol", "legacy")], 5);
}

fn obfuscate(case: &Case) {
    let options: Options = &[("obfuscate", "on"), ("protocol", "legacy")];
    let mut pair = case.pair(options, options, ONE);
    for end in [End::Server, End::Client] {
        pair.send_through(end, b"who can read this");
        assert!(!pair.wires[0].saw(end, |packet| contains(packet, b"who can read this")));
    }
}

fn legacy_state(case: &Case) {
    let file = case.world.write("numbers", "1000\n");
    let legacy = ("protocol", "legacy");
    let mut pair = case.pair(&[("legacy-state", file.to_str().unwrap()), legacy], &[legacy], ONE);
    let to = case.end.other();
    pair.send_through(to, b"numbered");
    // Words of 32 bits: the third one is the number.
    let above = |packet: &[u8]| {
        let number = packet.get(8..12).map(|n| u32::from_le_bytes(n.try_into().unwrap()));
        packet.ends_with(b"numbered") && number.is_some_and(|number| number > 1_000)
    };
    assert!(pair.wires[0].saw(to, above));
}
