// SPDX-License-Identifier: BSD-2-Clause
//! Our own vectors: everything derived and every kind of datagram, in both modes.

use std::fmt::Write;

use mptunnel_core::proto::crypto::*;

use crate::block::{self, Vectors};
use crate::handshakes::*;

const FILE: &str = include_str!("../data/vectors.txt");
const CHACHA20: Cipher = Cipher::ChaCha20Poly1305;

/// The vectors in the order of the file, with a remark each.
#[derive(Default)]
struct Made(Vec<(String, String, Vec<u8>)>);

impl Made {
    fn add(&mut self, name: &str, remark: &str, bytes: impl AsRef<[u8]>) {
        self.0.push((name.to_owned(), remark.to_owned(), bytes.as_ref().to_vec()));
    }
}

#[test]
fn the_api_makes_every_vector_of_the_file_and_the_file_has_no_other() {
    let mut made = Made::default();
    psk_mode(&mut made);
    key_mode(&mut made);

    let mut file = block::load(FILE);
    file.remove("psk_passphrase");
    if cfg!(not(feature = "ring")) {
        file.retain(|name, _| !name.ends_with("_AES") && !name.starts_with("k_aes_"));
    }

    let by_name: Vectors = made.0.iter().map(|(name, _, b)| (name.clone(), b.clone())).collect();
    if by_name != file {
        let mut text = String::new();
        for (name, remark, bytes) in &made.0 {
            let state = if file.get(name) == Some(bytes) { "" } else { " <-- differs" };
            write!(text, "{}", block::render(name, &format!("{remark}{state}"), bytes)).unwrap();
        }
        panic!("the API makes\n{text}\nthe file has {:?}", file.keys());
    }
}

#[cfg(feature = "passphrase")]
#[test]
fn the_passphrase_gives_the_key_of_the_file() {
    let key = Psk::from_passphrase("correct horse battery staple", "home").unwrap();

    assert_eq!(key.expose().as_slice(), block::load(FILE)["psk_passphrase"]);
}

fn psk_mode(made: &mut Made) {
    let mode = Mode::Psk;
    let keys = mode.keys();
    let token = keys.token(SERVER_INDEX).unwrap();
    let cookie = mac16(&[0x44; 32], &[&[10, 0, 0, 1], &8080_u16.to_be_bytes()]);
    made.add("key_id", "", keys.key_id);
    made.add("K_mac1", "", keys.mac1.expose());
    made.add("K_cookie", "", keys.cookie.expose());
    made.add("K_reset", "", hash(&[b"mpt1 reset", psk().expose()]));
    made.add("token", "", token);
    made.add("cookie", "", cookie);

    let mut attempt = Attempt::start(mode, 0);
    let mut refused = Attempt::start(mode, 0);
    let mut no_cipher = Attempt::start(mode, 0);
    let (resp, session) = attempt.answer(0x22, &resp_payload(0, 0, Some(token)));
    let (refusal, _) = refused.answer(0x23, &resp_payload(2, 0, None));
    let (cipher_refusal, _) = no_cipher.answer(0x24, &resp_payload(8, ONLY_AES, None));
    split(made, "", CHACHA20, &session);
    made.add("init_payload", "", init_payload(0));
    made.add("resp_payload", "", resp_payload(0, 0, Some(token)));

    made.add("INIT_PSK", "mac2 zero", &attempt.init);
    made.add("INIT_PSK_MAC2", "the same with the cookie", with_mac2(&attempt.init, &cookie));
    made.add("RESP", "status 0", resp);
    made.add("RESP_REFUSED", "status 2", refusal);
    made.add("RESP_REFUSED_CIPHER", "status 8, features 6", cipher_refusal);
    made.add("COOKIE", "for that INIT", cookie_message(&keys, &attempt, &cookie));
    let ctrl = ctrl_c2s(CHACHA20, &keys, &session);
    made.add("CTRL", "c2s, PING path 0, seq 1, t_tx 1 050 000 µs, pn 0", &ctrl);
    made.add("DATA", "c2s, flow 0, kind 0, \"hello\", pn 1", data_c2s(CHACHA20, &session));
    let clear = data_clear(CHACHA20, SERVER_INDEX, &session.c2s, "hello");
    made.add("DATA_CLEAR", "c2s, flow 0, kind 0, \"hello\", pn 2", clear);
    let marked = packet(CHACHA20, 0x07, SERVER_INDEX, 3, &session.c2s, b"\0\0\x82\x2chello");
    made.add("DATA_MARKED", "c2s, flow 0, kind 0, mark 300, \"hello\", pn 3", marked);
    let remark = "s2c, PONG to that PING, hold 250 µs; PING path 0, seq 1, t_tx 7 000 000 µs; pn 0";
    made.add("CTRL_S2C", remark, ctrl_s2c(CHACHA20, &mode.mac1_towards_client(), &session));
    made.add("DATA_S2C", "s2c, flow 0, kind 0, \"world\", pn 1", data_s2c(CHACHA20, &session));
    let clear = data_clear(CHACHA20, CLIENT_INDEX, &session.s2c, "world");
    made.add("DATA_CLEAR_S2C", "s2c, flow 0, kind 0, \"world\", pn 2", clear);
    made.add("NOSESSION", "for CTRL", no_session(&ctrl, &token));
    #[cfg(feature = "ring")]
    psk_mode_aes(made, &token);
}

