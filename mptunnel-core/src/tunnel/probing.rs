// SPDX-License-Identifier: BSD-2-Clause
//! Asking the paths of a tunnel at a moment of one's own choice, for tools that measure.

use super::{End, Tunnel};
use crate::{Error, PathId};
use std::time::Duration;

/// An answer to [`Tunnel::probe`], or to one of the probes that paths get anyway.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ProbeAnswer {
    /// The path that was asked and brought the answer.
    pub path: PathId,
    /// When it was asked, as [`clock`](crate::clock) has it: of a call of [`Tunnel::probe`], exactly
    /// what that returned.
    pub asked: Duration,
    /// Until the answer came, without the time that the server took.
    pub round_trip: Duration,
}

impl Tunnel {
    /// Asks every path now whether it answers, beside the probes that it gets anyway, and returns
    /// when that was, as [`clock`](crate::clock) has it. A path without a socket is not asked, and
    /// none is while there is no session. Each costs a packet of some 100 bytes and its answer.
    ///
    /// From the first call on answers are kept for [`probe_answers`](Self::probe_answers), the
    /// latest few thousand of them.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`], [`Error::Failed`]: it is over. [`Error::Unsupported`]
    /// under the legacy protocol, which has no probes.
    pub fn probe(&self) -> Result<Duration, Error> {
        self.usable()?;
        let End::Ours(io) = &self.io else {
            return Err(Error::Unsupported("the legacy protocol has no probes"));
        };
        let asked = io.shared.with_control(|client, now| {
            client.probe(now);
            now
        });
        Ok(Duration::from_micros(asked.as_micros()))
    }

    /// Takes the answers that came since the last call, in the order in which they came.
    pub fn probe_answers(&self) -> Vec<ProbeAnswer> {
        let End::Ours(io) = &self.io else { return Vec::new() };
        if self.is_forked() {
            return Vec::new();
        }
        let mut client = io.shared.control.lock();
        let answers = client.take_answers();
        answers
            .map(|answer| ProbeAnswer {
                path: answer.path,
                asked: Duration::from_micros(answer.asked.as_micros()),
                round_trip: answer.round_trip,
            })
            .collect()
    }
}
