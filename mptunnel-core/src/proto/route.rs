// SPDX-License-Identifier: BSD-2-Clause
//! Where datagrams come from and go to, and the index from there to a path slot.

use super::num::widen;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// One socket of ours and one address of theirs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Route {
    /// Which of the endpoint's sockets, as numbered by the I/O layer.
    pub socket: u32,
    /// The other end: a bridge, or the server itself.
    pub remote: SocketAddr,
    /// The local address that the datagram came to, so that the answer leaves from there.
    pub local: Option<IpAddr>,
}

impl Route {
    /// A number that two different routes share only by chance. Not cryptographic: whoever makes
    /// two of his own routes collide only mixes up his own counters.
    fn digest(&self, seed: u64) -> u64 {
        let mut h =
            mix(seed ^ u64::from(self.socket) ^ u64::from(self.remote.port()).rotate_left(32));
        h = mix(h ^ fold(self.remote.ip()));
        mix(h ^ self.local.map_or(0, fold))
    }
}

fn fold(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(v4) => u64::from(v4.to_bits()) | (4 << 32),
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = v6.octets();
            let high = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            mix(high) ^ u64::from_le_bytes([i, j, k, l, m, n, o, p])
        }
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014): every input bit changes half of the output bits.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// From a route to its path slot without a lock and without a search: what every received packet
/// asks.
///
/// A cell holds 58 bits of the route's digest and the slot. The control side writes, receivers
/// read; a reader that comes too early or too late only leaves one packet unattributed.
pub struct RouteIndex {
    seed: u64,
    version: AtomicU32,
    cells: [AtomicU64; CELLS],
}

/// Twice the number of path slots, so that probing stays short.
const CELLS: usize = 64;
const SLOT_BITS: u64 = 0x3f;
const EMPTY: u64 = 0;

impl RouteIndex {
    /// An empty index; `seed` keeps strangers from aiming at a cell.
    pub fn new(seed: u64) -> Self {
        RouteIndex {
            seed,
            version: AtomicU32::new(0),
            cells: [const { AtomicU64::new(EMPTY) }; CELLS],
        }
    }

    /// Which contents these are: another number after every change.
    pub fn version(&self) -> u32 {
        self.version.load(Relaxed)
    }

    /// The slot of `route`, if it is the active route of one.
    pub fn slot(&self, route: &Route) -> Option<u8> {
        let digest = route.digest(self.seed);
        for cell in self.probe(digest) {
            let value = cell.load(Relaxed);
            if value == EMPTY {
                return None;
            }
            if value & !SLOT_BITS == digest & !SLOT_BITS {
                return u8::try_from(value & SLOT_BITS).ok()?.checked_sub(1);
            }
        }
        None
    }

    /// Replaces the whole contents by the active routes of the slots.
    pub fn replace<'a>(&self, routes: impl Iterator<Item = (u8, &'a Route)>) {
        for cell in &self.cells {
            cell.store(EMPTY, Relaxed);
        }
        for (slot, route) in routes {
            let digest = route.digest(self.seed);
            // Slots are stored from 1, so that no filled cell is EMPTY.
            let value = (digest & !SLOT_BITS) | u64::from(slot).saturating_add(1);
            if let Some(cell) = self.probe(digest).find(|cell| cell.load(Relaxed) == EMPTY) {
                cell.store(value, Relaxed);
            }
        }
        // Last, so that nobody takes half of the old contents for the new ones for long.
        self.version.fetch_add(1, Relaxed);
    }

    /// The cells in the order in which `digest` looks at them.
    fn probe(&self, digest: u64) -> impl Iterator<Item = &AtomicU64> {
        let start = usize::try_from(digest >> 58).unwrap_or(0) % CELLS;
        let (before, from) = self.cells.split_at_checked(start).unwrap_or((&[], &self.cells));
        from.iter().chain(before)
    }
}

/// What one session counts for one path slot. Monotonic; wraps never in practice (2^64).
#[derive(Debug, Default)]
pub struct PathCounters {
    tx_pkts: AtomicU64,
    tx_bytes: AtomicU64,
    rx_pkts: AtomicU64,
    rx_bytes: AtomicU64,
    rx_dups: AtomicU64,
    tx_dropped: AtomicU64,
    heard_us: AtomicU64,
    /// DATA bytes since the last look, and [`UNPROVEN`].
    earned: AtomicU64,
}

/// The flag in [`PathCounters`] of a path whose only address has yet to be proven. 2^63 bytes do
/// not come in before it is.
const UNPROVEN: u64 = 1 << 63;

/// Packets that came one after the other.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Run {
    /// How many.
    pub packets: u64,
    /// Bytes of all of them, UDP payload.
    pub bytes: u64,
}

impl Run {
    /// One more, of `bytes`.
    pub fn add(&mut self, bytes: usize) {
        self.packets = self.packets.saturating_add(1);
        self.bytes = self.bytes.saturating_add(widen(bytes));
    }
}

/// A copy of [`PathCounters`]. Sums wrap: one that begins below zero, at what its slot had counted
/// for others, is right in the end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PathCounts {
    /// Packets sent.
    pub tx_pkts: u64,
    /// Bytes sent, UDP payload.
    pub tx_bytes: u64,
    /// Packets received, copies of known ones included.
    pub rx_pkts: u64,
    /// Bytes received, UDP payload.
    pub rx_bytes: u64,
    /// Of those, packets that another path had brought before.
    pub rx_dups: u64,
    /// Copies that the socket would not take.
    pub tx_dropped: u64,
}

