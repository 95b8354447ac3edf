// SPDX-License-Identifier: BSD-2-Clause
//! What both kinds of endpoint keep for their application: datagrams, events, one descriptor.

use crate::handler::{Handler, Source};
use crate::interrupt::{self, Attempts};
use crate::io::clock;
use crate::io::queue::{self, DeliveryQueue, EventQueue, Limits, Meta, PopError, Readiness};
use crate::io::queue::{Received, WaitError};
use crate::io::room::Room;
use crate::io::thread::Change;
use crate::proto::time::Time;
use crate::sync::Mutex;
use crate::{Error, Event, PathId, PeerId};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::time::Duration;

/// Events kept for an application that does not fetch them.
const MAX_EVENTS: usize = 1_024;

/// What is known of a received datagram, apart from its bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Arrival {
    /// Its length in bytes; an empty datagram has 0.
    pub len: usize,
    /// Who sent it: at a server the client; at a client 0, or the flow of an `mpserver`'s target.
    pub peer: PeerId,
    /// The path of its first copy, if it is known.
    pub path: Option<PathId>,
    /// When the first copy arrived, by [`clock`](crate::clock).
    pub time: Duration,
}

/// Where a received datagram goes.
pub trait Slot {
    /// Room for it.
    fn buffer(&mut self) -> &mut [u8];

    /// It is in the first [`len`](Arrival::len) bytes of the buffer.
    fn fill(&mut self, arrival: Arrival);
}

impl<S: Slot> queue::Slot for S {
    fn buffer(&mut self) -> &mut [u8] {
        Slot::buffer(self)
    }

    fn fill(&mut self, received: Received) {
        Slot::fill(self, Arrival::of(received));
    }
}

impl Arrival {
    fn of(Received { meta, len }: Received) -> Self {
        Arrival {
            len,
            peer: PeerId(meta.peer).with_flow(meta.flow),
            path: (meta.path != 0).then_some(PathId(meta.path)),
            time: Duration::from_micros(meta.arrival.as_micros()),
        }
    }
}

/// A received datagram in a buffer that is used again and again.
#[derive(Clone, Debug, Default)]
pub struct Datagram {
    /// Its bytes are the first [`len`](Self::len) of these; the rest is room.
    pub buffer: Vec<u8>,
    /// Its length in bytes.
    pub len: usize,
    /// Who sent it: at a server the client; at a client 0, or the flow of an `mpserver`'s target.
    pub peer: PeerId,
    /// The path of its first copy, if it is known.
    pub path: Option<PathId>,
    /// When the first copy arrived, by [`clock`](crate::clock).
    pub time: Duration,
}

impl Datagram {
    /// Room for datagrams of up to `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Datagram { buffer: vec![0; capacity], ..Datagram::default() }
    }

    /// The datagram.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Slot for Datagram {
    fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    fn fill(&mut self, Arrival { len, peer, path, time }: Arrival) {
        (self.len, self.peer, self.path, self.time) = (len, peer, path, time);
    }
}

/// Datagrams and events on their way to the application.
pub(crate) struct Inbox {
    readiness: Arc<Readiness>,
    datagrams: DeliveryQueue,
    events: EventQueue<Event>,
    /// Events from before the application first asked for one: until then they must not make the
    /// descriptor readable, or who never asks would spin.
    early: Mutex<Option<Early>>,
    /// Of the early ones, those that were dropped before the application first asked.
    early_dropped: AtomicU64,
    /// Something changed that `wait_ready` may wait for.
    change: Change,
    interrupts: AtomicU64,
    closed: AtomicBool,
    /// Those who wait to send.
    pub(crate) room: Room,
}

/// Events from before the application first asked for one. Who never asks misses none.
#[derive(Debug, Default)]
struct Early {
    events: VecDeque<Event>,
    dropped: u64,
}

