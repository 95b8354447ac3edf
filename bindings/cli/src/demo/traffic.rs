// SPDX-License-Identifier: BSD-2-Clause
//! The application's client: the same numbered datagrams for every contender at the same time, and
//! their echoes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mptunnel_core::sim::rng::Rng;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::tally::Tally;

/// Datagrams each contender gets in a second.
pub const RATE: u32 = 200;

/// A socket towards each contender.
pub struct Contenders(Vec<UdpSocket>);

impl Contenders {
    /// Sends to these addresses, one for each contender.
    pub fn new(entrances: &[SocketAddr]) -> io::Result<Contenders> {
        let open = |entrance: &SocketAddr| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect(entrance)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        entrances.iter().map(open).collect::<io::Result<_>>().map(Contenders)
    }

    /// Sends to those that have not answered yet, and returns those that still have not after
    /// `patience`, which is none at last.
    pub fn warm_up(&self, silent: &[usize], patience: Duration) -> io::Result<Vec<usize>> {
        let mut silent = silent.to_vec();
        for &index in &silent {
            self.send(index, WARM_UP);
        }
        let deadline = Instant::now() + patience;
        while !silent.is_empty() && Instant::now() < deadline {
            self.wait(deadline)?;
            self.receive(|index, _| silent.retain(|silent| *silent != index));
        }
        Ok(silent)
    }

    fn send(&self, index: usize, number: u32) {
        let datagram = datagram(index, number);
        // The first error may be the report that a bridge was gone when the last one was sent.
        let sent = self.0[index].send(&datagram).or_else(|_| self.0[index].send(&datagram));
        // One that cannot be sent is one that is lost.
        drop(sent);
    }

    /// Waits until there is something to receive, or the deadline.
    fn wait(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        // In whole milliseconds, rounded up: a wait of zero would spin.
        let left = PollTimeout::try_from(left + Duration::from_micros(999))
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut sockets: Vec<PollFd<'_>> =
            self.0.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut sockets, left) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Passes on all that there is: the contender, and the number of its datagram or `None` for
    /// one that was never sent.
    fn receive(&self, mut take: impl FnMut(usize, Option<u32>)) {
        let mut buffer = [0; 2 * LEN];
        for (index, socket) in self.0.iter().enumerate() {
            loop {
                match socket.recv(&mut buffer) {
                    Ok(len) => take(index, number_of(index, &buffer[..len])),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // A bridge that is gone; the error is taken, and the next call says more.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(_) => break,
                }
            }
        }
    }
}

/// Sends and receives on a thread of its own, until the time is over or it is dropped.
pub struct Traffic {
    start: Instant,
    tallies: Arc<Mutex<Vec<Tally>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Sends for `total`, and takes echoes for `settle` longer.
    pub fn start(contenders: Contenders, total: Duration, settle: Duration) -> io::Result<Traffic> {
        let start = Instant::now();
        let tallies = contenders.0.iter().map(|_| Tally::default()).collect();
        let tallies = Arc::new(Mutex::new(tallies));
        let stop = Arc::new(AtomicBool::new(false));
        let (of_thread, stopping) = (Arc::clone(&tallies), Arc::clone(&stop));
        let carry = move || {
            let mut due = start;
            while !stopping.load(Relaxed) && Instant::now() < start + total + settle {
                while due <= Instant::now() && due < start + total {
                    for (index, tally) in lock(&of_thread).iter_mut().enumerate() {
                        let number = tally.on_sent(start.elapsed());
                        contenders.send(index, number);
                    }
                    due += Duration::from_secs(1) / RATE;
                }
                let next = if due < start + total { due } else { Instant::now() + BREATH };
                if contenders.wait(next).is_err() {
                    return;
                }
                contenders.receive(|index, number| {
                    let at = start.elapsed();
                    let tally = &mut lock(&of_thread)[index];
                    match number {
                        Some(WARM_UP) => {}
                        Some(number) => tally.on_echo(number, at),
                        None => tally.on_altered(),
                    }
                });
            }
        };
        let thread = thread::Builder::new().name("traffic".to_owned()).spawn(carry)?;
        Ok(Traffic { start, tallies, stop, thread: Some(thread) })
    }

    /// When it started.
    pub fn start_time(&self) -> Instant {
        self.start
    }

    /// What became of the datagrams so far, in the order of the contenders.
    pub fn tallies(&self) -> MutexGuard<'_, Vec<Tally>> {
        lock(&self.tallies)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(tallies: &Mutex<Vec<Tally>>) -> MutexGuard<'_, Vec<Tally>> {
    tallies.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number, and bytes that depend on it and on the contender.
fn datagram(index: usize, number: u32) -> [u8; LEN] {
    let seed = (index as u64) << 32 | u64::from(number);
    let mut random = Rng::new(seed);
    let mut bytes = [0; LEN];
    let (head, body) = bytes.split_at_mut(size_of::<u32>());
    head.copy_from_slice(&number.to_be_bytes());
    for chunk in body.chunks_mut(size_of::<u64>()) {
        chunk.copy_from_slice(&random.u64().to_be_bytes()[..chunk.len()]);
    }
    bytes
}

/// The number of a datagram that was sent to this contender. `None` if there was never such a one.
fn number_of(index: usize, bytes: &[u8]) -> Option<u32> {
    let number = u32::from_be_bytes(*bytes.first_chunk()?);
    (bytes == datagram(index, number)).then_some(number)
}

/// Bytes of a datagram: much as a packet of a telephone call.
const LEN: usize = 200;
/// The number of the datagrams before the measurement.
const WARM_UP: u32 = u32::MAX;
/// How long the thread waits at a time once nothing is to be sent any more.
const BREATH: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::echo::Echo;

    #[test]
    fn a_datagram_is_known_by_all_its_bytes() {
        let bytes = datagram(2, 258);

        assert_eq!(number_of(2, &bytes), Some(258));
        assert_eq!(number_of(1, &bytes), None);
        assert_eq!(number_of(2, &bytes[..LEN - 1]), None);
        for place in 0..LEN {
            let mut altered = bytes;
            altered[place] ^= 0x10;
            assert_eq!(number_of(2, &altered), None, "byte {place}");
        }
    }

    #[test]
    fn every_contender_gets_the_same_number_of_datagrams() {
        let echo = Echo::start().unwrap();
        let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let entrances = [echo.address(), nobody.local_addr().unwrap()];
        let contenders = Contenders::new(&entrances).unwrap();
        let total = Duration::from_millis(100);

        assert_eq!(contenders.warm_up(&[0, 1], Duration::from_millis(200)).unwrap(), [1]);
        let mut traffic = Traffic::start(contenders, total, total).unwrap();
        traffic.thread.take().unwrap().join().unwrap();

        let report = |tally: &Tally| tally.report(2 * total, Duration::ZERO, total, 1);
        let [answered, silent] = [0, 1].map(|index| report(&traffic.tallies()[index]));
        assert_eq!((answered.sent, answered.delivered), (20, 20));
        assert_eq!((silent.sent, silent.delivered, silent.loss), (20, 0, Some(1.0)));
    }
}
