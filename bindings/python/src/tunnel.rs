// SPDX-License-Identifier: BSD-2-Clause
//! The client's end.

use crate::arguments::{Batch, Deadline, Format, PathArgument, Payload, Room, Timeout};
use crate::endpoint::{Endpoint, Pace, with_scratch};
use crate::errors::exception;
use crate::transfer::{Slots, Wishes};
use crate::{arguments, info, options};
use mptunnel_core::options::Role;
use mptunnel_core::{Error, PathId, PeerId};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use std::sync::Arc;

/// The client's end: see `mptunnel.Tunnel`, which adds what Python says better.
#[pyclass(subclass, frozen, module = "mptunnel._mptunnel")]
pub(crate) struct Tunnel {
    endpoint: Arc<Endpoint<mptunnel_core::Tunnel>>,
}

#[pymethods]
impl Tunnel {
    #[new]
    fn new(
        py: Python<'_>,
        uri: &str,
        options: Vec<(String, String)>,
        paths: Vec<String>,
        key: Option<[u8; 32]>,
        timeout: Timeout,
    ) -> PyResult<Self> {
        let plan = options::plan(py, Role::Client, uri, &options, &paths, key.is_some())?;
        let mut builder = mptunnel_core::Tunnel::builder()
            .server(&plan.at)
            .settings(plan.settings)
            .paths(plan.paths);
        if let Some(key) = &key {
            builder = builder.key(key);
        }
        // Reads files and starts threads.
        let core = py.detach(|| builder.connect()).map_err(|error| exception(py, error))?;
        Ok(Tunnel { endpoint: Endpoint::new(core, timeout) })
    }

