// SPDX-License-Identifier: BSD-2-Clause
//! The floor of the programs: a pair of relays that do nothing but carry. No handshake, no flows,
//! no timers; whoever sent last is the peer.

use crate::batch::{self, Arrivals, Departures, Peer};
use mptunnel_bench::seal::{Cipher, Key, Window};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::thread;

/// The relay beside the application: a copy of each datagram for each path.
#[derive(clap::Args)]
pub struct Client {
    /// Where the application sends to.
    listen: SocketAddr,
    /// Where each path leads.
    #[arg(required = true)]
    paths: Vec<SocketAddr>,
    #[arg(long, value_enum, default_value = "chacha20")]
    cipher: Cipher,
}

/// The relay beside the target: the first copy of each datagram.
#[derive(clap::Args)]
pub struct Server {
    /// Where the paths lead.
    listen: SocketAddr,
    /// Who gets the datagrams.
    target: SocketAddr,
    #[arg(long, value_enum, default_value = "chacha20")]
    cipher: Cipher,
}

/// Addresses of a single peer that are kept, the newest ones.
const MOST_PEERS: usize = 32;

/// Those that have sent something, for the thread of the other direction.
#[derive(Default)]
struct Known(Mutex<Vec<Peer>>);

impl Known {
    /// `mine` is what this thread has noted before: the lock is for news only.
    fn note(&self, mine: &mut Vec<Peer>, peer: Peer, most: usize) {
        if mine.contains(&peer) {
            return;
        }
        if mine.len() == most {
            mine.remove(0);
        }
        mine.push(peer);
        self.0.lock().expect("nobody panics").clone_from(mine);
    }

    fn copy_to(&self, peers: &mut Vec<Peer>) {
        peers.clone_from(&self.0.lock().expect("nobody panics"));
    }
}

/// Runs until the process is ended.
pub fn client(options: &Client) -> io::Result<()> {
    let local = [batch::open(options.listen)?];
    let anywhere = SocketAddr::new(options.paths[0].ip(), 0);
    let outer: Vec<UdpSocket> = options
        .paths
        .iter()
        .map(|to| {
            let socket = batch::open(anywhere)?;
            socket.connect(to)?;
            Ok(socket)
        })
        .collect::<io::Result<_>>()?;
    let (key, application) = (Key::new(options.cipher), Known::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut to = Vec::new();
            unseal(
                &key,
                &outer,
                |_, _| (),
                |out| {
                    application.copy_to(&mut to);
                    if !to.is_empty() {
                        out.send(&local, &to);
                    }
                },
            );
        });
        let mut mine = Vec::new();
        seal(
            &key,
            &local[0],
            |peer| application.note(&mut mine, peer, 1),
            |out| {
                out.send(&outer, &[]);
            },
        );
    });
    Ok(())
}

/// Runs until the process is ended.
pub fn server(options: &Server) -> io::Result<()> {
    let outer = [batch::open(options.listen)?];
    let inner = [batch::open(SocketAddr::new(options.target.ip(), 0))?];
    inner[0].connect(options.target)?;
    let (key, clients) = (Key::new(options.cipher), Known::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut to = Vec::new();
            seal(
                &key,
                &inner[0],
                |_| (),
                |out| {
                    clients.copy_to(&mut to);
                    if !to.is_empty() {
                        out.send(&outer, &to);
                    }
                },
            );
        });
        let mut mine = Vec::new();
        let note = |arrivals: &Arrivals, index: usize| {
            clients.note(&mut mine, arrivals.peer(index), MOST_PEERS);
        };
        unseal(&key, &outer, note, |out| {
            out.send(&inner, &[]);
        });
    });
    Ok(())
}

/// One direction: what `from` brings is sealed and passed on.
fn seal(
    key: &Key,
    from: &UdpSocket,
    mut note: impl FnMut(Peer),
    mut pass: impl FnMut(&mut Departures),
) {
    let (mut arrivals, mut out, mut number) = (Arrivals::default(), Departures::joined(), 0);
    loop {
        let taken = arrivals.take(from, true);
        for index in 0..taken {
            note(arrivals.peer(index));
            for payload in arrivals.datagrams(index) {
                let len = key.packet_len(payload.len());
                if !out.has_room(len) {
                    pass(&mut out);
                }
                number += 1;
                key.seal(number, payload, out.add(len));
            }
        }
        pass(&mut out);
    }
}

/// The other direction: the first copy of what the sockets bring is opened and passed on.
fn unseal(
    key: &Key,
    from: &[UdpSocket],
    mut note: impl FnMut(&Arrivals, usize),
    mut pass: impl FnMut(&mut Departures),
) {
    let (mut arrivals, mut out) = (Arrivals::default(), Departures::joined());
    let mut seen = Window::default();
    loop {
        let mut idle = true;
        for socket in from {
            let taken = arrivals.take(socket, from.len() == 1);
            idle &= taken == 0;
            for index in 0..taken {
                note(&arrivals, index);
                for packet in arrivals.datagrams(index) {
                    let Some(payload) = key.open(&mut seen, packet) else { continue };
                    if !out.has_room(payload.len()) {
                        pass(&mut out);
                    }
                    out.add(payload.len()).copy_from_slice(payload);
                }
            }
        }
        pass(&mut out);
        if idle && from.len() > 1 {
            batch::wait(from);
        }
    }
}
