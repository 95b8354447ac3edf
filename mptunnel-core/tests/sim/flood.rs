// SPDX-License-Identifier: BSD-2-Clause
//! Strangers who send whatever they like: nothing changes, little is answered, and those who hold
//! a key are served meanwhile (G2, G9, G10).

use crate::support::*;
use mptunnel_core::proto::crypto::{self, Initiator, InitiatorKeys, KeySet, mac};
use mptunnel_core::proto::drop::DropReason;
use mptunnel_core::proto::entropy::Entropy;
use mptunnel_core::proto::wire::{self, InitPayload, Kind};
use mptunnel_core::sim::rng::Rng;
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{Captured, ClientNo, PathSpec, ServerNo, World};
use std::net::SocketAddr;
use std::time::Duration;

/// A tunnel over two paths under 1,000 datagrams per second each way, everything captured.
fn busy(seed: u64) -> (World, ServerNo, ClientNo) {
    let (mut world, server, client) = tunnel(seed, 2, 50 * MS);
    world.start_all();
    world.run_for(S);
    world.stream_both_ways(client, 1_000, 60);
    world.run_for(S);
    (world, server, client)
}

fn assert_nothing_lost(world: &mut World) {
    world.stop_streams();
    world.run_for(S);
    world.verify();
    let lost = world.ledger().all().iter().filter(|d| d.delivered_at.is_none()).count();
    assert_eq!(lost, 0, "of the live flow");
}

fn any_address(dice: &mut Rng) -> SocketAddr {
    let host = std::net::Ipv4Addr::from_bits(dice.range(0x0b00_0000..0x7f00_0000) as u32);
    (host, dice.range(1..65_536) as u16).into()
}

/// An address that is no path's.
fn stranger() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], 9))
}

/// A genuine packet, spoiled in one of many ways, or a random one.
fn garbage(dice: &mut Rng, genuine: &[Captured]) -> Vec<u8> {
    let pick = |dice: &mut Rng| {
        let at = dice.range(0..genuine.len() as u64) as usize;
        genuine[at].parcel.bytes().to_vec()
    };
    let mut bytes = pick(dice);
    let len = bytes.len() as u64;
    match dice.range(0..8) {
        0 => {
            let longest = if dice.chance(0.01) { 65_508 } else { 300 };
            bytes = vec![0; dice.range(0..longest) as usize];
            dice.fill(&mut bytes);
        }
        1 => {
            // Random, but of a known type.
            bytes = vec![0; dice.range(4..300) as usize];
            dice.fill(&mut bytes);
            bytes[..4].copy_from_slice(&[dice.range(0..10) as u8, 1, 0, 0]);
        }
        2 => {
            for _ in 0..dice.range(1..9) {
                let bit = dice.range(0..len * 8);
                bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            }
        }
        3 => bytes.truncate(dice.range(0..len) as usize),
        4 => bytes.resize((len + dice.range(1..64)) as usize, 0),
        5 => {
            let other = pick(dice);
            let cut = dice.range(0..len.min(other.len() as u64)) as usize;
            bytes.truncate(cut);
            bytes.extend(&other[cut..]);
        }
        6 => {
            // Another number under the same tag.
            let at = 8 + dice.range(0..8) as usize;
            bytes[at] = bytes[at].wrapping_add(1);
        }
        _ => {}
    }
    bytes
}

