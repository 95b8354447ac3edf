// SPDX-License-Identifier: BSD-2-Clause
//! The answers to INITs, by the hash of their core: however many copies of one INIT come, from
//! wherever, they get the same bytes and make one session.

use super::super::time::Time;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::net::SocketAddr;
use std::time::Duration;

/// Unconfirmed entries at most.
pub const MAX_PENDING: usize = 256;
/// Of these, what one source address and port may have under load.
const MAX_PENDING_PER_SOURCE: usize = 4;
/// Confirmed entries at most: more than the default limit of handshakes leaves in their life.
const MAX_CONFIRMED: usize = 32_768;
/// How long an entry waits for a packet under its keys: two attempts of 8 s and a round trip.
pub const PENDING_LIFE: Duration = Duration::from_secs(20);
/// How long the answer is kept once it was used: copies of the INIT may still be on the way.
const CONFIRMED_LIFE: Duration = Duration::from_secs(30);
/// Sources remembered for one entry: one for each path slot.
const SOURCES: usize = 32;
/// Answers to one source: an attempt of 8 s at 250 ms sends 32 copies; cookies and hints add some.
const REPLIES: u32 = 40;
/// Between two answers to one source.
const REPLY_GAP: Duration = Duration::from_millis(50);

/// H(core) of an INIT.
pub type CoreHash = [u8; 32];

/// Stored answers.
#[derive(Default)]
pub struct RespCache {
    next: u64,
    by_core: HashMap<CoreHash, u64>,
    by_index: HashMap<u32, u64>,
    // Numbered in the order of their birth, so that the oldest come first.
    pending: BTreeMap<u64, Entry>,
    confirmed: BTreeMap<u64, Entry>,
}

struct Entry {
    core: CoreHash,
    /// From where its first copy came.
    source: SocketAddr,
    resp: Vec<u8>,
    /// The session's index; 0 for a refusal.
    index: u32,
    /// Whether the client had a session already: its rekey goes before strangers.
    known: bool,
    born: Time,
    replies: VecDeque<Reply>,
}

struct Reply {
    source: SocketAddr,
    count: u32,
    last: Time,
}

/// What the cache has for an INIT.
pub enum Cached<'a> {
    /// Never seen.
    Miss,
    /// Send these bytes.
    Reply(&'a [u8]),
    /// Seen, but this source has had its share.
    Spent,
}

