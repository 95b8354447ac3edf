// SPDX-License-Identifier: BSD-2-Clause
//! Every datagram on every path. Backup paths join when none of the others is sure to work.

use super::Candidate;
use crate::proto::num::path_bit;

/// All active paths, dead ones too (a path may carry one way only); the backups as well if `join`.
pub fn choose(candidates: &[Candidate], join: bool) -> u32 {
    candidates.iter().filter(|c| !c.backup || join).fold(0, |set, c| set | path_bit(c.slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(slot: u8, backup: bool, alive: bool) -> Candidate {
        Candidate { slot, backup, alive, ..Candidate::default() }
    }

    #[test]
    fn every_active_path_carries_a_copy_dead_or_alive() {
        assert_eq!(choose(&[path(0, false, true), path(3, false, false)], false), 0b1001);
    }

    #[test]
    fn a_backup_is_silent_until_it_joins() {
        let paths = [path(0, false, true), path(1, true, true)];
        assert_eq!((choose(&paths, false), choose(&paths, true)), (0b01, 0b11));
    }

    #[test]
    fn no_path_gives_the_empty_set() {
        assert_eq!(choose(&[], true), 0);
    }
}
