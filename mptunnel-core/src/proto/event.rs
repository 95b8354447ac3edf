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
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PathId(pub u32);

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a client at a server; never used again.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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
    /// The client ended one flow.
    FlowClosed(PeerId, u16),
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
