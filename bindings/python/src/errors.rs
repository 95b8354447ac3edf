// SPDX-License-Identifier: BSD-2-Clause
//! From errors of mptunnel-core to exceptions, one to one.

use mptunnel_core::Error;
use nix::errno::Errno;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use std::error::Error as _;

static ERRORS: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// The exception for `error`: a class of `mptunnel._errors` with the errno of the system and the
/// message of the library.
pub(crate) fn exception(py: Python<'_>, error: Error) -> PyErr {
    let (class, errno) = match &error {
        Error::TimedOut(_) => ("TimedOut", Errno::ETIMEDOUT),
        Error::WouldBlock => ("WouldBlock", Errno::EAGAIN),
        Error::Interrupted => ("Interrupted", Errno::EINTR),
        Error::PayloadTooLarge { .. } => ("PayloadTooLarge", Errno::EMSGSIZE),
        Error::BufferTooSmall { .. } => ("BufferTooSmall", Errno::ENOBUFS),
        Error::NotConnected(_) => ("NotConnected", Errno::ENOTCONN),
        Error::NoPath => ("NoPath", Errno::ENETUNREACH),
        Error::UnknownPeer(_) => ("UnknownPeer", Errno::EHOSTUNREACH),
        Error::UnknownPath(_) => ("UnknownPath", Errno::ENODEV),
        Error::Refused(_) => ("Refused", Errno::ECONNREFUSED),
        Error::Closed => ("Closed", Errno::EBADF),
        Error::Forked => ("Forked", Errno::EPERM),
        Error::Failed(_) => ("Failed", Errno::ENOTRECOVERABLE),
        Error::Unsupported(_) => ("Unsupported", Errno::EOPNOTSUPP),
        Error::Config(_) => ("ConfigError", Errno::EINVAL),
        Error::Io { source, .. } => {
            ("SystemFailure", source.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
        }
        _ => ("Error", Errno::EIO),
    };
    let text = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    match class_of(py, class) {
        Ok(class) => PyErr::from_type(class, (errno as i32, text)),
        Err(error) => error,
    }
}

/// The exception for wrong options.
pub(crate) fn config(py: Python<'_>, error: impl ToString) -> PyErr {
    exception(py, Error::Config(error.to_string()))
}

fn class_of<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyType>> {
    let module = ERRORS.get_or_try_init(py, || py.import("mptunnel._errors").map(Bound::unbind))?;
    Ok(module.bind(py).getattr(name)?.cast_into::<PyType>()?)
}
