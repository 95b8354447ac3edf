// SPDX-License-Identifier: BSD-2-Clause
//! One direction of one link, emulated: sans-IO, seeded, in whatever time the caller counts.

mod config;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::ops::AddAssign;
use std::time::Duration;

pub use config::{Burst, Fades, LinkConfig};

use super::rng::Rng;
use super::schedule::Schedule;
use crate::proto::time::Time;

/// One direction of a link: packets go in, and come out late, twice, damaged, or not at all.
///
/// ```text
///          too large   buffer full          down, burst, loss
///              ▲            ▲                      ▲
///  send ──▶ [ mtu ] ──▶ [ buffer ▷ rate ] ──▶ [ the wire ] ──▶ duplicate ──▶ corrupt ──▶
///                                      ──▶ delay ± jitter ──▶ reorder ──▶ poll
/// ```
///
/// What is lost on the wire has used its share of the rate, as on a radio link.
///
/// - [`send`](Self::send) and [`set_config`](Self::set_config) are inputs.
/// - [`poll`](Self::poll) hands out what has arrived, until `None`.
/// - [`poll_timeout`](Self::poll_timeout) says when to poll again. It is never too late and may be
///   too early, since a packet that waits for the bottleneck may yet be lost.
///
/// `now` never decreases from one call to the next. The same seed and the same inputs at the same
/// times give the same packets at the same times, however often `poll` is called in between. Each
/// impairment draws from a stream of its own: adding jitter does not change which packets are lost.
#[derive(Clone, Debug)]
pub struct Link<P> {
    config: LinkConfig,
    dice: Dice,
    bad: bool,
    /// Packets before the bottleneck; the first one is passing it.
    queue: VecDeque<P>,
    queued_bytes: usize,
    /// When the first packet of `queue` has passed completely.
    first_leaves: Nanos,
    /// Packets on the way to the far end, by time of arrival.
    flights: Schedule<P>,
    flying_bytes: usize,
    /// The latest arrival of any packet that was not held back by `reorder`.
    last_arrival: Time,
    counters: Counters,
}

impl<P: AsRef<[u8]> + AsMut<[u8]> + Clone> Link<P> {
    /// An idle link. The seed determines all its decisions.
    pub fn new(config: LinkConfig, seed: u64) -> Self {
        Link {
            config,
            dice: Dice::new(&Rng::new(seed)),
            bad: false,
            queue: VecDeque::new(),
            queued_bytes: 0,
            first_leaves: 0,
            flights: Schedule::new(),
            flying_bytes: 0,
            last_arrival: Time::default(),
            counters: Counters::default(),
        }
    }

    /// How the link treats packets now.
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Treats packets as `config` says from `now` on.
    ///
    /// Packets past the bottleneck keep their time of arrival. Those before it pass it at the new
    /// rate, in their order, and meet the new conditions behind it.
    pub fn set_config(&mut self, now: Time, config: LinkConfig) {
        self.advance(now);
        if let Some(old) = self.config.rate
            && !self.queue.is_empty()
        {
            let rest = self.first_leaves.saturating_sub(nanos(now));
            let rest = config.rate.map_or(0, |new| rescaled(rest, old, new));
            self.first_leaves = nanos(now).saturating_add(rest);
        }
        self.config = config;
        self.advance(now);
    }

    /// Puts a packet into the link.
    pub fn send(&mut self, now: Time, packet: P) {
        self.advance(now);
        self.counters.sent += 1;
        let len = packet.as_ref().len();
        if self.config.mtu.is_some_and(|mtu| len > mtu) {
            self.counters.too_large += 1;
        } else if self.config.rate.is_none() {
            self.take_off(nanos(now), packet);
        } else if self.queue.is_empty() {
            self.first_leaves = nanos(now).saturating_add(self.passing_time(len));
            self.enqueue(packet);
            self.advance(now);
        } else if self.queued_bytes.saturating_add(len) > self.config.buffer {
            self.counters.overflowed += 1;
        } else {
            self.enqueue(packet);
        }
    }

    /// The next packet that has arrived, in the order of arrival.
    pub fn poll(&mut self, now: Time) -> Option<P> {
        self.advance(now);
        let packet = self.flights.pop(now)?;
        self.flying_bytes -= packet.as_ref().len();
        self.counters.delivered += 1;
        Some(packet)
    }

