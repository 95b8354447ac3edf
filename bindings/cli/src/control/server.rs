// SPDX-License-Identifier: BSD-2-Clause
//! The thread that answers at the control socket, and at the port for metrics.
//!
//! Everything about it is bounded: how many may ask at a time, how long a request may be, how long
//! it waits for somebody who does not ask or does not read, and how far somebody who follows the
//! events may lag behind. A new request is read once the answer to the last one is gone.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
#[allow(clippy::disallowed_types, reason = "a monitor asks over TCP")]
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mptunnel_core::options::Settings;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use serde_json::{Value, json};

use super::events::EventLog;
use super::http;
use super::operate::{Answer, Operations, Refusal};
use super::place::{Place, PlaceError, Places};
use crate::exit::describe;
use crate::program::Relay;

/// Who may ask at a time, at the socket and at the port each: a few windows, a monitor, and some
/// that have been forgotten.
const MOST_VISITORS: usize = 16;
/// Bytes of a request: a path of all its words has less than 1000.
const LONGEST_REQUEST: usize = 4 << 10;
/// Somebody who asks nothing is sent away after this.
const SILENCE: Duration = Duration::from_secs(60);
/// And somebody who does not read his answer.
const STALLED: Duration = Duration::from_secs(10);
/// Who asks at the port for metrics has that long in all: what is asked for there fits a packet.
const METRICS_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of events that wait for somebody who follows them.
const MOST_BEHIND: usize = 1 << 20;
/// How often times are looked at, and counters remembered.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_MS: u16 = 1_000;
/// A program with more clients than this remembers its counters only while somebody asks: to read
/// them takes it a microsecond for each.
const FEW_CLIENTS: usize = 256;

/// A running program and what others see of it.
pub(crate) struct Running<R: Relay> {
    /// What can be done with it.
    pub(crate) operations: Arc<Operations<R>>,
    _control: Option<ControlThread>,
}

impl<R: Relay> Running<R> {
    /// Makes the control socket and the port for metrics that `settings` ask for. With `auto` a
    /// program goes on without a socket if there is no place for it.
    pub(crate) fn start(
        program: &'static str,
        relay: R,
        settings: Settings,
    ) -> Result<Running<R>, StartError> {
        let (events, wake) = EventLog::new().map_err(StartError::Thread)?;
        let place = match settings.control.as_path() {
            off if off == Path::new("off") => None,
            auto if auto == Path::new("auto") => {
                let place = Place::bind_auto(program, &Places::of_process());
                place.map_err(|error| log::warn!("no control socket: {}", describe(&error))).ok()
            }
            path => Some(Place::bind(path)?),
        };
        let metrics = settings.metrics.map(Metrics::bind).transpose()?;
        let operations = Arc::new(Operations::new(program, relay, settings, events));
        let control = match (place, metrics) {
            (None, None) => None,
            (place, metrics) => {
                let doors = Doors { place, metrics };
                let started = ControlThread::start(doors, wake, operations.clone());
                Some(started.map_err(StartError::Thread)?)
            }
        };
        Ok(Running { operations, _control: control })
    }
}

/// Where others may ask.
struct Doors {
    place: Option<Place>,
    metrics: Option<Metrics>,
}

/// The port for metrics.
#[allow(clippy::disallowed_types, reason = "a monitor asks over TCP")]
struct Metrics(TcpListener);

impl Metrics {
    #[allow(clippy::disallowed_types, reason = "see there")]
    fn bind(at: SocketAddr) -> Result<Metrics, StartError> {
        let bind = || {
            let listener = TcpListener::bind(at)?;
            listener.set_nonblocking(true)?;
            log::info!("metrics at http://{}/metrics", listener.local_addr()?);
            if !at.ip().is_loopback() {
                log::warn!("metrics are for everybody who can reach {at}: there is no password");
            }
            Ok(Metrics(listener))
        };
        bind().map_err(|error| StartError::Metrics(at, error))
    }
}

