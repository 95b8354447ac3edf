// SPDX-License-Identifier: BSD-2-Clause
//! Two ends, each ours or a classic one, and bridges between them, in virtual time.

use crate::old::{Address, Ms, OldClient, OldServer};
use mptunnel_core::PathId;
use mptunnel_core::legacy::{
    Action, BLOCK, Client, Counter, HEADER_LEN, Kind, News, Remote, Server, Timers, Usage, ctl,
    seal,
};
use mptunnel_core::proto::drop::DropCounters;
use mptunnel_core::proto::time::Time;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub const WINDOW: u32 = 1 << 16;

fn timers() -> Timers {
    Timers::new(Duration::from_secs(60))
}

/// The clock of a host that runs for a while already.
fn time(now: Ms) -> Time {
    Time::from_micros((now + 1_000_000) * 1_000)
}

fn packet(counter: &Counter, payload: &[u8], iv: u32) -> Vec<u8> {
    if let Some(last) = counter.wants() {
        counter.reserve(last);
    }
    let mut packet = [&[0; HEADER_LEN], payload].concat();
    seal(&mut packet, Kind::Data, counter.take().unwrap(), iv);
    packet
}

/// Our client with its sockets.
pub struct OurClient {
    pub machine: Client,
    pub counter: Counter,
    pub drops: Arc<DropCounters>,
    /// The port in use and the counters of each path.
    paths: Vec<(u32, Arc<Usage>)>,
    /// Ports that are open, and the path of each.
    open: BTreeMap<u32, usize>,
    next_port: u32,
    pub delivered: Vec<Vec<u8>>,
    pub restarts_seen: u32,
    pub iv: u32,
}

impl OurClient {
    pub fn new(now: Ms, paths: usize, last_id: u32, first_port: u32) -> Self {
        let drops = Arc::new(DropCounters::default());
        let mut client = OurClient {
            machine: Client::new(timers(), WINDOW, drops.clone()),
            counter: Counter::after(last_id),
            drops,
            paths: (0..paths).map(|_| (0, Arc::default())).collect(),
            open: BTreeMap::new(),
            next_port: first_port,
            delivered: Vec::new(),
            restarts_seen: 0,
            iv: 0,
        };
        (0..paths).for_each(|path| client.open_port(now, path));
        client
    }

    fn open_port(&mut self, now: Ms, path: usize) {
        let port = self.next_port;
        self.next_port += 1;
        self.open.insert(port, path);
        self.paths[path].0 = port;
        let (id, usage) = (PathId(path as u32 + 1), self.paths[path].1.clone());
        self.machine.opened(time(now), port, id, usage, true);
    }

    /// How many ports were ever opened.
    pub fn ports(&self) -> usize {
        self.next_port as usize
    }

    fn act(&mut self, now: Ms) -> Vec<(Address, Vec<u8>)> {
        let mut out = Vec::new();
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Speak(port) => {
                    let path = self.open[&port];
                    self.paths[path].1.on_sent(time(now), 1, HEADER_LEN as u64, 0);
                    out.push(((path, port), ctl(self.iv).to_vec()));
                }
                Action::Rotate(path) => self.open_port(now, path.0 as usize - 1),
                Action::Close(port) => {
                    self.open.remove(&port);
                    self.machine.closed(port);
                }
                Action::Restarted => self.restarts_seen += 1,
                Action::Connected => {}
            }
        }
        out
    }

    fn send(&mut self, now: Ms, payload: &[u8]) -> Vec<(Address, Vec<u8>)> {
        let packet = packet(&self.counter, payload, self.iv);
        let copies = self.paths.iter().enumerate().map(|(path, (port, usage))| {
            usage.on_sent(time(now), 1, packet.len() as u64, 0);
            ((path, *port), packet.clone())
        });
        copies.collect()
    }
}

/// Our server with its socket.
pub struct OurServer {
    pub machine: Server,
    pub counter: Counter,
    pub drops: Arc<DropCounters>,
    pub delivered: Vec<Vec<u8>>,
    pub restarts_seen: u32,
    pub iv: u32,
}

fn remote((bridge, port): Address) -> Remote {
    let [_, a, b, c] = port.to_be_bytes();
    Remote { socket: 0, address: SocketAddr::from(([10, a, b, c], bridge as u16)) }
}

fn address(remote: Remote) -> Address {
    let SocketAddr::V4(v4) = remote.address else { unreachable!() };
    let [_, a, b, c] = v4.ip().octets();
    (v4.port().into(), u32::from_be_bytes([0, a, b, c]))
}

impl OurServer {
    pub fn new(last_id: u32) -> Self {
        let drops = Arc::new(DropCounters::default());
        OurServer {
            machine: Server::new(timers(), WINDOW, drops.clone()),
            counter: Counter::after(last_id),
            drops,
            delivered: Vec::new(),
            restarts_seen: 0,
            iv: 0,
        }
    }

    pub fn sources(&self) -> Vec<Address> {
        self.machine.sources().map(|(_, remote, ..)| address(remote)).collect()
    }

