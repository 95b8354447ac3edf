// SPDX-License-Identifier: BSD-2-Clause
//! Whether an end still works, and how its thread is woken.

use crate::io::client::EventSink;
use crate::io::fork::ForkGuard;
use crate::io::thread;
use crate::io::wake::EventFd;
use crate::sync::Mutex;
use crate::{Error, Event};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long closing waits for the thread.
const JOIN_WITHIN: Duration = Duration::from_secs(2);

/// What both kinds of end have of a life.
pub(super) struct Life {
    fork: ForkGuard,
    failed: OnceLock<String>,
    stopping: AtomicBool,
    pub(super) wake: EventFd,
    sink: EventSink,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Life {
    pub(super) fn new(sink: EventSink) -> Result<Self, Error> {
        let io = |op: &'static str| move |source| Error::Io { op: op.to_owned(), source };
        Ok(Life {
            fork: ForkGuard::new().map_err(io("memory for the fork guard"))?,
            failed: OnceLock::new(),
            stopping: AtomicBool::new(false),
            wake: EventFd::new().map_err(io("eventfd"))?,
            sink,
            thread: Mutex::new(None),
        })
    }

    /// Starts the one thread. `failed` is told if it panics.
    pub(super) fn start(
        &self,
        body: impl FnOnce() + Send + 'static,
        failed: impl FnOnce(String) + Send + 'static,
    ) -> Result<(), Error> {
        let thread = thread::start("mpt-legacy", body, failed)
            .map_err(|source| Error::Io { op: "starting thread mpt-legacy".to_owned(), source })?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Whether calls may go on; the reason if not.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.fork.is_child() {
            return Err(Error::Forked);
        }
        if let Some(why) = self.failed.get() {
            return Err(Error::Failed(why.clone()));
        }
        if self.is_stopping() {
            return Err(Error::Closed);
        }
        Ok(())
    }

    pub(super) fn is_forked(&self) -> bool {
        self.fork.is_child()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    pub(super) fn fail(&self, why: &str) {
        log::error!(target: "mptunnel::io", "the tunnel failed and stops: {why}");
        self.failed.get_or_init(|| why.to_owned());
        self.stopping.store(true, Relaxed);
        self.tell(Event::Closed);
    }

    pub(super) fn tell(&self, event: Event) {
        (self.sink)(event);
    }

    /// Stops the thread, within a bound; `false` if there is nothing to stop: it was done before, or
    /// this is a forked child, whose parent has the thread.
    pub(super) fn stop(&self) -> bool {
        if self.stopping.swap(true, Relaxed) {
            return false;
        }
        let thread = self.thread.lock().take();
        if self.fork.is_child() {
            return false;
        }
        self.wake.set();
        if !thread::join(thread.into_iter().collect(), JOIN_WITHIN) {
            log::warn!(target: "mptunnel::io", "a thread did not stop in time and is left behind");
        }
        true
    }
}
