// SPDX-License-Identifier: BSD-2-Clause
//! INIT at a server: sealed with the right keys, whatever the payload says; with and without
//! cookies; copied; followed by the first packet of the session, or not.

use super::ends::{START, ServerEnd, address, server_config};
use super::script::{Script, Seed};
use super::vectors;
use mptunnel_core::proto::config::CipherChoice;
use mptunnel_core::proto::crypto::{
    self, AeadKey, Cipher, Initiator, InitiatorKeys, KeySet, Secret, StaticSecret, mac,
};
use mptunnel_core::proto::event::PeerId;
use mptunnel_core::proto::frame::{Frame, FrameList, Ping};
use mptunnel_core::proto::replay::ReplayWindow;
use mptunnel_core::proto::session::{Session, SessionSetup};
use mptunnel_core::proto::time::Time;
use mptunnel_core::proto::wire::{
    COOKIE_LEN, FEATURE_AES, FEATURE_CLEAR, InitPayload, Kind, RESP_LEN, RespPayload,
};
use mptunnel_core::sim::rng::Rng;
use std::sync::Arc;
use std::time::Duration;

/// Keys of which one side or the other has never heard.
const UNLISTED: [u8; 32] = [0x99; 32];

struct Attempt {
    packet: Vec<u8>,
    is_static: bool,
    initiator: Initiator,
    session: Option<Session>,
}

pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let (options, mut config) = (script.u8(), server_config());
    config.common.clear = options & 1 != 0;
    config.common.aes_hardware = options & 2 != 0;
    config.load_threshold = if options & 4 != 0 { 0 } else { 200 };
    config.handshakes_per_s = if options & 8 != 0 { 3 } else { 1_000 };
    config.sessions = 1 + usize::from(options >> 6);
    config.common.cipher = [CipherChoice::Auto, CipherChoice::ChaCha20, CipherChoice::Aes256Gcm]
        [usize::from(options >> 4 & 3) % 3];
    let (mut server, mut now) = (ServerEnd::new(config), START);
    let (mut attempts, mut cookie) = (Vec::<Attempt>::new(), None);
    let mut left = 40;
    while !script.is_over() && left > 0 {
        left -= 1;
        match script.below(6) {
            0 | 1 => {
                let mut attempt = begin(&mut script, attempts.len());
                let from = address(script.below(4));
                let mac2 = script.u8();
                sign(&mut attempt, cookie.as_ref().filter(|_| mac2 & 1 != 0));
                server.receive(now, from, &attempt.packet);
                take_answer(&mut server, now, &mut attempt, &mut cookie);
                attempts.push(attempt);
            }
            // A copy, with another mac2 perhaps, from anywhere.
            2 => {
                let (which, from, mac2) = (script.u8(), address(script.below(8)), script.u8());
                let len = attempts.len();
                let Some(attempt) = attempts.get_mut(usize::from(which) % len.max(1)) else {
                    continue;
                };
                if mac2 & 1 != 0 {
                    sign(attempt, cookie.as_ref());
                }
                server.receive(now, from, &attempt.packet);
                take_answer(&mut server, now, attempt, &mut cookie);
            }
            // The session's first packet, or a later one.
            3 => {
                let (which, from, what) = (script.u8(), address(script.below(8)), script.u8());
                let len = attempts.len();
                let attempt = attempts.get(usize::from(which) % len.max(1));
                let Some(session) = attempt.and_then(|a| a.session.as_ref()) else { continue };
                let known = server.machine.pending_len();
                if let Some(packet) = first_packet(session, now, what) {
                    server.receive(now, from, &packet);
                }
                assert!(server.machine.pending_len() <= known);
                server.out.clear();
            }
            4 => {
                now = now + Duration::from_millis(u64::from(script.u8()) * 100);
                server.machine.handle_timeout(now);
                server.pump(now);
                server.out.clear();
            }
            _ => {
                match script.u8() % 8 {
                    0 => server.machine.close(now),
                    which => server.machine.dismiss(now, PeerId(which.into())),
                }
                server.pump(now);
                server.out.clear();
            }
        }
        let answered = attempts.iter().filter(|attempt| attempt.session.is_some()).count();
        // A copy that comes when its answer is forgotten makes one more that nobody confirms.
        assert!(server.machine.pending_len().max(server.machine.peer_count()) <= answered);
    }
    now = now + Duration::from_secs(400);
    server.machine.handle_timeout(now);
    server.pump(now);
    let sessions = server.machine.pending_len() + server.machine.peer_count();
    assert_eq!((sessions, server.machine.poll_timeout()), (0, None), "I10");
}

