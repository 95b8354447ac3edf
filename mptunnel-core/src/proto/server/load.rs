// SPDX-License-Identifier: BSD-2-Clause
//! What keeps strangers from using up the server: load, cookies, rates.

use super::super::config::{ServerConfig, ServerLimits};
use super::super::crypto::mac;
use super::super::entropy::Entropy;
use super::super::limit::{PerSecond, TokenBucket};
use super::super::time::Time;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Load is believed for this long after it was seen.
const STICKY: Duration = Duration::from_secs(1);
/// Life of the secret behind the cookies.
const COOKIE_SECRET_LIFE: Duration = Duration::from_secs(120);
/// Source addresses whose rate is remembered.
const MAX_SOURCES: usize = 4_096;
/// Handshakes that may come at once.
const HANDSHAKE_BURST: u32 = 250;
/// NOSESSIONs in all and to one source: a herd of 100 clients with ten paths each comes back in 1 s.
const HINTS_PER_S: u32 = 1_000;
/// NOSESSIONs to one source address and port.
const HINTS_PER_SOURCE: u32 = 5;
/// Guards of unknown CTRLs checked per second, each key counted: 0.7 % of a core.
const GUARD_CHECKS_PER_S: u32 = 20_000;

/// Rates and the cookie secret.
pub struct Load {
    threshold: u32,
    handshakes_per_s: u32,
    source_rate: u32,
    source_burst: u32,
    new_inits: PerSecond,
    loaded_until: Time,
    handshakes: Option<TokenBucket>,
    sources: Bounded<IpAddr, TokenBucket>,
    secret: Option<([u8; 32], Time)>,
    hints: PerSecond,
    hint_sources: Bounded<SocketAddr, PerSecond>,
    guards: PerSecond,
}

impl Load {
    /// No load yet.
    pub fn new(config: &ServerConfig) -> Self {
        Load {
            threshold: config.load_threshold,
            handshakes_per_s: config.handshakes_per_s,
            source_rate: config.source_rate,
            source_burst: config.source_burst,
            new_inits: PerSecond::default(),
            loaded_until: Time::default(),
            handshakes: None,
            sources: Bounded::default(),
            secret: None,
            hints: PerSecond::default(),
            hint_sources: Bounded::default(),
            guards: PerSecond::default(),
        }
    }

    /// Other limits from now on.
    pub fn set_limits(&mut self, limits: &ServerLimits) {
        self.threshold = limits.load_threshold;
        self.handshakes_per_s = limits.handshakes_per_s;
        self.source_rate = limits.source_rate;
        self.source_burst = limits.source_burst;
    }

    /// A new INIT with a good mac1 came; whether the server is under load.
    pub fn on_new_init(&mut self, now: Time) -> bool {
        if self.new_inits.count(now) > self.threshold {
            self.loaded_until = now + STICKY;
        }
        now < self.loaded_until
    }

    /// Whether `source` may begin one more handshake while under load. Called for sources that
    /// proved their address only, so that the table holds no invented ones.
    pub fn source_allowed(&mut self, now: Time, source: IpAddr) -> bool {
        let (rate, burst) = (self.source_rate, self.source_burst);
        let bucket = self.sources.entry(network_of(source), || TokenBucket::new(now, burst));
        bucket.take(now, rate, burst)
    }

    /// Whether one more handshake may be computed at all.
    pub fn handshake_allowed(&mut self, now: Time) -> bool {
        let rate = self.handshakes_per_s;
        let burst = HANDSHAKE_BURST.min(rate.max(1));
        self.handshakes.get_or_insert_with(|| TokenBucket::new(now, burst)).take(now, rate, burst)
    }

    /// What a client at `source` must know to prove that it receives there.
    pub fn cookie(&mut self, now: Time, source: SocketAddr, entropy: &mut dyn Entropy) -> [u8; 16] {
        let fresh = self.secret.filter(|(_, born)| now.since(*born) < COOKIE_SECRET_LIFE);
        let (secret, _) = match fresh {
            Some(secret) => secret,
            None => {
                let mut secret = [0; 32];
                entropy.fill(&mut secret);
                *self.secret.insert((secret, now))
            }
        };
        cookie_for(&secret, source)
    }

    /// Whether the guard of a CTRL without a session may be checked against `keys` keys.
    pub fn guard_check_allowed(&mut self, now: Time) -> bool {
        self.guards.take(now, GUARD_CHECKS_PER_S)
    }

