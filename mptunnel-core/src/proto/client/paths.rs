// SPDX-License-Identifier: BSD-2-Clause
//! The client's paths: their sockets, their state, and what senders may use of them.

use super::super::event::{ClientEvent, PathDownReason, PathId};
use super::super::limit::PerSecond;
use super::super::num::path_bit;
use super::super::pmtu::Pmtu;
use super::super::probe::Probe;
use super::super::route::{PathCounts, Route};
use super::super::sched::{Candidate, Plan, Rank};
use super::super::throttle::{Rate, Throttle};
use super::super::time::Time;
use super::super::view::{SendView, Target};
use super::super::wire::MAX_PATHS;
use super::Client;
use std::time::Duration;

/// How long copies still go to a path that is down: it may carry one way only.
pub(super) const LINGER_DOWN: Duration = Duration::from_secs(30);

/// What the application says about a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PathSettings {
    /// What it is called in logs and tables.
    pub name: String,
    /// Joins only when no other path is up.
    pub backup: bool,
    /// The size of packets is what the application says: nothing is probed.
    pub fixed_size: bool,
    /// What the link carries: packets leave no faster.
    pub rate: Rate,
    /// What the link carries to here, in kbit/s, headers included: the server lets packets leave
    /// no faster. 0: not known; [`LEARN_RATE`](crate::proto::frame::LEARN_RATE): not known, and the
    /// server finds it out.
    pub rate_down: u32,
    /// Its share of the datagrams where each goes on one path; 0: as it is measured.
    pub weight: u16,
    /// What it costs to use: cheaper paths come first.
    pub cost: u8,
}

impl Default for PathSettings {
    fn default() -> Self {
        PathSettings {
            name: String::new(),
            backup: false,
            fixed_size: false,
            rate: Rate::Unknown,
            rate_down: 0,
            weight: 1,
            cost: 0,
        }
    }
}

/// One path of a client.
pub struct ClientPath {
    /// Its public name; never used again.
    pub id: PathId,
    /// Its number on the wire, below 32.
    pub slot: u8,
    /// What the application says about it.
    pub settings: PathSettings,
    /// Whether it has a socket.
    pub state: PathState,
    /// Whether its probes are answered, and since when that is so.
    pub up: bool,
    /// Since when `up` is as it is.
    pub since: Time,
    /// Its probes.
    pub probe: Probe,
    pub(super) pmtu: Pmtu,
    /// How fast packets leave.
    pub throttle: Throttle,
    /// Counts of sessions that are over.
    pub total: PathCounts,
    pub(super) resp_checks: PerSecond,
    /// When something authentic last came here, as of the last judgement.
    pub(super) heard: Time,
    /// The first PING here after the last packet heard anywhere, and when that packet came.
    pub(super) asked: Option<(Time, Time)>,
    pub(super) cookie: Option<([u8; 16], Time)>,
    pub(super) reopens: u32,
    pub(super) reopen_at: Time,
    /// Whether anything from the server ever came on it.
    pub(super) answered: bool,
    /// Down for so long that copies stop going there while another path is up.
    pub(super) lingered: bool,
}

/// Whether a path can be used at all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PathState {
    /// The I/O layer has no socket for it yet, or lost it.
    Closed,
    /// There is a socket.
    Open {
        /// Where it leads.
        route: Route,
        /// The largest packet that is known to fit: UDP payload, in bytes.
        max_packet: usize,
    },
}

impl ClientPath {
    /// Changes the state; `true` if that is news.
    pub(super) fn set_up(&mut self, now: Time, up: bool) -> bool {
        let news = self.up != up;
        self.lingered &= !up;
        self.answered |= up;
        if news {
            (self.up, self.since) = (up, now);
        }
        news
    }

    /// Whether anything from the server ever came on it.
    pub fn has_answered(&self) -> bool {
        self.answered
    }

    /// Packets have the size that was found.
    pub(super) fn use_size(&mut self) {
        if let PathState::Open { max_packet, .. } = &mut self.state {
            *max_packet = self.pmtu.size();
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, PathState::Open { .. })
    }

    pub(super) fn is_up_and_open(&self) -> bool {
        self.up && self.is_open()
    }

    /// Whether a PING went out here after the packet that came at `heard`.
    pub(super) fn is_asked_since(&self, heard: Time) -> bool {
        self.asked.is_some_and(|(_, after)| after >= heard)
    }

    pub(super) fn is_open_on(&self, socket: u32) -> bool {
        matches!(self.state, PathState::Open { route, .. } if route.socket == socket)
    }
}

