// SPDX-License-Identifier: BSD-2-Clause
//! `mptunnel ping`: round trip and loss over each path and over the tunnel, side by side.
//!
//! In each round all paths are asked at one moment ([`Tunnel::probe`]); an answer carries the moment
//! of its question, so that it counts for its round however late it comes.

mod args;
mod plot;
mod record;
mod screen;

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mptunnel_core::keyfile;
use mptunnel_core::options::{Credentials, Role, Settings};
use mptunnel_core::{Error, Event, PathId, PeerId, SendOptions, Tunnel, clock};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

pub use args::PingArgs;
pub(crate) use screen::millis;

use self::record::Record;
use self::screen::Screen;
use crate::config::Environment;
use crate::doctor::can_listen;
use crate::exit::{Exit, fail};
use crate::{keys, program};

const PROGRAM: &str = "mptunnel ping";

/// Runs `mptunnel ping` until its rounds are over or it is interrupted.
pub fn run(args: &PingArgs) -> ExitCode {
    let environment = Environment::of_process();
    let mut config = match args.client.load(&environment) {
        Ok(config) => config,
        Err(error) => return fail(PROGRAM, &error, Exit::Usage),
    };
    if config.settings.get("protocol").as_deref() == Some("legacy") {
        eprintln!("{PROGRAM}: the legacy protocol has no probes: nothing answers but the target");
        return Exit::Usage.into();
    }
    if let Err(error) = keys::locate_for_client(&mut config.settings, &environment) {
        return fail(PROGRAM, &error, Exit::Usage);
    }
    let static_keys =
        matches!(config.settings.credentials(Role::Client), Ok(Credentials::ClientKeys { .. }));
    if static_keys && !can_listen(config.settings.listen) {
        eprintln!(
            "{PROGRAM}: the server knows this client by its private key, and would take the session \
             from the mpclient that seems to be running: stop it first"
        );
        return Exit::Usage.into();
    }
    if let Some(Err(error)) = args.plot.as_ref().map(plot::Plot::check) {
        return fail(PROGRAM, &error, Exit::Usage);
    }
    program::harden();
    let interrupt = match Interrupt::register() {
        Ok(interrupt) => interrupt,
        Err(error) => return fail(PROGRAM, &error, Exit::Failure),
    };
    let settings = Settings {
        // Under no name, it is another client than the one that runs.
        name: None,
        // The rounds are probes enough.
        idle_interval: LONGEST_IDLE,
        ..config.settings
    };
    let names = config.paths.iter().map(|path| path.name.clone().unwrap_or_default());
    let mut record = Record::new(names, args.interval);
    let tunnel = match Tunnel::builder().settings(settings).paths(config.paths).connect() {
        Ok(tunnel) => tunnel,
        Err(error) => return program::not_started(PROGRAM, &error),
    };
    let mut screen = Screen::open(args.quiet, args.plain, args.interval);
    match connect(&tunnel, &screen, &interrupt) {
        Ok(true) => {}
        Ok(false) => return Exit::Failure.into(),
        Err(error) => {
            drop(screen);
            eprintln!(
                "{PROGRAM}: {error}; find out why with: mptunnel doctor {}",
                args.client.config.display()
            );
            return Exit::Failure.into();
        }
    }
    let mut rounds = match Rounds::new(args, &tunnel) {
        Ok(rounds) => rounds,
        Err(error) => return fail(PROGRAM, &error, Exit::Failure),
    };
    let outcome = rounds.run(&mut record, &mut screen, &interrupt);
    let now = rounds.now();
    screen.close(&record, now, args.echo);
    if let Some(plot) = &args.plot {
        match plot.write(&record, args.interval, now) {
            Ok(()) => println!("\nplotted to {}", plot.file().display()),
            Err(error) => return fail(PROGRAM, &error, Exit::Failure),
        }
    }
    if let Err(error) = outcome {
        return fail(PROGRAM, &error, Exit::Failure);
    }
    let tunnel = record.summary(record.lanes.len() - 1, now);
    if tunnel.answered > 0 { Exit::Success.into() } else { Exit::Failure.into() }
}

