// SPDX-License-Identifier: BSD-2-Clause
//! Out of the links into the machines, as the receive threads do it.

use super::agenda::Actor;
use super::parcel::{Cargo, Parcel};
use super::{ClientNo, Direction, PathNo, ServerNo, World};
use crate::proto::dataplane::{DataPlane, Received};
use crate::proto::event::PeerId;
use crate::proto::reorder::Place;
use crate::proto::route::Route;
use crate::proto::time::Time;
use crate::proto::wire::index_of;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where every server listens.
const SERVER_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1));

/// What became of a packet.
enum Outcome {
    /// It was taken and was authentic; from the peer at a server.
    Taken(PeerId),
    /// It was not.
    Refused,
}

impl World {
    pub(super) fn deliver_due(&mut self, path: PathNo, direction: Direction) {
        let now = self.now;
        while let Some(parcel) = self.lane(path, direction).link.poll(now) {
            match direction {
                Direction::Up => {
                    let server = self.clients[path.client.0].server;
                    self.arrive_at_server(server, Some(path.client), &parcel);
                }
                Direction::Down => self.arrive_at_client(path, &parcel),
            }
        }
        let due = self.lane(path, direction).link.poll_timeout();
        self.agenda.set(Actor::Lane(path, direction), due);
    }

    /// An attacker's packet reaches a server, from whatever address he likes.
    pub fn inject_at_server(&mut self, server: ServerNo, source: SocketAddr, bytes: &[u8]) {
        let parcel = Parcel::new(std::rc::Rc::new(bytes.to_vec()), source, None);
        self.arrive_at_server(server, None, &parcel);
    }

    /// An attacker's packet reaches a client, on one of its paths.
    pub fn inject_at_client(&mut self, path: PathNo, bytes: &[u8]) {
        let source = self.clients[path.client.0].paths[path.index].source(Direction::Down);
        let parcel = Parcel::new(std::rc::Rc::new(bytes.to_vec()), source, None);
        self.arrive_at_client(path, &parcel);
    }

    fn arrive_at_server(&mut self, server: ServerNo, from: Option<ClientNo>, parcel: &Parcel) {
        self.note(parcel.bytes());
        let now = self.now;
        let host = &mut self.servers[server.0];
        let local = host.clock.show(now);
        let Some(process) = &mut host.process else { return };
        if let Some(cargo) = intact(parcel) {
            let incarnation = process.incarnation;
            let plane = &process.plane;
            let openable = || has_keys(plane, local, parcel.bytes());
            self.ledger.arrived(now, cargo, incarnation, openable);
        }
        let route = Route { socket: 0, remote: parcel.source, local: Some(SERVER_IP) };
        let buffer = &mut self.scratch;
        buffer.clear();
        buffer.extend_from_slice(parcel.bytes());
        let len = buffer.len();
        let mut drive = false;
        let mut handed = Vec::new();
        let outcome = match process.plane.receive(local, &route, buffer, &mut process.last) {
            Received::Data { session, flow, number: pn, mark, payload, .. } => {
                if !session.is_confirmed() {
                    drive = true;
                    if !process.machine.promote(local, session) {
                        self.drive_server(server);
                        return;
                    }
                }
                let peer = PeerId(session.peer());
                // Only the library's own flow outlives the client's process.
                if session.is_superseded() && flow != 0 {
                    Outcome::Taken(peer)
                } else {
                    let bytes = payload.bytes();
                    let number = number_of(parcel, bytes);
                    let ledger = &mut self.ledger;
                    let mut hand = |(number, flow), bytes: &[u8]| {
                        ledger.delivered(now, number, flow, bytes);
                        handed.push(number);
                    };
                    match &mut process.order {
                        None => hand((number, flow), bytes),
                        Some(order) => {
                            let era = session.era();
                            let place = Place { peer: peer.0, flow, era, number: pn, mark };
                            order.take(local, place, (number, flow), bytes, &mut hand);
                            drive = true;
                        }
                    }
                    Outcome::Taken(peer)
                }
            }
            Received::Control { session, inner, len } => {
                drive = true;
                let session = session.clone();
                process.machine.handle_control(local, &session, &route, inner, len);
                Outcome::Taken(PeerId(session.peer()))
            }
            Received::Stranger(kind, datagram) => {
                drive = true;
                // Counted before the answer leaves.
                process.watch.on_server_received(route.remote, len, false);
                process.machine.handle_stranger(local, &route, kind, datagram);
                Outcome::Refused
            }
            Received::Stored { session } => {
                drive = true;
                if !session.is_confirmed() {
                    process.machine.promote(local, session);
                }
                Outcome::Taken(PeerId(session.peer()))
            }
            Received::Dropped(_) => {
                process.watch.on_server_received(route.remote, len, false);
                Outcome::Refused
            }
        };
        if !matches!(outcome, Outcome::Refused) {
            process.watch.on_server_received(route.remote, len, true);
        }
        if let Outcome::Taken(peer) = outcome {
            assert!(!parcel.is_damaged(), "P6: a damaged packet was taken");
            if let Some(client) = from.filter(|_| peer.0 != 0) {
                host.peers.insert(client, peer);
            }
        }
        if !handed.is_empty() {
            process.first_in.get_or_insert(now);
        }
        for number in handed {
            self.note_delivery(number);
        }
        if drive {
            self.drive_server(server);
        }
    }

