// SPDX-License-Identifier: BSD-2-Clause
//! Sending in batches: packets are sealed side by side into one buffer, and each path's socket
//! takes its share with few system calls (`sendmmsg`, `UDP_SEGMENT`).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use super::run::{Cursor, Runs};
use super::socket::{UdpSocket, route_mtu};
use super::wire::{Filled, Selection, Target, Wire};

/// Packets waiting to be sent, each to a set of paths.
///
/// 1. [`room`](Self::room) gives the bytes to write the next packet to; until
///    [`commit`](Self::commit) it does not count, so an early return takes it back.
/// 2. [`send`](Self::send), for each path, sends the packets that have its bit.
/// 3. [`clear`](Self::clear) begins the next batch.
///
/// Nothing is allocated after the first few batches.
pub(crate) struct SendBatch {
    buffer: Vec<u8>,
    runs: Runs,
    wire: Wire,
    /// For a message that the kernel does not cut: its packets one by one.
    split: Wire,
    /// By path slot: packets that were taken for later.
    queued: Vec<(u8, usize)>,
}

/// What became of one path's share of a batch.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct SendReport {
    /// Packets that the kernel took.
    pub(crate) packets: usize,
    /// Bytes of these packets, without UDP and IP headers.
    pub(crate) bytes: usize,
    /// Packets that the kernel did not take, because the socket was full or for the reason in
    /// `error`. They are lost on this path.
    pub(crate) dropped: usize,
    /// Packets beyond what UDP or, undivided, the path can carry (`EMSGSIZE`); not in `dropped`.
    pub(crate) too_big: usize,
    /// Whether the socket had no room for the rest.
    pub(crate) full: bool,
    /// The first error that the kernel told. It may be an earlier packet's that an ICMP message
    /// answered (`ECONNREFUSED`; `EMSGSIZE` when the path MTU shrank), in which case nothing of
    /// this batch needs to be missing. A full socket and a lost offload are no errors.
    ///
    /// An answer that comes while a batch is on its way may stay unseen: `sendmmsg` stops there
    /// without telling why, and the packet is sent again. Later ones show in the next read.
    pub(crate) error: Option<io::Error>,
}

impl SendReport {
    /// Packets that do not arrive this way.
    pub(crate) fn lost(&self) -> usize {
        self.dropped + self.too_big
    }
}

impl Default for SendBatch {
    fn default() -> Self {
        SendBatch::new()
    }
}

impl SendBatch {
    /// An empty batch.
    pub(crate) fn new() -> Self {
        SendBatch {
            buffer: vec![0; CAPACITY],
            runs: Runs::new(),
            wire: Wire::new(),
            split: Wire::new(),
            queued: Vec::new(),
        }
    }

