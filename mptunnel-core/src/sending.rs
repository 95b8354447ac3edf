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
    /// Over the so many best of the paths that the mode may use, which are all that are fit: those
    /// that answer first, and of these those with the shortest smoothed round trip; an unmeasured
    /// path comes last. If there are fewer, over all of them. 0 (the default): as the mode says.
    pub copies: u8,
    /// Over this path only, whether or not the policy would choose it. It goes before `copies`.
    pub path: Option<PathId>,
    /// Useless after this. A datagram is not queued at this end, but for the few milliseconds of
    /// `path-queue` on a path with a rate, so this only bounds how long the call waits for room;
    /// what then lies in the buffer of the kernel goes out late or not.
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
    pub(crate) fn patience(&self) -> Option<Duration> {
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
    let begun = room.begun();
    let mut patience = None;
    let mut rest = datagrams;
    let mut taken = 0;
    loop {
        let Turn { sent, what } = match send_some(outlet, &rest, options) {
            Ok(turn) => turn,
            Err(_) if taken > 0 => return Ok(taken),
            Err(error) => return Err(error),
        };
        taken += sent;
        let full = match what {
            Next::Nothing => return Ok(taken),
            Next::Others => None,
            Next::Wait(full) => Some(full),
        };
        if sent > 0 {
            rest.nth(sent - 1);
        }
        let Some(full) = full else { continue };
        if options.patience() == Some(Duration::ZERO) {
            return if taken > 0 { Ok(taken) } else { Err(Error::WouldBlock) };
        }
        let patience = patience.get_or_insert_with(|| room.patience(begun, options.patience()));
        match outlet.wait(&full, patience) {
            Ok(true) => {}
            _ if taken > 0 => return Ok(taken),
            Ok(false) => return Err(Error::TimedOut(options.patience().unwrap_or_default())),
            Err(error) => return Err(error),
        }
    }
}

/// What became of one attempt.
struct Turn {
    /// How many datagrams were sent.
    sent: usize,
    what: Next,
}

/// What is to be done after it.
enum Next {
    /// Nothing is left.
    Nothing,
    /// There may be others.
    Others,
    /// The next ones have to wait for room in the sockets of this view.
    Wait(Arc<SendView>),
}

