// SPDX-License-Identifier: BSD-2-Clause
//! The answers to an INIT: RESP, COOKIE; and the hint NOSESSION.

use super::super::codec::Reader;
use super::super::crypto::{self, AeadKey, Cipher, Secret, SplitKeys, mac};
use super::super::drop::DropReason;
use super::super::entropy::random_u64;
use super::super::event::{ClientEvent, PathDownReason};
use super::super::replay::ReplayWindow;
use super::super::route::Route;
use super::super::session::{Session, SessionSetup};
use super::super::time::Time;
use super::super::wire::{
    CipherOffer, FEATURE_AES, FEATURE_CLEAR, FEATURE_ORDER, Kind, Refusal, RespPayload, index_of,
};
use super::paths::PathState;
use super::{Client, PREVIOUS_KEPT, Previous, Wanted};
use crate::proto::entropy::random_u32;
use std::sync::Arc;
use std::time::Duration;

/// log2 of the window of a first session.
const FIRST_WINDOW_LOG2: u8 = 12;
/// How old a packet may be that a NOSESSION answers.
const HINT_MAX_AGE: Duration = Duration::from_secs(10);
/// How soon a NOSESSION brings the next INIT of an attempt.
const HINT_PAUSE: Duration = Duration::from_millis(100);
/// RESPs per second and path that are checked as far as a key exchange: in KEY mode their outer
/// checksum can be made by anybody who knows our public key.
const RESP_CHECKS_PER_S: u32 = 16;

impl Client {
    /// Takes a message that the data plane left to the control side.
    pub fn handle_stranger(&mut self, now: Time, route: &Route, kind: Kind, datagram: &[u8]) {
        let result = match kind {
            Kind::Resp => self.on_resp(now, route, datagram),
            Kind::Cookie => self.on_cookie(now, route, datagram),
            Kind::NoSession => self.on_nosession(now, datagram),
            Kind::InitPsk | Kind::InitKey => Err(DropReason::WrongDirection),
            Kind::Ctrl | Kind::Data | Kind::DataClear => Err(DropReason::UnknownIndex),
        };
        if let Err(reason) = result {
            self.plane.drops.count(reason);
        }
        self.drive(now);
    }

    fn on_resp(&mut self, now: Time, route: &Route, datagram: &[u8]) -> Result<(), DropReason> {
        let index = index_of(datagram).ok_or(DropReason::BadLength)?;
        let (signed, mac1) = datagram.split_last_chunk::<16>().ok_or(DropReason::BadLength)?;
        if !self.attempts.iter().any(|a| a.index == index && a.is_answerable(now)) {
            return Err(DropReason::NoAttempt);
        }
        if !mac::verify(&mac::mac16(self.guard_rx.expose(), &[signed]), mac1) {
            return Err(DropReason::BadMac1);
        }
        let message = signed.get(8..).ok_or(DropReason::BadLength)?;
        let ephemeral = message.first_chunk::<32>().ok_or(DropReason::BadLength)?;
        if crypto::is_low_order(ephemeral) {
            return Err(DropReason::LowOrderKey);
        }
        let path = self.paths.iter_mut().flatten().find(|p| p.is_open_on(route.socket));
        if !path.is_some_and(|p| p.resp_checks.take(now, RESP_CHECKS_PER_S)) {
            return Err(DropReason::RateLimited);
        }
        let attempt =
            self.attempts.iter_mut().find(|a| a.index == index).ok_or(DropReason::NoAttempt)?;
        let (keys, payload) =
            attempt.noise.finish(message).map_err(|_| DropReason::BadHandshake)?;
        let resp = RespPayload::decode(&payload).ok_or(DropReason::Malformed)?;
        if let Some(path) = self.paths.iter_mut().flatten().find(|p| p.is_open_on(route.socket)) {
            path.answered = true;
        }
        let offer = self.config.common.cipher_offer();
        match Refusal::of(resp.status, resp.features, offer) {
            None => self.on_accepted(now, index, offer, &keys, &resp),
            Some(_) if resp.server_index != 0 => Err(DropReason::Malformed),
            Some(why) => {
                self.on_heard_server();
                self.refused(now, why);
                Ok(())
            }
        }
    }

