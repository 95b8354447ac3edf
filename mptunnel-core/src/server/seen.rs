// SPDX-License-Identifier: BSD-2-Clause
//! What was seen of a server's clients at the last look, so that the next one has to look only at
//! those to whom something happened since.
//!
//! Of thousands of clients most are idle most of the time. Looking at all of them takes some ten
//! milliseconds, most of it waiting for memory.

use super::look;
use crate::PeerId;
use crate::io::server::ServerShared;
use crate::proto::probe::is_busy;
use crate::proto::route::PathCounts;
use crate::proto::server::{Peer, Touched};
use crate::proto::time::Time;
use crate::stats::{PathInfo, PeerInfo, Traffic};
use crate::trend::Trend;
use std::sync::Arc;

/// The clients as they were seen.
#[derive(Default)]
pub(super) struct Seen {
    /// In the order of their ids. Shared with who looked last; copied if that one still has it.
    peers: Arc<Vec<PeerInfo>>,
    /// What else there is to know of each.
    notes: Vec<Note>,
    /// The sum of what all of them have counted.
    counts: PathCounts,
}

struct Note {
    id: PeerId,
    counts: PathCounts,
    /// Datagrams pass: its counts change though nobody tells.
    busy: bool,
    /// When its durations were right.
    at: Time,
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
        let Touched { changed: mut ids, gone: mut left } = {
            let mut server = shared.control.lock();
            server.take_touched().unwrap_or_else(|| {
                *self = Seen::default();
                let changed = server.peers().map(|peer| peer.id).collect();
                Touched { changed, ..Touched::default() }
            })
        };
        ids.extend(self.notes.iter().filter(|note| note.busy).map(|note| note.id));
        ids.sort_unstable();
        ids.dedup();
        let Seen { peers, notes, counts } = self;
        let infos = Arc::make_mut(peers);
        for some in ids.chunks(look::AT_ONCE) {
            {
                let server = shared.control.lock();
                for id in some {
                    let Some(peer) = server.peer(*id) else { continue };
                    let at = notes.binary_search_by_key(id, |note| note.id);
                    let at = at.unwrap_or_else(|at| {
                        infos.insert(at, PeerInfo { id: *id, ..PeerInfo::default() });
                        notes.insert(at, Note::new(*id));
                        at
                    });
                    let (info, note) = (&mut infos[at], &mut notes[at]);
                    *counts += note.counts.below_zero();
                    note.see(now, peer, info);
                    *counts += note.counts;
                }
            }
            shared.control.give_way();
        }
        let mut all = {
            let mut server = shared.control.lock();
            // Those that went meanwhile as well: their counts are in those of the server by now.
            match server.take_gone() {
                Some(gone) => left.extend(gone),
                None => {
                    left.extend(notes.iter().map(|n| n.id).filter(|id| server.peer(*id).is_none()))
                }
            }
            left.sort_unstable();
            let stays = |id: PeerId| left.binary_search(&id).is_err();
            if !left.is_empty() {
                for note in notes.iter().filter(|note| !stays(note.id)) {
                    *counts += note.counts.below_zero();
                }
                infos.retain(|info| stays(info.id));
                notes.retain(|note| stays(note.id));
            }
            server.gone()
        };
        all += *counts;
        let is_due = trend.is_due(now);
        if is_due {
            for (info, note) in infos.iter_mut().zip(&mut *notes) {
                note.pass(now, info);
            }
            trend.note(now, infos.iter_mut().flat_map(look::paths_of));
        } else {
            let at = |id: &PeerId| notes.binary_search_by_key(id, |note| note.id).ok();
            let mut last = 0;
            let mut rest = &mut infos[..];
            let some = ids.iter().filter_map(at).map(|at| {
                let (_, behind) = std::mem::take(&mut rest).split_at_mut(at - last);
                let (info, behind) = behind.split_first_mut().expect("there is one at each place");
                (last, rest) = (at + 1, behind);
                info
            });
            trend.tell(now, some.flat_map(look::paths_of));
        }
        (peers.clone(), Traffic::of(all))
    }
}

impl Note {
    fn new(id: PeerId) -> Note {
        Note { id, counts: PathCounts::default(), busy: true, at: Time::default() }
    }

    fn see(&mut self, now: Time, peer: &Peer, info: &mut PeerInfo) {
        self.counts = look::see(now, peer, info);
        self.busy = is_busy(now, peer.current.last_data());
        self.at = now;
    }

    /// Nothing happened but that time passed.
    fn pass(&mut self, now: Time, info: &mut PeerInfo) {
        let passed = now.since(std::mem::replace(&mut self.at, now));
        info.paths.iter_mut().for_each(|path: &mut PathInfo| path.since += passed);
    }
}
