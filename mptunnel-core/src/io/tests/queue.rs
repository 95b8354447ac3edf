// SPDX-License-Identifier: BSD-2-Clause
//! The delivery queue: order, bounds, waiting, and the descriptor that tells when to come.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::*;
use crate::io::queue::{DeliveryQueue, Limits, Meta, PopError, Readiness, Received, Slot};
use crate::io::wake::{PollFd, poll};
use crate::proto::time::Time;

const NOT_AT_ALL: Option<Duration> = Some(Duration::ZERO);
const LIMITS: Limits = Limits { bytes: 1 << 20, datagrams: 4096 };

fn queue(limits: Limits) -> (DeliveryQueue, Arc<Readiness>) {
    let readiness = Arc::new(Readiness::new().unwrap());
    (DeliveryQueue::new(limits, readiness.clone()), readiness)
}

fn meta(number: u64) -> Meta {
    Meta { peer: number, flow: 7, path: 2, arrival: Time::from_micros(number) }
}

fn push(queue: &DeliveryQueue, number: u64, bytes: &[u8]) -> bool {
    queue.writer().push(meta(number), bytes)
}

fn pop(queue: &DeliveryQueue) -> Result<(u64, Vec<u8>), PopError> {
    let mut buffer = [0; 2048];
    let Received { meta, len } = queue.pop(&mut buffer, NOT_AT_ALL)?;
    Ok((meta.peer, buffer[..len].to_vec()))
}

fn is_readable(readiness: &Readiness) -> bool {
    let fd = readiness.watch();
    poll(&mut [PollFd::readable(&fd)], NOT_AT_ALL).unwrap() == 1
}

#[test]
fn datagrams_come_out_in_order_with_all_that_is_known_of_them() {
    let (queue, _) = queue(LIMITS);
    let mut writer = queue.writer();
    assert!(writer.push(meta(1), b"first"));
    assert!(writer.push(meta(2), b""));
    assert!(writer.push(meta(3), b"third"));
    drop(writer);

    let mut buffer = [0; 5];
    let received = queue.pop(&mut buffer, NOT_AT_ALL).unwrap();

    assert_eq!(received, Received { meta: meta(1), len: 5 });
    assert_eq!(&buffer, b"first");
    assert_eq!(pop(&queue), Ok((2, vec![])));
    assert_eq!(pop(&queue), Ok((3, b"third".to_vec())));
    assert_eq!(pop(&queue), Err(PopError::TimedOut));
}

#[test]
fn a_datagram_stays_until_a_buffer_is_large_enough() {
    let (queue, readiness) = queue(LIMITS);
    push(&queue, 1, &[9; 100]);
    push(&queue, 2, &[8; 10]);

    for len in [0, 99] {
        let error = queue.pop(&mut vec![0; len], NOT_AT_ALL).unwrap_err();
        assert_eq!(error, PopError::TooSmall { len: 100 });
        assert!(is_readable(&readiness));
    }

    assert_eq!(pop(&queue), Ok((1, vec![9; 100])));
    assert_eq!(pop(&queue), Ok((2, vec![8; 10])));
}

#[test]
fn an_empty_datagram_fits_an_empty_buffer() {
    let (queue, _) = queue(LIMITS);
    push(&queue, 1, b"");

    assert_eq!(queue.pop(&mut [], NOT_AT_ALL).unwrap().len, 0);
}

#[test]
fn a_full_queue_drops_what_arrives_and_counts_it() {
    let (queue, _) = queue(Limits { bytes: 1000, datagrams: 3 });
    assert!(push(&queue, 1, &[1; 600]));
    assert!(!push(&queue, 2, &[2; 401]), "1001 bytes");
    assert!(push(&queue, 3, &[3; 400]), "1000 bytes");
    assert!(push(&queue, 4, &[]));
    assert!(!push(&queue, 5, &[]), "the fourth datagram");
    assert_eq!(queue.dropped(), 2);

    assert_eq!(pop(&queue).unwrap().0, 1);
    assert!(push(&queue, 6, &[6; 600]));
    assert_eq!(pop(&queue), Ok((3, vec![3; 400])));
    assert_eq!(pop(&queue), Ok((4, vec![])));
    assert_eq!(pop(&queue), Ok((6, vec![6; 600])));
    assert_eq!(queue.dropped(), 2);
}

#[test]
fn datagrams_survive_going_around_the_ring() {
    let (queue, _) = queue(Limits { bytes: 200_000, datagrams: 1000 });
    let len = |number: u64| (number * 7919 % 2000) as usize;
    let (mut pushed, mut popped) = (0, 0);
    while popped < 20_000 {
        // Mostly half full, so that datagrams lie across the end of the ring.
        while pushed < popped + 100 {
            assert!(push(&queue, pushed, &vec![pushed as u8; len(pushed)]));
            pushed += 1;
        }
        for _ in 0..37 {
            assert_eq!(pop(&queue), Ok((popped, vec![popped as u8; len(popped)])));
            popped += 1;
        }
    }
}

