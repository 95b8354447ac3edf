// SPDX-License-Identifier: BSD-2-Clause
//! A client and a server joined by a wire with next to no delay, on which the test holds, drops and forges
//! what it likes. For whole networks there is the simulator; this is for single messages.

#![allow(dead_code, reason = "every test file uses another part of it")]

use mptunnel_core::proto::client::{Client, PathSettings};
use mptunnel_core::proto::config::{ClientConfig, ClientKeys, ServerConfig, ServerKey};
use mptunnel_core::proto::crypto::Psk;
use mptunnel_core::proto::dataplane::{DataPlane, LastSession, Received};
use mptunnel_core::proto::event::{ClientEvent, PathId, PeerId, Reopen, ServerEvent};
use mptunnel_core::proto::frame::FrameList;
use mptunnel_core::proto::route::Route;
use mptunnel_core::proto::server::Server;
use mptunnel_core::proto::session::Session;
use mptunnel_core::proto::time::Time;
use mptunnel_core::sim::rng::Rng;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub const MS: Duration = Duration::from_millis(1);
pub const S: Duration = Duration::from_secs(1);
pub const MTU: usize = 1_472;

/// A datagram on the wire, and the client's socket that it left from or is for.
#[derive(Clone)]
pub struct Wire {
    pub path: u32,
    pub bytes: Vec<u8>,
}

/// Both ends.
pub struct Pair {
    pub now: Time,
    pub client: Client,
    pub server: Server,
    pub client_plane: Arc<DataPlane>,
    pub server_plane: Arc<DataPlane>,
    client_last: LastSession,
    pub server_last: LastSession,
    pub paths: Vec<PathId>,
    /// Sent and not delivered yet.
    pub up: Vec<Wire>,
    pub down: Vec<Wire>,
    /// What the applications got, with its flow.
    pub got_up: Vec<(u16, Vec<u8>)>,
    pub got_down: Vec<(u16, Vec<u8>)>,
    pub client_events: Vec<(Time, ClientEvent)>,
    pub server_events: Vec<(Time, ServerEvent)>,
    pub reopens: Vec<(Time, Reopen)>,
    /// How often a timer rang.
    pub rings: u32,
    pub server_alive: bool,
}

pub fn psk() -> Psk {
    Psk::new([1; 32]).unwrap()
}

pub fn client_config() -> ClientConfig {
    ClientConfig { name: Some("client".to_owned()), ..ClientConfig::new(ClientKeys::Psk(psk())) }
}

pub fn server_config() -> ServerConfig {
    ServerConfig::new(vec![ServerKey::Psk(psk())])
}

/// Where the server sees the client's socket.
pub fn at_server(path: u32) -> Route {
    let remote = SocketAddr::from(([10, 1, 0, path as u8], 5_000));
    Route { socket: 0, remote, local: None }
}

fn at_client(path: u32) -> Route {
    Route { socket: path, remote: SocketAddr::from(([10, 0, 0, 1], 4_000)), local: None }
}

impl Pair {
    /// Both are there, nothing was said yet.
    pub fn new(paths: u32) -> Pair {
        Pair::with(paths, client_config(), server_config())
    }

    pub fn with(paths: u32, client: ClientConfig, server: ServerConfig) -> Pair {
        let (client_plane, server_plane) = (Arc::<DataPlane>::default(), Arc::default());
        let now = Time::from_micros(1_000_000_000);
        let mut client = Client::new(client, client_plane.clone(), Box::new(Rng::new(1)));
        let server = Server::new(server, Arc::clone(&server_plane), Box::new(Rng::new(2)));
        let ids = (0..paths)
            .map(|path| {
                let id = client.add_path(now, PathSettings::default()).unwrap();
                client.path_opened(now, id, at_client(path), MTU);
                id
            })
            .collect();
        Pair {
            now,
            client,
            server,
            client_plane,
            server_plane,
            client_last: LastSession::default(),
            server_last: LastSession::default(),
            paths: ids,
            up: Vec::new(),
            down: Vec::new(),
            got_up: Vec::new(),
            got_down: Vec::new(),
            client_events: Vec::new(),
            server_events: Vec::new(),
            reopens: Vec::new(),
            rings: 0,
            server_alive: true,
        }
    }

    /// A pair with a session and proven paths.
    pub fn connected(paths: u32) -> Pair {
        let mut pair = Pair::new(paths);
        pair.run(S);
        assert!(pair.client.session().is_some());
        pair
    }

    /// Another server process in place of the one that ran.
    pub fn restart_server(&mut self) {
        self.server_plane = Arc::default();
        self.server_last = LastSession::default();
        self.server =
            Server::new(server_config(), self.server_plane.clone(), Box::new(Rng::new(3)));
    }

    /// Another process of the client in place of the one that ran, with the same paths.
    pub fn restart_client(&mut self) {
        self.client_plane = Arc::default();
        self.client_last = LastSession::default();
        let (config, plane) = (client_config(), self.client_plane.clone());
        self.client = Client::new(config, plane, Box::new(Rng::new(4)));
        for path in 0..self.paths.len() as u32 {
            let id = self.client.add_path(self.now, PathSettings::default()).unwrap();
            self.client.path_opened(self.now, id, at_client(path), MTU);
            self.paths[path as usize] = id;
        }
    }

