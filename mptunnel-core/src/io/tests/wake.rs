// SPDX-License-Identifier: BSD-2-Clause
//! Waiting, and being woken.

use std::os::fd::AsRawFd;
use std::os::unix::thread::JoinHandleExt;
use std::thread;
use std::time::Instant;

use super::*;
use crate::io::wake::{EventFd, PollFd, poll};

const NOT_AT_ALL: Option<Duration> = Some(Duration::ZERO);

fn is_readable(fd: &impl AsRawFd) -> bool {
    let mut fds = [PollFd::readable(fd)];
    let ready = poll(&mut fds, NOT_AT_ALL).unwrap();
    assert_eq!(ready == 1, fds[0].is_ready());
    fds[0].is_ready()
}

#[test]
fn an_event_is_readable_from_the_first_set_to_the_clear() {
    let event = EventFd::new().unwrap();
    assert!(!is_readable(&event));
    assert!(!event.clear());

    event.set();
    event.set();
    assert!(is_readable(&event));
    assert!(is_readable(&event), "until somebody clears it");

    assert!(event.clear());
    assert!(!is_readable(&event));
}

#[test]
fn poll_tells_which_descriptors_are_ready() {
    let events = [(); 3].map(|()| EventFd::new().unwrap());
    let mut fds = events.each_ref().map(PollFd::readable);
    events[0].set();
    events[2].set();

    assert_eq!(poll(&mut fds, None).unwrap(), 2);

    assert_eq!(fds.map(|fd| fd.is_ready()), [true, false, true]);
}

#[test]
fn poll_gives_up_after_its_timeout() {
    let event = EventFd::new().unwrap();
    let start = Instant::now();
    assert_eq!(poll(&mut [PollFd::readable(&event)], Some(Duration::from_millis(30))).unwrap(), 0);
    assert!(start.elapsed() >= Duration::from_millis(30));

    let start = Instant::now();
    assert_eq!(poll(&mut [], Some(Duration::from_millis(5))).unwrap(), 0);
    assert!(start.elapsed() >= Duration::from_millis(5));
}

#[test]
fn poll_tells_of_a_descriptor_that_is_not_open_instead_of_waiting() {
    let mut fds = [PollFd::readable(&i32::MAX)];

    assert_eq!(poll(&mut fds, None).unwrap(), 1);

    assert!(fds[0].is_invalid() && !fds[0].is_ready());
}

#[test]
fn a_signal_ends_neither_the_wait_nor_its_timeout() {
    extern "C" fn ignore(_: libc::c_int) {}
    let handler = ignore as extern "C" fn(libc::c_int);
    // SAFETY: the handler does nothing, so it may run at any moment. No system call of the poll
    // family is restarted after a signal (signal(7)).
    unsafe { libc::signal(libc::SIGUSR2, handler as libc::sighandler_t) };
    let event = EventFd::new().unwrap();
    let waiting = thread::spawn(move || {
        let start = Instant::now();
        let ready = poll(&mut [PollFd::readable(&event)], Some(Duration::from_millis(100)));
        (ready.unwrap(), start.elapsed())
    });

    while !waiting.is_finished() {
        // SAFETY: the thread is not joined yet, so its id is valid.
        unsafe { libc::pthread_kill(waiting.as_pthread_t(), libc::SIGUSR2) };
        thread::sleep(Duration::from_millis(5));
    }

    let (ready, elapsed) = waiting.join().unwrap();
    assert_eq!(ready, 0);
    assert!(elapsed >= Duration::from_millis(100), "{elapsed:?}");
    assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
}

#[test]
fn a_read_that_waits_returns_with_the_first_datagram() {
    let (receiver, sender) = pair(V4);
    let reader = thread::spawn(move || {
        let mut batch = RecvBatch::default();
        let messages = batch.recv(&receiver, Wait::First).unwrap();
        (messages, batch.message(0).bytes.to_vec())
    });
    // Most likely the reader waits by now; if not, the result is the same.
    thread::sleep(Duration::from_millis(20));

    assert_eq!(batch([(&b"wake"[..], 1)]).send(&sender, 1, None).packets, 1);

    assert_eq!(reader.join().unwrap(), (1, b"wake".to_vec()));
}

#[test]
fn a_read_that_waits_gives_up_after_the_socket_s_timeout() {
    let socket = open(V4);
    socket.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    let start = Instant::now();

    assert_eq!(RecvBatch::default().recv(&socket, Wait::First).unwrap(), 0);

    assert!(start.elapsed() >= Duration::from_millis(20), "{:?}", start.elapsed());
    let start = Instant::now();
    assert_eq!(RecvBatch::default().recv(&socket, Wait::DontWait).unwrap(), 0);
    assert!(start.elapsed() < Duration::from_millis(20), "{:?}", start.elapsed());
}

#[test]
fn stopping_wakes_a_blocked_read_and_every_later_one() {
    let (unconnected, connected) = pair(V4);
    for socket in [unconnected, connected] {
        socket.set_read_timeout(None).unwrap();
        assert!(!is_readable(&socket));
        thread::scope(|scope| {
            let reader = scope.spawn(|| RecvBatch::default().recv(&socket, Wait::First).unwrap());
            thread::sleep(Duration::from_millis(20));

            socket.stop_reading();

            assert_eq!(reader.join().unwrap(), 0);
        });
        assert_eq!(RecvBatch::default().recv(&socket, Wait::First).unwrap(), 0);
        assert_eq!(RecvBatch::default().recv(&socket, Wait::DontWait).unwrap(), 0);
        assert!(is_readable(&socket));
    }
}

#[test]
fn one_thread_sends_while_another_one_waits_on_the_same_socket() {
    // So few that all of them fit the receive buffer, should one thread not run for a while.
    const QUESTIONS: u32 = 200;
    let (server, client) = pair(V4);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut received, mut answers) = (RecvBatch::default(), SendBatch::new());
            let mut left = QUESTIONS;
            while left > 0 {
                let messages = received.recv(&server, Wait::First).unwrap();
                assert!(
                    messages > 0,
                    "{left} questions missing, {} dropped",
                    server.receive_drops()
                );
                for index in 0..messages {
                    let mut message = received.message(index);
                    let to = message.remote;
                    for segment in message.segments() {
                        answers.room(segment.len()).unwrap().copy_from_slice(segment);
                        answers.commit(segment.len(), 1);
                        left -= 1;
                    }
                    assert_eq!(answers.send(&server, 1, Some((to, None))).dropped, 0);
                    answers.clear();
                }
            }
        });
        scope.spawn(|| {
            for number in 0..QUESTIONS {
                let question = number.to_le_bytes();
                let report = batch([(&question[..], 1)]).send(&client, 1, None);
                assert_eq!(report.packets, 1);
            }
        });
        let (mut answers, mut expected) = (RecvBatch::default(), 0);
        while expected < QUESTIONS {
            let messages = answers.recv(&client, Wait::First).unwrap();
            assert!(messages > 0, "no answer {expected}, {} dropped", client.receive_drops());
            for index in 0..messages {
                for segment in answers.message(index).segments() {
                    assert_eq!(*segment, u32::to_le_bytes(expected));
                    expected += 1;
                }
            }
        }
    });
}
