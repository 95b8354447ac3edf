// SPDX-License-Identifier: BSD-2-Clause
//! Datagrams, one by one and in batches.

use crate::boundary::{Fail, boundary};
use crate::endpoint::{mpt_path_id, mpt_peer_id, mpt_t};
use crate::pointer::{self, Sized32, bytes, out, read_struct, room, size_of_struct, timeout};
use crate::registry;
use mptunnel_core::{Arrival, Endpoint, PathId, PeerId, SendOptions, Slot};
use std::ffi::{c_int, c_void};
use std::time::Duration;

/// One datagram of a batch. Begin with MPT_MSG_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mpt_msg {
    /// sizeof(mpt_msg). All elements of an array have the same.
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Sending: the datagram, which is only read. Receiving: room for it.
    pub buf: *mut c_void,
    /// Bytes: sending, of the datagram; receiving, its length is put here.
    pub len: usize,
    /// Bytes of room, for receiving.
    pub cap: usize,
    /// From or to whom.
    pub peer: mpt_peer_id,
    /// Receiving: the path of the first copy, 0 if it is not known. Sending: this path only;
    /// 0: the policy chooses.
    pub path: mpt_path_id,
    /// Sending: over the so many best of the paths that are fit, by their round trip, in any
    /// mode; 0: over those that the mode chooses.
    pub copies: u8,
    /// 0.
    pub reserved: [u8; 3],
    /// Sending: microseconds after which it is useless, 0: never. A datagram is not queued at this
    /// end, so this only bounds how long the call waits for room for it.
    pub deadline_us: u32,
    /// Receiving: when the first copy arrived, in nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: i64,
}

// SAFETY: `repr(C)`, `struct_size` first, integers and a pointer only.
unsafe impl Sized32 for mpt_msg {
    // Up to and with `cap`.
    const LEAST: usize = std::mem::offset_of!(mpt_msg, peer);

    fn unset() -> Self {
        mpt_msg {
            struct_size: 0,
            flags: 0,
            buf: std::ptr::null_mut(),
            len: 0,
            cap: 0,
            peer: 0,
            path: 0,
            copies: 0,
            reserved: [0; 3],
            deadline_us: 0,
            time_ns: 0,
        }
    }
}

/// == Datagrams ==
///
/// Sends one datagram of up to mpt_max_payload() bytes, 0 included, to the server. It is sealed
/// before this returns, so `buf` is free again.
///
/// Never waits for the network. While all sockets are full it waits up to `timeout_ms`.
///
/// Returns `len`. MPT_ENOTCONN, MPT_EREFUSED, MPT_ENOPATH, MPT_EMSGSIZE, MPT_EAGAIN or
/// MPT_ETIMEDOUT: nothing was sent. MPT_EPEER at a server, which has no "the" peer. MPT_EINTR,
/// MPT_ECLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_send(
    t: *mut mpt_t,
    buf: *const c_void,
    len: usize,
    timeout_ms: c_int,
) -> isize {
    // SAFETY: what this was given.
    unsafe { mpt_send_to(t, 0, buf, len, timeout_ms) }
}

/// Takes the next datagram into `buf` of `cap` bytes: of any client, at a server. Waits up to
/// `timeout_ms`.
///
/// Returns its length, which may be 0. MPT_EMSGSIZE: it is longer than `cap`; it is kept, and
/// nothing was written. MPT_EAGAIN, MPT_ETIMEDOUT, MPT_EINTR, MPT_ECLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_recv(
    t: *mut mpt_t,
    buf: *mut c_void,
    cap: usize,
    timeout_ms: c_int,
) -> isize {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        let timeout = timeout(timeout_ms)?;
        // SAFETY: a buffer as the header describes it.
        let buffer = unsafe { room(buf.cast(), cap) }?;
        let arrival = open.call(|endpoint| Ok(endpoint.recv_with(buffer, timeout)?))?;
        Ok(arrival.len as isize)
    })
}

/// As mpt_send(), to `peer`: at a server the client that mpt_recv_from() told; at a client 0, or
/// MPT_FLOW(n) for the target behind an `mpserver`.
///
/// In addition MPT_EPEER: no such client is connected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_send_to(
    t: *mut mpt_t,
    peer: mpt_peer_id,
    buf: *const c_void,
    len: usize,
    timeout_ms: c_int,
) -> isize {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        let options = SendOptions::new().timeout(timeout(timeout_ms)?);
        // SAFETY: a datagram as the header describes it.
        let datagram = unsafe { bytes(buf.cast(), len) }?;
        open.call(|endpoint| Ok(endpoint.send_with(datagram, PeerId(peer), &options)?))?;
        Ok(len as isize)
    })
}

