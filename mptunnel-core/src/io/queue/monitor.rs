// SPDX-License-Identifier: BSD-2-Clause
//! How threads share a queue: the lock, the waiting, and the descriptor kept in step.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::interrupt;
use crate::sync::{Condvar, Mutex, MutexGuard};

use super::readiness::Readiness;

/// Why nothing was taken from a queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WaitError {
    /// Nothing came within the timeout.
    TimedOut,
    /// The queue is closed and empty: nothing will come any more.
    Closed,
    /// Somebody interrupted the wait.
    Interrupted,
}

/// What a [`Monitor`] guards.
pub(super) trait Queue {
    fn is_empty(&self) -> bool;
}

/// A queue that any thread may put to and take from.
#[derive(Debug)]
pub(super) struct Monitor<Q> {
    shared: Mutex<Shared<Q>>,
    /// There is something to take, or the waiting is over for another reason.
    news: Condvar,
    readiness: Arc<Readiness>,
    /// This queue's bit there.
    bit: u32,
}

#[derive(Debug)]
struct Shared<Q> {
    queue: Q,
    closed: bool,
    /// How many threads wait, or were woken and did not run yet.
    waiting: usize,
    /// How often the waiting threads were interrupted.
    interrupts: u64,
    /// What `readiness` knows of this queue.
    announced: bool,
}

impl<Q: Queue> Monitor<Q> {
    pub(super) fn new(queue: Q, readiness: Arc<Readiness>) -> Self {
        let bit = readiness.register();
        let shared = Shared { queue, closed: false, waiting: 0, interrupts: 0, announced: false };
        Monitor { shared: Mutex::new(shared), news: Condvar::new(), readiness, bit }
    }

    /// Locks the queue. When the access ends, those who wait are woken and the descriptor is set.
    pub(super) fn access(&self) -> Access<'_, Q> {
        Access { monitor: self, shared: self.shared.lock(), added: 0 }
    }

    /// Waits until the queue has something, and lets `take` have it. `None` waits for ever, zero
    /// not at all.
    pub(super) fn take<R>(
        &self,
        timeout: Option<Duration>,
        take: impl FnOnce(&mut Q) -> R,
    ) -> Result<R, WaitError> {
        let mut shared = self.shared.lock();
        let begun = interrupt::begun(shared.interrupts);
        let mut deadline = None;
        let mut expired = timeout.is_some_and(|timeout| timeout.is_zero());
        while shared.queue.is_empty() {
            if shared.closed {
                return Err(WaitError::Closed);
            }
            if shared.interrupts != begun {
                return Err(WaitError::Interrupted);
            }
            if expired {
                return Err(WaitError::TimedOut);
            }
            if deadline.is_none() {
                // A deadline beyond what the clock can express never comes.
                deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            }
            shared.waiting += 1;
            match deadline {
                Some(deadline) => {
                    expired = self.news.wait_until(&mut shared, deadline).timed_out();
                }
                None => self.news.wait(&mut shared),
            }
            shared.waiting -= 1;
        }
        let taken = take(&mut shared.queue);
        // One wake-up may have been meant for what is left: a thread that was woken did not take
        // everything, or left a datagram that did not fit its buffer.
        if !shared.queue.is_empty() {
            self.news.notify_one();
        }
        self.announce(&mut shared);
        Ok(taken)
    }

    /// Ends the waiting: what is there can still be taken.
    pub(super) fn close(&self) {
        let mut shared = self.shared.lock();
        shared.closed = true;
        self.announce(&mut shared);
        self.news.notify_all();
    }

    /// Makes every thread that waits at present return.
    pub(super) fn interrupt(&self) {
        let mut shared = self.shared.lock();
        shared.interrupts += 1;
        self.news.notify_all();
    }

    /// How many threads wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.shared.lock().waiting
    }

    fn announce(&self, shared: &mut Shared<Q>) {
        let ready = shared.closed || !shared.queue.is_empty();
        if shared.announced != ready {
            shared.announced = ready;
            self.readiness.set(self.bit, ready);
        }
    }
}

/// The locked queue.
pub(super) struct Access<'a, Q: Queue> {
    monitor: &'a Monitor<Q>,
    shared: MutexGuard<'a, Shared<Q>>,
    /// How many things were put to the queue.
    added: usize,
}

impl<Q: Queue> Access<'_, Q> {
    pub(super) fn is_closed(&self) -> bool {
        self.shared.closed
    }

    /// Notes that there is one more thing to take.
    pub(super) fn added(&mut self) {
        self.added += 1;
    }
}

impl<Q: Queue> Deref for Access<'_, Q> {
    type Target = Q;

    fn deref(&self) -> &Q {
        &self.shared.queue
    }
}

impl<Q: Queue> DerefMut for Access<'_, Q> {
    fn deref_mut(&mut self) -> &mut Q {
        &mut self.shared.queue
    }
}

impl<Q: Queue> Drop for Access<'_, Q> {
    fn drop(&mut self) {
        self.monitor.announce(&mut self.shared);
        // Still under the lock: the threads move on to wait for that, and run once it is released.
        let waiting = self.shared.waiting;
        if self.added >= waiting {
            self.monitor.news.notify_all();
        } else {
            (0..self.added).for_each(|_| self.monitor.news.notify_one());
        }
    }
}
