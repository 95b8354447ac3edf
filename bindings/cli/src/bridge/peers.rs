// SPDX-License-Identifier: BSD-2-Clause
//! Who talks through the bridge.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use mptunnel_core::proto::time::Time;

use super::lane::Lane;
use super::udp::{Port, Target};

/// One address at one listening port.
pub struct Peer {
    /// The index of the listening port.
    pub listener: usize,
    /// The peer, and the address of this machine that it sent to last.
    pub target: Target,
    /// The socket towards the destination, this peer's own.
    pub upstream: Port,
    /// From the peer to the destination.
    pub up: Lane,
    /// From the destination to the peer.
    pub down: Lane,
    /// When a datagram came last, in either direction.
    pub used: Time,
    /// The earliest entry of this peer in the agenda of the bridge, or [`Time::NEVER`].
    pub armed: Time,
}

impl Peer {
    /// When one of the lanes has something to send.
    pub fn poll_timeout(&self) -> Option<Time> {
        [self.up.poll_timeout(), self.down.poll_timeout()].into_iter().flatten().min()
    }

    /// Bytes of memory that the lanes hold.
    pub fn held(&self) -> usize {
        self.up.held() + self.down.held()
    }
}

/// Names a peer for as long as the program runs, also when it is gone.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PeerId(pub u64);

/// All peers, at most `max` of them.
pub struct Peers {
    by_id: BTreeMap<PeerId, Peer>,
    by_address: HashMap<(usize, SocketAddr), PeerId>,
    next: u64,
    max: usize,
    idle: Duration,
    /// No peer expires before.
    check_at: Time,
}

impl Peers {
    /// A table in which peers expire when `idle` has passed without a datagram.
    pub fn new(max: usize, idle: Duration) -> Self {
        Peers {
            by_id: BTreeMap::new(),
            by_address: HashMap::new(),
            next: 0,
            max,
            idle,
            check_at: Time::NEVER,
        }
    }

    /// The peer of that address at that listening port.
    pub fn find(&self, listener: usize, address: SocketAddr) -> Option<PeerId> {
        self.by_address.get(&(listener, address)).copied()
    }

    /// The peer of that name, if it is still there.
    pub fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.by_id.get_mut(&id)
    }

    /// All peers, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.by_id.iter().map(|(&id, peer)| (id, peer))
    }

    /// All peers, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.by_id.values_mut()
    }

    /// Takes the peer out that has been idle longest, if the table is full.
    pub fn make_room(&mut self) -> Option<Peer> {
        if self.by_id.len() < self.max {
            return None;
        }
        let (&id, _) = self.by_id.iter().min_by_key(|(_, peer)| peer.used)?;
        self.remove(id)
    }

    /// The name that the next peer will bear.
    pub fn next_id(&self) -> PeerId {
        PeerId(self.next)
    }

    /// Adds a peer for which there is room.
    pub fn insert(&mut self, peer: Peer) -> PeerId {
        let id = self.next_id();
        self.next += 1;
        self.check_at = self.check_at.min(peer.used + self.idle);
        self.by_address.insert((peer.listener, peer.target.to), id);
        self.by_id.insert(id, peer);
        id
    }

    /// Takes a peer out that has expired.
    pub fn pop_expired(&mut self, now: Time) -> Option<Peer> {
        if now < self.check_at {
            return None;
        }
        let longest = self.by_id.iter().min_by_key(|(_, peer)| peer.used);
        let expires = longest.map_or(Time::NEVER, |(_, peer)| peer.used + self.idle);
        if now < expires {
            self.check_at = expires;
            return None;
        }
        let (&id, _) = longest?;
        self.remove(id)
    }

    /// When to look for expired peers.
    pub fn poll_timeout(&self) -> Option<Time> {
        Some(self.check_at).filter(|&at| at != Time::NEVER)
    }

    fn remove(&mut self, id: PeerId) -> Option<Peer> {
        let peer = self.by_id.remove(&id)?;
        self.by_address.remove(&(peer.listener, peer.target.to));
        Some(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_gives_up_the_peer_that_was_idle_longest() {
        let mut peers = Peers::new(2, seconds(100));
        assert!(peers.make_room().is_none());
        let first = peers.insert(peer(1, at(0)));
        assert!(peers.make_room().is_none());
        peers.insert(peer(2, at(1)));
        peers.get_mut(first).unwrap().used = at(2);

        let gone = peers.make_room().unwrap();

        assert_eq!(gone.target.to, address(2));
        assert_eq!(peers.find(0, address(2)), None);
        assert_eq!(peers.find(0, address(1)), Some(first));
        assert_eq!(peers.find(1, address(1)), None, "another listening port, another peer");
    }

    #[test]
    fn a_peer_expires_when_idle_time_has_passed_since_its_last_datagram() {
        let mut peers = Peers::new(10, seconds(100));
        assert_eq!(peers.poll_timeout(), None);
        let busy = peers.insert(peer(1, at(0)));
        peers.insert(peer(2, at(10)));
        peers.get_mut(busy).unwrap().used = at(50);

        assert_eq!(peers.poll_timeout(), Some(at(100)));
        assert!(peers.pop_expired(at(100)).is_none());
        assert_eq!(peers.poll_timeout(), Some(at(110)));
        assert!(peers.pop_expired(at(109)).is_none());
        assert_eq!(peers.pop_expired(at(110)).unwrap().target.to, address(2));
        assert!(peers.pop_expired(at(110)).is_none());
        assert_eq!(peers.poll_timeout(), Some(at(150)));
        assert_eq!(peers.pop_expired(at(150)).unwrap().target.to, address(1));
        assert!(peers.pop_expired(at(150)).is_none());
        assert_eq!(peers.poll_timeout(), None);
    }

    fn peer(port: u16, used: Time) -> Peer {
        Peer {
            listener: 0,
            target: Target { to: address(port), from: None },
            upstream: Port::connect(address(9)).unwrap(),
            up: Lane::new(None, 0),
            down: Lane::new(None, 0),
            used,
            armed: Time::NEVER,
        }
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn at(s: u64) -> Time {
        Time::default() + seconds(s)
    }

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }
}
