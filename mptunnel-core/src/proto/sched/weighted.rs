// SPDX-License-Identifier: BSD-2-Clause
//! One path after the other, each as often as its weight says: stride scheduling (C. A. Waldspurger,
//! W. E. Weihl: "Stride scheduling: deterministic proportional-share resource management", 1995).
//!
//! With equal weights and equal states this gives the sequence of MPT (spyff/mpt), which computes a
//! list of it at the start; here it is computed as we go, so that weights change while traffic flows.

use parking_lot::Mutex;

/// A bound for the common multiple, above which strides are rounded: an error of 2^-24.
const MAX_SCALE: u64 = 1 << 40;
/// Above this counters are moved down, so that they never saturate.
const RENORMALIZE: u64 = 1 << 62;

/// The counters of all paths that ever had a share.
#[derive(Clone, Debug, Default)]
pub struct Stride {
    lanes: Vec<Lane>,
    /// A common multiple of all weights.
    scale: u64,
}

#[derive(Clone, Debug)]
struct Lane {
    slot: u8,
    weight: u32,
    stride: u64,
    counter: u64,
    open: bool,
}

impl Stride {
    /// From now on the paths in `shares` (slot and weight, 1 or more) take their turns. The counters
    /// of the others are frozen; who comes back goes on at the smallest one, without a burst.
    pub fn set(&mut self, shares: &[(u8, u32)]) {
        for (slot, weight) in shares {
            let weight = (*weight).max(1);
            match self.lanes.iter_mut().find(|lane| lane.slot == *slot) {
                Some(lane) => lane.weight = weight,
                None => self.lanes.push(Lane {
                    slot: *slot,
                    weight,
                    stride: 0,
                    counter: 0,
                    open: false,
                }),
            }
        }
        self.lanes.sort_unstable_by_key(|lane| lane.slot);
        let (old, scale) = (self.scale, self.common_multiple());
        self.scale = scale;
        for lane in &mut self.lanes {
            if old != scale && old > 0 {
                let product = u128::from(lane.counter).saturating_mul(scale.into());
                let counter = product.checked_div(old.into()).unwrap_or(0);
                lane.counter = u64::try_from(counter).unwrap_or(u64::MAX);
            }
            lane.stride = scale.checked_div(lane.weight.into()).unwrap_or(scale).max(1);
        }
        let least = self.least().unwrap_or(0);
        for lane in &mut self.lanes {
            let open = shares.iter().any(|(slot, _)| *slot == lane.slot);
            if open && !lane.open {
                lane.counter = lane.counter.max(least);
            }
            lane.open = open;
        }
    }

    /// The path whose turn it is.
    pub fn turn(&mut self) -> Option<u8> {
        let open = self.lanes.iter_mut().filter(|lane| lane.open);
        // The first one of those that are equal: the lowest slot.
        let lane = open.min_by_key(|lane| lane.counter.saturating_add(lane.stride))?;
        lane.counter = lane.counter.saturating_add(lane.stride);
        let (slot, counter) = (lane.slot, lane.counter);
        if counter > RENORMALIZE {
            let least = self.least().unwrap_or(0);
            for lane in &mut self.lanes {
                lane.counter = lane.counter.saturating_sub(least);
            }
        }
        Some(slot)
    }

    /// The last turn of a path was not used.
    pub fn undo(&mut self, slot: u8) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.slot == slot) {
            lane.counter = lane.counter.saturating_sub(lane.stride);
        }
    }

    fn least(&self) -> Option<u64> {
        self.lanes.iter().filter(|lane| lane.open).map(|lane| lane.counter).min()
    }

    fn common_multiple(&self) -> u64 {
        let multiple = self.lanes.iter().try_fold(1u64, |multiple, lane| {
            let weight = u64::from(lane.weight.max(1));
            let factor = weight.checked_div(gcd(multiple, weight))?;
            multiple.checked_mul(factor).filter(|m| *m <= MAX_SCALE)
        });
        multiple.unwrap_or(MAX_SCALE)
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a.checked_rem(b).unwrap_or(0));
    }
    a.max(1)
}

/// Hands out turns to all senders of one peer.
#[derive(Debug, Default)]
pub struct Dealer(Mutex<Stride>);

impl Dealer {
    /// See [`Stride::set`].
    pub fn set(&self, shares: &[(u8, u32)]) {
        self.0.lock().set(shares);
    }
}

/// Turns that one sender has taken for one batch: the lock is taken once for several datagrams, and
/// what is not used is given back, so that a sender alone sees the very sequence.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turns {
    slots: [u8; AT_ONCE],
    at: usize,
    len: usize,
    /// How many to take next.
    want: usize,
}

/// Turns that are taken at once, at most.
const AT_ONCE: usize = 16;

