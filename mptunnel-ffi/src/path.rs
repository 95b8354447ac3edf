// SPDX-License-Identifier: BSD-2-Clause
//! Paths: adding, changing, removing, and what they look like.

use crate::boundary::boundary;
use crate::endpoint::{mpt_path_id, mpt_peer_id, mpt_t};
use crate::list::list;
use crate::pointer::{Sized32, array, text};
use crate::registry;
use mptunnel_core::{Endpoint, Lost, PathId, PathInfo, PathState, PeerId, Span};
use std::ffi::{CStr, c_char, c_int};
use std::net::SocketAddr;
use std::time::Duration;

/// What state a path is in. A number keeps its meaning for ever; new ones may be added.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum mpt_path_state {
    /// The library is older than this header, or knows a state that this header does not.
    MPT_PATH_UNKNOWN = 0,
    /// Nothing has answered on it yet; at a server: its address is not proven yet.
    MPT_PATH_STARTING = 1,
    /// It is in use, or ready to be.
    MPT_PATH_UP = 2,
    /// It has fallen silent, and is tried again and again.
    MPT_PATH_DOWN = 3,
    /// A client's path that cannot be tried: its name does not resolve, its interface is missing, a
    /// socket hook refused its socket. That is tried again and again.
    MPT_PATH_NO_SOCKET = 4,
}

impl mpt_path_state {
    fn of(state: PathState) -> Self {
        match state {
            PathState::Starting => mpt_path_state::MPT_PATH_STARTING,
            PathState::Up => mpt_path_state::MPT_PATH_UP,
            PathState::Down => mpt_path_state::MPT_PATH_DOWN,
            PathState::NoSocket => mpt_path_state::MPT_PATH_NO_SOCKET,
            _ => mpt_path_state::MPT_PATH_UNKNOWN,
        }
    }
}

