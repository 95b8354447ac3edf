// SPDX-License-Identifier: BSD-2-Clause
//! Datagrams in batches, with the least work that Linux allows: `recvmmsg` with `UDP_GRO` on the
//! way in, `sendmmsg` with `UDP_SEGMENT` on the way out. Nothing here falls back: a yardstick that
//! cannot batch is no yardstick.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// How long a wait for a datagram lasts before the caller looks whether it should stop.
pub const PATIENCE: Duration = Duration::from_millis(50);
/// Bytes. Asked for as receive buffer: a few joined datagrams of 64 KiB fill the usual one.
const RECEIVE_BUFFER: libc::c_int = 16 << 20;
/// Joined datagrams that one call takes.
const ARRIVALS: usize = 16;
/// Bytes. A joined datagram is at most 65,535 bytes long.
const ARRIVAL_BYTES: usize = 64 * 1024;
/// Bytes. Stays in the second-level cache while several sockets send it.
const DEPARTURE_BYTES: usize = 384 * 1024;
/// Datagrams that the kernel cuts from one send, in every version that can (udp(7)).
const MAX_SEGMENTS: usize = 64;
/// Bytes that one send may have: a UDP datagram until it is cut.
const MAX_RUN_BYTES: usize = 65_000;

/// A socket bound to `at` that joins what arrives and has a large buffer.
pub fn open(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(at)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Beyond the system's limit with the privilege, up to it without.
    if set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER).is_err() {
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER)?;
    }
    set(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
    Ok(socket)
}

fn set(
    socket: &UdpSocket,
    level: libc::c_int,
    name: libc::c_int,
    to: libc::c_int,
) -> io::Result<()> {
    let len = size_of_val(&to) as libc::socklen_t;
    // SAFETY: setsockopt(2) reads `len` bytes, which is the size of what the pointer leads to.
    let outcome =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const to).cast(), len) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until one of `sockets` has something to read, for at most [`PATIENCE`].
