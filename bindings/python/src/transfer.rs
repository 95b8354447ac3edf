// SPDX-License-Identifier: BSD-2-Clause
//! Datagrams to and from an endpoint: what a sender wishes, and batches.

use crate::arguments::{Batch, Deadline, PathArgument, Payload, Timeout};
use crate::endpoint::{Core, Endpoint, MAX_DATAGRAM, Pace};
use crate::errors::exception;
use mptunnel_core::{Arrival, Error, PathId, PeerId, SendOptions, Slot};
use pyo3::prelude::*;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Bytes. A batch of more takes so long to encrypt and send that other threads run meanwhile:
/// about 20 µs, where letting them run costs less than one.
const LONG_BATCH: usize = 32 << 10;

/// What the caller of a `send` wishes.
pub(crate) struct Wishes {
    options: SendOptions,
    timeout: Timeout,
}

impl Wishes {
    pub(crate) fn new(
        copies: u8,
        path: Option<PathArgument>,
        deadline: Option<Deadline>,
        timeout: Timeout,
    ) -> Self {
        let mut options = SendOptions::new().copies(copies);
        options.path = path.map(|path| PathId(path.0));
        options.deadline = deadline.map(|deadline| deadline.0);
        Wishes { options, timeout }
    }

    /// How long to wait for room.
    fn limit<C: Core>(&self, endpoint: &Endpoint<C>) -> Option<Duration> {
        match (self.timeout.or(endpoint.timeout()), self.options.deadline) {
            (Some(timeout), Some(deadline)) => Some(timeout.min(deadline)),
            (timeout, deadline) => timeout.or(deadline),
        }
    }

    /// Sends one datagram with `send`.
    pub(crate) fn send<C: Core>(
        &self,
        endpoint: &Endpoint<C>,
        py: Python<'_>,
        send: impl Fn(&C, &SendOptions) -> Result<(), Error> + Send + Sync,
    ) -> PyResult<()> {
        let options = self.options;
        let limit = Timeout::of(self.limit(endpoint));
        endpoint.wait(py, limit, |core, bound| send(core, &options.timeout(bound)))
    }

    /// Sends datagrams with `send`, which answers how many of them were taken. Returns how many
    /// were in all.
    ///
    /// # Errors
    /// If the first of them was not taken.
    pub(crate) fn send_all<C: Core>(
        &self,
        endpoint: &Endpoint<C>,
        py: Python<'_>,
        Batch(batch): &Batch,
        send: impl Fn(&C, &[Payload], &SendOptions) -> Result<usize, Error> + Send + Sync,
    ) -> PyResult<usize> {
        let options = self.options;
        let limit = self.limit(endpoint);
        let begin = Instant::now();
        let bytes: usize = batch.iter().map(|payload| payload.bytes().len()).sum();
        let pace = if bytes < LONG_BATCH { Pace::Quick } else { Pace::Long };
        let mut sent = 0;
        while sent < batch.len() {
            let left = limit.map(|limit| limit.saturating_sub(begin.elapsed()));
            let rest = &batch[sent..];
            let outcome = endpoint.try_wait(py, pace, Timeout::of(left), |core, bound| {
                send(core, rest, &options.timeout(bound))
            });
            match outcome {
                Ok(Ok(count)) => sent += count,
                // Of what was taken the caller has to know, so the rest is left to the next call,
                // and so is its error.
                _ if sent > 0 => break,
                Ok(Err(error)) => return Err(exception(py, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }
}

/// Room for a batch of datagrams. It is reserved, but becomes resident only where some were.
#[derive(Default)]
pub(crate) struct Slots(Vec<Received>);

/// Room for one datagram of any size.
pub(crate) struct Received {
    buffer: Vec<u8>,
    arrival: Option<Arrival>,
}

impl Received {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.arrival.map_or(0, |arrival| arrival.len)]
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.arrival.map_or_else(PeerId::default, |arrival| arrival.peer)
    }
}

impl Slot for Received {
    fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    fn fill(&mut self, arrival: Arrival) {
        self.arrival = Some(arrival);
    }
}

/// Datagrams taken from the queue of the library at once.
const SLOTS: usize = 64;

impl Slots {
    /// Waits for a datagram, and takes up to `max_count` of those that are there with `receive`.
    pub(crate) fn receive<C: Core>(
        endpoint: &Endpoint<C>,
        py: Python<'_>,
        max_count: usize,
        timeout: Timeout,
        receive: impl Fn(&C, &mut [Received], Option<Duration>) -> Result<usize, Error> + Send + Sync,
        mut take: impl FnMut(&Received) -> PyResult<()>,
    ) -> PyResult<()> {
        thread_local! {
            static SLOTS_OF_THREAD: RefCell<Slots> = RefCell::default();
        }
        // Taken out meanwhile: a signal handler of Python may call in again during a wait.
        let Slots(mut slots) = SLOTS_OF_THREAD.take();
        let mut left = max_count;
        let mut run = || {
            let mut timeout = timeout;
            while left > 0 {
                let wanted = left.min(SLOTS);
                while slots.len() < wanted {
                    slots.push(Received { buffer: vec![0; MAX_DATAGRAM], arrival: None });
                }
                let room = &mut slots[..wanted];
                let outcome = endpoint.wait(py, timeout, |core, bound| receive(core, room, bound));
                let count = match outcome {
                    Ok(count) => count,
                    // What was taken before must not be lost; an error comes with the next call.
                    Err(_) if left < max_count => return Ok(()),
                    Err(error) => return Err(error),
                };
                slots[..count].iter().try_for_each(&mut take)?;
                left -= count;
                if count < wanted {
                    return Ok(());
                }
                timeout = Timeout::After(Duration::ZERO);
            }
            Ok(())
        };
        let result = run();
        SLOTS_OF_THREAD.replace(Slots(slots));
        result
    }
}
