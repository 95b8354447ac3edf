// SPDX-License-Identifier: BSD-2-Clause
//! Datagrams cut and rejoined, with pieces of others and pieces that never belonged to any between
//! them: what comes out went in, and what is held stays within its bounds.

use super::ends::START;
use super::script::{Script, Seed};
use mptunnel_core::proto::budget::MemoryBudget;
use mptunnel_core::proto::fragment::{Cut, FragmentHead, Rejoiner};
use mptunnel_core::proto::wire::FRAGMENT_OVERHEAD;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A datagram that an honest sender cut.
struct Honest {
    bytes: Vec<u8>,
    cut: Cut,
}

pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let memory = usize::from(script.u16()) * 4;
    let largest = usize::from(script.u16());
    let shared = Arc::new(MemoryBudget::new(usize::from(script.u16()) * 8));
    let mut sessions = [(); 2].map(|()| Rejoiner::new(largest, memory, shared.clone()));
    let mut honest: [BTreeMap<u64, Honest>; 2] = Default::default();
    let (mut now, mut next) = (START, 1u64);
    while !script.is_over() {
        let op = script.u8();
        let who = usize::from(op >> 7);
        let rejoiner = &mut sessions[who];
        match op & 3 {
            // An honest sender cuts a datagram.
            0 => {
                let (len, room) = (usize::from(script.u16()), usize::from(script.u8()) * 6);
                let Some(cut) = Cut::of(len, FRAGMENT_OVERHEAD + room) else { continue };
                let pieces = len.div_ceil(cut.piece.max(1));
                assert!(cut.piece <= room && (len < 2 || pieces <= cut.count.into()));
                let bytes = (0..len).map(|at| (at as u64 * 31 + next) as u8).collect();
                honest[who].insert(next, Honest { bytes, cut });
                next += 1;
            }
            // One of its pieces arrives.
            1 => {
                let back = u64::from(script.u8()) % 16;
                let index = script.u8();
                let whole = next.saturating_sub(1 + back);
                let Some(datagram) = honest[who].get(&whole) else { continue };
                let index = index % datagram.cut.count;
                let mut pieces = datagram.bytes.chunks(datagram.cut.piece.max(1));
                let Some(piece) = pieces.nth(index.into()) else { continue };
                let (count, total) = (datagram.cut.count, datagram.bytes.len() as u16);
                let head = FragmentHead { whole, index, count, total };
                let body = [&head.encode(), piece].concat();
                let Ok(Some(done)) = rejoiner.add(now, 7, &body) else { continue };
                assert_eq!((done.whole, done.flow), (whole, 7));
                assert_eq!(done.bytes, datagram.bytes, "rejoined from honest pieces");
                honest[who].remove(&whole);
            }
            // A piece that nobody cut, of a datagram of its own.
            2 => {
                let head = FragmentHead {
                    whole: u64::MAX - u64::from(script.u8() % 8),
                    index: script.u8(),
                    count: script.u8(),
                    total: script.u16(),
                };
                let piece = script.blob(2_000);
                if let Ok(Some(done)) =
                    rejoiner.add(now, script.u8().into(), &[&head.encode(), piece].concat())
                {
                    assert_eq!(done.bytes.len(), usize::from(head.total));
                    assert!(done.bytes.len() <= largest);
                }
            }
            _ if op & 4 != 0 => {
                now = now + Duration::from_millis(script.u16().into());
                rejoiner.expire(now);
            }
            // Any bytes.
            _ => {
                let body = script.blob(100);
                let of_honest = body.first_chunk().is_some_and(|w| u64::from_le_bytes(*w) < next);
                if !of_honest {
                    let _ = rejoiner.add(now, 7, body);
                }
            }
        }
        let used: usize = sessions.iter().map(Rejoiner::used).sum();
        assert!(sessions.iter().all(|s| s.used() <= memory));
        assert_eq!(shared.used(), used);
    }
    now = now + Duration::from_secs(3);
    sessions.iter_mut().for_each(|session| session.expire(now));
    assert_eq!(shared.used(), 0, "nothing waits for ever");
}

pub fn seeds() -> Vec<Vec<u8>> {
    let begin = Seed::default().u16(u16::MAX).u16(u16::MAX).u16(u16::MAX);
    let simple = begin.clone().u8(0).u16(3_000).u8(200).times(3, |s, n| s.u8(1).u8(0).u8(n as u8));
    let many = begin
        .clone()
        .times(12, |s, n| s.u8(0).u16(500 * n as u16).u8(60))
        .times(60, |s, n| s.u8(1).u8(n as u8 % 12).u8(n as u8 / 12));
    let hostile = begin.times(30, |s, n| {
        let (n, len) = (n as u8, [n as u8; 40]);
        s.u8(2).u8(n / 3).u8(n % 3).u8(3).u16(120).blob(&len).u8(7)
    });
    let tight = Seed::default().u16(100).u16(1_400).u16(60);
    let tight = tight.times(20, |s, _| s.u8(0).u16(600).u8(60).u8(1).u8(0).u8(0).u8(7).u16(200));
    [simple, many, hostile, tight].map(|seed| seed.0).into()
}

/// Room for a session that gets none.
pub fn budget() -> MemoryBudget {
    MemoryBudget::new(1 << 20)
}
