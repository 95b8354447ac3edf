// SPDX-License-Identifier: BSD-2-Clause
//! What was seen of a server's clients at the last look, so that the next one has to look only at
//! those to whom something happened since.
//!
//! Of thousands of clients most are idle most of the time. Looking at all of them takes some ten
//! milliseconds, nearly all of it waiting for memory: so nothing is read of those to whom nothing
//! happened, and what is needed of the others is fetched for many of them at once.

use super::look;
use crate::PeerId;
use crate::io::server::ServerShared;
use crate::proto::probe::is_busy;
use crate::proto::route::PathCounts;
use crate::proto::server::{Peer, Touched};
use crate::proto::time::Time;
use crate::stats::{Losses, Lost, PathInfo, PathState, PeerInfo, Traffic};
use crate::trend::{Teller, Trend};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

/// What changes because time passes is put right this often: the docs promise a second.
const PASS: Duration = Duration::from_millis(900);

/// The clients as they were seen.
#[derive(Default)]
pub(super) struct Seen {
    /// Of all of them, in order.
    ids: Vec<PeerId>,
    /// What is to be known of each, in the same order.
    notes: Vec<Note>,
    /// What they showed, likewise, once somebody wants more than sums. The newest may be missing.
    /// Shared with who looked last; copied if that one still has it.
    peers: Option<Arc<Vec<PeerInfo>>>,
    /// Those whose counts change though nobody tells: datagrams pass.
    busy: Vec<PeerId>,
    /// Whether there are any of whom only the counts were looked at when something happened.
    has_stale: bool,
    /// The sum of what all of them have counted.
    counts: PathCounts,
    /// When what changes with time was put right for all.
    passed: Time,
}

#[derive(Default)]
struct Note {
    counts: PathCounts,
    /// Something that it shows changes with time, other than that all durations grow.
    ages: bool,
    /// Something happened, and only its counts were looked at.
    stale: bool,
    /// When its durations were right.
    at: Time,
    /// Where its paths began among those of all when all durations were put right.
    place: usize,
}

impl Seen {
    /// Looks at the clients to whom something happened; all clients, and what they and those that
    /// are gone have counted.
    pub(super) fn look(
        &mut self,
        now: Time,
        shared: &ServerShared,
        trend: &mut Trend,
    ) -> (Arc<Vec<PeerInfo>>, Traffic) {
        let Touched { changed, gone } = self.take_touched(shared);
        let is_due = self.peers.is_none() || now.since(self.passed) >= PASS;
        let mut places = self.places(changed);
        if is_due || self.has_stale {
            let notes = self.notes.iter().enumerate();
            places.extend(notes.filter(|(_, n)| n.stale || is_due && n.ages).map(|(at, _)| at));
            places.sort_unstable();
            places.dedup();
            self.has_stale = false;
        }
        let mut peers = self.peers.take().unwrap_or_default();
        let infos = Arc::make_mut(&mut peers);
        for id in &self.ids[infos.len()..] {
            infos.push(PeerInfo { id: *id, ..PeerInfo::default() });
        }
        self.visit(now, shared, &places, Some((&mut infos[..], trend.teller(now))));
        let (all, left) = self.forget_gone(shared, gone);
        if !left.is_empty() {
            infos.retain(|info| left.binary_search(&info.id).is_err());
        }
        if is_due {
            self.passed = now;
            let place = Cell::new(0);
            let some = infos.chunks_mut(look::AT_ONCE).zip(self.notes.chunks_mut(look::AT_ONCE));
            let paths = some.flat_map(|(infos, notes)| {
                look::fetch_infos(infos.iter());
                infos.iter_mut().zip(notes).flat_map(|(info, note)| {
                    note.pass(now, info);
                    note.place = place.replace(place.get() + info.paths.len());
                    look::paths_of(info)
                })
            });
            trend.note(now, paths);
        }
        self.peers = Some(peers.clone());
        (peers, Traffic::of(all))
    }

    /// Looks at what the clients have counted to whom something happened; whether there are any, and
    /// what they and those that are gone have counted.
    pub(super) fn sums(&mut self, now: Time, shared: &ServerShared) -> (bool, Traffic) {
        let Touched { changed, gone } = self.take_touched(shared);
        let places = self.places(changed);
        self.has_stale |= !places.is_empty();
        self.visit(now, shared, &places, None);
        let (all, left) = self.forget_gone(shared, gone);
        if let Some(peers) = self.peers.as_mut().filter(|_| !left.is_empty()) {
            Arc::make_mut(peers).retain(|info| left.binary_search(&info.id).is_err());
        }
        (!self.notes.is_empty(), Traffic::of(all))
    }

    /// To whom something happened since the last look; all of them are known then.
    fn take_touched(&mut self, shared: &ServerShared) -> Touched {
        let touched = {
            let mut server = shared.control.lock();
            let touched = server.take_touched();
            touched.ok_or_else(|| server.peers().map(|peer| peer.id).collect())
        };
        let mut touched = touched.unwrap_or_else(|all| {
            *self = Seen::default();
            Touched { changed: all, gone: Vec::new() }
        });
        touched.changed.sort_unstable();
        for id in &touched.changed {
            // Ids grow: whoever is not known is newer than all who are.
            if self.ids.last().is_none_or(|newest| newest < id) {
                self.ids.push(*id);
                self.notes.push(Note { stale: true, ..Note::default() });
            }
        }
        touched
    }

