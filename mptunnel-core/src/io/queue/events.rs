// SPDX-License-Identifier: BSD-2-Clause
//! Events on their way to the application.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::monitor::{Monitor, Queue, WaitError};
use super::readiness::Readiness;

/// The events that nobody took yet, in order. When it is full the oldest are dropped: what is true
/// now matters more than what was.
///
/// All methods may be called by any thread at any time.
#[derive(Debug)]
pub(crate) struct EventQueue<T> {
    monitor: Monitor<Events<T>>,
}

#[derive(Debug)]
struct Events<T> {
    events: VecDeque<T>,
    limit: usize,
    dropped: u64,
}

impl<T> Queue for Events<T> {
    fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

impl<T> EventQueue<T> {
    /// An empty queue for up to `limit` events, whose state shows in `readiness`.
    ///
    /// # Panics
    /// If `limit` is 0.
    pub(crate) fn new(limit: usize, readiness: Arc<Readiness>) -> Self {
        assert!(limit > 0, "a queue holds something");
        let events = Events { events: VecDeque::new(), limit, dropped: 0 };
        EventQueue { monitor: Monitor::new(events, readiness) }
    }

    /// Puts one event to the end; a closed queue ignores it.
    pub(crate) fn push(&self, event: T) {
        let mut access = self.monitor.access();
        if access.is_closed() {
            return;
        }
        if access.events.len() == access.limit {
            access.events.pop_front();
            access.dropped += 1;
        }
        access.events.push_back(event);
        access.added();
    }

    /// Takes the next event. `None` waits for ever, zero not at all.
    ///
    /// # Errors
    /// See [`WaitError`].
    pub(crate) fn pop(&self, timeout: Option<Duration>) -> Result<T, WaitError> {
        self.monitor.take(timeout, |queue| {
            queue.events.pop_front().expect("somebody takes only what is there")
        })
    }

    /// How many events were dropped for newer ones.
    pub(crate) fn dropped(&self) -> u64 {
        self.monitor.access().dropped
    }

    /// Takes no more events, and answers [`WaitError::Closed`] once those that are there were
    /// taken.
    pub(crate) fn close(&self) {
        self.monitor.close();
    }

    /// Makes every thread that waits at present return.
    pub(crate) fn interrupt(&self) {
        self.monitor.interrupt();
    }

    /// How many threads wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.monitor.waiting()
    }
}
