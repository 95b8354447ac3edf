// SPDX-License-Identifier: BSD-2-Clause
//! The library through its Rust API, both ends in this process.

use crate::drive::{self, BATCH, Flood, Load};
use mptunnel_bench::seal::Cipher;
use mptunnel_core::{Datagram, Error, Handler, Server, Source, Tunnel};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How the server's application gets its datagrams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Delivery {
    /// On the receive thread, to a [`Handler`].
    Handler,
    /// Through the queue, to a thread that calls `recv_batch`.
    Queue,
}

/// A tunnel and its server.
pub struct Pair {
    tunnel: Tunnel,
    server: Arc<Server>,
    delivered: Arc<AtomicU64>,
    application: Option<JoinHandle<()>>,
}

struct Count(Arc<AtomicU64>);

impl Handler for Count {
    fn datagram(&mut self, _: &Source, bytes: &[u8]) {
        self.0.fetch_add(u64::from(!bytes.is_empty()), Relaxed);
    }
}

/// Both ends share it; there are no secrets here.
pub const KEY: [u8; 32] = [7; 32];
/// Until all paths answer.
const READY: Duration = Duration::from_secs(10);

impl Pair {
    /// Opens both and waits until every path is up at both.
    pub fn open(paths: usize, cipher: Cipher, delivery: Delivery) -> Result<Pair, Error> {
        Pair::open_with(paths, cipher, delivery, &[])
    }

    /// The same, with options of the server.
    pub fn open_with(
        paths: usize,
        cipher: Cipher,
        delivery: Delivery,
        options: &[(&str, &str)],
    ) -> Result<Pair, Error> {
        let delivered = Arc::<AtomicU64>::default();
        let mut server = Server::builder().key(&KEY).listen("127.0.0.1:0".parse().expect("one"));
        for (key, value) in options {
            server = server.option(key, value);
        }
        server = server.option("cipher", cipher.word());
        if delivery == Delivery::Handler {
            server = server.handler(Count(delivered.clone()));
        }
        let server = Arc::new(server.bind()?);
        let mut tunnel = Tunnel::builder().key(&KEY).server(&server.local_addrs()[0].to_string());
        tunnel = tunnel.option("cipher", cipher.word());
        for index in 0..paths {
            tunnel = tunnel.path(&format!("name=p{index}"));
        }
        let tunnel = tunnel.connect()?;
        tunnel.wait_ready(Some(READY))?;
        let deadline = Instant::now() + READY;
        let up_here = || tunnel.paths().iter().filter(|path| path.up).count();
        let up_there = || {
            let peers = server.peers();
            peers.iter().flat_map(|peer| &peer.paths).filter(|path| path.up).count()
        };
        while up_here() < paths || up_there() < paths {
            if Instant::now() > deadline {
                return Err(Error::TimedOut(READY));
            }
            thread::sleep(Duration::from_millis(5));
        }
        let application = (delivery == Delivery::Queue).then(|| {
            let (server, delivered) = (server.clone(), delivered.clone());
            thread::spawn(move || {
                let mut slots = vec![Datagram::with_capacity(2048); BATCH];
                while let Ok(count) = server.recv_batch(&mut slots, None) {
                    delivered.fetch_add(count as u64, Relaxed);
                }
            })
        });
        Ok(Pair { tunnel, server, delivered, application })
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.server.local_addrs()[0]
    }

    /// How many clients the server has.
    pub fn peers(&self) -> usize {
        self.server.peers().len()
    }

    /// What the server has delivered.
    pub fn delivered(&self) -> &AtomicU64 {
        &self.delivered
    }

    /// One measurement, on as many paths as there are.
    pub fn measure(&self, load: Load) -> Flood {
        let payload = vec![0xa5; load.size];
        drive::flood(load.duration, &self.delivered, || {
            // What is refused is lost, which shows.
            let _ = self.tunnel.send_batch([&payload[..]; BATCH]);
        })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.tunnel.close();
        self.server.close();
        if let Some(application) = self.application.take() {
            application.join().expect("the application does not panic");
        }
    }
}
