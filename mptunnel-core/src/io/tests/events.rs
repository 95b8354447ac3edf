// SPDX-License-Identifier: BSD-2-Clause
//! The event queue, alone and beside a delivery queue with the same descriptor.

use std::sync::Arc;
use std::thread;

use super::*;
use crate::io::queue::{DeliveryQueue, EventQueue, Limits, Meta, Readiness, WaitError};
use crate::io::wake::{PollFd, poll};
use crate::proto::time::Time;

const NOT_AT_ALL: Option<Duration> = Some(Duration::ZERO);

fn is_readable(readiness: &Readiness) -> bool {
    let fd = readiness.watch();
    poll(&mut [PollFd::readable(&fd)], NOT_AT_ALL).unwrap() == 1
}

fn events(limit: usize) -> (EventQueue<String>, Arc<Readiness>) {
    let readiness = Arc::new(Readiness::new().unwrap());
    (EventQueue::new(limit, readiness.clone()), readiness)
}

#[test]
fn the_oldest_events_make_room_for_the_newest() {
    let (events, readiness) = events(3);
    for number in 0..5 {
        events.push(number.to_string());
    }

    assert_eq!(events.dropped(), 2);
    for number in 2..5 {
        assert!(is_readable(&readiness));
        assert_eq!(events.pop(NOT_AT_ALL), Ok(number.to_string()));
    }
    assert_eq!(events.pop(NOT_AT_ALL), Err(WaitError::TimedOut));
    assert!(!is_readable(&readiness));
}

#[test]
fn waiting_for_an_event_ends_with_one_or_with_the_reason_why_not() {
    let (events, _) = events(3);
    let wait = || thread::scope(|scope| scope.spawn(|| events.pop(None)).join().unwrap());

    events.push("path up".to_owned());
    assert_eq!(wait(), Ok("path up".to_owned()));

    thread::scope(|scope| {
        let waiter = scope.spawn(|| events.pop(None));
        while events.waiting() == 0 {
            thread::sleep(Duration::from_micros(100));
        }
        events.interrupt();
        assert_eq!(waiter.join().unwrap(), Err(WaitError::Interrupted));
    });

    events.push("closing".to_owned());
    events.close();
    events.push("too late".to_owned());
    assert_eq!(wait(), Ok("closing".to_owned()));
    assert_eq!(wait(), Err(WaitError::Closed));
}

#[test]
fn one_descriptor_is_readable_while_either_queue_has_something() {
    let readiness = Arc::new(Readiness::new().unwrap());
    let limits = Limits { bytes: 1000, datagrams: 10 };
    let datagrams = DeliveryQueue::new(limits, readiness.clone());
    let events = EventQueue::new(10, readiness.clone());
    let meta = Meta { peer: 0, flow: 0, path: 1, arrival: Time::from_micros(0) };
    let take_datagram = || datagrams.pop(&mut [0; 10], NOT_AT_ALL).unwrap();
    assert!(!is_readable(&readiness));

    events.push(1);
    assert!(is_readable(&readiness));
    datagrams.writer().push(meta, b"x");
    events.pop(NOT_AT_ALL).unwrap();
    assert!(is_readable(&readiness), "the datagram is left");
    events.push(2);
    take_datagram();
    assert!(is_readable(&readiness), "the event is left");
    events.pop(NOT_AT_ALL).unwrap();
    assert!(!is_readable(&readiness));

    datagrams.close();
    assert!(is_readable(&readiness), "recv does not block any more");
    events.push(3);
    events.pop(NOT_AT_ALL).unwrap();
    assert!(is_readable(&readiness));
}
