// SPDX-License-Identifier: BSD-2-Clause
//! News of an endpoint.

use crate::boundary::boundary;
use crate::endpoint::{mpt_path_id, mpt_peer_id, mpt_t};
use crate::pointer::{Sized32, array, out, size_of_struct, timeout, write_struct};
use crate::registry;
use mptunnel_core::{Event, PathId, PeerId};
use std::ffi::{c_char, c_int};

/// What happened. A number keeps its meaning for ever; new ones may be added, so ignore one that
/// you do not know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum mpt_event_type {
    /// Something that this header does not know; `text` says what.
    MPT_EVENT_OTHER = 0,

    /// The client has a session where it had none.
    MPT_EVENT_CONNECTED = 1,
    /// The client lost its session, and goes on trying.
    MPT_EVENT_DISCONNECTED = 2,
    /// Nothing has come from the server for a while: it is down, all paths are blocked, or the keys
    /// differ. `code`: for how many milliseconds.
    MPT_EVENT_SERVER_SILENT = 3,
    /// The server is another process than before.
    MPT_EVENT_SERVER_RESTARTED = 4,
    /// The server is going away and may come back.
    MPT_EVENT_SERVER_GOING_AWAY = 5,
    /// The server refused the client, for the reason in `text`.
    MPT_EVENT_REFUSED = 6,
    /// The server is under load and checks addresses.
    MPT_EVENT_SERVER_UNDER_LOAD = 7,
    /// The other end ended the session for good, or the endpoint failed.
    MPT_EVENT_CLOSED = 8,
    /// A path of the client answers: `path`, `name`.
    MPT_EVENT_PATH_UP = 9,
    /// A path of the client does not answer, or has no socket, for the reason in `text`.
    MPT_EVENT_PATH_DOWN = 10,
    /// A flow has ended: `peer` with its flow; `code` 2: there was no room for it.
    MPT_EVENT_FLOW_CLOSED = 11,
    /// Keys were renewed; nothing was lost.
    MPT_EVENT_REKEYED = 12,

    /// A client connected: `peer`.
    MPT_EVENT_PEER_UP = 20,
    /// A client's process is another one than before.
    MPT_EVENT_PEER_RESTARTED = 21,
    /// A client is gone, for the reason in `text`.
    MPT_EVENT_PEER_GONE = 22,
    /// A path of a client is in use.
    MPT_EVENT_PEER_PATH_UP = 23,
    /// A path of a client moved to another address.
    MPT_EVENT_PEER_PATH_MOVED = 24,
    /// A path of a client has gone quiet.
    MPT_EVENT_PEER_PATH_SILENT = 25,
    /// Somebody tried with a key that is not ours; its id is in `text`.
    MPT_EVENT_UNKNOWN_KEY = 26,
    /// A client was refused, for the reason in `text`.
    MPT_EVENT_PEER_REFUSED = 27,
}

/// A piece of news. Begin with MPT_EVENT_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mpt_event {
    /// sizeof(mpt_event).
    pub struct_size: u32,
    /// What happened: one of mpt_event_type.
    pub r#type: i32,
    /// To which client; 0 at a client.
    pub peer: mpt_peer_id,
    /// To which path; 0 if to none.
    pub path: mpt_path_id,
    /// A number that belongs to some types.
    pub code: u32,
    /// The name of the path, cut to what fits; NUL-terminated.
    pub name: [c_char; 72],
    /// All of it in words, as one line for a log, cut to what fits; NUL-terminated.
    pub text: [c_char; 256],
}

// SAFETY: `repr(C)`, `struct_size` first, numbers and arrays of them only.
unsafe impl Sized32 for mpt_event {
    const LEAST: usize = std::mem::offset_of!(mpt_event, peer);

    fn unset() -> Self {
        mpt_event {
            struct_size: 0,
            r#type: 0,
            peer: 0,
            path: 0,
            code: 0,
            name: [0; 72],
            text: [0; 256],
        }
    }
}

