// SPDX-License-Identifier: BSD-2-Clause
//! What lies between a client and a server, and does to packets what it is told.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::UdpGroSegment;

use crate::bench::End;
use crate::support::wait_until;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    Passes,
    /// Until [`Wire::release`].
    Waits,
    IsLost,
}

type Rule = Box<dyn FnMut(&[u8]) -> Fate + Send>;

/// Packets on their way to one end.
struct Direction {
    rule: Mutex<Rule>,
    seen: Mutex<Vec<(Instant, Vec<u8>)>>,
    waiting: Mutex<Vec<Vec<u8>>>,
}

/// One path: a bridge in this process, for one client.
pub struct Wire {
    /// Where the client sends to.
    pub address: SocketAddr,
    to_server: Arc<Direction>,
    to_client: Arc<Direction>,
    /// The socket beside the server, and the one beside the client.
    sockets: [UdpSocket; 2],
    client: Arc<Mutex<Option<SocketAddr>>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Wire {
    pub fn to(server: SocketAddr) -> Wire {
        let [inner, outer] = [(); 2].map(|()| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            socket
        });
        inner.connect(server).unwrap();
        let direction = || {
            Arc::new(Direction {
                rule: Mutex::new(Box::new(|_| Fate::Passes)),
                seen: Mutex::default(),
                waiting: Mutex::default(),
            })
        };
        let mut wire = Wire {
            address: outer.local_addr().unwrap(),
            to_server: direction(),
            to_client: direction(),
            sockets: [inner, outer],
            client: Arc::default(),
            over: Arc::default(),
            threads: Vec::new(),
        };
        wire.threads = vec![wire.carry(End::Server), wire.carry(End::Client)];
        wire
    }

    /// Carries packets to one end, on a thread of its own.
    fn carry(&self, to: End) -> JoinHandle<()> {
        let [inner, outer] = self.sockets.each_ref().map(|socket| socket.try_clone().unwrap());
        let (direction, over) = (self.toward(to).clone(), self.over.clone());
        let client = self.client.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !over.load(Relaxed) {
                let from = if to == End::Server { &outer } else { &inner };
                // An error here is a timeout, or what ICMP says of a server that is gone.
                let Ok((len, source)) = from.recv_from(&mut buffer) else { continue };
                if to == End::Server {
                    *client.lock().unwrap() = Some(source);
                }
                let packet = &buffer[..len];
                let fate = (direction.rule.lock().unwrap())(packet);
                direction.seen.lock().unwrap().push((Instant::now(), packet.to_vec()));
                match fate {
                    Fate::Passes => pass(to, &inner, &outer, &client, packet),
                    Fate::Waits => direction.waiting.lock().unwrap().push(packet.to_vec()),
                    Fate::IsLost => {}
                }
            }
        })
    }

    fn toward(&self, end: End) -> &Arc<Direction> {
        match end {
            End::Server => &self.to_server,
            End::Client => &self.to_client,
        }
    }

    /// What becomes of packets to `end` from now on.
    pub fn rule(&self, end: End, rule: impl FnMut(&[u8]) -> Fate + Send + 'static) {
        *self.toward(end).rule.lock().unwrap() = Box::new(rule);
    }

    /// Nothing gets through, or everything does.
    pub fn cut(&self, is_cut: bool) {
        let fate = if is_cut { Fate::IsLost } else { Fate::Passes };
        for end in [End::Server, End::Client] {
            self.rule(end, move |_| fate);
        }
    }

    /// Waits until so many packets to `end` wait.
    pub fn expect_waiting(&self, end: End, count: usize) {
        let waiting = || self.toward(end).waiting.lock().unwrap().len();
        wait_until(|| waiting() >= count, || format!("{} of {count} packets wait", waiting()));
    }

    /// Sends what waits for `end` on its way, the latest first.
    pub fn release(&self, end: End) {
        let [inner, outer] = &self.sockets;
        let waiting = std::mem::take(&mut *self.toward(end).waiting.lock().unwrap());
        for packet in waiting.into_iter().rev() {
            pass(end, inner, outer, &self.client, &packet);
        }
    }

    /// Whether a packet to `end` was seen of which this is true.
    pub fn saw(&self, end: End, is_it: impl Fn(&[u8]) -> bool) -> bool {
        self.count(end, is_it) > 0
    }

    /// How many were.
    pub fn count(&self, end: End, is_it: impl Fn(&[u8]) -> bool) -> usize {
        self.lengths(end, is_it).len()
    }

    /// The lengths of those.
    pub fn lengths(&self, end: End, is_it: impl Fn(&[u8]) -> bool) -> Vec<usize> {
        let seen = self.toward(end).seen.lock().unwrap();
        let such = seen.iter().filter(|(_, packet)| is_it(packet));
        such.map(|(_, packet)| packet.len()).collect()
    }

    /// When packets to `end` came.
    pub fn times(&self, end: End) -> Vec<Instant> {
        self.toward(end).seen.lock().unwrap().iter().map(|(time, _)| *time).collect()
    }

    /// From now on what leaves an end in one piece (UDP_SEGMENT) is seen in one, and goes no
    /// further.
    pub fn catch_bursts(&self) {
        self.cut(true);
        for socket in &self.sockets {
            setsockopt(socket, UdpGroSegment, &true).unwrap();
        }
    }
}

fn pass(
    to: End,
    inner: &UdpSocket,
    outer: &UdpSocket,
    client: &Mutex<Option<SocketAddr>>,
    packet: &[u8],
) {
    let _ = match (to, *client.lock().unwrap()) {
        (End::Server, _) => inner.send(packet),
        (End::Client, Some(client)) => outer.send_to(packet, client),
        (End::Client, None) => Ok(0),
    };
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
