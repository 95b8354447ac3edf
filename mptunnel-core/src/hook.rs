// SPDX-License-Identifier: BSD-2-Clause
//! What a host does to every socket before it is used.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Sees every new socket before it is bound and connected, and may refuse it: for what a host has
/// to do to sockets (`VpnService.protect` on Android, `SO_MARK`, `SO_BINDTODEVICE`).
///
/// It gets the descriptor, which stays the library's, and words that say what the socket is for: at
/// a client those of the path, at a server `listen=ADDR:PORT`. An error keeps the socket from being
/// used: a path waits and tries again, a server does not start.
///
/// A client calls it on its thread for paths, whenever a path gets a socket, or when it asks the
/// system by which address it would send now; so it must not wait long.
#[derive(Clone)]
pub struct SocketHook(Arc<Hook>);

type Hook = dyn Fn(BorrowedFd<'_>, &str) -> io::Result<()> + Send + Sync;

impl SocketHook {
    /// A hook that calls `hook`.
    pub fn new(
        hook: impl Fn(BorrowedFd<'_>, &str) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        SocketHook(Arc::new(hook))
    }

    pub(crate) fn call(
        hook: Option<&SocketHook>,
        fd: BorrowedFd<'_>,
        words: &str,
    ) -> io::Result<()> {
        hook.map_or(Ok(()), |hook| (hook.0)(fd, words))
    }
}

impl fmt::Debug for SocketHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SocketHook")
    }
}
