// SPDX-License-Identifier: BSD-2-Clause
//! The classic obfuscation: a keystream whose seed travels in clear.
//!
//! It hides text from a casual glance and protects nothing, because everybody who sees a datagram
//! has what it takes to undo it. The generator is a shift register of 32 bits with the polynomial
//! x^32 + x^30 + x^26 + x^25 + 1; a key byte is its state after 32 shifts, modulo 255.

/// The key bytes that follow a seed.
///
/// Thirty-two shifts are a linear function of the state, so that they are four look-ups, one for
/// each byte. A second set of tables goes four key bytes ahead: four chains that do not wait for
/// each other keep the processor busy where one would not.
#[derive(Clone, Debug)]
pub struct Keystream {
    state: u32,
}

impl Keystream {
    /// The keystream of a seed. That of 0 is all zero.
    pub const fn new(iv: u32) -> Self {
        Keystream { state: iv }
    }

    /// Adds the next key bytes to `bytes`, which hides them or brings them back.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        if self.state == 0 {
            return;
        }
        let (quads, rest) = bytes.as_chunks_mut::<4>();
        let first = step(&ONE, self.state);
        let second = step(&ONE, first);
        let third = step(&ONE, second);
        let mut lanes = [first, second, third, step(&ONE, third)];
        for quad in quads {
            [.., self.state] = lanes;
            for (byte, lane) in quad.iter_mut().zip(&mut lanes) {
                *byte ^= key(*lane);
                *lane = step(&FOUR, *lane);
            }
        }
        for (byte, lane) in rest.iter_mut().zip(lanes) {
            *byte ^= key(lane);
            self.state = lane;
        }
    }

    /// As [`apply`](Self::apply), shift by shift as the classic programs do it: for comparison.
    pub fn apply_bit_by_bit(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.state = shifted(self.state);
            *byte ^= key(self.state);
        }
    }
}

/// For each byte of a state, what becomes of each of its values.
type Table = [[u32; 256]; 4];

/// One key byte further.
static ONE: Table = table(1);
/// Four key bytes further.
static FOUR: Table = table(4);

#[inline]
#[allow(clippy::indexing_slicing, reason = "a byte is always the number of an entry of 256")]
fn step(table: &Table, state: u32) -> u32 {
    let [a, b, c, d] = state.to_le_bytes();
    table[0][usize::from(a)]
        ^ table[1][usize::from(b)]
        ^ table[2][usize::from(c)]
        ^ table[3][usize::from(d)]
}

#[inline]
#[allow(clippy::as_conversions, reason = "a remainder below 255 fits a byte")]
const fn key(state: u32) -> u8 {
    (state % 255) as u8
}

const fn shifted(mut state: u32) -> u32 {
    let mut left = 32u32;
    while left > 0 {
        let bit = (state ^ state >> 2 ^ state >> 6 ^ state >> 7) & 1;
        state = state >> 1 | bit << 31;
        left = left.saturating_sub(1);
    }
    state
}

#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "evaluated by the compiler, to which a fault in here is an error"
)]
const fn table(steps: u32) -> Table {
    let mut table = [[0; 256]; 4];
    let mut part = 0;
    while part < 4 {
        let mut value = 1usize;
        while value < 256 {
            let rest = value & (value - 1);
            table[part][value] = if rest == 0 {
                let mut state = (value as u32) << (8 * part);
                let mut step = 0;
                while step < steps {
                    state = shifted(state);
                    step += 1;
                }
                state
            } else {
                // Linear: the sum of what becomes of its bits.
                table[part][rest] ^ table[part][value ^ rest]
            };
            value += 1;
        }
        part += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_tables_are_those_of_the_shift_register() {
        let checks = [(0x4600_0001, 0x0c00_00c2), (0x1400_0146, 0x0c00_c2c2)];
        let checks = [checks, [(0x0001_4600, 0x00c2_c200), (0x0146_0000, 0xc2c2_0000)]].concat();
        for (part, (one, all)) in checks.into_iter().enumerate() {
            assert_eq!((ONE[part][1], ONE[part][255]), (one, all), "part {part}");
        }
        assert_eq!(ONE[3][128], 0xa300_0000);
    }

    #[test]
    fn the_first_states_of_a_seed_are_the_known_ones() {
        let mut state = 0x6b8b_4567;
        for expected in [0xf610_afa1, 0x39a0_e7a8, 0x9d5d_1c13] {
            state = step(&ONE, state);
            assert_eq!(state, expected);
        }
    }

    #[test]
    fn a_seed_of_zero_changes_nothing() {
        let mut bytes = *b"as it is";
        Keystream::new(0).apply(&mut bytes);
        assert_eq!(&bytes, b"as it is");
    }

    proptest! {
        #[test]
        fn tables_and_shifts_agree_however_the_bytes_are_cut(
            iv: u32, pieces in proptest::collection::vec(0usize..70, 0..6),
        ) {
            let (mut fast, mut slow) = (Keystream::new(iv), Keystream::new(iv));
            for piece in pieces {
                let (mut a, mut b) = (vec![0x5a; piece], vec![0x5a; piece]);
                fast.apply(&mut a);
                slow.apply_bit_by_bit(&mut b);
                prop_assert_eq!(a, b);
                prop_assert_eq!(fast.state, slow.state);
            }
        }
    }
}
