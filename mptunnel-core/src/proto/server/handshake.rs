// SPDX-License-Identifier: BSD-2-Clause
//! INIT at the server: who asks, whether he may, and what he is told. Cheap checks come first.

use super::super::crypto::{
    self, AeadKey, Cipher, Psk, PublicKey, Responder, ResponderKeys, Secret, SplitKeys, mac,
};
use super::super::drop::DropReason;
use super::super::entropy::{random_u32, random_u64};
use super::super::event::{PeerId, ServerEvent, Transmit};
use super::super::replay::ReplayWindow;
use super::super::route::Route;
use super::super::session::{Session, SessionSetup};
use super::super::time::Time;
use super::super::wire::{
    CipherOffer, FEATURE_AES, FEATURE_CLEAR, FEATURE_ORDER, InitPayload, Kind, Refusal,
    RespPayload, VERSION,
};
use super::cache::Cached;
use super::peer::Peer;
use super::{PeerKey, Pending, Server, ServerKey};
use crate::proto::codec::Writer;
use std::sync::Arc;

/// log2 of the window of a first session.
const FIRST_WINDOW_LOG2: u8 = 12;

/// What is left of an INIT after the cheap checks.
struct Init<'a> {
    route: &'a Route,
    /// Everything before mac1.
    core: &'a [u8],
    mac1: &'a [u8; 16],
    index: [u8; 4],
    head: [u8; 16],
    key: usize,
}

impl Server {
    /// Takes a message that the data plane left to the control side.
    pub fn handle_stranger(&mut self, now: Time, route: &Route, kind: Kind, datagram: &[u8]) {
        let result = match kind {
            Kind::InitPsk | Kind::InitKey => self.on_init(now, route, kind, datagram),
            Kind::Ctrl => self.on_unknown_ctrl(now, route, datagram),
            Kind::Resp | Kind::Cookie | Kind::NoSession => Err(DropReason::WrongDirection),
            Kind::Data | Kind::DataClear => Err(DropReason::UnknownIndex),
        };
        if let Err(reason) = result {
            self.plane.drops.count(reason);
        }
    }

    fn on_init(
        &mut self,
        now: Time,
        route: &Route,
        kind: Kind,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        self.expire_cache(now);
        let head = *datagram.first_chunk::<16>().ok_or(DropReason::BadLength)?;
        let [_, _, _, _, i0, i1, i2, i3, key_id @ ..] = head;
        let found = self
            .key_sets
            .iter()
            .zip(&self.config.keys)
            .position(|(set, key)| set.key_id == key_id && key.serves(kind));
        let Some(key) = found else {
            self.tell_unknown_key(now, key_id);
            return Err(DropReason::UnknownKey);
        };
        let set = self.key_sets.get(key).ok_or(DropReason::UnknownKey)?;
        let (signed, mac2) = datagram.split_last_chunk::<16>().ok_or(DropReason::BadLength)?;
        let (core, mac1) = signed.split_last_chunk::<16>().ok_or(DropReason::BadLength)?;
        if !mac::verify(&mac::mac16(set.mac1.expose(), &[core]), mac1) {
            return Err(DropReason::BadMac1);
        }
        let ephemeral =
            core.get(16..).and_then(|e| e.first_chunk::<32>()).ok_or(DropReason::BadLength)?;
        if crypto::is_low_order(ephemeral) {
            return Err(DropReason::LowOrderKey);
        }
        let hash = mac::hash(&[core]);
        match self.cache.lookup(now, &hash, route.remote) {
            Cached::Reply(resp) => {
                let bytes = resp.to_vec();
                self.transmits.push_back(Transmit { route: *route, bytes });
                return Ok(());
            }
            Cached::Spent => return Err(DropReason::ReplyBudget),
            Cached::Miss => {}
        }
        let init = Init { route, core, mac1, index: [i0, i1, i2, i3], head, key };
        let loaded = self.load.on_new_init(now);
        if loaded {
            let cookie = self.load.cookie(now, route.remote, &mut *self.entropy);
            if !mac::verify(&mac::mac16(&cookie, &[signed]), mac2) {
                return self.send_cookie(&init, &cookie);
            }
            if !self.load.source_allowed(now, route.remote.ip()) {
                return Err(DropReason::RateLimited);
            }
        }
        if !self.load.handshake_allowed(now) {
            return Err(DropReason::RateLimited);
        }
        self.shake_hands(now, &init, hash, loaded)
    }

