// SPDX-License-Identifier: BSD-2-Clause
//! Sending with wishes: fewer copies, one path only, waiting for room.

use crate::io::outgoing::Outcome;
use crate::io::room::{Patience, Room};
use crate::io::run::MAX_RUNS;
use crate::io::send::CAPACITY;
use crate::proto::num::path_bit;
use crate::proto::time::Time;
use crate::proto::view::SendView;
use crate::proto::wire::{DATA_OVERHEAD, MAX_DATAGRAM};
use crate::{Error, PathId};
use std::sync::Arc;
use std::time::Duration;

/// What a sender wishes for its datagrams, beyond what the policy does.
///
/// ```
/// use mptunnel_core::SendOptions;
/// use std::time::Duration;
///
/// // Over the two best paths, and for the next 50 ms only.
/// let urgent = SendOptions::new().copies(2).deadline(Duration::from_millis(50));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SendOptions {
    /// Over the so many best of the paths that the policy chose: those that answer first, and of
    /// these those with the shortest smoothed round trip; an unmeasured path comes last. If there
    /// are fewer, over all of them. 0 (the default): over all of them.
    pub copies: u8,
    /// Over this path only, whether or not the policy would choose it. It goes before `copies`.
    pub path: Option<PathId>,
    /// Useless after this. A datagram is never queued at this end, so this only bounds how long
    /// the call waits for room; what then lies in the buffer of the kernel goes out late or not.
    pub deadline: Option<Duration>,
    /// How long to wait while *all* sockets are full. `None` waits for ever, zero (the default)
    /// not at all.
    pub timeout: Option<Duration>,
}

impl Default for SendOptions {
    fn default() -> Self {
        SendOptions { copies: 0, path: None, deadline: None, timeout: Some(Duration::ZERO) }
    }
}

impl SendOptions {
    /// No wishes: as the policy says, without waiting.
    pub fn new() -> Self {
        SendOptions::default()
    }

    /// Sets [`copies`](Self::copies).
    #[must_use]
    pub fn copies(self, copies: u8) -> Self {
        SendOptions { copies, ..self }
    }

    /// Sets [`path`](Self::path).
    #[must_use]
    pub fn path(self, path: PathId) -> Self {
        SendOptions { path: Some(path), ..self }
    }

    /// Sets [`deadline`](Self::deadline).
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        SendOptions { deadline: Some(deadline), ..self }
    }

    /// Sets [`timeout`](Self::timeout).
    #[must_use]
    pub fn timeout(self, timeout: Option<Duration>) -> Self {
        SendOptions { timeout, ..self }
    }

    /// How long the call may wait for room.
    fn patience(&self) -> Option<Duration> {
        match (self.timeout, self.deadline) {
            (Some(timeout), Some(deadline)) => Some(timeout.min(deadline)),
            (timeout, deadline) => timeout.or(deadline),
        }
    }
}

/// One end as a sender that may have to wait sees it.
pub(crate) trait Outlet {
    /// What may be used now, and the time; an error if nothing may be sent at all.
    fn view(&self) -> Result<(Arc<SendView>, Time), Error>;

    /// The slot of a path.
    fn slot(&self, path: PathId) -> Result<u8, Error>;

    /// Sends a batch with this view.
    fn send<'d>(
        &self,
        view: &SendView,
        now: Time,
        datagrams: impl Iterator<Item = &'d [u8]>,
    ) -> Result<Outcome, Error>;

    /// Waits for room in the sockets of the chosen paths.
    fn wait(&self, view: &SendView, patience: &mut Patience<'_>) -> Result<bool, Error>;
}

/// Datagrams that are sealed and sent in one go, at most: so many fit one batch, which is why the
/// answer tells how many of them a full socket took.
const AT_ONCE: usize = 512;
const BYTES_AT_ONCE: usize = CAPACITY;
const _: () = assert!(AT_ONCE <= MAX_RUNS && MAX_DATAGRAM + DATA_OVERHEAD <= BYTES_AT_ONCE);

