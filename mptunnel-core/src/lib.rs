// SPDX-License-Identifier: BSD-2-Clause
//! An embeddable multipath UDP socket.
//!
//! An application opens one endpoint over several paths (links, interfaces, relays). Each datagram
//! goes over all of them, or over those that a policy picks; it is encrypted once; copies are
//! removed at the far end; broken paths heal; either side may be restarted at any time.
//!
//! - [`Tunnel`] is the client's end, [`Server`] the other one. Both block, with timeouts, and offer
//!   one descriptor for any event loop. There is no runtime, no global state and no start-up call.
//! - Errors come in three kinds that never mix: a call failed ([`Error`]); the network sent rubbish
//!   (a counter in [`Stats`]); the library broke an invariant of its own (that endpoint answers
//!   [`Error::Failed`], others live on).
//! - [`options`] is the one table of settings that all languages and programs share.
//!
//! The wire protocol is described in `PROTOCOL.md`, what it promises in `SECURITY.md`.
//!
//! # Logging
//!
//! Through `log`, with targets `mptunnel::…`; the library never prints and installs no logger.

mod endpoint;
mod error;
mod event;
mod handler;
mod hook;
mod inbox;
mod interrupt;
mod io;
pub mod keyfile;
#[doc(hidden)]
pub mod legacy;
pub mod log_context;
pub mod options;
#[doc(hidden)]
pub mod proto;
pub mod relay;
mod sending;
mod server;
mod setup;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod sim;
mod snapshot;
mod stats;
mod sync;
mod trend;
mod tunnel;

pub use endpoint::{Config, Endpoint};
pub use error::Error;
pub use event::Event;
pub use handler::{Handler, Source};
pub use hook::SocketHook;
pub use inbox::{Arrival, Datagram, Slot};
pub use interrupt::Attempts;
pub use io::fork::ForkGuard;
pub use proto::event::{PathId, PeerId};
pub use sending::SendOptions;
pub use server::{PeerHandle, Server, ServerBuilder, ServerSender};
pub use snapshot::{Snapshot, errno_name};
pub use stats::{
    Losses, Lost, OrderCounts, PairInfo, PathInfo, PathState, PeerInfo, Quality, Queue,
    SessionInfo, Span, Stats, Traffic, Worth,
};
use std::time::Duration;
pub use tunnel::{ProbeAnswer, Tunnel, TunnelBuilder, TunnelSender};

/// The clock of this library: time since the system was started, in which suspend counts
/// (`CLOCK_BOOTTIME`). Never decreases. For comparing with the [time](Arrival::time) of an arrival.
pub fn clock() -> Duration {
    Duration::from_micros(io::clock::now().as_micros())
}
