// SPDX-License-Identifier: BSD-2-Clause
//! UDP sockets that send and receive in batches.
//!
//! The platform's part is to receive a [`Batch`], to [`Watch`] sockets and to `transmit`, in a file
//! for Linux and one for the rest. The latter is compiled and tested on Linux too.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(test, not(target_os = "linux")))]
mod portable;

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
use portable as system;

pub use system::{Batch, Watch};

/// A socket, and what is known of its ability to send many datagrams in one call.
pub struct Port {
    socket: Socket,
    /// The largest datagram that is still worth joining with others: the system segments what a
    /// route carries whole and no more. 0 once a network card has refused to segment at all.
    joinable: usize,
}

impl Port {
    /// A socket that listens at `address`, or at all addresses of both families for `None`.
    pub fn listen(address: Option<IpAddr>, port: u16) -> io::Result<Port> {
        let any = address.unwrap_or_else(|| IpAddr::from([0_u16; 8]));
        match Self::bind(SocketAddr::new(any, port), address.is_none()) {
            // A kernel without IPv6 knows no such addresses, or not even the family.
            Err(e) if address.is_none() && is_without_ipv6(&e) => {
                Self::bind(SocketAddr::from(([0, 0, 0, 0], port)), false)
            }
            outcome => outcome,
        }
    }

    /// A socket of its own towards `to`, which hears from nobody else.
    pub fn connect(to: SocketAddr) -> io::Result<Port> {
        let port = Self::open(to)?;
        port.socket.connect(&to.into())?;
        Ok(port)
    }

    fn bind(at: SocketAddr, both_families: bool) -> io::Result<Port> {
        let port = Self::open(at)?;
        if both_families {
            port.socket.set_only_v6(false)?;
        }
        port.socket.bind(&at.into())?;
        if at.ip().is_unspecified() {
            system::report_local_addresses(&port.socket, at.is_ipv6())?;
        }
        Ok(port)
    }

    fn open(family: SocketAddr) -> io::Result<Port> {
        let socket = Socket::new(Domain::for_address(family), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        // The system gives what its limits allow, and less is no reason to fail.
        let _ = socket.set_recv_buffer_size(BUFFER);
        let _ = socket.set_send_buffer_size(BUFFER);
        system::join_received(&socket);
        Ok(Port { socket, joinable: usize::MAX })
    }

    /// The socket itself.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The address that the socket is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let address = self.socket.local_addr()?;
        address.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Sends datagrams in their order, to `to` or to where the socket is connected. Runs of equal
    /// size leave in one call. What cannot be sent now is counted and dropped, as on any router.
    pub fn send<'a>(
        &mut self,
        to: Option<&Target>,
        datagrams: impl Iterator<Item = &'a [u8]>,
        sent: &mut Sent,
    ) {
        let mut run = Run::new();
        for datagram in datagrams {
            if !run.accepts(datagram, self.joinable) {
                self.send_run(to, &run, sent);
                run = Run::new();
            }
            run.push(datagram);
        }
        self.send_run(to, &run, sent);
    }

    fn send_run(&mut self, to: Option<&Target>, run: &Run<'_>, sent: &mut Sent) {
        let mut joinable = usize::MAX;
        if run.count > 1 {
            match self.send_joined(to, run, sent) {
                Ok(()) => return,
                Err(limit) => joinable = limit,
            }
        }
        let failed = sent.failed;
        for datagram in run.datagrams() {
            self.send_one(to, datagram, sent);
        }
        // Only where single datagrams fare better is joining them to blame.
        if joinable < self.joinable && sent.failed == failed {
            log::info!("{} bytes are too large to be joined here: sending singly", run.segment);
            self.joinable = joinable;
        }
    }

    /// Sends a run in one call. An error is the size of the largest datagrams that should be joined
    /// again, once these have left one by one.
    fn send_joined(
        &self,
        to: Option<&Target>,
        run: &Run<'_>,
        sent: &mut Sent,
    ) -> Result<(), usize> {
        let Err(e) = self.transmit(run.datagrams(), run.segment, to, sent) else {
            sent.datagrams += run.count as u64;
            sent.bytes += run.bytes as u64;
            return Ok(());
        };
        if is_full(&e) {
            sent.blocked += run.count as u64;
            return Ok(());
        }
        Err(match (e.kind(), e.raw_os_error()) {
            // Segments larger than the route's MTU (udp_send_skb in the kernel); singly, they are
            // fragmented.
            (_, Some(libc::EINVAL | libc::EMSGSIZE)) => run.segment - 1,
            // A network card without checksum offload (udp(7)), or a system that joins nothing.
            (_, Some(libc::EIO)) | (io::ErrorKind::Unsupported, _) => 0,
            _ => usize::MAX,
        })
    }

