// SPDX-License-Identifier: BSD-2-Clause
//! `make bench`: what mptunnel reaches, beside what this machine lets anybody reach, in turns.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a load generator has clocks, threads and sockets of its own"
)]

mod batch;
mod crowd;
mod drive;
mod library;
mod load;
mod look;
mod machine;
mod micro;
mod pipe;
mod programs;
mod relay;
mod relays;
mod scale;
mod table;

use clap::{Parser, Subcommand, ValueEnum};
use drive::{Flood, Load};
use library::{Delivery, Pair};
use load::{Probe, Sink, Source};
use mptunnel_bench::seal::Cipher;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;
use table::{Row, Unit};

#[derive(Parser)]
#[command(about = "What mptunnel reaches beside what this machine lets anybody reach")]
struct Options {
    #[command(subcommand)]
    role: Option<Role>,
    /// A minute, to see that everything works; the figures mean little.
    #[arg(long)]
    quick: bool,
    /// The folder with mpclient, mpserver and mptunnel.
    #[arg(long, default_value = "target/release")]
    bin: PathBuf,
    /// The folder where criterion left its results.
    #[arg(long, default_value = "target/criterion")]
    criterion: PathBuf,
    /// Writes the results, with date and machine, to this file.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The parts to measure.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "micro,library,scale,look,relays,bridges"
    )]
    only: Vec<Part>,
    /// NAME=COMMAND, another API of the library. The command is run with `--paths N --size N
    /// --seconds N --cipher WORD` behind it, does what `library.rs` does, and prints delivered datagrams per
    /// second on its last line.
    #[arg(long)]
    external: Vec<String>,
}

#[derive(Subcommand)]
enum Role {
    /// The bare relay beside the application.
    RelayClient(relay::Client),
    /// The bare relay beside the target.
    RelayServer(relay::Server),
    /// A steady load through any tunnel, to look at the tunnel meanwhile.
    Load(Steady),
    /// The library through its Rust API, as `--external` runs the other APIs.
    Library(Alone),
}

#[derive(clap::Args)]
struct Alone {
    #[arg(long, default_value_t = 1)]
    paths: usize,
    #[arg(long, default_value_t = 1400)]
    size: usize,
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// `chacha20` or `aes256gcm`.
    #[arg(long, default_value = "chacha20")]
    cipher: String,
}

#[derive(clap::Args)]
struct Steady {
    /// Where the tunnel takes datagrams.
    to: SocketAddr,
    /// Where it delivers them.
    sink: SocketAddr,
    #[arg(long, default_value_t = 1400)]
    size: usize,
    /// Datagrams per second.
    #[arg(long)]
    rate: f64,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Sends each datagram by itself.
    #[arg(long)]
    single: bool,
}

#[derive(Clone, Copy, Eq, PartialEq, ValueEnum)]
enum Part {
    Micro,
    Library,
    Scale,
    Look,
    Relays,
    Bridges,
}

/// How long everything takes.
struct Plan {
    /// How often each thing is measured in turn with what it stands beside.
    turns: usize,
    sizes: &'static [usize],
    /// One flood through the library.
    flood: Duration,
    /// One attempt of a search.
    probe: Duration,
    /// One measurement at a fixed rate.
    steady: Duration,
}

const FULL: Plan = Plan {
    turns: 3,
    sizes: &[1400, 512, 64],
    flood: Duration::from_millis(500),
    probe: Duration::from_millis(350),
    steady: Duration::from_millis(1500),
};

