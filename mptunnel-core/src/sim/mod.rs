// SPDX-License-Identifier: BSD-2-Clause
//! Networks made of numbers: a seeded emulator of links in virtual time.
//!
//! Nothing here opens a socket or reads a clock. The simulator advances time by hand; `mptunnel
//! bridge` feeds the same [`link::Link`] with real time and real datagrams.

pub mod link;
pub mod rng;
pub mod schedule;
pub mod world;
