// SPDX-License-Identifier: BSD-2-Clause
//! What mpclient and mpserver do alike around their relay: obey signals, log what happens, guard
//! the process.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use log::Level;
use mptunnel_core::options::{Place, Protocol, Settings};
use mptunnel_core::{Error, Event, Snapshot, Tunnel};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level};

use crate::control::operate::Operations;
use crate::counters::Counters;
use crate::exit::{Exit, fail};
use crate::repeats::Repeats;

/// What the programs want of their relay.
pub(crate) trait Relay: Send + Sync + 'static {
    /// Whose options it has.
    const PLACE: Place;
    /// The part of it in the library, which has options of its own.
    const LIBRARY: Place;
    /// Readable when [`next_event`](Self::next_event) has something, once it was called.
    fn readiness(&self) -> BorrowedFd<'_>;
    /// The next event; `None` if there is none now.
    fn next_event(&self) -> Result<Option<Event>, Error>;
    /// Why the relay is over, if it is.
    fn verdict(&self) -> Error;
    /// Bytes of receive buffer that the system granted; 0 while that is not known.
    fn receive_buffer(&self) -> usize;
    /// What was counted so far.
    fn counters(&self) -> Counters;
    /// Everything that can be seen.
    fn snapshot(&self) -> Snapshot;
    /// The addresses that it listens on: for applications, or for clients.
    fn listens_on(&self) -> Vec<SocketAddr>;
    /// The tunnel of a client.
    fn tunnel(&self) -> Option<&Tunnel>;
    /// Changes an option of the library.
    fn set(&self, key: &str, value: &str) -> Result<(), Error>;
    /// Takes over the options of the relay itself that may change.
    fn take_limits(&self, settings: &Settings);
    /// Stops, within a bound.
    fn close(&self);
}

/// Runs a relay until a signal ends it or it fails; `reload` is called at each SIGHUP.
pub(crate) fn run<R: Relay>(
    operations: &Operations<R>,
    signals: &Signals,
    mut reload: impl FnMut(),
) -> ExitCode {
    let (program, relay) = (operations.program, &operations.relay);
    let mut buffer_checked = false;
    let mut news = News::default();
    loop {
        if !buffer_checked {
            buffer_checked = check_buffer(relay.receive_buffer());
        }
        loop {
            match relay.next_event() {
                Ok(Some(event)) => {
                    operations.events.push(&event, level(&event));
                    news.log(&event);
                }
                Ok(None) => break,
                Err(Error::Closed) => return fail(program, &relay.verdict(), Exit::Failure),
                Err(error) => return fail(program, &error, Exit::Failure),
            }
        }
        match signals.wait(relay.readiness()) {
            Ok(None) => {}
            Ok(Some(Order::Reload)) => reload(),
            Ok(Some(Order::Count)) => count(relay),
            Ok(Some(Order::Stop)) => {
                log::info!("{program} ends");
                relay.close();
                return Exit::Success.into();
            }
            Err(error) => return fail(program, &error, Exit::Failure),
        }
    }
}

/// The events on their way to the log.
#[derive(Default)]
struct News {
    unknown_keys: Repeats,
    refusals: Repeats,
}

impl News {
    #[allow(clippy::disallowed_methods, reason = "the time bounds log lines and nothing else")]
    fn log(&mut self, event: &Event) {
        let text = event.to_string();
        // Anybody can bring these about, every second.
        let line = match event {
            Event::UnknownKey(_) => self.unknown_keys.line(Instant::now(), text),
            Event::PeerRefused(_) => self.refusals.line(Instant::now(), text),
            _ => Some(text),
        };
        if let Some(line) = line {
            log::log!(level(event), "{line}");
        }
    }
}

/// How loud an event is: what an operator wants to see at any time, what is amiss, and what
/// happens all the time.
fn level(event: &Event) -> Level {
    match event {
        Event::Disconnected
        | Event::ServerSilent(_)
        | Event::Refused(_)
        | Event::Closed
        | Event::PathDown(..)
        | Event::PeerPathSilent(..)
        | Event::UnknownKey(_)
        | Event::PeerRefused(_) => Level::Warn,
        Event::Rekeyed(_) | Event::FlowClosed { .. } => Level::Debug,
        _ => Level::Info,
    }
}

