// SPDX-License-Identifier: BSD-2-Clause
//! One direction of one peer.

use mptunnel_core::proto::time::Time;
use mptunnel_core::sim::link::{Counters, Link, LinkConfig};

use super::udp::{Port, Sent, Target};

/// A way that datagrams take: straight from the receive buffer to the other socket, or through an
/// emulated link.
pub struct Lane {
    link: Option<Link<Vec<u8>>>,
    /// What happened to datagrams outside the link.
    direct: Counters,
    sent: Sent,
}

/// Where a lane ends.
pub struct Exit<'a> {
    /// The socket that sends.
    pub port: &'a mut Port,
    /// The receiver, unless the socket is connected.
    pub target: Option<&'a Target>,
}

impl Lane {
    /// A lane with the given impairments.
    pub fn new(config: Option<LinkConfig>, seed: u64) -> Self {
        Lane {
            link: config.map(|config| Link::new(config, seed)),
            direct: Counters::default(),
            sent: Sent::default(),
        }
    }

    /// Takes datagrams in, and sends those that are due at once. `held` is the memory that the
    /// emulated links of all lanes take, and is kept up to date.
    pub fn forward<'a>(
        &mut self,
        now: Time,
        dark: bool,
        datagrams: impl Iterator<Item = &'a [u8]>,
        held: &mut usize,
        exit: Exit<'_>,
    ) {
        let Some(link) = &mut self.link else {
            if dark {
                let count = datagrams.count() as u64;
                self.direct.sent += count;
                self.direct.lost_down += count;
            } else {
                let counted = datagrams.inspect(|_| self.direct.sent += 1);
                exit.port.send(exit.target, counted, &mut self.sent);
            }
            return;
        };
        for datagram in datagrams {
            if *held > HELD_MAX {
                self.direct.sent += 1;
                self.direct.overflowed += 1;
            } else {
                *held -= memory(link);
                link.send(now, datagram.to_vec());
                *held += memory(link);
            }
        }
        self.release(now, held, exit);
    }

    /// Sends what is due.
    pub fn release(&mut self, now: Time, held: &mut usize, exit: Exit<'_>) {
        let Some(link) = &mut self.link else { return };
        *held -= memory(link);
        loop {
            let due: Vec<Vec<u8>> =
                std::iter::from_fn(|| link.poll(now)).take(RELEASED_AT_ONCE).collect();
            if due.is_empty() {
                break;
            }
            let datagrams = due.iter().map(|datagram| &datagram[..]);
            exit.port.send(exit.target, datagrams, &mut self.sent);
        }
        *held += memory(link);
    }

    /// Begins or ends a blackout. What is under way still arrives.
    pub fn turn(&mut self, now: Time, dark: bool) {
        if let Some(link) = &mut self.link {
            let config = LinkConfig { down: dark, ..link.config().clone() };
            link.set_config(now, config);
        }
    }

    /// A send error by which the system answers to an earlier datagram.
    pub fn on_refused(&mut self) {
        self.sent.refused += 1;
    }

    /// The last error in sending since the last call.
    pub fn take_error(&mut self) -> Option<std::io::Error> {
        self.sent.last_error.take()
    }

    /// When to call [`release`](Self::release) next.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.link.as_ref().and_then(Link::poll_timeout)
    }

    /// Bytes of memory that the link holds.
    pub fn held(&self) -> usize {
        self.link.as_ref().map_or(0, memory)
    }

    /// Adds what happened in this lane to `tally`.
    pub fn add_to(&self, tally: &mut Tally) {
        tally.link += self.direct;
        if let Some(link) = &self.link {
            tally.link += link.counters();
        }
        tally.out += self.sent.datagrams;
        tally.bytes_out += self.sent.bytes;
        tally.refused += self.sent.refused;
        tally.blocked += self.sent.blocked;
        tally.failed += self.sent.failed;
    }
}

/// What happened in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Datagrams received, and what the emulated links did to them. `delivered` is without
    /// meaning, since nothing is emulated where nothing is impaired.
    pub link: Counters,
    /// Datagrams sent.
    pub out: u64,
    /// Bytes in them.
    pub bytes_out: u64,
    /// Reports that a port was closed.
    pub refused: u64,
    /// Datagrams for which the socket had no room.
    pub blocked: u64,
    /// Datagrams that could not be sent for another reason.
    pub failed: u64,
}

/// The memory that a link's packets take.
fn memory(link: &Link<Vec<u8>>) -> usize {
    link.held_bytes() + link.held_packets() * OVERHEAD
}

/// Bytes that a held datagram takes beside its own: allocation, queue entry. Rounded up.
const OVERHEAD: usize = 128;

/// Bytes of memory above which emulated links take nothing more; that counts as overflow. One
/// second at 2 Gbit/s.
const HELD_MAX: usize = 256 << 20;

/// Datagrams taken out of a link before they are sent together.
const RELEASED_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn memory_is_accounted_exactly_and_bounded() {
        let config = LinkConfig { delay: Duration::from_secs(1), ..LinkConfig::default() };
        let twice = LinkConfig { duplicate: 1.0, ..config };
        let receiver = Port::listen(Some([127, 0, 0, 1].into()), 0).unwrap();
        let mut port = Port::connect(receiver.local_addr().unwrap()).unwrap();
        let mut lane = Lane::new(Some(twice), 1);
        let mut others = HELD_MAX;
        let sent_at = Time::default();
        let mut send = |lane: &mut Lane, held: &mut usize| {
            let exit = Exit { port: &mut port, target: None };
            lane.forward(sent_at, false, [&[0_u8; 100][..]].into_iter(), held, exit);
        };

        send(&mut lane, &mut others);
        assert_eq!((others, lane.held()), (HELD_MAX + 2 * (100 + OVERHEAD), 2 * (100 + OVERHEAD)));
        send(&mut lane, &mut others);
        let exit = Exit { port: &mut port, target: None };
        lane.release(sent_at + Duration::from_secs(1), &mut others, exit);

        assert_eq!((others, lane.held()), (HELD_MAX, 0));
        let mut tally = Tally::default();
        lane.add_to(&mut tally);
        assert_eq!((tally.link.sent, tally.link.overflowed, tally.out), (2, 1, 2));
    }
}
