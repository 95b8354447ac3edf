// SPDX-License-Identifier: BSD-2-Clause
//! One session's data plane: it numbers, seals, opens and accepts packets, from any thread.
//!
//! Nothing in here waits for the control side. Senders share one atomic counter, receivers the
//! window's own lock; keys and indices never change during a session's life.

use super::arrivals::{Arrivals, SentLog};
use super::budget::MemoryBudget;
use super::crypto::{AeadKey, Cipher, Secret, UNIT, mac};
use super::drop::DropReason;
use super::fragment::Rejoiner;
use super::num::widen;
use super::reorder::{Era, MARKS, Marker};
use super::replay::{Freshness, ReplayWindow};
use super::route::{PathCounters, RouteIndex};
use super::time::Time;
use super::wire::{
    DATA_HEAD_LEN, GUARD_LEN, HEADER_LEN, Header, Kind, MAX_PATHS, PN_LIMIT, TAG_LEN,
};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// After this a key seals and opens nothing (PROTOCOL.md, "Timers").
pub const REJECT_AFTER: Duration = Duration::from_secs(180);
/// Failed openings after which a key opens nothing: the integrity limit of ChaCha20-Poly1305 in
/// RFC 9001, section 6.6, and for packets as short as ours stricter than what AES-GCM needs.
const MAX_FORGERIES: u64 = 1 << 36;
/// Packets older than the window that are opened per second, only to learn the skew.
const TOO_OLD_SAMPLES_PER_S: u32 = 16;

/// Why a packet could not be sealed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SealError {
    /// The key has reached the end of its life or of its numbers.
    Exhausted,
    /// The output is not as long as the packet.
    BadRoom,
}

/// The packet numbers of one direction. A number is handed out once, ever.
pub struct PacketNumbers {
    next: AtomicU64,
    /// Units sealed beyond one for each number: there are some only where packets exceed [`UNIT`]
    /// and bytes count.
    surplus: AtomicU64,
    cipher: Cipher,
}

impl PacketNumbers {
    /// Starts at `first`, for keys of `cipher`.
    pub fn starting_at(first: u64, cipher: Cipher) -> Self {
        PacketNumbers { next: AtomicU64::new(first), surplus: AtomicU64::new(0), cipher }
    }

    /// Takes the next number. At the limit it refuses and leaves the counter where it is: an
    /// increment before the check would wrap after enough refused calls, and repeat a nonce.
    #[inline]
    pub fn take(&self) -> Option<u64> {
        let end = self.cipher.limit().saturating_sub(self.surplus.load(Relaxed));
        self.next.fetch_update(Relaxed, Relaxed, |pn| (pn < end).then(|| pn.wrapping_add(1))).ok()
    }

    /// Counts a plaintext of `len` bytes that is about to be sealed.
    pub fn charge(&self, len: usize) {
        if len.saturating_add(TAG_LEN) > UNIT && self.cipher.counts_bytes() {
            let more = len.saturating_add(TAG_LEN).saturating_sub(1) / UNIT;
            self.surplus.fetch_add(widen(more), Relaxed);
        }
    }

