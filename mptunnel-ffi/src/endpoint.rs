// SPDX-License-Identifier: BSD-2-Clause
//! `mpt_t`: one endpoint, from its opening to its end.

use crate::boundary::{Fail, boundary, guarded};
use crate::callback::{Logger, socket_hook};
use crate::config::mpt_config_t;
use crate::pointer::{out, print, text, timeout};
use crate::registry;
use crate::status::Status;
use libc::intptr_t;
use mptunnel_core::{Config, Endpoint, PeerId, log_context};
use std::ffi::{c_char, c_int};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

/// One endpoint, client or server; opaque. (The tag is not `mpt`, which is the namespace in C++.)
pub struct mpt_endpoint {
    _private: [u8; 0],
}

/// One endpoint, client or server; opaque.
pub type mpt_t = mpt_endpoint;

/// Names a path of an endpoint; never used again while that exists, except that at a server the
/// paths of each peer are numbered from 1 to 32. 0: none, or the choice of the policy.
pub type mpt_path_id = u32;

/// Names who a datagram is from or for. 0: "the" peer of a client, its server. At a server it names
/// a client, and in its upper 16 bits (MPT_FLOW) one of the applications behind an `mpclient`, so
/// that an answer to the same id reaches the same application. A client is never given the number
/// of another one.
pub type mpt_peer_id = u64;

/// == Life cycle ==
///
/// Opens the endpoint that `uri` describes:
///
///     mpt://HOST:PORT?KEY=VALUE&path=WORDS&path=WORDS     a client of the server at HOST:PORT
///     mpt-listen://ADDR:PORT?KEY=VALUE                    a server (port 0: one is chosen)
///
/// KEY is one of mpt_option_name(), and WORDS describe a path, such as
/// `to=bridge1.example:4000,if=wwan0,role=backup`: see mpt_path_add(). Without a path a client goes
/// straight to HOST:PORT. Characters that would be mistaken are written %XX. What the URI says goes
/// before what `cfg` says (which may be NULL); the paths of both are used. At least a key is
/// needed: the option key-file, say, with the name of a file that `mptunnel genpsk` made or that
/// holds what mpt_genkey() did, or mpt_config_set_key().
///
/// A client begins to connect and this returns at once: see mpt_wait_ready(). A path that cannot be
/// opened now is no error: it waits and tries again.
///
/// On success `*out` is the handle; close it with mpt_close().
///
/// MPT_ECONFIG: the URI or an option is wrong, or there is no usable key. MPT_ESYSTEM: a server
/// cannot listen there, or descriptors, threads or memory have run out. MPT_EINVAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_open(
    uri: *const c_char,
    cfg: *const mpt_config_t,
    out: *mut *mut mpt_t,
) -> c_int {
    boundary(|| {
        let to = self::out(out, "out is NULL")?;
        // SAFETY: a string as the header describes it.
        let uri = unsafe { text(uri, "the URI is NULL", "the URI is not UTF-8") }?;
        let (mut config, mut callbacks, mut log) = (Config::new(), Vec::new(), None);
        if !cfg.is_null() {
            let state = registry::config(cfg.addr())?;
            let state = registry::lock(&state);
            config = state.config.clone();
            log = state.log.as_ref().map(|hook| hook.fresh());
            if let (Some(function), Some(user)) = (state.socket_hook, state.socket_user) {
                let (hook, retire) = socket_hook(function, user);
                config.socket_hook(Some(hook));
                callbacks.push(retire);
            }
        }
        let count = registry::next_count()?;
        let context = if log.is_some() { count as u64 } else { 0 };
        if let Some(hook) = log {
            Logger::add(context, hook);
        }
        // The threads of the endpoint inherit it.
        let before = log_context::set(context);
        let opened = Endpoint::open(uri, &config);
        log_context::set(before);
        let added = opened
            .map_err(Fail::from)
            .and_then(|endpoint| registry::add_endpoint(count, endpoint, context, callbacks));
        if added.is_err() && context != 0 {
            Logger::remove(context);
        }
        // SAFETY: not NULL, and the caller has room for a pointer there.
        unsafe { to.write_unaligned(ptr::without_provenance_mut(added?)) };
        Ok(0)
    })
}

/// Waits until there are keys and at least one path is usable; at a server, until one client is
/// that far.
///
/// MPT_EREFUSED, MPT_ENOTCONN (a client's time is over; the message says what is known of the
/// reason), MPT_ETIMEDOUT (a server's), MPT_EINTR, MPT_ECLOSED.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_wait_ready(t: *mut mpt_t, timeout_ms: c_int) -> c_int {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        let timeout = timeout(timeout_ms)?;
        open.call(|endpoint| Ok(endpoint.wait_ready(timeout)?))?;
        Ok(0)
    })
}

/// Makes every call that waits on this endpoint at present return MPT_EINTR; later ones wait again,
/// also that of a thread which was on its way into it. So, to have a thread look at a flag, set it
/// and interrupt again and again until the thread has seen it; to end it for good, mpt_close().
/// Not for signal handlers: write to a pipe of your own there.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_interrupt(t: *mut mpt_t) -> c_int {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        open.call(|endpoint| {
            endpoint.interrupt();
            Ok(())
        })?;
        Ok(0)
    })
}

