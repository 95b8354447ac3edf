// SPDX-License-Identifier: BSD-2-Clause
//! Which cipher two ends agree on, that nobody between them has a say in it, and what one key of
//! AES-256-GCM may seal.
#![cfg(feature = "ring")]

use crate::support::*;
use mptunnel_core::proto::config::CipherChoice::{self, Aes256Gcm, Auto, ChaCha20};
use mptunnel_core::proto::config::{ClientConfig, ClientKeys, Common, ServerConfig, ServerKey};
use mptunnel_core::proto::crypto::{
    Cipher, KeySet, Responder, ResponderKeys, StaticSecret, mac1_key_of, mac16,
};
use mptunnel_core::proto::drop::DropReason;
use mptunnel_core::proto::entropy::Entropy;
use mptunnel_core::proto::event::{ClientEvent, ServerEvent};
use mptunnel_core::proto::session::Session;
use mptunnel_core::proto::view::SendRefused;
use mptunnel_core::proto::wire::{
    CipherOffer, FEATURE_AES, InitPayload, Kind, Refusal, RespPayload,
};
use mptunnel_core::sim::link::LinkConfig;
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{Captured, ClientNo, Direction, PathSpec, ServerNo, World};
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What one end is configured with, and whether its machine has AES.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct End {
    choice: CipherChoice,
    hardware: bool,
}

const fn end(choice: CipherChoice, hardware: bool) -> End {
    End { choice, hardware }
}

const AES: End = end(Auto, true);
const NO_AES: End = end(Auto, false);

const ENDS: [End; 6] = [
    NO_AES,
    AES,
    end(ChaCha20, false),
    end(ChaCha20, true),
    end(Aes256Gcm, false),
    end(Aes256Gcm, true),
];

/// What a key of AES-256-GCM may seal, and when it is replaced: PROTOCOL.md, "Ciphers".
const LIMIT: u64 = 1 << 28;
const REKEY_DUE: u64 = 1 << 27;

/// One row for each client and one column for each server, in the order of [`ENDS`]: `A`ES,
/// `C`haCha20, or no session.
const AGREED: [&str; 6] = ["CCCC--", "CACCAA", "CCCC--", "CCCC--", "-A--AA", "-A--AA"];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Keys {
    Psk,
    Static,
    StaticAndPsk,
}

const ALL_KEYS: [Keys; 3] = [Keys::Psk, Keys::Static, Keys::StaticAndPsk];

fn secret(number: u8) -> StaticSecret {
    StaticSecret::new([number; 32]).expect("not all zero")
}

fn with(common: &mut Common, end: End, clear: bool) {
    common.cipher = end.choice;
    common.aes_hardware = end.hardware;
    common.clear = clear;
}

fn client_of(keys: Keys, end: End, clear: bool) -> ClientConfig {
    let on_top = (keys == Keys::StaticAndPsk).then(|| psk(4));
    let mut config = ClientConfig::new(match keys {
        Keys::Psk => ClientKeys::Psk(psk(1)),
        _ => ClientKeys::Static { own: secret(2), server: secret(3).public(), psk: on_top },
    });
    with(&mut config.common, end, clear);
    config
}

fn server_of(keys: Keys, end: End, clear: bool) -> ServerConfig {
    let on_top = (keys == Keys::StaticAndPsk).then(|| psk(4));
    let mut config = ServerConfig::new(vec![match keys {
        Keys::Psk => ServerKey::Psk(psk(1)),
        _ => ServerKey::Static {
            own: secret(3),
            clients: HashMap::from([(secret(2).public(), on_top)]),
        },
    }]);
    with(&mut config.common, end, clear);
    config
}

struct Pair {
    world: World,
    server: ServerNo,
    client: ClientNo,
}

impl Pair {
    /// Both off, over two paths.
    fn new(keys: Keys, client_end: End, server_end: End, clear: bool) -> Pair {
        let mut world = World::new(1);
        let server = world.add_server(move || server_of(keys, server_end, clear));
        let paths = vec![PathSpec::rtt(20 * MS); 2];
        let client = world.add_client(server, paths, move || client_of(keys, client_end, clear));
        Pair { world, server, client }
    }

