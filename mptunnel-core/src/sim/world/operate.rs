// SPDX-License-Identifier: BSD-2-Clause
//! What an operator, a user or fate does to machines and paths.

use super::agenda::Actor;
use super::host::{Clock, Process};
use super::net::{Faults, PathNet, PathSpec};
use super::{ClientHost, ClientNo, Direction, PathNo, ServerHost, ServerNo, World};
use crate::proto::client::Client;
use crate::proto::config::{ClientConfig, ServerConfig};
use crate::proto::dataplane::DataPlane;
use crate::proto::server::Server;
use crate::proto::time::Time;
use crate::sim::link::LinkConfig;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

impl World {
    /// Adds a machine for a server; `config` is asked at each start.
    pub fn add_server(&mut self, config: impl Fn() -> ServerConfig + 'static) -> ServerNo {
        let number = ServerNo(self.servers.len());
        let clock = self.any_clock(&format!("{number:?}"));
        self.servers.push(ServerHost {
            config: Box::new(config),
            clock,
            process: None,
            events: Vec::new(),
            peers: HashMap::new(),
        });
        number
    }

    /// Adds a machine for a client of `server`; `config` is asked at each start.
    pub fn add_client(
        &mut self,
        server: ServerNo,
        paths: impl IntoIterator<Item = PathSpec>,
        config: impl Fn() -> ClientConfig + 'static,
    ) -> ClientNo {
        let client = ClientNo(self.clients.len());
        let clock = self.any_clock(&format!("{client:?}"));
        let mut nets = Vec::new();
        for (index, spec) in paths.into_iter().enumerate() {
            let no = PathNo { client, index };
            let outer = self.new_address(index);
            self.outer.insert(outer, no);
            nets.push(PathNet::new(no, spec, outer, &self.rng));
        }
        self.clients.push(ClientHost {
            config: Box::new(config),
            server,
            clock,
            paths: nets,
            process: None,
            events: Vec::new(),
            asleep: false,
            reopened: 0,
        });
        client
    }

    /// Clocks count from the start of a machine, which nobody else knows.
    fn any_clock(&self, label: &str) -> Clock {
        let days = 86_400_000_000;
        let shown = self.rng.fork(label).fork("clock").range(1_000_000..100 * days);
        Clock::showing(self.now, Time::from_micros(shown))
    }

    /// Sets the clock of a client's machine. Takes effect with the next start of a client there:
    /// a process whose clock jumps back is not what the protocol promises to bear.
    pub fn set_client_clock(&mut self, client: ClientNo, shown: Time) {
        self.kill_client(client);
        self.clients[client.0].clock = Clock::showing(self.now, shown);
    }

    /// Sets the clock of a server's machine; see [`set_client_clock`](Self::set_client_clock).
    pub fn set_server_clock(&mut self, server: ServerNo, shown: Time) {
        self.kill_server(server);
        self.servers[server.0].clock = Clock::showing(self.now, shown);
    }

    /// Starts a server, all of whose sockets are bound at once.
    pub fn start_server(&mut self, server: ServerNo) {
        let incarnation = self.new_incarnation();
        let entropy = Box::new(self.rng.fork(&format!("{incarnation:?}")));
        let host = &mut self.servers[server.0];
        let plane = Arc::new(DataPlane::default());
        let machine = Server::new((host.config)(), plane.clone(), entropy);
        host.peers.clear();
        let hold = machine.reorder();
        host.process = Some(Process::new(incarnation, self.now, plane, machine, hold));
        self.drive_server(server);
    }

    /// Starts a client with all its paths.
    pub fn start_client(&mut self, client: ClientNo) {
        let incarnation = self.new_incarnation();
        let entropy = Box::new(self.rng.fork(&format!("{incarnation:?}")));
        let host = &mut self.clients[client.0];
        let now = host.local(self.now);
        let plane = Arc::new(DataPlane::default());
        let mut machine = Client::new((host.config)(), plane.clone(), entropy);
        for path in &mut host.paths {
            path.id = machine.add_path(now, path.spec.settings.clone());
            path.has_socket = false;
        }
        let hold = machine.reorder();
        host.process = Some(Process::new(incarnation, self.now, plane, machine, hold));
        for index in 0..host.paths.len() {
            self.open_path(PathNo { client, index });
        }
        self.drive_client(client);
    }

