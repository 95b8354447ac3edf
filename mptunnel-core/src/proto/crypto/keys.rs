// SPDX-License-Identifier: BSD-2-Clause
//! The keys that a user configures, their text form, and what the protocol derives from them.

use std::fmt;

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

use super::mac::{hash, mac32, prefix};
use super::noise::{is_low_order, x25519_public};
use super::secret::Secret;
use crate::proto::entropy::Entropy;

/// A key that both ends share (PSK mode), or that a server keeps for one client beside its static
/// key (KEY mode). Never all zero; neither `Debug` nor `Clone`.
pub struct Psk(Secret<32>);

impl Psk {
    /// Takes over `bytes`.
    ///
    /// # Errors
    /// [`KeyError::AllZero`]: zeros are an empty file or a forgotten initialisation, not a key.
    pub fn new(bytes: [u8; 32]) -> Result<Self, KeyError> {
        nonzero(Secret::new(bytes)).map(Psk)
    }

    /// Draws a new key.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        Psk(generate(entropy))
    }

    /// Reads the text form: 32 bytes in base64, 44 characters with padding, nothing around them.
    ///
    /// # Errors
    /// [`KeyError::NotBase64`], [`KeyError::WrongLength`], [`KeyError::AllZero`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        nonzero(decode(text)?).map(Psk)
    }

    /// The text form, wiped on drop.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(Base64::encode_string(self.expose()))
    }

    /// Stretches a passphrase with Argon2id: 64 MiB of memory, about 140 ms on one core. To be
    /// done once, at start.
    ///
    /// `tunnel_name` takes the place of a salt, as nothing can be agreed beforehand: both ends
    /// must be given the same. Whoever records one handshake can guess passphrases offline, about
    /// seven a second per core, so a random key is better wherever one can be copied.
    ///
    /// # Errors
    /// [`KeyError::PassphraseTooShort`] below 12 characters, [`KeyError::PassphraseTooLong`] from
    /// 4 GiB, [`KeyError::NoTunnelName`].
    #[cfg(feature = "passphrase")]
    pub fn from_passphrase(passphrase: &str, tunnel_name: &str) -> Result<Self, KeyError> {
        let chars = passphrase.chars().count();
        if chars < PASSPHRASE_MIN_CHARS {
            return Err(KeyError::PassphraseTooShort { chars });
        }
        if tunnel_name.is_empty() {
            return Err(KeyError::NoTunnelName);
        }
        let salt: [u8; 16] = prefix(&hash(&[b"mpt1 psk salt", tunnel_name.as_bytes()]));
        let mut key = Zeroizing::new([0; 32]);
        argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, ARGON2)
            .hash_password_into(passphrase.as_bytes(), &salt, key.as_mut_slice())
            .map_err(|_| KeyError::PassphraseTooLong)?;
        Psk::new(*key)
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }
}

/// The private half of a static X25519 key pair. Neither `Debug` nor `Clone`.
pub struct StaticSecret(Secret<32>);

impl StaticSecret {
    /// Takes over `bytes`, any 32 of which are a private key (X25519 clamps them on use).
    ///
    /// # Errors
    /// [`KeyError::AllZero`], as for [`Psk::new`].
    pub fn new(bytes: [u8; 32]) -> Result<Self, KeyError> {
        nonzero(Secret::new(bytes)).map(StaticSecret)
    }

    /// Draws a new key.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        StaticSecret(generate(entropy))
    }

    /// Reads the text form, the same as that of [`Psk::from_base64`].
    ///
    /// # Errors
    /// [`KeyError::NotBase64`], [`KeyError::WrongLength`], [`KeyError::AllZero`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        nonzero(decode(text)?).map(StaticSecret)
    }

    /// The text form, wiped on drop.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(Base64::encode_string(self.expose()))
    }

    /// The public half. Costs one multiplication of the base point, tens of microseconds.
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519_public(self.expose()))
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }
}

/// The public half of a static X25519 key pair, never one of the low-order points. It is no
/// secret, yet who does not know a server's public key cannot even see that the server is there.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes the 32 bytes of a public key.
    ///
    /// # Errors
    /// [`KeyError::LowOrder`]: with such a key the shared secret would be known to everybody.
    pub fn new(bytes: [u8; 32]) -> Result<Self, KeyError> {
        if is_low_order(&bytes) {
            return Err(KeyError::LowOrder);
        }
        Ok(PublicKey(bytes))
    }

    /// Reads the text form, the same as that of [`Psk::from_base64`].
    ///
    /// # Errors
    /// [`KeyError::NotBase64`], [`KeyError::WrongLength`], [`KeyError::LowOrder`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        Self::new(*decode(text)?.expose())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Shows the text form: 44 characters of base64.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Base64::encode_string(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// Everything derived from one configured key (PROTOCOL.md, "Key derivations").