    /// The number that would be taken next.
    pub fn next(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// What was sealed so far, in the units of [`Cipher::limit`].
    pub fn used(&self) -> u64 {
        self.next().saturating_add(self.surplus.load(Relaxed))
    }
}

/// Keys and numbers from the handshake that make a [`Session`].
pub struct SessionSetup {
    /// The index that we chose; it is in what we receive.
    pub local_index: u32,
    /// The index that the peer chose; it is in what we send.
    pub remote_index: u32,
    /// When the keys were made.
    pub born: Time,
    /// What all keys here are for.
    pub cipher: Cipher,
    /// Seals what we send.
    pub tx: AeadKey,
    /// Opens what we receive.
    pub rx: AeadKey,
    /// The keys for readable DATA, if that was negotiated: for sending and receiving.
    pub clear: Option<(AeadKey, AeadKey)>,
    /// Guards the CTRL that we send: the recipient's.
    pub guard_tx: Secret<32>,
    /// Checks the CTRL that we receive: our own.
    pub guard_rx: Secret<32>,
    /// Proof of a NOSESSION for this session.
    pub token: [u8; 16],
    /// The largest datagram that both ends accept, in bytes.
    pub max_payload: usize,
    /// What was received.
    pub window: ReplayWindow,
    /// Bytes that unfinished datagrams may hold.
    pub reassembly_memory: usize,
    /// Bytes that those of all sessions of the endpoint may hold.
    pub reassembly_shared: Arc<MemoryBudget>,
    /// Seeds the index of routes.
    pub route_seed: u64,
    /// Whether a packet under these keys has been seen, or need not be.
    pub confirmed: bool,
    /// Whether the peer puts datagrams in order, and so wants them marked.
    pub marks: bool,
}

/// One session. Shared by senders, receivers and the control side; everything here is `&self`.
pub struct Session {
    local_index: u32,
    remote_index: u32,
    born: Time,
    tx: AeadKey,
    rx: AeadKey,
    clear: Option<(AeadKey, AeadKey)>,
    guard_tx: Secret<32>,
    guard_rx: Secret<32>,
    token: [u8; 16],
    max_payload: usize,
    numbers: PacketNumbers,
    /// Boxed: most peers ask for no marks.
    marker: Option<Box<Marker>>,
    window: Mutex<Window>,
    /// Pieces of datagrams that did not fit a path.
    pub(super) rejoin: Mutex<Rejoiner>,
    /// From a source to a path slot.
    pub routes: RouteIndex,
    /// Which paths brought a sample of what is received.
    pub arrivals: Arrivals,
    /// On which paths a sample of what is sent went.
    pub sent: SentLog,
    paths: [PathCounters; MAX_PATHS],
    peer: OnceLock<(u64, u32)>,
    confirmed: AtomicBool,
    superseded: AtomicBool,
    forgeries: AtomicU64,
    heard_us: AtomicU64,
    data_us: AtomicU64,
    copied_bytes: AtomicU64,
    late: AtomicU64,
}

/// What one session counts as a whole. Monotonic.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SessionCounts {
    /// Bytes of copies that came on a path, UDP payload.
    pub copied_bytes: u64,
    /// Packets that came when the window had passed them.
    pub late: u64,
}

impl std::ops::AddAssign for SessionCounts {
    fn add_assign(&mut self, other: Self) {
        self.copied_bytes = self.copied_bytes.saturating_add(other.copied_bytes);
        self.late = self.late.saturating_add(other.late);
    }
}

struct Window {
    ring: ReplayWindow,
    sample_second: u64,
    samples: u32,
}

/// What a packet held, decrypted in place.
#[derive(Debug, Eq, PartialEq)]
pub enum Inner<'a> {
    /// The frames of a CTRL.
    Ctrl(&'a [u8]),
    /// DATA: its flow, its kind, and what follows them.
    Data {
        /// Which application.
        flow: u16,
        /// Whole or a fragment.
        kind: u8,
        /// The place among the datagrams of its flow; 0 if the sender does not count them.
        mark: u16,
        /// What follows the inner header.
        body: &'a [u8],
    },
}

/// The head of what DATA holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DataHead {
    /// Which application.
    pub flow: u16,
    /// Whole or a fragment.
    pub kind: u8,
    /// 1 to [`MARKS`], or 0 for none.
    pub mark: u16,
}

/// In the byte of the kind: a mark is there, of which bits 1 to 6 are the upper six.
const MARKED: u8 = 0x80;

impl DataHead {
    #[inline]
    fn encode(self) -> [u8; DATA_HEAD_LEN] {
        let [flow_low, flow_high] = self.flow.to_le_bytes();
        if self.mark == 0 {
            return [flow_low, flow_high, self.kind, 0];
        }
        let [low, high] = self.mark.to_le_bytes();
        [flow_low, flow_high, MARKED | (high & 0x3f) << 1 | (self.kind & 1), low]
    }

