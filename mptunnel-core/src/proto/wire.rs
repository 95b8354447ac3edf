// SPDX-License-Identifier: BSD-2-Clause
//! The datagrams of `mptunnel/1`, byte by byte (PROTOCOL.md, "Messages").
//!
//! ```text
//!  0        1         2     4               8                       16
//!  +--------+---------+-----+---------------+-----------------------+--
//!  | type   | version | 0 0 | index         | depends on the type   |
//!  +--------+---------+-----+---------------+-----------------------+--
//! ```

use super::codec::{Reader, Writer};
use super::drop::DropReason;

/// The protocol version in byte 1 of every datagram.
pub const VERSION: u8 = 1;

/// Bytes of the header in front of the ciphertext of CTRL and DATA; also its associated data.
pub const HEADER_LEN: usize = 16;
/// Bytes of the tag behind the ciphertext.
pub const TAG_LEN: usize = 16;
/// Bytes of the guard behind the tag of a CTRL packet.
pub const GUARD_LEN: usize = 8;
/// Bytes in front of the payload inside DATA: flow, kind, zero.
pub const DATA_HEAD_LEN: usize = 4;
/// What one DATA packet adds to a datagram: header, inner header, tag.
pub const DATA_OVERHEAD: usize = 36;
/// What a fragment adds to its piece: that of DATA and the fragment header.
pub const FRAGMENT_OVERHEAD: usize = 48;
/// The smallest inner of a CTRL packet, so that it is never smaller than what answers it.
pub const CTRL_INNER_MIN: usize = 64;
/// The smallest CTRL packet.
pub const CTRL_MIN: usize = 104;
/// What a CTRL packet adds to its inner: header, tag, guard.
pub const CTRL_OVERHEAD: usize = CTRL_MIN - CTRL_INNER_MIN;
/// Path slots of a session; `path_id` is below this.
pub const MAX_PATHS: usize = 32;
/// The flow number that means the whole session in CLOSE.
pub const FLOW_ALL: u16 = 0xffff;
/// The largest payload of a UDP datagram over IPv4, in bytes.
pub const MAX_DATAGRAM: usize = 65_507;
/// The smallest limit that [`PacketNumbers`](super::session::PacketNumbers) refuses to reach: the
/// largest window below the end of the number space.
pub const PN_LIMIT: u64 = u64::MAX - (1 << 22);

/// Length of INIT_PSK.
pub const INIT_PSK_LEN: usize = 160;
/// Length of INIT_KEY.
pub const INIT_KEY_LEN: usize = 208;
/// Length of RESP.
pub const RESP_LEN: usize = 120;
/// Length of COOKIE.
pub const COOKIE_LEN: usize = 64;
/// Length of NOSESSION.
pub const NOSESSION_LEN: usize = 48;

/// What a datagram claims to be, after its first four bytes and its length were checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// First message of the handshake, shared key.
    InitPsk,
    /// First message of the handshake, static keys.
    InitKey,
    /// Second message of the handshake.
    Resp,
    /// Proof-of-address demand of a server under load.
    Cookie,
    /// "I have no such session."
    NoSession,
    /// Sealed frames.
    Ctrl,
    /// A sealed datagram.
    Data,
    /// A readable, authenticated datagram.
    DataClear,
}

impl Kind {
    /// The type byte.
    pub const fn code(self) -> u8 {
        match self {
            Kind::InitPsk => 1,
            Kind::InitKey => 2,
            Kind::Resp => 3,
            Kind::Cookie => 4,
            Kind::NoSession => 5,
            Kind::Ctrl => 6,
            Kind::Data => 7,
            Kind::DataClear => 8,
        }
    }

    /// The first four bytes of a datagram of this type.
    pub const fn head(self) -> [u8; 4] {
        [self.code(), VERSION, 0, 0]
    }

