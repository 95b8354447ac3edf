// SPDX-License-Identifier: BSD-2-Clause
//! What fails, and what goes on nevertheless.

use std::os::fd::AsFd;
use std::time::Instant;

use socket2::{Domain, Socket, Type};

use super::*;
use crate::io::sys;

/// An address where nobody listens, to be had without closing a socket (which a forked child of
/// another test may keep open): that of a socket which is connected elsewhere.
fn nobody() -> (SocketAddr, UdpSocket) {
    let peer = open(V4);
    peer.connect(address("127.0.0.1:1")).unwrap();
    (peer.local_addr().unwrap(), peer)
}

fn code(error: Option<std::io::Error>) -> Option<i32> {
    error.and_then(|error| error.raw_os_error())
}

#[test]
fn a_refused_packet_does_not_cost_the_next_one() {
    let (remote, _peer) = nobody();
    let sender = open(V4);
    sender.connect(remote).unwrap();

    let first = batch([(&b"first"[..], 1)]).send(&sender, 1, None);
    assert_eq!((first.packets, code(first.error)), (1, None));

    // The kernel reports the ICMP answer to the next call, which has to be made again.
    let second = batch([(&b"second"[..], 1)]).send(&sender, 1, None);
    assert_eq!((second.packets, second.dropped), (1, 0));
    assert_eq!(code(second.error), Some(libc::ECONNREFUSED));
}

#[test]
fn every_packet_of_a_batch_to_a_dead_peer_is_tried() {
    let (remote, _peer) = nobody();
    let sender = open(V4);
    sender.connect(remote).unwrap();
    sender.disable_gso();
    let sent = numbered(20, 100);

    let report = batch(sent.iter().map(|bytes| (bytes.as_slice(), 1))).send(&sender, 1, None);

    // Each answer arrives before the next packet leaves, and every other call fails for it.
    assert_eq!((report.packets, report.dropped), (20, 0));
    let error = RecvBatch::default().recv(&sender, Wait::DontWait).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
}

#[test]
fn a_refusal_is_an_error_of_one_read_and_no_datagram_is_lost() {
    let (remote, peer) = nobody();
    let sender = open(V4);
    sender.connect(remote).unwrap();
    assert_eq!(batch([(&b"to nobody"[..], 1)]).send(&sender, 1, None).packets, 1);
    let to = Some((sender.local_addr().unwrap(), None));
    assert_eq!(batch([(&b"hello"[..], 1)]).send(&peer, 1, to).packets, 1);

    let mut batch = RecvBatch::default();
    let error = batch.recv(&sender, Wait::First).unwrap_err();

    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    assert_eq!(batch.recv(&sender, Wait::First).unwrap(), 1);
    assert_eq!(batch.message(0).bytes, b"hello");
}

#[test]
fn a_full_socket_drops_and_counts_and_does_not_wait() {
    // A Unix socket whose peer does not read is full after some datagrams, with EAGAIN.
    let (ours, _theirs) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
    let socket = UdpSocket::from_foreign(ours, false);
    let sent = numbered(300, 1000);
    let mut batch = batch(sent.iter().map(|bytes| (bytes.as_slice(), 1)));
    let start = Instant::now();

    let report = batch.send(&socket, 1, None);

    assert!(report.packets > 0 && report.dropped > 0, "{report:?}");
    assert_eq!(report.packets + report.dropped, 300);
    assert_eq!(report.bytes, report.packets * 1000);
    assert_eq!((report.too_big, code(report.error)), (0, None), "being full is no error");

    let second = batch.send(&socket, 1, None);
    assert_eq!((second.packets, second.dropped), (0, 300));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn a_socket_without_buffer_space_counts_as_full() {
    let (receiver, sender) = pair(V6);
    sender.disable_gso();
    let fd = sender.as_fd();
    // A corked socket collects fragments until its buffer is used up: ENOBUFS.
    sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU, 1280).unwrap();
    sys::set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, 4096).unwrap();
    sys::set_option(fd, libc::SOL_UDP, libc::UDP_CORK, 1).unwrap();
    let packet = [0; 1000];
    let mut batch = batch([(&packet[..], 1)]);

    let reports: Vec<_> = (0..20).map(|_| batch.send(&sender, 1, None)).collect();

    let taken = reports.iter().take_while(|report| report.packets == 1).count();
    assert!((1..20).contains(&taken), "{taken} of 20 packets in a buffer of 4 KiB");
    let full = &reports[taken];
    assert_eq!((full.packets, full.dropped, full.too_big), (0, 1, 0));
    assert!(full.error.is_none(), "being full is no error");
    assert!(arrived(&receiver).is_empty());
}