    /// The places of some clients, in order, and of those that are busy.
    fn places(&self, mut ids: Vec<PeerId>) -> Vec<usize> {
        ids.extend(&self.busy);
        ids.sort_unstable();
        ids.dedup();
        ids.iter().filter_map(|id| self.ids.binary_search(id).ok()).collect()
    }

    /// Looks at some clients, among them all that are busy: at everything, or only at what they have
    /// counted.
    fn visit(
        &mut self,
        now: Time,
        shared: &ServerShared,
        places: &[usize],
        mut infos: Option<(&mut [PeerInfo], Teller<'_>)>,
    ) {
        self.busy.clear();
        for some in places.chunks(look::AT_ONCE) {
            if let Some((infos, teller)) = &infos {
                look::fetch_infos(some.iter().map(|at| &infos[*at]));
                some.iter().for_each(|at| teller.fetch(self.notes[*at].place));
            }
            {
                let server = shared.control.lock();
                let peers = some.iter().map(|at| Some((*at, server.peer(self.ids[*at])?)));
                let peers: Vec<(usize, &Peer)> = peers.flatten().collect();
                look::fetch(peers.iter().map(|(_, peer)| *peer));
                for (at, peer) in peers {
                    let note = &mut self.notes[at];
                    self.counts += note.counts.below_zero();
                    match &mut infos {
                        Some((infos, _)) => note.see(now, peer, &mut infos[at]),
                        None => (note.counts, note.stale) = (peer.counts(), true),
                    }
                    self.counts += note.counts;
                    if is_busy(now, peer.current.last_data()) {
                        self.busy.push(peer.id);
                    }
                }
            }
            shared.control.give_way();
            if let Some((infos, teller)) = &mut infos {
                for at in some {
                    for (number, (id, path)) in look::paths_of(&mut infos[*at]).enumerate() {
                        teller.tell(self.notes[*at].place + number, id, path);
                    }
                }
            }
        }
    }

    /// Forgets `left`, who are gone, and those who went meanwhile: what all clients that there ever
    /// were have counted, and who is forgotten, in order.
    fn forget_gone(
        &mut self,
        shared: &ServerShared,
        mut left: Vec<PeerId>,
    ) -> (PathCounts, Vec<PeerId>) {
        let mut all = {
            let mut server = shared.control.lock();
            // The counts of those that went meanwhile are in those of the server by now.
            match server.take_gone() {
                Some(gone) => left.extend(gone),
                None => {
                    let ids = self.ids.iter().copied();
                    left.extend(ids.filter(|id| server.peer(*id).is_none()));
                }
            }
            server.gone()
        };
        left.sort_unstable();
        if !left.is_empty() {
            let (mut ids, counts) = (self.ids.iter(), &mut self.counts);
            self.notes.retain(|note| {
                let stays = ids.next().is_some_and(|id| left.binary_search(id).is_err());
                if !stays {
                    *counts += note.counts.below_zero();
                }
                stays
            });
            self.ids.retain(|id| left.binary_search(id).is_err());
        }
        all += self.counts;
        (all, left)
    }
}

impl Note {
    fn see(&mut self, now: Time, peer: &Peer, info: &mut PeerInfo) {
        self.counts = look::see(now, peer, info);
        self.ages = info.paths.iter().any(ages);
        (self.stale, self.at) = (false, now);
    }

    /// Nothing happened but that time passed.
    fn pass(&mut self, now: Time, info: &mut PeerInfo) {
        let passed = now.since(std::mem::replace(&mut self.at, now));
        info.paths.iter_mut().for_each(|path: &mut PathInfo| path.since += passed);
    }
}

/// Whether something about a path changes with time, other than for how long it has been as it is.
fn ages(path: &PathInfo) -> bool {
    let lately = |losses: &Losses| [losses.last_1s, losses.last_10s] != [Lost::default(); 2];
    path.state == PathState::Down
        || lately(&path.losses_out)
        || lately(&path.losses_in)
        || path.queue.is_some_and(|queue| queue.packets > 0 || !queue.delay.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::pace::Queue;

    #[test]
    fn a_path_is_looked_at_again_while_what_it_shows_changes_by_itself() {
        let still = PathInfo { state: PathState::Up, ..PathInfo::default() };
        assert!(
            !ages(&still) && !ages(&PathInfo { queue: Some(Queue::default()), ..still.clone() })
        );

        let lost = Lost::of((8, 1));
        let mut restless = vec![still; 5];
        restless[0].state = PathState::Down;
        restless[1].losses_in.last_1s = lost;
        restless[2].losses_out.last_10s = lost;
        restless[3].queue = Some(Queue { packets: 1, ..Queue::default() });
        restless[4].queue = Some(Queue { delay: Duration::from_millis(1), ..Queue::default() });
        assert!(restless.iter().all(ages));
    }
}