    #[inline]
    fn decode([flow_low, flow_high, kind, low]: &[u8; DATA_HEAD_LEN]) -> Self {
        let flow = u16::from_le_bytes([*flow_low, *flow_high]);
        if kind & MARKED == 0 {
            return DataHead { flow, kind: *kind, mark: 0 };
        }
        let mark = u16::from_le_bytes([*low, (kind >> 1) & 0x3f]);
        DataHead { flow, kind: kind & 1, mark }
    }
}

const _: () = assert!(MARKS == 0x3fff);

impl Session {
    /// A session from a finished handshake.
    pub fn new(setup: SessionSetup) -> Self {
        Session {
            local_index: setup.local_index,
            remote_index: setup.remote_index,
            born: setup.born,
            tx: setup.tx,
            rx: setup.rx,
            clear: setup.clear,
            guard_tx: setup.guard_tx,
            guard_rx: setup.guard_rx,
            token: setup.token,
            max_payload: setup.max_payload,
            numbers: PacketNumbers::starting_at(0, setup.cipher),
            marker: setup.marks.then(Box::default),
            window: Mutex::new(Window { ring: setup.window, sample_second: 0, samples: 0 }),
            rejoin: Mutex::new(Rejoiner::new(
                setup.max_payload,
                setup.reassembly_memory,
                setup.reassembly_shared,
            )),
            routes: RouteIndex::new(setup.route_seed),
            arrivals: Arrivals::default(),
            sent: SentLog::default(),
            paths: [const { PathCounters::new() }; MAX_PATHS],
            peer: OnceLock::new(),
            confirmed: AtomicBool::new(setup.confirmed),
            superseded: AtomicBool::new(false),
            forgeries: AtomicU64::new(0),
            heard_us: AtomicU64::new(if setup.confirmed { setup.born.as_micros() } else { 0 }),
            data_us: AtomicU64::new(0),
            copied_bytes: AtomicU64::new(0),
            late: AtomicU64::new(0),
        }
    }

    /// The index in what we receive.
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// The index in what we send.
    pub fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// When the keys were made.
    pub fn born(&self) -> Time {
        self.born
    }

    /// The proof that a NOSESSION for this session carries.
    pub fn token(&self) -> &[u8; 16] {
        &self.token
    }

    /// The largest datagram that both ends accept, in bytes.
    pub fn max_payload(&self) -> usize {
        self.max_payload
    }

    /// Whether DATA travels readable.
    pub fn is_clear(&self) -> bool {
        self.clear.is_some()
    }

    /// Whether the keys are still young enough to be used.
    pub fn is_fresh(&self, now: Time) -> bool {
        now.since(self.born) < REJECT_AFTER
    }

    /// What the packets are sealed with.
    pub fn cipher(&self) -> Cipher {
        self.numbers.cipher
    }

    /// Whether the client should make new keys because of how much was sealed with ours.
    pub fn wants_rekey(&self) -> bool {
        self.numbers.used() >= self.cipher().rekey_after()
    }

    /// The peer that this session belongs to, once it is confirmed; 0 before, and at a client.
    pub fn peer(&self) -> u64 {
        self.peer.get().map_or(0, |(peer, _)| *peer)
    }

    /// Whether a packet under these keys has been seen (always true at the client).
    pub fn is_confirmed(&self) -> bool {
        self.confirmed.load(Relaxed)
    }

    /// Which process of its peer it belongs to, counted from 0.
    pub fn epoch(&self) -> u32 {
        self.peer.get().map_or(0, |(_, epoch)| *epoch)
    }

    /// Binds the session to a process of its peer for good.
    pub(super) fn confirm(&self, peer: u64, epoch: u32) {
        self.peer.get_or_init(|| (peer, epoch));
        self.confirmed.store(true, Relaxed);
    }

    /// Another process of the same peer has taken over: what still comes here opens no flow.
    pub(super) fn supersede(&self) {
        self.superseded.store(true, Relaxed);
    }

