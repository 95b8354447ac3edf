// SPDX-License-Identifier: BSD-2-Clause
//! What an application can do with an endpoint, on real sockets.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests wait for threads of the library, against a real clock and with a bound"
)]

mod changing;
mod loopback;
mod opening;
mod sending;
mod snapshots;
mod waiting;

use mptunnel_core::{Config, Server, Tunnel};
use std::time::{Duration, Instant};

const KEY: [u8; 32] = [7; 32];
/// How long anything may take before a test gives up: generous, for machines that are busy.
const SOON: Duration = Duration::from_secs(15);
/// How long to wait before a look at what has changed.
const A_MOMENT: Duration = Duration::from_millis(50);

fn config() -> Config {
    let mut config = Config::new();
    config.key(&KEY);
    config
}

fn server() -> (Server, u16) {
    let server = Server::builder().key(&KEY).listen("127.0.0.1:0".parse().unwrap()).bind().unwrap();
    let port = server.local_addrs()[0].port();
    (server, port)
}

/// A tunnel with paths that are all up.
fn tunnel(port: u16, paths: usize) -> Tunnel {
    let mut builder = Tunnel::builder().key(&KEY);
    for n in 0..paths {
        builder = builder.path(&format!("to=127.0.0.1:{port} name=p{n}"));
    }
    let tunnel = builder.connect().unwrap();
    wait_for(|| tunnel.paths().iter().all(|path| path.up));
    tunnel
}

fn wait_for(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < deadline, "it does not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn duplicates(server: &Server) -> u64 {
    server.stats().drops.iter().find(|(reason, _)| *reason == "duplicate").unwrap().1
}
