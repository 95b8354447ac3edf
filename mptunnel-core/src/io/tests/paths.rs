// SPDX-License-Identifier: BSD-2-Clause
//! Addresses: one peer has one, and an answer leaves from the address that was asked.

use std::net::IpAddr;

use super::*;
use crate::io::socket::Family;

/// A server bound to all addresses of `family`, and its port.
fn server(local: &str) -> (UdpSocket, u16) {
    let server = open_config(&SocketConfig { packet_info: true, ..config(local) });
    let port = server.local_addr().unwrap().port();
    (server, port)
}

fn client_of(local: &str, remote: SocketAddr) -> UdpSocket {
    let client = open(local);
    client.connect(remote).unwrap();
    client
}

/// The source and the local address of the next datagram.
fn ask(server: &UdpSocket, client: &UdpSocket) -> (SocketAddr, Option<IpAddr>) {
    assert_eq!(batch([(&b"question"[..], 1)]).send(client, 1, None).packets, 1);
    let mut batch = RecvBatch::default();
    assert_eq!(batch.recv(server, Wait::First).unwrap(), 1);
    let message = batch.message(0);
    assert_eq!(message.bytes, b"question");
    (message.remote, message.local_ip)
}

#[test]
fn an_answer_leaves_from_the_address_that_was_asked() {
    for local in ["0.0.0.0:0", "[::]:0"] {
        let (server, port) = server(local);
        let asked = SocketAddr::new(address("127.0.0.2:0").ip(), port);
        let client = client_of(V4, asked);

        let (remote, local_ip) = ask(&server, &client);
        let mut answer = batch([(&b"answer"[..], 1), (&b"answer"[..], 1), (&b"short"[..], 1)]);

        assert_eq!(remote, client.local_addr().unwrap());
        assert_eq!(local_ip, Some(asked.ip()));
        assert_eq!(answer.send(&server, 1, Some((remote, local_ip))).packets, 3);
        assert_eq!(arrived(&client), [&b"answer"[..], b"answer", b"short"]);

        // Left to the route it comes from 127.0.0.1, and the connected client does not see it.
        assert_eq!(answer.send(&server, 1, Some((remote, None))).packets, 3);
        assert!(arrived(&client).is_empty(), "{local}");
    }
}

#[test]
fn ipv6_reports_and_sets_the_local_address_as_well() {
    let (server, port) = server("[::]:0");
    let client = client_of(V6, SocketAddr::new(address(V6).ip(), port));

    let (remote, local_ip) = ask(&server, &client);

    assert_eq!(remote, client.local_addr().unwrap());
    assert_eq!(local_ip, Some(address(V6).ip()));
    let report = batch([(&b"answer"[..], 1)]).send(&server, 1, Some((remote, local_ip)));
    assert_eq!(report.packets, 1);
    assert_eq!(arrived(&client), [b"answer"]);
}

#[test]
fn without_packet_info_no_local_address_is_reported() {
    let (receiver, sender) = pair(V4);

    assert_eq!(ask(&receiver, &sender).1, None);
}

#[test]
fn joined_datagrams_carry_the_local_address_too() {
    let (server, port) = server("[::]:0");
    let client = client_of(V4, SocketAddr::new(address(V4).ip(), port));
    let sent = numbered(20, 1200);
    let report = batch(sent.iter().map(|bytes| (bytes.as_slice(), 1))).send(&client, 1, None);
    assert_eq!(report.packets, 20);

    let mut batch = RecvBatch::default();
    assert_eq!(batch.recv(&server, Wait::First).unwrap(), 1);

    let mut message = batch.message(0);
    assert_eq!(message.local_ip, Some(address(V4).ip()));
    assert_eq!(message.segment_size, 1200);
    assert!(message.segments().eq(sent.iter()));
}

#[test]
fn a_source_address_that_is_not_ours_is_an_error_of_the_call_and_not_of_the_offload() {
    for (local, any, foreign, code) in [
        (V4, "0.0.0.0:0", "192.0.2.55", libc::ENETUNREACH),
        (V6, "[::]:0", "2001:db8::55", libc::EINVAL),
    ] {
        let (receiver, sender) = (open(local), open(any));
        let to = Some((receiver.local_addr().unwrap(), Some(foreign.parse().unwrap())));

        let report = batch([(&b"one"[..], 1), (&b"two"[..], 1)]).send(&sender, 1, to);

        assert_eq!((report.packets, report.dropped), (0, 2));
        assert_eq!(report.error.unwrap().raw_os_error(), Some(code));
        assert!(sender.gso());
    }
}

#[test]
fn a_mapped_address_is_ipv4_wherever_it_is_given() {
    let socket = open("[::ffff:127.0.0.1]:0");
    assert_eq!(socket.family(), Family::V4);
    assert_eq!(socket.local_addr().unwrap().ip(), address(V4).ip());

    let port = socket.local_addr().unwrap().port();
    let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), port);
    for local in ["127.0.0.1:0", "[::]:0"] {
        let client = client_of(local, mapped);
        assert_eq!(ask(&socket, &client).0, client.local_addr().unwrap(), "{local}");

        let unconnected = open(local);
        let report = batch([(&b"datagram"[..], 1)]).send(&unconnected, 1, Some((mapped, None)));
        assert_eq!(report.packets, 1, "{local}");
        assert_eq!(arrived(&socket), [b"datagram"], "{local}");
    }
}

#[test]
fn a_dual_stack_socket_talks_to_both_kinds_of_peer() {
    let dual = open("[::]:0");
    for local in [V4, V6] {
        let peer = open(local);
        let remote = peer.local_addr().unwrap();

        let sent = numbered(30, 1200);
        let mut batch = batch(sent.iter().map(|bytes| (bytes.as_slice(), 1)));
        assert_eq!(batch.send(&dual, 1, Some((remote, None))).packets, 30);

        assert!(arrived(&peer) == sent, "{local}");
    }
}

#[test]
fn an_ipv6_peer_is_out_of_reach_of_an_ipv4_socket() {
    let socket = open(V4);
    let remote = address("[::1]:9");

    let report = batch([(&b"x"[..], 1), (&b"y"[..], 3)]).send(&socket, 1, Some((remote, None)));

    assert_eq!((report.packets, report.dropped), (0, 2));
    assert_eq!(report.error.unwrap().raw_os_error(), Some(libc::EAFNOSUPPORT));
    let error = socket.connect(remote).unwrap_err();
    assert_eq!(error.op, "connect");
    assert_eq!(error.source.raw_os_error(), Some(libc::EAFNOSUPPORT));
}

#[test]
fn each_path_gets_the_packets_with_its_bit() {
    let paths: Vec<_> = (0..4).map(|_| pair(V4)).collect();
    for gso in [true, false] {
        let sent = numbered(120, 300);
        let mask = |number: usize| (number as u32 * 7 + 3) % 8;
        let masked = sent.iter().enumerate().map(|(n, bytes)| (bytes.as_slice(), mask(n)));
        let mut batch = batch(masked);

        for (index, (receiver, sender)) in paths.iter().enumerate() {
            if !gso {
                sender.disable_gso();
            }
            let bit = 1 << index;
            let expected: Vec<_> = sent
                .iter()
                .enumerate()
                .filter(|(number, _)| mask(*number) & bit != 0)
                .map(|(_, bytes)| bytes.clone())
                .collect();

            let report = batch.send(sender, bit, None);

            assert_eq!((report.packets, report.dropped), (expected.len(), 0));
            assert_eq!(report.bytes, expected.len() * 300);
            assert!(arrived(receiver) == expected, "path {index}, GSO {gso}");
        }
    }
}
