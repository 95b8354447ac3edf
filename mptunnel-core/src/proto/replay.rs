// SPDX-License-Identifier: BSD-2-Clause
//! Which packet numbers were accepted: de-duplication across paths and protection against replay
//! in one, since both ask whether a number was seen.

use std::sync::Arc;
use std::time::Duration;

use crate::proto::budget::MemoryBudget;
use crate::proto::time::Time;

/// Which packet numbers of one direction of one session were accepted.
///
/// ```text
///            ┌──────────── usable ────────────┐
///   too old  │   seen, or still welcome       │   never seen
///  ──────────┴────────────────────────────────┴───────────────→ packet numbers
///                                      newest
/// ```
///
/// The ring of RFC 6479: `R` words of 64 bits, a power of two, of which one is being refilled, so
/// that `(R − 1) · 64` numbers are usable. Use in two steps: [`check`](Self::check) before
/// opening, [`accept`](Self::accept) once the tag verified. Only the second changes anything, so a
/// forged packet never does. In the usual case, in order and well inside the window, `accept`
/// takes a few nanoseconds; nothing is allocated except when the window grows.
///
/// In redundant mode the copy on the slow path may be the only one that survives. So the window
/// grows before it forgets a number that may still come ([`MEMORY`]), or when it sees that the
/// paths differ by more than half of it. It never shrinks: the session after the next rekey
/// begins with [`successor_log2`](Self::successor_log2).
pub struct ReplayWindow {
    /// Bit `n % 64` of word `n / 64 % R` is number `n`. The words from the newest number's back
    /// to the `R − 1` before it are valid; one that comes into use is cleared first.
    words: Box<[u64]>,
    /// `R − 1`, to reduce a word's number to its place.
    mask: u64,
    /// Numbers, counted back from `newest`, of which the window knows whether they were accepted.
    usable: u64,
    /// The highest number accepted; zero before the first, which bit 0 tells apart.
    newest: u64,
    /// A number no higher than what `newest` was [`MEMORY`] ago.
    horizon: u64,
    /// A number this far above `horizon` makes the window grow first; `u64::MAX` when it cannot.
    grow_at: u64,
    marks: Marks,
    max_log2: u8,
    budget: Arc<MemoryBudget>,
}

/// What a window knows about a packet number.
#[must_use]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Freshness {
    /// Not accepted before.
    New,
    /// Accepted before: a copy from another path, or a replay.
    Seen,
    /// Below the window, which no longer knows.
    TooOld,
}

impl ReplayWindow {
    /// A window of `2^start_log2` bits that may grow to `2^max_log2` bits.
    ///
    /// Both are taken into the range [`LOG2_LOWEST`]` ..= `[`LOG2_HIGHEST`], and the start is at
    /// most the maximum. If `budget` has no room for a start above [`LOG2_START`], the window
    /// starts smaller; [`LOG2_START`] itself it always gets.
    pub fn new(start_log2: u8, max_log2: u8, budget: Arc<MemoryBudget>) -> Self {
        let max_log2 = max_log2.clamp(LOG2_LOWEST, LOG2_HIGHEST);
        let wanted = words_for(start_log2.clamp(LOG2_LOWEST, max_log2));
        let least = wanted.min(words_for(LOG2_START));
        let words = afford(&budget, 0, wanted, least);
        let mut window = ReplayWindow {
            words: Box::default(),
            mask: 0,
            usable: 0,
            newest: 0,
            horizon: 0,
            grow_at: 0,
            marks: Marks::default(),
            max_log2,
            budget,
        };
        window.install(vec![0; words].into_boxed_slice());
        window
    }

    /// What the window knows about `pn`, without changing anything.
    #[inline]
    pub fn check(&self, pn: u64) -> Freshness {
        let Some(behind) = self.newest.checked_sub(pn) else { return Freshness::New };
        if behind >= self.usable {
            Freshness::TooOld
        } else if self.word(pn) & bit(pn) != 0 {
            Freshness::Seen
        } else {
            Freshness::New
        }
    }

    /// Marks `pn`, whose tag has verified, as accepted if it is [`Freshness::New`], and returns
    /// what it was. Anything else is dropped by the caller: another thread was faster.
    ///
    /// Grows the window first if `pn` would push out numbers that were the newest within the last
    /// [`MEMORY`], or if it lies more than half the window behind the newest number.
    #[inline]
    pub fn accept(&mut self, now: Time, pn: u64) -> Freshness {
        if now >= self.marks.next {
            self.horizon = self.marks.advance(now, self.newest);
            self.rearm();
        }
        if pn > self.newest {
            if pn.saturating_sub(self.horizon) >= self.grow_at {
                self.grow_to_hold(pn.saturating_sub(self.horizon).saturating_add(1));
            }
            self.move_to(pn);
        } else {
            match self.check(pn) {
                Freshness::New => self.on_skew(self.newest.saturating_sub(pn)),
                known => return known,
            }
        }
        let place = self.place(pn >> 6);
        if let Some(word) = self.words.get_mut(place) {
            *word |= bit(pn);
        }
        Freshness::New
    }