    fn up(keys: Keys, clear: bool) -> Pair {
        let mut pair = Pair::new(keys, AES, AES, clear);
        pair.world.start_all();
        pair.world.run_for(S);
        for way in [Up, Down] {
            pair.world.send(pair.client, way, 0, 10).expect("it is up");
        }
        pair.world.run_for(S);
        assert_eq!(pair.ciphers(), Some((Cipher::Aes256Gcm, Cipher::Aes256Gcm)));
        pair
    }

    fn session(&self, way: Direction) -> Option<Arc<Session>> {
        match way {
            Up => self.world.client(self.client).client()?.session().cloned(),
            Down => {
                let host = self.world.server(self.server);
                let peer = host.peer_of(self.client)?;
                Some(host.server()?.peer(peer)?.current.clone())
            }
        }
    }

    /// What either end sends with.
    fn ciphers(&self) -> Option<(Cipher, Cipher)> {
        Some((self.session(Up)?.cipher(), self.session(Down)?.cipher()))
    }

    fn rekeys(&self) -> usize {
        count_client_events(&self.world, self.client, |e| *e == ClientEvent::Rekeyed)
    }

    fn refusals(&self) -> Vec<Refusal> {
        let events = self.world.client(self.client).events.iter();
        events
            .filter_map(|(_, e)| if let ClientEvent::Refused(why) = e { Some(*why) } else { None })
            .collect()
    }

    fn assert_all_delivered(&mut self) {
        self.world.stop_streams();
        self.world.run_for(3 * S);
        self.world.verify();
        let lost = self.world.ledger().all().iter().filter(|d| d.delivered_at.is_none()).count();
        assert_eq!(lost, 0, "of {}", self.world.ledger().all().len());
    }
}

#[test]
fn every_pairing_of_settings_and_hardware_gives_its_cipher_or_a_refusal_that_names_both() {
    let mut pairings = 0;
    for keys in ALL_KEYS {
        for clear in [false, true] {
            for (client_end, row) in ENDS.into_iter().zip(AGREED) {
                for (server_end, agreed) in ENDS.into_iter().zip(row.chars()) {
                    pairings += 1;
                    // Readable datagrams are authenticated only, and there Poly1305 is faster.
                    let both_auto = (client_end, server_end) == (AES, AES);
                    let agreed = if clear && both_auto { 'C' } else { agreed };
                    assert_pairing(keys, clear, client_end, server_end, agreed);
                }
            }
        }
    }
    assert_eq!(pairings, 3 * 2 * 6 * 6);
}

fn assert_pairing(keys: Keys, clear: bool, client_end: End, server_end: End, agreed: char) {
    let what = format!("{keys:?}, clear {clear}: client {client_end:?}, server {server_end:?}");
    let mut pair = Pair::new(keys, client_end, server_end, clear);
    pair.world.start_all();
    pair.world.stream_both_ways(pair.client, 20, 100);
    pair.world.run_for(3 * S);

    pair.world.verify();
    if agreed == '-' {
        let told = pair.refusals();
        assert_eq!(told.len(), 1, "{what}: {told:?}");
        assert!(matches!(told[0], Refusal::Cipher { .. }), "{what}: {told:?}");
        let at_server = |e: &ServerEvent| *e == ServerEvent::Refused(told[0]);
        assert_eq!(count_server_events(&pair.world, pair.server, at_server), 1, "{what}");
        let text = told[0].to_string();
        for (end, at) in [(client_end, " at the client"), (server_end, " at the server")] {
            let auto = if end == NO_AES { " without AES in hardware" } else { "" };
            let names = format!("cipher={}{auto}{at}", end.choice.word());
            assert!(text.contains(&names), "{what}: {text:?} lacks {names:?}");
        }
        assert!(!pair.world.client(pair.client).is_up(), "{what}");
        assert_eq!(pair.world.server(pair.server).plane().expect("it runs").len(), 0, "{what}");
        assert_eq!(pair.world.ledger().all().len(), 0, "{what}");
    } else {
        let cipher = if agreed == 'A' { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 };
        assert_eq!(pair.ciphers(), Some((cipher, cipher)), "{what}");
        for way in [Up, Down] {
            let of_way = pair.world.ledger().of(pair.client, way);
            let delivered = of_way.filter(|d| d.delivered_at.is_some()).count();
            assert!(delivered > 50, "{what}: {delivered} {way:?}");
        }
        assert_eq!(pair.refusals(), [], "{what}");
    }
}

