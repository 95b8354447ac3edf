// SPDX-License-Identifier: BSD-2-Clause
//! Sockets, wake-ups, the clock and the operating system's randomness: everything that touches the
//! kernel, and the only unsafe code of the crate.
//!
//! # Why own system calls
//!
//! A library for UDP offloads exists (`quinn-udp`), but it makes every socket non-blocking, so a
//! thread that serves one socket has to call `poll` before each read. A blocking batched read
//! (`recvmmsg` with `MSG_WAITFORONE`) needs no `poll`: measured with three paths at 5,000
//! datagrams/s, 50 µs against 66.7 µs of CPU per datagram. Runs of equal packets sent with
//! `UDP_SEGMENT` and taken with `UDP_GRO` are worth a factor of 5 to 6 over one call per datagram.
//!
//! Sockets here are blocking, and each call says whether it waits (`MSG_DONTWAIT`), so a blocking
//! reader and a sender that never waits share one socket.
//!
//! # Locks
//!
//! The queues' locks are leaves: nothing else is locked, and no code of a caller runs, while one is
//! held, except that a queue informs [`queue::Readiness`] of its transitions:
//!
//! ```text
//! DeliveryQueue ─┐
//!                ├─> Readiness (writes the eventfd)
//! EventQueue ────┘
//! ```
//!
//! The eventfd is written under these locks, because only then is it readable exactly while there
//! is something to take. It never blocks: it is non-blocking, and its counter is 0 or 1.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "clocks, threads and sockets are banned so that they are found here and nowhere else"
)]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "mptunnel-core runs on Linux only so far: src/io needs recvmmsg, sendmmsg, UDP_SEGMENT, \
     UDP_GRO, SO_REUSEPORT, eventfd and MADV_WIPEONFORK. A port provides these modules for its system."
);

pub(crate) mod client;
pub(crate) mod clock;
mod control;
pub(crate) mod entropy;
pub(crate) mod epoll;
pub(crate) mod errors;
pub(crate) mod fork;
pub(crate) mod legacy;
pub(crate) mod order;
pub(crate) mod outgoing;
pub(crate) mod pacing;
pub(crate) mod paths;
pub(crate) mod queue;
pub(crate) mod recv;
pub(crate) mod room;
pub(crate) mod run;
pub(crate) mod send;
pub(crate) mod server;
pub(crate) mod socket;
mod sys;
pub(crate) mod thread;
pub(crate) mod wake;
mod wire;

#[cfg(test)]
mod tests;
