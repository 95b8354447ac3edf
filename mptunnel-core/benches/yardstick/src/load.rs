// SPDX-License-Identifier: BSD-2-Clause
//! Numbered, stamped datagrams at a steady rate into a tunnel, and what comes out of it.

use crate::batch::{self, Arrivals, Departures};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// How datagrams leave the source. Either way the sink takes them joined.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// Many to a send: the tunnel, not the source, is what is measured.
    Joined,
    /// Each by itself, as most applications do.
    Single,
}

/// What one probe sends.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Bytes of a datagram; at least [`LEAST`].
    pub size: usize,
    /// Datagrams per second.
    pub rate: f64,
    /// How long.
    pub duration: Duration,
    pub source: Source,
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Datagrams that left the source, and in which time.
    pub sent: u64,
    pub took: Duration,
    /// Of these, how many arrived; how many came twice, or altered.
    pub arrived: u64,
    pub twice: u64,
    pub damaged: u64,
    /// From send to receipt, sorted.
    pub delays: Vec<Duration>,
}

impl Outcome {
    /// The share that arrived.
    pub fn share(&self) -> f64 {
        self.arrived as f64 / self.sent.max(1) as f64
    }

    /// Datagrams per second that the source managed to send.
    pub fn offered(&self) -> f64 {
        self.sent as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// Datagrams per second that arrived.
    pub fn rate(&self) -> f64 {
        self.offered() * self.share()
    }

    /// The delay that the share `part` of those that arrived stayed below.
    pub fn delay(&self, part: f64) -> Duration {
        let place = (self.delays.len() as f64 * part) as usize;
        self.delays.get(place).or(self.delays.last()).copied().unwrap_or_default()
    }
}

/// Bytes of the smallest datagram: probe, number, stamp, check.
pub const LEAST: usize = 24;
/// Datagrams sent in one go.
const BURST: usize = 64;
const SINGLE_BURST: usize = 16;
/// A source that could not keep up catches up with this much time at most.
const MOST_CREDIT: Duration = Duration::from_millis(5);
/// A source waits at least until this much time is worth a send, unless a quarter of a burst is
/// due before.
const GATHER: Duration = Duration::from_micros(100);
/// So long after the last datagram no more are on the way.
const QUIET: Duration = Duration::from_millis(40);
/// Delays kept: those of slow probes, of which the delays count.
const MOST_DELAYS: usize = 100_000;

/// The end that receives, with the memory of which datagrams came.
pub struct Sink {
    socket: UdpSocket,
    arrivals: Arrivals,
    seen: Vec<u64>,
    /// Which probe is meant: late datagrams of another one do not count.
    probe: u32,
    epoch: Instant,
}

impl Sink {
    /// Listens at `at`.
    pub fn open(at: SocketAddr) -> io::Result<Sink> {
        precise_timers();
        Ok(Sink {
            socket: batch::open(at)?,
            arrivals: Arrivals::default(),
            seen: Vec::new(),
            probe: 0,
            epoch: Instant::now(),
        })
    }

    /// Sends to `to` for the time of `probe` and counts what arrives here.
    pub fn probe(&mut self, to: SocketAddr, probe: Probe) -> io::Result<Outcome> {
        assert!(probe.size >= LEAST, "a datagram has room for its stamp");
        self.probe += 1;
        let (number, epoch) = (self.probe, self.epoch);
        let (over, last_heard) = (AtomicBool::new(false), AtomicU64::new(0));
        let ready = AtomicU32::new(0);
        thread::scope(|scope| {
            let receiver = scope.spawn(|| self.receive(&over, &ready, &last_heard));
            while ready.load(Relaxed) == 0 {
                thread::yield_now();
            }
            let sent = send(to, probe, number, epoch);
            let stopped = Instant::now();
            loop {
                thread::sleep(Duration::from_millis(2));
                let heard = epoch + Duration::from_nanos(last_heard.load(Relaxed));
                if heard.max(stopped).elapsed() > QUIET {
                    break;
                }
            }
            over.store(true, Relaxed);
            let mut outcome = receiver.join().expect("the sink does not panic");
            (outcome.sent, outcome.took) = sent?;
            outcome.delays.sort_unstable();
            Ok(outcome)
        })
    }

