// SPDX-License-Identifier: BSD-2-Clause
//! What it costs to look at a server with thousands of clients ten times a second, and how long
//! that keeps others from its control side.

use crate::Plan;
use crate::crowd::{Crowd, PATHS, WELCOMING};
use crate::library::KEY;
use crate::table::{Row, Unit};
use mptunnel_core::Server;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const SESSIONS: u64 = 4_096;
/// Between two looks.
const EVERY: Duration = Duration::from_millis(100);
/// 1 % of a core at ten looks a second, in microseconds.
const ALLOWED: f64 = 1_000.0;
/// Between two attempts of another thread to reach the control side.
const KNOCK: Duration = Duration::from_micros(200);
/// Until all sessions are there, with all paths.
const READY: Duration = Duration::from_secs(20);

/// Both figures.
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
    // The first probes of a path come quickly.
    thread::sleep(10 * EVERY);

    let group = "Looking at a server with 4,096 sessions over 2 paths, 10 times a second";
    let row = |name: &str, beside| Row::new(group, name.to_owned(), Unit::Microseconds, beside);
    let mut first = row("CPU of the first snapshot", "1 % of a core");
    let before = cpu_of_thread();
    drop(server.snapshot());
    first.turns.push(((cpu_of_thread() - before).as_secs_f64() * 1e6, ALLOWED));
    let mut cost = row("CPU of each further snapshot", "1 % of a core");
    let mut sum = row("CPU of the sums alone", "1 % of a core");
    let mut stall_of_sums = row("the same while sums are made", "without looking");
    let mut stall = row("wait for the control side, 99.9 % within", "without looking");
    for _ in 0..plan.turns {
        let time = plan.flood * 8;
        let (_, quiet) = watched(&server, time, || {});
        let (used, busy) = watched(&server, time, || drop(server.snapshot()));
        let (least, summing) = watched(&server, time, || drop(server.stats()));
        cost.turns.push((used, ALLOWED));
        sum.turns.push((least, ALLOWED));
        stall.turns.push((busy, quiet));
        stall_of_sums.turns.push((summing, quiet));
    }
    rows.extend([first, cost, sum, stall, stall_of_sums]);
    over.store(true, Relaxed);
    crowd.join().expect("the crowd does not panic")?;
    let peers = server.peer_count()? as u64;
    if peers < SESSIONS {
        return Err(format!("only {peers} of {SESSIONS} sessions lived through it").into());
    }
    Ok(())
}

/// Calls `look` ten times a second for `time`: its processor time, on the mean, and how long another
/// thread meanwhile waited for the control side, but for the longest waits, one in a thousand: both
/// in microseconds. The longest of all are of the scheduler: whoever holds the lock loses the core.
fn watched(server: &Arc<Server>, time: Duration, look: impl Fn()) -> (f64, f64) {
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
        waits[waits.len() - 1 - waits.len() / 1_000]
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
    let wait = knocking.join().expect("it only asks");
    (used.as_secs_f64() * 1e6 / f64::from(looks), wait.as_secs_f64() * 1e6)
}

/// Processor time of this thread.
fn cpu_of_thread() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for the answer, and the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
