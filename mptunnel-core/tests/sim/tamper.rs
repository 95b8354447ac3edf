// SPDX-License-Identifier: BSD-2-Clause
//! One packet of each type, every bit flipped, cut to every length, extended by up to 64 bytes:
//! all refused, nothing changed, and the genuine packet still welcome afterwards (G3).

use crate::support::*;
use mptunnel_core::proto::config::{
    CipherChoice, ClientConfig, ClientKeys, Common, ServerConfig, ServerKey,
};
use mptunnel_core::proto::crypto::StaticSecret;
use mptunnel_core::proto::event::{ClientEvent, ServerEvent};
use mptunnel_core::proto::wire::{self, Kind};
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{
    Captured, ClientNo, Direction, PathSpec, ServerNo, World, client_digest, server_digest,
};
use std::collections::HashMap;
use std::net::SocketAddr;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Psk,
    Key,
    Clear,
    /// AES-256-GCM, with the shared key; and readable.
    Aes,
    ClearAes,
}

impl Mode {
    /// All that differ in how packets are sealed.
    const PACKETS: [Mode; 5] = [Mode::Psk, Mode::Key, Mode::Clear, Mode::Aes, Mode::ClearAes];

    fn set(self, common: &mut Common) {
        common.clear = self.is_clear();
        if matches!(self, Mode::Aes | Mode::ClearAes) {
            common.cipher = CipherChoice::Aes256Gcm;
        }
    }

    fn is_clear(self) -> bool {
        matches!(self, Mode::Clear | Mode::ClearAes)
    }
}

/// A client with one path and its server, both off, with everything on the wire captured.
fn pair(mode: Mode, server_config: impl Fn(ServerConfig) -> ServerConfig + 'static) -> Pair {
    let own = |number| StaticSecret::new([number; 32]).expect("not all zero");
    let mut world = World::new(7);
    let server = world.add_server(move || {
        let mut config = ServerConfig::new(vec![match mode {
            Mode::Key => {
                ServerKey::Static { own: own(2), clients: HashMap::from([(own(3).public(), None)]) }
            }
            _ => ServerKey::Psk(psk(1)),
        }]);
        mode.set(&mut config.common);
        server_config(config)
    });
    let client = world.add_client(server, vec![PathSpec::rtt(20 * MS)], move || {
        let mut config = ClientConfig::new(match mode {
            Mode::Key => ClientKeys::Static { own: own(3), server: own(2).public(), psk: None },
            _ => ClientKeys::Psk(psk(1)),
        });
        mode.set(&mut config.common);
        config
    });
    world.capture();
    Pair { world, server, client }
}

struct Pair {
    world: World,
    server: ServerNo,
    client: ClientNo,
}

impl Pair {
    fn up(mode: Mode) -> Pair {
        let mut pair = pair(mode, |config| config);
        pair.world.start_all();
        pair.world.run_for(S);
        // Busy, so that a PING comes soon.
        for way in [Up, Down] {
            pair.world.send(pair.client, way, 0, 100).expect("it is up");
        }
        pair.world.run_for(10 * S);
        pair
    }

    /// Holds up one direction until a packet of `kind` was sent there, and returns that.
    fn withhold(&mut self, way: Direction, kind: Kind) -> Captured {
        self.world.faults(path(self.client, 0), way).dark = true;
        self.world.captured();
        for _ in 0..10_000 {
            let seen = self.world.captured();
            let wanted = |c: &Captured| c.direction == way && c.parcel.bytes()[0] == kind.code();
            if let Some(found) = seen.into_iter().find(wanted) {
                return found;
            }
            self.world.run_for(MS);
        }
        panic!("no {kind:?} was sent within 10 s");
    }

    fn inject(&mut self, way: Direction, bytes: &[u8], genuine: &Captured) {
        match way {
            Up => self.world.inject_at_server(self.server, genuine.parcel.source, bytes),
            Down => self.world.inject_at_client(path(self.client, 0), bytes),
        }
    }

