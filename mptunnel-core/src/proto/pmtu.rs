// SPDX-License-Identifier: BSD-2-Clause
//! How large a packet a path carries, found out by asking: packetization layer path MTU discovery
//! for datagrams (RFC 8899). No ICMP message is needed, and none is believed.
//!
//! ```text
//!            a probe of `probing` bytes is answered: that is the size now
//!                   ╭───────╮
//!             ╭─────┴────╮  │   nothing between size and ceiling is worth a probe   ╭──────────╮
//!   start ───▶│  Search  │◀─╯ ────────────────────────────────────────────────────▶│ Confirmed│
//!             ╰──────────╯ ◀────────────────────────────────────────────────────── ╰──────────╯
//!       size = the safe one    ten probes of the size are lost while small ones are     every 5 s of
//!                              answered (black hole), or it is time to look again       data: ask again
//! ```
//!
//! In front of a path that is full large packets are lost before small ones: nothing is concluded
//! from that.
//!
//! A probe is a PING in a CTRL that is padded to the size; the PONG is small, so only the size on
//! the way out is tested. DATA uses a size only once a probe of it was answered.

use super::time::Time;
use super::wire::MAX_DATAGRAM;
use std::time::Duration;

/// Bytes of UDP payload that are taken for granted until more is known: what every IPv6 link
/// carries (RFC 8200, section 5: 1,280 with all headers). `BASE_PLPMTU` of RFC 8899.
pub const SAFE_SIZE: u16 = 1_232;
/// What is used where not even [`SAFE_SIZE`] passes: every host takes it (RFC 791: 576 with all
/// headers). `MIN_PLPMTU` of RFC 8899.
const SMALLEST: u16 = 548;
/// Found often, and so tried first below the ceiling: an MTU of 1,500 under IPv4.
const LIKELY: u16 = 1_472;
/// A gain below this is worth no probe, in bytes.
const STEP: u16 = 8;
/// Probes of a size, of which one has to be answered. RFC 8899 names three (`MAX_PROBES`); with
/// 20 % loss each way all six are lost twice in a thousand times, three once in twenty.
const SEARCH_PROBES: u8 = 6;
/// Probes of the size in use that are lost, while small ones are answered, before it counts as a
/// black hole: with 20 % loss each way that happens by chance once in 27,000 times.
const CONFIRM_PROBES: u8 = 10;
/// Answers to small probes meanwhile, which show that the path lives.
const SIGNS_OF_LIFE: u8 = 2;
/// Between the repetitions of a probe.
const GAP: Duration = Duration::from_millis(100);
/// Between two confirmations while data flows; a second if packets are lost.
const CONFIRM_AFTER: Duration = Duration::from_secs(5);
const CONFIRM_SOON: Duration = Duration::from_secs(1);
/// Share of packets lost on the way out above which the size is in doubt.
pub const LOSS_TO_SUSPECT: f64 = 0.02;
/// Confirmations until larger sizes are tried again: two minutes of data (`PMTU_RAISE_TIMER`).
const RAISE_AFTER: u8 = 24;

/// The search on one path in one direction. Small, as there are many.
#[derive(Clone, Debug)]
pub struct Pmtu {
    due: Time,
    /// What may be used.
    size: u16,
    /// What the interface takes, or the user says.
    ceiling: u16,
    /// What may yet turn out to pass.
    high: u16,
    /// What is being probed; 0: nothing.
    probing: u16,
    /// Probes of that size.
    sent: u8,
    /// Answers to small probes since the first of them.
    alive: u8,
    confirmed: u8,
    /// Whether a probe of the size in use was answered.
    proven: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// The user knows better, or there is nothing to find out.
    Fixed,
    Search,
    Confirmed,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Step {
    /// A PING is to be sent in a packet of so many bytes.
    pub probe: Option<u16>,
    /// [`Pmtu::size`] is another one.
    pub changed: bool,
}

impl Pmtu {
    /// A path whose interface takes `ceiling` bytes of UDP payload; which are used at once if that
    /// is `fixed`.
    pub fn new(now: Time, ceiling: usize, fixed: bool) -> Self {
        let mut new = Pmtu {
            due: now,
            size: SAFE_SIZE,
            ceiling: 0,
            high: 0,
            probing: 0,
            sent: 0,
            alive: 0,
            confirmed: 0,
            proven: false,
            phase: Phase::Search,
        };
        new.set_ceiling(now, ceiling, fixed);
        new
    }