/// Logs what was counted, and what to do about what was lost here.
fn count(relay: &impl Relay) {
    let (counters, granted) = (relay.counters(), relay.receive_buffer());
    log::info!("{counters}");
    if counters.kernel_dropped() > 0 {
        log::warn!(
            "{} bursts found a receive buffer of {} KiB full and lost datagrams: raise \
             net.core.rmem_max (sysctl -w net.core.rmem_max=16777216) or the option \
             socket-buffer, and restart",
            counters.kernel_dropped(),
            granted >> 10
        );
    }
}

/// Warns if bursts will overflow the socket. Whether that could be told.
fn check_buffer(granted: usize) -> bool {
    if granted > 0 && granted < ENOUGH_BUFFER {
        log::warn!(
            "the system grants {} KiB of socket buffer, which bursts overflow: run \
             sysctl -w net.core.rmem_max=16777216",
            granted >> 10
        );
    }
    granted > 0
}

/// Bytes of receive buffer below which the programs warn: 1 MiB holds what arrives in 80 ms at 100
/// Mbit/s.
const ENOUGH_BUFFER: usize = 1 << 20;

/// Says on standard error why a relay did not start. Settings and keys are the user's to mend.
pub(crate) fn not_started(program: &str, error: &Error) -> ExitCode {
    let exit = match error {
        Error::Config(_) => Exit::Usage,
        _ => Exit::Failure,
    };
    fail(program, error, exit)
}

/// Keeps the keys in memory from other processes of the same user: no core dump, no ptrace(2).
pub(crate) fn harden() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        log::debug!("core dumps stay possible: {error}");
    }
}

/// Raises the number of descriptors that the process may have open as far as it may, and returns
/// it.
pub(crate) fn raise_descriptor_limit() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return FEW_DESCRIPTORS };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft }).unwrap_or(usize::MAX)
}

/// What POSIX systems have always granted.
const FEW_DESCRIPTORS: usize = 256;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// SIGUSR1.
    Count,
}

/// The signals that the programs obey.
pub(crate) struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    count: Arc<AtomicBool>,
    wake: UnixStream,
}

impl Signals {
    /// Takes the signals over. A second SIGINT or SIGTERM ends the program at once.
    pub(crate) fn register() -> io::Result<Signals> {
        let [stop, reload, count] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag unset, the second one set.
            flag::register_conditional_shutdown(signal, Exit::Failure as i32, stop.clone())?;
            flag::register(signal, stop.clone())?;
        }
        flag::register(SIGHUP, reload.clone())?;
        flag::register(SIGUSR1, count.clone())?;
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGUSR1] {
            low_level::pipe::register(signal, waker.try_clone()?)?;
        }
        Ok(Signals { stop, reload, count, wake })
    }

    /// Waits until a signal comes, `other` is readable, or a second is over.
    fn wait(&self, other: BorrowedFd<'_>) -> io::Result<Option<Order>> {
        let mut fds = [
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(other, PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::from(A_SECOND)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Emptied before the flags are looked at: a signal in between wakes the next call.
        while (&self.wake).read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        if self.stop.load(Ordering::Relaxed) {
            return Ok(Some(Order::Stop));
        }
        if self.reload.swap(false, Ordering::Relaxed) {
            // One that came together with it has its turn within a second.
            return Ok(Some(Order::Reload));
        }
        Ok(self.count.swap(false, Ordering::Relaxed).then_some(Order::Count))
    }
}

/// How long to wait for an event: flows are looked at for having ended once a second.
const A_SECOND: u16 = 1_000;

/// The ids of the keys for the first line; `none` under the legacy protocol, which has no keys.
pub(crate) fn key_ids(ids: &[String]) -> String {
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}

/// Warns that everybody on the way can read what is carried.
pub(crate) fn warn_if_clear(settings: &Settings) {
    if !settings.encrypt && settings.protocol == Protocol::Mptunnel {
        log::warn!(
            "encryption is off: everybody on the way can read what is carried, though nobody can \
             change it (both ends need MPTUNNEL_ENCRYPT=0 or encrypt = off)"
        );
    }
}
