// SPDX-License-Identifier: BSD-2-Clause
//! Random numbers that a seed repeats.

use std::ops::Range;

use crate::proto::entropy::Entropy;

/// A seeded generator: xoshiro256++, whose state SplitMix64 fills from the seed.
///
/// Both are by Blackman and Vigna (prng.di.unimi.it). The output is statistically sound and
/// *not* cryptographic: it makes decisions for simulations, and keys that protect nothing.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
    seed: u64,
}

impl Rng {
    /// A generator whose whole future is determined by `seed`; every seed is as good as another.
    pub fn new(seed: u64) -> Self {
        let mut counter = seed;
        let state = std::array::from_fn(|_| {
            counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(counter)
        });
        Rng { state, seed }
    }

    /// An independent generator for the purpose that `label` names.
    ///
    /// It depends on the seed of this one and on the label alone, not on how many numbers were
    /// drawn before: one more draw in one place does not change the decisions of another.
    pub fn fork(&self, label: &str) -> Rng {
        // FNV-1a, then mixed, because FNV alone leaves neighbouring labels close together.
        let offset = 0xcbf2_9ce4_8422_2325 ^ mix(self.seed);
        let hash = label.bytes().fold(offset, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Rng::new(mix(hash))
    }

    /// A uniform number out of all 2^64.
    pub fn u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let mut next = [a, b, c ^ a, d ^ b];
        next[1] ^= next[2];
        next[0] ^= next[3];
        next[2] ^= b << 17;
        next[3] = next[3].rotate_left(45);
        self.state = next;
        a.wrapping_add(d).rotate_left(23).wrapping_add(a)
    }

    /// A uniform number in [0, 1), with 53 random bits.
    pub fn f64(&mut self) -> f64 {
        (self.u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A uniform number in `range`, without bias.
    ///
    /// # Panics
    /// If the range is empty.
    pub fn range(&mut self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "a number is drawn from a range that has one");
        let span = range.end - range.start;
        // Of 2^64 numbers, the first 2^64 mod span would make some results likelier than others.
        let unfair = span.wrapping_neg() % span;
        loop {
            let drawn = self.u64();
            if drawn >= unfair {
                return range.start + drawn % span;
            }
        }
    }

    /// True with probability `p`: never for 0 (or less, or NaN), always for 1 (or more).
    ///
    /// Draws one number whatever `p` is, so that changing a probability keeps the rest in step.
    pub fn chance(&mut self, p: f64) -> bool {
        self.f64() < p
    }
}

impl Entropy for Rng {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// The output function of SplitMix64: a bijection in which each input bit moves half the output.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_is_that_of_xoshiro256_plus_plus() {
        let mut rng = Rng { state: [1, 2, 3, 4], seed: 0 };

        let drawn: Vec<u64> = (0..6).map(|_| rng.u64()).collect();

        // The known answers for this state.
        assert_eq!(
            drawn,
            [
                41_943_041,
                58_720_359,
                3_588_806_011_781_223,
                3_591_011_842_654_386,
                9_228_616_714_210_784_205,
                9_973_669_472_204_895_162,
            ]
        );
    }

    #[test]
    fn the_seed_is_spread_by_splitmix64() {
        assert_eq!(
            Rng::new(1_234_567).state,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
            ]
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_seed_gives_others() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            (0..32).map(|_| rng.u64()).collect::<Vec<_>>()
        };

        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_fork_depends_on_seed_and_label_but_not_on_what_was_drawn() {
        let parent = Rng::new(1);
        let mut drained = parent.clone();
        drained.u64();

        let first = |rng: &Rng, label| rng.fork(label).u64();

        assert_eq!(first(&parent, "loss"), first(&drained, "loss"));
        assert_ne!(first(&parent, "loss"), first(&parent, "delay"));
        assert_ne!(first(&parent, "loss"), first(&Rng::new(2), "loss"));
        assert_ne!(parent.fork("a").fork("b").u64(), first(&parent, "ab"));
        assert_ne!(first(&parent, ""), parent.clone().u64());
    }

    #[test]
    fn a_range_is_covered_evenly_and_never_left() {
        let mut rng = Rng::new(3);
        let mut hits = [0_u32; 6];

        for _ in 0..60_000 {
            hits[usize::try_from(rng.range(10..16)).unwrap() - 10] += 1;
        }

        // 10,000 expected each, σ = 91.
        assert!(hits.iter().all(|n| (9_500..10_500).contains(n)), "{hits:?}");
        assert_eq!(rng.range(5..6), 5);
        assert!((0..100).all(|_| rng.range(u64::MAX - 2..u64::MAX) >= u64::MAX - 2));
    }

    #[test]
    fn a_chance_of_zero_never_comes_and_one_of_one_always() {
        let mut rng = Rng::new(4);

        assert!((0..10_000).all(|_| !rng.chance(0.0) && rng.chance(1.0) && !rng.chance(f64::NAN)));
        let hits = (0..100_000).filter(|_| rng.chance(0.3)).count();
        // σ = 145.
        assert!((29_300..30_700).contains(&hits), "{hits}");
    }

    #[test]
    fn fill_reaches_every_byte_of_every_length() {
        for len in 0..40 {
            let mut ever_set = vec![0_u8; len];
            let mut rng = Rng::new(len as u64);
            for _ in 0..32 {
                let mut bytes = vec![0_u8; len];
                rng.fill(&mut bytes);
                ever_set.iter_mut().zip(&bytes).for_each(|(seen, byte)| *seen |= byte);
            }
            assert!(ever_set.iter().all(|&byte| byte == 0xff), "length {len}");
        }
    }
}
