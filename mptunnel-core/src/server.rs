// SPDX-License-Identifier: BSD-2-Clause
//! The server's end: many clients behind one port.

mod look;
mod seen;

use crate::handler::{Delivery, Handler};
use crate::hook::SocketHook;
use crate::inbox::{Arrival, Inbox, Slot};
use crate::interrupt::Attempts;
use crate::io::entropy::OsEntropy;
use crate::io::legacy;
use crate::io::outgoing::Outcome;
use crate::io::room::Patience;
use crate::io::send::SendBatch;
use crate::io::server::{ServerIo, hex};
use crate::io::socket::{SocketConfig, UdpSocket};
use crate::options::{Place, Protocol, Settings};
use crate::proto::dataplane::DataPlane;
use crate::proto::frame::{CLOSE_FINISHED, CLOSE_LIMIT};
use crate::proto::server::{Peer, Server as Machine};
use crate::proto::time::Time;
use crate::proto::view::{SendView, ViewCell};
use crate::proto::wire::INDEX_OFFSET;
use crate::sending::{self, Outlet, SendOptions};
use crate::setup::{self, OwnKey};
use crate::sync::Mutex;
use crate::trend::Trend;
use crate::{Error, Event, PathId, PeerId};
use seen::Seen;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// The server's end of many tunnels, behind one port.
///
/// All methods take `&self` and may be called from any thread at any time.
///
/// ```no_run
/// use mptunnel_core::Server;
///
/// let server = Server::builder().key_file("/etc/mptunnel/psk").port(4000).bind()?;
/// let mut buffer = [0; 65_507];
/// loop {
///     let (len, client) = server.recv_from(&mut buffer)?;
///     server.send_to(&buffer[..len], client)?;
/// }
/// # Ok::<(), mptunnel_core::Error>(())
/// ```
pub struct Server {
    io: End,
    inbox: Arc<Inbox>,
    batch: Mutex<SendBatch>,
    local: Vec<SocketAddr>,
    settings: Mutex<Settings>,
    key_ids: Vec<String>,
    /// What its clients' paths had counted a while ago. Locked after `seen`.
    trend: Mutex<Trend>,
    /// Its clients as the last snapshot saw them.
    seen: Mutex<Seen>,
}

/// What a server speaks, decided when it is bound and for good.
enum End {
    Ours(ServerIo),
    Legacy(legacy::ServerIo),
}

impl End {
    fn is_forked(&self) -> bool {
        match self {
            End::Ours(io) => io.shared.is_forked(),
            End::Legacy(io) => io.is_forked(),
        }
    }

    fn check(&self) -> Result<(), Error> {
        match self {
            End::Ours(io) => io.shared.check(),
            End::Legacy(io) => io.check(),
        }
    }

    fn close(&self) {
        match self {
            End::Ours(io) => io.close(),
            End::Legacy(io) => io.close(),
        }
    }
}

/// How a [`Server`] is to be.
#[derive(Default)]
#[must_use = "nothing happens before `bind`"]
pub struct ServerBuilder {
    listen: Vec<SocketAddr>,
    port: Option<u16>,
    settings: Settings,
    key: OwnKey,
    delivery: Delivery,
    hook: Option<SocketHook>,
    wrong: Option<Error>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("local_addrs", &self.local)
            .field("key_ids", &self.key_ids)
            .finish_non_exhaustive()
    }
}

