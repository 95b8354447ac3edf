// SPDX-License-Identifier: BSD-2-Clause
//! The frames of a CTRL packet: whatever is read can be written again and reads the same. What they
//! do to a live session is in [`hostile`](super::hostile).

use super::script::Seed;
use mptunnel_core::proto::arrivals::{Arrival, Report};
use mptunnel_core::proto::frame::{self, CLOSE_GOING_AWAY, Frame, FrameList, Ping, Pong};
use mptunnel_core::proto::sched::{Policy, Setting};
use mptunnel_core::proto::wire::{CTRL_INNER_MIN, FLOW_ALL};

pub fn run(data: &[u8]) {
    let Ok(frames) = frame::parse(data) else { return };
    let write = |frames: &[Frame]| frames.iter().fold(FrameList::new(), |list, f| list.push(*f));
    let inner = write(&frames).finish();
    assert!(inner.len() >= CTRL_INNER_MIN);
    // What no frame has room for is not kept; what is kept stays.
    let again = frame::parse(&inner).expect("what was written can be read");
    assert_eq!(again, frames);
    assert_eq!(write(&again).finish(), inner);
}

/// One frame of each kind.
pub fn samples() -> Vec<Frame> {
    let mut report = Report::new(64, 3, 2);
    report.push(Arrival { step: 0, first: 0, lead: 10, paths: 0b11 });
    report.push(Arrival { step: 2, first: 1, lead: u16::MAX, paths: 0b10 });
    let setting =
        Setting { seq: 1, by_server: false, is_answer: false, mode: 3, policy: Policy::default() };
    let (path, seq, t_tx) = (1, 3, 1_000_050_000);
    vec![
        Frame::Ping(Ping { path, flags: 0, next_10ms: 25, seq, t_tx, tx_pkts: 4, tx_bytes: 500 }),
        Frame::Pong(Pong { path, seq, t_tx, hold_us: 9, t_rx: 7, rx_pkts: 3, rx_bytes: 400 }),
        Frame::Challenge { path, nonce: *b"abcdefgh" },
        Frame::Response { path, nonce: *b"abcdefgh" },
        Frame::Close { code: CLOSE_GOING_AWAY, flow: 3 },
        Frame::Close { code: CLOSE_GOING_AWAY, flow: FLOW_ALL },
        Frame::RekeyRequest,
        Frame::Setting(setting),
        Frame::Arrivals(report),
        Frame::Weight { path, cost: 2, weight: 3 },
        Frame::Rate { path, kbit: 8_000 },
    ]
}

pub fn seeds() -> Vec<Vec<u8>> {
    let one = samples().into_iter().map(|frame| FrameList::new().push(frame).finish());
    let all = samples().into_iter().fold(FrameList::new(), FrameList::push).finish();
    let unknown = Seed::default().bytes(&[0x17, 3, 9, 9, 9]).bytes(&all).0;
    one.chain([all, unknown]).collect()
}
