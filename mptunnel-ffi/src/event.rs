// SPDX-License-Identifier: BSD-2-Clause
//! News of an endpoint.

use crate::boundary::boundary;
use crate::endpoint::{mpt_path_id, mpt_peer_id, mpt_t};
use crate::pointer::{Sized32, array, out, size_of_struct, timeout, write_struct};
use crate::registry;
use mptunnel_core::{Event, PathId};
use std::ffi::{CStr, c_char, c_int};

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

/// Each type with the word that [`Event::name`] has for it.
const TYPES: &[(mpt_event_type, &CStr)] = &[
    (mpt_event_type::MPT_EVENT_OTHER, c"other"),
    (mpt_event_type::MPT_EVENT_CONNECTED, c"connected"),
    (mpt_event_type::MPT_EVENT_DISCONNECTED, c"disconnected"),
    (mpt_event_type::MPT_EVENT_SERVER_SILENT, c"server_silent"),
    (mpt_event_type::MPT_EVENT_SERVER_RESTARTED, c"server_restarted"),
    (mpt_event_type::MPT_EVENT_SERVER_GOING_AWAY, c"server_going_away"),
    (mpt_event_type::MPT_EVENT_REFUSED, c"refused"),
    (mpt_event_type::MPT_EVENT_SERVER_UNDER_LOAD, c"server_under_load"),
    (mpt_event_type::MPT_EVENT_CLOSED, c"closed"),
    (mpt_event_type::MPT_EVENT_PATH_UP, c"path_up"),
    (mpt_event_type::MPT_EVENT_PATH_DOWN, c"path_down"),
    (mpt_event_type::MPT_EVENT_FLOW_CLOSED, c"flow_closed"),
    (mpt_event_type::MPT_EVENT_REKEYED, c"rekeyed"),
    (mpt_event_type::MPT_EVENT_PEER_UP, c"peer_up"),
    (mpt_event_type::MPT_EVENT_PEER_RESTARTED, c"peer_restarted"),
    (mpt_event_type::MPT_EVENT_PEER_GONE, c"peer_gone"),
    (mpt_event_type::MPT_EVENT_PEER_PATH_UP, c"peer_path_up"),
    (mpt_event_type::MPT_EVENT_PEER_PATH_MOVED, c"peer_path_moved"),
    (mpt_event_type::MPT_EVENT_PEER_PATH_SILENT, c"peer_path_silent"),
    (mpt_event_type::MPT_EVENT_UNKNOWN_KEY, c"unknown_key"),
    (mpt_event_type::MPT_EVENT_PEER_REFUSED, c"peer_refused"),
];

impl mpt_event {
    fn of(event: &Event) -> Self {
        let known = TYPES.iter().find(|(_, name)| name.to_bytes() == event.name().as_bytes());
        let r#type = known.map_or(mpt_event_type::MPT_EVENT_OTHER, |(known, _)| *known);
        let of_path = event.path();
        let peer = of_path.map(|(peer, _)| peer).or(event.peer()).unwrap_or_default();
        let path = of_path.map_or(PathId(0), |(_, path)| path);
        let (peer, code, name) = match event {
            Event::ServerSilent(silence) => {
                (peer, u32::try_from(silence.as_millis()).unwrap_or(u32::MAX), "")
            }
            Event::PathUp(_, name) | Event::PathDown(_, name, _) => (peer, 0, &**name),
            Event::FlowClosed { flow, code, .. } => (peer.with_flow(*flow), u32::from(*code), ""),
            _ => (peer, 0, ""),
        };
        mpt_event {
            struct_size: 0,
            r#type: r#type as i32,
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

/// One word for an mpt_event_type, as `mptunnel events --json` has it: the name of the constant
/// without MPT_EVENT_, in lower case, such as "path_up"; "unknown" for any other number. Static,
/// never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_event_type_name(r#type: c_int) -> *const c_char {
    let known = TYPES.iter().find(|(known, _)| *known as c_int == r#type);
    known.map_or(c"unknown", |(_, name)| name).as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mptunnel_core::PeerId;
    use std::time::Duration;

    #[test]
    fn an_event_has_the_word_and_the_members_that_it_has_in_rust() {
        let (peer, path, at) = (PeerId(7), PathId(9), "192.0.2.1:4000".parse().unwrap());
        let text = || "why".to_owned();
        let ended = |peer| Event::FlowClosed { peer, epoch: 0, flow: 5, code: 2 };
        let in_flow = |peer: u64| peer | 5 << 48;
        let events = [
            (Event::Connected, (0, 0, 0)),
            (Event::Disconnected, (0, 0, 0)),
            (Event::ServerSilent(Duration::from_millis(5_500)), (0, 0, 5_500)),
            (Event::ServerRestarted, (0, 0, 0)),
            (Event::ServerGoingAway, (0, 0, 0)),
            (Event::Refused(text()), (0, 0, 0)),
            (Event::ServerUnderLoad, (0, 0, 0)),
            (Event::Closed, (0, 0, 0)),
            (Event::PathUp(path, text()), (0, 9, 0)),
            (Event::PathDown(path, text(), text()), (0, 9, 0)),
            (ended(PeerId(0)), (in_flow(0), 0, 2)),
            (Event::Rekeyed(PeerId(0)), (0, 0, 0)),
            (Event::PeerUp(peer), (7, 0, 0)),
            (Event::PeerRestarted(peer), (7, 0, 0)),
            (Event::PeerGone(peer, text()), (7, 0, 0)),
            (Event::PeerPathUp(peer, 0, at), (7, 1, 0)),
            (Event::PeerPathMoved(peer, 31, at), (7, 32, 0)),
            (Event::PeerPathSilent(peer, 1), (7, 2, 0)),
            (Event::UnknownKey(text()), (0, 0, 0)),
            (Event::PeerRefused(text()), (0, 0, 0)),
            (ended(peer), (in_flow(7), 0, 2)),
            (Event::Rekeyed(peer), (7, 0, 0)),
        ];
        let mut seen = vec![mpt_event_type::MPT_EVENT_OTHER as i32];
        for (event, members) in events {
            let told = mpt_event::of(&event);
            // SAFETY: a static string.
            let name = unsafe { CStr::from_ptr(mpt_event_type_name(told.r#type)) };
            assert_eq!(name.to_str(), Ok(event.name()));
            assert_eq!((told.peer, told.path, told.code), members, "{event:?}");
            seen.push(told.r#type);
        }
        let types: Vec<i32> = TYPES.iter().map(|(known, _)| *known as i32).collect();
        assert!(types.iter().all(|known| seen.contains(known)), "{seen:?}");
    }
}
