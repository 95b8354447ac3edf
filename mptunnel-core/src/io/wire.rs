// SPDX-License-Identifier: BSD-2-Clause
//! A send batch as the kernel wants it: headers, vectors and control data for `sendmmsg`.

use std::io;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr;

use super::control::ControlSpace;
use super::run::{Cursor, MAX_SEGMENTS, Run};
use super::sys::{self, Family, Name, normalized};

/// Where messages go.
pub(super) struct Target {
    /// `None`: the peer that the socket is connected to.
    pub(super) remote: Option<SocketAddr>,
    /// The address to send from; `None`: the route decides.
    pub(super) source: Option<IpAddr>,
    name: Name,
    name_len: libc::socklen_t,
    /// The source address as control data, maybe empty.
    control: ControlSpace,
}

impl Target {
    /// `None` if a socket of `family` cannot reach the address.
    pub(super) fn new(family: Family, to: Option<(SocketAddr, Option<IpAddr>)>) -> Option<Self> {
        let mut target = Target {
            remote: None,
            source: None,
            name: Name::EMPTY,
            name_len: 0,
            control: ControlSpace::EMPTY,
        };
        if let Some((remote, source)) = to {
            let remote = normalized(remote);
            (target.name, target.name_len) = Name::encode(remote, family)?;
            target.remote = Some(remote);
            target.source = source;
            if let Some(source) = source {
                let scope = match remote {
                    SocketAddr::V4(_) => 0,
                    SocketAddr::V6(v6) => v6.scope_id(),
                };
                target.control.push_source(source.to_canonical(), family == Family::V6, scope);
            }
        }
        Some(target)
    }
}

/// One message: packets of one size, the last maybe shorter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    /// Its packets.
    pub(super) packets: usize,
    /// Their bytes together.
    pub(super) bytes: usize,
    /// Bytes of each packet but the last.
    pub(super) segment: usize,
    /// Where its packets begin in the batch, and where the next message's do.
    pub(super) first: Cursor,
    pub(super) behind: Cursor,
    /// The number of its pieces in memory.
    pieces: usize,
}

/// Memory for the messages of one call, used again for each.
pub(super) struct Wire {
    messages: Vec<Message>,
    iovecs: Vec<libc::iovec>,
    controls: Vec<ControlSpace>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers in the vectors are only followed through a `Filled`, which borrows what they
// lead to. Outside of that they are left-overs, so no thread keeps a use of them.
unsafe impl Send for Wire {}

/// The messages of one call, complete with everything they point to.
pub(super) struct Filled<'a> {
    wire: &'a mut Wire,
    /// The packets and the target, borrowed as long as the headers point there.
    _borrowed: PhantomData<(&'a [u8], &'a Target)>,
}

/// Which packets of a batch to send, and how.
#[derive(Clone, Copy)]
pub(super) struct Selection<'a> {
    pub(super) buffer: &'a [u8],
    pub(super) runs: &'a [Run],
    /// Only packets that have this bit.
    pub(super) path_bit: u32,
    /// Whether packets of one size may leave as one message.
    pub(super) joined: bool,
}

impl Wire {
    pub(super) fn new() -> Self {
        Wire { messages: Vec::new(), iovecs: Vec::new(), controls: Vec::new(), headers: Vec::new() }
    }

