// SPDX-License-Identifier: BSD-2-Clause
//! Either end of a tunnel, opened from one line of text: for programs and bindings that leave it to
//! their user which end they are.

use crate::hook::SocketHook;
use crate::inbox::{Arrival, Slot};
use crate::interrupt::Attempts;
use crate::options::{ConfigFile, EndpointUri, OptionSpec, PathSpec, Place, Role, Settings};
use crate::sending::SendOptions;
use crate::server::Server;
use crate::setup::{self, OwnKey};
use crate::snapshot::Snapshot;
use crate::stats::{PathInfo, PeerInfo, SessionInfo, Stats};
use crate::tunnel::Tunnel;
use crate::{Error, Event, PathId, PeerId};
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// A bag of options and paths, filled one by one or from a file, for any number of endpoints.
///
/// ```
/// use mptunnel_core::Config;
///
/// let mut config = Config::new();
/// config.set("idle-interval", "2s")?;
/// config.set("path", "to=bridge1.example:4000 if=eth0")?;
/// config.set("path", "to=bridge2.example:4000 if=wwan0")?;
/// # Ok::<(), mptunnel_core::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Config {
    /// In the order in which they were given: a later one replaces an earlier one.
    given: Vec<(&'static str, String)>,
    settings: Settings,
    paths: Vec<PathSpec>,
    key: OwnKey,
    hook: Option<SocketHook>,
}

/// Without the key: what is printed ends up in logs.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("given", &self.given)
            .field("paths", &self.paths)
            .field("has_key", &self.key.is_some())
            .finish_non_exhaustive()
    }
}

impl Config {
    /// No options: everything has its default.
    pub fn new() -> Self {
        Config::default()
    }

    /// Sets one option of the [table](crate::options::OPTIONS); the last value counts. The key
    /// `path` adds a path, up to 32.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no such option, or the value has the wrong form or is out of
    /// range. Nothing is changed then. Whether the option belongs to a client or a server is
    /// checked by [`Endpoint::open`].
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), Error> {
        if key == "path" {
            self.paths.push(value.parse().map_err(|e| wrong(format!("path {value:?}: {e}")))?);
            return Ok(());
        }
        self.settings.set(key, value).map_err(wrong)?;
        if let Some(spec) = OptionSpec::find(key) {
            self.given.push((spec.key, value.to_owned()));
        }
        Ok(())
    }

    /// The value of an option as text, its default if it was not set. `None`: neither.
    pub fn get(&self, key: &str) -> Option<String> {
        self.settings.get(key)
    }

    /// Takes all options and paths of a [configuration file](ConfigFile).
    ///
    /// # Errors
    /// [`Error::Config`] if the file cannot be read, or with the lines that are not understood, the
    /// first 20 of them; then nothing of it is taken.
    pub fn load(&mut self, file: impl AsRef<Path>) -> Result<(), Error> {
        let file = file.as_ref();
        let client = ConfigFile::load(file, Place::ClientLibrary);
        // A file with paths can only be a client's. Of one that is neither's, the lines that a
        // client would not understand are told.
        let loaded = client.or_else(|errors| {
            ConfigFile::load(file, Place::ServerLibrary).map_err(|_| wrong(setup::chain(&errors)))
        })?;
        for option in &loaded.options {
            self.set(option.key, &option.value)?;
        }
        self.paths.extend(loaded.paths.into_iter().map(|path| path.spec));
        Ok(())
    }

    /// The key that both ends share, in place of a file: 32 random bytes, not all zero.
    pub fn key(&mut self, key: &[u8; 32]) {
        self.key = Some(Zeroizing::new(*key));
    }

    /// Has every socket shown to `hook` before it is used.
    pub fn socket_hook(&mut self, hook: Option<SocketHook>) {
        self.hook = hook;
    }

    /// The options and paths of an endpoint that `uri` describes, which win over those given here.
    fn with(&self, mut uri: EndpointUri) -> Result<(EndpointUri, Settings), Error> {
        let place = match uri.role {
            Role::Client => Place::ClientLibrary,
            Role::Server => Place::ServerLibrary,
        };
        let mut settings = Settings::default();
        for (key, value) in &self.given {
            if let Some(spec) = OptionSpec::find(key) {
                spec.check_place(place).map_err(wrong)?;
            }
            settings.set(key, value).map_err(wrong)?;
        }
        uri.apply(&mut settings);
        uri.add_paths(self.paths.iter().cloned()).map_err(wrong)?;
        Ok((uri, settings))
    }
}

fn wrong(error: impl std::fmt::Display) -> Error {
    Error::Config(error.to_string())
}

