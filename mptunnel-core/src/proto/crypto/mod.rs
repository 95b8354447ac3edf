// SPDX-License-Identifier: BSD-2-Clause
//! The cryptography of `mptunnel/1`: sealing packets, the handshake, and everything derived from
//! a key.
//!
//! Each file holds one thing and names the crate that does the work. Only `noise` knows `snow`,
//! only `aead_ring` knows `ring`: either can be replaced without touching the protocol. Nothing
//! here draws randomness by itself; it is an argument, so that a seeded run is reproducible.

mod aead;
#[cfg(feature = "ring")]
mod aead_ring;
mod aead_soft;
mod cipher;
mod cookie;
mod keys;
pub mod mac;
mod noise;
mod secret;

pub use aead::{AeadError, AeadKey, BACKEND, Backend, SealingKey, TAG_LEN};
#[cfg(feature = "ring")]
pub use aead_ring::Ring;
pub use aead_soft::Soft;
pub use cipher::{Cipher, UNIT};
pub use cookie::{SEALED_COOKIE_LEN, open_cookie, seal_cookie};
pub use keys::{KeyError, KeySet, Psk, PublicKey, StaticSecret, mac1_key_of};
pub use mac::{hash, mac8, mac16, mac32, verify};
pub use noise::{
    Initiator, InitiatorKeys, NoiseError, Responder, ResponderKeys, SplitKeys, is_low_order,
};
pub use secret::Secret;
