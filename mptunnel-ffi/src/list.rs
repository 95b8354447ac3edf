// SPDX-License-Identifier: BSD-2-Clause
//! Lists of what an endpoint has any number of: counters by name, pairs of paths, peers.

use crate::boundary::{Fail, boundary};
use crate::endpoint::{mpt_path_id, mpt_peer_id, mpt_t};
use crate::pointer::{Element, List, Sized32, array};
use crate::registry;
use crate::status::Status;
use mptunnel_core::{Endpoint, Error, PairInfo, PathId, PeerId, errno_name};
use std::ffi::{c_char, c_int};

/// One of several counters. Begin with MPT_COUNT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mpt_count {
    /// sizeof(mpt_count). All elements of an array have the same.
    pub struct_size: u32,
    /// Of errors: the errno. Of drops: 0.
    pub code: i32,
    /// How often. It only grows.
    pub count: u64,
    /// Of errors: what errno(3) calls it, such as "ECONNREFUSED", or the number. Of drops: the
    /// reason, a word such as "auth_fail". NUL-terminated.
    pub name: [c_char; 48],
}

// SAFETY: `repr(C)`, `struct_size` first, numbers and arrays of them only.
unsafe impl Sized32 for mpt_count {
    const LEAST: usize = std::mem::offset_of!(mpt_count, name);

    fn unset() -> Self {
        mpt_count { struct_size: 0, code: 0, count: 0, name: [0; 48] }
    }
}

impl mpt_count {
    fn of_error((errno, count): &(i32, u64)) -> Self {
        mpt_count { struct_size: 0, code: *errno, count: *count, name: array(&errno_name(*errno)) }
    }

    fn of_drop((reason, count): &(&str, u64)) -> Self {
        mpt_count { struct_size: 0, code: 0, count: *count, name: array(reason) }
    }
}

/// How much two paths lose together of what this end sends, by a sample of the latest datagrams
/// that went on both. Begin with MPT_PAIR_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mpt_pair_info {
    /// sizeof(mpt_pair_info). All elements of an array have the same.
    pub struct_size: u32,
    /// One of the paths.
    pub one: mpt_path_id,
    /// The other one.
    pub other: mpt_path_id,
    /// 0.
    pub reserved: u32,
    /// How many datagrams that is, 1 or more; older ones count less.
    pub samples: f64,
    /// Fraction of these that `one` lost, 0 to 1.
    pub lost_one: f64,
    /// Fraction that `other` lost, 0 to 1.
    pub lost_other: f64,
    /// Fraction that both lost, 0 to 1.
    pub lost_both: f64,
    /// The correlation of their losses (phi of the 2x2 table), -1 to 1: 0 where they fail
    /// independently, 1 where always together; -2: not known until each has lost something.
    pub correlation: f64,
}

// SAFETY: `repr(C)`, `struct_size` first, numbers only.
unsafe impl Sized32 for mpt_pair_info {
    const LEAST: usize = std::mem::offset_of!(mpt_pair_info, reserved);

    fn unset() -> Self {
        mpt_pair_info {
            struct_size: 0,
            one: 0,
            other: 0,
            reserved: 0,
            samples: 0.0,
            lost_one: 0.0,
            lost_other: 0.0,
            lost_both: 0.0,
            correlation: UNKNOWN_CORRELATION,
        }
    }
}

/// Not a correlation.
const UNKNOWN_CORRELATION: f64 = -2.0;

impl mpt_pair_info {
    fn of(pair: &PairInfo) -> Self {
        mpt_pair_info {
            one: pair.one.0,
            other: pair.other.0,
            samples: pair.samples,
            lost_one: pair.lost_one,
            lost_other: pair.lost_other,
            lost_both: pair.lost_both,
            correlation: pair.correlation.unwrap_or(UNKNOWN_CORRELATION),
            ..mpt_pair_info::unset()
        }
    }
}

