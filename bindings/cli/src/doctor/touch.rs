// SPDX-License-Identifier: BSD-2-Clause
//! One datagram to the other end of each path, from a plain socket: nothing has to answer, but the
//! network may object. It needs no key, and is as long as the path is said to take, so that
//! routers with less tell so. A server drops it; it proves nothing to anybody.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mptunnel_core::options::PathSpec;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

/// What became of it.
#[derive(Debug, Default)]
pub(crate) struct Touch {
    /// The address it left from.
    pub(crate) from: Option<IpAddr>,
    /// What the system or the network said against it.
    pub(crate) objection: Option<io::Error>,
}

impl Touch {
    /// Whether the host is there and has nothing that listens on the port.
    pub(crate) fn is_refused(&self) -> bool {
        let code = self.objection.as_ref().and_then(io::Error::raw_os_error);
        code == Some(libc::ECONNREFUSED)
    }
}

/// Sends a datagram of `len` bytes on each path, side by side, and waits a moment for objections.
pub(crate) fn touch(paths: &[(&PathSpec, SocketAddr, usize)]) -> Vec<Touch> {
    let mut touches: Vec<Touch> = paths.iter().map(|_| Touch::default()).collect();
    let mut open: Vec<(usize, Socket)> = Vec::new();
    for (at, (spec, to, len)) in paths.iter().enumerate() {
        match send(spec, *to, *len) {
            Ok(socket) => {
                let from = socket.local_addr().ok().and_then(|local| local.as_socket());
                touches[at].from = from.map(|from| from.ip());
                open.push((at, socket));
            }
            Err(error) => touches[at].objection = Some(error),
        }
    }
    let end = Instant::now() + OBJECTIONS_WITHIN;
    while !open.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        let Ok(left) = PollTimeout::try_from(left) else { break };
        let mut fds: Vec<PollFd<'_>> =
            open.iter().map(|(_, socket)| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut fds, left) {
            Ok(0) => break,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => break,
        }
        open.retain(|(at, socket)| match socket.take_error() {
            Ok(Some(error)) => {
                // A router with a smaller MTU; the kernel has learnt it, which is all that counts.
                if error.raw_os_error() != Some(libc::EMSGSIZE) {
                    touches[*at].objection = Some(error);
                }
                false
            }
            // Readable without an error: somebody answered, which nobody was asked to.
            _ => false,
        } || !is_ready(socket));
    }
    touches
}

fn is_ready(socket: &Socket) -> bool {
    let mut fd = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut fd, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

fn send(spec: &PathSpec, to: SocketAddr, len: usize) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(interface) = &spec.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    if let Some(mark) = spec.mark {
        socket.set_mark(mark)?;
    }
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    socket.bind(&SocketAddr::new(spec.source.unwrap_or(any), 0).into())?;
    socket.connect(&to.into())?;
    match socket.send(&vec![0; len]) {
        // A path MTU that became smaller since it was asked for.
        Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {}
        other => drop(other?),
    }
    Ok(socket)
}

/// Longer than the round trip to a router that objects, on most paths.
const OBJECTIONS_WITHIN: Duration = Duration::from_millis(300);
