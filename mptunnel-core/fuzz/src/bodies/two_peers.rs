// SPDX-License-Identifier: BSD-2-Clause
//! A whole tunnel in the simulated world, which asserts the invariants on every packet (I1, I2, I3,
//! I4, I7), while the script loses, delays, copies and damages packets, restarts machines, sends
//! what an attacker can send, and what somebody can who has stolen a client's keys. Then all is
//! well again: everything that arrived was delivered (P3), tables are within their bounds (I5),
//! traffic flows again, and in the end nothing is left (I10).

use super::script::{Script, Seed};
use super::vectors;
use mptunnel_core::proto::client::PathSettings;
use mptunnel_core::proto::config::{ClientConfig, ClientKeys, ServerConfig, ServerKey};
use mptunnel_core::proto::sched::{Mode, Policy};
use mptunnel_core::proto::throttle::Rate;
use mptunnel_core::proto::time::Time;
use mptunnel_core::sim::link::LinkConfig;
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{
    Captured, ClientNo, Direction, PathNo, PathSpec, ServerNo, World, client_digest,
};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

struct Stage {
    world: World,
    server: ServerNo,
    /// Whose packets count.
    honest: ClientNo,
    /// Whose keys the attacker has.
    stolen: ClientNo,
    captured: Vec<Captured>,
    /// Datagrams wait for those before them, and are lost with a process that is killed meanwhile.
    ordered: bool,
}

pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let mut stage = begin(&mut script);
    let mut left = 60;
    while !script.is_over() && left > 0 {
        stage.step(&mut script);
        left -= 1;
    }
    stage.finish();
}

fn begin(script: &mut Script<'_>) -> Stage {
    let (options, paths) = (script.u8(), 1 + script.below(3));
    let (is_static, is_loaded) = (options & 1 != 0, options & 2 != 0);
    let (clear, ordered, aes) = (options & 4 != 0, options & 8 != 0, options & 16 != 0);
    let policy =
        Policy { mode: Mode::of_code(options >> 6).expect("there are four"), ..Policy::default() };
    let mut world = World::new(1);
    let hold = if ordered { 30 * MS } else { Duration::ZERO };
    let server = world.add_server(move || {
        let listed = [0x66, 0x67].map(|byte| (secret(byte).public(), None));
        let mut config = ServerConfig::new(vec![if is_static {
            ServerKey::Static { own: vectors::server_static(), clients: listed.into() }
        } else {
            ServerKey::Psk(vectors::psk())
        }]);
        let common = &mut config.common;
        (common.clear, common.reorder, common.aes_hardware) = (clear, hold, aes);
        common.policy = policy;
        config.load_threshold = if is_loaded { 0 } else { 200 };
        config
    });
    let mut add = |number: u8| {
        let specs: Vec<PathSpec> = (0..paths)
            .map(|path| PathSpec {
                settings: PathSettings {
                    backup: options & 32 != 0 && path > 0,
                    rate: if path == 2 { Rate::Told(200_000) } else { Rate::Unknown },
                    rate_down: if path == 2 { 2_000 } else { 0 },
                    ..PathSettings::default()
                },
                ..PathSpec::rtt((20 + 30 * path as u32) * MS)
            })
            .collect();
        world.add_client(server, specs, move || {
            let mut config = ClientConfig::new(if is_static {
                let (own, server) = (secret(0x66 + number), vectors::server_static().public());
                ClientKeys::Static { own, server, psk: None }
            } else {
                ClientKeys::Psk(vectors::psk())
            });
            config.name = Some(format!("client {number}"));
            let common = &mut config.common;
            (common.clear, common.reorder, common.aes_hardware) = (clear, hold, aes);
            common.policy = policy;
            config
        })
    };
    let (honest, stolen) = (add(0), add(1));
    world.capture();
    world.start_all();
    Stage { world, server, honest, stolen, captured: Vec::new(), ordered }
}

fn secret(byte: u8) -> mptunnel_core::proto::crypto::StaticSecret {
    mptunnel_core::proto::crypto::StaticSecret::new([byte; 32]).expect("not all zero")
}

