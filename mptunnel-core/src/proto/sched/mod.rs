// SPDX-License-Identifier: BSD-2-Clause
//! Policies: on which of the usable paths a datagram goes.
//!
//! A policy is a pure function of what is known about the paths. One file each; to add one, write
//! the file, add a variant here and its name to the option `mode`.

mod redundant;

use std::time::Duration;

/// What a policy may know of a path that could be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// The path slot, below 32.
    pub slot: u8,
    /// Joins only when no other path is up.
    pub backup: bool,
    /// Whether the other end has been heard on it lately.
    pub alive: bool,
}

/// What a chosen path is worth to who wants fewer copies than the policy makes. Smaller is better;
/// fields are compared in the order in which they are written.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Rank {
    /// Whether it does not answer at present.
    pub down: bool,
    /// Smoothed round trip; the maximum until the first sample, so that an unmeasured path never
    /// beats a measured one.
    pub rtt: Duration,
    /// The path slot, below 32.
    pub slot: u8,
}

impl Rank {
    /// The rank of a path that is up or not, with this round trip.
    pub fn new(slot: u8, up: bool, rtt: Option<Duration>) -> Self {
        Rank { down: !up, rtt: rtt.unwrap_or(Duration::MAX), slot }
    }

    /// The slots of `ranks`, the best first.
    pub fn order(mut ranks: Vec<Rank>) -> Vec<u8> {
        ranks.sort_unstable();
        ranks.into_iter().map(|rank| rank.slot).collect()
    }
}

/// How paths are chosen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Policy {
    /// Every path: a datagram is lost only if all its copies are.
    #[default]
    Redundant,
}

impl Policy {
    /// The set of slots, as bits, on which the next datagrams go.
    pub fn choose(self, candidates: &[Candidate]) -> u32 {
        match self {
            Policy::Redundant => redundant::choose(candidates),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_path_that_answers_comes_first_and_an_unmeasured_one_behind_all_measured() {
        let rank = |slot, up, ms: Option<u64>| Rank::new(slot, up, ms.map(Duration::from_millis));
        let order = Rank::order(vec![
            rank(0, true, None),
            rank(1, true, Some(80)),
            rank(2, false, Some(1)),
            rank(3, true, Some(20)),
            rank(4, true, Some(20)),
        ]);

        assert_eq!(order, [3, 4, 1, 0, 2]);
    }
}
