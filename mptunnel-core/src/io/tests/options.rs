// SPDX-License-Identifier: BSD-2-Clause
//! Every option of a socket, seen by its effect.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::*;
use crate::io::socket::{Buffers, Family, SocketError, route_mtu};
use crate::io::sys;

fn refused(config: &SocketConfig) -> (SocketError, Option<i32>) {
    let error = UdpSocket::open(config).unwrap_err();
    let code = error.source.raw_os_error();
    (error, code)
}

fn with_interface(name: &str) -> SocketConfig {
    SocketConfig { interface: Some(name.to_owned()), ..config("0.0.0.0:0") }
}

#[test]
fn a_socket_bound_to_an_interface_sends_by_it_alone() {
    let socket = UdpSocket::open(&with_interface("lo")).unwrap();

    assert_eq!(socket2::SockRef::from(&socket).device().unwrap(), Some(b"lo".to_vec()));
}

#[test]
fn an_interface_that_is_missing_is_named_as_the_reason() {
    let too_long = "lo".repeat(8);
    for name in ["nonexistent0", "", too_long.as_str(), "l\0o"] {
        let (error, code) = refused(&with_interface(name));

        assert_eq!(error.to_string(), "bind to interface failed", "{name:?}");
        assert_eq!(code, Some(libc::ENODEV), "{name:?}");
    }
}

#[test]
fn a_mark_is_set_or_the_missing_privilege_is_named() {
    let config = SocketConfig { mark: Some(0x1234), ..config(V4) };
    match UdpSocket::open(&config) {
        Ok(socket) => assert_eq!(socket2::SockRef::from(&socket).mark().unwrap(), 0x1234),
        Err(error) => {
            assert_eq!(error.to_string(), "mark (needs CAP_NET_ADMIN) failed");
            assert_eq!(error.source.kind(), io::ErrorKind::PermissionDenied);
        }
    }
}

#[test]
fn buffers_are_granted_and_reported_in_the_unit_they_were_asked_in() {
    let (recv_buffer, send_buffer) = (64 * 1024, 32 * 1024);
    let socket = UdpSocket::open(&SocketConfig { recv_buffer, send_buffer, ..config(V4) }).unwrap();
    assert_eq!(socket.granted_buffers(), Buffers { recv: recv_buffer, send: send_buffer });

    let greedy = SocketConfig { recv_buffer: usize::MAX, send_buffer: usize::MAX, ..config(V4) };
    let granted = UdpSocket::open(&greedy).unwrap().granted_buffers();
    assert!(granted.recv > recv_buffer && granted.send > send_buffer, "{granted:?}");

    let default = UdpSocket::open(&config(V4)).unwrap().granted_buffers();
    assert!(default.recv > 0 && default.send > 0);
}

#[test]
fn an_address_in_use_is_refused_unless_the_port_is_shared() {
    let first = open(V4);
    let taken = SocketConfig::new(first.local_addr().unwrap());
    let (error, code) = refused(&taken);
    assert_eq!((error.op, code), ("bind", Some(libc::EADDRINUSE)));

    let shared = SocketConfig { reuse_port: true, ..config(V4) };
    let first = UdpSocket::open(&shared).unwrap();
    let again = SocketConfig { local: first.local_addr().unwrap(), ..shared };
    UdpSocket::open(&again).unwrap();
}

fn open_group(config: &SocketConfig, offset: u32) -> Result<Vec<UdpSocket>, SocketError> {
    UdpSocket::open_group(config, 3, offset, |_| Ok(()))
}

#[test]
fn a_group_shares_one_address_with_nobody_else() {
    let group = open_group(&config(V4), 0).unwrap();
    let at = group[0].local_addr().unwrap();

    assert!(group.iter().all(|socket| socket.local_addr().unwrap() == at));
    let (error, code) = refused(&SocketConfig::new(at));
    assert_eq!((error.op, code), ("bind", Some(libc::EADDRINUSE)));
    let another = open_group(&SocketConfig::new(at), 0).unwrap_err();
    assert_eq!(another.source.raw_os_error(), Some(libc::EADDRINUSE));
}

