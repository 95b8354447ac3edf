// SPDX-License-Identifier: BSD-2-Clause
//! Whether a path is fit to carry datagrams alone: silence and heavy loss close its gate at once,
//! and it opens again by itself when the path has been good for a while, the longer the more often
//! it was closed.
//!
//! ```text
//!            no answers, loss far above the best path's, a queue of half a second
//!    open ─────────────────────────────────────────────────────────────────────► closed
//!     ▲                                                                            │
//!     └──── answers, little loss, for `hold`: 0.5 s, doubled if it was open briefly ┘
//! ```
//!
//! A path that carries a share of the traffic, and in front of which packets wait, gets a smaller
//! share instead.

use super::{Candidate, Measured};
use crate::proto::health::is_queue;
use crate::proto::time::Time;
use std::time::Duration;

/// Loss, above that of the best path, that closes a gate. It has to be beyond doubt.
const LOSS_CLOSES: f64 = 0.2;
/// Loss above that of the best path with which a gate opens again.
const LOSS_OPENS: f64 = 0.1;
/// A round trip so much longer than the shortest one of the path is a queue that is no use waiting
/// in, if another path is not as slow.
const BLOAT: Duration = Duration::from_millis(500);
/// Loss with a queue means that there is too much of what we send, which weights can mend: it has
/// to last so long to close a gate.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a path has to be good: at first, and at most.
const HOLD: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(32));
/// A gate that was open for less doubles the time.
const OPEN_BRIEFLY: Duration = Duration::from_secs(20);
/// Between two steps of a path that takes up its share again: 1/16, 1/8, 1/4, 1/2, all.
const RAMP: Duration = Duration::from_millis(500);
/// Steps down from the whole share.
const LOWEST: u8 = 4;

/// What is best among the paths that answer: others are compared with it.
#[derive(Clone, Copy, Debug)]
pub struct Best {
    /// The smallest loss.
    pub loss: f64,
    /// The shortest time that a datagram waits.
    pub bloat: Duration,
}

impl Best {
    /// Among these paths.
    pub fn of(paths: &[Candidate]) -> Self {
        let sound = || paths.iter().filter(|path| !path.is_silent());
        Best {
            loss: sound().map(|path| path.recent.fraction()).fold(1.0, f64::min),
            bloat: sound().map(bloat).min().unwrap_or(Duration::MAX),
        }
    }
}

/// Whether packets wait in front of the path.
pub(super) fn is_queued(path: &Candidate) -> bool {
    is_queue(path.rtt.unwrap_or_default(), path.min_rtt.unwrap_or_default())
}

/// How long a datagram waits: at this end, and on the way, as far as a round trip is longer than the
/// shortest one of the path.
pub(super) fn bloat(path: &Candidate) -> Duration {
    let on_the_way = path.rtt.unwrap_or_default().saturating_sub(path.min_rtt.unwrap_or_default());
    on_the_way.saturating_add(path.queue)
}

/// The gate of one path.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    open: bool,
    /// Since when it is as it is.
    since: Time,
    /// Since when a closed path has been good.
    good_since: Option<Time>,
    hold: Duration,
    /// Since when it has been open although it loses much.
    lossy_since: Option<Time>,
    /// Steps down from its whole share.
    level: u8,
    level_at: Time,
}

impl Default for Gate {
    /// Closed, and open as soon as the path answers.
    fn default() -> Self {
        Gate {
            open: false,
            since: Time::default(),
            good_since: None,
            hold: Duration::ZERO,
            lossy_since: None,
            level: 0,
            level_at: Time::default(),
        }
    }
}

impl Gate {
    /// Takes the state of its path into account. `shared`: it carries a share of the traffic, which
    /// is made smaller if it is too much.
    pub fn update(&mut self, now: Time, path: &Candidate, best: Best, shared: bool) {
        // Where packets wait, so many are lost because they are too many, and probes among them.
        // Who closed such a path would fill the others.
        let mended = shared && self.open && is_queued(path);
        let silent = if mended { !path.alive } else { path.is_silent() };
        let bloated = bloat(path) > BLOAT && best.bloat.saturating_add(BLOAT) < bloat(path);
        if self.open {
            let lossy_since = self.lossy_since.unwrap_or(now);
            self.lossy_since = is_lossy(path.recent, best.loss).then_some(lossy_since);
            let hopeless = !mended
                && self.lossy_since.is_some()
                && (!is_queued(path) || now.since(lossy_since) >= PATIENCE);
            if silent || bloated || hopeless {
                self.close(now);
            } else {
                self.ramp(now, path, best);
            }
            return;
        }
        let sound = !silent && !bloated && path.recent.fraction() <= best.loss + LOSS_OPENS;
        if !sound {
            self.good_since = None;
            return;
        }
        let since = *self.good_since.get_or_insert(now);
        if now.since(since) >= self.hold {
            // A path that was never closed comes with all of its share.
            self.level = if self.hold.is_zero() { 0 } else { LOWEST };
            (self.open, self.since, self.level_at) = (true, now, now);
        }
    }

    fn close(&mut self, now: Time) {
        let (least, most) = HOLD;
        let briefly = !self.hold.is_zero() && now.since(self.since) < OPEN_BRIEFLY;
        self.hold = if briefly { self.hold.saturating_mul(2).min(most) } else { least };
        (self.open, self.since) = (false, now);
        (self.good_since, self.lossy_since) = (None, None);
    }

