// SPDX-License-Identifier: BSD-2-Clause
//! What mpserver and mpclient say about their keys, configurations and surroundings.

#![allow(clippy::disallowed_types, reason = "these tests are about real sockets")]

mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use support::{App, MPCLIENT, MPSERVER, MPTUNNEL, PATIENCE, Service, World, output};

fn nowhere() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9).into()
}

#[test]
fn the_first_run_of_a_server_makes_a_key_and_says_how_to_copy_it_but_never_the_key() {
    let world = World::without_key();

    let server = world.server(nowhere(), &[]);

    let key = fs::read_to_string(world.key_file()).unwrap();
    assert!(support::is_private(&world.key_file()));
    let path = world.key_file().display().to_string();
    server.expect_line(&["first run: made a new key", &path, "key id "], PATIENCE);
    server.expect(&format!("scp -p {path} CLIENT:.config/mptunnel/psk"));
    assert!(!server.log().contains(key.trim()), "{}", server.log());

    let again = world.server(nowhere(), &[]);
    assert_eq!(again.count("first run"), 0);
    assert_eq!(fs::read_to_string(world.key_file()).unwrap(), key);
}

#[test]
fn the_key_of_the_first_run_connects_a_client_and_both_logs_name_it_alike() {
    let world = World::without_key();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let client = world.connected_client(&server);

    assert_eq!(App::of(client.address()).ask(b"hello"), b"hello");
    let id = |line: String| {
        let id = line.split("key id ").nth(1).unwrap();
        id.chars().take_while(char::is_ascii_hexdigit).collect::<String>()
    };
    let ids = [
        id(server.expect("first run")),
        id(server.expect("listens on")),
        id(client.expect("listens on")),
    ];
    assert!(ids[0].len() == 16 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn a_client_without_a_key_says_what_to_do_and_makes_none() {
    let world = World::without_key();
    let config = world.write("client.conf", "127.0.0.1 2000\n");

    let (code, _, error) = output(world.command(MPCLIENT, &["0", config.to_str().unwrap()]));

    assert_eq!(code, Some(2), "{error}");
    let path = world.key_file().display().to_string();
    assert!(error.contains("no key: a client needs the key file of its server"), "{error}");
    assert!(error.contains(&format!("scp -p SERVER:.config/mptunnel/psk {path}")), "{error}");
    assert!(error.contains("--key-file FILE"), "{error}");
    assert!(!world.root.join(".config").exists());
}

#[test]
fn a_key_file_that_others_can_read_is_refused_with_the_remedy() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    fs::set_permissions(world.key_file(), fs::Permissions::from_mode(0o644)).unwrap();

    for (program, args) in [(MPSERVER, vec!["0", "localhost", "9"]), (MPCLIENT, vec!["0", "c"])] {
        world.write("c", "127.0.0.1 2000\n");
        let (code, _, error) = output(world.command(program, &args));
        assert_eq!(code, Some(2), "{error}");
        let path = world.key_file().display().to_string();
        assert!(error.contains(&format!("run chmod 600 {path}")), "{error}");
    }
}

#[test]
fn different_keys_are_told_at_both_ends_with_the_ids_to_compare() {
    let (here, there) = (World::new(), World::new());
    let server = there.server(nowhere(), &[]);
    let client = here.client(&format!("127.0.0.1 {}\n", server.port()), &[]);

    server.expect_line(&["warn", "key id", "which is not ours"], PATIENCE);
    client.expect_line(&["warn", "no answer from the server", "different keys"], PATIENCE);
    let id = client.expect("key id").split("key id ").nth(1).unwrap()[..16].to_owned();
    server.expect(&format!("somebody tried with key id {id}"));

    // The client tries four times a second; a line now and then is enough.
    assert_eq!(server.count("which is not ours"), 1, "{}", server.log());
    App::of(client.address()).send(b"nothing of this leaves");
    client.expect_line(&["warn", "datagrams of applications are lost"], PATIENCE);
}

#[test]
fn a_mismatch_of_encryption_is_told_at_both_ends() {
    let world = World::new();
    for (off, on) in [(MPSERVER, "client"), (MPCLIENT, "server")] {
        let server_off = off == MPSERVER;
        let mut server = world.command(MPSERVER, &["127.0.0.1:0", "127.0.0.1", "9"]);
        server.env("MPTUNNEL_ENCRYPT", if server_off { "0" } else { "1" });
        let server = support::Program::start(server);
        let config = world.write("client.conf", &format!("127.0.0.1 {}\n", server.port()));
        let mut client = world.command(MPCLIENT, &["127.0.0.1:0", config.to_str().unwrap()]);
        client.env("MPTUNNEL_ENCRYPT", if server_off { "1" } else { "0" });
        let client = support::Program::start(client);

        let words = ["warn", "refused", "encryption", on];
        client.expect_line(&words, PATIENCE);
        server.expect_line(&words, PATIENCE);
        let (with, without) = if server_off { (server, client) } else { (client, server) };
        with.expect_line(&["warn", "encryption is off"], PATIENCE);
        assert_eq!(without.count("encryption is off: everybody"), 0);
    }
}

#[test]
fn without_encryption_on_both_ends_the_tunnel_works_and_bridges_can_read() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &["--encrypt", "off"]);
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (copy, to) = (seen.clone(), server.address());
    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    upstream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let eavesdropper = Service::start(move |datagram, _| {
        copy.lock().unwrap().extend_from_slice(datagram);
        upstream.send_to(datagram, to).unwrap();
        let mut answer = vec![0; 2_000];
        let len = upstream.recv(&mut answer).ok()?;
        answer.truncate(len);
        Some(answer)
    });
    let config = format!("127.0.0.1 {}\n", eavesdropper.address.port());
    let client = world.client(&config, &["--encrypt", "off"]);
    client.expect(" is up");

    assert_eq!(App::of(client.address()).ask(b"a readable text"), b"a readable text");

    let seen = seen.lock().unwrap();
    assert!(seen.windows(15).any(|window| window == b"a readable text"));
}

