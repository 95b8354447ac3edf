// SPDX-License-Identifier: BSD-2-Clause
//! The ciphers of packets as the data plane uses them: in place, detached tag, and a nonce that is
//! the packet number. ChaCha20-Poly1305 (RFC 8439) everywhere, AES-256-GCM where `ring` is.

use super::cipher::Cipher;

/// Bytes. The Poly1305 tag that follows every sealed body.
pub const TAG_LEN: usize = 16;

/// The key of one direction of one session, on the backend that this build prefers.
pub type AeadKey = SealingKey<Preferred>;

/// The name of the crate behind [`AeadKey`] in this build, for `mpt_build_info` and logs.
pub const BACKEND: &str = Preferred::NAME;

#[cfg(feature = "ring")]
type Preferred = super::aead_ring::Ring;
#[cfg(not(feature = "ring"))]
type Preferred = super::aead_soft::Soft;

/// A packet did not verify, or a body exceeds what one nonce can seal (256 GiB).
///
/// Says no more, so that nobody learns from it why.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the packet does not verify")]
pub struct AeadError;

/// One implementation of an AEAD with keys of 32 bytes and nonces of 12. All implementations of
/// ChaCha20-Poly1305 give the same bytes.
///
/// The nonce is raw here so that published vectors can be tested; the protocol goes through
/// [`SealingKey`], which makes it from the packet number.
pub trait Backend: Send + Sync {
    /// The crate that does the work.
    const NAME: &'static str;

    /// Expands `key` for ChaCha20-Poly1305.
    fn new(key: &[u8; 32]) -> Self;

    /// Encrypts `body` in place and returns the tag over `aad` and `body`.
    fn seal(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        body: &mut [u8],
    ) -> Result<[u8; TAG_LEN], AeadError>;

    /// Verifies `tag` over `aad` and `body`, and only then decrypts `body` in place.
    fn open(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), AeadError>;
}

/// The key of one direction of one session. It has neither `Debug` nor `Clone`.
///
/// Both calls take `&self` and allocate nothing: threads share a key without a lock. Whoever
/// seals must never use a packet number twice; this type cannot see that.
pub struct SealingKey<B>(B);

impl AeadKey {
    /// Expands `key` for `cipher`.
    pub fn of(cipher: Cipher, key: &[u8; 32]) -> Self {
        match cipher {
            Cipher::ChaCha20Poly1305 => Self::new(key),
            #[cfg(feature = "ring")]
            Cipher::Aes256Gcm => SealingKey(Preferred::aes_256_gcm(key)),
        }
    }
}

impl<B: Backend> SealingKey<B> {
    /// Expands `key` for ChaCha20-Poly1305.
    pub fn new(key: &[u8; 32]) -> Self {
        SealingKey(B::new(key))
    }

    /// Encrypts `body` in place as packet `pn` and returns its tag. `aad` is authenticated only.
    ///
    /// With an empty `body` the tag authenticates `aad` alone: that is DATA_CLEAR.
    ///
    /// # Errors
    /// If `body` exceeds 256 GiB, which no datagram does.
    #[inline]
    pub fn seal_in_place(
        &self,
        pn: u64,
        aad: &[u8],
        body: &mut [u8],
    ) -> Result<[u8; TAG_LEN], AeadError> {
        self.0.seal(&nonce(pn), aad, body)
    }

    /// Opens packet `pn` in place and returns the plaintext, `TAG_LEN` bytes shorter than
    /// `body_and_tag`.
    ///
    /// # Errors
    /// If the tag does not verify, or there is none. What is left in the buffer is then
    /// unspecified (`ring` wipes it): the same bytes cannot be tried with another key.
    #[inline]
    pub fn open_in_place<'a>(
        &self,
        pn: u64,
        aad: &[u8],
        body_and_tag: &'a mut [u8],
    ) -> Result<&'a mut [u8], AeadError> {
        let (body, tag) = body_and_tag.split_last_chunk_mut::<TAG_LEN>().ok_or(AeadError)?;
        self.0.open(&nonce(pn), aad, body, tag)?;
        Ok(body)
    }
}

