// SPDX-License-Identifier: BSD-2-Clause
//! What travels through the simulated links.

use std::net::SocketAddr;
use std::rc::Rc;

/// One packet on the way, with what only the simulator knows about it.
///
/// Copies share their bytes until a link damages one of them.
#[derive(Clone, Debug)]
pub struct Parcel {
    bytes: Rc<Vec<u8>>,
    /// Where the packet comes from, as the receiver sees it.
    pub source: SocketAddr,
    /// Which datagram it carries, if it is DATA of an honest endpoint.
    pub cargo: Option<Cargo>,
    damaged: bool,
}

/// A datagram of the ledger, or a piece of one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cargo {
    /// Its number in the ledger.
    pub datagram: u32,
    /// Which piece, and of how many; (0, 1) is a whole datagram.
    pub piece: (u8, u8),
}

impl Parcel {
    /// A packet as it leaves its sender.
    pub fn new(bytes: Rc<Vec<u8>>, source: SocketAddr, cargo: Option<Cargo>) -> Self {
        Parcel { bytes, source, cargo, damaged: false }
    }

    /// The packet's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a link has changed the bytes.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }
}

impl AsRef<[u8]> for Parcel {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Only a link that damages the packet asks for this.
impl AsMut<[u8]> for Parcel {
    fn as_mut(&mut self) -> &mut [u8] {
        self.damaged = true;
        let bytes: &mut Vec<u8> = Rc::make_mut(&mut self.bytes);
        bytes
    }
}
