// SPDX-License-Identifier: BSD-2-Clause
//! CTRL packets at the client: what arrives, what is sent, and what of it is remembered.

use super::super::drop::DropReason;
use super::super::event::{ClientEvent, Transmit};
use super::super::frame::{self, CLOSE_FINISHED, Frame, FrameList, Ping, Pong};
use super::super::limit::CLOSES_HEARD_PER_S;
use super::super::num::{micros, path_bit};
use super::super::pmtu::LOSS_TO_SUSPECT;
use super::super::probe::{Intervals, Mood, is_busy};
use super::super::route::Route;
use super::super::sched::Mode;
use super::super::session::Session;
use super::super::time::Time;
use super::super::wire::{FLOW_ALL, GUARD_LEN, TAG_LEN};
use super::paths::PathState;
use super::{CLOSED_KEPT, Client, PingAnswer, Wanted};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// CTRL packets remembered, so that a NOSESSION can be held against them.
const REMEMBERED: usize = 512;

/// Answered PINGs kept for who measures: 32 paths, asked 20 times a second, for six seconds.
const ANSWERS_KEPT: usize = 4_096;

/// The CTRL packets of the current session that a NOSESSION may answer.
#[derive(Default)]
pub struct ControlLog {
    sent: VecDeque<(u64, [u8; TAG_LEN], Time)>,
    answered: Option<u64>,
}

impl ControlLog {
    pub(super) fn remember(&mut self, now: Time, pn: u64, packet: &[u8]) {
        let tag = packet
            .split_last_chunk::<GUARD_LEN>()
            .and_then(|(guarded, _)| guarded.last_chunk::<TAG_LEN>());
        let Some(tag) = tag else { return };
        if self.sent.len() >= REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((pn, *tag, now));
    }

    /// Whether packet `pn` with this tag was sent at most `age` ago.
    pub fn was_sent_lately(&self, now: Time, pn: u64, tag: &[u8], age: Duration) -> bool {
        self.sent
            .iter()
            .any(|(known, its_tag, at)| *known == pn && its_tag == tag && now.since(*at) <= age)
    }

    /// Whether the server answered a PING sent in packet `pn` or later, so that it did know the
    /// session after `pn` had arrived.
    pub fn is_answered(&self, pn: u64) -> bool {
        self.answered.is_some_and(|answered| answered >= pn)
    }

    fn on_answer(&mut self, pn: u64) {
        self.answered = self.answered.max(Some(pn));
    }

    /// A new session: nothing of the old one counts.
    pub fn forget(&mut self) {
        self.sent.clear();
        self.answered = None;
    }
}

impl Client {
    /// Takes the frames of a CTRL packet that the data plane opened.
    pub fn handle_control(
        &mut self,
        now: Time,
        session: &Arc<Session>,
        route: &Route,
        inner: &[u8],
    ) {
        match frame::parse(inner) {
            Ok(frames) => {
                self.on_heard_server();
                let path = self.paths.iter_mut().flatten().find(|p| p.is_open_on(route.socket));
                if path.is_some_and(|p| !std::mem::replace(&mut p.answered, true)) {
                    self.publish(now);
                }
                for frame in frames {
                    self.on_frame(now, session, route, frame);
                }
            }
            Err(reason) => {
                self.plane.drops.count(reason);
            }
        }
        self.drive(now);
    }

    fn on_frame(&mut self, now: Time, session: &Arc<Session>, route: &Route, frame: Frame) {
        let is_current =
            self.current.as_ref().is_some_and(|s| s.local_index() == session.local_index());
        match frame {
            Frame::Ping(ping) => self.on_ping(now, session, is_current, route, &ping),
            Frame::Pong(pong) => self.on_pong(now, &pong),
            Frame::Challenge { path, nonce } => {
                if self.slot_of(route) == Some(path) {
                    self.send_ctrl(
                        now,
                        path,
                        FrameList::new().push(Frame::Response { path, nonce }),
                    );
                }
            }
            // The client gives no challenges, and rekeys are its own affair.
            Frame::Response { .. } => {}
            Frame::Close { code, flow: FLOW_ALL } => {
                if self.is_of_this_boot(session) {
                    self.on_close(now, code);
                }
            }
            Frame::Close { code, flow } => {
                if self.closes_heard.take(now, CLOSES_HEARD_PER_S) {
                    self.tell(ClientEvent::FlowClosed(flow, code));
                }
            }
            Frame::RekeyRequest if is_current && !self.rekey_asked => {
                self.rekey_asked = true;
                self.wanted.get_or_insert(Wanted::Rekey);
            }
            Frame::RekeyRequest => {}
            Frame::Setting(setting) => {
                if self.is_of_this_boot(session) && self.agreement.on_setting(&setting) {
                    self.publish(now);
                }
            }
            // Weights and rates are the client's affair.
            Frame::Weight { .. } | Frame::Rate { .. } => {}
            Frame::Arrivals(report) => {
                self.observed.get_or_insert_default().on_report(&session.sent, &report);
            }
        }
    }