/// Four zero bytes and `pn` in little-endian order (PROTOCOL.md, "The packet"): the layout that
/// Noise uses for its own messages.
#[inline]
fn nonce(pn: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    if let Some(low) = nonce.last_chunk_mut::<8>() {
        *low = pn.to_le_bytes();
    }
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn each_cipher() -> impl Iterator<Item = Cipher> {
        [Some(Cipher::ChaCha20Poly1305), Cipher::AES].into_iter().flatten()
    }

    fn sealed(cipher: Cipher, pn: u64, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut packet = plain.to_vec();
        let tag = AeadKey::of(cipher, &KEY).seal_in_place(pn, aad, &mut packet).unwrap();
        packet.extend_from_slice(&tag);
        packet
    }

    #[test]
    fn the_nonce_is_four_zero_bytes_and_the_number_in_little_endian() {
        assert_eq!(nonce(0x0102_0304_0506_0708), [0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
    }

    #[test]
    fn what_was_sealed_opens_to_the_same_bytes() {
        for cipher in each_cipher() {
            for len in [0, 1, 15, 16, 17, 63, 64, 65, 1400, 65_507] {
                let plain: Vec<u8> = (0..len).map(|i| i as u8).collect();
                let mut packet = sealed(cipher, 9, b"head", &plain);

                let key = AeadKey::of(cipher, &KEY);
                let opened = key.open_in_place(9, b"head", &mut packet).unwrap();

                assert_eq!(opened, plain, "{cipher}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        for cipher in each_cipher() {
            let key = AeadKey::of(cipher, &KEY);
            let genuine = sealed(cipher, 9, b"head", b"some payload");
            let refuses = |mut packet: Vec<u8>, what: &str| {
                let opened = key.open_in_place(9, b"head", &mut packet);
                assert_eq!(opened, Err(AeadError), "{cipher}: {what}");
            };

            for bit in 0..genuine.len() * 8 {
                let mut packet = genuine.clone();
                packet[bit / 8] ^= 1 << (bit % 8);
                refuses(packet, &format!("bit {bit}"));
            }
            for len in 0..genuine.len() {
                refuses(genuine[..len].to_vec(), &format!("len {len}"));
            }
        }
    }

    #[test]
    fn another_number_header_key_or_cipher_does_not_open() {
        for cipher in each_cipher() {
            let genuine = sealed(cipher, 9, b"head", b"some payload");
            let key = AeadKey::of(cipher, &KEY);
            let refuses = |key: &AeadKey, pn, head: &[u8]| {
                assert!(key.open_in_place(pn, head, &mut genuine.clone()).is_err(), "{cipher}");
            };

            refuses(&key, 10, b"head");
            refuses(&key, 9 + (1 << 32), b"head");
            refuses(&key, 9, b"heae");
            refuses(&AeadKey::of(cipher, &[8; 32]), 9, b"head");
            for other in each_cipher().filter(|other| *other != cipher) {
                refuses(&AeadKey::of(other, &KEY), 9, b"head");
            }
        }
    }

    #[test]
    fn an_empty_body_authenticates_the_header_alone() {
        for cipher in each_cipher() {
            let key = AeadKey::of(cipher, &KEY);
            let mut tag = key.seal_in_place(3, b"readable", &mut []).unwrap();

            assert!(key.open_in_place(3, b"readablf", &mut tag.clone()).is_err(), "{cipher}");
            assert!(key.open_in_place(3, b"readable", &mut tag).unwrap().is_empty(), "{cipher}");
        }
    }

    #[test]
    fn four_keys_fit_the_memory_budget_of_a_session() {
        // PROTOCOL.md, "Sessions and memory": 3 KiB for two sessions of two directions each.
        assert!(4 * size_of::<AeadKey>() <= 3 * 1024, "{}", size_of::<AeadKey>());
    }
}