#[test]
fn a_packet_beyond_udp_is_too_big_and_the_others_arrive() {
    for gso in [true, false] {
        let (receiver, sender) = pair(V4);
        if !gso {
            sender.disable_gso();
        }
        let (small, huge) = (vec![1; 1200], vec![2; 65_508]);
        let mut batch = batch([(&small[..], 1), (&huge[..], 1), (&huge[..], 1), (&small[..], 1)]);

        let report = batch.send(&sender, 1, None);

        assert_eq!((report.packets, report.bytes), (2, 2400));
        assert_eq!((report.too_big, report.dropped), (2, 0));
        assert_eq!(code(report.error), Some(libc::EMSGSIZE));
        assert_eq!(arrived(&receiver), [&small[..], &small[..]]);
    }
}

#[test]
fn a_socket_that_cannot_cut_runs_loses_the_offload_and_no_packet() {
    let (receiver, sender) = pair(V4);
    // Without UDP checksums the kernel refuses UDP_SEGMENT with EINVAL.
    sys::set_option(sender.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
    let mut sent = numbered(70, 1000);
    sent.push(vec![9; 500]);
    sent.extend(numbered(10, 700));
    let mut batch = batch(sent.iter().map(|bytes| (bytes.as_slice(), 1)));
    assert!(sender.gso());

    let report = batch.send(&sender, 1, None);

    assert!(!sender.gso());
    assert_eq!((report.packets, report.dropped, code(report.error)), (81, 0, None));
    assert!(arrived(&receiver) == sent);
    assert_eq!(batch.send(&sender, 1, None).packets, 81);
    assert!(arrived(&receiver) == sent);
}

#[test]
fn a_socket_that_refuses_everything_keeps_the_offload() {
    // A socket that was shut down for writing answers EPIPE: nothing to do with the offload.
    let (ours, _theirs) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    let socket = UdpSocket::from_foreign(ours, true);
    let sent = numbered(10, 100);

    let report = batch(sent.iter().map(|bytes| (bytes.as_slice(), 1))).send(&socket, 1, None);

    assert_eq!((report.packets, report.dropped), (0, 10));
    assert_eq!(code(report.error), Some(libc::EPIPE));
    assert!(socket.gso());
}

#[test]
fn packets_beyond_the_path_mtu_arrive_in_fragments() {
    let (receiver, sender) = pair(V6);
    // Makes the kernel take the path for one of 1280 bytes (ipv6(7)).
    sys::set_option(sender.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MTU, 1280).unwrap();
    let sent = numbered(40, 1400);

    let report = batch(sent.iter().map(|bytes| (bytes.as_slice(), 1))).send(&sender, 1, None);

    assert_eq!((report.packets, report.dropped, report.too_big), (40, 0, 0), "{report:?}");
    // Older kernels refuse such a run with EINVAL, newer ones name the reason.
    assert!(matches!(code(report.error), None | Some(libc::EMSGSIZE)));
    assert!(arrived(&receiver) == sent);
}

#[test]
fn a_full_receive_buffer_is_counted() {
    let receiver = open_config(&SocketConfig { recv_buffer: 16 * 1024, ..config(V4) });
    receiver.disable_gro().unwrap();
    let sender = open(V4);
    sender.disable_gso();
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    assert_eq!(receiver.receive_drops(), 0);
    let sent = numbered(100, 1000);

    let report = batch(sent.iter().map(|bytes| (bytes.as_slice(), 1))).send(&sender, 1, None);

    assert_eq!(report.packets, 100, "the sender does not notice");
    let received = arrived(&receiver).len();
    assert!(received < 100, "{received} datagrams of 1000 bytes in a buffer of 16 KiB");
    assert_eq!(receiver.receive_drops() as usize, 100 - received);
}
