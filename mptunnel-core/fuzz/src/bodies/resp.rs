// SPDX-License-Identifier: BSD-2-Clause
//! RESP, COOKIE and NOSESSION at a client: made by a server that has the right keys and says what
//! it likes; and what the client does in the session that follows.

use super::ends::{ClientEnd, START, client_config, static_client_config};
use super::script::{Script, Seed};
use super::vectors;
use mptunnel_core::proto::config::CipherChoice;
use mptunnel_core::proto::crypto::{
    self, AeadKey, Cipher, KeySet, Psk, Responder, ResponderKeys, SplitKeys, mac, mac1_key_of,
};
use mptunnel_core::proto::wire::{Kind, RespPayload};
use mptunnel_core::sim::rng::Rng;
use std::time::Duration;

pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let options = script.u8();
    let is_static = options & 1 != 0;
    let mut config = if is_static { static_client_config() } else { client_config() };
    config.common.clear = options & 2 != 0;
    config.common.aes_hardware = options & 4 != 0;
    config.common.cipher = [CipherChoice::Auto, CipherChoice::ChaCha20, CipherChoice::Aes256Gcm]
        [usize::from(options >> 4) % 3];
    let mut now = START;
    let mut client = ClientEnd::new(now, config, 2);
    let (mut inits, mut controls) = (Vec::<Vec<u8>>::new(), Vec::<Vec<u8>>::new());
    let mut token = [0; 16];
    let mut left = 40u8;
    while !script.is_over() && left > 0 {
        left -= 1;
        for packet in std::mem::take(&mut client.out) {
            match Kind::of(&packet.bytes) {
                Ok(Kind::InitPsk | Kind::InitKey) => inits.push(packet.bytes),
                Ok(Kind::Ctrl) => controls.push(packet.bytes),
                Ok(Kind::Data | Kind::DataClear) => {}
                other => panic!("a client sends no {other:?}"),
            }
        }
        let path = script.below(2);
        match script.below(6) {
            0 | 1 => {
                let Some(init) = pick(&inits, script.u8()) else { continue };
                let mut payload = answer(&mut script);
                // No two sessions have one index here: packets are told apart by it.
                if payload[..4] != [0; 4] {
                    payload[1] = left;
                }
                let Some((resp, _keys)) = respond(init, is_static, &payload, script.u8()) else {
                    continue;
                };
                token = RespPayload::decode(&payload).expect("it has its length").token;
                client.receive(now, path, &resp);
                client.receive(now, 1 - path, &resp);
            }
            2 => {
                let Some(init) = pick(&inits, script.u8()) else { continue };
                let mac1 = init[init.len() - 32..].first_chunk().expect("16 bytes");
                let (nonce, cookie) = ([script.u8(); 24], [script.u8(); 16]);
                let key = keys(is_static);
                let sealed = crypto::seal_cookie(key.cookie.expose(), &nonce, mac1, &cookie);
                let head = [&Kind::Cookie.head()[..], &init[4..8]].concat();
                let packet = [&head[..], &nonce, &sealed.expect("it fits")].concat();
                let before = client.out.len();
                client.receive(now, path, &packet);
                assert!(client.out.len() <= before + 1, "one INIT for one cookie");
                client.receive(now, path, &packet);
                assert!(client.out.len() <= before + 1, "none for its copy");
            }
            3 => {
                let Some(control) = pick(&controls, script.u8()) else { continue };
                let tag = &control[control.len() - 24..control.len() - 8];
                let message = [&Kind::NoSession.head()[..], &control[4..16], tag].concat();
                let mac: [u8; 16] = mac::mac16(&token, &[&message]);
                client.receive(now, path, &[message, mac.to_vec()].concat());
            }
            4 => {
                let time = Duration::from_millis(u64::from(script.u8()) * 50);
                let end = now + time;
                for _ in 0..64 {
                    let next = client.machine.poll_timeout().filter(|at| *at < end);
                    let Some(next) = next else { break };
                    now = now.max(next);
                    client.machine.handle_timeout(now);
                    client.pump(now);
                }
                now = end;
                client.machine.handle_timeout(now);
                client.pump(now);
            }
            _ => {
                let size = usize::from(script.u16());
                client.send(now, script.u8().into(), &vec![5; size]);
            }
        }
    }
    let attempts = client.watch.attempts();
    let seconds = now.since(START).as_secs() as usize;
    assert!(attempts.len() <= 3 + 2 * seconds, "{} attempts in {seconds} s", attempts.len());
}

