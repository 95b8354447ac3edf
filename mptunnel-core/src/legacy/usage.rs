// SPDX-License-Identifier: BSD-2-Clause
//! What passed over one path, counted by those who send and by the one who receives.

use crate::proto::route::PathCounts;
use crate::proto::time::Time;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of one path, or of one source at a server, for any number of threads.
#[derive(Debug, Default)]
pub struct Usage {
    /// When something was sent last, in microseconds; 0 = never.
    sent_at: AtomicU64,
    heard_at: AtomicU64,
    tx_pkts: AtomicU64,
    tx_bytes: AtomicU64,
    tx_dropped: AtomicU64,
    rx_pkts: AtomicU64,
    rx_bytes: AtomicU64,
    rx_dups: AtomicU64,
}

impl Usage {
    /// So many datagrams of so many bytes together were sent, and so many were not taken.
    pub fn on_sent(&self, now: Time, packets: u64, bytes: u64, dropped: u64) {
        if packets > 0 {
            self.sent_at.fetch_max(now.as_micros(), Relaxed);
            self.tx_pkts.fetch_add(packets, Relaxed);
            self.tx_bytes.fetch_add(bytes, Relaxed);
        }
        if dropped > 0 {
            self.tx_dropped.fetch_add(dropped, Relaxed);
        }
    }

    /// One sound datagram of so many bytes came in.
    pub fn on_heard(&self, now: Time, bytes: u64, is_copy: bool) {
        // There is one receiver: no other thread writes these.
        let add = |counter: &AtomicU64, more: u64| {
            counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
        };
        self.heard_at.store(now.as_micros(), Relaxed);
        add(&self.rx_pkts, 1);
        add(&self.rx_bytes, bytes);
        add(&self.rx_dups, is_copy.into());
    }

    /// When something was sent last.
    pub fn sent_at(&self) -> Option<Time> {
        Self::time(&self.sent_at)
    }

    /// When something sound came last.
    pub fn heard_at(&self) -> Option<Time> {
        Self::time(&self.heard_at)
    }

    /// All counters.
    pub fn counts(&self) -> PathCounts {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        PathCounts {
            tx_pkts: get(&self.tx_pkts),
            tx_bytes: get(&self.tx_bytes),
            tx_dropped: get(&self.tx_dropped),
            rx_pkts: get(&self.rx_pkts),
            rx_bytes: get(&self.rx_bytes),
            rx_dups: get(&self.rx_dups),
        }
    }

    fn time(at: &AtomicU64) -> Option<Time> {
        match at.load(Relaxed) {
            0 => None,
            us => Some(Time::from_micros(us)),
        }
    }
}
