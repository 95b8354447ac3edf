// SPDX-License-Identifier: BSD-2-Clause
//! `mptunnel demo`: what a tunnel is good for, shown with real processes on this machine.
//!
//! A client of an echo application sends the same numbered datagrams over three bad paths, over
//! each of them alone and over all of them with mpclient and mpserver, while bridges and the server
//! are killed and started again. `scene` runs the processes, `traffic` sends and counts, `play` is
//! what happens, `table` and `screen` show it, and `verdict` judges.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program that measures in real time has a clock, threads and sockets"
)]

mod echo;
mod play;
mod process;
mod scene;
pub(crate) mod screen;
pub(crate) mod table;
mod tally;
mod traffic;
mod verdict;

use std::io;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::RangedU64ValueParser;
use mptunnel_core::keyfile::KeyFileError;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::exit::{Exit, fail};
use echo::Echo;
use play::Play;
use process::Programs;
use scene::{PATHS, Scene};
use screen::Screen;
use table::{TIMELINE, View};
use traffic::{Contenders, Traffic};
use verdict::Verdict;

/// Show on this machine what a tunnel does
///
/// Runs mpserver, three lossy bridges, mpclient and an echo application on loopback, and sends the
/// same datagrams through the tunnel and over each path alone. On the way a bridge is killed, and
/// so is the server, and both are started again. Nothing is left behind.
///
/// The exit status is 0 if the tunnel delivered more than every single path, had recovered within
/// 3 s, and delivered nothing twice.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// How long to send, in seconds
    #[arg(
        long, value_name = "S", default_value_t = 10,
        value_parser = RangedU64ValueParser::<u64>::new().range(5..=600)
    )]
    pub seconds: u64,

    /// Write a line each second instead of a table that is redrawn in place, as is done by itself
    /// where standard output is no terminal of 79 columns
    #[arg(long)]
    pub plain: bool,

    /// Seed of the bridges' random decisions
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// Runs the demo. Failure, of the demo or of what it shows, is told in its last line.
pub fn run(args: DemoArgs) -> ExitCode {
    match show(&args) {
        Ok(verdict) if verdict.faults().is_empty() => Exit::Success.into(),
        Ok(_) => Exit::Failure.into(),
        Err(error) => fail("mptunnel demo", &error, Exit::Failure),
    }
}

fn show(args: &DemoArgs) -> Result<Verdict, DemoError> {
    let interrupt = Interrupt::register()?;
    let programs = Programs::find()?;
    let total = Duration::from_secs(args.seconds);
    let mut screen = Screen::open(args.plain, total)?;
    let echo = Echo::start()
        .map_err(|source| DemoError::System { what: "start the echo application", source })?;
    let mut scene = Scene::new(programs, echo.address(), args.seed)?;
    scene.start_all(&interrupt)?;
    let traffic = start_traffic(&mut scene, total, &interrupt)?;
    let start = traffic.start_time();
    let mut play = Play::new(start, total);
    while start.elapsed() < total + SETTLE {
        interrupt.check()?;
        scene.check(&interrupt)?;
        play.act(&mut scene)?;
        if let Some(line) = scene.next_line(BREATH) {
            play.hear(line);
        }
        play.watch(&traffic.tallies()[PATHS.len()]);
        screen.show(&view(&traffic, &play, ON_THEIR_WAY, total, screen.parts()))?;
    }
    // What has not come back by now will not.
    let view = view(&traffic, &play, Duration::ZERO, total, TIMELINE);
    let verdict = verdict(&traffic, &play, &view);
    screen.close(&view, &verdict)?;
    Ok(verdict)
}

/// Starts the traffic once every contender has answered.
fn start_traffic(
    scene: &mut Scene,
    total: Duration,
    interrupt: &Interrupt,
) -> Result<Traffic, DemoError> {
    let failed = |source| DemoError::System { what: "send datagrams", source };
    let contenders = Contenders::new(&scene.entrances()).map_err(failed)?;
    let mut silent: Vec<usize> = (0..=PATHS.len()).collect();
    let deadline = Instant::now() + PATIENCE;
    while let Some(first) = silent.first() {
        interrupt.check()?;
        scene.check(interrupt)?;
        if Instant::now() > deadline {
            let name = match *first < PATHS.len() {
                true => format!("path {} alone", first + 1),
                false => "the tunnel".to_owned(),
            };
            return Err(DemoError::NoEcho { name, patience: PATIENCE });
        }
        silent = contenders.warm_up(&silent, WARM_UP).map_err(failed)?;
    }
    Traffic::start(contenders, total, SETTLE).map_err(failed)
}

fn view(
    traffic: &Traffic,
    play: &Play,
    on_their_way: Duration,
    total: Duration,
    parts: u32,
) -> View {
    let now = traffic.start_time().elapsed();
    let tallies = traffic.tallies();
    let mut alone: Vec<_> =
        tallies.iter().map(|tally| tally.report(now, on_their_way, total, parts)).collect();
    let tunnel = alone.pop().unwrap_or_default();
    View {
        now: now.min(total),
        alone,
        tunnel,
        removed: play.copies_removed(),
        path_down: play.path_down(),
        server_down: play.outage().is_on(),
        events: play.events().to_vec(),
    }
}

fn verdict(traffic: &Traffic, play: &Play, view: &View) -> Verdict {
    let outage = play.outage();
    let with_server = outage
        .begin
        .zip(outage.bound)
        .and_then(|(begin, bound)| traffic.tallies()[PATHS.len()].share_outside(begin, bound));
    Verdict {
        alone: view.alone.clone(),
        tunnel: view.tunnel.clone(),
        with_server,
        recovery: outage.recovery(),
    }
}

/// Whether somebody wants the demo to end.
struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    fn register() -> Result<Interrupt, DemoError> {
        let set = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register(signal, Arc::clone(&set))
                .map_err(|source| DemoError::System { what: "listen to signals", source })?;
        }
        Ok(Interrupt(set))
    }

    /// Fails if so.
    fn check(&self) -> Result<(), DemoError> {
        if self.0.load(Relaxed) { Err(DemoError::Interrupted) } else { Ok(()) }
    }
}

/// Why there was nothing to see.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(
        "{name} is missing: {} is not there; build or install all programs, they belong into one \
         directory", file.display()
    )]
    Missing { name: &'static str, file: PathBuf },
    #[error("cannot {what}")]
    System { what: &'static str, source: io::Error },
    #[error("cannot start {name}")]
    Start { name: String, source: io::Error },
    #[error("{name} did not listen within {} s", patience.as_secs())]
    Silent { name: String, patience: Duration },
    #[error("{name} ended by itself, with {status}\n{said}")]
    Ended { name: String, status: ExitStatus, said: String },
    #[error("nothing came back over {name} within {} s", patience.as_secs())]
    NoEcho { name: String, patience: Duration },
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
    #[error("interrupted; all that was started is stopped")]
    Interrupted,
}

/// The longest time that an echo takes here, with room for a machine that is busy. Until then a
/// datagram does not count as lost.
const ON_THEIR_WAY: Duration = Duration::from_millis(500);
/// How long echoes are waited for at the end.
const SETTLE: Duration = Duration::from_secs(1);
/// How long contenders may take for the first echo.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for an echo before the next attempt.
const WARM_UP: Duration = Duration::from_millis(200);
/// How long to wait for a line of the processes before looking at other things.
const BREATH: Duration = Duration::from_millis(20);
