// SPDX-License-Identifier: BSD-2-Clause
//! The client's end: one server, several paths.

mod look;

use crate::handler::Handler;
use crate::hook::SocketHook;
use crate::inbox::{Arrival, Inbox, QueueHandler, Slot};
use crate::interrupt::Attempts;
use crate::io::client::ClientIo;
use crate::io::entropy::OsEntropy;
use crate::io::legacy;
use crate::io::outgoing::Outcome;
use crate::io::paths::{PathJob, PathPlan};
use crate::io::room::Patience;
use crate::io::send::SendBatch;
use crate::io::server::hex;
use crate::options::{HostPort, PathSpec, Place, Protocol, Settings, renamed_after, unused_name};
use crate::proto::client::Client;
use crate::proto::dataplane::DataPlane;
use crate::proto::throttle::Rate;
use crate::proto::time::Time;
use crate::proto::view::SendView;
use crate::sending::{self, Outlet, SendOptions};
use crate::setup::{self, OwnKey};
use crate::sync::Mutex;
use crate::trend::Trend;
use crate::{Error, Event, PathId, PeerId};
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

mod probing;

pub use probing::ProbeAnswer;

/// The client's end of a multipath tunnel. Datagrams go over all paths; the first copy of each is
/// delivered, whole and once, or none is.
///
/// All methods take `&self` and may be called from any thread at any time. Whatever the library can
/// heal it heals by itself: paths come and go, either end may be restarted.
///
/// ```no_run
/// use mptunnel_core::Tunnel;
///
/// let tunnel = Tunnel::builder()
///     .key_file("/etc/mptunnel/psk")
///     .path("to=bridge1.example:4000 if=eth0")
///     .path("to=bridge2.example:4000 if=wwan0")
///     .connect()?;
/// tunnel.wait_ready(Some(std::time::Duration::from_secs(5)))?;
/// tunnel.send(b"hello")?;
/// let mut buffer = [0; 65_507];
/// let len = tunnel.recv(&mut buffer)?;
/// println!("{} bytes came back", len);
/// # Ok::<(), mptunnel_core::Error>(())
/// ```
pub struct Tunnel {
    io: End,
    inbox: Arc<Inbox>,
    batch: Mutex<SendBatch>,
    settings: Mutex<Settings>,
    server: Option<HostPort>,
    /// What describes each path. Locked by who changes paths, for as long as that takes.
    specs: Mutex<BTreeMap<PathId, PathSpec>>,
    hook: Option<SocketHook>,
    key_id: String,
    /// What its paths had counted a while ago.
    trend: Mutex<Trend>,
}

/// What a tunnel speaks, decided when it is opened and for good.
enum End {
    Ours(ClientIo),
    Legacy(legacy::ClientIo),
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

/// How a [`Tunnel`] is to be.
#[derive(Default)]
#[must_use = "nothing happens before `connect`"]
pub struct TunnelBuilder {
    server: Option<HostPort>,
    paths: Vec<PathSpec>,
    settings: Settings,
    key: OwnKey,
    handler: Option<Box<dyn Handler>>,
    hook: Option<SocketHook>,
    wrong: Option<Error>,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// Without the key: what is printed ends up in logs.
impl fmt::Debug for TunnelBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelBuilder")
            .field("server", &self.server)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

impl TunnelBuilder {
    /// Where paths without a `to=` lead: `host:port` of the server itself.
    pub fn server(mut self, at: &str) -> Self {
        match at.parse() {
            Ok(at) => self.server = Some(at),
            Err(error) => self.remember(format!("server {at:?}: {error}")),
        }
        self
    }

    /// Adds a path, in words: `to=HOST:PORT if=NAME src=ADDR mark=N role=active|backup name=TEXT …`
    pub fn path(mut self, words: &str) -> Self {
        match words.parse() {
            Ok(spec) => self.paths.push(spec),
            Err(error) => self.remember(format!("path {words:?}: {error}")),
        }
        self
    }

