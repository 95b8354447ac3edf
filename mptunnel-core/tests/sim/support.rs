// SPDX-License-Identifier: BSD-2-Clause
//! What the simulator's tests share: seeds, keys, the usual tunnel.
//!
//! `MPTUNNEL_SEED=n` runs every test with that seed only, `MPTUNNEL_RUNS=n` with n times as many
//! seeds as usual.

use mptunnel_core::proto::config::{ClientConfig, ClientKeys, ServerConfig, ServerKey};
use mptunnel_core::proto::crypto::Psk;
use mptunnel_core::proto::event::{ClientEvent, ServerEvent};
use mptunnel_core::sim::world::{ClientNo, PathNo, PathSpec, ServerNo, World};
use std::time::Duration;

pub const MS: Duration = Duration::from_millis(1);
pub const S: Duration = Duration::from_secs(1);

/// Runs `scenario` with `count` fixed seeds, or as the environment says. If one fails, how to
/// repeat it is printed.
pub fn with_seeds(test: &str, count: u64, mut scenario: impl FnMut(u64)) {
    let seeds = match number_from("MPTUNNEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..count * number_from("MPTUNNEL_RUNS").unwrap_or(1),
    };
    for seed in seeds {
        let _hint = Hint { test, what: format!("MPTUNNEL_SEED={seed}") };
        scenario(seed);
    }
}

pub fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Says how to repeat a run, if the run panics.
pub struct Hint<'a> {
    pub test: &'a str,
    pub what: String,
}

impl Drop for Hint<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Hint { test, what } = self;
            eprintln!("to repeat: {what} cargo test -p mptunnel-core {test} -- --exact");
        }
    }
}

pub fn psk(number: u8) -> Psk {
    Psk::new([number; 32]).expect("not all zero")
}

pub fn client_config() -> ClientConfig {
    ClientConfig::new(ClientKeys::Psk(psk(1)))
}

pub fn server_config() -> ServerConfig {
    ServerConfig::new(vec![ServerKey::Psk(psk(1))])
}

/// A server and a client with a name, both off, and `paths` equal paths.
pub fn tunnel(seed: u64, paths: usize, rtt: Duration) -> (World, ServerNo, ClientNo) {
    tunnel_over(seed, vec![PathSpec::rtt(rtt); paths])
}

/// A server and a client with a name, both off.
pub fn tunnel_over(seed: u64, paths: Vec<PathSpec>) -> (World, ServerNo, ClientNo) {
    let mut world = World::new(seed);
    let server = world.add_server(server_config);
    let client = world.add_client(server, paths, || ClientConfig {
        name: Some("client".into()),
        ..client_config()
    });
    (world, server, client)
}

pub fn path(client: ClientNo, index: usize) -> PathNo {
    PathNo { client, index }
}

pub fn count_client_events(
    world: &World,
    client: ClientNo,
    is: impl Fn(&ClientEvent) -> bool,
) -> usize {
    world.client(client).events.iter().filter(|(_, event)| is(event)).count()
}

pub fn count_server_events(
    world: &World,
    server: ServerNo,
    is: impl Fn(&ServerEvent) -> bool,
) -> usize {
    world.server(server).events.iter().filter(|(_, event)| is(event)).count()
}

/// The share of sorted samples below which `share` of them lie.
pub fn quantile(samples: &mut [Duration], share: f64) -> Duration {
    samples.sort_unstable();
    let last = samples.len().checked_sub(1).expect("there are samples");
    samples[(last as f64 * share).round() as usize]
}
