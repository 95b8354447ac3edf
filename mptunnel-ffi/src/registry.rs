// SPDX-License-Identifier: BSD-2-Clause
//! Which handles are open. A handle is a number that looks like a pointer and is none.
//!
//! After `fork` the child has a table of its own, because a lock of the old one may have been held
//! by a thread that the child does not have. Numbers go on where they were, so a handle of the
//! parent is recognised by being older than the child's table.

use crate::boundary::Fail;
use crate::callback::{LogHook, Logger};
use crate::config::ConfigState;
use crate::status::Status;
use mptunnel_core::{Endpoint, Error, ForkGuard, log_context};
use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Handles differ by this, and their lowest bits tell what they are: no object of a program is
/// aligned so badly.
const STEP: usize = 16;
const ENDPOINT: usize = 7;
const CONFIG: usize = 11;

/// Handles that were ever given out in this process and its ancestors.
static COUNT: AtomicUsize = AtomicUsize::new(1);
/// The table of this process. It stays for ever: a thread may be looking at it at any time.
static PROCESS: AtomicPtr<Process> = AtomicPtr::new(ptr::null_mut());

/// What a process has open.
pub(crate) struct Process {
    guard: ForkGuard,
    /// The first count that is this process's.
    first: usize,
    endpoints: RwLock<HashMap<usize, Arc<Open>>>,
    configs: RwLock<HashMap<usize, Arc<Mutex<ConfigState>>>>,
    /// Where the messages of an endpoint go.
    pub(crate) logs: RwLock<HashMap<u64, Arc<LogHook>>>,
}

/// An endpoint that is open.
pub(crate) struct Open {
    pub(crate) endpoint: Endpoint,
    /// The number by which its threads and calls are known to the logger; 0 without a log hook.
    context: u64,
    pub(crate) callbacks: Vec<Arc<dyn Retire>>,
    /// A call broke an invariant: nothing that it left half done is looked at any more.
    broken: AtomicBool,
}

/// A callback that may be called until its endpoint is closed.
pub(crate) trait Retire: Send + Sync {
    /// Waits until it is not running, and keeps it from running again.
    fn retire(&self);
}

/// Nothing is left half done under these locks, so a panic under one is no reason to stop.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// The table of this process.
pub(crate) fn process() -> Result<&'static Process, Fail> {
    let known = PROCESS.load(Acquire);
    // SAFETY: NULL, or from `Box::into_raw` below and never freed.
    if let Some(process) = unsafe { known.as_ref() }
        && !process.guard.is_child()
    {
        return Ok(process);
    }
    let guard = ForkGuard::new()
        .map_err(|error| Fail::new(Status::MPT_ESYSTEM, format!("fork guard: {error}")))?;
    let new = Box::into_raw(Box::new(Process {
        guard,
        first: COUNT.load(Relaxed),
        endpoints: RwLock::default(),
        configs: RwLock::default(),
        logs: RwLock::default(),
    }));
    let process = match PROCESS.compare_exchange(known, new, AcqRel, Acquire) {
        Ok(_) => new,
        Err(others) => {
            // SAFETY: just made, and nobody else has seen it.
            drop(unsafe { Box::from_raw(new) });
            others
        }
    };
    // SAFETY: not NULL, as one of the two was stored, and never freed.
    Ok(unsafe { &*process })
}

/// A number that no handle had before.
pub(crate) fn next_count() -> Result<usize, Fail> {
    // First, as what is older than the table counts as the parent's.
    process()?;
    let count = COUNT.fetch_add(1, Relaxed);
    if count < usize::MAX / STEP {
        return Ok(count);
    }
    COUNT.fetch_sub(1, Relaxed);
    Err(Fail::of(Status::MPT_ESYSTEM, "handles have run out"))
}

fn handle(count: usize, kind: usize) -> usize {
    count * STEP + kind
}

/// Why a number is not an open handle.
fn not_open(process: &Process, handle: usize, kind: usize) -> Fail {
    let count = handle / STEP;
    if handle == 0 {
        Fail::invalid("the handle is NULL")
    } else if handle % STEP == kind && (1..process.first).contains(&count) {
        Error::Forked.into()
    } else {
        Fail::of(Status::MPT_EBADF, "this is not an open handle: closed, or of another type")
    }
}

/// Takes an endpoint into the table.
pub(crate) fn add_endpoint(
    count: usize,
    endpoint: Endpoint,
    context: u64,
    callbacks: Vec<Arc<dyn Retire>>,
) -> Result<usize, Fail> {
    let open = Open { endpoint, context, callbacks, broken: AtomicBool::new(false) };
    let handle = handle(count, ENDPOINT);
    write(&process()?.endpoints).insert(handle, Arc::new(open));
    Ok(handle)
}

/// The endpoint behind a handle.
pub(crate) fn endpoint(handle: usize) -> Result<Arc<Open>, Fail> {
    let process = process()?;
    let found = read(&process.endpoints).get(&handle).cloned();
    found.ok_or_else(|| not_open(process, handle, ENDPOINT))
}

/// Takes an endpoint out of the table: who comes later finds the handle closed.
pub(crate) fn remove_endpoint(handle: usize) -> Result<Arc<Open>, Fail> {
    let process = process()?;
    let found = write(&process.endpoints).remove(&handle);
    found.ok_or_else(|| not_open(process, handle, ENDPOINT))
}

/// Takes a config into the table.
pub(crate) fn add_config(config: ConfigState) -> Result<usize, Fail> {
    let handle = handle(next_count()?, CONFIG);
    write(&process()?.configs).insert(handle, Arc::new(Mutex::new(config)));
    Ok(handle)
}

/// The config behind a handle.
pub(crate) fn config(handle: usize) -> Result<Arc<Mutex<ConfigState>>, Fail> {
    let process = process()?;
    let found = read(&process.configs).get(&handle).cloned();
    found.ok_or_else(|| not_open(process, handle, CONFIG))
}

/// Takes a config out of the table.
pub(crate) fn remove_config(handle: usize) -> Result<(), Fail> {
    let process = process()?;
    let found = write(&process.configs).remove(&handle);
    found.map(drop).ok_or_else(|| not_open(process, handle, CONFIG))
}

impl Open {
    /// Uses the endpoint. If that panics, this one is broken and all others go on.
    pub(crate) fn call<T>(
        &self,
        body: impl FnOnce(&Endpoint) -> Result<T, Fail>,
    ) -> Result<T, Fail> {
        if self.broken.load(Relaxed) {
            return Err(Fail::of(
                Status::MPT_EPANIC,
                "an earlier call on this endpoint failed: close it and open a new one",
            ));
        }
        let mark = Breakage { open: self };
        let before = (self.context != 0).then(|| log_context::set(self.context));
        #[cfg(feature = "inject-panic")]
        crate::boundary::injected(&crate::boundary::WITHIN);
        let result = body(&self.endpoint);
        if let Some(before) = before {
            log_context::set(before);
        }
        std::mem::forget(mark);
        result
    }

    /// Ends the endpoint, within its bounds, broken or not.
    pub(crate) fn close(&self) {
        self.endpoint.close();
        for callback in &self.callbacks {
            callback.retire();
        }
        if self.context != 0 {
            Logger::remove(self.context);
        }
    }
}

/// Dropped by a panic only.
struct Breakage<'a> {
    open: &'a Open,
}

impl Drop for Breakage<'_> {
    fn drop(&mut self) {
        self.open.broken.store(true, Relaxed);
        log_context::set(0);
        // Those who wait look again, and find it broken.
        self.open.endpoint.interrupt();
    }
}
