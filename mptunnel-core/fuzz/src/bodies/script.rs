// SPDX-License-Identifier: BSD-2-Clause
//! Inputs as scripts, read with `arbitrary` and written by their counterparts.
//!
//! Every value is read from the front, in little-endian order, and is zero when nothing is left:
//! that is what `arbitrary` does with integers. Its derived structures take lengths from the other
//! end, and nothing can write them; a seed must be writable.

use arbitrary::Unstructured;

/// An input that is being read.
pub struct Script<'a>(Unstructured<'a>);

impl<'a> Script<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Script(Unstructured::new(data))
    }

    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub fn u16(&mut self) -> u16 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub fn u32(&mut self) -> u32 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub fn u64(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// A number below `end`, which is at most 256.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.u8()) % end
    }

    pub fn is(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// A number near one of the places where arithmetic goes wrong, or any.
    pub fn number(&mut self) -> u64 {
        let (near, by) = (self.u8(), self.u8());
        let base: u64 = match near % 8 {
            0 => 0,
            1 => 1 << 12,
            2 => 1 << 18,
            3 => 1 << 32,
            4 => 1 << 60,
            5 => u64::MAX - (1 << 22),
            6 => u64::MAX,
            _ => self.u64(),
        };
        base.wrapping_add_signed(i64::from(by.cast_signed()))
    }

    /// Up to `most` bytes, behind two that say how many.
    pub fn blob(&mut self, most: usize) -> &'a [u8] {
        let len = usize::from(self.u16()) % (most + 1);
        let len = len.min(self.0.len());
        self.0.bytes(len).unwrap_or_default()
    }

    /// Exactly so many, with zeros behind the end.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        // Fills with zeros by itself.
        let _ = self.0.fill_buffer(&mut out);
        out
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.0.take_rest()
    }
}

/// An input that is being written.
#[derive(Clone, Default)]
pub struct Seed(pub Vec<u8>);

impl Seed {
    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Any number, for [`Script::number`].
    pub fn number(self, value: u64) -> Self {
        self.u8(7).u8(0).u64(value)
    }

    pub fn blob(mut self, bytes: &[u8]) -> Self {
        self.0.extend((bytes.len() as u16).to_le_bytes());
        self.0.extend(bytes);
        self
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// `part` so many times, told which.
    pub fn times(self, count: usize, part: impl Fn(Self, usize) -> Self) -> Self {
        (0..count).fold(self, part)
    }
}
