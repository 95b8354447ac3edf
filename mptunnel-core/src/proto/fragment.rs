// SPDX-License-Identifier: BSD-2-Clause
//! Datagrams that do not fit a path: cut for that path, rejoined at the peer within a budget.
//!
//! ```text
//!  0                       8       9       10      12
//!  +-----------------------+-------+-------+-------+------------
//!  | number of the whole   | index | count | total | piece
//!  +-----------------------+-------+-------+-------+------------
//! ```
//!
//! The *number of the whole* is a packet number that the sender reserved for the datagram. On a
//! path that takes the datagram whole, it travels under that very number. A rejoined datagram is
//! accepted under it as well, so whole and rejoined copies exclude each other in the one window.

use super::budget::MemoryBudget;
use super::codec::{Reader, Writer};
use super::drop::DropReason;
use super::time::Time;
use super::wire::{DATA_OVERHEAD, FRAGMENT_OVERHEAD};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// DATA kind: a whole datagram.
pub const KIND_WHOLE: u8 = 0;
/// DATA kind: a piece of one.
pub const KIND_FRAGMENT: u8 = 1;

/// Bytes between the inner header and the piece.
const HEAD_LEN: usize = FRAGMENT_OVERHEAD - DATA_OVERHEAD;
/// Unfinished datagrams of one session.
///
/// In redundant mode at 10,000 fragmented datagrams/s, 20 % loss and 250 ms of skew, about 900 wait.
const MAX_UNFINISHED: usize = 1_024;
/// How long an unfinished datagram waits for the rest: the skew that the window remembers.
const MAX_AGE: Duration = Duration::from_millis(2_500);

/// The fragment header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FragmentHead {
    /// The packet number reserved for the whole datagram.
    pub whole: u64,
    /// Which piece, from 0.
    pub index: u8,
    /// How many pieces, at least 2.
    pub count: u8,
    /// Length of the whole datagram in bytes.
    pub total: u16,
}

impl FragmentHead {
    /// The twelve bytes on the wire.
    pub fn encode(&self) -> [u8; HEAD_LEN] {
        Writer::new()
            .put(&self.whole.to_le_bytes())
            .put(&[self.index, self.count])
            .put(&self.total.to_le_bytes())
            .done()
    }

    /// Splits a fragment's body into header and piece, if they can belong together.
    fn decode(body: &[u8]) -> Option<(FragmentHead, &[u8])> {
        let mut r = Reader(body);
        let head =
            FragmentHead { whole: r.u64()?, index: r.u8()?, count: r.u8()?, total: r.u16()? };
        let plausible = head.count >= 2 && head.index < head.count && !r.0.is_empty();
        plausible.then_some((head, r.0))
    }
}

/// How a datagram is cut: `count` pieces of `piece` bytes, the last one shorter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cut {
    /// Number of pieces.
    pub count: u8,
    /// Bytes in each piece but the last.
    pub piece: usize,
}

impl Cut {
    /// The fewest pieces of equal size with which `total` bytes fit packets of `max_packet` bytes;
    /// `None` if that takes more than 255.
    pub fn of(total: usize, max_packet: usize) -> Option<Cut> {
        let room = max_packet.checked_sub(FRAGMENT_OVERHEAD).filter(|room| *room > 0)?;
        let count = total.div_ceil(room).max(2);
        Some(Cut { count: u8::try_from(count).ok()?, piece: total.div_ceil(count) })
    }
}

/// The unfinished datagrams of one session, within a budget of bytes, number and age.
pub struct Rejoiner {
    /// The largest datagram that both ends accept.
    largest: usize,
    memory: usize,
    /// What all sessions of the endpoint may hold.
    shared: Arc<MemoryBudget>,
    used: usize,
    unfinished: VecDeque<Unfinished>,
    evicted: u64,
}

struct Unfinished {
    whole: u64,
    flow: u16,
    count: u8,
    since: Time,
    bytes: Vec<u8>,
    piece: Option<usize>,
    have: [u64; 4],
    missing: u8,
}

/// A datagram that has all its pieces.
#[derive(Debug, Eq, PartialEq)]
pub struct Rejoined {
    /// The number under which it must be accepted.
    pub whole: u64,
    /// Which application.
    pub flow: u16,
    /// The datagram.
    pub bytes: Vec<u8>,
}

impl Rejoiner {
    /// Takes datagrams of up to `largest` bytes, holds at most `memory` bytes of unfinished ones, and all that share `shared` together
    /// at most its limit.
    pub fn new(largest: usize, memory: usize, shared: Arc<MemoryBudget>) -> Self {
        Rejoiner { largest, memory, shared, used: 0, unfinished: VecDeque::new(), evicted: 0 }
    }

