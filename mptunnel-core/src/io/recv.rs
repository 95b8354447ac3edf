// SPDX-License-Identifier: BSD-2-Clause
//! Receiving in batches: `recvmmsg`, and in each message the datagrams that the kernel joined.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::ptr;

use super::control::ControlSpace;
use super::socket::UdpSocket;
use super::sys::{self, Name};

/// Whether a read waits for its first datagram. It never waits for a second one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wait {
    /// Takes what is there.
    DontWait,
    /// Blocks until there is something, or the socket's read timeout passed.
    First,
}

/// The buffers that one thread receives into, used again for every batch.
///
/// Their memory is reserved at once, but becomes resident only where datagrams were written: with
/// GRO up to 1 MiB at the default number of buffers, without GRO a page or two per buffer.
pub(crate) struct RecvBatch {
    memory: Vec<u8>,
    names: Vec<Name>,
    controls: Vec<ControlSpace>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    /// The headers of the last batch that hold a message.
    kept: Vec<usize>,
    discarded: u64,
}

// SAFETY: the headers' pointers lead to the other vectors, which this value owns. They are written
// anew before each system call and followed by nothing else, so no thread keeps a use of them.
unsafe impl Send for RecvBatch {}

/// One arrival: a datagram, or several of one source that the kernel joined.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    /// All datagrams, one behind the other.
    pub(crate) bytes: &'a mut [u8],
    /// Bytes of each datagram; the last one may be shorter. At least 1.
    pub(crate) segment_size: usize,
    /// Where they came from.
    pub(crate) remote: SocketAddr,
    /// The address they were sent to, if the socket was opened with `packet_info`.
    pub(crate) local_ip: Option<IpAddr>,
}

impl Message<'_> {
    /// The datagrams, to be opened in place. A message without bytes is one empty datagram.
    pub(crate) fn segments(&mut self) -> Segments<'_> {
        Segments { rest: Some(&mut *self.bytes), size: self.segment_size }
    }
}

/// Iterates over the datagrams of a [`Message`].
#[derive(Debug)]
pub(crate) struct Segments<'a> {
    /// `None` once the last one was given out.
    rest: Option<&'a mut [u8]>,
    size: usize,
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a mut [u8];

    fn next(&mut self) -> Option<&'a mut [u8]> {
        let rest = self.rest.take()?;
        if rest.len() <= self.size {
            return Some(rest);
        }
        let (segment, rest) = rest.split_at_mut(self.size);
        self.rest = Some(rest);
        Some(segment)
    }
}

/// A [`Message`] that is only read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peek<'a> {
    bytes: &'a [u8],
    segment_size: usize,
    /// Where the datagrams came from.
    pub(crate) remote: SocketAddr,
    /// The address they were sent to, if the socket was opened with `packet_info`.
    pub(crate) local_ip: Option<IpAddr>,
}

impl<'a> Peek<'a> {
    /// The datagrams. A message without bytes is one empty datagram.
    pub(crate) fn segments(self) -> impl Iterator<Item = &'a [u8]> {
        let empty = self.bytes.is_empty().then_some(self.bytes);
        empty.into_iter().chain(self.bytes.chunks(self.segment_size))
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        RecvBatch::new(DEFAULT_BUFFERS)
    }
}

impl RecvBatch {
    /// Reserves `buffers` buffers: the most messages that one call takes.
    ///
    /// # Panics
    /// If there is to be none.
    pub(crate) fn new(buffers: usize) -> Self {
        assert!(buffers > 0, "a batch has at least one buffer");
        RecvBatch {
            memory: vec![0; buffers * BUFFER_BYTES],
            names: vec![Name::EMPTY; buffers],
            controls: vec![ControlSpace::EMPTY; buffers],
            iovecs: vec![sys::iovec(ptr::null_mut(), 0); buffers],
            headers: vec![sys::empty_header(); buffers],
            kept: Vec::with_capacity(buffers),
            discarded: 0,
        }
    }

