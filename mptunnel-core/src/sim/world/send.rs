// SPDX-License-Identifier: BSD-2-Clause
//! From the machines into the links.

use super::agenda::Actor;
use super::ledger::payload;
use super::net::{Lane, PathNet};
use super::parcel::{Cargo, Parcel};
use super::{Captured, ClientNo, Datagram, Direction, Incarnation, MAX_TURNS, PathNo, ServerNo};
use super::{World, host::Process};
use crate::proto::admission::Admission;
use crate::proto::event::{Reopen, ServerEvent, Transmit};
use crate::proto::pace::Part;
use crate::proto::reorder::Reorder;
use crate::proto::session::Session;
use crate::proto::time::Time;
use crate::proto::view::{PacketSink, SendRefused, SendView, Target};
use std::net::SocketAddr;
use std::rc::Rc;

/// Collects the packets of one datagram, each with the set of its paths.
#[derive(Default)]
pub struct Sink {
    bytes: Vec<u8>,
    /// Packets, in the order in which they were sealed.
    pub packets: Vec<(Vec<u8>, u32)>,
}

impl PacketSink for Sink {
    fn room(&mut self, len: usize) -> &mut [u8] {
        self.bytes.clear();
        self.bytes.resize(len, 0);
        &mut self.bytes
    }

    fn commit(&mut self, len: usize, paths: u32) {
        assert_eq!(len, self.bytes.len(), "what was asked for is what is used");
        self.packets.push((std::mem::take(&mut self.bytes), paths));
    }
}

impl World {
    /// An application sends one datagram; its number in the ledger.
    ///
    /// # Errors
    /// What the sender is told. A machine without a process, or a server that has not heard of the
    /// client yet, has no session.
    pub fn send(
        &mut self,
        client: ClientNo,
        direction: Direction,
        flow: u16,
        size: usize,
    ) -> Result<u32, SendRefused> {
        self.send_over(client, direction, flow, size, None)
    }

    /// As [`send`](Self::send), on these path slots in place of those that the policy chose.
    ///
    /// # Errors
    /// As there.
    pub fn send_over(
        &mut self,
        client: ClientNo,
        direction: Direction,
        flow: u16,
        size: usize,
        paths: Option<u32>,
    ) -> Result<u32, SendRefused> {
        let host = &self.clients[client.0];
        let server = host.server;
        let (view, local) = match direction {
            Direction::Up if host.asleep => return Err(SendRefused::NoSession),
            Direction::Up => (host.view(), host.local(self.now)),
            Direction::Down => {
                let host = &self.servers[server.0];
                (host.view(client), host.local(self.now))
            }
        };
        let mut view = view.and_then(|view| view.get()).ok_or(SendRefused::NoSession)?;
        if let Some(paths) = paths {
            view = view.with_chosen(paths).into();
        }
        let number = self.ledger.next_number();
        let mut sink = Sink::default();
        let resumes = view.ends_a_pause(local);
        let sent = view.send(local, flow, &payload(number, size), &mut sink);
        if sent.is_ok() {
            self.enter(client, direction, flow, size, &view);
            self.send_packets(client, direction, number, &view, sink.packets);
        }
        if resumes {
            self.on_data_after_pause(client, server, direction, local);
        }
        sent.map(|()| number)
    }

    fn enter(
        &mut self,
        client: ClientNo,
        direction: Direction,
        flow: u16,
        size: usize,
        view: &SendView,
    ) {
        let server = self.clients[client.0].server;
        let theirs = view.session.remote_index();
        let up = self.clients[client.0].process.as_ref();
        let down = self.servers[server.0].process.as_ref();
        let knows = |plane: &crate::proto::dataplane::DataPlane| plane.contains(theirs);
        let (sender, receiver) = match direction {
            Direction::Up => {
                let keyed = down.filter(|p| knows(&p.plane)).map(|p| p.incarnation);
                (up.map(|p| p.incarnation), keyed)
            }
            Direction::Down => {
                let keyed = up.filter(|p| knows(&p.plane)).map(|p| p.incarnation);
                (down.map(|p| p.incarnation), keyed)
            }
        };
        let sender = sender.expect("who has a view has a process");
        let mut entry = Datagram::new(client, direction, flow, size);
        (entry.sent_at, entry.sender, entry.receiver) = (self.now, sender, receiver);
        self.ledger.enter(entry);
    }