/// The same handshake with AES, and what is sealed in its session.
#[cfg(feature = "ring")]
fn psk_mode_aes(made: &mut Made, token: &[u8; 16]) {
    let mode = Mode::Psk;
    let mut attempt = Attempt::start(mode, AES);
    let (resp, session) = attempt.answer(0x22, &resp_payload(0, AES, Some(*token)));
    split(made, "", Cipher::Aes256Gcm, &session);
    made.add("INIT_PSK_AES", "features 2, mac2 zero", &attempt.init);
    made.add("RESP_AES", "status 0, features 2", resp);
    let towards_client = mode.mac1_towards_client();
    sealed_with_aes(made, "", &mode.keys(), &towards_client, &session);
}

fn key_mode(made: &mut Made) {
    let mode = Mode::Key { with_psk: false };
    let keys = mode.keys();
    let token = keys.token(SERVER_INDEX).unwrap();
    let cookie = mac16(&[0x44; 32], &[&[10, 0, 0, 1], &8080_u16.to_be_bytes()]);
    made.add("client_public", "", client_static().public().as_bytes());
    made.add("server_public", "", server_static().public().as_bytes());
    made.add("key_id_key", "", keys.key_id);
    made.add("K_mac1_server", "INIT_KEY.mac1, guard c2s", keys.mac1.expose());
    let towards_client = mode.mac1_towards_client();
    made.add("K_mac1_client", "RESP.mac1, guard s2c", towards_client.expose());
    made.add("K_cookie_key", "", keys.cookie.expose());
    made.add("K_reset_key", "", hash(&[b"mpt1 reset", server_static().expose()]));
    made.add("token_key", "", token);

    let mut attempt = Attempt::start(mode, 0);
    let (resp, session) = attempt.answer(0x22, &resp_payload(0, 0, Some(token)));
    let mut with_psk = Attempt::start(Mode::Key { with_psk: true }, 0);
    let (resp_psk, session_psk) = with_psk.answer(0x22, &resp_payload(0, 0, Some(token)));
    assert_eq!(attempt.init, with_psk.init, "the PSK comes in with the second message only");
    split(made, "_key", CHACHA20, &session);
    split(made, "_key_psk", CHACHA20, &session_psk);

    made.add("INIT_KEY", "mac2 zero", &attempt.init);
    made.add("INIT_KEY_MAC2", "the same with the cookie", with_mac2(&attempt.init, &cookie));
    made.add("RESP_KEY", "status 0, no PSK", resp);
    made.add("RESP_KEY_PSK", "status 0, with the client's PSK", resp_psk);
    made.add("COOKIE_KEY", "for that INIT", cookie_message(&keys, &attempt, &cookie));
    let ctrl = ctrl_c2s(CHACHA20, &keys, &session);
    made.add("CTRL_KEY", "no PSK; otherwise as CTRL", &ctrl);
    let ctrl_back = ctrl_s2c(CHACHA20, &towards_client, &session);
    made.add("CTRL_KEY_S2C", "no PSK; otherwise as CTRL_S2C", ctrl_back);
    made.add("DATA_KEY", "no PSK; otherwise as DATA", data_c2s(CHACHA20, &session));
    made.add("DATA_KEY_S2C", "no PSK; otherwise as DATA_S2C", data_s2c(CHACHA20, &session));
    let clear = data_clear(CHACHA20, SERVER_INDEX, &session.c2s, "hello");
    made.add("DATA_CLEAR_KEY", "no PSK; otherwise as DATA_CLEAR", clear);
    let clear = data_clear(CHACHA20, CLIENT_INDEX, &session.s2c, "world");
    made.add("DATA_CLEAR_KEY_S2C", "no PSK; otherwise as DATA_CLEAR_S2C", clear);
    made.add("DATA_KEY_PSK", "with the PSK; otherwise as DATA", data_c2s(CHACHA20, &session_psk));
    made.add("NOSESSION_KEY", "for CTRL_KEY", no_session(&ctrl, &token));
    #[cfg(feature = "ring")]
    key_mode_aes(made, &token);
}