/// Why a program that should be seen is not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// There is no place for the control socket.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The port for metrics is not to be had.
    #[error("cannot serve metrics on {0}: choose another address or port with --metrics")]
    Metrics(SocketAddr, #[source] io::Error),
    /// The system has no thread or descriptor left.
    #[error("cannot start the thread of the control socket")]
    Thread(#[source] io::Error),
}

/// The thread. Ends, and takes the socket with it, when this is dropped.
struct ControlThread {
    stopping: Arc<AtomicBool>,
    stop: Box<dyn Fn() + Send + Sync>,
    thread: Option<JoinHandle<()>>,
}

impl ControlThread {
    fn start<R: Relay>(
        doors: Doors,
        wake: UnixStream,
        operations: Arc<Operations<R>>,
    ) -> io::Result<ControlThread> {
        let stopping = Arc::new(AtomicBool::new(false));
        let (over, waker) = (stopping.clone(), operations.clone());
        if let Some(place) = &doors.place {
            log::debug!("control socket: {}", place.path.display());
        }
        let thread = thread::Builder::new().name("control".to_owned()).spawn(move || {
            Desk { operations: &*operations, visitors: Vec::new() }.serve(&doors, &wake, &over);
        })?;
        let stop = Box::new(move || waker.events.wake());
        Ok(ControlThread { stopping, stop, thread: Some(thread) })
    }
}

impl Drop for ControlThread {
    fn drop(&mut self) {
        self.stopping.store(true, Relaxed);
        (self.stop)();
        if let Some(thread) = self.thread.take() {
            // It never waits for anybody: an answer under way takes milliseconds.
            let _ = thread.join();
        }
    }
}

/// Where requests are answered.
struct Desk<'a, R> {
    operations: &'a Operations<R>,
    visitors: Vec<Visitor>,
}

/// What somebody asks over.
trait Stream: Read + Write + AsFd + Send {}

impl<S: Read + Write + AsFd + Send> Stream for S {}

/// What language somebody speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Language {
    /// Lines of JSON, at the control socket.
    Json,
    /// HTTP, at the port for metrics.
    Http,
}

/// Somebody who asks.
struct Visitor {
    stream: Box<dyn Stream>,
    language: Language,
    /// Since when he is there.
    came: Instant,
    /// Of a request that is not complete yet.
    input: Vec<u8>,
    /// What he has not read yet.
    output: VecDeque<u8>,
    /// When he last asked or read.
    active: Instant,
    /// The number of the next event for him, if he follows them.
    follows: Option<u64>,
    /// He is sent away once he has read what is there.
    leaves: bool,
}

#[allow(clippy::disallowed_methods, reason = "it waits for people, in real time")]
fn now() -> Instant {
    Instant::now()
}

impl<R: Relay> Desk<'_, R> {
    fn serve(mut self, doors: &Doors, wake: &UnixStream, stopping: &AtomicBool) {
        let listeners = doors.listeners();
        let (mut looked, mut clients) = (now(), 0);
        while !stopping.load(Relaxed) {
            if looked.elapsed() >= LOOK {
                looked = now();
                // What changed in the last seconds is known to whoever asks first.
                if clients <= FEW_CLIENTS || !self.visitors.is_empty() {
                    clients = self.operations.relay.snapshot().peers.len();
                }
            }
            let mut fds = vec![PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
            fds.extend(listeners.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)));
            fds.extend(self.visitors.iter().map(|v| PollFd::new(v.stream.as_fd(), v.interest())));
            if let Err(error) = poll(&mut fds, PollTimeout::from(LOOK_MS))
                && error != nix::errno::Errno::EINTR
            {
                log::error!("the control socket is closed: {error}");
                return;
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            // Emptied before the events are looked at: one in between wakes the next turn.
            while (&*wake).read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
            let now = now();
            let (_, of_visitors) = ready.split_at(1 + listeners.len());
            for (visitor, ready) in self.visitors.iter_mut().zip(of_visitors) {
                if *ready {
                    visitor.turn(now, self.operations);
                }
                visitor.tell(now, &self.operations.events);
                visitor.expire(now);
            }
            self.visitors.retain(|visitor| !visitor.is_gone());
            self.welcome(now, doors);
        }
    }

    /// Lets in who waits at the doors.
    fn welcome(&mut self, now: Instant, doors: &Doors) {
        let socket = doors.place.iter().flat_map(|place| {
            std::iter::from_fn(|| place.listener.accept().ok()).filter_map(|(stream, _)| {
                let is_welcome = stream.set_nonblocking(true).is_ok() && is_owner(&stream);
                is_welcome.then(|| (Box::new(stream) as Box<dyn Stream>, Language::Json))
            })
        });
        let port = doors.metrics.iter().flat_map(|metrics| {
            std::iter::from_fn(|| metrics.0.accept().ok()).filter_map(|(stream, _)| {
                let is_welcome = stream.set_nonblocking(true).is_ok();
                is_welcome.then(|| (Box::new(stream) as Box<dyn Stream>, Language::Http))
            })
        });
        for (mut stream, language) in socket.chain(port) {
            let there = self.visitors.iter().filter(|v| v.language == language).count();
            if there >= MOST_VISITORS {
                let text = format!("{MOST_VISITORS} others are asking already");
                let answer = match language {
                    Language::Json => refusal(&Refusal { kind: "busy", text }).into_bytes(),
                    Language::Http => http::busy(&text),
                };
                // It fits the buffer of a new socket.
                let _ = stream.write_all(&answer);
                continue;
            }
            self.visitors.push(Visitor {
                stream,
                language,
                came: now,
                input: Vec::new(),
                output: VecDeque::new(),
                active: now,
                follows: None,
                leaves: false,
            });
        }
    }
}