    /// `len` bytes for the next packet, with undefined contents. `None` if the batch is full: then
    /// send it, clear it and ask again. A batch just cleared has room for any datagram.
    pub(crate) fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.runs.is_full() {
            return None;
        }
        let start = self.runs.end();
        self.buffer.get_mut(start..start.checked_add(len)?)
    }

    /// Whether [`room`](Self::room) would give `len` bytes.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        !self.runs.is_full() && len <= self.buffer.len() - self.runs.end()
    }

    /// What was written to the first `len` bytes of the room that was given last.
    pub(crate) fn uncommitted(&self, len: usize) -> &[u8] {
        &self.buffer[self.runs.end()..][..len]
    }

    /// A path took a packet for later.
    pub(crate) fn note_queued(&mut self, slot: u8) {
        match self.queued.iter_mut().find(|(of, _)| *of == slot) {
            Some((_, count)) => *count += 1,
            None => self.queued.push((slot, 1)),
        }
    }

    /// Packets that a path took for later, since the batch began.
    pub(crate) fn queued(&self, slot: u8) -> usize {
        self.queued.iter().find(|(of, _)| *of == slot).map_or(0, |(_, count)| *count)
    }

    /// The same of the path that took the most.
    pub(crate) fn queued_most(&self) -> usize {
        self.queued.iter().map(|(_, count)| *count).max().unwrap_or(0)
    }

    /// How many packets there are, each counted once.
    pub(crate) fn packets(&self) -> usize {
        self.runs.packets_from(Cursor::default(), u32::MAX)
    }

    /// Adds the first `len` bytes of what [`room`](Self::room) gave last as a packet for each path
    /// whose bit is set in `paths`.
    ///
    /// # Panics
    /// If there was no such room.
    pub(crate) fn commit(&mut self, len: usize, paths: u32) {
        assert!(self.has_room(len), "a packet is written to room that was there");
        self.runs.push(len, paths);
    }

    /// Whether no packet was committed.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.as_slice().is_empty()
    }

    /// Sends all packets that have `path_bit`, in order, and never waits: what does not fit the
    /// socket's buffer is dropped and counted. The batch stays as it is, for the other paths.
    ///
    /// `to` is the destination, and the local address to send from (`None`: the route decides);
    /// `None` sends to the peer that the socket is connected to.
    ///
    /// If the kernel cannot cut runs for this socket after all, that is noticed here: the socket
    /// loses the offload, and the packets are sent one by one.
    pub(crate) fn send(
        &mut self,
        socket: &UdpSocket,
        path_bit: u32,
        to: Option<(SocketAddr, Option<IpAddr>)>,
    ) -> SendReport {
        let mut report = SendReport::default();
        let Some(target) = Target::new(socket.family(), to) else {
            report.dropped = self.runs.packets_from(Cursor::default(), path_bit);
            report.error = Some(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
            return report;
        };
        let share = Share { socket, target: &target, path_bit };

        let mut cursor = Cursor::default();
        while let Some(next) = self.send_from(cursor, &share, &mut report) {
            cursor = next;
        }
        // What was neither taken nor too big was dropped.
        let packets = self.runs.packets_from(Cursor::default(), path_bit);
        report.dropped = packets - report.packets - report.too_big;
        report
    }

    /// Sends one packet by itself, in place of what the batch held.
    pub(crate) fn send_one(
        &mut self,
        socket: &UdpSocket,
        packet: &[u8],
        to: Option<(SocketAddr, Option<IpAddr>)>,
    ) -> SendReport {
        self.clear();
        let Some(room) = self.room(packet.len()) else { return SendReport::default() };
        room.copy_from_slice(packet);
        self.commit(packet.len(), 1);
        self.send(socket, 1, to)
    }

    /// Forgets all packets.
    pub(crate) fn clear(&mut self) {
        self.runs.clear();
        self.queued.clear();
    }

    /// Sends as many messages from `cursor` on as one call takes, and returns where the next ones
    /// begin: `None` at the end, or where trying further is pointless.
    fn send_from(
        &mut self,
        cursor: Cursor,
        share: &Share<'_>,
        report: &mut SendReport,
    ) -> Option<Cursor> {
        let joined = Selection {
            buffer: &self.buffer,
            runs: self.runs.as_slice(),
            path_bit: share.path_bit,
            joined: share.socket.gso(),
        };
        let single = Selection { joined: false, ..joined };
        let mut filled = self.wire.fill(joined, cursor..Cursor::END, share.target);
        let mut at = 0;
        while let Some(refusal) = push(&mut filled, &mut at, share, report).ok()? {
            if refusal.error.raw_os_error() == Some(libc::EMSGSIZE) {
                // The packets arrive in fragments, but the caller had better cut them smaller.
                report.error.get_or_insert(io::Error::from_raw_os_error(libc::EMSGSIZE));
            }
            let message = filled.message(at);
            let before = report.packets;
            let range = message.first..message.behind;
            let mut packets = self.split.fill(single, range, share.target);
            push(&mut packets, &mut 0, share, report).ok()?;

            let all_taken = report.packets - before == message.packets;
            let fine_without = || all_taken && share.fits(message.segment);
            if refusal.blames_offload(fine_without) && share.socket.disable_gso() {
                log::info!(
                    target: "mptunnel::io",
                    "segmentation offload lost ({}), sending packets one by one", refusal.error
                );
            }
            at += 1;
        }
        filled.behind()
    }
}

/// Who gets which packets.
struct Share<'a> {
    socket: &'a UdpSocket,
    target: &'a Target,
    path_bit: u32,
}

