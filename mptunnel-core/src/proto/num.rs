// SPDX-License-Identifier: BSD-2-Clause
//! The few conversions that lose precision or change a type, in one place and with their reasons.

use std::time::Duration;

/// `n` as a floating-point number, for estimates only. Above 2^53 the lowest bits are lost.
#[allow(clippy::as_conversions, reason = "rounding is what an estimate can bear")]
pub fn approximate(n: u64) -> f64 {
    n as f64
}

/// `x` without its fraction; 0 if it is negative or no number, the largest one if it is too large.
#[allow(clippy::as_conversions, reason = "a cast from floating point saturates")]
pub fn whole(x: f64) -> u64 {
    x as u64
}

/// [`approximate`] with seven digits, where memory counts.
#[allow(clippy::as_conversions, reason = "rounding is what an estimate can bear")]
pub fn rough(n: u64) -> f32 {
    n as f32
}

/// `duration` in whole microseconds, saturating at 584,000 years.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A length as a 64-bit counter's increment. No slice is longer than 2^64 bytes.
#[allow(clippy::as_conversions, reason = "usize has at most 64 bits on every supported target")]
pub const fn widen(n: usize) -> u64 {
    n as u64
}

/// The bit of path slot `slot` in a set of paths; slots above 31 do not exist and have no bit.
pub const fn path_bit(slot: u8) -> u32 {
    match 1u32.checked_shl(slot_shift(slot)) {
        Some(bit) => bit,
        None => 0,
    }
}

#[allow(clippy::as_conversions, reason = "widening u8 to u32; From is not const")]
const fn slot_shift(slot: u8) -> u32 {
    slot as u32
}