///
/// With several PSKs each has its own set, and a session keeps the set it was made under.
pub struct KeySet {
    /// Names the key in INIT and in logs, without telling what it is.
    pub key_id: [u8; 8],
    /// Keys mac1 of messages to the owner of the key, and the guard of CTRL.
    pub mac1: Secret<32>,
    /// Keys the body of COOKIE.
    pub cookie: Secret<32>,
    reset: Option<Secret<32>>,
}

impl KeySet {
    /// The set of a PSK, the same on both ends.
    pub fn for_psk(psk: &Psk) -> Self {
        Self::derive(psk.expose(), Some(psk.expose()))
    }

    /// The set of a server in KEY mode, from its own static key.
    pub fn for_server(own: &StaticSecret) -> Self {
        Self::derive(own.public().as_bytes(), Some(own.expose()))
    }

    /// What a client in KEY mode can derive of its server's set: all but the tokens.
    pub fn for_server_public(server: &PublicKey) -> Self {
        Self::derive(server.as_bytes(), None)
    }

    /// The token of the session that the server knows as `server_index`. It depends on the key
    /// and the index only, so a restarted server computes it again. `None` in a set made by
    /// [`KeySet::for_server_public`]: there the token is learned from RESP.
    pub fn token(&self, server_index: u32) -> Option<[u8; 16]> {
        let reset = self.reset.as_ref()?.expose();
        Some(prefix(&mac32(reset, &[&server_index.to_le_bytes()])))
    }

    fn derive(known_to_client: &[u8; 32], reset: Option<&[u8; 32]>) -> Self {
        KeySet {
            key_id: prefix(&hash(&[b"mpt1 keyid", known_to_client])),
            mac1: mac1_key(known_to_client),
            cookie: Secret::new(hash(&[b"mpt1 cookie", known_to_client])),
            reset: reset.map(|r| Secret::new(hash(&[b"mpt1 reset", r]))),
        }
    }
}

/// The key of mac1 and guard in messages to the owner of `recipient` (KEY mode): in RESP and in
/// the server's CTRL that is the client.
pub fn mac1_key_of(recipient: &PublicKey) -> Secret<32> {
    mac1_key(recipient.as_bytes())
}

fn mac1_key(recipient: &[u8; 32]) -> Secret<32> {
    Secret::new(hash(&[b"mpt1 mac1", recipient]))
}

/// Why something is not a key. The offending text is in no message, since it may be half a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A character, the padding or the length is wrong.
    #[error("key is not base64 (44 characters, the last one '=')")]
    NotBase64,
    /// It is base64, of something else.
    #[error("key has {bytes} bytes instead of 32")]
    WrongLength {
        /// How many bytes the base64 stands for.
        bytes: usize,
    },
    /// An empty file or a forgotten initialisation.
    #[error("key is all zero")]
    AllZero,
    /// A public key whose shared secrets everybody knows.
    #[error("public key is a low-order point")]
    LowOrder,
    /// A passphrase that is guessed too soon.
    #[cfg(feature = "passphrase")]
    #[error("passphrase has {chars} characters, at least 12 are needed")]
    PassphraseTooShort {
        /// Unicode scalar values counted.
        chars: usize,
    },
    /// More than Argon2 accepts.
    #[cfg(feature = "passphrase")]
    #[error("passphrase exceeds 4 GiB")]
    PassphraseTooLong,
    /// A passphrase needs the name of the tunnel, the same on both ends.
    #[cfg(feature = "passphrase")]
    #[error("a passphrase needs a tunnel name")]
    NoTunnelName,
}

fn decode(text: &str) -> Result<Secret<32>, KeyError> {
    let bytes = Base64::decode_vec(text).map(Zeroizing::new).map_err(|_| KeyError::NotBase64)?;
    match <[u8; 32]>::try_from(bytes.as_slice()) {
        Ok(key) => Ok(Secret::new(key)),
        Err(_) => Err(KeyError::WrongLength { bytes: bytes.len() }),
    }
}

fn nonzero(key: Secret<32>) -> Result<Secret<32>, KeyError> {
    if *key.expose() == [0; 32] { Err(KeyError::AllZero) } else { Ok(key) }
}

fn generate(entropy: &mut dyn Entropy) -> Secret<32> {
    let key = Secret::generate(entropy);
    assert!(*key.expose() != [0; 32], "the random source returns zeros");
    key
}

// From PROTOCOL.md, "Passphrase".
#[cfg(feature = "passphrase")]
const PASSPHRASE_MIN_CHARS: usize = 12;
/// The second recommended option of RFC 9106, section 4: 64 MiB, 3 passes, 4 lanes.
#[cfg(feature = "passphrase")]
const ARGON2: argon2::Params = match argon2::Params::new(64 * 1024, 3, 4, Some(32)) {
    Ok(params) => params,
    Err(_) => unreachable!(),
};

#[cfg(test)]
mod tests;