#[test]
fn an_error_of_the_configuration_names_file_line_word_and_remedy() {
    let world = World::new();
    let message = |text: &str| {
        let file = world.write("client.conf", text);
        let (code, _, error) = output(world.command(MPCLIENT, &["0", file.to_str().unwrap()]));
        assert_eq!(code, Some(2), "{error}");
        error
    };

    let error = message("# bridges\n\n127.0.0.1 4000 wieght=3\n");
    assert!(error.contains("client.conf:3: unknown word \"wieght=3\""), "{error}");
    assert!(error.contains("did you mean \"weight=\"?"), "{error}");

    let error = message("127.0.0.1\nmtu = 1400 bytes\nmut = 3\n");
    assert!(error.contains("client.conf:1: no port behind \"127.0.0.1\""), "{error}");
    assert!(error.contains("client.conf:2: mtu = \"1400 bytes\": expected a whole"), "{error}");
    assert!(error.contains("client.conf:3: unknown option \"mut\": did you mean"), "{error}");

    let error = message("127.0.0.1 4000\nreceive-queue = 1M\n");
    assert!(error.contains("client.conf:2: receive-queue is not an option of mpclient"), "{error}");
}

#[test]
fn what_goes_wrong_at_the_start_has_an_exit_status_and_a_remedy() {
    let world = World::new();
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = world.write("client.conf", "127.0.0.1 4000\n");
    let file = file.to_str().unwrap();
    let run = |program, args: &[&str]| {
        let (code, _, error) = output(world.command(program, args));
        (code, error)
    };

    for (program, args) in
        [(MPSERVER, vec![address.as_str(), "localhost", "9"]), (MPCLIENT, vec![&address, file])]
    {
        let (code, error) = run(program, &args);
        assert_eq!(code, Some(1), "{error}");
        assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
        assert!(error.contains("another program uses that port"), "{error}");
    }
    let (code, error) = run(MPSERVER, &["192.0.2.1:0", "localhost", "9"]);
    assert_eq!((code, error.contains("no interface has that address")), (Some(1), true), "{error}");
    for args in [vec!["2000"], vec!["x", "localhost", "9"], vec!["1", "h", "x"]] {
        assert_eq!(run(MPSERVER, &args).0, Some(2));
    }
    for args in [vec![], vec!["3000"], vec!["x", file], vec!["/no/such/file"]] {
        assert_eq!(run(MPCLIENT, &args).0, Some(2));
    }
}