    fn act(&mut self, now: Ms) -> Vec<(Address, Vec<u8>)> {
        let mut out = Vec::new();
        while let Some(news) = self.machine.poll_news() {
            match news {
                News::Speak(number) => {
                    let source = self.machine.sources().find(|source| source.0 == number);
                    let (_, remote, _, usage) = source.unwrap();
                    usage.on_sent(time(now), 1, HEADER_LEN as u64, 0);
                    out.push((address(remote), ctl(self.iv).to_vec()));
                }
                News::Restarted => self.restarts_seen += 1,
                News::Up(..) | News::Gone(..) | News::Moved(_) => {}
            }
        }
        out
    }

    fn send(&mut self, now: Ms, payload: &[u8]) -> Vec<(Address, Vec<u8>)> {
        let packet = packet(&self.counter, payload, self.iv);
        let copies = self.machine.sources().map(|(_, remote, _, usage)| {
            usage.on_sent(time(now), 1, packet.len() as u64, 0);
            (address(remote), packet.clone())
        });
        copies.collect()
    }
}

#[allow(clippy::large_enum_variant, reason = "there are two of them")]
pub enum ClientEnd {
    Ours(OurClient),
    Old(OldClient),
}

#[allow(clippy::large_enum_variant, reason = "there are two of them")]
pub enum ServerEnd {
    Ours(OurServer),
    Old(OldServer),
}

/// One bridge: the same in both directions.
#[derive(Clone, Copy)]
pub struct Bridge {
    pub delay: Ms,
    /// Per cent.
    pub loss: u32,
    /// `socat` without `fork`: it knows the first port that came, and no other.
    pub plain_socat: bool,
    first_port: Option<u32>,
}

impl Bridge {
    pub fn new(delay: Ms, loss: u32) -> Self {
        Bridge { delay, loss, plain_socat: false, first_port: None }
    }
}

enum Event {
    ToServer(Address, Vec<u8>),
    ToClient(Address, Vec<u8>),
}

/// Both ends, the bridges, and what is on its way.
pub struct World {
    pub now: Ms,
    pub client: ClientEnd,
    pub server: ServerEnd,
    pub bridges: Vec<Bridge>,
    queue: BTreeMap<(Ms, u64), Event>,
    count: u64,
    random: u64,
}

impl World {
    pub fn new(client: ClientEnd, server: ServerEnd, bridges: Vec<Bridge>) -> Self {
        let queue = BTreeMap::new();
        World { now: 0, client, server, bridges, queue, count: 0, random: 7 }
    }

    /// Our client on a classic server, over three bridges.
    pub fn our_client() -> Self {
        let client = ClientEnd::Ours(OurClient::new(0, 3, 0, 0));
        World::new(client, ServerEnd::Old(OldServer::new(true)), vec![Bridge::new(10, 0); 3])
    }

    /// A classic client on our server, over three bridges.
    pub fn our_server() -> Self {
        let client = ClientEnd::Old(OldClient::new(3, true, 0));
        World::new(client, ServerEnd::Ours(OurServer::new(0)), vec![Bridge::new(10, 0); 3])
    }

    /// Both ends ours, over three bridges.
    pub fn both_ours() -> Self {
        let client = ClientEnd::Ours(OurClient::new(0, 3, 0, 0));
        World::new(client, ServerEnd::Ours(OurServer::new(0)), vec![Bridge::new(10, 0); 3])
    }

    pub fn ours(&mut self) -> &mut OurClient {
        let ClientEnd::Ours(client) = &mut self.client else { panic!("the client is a classic") };
        client
    }

    pub fn our_end(&mut self) -> &mut OurServer {
        let ServerEnd::Ours(server) = &mut self.server else { panic!("the server is a classic") };
        server
    }

    /// What the application at the client has received.
    pub fn at_client(&mut self) -> &mut Vec<Vec<u8>> {
        match &mut self.client {
            ClientEnd::Ours(client) => &mut client.delivered,
            ClientEnd::Old(client) => &mut client.delivered,
        }
    }

    /// What the target at the server has received.
    pub fn at_server(&mut self) -> &mut Vec<Vec<u8>> {
        match &mut self.server {
            ServerEnd::Ours(server) => &mut server.delivered,
            ServerEnd::Old(server) => &mut server.delivered,
        }
    }

    /// Replaces the client by a fresh process: ours goes on where its file says.
    pub fn restart_client(&mut self) {
        let first_port = 1_000 + u32::try_from(self.now % 1_000_000).unwrap() * 10;
        let paths = self.bridges.len();
        self.client = match &self.client {
            ClientEnd::Ours(old) => {
                // After a crash the whole block counts as used.
                let last = old.counter.used().next_multiple_of(BLOCK);
                ClientEnd::Ours(OurClient::new(self.now, paths, last, first_port))
            }
            ClientEnd::Old(old) => ClientEnd::Old(OldClient::new(paths, old.encrypts, first_port)),
        };
    }

    /// Replaces the server by a fresh process.
    pub fn restart_server(&mut self) {
        self.server = match &self.server {
            ServerEnd::Ours(old) => {
                ServerEnd::Ours(OurServer::new(old.counter.used().next_multiple_of(BLOCK)))
            }
            ServerEnd::Old(old) => ServerEnd::Old(OldServer::new(old.encrypts)),
        };
    }