/// Waits for a session, and a moment for all paths to be proven in it; `false` if it was
/// interrupted.
fn connect(tunnel: &Tunnel, screen: &Screen, interrupt: &Interrupt) -> Result<bool, Error> {
    let begin = clock();
    let mut connected = None;
    loop {
        if let Some(at) = connected {
            let proven = tunnel.paths().iter().all(|path| path.up);
            if proven || clock().saturating_sub(at) > PROVEN_WITHIN {
                return Ok(true);
            }
        }
        match tunnel.next_event(Some(Duration::ZERO)) {
            Ok(Event::Connected) => connected = Some(clock()),
            Ok(Event::Refused(why)) => return Err(Error::Refused(why)),
            Ok(Event::PathDown(_, name, why)) => screen.say(&format!("path {name}: {why}")),
            Ok(_) => {}
            Err(Error::WouldBlock) if clock().saturating_sub(begin) > CONNECTED_WITHIN => {
                return tunnel.wait_ready(Some(Duration::ZERO)).map(|()| true);
            }
            Err(Error::WouldBlock) => interrupt.wait(tunnel, LONGEST_WAIT),
            Err(error) => return Err(error),
        }
        if interrupt.came() {
            return Ok(false);
        }
    }
}

/// The rounds of one run.
struct Rounds<'a> {
    args: &'a PingArgs,
    tunnel: &'a Tunnel,
    /// The paths in the order of the lanes.
    paths: Vec<PathId>,
    /// When the first round began, as [`clock`] has it.
    start: Duration,
    /// What this run's datagrams begin with, if there are any.
    mark: [u8; MARK],
    /// The echo that is awaited, and when it was asked for.
    datagrams: Vec<Duration>,
}

