// SPDX-License-Identifier: BSD-2-Clause
//! System calls and socket addresses, as thin as they come.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_int, c_uint, c_void, socklen_t};

/// A socket address as the kernel reads and writes it: IPv4 or IPv6.
///
/// All fields are plain numbers for which every bit pattern is valid, and a `Name` is filled
/// completely when it is made, so reading any field of the union is defined.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

// Both kinds start with the family, and the larger one fills the union.
const _: () = assert!(mem::offset_of!(libc::sockaddr_in, sin_family) == 0);
const _: () = assert!(mem::offset_of!(libc::sockaddr_in6, sin6_family) == 0);
const _: () = assert!(mem::size_of::<Name>() == mem::size_of::<libc::sockaddr_in6>());

impl Name {
    /// Bytes of room for any address that a UDP socket of ours can name.
    pub(super) const CAPACITY: socklen_t = mem::size_of::<Name>() as socklen_t;

    /// Room for the kernel to write to.
    pub(super) const EMPTY: Name = Name {
        v6: libc::sockaddr_in6 {
            sin6_family: 0,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        },
    };

    /// Writes `address` in the form that a socket of family `family` accepts, and its length: an
    /// IPv6 socket takes an IPv4 address in mapped form. `None` if an IPv4 socket cannot reach it.
    pub(super) fn encode(address: SocketAddr, family: Family) -> Option<(Name, socklen_t)> {
        let mut name = Name::EMPTY;
        let len = match (family, normalized(address)) {
            (Family::V4, SocketAddr::V4(v4)) => {
                name.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                mem::size_of::<libc::sockaddr_in>()
            }
            (Family::V4, SocketAddr::V6(_)) => return None,
            (Family::V6, address) => {
                let v6 = match address {
                    SocketAddr::V4(v4) => {
                        SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0)
                    }
                    SocketAddr::V6(v6) => v6,
                };
                name.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                mem::size_of::<libc::sockaddr_in6>()
            }
        };
        Some((name, len as socklen_t))
    }

    /// Reads what the kernel wrote: `len` is the length that it reported. A mapped IPv4 address
    /// comes back as IPv4. `None` if there is no Internet address.
    pub(super) fn decode(&self, len: socklen_t) -> Option<SocketAddr> {
        if (len as usize) < mem::size_of::<libc::sockaddr_in>() {
            return None;
        }
        // SAFETY: see the type: the field is initialised and valid whatever its bits.
        let family = unsafe { self.family };
        if family == libc::AF_INET as libc::sa_family_t {
            // SAFETY: as above.
            let v4 = unsafe { self.v4 };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            return Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into());
        }
        if family != libc::AF_INET6 as libc::sa_family_t || len < Name::CAPACITY {
            return None;
        }
        // SAFETY: as above.
        let v6 = unsafe { self.v6 };
        let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
        let port = u16::from_be(v6.sin6_port);
        Some(match ip.to_ipv4_mapped() {
            Some(ip) => SocketAddrV4::new(ip, port).into(),
            None => SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into(),
        })
    }
}

/// `address`, with a mapped IPv4 address (`::ffff:192.0.2.1`) written as IPv4. Above this module
/// one peer has one address, whichever kind of socket it came through.
pub(crate) fn normalized(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddrV4::new(ip, v6.port()).into(),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// The address family of a socket. A [`Family::V6`] socket may carry IPv4 as well (dual-stack).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// The family of `address`; a mapped IPv4 address is IPv4.
    pub(crate) fn of(address: SocketAddr) -> Self {
        match normalized(address) {
            SocketAddr::V4(_) => Family::V4,
            SocketAddr::V6(_) => Family::V6,
        }
    }
}

