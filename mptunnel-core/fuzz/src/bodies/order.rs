// SPDX-License-Identifier: BSD-2-Clause
//! The reorder buffer: every datagram comes out once, as it was, no later than it may; and in order
//! unless the counters say otherwise.

use super::ends::START;
use super::script::{Script, Seed};
use mptunnel_core::proto::reorder::{Era, MARKS, Place, Reorder};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let hold = Duration::from_millis(script.u8().into());
    let mut order: Reorder<u64> = Reorder::new(hold);
    // What is inside, and since when.
    let mut inside = BTreeMap::new();
    let mut last_out: HashMap<(u64, u16), (Era, u64)> = HashMap::new();
    let mut places: HashMap<u64, Place> = HashMap::new();
    let mut used = BTreeSet::new();
    let (mut now, mut next, mut unordered) = (START, 0u64, 0u64);
    // The sender's side: packet numbers are of the session, marks of the flow.
    let mut numbers = 0u64;
    let mut marks: HashMap<(u64, u16), u16> = HashMap::new();
    let mut era = Era(START, 1);
    while !script.is_over() {
        let op = script.u8();
        let mut out = Vec::new();
        match op & 7 {
            0 => {
                now = now + Duration::from_millis(script.u8().into());
                order.expire(now, &mut |id, bytes| out.push((id, bytes.to_vec())));
            }
            1 if let Some(due) = order.deadline() => {
                now = now.max(due);
                order.expire(now, &mut |id, bytes| out.push((id, bytes.to_vec())));
            }
            2 => {
                era = Era(now, script.u8().into());
                (numbers, marks) = (0, HashMap::new());
                used.clear();
                continue;
            }
            // Numbers that other packets took.
            3 => {
                numbers = numbers.saturating_add(script.u8().into());
                continue;
            }
            // The next one, or one that was skipped, or one with any mark at all.
            _ => {
                let (peer, flow) = (u64::from(script.u8() & 1), u16::from(script.u8() & 3));
                let back = if op & 0x10 != 0 { u64::from(script.u8()) } else { 0 };
                numbers += u64::from(back == 0);
                let number = numbers.saturating_sub(back);
                let mark = marks.entry((peer, flow)).or_insert(0);
                *mark = if *mark >= MARKS { 1 } else { *mark + 1 };
                let mark = if op & 0x20 != 0 { script.u16() % (MARKS + 1) } else { *mark };
                // The window lets each number through once.
                if !used.insert((peer, number)) {
                    continue;
                }
                let place = Place { peer, flow, era, number, mark };
                let bytes = next.to_le_bytes().repeat(1 + usize::from(op >> 6));
                places.insert(next, place);
                inside.insert(next, now);
                order.take(now, place, next, &bytes, &mut |id, b| out.push((id, b.to_vec())));
                unordered += u64::from(mark == 0);
                next += 1;
            }
        }
        for (id, bytes) in out {
            assert!(inside.remove(&id).is_some(), "{id} comes out twice");
            assert!(bytes.chunks(8).all(|chunk| chunk == id.to_le_bytes()));
            let place = places[&id];
            if place.mark != 0 {
                let last = last_out.entry((place.peer, place.flow)).or_default();
                let rank = (place.era, place.number);
                unordered += u64::from(rank < *last);
                *last = rank.max(*last);
            }
        }
        assert_eq!(order.len(), inside.len());
        assert!(order.deadline().is_none_or(|due| due <= now + hold));
        assert_eq!(order.deadline().is_none(), order.is_empty());
        assert!(unordered == 0 || order.counts.late <= next);
    }
    now = now + hold;
    order.expire(now, &mut |id, _| assert!(inside.remove(&id).is_some()));
    assert!(inside.is_empty(), "{} wait for ever", inside.len());
}

pub fn seeds() -> Vec<Vec<u8>> {
    let begin = Seed::default().u8(50);
    let in_order = begin.clone().times(40, |s, n| s.u8(4).u8(0).u8(n as u8));
    let holes =
        begin.clone().times(30, |s, _| s.u8(3).u8(2).u8(0x14).u8(0).u8(0).u8(1).u8(0).u8(9));
    let marks = begin
        .clone()
        .times(30, |s, n| s.u8(0x34).u8(1).u8(0).u8(n as u8 % 3).u16(n as u16 * 3).u8(1));
    let eras = begin
        .times(20, |s, n| s.u8(2).u8(n as u8).u8(0xc5).u8(0).u8(1).u8(0x24).u8(0).u8(1).u16(9));
    [in_order, holes, marks, eras].map(|seed| seed.0).into()
}