    /// Checks type, version, zeros and length of a datagram; nothing else is looked at.
    pub fn of(datagram: &[u8]) -> Result<Kind, DropReason> {
        let [code, version, zero0, zero1] =
            *datagram.first_chunk::<4>().ok_or(DropReason::BadLength)?;
        if (version, zero0, zero1) != (VERSION, 0, 0) {
            return Err(DropReason::BadHeader);
        }
        let len = datagram.len();
        let (kind, fits) = match code {
            1 => (Kind::InitPsk, len == INIT_PSK_LEN),
            2 => (Kind::InitKey, len == INIT_KEY_LEN),
            3 => (Kind::Resp, len == RESP_LEN),
            4 => (Kind::Cookie, len == COOKIE_LEN),
            5 => (Kind::NoSession, len == NOSESSION_LEN),
            6 => (Kind::Ctrl, len >= CTRL_MIN),
            7 => (Kind::Data, len >= DATA_OVERHEAD),
            8 => (Kind::DataClear, len >= DATA_OVERHEAD),
            _ => return Err(DropReason::BadHeader),
        };
        if fits { Ok(kind) } else { Err(DropReason::BadLength) }
    }
}

/// The header of CTRL, DATA and DATA_CLEAR.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// CTRL, DATA or DATA_CLEAR.
    pub kind: Kind,
    /// The index that the receiver chose for the session.
    pub index: u32,
    /// The packet number, which is also the nonce.
    pub pn: u64,
}

impl Header {
    /// The sixteen bytes on the wire.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        // Spelled out, this is three stores; through a writer it took a tenth of the time that
        // sealing 64 bytes takes.
        let [k0, k1, k2, k3] = self.kind.head();
        let [i0, i1, i2, i3] = self.index.to_le_bytes();
        let [p0, p1, p2, p3, p4, p5, p6, p7] = self.pn.to_le_bytes();
        [k0, k1, k2, k3, i0, i1, i2, i3, p0, p1, p2, p3, p4, p5, p6, p7]
    }

    /// The header of a datagram that [`Kind::of`] took for `kind`.
    pub fn decode(kind: Kind, datagram: &[u8]) -> Option<Header> {
        let mut r = Reader(datagram);
        r.skip(4)?;
        Some(Header { kind, index: r.u32()?, pn: r.u64()? })
    }
}

/// Where the index field of any datagram is, in bytes from its start.
pub const INDEX_OFFSET: u32 = 4;

/// The index field of any datagram: four bytes at [`INDEX_OFFSET`].
pub fn index_of(datagram: &[u8]) -> Option<u32> {
    let mut r = Reader(datagram);
    r.skip(4)?;
    r.u32()
}

/// Feature bit: the client asks for DATA_CLEAR.
pub const FEATURE_CLEAR: u32 = 1;
/// Feature bit. INIT: the client can and will seal with AES-256-GCM. RESP: so it will be.
pub const FEATURE_AES: u32 = 2;
/// Feature bit: the sender's setting names one cipher, that with or without [`FEATURE_AES`].
pub const FEATURE_ONE_CIPHER: u32 = 4;
/// Feature bit: the sender puts the datagrams that it gets in order, and wants them marked.
pub const FEATURE_ORDER: u32 = 8;

/// What an end says of its cipher: setting and hardware in two feature bits, all four values of
/// which mean something.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CipherOffer {
    /// `cipher=auto` without AES in hardware, a build without AES, or a version that knows of no
    /// choice.
    NoAes,
    /// `cipher=auto` with AES in hardware.
    Aes,
    /// `cipher=chacha20`.
    OnlyChaCha20,
    /// `cipher=aes256gcm`.
    OnlyAes,
}

impl CipherOffer {
    /// Its feature bits.
    pub const fn features(self) -> u32 {
        match self {
            CipherOffer::NoAes => 0,
            CipherOffer::Aes => FEATURE_AES,
            CipherOffer::OnlyChaCha20 => FEATURE_ONE_CIPHER,
            CipherOffer::OnlyAes => FEATURE_AES | FEATURE_ONE_CIPHER,
        }
    }