    fn send_one(&self, to: Option<&Target>, datagram: &IoSlice<'_>, sent: &mut Sent) {
        match self.transmit(std::slice::from_ref(datagram), 0, to, sent) {
            Ok(()) => {
                sent.datagrams += 1;
                sent.bytes += datagram.len() as u64;
            }
            Err(e) if is_full(&e) => sent.blocked += 1,
            Err(e) => {
                sent.failed += 1;
                sent.last_error = Some(e);
            }
        }
    }

    fn transmit(
        &self,
        datagrams: &[IoSlice<'_>],
        segment: usize,
        to: Option<&Target>,
        sent: &mut Sent,
    ) -> io::Result<()> {
        match system::transmit(&self.socket, datagrams, segment, to) {
            // An ICMP error that an earlier datagram met is reported by the next call, which then
            // sends nothing (udp(7)). These datagrams have not had their turn yet.
            Err(e) if is_answer(&e) => {
                sent.refused += 1;
                system::transmit(&self.socket, datagrams, segment, to)
            }
            outcome => outcome,
        }
    }
}

/// Where a datagram goes, and the address of this machine that it comes from.
pub struct Target {
    /// The receiver.
    pub to: SocketAddr,
    /// The sender, where the socket is bound to all addresses: the one that the peer has sent to,
    /// or its NAT and its connected socket would not know the answer.
    pub from: Option<IpAddr>,
}

/// What became of datagrams that were to be sent.
#[derive(Debug, Default)]
pub struct Sent {
    /// Handed to the system.
    pub datagrams: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Reports that a port was closed.
    pub refused: u64,
    /// Dropped because the socket was full.
    pub blocked: u64,
    /// Dropped because of another error.
    pub failed: u64,
    /// The last of these errors.
    pub last_error: Option<io::Error>,
}

/// What can be read after a wait.
pub struct Ready {
    /// Of each source, whether it can.
    pub sources: Vec<bool>,
    /// The names of watched sockets that can.
    pub sockets: Vec<u64>,
}

/// One datagram as it was received, or several that the system has joined.
pub struct Received<'a> {
    /// The sender.
    pub from: SocketAddr,
    /// The address of this machine that it was sent to, on sockets bound to all of them.
    pub local: Option<IpAddr>,
    bytes: &'a [u8],
    /// Size of each datagram in `bytes`; the last may be shorter.
    segment: usize,
}

impl<'a> Received<'a> {
    /// The datagrams in their order: at least one, which may be empty.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        // `chunks` of nothing are none, but an empty datagram is one.
        let empty = self.bytes.is_empty().then_some(self.bytes);
        empty.into_iter().chain(self.bytes.chunks(self.segment.max(1)))
    }
}

/// Datagrams that can leave in one call: all of one size, except that the last may be shorter.
struct Run<'a> {
    slices: [IoSlice<'a>; MAX_SEGMENTS],
    count: usize,
    bytes: usize,
    segment: usize,
}

impl<'a> Run<'a> {
    fn new() -> Self {
        Run { slices: [IoSlice::new(&[]); MAX_SEGMENTS], count: 0, bytes: 0, segment: 0 }
    }

    fn accepts(&self, datagram: &[u8], joinable: usize) -> bool {
        let all_full = self.bytes == self.count * self.segment;
        self.count == 0
            || (1..=self.segment).contains(&datagram.len())
                && all_full
                && self.segment <= joinable
                && self.count < MAX_SEGMENTS
                && self.bytes + datagram.len() <= MAX_RUN
    }

    fn push(&mut self, datagram: &'a [u8]) {
        if self.count == 0 {
            self.segment = datagram.len();
        }
        self.slices[self.count] = IoSlice::new(datagram);
        self.count += 1;
        self.bytes += datagram.len();
    }

    fn datagrams(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.count]
    }
}

/// True for what ICMP says of a datagram that was sent before: no such port, or prohibited.
fn is_answer(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable)
}

/// True if the socket or the network card has no room for more at the moment.
fn is_full(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::WouldBlock || e.raw_os_error() == Some(libc::ENOBUFS)
}

