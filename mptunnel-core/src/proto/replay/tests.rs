// SPDX-License-Identifier: BSD-2-Clause
use std::collections::HashSet;

use super::*;

mod growth;
mod model;

const T0: Time = Time::from_micros(1_000_000_000);

fn budget() -> Arc<MemoryBudget> {
    Arc::new(MemoryBudget::new(MemoryBudget::DEFAULT))
}

/// A window that does not grow.
fn fixed(log2: u8) -> ReplayWindow {
    ReplayWindow::new(log2, log2, budget())
}

fn growing() -> ReplayWindow {
    ReplayWindow::new(LOG2_START, LOG2_MAX, budget())
}

fn at(ms: u64) -> Time {
    T0 + Duration::from_millis(ms)
}

/// Accepts `pn` and proves that asking first would have given the same answer.
fn accept(window: &mut ReplayWindow, pn: u64) -> Freshness {
    let asked = window.check(pn);
    let answer = window.accept(T0, pn);
    assert_eq!(answer, asked, "{pn}");
    assert_ne!(window.check(pn), Freshness::New, "{pn}");
    answer
}

use Freshness::{New, Seen, TooOld};

#[test]
fn sizes_are_those_of_the_protocol() {
    for (log2, usable, memory) in
        [(12, 4_032, 512), (18, 262_080, 32 * 1024), (22, 4_194_240, 512 * 1024)]
    {
        let window = fixed(log2);
        assert_eq!((window.usable(), window.memory()), (usable, memory));
        assert_eq!(window.bits(), 1 << log2);
    }
}

#[test]
fn sizes_outside_the_allowed_range_are_taken_into_it() {
    assert_eq!(ReplayWindow::new(0, 0, budget()).bits(), 1 << 6);
    assert_eq!(ReplayWindow::new(60, 60, budget()).bits(), 1 << 22);
    assert_eq!(ReplayWindow::new(18, 12, budget()).bits(), 1 << 12);
}

/// The situations that WireGuard's self-test of its counter covers, for every size: first
/// numbers, order and disorder near the start, both edges of the window, jumps by part of a
/// window, by whole windows, and what is below afterwards.
#[test]
fn the_known_cases_of_a_replay_window_hold_for_every_size() {
    for log2 in 7..=LOG2_HIGHEST {
        let mut window = fixed(log2);
        let w = window.usable();
        let cases = [
            // The start, in order, then a gap that is filled backwards.
            (0, New),
            (1, New),
            (1, Seen),
            (9, New),
            (8, New),
            (7, New),
            (7, Seen),
            // The window is full from 1 to w; 2 is inside, 0 is one below.
            (w, New),
            (w - 1, New),
            (w - 1, Seen),
            (w - 2, New),
            (2, New),
            (2, Seen),
            (0, TooOld),
            (1, Seen),
            // One more pushes out the next.
            (w + 1, New),
            (1, TooOld),
            (2, Seen),
            (3, New),
            // A jump of 16, and what it leaves outside.
            (w + 17, New),
            (w + 17, Seen),
            (17, TooOld),
            (18, New),
            // Whole windows at once: exactly the lowest usable number is welcome.
            (4 * w, New),
            (3 * w, TooOld),
            (3 * w + 1, New),
            (3 * w + 1, Seen),
            (4 * w - 1, New),
            (w + 17, TooOld),
            (0, TooOld),
            (4 * w, Seen),
            // Just past a multiple of the ring, where slots are reused.
            (4 * w + 1, New),
            (3 * w + 1, TooOld),
            (3 * w + 2, New),
        ];
        for (step, (pn, expected)) in cases.into_iter().enumerate() {
            assert_eq!(accept(&mut window, pn), expected, "2^{log2}, step {step}, number {pn}");
        }
    }
}

#[test]
fn a_full_window_filled_backwards_accepts_each_number_once() {
    for log2 in [7, 8, 12] {
        let mut window = fixed(log2);
        let w = window.usable();
        assert_eq!(accept(&mut window, w), New);
        for pn in (1..w).rev() {
            assert_eq!(accept(&mut window, pn), New, "{pn}");
        }
        assert_eq!(accept(&mut window, 0), TooOld);
        for pn in 1..=w {
            assert_eq!(accept(&mut window, pn), Seen, "{pn}");
        }
    }
}

#[test]
fn the_edges_are_exact_at_zero_at_the_window_at_2_to_the_32_and_at_the_end_of_numbers() {
    let limit = u64::MAX - (1 << 22);
    for log2 in [7, 12, 18, 22] {
        let w = fixed(log2).usable();
        for edge in [w, 1 << 32, (1 << 32) + w, limit, u64::MAX - 2] {
            for newest in edge - 2..=edge + 2 {
                let mut window = fixed(log2);
                assert_eq!(accept(&mut window, newest), New);
                assert_eq!(accept(&mut window, newest), Seen);
                let lowest = newest.saturating_sub(w - 1);
                assert_eq!(accept(&mut window, lowest), New);
                assert_eq!(accept(&mut window, lowest), Seen);
                if let Some(below) = newest.checked_sub(w) {
                    assert_eq!(accept(&mut window, below), TooOld);
                }
            }
        }
    }
}

#[test]
fn a_window_of_one_word_still_accepts_nothing_twice() {
    let mut window = fixed(6);

    for pn in [0, 1, 2, 63, 64, 1000] {
        assert_eq!(accept(&mut window, pn), New);
        assert_eq!(accept(&mut window, pn), Seen);
    }
    assert_eq!(accept(&mut window, 999), TooOld);
}

#[test]
fn checking_changes_nothing() {
    let mut window = growing();
    assert_eq!(accept(&mut window, 10), New);

    for pn in [0, 10, 11, 5_000, 1 << 40, u64::MAX] {
        let first = window.check(pn);
        assert_eq!(window.check(pn), first);
    }

    assert_eq!((window.newest, window.bits()), (10, 1 << LOG2_START));
    assert_eq!(accept(&mut window, 9), New);
}

#[test]
fn forged_packets_never_make_a_window_grow() {
    // What is forged gets as far as `check`: nothing verifies, so nothing is accepted.
    let mut window = growing();
    for pn in 0..10_000 {
        assert_eq!(accept(&mut window, pn), New);
    }
    let (bits, newest) = (window.bits(), window.newest);

    for forged in (0..1_000_000).step_by(7).chain([1 << 40, u64::MAX]) {
        let _ = window.check(forged);
    }

    assert_eq!((window.bits(), window.newest), (bits, newest));
    assert_eq!(window.check(10_000), New);
}

#[test]
fn a_clock_that_stands_still_or_steps_back_loses_no_number() {
    let mut window = growing();
    let mut seen = HashSet::new();
    for (i, ms) in [10_000, 10_000, 9_000, 0, 20_000, 1].into_iter().enumerate() {
        for pn in (0..5_000).map(|n| n + 3_000 * i as u64) {
            assert_eq!(window.accept(at(ms), pn) == New, seen.insert(pn), "{pn} at {ms}");
        }
    }
}

#[test]
fn a_window_fits_the_memory_budget_of_a_session() {
    // Beside the ring itself: 512 bytes of the 32 KiB that an idle session may take.
    assert!(size_of::<ReplayWindow>() <= 192, "{}", size_of::<ReplayWindow>());
}