#[test]
fn under_load_a_cookie_changes_nothing_about_the_cipher() {
    for keys in ALL_KEYS {
        let mut pair = Pair::new(keys, AES, AES, false);
        pair.server = pair
            .world
            .add_server(move || ServerConfig { load_threshold: 0, ..server_of(keys, AES, false) });
        let paths = vec![PathSpec::rtt(20 * MS); 2];
        let client = move || client_of(keys, AES, false);
        pair.client = pair.world.add_client(pair.server, paths, client);
        pair.world.start_server(pair.server);
        pair.world.start_client(pair.client);
        pair.world.run_for(S);

        let told = |e: &ClientEvent| *e == ClientEvent::CookieMode;
        assert!(count_client_events(&pair.world, pair.client, told) > 0);
        pair.world.send(pair.client, Up, 0, 10).expect("it is up");
        pair.world.run_for(S);
        assert_eq!(pair.ciphers(), Some((Cipher::Aes256Gcm, Cipher::Aes256Gcm)));
    }
}

#[test]
fn a_restarted_end_with_another_setting_changes_the_cipher_of_the_running_tunnel() {
    let setting = Rc::new(Cell::new(AES));
    let asked = setting.clone();
    let mut world = World::new(1);
    let server = world.add_server(move || server_of(Keys::Psk, asked.get(), false));
    let client = world
        .add_client(server, vec![PathSpec::rtt(20 * MS); 2], || client_of(Keys::Psk, AES, false));
    world.start_all();
    world.stream_both_ways(client, 50, 100);
    let mut pair = Pair { world, server, client };
    let both = |cipher| Some((cipher, cipher));

    pair.world.run_for(2 * S);
    assert_eq!(pair.ciphers(), both(Cipher::Aes256Gcm));
    for (next, cipher) in [
        (end(ChaCha20, true), Cipher::ChaCha20Poly1305),
        (end(Aes256Gcm, false), Cipher::Aes256Gcm),
        (NO_AES, Cipher::ChaCha20Poly1305),
    ] {
        setting.set(next);
        pair.world.kill_server(server);
        pair.world.start_server(server);
        pair.world.run_for(3 * S);
        assert_eq!(pair.ciphers(), both(cipher), "{next:?}");
    }
    pair.world.verify();
    assert_eq!(pair.refusals(), []);
}

/// Four paths of which the slowest lags 2 s behind, and new keys five times a second.
#[test]
fn a_busy_tunnel_under_aes_loses_nothing_across_rekeys() {
    for clear in [false, true] {
        let keys = if clear { Keys::Psk } else { Keys::Static };
        let busy = |common: &mut Common| {
            common.rekey_after = 200 * MS;
            common.previous_sessions = 16;
        };
        let mut world = World::new(1);
        let server = world.add_server(move || {
            let mut config = server_of(keys, end(Aes256Gcm, true), clear);
            busy(&mut config.common);
            config
        });
        let paths = [0, 100, 700, 2_000].map(|skew| {
            let delay = Duration::from_millis(50 + skew);
            PathSpec::both(LinkConfig { delay, ..LinkConfig::default() })
        });
        let client = world.add_client(server, paths, move || {
            let mut config = client_of(keys, AES, clear);
            busy(&mut config.common);
            ClientConfig { attempt_gap: Duration::ZERO, ..config }
        });
        world.start_all();
        world.run_for(10 * S);
        let mut pair = Pair { world, server, client };
        let before = pair.rekeys();
        pair.world.stream_both_ways(client, 2_000, 300);
        pair.world.run_for(10 * S);

        let made = pair.rekeys() - before;
        assert!(made >= 30, "{made}");
        assert_eq!(pair.ciphers(), Some((Cipher::Aes256Gcm, Cipher::Aes256Gcm)));
        pair.assert_all_delivered();
        assert!(pair.world.ledger().all().len() >= 40_000);
    }
}