    /// Starts all machines that are off: the servers first.
    pub fn start_all(&mut self) {
        for number in 0..self.servers.len() {
            if self.servers[number].process.is_none() {
                self.start_server(ServerNo(number));
            }
        }
        for number in 0..self.clients.len() {
            if self.clients[number].process.is_none() {
                self.start_client(ClientNo(number));
            }
        }
    }

    /// `kill -9`: the server's state is lost.
    pub fn kill_server(&mut self, server: ServerNo) {
        self.servers[server.0].process = None;
        self.servers[server.0].peers.clear();
        self.agenda.set(Actor::Server(server), None);
    }

    /// `SIGTERM`: the server tells its clients that it may come back, and is gone.
    pub fn stop_server(&mut self, server: ServerNo) {
        let host = &mut self.servers[server.0];
        let now = host.local(self.now);
        if let Some(machine) = host.server_mut() {
            machine.close(now);
            self.drive_server(server);
        }
        self.kill_server(server);
    }

    /// `kill -9`: the client's state is lost, and its next sockets have other ports.
    pub fn kill_client(&mut self, client: ClientNo) {
        if self.clients[client.0].process.take().is_none() {
            return;
        }
        self.agenda.set(Actor::Client(client), None);
        for index in 0..self.clients[client.0].paths.len() {
            self.clients[client.0].paths[index].has_socket = false;
            self.rebind(PathNo { client, index });
        }
    }

    /// The client says goodbye for good, and is gone.
    pub fn stop_client(&mut self, client: ClientNo) {
        let host = &mut self.clients[client.0];
        let now = host.local(self.now);
        if let Some(machine) = host.client_mut() {
            machine.say_goodbye(now);
            machine.close();
            self.drive_client(client);
        }
        self.kill_client(client);
    }

    /// The client's machine goes to sleep: nothing runs, nothing is received, its clock goes on.
    pub fn suspend_client(&mut self, client: ClientNo) {
        self.clients[client.0].asleep = true;
        self.agenda.set(Actor::Client(client), None);
    }

    /// The client's machine wakes up.
    pub fn resume_client(&mut self, client: ClientNo) {
        self.clients[client.0].asleep = false;
        self.wake_client(client);
    }

    /// The I/O layer of a client got a socket for a path.
    pub fn open_path(&mut self, path: PathNo) {
        let host = &mut self.clients[path.client.0];
        let now = host.local(self.now);
        let net = &mut host.paths[path.index];
        let (route, max_packet) = (net.make_socket(), net.spec.max_packet);
        if let (Some(id), Some(process)) = (net.id, &mut host.process) {
            process.machine.path_opened(now, id, route, max_packet);
        }
        self.drive_client(path.client);
    }

    /// The client's application gives up a path; until [`readd_path`](Self::readd_path) it is not
    /// used.
    pub fn remove_path(&mut self, path: PathNo) {
        let host = &mut self.clients[path.client.0];
        let now = host.local(self.now);
        let net = &mut host.paths[path.index];
        net.has_socket = false;
        if let (Some(id), Some(process)) = (net.id.take(), &mut host.process) {
            process.machine.remove_path(now, id);
        }
        self.drive_client(path.client);
    }

    /// The client's application adds a path that it gave up before; to the client it is a new one.
    pub fn readd_path(&mut self, path: PathNo) {
        self.rebind(path);
        let host = &mut self.clients[path.client.0];
        let now = host.local(self.now);
        let net = &mut host.paths[path.index];
        if let (None, Some(process)) = (net.id, &mut host.process) {
            net.id = process.machine.add_path(now, net.spec.settings.clone());
        }
        self.open_path(path);
    }

