// SPDX-License-Identifier: BSD-2-Clause
//! The protocol `mptunnel/1` as pure state machines: no socket, no thread, no clock, no randomness
//! of its own. `PROTOCOL.md` is the text that this module implements.

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

pub mod admission;
pub mod arrivals;
pub mod budget;
pub mod client;
pub mod config;
pub mod crypto;
pub mod dataplane;
pub mod drop;
pub mod entropy;
pub mod event;
pub mod fragment;
pub mod frame;
pub mod health;
pub mod learn;
pub mod limit;
pub mod losses;
pub mod pace;
pub mod pmtu;
pub mod probe;
pub mod reorder;
pub mod replay;
pub mod route;
pub mod sched;
pub mod server;
pub mod session;
pub mod throttle;
pub mod time;
pub mod view;
pub mod wire;

mod codec;
pub(crate) mod num;