impl Share<'_> {
    /// Whether packets of `segment` bytes cross the path undivided, as far as the kernel knows.
    fn fits(&self, segment: usize) -> bool {
        let (mtu, remote) = match self.target.remote {
            Some(remote) => (route_mtu(self.target.source, remote), Some(remote)),
            None => (self.socket.path_mtu(), self.socket.peer_addr()),
        };
        let headers = match remote {
            Some(SocketAddr::V4(_)) => IPV4_UDP_HEADERS,
            _ => IPV6_UDP_HEADERS,
        };
        mtu.is_none_or(|mtu| segment + headers <= mtu)
    }
}

/// The rest of this path's share is not worth trying.
struct GiveUp;

/// The kernel did not take a message of several packets.
struct Refusal {
    error: io::Error,
}

impl Refusal {
    /// Whether it was for want of the offload, so that it is pointless to try again.
    /// `fine_without` tells whether the same packets were taken one by one, undivided.
    fn blames_offload(&self, fine_without: impl FnOnce() -> bool) -> bool {
        match self.error.raw_os_error() {
            // The device cannot compute checksums, or the packet is to be transformed (IPsec).
            Some(libc::EIO) => true,
            // Also the answer to a bad source address and, from older kernels, to a segment beyond
            // the path MTU.
            Some(libc::EINVAL) => fine_without(),
            _ => false,
        }
    }
}

/// Sends the messages of `filled` from `*from` on. Returns at the end, or at a message that has to
/// be sent packet by packet, with `*from` at it.
fn push(
    filled: &mut Filled<'_>,
    from: &mut usize,
    share: &Share<'_>,
    report: &mut SendReport,
) -> Result<Option<Refusal>, GiveUp> {
    let mut retried = false;
    while *from < filled.len() {
        let error = match filled.send(share.socket.as_fd(), *from) {
            Ok(sent) => {
                for index in *from..*from + sent {
                    report.packets += filled.message(index).packets;
                    report.bytes += filled.message(index).bytes;
                }
                *from += sent;
                retried = false;
                continue;
            }
            Err(error) => error,
        };
        let code = error.raw_os_error().unwrap_or(libc::EIO);
        let verdict = verdict(code, filled.message(*from).packets > 1, retried);
        if verdict == Verdict::Split {
            return Ok(Some(Refusal { error }));
        }
        if verdict != Verdict::Full {
            report.error.get_or_insert(error);
        }
        match verdict {
            Verdict::Full => {
                report.full = true;
                return Err(GiveUp);
            }
            Verdict::GiveUp => return Err(GiveUp),
            Verdict::Retry => {
                retried = true;
                continue;
            }
            Verdict::TooBig => report.too_big += 1,
            Verdict::Drop | Verdict::Split => {}
        }
        *from += 1;
        retried = false;
    }
    Ok(None)
}

/// What to do about a message that the kernel did not take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    /// The socket or the device is full: waiting would delay the other paths.
    Full,
    /// Its packets one by one.
    Split,
    /// Once more: the error may be an earlier packet's.
    Retry,
    /// Count it as too big.
    TooBig,
    /// Only this one is lost.
    Drop,
    /// The next ones would fare no better.
    GiveUp,
}

/// `joined`: the message has several packets. `retried`: it is the second error in a row.
fn verdict(code: libc::c_int, joined: bool, retried: bool) -> Verdict {
    match code {
        libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => Verdict::Full,
        libc::EIO | libc::EINVAL | libc::EMSGSIZE if joined => Verdict::Split,
        // A firewall's answer to this packet, never a pending one.
        libc::EPERM => Verdict::Drop,
        // udp(7): a pending ICMP error is reported to the next call, which then does nothing else.
        _ if !retried => Verdict::Retry,
        libc::EMSGSIZE => Verdict::TooBig,
        // Answers from the network. On the way to a close dead peer they come for every packet.
        libc::ECONNREFUSED | libc::EACCES | libc::EPROTO | libc::ENOPROTOOPT => Verdict::Drop,
        _ => Verdict::GiveUp,
    }
}

/// Bytes: 384 KiB, which stays in the L2 cache while several sockets send it.
pub(crate) const CAPACITY: usize = 384 * 1024;

/// Bytes of IP (without options) and UDP headers: RFC 791, RFC 8200, RFC 768.
const IPV4_UDP_HEADERS: usize = 20 + 8;
const IPV6_UDP_HEADERS: usize = 40 + 8;

#[cfg(test)]
mod tests {
    use super::super::socket::{Family, SocketConfig};
    use super::*;

