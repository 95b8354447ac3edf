// SPDX-License-Identifier: BSD-2-Clause
//! The hot path, for counting its instructions: `hotpath NAME` does one thing [`TIMES`] times in
//! the function `counted`, which is the only one that the tool looks at. See `instructions.py`.

use mptunnel_bench::hot::{Hot, Room};
use mptunnel_core::proto::budget::MemoryBudget;
use mptunnel_core::proto::replay::{Freshness, ReplayWindow};
use mptunnel_core::proto::time::Time;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

/// Datagrams that are counted, after as many that are not.
const TIMES: usize = 1_000;
const PATHS: usize = 3;
const SIZE: usize = 1_400;

/// Kept out of line: the tool counts between its beginning and its end.
#[inline(never)]
fn counted(each: &mut dyn FnMut()) {
    for _ in 0..TIMES {
        each();
    }
}

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let (payload, mut room) = (vec![7; SIZE], Room::default());
    let mut hot = Hot::over(PATHS);
    match name.as_str() {
        "send" => {
            (0..TIMES).for_each(|_| hot.send(&payload, &mut room));
            counted(&mut || hot.send(black_box(&payload), &mut room));
        }
        "receive" => {
            let mut packets: Vec<Vec<u8>> = (0..2 * TIMES)
                .map(|_| {
                    hot.send(&payload, &mut room);
                    room.packet.clone()
                })
                .collect();
            let mut packets = packets.iter_mut();
            packets.by_ref().take(TIMES).for_each(|packet| assert_eq!(hot.receive(packet), SIZE));
            counted(&mut || {
                let packet = packets.next().expect("there are as many as are counted");
                black_box(hot.receive(packet));
            });
        }
        "receive-copy" => {
            hot.send(&payload, &mut room);
            let mut copy = room.packet.clone();
            hot.receive(&mut room.packet);
            (0..TIMES).for_each(|_| hot.receive_copy(&mut copy));
            counted(&mut || hot.receive_copy(black_box(&mut copy)));
        }
        "window" => {
            let budget = Arc::new(MemoryBudget::new(MemoryBudget::DEFAULT));
            let mut window = ReplayWindow::new(12, 18, budget);
            let mut number = 0;
            let mut each = || {
                number += 1;
                let now = Time::from_micros(number);
                let known = window.check(black_box(number));
                assert_eq!((known, window.accept(now, number)), (Freshness::New, Freshness::New));
            };
            (0..TIMES).for_each(|_| each());
            counted(&mut each);
        }
        other => {
            eprintln!("hotpath: what is {other:?}?");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
