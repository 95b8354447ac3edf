// SPDX-License-Identifier: BSD-2-Clause
//! Counters, and everything as text.

use crate::boundary::{Fail, boundary};
use crate::endpoint::{mpt_peer_id, mpt_t};
use crate::path::micros;
use crate::pointer::{Sized32, array, out, print, size_of_struct, write_struct};
use crate::registry;
use mptunnel_core::{Endpoint, PeerId, SessionInfo, Traffic};
use std::ffi::{c_char, c_int};

/// Counters. None of them is cleared by reading. Begin with MPT_STATS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mpt_stats_t {
    /// sizeof(mpt_stats_t).
    pub struct_size: u32,
    /// 1: there is a session; at a server, any client.
    pub connected: u32,
    /// Clients that are connected; 0 at a client.
    pub peers: u64,
    /// Over all paths, those that are gone included: packets sent, copies and control included,
    /// handshakes not.
    pub sent: u64,
    /// Bytes of these.
    pub sent_bytes: u64,
    /// Packets that sockets did not take.
    pub send_dropped: u64,
    /// Packets received.
    pub received: u64,
    /// Bytes of these.
    pub received_bytes: u64,
    /// Packets that were the first of their copies.
    pub wins: u64,
    /// Packets that another path had brought before.
    pub duplicates: u64,
    /// Of the endpoint, 0 for a single peer: packets removed or refused for any reason but being a
    /// copy. mpt_drop_list() has them by reason, and the copies.
    pub dropped: u64,
    /// Of the endpoint: packets from an address that is no path's.
    pub unattributed: u64,
    /// Of the endpoint: datagrams that the application did not fetch in time.
    pub queue_dropped: u64,
    /// Of the endpoint: events that the application did not fetch in time.
    pub events_dropped: u64,
    /// Of the endpoint: errors that sockets reported. mpt_error_list() has them by errno.
    pub socket_errors: u64,
    /// Of the endpoint: arrivals dropped by the kernel because a receive buffer was full.
    pub kernel_dropped: u64,
    /// Of the endpoint: bytes of receive buffer that the system granted to its first socket.
    pub receive_buffer: u64,
    /// How often the process of this peer, or at a client that of the server, was restarted.
    pub restarts: u64,
    /// Of the endpoint, with option `reorder`: datagrams that waited for an earlier one.
    pub reorder_held: u64,
    /// Of the endpoint: datagrams that waited in vain.
    pub reorder_given_up: u64,
    /// Of the endpoint: datagrams that came after their turn, and were delivered at once.
    pub reorder_late: u64,
    /// This and all below: of one tunnel, at a client or of a single peer; not of a server as a
    /// whole. Packets received for the first time, on all paths together.
    pub first_packets: u64,
    /// Bytes of these. Its growth is the goodput, heads of mptunnel and control included.
    pub first_bytes: u64,
    /// Packets that came when the window had passed them.
    pub late: u64,
    /// How often keys were renewed.
    pub rekeys: u64,
    /// Fraction of the datagrams sent that came on no path, 0 to 1, as the peer tells of the latest
    /// 4,096 of a sample; -1: it has not told, as with a single path.
    pub residual_loss_out: f64,
    /// Datagrams sent of which the peer has told what became of them.
    pub samples_out: u64,
    /// Of a single peer: packets that its receive window remembers; 0 at a client.
    pub window: u64,
    /// The option `mode` that counts in both directions, which may have been set at the other end;
    /// "" at a client under the legacy protocol.
    pub mode: [c_char; 24],
    /// What packets are sealed with: "chacha20-poly1305" or "aes-256-gcm"; "" while there is no
    /// session, "none" under the legacy protocol. (By which code: "backend" of mpt_build_info().)
    pub cipher: [c_char; 32],
    /// Of a client: microseconds for which the server has not answered on any path, from 5 s on; -1
    /// while it does, and under the legacy protocol. A session outlives about three minutes of this.
    pub silent_us: i64,
}

// SAFETY: `repr(C)`, `struct_size` first, numbers and arrays of them only.
unsafe impl Sized32 for mpt_stats_t {
    const LEAST: usize = std::mem::offset_of!(mpt_stats_t, peers);

    fn unset() -> Self {
        mpt_stats_t {
            struct_size: 0,
            connected: 0,
            peers: 0,
            sent: 0,
            sent_bytes: 0,
            send_dropped: 0,
            received: 0,
            received_bytes: 0,
            wins: 0,
            duplicates: 0,
            dropped: 0,
            unattributed: 0,
            queue_dropped: 0,
            events_dropped: 0,
            socket_errors: 0,
            kernel_dropped: 0,
            receive_buffer: 0,
            restarts: 0,
            reorder_held: 0,
            reorder_given_up: 0,
            reorder_late: 0,
            first_packets: 0,
            first_bytes: 0,
            late: 0,
            rekeys: 0,
            residual_loss_out: -1.0,
            samples_out: 0,
            window: 0,
            mode: [0; 24],
            cipher: [0; 32],
            silent_us: -1,
        }
    }
}

