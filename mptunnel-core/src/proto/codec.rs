// SPDX-License-Identifier: BSD-2-Clause
//! Reading and writing fixed layouts without an index that could be wrong. All little-endian.

/// Takes fields off the front of a slice; `None` once it is too short.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    /// Passes over `n` bytes.
    pub fn skip(&mut self, n: usize) -> Option<()> {
        self.take(n).map(|_| ())
    }

    /// The next byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    /// The next 16-bit number.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next 32-bit number.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next 64-bit number.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Appends fields to a buffer of `N` zero bytes; what is not written stays zero. Bytes beyond the
/// end are dropped: every layout is checked by a vector, so that cannot pass unseen.
pub struct Writer<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Writer<N> {
    /// An empty buffer.
    pub fn new() -> Self {
        Writer { bytes: [0; N], at: 0 }
    }

    /// Appends `field` and returns the writer, so that a layout reads as one expression.
    pub fn put(mut self, field: &[u8]) -> Self {
        let end = self.at.saturating_add(field.len());
        if let Some(room) = self.bytes.get_mut(self.at..end) {
            room.copy_from_slice(field);
            self.at = end;
        }
        self
    }

    /// Leaves `n` zero bytes.
    pub fn zeros(mut self, n: usize) -> Self {
        self.at = self.at.saturating_add(n).min(N);
        self
    }

    /// The whole buffer.
    pub fn done(self) -> [u8; N] {
        self.bytes
    }
}
