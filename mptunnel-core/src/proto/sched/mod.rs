// SPDX-License-Identifier: BSD-2-Clause
//! Policies: on which of the usable paths a datagram goes.
//!
//! A policy is a pure function of what is known about the paths. One file each; to add one, write
//! the file, add a variant here and its name to the option `mode`.

mod redundant;

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