/// One path as it is now. Begin with MPT_PATH_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mpt_path_info {
    /// sizeof(mpt_path_info). All elements of an array have the same.
    pub struct_size: u32,
    /// Its name for calls.
    pub id: mpt_path_id,
    /// Whose it is: 0 at a client.
    pub peer: mpt_peer_id,
    /// Its number on the wire, 0 to 31.
    pub slot: u8,
    /// 1: it answers.
    pub up: u8,
    /// 1: it waits until no other path is up.
    pub backup: u8,
    /// 0.
    pub reserved: u8,
    /// The largest packet that fits it, in bytes of UDP payload; 0 while it has no socket.
    pub max_packet: u32,
    /// Microseconds since `up` changed.
    pub since_us: i64,
    /// Smoothed round trip in microseconds; -1: not measured yet.
    pub rtt_us: i64,
    /// The latest round trip in microseconds, or -1.
    pub last_rtt_us: i64,
    /// The shortest round trip in microseconds, or -1.
    pub min_rtt_us: i64,
    /// Jitter of what arrives, in microseconds.
    pub jitter_us: i64,
    /// Fraction lost on the way out, 0 to 1; -1: not measured yet.
    pub loss_out: f64,
    /// Fraction lost on the way in, 0 to 1, or -1.
    pub loss_in: f64,
    /// Packets sent, copies and control included, handshakes not.
    pub sent: u64,
    /// Bytes of these.
    pub sent_bytes: u64,
    /// Packets that its socket did not take.
    pub send_dropped: u64,
    /// Packets received.
    pub received: u64,
    /// Bytes of these.
    pub received_bytes: u64,
    /// Packets that it brought first: received without duplicates.
    pub wins: u64,
    /// Packets that another path had brought before.
    pub duplicates: u64,
    /// What the user calls it, cut to what fits; NUL-terminated.
    pub name: [c_char; 72],
    /// The other end of its socket, as ADDR:PORT; "" without one.
    pub remote: [c_char; 72],
    /// The words that describe it, cut to what fits; "" at a server.
    pub words: [c_char; 256],
    /// Fraction lost on the way out, 0 to 1, as told within the last second; -1: nothing was, as on
    /// a path that carries nothing but probes.
    pub loss_out_1s: f64,
    /// The same within the last ten seconds.
    pub loss_out_10s: f64,
    /// Fraction lost on the way in, 0 to 1, as told within the last second, or -1.
    pub loss_in_1s: f64,
    /// The same within the last ten seconds.
    pub loss_in_10s: f64,
    /// Packets sent of which the other end has told how many arrived.
    pub known_out: u64,
    /// Of these, packets that did not arrive.
    pub lost_out: u64,
    /// Packets of the other end of which is known how many arrived here.
    pub known_in: u64,
    /// Of these, packets that did not arrive.
    pub lost_in: u64,
    /// Packets that wait to leave at the rate of the path, known or learnt (its word `rate`, at a
    /// server its client's `rate-down`); 0 without one.
    pub queue_packets: u64,
    /// Bytes of these, UDP payload.
    pub queue_bytes: u64,
    /// Microseconds that a packet would wait that is sent now; -1 without a rate.
    pub queue_us: i64,
    /// Datagrams of a sample that were sent on it, of those of which the other end has told what
    /// became of them. There is a sample if there are several paths.
    pub samples_out: u64,
    /// Of these, datagrams that came on it.
    pub arrived_out: u64,
    /// Datagrams that came on it first.
    pub first_out: u64,
    /// Datagrams that came on no other path, though they were sent on others as well.
    pub only_out: u64,
    /// How much earlier than the second copy the first one came, of those that came on it first:
    /// the mean in microseconds, or -1.
    pub lead_out_us: i64,
    /// Datagrams of a sample that came here on it.
    pub samples_in: u64,
    /// Of these, datagrams that came on it first.
    pub first_in: u64,
    /// Datagrams that came on no other path.
    pub only_in: u64,
    /// As `lead_out_us`, of what came here.
    pub lead_in_us: i64,
    /// What state it is in: one of mpt_path_state.
    pub state: i32,
    /// 0.
    pub reserved2: u32,
    /// Why it is in that state, in words for a person, cut to what fits; NUL-terminated.
    pub reason: [c_char; 256],
    /// What a client's path sends from, as ADDR:PORT; "" while it has no socket, and at a server.
    pub local: [c_char; 72],
    /// Where `remote` was before it last changed; "" if it never did.
    pub remote_before: [c_char; 72],
    /// What `local` was before it last changed, or "".
    pub local_before: [c_char; 72],
    /// Errors that its socket reported; mpt_error_list() has them by errno. 0 at a server, whose
    /// sockets are no path's own.
    pub errors: u64,
    /// Of how many packets `loss_out_1s` tells; 0: of none.
    pub known_out_1s: u64,
    /// Of how many `loss_out_10s` tells.
    pub known_out_10s: u64,
    /// Of how many `loss_in_1s` tells.
    pub known_in_1s: u64,
    /// Of how many `loss_in_10s` tells.
    pub known_in_10s: u64,
    /// The second that ends now is so long, in microseconds, 900,000 to 2,500,000; -1: nobody has
    /// looked at the paths about a second ago, which mpt_path_list() and mpt_metrics() do, and the
    /// four below are 0.
    pub last_1s_us: i64,
    /// Packets sent within it.
    pub sent_1s: u64,
    /// Bytes of these.
    pub sent_bytes_1s: u64,
    /// Packets received within it.
    pub received_1s: u64,
    /// Bytes of these.
    pub received_bytes_1s: u64,
    /// The ten seconds that end now are so long, in microseconds, 9,500,000 to 13,000,000, or -1,
    /// likewise.
    pub last_10s_us: i64,
    /// Packets sent within them.
    pub sent_10s: u64,
    /// Bytes of these.
    pub sent_bytes_10s: u64,
    /// Packets received within them.
    pub received_10s: u64,
    /// Bytes of these.
    pub received_bytes_10s: u64,
    /// Bytes per second at which packets leave, told or learnt, headers of IPv4 and UDP included;
    /// 0: there is no bound, or it is not learnt yet.
    pub rate_bytes_per_s: u64,
}

// SAFETY: `repr(C)`, `struct_size` first, numbers and arrays of them only.
unsafe impl Sized32 for mpt_path_info {
    const LEAST: usize = std::mem::offset_of!(mpt_path_info, slot);

    fn unset() -> Self {
        mpt_path_info {
            struct_size: 0,
            id: 0,
            peer: 0,
            slot: 0,
            up: 0,
            backup: 0,
            reserved: 0,
            max_packet: 0,
            since_us: 0,
            rtt_us: -1,
            last_rtt_us: -1,
            min_rtt_us: -1,
            jitter_us: 0,
            loss_out: -1.0,
            loss_in: -1.0,
            sent: 0,
            sent_bytes: 0,
            send_dropped: 0,
            received: 0,
            received_bytes: 0,
            wins: 0,
            duplicates: 0,
            name: [0; 72],
            remote: [0; 72],
            words: [0; 256],
            loss_out_1s: -1.0,
            loss_out_10s: -1.0,
            loss_in_1s: -1.0,
            loss_in_10s: -1.0,
            known_out: 0,
            lost_out: 0,
            known_in: 0,
            lost_in: 0,
            queue_packets: 0,
            queue_bytes: 0,
            queue_us: -1,
            samples_out: 0,
            arrived_out: 0,
            first_out: 0,
            only_out: 0,
            lead_out_us: -1,
            samples_in: 0,
            first_in: 0,
            only_in: 0,
            lead_in_us: -1,
            state: 0,
            reserved2: 0,
            reason: [0; 256],
            local: [0; 72],
            remote_before: [0; 72],
            local_before: [0; 72],
            errors: 0,
            known_out_1s: 0,
            known_out_10s: 0,
            known_in_1s: 0,
            known_in_10s: 0,
            last_1s_us: -1,
            sent_1s: 0,
            sent_bytes_1s: 0,
            received_1s: 0,
            received_bytes_1s: 0,
            last_10s_us: -1,
            sent_10s: 0,
            sent_bytes_10s: 0,
            received_10s: 0,
            received_bytes_10s: 0,
            rate_bytes_per_s: 0,
        }
    }
}

