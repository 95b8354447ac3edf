// SPDX-License-Identifier: BSD-2-Clause
//! One path of one client as the server sees it: which address is used, and how it was proven.
//!
//! ```text
//!              PING from a new source            RESPONSE to the CHALLENGE
//!   (nothing) ───────────────────────► candidate ─────────────────────────► active
//!                                          │ no PING for 10 s                  │ a PING from elsewhere
//!                                          └──► gone                           └──► candidate beside it
//! ```

use super::super::crypto::mac;
use super::super::entropy::Entropy;
use super::super::num::widen;
use super::super::pmtu::Pmtu;
use super::super::probe::Probe;
use super::super::route::{PathCounts, Route};
use super::super::time::Time;
use super::super::view::earn;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

/// A candidate that sends no PING for this long is forgotten; handshakes allow round trips of 8 s.
const CANDIDATE_LIFE: Duration = Duration::from_secs(10);
/// A candidate can be displaced by another source after this.
const CANDIDATE_FIRM: Duration = Duration::from_secs(1);
/// CHALLENGEs repeated without a new PING.
const REPEATS: u8 = 2;
/// Between them.
const REPEAT_AFTER: Duration = Duration::from_millis(100);
/// A path is silent after three of the announced intervals, and not before this.
const SILENT_MIN: Duration = Duration::from_secs(3);
/// Copies still go to a silent path for this long: it may carry one way only.
pub const LINGER: Duration = Duration::from_secs(30);
/// A silent slot is kept for this long.
pub const SLOT_LIFE: Duration = Duration::from_secs(180);
/// Packet size, in bytes of UDP payload, until more is known: what every IPv6 link carries.
pub const SAFE_PACKET: usize = 1_232;

/// Microseconds.
const TENTH_US: u64 = 100_000;

/// 2^32 tenths of a second are 13 years of uptime.
fn tenths(at: Time) -> u32 {
    u32::try_from(at.as_micros() / TENTH_US).unwrap_or(u32::MAX)
}

/// A path slot of a peer's boot.
pub struct Slot {
    /// Its number on the wire.
    pub id: u8,
    /// The proven address.
    pub active: Option<Route>,
    /// How large packets may be.
    pub pmtu: Pmtu,
    /// The address that has yet to be proven.
    pub candidate: Option<Box<Candidate>>,
    /// The number of the last PING.
    pub last_seq: u32,
    /// When it came.
    pub last_heard: Time,
    /// How many milliseconds after that the client said that the next one would come.
    pub announced_ms: u32,
    /// The client wants no DATA here while it can be heard elsewhere.
    pub backup: bool,
    /// Its share where each datagram goes on one path; 0: as it is measured.
    pub weight: u16,
    /// What the client says that it costs: cheaper paths come first.
    pub cost: u8,
    /// Whether PINGs have stopped.
    pub silent: bool,
    /// See [`since`](Self::since): in tenths of a second, as there are many slots.
    pub(super) since_tenths: u32,
    /// Silent for so long that no copies go there.
    pub lingered: bool,
    /// The server's own probes.
    pub probe: Probe,
    /// Counts of sessions that are over.
    pub total: PathCounts,
}

/// An address that somebody sent a PING from.
pub struct Candidate {
    /// The address.
    pub route: Route,
    /// What it has to echo; the same for all of its life.
    pub nonce: [u8; 8],
    /// Bytes that may still go there.
    pub credit: Arc<AtomicI64>,
    born: Time,
    fresh: Time,
    repeats: u8,
    repeat_at: Time,
}

/// What a PING from some address asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PingFrom {
    /// From the proven address.
    Active,
    /// From the address that is being proven.
    Candidate,
    /// From a third one, too soon after the candidate appeared.
    Other,
}

impl Slot {
    /// A slot that was never heard.
    pub fn new(id: u8, now: Time) -> Self {
        Slot {
            id,
            active: None,
            pmtu: Pmtu::new(now, SAFE_PACKET, true),
            candidate: None,
            last_seq: 0,
            last_heard: now,
            announced_ms: 0,
            backup: false,
            weight: 1,
            cost: 0,
            silent: false,
            since_tenths: tenths(now),
            lingered: false,
            probe: Probe::new(now),
            total: PathCounts::default(),
        }
    }

