// SPDX-License-Identifier: BSD-2-Clause
//! How fast packets leave on one path at one end: as they come, at a rate that somebody told, or at
//! one that is learnt.

use super::frame::Pong;
use super::learn::Learner;
use super::pace::{Pace, UNBOUNDED};
use super::probe::Answered;
use super::time::Time;
use std::sync::Arc;
use std::time::Duration;

/// What is known of the rate of a link.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Rate {
    /// Nothing: packets leave as they come.
    #[default]
    Unknown,
    /// Bytes per second, headers of IP and UDP included.
    Told(u64),
    /// Nothing, but it is to be found out.
    Learnt,
}

/// What keeps to it.
pub struct Throttle {
    /// Makes the place to wait, for so many bytes per second, and for how long at most.
    new: fn(u64, Duration) -> Pace,
    bound: Duration,
    rate: Rate,
    /// Where packets wait. A rate that is learnt has one from the first time that it was known.
    pace: Option<Arc<Pace>>,
    learner: Option<Box<Learner>>,
}

impl Throttle {
    /// Packets leave as they come. Once they do not, none waits for longer than `bound`.
    pub fn new(bound: Duration) -> Self {
        Throttle { new: Pace::new, bound, rate: Rate::Unknown, pace: None, learner: None }
    }

    /// The same where somebody else names the rate.
    pub fn for_a_guest(bound: Duration) -> Self {
        Throttle { new: Pace::for_a_guest, ..Throttle::new(bound) }
    }

    /// Where packets wait, if anywhere.
    pub fn pace(&self) -> Option<&Arc<Pace>> {
        self.pace.as_ref()
    }

    /// Bytes per second that somebody told.
    pub fn told(&self) -> Option<u64> {
        match self.rate {
            Rate::Told(bytes) => Some(bytes),
            Rate::Unknown | Rate::Learnt => None,
        }
    }

    /// How long a packet that is sent now would wait.
    pub fn queue(&self, now: Time) -> Duration {
        self.pace.as_ref().map_or(Duration::ZERO, |pace| pace.queue(now))
    }

    /// From now on it is so. What is returned is out of use as soon as views without it are
    /// published: what waits there has to be [given up](Pace::give_up) then.
    pub fn set(&mut self, now: Time, rate: Rate) -> Option<Arc<Pace>> {
        self.rate = rate;
        match rate {
            Rate::Unknown => {
                self.learner = None;
                return self.pace.take();
            }
            Rate::Told(bytes) => {
                self.learner = None;
                self.keep(now, bytes);
            }
            Rate::Learnt if self.learner.is_some() => {}
            Rate::Learnt => {
                self.learner = Some(Box::default());
                self.let_go(now);
            }
        }
        None
    }

    /// A PONG came. Whether there is a place to wait that was not there before, so that views with
    /// it have to be published.
    pub fn on_answer(&mut self, now: Time, pong: &Pong, answered: &Answered) -> bool {
        let Some(learner) = &mut self.learner else { return false };
        let before = learner.rate();
        let waited = self.pace.as_ref().is_some_and(|pace| pace.has_waited());
        learner.on_answer(now, pong, answered, waited);
        match learner.rate() {
            rate if rate == before => false,
            Some(bytes) => self.keep(now, bytes),
            None => {
                self.let_go(now);
                false
            }
        }
    }

    /// The path leads elsewhere, maybe over another link: what was learnt does not count any more.
    pub fn on_new_route(&mut self, now: Time) {
        if let Some(learner) = &mut self.learner {
            **learner = Learner::default();
            self.let_go(now);
        }
    }

    /// Packets leave at this rate. Whether the place to wait is a new one.
    fn keep(&mut self, now: Time, bytes: u64) -> bool {
        if let Some(pace) = &self.pace {
            pace.set_rate(now, bytes);
            return false;
        }
        self.pace = Some(Arc::new((self.new)(bytes, self.bound)));
        true
    }

    /// Packets leave as they come, those that wait as well.
    fn let_go(&self, now: Time) {
        if let Some(pace) = &self.pace {
            pace.set_rate(now, UNBOUNDED);
        }
    }
}
