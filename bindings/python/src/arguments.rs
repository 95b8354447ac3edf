// SPDX-License-Identifier: BSD-2-Clause
//! What callers pass: timeouts, datagrams, buffers, paths.

use mptunnel_core::Snapshot;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyMemoryView, PySlice};
use std::ops::RangeInclusive;
use std::time::Duration;

/// A timeout as `socket` has it, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Timeout {
    /// Not given: that of the endpoint.
    Default,
    /// `None`.
    Never,
    /// A number of seconds; 0 does not wait.
    After(Duration),
}

impl Timeout {
    /// The timeout that waits for so long; `None` waits for ever.
    pub(crate) fn of(limit: Option<Duration>) -> Self {
        limit.map_or(Timeout::Never, Timeout::After)
    }

    /// `None` waits for ever.
    pub(crate) fn or(self, default: Option<Duration>) -> Option<Duration> {
        match self {
            Timeout::Default => default,
            Timeout::Never => None,
            Timeout::After(duration) => Some(duration),
        }
    }
}

impl<'py> FromPyObject<'_, 'py> for Timeout {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if object.is_none() {
            return Ok(Timeout::Never);
        }
        if object.is(object.py().Ellipsis()) {
            return Ok(Timeout::Default);
        }
        let seconds = seconds(&object, "timeout")?;
        // What no `Duration` holds is longer than anybody waits.
        Ok(Duration::try_from_secs_f64(seconds).map_or(Timeout::Never, Timeout::After))
    }
}

/// After how long a datagram is of no use any more, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(pub(crate) Duration);

impl<'py> FromPyObject<'_, 'py> for Deadline {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let seconds = seconds(&object, "deadline")?;
        if seconds == 0.0 {
            return Err(PyValueError::new_err("deadline = 0: expected more, or None for none"));
        }
        // What no `Duration` holds is later than anybody waits.
        Ok(Deadline(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)))
    }
}

/// A number of seconds, not negative, which may be infinite.
fn seconds(object: &Bound<'_, PyAny>, what: &str) -> PyResult<f64> {
    let seconds: f64 = match object.extract() {
        Ok(seconds) => seconds,
        // A whole number that no `f64` holds.
        Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => {
            if object.lt(0)? {
                f64::NEG_INFINITY
            } else {
                f64::INFINITY
            }
        }
        Err(_) => {
            let kind = kind_of(object);
            let message = format!("{what} must be a number of seconds or None, not {kind}");
            return Err(PyTypeError::new_err(message));
        }
    };
    if seconds.is_nan() || seconds < 0.0 {
        return Err(PyValueError::new_err(format!(
            "{what} = {seconds}: expected 0 or more seconds, or None"
        )));
    }
    Ok(seconds)
}

/// An argument that is a whole number of `range`.
fn whole(object: &Bound<'_, PyAny>, what: &str, range: RangeInclusive<i64>) -> PyResult<i64> {
    let (least, most) = range.clone().into_inner();
    match object.extract::<i64>() {
        Ok(number) if range.contains(&number) => Ok(number),
        Err(error) if error.is_instance_of::<PyTypeError>(object.py()) => {
            let kind = kind_of(object);
            Err(PyTypeError::new_err(format!("{what} must be a whole number, not {kind}")))
        }
        // Also of what no `i64` holds.
        _ => Err(PyOverflowError::new_err(format!(
            "{what} must be a whole number from {least} to {most}"
        ))),
    }
}

/// Which application: the number above is all of them, in messages of the protocol.
pub(crate) fn flow(object: &Bound<'_, PyAny>) -> PyResult<u16> {
    whole(object, "flow", 0..=0xfffe).map(|flow| u16::try_from(flow).unwrap_or(0))
}

/// How many copies.
pub(crate) fn copies(object: &Bound<'_, PyAny>) -> PyResult<u8> {
    whole(object, "copies", 0..=255).map(|copies| u8::try_from(copies).unwrap_or(0))
}