    fn on_accepted(
        &mut self,
        now: Time,
        index: u32,
        offer: CipherOffer,
        keys: &SplitKeys,
        resp: &RespPayload,
    ) -> Result<(), DropReason> {
        let clear = resp.features & FEATURE_CLEAR != 0;
        let aes = resp.features & FEATURE_AES != 0;
        // Granting what was not asked for, or the other way round, would be a bug of the server.
        let wrong = clear != self.config.common.clear || (aes && !offer.has_aes());
        if wrong || resp.server_index == 0 {
            return Err(DropReason::Malformed);
        }
        if !aes && offer == CipherOffer::OnlyAes {
            // A server that knows the choice would have refused by itself.
            self.on_heard_server();
            self.refused(now, Refusal::Cipher { client: offer, server: CipherOffer::NoAes });
            return Ok(());
        }
        let cipher = Cipher::AES.filter(|_| aes).unwrap_or(Cipher::ChaCha20Poly1305);
        let key = |direction| AeadKey::of(cipher, cipher.packet_key(direction).expose());
        let clear_key = |direction| AeadKey::of(cipher, cipher.clear_key(direction).expose());
        let window_log2 = self
            .current
            .as_ref()
            .map_or(FIRST_WINDOW_LOG2, |session| session.successor_window(now));
        let max_log2 = self.config.common.window_log2;
        let session = Arc::new(Session::new(SessionSetup {
            local_index: index,
            remote_index: resp.server_index,
            born: now,
            cipher,
            tx: key(&keys.c2s),
            rx: key(&keys.s2c),
            clear: clear.then(|| (clear_key(&keys.c2s), clear_key(&keys.s2c))),
            guard_tx: Secret::new(*self.keys.mac1.expose()),
            guard_rx: Secret::new(*self.guard_rx.expose()),
            token: resp.token,
            max_payload: usize::from(resp.max_payload.min(self.config.common.max_payload)),
            window: ReplayWindow::new(window_log2.min(max_log2), max_log2, self.budget.clone()),
            reassembly_memory: self.config.common.reassembly_memory,
            reassembly_shared: self.pieces.clone(),
            route_seed: random_u64(&mut *self.entropy),
            confirmed: true,
            marks: resp.features & FEATURE_ORDER != 0,
        }));
        if !self.plane.insert(session.clone()) {
            return Err(DropReason::NoAttempt);
        }
        if self.current.as_ref().is_none_or(|session| session.cipher() != cipher) {
            log::info!(target: "mptunnel::client", "packets are sealed with {cipher}");
        }
        self.attempts.clear();
        self.wanted = None;
        (self.not_before, self.backoff) = (now, Duration::ZERO);
        self.on_heard_server();
        self.plan_rekey(now, resp);
        self.rekey_asked = false;
        self.probe_interval = (resp.probe_ms > 0)
            .then(|| Duration::from_millis(u64::from(resp.probe_ms.clamp(50, 5_000))));
        self.log.forget();
        self.rtt_bound = now.since(Time::from_micros(resp.time_us));

        let known_boot = self.server_boot.replace(resp.boot_id);
        let event = match (&self.current, known_boot) {
            (_, Some(boot)) if boot != resp.boot_id => ClientEvent::ServerRestarted,
            (Some(_), _) => ClientEvent::Rekeyed,
            (None, _) => ClientEvent::SessionUp,
        };
        match event {
            ClientEvent::Rekeyed => self.rekeys = self.rekeys.saturating_add(1),
            ClientEvent::ServerRestarted => self.restarts = self.restarts.saturating_add(1),
            _ => {}
        }
        if let Some(old) = self.current.replace(session) {
            // Data that went lately keeps the paths busy across the change of keys.
            if let Some(new) = &self.current {
                new.on_data(old.last_data());
            }
            self.keep_previous(old, now + PREVIOUS_KEPT, known_boot);
        }
        self.tell(event);
        for path in self.paths.iter_mut().flatten() {
            if known_boot != Some(resp.boot_id) {
                path.probe.health.on_new_peer();
            }
            path.asked = None;
            path.probe.quicken(now);
        }
        if known_boot != Some(resp.boot_id) {
            self.agreement.on_new_peer();
        }
        self.publish(now);
        Ok(())
    }

    /// Goes on receiving under the keys of `session` until then.
    pub(super) fn keep_previous(&mut self, session: Arc<Session>, until: Time, boot: Option<u64>) {
        self.previous.push_back(Previous { session, until, boot });
        while self.previous.len() > self.config.common.previous_sessions {
            if let Some(oldest) = self.previous.pop_front() {
                self.retire(&oldest.session);
            }
        }
    }

