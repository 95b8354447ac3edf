// SPDX-License-Identifier: BSD-2-Clause
//! What an endpoint leaves behind in its process, and what a forked child may do with it.
//!
//! One test, because it counts descriptors and threads of the whole process.

#![allow(clippy::disallowed_methods, reason = "threads that end are waited for in real time")]

use mptunnel_core::{Error, Server, Tunnel};
use std::time::{Duration, Instant};

const KEY: [u8; 32] = [7; 32];
/// How long anything may take before a test gives up: generous, for machines that are busy.
const SOON: Duration = Duration::from_secs(15);

fn server() -> (Server, u16) {
    let server = Server::builder().key(&KEY).listen("127.0.0.1:0".parse().unwrap()).bind().unwrap();
    let port = server.local_addrs()[0].port();
    (server, port)
}

fn tunnel(port: u16) -> Tunnel {
    let path = format!("to=127.0.0.1:{port}");
    Tunnel::builder().key(&KEY).path(&path).path(&path).connect().unwrap()
}

fn entries(of: &str) -> usize {
    std::fs::read_dir(of).unwrap().count()
}

fn usage() -> (usize, usize) {
    (entries("/proc/self/fd"), entries("/proc/self/task"))
}

#[test]
fn endpoints_leave_nothing_behind_and_a_forked_child_is_told_so() {
    // The first ones may make what the process keeps.
    drop((server(), tunnel(9)));
    let before = usage();
    for _ in 0..20 {
        let (server, port) = server();
        let client = tunnel(port);
        client.wait_ready(Some(SOON)).unwrap();
        client.send(b"x").unwrap();
        server.recv_from_timeout(&mut [0; 9], SOON).unwrap();
        drop(client);
        drop(server);
        // The kernel lists a thread for a moment longer than it takes to join it.
        let deadline = Instant::now() + SOON;
        while usage() != before {
            assert!(Instant::now() < deadline, "{:?}, and {before:?} before", usage());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    let (server, port) = server();
    let client = tunnel(port);
    client.wait_ready(Some(SOON)).unwrap();
    // SAFETY: the child calls nothing but the methods under test and _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let told = matches!(client.send(b"x"), Err(Error::Forked))
            && matches!(client.try_recv(&mut [0; 9]), Err(Error::Forked))
            && matches!(client.wait_ready(Some(SOON)), Err(Error::Forked))
            && matches!(server.recv_from_timeout(&mut [0; 9], SOON), Err(Error::Forked))
            && matches!(client.add_path("to=127.0.0.1:9"), Err(Error::Forked));
        // SAFETY: _exit(2) ends the child at once, without destructors.
        unsafe { libc::_exit(i32::from(!told)) };
    }
    let mut status = 0;
    // SAFETY: waitpid(2) writes to a live local.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0, "every call in the child answers that it was forked");

    client.send(b"still here").unwrap();
    let (len, _) = server.recv_from_timeout(&mut [0; 99], SOON).unwrap();
    assert_eq!(len, 10, "the parent goes on");
}
