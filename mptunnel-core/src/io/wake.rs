// SPDX-License-Identifier: BSD-2-Clause
//! Waking a thread that waits in `poll`, and waiting there.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::{Duration, Instant};

/// A flag that `poll` can wait for: the descriptor is readable while it is set (eventfd(2)).
///
/// Setting it twice is the same as once. Any thread may do anything at any time.
#[derive(Debug)]
pub(crate) struct EventFd {
    file: File,
}

impl EventFd {
    /// Makes one that is not set; non-blocking, closed on `exec`.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE` when descriptors have run out, `ENOMEM`.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: eventfd(2) takes no pointer.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, so nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(EventFd { file: File::from(fd) })
    }

    /// Makes the descriptor readable.
    pub(crate) fn set(&self) {
        // The only possible failure is EAGAIN when the counter is at its maximum: readable already.
        let _ = (&self.file).write(&1u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable, and says whether it was set.
    pub(crate) fn clear(&self) -> bool {
        // Reading takes the counter back to zero in one go, or fails with EAGAIN if it is zero.
        (&self.file).read(&mut [0; 8]).is_ok()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// One descriptor to wait for, and what came of it.
///
/// It does not keep the descriptor open: one that was closed meanwhile is never ready, unless
/// another one took its number.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct PollFd(libc::pollfd);

impl PollFd {
    /// Waits for something to read, or for an error.
    pub(crate) fn readable(fd: &impl AsRawFd) -> Self {
        PollFd(libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 })
    }

    /// Waits for room to write, or for an error.
    pub(crate) fn writable(fd: &impl AsRawFd) -> Self {
        PollFd(libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 })
    }

    /// Whether the last [`poll`] found that a read would not block: data, an error or the end.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.revents & (libc::POLLIN | libc::POLLERR | libc::POLLHUP) != 0
    }

    #[cfg(test)]
    /// Whether the last [`poll`] found no open descriptor behind the number.
    pub(crate) fn is_invalid(&self) -> bool {
        self.0.revents & libc::POLLNVAL != 0
    }
}

/// Waits until one of `fds` is ready, and returns how many are: 0 means that `timeout` passed.
/// `None` waits for ever, zero not at all.
///
/// A signal does not end the wait.
///
/// # Errors
/// `ENOMEM`, or `EINVAL` for more descriptors than `RLIMIT_NOFILE`.
pub(crate) fn poll(fds: &mut [PollFd], timeout: Option<Duration>) -> io::Result<usize> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut left = timeout.filter(|_| deadline.is_some());
    loop {
        match ppoll(fds, left) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            }
            outcome => return outcome,
        }
    }
}

fn ppoll(fds: &mut [PollFd], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        // Below 10^9, which every type of this field holds.
        tv_nsec: timeout.subsec_nanos() as _,
    });
    // SAFETY: ppoll(2), argument by argument.
    let ready = unsafe {
        libc::ppoll(
            // An array of `pollfd`, which `PollFd` is transparent to, borrowed mutably here.
            fds.as_mut_ptr().cast(),
            // Its number of elements.
            fds.len() as libc::nfds_t,
            // NULL for ever, else a `timespec` that outlives the call; raw ppoll would write the
            // rest to it, the C library's does not (ppoll(2), NOTES).
            timeout.as_ref().map_or(ptr::null(), ptr::from_ref),
            // The signal mask stays as it is.
            ptr::null(),
        )
    };
    usize::try_from(ready).map_err(|_| io::Error::last_os_error())
}
