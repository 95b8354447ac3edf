// SPDX-License-Identifier: BSD-2-Clause
//! Randomness from the operating system.

use std::io;

use crate::proto::entropy::Entropy;

/// The operating system's generator (`getrandom(2)`), asked anew for every byte.
///
/// Nothing is kept in the process, so neither a later look into its memory nor a `fork` repeats
/// what was handed out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OsEntropy;

impl OsEntropy {
    /// Draws once, so that a system without a generator is an error of `open` and not a panic
    /// later. After the first success the generator does not fail any more.
    pub(crate) fn check() -> Result<(), io::Error> {
        fill(&mut [0; 32])
    }
}

impl Entropy for OsEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        if let Err(error) = fill(out) {
            panic!("the system's random generator worked when the endpoint was opened: {error}");
        }
    }
}

fn fill(out: &mut [u8]) -> Result<(), io::Error> {
    getrandom::fill(out).map_err(|error| match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_draw_is_complete_and_different() {
        OsEntropy::check().unwrap();
        let (mut first, mut second) = ([0; 64], [0; 64]);

        OsEntropy.fill(&mut first);
        OsEntropy.fill(&mut second);

        assert_ne!(first, second);
        // 16 zero bytes in a row at either end: a chance of 2^-127, or bytes left out.
        assert_ne!(first[..16], [0; 16]);
        assert_ne!(first[48..], [0; 16]);
    }
}