/// An INIT that verifies, unless the script damages it; without MACs.
fn begin(script: &mut Script<'_>, number: usize) -> Attempt {
    let (mode, head_xor) = (script.u8(), script.u8());
    let is_static = mode & 1 != 0;
    let (psk, server) = (vectors::psk(), vectors::server_static());
    let own = match mode & 2 {
        0 => vectors::client_static(),
        _ => StaticSecret::new(UNLISTED).expect("not all zero"),
    };
    let set = if is_static { KeySet::for_server(&server) } else { KeySet::for_psk(&psk) };
    let public = server.public();
    let keys = if is_static {
        InitiatorKeys::Static { own: &own, server: &public, psk: None }
    } else {
        InitiatorKeys::Psk(&psk)
    };
    // No two attempts have one index here: packets are told apart by it.
    let index = 1 + number as u32;
    let kind = if is_static { Kind::InitKey } else { Kind::InitPsk };
    let mut head = [0; 16];
    head[..4].copy_from_slice(&kind.head());
    head[4..8].copy_from_slice(&index.to_le_bytes());
    head[8..].copy_from_slice(&set.key_id);
    let payload = if mode & 4 != 0 {
        script.array()
    } else {
        InitPayload {
            peer_id: [script.u8(); 16],
            boot_id: script.u8().into(),
            previous_index: 0,
            features: script.u8().into(),
            max_payload: script.u16(),
            paths: script.u8(),
            version: script.u8(),
            window_log2: script.u8(),
            time_us: 7,
        }
        .encode()
    };
    let mut entropy = Rng::new(u64::from(script.u8()) + 100 * number as u64);
    let started = Initiator::start(keys, &head, &payload, &mut entropy);
    let (initiator, message) = started.expect("its keys are good");
    let mut packet = [&head[..], &message, &[0; 32]].concat();
    if mode & 8 != 0 {
        let at = 16 + usize::from(head_xor) % message.len();
        packet[at] ^= 1 << (head_xor & 7);
    }
    Attempt { packet, is_static, initiator, session: None }
}

/// Both MACs.
fn sign(attempt: &mut Attempt, cookie: Option<&[u8; 16]>) {
    let set = keys(attempt.is_static);
    let len = attempt.packet.len();
    let mac1: [u8; 16] = mac::mac16(set.mac1.expose(), &[&attempt.packet[..len - 32]]);
    attempt.packet[len - 32..len - 16].copy_from_slice(&mac1);
    let mac2: [u8; 16] =
        cookie.map_or([0; 16], |cookie| mac::mac16(cookie, &[&attempt.packet[..len - 16]]));
    attempt.packet[len - 16..].copy_from_slice(&mac2);
}

fn keys(is_static: bool) -> KeySet {
    if is_static {
        KeySet::for_server(&vectors::server_static())
    } else {
        KeySet::for_psk(&vectors::psk())
    }
}

