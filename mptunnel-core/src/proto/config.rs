// SPDX-License-Identifier: BSD-2-Clause
//! What the state machines are told once, at their start.

use super::crypto::{Cipher, KeySet, Psk, PublicKey, StaticSecret};
use super::probe::Intervals;
use super::sched::Policy;
use super::wire::{CipherOffer, FEATURE_CLEAR, FEATURE_ORDER, MAX_DATAGRAM};
use std::collections::HashMap;
use std::time::Duration;

/// Which cipher seals the packets.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum CipherChoice {
    /// AES-256-GCM if both ends have AES in hardware, else ChaCha20-Poly1305; the latter also where
    /// datagrams are readable, unless one end insists.
    #[default]
    Auto,
    /// ChaCha20-Poly1305, never AES.
    ChaCha20,
    /// AES-256-GCM, also without hardware for it, or no session.
    Aes256Gcm,
}

impl CipherChoice {
    /// The words for it in options.
    pub const WORDS: &'static [&'static str] = &["auto", "chacha20", "aes256gcm"];

    /// The word for it in options.
    pub const fn word(self) -> &'static str {
        match self {
            CipherChoice::Auto => "auto",
            CipherChoice::ChaCha20 => "chacha20",
            CipherChoice::Aes256Gcm => "aes256gcm",
        }
    }
}

/// What both ends have in common.
#[derive(Clone, Debug)]
pub struct Common {
    /// DATA travels authenticated but readable. Both ends must agree.
    pub clear: bool,
    /// Which cipher seals the packets.
    pub cipher: CipherChoice,
    /// Whether this machine has AES in hardware.
    pub aes_hardware: bool,
    /// Largest datagram accepted, 1 to 65,507 bytes.
    pub max_payload: u16,
    /// log2 of the largest receive window in packets, 12 to 22.
    pub window_log2: u8,
    /// Bytes that all windows of the endpoint may take together.
    pub window_memory: usize,
    /// Bytes that the unfinished datagrams of one session may hold.
    pub reassembly_memory: usize,
    /// How often paths are probed.
    pub intervals: Intervals,
    /// On which paths datagrams go.
    pub policy: Policy,
    /// Sessions kept for packets still on the way, at most, each for 30 s.
    pub previous_sessions: usize,
    /// Age at which the client makes new keys; 120 s unless the server says otherwise.
    pub rekey_after: Duration,
    /// How long a datagram waits for those before it in its flow; zero: no order.
    pub reorder: Duration,
    /// How long a packet waits at most for its turn on a path with a rate.
    pub path_queue: Duration,
    /// A server's: the size of packets is what the user says, nothing is probed.
    pub fixed_size: bool,
}

impl Default for Common {
    fn default() -> Self {
        Common {
            clear: false,
            cipher: CipherChoice::Auto,
            aes_hardware: false,
            max_payload: u16::try_from(MAX_DATAGRAM).unwrap_or(u16::MAX),
            window_log2: 18,
            window_memory: 64 << 20,
            reassembly_memory: 1 << 20,
            intervals: Intervals {
                active: Duration::from_millis(250),
                idle: Duration::from_secs(5),
            },
            policy: Policy::default(),
            previous_sessions: 4,
            rekey_after: Duration::from_secs(120),
            reorder: Duration::ZERO,
            path_queue: Duration::from_millis(50),
            fixed_size: false,
        }
    }
}

impl Common {
    /// What this end says in a handshake beside its cipher.
    pub fn features(&self) -> u32 {
        let clear = if self.clear { FEATURE_CLEAR } else { 0 };
        let order = if self.reorder.is_zero() { 0 } else { FEATURE_ORDER };
        clear | order
    }

    /// What this end says of its cipher in a handshake. A build without AES never offers it.
    pub fn cipher_offer(&self) -> CipherOffer {
        match self.cipher {
            CipherChoice::ChaCha20 => CipherOffer::OnlyChaCha20,
            _ if Cipher::AES.is_none() => CipherOffer::NoAes,
            CipherChoice::Aes256Gcm => CipherOffer::OnlyAes,
            CipherChoice::Auto if self.aes_hardware => CipherOffer::Aes,
            CipherChoice::Auto => CipherOffer::NoAes,
        }
    }
}

