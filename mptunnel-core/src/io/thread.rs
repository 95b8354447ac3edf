// SPDX-License-Identifier: BSD-2-Clause
//! The threads of an endpoint: started with a name, stopped by a flag, never the end of the host.

use super::clock;
use crate::log_context;
use crate::proto::time::Time;
use crate::sync::{Condvar, Mutex};
use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Starts a thread whose panic becomes a call of `failed` with the message, and nothing worse.
///
/// Signals stay with the application's threads: all of them are blocked here, so that a handler
/// never runs on a stack that the application does not know.
///
/// # Errors
/// `EAGAIN` when the system has no thread left.
pub(crate) fn start(
    name: &str,
    body: impl FnOnce() + Send + 'static,
    failed: impl FnOnce(String) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let context = log_context::get();
    let run = move || {
        log_context::set(context);
        super::sys::block_signals();
        // Unwind safety: `failed` marks the endpoint, after which nobody looks at its state.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            failed(message_of(&*panic));
        }
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// The name of thread `number` of several that do the same; the first one has none.
pub(crate) fn numbered(name: &str, number: usize) -> String {
    match number {
        0 => name.to_owned(),
        _ => format!("{name}-{number}"),
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}

/// Joins `threads`, for at most `bound` in all. `false` if one of them is still running: it is
/// left behind rather than waited for without end.
pub(crate) fn join(threads: Vec<JoinHandle<()>>, bound: Duration) -> bool {
    let deadline = Instant::now() + bound;
    let mut all = true;
    for thread in threads {
        // Who closes an endpoint from its own handler cannot be waited for.
        if thread.thread().id() == std::thread::current().id() {
            continue;
        }
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            let _ = thread.join();
        } else {
            all = false;
        }
    }
    all
}

/// Something to do at a point in time, which may be brought forward.
#[derive(Debug)]
pub(crate) struct Alarm {
    state: Mutex<AlarmState>,
    rung: Condvar,
}

#[derive(Debug)]
struct AlarmState {
    at: Time,
    stopped: bool,
}

impl Alarm {
    /// Rings at once.
    pub(crate) fn new() -> Self {
        let state = AlarmState { at: Time::default(), stopped: false };
        Alarm { state: Mutex::new(state), rung: Condvar::new() }
    }

    /// Rings at `at`, if nothing earlier is set.
    pub(crate) fn bring_forward(&self, at: Time) {
        let mut state = self.state.lock();
        if at < state.at {
            state.at = at;
            self.rung.notify_all();
        }
    }

    /// Rings never again; `wait` returns `false`.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.rung.notify_all();
    }

    /// Waits until the alarm rings, and clears it; `false` once it was stopped.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return false;
            }
            let now = clock::now();
            if state.at <= now {
                state.at = Time::NEVER;
                return true;
            }
            // Bounded: the clock counts suspend, the condition variable does not.
            let left = state.at.since(now).min(Duration::from_secs(5));
            let _ = self.rung.wait_for(&mut state, left);
        }
    }
}

/// Something that others may wait to see changed.
#[derive(Debug, Default)]
pub(crate) struct Change {
    count: Mutex<u64>,
    news: Condvar,
}

impl Change {
    /// There is a change: who waits looks again.
    pub(crate) fn tell(&self) {
        *self.count.lock() += 1;
        self.news.notify_all();
    }

    /// Waits until `done` answers, asking again after each change; `None` after `timeout`.
    pub(crate) fn wait_until<T>(
        &self,
        timeout: Option<Duration>,
        mut done: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let before = *self.count.lock();
            // The condition takes locks of its own, so none is held meanwhile.
            let answer = done();
            if answer.is_some() {
                return answer;
            }
            let mut count = self.count.lock();
            while *count == before {
                match deadline {
                    Some(deadline) if Instant::now() >= deadline => return None,
                    Some(deadline) => {
                        let _ = self.news.wait_until(&mut count, deadline);
                    }
                    None => self.news.wait(&mut count),
                }
            }
        }
    }
}
