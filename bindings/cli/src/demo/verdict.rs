// SPDX-License-Identifier: BSD-2-Clause
//! What was shown.

use std::fmt;
use std::time::Duration;

use super::tally::Report;

/// The outcome. Prints as one line.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Each path alone.
    pub alone: Vec<Report>,
    /// The tunnel over all of them.
    pub tunnel: Report,
    /// The share that the tunnel delivered of what was sent while it had a server, 0 to 1.
    pub with_server: Option<f64>,
    /// How long the tunnel took from the moment that its server was back; `None` if it did not
    /// recover.
    pub recovery: Option<Duration>,
}

impl Verdict {
    /// What the tunnel failed to show; nothing if it is as it should be.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let own = self.tunnel.share();
        for (path, alone) in (1..).zip(&self.alone) {
            // Outages included, on both sides.
            if alone.share() >= own {
                faults.push(format!(
                    "path {path} alone delivered {}, and the tunnel {}",
                    percent(alone.share()),
                    percent(own)
                ));
            }
        }
        match self.recovery {
            None => faults.push("nothing came through the new server".to_owned()),
            Some(recovery) if recovery > RECOVERS_WITHIN => faults.push(format!(
                "recovery took {:.1} s, and may take {} s",
                recovery.as_secs_f64(),
                RECOVERS_WITHIN.as_secs()
            )),
            Some(_) => {}
        }
        let Report { twice, altered, .. } = self.tunnel;
        for (count, what) in [(twice, "came twice"), (altered, "came altered")] {
            if count > 0 {
                faults.push(format!("{count} datagrams {what}"));
            }
        }
        faults
    }

    fn best_alone(&self) -> f64 {
        self.alone.iter().map(Report::share).fold(0.0, f64::max)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = self.faults();
        if !faults.is_empty() {
            return write!(f, "The tunnel did not show what it should: {}.", faults.join("; "));
        }
        write!(f, "The tunnel delivered {}", percent(self.tunnel.share()))?;
        if let Some(share) = self.with_server {
            write!(f, " ({} while it had a server)", percent(share))?;
        }
        let best = percent(self.best_alone());
        write!(f, " while the best single path delivered {best}")?;
        if let Some(recovery) = self.recovery {
            write!(f, "; it recovered {:.2} s after the server was back", recovery.as_secs_f64())?;
        }
        write!(f, " and {} datagrams came twice.", self.tunnel.twice)
    }
}

/// A share with one decimal. What is not all is not rounded up to it.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", (share * 1000.0 + 1e-9).floor() / 10.0)
}

/// The longest recovery that counts as one.
const RECOVERS_WITHIN: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn report(delivered: usize) -> Report {
        Report { sent: 1000, delivered, ..Report::default() }
    }

    fn verdict() -> Verdict {
        Verdict {
            alone: vec![report(810), report(430), report(904)],
            tunnel: report(962),
            with_server: Some(0.9919),
            recovery: Some(Duration::from_millis(212)),
        }
    }

    #[test]
    fn a_success_is_told_in_one_line() {
        assert_eq!(
            verdict().to_string(),
            "The tunnel delivered 96.2 % (99.1 % while it had a server) while the best single \
             path delivered 90.4 %; it recovered 0.21 s after the server was back and 0 \
             datagrams came twice."
        );
    }

    #[test]
    fn the_tunnel_has_to_be_better_than_every_path() {
        let mut verdict = verdict();
        verdict.tunnel = report(904);

        assert_eq!(verdict.faults(), ["path 3 alone delivered 90.4 %, and the tunnel 90.4 %"]);
        verdict.tunnel = report(905);
        assert!(verdict.faults().is_empty());
    }

    #[test]
    fn the_tunnel_has_to_recover_in_time() {
        let mut verdict = verdict();
        verdict.recovery = Some(Duration::from_secs(3));
        assert!(verdict.faults().is_empty());

        verdict.recovery = Some(Duration::from_millis(3_100));
        assert_eq!(verdict.faults(), ["recovery took 3.1 s, and may take 3 s"]);
        verdict.recovery = None;
        assert_eq!(
            verdict.to_string(),
            "The tunnel did not show what it should: nothing came through the new server."
        );
    }

    #[test]
    fn nothing_may_come_twice_or_altered() {
        let mut verdict = verdict();
        verdict.alone[0].twice = 5;
        assert!(verdict.faults().is_empty());

        verdict.tunnel.twice = 1;
        verdict.tunnel.altered = 2;

        assert_eq!(verdict.faults(), ["1 datagrams came twice", "2 datagrams came altered"]);
    }

    #[test]
    fn what_is_not_all_is_less_than_100_percent() {
        assert_eq!(percent(1.0), "100.0 %");
        assert_eq!(percent(0.9999), "99.9 %");
        assert_eq!(percent(0.996), "99.6 %");
        assert_eq!(percent(0.0), "0.0 %");
    }
}