    /// Bytes held by unfinished datagrams.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Unfinished datagrams given up for lack of time or room.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Takes the body of a fragment; returns the datagram when it was the last missing piece.
    pub fn add(
        &mut self,
        now: Time,
        flow: u16,
        body: &[u8],
    ) -> Result<Option<Rejoined>, DropReason> {
        let (head, piece) = FragmentHead::decode(body).ok_or(DropReason::Malformed)?;
        self.expire(now);
        let position = self.unfinished.iter().rposition(|u| u.whole == head.whole);
        let position = match position {
            Some(position) => position,
            None => self.start(now, flow, &head)?,
        };
        let entry = self.unfinished.get_mut(position).ok_or(DropReason::Malformed)?;
        if entry.place(flow, &head, piece).is_none() {
            self.remove(position);
            return Err(DropReason::Malformed);
        }
        if entry.missing > 0 {
            return Ok(None);
        }
        Ok(self.remove(position).map(|done| Rejoined {
            whole: done.whole,
            flow: done.flow,
            bytes: done.bytes,
        }))
    }

    /// Gives up what has waited too long.
    pub fn expire(&mut self, now: Time) {
        while self.unfinished.front().is_some_and(|u| now.since(u.since) > MAX_AGE) {
            self.evict_oldest();
        }
    }

    fn start(&mut self, now: Time, flow: u16, head: &FragmentHead) -> Result<usize, DropReason> {
        let total = usize::from(head.total);
        if total < usize::from(head.count) || total > self.largest {
            return Err(DropReason::Malformed);
        }
        if total > self.memory {
            return Err(DropReason::ReassemblyEvicted);
        }
        while self.unfinished.len() >= MAX_UNFINISHED
            || self.used.saturating_add(total) > self.memory
        {
            self.evict_oldest();
        }
        // Room that others hold is theirs: a session makes room by giving up its own.
        while !self.shared.reserve(total) {
            if self.unfinished.is_empty() {
                self.shared.count_refusal();
                return Err(DropReason::ReassemblyEvicted);
            }
            self.evict_oldest();
        }
        self.used = self.used.saturating_add(total);
        self.unfinished.push_back(Unfinished {
            whole: head.whole,
            flow,
            count: head.count,
            since: now,
            bytes: vec![0; total],
            piece: None,
            have: [0; 4],
            missing: head.count,
        });
        Ok(self.unfinished.len().saturating_sub(1))
    }

    fn evict_oldest(&mut self) {
        if self.remove(0).is_some() {
            self.evicted = self.evicted.saturating_add(1);
        }
    }

    fn remove(&mut self, position: usize) -> Option<Unfinished> {
        let gone = self.unfinished.remove(position)?;
        self.used = self.used.saturating_sub(gone.bytes.len());
        self.shared.release(gone.bytes.len());
        Some(gone)
    }
}

impl Drop for Rejoiner {
    fn drop(&mut self) {
        self.shared.release(self.used);
    }
}

