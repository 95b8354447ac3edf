// SPDX-License-Identifier: BSD-2-Clause
//! News of an endpoint, pulled by the application.

use crate::{PathId, PeerId};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// What happened to an endpoint, a peer or a path. [`Display`](fmt::Display) is a log line.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The client has a session where it had none.
    Connected,
    /// The client lost its session: the keys ended before new ones could be made. It goes on
    /// trying.
    Disconnected,
    /// Nothing authentic has come from the server for this long: it is down, all paths are
    /// blocked, or the keys differ (which cannot be told apart, on purpose).
    ServerSilent(Duration),
    /// The server is another process than before.
    ServerRestarted,
    /// The server is going away and may come back.
    ServerGoingAway,
    /// The server refused the client, for the reason in the text.
    Refused(String),
    /// The server asked for proof of address: it is under load.
    ServerUnderLoad,
    /// The peer ended the session for good.
    Closed,
    /// A client's path answers.
    PathUp(PathId, String),
    /// A client's path does not answer, or has no socket, for the reason in the text.
    PathDown(PathId, String, String),
    /// The server ended a flow, with this code (2: it has no room for it).
    FlowClosed {
        /// The client that the flow belongs to; 0 at a client.
        peer: PeerId,
        /// Of which process of the client: how often it had been restarted; 0 at a client.
        epoch: u32,
        /// Which flow.
        flow: u16,
        /// Why.
        code: u16,
    },
    /// A client connected.
    PeerUp(PeerId),
    /// A client's process is another one than before.
    PeerRestarted(PeerId),
    /// A client is gone, for the reason in the text.
    PeerGone(PeerId, String),
    /// A client's path is in use from this address.
    PeerPathUp(PeerId, u8, SocketAddr),
    /// A client's path moved to this address.
    PeerPathMoved(PeerId, u8, SocketAddr),
    /// A client's path has gone quiet.
    PeerPathSilent(PeerId, u8),
    /// Somebody tried with a key that is not ours; the text is the id of that key.
    UnknownKey(String),
    /// A client was refused, for the reason in the text.
    PeerRefused(String),
    /// Keys were renewed; nothing was lost. The peer is 0 at a client.
    Rekeyed(PeerId),
}

impl Event {
    /// What happened, as one word for programs to look at: it stays the same between versions.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Connected => "connected",
            Event::Disconnected => "disconnected",
            Event::ServerSilent(_) => "server_silent",
            Event::ServerRestarted => "server_restarted",
            Event::ServerGoingAway => "server_going_away",
            Event::Refused(_) => "refused",
            Event::ServerUnderLoad => "server_under_load",
            Event::Closed => "closed",
            Event::PathUp(..) => "path_up",
            Event::PathDown(..) => "path_down",
            Event::FlowClosed { .. } => "flow_closed",
            Event::PeerUp(_) => "peer_up",
            Event::PeerRestarted(_) => "peer_restarted",
            Event::PeerGone(..) => "peer_gone",
            Event::PeerPathUp(..) => "peer_path_up",
            Event::PeerPathMoved(..) => "peer_path_moved",
            Event::PeerPathSilent(..) => "peer_path_silent",
            Event::UnknownKey(_) => "unknown_key",
            Event::PeerRefused(_) => "peer_refused",
            Event::Rekeyed(_) => "rekeyed",
        }
    }

    /// The path that it is about, and the client that the path belongs to (0 at a client).
    pub fn path(&self) -> Option<(PeerId, PathId)> {
        match self {
            Event::PathUp(path, _) | Event::PathDown(path, ..) => Some((PeerId(0), *path)),
            Event::PeerPathUp(peer, slot, _)
            | Event::PeerPathMoved(peer, slot, _)
            | Event::PeerPathSilent(peer, slot) => Some((*peer, PathId::of_slot(*slot))),
            _ => None,
        }
    }

    /// The client that it is about.
    pub fn peer(&self) -> Option<PeerId> {
        match self {
            Event::PeerUp(peer)
            | Event::PeerRestarted(peer)
            | Event::PeerGone(peer, _)
            | Event::PeerPathUp(peer, ..)
            | Event::PeerPathMoved(peer, ..)
            | Event::PeerPathSilent(peer, _)
            | Event::Rekeyed(peer)
            | Event::FlowClosed { peer, .. } => Some(*peer).filter(|peer| *peer != PeerId(0)),
            _ => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Connected => write!(f, "connected"),
            Event::Disconnected => write!(f, "session lost: its keys ended; trying again"),
            Event::ServerSilent(silence) => write!(
                f,
                "no answer from the server for {:.0} s: it is down, all paths are blocked, or the \
                 two ends have different keys (compare the key ids in both logs)",
                silence.as_secs_f64()
            ),
            Event::ServerRestarted => write!(f, "the server was restarted; connected again"),
            Event::ServerGoingAway => write!(f, "the server is going away; trying again"),
            Event::Refused(why) => write!(f, "refused by the server: {why}"),
            Event::ServerUnderLoad => write!(f, "the server is under load and checks addresses"),
            Event::Closed => write!(f, "closed by the other end"),
            Event::PathUp(_, name) => write!(f, "path {name} is up"),
            Event::PathDown(_, name, why) => {
                write!(f, "path {name} is down: {why}; trying again")
            }
            Event::FlowClosed { peer, flow, code: 2, .. } => {
                write!(f, "flow {flow} of peer {peer} was refused: the limit is reached")
            }
            Event::FlowClosed { peer, flow, .. } => write!(f, "flow {flow} of peer {peer} ended"),
            Event::PeerUp(peer) => write!(f, "client {peer} connected"),
            Event::PeerRestarted(peer) => write!(f, "client {peer} was restarted"),
            Event::PeerGone(peer, why) => write!(f, "client {peer} is gone: {why}"),
            Event::PeerPathUp(peer, path, at) => {
                write!(f, "client {peer}: path {path} is up from {at}")
            }
            Event::PeerPathMoved(peer, path, at) => {
                write!(f, "client {peer}: path {path} moved to {at}")
            }
            Event::PeerPathSilent(peer, path) => write!(f, "client {peer}: path {path} is silent"),
            Event::UnknownKey(id) => write!(
                f,
                "somebody tried with key id {id}, which is not ours: if that is your client, copy \
                 this server's key file to it"
            ),
            Event::PeerRefused(why) => write!(f, "a client was refused: {why}"),
            Event::Rekeyed(_) => write!(f, "keys renewed"),
        }
    }
}
