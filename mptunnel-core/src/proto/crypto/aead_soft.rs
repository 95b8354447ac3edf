// SPDX-License-Identifier: BSD-2-Clause
//! ChaCha20-Poly1305 by `chacha20poly1305`: portable Rust, always compiled.
//!
//! It is the data plane of builds without the feature `ring`, and the second opinion in tests.
//! Such builds gain about a third with `RUSTFLAGS="--cfg poly1305_force_soft"`, because the AVX2
//! Poly1305 chosen at run time does not pay for messages as short as ours (1,400 bytes: 2.00 µs
//! instead of 2.94 µs, measured as said in `aead_ring`).

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};

use super::aead::{AeadError, Backend, TAG_LEN};

/// A key of the portable backend, wiped when dropped.
pub struct Soft(ChaCha20Poly1305);

impl Backend for Soft {
    const NAME: &'static str = "chacha20poly1305";

    fn new(key: &[u8; 32]) -> Self {
        Soft(ChaCha20Poly1305::new(key.into()))
    }

    #[inline]
    fn seal(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        body: &mut [u8],
    ) -> Result<[u8; TAG_LEN], AeadError> {
        let tag = self.0.encrypt_in_place_detached(nonce.into(), aad, body);
        tag.map(Into::into).map_err(|_| AeadError)
    }

    #[inline]
    fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), AeadError> {
        let opened = self.0.decrypt_in_place_detached(nonce.into(), aad, body, tag.into());
        opened.map_err(|_| AeadError)
    }
}
