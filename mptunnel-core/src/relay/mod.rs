// SPDX-License-Identifier: BSD-2-Clause
//! The two relays behind `mpclient` and `mpserver`: they carry any UDP application, without its
//! knowing, over a [`Tunnel`](crate::Tunnel).
//!
//! ```text
//!   applications ── ClientRelay ──── Tunnel ═══ paths ═══ Server ──── ServerRelay ── target
//!     (one flow each)                                           (one socket for each flow)
//! ```
//!
//! A *flow* is one application at the client's end: one source address. It has a number from 1 to
//! 65,534 within its client, and a socket of its own towards the target, so that replies find the
//! way back. Flows begin with their first datagram and end when nothing passes for `flow-timeout`.
//!
//! No datagram is handed from one thread to another: what comes from the tunnel leaves on the
//! thread that received it, and so does what comes from the applications.

mod client;
mod collect;
mod server;

pub use client::{ClientRelay, ClientRelayConfig};
pub use server::{ServerRelay, ServerRelayConfig};

use std::time::Duration;

/// The highest flow number: 0 is the library's own, 65,535 means the whole session.
const MAX_FLOW: u16 = 0xfffe;
/// How often flows are looked at for having ended.
const SWEEP: Duration = Duration::from_secs(1);
/// How long closing waits for a relay's thread.
const JOIN_WITHIN: Duration = Duration::from_secs(2);

/// What a relay has carried. Monotonic.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct RelayStats {
    /// Flows open now.
    pub flows: usize,
    /// Flows refused because a limit was reached.
    pub flows_refused: u64,
    /// Datagrams from the applications (client) or the target (server).
    pub to_tunnel: u64,
    /// Datagrams to the applications (client) or the target (server).
    pub from_tunnel: u64,
    /// Datagrams of either direction that could not be passed on.
    pub dropped: u64,
    /// Arrivals that the kernel dropped because the receive buffer of a socket towards the
    /// applications (client) or the target (server) was full; a run of datagrams that arrived
    /// together counts once.
    pub kernel_dropped: u64,
}
