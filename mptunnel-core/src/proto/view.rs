// SPDX-License-Identifier: BSD-2-Clause
//! What a sender needs to know, as one immutable object: which keys, which paths, which sizes.
//!
//! The control side publishes a new view whenever something changes; senders take the latest one
//! per batch and never wait for the control side. A flag and a key that do not belong together
//! cannot be expressed.

use super::fragment::{Cut, FragmentHead, KIND_FRAGMENT, KIND_WHOLE};
use super::num::path_bit;
use super::pace::Pace;
use super::route::Route;
use super::sched::{Plan, Turns};
use super::session::{DataHead, SealError, Session};
use super::time::Time;
use super::wire::{DATA_OVERHEAD, FRAGMENT_OVERHEAD, MAX_DATAGRAM};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

/// After this time without data a path is probed slowly, and the first datagram probes at once.
pub const ACTIVE_AFTER_DATA: Duration = Duration::from_secs(10);

/// One path that a datagram may go on.
#[derive(Clone)]
pub struct Target {
    /// Path slot, below 32.
    pub slot: u8,
    /// Where it leads.
    pub route: Route,
    /// The largest packet that fits it: UDP payload, in bytes.
    pub max_packet: usize,
    /// Bytes that may still go to an address that has not been validated; `None` once it is.
    pub credit: Option<Arc<AtomicI64>>,
    /// How fast packets may leave, if its rate is known.
    pub pace: Option<Arc<Pace>>,
}

impl Target {
    /// Whether `bytes` under `session` may go there now; takes them off the credit.
    pub fn may_send(&self, session: &Session, bytes: usize) -> bool {
        let Some(credit) = &self.credit else { return true };
        earn(credit, session.path(self.slot).take_earned());
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        credit
            .fetch_update(Relaxed, Relaxed, |left| {
                left.checked_sub(bytes).filter(|rest| *rest >= 0)
            })
            .is_ok()
    }
}

/// Bytes that may go to an unproven address for each byte that came from it (RFC 9000, section 8.1).
const CREDIT: i64 = 3;

/// `bytes` have come from the address that `credit` is for.
pub fn earn(credit: &AtomicI64, bytes: u64) {
    if bytes > 0 {
        let earned = i64::try_from(bytes).unwrap_or(0).saturating_mul(CREDIT);
        credit.fetch_add(earned, Relaxed);
    }
}

/// The keys and paths to send with.
#[derive(Clone)]
pub struct SendView {
    /// Numbers, seals, counts.
    pub session: Arc<Session>,
    /// The usable paths.
    pub targets: Vec<Target>,
    /// What the policy chose.
    pub plan: Plan,
    /// All usable slots, the best first: for who wants another number of copies.
    pub ranked: Vec<u8>,
    /// The slots of paths that answer, as bits.
    pub up: u32,
}

/// Why a datagram was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SendRefused {
    /// Longer than both ends accept.
    TooLarge {
        /// The largest that both accept, in bytes.
        max: usize,
    },
    /// No path is usable.
    NoPath,
    /// There is no session, or its key has ended.
    NoSession,
}

/// Where sealed packets are put: a batch for the system, or the simulator's queue.
pub trait PacketSink {
    /// Room for one packet of exactly `len` bytes. The sink makes room if it has none left.
    fn room(&mut self, len: usize) -> &mut [u8];
    /// The packet in the room just asked for goes to the paths in the set.
    fn commit(&mut self, len: usize, paths: u32);
    /// The next packet is a further piece of a datagram.
    fn next_piece(&mut self) {}
    /// Turns that were taken for several datagrams together, if it takes several: whoever has it
    /// calls [`Plan::end`] after the last one.
    fn turns(&mut self) -> Option<&mut Turns> {
        None
    }
}

#[cfg(test)]
impl SendView {
    /// All of these paths, chosen.
    pub(crate) fn for_test(session: Arc<Session>, targets: Vec<Target>) -> Self {
        let all = targets.iter().fold(0, |set, target| set | path_bit(target.slot));
        let ranked = targets.iter().map(|target| target.slot).collect();
        SendView { session, targets, plan: Plan::all_on(all), ranked, up: all }
    }
}

impl SendView {
    /// All paths on which a datagram may go, as bits.
    pub fn chosen(&self) -> u32 {
        self.plan.chosen
    }

    /// The `copies` best of the paths that the policy may use, as bits; all of them if there are
    /// fewer.
    pub fn best(&self, copies: u8) -> u32 {
        let usable =
            self.ranked.iter().map(|slot| path_bit(*slot)).filter(|b| self.plan.usable & b != 0);
        usable.take(usize::from(copies)).fold(0, |set, bit| set | bit)
    }

