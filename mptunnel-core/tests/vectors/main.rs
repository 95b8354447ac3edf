// SPDX-License-Identifier: BSD-2-Clause
//! The cryptography against fixed vectors: our own, byte for byte as PROTOCOL.md prints them, and
//! the published ones of the primitives and of Noise. `vectors.py`, beside this directory, checks
//! our own a second time without any of this code.

mod aead;
mod block;
mod cacophony;
mod dh;
mod handshakes;
mod ours;
