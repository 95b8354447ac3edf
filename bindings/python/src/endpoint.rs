// SPDX-License-Identifier: BSD-2-Clause
//! What both kinds of endpoint have in common: waiting, interrupting, closing.

use crate::arguments::Timeout;
use crate::errors::exception;
use mptunnel_core::{Attempts, Error, Event, Server, Tunnel};
use parking_lot::{Mutex, RwLock};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the main thread waits before it looks whether a signal came. Ctrl-C has to work within
/// 100 ms. A wait for the descriptor with `poll`, which a signal would end at once, is no better:
/// one that comes just before the call is entered is noticed only after it, so that it needs the
/// same slices; and while events that nobody fetches keep the descriptor readable it cannot wait.
const SLICE: Duration = Duration::from_millis(50);

/// An endpoint of mptunnel-core.
pub(crate) trait Core: Send + Sync + 'static {
    fn next_event(&self, timeout: Option<Duration>) -> Result<Event, Error>;
    fn interrupt(&self);
    fn attempts(&self) -> Attempts;
    fn close(&self);
    fn fd(&self) -> RawFd;
}

impl Core for Tunnel {
    fn next_event(&self, timeout: Option<Duration>) -> Result<Event, Error> {
        Tunnel::next_event(self, timeout)
    }

    fn interrupt(&self) {
        Tunnel::interrupt(self);
    }

    fn attempts(&self) -> Attempts {
        Tunnel::attempts(self)
    }

    fn close(&self) {
        Tunnel::close(self);
    }

    fn fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Core for Server {
    fn next_event(&self, timeout: Option<Duration>) -> Result<Event, Error> {
        Server::next_event(self, timeout)
    }

    fn interrupt(&self) {
        Server::interrupt(self);
    }

    fn attempts(&self) -> Attempts {
        Server::attempts(self)
    }

    fn close(&self) {
        Server::close(self);
    }

    fn fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// How long an attempt takes that does not wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pace {
    /// So short that letting other threads run would take longer.
    Quick,
    /// Long enough that they should run meanwhile.
    Long,
}

/// An endpoint as Python has it: open until somebody closes it.
pub(crate) struct Endpoint<C: Core> {
    /// `None` once it was closed. Calls that wait meanwhile hold it as well, and are the last to.
    core: RwLock<Option<Arc<C>>>,
    /// The timeout of calls that give none.
    timeout: Mutex<Option<Duration>>,
    /// The process that it belongs to.
    pid: u32,
}

impl<C: Core> Endpoint<C> {
    pub(crate) fn new(core: C, timeout: Timeout) -> Arc<Self> {
        Arc::new(Endpoint {
            core: RwLock::new(Some(Arc::new(core))),
            timeout: Mutex::new(timeout.or(None)),
            pid: std::process::id(),
        })
    }

    /// # Errors
    /// `Closed`.
    pub(crate) fn core(&self, py: Python<'_>) -> PyResult<Arc<C>> {
        self.try_core().ok_or_else(|| exception(py, Error::Closed))
    }

    /// The endpoint for calls that only look, or that mptunnel-core lets pass in a forked child:
    /// there, locks that they take may be held by threads of the parent.
    ///
    /// # Errors
    /// `Closed`, `Forked`.
    pub(crate) fn own_core(&self, py: Python<'_>) -> PyResult<Arc<C>> {
        let core = self.core(py)?;
        if std::process::id() != self.pid {
            return Err(exception(py, Error::Forked));
        }
        Ok(core)
    }

    pub(crate) fn try_core(&self) -> Option<Arc<C>> {
        self.core.read().clone()
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        *self.timeout.lock()
    }

    pub(crate) fn set_timeout(&self, timeout: Timeout) {
        *self.timeout.lock() = timeout.or(None);
    }

    /// Does `attempt` without waiting; if there is nothing yet, lets other threads run and waits.
    ///
    /// `attempt` gets how long it may wait, `None` for ever, and answers `TimedOut` or `WouldBlock`
    /// when that was not enough. It holds no reference to Python.
    pub(crate) fn wait<R: Send>(
        &self,
        py: Python<'_>,
        timeout: Timeout,
        attempt: impl FnMut(&C, Option<Duration>) -> Result<R, Error> + Send,
    ) -> PyResult<R> {
        self.try_wait(py, Pace::Quick, timeout, attempt)?.map_err(|error| exception(py, error))
    }