pub(crate) fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

impl mpt_path_info {
    fn of(peer: PeerId, path: &PathInfo) -> Self {
        let maybe = |time: Option<Duration>| time.map_or(-1, micros);
        let lost = |lost: &Lost| lost.fraction().unwrap_or(-1.0);
        let (out, back) = (&path.losses_out, &path.losses_in);
        let queue = path.queue.unwrap_or_default();
        let at = |at: Option<SocketAddr>| array(&at.map(|at| at.to_string()).unwrap_or_default());
        let span = |span: Option<Span>| (maybe(span.map(|s| s.length)), span.unwrap_or_default());
        let ((last_1s_us, last_1s), (last_10s_us, last_10s)) =
            (span(path.last_1s), span(path.last_10s));
        mpt_path_info {
            struct_size: 0,
            id: path.id.0,
            peer: peer.0,
            slot: path.slot,
            up: u8::from(path.up),
            backup: u8::from(path.backup),
            reserved: 0,
            max_packet: u32::try_from(path.max_packet).unwrap_or(u32::MAX),
            since_us: micros(path.since),
            rtt_us: maybe(path.quality.rtt),
            last_rtt_us: maybe(path.quality.last_rtt),
            min_rtt_us: maybe(path.quality.min_rtt),
            jitter_us: micros(path.quality.jitter),
            loss_out: path.quality.loss_out.unwrap_or(-1.0),
            loss_in: path.quality.loss_in.unwrap_or(-1.0),
            sent: path.sent,
            sent_bytes: path.sent_bytes,
            send_dropped: path.send_dropped,
            received: path.received,
            received_bytes: path.received_bytes,
            wins: path.wins,
            duplicates: path.duplicates,
            name: array(&path.name),
            remote: at(path.remote),
            words: array(&path.words),
            loss_out_1s: lost(&out.last_1s),
            loss_out_10s: lost(&out.last_10s),
            loss_in_1s: lost(&back.last_1s),
            loss_in_10s: lost(&back.last_10s),
            known_out: out.total.sent,
            lost_out: out.total.lost,
            known_in: back.total.sent,
            lost_in: back.total.lost,
            queue_packets: queue.packets,
            queue_bytes: queue.bytes,
            queue_us: maybe(path.queue.map(|queue| queue.delay)),
            samples_out: path.worth_out.samples,
            arrived_out: path.worth_out.arrived,
            first_out: path.worth_out.first,
            only_out: path.worth_out.only,
            lead_out_us: maybe(path.worth_out.mean_lead),
            samples_in: path.worth_in.samples,
            first_in: path.worth_in.first,
            only_in: path.worth_in.only,
            lead_in_us: maybe(path.worth_in.mean_lead),
            state: mpt_path_state::of(path.state) as i32,
            reserved2: 0,
            reason: array(&path.reason),
            local: at(path.local),
            remote_before: at(path.remote_before),
            local_before: at(path.local_before),
            errors: path.errors.iter().map(|(_, count)| count).sum(),
            known_out_1s: out.last_1s.sent,
            known_out_10s: out.last_10s.sent,
            known_in_1s: back.last_1s.sent,
            known_in_10s: back.last_10s.sent,
            last_1s_us,
            sent_1s: last_1s.sent,
            sent_bytes_1s: last_1s.sent_bytes,
            received_1s: last_1s.received,
            received_bytes_1s: last_1s.received_bytes,
            last_10s_us,
            sent_10s: last_10s.sent,
            sent_bytes_10s: last_10s.sent_bytes,
            received_10s: last_10s.received,
            received_bytes_10s: last_10s.received_bytes,
            rate_bytes_per_s: queue.rate.unwrap_or(0),
        }
    }
}