    fn send_cookie(&mut self, init: &Init<'_>, cookie: &[u8; 16]) -> Result<(), DropReason> {
        let set = self.key_sets.get(init.key).ok_or(DropReason::UnknownKey)?;
        let mut nonce = [0; 24];
        self.entropy.fill(&mut nonce);
        let sealed = crypto::seal_cookie(set.cookie.expose(), &nonce, init.mac1, cookie)
            .map_err(|_| DropReason::BadHandshake)?;
        let bytes = Writer::<64>::new()
            .put(&Kind::Cookie.head())
            .put(&init.index)
            .put(&nonce)
            .put(&sealed)
            .done();
        self.transmits.push_back(Transmit { route: *init.route, bytes: bytes.to_vec() });
        Err(DropReason::BadMac2)
    }

    fn shake_hands(
        &mut self,
        now: Time,
        init: &Init<'_>,
        hash: [u8; 32],
        loaded: bool,
    ) -> Result<(), DropReason> {
        let message = init.core.get(16..).ok_or(DropReason::BadLength)?;
        let key = self.config.keys.get(init.key).ok_or(DropReason::UnknownKey)?;
        let own = match key {
            ServerKey::Psk(psk) => ResponderKeys::Psk(psk),
            ServerKey::Static { own, .. } => ResponderKeys::Static(own),
        };
        let noise = Responder::read(own, &init.head, message, &mut *self.entropy)
            .map_err(|_| DropReason::BadHandshake)?;
        let payload = InitPayload::decode(noise.payload()).ok_or(DropReason::Malformed)?;
        let client = noise.client();
        let set = self.key_sets.get(init.key).ok_or(DropReason::UnknownKey)?;
        let peer = match client {
            None => PeerKey::Psk(set.key_id, payload.peer_id),
            Some(public) => PeerKey::Static(public),
        };
        // RESP and CTRL towards a client with static keys are keyed with the client's.
        let guard_tx = match client {
            None => Secret::new(*set.mac1.expose()),
            Some(public) => crypto::mac1_key_of(&public),
        };
        let known = self.by_key.contains_key(&peer);
        let refusal = self.refusal(now, init, &payload, client, &peer);
        let server_index = match refusal {
            None => self.unused_index().ok_or(DropReason::RateLimited)?,
            Some(_) => 0,
        };
        let cipher = self.cipher_with(&payload);
        let features = match refusal {
            None => self.config.common.features() | aes_bit(cipher),
            Some(Refusal::Cipher { server, .. }) => server.features(),
            Some(_) => 0,
        };
        let set = self.key_sets.get(init.key).ok_or(DropReason::UnknownKey)?;
        let token = match refusal {
            None => set.token(server_index).ok_or(DropReason::UnknownKey)?,
            Some(_) => [0; 16],
        };
        let common = &self.config.common;
        let resp = RespPayload {
            server_index,
            status: refusal.map_or(0, Refusal::code),
            window_log2: common.window_log2,
            max_payload: common.max_payload,
            boot_id: self.boot_id,
            time_us: payload.time_us,
            features,
            rekey_after_s: u16::try_from(common.rekey_after.as_secs().clamp(1, 150)).unwrap_or(0),
            probe_ms: u16::try_from(common.intervals.active.as_millis()).unwrap_or(0),
            token,
        };
        let psk = self.psk_of(init.key, client);
        let (keys, message) =
            noise.reply(psk, &resp.encode()).map_err(|_| DropReason::BadHandshake)?;
        let mut bytes = Kind::Resp.head().to_vec();
        bytes.extend(init.index);
        bytes.extend(message);
        let mac1: [u8; 16] = mac::mac16(guard_tx.expose(), &[&bytes]);
        bytes.extend(mac1);
        let source = init.route.remote;
        let evicted =
            self.cache.insert(now, hash, source, bytes.clone(), server_index, known, loaded);
        if let Some(index) = evicted {
            self.forget_pending(index);
        }
        self.transmits.push_back(Transmit { route: *init.route, bytes });
        match refusal {
            Some(why) => self.tell_refused(now, why),
            None => {
                let session = self.make_session(
                    now,
                    init,
                    server_index,
                    &payload,
                    cipher,
                    &keys,
                    guard_tx,
                    token,
                );
                if self.plane.insert(session.clone()) {
                    let pending = Pending { session, peer, boot: payload.boot_id };
                    self.pending.insert(server_index, pending);
                }
            }
        }
        Ok(())
    }

