// SPDX-License-Identifier: BSD-2-Clause
//! The replay window against a set that forgets nothing.

use super::ends::START;
use super::script::{Script, Seed};
use mptunnel_core::proto::budget::MemoryBudget;
use mptunnel_core::proto::replay::{Freshness, LOG2_HIGHEST, LOG2_LOWEST, ReplayWindow};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let (start, max) = (script.u8() % 24, script.u8() % 24);
    let budget = Arc::new(MemoryBudget::new(usize::from(script.u16()) << 5));
    let mut window = ReplayWindow::new(start, max, budget.clone());
    let most = 1u64 << max.clamp(LOG2_LOWEST, LOG2_HIGHEST);
    let (mut accepted, mut newest, mut now) = (HashSet::new(), 0u64, START);
    let mut grown = window.usable();
    while !script.is_over() {
        let op = script.u8();
        let pn = match op & 7 {
            0 => script.number(),
            1 => newest.wrapping_add(1),
            2 => newest.saturating_add(script.u16().into()),
            3 => newest.saturating_sub(script.u16().into()),
            4 => newest.saturating_sub(u64::from(script.u8()) << 12),
            5 => newest.saturating_sub(
                window.usable().wrapping_add_signed(i64::from(script.u8().cast_signed())),
            ),
            6 => {
                now = now + Duration::from_millis(script.u16().into());
                continue;
            }
            _ => {
                window.reserve(script.u8());
                continue;
            }
        };
        let (usable, said) = (window.usable(), window.check(pn));
        let seen = accepted.contains(&pn);
        let behind = newest.checked_sub(pn);
        match said {
            // Nothing was accepted yet, or this is inside.
            Freshness::New => assert!(!seen, "{pn} twice"),
            Freshness::Seen => {
                assert!(behind.is_some_and(|b| b < usable), "{pn}: below, yet known");
                // After growth what lies below the former window counts as seen.
                assert!(seen || behind.is_some_and(|b| b + 64 >= grown), "{pn} never came");
            }
            Freshness::TooOld => assert!(behind.is_some_and(|b| b >= usable)),
        }
        if op & 0x40 != 0 {
            // Forged: asked about, and no more.
            assert_eq!(window.check(pn), said);
        } else if op & 0x80 != 0 && said == Freshness::TooOld {
            window.on_authentic_too_old(pn);
        } else if window.accept(now, pn) == Freshness::New {
            assert!(accepted.insert(pn), "{pn} is accepted twice");
            newest = newest.max(pn);
            assert_ne!(window.check(pn), Freshness::New);
        } else {
            // It may have grown in between, and knows no more than before.
            assert_ne!(said, Freshness::New, "{pn} was welcome and is refused");
        }
        if window.usable() == usable {
            continue;
        }
        assert!(window.usable() > usable, "it never shrinks");
        assert!(window.bits() as u64 <= most.max(1 << 12));
        grown = grown.min(usable);
    }
    let _ = window.successor_log2(now);
    assert_eq!(budget.used(), window.memory());
    drop(window);
    assert_eq!(budget.used(), 0);
}

pub fn seeds() -> Vec<Vec<u8>> {
    let begin = |start, max, budget| Seed::default().u8(start).u8(max).u16(budget);
    let rising = begin(12, 18, 4_096).times(64, |s, _| s.u8(1));
    let skewed = begin(6, 14, 4_096)
        .times(40, |s, n| s.u8(2).u16(n as u16 * 7).u8(3).u16(n as u16 * 5).u8(6).u16(100));
    let edges = begin(7, 7, 1).times(24, |s, n| s.u8(0).u8(n as u8).u8(n as u8).u8(5).u8(n as u8));
    let late = begin(12, 22, u16::MAX)
        .times(30, |s, n| s.u8(2).u16(60_000).u8(0x84).u8(n as u8).u8(4).u8(1).u8(7).u8(n as u8));
    [rising, skewed, edges, late].map(|seed| seed.0).into()
}