    /// Adds paths that were parsed before.
    pub fn paths(mut self, paths: impl IntoIterator<Item = PathSpec>) -> Self {
        self.paths.extend(paths);
        self
    }

    /// The file with the key that both ends share, made by `mptunnel genpsk`.
    pub fn key_file(mut self, file: impl AsRef<Path>) -> Self {
        self.settings.key_file = Some(file.as_ref().to_owned());
        self
    }

    /// The key that both ends share: 32 random bytes, not all zero.
    pub fn key(mut self, key: &[u8; 32]) -> Self {
        self.key = Some(Zeroizing::new(*key));
        self
    }

    /// Sets one option of the table, such as `("idle-interval", "500ms")`.
    pub fn option(mut self, key: &str, value: &str) -> Self {
        if let Err(error) = self.settings.set(key, value) {
            self.remember(error.to_string());
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

    /// Takes delivery on the receive thread: for relays. Then `recv` never returns anything.
    pub fn handler(mut self, handler: impl Handler + 'static) -> Self {
        self.handler = Some(Box::new(handler));
        self
    }

    /// Whether it will speak the protocol of the classic programs.
    pub(crate) fn is_legacy(&self) -> bool {
        self.settings.protocol == Protocol::Legacy
    }

    /// Opens the tunnel and begins to connect. Returns at once; see [`Tunnel::wait_ready`].
    ///
    /// # Errors
    /// [`Error::Config`] for wrong settings, a missing or unusable key, or no path at all;
    /// [`Error::Io`] if the system has no threads, descriptors or randomness. A path that cannot be
    /// opened now is no error: it waits and tries again.
    pub fn connect(self) -> Result<Tunnel, Error> {
        if let Some(error) = self.wrong {
            return Err(error);
        }
        OsEntropy::check()
            .map_err(|source| Error::Io { op: "random numbers".to_owned(), source })?;
        let config = match self.is_legacy() {
            true => legacy::check(&self.settings, self.key.is_some()).map(|()| None)?,
            false => Some(setup::client(&self.settings, self.key)?),
        };
        let inbox = Inbox::new(self.settings.receive_queue)?;
        let events = inbox.clone();
        let handler = self.handler.unwrap_or_else(|| Box::new(QueueHandler::new(inbox.clone())));
        let sink = Box::new(move |event: Event| {
            let over = event == Event::Closed;
            events.tell(event);
            if over {
                events.close();
            }
        });
        let (io, key_id) = match config {
            Some(config) => {
                let plane = Arc::new(DataPlane::default());
                let client = Client::new(config, plane.clone(), Box::new(OsEntropy));
                let key_id = hex(&client.key_id());
                (End::Ours(ClientIo::start(client, plane, handler, sink)?), key_id)
            }
            None => {
                let hook = self.hook.clone();
                let io = legacy::ClientIo::start(&self.settings, hook, handler, sink)?;
                (End::Legacy(io), "none".to_owned())
            }
        };
        let tunnel = Tunnel {
            io,
            inbox,
            batch: Mutex::default(),
            settings: Mutex::new(self.settings),
            server: self.server,
            specs: Mutex::default(),
            hook: self.hook,
            key_id,
            trend: Mutex::default(),
        };
        let paths = match (self.paths.is_empty(), &tunnel.server) {
            (false, _) => self.paths,
            // One path straight to the server, by whatever route there is.
            (true, Some(_)) => vec![PathSpec::default()],
            (true, None) => {
                return Err(Error::Config("no path: name the server or at least one path".into()));
            }
        };
        for spec in paths {
            tunnel.add_path_spec(spec)?;
        }
        Ok(tunnel)
    }

    fn remember(&mut self, error: String) {
        self.wrong.get_or_insert(Error::Config(error));
    }
}

impl Tunnel {
    /// Begins the description of a tunnel.
    pub fn builder() -> TunnelBuilder {
        TunnelBuilder::default()
    }

    /// The id of the key in use, for comparing both ends' logs. Not secret. `none` under the legacy
    /// protocol.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Sends one datagram of up to [`max_payload`](Self::max_payload) bytes over all paths. Never
    /// waits for the network.
    ///
    /// # Errors
    /// [`Error::NotConnected`], [`Error::Refused`], [`Error::NoPath`]: nothing was sent, the tunnel
    /// goes on trying. [`Error::PayloadTooLarge`]. [`Error::WouldBlock`]: all sockets are full.
    /// [`Error::Closed`], [`Error::Forked`], [`Error::Failed`]: it is over.
    pub fn send(&self, datagram: &[u8]) -> Result<(), Error> {
        self.send_batch([datagram])
    }

    /// Sends a batch of datagrams: sealed side by side, sent with few system calls.
    ///
    /// # Errors
    /// As [`send`](Self::send). An error means that nothing of the batch was sent; if something
    /// was, the rest is lost like any datagram.
    pub fn send_batch<'d>(
        &self,
        datagrams: impl IntoIterator<Item = &'d [u8]>,
    ) -> Result<(), Error> {
        let flow_0 = datagrams.into_iter().map(|bytes| (0, bytes));
        let outcome = match &self.io {
            End::Ours(io) => io.shared.send(&mut self.batch.lock(), flow_0)?,
            End::Legacy(io) => io.send(&mut self.batch.lock(), flow_0)?,
        };
        if outcome.copies == 0 && outcome.dropped > 0 {
            return Err(Error::WouldBlock);
        }
        Ok(())
    }

    /// As [`send`](Self::send), with wishes.
    ///
    /// # Errors
    /// In addition [`Error::TimedOut`] and [`Error::Interrupted`], for who waits;
    /// [`Error::UnknownPath`] for a path that does not exist, [`Error::NoPath`] for one that is
    /// not up.
    pub fn send_with(&self, datagram: &[u8], options: &SendOptions) -> Result<(), Error> {
        self.send_batch_with([datagram], PeerId::default(), options).map(drop)
    }

    /// Sends datagrams in order with the same wishes, each of which was taken by at least one path
    /// if it is counted in the result: the first so many. `to` is 0 for the server, or one of its
    /// [flows](PeerId::with_flow).
    ///
    /// # Errors
    /// As [`send_with`](Self::send_with), if the first of them could not be sent;
    /// [`Error::UnknownPeer`] if `to` is a client.
    pub fn send_batch_with<'d>(
        &self,
        datagrams: impl IntoIterator<Item = &'d [u8], IntoIter: Clone>,
        to: PeerId,
        options: &SendOptions,
    ) -> Result<usize, Error> {
        if to.client() != PeerId::default() {
            return Err(Error::UnknownPeer(to));
        }
        let (datagrams, room) = (datagrams.into_iter(), &self.inbox.room);
        match &self.io {
            End::Ours(io) => {
                let outlet = ToServer { io, batch: &self.batch, flow: to.flow() };
                sending::send_all(&outlet, room, datagrams, options)
            }
            End::Legacy(io) => io.send_all(&self.batch, room, to.flow(), datagrams, options),
        }
    }