impl mpt_event {
    fn of(event: &Event) -> Self {
        use mpt_event_type as Type;
        let none = (PeerId(0), PathId(0), 0, "");
        let of_peer = |peer: &PeerId| (*peer, PathId(0), 0, "");
        // The numbers of a server's paths begin at 1, those on the wire at 0.
        let of_slot = |peer: &PeerId, slot: &u8| (*peer, PathId(u32::from(*slot) + 1), 0, "");
        let (type_, (peer, path, code, name)) = match event {
            Event::Connected => (Type::MPT_EVENT_CONNECTED, none),
            Event::Disconnected => (Type::MPT_EVENT_DISCONNECTED, none),
            Event::ServerSilent(silence) => {
                let ms = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
                (Type::MPT_EVENT_SERVER_SILENT, (PeerId(0), PathId(0), ms, ""))
            }
            Event::ServerRestarted => (Type::MPT_EVENT_SERVER_RESTARTED, none),
            Event::ServerGoingAway => (Type::MPT_EVENT_SERVER_GOING_AWAY, none),
            Event::Refused(_) => (Type::MPT_EVENT_REFUSED, none),
            Event::ServerUnderLoad => (Type::MPT_EVENT_SERVER_UNDER_LOAD, none),
            Event::Closed => (Type::MPT_EVENT_CLOSED, none),
            Event::PathUp(id, name) => (Type::MPT_EVENT_PATH_UP, (PeerId(0), *id, 0, &**name)),
            Event::PathDown(id, name, _) => {
                (Type::MPT_EVENT_PATH_DOWN, (PeerId(0), *id, 0, &**name))
            }
            Event::FlowClosed { peer, flow, code, .. } => {
                let peer = peer.with_flow(*flow);
                (Type::MPT_EVENT_FLOW_CLOSED, (peer, PathId(0), u32::from(*code), ""))
            }
            Event::Rekeyed(peer) => (Type::MPT_EVENT_REKEYED, of_peer(peer)),
            Event::PeerUp(peer) => (Type::MPT_EVENT_PEER_UP, of_peer(peer)),
            Event::PeerRestarted(peer) => (Type::MPT_EVENT_PEER_RESTARTED, of_peer(peer)),
            Event::PeerGone(peer, _) => (Type::MPT_EVENT_PEER_GONE, of_peer(peer)),
            Event::PeerPathUp(peer, slot, _) => (Type::MPT_EVENT_PEER_PATH_UP, of_slot(peer, slot)),
            Event::PeerPathMoved(peer, slot, _) => {
                (Type::MPT_EVENT_PEER_PATH_MOVED, of_slot(peer, slot))
            }
            Event::PeerPathSilent(peer, slot) => {
                (Type::MPT_EVENT_PEER_PATH_SILENT, of_slot(peer, slot))
            }
            Event::UnknownKey(_) => (Type::MPT_EVENT_UNKNOWN_KEY, none),
            Event::PeerRefused(_) => (Type::MPT_EVENT_PEER_REFUSED, none),
            _ => (Type::MPT_EVENT_OTHER, none),
        };
        mpt_event {
            struct_size: 0,
            r#type: type_ as i32,
            peer: peer.0,
            path: path.0,
            code,
            name: array(name),
            text: array(&event.to_string()),
        }
    }
}

/// == Events ==
///
/// Takes the next piece of news; waits up to `timeout_ms`. Up to 1024 are kept, then the oldest
/// ones go. From the first call on, news make mpt_fd() readable; who never asks is not woken.
///
/// MPT_EAGAIN, MPT_ETIMEDOUT, MPT_EINTR. MPT_ECLOSED once there will be no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpt_next_event(
    t: *mut mpt_t,
    ev: *mut mpt_event,
    timeout_ms: c_int,
) -> c_int {
    boundary(|| {
        let open = registry::endpoint(t.addr())?;
        let timeout = timeout(timeout_ms)?;
        let ev = out(ev, "ev is NULL")?;
        // SAFETY: not NULL, and the caller has such a struct there.
        let size = unsafe { size_of_struct(ev) }?;
        let event = open.call(|endpoint| Ok(endpoint.next_event(timeout)?))?;
        // SAFETY: as long as the caller says that it is.
        unsafe { write_struct(ev, size, &mpt_event::of(&event)) };
        Ok(0)
    })
}