    /// Learns from a packet below the window whose tag has verified how far the paths are apart,
    /// and grows so that the next of its kind is accepted. The packet itself stays dropped.
    ///
    /// The caller opens such packets only to call this, and at most 16 a second.
    pub fn on_authentic_too_old(&mut self, pn: u64) {
        self.on_skew(self.newest.saturating_sub(pn));
    }

    /// The size at which the window of the session after a rekey starts: the smallest that holds
    /// twice the numbers that this one saw go by in its last [`MEMORY`], so that a busy tunnel
    /// need not learn again and an idle one is small again. At least [`LOG2_START`], unless this
    /// window's maximum is lower.
    pub fn successor_log2(&self, now: Time) -> u8 {
        let recent = self.newest.saturating_sub(self.marks.horizon(now, self.newest));
        let holds = |log2: &u8| usable_of(words_for(*log2)) >= recent.saturating_mul(2);
        (LOG2_START..self.max_log2).find(holds).unwrap_or(self.max_log2)
    }

    /// Grows at once to the size at which the window of a session after a rekey starts: see
    /// [`successor_log2`](Self::successor_log2). The maximum and the budget bind as always.
    pub fn reserve(&mut self, log2: u8) {
        let wanted = usable_of(words_for(log2.clamp(LOG2_LOWEST, self.max_log2)));
        if wanted > self.usable {
            self.grow_to_hold(wanted);
        }
    }

    /// How many numbers, counted back from the newest, the window knows about.
    pub fn usable(&self) -> u64 {
        self.usable
    }

    /// The size of the ring in bits.
    pub fn bits(&self) -> usize {
        self.words.len().saturating_mul(64)
    }

    /// The size of the ring in bytes: what it takes from the budget.
    pub fn memory(&self) -> usize {
        memory_of(self.words.len())
    }

    /// Moves the window forward so that `pn` is the newest.
    #[inline]
    fn move_to(&mut self, pn: u64) {
        let (from, to) = (self.newest >> 6, pn >> 6);
        self.newest = pn;
        if to != from {
            self.clear(from.saturating_add(1), to.saturating_sub(from));
        }
    }

    /// Clears the `count` words from word number `first` on, as they come into use.
    fn clear(&mut self, first: u64, count: u64) {
        let len = self.words.len();
        let count = usize::try_from(count).unwrap_or(len).min(len);
        let place = self.place(first);
        let (before, from) = self.words.split_at_mut(place);
        let straight = count.min(from.len());
        from.split_at_mut(straight).0.fill(0);
        before.split_at_mut(count.saturating_sub(straight)).0.fill(0);
    }

    /// Grows if an authentic packet came so late that more than half the window is in use.
    #[inline]
    fn on_skew(&mut self, behind: u64) {
        if behind > self.usable / 2 && self.grow_at != u64::MAX {
            self.grow_to_hold(behind.saturating_mul(2));
        }
    }

    /// Doubles the window until it holds `numbers`, or is as large as it may be, or the budget
    /// has no room for more.
    #[cold]
    fn grow_to_hold(&mut self, numbers: u64) {
        let old = self.words.len();
        let mut wanted = old;
        while wanted < words_for(self.max_log2) && usable_of(wanted) < numbers {
            wanted = wanted.saturating_mul(2);
        }
        let words = afford(&self.budget, old, wanted, old);
        if words > old {
            self.install(self.spread_over(words));
        } else {
            // Asking the budget again for each packet would be a waste: the next mark does.
            self.grow_at = u64::MAX;
        }
    }

    /// The contents of the window in a ring of `len` words. Of what lies below its oldest word
    /// nothing is known any more, so all of that counts as seen: growth makes nothing acceptable
    /// that was accepted before.
    fn spread_over(&self, len: usize) -> Box<[u64]> {
        let mut spread = vec![0; len].into_boxed_slice();
        let new_mask = mask_of(len);
        let newest_word = self.newest >> 6;
        let oldest_known = newest_word.saturating_sub(self.mask);
        for number in newest_word.saturating_sub(new_mask)..=newest_word {
            let known = number >= oldest_known;
            let bits = if known { self.word(number << 6) } else { u64::MAX };
            if let Some(word) = spread.get_mut(place(number, new_mask)) {
                *word = bits;
            }
        }
        spread
    }

    fn install(&mut self, words: Box<[u64]>) {
        self.mask = mask_of(words.len());
        self.usable = usable_of(words.len());
        self.words = words;
        self.rearm();
    }

    /// Lets the window grow when it next has to, if it may.
    fn rearm(&mut self) {
        self.grow_at =
            if self.words.len() < words_for(self.max_log2) { self.usable } else { u64::MAX };
    }

    #[inline]
    fn word(&self, pn: u64) -> u64 {
        self.words.get(self.place(pn >> 6)).copied().unwrap_or(u64::MAX)
    }