/// One of the latest.
fn pick(packets: &[Vec<u8>], back: u8) -> Option<&Vec<u8>> {
    packets.get(packets.len().checked_sub(1 + usize::from(back & 7))?)
}

/// Any payload, or one that a server could send.
fn answer(script: &mut Script<'_>) -> [u8; 48] {
    if script.is() {
        return script.array();
    }
    RespPayload {
        server_index: script.u8().into(),
        status: script.u8() % 12,
        window_log2: script.u8(),
        max_payload: script.u16(),
        boot_id: script.u8().into(),
        time_us: script.number(),
        features: script.u8().into(),
        rekey_after_s: script.u16(),
        probe_ms: script.u16(),
        token: [script.u8(); 16],
    }
    .encode()
}

fn keys(is_static: bool) -> KeySet {
    if is_static {
        KeySet::for_server(&vectors::server_static())
    } else {
        KeySet::for_psk(&vectors::psk())
    }
}

/// The RESP of a server that has the keys; `seed` makes its ephemeral key.
fn respond(
    init: &[u8],
    is_static: bool,
    payload: &[u8; 48],
    seed: u8,
) -> Option<(Vec<u8>, SplitKeys)> {
    let (psk, own): (Psk, _) = (vectors::psk(), vectors::server_static());
    let keys = if is_static { ResponderKeys::Static(&own) } else { ResponderKeys::Psk(&psk) };
    let (head, message) = (init.first_chunk()?, &init[16..init.len() - 32]);
    let noise = Responder::read(keys, head, message, &mut Rng::new(seed.into()));
    let noise = noise.expect("the client's INIT verifies");
    let mac1_key = match noise.client() {
        Some(client) => mac1_key_of(&client),
        None => KeySet::for_psk(&psk).mac1,
    };
    let (split, message) = noise.reply(None, payload).ok()?;
    let cipher = Cipher::ChaCha20Poly1305;
    let _ = AeadKey::of(cipher, cipher.packet_key(&split.c2s).expose());
    let mut resp = [&Kind::Resp.head()[..], &init[4..8], &message].concat();
    let mac1: [u8; 16] = mac::mac16(mac1_key.expose(), &[&resp]);
    resp.extend(mac1);
    Some((resp, split))
}

pub fn seeds() -> Vec<Vec<u8>> {
    let resp = |s: Seed, index: u8, status: u8, boot: u8, features: u8, rekey: u16| {
        let s = s.u8(0).u8(0).u8(0).u8(0).u8(index).u8(status).u8(18).u16(1_400).u8(boot);
        s.number(1_000_000_000).u8(features).u16(rekey).u16(100).u8(7).u8(3)
    };
    let wait = |s: Seed, units| s.u8(0).u8(4).u8(units);
    let mut seeds = Vec::new();
    for (options, features) in
        [(0, 0), (1, 0), (2, 1), (4, 2), (5, 2), (0x24, 6), (0x14, 4), (8, 8)]
    {
        let s = resp(Seed::default().u8(options), 9, 0, 1, features, 1);
        let s = wait(s, 10).u8(1).u8(5).u16(700).u8(2).u8(0).u8(3).u8(0);
        let s = wait(wait(s, 30), 200);
        seeds.push(wait(resp(s, 10, 0, 2, features, 0), 50));
        for status in [1, 6, 8] {
            let s = resp(Seed::default().u8(options), 0, status, 1, features, 0);
            seeds.push(resp(wait(s, 250), 5, 0, 1, features, 0));
        }
        let s = Seed::default().u8(options).u8(1).u8(2).u8(0).u8(4).u8(5);
        seeds.push(resp(wait(s, 20), 9, 0, 1, features, 150));
    }
    seeds.push(Seed::default().u8(0).u8(0).u8(0).u8(0).u8(1).bytes(&[1; 48]).u8(1));
    seeds.into_iter().map(|seed| seed.0).collect()
}
