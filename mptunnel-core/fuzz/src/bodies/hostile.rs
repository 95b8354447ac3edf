// SPDX-License-Identifier: BSD-2-Clause
//! Datagrams for a live endpoint: any bytes; vectors and packets of the session, altered, copied,
//! from elsewhere, with the checksums put right again that need no secret of a session; and what
//! only the other end can make, sealed under the keys of the session, whatever it says inside.
//! Without that last part nothing behind the AEAD would ever be reached.

use super::ctrl_frames::samples;
use super::ends::{Pair, address, client_config, route_at_client, server_config};
use super::script::{Script, Seed};
use super::vectors;
use mptunnel_core::proto::client::PathSettings;
use mptunnel_core::proto::crypto::{KeySet, Secret, mac, mac1_key_of};
use mptunnel_core::proto::event::PeerId;
use mptunnel_core::proto::fragment::{Cut, FragmentHead};
use mptunnel_core::proto::frame::{Frame, FrameList};
use mptunnel_core::proto::sched::{Mode, Policy};
use mptunnel_core::proto::session::{DataHead, Session};
use mptunnel_core::proto::throttle::Rate;
use mptunnel_core::proto::wire::{DATA_OVERHEAD, Kind};
use std::time::Duration;

/// Which end is attacked.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Victim {
    Server,
    Client,
}

/// Paths of the honest client; there are as many addresses of strangers.
const PATHS: usize = 3;

pub fn run(victim: Victim, data: &[u8]) {
    let mut script = Script::new(data);
    let mut attack = Attack { pair: begin(script.u8()), victim, vectors: vectors::datagrams() };
    let mut left = 200;
    while !script.is_over() && left > 0 {
        attack.step(&mut script);
        left -= 1;
    }
    // Whatever it was: time goes on, and nothing stays for ever.
    attack.pair.pass(Duration::from_secs(2));
    attack.pair.exchange();
}

/// A pair as the first byte of an input says.
fn begin(options: u8) -> Pair {
    let (mut server, mut client) = (server_config(), client_config());
    if options & 2 != 0 {
        client = super::ends::static_client_config();
    }
    if options & 4 != 0 {
        (server.common.clear, client.common.clear) = (true, true);
    }
    if options & 8 != 0 {
        let hold = Duration::from_millis(50);
        (server.common.reorder, client.common.reorder) = (hold, hold);
    }
    if options & 16 != 0 {
        (server.common.aes_hardware, client.common.aes_hardware) = (true, true);
    }
    if options & 32 != 0 {
        server.load_threshold = 0;
    }
    server.common.reassembly_memory = 100_000;
    client.common.reassembly_memory = 100_000;
    server.sessions = 3;
    let mut pair = Pair::new(server, client, PATHS);
    if options & 1 == 0 {
        pair.exchange();
        assert!(pair.client_session().is_some(), "the honest are up: {options}");
        pair.pass(Duration::from_millis(300));
        pair.exchange();
    }
    pair
}

struct Attack {
    pair: Pair,
    victim: Victim,
    vectors: Vec<Vec<u8>>,
}

impl Attack {
    fn step(&mut self, script: &mut Script<'_>) {
        match script.below(12) {
            0 => {
                let from = script.u8();
                let packet = script.blob(2_000).to_vec();
                self.inject(from, &packet);
            }
            1 => {
                let from = script.u8();
                let packet = self.altered(script);
                self.inject(from, &packet);
            }
            2 | 3 => {
                let from = script.u8();
                let inner = script.blob(1_400).to_vec();
                let sealed = self.session().and_then(|s| s.seal_ctrl(self.pair.now, inner).ok());
                if let Some((_, packet)) = sealed {
                    self.inject(from, &packet);
                }
            }
            4 => {
                let from = script.u8();
                if let Some(packet) = self.data(script) {
                    self.inject(from, &packet);
                }
            }
            5 => {
                let unit = [1, 20, 1_000, 20_000][script.below(4)];
                let time = Duration::from_millis(unit * u64::from(script.u8()));
                self.pair.pass(time);
            }
            6 => self.pair.exchange(),
            // What is under way is lost.
            7 => {
                if script.is() {
                    self.pair.take_up();
                } else {
                    self.pair.take_down();
                }
            }
            8 => self.at_server(script),
            9 => self.at_client(script),
            10 => {
                let (size, flow) = (usize::from(script.u16()) % 4_000, script.u8().into());
                self.pair.client.send(self.pair.now, flow, &vec![7; size]);
            }
            _ => {
                let (size, flow) = (usize::from(script.u16()) % 4_000, script.u8().into());
                if let Some((peer, _)) = self.pair.server_session() {
                    self.pair.server.send(self.pair.now, peer, flow, &vec![7; size]);
                }
            }
        }
    }

    fn inject(&mut self, from: u8, packet: &[u8]) {
        let from = usize::from(from) % (2 * PATHS);
        let now = self.pair.now;
        match self.victim {
            Victim::Server => self.pair.server.receive(now, address(from), packet),
            Victim::Client => self.pair.client.receive(now, from % PATHS, packet),
        };
    }

