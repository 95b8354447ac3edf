// SPDX-License-Identifier: BSD-2-Clause
//! Interrupting calls that are made of several.

use std::cell::Cell;

thread_local! {
    static BEGUN: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The count of interruptions that a call of this thread compares with, which begins when there
/// were `now`.
pub(crate) fn begun(now: u64) -> u64 {
    BEGUN.get().unwrap_or(now)
}

/// One call to its caller, and several to the library: who tries first and waits then, or waits in
/// slices to look at something else in between. An interruption between two attempts belongs to the
/// call, and ends the next attempt that would wait.
///
/// ```no_run
/// # fn wait(tunnel: &mptunnel_core::Tunnel) -> Result<usize, mptunnel_core::Error> {
/// use mptunnel_core::Error;
/// use std::time::Duration;
///
/// let mut buffer = [0; 1500];
/// let call = tunnel.attempts();
/// loop {
///     match call.attempt(|| tunnel.recv_timeout(&mut buffer, Duration::from_millis(50))) {
///         Err(Error::TimedOut(_)) => {} // Something else, then once more.
///         received => return received,
///     }
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Attempts {
    begun: u64,
}

impl Attempts {
    /// Begins when an endpoint was interrupted so often.
    pub(crate) fn new(begun: u64) -> Self {
        Attempts { begun }
    }

    /// Runs one attempt, on any thread. It calls the endpoint that made this and no other one.
    pub fn attempt<R>(&self, attempt: impl FnOnce() -> R) -> R {
        let _restored = Restore(BEGUN.replace(Some(self.begun)));
        attempt()
    }
}

/// Also when the attempt panics.
struct Restore(Option<u64>);

impl Drop for Restore {
    fn drop(&mut self) {
        BEGUN.set(self.0);
    }
}
