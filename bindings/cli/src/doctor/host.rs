// SPDX-License-Identifier: BSD-2-Clause
//! What this machine has: interfaces with their addresses and filters, limits, capabilities.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::resource::{Resource, getrlimit};

use super::report::Finding;

/// A network interface.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u32,
    /// The administrator has it up.
    pub(crate) up: bool,
    /// It has a carrier.
    pub(crate) running: bool,
    pub(crate) loopback: bool,
    pub(crate) addresses: Vec<IpAddr>,
    /// Bytes of its largest packet; 0 if that cannot be read.
    pub(crate) mtu: u32,
    /// The reverse path filter in force for IPv4: 0 none, 1 strict, 2 loose (the higher one of the
    /// interface's and that of all: ip-sysctl.rst of the kernel).
    pub(crate) rp_filter: u8,
}

impl Interface {
    /// Whether it has an address that packets to `ip` could have as their source.
    pub(crate) fn has_family_of(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.is_ipv4() == ip.is_ipv4())
    }
}

/// All interfaces, in the order of the system; none if it does not tell.
pub(crate) fn interfaces() -> Vec<Interface> {
    let mut all: Vec<Interface> = Vec::new();
    let Ok(addresses) = getifaddrs() else { return all };
    let filter_of_all = rp_filter("all");
    for entry in addresses {
        let known = all.iter().position(|known| known.name == entry.interface_name);
        let at = known.unwrap_or_else(|| {
            let name = entry.interface_name.clone();
            all.push(Interface {
                index: if_nametoindex(name.as_str()).unwrap_or(0),
                up: entry.flags.contains(InterfaceFlags::IFF_UP),
                running: entry.flags.contains(InterfaceFlags::IFF_RUNNING),
                loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
                addresses: Vec::new(),
                mtu: number(&format!("/sys/class/net/{name}/mtu")).unwrap_or(0),
                rp_filter: filter_of_all.max(rp_filter(&name)),
                name,
            });
            all.len() - 1
        });
        let address = entry.address.and_then(|address| {
            let four = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            four.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        });
        all[at].addresses.extend(address);
    }
    all
}

fn rp_filter(interface: &str) -> u8 {
    number(&format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter")).unwrap_or(0)
}

/// The number in a file of /proc or /sys.
fn number<N: std::str::FromStr>(file: &str) -> Option<N> {
    fs::read_to_string(Path::new(file)).ok()?.trim().parse().ok()
}

/// What may be said of the socket buffers that the option `socket-buffer` asks for.
pub(crate) fn buffers(wanted: u64) -> Vec<Finding> {
    let limits = [("rmem_max", "receive"), ("wmem_max", "send")];
    let privileged = is_network_admin();
    limits
        .iter()
        .filter_map(|(limit, what)| {
            let allowed = number(&format!("/proc/sys/net/core/{limit}"))?;
            Some(judge_buffer(limit, what, allowed, wanted, privileged))
        })
        .collect()
}

fn judge_buffer(limit: &str, what: &str, allowed: u64, wanted: u64, privileged: bool) -> Finding {
    let subject = format!("net.core.{limit}");
    let (allows, asks) = (size(allowed), size(wanted));
    if wanted == 0 || allowed >= wanted {
        return Finding::ok(subject, format!("allows {allows}, socket-buffer asks for {asks}"));
    }
    let under = format!("allows {allows} of {what} buffer where socket-buffer asks for {asks}");
    if privileged {
        let text = format!("{under}; root gets it all the same, another user would not");
        return Finding::ok(subject, text);
    }
    if allowed >= ENOUGH_BUFFER {
        return Finding::ok(subject, format!("{under}, which is enough for most"));
    }
    Finding::warning(
        subject.clone(),
        format!("{under}: bursts overflow it"),
        format!("sysctl -w {subject}={wanted}, and a line in /etc/sysctl.d/ to keep it"),
    )
}

/// Bytes, as people read them.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0x10_0000.. => format!("{} MiB", bytes >> 20),
        0x400.. => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

/// Whether this process has CAP_NET_ADMIN, and so no limits of buffers (socket(7),
/// `SO_RCVBUFFORCE`).
fn is_network_admin() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << CAP_NET_ADMIN) != 0)
}

/// Each flow of a server takes a descriptor.
pub(crate) fn descriptors(flows: u16) -> Vec<Finding> {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Vec::new() };
    let wanted = u64::from(flows).saturating_add(64);
    if hard >= wanted {
        let text = format!("{hard} descriptors allowed: each flow of a client takes one");
        return vec![Finding::ok("", text)];
    }
    vec![Finding::warning(
        "",
        format!("{hard} descriptors allowed, and one client may have {flows} flows (flows=)"),
        "ulimit -Hn 65536, or LimitNOFILE=65536 in the systemd unit",
    )]
}

/// Whether a UDP socket of this machine is bound to `port` on an address that `ip` reaches
/// (proc_net_udp(5)); `None` if that cannot be read. Nothing is sent.
pub(crate) fn is_bound(ip: IpAddr, port: u16) -> Option<bool> {
    let four = fs::read_to_string("/proc/self/net/udp").ok()?;
    let six = fs::read_to_string("/proc/self/net/udp6").unwrap_or_default();
    let mut bound = four.lines().chain(six.lines()).filter_map(local_address);
    Some(bound.any(|(at, its_port)| {
        // A socket on [::] takes IPv4 as well, most of the time.
        let everywhere = at.is_unspecified() && (at.is_ipv6() || ip.is_ipv4());
        its_port == port && (everywhere || at == ip)
    }))
}

/// The local address in a line of /proc/net/udp: words of 32 bits in the order of the machine.
fn local_address(line: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = line.split_whitespace().nth(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let hex = address.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(hex, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match address.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let words: Vec<[u8; 4]> = (0..4).map_while(word).collect();
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?)).to_canonical()
        }
        _ => return None,
    };
    Some((ip, port))
}

/// As mpclient and mpserver have it: 1 MiB holds what arrives in 80 ms at 100 Mbit/s.
const ENOUGH_BUFFER: u64 = 1 << 20;
/// linux/capability.h
const CAP_NET_ADMIN: u32 = 12;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::report::Level;
    use super::*;

    #[test]
    fn loopback_is_among_the_interfaces() {
        let all = interfaces();

        let loopback = all.iter().find(|interface| interface.loopback).unwrap();
        assert!(loopback.index > 0 && loopback.up);
        assert!(loopback.addresses.contains(&Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn a_small_limit_is_warned_of_unless_it_does_not_bind() {
        let judge = |allowed, privileged| {
            judge_buffer("rmem_max", "receive", allowed, 16 << 20, privileged)
        };

        let finding = judge(212_992, false);
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.remedy.unwrap().starts_with("sysctl -w net.core.rmem_max=16777216"));
        for (allowed, privileged) in [(212_992, true), (4 << 20, false), (16 << 20, false)] {
            assert_eq!(judge(allowed, privileged).level, Level::Ok);
        }
    }

    #[test]
    fn the_table_of_sockets_is_read() {
        let line = "  6: 0100007F:0FA0 00000000:0000 07 00000000:00000000 00:00000000 00000000";
        let any = "  7: 00000000000000000000000000000000:07D0 0000 07";

        if cfg!(target_endian = "little") {
            assert_eq!(local_address(line), Some((Ipv4Addr::LOCALHOST.into(), 4000)));
        }
        assert_eq!(local_address(any), Some((Ipv6Addr::UNSPECIFIED.into(), 2000)));
        assert_eq!(local_address("  sl  local_address rem_address"), None);
    }
}