    /// The largest packet that may be sent: bytes of UDP payload.
    pub fn size(&self) -> usize {
        usize::from(self.size)
    }

    /// The interface takes so many bytes from now on. `true` if [`size`](Self::size) is another one.
    pub fn set_ceiling(&mut self, now: Time, bytes: usize, fixed: bool) -> bool {
        let bytes = u16::try_from(bytes.min(MAX_DATAGRAM)).unwrap_or(u16::MAX);
        let (before, was) = (self.size, self.ceiling);
        self.ceiling = bytes;
        if fixed || bytes <= SMALLEST {
            (self.phase, self.size, self.due) = (Phase::Fixed, bytes, Time::NEVER);
            return self.size != before;
        }
        if self.phase == Phase::Fixed {
            (self.phase, self.size) = (Phase::Search, SAFE_SIZE.min(bytes));
            self.search(now, bytes);
        }
        self.size = self.size.min(bytes);
        self.high = self.high.min(bytes);
        if bytes > was {
            self.search(now, bytes);
        } else if self.probing > bytes {
            (self.probing, self.sent, self.due) = (0, 0, now);
        }
        self.size != before
    }

    /// When [`poll`](Self::poll) is to be called.
    pub fn deadline(&self) -> Time {
        self.due
    }

    /// Data flows again after a pause.
    pub fn wake(&mut self, now: Time) {
        if self.phase != Phase::Fixed {
            self.due = self.due.min(now);
        }
    }

    /// Packets are lost: large ones only, perhaps.
    pub fn suspect(&mut self, now: Time) {
        let is_idle = self.phase == Phase::Confirmed && self.sent == 0 && self.due != Time::NEVER;
        if is_idle && self.due > now + CONFIRM_SOON {
            // A second after the last confirmation, and not sooner.
            let sooner = CONFIRM_AFTER.saturating_sub(CONFIRM_SOON);
            let micros = u64::try_from(sooner.as_micros()).unwrap_or(0);
            let due = Time::from_micros(self.due.as_micros().saturating_sub(micros));
            self.due = due.max(now);
        }
    }

    /// A PONG came for a PING in a packet of `size` bytes, 0 for one without padding. `true` if
    /// [`size`](Self::size) is another one.
    pub fn on_answer(&mut self, now: Time, size: u16) -> bool {
        if self.phase == Phase::Fixed {
            return false;
        }
        if size == 0 {
            if self.sent > 0 {
                self.alive = self.alive.saturating_add(1);
            }
            return false;
        }
        if self.probing != 0 && size >= self.probing {
            (self.probing, self.sent, self.alive) = (0, 0, 0);
            self.due = now;
            if self.phase == Phase::Confirmed {
                self.confirmed = self.confirmed.saturating_add(1);
                self.due = now + CONFIRM_AFTER;
            }
        }
        self.proven |= size >= self.size;
        let grows = size > self.size && size <= self.ceiling;
        if grows {
            self.size = size;
            self.high = self.high.max(size);
        }
        grows
    }

    /// Does what is due. `busy`: data flows. `queued`: packets wait in front of the path, and what
    /// does not fit is lost, large ones first. `patience`: how long an answer may take.
    pub fn poll(&mut self, now: Time, busy: bool, queued: bool, patience: Duration) -> Step {
        if self.due > now {
            return Step::default();
        }
        match self.phase {
            Phase::Fixed => {
                self.due = Time::NEVER;
                Step::default()
            }
            Phase::Search => self.poll_search(now, busy, queued, patience),
            Phase::Confirmed => self.poll_confirmed(now, busy, queued, patience),
        }
    }