    fn psk_of(&self, key: usize, client: Option<PublicKey>) -> Option<&Psk> {
        match (self.config.keys.get(key)?, client) {
            (ServerKey::Static { clients, .. }, Some(client)) => clients.get(&client)?.as_ref(),
            _ => None,
        }
    }

    #[allow(clippy::too_many_arguments, reason = "every one of them ends up in the session")]
    fn make_session(
        &mut self,
        now: Time,
        init: &Init<'_>,
        local_index: u32,
        payload: &InitPayload,
        cipher: Cipher,
        keys: &SplitKeys,
        guard_tx: Secret<32>,
        token: [u8; 16],
    ) -> Arc<Session> {
        let common = &self.config.common;
        let guard_rx =
            Secret::new(self.key_sets.get(init.key).map_or([0; 32], |set| *set.mac1.expose()));
        let first = FIRST_WINDOW_LOG2.min(common.window_log2);
        let key = |direction| AeadKey::of(cipher, cipher.packet_key(direction).expose());
        let clear_key = |direction| AeadKey::of(cipher, cipher.clear_key(direction).expose());
        Arc::new(Session::new(SessionSetup {
            local_index,
            remote_index: u32::from_le_bytes(init.index),
            born: now,
            cipher,
            tx: key(&keys.s2c),
            rx: key(&keys.c2s),
            clear: common.clear.then(|| (clear_key(&keys.s2c), clear_key(&keys.c2s))),
            guard_tx,
            guard_rx,
            token,
            max_payload: usize::from(payload.max_payload.min(common.max_payload)),
            window: ReplayWindow::new(first, common.window_log2, self.budget.clone()),
            reassembly_memory: common.reassembly_memory,
            reassembly_shared: self.pieces.clone(),
            route_seed: random_u64(&mut *self.entropy),
            confirmed: false,
            marks: payload.features & FEATURE_ORDER != 0,
        }))
    }

    /// What to seal with for a client that is not refused.
    fn cipher_with(&self, payload: &InitPayload) -> Cipher {
        let offers =
            [self.config.common.cipher_offer(), CipherOffer::of_features(payload.features)];
        // GCM is fast at encrypting and authenticating together. Poly1305 is faster alone.
        let pays = !self.config.common.clear || offers.contains(&CipherOffer::OnlyAes);
        let aes = pays && offers.iter().all(|offer| offer.has_aes());
        Cipher::AES.filter(|_| aes).unwrap_or(Cipher::ChaCha20Poly1305)
    }

    fn refusal(
        &self,
        now: Time,
        init: &Init<'_>,
        payload: &InitPayload,
        client: Option<PublicKey>,
        peer: &PeerKey,
    ) -> Option<Refusal> {
        let known = self.by_key.get(peer).and_then(|id| self.peers.get(id));
        let unlisted = match (self.config.keys.get(init.key), client) {
            (Some(ServerKey::Static { clients, .. }), Some(client)) => {
                !clients.contains_key(&client)
            }
            _ => false,
        };
        let asks_clear = payload.features & FEATURE_CLEAR != 0;
        let offers = CipherOffer::of_features(payload.features);
        let own_offer = self.config.common.cipher_offer();
        if self.closing {
            Some(Refusal::ShuttingDown)
        } else if unlisted {
            Some(Refusal::NotAuthorised)
        } else if payload.version < VERSION {
            Some(Refusal::Version)
        } else if asks_clear && !self.config.common.clear {
            Some(Refusal::EncryptionRequired)
        } else if !asks_clear && self.config.common.clear {
            Some(Refusal::ClearRequired)
        } else if !own_offer.agrees(offers) {
            Some(Refusal::Cipher { client: offers, server: own_offer })
        } else if known.is_some_and(|peer| peer.conflicts(now, payload.boot_id)) {
            Some(Refusal::IdConflict)
        } else if known.is_none() && self.peers.len() >= self.config.sessions {
            Some(Refusal::SessionLimit)
        } else {
            None
        }
    }

