// SPDX-License-Identifier: BSD-2-Clause
//! From a received datagram to what has to be done with it, without the control side.

use super::drop::{DropCounters, DropReason};
use super::fragment::{KIND_FRAGMENT, KIND_WHOLE, Rejoined};
use super::reorder::OrderCounters;
use super::replay::Freshness;
use super::route::{Route, Run};
use super::session::{Inner, Session};
use super::time::Time;
use super::wire::{FLOW_ALL, Header, Kind};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// All sessions of an endpoint by the index that we chose for them, and the drop counters.
///
/// Receivers read, the control side writes when a session begins or ends.
#[derive(Default)]
pub struct DataPlane {
    sessions: RwLock<HashMap<u32, Arc<Session>, BuildHasherDefault<IndexHasher>>>,
    generation: AtomicU64,
    /// Why datagrams were dropped.
    pub drops: DropCounters,
    /// Packets whose source is no path's active address, so that no path can be credited.
    pub unattributed: AtomicU64,
    /// What became of datagrams that were to be put in order.
    pub order: OrderCounters,
}

/// The session of the previous packet: most batches need the table once. One for each receiver.
#[derive(Default)]
pub struct LastSession {
    generation: u64,
    session: Option<Arc<Session>>,
    /// The slot of the last route of that session, and of which version of its index.
    origin: Option<(Route, u32, Option<u8>)>,
    tally: Tally,
    batching: bool,
}

/// DATA of one session and one route that has not been counted yet: counting a run of packets at
/// once is several times cheaper than counting each.
#[derive(Default)]
struct Tally {
    new: Run,
    copies: Run,
    heard_us: u64,
}

impl LastSession {
    /// Counts packets in batches: its user [settles](DataPlane::settle) at the end of each.
    pub fn batching() -> Self {
        LastSession { batching: true, ..LastSession::default() }
    }
}

/// What a received datagram turned out to be.
pub enum Received<'a> {
    /// The application's datagram.
    Data {
        /// Under which session. If it is not confirmed yet, the control side has to promote it
        /// before the datagram is delivered.
        session: &'a Arc<Session>,
        /// Which application.
        flow: u16,
        /// On which path slot it came, if its source is one's active address.
        path: Option<u8>,
        /// Its number, which is later than those of all that were sent before it.
        number: u64,
        /// Its place among the datagrams of its flow; 0 if the sender does not count them.
        mark: u16,
        /// The datagram.
        payload: Payload<'a>,
    },
    /// Frames for the control side.
    Control {
        /// Under which session; it may have to be promoted.
        session: &'a Arc<Session>,
        /// The frames, not parsed yet.
        inner: &'a [u8],
        /// Length of the whole packet, for the credit of an address that is not validated.
        len: usize,
    },
    /// A handshake message, or a CTRL of an unknown session: for the control side, which drops or
    /// answers it.
    Stranger(Kind, &'a [u8]),
    /// A piece of a datagram was put aside.
    Stored {
        /// Under which session; it may have to be promoted.
        session: &'a Arc<Session>,
    },
    /// Of no use; already counted.
    Dropped(DropReason),
}

/// A received datagram: in the receive buffer, or rejoined from pieces.
pub enum Payload<'a> {
    /// Decrypted where it was received.
    InPlace(&'a [u8]),
    /// Put together from pieces.
    Rejoined(Vec<u8>),
}

impl Payload<'_> {
    /// The datagram's bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Payload::InPlace(bytes) => bytes,
            Payload::Rejoined(bytes) => bytes,
        }
    }
}

