// SPDX-License-Identifier: BSD-2-Clause
//! Relays, and flows that one end takes for ended and the other does not.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests run over real sockets, in real time"
)]

use crate::pair::{MS, S};
use mptunnel_core::relay::{ClientRelay, ClientRelayConfig, ServerRelay, ServerRelayConfig};
use mptunnel_core::{Event, Server, Tunnel};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

const KEY: [u8; 32] = [7; 32];

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// The next end of a flow that a client or a server hears of.
fn flow_closed(mut next: impl FnMut() -> Option<Event>) -> (u16, u16) {
    let start = Instant::now();
    while start.elapsed() < S * 5 {
        if let Some(Event::FlowClosed { flow, code, .. }) = next() {
            return (flow, code);
        }
    }
    panic!("no flow was closed");
}

#[test]
fn data_for_a_flow_that_the_server_has_ended_is_answered() {
    let target = UdpSocket::bind(loopback()).unwrap();
    let config = ServerRelayConfig {
        target: Some(target.local_addr().unwrap()),
        flows_per_client: 2,
        flows: 10,
        flow_timeout: MS * 50,
        socket_buffer: 0,
        offload: true,
        threads: 2,
    };
    let builder = Server::builder().key(&KEY).listen(loopback());
    let relay = ServerRelay::start(config, builder).unwrap();
    let to = relay.server().local_addrs()[0];
    let tunnel = Tunnel::builder().key(&KEY).path(&format!("to={to}")).connect().unwrap();
    tunnel.wait_ready(Some(S * 5)).unwrap();
    let tunnel = Arc::new(tunnel);
    let mut sender = tunnel.sender();
    sender.send([(5, &b"x"[..])]).unwrap();
    target.set_read_timeout(Some(S * 5)).unwrap();
    target.recv(&mut [0; 10]).unwrap();
    while relay.stats().flows > 0 {
        relay.next_event(MS * 10).unwrap();
    }
    let heard = || flow_closed(|| tunnel.next_event(Some(S)).ok());
    assert_eq!(heard(), (5, 0));

    // As if that CLOSE had been lost.
    sender.send([(5, &b"y"[..])]).unwrap();

    assert_eq!(heard(), (5, 0));
    assert_eq!(relay.stats().flows, 0);

    sender.send([(6, &b"x"[..]), (7, &b"x"[..]), (8, &b"x"[..])]).unwrap();
    assert_eq!(heard(), (8, 2), "two are allowed");
}

#[test]
fn data_for_a_flow_that_the_client_does_not_have_is_answered() {
    let server = Arc::new(Server::builder().key(&KEY).listen(loopback()).bind().unwrap());
    let config = ClientRelayConfig {
        listen: loopback(),
        flows: 10,
        flow_timeout: S * 60,
        socket_buffer: 0,
        offload: true,
    };
    let builder = Tunnel::builder().key(&KEY).path(&format!("to={}", server.local_addrs()[0]));
    let relay = ClientRelay::start(config, builder).unwrap();
    relay.tunnel().wait_ready(Some(S * 5)).unwrap();
    let application = UdpSocket::bind(loopback()).unwrap();
    application.send_to(b"x", relay.local_addr()).unwrap();
    let start = Instant::now();
    while relay.stats().flows == 0 {
        assert!(start.elapsed() < S * 5);
        std::thread::sleep(MS);
    }
    let peer = server.peers()[0].id;
    let to = server.handle(peer).unwrap();

    server.sender().send(&to, [(77, &b"stray"[..])]).unwrap();

    let closed = flow_closed(|| {
        let _ = relay.next_event(MS * 10);
        server.next_event(Some(MS * 10)).ok()
    });
    assert_eq!(closed, (77, 0));
    assert_eq!(relay.stats().flows, 1, "the application's own goes on");
}

#[test]
fn the_end_of_a_flow_of_an_earlier_process_ends_none_of_the_next_one() {
    let target = UdpSocket::bind(loopback()).unwrap();
    target.set_read_timeout(Some(S * 5)).unwrap();
    let config = ServerRelayConfig {
        target: Some(target.local_addr().unwrap()),
        flows_per_client: 2,
        flows: 10,
        flow_timeout: S * 60,
        socket_buffer: 0,
        offload: true,
        threads: 1,
    };
    let builder = Server::builder().key(&KEY).listen(loopback());
    let relay = ServerRelay::start(config, builder).unwrap();
    let to = relay.server().local_addrs()[0];
    // Two processes of one client, as it has a name: its flows have the same numbers.
    let open = || {
        let builder = Tunnel::builder().key(&KEY).option("name", "one");
        let tunnel = builder.path(&format!("to={to}")).connect().unwrap();
        tunnel.wait_ready(Some(S * 5)).unwrap();
        let tunnel = Arc::new(tunnel);
        tunnel.sender().send([(5, &b"x"[..])]).unwrap();
        target.recv(&mut [0; 10]).unwrap();
        tunnel
    };
    // Nobody looks at the server's events until both were there.
    let first = open();
    first.close_flow(5);
    let second = open();

    let mut ended = 0;
    while let Some(event) = relay.next_event(MS * 20).unwrap() {
        ended += usize::from(matches!(event, Event::FlowClosed { epoch: 0, flow: 5, .. }));
    }

    assert_eq!((ended, relay.stats().flows), (1, 1));
    second.sender().send([(5, &b"x"[..])]).unwrap();
    target.recv(&mut [0; 10]).unwrap();
}