    fn send_packets(
        &mut self,
        client: ClientNo,
        direction: Direction,
        number: u32,
        view: &SendView,
        packets: Vec<(Vec<u8>, u32)>,
    ) {
        // A whole datagram, if there is one, comes first and on other paths than the pieces.
        let whole = match packets.as_slice() {
            [_] => 1,
            [(_, first), (_, second), ..] if first != second => 1,
            _ => 0,
        };
        let count = (packets.len() - whole) as u8;
        let mut admission = Admission::default();
        for (at, (bytes, paths)) in packets.into_iter().enumerate() {
            let piece = if at < whole { (0, 1) } else { ((at - whole) as u8, count) };
            let cargo = Cargo { datagram: number, piece };
            let now = self.now;
            self.watch_of(client, direction).on_sent(now, &bytes);
            let part = if piece.0 == 0 { Part::First } else { Part::Next };
            let local = self.local_at_sender(client, direction);
            let said = admission.admit(view, local, &bytes, paths, part);
            if said.queued != 0 {
                self.waiting.insert(bytes[..16].to_vec(), cargo);
                self.note_waiting(client, direction);
            }
            let bytes = Rc::new(bytes);
            for target in view.targets.iter().filter(|t| said.now & (1 << t.slot) != 0) {
                let session = &view.session;
                let copies = self.send_now(client, direction, session, target, &bytes, cargo);
                self.ledger.add_copies(number, copies);
            }
        }
    }

    fn local_at_sender(&self, client: ClientNo, direction: Direction) -> Time {
        let host = &self.clients[client.0];
        match direction {
            Direction::Up => host.local(self.now),
            Direction::Down => self.servers[host.server.0].local(self.now),
        }
    }

    /// Something waits for its turn: a timer has to say when that comes.
    fn note_waiting(&mut self, client: ClientNo, direction: Direction) {
        match direction {
            Direction::Up => self.drive_client(client),
            Direction::Down => {
                self.waited_for.insert(client);
                self.drive_server(self.clients[client.0].server);
            }
        }
    }

    fn watch_of(&mut self, client: ClientNo, direction: Direction) -> &mut super::Watch {
        let host = &mut self.clients[client.0];
        let watch = match direction {
            Direction::Up => host.process.as_mut().map(|p| &mut p.watch),
            Direction::Down => self.servers[host.server.0].process.as_mut().map(|p| &mut p.watch),
        };
        watch.expect("who sends is alive")
    }

    /// What the I/O layer does with one packet and one path: socket, counters.
    fn send_now(
        &mut self,
        client: ClientNo,
        direction: Direction,
        session: &Session,
        target: &Target,
        bytes: &Rc<Vec<u8>>,
        cargo: Cargo,
    ) -> u32 {
        let path = match direction {
            Direction::Up => Some(PathNo { client, index: PathNet::index_of(target.route.socket) }),
            Direction::Down => {
                let address = target.route.remote;
                let now = self.now;
                self.watch_of(client, direction).on_server_sent(now, address, bytes);
                self.outer.get(&address).copied()
            }
        };
        let counters = session.path(target.slot);
        match path {
            Some(path) if self.lane(path, direction).faults.slow_socket => {
                counters.on_send_dropped(1);
                0
            }
            Some(path) => {
                counters.on_sent(1, bytes.len() as u64);
                self.put(path, direction, bytes.clone(), Some(cargo));
                1
            }
            None => {
                counters.on_sent(1, bytes.len() as u64);
                self.astray(target.route.remote, bytes);
                0
            }
        }
    }

    fn on_data_after_pause(
        &mut self,
        client: ClientNo,
        server: ServerNo,
        direction: Direction,
        local: Time,
    ) {
        match direction {
            Direction::Up => {
                if let Some(machine) = self.clients[client.0].client_mut() {
                    machine.on_data_after_pause(local);
                }
                self.drive_client(client);
            }
            Direction::Down => {
                let host = &mut self.servers[server.0];
                if let Some(peer) = host.peer_of(client)
                    && let Some(machine) = host.server_mut()
                {
                    machine.on_data_after_pause(local, peer);
                }
                self.drive_server(server);
            }
        }
    }