    fn unused_index(&mut self) -> Option<u32> {
        // The chance to find a used one sixteen times in a row is nil unless the table is full.
        (0..16).find_map(|_| {
            let index = random_u32(&mut *self.entropy);
            (index != 0 && !self.plane.contains(index)).then_some(index)
        })
    }

    /// The first packet under a session's keys has opened: the session becomes its peer's current
    /// one. `false` if there is no room for another peer. Does nothing for a session of a peer.
    pub fn promote(&mut self, now: Time, session: &Arc<Session>) -> bool {
        let Some(pending) = self.pending.remove(&session.local_index()) else {
            return session.is_confirmed();
        };
        self.cache.confirm(session.local_index());
        let known = self.by_key.get(&pending.peer).copied();
        if known.is_none() && self.peers.len() >= self.config.sessions {
            self.plane.remove(session.local_index());
            self.tell_refused(now, Refusal::SessionLimit);
            return false;
        }
        let id = match known {
            Some(id) => {
                self.renew(now, id, pending);
                id
            }
            None => {
                let id = PeerId(self.next_peer);
                self.next_peer = self.next_peer.saturating_add(1);
                let common = &self.config.common;
                let peer = Peer::new(
                    now,
                    id,
                    pending.peer,
                    pending.boot,
                    pending.session,
                    common.intervals,
                    common.policy,
                );
                self.by_key.insert(pending.peer, id);
                self.deadlines.insert((now, id));
                self.peers.insert(id, peer);
                self.tell(ServerEvent::PeerUp(id));
                id
            }
        };
        if let Some(peer) = self.peers.get_mut(&id) {
            let cipher = session.cipher();
            log::debug!(target: "mptunnel::server", "packets of client {id} are sealed with {cipher}");
            session.confirm(id.0, peer.epoch);
            peer.publish(now);
        }
        self.reschedule(id);
        true
    }

    fn renew(&mut self, now: Time, id: PeerId, pending: Pending) {
        let keep = self.config.common.previous_sessions;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let restarted = peer.boot != pending.boot;
        if pending.session.born() < peer.current.born() {
            // Its first packet was slower than those of the session that came after it.
            for session in peer.keep_late(now, pending.session, pending.boot, keep) {
                self.plane.remove(session.local_index());
            }
            return;
        }
        if !restarted {
            pending.session.reserve_window(peer.current.successor_window(now));
        }
        let gone = peer.take_over(now, pending.session, pending.boot, keep);
        for session in gone {
            self.plane.remove(session.local_index());
        }
        self.tell(if restarted {
            ServerEvent::PeerRestarted(id)
        } else {
            ServerEvent::Rekeyed(id)
        });
    }

    pub(super) fn forget_pending(&mut self, index: u32) {
        if self.pending.remove(&index).is_some() {
            self.plane.remove(index);
        }
    }

    fn tell_refused(&mut self, now: Time, why: Refusal) {
        // Whoever knows the server's public key can be refused as often as handshakes are allowed,
        // and must not push all other news out of the queue.
        if self.refusals.take(now, 1) {
            self.tell(ServerEvent::Refused(why));
        }
    }

    fn tell_unknown_key(&mut self, now: Time, key_id: [u8; 8]) {
        // Unauthenticated: worth a line for the operator now and then, and nothing else.
        if self.unknown_keys.take(now, 1) {
            self.tell(ServerEvent::UnknownKey(key_id));
        }
    }
}

/// How RESP names the cipher.
fn aes_bit(cipher: Cipher) -> u32 {
    if cipher == Cipher::ChaCha20Poly1305 { 0 } else { FEATURE_AES }
}

impl ServerKey {
    fn serves(&self, kind: Kind) -> bool {
        matches!(
            (self, kind),
            (ServerKey::Psk(_), Kind::InitPsk) | (ServerKey::Static { .. }, Kind::InitKey)
        )
    }
}