    fn ramp(&mut self, now: Time, path: &Candidate, best: Best) {
        if self.level == 0 || now.since(self.level_at) < RAMP {
            return;
        }
        self.level_at = now;
        // Half of what closes it says that this was too much.
        let too_much = path.recent.fraction() > best.loss + LOSS_OPENS / 2.0;
        self.level = if too_much {
            self.level.saturating_add(1).min(LOWEST)
        } else {
            self.level.saturating_sub(1)
        };
    }

    /// Whether the path may carry datagrams.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether the path was not fit once.
    pub fn was_closed(&self) -> bool {
        !self.hold.is_zero()
    }

    /// Sixteenths of its share that it may carry, 1 to 16.
    pub fn sixteenths(&self) -> u32 {
        16u32.checked_shr(self.level.into()).unwrap_or(1).max(1)
    }

    /// Since when the gate is open or closed.
    pub fn since(&self) -> Time {
        self.since
    }
}

fn is_lossy(recent: Measured, best: f64) -> bool {
    recent.at_least() >= best + LOSS_CLOSES
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn path(lost: f32, sent: f32) -> Candidate {
        Candidate {
            alive: true,
            rtt: Some(20 * MS),
            min_rtt: Some(20 * MS),
            recent: Measured { sent, lost },
            ..Candidate::default()
        }
    }

    fn clean() -> Candidate {
        Candidate { slot: 1, ..path(0.0, 500.0) }
    }

    struct Watch {
        gate: Gate,
        now: Time,
    }

    impl Watch {
        fn new() -> Self {
            let mut watch = Watch { gate: Gate::default(), now: Time::from_micros(1_000_000) };
            assert!(watch.see(path(0.0, 0.0)), "a new path is used as soon as it answers");
            assert_eq!(watch.gate.sixteenths(), 16);
            watch
        }

        /// A quarter of a second later.
        fn see(&mut self, path: Candidate) -> bool {
            self.now = self.now + 250 * MS;
            self.gate.update(self.now, &path, Best::of(&[path, clean()]), false);
            self.gate.is_open()
        }

        /// Quarters of a second until a good path is used again.
        fn wait(&mut self) -> u32 {
            (1..1_000).find(|_| self.see(path(0.0, 3.0))).unwrap()
        }
    }

    #[test]
    fn silence_a_long_queue_and_heavy_loss_close_the_gate_at_once() {
        for bad in [
            Candidate { alive: false, ..path(0.0, 500.0) },
            Candidate { misses: 2, ..path(0.0, 500.0) },
            Candidate { misses: 3, heard: true, ..path(0.0, 500.0) },
            Candidate { rtt: Some(600 * MS), ..path(0.0, 500.0) },
            path(125.0, 500.0),
        ] {
            assert!(!Watch::new().see(bad), "{bad:?}");
        }
        for good in [
            Candidate { misses: 1, ..path(0.0, 500.0) },
            Candidate { misses: 2, heard: true, ..path(0.0, 500.0) },
            Candidate { rtt: Some(400 * MS), ..path(0.0, 500.0) },
            path(75.0, 500.0),
            // One or two of a handful of probes are no proof.
            path(1.0, 3.0),
            path(1.0, 2.0),
            path(1.0, 1.0),
        ] {
            assert!(Watch::new().see(good), "{good:?}");
        }
    }

    #[test]
    fn loss_with_a_queue_gets_a_second_in_which_less_may_be_sent() {
        let full = Candidate { rtt: Some(60 * MS), ..path(200.0, 500.0) };
        let mut watch = Watch::new();
        let used: Vec<bool> = (0..6).map(|_| watch.see(full)).collect();
        assert_eq!(used, [true, true, true, true, false, false]);

        let mut watch = Watch::new();
        for _ in 0..20 {
            assert!(watch.see(full) && watch.see(full) && watch.see(path(50.0, 500.0)));
        }
    }

    #[test]
    fn loss_that_all_paths_have_closes_no_gate() {
        let mut gate = Gate::default();
        let all = [path(200.0, 500.0), Candidate { slot: 1, ..path(190.0, 500.0) }];
        for _ in 0..10 {
            all.iter().for_each(|path| gate.update(Time::default(), path, Best::of(&all), false));
            assert!(gate.is_open());
        }
    }

    #[test]
    fn a_path_comes_back_when_it_has_been_good_for_a_while_and_longer_each_time() {
        let mut watch = Watch::new();
        let mut waits = Vec::new();
        for _ in 0..9 {
            watch.see(path(250.0, 500.0));
            assert!(!watch.see(path(0.0, 3.0)), "not at the first good sign");
            watch.see(path(250.0, 500.0));
            waits.push(watch.wait());
        }
        assert_eq!(waits, [3, 5, 9, 17, 33, 65, 129, 129, 129]);

        (0..81).for_each(|_| assert!(watch.see(path(0.0, 500.0))));
        watch.see(path(250.0, 500.0));
        assert_eq!(watch.wait(), 3, "what was good for long is forgiven");
    }

    #[test]
    fn a_path_that_comes_back_takes_up_its_share_in_steps_and_one_down_if_it_loses() {
        let mut watch = Watch::new();
        watch.see(path(250.0, 500.0));
        watch.wait();
        let mut shares = vec![watch.gate.sixteenths()];
        for lost in [0.0, 0.0, 0.0, 0.0, 40.0, 40.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0] {
            watch.see(path(lost, 500.0));
            shares.push(watch.gate.sixteenths());
        }
        assert_eq!(shares, [1, 1, 2, 2, 4, 4, 2, 2, 4, 4, 8, 8, 16]);
    }
}