    pub(super) fn wake_client(&mut self, client: ClientNo) {
        let host = &mut self.clients[client.0];
        let local = host.local(self.now);
        let Some(process) = host.process.as_mut().filter(|_| !host.asleep) else { return };
        process.machine.handle_timeout(local);
        process.wakeups += 1;
        process.note_turn(self.now);
        self.expire_order(Actor::Client(client));
        let view = self.clients[client.0].view().and_then(|view| view.get());
        self.send_waiting(client, Direction::Up, view.as_deref(), local);
        self.drive_client(client);
    }

    /// What the thread does that keeps the pace of paths with a rate.
    fn send_waiting(
        &mut self,
        client: ClientNo,
        direction: Direction,
        view: Option<&SendView>,
        local: Time,
    ) {
        let Some(view) = view else { return };
        let mut packet = Vec::new();
        for target in &view.targets {
            let Some(pace) = &target.pace else { continue };
            while let Some(session) = pace.take(local, &mut packet) {
                if packet.is_empty() {
                    session.path(target.slot).on_send_dropped(1);
                    continue;
                }
                let cargo = self.waiting[&packet[..16]];
                let bytes = Rc::new(packet.clone());
                let copies = self.send_now(client, direction, &session, target, &bytes, cargo);
                self.ledger.add_copies(cargo.datagram, copies);
            }
        }
    }

    pub(super) fn wake_server(&mut self, server: ServerNo) {
        let host = &mut self.servers[server.0];
        let local = host.local(self.now);
        let Some(process) = &mut host.process else { return };
        process.machine.handle_timeout(local);
        process.wakeups += 1;
        process.note_turn(self.now);
        self.expire_order(Actor::Server(server));
        for client in self.waited_for_at(server) {
            let view = self.servers[server.0].view(client).and_then(|view| view.get());
            self.send_waiting(client, Direction::Down, view.as_deref(), local);
            if self.next_turn(client).is_none() {
                self.waited_for.remove(&client);
            }
        }
        self.drive_server(server);
    }

    /// The clients of a server for which packets wait there.
    fn waited_for_at(&self, server: ServerNo) -> Vec<ClientNo> {
        let its = |client: &&ClientNo| self.clients[client.0].server == server;
        self.waited_for.iter().filter(its).copied().collect()
    }

    /// When the first packet may leave that waits for a client at its server.
    fn next_turn(&self, client: ClientNo) -> Option<Time> {
        let host = &self.servers[self.clients[client.0].server.0];
        let view = host.view(client)?.get()?;
        view.targets.iter().filter_map(|target| target.pace.as_ref()?.deadline()).min()
    }

    /// Polls a client until it wants nothing any more but to be woken.
    pub(super) fn drive_client(&mut self, client: ClientNo) {
        loop {
            let host = &mut self.clients[client.0];
            let Some(process) = host.process.as_mut().filter(|_| !host.asleep) else { return };
            if let Some(Transmit { route, bytes }) = process.machine.poll_transmit() {
                process.watch.on_sent(self.now, &bytes);
                let path = PathNo { client, index: PathNet::index_of(route.socket) };
                let is_open = host.paths[path.index].is_open_on(&route);
                if is_open && !self.lane(path, Direction::Up).faults.slow_socket {
                    self.put(path, Direction::Up, Rc::new(bytes), None);
                }
            } else if let Some(event) = process.machine.poll_event() {
                host.events.push((self.now, event));
            } else if let Some(wish) = process.machine.poll_reopen() {
                self.reopen(client, wish);
            } else {
                let waiting = process.order.as_ref().and_then(Reorder::deadline);
                let view = process.machine.view().get();
                let targets = view.iter().flat_map(|view| &view.targets);
                let turns = targets.filter_map(|target| target.pace.as_ref()?.deadline());
                let timeout = process.machine.poll_timeout();
                let due = timeout.into_iter().chain(waiting).chain(turns).min();
                let due = due.map(|at| host.clock.when(at));
                self.agenda.set(Actor::Client(client), due.map(|at| at.max(self.now)));
                return;
            }
        }
    }

    /// What the I/O layer does with a wish for a new socket.
    fn reopen(&mut self, client: ClientNo, wish: Reopen) {
        let host = &mut self.clients[client.0];
        host.reopened += 1;
        let Some(index) = host.paths.iter().position(|p| p.id == Some(wish.path)) else { return };
        let path = PathNo { client, index };
        if wish.fresh_port {
            self.rebind(path);
        }
        let local = self.clients[client.0].local(self.now);
        let net = &mut self.clients[client.0].paths[index];
        let (route, max_packet) = (net.make_socket(), net.spec.max_packet);
        if let Some(machine) = self.clients[client.0].client_mut() {
            machine.path_opened(local, wish.path, route, max_packet);
        }
    }