/// The same handshakes with AES, and what is sealed in their sessions.
#[cfg(feature = "ring")]
fn key_mode_aes(made: &mut Made, token: &[u8; 16]) {
    let mode = Mode::Key { with_psk: false };
    let mut attempt = Attempt::start(mode, AES);
    let (resp, session) = attempt.answer(0x22, &resp_payload(0, AES, Some(*token)));
    let mut with_psk = Attempt::start(Mode::Key { with_psk: true }, AES);
    let (resp_psk, session_psk) = with_psk.answer(0x22, &resp_payload(0, AES, Some(*token)));
    split(made, "_key", Cipher::Aes256Gcm, &session);
    split(made, "_key_psk", Cipher::Aes256Gcm, &session_psk);
    made.add("INIT_KEY_AES", "features 2, mac2 zero", &attempt.init);
    made.add("RESP_KEY_AES", "status 0, features 2, no PSK", resp);
    made.add("RESP_KEY_PSK_AES", "status 0, features 2, with the client's PSK", resp_psk);
    let towards_client = mode.mac1_towards_client();
    sealed_with_aes(made, "_KEY", &mode.keys(), &towards_client, &session);
    let data = data_c2s(Cipher::Aes256Gcm, &session_psk);
    made.add("DATA_KEY_PSK_AES", "with the PSK; otherwise as DATA", data);
}

/// Every kind of packet in both directions, with the inputs of those without AES.
#[cfg(feature = "ring")]
fn sealed_with_aes(
    made: &mut Made,
    mode: &str,
    keys: &KeySet,
    towards_client: &Secret<32>,
    session: &SplitKeys,
) {
    let aes = Cipher::Aes256Gcm;
    let mut add = |kind: &str, way: &str, packet: Vec<u8>| {
        made.add(&format!("{kind}{mode}{way}_AES"), &format!("as {kind}{way}"), packet);
    };
    add("CTRL", "", ctrl_c2s(aes, keys, session));
    add("DATA", "", data_c2s(aes, session));
    add("DATA_CLEAR", "", data_clear(aes, SERVER_INDEX, &session.c2s, "hello"));
    add("CTRL", "_S2C", ctrl_s2c(aes, towards_client, session));
    add("DATA", "_S2C", data_s2c(aes, session));
    add("DATA_CLEAR", "_S2C", data_clear(aes, CLIENT_INDEX, &session.s2c, "world"));
}

/// The keys of a cipher; those of ChaCha20-Poly1305 have no name of their own.
fn split(made: &mut Made, suffix: &str, cipher: Cipher, session: &SplitKeys) {
    let name = if cipher == CHACHA20 { "" } else { "aes_" };
    for (way, direction) in [("c2s", &session.c2s), ("s2c", &session.s2c)] {
        let key = cipher.packet_key(direction);
        made.add(&format!("k_{name}{way}{suffix}"), "", key.expose());
    }
    for (way, direction) in [("c2s", &session.c2s), ("s2c", &session.s2c)] {
        let key = cipher.clear_key(direction);
        made.add(&format!("k_{name}clear_{way}{suffix}"), "", key.expose());
    }
}

fn with_mac2(init: &[u8], cookie: &[u8; 16]) -> Vec<u8> {
    let covered = &init[..init.len() - 16];
    [covered, &mac16(cookie, &[covered])].concat()
}

fn cookie_message(keys: &KeySet, attempt: &Attempt, cookie: &[u8; 16]) -> Vec<u8> {
    let nonce = [0x55; 24];
    let sealed = seal_cookie(keys.cookie.expose(), &nonce, &attempt.mac1(), cookie).unwrap();
    [head(0x04, CLIENT_INDEX).as_slice(), &nonce, &sealed].concat()
}