impl Client {
    /// Adds a path without a socket. `None` if 32 paths exist.
    pub fn add_path(&mut self, now: Time, settings: PathSettings) -> Option<PathId> {
        let slot = self.paths.iter().position(Option::is_none)?;
        let id = PathId(self.next_path);
        self.next_path = self.next_path.checked_add(1)?;
        // Sessions go on, and with them what they counted for the path that was here before.
        let before = self.live_counts(u8::try_from(slot).ok()?);
        let mut throttle = Throttle::new(self.config.common.path_queue);
        throttle.set(now, settings.rate);
        let mut probe = Probe::new(now);
        probe.continue_after(self.slot_seq.get(slot).copied().unwrap_or(0));
        *self.paths.get_mut(slot)? = Some(ClientPath {
            id,
            slot: u8::try_from(slot).ok()?,
            settings,
            state: PathState::Closed,
            up: false,
            since: now,
            probe,
            pmtu: Pmtu::new(now, 0, true),
            total: before.below_zero(),
            throttle,
            resp_checks: PerSecond::default(),
            heard: Time::default(),
            asked: None,
            cookie: None,
            reopens: 0,
            reopen_at: now,
            answered: false,
            lingered: false,
        });
        Some(id)
    }

    /// The path has a socket now, on this route, for packets of at most `max_packet` bytes.
    pub fn path_opened(&mut self, now: Time, id: PathId, route: Route, max_packet: usize) {
        let Some(path) = self.find_mut(id) else { return };
        let slot = path.slot;
        path.pmtu = Pmtu::new(now, max_packet, path.settings.fixed_size);
        path.state = PathState::Open { route, max_packet: path.pmtu.size() };
        path.cookie = None;
        path.probe.on_new_socket(now);
        path.throttle.on_new_route(now);
        if !self.attempts.is_empty() {
            self.send_inits(slot);
        }
        self.publish(now);
        self.drive(now);
    }

    /// The path has no socket any more, or could not get one.
    pub fn path_closed(&mut self, now: Time, id: PathId) {
        let Some(path) = self.find_mut(id) else { return };
        path.state = PathState::Closed;
        let was_up = path.set_up(now, false);
        if was_up {
            self.tell(ClientEvent::PathDown(id, PathDownReason::NoSocket));
        }
        self.publish(now);
        self.drive(now);
    }

    /// The largest packet that the path's interface takes, or the application wants, has changed.
    pub fn set_path_mtu(&mut self, now: Time, id: PathId, bytes: usize) {
        if let Some(path) = self.find_mut(id) {
            path.pmtu.set_ceiling(now, bytes, path.settings.fixed_size);
            path.use_size();
        }
        self.publish(now);
        self.drive(now);
    }

    /// Changes what the application says about a path.
    pub fn set_path(&mut self, now: Time, id: PathId, settings: PathSettings) -> bool {
        let Some(path) = self.find_mut(id) else { return false };
        let unpaced = path.throttle.set(now, settings.rate);
        if settings.rate_down != path.settings.rate_down {
            // The server is told with a PING.
            path.probe.hurry(now);
        }
        path.settings = settings;
        let slot = path.slot;
        self.publish(now);
        if let Some(unpaced) = unpaced {
            unpaced.give_up(slot);
        }
        true
    }

    /// Removes a path; its id is never used again.
    pub fn remove_path(&mut self, now: Time, id: PathId) -> bool {
        let Some(slot) = self.paths.iter().position(|p| p.as_ref().is_some_and(|p| p.id == id))
        else {
            return false;
        };
        let gone = self.paths.get_mut(slot).and_then(Option::take);
        if let Some(gone) = gone {
            if let Some(pace) = gone.throttle.pace() {
                pace.give_up(gone.slot);
            }
            self.gone += self.path_counts(&gone);
            if let Some(seq) = self.slot_seq.get_mut(slot) {
                *seq = gone.probe.seq();
            }
            if let Some(observed) = &mut self.observed {
                observed.forget(gone.slot);
            }
            self.selector.forget(gone.slot);
        }
        self.publish(now);
        self.drive(now);
        true
    }

    /// All paths, in the order of their slots.
    pub fn paths(&self) -> impl Iterator<Item = &ClientPath> {
        self.paths.iter().flatten()
    }

