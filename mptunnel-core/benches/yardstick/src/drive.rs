// SPDX-License-Identifier: BSD-2-Clause
//! Both ends in one process: how a sender is driven so that nothing is lost.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Datagrams given to the sender at once.
pub const BATCH: usize = 64;
/// Datagrams on the way at most. It stands for the back-pressure of an application: enough to keep
/// both ends busy, and few enough for every socket buffer.
const OUTSTANDING: u64 = 1024;
/// After this a datagram that was sent will not come any more.
const GIVE_UP: Duration = Duration::from_millis(20);

/// How one measurement is made.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes of a datagram.
    pub size: usize,
    /// Paths, each of which carries every datagram.
    pub paths: usize,
    /// How long.
    pub duration: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Delivered datagrams per second.
    pub rate: f64,
    /// The share of what was sent that never arrived.
    pub lost: f64,
}

/// Calls `send` for batch after batch and waits whenever too many datagrams have not yet been
/// counted in `delivered`.
pub fn flood(duration: Duration, delivered: &AtomicU64, mut send: impl FnMut()) -> Flood {
    let before = delivered.load(Relaxed);
    let (mut sent, mut lost) = (0, 0);
    let arrived = |lost: u64| delivered.load(Relaxed) - before + lost;
    let start = Instant::now();
    while start.elapsed() < duration {
        send();
        sent += BATCH as u64;
        if sent - arrived(lost).min(sent) <= OUTSTANDING {
            continue;
        }
        let since = Instant::now();
        while sent - arrived(lost).min(sent) > OUTSTANDING / 2 {
            // The receiver may need this core.
            // Not `yield_now`: the scheduler then likes to keep sender and receiver on one core.
            std::hint::spin_loop();
            if since.elapsed() > GIVE_UP {
                lost = sent - arrived(0);
            }
        }
    }
    let took = start.elapsed().as_secs_f64();
    let count = delivered.load(Relaxed) - before;
    let deadline = Instant::now() + GIVE_UP;
    while arrived(0) < sent && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let missing = sent - arrived(0).min(sent);
    Flood { rate: count as f64 / took, lost: missing as f64 / sent.max(1) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_told_and_ends_no_measurement() {
        let (delivered, mut turn) = (AtomicU64::new(7), 0);
        let flood = flood(Duration::from_millis(60), &delivered, || {
            turn += 1;
            if turn % 4 != 0 {
                delivered.fetch_add(BATCH as u64, Relaxed);
            }
        });
        assert!((flood.lost - 0.25).abs() < 0.02, "{flood:?}");
        assert!(flood.rate > 0.0);
    }
}