pub fn wait(sockets: &[UdpSocket]) {
    let mut entries: Vec<libc::pollfd> = sockets
        .iter()
        .map(|socket| libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    // SAFETY: poll(2) writes to the entries, which are as many as it is told.
    unsafe {
        libc::poll(entries.as_mut_ptr(), entries.len() as _, PATIENCE.as_millis() as libc::c_int)
    };
}

/// An address as the kernel wants it.
#[derive(Clone, Copy)]
pub struct Peer {
    bytes: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl PartialEq for Peer {
    fn eq(&self, other: &Peer) -> bool {
        let port_and_address = |peer: &Peer| {
            // SAFETY: sockaddr_storage is larger than both and is plain numbers; the rest is zero.
            let v6: libc::sockaddr_in6 = unsafe { std::mem::transmute_copy(&peer.bytes) };
            (v6.sin6_family, v6.sin6_port, v6.sin6_flowinfo, v6.sin6_addr.s6_addr)
        };
        // For IPv4 the address is where IPv6 has its flow label, and what follows is zero.
        self.len == other.len && port_and_address(self) == port_and_address(other)
    }
}

/// Room for what the kernel says besides the bytes: one number, aligned as it wants it.
type Control = [u64; 4];

/// What arrived at a socket, in buffers that are used again and again.
pub struct Arrivals {
    memory: Vec<u8>,
    peers: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers in headers and vectors lead to the other fields, which move with them as
// heap blocks and which only `&mut self` touches.
unsafe impl Send for Arrivals {}

impl Default for Arrivals {
    fn default() -> Self {
        // SAFETY: of these C structs all bytes zero is a value.
        let (peer, header) = unsafe {
            (std::mem::zeroed::<libc::sockaddr_storage>(), std::mem::zeroed::<libc::mmsghdr>())
        };
        let mut arrivals = Arrivals {
            memory: vec![0; ARRIVALS * ARRIVAL_BYTES],
            peers: vec![peer; ARRIVALS],
            controls: vec![[0; 4]; ARRIVALS],
            vectors: Vec::with_capacity(ARRIVALS),
            headers: vec![header; ARRIVALS],
        };
        for buffer in arrivals.memory.chunks_mut(ARRIVAL_BYTES) {
            let iov_base = buffer.as_mut_ptr().cast();
            arrivals.vectors.push(libc::iovec { iov_base, iov_len: ARRIVAL_BYTES });
        }
        for index in 0..ARRIVALS {
            let header = &mut arrivals.headers[index].msg_hdr;
            header.msg_iov = &raw mut arrivals.vectors[index];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut arrivals.peers[index]).cast();
            header.msg_control = arrivals.controls[index].as_mut_ptr().cast();
        }
        arrivals
    }
}

impl Arrivals {
    /// Takes what is there and returns how many joined datagrams that were. With `block` it waits
    /// for the first one, for at most [`PATIENCE`].
    pub fn take(&mut self, socket: &UdpSocket, block: bool) -> usize {
        for header in &mut self.headers {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as _;
            header.msg_hdr.msg_controllen = size_of::<Control>() as _;
        }
        let flags = if block { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        // SAFETY: recvmmsg(2) fills the headers, as many as it is told; each points to a buffer, a
        // name and a control space of its own, with their true sizes.
        let taken = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as _,
                flags as _,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(taken).unwrap_or(0)
    }

    /// The datagrams of arrival `index`.
    pub fn datagrams(&mut self, index: usize) -> std::slice::ChunksMut<'_, u8> {
        let header = &self.headers[index];
        let len = header.msg_len as usize;
        let mut each = len;
        if header.msg_hdr.msg_controllen > 0 {
            let [_, kind, value, _] = self.controls[index];
            // cmsg(3): a length in 8 bytes, level and type in 4 each, then the data.
            let joined = u64::from(libc::SOL_UDP as u32) | (libc::UDP_GRO as u64) << 32;
            if kind.to_le() == joined {
                each = value as u32 as usize;
            }
        }
        self.memory[index * ARRIVAL_BYTES..][..len].chunks_mut(each.max(1))
    }

    /// Where arrival `index` came from.
    pub fn peer(&self, index: usize) -> Peer {
        Peer { bytes: self.peers[index], len: self.headers[index].msg_hdr.msg_namelen }
    }
}

/// Datagrams side by side, to be sent by any number of sockets.
pub struct Departures {
    memory: Vec<u8>,
    end: usize,
    runs: Vec<Run>,
    vectors: Vec<libc::iovec>,
    controls: Vec<Control>,
    headers: Vec<libc::mmsghdr>,
    segments: usize,
}

// SAFETY: as for `Arrivals`; the headers are written anew before each use.
unsafe impl Send for Departures {}

/// Datagrams of one size; only the last may be shorter.
struct Run {
    start: usize,
    bytes: usize,
    each: usize,
    count: usize,
    closed: bool,
}

impl Departures {
    /// Sends up to `segments` datagrams as one; 1 sends each by itself.
    pub fn new(segments: usize) -> Self {
        Departures {
            memory: vec![0; DEPARTURE_BYTES],
            end: 0,
            runs: Vec::new(),
            vectors: Vec::new(),
            controls: Vec::new(),
            headers: Vec::new(),
            segments,
        }
    }

    /// As many to a send as the kernel allows.
    pub fn joined() -> Self {
        Departures::new(MAX_SEGMENTS)
    }

    /// Whether a datagram of `len` bytes has room.
    pub fn has_room(&self, len: usize) -> bool {
        self.memory.len() - self.end >= len
    }

    /// `len` bytes for the next datagram.
    pub fn add(&mut self, len: usize) -> &mut [u8] {
        let start = self.end;
        self.end += len;
        let most = self.segments;
        match self.runs.last_mut() {
            Some(run)
                if !run.closed
                    && 0 < len
                    && len <= run.each
                    && run.bytes + len <= MAX_RUN_BYTES =>
            {
                run.bytes += len;
                run.count += 1;
                run.closed = len < run.each || run.count == most;
            }
            _ => {
                let closed = most == 1 || len == 0;
                self.runs.push(Run { start, bytes: len, each: len, count: 1, closed });
            }
        }
        &mut self.memory[start..self.end]
    }

    /// Sends all of them with each of `sockets` to each of `peers`, or to where the sockets are
    /// connected; then forgets them. Returns how many sends the kernel refused.
    pub fn send(&mut self, sockets: &[UdpSocket], peers: &[Peer]) -> usize {
        if self.runs.is_empty() {
            return 0;
        }
        self.prepare();
        let mut refused = 0;
        for socket in sockets {
            if peers.is_empty() {
                refused += self.push(socket);
            }
            for peer in peers {
                for header in &mut self.headers {
                    header.msg_hdr.msg_name = (&raw const peer.bytes).cast_mut().cast();
                    header.msg_hdr.msg_namelen = peer.len;
                }
                refused += self.push(socket);
            }
        }
        self.end = 0;
        self.runs.clear();
        refused
    }

    fn prepare(&mut self) {
        self.vectors.clear();
        self.controls.clear();
        self.headers.clear();
        for run in &self.runs {
            let bytes = &self.memory[run.start..][..run.bytes];
            let iov_base = bytes.as_ptr().cast_mut().cast();
            self.vectors.push(libc::iovec { iov_base, iov_len: bytes.len() });
            let kind = u64::from(libc::SOL_UDP as u32) | (libc::UDP_SEGMENT as u64) << 32;
            self.controls.push([CONTROL_LEN, kind.to_le(), run.each as u64, 0]);
        }
        for (index, run) in self.runs.iter().enumerate() {
            // SAFETY: of this C struct all bytes zero is a value.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = &raw mut self.vectors[index];
            header.msg_hdr.msg_iovlen = 1;
            if run.count > 1 {
                header.msg_hdr.msg_control = self.controls[index].as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = CONTROL_SPACE as _;
            }
            self.headers.push(header);
        }
    }

    fn push(&mut self, socket: &UdpSocket) -> usize {
        let (mut at, mut refused, mut again) = (0, 0, false);
        while at < self.headers.len() {
            let rest = &mut self.headers[at..];
            // SAFETY: sendmmsg(2) reads what the headers lead to: memory, controls and vectors of
            // `self`, which `prepare` wrote since they last changed, and a peer that is borrowed.
            let taken = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as _, 0)
            };
            match usize::try_from(taken) {
                Ok(taken) => (at, again) = (at + taken, false),
                // The first refusal may be about an earlier datagram (udp(7)).
                Err(_) if !again => again = true,
                Err(_) => (at, refused, again) = (at + 1, refused + 1, false),
            }
        }
        refused
    }
}

