// SPDX-License-Identifier: BSD-2-Clause
//! Between the data plane and the handler of one receive thread: order, for who asked for it.

use super::clock;
use crate::handler::{Handler, Source};
use crate::proto::dataplane::DataPlane;
use crate::proto::reorder::{Place, Reorder};
use crate::proto::session::Session;
use crate::proto::time::Time;
use std::time::Duration;

/// Hands datagrams to a handler: as they come, or in the order of their flows.
pub(crate) struct Delivery<'a> {
    handler: &'a mut dyn Handler,
    order: Option<Reorder<Source>>,
    plane: &'a DataPlane,
}

impl<'a> Delivery<'a> {
    /// Lets datagrams wait for `hold` at most; zero: none waits.
    pub(crate) fn new(handler: &'a mut dyn Handler, plane: &'a DataPlane, hold: Duration) -> Self {
        Delivery { handler, order: (!hold.is_zero()).then(|| Reorder::new(hold)), plane }
    }

    /// One datagram, with the number and the mark that it had under `session`.
    pub(crate) fn datagram(
        &mut self,
        now: Time,
        session: &Session,
        (number, mark): (u64, u16),
        source: Source,
        bytes: &[u8],
    ) {
        let handler = &mut *self.handler;
        let Some(order) = &mut self.order else { return handler.datagram(&source, bytes) };
        let (peer, flow, era) = (source.peer.0, source.flow, session.era());
        let place = Place { peer, flow, era, number, mark };
        let mut out = |source, bytes: &[u8]| handler.datagram(&source, bytes);
        order.take(now, place, source, bytes, &mut out);
    }

    /// No more datagrams for now.
    pub(crate) fn batch_end(&mut self, now: Time) {
        let handler = &mut *self.handler;
        if let Some(order) = &mut self.order {
            order.expire(now, &mut |source, bytes| handler.datagram(&source, bytes));
            self.plane.order.add(&mut order.counts);
        }
        handler.batch_end();
    }

    /// How long the thread may sleep; `None`: until something comes.
    pub(crate) fn patience(&self) -> Option<Duration> {
        Some(self.order.as_ref()?.deadline()?.since(clock::now()))
    }

    /// The thread woke up: hands out what has waited for long enough.
    pub(crate) fn wake(&mut self) {
        let Some(due) = self.order.as_ref().and_then(Reorder::deadline) else { return };
        let now = clock::now();
        if due <= now {
            self.batch_end(now);
        }
    }
}