/// As mpt_recv(), and tells in `*peer` whom the datagram is from.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_recv_from(
    t: *mut mpt_t,
    peer: *mut mpt_peer_id,
    buf: *mut c_void,
    cap: usize,
    timeout_ms: c_int,
) -> isize {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        let timeout = timeout(timeout_ms)?;
        let peer = out(peer, "peer is NULL")?;
        // SAFETY: a buffer as the header describes it.
        let buffer = unsafe { room(buf.cast(), cap) }?;
        let arrival = open.call(|endpoint| Ok(endpoint.recv_with(buffer, timeout)?))?;
        // SAFETY: not NULL, and the caller has room for an id there.
        unsafe { peer.write_unaligned(arrival.peer.0) };
        Ok(arrival.len as isize)
    })
}

/// Sends `n` datagrams in order, each with wishes of its own; many at once cost a fraction of as
/// many calls of mpt_send(). Waits up to `timeout_ms` in all while all sockets are full.
///
/// Returns how many were taken, from the first one on. If it is fewer than `n`, the next one would
/// fail: call again with the rest to learn why. A negative status if that is the first one: as
/// mpt_send_to(), and MPT_EPATH for a path that does not exist. 0 only if `n` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_sendv(
    t: *mut mpt_t,
    v: *const mpt_msg,
    n: usize,
    timeout_ms: c_int,
) -> isize {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        let timeout = timeout(timeout_ms)?;
        // SAFETY: an array as the header describes it.
        let messages = unsafe { Messages::new(v, n) }?;
        let taken = open.call(|endpoint| send_all(endpoint, &messages, timeout))?;
        Ok(taken as isize)
    })
}

/// Waits up to `timeout_ms` for a datagram and takes as many as there are, up to `n`, each into
/// `buf` of `cap` bytes, and tells its `len`, `peer`, `path` and `time_ns`.
///
/// Returns how many were filled, from the first one on; the others are untouched. A datagram that
/// does not fit its element stays for the next call, and is MPT_EMSGSIZE only if it is the first.
/// MPT_EAGAIN, MPT_ETIMEDOUT, MPT_EINTR, MPT_ECLOSED. 0 only if `n` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_recvv(
    t: *mut mpt_t,
    v: *mut mpt_msg,
    n: usize,
    timeout_ms: c_int,
) -> isize {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        let timeout = timeout(timeout_ms)?;
        // SAFETY: an array as the header describes it.
        let messages = unsafe { Messages::new(v, n) }?;
        let mut slots = Vec::with_capacity(n.min(MOST_SLOTS));
        for index in 0..n.min(MOST_SLOTS) {
            let message = messages.get(index)?;
            // SAFETY: a buffer as the header describes it.
            let buffer = unsafe { room(message.buf.cast(), message.cap) }?;
            slots.push(Room { buffer, arrival: None });
        }
        let filled = open.call(|endpoint| Ok(endpoint.recv_batch(&mut slots, timeout)?))?;
        let offset = boot_time_ahead();
        for (index, slot) in slots[..filled].iter().enumerate() {
            if let Some(arrival) = slot.arrival {
                // SAFETY: an element of the array, which the caller lets this write to.
                unsafe { messages.fill(index, &arrival, offset) }?;
            }
        }
        Ok(filled as isize)
    })
}

/// Elements of one call that are looked at: the answer says how many were filled.
const MOST_SLOTS: usize = 4_096;

/// An array of the caller's, whose elements may be longer or shorter than ours.
#[derive(Clone, Copy)]
struct Messages {
    first: *const mpt_msg,
    size: usize,
    len: usize,
}

impl Messages {
    /// # Safety
    /// `n` elements of the size that the first one tells, readable for as long as this lives.
    unsafe fn new(first: *const mpt_msg, n: usize) -> Result<Self, Fail> {
        if n == 0 {
            return Ok(Messages { first, size: size_of::<mpt_msg>(), len: 0 });
        }
        if first.is_null() {
            return Err(Fail::invalid("the array is NULL"));
        }
        // SAFETY: not NULL, and there is an element.
        let size = unsafe { size_of_struct(first) }?;
        if size.checked_mul(n).is_none_or(|bytes| isize::try_from(bytes).is_err()) {
            return Err(Fail::invalid("n is larger than any array"));
        }
        Ok(Messages { first, size, len: n })
    }

    fn at(&self, index: usize) -> *const mpt_msg {
        assert!(index < self.len, "only elements of the array are asked for");
        self.first.wrapping_byte_add(self.size * index)
    }

    fn get(&self, index: usize) -> Result<mpt_msg, Fail> {
        // SAFETY: an element of the array, of the size that all of them have.
        let message = unsafe { read_struct(self.at(index), self.size) };
        if message.struct_size as usize != self.size {
            return Err(Fail::invalid("the elements have different struct_size"));
        }
        if message.flags != 0 {
            return Err(Fail::invalid("flags is not 0"));
        }
        Ok(message)
    }

