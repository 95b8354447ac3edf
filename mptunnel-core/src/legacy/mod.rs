// SPDX-License-Identifier: BSD-2-Clause
//! The wire format of the classic mptunnel, for talking to one end that was not replaced yet.
//!
//! Asked for by name (`protocol = legacy`) and never entered because of what arrives. It has no key
//! and no handshake: **whoever can send a datagram to an end of it can read, forge and disturb what
//! it carries.** `LEGACY.md`, in this folder, describes the format and our behaviour.
//!
//! ```text
//!   codec ── keystream          bytes of one datagram: header, optional obfuscation
//!   window ── receiver          each id once; a peer that counts anew is followed
//!   counter                     our ids, which go on where they stopped
//!   client                      source ports: announced, kept alive, changed in time
//!   server                      sources: learned, told that we live, forgotten
//! ```
//!
//! No socket, no thread and no clock is in here: `io::legacy` has them. The machines are told what
//! happened and when; afterwards their actions are taken until there is none, and
//! [`Client::poll_timeout`] or [`Server::poll_timeout`] says when to call again.

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions
    )
)]

mod client;
mod codec;
mod counter;
mod keystream;
mod receiver;
mod server;
mod timers;
mod usage;
mod window;

pub use client::{Action, Client};
pub use codec::{HEADER_LEN, Kind, MAX_PAYLOAD, Opened, ctl, open, seal};
pub use counter::{BLOCK, Counter, LAST, NEAR_THE_END, Refusal};
pub use keystream::Keystream;
pub use receiver::{Arrival, Receiver, Run};
pub use server::{MAX_SOURCES, News, Remote, Server};
pub use timers::Timers;
pub use usage::Usage;
pub use window::{Place, SMALLEST_WINDOW, Window};
