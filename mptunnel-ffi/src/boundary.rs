// SPDX-License-Identifier: BSD-2-Clause
//! What is around every entry point: no panic gets out, and every failure leaves its words.

use crate::status::Status;
use mptunnel_core::Error;
use std::cell::{Cell, RefCell};
use std::ffi::{CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why a call failed: the number, and what its words will be made from.
pub(crate) struct Fail {
    pub(crate) status: Status,
    why: Why,
}

/// Words are made when somebody asks for them: `MPT_EAGAIN` is nobody's error message.
enum Why {
    Text(String),
    Static(&'static str),
    Core(Error),
}

impl Fail {
    pub(crate) fn new(status: Status, why: impl Into<String>) -> Self {
        Fail { status, why: Why::Text(why.into()) }
    }

    pub(crate) const fn of(status: Status, why: &'static str) -> Self {
        Fail { status, why: Why::Static(why) }
    }

    pub(crate) const fn invalid(why: &'static str) -> Self {
        Fail::of(Status::MPT_EINVAL, why)
    }
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::TimedOut(_) => Status::MPT_ETIMEDOUT,
            Error::WouldBlock => Status::MPT_EAGAIN,
            Error::Interrupted => Status::MPT_EINTR,
            Error::PayloadTooLarge { .. } | Error::BufferTooSmall { .. } => Status::MPT_EMSGSIZE,
            Error::NotConnected(_) => Status::MPT_ENOTCONN,
            Error::NoPath => Status::MPT_ENOPATH,
            Error::UnknownPeer(_) => Status::MPT_EPEER,
            Error::UnknownPath(_) => Status::MPT_EPATH,
            Error::Refused(_) => Status::MPT_EREFUSED,
            Error::Closed => Status::MPT_ECLOSED,
            Error::Forked => Status::MPT_EFORKED,
            Error::Failed(_) => Status::MPT_EPANIC,
            Error::Unsupported(_) => Status::MPT_ENOTSUP,
            Error::Config(_) => Status::MPT_ECONFIG,
            _ => Status::MPT_ESYSTEM,
        };
        Fail { status, why: Why::Core(error) }
    }
}

/// A return type of C that can say that something failed.
pub(crate) trait Answer: Sized {
    fn of(status: Status) -> Self;
}

impl Answer for c_int {
    fn of(status: Status) -> Self {
        status as c_int
    }
}

impl Answer for isize {
    fn of(status: Status) -> Self {
        status as isize
    }
}

/// Runs the body of one entry point: nothing unwinds into the caller's frames.
pub(crate) fn boundary<T: Answer>(body: impl FnOnce() -> Result<T, Fail>) -> T {
    guarded(body).unwrap_or_else(|fail| {
        let status = fail.status;
        remember(fail.why);
        T::of(status)
    })
}

/// The same for entry points that answer something else than a number.
pub(crate) fn guarded<T>(body: impl FnOnce() -> Result<T, Fail>) -> Result<T, Fail> {
    // Unwind safety: what a panicking body was using is a handle, which is marked as broken before
    // the panic gets here (`Open::call`), or a value of the body's own.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        if IN_CALLBACK.get() {
            return Err(Fail::of(Status::MPT_EBUSY, "a callback may not call the library"));
        }
        #[cfg(feature = "inject-panic")]
        injected(&BEFORE);
        body()
    }));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let text = text.unwrap_or_else(|| "panic".to_owned());
        Err(Fail::new(Status::MPT_EPANIC, format!("the library failed, please report it: {text}")))
    })
}

thread_local! {
    static LAST: RefCell<Option<Why>> = const { RefCell::new(None) };
    static WORDS: RefCell<CString> = RefCell::new(CString::default());
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

fn remember(why: Why) {
    // A thread that is on its way out has no words any more.
    let _ = LAST.try_with(|last| *last.borrow_mut() = Some(why));
}

/// Keeps a failure whose number has nowhere to go.
pub(crate) fn remember_fail(fail: Fail) {
    remember(fail.why);
}

/// Calls into the user's code, from where the library cannot be called.
pub(crate) fn calling_back<R>(callback: impl FnOnce() -> R) -> R {
    let before = IN_CALLBACK.replace(true);
    let result = callback();
    IN_CALLBACK.set(before);
    result
}

/// The last failure of a call in this thread, in words and with its causes; "" if none failed.
///
/// Returns a string of the library's, never NULL, valid until the next call of this function in
/// the same thread. A call that succeeds does not clear it. Thread-safe: each thread has its own.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_last_error() -> *const c_char {
    let words = || {
        let text = LAST.with(|last| match &*last.borrow() {
            None => String::new(),
            Some(Why::Text(text)) => text.clone(),
            Some(Why::Static(text)) => (*text).to_owned(),
            Some(Why::Core(error)) => chain(error),
        });
        let text = CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default();
        WORDS.with(|words| {
            *words.borrow_mut() = text;
            words.borrow().as_ptr()
        })
    };
    // Not `guarded`: a callback may ask, and nothing here is injected.
    catch_unwind(words).unwrap_or(c"".as_ptr())
}

/// An error and what is behind it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[cfg(feature = "inject-panic")]
thread_local! {
    pub(crate) static BEFORE: Cell<bool> = const { Cell::new(false) };
    pub(crate) static WITHIN: Cell<bool> = const { Cell::new(false) };
}

/// Panics if that was asked for, once.
#[cfg(feature = "inject-panic")]
pub(crate) fn injected(when: &'static std::thread::LocalKey<Cell<bool>>) {
    if when.replace(false) {
        panic!("a test asked for it");
    }
}

/// Makes the next call of this thread panic: before it looks at its arguments, or, `within` not 0,
/// while it uses an endpoint. Only in builds for tests.
#[cfg(feature = "inject-panic")]
#[unsafe(no_mangle)]
pub extern "C" fn mpt_inject_panic(within: c_int) {
    BEFORE.set(within == 0);
    WITHIN.set(within != 0);
}