    /// A sender with a buffer of its own, for threads that send much, and for relays.
    pub fn sender(self: &Arc<Self>) -> TunnelSender {
        TunnelSender { tunnel: self.clone(), batch: SendBatch::default() }
    }

    /// Takes the next datagram into `buffer` and returns its length; waits as long as it takes. An
    /// empty datagram has length 0.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`]: the datagram is kept. [`Error::Interrupted`], [`Error::Closed`],
    /// [`Error::Forked`], [`Error::Failed`].
    pub fn recv(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.recv_with(buffer, None).map(|arrival| arrival.len)
    }

    /// As [`recv`](Self::recv), for at most `timeout`.
    ///
    /// # Errors
    /// In addition [`Error::TimedOut`].
    pub fn recv_timeout(&self, buffer: &mut [u8], timeout: Duration) -> Result<usize, Error> {
        self.recv_with(buffer, Some(timeout)).map(|arrival| arrival.len)
    }

    /// As [`recv`](Self::recv), without waiting.
    ///
    /// # Errors
    /// In addition [`Error::WouldBlock`].
    pub fn try_recv(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.recv_with(buffer, Some(Duration::ZERO)).map(|arrival| arrival.len)
    }

    /// Takes the next datagram, and tells where and when it came in. `None` waits for ever, zero
    /// not at all.
    ///
    /// # Errors
    /// As [`recv`](Self::recv); [`Error::TimedOut`], or [`Error::WouldBlock`] for zero.
    pub fn recv_with(
        &self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<Arrival, Error> {
        self.usable()?;
        self.inbox.recv(buffer, timeout)
    }

    /// Waits for a datagram and takes as many as there are and `slots` hold, each of which needs a
    /// buffer. Returns how many.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout); `None` waits for ever.
    pub fn recv_batch<S: Slot>(
        &self,
        slots: &mut [S],
        timeout: Option<Duration>,
    ) -> Result<usize, Error> {
        self.usable()?;
        self.inbox.recv_batch(slots, timeout)
    }

    /// Waits until there is a session and a path that answers.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason. After the timeout [`Error::NotConnected`] with
    /// what is known of the reason. [`Error::Interrupted`], [`Error::Closed`] and so on.
    pub fn wait_ready(&self, timeout: Option<Duration>) -> Result<(), Error> {
        let ready = self.inbox.wait_until(timeout, || {
            if let Err(over) = self.usable() {
                return Some(Err(over));
            }
            let shared = match &self.io {
                End::Ours(io) => &io.shared,
                End::Legacy(io) => return io.is_ready().then_some(Ok(())),
            };
            let client = shared.control.lock();
            if client.session().is_some() && client.paths().any(|path| path.up) {
                return Some(Ok(()));
            }
            shared.refused.lock().clone().map(|why| Err(Error::Refused(why)))
        });
        ready.unwrap_or_else(|| match &self.io {
            End::Ours(io) => Err(io.shared.not_connected()),
            End::Legacy(_) => Err(Error::NotConnected("no path has a socket yet".to_owned())),
        })
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

    /// The largest datagram that can be sent, in bytes: what both ends accept, or what this end
    /// does while there is no session.
    pub fn max_payload(&self) -> usize {
        match &self.io {
            End::Legacy(io) => io.max_payload(),
            End::Ours(io) => match io.shared.view.get() {
                Some(view) => view.session.max_payload(),
                None => usize::from(self.settings.lock().max_payload),
            },
        }
    }

    /// Adds a path while the tunnel runs, in the words of [`TunnelBuilder::path`].
    ///
    /// # Errors
    /// [`Error::Config`] for wrong words, a name that another path has, or if there are 32 paths.
    pub fn add_path(&self, words: &str) -> Result<PathId, Error> {
        let spec = words
            .parse::<PathSpec>()
            .map_err(|error| Error::Config(format!("path {words:?}: {error}")))?;
        self.add_path_spec(spec)
    }

    /// Adds a path that was parsed before.
    ///
    /// # Errors
    /// As [`add_path`](Self::add_path).
    pub fn add_path_spec(&self, mut spec: PathSpec) -> Result<PathId, Error> {
        self.usable()?;
        let to = spec.to.clone().or_else(|| self.server.clone()).ok_or_else(|| {
            Error::Config(format!("path {spec}: it needs to=HOST:PORT, or name the server"))
        })?;
        let mut specs = self.specs.lock();
        let is_free = |name: &str| specs.values().all(|its| its.name.as_deref() != Some(name));
        match &spec.name {
            Some(name) if is_free(name) => {}
            Some(name) => return Err(name_taken(name)),
            None => {
                let interface = spec.interface.iter().map(|name| format!("%{name}"));
                let plain = to.to_string() + &interface.collect::<String>();
                spec.name = Some(unused_name(plain, is_free));
            }
        }
        let settings = setup::path(&self.settings.lock(), &spec);
        let too_many =
            || Error::Config("a tunnel has at most 32 paths: remove one first".to_owned());
        let io = match &self.io {
            End::Ours(io) => io,
            End::Legacy(io) => {
                let id = io.add_path(to, spec.clone()).ok_or_else(too_many)?;
                specs.insert(id, spec);
                return Ok(id);
            }
        };
        if settings.rate != Rate::Unknown {
            io.pace_paths()?;
        }
        let (id, slot) = io.shared.add_path(settings).ok_or_else(too_many)?;
        specs.insert(id, spec.clone());
        let settings = self.settings.lock();
        let plan = PathPlan {
            id,
            slot,
            to,
            spec,
            buffer: usize::try_from(settings.socket_buffer).unwrap_or(0),
            offload: settings.offload,
            mtu: settings.mtu,
            hook: self.hook.clone(),
        };
        io.shared.jobs.push(PathJob::Open(Box::new(plan)));
        Ok(id)
    }

    /// Removes a path. Its id is never used again.
    ///
    /// # Errors
    /// [`Error::UnknownPath`].
    pub fn remove_path(&self, id: PathId) -> Result<(), Error> {
        self.usable()?;
        let mut specs = self.specs.lock();
        let known = match &self.io {
            End::Ours(io) => io.shared.with_control(|client, now| client.remove_path(now, id)),
            End::Legacy(io) => io.remove_path(id),
        };
        if !known {
            return Err(Error::UnknownPath(id));
        }
        specs.remove(&id);
        if let End::Ours(io) = &self.io {
            io.shared.names.lock().remove(&id);
            io.shared.errors.forget(id);
            io.shared.jobs.push(PathJob::Close(id));
        }
        Ok(())
    }

    /// Changes one word of a path while the tunnel runs. `name`, `role`, `weight`, `mtu`, `rate`
    /// and `rate-down` take effect in place, the last one as soon as the server has heard of it;
    /// `to`, `if`, `src` and `mark` give the path a new socket, with the same port if that is
    /// possible. The rest is kept for policies that look at it.
    ///
    /// # Errors
    /// [`Error::Config`] for a wrong word or value, or a name that another path has;
    /// [`Error::UnknownPath`].
    pub fn set_path(&self, id: PathId, word: &str, value: &str) -> Result<(), Error> {
        self.usable()?;
        let mut specs = self.specs.lock();
        let mut spec = specs.get(&id).cloned().ok_or(Error::UnknownPath(id))?;
        let before = spec.name.clone();
        let went_to = spec.to.clone().or_else(|| self.server.clone());
        spec.set_word(word, value).map_err(|error| Error::Config(error.to_string()))?;
        if let ("to", Some(before), Some(old), Some(new)) = (word, &before, &went_to, &spec.to) {
            let is_free = |name: &str| {
                specs.iter().all(|(other, its)| *other == id || its.name.as_deref() != Some(name))
            };
            spec.name = renamed_after(before, old, new, is_free).or(spec.name);
        }
        let name = spec.name.clone().unwrap_or_default();
        if specs.iter().any(|(other, its)| *other != id && its.name == spec.name) {
            return Err(name_taken(&name));
        }
        let to = spec.to.clone().or_else(|| self.server.clone()).ok_or(Error::UnknownPath(id))?;
        let settings = setup::path(&self.settings.lock(), &spec);
        let known = match &self.io {
            End::Ours(io) => {
                if settings.rate != Rate::Unknown {
                    io.pace_paths()?;
                }
                io.shared.with_control(|client, now| client.set_path(now, id, settings))
            }
            End::Legacy(io) => io.set_path(id, to.clone(), spec.clone()),
        };
        if !known {
            return Err(Error::UnknownPath(id));
        }
        if let End::Ours(io) = &self.io {
            io.shared.names.lock().insert(id, name);
            io.shared.jobs.push(PathJob::Change(id, to, Box::new(spec.clone())));
        }
        specs.insert(id, spec);
        Ok(())
    }

    /// Changes an option while the tunnel runs: `receive-queue`, `idle-interval`, `mode`,
    /// `target-loss`, `max-copies`, `budget` or `failback`. The last five count at both ends.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown option, a wrong value, or an option that counts only at the
    /// start; [`Error::Closed`] and so on.
    pub fn set(&self, key: &str, value: &str) -> Result<(), Error> {
        self.usable()?;
        let mut settings = self.settings.lock();
        let changed = setup::changed(&settings, Place::ClientLibrary, key, value)?;
        self.inbox.set_limit(changed.receive_queue);
        if let End::Ours(io) = &self.io {
            io.shared.with_control(|client, now| {
                client.set_idle_interval(changed.idle_interval);
                client.set_policy(now, setup::policy(&changed));
            });
        }
        *settings = changed;
        Ok(())
    }

    /// The value of an option, as text; `None` if it has none.
    ///
    /// # Errors
    /// [`Error::Config`] for an option that a client does not have.
    pub fn get(&self, key: &str) -> Result<Option<String>, Error> {
        setup::value_of(&self.settings.lock(), Place::ClientLibrary, key)
    }

    /// Tells the server that a flow has ended.
    pub fn close_flow(&self, flow: u16) {
        if let (Ok(()), End::Ours(io)) = (self.usable(), &self.io) {
            io.shared.with_control(|client, now| client.close_flow(now, flow));
        }
    }

    /// Says goodbye and stops, within two seconds at most. Calls that wait return with
    /// [`Error::Closed`]. Dropping the tunnel does the same.
    pub fn close(&self) {
        // Who waits is told before the goodbyes, which take a moment. In a forked child the
        // descriptor is still the parent's, whom this does not concern.
        if !self.io.is_forked() {
            self.inbox.close();
        }
        self.io.close();
    }

    pub(crate) fn is_forked(&self) -> bool {
        self.io.is_forked()
    }

    fn usable(&self) -> Result<(), Error> {
        self.io.check()
    }
}

fn name_taken(name: &str) -> Error {
    Error::Config(format!("another path has the name {name:?} already"))
}

/// Readable while [`Tunnel::try_recv`] would return something, or [`Tunnel::next_event`] once it
/// has been called. Level-triggered. Nobody may read from it or write to it.
impl AsFd for Tunnel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inbox.fd()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.close();
    }
}

/// The server, or a target behind it, as the destination of datagrams.
struct ToServer<'a> {
    io: &'a ClientIo,
    batch: &'a Mutex<SendBatch>,
    flow: u16,
}

impl Outlet for ToServer<'_> {
    fn view(&self) -> Result<(Arc<SendView>, Time), Error> {
        self.io.shared.view_to_send()
    }