    fn digest(&self) -> String {
        let client = client_digest(self.world.client(self.client));
        let server = self.world.server(self.server);
        let pending = server.server().map(|s| s.pending_len());
        let delivered = self.world.ledger().all().iter().filter(|d| d.delivered_at.is_some());
        // The operator may be told of a key that is not known.
        let told = server.events.iter().filter(|(_, e)| !matches!(e, ServerEvent::UnknownKey(_)));
        let events = self.world.client(self.client).events.len() + told.count();
        let delivered = delivered.count();
        format!("{client}\n{}\n{pending:?} {delivered} {events}", server_digest(server))
    }

    /// Injects everything that is nearly `genuine`, apart from flips in its last `except` bytes.
    fn refuses_all_but(&mut self, genuine: &Captured, except: usize) {
        let way = genuine.direction;
        let before = self.digest();
        self.world.captured();
        let mut tried = 0;
        for bad in mutations(genuine.parcel.bytes(), except) {
            self.inject(way, &bad, genuine);
            assert_eq!(self.digest(), before, "{:02x?} was taken", &bad);
            tried += 1;
        }
        let len = genuine.parcel.bytes().len();
        assert_eq!(tried, (len - except) * 8 + len + 64);
        assert_eq!(self.world.captured().len(), 0, "nothing was answered");
        assert_eq!(self.world.strays().packets, 0, "nothing was answered");
    }

    fn takes(&mut self, genuine: &Captured) {
        let before = self.digest();
        self.inject(genuine.direction, genuine.parcel.bytes(), genuine);
        assert_ne!(self.digest(), before, "the genuine packet is still good");
    }
}

fn mutations(packet: &[u8], except: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for bit in 0..(packet.len() - except) * 8 {
        let mut flipped = packet.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        all.push(flipped);
    }
    for len in 0..packet.len() {
        all.push(packet[..len].to_vec());
    }
    for more in 1..=64 {
        let mut longer = packet.to_vec();
        longer.resize(packet.len() + more, 0xa5);
        all.push(longer);
    }
    all
}

#[test]
fn no_altered_init_makes_a_session_or_gets_an_answer() {
    for mode in [Mode::Psk, Mode::Key, Mode::Aes] {
        let mut pair = pair(mode, |config| config);
        pair.world.set_all_dark(pair.client, true);
        pair.world.start_all();
        let kind = if mode == Mode::Key { Kind::InitKey } else { Kind::InitPsk };
        let init = pair.withhold(Up, kind);

        pair.refuses_all_but(&init, 16);
        pair.takes(&init);
    }
}

#[test]
fn an_altered_mac2_names_the_same_init_and_gives_the_same_one_session() {
    for mode in [Mode::Psk, Mode::Key] {
        let mut pair = pair(mode, |config| config);
        pair.world.set_all_dark(pair.client, true);
        pair.world.start_all();
        let kind = if mode == Mode::Key { Kind::InitKey } else { Kind::InitPsk };
        let init = pair.withhold(Up, kind);
        let len = init.parcel.bytes().len();
        pair.world.captured();

        for (bit, port) in ((len - 16) * 8..len * 8).zip(1..) {
            let mut flipped = init.parcel.bytes().to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Each from somewhere else, as one source is not answered that often.
            let source = SocketAddr::from(([198, 51, 100, 1], port));
            pair.world.inject_at_server(pair.server, source, &flipped);
        }

        let server = pair.world.server(pair.server).server().expect("it runs");
        assert_eq!((server.pending_len(), server.peers().count()), (1, 0));
        // That they are the same bytes is asserted by the world (I3).
        let strays = pair.world.strays();
        assert_eq!((strays.packets, strays.bytes), (128, 128 * wire::RESP_LEN as u64));
    }
}

#[test]
fn an_altered_mac2_under_load_is_as_good_as_none() {
    let mut pair = pair(Mode::Psk, |config| ServerConfig { load_threshold: 0, ..config });
    pair.world.start_all();
    // The client has its cookie and is about to use it.
    pair.world.faults(path(pair.client, 0), Up).dark = false;
    pair.world.run_for(15 * MS);
    let init = pair.withhold(Up, Kind::InitPsk);
    assert_ne!(init.parcel.bytes()[144..], [0; 16], "it carries mac2");

    for bit in 144 * 8..160 * 8 {
        let mut flipped = init.parcel.bytes().to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        pair.inject(Up, &flipped, &init);
    }

    let pending =
        |pair: &Pair| pair.world.server(pair.server).server().expect("it runs").pending_len();
    assert_eq!(pending(&pair), 0);
    pair.takes(&init);
    assert_eq!(pending(&pair), 1);
}