    fn plan_rekey(&mut self, now: Time, resp: &RespPayload) {
        // A key lives 180 s: whatever the server asks for, new ones come in time and not too often.
        let asked = match resp.rekey_after_s {
            0 => self.config.common.rekey_after,
            s => Duration::from_secs(u64::from(s.min(150))).min(self.config.common.rekey_after),
        };
        // Up to a twelfth earlier (10 s of 120), so that many clients do not come at once.
        let earlier = f64::from(random_u32(&mut *self.entropy)) / f64::from(u32::MAX) / 12.0;
        self.rekey_at = now + asked.mul_f64(1.0 - earlier);
    }

    /// Something authentic came from the server.
    pub(super) fn on_heard_server(&mut self) {
        self.outage_since = None;
        self.told_silent = false;
    }

    fn on_cookie(&mut self, now: Time, route: &Route, datagram: &[u8]) -> Result<(), DropReason> {
        let mut r = Reader(datagram);
        r.skip(4).ok_or(DropReason::BadLength)?;
        let index = r.u32().ok_or(DropReason::BadLength)?;
        let nonce: [u8; 24] = r.array().ok_or(DropReason::BadLength)?;
        let sealed: [u8; 32] = r.array().ok_or(DropReason::BadLength)?;
        let attempt =
            self.attempts.iter().find(|a| a.index == index).ok_or(DropReason::NoAttempt)?;
        let cookie =
            crypto::open_cookie(self.keys.cookie.expose(), &nonce, attempt.mac1(), &sealed)
                .map_err(|_| DropReason::AuthFailed)?;
        let path = self
            .paths
            .iter_mut()
            .flatten()
            .find(|p| p.is_open_on(route.socket))
            .ok_or(DropReason::NoAttempt)?;
        // Each distinct cookie is answered once; copies of it would only multiply the INITs.
        if path.cookie.as_ref().is_some_and(|(known, _)| *known == cookie) {
            return Ok(());
        }
        let first = path.cookie.is_none();
        path.cookie = Some((cookie, now));
        let datagram = attempt.datagram(Some(&cookie));
        if let PathState::Open { route, .. } = path.state {
            self.transmits.push_back(super::Transmit { route, bytes: datagram });
        }
        if first {
            self.tell(ClientEvent::CookieMode);
        }
        Ok(())
    }

    /// A hint, and no more: the most it can bring about is one handshake.
    fn on_nosession(&mut self, now: Time, datagram: &[u8]) -> Result<(), DropReason> {
        const IGNORED: DropReason = DropReason::NoSessionIgnored;
        let mut r = Reader(datagram);
        r.skip(4).ok_or(IGNORED)?;
        let index = r.u32().ok_or(IGNORED)?;
        let pn = r.u64().ok_or(IGNORED)?;
        let tag: [u8; 16] = r.array().ok_or(IGNORED)?;
        let session = self.current.as_ref().ok_or(IGNORED)?;
        let (signed, mac) = datagram.split_last_chunk::<16>().ok_or(IGNORED)?;
        let honest = self.config.honour_hints
            && session.remote_index() == index
            && mac::verify(&mac::mac16(session.token(), &[signed]), mac)
            && self.log.was_sent_lately(now, pn, &tag, HINT_MAX_AGE)
            && !self.log.is_answered(pn);
        if !honest {
            return Err(IGNORED);
        }
        log::debug!(target: "mptunnel::client", "the server does not know session {index:08x}");
        if self.attempts.is_empty() {
            self.wanted.get_or_insert(Wanted::Suspicion);
            self.outage_since.get_or_insert(now);
        } else {
            for attempt in &mut self.attempts {
                attempt.repeat_at = attempt.repeat_at.min(now + HINT_PAUSE);
            }
        }
        Ok(())
    }

    /// Sends the INITs of all live attempts on one path.
    pub(super) fn send_inits(&mut self, slot: u8) {
        let Some(path) = self.paths.get(usize::from(slot)).and_then(Option::as_ref) else { return };
        let PathState::Open { route, .. } = path.state else { return };
        let cookie = path.cookie.as_ref().map(|(cookie, _)| cookie);
        // The latest attempt is enough: the one before only stays answerable.
        if let Some(attempt) = self.attempts.back() {
            let bytes = attempt.datagram(cookie);
            self.transmits.push_back(super::Transmit { route, bytes });
        }
    }

    /// All paths went quiet together: that is the server's silence, not theirs.
    /// Tells whether that is news.
    pub(super) fn mark_all_down(&mut self, now: Time) -> bool {
        let mut down = Vec::new();
        for path in self.paths.iter_mut().flatten() {
            if path.set_up(now, false) {
                down.push(path.id);
            }
        }
        let news = !down.is_empty();
        for id in down {
            self.tell(ClientEvent::PathDown(id, PathDownReason::AllSilent));
        }
        news
    }
}
