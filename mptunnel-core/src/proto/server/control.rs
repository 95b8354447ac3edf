// SPDX-License-Identifier: BSD-2-Clause
//! CTRL packets at the server: probes, proofs of address, ends; and those of unknown sessions.

use super::super::crypto::mac;
use super::super::drop::DropReason;
use super::super::event::{PeerId, ServerEvent, Transmit};
use super::super::frame::{self, Frame, FrameList, PING_BACKUP, Ping, Pong};
use super::super::limit::CLOSES_HEARD_PER_S;
use super::super::num::widen;
use super::super::pmtu::LOSS_TO_SUSPECT;
use super::super::probe::is_busy;
use super::super::route::{Route, Run};
use super::super::session::Session;
use super::super::time::Time;
use super::super::wire::{FLOW_ALL, GUARD_LEN, Kind, TAG_LEN, index_of};
use super::slots::PingFrom;
use super::{Peer, Server};
use crate::proto::codec::Writer;
use std::sync::Arc;
use std::time::Duration;

/// How long late packets of a session that the client closed are still delivered.
const CLOSED_KEPT: Duration = Duration::from_millis(2_500);

impl Server {
    /// Takes the frames of a CTRL packet of `len` bytes that the data plane opened.
    pub fn handle_control(
        &mut self,
        now: Time,
        session: &Arc<Session>,
        route: &Route,
        inner: &[u8],
        len: usize,
    ) {
        if !self.promote(now, session) {
            return;
        }
        let id = PeerId(session.peer());
        self.touch(id);
        // What an earlier process of the client said has no effect any more.
        let counts = |p: &Peer| p.is_of_this_boot(session) && p.leaves_at.is_none();
        if !self.peers.get(&id).is_some_and(counts) {
            return;
        }
        match frame::parse(inner) {
            Ok(frames) => {
                for frame in frames {
                    self.on_frame(now, id, session, route, frame, len);
                }
            }
            Err(reason) => {
                self.plane.drops.count(reason);
            }
        }
        self.reschedule(id);
    }

