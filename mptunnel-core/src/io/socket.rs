// SPDX-License-Identifier: BSD-2-Clause
//! UDP sockets: opening them with everything that a path or a server asks for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
#[cfg(test)]
use std::time::Duration;

use libc::c_int;
use socket2::{Domain, Protocol, Socket, Type};

use super::sys;
pub(crate) use super::sys::{Family, normalized};

/// What a socket is to be like. [`SocketConfig::new`] gives the plain one.
#[derive(Clone, Debug)]
pub(crate) struct SocketConfig {
    /// The address to bind to; port 0 for one that the system picks. The family of the socket is
    /// that of this address, where a mapped IPv4 address counts as IPv4.
    pub(crate) local: SocketAddr,
    /// The interface that everything goes out of and comes in by (`SO_BINDTODEVICE`), whatever the
    /// routes say. Needs no privilege since Linux 5.7, `CAP_NET_RAW` before.
    pub(crate) interface: Option<String>,
    /// The mark for firewall and routing rules (`SO_MARK`); needs `CAP_NET_ADMIN`.
    pub(crate) mark: Option<u32>,
    /// Bytes of receive buffer to ask for; 0 keeps the system's default. A privileged process gets
    /// them; others get as much as `net.core.rmem_max` allows.
    pub(crate) recv_buffer: usize,
    /// Bytes of send buffer, as above (`net.core.wmem_max`).
    pub(crate) send_buffer: usize,
    /// Whether the kernel may cut and join runs of packets (`UDP_SEGMENT`, `UDP_GRO`), if it can.
    pub(crate) offload: bool,
    /// Lets other sockets of the same user bind to the same address (`SO_REUSEPORT`).
    pub(crate) reuse_port: bool,
    /// Reports the local address of each datagram, so that an answer leaves from the same one.
    pub(crate) packet_info: bool,
    /// For an IPv6 socket: whether it refuses IPv4. `None`: a socket bound to `[::]` takes both,
    /// whatever `net.ipv6.bindv6only` says.
    pub(crate) only_v6: Option<bool>,
}

impl SocketConfig {
    /// A socket bound to `local`, with the system's defaults for the rest.
    pub(crate) fn new(local: SocketAddr) -> Self {
        SocketConfig {
            local,
            interface: None,
            mark: None,
            recv_buffer: 0,
            send_buffer: 0,
            offload: true,
            reuse_port: false,
            packet_info: false,
            only_v6: None,
        }
    }

    /// A socket of `family` bound to any address and a port that the system picks.
    pub(crate) fn any(family: Family) -> Self {
        SocketConfig::new(SocketAddr::new(unspecified(family), 0))
    }
}

/// Why a socket could not be opened or connected. The raw code in `source` is kept: `ENODEV` and
/// `EADDRNOTAVAIL` mean that the same may work later.
#[derive(Debug, thiserror::Error)]
#[error("{op} failed")]
pub(crate) struct SocketError {
    /// What was tried: `bind`, `connect`, …, with what it needs if the system refused permission.
    pub(crate) op: &'static str,
    pub(crate) source: io::Error,
}

impl SocketError {
    /// The error of a user who wanted to listen on `at`, with what can be done about it.
    pub(crate) fn of_listening(self, at: SocketAddr) -> crate::Error {
        let remedy = match self.source.raw_os_error() {
            Some(libc::EADDRINUSE) => ": another program uses that port",
            Some(libc::EACCES) => ": ports below 1024 need CAP_NET_BIND_SERVICE",
            Some(libc::EADDRNOTAVAIL) => ": no interface has that address",
            _ => "",
        };
        crate::Error::Io { op: format!("cannot listen on {at}{remedy}"), source: self.source }
    }
}

/// Bytes of socket buffer that the system granted, in the unit in which they are asked for. (The
/// kernel reserves and reports twice as much, for its own bookkeeping: socket(7).)
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Buffers {
    pub(crate) recv: usize,
    pub(crate) send: usize,
}

