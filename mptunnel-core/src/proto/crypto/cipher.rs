// SPDX-License-Identifier: BSD-2-Clause
//! The ciphers of packets: their names, the keys they take, and how much one key may seal
//! (PROTOCOL.md, "Ciphers").

use super::mac::mac32;
use super::secret::Secret;
use crate::proto::wire::PN_LIMIT;

/// What seals the packets of a session. Handshakes use ChaCha20-Poly1305 whatever this is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Cipher {
    /// RFC 8439. Every build has it, and without AES in hardware it is the faster one.
    ChaCha20Poly1305,
    /// NIST SP 800-38D with a key of 32 bytes and a nonce of 12. In builds with the feature `ring`
    /// only.
    #[cfg(feature = "ring")]
    Aes256Gcm,
}

impl Cipher {
    /// AES-256-GCM, in a build that has it.
    #[cfg(feature = "ring")]
    pub const AES: Option<Cipher> = Some(Cipher::Aes256Gcm);
    /// AES-256-GCM, in a build that has it.
    #[cfg(not(feature = "ring"))]
    pub const AES: Option<Cipher> = None;

    /// Its name in statistics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
            #[cfg(feature = "ring")]
            Cipher::Aes256Gcm => "aes-256-gcm",
        }
    }

    /// The key of CTRL and DATA in the direction of `direction_key`, which is one of the handshake.
    ///
    /// Each cipher has its own: no key is ever used in two.
    pub fn packet_key(self, direction_key: &Secret<32>) -> Secret<32> {
        match self {
            Cipher::ChaCha20Poly1305 => Secret::new(*direction_key.expose()),
            #[cfg(feature = "ring")]
            Cipher::Aes256Gcm => derived(direction_key, b"mpt1 aes-256-gcm"),
        }
    }

    /// The key of DATA_CLEAR in the direction of `direction_key`. It is none of
    /// [`packet_key`](Self::packet_key): a packet of one mode never verifies in the other.
    pub fn clear_key(self, direction_key: &Secret<32>) -> Secret<32> {
        match self {
            Cipher::ChaCha20Poly1305 => derived(direction_key, b"mpt1 clear"),
            #[cfg(feature = "ring")]
            Cipher::Aes256Gcm => derived(direction_key, b"mpt1 aes-256-gcm clear"),
        }
    }

    /// What one key may seal, in units of at most [`UNIT`] bytes: at this many it seals nothing
    /// more.
    ///
    /// For AES-GCM the advantage of who tells 2^35 encrypted blocks from noise is 2^-57
    /// (RFC 9001, appendix B.1). A unit is at most 128 blocks, with that of the tag.
    pub const fn limit(self) -> u64 {
        match self {
            Cipher::ChaCha20Poly1305 => PN_LIMIT,
            #[cfg(feature = "ring")]
            Cipher::Aes256Gcm => 1 << 28,
        }
    }

    /// The units after which the client makes new keys: early enough that none is refused while it
    /// does.
    pub const fn rekey_after(self) -> u64 {
        match self {
            Cipher::ChaCha20Poly1305 => 1 << 60,
            #[cfg(feature = "ring")]
            Cipher::Aes256Gcm => 1 << 27,
        }
    }

    /// Whether [`limit`](Self::limit) is one of bytes as well, and not of packets alone.
    pub const fn counts_bytes(self) -> bool {
        match self {
            Cipher::ChaCha20Poly1305 => false,
            #[cfg(feature = "ring")]
            Cipher::Aes256Gcm => true,
        }
    }
}

impl std::fmt::Display for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Bytes of plaintext and tag that count as one packet towards the limit of a key.
pub const UNIT: usize = 2_048;

fn derived(direction_key: &Secret<32>, label: &[u8]) -> Secret<32> {
    Secret::new(mac32(direction_key.expose(), &[label]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_ciphers_or_modes_share_a_key() {
        let direction = Secret::new([7; 32]);
        let mut keys = Vec::new();
        for cipher in [Some(Cipher::ChaCha20Poly1305), Cipher::AES].into_iter().flatten() {
            keys.push(*cipher.packet_key(&direction).expose());
            keys.push(*cipher.clear_key(&direction).expose());
        }

        for (n, key) in keys.iter().enumerate() {
            assert!(!keys[..n].contains(key), "{n}");
        }
        assert_eq!(keys.len(), if cfg!(feature = "ring") { 4 } else { 2 });
    }

    #[cfg(feature = "ring")]
    #[test]
    fn the_limit_of_aes_keeps_the_advantage_at_that_of_quic() {
        // One block for each started 16 bytes and one for the tag, so a unit has 128.
        let blocks = Cipher::Aes256Gcm.limit() as f64 * (UNIT / 16) as f64;
        let advantage = 2.0 * blocks * blocks / 2f64.powi(128);

        assert_eq!(advantage.log2(), -57.0);
        assert!(Cipher::Aes256Gcm.rekey_after() <= Cipher::Aes256Gcm.limit() / 2);
    }
}
