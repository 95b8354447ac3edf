// SPDX-License-Identifier: BSD-2-Clause
//! Which way packets would take, asked of the kernel (rtnetlink(7), RTM_GETROUTE), which knows all
//! rules, tables and marks.
//!
//! One request of some 60 bytes and its answer are written here: the libraries for netlink are
//! seven crates for what is two numbers.

use std::io::{self, Read};
use std::net::IpAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// A way to ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query {
    pub(crate) to: IpAddr,
    pub(crate) from: Option<IpAddr>,
    /// The interface by its number.
    pub(crate) interface: Option<u32>,
    pub(crate) mark: Option<u32>,
}

/// The way that the kernel would take.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Way {
    /// The interface by its number.
    pub(crate) interface: u32,
    /// The source address that a socket without one gets.
    pub(crate) source: Option<IpAddr>,
    /// Bytes of the largest packet, if a router or the route itself says so; `None`: as the
    /// interface has it.
    pub(crate) mtu: Option<u32>,
}

/// Asks the kernel.
///
/// # Errors
/// `ENETUNREACH`, `EHOSTUNREACH`, `EACCES` (prohibited), `EINVAL` (blackhole, or a source address
/// that no interface has).
pub(crate) fn ask(query: &Query) -> io::Result<Way> {
    let domain = Domain::from(libc::AF_NETLINK);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::from(libc::NETLINK_ROUTE)))?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    // A netlink socket without a destination talks to the kernel.
    socket.send(&request(query))?;
    let mut answer = [0; 4096];
    let len = (&socket).read(&mut answer)?;
    parse(answer.get(..len).unwrap_or_default())
}

fn request(query: &Query) -> Vec<u8> {
    let mut attributes = Vec::new();
    let mut attribute = |kind: u16, value: &[u8]| {
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        attributes.extend(len.to_ne_bytes());
        attributes.extend(kind.to_ne_bytes());
        // Addresses and numbers are multiples of four bytes, as attributes have to be.
        attributes.extend(value);
    };
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    attribute(libc::RTA_DST, &octets(query.to));
    if let Some(from) = query.from {
        attribute(libc::RTA_SRC, &octets(from));
    }
    if let Some(interface) = query.interface {
        attribute(libc::RTA_OIF, &interface.to_ne_bytes());
    }
    if let Some(mark) = query.mark {
        attribute(libc::RTA_MARK, &mark.to_ne_bytes());
    }
    let (family, bits) = match query.to {
        IpAddr::V4(_) => (libc::AF_INET, 32),
        IpAddr::V6(_) => (libc::AF_INET6, 128),
    };
    let source_bits = if query.from.is_some() { bits } else { 0 };
    let len = u32::try_from(HEADER + ROUTE + attributes.len()).unwrap_or(u32::MAX);
    // struct nlmsghdr: length, type, flags, number, port.
    let mut message = len.to_ne_bytes().to_vec();
    message.extend(libc::RTM_GETROUTE.to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    message.extend([0; 8]);
    // struct rtmsg: family, lengths of the two prefixes, then what is not asked for.
    message.extend([u8::try_from(family).unwrap_or(0), bits, source_bits]);
    message.extend([0; 9]);
    message.extend(attributes);
    message
}

fn parse(message: &[u8]) -> io::Result<Way> {
    let odd = || io::Error::other("an answer of rtnetlink that is not understood");
    let kind = u16::from_ne_bytes(bytes(message, 4).ok_or_else(odd)?);
    if i32::from(kind) == libc::NLMSG_ERROR {
        let code = i32::from_ne_bytes(bytes(message, HEADER).ok_or_else(odd)?);
        return Err(io::Error::from_raw_os_error(code.saturating_neg()));
    }
    if kind != libc::RTM_NEWROUTE {
        return Err(odd());
    }
    let mut way = Way::default();
    for (kind, value) in attributes(message.get(HEADER + ROUTE..).ok_or_else(odd)?) {
        match kind {
            libc::RTA_OIF => way.interface = number(value).unwrap_or(0),
            libc::RTA_PREFSRC => way.source = address(value),
            libc::RTA_METRICS => {
                let mut metrics = attributes(value);
                let mtu = metrics.find(|(kind, _)| *kind == RTAX_MTU);
                way.mtu = mtu.and_then(|(_, value)| number(value)).filter(|mtu| *mtu > 0);
            }
            _ => {}
        }
    }
    if way.interface == 0 { Err(odd()) } else { Ok(way) }
}

/// The attributes in a message: type and value.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(bytes(rest, 0)?));
        // The two upper bits are flags.
        let kind = u16::from_ne_bytes(bytes(rest, 2)?) & 0x3fff;
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn bytes<const N: usize>(message: &[u8], at: usize) -> Option<[u8; N]> {
    message.get(at..)?.first_chunk().copied()
}

fn number(value: &[u8]) -> Option<u32> {
    bytes(value, 0).map(u32::from_ne_bytes)
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => bytes::<4>(value, 0).map(IpAddr::from),
        16 => bytes::<16>(value, 0).map(IpAddr::from),
        _ => None,
    }
}

/// Bytes of `struct nlmsghdr` (netlink(7)) and of `struct rtmsg` (rtnetlink(7)).
const HEADER: usize = 16;
const ROUTE: usize = 12;
/// linux/rtnetlink.h; libc does not have it.
const RTAX_MTU: u16 = 2;
/// The kernel answers within the call: this bounds what cannot happen.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn query(to: &str) -> Query {
        Query { to: to.parse().unwrap(), from: None, interface: None, mark: None }
    }

    #[test]
    fn loopback_is_reached_through_its_own_interface() {
        let way = ask(&query("127.0.0.1")).unwrap();

        assert_eq!(way.source, Some("127.0.0.1".parse().unwrap()));
        let again = Query { interface: Some(way.interface), ..query("127.0.0.1") };
        assert_eq!(ask(&again).unwrap().interface, way.interface);
        let from = Query { from: way.source, ..query("127.0.0.1") };
        assert_eq!(ask(&from).unwrap().interface, way.interface);
    }

    #[test]
    fn what_is_refused_is_an_error_of_the_system() {
        // 203.0.113.0/24 is for documentation (RFC 5737): no machine has that address.
        let foreign = Query { from: Some("203.0.113.77".parse().unwrap()), ..query("127.0.0.1") };
        assert!(ask(&foreign).unwrap_err().raw_os_error().is_some());
        let nowhere = Query { interface: Some(999_999), ..query("127.0.0.1") };
        assert!(ask(&nowhere).unwrap_err().raw_os_error().is_some());
    }

    #[test]
    fn an_answer_that_ends_early_is_no_way() {
        let mut message = vec![0; HEADER];
        message[4..6].copy_from_slice(&libc::RTM_NEWROUTE.to_ne_bytes());
        assert!(parse(&message).is_err());
        message.extend([0; ROUTE]);
        message.extend([255, 255, 4, 0, 1]);
        assert!(parse(&message).is_err());
        assert!(parse(&[]).is_err());
    }
}