    fn poll_search(&mut self, now: Time, busy: bool, queued: bool, patience: Duration) -> Step {
        if self.probing != 0 && self.sent >= SEARCH_PROBES {
            let alive = std::mem::take(&mut self.alive);
            let failed = self.probing;
            (self.probing, self.sent) = (0, 0);
            if alive == 0 || (queued && failed == self.size) {
                // The path itself is silent, or full, which says nothing about sizes.
                self.due = now + CONFIRM_SOON;
                return Step::default();
            }
            if failed == self.size {
                return self.fall(now);
            }
            self.high = failed.saturating_sub(1);
        }
        if self.probing == 0 {
            let Some(next) = self.candidate() else {
                (self.phase, self.confirmed) = (Phase::Confirmed, 0);
                self.due = if busy { now + CONFIRM_SOON } else { Time::NEVER };
                return Step::default();
            };
            self.probing = next;
        }
        self.probe(now, SEARCH_PROBES, patience)
    }

    fn poll_confirmed(&mut self, now: Time, busy: bool, queued: bool, patience: Duration) -> Step {
        if self.sent >= CONFIRM_PROBES {
            (self.probing, self.sent) = (0, 0);
            if std::mem::take(&mut self.alive) < SIGNS_OF_LIFE || queued {
                // The path itself is silent, or full, which says nothing about sizes.
                self.due = now + CONFIRM_SOON;
                return Step::default();
            }
            return self.fall(now);
        }
        if self.sent == 0 {
            if !busy || self.size <= SMALLEST && self.ceiling <= SMALLEST {
                self.due = Time::NEVER;
                return Step::default();
            }
            if self.confirmed >= RAISE_AFTER && self.size < self.ceiling {
                self.search(now, self.ceiling);
                return self.poll_search(now, busy, queued, patience);
            }
            (self.probing, self.alive) = (self.size, 0);
        }
        self.probe(now, CONFIRM_PROBES, patience)
    }

    /// One more probe of the size. The first one is given time, so that mostly one is enough; so is
    /// the last one.
    fn probe(&mut self, now: Time, most: u8, patience: Duration) -> Step {
        self.sent = self.sent.saturating_add(1);
        let is_patient = self.sent == 1 || self.sent >= most;
        self.due = now + if is_patient { patience } else { GAP };
        Step { probe: Some(self.probing), changed: false }
    }

    /// Packets of the size in use vanish: back to one that is safe, and search again. From the top,
    /// as chance may have had a part in it.
    fn fall(&mut self, now: Time) -> Step {
        let failed = self.size;
        let high = if failed > SAFE_SIZE { self.ceiling } else { failed.saturating_sub(1) };
        self.size = if failed > SAFE_SIZE { SAFE_SIZE } else { SMALLEST.min(failed) };
        self.proven = false;
        self.search(now, high.max(self.size));
        Step { probe: None, changed: self.size != failed }
    }

    fn search(&mut self, now: Time, high: u16) {
        (self.phase, self.high, self.due) = (Phase::Search, high, now);
        (self.probing, self.sent, self.alive, self.confirmed) = (0, 0, 0, 0);
    }

    /// The next size that is worth a probe: the largest first, as it mostly passes.
    fn candidate(&self) -> Option<u16> {
        let room = self.high.saturating_sub(self.size);
        if self.high == self.ceiling && room > 0 {
            return Some(self.high);
        }
        if !self.proven {
            return Some(self.size);
        }
        if room < STEP {
            return None;
        }
        if self.size < LIKELY && LIKELY < self.high {
            return Some(LIKELY);
        }
        Some(self.size.saturating_add(room.div_ceil(2)))
    }
}

const _: () = assert!(size_of::<Pmtu>() <= 24);

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(250);

    /// Drives a search over a path that carries `passes` bytes, until `until` ms; how many probes
    /// it took.
    fn run(pmtu: &mut Pmtu, ms: &mut u64, until: u64, passes: u16, alive: bool) -> usize {
        run_where(false, pmtu, ms, until, passes, alive)
    }

    /// The same where packets wait, or do not.
    fn run_where(
        queued: bool,
        pmtu: &mut Pmtu,
        ms: &mut u64,
        until: u64,
        passes: u16,
        alive: bool,
    ) -> usize {
        let mut probes = 0;
        while *ms < until {
            let now = Time::from_micros(*ms * 1_000);
            if (*ms).is_multiple_of(250) && alive {
                pmtu.on_answer(now, 0);
            }
            if let Some(size) = pmtu.poll(now, true, queued, PATIENCE).probe {
                probes += 1;
                assert!(usize::from(size) <= usize::from(pmtu.ceiling));
                if size <= passes {
                    pmtu.on_answer(now, size);
                }
            }
            *ms += 1;
        }
        probes
    }

