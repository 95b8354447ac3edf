// SPDX-License-Identifier: BSD-2-Clause
//! Why a call did not do what was asked.

use std::io;
use std::time::Duration;

/// Why a call on a [`Tunnel`](crate::Tunnel) or a [`Server`](crate::Server) did not do what was
/// asked. What belongs to a path or a peer comes as an [`Event`](crate::Event) instead, and what
/// the network sent amiss is a counter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing happened within the caller's timeout. The endpoint is still usable.
    #[error("timed out after {0:?}")]
    TimedOut(Duration),
    /// Nothing is there now, and the caller did not want to wait; or every path's socket is full.
    #[error("the call would have to wait")]
    WouldBlock,
    /// Another thread asked the waiting ones to return. The endpoint is still usable.
    #[error("interrupted")]
    Interrupted,
    /// The datagram is longer than both ends accept. Nothing was sent.
    #[error("a datagram of {len} bytes exceeds the maximum of {max} bytes")]
    PayloadTooLarge {
        /// Its length in bytes.
        len: usize,
        /// The most that can be sent, in bytes.
        max: usize,
    },
    /// The next datagram is longer than the buffer. It is kept: call again with a larger one.
    #[error("the datagram has {len} bytes, the buffer holds {capacity}")]
    BufferTooSmall {
        /// Length of the datagram in bytes.
        len: usize,
        /// Length of the buffer in bytes.
        capacity: usize,
    },
    /// There is no session yet, or not any more: nothing was sent. Attempts go on by themselves.
    #[error("not connected: {0}")]
    NotConnected(String),
    /// No path is usable now: nothing was sent. Paths are tried again by themselves.
    #[error("no path is usable")]
    NoPath,
    /// No such peer is connected.
    #[error("no peer {0} is connected")]
    UnknownPeer(crate::PeerId),
    /// No such path.
    #[error("there is no path {0}")]
    UnknownPath(crate::PathId),
    /// The server refused this client. The text says why and what to do.
    #[error("refused: {0}")]
    Refused(String),
    /// The endpoint was closed, by this side or for good by the other.
    #[error("the endpoint is closed")]
    Closed,
    /// The endpoint was inherited through `fork`: open a new one in the child.
    #[error("the endpoint belongs to the parent process: open a new one after fork")]
    Forked,
    /// The endpoint broke an invariant of its own and stopped. Others are not affected; please
    /// report it.
    #[error("the endpoint failed: {0}")]
    Failed(String),
    /// This kind of endpoint cannot do that, for the reason in the text.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A setting is wrong, missing or does not go with another.
    #[error("{0}")]
    Config(String),
    /// The system refused an operation for good.
    #[error("{op}")]
    Io {
        /// What was tried, and on what.
        op: String,
        /// What the system answered.
        source: io::Error,
    },
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        use io::ErrorKind as Kind;
        let kind = match &error {
            Error::TimedOut(_) => Kind::TimedOut,
            Error::WouldBlock => Kind::WouldBlock,
            Error::Interrupted => Kind::Interrupted,
            Error::PayloadTooLarge { .. }
            | Error::BufferTooSmall { .. }
            | Error::Config(_)
            | Error::UnknownPath(_) => Kind::InvalidInput,
            Error::NotConnected(_) | Error::UnknownPeer(_) | Error::Closed => Kind::NotConnected,
            Error::NoPath => Kind::NetworkUnreachable,
            Error::Refused(_) => Kind::ConnectionRefused,
            Error::Io { source, .. } => source.kind(),
            Error::Unsupported(_) => Kind::Unsupported,
            Error::Forked | Error::Failed(_) => Kind::Other,
        };
        io::Error::new(kind, error)
    }
}
