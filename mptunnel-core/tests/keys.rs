// SPDX-License-Identifier: BSD-2-Clause
//! Every kind of key, from its file to a datagram over real sockets.

use mptunnel_core::keyfile;
use mptunnel_core::proto::crypto::StaticSecret;
use mptunnel_core::{Error, Server, ServerBuilder, Tunnel, TunnelBuilder};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

/// A directory of its own, removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("mptunnel-keys-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn key(&self, name: &str) -> (String, [u8; 32]) {
        let key = keyfile::generate().unwrap();
        let path = self.0.join(name);
        keyfile::create(&path, &key).unwrap();
        (path.to_str().unwrap().to_owned(), *key)
    }

    fn file(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn serve(builder: ServerBuilder) -> (Server, String) {
    let server = builder.listen("127.0.0.1:0".parse().unwrap()).bind().unwrap();
    let path = format!("to={}", server.local_addrs()[0]);
    (server, path)
}

fn public(key: &[u8; 32]) -> String {
    StaticSecret::new(*key).unwrap().public().to_string()
}

fn assert_carries(server: &Server, client: TunnelBuilder) {
    let client = client.connect().unwrap();
    client.wait_ready(Some(SOON)).unwrap();
    client.send(b"up").unwrap();
    let mut buffer = [0; 10];
    let (len, peer) = server.recv_from_timeout(&mut buffer, SOON).unwrap();
    assert_eq!(&buffer[..len], b"up");
    server.send_to(b"down", peer).unwrap();
    assert_eq!(client.recv_timeout(&mut buffer, SOON).unwrap(), 4);
}

#[test]
fn a_server_with_several_shared_keys_serves_each_of_them_and_no_other() {
    let scratch = Scratch::new("several");
    let keys: Vec<_> = ["a", "b", "c"].iter().map(|name| scratch.key(name)).collect();
    let list: Vec<String> =
        keys[..2].iter().map(|(file, _)| std::fs::read_to_string(file).unwrap()).collect();
    let (server, path) = serve(Server::builder().key_file(scratch.file("list", &list.concat())));

    for (file, _) in &keys[..2] {
        assert_carries(&server, Tunnel::builder().key_file(file).path(&path));
    }
    let stranger = Tunnel::builder().key_file(&keys[2].0).path(&path).connect().unwrap();
    let refused = stranger.wait_ready(Some(Duration::from_millis(600)));
    assert!(matches!(refused, Err(Error::NotConnected(_))), "{refused:?}");
}

#[test]
fn static_keys_connect_listed_clients_and_refuse_others_by_name_of_the_reason() {
    let scratch = Scratch::new("static");
    let (server_file, server_key) = scratch.key("server");
    let (listed, listed_key) = scratch.key("listed");
    let (with_psk, with_psk_key) = scratch.key("with-psk");
    let (psk, _) = scratch.key("psk");
    let (unlisted, _) = scratch.key("unlisted");
    let allowed = scratch.file(
        "allowed",
        &format!("{} name=one\n{} psk={psk}\n", public(&listed_key), public(&with_psk_key)),
    );
    let (server, path) = serve(
        Server::builder()
            .option("private-key-file", &server_file)
            .option("allowed-keys-file", &allowed),
    );
    let client = |file: &str| {
        Tunnel::builder()
            .option("private-key-file", file)
            .option("peer-key", &public(&server_key))
            .path(&path)
    };

    assert_carries(&server, client(&listed));
    assert_carries(&server, client(&with_psk).key_file(&psk));
    let refused = client(&unlisted).connect().unwrap().wait_ready(Some(SOON)).unwrap_err();
    assert!(matches!(&refused, Error::Refused(why) if why.contains("public key")), "{refused}");
}

#[test]
fn two_keys_of_a_server_with_one_id_are_refused_with_where_they_are_and_what_to_do() {
    let scratch = Scratch::new("twice");
    let (private, private_key) = scratch.key("private");
    let (shared, shared_key) = scratch.key("shared");
    let leaked = scratch.file("leaked", &public(&private_key));
    let allowed = scratch.file("allowed", "");
    let with_private = || {
        Server::builder()
            .port(0)
            .option("private-key-file", &private)
            .option("allowed-keys-file", &allowed)
    };
    let refused = |server: ServerBuilder| match server.bind().err() {
        Some(Error::Config(text)) => text,
        other => panic!("{other:?}"),
    };

    let same = refused(with_private().key(&shared_key).key_file(&shared));
    let public = refused(with_private().key_file(&leaked));

    assert!(same.starts_with("the key that was passed itself and key-file "), "{same}");
    assert!(same.contains(&shared) && same.contains("remove it from one of them"), "{same}");
    assert!(public.contains(&private) && public.contains(&leaked), "{public}");
    assert!(public.contains("is no secret: make a shared key with mptunnel genpsk"), "{public}");
    with_private().key(&[7; 32]).key_file(&shared).bind().unwrap();
}

#[test]
fn without_encryption_on_both_ends_datagrams_pass_and_on_one_end_only_they_do_not() {
    let (server, path) = serve(Server::builder().key(&[7; 32]).option("encrypt", "off"));

    assert_carries(&server, Tunnel::builder().key(&[7; 32]).option("encrypt", "off").path(&path));
    let refused =
        Tunnel::builder().key(&[7; 32]).path(&path).connect().unwrap().wait_ready(Some(SOON));
    let refused = refused.unwrap_err();
    assert!(matches!(&refused, Error::Refused(why) if why.contains("same setting")), "{refused}");
}

#[test]
fn a_key_that_is_missing_open_to_others_or_all_zero_is_an_error_that_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new("bad");
    let (open, _) = scratch.key("open");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let zero = scratch.file("zero", &format!("{}\n", *keyfile::encode(&[0; 32])));
    let missing = scratch.0.join("missing").to_str().unwrap().to_owned();
    let short = scratch.file("short", "AAAA\n");

    for (file, word) in [(&open, "chmod"), (&zero, "zero"), (&missing, "missing"), (&short, "44")] {
        let client = Tunnel::builder().key_file(Path::new(file)).path("to=127.0.0.1:9").connect();
        let server = Server::builder().key_file(Path::new(file)).port(0).bind();
        for error in [client.err().unwrap(), server.err().unwrap()] {
            assert!(matches!(error, Error::Config(_)));
            assert!(error.to_string().contains(word), "{file}: {error}");
        }
    }
    let none = Tunnel::builder().path("to=127.0.0.1:9").connect().err().unwrap();
    assert!(none.to_string().contains("genpsk"), "{none}");
}