/// Bytes of a control message with two bytes of data (cmsg(3)), and of what it occupies.
const CONTROL_LEN: u64 = 16 + 2;
const CONTROL_SPACE: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_any_sizes_arrive_datagram_by_datagram() {
        let to = open("127.0.0.1:0".parse().unwrap()).unwrap();
        let from = open("127.0.0.1:0".parse().unwrap()).unwrap();
        from.connect(to.local_addr().unwrap()).unwrap();
        let lens = [1400, 1400, 9, 64, 64, 64, 2000, 0, 1];
        let mut out = Departures::joined();
        for (index, len) in lens.into_iter().enumerate() {
            out.add(len).fill(index as u8);
        }

        assert_eq!(out.send(std::slice::from_ref(&from), &[]), 0);

        let (mut arrivals, mut seen) = (Arrivals::default(), Vec::new());
        let source = from.local_addr().unwrap();
        while seen.len() < lens.len() {
            let taken = arrivals.take(&to, true);
            assert!(taken > 0, "{seen:?}");
            for index in 0..taken {
                let before = seen.len();
                for datagram in arrivals.datagrams(index) {
                    assert!(datagram.iter().all(|byte| usize::from(*byte) == seen.len()));
                    seen.push(datagram.len());
                }
                if seen.len() == before {
                    seen.push(0);
                }
            }
        }
        assert_eq!(seen, lens);

        // A reply to where they came from.
        let peer = arrivals.peer(0);
        out.add(3).copy_from_slice(b"yes");
        out.send(&[to], &[peer]);
        let mut buffer = [0; 9];
        assert_eq!(from.recv(&mut buffer).unwrap(), 3, "to {source}");
    }
}