/// == Paths ==
///
/// An application never has to look after paths: the library heals what it can. These are for those
/// who want to.
///
/// Adds a path to a client while it runs. `*id` is its name; `id` may be NULL. `spec` describes it
/// by words such as `to=bridge1.example:4000 if=wwan0 role=backup`, between blanks or commas, in
/// any order, each of which may be left out:
///
///     to=HOST:PORT           the bridge, or the server itself, which is the default
///     if=NAME                send through this interface only
///     src=ADDR               send from this local IP address
///     mark=NUMBER            firewall mark of the packets, up to 32 bits
///     weight=NUMBER|auto     share in mode weighted, 1 to 65535; auto: as it is measured [1]
///     role=active|backup     backup: only when no active path is up [active]
///     rate=MBIT|auto|none    what the link carries upwards, Mbit/s: packets leave no faster;
///                            auto: it is found out [none]
///     rate-down=MBIT|auto|none
///                            what it carries to here, Mbit/s: the server sends no faster [none]
///     cost=NUMBER            what it costs to use, 0 to 255: modes fastest and adaptive take
///                            cheaper paths first [0]
///     name=TEXT              what logs and mpt_path_info call it, 1 to 64 bytes [HOST:PORT]
///     mtu=BYTES              largest IP packet, 576 to 65535, if it is known
///     rotate=on|off          legacy protocol: off keeps its port [on]
///
/// MPT_ECONFIG: wrong words, a name that another path has, or there are 32 paths. MPT_ENOTSUP at a
/// server, which learns the paths of its clients.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_path_add(
    t: *mut mpt_t,
    spec: *const c_char,
    id: *mut mpt_path_id,
) -> c_int {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        // SAFETY: a string as the header describes it.
        let spec = unsafe { text(spec, "the spec is NULL", "the spec is not UTF-8") }?;
        let added = open.call(|endpoint| Ok(endpoint.add_path(spec)?))?;
        if !id.is_null() {
            // SAFETY: not NULL, and the caller has room for an id there.
            unsafe { id.write_unaligned(added.0) };
        }
        Ok(0)
    })
}

/// Changes one word of a client's path while it runs: see mpt_path_add() for the words. `to`, `if`,
/// `src` and `mark` give the path a new socket; the others take effect in place, `rate-down` as
/// soon as the server has heard of it.
///
/// MPT_ECONFIG: a wrong word or value, or a name that another path has. MPT_EPATH. MPT_ENOTSUP at a
/// server.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_path_set(
    t: *mut mpt_t,
    id: mpt_path_id,
    key: *const c_char,
    value: *const c_char,
) -> c_int {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        // SAFETY: strings as the header describes them.
        let (key, value) = unsafe {
            (
                text(key, "the key is NULL", "the key is not UTF-8")?,
                text(value, "the value is NULL", "the value is not UTF-8")?,
            )
        };
        open.call(|endpoint| Ok(endpoint.set_path(PathId(id), key, value)?))?;
        Ok(0)
    })
}

/// Removes a path of a client. Its id is never used again.
///
/// MPT_EPATH. MPT_ENOTSUP at a server.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_path_remove(t: *mut mpt_t, id: mpt_path_id) -> c_int {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        open.call(|endpoint| Ok(endpoint.remove_path(PathId(id))?))?;
        Ok(0)
    })
}

/// Lists the paths of a peer: at a client its own, and `peer` is 0; at a server those of one of its
/// clients. Fills the first `cap` elements of `array`, whose first one tells the struct_size of
/// all, and sets `*n` to how many paths there are, which may be more. `array` may be NULL if `cap`
/// is 0.
///
/// MPT_EPEER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_path_list(
    t: *mut mpt_t,
    peer: mpt_peer_id,
    array: *mut mpt_path_info,
    cap: usize,
    n: *mut usize,
) -> c_int {
    let paths = |endpoint: &Endpoint| Ok(endpoint.paths(PeerId(peer))?);
    let info = |path: &PathInfo| mpt_path_info::of(PeerId(peer).client(), path);
    // SAFETY: an array as the header describes it.
    unsafe { list(t, (array, cap, n), paths, info) }
}

/// One word for an mpt_path_state: "starting", "up", "down", "no_socket", as mpt_metrics() has it;
/// "unknown" for any other number. Static, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_path_state_name(state: c_int) -> *const c_char {
    const NAMES: [(mpt_path_state, &CStr); 4] = [
        (mpt_path_state::MPT_PATH_STARTING, c"starting"),
        (mpt_path_state::MPT_PATH_UP, c"up"),
        (mpt_path_state::MPT_PATH_DOWN, c"down"),
        (mpt_path_state::MPT_PATH_NO_SOCKET, c"no_socket"),
    ];
    let known = NAMES.iter().find(|(known, _)| *known as c_int == state);
    known.map_or(c"unknown", |(_, name)| name).as_ptr()
}