const QUICK: Plan = Plan {
    turns: 1,
    sizes: &[1400],
    flood: Duration::from_millis(200),
    probe: Duration::from_millis(150),
    steady: Duration::from_millis(500),
};

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.role {
        Some(Role::RelayClient(client)) => relay::client(client).map_err(Into::into),
        Some(Role::RelayServer(server)) => relay::server(server).map_err(Into::into),
        Some(Role::Load(steady)) => load(steady).map_err(Into::into),
        Some(Role::Library(alone)) => library_alone(alone),
        None => bench(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mptunnel-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn load(steady: &Steady) -> io::Result<()> {
    let source = if steady.single { Source::Single } else { Source::Joined };
    let duration = Duration::from_secs_f64(steady.seconds);
    let probe = Probe { size: steady.size, rate: steady.rate, duration, source };
    let outcome = Sink::open(steady.sink)?.probe(steady.to, probe)?;
    let (offered, share) = (outcome.offered(), outcome.share());
    println!("{offered:.0}/s sent, {:.2} % arrived, {} twice", share * 100.0, outcome.twice);
    println!("delay: half within {:?}, 99 % within {:?}", outcome.delay(0.5), outcome.delay(0.99));
    Ok(())
}

/// Prints delivered datagrams per second.
fn library_alone(alone: &Alone) -> Result<(), Box<dyn Error>> {
    let cipher = CIPHERS.into_iter().find(|cipher| cipher.word() == alone.cipher);
    let cipher = cipher.ok_or_else(|| format!("no cipher {}", alone.cipher))?;
    let Alone { paths, size, seconds, .. } = *alone;
    let pair = Pair::open(paths, cipher, Delivery::Queue)?;
    let rate =
        whole(pair.measure(Load { size, paths, duration: Duration::from_secs_f64(seconds) }))?;
    println!("{rate:.0}");
    Ok(())
}

fn bench(options: &Options) -> Result<(), Box<dyn Error>> {
    let plan = if options.quick { QUICK } else { FULL };
    let wanted = |part| options.only.contains(&part);
    let place = machine::isolate();
    let mut rows = Vec::new();
    if wanted(Part::Micro) {
        rows.extend(micro::read(&options.criterion)?);
    }
    if wanted(Part::Library) {
        eprintln!("measuring the library");
        for cipher in CIPHERS {
            library_rows(&plan, cipher, &options.external, &mut rows)?;
        }
    }
    if wanted(Part::Scale) {
        eprintln!("measuring scale");
        scale::rows(&plan, &mut rows)?;
    }
    if wanted(Part::Look) {
        eprintln!("measuring a look at thousands of sessions");
        look::rows(&plan, &mut rows)?;
    }
    let files = tempfile::tempdir()?;
    let programs = relays::Place { bin: &options.bin, files: files.path() };
    if wanted(Part::Relays) {
        eprintln!("measuring the relay pair");
        relays::pair(&programs, &plan, &CIPHERS, &mut rows)?;
    }
    if wanted(Part::Bridges) {
        eprintln!("measuring the bridges");
        relays::bridges(&programs, &plan, &mut rows)?;
    }
    let text = table::markdown(&rows);
    println!("{text}");
    if let Some(out) = &options.out {
        std::fs::write(out, machine::report(&text, place))?;
        println!("written to {}", out.display());
    }
    Ok(())
}

/// The ciphers that are measured.
const CIPHERS: [Cipher; 2] = [Cipher::Chacha20, Cipher::Aes256gcm];

const LIBRARY: &str = "The library, both ends in one process, in batches of 64";

/// "1 path", "3 paths".
fn plural(paths: usize) -> String {
    format!("{paths} path{}", if paths == 1 { "" } else { "s" })
}

fn library_rows(
    plan: &Plan,
    cipher: Cipher,
    external: &[String],
    rows: &mut Vec<Row>,
) -> Result<(), Box<dyn Error>> {
    let alone = format!("{} library", std::env::current_exe()?.display());
    for paths in [1, 3] {
        let handler = Pair::open(paths, cipher, Delivery::Handler)?;
        let queue = Pair::open(paths, cipher, Delivery::Queue)?;
        for size in plan.sizes {
            let load = Load { size: *size, paths, duration: plan.flood };
            let row = |what: &str, beside| {
                let name = format!("{}, {}, {size} B, {what}", cipher.name(), plural(paths));
                Row::new(LIBRARY, name, Unit::Rate, beside)
            };
            let mut by_handler = row("Rust, handler", "floor");
            let mut by_queue = row("Rust, recv_batch", "floor");
            let mut others: Vec<Row> = Vec::new();
            for turn in 0..plan.turns {
                let floor = whole(pipe::measure(load, cipher)?)?;
                by_handler.turns.push((whole(handler.measure(load))?, floor));
                by_queue.turns.push((whole(queue.measure(load))?, floor));
                // Other APIs need not know of ciphers.
                let external = if cipher == Cipher::Chacha20 { external } else { &[] };
                if external.is_empty() {
                    continue;
                }
                // Each in a process of its own, as they are: one that has run for a while is
                // faster, its memory being there already.
                let ours = other_api(&alone, load, cipher)?;
                for (index, words) in external.iter().enumerate() {
                    let (name, command) = words.split_once('=').ok_or("--external NAME=COMMAND")?;
                    if turn == 0 {
                        others.push(row(name, "Rust alone"));
                    }
                    others[index].turns.push((other_api(command, load, cipher)?, ours));
                }
            }
            rows.extend([by_handler, by_queue]);
            rows.extend(others);
        }
    }
    Ok(())
}

/// The rate, if next to nothing was lost: what drops is fast.
fn whole(flood: Flood) -> Result<f64, String> {
    match flood {
        Flood { lost, .. } if lost > 0.001 => Err(format!("{:.2} % lost", lost * 100.0)),
        Flood { rate, .. } => Ok(rate),
    }
}

fn other_api(command: &str, load: Load, cipher: Cipher) -> Result<f64, Box<dyn Error>> {
    let Load { size, paths, duration } = load;
    let seconds = duration.as_secs_f64();
    let word = cipher.word();
    let line =
        format!("{command} --paths {paths} --size {size} --seconds {seconds} --cipher {word}");
    let output = Command::new("sh").args(["-c", &line]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figure = text.lines().last().and_then(|line| line.trim().parse().ok());
    match figure {
        Some(figure) if output.status.success() => Ok(figure),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{line}: no figure ({}) {said}", output.status).into())
        }
    }
}