    /// Makes messages of the packets of `selection` in `range`, [`MAX_MESSAGES`] at most.
    pub(super) fn fill<'a>(
        &'a mut self,
        selection: Selection<'a>,
        range: Range<Cursor>,
        target: &'a Target,
    ) -> Filled<'a> {
        self.messages.clear();
        self.iovecs.clear();
        self.controls.clear();
        self.headers.clear();

        let mut at = range.start;
        while self.messages.len() < MAX_MESSAGES
            && let Some(message) = self.gather(selection, at..range.end)
        {
            if message.packets > 1 {
                let mut control = target.control;
                let segment = u16::try_from(message.segment);
                control.push_segment_size(segment.expect("a joined packet is below 65,000 bytes"));
                self.controls.push(control);
            }
            at = message.behind;
            self.messages.push(message);
        }
        self.point(target);
        Filled { wire: self, _borrowed: PhantomData }
    }

    /// The memory held.
    #[cfg(test)]
    pub(super) fn capacities(&self) -> [usize; 4] {
        let Wire { messages, iovecs, controls, headers } = self;
        [messages.capacity(), iovecs.capacity(), controls.capacity(), headers.capacity()]
    }

    /// Makes the first message of `range`, and puts its pieces to the others'.
    fn gather(&mut self, selection: Selection<'_>, range: Range<Cursor>) -> Option<Message> {
        let Selection { buffer, runs, path_bit, joined } = selection;
        let mut first = range.start;
        while runs.get(first.run)?.paths & path_bit == 0 {
            first = Cursor { run: first.run + 1, packet: 0 };
        }
        if first >= range.end {
            return None;
        }

        let mut whole = runs[first.run];
        let mut behind = Cursor { run: first.run + 1, packet: 0 };
        if !joined {
            let (start, bytes) = whole.packet(first.packet);
            if first.packet + 1 < whole.packets {
                behind = Cursor { run: first.run, packet: first.packet + 1 };
            }
            whole = Run { start, bytes, segment: bytes, packets: 1, paths: whole.paths };
        }
        let mut pieces = 1;
        self.push_piece(buffer, &whole);
        while joined
            && behind < range.end
            && let Some(next) = runs.get(behind.run)
        {
            if next.paths & path_bit != 0 {
                if !whole.may_precede(next) {
                    break;
                }
                whole.join(next);
                self.push_piece(buffer, next);
                pieces += 1;
            }
            behind.run += 1;
        }
        let Run { packets, bytes, segment, .. } = whole;
        Some(Message { packets, bytes, segment, first, behind, pieces })
    }

    fn push_piece(&mut self, buffer: &[u8], run: &Run) {
        let bytes = &buffer[run.start..][..run.bytes];
        // A vector has no read-only form; sendmmsg only reads.
        self.iovecs.push(sys::iovec(bytes.as_ptr().cast_mut(), bytes.len()));
    }

    /// Makes the headers, once nothing moves any more.
    fn point(&mut self, target: &Target) {
        let mut iovecs = self.iovecs.as_mut_slice();
        let mut controls = self.controls.iter();
        for message in &self.messages {
            let (pieces, rest) = iovecs.split_at_mut(message.pieces);
            iovecs = rest;
            let control = match message.packets {
                1 => target.control.written(),
                _ => controls.next().expect("each joined message has a control").written(),
            };

            let mut header = sys::empty_header();
            header.msg_hdr.msg_iov = pieces.as_mut_ptr();
            header.msg_hdr.msg_iovlen = pieces.len() as _;
            if target.remote.is_some() {
                header.msg_hdr.msg_name = ptr::from_ref(&target.name).cast_mut().cast();
                header.msg_hdr.msg_namelen = target.name_len;
            }
            if !control.is_empty() {
                header.msg_hdr.msg_control = control.as_ptr().cast_mut().cast();
                header.msg_hdr.msg_controllen = control.len() as _;
            }
            self.headers.push(header);
        }
    }
}

impl Filled<'_> {
    pub(super) fn len(&self) -> usize {
        self.wire.messages.len()
    }

    pub(super) fn message(&self, index: usize) -> Message {
        self.wire.messages[index]
    }

    /// Where the first packet behind these messages is; `None` if there are no messages.
    pub(super) fn behind(&self) -> Option<Cursor> {
        Some(self.wire.messages.last()?.behind)
    }

    /// Sends the messages from number `from` on, without waiting, and returns how many the kernel
    /// took: at least one.
    ///
    /// # Errors
    /// Why it did not take the first one.
    pub(super) fn send(&mut self, fd: BorrowedFd<'_>, from: usize) -> io::Result<usize> {
        let headers = &mut self.wire.headers[from..];
        // SAFETY: `point` gave each header the right lengths and pointers to the packets and the
        // target, which `self` borrows, and to the vectors of `wire`, which nobody else can change
        // as long as `self` lives.
        unsafe { sys::sendmmsg(fd, headers, libc::MSG_DONTWAIT) }
    }
}