impl DataPlane {
    /// Takes a session into the table; `false` if its index is taken.
    pub fn insert(&self, session: Arc<Session>) -> bool {
        let mut table = self.sessions.write();
        match table.entry(session.local_index()) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(room) => {
                room.insert(session);
                true
            }
        }
    }

    /// Takes the session out of the table, and out of every receiver's memory.
    pub fn remove(&self, index: u32) {
        self.sessions.write().remove(&index);
        self.generation.fetch_add(1, Relaxed);
    }

    /// Whether a session has this index.
    pub fn contains(&self, index: u32) -> bool {
        self.sessions.read().contains_key(&index)
    }

    /// The session with this index.
    pub fn session(&self, index: u32) -> Option<Arc<Session>> {
        self.sessions.read().get(&index).cloned()
    }

    /// How many sessions there are: current, previous and pending.
    pub fn len(&self) -> usize {
        self.sessions.read().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes one datagram as far as it goes without the control side: to the application's bytes,
    /// to the frames of a CTRL, or to a counter. Decrypts in place.
    pub fn receive<'a>(
        &self,
        now: Time,
        route: &Route,
        datagram: &'a mut [u8],
        last: &'a mut LastSession,
    ) -> Received<'a> {
        match self.open(now, route, datagram, last) {
            Ok(received) => received,
            Err(reason) => Received::Dropped(self.drops.count(reason)),
        }
    }

    fn open<'a>(
        &self,
        now: Time,
        route: &Route,
        datagram: &'a mut [u8],
        last: &'a mut LastSession,
    ) -> Result<Received<'a>, DropReason> {
        let kind = Kind::of(datagram)?;
        if !matches!(kind, Kind::Ctrl | Kind::Data | Kind::DataClear) {
            return Ok(Received::Stranger(kind, datagram));
        }
        let header = Header::decode(kind, datagram).ok_or(DropReason::BadLength)?;
        self.find(header.index, last);
        let LastSession { session: Some(session), origin, tally, batching, .. } = last else {
            return match kind {
                Kind::Ctrl => Ok(Received::Stranger(kind, datagram)),
                _ => Err(DropReason::UnknownIndex),
            };
        };
        let version = session.routes.version();
        let path = match origin {
            Some((known, at, path)) if *at == version && known == route => *path,
            _ => {
                if let Some((_, _, path)) = origin {
                    self.count(session, *path, tally);
                }
                let path = session.routes.slot(route);
                *origin = Some((*route, version, path));
                path
            }
        };
        let len = datagram.len();
        let sampled = path.filter(|_| kind != Kind::Ctrl && session.arrivals.wants(header.pn));
        if let Some(path) = sampled {
            session.on_sampled(now, &header, path, datagram);
        }
        let inner = match session.open(now, &header, datagram) {
            Ok(inner) => inner,
            Err(DropReason::Duplicate) => {
                tally.copies.add(len);
                if !*batching {
                    self.count(session, path, tally);
                }
                return Ok(Received::Dropped(DropReason::Duplicate));
            }
            Err(reason) => {
                if reason == DropReason::TooOld {
                    session.on_late();
                }
                return Err(reason);
            }
        };
        if let Some(path) = sampled {
            session.arrivals.on_first(now, header.pn, path);
        }
        tally.new.add(len);
        tally.heard_us = now.as_micros();
        // The control side compares counters with what its peer tells.
        if !*batching || matches!(inner, Inner::Ctrl(_)) {
            self.count(session, path, tally);
        }
        let earn = || path.map(|slot| session.path(slot).on_data(len));
        match inner {
            Inner::Ctrl(inner) => Ok(Received::Control { session, inner, len }),
            Inner::Data { flow: FLOW_ALL, .. } => Err(DropReason::Malformed),
            Inner::Data { flow, kind: KIND_WHOLE, mark, body } => {
                earn();
                session.on_data(now);
                let (number, payload) = (header.pn, Payload::InPlace(body));
                Ok(Received::Data { session, flow, path, number, mark, payload })
            }
            Inner::Data { flow, kind: KIND_FRAGMENT, mark, body } => {
                session.on_data(now);
                let done = rejoin(session, now, flow, header.pn, body)?;
                earn();
                let Some(done) = done else {
                    return Ok(Received::Stored { session });
                };
                let (number, payload) = (done.whole, Payload::Rejoined(done.bytes));
                Ok(Received::Data { session, flow, path, number, mark, payload })
            }
            Inner::Data { .. } => Err(DropReason::UnknownKind),
        }
    }

    /// Counts what a [batching](LastSession::batching) receiver has not counted yet.
    pub fn settle(&self, last: &mut LastSession) {
        if let (Some(session), Some((_, _, path))) = (&last.session, last.origin) {
            self.count(session, path, &mut last.tally);
        }
    }

    fn count(&self, session: &Session, path: Option<u8>, tally: &mut Tally) {
        let Tally { new, copies, heard_us } = std::mem::take(tally);
        if new.packets == 0 && copies.packets == 0 {
            return;
        }
        if copies.packets > 0 {
            self.drops.count_many(DropReason::Duplicate, copies.packets);
        }
        match path {
            Some(slot) => {
                session.path(slot).on_received(new, copies, heard_us);
                if copies.packets > 0 {
                    session.on_copies(copies.bytes);
                }
            }
            None => {
                let packets = new.packets.saturating_add(copies.packets);
                self.unattributed.fetch_add(packets, Relaxed);
            }
        }
    }

    /// Makes the session with this index the last one, if there is any.
    fn find(&self, index: u32, last: &mut LastSession) {
        let generation = self.generation.load(Relaxed);
        let known = last.generation == generation
            && last.session.as_ref().is_some_and(|s| s.local_index() == index);
        if !known {
            self.settle(last);
            last.origin = None;
            last.session = self.sessions.read().get(&index).cloned();
            last.generation = generation;
        }
    }
}

/// Adds a piece; the datagram it completed, unless a copy of it has been delivered already.
fn rejoin(
    session: &Session,
    now: Time,
    flow: u16,
    pn: u64,
    body: &[u8],
) -> Result<Option<Rejoined>, DropReason> {
    let whole = body.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    // The number of the whole is taken before those of its pieces.
    if whole.is_none_or(|whole| whole >= pn) {
        return Err(DropReason::Malformed);
    }
    if whole.is_some_and(|whole| !session.is_new(whole)) {
        return Err(DropReason::Duplicate);
    }
    let Some(done) = session.rejoin.lock().add(now, flow, body)? else {
        return Ok(None);
    };
    match session.accept(now, done.whole) {
        Freshness::New => Ok(Some(done)),
        Freshness::Seen => Err(DropReason::Duplicate),
        Freshness::TooOld => Err(DropReason::TooOld),
    }
}

/// Session indices are random numbers that we chose ourselves: they are their own hash.
#[derive(Default)]
struct IndexHasher(u64);

impl Hasher for IndexHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u32(&mut self, n: u32) {
        // The table takes its bucket from the low bits and its tag from the high ones.
        self.0 = u64::from(n) | (u64::from(n) << 32);
    }
}