fn is_without_ipv6(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Receive and send buffers that a socket asks for, in bytes. A few joined batches of 64 KiB fill
/// the usual 208 KiB, which costs two thirds of the rate (measured on loopback).
const BUFFER: usize = 8 << 20;

/// Datagrams in one call: `UDP_MAX_SEGMENTS` of Linux before 6.9, which doubled it.
const MAX_SEGMENTS: usize = 64;

/// Bytes in one call; an IPv4 packet has room for 65,507.
const MAX_RUN: usize = 65_000;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    const A: &[u8] = &[1; 1200];
    const SHORT: &[u8] = &[2; 7];
    const EMPTY: &[u8] = &[];

    #[test]
    fn a_run_is_equal_sizes_and_a_shorter_one_ends_it() {
        let mut run = Run::new();
        assert!(run.accepts(A, usize::MAX));
        run.push(A);
        assert!(!run.accepts(&[0; 1201], usize::MAX) && !run.accepts(EMPTY, usize::MAX));
        assert!(run.accepts(A, 1200) && !run.accepts(A, 1199));
        run.push(A);
        run.push(SHORT);

        assert!(!run.accepts(SHORT, usize::MAX) && !run.accepts(A, usize::MAX));
        assert_eq!((run.count, run.bytes, run.segment), (3, 2407, 1200));
    }

    #[test]
    fn a_run_is_bounded_in_segments_and_bytes() {
        let fill = |datagram: &'static [u8]| {
            let mut run = Run::new();
            while run.accepts(datagram, usize::MAX) {
                run.push(datagram);
            }
            (run.count, run.bytes)
        };

        assert_eq!(fill(SHORT), (MAX_SEGMENTS, 448));
        assert_eq!(fill(A), (54, 64_800));
        assert_eq!(fill(EMPTY), (1, 0));
    }

    #[test]
    fn joined_datagrams_are_taken_apart_where_they_were_joined() {
        let lengths = |bytes: &[u8], segment| {
            let from = SocketAddr::from(([127, 0, 0, 1], 1));
            let received = Received { from, local: None, bytes, segment };
            received.datagrams().map(<[u8]>::len).collect::<Vec<_>>()
        };

        assert_eq!(lengths(&[0; 2407], 1200), [1200, 1200, 7]);
        assert_eq!(lengths(&[0; 2400], 1200), [1200, 1200]);
        assert_eq!(lengths(&[0; 5], 5), [5]);
        assert_eq!(lengths(&[], 0), [0]);
    }

    /// What both platform files must do, on loopback.
    macro_rules! both_ends_on_loopback {
        ($system:ident) => {
            mod $system {
                use super::super::*;
                use super::*;
                use crate::bridge::udp::$system;

                #[test]
                fn datagrams_of_all_sizes_arrive_whole_in_order_and_name_their_sender() {
                    let here = IpAddr::from([127, 0, 0, 1]);
                    let receiver = Port::listen(Some(here), 0).unwrap();
                    let sender = Port::connect(receiver.local_addr().unwrap()).unwrap();
                    let sizes = [1200, 1200, 7, 0, 0, 1400, 60_000, 1];
                    let datagrams: Vec<Vec<u8>> =
                        sizes.iter().map(|&size| vec![size as u8; size]).collect();

                    for datagram in &datagrams {
                        let slice = [IoSlice::new(datagram)];
                        $system::transmit(&sender.socket, &slice, 0, None).unwrap();
                    }

                    let mut batch = $system::Batch::new();
                    let mut arrived = Vec::new();
                    let watch = $system::Watch::new().unwrap();
                    while arrived.len() < sizes.len() {
                        let sources = [receiver.socket().as_fd()];
                        let none = std::iter::empty();
                        let ready = watch.wait(&sources, none, Some(PATIENCE)).unwrap();
                        assert_eq!(ready.sources, [true], "a datagram got lost on loopback");
                        batch.receive(receiver.socket()).unwrap();
                        for received in batch.iter() {
                            assert_eq!(received.from, sender.local_addr().unwrap());
                            arrived.extend(received.datagrams().map(<[u8]>::to_vec));
                        }
                    }
                    assert_eq!(arrived, datagrams);
                    let nothing = batch.receive(receiver.socket()).unwrap_err();
                    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
                    assert_eq!(batch.iter().count(), 0);
                }

                #[test]
                fn of_many_watched_sockets_those_are_named_that_can_be_read() {
                    let here = IpAddr::from([127, 0, 0, 1]);
                    let ports: Vec<Port> =
                        (0..5).map(|_| Port::listen(Some(here), 0).unwrap()).collect();
                    let sockets = || (10..).zip(ports.iter().map(Port::socket));
                    let watch = $system::Watch::new().unwrap();
                    sockets().for_each(|(id, socket)| watch.add(socket, id).unwrap());
                    let wait = |timeout| {
                        let sources = [ports[0].socket().as_fd(), ports[1].socket().as_fd()];
                        let mut ready = watch.wait(&sources, sockets(), Some(timeout)).unwrap();
                        ready.sockets.sort_unstable();
                        (ready.sources, ready.sockets)
                    };
                    assert_eq!(wait(Duration::from_micros(1)), (vec![false, false], vec![]));

                    for port in [&ports[1], &ports[4]] {
                        let mut sender = Port::connect(port.local_addr().unwrap()).unwrap();
                        sender.send(None, [EMPTY].into_iter(), &mut Sent::default());
                    }

                    assert_eq!(wait(PATIENCE), (vec![false, true], vec![11, 14]));
                }
            }
        };
    }

    #[cfg(target_os = "linux")]
    both_ends_on_loopback!(linux);
    both_ends_on_loopback!(portable);

    #[test]
    fn runs_and_single_datagrams_arrive_alike() {
        let receiver = Port::listen(Some([127, 0, 0, 1].into()), 0).unwrap();
        let mut sender = Port::connect(receiver.local_addr().unwrap()).unwrap();
        let datagrams: Vec<Vec<u8>> =
            (0..200_u8).map(|n| vec![n; 1000 + n as usize / 50]).collect();
        let mut sent = Sent::default();

        sender.send(None, datagrams.iter().map(|datagram| &datagram[..]), &mut sent);

        assert_eq!((sent.datagrams, sent.failed, sent.blocked), (200, 0, 0));
        assert_eq!(sent.bytes, datagrams.iter().map(|datagram| datagram.len() as u64).sum::<u64>());
        assert_eq!(sender.joinable, usize::MAX, "loopback can segment");
        let mut batch = Batch::new();
        let mut arrived = Vec::new();
        while batch.receive(receiver.socket()).is_ok() {
            arrived
                .extend(batch.iter().flat_map(|received| received.datagrams()).map(<[u8]>::to_vec));
        }
        assert_eq!(arrived, datagrams);
    }

    #[test]
    fn a_socket_on_all_addresses_answers_from_the_one_that_was_asked() {
        let mut server = Port::listen(None, 0).unwrap();
        let port = server.local_addr().unwrap().port();
        // Any address in 127.0.0.0/8 is this machine, and not the one it would choose by itself.
        let asked = SocketAddr::from(([127, 0, 0, 77], port));
        let mut client = Port::connect(asked).unwrap();
        let mut batch = Batch::new();
        client.send(None, [A].into_iter(), &mut Sent::default());
        await_datagram(&server);
        batch.receive(server.socket()).unwrap();
        let target = {
            let received = batch.iter().next().unwrap();
            Target { to: received.from, from: received.local }
        };

        let mut sent = Sent::default();
        server.send(Some(&target), [A, A].into_iter(), &mut sent);

        assert_eq!(sent.datagrams, 2);
        await_datagram(&client);
        batch.receive(client.socket()).unwrap();
        assert_eq!(batch.iter().next().unwrap().from, asked);
    }

    #[test]
    fn a_closed_port_is_counted_and_later_datagrams_still_leave() {
        let receiver = Port::listen(Some([127, 0, 0, 1].into()), 0).unwrap();
        let address = receiver.local_addr().unwrap();
        let mut sender = Port::connect(address).unwrap();
        drop(receiver);
        let mut sent = Sent::default();
        let mut send = |count: usize| {
            sender.send(None, std::iter::repeat_n(A, count), &mut sent);
        };

        // On loopback the ICMP error is back before the next call.
        send(1);
        send(1);
        send(2);

        assert_eq!((sent.datagrams, sent.refused, sent.failed), (4, 2, 0));
    }

    fn await_datagram(port: &Port) {
        let watch = Watch::new().unwrap();
        let sources = [port.socket().as_fd()];
        let ready = watch.wait(&sources, std::iter::empty(), Some(PATIENCE)).unwrap();
        assert_eq!(ready.sources, [true]);
    }

    const PATIENCE: Duration = Duration::from_secs(5);
}
