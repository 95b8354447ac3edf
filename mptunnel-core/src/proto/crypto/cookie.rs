// SPDX-License-Identifier: BSD-2-Clause
//! The body of COOKIE: a 16-byte cookie under XChaCha20-Poly1305, whose 24-byte nonce may be
//! random because the server keeps no counter for a stranger.

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};

use super::aead::{AeadError, TAG_LEN};

/// Bytes. A cookie and its tag.
pub const SEALED_COOKIE_LEN: usize = 32;

/// Encrypts `cookie` under `K_cookie` for the INIT whose mac1 is given, and for no other.
///
/// # Errors
/// None in practice: a cookie is far shorter than what one nonce can seal.
pub fn seal_cookie(
    key: &[u8; 32],
    nonce: &[u8; 24],
    mac1: &[u8; 16],
    cookie: &[u8; 16],
) -> Result<[u8; SEALED_COOKIE_LEN], AeadError> {
    let mut sealed = [0; SEALED_COOKIE_LEN];
    let (body, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(AeadError)?;
    body.copy_from_slice(cookie);
    *tag = XChaCha20Poly1305::new(key.into())
        .encrypt_in_place_detached(nonce.into(), mac1, body)
        .map_err(|_| AeadError)?
        .into();
    Ok(sealed)
}

/// Decrypts what [`seal_cookie`] made.
///
/// # Errors
/// If it was made under another key, for another INIT, or was altered.
pub fn open_cookie(
    key: &[u8; 32],
    nonce: &[u8; 24],
    mac1: &[u8; 16],
    sealed: &[u8; SEALED_COOKIE_LEN],
) -> Result<[u8; 16], AeadError> {
    let (mut cookie, tag) = match (sealed.first_chunk::<16>(), sealed.last_chunk::<TAG_LEN>()) {
        (Some(body), Some(tag)) => (*body, tag),
        _ => return Err(AeadError),
    };
    XChaCha20Poly1305::new(key.into())
        .decrypt_in_place_detached(nonce.into(), mac1, &mut cookie, tag.into())
        .map_err(|_| AeadError)?;
    Ok(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_opens_for_its_own_init_only() {
        let sealed = seal_cookie(&[1; 32], &[2; 24], &[3; 16], &[4; 16]).unwrap();

        assert_eq!(open_cookie(&[1; 32], &[2; 24], &[3; 16], &sealed), Ok([4; 16]));
        assert_eq!(open_cookie(&[0; 32], &[2; 24], &[3; 16], &sealed), Err(AeadError));
        assert_eq!(open_cookie(&[1; 32], &[0; 24], &[3; 16], &sealed), Err(AeadError));
        assert_eq!(open_cookie(&[1; 32], &[2; 24], &[0; 16], &sealed), Err(AeadError));
    }

    #[test]
    fn every_flipped_bit_of_a_sealed_cookie_is_refused() {
        let genuine = seal_cookie(&[1; 32], &[2; 24], &[3; 16], &[4; 16]).unwrap();

        for bit in 0..SEALED_COOKIE_LEN * 8 {
            let mut sealed = genuine;
            sealed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open_cookie(&[1; 32], &[2; 24], &[3; 16], &sealed), Err(AeadError));
        }
    }
}
