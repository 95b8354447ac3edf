// SPDX-License-Identifier: BSD-2-Clause
//! The server's end, and the clients that it has.

use crate::arguments::{Batch, Deadline, Format, PathArgument, Payload, Room, Timeout};
use crate::endpoint::{Endpoint, with_scratch};
use crate::errors::{config, exception};
use crate::transfer::{Slots, Wishes};
use crate::{arguments, info, options};
use mptunnel_core::options::{Role, parse_listen};
use mptunnel_core::{Arrival, Error, PeerId, PeerInfo};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

type Core = Endpoint<mptunnel_core::Server>;

/// The server's end: see `mptunnel.Server`, which adds what Python says better.
#[pyclass(subclass, frozen, module = "mptunnel._mptunnel")]
pub(crate) struct Server {
    endpoint: Arc<Core>,
}

#[pymethods]
impl Server {
    #[new]
    fn new(
        py: Python<'_>,
        addr: &str,
        options: Vec<(String, String)>,
        key: Option<[u8; 32]>,
        timeout: Timeout,
    ) -> PyResult<Self> {
        let plan = options::plan(py, Role::Server, addr, &options, &[], key.is_some())?;
        let (ip, port) = parse_listen(&plan.at).map_err(|error| config(py, error))?;
        // Reads files and starts threads.
        let core = py.detach(|| {
            let builder = mptunnel_core::Server::builder().settings(plan.settings);
            let builder = match ip {
                Some(ip) => builder.listen(SocketAddr::new(ip, port)),
                None => builder.port(port),
            };
            match &key {
                Some(key) => builder.key(key).bind(),
                None => builder.bind(),
            }
        });
        let core = core.map_err(|error| exception(py, error))?;
        Ok(Server { endpoint: Endpoint::new(core, timeout) })
    }

