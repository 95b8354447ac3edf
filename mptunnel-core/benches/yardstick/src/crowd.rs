// SPDX-License-Identifier: BSD-2-Clause
//! Thousands of clients that send nothing, in one thread and on two sockets: real sessions, without
//! the threads of as many tunnels.

use crate::library::KEY;
use mptunnel_core::proto::client::{Client, PathSettings};
use mptunnel_core::proto::config::{ClientConfig, ClientKeys};
use mptunnel_core::proto::crypto::Psk;
use mptunnel_core::proto::dataplane::{DataPlane, LastSession, Received};
use mptunnel_core::proto::event::Transmit;
use mptunnel_core::proto::route::Route;
use mptunnel_core::proto::time::Time;
use mptunnel_core::proto::wire::index_of;
use mptunnel_core::sim::rng::Rng;
use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Sets everything aside that keeps strangers from opening thousands of sessions at once.
pub const WELCOMING: &[(&str, &str)] = &[
    ("sessions", "8192"),
    ("handshake-rate", "1000000"),
    ("cookie-threshold", "1000000"),
    ("source-rate", "1000000"),
    ("source-burst", "1000000"),
];

/// The paths of each client.
pub const PATHS: usize = 2;
/// A handshake on loopback takes less.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// Between two looks at the sockets.
const PAUSE: Duration = Duration::from_millis(2);
/// Bytes of the sockets' receive buffers.
const BUFFER: libc::c_int = 16 << 20;

/// Clients of one server.
pub struct Crowd {
    /// One for each path.
    sockets: Vec<UdpSocket>,
    routes: Vec<Route>,
    clients: Vec<(Client, Arc<DataPlane>)>,
    /// Which client has which session.
    by_index: HashMap<u32, usize>,
    /// Whether challenges are answered.
    prove: bool,
    start: Instant,
    /// When each client has something to do. Looking at all of them all the time would keep the
    /// memory busier than the server does.
    due: BTreeSet<(Time, usize)>,
    dues: Vec<Option<Time>>,
}

impl Crowd {
    /// Opens `count` sessions. They are kept only by [`keep`](Self::keep).
    ///
    /// Who does not `prove` its addresses is not probed by the server: it may go away and stays a
    /// session that does nothing.
    pub fn open(server: SocketAddr, count: u64, prove: bool) -> Result<Crowd, Box<dyn Error>> {
        let (mut sockets, mut routes) = (Vec::new(), Vec::new());
        for number in 0..PATHS as u32 {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(server)?;
            socket.set_nonblocking(true)?;
            // SAFETY: the option takes a number, which is there. Whoever is not root gets a smaller
            // buffer, and more is lost.
            unsafe {
                let (level, option) = (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE);
                let bytes = BUFFER;
                let len = size_of_val(&bytes) as libc::socklen_t;
                libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const bytes).cast(), len);
            }
            sockets.push(socket);
            routes.push(Route { socket: number, remote: server, local: None });
        }
        let mut crowd = Crowd {
            sockets,
            routes,
            clients: Vec::new(),
            by_index: HashMap::new(),
            prove,
            start: Instant::now(),
            due: BTreeSet::new(),
            dues: Vec::new(),
        };
        for number in 0..count {
            crowd.add(number)?;
        }
        Ok(crowd)
    }

    /// Answers the server and probes the paths, on a thread, until `over`.
    pub fn keep(mut self, over: Arc<AtomicBool>) -> JoinHandle<io::Result<()>> {
        thread::spawn(move || {
            while !over.load(Relaxed) {
                self.drive()?;
                thread::sleep(PAUSE);
            }
            Ok(())
        })
    }

    /// Long after the beginning of time, or all would seem to have sent something lately.
    fn now(&self) -> Time {
        Time::from_micros(1_000_000_000 + self.start.elapsed().as_micros() as u64)
    }

    fn add(&mut self, number: u64) -> Result<(), Box<dyn Error>> {
        let keys = ClientKeys::Psk(Psk::new(KEY)?);
        let (plane, entropy) = (Arc::<DataPlane>::default(), Box::new(Rng::new(number)));
        let mut client = Client::new(ClientConfig::new(keys), plane.clone(), entropy);
        for route in &self.routes {
            let path = client.add_path(self.now(), PathSettings::default());
            let path = path.ok_or("a client has room for a path")?;
            client.path_opened(self.now(), path, *route, 1_472);
        }
        self.clients.push((client, plane));
        self.dues.push(None);
        let (newest, begun) = (self.clients.len() - 1, Instant::now());
        while self.clients[newest].0.session().is_none() {
            if begun.elapsed() > HANDSHAKE {
                return Err(format!("handshake {number} was not answered").into());
            }
            self.tick(newest)?;
            // Driving all would take longer with each: by the end the first sessions would be over.
            self.read()?;
        }
        // The first packet under the new keys makes the session the client's.
        Ok(self.tick(newest)?)
    }

    /// Reads what came, and does what is due.
    fn drive(&mut self) -> io::Result<()> {
        self.read()?;
        let now = self.now();
        while let Some((_, number)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.tick(number)?;
        }
        Ok(())
    }

    fn tick(&mut self, number: usize) -> io::Result<()> {
        let (now, client) = (self.now(), &mut self.clients[number].0);
        if client.poll_timeout().is_some_and(|at| at <= now) {
            client.handle_timeout(now);
            while client.poll_event().is_some() {}
        }
        self.flush(number)
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 2048];
        for path in 0..PATHS {
            loop {
                let len = match self.sockets[path].recv(&mut buffer) {
                    Ok(len) => len,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                self.receive(path, &mut buffer[..len])?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, path: usize, packet: &mut [u8]) -> io::Result<()> {
        let (now, route) = (self.now(), self.routes[path]);
        let Some(index) = index_of(packet) else { return Ok(()) };
        // Answers to handshakes are the newest client's: it is the only one that waits.
        let known = self.by_index.get(&index).copied();
        if known.is_some() && !self.prove {
            return Ok(());
        }
        let number = known.unwrap_or(self.clients.len() - 1);
        let (client, plane) = &mut self.clients[number];
        match plane.receive(now, &route, packet, &mut LastSession::default()) {
            Received::Control { session, inner, .. } => {
                client.handle_control(now, session, &route, inner);
            }
            Received::Stranger(kind, packet) => {
                client.handle_stranger(now, &route, kind, packet);
                if let Some(session) = client.session() {
                    self.by_index.insert(session.local_index(), number);
                }
            }
            _ => {}
        }
        self.flush(number)
    }

    fn flush(&mut self, number: usize) -> io::Result<()> {
        while let Some(Transmit { route, bytes }) = self.clients[number].0.poll_transmit() {
            match self.sockets[route.socket as usize].send(&bytes) {
                // It is lost, as it may be.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                sent => drop(sent?),
            }
        }
        let next = self.clients[number].0.poll_timeout();
        let before = std::mem::replace(&mut self.dues[number], next);
        if before != next {
            before.map(|at| self.due.remove(&(at, number)));
            next.map(|at| self.due.insert((at, number)));
        }
        Ok(())
    }
}