#[test]
fn garbage_at_50_kpps_costs_a_live_flow_nothing() {
    with_seeds("garbage_at_50_kpps_costs_a_live_flow_nothing", 1, |seed| {
        let (mut world, server, client) = busy(seed);
        let mut dice = world.dice("garbage");
        let sessions = world.server(server).plane().expect("it runs").len();
        world.capture();
        world.run_for(100 * MS);
        let mut genuine = world.captured();
        for round in 0..4_000 {
            for _ in 0..50 {
                let bytes = garbage(&mut dice, &genuine);
                let spoofed = dice.range(0..3) as usize;
                let source = match world.client(client).paths.get(spoofed) {
                    Some(net) => net.outer,
                    None => any_address(&mut dice),
                };
                if dice.chance(0.7) {
                    world.inject_at_server(server, source, &bytes);
                } else {
                    let index = dice.range(0..2) as usize;
                    world.inject_at_client(path(client, index), &bytes);
                }
            }
            world.run_for(MS);
            // The attacker hears what is sent, and is faster than the links.
            let heard = world.captured();
            if round % 10 == 0 {
                genuine.splice(0..0, heard);
                genuine.truncate(500);
            }
        }

        let host = world.server(server);
        assert_eq!(host.plane().expect("it runs").len(), sessions, "no new session");
        assert_eq!(host.server().expect("it runs").peers().count(), 1);
        let attempts = world.client(client).watch().expect("it runs").attempts();
        assert_eq!(attempts.len(), 1, "no handshake was begun");
        assert_nothing_lost(&mut world);
    });
}

/// Keys and INITs of somebody who holds the shared key.
struct Insider {
    set: KeySet,
    dice: Rng,
}

impl Insider {
    fn new(seed: u64) -> Self {
        Insider { set: KeySet::for_psk(&psk(1)), dice: Rng::new(seed).fork("insider") }
    }

    /// A genuine INIT, without mac2.
    fn init(&mut self) -> Vec<u8> {
        let mut head = [0; 16];
        head[..4].copy_from_slice(&Kind::InitPsk.head());
        self.dice.fill(&mut head[4..8]);
        head[8..].copy_from_slice(&self.set.key_id);
        let payload = InitPayload {
            peer_id: self.dice.bytes(),
            boot_id: self.dice.u64(),
            previous_index: 0,
            features: 0,
            max_payload: 1_400,
            paths: 1,
            version: wire::VERSION,
            window_log2: 18,
            time_us: 0,
        };
        let keys = InitiatorKeys::Psk(&psk(1));
        let made = Initiator::start(keys, &head, &payload.encode(), &mut self.dice);
        let (_, message) = made.expect("all lengths are right");
        let mut init = head.to_vec();
        init.extend(message);
        let mac1: [u8; 16] = mac::mac16(self.set.mac1.expose(), &[&init]);
        init.extend(mac1);
        init.extend([0; 16]);
        init
    }

    /// The same INIT with the mac2 that a COOKIE asks for.
    fn with_cookie(&self, init: &[u8], cookie: &[u8]) -> Vec<u8> {
        let mac1 = init[128..144].try_into().expect("16 bytes");
        let nonce = cookie[8..32].try_into().expect("24 bytes");
        let sealed = cookie[32..64].try_into().expect("32 bytes");
        let cookie = crypto::open_cookie(self.set.cookie.expose(), nonce, mac1, sealed)
            .expect("it is for this INIT");
        let mac2: [u8; 16] = mac::mac16(&cookie, &[&init[..144]]);
        [&init[..144], &mac2].concat()
    }

    /// A CTRL of a session that does not exist, with the right guard.
    fn ctrl(&mut self) -> Vec<u8> {
        let mut ctrl = vec![0; wire::CTRL_MIN - wire::GUARD_LEN];
        self.dice.fill(&mut ctrl);
        ctrl[..4].copy_from_slice(&Kind::Ctrl.head());
        let guard: [u8; 8] = mac::mac8(self.set.mac1.expose(), &[&ctrl]);
        ctrl.extend(guard);
        ctrl
    }
}

/// A second client connects within `limit`, whatever else goes on.
fn newcomer_connects(world: &mut World, server: ServerNo, mut meanwhile: impl FnMut(&mut World)) {
    let paths = vec![PathSpec::rtt(50 * MS); 2];
    let newcomer = world.add_client(server, paths, client_config);
    world.start_client(newcomer);
    let start = world.now();
    while world.server(server).peer_of(newcomer).is_none() {
        meanwhile(world);
        world.run_for(MS);
        assert!(world.now().since(start) < 2 * S, "the newcomer waits");
    }
}

fn pending(world: &World, server: ServerNo) -> usize {
    world.server(server).server().expect("it runs").pending_len()
}