impl RespCache {
    /// Looks up a core on behalf of `source`, and charges the answer to it.
    pub fn lookup(&mut self, now: Time, core: &CoreHash, source: SocketAddr) -> Cached<'_> {
        let Some(id) = self.by_core.get(core) else { return Cached::Miss };
        let entry = match self.pending.get_mut(id) {
            Some(entry) => Some(entry),
            None => self.confirmed.get_mut(id),
        };
        let Some(entry) = entry else { return Cached::Miss };
        if entry.charge(now, source) { Cached::Reply(&entry.resp) } else { Cached::Spent }
    }

    /// Stores an answer. Returns the index of a pending session that had to make room; under load
    /// (`crowded`) one of the same source, if that has four.
    #[allow(clippy::too_many_arguments, reason = "every one of them ends up in the entry")]
    pub fn insert(
        &mut self,
        now: Time,
        core: CoreHash,
        source: SocketAddr,
        resp: Vec<u8>,
        index: u32,
        known: bool,
        crowded: bool,
    ) -> Option<u32> {
        let evicted = match crowded.then(|| self.oldest_of_a_full(source)).flatten() {
            Some(id) => self.remove_pending(id),
            None if self.pending.len() >= MAX_PENDING => self.evict(),
            None => None,
        };
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let mut entry = Entry {
            core,
            source,
            resp,
            index,
            known,
            born: now,
            replies: VecDeque::with_capacity(1),
        };
        entry.charge(now, source);
        self.by_core.insert(core, id);
        if index != 0 {
            self.by_index.insert(index, id);
        }
        self.pending.insert(id, entry);
        evicted.filter(|index| *index != 0)
    }

    /// The session with this index has seen its first packet.
    pub fn confirm(&mut self, index: u32) {
        let Some(id) = self.by_index.remove(&index) else { return };
        if let Some(entry) = self.pending.remove(&id) {
            self.confirmed.insert(id, entry);
        }
        if self.confirmed.len() > MAX_CONFIRMED
            && let Some((_, oldest)) = self.confirmed.pop_first()
        {
            self.by_core.remove(&oldest.core);
        }
    }

    /// Forgets what is too old; the indices of sessions that were never confirmed.
    pub fn expire(&mut self, now: Time) -> Vec<u32> {
        let mut gone = Vec::new();
        while let Some(first) = self.pending.first_entry() {
            if now.since(first.get().born) < PENDING_LIFE {
                break;
            }
            let entry = first.remove();
            self.by_core.remove(&entry.core);
            self.by_index.remove(&entry.index);
            gone.extend(Some(entry.index).filter(|index| *index != 0));
        }
        while let Some(first) = self.confirmed.first_entry() {
            if now.since(first.get().born) < CONFIRMED_LIFE {
                break;
            }
            self.by_core.remove(&first.remove().core);
        }
        give_back_room(&mut self.by_core);
        give_back_room(&mut self.by_index);
        gone
    }

    /// When something is due to be forgotten.
    pub fn deadline(&self) -> Option<Time> {
        let pending = self.pending.first_key_value().map(|(_, e)| e.born + PENDING_LIFE);
        let confirmed = self.confirmed.first_key_value().map(|(_, e)| e.born + CONFIRMED_LIFE);
        [pending, confirmed].into_iter().flatten().min()
    }

    /// Gives up the oldest refusal, else the oldest stranger, else the oldest of all.
    fn evict(&mut self) -> Option<u32> {
        let oldest =
            |is: fn(&Entry) -> bool| self.pending.iter().find(|(_, e)| is(e)).map(|(id, _)| *id);
        // Making a refusal anew costs a key exchange, losing a session costs the client its attempt.
        let cheapest = oldest(|e| e.index == 0).or_else(|| oldest(|e| !e.known));
        let id = cheapest.or_else(|| self.pending.first_key_value().map(|(id, _)| *id))?;
        self.remove_pending(id)
    }

    /// The oldest entry that `source` made, if it has as many as it may under load.
    fn oldest_of_a_full(&self, source: SocketAddr) -> Option<u64> {
        let mut its = self.pending.iter().filter(|(_, e)| e.source == source).map(|(id, _)| *id);
        let oldest = its.next()?;
        (its.count() >= MAX_PENDING_PER_SOURCE.saturating_sub(1)).then_some(oldest)
    }

    fn remove_pending(&mut self, id: u64) -> Option<u32> {
        let entry = self.pending.remove(&id)?;
        self.by_core.remove(&entry.core);
        self.by_index.remove(&entry.index);
        Some(entry.index)
    }
}

/// A table keeps the room of its busiest day; this gives it back once seven eighths stand empty.
fn give_back_room<K: Eq + Hash, V>(table: &mut HashMap<K, V>) {
    if table.len() < table.capacity() / 8 {
        table.shrink_to(table.len().saturating_mul(2));
    }
}

impl Entry {
    /// Whether one more answer may go to `source` now.
    fn charge(&mut self, now: Time, source: SocketAddr) -> bool {
        match self.replies.iter_mut().find(|r| r.source == source) {
            Some(reply) => {
                let allowed = reply.count < REPLIES && now.since(reply.last) >= REPLY_GAP;
                if allowed {
                    reply.count = reply.count.saturating_add(1);
                    reply.last = now;
                }
                allowed
            }
            None => {
                if self.replies.len() >= SOURCES {
                    self.replies.pop_front();
                }
                self.replies.push_back(Reply { source, count: 1, last: now });
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    fn source(n: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], n))
    }

    fn core(n: u32) -> CoreHash {
        let mut core = [0; 32];
        core[..4].copy_from_slice(&n.to_le_bytes());
        core
    }

