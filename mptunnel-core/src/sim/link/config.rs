// SPDX-License-Identifier: BSD-2-Clause
//! What a link does to packets, and a few links that are typical.

use std::num::NonZeroU64;
use std::time::Duration;

/// How one direction of a link treats packets. The default is a perfect link.
///
/// Probabilities lie in [0, 1]. Sizes and rates count the bytes of the payload alone, without
/// UDP and IP headers.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkConfig {
    /// Probability that a packet is lost, independently of all others.
    pub loss: f64,
    /// Loss that comes in bursts, in addition to `loss`.
    pub burst: Option<Burst>,
    /// Loss at certain times, in addition to both: links with the same fades lose together.
    pub fades: Option<Fades>,
    /// Time on the way. Any duration; default 0.
    pub delay: Duration,
    /// Moves each packet's delay by a uniformly random amount in [-`jitter`, +`jitter`]; no delay
    /// becomes less than zero, so a jitter above `delay` makes the mean delay longer.
    pub jitter: Duration,
    /// Jitter lets no packet overtake another: the delay wanders within the same bounds, to a new
    /// random level in every four times `jitter`. `reorder` still lets packets overtake.
    pub in_order: bool,
    /// Probability that a packet is held back by `reorder_delay`, so that later ones overtake it.
    pub reorder: f64,
    /// How much longer a packet chosen by `reorder` takes; default 10 ms.
    pub reorder_delay: Duration,
    /// Probability that a packet arrives more than once.
    pub duplicate: f64,
    /// Extra copies of a packet chosen by `duplicate`; default 1. Each takes its own time and is
    /// corrupted, or not, by itself.
    pub copies: u32,
    /// Probability that one random bit of a copy is flipped. An empty packet has none to flip.
    pub corrupt: f64,
    /// Bytes per second that pass the bottleneck; `None` is unlimited. A packet is delayed by
    /// those before it and by the time that its own bytes take.
    pub rate: Option<NonZeroU64>,
    /// Bytes that may wait for the bottleneck, the packet now passing it included; what exceeds it
    /// is dropped at the tail. An idle bottleneck takes any packet. Default 64 KiB; without effect
    /// where `rate` is unlimited.
    pub buffer: usize,
    /// The largest packet in bytes that passes; `None` is unlimited.
    pub mtu: Option<usize>,
    /// The link loses everything (a blackout). What is already past the bottleneck still arrives.
    pub down: bool,
}

/// Loss in bursts after Gilbert and Elliott: the link is good or bad, and changes by chance.
///
/// ```text
///             to_bad
///    ┌──────┐ ─────────▶ ┌─────┐
///    │ good │            │ bad │     each packet first moves the state, then is lost with
///    └──────┘ ◀───────── └─────┘     loss_good or loss_bad
///             to_good
/// ```
///
/// A bad spell lasts 1 / `to_good` packets on average, and the link is bad for
/// `to_bad` / (`to_bad` + `to_good`) of all packets. It starts good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// Probability per packet of going from good to bad.
    pub to_bad: f64,
    /// Probability per packet of going from bad to good.
    pub to_good: f64,
    /// Probability of losing a packet while good; 0 in the simple model of Gilbert.
    pub loss_good: f64,
    /// Probability of losing a packet while bad; 1 makes each bad spell a gap.
    pub loss_bad: f64,
}

impl Burst {
    /// Gaps of `1 / to_good` packets on average in which everything is lost.
    pub fn gaps(to_bad: f64, to_good: f64) -> Self {
        Burst { to_bad, to_good, loss_good: 0.0, loss_bad: 1.0 }
    }

    /// The share of packets lost in the long run.
    pub fn mean_loss(&self) -> f64 {
        let changes = self.to_bad + self.to_good;
        let bad = if changes > 0.0 { self.to_bad / changes } else { 0.0 };
        bad * self.loss_bad + (1.0 - bad) * self.loss_good
    }
}