    fn slot(&self, path: PathId) -> Result<u8, Error> {
        self.io.shared.slot_of_path(path)
    }

    fn send<'d>(
        &self,
        view: &SendView,
        now: Time,
        datagrams: impl Iterator<Item = &'d [u8]>,
    ) -> Result<Outcome, Error> {
        let datagrams = datagrams.map(|bytes| (self.flow, bytes));
        self.io.shared.send_with(view, now, &mut self.batch.lock(), datagrams)
    }

    fn wait(&self, view: &SendView, patience: &mut Patience<'_>) -> Result<bool, Error> {
        self.io.shared.wait_for_room(view, patience)
    }
}

/// Sends over a [`Tunnel`] with a buffer of its own.
pub struct TunnelSender {
    tunnel: Arc<Tunnel>,
    batch: SendBatch,
}

impl TunnelSender {
    /// Sends a batch of datagrams, each with its flow. Returns how many copies the sockets did not
    /// take.
    ///
    /// # Errors
    /// As [`Tunnel::send_batch`].
    pub fn send<'d>(
        &mut self,
        datagrams: impl IntoIterator<Item = (u16, &'d [u8])>,
    ) -> Result<usize, Error> {
        let datagrams = datagrams.into_iter();
        let outcome = match &self.tunnel.io {
            End::Ours(io) => io.shared.send(&mut self.batch, datagrams)?,
            End::Legacy(io) => io.send(&mut self.batch, datagrams)?,
        };
        Ok(outcome.dropped)
    }
}