#[test]
fn keys_of_aes_are_replaced_long_before_their_limit_whichever_end_sends() {
    for way in [Up, Down] {
        let mut pair = Pair::up(Keys::Psk, false);
        let session = pair.session(way).expect("it is up");
        let due = REKEY_DUE;
        session.set_next_pn(due - 300);
        pair.world.stream_both_ways(pair.client, 200, 300);

        pair.world.run_for(S);
        assert_eq!(pair.rekeys(), 0, "{way:?}: {}", session.next_pn());
        pair.world.run_for(3 * S);
        assert_eq!(pair.rekeys(), 1, "{way:?}");
        pair.world.run_for(3 * S);
        assert_eq!(pair.rekeys(), 1, "{way:?}: once");
        assert!((due..due + 400).contains(&session.next_pn()), "{way:?}");
        assert!(pair.session(way).expect("it is up").next_pn() < 5_000);
        pair.assert_all_delivered();
    }
}

#[test]
fn large_packets_use_a_key_of_aes_up_sooner_as_they_are_many_blocks() {
    let mut world = World::new(1);
    let server = world.add_server(|| server_of(Keys::Psk, AES, false));
    let jumbo = PathSpec { max_packet: 65_507, ..PathSpec::rtt(20 * MS) };
    let client = world.add_client(server, [jumbo], || client_of(Keys::Psk, AES, false));
    world.start_all();
    world.run_for(2 * S);
    let mut pair = Pair { world, server, client };
    let session = pair.session(Up).expect("it is up");
    // 60,020 bytes with inner header and tag are 30 units of 2,048.
    session.set_next_pn(REKEY_DUE - 1_000);
    let before = session.next_pn();
    for _ in 0..40 {
        pair.world.send(client, Up, 0, 60_000).expect("it is up");
        pair.world.run_for(10 * MS);
    }
    pair.world.run_for(S);

    assert_eq!(pair.rekeys(), 1);
    assert!(session.next_pn() - before < 100, "{}", session.next_pn() - before);
    pair.assert_all_delivered();
}

#[test]
fn at_the_limit_of_aes_nothing_more_is_sealed_and_new_keys_bring_the_tunnel_back() {
    for way in [Up, Down] {
        let mut pair = Pair::up(Keys::Static, false);
        let limit = LIMIT;
        let session = pair.session(way).expect("it is up");
        session.set_next_pn(limit - 5);
        // No timer goes off before these.
        let sent: Vec<_> = (0..8).map(|_| pair.world.send(pair.client, way, 0, 50)).collect();
        assert!(sent[..5].iter().all(Result::is_ok), "{sent:?}");
        assert_eq!(sent[5..], [Err(SendRefused::NoSession); 3]);
        for _ in 0..1_000 {
            assert_eq!(session.reserve(), None);
        }
        assert_eq!(session.next_pn(), limit);

        // A server that cannot say anything any more is silent, which the client notices.
        pair.world.stream_both_ways(pair.client, 50, 50);
        pair.world.run_for(3 * S);

        assert_eq!(pair.rekeys(), 1, "{way:?}");
        assert!(pair.world.send(pair.client, way, 0, 50).is_ok());
        pair.assert_all_delivered();
    }
}

/// A server of which only the handshake is there, with the keys of the real one: what it answers
/// is authentic, whatever it is.
struct Hand<'a> {
    pair: &'a mut Pair,
    keys: Keys,
}

struct Fixed(u8);

impl Entropy for Fixed {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(self.0);
    }
}

