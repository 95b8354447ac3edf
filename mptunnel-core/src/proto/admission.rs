// SPDX-License-Identifier: BSD-2-Clause
//! Which paths take a packet at once and which for later: an address that is not proven has credit
//! for so many bytes only, and a path with a rate has a queue.
//!
//! A datagram that would be lost because the one path whose turn it is has no room goes on another
//! one of those that carry the traffic.

use super::num::path_bit;
use super::pace::{Offer, Part};
use super::time::Time;
use super::view::{SendView, Target};

/// What the paths say to the packets of one datagram after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Admission {
    /// The paths that have not taken the first piece of the datagram in hand: further ones would
    /// be of no use there.
    refused: u32,
    /// The path that took it in place of these; no bit if none did.
    instead: u32,
}

/// What became of one packet: sets of paths, as bits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Admitted {
    /// Where it leaves at once.
    pub now: u32,
    /// Where it was taken for later.
    pub queued: u32,
    /// Where it was lost for want of room: it is counted there.
    pub dropped: u32,
    /// Where it does not go for want of credit.
    pub unearned: u32,
}

impl Admission {
    /// Offers a packet, sealed in `view`, to `paths`.
    pub fn admit(
        &mut self,
        view: &SendView,
        now: Time,
        packet: &[u8],
        paths: u32,
        part: Part,
    ) -> Admitted {
        if part == Part::First {
            *self = Admission::default();
        }
        let paths = if self.instead != 0 { self.instead } else { paths & !self.refused };
        let mut said = Admitted::default();
        for target in view.targets.iter().filter(|t| paths & path_bit(t.slot) != 0) {
            said.ask(view, target, now, packet, part);
        }
        if part == Part::First {
            self.refused = said.dropped;
            if said.now | said.queued == 0 && said.dropped != 0 {
                self.elsewhere(view, now, packet, paths, &mut said);
            }
        }
        if said.dropped != 0 {
            let dropped = view.targets.iter().filter(|t| said.dropped & path_bit(t.slot) != 0);
            dropped.for_each(|target| view.session.path(target.slot).on_send_dropped(1));
        }
        said
    }

    /// Tries the path with the shortest queue of those that could have had their turn.
    fn elsewhere(
        &mut self,
        view: &SendView,
        now: Time,
        packet: &[u8],
        paths: u32,
        said: &mut Admitted,
    ) {
        let others = view.plan.carriers() & !paths;
        let fits = |t: &&Target| {
            others & path_bit(t.slot) != 0 && t.credit.is_none() && packet.len() <= t.max_packet
        };
        let wait = |t: &&Target| t.pace.as_ref().map(|pace| pace.queue(now));
        let Some(other) = view.targets.iter().filter(fits).min_by_key(wait) else { return };
        let mut its = Admitted::default();
        its.ask(view, other, now, packet, Part::First);
        if its.now | its.queued != 0 {
            *said = its;
            self.instead = path_bit(other.slot);
        }
    }
}

impl Admitted {
    fn ask(&mut self, view: &SendView, target: &Target, now: Time, packet: &[u8], part: Part) {
        let bit = path_bit(target.slot);
        if !target.may_send(&view.session, packet.len()) {
            self.unearned |= bit;
            return;
        }
        let offer = match &target.pace {
            Some(pace) => pace.offer(now, &view.session, packet, part),
            None => Offer::Now,
        };
        match offer {
            Offer::Now => self.now |= bit,
            Offer::Queued => self.queued |= bit,
            Offer::Dropped => self.dropped |= bit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pace::Pace;
    use super::super::route::Route;
    use super::super::sched::{Dealer, Plan, Rule};
    use super::super::session::tests::end;
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicI64;
    use std::time::Duration;

    const NOW: Time = Time::from_micros(1_000_000);

    /// Paths with a rate on which as much has left as may at once, with room for packets to wait for
    /// so many milliseconds; without a rate where that is `None`.
    fn view(paths: &[Option<u64>], plan: Plan) -> SendView {
        let session = Arc::new(end(1, 2, false));
        let target = |(slot, room): (u8, &Option<u64>)| Target {
            slot,
            route: Route { socket: 0, remote: "192.0.2.1:4000".parse().unwrap(), local: None },
            max_packet: 1_000,
            credit: None,
            pace: room.map(|room| {
                let pace = Pace::new(205_600, Duration::from_millis(room));
                while pace.offer(NOW, &session, &[0], Part::First) == Offer::Now {}
                Arc::new(pace)
            }),
        };
        let targets = (0..).zip(paths).map(target).collect();
        SendView { plan, ..SendView::for_test(session, targets) }
    }

    fn dealt(chosen: u32) -> Plan {
        Plan {
            chosen,
            usable: chosen,
            rule: Rule::Dealt(Arc::<Dealer>::default()),
            ..Plan::default()
        }
    }

    fn admit(
        admission: &mut Admission,
        view: &SendView,
        paths: u32,
        part: Part,
    ) -> (u32, u32, u32) {
        let said = admission.admit(view, NOW, &[0; 1_000], paths, part);
        (said.now, said.queued, said.dropped)
    }

    #[test]
    fn what_one_path_has_no_room_for_goes_on_the_one_with_the_shortest_queue_with_all_its_pieces() {
        let view = view(&[Some(0), Some(50), None, Some(50)], dealt(0b1011));
        let mut admission = Admission::default();
        let mut offer = |part| admit(&mut admission, &view, 0b0001, part);
        assert_eq!(offer(Part::First), (0, 0b0010, 0));
        assert_eq!(offer(Part::First), (0, 0b1000, 0));
        assert_eq!([offer(Part::Next), offer(Part::Next)], [(0, 0b1000, 0); 2], "pieces of that");
        assert_eq!(offer(Part::First), (0, 0b0010, 0));
        assert_eq!(view.session.path(0).counts().tx_dropped, 0);
    }

    #[test]
    fn what_no_path_has_room_for_is_counted_where_its_turn_was_and_its_pieces_stay_behind() {
        let view = view(&[Some(0), Some(0)], dealt(0b11));
        let mut admission = Admission::default();
        let mut offer = |part| admit(&mut admission, &view, 0b01, part);
        assert_eq!([offer(Part::First), offer(Part::Next)], [(0, 0, 0b01), (0, 0, 0)]);
        let dropped = [0, 1].map(|slot| view.session.path(slot).counts().tx_dropped);
        assert_eq!(dropped, [1, 0]);
    }

    #[test]
    fn a_copy_for_a_full_path_is_lost_where_another_path_took_one() {
        let view = view(&[Some(0), None, None], Plan::all_on(0b011));
        let mut admission = Admission::default();
        assert_eq!(admit(&mut admission, &view, 0b011, Part::First), (0b10, 0, 0b01));
    }

    #[test]
    fn an_address_that_is_not_proven_is_no_way_out() {
        let mut view = view(&[Some(0), None], dealt(0b11));
        view.targets[1].credit = Some(Arc::new(AtomicI64::new(1 << 20)));
        let mut admission = Admission::default();
        assert_eq!(admit(&mut admission, &view, 0b01, Part::First), (0, 0, 0b01));
        assert_eq!(admit(&mut admission, &view, 0b10, Part::First), (0b10, 0, 0));
    }
}
