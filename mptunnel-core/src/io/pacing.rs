// SPDX-License-Identifier: BSD-2-Clause
//! What waits for its turn on paths with a rate: sent when it may leave, by a thread of its own at
//! either end.
//!
//! ```text
//!   sender ── does not fit the rate ──► Pace of the path ◄── mpt-pace ──► socket
//!      ╰───── whose turn comes when ──► Turns, an alarm ────────╯
//! ```
//!
//! A client has one view to look at. A server has one for each of its clients, most of which have
//! nothing that waits: [`Turns`] says who has.

use super::clock;
use super::outgoing::Sockets;
use super::send::SendBatch;
use super::socket::UdpSocket;
use crate::proto::event::PeerId;
use crate::proto::pace::Pace;
use crate::proto::session::Session;
use crate::proto::time::Time;
use crate::proto::view::{SendView, Target};
use crate::sync::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// What the thread that keeps the pace has in its hands.
#[derive(Default)]
pub(crate) struct Hands {
    batch: SendBatch,
    packet: Vec<u8>,
}

impl Hands {
    /// Sends what may leave now on the paths of `view`; when the next packet may.
    pub(crate) fn send_due(&mut self, view: &SendView, sockets: &impl Sockets) -> Option<Time> {
        let paced = view.targets.iter().filter_map(|t| Some((t, t.pace.as_ref()?)));
        let next = paced.filter_map(|(target, pace)| {
            self.send_due_on(target, pace, sockets);
            pace.deadline()
        });
        next.min()
    }

    /// Sends what may leave now on one path, in as few calls as there are sessions that sealed it.
    fn send_due_on(&mut self, target: &Target, pace: &Pace, sockets: &impl Sockets) {
        let Hands { batch, packet } = self;
        let now = clock::now();
        let mut of: Option<Arc<Session>> = None;
        batch.clear();
        loop {
            let taken = pace.take(now, packet);
            let same = |s: &Arc<Session>| of.as_ref().is_some_and(|of| Arc::ptr_eq(of, s));
            if !taken.as_ref().is_some_and(same) || !batch.has_room(packet.len()) {
                if let Some(session) = of.take() {
                    flush(target, &session, sockets, batch);
                }
                of.clone_from(&taken);
            }
            let Some(session) = taken else { return };
            match batch.room(packet.len()).filter(|_| !packet.is_empty()) {
                Some(room) => {
                    room.copy_from_slice(packet);
                    batch.commit(packet.len(), 1);
                }
                // It has waited for too long.
                None => session.path(target.slot).on_send_dropped(1),
            }
        }
    }
}

fn flush(target: &Target, session: &Session, sockets: &impl Sockets, batch: &mut SendBatch) {
    let to = (target.route.remote, target.route.local);
    let send =
        |socket: &UdpSocket, connected: bool| batch.send(socket, 1, (!connected).then_some(to));
    let report = sockets.with(&target.route, send).unwrap_or_default();
    let counters = session.path(target.slot);
    counters.on_sent(report.packets as u64, report.bytes as u64);
    counters.on_send_dropped((report.dropped + report.too_big) as u64);
    if report.too_big > 0 || report.error.is_some() {
        sockets.on_report(target, &report);
    }
    batch.clear();
}

/// Which peers have something that waits, and when the first of it may leave.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    order: BTreeSet<(Time, PeerId)>,
    of: HashMap<PeerId, Time>,
}

impl Turns {
    /// The turn of `peer` comes at `at`; whether that is news.
    pub(crate) fn note(&self, at: Time, peer: PeerId) -> bool {
        let mut queue = self.0.lock();
        let before = queue.of.get(&peer).copied();
        if before.is_some_and(|before| before <= at) {
            return false;
        }
        if let Some(before) = before {
            queue.order.remove(&(before, peer));
        }
        queue.of.insert(peer, at);
        queue.order.insert((at, peer))
    }

    /// Takes out a peer whose turn has come by `now`.
    pub(crate) fn take(&self, now: Time) -> Option<PeerId> {
        let mut queue = self.0.lock();
        let (_, peer) = queue.order.first().copied().filter(|(at, _)| *at <= now)?;
        queue.order.pop_first();
        queue.of.remove(&peer);
        Some(peer)
    }

    /// When the next turn comes.
    pub(crate) fn next(&self) -> Option<Time> {
        self.0.lock().order.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(us: u64) -> Time {
        Time::from_micros(us)
    }

    #[test]
    fn turns_come_in_order_each_peer_once_and_at_its_earliest() {
        let turns = Turns::default();
        assert_eq!((turns.next(), turns.take(Time::NEVER)), (None, None));
        assert!(turns.note(at(50), PeerId(1)));
        assert!(turns.note(at(30), PeerId(2)));
        assert!(turns.note(at(40), PeerId(1)));
        assert!(!turns.note(at(45), PeerId(1)), "it comes earlier");
        assert!(!turns.note(at(40), PeerId(1)));

        assert_eq!((turns.next(), turns.take(at(29))), (Some(at(30)), None));
        assert_eq!((turns.take(at(60)), turns.take(at(60))), (Some(PeerId(2)), Some(PeerId(1))));
        assert_eq!((turns.next(), turns.take(Time::NEVER)), (None, None));
        assert!(turns.note(at(45), PeerId(1)), "it had its turn");
    }
}
