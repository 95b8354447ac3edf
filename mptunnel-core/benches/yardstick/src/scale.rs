// SPDX-License-Identifier: BSD-2-Clause
//! What more paths, more sessions and more clients cost: nothing on the way of a datagram may grow
//! with their number.

use crate::Plan;
use crate::drive::{self, BATCH, Load};
use crate::library::{Delivery, KEY, Pair};
use crate::table::{Row, Unit};
use mptunnel_bench::seal::Cipher;
use mptunnel_core::Tunnel;
use mptunnel_core::proto::client::{Client, PathSettings};
use mptunnel_core::proto::config::{ClientConfig, ClientKeys};
use mptunnel_core::proto::crypto::Psk;
use mptunnel_core::proto::dataplane::DataPlane;
use mptunnel_core::proto::route::Route;
use mptunnel_core::proto::time::Time;
use mptunnel_core::proto::wire::Kind;
use mptunnel_core::sim::rng::Rng;
use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

const GROUP: &str = "Scale: the library, handler, 1400 B, ChaCha20-Poly1305";
const SIZE: usize = 1400;
const MANY_PATHS: usize = 16;
const FEW_PATHS: usize = 3;
const IDLE: u64 = 4_096;
const BUSY: usize = 64;

/// Sets everything aside that keeps strangers from opening thousands of sessions at once.
const WELCOMING: &[(&str, &str)] = &[
    ("sessions", "8192"),
    ("handshake-rate", "1000000"),
    ("cookie-threshold", "1000000"),
    ("source-rate", "1000000"),
    ("source-burst", "1000000"),
];

/// All three.
pub fn rows(plan: &Plan, rows: &mut Vec<Row>) -> Result<(), Box<dyn Error>> {
    rows.push(paths(plan)?);
    rows.push(idle(plan)?);
    rows.push(busy(plan)?);
    Ok(())
}

fn open(paths: usize) -> Result<Pair, Box<dyn Error>> {
    Ok(Pair::open_with(paths, Cipher::Chacha20, Delivery::Handler, WELCOMING)?)
}

fn load(plan: &Plan, paths: usize) -> Load {
    Load { size: SIZE, paths, duration: plan.flood }
}

/// Copies per second over many paths and over few: sealing is done once for all of them.
fn paths(plan: &Plan) -> Result<Row, Box<dyn Error>> {
    let (many, few) = (open(MANY_PATHS)?, open(FEW_PATHS)?);
    let name = format!("copies over {MANY_PATHS} paths, beside {FEW_PATHS}");
    let mut row = Row::new(GROUP, name, Unit::Rate, "few");
    for _ in 0..plan.turns {
        let copies = |pair: &Pair, paths| {
            crate::whole(pair.measure(load(plan, paths))).map(|rate| rate * paths as f64)
        };
        row.turns.push((copies(&many, MANY_PATHS)?, copies(&few, FEW_PATHS)?));
    }
    Ok(row)
}

/// One busy client, beside thousands that are silent and alone.
fn idle(plan: &Plan) -> Result<Row, Box<dyn Error>> {
    let (crowded, alone) = (open(1)?, open(1)?);
    open_sessions(crowded.address(), IDLE)?;
    let name = format!("beside {IDLE} idle sessions");
    let mut row = Row::new(GROUP, name, Unit::Rate, "alone");
    for _ in 0..plan.turns {
        let rate = |pair: &Pair| crate::whole(pair.measure(load(plan, 1)));
        row.turns.push((rate(&crowded)?, rate(&alone)?));
    }
    let peers = crowded.peers();
    if (peers as u64) < IDLE {
        return Err(format!("only {peers} of {IDLE} sessions lived through it").into());
    }
    Ok(row)
}

/// Many busy clients together, beside one.
fn busy(plan: &Plan) -> Result<Row, Box<dyn Error>> {
    let pair = open(1)?;
    let to = pair.address().to_string();
    let tunnels = (0..BUSY)
        .map(|_| Tunnel::builder().key(&KEY).server(&to).connect())
        .collect::<Result<Vec<_>, _>>()?;
    for tunnel in &tunnels {
        tunnel.wait_ready(Some(Duration::from_secs(10)))?;
    }
    let name = format!("{BUSY} busy clients together");
    let mut row = Row::new(GROUP, name, Unit::Rate, "one");
    let payload = vec![0xa5; SIZE];
    for _ in 0..plan.turns {
        let mut next = tunnels.iter().cycle();
        let together = drive::flood(plan.flood, pair.delivered(), || {
            if let Some(tunnel) = next.next() {
                // What is refused is lost, which shows.
                let _ = tunnel.send_batch([&payload[..]; BATCH]);
            }
        });
        let one = crate::whole(pair.measure(load(plan, 1)))?;
        row.turns.push((crate::whole(together)?, one));
    }
    Ok(row)
}

/// Opens sessions that then keep still, without the threads of a [`Tunnel`].
fn open_sessions(server: SocketAddr, count: u64) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let route = Route { socket: 0, remote: server, local: None };
    let start = Instant::now();
    // Nothing begins at the beginning of time.
    let now = || Time::from_micros(1_000_000 + start.elapsed().as_micros() as u64);
    let mut buffer = [0; 2048];
    for number in 0..count {
        let keys = ClientKeys::Psk(Psk::new(KEY)?);
        let plane = Arc::new(DataPlane::default());
        let entropy = Box::new(Rng::new(number));
        let mut client = Client::new(ClientConfig::new(keys), plane, entropy);
        let path = PathSettings::default();
        let id = client.add_path(now(), path).ok_or("a client has room for a path")?;
        client.path_opened(now(), id, route, 1_472);
        while client.session().is_none() {
            client.handle_timeout(now());
            while let Some(transmit) = client.poll_transmit() {
                socket.send(&transmit.bytes)?;
            }
            let len = socket.recv(&mut buffer)?;
            // Answers to the clients before this one come as well, and are not for it.
            if let Ok(kind) = Kind::of(&buffer[..len]) {
                client.handle_stranger(now(), &route, kind, &buffer[..len]);
            }
        }
        // The first packet under the new keys makes the session the client's.
        client.handle_timeout(now());
        while let Some(transmit) = client.poll_transmit() {
            socket.send(&transmit.bytes)?;
        }
    }
    Ok(())
}
