// SPDX-License-Identifier: BSD-2-Clause
//! Locks that a forked child can use.
//!
//! Those of the standard library are one futex each and nothing besides, on Linux. `parking_lot`
//! has smaller ones, but keeps who waits in one table for the whole process; in a child of `fork`
//! the threads in it do not exist, their memory is given to new threads, and endpoints that the
//! child opens for itself miss wake-ups. Measured: of 80 children forked while the parent was busy,
//! one needed 5 s for what takes 20 ms, and one had not connected by then.
//!
//! The locks that every packet takes, in `proto`, are those of `parking_lot` all the same: nobody
//! waits under them for anything but another packet's turn, and the standard library's cost 4 to 10
//! instructions per packet more (`make test-instructions`).
//!
//! A panic while a lock is held does not make it unusable: the endpoint is marked instead.

use std::ops::{Deref, DerefMut};
use std::sync;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub(crate) use sync::{RwLockReadGuard, RwLockWriteGuard};

/// A value that one thread at a time may use.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T> {
    inner: sync::Mutex<T>,
    /// Threads that wait for it.
    waiting: AtomicU32,
}

/// Turns that [`Mutex::give_way`] takes at most: some milliseconds.
const GIVEN: usize = 1_000;

/// The right to use the value of a [`Mutex`].
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    /// `None` only while its thread waits for a [`Condvar`].
    guard: Option<sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Mutex { inner: sync::Mutex::new(value), waiting: AtomicU32::new(0) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let guard = match self.inner.try_lock() {
            Ok(guard) => guard,
            Err(sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(sync::TryLockError::WouldBlock) => {
                self.waiting.fetch_add(1, Relaxed);
                let guard = self.inner.lock().unwrap_or_else(sync::PoisonError::into_inner);
                self.waiting.fetch_sub(1, Relaxed);
                guard
            }
        };
        MutexGuard { guard: Some(guard) }
    }

    /// Lets those have it who wait for it, between two times that this thread needs it: one that
    /// sleeps takes longer to wake up than it takes to lock it again. Returns at once if nobody
    /// waits, and in time if one waits for ever, such as a thread that a fork left behind.
    pub(crate) fn give_way(&self) {
        for _ in 0..GIVEN {
            if self.waiting.load(Relaxed) == 0 {
                break;
            }
            std::thread::yield_now();
        }
    }
}

const HELD: &str = "a guard is only without its lock inside of a wait";

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect(HELD)
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect(HELD)
    }
}

/// A value that many threads may read, or one may change.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        RwLock(sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(sync::PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(sync::PoisonError::into_inner)
    }
}

/// Something to wait for while a [`Mutex`] is released.
#[derive(Debug, Default)]
pub(crate) struct Condvar(sync::Condvar);

/// How a bounded wait ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) fn timed_out(self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) const fn new() -> Self {
        Condvar(sync::Condvar::new())
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits for a notification; may return without one.
    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let inner = guard.guard.take().expect(HELD);
        guard.guard = Some(self.0.wait(inner).unwrap_or_else(sync::PoisonError::into_inner));
    }

    /// Waits for a notification for at most `timeout`; may return without either.
    pub(crate) fn wait_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        timeout: Duration,
    ) -> WaitTimeoutResult {
        let inner = guard.guard.take().expect(HELD);
        let woken = self.0.wait_timeout(inner, timeout);
        let (inner, result) = woken.unwrap_or_else(sync::PoisonError::into_inner);
        guard.guard = Some(inner);
        WaitTimeoutResult(result.timed_out())
    }

    /// Waits for a notification until `deadline`; may return without either.
    #[allow(clippy::disallowed_methods, reason = "called by io only, which has clocks")]
    pub(crate) fn wait_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        deadline: Instant,
    ) -> WaitTimeoutResult {
        self.wait_for(guard, deadline.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "locks are tested with threads")]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_panic_under_a_lock_leaves_it_usable() {
        let lock = Arc::new((Mutex::new(1), RwLock::new(1)));
        let other = lock.clone();
        let panicked = std::thread::spawn(move || {
            let (_mutex, _rwlock) = (other.0.lock(), other.1.write());
            panic!("with both locks held");
        });
        assert!(panicked.join().is_err());

        *lock.0.lock() += 1;
        *lock.1.write() += 1;

        assert_eq!((*lock.0.lock(), *lock.1.read()), (2, 2));
    }

    #[test]
    fn whoever_waits_for_a_lock_gets_it_before_one_who_gives_way_has_it_again() {
        const ROUNDS: i32 = 50;
        let mut in_turn = 0;
        for _ in 0..ROUNDS {
            let lock = Arc::new(Mutex::new(0));
            lock.give_way();
            let guard = lock.lock();
            let other = lock.clone();
            let waiter = std::thread::spawn(move || *other.lock() += 1);
            while lock.waiting.load(Relaxed) == 0 {
                std::thread::yield_now();
            }
            drop(guard);
            lock.give_way();
            in_turn += *lock.lock();
            waiter.join().unwrap();
            assert_eq!((*lock.lock(), lock.waiting.load(Relaxed)), (1, 0));
        }
        // A machine that is busy otherwise may wake it late.
        assert!(in_turn > ROUNDS / 2, "{in_turn}");
    }

    #[test]
    fn a_wait_ends_with_a_notification_or_with_its_time() {
        let shared = Arc::new((Mutex::new(false), Condvar::new()));
        let mut guard = shared.0.lock();
        assert!(shared.1.wait_for(&mut guard, Duration::from_millis(1)).timed_out());

        let other = shared.clone();
        let teller = std::thread::spawn(move || {
            *other.0.lock() = true;
            other.1.notify_all();
        });
        while !*guard {
            shared.1.wait(&mut guard);
        }
        teller.join().unwrap();
    }
}