impl Turns {
    /// The path whose turn it is.
    pub fn turn(&mut self, dealer: &Dealer) -> Option<u8> {
        if self.at >= self.len {
            // Who sends one datagram takes one turn.
            self.want = self.want.saturating_mul(2).clamp(1, AT_ONCE);
            (self.at, self.len) = (0, 0);
            let mut stride = dealer.0.lock();
            for room in self.slots.iter_mut().take(self.want) {
                *room = stride.turn()?;
                self.len = self.len.saturating_add(1);
            }
        }
        let slot = self.slots.get(self.at).copied();
        self.at = self.at.saturating_add(1);
        slot
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&mut self, dealer: &Dealer) {
        let unused = self.slots.get(self.at..self.len).unwrap_or_default();
        if !unused.is_empty() {
            let mut stride = dealer.0.lock();
            unused.iter().rev().for_each(|slot| stride.undo(*slot));
        }
        *self = Turns::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One cycle as MPT lists it at its start.
    fn list_of(weights: &[u64]) -> Vec<u8> {
        let multiple = weights.iter().fold(1, |m, w| m * w / gcd(m, *w));
        let mut counters = vec![0; weights.len()];
        let mut list = Vec::new();
        loop {
            let next = (0..weights.len())
                .min_by_key(|i| (counters[*i] + multiple / weights[*i], *i))
                .unwrap();
            counters[next] += multiple / weights[next];
            list.push(u8::try_from(next).unwrap());
            if counters.iter().all(|c| *c == counters[0]) {
                return list;
            }
        }
    }

    fn shares(weights: &[u64]) -> Vec<(u8, u32)> {
        (0u8..).zip(weights).map(|(slot, w)| (slot, u32::try_from(*w).unwrap())).collect()
    }

    fn stride(weights: &[u64]) -> Stride {
        let mut stride = Stride::default();
        stride.set(&shares(weights));
        stride
    }

    fn take(stride: &mut Stride, count: usize) -> Vec<u8> {
        (0..count).map(|_| stride.turn().unwrap()).collect()
    }

    #[test]
    fn the_sequences_of_mpt_come_out() {
        for (weights, expected) in [
            (vec![1, 1], vec![0, 1]),
            (vec![3, 1], vec![0, 0, 0, 1]),
            (vec![12, 18], vec![1, 0, 1, 0, 1]),
            (vec![1, 2, 3], vec![2, 1, 2, 0, 1, 2]),
            (vec![2, 3, 5], vec![2, 1, 2, 0, 2, 1, 2, 0, 1, 2]),
            (vec![10, 1], vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ] {
            assert_eq!(take(&mut stride(&weights), expected.len()), expected, "{weights:?}");
            assert_eq!(list_of(&weights), expected, "{weights:?}");
        }
    }

    proptest! {
        #[test]
        fn three_cycles_of_any_weights_are_three_times_the_list(
            weights in proptest::collection::vec(1u64..40, 1..6),
        ) {
            let list = list_of(&weights);
            // A common factor changes nothing: a path that ramps up has a part of its weight.
            let scaled: Vec<u64> = weights.iter().map(|w| w * 16).collect();
            for weights in [&weights, &scaled] {
                let mut stride = stride(weights);
                for _ in 0..3 {
                    prop_assert_eq!(&take(&mut stride, list.len()), &list);
                }
            }
        }

        #[test]
        fn shares_are_kept_with_weights_that_have_no_small_common_multiple(
            weights in proptest::collection::vec(1u64..65_536, 2..8),
        ) {
            let mut stride = stride(&weights);
            let total: u64 = weights.iter().sum();
            let mut counts = vec![0u64; weights.len()];
            for slot in take(&mut stride, 20_000) {
                counts[usize::from(slot)] += 1;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                let expected = 20_000.0 * *weight as f64 / total as f64;
                prop_assert!((*count as f64 - expected).abs() <= 2.0 + weights.len() as f64);
            }
        }
    }

    #[test]
    fn a_path_that_returns_gets_no_burst_and_the_others_go_on_meanwhile() {
        let mut stride = stride(&[1, 1, 1]);
        take(&mut stride, 3);
        stride.set(&[(0, 1), (2, 1)]);
        assert_eq!(take(&mut stride, 6), [0, 2, 0, 2, 0, 2]);

        stride.set(&shares(&[1, 1, 1]));

        assert_eq!(take(&mut stride, 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn weights_change_while_it_runs() {
        let mut stride = stride(&[1, 1]);
        take(&mut stride, 10);
        stride.set(&shares(&[3, 1]));
        let taken = take(&mut stride, 400);
        assert_eq!(taken.iter().filter(|slot| **slot == 0).count(), 300);
    }

    #[test]
    fn turns_that_were_not_used_are_given_back() {
        let (dealer, mut turns) = (Dealer::default(), Turns::default());
        dealer.set(&shares(&[1, 2, 3]));
        let mut seen = Vec::new();
        for batch in [1, 2, 40, 3, 17, 1, 8] {
            for _ in 0..batch {
                seen.push(turns.turn(&dealer).unwrap());
            }
            turns.give_back(&dealer);
        }

        let expected: Vec<u8> = [2, 1, 2, 0, 1, 2].into_iter().cycle().take(72).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn without_an_open_path_there_is_no_turn() {
        let (dealer, mut turns) = (Dealer::default(), Turns::default());
        assert_eq!(turns.turn(&dealer), None);
        dealer.set(&shares(&[1]));
        assert_eq!(turns.turn(&dealer), Some(0));
    }
}
