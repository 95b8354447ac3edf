// SPDX-License-Identifier: BSD-2-Clause
//! Any Unix: one datagram in each call.

use std::io::{self, IoSlice, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::Socket;

use super::{Ready, Received, Target};

/// Room for what one system call receives.
pub struct Batch {
    memory: Vec<u8>,
    filled: Option<(SocketAddr, usize)>,
}

impl Batch {
    /// Room for one datagram.
    pub fn new() -> Self {
        Batch { memory: vec![0; 64 << 10], filled: None }
    }

    /// Receives a datagram that waits at the socket; true because there may be more.
    pub fn receive(&mut self, socket: &Socket) -> io::Result<bool> {
        self.filled = None;
        let from = socket.peek_sender()?;
        let from = from.as_socket().ok_or(io::ErrorKind::InvalidData)?;
        let len = (&*socket).read(&mut self.memory)?;
        self.filled = Some((from, len));
        Ok(true)
    }

    /// What the last call received.
    pub fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        self.filled.iter().map(|&(from, len)| Received {
            from,
            local: None,
            bytes: &self.memory[..len],
            segment: len,
        })
    }
}

/// Sends one datagram. Several in one call are refused, so that the caller sends them singly.
pub fn transmit(
    socket: &Socket,
    datagrams: &[IoSlice<'_>],
    _segment: usize,
    target: Option<&Target>,
) -> io::Result<()> {
    let [datagram] = datagrams else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    match target {
        Some(target) => socket.send_to(datagram, &target.to.into())?,
        None => socket.send(datagram)?,
    };
    Ok(())
}

/// Without effect here: the system chooses the source address of an answer.
#[cfg(not(target_os = "linux"))]
pub fn report_local_addresses(_socket: &Socket, _ipv6: bool) -> io::Result<()> {
    Ok(())
}

/// Without effect here.
#[cfg(not(target_os = "linux"))]
pub fn join_received(_socket: &Socket) {}

/// Many sockets; without effect here, all are looked at in each wait.
pub struct Watch;

impl Watch {
    /// Cannot fail here.
    pub fn new() -> io::Result<Self> {
        Ok(Watch)
    }

    /// Cannot fail here.
    pub fn add(&self, _socket: &Socket, _id: u64) -> io::Result<()> {
        Ok(())
    }

    /// Waits until a source or a socket can be read, a signal arrives, or the timeout has passed.
    /// `sockets` are those that were added and live.
    pub fn wait<'a>(
        &self,
        sources: &[BorrowedFd<'_>],
        sockets: impl Iterator<Item = (u64, &'a Socket)>,
        timeout: Option<Duration>,
    ) -> io::Result<Ready> {
        let (ids, sockets): (Vec<u64>, Vec<BorrowedFd<'_>>) =
            sockets.map(|(id, socket)| (id, socket.as_fd())).unzip();
        let mut fds: Vec<PollFd<'_>> = sources
            .iter()
            .chain(&sockets)
            .map(|&source| PollFd::new(source, PollFlags::POLLIN))
            .collect();
        // Rounded up to milliseconds: too early would be a loop that does not sleep.
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            PollTimeout::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(false));
        Ok(Ready {
            sources: ready.by_ref().take(sources.len()).collect(),
            sockets: ids
                .into_iter()
                .zip(ready)
                .filter(|(_, ready)| *ready)
                .map(|(id, _)| id)
                .collect(),
        })
    }
}
