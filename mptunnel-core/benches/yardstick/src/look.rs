// SPDX-License-Identifier: BSD-2-Clause
//! What it costs to look at a server with thousands of clients ten times a second, and how long
//! that keeps others from its control side.
//!
//! All clients are there with all their paths, and both ends probe each path at the default
//! `idle-interval`. [`BUSY`] of them get datagrams besides, and probes so much more often. A turn
//! takes as long as that interval, so that each idle client is among those to whom something
//! happened in the looks of every turn.

use crate::Plan;
use crate::crowd::{Crowd, PATHS, WELCOMING};
use crate::library::KEY;
use crate::table::{Row, Unit};
use mptunnel_core::{PeerId, Server};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const SESSIONS: u64 = 4_096;
/// Of these, with traffic.
const BUSY: usize = 32;
/// Between two datagrams to each of those.
const PACE: Duration = Duration::from_millis(10);
/// The default of the option `idle-interval`.
const IDLE_INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks.
const EVERY: Duration = Duration::from_millis(100);
/// 1 % of a core at ten looks a second, in microseconds.
const ALLOWED: f64 = 1_000.0;
/// Between two attempts of another thread to reach the control side.
const KNOCK: Duration = Duration::from_micros(200);
/// Until all sessions are there, with all paths.
const READY: Duration = Duration::from_secs(20);

/// All figures.
pub fn rows(plan: &Plan, rows: &mut Vec<Row>) -> Result<(), Box<dyn Error>> {
    let mut server = Server::builder().key(&KEY).listen("127.0.0.1:0".parse()?);
    // Not the MTU of the loopback interface: finding it out takes packets of 64 KiB.
    for (key, value) in WELCOMING.iter().chain([&("mtu", "1500")]) {
        server = server.option(key, value);
    }
    let server = Arc::new(server.bind()?);
    let over = Arc::new(AtomicBool::new(false));
    let crowd = Crowd::open(server.local_addrs()[0], SESSIONS, true)?.keep(over.clone());
    let start = Instant::now();
    let up = || -> usize {
        server.peers().iter().flat_map(|peer| &peer.paths).filter(|path| path.up).count()
    };
    while up() < SESSIONS as usize * PATHS {
        if start.elapsed() > READY {
            return Err(format!("only {} paths are up", up()).into());
        }
        thread::sleep(EVERY);
    }
    let traffic = send_some(&server, over.clone());
    // The first probes of a path come quickly.
    thread::sleep(10 * EVERY);

    let group =
        "Looking at a server with 4,096 sessions over 2 paths, 32 of them busy, 10 times a second";
    let row = |name: &str, beside| Row::new(group, name.to_owned(), Unit::Microseconds, beside);
    let mut first = row("CPU of the first snapshot", "1 % of a core");
    let before = cpu_of_thread();
    drop(server.snapshot());
    first.turns.push(((cpu_of_thread() - before).as_secs_f64() * 1e6, ALLOWED));
    let mut share = row("clients that changed from one to the next", "all");
    share.unit = Unit::Number;
    share.turns.push((changed(&server), SESSIONS as f64));
    let mut cost = row("CPU of each further snapshot", "1 % of a core");
    let mut sum = row("CPU of the sums alone", "1 % of a core");
    let mut list = row("CPU of a list of all clients, as they are now", "1 % of a core");
    let mut stall = row("wait for the control side, 99.9 % within", "without looking");
    let mut stall_of_sums = row("the same while sums are made", "without looking");
    let mut stall_of_lists = row("the same while lists are made", "without looking");
    let mut longest = row("the longest wait while snapshots are made", "1 ms");
    for _ in 0..plan.turns {
        let time = plan.flood * 4;
        let (_, [quiet, _]) = watched(&server, time, || {});
        let (used, [busy, most]) = watched(&server, IDLE_INTERVAL, || drop(server.snapshot()));
        let (least, [summing, _]) = watched(&server, time, || drop(server.stats()));
        let (whole, [listing, _]) = watched(&server, time, || drop(server.peers()));
        cost.turns.push((used, ALLOWED));
        sum.turns.push((least, ALLOWED));
        list.turns.push((whole, ALLOWED));
        stall.turns.push((busy, quiet));
        stall_of_sums.turns.push((summing, quiet));
        stall_of_lists.turns.push((listing, quiet));
        longest.turns.push((most, 1_000.0));
    }
    rows.extend([share, first, cost, sum, list, stall, stall_of_sums, stall_of_lists, longest]);
    over.store(true, Relaxed);
    traffic.join().expect("it only sends");
    crowd.join().expect("the crowd does not panic")?;
    let peers = server.peer_count()? as u64;
    if peers < SESSIONS {
        return Err(format!("only {peers} of {SESSIONS} sessions lived through it").into());
    }
    Ok(())
}

/// Sends datagrams to some clients, on a thread, until `over`.
fn send_some(server: &Arc<Server>, over: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let all: Vec<PeerId> = server.peers().iter().map(|peer| peer.id).collect();
    // From all over, as memory is.
    let some: Vec<PeerId> = all.into_iter().step_by(SESSIONS as usize / BUSY).collect();
    let server = server.clone();
    thread::spawn(move || {
        while !over.load(Relaxed) {
            for peer in &some {
                // What is refused is lost, which is as good here.
                let _ = server.send_to(&[0xa5; 200], *peer);
            }
            thread::sleep(PACE);
        }
    })
}

/// How many clients something happened to between two looks, on the mean.
fn changed(server: &Server) -> f64 {
    let look = || -> Vec<(PeerId, u64)> {
        let count = |path: &mptunnel_core::PathInfo| path.sent + path.received;
        let peers = server.snapshot().peers;
        peers.iter().map(|peer| (peer.id, peer.paths.iter().map(count).sum())).collect()
    };
    let looks = IDLE_INTERVAL.as_millis() / EVERY.as_millis();
    let (mut last, mut changed) = (look(), 0);
    for _ in 0..looks {
        thread::sleep(EVERY);
        let now = look();
        changed += now.iter().zip(&last).filter(|(now, last)| now != last).count();
        last = now;
    }
    changed as f64 / looks as f64
}

/// Calls `look` ten times a second for `time`: its processor time, on the mean, and how long another
/// thread meanwhile waited for the control side, but for the longest waits, one in a thousand, and
/// at most: all in microseconds. The longest of all are of the scheduler: whoever holds the lock
/// loses the core.
fn watched(server: &Arc<Server>, time: Duration, look: impl Fn()) -> (f64, [f64; 2]) {
    let over = Arc::new(AtomicBool::new(false));
    let (knocks, stop) = (server.clone(), over.clone());
    let knocking = thread::spawn(move || {
        let mut waits = Vec::new();
        while !stop.load(Relaxed) {
            let start = Instant::now();
            let _ = knocks.peer_count();
            waits.push(start.elapsed());
            thread::sleep(KNOCK);
        }
        waits.sort_unstable();
        [waits[waits.len() - 1 - waits.len() / 1_000], waits[waits.len() - 1]]
    });
    let (start, mut used, mut looks) = (Instant::now(), Duration::ZERO, 0u32);
    while start.elapsed() < time {
        let before = cpu_of_thread();
        look();
        used += cpu_of_thread() - before;
        looks += 1;
        thread::sleep((EVERY * looks).saturating_sub(start.elapsed()));
    }
    over.store(true, Relaxed);
    let waits = knocking.join().expect("it only asks").map(|wait| wait.as_secs_f64() * 1e6);
    (used.as_secs_f64() * 1e6 / f64::from(looks), waits)
}

/// Processor time of this thread.
fn cpu_of_thread() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for the answer, and the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
