// SPDX-License-Identifier: BSD-2-Clause
//! One attempt at a handshake: one ephemeral key, one index, one INIT core.

use super::super::crypto::{Initiator, InitiatorKeys, NoiseError, mac};
use super::super::entropy::Entropy;
use super::super::time::Time;
use super::super::wire::{InitPayload, Kind};
use super::ClientKeys;
use crate::proto::crypto::KeySet;
use std::time::Duration;

/// How long an answer to an attempt counts: the server keeps the session for 20 s.
const ANSWERABLE: Duration = Duration::from_secs(16);

/// An INIT that is repeated byte for byte until it is answered or too old.
pub struct Attempt {
    /// The index that the session will have at this end.
    pub index: u32,
    /// When it began.
    pub began: Time,
    /// When the INIT is sent again.
    pub repeat_at: Time,
    /// What opens the answer. A forged answer leaves it usable.
    pub noise: Initiator,
    /// Everything before mac2.
    signed: Vec<u8>,
    mac1: [u8; 16],
}

impl Attempt {
    /// Makes the INIT.
    pub fn new(
        now: Time,
        index: u32,
        keys: &ClientKeys,
        set: &KeySet,
        payload: &InitPayload,
        entropy: &mut dyn Entropy,
    ) -> Result<Attempt, NoiseError> {
        let (kind, noise_keys) = match keys {
            ClientKeys::Psk(psk) => (Kind::InitPsk, InitiatorKeys::Psk(psk)),
            ClientKeys::Static { own, server, psk } => {
                (Kind::InitKey, InitiatorKeys::Static { own, server, psk: psk.as_ref() })
            }
        };
        let mut head = [0; 16];
        for (to, from) in
            head.iter_mut().zip(kind.head().iter().chain(&index.to_le_bytes()).chain(&set.key_id))
        {
            *to = *from;
        }
        let (noise, message) = Initiator::start(noise_keys, &head, &payload.encode(), entropy)?;
        let mut signed = head.to_vec();
        signed.extend(message);
        let mac1: [u8; 16] = mac::mac16(set.mac1.expose(), &[&signed]);
        signed.extend(mac1);
        Ok(Attempt { index, began: now, repeat_at: now, noise, signed, mac1 })
    }

    /// Whether the server still has the session that an answer would belong to.
    pub fn is_answerable(&self, now: Time) -> bool {
        now.since(self.began) <= ANSWERABLE
    }

    /// The datagram, for a path on which the server demands `cookie` or nothing.
    pub fn datagram(&self, cookie: Option<&[u8; 16]>) -> Vec<u8> {
        let mut datagram = self.signed.clone();
        datagram.extend(match cookie {
            Some(cookie) => mac::mac16(cookie, &[&self.signed]),
            None => [0; 16],
        });
        datagram
    }

    /// What a COOKIE for this attempt is bound to.
    pub fn mac1(&self) -> &[u8; 16] {
        &self.mac1
    }
}