    /// When to call [`poll`](Self::poll) next, or `None` if the link is empty.
    pub fn poll_timeout(&self) -> Option<Time> {
        let shortest = as_nanos(self.config.delay.saturating_sub(self.config.jitter));
        let from_queue = (!self.queue.is_empty())
            .then(|| rounded_up(self.first_leaves.saturating_add(shortest)));
        [self.flights.next(), from_queue].into_iter().flatten().min()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Packets inside the link: before the bottleneck, or on the way.
    pub fn held_packets(&self) -> usize {
        self.queue.len() + self.flights.len()
    }

    /// Bytes of the packets inside the link.
    pub fn held_bytes(&self) -> usize {
        self.queued_bytes + self.flying_bytes
    }

    fn enqueue(&mut self, packet: P) {
        self.queued_bytes += packet.as_ref().len();
        self.queue.push_back(packet);
    }

    /// Lets pass the bottleneck what has passed it by `now`.
    fn advance(&mut self, now: Time) {
        while self.first_leaves <= nanos(now)
            && let Some(packet) = self.queue.pop_front()
        {
            let left = self.first_leaves;
            self.queued_bytes -= packet.as_ref().len();
            if let Some(next) = self.queue.front() {
                self.first_leaves = left.saturating_add(self.passing_time(next.as_ref().len()));
            }
            self.take_off(left, packet);
        }
    }

    /// How long `len` bytes take through the bottleneck.
    fn passing_time(&self, len: usize) -> Nanos {
        self.config.rate.map_or(0, |rate| {
            let ns = (len as u128 * NANOS_PER_S).div_ceil(u128::from(rate.get()));
            u64::try_from(ns).unwrap_or(u64::MAX)
        })
    }

    /// Decides what becomes of a packet that has passed the bottleneck.
    fn take_off(&mut self, left: Nanos, packet: P) {
        // Every packet moves every die, whatever becomes of it, so that two runs which differ in
        // one probability stay comparable packet by packet.
        let burst_loss = self.step_burst();
        let loss = self.dice.loss.chance(self.config.loss);
        let duplicate = self.dice.duplicate.chance(self.config.duplicate);

        if self.config.down {
            self.counters.lost_down += 1;
        } else if burst_loss {
            self.counters.lost_burst += 1;
        } else if loss || self.fades_at(left) {
            self.counters.lost_random += 1;
        } else {
            let copies = if duplicate { self.config.copies } else { 0 };
            for _ in 0..copies {
                self.counters.duplicated += 1;
                self.fly(left, packet.clone());
            }
            self.fly(left, packet);
        }
    }

    /// Whether everything is lost at this time.
    fn fades_at(&self, at: Nanos) -> bool {
        self.config.fades.is_some_and(|fades| {
            let step = at / as_nanos(fades.length).max(1_000);
            Rng::new(fades.seed.wrapping_add(step)).f64() < fades.share
        })
    }

    /// Moves the state of the bursts, and says whether this packet is lost to them.
    fn step_burst(&mut self) -> bool {
        let change = self.dice.burst_state.f64();
        let loss = self.dice.burst_loss.f64();
        let Some(burst) = self.config.burst else {
            self.bad = false;
            return false;
        };
        if change < if self.bad { burst.to_good } else { burst.to_bad } {
            self.bad = !self.bad;
        }
        loss < if self.bad { burst.loss_bad } else { burst.loss_good }
    }

    /// Sends one copy on its way.
    fn fly(&mut self, left: Nanos, mut packet: P) {
        let len = packet.as_ref().len();
        let corrupt = self.dice.corrupt.chance(self.config.corrupt);
        let reorder = self.dice.reorder.chance(self.config.reorder);
        let scattered = self.dice.jitter.f64() * 2.0 - 1.0;

        if corrupt && len > 0 {
            self.counters.corrupted += 1;
            let bit = self.dice.bit.range(0..len as u64 * 8);
            packet.as_mut()[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        let shift = if self.config.in_order { self.wandering(left) } else { scattered };
        let shift = (shift * as_nanos(self.config.jitter) as f64) as i64;
        let delay = as_nanos(self.config.delay).saturating_add_signed(shift);
        let mut arrival = rounded_up(left.saturating_add(delay));
        if self.config.in_order {
            arrival = arrival.max(self.last_arrival);
        }
        if reorder {
            self.counters.reordered += 1;
            arrival = arrival + self.config.reorder_delay;
        } else {
            self.last_arrival = arrival.max(self.last_arrival);
        }
        self.flying_bytes += len;
        self.flights.insert(arrival, packet);
    }

    /// Jitter that keeps the order, as a share of its bound: the delay moves in a straight line
    /// from one random level to the next.
    ///
    /// Were each packet's delay drawn by itself and the order then restored, dense traffic would
    /// always wait for the slowest packet in sight: a constant delay, and no jitter. A full swing
    /// takes twice as long as it moves arrivals, so none overtakes.
    fn wandering(&self, at: Nanos) -> f64 {
        let pace = as_nanos(self.config.jitter).saturating_mul(4).max(1);
        let level = |step: u64| Rng::new(self.dice.wander.wrapping_add(step)).f64() * 2.0 - 1.0;
        let step = at / pace;
        let way = (at % pace) as f64 / pace as f64;
        level(step) * (1.0 - way) + level(step.wrapping_add(1)) * way
    }
}

/// What a link did to packets, each counted once per cause.
///
/// `sent + duplicated` always equals `delivered`, what is still inside, and all that was lost.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Packets put in.
    pub sent: u64,
    /// Packets, extra copies included, that came out.
    pub delivered: u64,
    /// Lost by `loss` or `fades`.
    pub lost_random: u64,
    /// Lost by `burst`.
    pub lost_burst: u64,
    /// Lost because the link was down.
    pub lost_down: u64,
    /// Dropped because the buffer before the bottleneck was full.
    pub overflowed: u64,
    /// Dropped because larger than the MTU.
    pub too_large: u64,
    /// Extra copies made.
    pub duplicated: u64,
    /// Copies in which a bit was flipped.
    pub corrupted: u64,
    /// Copies held back to be overtaken.
    pub reordered: u64,
}

impl Counters {
    /// Packets that did not come out, for whatever reason.
    pub fn lost(&self) -> u64 {
        self.lost_random + self.lost_burst + self.lost_down + self.overflowed + self.too_large
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Counters) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.lost_random += other.lost_random;
        self.lost_burst += other.lost_burst;
        self.lost_down += other.lost_down;
        self.overflowed += other.overflowed;
        self.too_large += other.too_large;
        self.duplicated += other.duplicated;
        self.corrupted += other.corrupted;
        self.reordered += other.reordered;
    }
}

/// One stream of random numbers for each decision.
#[derive(Clone, Debug)]
struct Dice {
    loss: Rng,
    burst_state: Rng,
    burst_loss: Rng,
    duplicate: Rng,
    corrupt: Rng,
    bit: Rng,
    jitter: Rng,
    /// Seeds the levels of [`Link::wandering`], which depend on the time and not on the packets.
    wander: u64,
    reorder: Rng,
}

impl Dice {
    fn new(root: &Rng) -> Self {
        Dice {
            loss: root.fork("loss"),
            burst_state: root.fork("burst state"),
            burst_loss: root.fork("burst loss"),
            duplicate: root.fork("duplicate"),
            corrupt: root.fork("corrupt"),
            bit: root.fork("bit"),
            jitter: root.fork("jitter"),
            wander: root.fork("wander").u64(),
            reorder: root.fork("reorder"),
        }
    }
}

/// Nanoseconds since the origin of [`Time`], or between two such points.
///
/// A microsecond is too coarse for the bottleneck: at 1 Gbit/s a packet of 64 bytes takes half of
/// one, and rounding each up would halve the rate.
type Nanos = u64;

const NANOS_PER_S: u128 = 1_000_000_000;

fn nanos(time: Time) -> Nanos {
    time.as_micros().saturating_mul(1000)
}

fn as_nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn rounded_up(at: Nanos) -> Time {
    Time::from_micros(at.div_ceil(1000))
}

/// The time that what takes `time` at the rate `old` takes at the rate `new`.
fn rescaled(time: Nanos, old: NonZeroU64, new: NonZeroU64) -> Nanos {
    let scaled = u128::from(time) * u128::from(old.get()) / u128::from(new.get());
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