    /// Whether another process of the same peer has taken over.
    pub fn is_superseded(&self) -> bool {
        self.superseded.load(Relaxed)
    }

    /// When the last authenticated packet came in.
    pub fn heard(&self) -> Time {
        Time::from_micros(self.heard_us.load(Relaxed))
    }

    /// When the application last sent or received something.
    pub fn last_data(&self) -> Time {
        Time::from_micros(self.data_us.load(Relaxed))
    }

    /// Notes that the application sends or receives; returns when it last did.
    pub fn on_data(&self, now: Time) -> Time {
        let last = self.last_data();
        if last < now {
            self.data_us.store(now.as_micros(), Relaxed);
        }
        last
    }

    /// Copies came on a path, of so many bytes together.
    pub(super) fn on_copies(&self, bytes: u64) {
        self.copied_bytes.fetch_add(bytes, Relaxed);
    }

    /// A packet came when the window had passed it.
    pub(super) fn on_late(&self) {
        self.late.fetch_add(1, Relaxed);
    }

    /// What it counted as a whole.
    pub fn counts(&self) -> SessionCounts {
        SessionCounts {
            copied_bytes: self.copied_bytes.load(Relaxed),
            late: self.late.load(Relaxed),
        }
    }

    /// The counters of a path slot; slots above 31 share the last one.
    pub fn path(&self, slot: u8) -> &PathCounters {
        let [.., last] = &self.paths;
        self.paths.get(usize::from(slot)).unwrap_or(last)
    }

    /// Takes a packet number for a datagram of which the pieces travel under numbers of their own.
    pub fn reserve(&self) -> Option<u64> {
        self.numbers.take()
    }

    /// Takes the number of a datagram, and its mark if the peer wants one, else 0.
    #[inline]
    pub fn reserve_marked(&self, flow: u16) -> Option<(u64, u16)> {
        match &self.marker {
            None => self.numbers.take().map(|number| (number, 0)),
            Some(marker) => marker.take(&self.numbers, flow),
        }
    }

    /// How these keys stand to those before and after them.
    pub fn era(&self) -> Era {
        Era(self.born, self.local_index)
    }