impl Inbox {
    pub(crate) fn new(bytes: u64) -> Result<Arc<Inbox>, Error> {
        let readiness =
            Readiness::new().map_err(|source| Error::Io { op: "eventfd".to_owned(), source })?;
        let readiness = Arc::new(readiness);
        let limits = limits(bytes);
        Ok(Arc::new(Inbox {
            datagrams: DeliveryQueue::new(limits, readiness.clone()),
            events: EventQueue::new(MAX_EVENTS, readiness.clone()),
            readiness,
            early: Mutex::new(Some(Early::default())),
            early_dropped: AtomicU64::new(0),
            change: Change::default(),
            interrupts: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            room: Room::default(),
        }))
    }

    /// Puts an event where the application finds it.
    pub(crate) fn tell(&self, event: Event) {
        match &mut *self.early.lock() {
            Some(early) => {
                if early.events.len() == MAX_EVENTS {
                    early.events.pop_front();
                    early.dropped += 1;
                }
                early.events.push_back(event);
            }
            None => self.events.push(event),
        }
        self.change.tell();
    }

    pub(crate) fn next_event(&self, timeout: Option<Duration>) -> Result<Event, Error> {
        if let Some(early) = self.early.lock().take() {
            self.early_dropped.store(early.dropped, Relaxed);
            for event in early.events {
                self.events.push(event);
            }
        }
        self.events.pop(timeout).map_err(|error| match error {
            WaitError::TimedOut => timed_out(timeout),
            WaitError::Closed => Error::Closed,
            WaitError::Interrupted => Error::Interrupted,
        })
    }

    pub(crate) fn recv(
        &self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<Arrival, Error> {
        let capacity = buffer.len();
        let received = self.datagrams.pop(buffer, timeout);
        received.map(Arrival::of).map_err(|error| pop_error(error, capacity, timeout))
    }

    pub(crate) fn recv_batch<S: Slot>(
        &self,
        slots: &mut [S],
        timeout: Option<Duration>,
    ) -> Result<usize, Error> {
        let capacity = slots.first_mut().map_or(0, |slot| Slot::buffer(slot).len());
        self.datagrams
            .pop_batch(slots, timeout)
            .map_err(|error| pop_error(error, capacity, timeout))
    }

    /// Waits until `done` answers, asking again after each event.
    pub(crate) fn wait_until<T>(
        &self,
        timeout: Option<Duration>,
        mut done: impl FnMut() -> Option<Result<T, Error>>,
    ) -> Option<Result<T, Error>> {
        let begun = interrupt::begun(self.interrupts.load(Acquire));
        self.change.wait_until(timeout, || {
            let interrupted = self.interrupts.load(Acquire) != begun;
            let closed = self.closed.load(Relaxed);
            done()
                .or_else(|| closed.then_some(Err(Error::Closed)))
                .or_else(|| interrupted.then_some(Err(Error::Interrupted)))
        })
    }

    /// All counts of interruptions, here and in what this consists of, go up together.
    pub(crate) fn attempts(&self) -> Attempts {
        Attempts::new(self.interrupts.load(Acquire))
    }

    pub(crate) fn interrupt(&self) {
        self.datagrams.interrupt();
        self.events.interrupt();
        self.room.interrupt();
        // Last: what has begun after all of this is not interrupted by any of it.
        self.interrupts.fetch_add(1, AcqRel);
        self.change.tell();
    }

    /// Keeps at most so many bytes of datagrams from now on; those that are there stay.
    pub(crate) fn set_limit(&self, bytes: u64) {
        self.datagrams.set_limits(limits(bytes));
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
        self.room.close();
        self.datagrams.close();
        self.events.close();
        self.change.tell();
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.datagrams.dropped()
    }

    pub(crate) fn events_dropped(&self) -> u64 {
        self.events.dropped() + self.early_dropped.load(Relaxed)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.readiness.watch()
    }
}

fn limits(bytes: u64) -> Limits {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    // A datagram's record takes 40 bytes: many empty ones must be bounded as well.
    Limits { bytes, datagrams: (bytes / 64).max(16) }
}

fn timed_out(timeout: Option<Duration>) -> Error {
    match timeout {
        Some(Duration::ZERO) | None => Error::WouldBlock,
        Some(timeout) => Error::TimedOut(timeout),
    }
}

fn pop_error(error: PopError, capacity: usize, timeout: Option<Duration>) -> Error {
    match error {
        PopError::TimedOut => timed_out(timeout),
        PopError::TooSmall { len } => Error::BufferTooSmall { len, capacity },
        PopError::Closed => Error::Closed,
        PopError::Interrupted => Error::Interrupted,
    }
}

/// The handler behind `recv`: collects a batch without the queue's lock, then puts it there with
/// one lock and one wake-up.
pub(crate) struct QueueHandler {
    inbox: Arc<Inbox>,
    staged: Vec<(Meta, usize)>,
    bytes: Vec<u8>,
    /// When the batch began: its datagrams were taken from the kernel together.
    arrival: Option<Time>,
}

impl QueueHandler {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        QueueHandler { inbox, staged: Vec::new(), bytes: Vec::new(), arrival: None }
    }
}