    /// What the feature bits of a message say.
    pub const fn of_features(features: u32) -> Self {
        match (features & FEATURE_ONE_CIPHER != 0, features & FEATURE_AES != 0) {
            (false, false) => CipherOffer::NoAes,
            (false, true) => CipherOffer::Aes,
            (true, false) => CipherOffer::OnlyChaCha20,
            (true, true) => CipherOffer::OnlyAes,
        }
    }

    /// Whether this end takes part in sealing with AES.
    pub const fn has_aes(self) -> bool {
        matches!(self, CipherOffer::Aes | CipherOffer::OnlyAes)
    }

    /// Whether two ends get along: no one insists on AES without the other having it.
    pub const fn agrees(self, other: CipherOffer) -> bool {
        match (self, other) {
            (CipherOffer::OnlyAes, other) => other.has_aes(),
            (own, CipherOffer::OnlyAes) => own.has_aes(),
            _ => true,
        }
    }
}

impl std::fmt::Display for CipherOffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            CipherOffer::NoAes => "cipher=auto without AES in hardware",
            CipherOffer::Aes => "cipher=auto",
            CipherOffer::OnlyChaCha20 => "cipher=chacha20",
            CipherOffer::OnlyAes => "cipher=aes256gcm",
        })
    }
}

/// The encrypted payload of an INIT.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InitPayload {
    /// Who the client is, in PSK mode.
    pub peer_id: [u8; 16],
    /// Random per process start.
    pub boot_id: u64,
    /// The server's index of the previous session, a hint for logs.
    pub previous_index: u32,
    /// [`FEATURE_CLEAR`] and those of [`CipherOffer`].
    pub features: u32,
    /// Largest datagram the client accepts, in bytes.
    pub max_payload: u16,
    /// Number of paths, 1 to 32.
    pub paths: u8,
    /// Highest protocol version spoken.
    pub version: u8,
    /// log2 of the largest receive window.
    pub window_log2: u8,
    /// The client's clock in microseconds, echoed by the server.
    pub time_us: u64,
}

impl InitPayload {
    /// The 64 bytes that are sealed into an INIT.
    pub fn encode(&self) -> [u8; 64] {
        Writer::new()
            .put(&self.peer_id)
            .put(&self.boot_id.to_le_bytes())
            .put(&self.previous_index.to_le_bytes())
            .put(&self.features.to_le_bytes())
            .put(&self.max_payload.to_le_bytes())
            .put(&[self.paths, self.version, self.window_log2])
            .zeros(3)
            .put(&self.time_us.to_le_bytes())
            .done()
    }

    /// Reads what [`encode`](Self::encode) wrote; fields named zero are ignored.
    pub fn decode(bytes: &[u8; 64]) -> Option<InitPayload> {
        let mut r = Reader(bytes);
        Some(InitPayload {
            peer_id: r.array()?,
            boot_id: r.u64()?,
            previous_index: r.u32()?,
            features: r.u32()?,
            max_payload: r.u16()?,
            paths: r.u8()?,
            version: r.u8()?,
            window_log2: r.u8()?,
            time_us: {
                r.skip(3)?;
                r.u64()?
            },
        })
    }
}

/// The encrypted payload of a RESP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RespPayload {
    /// The index under which the server knows the session; 0 if it refuses.
    pub server_index: u32,
    /// [`Refusal`] as a number, 0 for none.
    pub status: u8,
    /// log2 of the largest receive window.
    pub window_log2: u8,
    /// Largest datagram the server accepts, in bytes.
    pub max_payload: u16,
    /// Random per start of the server.
    pub boot_id: u64,
    /// The time that INIT carried.
    pub time_us: u64,
    /// [`FEATURE_CLEAR`] and [`FEATURE_AES`] as far as they were asked for; in a refusal because
    /// of the cipher, the server's [`CipherOffer`].
    pub features: u32,
    /// Seconds after which the client should rekey; 0 = 120.
    pub rekey_after_s: u16,
    /// Active probe interval in milliseconds; 0 = 250.
    pub probe_ms: u16,
    /// Proof of a later NOSESSION.
    pub token: [u8; 16],
}