impl Stage {
    fn step(&mut self, script: &mut Script<'_>) {
        let op = script.below(24);
        let who = script.u8();
        let client = if who & 1 == 0 { self.honest } else { self.stolen };
        let way = if who & 2 == 0 { Up } else { Down };
        let index = usize::from(who >> 2) % self.world.client(client).paths.len();
        let path = PathNo { client, index };
        let world = &mut self.world;
        match op {
            0 | 1 => world.run_for(MS * u32::from(script.u8())),
            2 => world.run_for(Duration::from_millis(u64::from(script.u8()) * 100)),
            3 | 4 => {
                // Shorter ones do not tell an attacker's copy from another.
                let size = 4 + usize::from(script.u16()) % 3_000;
                for _ in 0..1 + who / 64 {
                    let _ = world.send(self.honest, way, u16::from(who >> 6), size);
                }
            }
            5 => world.set_link(path, way, any_link(script)),
            6 => {
                let (bits, faults) = (script.u8(), world.faults(path, way));
                (faults.dark, faults.grey) = (bits & 1 != 0, bits & 2 != 0);
                (faults.no_handshakes, faults.slow_socket) = (bits & 4 != 0, bits & 8 != 0);
            }
            7 => world.kill_server(self.server),
            8 => world.stop_server(self.server),
            9 => world.kill_client(client),
            10 => world.stop_client(client),
            11 => world.start_all(),
            12 => world.rebind(path),
            13 => world.restart_bridge(path),
            14 => match script.below(4) {
                0 => world.close_path(path),
                1 => world.open_path(path),
                2 => world.remove_path(path),
                _ => world.readd_path(path),
            },
            15 => match script.below(4) {
                0 => world.suspend_client(client),
                1 => world.resume_client(client),
                2 => world.set_server_clock(self.server, Time::from_micros(script.number() >> 20)),
                // That is for good, so it is not done to the honest.
                _ => world.dismiss(self.stolen),
            },
            16 => world.with_server(self.server, |server, now| server.close(now)),
            // Any bytes, at either end.
            17 => self.inject(way, path, who, script.blob(1_500)),
            // A packet that was seen: a copy, altered or not, from anywhere.
            18 | 19 => {
                let (back, at, by) = (script.u16(), script.u16(), script.u8());
                if let Some(mut packet) = self.seen(back) {
                    let len = packet.len().max(1);
                    if let Some(byte) = packet.get_mut(usize::from(at) % len) {
                        *byte ^= by;
                    }
                    self.inject(way, path, who, &packet);
                }
            }
            // What only the other end of the stolen session can say.
            _ => {
                let inner = script.blob(1_000).to_vec();
                let session = match way {
                    Up => {
                        self.world.client(self.stolen).client().and_then(|c| c.session().cloned())
                    }
                    Down => self.server_session(),
                };
                let host = self.world.client(self.stolen);
                let local = match way {
                    Up => host.local(self.world.now()),
                    Down => self.world.server(self.server).local(self.world.now()),
                };
                let sealed = session.and_then(|session| session.seal_ctrl(local, inner).ok());
                if let Some((_, packet)) = sealed {
                    self.inject(way, PathNo { client: self.stolen, index }, who, &packet);
                }
            }
        }
        let seen = self.world.captured();
        self.captured.extend(seen);
        let surplus = self.captured.len().saturating_sub(256);
        self.captured.drain(..surplus);
        self.verify();
    }

    fn verify(&self) {
        if self.ordered {
            self.world.verify_tables();
        } else {
            self.world.verify();
        }
    }

    fn server_session(&self) -> Option<std::sync::Arc<mptunnel_core::proto::session::Session>> {
        let host = self.world.server(self.server);
        let peer = host.server()?.peer(host.peer_of(self.stolen)?)?;
        Some(peer.current.clone())
    }

    fn seen(&self, back: u16) -> Option<Vec<u8>> {
        let last = self.captured.len().checked_sub(1)?;
        let packet = self.captured.get(last - usize::from(back) % self.captured.len())?;
        Some(packet.parcel.bytes().to_vec())
    }

    fn inject(&mut self, way: Direction, path: PathNo, who: u8, packet: &[u8]) {
        match way {
            Up => {
                let own = self.world.client(path.client).paths[path.index].outer;
                let other =
                    SocketAddr::from((Ipv4Addr::new(203, 0, 113, 1), 1_000 + u16::from(who)));
                let source = if who & 0x80 == 0 { own } else { other };
                self.world.inject_at_server(self.server, source, packet);
            }
            Down => self.world.inject_at_client(path, packet),
        }
    }

