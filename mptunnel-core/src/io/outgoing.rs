// SPDX-License-Identifier: BSD-2-Clause
//! From the application's datagrams to the sockets: sealed into one batch, then each path's share
//! with as few system calls as there are runs.

use super::send::{SendBatch, SendReport};
use super::socket::UdpSocket;
use crate::proto::num::path_bit;
use crate::proto::route::Route;
use crate::proto::time::Time;
use crate::proto::view::{PacketSink, SendRefused, SendView, Target};

/// Where packets of a route go.
pub(crate) trait Sockets {
    /// Calls `send` with the socket of `route`, and whether it is connected, if there is one.
    fn with<R>(&self, route: &Route, send: impl FnOnce(&UdpSocket, bool) -> R) -> Option<R>;

    /// Packets did not fit the path, or the socket reported an error.
    fn on_report(&self, target: &Target, report: &SendReport);
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Outcome {
    /// Copies that a socket took.
    pub(crate) copies: usize,
    /// Copies that none took.
    pub(crate) dropped: usize,
    /// Packets that the socket took which took the most, of all batches together.
    pub(crate) most: usize,
    /// Whether a socket did not take everything for want of room.
    pub(crate) full: bool,
    /// Whether a socket took all packets of its path, of the last batch.
    pub(crate) whole: bool,
}

impl Outcome {
    /// What one path's share of a batch came to.
    fn add(&mut self, report: &SendReport) {
        self.copies += report.packets;
        self.dropped += report.lost();
        self.full |= report.full;
        self.whole |= report.packets > 0 && report.lost() == 0;
    }
}

/// A batch under construction for one peer.
pub(crate) struct Outgoing<'a, S: Sockets> {
    batch: &'a mut SendBatch,
    view: &'a SendView,
    sockets: &'a S,
    outcome: Outcome,
}

impl<'a, S: Sockets> Outgoing<'a, S> {
    /// An empty batch in `batch`, for the peer of `view`.
    pub(crate) fn new(batch: &'a mut SendBatch, view: &'a SendView, sockets: &'a S) -> Self {
        batch.clear();
        Outgoing { batch, view, sockets, outcome: Outcome::default() }
    }

    /// Seals one datagram. It is sent at the latest when the batch is [finished](Self::finish).
    pub(crate) fn push(&mut self, now: Time, flow: u16, payload: &[u8]) -> Result<(), SendRefused> {
        let view = self.view;
        view.send(now, flow, payload, self)
    }

    /// Seals and sends datagrams. The first that was refused is told, with its length, if nothing
    /// at all was sent.
    pub(crate) fn send_all<'d>(
        mut self,
        now: Time,
        datagrams: impl Iterator<Item = (u16, &'d [u8])>,
    ) -> Result<Outcome, (SendRefused, usize)> {
        let mut refusal = None;
        for (flow, bytes) in datagrams {
            let Err(refused) = self.push(now, flow, bytes) else { continue };
            refusal.get_or_insert((refused, bytes.len()));
            // One that is too large says nothing of the others, which may be of other
            // applications; without a path or a session all fare alike.
            if !matches!(refused, SendRefused::TooLarge { .. }) {
                break;
            }
        }
        let sent = self.finish();
        match refusal {
            Some(refusal) if sent.copies == 0 => Err(refusal),
            _ => Ok(sent),
        }
    }

    /// Sends what is left.
    pub(crate) fn finish(mut self) -> Outcome {
        self.flush();
        self.outcome
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut most = 0;
        self.outcome.whole = false;
        for target in &self.view.targets {
            let bit = path_bit(target.slot);
            let bytes = self.batch.bytes_for(bit);
            if self.view.chosen & bit == 0 || !target.may_send(&self.view.session, bytes) {
                continue;
            }
            let to = (target.route.remote, target.route.local);
            let batch = &mut *self.batch;
            let report = self.sockets.with(&target.route, |socket, connected| {
                batch.send(socket, bit, (!connected).then_some(to))
            });
            let Some(report) = report else { continue };
            let counters = self.view.session.path(target.slot);
            counters.on_sent(report.packets as u64, report.bytes as u64);
            let lost = report.lost();
            if lost > 0 {
                counters.on_send_dropped(lost as u64);
            }
            if report.too_big > 0 || report.error.is_some() {
                self.sockets.on_report(target, &report);
            }
            self.outcome.add(&report);
            most = most.max(report.packets);
        }
        self.outcome.most += most;
        self.batch.clear();
    }
}

impl<S: Sockets> PacketSink for Outgoing<'_, S> {
    fn room(&mut self, len: usize) -> &mut [u8] {
        if !self.batch.has_room(len) {
            self.flush();
        }
        self.batch.room(len).expect("a batch just cleared has room for any datagram")
    }

    fn commit(&mut self, len: usize, paths: u32) {
        self.batch.commit(len, paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_whole_only_if_the_socket_took_all_of_it() {
        let report = |packets, dropped, too_big| SendReport {
            packets,
            dropped,
            too_big,
            full: dropped > 0,
            ..SendReport::default()
        };
        let of = |reports: &[SendReport]| {
            let mut outcome = Outcome::default();
            reports.iter().for_each(|report| outcome.add(report));
            outcome
        };

        assert!(of(&[report(4, 0, 0)]).whole);
        assert!(!of(&[report(3, 1, 0), report(3, 0, 1), report(0, 0, 0)]).whole);
        let second = of(&[report(3, 1, 0), report(4, 0, 0)]);
        assert!(second.whole && second.full);
        assert_eq!((second.copies, second.dropped), (7, 1));
    }
}