    fn on_frame(
        &mut self,
        now: Time,
        id: PeerId,
        session: &Arc<Session>,
        route: &Route,
        frame: Frame,
        len: usize,
    ) {
        match frame {
            Frame::Ping(ping) => self.on_ping(now, id, session, route, &ping, len),
            Frame::Pong(pong) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    let current = peer.current.local_index();
                    let mut changed = false;
                    if let Some(slot) = peer.slots.get_mut(&pong.path)
                        && let Some(answered) = slot.probe.on_pong(now, &pong, current)
                    {
                        if slot.probe.health.loss_out().is_some_and(|loss| loss > LOSS_TO_SUSPECT) {
                            slot.pmtu.suspect(now);
                        }
                        changed = slot.pmtu.on_answer(now, answered.size);
                        peer.selector.on_answer(pong.path, answered.told);
                        changed |= peer.learn_rate(now, &pong, &answered);
                    }
                    if changed {
                        peer.publish(now);
                    } else {
                        peer.replan(now);
                    }
                }
            }
            Frame::Response { path, nonce } => self.on_response(now, id, path, &nonce),
            Frame::Close { flow: FLOW_ALL, .. } => {
                // Late packets on slower paths may still come, but nobody sends any more.
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.leaves_at = Some(now + CLOSED_KEPT);
                    peer.publish(now);
                }
            }
            Frame::Close { flow, .. } => {
                let Some(peer) = self.peers.get_mut(&id) else { return };
                let epoch = peer.epoch;
                if peer.closes_heard.take(now, CLOSES_HEARD_PER_S) {
                    self.tell(ServerEvent::FlowClosed(id, epoch, flow));
                }
            }
            Frame::Setting(setting) => {
                if let Some(peer) = self.peers.get_mut(&id)
                    && peer.agreement.on_setting(&setting)
                {
                    peer.publish(now);
                }
            }
            Frame::Weight { path, cost, weight } => {
                if let Some(peer) = self.peers.get_mut(&id)
                    && let Some(slot) = peer.slots.get_mut(&path)
                    && (slot.weight, slot.cost) != (weight, cost)
                {
                    (slot.weight, slot.cost) = (weight, cost);
                    peer.replan(now);
                }
            }
            Frame::Rate { path, kbit } => {
                let bound = self.config.common.path_queue;
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.has_pacer = self.has_pacer;
                    let is_paced = peer.set_rate(now, path, kbit, bound);
                    self.wants_pacer |= is_paced && !self.has_pacer;
                }
            }
            Frame::Arrivals(report) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.observed.get_or_insert_default().on_report(&session.sent, &report);
                }
            }
            // A server gives challenges and asks for new keys; it does not take either.
            Frame::Challenge { .. } | Frame::RekeyRequest => {
                self.plane.drops.count(DropReason::WrongDirection);
            }
        }
    }

    fn on_ping(
        &mut self,
        now: Time,
        id: PeerId,
        session: &Session,
        route: &Route,
        ping: &Ping,
        len: usize,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let is_current = peer.current.local_index() == session.local_index();
        let active_interval = peer.intervals.active;
        let slot = peer.slot_mut(ping.path, now);
        if ping.seq <= slot.last_seq {
            self.plane.drops.count(DropReason::StaleProbe);
            return;
        }
        (slot.last_seq, slot.last_heard) = (ping.seq, now);
        slot.announced_ms = match ping.next_10ms {
            0 => u32::try_from(active_interval.as_millis()).unwrap_or(u32::MAX),
            n => u32::from(n).saturating_mul(10),
        };
        let mut changed = slot.silent || slot.lingered;
        slot.set_silent(now, false);
        slot.lingered = false;
        let backup = ping.flags & PING_BACKUP != 0;
        changed |= std::mem::replace(&mut slot.backup, backup) != backup;

        let before = slot.candidate.as_ref().map(|c| c.route);
        let from = slot.on_ping_from(now, *route, len, &mut *self.entropy);
        if slot.candidate.as_ref().map(|c| c.route) != before {
            changed = true;
            // The first packet from an address: until now nobody knew on which path it came.
            let first = Run { packets: 1, bytes: widen(len) };
            session.path(ping.path).on_received(first, Run::default(), now.as_micros());
            // What another address has earned is not this one's.
            for session in peer.sessions() {
                session.path(ping.path).take_earned();
            }
        }
        if changed {
            peer.publish(now);
        }
        if !is_current {
            // It shows that the path lives; its counts belong to a session that is over.
            return;
        }
        let Some(slot) = peer.slots.get_mut(&ping.path) else { return };
        let counts = session.path(ping.path).counts();
        // This packet is counted already; the client's number is without it.
        let arrived = counts.rx_pkts.saturating_sub(1);
        slot.probe.health.on_ping(now, ping.t_tx, session.local_index(), ping.tx_pkts, arrived);
        let busy = is_busy(now, session.last_data());
        slot.probe.keep_pace(now, busy, peer.intervals);
        let ride = from == PingFrom::Active && slot.probe.may_ride(now, busy, peer.intervals);
        let challenge =
            slot.candidate.as_ref().map(|c| Frame::Challenge { path: ping.path, nonce: c.nonce });
        let pong = Frame::Pong(Pong {
            path: ping.path,
            seq: ping.seq,
            t_tx: ping.t_tx,
            hold_us: 0,
            t_rx: now.low_micros(),
            rx_pkts: arrived,
            rx_bytes: counts.rx_bytes,
        });
        let out = &mut self.transmits;
        if let (PingFrom::Candidate, Some(challenge)) = (from, challenge) {
            // The challenge goes to the new address only: an answer must prove that one.
            let frames = FrameList::new().push(pong).push(challenge);
            peer.send_to_candidate(now, ping.path, frames, out);
        }
        let frames = FrameList::new().push(pong);
        if ride {
            peer.send_ping(now, ping.path, frames, &mut *self.entropy, out);
        } else {
            // To the proven address as well: whoever copies PINGs from elsewhere must not be able
            // to starve the client of answers (RFC 9000, section 9.3.3).
            let frames = peer.with_news(now, frames);
            peer.send(now, ping.path, frames, out);
        }
    }

    fn on_response(&mut self, now: Time, id: PeerId, path: u8, nonce: &[u8; 8]) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(slot) = peer.slots.get_mut(&path) else { return };
        let Some((route, old)) = slot.on_response(now, nonce) else { return };
        if let Some(old) = old.filter(|old| old.remote != route.remote) {
            peer.note_move(now, path, old.remote);
        }
        peer.publish(now);
        peer.send_due_pings(now, &mut *self.entropy, &mut self.transmits);
        self.tell(if old.is_some() {
            ServerEvent::PathMoved(id, path, route)
        } else {
            ServerEvent::PathUp(id, path, route)
        });
    }

    /// The largest packet that the interface towards a client's path takes, as the I/O layer found
    /// out, or that the user wants.
    pub fn set_path_mtu(&mut self, now: Time, id: PeerId, path: u8, bytes: usize) {
        let fixed = self.config.common.fixed_size;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(slot) = peer.slots.get_mut(&path) {
            slot.pmtu.set_ceiling(now, bytes, fixed);
        }
        peer.publish(now);
        peer.send_size_probes(now, &mut self.transmits);
        self.reschedule(id);
    }

    /// A CTRL of a session that nobody knows: if it comes from a key holder, he learns of it.
    pub(super) fn on_unknown_ctrl(
        &mut self,
        now: Time,
        route: &Route,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let index = index_of(datagram).ok_or(DropReason::BadLength)?;
        let (guarded, guard) =
            datagram.split_last_chunk::<GUARD_LEN>().ok_or(DropReason::BadLength)?;
        let tag = guarded.last_chunk::<TAG_LEN>().ok_or(DropReason::BadLength)?;
        let pn = guarded.get(8..16).ok_or(DropReason::BadLength)?;
        let mut holder = None;
        for set in &self.key_sets {
            if !self.load.guard_check_allowed(now) {
                return Err(DropReason::RateLimited);
            }
            if mac::verify(&mac::mac8(set.mac1.expose(), &[guarded]), guard) {
                holder = Some(set);
                break;
            }
        }
        let set = holder.ok_or(DropReason::UnknownIndex)?;
        if !self.load.hint_allowed(now, route.remote) {
            return Err(DropReason::RateLimited);
        }
        let signed: [u8; 32] = Writer::new()
            .put(&Kind::NoSession.head())
            .put(&index.to_le_bytes())
            .put(pn)
            .put(tag)
            .done();
        let mac: [u8; 16] =
            mac::mac16(&set.token(index).ok_or(DropReason::UnknownKey)?, &[&signed]);
        let mut bytes = signed.to_vec();
        bytes.extend(mac);
        self.transmits.push_back(Transmit { route: *route, bytes });
        Ok(())
    }
}