impl PathCounters {
    /// All zero.
    pub const fn new() -> Self {
        PathCounters {
            tx_pkts: AtomicU64::new(0),
            tx_bytes: AtomicU64::new(0),
            rx_pkts: AtomicU64::new(0),
            rx_bytes: AtomicU64::new(0),
            rx_dups: AtomicU64::new(0),
            tx_dropped: AtomicU64::new(0),
            heard_us: AtomicU64::new(0),
            earned: AtomicU64::new(0),
        }
    }

    /// Packets went out on this path.
    pub fn on_sent(&self, packets: u64, bytes: u64) {
        self.tx_pkts.fetch_add(packets, Relaxed);
        self.tx_bytes.fetch_add(bytes, Relaxed);
    }

    /// The socket refused copies.
    pub fn on_send_dropped(&self, packets: u64) {
        self.tx_dropped.fetch_add(packets, Relaxed);
    }

    /// Packets came in: some that opened and were new, the last of them at `heard_us`, and copies
    /// that were dropped unopened.
    pub fn on_received(&self, new: Run, copies: Run, heard_us: u64) {
        self.rx_pkts.fetch_add(new.packets.saturating_add(copies.packets), Relaxed);
        self.rx_bytes.fetch_add(new.bytes.saturating_add(copies.bytes), Relaxed);
        if copies.packets > 0 {
            self.rx_dups.fetch_add(copies.packets, Relaxed);
        }
        if new.packets > 0 {
            self.heard_us.fetch_max(heard_us, Relaxed);
        }
    }

    /// Says whether the only address of the path has yet to be proven.
    pub fn set_unproven(&self, is_unproven: bool) {
        if is_unproven {
            self.earned.fetch_or(UNPROVEN, Relaxed);
        } else {
            self.earned.store(0, Relaxed);
        }
    }

    /// New DATA came in. If the address has yet to be proven, it has earned credit.
    pub fn on_data(&self, bytes: usize) {
        if self.earned.load(Relaxed) & UNPROVEN != 0 {
            self.earned.fetch_add(widen(bytes), Relaxed);
        }
    }

    /// Takes the bytes that have earned credit since the last call.
    pub fn take_earned(&self) -> u64 {
        self.earned.fetch_and(UNPROVEN, Relaxed) & !UNPROVEN
    }

    /// When the last authenticated packet came in, in microseconds; 0 = never.
    pub fn heard_us(&self) -> u64 {
        self.heard_us.load(Relaxed)
    }

    /// All counters as they stand.
    pub fn counts(&self) -> PathCounts {
        PathCounts {
            tx_pkts: self.tx_pkts.load(Relaxed),
            tx_bytes: self.tx_bytes.load(Relaxed),
            rx_pkts: self.rx_pkts.load(Relaxed),
            rx_bytes: self.rx_bytes.load(Relaxed),
            rx_dups: self.rx_dups.load(Relaxed),
            tx_dropped: self.tx_dropped.load(Relaxed),
        }
    }
}

impl std::ops::AddAssign for PathCounts {
    fn add_assign(&mut self, other: Self) {
        self.tx_pkts = self.tx_pkts.wrapping_add(other.tx_pkts);
        self.tx_bytes = self.tx_bytes.wrapping_add(other.tx_bytes);
        self.rx_pkts = self.rx_pkts.wrapping_add(other.rx_pkts);
        self.rx_bytes = self.rx_bytes.wrapping_add(other.rx_bytes);
        self.rx_dups = self.rx_dups.wrapping_add(other.rx_dups);
        self.tx_dropped = self.tx_dropped.wrapping_add(other.tx_dropped);
    }
}

impl PathCounts {
    /// What a new path in a slot begins with, so that it does not show what was counted there
    /// before: as much below zero.
    pub fn below_zero(self) -> Self {
        PathCounts {
            tx_pkts: self.tx_pkts.wrapping_neg(),
            tx_bytes: self.tx_bytes.wrapping_neg(),
            rx_pkts: self.rx_pkts.wrapping_neg(),
            rx_bytes: self.rx_bytes.wrapping_neg(),
            rx_dups: self.rx_dups.wrapping_neg(),
            tx_dropped: self.tx_dropped.wrapping_neg(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(socket: u32, remote: &str) -> Route {
        Route { socket, remote: remote.parse().unwrap(), local: None }
    }

    #[test]
    fn thirty_two_routes_find_their_slots_and_strangers_find_none() {
        let routes: Vec<Route> =
            (0..32).map(|i| route(i % 3, &format!("10.0.0.{i}:{}", 4000 + i))).collect();
        let index = RouteIndex::new(42);

        index.replace((0u8..).zip(&routes));

        for (slot, r) in (0u8..).zip(&routes) {
            assert_eq!(index.slot(r), Some(slot));
        }
        assert_eq!(index.slot(&route(0, "10.0.0.1:4000")), None);
        assert_eq!(index.slot(&route(9, "[fd00::1]:4000")), None);
    }

    #[test]
    fn a_replaced_index_forgets_the_old_routes() {
        let index = RouteIndex::new(1);
        let (old, new) = (route(0, "10.0.0.1:1"), route(0, "[fd00::1]:1"));
        index.replace([(3u8, &old)].into_iter());

        index.replace([(3u8, &new)].into_iter());

        assert_eq!((index.slot(&old), index.slot(&new)), (None, Some(3)));
    }
}