    #[test]
    fn a_source_gets_forty_answers_at_least_50_ms_apart() {
        let mut cache = RespCache::default();
        cache.insert(at(0), core(1), source(1), vec![7], 5, false, false);
        let answered = (1..10_000)
            .filter(|ms| matches!(cache.lookup(at(*ms), &core(1), source(1)), Cached::Reply([7])))
            .count();
        assert_eq!(answered, 39);
        assert!(matches!(cache.lookup(at(10_000), &core(1), source(2)), Cached::Reply(_)));
    }

    #[test]
    fn one_source_that_sprays_does_not_starve_another() {
        let mut cache = RespCache::default();
        cache.insert(at(0), core(1), source(1), vec![7], 5, false, false);
        for n in 2..2_000 {
            cache.lookup(at(1), &core(1), source(n));
        }
        assert!(matches!(cache.lookup(at(100), &core(1), source(1)), Cached::Reply(_)));
    }

    #[test]
    fn strangers_make_room_first_and_confirmed_entries_never() {
        let mut cache = RespCache::default();
        cache.insert(at(0), core(1), source(1), vec![], 1, false, false);
        cache.confirm(1);
        cache.insert(at(0), core(2), source(1), vec![], 2, true, false);
        for n in 3..3 + MAX_PENDING as u32 - 1 {
            assert_eq!(cache.insert(at(0), core(n), source(1), vec![], n, false, false), None);
        }

        assert_eq!(
            cache.insert(at(1), core(9_999), source(1), vec![], 9_999, false, false),
            Some(3)
        );

        assert_eq!(cache.pending.len(), MAX_PENDING);
        for kept in [1, 2] {
            assert!(matches!(cache.lookup(at(99), &core(kept), source(1)), Cached::Reply(_)));
        }
    }

    #[test]
    fn a_pending_entry_lives_20_s_and_a_confirmed_one_30_s() {
        let mut cache = RespCache::default();
        cache.insert(at(0), core(1), source(1), vec![], 1, false, false);
        cache.insert(at(0), core(2), source(1), vec![], 2, false, false);
        cache.confirm(2);

        assert!(cache.expire(at(19_999)).is_empty());
        assert_eq!(cache.expire(at(20_000)), [1]);
        assert!(matches!(cache.lookup(at(29_999), &core(2), source(2)), Cached::Reply(_)));
        cache.expire(at(30_000));
        assert!(matches!(cache.lookup(at(30_000), &core(2), source(2)), Cached::Miss));
        assert_eq!(cache.deadline(), None);
        assert!(cache.by_core.is_empty() && cache.by_index.is_empty());
    }

    #[test]
    fn the_room_of_a_storm_is_given_back_after_it() {
        let mut cache = RespCache::default();
        for n in 1..=10_000 {
            cache.insert(at(0), core(n), source(1), vec![], n, false, false);
            cache.confirm(n);
        }
        assert!(cache.by_core.capacity() >= 10_000);

        cache.expire(at(30_000));

        assert_eq!(cache.by_core.capacity(), 0);
    }

    #[test]
    fn under_load_a_source_has_four_entries_and_its_own_oldest_makes_room() {
        let mut cache = RespCache::default();
        for n in 1..=4 {
            assert_eq!(cache.insert(at(0), core(n), source(1), vec![], n, false, true), None);
        }

        assert_eq!(cache.insert(at(1), core(5), source(2), vec![], 5, false, true), None);
        assert_eq!(cache.insert(at(1), core(6), source(1), vec![], 6, false, true), Some(1));
        assert_eq!(cache.insert(at(1), core(7), source(1), vec![], 7, false, false), None);
    }

    #[test]
    fn a_refusal_makes_room_before_any_session() {
        let mut cache = RespCache::default();
        cache.insert(at(0), core(0), source(1), vec![], 9_999, false, false);
        for n in 1..MAX_PENDING as u32 {
            assert_eq!(cache.insert(at(0), core(n), source(1), vec![], 0, false, false), None);
        }

        assert_eq!(cache.insert(at(1), core(9_999), source(1), vec![], 0, false, false), None);

        assert!(matches!(cache.lookup(at(99), &core(0), source(1)), Cached::Reply(_)));
        assert!(matches!(cache.lookup(at(99), &core(1), source(1)), Cached::Miss));
    }
}
