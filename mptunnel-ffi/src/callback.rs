// SPDX-License-Identifier: BSD-2-Clause
//! The user's code that the library calls: the socket hook and the log hook.

use crate::boundary::calling_back;
use crate::registry::{self, Retire, read, write};
use libc::intptr_t;
use log::{Level, LevelFilter, Log, Metadata, Record};
use mptunnel_core::{SocketHook, log_context};
use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, OnceLock, RwLock, TryLockError};
use std::time::Duration;

/// Called with each new socket before it is bound and connected: the descriptor, which stays the
/// library's, and words that say what it is for (at a client those of the path, at a server
/// "listen=ADDR:PORT"). `user` is what was given to mpt_config_set_socket_hook(). Answer 0 to have
/// the socket used, or an errno to refuse it: a path waits and tries again, mpt_open() of a server
/// fails with MPT_ESYSTEM.
///
/// A client calls it on a thread of its own whenever a path gets a socket, and while it asks the
/// system from which address it would send now; a server calls it within mpt_open(). It must not
/// wait long, call this library, or throw. It is not called any more once mpt_close() returned.
pub type mpt_socket_hook = Option<
    unsafe extern "C" fn(user: *mut c_void, fd: intptr_t, path_spec: *const c_char) -> c_int,
>;

/// Called with each message of an endpoint: level 1 error, 2 warning, 3 information, 4 debug,
/// 5 trace; the part of the library that it comes from, such as "mptunnel::path"; and the message,
/// without a line end. The strings are gone after the call.
///
/// It is called on any thread of the library or on one that is in a call, several at a time. It
/// must not wait long, call this library, or throw. It is not called any more once mpt_close() of
/// the last endpoint that has it returned.
pub type mpt_log_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        level: c_int,
        target: *const c_char,
        message: *const c_char,
    ),
>;

/// How long closing waits for a callback that does not come back. Then it is left behind.
const PATIENCE: Duration = Duration::from_secs(2);

/// A function of the user's with its argument, for as long as it may be called.
struct Callback<F> {
    inner: RwLock<Option<(F, User)>>,
}

/// The user's pointer: the library only hands it back.
#[derive(Clone, Copy)]
pub(crate) struct User(pub(crate) *mut c_void);

// SAFETY: never dereferenced here. The header says that callbacks run on other threads, so whoever
// sets one sees to it that `user` may be used there.
unsafe impl Send for User {}

// SAFETY: as above.
unsafe impl Sync for User {}

impl<F: Copy> Callback<F> {
    fn call<R>(&self, call: impl FnOnce(F, *mut c_void) -> R) -> Option<R> {
        let inner = read(&self.inner);
        let (function, User(user)) = (*inner)?;
        Some(calling_back(|| call(function, user)))
    }
}

impl<F: Copy + Send + Sync> Retire for Callback<F> {
    fn retire(&self) {
        let until = mptunnel_core::clock() + PATIENCE;
        loop {
            match self.inner.try_write() {
                Ok(mut inner) => return *inner = None,
                Err(TryLockError::Poisoned(inner)) => return *inner.into_inner() = None,
                Err(TryLockError::WouldBlock) if mptunnel_core::clock() >= until => return,
                Err(TryLockError::WouldBlock) => pause(),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a lock of the standard library has no bounded wait")]
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

type SocketFn = unsafe extern "C" fn(*mut c_void, intptr_t, *const c_char) -> c_int;

/// The user's socket hook for one endpoint.
pub(crate) fn socket_hook(function: SocketFn, user: User) -> (SocketHook, Arc<dyn Retire>) {
    let callback = Arc::new(Callback { inner: RwLock::new(Some((function, user))) });
    let retire = callback.clone();
    let hook = SocketHook::new(move |fd: BorrowedFd<'_>, words: &str| {
        let words = CString::new(words)?;
        // SAFETY: the user promised that this is such a function; the string outlives the call.
        let answer = callback.call(|function, user| unsafe {
            function(user, fd.as_raw_fd() as intptr_t, words.as_ptr())
        });
        match answer {
            Some(0) => Ok(()),
            Some(errno) if errno > 0 => Err(io::Error::from_raw_os_error(errno)),
            Some(_) | None => Err(io::Error::from_raw_os_error(libc::EPERM)),
        }
    });
    (hook, retire)
}

type LogFn = unsafe extern "C" fn(*mut c_void, c_int, *const c_char, *const c_char);

/// Where the messages of an endpoint go.
pub(crate) struct LogHook {
    callback: Callback<LogFn>,
    level: LevelFilter,
}

impl LogHook {
    pub(crate) fn new(function: LogFn, user: User, level: LevelFilter) -> Arc<Self> {
        Arc::new(LogHook {
            callback: Callback { inner: RwLock::new(Some((function, user))) },
            level,
        })
    }

    /// The same for one endpoint, whose end is not that of the others with the same config.
    pub(crate) fn fresh(&self) -> Arc<Self> {
        let inner = RwLock::new(*read(&self.callback.inner));
        Arc::new(LogHook { callback: Callback { inner }, level: self.level })
    }
}

/// Hands each message to the hook of the endpoint that it is about, if that has one.
pub(crate) struct Logger;

impl Logger {
    /// `false`: the program has a logger of its own, which gets all messages.
    pub(crate) fn install() -> bool {
        static INSTALLED: OnceLock<bool> = OnceLock::new();
        *INSTALLED.get_or_init(|| log::set_logger(&Logger).is_ok())
    }

    /// Messages of this context go to `hook` from now on.
    pub(crate) fn add(context: u64, hook: Arc<LogHook>) {
        if let Ok(process) = registry::process() {
            let mut logs = write(&process.logs);
            logs.insert(context, hook);
            log::set_max_level(
                logs.values().map(|hook| hook.level).max().unwrap_or(LevelFilter::Off),
            );
        }
    }

    /// Messages of this context go nowhere from now on, and none is on its way.
    pub(crate) fn remove(context: u64) {
        let Ok(process) = registry::process() else { return };
        let hook = {
            let mut logs = write(&process.logs);
            let hook = logs.remove(&context);
            log::set_max_level(
                logs.values().map(|hook| hook.level).max().unwrap_or(LevelFilter::Off),
            );
            hook
        };
        if let Some(hook) = hook {
            hook.callback.retire();
        }
    }

    fn hook() -> Option<Arc<LogHook>> {
        let context = log_context::get();
        if context == 0 {
            return None;
        }
        read(&registry::process().ok()?.logs).get(&context).cloned()
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        Logger::hook().is_some_and(|hook| metadata.level() <= hook.level)
    }

    fn log(&self, record: &Record<'_>) {
        let Some(hook) = Logger::hook().filter(|hook| record.level() <= hook.level) else { return };
        let text = |text: String| CString::new(text.replace('\0', " ")).unwrap_or_default();
        let (target, message) = (text(record.target().to_owned()), text(record.args().to_string()));
        let level = match record.level() {
            Level::Error => 1,
            Level::Warn => 2,
            Level::Info => 3,
            Level::Debug => 4,
            Level::Trace => 5,
        };
        // SAFETY: the user promised that this is such a function; the strings outlive the call.
        hook.callback.call(|function, user| unsafe {
            function(user, level, target.as_ptr(), message.as_ptr());
        });
    }

    fn flush(&self) {}
}