    /// As [`wait`](Self::wait); the inner result is the library's.
    pub(crate) fn try_wait<R: Send>(
        &self,
        py: Python<'_>,
        pace: Pace,
        timeout: Timeout,
        mut attempt: impl FnMut(&C, Option<Duration>) -> Result<R, Error> + Send,
    ) -> PyResult<Result<R, Error>> {
        let core = self.core(py)?;
        // An interruption while this does not wait, between two slices for example, counts as well.
        let call = core.attempts();
        let mut attempt = |bound| call.attempt(|| attempt(&core, bound));
        let first = match pace {
            Pace::Quick => attempt(Some(Duration::ZERO)),
            Pace::Long => py.detach(|| attempt(Some(Duration::ZERO))),
        };
        let limit = timeout.or(self.timeout());
        match first {
            Err(Error::WouldBlock | Error::TimedOut(_)) if limit == Some(Duration::ZERO) => {
                return Ok(Err(Error::WouldBlock));
            }
            Err(Error::WouldBlock | Error::TimedOut(_)) => {}
            outcome => return Ok(outcome),
        }
        // A deadline beyond what the clock can express never comes.
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let slice = is_main_thread(py)?.then_some(SLICE);
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let bound = match (left, slice) {
                (Some(left), Some(slice)) => Some(left.min(slice)),
                (left, slice) => left.or(slice),
            };
            match py.detach(|| attempt(bound)) {
                Err(Error::TimedOut(_) | Error::WouldBlock) => {}
                outcome => return Ok(outcome),
            }
            py.check_signals()?;
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return Ok(Err(Error::TimedOut(limit.unwrap_or_default())));
            }
        }
    }

    pub(crate) fn next_event(&self, py: Python<'_>, timeout: Timeout) -> PyResult<Event> {
        self.wait(py, timeout, |core, bound| core.next_event(bound))
    }

    pub(crate) fn interrupt(&self, py: Python<'_>) -> PyResult<()> {
        let core = self.own_core(py)?;
        core.interrupt();
        Ok(())
    }

    /// The descriptor, or -1 once it is closed.
    pub(crate) fn fd(&self) -> RawFd {
        self.try_core().map_or(-1, |core| core.fd())
    }

    /// Closes the endpoint, within the bounds of mptunnel-core. Closing again does nothing.
    pub(crate) fn close(&self, py: Python<'_>) {
        let core = self.core.write().take();
        if let Some(core) = core {
            py.detach(|| {
                core.close();
                drop(core);
            });
        }
    }
}

impl<C: Core> Drop for Endpoint<C> {
    fn drop(&mut self) {
        let mut core = self.core.get_mut().take();
        if core.is_none() {
            return;
        }
        // Ending it takes a while, in which other threads run: this one holds the interpreter if a
        // Python object was the last to have the endpoint.
        if Python::try_attach(|py| py.detach(|| drop(core.take()))).is_none() {
            drop(core);
        }
    }
}

/// Room for a datagram of any size, one for each thread, used again and again.
pub(crate) fn with_scratch<R>(run: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    // Taken out meanwhile: a signal handler of Python may call in again during a wait.
    let mut scratch = SCRATCH.take();
    if scratch.is_empty() {
        scratch.resize(MAX_DATAGRAM, 0);
    }
    let result = run(&mut scratch);
    SCRATCH.replace(scratch);
    result
}

/// Bytes: the most that the option `max-payload` allows.
pub(crate) const MAX_DATAGRAM: usize = 65_507;

/// Whether this is the thread that handles Python's signals.
fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    static THREADING: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let threading = THREADING.get_or_try_init(py, || py.import("threading").map(Bound::unbind))?;
    let threading = threading.bind(py);
    let here = threading.call_method0("get_ident")?;
    here.eq(threading.call_method0("main_thread")?.getattr("ident")?)
}