    /// Paths with a socket on which a PING went unanswered last.
    pub fn silent_paths(&self) -> impl Iterator<Item = PathId> + '_ {
        let silent = |p: &&ClientPath| p.is_open() && p.probe.missed_since().is_some();
        self.paths.iter().flatten().filter(silent).map(|p| p.id)
    }

    /// What was sent and received on a path, over all sessions.
    pub fn path_counts(&self, path: &ClientPath) -> PathCounts {
        let mut sum = path.total;
        sum += self.live_counts(path.slot);
        sum
    }

    /// What was sent and received on paths that are gone.
    pub fn gone(&self) -> PathCounts {
        self.gone
    }

    /// What the sessions in use have counted in a slot.
    fn live_counts(&self, slot: u8) -> PathCounts {
        let live = self.current.iter().chain(self.previous.iter().map(|p| &p.session));
        live.fold(PathCounts::default(), |mut sum, session| {
            sum += session.path(slot).counts();
            sum
        })
    }

    /// What was sent and received in all, on paths that were removed as well: never less than
    /// before.
    pub fn counts(&self) -> PathCounts {
        self.paths().fold(self.gone, |mut sum, path| {
            sum += self.path_counts(path);
            sum
        })
    }

    /// Publishes what senders may use.
    pub(super) fn publish(&mut self, now: Time) {
        let Some(session) = self.current.clone() else {
            self.view.set(None);
            return;
        };
        session.routes.replace(targets_of(&self.paths));
        for old in &self.previous {
            old.session.routes.replace(targets_of(&self.paths));
        }
        let usable = self.usable();
        let target = |path: &ClientPath| match path.state {
            PathState::Open { route, max_packet } => {
                let pace = path.throttle.pace().cloned();
                Some(Target { slot: path.slot, route, max_packet, credit: None, pace })
            }
            PathState::Closed => None,
        };
        let paths = self.paths.iter().flatten();
        let targets = paths.filter(|p| usable & path_bit(p.slot) != 0).filter_map(target).collect();
        let up = self.paths.iter().flatten().filter(|p| p.up);
        let up = up.fold(0, |set, path| set | path_bit(path.slot));
        let (plan, ranked) = (self.plan(now), self.ranking());
        self.view.set(Some(SendView { session, targets, plan, ranked, up }));
    }

    /// The paths that may get datagrams at all, as bits.
    fn usable(&self) -> u32 {
        let any_up = self.paths.iter().flatten().any(|p| p.up);
        let any_answered = self.paths.iter().flatten().any(|p| p.answered);
        let usable = self.paths.iter().flatten().filter(|path| {
            // Down for long is a reason to stay away while another path is up. So is never having
            // answered while another path has: it may lead nowhere, or back to ourselves, where
            // each datagram would go round for ever.
            let gone = any_up && !path.up && path.lingered;
            let unknown = any_answered && !path.answered;
            path.is_open() && !gone && !unknown
        });
        usable.fold(0, |set, path| set | path_bit(path.slot))
    }

    /// What the policy makes of the paths as they are now.
    fn plan(&mut self, now: Time) -> Plan {
        let usable = self.usable();
        let current = self.current.as_ref();
        let candidate = |path: &ClientPath| {
            // As of now: the last judgement may be a while ago.
            let heard = current.map_or(0, |session| session.path(path.slot).heard_us());
            let heard = path.heard.max(Time::from_micros(heard));
            Candidate {
                backup: path.settings.backup,
                alive: path.up,
                weight: path.settings.weight,
                cost: path.settings.cost,
                queue: path.throttle.queue(now),
                rate: path.throttle.told(),
                ..path.probe.candidate(path.slot, heard)
            }
        };
        let paths = self.paths.iter().flatten();
        let candidates: Vec<Candidate> =
            paths.filter(|p| usable & path_bit(p.slot) != 0).map(candidate).collect();
        let policy = self.agreement.policy();
        self.selector.plan(now, &candidates, policy, self.observed.as_deref())
    }

    /// The slots of all paths, the best first.
    fn ranking(&self) -> Vec<u8> {
        let rank = |p: &ClientPath| Rank::new(p.slot, p.up, p.probe.health.srtt());
        Rank::order(self.paths.iter().flatten().map(rank).collect())
    }

    /// Publishes another plan, or another order of the paths, if a measurement made one.
    pub(super) fn replan(&mut self, now: Time) {
        let Some(view) = self.view.get() else { return };
        let (plan, ranked) = (self.plan(now), self.ranking());
        if view.ranked != ranked || view.plan != plan {
            self.view.set(Some(SendView { ranked, plan, ..(*view).clone() }));
        }
    }

    pub(super) fn open_slots(&self) -> Vec<u8> {
        self.paths.iter().flatten().filter(|p| p.is_open()).map(|p| p.slot).collect()
    }

    pub(super) fn slot_of(&self, route: &Route) -> Option<u8> {
        self.paths.iter().flatten().find(|p| p.is_open_on(route.socket)).map(|p| p.slot)
    }

    pub(super) fn path_mut(&mut self, slot: u8) -> Option<&mut ClientPath> {
        self.paths.get_mut(usize::from(slot))?.as_mut()
    }

    fn find_mut(&mut self, id: PathId) -> Option<&mut ClientPath> {
        self.paths.iter_mut().flatten().find(|p| p.id == id)
    }
}

fn targets_of(paths: &[Option<ClientPath>; MAX_PATHS]) -> impl Iterator<Item = (u8, &Route)> {
    paths.iter().flatten().filter_map(|path| match &path.state {
        PathState::Open { route, .. } => Some((path.slot, route)),
        PathState::Closed => None,
    })
}