impl Unfinished {
    /// Puts one piece in its place; `None` if it contradicts the others.
    fn place(&mut self, flow: u16, head: &FragmentHead, piece: &[u8]) -> Option<()> {
        let total = self.bytes.len();
        let same =
            self.flow == flow && self.count == head.count && total == usize::from(head.total);
        let last = head.index.checked_add(1)? == self.count;
        let offset = if last {
            total.checked_sub(piece.len())?
        } else {
            usize::from(head.index).checked_mul(piece.len())?
        };
        // The size of all pieces but the last follows from any one of them.
        let size = if last {
            offset.checked_div(usize::from(head.index)).filter(|size| {
                size.checked_mul(usize::from(head.index)) == Some(offset) && *size >= piece.len()
            })?
        } else {
            piece.len()
        };
        let consistent = same && *self.piece.get_or_insert(size) == size;
        let end = offset.checked_add(piece.len())?;
        let room =
            self.bytes.get_mut(offset..end).filter(|_| consistent && (last || end < total))?;
        room.copy_from_slice(piece);
        let word = self.have.get_mut(usize::from(head.index >> 6))?;
        let bit = 1u64 << (head.index & 63);
        if *word & bit == 0 {
            *word |= bit;
            self.missing = self.missing.checked_sub(1)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejoiner(memory: usize) -> Rejoiner {
        Rejoiner::new(65_507, memory, Arc::new(MemoryBudget::new(MemoryBudget::DEFAULT)))
    }

    fn bodies(whole: u64, datagram: &[u8], max_packet: usize) -> Vec<Vec<u8>> {
        let cut = Cut::of(datagram.len(), max_packet).unwrap();
        let pieces: Vec<&[u8]> = datagram.chunks(cut.piece).collect();
        assert_eq!(pieces.len(), usize::from(cut.count));
        (0u8..)
            .zip(pieces)
            .map(|(index, piece)| {
                let total = datagram.len() as u16;
                let head = FragmentHead { whole, index, count: cut.count, total };
                assert!(piece.len() + FRAGMENT_OVERHEAD <= max_packet);
                [&head.encode()[..], piece].concat()
            })
            .collect()
    }

    fn datagram(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    #[test]
    fn pieces_in_any_order_give_the_datagram_back() {
        for (len, mtu) in [(1400, 1300), (9000, 1400), (60_000, 1400), (65_507, 548), (50, 74)] {
            let whole = datagram(len);
            let mut pieces = bodies(9, &whole, mtu);
            for turn in 0..3 {
                pieces.rotate_left(turn);
                if turn == 2 {
                    pieces.reverse();
                }
                let mut rejoiner = rejoiner(1 << 20);
                let mut out = Vec::new();
                for piece in &pieces {
                    out.extend(rejoiner.add(Time::default(), 3, piece).unwrap());
                }
                assert_eq!(out, [Rejoined { whole: 9, flow: 3, bytes: whole.clone() }]);
                assert_eq!(rejoiner.used(), 0);
            }
        }
    }

    #[test]
    fn a_datagram_that_needs_more_than_255_pieces_is_not_cut() {
        assert_eq!(Cut::of(65_507, 300), None);
        assert_eq!(Cut::of(65_507, FRAGMENT_OVERHEAD), None);
        assert_eq!(Cut::of(255 * 10, FRAGMENT_OVERHEAD + 10).unwrap().count, 255);
    }

    #[test]
    fn a_million_unfinished_datagrams_stay_within_the_budget() {
        let mut rejoiner = rejoiner(100_000);
        for whole in 0..1_000_000u64 {
            let head = FragmentHead { whole, index: 0, count: 2, total: 3000 };
            let body = [&head.encode()[..], &[1; 1500]].concat();
            rejoiner.add(Time::from_micros(whole), 0, &body).unwrap();
            assert!(rejoiner.used() <= 100_000 && rejoiner.unfinished.len() <= MAX_UNFINISHED);
        }
        assert_eq!(rejoiner.evicted(), 1_000_000 - 100_000 / 3000);
    }

    #[test]
    fn sessions_share_one_limit_and_take_nothing_from_each_other() {
        let shared = Arc::new(MemoryBudget::new(5_000));
        let body = |whole| {
            let head = FragmentHead { whole, index: 0, count: 2, total: 2_000 };
            [&head.encode()[..], &[1; 1000]].concat()
        };
        let mut greedy = Rejoiner::new(65_507, 1 << 20, shared.clone());
        for whole in 0..10 {
            assert_eq!(greedy.add(Time::default(), 0, &body(whole)), Ok(None));
        }
        assert_eq!((greedy.used(), shared.used()), (4_000, 4_000));

        let mut other = Rejoiner::new(65_507, 1 << 20, shared.clone());
        let refused = other.add(Time::default(), 0, &body(0));
        assert_eq!((refused, shared.refused()), (Err(DropReason::ReassemblyEvicted), 1));

        drop(greedy);
        assert_eq!(other.add(Time::default(), 0, &body(0)), Ok(None));
        drop(other);
        assert_eq!(shared.used(), 0);
    }

    #[test]
    fn an_unfinished_datagram_is_given_up_after_two_and_a_half_seconds() {
        let pieces = bodies(1, &datagram(2000), 1400);
        let mut rejoiner = rejoiner(1 << 20);
        rejoiner.add(Time::default(), 0, &pieces[0]).unwrap();

        rejoiner.expire(Time::default() + MAX_AGE);
        assert_eq!(rejoiner.evicted(), 0);
        rejoiner.expire(Time::default() + MAX_AGE + Duration::from_micros(1));

        assert_eq!((rejoiner.evicted(), rejoiner.used()), (1, 0));
    }

    #[test]
    fn contradictory_pieces_are_refused_and_free_their_memory() {
        let good = FragmentHead { whole: 1, index: 0, count: 3, total: 30 };
        let cases: [(FragmentHead, usize); 7] = [
            (FragmentHead { index: 1, ..good }, 11),
            (FragmentHead { index: 2, ..good }, 11),
            (FragmentHead { index: 2, ..good }, 9),
            (FragmentHead { index: 1, total: 31, ..good }, 10),
            (FragmentHead { index: 1, count: 4, ..good }, 10),
            (FragmentHead { index: 3, ..good }, 10),
            (FragmentHead { index: 1, count: 1, ..good }, 10),
        ];
        for (bad, len) in cases {
            let mut rejoiner = rejoiner(1000);
            rejoiner.add(Time::default(), 0, &[&good.encode()[..], &[1; 10]].concat()).unwrap();

            let body = [&bad.encode()[..], &vec![1; len]].concat();

            assert_eq!(
                rejoiner.add(Time::default(), 0, &body),
                Err(DropReason::Malformed),
                "{bad:?} {len}"
            );
        }
        for short in 0..=HEAD_LEN {
            let mut rejoiner = rejoiner(1000);
            let body = [&good.encode()[..], &[1; 10]].concat();
            assert!(rejoiner.add(Time::default(), 0, &body[..short]).is_err());
            assert_eq!(rejoiner.used(), 0);
        }
    }
}