    /// Whether a session belongs to the same start of the server as the one in use: a CLOSE that
    /// is late by a restart must not end the session after it.
    fn is_of_this_boot(&self, session: &Session) -> bool {
        let is = |s: &Session| s.local_index() == session.local_index();
        self.current.as_ref().is_some_and(|s| is(s))
            || self.previous.iter().any(|p| p.boot == self.server_boot && is(&p.session))
    }

    /// The server ends the session. What CLOSE has overtaken is still delivered.
    fn on_close(&mut self, now: Time, code: u16) {
        // The copies of a CLOSE find no session in use any more.
        let Some(session) = self.current.take() else { return };
        self.keep_previous(session, now + CLOSED_KEPT, self.server_boot);
        if code == CLOSE_FINISHED {
            self.finished_at = Some(now + CLOSED_KEPT);
            self.attempts.clear();
            self.wanted = None;
        } else {
            self.wanted = Some(Wanted::NoSession);
            self.tell(ClientEvent::ServerGoingAway);
        }
        self.publish(now);
    }

    fn on_ping(
        &mut self,
        now: Time,
        session: &Session,
        is_current: bool,
        route: &Route,
        ping: &Ping,
    ) {
        if self.slot_of(route) != Some(ping.path) {
            self.plane.drops.count(DropReason::Malformed);
            return;
        }
        let counts = session.path(ping.path).counts();
        let intervals = self.intervals();
        if !is_current {
            // Its counts belong to a session that is over: an answer would say nothing.
            return;
        }
        let Some(path) = self.path_mut(ping.path) else { return };
        // No check of its number: a client learns nothing from a PING but counters, and those of a
        // restarted server begin again.
        // This packet is counted already, the peer's number is without it.
        let arrived = counts.rx_pkts.saturating_sub(1);
        path.probe.health.on_ping(now, ping.t_tx, session.local_index(), ping.tx_pkts, arrived);
        let busy = is_busy(now, session.last_data());
        path.probe.keep_pace(now, busy, intervals);
        let ride = path.probe.may_ride(now, busy, intervals);
        let mut frames = FrameList::new().push(Frame::Pong(Pong {
            path: ping.path,
            seq: ping.seq,
            t_tx: ping.t_tx,
            hold_us: 0,
            t_rx: now.low_micros(),
            rx_pkts: arrived,
            rx_bytes: counts.rx_bytes,
        }));
        if ride && let Some(ping) = self.make_ping(now, ping.path) {
            frames = frames.push(Frame::Ping(ping));
            self.send_ping(now, ping.path, frames);
            return;
        }
        let frames = self.with_news(now, frames);
        self.send_ctrl(now, ping.path, frames);
    }

    fn on_pong(&mut self, now: Time, pong: &Pong) {
        let current = self.current.as_ref().map_or(0, |s| s.local_index());
        let Some(path) = self.path_mut(pong.path) else { return };
        let Some(answered) = path.probe.on_pong(now, pong, current) else { return };
        let is_paced = path.throttle.on_answer(now, pong, &answered);
        let id = path.id;
        let round_trip = path.probe.health.last_rtt().unwrap_or_default();
        // A late answer must not revive a path that has lost its socket.
        let came_up = path.is_open() && path.set_up(now, true);
        path.reopens = 0;
        if path.probe.health.loss_out().is_some_and(|loss| loss > LOSS_TO_SUSPECT) {
            path.pmtu.suspect(now);
        }
        let resized = path.pmtu.on_answer(now, answered.size);
        path.use_size();
        self.selector.on_answer(pong.path, answered.told);
        if answered.session == current {
            self.log.on_answer(answered.pn);
        }
        if let Some(answers) = &mut self.answers {
            if answers.len() >= ANSWERS_KEPT {
                answers.pop_front();
            }
            let asked = Time::from_micros(pong.t_tx);
            answers.push_back(PingAnswer { path: id, asked, round_trip });
        }
        if came_up {
            self.tell(ClientEvent::PathUp(id));
        }
        if came_up || resized || is_paced {
            self.publish(now);
        } else {
            self.replan(now);
        }
    }

    /// Sends a PING, alone in its packet, on every path that is due.
    pub(super) fn send_due_pings(&mut self, now: Time) {
        for slot in self.open_slots() {
            let due = self.path_mut(slot).is_some_and(|p| p.probe.is_due(now));
            if !due {
                continue;
            }
            if let Some(ping) = self.make_ping(now, slot) {
                self.send_ping(now, slot, FrameList::new().push(Frame::Ping(ping)));
            }
        }
    }

