// SPDX-License-Identifier: BSD-2-Clause
//! When a window grows, how far, what it keeps, and when it may not.

use super::*;

#[test]
fn a_window_grows_before_it_forgets_what_was_new_within_its_memory() {
    let mut window = growing();
    let w = window.usable();
    for pn in 0..w {
        let _ = window.accept(at(0), pn);
    }
    assert_eq!(window.bits(), 1 << 12);

    let _ = window.accept(at(2_000), w);

    assert_eq!(window.bits(), 1 << 13);
    assert_eq!(window.check(0), Seen);
}

#[test]
fn a_window_does_not_grow_for_numbers_older_than_its_memory() {
    let mut window = growing();
    // 1,000 numbers a second for 100 s: 2.5 s of them, and an eighth, fit into 4,032.
    for pn in 0..100_000 {
        let _ = window.accept(at(pn), pn);
    }

    assert_eq!(window.bits(), 1 << 12);
}

#[test]
fn the_memory_is_never_shorter_than_promised_nor_an_eighth_longer() {
    for (per_ms, log2) in [(1, 12), (2, 13), (3, 14), (10, 15), (50, 18), (90, 18)] {
        let mut window = growing();
        let mut pn = 0;
        for ms in 0..6_000 {
            for _ in 0..per_ms {
                let _ = window.accept(at(ms), pn);
                pn += 1;
            }
        }
        assert!(window.usable() >= per_ms * 2_500, "{per_ms} per ms");
        assert_eq!(window.bits(), 1 << log2, "{per_ms} per ms");
    }
}

#[test]
fn a_number_less_than_its_memory_old_is_kept_even_if_a_span_has_begun_since() {
    let mut window = growing();
    for pn in 0..window.usable() {
        let _ = window.accept(at(300), pn);
    }

    // The span of that time began 2.5 s ago, the numbers came 2.2 s ago.
    let _ = window.accept(at(2_500), window.usable());

    assert_eq!((window.bits(), window.check(0)), (1 << 13, Seen));
}

#[test]
fn a_number_an_eighth_older_than_the_memory_is_not_kept() {
    // One packet at the very beginning of each of these spans, at least one of the ninth.
    for spans in [vec![1, 2, 3, 4, 5, 6, 7, 8, 9], vec![5, 9], vec![9]] {
        let mut window = growing();
        let w = window.usable();
        let numbers = w + 1 - spans.len() as u64..=w;
        for pn in 0..*numbers.start() {
            let _ = window.accept(T0, pn);
        }

        for (pn, span) in numbers.zip(&spans) {
            let _ = window.accept(T0 + Duration::from_micros(span * SPAN_US), pn);
        }

        assert_eq!((window.bits(), window.newest), (1 << 12, w), "{spans:?}");
    }
}

#[test]
fn a_window_grows_no_further_than_it_must() {
    // 2^13 bits hold 8,128 numbers: 0 to 8,127.
    for (jump, log2) in [(4_031, 12), (4_032, 13), (8_127, 13), (8_128, 14)] {
        let mut window = growing();
        assert_eq!(window.accept(at(0), 0), New);

        assert_eq!(window.accept(at(0), jump), New);

        assert_eq!((window.bits(), window.check(0)), (1 << log2, Seen), "{jump}");
    }
}

#[test]
fn two_seconds_of_skew_at_100_000_packets_a_second_lose_nothing() {
    // The fast path brings every even number at once, the slow path the odd ones 2 s later.
    let mut window = growing();
    let mut too_old = 0;
    for tick in 0..500_000_u64 {
        let now = Time::from_micros(T0.as_micros() + tick * 10);
        if tick % 2 == 0 {
            assert_eq!(window.accept(now, tick), New);
        }
        let late = tick.checked_sub(200_000).filter(|late| late % 2 == 1);
        too_old += late.map_or(0, |late| u64::from(window.accept(now, late) != New));
    }

    assert_eq!(too_old, 0);
    assert_eq!(window.bits(), 1 << 18);
}

#[test]
fn a_packet_more_than_half_a_window_late_doubles_it() {
    let mut window = growing();
    let w = window.usable();
    let newest = 20_000;
    let late = [newest - w / 2 + 1, newest - w / 2, newest - w / 2 - 1];
    // Slowly, so that the first rule has no reason to grow.
    for pn in (0..=newest).filter(|pn| !late.contains(pn)) {
        let _ = window.accept(at(pn * 10), pn);
    }

    for within in &late[..2] {
        assert_eq!(window.accept(at(200_000), *within), New);
        assert_eq!(window.bits(), 1 << 12);
    }
    assert_eq!(window.accept(at(200_000), late[2]), New);

    assert_eq!(window.bits(), 1 << 13);
    assert_eq!(window.check(newest - w / 2 - 1), Seen);
}

#[test]
fn an_authentic_packet_that_is_too_old_makes_room_for_the_next_of_its_kind() {
    let mut window = growing();
    for pn in 0..20_000 {
        let _ = window.accept(at(pn * 10), pn);
    }
    let late = window.newest - 6_000;
    assert_eq!(window.check(late), TooOld);

    window.on_authentic_too_old(late);

    assert_eq!(window.bits(), 1 << 14);
    assert_eq!(window.check(late), Seen, "what was forgotten stays forgotten");
    // The next one that late is inside.
    for pn in 20_000..30_000 {
        let _ = window.accept(at(200_000 + pn * 10), pn + pn % 2);
    }
    assert_eq!(window.check(window.newest - 5_999), New);
}

