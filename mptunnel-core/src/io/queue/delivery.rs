// SPDX-License-Identifier: BSD-2-Clause
//! Datagrams on their way to the application.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::monitor::{Access, Monitor, Queue, WaitError};
use super::readiness::Readiness;
use crate::proto::time::Time;

/// The datagrams that arrived and that nobody took yet, in order of arrival.
///
/// They lie one behind the other in a ring of bytes that grows as needed, up to its limit, so in
/// the steady state nothing is allocated. When it is full, what arrives is dropped: the oldest are
/// those that the application is about to take.
///
/// All methods may be called by any thread at any time.
#[derive(Debug)]
pub(crate) struct DeliveryQueue {
    monitor: Monitor<Ring>,
}

/// The most that a queue holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of all datagrams together.
    pub(crate) bytes: usize,
    /// Datagrams, which also bounds those without bytes. Each takes 40 bytes more.
    pub(crate) datagrams: usize,
}

/// Where a datagram came from, and when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Meta {
    pub(crate) peer: u64,
    pub(crate) flow: u16,
    /// The path of the copy that arrived first.
    pub(crate) path: u32,
    /// When that one arrived.
    pub(crate) arrival: Time,
}

/// A datagram that was taken: its bytes are in the caller's buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Received {
    pub(crate) meta: Meta,
    /// Bytes; 0 for an empty datagram.
    pub(crate) len: usize,
}

/// Why no datagram was taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PopError {
    /// Nothing arrived within the timeout.
    TimedOut,
    /// The next datagram has `len` bytes, more than the buffer. It stays the next one.
    TooSmall { len: usize },
    /// The queue is closed and empty.
    Closed,
    /// [`DeliveryQueue::interrupt`] was called during the wait.
    Interrupted,
}

impl From<WaitError> for PopError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TimedOut => PopError::TimedOut,
            WaitError::Closed => PopError::Closed,
            WaitError::Interrupted => PopError::Interrupted,
        }
    }
}

/// One element of a batch to be taken.
pub(crate) trait Slot {
    /// Where the datagram goes.
    fn buffer(&mut self) -> &mut [u8];

    /// It is there.
    fn fill(&mut self, received: Received);
}

impl DeliveryQueue {
    /// An empty queue, whose state shows in `readiness`.
    pub(crate) fn new(limits: Limits, readiness: Arc<Readiness>) -> Self {
        DeliveryQueue { monitor: Monitor::new(Ring::new(limits), readiness) }
    }

    /// Locks the queue for a batch. Dropping the writer ends the batch and wakes who waits.
    pub(crate) fn writer(&self) -> Writer<'_> {
        Writer { access: self.monitor.access() }
    }

    /// Takes the next datagram into `buffer`. `None` waits for ever, zero not at all.
    ///
    /// # Errors
    /// See [`PopError`]. Nothing is lost by any of them.
    pub(crate) fn pop(
        &self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<Received, PopError> {
        self.monitor.take(timeout, |ring| ring.pop(buffer))?
    }

    /// Waits for the next datagram like [`pop`](Self::pop), and takes up to as many as there are
    /// `slots` without waiting again. Returns how many: at least 1, unless `slots` is empty.
    ///
    /// # Errors
    /// As for [`pop`](Self::pop). A datagram that does not fit its slot ends the batch, and is an
    /// error only if it is the first.
    pub(crate) fn pop_batch<S: Slot>(
        &self,
        slots: &mut [S],
        timeout: Option<Duration>,
    ) -> Result<usize, PopError> {
        if slots.is_empty() {
            return Ok(0);
        }
        self.monitor.take(timeout, |ring| {
            let mut filled = 0;
            for slot in slots {
                if ring.is_empty() {
                    break;
                }
                match ring.pop(slot.buffer()) {
                    Ok(received) => slot.fill(received),
                    Err(error) if filled == 0 => return Err(error),
                    Err(_) => break,
                }
                filled += 1;
            }
            Ok(filled)
        })?
    }

    /// Holds at most this from now on. What is there stays.
    pub(crate) fn set_limits(&self, limits: Limits) {
        self.monitor.access().limits = limits;
    }

    /// How many datagrams did not fit the queue.
    pub(crate) fn dropped(&self) -> u64 {
        self.monitor.access().dropped
    }

    /// Takes no more datagrams, and answers [`PopError::Closed`] once those that are there were
    /// taken.
    pub(crate) fn close(&self) {
        self.monitor.close();
    }

    /// Makes every thread that waits at present return, with [`PopError::Interrupted`] unless a
    /// datagram came at the same moment.
    pub(crate) fn interrupt(&self) {
        self.monitor.interrupt();
    }

    /// How many threads wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.monitor.waiting()
    }
}