#[test]
fn the_members_of_a_group_get_all_datagrams_and_equal_words_meet_whatever_their_source() {
    let group = open_group(&config(V4), 4).unwrap();
    let to = Some((group[0].local_addr().unwrap(), None));
    for _ in 0..4 {
        let source = open(V4);
        for word in 0u8..32 {
            let datagram = [9, 9, 9, 9, 0, 0, 0, word, 9];
            assert_eq!(batch([(&datagram[..], 1)]).send(&source, 1, to).packets, 1);
        }
        assert_eq!(batch([(&b"short"[..], 1)]).send(&source, 1, to).packets, 1);
    }

    for (number, member) in (0u8..).zip(&group) {
        let datagrams = arrived(member);
        let (short, words): (Vec<_>, Vec<_>) = datagrams.iter().partition(|d| d.len() == 5);
        assert_eq!(short.len(), if number == 0 { 4 } else { 0 });
        assert!(words.iter().all(|datagram| datagram[7] % 3 == number));
        assert_eq!(words.len(), 4 * (0u8..32).filter(|word| word % 3 == number).count());
    }
}

#[test]
fn an_address_that_is_not_ours_is_refused() {
    let (error, code) = refused(&config("192.0.2.55:0"));

    assert_eq!((error.op, code), ("bind", Some(libc::EADDRNOTAVAIL)));
}

#[test]
fn a_socket_bound_to_all_of_ipv6_takes_ipv4_unless_told_otherwise() {
    for (only_v6, takes_ipv4) in [(None, true), (Some(false), true), (Some(true), false)] {
        let socket = open_config(&SocketConfig { only_v6, ..config("[::]:0") });
        let port = socket.local_addr().unwrap().port();
        let to = SocketAddr::new(address(V4).ip(), port);

        let report = batch([(&b"over IPv4"[..], 1)]).send(&open(V4), 1, Some((to, None)));

        assert_eq!(report.packets, 1);
        assert_eq!(arrived(&socket).len(), usize::from(takes_ipv4), "{only_v6:?}");
    }
}

#[test]
fn any_address_means_a_port_of_the_system_s_choice() {
    for family in [Family::V4, Family::V6] {
        let socket = UdpSocket::open(&SocketConfig::any(family)).unwrap();
        let local = socket.local_addr().unwrap();

        assert_eq!(socket.family(), family);
        assert!(local.ip().is_unspecified());
        assert_ne!(local.port(), 0);
    }
}

#[test]
fn a_host_sees_the_socket_before_it_is_bound_and_may_refuse_it() {
    let mut seen = None;
    let socket = UdpSocket::open_with(&config(V4), |fd| {
        let unbound = socket2::SockRef::from(&fd).local_addr()?.as_socket().unwrap();
        seen = Some((fd.as_raw_fd(), unbound.port()));
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, Some((socket.as_raw_fd(), 0)));

    let no = |_: std::os::fd::BorrowedFd<'_>| Err(io::Error::from_raw_os_error(libc::EPERM));
    let error = UdpSocket::open_with(&config(V4), no).unwrap_err();
    assert_eq!(error.op, "socket hook");
}

#[test]
fn the_path_mtu_of_a_connected_socket_is_that_of_its_route() {
    let text = std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/mtu").unwrap();
    let device: usize = text.trim().parse().unwrap();

    for (local, remote) in [
        ("0.0.0.0:0", "127.0.0.1:9"),
        ("[::]:0", "[::1]:9"),
        ("[::]:0", "127.0.0.1:9"),
        ("[::]:0", "[::ffff:127.0.0.1]:9"),
    ] {
        // An IPv4 packet has no more than 65,535 bytes, whatever the device can take.
        let most = if Family::of(address(remote)) == Family::V4 { 65_535 } else { usize::MAX };
        let expected = Some(device.min(most));
        let socket = open(local);
        assert_eq!(socket.path_mtu(), None, "{local} is not connected");

        socket.connect(address(remote)).unwrap();

        assert_eq!(socket.path_mtu(), expected, "{local} to {remote}");
        assert_eq!(route_mtu(None, address(remote)), expected, "{remote}");
        let source = Some(socket.local_addr().unwrap().ip());
        assert_eq!(route_mtu(source, address(remote)), expected, "{remote} from {source:?}");
    }
}

#[test]
fn there_is_no_route_mtu_from_an_address_that_is_not_ours() {
    let foreign = Some(address("192.0.2.55:0").ip());

    assert_eq!(route_mtu(foreign, address("127.0.0.1:9")), None);
}

#[test]
fn path_mtu_discovery_is_on_whatever_the_system_s_default() {
    let v4 = (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT);
    let v6 = (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT);
    for (local, expected) in [(V4, &[v4][..]), (V6, &[v4, v6])] {
        let socket = open(local);
        for (level, name, value) in expected {
            assert_eq!(sys::option(socket.as_fd(), *level, *name).unwrap(), *value, "{local}");
        }
    }
}
