// SPDX-License-Identifier: BSD-2-Clause
//! What the server does because time passes.
//!
//! When a network dies behind many clients, each of their paths is probed as one alone would be: four
//! times a second for 10 s, twice until 30 s, then no more until its client is heard. For 4,096
//! sessions with two paths that is 33,000 PINGs per second at most, which cost a third of a core in
//! the simulator, with the network, and 35 Mbit/s of what leads nowhere. They come evenly, because
//! each path keeps a time of its own, ±10 %. That is left as it is: these sessions take more while
//! they are in use, and who is asked later heals later where the way to the client comes back first.

use super::super::event::{PeerGoneReason, PeerId, ServerEvent};
use super::super::frame::{Frame, FrameList};
use super::super::time::Time;
use super::Server;
use super::slots::{LINGER, SLOT_LIFE};
use std::time::Duration;

/// A peer is looked at again after this at the earliest, whatever its deadlines say.
const MIN_PAUSE: Duration = Duration::from_millis(1);

impl Server {
    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.expire_cache(now);
        while let Some((due, id)) = self.deadlines.first().copied() {
            if due > now {
                break;
            }
            self.service(now, id);
            self.reschedule(id);
            self.defer(now, id);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Time> {
        if !self.transmits.is_empty() || !self.events.is_empty() || self.wants_pacer {
            return Some(Time::default());
        }
        let peers = self.deadlines.first().map(|(due, _)| *due);
        [peers, self.cache.deadline()].into_iter().flatten().min()
    }

    /// The application sent something to a client after a pause: find out how its paths are.
    pub fn on_data_after_pause(&mut self, now: Time, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        for slot in peer.slots.values_mut() {
            slot.probe.hurry(now);
            slot.pmtu.wake(now);
        }
        peer.send_due_pings(now, &mut *self.entropy, &mut self.transmits);
        peer.send_size_probes(now, &mut self.transmits);
        self.reschedule(id);
    }

    pub(super) fn expire_cache(&mut self, now: Time) {
        for index in self.cache.expire(now) {
            self.forget_pending(index);
        }
    }

    fn service(&mut self, now: Time, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            self.deadlines.retain(|(_, other)| *other != id);
            return;
        };
        if peer.leaves_at.is_some_and(|at| at <= now) {
            self.remove_peer(id, PeerGoneReason::Closed);
            return;
        }
        if now.since(peer.current.heard()) >= self.config.session_timeout {
            self.remove_peer(id, PeerGoneReason::TimedOut);
            return;
        }
        for session in peer.expire_previous(now) {
            self.plane.remove(session.local_index());
        }
        for session in peer.sessions() {
            session.expire_pieces(now);
        }
        let mut silent = Vec::new();
        let mut changed = false;
        let before = peer.slots.len();
        let (observed, selector) = (&mut peer.observed, &mut peer.selector);
        peer.slots.retain(|id, slot| {
            let stays = now.since(slot.last_heard) < SLOT_LIFE;
            if let Some(observed) = observed.as_mut().filter(|_| !stays) {
                observed.forget(*id);
                selector.forget(*id);
            }
            stays
        });
        if peer.slots.len() != before {
            changed = true;
            peer.forget_rates();
        }
        let active = peer.intervals.active;
        let mut missed = false;
        let mut challenges = Vec::new();
        for slot in peer.slots.values_mut() {
            changed |= slot.expire_candidate(now);
            if slot.repeat_challenge(now) {
                challenges.push(slot.id);
            }
            let misses = slot.probe.misses();
            slot.probe.judge(now, active);
            missed |= slot.probe.misses() != misses;
            if !slot.silent && slot.silent_at() <= now {
                slot.set_silent(now, true);
                changed = true;
                silent.push(slot.id);
            }
            if !slot.lingered && now.since(slot.last_heard) >= LINGER {
                (slot.lingered, changed) = (true, true);
            }
        }
        for path in challenges {
            let nonce = peer.slots.get(&path).and_then(|s| s.candidate.as_ref()).map(|c| c.nonce);
            if let Some(nonce) = nonce {
                let frames = FrameList::new().push(Frame::Challenge { path, nonce });
                peer.send_to_candidate(now, path, frames, &mut self.transmits);
            }
        }
        if changed {
            peer.publish(now);
        } else if missed {
            peer.replan(now);
        }
        peer.send_due_pings(now, &mut *self.entropy, &mut self.transmits);
        peer.send_size_probes(now, &mut self.transmits);
        for path in silent {
            self.tell(ServerEvent::PathSilent(id, path));
        }
    }

    /// Guards the loop over deadlines against one that does not move.
    fn defer(&mut self, now: Time, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.deadline <= now {
            self.deadlines.remove(&(peer.deadline, id));
            peer.deadline = now + MIN_PAUSE;
            self.deadlines.insert((peer.deadline, id));
        }
    }
}