/// Puts a batch of datagrams to a [`DeliveryQueue`], which is locked meanwhile.
pub(crate) struct Writer<'a> {
    access: Access<'a, Ring>,
}

impl Writer<'_> {
    /// Puts one datagram to the end, and says whether it was accepted: not if the queue is full,
    /// which is counted, or closed.
    pub(crate) fn push(&mut self, meta: Meta, bytes: &[u8]) -> bool {
        let accepted = !self.access.is_closed() && self.access.push(meta, bytes);
        if accepted {
            self.access.added();
        }
        accepted
    }
}

#[derive(Debug)]
struct Ring {
    records: VecDeque<Received>,
    /// The bytes of all records, one behind the other.
    bytes: VecDeque<u8>,
    limits: Limits,
    dropped: u64,
}

impl Queue for Ring {
    fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

impl Ring {
    fn new(limits: Limits) -> Self {
        Ring { records: VecDeque::new(), bytes: VecDeque::new(), limits, dropped: 0 }
    }

    fn push(&mut self, meta: Meta, bytes: &[u8]) -> bool {
        let needed = self.bytes.len() + bytes.len();
        if needed > self.limits.bytes || self.records.len() >= self.limits.datagrams {
            self.dropped += 1;
            return false;
        }
        if needed > self.bytes.capacity() {
            let doubled = (self.bytes.capacity() * 2).max(FIRST_CAPACITY);
            let capacity = doubled.min(self.limits.bytes).max(needed);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend(bytes);
        self.records.push_back(Received { meta, len: bytes.len() });
        true
    }

    /// Takes the first datagram; there is one.
    fn pop(&mut self, buffer: &mut [u8]) -> Result<Received, PopError> {
        let next = *self.records.front().expect("somebody takes only what is there");
        let Some(buffer) = buffer.get_mut(..next.len) else {
            return Err(PopError::TooSmall { len: next.len });
        };
        let (front, back) = self.bytes.as_slices();
        let split = front.len().min(next.len);
        buffer[..split].copy_from_slice(&front[..split]);
        buffer[split..].copy_from_slice(&back[..next.len - split]);

        self.records.pop_front();
        if self.records.is_empty() {
            // Begins at the start again, so that a queue that is mostly short stays in the cache.
            self.bytes.clear();
        } else {
            self.bytes.drain(..next.len);
        }
        Ok(next)
    }
}

/// Bytes to begin with: a good number of datagrams, and one of any size.
const FIRST_CAPACITY: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_grows_to_what_is_needed_and_never_beyond_the_limit() {
        let limits = Limits { bytes: 300_000, datagrams: 10_000 };
        let meta = Meta { peer: 0, flow: 0, path: 0, arrival: Time::from_micros(0) };
        let mut ring = Ring::new(limits);
        assert_eq!(ring.bytes.capacity(), 0);

        assert!(ring.push(meta, &[0; 1000]));
        assert_eq!(ring.bytes.capacity(), FIRST_CAPACITY);

        while ring.push(meta, &[0; 1000]) {}
        assert_eq!((ring.records.len(), ring.dropped), (300, 1));
        assert_eq!(ring.bytes.capacity(), limits.bytes);

        let records = ring.records.capacity();
        for _ in 0..10_000 {
            ring.pop(&mut [0; 1000]).unwrap();
            assert!(ring.push(meta, &[0; 1000]));
        }
        assert_eq!((ring.bytes.capacity(), ring.records.capacity()), (limits.bytes, records));
    }
}
