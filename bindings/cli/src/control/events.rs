// SPDX-License-Identifier: BSD-2-Clause
//! The latest events of a program, for those who look at it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use log::Level;
use mptunnel_core::{Event, PathId, PeerId};
use serde_json::{Value, json};

use crate::log::now_utc;

/// Events that are remembered.
const REMEMBERED: usize = 256;

/// The latest events, written by the program and read by the thread that answers.
#[derive(Debug)]
pub(crate) struct EventLog {
    ring: Mutex<Ring>,
    /// Wakes who reads.
    waker: UnixStream,
}

#[derive(Debug, Default)]
struct Ring {
    /// The number of the next event.
    next: u64,
    events: VecDeque<(u64, Value)>,
}

impl EventLog {
    /// An empty log, and the socket that is readable once there is something new.
    pub(crate) fn new() -> io::Result<(EventLog, UnixStream)> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        Ok((EventLog { ring: Mutex::default(), waker }, wake))
    }

    /// Remembers an event.
    pub(crate) fn push(&self, event: &Event, level: Level) {
        let mut ring = self.lock();
        let number = ring.next;
        ring.next += 1;
        if ring.events.len() == REMEMBERED {
            ring.events.pop_front();
        }
        let path = event.path();
        let event = json!({
            "number": number,
            "time": now_utc(),
            "level": level.as_str().to_ascii_lowercase(),
            "event": event.name(),
            "peer": event.peer().map(|PeerId(id)| id),
            "path": path.map(|(_, PathId(id))| id),
            "text": event.to_string(),
        });
        ring.events.push_back((number, event));
        drop(ring);
        self.wake();
    }

    /// Wakes who reads.
    pub(crate) fn wake(&self) {
        // Full: it is woken already.
        let _ = (&self.waker).write(&[0]);
    }

    /// The events from number `from` on that are remembered, and the number of the next one.
    pub(crate) fn since(&self, from: u64) -> (Vec<Value>, u64) {
        let ring = self.lock();
        let new = ring.events.iter().filter(|(number, _)| *number >= from);
        (new.map(|(_, event)| event.clone()).collect(), ring.next)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_events_are_remembered_and_the_oldest_forgotten() {
        let (log, _wake) = EventLog::new().unwrap();
        for _ in 0..REMEMBERED {
            log.push(&Event::Connected, Level::Info);
        }
        log.push(&Event::PathUp(PathId(3), "lte".into()), Level::Warn);

        let (all, next) = log.since(0);
        let (new, _) = log.since(next - 1);

        assert_eq!((all.len(), next), (REMEMBERED, REMEMBERED as u64 + 1));
        assert_eq!(all[0]["number"], 1);
        assert_eq!(new.len(), 1);
        assert_eq!(new[0]["event"], "path_up");
        assert_eq!(new[0]["path"], 3);
        assert_eq!(new[0]["level"], "warn");
        assert_eq!(new[0]["text"], "path lte is up");
        assert!(log.since(next).0.is_empty());
    }
}