impl<'a> Rounds<'a> {
    fn new(args: &'a PingArgs, tunnel: &'a Tunnel) -> Result<Rounds<'a>, keyfile::KeyFileError> {
        let mut mark = [0; MARK];
        if args.echo {
            mark = *keyfile::generate()?;
        }
        let paths = tunnel.paths().iter().map(|path| path.id).collect();
        Ok(Rounds { args, tunnel, paths, start: clock(), mark, datagrams: Vec::new() })
    }

    /// The time since the first round.
    fn now(&self) -> Duration {
        clock().saturating_sub(self.start)
    }

    fn run(
        &mut self,
        record: &mut Record,
        screen: &mut Screen,
        interrupt: &Interrupt,
    ) -> Result<(), Error> {
        let interval = self.args.interval;
        let mut due = Duration::ZERO;
        let count = self.args.count.unwrap_or(u64::MAX);
        let is_last = |record: &Record| record.len() as u64 >= count;
        loop {
            if self.now() >= due && !is_last(record) && !interrupt.came() {
                self.ask(record)?;
                // Who was late does not make up for it: questions that leave together overtake each
                // other, and the server answers none that was overtaken.
                due = (due + interval).max(self.now() + interval / 2);
            }
            self.take_answers(record)?;
            self.tell_events(screen)?;
            let now = self.now();
            for news in record.watch(now) {
                screen.news(now, record, &news);
            }
            screen.show(record, now);
            if interrupt.came() || (is_last(record) && record.is_all_settled(now)) {
                return Ok(());
            }
            let next = if is_last(record) { LONGEST_WAIT } else { due.saturating_sub(now) };
            interrupt.wait(self.tunnel, next.min(LONGEST_WAIT));
        }
    }

    /// Begins a round.
    fn ask(&mut self, record: &mut Record) -> Result<(), Error> {
        let asked = self.tunnel.probe()?.saturating_sub(self.start);
        record.ask(asked);
        if self.args.echo {
            let number = u64::try_from(self.datagrams.len()).unwrap_or(u64::MAX);
            self.datagrams.push(asked);
            let datagram = [&self.mark[..], &number.to_le_bytes()].concat();
            let to = PeerId::default().with_flow(FLOW);
            let sent = self.tunnel.send_batch_with([&datagram[..]], to, &SendOptions::default());
            // Any other error is a loss, which is what is measured.
            if let Err(error @ (Error::Closed | Error::Failed(_) | Error::Forked)) = sent {
                return Err(error);
            }
        }
        Ok(())
    }

    fn take_answers(&mut self, record: &mut Record) -> Result<(), Error> {
        let whole = self.paths.len();
        for answer in self.tunnel.probe_answers() {
            let Some(lane) = self.paths.iter().position(|path| *path == answer.path) else {
                continue;
            };
            let Some(asked) = answer.asked.checked_sub(self.start) else { continue };
            record.answer(lane, asked, answer.round_trip);
            if !self.args.echo {
                record.answer(whole, asked, answer.round_trip);
            }
        }
        let mut buffer = [0; 2048];
        loop {
            match self.tunnel.try_recv(&mut buffer) {
                Ok(len) => {
                    let now = self.now();
                    let number = buffer[..len].strip_prefix(&self.mark[..]);
                    let number = number.and_then(|number| number.try_into().ok());
                    let number = number.map(u64::from_le_bytes).and_then(|n| n.try_into().ok());
                    let asked = number.and_then(|number: usize| self.datagrams.get(number));
                    if let Some(asked) = asked {
                        record.answer(whole, *asked, now.saturating_sub(*asked));
                    }
                }
                Err(Error::WouldBlock) => return Ok(()),
                // Not of this program's: larger than all it sends. It has to go.
                Err(Error::BufferTooSmall { .. }) => {
                    let _ = self.tunnel.try_recv(&mut vec![0; self.tunnel.max_payload()]);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn tell_events(&self, screen: &mut Screen) -> Result<(), Error> {
        loop {
            match self.tunnel.next_event(Some(Duration::ZERO)) {
                // Paths come and go in the rounds.
                Ok(Event::PathUp(..) | Event::Rekeyed(_) | Event::Connected) => {}
                Ok(Event::FlowClosed { .. }) => {}
                Ok(event) => screen.event(self.now(), &event.to_string()),
                Err(Error::WouldBlock) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// SIGINT and SIGTERM; the second one ends the program at once.
struct Interrupt {
    came: Arc<AtomicBool>,
    wake: UnixStream,
}

impl Interrupt {
    fn register() -> io::Result<Interrupt> {
        let came = Arc::new(AtomicBool::new(false));
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag unset, the second one set.
            flag::register_conditional_shutdown(signal, Exit::Failure as i32, came.clone())?;
            flag::register(signal, came.clone())?;
            low_level::pipe::register(signal, waker.try_clone()?)?;
        }
        Ok(Interrupt { came, wake })
    }

    fn came(&self) -> bool {
        self.came.load(Ordering::Relaxed)
    }

    /// Waits for a signal, an event or a datagram, or until the time is over.
    fn wait(&self, tunnel: &Tunnel, time: Duration) {
        let mut fds = [
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(tunnel.as_fd(), PollFlags::POLLIN),
        ];
        // A failure is a signal that came, which the flag tells.
        let _ = poll(&mut fds, PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO));
        while (&self.wake).read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
    }
}

/// How long the server may take to answer at first.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
/// How long paths may take until they count from the first round on.
const PROVEN_WITHIN: Duration = Duration::from_millis(500);
/// Answers are kept with their times, and fetched this often at least.
const LONGEST_WAIT: Duration = Duration::from_millis(20);
/// The most that the option idle-interval takes.
const LONGEST_IDLE: Duration = Duration::from_secs(20);
/// Bytes that tell this run's datagrams from all others.
const MARK: usize = 32;
/// The flow of the datagrams: the only one of this client.
const FLOW: u16 = 1;
