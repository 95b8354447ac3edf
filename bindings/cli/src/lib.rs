// SPDX-License-Identifier: BSD-2-Clause
//! What the programs mpclient, mpserver and mptunnel have in common. Their `main` functions are
//! thin; everything that can be tested without starting a process is here.

#![forbid(unsafe_code)]

pub mod args;
pub mod bridge;
pub mod change;
pub mod client;
pub mod config;
pub mod control;
mod counters;
pub mod demo;
pub mod doctor;
pub mod exit;
pub mod keygen;
pub mod keys;
mod legacy;
pub mod log;
pub mod manual;
pub mod ping;
mod program;
mod reload;
mod repeats;
pub mod server;
pub mod status;
mod target;
mod terminal;
mod time;