    /// All is well again, for the honest: what an insider did to the stolen client is his affair.
    fn finish(&mut self) {
        let (world, honest) = (&mut self.world, self.honest);
        // A server that was told to go says so until it is started anew.
        world.kill_server(self.server);
        world.start_all();
        world.resume_client(honest);
        world.kill_client(self.stolen);
        for path in world.paths_of(honest) {
            let net = &world.client(honest).paths[path.index];
            match (net.id, net.has_socket) {
                (None, _) => world.readd_path(path),
                (_, false) => world.open_path(path),
                _ => {}
            }
            for way in [Up, Down] {
                *world.faults(path, way) = Default::default();
                world.set_link(path, way, LinkConfig { delay: 10 * MS, ..LinkConfig::default() });
            }
        }
        let healed = world.now();
        world.stream_both_ways(honest, 20, 60);
        let flows = |world: &World| {
            [Up, Down].into_iter().all(|way| {
                let mut later = world.ledger().of(honest, way).filter(|d| d.sent_at > healed);
                later.any(|d| d.delivered_at.is_some())
            })
        };
        let up = world.run_while_not(Duration::from_secs(8), flows);
        assert!(up, "traffic flows again\n{}", client_digest(world.client(honest)));
        world.run_for(Duration::from_secs(1));
        world.stop_streams();
        world.run_for(Duration::from_secs(1));
        self.verify();
        self.world.assert_drains();
    }
}

fn any_link(script: &mut Script<'_>) -> LinkConfig {
    let share = |byte: u8| f64::from(byte) / 400.0;
    let ms = |byte: u8| MS * u32::from(byte);
    LinkConfig {
        loss: share(script.u8()),
        delay: ms(script.u8()),
        jitter: ms(script.u8() / 4),
        in_order: script.is(),
        reorder: share(script.u8()),
        reorder_delay: 4 * ms(script.u8()),
        duplicate: share(script.u8()),
        copies: 1 + u32::from(script.u8() % 4),
        corrupt: share(script.u8()),
        rate: NonZeroU64::new(u64::from(script.u16()) * 4).filter(|rate| rate.get() >= 4_000),
        buffer: 3_000 + usize::from(script.u16()),
        ..LinkConfig::default()
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let send = |s: Seed, who: u8, size| s.u8(3).u8(who).u16(size);
    let wait = |s: Seed, ms: u8| s.u8(0).u8(0).u8(ms);
    let begin = |options: u8, paths: u8| wait(Seed::default().u8(options).u8(paths), 250);
    let mut seeds = Vec::new();
    // Traffic, and a mishap of each kind in the middle of it.
    for mishap in 5..17u8 {
        let options = [0, 1, 8, 16 + 64, 32, 128, 192, 2, 4][usize::from(mishap) % 9];
        let s = begin(options, 2).times(6, |s, n| wait(send(s, n as u8 * 42, 200 * n as u16), 30));
        let s =
            s.u8(mishap).u8(mishap << 1).bytes(&[40, 60, 80, 1, 50, 100, 60, 2, 30, 0, 20, 0, 30]);
        let s = s.times(6, |s, n| wait(send(s, n as u8 * 42, 200 * n as u16), 200));
        seeds.push(s.u8(11).u8(0).u8(2).u8(0).u8(20));
    }
    // Copies and forgeries at both ends.
    seeds.push(begin(0, 1).times(10, |s, n| {
        let s = send(s, n as u8, 100).u8(18).u8(n as u8 * 23).u16(n as u16 * 7).u16(0).u8(0);
        wait(s.u8(18).u8(n as u8 * 25).u16(n as u16).u16(9).u8(1), 20)
            .u8(17)
            .u8(n as u8)
            .blob(&[7, 1])
    }));
    // An insider says everything there is to say.
    for frame in super::ctrl_frames::samples() {
        let inner = mptunnel_core::proto::frame::FrameList::new().push(frame).finish();
        seeds.push(
            begin(0, 2).times(8, |s, n| {
                wait(send(s.u8(20).u8(n as u8 * 33).blob(&inner), n as u8, 300), 50)
            }),
        );
    }
    seeds.into_iter().map(|seed| seed.0).collect()
}