impl Hand<'_> {
    /// What the client asks.
    fn init(&mut self) -> Captured {
        let code = if self.keys == Keys::Psk { Kind::InitPsk } else { Kind::InitKey }.code();
        for _ in 0..1_000 {
            let found = self.pair.world.captured().into_iter().find(|c| {
                c.direction == Up && c.path.index == 0 && c.parcel.bytes().first() == Some(&code)
            });
            if let Some(init) = found {
                return init;
            }
            self.pair.world.run_for(10 * MS);
        }
        panic!("no INIT within 10 s");
    }

    fn responder(&self, init: &[u8], server_psk: u8) -> Responder {
        let (shared, own) = (psk(server_psk), secret(3));
        let keys = match self.keys {
            Keys::Psk => ResponderKeys::Psk(&shared),
            _ => ResponderKeys::Static(&own),
        };
        let head = init.first_chunk().expect("16 bytes");
        Responder::read(keys, head, &init[16..init.len() - 32], &mut Fixed(9)).expect("genuine")
    }

    fn offer(&self, init: &[u8]) -> CipherOffer {
        let payload = InitPayload::decode(self.responder(init, 1).payload()).expect("64 bytes");
        CipherOffer::of_features(payload.features)
    }

    fn resp(&self, init: &[u8], status: u8, features: u32) -> Vec<u8> {
        let payload = RespPayload {
            server_index: if status == 0 { 77 } else { 0 },
            status,
            window_log2: 18,
            max_payload: 1_400,
            boot_id: 5,
            time_us: 0,
            features,
            rekey_after_s: 0,
            probe_ms: 0,
            token: [0; 16],
        };
        let on_top = (self.keys == Keys::StaticAndPsk).then(|| psk(4));
        let responder = self.responder(init, 1);
        let (_, message) = responder.reply(on_top.as_ref(), &payload.encode()).expect("fits");
        let mut resp = Kind::Resp.head().to_vec();
        resp.extend(&init[4..8]);
        resp.extend(message);
        self.sign(resp)
    }

    fn sign(&self, mut resp: Vec<u8>) -> Vec<u8> {
        let mac1 = match self.keys {
            Keys::Psk => mac16(KeySet::for_psk(&psk(1)).mac1.expose(), &[&resp]),
            _ => mac16(mac1_key_of(&secret(2).public()).expose(), &[&resp]),
        };
        resp.extend(mac1);
        resp
    }

    fn give(&mut self, resp: &[u8]) {
        self.pair.world.inject_at_client(path(self.pair.client, 0), resp);
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.pair.world.client(self.pair.client).plane().expect("it runs").drops.of(reason)
    }
}

fn client_alone(keys: Keys, client_end: End) -> Pair {
    let mut pair = Pair::new(keys, client_end, AES, false);
    pair.world.capture();
    pair.world.start_client(pair.client);
    pair
}

#[test]
fn a_server_that_knows_no_choice_gets_chacha20_from_all_but_those_who_insist_on_aes() {
    for keys in ALL_KEYS {
        for (client_end, offer) in ENDS.into_iter().zip([
            CipherOffer::NoAes,
            CipherOffer::Aes,
            CipherOffer::OnlyChaCha20,
            CipherOffer::OnlyChaCha20,
            CipherOffer::OnlyAes,
            CipherOffer::OnlyAes,
        ]) {
            let mut pair = client_alone(keys, client_end);
            let mut hand = Hand { pair: &mut pair, keys };
            let init = hand.init();
            assert_eq!(hand.offer(init.parcel.bytes()), offer);
            let resp = hand.resp(init.parcel.bytes(), 0, 0);
            hand.give(&resp);

            let session = pair.session(Up);
            if client_end.choice == Aes256Gcm {
                assert!(session.is_none());
                let server = CipherOffer::NoAes;
                assert_eq!(pair.refusals(), [Refusal::Cipher { client: offer, server }]);
            } else {
                assert_eq!(session.map(|s| s.cipher()), Some(Cipher::ChaCha20Poly1305));
            }
        }
    }
}

#[test]
fn aes_that_was_not_offered_is_not_accepted_and_the_attempt_goes_on() {
    for keys in ALL_KEYS {
        for client_end in [NO_AES, end(ChaCha20, true)] {
            let mut pair = client_alone(keys, client_end);
            let mut hand = Hand { pair: &mut pair, keys };
            let init = hand.init();
            let resp = hand.resp(init.parcel.bytes(), 0, FEATURE_AES);
            hand.give(&resp);
            assert_eq!(hand.drops(DropReason::Malformed), 1);
            assert!(pair.session(Up).is_none());
        }
    }
}

