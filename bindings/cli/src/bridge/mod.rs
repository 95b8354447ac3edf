// SPDX-License-Identifier: BSD-2-Clause
//! `mptunnel bridge`: a keyless UDP forwarder, which can also be a bad network.
//!
//! ```text
//!  peer 1 ─┐                  ┌─ socket of peer 1 ─┐
//!  peer 2 ─┼─ listening port ─┼─ socket of peer 2 ─┼─ destination
//!  peer 3 ─┘                  └─ socket of peer 3 ─┘
//! ```
//!
//! One thread waits for all sockets, signals and timers. Where nothing is impaired, datagrams go
//! from the receive buffer of one socket to the other in runs, without a copy; otherwise each one
//! passes an emulated [`Link`](mptunnel_core::sim::link::Link), of which every peer has one for
//! each impaired direction.

#![allow(
    clippy::disallowed_methods,
    reason = "a program that forwards in real time reads the clock; the links it drives do not"
)]

mod args;
mod blackout;
mod forwarder;
mod lane;
mod peers;
mod report;
mod udp;

use std::error::Error;
use std::io;
use std::process::ExitCode;

pub use args::{ArgError, BridgeArgs, Direction, HostPort, Impairments, ListenAt, Preset};

/// Forwards until SIGINT or SIGTERM, which is success. Failure to start is told on standard error.
pub fn run(args: BridgeArgs) -> ExitCode {
    match forwarder::Forwarder::new(args).and_then(|mut forwarder| forwarder.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let cause = e.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("mptunnel bridge: {e}{cause}");
            if let Some(remedy) = e.remedy() {
                eprintln!("{remedy}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Why the bridge does not run.
#[derive(Debug, thiserror::Error)]
enum BridgeError {
    #[error("cannot find the address of `{to}`")]
    Resolve { to: HostPort, source: io::Error },
    #[error("cannot send to `{to}`")]
    Connect { to: HostPort, source: io::Error },
    #[error("cannot listen on {at}")]
    Listen { at: ListenAt, source: io::Error },
    #[error("cannot {what}")]
    System { what: &'static str, source: io::Error },
}

impl BridgeError {
    /// What the user can do about it.
    fn remedy(&self) -> Option<&'static str> {
        match self {
            BridgeError::Resolve { .. } => {
                Some("Check the spelling and the name server, or give an address.")
            }
            BridgeError::Connect { .. } => {
                Some("Check that this machine has a route to it: `ip route get ADDRESS`.")
            }
            BridgeError::Listen { source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => {
                    Some("Another program has this port (`ss -ulpn` shows which): choose another.")
                }
                io::ErrorKind::PermissionDenied => {
                    Some("Ports below 1024 need privileges: choose a higher one.")
                }
                io::ErrorKind::AddrNotAvailable => {
                    Some("No interface of this machine has this address (`ip address` shows all).")
                }
                _ => None,
            },
            BridgeError::System { .. } => None,
        }
    }
}
