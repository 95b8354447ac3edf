// SPDX-License-Identifier: BSD-2-Clause
//! What the client does because time passes.

use super::super::entropy::{jittered, random_u32};
use super::super::event::{ClientEvent, PathDownReason, Reopen};
use super::super::session::REJECT_AFTER;
use super::super::time::Time;
use super::super::wire::{InitPayload, VERSION};
use super::attempt::Attempt;
use super::paths::LINGER_DOWN;
use super::{Client, ClientPath, PingAnswer, Wanted};
use std::time::Duration;

/// An attempt that is older is replaced by a new one.
const ATTEMPT_LIFE: Duration = Duration::from_secs(8);
/// Attempts that can still be answered: round trips of up to about 8 s complete.
const LIVE_ATTEMPTS: usize = 2;
/// Search after which the application is told: with the second that suspicion takes, five of silence.
const SILENT_AFTER: Duration = Duration::from_secs(4);
/// Unanswered probing, while other paths answer, after which a socket is made anew.
const REOPEN_AFTER: Duration = Duration::from_secs(5);
/// Unanswered probing on all paths after which the sockets are made anew.
const REOPEN_ALL_AFTER: Duration = Duration::from_secs(10);
/// Sockets made anew in vain before another source port is tried.
const SAME_PORT_TRIES: u32 = 3;
/// The life of a cookie.
const COOKIE_LIFE: Duration = Duration::from_secs(120);