/// Without the key: what is printed ends up in logs.
impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("listen", &self.listen)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl ServerBuilder {
    /// Listens on this address; may be said more than once.
    pub fn listen(mut self, at: SocketAddr) -> Self {
        self.listen.push(at);
        self
    }

    /// Listens on this port of all addresses, IPv6 and IPv4; 0 for one that the system picks.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The file with the key, or keys, of the clients, made by `mptunnel genpsk`.
    pub fn key_file(mut self, file: impl AsRef<Path>) -> Self {
        self.settings.key_file = Some(file.as_ref().to_owned());
        self
    }

    /// The key that both ends share: 32 random bytes, not all zero.
    pub fn key(mut self, key: &[u8; 32]) -> Self {
        self.key = Some(Zeroizing::new(*key));
        self
    }

    /// Sets one option of the table, such as `("sessions", "100")`.
    pub fn option(mut self, key: &str, value: &str) -> Self {
        if let Err(error) = self.settings.set(key, value) {
            self.wrong.get_or_insert(Error::Config(error.to_string()));
        }
        self
    }

    /// Replaces all options.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Has every socket shown to `hook` before it is used.
    pub fn socket_hook(mut self, hook: impl Into<Option<SocketHook>>) -> Self {
        self.hook = hook.into();
        self
    }

    /// Takes delivery on the one receive thread: for relays. Then `recv_from` never returns
    /// anything.
    pub fn handler(mut self, handler: impl Handler + 'static) -> Self {
        self.delivery = Delivery::One(Box::new(handler));
        self
    }

    /// Takes delivery on the receive threads: `make` is called once for each of them (option
    /// `threads`).
    pub fn handlers<H: Handler + 'static>(mut self, mut make: impl FnMut() -> H + 'static) -> Self {
        self.delivery = Delivery::Each(Box::new(move || Box::new(make())));
        self
    }

    /// Binds the sockets and begins to serve.
    ///
    /// # Errors
    /// [`Error::Config`] for wrong settings, a missing or unusable key, or no address to listen on;
    /// [`Error::Io`] if an address cannot be bound, or the system has no threads, descriptors or
    /// randomness.
    pub fn bind(self) -> Result<Server, Error> {
        if let Some(error) = self.wrong {
            return Err(error);
        }
        OsEntropy::check()
            .map_err(|source| Error::Io { op: "random numbers".to_owned(), source })?;
        let config = match self.settings.protocol {
            Protocol::Legacy => legacy::check(&self.settings, self.key.is_some()).map(|()| None)?,
            Protocol::Mptunnel => Some(setup::server(&self.settings, self.key)?),
        };
        let mut listeners = Vec::new();
        for at in &self.listen {
            listeners.push(open(*at, &self.settings, self.hook.as_ref())?);
        }
        if let Some(port) = self.port {
            // One socket for both families; without IPv6 in the kernel, one for IPv4.
            let both =
                open((Ipv6Addr::UNSPECIFIED, port).into(), &self.settings, self.hook.as_ref());
            let no_ipv6 = |error: &Error| {
                matches!(error, Error::Io { source, .. }
                    if source.raw_os_error() == Some(libc::EAFNOSUPPORT))
            };
            listeners.push(match both {
                Err(error) if no_ipv6(&error) => {
                    open((Ipv4Addr::UNSPECIFIED, port).into(), &self.settings, self.hook.as_ref())?
                }
                other => other?,
            });
        }
        if listeners.is_empty() {
            return Err(Error::Config("no port: say where to listen".to_owned()));
        }
        let local = listeners.iter().filter_map(|l| l.first()?.local_addr().ok()).collect();
        let inbox = Inbox::new(self.settings.receive_queue)?;
        let events = inbox.clone();
        let mut handlers = self.delivery.handlers(self.settings.threads, &inbox)?;
        let sink = Box::new(move |event: Event| {
            let over = event == Event::Closed;
            events.tell(event);
            if over {
                events.close();
            }
        });
        let (io, key_ids) = match config {
            Some(config) => {
                let plane = Arc::new(DataPlane::default());
                let machine = Machine::new(config, plane.clone(), Box::new(OsEntropy));
                let key_ids = machine.key_ids().iter().map(|id| hex(id)).collect();
                let mtu = self.settings.mtu;
                let io = ServerIo::start(machine, plane, listeners, mtu, handlers, sink)?;
                (End::Ours(io), key_ids)
            }
            None => {
                let handler = handlers.remove(0);
                let listeners = listeners.into_iter().flatten().collect();
                let io = legacy::ServerIo::start(&self.settings, listeners, handler, sink)?;
                (End::Legacy(io), Vec::new())
            }
        };
        let settings = Mutex::new(self.settings);
        let (batch, trend, seen) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Server { io, inbox, batch, local, settings, key_ids, trend, seen })
    }
}

fn open(
    at: SocketAddr,
    settings: &Settings,
    hook: Option<&SocketHook>,
) -> Result<Vec<UdpSocket>, Error> {
    let buffer = usize::try_from(settings.socket_buffer).unwrap_or(0);
    let mut config = SocketConfig::new(at);
    config.packet_info = true;
    config.offload = settings.offload;
    config.recv_buffer = buffer;
    config.send_buffer = buffer;
    // By session: then its datagrams stay in order, and no two threads want one window.
    let threads = usize::from(settings.threads);
    let prepare = |fd: BorrowedFd<'_>| SocketHook::call(hook, fd, &format!("listen={at}"));
    UdpSocket::open_group(&config, threads, INDEX_OFFSET, prepare)
        .map_err(|error| error.of_listening(at))
}

