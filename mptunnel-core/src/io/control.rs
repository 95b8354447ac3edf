// SPDX-License-Identifier: BSD-2-Clause
//! Control messages: what travels beside a datagram (cmsg(3), udp(7), ip(7), ipv6(7)).
//!
//! ```text
//!  ┌ cmsghdr: length, level, type ┬ data ┬ padding ┬ cmsghdr …
//!  └──────── CMSG_LEN(data) ─────────────┘         │
//!  └──────── CMSG_SPACE(data) ─────────────────────┘
//! ```
//!
//! Writing and reading go over byte slices with checked bounds, so that no length that the kernel
//! reports is trusted to stay in the buffer.

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::c_int;

/// Room for the control data of one message, aligned as the kernel demands.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct ControlSpace {
    bytes: [u8; CAPACITY],
    used: usize,
}

const _: () = assert!(align_of::<libc::cmsghdr>() <= align_of::<ControlSpace>());

impl ControlSpace {
    /// Nothing written yet.
    pub(super) const EMPTY: ControlSpace = ControlSpace { bytes: [0; CAPACITY], used: 0 };

    /// Asks for the data of this message to be cut into datagrams of `size` bytes, the last one
    /// shorter (`UDP_SEGMENT`, Linux 4.18).
    pub(super) fn push_segment_size(&mut self, size: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }

    /// Asks for `source` as the source address. `mapped` writes an IPv4 address in the form that
    /// an IPv6 socket takes; `scope` is the interface's index where `source` is link-local.
    pub(super) fn push_source(&mut self, source: IpAddr, mapped: bool, scope: u32) {
        let v6 = match source {
            IpAddr::V4(v4) if !mapped => {
                let mut info = [0; size_of::<libc::in_pktinfo>()];
                info[SPEC_DST..][..4].copy_from_slice(&v4.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
                return;
            }
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let scope = if v6.is_unicast_link_local() { scope } else { 0 };
        let mut info = [0; size_of::<libc::in6_pktinfo>()];
        info[V6_ADDR..][..16].copy_from_slice(&v6.octets());
        info[V6_IFINDEX..][..4].copy_from_slice(&scope.to_ne_bytes());
        self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
    }

    /// Forgets what was written.
    #[cfg(test)]
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    /// What was written: the control data of a message to send.
    pub(super) fn written(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    /// All of the room: for the kernel to write the control data of a received message to.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The first `len` bytes, the length that the kernel reported.
    pub(super) fn received(&self, len: usize) -> Received {
        Received::parse(&self.bytes[..len.min(CAPACITY)])
    }

    fn push(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        let room = &mut self.bytes[self.used..];
        room[..LEVEL].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        room[LEVEL..][..4].copy_from_slice(&level.to_ne_bytes());
        room[TYPE..][..4].copy_from_slice(&kind.to_ne_bytes());
        room[HEADER..][..data.len()].copy_from_slice(data);
        self.used += padded(HEADER + data.len());
    }
}

/// What the control data of a received message says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Received {
    /// The size of the datagrams that the kernel joined to this message (`UDP_GRO`, Linux 5.0);
    /// `None` if it is a single one.
    pub(super) segment_size: Option<usize>,
    /// The local address that the message was sent to, as far as one can answer from it.
    pub(super) local_ip: Option<IpAddr>,
}

impl Received {
    fn parse(mut rest: &[u8]) -> Self {
        let mut received = Received::default();
        while let Some((level, kind, data, next)) = split_first(rest) {
            match (level, kind) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    received.segment_size = int(data, 0).and_then(|size| usize::try_from(size).ok())
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    // Not `ipi_addr`, which for a broadcast is an address that nobody can use as a
                    // source; this one is the interface's own (ip(7)).
                    let address = data.get(SPEC_DST..).and_then(|data| data.first_chunk::<4>());
                    received.local_ip = address.map(|octets| Ipv4Addr::from(*octets).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let address = data.get(V6_ADDR..).and_then(|data| data.first_chunk::<16>());
                    received.local_ip = address
                        .map(|octets| Ipv6Addr::from(*octets).to_canonical())
                        .filter(|address| !address.is_multicast());
                }
                _ => {}
            }
            rest = next;
        }
        received
    }
}

/// The first control message of `bytes` (level, type, data) and what follows it. `None` at the end
/// or at a length that cannot be.
fn split_first(bytes: &[u8]) -> Option<(c_int, c_int, &[u8], &[u8])> {
    let len = usize::from_ne_bytes(*bytes.first_chunk()?);
    let data = bytes.get(HEADER..len)?;
    let next = bytes.get(padded(len)..).unwrap_or_default();
    Some((int(bytes, LEVEL)?, int(bytes, TYPE)?, data, next))
}

fn int(bytes: &[u8], at: usize) -> Option<c_int> {
    Some(c_int::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// `len` rounded up to where the next header may start: a multiple of the word size (cmsg(3)).
const fn padded(len: usize) -> usize {
    len.next_multiple_of(size_of::<usize>())
}

// The kernel's `cmsghdr`: a word of length, two ints. (Some C libraries declare a shorter length
// and padding, which is the same as long as the padding is zero.)
const LEVEL: usize = size_of::<usize>();
const TYPE: usize = LEVEL + size_of::<c_int>();
const HEADER: usize = TYPE + size_of::<c_int>();
const _: () = assert!(HEADER == size_of::<libc::cmsghdr>());

const SPEC_DST: usize = offset_of!(libc::in_pktinfo, ipi_spec_dst);
const V6_ADDR: usize = offset_of!(libc::in6_pktinfo, ipi6_addr);
const V6_IFINDEX: usize = offset_of!(libc::in6_pktinfo, ipi6_ifindex);

/// Bytes. The most that one message carries: a segment size, and the local address twice, since a
/// dual-stack socket reports that of an IPv4 datagram in both forms.
const CAPACITY: usize = 128;
const _: () = assert!(
    padded(HEADER + size_of::<c_int>())
        + padded(HEADER + size_of::<libc::in_pktinfo>())
        + padded(HEADER + size_of::<libc::in6_pktinfo>())
        <= CAPACITY
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_source_address_is_read_back_as_the_local_address() {
        for (source, mapped) in
            [("127.0.0.2", false), ("127.0.0.2", true), ("2001:db8::7", true), ("fe80::1", true)]
        {
            let source: IpAddr = source.parse().unwrap();
            let mut space = ControlSpace::EMPTY;
            space.push_source(source, mapped, 3);

            let received = space.received(space.written().len());

            assert_eq!(received, Received { segment_size: None, local_ip: Some(source) });
        }
    }

    #[test]
    fn several_messages_are_read_in_any_order() {
        let source = "192.0.2.9".parse().unwrap();
        let both = Received { segment_size: Some(1200), local_ip: Some(source) };

        let mut space = ControlSpace::EMPTY;
        space.push(libc::SOL_UDP, libc::UDP_GRO, &1200i32.to_ne_bytes());
        space.push_source(source, false, 0);
        assert_eq!(space.received(space.written().len()), both);

        space.clear();
        space.push(libc::SOL_SOCKET, libc::SO_TIMESTAMP, &[7; 16]);
        space.push_source(source, true, 0);
        space.push(libc::SOL_UDP, libc::UDP_GRO, &1200i32.to_ne_bytes());
        assert_eq!(space.received(space.written().len()), both);
    }

    #[test]
    fn the_scope_goes_with_link_local_sources_only() {
        for (source, scope) in [("fe80::1", 3u32), ("2001:db8::1", 0)] {
            let mut space = ControlSpace::EMPTY;
            space.push_source(source.parse().unwrap(), true, 3);

            let index = &space.written()[HEADER + V6_IFINDEX..][..4];

            assert_eq!(index, scope.to_ne_bytes(), "{source}");
        }
    }

    #[test]
    fn a_multicast_destination_is_no_source_to_answer_from() {
        let mut space = ControlSpace::EMPTY;
        space.push_source("ff02::1".parse().unwrap(), true, 3);

        assert_eq!(space.received(space.written().len()).local_ip, None);
    }

    #[test]
    fn our_layout_is_that_of_the_c_library() {
        let mut space = ControlSpace::EMPTY;
        space.push_segment_size(1200);
        // SAFETY: arithmetic only.
        let (len, padded) = unsafe { (libc::CMSG_LEN(2), libc::CMSG_SPACE(2)) };

        assert_eq!(space.written()[..LEVEL], (len as usize).to_ne_bytes());
        assert_eq!(space.written().len(), padded as usize);
        assert_eq!(space.written()[HEADER..][..2], 1200u16.to_ne_bytes());
    }

    #[test]
    fn a_cut_message_ends_the_reading() {
        let mut space = ControlSpace::EMPTY;
        space.push(libc::SOL_UDP, libc::UDP_GRO, &1200i32.to_ne_bytes());
        let whole = HEADER + 4;

        assert_eq!(space.received(whole).segment_size, Some(1200));
        for len in 0..whole {
            assert_eq!(space.received(len), Received::default(), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_content_makes_the_reader_loop_or_panic(
            bytes in proptest::collection::vec(prop_oneof![3 => 0u8..33, 1 => any::<u8>()], 0..128),
        ) {
            Received::parse(&bytes);
        }
    }
}
