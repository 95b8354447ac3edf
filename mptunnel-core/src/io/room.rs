// SPDX-License-Identifier: BSD-2-Clause
//! Waiting for room in the sockets: for senders that want to wait, and only for them.

use super::wake::{EventFd, PollFd, poll};
use crate::Error;
use crate::interrupt;
use crate::sync::Mutex;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};
use std::time::{Duration, Instant};

/// How long a sender waits whose sockets say that they have room and then take nothing: the queue
/// of the device is full (`ENOBUFS`), of which `poll` knows nothing.
const DEVICE_PAUSE: Duration = Duration::from_millis(1);

/// After how long a sender looks again, whatever its sockets say: since its last attempt a path may
/// have come, gone or got another socket, and the endpoint may have stopped.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Who waits for room at present.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// How often the waiting ones were interrupted. Not under the lock: every sender looks, and few
    /// of them ever wait.
    interrupts: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// What wakes each of them.
    waiting: Vec<Arc<EventFd>>,
}

/// One sender that waits, from before its first attempt, so that no interruption between an attempt
/// and the wait after it is missed.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    room: &'a Room,
    begun: u64,
    until: Option<Instant>,
    /// Whether the last wait ended because the sockets had room.
    had_room: bool,
}

impl Room {
    /// To be called where a call begins that may wait: an interruption from then on is its own.
    pub(crate) fn begun(&self) -> u64 {
        interrupt::begun(self.interrupts.load(Acquire))
    }

    /// Begins to wait in a call that has [`begun`](Self::begun), for at most `timeout`; `None`
    /// waits for ever.
    pub(crate) fn patience(&self, begun: u64, timeout: Option<Duration>) -> Patience<'_> {
        Patience {
            room: self,
            begun,
            // Beyond what the clock can express it never comes.
            until: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            had_room: false,
        }
    }

    /// Makes every sender that waits at present return.
    pub(crate) fn interrupt(&self) {
        // Before the lock: who is not yet among the waiting sees it when it looks.
        self.interrupts.fetch_add(1, AcqRel);
        let state = self.state.lock();
        state.waiting.iter().for_each(|wake| wake.set());
    }

    /// Ends all waiting, now and later.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting.iter().for_each(|wake| wake.set());
    }
}

impl Patience<'_> {
    /// Waits until one of `sockets` may have room, or it is time to look which ones there are now.
    /// `false`: the time is over.
    ///
    /// # Errors
    /// [`Error::Interrupted`], [`Error::Closed`]; [`Error::Io`] if descriptors have run out.
    pub(crate) fn wait(&mut self, sockets: &[impl AsFd]) -> Result<bool, Error> {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        let wake = EventFd::new().map(Arc::new).map_err(|source| failed("eventfd", source))?;
        {
            let mut state = self.room.state.lock();
            self.check(&state)?;
            state.waiting.push(wake.clone());
        }
        let mut fds = vec![PollFd::readable(&*wake)];
        // Once they have disappointed, asking them again at once would be a busy loop.
        let pause = if std::mem::take(&mut self.had_room) {
            DEVICE_PAUSE
        } else {
            fds.extend(sockets.iter().map(|socket| PollFd::writable(&socket.as_fd())));
            LOOK_AGAIN
        };
        let outcome = poll(&mut fds, Some(left.map_or(pause, |left| left.min(pause))));
        let mut state = self.room.state.lock();
        state.waiting.retain(|other| !Arc::ptr_eq(other, &wake));
        self.check(&state)?;
        drop(state);
        let ready = outcome.map_err(|source| failed("poll", source))?;
        self.had_room = fds.len() > 1 && ready > 0;
        Ok(true)
    }

    fn check(&self, state: &State) -> Result<(), Error> {
        if state.closed {
            return Err(Error::Closed);
        }
        if self.room.interrupts.load(Acquire) != self.begun {
            return Err(Error::Interrupted);
        }
        Ok(())
    }
}

fn failed(op: &str, source: std::io::Error) -> Error {
    Error::Io { op: op.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    /// A socket that takes nothing more until somebody reads from the other one.
    fn full() -> (UnixDatagram, UnixDatagram) {
        let (here, there) = UnixDatagram::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        while here.send(&[0; 1000]).is_ok() {}
        (here, there)
    }

    #[test]
    fn who_waits_is_woken_when_a_socket_has_room() {
        let room = Room::default();
        let ((full_one, _keep), (here, there)) = (full(), full());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let mut patience = room.patience(room.begun(), None);
                while !patience.had_room {
                    assert!(patience.wait(&[&full_one, &here]).unwrap());
                }
            });
            while room.state.lock().waiting.is_empty() {
                std::thread::yield_now();
            }
            // Until the half of the buffer is free, which is when the kernel says so.
            there.set_nonblocking(true).unwrap();
            while there.recv(&mut [0; 1000]).is_ok() {}

            waiting.join().unwrap();
        });
        assert!(room.state.lock().waiting.is_empty());
    }

    #[test]
    fn who_waits_looks_again_even_if_no_socket_ever_has_room() {
        let (looked, looks) = std::sync::mpsc::channel();
        // Not scoped: one that waits for ever must not take the test with it.
        std::thread::spawn(move || {
            let (room, (here, _there)) = (Room::default(), full());
            let none: [&UnixDatagram; 0] = [];
            looked.send(room.patience(room.begun(), None).wait(&[&here]).unwrap()).unwrap();
            // Those of the chosen paths were closed since the attempt.
            looked.send(room.patience(room.begun(), None).wait(&none).unwrap()).unwrap();
        });

        for what in ["a full socket", "no socket"] {
            assert_eq!(looks.recv_timeout(Duration::from_secs(10)), Ok(true), "{what}");
        }
    }

    #[test]
    fn the_time_ends_the_wait() {
        let (room, (here, _there)) = (Room::default(), full());
        let start = Instant::now();
        let mut patience = room.patience(room.begun(), Some(Duration::from_millis(20)));

        while patience.wait(&[&here]).unwrap() {}

        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn an_interruption_wakes_those_who_began_before_it_and_no_later_ones() {
        let (room, (here, _there)) = (Room::default(), full());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let mut patience = room.patience(room.begun(), None);
                loop {
                    if let Err(error) = patience.wait(&[&here]) {
                        break error;
                    }
                }
            });
            while room.state.lock().waiting.is_empty() {
                std::thread::yield_now();
            }
            room.interrupt();
            assert!(matches!(waiting.join().unwrap(), Error::Interrupted));
        });
        // One that began before, and was busy sending when it happened.
        let mut early = room.patience(room.begun(), None);
        room.interrupt();
        assert!(matches!(early.wait(&[&here]), Err(Error::Interrupted)));

        let mut later = room.patience(room.begun(), Some(Duration::from_millis(1)));
        assert!(later.wait(&[&here]).unwrap(), "a turn that nobody ended");
        room.close();
        assert!(matches!(room.patience(room.begun(), None).wait(&[&here]), Err(Error::Closed)));
    }

    #[test]
    fn sockets_that_have_room_and_take_nothing_are_not_asked_all_the_time() {
        let room = Room::default();
        let (here, _there) = UnixDatagram::pair().unwrap();
        let mut patience = room.patience(room.begun(), Some(Duration::from_millis(20)));

        let mut turns = 0;
        while patience.wait(&[&here]).unwrap() {
            turns += 1;
        }

        assert!((2..=42).contains(&turns), "{turns} turns in 20 ms");
    }
}