    #[test]
    fn a_full_socket_is_never_tried_again() {
        for code in [libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM] {
            for (joined, retried) in [(false, false), (true, false), (false, true), (true, true)] {
                assert_eq!(verdict(code, joined, retried), Verdict::Full);
            }
        }
    }

    #[test]
    fn a_joined_message_is_split_when_the_kernel_may_not_be_able_to_cut_it() {
        for code in [libc::EIO, libc::EINVAL, libc::EMSGSIZE] {
            assert_eq!(verdict(code, true, false), Verdict::Split);
            assert_eq!(verdict(code, true, true), Verdict::Split);
            assert_eq!(verdict(code, false, false), Verdict::Retry);
        }
    }

    #[test]
    fn a_pending_error_costs_one_retry_and_then_this_packet_only() {
        assert_eq!(verdict(libc::ECONNREFUSED, true, false), Verdict::Retry);
        assert_eq!(verdict(libc::ECONNREFUSED, true, true), Verdict::Drop);
        assert_eq!(verdict(libc::EMSGSIZE, false, true), Verdict::TooBig);
        assert_eq!(verdict(libc::EPERM, false, false), Verdict::Drop);
    }

    #[test]
    fn a_dead_route_ends_the_path_s_share() {
        for code in [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::ENETDOWN, libc::EADDRNOTAVAIL] {
            assert_eq!(verdict(code, false, false), Verdict::Retry);
            assert_eq!(verdict(code, false, true), Verdict::GiveUp);
        }
    }

    #[test]
    fn only_a_want_of_the_offload_turns_it_off() {
        let refusal = |code| Refusal { error: io::Error::from_raw_os_error(code) };

        assert!(refusal(libc::EIO).blames_offload(|| false));
        assert!(refusal(libc::EINVAL).blames_offload(|| true));
        assert!(!refusal(libc::EINVAL).blames_offload(|| false));
        assert!(!refusal(libc::EMSGSIZE).blames_offload(|| true));
    }

    #[test]
    fn a_batch_has_room_until_its_buffer_is_full() {
        let mut batch = SendBatch::new();
        assert!(batch.room(CAPACITY + 1).is_none());
        assert!(batch.room(usize::MAX).is_none());

        batch.room(CAPACITY).unwrap();
        batch.commit(CAPACITY - 1, 1);

        assert_eq!(batch.room(1).unwrap().len(), 1);
        assert!(batch.room(2).is_none());
        batch.clear();
        assert!(batch.is_empty());
        assert!(batch.room(65_507).is_some());
    }

    #[test]
    fn packets_without_bytes_fill_a_batch_as_well() {
        let mut batch = SendBatch::new();
        let mut packets = 0;
        while batch.room(0).is_some() {
            batch.commit(0, 1);
            packets += 1;
        }

        assert_eq!(packets, super::super::run::MAX_RUNS);
    }

    #[test]
    fn no_memory_is_taken_after_the_first_batches() {
        let receiver = UdpSocket::open(&SocketConfig::any(Family::V4)).unwrap();
        let sender = UdpSocket::open(&SocketConfig::any(Family::V4)).unwrap();
        let port = receiver.local_addr().unwrap().port();
        let to = Some((SocketAddr::from(([127, 0, 0, 1], port)), None));
        let mut batch = SendBatch::new();
        let mut send = |gso: bool| {
            for number in 0..300 {
                batch.room(1400).unwrap();
                batch.commit(if number % 50 == 0 { 200 } else { 1000 }, 1 << (number % 3));
            }
            if !gso {
                sender.disable_gso();
            }
            (0..3).for_each(|path| assert_eq!(batch.send(&sender, 1 << path, to).packets, 100));
            batch.clear();
            (batch.runs.capacity(), batch.wire.capacities(), batch.split.capacities())
        };

        let (joined, single) = ((send(true), send(true)), (send(false), send(false)));

        assert_eq!(joined.0, joined.1);
        assert_eq!(single.0, single.1);
    }

    #[test]
    fn room_that_is_not_committed_is_given_out_again() {
        let mut batch = SendBatch::new();

        batch.room(100).unwrap().fill(1);
        batch.room(100).unwrap().fill(2);

        assert!(batch.is_empty());
        assert_eq!(batch.buffer[0], 2);
    }
}
