// SPDX-License-Identifier: BSD-2-Clause
//! Taking delivery on the receive thread, batch by batch.

use crate::inbox::{Inbox, QueueHandler};
use crate::{Error, PathId, PeerId};
use std::sync::Arc;

/// Where a datagram came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Source {
    /// Which client; 0 at a client, whose one peer is its server.
    pub peer: PeerId,
    /// Which process of that client, counted from 0: flow numbers of different ones have nothing
    /// to do with each other.
    pub epoch: u32,
    /// Which application.
    pub flow: u16,
    /// At a client: the path that brought the first copy, if it is known.
    pub path: Option<PathId>,
    /// A newer process of the same client has taken over: this is a late arrival.
    pub superseded: bool,
}

/// Takes datagrams on the thread that received them, without a queue and without waking anybody.
///
/// Meant for relays: the calls come one after the other from one thread, and all paths wait while
/// one runs. So it must not block.
pub trait Handler: Send {
    /// One datagram. `bytes` are in the receive buffer and gone after the call.
    fn datagram(&mut self, source: &Source, bytes: &[u8]);

    /// No more datagrams for now: what was collected should be passed on.
    fn batch_end(&mut self) {}
}

/// Who takes delivery on the receive threads of a server.
#[derive(Default)]
pub(crate) enum Delivery {
    /// The queue behind `recv`.
    #[default]
    Queue,
    /// One handler, for one thread.
    One(Box<dyn Handler>),
    /// A handler for each thread.
    Each(Box<dyn FnMut() -> Box<dyn Handler>>),
}

impl Delivery {
    /// The handlers of `threads` threads.
    pub(crate) fn handlers(
        self,
        threads: u8,
        inbox: &Arc<Inbox>,
    ) -> Result<Vec<Box<dyn Handler>>, Error> {
        let mut make: Box<dyn FnMut() -> Box<dyn Handler>> = match self {
            Delivery::One(handler) if threads <= 1 => return Ok(vec![handler]),
            Delivery::One(_) => {
                return Err(Error::Config(format!(
                    "threads = {threads}, but one handler serves one thread: give the builder \
                     `handlers` in place of `handler`, or leave threads at 1"
                )));
            }
            Delivery::Queue => Box::new(|| Box::new(QueueHandler::new(inbox.clone()))),
            Delivery::Each(make) => make,
        };
        Ok((0..threads).map(|_| make()).collect())
    }
}