    /// Polls a server until it wants nothing any more but to be woken.
    pub(super) fn drive_server(&mut self, server: ServerNo) {
        let local = self.servers[server.0].local(self.now);
        let turns: Vec<Time> =
            self.waited_for_at(server).into_iter().filter_map(|c| self.next_turn(c)).collect();
        loop {
            let host = &mut self.servers[server.0];
            let Some(process) = &mut host.process else { return };
            if process.machine.take_pacer_wish() {
                process.machine.start_pacing(local);
            }
            // The news first: the watch must know that an address is proven before a packet goes
            // there that only a proven one may get.
            if let Some(event) = process.machine.poll_event() {
                self.on_server_event(server, event);
            } else if let Some(Transmit { route, bytes }) = process.machine.poll_transmit() {
                process.watch.on_sent(self.now, &bytes);
                process.watch.on_server_sent(self.now, route.remote, &bytes);
                self.send_from_server(route.remote, bytes);
            } else {
                let waiting = process.order.as_ref().and_then(Reorder::deadline);
                let timeout = process.machine.poll_timeout();
                let due = timeout.into_iter().chain(waiting).chain(turns).min();
                let due = due.map(|at| host.clock.when(at));
                self.agenda.set(Actor::Server(server), due.map(|at| at.max(self.now)));
                return;
            }
        }
    }

    fn send_from_server(&mut self, address: SocketAddr, bytes: Vec<u8>) {
        match self.outer.get(&address).copied() {
            None => self.astray(address, &bytes),
            Some(path) if self.lane(path, Direction::Down).faults.slow_socket => {}
            Some(path) => self.put(path, Direction::Down, Rc::new(bytes), None),
        }
    }

    fn on_server_event(&mut self, server: ServerNo, event: ServerEvent) {
        let host = &mut self.servers[server.0];
        host.events.push((self.now, event.clone()));
        let Some(process) = &mut host.process else { return };
        if let ServerEvent::PathUp(peer, slot, route) | ServerEvent::PathMoved(peer, slot, route) =
            event
        {
            process.watch.on_proven(route.remote);
            // What the I/O layer learns from its interface.
            if let Some(path) = self.outer.get(&route.remote) {
                let spec = &self.clients[path.client.0].paths[path.index].spec;
                let local = host.clock.show(self.now);
                process.machine.set_path_mtu(local, peer, slot, spec.max_packet);
            }
        }
    }

    fn astray(&mut self, address: SocketAddr, bytes: &[u8]) {
        self.note(bytes);
        self.strays.packets += 1;
        self.strays.bytes += bytes.len() as u64;
        self.strays.last = Some((address, bytes.to_vec()));
    }

    pub(super) fn lane(&mut self, path: PathNo, direction: Direction) -> &mut Lane {
        let net = &mut self.clients[path.client.0].paths[path.index];
        match direction {
            Direction::Up => &mut net.up,
            Direction::Down => &mut net.down,
        }
    }

    /// Puts a packet into a link.
    fn put(
        &mut self,
        path: PathNo,
        direction: Direction,
        bytes: Rc<Vec<u8>>,
        cargo: Option<Cargo>,
    ) {
        let now = self.now;
        let source = self.clients[path.client.0].paths[path.index].source(direction);
        let parcel = Parcel::new(bytes, source, cargo);
        if let Some(captured) = &mut self.captured {
            captured.push(Captured { at: now, path, direction, parcel: parcel.clone() });
        }
        let lane = self.lane(path, direction);
        lane.send(now, parcel);
        let due = lane.link.poll_timeout();
        self.agenda.set(Actor::Lane(path, direction), due);
    }
}

impl<M> Process<M> {
    /// The timer went off.
    ///
    /// # Panics
    /// If it goes off again and again while time stands still: then the machine's `poll_timeout`
    /// names a moment at which it does nothing.
    fn note_turn(&mut self, now: Time) {
        if self.turns.0 != now {
            self.turns = (now, 0);
        }
        self.turns.1 += 1;
        let Incarnation(number) = self.incarnation;
        assert!(self.turns.1 <= MAX_TURNS, "poll_timeout of process {number} stands still");
    }
}