/// Somebody on the way keeps what a server with another setting once answered, and even has the key
/// of the outer checksum.
#[test]
fn the_answer_to_another_attempt_does_not_change_the_cipher() {
    for keys in ALL_KEYS {
        let mut pair = client_alone(keys, AES);
        let mut hand = Hand { pair: &mut pair, keys };
        let first = hand.init();
        let weaker = hand.resp(first.parcel.bytes(), 0, 0);
        let client = hand.pair.client;
        hand.pair.world.kill_client(client);
        hand.pair.world.start_client(client);
        let second = hand.init();
        assert_ne!(first.parcel.bytes()[4..8], second.parcel.bytes()[4..8]);
        // As it was, and as an answer to the new attempt.
        hand.give(&weaker);
        assert_eq!(hand.drops(DropReason::NoAttempt), 1);
        let mut renamed = weaker[..weaker.len() - 16].to_vec();
        renamed[4..8].copy_from_slice(&second.parcel.bytes()[4..8]);
        let renamed = hand.sign(renamed);
        hand.give(&renamed);
        assert_eq!(hand.drops(DropReason::BadHandshake), 1);
        assert!(hand.pair.session(Up).is_none());

        let genuine = hand.resp(second.parcel.bytes(), 0, FEATURE_AES);
        hand.give(&genuine);
        assert_eq!(pair.session(Up).map(|s| s.cipher()), Some(Cipher::Aes256Gcm));
    }
}

/// The feature fields are where everybody knows, so their bits can be flipped, but not unnoticed.
#[test]
fn flipping_the_bits_of_the_cipher_on_the_way_is_noticed_in_both_messages() {
    for keys in ALL_KEYS {
        let mut pair = client_alone(keys, AES);
        pair.world.start_server(pair.server);
        pair.world.set_all_dark(pair.client, true);
        let mut hand = Hand { pair: &mut pair, keys };
        let init = hand.init();
        let payload = if keys == Keys::Psk { 48 } else { 96 };
        let known_mac1 = match keys {
            Keys::Psk => KeySet::for_psk(&psk(1)).mac1,
            _ => KeySet::for_server(&secret(3)).mac1,
        };
        for bit in 0..32 {
            let mut bytes = init.parcel.bytes().to_vec();
            bytes[payload + 28 + bit / 8] ^= 1 << (bit % 8);
            let end = bytes.len() - 32;
            let mac1: [u8; 16] = mac16(known_mac1.expose(), &[&bytes[..end]]);
            bytes[end..end + 16].copy_from_slice(&mac1);
            hand.pair.world.inject_at_server(hand.pair.server, init.parcel.source, &bytes);
        }
        let server = hand.pair.world.server(hand.pair.server);
        assert_eq!(server.plane().expect("it runs").drops.of(DropReason::BadHandshake), 32);
        assert_eq!(server.server().expect("it runs").pending_len(), 0);

        let genuine = hand.resp(init.parcel.bytes(), 0, FEATURE_AES);
        for bit in 0..8 {
            let mut bytes = genuine[..genuine.len() - 16].to_vec();
            bytes[40 + 24] ^= 1 << bit;
            let bytes = hand.sign(bytes);
            hand.give(&bytes);
        }
        assert_eq!(hand.drops(DropReason::BadHandshake), 8);
        assert!(hand.pair.session(Up).is_none());
        hand.give(&genuine);
        assert_eq!(pair.session(Up).map(|s| s.cipher()), Some(Cipher::Aes256Gcm));
    }
}

/// From a time when the client had another setting.
#[test]
fn a_replayed_init_does_not_change_the_cipher_of_a_session() {
    for keys in ALL_KEYS {
        let setting = Rc::new(Cell::new(NO_AES));
        let asked = setting.clone();
        let mut world = World::new(1);
        let server = world.add_server(move || server_of(keys, AES, false));
        let client = world.add_client(server, vec![PathSpec::rtt(20 * MS)], move || {
            client_of(keys, asked.get(), false)
        });
        let mut pair = Pair { world, server, client };
        pair.world.capture();
        pair.world.start_client(client);
        let old = Hand { pair: &mut pair, keys }.init();
        pair.world.kill_client(client);
        setting.set(AES);
        pair.world.start_all();
        pair.world.stream_both_ways(client, 20, 100);
        pair.world.run_for(2 * S);
        let both = Some((Cipher::Aes256Gcm, Cipher::Aes256Gcm));
        assert_eq!(pair.ciphers(), both);

        pair.world.inject_at_server(server, old.parcel.source, old.parcel.bytes());
        let pending = |pair: &Pair| pair.world.server(server).server().map(|s| s.pending_len());
        assert_eq!(pending(&pair), Some(1));
        pair.world.run_for(25 * S);
        assert_eq!((pair.ciphers(), pending(&pair), pair.rekeys()), (both, Some(0), 0));
        pair.world.verify();
    }
}
