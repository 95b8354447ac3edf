// SPDX-License-Identifier: BSD-2-Clause
//! Log lines of the library on their way to `logging`.
//!
//! The threads of mptunnel-core put lines into a bounded queue and never wait for Python. A thread
//! of Python (`mptunnel._logging`) sleeps on a descriptor until there is something, and fetches it.

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::sys::eventfd::{EfdFlags, EventFd};
use pyo3::prelude::*;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Lines kept for Python; more are dropped and counted. A line is logged when something changes,
/// not for each packet, so this is minutes of a bad day.
const MAX_LINES: usize = 1_024;

/// The queue that was made first. A child process may have a later one: see [`reset_log`].
static FIRST: Generation = Generation::new();

/// A queue, and the one that a child process uses in its place.
struct Generation {
    queue: Mutex<Queue>,
    next: OnceLock<Box<Generation>>,
}

impl Generation {
    const fn new() -> Self {
        let queue = Queue { lines: VecDeque::new(), dropped: 0, bell: None };
        Generation { queue: Mutex::new(queue), next: OnceLock::new() }
    }

    fn newest() -> &'static Generation {
        let mut newest = &FIRST;
        while let Some(next) = newest.next.get() {
            newest = next;
        }
        newest
    }
}

struct Queue {
    lines: VecDeque<Line>,
    dropped: u64,
    /// Readable while there are lines.
    bell: Option<EventFd>,
}

/// Seconds since 1970, level as in `logging`, target, message.
type Line = (f64, u8, String, String);

/// Held for a moment only, and never while Python code runs: who waits for it may hold the
/// interpreter.
fn queue() -> MutexGuard<'static, Queue> {
    // Nothing that could panic happens under the lock, but if it did, lines are lines.
    Generation::newest().queue.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Bridge;

impl Log for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let level = match record.level() {
            Level::Error => 40,
            Level::Warn => 30,
            Level::Info => 20,
            Level::Debug => 10,
            Level::Trace => 5,
        };
        // Formatted before the lock is taken.
        let text = record.args().to_string();
        let line = (since.as_secs_f64(), level, record.target().to_owned(), text);
        let mut queue = queue();
        // Nobody will fetch it: no endpoint was made yet.
        let Some(bell) = &queue.bell else { return };
        if queue.lines.is_empty() {
            // Fails only if it is readable already.
            let _ = bell.write(1);
        }
        if queue.lines.len() == MAX_LINES {
            queue.dropped += 1;
        } else {
            queue.lines.push_back(line);
        }
    }

    fn flush(&self) {}
}

pub(crate) fn install() {
    // Fails only if the module is initialised again, in another interpreter.
    let _ = log::set_logger(&Bridge);
    log::set_max_level(LevelFilter::Info);
}

/// Log lines from this level of `logging` on; the others cost nothing.
#[pyfunction]
pub(crate) fn set_log_level(level: i64) {
    log::set_max_level(match level {
        ..=9 => LevelFilter::Trace,
        10..=19 => LevelFilter::Debug,
        20..=29 => LevelFilter::Info,
        30..=39 => LevelFilter::Warn,
        40..=49 => LevelFilter::Error,
        50.. => LevelFilter::Off,
    });
}

/// The descriptor that is readable while `take_log` has something; made at the first call.
#[pyfunction]
pub(crate) fn log_fd() -> PyResult<RawFd> {
    let mut queue = queue();
    if queue.bell.is_none() {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        queue.bell = Some(EventFd::from_flags(flags).map_err(std::io::Error::from)?);
    }
    Ok(queue.bell.as_ref().map_or(-1, AsRawFd::as_raw_fd))
}

/// All lines that are there, and how many there was no room for.
#[pyfunction]
pub(crate) fn take_log() -> (Vec<Line>, u64) {
    let mut queue = queue();
    if let Some(bell) = &queue.bell {
        // Fails only if it is not readable.
        let _ = bell.read();
    }
    (queue.lines.drain(..).collect(), std::mem::take(&mut queue.dropped))
}

// Nothing is locked before the fork: hooks of others run between ours and the fork, and one that
// lets another Python thread run would wait for ever if that thread came for the lock.
/// In the child, after a fork: an empty queue with a descriptor of its own.
#[pyfunction]
pub(crate) fn reset_log() {
    let inherited = Generation::newest();
    match inherited.queue.try_lock() {
        Ok(mut queue) => *queue = Queue { lines: VecDeque::new(), dropped: 0, bell: None },
        // Inherited locked by a thread that the child does not have. What it holds stays behind.
        Err(_) => {
            // Fails only if there is one already, which `newest` would have found.
            let _ = inherited.next.set(Box::new(Generation::new()));
        }
    }
}
