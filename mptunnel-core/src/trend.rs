// SPDX-License-Identifier: BSD-2-Clause
//! What changed lately, from counters that only grow.
//!
//! The counters of an endpoint are read when somebody looks at it. What they were a second ago and
//! ten seconds ago is remembered here, and nowhere near a datagram: who does not look pays nothing,
//! and a server with thousands of clients holds no history for each of them until somebody does.

use crate::proto::time::Time;
use crate::stats::{PathInfo, Span};
use crate::{PathId, PeerId};
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

/// Counters are remembered this often at most.
const EVERY: Duration = Duration::from_millis(900);
/// As a second counts what is at least this long.
const SECOND: Duration = Duration::from_millis(900);
/// And at most this.
const SECOND_AT_MOST: Duration = Duration::from_millis(2_500);
/// As ten seconds counts what is at least this long; after this counters are forgotten.
const TEN: Duration = Duration::from_millis(9_500);
const TEN_AT_MOST: Duration = Duration::from_secs(13);

/// Counters as they were.
#[derive(Debug, Default)]
pub(crate) struct Trend {
    /// The oldest first.
    moments: VecDeque<Moment>,
}

#[derive(Debug)]
struct Moment {
    at: Time,
    /// In the order of peers and, within one, of paths.
    marks: Vec<Mark>,
}

/// What a path had counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    peer: PeerId,
    path: PathId,
    sent: u64,
    sent_bytes: u64,
    received: u64,
    received_bytes: u64,
}

impl Mark {
    fn of(peer: PeerId, path: &PathInfo) -> Mark {
        Mark {
            peer,
            path: path.id,
            sent: path.sent,
            sent_bytes: path.sent_bytes,
            received: path.received,
            received_bytes: path.received_bytes,
        }
    }

    fn key(&self) -> (PeerId, PathId) {
        (self.peer, self.path)
    }

    /// What changed from `self` to `now`. A client that was restarted counts from zero again.
    fn until(&self, now: &Mark, length: Duration) -> Option<Span> {
        Some(Span {
            length,
            sent: now.sent.checked_sub(self.sent)?,
            sent_bytes: now.sent_bytes.checked_sub(self.sent_bytes)?,
            received: now.received.checked_sub(self.received)?,
            received_bytes: now.received_bytes.checked_sub(self.received_bytes)?,
        })
    }
}

impl Trend {
    /// Whether what paths have counted is to be remembered now.
    fn is_due(&self, now: Time) -> bool {
        self.moments.back().is_none_or(|newest| now.since(newest.at) >= EVERY)
    }

    /// Tells each of all paths what changed lately, and remembers what they have counted now.
    /// `paths` come in the order of peers and, within one, of paths.
    pub(crate) fn note<'p>(
        &mut self,
        now: Time,
        paths: impl Iterator<Item = (PeerId, &'p mut PathInfo)>,
    ) {
        let is_due = self.is_due(now);
        // The memory of what is forgotten is used again.
        let mut marks = Vec::new();
        while self.moments.front().is_some_and(|oldest| now.since(oldest.at) > TEN_AT_MOST) {
            marks = self.moments.pop_front().map(|oldest| oldest.marks).unwrap_or_default();
        }
        marks.clear();
        let mut teller = self.teller(now);
        for (at, (peer, path)) in paths.enumerate() {
            let mark = teller.tell(at, peer, path);
            if is_due {
                marks.push(mark);
            }
        }
        if is_due {
            self.moments.push_back(Moment { at: now, marks });
        }
    }

    /// For telling some paths what changed lately.
    pub(crate) fn teller(&self, now: Time) -> Teller<'_> {
        let [second, ten] = self.cursors(now);
        Teller { second, ten }
    }

    fn cursors(&self, now: Time) -> [Cursor<'_>; 2] {
        [(SECOND, SECOND_AT_MOST), (TEN, TEN_AT_MOST)].map(|(least, most)| {
            // The youngest that is old enough.
            let moment = self.moments.iter().rev().find(|m| now.since(m.at) >= least);
            let moment = moment.filter(|m| now.since(m.at) <= most);
            Cursor {
                length: moment.map_or(Duration::ZERO, |m| now.since(m.at)),
                marks: moment.map_or(&[], |m| &m.marks),
                shift: 0,
            }
        })
    }
}

/// Tells paths what changed lately, one after the other.
pub(crate) struct Teller<'a> {
    second: Cursor<'a>,
    ten: Cursor<'a>,
}