#[test]
fn a_jump_in_numbers_keeps_the_newest_before_it_if_the_maximum_allows() {
    let mut window = growing();
    for pn in 0..100 {
        let _ = window.accept(at(0), pn);
    }

    let _ = window.accept(at(10_000), 50_000);
    assert_eq!((window.bits(), window.check(99)), (1 << 16, Seen));
    let _ = window.accept(at(20_000), 10_000_000);
    assert_eq!((window.bits(), window.check(50_000)), (1 << 18, TooOld));
}

#[test]
fn growth_keeps_what_is_known_and_takes_the_rest_for_seen() {
    let mut window = growing();
    let w = window.usable();
    for pn in (0..20_000).step_by(2) {
        let _ = window.accept(at(pn * 10), pn);
    }
    let newest = window.newest;
    let before: Vec<_> = (0..=newest).map(|pn| window.check(pn)).collect();

    window.on_authentic_too_old(newest - w - 100);

    let oldest_word = ((newest >> 6) - 63) << 6;
    for pn in 0..=newest {
        let after = window.check(pn);
        match before[pn as usize] {
            TooOld if pn >= oldest_word => assert_eq!(after == Seen, pn % 2 == 0, "{pn}"),
            TooOld => assert_ne!(after, New, "{pn}"),
            known => assert_eq!(after, known, "{pn}"),
        }
    }
}

#[test]
fn a_busy_windows_successor_starts_large_and_an_idle_ones_small() {
    let mut window = growing();
    let mut pn = 0;
    for ms in 0..5_000 {
        for _ in 0..10 {
            let _ = window.accept(at(ms), pn);
            pn += 1;
        }
    }

    // 10 a millisecond for 2.5 s, and up to an eighth, twice: 50,000 to 56,250.
    assert_eq!(window.successor_log2(at(5_000)), 16);
    assert_eq!(window.successor_log2(at(6_300)), 15);
    assert_eq!(window.successor_log2(at(8_000)), LOG2_START);
    assert_eq!(growing().successor_log2(at(0)), LOG2_START);
}

#[test]
fn a_successor_counts_what_came_late_in_the_oldest_span_of_the_memory() {
    let mut window = growing();
    assert_eq!(window.accept(at(0), 0), New);
    assert_eq!(window.accept(at(300), 4_000), New);

    assert_eq!(window.successor_log2(at(2_500)), 13);
    assert_eq!(window.successor_log2(at(2_813)), LOG2_START);
}

#[test]
fn a_successor_holds_exactly_twice_what_went_by() {
    for (recent, log2) in [(2_016, 12), (2_017, 13), (4_064, 13), (4_065, 14)] {
        let mut window = growing();

        let _ = window.accept(at(0), recent);

        assert_eq!(window.successor_log2(at(0)), log2, "{recent}");
    }
}

#[test]
fn a_successor_is_never_larger_than_the_maximum() {
    let mut busy = ReplayWindow::new(12, 14, budget());
    let _ = busy.accept(at(0), 1_000_000);
    assert_eq!(busy.successor_log2(at(0)), 14);

    assert_eq!(fixed(8).successor_log2(at(0)), 8);
}

#[test]
fn an_idle_session_stays_at_the_start_size() {
    let mut window = growing();
    // A probe every 5 s for a day.
    for pn in 0..17_280 {
        let _ = window.accept(at(pn * 5_000), pn);
    }

    assert_eq!(window.memory(), 512);
}

#[test]
fn the_shared_budget_stops_growth_and_counts_it() {
    let budget = Arc::new(MemoryBudget::new(4 * 512 + 1024));
    let mut windows: Vec<_> =
        (0..4).map(|_| ReplayWindow::new(LOG2_START, LOG2_MAX, budget.clone())).collect();
    assert_eq!((budget.used(), budget.refused()), (4 * 512, 0));

    for window in &mut windows {
        for pn in 0..10_000 {
            assert_eq!(window.accept(at(0), pn), New);
        }
    }

    // Two doubled once; one wanted to double again. Each asks once, not once per packet.
    let memory: Vec<_> = windows.iter().map(ReplayWindow::memory).collect();
    assert_eq!(memory, [1024, 1024, 512, 512]);
    assert_eq!((budget.used(), budget.refused()), (4 * 512 + 1024, 4));

    drop(windows);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_window_at_its_limit_asks_for_no_more_because_of_skew() {
    let budget = Arc::new(MemoryBudget::new(512));
    let mut window = ReplayWindow::new(LOG2_START, LOG2_MAX, budget.clone());
    for pn in 0..4_000 {
        let _ = window.accept(at(0), pn * 2);
    }
    for behind in (2_101..2_301).step_by(2) {
        assert_eq!(window.accept(at(0), window.newest - behind), New);
        window.on_authentic_too_old(window.newest - 2 * behind);
    }

    assert_eq!((window.memory(), budget.refused()), (512, 1));
}

#[test]
fn a_window_that_was_refused_grows_once_there_is_room() {
    let budget = Arc::new(MemoryBudget::new(2 * 512));
    let mut window = ReplayWindow::new(LOG2_START, LOG2_MAX, budget.clone());
    let other = ReplayWindow::new(LOG2_START, LOG2_MAX, budget.clone());
    for pn in 0..10_000 {
        let _ = window.accept(at(0), pn);
    }
    assert_eq!(window.memory(), 512);

    drop(other);
    for pn in 10_000..20_000 {
        let _ = window.accept(at(400), pn);
    }

    assert_eq!((window.memory(), budget.used()), (1024, 1024));
}

#[test]
fn without_room_a_window_starts_small_but_starts() {
    let budget = Arc::new(MemoryBudget::new(1024));

    let a = ReplayWindow::new(18, 18, budget.clone());
    let b = ReplayWindow::new(18, 18, budget.clone());

    assert_eq!((a.memory(), b.memory()), (1024, 512));
    assert_eq!((budget.used(), budget.refused()), (1536, 2));
}