    /// Seals one DATA or DATA_CLEAR packet without a mark into `out`, whose length must be exactly
    /// `DATA_OVERHEAD + extra.len() + payload.len()`.
    pub fn seal_data(
        &self,
        pn: u64,
        flow: u16,
        kind: u8,
        extra: &[u8],
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<(), SealError> {
        self.seal_with_head(pn, DataHead { flow, kind, mark: 0 }, extra, payload, out)
    }

    /// As [`seal_data`](Self::seal_data), with a mark.
    pub fn seal_with_head(
        &self,
        pn: u64,
        data: DataHead,
        extra: &[u8],
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<(), SealError> {
        let wire_kind = if self.is_clear() { Kind::DataClear } else { Kind::Data };
        let header = Header { kind: wire_kind, index: self.remote_index, pn }.encode();
        let (head, rest) = out.split_first_chunk_mut::<HEADER_LEN>().ok_or(SealError::BadRoom)?;
        let (body, tag) = rest.split_last_chunk_mut::<TAG_LEN>().ok_or(SealError::BadRoom)?;
        let (inner_head, after) =
            body.split_first_chunk_mut::<DATA_HEAD_LEN>().ok_or(SealError::BadRoom)?;
        let (extra_room, room) =
            after.split_at_mut_checked(extra.len()).ok_or(SealError::BadRoom)?;
        if room.len() != payload.len() {
            return Err(SealError::BadRoom);
        }
        *head = header;
        *inner_head = data.encode();
        extra_room.copy_from_slice(extra);
        room.copy_from_slice(payload);
        *tag = match &self.clear {
            None => {
                self.numbers.charge(body.len());
                self.tx.seal_in_place(pn, &header, body)
            }
            Some((key, _)) => {
                let (readable, _) = out.split_last_chunk::<TAG_LEN>().ok_or(SealError::BadRoom)?;
                let made = key.seal_in_place(pn, readable, &mut []);
                let (_, tag) = out.split_last_chunk_mut::<TAG_LEN>().ok_or(SealError::BadRoom)?;
                *tag = made.map_err(|_| SealError::Exhausted)?;
                return Ok(());
            }
        }
        .map_err(|_| SealError::Exhausted)?;
        Ok(())
    }

    /// Seals a CTRL packet with the next number. Returns it with that number.
    pub fn seal_ctrl(&self, now: Time, mut inner: Vec<u8>) -> Result<(u64, Vec<u8>), SealError> {
        if !self.is_fresh(now) {
            return Err(SealError::Exhausted);
        }
        let pn = self.numbers.take().ok_or(SealError::Exhausted)?;
        let header = Header { kind: Kind::Ctrl, index: self.remote_index, pn }.encode();
        self.numbers.charge(inner.len());
        let tag =
            self.tx.seal_in_place(pn, &header, &mut inner).map_err(|_| SealError::Exhausted)?;
        let mut packet = header.to_vec();
        packet.append(&mut inner);
        packet.extend(tag);
        let guard: [u8; GUARD_LEN] = mac::mac8(self.guard_tx.expose(), &[&packet]);
        packet.extend(guard);
        Ok((pn, packet))
    }

    /// Checks, opens in place and accepts one packet: steps 2 to 6 of PROTOCOL.md, "Receiving".
    ///
    /// A copy of a known packet is refused before any cryptography; a forged packet marks nothing.
    pub fn open<'a>(
        &self,
        now: Time,
        header: &Header,
        datagram: &'a mut [u8],
    ) -> Result<Inner<'a>, DropReason> {
        let wrong_mode = match header.kind {
            Kind::Data => self.is_clear(),
            Kind::DataClear => !self.is_clear(),
            _ => false,
        };
        if wrong_mode {
            return Err(DropReason::WrongMode);
        }
        let sealed_len = match header.kind {
            Kind::Ctrl => self.check_guard(datagram)?,
            _ => datagram.len(),
        };
        let expired = !self.is_fresh(now)
            || header.pn >= PN_LIMIT
            || self.forgeries.load(Relaxed) >= MAX_FORGERIES;
        if expired {
            return Err(DropReason::KeyExpired);
        }
        let too_old = self.peek(now, header.pn)?;
        let sealed = datagram.get_mut(..sealed_len).ok_or(DropReason::BadLength)?;
        let plain = match self.decrypt(header, sealed) {
            Some(plain) => plain,
            None => {
                self.forgeries.fetch_add(1, Relaxed);
                return Err(DropReason::AuthFailed);
            }
        };
        if too_old {
            self.window.lock().ring.on_authentic_too_old(header.pn);
            return Err(DropReason::TooOld);
        }
        match self.accept(now, header.pn) {
            Freshness::New => {}
            Freshness::Seen => return Err(DropReason::Duplicate),
            Freshness::TooOld => return Err(DropReason::TooOld),
        }
        // Packets of one batch have one time.
        if self.heard_us.load(Relaxed) < now.as_micros() {
            self.heard_us.fetch_max(now.as_micros(), Relaxed);
        }
        if header.kind == Kind::Ctrl {
            return Ok(Inner::Ctrl(plain));
        }
        let (head, body) =
            plain.split_first_chunk::<DATA_HEAD_LEN>().ok_or(DropReason::Malformed)?;
        let DataHead { flow, kind, mark } = DataHead::decode(head);
        Ok(Inner::Data { flow, kind, mark, body })
    }

    /// A DATA packet of the sample came on `path`. If it is a copy of one that came before, and on
    /// another path, it is opened, so that nobody can make one path look like another; what is left
    /// of it is for [`open`](Self::open), which drops it.
    pub(super) fn on_sampled(&self, now: Time, header: &Header, path: u8, datagram: &mut [u8]) {
        let is_copy = matches!(self.window.lock().ring.check(header.pn), Freshness::Seen);
        if is_copy
            && self.is_fresh(now)
            && self.arrivals.wants_copy(header.pn, path)
            && self.decrypt(header, datagram).is_some()
        {
            self.arrivals.on_copy(now, header.pn, path);
        }
    }