    /// Whether one more NOSESSION may go to `source`.
    pub fn hint_allowed(&mut self, now: Time, source: SocketAddr) -> bool {
        self.hint_sources.entry(source, PerSecond::default).take(now, HINTS_PER_SOURCE)
            && self.hints.take(now, HINTS_PER_S)
    }
}

/// cookie = M16(R, source address ‖ port), both in network byte order.
fn cookie_for(secret: &[u8; 32], source: SocketAddr) -> [u8; 16] {
    let port = source.port().to_be_bytes();
    match source.ip() {
        IpAddr::V4(ip) => mac::mac16(secret, &[&ip.octets(), &port]),
        IpAddr::V6(ip) => mac::mac16(secret, &[&ip.octets(), &port]),
    }
}

/// One IPv6 host may use any address of its /64.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => {
            IpAddr::V6(std::net::Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)))
        }
    }
}

/// A table that forgets its oldest entry when it is full.
struct Bounded<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Bounded { map: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Copy + Eq + std::hash::Hash, V> Bounded<K, V> {
    fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        if !self.map.contains_key(&key) {
            if self.map.len() >= MAX_SOURCES
                && let Some(oldest) = self.order.pop_front()
            {
                self.map.remove(&oldest);
            }
            self.order.push_back(key);
        }
        self.map.entry(key).or_insert_with(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::rng::Rng;

    fn load() -> Load {
        Load::new(&ServerConfig::new(Vec::new()))
    }

    #[test]
    fn load_begins_above_the_threshold_and_lasts_a_second() {
        let mut load = load();
        let threshold = load.threshold;
        assert!((0..threshold).all(|_| !load.on_new_init(Time::default())));
        assert!(load.on_new_init(Time::default()));
        assert!(!load.on_new_init(Time::from_micros(1_000_000)));
    }

    #[test]
    fn other_limits_count_at_once() {
        let mut load = load();
        let source = |n: u32| IpAddr::V4(n.into());
        let allowed = |load: &mut Load, n| {
            (0..1_000).filter(|_| load.source_allowed(Time::default(), source(n))).count()
        };
        assert_eq!(allowed(&mut load, 1), load.source_burst as usize);
        let limits = ServerLimits {
            sessions: 1,
            session_timeout: Duration::from_secs(1),
            handshakes_per_s: 7,
            load_threshold: 1,
            source_rate: 3,
            source_burst: 5,
            idle_interval: Duration::from_secs(1),
        };

        load.set_limits(&limits);

        assert!(!load.on_new_init(Time::default()));
        assert!(load.on_new_init(Time::default()), "above the new threshold");
        assert_eq!(allowed(&mut load, 2), 5);
        let later = Time::from_micros(1_000_000);
        let again = (0..1_000).filter(|_| load.source_allowed(later, source(2))).count();
        assert_eq!(again, 3);
        let handshakes = (0..1_000).filter(|_| load.handshake_allowed(later)).count();
        assert_eq!(handshakes, 7);
    }

    #[test]
    fn the_table_of_sources_stays_bounded() {
        let mut load = load();
        for n in 0..100_000u32 {
            load.source_allowed(Time::default(), IpAddr::V4(n.into()));
        }
        assert_eq!((load.sources.map.len(), load.sources.order.len()), (MAX_SOURCES, MAX_SOURCES));
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_one_rate() {
        let mut load = load();
        let allowed = (0..1_000u128)
            .filter(|n| {
                let ip = std::net::Ipv6Addr::from_bits(0xfd00 << 112 | n);
                load.source_allowed(Time::default(), ip.into())
            })
            .count();
        assert_eq!(allowed, load.source_burst as usize);
    }

    #[test]
    fn a_cookie_is_bound_to_address_and_port_and_ends_with_its_secret() {
        let (mut load, mut rng) = (load(), Rng::new(1));
        let here: SocketAddr = "10.0.0.1:8080".parse().unwrap();
        let there: SocketAddr = "10.0.0.1:8081".parse().unwrap();
        let cookie = load.cookie(Time::default(), here, &mut rng);

        assert_eq!(load.cookie(Time::from_micros(119_999_999), here, &mut rng), cookie);
        assert_ne!(load.cookie(Time::default(), there, &mut rng), cookie);
        assert_ne!(load.cookie(Time::from_micros(120_000_000), here, &mut rng), cookie);
        assert_eq!(
            cookie_for(&[0x44; 32], here),
            [
                0x18, 0xdc, 0x92, 0x07, 0x74, 0x0c, 0x9c, 0x84, 0xff, 0xb6, 0xc5, 0x2d, 0xa1, 0x6e,
                0x21, 0x55
            ]
        );
    }
}