/// Says goodbye to the other end, stops the threads and closes the sockets, within three seconds at
/// most. Calls that wait in other threads return MPT_ECLOSED at once; the handle is MPT_EBADF from
/// now on. Datagrams that were not fetched are gone, and so is the descriptor of mpt_fd().
///
/// NULL, and what is not an open endpoint, is ignored. In a child of fork() nothing happens to what
/// it inherited.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_close(t: *mut mpt_t) {
    let _ = guarded(|| {
        registry::remove_endpoint(t.addr())?.close();
        Ok(())
    });
}

/// Ends the session of one client of a server, for good: it is told, its calls answer MPT_ECLOSED,
/// and it does not try again. MPT_EVENT_PEER_GONE follows. Does nothing under the legacy protocol,
/// which has no goodbye.
///
/// MPT_EPEER: no such client is connected. MPT_ENOTSUP at a client: mpt_close().
#[unsafe(no_mangle)]
pub extern "C" fn mpt_peer_dismiss(t: *mut mpt_t, peer: mpt_peer_id) -> c_int {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        open.call(|endpoint| match endpoint {
            Endpoint::Server(server) => {
                server.peer(PeerId(peer))?;
                server.dismiss(PeerId(peer));
                Ok(())
            }
            Endpoint::Client(_) => {
                Err(Fail::of(Status::MPT_ENOTSUP, "a client has no peers to dismiss: close it"))
            }
        })?;
        Ok(0)
    })
}

/// Changes an option while the endpoint runs. At a client: receive-queue, idle-interval,
/// mode, target-loss, max-copies, budget, failback, of which the last five count at both ends. At a
/// server: these and sessions, session-timeout, handshake-rate, cookie-threshold, source-rate,
/// source-burst.
///
/// MPT_ECONFIG: there is no such option, the value is wrong, or it counts only at the start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_set(t: *mut mpt_t, key: *const c_char, value: *const c_char) -> c_int {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        // SAFETY: strings as the header describes them.
        let (key, value) = unsafe {
            (
                text(key, "the key is NULL", "the key is not UTF-8")?,
                text(value, "the value is NULL", "the value is not UTF-8")?,
            )
        };
        open.call(|endpoint| Ok(endpoint.set(key, value)?))?;
        Ok(0)
    })
}

/// The value of an option in force, as text; "" if it has none.
///
/// Writes as much as fits into `buf` of `cap` bytes, always with a NUL if `cap` is not 0, and
/// returns the length of the whole text without it, as snprintf does.
///
/// MPT_ECONFIG: this end has no such option.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_get(
    t: *mut mpt_t,
    key: *const c_char,
    buf: *mut c_char,
    cap: usize,
) -> isize {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        // SAFETY: a string as the header describes it.
        let key = unsafe { text(key, "the key is NULL", "the key is not UTF-8") }?;
        let value = open.call(|endpoint| Ok(endpoint.get(key)?))?;
        // SAFETY: a buffer as the header describes it.
        unsafe { print(&value.unwrap_or_default(), buf, cap) }
    })
}

/// The address that a server listens on, as ADDR:PORT: for one that was opened with port 0. In the
/// manner of mpt_get(). "" at a client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_local_addr(t: *mut mpt_t, buf: *mut c_char, cap: usize) -> isize {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        let address = open.call(|endpoint| {
            Ok(endpoint.local_addrs().first().map(ToString::to_string).unwrap_or_default())
        })?;
        // SAFETY: a buffer as the header describes it.
        unsafe { print(&address, buf, cap) }
    })
}

/// The ids of the keys in use, for comparing both ends; not secret. A client has one, a server one
/// for each key that it takes, with a space between two. In the manner of mpt_get().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_key_ids(t: *mut mpt_t, buf: *mut c_char, cap: usize) -> isize {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        let ids = open.call(|endpoint| {
            Ok(match endpoint {
                Endpoint::Client(tunnel) => tunnel.key_id().to_owned(),
                Endpoint::Server(server) => server.key_ids().join(" "),
            })
        })?;
        // SAFETY: a buffer as the header describes it.
        unsafe { print(&ids, buf, cap) }
    })
}

/// The largest datagram that can be sent, in bytes, at most 65507: what both ends accept, or what
/// this one does while there is no session, and always at a server. 0 if the handle is not open.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_max_payload(t: *mut mpt_t) -> usize {
    // An error has no place in the answer; there is no datagram that can be sent then.
    let most = boundary(|| {
        let open = registry::endpoint(t.addr())?;
        open.call(|endpoint| Ok(endpoint.max_payload() as isize))
    });
    usize::try_from(most).unwrap_or(0)
}

/// A descriptor for poll, select, epoll and every event loop: readable while mpt_recv() would not
/// wait, and, once mpt_next_event() has been called, while that would not wait. Level-triggered.
/// When it is readable, call them with timeout 0 until MPT_EAGAIN.
///
/// It belongs to the endpoint: neither read, write nor close it. It is valid until mpt_close().
/// Returns the descriptor, or a negative status.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_fd(t: *mut mpt_t) -> intptr_t {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        open.call(|endpoint| Ok(endpoint.as_fd().as_raw_fd() as intptr_t))
    })
}