impl Doors {
    fn listeners(&self) -> Vec<BorrowedFd<'_>> {
        let place = self.place.iter().map(|place| place.listener.as_fd());
        place.chain(self.metrics.iter().map(|metrics| metrics.0.as_fd())).collect()
    }
}

/// Whether the same user or root asks: the mode of the socket sees to it, and this as well.
fn is_owner(stream: &UnixStream) -> bool {
    getsockopt(stream, PeerCredentials)
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw())
}

impl Visitor {
    fn interest(&self) -> PollFlags {
        if self.output.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT }
    }

    fn is_gone(&self) -> bool {
        self.leaves && self.output.is_empty()
    }

    /// Reads or writes as far as it goes without waiting.
    fn turn<R: Relay>(&mut self, now: Instant, operations: &Operations<R>) {
        self.active = now;
        if self.output.is_empty() {
            self.read();
        } else {
            self.write();
        }
        if self.language == Language::Http {
            return self.answer_http(operations);
        }
        while self.output.is_empty() && !self.leaves {
            let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else { break };
            let line: Vec<u8> = self.input.drain(..=end).collect();
            self.answer(&line, operations);
            self.write();
        }
        // What is left is a part of one request, unless an answer has yet to be read.
        if self.output.is_empty() && self.input.len() > LONGEST_REQUEST {
            let text = format!("a request has at most {LONGEST_REQUEST} bytes");
            self.output.extend(refusal(&Refusal { kind: "usage", text }).into_bytes());
            self.leaves = true;
            self.write();
        }
    }

    /// Answers one request over HTTP; that is all there is on a connection.
    fn answer_http<R: Relay>(&mut self, operations: &Operations<R>) {
        if self.output.is_empty() && !self.leaves {
            let Some(answer) = http::answer(&self.input, || operations.metrics()) else { return };
            self.output.extend(answer);
            self.leaves = true;
            self.write();
        }
    }

    /// Reads what is there. Called once all requests that came before are answered.
    fn read(&mut self) {
        let mut buffer = [0; LONGEST_REQUEST];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.leaves = true,
            Ok(read) => self.input.extend_from_slice(&buffer[..read]),
            Err(error) if is_for_later(&error) => {}
            Err(_) => self.leaves = true,
        }
    }

    fn answer<R: Relay>(&mut self, line: &[u8], operations: &Operations<R>) {
        let answer = match serde_json::from_slice::<Value>(line) {
            Ok(request) => operations.answer(&request),
            Err(error) => {
                let text = format!("this is no JSON: {error}");
                Err(Refusal { kind: "usage", text })
            }
        };
        let line = match answer {
            Ok(Answer::Done(result)) => format!("{{\"ok\":{result}}}\n"),
            Ok(Answer::Follow(from)) => {
                self.follows = Some(from);
                "{\"ok\":null}\n".to_owned()
            }
            Err(error) => refusal(&error),
        };
        self.output.extend(line.into_bytes());
    }

    /// Writes the events that are new to him, if he follows them.
    fn tell(&mut self, now: Instant, events: &EventLog) {
        let Some(from) = self.follows else { return };
        let (new, next) = events.since(from);
        self.follows = Some(next);
        for event in new {
            self.active = now;
            self.output.extend(format!("{}\n", json!({ "event": event })).into_bytes());
        }
        self.write();
        if self.output.len() > MOST_BEHIND {
            self.dismiss();
        }
    }

    fn write(&mut self) {
        while !self.output.is_empty() {
            let (first, _) = self.output.as_slices();
            match self.stream.write(first) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if is_for_later(&error) => return,
                Err(_) => return self.dismiss(),
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        let idle = now.duration_since(self.active);
        let is_stalled = !self.output.is_empty() && idle >= STALLED;
        let is_silent = self.output.is_empty() && self.follows.is_none() && idle >= SILENCE;
        let is_slow =
            self.language == Language::Http && now.duration_since(self.came) >= METRICS_WITHIN;
        if is_stalled || is_silent || is_slow {
            self.dismiss();
        }
    }

    fn dismiss(&mut self) {
        self.output = VecDeque::new();
        self.leaves = true;
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn refusal(refusal: &Refusal) -> String {
    format!("{}\n", json!({ "error": refusal.text, "kind": refusal.kind }))
}