fn drops(world: &World, server: ServerNo, reason: DropReason) -> u64 {
    world.server(server).plane().expect("it runs").drops.of(reason)
}

#[test]
fn inits_with_a_bad_mac1_get_nothing() {
    let (mut world, server, _) = busy(1);
    let (mut insider, mut dice) = (Insider::new(1), world.dice("flood"));
    let genuine = insider.init();
    for _ in 0..10_000 {
        let mut init = genuine.clone();
        init[128 + dice.range(0..16) as usize] ^= 1 + dice.range(0..255) as u8;
        let source = any_address(&mut dice);
        world.inject_at_server(server, source, &init);
    }
    assert_eq!((pending(&world, server), world.strays().packets), (0, 0));
    assert!(drops(&world, server, DropReason::BadMac1) == 10_000);
    newcomer_connects(&mut world, server, |_| {});
    assert_nothing_lost(&mut world);
}

#[test]
fn a_replayed_init_makes_one_session_that_is_never_used() {
    let (mut world, server, _) = busy(1);
    let mut dice = world.dice("flood");
    let init = Insider::new(1).init();
    for round in 0..10_000 {
        let source = any_address(&mut dice);
        world.inject_at_server(server, source, &init);
        assert_eq!(pending(&world, server), 1);
        if round % 10 == 0 {
            world.run_for(MS);
        }
    }
    // Each source had one answer, which is smaller than the question.
    assert!(world.strays().bytes <= 10_000 * wire::RESP_LEN as u64);
    newcomer_connects(&mut world, server, |_| {});
    world.run_for(20 * S);
    assert_eq!(pending(&world, server), 0, "the session is forgotten");
    assert_eq!(world.server(server).server().expect("it runs").peers().count(), 2);
    assert_nothing_lost(&mut world);
}

#[test]
fn ctrls_of_unknown_sessions_get_few_hints_and_take_no_slot() {
    let (mut world, server, client) = busy(1);
    let (mut insider, mut dice) = (Insider::new(1), world.dice("flood"));
    let mut blind = vec![0; 104];
    for _ in 0..10_000 {
        dice.fill(&mut blind);
        blind[..4].copy_from_slice(&Kind::Ctrl.head());
        let source = any_address(&mut dice);
        world.inject_at_server(server, source, &blind);
    }
    assert_eq!(world.strays().packets, 0, "without the key there is no answer");
    let start = world.now();
    for round in 0..10_000 {
        let ctrl = insider.ctrl();
        let source = any_address(&mut dice);
        world.inject_at_server(server, source, &ctrl);
        if round % 10 == 0 {
            world.run_for(MS);
        }
    }
    let seconds = 2 + world.now().since(start).as_secs();
    assert!(world.strays().packets <= 1_000 * seconds, "{}", world.strays().packets);
    assert!(world.strays().packets >= 1_000);
    assert_eq!(slots(&world, server, client), 2);
    assert_nothing_lost(&mut world);
}

fn slots(world: &World, server: ServerNo, client: ClientNo) -> usize {
    let host = world.server(server);
    let peer = host.peer_of(client).expect("it is known");
    host.server().expect("it runs").peer(peer).expect("it is here").slots().count()
}

#[test]
fn forged_tags_from_anywhere_change_nothing() {
    let (mut world, server, client) = busy(1);
    let mut dice = world.dice("flood");
    let set = KeySet::for_psk(&psk(1));
    let session = world.client(client).client().and_then(|c| c.session().cloned());
    let index = session.expect("it is up").remote_index();
    for round in 0..10_000u64 {
        let mut forged = vec![0; 104];
        dice.fill(&mut forged);
        forged[..4].copy_from_slice(&Kind::Ctrl.head());
        forged[4..8].copy_from_slice(&index.to_le_bytes());
        // Numbers that are still to come.
        forged[8..16].copy_from_slice(&(1_000_000 + round).to_le_bytes());
        if dice.chance(0.5) {
            let guard: [u8; 8] = mac::mac8(set.mac1.expose(), &[&forged[..96]]);
            forged[96..].copy_from_slice(&guard);
        }
        let source = any_address(&mut dice);
        world.inject_at_server(server, source, &forged);
    }
    assert_eq!(world.strays().packets, 0);
    assert_eq!(slots(&world, server, client), 2);
    let failed = drops(&world, server, DropReason::AuthFailed);
    let unguarded = drops(&world, server, DropReason::BadGuard);
    assert_eq!(failed + unguarded, 10_000);
    assert_nothing_lost(&mut world);
}