/// Short times in which a link loses everything, whatever passes it. They depend on the seed and on
/// the time alone, so that two links may share them, as two modems in one tunnel do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fades {
    /// Which times.
    pub seed: u64,
    /// How long each lasts, at least 1 µs.
    pub length: Duration,
    /// The share of the time, 0 to 1.
    pub share: f64,
}

impl Default for LinkConfig {
    fn default() -> Self {
        LinkConfig {
            loss: 0.0,
            burst: None,
            fades: None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            in_order: false,
            reorder: 0.0,
            reorder_delay: Duration::from_millis(10),
            duplicate: 0.0,
            copies: 1,
            corrupt: 0.0,
            rate: None,
            buffer: 64 * 1024,
            mtu: None,
            down: false,
        }
    }
}

/// Typical links, one direction each. The figures are chosen to be plausible and round, not
/// measured; every test that depends on one should say so.
impl LinkConfig {
    /// A wired line: 10 ms ± 0.5 ms in order, 100 Mbit/s, 256 KiB (21 ms) of buffer, no loss.
    pub fn clean() -> Self {
        LinkConfig {
            delay: Duration::from_millis(10),
            jitter: Duration::from_micros(500),
            in_order: true,
            rate: mbit_per_s(100),
            buffer: 256 * 1024,
            ..Self::default()
        }
    }

    /// A crowded wireless network: 5 ms ± 3 ms in order, 40 Mbit/s, 256 KiB (52 ms) of buffer;
    /// 0.5 % scattered loss, and bad spells of 5 packets on average, 1 in 21 packets, that lose
    /// 70 %: 3.8 % lost in all.
    pub fn lossy_wifi() -> Self {
        LinkConfig {
            loss: 0.005,
            burst: Some(Burst { to_bad: 0.01, to_good: 0.2, loss_good: 0.0, loss_bad: 0.7 }),
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(3),
            in_order: true,
            rate: mbit_per_s(40),
            buffer: 256 * 1024,
            ..Self::default()
        }
    }

    /// A mobile phone network: 40 ms ± 15 ms in order, 10 Mbit/s, 512 KiB (0.4 s: cells buffer a
    /// lot) of buffer; bad spells of 10 packets on average, 1 in 51 packets, that lose half: 1 %
    /// lost in all.
    pub fn cellular() -> Self {
        LinkConfig {
            burst: Some(Burst { to_bad: 0.002, to_good: 0.1, loss_good: 0.0, loss_bad: 0.5 }),
            delay: Duration::from_millis(40),
            jitter: Duration::from_millis(15),
            in_order: true,
            rate: mbit_per_s(10),
            buffer: 512 * 1024,
            ..Self::default()
        }
    }

    /// A geostationary satellite: 270 ms (two times 35,786 km, and equipment) ± 5 ms in order,
    /// 25 Mbit/s, 1 MiB (0.3 s) of buffer; 0.1 % scattered loss, and gaps of 20 packets on
    /// average, 1 in 101 packets (rain, obstacles): 1.1 % lost in all.
    pub fn satellite() -> Self {
        LinkConfig {
            loss: 0.001,
            burst: Some(Burst::gaps(0.0005, 0.05)),
            delay: Duration::from_millis(270),
            jitter: Duration::from_millis(5),
            in_order: true,
            rate: mbit_per_s(25),
            buffer: 1024 * 1024,
            ..Self::default()
        }
    }

    /// The share of packets that chance loses in the long run: `loss` and `burst` together,
    /// without what a full buffer, the MTU or a blackout takes.
    pub fn mean_loss(&self) -> f64 {
        let burst = self.burst.map_or(0.0, |burst| burst.mean_loss());
        1.0 - (1.0 - self.loss) * (1.0 - burst)
    }
}

/// `mbit` Mbit/s in bytes per second.
fn mbit_per_s(mbit: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(mbit * 125_000)
}