    /// A datagram of the application.
    pub fn up(&mut self, payload: &[u8]) {
        let copies = match &mut self.client {
            ClientEnd::Ours(client) => client.send(self.now, payload),
            ClientEnd::Old(client) => client.send(self.now, payload),
        };
        self.carry_up(copies);
    }

    /// A datagram of the target.
    pub fn down(&mut self, payload: &[u8]) {
        let copies = match &mut self.server {
            ServerEnd::Ours(server) => server.send(self.now, payload),
            ServerEnd::Old(server) => server.send(self.now, payload),
        };
        self.carry_down(copies);
    }

    /// A datagram of somebody else, to the server.
    pub fn stranger(&mut self, from: Address, datagram: &[u8]) {
        self.arrive(Event::ToServer(from, datagram.to_vec()));
        self.settle();
    }

    /// A datagram of somebody else, to the client's port of the first bridge.
    pub fn stranger_to_client(&mut self, datagram: &[u8]) {
        let port = match &self.client {
            ClientEnd::Ours(client) => client.paths[0].0,
            ClientEnd::Old(client) => client.bridges[0].0,
        };
        self.arrive(Event::ToClient((0, port), datagram.to_vec()));
        self.settle();
    }

    /// Lets so much time pass.
    pub fn run(&mut self, for_ms: Ms) {
        let end = self.now + for_ms;
        self.settle();
        loop {
            let arrival = self.queue.first_key_value().map_or(Ms::MAX, |((at, _), _)| *at);
            let at = arrival.min(self.due());
            if at > end {
                break;
            }
            self.now = at.max(self.now);
            if arrival <= self.now {
                let (_, event) = self.queue.pop_first().unwrap();
                self.arrive(event);
            }
            self.settle();
        }
        self.now = end;
    }

    /// Runs for so long, and calls `each` every `every` milliseconds.
    pub fn every(&mut self, every: Ms, for_ms: Ms, mut each: impl FnMut(&mut World)) {
        for _ in 0..for_ms / every {
            each(self);
            self.run(every);
        }
    }

    /// When one of our machines wants to be called.
    fn due(&self) -> Ms {
        let client = match &self.client {
            ClientEnd::Ours(client) => client.machine.poll_timeout(),
            ClientEnd::Old(_) => Time::NEVER,
        };
        let server = match &self.server {
            ServerEnd::Ours(server) => server.machine.poll_timeout(),
            ServerEnd::Old(_) => Time::NEVER,
        };
        (client.min(server).as_micros().div_ceil(1_000)).saturating_sub(1_000_000)
    }

    /// Calls our machines if they are due, and does what they want.
    fn settle(&mut self) {
        let now = self.now;
        if let ClientEnd::Ours(client) = &mut self.client {
            if client.machine.poll_timeout() <= time(now) {
                client.machine.handle_timeout(time(now));
            }
            let copies = client.act(now);
            self.carry_up(copies);
        }
        if let ServerEnd::Ours(server) = &mut self.server {
            if server.machine.poll_timeout() <= time(now) {
                server.machine.handle_timeout(time(now));
            }
            let copies = server.act(now);
            self.carry_down(copies);
        }
    }

    fn arrive(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::ToServer(from, mut bytes) => match &mut self.server {
                ServerEnd::Ours(server) => {
                    let at = remote(from);
                    if let Some((_, data)) = server.machine.receive(time(now), at, None, &mut bytes)
                    {
                        server.delivered.push(data.to_vec());
                    }
                }
                ServerEnd::Old(server) => server.receive(now, from, &bytes),
            },
            Event::ToClient((bridge, port), mut bytes) => match &mut self.client {
                ClientEnd::Ours(client) => {
                    if let Some(data) = client.machine.receive(time(now), port, &mut bytes) {
                        client.delivered.push(data.to_vec());
                    }
                }
                ClientEnd::Old(client) => client.receive(now, bridge, port, &bytes),
            },
        }
    }

    fn carry_up(&mut self, copies: Vec<(Address, Vec<u8>)>) {
        for ((bridge, port), bytes) in copies {
            let Some(way) = self.bridges.get_mut(bridge) else { continue };
            let first = *way.first_port.get_or_insert(port);
            if !way.plain_socat || first == port {
                let delay = way.delay;
                self.post(bridge, delay, Event::ToServer((bridge, port), bytes));
            }
        }
    }

    fn carry_down(&mut self, copies: Vec<(Address, Vec<u8>)>) {
        for ((bridge, port), bytes) in copies {
            // What goes to a stranger goes nowhere.
            if let Some(delay) = self.bridges.get(bridge).map(|way| way.delay) {
                self.post(bridge, delay, Event::ToClient((bridge, port), bytes));
            }
        }
    }

    fn post(&mut self, bridge: usize, delay: Ms, event: Event) {
        // xorshift64: Marsaglia, "Xorshift RNGs", 2003.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if self.random % 100 >= u64::from(self.bridges[bridge].loss) {
            self.count += 1;
            self.queue.insert((self.now + delay, self.count), event);
        }
    }
}