struct Place {
    buffer: Vec<u8>,
    received: Option<Received>,
}

impl Slot for Place {
    fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    fn fill(&mut self, received: Received) {
        self.received = Some(received);
    }
}

fn places(lens: &[usize]) -> Vec<Place> {
    lens.iter().map(|len| Place { buffer: vec![0; *len], received: None }).collect()
}

#[test]
fn a_batch_takes_what_is_there() {
    let (queue, readiness) = queue(LIMITS);
    for number in 0..5 {
        push(&queue, number, &[number as u8; 10]);
    }

    let mut first = places(&[10; 3]);
    assert_eq!(queue.pop_batch(&mut first, NOT_AT_ALL), Ok(3));
    let mut second = places(&[10; 3]);
    assert!(is_readable(&readiness));
    assert_eq!(queue.pop_batch(&mut second, NOT_AT_ALL), Ok(2));
    assert!(!is_readable(&readiness));

    for (number, place) in first.iter().chain(&second[..2]).enumerate() {
        assert_eq!(place.received, Some(Received { meta: meta(number as u64), len: 10 }));
        assert_eq!(place.buffer, [number as u8; 10]);
    }
    assert_eq!(second[2].received, None);
    assert_eq!(queue.pop_batch(&mut second, NOT_AT_ALL), Err(PopError::TimedOut));
    assert_eq!(queue.pop_batch(&mut places(&[]), None), Ok(0));
}

#[test]
fn a_batch_ends_before_a_datagram_that_does_not_fit() {
    let (queue, _) = queue(LIMITS);
    for (number, len) in [(0, 10), (1, 20), (2, 10)] {
        push(&queue, number, &vec![0; len]);
    }

    assert_eq!(queue.pop_batch(&mut places(&[10; 3]), NOT_AT_ALL), Ok(1));
    let error = queue.pop_batch(&mut places(&[10; 3]), NOT_AT_ALL);
    assert_eq!(error, Err(PopError::TooSmall { len: 20 }));
    assert_eq!(queue.pop_batch(&mut places(&[20; 3]), NOT_AT_ALL), Ok(2));
}

#[test]
fn a_closed_queue_is_emptied_first() {
    let (queue, readiness) = queue(LIMITS);
    push(&queue, 1, b"last");

    queue.close();

    assert!(!push(&queue, 2, b"too late"));
    assert_eq!(queue.dropped(), 0, "closed is not full");
    assert_eq!(pop(&queue), Ok((1, b"last".to_vec())));
    assert_eq!(queue.pop(&mut [], None), Err(PopError::Closed));
    assert!(is_readable(&readiness), "taking does not block any more");
}

#[test]
fn a_timeout_passes_before_the_answer_is_no() {
    let (queue, _) = queue(LIMITS);
    let start = Instant::now();

    assert_eq!(queue.pop(&mut [], Some(Duration::from_millis(30))), Err(PopError::TimedOut));

    assert!(start.elapsed() >= Duration::from_millis(30));
}

fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "it never came true");
        thread::sleep(Duration::from_micros(100));
    }
}

/// Runs `wake` once three threads wait at the queue, and returns what they got.
fn three_waiters(queue: &DeliveryQueue, wake: impl FnOnce()) -> Vec<Result<Received, PopError>> {
    thread::scope(|scope| {
        let wait = |timeout| scope.spawn(move || queue.pop(&mut [0; 16], timeout));
        let hours = Duration::from_secs(36_000);
        let waiters = [wait(None), wait(Some(hours)), wait(Some(Duration::MAX))];
        until(|| queue.waiting() == waiters.len());
        wake();
        waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect()
    })
}

#[test]
fn closing_wakes_everybody_for_good() {
    let (queue, _) = queue(LIMITS);

    assert_eq!(three_waiters(&queue, || queue.close()), [Err(PopError::Closed); 3]);
    assert_eq!(queue.pop(&mut [], None), Err(PopError::Closed));
}

#[test]
fn an_interrupt_wakes_those_who_wait_and_nobody_later() {
    let (queue, _) = queue(LIMITS);

    assert_eq!(three_waiters(&queue, || queue.interrupt()), [Err(PopError::Interrupted); 3]);
    assert_eq!(queue.pop(&mut [], Some(Duration::from_millis(5))), Err(PopError::TimedOut));
}

#[test]
fn a_batch_wakes_as_many_as_it_can_serve() {
    let (queue, _) = queue(LIMITS);
    let mut peers: Vec<_> = three_waiters(&queue, || {
        let mut writer = queue.writer();
        (0..3).for_each(|number| assert!(writer.push(meta(number), b"x")));
    })
    .into_iter()
    .map(|received| received.unwrap().meta.peer)
    .collect();

    peers.sort_unstable();
    assert_eq!(peers, [0, 1, 2]);
}

