// SPDX-License-Identifier: BSD-2-Clause
//! Datagrams on their way out of a relay, gathered by destination until the batch ends.

use crate::io::send::{SendBatch, SendReport};
use crate::proto::num::path_bit;

/// Destinations in one batch: each is a bit in the batch's sets.
const MAX_DESTINATIONS: usize = 32;

/// A batch for up to 32 destinations. Runs of equal datagrams to one of them leave as one send.
pub(super) struct Collector<D> {
    batch: SendBatch,
    destinations: Vec<D>,
}

impl<D: PartialEq + Clone> Collector<D> {
    pub(super) fn new() -> Self {
        Collector {
            batch: SendBatch::default(),
            destinations: Vec::with_capacity(MAX_DESTINATIONS),
        }
    }

    /// Adds a datagram for `to`. If there is no room, what there is goes out by `send` first.
    pub(super) fn push(
        &mut self,
        to: &D,
        bytes: &[u8],
        send: &mut impl FnMut(&mut SendBatch, u32, &D) -> SendReport,
    ) {
        let known = self.destinations.iter().rposition(|d| d == to);
        let full = known.is_none() && self.destinations.len() == MAX_DESTINATIONS;
        if full || !self.batch.has_room(bytes.len()) {
            self.flush(send);
        }
        let index = match self.destinations.iter().rposition(|d| d == to) {
            Some(index) => index,
            None => {
                self.destinations.push(to.clone());
                self.destinations.len() - 1
            }
        };
        if let Some(room) = self.batch.room(bytes.len()) {
            room.copy_from_slice(bytes);
            self.batch.commit(bytes.len(), path_bit(index as u8));
        }
    }

    /// Sends what there is.
    pub(super) fn flush(&mut self, send: &mut impl FnMut(&mut SendBatch, u32, &D) -> SendReport) {
        for (slot, to) in (0u8..).zip(&self.destinations) {
            let _: SendReport = send(&mut self.batch, path_bit(slot), to);
        }
        self.batch.clear();
        self.destinations.clear();
    }
}
