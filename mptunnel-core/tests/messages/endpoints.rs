// SPDX-License-Identifier: BSD-2-Clause
//! Endpoints on real sockets, where the state machines alone do not show it.

#![allow(clippy::disallowed_methods, reason = "these tests are about real time")]

use crate::pair::{MS, S};
use mptunnel_core::{Error, Handler, Server, Source, Tunnel};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

const KEY: [u8; 32] = [7; 32];

fn server() -> (Server, u16) {
    let server = Server::builder()
        .key(&KEY)
        .option("max-payload", "1000")
        .listen("127.0.0.1:0".parse().unwrap())
        .bind()
        .unwrap();
    let port = server.local_addrs()[0].port();
    (server, port)
}

#[test]
fn a_datagram_that_is_too_large_takes_no_other_of_its_batch_with_it() {
    let (server, port) = server();
    let client = Tunnel::builder().key(&KEY).path(&format!("to=127.0.0.1:{port}"));
    let client = client.connect().unwrap();
    client.wait_ready(Some(S * 5)).unwrap();
    let large = vec![0; 1_001];

    client.send_batch([&large[..], b"small"]).unwrap();

    let mut buffer = [0; 2_000];
    let (len, peer) = server.recv_from_timeout(&mut buffer, S * 5).unwrap();
    assert_eq!(&buffer[..len], b"small");
    server.send_batch_to([&large[..], b"small"], peer).unwrap();
    let len = client.recv_timeout(&mut buffer, S * 5).unwrap();
    assert_eq!(&buffer[..len], b"small");
    let refused = client.send_batch([&large[..], &large[..]]);
    assert!(matches!(refused, Err(Error::PayloadTooLarge { len: 1_001, max: 1_000 })));
}

#[test]
fn an_interrupt_ends_the_wait_for_readiness() {
    let client = Tunnel::builder().key(&KEY).path("to=127.0.0.1:9").connect().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.wait_ready(Some(S * 10)));
        let start = Instant::now();
        while !waiting.is_finished() && start.elapsed() < S * 5 {
            client.interrupt();
            std::thread::sleep(MS * 10);
        }
        assert!(waiting.is_finished());
        assert!(matches!(waiting.join().unwrap(), Err(Error::Interrupted)));
    });
}

struct Closes {
    tunnel: Arc<Mutex<Option<Arc<Tunnel>>>>,
    took: mpsc::Sender<std::time::Duration>,
}

impl Handler for Closes {
    fn datagram(&mut self, _: &Source, _: &[u8]) {
        let start = Instant::now();
        if let Some(tunnel) = self.tunnel.lock().unwrap().take() {
            tunnel.close();
        }
        let _ = self.took.send(start.elapsed());
    }
}

#[test]
fn closing_from_the_own_handler_does_not_wait_for_itself() {
    let (server, port) = server();
    let (took, answer) = mpsc::channel();
    let cell = Arc::new(Mutex::new(None));
    let client = Tunnel::builder()
        .key(&KEY)
        .path(&format!("to=127.0.0.1:{port}"))
        .handler(Closes { tunnel: cell.clone(), took })
        .connect()
        .unwrap();
    client.wait_ready(Some(S * 5)).unwrap();
    let client = Arc::new(client);
    *cell.lock().unwrap() = Some(client.clone());
    client.send(b"x").unwrap();
    let (_, peer) = server.recv_from_timeout(&mut [0; 10], S * 5).unwrap();
    server.send_to(b"x", peer).unwrap();

    assert!(answer.recv_timeout(S * 5).unwrap() < S, "a hundred milliseconds of goodbyes");
}