#[test]
fn one_who_cannot_take_a_datagram_leaves_it_to_another() {
    let (queue, _) = queue(LIMITS);
    for _ in 0..50 {
        thread::scope(|scope| {
            let small = scope.spawn(|| queue.pop(&mut [], None));
            until(|| queue.waiting() == 1);
            let large = scope.spawn(|| queue.pop(&mut [0; 4], None));
            until(|| queue.waiting() == 2);
            push(&queue, 1, b"data");

            // The one who waited longer is woken, and has no use for it. Now and then the other one
            // is faster, and the first waits on: for this.
            assert_eq!(large.join().unwrap().unwrap().len, 4);
            push(&queue, 2, b"more");
            assert_eq!(small.join().unwrap(), Err(PopError::TooSmall { len: 4 }));
        });
        assert_eq!(pop(&queue).unwrap().1, b"more");
    }
}

#[test]
fn the_descriptor_is_readable_exactly_while_there_is_a_datagram() {
    let (queue, readiness) = queue(LIMITS);
    push(&queue, 1, b"before anybody asked");
    assert!(is_readable(&readiness));
    assert!(is_readable(&readiness), "level-triggered");
    pop(&queue).unwrap();
    assert!(!is_readable(&readiness));

    push(&queue, 2, b"");
    push(&queue, 3, b"x");
    assert!(is_readable(&readiness));
    pop(&queue).unwrap();
    assert!(is_readable(&readiness));
    pop(&queue).unwrap();
    assert!(!is_readable(&readiness));

    drop(queue.writer());
    assert!(!is_readable(&readiness), "a batch of nothing");
    let mut writer = queue.writer();
    writer.push(meta(4), b"x");
    drop(writer);
    assert!(is_readable(&readiness));
}

/// Hands `WAKE_UPS` datagrams over one at a time: the next one is sent only after the last one was
/// taken, so a single lost wake-up ends in a timeout.
fn hand_over(take: impl Fn(&DeliveryQueue, &Readiness) -> u64 + Sync) {
    const WAKE_UPS: u64 = 10_000;
    let (forth, forth_readiness) = queue(LIMITS);
    let (back, back_readiness) = queue(LIMITS);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..WAKE_UPS {
                assert_eq!(take(&forth, &forth_readiness), number);
                assert!(push(&back, number, b"taken"));
            }
        });
        for number in 0..WAKE_UPS {
            assert!(push(&forth, number, b"take me"));
            assert_eq!(take(&back, &back_readiness), number);
        }
    });
}

#[test]
fn no_wake_up_is_lost_between_threads_that_wait_in_pop() {
    hand_over(|queue, _| {
        queue
            .pop(&mut [0; 16], Some(Duration::from_secs(10)))
            .expect("a wake-up was lost")
            .meta
            .peer
    });
}

#[test]
fn no_wake_up_is_lost_between_threads_that_wait_in_poll() {
    hand_over(|queue, readiness| {
        let fd = readiness.watch();
        let ready = poll(&mut [PollFd::readable(&fd)], Some(Duration::from_secs(10))).unwrap();
        assert_eq!(ready, 1, "a wake-up was lost");
        queue.pop(&mut [0; 16], NOT_AT_ALL).expect("readable, so there is something").meta.peer
    });
}

#[test]
fn two_producers_and_three_consumers_lose_and_repeat_nothing() {
    const EACH: u64 = 20_000;
    let (queue, readiness) = queue(Limits { bytes: 1 << 22, datagrams: 1 << 20 });
    readiness.watch();
    let mut all: Vec<u64> = thread::scope(|scope| {
        let producers = [0, EACH].map(|first| {
            let queue = &queue;
            scope.spawn(move || {
                let mut next = first;
                while next < first + EACH {
                    let mut writer = queue.writer();
                    for _ in 0..(next % 5 + 1).min(first + EACH - next) {
                        assert!(writer.push(meta(next), &next.to_le_bytes()));
                        next += 1;
                    }
                }
            })
        });
        let consumers = [(); 3].map(|()| {
            scope.spawn(|| {
                let (mut seen, mut buffer) = (Vec::new(), [0; 8]);
                loop {
                    match queue.pop(&mut buffer, Some(Duration::from_secs(10))) {
                        Ok(received) => {
                            assert_eq!(u64::from_le_bytes(buffer), received.meta.peer);
                            seen.push(received.meta.peer);
                        }
                        Err(PopError::Closed) => return seen,
                        Err(error) => panic!("{error:?}"),
                    }
                }
            })
        });
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        queue.close();
        consumers.into_iter().flat_map(|consumer| consumer.join().unwrap()).collect()
    });

    all.sort_unstable();
    assert!(all.into_iter().eq(0..2 * EACH));
}
