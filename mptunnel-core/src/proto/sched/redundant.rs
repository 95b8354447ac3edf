// SPDX-License-Identifier: BSD-2-Clause
//! Every datagram on every path. Backup paths join when none of the others is alive.

use super::Candidate;
use crate::proto::num::path_bit;

/// All active paths, dead ones too (a path may carry one way only); the backups as well while no
/// active path is alive.
pub fn choose(candidates: &[Candidate]) -> u32 {
    let covered = candidates.iter().any(|c| c.alive && !c.backup);
    candidates.iter().filter(|c| !c.backup || !covered).fold(0, |set, c| set | path_bit(c.slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(slot: u8, backup: bool, alive: bool) -> Candidate {
        Candidate { slot, backup, alive }
    }

    #[test]
    fn every_active_path_carries_a_copy_dead_or_alive() {
        assert_eq!(choose(&[path(0, false, true), path(3, false, false)]), 0b1001);
    }

    #[test]
    fn a_backup_is_silent_while_an_active_path_lives_and_joins_when_none_does() {
        assert_eq!(choose(&[path(0, false, true), path(1, true, true)]), 0b01);
        assert_eq!(choose(&[path(0, false, false), path(1, true, true)]), 0b11);
        assert_eq!(choose(&[path(1, true, false)]), 0b10);
    }

    #[test]
    fn no_path_gives_the_empty_set() {
        assert_eq!(choose(&[]), 0);
    }
}