    #[test]
    fn one_probe_is_enough_where_the_interface_is_right() {
        for ceiling in [1_233, 1_472, 8_972, 65_507] {
            let mut pmtu = Pmtu::new(Time::default(), ceiling, false);
            assert_eq!(pmtu.size(), 1_232);
            assert_eq!(run(&mut pmtu, &mut 0, 500, u16::MAX, true), 1);
            assert_eq!(pmtu.size(), ceiling);
        }
    }

    #[test]
    fn the_search_ends_within_a_step_of_what_passes() {
        for (ceiling, passes) in [(1_472, 1_392), (8_972, 1_472), (8_972, 4_000), (65_507, 9_000)] {
            let mut pmtu = Pmtu::new(Time::default(), ceiling, false);
            let probes = run(&mut pmtu, &mut 0, 20_000, passes, true);
            let found = pmtu.size();
            let passes = usize::from(passes);
            assert!((passes - 8..=passes).contains(&found), "{found} of {passes}");
            assert!(probes < 90, "{probes}");
        }
    }

    #[test]
    fn nothing_is_concluded_from_a_path_that_is_silent() {
        let mut pmtu = Pmtu::new(Time::default(), 1_472, false);
        let mut ms = 0;
        run(&mut pmtu, &mut ms, 5_000, 0, false);
        assert_eq!((pmtu.size, pmtu.high), (1_232, 1_472));

        run(&mut pmtu, &mut ms, 7_000, 1_472, true);
        run(&mut pmtu, &mut ms, 20_000, 0, false);
        assert_eq!(pmtu.size(), 1_472);
    }

    #[test]
    fn a_path_that_is_full_is_not_taken_for_one_that_swallows_large_packets() {
        let mut pmtu = Pmtu::new(Time::default(), 1_472, false);
        let mut ms = 0;
        run(&mut pmtu, &mut ms, 2_000, 1_472, true);

        run_where(true, &mut pmtu, &mut ms, 60_000, 1_400, true);
        assert_eq!(pmtu.size(), 1_472);

        run(&mut pmtu, &mut ms, 80_000, 1_400, true);
        assert!((1_392..=1_400).contains(&pmtu.size()), "{}", pmtu.size());
    }

    #[test]
    fn a_ceiling_that_sinks_counts_at_once_and_one_that_rises_is_probed() {
        let mut pmtu = Pmtu::new(Time::default(), 1_472, false);
        let mut ms = 0;
        run(&mut pmtu, &mut ms, 1_000, u16::MAX, true);

        assert!(pmtu.set_ceiling(Time::from_micros(ms * 1_000), 1_300, false));
        assert_eq!(pmtu.size(), 1_300);
        assert!(!pmtu.set_ceiling(Time::from_micros(ms * 1_000), 1_472, false));
        run(&mut pmtu, &mut ms, 2_000, u16::MAX, true);
        assert_eq!(pmtu.size(), 1_472);

        assert!(pmtu.set_ceiling(Time::from_micros(ms * 1_000), 900, true));
        assert_eq!((pmtu.size(), pmtu.deadline()), (900, Time::NEVER));
        assert_eq!(run(&mut pmtu, &mut ms, 20_000, u16::MAX, true), 0);
    }

    #[test]
    fn loss_brings_the_next_confirmation_forward_to_a_second_after_the_last() {
        let mut pmtu = Pmtu::new(Time::default(), 1_472, false);
        let mut ms = 0;
        run(&mut pmtu, &mut ms, 2_000, u16::MAX, true);
        let due = pmtu.deadline();
        let now = Time::from_micros(ms * 1_000);
        assert!(due > now + CONFIRM_SOON);

        for _ in 0..3 {
            pmtu.suspect(now);
            assert!(pmtu.deadline() <= now + CONFIRM_SOON && pmtu.deadline() >= now);
        }
    }
}