/// At most one answer, which is shorter than the question.
fn take_answer(
    server: &mut ServerEnd,
    now: Time,
    attempt: &mut Attempt,
    cookie: &mut Option<[u8; 16]>,
) {
    let packets = std::mem::take(&mut server.out);
    assert!(packets.len() <= 1, "one answer for one question");
    let Some(answer) = packets.first().map(|packet| &packet.bytes) else { return };
    assert!(answer.len() < attempt.packet.len());
    let len = attempt.packet.len();
    match Kind::of(answer) {
        Ok(Kind::Cookie) => {
            assert_eq!(answer.len(), COOKIE_LEN);
            let mac1 = attempt.packet[len - 32..len - 16].first_chunk().expect("16 bytes");
            let nonce = answer[8..].first_chunk().expect("24 bytes");
            let sealed = answer[32..].first_chunk().expect("32 bytes");
            let set = keys(attempt.is_static);
            let opened = crypto::open_cookie(set.cookie.expose(), nonce, mac1, sealed);
            *cookie = Some(opened.expect("made for this INIT"));
        }
        Ok(Kind::Resp) => {
            assert_eq!(answer.len(), RESP_LEN);
            // A second RESP is the same, and this state is used up.
            let message = &answer[8..RESP_LEN - 16];
            let Ok((split, payload)) = attempt.initiator.finish(message) else { return };
            let resp = RespPayload::decode(&payload).expect("it has its length");
            assert_eq!(resp.server_index == 0, resp.status != 0);
            if resp.status != 0 {
                return;
            }
            let aes = resp.features & FEATURE_AES != 0;
            let cipher = Cipher::AES.filter(|_| aes).unwrap_or(Cipher::ChaCha20Poly1305);
            let key = |direction| AeadKey::of(cipher, cipher.packet_key(direction).expose());
            let clear_key = |direction| AeadKey::of(cipher, cipher.clear_key(direction).expose());
            let clear = resp.features & FEATURE_CLEAR != 0;
            attempt.session = Some(Session::new(SessionSetup {
                local_index: 1,
                remote_index: resp.server_index,
                born: now,
                cipher,
                tx: key(&split.c2s),
                rx: key(&split.s2c),
                clear: clear.then(|| (clear_key(&split.c2s), clear_key(&split.s2c))),
                guard_tx: Secret::new(*keys(attempt.is_static).mac1.expose()),
                guard_rx: Secret::new([1; 32]),
                token: resp.token,
                max_payload: 1_400,
                window: ReplayWindow::new(12, 12, Arc::new(super::fragments::budget())),
                reassembly_memory: 0,
                reassembly_shared: Arc::new(super::fragments::budget()),
                route_seed: 1,
                confirmed: true,
                marks: false,
            }));
        }
        other => panic!("{other:?} is no answer to an INIT"),
    }
}

fn first_packet(session: &Session, now: Time, what: u8) -> Option<Vec<u8>> {
    if what & 1 == 0 {
        let mut packet = vec![0; 40];
        let number = session.reserve()?;
        session.seal_data(number, 0, what >> 4, &[], b"data", &mut packet).ok()?;
        return Some(packet);
    }
    let (path, seq) = (what >> 1 & 3, 1 + u32::from(what >> 4));
    let ping = Ping { path, flags: 0, next_10ms: 0, seq, t_tx: 1, tx_pkts: 0, tx_bytes: 0 };
    let frame = match what >> 3 & 1 {
        0 => Frame::Ping(ping),
        _ => Frame::Close { code: 0, flow: 0xffff },
    };
    Some(session.seal_ctrl(now, FrameList::new().push(frame).finish()).ok()?.1)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let payload = |s: Seed, peer: u8, boot: u8, features: u8| {
        s.u8(peer).u8(boot).u8(features).u16(1_400).u8(2).u8(1).u8(18).u8(9)
    };
    let attempt = |s: Seed, mode: u8, peer, boot, features, mac2| {
        payload(s.u8(0).u8(mode).u8(3), peer, boot, features).u8(1).u8(mac2)
    };
    let mut seeds = Vec::new();
    for (options, features) in [(0, 0), (1, 1), (2, 2), (0x12, 4), (0x23, 7), (0x26, 6), (0xcc, 2)]
    {
        for mode in [0, 1, 3] {
            let s = attempt(Seed::default().u8(options), mode, 1, 1, features, 0);
            let s =
                attempt(s, mode, 1, 2, features, 1).u8(2).u8(1).u8(2).u8(1).u8(2).u8(0).u8(1).u8(0);
            let s = s.u8(3).u8(1).u8(1).u8(0x11).u8(3).u8(1).u8(1).u8(0).u8(4).u8(5);
            let s = attempt(s, mode, 2, 3, features, 1).u8(3).u8(2).u8(2).u8(2).u8(4).u8(250);
            seeds.push(s.u8(3).u8(1).u8(0).u8(9).u8(5).u8(1).u8(5).u8(0));
        }
    }
    let damaged = attempt(Seed::default().u8(0), 8, 1, 1, 0, 0);
    let any = Seed::default().u8(0).u8(0).u8(4).u8(0).bytes(&[3; 64]).u8(1).u8(1).u8(0);
    seeds.extend([damaged, any]);
    seeds.into_iter().map(|seed| seed.0).collect()
}