/// Either end of a tunnel.
///
/// The methods are those of [`Tunnel`] and [`Server`], where both have them; see there. A client's
/// only peer is 0.
///
/// ```no_run
/// use mptunnel_core::{Config, Endpoint, PeerId, SendOptions};
///
/// let client = Endpoint::open("mpt://vpn.example.org:4000?key-file=psk", &Config::new())?;
/// client.wait_ready(None)?;
/// client.send_with(b"hello", PeerId(0), &SendOptions::new())?;
/// # Ok::<(), mptunnel_core::Error>(())
/// ```
#[derive(Debug)]
pub enum Endpoint {
    /// The end that knows where the other one is.
    Client(Tunnel),
    /// The end that waits for clients.
    Server(Server),
}

impl Endpoint {
    /// Opens the endpoint that `uri` describes, an [`EndpointUri`]: `mpt://HOST:PORT?KEY=VALUE` for
    /// a client, `mpt-listen://ADDR:PORT?KEY=VALUE` for a server. What it says goes before what
    /// `config` says; the paths of both are used.
    ///
    /// # Errors
    /// [`Error::Config`] if the URI or an option is wrong, does not belong to this end, or there is
    /// no usable key; [`Error::Io`] if a server cannot listen there, or the system has no threads,
    /// descriptors or randomness.
    pub fn open(uri: &str, config: &Config) -> Result<Endpoint, Error> {
        let uri: EndpointUri = uri.parse().map_err(wrong)?;
        let (uri, settings) = config.with(uri)?;
        match uri.role {
            Role::Client => {
                let mut builder = Tunnel::builder()
                    .server(&uri.at.to_string())
                    .paths(uri.paths)
                    .settings(settings)
                    .socket_hook(config.hook.clone());
                if let Some(key) = &config.key {
                    builder = builder.key(key);
                }
                builder.connect().map(Endpoint::Client)
            }
            Role::Server => {
                let at = uri.at.socket_addr().ok_or_else(|| wrong("a server has an IP address"))?;
                let mut builder = Server::builder()
                    .listen(at)
                    .settings(settings)
                    .socket_hook(config.hook.clone());
                if let Some(key) = &config.key {
                    builder = builder.key(key);
                }
                builder.bind().map(Endpoint::Server)
            }
        }
    }

    /// Which end it is.
    pub fn role(&self) -> Role {
        match self {
            Endpoint::Client(_) => Role::Client,
            Endpoint::Server(_) => Role::Server,
        }
    }

    /// See [`Tunnel::send_with`] and [`Server::send_with`].
    ///
    /// # Errors
    /// As there.
    pub fn send_with(
        &self,
        datagram: &[u8],
        to: PeerId,
        options: &SendOptions,
    ) -> Result<(), Error> {
        self.send_batch_with([datagram], to, options).map(drop)
    }