    fn arrive_at_client(&mut self, path: PathNo, parcel: &Parcel) {
        self.note(parcel.bytes());
        let now = self.now;
        let host = &mut self.clients[path.client.0];
        let local = host.clock.show(now);
        let route = host.paths[path.index].route();
        if host.asleep || !host.paths[path.index].has_socket {
            return;
        }
        let Some(process) = &mut host.process else { return };
        if let Some(cargo) = intact(parcel) {
            let incarnation = process.incarnation;
            let plane = &process.plane;
            let openable = || has_keys(plane, local, parcel.bytes());
            self.ledger.arrived(now, cargo, incarnation, openable);
        }
        let buffer = &mut self.scratch;
        buffer.clear();
        buffer.extend_from_slice(parcel.bytes());
        let mut handed = Vec::new();
        match process.plane.receive(local, &route, buffer, &mut process.last) {
            Received::Data { session, flow, number: pn, mark, payload, .. } => {
                assert!(!parcel.is_damaged(), "P6: a damaged packet was taken");
                let bytes = payload.bytes();
                let number = number_of(parcel, bytes);
                let ledger = &mut self.ledger;
                let mut hand = |(number, flow), bytes: &[u8]| {
                    ledger.delivered(now, number, flow, bytes);
                    handed.push(number);
                };
                match &mut process.order {
                    None => hand((number, flow), bytes),
                    Some(order) => {
                        let place = Place { peer: 0, flow, era: session.era(), number: pn, mark };
                        order.take(local, place, (number, flow), bytes, &mut hand);
                    }
                }
                if !handed.is_empty() {
                    process.first_in.get_or_insert(now);
                }
                if process.order.is_some() {
                    self.drive_client(path.client);
                }
            }
            Received::Control { session, inner, .. } => {
                assert!(!parcel.is_damaged(), "P6: a damaged packet was taken");
                let session = session.clone();
                process.machine.handle_control(local, &session, &route, inner);
                self.drive_client(path.client);
            }
            Received::Stranger(kind, datagram) => {
                process.machine.handle_stranger(local, &route, kind, datagram);
                self.drive_client(path.client);
            }
            Received::Stored { .. } | Received::Dropped(_) => {}
        }
        for number in handed {
            self.note_delivery(number);
        }
    }

    /// Hands out what has waited for long enough for those before it.
    pub(super) fn expire_order(&mut self, actor: Actor) {
        let now = self.now;
        let (order, local) = match actor {
            Actor::Client(client) => {
                let host = &mut self.clients[client.0];
                let local = host.clock.show(now);
                (host.process.as_mut().and_then(|p| p.order.as_mut()), local)
            }
            Actor::Server(server) => {
                let host = &mut self.servers[server.0];
                let local = host.clock.show(now);
                (host.process.as_mut().and_then(|p| p.order.as_mut()), local)
            }
            Actor::Lane(..) | Actor::Traffic(_) => return,
        };
        let Some(order) = order else { return };
        let (ledger, mut handed) = (&mut self.ledger, Vec::new());
        order.expire(local, &mut |(number, flow), bytes| {
            ledger.delivered(now, number, flow, bytes);
            handed.push(number);
        });
        for number in handed {
            self.note_delivery(number);
        }
    }

    /// The sender's first datagram has arrived: that is when its application is back.
    fn note_delivery(&mut self, number: u32) {
        let entry = self.ledger.get(number);
        let (client, direction, sender) = (entry.client, entry.direction, entry.sender);
        let server = self.clients[client.0].server;
        let first_out = match direction {
            Direction::Up => {
                let process = self.clients[client.0].process.as_mut();
                process.filter(|p| p.incarnation == sender).map(|p| &mut p.first_out)
            }
            Direction::Down => {
                let process = self.servers[server.0].process.as_mut();
                process.filter(|p| p.incarnation == sender).map(|p| &mut p.first_out)
            }
        };
        if let Some(first_out) = first_out {
            first_out.get_or_insert(self.now);
        }
    }
}

fn intact(parcel: &Parcel) -> Option<Cargo> {
    parcel.cargo.filter(|_| !parcel.is_damaged())
}

fn has_keys(plane: &DataPlane, now: Time, packet: &[u8]) -> bool {
    let session = index_of(packet).and_then(|index| plane.session(index));
    session.is_some_and(|session| session.is_fresh(now))
}

/// Which datagram was delivered: as the packet says or, for an attacker's copy, as its bytes say.
fn number_of(parcel: &Parcel, bytes: &[u8]) -> u32 {
    parcel.cargo.map_or_else(
        || u32::from_le_bytes(*bytes.first_chunk().expect("attackers copy long datagrams only")),
        |cargo| cargo.datagram,
    )
}