/// A UDP socket: blocking, and told by each call whether to wait.
///
/// Addresses are normalized in both directions: a dual-stack socket shows an IPv4 peer as IPv4.
///
/// The kernel's path MTU discovery is on (`IP_PMTUDISC_WANT`): packets up to the known path MTU
/// leave with DF set, so that routers report a smaller MTU and [`path_mtu`](Self::path_mtu) learns
/// it; larger ones are fragmented by the kernel. The session cuts its packets to that MTU by
/// itself, so the latter happens only to those that were sealed before the change was noticed,
/// and these arrive instead of being refused (`DO`) or lost (`PROBE`, which ignores what routers
/// report). `DONT` would never learn anything. It is set explicitly because the default is the
/// administrator's (`net.ipv4.ip_no_pmtu_disc`).
///
/// An ICMP error from the peer of a *connected* socket is handed, once, to the next call on it,
/// whichever that is (`ECONNREFUSED`; `EMSGSIZE` if a router asked for smaller packets). It says
/// nothing about the datagram of that call, and the socket stays usable.
#[derive(Debug)]
pub(crate) struct UdpSocket {
    socket: Socket,
    family: Family,
    gso: AtomicBool,
}

impl UdpSocket {
    /// Opens and binds a socket.
    ///
    /// Offloads that the kernel does not know (`UDP_SEGMENT` before Linux 4.18, `UDP_GRO` before
    /// 5.0) are left out; a smaller buffer than asked for is accepted, see
    /// [`granted_buffers`](Self::granted_buffers).
    ///
    /// # Errors
    /// `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES` (a privileged port), `ENODEV` (no such interface),
    /// `EPERM` (interface or mark), `EAFNOSUPPORT` (no IPv6), `EMFILE`.
    pub(crate) fn open(config: &SocketConfig) -> Result<Self, SocketError> {
        Self::open_with(config, |_| Ok(()))
    }

    /// Like [`open`](Self::open); `prepare` sees the new socket before it is bound, for what a host
    /// has to do to every socket (Android's `protect`, a mark of its own).
    ///
    /// # Errors
    /// In addition, what `prepare` returns.
    pub(crate) fn open_with(
        config: &SocketConfig,
        prepare: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> Result<Self, SocketError> {
        let local = normalized(config.local);
        let family = Family::of(local);
        let domain = match family {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).or_fail("socket")?;
        prepare(socket.as_fd()).or_fail("socket hook")?;

        if family == Family::V6 {
            let only_v6 = config.only_v6.unwrap_or(!local.ip().is_unspecified());
            socket.set_only_v6(only_v6).or_fail("IPV6_V6ONLY")?;
        }
        if config.reuse_port {
            socket.set_reuse_port(true).or_fail("SO_REUSEPORT")?;
        }
        if let Some(interface) = &config.interface {
            bind_to_interface(&socket, interface)?;
        }
        if let Some(mark) = config.mark {
            socket.set_mark(mark).or_fail_permitted("mark", "mark (needs CAP_NET_ADMIN)")?;
        }
        grow_buffers(&socket, config);
        discover_path_mtu(&socket, family).or_fail("path MTU discovery")?;
        if config.packet_info {
            report_local_address(&socket, family).or_fail("packet info")?;
        }
        // A kernel that does not know the option would send a run as one huge datagram, so ask.
        let knows = || sys::option(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
        let gso = config.offload && knows();
        if config.offload
            && let Err(error) = set_gro(&socket, true)
        {
            log::debug!(target: "mptunnel::io", "no UDP_GRO: {error}");
        }

        socket.bind(&local.into()).or_fail("bind")?;
        Ok(UdpSocket { socket, family, gso: AtomicBool::new(gso) })
    }

    /// Opens `count` sockets at one address, for as many threads: the kernel deals out what arrives
    /// by the 32-bit word at `offset` of each datagram (`SO_REUSEPORT`, socket(7)), so that equal
    /// words meet in one thread, in order, whatever path they came on.
    ///
    /// The first one is bound alone, so that an address in use is refused as ever: otherwise two
    /// programs of one user would share the address and lose half of their datagrams each.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub(crate) fn open_group(
        config: &SocketConfig,
        count: usize,
        offset: u32,
        prepare: impl Fn(BorrowedFd<'_>) -> io::Result<()>,
    ) -> Result<Vec<Self>, SocketError> {
        let mut group = vec![Self::open_with(config, &prepare)?];
        if count > 1 {
            let first = &group[0];
            first.socket.set_reuse_port(true).or_fail("SO_REUSEPORT")?;
            let local = first.local_addr().or_fail("getsockname")?;
            let member = SocketConfig { local, reuse_port: true, ..config.clone() };
            for _ in 1..count {
                group.push(Self::open_with(&member, &prepare)?);
            }
            // Without it the kernel deals out by source: right as well, but paths overtake each
            // other.
            if let Err(error) = sys::deal_out_by_word(group[0].as_fd(), offset, count as u32) {
                log::debug!(target: "mptunnel::io", "SO_ATTACH_REUSEPORT_CBPF: {error}");
            }
        }
        Ok(group)
    }

    /// Sets the peer: only its datagrams arrive any more, and its ICMP errors are reported.
    ///
    /// # Errors
    /// `ENETUNREACH`, `EHOSTUNREACH` without a route; `EAFNOSUPPORT` for an IPv6 address on an IPv4
    /// socket.
    pub(crate) fn connect(&self, remote: SocketAddr) -> Result<(), SocketError> {
        let remote = match (self.family, normalized(remote)) {
            // An IPv6 socket takes an IPv4 address in mapped form.
            (Family::V6, SocketAddr::V4(v4)) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            (_, remote) => remote,
        };
        self.socket.connect(&remote.into()).or_fail("connect")
    }

    /// The address that the socket is bound to; after `connect`, the one packets leave from.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        internet_address(self.socket.local_addr()?)
    }

    /// The peer that the socket is connected to.
    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        internet_address(self.socket.peer_addr().ok()?).ok()
    }