impl Server {
    /// Begins the description of a server.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// The addresses that it listens on.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local
    }

    /// The ids of the keys in use, for comparing both ends' logs. Not secret.
    pub fn key_ids(&self) -> &[String] {
        &self.key_ids
    }

    /// Sends one datagram to a client over all its paths. Never waits for the network.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`], [`Error::NoPath`] (nothing was sent), [`Error::PayloadTooLarge`],
    /// [`Error::WouldBlock`] (all sockets are full), [`Error::Closed`], [`Error::Forked`],
    /// [`Error::Failed`].
    pub fn send_to(&self, datagram: &[u8], peer: PeerId) -> Result<(), Error> {
        self.send_batch_to([datagram], peer)
    }

    /// Sends a batch of datagrams to a client.
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to). An error means that nothing of the batch was sent.
    pub fn send_batch_to<'d>(
        &self,
        datagrams: impl IntoIterator<Item = &'d [u8]>,
        peer: PeerId,
    ) -> Result<(), Error> {
        let datagrams = datagrams.into_iter();
        let outcome = match &self.io {
            End::Ours(io) => {
                let view = io.shared.view(peer.client()).ok_or(Error::UnknownPeer(peer))?;
                let in_flow = datagrams.map(|bytes| (peer.flow(), bytes));
                io.shared.send(peer.client(), &view, &mut self.batch.lock(), in_flow)?
            }
            End::Legacy(io) => io.send(peer, &mut self.batch.lock(), datagrams)?,
        };
        if outcome.copies == 0 && outcome.dropped > 0 {
            return Err(Error::WouldBlock);
        }
        Ok(())
    }

    /// As [`send_to`](Self::send_to), with wishes. Paths are those of this client, by the names
    /// that [`paths`](Self::paths) tells.
    ///
    /// # Errors
    /// In addition [`Error::TimedOut`] and [`Error::Interrupted`], for who waits;
    /// [`Error::NoPath`] for a path that is not up.
    pub fn send_with(
        &self,
        datagram: &[u8],
        peer: PeerId,
        options: &SendOptions,
    ) -> Result<(), Error> {
        self.send_batch_with([datagram], peer, options).map(drop)
    }

    /// Sends datagrams in order to a client with the same wishes. Returns how many of them, from
    /// the first one on, were taken by at least one path.
    ///
    /// # Errors
    /// As [`send_with`](Self::send_with), if the first of them could not be sent.
    pub fn send_batch_with<'d>(
        &self,
        datagrams: impl IntoIterator<Item = &'d [u8], IntoIter: Clone>,
        peer: PeerId,
        options: &SendOptions,
    ) -> Result<usize, Error> {
        self.io.check()?;
        let (datagrams, room) = (datagrams.into_iter(), &self.inbox.room);
        match &self.io {
            End::Ours(io) => {
                let view = io.shared.view(peer.client()).ok_or(Error::UnknownPeer(peer))?;
                let outlet = ToClient { io, batch: &self.batch, peer, view };
                sending::send_all(&outlet, room, datagrams, options)
            }
            End::Legacy(io) => io.send_all(peer, &self.batch, room, datagrams, options),
        }
    }

    /// A sender with a buffer of its own, for relays.
    pub fn sender(self: &Arc<Self>) -> ServerSender {
        ServerSender { server: self.clone(), batch: SendBatch::default() }
    }

    /// What [`ServerSender`] needs to know of a client, once for many datagrams.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`].
    pub fn handle(&self, peer: PeerId) -> Result<PeerHandle, Error> {
        let peer = peer.client();
        let view = match &self.io {
            End::Ours(io) => Some(io.shared.view(peer).ok_or(Error::UnknownPeer(peer))?),
            End::Legacy(io) => io.know(peer).map(|()| None)?,
        };
        Ok(PeerHandle { peer, view })
    }

    /// Takes the next datagram of any client into `buffer`: its length and the client. Waits as
    /// long as it takes.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`]: the datagram is kept. [`Error::Interrupted`], [`Error::Closed`],
    /// [`Error::Forked`], [`Error::Failed`].
    pub fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, PeerId), Error> {
        self.recv_with(buffer, None).map(|arrival| (arrival.len, arrival.peer))
    }

    /// As [`recv_from`](Self::recv_from), for at most `timeout`; zero does not wait.
    ///
    /// # Errors
    /// In addition [`Error::TimedOut`], or [`Error::WouldBlock`] for a timeout of zero.
    pub fn recv_from_timeout(
        &self,
        buffer: &mut [u8],
        timeout: Duration,
    ) -> Result<(usize, PeerId), Error> {
        self.recv_with(buffer, Some(timeout)).map(|arrival| (arrival.len, arrival.peer))
    }

    /// Takes the next datagram of any client, and tells where and when it came in. `None` waits for
    /// ever, zero not at all.
    ///
    /// # Errors
    /// As [`recv_from_timeout`](Self::recv_from_timeout).
    pub fn recv_with(
        &self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<Arrival, Error> {
        self.io.check()?;
        self.inbox.recv(buffer, timeout)
    }

    /// Waits for a datagram and takes as many as there are and `slots` hold.
    ///
    /// # Errors
    /// As [`recv_from_timeout`](Self::recv_from_timeout); `None` waits for ever.
    pub fn recv_batch<S: Slot>(
        &self,
        slots: &mut [S],
        timeout: Option<Duration>,
    ) -> Result<usize, Error> {
        self.io.check()?;
        self.inbox.recv_batch(slots, timeout)
    }

    /// The next piece of news; `None` waits for ever.
    ///
    /// # Errors
    /// [`Error::TimedOut`], or [`Error::WouldBlock`] for a timeout of zero; [`Error::Interrupted`],
    /// [`Error::Closed`].
    pub fn next_event(&self, timeout: Option<Duration>) -> Result<Event, Error> {
        if self.io.is_forked() {
            return Err(Error::Forked);
        }
        self.inbox.next_event(timeout)
    }

    /// Makes every call that waits return with [`Error::Interrupted`].
    pub fn interrupt(&self) {
        self.inbox.interrupt();
    }

    /// Begins a call that is made of several: see [`Attempts`].
    pub fn attempts(&self) -> Attempts {
        self.inbox.attempts()
    }

    /// The largest datagram that this end accepts, in bytes; a client may accept less.
    pub fn max_payload(&self) -> usize {
        match &self.io {
            End::Ours(_) => usize::from(self.settings.lock().max_payload),
            End::Legacy(io) => io.max_payload(),
        }
    }

    /// How often the process of a client was restarted; `None` if it is not connected.
    pub(crate) fn epoch(&self, peer: PeerId) -> Option<u32> {
        match &self.io {
            End::Ours(io) => io.shared.control.lock().peer(peer.client()).map(|peer| peer.epoch),
            End::Legacy(io) => io.know(peer).ok().map(|()| legacy::EPOCH),
        }
    }

    /// Events that nobody fetched in time.
    pub(crate) fn events_dropped(&self) -> u64 {
        self.inbox.events_dropped()
    }

    /// Tells of something as if it had happened.
    #[cfg(test)]
    pub(crate) fn tell(&self, event: Event) {
        self.inbox.tell(event);
    }

    /// Waits until a client is connected and one of its paths is up.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::Interrupted`], [`Error::Closed`] and so on.
    pub fn wait_ready(&self, timeout: Option<Duration>) -> Result<(), Error> {
        let ready = self.inbox.wait_until(timeout, || {
            if let Err(over) = self.io.check() {
                return Some(Err(over));
            }
            let io = match &self.io {
                End::Ours(io) => io,
                End::Legacy(io) => return io.is_ready().then_some(Ok(())),
            };
            let server = io.shared.control.lock();
            let is_up = |peer: &Peer| peer.slots().any(|s| s.active.is_some() && !s.silent);
            server.peers().any(is_up).then_some(Ok(()))
        });
        ready.unwrap_or_else(|| Err(Error::TimedOut(timeout.unwrap_or_default())))
    }

    /// Changes an option while the server runs: `sessions`, `session-timeout`, `handshake-rate`,
    /// `cookie-threshold`, `source-rate`, `source-burst`, `idle-interval`, `receive-queue`; `mode`,
    /// `target-loss`, `max-copies`, `budget` or `failback`, which count at both ends.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown option, a wrong value, or an option that counts only at the
    /// start; [`Error::Closed`] and so on.
    pub fn set(&self, key: &str, value: &str) -> Result<(), Error> {
        self.io.check()?;
        let mut settings = self.settings.lock();
        let changed = setup::changed(&settings, Place::ServerLibrary, key, value)?;
        self.inbox.set_limit(changed.receive_queue);
        let limits = setup::server_limits(&changed);
        if let End::Ours(io) = &self.io {
            io.shared.with_control(|server, now| {
                server.set_limits(now, limits);
                server.set_policy(now, setup::policy(&changed));
            });
        }
        *settings = changed;
        Ok(())
    }

    /// The value of an option, as text; `None` if it has none.
    ///
    /// # Errors
    /// [`Error::Config`] for an option that a server does not have.
    pub fn get(&self, key: &str) -> Result<Option<String>, Error> {
        setup::value_of(&self.settings.lock(), Place::ServerLibrary, key)
    }

    /// Ends the session of one client, for good. The legacy protocol has none to end.
    pub fn dismiss(&self, peer: PeerId) {
        if let (Ok(()), End::Ours(io)) = (self.io.check(), &self.io) {
            io.shared.with_control(|server, now| server.dismiss(now, peer.client()));
        }
    }

    /// Tells a client that one of its flows has ended, or (`refused`) that there is no room for it.
    pub fn close_flow(&self, peer: PeerId, flow: u16, refused: bool) {
        let code = if refused { CLOSE_LIMIT } else { CLOSE_FINISHED };
        match (self.io.check(), &self.io) {
            (Ok(()), End::Ours(io)) => {
                io.shared.with_control(|server, now| server.close_flow(now, peer, flow, code));
            }
            (Ok(()), End::Legacy(io)) if !refused => io.close_flow(peer, flow),
            _ => {}
        }
    }

    /// Tells all clients that the server goes away and may come back, and stops, within three
    /// seconds at most. Dropping the server does the same.
    pub fn close(&self) {
        // Who waits is told before the goodbyes, which take a moment. In a forked child the
        // descriptor is still the parent's, whom this does not concern.
        if !self.io.is_forked() {
            self.inbox.close();
        }
        self.io.close();
    }
}