    fn receive(&mut self, over: &AtomicBool, ready: &AtomicU32, heard: &AtomicU64) -> Outcome {
        let mut outcome = Outcome::default();
        self.seen.fill(0);
        ready.store(1, Relaxed);
        while !over.load(Relaxed) {
            let taken = self.arrivals.take(&self.socket, true);
            let now = self.epoch.elapsed();
            for index in 0..taken {
                for datagram in self.arrivals.datagrams(index) {
                    let Some(stamp) = Stamp::read(datagram) else {
                        outcome.damaged += 1;
                        continue;
                    };
                    if stamp.probe != self.probe {
                        continue;
                    }
                    let (word, bit) = (stamp.number as usize / 64, 1 << (stamp.number % 64));
                    if word >= self.seen.len() {
                        self.seen.resize((word + 1).next_power_of_two(), 0);
                    }
                    if self.seen[word] & bit != 0 {
                        outcome.twice += 1;
                        continue;
                    }
                    self.seen[word] |= bit;
                    outcome.arrived += 1;
                    if outcome.delays.len() < MOST_DELAYS {
                        outcome.delays.push(now.saturating_sub(Duration::from_nanos(stamp.sent)));
                    }
                }
            }
            if taken > 0 {
                heard.store(now.as_nanos() as u64, Relaxed);
            }
        }
        outcome
    }
}

/// Timers of this thread and of those that it starts fire when they are due, not 50 µs later.
fn precise_timers() {
    // SAFETY: prctl(2) with this operation takes one number and no pointer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

fn send(to: SocketAddr, probe: Probe, number: u32, epoch: Instant) -> io::Result<(u64, Duration)> {
    let socket = [UdpSocket::bind(SocketAddr::new(to.ip(), 0))?];
    socket[0].connect(to)?;
    let (mut out, burst) = match probe.source {
        Source::Joined => (Departures::joined(), BURST.min(65_000 / probe.size)),
        Source::Single => (Departures::new(1), SINGLE_BURST),
    };
    let credit = (probe.rate * MOST_CREDIT.as_secs_f64()).max(4.0 * burst as f64);
    let gather = (burst as f64 / 4.0).min(probe.rate * GATHER.as_secs_f64()).max(1.0);
    let start = Instant::now();
    let (mut sent, mut skipped, mut refused) = (0u32, 0.0, 0);
    let mut last = start;
    while start.elapsed() < probe.duration {
        let due = start.elapsed().as_secs_f64() * probe.rate + 1.0 - f64::from(sent) - skipped;
        skipped += (due - credit).max(0.0);
        if due < gather {
            thread::sleep(Duration::from_secs_f64((gather - due) / probe.rate));
            continue;
        }
        let stamp_at = epoch.elapsed().as_nanos() as u64;
        for _ in 0..(due as usize).min(burst) {
            Stamp { probe: number, number: sent, sent: stamp_at }.write(out.add(probe.size));
            sent += 1;
        }
        refused += out.send(&socket, &[]);
        last = Instant::now();
    }
    if refused > 0 {
        return Err(io::Error::other(format!("the source: {refused} sends refused")));
    }
    Ok((u64::from(sent), last - start))
}

/// What a datagram says of itself.
struct Stamp {
    probe: u32,
    number: u32,
    /// Nanoseconds since the sink's epoch.
    sent: u64,
}

impl Stamp {
    fn check(&self, len: usize) -> u64 {
        let mixed = self.sent ^ u64::from(self.number) << 32 ^ u64::from(self.probe) ^ len as u64;
        mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn write(&self, datagram: &mut [u8]) {
        let len = datagram.len();
        datagram[..4].copy_from_slice(&self.probe.to_le_bytes());
        datagram[4..8].copy_from_slice(&self.number.to_le_bytes());
        datagram[8..16].copy_from_slice(&self.sent.to_le_bytes());
        datagram[len - 8..].copy_from_slice(&self.check(len).to_le_bytes());
    }

    fn read(datagram: &[u8]) -> Option<Stamp> {
        if datagram.len() < LEAST {
            return None;
        }
        let stamp = Stamp {
            probe: u32::from_le_bytes(*datagram.first_chunk()?),
            number: u32::from_le_bytes(*datagram[4..].first_chunk()?),
            sent: u64::from_le_bytes(*datagram[8..].first_chunk()?),
        };
        let check = u64::from_le_bytes(*datagram.last_chunk()?);
        (check == stamp.check(datagram.len())).then_some(stamp)
    }
}

/// The highest rate at which less than 1 % is lost.
#[derive(Clone, Copy, Debug)]
pub struct Highest {
    /// Delivered datagrams per second; 0 if there was no such rate.
    pub rate: f64,
    /// The search ended because the source could send no more.
    pub source_limited: bool,
}

/// Probes in a search at most.
const MOST_PROBES: usize = 14;
/// A search ends when the answer lies within this factor.
const CLOSE: f64 = 1.05;

/// Searches for it, with `hint` datagrams per second first. `probe` makes one attempt.
pub fn highest(
    hint: f64,
    mut probe: impl FnMut(f64) -> io::Result<Outcome>,
) -> io::Result<Highest> {
    let (mut low, mut high, mut rate) = (0.0f64, f64::INFINITY, hint);
    let (mut best, mut source_limited) = (0.0f64, false);
    let mut step = 1.5;
    for _ in 0..MOST_PROBES {
        let outcome = probe(rate)?;
        if outcome.twice + outcome.damaged > 0 {
            let Outcome { twice, damaged, .. } = outcome;
            return Err(io::Error::other(format!("{twice} datagrams twice, {damaged} damaged")));
        }
        if outcome.share() >= 0.99 {
            best = best.max(outcome.rate());
            low = rate;
            if outcome.offered() < 0.93 * rate {
                source_limited = true;
                break;
            }
        } else {
            high = rate;
        }
        if high / low.max(1.0) < CLOSE {
            break;
        }
        rate = match (low > 0.0, high.is_finite()) {
            (true, true) => (low * high).sqrt(),
            (true, false) => low * step,
            (false, _) => high / step,
        };
        step = if low > 0.0 && high.is_infinite() { step * step } else { 2.0 };
    }
    Ok(Highest { rate: best, source_limited })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tunnel that carries `limit` datagrams per second.
    fn carrying(limit: f64, offered: f64, rate: f64) -> Outcome {
        let offered = rate.min(offered);
        Outcome {
            sent: offered as u64,
            took: Duration::from_secs(1),
            arrived: offered.min(limit) as u64,
            ..Outcome::default()
        }
    }

    #[test]
    fn the_search_finds_the_limit_from_above_and_from_below() {
        for hint in [1_000.0, 80_000.0, 3_000_000.0] {
            let found = highest(hint, |rate| Ok(carrying(100_000.0, 1e9, rate))).unwrap();
            assert!((94_000.0..=101_100.0).contains(&found.rate), "{hint}: {found:?}");
            assert!(!found.source_limited);
        }
        let found = highest(1_000.0, |rate| Ok(carrying(1e6, 2e5, rate))).unwrap();
        assert!(found.source_limited && found.rate > 1.9e5, "{found:?}");
    }

    #[test]
    fn a_copy_or_a_damaged_datagram_is_no_result() {
        let twice = Outcome { twice: 1, ..carrying(9e9, 9e9, 10.0) };
        assert!(highest(10.0, |_| Ok(twice.clone())).is_err());
    }

    #[test]
    fn a_probe_counts_what_arrives() {
        let at = "127.0.0.1:0".parse().unwrap();
        let mut sink = Sink::open(at).unwrap();
        let to = sink.socket.local_addr().unwrap();
        for source in [Source::Joined, Source::Single] {
            let probe =
                Probe { size: LEAST, rate: 5e3, duration: Duration::from_millis(50), source };
            let outcome = sink.probe(to, probe).unwrap();
            assert!((150..=256).contains(&outcome.sent), "{outcome:?}");
            assert_eq!((outcome.arrived, outcome.twice, outcome.damaged), (outcome.sent, 0, 0));
            assert!(outcome.delay(0.5) < Duration::from_millis(50));
        }
    }
}