/// Sets an option whose value is an `int` (setsockopt(2)).
pub(super) fn set_option(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    // SAFETY: the value is a live local of the size that is given; the kernel only reads it.
    let status = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            ptr::from_ref(&value).cast(),
            mem::size_of::<c_int>() as socklen_t,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an option whose value is an `int` (getsockopt(2)).
pub(super) fn option(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value = [0u32; 1];
    read_option(fd, level, name, &mut value)?;
    Ok(value[0].cast_signed())
}

/// Reads an option that is an array of 32-bit numbers.
pub(super) fn read_option<const N: usize>(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: &mut [u32; N],
) -> io::Result<()> {
    let mut len = mem::size_of::<[u32; N]>() as socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`, which is that long and for which
    // every bit pattern is valid, and the length written to `len`, a live local.
    let status = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &mut len)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has a group of sockets at one address (`SO_REUSEPORT`) deal out what arrives among its `members`
/// by the 32-bit word at `offset` of each datagram, modulo their number. Shorter datagrams go to the
/// first one (socket(7), `SO_ATTACH_REUSEPORT_CBPF`).
pub(super) fn deal_out_by_word(fd: BorrowedFd<'_>, offset: u32, members: u32) -> io::Result<()> {
    let step = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = [
        // A = the word, counted from the start of the UDP payload; ends with 0 if there is none.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset),
        step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, members),
        step(libc::BPF_RET | libc::BPF_A, 0),
    ];
    let program =
        libc::sock_fprog { len: program.len() as libc::c_ushort, filter: program.as_mut_ptr() };
    // SAFETY: the option takes a `sock_fprog`, of the size that is given, and reads as many steps as
    // it says; both are live locals.
    let status = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            ptr::from_ref(&program).cast(),
            mem::size_of::<libc::sock_fprog>() as socklen_t,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A message header without name, data or control.
pub(super) fn empty_header() -> libc::mmsghdr {
    // SAFETY: a C struct of numbers and pointers that may be null; some C libraries pad it with
    // private fields, so it cannot be written out.
    unsafe { mem::zeroed() }
}

/// Receives a batch (recvmmsg(2)) and returns the number of messages. Their names, data, control
/// and lengths are where the headers point to.
///
/// # Safety
/// Each header points to its own name, vector and control buffers, with their right lengths, and
/// nothing else uses these during the call.
pub(super) unsafe fn recvmmsg(
    fd: BorrowedFd<'_>,
    headers: &mut [libc::mmsghdr],
    flags: c_int,
) -> io::Result<usize> {
    // SAFETY: recvmmsg(2), argument by argument.
    let received = unsafe {
        libc::recvmmsg(
            // An open descriptor, borrowed for longer than the call.
            fd.as_raw_fd(),
            // An array of headers; the caller vouches for what they point to.
            headers.as_mut_ptr(),
            // The number of elements of that array, not of bytes.
            headers.len() as c_uint,
            flags as _,
            // No timeout: the kernel looks at it only between datagrams (BUGS), so it bounds
            // nothing. SO_RCVTIMEO does.
            ptr::null_mut(),
        )
    };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// Sends a batch (sendmmsg(2)) and returns the number of messages taken by the kernel: fewer than
/// given if one failed, an error if the first one did.
///
/// # Safety
/// Each header points to a name, vectors and control data with their right lengths that nobody
/// writes to during the call.
pub(super) unsafe fn sendmmsg(
    fd: BorrowedFd<'_>,
    headers: &mut [libc::mmsghdr],
    flags: c_int,
) -> io::Result<usize> {
    // SAFETY: sendmmsg(2), argument by argument.
    let sent = unsafe {
        libc::sendmmsg(
            // An open descriptor, borrowed for longer than the call.
            fd.as_raw_fd(),
            // An array of headers; the caller vouches for what they point to. The kernel writes
            // `msg_len` of each.
            headers.as_mut_ptr(),
            // The number of elements; the kernel takes 1024 of them at most, and says so.
            headers.len() as c_uint,
            flags as _,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// One piece of memory of a message. The kernel writes to it in `recvmmsg` only.
pub(super) fn iovec(start: *mut u8, len: usize) -> libc::iovec {
    libc::iovec { iov_base: start.cast::<c_void>(), iov_len: len }
}

/// Locks a whole file for this open description of it (flock(2)), without waiting; `false` if
/// another one has it. The lock ends with the last descriptor.
///
/// # Errors
/// `ENOLCK`, or what a file system without locks answers.
pub(super) fn lock_file(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: flock(2) takes no pointer, and the descriptor is open.
    let status = unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    match io::Error::last_os_error() {
        _ if status == 0 => Ok(true),
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        error => Err(error),
    }
}

/// Blocks all signals on the calling thread.
pub(super) fn block_signals() {
    // SAFETY: sigfillset(3) initialises the set it is given, whatever its contents were.
    let set = unsafe {
        let mut set = mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(set.as_mut_ptr());
        set.assume_init()
    };
    // SAFETY: pthread_sigmask(3) reads `set`, which outlives the call; the old mask is not wanted.
    // It fails for an unknown operation only.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(address: &str, family: Family) -> Option<String> {
        let (name, len) = Name::encode(address.parse().unwrap(), family)?;
        Some(name.decode(len).unwrap().to_string())
    }

    #[test]
    fn addresses_survive_the_way_to_the_kernel_and_back() {
        assert_eq!(round_trip("192.0.2.1:4000", Family::V4).unwrap(), "192.0.2.1:4000");
        assert_eq!(round_trip("192.0.2.1:4000", Family::V6).unwrap(), "192.0.2.1:4000");
        assert_eq!(round_trip("[2001:db8::1]:65535", Family::V6).unwrap(), "[2001:db8::1]:65535");
        assert_eq!(round_trip("[fe80::1%7]:1", Family::V6).unwrap(), "[fe80::1%7]:1");
    }

    #[test]
    fn a_mapped_address_is_ipv4_in_both_directions() {
        assert_eq!(round_trip("[::ffff:192.0.2.1]:80", Family::V4).unwrap(), "192.0.2.1:80");
        assert_eq!(round_trip("[::ffff:192.0.2.1]:80", Family::V6).unwrap(), "192.0.2.1:80");
        assert_eq!(Family::of("[::ffff:192.0.2.1]:80".parse().unwrap()), Family::V4);
    }

    #[test]
    fn an_ipv4_socket_has_no_name_for_an_ipv6_address() {
        assert!(round_trip("[2001:db8::1]:80", Family::V4).is_none());
    }

    #[test]
    fn a_short_or_foreign_name_is_no_address() {
        let (v4, len) = Name::encode("192.0.2.1:80".parse().unwrap(), Family::V4).unwrap();
        assert!(v4.decode(len).is_some());
        assert!(v4.decode(len - 1).is_none());
        assert!(v4.decode(0).is_none());

        let (v6, len) = Name::encode("[2001:db8::1]:80".parse().unwrap(), Family::V6).unwrap();
        assert!(v6.decode(len).is_some());
        assert!(v6.decode(len - 1).is_none());

        assert!(Name::EMPTY.decode(Name::CAPACITY).is_none(), "AF_UNSPEC");
    }
}