    /// The end of the session that speaks to the victim.
    fn session(&self) -> Option<std::sync::Arc<Session>> {
        match self.victim {
            Victim::Server => self.pair.client_session(),
            Victim::Client => self.pair.server_session().map(|(_, session)| session),
        }
    }

    /// A packet that somebody sent, or a vector, with some bytes changed.
    fn altered(&self, script: &mut Script<'_>) -> Vec<u8> {
        let which = usize::from(script.u8());
        let captured = &self.pair.captured;
        let mut packet = match which.checked_sub(self.vectors.len()) {
            None => self.vectors[which].clone(),
            Some(back) if captured.is_empty() => self.vectors[back % self.vectors.len()].clone(),
            Some(back) => captured[captured.len() - 1 - back % captured.len()].1.clone(),
        };
        let (fix, changes) = (script.u8(), script.below(8));
        for _ in 0..changes {
            let (at, by) = (usize::from(script.u16()), script.u8());
            let len = packet.len();
            if let Some(byte) = packet.get_mut(at % len.max(1)) {
                *byte ^= by;
            }
        }
        if fix & 1 != 0 {
            packet.resize(usize::from(script.u16()) % 1_600, 0);
        }
        if fix & 2 != 0
            && let (Some(session), Some(index)) = (self.session(), packet.get_mut(4..8))
        {
            index.copy_from_slice(&session.remote_index().to_le_bytes());
        }
        if fix & 4 != 0 {
            self.put_right(&mut packet);
        }
        packet
    }

    /// The checksum of a message, which anybody can make who knows the key or a public key.
    fn put_right(&self, packet: &mut [u8]) {
        let psk = KeySet::for_psk(&vectors::psk());
        let server = KeySet::for_server(&vectors::server_static());
        let client = mac1_key_of(&vectors::client_static().public());
        let key = |is_static| if is_static { &server.mac1 } else { &psk.mac1 };
        let len = packet.len();
        match Kind::of(packet) {
            Ok(kind @ (Kind::InitPsk | Kind::InitKey)) => {
                let set = if kind == Kind::InitKey { &server } else { &psk };
                packet[8..16].copy_from_slice(&set.key_id);
                let mac1: [u8; 16] = mac::mac16(set.mac1.expose(), &[&packet[..len - 32]]);
                packet[len - 32..len - 16].copy_from_slice(&mac1);
            }
            Ok(Kind::Resp) => {
                let is_static = packet[len - 17] & 1 != 0;
                let key: &Secret<32> = if is_static { &client } else { &psk.mac1 };
                let mac1: [u8; 16] = mac::mac16(key.expose(), &[&packet[..len - 16]]);
                packet[len - 16..].copy_from_slice(&mac1);
            }
            Ok(Kind::NoSession) => {
                let token = self.pair.client_session().map_or([0; 16], |s| *s.token());
                let mac1: [u8; 16] = mac::mac16(&token, &[&packet[..len - 16]]);
                packet[len - 16..].copy_from_slice(&mac1);
            }
            Ok(Kind::Ctrl) => {
                let key = key(packet[len - 9] & 1 != 0);
                let guard: [u8; 8] = mac::mac8(key.expose(), &[&packet[..len - 8]]);
                packet[len - 8..].copy_from_slice(&guard);
            }
            _ => {}
        }
    }

    /// DATA with any number, flow, kind and mark.
    fn data(&self, script: &mut Script<'_>) -> Option<Vec<u8>> {
        let number = if script.is() { Some(script.number()) } else { None };
        let (flow, kind, mark) = (script.u16(), script.u8(), script.u16());
        let body = script.blob(1_400);
        let session = self.session()?;
        let number = number.or_else(|| session.reserve())?;
        let mut packet = vec![0; DATA_OVERHEAD + body.len()];
        let head = DataHead { flow, kind, mark };
        session.seal_with_head(number, head, &[], body, &mut packet).ok()?;
        Some(packet)
    }

    /// The application at the server does something.
    fn at_server(&mut self, script: &mut Script<'_>) {
        let now = self.pair.now;
        let peer = self.pair.server_session().map_or(PeerId(1), |(peer, _)| peer);
        let server = &mut self.pair.server.machine;
        match script.below(5) {
            0 => server.set_policy(now, any_policy(script)),
            1 => server.close_flow(now, peer, script.u16(), script.u16()),
            2 => server.dismiss(now, peer),
            3 => server.close(now),
            _ => server.set_path_mtu(now, peer, script.u8() % 32, script.u16().into()),
        }
        self.pair.server.pump(now);
    }