impl RespPayload {
    /// The 48 bytes that are sealed into a RESP.
    pub fn encode(&self) -> [u8; 48] {
        Writer::new()
            .put(&self.server_index.to_le_bytes())
            .put(&[self.status, self.window_log2])
            .put(&self.max_payload.to_le_bytes())
            .put(&self.boot_id.to_le_bytes())
            .put(&self.time_us.to_le_bytes())
            .put(&self.features.to_le_bytes())
            .put(&self.rekey_after_s.to_le_bytes())
            .put(&self.probe_ms.to_le_bytes())
            .put(&self.token)
            .done()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8; 48]) -> Option<RespPayload> {
        let mut r = Reader(bytes);
        Some(RespPayload {
            server_index: r.u32()?,
            status: r.u8()?,
            window_log2: r.u8()?,
            max_payload: r.u16()?,
            boot_id: r.u64()?,
            time_us: r.u64()?,
            features: r.u32()?,
            rekey_after_s: r.u16()?,
            probe_ms: r.u16()?,
            token: r.array()?,
        })
    }
}

/// Why a server refuses a client. Authenticated, so the client can believe it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// The client turned encryption off, the server did not.
    EncryptionRequired,
    /// The server has as many sessions as it may.
    SessionLimit,
    /// The server does not serve this version.
    Version,
    /// The client's static key is not on the server's list.
    NotAuthorised,
    /// Two clients use the same name in turns.
    IdConflict,
    /// The server is stopping.
    ShuttingDown,
    /// The server turned encryption off, the client did not.
    ClearRequired,
    /// One end insists on AES-256-GCM, and the other cannot or will not.
    Cipher {
        /// What the client says.
        client: CipherOffer,
        /// What the server says.
        server: CipherOffer,
    },
    /// A code that this version does not know.
    Unknown(u8),
}

impl Refusal {
    /// The status byte of RESP.
    pub const fn code(self) -> u8 {
        match self {
            Refusal::EncryptionRequired => 1,
            Refusal::SessionLimit => 2,
            Refusal::Version => 3,
            Refusal::NotAuthorised => 4,
            Refusal::IdConflict => 5,
            Refusal::ShuttingDown => 6,
            Refusal::ClearRequired => 7,
            Refusal::Cipher { .. } => 8,
            Refusal::Unknown(code) => code,
        }
    }

    /// The meaning of a status byte, with the feature bits beside it, to a client that offered
    /// `client`; `None` is acceptance.
    pub const fn of(status: u8, features: u32, client: CipherOffer) -> Option<Refusal> {
        Some(match status {
            0 => return None,
            1 => Refusal::EncryptionRequired,
            2 => Refusal::SessionLimit,
            3 => Refusal::Version,
            4 => Refusal::NotAuthorised,
            5 => Refusal::IdConflict,
            6 => Refusal::ShuttingDown,
            7 => Refusal::ClearRequired,
            8 => Refusal::Cipher { client, server: CipherOffer::of_features(features) },
            other => Refusal::Unknown(other),
        })
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refusal::EncryptionRequired => {
                "encryption is off at the client and on at the server: use the same setting on both"
            }
            Refusal::SessionLimit => "the server has reached its limit of sessions",
            Refusal::Version => "the server does not serve this version of the protocol",
            Refusal::NotAuthorised => "the server does not list this client's public key",
            Refusal::IdConflict => "another client uses the same name",
            Refusal::ShuttingDown => "the server is shutting down",
            Refusal::ClearRequired => {
                "encryption is on at the client and off at the server: use the same setting on both"
            }
            Refusal::Cipher { client, server } => {
                return write!(
                    f,
                    "no cipher in common, {client} at the client and {server} at the server: use \
                     cipher=auto on both"
                );
            }
            Refusal::Unknown(code) => return write!(f, "the server refused with code {code}"),
        })
    }
}
