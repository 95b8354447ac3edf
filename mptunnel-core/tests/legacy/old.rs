// SPDX-License-Identifier: BSD-2-Clause
//! Stand-ins for the classic programs, with the rules that they follow and without their crashes:
//! what our end has to get along with.

use mptunnel_core::legacy::{HEADER_LEN, Kind, open, seal};
use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds since the world began.
pub type Ms = u64;

const PATIENCE: Ms = 60_000;
const FORGET: Ms = 300_000;

/// What a classic end remembers of numbers. It never takes anything back.
#[derive(Default)]
struct Seen {
    min: u32,
    ids: BTreeSet<u32>,
}

impl Seen {
    fn is_new(&mut self, id: u32) -> bool {
        if id <= self.min || !self.ids.insert(id) {
            return false;
        }
        while self.ids.remove(&(self.min + 1)) {
            self.min += 1;
        }
        true
    }
}

/// The datagram of an application, or none: duplicates and signs of life.
fn take(seen: &mut Seen, datagram: &[u8]) -> Option<Vec<u8>> {
    let mut datagram = datagram.to_vec();
    let opened = open(&mut datagram).ok()?;
    let is_new = opened.kind == Kind::Data && seen.is_new(opened.id);
    is_new.then(|| opened.payload.to_vec())
}

fn pack(id: u32, payload: &[u8], iv: u32) -> Vec<u8> {
    let mut packet = [&[0; HEADER_LEN], payload].concat();
    seal(&mut packet, Kind::Data, id, iv);
    packet
}

/// The seeds of both programs, always the same.
fn next_seed(seed: &mut u32) -> u32 {
    *seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12_345) & 0x7fff_ffff;
    *seed | 1
}

/// A source address as a server sees it: which bridge, which port.
pub type Address = (usize, u32);

/// The classic server.
#[derive(Default)]
pub struct OldServer {
    pub encrypts: bool,
    seen: Seen,
    last_id: u32,
    seed: u32,
    /// Of each source, when it was last sent to (`st`) and heard (`rc`).
    pub bridges: BTreeMap<Address, (Ms, Ms)>,
    pub delivered: Vec<Vec<u8>>,
}

impl OldServer {
    pub fn new(encrypts: bool) -> Self {
        OldServer { encrypts, ..OldServer::default() }
    }

    pub fn receive(&mut self, now: Ms, from: Address, datagram: &[u8]) {
        // Before it is looked at.
        self.bridges.entry(from).and_modify(|times| times.1 = now).or_insert((now, now));
        self.delivered.extend(take(&mut self.seen, datagram));
    }

    /// A datagram of the target: the copies that leave.
    pub fn send(&mut self, now: Ms, payload: &[u8]) -> Vec<(Address, Vec<u8>)> {
        self.last_id += 1;
        // Without obfuscation the seed is whatever was in its memory.
        let seed = next_seed(&mut self.seed);
        let mut packet = pack(self.last_id, payload, if self.encrypts { seed } else { 0 });
        if !self.encrypts {
            packet[..4].copy_from_slice(&seed.to_le_bytes());
        }
        self.bridges.retain(|_, (st, rc)| now - *rc <= FORGET && rc.abs_diff(*st) <= PATIENCE);
        for times in self.bridges.values_mut() {
            times.0 = now;
        }
        self.bridges.keys().map(|to| (*to, packet.clone())).collect()
    }
}

/// The classic client.
pub struct OldClient {
    pub encrypts: bool,
    seen: Seen,
    last_id: u32,
    seed: u32,
    /// Of each bridge, its port, when it was last sent to and heard.
    pub bridges: Vec<(u32, Ms, Option<Ms>)>,
    next_port: u32,
    pub delivered: Vec<Vec<u8>>,
}

impl OldClient {
    /// `first_port`: those of an earlier process are not used again.
    pub fn new(bridges: usize, encrypts: bool, first_port: u32) -> Self {
        let ports = (first_port..).take(bridges);
        OldClient {
            encrypts,
            seen: Seen::default(),
            last_id: 0,
            seed: 0,
            bridges: ports.map(|port| (port, 0, None)).collect(),
            next_port: first_port + bridges as u32,
            delivered: Vec::new(),
        }
    }

    pub fn receive(&mut self, now: Ms, bridge: usize, port: u32, datagram: &[u8]) {
        let (current, _, rc) = &mut self.bridges[bridge];
        if *current == port {
            *rc = Some(now);
            self.delivered.extend(take(&mut self.seen, datagram));
        }
    }

    /// A datagram of the application: the copies that leave.
    pub fn send(&mut self, now: Ms, payload: &[u8]) -> Vec<(Address, Vec<u8>)> {
        self.last_id += 1;
        // At most one bridge per datagram gets a new port.
        let stale = |(_, st, rc): &(u32, Ms, Option<Ms>)| {
            rc.is_some_and(|rc| st.saturating_sub(rc) > PATIENCE)
        };
        if let Some(bridge) = self.bridges.iter_mut().find(|bridge| stale(bridge)) {
            *bridge = (self.next_port, 0, None);
            self.next_port += 1;
        }
        let mut copies = Vec::new();
        for (number, (port, st, _)) in self.bridges.iter_mut().enumerate() {
            *st = now;
            // A seed of its own for each copy.
            let seed = if self.encrypts { next_seed(&mut self.seed) } else { 0 };
            copies.push(((number, *port), pack(self.last_id, payload, seed)));
        }
        copies
    }
}