    /// # Safety
    /// The element may be written to.
    unsafe fn fill(&self, index: usize, arrival: &Arrival, ahead: Duration) -> Result<(), Fail> {
        let mut message = self.get(index)?;
        message.len = arrival.len;
        message.peer = arrival.peer.0;
        message.path = arrival.path.map_or(0, |path| path.0);
        let time = arrival.time.saturating_sub(ahead).as_nanos();
        message.time_ns = i64::try_from(time).unwrap_or(i64::MAX);
        // SAFETY: an element of the array, and the caller promises the rest.
        unsafe { pointer::write_struct(self.at(index).cast_mut(), self.size, &message) };
        Ok(())
    }
}

/// A place of the caller's for one datagram.
struct Room<'a> {
    buffer: &'a mut [u8],
    arrival: Option<Arrival>,
}

impl Slot for Room<'_> {
    fn buffer(&mut self) -> &mut [u8] {
        self.buffer
    }

    fn fill(&mut self, arrival: Arrival) {
        self.arrival = Some(arrival);
    }
}

/// How far `CLOCK_BOOTTIME`, by which the library counts, is ahead of `CLOCK_MONOTONIC`, which
/// everybody else reads: the time that the machine slept.
fn boot_time_ahead() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) writes one `timespec` to the pointer, which is a live local.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    let ahead = mptunnel_core::clock().saturating_sub(Duration::new(seconds, nanos));
    // Both clocks were read a moment apart, and the other one counts in microseconds.
    if ahead < Duration::from_millis(1) { Duration::ZERO } else { ahead }
}

impl mpt_msg {
    /// Whether both can be sent together.
    fn wishes_like(&self, other: &mpt_msg) -> bool {
        self.peer == other.peer
            && self.path == other.path
            && self.copies == other.copies
            && self.deadline_us == other.deadline_us
    }
}

/// The wishes of a message, which its neighbours may share.
fn wishes(message: &mpt_msg) -> (PeerId, SendOptions) {
    let mut options = SendOptions::new().copies(message.copies);
    if message.path != 0 {
        options = options.path(PathId(message.path));
    }
    if message.deadline_us != 0 {
        options = options.deadline(Duration::from_micros(u64::from(message.deadline_us)));
    }
    (PeerId(message.peer), options)
}

fn send_all(
    endpoint: &Endpoint,
    messages: &Messages,
    timeout: Option<Duration>,
) -> Result<usize, Fail> {
    // To the caller it is one call, whatever the messages wish.
    let call = endpoint.attempts();
    let until = timeout.map(|timeout| mptunnel_core::clock().saturating_add(timeout));
    let mut left = timeout;
    let mut taken = 0;
    while taken < messages.len {
        let outcome = call.attempt(|| send_run(endpoint, messages, taken, left));
        match outcome {
            Ok((sent, run)) => {
                taken += sent;
                if sent < run {
                    break;
                }
            }
            Err(_) if taken > 0 => break,
            Err(fail) => return Err(fail),
        }
        left = until.map(|until| until.saturating_sub(mptunnel_core::clock()));
    }
    Ok(taken)
}

/// Sends the messages from `first` on that have the same wishes: how many were, of how many.
fn send_run(
    endpoint: &Endpoint,
    messages: &Messages,
    first: usize,
    timeout: Option<Duration>,
) -> Result<(usize, usize), Fail> {
    let head = checked(messages, first)?;
    let (peer, options) = wishes(&head);
    let same = |index: usize| match checked(messages, index) {
        Ok(message) => message.wishes_like(&head),
        // Told when it is its turn.
        Err(_) => false,
    };
    let run = 1 + (first + 1..messages.len).take_while(|index| same(*index)).count();
    let datagrams = (first..first + run).map(|index| {
        // SAFETY: read and checked above, and the caller does not change it meanwhile.
        let message: mpt_msg = unsafe { read_struct(messages.at(index), messages.size) };
        // SAFETY: a datagram as the header describes it.
        unsafe { bytes(message.buf.cast::<u8>(), message.len) }.unwrap_or_default()
    });
    let sent = endpoint.send_batch_with(datagrams, peer, &options.timeout(timeout))?;
    Ok((sent, run))
}

/// A message that can be sent.
fn checked(messages: &Messages, index: usize) -> Result<mpt_msg, Fail> {
    let message = messages.get(index)?;
    // SAFETY: a datagram as the header describes it.
    unsafe { bytes(message.buf.cast::<u8>(), message.len) }?;
    Ok(message)
}