impl mpt_stats_t {
    fn count(&mut self, traffic: Traffic) {
        self.sent = traffic.sent;
        self.sent_bytes = traffic.sent_bytes;
        self.send_dropped = traffic.send_dropped;
        self.received = traffic.received;
        self.received_bytes = traffic.received_bytes;
        self.wins = traffic.wins;
        self.duplicates = traffic.duplicates;
    }

    fn tell(&mut self, session: &SessionInfo) {
        self.restarts = session.peer_restarts.into();
        self.first_packets = session.first_packets;
        self.first_bytes = session.first_bytes;
        self.late = session.late;
        self.rekeys = session.rekeys.into();
        self.residual_loss_out = session.residual_loss_out.unwrap_or(-1.0);
        self.samples_out = session.samples_out;
    }

    fn of(endpoint: &Endpoint, peer: PeerId) -> Result<Self, Fail> {
        let mut all = mpt_stats_t::unset();
        if let (Endpoint::Server(server), true) = (endpoint, peer != PeerId(0)) {
            let peer = server.peer(peer)?;
            all.connected = 1;
            all.count(peer.traffic);
            all.tell(&peer.session);
            all.window = peer.window as u64;
            (all.mode, all.cipher) = (array(peer.mode), array(peer.cipher));
            return Ok(all);
        }
        match endpoint {
            Endpoint::Client(_) => all.tell(&endpoint.session(peer)?),
            Endpoint::Server(server) => all.peers = server.peer_count()? as u64,
        }
        let stats = endpoint.stats();
        all.count(stats.traffic);
        let reasons = stats.drops.iter().filter(|(reason, _)| *reason != "duplicate");
        all.dropped = reasons.map(|(_, count)| count).sum();
        all.connected = u32::from(stats.connected);
        (all.mode, all.cipher) = (array(stats.mode), array(stats.cipher));
        all.silent_us = stats.silent.map_or(-1, micros);
        all.unattributed = stats.unattributed;
        all.queue_dropped = stats.queue_dropped;
        all.events_dropped = stats.events_dropped;
        all.socket_errors = stats.socket_errors;
        all.kernel_dropped = stats.kernel_dropped;
        all.receive_buffer = stats.receive_buffer as u64;
        all.reorder_held = stats.reorder.held;
        all.reorder_given_up = stats.reorder.given_up;
        all.reorder_late = stats.reorder.late;
        Ok(all)
    }
}

/// == Observation ==
///
/// Counters of the whole endpoint (`peer` 0), or of one client of a server. They only grow: paths
/// that were removed still count, and in those of a server the clients that are gone.
///
/// MPT_EPEER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_stats(
    t: *mut mpt_t,
    peer: mpt_peer_id,
    out: *mut mpt_stats_t,
) -> c_int {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        let to = self::out(out, "out is NULL")?;
        // SAFETY: not NULL, and the caller has such a struct there.
        let size = unsafe { size_of_struct(to) }?;
        let stats = open.call(|endpoint| mpt_stats_t::of(endpoint, PeerId(peer)))?;
        // SAFETY: as long as the caller says that it is.
        unsafe { write_struct(to, size, &stats) };
        Ok(0)
    })
}

/// A form of text for mpt_metrics().
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum mpt_format {
    /// One JSON object.
    MPT_JSON = 1,
    /// The text exposition format of Prometheus, 0.0.4.
    MPT_PROMETHEUS = 2,
}

/// Everything that can be seen of the endpoint, with all peers and paths, as text in one of the
/// forms of mpt_format. In the manner of mpt_get(): the answer is the length of the whole text,
/// which may be larger than `cap`, and another one at the next call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_metrics(
    t: *mut mpt_t,
    format: c_int,
    buf: *mut c_char,
    cap: usize,
) -> isize {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        let json = match format {
            _ if format == mpt_format::MPT_JSON as c_int => true,
            _ if format == mpt_format::MPT_PROMETHEUS as c_int => false,
            _ => return Err(Fail::invalid("format is neither MPT_JSON nor MPT_PROMETHEUS")),
        };
        let text = open.call(|endpoint| {
            let snapshot = endpoint.snapshot();
            Ok(if json { snapshot.to_json() } else { snapshot.to_prometheus() })
        })?;
        // SAFETY: a buffer as the header describes it.
        unsafe { print(&text, buf, cap) }
    })
}
