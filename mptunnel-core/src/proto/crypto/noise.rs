// SPDX-License-Identifier: BSD-2-Clause
//! The handshake: two Noise patterns, one message each way. The only file that knows `snow`.
//!
//! ```text
//!  PSK mode, NNpsk0:  → psk, e, payload (112 B)          ← e, ee, payload (96 B)
//!  KEY mode, IKpsk2:  → e, es, s, ss, payload (160 B)    ← e, ee, se, psk, payload (96 B)
//! ```
//!
//! `snow` is asked for no randomness of its own: the ephemeral key is drawn beforehand from the
//! caller's [`Entropy`], so that a seeded run gives the same bytes. It does not wipe its inner
//! state when dropped.

use std::cell::Cell;

use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::Zeroize;

use super::keys::{Psk, PublicKey, StaticSecret};
use super::secret::Secret;
use crate::proto::entropy::Entropy;

/// What the initiator (the client) authenticates with.
pub enum InitiatorKeys<'a> {
    /// PSK mode.
    Psk(&'a Psk),
    /// KEY mode. No PSK is the same as 32 zero bytes.
    Static {
        /// The client's own private key.
        own: &'a StaticSecret,
        /// The server's public key.
        server: &'a PublicKey,
        /// The PSK that the server keeps for this client, if any.
        psk: Option<&'a Psk>,
    },
}