    /// The same with other paths chosen, for every datagram.
    pub fn with_chosen(&self, chosen: u32) -> SendView {
        SendView { plan: Plan::all_on(chosen), ..self.clone() }
    }

    /// Seals one datagram once and puts it, with the set of its paths, into `sink`. For paths that
    /// are too narrow it is cut, and both forms exclude each other at the receiver.
    pub fn send(
        &self,
        now: Time,
        flow: u16,
        payload: &[u8],
        sink: &mut impl PacketSink,
    ) -> Result<(), SendRefused> {
        let max = self.session.max_payload();
        if payload.len() > max {
            return Err(SendRefused::TooLarge { max });
        }
        if !self.session.is_fresh(now) {
            return Err(SendRefused::NoSession);
        }
        let len = payload.len().saturating_add(DATA_OVERHEAD);
        if self.plan.chosen == 0 {
            return Err(SendRefused::NoPath);
        }
        let (number, mark) = self.session.reserve_marked(flow).ok_or(SendRefused::NoSession)?;
        let mut paths = match sink.turns() {
            Some(turns) => self.plan.pick(number, turns),
            None => {
                let mut turns = Turns::default();
                let paths = self.plan.pick(number, &mut turns);
                self.plan.end(&mut turns);
                paths
            }
        };
        if paths & self.plan.usable == 0 {
            // Another view may have closed the path whose turn it was.
            paths |= self.best(1);
        }
        let (mut whole, mut narrow, mut narrowest) = (0, 0, usize::MAX);
        for target in self.targets.iter().filter(|t| paths & path_bit(t.slot) != 0) {
            if len <= target.max_packet {
                whole |= path_bit(target.slot);
            } else {
                narrow |= path_bit(target.slot);
                narrowest = narrowest.min(target.max_packet);
            }
        }
        if whole | narrow == 0 {
            return Err(SendRefused::NoPath);
        }
        if whole != 0 {
            let room = sink.room(len);
            let head = DataHead { flow, kind: KIND_WHOLE, mark };
            self.session.seal_with_head(number, head, &[], payload, room).map_err(refused)?;
            sink.commit(len, whole);
            self.remember(number, whole);
        }
        if narrow != 0 {
            let head = DataHead { flow, kind: KIND_FRAGMENT, mark };
            self.send_pieces(number, head, payload, narrowest, narrow, sink)?;
        }
        Ok(())
    }

    fn send_pieces(
        &self,
        whole: u64,
        data: DataHead,
        payload: &[u8],
        max_packet: usize,
        paths: u32,
        sink: &mut impl PacketSink,
    ) -> Result<(), SendRefused> {
        let too_large = SendRefused::TooLarge {
            max: max_packet.saturating_sub(FRAGMENT_OVERHEAD).saturating_mul(255).min(MAX_DATAGRAM),
        };
        let cut = Cut::of(payload.len(), max_packet).ok_or(too_large)?;
        let total = u16::try_from(payload.len()).map_err(|_| too_large)?;
        for (index, piece) in (0u8..).zip(payload.chunks(cut.piece.max(1))) {
            let head = FragmentHead { whole, index, count: cut.count, total }.encode();
            let len = piece.len().saturating_add(FRAGMENT_OVERHEAD);
            let number = self.session.reserve().ok_or(SendRefused::NoSession)?;
            let room = sink.room(len);
            self.session.seal_with_head(number, data, &head, piece, room).map_err(refused)?;
            if index > 0 {
                sink.next_piece();
            }
            sink.commit(len, paths);
            self.remember(number, paths);
        }
        Ok(())
    }

    /// The other end may tell which of these paths brought the packet.
    #[inline]
    fn remember(&self, number: u64, paths: u32) {
        if self.session.sent.wants(number) {
            self.session.sent.note(number, paths);
        }
    }

    /// Notes that the application sends; `true` if that ends a pause, so that the paths should be
    /// probed at once.
    pub fn ends_a_pause(&self, now: Time) -> bool {
        let last = self.session.on_data(now);
        last == Time::default() || now.since(last) > ACTIVE_AFTER_DATA
    }
}

fn refused(error: SealError) -> SendRefused {
    match error {
        SealError::Exhausted | SealError::BadRoom => SendRefused::NoSession,
    }
}

/// The latest view of one peer, shared by all who send to it.
#[derive(Default)]
pub struct ViewCell(RwLock<Option<Arc<SendView>>>);

impl ViewCell {
    /// The latest view; `None` while there is no session.
    pub fn get(&self) -> Option<Arc<SendView>> {
        self.0.read().clone()
    }

    /// Publishes a view.
    pub fn set(&self, view: Option<SendView>) {
        *self.0.write() = view.map(Arc::new);
    }
}