    /// The application at the client does something, or its sockets.
    fn at_client(&mut self, script: &mut Script<'_>) {
        let now = self.pair.now;
        let which = script.below(PATHS);
        let id = self.pair.client.paths[which];
        let client = &mut self.pair.client.machine;
        match script.below(8) {
            0 => client.set_policy(now, any_policy(script)),
            1 => client.close_flow(now, script.u16()),
            2 => client.path_closed(now, id),
            3 => client.path_opened(now, id, route_at_client(which), script.u16().into()),
            4 => {
                client.remove_path(now, id);
                if let Some(id) = client.add_path(now, PathSettings::default()) {
                    client.path_opened(now, id, route_at_client(which), 1_472);
                    self.pair.client.paths[which] = id;
                }
            }
            5 => {
                let rate = match script.u8() % 3 {
                    0 => Rate::Unknown,
                    1 => Rate::Told(script.u32().into()),
                    _ => Rate::Learnt,
                };
                let (backup, weight, rate_down) = (script.is(), script.u16(), script.u32());
                let settings =
                    PathSettings { rate, backup, weight, rate_down, ..PathSettings::default() };
                client.set_path(now, id, settings);
            }
            6 => client.probe(now),
            _ => client.say_goodbye(now),
        }
        self.pair.client.pump(now);
    }
}

fn any_policy(script: &mut Script<'_>) -> Policy {
    let mode = Mode::of_code(script.u8() % 4).expect("there are four");
    let (target_loss_ppb, max_copies, budget) = (script.u32(), script.u8(), script.u8().into());
    Policy { mode, target_loss_ppb, max_copies, budget, ..Policy::default() }
}

pub fn seeds(victim: Victim) -> Vec<Vec<u8>> {
    let vectors = vectors::datagrams();
    // Before there is a session, and after: every vector as it is, then with its checksum put right.
    let mut seeds: Vec<Seed> = Vec::new();
    for (options, fix) in [(0, 0), (1, 0), (0, 4), (0, 6), (2, 6), (33, 4)] {
        let seed = Seed::default().u8(options);
        seeds.push(seed.times(vectors.len(), |s, n| s.u8(1).u8(n as u8).u8(n as u8).u8(fix).u8(0)));
    }
    // Every frame, from the path's own address and from others.
    for options in [0, 2, 4 + 8, 16 + 32] {
        for frame in samples() {
            let inner = FrameList::new().push(frame).finish();
            let seed = Seed::default()
                .u8(options)
                .times(4, |s, from| s.u8(2).u8(from as u8).blob(&inner).u8(6).u8(5).u8(1).u8(10));
            seeds.push(seed);
        }
    }
    // Another path is proven: from a new address, until the challenge is answered.
    let ping = |seq| match samples()[0] {
        Frame::Ping(ping) => FrameList::new()
            .push(Frame::Ping(mptunnel_core::proto::frame::Ping { seq, path: 7, ..ping })),
        _ => FrameList::new(),
    };
    let seed = Seed::default().u8(0);
    seeds.push(seed.times(20, |s, n| {
        s.u8(2).u8(4).blob(&ping(n as u32 + 1).finish()).u8(5).u8(1).u8(10).u8(6)
    }));
    // Data: in order, far ahead, with marks, in pieces.
    let seed = Seed::default().u8(8);
    seeds.push(seed.times(20, |s, n| {
        let s = s.u8(4).u8(n as u8).u8(n as u8 & 1);
        let s = if n & 1 == 1 { s.number(40 * n as u64) } else { s };
        s.u16(3).u8(0).u16(n as u16 + 1).blob(b"datagram")
    }));
    let cut = Cut::of(1_000, 448).expect("it can be cut");
    let seed = Seed::default().u8(0);
    seeds.push(seed.times(cut.count.into(), |s, n| {
        let head = FragmentHead { whole: 1, index: n as u8, count: cut.count, total: 1_000 };
        let piece = &[9; 1_000][n * cut.piece..(1_000).min((n + 1) * cut.piece)];
        let body = [&head.encode(), piece].concat();
        s.u8(4).u8(0).u8(1).number(50 + n as u64).u16(3).u8(1).u16(0).blob(&body)
    }));
    // Copies of genuine packets from elsewhere, while both ends work and time passes.
    let seed = Seed::default().u8(0);
    seeds.push(seed.times(12, |s, n| {
        let s = s.u8(10).u16(900 * n as u16).u8(1).u8(11).u16(700).u8(1).u8(6).u8(5).u8(1).u8(20);
        s.u8(1).u8(n as u8).u8(200 + n as u8).u8(0).u8(n as u8 & 1).u16(20).u8(1)
    }));
    // Everything that the applications do, with rekeys and silence between.
    let seed = Seed::default().u8(16);
    seeds.push(seed.times(10, |s, n| {
        let s = s.u8(8).u8(n as u8).u32(7).u32(9).u8(6);
        s.u8(9).u8(n as u8).u8(n as u8).u32(1_000).u32(9).u32(8_000).u8(6).u8(5).u8(3).u8(7).u8(6)
    }));
    if victim == Victim::Client {
        // A server that starts anew answers an old session.
        seeds.push(Seed::default().u8(0).times(6, |s, _| s.u8(8).u8(3).u8(6).u8(5).u8(2).u8(2)));
    }
    seeds.into_iter().map(|seed| seed.0).collect()
}
