// SPDX-License-Identifier: BSD-2-Clause
//! Waiting for one of many sockets at a cost that does not grow with their number.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// A set of descriptors to wait for, each with a number of the caller's (epoll(7)).
#[derive(Debug)]
pub(crate) struct Epoll {
    fd: OwnedFd,
}

/// The numbers of the descriptors that became readable; used again for every wait.
pub(crate) struct Ready {
    events: Vec<libc::epoll_event>,
    len: usize,
}

impl Ready {
    /// Room for `capacity` descriptors at once; more come with the next wait.
    pub(crate) fn new(capacity: usize) -> Self {
        Ready { events: vec![libc::epoll_event { events: 0, u64: 0 }; capacity.max(1)], len: 0 }
    }

    /// The numbers that the last wait found.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.events[..self.len].iter().map(|event| event.u64)
    }
}

impl Epoll {
    /// An empty set.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE` when descriptors have run out, `ENOMEM`.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1(2) takes no pointer.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, so nobody else owns it.
        Ok(Epoll { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Waits for `socket` too. It leaves the set by being closed. Level-triggered.
    ///
    /// # Errors
    /// `ENOSPC` (`fs.epoll.max_user_watches`), `ENOMEM`.
    pub(crate) fn add(&self, socket: &impl AsRawFd, number: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: number };
        // SAFETY: epoll_ctl(2): both descriptors are open, and the event is a live local that the
        // kernel only reads.
        let status = unsafe {
            libc::epoll_ctl(
                self.fd.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                socket.as_raw_fd(),
                &raw mut event,
            )
        };
        if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits until something is readable, or `timeout` has passed, or a signal came.
    ///
    /// # Errors
    /// None for a set that lives.
    pub(crate) fn wait(&self, ready: &mut Ready, timeout: Duration) -> io::Result<()> {
        let ms = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: epoll_wait(2): the array is borrowed mutably and as long as we say.
        let found = unsafe {
            libc::epoll_wait(
                self.fd.as_raw_fd(),
                ready.events.as_mut_ptr(),
                ready.events.len() as libc::c_int,
                ms,
            )
        };
        ready.len = usize::try_from(found).unwrap_or(0);
        match io::Error::last_os_error() {
            error if found < 0 && error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}