    /// Sends PINGs in packets of the sizes that are to be tried, on paths that answer.
    pub(super) fn send_size_probes(&mut self, now: Time) {
        let Some(session) = self.current.clone() else { return };
        let busy = is_busy(now, session.last_data());
        let mut changed = false;
        for slot in self.open_slots() {
            let Some(path) = self.path_mut(slot).filter(|path| path.up) else { continue };
            let (queued, patience) = (path.probe.health.is_queued(), path.probe.answer_within());
            let step = path.pmtu.poll(now, busy, queued, patience);
            if step.changed {
                path.use_size();
                changed = true;
            }
            let Some(size) = step.probe else { continue };
            let (counts, backup) = (session.path(slot).counts(), path.settings.backup);
            let index = session.local_index();
            let ping = path.probe.padded_ping(now, slot, backup, index, counts, size);
            let inner = FrameList::new().push(Frame::Ping(ping)).finish_for(usize::from(size));
            self.send_inner(now, slot, inner);
        }
        if changed {
            self.publish(now);
        }
    }

    fn make_ping(&mut self, now: Time, slot: u8) -> Option<Ping> {
        let session = self.current.clone()?;
        let mood = Mood {
            session: session.local_index(),
            busy: is_busy(now, session.last_data()),
            heard_on_path: session.path(slot).heard_us() > 0,
            intervals: self.intervals(),
        };
        let counts = session.path(slot).counts();
        let entropy = &mut *self.entropy;
        let path = self.paths.get_mut(usize::from(slot))?.as_mut()?;
        Some(path.probe.next_ping(now, slot, path.settings.backup, mood, counts, entropy))
    }

    fn send_ping(&mut self, now: Time, slot: u8, frames: FrameList) {
        let mut frames = self.with_news(now, frames);
        let matters = self.agreement.policy().mode != Mode::Redundant;
        let settings = self.path_mut(slot).map(|path| &path.settings);
        let (weight, cost, kbit) =
            settings.map_or((1, 0, 0), |its| (its.weight, its.cost, its.rate_down));
        if matters || weight != 1 || cost != 0 {
            frames = frames.push(Frame::Weight { path: slot, cost, weight });
        }
        // Once there was one, that there is none has to be said: with every PING, as any may be
        // lost, and the server may be another one. It is padding otherwise.
        if kbit != 0 || self.rates_told & path_bit(slot) != 0 {
            self.rates_told |= path_bit(slot);
            frames = frames.push(Frame::Rate { path: slot, kbit });
        }
        let Some(pn) = self.send_ctrl(now, slot, frames) else { return };
        let heard = self.heard();
        if let Some(path) = self.path_mut(slot) {
            path.probe.sent_in(pn);
            if !path.is_asked_since(heard) {
                path.asked = Some((now, heard));
            }
        }
    }

    /// Adds what else there is to tell: the policy, and the sample, if there is more than one path
    /// to tell apart.
    fn with_news(&mut self, now: Time, mut frames: FrameList) -> FrameList {
        if let Some(setting) = self.agreement.to_tell() {
            frames = frames.push(Frame::Setting(setting));
        }
        let several = self.paths.iter().flatten().nth(1).is_some();
        let session = self.current.as_ref().filter(|_| several);
        let Some(report) = session.and_then(|s| s.arrivals.report(now)) else { return frames };
        self.observed.get_or_insert_default().on_own_report(&report);
        frames.push(Frame::Arrivals(report))
    }

    /// Seals and queues one CTRL packet on one path; its number, if there is a session and a socket.
    pub(super) fn send_ctrl(&mut self, now: Time, slot: u8, frames: FrameList) -> Option<u64> {
        self.send_inner(now, slot, frames.finish())
    }

    fn send_inner(&mut self, now: Time, slot: u8, inner: Vec<u8>) -> Option<u64> {
        let session = self.current.clone()?;
        let path = self.paths.get(usize::from(slot))?.as_ref()?;
        let PathState::Open { route, .. } = path.state else { return None };
        let (pn, bytes) = session.seal_ctrl(now, inner).ok()?;
        session.path(slot).on_sent(1, crate::proto::num::widen(bytes.len()));
        if let Some(pace) = path.throttle.pace() {
            pace.charge(now, bytes.len());
        }
        self.log.remember(now, pn, &bytes);
        self.transmits.push_back(Transmit { route, bytes });
        Some(pn)
    }

    /// How often paths are probed: the server may have asked for another interval.
    pub(super) fn intervals(&self) -> Intervals {
        let own = self.config.common.intervals;
        let active = self.probe_interval.unwrap_or(own.active);
        Intervals { active, idle: own.idle.max(active) }
    }

    /// T of PROTOCOL.md, "Suspicion": silence that is worth a handshake.
    pub(super) fn suspicion_after(&self) -> Duration {
        // Of the paths that are up: a fast path that died must not make a slow one look silent.
        let rtt = |p: &super::ClientPath| p.probe.health.srtt();
        let up = self.paths.iter().flatten().filter(|p| p.up).filter_map(rtt).min();
        let min_rtt = up
            .or_else(|| self.paths.iter().flatten().filter_map(rtt).min())
            .unwrap_or(self.rtt_bound);
        let patience = micros(min_rtt).saturating_mul(3).saturating_add(250_000);
        Duration::from_micros(patience).max(Duration::from_millis(750))
    }
}