    /// The family of the socket.
    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// The path MTU to the connected peer that the kernel knows at present, in bytes with all
    /// headers: that of the route until a router reported a smaller one. `None` if the socket is
    /// not connected or the peer has no route.
    pub(crate) fn path_mtu(&self) -> Option<usize> {
        let (level, name) = match Family::of(self.peer_addr()?) {
            // Also for an IPv4 peer of a dual-stack socket: its packets are IPv4.
            Family::V4 => (libc::IPPROTO_IP, libc::IP_MTU),
            Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
        };
        usize::try_from(sys::option(self.as_fd(), level, name).ok()?).ok()
    }

    /// The sizes of the socket's buffers.
    pub(crate) fn granted_buffers(&self) -> Buffers {
        Buffers {
            recv: self.socket.recv_buffer_size().map_or(0, |bytes| bytes / 2),
            send: self.socket.send_buffer_size().map_or(0, |bytes| bytes / 2),
        }
    }

    /// How many arrivals the kernel dropped because the receive buffer was full, since the socket
    /// was opened; it wraps at 2^32. A run of datagrams that arrived as one (GRO) counts once.
    pub(crate) fn receive_drops(&self) -> u32 {
        let mut info = [0; MEMINFO_DROPS + 1];
        match sys::read_option(self.as_fd(), libc::SOL_SOCKET, SO_MEMINFO, &mut info) {
            Ok(()) => info[MEMINFO_DROPS],
            // Linux 4.12 and newer have it.
            Err(_) => 0,
        }
    }