    /// Takes what both ends have to say.
    pub fn collect(&mut self) {
        while let Some(t) = self.client.poll_transmit() {
            self.up.push(Wire { path: t.route.socket, bytes: t.bytes });
        }
        while let Some(t) = self.server.poll_transmit() {
            let SocketAddr::V4(to) = t.route.remote else { unreachable!() };
            self.down.push(Wire { path: u32::from(to.ip().octets()[3]), bytes: t.bytes });
        }
        while let Some(event) = self.client.poll_event() {
            self.client_events.push((self.now, event));
        }
        while let Some(event) = self.server.poll_event() {
            self.server_events.push((self.now, event));
        }
        while let Some(reopen) = self.client.poll_reopen() {
            self.reopens.push((self.now, reopen));
        }
    }

    /// Delivers until nobody has anything more to say.
    pub fn settle(&mut self) {
        self.collect();
        while !self.up.is_empty() || !self.down.is_empty() {
            // Not at once: an answer in the same microsecond would be no news.
            self.now = self.now + Duration::from_micros(10);
            for wire in std::mem::take(&mut self.up) {
                self.deliver_up(wire);
            }
            for wire in std::mem::take(&mut self.down) {
                self.deliver_down(wire);
            }
            self.collect();
        }
    }

    pub fn deliver_up(&mut self, mut wire: Wire) {
        if !self.server_alive {
            return;
        }
        let route = at_server(wire.path);
        let (now, server) = (self.now, &mut self.server);
        match self.server_plane.receive(now, &route, &mut wire.bytes, &mut self.server_last) {
            Received::Data { session, flow, payload, .. } => {
                if session.is_confirmed() || server.promote(now, session) {
                    self.got_up.push((flow, payload.bytes().to_vec()));
                }
            }
            Received::Control { session, inner, len } => {
                server.handle_control(now, session, &route, inner, len);
            }
            Received::Stranger(kind, bytes) => server.handle_stranger(now, &route, kind, bytes),
            Received::Stored { session } => {
                if !session.is_confirmed() {
                    server.promote(now, session);
                }
            }
            Received::Dropped(_) => {}
        }
    }

    pub fn deliver_down(&mut self, mut wire: Wire) {
        let route = at_client(wire.path);
        let (now, client) = (self.now, &mut self.client);
        match self.client_plane.receive(now, &route, &mut wire.bytes, &mut self.client_last) {
            Received::Data { flow, payload, .. } => {
                self.got_down.push((flow, payload.bytes().to_vec()));
            }
            Received::Control { session, inner, .. } => {
                client.handle_control(now, session, &route, inner);
            }
            Received::Stranger(kind, bytes) => client.handle_stranger(now, &route, kind, bytes),
            Received::Stored { .. } | Received::Dropped(_) => {}
        }
    }

    /// Lets time pass, with everything delivered at once.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let timeouts = [self.client.poll_timeout(), self.server.poll_timeout()];
            let next = timeouts.into_iter().flatten().min().unwrap_or(Time::NEVER);
            if next > end {
                break;
            }
            self.rings += 1;
            assert!(self.rings < 1_000_000, "a timer rings all the time");
            self.now = self.now.max(next);
            self.client.handle_timeout(self.now);
            if self.server_alive {
                self.server.handle_timeout(self.now);
            }
        }
        self.now = self.now.max(end);
        self.client.handle_timeout(self.now);
        if self.server_alive {
            self.server.handle_timeout(self.now);
        }
        self.settle();
    }

    pub fn peer(&self) -> PeerId {
        self.server.peers().next().expect("a client is there").id
    }

    /// The session that the client sends in, and the one that the server sends in.
    pub fn client_session(&self) -> Arc<Session> {
        self.client.session().expect("a session").clone()
    }

    pub fn server_session(&self) -> Arc<Session> {
        self.server.peer(self.peer()).expect("a client").current.clone()
    }

    /// Something that the client, or whoever has its keys, says on a path.
    pub fn client_says(&mut self, path: u32, frames: FrameList) {
        let (_, bytes) = self.client_session().seal_ctrl(self.now, frames.finish()).unwrap();
        self.up.push(Wire { path, bytes });
    }

    /// Something that the server, or whoever has its keys, says on a path.
    pub fn server_says(&mut self, path: u32, frames: FrameList) {
        let (_, bytes) = self.server_session().seal_ctrl(self.now, frames.finish()).unwrap();
        self.down.push(Wire { path, bytes });
    }

    /// Sends a datagram up, on the path given only.
    pub fn send_up(&mut self, path: u32, flow: u16, payload: &[u8]) {
        let bytes = data(&self.client_session(), flow, payload);
        self.up.push(Wire { path, bytes });
    }

    pub fn send_down(&mut self, path: u32, flow: u16, payload: &[u8]) {
        let bytes = data(&self.server_session(), flow, payload);
        self.down.push(Wire { path, bytes });
    }

    pub fn client_told(&self, is: impl Fn(&ClientEvent) -> bool) -> usize {
        self.client_events.iter().filter(|(_, event)| is(event)).count()
    }

    pub fn server_told(&self, is: impl Fn(&ServerEvent) -> bool) -> usize {
        self.server_events.iter().filter(|(_, event)| is(event)).count()
    }
}

/// One sealed DATA packet.
pub fn data(session: &Session, flow: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 36 + payload.len()];
    let pn = session.reserve().unwrap();
    session.seal_data(pn, flow, 0, &[], payload, &mut bytes).unwrap();
    bytes
}