/// What the responder (the server) authenticates with.
pub enum ResponderKeys<'a> {
    /// PSK mode.
    Psk(&'a Psk),
    /// KEY mode: the server's own private key.
    Static(&'a StaticSecret),
}

/// The client's side of one attempt, from INIT to the first RESP that verifies.
pub struct Initiator(HandshakeState);

impl Initiator {
    /// Begins an attempt and returns the Noise message of INIT: 112 bytes in PSK mode, 160 in KEY
    /// mode. `head` is the first 16 bytes of the INIT, which both ends bind into the transcript.
    ///
    /// # Errors
    /// None in practice: every length is fixed here.
    pub fn start(
        keys: InitiatorKeys<'_>,
        head: &[u8; 16],
        payload: &[u8; 64],
        entropy: &mut dyn Entropy,
    ) -> Result<(Initiator, Vec<u8>), NoiseError> {
        let prologue = prologue(head);
        let mut state = match keys {
            InitiatorKeys::Psk(psk) => builder(NN_PSK0, entropy)?
                .prologue(&prologue)?
                .psk(0, psk.expose())?
                .build_initiator()?,
            InitiatorKeys::Static { own, server, psk } => builder(IK_PSK2, entropy)?
                .prologue(&prologue)?
                .local_private_key(own.expose())?
                .remote_public_key(server.as_bytes())?
                .psk(2, psk.map_or(&NO_PSK, Psk::expose))?
                .build_initiator()?,
        };
        let message = write(&mut state, payload)?;
        Ok((Initiator(state), message))
    }

    /// Takes the Noise message of a RESP; returns the keys and the RESP payload.
    ///
    /// # Errors
    /// If the message is not the answer to this attempt. The attempt is as usable as before: a
    /// forged RESP cannot end it (the class of RUSTSEC-2024-0011).
    pub fn finish(&mut self, message: &[u8]) -> Result<(SplitKeys, [u8; 48]), NoiseError> {
        let payload = read(&mut self.0, message, MESSAGE_2_LEN)?;
        Ok((SplitKeys::of(&mut self.0), payload))
    }
}

/// The server's side of one handshake, between reading INIT and writing RESP.
pub struct Responder {
    state: HandshakeState,
    payload: [u8; 64],
    client: Option<PublicKey>,
}

impl Responder {
    /// Takes the Noise message of an INIT. `head` is the first 16 bytes of that INIT.
    ///
    /// # Errors
    /// If the message was made with other keys or another `head`, was altered, has another length,
    /// or carries a low-order public key.
    pub fn read(
        keys: ResponderKeys<'_>,
        head: &[u8; 16],
        message: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<Responder, NoiseError> {
        let prologue = prologue(head);
        let (mut state, len) = match keys {
            ResponderKeys::Psk(psk) => {
                let builder = builder(NN_PSK0, entropy)?.prologue(&prologue)?;
                (builder.psk(0, psk.expose())?.build_responder()?, MESSAGE_1_PSK_LEN)
            }
            ResponderKeys::Static(own) => {
                let builder = builder(IK_PSK2, entropy)?.prologue(&prologue)?;
                let builder = builder.local_private_key(own.expose())?;
                (builder.build_responder()?, MESSAGE_1_KEY_LEN)
            }
        };
        let payload = read(&mut state, message, len)?;
        let client = match state.get_remote_static().and_then(<[u8]>::first_chunk) {
            Some(key) => Some(PublicKey::new(*key).map_err(|_| NoiseError::LowOrder)?),
            None => None,
        };
        Ok(Responder { state, payload, client })
    }

    /// The INIT payload. It is authentic, but may be a replay.
    pub fn payload(&self) -> &[u8; 64] {
        &self.payload
    }

    /// The client's static public key in KEY mode. Whether it is welcome is the caller's decision.
    pub fn client(&self) -> Option<PublicKey> {
        self.client
    }

    /// Writes the Noise message of RESP, 96 bytes. `psk` is the one kept for this client in KEY
    /// mode, if any; in PSK mode it is ignored.
    ///
    /// # Errors
    /// None in practice: every length is fixed here.
    pub fn reply(
        mut self,
        psk: Option<&Psk>,
        payload: &[u8; 48],
    ) -> Result<(SplitKeys, Vec<u8>), NoiseError> {
        let psk: &[u8; 32] = psk.map_or(&NO_PSK, Psk::expose);
        self.state.set_psk(2, psk)?;
        let message = write(&mut self.state, payload)?;
        Ok((SplitKeys::of(&mut self.state), message))
    }
}

/// The secrets of the two directions of a session, as Noise `Split()` gives them:
/// [`Cipher`](super::Cipher) makes keys of them.
pub struct SplitKeys {
    /// For what the client sends.
    pub c2s: Secret<32>,
    /// For what the server sends.
    pub s2c: Secret<32>,
}

impl SplitKeys {
    fn of(state: &mut HandshakeState) -> Self {
        let (mut c2s, mut s2c) = state.dangerously_get_raw_split();
        let keys = SplitKeys { c2s: Secret::new(c2s), s2c: Secret::new(s2c) };
        c2s.zeroize();
        s2c.zeroize();
        keys
    }
}

/// Why a handshake step did not happen.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoiseError {
    /// Dropped before any cryptography.
    #[error("handshake message has the wrong length")]
    Length,
    /// Dropped: with such a key the shared secret would be known to everybody.
    #[error("handshake message carries a low-order public key")]
    LowOrder,
    /// Made with other keys, for another attempt, or altered.
    #[error("handshake message does not verify")]
    Forged,
    /// A step was asked for out of order, such as finishing twice.
    #[error("handshake step out of order")]
    State,
}

impl From<snow::Error> for NoiseError {
    fn from(error: snow::Error) -> Self {
        match error {
            snow::Error::Decrypt | snow::Error::Dh | snow::Error::Input => NoiseError::Forged,
            _ => NoiseError::State,
        }
    }
}

/// Whether X25519 with this public key gives zero whatever the private key is.
///
/// These are the points of order 1, 2, 4 and 8 on the curve and its twist, in all encodings that
/// X25519 accepts (RFC 7748, section 6.1, asks for a check; the list is that of
/// <https://cr.yp.to/ecdh.html#validate> reduced to 255 bits, as X25519 ignores the top bit).
pub fn is_low_order(point: &[u8; 32]) -> bool {
    let mut point = *point;
    if let Some(top) = point.last_mut() {
        *top &= 0x7f;
    }
    LOW_ORDER.contains(&point)
}

/// The X25519 public key that belongs to `private`.
pub(super) fn x25519_public(private: &[u8; 32]) -> [u8; 32] {
    let Some(mut dh) = DefaultResolver.resolve_dh(&DHChoice::Curve25519) else {
        unreachable!("snow is built with Curve25519");
    };
    dh.set(private);
    match dh.pubkey().first_chunk() {
        Some(public) => *public,
        None => unreachable!("X25519 public keys have 32 bytes"),
    }
}

fn prologue(head: &[u8; 16]) -> Vec<u8> {
    [PROLOGUE, head].concat()
}

fn builder<'a>(pattern: &str, entropy: &mut dyn Entropy) -> Result<Builder<'a>, NoiseError> {
    let params: NoiseParams = pattern.parse()?;
    let ephemeral = Cell::new(Some(Secret::generate(entropy)));
    Ok(Builder::with_resolver(params, Box::new(Primitives { ephemeral })))
}

/// Writes one handshake message around `payload`.
fn write(state: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, NoiseError> {
    let mut message = vec![0; MESSAGE_1_KEY_LEN];
    let len = state.write_message(payload, &mut message)?;
    message.truncate(len);
    Ok(message)
}

/// Reads one handshake message of exactly `len` bytes that begins with an ephemeral key and
/// carries `N` bytes of payload.
fn read<const N: usize>(
    state: &mut HandshakeState,
    message: &[u8],
    len: usize,
) -> Result<[u8; N], NoiseError> {
    if message.len() != len {
        return Err(NoiseError::Length);
    }
    if message.first_chunk().is_none_or(is_low_order) {
        return Err(NoiseError::LowOrder);
    }
    let mut payload = [0; N];
    match state.read_message(message, &mut payload)? {
        read if read == N => Ok(payload),
        _ => Err(NoiseError::Length),
    }
}

/// `snow`'s own primitives, and the ephemeral key in place of its random source.
struct Primitives {
    ephemeral: Cell<Option<Secret<32>>>,
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(self.ephemeral.take())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Gives its 32 bytes to whoever asks first. Who asks a second time gets an error, never the same
/// bytes again.
struct Once(Option<Secret<32>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        let bytes = self.0.take().ok_or(snow::Error::Rng)?;
        if out.len() != bytes.expose().len() {
            return Err(snow::Error::Rng);
        }
        out.copy_from_slice(bytes.expose());
        Ok(())
    }
}

// From PROTOCOL.md, "Messages, byte by byte".
const NN_PSK0: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const IK_PSK2: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"mptunnel/1";
const NO_PSK: [u8; 32] = [0; 32];
/// Bytes. Ephemeral key, sealed payload of 64 bytes.
const MESSAGE_1_PSK_LEN: usize = 32 + 64 + 16;
/// Bytes. Ephemeral key, sealed static key, sealed payload of 64 bytes: the longest message.
const MESSAGE_1_KEY_LEN: usize = 32 + 32 + 16 + 64 + 16;
/// Bytes. Ephemeral key, sealed payload of 48 bytes.
const MESSAGE_2_LEN: usize = 32 + 48 + 16;

const LOW_ORDER: [[u8; 32]; 7] = [
    little(0x00, 0x00, 0x00),
    little(0x01, 0x00, 0x00),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
    // p − 1, p and p + 1, where p = 2^255 − 19.
    little(0xec, 0xff, 0x7f),
    little(0xed, 0xff, 0x7f),
    little(0xee, 0xff, 0x7f),
];

/// A 256-bit number in little-endian order: its lowest byte, the 30 in the middle, its highest.
const fn little(low: u8, middle: u8, high: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    let [first, .., last] = &mut bytes;
    *first = low;
    *last = high;
    bytes
}

#[cfg(test)]
mod tests;
