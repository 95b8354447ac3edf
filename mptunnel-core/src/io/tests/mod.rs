// SPDX-License-Identifier: BSD-2-Clause
//! Tests over real sockets and threads. They need the loopback device with 127.0.0.0/8 and ::1, and
//! no privilege.

mod errors;
mod events;
mod forked;
mod offload;
mod options;
mod paths;
mod queue;
mod wake;

use std::net::SocketAddr;
use std::time::Duration;

use super::recv::{RecvBatch, Wait};
use super::send::SendBatch;
use super::socket::{SocketConfig, UdpSocket};

const V4: &str = "127.0.0.1:0";
const V6: &str = "[::1]:0";

/// A socket with a buffer that any process is granted, which is large enough for these tests.
fn open(local: &str) -> UdpSocket {
    open_config(&SocketConfig { recv_buffer: 200 * 1024, ..config(local) })
}

fn open_config(config: &SocketConfig) -> UdpSocket {
    let socket = UdpSocket::open(config).unwrap();
    // A datagram that is missing fails the test instead of blocking it.
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn config(local: &str) -> SocketConfig {
    SocketConfig::new(address(local))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A socket bound to `local`, and another one connected to it.
fn pair(local: &str) -> (UdpSocket, UdpSocket) {
    let (receiver, sender) = (open(local), open(local));
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    (receiver, sender)
}

/// A batch of `packets`, each with its set of paths.
fn batch<'a>(packets: impl IntoIterator<Item = (&'a [u8], u32)>) -> SendBatch {
    let mut batch = SendBatch::new();
    for (packet, paths) in packets {
        batch.room(packet.len()).unwrap().copy_from_slice(packet);
        batch.commit(packet.len(), paths);
    }
    batch
}

/// What arrived so far. On loopback that is all that was sent.
fn arrived(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let (mut batch, mut datagrams) = (RecvBatch::default(), Vec::new());
    loop {
        let messages = batch.recv(socket, Wait::DontWait).unwrap();
        if messages == 0 {
            return datagrams;
        }
        for index in 0..messages {
            datagrams.extend(batch.message(index).segments().map(|bytes| bytes.to_vec()));
        }
    }
}

/// `count` datagrams of `len` bytes, all different as far as their length allows.
fn numbered(count: usize, len: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| (0..len).map(|at| (number * 31 + at * 7) as u8).collect()).collect()
}
