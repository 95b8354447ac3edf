// SPDX-License-Identifier: BSD-2-Clause
//! What the fuzzer runs: one module for each target, with `run`, which takes any bytes, and `seeds`,
//! the inputs to begin with.
//!
//! A body is an ordinary function, and `tests/fuzz_bodies.rs` includes this folder: on every change
//! all of them are compiled, run over their seeds and over some thousand mutations of these. Only
//! the fuzzer itself takes a nightly compiler and libFuzzer.
//!
//! Inputs are scripts ([`script`]): a target reads what to do from the front to the end. Whatever
//! the bytes are, they mean something, and seeds are written by the same calls that read them.
//! Randomness is that of a fixed seed and time is a number, so that an input does the same again.

pub mod config;
pub mod ctrl_frames;
pub mod datagram_client;
pub mod datagram_server;
pub mod fragments;
pub mod init;
pub mod legacy;
pub mod order;
pub mod pace;
pub mod resp;
pub mod two_peers;
pub mod window_ops;

pub mod ends;
pub mod hostile;
pub mod script;
pub mod vectors;

/// A target: its name, what it runs, and the inputs to begin with.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), run: $name::run, seeds: $name::seeds }),*];
    };
}

targets!(
    config,
    ctrl_frames,
    datagram_client,
    datagram_server,
    fragments,
    init,
    legacy,
    order,
    pace,
    resp,
    two_peers,
    window_ops,
);
