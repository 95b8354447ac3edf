// SPDX-License-Identifier: BSD-2-Clause
//! The line of counters that mpclient and mpserver log on SIGUSR1.

use std::fmt;

use mptunnel_core::Stats;
use mptunnel_core::relay::RelayStats;

/// What a program has counted since its start, by name: what it carried, and why anything was
/// dropped as far as there was a reason to.
#[derive(Clone, Debug)]
pub struct Counters {
    named: Vec<(&'static str, u64)>,
    kernel_dropped: u64,
}

impl Counters {
    /// The counters of a relay and of its end of the tunnel.
    pub fn new(relay: &RelayStats, tunnel: &Stats) -> Counters {
        let carried = [
            ("flows", relay.flows as u64),
            ("to_tunnel", relay.to_tunnel),
            ("from_tunnel", relay.from_tunnel),
        ];
        let rest = [
            ("flows_refused", relay.flows_refused),
            ("dropped", relay.dropped),
            ("kernel_dropped", relay.kernel_dropped + tunnel.kernel_dropped),
            ("unattributed", tunnel.unattributed),
            ("socket_errors", tunnel.socket_errors),
        ];
        let rest = rest.into_iter().chain(tunnel.drops.iter().copied());
        Counters {
            named: carried.into_iter().chain(rest.filter(|(_, count)| *count > 0)).collect(),
            kernel_dropped: relay.kernel_dropped + tunnel.kernel_dropped,
        }
    }

    /// Arrivals that found the buffer of a socket full.
    pub fn kernel_dropped(&self) -> u64 {
        self.kernel_dropped
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.named.iter().try_for_each(|(name, count)| write!(f, " {name}={count}"))
    }
}

/// The copies that an end of a tunnel has removed, from its line of counters; `None` for any other
/// line.
pub fn copies_removed(line: &str) -> Option<u64> {
    let (_, counters) = line.split_once(PREFIX)?;
    let count = counters.split(' ').find_map(|counter| counter.strip_prefix("duplicate="));
    count.map_or(Some(0), |count| count.parse().ok())
}

const PREFIX: &str = "counters:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copies_removed_are_found_in_the_line() {
        let counters = |duplicate| {
            let all = [("flows", 2), ("to_tunnel", 10), ("duplicate", duplicate), ("too_old", 1)];
            let named = all.into_iter().filter(|(_, count)| *count > 0).collect();
            Counters { named, kernel_dropped: 0 }.to_string()
        };

        assert_eq!(counters(19), "counters: flows=2 to_tunnel=10 duplicate=19 too_old=1");
        assert_eq!(copies_removed(&format!("12:00 info {}", counters(19))), Some(19));
        assert_eq!(copies_removed(&counters(0)), Some(0));
        assert_eq!(copies_removed("12:00 info path path1 is up"), None);
    }
}
