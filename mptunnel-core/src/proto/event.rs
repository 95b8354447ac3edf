// SPDX-License-Identifier: BSD-2-Clause
//! What the state machines tell: packets to send, news for the application, wishes to the I/O.

use super::route::Route;
use super::wire::Refusal;
use std::fmt;
use std::time::Duration;

/// A packet of the control side that has to be sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transmit {
    /// From which socket, to which address.
    pub route: Route,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// Names a path of a client for as long as the client lives; never used again.
///
/// At a server a path belongs to one peer, and its name is its number on the wire and 1: a client
/// that removes a path and adds another may use that number again.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PathId(pub u32);

impl PathId {
    /// The name at a server of the path with this number on the wire.
    pub(crate) fn of_slot(slot: u8) -> PathId {
        PathId(u32::from(slot).saturating_add(1))
    }

    /// The number on the wire of a path with this name at a server.
    pub(crate) fn slot_at_server(self) -> Option<u8> {
        u8::try_from(self.0.checked_sub(1)?).ok()
    }
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names who sent a datagram, or who is to get it: a client at a server, and which of the
/// applications behind it. The number of a client is never used again.
///
/// An application that uses the library has flow 0, and then this is the client's number alone. An
/// `mpclient` carries the datagrams of several applications, each in a flow of its own; the flow is
/// in the upper 16 bits, so that an answer to the same `PeerId` reaches the same application. A
/// flow that has ended may have a successor of the same number after a minute.
///
/// At a client, 0 is the server, and [`flow`](Self::with_flow) 1 to 65,534 the target behind an
/// `mpserver`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PeerId(pub u64);

impl PeerId {
    /// Where the number of the flow begins.
    const FLOW_SHIFT: u32 = 48;

    /// The client alone, whichever of its applications this is.
    pub const fn client(self) -> PeerId {
        PeerId(self.0 & ((1 << Self::FLOW_SHIFT) - 1))
    }

    /// Which application behind the client; 0 for one that uses the library itself.
    pub const fn flow(self) -> u16 {
        // The upper 16 of 64 bits.
        let [.., low, high] = self.0.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// Another application behind the same client.
    pub const fn with_flow(self, flow: u16) -> PeerId {
        let [low, high] = flow.to_le_bytes();
        PeerId(self.client().0 | u64::from_le_bytes([0, 0, 0, 0, 0, 0, low, high]))
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.flow() {
            0 => self.0.fmt(f),
            flow => write!(f, "{}/{flow}", self.client().0),
        }
    }
}

/// News of a client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClientEvent {
    /// There is a session where there was none.
    SessionUp,
    /// New keys took over; nothing was lost.
    Rekeyed,
    /// The server is another process than before.
    ServerRestarted,
    /// The keys have ended and there are no new ones yet.
    SessionLost,
    /// Nothing authentic has come for this long.
    ServerSilent(Duration),
    /// The server said no.
    Refused(Refusal),
    /// The server wants proof of our addresses: it is under load.
    CookieMode,
    /// The server ended the session for good.
    Closed,
    /// The server is going away and may come back.
    ServerGoingAway,
    /// A path answers.
    PathUp(PathId),
    /// A path does not answer any more.
    PathDown(PathId, PathDownReason),
    /// The server ended one flow, with the code of its CLOSE.
    FlowClosed(u16, u16),
}

/// Why a path is down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PathDownReason {
    /// Probes go unanswered while other paths answer.
    NoAnswer,
    /// It has no socket: its name does not resolve, its interface is missing, …
    NoSocket,
    /// Nothing is heard on any path.
    AllSilent,
}

impl fmt::Display for PathDownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathDownReason::NoAnswer => "probes go unanswered",
            PathDownReason::NoSocket => "it has no socket",
            PathDownReason::AllSilent => "nothing is heard on any path",
        })
    }
}

/// What a client wants from the I/O layer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reopen {
    /// Whose socket is to be made anew.
    pub path: PathId,
    /// With another source port: the old one may be stuck in a translator on the way.
    pub fresh_port: bool,
}

/// News of a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ServerEvent {
    /// A client is here.
    PeerUp(PeerId),
    /// The client is another process than before; its flows are over.
    PeerRestarted(PeerId),
    /// The client made new keys.
    Rekeyed(PeerId),
    /// The client is gone.
    PeerGone(PeerId, PeerGoneReason),
    /// A path of the client is in use, from this address.
    PathUp(PeerId, u8, Route),
    /// A path of the client moved to this address.
    PathMoved(PeerId, u8, Route),
    /// A path of the client has gone quiet.
    PathSilent(PeerId, u8),
    /// The client ended one flow; in which of its processes, as counted by its restarts.
    FlowClosed(PeerId, u32, u16),
    /// An INIT for a key that is not among ours.
    UnknownKey([u8; 8]),
    /// A client was refused.
    Refused(Refusal),
}

/// Why a client is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PeerGoneReason {
    /// It said so.
    Closed,
    /// It was not heard for the session timeout.
    TimedOut,
    /// This side ended it.
    Dismissed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_id_is_a_client_and_a_flow() {
        let client = PeerId(7);
        let app = client.with_flow(0xabcd);

        assert_eq!((client.client(), client.flow()), (client, 0));
        assert_eq!((app.client(), app.flow()), (client, 0xabcd));
        assert_eq!(app.with_flow(0), client);
        assert_eq!((client.to_string(), app.to_string()), ("7".into(), "7/43981".into()));
    }
}