/// Why packets were removed or refused, over the whole endpoint: every reason that there is, in the
/// same order each time, those that never happened with 0. Copies are among them, as "duplicate".
/// In the manner of mpt_path_list(): fills `cap` elements at most, and tells in `*n` how many there
/// are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_drop_list(
    t: *mut mpt_t,
    array: *mut mpt_count,
    cap: usize,
    n: *mut usize,
) -> c_int {
    let drops = |endpoint: &Endpoint| Ok(endpoint.stats().drops);
    // SAFETY: an array as the header describes it.
    unsafe { list(t, (array, cap, n), drops, mpt_count::of_drop) }
}

/// Errors that sockets reported, by errno: those of a client's path, or with 0 for `path` all that
/// the endpoint ever met, on paths that are gone as well. In the manner of mpt_path_list(). What
/// never happened is not in the list.
///
/// MPT_EPATH. MPT_ENOTSUP for a path at a server, whose sockets are no path's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_error_list(
    t: *mut mpt_t,
    path: mpt_path_id,
    array: *mut mpt_count,
    cap: usize,
    n: *mut usize,
) -> c_int {
    let errors = |endpoint: &Endpoint| errors_of(endpoint, PathId(path));
    // SAFETY: an array as the header describes it.
    unsafe { list(t, (array, cap, n), errors, mpt_count::of_error) }
}

fn errors_of(endpoint: &Endpoint, path: PathId) -> Result<Vec<(i32, u64)>, Fail> {
    match endpoint {
        _ if path == PathId(0) => Ok(endpoint.stats().errors),
        Endpoint::Client(tunnel) => {
            let found = tunnel.paths().into_iter().find(|info| info.id == path);
            Ok(found.ok_or(Error::UnknownPath(path))?.errors)
        }
        Endpoint::Server(_) => Err(Fail::of(
            Status::MPT_ENOTSUP,
            "the sockets of a server are no path's own: ask for path 0",
        )),
    }
}

/// Each pair of paths that datagrams of the sample went on: at a client with 0 for `peer`, at a
/// server for one of its clients. In the manner of mpt_path_list(). With 32 paths there are up to
/// 496 pairs; with one, or while each datagram goes over one path only, there are none.
///
/// MPT_EPEER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_pair_list(
    t: *mut mpt_t,
    peer: mpt_peer_id,
    array: *mut mpt_pair_info,
    cap: usize,
    n: *mut usize,
) -> c_int {
    let pairs = |endpoint: &Endpoint| Ok(endpoint.session(PeerId(peer))?.pairs);
    // SAFETY: an array as the header describes it.
    unsafe { list(t, (array, cap, n), pairs, mpt_pair_info::of) }
}

/// The clients of a server that are connected, in the order in which they came; none at a client.
/// Fills the first `cap` elements of `array`, and sets `*n` to how many there are, which may be
/// more. `array` may be NULL if `cap` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_peer_list(
    t: *mut mpt_t,
    array: *mut mpt_peer_id,
    cap: usize,
    n: *mut usize,
) -> c_int {
    let ids = |endpoint: &Endpoint| match endpoint {
        Endpoint::Client(_) => Ok(Vec::new()),
        Endpoint::Server(server) => Ok(server.peer_ids()?),
    };
    // SAFETY: an array as the header describes it.
    unsafe { list(t, (array, cap, n), ids, |id| id.0) }
}

/// Answers a call for a list: `look` sees what there is, `show` makes an element of each. `to` is
/// an array, how many elements it has room for, and where to tell how many there are.
///
/// # Safety
/// An array as [`List`] wants it, which nobody else uses.
pub(crate) unsafe fn list<T: Element, I>(
    t: *mut mpt_t,
    to: (*mut T, usize, *mut usize),
    look: impl FnOnce(&Endpoint) -> Result<Vec<I>, Fail>,
    show: impl Fn(&I) -> T,
) -> c_int {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        let (array, cap, n) = to;
        // SAFETY: the caller promises it.
        let list = unsafe { List::new(array, cap, n) }?;
        let all = open.call(look)?;
        // SAFETY: the same array.
        unsafe { list.fill(all.iter().map(show)) };
        Ok(0)
    })
}
