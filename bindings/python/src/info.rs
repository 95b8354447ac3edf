// SPDX-License-Identifier: BSD-2-Clause
//! What can be seen of an endpoint, as the typed objects of `mptunnel._types`.

use mptunnel_core::{
    Arrival, Event, Losses, Lost, PairInfo, PathInfo, Queue, SessionInfo, Span, Stats, Traffic,
    Worth,
};
use nix::time::{ClockId, clock_gettime};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

static TYPES: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// Makes an object of the class `name`, whose fields have the names given.
fn object<'py>(
    py: Python<'py>,
    name: &str,
    fields: Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let types = TYPES.get_or_try_init(py, || py.import("mptunnel._types").map(Bound::unbind))?;
    types.bind(py).getattr(name)?.call((), Some(&fields))
}

/// Names and values as the keyword arguments of a class.
macro_rules! fields {
    ($py:expr, { $($name:ident: $value:expr),* $(,)? }) => {{
        let fields = PyDict::new($py);
        $(fields.set_item(pyo3::intern!($py, stringify!($name)), $value)?;)*
        fields
    }};
}

/// A tuple of what `show` makes of each item.
fn tuple<'py, T>(
    py: Python<'py>,
    items: &[T],
    show: impl Fn(&T) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, items.iter().map(show).collect::<PyResult<Vec<_>>>()?)
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

fn address(at: Option<SocketAddr>) -> Option<(String, u16)> {
    at.map(|at| (at.ip().to_string(), at.port()))
}

/// An `mptunnel.Path`.
pub(crate) fn path<'py>(py: Python<'py>, info: &PathInfo) -> PyResult<Bound<'py, PyAny>> {
    let quality = &info.quality;
    let stats = fields!(py, {
        rtt: seconds(quality.rtt),
        last_rtt: seconds(quality.last_rtt),
        min_rtt: seconds(quality.min_rtt),
        jitter: quality.jitter.as_secs_f64(),
        loss_out: quality.loss_out,
        loss_in: quality.loss_in,
        sent: info.sent,
        sent_bytes: info.sent_bytes,
        send_dropped: info.send_dropped,
        received: info.received,
        received_bytes: info.received_bytes,
        wins: info.wins,
        duplicates: info.duplicates,
        losses_out: losses(py, &info.losses_out)?,
        losses_in: losses(py, &info.losses_in)?,
        queue: info.queue.map(|waiting| queue(py, &waiting)).transpose()?,
        worth_out: worth(py, &info.worth_out)?,
        worth_in: worth(py, &info.worth_in)?,
        errors: errors(py, &info.errors)?,
        last_1s: info.last_1s.map(|last| span(py, &last)).transpose()?,
        last_10s: info.last_10s.map(|last| span(py, &last)).transpose()?,
    });
    let fields = fields!(py, {
        id: info.id.0,
        slot: info.slot,
        name: &info.name,
        words: &info.words,
        up: info.up,
        state: info.state.name(),
        reason: &*info.reason,
        since: info.since.as_secs_f64(),
        backup: info.backup,
        remote: address(info.remote),
        local: address(info.local),
        remote_before: address(info.remote_before),
        local_before: address(info.local_before),
        max_packet: info.max_packet,
        stats: object(py, "PathStats", stats)?,
    });
    object(py, "Path", fields)
}

fn losses<'py>(py: Python<'py>, losses: &Losses) -> PyResult<Bound<'py, PyAny>> {
    let lost = |lost: &Lost| object(py, "Lost", fields!(py, { sent: lost.sent, lost: lost.lost }));
    let fields = fields!(py, {
        last_1s: lost(&losses.last_1s)?,
        last_10s: lost(&losses.last_10s)?,
        total: lost(&losses.total)?,
    });
    object(py, "Losses", fields)
}

fn queue<'py>(py: Python<'py>, queue: &Queue) -> PyResult<Bound<'py, PyAny>> {
    let fields = fields!(py, {
        packets: queue.packets,
        bytes: queue.bytes,
        delay: queue.delay.as_secs_f64(),
        rate: queue.rate,
    });
    object(py, "Queue", fields)
}

fn worth<'py>(py: Python<'py>, worth: &Worth) -> PyResult<Bound<'py, PyAny>> {
    let fields = fields!(py, {
        samples: worth.samples,
        arrived: worth.arrived,
        first: worth.first,
        only: worth.only,
        mean_lead: seconds(worth.mean_lead),
    });
    object(py, "Worth", fields)
}

fn span<'py>(py: Python<'py>, span: &Span) -> PyResult<Bound<'py, PyAny>> {
    let fields = fields!(py, {
        length: span.length.as_secs_f64(),
        sent: span.sent,
        sent_bytes: span.sent_bytes,
        received: span.received,
        received_bytes: span.received_bytes,
    });
    object(py, "Span", fields)
}

/// A tuple of `mptunnel.ErrorCount`.
fn errors<'py>(py: Python<'py>, errors: &[(i32, u64)]) -> PyResult<Bound<'py, PyTuple>> {
    let count = |(errno, count): &(i32, u64)| {
        object(py, "ErrorCount", fields!(py, { errno: *errno, count: *count }))
    };
    tuple(py, errors, count)
}