#[test]
fn help_and_version_are_told_on_standard_output_and_are_no_failure() {
    let world = World::without_key();
    for program in [MPSERVER, MPCLIENT, MPTUNNEL] {
        let name = program.rsplit('/').next().unwrap();
        let (code, out, error) = output(world.command(program, &["--version"]));
        assert_eq!(
            (code, out.as_str()),
            (Some(0), &*format!("{name} {}\n", env!("CARGO_PKG_VERSION")))
        );
        assert_eq!(error, "");
        let (code, out, _) = output(world.command(program, &["--help"]));
        assert_eq!(code, Some(0));
        assert!(out.contains("Example") && out.contains(&format!("Usage: {name}")), "{out}");
    }
}

#[test]
fn keys_made_by_mptunnel_connect_the_two_ends() {
    let world = World::without_key();
    let run = |args: &[&str]| {
        let (code, out, error) = output(world.command(MPTUNNEL, args));
        assert_eq!(code, Some(0), "{error}");
        out
    };
    assert_eq!(run(&["genkey", "-o", "server.key"]), "");
    assert_eq!(run(&["genkey", "--output", "client.key"]), "");
    let allowed = run(&["pubkey", "client.key"]);
    world.write("allowed", &allowed);
    let peer = run(&["pubkey", "server.key"]);
    let echo = Service::echo();
    let server = world.server(
        echo.address,
        &["--private-key-file", "server.key", "--allowed-keys-file", "allowed"],
    );
    let config =
        format!("127.0.0.1 {}\nprivate-key-file = client.key\npeer-key = {peer}", server.port());
    let client = world.client(&config, &[]);
    client.expect(" is up");

    assert_eq!(App::of(client.address()).ask(b"hello"), b"hello");
    assert!(support::is_private(&world.root.join("server.key")));
}

#[test]
fn a_client_with_an_unlisted_key_is_refused_and_told_so() {
    let world = World::without_key();
    for name in ["server.key", "client.key", "other.key"] {
        assert_eq!(output(world.command(MPTUNNEL, &["genkey", "-o", name])).0, Some(0));
    }
    let public = |name| output(world.command(MPTUNNEL, &["pubkey", name])).1;
    world.write("allowed", &public("other.key"));
    let server = world
        .server(nowhere(), &["--private-key-file", "server.key", "--allowed-keys-file", "allowed"]);
    let client = world.client(
        &format!(
            "127.0.0.1 {}\nprivate-key-file = client.key\npeer-key = {}",
            server.port(),
            public("server.key")
        ),
        &[],
    );

    client.expect_line(&["warn", "refused by the server"], PATIENCE);
    server.expect_line(&["warn", "a client was refused"], PATIENCE);
}

#[test]
fn a_passphrase_connects_ends_with_the_same_tunnel_name_and_warns() {
    let world = World::without_key();
    let echo = Service::echo();
    world.write("passphrase", "correct horse battery staple\n");
    let words = ["--passphrase-file", "passphrase", "--tunnel-name", "home"];
    let server = world.server(echo.address, &words);
    let client = world.client(&format!("127.0.0.1 {}\n", server.port()), &words);
    client.expect(" is up");

    assert_eq!(App::of(client.address()).ask(b"hello"), b"hello");
    server.expect_line(&["warn", "a passphrase is in use"], PATIENCE);
}

#[cfg(target_os = "linux")]
#[test]
fn other_processes_of_the_user_cannot_look_into_the_programs() {
    use std::os::unix::fs::MetadataExt;
    let world = World::new();
    let server = world.server(nowhere(), &[]);

    // What must not be looked into belongs to root in /proc, whoever runs it (proc(5)).
    let environ = fs::metadata(format!("/proc/{}/environ", server.pid())).unwrap();

    assert_eq!(environ.uid(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn the_number_of_open_files_is_raised_as_far_as_it_may() {
    let world = World::new();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -S -n 100 && exec \"$0\" 127.0.0.1:0 127.0.0.1 9", MPSERVER]);
    command.env_clear().env("HOME", &world.root).env("PATH", "/usr/bin:/bin");
    let server = support::Program::start(command);
    server.port();

    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert!(words[3] == words[4] && words[3] != "100", "{line}");
}
