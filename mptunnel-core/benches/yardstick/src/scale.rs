// SPDX-License-Identifier: BSD-2-Clause
//! What more paths, more sessions and more clients cost: nothing on the way of a datagram may grow
//! with their number.

use crate::Plan;
use crate::crowd::{Crowd, WELCOMING};
use crate::drive::{self, BATCH, Load};
use crate::library::{Delivery, KEY, Pair};
use crate::table::{Row, Unit};
use mptunnel_bench::seal::Cipher;
use mptunnel_core::Tunnel;
use std::error::Error;
use std::time::Duration;

const GROUP: &str = "Scale: the library, handler, 1400 B, ChaCha20-Poly1305";
const SIZE: usize = 1400;
const MANY_PATHS: usize = 16;
const FEW_PATHS: usize = 3;
const IDLE: u64 = 4_096;
const BUSY: usize = 64;

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
    // Nobody answers for them any more.
    drop(Crowd::open(crowded.address(), IDLE, false)?);
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