/// An `mptunnel.Traffic`.
pub(crate) fn traffic<'py>(py: Python<'py>, traffic: &Traffic) -> PyResult<Bound<'py, PyAny>> {
    let fields = fields!(py, {
        sent: traffic.sent,
        sent_bytes: traffic.sent_bytes,
        send_dropped: traffic.send_dropped,
        received: traffic.received,
        received_bytes: traffic.received_bytes,
        wins: traffic.wins,
        duplicates: traffic.duplicates,
    });
    object(py, "Traffic", fields)
}

/// An `mptunnel.Session`.
pub(crate) fn session<'py>(py: Python<'py>, session: &SessionInfo) -> PyResult<Bound<'py, PyAny>> {
    let fields = fields!(py, {
        rekeys: session.rekeys,
        peer_restarts: session.peer_restarts,
        first_packets: session.first_packets,
        first_bytes: session.first_bytes,
        copies: session.copies,
        late: session.late,
        residual_loss_out: session.residual_loss_out,
        samples_out: session.samples_out,
        pairs: tuple(py, &session.pairs, |both| pair(py, both))?,
    });
    object(py, "Session", fields)
}

fn pair<'py>(py: Python<'py>, pair: &PairInfo) -> PyResult<Bound<'py, PyAny>> {
    let fields = fields!(py, {
        one: pair.one.0,
        other: pair.other.0,
        samples: pair.samples,
        lost_one: pair.lost_one,
        lost_other: pair.lost_other,
        lost_both: pair.lost_both,
        correlation: pair.correlation,
    });
    object(py, "Pair", fields)
}

/// A tuple of `mptunnel.Path`.
pub(crate) fn paths<'py>(py: Python<'py>, infos: &[PathInfo]) -> PyResult<Bound<'py, PyTuple>> {
    tuple(py, infos, |info| path(py, info))
}

/// An `mptunnel.Stats`, with the tunnel as a whole if there is one.
pub(crate) fn stats<'py>(
    py: Python<'py>,
    stats: &Stats,
    tunnel: Option<&SessionInfo>,
) -> PyResult<Bound<'py, PyAny>> {
    let reorder = fields!(py, {
        held: stats.reorder.held,
        given_up: stats.reorder.given_up,
        late: stats.reorder.late,
    });
    let drop = |(reason, count): &(&str, u64)| {
        object(py, "Drop", fields!(py, { reason: *reason, count: *count }))
    };
    let fields = fields!(py, {
        connected: stats.connected,
        silent: seconds(stats.silent),
        traffic: traffic(py, &stats.traffic)?,
        session: tunnel.map(|tunnel| session(py, tunnel)).transpose()?,
        reorder: object(py, "Reorder", reorder)?,
        drops: tuple(py, &stats.drops, drop)?,
        unattributed: stats.unattributed,
        queue_dropped: stats.queue_dropped,
        events_dropped: stats.events_dropped,
        socket_errors: stats.socket_errors,
        errors: errors(py, &stats.errors)?,
        kernel_dropped: stats.kernel_dropped,
        receive_buffer: stats.receive_buffer,
        mode: some_word(stats.mode),
        cipher: some_word(stats.cipher),
        backend: stats.backend,
    });
    object(py, "Stats", fields)
}

/// `None` for a word that there is not.
fn some_word(word: &str) -> Option<&str> {
    Some(word).filter(|word| !word.is_empty())
}

/// An `mptunnel.Event`.
pub(crate) fn event<'py>(py: Python<'py>, event: &Event) -> PyResult<Bound<'py, PyAny>> {
    let fields = fields!(py, { kind: event.name(), text: event.to_string() });
    let of_path = event.path();
    if let Some((_, path)) = of_path {
        fields.set_item("path", path.0)?;
    }
    // At a tunnel there is one peer, which has no number.
    let peer = of_path.map(|(peer, _)| peer).or(event.peer()).filter(|peer| peer.0 != 0);
    if let Some(peer) = peer {
        fields.set_item("peer", peer.0)?;
    }
    match event {
        Event::ServerSilent(silence) => fields.set_item("silence", silence.as_secs_f64())?,
        Event::Refused(why) | Event::PeerRefused(why) | Event::PeerGone(_, why) => {
            fields.set_item("reason", why)?;
        }
        Event::UnknownKey(id) => fields.set_item("key_id", id)?,
        Event::PathUp(_, name) => fields.set_item("name", name)?,
        Event::PathDown(_, name, why) => {
            fields.set_item("name", name)?;
            fields.set_item("reason", why)?;
        }
        Event::FlowClosed { flow, code, .. } => {
            fields.set_item("flow", flow)?;
            fields.set_item("code", code)?;
        }
        Event::PeerPathUp(_, _, at) | Event::PeerPathMoved(_, _, at) => {
            fields.set_item("address", address(Some(*at)))?;
        }
        _ => {}
    }
    object(py, "Event", fields)
}

/// An `mptunnel.Message`.
pub(crate) fn message<'py>(
    py: Python<'py>,
    data: &[u8],
    arrival: &Arrival,
    peer: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    // The library's clock goes on while the system sleeps, that of Python does not: what both have
    // is how long ago it was.
    let age = mptunnel_core::clock().saturating_sub(arrival.time);
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(io::Error::from)?);
    let fields = fields!(py, {
        data: PyBytes::new(py, data),
        time: now.saturating_sub(age).as_secs_f64(),
        path: arrival.path.map(|path| path.0),
        peer: peer,
        flow: arrival.peer.flow(),
    });
    object(py, "Message", fields)
}