#[test]
fn no_forged_nosession_begins_a_handshake() {
    with_seeds("no_forged_nosession_begins_a_handshake", 2, |seed| {
        let (mut world, server, client) = tunnel(seed, 2, 50 * MS);
        world.start_all();
        world.run_for(S);
        // A genuine hint for the first session, kept for later.
        world.kill_server(server);
        world.capture();
        world.start_server(server);
        world.send(client, Up, 0, 50).expect("it is up");
        world.run_for(10 * S);
        let is_hint = |c: &Captured| c.parcel.bytes()[0] == Kind::NoSession.code();
        let old = world.captured().into_iter().find(is_hint).expect("the server said so");
        world.stream_both_ways(client, 100, 60);
        world.run_for(S);
        let begun = world.client(client).watch().expect("it runs").attempts().len();

        let mut dice = world.dice("forge");
        let session = world.client(client).client().and_then(|c| c.session().cloned());
        let session = session.expect("it is up");
        for round in 0..10_000 {
            let heard = world.captured();
            let is_ctrl = |c: &&Captured| c.direction == Up && c.parcel.bytes()[0] == 6;
            let ctrl = heard.iter().rev().find(is_ctrl).map(|c| c.parcel.bytes().to_vec());
            let mut hint = old.parcel.bytes().to_vec();
            let kind = dice.range(0..4);
            if kind > 0 {
                hint[4..8].copy_from_slice(&session.remote_index().to_le_bytes());
            }
            if let Some(ctrl) = ctrl.filter(|_| kind > 1) {
                hint[8..16].copy_from_slice(&ctrl[8..16]);
                hint[16..32].copy_from_slice(&ctrl[ctrl.len() - 24..ctrl.len() - 8]);
            }
            if kind > 2 {
                dice.fill(&mut hint[32..]);
            }
            world.inject_at_client(path(client, round % 2), &hint);
            world.run_for(MS);
        }

        let attempts = world.client(client).watch().expect("it runs").attempts();
        assert_eq!(attempts.len(), begun);
        let drops = &world.client(client).plane().expect("it runs").drops;
        assert!(drops.of(DropReason::NoSessionIgnored) >= 10_000);
    });
}

#[test]
fn an_insider_who_floods_with_inits_from_forged_addresses_gets_cookies() {
    let (mut world, server, _) = busy(1);
    let (mut insider, mut dice) = (Insider::new(1), world.dice("flood"));
    let flood = |world: &mut World| {
        for _ in 0..5 {
            let source = any_address(&mut dice);
            world.inject_at_server(server, source, &insider.init());
            assert!(pending(world, server) <= 256);
        }
    };
    flood_then_connect(&mut world, server, flood);
    let cookies = drops(&world, server, DropReason::BadMac2);
    assert!(cookies > 1_000, "{cookies}");
    assert_nothing_lost(&mut world);
}

#[test]
fn an_insider_who_floods_from_his_own_address_is_limited_there() {
    let (mut world, server, _) = busy(1);
    let (mut insider, own) = (Insider::new(1), stranger());
    let flood = |world: &mut World| {
        for _ in 0..5 {
            let init = insider.init();
            world.inject_at_server(server, own, &init);
            let answer = world.strays().last.clone();
            if let Some((to, cookie)) = answer
                && to == own
                && cookie[0] == Kind::Cookie.code()
                && cookie[4..8] == init[4..8]
            {
                let init = insider.with_cookie(&init, &cookie);
                world.inject_at_server(server, own, &init);
            }
            assert!(pending(world, server) <= 256);
        }
    };
    flood_then_connect(&mut world, server, flood);
    assert!(drops(&world, server, DropReason::RateLimited) > 1_000);
    assert_nothing_lost(&mut world);
}