    /// The server's application changes something.
    pub fn with_server(&mut self, server: ServerNo, change: impl FnOnce(&mut Server, Time)) {
        let host = &mut self.servers[server.0];
        let now = host.local(self.now);
        if let Some(machine) = host.server_mut() {
            change(machine, now);
        }
        self.drive_server(server);
    }

    /// The server's application ends the session of a client for good.
    pub fn dismiss(&mut self, client: ClientNo) {
        let server = self.clients[client.0].server;
        let host = &mut self.servers[server.0];
        let now = host.local(self.now);
        if let (Some(peer), Some(process)) = (host.peer_of(client), &mut host.process) {
            process.machine.dismiss(now, peer);
        }
        self.drive_server(server);
    }

    /// The I/O layer of a client lost the socket of a path.
    pub fn close_path(&mut self, path: PathNo) {
        let host = &mut self.clients[path.client.0];
        let now = host.local(self.now);
        let net = &mut host.paths[path.index];
        net.has_socket = false;
        if let (Some(id), Some(process)) = (net.id, &mut host.process) {
            process.machine.path_closed(now, id);
        }
        self.drive_client(path.client);
    }

    /// The translator forgets the path: the server sees it under another address from now on, and
    /// what it still sends to the old one is lost.
    pub fn rebind(&mut self, path: PathNo) {
        let fresh = self.new_address(path.index);
        let net = &mut self.clients[path.client.0].paths[path.index];
        let old = std::mem::replace(&mut net.outer, fresh);
        self.outer.remove(&old);
        self.outer.insert(fresh, path);
    }

    /// The bridge of a path is restarted: it has another address, and what was in it is lost.
    pub fn restart_bridge(&mut self, path: PathNo) {
        self.rebind(path);
        let World { rng, clients, .. } = self;
        clients[path.client.0].paths[path.index].lose_flights(rng);
        for direction in [Direction::Up, Direction::Down] {
            self.agenda.set(Actor::Lane(path, direction), None);
        }
    }

    /// Changes how one direction of a path treats packets.
    pub fn set_link(&mut self, path: PathNo, direction: Direction, config: LinkConfig) {
        let now = self.now;
        let lane = self.lane(path, direction);
        lane.link.set_config(now, config);
        let due = lane.link.poll_timeout();
        self.agenda.set(Actor::Lane(path, direction), due);
    }

    /// What is wrong with one direction of a path.
    pub fn faults(&mut self, path: PathNo, direction: Direction) -> &mut Faults {
        &mut self.lane(path, direction).faults
    }

    /// Both directions of a path swallow everything, or do not.
    pub fn set_dark(&mut self, path: PathNo, dark: bool) {
        for direction in [Direction::Up, Direction::Down] {
            self.faults(path, direction).dark = dark;
        }
    }

    /// All paths of a client swallow everything, or do not.
    pub fn set_all_dark(&mut self, client: ClientNo, dark: bool) {
        for path in self.paths_of(client) {
            self.set_dark(path, dark);
        }
    }

    /// The paths of a client's machine.
    pub fn paths_of(&self, client: ClientNo) -> impl Iterator<Item = PathNo> + use<> {
        (0..self.clients[client.0].paths.len()).map(move |index| PathNo { client, index })
    }

    /// Stops everything and waits until no server knows anything any more (I10).
    ///
    /// # Panics
    /// If one still does when all limits of PROTOCOL.md, "Timers and limits" are over.
    pub fn assert_drains(&mut self) {
        self.stop_streams();
        for number in 0..self.clients.len() {
            self.kill_client(ClientNo(number));
        }
        self.run_for(Duration::from_secs(400));
        for host in &self.servers {
            let (Some(server), Some(plane)) = (host.server(), host.plane()) else { continue };
            assert_eq!(server.peers().count(), 0, "I10: peers stay");
            assert_eq!((server.pending_len(), plane.len()), (0, 0), "I10: sessions stay");
            assert_eq!(server.poll_timeout(), None, "I10: a timer stays");
        }
    }
}