    /// Send one datagram to a client over all its paths. Return its length.
    ///
    /// data
    ///     Any bytes-like object, which is not kept.
    /// peer
    ///     The `Peer` that `recv_from` returned, or its id.
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
    /// Raises `UnknownPeer` if the client is gone; `NoPath`: nothing was sent; `PayloadTooLarge`;
    /// `WouldBlock` or `TimedOut` while all sockets are full; `Interrupted`, `Closed`, `Forked`,
    /// `Failed`. Any thread may call it at any time.
    #[pyo3(signature = (
        data, peer, *, copies = 0, path = None, deadline = None, timeout = Timeout::Default
    ))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn send_to(
        &self,
        py: Python<'_>,
        data: Payload,
        peer: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = arguments::copies)] copies: u8,
        path: Option<PathArgument>,
        deadline: Option<Deadline>,
        timeout: Timeout,
    ) -> PyResult<usize> {
        let peer = self.peer_id(peer)?;
        let bytes = data.bytes();
        let wishes = Wishes::new(copies, path, deadline, timeout);
        wishes.send(&self.endpoint, py, |core, options| core.send_with(bytes, peer, options))?;
        Ok(bytes.len())
    }

    /// Send datagrams to one client, in few system calls. Return how many were taken.
    ///
    /// datagrams
    ///     An iterable of bytes-like objects.
    /// peer, copies, path, deadline, timeout
    ///     As for `send_to`, for all of them.
    ///
    /// Raises what `send_to` raises, if the first one could not be sent. Other threads run while a
    /// batch of more than 32 KiB is encrypted and sent.
    #[pyo3(signature = (
        datagrams, peer, *, copies = 0, path = None, deadline = None, timeout = Timeout::Default
    ))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn send_many(
        &self,
        py: Python<'_>,
        datagrams: Batch,
        peer: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = arguments::copies)] copies: u8,
        path: Option<PathArgument>,
        deadline: Option<Deadline>,
        timeout: Timeout,
    ) -> PyResult<usize> {
        let peer = self.peer_id(peer)?;
        let wishes = Wishes::new(copies, path, deadline, timeout);
        wishes.send_all(&self.endpoint, py, &datagrams, |core, batch, options| {
            core.send_batch_with(batch.iter().map(Payload::bytes), peer, options)
        })
    }

    /// Take the next datagram of any client, and return it with its `Peer`.
    ///
    /// Raises `TimedOut` after `timeout` seconds, or `WouldBlock` if that is 0; `Interrupted`,
    /// `Closed`, `Forked`, `Failed`. Any thread may call it at any time; each datagram goes to one
    /// of them.
    #[pyo3(signature = (*, timeout = Timeout::Default))]
    fn recv_from<'py>(
        &self,
        py: Python<'py>,
        timeout: Timeout,
    ) -> PyResult<(Bound<'py, PyBytes>, Peer)> {
        with_scratch(|scratch| {
            let arrival =
                self.endpoint.wait(py, timeout, |core, bound| core.recv_with(scratch, bound))?;
            Ok((PyBytes::new(py, &scratch[..arrival.len]), self.peer(arrival.peer)))
        })
    }

    /// Take the next datagram, or return `None` if there is none now.
    fn _recv_from_nowait<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Option<(Bound<'py, PyBytes>, Peer)>> {
        let core = self.endpoint.core(py)?;
        with_scratch(|scratch| match core.recv_with(scratch, Some(Duration::ZERO)) {
            Ok(Arrival { len, peer, .. }) => {
                Ok(Some((PyBytes::new(py, &scratch[..len]), self.peer(peer))))
            }
            Err(Error::WouldBlock) => Ok(None),
            Err(error) => Err(exception(py, error)),
        })
    }

    /// Take the next datagram into the beginning of a writable buffer. Return its length.
    ///
    /// Raises `BufferTooSmall` if it does not fit: it is kept. Otherwise as `recv_from`.
    #[pyo3(signature = (buffer, *, timeout = Timeout::Default))]
    fn recv_from_into(
        &self,
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        timeout: Timeout,
    ) -> PyResult<(usize, Peer)> {
        let room = Room::of(buffer)?;
        with_scratch(|scratch| {
            let capacity = room.capacity().min(scratch.len());
            let target = &mut scratch[..capacity];
            let arrival =
                self.endpoint.wait(py, timeout, |core, bound| core.recv_with(target, bound))?;
            room.fill(&scratch[..arrival.len])?;
            Ok((arrival.len, self.peer(arrival.peer)))
        })
    }

    /// Take the next datagram, with the path that brought it and the time of its arrival.
    ///
    /// Raises what `recv_from` raises.
    #[pyo3(signature = (*, timeout = Timeout::Default))]
    fn recv_message<'py>(&self, py: Python<'py>, timeout: Timeout) -> PyResult<Bound<'py, PyAny>> {
        with_scratch(|scratch| {
            let arrival =
                self.endpoint.wait(py, timeout, |core, bound| core.recv_with(scratch, bound))?;
            let peer = Bound::new(py, self.peer(arrival.peer))?.into_any();
            info::message(py, &scratch[..arrival.len], &arrival, Some(peer))
        })
    }

    /// Wait for a datagram, and take those that are there, at most `max_count`.
    ///
    /// Raises what `recv_from` raises.
    #[pyo3(signature = (max_count = 64, *, timeout = Timeout::Default))]
    fn recv_many<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = arguments::max_count)] max_count: usize,
        timeout: Timeout,
    ) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        // Most datagrams of a batch have the client of the one before: they share its object.
        let mut last: Option<Bound<'py, Peer>> = None;
        Slots::receive(
            &self.endpoint,
            py,
            max_count,
            timeout,
            |core, slots, bound| core.recv_batch(slots, bound),
            |slot| {
                let peer = match last.take().filter(|peer| peer.get().id == slot.peer()) {
                    Some(peer) => peer,
                    None => Bound::new(py, self.peer(slot.peer()))?,
                };
                list.append((PyBytes::new(py, slot.bytes()), &peer))?;
                last = Some(peer);
                Ok(())
            },
        )?;
        Ok(list)
    }

    /// Wait until a client is connected and one of its paths is up.
    ///
    /// Raises `TimedOut` after `timeout` seconds, or `WouldBlock` if that is 0; `Interrupted`,
    /// `Closed`, `Forked`, `Failed`.
    #[pyo3(signature = (timeout = Timeout::Default))]
    fn wait_ready(&self, py: Python<'_>, timeout: Timeout) -> PyResult<()> {
        self.endpoint.wait(py, timeout, |core, bound| core.wait_ready(bound))
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
    /// It is readable while `recv_from` with a timeout of 0 would return something, or `next_event`
    /// once that was called. Level-triggered. Nobody may read from it, write to it or close it.
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

    /// The largest datagram that this end accepts, in bytes; a client may accept less.
    #[getter]
    fn max_payload(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.endpoint.own_core(py)?.max_payload())
    }

    /// The ids of the keys in use, for comparing both ends. Not secret.
    #[getter]
    fn key_ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.endpoint.own_core(py)?.key_ids())
    }

    /// Where it listens: a tuple of pairs, address and port.
    #[getter]
    fn addresses<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let core = self.endpoint.own_core(py)?;
        PyTuple::new(py, core.local_addrs().iter().map(|at| (at.ip().to_string(), at.port())))
    }

    /// All clients, a tuple of `Peer`, in the order in which they came.
    #[getter]
    fn peers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let core = self.endpoint.own_core(py)?;
        let peers: Vec<_> = core.peers().iter().map(|peer| self.peer(peer.id)).collect();
        PyTuple::new(py, peers)
    }

    /// Counters of the whole server, a `Stats`.
    #[getter]
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        info::stats(py, &self.endpoint.own_core(py)?.stats(), None)
    }

    /// The value of an option, as text.
    fn _get(&self, py: Python<'_>, key: &str) -> PyResult<Option<String>> {
        self.endpoint.own_core(py)?.get(key).map_err(|error| exception(py, error))
    }

    /// Change an option, given as text.
    fn _set(&self, py: Python<'_>, key: &str, value: &str) -> PyResult<()> {
        self.endpoint.own_core(py)?.set(key, value).map_err(|error| exception(py, error))
    }

    /// Return everything that can be seen of the server as text: `"json"` or `"prometheus"`.
    #[pyo3(signature = (format = Format::Json))]
    fn metrics(&self, py: Python<'_>, format: Format) -> PyResult<String> {
        Ok(format.of(&self.endpoint.own_core(py)?.snapshot()))
    }
}

