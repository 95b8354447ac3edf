// SPDX-License-Identifier: BSD-2-Clause
//! The floor of the library: one thread seals and sends on every path's socket, one receives, drops
//! copies and opens. No session, no handshake, no paths that come and go.

use crate::batch::{self, Arrivals, Departures};
use crate::drive::{self, BATCH, Flood, Load};
use mptunnel_bench::seal::{Cipher, Key, Window};
use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

/// One measurement.
pub fn measure(load: Load, cipher: Cipher) -> io::Result<Flood> {
    let anywhere = "127.0.0.1:0".parse().expect("it is an address");
    let inner = batch::open(anywhere)?;
    let to = inner.local_addr()?;
    let outer: Vec<UdpSocket> = (0..load.paths)
        .map(|_| {
            let socket = batch::open(anywhere)?;
            socket.connect(to)?;
            Ok(socket)
        })
        .collect::<io::Result<_>>()?;
    let (delivered, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let (key, mut seen) = (Key::new(cipher), Window::default());
            let mut arrivals = Arrivals::default();
            while !over.load(Relaxed) {
                let mut fresh = 0;
                for index in 0..arrivals.take(&inner, true) {
                    for packet in arrivals.datagrams(index) {
                        let opened = key.open(&mut seen, packet);
                        fresh += u64::from(opened.is_some_and(|p| p.len() == load.size));
                    }
                }
                delivered.fetch_add(fresh, Relaxed);
            }
        });
        let key = Key::new(cipher);
        let (mut out, mut number) = (Departures::joined(), 0);
        let payload = vec![0xa5; load.size];
        let flood = drive::flood(load.duration, &delivered, || {
            for _ in 0..BATCH {
                number += 1;
                let packet = out.add(key.packet_len(load.size));
                key.seal(number, &payload, packet);
            }
            out.send(&outer, &[]);
        });
        over.store(true, Relaxed);
        Ok(flood)
    })
}
