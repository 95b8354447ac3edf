// SPDX-License-Identifier: BSD-2-Clause
//! Both ends of the [legacy](crate::legacy) mode on real sockets: one thread for each, which
//! receives, keeps time and opens sockets. What is sent leaves on the caller's thread.
//!
//! ```text
//!   application ── send ──► Outbound ──► a copy to every lane      (on the caller's thread)
//!   mpt-legacy: sockets ─► machine ─► handler
//!               machine ─► signs of life, fresh ports, the table of lanes
//! ```
//!
//! The machine belongs to that thread alone. What others see of it is published: the lanes, the
//! counters of each, and the board of the client's paths. The locks of these are leaves.

mod bridge;
mod client;
mod life;
mod numbers;
mod outbound;
mod server;

pub(crate) use client::ClientIo;
pub(crate) use server::{EPOCH, ServerIo};

use crate::Error;
use crate::legacy::{MAX_PAYLOAD, Timers};
use crate::options::Settings;

/// What is said at every start.
const WARNING: &str = "protocol = legacy: nothing is encrypted and nobody is authenticated; \
                       whoever can reach a port of this tunnel can read, forge and disturb what it \
                       carries. Use it to replace one end of a classic mptunnel after the other, \
                       then remove it";

fn timers(settings: &Settings) -> Timers {
    Timers::new(settings.legacy_timeout)
}

/// Bytes of the largest datagram.
fn max_payload(settings: &Settings) -> usize {
    usize::from(settings.max_payload).min(MAX_PAYLOAD)
}

/// Refuses what promises a protection that this mode does not have.
pub(crate) fn check(settings: &Settings, has_own_key: bool) -> Result<(), Error> {
    let named = [
        ("key", has_own_key),
        ("key-file", settings.key_file.is_some()),
        ("passphrase-file", settings.passphrase_file.is_some()),
        ("private-key-file", settings.private_key_file.is_some()),
        ("peer-key", settings.peer_key.is_some()),
        ("allowed-keys-file", settings.allowed_keys_file.is_some()),
    ];
    if let Some((key, _)) = named.into_iter().find(|(_, is_set)| *is_set) {
        return Err(Error::Config(format!(
            "protocol = legacy has no keys and protects nothing: remove {key}, or the protocol"
        )));
    }
    if settings.threads > 1 {
        return Err(Error::Config(
            "threads: protocol = legacy has one client, whom one thread serves".to_owned(),
        ));
    }
    Ok(())
}

fn warn() {
    log::warn!(target: "mptunnel::legacy", "{WARNING}");
}
