// SPDX-License-Identifier: BSD-2-Clause
//! From the application's datagrams to the sockets: sealed into one batch, then each path's share
//! with as few system calls as there are runs.

use super::send::{SendBatch, SendReport};
use super::socket::UdpSocket;
use crate::proto::admission::Admission;
use crate::proto::num::path_bit;
use crate::proto::pace::Part;
use crate::proto::route::Route;
use crate::proto::sched::Turns;
use crate::proto::time::Time;
use crate::proto::view::{PacketSink, SendRefused, SendView, Target};

/// Where packets of a route go.
pub(crate) trait Sockets {
    /// Calls `send` with the socket of `route`, and whether it is connected, if there is one.
    fn with<R>(&self, route: &Route, send: impl FnOnce(&UdpSocket, bool) -> R) -> Option<R>;

    /// Packets did not fit the path, or the socket reported an error.
    fn on_report(&self, target: &Target, report: &SendReport);

    /// Packets wait until `at` for their turn on a path with a rate.
    fn on_queued(&self, at: Time);
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Outcome {
    /// Copies that a socket took, or the queue of a path.
    pub(crate) copies: usize,
    /// Copies that none took.
    pub(crate) dropped: usize,
    /// Packets that the path took which took the most, of all batches together.
    pub(crate) most: usize,
    /// Whether a path did not take everything for want of room.
    pub(crate) full: bool,
    /// Whether a socket took all packets of its path, of the last batch.
    pub(crate) whole: bool,
}

impl Outcome {
    /// What one path's share of a batch came to, of which `queued` packets wait for their turn;
    /// `short`: and others were not even taken for that.
    fn add(&mut self, report: &SendReport, queued: usize, short: bool) {
        self.copies += report.packets + queued;
        self.dropped += report.lost();
        self.full |= report.full;
        self.whole |= report.packets + queued > 0 && report.lost() == 0 && !short;
    }
}

/// A batch under construction for one peer.
pub(crate) struct Outgoing<'a, S: Sockets> {
    batch: &'a mut SendBatch,
    view: &'a SendView,
    sockets: &'a S,
    turns: Turns,
    outcome: Outcome,
    /// The paths that do not take every packet at once: unproven ones, and those with a rate.
    gated: u32,
    now: Time,
    part: Part,
    admission: Admission,
    /// Of the gated ones, those that have not taken everything of the batch in hand.
    short: u32,
}

impl<'a, S: Sockets> Outgoing<'a, S> {
    /// An empty batch in `batch`, for the peer of `view`.
    pub(crate) fn new(batch: &'a mut SendBatch, view: &'a SendView, sockets: &'a S) -> Self {
        batch.clear();
        let gates = view.targets.iter().filter(|t| t.credit.is_some() || t.pace.is_some());
        let gated = gates.fold(0, |set, target| set | path_bit(target.slot));
        let (outcome, now, part) = (Outcome::default(), Time::default(), Part::First);
        let (turns, admission) = Default::default();
        Outgoing { batch, view, sockets, turns, outcome, gated, now, part, admission, short: 0 }
    }

    /// Seals one datagram. It is sent at the latest when the batch is [finished](Self::finish).
    pub(crate) fn push(&mut self, now: Time, flow: u16, payload: &[u8]) -> Result<(), SendRefused> {
        self.now = now;
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
        self.view.plan.end(&mut self.turns);
        self.flush();
        if self.gated != 0 {
            let waiting = self.view.targets.iter().filter_map(|t| t.pace.as_ref()?.deadline());
            if let Some(at) = waiting.min() {
                self.sockets.on_queued(at);
            }
        }
        self.outcome
    }

    /// The paths of `paths` on which the packet of `len` bytes that was just sealed goes at once,
    /// or another one in their place.
    fn gate(&mut self, len: usize, paths: u32, part: Part) -> u32 {
        let view = self.view;
        let packet = self.batch.uncommitted(len);
        let said = self.admission.admit(view, self.now, packet, paths, part);
        if said.queued != 0 {
            let its = view.targets.iter().filter(|t| said.queued & path_bit(t.slot) != 0);
            its.for_each(|target| self.batch.note_queued(target.slot));
        }
        self.short |= said.dropped | said.unearned;
        self.outcome.dropped += said.dropped.count_ones() as usize;
        self.outcome.full |= said.dropped != 0;
        said.now
    }

    fn flush(&mut self) {
        if self.batch.is_empty() && self.batch.queued_most() == 0 {
            return;
        }
        let mut most = 0;
        self.outcome.whole = false;
        for target in &self.view.targets {
            let bit = path_bit(target.slot);
            if self.view.chosen() & bit == 0 {
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
            let queued = self.batch.queued(target.slot);
            self.outcome.add(&report, queued, self.short & bit != 0);
            most = most.max(report.packets + queued);
        }
        if most > 0 && self.view.plan.is_dealt() {
            // Each path has its share only. What a full socket left behind is lost: it lies among
            // what others took, so none of it can be sent again.
            let queued = self.view.targets.iter().map(|target| self.batch.queued(target.slot));
            most = self.batch.packets() + queued.sum::<usize>();
        }
        self.outcome.most += most;
        self.short = 0;
        self.batch.clear();
    }
}

impl<S: Sockets> PacketSink for Outgoing<'_, S> {
    fn turns(&mut self) -> Option<&mut Turns> {
        Some(&mut self.turns)
    }

