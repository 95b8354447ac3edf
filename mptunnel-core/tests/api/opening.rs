// SPDX-License-Identifier: BSD-2-Clause
//! Opening endpoints: from a line of text, from a config, from a file.

use crate::{SOON, config, wait_for};
use mptunnel_core::options::Role;
use mptunnel_core::{Config, Endpoint, Error, PeerId, SendOptions, Server, Tunnel};

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
    assert!(missing.to_string().contains("missing: No such file"), "{missing}");
}

#[test]
fn what_holds_a_key_can_be_printed_and_does_not_print_it() {
    let key = [0xab; 32];
    let mut config = Config::new();
    config.key(&key);
    config.set("window", "8192").unwrap();
    let server = Server::builder().key(&key).port(0).bind().unwrap();
    let tunnel = Tunnel::builder().key(&key).path("to=127.0.0.1:9").connect().unwrap();

    let texts = [
        format!("{config:?}"),
        format!("{:?}", Tunnel::builder().key(&key)),
        format!("{:?}", Server::builder().key(&key)),
        format!("{server:?} {tunnel:?}"),
    ];
    assert!(texts[0].contains("8192"), "{texts:?}");
    assert!(
        !texts.iter().any(|text| text.contains("171, 171") || text.contains("ab, ab")),
        "{texts:?}"
    );
}