    /// Whether its address is proven and PINGs come.
    pub fn is_up(&self) -> bool {
        self.active.is_some() && !self.silent
    }

    /// A fresh PING of `len` bytes came from `route`.
    pub fn on_ping_from(
        &mut self,
        now: Time,
        route: Route,
        len: usize,
        entropy: &mut dyn Entropy,
    ) -> PingFrom {
        if self.active == Some(route) {
            return PingFrom::Active;
        }
        let same = self.candidate.as_ref().is_some_and(|c| c.route == route);
        let firm = self.candidate.as_ref().is_some_and(|c| now.since(c.born) < CANDIDATE_FIRM);
        if !same {
            if firm {
                return PingFrom::Other;
            }
            let mut nonce = [0; 8];
            entropy.fill(&mut nonce);
            self.candidate = Some(Box::new(Candidate {
                route,
                nonce,
                credit: Arc::new(AtomicI64::new(0)),
                born: now,
                fresh: now,
                repeats: REPEATS,
                repeat_at: now + REPEAT_AFTER,
            }));
        }
        if let Some(candidate) = &mut self.candidate {
            candidate.fresh = now;
            earn(&candidate.credit, widen(len));
        }
        PingFrom::Candidate
    }

    /// A RESPONSE came; the address that it proves, and the one that the path had before.
    pub fn on_response(&mut self, now: Time, nonce: &[u8; 8]) -> Option<(Route, Option<Route>)> {
        let proven = self.candidate.as_ref().filter(|c| mac::verify(&c.nonce, nonce))?.route;
        self.candidate = None;
        let old = self.active.replace(proven);
        if old.is_none() {
            self.since_tenths = tenths(now);
        }
        // Until the I/O layer has asked its interface.
        self.pmtu = Pmtu::new(now, SAFE_PACKET, true);
        self.probe.restart(now);
        Some((proven, old))
    }

    /// Since when it is silent or is not, or has no proven address: to a tenth of a second.
    pub fn since(&self) -> Time {
        Time::from_micros(u64::from(self.since_tenths).saturating_mul(TENTH_US))
    }

    /// Notes whether PINGs have stopped.
    pub(super) fn set_silent(&mut self, now: Time, silent: bool) {
        if self.silent != silent {
            (self.silent, self.since_tenths) = (silent, tenths(now));
        }
    }

    /// Whether a CHALLENGE has to be repeated now.
    pub fn repeat_challenge(&mut self, now: Time) -> bool {
        match &mut self.candidate {
            Some(c) if c.repeats > 0 && c.repeat_at <= now => {
                c.repeats = c.repeats.saturating_sub(1);
                c.repeat_at = now + REPEAT_AFTER;
                true
            }
            _ => false,
        }
    }

    /// Forgets a candidate that went away; `true` if it did.
    pub fn expire_candidate(&mut self, now: Time) -> bool {
        let gone = self.candidate.as_ref().is_some_and(|c| now.since(c.fresh) >= CANDIDATE_LIFE);
        if gone {
            self.candidate = None;
        }
        gone
    }

    /// From when on the path counts as silent.
    pub fn silent_at(&self) -> Time {
        let announced = Duration::from_millis(self.announced_ms.into());
        self.last_heard + announced.saturating_mul(3).max(SILENT_MIN)
    }

    /// The next point in time at which something about this slot changes by itself.
    pub fn deadline(&self) -> Time {
        let mut next = self.last_heard + SLOT_LIFE;
        let mut consider = |at: Time| next = next.min(at);
        if let Some(c) = &self.candidate {
            consider(c.fresh + CANDIDATE_LIFE);
            if c.repeats > 0 {
                consider(c.repeat_at);
            }
        }
        if !self.silent {
            consider(self.silent_at());
        }
        if !self.lingered {
            consider(self.last_heard + LINGER);
        }
        if self.active.is_some() && !self.lingered {
            consider(self.probe.deadline());
            if !self.silent {
                consider(self.pmtu.deadline());
            }
        }
        next
    }
}