fn no_session(ctrl: &[u8], token: &[u8; 16]) -> Vec<u8> {
    let tag = &ctrl[ctrl.len() - 24..ctrl.len() - 8];
    let message = [&[0x05, 1, 0, 0], &ctrl[4..16], tag].concat();
    [message.as_slice(), &mac16(token, &[&message])].concat()
}

fn ctrl_c2s(cipher: Cipher, keys: &KeySet, session: &SplitKeys) -> Vec<u8> {
    ctrl(cipher, SERVER_INDEX, &session.c2s, &ping(1_050_000), &keys.mac1)
}

fn ctrl_s2c(cipher: Cipher, mac1_key: &Secret<32>, session: &SplitKeys) -> Vec<u8> {
    let frames = [pong(1_050_000), ping(7_000_000)].concat();
    ctrl(cipher, CLIENT_INDEX, &session.s2c, &frames, mac1_key)
}

/// PING for path 0: no flags, active interval, seq 1, nothing sent before.
fn ping(t_tx: u64) -> Vec<u8> {
    let mut frame = vec![0x01, 32, 0, 0, 0, 0, 1, 0, 0, 0];
    frame.extend(t_tx.to_le_bytes());
    frame.extend([0; 16]);
    frame
}

/// PONG for path 0 to seq 1: held for 250 µs, nothing received before.
fn pong(t_tx: u64) -> Vec<u8> {
    let mut frame = vec![0x02, 40, 0, 0, 0, 0, 1, 0, 0, 0];
    frame.extend(t_tx.to_le_bytes());
    frame.extend(250_u32.to_le_bytes());
    frame.extend([0; 20]);
    frame
}

fn ctrl(
    cipher: Cipher,
    index: u32,
    direction: &Secret<32>,
    frames: &[u8],
    mac1_key: &Secret<32>,
) -> Vec<u8> {
    let mut inner = frames.to_vec();
    inner.resize(inner.len().max(64), 0);
    let packet = packet(cipher, 0x06, index, 0, direction, &inner);
    let guard = mac8(mac1_key.expose(), &[&packet]);
    [packet.as_slice(), &guard].concat()
}

fn data_c2s(cipher: Cipher, session: &SplitKeys) -> Vec<u8> {
    packet(cipher, 0x07, SERVER_INDEX, 1, &session.c2s, b"\0\0\0\0hello")
}

fn data_s2c(cipher: Cipher, session: &SplitKeys) -> Vec<u8> {
    packet(cipher, 0x07, CLIENT_INDEX, 1, &session.s2c, b"\0\0\0\0world")
}

fn data_clear(cipher: Cipher, index: u32, direction: &Secret<32>, payload: &str) -> Vec<u8> {
    let mut packet = head(0x08, index);
    packet.extend(2_u64.to_le_bytes());
    packet.extend([0; 4]);
    packet.extend(payload.as_bytes());
    let key = AeadKey::of(cipher, cipher.clear_key(direction).expose());
    let tag = key.seal_in_place(2, &packet, &mut []).unwrap();
    [packet.as_slice(), &tag].concat()
}

fn packet(
    cipher: Cipher,
    kind: u8,
    index: u32,
    pn: u64,
    direction: &Secret<32>,
    inner: &[u8],
) -> Vec<u8> {
    let mut header = head(kind, index);
    header.extend(pn.to_le_bytes());
    let mut body = inner.to_vec();
    let bytes = cipher.packet_key(direction);
    let key = AeadKey::of(cipher, bytes.expose());
    let tag = key.seal_in_place(pn, &header, &mut body).unwrap();

    // What was sealed opens again, in this build's backend and, if that can, in the portable one.
    let sealed = [body.as_slice(), &tag].concat();
    let opened = key.open_in_place(pn, &header, &mut sealed.clone()).map(|p| p.to_vec());
    assert_eq!(opened.as_deref(), Ok(inner));
    if cipher == CHACHA20 {
        let portable = SealingKey::<Soft>::new(bytes.expose());
        let opened = portable.open_in_place(pn, &header, &mut sealed.clone()).map(|p| p.to_vec());
        assert_eq!(opened.as_deref(), Ok(inner));
    }

    [header, sealed].concat()
}