/// Readable while [`Server::recv_from_timeout`] with a timeout of zero would return something, or
/// [`Server::next_event`] once it has been called. Level-triggered. Nobody may read from it or
/// write to it.
impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inbox.fd()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}

/// A client, or an application behind it, as the destination of datagrams.
struct ToClient<'a> {
    io: &'a ServerIo,
    batch: &'a Mutex<SendBatch>,
    peer: PeerId,
    view: Arc<ViewCell>,
}

impl Outlet for ToClient<'_> {
    fn view(&self) -> Result<(Arc<SendView>, Time), Error> {
        self.io.shared.view_to_send(self.peer.client(), &self.view)
    }

    fn slot(&self, path: PathId) -> Result<u8, Error> {
        path.slot_at_server().filter(|slot| *slot < 32).ok_or(Error::UnknownPath(path))
    }

    fn send<'d>(
        &self,
        view: &SendView,
        now: Time,
        datagrams: impl Iterator<Item = &'d [u8]>,
    ) -> Result<Outcome, Error> {
        let datagrams = datagrams.map(|bytes| (self.peer.flow(), bytes));
        let mut batch = self.batch.lock();
        self.io.shared.send_with(self.peer.client(), view, now, &mut batch, datagrams)
    }

    fn wait(&self, view: &SendView, patience: &mut Patience<'_>) -> Result<bool, Error> {
        self.io.shared.wait_for_room(view, patience)
    }
}

