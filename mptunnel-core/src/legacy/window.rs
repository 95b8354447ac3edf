// SPDX-License-Identifier: BSD-2-Clause
//! Which numbers have come already.

/// The fewest numbers that a window remembers.
pub const SMALLEST_WINDOW: u32 = 1 << 16;

/// Where a number stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// Above all that came before.
    Ahead,
    /// Below the highest one, and it did not come before.
    Gap,
    /// It came before.
    Seen,
    /// Below what is remembered.
    Below,
}

/// A bit for each of the last so many numbers, in a ring.
#[derive(Debug)]
pub struct Window {
    bits: Vec<u64>,
    /// The highest number that came; 0 = none did.
    highest: u32,
}

impl Window {
    /// A window of `size` numbers or more: at least [`SMALLEST_WINDOW`], a power of two.
    pub fn new(size: u32) -> Self {
        let size = size.clamp(SMALLEST_WINDOW, 1 << 22).next_power_of_two();
        let words = usize::try_from(size / u64::BITS).unwrap_or(usize::MAX);
        Window { bits: vec![0; words], highest: 0 }
    }

    /// How many numbers it remembers.
    pub fn size(&self) -> u32 {
        u32::try_from(self.bits.len()).unwrap_or(u32::MAX).saturating_mul(u64::BITS)
    }

    /// The highest number that came; 0 if none did.
    pub fn highest(&self) -> u32 {
        self.highest
    }

    /// Where `id` stands; it is not marked.
    pub fn place(&self, id: u32) -> Place {
        match self.highest.checked_sub(id) {
            None => Place::Ahead,
            Some(behind) if behind >= self.size() => Place::Below,
            Some(_) => {
                let (word, bit) = self.locate(id);
                let seen = self.bits.get(word).is_some_and(|word| word & bit != 0);
                if seen { Place::Seen } else { Place::Gap }
            }
        }
    }

    /// Takes `id` and says where it stood: [`Place::Ahead`] and [`Place::Gap`] are new.
    pub fn mark(&mut self, id: u32) -> Place {
        let place = self.place(id);
        if place == Place::Ahead {
            self.advance(id);
        }
        if matches!(place, Place::Ahead | Place::Gap) {
            let (word, bit) = self.locate(id);
            if let Some(word) = self.bits.get_mut(word) {
                *word |= bit;
            }
        }
        place
    }

    /// Forgets everything, and takes `id` as the highest number that came.
    pub fn restart_at(&mut self, id: u32) {
        self.bits.fill(0);
        self.highest = 0;
        self.mark(id);
    }

    /// Makes `id` the highest number. What lies between it and the former one did not come.
    fn advance(&mut self, id: u32) {
        let steps = id.saturating_sub(self.highest);
        if steps >= self.size() {
            self.bits.fill(0);
        } else {
            // Most often one number: whole words are cleared where there are any.
            let mut next = self.highest.saturating_add(1);
            while next <= id {
                let (word, bit) = self.locate(next);
                let whole = bit == 1 && id.saturating_sub(next) >= u64::BITS - 1;
                if let Some(word) = self.bits.get_mut(word) {
                    *word = if whole { 0 } else { *word & !bit };
                }
                next = next.saturating_add(if whole { u64::BITS } else { 1 });
            }
        }
        self.highest = id;
    }

    /// The word and the bit of a number.
    fn locate(&self, id: u32) -> (usize, u64) {
        let index = id & self.size().wrapping_sub(1);
        let word = usize::try_from(index / u64::BITS).unwrap_or(usize::MAX);
        (word, 1 << (index % u64::BITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_number_counts_once_wherever_it_comes() {
        let mut window = Window::new(0);
        assert_eq!(window.mark(10), Place::Ahead);
        assert_eq!(window.mark(10), Place::Seen);
        assert_eq!(window.mark(3), Place::Gap, "a number from before the first one that came");
        assert_eq!(window.mark(3), Place::Seen);
        assert_eq!(window.mark(11), Place::Ahead);
    }

    #[test]
    fn the_edge_of_the_window_is_where_its_size_says() {
        let mut window = Window::new(1);
        assert_eq!(window.size(), SMALLEST_WINDOW);
        window.mark(100_000);

        assert_eq!(window.place(100_000 - SMALLEST_WINDOW + 1), Place::Gap);
        assert_eq!(window.place(100_000 - SMALLEST_WINDOW), Place::Below);
        assert_eq!(Window::new(SMALLEST_WINDOW + 1).size(), 2 * SMALLEST_WINDOW);
    }

    #[test]
    fn a_leap_forgets_what_lies_behind_it() {
        let mut window = Window::new(0);
        (1..=200).for_each(|id| assert_eq!(window.mark(id), Place::Ahead));

        assert_eq!(window.mark(i32::MAX.unsigned_abs()), Place::Ahead);
        assert_eq!(window.mark(200), Place::Below);
        window.restart_at(201);
        assert_eq!((window.mark(201), window.mark(202)), (Place::Seen, Place::Ahead));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_all_numbers(
            moves in proptest::collection::vec(
                prop_oneof![8 => -300i64..300, 1 => -80_000i64..80_000], 1..400,
            ),
        ) {
            let mut window = Window::new(0);
            let (mut seen, mut at) = (BTreeSet::new(), 1_000_000i64);
            for by in moves {
                at = (at + by).clamp(1, i64::from(i32::MAX));
                let id = u32::try_from(at).unwrap();
                let highest = seen.last().copied().unwrap_or(0);
                let expected = if id > highest {
                    Place::Ahead
                } else if highest - id >= window.size() {
                    Place::Below
                } else if seen.contains(&id) {
                    Place::Seen
                } else {
                    Place::Gap
                };
                prop_assert_eq!(window.mark(id), expected, "{}", id);
                if matches!(expected, Place::Ahead | Place::Gap) {
                    seen.insert(id);
                }
            }
        }
    }
}