    /// Receives up to as many messages as there are buffers, and returns how many there are: see
    /// [`message`](Self::message). 0 if nothing was there, the read timeout passed, a signal
    /// interrupted the wait, or reading was [stopped](UdpSocket::stop_reading).
    ///
    /// # Errors
    /// Those that the network reported for this socket (`ECONNREFUSED`, `EHOSTUNREACH`,
    /// `EMSGSIZE`, …): the socket stays usable, and datagrams that are there come with the next
    /// call.
    pub(crate) fn recv(&mut self, socket: &UdpSocket, wait: Wait) -> io::Result<usize> {
        let flags = match wait {
            Wait::DontWait => libc::MSG_DONTWAIT,
            // Wait for the first one, then take what is there.
            Wait::First => libc::MSG_WAITFORONE,
        };
        self.kept.clear();
        self.arm();
        // SAFETY: `arm` pointed each header to a name, a vector and a control buffer of its own, in
        // memory that `self` owns and that is borrowed mutably until the call is over.
        let received = match unsafe { sys::recvmmsg(socket.as_fd(), &mut self.headers, flags) } {
            Ok(received) => received,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => return Ok(0),
                _ => return Err(error),
            },
        };
        for (index, header) in self.headers[..received].iter().enumerate() {
            // The kernel names no source for the "end of file" of a socket that was shut down.
            if header.msg_hdr.msg_namelen == 0 {
                continue;
            }
            // A datagram that is not whole is worth nothing, and without its control data nobody
            // knows where one ends and the next begins. The buffers have room for all there can be.
            if header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
                self.discarded += 1;
                continue;
            }
            self.kept.push(index);
        }
        Ok(self.kept.len())
    }

    /// Message `index` of the last batch.
    ///
    /// # Panics
    /// If the last batch had no more than `index` messages.
    pub(crate) fn message(&mut self, index: usize) -> Message<'_> {
        let slot = self.kept[index];
        let header = &self.headers[slot];
        let control = self.controls[slot].received(header.msg_hdr.msg_controllen as _);
        let remote = self.names[slot].decode(header.msg_hdr.msg_namelen);
        let bytes = &mut self.memory[slot * BUFFER_BYTES..][..header.msg_len as usize];
        Message {
            segment_size: control.segment_size.unwrap_or(bytes.len()).max(1),
            bytes,
            remote: remote.expect("an Internet socket names Internet addresses"),
            local_ip: control.local_ip,
        }
    }

    /// Message `index` of the last batch, to be read only; several may be held at once.
    ///
    /// # Panics
    /// If the last batch had no more than `index` messages.
    pub(crate) fn peek(&self, index: usize) -> Peek<'_> {
        let slot = self.kept[index];
        let header = &self.headers[slot];
        let control = self.controls[slot].received(header.msg_hdr.msg_controllen as _);
        let remote = self.names[slot].decode(header.msg_hdr.msg_namelen);
        let bytes = &self.memory[slot * BUFFER_BYTES..][..header.msg_len as usize];
        Peek {
            segment_size: control.segment_size.unwrap_or(bytes.len()).max(1),
            bytes,
            remote: remote.expect("an Internet socket names Internet addresses"),
            local_ip: control.local_ip,
        }
    }

    /// How many messages one call takes at most.
    pub(crate) fn capacity(&self) -> usize {
        self.headers.len()
    }

    #[cfg(test)]
    /// How many arrivals were thrown away because they did not fit: 0 on any known kernel.
    pub(crate) fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Points each header to its buffers. Done before every call: the kernel overwrites the
    /// lengths, and no pointer outlives a move of `self`.
    fn arm(&mut self) {
        let slots = self
            .memory
            .chunks_exact_mut(BUFFER_BYTES)
            .zip(&mut self.names)
            .zip(&mut self.controls)
            .zip(&mut self.iovecs)
            .zip(&mut self.headers);
        for ((((bytes, name), control), iovec), header) in slots {
            *iovec = sys::iovec(bytes.as_mut_ptr(), bytes.len());
            let control = control.room();
            let header = &mut header.msg_hdr;
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_namelen = Name::CAPACITY;
            header.msg_iov = iovec;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = control.len() as _;
        }
    }
}

/// Buffers of a batch. A wait at 100,000 datagrams/s returns about 14 of them.
pub(crate) const DEFAULT_BUFFERS: usize = 16;

/// Bytes. The kernel joins datagrams to less than 64 KiB, and a single one has at most 65,527
/// (IPv6, RFC 8200 without jumbograms). The rest keeps the buffers' starts from meeting in the same
/// lines of the cache.
const BUFFER_BYTES: usize = 65_536 + 192;

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(bytes: usize, segment_size: usize) -> Vec<usize> {
        let mut bytes: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
        let (whole, remote) = (bytes.clone(), "127.0.0.1:1".parse().unwrap());
        let mut message = Message { bytes: &mut bytes, segment_size, remote, local_ip: None };
        assert_eq!(
            message.segments().flat_map(|segment| segment.to_vec()).collect::<Vec<_>>(),
            whole
        );
        message.segments().map(|segment| segment.len()).collect()
    }

    #[test]
    fn a_message_is_cut_into_equal_datagrams_and_a_shorter_last_one() {
        assert_eq!(segments(2400, 1200), [1200, 1200]);
        assert_eq!(segments(2401, 1200), [1200, 1200, 1]);
        assert_eq!(segments(1200, 1200), [1200]);
        assert_eq!(segments(1199, 1200), [1199]);
    }

    #[test]
    fn a_message_without_bytes_is_one_empty_datagram() {
        assert_eq!(segments(0, 1), [0]);
    }

    #[test]
    fn datagrams_are_changed_in_place() {
        let (mut bytes, remote) = ([0; 5], "127.0.0.1:1".parse().unwrap());
        let mut message = Message { bytes: &mut bytes, segment_size: 2, remote, local_ip: None };

        for (index, segment) in message.segments().enumerate() {
            segment.fill(index as u8);
        }

        assert_eq!(bytes, [0, 0, 1, 1, 2]);
    }
}