    /// Send one datagram of up to `max_payload` bytes, over all paths. Return its length.
    ///
    /// data
    ///     Any bytes-like object, which is not kept.
    /// flow
    ///     0 for a server that uses the library; 1 to 65534 behind an `mpserver`: each is an
    ///     application of its own for the target there.
    /// copies
    ///     Send over the so many best paths only; 0: as the policy says.
    /// path
    ///     Send over this `Path` only, or the path with this id.
    /// deadline
    ///     Seconds after which the datagram is of no use. It is never queued at this end: this
    ///     bounds the wait for room.
    /// timeout
    ///     Seconds to wait while *all* sockets are full. A send never waits for the network.
    ///
    /// Raises `NotConnected`, `NoPath` or `Refused`: nothing was sent, the tunnel goes on trying;
    /// `PayloadTooLarge`; `WouldBlock` or `TimedOut` while all sockets are full; `UnknownPath`;
    /// `Interrupted`, `Closed`, `Forked`, `Failed`. Any thread may call it at any time.
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    #[pyo3(signature = (
        data, *, flow = 0, copies = 0, path = None, deadline = None, timeout = Timeout::Default
    ))]
    fn send(
        &self,
        py: Python<'_>,
        data: Payload,
        #[pyo3(from_py_with = arguments::flow)] flow: u16,
        #[pyo3(from_py_with = arguments::copies)] copies: u8,
        path: Option<PathArgument>,
        deadline: Option<Deadline>,
        timeout: Timeout,
    ) -> PyResult<usize> {
        let bytes = data.bytes();
        let wishes = Wishes::new(copies, path, deadline, timeout);
        let to = PeerId(0).with_flow(flow);
        wishes.send(&self.endpoint, py, |core, options| {
            core.send_batch_with([bytes], to, options).map(drop)
        })?;
        Ok(bytes.len())
    }

    /// Send datagrams in order, in few system calls. Return how many were taken, the first ones.
    ///
    /// datagrams
    ///     An iterable of bytes-like objects.
    /// flow, copies, path, deadline, timeout
    ///     As for `send`, for all of them.
    ///
    /// Raises what `send` raises, if the first one could not be sent. Other threads run while a
    /// batch of more than 32 KiB is encrypted and sent.
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    #[pyo3(signature = (
        datagrams, *, flow = 0, copies = 0, path = None, deadline = None, timeout = Timeout::Default
    ))]
    fn send_many(
        &self,
        py: Python<'_>,
        datagrams: Batch,
        #[pyo3(from_py_with = arguments::flow)] flow: u16,
        #[pyo3(from_py_with = arguments::copies)] copies: u8,
        path: Option<PathArgument>,
        deadline: Option<Deadline>,
        timeout: Timeout,
    ) -> PyResult<usize> {
        let wishes = Wishes::new(copies, path, deadline, timeout);
        let to = PeerId(0).with_flow(flow);
        wishes.send_all(&self.endpoint, py, &datagrams, |core, batch, options| {
            core.send_batch_with(batch.iter().map(Payload::bytes), to, options)
        })
    }

    /// Take the next datagram, which is empty if an empty one was sent.
    ///
    /// Raises `TimedOut` after `timeout` seconds, or `WouldBlock` if that is 0; `Interrupted`,
    /// `Closed`, `Forked`, `Failed`. Any thread may call it at any time; each datagram goes to one
    /// of them.
    #[pyo3(signature = (*, timeout = Timeout::Default))]
    fn recv<'py>(&self, py: Python<'py>, timeout: Timeout) -> PyResult<Bound<'py, PyBytes>> {
        with_scratch(|scratch| {
            let arrival =
                self.endpoint.wait(py, timeout, |core, bound| core.recv_with(scratch, bound))?;
            Ok(PyBytes::new(py, &scratch[..arrival.len]))
        })
    }

    /// Take the next datagram, or return `None` if there is none now.
    fn _recv_nowait<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let core = self.endpoint.core(py)?;
        with_scratch(|scratch| match core.try_recv(scratch) {
            Ok(len) => Ok(Some(PyBytes::new(py, &scratch[..len]))),
            Err(Error::WouldBlock) => Ok(None),
            Err(error) => Err(exception(py, error)),
        })
    }

    /// Take the next datagram into the beginning of a writable buffer. Return its length.
    ///
    /// Raises `BufferTooSmall` if it does not fit: it is kept. Otherwise as `recv`.
    #[pyo3(signature = (buffer, *, timeout = Timeout::Default))]
    fn recv_into(
        &self,
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        timeout: Timeout,
    ) -> PyResult<usize> {
        let room = Room::of(buffer)?;
        with_scratch(|scratch| {
            let capacity = room.capacity().min(scratch.len());
            let target = &mut scratch[..capacity];
            let arrival =
                self.endpoint.wait(py, timeout, |core, bound| core.recv_with(target, bound))?;
            room.fill(&scratch[..arrival.len])?;
            Ok(arrival.len)
        })
    }

    /// Take the next datagram, with the path that brought it and the time of its arrival.
    ///
    /// Raises what `recv` raises.
    #[pyo3(signature = (*, timeout = Timeout::Default))]
    fn recv_message<'py>(&self, py: Python<'py>, timeout: Timeout) -> PyResult<Bound<'py, PyAny>> {
        with_scratch(|scratch| {
            let arrival =
                self.endpoint.wait(py, timeout, |core, bound| core.recv_with(scratch, bound))?;
            info::message(py, &scratch[..arrival.len], &arrival, None)
        })
    }

    /// Wait for a datagram, and take all that are there, at most `max_count`.
    ///
    /// Raises what `recv` raises.
    #[pyo3(signature = (max_count = 64, *, timeout = Timeout::Default))]
    fn recv_many<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = arguments::max_count)] max_count: usize,
        timeout: Timeout,
    ) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        Slots::receive(
            &self.endpoint,
            py,
            max_count,
            timeout,
            |core, slots, bound| core.recv_batch(slots, bound),
            |slot| list.append(PyBytes::new(py, slot.bytes())),
        )?;
        Ok(list)
    }

    /// Wait until there is a session and a path that answers.
    ///
    /// Raises `Refused` with the server's reason; after `timeout` seconds `NotConnected` with what
    /// is known of the reason; `Interrupted`, `Closed`, `Forked`, `Failed`.
    #[pyo3(signature = (timeout = Timeout::Default))]
    fn wait_ready(&self, py: Python<'_>, timeout: Timeout) -> PyResult<()> {
        wait_ready(py, &self.endpoint, timeout)
    }

    /// Take the next piece of news, the oldest first. See also `events`.
    ///
    /// From the first call on, events make the descriptor readable as well.
    ///
    /// Raises `TimedOut` after `timeout` seconds, or `WouldBlock` if that is 0; `Interrupted`,
    /// `Closed`, `Forked`.
    #[pyo3(signature = (*, timeout = Timeout::Default))]
    fn next_event<'py>(&self, py: Python<'py>, timeout: Timeout) -> PyResult<Bound<'py, PyAny>> {
        info::event(py, &self.endpoint.next_event(py, timeout)?)
    }

    /// Make every call that waits at present, in any thread, raise `Interrupted`.
    fn interrupt(&self, py: Python<'_>) -> PyResult<()> {
        self.endpoint.interrupt(py)
    }

    /// Set the timeout of calls that give none, in seconds: `None` waits for ever, 0 never.
    fn settimeout(&self, timeout: Timeout) {
        self.endpoint.set_timeout(timeout);
    }

    /// Return the timeout of calls that give none, in seconds; `None` waits for ever.
    fn gettimeout(&self) -> Option<f64> {
        self.endpoint.timeout().map(|timeout| timeout.as_secs_f64())
    }

    /// Return the descriptor for `select`, `poll` and event loops; -1 once closed.
    ///
    /// It is readable while `recv` with a timeout of 0 would return something, or `next_event` once
    /// that was called. Level-triggered. Nobody may read from it, write to it or close it.
    fn fileno(&self) -> i32 {
        self.endpoint.fd()
    }

    /// Say goodbye and stop, within three seconds at most. Calls that wait raise `Closed`.
    ///
    /// Closing again does nothing.
    fn close(&self, py: Python<'_>) {
        self.endpoint.close(py);
    }

    /// Whether `close` was called.
    #[getter]
    fn closed(&self) -> bool {
        self.endpoint.try_core().is_none()
    }

    /// The largest datagram that can be sent, in bytes: what both ends accept.
    #[getter]
    fn max_payload(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.endpoint.own_core(py)?.max_payload())
    }

    /// The id of the key in use, for comparing both ends. Not secret.
    #[getter]
    fn key_id(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.endpoint.own_core(py)?.key_id().to_owned())
    }

    /// All paths as they are now, a tuple of `Path`.
    #[getter]
    fn paths<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        info::paths(py, &self.endpoint.own_core(py)?.paths())
    }

    /// Add a path, described in the words of `open`. Return it as it is now, not connected yet.
    ///
    /// Raises `ConfigError` for wrong words, or if there are 32 paths.
    fn add_path<'py>(&self, py: Python<'py>, words: &str) -> PyResult<Bound<'py, PyAny>> {
        let core = self.endpoint.own_core(py)?;
        let id = core.add_path(words).map_err(|error| exception(py, error))?;
        match core.paths().iter().find(|path| path.id == id) {
            Some(path) => info::path(py, path),
            None => Err(exception(py, Error::UnknownPath(id))),
        }
    }

    /// Remove a path, a `Path` or its id, which is never used again.
    ///
    /// Raises `UnknownPath`.
    fn remove_path(&self, py: Python<'_>, path: PathArgument) -> PyResult<()> {
        let core = self.endpoint.own_core(py)?;
        core.remove_path(PathId(path.0)).map_err(|error| exception(py, error))
    }

    /// Counters of the tunnel, a `Stats`.
    #[getter]
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let seen = self.endpoint.own_core(py)?.snapshot();
        info::stats(py, &seen.stats, Some(&seen.session))
    }

    /// Change one word of a path while it runs, such as `t.set_path(path, "role", "backup")`.
    ///
    /// Raises `ConfigError` for a wrong word or value, `UnknownPath`.
    fn set_path(
        &self,
        py: Python<'_>,
        path: PathArgument,
        word: &str,
        value: &str,
    ) -> PyResult<()> {
        let core = self.endpoint.own_core(py)?;
        core.set_path(PathId(path.0), word, value).map_err(|error| exception(py, error))
    }

    /// The value of an option, as text.
    fn _get(&self, py: Python<'_>, key: &str) -> PyResult<Option<String>> {
        self.endpoint.own_core(py)?.get(key).map_err(|error| exception(py, error))
    }

    /// Change an option, given as text.
    fn _set(&self, py: Python<'_>, key: &str, value: &str) -> PyResult<()> {
        self.endpoint.own_core(py)?.set(key, value).map_err(|error| exception(py, error))
    }

    /// Return everything that can be seen of the tunnel as text: `"json"` or `"prometheus"`.
    #[pyo3(signature = (format = Format::Json))]
    fn metrics(&self, py: Python<'_>, format: Format) -> PyResult<String> {
        Ok(format.of(&self.endpoint.own_core(py)?.snapshot()))
    }
}

fn wait_ready(
    py: Python<'_>,
    endpoint: &Endpoint<mptunnel_core::Tunnel>,
    timeout: Timeout,
) -> PyResult<()> {
    // After a slice the library says why there is no session yet: the last word is the answer.
    let last = Mutex::new(String::new());
    let outcome = endpoint.try_wait(py, Pace::Quick, timeout, |core, bound| {
        match core.wait_ready(bound) {
            Err(Error::NotConnected(why)) => {
                *last.lock() = why;
                Err(Error::WouldBlock)
            }
            outcome => outcome,
        }
    })?;
    outcome.map_err(|error| match error {
        Error::WouldBlock | Error::TimedOut(_) => {
            exception(py, Error::NotConnected(last.into_inner()))
        }
        error => exception(py, error),
    })
}