#[test]
fn no_altered_resp_ends_an_attempt() {
    for mode in [Mode::Psk, Mode::Key, Mode::Aes] {
        let mut pair = pair(mode, |config| config);
        pair.world.faults(path(pair.client, 0), Down).dark = true;
        pair.world.start_all();
        let resp = pair.withhold(Down, Kind::Resp);

        pair.refuses_all_but(&resp, 0);
        pair.takes(&resp);
        assert!(pair.world.client(pair.client).is_up());
    }
}

#[test]
fn no_altered_cookie_is_believed() {
    for mode in [Mode::Psk, Mode::Key] {
        let mut pair = pair(mode, |config| ServerConfig { load_threshold: 0, ..config });
        pair.world.faults(path(pair.client, 0), Down).dark = true;
        pair.world.start_all();
        let cookie = pair.withhold(Down, Kind::Cookie);

        pair.refuses_all_but(&cookie, 0);
        pair.takes(&cookie);
        let told = |e: &ClientEvent| *e == ClientEvent::CookieMode;
        assert_eq!(count_client_events(&pair.world, pair.client, told), 1);
    }
}

#[test]
fn no_altered_nosession_begins_an_attempt() {
    for mode in [Mode::Psk, Mode::Key] {
        let mut pair = Pair::up(mode);
        pair.world.kill_server(pair.server);
        pair.world.start_server(pair.server);
        let hint = pair.withhold(Down, Kind::NoSession);

        pair.refuses_all_but(&hint, 0);
        pair.takes(&hint);
        let attempts = pair.world.client(pair.client).watch().expect("it runs").attempts();
        assert_eq!(attempts.len(), 2);
    }
}

#[test]
fn no_altered_ctrl_is_taken() {
    for mode in Mode::PACKETS {
        for way in [Up, Down] {
            let mut pair = Pair::up(mode);
            let ctrl = pair.withhold(way, Kind::Ctrl);
            pair.refuses_all_but(&ctrl, 0);
            pair.takes(&ctrl);
        }
    }
}

#[test]
fn no_altered_data_is_delivered() {
    for mode in Mode::PACKETS {
        for way in [Up, Down] {
            let mut pair = Pair::up(mode);
            pair.world.faults(path(pair.client, 0), way).dark = true;
            pair.world.captured();
            let number = pair.world.send(pair.client, way, 0, 64).expect("it is up");
            let data = pair.world.captured().pop().expect("it was sent");
            let kind = if mode.is_clear() { Kind::DataClear } else { Kind::Data };
            assert_eq!(data.parcel.bytes()[0], kind.code());

            pair.refuses_all_but(&data, 0);
            pair.takes(&data);
            assert!(pair.world.ledger().get(number).delivered_at.is_some());
            let again = pair.digest();
            pair.inject(way, data.parcel.bytes(), &data);
            assert_eq!(pair.digest(), again, "a replay changes nothing");
        }
    }
}

#[test]
fn no_altered_piece_of_a_datagram_is_put_aside() {
    let mut pair = Pair::up(Mode::Psk);
    pair.world.faults(path(pair.client, 0), Up).dark = true;
    pair.world.captured();
    let number = pair.world.send(pair.client, Up, 0, 1_500).expect("it is up");
    let pieces = pair.world.captured();
    assert_eq!(pieces.len(), 2);

    pair.refuses_all_but(&pieces[0], 0);
    pair.inject(Up, pieces[1].parcel.bytes(), &pieces[1]);
    pair.refuses_all_but(&pieces[0], 0);
    pair.takes(&pieces[0]);
    assert!(pair.world.ledger().get(number).delivered_at.is_some());
}