/// Messages of one call: more than the packets of the longest run, so that it can be sent packet by
/// packet at one go.
const MAX_MESSAGES: usize = MAX_SEGMENTS;

#[cfg(test)]
mod tests {
    use super::super::run::Runs;
    use super::*;

    /// (packets, bytes, pieces) of each message, batch after batch.
    fn messages(
        packets: &[(usize, u32)],
        joined: bool,
        path_bit: u32,
    ) -> Vec<(usize, usize, usize)> {
        let mut runs = Runs::new();
        packets.iter().for_each(|(len, paths)| runs.push(*len, *paths));
        let buffer: Vec<u8> = (0..runs.end()).map(|index| (index / 7) as u8).collect();
        let selection = Selection { buffer: &buffer, runs: runs.as_slice(), path_bit, joined };
        let target = Target::new(Family::V4, None).unwrap();
        let mut wire = Wire::new();
        let (mut seen, mut at) = (Vec::new(), Cursor::default());

        loop {
            let filled = wire.fill(selection, at..Cursor::END, &target);
            let Some(behind) = filled.behind() else { break };
            at = behind;
            seen.extend(filled.wire.messages.iter().map(|m| (m.packets, m.bytes, m.pieces)));
        }

        let expected: usize =
            packets.iter().filter(|(_, paths)| paths & path_bit != 0).map(|(len, _)| len).sum();
        assert_eq!(seen.iter().map(|(_, bytes, _)| bytes).sum::<usize>(), expected);
        assert_eq!(
            seen.iter().map(|m| m.0).sum::<usize>(),
            runs.packets_from(Cursor::default(), path_bit)
        );
        seen
    }

    #[test]
    fn packets_dealt_out_in_turn_leave_as_one_message_per_path() {
        let dealt: Vec<_> = (0..20).map(|index| (1400, 1 << (index % 2))).collect();

        assert_eq!(messages(&dealt, true, 1), [(10, 14_000, 10)]);
        assert_eq!(messages(&dealt, true, 2), [(10, 14_000, 10)]);
        assert_eq!(messages(&dealt, true, 4), []);
    }

    #[test]
    fn joining_over_other_paths_packets_keeps_the_kernel_s_rules() {
        // A shorter packet ends the message.
        assert_eq!(
            messages(&[(1400, 1), (9, 2), (600, 1), (9, 2), (600, 1)], true, 1),
            [(2, 2000, 2), (1, 600, 1)]
        );
        // 64 segments.
        let dealt: Vec<_> = (0..130).map(|index| (100, 1 << (index % 2))).collect();
        assert_eq!(messages(&dealt, true, 1), [(64, 6400, 64), (1, 100, 1)]);
        // 65,000 bytes.
        let dealt: Vec<_> = (0..102).map(|index| (1300, 1 << (index % 2))).collect();
        assert_eq!(messages(&dealt, true, 2), [(50, 65_000, 50), (1, 1300, 1)]);
    }

    #[test]
    fn without_the_offload_every_packet_is_a_message() {
        assert_eq!(
            messages(&[(1400, 1), (1400, 1), (600, 1), (0, 3), (7, 2)], false, 1),
            [(1, 1400, 1), (1, 1400, 1), (1, 600, 1), (1, 0, 1)]
        );
    }

    #[test]
    fn a_long_batch_takes_several_calls_and_loses_nothing() {
        assert_eq!(messages(&[(100, 1); 200], false, 1).len(), 200);
        let growing: Vec<_> = (1..150).map(|len| (len, 1)).collect();
        assert_eq!(messages(&growing, true, 1).len(), 149);
    }

    #[test]
    fn a_link_local_peer_is_answered_on_its_interface() {
        let (remote, source) = ("[fe80::2%5]:9".parse().unwrap(), "fe80::1".parse().unwrap());
        let mut expected = ControlSpace::EMPTY;
        expected.push_source(source, true, 5);

        let target = Target::new(Family::V6, Some((remote, Some(source)))).unwrap();

        assert_eq!(target.control.written(), expected.written());
    }
}