/// The keys of a client.
pub enum ClientKeys {
    /// One key that both ends share.
    Psk(Psk),
    /// Static keys, with an optional shared key on top.
    Static {
        /// The client's own.
        own: StaticSecret,
        /// The server's.
        server: PublicKey,
        /// Shared with the server, if it lists one for this client.
        psk: Option<Psk>,
    },
}

/// The settings of a client.
pub struct ClientConfig {
    /// With what it proves itself.
    pub keys: ClientKeys,
    /// Under which name the server knows it after a restart, in PSK mode; otherwise it is a new
    /// peer each time.
    pub name: Option<String>,
    /// The rest.
    pub common: Common,
    /// Between the beginnings of two handshakes.
    pub attempt_gap: Duration,
    /// Whether NOSESSION is believed. Off only in the test that measures suspicion alone.
    pub honour_hints: bool,
}

impl ClientConfig {
    /// A client with these keys and the defaults.
    pub fn new(keys: ClientKeys) -> Self {
        ClientConfig {
            keys,
            name: None,
            common: Common::default(),
            attempt_gap: Duration::from_secs(1),
            honour_hints: true,
        }
    }
}

/// One of the keys of a server.
pub enum ServerKey {
    /// All clients share it.
    Psk(Psk),
    /// The server's own key and the clients that may use it, each with an optional shared key.
    Static {
        /// The server's own.
        own: StaticSecret,
        /// Who may connect.
        clients: HashMap<PublicKey, Option<Psk>>,
    },
}

impl ServerKey {
    /// What is derived of it. No two keys of a server may have the same `key_id`, which tells them
    /// apart.
    pub fn key_set(&self) -> KeySet {
        match self {
            ServerKey::Psk(psk) => KeySet::for_psk(psk),
            ServerKey::Static { own, .. } => KeySet::for_server(own),
        }
    }
}

/// The settings of a server.
pub struct ServerConfig {
    /// With what clients prove themselves; at least one.
    pub keys: Vec<ServerKey>,
    /// The rest.
    pub common: Common,
    /// Most sessions at once.
    pub sessions: usize,
    /// A session that heard nothing for this long is over.
    pub session_timeout: Duration,
    /// Handshakes per second at most.
    pub handshakes_per_s: u32,
    /// New INITs per second above which a client must prove its address.
    pub load_threshold: u32,
    /// INITs per second from one source address while under load.
    pub source_rate: u32,
    /// How many of them at once.
    pub source_burst: u32,
}

impl ServerConfig {
    /// A server with these keys and the defaults.
    pub fn new(keys: Vec<ServerKey>) -> Self {
        ServerConfig {
            keys,
            common: Common::default(),
            sessions: 4_096,
            session_timeout: Duration::from_secs(180),
            handshakes_per_s: 1_000,
            load_threshold: 200,
            source_rate: 100,
            source_burst: 50,
        }
    }
}

/// What of a server may change while it runs.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Most sessions at once.
    pub sessions: usize,
    /// A session that heard nothing for this long is over.
    pub session_timeout: Duration,
    /// Handshakes per second at most.
    pub handshakes_per_s: u32,
    /// New INITs per second above which a client must prove its address.
    pub load_threshold: u32,
    /// INITs per second from one source address while under load.
    pub source_rate: u32,
    /// How many of them at once.
    pub source_burst: u32,
    /// How often idle paths are probed.
    pub idle_interval: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_end_offers_follows_from_its_setting_its_hardware_and_its_build() {
        use CipherOffer::{Aes, NoAes, OnlyAes, OnlyChaCha20};
        let offer = |cipher, aes_hardware| {
            Common { cipher, aes_hardware, ..Common::default() }.cipher_offer()
        };
        let built = |with_aes| if cfg!(feature = "ring") { with_aes } else { NoAes };

        for (choice, without, with) in [
            (CipherChoice::Auto, NoAes, built(Aes)),
            (CipherChoice::ChaCha20, OnlyChaCha20, OnlyChaCha20),
            (CipherChoice::Aes256Gcm, built(OnlyAes), built(OnlyAes)),
        ] {
            assert_eq!((offer(choice, false), offer(choice, true)), (without, with), "{choice:?}");
        }
        for offer in [NoAes, Aes, OnlyChaCha20, OnlyAes] {
            assert_eq!(CipherOffer::of_features(offer.features()), offer);
        }
    }
}