/// As many as fit one batch. They are looked at once only, on their way into it: looking at each
/// costs the caller of a foreign language more than the rest of this.
fn send_some<'d>(
    outlet: &impl Outlet,
    datagrams: &(impl Iterator<Item = &'d [u8]> + Clone),
    options: &SendOptions,
) -> Result<Turn, Error> {
    let (view, now) = narrowed(outlet, options)?;
    let max = view.session.max_payload();
    let chosen = view.targets.iter().filter(|t| view.chosen() & path_bit(t.slot) != 0);
    let narrowest = chosen.map(|t| t.max_packet).min().unwrap_or(0);
    let (mut count, mut bytes, mut has_cut, mut is_last) = (0, 0, false, false);
    let mut too_large = None;
    let mut source = datagrams.clone();
    let batch = std::iter::from_fn(|| {
        let Some(datagram) = source.next() else {
            is_last = true;
            return None;
        };
        let len = datagram.len();
        if len > max {
            too_large = Some(len);
            return None;
        }
        let packet = len + DATA_OVERHEAD;
        // What has to be cut goes alone, so that packets can be counted as datagrams.
        let cut = packet > narrowest;
        let joins = !cut && !has_cut && count < AT_ONCE && bytes + packet <= BYTES_AT_ONCE;
        if count > 0 && !joins {
            return None;
        }
        (count, bytes, has_cut) = (count + 1, bytes + packet, cut);
        Some(datagram)
    });
    let outcome = outlet.send(&view, now, batch)?;
    match too_large {
        Some(len) if count == 0 => return Err(Error::PayloadTooLarge { len, max }),
        _ if count == 0 => return Ok(Turn { sent: 0, what: Next::Nothing }),
        _ => {}
    }
    if outcome.copies == 0 && outcome.dropped > 0 && !outcome.full {
        return Err(Error::NoPath);
    }
    // Of the pieces of a datagram a full socket takes the first ones: they are a datagram only if
    // one socket takes all of them.
    let most = if has_cut { usize::from(outcome.whole) } else { outcome.most };
    let what = match most < count && outcome.full {
        true => return Ok(Turn { sent: most, what: Next::Wait(view) }),
        false if is_last => Next::Nothing,
        false => Next::Others,
    };
    Ok(Turn { sent: count, what })
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
    use crate::io::socket::UdpSocket;
    use crate::proto::route::Route;
    use crate::proto::session::tests::end;
    use crate::proto::view::Target;
    use std::cell::RefCell;
    use std::collections::VecDeque;

    const NONE: [&UdpSocket; 0] = [];

    /// One path for packets of 1,000 bytes, whose socket does as it is told.
    struct Path {
        room: Room,
        view: Arc<SendView>,
        /// What becomes of each batch; all is sent when nothing is left here.
        outcomes: RefCell<VecDeque<Outcome>>,
        /// The lengths of the datagrams of each batch.
        batches: RefCell<Vec<Vec<usize>>>,
        on_send: fn(&Room),
    }

    impl Path {
        fn new(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
            let remote = "192.0.2.1:9".parse().unwrap();
            let route = Route { socket: 0, remote, local: None };
            let target = Target { slot: 0, route, max_packet: 1_000, credit: None, pace: None };
            let view = SendView {
                session: Arc::new(end(1, 2, false)),
                targets: vec![target],
                plan: crate::proto::sched::Plan::all_on(1),
                ranked: vec![0],
                up: 1,
            };
            Path {
                room: Room::default(),
                view: Arc::new(view),
                outcomes: RefCell::new(outcomes.into_iter().collect()),
                batches: RefCell::default(),
                on_send: |_| (),
            }
        }

        /// Sends datagrams of these lengths.
        fn send(&self, lengths: &[usize], options: &SendOptions) -> Result<usize, Error> {
            let bytes = vec![0; 70_000];
            let datagrams = lengths.iter().map(|len| &bytes[..*len]);
            send_all(self, &self.room, datagrams, options)
        }
    }

    impl Outlet for Path {
        fn view(&self) -> Result<(Arc<SendView>, Time), Error> {
            Ok((self.view.clone(), Time::from_micros(0)))
        }

        fn slot(&self, _: PathId) -> Result<u8, Error> {
            Ok(0)
        }

        fn send<'d>(
            &self,
            _: &SendView,
            _: Time,
            datagrams: impl Iterator<Item = &'d [u8]>,
        ) -> Result<Outcome, Error> {
            let batch: Vec<usize> = datagrams.map(<[u8]>::len).collect();
            let most = batch.len();
            if most > 0 {
                self.batches.borrow_mut().push(batch);
            }
            (self.on_send)(&self.room);
            let sent = Outcome { copies: most, most, whole: true, ..Outcome::default() };
            Ok(self.outcomes.borrow_mut().pop_front().unwrap_or(sent))
        }

        fn wait(&self, _: &SendView, patience: &mut Patience<'_>) -> Result<bool, Error> {
            patience.wait(&NONE)
        }
    }

    /// A socket that took `most` of so many packets and then was full.
    fn full(most: usize, of: usize) -> Outcome {
        Outcome { copies: most, dropped: of - most, most, full: true, whole: false }
    }

    #[test]
    fn a_datagram_of_which_some_pieces_were_sent_was_not_sent() {
        let path = Path::new([full(3, 4)]);
        let sent = path.send(&[3_500], &SendOptions::new());
        assert!(matches!(sent, Err(Error::WouldBlock)), "{sent:?}");

        // Of the next one the socket takes all, and none of the one behind it.
        let all = Outcome { copies: 4, most: 4, whole: true, ..Outcome::default() };
        let path = Path::new([all, full(0, 4)]);
        assert_eq!(path.send(&[3_500, 3_500], &SendOptions::new()).unwrap(), 1);

        // Who waits sends it again as a whole.
        let path = Path::new([full(3, 4)]);
        assert_eq!(path.send(&[3_500], &SendOptions::new().timeout(None)).unwrap(), 1);
        assert_eq!(*path.batches.borrow(), [[3_500], [3_500]]);
    }

    #[test]
    fn what_has_to_be_cut_and_what_does_not_fit_a_batch_goes_into_another_one() {
        let path = Path::new([]);
        assert_eq!(path.send(&[10, 0, 965, 964, 10], &SendOptions::new()).unwrap(), 5);
        assert_eq!(*path.batches.borrow(), [vec![10, 0], vec![965], vec![964, 10]]);

        let path = Path::new([]);
        assert_eq!(path.send(&[1; AT_ONCE + 1], &SendOptions::new()).unwrap(), AT_ONCE + 1);
        assert_eq!(*path.batches.borrow(), [vec![1; AT_ONCE], vec![1]]);

        let path = Path::new([]);
        assert_eq!(path.send(&[], &SendOptions::new()).unwrap(), 0);
        assert_eq!(path.send(&[10, 65_508, 10], &SendOptions::new()).unwrap(), 1);
        let refused = path.send(&[65_508, 10], &SendOptions::new());
        assert!(matches!(refused, Err(Error::PayloadTooLarge { len: 65_508, max: 65_507 })));
        assert_eq!(*path.batches.borrow(), [[10]]);
    }

    #[test]
    fn what_a_full_socket_did_not_take_is_sent_again_from_there() {
        let path = Path::new([full(2, 4), full(0, 2)]);
        let sent = path.send(&[1, 2, 3, 4], &SendOptions::new().timeout(None));

        assert_eq!(sent.unwrap(), 4);
        assert_eq!(*path.batches.borrow(), [vec![1, 2, 3, 4], vec![3, 4], vec![3, 4]]);
    }

    #[test]
    fn an_interruption_between_the_attempt_and_the_wait_ends_the_call() {
        let mut path = Path::new([full(0, 1), full(0, 1)]);
        path.on_send = Room::interrupt;

        let sent = path.send(&[1], &SendOptions::new().timeout(None));

        assert!(matches!(sent, Err(Error::Interrupted)), "{sent:?}");
        assert_eq!(path.batches.borrow().len(), 1);
    }

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