    /// See [`Tunnel::send_batch_with`] and [`Server::send_batch_with`].
    ///
    /// # Errors
    /// As there.
    pub fn send_batch_with<'d>(
        &self,
        datagrams: impl IntoIterator<Item = &'d [u8], IntoIter: Clone>,
        to: PeerId,
        options: &SendOptions,
    ) -> Result<usize, Error> {
        match self {
            Endpoint::Client(tunnel) => tunnel.send_batch_with(datagrams, to, options),
            Endpoint::Server(server) => server.send_batch_with(datagrams, to, options),
        }
    }

    /// See [`Tunnel::recv_with`] and [`Server::recv_with`].
    ///
    /// # Errors
    /// As there.
    pub fn recv_with(
        &self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<Arrival, Error> {
        match self {
            Endpoint::Client(tunnel) => tunnel.recv_with(buffer, timeout),
            Endpoint::Server(server) => server.recv_with(buffer, timeout),
        }
    }

    /// See [`Tunnel::recv_batch`] and [`Server::recv_batch`].
    ///
    /// # Errors
    /// As there.
    pub fn recv_batch<S: Slot>(
        &self,
        slots: &mut [S],
        timeout: Option<Duration>,
    ) -> Result<usize, Error> {
        match self {
            Endpoint::Client(tunnel) => tunnel.recv_batch(slots, timeout),
            Endpoint::Server(server) => server.recv_batch(slots, timeout),
        }
    }

    /// Waits until there is a session and a path that answers: at a server, with any client.
    ///
    /// # Errors
    /// See [`Tunnel::wait_ready`] and [`Server::wait_ready`].
    pub fn wait_ready(&self, timeout: Option<Duration>) -> Result<(), Error> {
        match self {
            Endpoint::Client(tunnel) => tunnel.wait_ready(timeout),
            Endpoint::Server(server) => server.wait_ready(timeout),
        }
    }

    /// The next piece of news; `None` waits for ever.
    ///
    /// # Errors
    /// See [`Tunnel::next_event`].
    pub fn next_event(&self, timeout: Option<Duration>) -> Result<Event, Error> {
        match self {
            Endpoint::Client(tunnel) => tunnel.next_event(timeout),
            Endpoint::Server(server) => server.next_event(timeout),
        }
    }

    /// Makes every call that waits return with [`Error::Interrupted`].
    pub fn interrupt(&self) {
        match self {
            Endpoint::Client(tunnel) => tunnel.interrupt(),
            Endpoint::Server(server) => server.interrupt(),
        }
    }

    /// Begins a call that is made of several: see [`Attempts`].
    pub fn attempts(&self) -> Attempts {
        match self {
            Endpoint::Client(tunnel) => tunnel.attempts(),
            Endpoint::Server(server) => server.attempts(),
        }
    }

    /// The largest datagram that can be sent, in bytes. See [`Tunnel::max_payload`].
    pub fn max_payload(&self) -> usize {
        match self {
            Endpoint::Client(tunnel) => tunnel.max_payload(),
            Endpoint::Server(server) => server.max_payload(),
        }
    }

    /// Adds a path to a client. See [`Tunnel::add_path`].
    ///
    /// # Errors
    /// As there; [`Error::Unsupported`] at a server.
    pub fn add_path(&self, words: &str) -> Result<PathId, Error> {
        self.client()?.add_path(words)
    }

    /// Changes a path of a client. See [`Tunnel::set_path`].
    ///
    /// # Errors
    /// As there; [`Error::Unsupported`] at a server.
    pub fn set_path(&self, id: PathId, word: &str, value: &str) -> Result<(), Error> {
        self.client()?.set_path(id, word, value)
    }

    /// Removes a path of a client. See [`Tunnel::remove_path`].
    ///
    /// # Errors
    /// As there; [`Error::Unsupported`] at a server.
    pub fn remove_path(&self, id: PathId) -> Result<(), Error> {
        self.client()?.remove_path(id)
    }

    /// The paths of a peer: at a client its own, and `peer` is 0.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`]; [`Error::Forked`].
    pub fn paths(&self, peer: PeerId) -> Result<Vec<PathInfo>, Error> {
        match self {
            Endpoint::Client(tunnel) if peer.client() == PeerId(0) => match tunnel.is_forked() {
                false => Ok(tunnel.paths()),
                true => Err(Error::Forked),
            },
            Endpoint::Client(_) => Err(Error::UnknownPeer(peer)),
            Endpoint::Server(server) => server.paths(peer),
        }
    }

    /// The tunnel of a peer as a whole: 0 is the own one of a client.
    ///
    /// # Errors
    /// As [`paths`](Self::paths).
    pub fn session(&self, peer: PeerId) -> Result<SessionInfo, Error> {
        match self {
            Endpoint::Client(tunnel) if peer.client() == PeerId(0) => match tunnel.is_forked() {
                false => Ok(tunnel.session()),
                true => Err(Error::Forked),
            },
            Endpoint::Client(_) => Err(Error::UnknownPeer(peer)),
            Endpoint::Server(server) => server.peer(peer).map(|info| info.session),
        }
    }

    /// All clients of a server; none at a client.
    pub fn peers(&self) -> Vec<PeerInfo> {
        match self {
            Endpoint::Client(_) => Vec::new(),
            Endpoint::Server(server) => server.peers(),
        }
    }

    /// Counters of the endpoint.
    pub fn stats(&self) -> Stats {
        match self {
            Endpoint::Client(tunnel) => tunnel.stats(),
            Endpoint::Server(server) => server.stats(),
        }
    }

    /// Everything that can be seen of the endpoint.
    pub fn snapshot(&self) -> Snapshot {
        match self {
            Endpoint::Client(tunnel) => tunnel.snapshot(),
            Endpoint::Server(server) => server.snapshot(),
        }
    }

    /// Changes an option while the endpoint runs. See [`Tunnel::set`].
    ///
    /// # Errors
    /// As there.
    pub fn set(&self, key: &str, value: &str) -> Result<(), Error> {
        match self {
            Endpoint::Client(tunnel) => tunnel.set(key, value),
            Endpoint::Server(server) => server.set(key, value),
        }
    }

    /// The value of an option, as text. See [`Tunnel::get`].
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, key: &str) -> Result<Option<String>, Error> {
        match self {
            Endpoint::Client(tunnel) => tunnel.get(key),
            Endpoint::Server(server) => server.get(key),
        }
    }

    /// The addresses that a server listens on; none at a client.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        match self {
            Endpoint::Client(_) => &[],
            Endpoint::Server(server) => server.local_addrs(),
        }
    }

    /// Says goodbye and stops, within three seconds at most. Calls that wait return at once with
    /// [`Error::Closed`]. Dropping the endpoint does the same.
    pub fn close(&self) {
        match self {
            Endpoint::Client(tunnel) => tunnel.close(),
            Endpoint::Server(server) => server.close(),
        }
    }

    fn client(&self) -> Result<&Tunnel, Error> {
        match self {
            Endpoint::Client(tunnel) => Ok(tunnel),
            Endpoint::Server(_) => {
                Err(Error::Unsupported("a server has no paths of its own: it learns its clients'"))
            }
        }
    }
}

/// See [`Tunnel`]'s.
impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Endpoint::Client(tunnel) => tunnel.as_fd(),
            Endpoint::Server(server) => server.as_fd(),
        }
    }
}
