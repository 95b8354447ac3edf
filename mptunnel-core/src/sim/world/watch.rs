// SPDX-License-Identifier: BSD-2-Clause
//! What is checked on every packet of every run: I3, I4 and I7 of the invariants; and the trace.

use crate::proto::time::Time;
use crate::proto::wire::{Header, Kind, index_of};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long copies of one INIT must get the same answer: an unconfirmed entry of the server's
/// cache lives 20 s.
const SAME_ANSWER_FOR: Duration = Duration::from_secs(20);

/// The watch over one process.
#[derive(Debug, Default)]
pub struct Watch {
    sealed: HashMap<u32, (u64, u64)>,
    answers: HashMap<u32, (Time, u64)>,
    accounts: HashMap<SocketAddr, Account>,
    attempts: Vec<Time>,
    last_attempt: Option<u32>,
}

/// Bytes to and from one address that a server talks to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// Received and authenticated.
    pub authentic: u64,
    /// Received, anything else.
    pub other: u64,
    /// Sent.
    pub sent: u64,
    /// Whether the address has been proven.
    pub proven: bool,
}

impl Watch {
    /// A packet leaves the process.
    ///
    /// # Panics
    /// If its number has been sealed before with other contents (I7): numbers rise within a
    /// session, apart from copies of the packet just sent.
    pub fn on_sent(&mut self, now: Time, packet: &[u8]) {
        let kind = match Kind::of(packet) {
            Ok(kind @ (Kind::Ctrl | Kind::Data | Kind::DataClear)) => kind,
            Ok(Kind::InitPsk | Kind::InitKey) => return self.on_init(now, packet),
            _ => return,
        };
        let header = Header::decode(kind, packet).expect("the length was checked");
        let now = (header.pn, hash(packet));
        let last = self.sealed.insert(header.index, now);
        let fresh = last.is_none_or(|last| last == now || last.0 < header.pn);
        assert!(fresh, "I7: packet {} of session {:08x} again", header.pn, header.index);
    }

    fn on_init(&mut self, now: Time, packet: &[u8]) {
        let index = index_of(packet);
        if self.last_attempt != index {
            self.last_attempt = index;
            self.attempts.push(now);
        }
    }

    /// When the attempts at a handshake began.
    pub fn attempts(&self) -> &[Time] {
        &self.attempts
    }

    /// A server sends `packet` to `address`.
    ///
    /// # Panics
    /// If an unproven address gets more than it may (I4), or two answers to one INIT differ (I3).
    pub fn on_server_sent(&mut self, now: Time, address: SocketAddr, packet: &[u8]) {
        let account = self.accounts.entry(address).or_default();
        account.sent += packet.len() as u64;
        let allowed = account.authentic * 3 + account.other;
        assert!(account.proven || account.sent <= allowed, "I4: {address} got {account:?}");
        if let (Ok(Kind::Resp), Some(index)) = (Kind::of(packet), index_of(packet)) {
            let answer = hash(packet);
            let (since, first) = *self.answers.entry(index).or_insert((now, answer));
            let same = first == answer || now.since(since) > SAME_ANSWER_FOR;
            assert!(same, "I3: attempt {index:08x} got two different answers");
        }
    }

    /// A server received `len` bytes from `address`.
    pub fn on_server_received(&mut self, address: SocketAddr, len: usize, authentic: bool) {
        let account = self.accounts.entry(address).or_default();
        let sum = if authentic { &mut account.authentic } else { &mut account.other };
        *sum += len as u64;
    }

    /// `address` has answered a challenge.
    pub fn on_proven(&mut self, address: SocketAddr) {
        self.accounts.entry(address).or_default().proven = true;
    }

    /// What went to and came from an address.
    pub fn account(&self, address: SocketAddr) -> Account {
        self.accounts.get(&address).copied().unwrap_or_default()
    }
}

/// A number that two runs share only if the same packets arrived at the same times.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Trace(u64);

impl Trace {
    /// Adds something that happened.
    pub fn note(&mut self, now: Time, what: u64) {
        self.0 = mix(mix(self.0 ^ now.as_micros()) ^ what);
    }

    /// Adds bytes.
    pub fn note_bytes(&mut self, now: Time, bytes: &[u8]) {
        self.note(now, hash(bytes));
    }

    /// The number.
    pub fn digest(&self) -> u64 {
        self.0
    }
}

/// A fast hash without any security.
pub fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let start = 0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64;
    let hash = words.iter().fold(start, |h, word| step(h, u64::from_le_bytes(*word)));
    rest.iter().fold(hash, |h, byte| step(h, u64::from(*byte)))
}

fn step(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
