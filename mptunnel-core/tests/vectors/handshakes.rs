// SPDX-License-Identifier: BSD-2-Clause
//! The inputs of our vectors, and the datagrams of both handshakes made from them by hand: no
//! message codec takes part, so that an error in one cannot hide here.

use mptunnel_core::proto::crypto::*;
use mptunnel_core::proto::entropy::Entropy;

pub const CLIENT_INDEX: u32 = 0xa1a2_a3a4;
pub const SERVER_INDEX: u32 = 0xb1b2_b3b4;
const CLIENT_BOOT_ID: u64 = 0x0102_0304_0506_0708;
const SERVER_BOOT_ID: u64 = 0x1112_1314_1516_1718;
const CLIENT_TIME_US: u64 = 1_000_000;
const MAX_PAYLOAD: u16 = 1_400;
const WINDOW_LOG2: u8 = 18;
/// Features: AES-256-GCM, offered in INIT and chosen in RESP.
#[cfg(feature = "ring")]
pub const AES: u32 = 2;
/// Features: no other cipher than AES-256-GCM.
pub const ONLY_AES: u32 = 6;

/// An ephemeral private key in place of randomness.
struct Ephemeral(u8);

impl Entropy for Ephemeral {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(self.0);
    }
}

/// 00 01 02 … 1f.
pub fn psk() -> Psk {
    Psk::new(std::array::from_fn(|i| i as u8)).unwrap()
}

/// The PSK that the server keeps for the client in KEY mode, where there is one.
pub fn client_psk() -> Psk {
    Psk::new([0x88; 32]).unwrap()
}

pub fn client_static() -> StaticSecret {
    StaticSecret::new([0x66; 32]).unwrap()
}

pub fn server_static() -> StaticSecret {
    StaticSecret::new([0x77; 32]).unwrap()
}

/// Bytes 0 to 7 of every datagram: type, version, two zeros, index.
pub fn head(kind: u8, index: u32) -> Vec<u8> {
    let mut head = vec![kind, 1, 0, 0];
    head.extend(index.to_le_bytes());
    head
}

pub fn init_payload(features: u32) -> [u8; 64] {
    let mut payload = vec![0x33; 16];
    payload.extend(CLIENT_BOOT_ID.to_le_bytes());
    payload.extend([0; 4]); // no previous server_index
    payload.extend(features.to_le_bytes());
    payload.extend(MAX_PAYLOAD.to_le_bytes());
    payload.extend([2, 1, WINDOW_LOG2, 0, 0, 0]); // paths, highest version, window
    payload.extend(CLIENT_TIME_US.to_le_bytes());
    payload.extend([0; 16]);
    payload.try_into().unwrap()
}

/// The RESP payload of a session with `token`, or of a refusal, which has none.
pub fn resp_payload(status: u8, features: u32, token: Option<[u8; 16]>) -> [u8; 48] {
    let server_index = token.map_or(0, |_| SERVER_INDEX);
    let mut payload = server_index.to_le_bytes().to_vec();
    payload.extend([status, WINDOW_LOG2]);
    payload.extend(MAX_PAYLOAD.to_le_bytes());
    payload.extend(SERVER_BOOT_ID.to_le_bytes());
    payload.extend(CLIENT_TIME_US.to_le_bytes());
    payload.extend(features.to_le_bytes());
    payload.extend([0; 4]); // default rekey and probe intervals
    payload.extend(token.unwrap_or([0; 16]));
    payload.try_into().unwrap()
}

/// One attempt of the client, and what a server makes of it.
pub struct Attempt {
    initiator: Initiator,
    pub init: Vec<u8>,
    mode: Mode,
    features: u32,
}

#[derive(Clone, Copy)]
pub enum Mode {
    Psk,
    Key { with_psk: bool },
}

impl Attempt {
    /// Makes the INIT, mac2 zero.
    pub fn start(mode: Mode, features: u32) -> Attempt {
        let keys = mode.keys();
        let mut init = head(mode.init_type(), CLIENT_INDEX);
        init.extend(keys.key_id);
        let prologue: [u8; 16] = init.as_slice().try_into().unwrap();
        let (psk, client_psk) = (psk(), client_psk());
        let (own, server) = (client_static(), server_static().public());
        let initiator_keys = match mode {
            Mode::Psk => InitiatorKeys::Psk(&psk),
            Mode::Key { with_psk } => InitiatorKeys::Static {
                own: &own,
                server: &server,
                psk: with_psk.then_some(&client_psk),
            },
        };
        let (initiator, message) = Initiator::start(
            initiator_keys,
            &prologue,
            &init_payload(features),
            &mut Ephemeral(0x11),
        )
        .unwrap();
        init.extend(message);
        init.extend(mac16(keys.mac1.expose(), &[&init]));
        init.extend([0; 16]);
        Attempt { initiator, init, mode, features }
    }

    /// Makes the RESP with the server's ephemeral private key 32 × `ephemeral`, and proves that
    /// the client accepts it and has the same keys.
    pub fn answer(&mut self, ephemeral: u8, payload: &[u8; 48]) -> (Vec<u8>, SplitKeys) {
        let (psk, client_psk, own) = (psk(), client_psk(), server_static());
        let (keys, kept_psk) = match self.mode {
            Mode::Psk => (ResponderKeys::Psk(&psk), None),
            Mode::Key { with_psk } => {
                (ResponderKeys::Static(&own), with_psk.then_some(&client_psk))
            }
        };
        let prologue = self.init.first_chunk().unwrap();
        let message = &self.init[16..self.init.len() - 32];
        let responder =
            Responder::read(keys, prologue, message, &mut Ephemeral(ephemeral)).unwrap();
        assert_eq!(responder.payload(), &init_payload(self.features));
        assert_eq!(responder.client(), self.mode.client());

        let (server_keys, message) = responder.reply(kept_psk, payload).unwrap();
        let (client_keys, received) = self.initiator.finish(&message).unwrap();
        assert_eq!(&received, payload);
        assert_eq!(client_keys.c2s.expose(), server_keys.c2s.expose());
        assert_eq!(client_keys.s2c.expose(), server_keys.s2c.expose());

        let mut resp = head(0x03, CLIENT_INDEX);
        resp.extend(message);
        resp.extend(mac16(self.mode.mac1_towards_client().expose(), &[&resp]));
        (resp, server_keys)
    }

    /// The mac1 of the INIT.
    pub fn mac1(&self) -> [u8; 16] {
        self.init[self.init.len() - 32..].first_chunk().copied().unwrap()
    }
}

impl Mode {
    /// What the server derives from its key.
    pub fn keys(self) -> KeySet {
        match self {
            Mode::Psk => KeySet::for_psk(&psk()),
            Mode::Key { .. } => KeySet::for_server(&server_static()),
        }
    }

    /// The key of mac1 and guard in what the server sends.
    pub fn mac1_towards_client(self) -> Secret<32> {
        match self.client() {
            None => self.keys().mac1,
            Some(client) => mac1_key_of(&client),
        }
    }

    fn init_type(self) -> u8 {
        match self {
            Mode::Psk => 0x01,
            Mode::Key { .. } => 0x02,
        }
    }

    fn client(self) -> Option<PublicKey> {
        match self {
            Mode::Psk => None,
            Mode::Key { .. } => Some(client_static().public()),
        }
    }
}