    #[cfg(test)]
    /// Bounds how long a read that waits for its first datagram blocks; `None` for ever.
    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(timeout)
    }

    /// Ends reading for good: every blocked read returns with nothing, as all later ones do, and
    /// `poll` finds the socket ready. For stopping the thread that reads.
    pub(crate) fn stop_reading(&self) {
        // On an unconnected socket the kernel does this and then answers ENOTCONN.
        let _ = self.socket.shutdown(Shutdown::Read);
    }

    /// Whether runs are sent with segmentation offload.
    pub(crate) fn gso(&self) -> bool {
        self.gso.load(Relaxed)
    }

    /// Sends every packet by itself from now on, and says whether that is news.
    pub(crate) fn disable_gso(&self) -> bool {
        self.gso.swap(false, Relaxed)
    }

    /// Takes every datagram by itself from now on.
    #[cfg(test)]
    pub(crate) fn disable_gro(&self) -> io::Result<()> {
        set_gro(&self.socket, false)
    }

    /// Any datagram socket, to provoke errors that a UDP socket answers on special devices only.
    #[cfg(test)]
    pub(super) fn from_foreign(socket: Socket, gso: bool) -> Self {
        UdpSocket { socket, family: Family::V4, gso: AtomicBool::new(gso) }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The path MTU that the kernel knows toward `remote`, from `local` if given: bytes with all
/// headers. `None` without a route. Nothing is sent.
pub(crate) fn route_mtu(local: Option<IpAddr>, remote: SocketAddr) -> Option<usize> {
    let local = local.unwrap_or_else(|| unspecified(Family::of(remote)));
    let socket = UdpSocket::open(&SocketConfig::new(SocketAddr::new(local, 0))).ok()?;
    socket.connect(remote).ok()?;
    socket.path_mtu()
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn internet_address(address: socket2::SockAddr) -> io::Result<SocketAddr> {
    let not_internet = || io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
    address.as_socket().map(normalized).ok_or_else(not_internet)
}

fn bind_to_interface(socket: &Socket, interface: &str) -> Result<(), SocketError> {
    // The empty name would unbind instead, and the kernel cuts a long one to 15 bytes, which may be
    // the name of another interface.
    let plausible = 1..libc::IFNAMSIZ;
    if !plausible.contains(&interface.len()) || interface.contains('\0') {
        let source = io::Error::from_raw_os_error(libc::ENODEV);
        return Err(SocketError { op: BIND_TO_INTERFACE, source });
    }
    socket
        .bind_device(Some(interface.as_bytes()))
        .or_fail_permitted(BIND_TO_INTERFACE, "bind to interface (needs CAP_NET_RAW)")
}

/// Asks for the configured buffers, beyond the system's limit where that is permitted.
fn grow_buffers(socket: &Socket, config: &SocketConfig) {
    for (bytes, force, plain) in [
        (config.recv_buffer, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (config.send_buffer, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ] {
        if bytes == 0 {
            continue;
        }
        // The kernel doubles the number, in an int.
        let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX).min(c_int::MAX / 2);
        let fd = socket.as_fd();
        if sys::set_option(fd, libc::SOL_SOCKET, force, bytes).is_err() {
            // Without privilege the kernel grants up to its limit, and never fails.
            let _ = sys::set_option(fd, libc::SOL_SOCKET, plain, bytes);
        }
    }
}

/// See [`UdpSocket`] for the reason.
fn discover_path_mtu(socket: &Socket, family: Family) -> io::Result<()> {
    let fd = socket.as_fd();
    let v4 = libc::IP_PMTUDISC_WANT;
    match family {
        Family::V4 => sys::set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, v4),
        Family::V6 => {
            // For the IPv4 packets of a dual-stack socket.
            sys::set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, v4)?;
            let v6 = libc::IPV6_PMTUDISC_WANT;
            sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, v6)
        }
    }
}

fn report_local_address(socket: &Socket, family: Family) -> io::Result<()> {
    let fd = socket.as_fd();
    if family == Family::V6 {
        sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
    }
    // On a dual-stack socket too: only this one tells the interface's own address of a broadcast.
    sys::set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
}

fn set_gro(socket: &Socket, on: bool) -> io::Result<()> {
    sys::set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, c_int::from(on))
}

/// Names the failed operation.
trait OrFail<T> {
    fn or_fail(self, op: &'static str) -> Result<T, SocketError>;

    /// `needs` instead of `op` if the system refused permission.
    fn or_fail_permitted(self, op: &'static str, needs: &'static str) -> Result<T, SocketError>;
}

impl<T> OrFail<T> for io::Result<T> {
    fn or_fail(self, op: &'static str) -> Result<T, SocketError> {
        self.map_err(|source| SocketError { op, source })
    }

    fn or_fail_permitted(self, op: &'static str, needs: &'static str) -> Result<T, SocketError> {
        self.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => SocketError { op: needs, source },
            _ => SocketError { op, source },
        })
    }
}

const BIND_TO_INTERFACE: &str = "bind to interface";

/// Memory use of a socket as an array of numbers, and the place of the drop counter in it
/// (linux/sock_diag.h, Linux 4.12). The number of the option is that of asm-generic/socket.h.
const SO_MEMINFO: c_int = if cfg!(target_arch = "sparc64") { 0x39 } else { 55 };
const MEMINFO_DROPS: usize = libc::SK_MEMINFO_DROPS as usize;
