// SPDX-License-Identifier: BSD-2-Clause
//! Randomness as an argument: the operating system's in production, a seed's in the simulator.

use std::time::Duration;

/// A source of cryptographically secure random bytes.
///
/// In production this is the operating system and is asked anew each time, so that a later look
/// into memory does not reveal earlier ephemeral keys. In the simulator it is a seeded generator,
/// so that the same seed gives the same bytes on the wire.
pub trait Entropy: Send {
    /// Fills `out` completely.
    ///
    /// # Panics
    /// If the source fails. There is no fallback; the panic is caught at the edge of the thread
    /// and marks the endpoint as failed.
    fn fill(&mut self, out: &mut [u8]);

    /// A uniformly random array.
    fn bytes<const N: usize>(&mut self) -> [u8; N]
    where
        Self: Sized,
    {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }
}

/// A random 32-bit number.
pub fn random_u32(entropy: &mut dyn Entropy) -> u32 {
    let mut bytes = [0; 4];
    entropy.fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

/// A random 64-bit number.
pub fn random_u64(entropy: &mut dyn Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// `base` moved by a uniformly random amount of at most ±10 %, so that clients that start together
/// do not stay in step.
pub fn jittered(base: Duration, entropy: &mut dyn Entropy) -> Duration {
    let spread = f64::from(random_u32(entropy)) / f64::from(u32::MAX);
    base.mul_f64(0.9 + 0.2 * spread)
}