    #[inline]
    fn place(&self, word: u64) -> usize {
        place(word, self.mask)
    }
}

impl Drop for ReplayWindow {
    fn drop(&mut self) {
        self.budget.release(self.memory());
    }
}

/// What the newest number was, over the last [`MEMORY`], in eight steps.
///
/// Time is cut into spans of [`SPAN_US`]. Of the current span and the eight before it, `newest`
/// holds what the newest number was when the span began. The ninth back began at least [`MEMORY`]
/// ago and at most an eighth more: rounding remembers too much, never too little.
#[derive(Default)]
struct Marks {
    /// By span modulo the length.
    newest: [u64; 9],
    /// The span of the last packet.
    span: u64,
    /// When the next span begins.
    next: Time,
}

impl Marks {
    /// Notes that a packet arrives at `now`, while `newest` is the newest number; returns the
    /// horizon.
    #[cold]
    fn advance(&mut self, now: Time, newest: u64) -> u64 {
        let span = span_of(now);
        // Nothing arrived in the spans between, so they began with what is newest still.
        let oldest = span.saturating_sub(SPANS).max(self.span.saturating_add(1));
        for passed in oldest..=span {
            if let Some(mark) = self.newest.get_mut(slot_of(passed)) {
                *mark = newest;
            }
        }
        self.span = span;
        self.next = Time::from_micros(span.saturating_add(1).saturating_mul(SPAN_US));
        self.horizon(now, newest)
    }

    /// What the newest number was at least [`MEMORY`] before `now`, given what it is.
    fn horizon(&self, now: Time, newest: u64) -> u64 {
        let Some(back) = span_of(now).checked_sub(SPANS) else { return 0 };
        if back > self.span {
            return newest;
        }
        self.newest.get(slot_of(back)).copied().unwrap_or(0)
    }
}

/// Takes from `budget` what a ring needs to go from `old` words to `wanted`, or to the most that
/// fits, but in any case to `least`; returns which. All are powers of two.
fn afford(budget: &MemoryBudget, old: usize, wanted: usize, least: usize) -> usize {
    let mut words = wanted;
    while words > least {
        if budget.reserve(memory_of(words.saturating_sub(old))) {
            break;
        }
        words /= 2;
    }
    if words == least {
        budget.force(memory_of(least.saturating_sub(old)));
    }
    if words < wanted {
        budget.count_refusal();
    }
    words
}

/// The ring of a window of `2^log2` bits, in words.
fn words_for(log2: u8) -> usize {
    1_usize.wrapping_shl(u32::from(log2.saturating_sub(LOG2_LOWEST)))
}

fn memory_of(words: usize) -> usize {
    words.saturating_mul(size_of::<u64>())
}

/// One word of the ring is being refilled. A ring of one word still knows the newest number.
fn usable_of(words: usize) -> u64 {
    u64::try_from(words).unwrap_or(u64::MAX).saturating_sub(1).saturating_mul(64).max(1)
}

fn mask_of(words: usize) -> u64 {
    u64::try_from(words).unwrap_or(u64::MAX).saturating_sub(1)
}

/// Where word number `word` lies in a ring; `mask` is far below `usize::MAX` on all targets.
#[inline]
fn place(word: u64, mask: u64) -> usize {
    usize::try_from(word & mask).unwrap_or(usize::MAX)
}

#[inline]
fn bit(pn: u64) -> u64 {
    1_u64.wrapping_shl(u32::try_from(pn % 64).unwrap_or(0))
}

fn span_of(now: Time) -> u64 {
    now.as_micros() / SPAN_US
}

/// Where `span` lies in the ring of marks.
fn slot_of(span: u64) -> usize {
    usize::try_from(span % SPANS_KEPT).unwrap_or(0)
}

// From PROTOCOL.md, "De-dup and replay window".

/// log2 of bits. Where a window starts unless its predecessor was busy: 512 bytes.
pub const LOG2_START: u8 = 12;
/// log2 of bits. How far a window grows by default: 32 KiB, two seconds of skew at 100,000 packets
/// per second.
pub const LOG2_MAX: u8 = 18;
/// log2 of bits. The largest window that may be configured: 512 KiB.
pub const LOG2_HIGHEST: u8 = 22;
/// Two seconds of skew between paths, and a quarter for margin.
pub const MEMORY: Duration = Duration::from_millis(2_500);

// Ours.

/// log2 of bits. One word: for tests, as it knows no number but the newest.
pub const LOG2_LOWEST: u8 = 6;
/// Spans in [`MEMORY`]. The window remembers up to one span more than it must, so an eighth.
const SPANS: u64 = 8;
/// The spans of [`MEMORY`] and the current one.
const SPANS_KEPT: u64 = SPANS + 1;
/// Microseconds in a span.
const SPAN_US: u64 = 312_500;
const _: () = assert!(MEMORY.as_micros() == 8 * 312_500 && SPANS == 8 && SPANS_KEPT == 9);

#[cfg(test)]
mod tests;