impl Teller<'_> {
    /// Has the marks of the path at this place fetched from memory, for
    /// [`tell`](Self::tell) a little later.
    pub(crate) fn fetch(&self, at: usize) {
        for cursor in [&self.second, &self.ten] {
            black_box(cursor.marks.get(at.wrapping_add_signed(cursor.shift)).map(Mark::key));
        }
    }

    /// Tells one path; `at` is its place among those of all, as far as that is known: it is found
    /// more quickly so.
    pub(crate) fn tell(&mut self, at: usize, peer: PeerId, path: &mut PathInfo) -> Mark {
        let mark = Mark::of(peer, path);
        (path.last_1s, path.last_10s) = (self.second.span(at, &mark), self.ten.span(at, &mark));
        mark
    }
}

/// The marks of one moment, for those who ask one after the other.
struct Cursor<'a> {
    length: Duration,
    marks: &'a [Mark],
    /// How far from its place among all the last one was found: those behind it are as far.
    shift: isize,
}

impl Cursor<'_> {
    fn span(&mut self, at: usize, now: &Mark) -> Option<Span> {
        let guess = at.wrapping_add_signed(self.shift);
        let found = match self.marks.get(guess) {
            Some(mark) if mark.key() == now.key() => mark,
            _ => {
                // Who has come since is behind all others.
                self.marks.last().filter(|last| last.key() >= now.key())?;
                let found = self.marks.binary_search_by_key(&now.key(), Mark::key).ok()?;
                self.shift = found.wrapping_sub(at).cast_signed();
                &self.marks[found]
            }
        };
        found.until(now, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(id: u32, sent: u64) -> PathInfo {
        PathInfo { id: PathId(id), sent, sent_bytes: 100 * sent, ..PathInfo::default() }
    }

    /// The paths (peer, path, packets sent) as they are `ms` after the start.
    fn look(trend: &mut Trend, ms: u64, paths: &[(u64, u32, u64)]) -> Vec<PathInfo> {
        let mut infos: Vec<_> =
            paths.iter().map(|(peer, id, sent)| (PeerId(*peer), path(*id, *sent))).collect();
        let now = Time::from_micros(ms * 1_000);
        trend.note(now, infos.iter_mut().map(|(peer, path)| (*peer, path)));
        infos.into_iter().map(|(_, path)| path).collect()
    }

    #[test]
    fn a_path_is_told_what_it_sent_in_the_last_second_and_the_last_ten() {
        let mut trend = Trend::default();
        let mut last = Vec::new();
        for second in 0..=12 {
            last = look(&mut trend, second * 1_000, &[(0, 1, second * second)]);
        }

        let [path] = &last[..] else { panic!("{last:?}") };
        let second = path.last_1s.unwrap();
        assert_eq!((second.length.as_secs(), second.sent, second.sent_bytes), (1, 23, 2_300));
        let ten = path.last_10s.unwrap();
        assert_eq!((ten.length.as_secs(), ten.sent), (10, 144 - 4));
    }

    #[test]
    fn nothing_is_told_until_somebody_has_looked_for_long_enough_and_after_a_pause() {
        let mut trend = Trend::default();

        let first = look(&mut trend, 0, &[(0, 1, 5)]);
        let soon = look(&mut trend, 100, &[(0, 1, 6)]);
        let later = look(&mut trend, 1_000, &[(0, 1, 7)]);
        let much_later = look(&mut trend, 20_000, &[(0, 1, 8)]);

        assert_eq!((first[0].last_1s, soon[0].last_1s, later[0].last_10s), (None, None, None));
        assert_eq!(later[0].last_1s.unwrap().sent, 2);
        assert_eq!((much_later[0].last_1s, much_later[0].last_10s), (None, None));
    }

    #[test]
    fn paths_that_come_and_go_or_count_anew_are_not_mixed_up() {
        let mut trend = Trend::default();
        look(&mut trend, 0, &[(1, 1, 10), (1, 2, 20), (3, 1, 30), (4, 1, 40)]);

        let now = look(&mut trend, 1_000, &[(1, 2, 21), (2, 1, 5), (3, 1, 33), (4, 1, 1)]);

        let sent: Vec<_> = now.iter().map(|path| path.last_1s.map(|span| span.sent)).collect();
        assert_eq!(sent, [Some(1), None, Some(3), None]);
    }

    #[test]
    fn who_looks_often_fills_no_memory() {
        let mut trend = Trend::default();
        for tenth in 0..1_000 {
            look(&mut trend, tenth * 100, &[(0, 1, tenth)]);
        }
        assert!(trend.moments.len() <= 15, "{}", trend.moments.len());
    }
}
