// SPDX-License-Identifier: BSD-2-Clause
//! The window against a set that forgets nothing, over ten ways in which numbers may arrive.

use super::*;

/// What a window has to answer: a set of all accepted numbers, and the edges.
struct Model {
    accepted: HashSet<u64>,
    newest: u64,
    usable: u64,
    /// Below this number growth has taken everything for seen.
    blind_below: u64,
}

impl Model {
    fn answer(&self, pn: u64) -> Freshness {
        if pn > self.newest {
            New
        } else if self.newest - pn >= self.usable {
            TooOld
        } else if self.accepted.contains(&pn) || pn < self.blind_below {
            Seen
        } else {
            New
        }
    }

    /// Takes the new size from `window`; everything below its oldest word at that time is blind.
    fn follow(&mut self, window: &ReplayWindow) {
        assert!(window.usable() >= self.usable, "a window never shrinks");
        if window.usable() > self.usable {
            let old_words = if self.usable == 1 { 1 } else { self.usable / 64 + 1 };
            let oldest = (self.newest >> 6).saturating_sub(old_words - 1) << 6;
            self.blind_below = self.blind_below.max(oldest);
            self.usable = window.usable();
        }
    }
}

/// xorshift64*, seeded: a failing case is named by its distribution and size.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

type Distribution = (&'static str, fn(&mut Numbers, u64, u64) -> u64);

/// Name, and the next number given the newest number and the size.
const DISTRIBUTIONS: [Distribution; 10] = [
    ("in order", |_, newest, _| newest.saturating_add(1)),
    ("two copies of each", |r, newest, _| newest.saturating_add(r.below(2))),
    ("small disorder", |r, newest, _| around(newest, 8, r.below(16))),
    ("disorder of a window", |r, newest, w| around(newest, w, r.below(w + 8))),
    ("disorder beyond the window", |r, newest, w| around(newest, 2 * w, r.below(2 * w + 4))),
    ("a slow path half a window behind", |r, newest, w| match r.below(2) {
        0 => newest.saturating_add(2),
        _ => newest.saturating_sub(w / 2) | 1,
    }),
    ("at the lower edge", |r, newest, w| match r.below(4) {
        0 => newest.saturating_add(1),
        _ => around(newest, w + 2, r.below(5)),
    }),
    ("small jumps", |r, newest, _| newest.saturating_add(r.below(200))),
    ("jumps of windows", |r, newest, w| match r.below(8) {
        0 => newest.saturating_add(r.below(3 * w)),
        _ => around(newest, w, r.below(w + 3)),
    }),
    ("few numbers again and again", |r, _, _| r.below(300)),
];

/// `back` below `newest`, and then `forward` up.
fn around(newest: u64, back: u64, forward: u64) -> u64 {
    newest.saturating_sub(back).saturating_add(forward)
}

fn run(start: u8, max: u8, seed: u64, operations: u64) {
    for (name, next) in DISTRIBUTIONS {
        for first in [0, (1 << 32) - 100, u64::MAX - (1 << 22) - 2_000_000] {
            let mut random = Numbers(seed);
            let mut window = ReplayWindow::new(start, max, budget());
            let mut model = Model {
                accepted: HashSet::new(),
                newest: 0,
                usable: window.usable(),
                blind_below: 0,
            };
            let mut pn = first;
            for step in 0..operations {
                let now = at(step / 8);
                let case = || format!("{name}, 2^{start}..2^{max}, first {first}, step {step}");

                let expected = model.answer(pn);
                assert_eq!(window.check(pn), expected, "{}", case());
                // One in eight is only asked about, as a forged one would be.
                if random.below(8) != 0 {
                    if expected == TooOld && random.below(16) == 0 {
                        window.on_authentic_too_old(pn);
                        model.follow(&window);
                    }
                    let answer = window.accept(now, pn);
                    model.follow(&window);
                    match answer {
                        New => {
                            assert_ne!(expected, Seen, "{}", case());
                            assert!(model.accepted.insert(pn), "twice: {}", case());
                        }
                        Seen | TooOld => assert_ne!(expected, New, "{}", case()),
                    }
                    model.newest = model.newest.max(if answer == New { pn } else { 0 });
                    assert_ne!(window.check(pn), New, "{}", case());
                }
                pn = next(&mut random, model.newest, window.usable());
            }
        }
    }
}

#[test]
fn windows_of_every_size_answer_as_a_set_does() {
    // 17 sizes x 10 distributions x 3 starts x 10,000: five million operations.
    for log2 in LOG2_LOWEST..=LOG2_HIGHEST {
        run(log2, log2, 0x9e37_79b9_7f4a_7c15 ^ u64::from(log2), 10_000);
    }
}

#[test]
fn growing_windows_answer_as_a_set_does() {
    // 2 ranges x 10 distributions x 3 starts x 80,000: five million operations.
    run(6, 14, 0x1234_5678_9abc_def1, 80_000);
    run(12, 18, 0x0fed_cba9_8765_4321, 80_000);
}
