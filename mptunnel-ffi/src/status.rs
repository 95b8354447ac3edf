// SPDX-License-Identifier: BSD-2-Clause
//! What a call answers.

use std::ffi::{c_char, c_int};

/// What a call answers: 0, or a negative number from this list. A number keeps its meaning for
/// ever; new ones may be added, so treat one that you do not know as a failure.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum mpt_status {
    /// Done.
    MPT_OK = 0,

    /// There is nothing now, or all sockets are full, and the timeout was 0.
    MPT_EAGAIN = -1,
    /// Nothing happened within the timeout.
    MPT_ETIMEDOUT = -2,
    /// Another thread called mpt_interrupt().
    MPT_EINTR = -3,
    /// Receiving: the next datagram is longer than the buffer; it is kept. Sending: the datagram is
    /// longer than mpt_max_payload(); nothing was sent. mpt_genkey(): the buffer is too small.
    MPT_EMSGSIZE = -4,

    /// An argument is NULL or has a value that makes no sense.
    MPT_EINVAL = -10,
    /// The handle is not open: it was closed, is of another type, or never was a handle.
    MPT_EBADF = -11,
    /// A setting is wrong, missing, does not go with another, or cannot change now.
    MPT_ECONFIG = -12,
    /// This kind of endpoint, or this build of the library, cannot do that.
    MPT_ENOTSUP = -13,
    /// A callback of the library called back into it.
    MPT_EBUSY = -14,

    /// There is no session (yet, or not any more): nothing was sent. Attempts go on by themselves.
    MPT_ENOTCONN = -20,
    /// No path is usable now, or the chosen one is down: nothing was sent. Paths heal by themselves.
    MPT_ENOPATH = -21,
    /// No such peer is connected.
    MPT_EPEER = -22,
    /// There is no such path.
    MPT_EPATH = -23,
    /// The server refused this client; mpt_last_error() says why.
    MPT_EREFUSED = -24,

    /// The endpoint is closed: by mpt_close() in another thread, or by the other end for good.
    MPT_ECLOSED = -30,
    /// The handle was inherited through fork(): open a new one in the child.
    MPT_EFORKED = -31,
    /// The library found itself broken and stopped this endpoint. Please report it.
    MPT_EPANIC = -32,

    /// The system refused; mpt_last_error() says what and why.
    MPT_ESYSTEM = -40,
}

pub(crate) use mpt_status as Status;

const ALL: &[(Status, &std::ffi::CStr)] = &[
    (Status::MPT_OK, c"success"),
    (Status::MPT_EAGAIN, c"the call would have to wait"),
    (Status::MPT_ETIMEDOUT, c"timed out"),
    (Status::MPT_EINTR, c"interrupted"),
    (Status::MPT_EMSGSIZE, c"the datagram does not fit"),
    (Status::MPT_EINVAL, c"invalid argument"),
    (Status::MPT_EBADF, c"not an open handle"),
    (Status::MPT_ECONFIG, c"wrong setting"),
    (Status::MPT_ENOTSUP, c"not supported here"),
    (Status::MPT_EBUSY, c"called from a callback of the library"),
    (Status::MPT_ENOTCONN, c"not connected"),
    (Status::MPT_ENOPATH, c"no path is usable"),
    (Status::MPT_EPEER, c"no such peer"),
    (Status::MPT_EPATH, c"no such path"),
    (Status::MPT_EREFUSED, c"refused by the server"),
    (Status::MPT_ECLOSED, c"the endpoint is closed"),
    (Status::MPT_EFORKED, c"the handle belongs to the parent process"),
    (Status::MPT_EPANIC, c"the library failed"),
    (Status::MPT_ESYSTEM, c"system error"),
];

/// A few words for a status: static, never NULL, also for numbers that are none.
/// mpt_last_error() says more about the last failure.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_strerror(code: c_int) -> *const c_char {
    let known = ALL.iter().find(|(status, _)| *status as c_int == code);
    known.map_or(c"unknown status", |(_, text)| text).as_ptr()
}