    fn room(&mut self, len: usize) -> &mut [u8] {
        if !self.batch.has_room(len) {
            self.flush();
        }
        self.batch.room(len).expect("a batch just cleared has room for any datagram")
    }

    fn commit(&mut self, len: usize, paths: u32) {
        let part = std::mem::replace(&mut self.part, Part::First);
        let now = if paths & self.gated == 0 { paths } else { self.gate(len, paths, part) };
        if now != 0 {
            self.batch.commit(len, now);
        }
    }

    fn next_piece(&mut self) {
        self.part = Part::Next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::socket::SocketConfig;
    use crate::proto::pace::Pace;
    use crate::proto::session::tests::end;
    use std::cell::Cell;
    use std::sync::Arc;
    use std::sync::atomic::AtomicI64;
    use std::time::Duration;

    const NOW: Time = Time::from_micros(1_000_000);

    /// One socket for all routes.
    struct One {
        socket: UdpSocket,
        queued: Cell<Option<Time>>,
    }

    impl Sockets for One {
        fn with<R>(&self, _: &Route, send: impl FnOnce(&UdpSocket, bool) -> R) -> Option<R> {
            Some(send(&self.socket, false))
        }

        fn on_report(&self, _: &Target, report: &SendReport) {
            panic!("{report:?}");
        }

        fn on_queued(&self, at: Time) {
            self.queued.set(Some(at));
        }
    }

    /// Sends ten datagrams of 964 bytes, packets of 1,000, on one path.
    fn send_ten(credit: Option<i64>, pace: Option<Pace>) -> (Outcome, One, SendView) {
        let socket = UdpSocket::open(&SocketConfig::new("127.0.0.1:0".parse().unwrap())).unwrap();
        let remote = socket.local_addr().unwrap();
        let sockets = One { socket, queued: Cell::new(None) };
        let target = Target {
            slot: 3,
            route: Route { socket: 0, remote, local: None },
            max_packet: 1_472,
            credit: credit.map(|bytes| Arc::new(AtomicI64::new(bytes))),
            pace: pace.map(Arc::new),
        };
        let view = SendView::for_test(Arc::new(end(1, 2, false)), vec![target]);
        let mut batch = SendBatch::default();
        let datagrams = (0..10).map(|_| (0, &[0; 964][..]));
        let sent = Outgoing::new(&mut batch, &view, &sockets).send_all(NOW, datagrams).unwrap();
        (sent, sockets, view)
    }

    #[test]
    fn an_unproven_address_gets_as_many_packets_of_a_batch_as_it_has_credit_for() {
        for (credit, packets) in [(10_000, 10), (3_999, 3), (999, 0)] {
            let (sent, ..) = send_ten(Some(credit), None);
            assert_eq!((sent.copies, sent.most), (packets, packets), "{credit}");
        }
    }

    #[test]
    fn a_path_with_a_rate_takes_some_now_some_for_later_and_no_more() {
        // 10.28 ms for each packet: two at once, five within 50 ms.
        let pace = Pace::new(100_000, Duration::from_millis(50));
        let (sent, sockets, view) = send_ten(None, Some(pace));

        let counts = view.session.path(3).counts();
        assert_eq!((counts.tx_pkts, counts.tx_dropped), (2, 3));
        assert_eq!((sent.copies, sent.dropped, sent.most, sent.full), (7, 3, 7, true));
        let due = sockets.queued.get().expect("five wait");
        assert!(due > NOW && due <= NOW + Duration::from_millis(11), "{due:?}");
    }

    #[test]
    fn what_follows_pieces_on_a_path_without_a_rate_may_be_dropped_like_any_other() {
        let (_, sockets, mut view) = send_ten(None, Some(Pace::new(100_000, Duration::ZERO)));
        view.targets.push(Target { slot: 4, pace: None, ..view.targets[0].clone() });
        let mut batch = SendBatch::default();
        let mut outgoing = Outgoing::new(&mut batch, &view, &sockets);
        outgoing.now = NOW;
        outgoing.commit(1_000, 1 << 4);
        outgoing.next_piece();
        outgoing.commit(1_000, 1 << 4);
        outgoing.commit(1_000, 1 << 3);
        assert_eq!(outgoing.outcome.dropped, 1);
    }

    #[test]
    fn a_path_without_a_rate_needs_no_timer() {
        let (sent, sockets, _) = send_ten(None, None);
        assert_eq!((sent.copies, sockets.queued.get()), (10, None));
    }

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
            reports.iter().for_each(|report| outcome.add(report, 0, false));
            outcome
        };

        assert!(of(&[report(4, 0, 0)]).whole);
        assert!(!of(&[report(3, 1, 0), report(3, 0, 1), report(0, 0, 0)]).whole);
        let second = of(&[report(3, 1, 0), report(4, 0, 0)]);
        assert!(second.whole && second.full);
        assert_eq!((second.copies, second.dropped), (7, 1));
    }
}
