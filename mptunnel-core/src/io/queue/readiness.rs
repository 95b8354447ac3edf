// SPDX-License-Identifier: BSD-2-Clause
//! One descriptor for all queues of an endpoint.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::sync::Mutex;

use crate::io::wake::EventFd;

/// A descriptor that is readable exactly while at least one of its queues has something to take, or
/// is closed, so that taking would not block. Level-triggered.
///
/// Nobody may read from it or write to it but this type. Keeping it up to date costs no system call
/// before somebody asked for it.
#[derive(Debug)]
pub(crate) struct Readiness {
    event: EventFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// One bit for each queue with something to take.
    ready: u32,
    /// How many queues have a bit.
    queues: u32,
    /// Whether anybody has the descriptor.
    watched: bool,
}

impl Readiness {
    /// Makes the descriptor.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE` when descriptors have run out, `ENOMEM`.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Readiness { event: EventFd::new()?, state: Mutex::default() })
    }

    /// The descriptor to wait for.
    pub(crate) fn watch(&self) -> BorrowedFd<'_> {
        let mut state = self.state.lock();
        if !state.watched {
            state.watched = true;
            if state.ready != 0 {
                self.event.set();
            }
        }
        self.event.as_fd()
    }

    /// A bit for one more queue.
    ///
    /// # Panics
    /// At the 33rd.
    pub(super) fn register(&self) -> u32 {
        let mut state = self.state.lock();
        let bit = 1u32.checked_shl(state.queues).expect("an endpoint has a few queues");
        state.queues += 1;
        bit
    }

    /// Notes that the queue with `bit` has something to take now, or nothing any more. The caller
    /// holds that queue's lock, so that the changes of one queue come in order.
    pub(super) fn set(&self, bit: u32, ready: bool) {
        let mut state = self.state.lock();
        let before = state.ready;
        state.ready = if ready { before | bit } else { before & !bit };
        let changed = (before == 0) != (state.ready == 0);
        if changed && state.watched {
            if ready {
                self.event.set();
            } else {
                self.event.clear();
            }
        }
    }
}
