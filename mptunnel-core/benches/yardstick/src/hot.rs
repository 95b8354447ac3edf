// SPDX-License-Identifier: BSD-2-Clause
//! The part of the data path that every datagram takes, without sockets: sealing and opening in a
//! session that a client and a server of the simulator have made.

use mptunnel_core::proto::config::{ClientConfig, ClientKeys, ServerConfig, ServerKey};
use mptunnel_core::proto::crypto::Psk;
use mptunnel_core::proto::dataplane::{DataPlane, LastSession, Received};
use mptunnel_core::proto::drop::DropReason;
use mptunnel_core::proto::route::Route;
use mptunnel_core::proto::time::Time;
use mptunnel_core::proto::view::{PacketSink, SendView};
use mptunnel_core::sim::world::{PathSpec, World};
use std::sync::Arc;
use std::time::Duration;

/// A client that sends and a server that receives.
pub struct Hot {
    /// What the client sends with.
    pub view: Arc<SendView>,
    /// What the server receives with.
    pub plane: Arc<DataPlane>,
    route: Route,
    last: LastSession,
    here: Time,
    there: Time,
    _world: World,
}

/// Room for one packet.
#[derive(Default)]
pub struct Room {
    /// The packet.
    pub packet: Vec<u8>,
}

impl PacketSink for Room {
    #[inline]
    fn room(&mut self, len: usize) -> &mut [u8] {
        if self.packet.len() != len {
            self.packet.resize(len, 0);
        }
        &mut self.packet
    }

    #[inline]
    fn commit(&mut self, _: usize, _: u32) {}
}

/// From one datagram to the next.
const STEP: Duration = Duration::from_micros(1);

impl Hot {
    /// A session over `paths` paths.
    pub fn over(paths: usize) -> Hot {
        let key = || Psk::new([1; 32]).expect("not all zero");
        let mut world = World::new(1);
        let server = world.add_server(move || ServerConfig::new(vec![ServerKey::Psk(key())]));
        let specs = vec![PathSpec::rtt(Duration::from_millis(2)); paths];
        let config = move || ClientConfig::new(ClientKeys::Psk(key()));
        let client = world.add_client(server, specs, config);
        world.start_all();
        world.run_for(Duration::from_secs(1));
        let machine = world.client(client).client().expect("it runs");
        let view = machine.view().get().expect("it has a session");
        let peer = world.server(server).peer_of(client).expect("it is known");
        let machine = world.server(server).server().expect("it runs");
        let route = machine.peer(peer).and_then(|peer| peer.route(0)).expect("it is proven");
        let plane = world.server(server).plane().expect("it runs").clone();
        Hot {
            view,
            plane,
            route,
            last: LastSession::batching(),
            here: world.client(client).local(world.now()),
            there: world.server(server).local(world.now()),
            _world: world,
        }
    }

    /// Seals `payload` into `room`.
    #[inline]
    pub fn send(&mut self, payload: &[u8], room: &mut Room) {
        self.here = self.here + STEP;
        self.view.send(self.here, 0, payload, room).expect("there is a path");
    }

    /// Opens `packet` in place; the length of the datagram.
    #[inline]
    pub fn receive(&mut self, packet: &mut [u8]) -> usize {
        self.there = self.there + STEP;
        match self.plane.receive(self.there, &self.route, packet, &mut self.last) {
            Received::Data { payload, .. } => payload.bytes().len(),
            _ => panic!("a datagram was sent"),
        }
    }

    /// Takes a copy of what was received before. It stays as it is.
    #[inline]
    pub fn receive_copy(&mut self, packet: &mut [u8]) {
        self.there = self.there + STEP;
        match self.plane.receive(self.there, &self.route, packet, &mut self.last) {
            Received::Dropped(DropReason::Duplicate) => {}
            _ => panic!("a copy was sent"),
        }
    }
}