/// Sends datagrams in order, as `options` wish. Returns how many were taken by at least one path.
///
/// # Errors
/// If the first of them could not be sent.
pub(crate) fn send_all<'d>(
    outlet: &impl Outlet,
    room: &Room,
    datagrams: impl Iterator<Item = &'d [u8]> + Clone,
    options: &SendOptions,
) -> Result<usize, Error> {
    let mut patience = None;
    let mut rest = datagrams;
    let mut taken = 0;
    loop {
        let turn = send_some(outlet, &rest, options);
        let (sent, full) = match turn {
            Ok(Turn::Done) => return Ok(taken),
            Ok(Turn::Sent { count, full }) => (count, full),
            Err(_) if taken > 0 => return Ok(taken),
            Err(error) => return Err(error),
        };
        if sent > 0 {
            taken += sent;
            rest.nth(sent - 1);
            // Most calls end here: another turn would look everything up once more for nothing.
            if rest.clone().next().is_none() {
                return Ok(taken);
            }
        }
        let Some(full) = full else { continue };
        if options.patience() == Some(Duration::ZERO) {
            return if taken > 0 { Ok(taken) } else { Err(Error::WouldBlock) };
        }
        let patience = patience.get_or_insert_with(|| room.patience(options.patience()));
        match outlet.wait(&full, patience) {
            Ok(true) => {}
            _ if taken > 0 => return Ok(taken),
            Ok(false) => return Err(Error::TimedOut(options.patience().unwrap_or_default())),
            Err(error) => return Err(error),
        }
    }
}

enum Turn {
    /// Nothing is left.
    Done,
    /// So many were sent. `full`: the next ones have to wait for room in the sockets of this view.
    Sent { count: usize, full: Option<Arc<SendView>> },
}

fn send_some<'d>(
    outlet: &impl Outlet,
    datagrams: &(impl Iterator<Item = &'d [u8]> + Clone),
    options: &SendOptions,
) -> Result<Turn, Error> {
    let (view, now) = narrowed(outlet, options)?;
    let max = view.session.max_payload();
    let chosen = view.targets.iter().filter(|t| view.chosen & path_bit(t.slot) != 0);
    let narrowest = chosen.map(|t| t.max_packet).min().unwrap_or(0);
    let (mut count, mut bytes) = (0, 0);
    for datagram in datagrams.clone().take(AT_ONCE) {
        let len = datagram.len();
        if len > max {
            if count == 0 {
                return Err(Error::PayloadTooLarge { len, max });
            }
            break;
        }
        let packet = len + DATA_OVERHEAD;
        // What has to be cut goes alone, so that packets can be counted as datagrams.
        let cut = packet > narrowest;
        if count > 0 && (cut || bytes + packet > BYTES_AT_ONCE) {
            break;
        }
        (count, bytes) = (count + 1, bytes + packet);
        if cut {
            break;
        }
    }
    if count == 0 {
        return Ok(Turn::Done);
    }
    let outcome = outlet.send(&view, now, datagrams.clone().take(count))?;
    if outcome.copies == 0 && outcome.dropped > 0 && !outcome.full {
        return Err(Error::NoPath);
    }
    let all = !outcome.full || outcome.most >= count;
    let count = if all { count } else { outcome.most };
    Ok(Turn::Sent { count, full: (!all).then_some(view) })
}

/// The view with the paths that the options choose.
fn narrowed(outlet: &impl Outlet, options: &SendOptions) -> Result<(Arc<SendView>, Time), Error> {
    let (view, now) = outlet.view()?;
    let chosen = match (options.path, options.copies) {
        (Some(path), _) => {
            let bit = path_bit(outlet.slot(path)?);
            let usable = view.targets.iter().any(|target| path_bit(target.slot) == bit);
            if !usable || view.up & bit == 0 {
                return Err(Error::NoPath);
            }
            bit
        }
        (None, 0) => return Ok((view, now)),
        (None, copies) => view.best(copies),
    };
    Ok((Arc::new(view.with_chosen(chosen)), now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_of_timeout_and_deadline_bounds_the_wait() {
        let s = Duration::from_secs;
        let wait = |timeout, deadline: Option<Duration>| {
            let options = SendOptions::new().timeout(timeout);
            deadline.map_or(options, |deadline| options.deadline(deadline)).patience()
        };

        assert_eq!(SendOptions::new().patience(), Some(Duration::ZERO));
        assert_eq!(wait(None, None), None);
        assert_eq!(wait(None, Some(s(1))), Some(s(1)));
        assert_eq!(wait(Some(s(2)), Some(s(1))), Some(s(1)));
        assert_eq!(wait(Some(s(1)), Some(s(2))), Some(s(1)));
    }
}
