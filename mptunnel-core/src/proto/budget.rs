// SPDX-License-Identifier: BSD-2-Clause
//! Memory that all sessions of an endpoint share: their windows, their unfinished datagrams.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A limit on the memory of one kind of all sessions of an endpoint together. Beyond it no window
/// grows and no session holds more pieces of datagrams; what exists goes on.
///
/// Shared by `Arc`. The counters are exact; they order nothing else, so relaxed access is enough.
pub struct MemoryBudget {
    limit: usize,
    used: AtomicUsize,
    refused: AtomicU64,
}

impl MemoryBudget {
    /// Bytes. The default limit of either kind (PROTOCOL.md, "Limits").
    pub const DEFAULT: usize = 64 * 1024 * 1024;

    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        MemoryBudget { limit, used: AtomicUsize::new(0), refused: AtomicU64::new(0) }
    }

    /// Bytes in use now. It exceeds the limit only if the smallest windows alone do.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How often somebody did not get what he asked for.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes `bytes` if they fit under the limit.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// Takes `bytes` even beyond the limit: a session cannot be without a window.
    pub(super) fn force(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives `bytes` back.
    pub(super) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts somebody who did not get what he asked for.
    pub(super) fn count_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}
