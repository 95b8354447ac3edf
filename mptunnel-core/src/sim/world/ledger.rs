// SPDX-License-Identifier: BSD-2-Clause
//! Every datagram that was ever sent, which of its copies survived, and whether it was delivered.

use super::parcel::Cargo;
use super::{ClientNo, Incarnation};
use crate::proto::time::Time;
use std::time::Duration;

/// Towards the server or towards the client.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Direction {
    /// Client to server.
    Up,
    /// Server to client.
    Down,
}

/// A datagram of some application.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Which tunnel.
    pub client: ClientNo,
    /// Which way.
    pub direction: Direction,
    /// Which application.
    pub flow: u16,
    /// Its length in bytes.
    pub size: usize,
    /// When it was sent.
    pub sent_at: Time,
    /// Who sent it.
    pub sender: Incarnation,
    /// Who held the keys for it then; `None` if nobody did any more.
    pub receiver: Option<Incarnation>,
    /// Copies that went into links: whole ones and pieces.
    pub copies: u32,
    /// When the first intact copy, or the last piece of one, reached that receiver, still alive.
    pub arrived_at: Option<Time>,
    /// Whether the receiver still had the keys then.
    pub openable: bool,
    /// When it was delivered.
    pub delivered_at: Option<Time>,
    /// How many datagrams of the run were delivered before it, if it was.
    pub rank: Option<u64>,
    pieces: Pieces,
}

/// When each piece first arrived. Further copies of it are dropped as such, whatever became of the
/// first.
#[derive(Clone, Debug, Default)]
struct Pieces {
    first: Vec<Option<Time>>,
    openable: bool,
}

/// How long a receiver waits for the rest of a datagram: PROTOCOL.md, "Fragments".
const REJOIN_WITHIN: Duration = Duration::from_millis(2_500);

/// All datagrams of a run, by number.
#[derive(Debug, Default)]
pub struct Ledger {
    datagrams: Vec<Datagram>,
    deliveries: u64,
}

impl Ledger {
    /// The number that the next datagram gets.
    pub(super) fn next_number(&self) -> u32 {
        u32::try_from(self.datagrams.len()).expect("a run sends fewer than 2^32 datagrams")
    }

    /// Enters a datagram.
    pub(super) fn enter(&mut self, datagram: Datagram) {
        self.datagrams.push(datagram);
    }

    /// Notes that copies of a datagram went into links.
    pub(super) fn add_copies(&mut self, number: u32, copies: u32) {
        self.datagrams[number as usize].copies += copies;
    }

    /// One datagram.
    pub fn get(&self, number: u32) -> &Datagram {
        &self.datagrams[number as usize]
    }

    /// All datagrams, in the order in which they were sent.
    pub fn all(&self) -> &[Datagram] {
        &self.datagrams
    }

    /// Those of one tunnel and one direction.
    pub fn of(&self, client: ClientNo, way: Direction) -> impl Iterator<Item = &Datagram> + Clone {
        self.datagrams.iter().filter(move |d| d.client == client && d.direction == way)
    }

    /// Notes that an intact copy, or a piece, has reached `receiver`. `openable` tells whether the
    /// receiver has the keys; it is asked only if the answer matters.
    pub(super) fn arrived(
        &mut self,
        now: Time,
        cargo: Cargo,
        receiver: Incarnation,
        openable: impl FnOnce() -> bool,
    ) {
        let entry = &mut self.datagrams[cargo.datagram as usize];
        if entry.receiver != Some(receiver) || (entry.arrived_at.is_some() && entry.openable) {
            return;
        }
        let (index, count) = cargo.piece;
        if count > 1 {
            let pieces = &mut entry.pieces;
            if pieces.first.is_empty() {
                *pieces = Pieces { first: vec![None; usize::from(count)], openable: true };
            }
            let first = &mut pieces.first[usize::from(index)];
            if first.is_none() {
                *first = Some(now);
                pieces.openable &= openable();
            }
            let oldest = pieces.first.iter().min().copied().flatten();
            if oldest.is_none_or(|oldest| now.since(oldest) > REJOIN_WITHIN) {
                return;
            }
            entry.openable = pieces.openable;
        } else {
            entry.openable = openable();
        }
        entry.arrived_at.get_or_insert(now);
    }

    /// Notes that a datagram was delivered.
    ///
    /// # Panics
    /// If it was delivered before (I1) or is not what was sent (I2).
    pub(super) fn delivered(&mut self, now: Time, number: u32, flow: u16, bytes: &[u8]) {
        let entry = &mut self.datagrams[number as usize];
        assert!(
            entry.delivered_at.is_none(),
            "I1: datagram {number} is delivered twice: {entry:?}"
        );
        let same = entry.flow == flow && is_payload(number, entry.size, bytes);
        assert!(same, "I2: datagram {number} is not delivered as it was sent: {entry:?}");
        (entry.delivered_at, entry.rank) = (Some(now), Some(self.deliveries));
        self.deliveries += 1;
    }

    /// Those whose bytes reached a receiver that could open them, but not the application.
    pub fn wrongly_lost(&self) -> impl Iterator<Item = (u32, &Datagram)> {
        (0..).zip(&self.datagrams).filter(|(_, d)| d.openable && d.delivered_at.is_none())
    }
}

impl Datagram {
    /// A datagram that nobody has taken any notice of.
    pub fn new(client: ClientNo, direction: Direction, flow: u16, size: usize) -> Self {
        Datagram {
            client,
            direction,
            flow,
            size,
            sent_at: Time::default(),
            sender: Incarnation(0),
            receiver: None,
            copies: 0,
            arrived_at: None,
            openable: false,
            delivered_at: None,
            rank: None,
            pieces: Pieces::default(),
        }
    }

    /// From sending to delivery.
    pub fn latency(&self) -> Option<Duration> {
        Some(self.delivered_at?.since(self.sent_at))
    }
}

/// The contents of datagram `number`: the number itself, then bytes that depend on it.
pub fn payload(number: u32, size: usize) -> Vec<u8> {
    (0..size).map(|at| byte_of(number, at)).collect()
}

fn is_payload(number: u32, size: usize, bytes: &[u8]) -> bool {
    bytes.len() == size && bytes.iter().enumerate().all(|(at, b)| *b == byte_of(number, at))
}

fn byte_of(number: u32, at: usize) -> u8 {
    match at {
        0..4 => number.to_le_bytes()[at],
        _ => {
            let mixed = number.wrapping_mul(0x9e37_79b1) ^ (at as u32).wrapping_mul(0x85eb_ca6b);
            (mixed >> 24) as u8
        }
    }
}
