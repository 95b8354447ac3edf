// SPDX-License-Identifier: BSD-2-Clause
//! BLAKE2s (RFC 7693): plain for hashing, keyed for MACs, and the comparison of MACs.

use blake2::digest::consts::{U8, U16, U32};
use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};
use subtle::ConstantTimeEq;

/// BLAKE2s-256 of the concatenation of `parts`.
pub fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Blake2s256::new();
    for part in parts {
        Digest::update(&mut hasher, part);
    }
    hasher.finalize().into()
}

/// Keyed BLAKE2s with 8 bytes of output over the concatenation of `parts`.
///
/// The output length is a parameter of BLAKE2s: this is no truncated [`mac16`] or [`mac32`].
/// Keys have 1 to 32 bytes; the compiler refuses others.
pub fn mac8<const K: usize>(key: &[u8; K], parts: &[&[u8]]) -> [u8; 8] {
    keyed::<Blake2sMac<U8>, K>(key, parts).into()
}

/// Keyed BLAKE2s with 16 bytes of output; otherwise as [`mac8`].
pub fn mac16<const K: usize>(key: &[u8; K], parts: &[&[u8]]) -> [u8; 16] {
    keyed::<Blake2sMac<U16>, K>(key, parts).into()
}

/// Keyed BLAKE2s with 32 bytes of output; otherwise as [`mac8`].
pub fn mac32<const K: usize>(key: &[u8; K], parts: &[&[u8]]) -> [u8; 32] {
    keyed::<Blake2sMac<U32>, K>(key, parts).into()
}

/// Whether two MACs are equal, in a time that depends on their length only.
#[must_use]
pub fn verify(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// The first `N` bytes of `digest`.
pub(super) fn prefix<const N: usize>(digest: &[u8; 32]) -> [u8; N] {
    const { assert!(N <= 32, "a digest has 32 bytes") };
    match digest.first_chunk() {
        Some(prefix) => *prefix,
        None => unreachable!("the length of the prefix was checked by the compiler"),
    }
}

fn keyed<M, const K: usize>(key: &[u8; K], parts: &[&[u8]]) -> blake2::digest::Output<M>
where
    M: KeyInit + Update + FixedOutput,
{
    const { assert!(K >= 1 && K <= 32, "BLAKE2s takes keys of 1 to 32 bytes") };
    let Ok(mut mac) = M::new_from_slice(key) else {
        unreachable!("the length of the key was checked by the compiler");
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize_fixed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_abc_is_that_of_rfc_7693() {
        let expected = [
            0x50, 0x8c, 0x5e, 0x8c, 0x32, 0x7c, 0x14, 0xe2, 0xe1, 0xa7, 0x2b, 0xa3, 0x4e, 0xeb,
            0x45, 0x2f, 0x37, 0x45, 0x8b, 0x20, 0x9e, 0xd6, 0x3a, 0x29, 0x4d, 0x99, 0x9b, 0x4c,
            0x86, 0x67, 0x59, 0x82,
        ];

        assert_eq!(hash(&[b"abc"]), expected);
        assert_eq!(hash(&[b"a", b"", b"bc"]), expected);
    }

    #[test]
    fn the_output_length_is_a_parameter_and_not_a_truncation() {
        let (key, message) = ([1; 32], [b"message".as_slice()]);

        assert_ne!(mac16(&key, &message), mac32(&key, &message)[..16]);
        assert_ne!(mac8(&key, &message), mac16(&key, &message)[..8]);
    }

    #[test]
    fn a_short_key_is_not_the_same_as_its_padding() {
        let (short, mut padded) = ([1; 16], [0; 32]);
        padded[..16].copy_from_slice(&short);

        assert_ne!(mac16(&short, &[b"m"]), mac16(&padded, &[b"m"]));
    }

    #[test]
    fn verify_compares_every_byte_and_the_length() {
        let mac = mac16(&[1; 32], &[b"m"]);

        assert!(verify(&mac, &mac.clone()));
        assert!(!verify(&mac, &mac[..15]));
        for i in 0..mac.len() {
            let mut other = mac;
            other[i] ^= 0x80;
            assert!(!verify(&mac, &other), "byte {i}");
        }
    }
}