/// What a [`ServerSender`] needs to know of a client. Stays valid, and is of no use, after the
/// client is gone.
#[derive(Clone)]
pub struct PeerHandle {
    peer: PeerId,
    /// `None`: the one client of the legacy protocol.
    view: Option<Arc<ViewCell>>,
}

/// Sends to the clients of a [`Server`] with a buffer of its own.
pub struct ServerSender {
    server: Arc<Server>,
    batch: SendBatch,
}

impl ServerSender {
    /// Sends a batch of datagrams, each with its flow, to one client. Returns how many copies the
    /// sockets did not take.
    ///
    /// # Errors
    /// As [`Server::send_batch_to`].
    pub fn send<'d>(
        &mut self,
        to: &PeerHandle,
        datagrams: impl IntoIterator<Item = (u16, &'d [u8])>,
    ) -> Result<usize, Error> {
        let datagrams = datagrams.into_iter();
        let outcome = match (&self.server.io, &to.view) {
            (End::Ours(io), Some(view)) => {
                io.shared.send(to.peer, view, &mut self.batch, datagrams)?
            }
            (End::Legacy(io), None) => {
                io.send(to.peer, &mut self.batch, datagrams.map(|(_, bytes)| bytes))?
            }
            // A handle of another server.
            _ => return Err(Error::UnknownPeer(to.peer)),
        };
        Ok(outcome.dropped)
    }
}
