// SPDX-License-Identifier: BSD-2-Clause
//! The application: it sends back whatever comes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// An echo application on a thread of its own, until dropped.
pub struct Echo {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts it on a free port.
    pub fn start() -> io::Result<Echo> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(STOPS_WITHIN))?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::Builder::new().name("echo".to_owned()).spawn(move || {
            let mut buffer = [0; 2048];
            while !stopping.load(Relaxed) {
                // Errors are the timeout, and reports about peers that are gone.
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..len], from);
                }
            }
        })?;
        Ok(Echo { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const STOPS_WITHIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sends_back_what_comes_to_whoever_sent_it() {
        let echo = Echo::start().unwrap();
        let peers = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());

        for (peer, text) in peers.iter().zip(["one", "two"]) {
            peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            peer.send_to(text.as_bytes(), echo.address()).unwrap();
        }

        for (peer, text) in peers.iter().zip(["one", "two"]) {
            let mut buffer = [0; 10];
            let len = peer.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], text.as_bytes());
        }
    }
}