fn flood_then_connect(world: &mut World, server: ServerNo, mut flood: impl FnMut(&mut World)) {
    for _ in 0..600 {
        flood(world);
        world.run_for(MS);
    }
    newcomer_connects(world, server, flood);
}

/// A hostile bridge repeats every CTRL that the client sends on path 0 from the address of a
/// victim, and faster than it arrives. Returns bytes out per byte in, at the victim.
fn reflect(world: &mut World, server: ServerNo, for_ms: u32) -> f64 {
    let victim: SocketAddr = SocketAddr::from(([203, 0, 113, 9], 53));
    world.capture();
    for _ in 0..for_ms {
        for heard in world.captured() {
            let is_ctrl = heard.parcel.bytes()[0] == Kind::Ctrl.code();
            if is_ctrl && heard.direction == Up && heard.path.index == 0 {
                world.inject_at_server(server, victim, heard.parcel.bytes());
            }
        }
        world.run_for(MS);
    }
    let host = world.server(server);
    let account = host.watch().expect("it runs").account(victim);
    assert!(account.authentic >= 10 * 104, "the attack took place: {account:?}");
    assert!(!account.proven, "nobody proved the victim's address");
    account.sent as f64 / (account.authentic + account.other) as f64
}

#[test]
fn copied_probes_bring_a_victim_less_than_they_cost() {
    let (mut world, server, client) = tunnel(1, 8, 100 * MS);
    world.start_all();
    world.run_for(S);
    world.stream_both_ways(client, 200, 600);
    world.run_for(S);

    let ratio = reflect(&mut world, server, 5_000);

    println!("bytes out per byte in: {ratio:.2}");
    assert!(ratio <= 1.0, "{ratio}");
    let up = world.client(client).client().expect("it runs").paths().filter(|p| p.up).count();
    assert_eq!(up, 8, "the client is answered all the same");
    assert_nothing_lost(&mut world);
}

#[test]
fn copied_first_probes_of_a_session_bring_a_victim_three_bytes_for_one() {
    let (mut world, server, client) = tunnel(1, 2, 100 * MS);
    world.start_all();
    world.stream(client, Down, 2_000, 60);

    let ratio = reflect(&mut world, server, 5_000);

    println!("bytes out per byte in: {ratio:.2}");
    assert!((1.0..=3.0).contains(&ratio), "{ratio}");
    assert!(world.client(client).is_up(), "the other path carries the tunnel");
    world.stop_streams();
    world.run_for(S);
    world.verify();
}

#[test]
fn no_answer_to_a_stranger_is_larger_than_his_question() {
    // By construction: the lengths are fixed.
    const { assert!(wire::RESP_LEN < wire::INIT_PSK_LEN && wire::RESP_LEN < wire::INIT_KEY_LEN) };
    const { assert!(wire::COOKIE_LEN < wire::INIT_PSK_LEN) };
    const { assert!(wire::NOSESSION_LEN < wire::CTRL_MIN) };
    // And by search: whatever an insider sends from one address, I4 is asserted at each answer.
    let (mut world, server, _) = busy(1);
    let (mut insider, mut dice) = (Insider::new(1), world.dice("search"));
    let mut kept: Vec<Vec<u8>> = (0..50).map(|_| insider.init()).collect();
    kept.extend((0..50).map(|_| insider.ctrl()));
    let own = stranger();
    for _ in 0..20_000 {
        let at = dice.range(0..kept.len() as u64) as usize;
        if dice.chance(0.02) {
            kept[at] = if dice.chance(0.5) { insider.init() } else { insider.ctrl() };
        }
        world.inject_at_server(server, own, &kept[at]);
        if dice.chance(0.3) {
            world.run_for(Duration::from_millis(dice.range(1..60)));
        }
    }
    let account = world.server(server).watch().expect("it runs").account(own);
    println!("{account:?}");
    assert!(account.sent > 0 && account.sent <= account.other);
}