impl Handler for QueueHandler {
    fn datagram(&mut self, source: &Source, bytes: &[u8]) {
        let meta = Meta {
            peer: source.peer.0,
            flow: source.flow,
            path: source.path.map_or(0, |path| path.0),
            arrival: *self.arrival.get_or_insert_with(clock::now),
        };
        self.staged.push((meta, bytes.len()));
        self.bytes.extend_from_slice(bytes);
    }

    fn batch_end(&mut self) {
        let mut writer = self.inbox.datagrams.writer();
        let mut rest = &self.bytes[..];
        for (meta, len) in self.staged.drain(..) {
            let (datagram, after) = rest.split_at(len);
            // Refused only if the queue is full, which it counts, or closed.
            writer.push(meta, datagram);
            rest = after;
        }
        drop(writer);
        self.bytes.clear();
        self.arrival = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_dropped_before_the_first_was_asked_for_are_counted_from_then_on() {
        let inbox = Inbox::new(1 << 16).unwrap();
        for number in 0..MAX_EVENTS as u64 + 3 {
            inbox.tell(Event::PeerUp(PeerId(number)));
        }
        assert_eq!(inbox.events_dropped(), 0);

        let first = inbox.next_event(Some(Duration::ZERO)).unwrap();

        assert_eq!((first, inbox.events_dropped()), (Event::PeerUp(PeerId(3)), 3));
    }

    #[test]
    fn an_interruption_between_two_attempts_ends_the_next_one_that_would_wait() {
        let inbox = Inbox::new(1 << 16).unwrap();
        let call = inbox.attempts();
        inbox.interrupt();

        let received = call.attempt(|| inbox.recv(&mut [0; 10], None));
        assert!(matches!(received, Err(Error::Interrupted)), "{received:?}");
        let event = call.attempt(|| inbox.next_event(None));
        assert!(matches!(event, Err(Error::Interrupted)), "{event:?}");
        let waited = call.attempt(|| inbox.wait_until::<()>(None, || None));
        assert!(matches!(waited, Some(Err(Error::Interrupted))), "{waited:?}");
        let mut sender = call.attempt(|| inbox.room.patience(inbox.room.begun(), None));
        let none: [BorrowedFd<'_>; 0] = [];
        assert!(matches!(sender.wait(&none), Err(Error::Interrupted)));

        // What begins later is not meant.
        let short = Some(Duration::from_millis(1));
        let later = inbox.recv(&mut [0; 10], short);
        assert!(matches!(later, Err(Error::TimedOut(_))), "{later:?}");
        let later = inbox.attempts().attempt(|| inbox.next_event(short));
        assert!(matches!(later, Err(Error::TimedOut(_))), "{later:?}");
    }
}
