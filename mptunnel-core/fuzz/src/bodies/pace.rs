// SPDX-License-Identifier: BSD-2-Clause
//! The queue of a path with a rate: first in, first out, bytes as they were; nothing waits longer
//! than it may; no more leaves than the rate allows; a guest's queue is bounded.

use super::ends::START;
use super::script::{Script, Seed};
use mptunnel_core::proto::budget::MemoryBudget;
use mptunnel_core::proto::crypto::Cipher::ChaCha20Poly1305;
use mptunnel_core::proto::crypto::{AeadKey, Secret};
use mptunnel_core::proto::pace::{HEADERS, Offer, Pace, Part};
use mptunnel_core::proto::replay::ReplayWindow;
use mptunnel_core::proto::session::{Session, SessionSetup};
use mptunnel_core::proto::time::Time;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What may leave at once after a pause; by so much a timer may be late as well.
const BURST: Duration = Duration::from_millis(5);
/// What a guest's queue may take, with further pieces of datagrams.
const GUEST_MOST: u64 = (1 << 20) + (128 << 10);

pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let options = script.u8();
    let (is_guest, is_steady) = (options & 1 != 0, options & 2 != 0);
    let bound = Duration::from_millis(script.u8().into());
    let rate = if is_steady { 1 + u64::from(script.u32()) } else { script.number() };
    let pace = if is_guest { Pace::for_a_guest(rate, bound) } else { Pace::new(rate, bound) };
    let session = session();
    let (mut now, mut left, mut largest) = (START, 0u64, 0u64);
    let mut queue: VecDeque<(Vec<u8>, Time)> = VecDeque::new();
    let mut packet = Vec::new();
    let mut count = 0u8;
    while !script.is_over() {
        let op = script.u8();
        match op & 7 {
            0..=2 => {
                let part = if op & 8 != 0 { Part::Next } else { Part::First };
                let bytes = vec![count; usize::from(script.u16())];
                count = count.wrapping_add(1);
                largest = largest.max(bytes.len() as u64 + HEADERS);
                let wait = pace.queue(now);
                match pace.offer(now, &session, &bytes, part) {
                    Offer::Now => {
                        assert!(queue.is_empty(), "it overtakes those that wait");
                        left += bytes.len() as u64 + HEADERS;
                    }
                    Offer::Queued => {
                        assert!(part == Part::Next || wait <= bound, "{wait:?}");
                        queue.push_back((bytes, now + wait.max(bound) + BURST));
                    }
                    Offer::Dropped => {}
                }
            }
            3 if is_steady => {}
            3 => pace.set_rate(now, script.number()),
            4 if is_steady => {}
            4 => pace.charge(now, script.u16().into()),
            5 => now = now + Duration::from_micros(u64::from(script.u16()) * 10),
            6 => {
                if let Some(due) = pace.deadline() {
                    now = now.max(due);
                    assert!(take(&pace, now, &mut packet, &mut queue, &mut left), "due, yet stays");
                }
            }
            _ => while take(&pace, now, &mut packet, &mut queue, &mut left) {},
        }
        let waiting = pace.waiting(now);
        assert_eq!(waiting.packets, queue.len() as u64);
        assert_eq!(waiting.bytes, queue.iter().map(|(bytes, _)| bytes.len() as u64).sum::<u64>());
        assert_eq!(pace.deadline().is_none(), queue.is_empty());
        assert!(!is_guest || waiting.bytes + 24 * waiting.packets <= GUEST_MOST, "{waiting:?}");
        if is_steady {
            let time = (now.since(START) + BURST).as_micros() + 1;
            let allowed = (time * u128::from(rate)).div_ceil(1_000_000) + 2 * 1_528;
            // The arithmetic rounds a byte's time down, to 2^-16 ns.
            let allowed = allowed + allowed / 1_000;
            assert!(u128::from(left) <= allowed + u128::from(2 * largest), "{left} > {allowed}");
        }
    }
    pace.give_up(0);
    assert_eq!((pace.waiting(now).packets, pace.deadline()), (0, None));
}

fn take(
    pace: &Pace,
    now: Time,
    packet: &mut Vec<u8>,
    queue: &mut VecDeque<(Vec<u8>, Time)>,
    left: &mut u64,
) -> bool {
    if pace.take(now, packet).is_none() {
        return false;
    }
    let (bytes, late_at) = queue.pop_front().expect("something waits");
    // One without bytes leaves no trace, whether it is late or not.
    if late_at <= now {
        assert!(packet.is_empty(), "it leaves too late");
    } else {
        assert_eq!(*packet, bytes);
        *left += bytes.len() as u64 + HEADERS;
    }
    true
}

fn session() -> Arc<Session> {
    let budget = || Arc::new(MemoryBudget::new(1 << 20));
    let key = || AeadKey::new(&[1; 32]);
    Arc::new(Session::new(SessionSetup {
        local_index: 1,
        remote_index: 2,
        born: START,
        cipher: ChaCha20Poly1305,
        tx: key(),
        rx: key(),
        clear: None,
        guard_tx: Secret::new([1; 32]),
        guard_rx: Secret::new([1; 32]),
        token: [0; 16],
        max_payload: 1_400,
        window: ReplayWindow::new(12, 12, budget()),
        reassembly_memory: 0,
        reassembly_shared: budget(),
        route_seed: 1,
        confirmed: true,
        marks: false,
    }))
}

pub fn seeds() -> Vec<Vec<u8>> {
    let begin = |options: u8, rate: u64| {
        let s = Seed::default().u8(options).u8(50);
        if options & 2 != 0 { s.u32(rate as u32) } else { s.number(rate) }
    };
    let steady = |options| {
        begin(options, 100_000).times(40, |s, n| s.u8(0).u16(1_400).u8(5 + n as u8 % 3).u16(900))
    };
    let bursts = begin(1, 1_000_000)
        .times(60, |s, n| s.u8(8 * (n as u8 & 1)).u16(1_472))
        .times(70, |s, _| s.u8(6));
    let changes = begin(0, 50_000).times(20, |s, n| {
        s.u8(0)
            .u16(1_000)
            .u8(3)
            .number(20_000 << (n % 12))
            .u8(4)
            .u16(300)
            .u8(7)
            .u8(5)
            .u16(500)
            .u8(6)
    });
    let extremes = [0, 1, u64::MAX, u64::MAX - 1, 1 << 46].map(|rate| {
        begin(1, rate)
            .times(10, |s, _| s.u8(0).u16(1_400).u8(8).u16(60_000).u8(6).u8(5).u16(60_000))
    });
    let seeds = [steady(2), steady(3), bursts, changes].into_iter().chain(extremes);
    seeds.map(|seed| seed.0).collect()
}
