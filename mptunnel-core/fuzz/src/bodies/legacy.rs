// SPDX-License-Identifier: BSD-2-Clause
//! Datagrams of the classic protocol, at both ends: without keys, so whatever arrives may be
//! believed; but nothing is read that is not there, no number is delivered twice by a peer that
//! counts on, and tables stay small.

use super::ends::{START, address};
use super::script::{Script, Seed};
use mptunnel_core::PathId;
use mptunnel_core::legacy::{
    Action, Client, HEADER_LEN, Kind, MAX_SOURCES, News, Remote, Server, Timers, Usage, open, seal,
};
use mptunnel_core::proto::drop::DropCounters;
use mptunnel_core::proto::time::Time;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let (timers, drops) = (Timers::new(Duration::from_secs(60)), Arc::<DropCounters>::default());
    let window = u32::from(script.u16());
    let mut server = Server::new(timers, window, drops.clone());
    let mut client = Client::new(timers, window, drops);
    let mut seen: [HashSet<u32>; 2] = Default::default();
    let (mut now, mut port, mut next) = (START, 0, 0u32);
    client.opened(now, port, PathId(1), Arc::<Usage>::default(), true);
    while !script.is_over() {
        let op = script.u8();
        let is_server = op & 0x80 != 0;
        let packet = match op & 3 {
            0 => script.blob(200).to_vec(),
            1 | 2 => {
                next = next.wrapping_add(1);
                let id = if op & 1 == 1 { next } else { script.number() as u32 };
                next = if op & 4 != 0 { id } else { next };
                let payload = script.blob(100);
                let mut packet = [&[0; HEADER_LEN], payload].concat();
                let (kind, iv) = if op & 8 != 0 { (Kind::Control, 0) } else { (Kind::Data, id) };
                seal(&mut packet, kind, id, if op & 16 != 0 { iv } else { 0 });
                let (at, by) = (usize::from(script.u8()), script.u8());
                if let Some(byte) = packet.get_mut(at).filter(|_| op & 32 != 0) {
                    *byte ^= by;
                }
                packet
            }
            _ => {
                now = now + Duration::from_millis(u64::from(script.u16()) * 10);
                pass(now, &mut server, &mut client, &mut port);
                continue;
            }
        };
        let id = number_of(&packet);
        let mut buffer = packet.clone();
        let delivered = if is_server {
            let remote = Remote { socket: 0, address: address(script.below(64)) };
            server.receive(now, remote, None, &mut buffer).map(|(_, payload)| payload.to_vec())
        } else {
            client
                .receive(now, port.saturating_sub(script.u32() % 3), &mut buffer)
                .map(<[u8]>::to_vec)
        };
        let mut restarted = false;
        while let Some(news) = server.poll_news() {
            restarted |= news == News::Restarted;
        }
        while let Some(action) = client.poll_action() {
            restarted |= action == Action::Restarted;
            act(now, &mut client, &mut port, action);
        }
        let seen = &mut seen[usize::from(is_server)];
        if restarted {
            seen.clear();
        }
        if let Some(payload) = delivered {
            assert_eq!(payload.len() + HEADER_LEN, packet.len());
            let id = id.expect("what is delivered was sound");
            assert!(seen.insert(id), "{id} is delivered twice");
        }
        assert!(server.sources().count() <= usize::from(MAX_SOURCES));
    }
    pass(now + Duration::from_secs(400), &mut server, &mut client, &mut port);
    assert_eq!(server.sources().count(), 0, "sources are forgotten");
}

fn number_of(packet: &[u8]) -> Option<u32> {
    open(&mut packet.to_vec()).ok().map(|opened| opened.id)
}

fn act(now: Time, client: &mut Client, port: &mut u32, action: Action) {
    match action {
        Action::Rotate(path) => {
            *port += 1;
            client.opened(now, *port, path, Arc::<Usage>::default(), true);
        }
        Action::Close(port) => client.closed(port),
        Action::Speak(_) | Action::Restarted | Action::Connected => {}
    }
}

fn pass(now: Time, server: &mut Server, client: &mut Client, port: &mut u32) {
    for _ in 0..16 {
        server.handle_timeout(now);
        client.handle_timeout(now);
        while server.poll_news().is_some() {}
        while let Some(action) = client.poll_action() {
            act(now, client, port, action);
        }
        if server.poll_timeout() > now && client.poll_timeout() > now {
            return;
        }
    }
    panic!("poll_timeout stands still");
}

pub fn seeds() -> Vec<Vec<u8>> {
    let begin = Seed::default().u16(1_000);
    let data = |s: Seed, op: u8, from: u8| s.u8(op).blob(b"data").u8(0).u8(0).u8(from);
    let clear = begin.clone().times(20, |s, n| data(s, 0x81, n as u8));
    let hidden = begin.clone().times(20, |s, n| data(s, 0x91, n as u8 % 2).u8(3).u16(100));
    let at_client = begin.clone().times(20, |s, _| s.u8(0x11).blob(b"x").u8(0).u8(0).u32(0));
    // A peer that counts anew.
    let restart = data(begin.clone().u8(0x86).number(5_000), 0, 1).u8(3).u16(700);
    let restart = restart.times(8, |s, n| {
        s.u8(0x82).number(n as u64 + 1).blob(b"x").u8(0).u8(0).u8(1).u8(3).u16(50)
    });
    let many = begin.times(70, |s, n| data(s, 0x81, n as u8).u8(3).u16(200));
    [clear, hidden, at_client, restart, many].map(|seed| seed.0).into()
}
