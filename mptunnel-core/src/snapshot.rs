// SPDX-License-Identifier: BSD-2-Clause
//! Everything that can be seen of an endpoint, as values and as text.
//!
//! JSON comes from `serde_json`, built as values: no type of the public interface implements a
//! trait of another crate. The Prometheus text is written by hand; `prometheus` says why.

mod json;
mod prometheus;
#[cfg(test)]
mod tests;

use crate::options::Role;
use crate::relay::RelayStats;
use crate::stats::{PathInfo, PeerInfo, SessionInfo, Stats};
use std::sync::Arc;

/// What an endpoint looks like at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// Which end it is.
    pub role: Role,
    /// The version of the library.
    pub version: &'static str,
    /// The ids of the keys in use. Not secret.
    pub key_ids: Vec<String>,
    /// Its counters.
    pub stats: Stats,
    /// The paths of a client; none at a server.
    pub paths: Vec<PathInfo>,
    /// The clients of a server, with their paths, in the order in which they came; none at a
    /// client. Shared with the server, which uses the memory again once all snapshots are dropped.
    pub peers: Arc<Vec<PeerInfo>>,
    /// The tunnel of a client as a whole; each of a server's [`peers`](Self::peers) has its own.
    pub session: SessionInfo,
    /// What the relay around it has carried, if there is one.
    pub relay: Option<RelayStats>,
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Server => "server",
    }
}

/// What errno(3) calls an error, such as `ECONNREFUSED`, of those that sockets report; its number
/// otherwise.
pub fn errno_name(errno: i32) -> String {
    let names = [
        (libc::EACCES, "EACCES"),
        (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::EHOSTUNREACH, "EHOSTUNREACH"),
        (libc::EINVAL, "EINVAL"),
        (libc::EIO, "EIO"),
        (libc::EMSGSIZE, "EMSGSIZE"),
        (libc::ENETDOWN, "ENETDOWN"),
        (libc::ENETUNREACH, "ENETUNREACH"),
        (libc::ENOBUFS, "ENOBUFS"),
        (libc::ENODEV, "ENODEV"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EPERM, "EPERM"),
    ];
    let name = names.iter().find(|(number, _)| *number == errno);
    name.map_or_else(|| errno.to_string(), |(_, name)| (*name).to_owned())
}