    /// Marks the number of a rejoined datagram, so that it and a whole copy of it exclude each
    /// other.
    pub(super) fn accept(&self, now: Time, pn: u64) -> Freshness {
        self.window.lock().ring.accept(now, pn)
    }

    /// Whether packet `pn` could still be delivered.
    pub(super) fn is_new(&self, pn: u64) -> bool {
        matches!(self.window.lock().ring.check(pn), Freshness::New)
    }

    /// Gives up unfinished datagrams that have waited too long, also if no other piece comes: the
    /// memory belongs to all sessions.
    pub fn expire_pieces(&self, now: Time) {
        self.rejoin.lock().expire(now);
    }

    /// Bytes that unfinished datagrams hold.
    pub fn unfinished_bytes(&self) -> usize {
        self.rejoin.lock().used()
    }

    /// The window size that a session following this one should start with, as log2.
    pub fn successor_window(&self, now: Time) -> u8 {
        self.window.lock().ring.successor_log2(now)
    }

    /// Enlarges the window to 2^`log2` packets.
    pub fn reserve_window(&self, log2: u8) {
        self.window.lock().ring.reserve(log2);
    }

    /// Packets that the window remembers.
    pub fn window_bits(&self) -> usize {
        self.window.lock().ring.bits()
    }

    /// Whether the number is new (`false`), too old but to be opened for the sake of learning
    /// (`true`), or to be dropped unopened.
    fn peek(&self, now: Time, pn: u64) -> Result<bool, DropReason> {
        let mut window = self.window.lock();
        match window.ring.check(pn) {
            Freshness::New => Ok(false),
            Freshness::Seen => Err(DropReason::Duplicate),
            Freshness::TooOld => {
                let second = now.as_micros() / 1_000_000;
                if window.sample_second != second {
                    (window.sample_second, window.samples) = (second, 0);
                }
                if window.samples >= TOO_OLD_SAMPLES_PER_S {
                    return Err(DropReason::TooOld);
                }
                window.samples = window.samples.saturating_add(1);
                Ok(true)
            }
        }
    }

    /// The length of a CTRL without its guard, if the guard is right.
    fn check_guard(&self, datagram: &[u8]) -> Result<usize, DropReason> {
        let (guarded, guard) =
            datagram.split_last_chunk::<GUARD_LEN>().ok_or(DropReason::BadLength)?;
        if mac::verify(&mac::mac8(self.guard_rx.expose(), &[guarded]), guard) {
            Ok(guarded.len())
        } else {
            Err(DropReason::BadGuard)
        }
    }

    fn decrypt<'a>(&self, header: &Header, sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let readable = match (&self.clear, header.kind) {
            (Some((_, key)), Kind::DataClear) => key,
            _ => {
                let (head, body) = sealed.split_first_chunk_mut::<HEADER_LEN>()?;
                return self.rx.open_in_place(header.pn, head, body).ok().map(|plain| &*plain);
            }
        };
        let (signed, tag) = sealed.split_last_chunk::<TAG_LEN>()?;
        let mut tag = *tag;
        readable.open_in_place(header.pn, signed, &mut tag).ok()?;
        signed.get(HEADER_LEN..)
    }

    #[cfg(feature = "sim")]
    /// Starts the packet numbers elsewhere, to test what happens at their end.
    #[doc(hidden)]
    pub fn set_next_pn(&self, pn: u64) {
        self.numbers.next.store(pn, Relaxed);
    }

    #[cfg(feature = "sim")]
    /// The number that the next packet gets, or that no packet gets any more.
    #[doc(hidden)]
    pub fn next_pn(&self) -> u64 {
        self.numbers.next()
    }
}

/// The memory of all counters is per session: 32 path slots.
const _: () = assert!(size_of::<PathCounters>() * MAX_PATHS <= 2 * 1024);

#[cfg(test)]
pub(crate) mod tests;
