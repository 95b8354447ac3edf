// SPDX-License-Identifier: BSD-2-Clause
//! ChaCha20-Poly1305 by `ring`: assembly, about 3.5 times as fast at 1,400 bytes as the portable
//! backend (0.82 µs against 2.94 µs, measured on one core of a 2-core AMD EPYC VM).

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};

use super::aead::{AeadError, Backend, TAG_LEN};

/// A key expanded by `ring`, which does not promise to wipe it when dropped.
pub struct Ring(LessSafeKey);

impl Backend for Ring {
    const NAME: &'static str = "ring";

    fn new(key: &[u8; 32]) -> Self {
        match UnboundKey::new(&CHACHA20_POLY1305, key) {
            Ok(key) => Ring(LessSafeKey::new(key)),
            Err(_) => unreachable!("a ChaCha20-Poly1305 key has 32 bytes"),
        }
    }

    #[inline]
    fn seal(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        body: &mut [u8],
    ) -> Result<[u8; TAG_LEN], AeadError> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), body);
        tag.ok().and_then(|tag| tag.as_ref().first_chunk().copied()).ok_or(AeadError)
    }

    #[inline]
    fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), AeadError> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened =
            self.0.open_in_place_separate_tag(nonce, Aad::from(aad), Tag::from(*tag), body, 0..);
        opened.map(|_| ()).map_err(|_| AeadError)
    }
}