impl Server {
    fn peer(&self, id: PeerId) -> Peer {
        Peer { id, endpoint: self.endpoint.clone() }
    }

    /// The id of a client, from a `Peer` or as a number.
    fn peer_id(&self, peer: &Bound<'_, PyAny>) -> PyResult<PeerId> {
        let py = peer.py();
        if let Ok(peer) = peer.cast::<Peer>() {
            let peer = peer.get();
            if !Arc::ptr_eq(&peer.endpoint, &self.endpoint) {
                return Err(exception(py, Error::UnknownPeer(peer.id)));
            }
            return Ok(peer.id);
        }
        peer.extract::<u64>().map(PeerId).map_err(|_| {
            PyTypeError::new_err("a peer is an mptunnel.Peer or its id, a whole number")
        })
    }
}

/// A client of a server, as the address of datagrams. Two for the same client are equal.
#[pyclass(frozen, module = "mptunnel")]
pub(crate) struct Peer {
    id: PeerId,
    endpoint: Arc<Core>,
}

#[pymethods]
impl Peer {
    /// Its number, which no other client of this server ever has.
    #[getter]
    fn id(&self) -> u64 {
        self.id.0
    }

    /// Which application behind an mpclient; 0 for one that uses the library itself.
    #[getter]
    fn flow(&self) -> u16 {
        self.id.flow()
    }

    /// How often its process was restarted.
    ///
    /// Raises `UnknownPeer` if the client is gone.
    #[getter]
    fn restarts(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.info(py)?.restarts)
    }

    /// Its paths as they are now, a tuple of `Path`.
    ///
    /// Raises `UnknownPeer` if the client is gone.
    #[getter]
    fn paths<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        info::paths(py, &self.info(py)?.paths)
    }

    /// What went over all its paths, those of its earlier processes included, a `Traffic`.
    ///
    /// Raises `UnknownPeer` if the client is gone.
    #[getter]
    fn traffic<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        info::traffic(py, &self.info(py)?.traffic)
    }

    /// Its tunnel as a whole, a `Session`.
    ///
    /// Raises `UnknownPeer` if the client is gone.
    #[getter]
    fn session<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        info::session(py, &self.info(py)?.session)
    }

    /// The option `mode` that counts for it, in both directions: it may have been set at its end.
    ///
    /// Raises `UnknownPeer` if the client is gone.
    #[getter]
    fn mode(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.info(py)?.mode)
    }

    /// What its packets are sealed with: `chacha20-poly1305` or `aes-256-gcm`; `none` under the
    /// legacy protocol.
    ///
    /// Raises `UnknownPeer` if the client is gone.
    #[getter]
    fn cipher(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.info(py)?.cipher)
    }

    /// How many packets its receive window remembers.
    ///
    /// Raises `UnknownPeer` if the client is gone.
    #[getter]
    fn window(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.info(py)?.window)
    }

    /// End its session, for good: the client is told, and does not try again.
    fn dismiss(&self, py: Python<'_>) -> PyResult<()> {
        self.endpoint.own_core(py)?.dismiss(self.id);
        Ok(())
    }

    fn __int__(&self) -> u64 {
        self.id.0
    }

    fn __hash__(&self) -> u64 {
        self.id.0
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Peer>().is_ok_and(|other| {
            let other = other.get();
            self.id == other.id && Arc::ptr_eq(&self.endpoint, &other.endpoint)
        })
    }

    fn __repr__(&self) -> String {
        format!("<mptunnel.Peer {}>", self.id)
    }
}

impl Peer {
    fn info(&self, py: Python<'_>) -> PyResult<PeerInfo> {
        self.endpoint.own_core(py)?.peer(self.id).map_err(|error| exception(py, error))
    }
}