impl Client {
    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.drive(now);
        for session in self.current.iter().chain(self.previous.iter().map(|p| &p.session)) {
            session.expire_pieces(now);
        }
    }

    /// The application sent something after a pause: find out at once how the paths are.
    pub fn on_data_after_pause(&mut self, now: Time) {
        for path in self.paths.iter_mut().flatten() {
            path.probe.hurry(now);
            path.pmtu.wake(now);
        }
        self.drive(now);
    }

    /// Asks all paths at once, and keeps from now on what is answered: for who measures.
    pub fn probe(&mut self, now: Time) {
        self.answers.get_or_insert_default();
        self.on_data_after_pause(now);
    }

    /// The answers since the last call. None before [`probe`](Self::probe) was called.
    pub fn take_answers(&mut self) -> impl Iterator<Item = PingAnswer> + use<> {
        self.answers.as_mut().map(std::mem::take).unwrap_or_default().into_iter()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Time> {
        if !self.transmits.is_empty() || !self.events.is_empty() || !self.reopens.is_empty() {
            return Some(Time::default());
        }
        if self.closed {
            return None;
        }
        if self.finished_at.is_some() {
            return self.finished_at;
        }
        let mut next = Time::NEVER;
        let mut consider = |at: Time| next = next.min(at);
        // Without a socket there is nothing to do but to wait for one.
        let has_socket = self.has_socket();
        if self.wanted.is_some() && has_socket {
            consider(self.attempt_allowed_at());
        }
        if let Some(latest) = self.attempts.back().filter(|_| has_socket) {
            consider(latest.repeat_at);
            consider(latest.began + ATTEMPT_LIFE);
        }
        if let Some(since) = self.outage_since.filter(|_| !self.told_silent) {
            consider(since + SILENT_AFTER);
        }
        for previous in &self.previous {
            consider(previous.until);
        }
        if let (None, Some(since)) = (&self.current, self.outage_since) {
            for path in self.paths.iter().flatten().filter(|p| p.is_open()) {
                consider(path.renewal_due(since));
            }
        }
        if let Some(session) = &self.current {
            consider(session.born() + REJECT_AFTER);
            if self.attempts.is_empty() && self.wanted.is_none() {
                consider(self.rekey_at);
                consider(self.suspicion_at().unwrap_or(Time::NEVER));
            }
            let last_answer = self.last_answer();
            for path in self.paths.iter().flatten() {
                if path.is_open() {
                    consider(path.probe.deadline());
                    if path.up {
                        consider(path.pmtu.deadline());
                    }
                    consider(path.reopen_due(last_answer).unwrap_or(Time::NEVER));
                    if !path.up && !path.lingered {
                        consider(path.since + LINGER_DOWN);
                    }
                }
            }
        }
        (next < Time::NEVER).then_some(next)
    }

    /// Everything that follows from the passing of time or from a change of state.
    pub(super) fn drive(&mut self, now: Time) {
        if self.closed {
            return;
        }
        if let Some(at) = self.finished_at {
            if at <= now {
                self.close();
                self.tell(ClientEvent::Closed);
            }
            return;
        }
        self.end_sessions(now);
        self.want_handshake(now);
        self.run_attempts(now);
        if self.current.is_some() {
            self.judge_paths(now);
            self.send_due_pings(now);
            self.send_size_probes(now);
        } else {
            self.renew_sockets(now);
        }
        self.tell_silence(now);
    }

    fn end_sessions(&mut self, now: Time) {
        // Not in the order of their ends: what CLOSE ended goes sooner.
        while let Some(over) = self.previous.iter().position(|p| p.until <= now) {
            if let Some(previous) = self.previous.remove(over) {
                self.retire(&previous.session);
            }
        }
        if self.current.as_ref().is_some_and(|s| !s.is_fresh(now)) {
            self.drop_current(now);
            self.wanted.get_or_insert(Wanted::NoSession);
            self.outage_since.get_or_insert(now);
            self.tell(ClientEvent::SessionLost);
        }
    }

    fn want_handshake(&mut self, now: Time) {
        let Some(session) = &self.current else {
            if self.attempts.is_empty() {
                self.wanted.get_or_insert(Wanted::NoSession);
            }
            return;
        };
        if self.wanted.is_some() || !self.attempts.is_empty() {
            return;
        }
        if now >= self.rekey_at || session.wants_rekey() {
            self.wanted = Some(Wanted::Rekey);
        } else if self.suspicion_at().is_some_and(|at| at <= now) {
            self.wanted = Some(Wanted::Suspicion);
            self.outage_since.get_or_insert(now);
        }
    }

    /// When silence becomes worth a handshake: T after the last packet heard, and T − 250 ms after
    /// every path that is up was asked. An idle tunnel's last packet is old anyway, and a path that
    /// is dead or slow proves nothing while one that is up was not asked.
    fn suspicion_at(&self) -> Option<Time> {
        let heard = self.current.as_ref()?.heard();
        let mut asked_last = None;
        for path in self.paths_to_ask() {
            let (asked, _) = path.asked.filter(|_| path.is_asked_since(heard))?;
            asked_last = asked_last.max(Some(asked));
        }
        let patience = self.suspicion_after();
        let answer = patience.saturating_sub(Duration::from_millis(250));
        Some((heard + patience).max(asked_last? + answer))
    }

    /// The paths whose silence counts: those that are up, or all if none is.
    fn paths_to_ask(&self) -> impl Iterator<Item = &ClientPath> {
        let any_up = self.paths.iter().flatten().any(ClientPath::is_up_and_open);
        let open = self.paths.iter().flatten().filter(|p| p.is_open());
        open.filter(move |p| p.up || !any_up)
    }

    /// When the last authentic packet of the session in use came.
    pub(super) fn heard(&self) -> Time {
        self.current.as_ref().map_or(Time::default(), |s| s.heard())
    }

    fn attempt_allowed_at(&self) -> Time {
        let gap = match self.wanted {
            // An orderly restart must not cost more than a crash.
            _ if self.backoff == Duration::from_millis(500) => self.backoff,
            _ => self.config.attempt_gap,
        };
        self.last_attempt.map_or(self.not_before, |last| (last + gap).max(self.not_before))
    }

    fn run_attempts(&mut self, now: Time) {
        let stale = self.attempts.back().is_some_and(|a| now.since(a.began) >= ATTEMPT_LIFE);
        let begin = (self.wanted.is_some() || stale) && self.attempt_allowed_at() <= now;
        if begin && self.has_socket() {
            self.begin_attempt(now);
        }
        let repeat = self.attempts.back().is_some_and(|a| a.repeat_at <= now);
        if repeat {
            for slot in self.open_slots() {
                self.send_inits(slot);
            }
            let interval = jittered(self.repeat_interval(now), &mut *self.entropy);
            if let Some(attempt) = self.attempts.back_mut() {
                attempt.repeat_at = now + interval;
            }
        }
    }

    fn begin_attempt(&mut self, now: Time) {
        let Some(index) = self.unused_index() else { return };
        let common = &self.config.common;
        let payload = InitPayload {
            peer_id: self.peer_id,
            boot_id: self.boot_id,
            previous_index: self.current.as_ref().map_or(0, |s| s.remote_index()),
            features: common.cipher_offer().features() | common.features(),
            max_payload: common.max_payload,
            paths: u8::try_from(self.paths.iter().flatten().count()).unwrap_or(1).max(1),
            version: VERSION,
            window_log2: common.window_log2,
            time_us: now.as_micros(),
        };
        let made =
            Attempt::new(now, index, &self.config.keys, &self.keys, &payload, &mut *self.entropy);
        // Only impossible keys make this fail, and those are refused when they are loaded.
        let Ok(attempt) = made else { return };
        self.attempts.push_back(attempt);
        if self.attempts.len() > LIVE_ATTEMPTS {
            self.attempts.pop_front();
        }
        self.last_attempt = Some(now);
        let why = self.wanted.take();
        if why != Some(Wanted::Rekey) {
            self.outage_since.get_or_insert(now);
        }
    }

    fn unused_index(&mut self) -> Option<u32> {
        // The chance to find a used one sixteen times in a row is nil unless the table is full.
        (0..16).find_map(|_| {
            let index = random_u32(&mut *self.entropy);
            let taken = index == 0
                || self.plane.contains(index)
                || self.attempts.iter().any(|a| a.index == index);
            (!taken).then_some(index)
        })
    }

    /// The pause between two INITs grows with the outage, not with the attempt.
    fn repeat_interval(&self, now: Time) -> Duration {
        let since = self.outage_since.or(self.last_attempt).unwrap_or(now);
        match now.since(since).as_secs() {
            0..10 => Duration::from_millis(250),
            10..60 => Duration::from_millis(500),
            _ => Duration::from_secs(1),
        }
    }

    fn has_socket(&self) -> bool {
        self.paths.iter().flatten().any(ClientPath::is_open)
    }

    /// When any path last answered of those that are not silent themselves by now.
    fn last_answer(&self) -> Option<Time> {
        let answering = self.paths.iter().flatten().filter(|p| p.probe.missed_since().is_none());
        answering.filter_map(|p| p.probe.health.last_pong()).max()
    }

    fn judge_paths(&mut self, now: Time) {
        let active = self.intervals().active;
        let last_answer = self.last_answer();
        let silent = self.outage_since;
        let heard = self.heard();
        let mut unanswered = false;
        let mut news = Vec::new();
        let (mut changed, mut missed) = (false, false);
        for path in self.paths.iter_mut().flatten() {
            if matches!(path.cookie, Some((_, at)) if now.since(at) >= COOKIE_LIFE) {
                path.cookie = None;
            }
            if !path.is_open() {
                continue;
            }
            let before = path.probe.misses();
            path.probe.judge(now, active);
            missed |= path.probe.misses() != before;
            let slot = path.slot;
            let previous = self.previous.iter().map(|p| &p.session);
            let heard_us = self.current.iter().chain(previous).map(|s| s.path(slot).heard_us());
            path.heard = path.heard.max(Time::from_micros(heard_us.max().unwrap_or(0)));
            unanswered |=
                path.up && path.is_asked_since(heard) && path.probe.missed_since().is_some();
            let Some(reopen_due) = path.reopen_due(last_answer) else { continue };
            let others_answer = path.others_answer(last_answer);
            if path.up && others_answer && path.probe.is_down(now, path.heard) {
                path.set_up(now, false);
                path.lingered = false;
                changed = true;
                news.push(ClientEvent::PathDown(path.id, PathDownReason::NoAnswer));
            }
            if reopen_due <= now {
                path.reopens = path.reopens.saturating_add(1);
                let fresh_port = others_answer && path.reopens > SAME_PORT_TRIES;
                path.reopen_at = now + reopen_pause(path.reopens);
                self.reopens.push_back(Reopen { path: path.id, fresh_port });
            }
        }
        for path in self.paths.iter_mut().flatten() {
            // One path that is up does not answer: ask the others now, not when they are due.
            if unanswered && path.up && !path.is_asked_since(heard) {
                path.probe.hurry(now);
            }
            if !path.up && !path.lingered && now.since(path.since) >= LINGER_DOWN {
                path.lingered = true;
                changed = true;
            }
        }
        for event in news {
            self.tell(event);
        }
        if silent.is_some_and(|since| now.since(since) >= SILENT_AFTER) {
            changed |= self.mark_all_down(now);
        }
        if changed {
            self.publish(now);
        } else if missed {
            self.replan(now);
        }
    }

    /// A search in vain may be the sockets' fault: they keep the source address of the network in
    /// which they were connected, and the address that a name had. Nothing is probed meanwhile, so
    /// time alone tells.
    fn renew_sockets(&mut self, now: Time) {
        let Some(since) = self.outage_since else { return };
        for path in self.paths.iter_mut().flatten().filter(|p| p.is_open()) {
            if path.renewal_due(since) <= now {
                // Longer than any round trip: an answer may be on its way to the old socket.
                path.reopen_at = now + REOPEN_ALL_AFTER;
                self.reopens.push_back(Reopen { path: path.id, fresh_port: false });
            }
        }
        if now.since(since) >= SILENT_AFTER {
            self.mark_all_down(now);
        }
    }

    fn tell_silence(&mut self, now: Time) {
        let Some(since) = self.outage_since else { return };
        if !self.told_silent && now.since(since) >= SILENT_AFTER {
            self.told_silent = true;
            self.tell(ClientEvent::ServerSilent(now.since(since)));
        }
    }
}

/// 0.5 s, doubled each time, at most 10 s.
fn reopen_pause(tries: u32) -> Duration {
    let doublings = tries.saturating_sub(1).min(5);
    Duration::from_millis(500)
        .saturating_mul(1u32.checked_shl(doublings).unwrap_or(32))
        .min(Duration::from_secs(10))
}

impl ClientPath {
    /// Whether some path answers while this one does not.
    fn others_answer(&self, last_answer: Option<Time>) -> bool {
        self.probe.missed_since().is_some_and(|since| last_answer.is_some_and(|at| at > since))
    }

    /// When the socket is to be made anew in a search that has gone on since `since`.
    fn renewal_due(&self, since: Time) -> Time {
        (since + REOPEN_ALL_AFTER).max(self.reopen_at)
    }

    /// When the socket is to be made anew, if answers are missing. A socket on which anything
    /// authentic arrives is not the reason.
    fn reopen_due(&self, last_answer: Option<Time>) -> Option<Time> {
        let patience =
            if self.others_answer(last_answer) { REOPEN_AFTER } else { REOPEN_ALL_AFTER };
        Some((self.probe.missed_since()?.max(self.heard) + patience).max(self.reopen_at))
    }
}