/// How many datagrams at most.
pub(crate) fn max_count(object: &Bound<'_, PyAny>) -> PyResult<usize> {
    let most = i64::try_from(isize::MAX).unwrap_or(i64::MAX);
    whole(object, "max_count", 0..=most).map(|count| usize::try_from(count).unwrap_or(0))
}

/// How to write down everything that can be seen of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Format {
    /// One JSON object.
    Json,
    /// The exposition format of Prometheus.
    Prometheus,
}

impl Format {
    pub(crate) fn of(self, snapshot: &Snapshot) -> String {
        match self {
            Format::Json => snapshot.to_json(),
            Format::Prometheus => snapshot.to_prometheus(),
        }
    }
}

impl<'py> FromPyObject<'_, 'py> for Format {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match object.extract::<&str>()? {
            "json" => Ok(Format::Json),
            "prometheus" => Ok(Format::Prometheus),
            other => Err(PyValueError::new_err(format!(
                "format = {other:?}: expected \"json\" or \"prometheus\""
            ))),
        }
    }
}

/// The bytes of one datagram to be sent.
pub(crate) enum Payload {
    /// A `bytes` object, which nobody can change.
    Shared(PyBackedBytes),
    /// A copy of what another buffer held.
    Copied(Vec<u8>),
}

impl Payload {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Payload::Shared(bytes) => bytes,
            Payload::Copied(bytes) => bytes,
        }
    }
}

impl<'py> FromPyObject<'_, 'py> for Payload {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Payload::Shared(bytes.to_owned().into()));
        }
        let buffer = match PyBuffer::<u8>::get(&object) {
            Ok(buffer) => buffer,
            Err(_) => PyBuffer::get(&bytes_view(&object)?)?,
        };
        buffer.to_vec(object.py()).map(Payload::Copied)
    }
}

/// Datagrams to be sent.
pub(crate) struct Batch(pub(crate) Vec<Payload>);

impl<'py> FromPyObject<'_, 'py> for Batch {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let payloads = object.try_iter()?.map(|item| item?.extract());
        payloads.collect::<PyResult<_>>().map(Batch)
    }
}

/// A view of the bytes of any object with a buffer: `bytearray`, `memoryview`, `array`, …
fn bytes_view<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let view = PyMemoryView::from(object).map_err(|_| {
        let kind = kind_of(object);
        PyTypeError::new_err(format!("a bytes-like object is required, not {kind}"))
    })?;
    // Elements of another type than bytes: their memory is what counts, as for `socket`.
    view.call_method1("cast", ("B",))
}

fn kind_of(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "this".to_owned(), |name| format!("'{name}'"))
}

/// The bytes of a buffer that is to be written to. It keeps its size as long as this lives.
pub(crate) struct Room<'py> {
    view: Bound<'py, PyAny>,
    capacity: usize,
}

impl<'py> Room<'py> {
    /// # Errors
    /// `TypeError` for what is no buffer, or a read-only one.
    pub(crate) fn of(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let view = bytes_view(object)?;
        if view.getattr("readonly")?.extract()? {
            let kind = kind_of(object);
            return Err(PyTypeError::new_err(format!("a writable buffer is required, not {kind}")));
        }
        Ok(Room { capacity: view.len()?, view })
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Puts `bytes` to the beginning.
    pub(crate) fn fill(&self, bytes: &[u8]) -> PyResult<()> {
        let py = self.view.py();
        let start = PySlice::new(py, 0, bytes.len() as isize, 1);
        self.view.set_item(start, PyBytes::new(py, bytes))
    }
}

/// The id of a path, from a `Path` or as a number.
pub(crate) struct PathArgument(pub(crate) u32);

impl<'py> FromPyObject<'_, 'py> for PathArgument {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let id = match object.extract::<u32>() {
            Ok(id) => Ok(id),
            Err(_) => object.getattr("id").and_then(|id| id.extract::<u32>()),
        };
        id.map(PathArgument).map_err(|_| {
            PyTypeError::new_err("a path is an mptunnel.Path or its id, a whole number")
        })
    }
}
