// SPDX-License-Identifier: BSD-2-Clause
//! Linux: recvmmsg with UDP_GRO, sendmsg with UDP_SEGMENT, and IP_PKTINFO.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage,
    recvmmsg, sendmsg, setsockopt, sockopt,
};
use socket2::Socket;

use super::{Ready, Received, Target};

/// Room for what one system call receives.
pub struct Batch {
    memory: Vec<u8>,
    filled: Vec<Slot>,
}

struct Slot {
    from: SocketAddr,
    local: Option<IpAddr>,
    len: usize,
    segment: usize,
}

impl Batch {
    /// Room for [`SLOTS`] datagrams or joined runs of them.
    pub fn new() -> Self {
        Batch { memory: vec![0; SLOTS * SLOT], filled: Vec::with_capacity(SLOTS) }
    }

    /// Receives what waits at the socket, as much as there is room for; true if there may be more.
    pub fn receive(&mut self, socket: &Socket) -> io::Result<bool> {
        self.filled.clear();
        // Anew for each call, because nix 0.31 does not reset the lengths of address and control
        // buffers that the kernel has shortened: the next call would miss segment sizes.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(
            SLOTS,
            Some(cmsg_space!(libc::c_int, libc::in6_pktinfo)),
        );
        let mut slots: Vec<_> =
            self.memory.chunks_exact_mut(SLOT).map(|slot| [IoSliceMut::new(slot)]).collect();
        let messages = recvmmsg(
            socket.as_raw_fd(),
            &mut headers,
            slots.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        self.filled.extend(messages.map(|message| Slot::new(&message)));
        Ok(self.filled.len() == SLOTS)
    }

    /// What the last call received.
    pub fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        self.filled.iter().zip(self.memory.chunks_exact(SLOT)).map(|(slot, memory)| Received {
            from: slot.from,
            local: slot.local,
            bytes: &memory[..slot.len],
            segment: slot.segment,
        })
    }
}

impl Slot {
    fn new(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Self {
        let from = message.address.as_ref().and_then(socket_addr);
        let mut slot = Slot {
            from: from.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
            local: None,
            len: message.bytes,
            segment: message.bytes,
        };
        for control in message.cmsgs().into_iter().flatten() {
            match control {
                ControlMessageOwned::UdpGroSegments(size) => {
                    slot.segment = usize::try_from(size).unwrap_or(slot.len);
                }
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    let octets = info.ipi_spec_dst.s_addr.to_ne_bytes();
                    slot.local = Some(Ipv4Addr::from(octets).into());
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    slot.local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                _ => {}
            }
        }
        slot
    }
}

/// Sends the datagrams in one call. Two or more must all be of `segment` bytes, except that the
/// last may be shorter.
pub fn transmit(
    socket: &Socket,
    datagrams: &[IoSlice<'_>],
    segment: usize,
    target: Option<&Target>,
) -> io::Result<()> {
    let segment = u16::try_from(segment).map_err(|_| io::ErrorKind::InvalidInput)?;
    let info = target.and_then(|target| target.from).map(PacketInfo::new);
    let control: Vec<ControlMessage<'_>> = (datagrams.len() > 1)
        .then_some(ControlMessage::UdpGsoSegments(&segment))
        .into_iter()
        .chain(info.as_ref().map(PacketInfo::message))
        .collect();
    let to = target.map(|target| SockaddrStorage::from(target.to));
    sendmsg(socket.as_raw_fd(), datagrams, &control, MsgFlags::MSG_DONTWAIT, to.as_ref())?;
    Ok(())
}

/// The source address of a datagram, in the form that the kernel takes it (ip(7), ipv6(7)).
enum PacketInfo {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

impl PacketInfo {
    fn new(from: IpAddr) -> Self {
        match from {
            IpAddr::V4(from) => PacketInfo::V4(libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            }),
            IpAddr::V6(from) => PacketInfo::V6(libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
                ipi6_ifindex: 0,
            }),
        }
    }

    fn message(&self) -> ControlMessage<'_> {
        match self {
            PacketInfo::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            PacketInfo::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        }
    }
}

/// Asks the system to name the local address of each datagram.
pub fn report_local_addresses(socket: &Socket, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    Ok(())
}

/// Asks the system to join datagrams of one sender and size. Kernels before 5.0 cannot.
pub fn join_received(socket: &Socket) {
    let _ = setsockopt(socket, sockopt::UdpGroSegment, &true);
}

/// Many sockets, of which few are ready at a time.
pub struct Watch(Epoll);

impl Watch {
    /// Watches nothing yet.
    pub fn new() -> io::Result<Self> {
        Ok(Watch(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Watches `socket` under the name `id` until it is closed.
    pub fn add(&self, socket: &Socket, id: u64) -> io::Result<()> {
        self.0.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, id))?;
        Ok(())
    }

    /// Waits until a source or a watched socket can be read, a signal arrives, or the timeout has
    /// passed. `_sockets` are those that were added and live.
    pub fn wait<'a>(
        &self,
        sources: &[BorrowedFd<'_>],
        _sockets: impl Iterator<Item = (u64, &'a Socket)>,
        timeout: Option<Duration>,
    ) -> io::Result<Ready> {
        // ppoll, for timeouts below a millisecond; and it can wait for the epoll instance too,
        // which saves looking at a thousand idle sockets at each wake-up.
        let mut fds: Vec<PollFd<'_>> = std::iter::once(self.0.0.as_fd())
            .chain(sources.iter().copied())
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match ppoll(&mut fds, timeout.map(Into::into), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        // A socket with an error to report can be read: that is how the error is fetched.
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(false));
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match ready.next() {
            Some(true) => self.0.wait(&mut events, EpollTimeout::ZERO)?,
            _ => 0,
        };
        Ok(Ready {
            sources: ready.collect(),
            sockets: events[..count].iter().map(EpollEvent::data).collect(),
        })
    }
}

fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|&address| SocketAddr::from(address));
    v4.or_else(|| address.as_sockaddr_in6().map(|&address| address.into()))
}

/// Watched sockets that one wait names; the others are named by the next.
const EVENTS: usize = 64;

/// Datagrams, or joined runs, in one call.
const SLOTS: usize = 16;

/// Bytes for each of them: 64 KiB is the most that a datagram or a joined run has. The rest keeps
/// the starts of the slots, all that small datagrams use, from sharing the same cache sets.
const SLOT: usize = (64 << 10) + 320;
