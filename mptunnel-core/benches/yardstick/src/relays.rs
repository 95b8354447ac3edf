// SPDX-License-Identifier: BSD-2-Clause
//! The programs: `mpclient` and `mpserver` beside a bare pair, bridges beside `socat`.

use crate::load::{self, Highest, Outcome, Probe, Sink, Source};
use crate::programs::{self, Program};
use crate::table::{Row, Unit};
use crate::{Plan, plural};
use mptunnel_bench::seal::Cipher;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Until a chain of programs carries datagrams.
const READY: Duration = Duration::from_secs(10);
/// Then all paths get up, and what the start put off is done.
const SETTLE: Duration = Duration::from_millis(700);

/// Programs in a row, from `entry` to a sink.
struct Chain {
    programs: Vec<Program>,
    entry: SocketAddr,
}

impl Chain {
    /// Waits until datagrams come through to `sink`.
    fn ready(mut self, sink: &mut Sink) -> io::Result<Chain> {
        let probe = Probe {
            size: 64,
            rate: 100.0,
            duration: Duration::from_millis(50),
            source: Source::Single,
        };
        let deadline = Instant::now() + READY;
        // While nobody listens yet the source is told so, which is an error and none to stop for.
        while sink.probe(self.entry, probe).map_or(true, |outcome| outcome.share() < 1.0) {
            for program in &mut self.programs {
                program.check()?;
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the programs carry nothing"));
            }
        }
        std::thread::sleep(SETTLE);
        Ok(self)
    }

    fn cpu(&self) -> io::Result<Duration> {
        self.programs.iter().map(Program::cpu).sum()
    }
}

/// A port that nobody uses.
fn free() -> io::Result<SocketAddr> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Where the programs are, and a folder for their files.
pub struct Place<'a> {
    pub bin: &'a Path,
    pub files: &'a Path,
}

impl Place<'_> {
    fn ours(&self, paths: usize, cipher: Cipher, sink: SocketAddr) -> io::Result<Chain> {
        let (key, list) = (self.files.join("psk"), self.files.join("paths"));
        if !key.exists() {
            let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&key);
            // 32 bytes that are no secret.
            io::Write::write_all(&mut file?, b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")?;
        }
        let (outer, entry) = (free()?, free()?);
        fs::write(&list, format!("127.0.0.1 {}\n", outer.port()).repeat(paths))?;
        let program = |name: &str, arguments: &[String]| {
            let mut command = Command::new(self.bin.join(name));
            command.arg("--key-file").arg(&key).args(["--cipher", cipher.word()]);
            Program::start(command.args(arguments))
        };
        let (host, port) = (sink.ip().to_string(), sink.port().to_string());
        let server = program("mpserver", &[outer.port().to_string(), host, port])?;
        let list = list.display().to_string();
        let client = program("mpclient", &[entry.port().to_string(), list])?;
        Ok(Chain { programs: vec![client, server], entry })
    }

    fn floor(&self, paths: usize, cipher: Cipher, sink: SocketAddr) -> io::Result<Chain> {
        let this = std::env::current_exe()?;
        let (outer, entry) = (free()?.to_string(), free()?);
        let server = Program::start(Command::new(&this).args([
            "relay-server",
            &outer,
            &sink.to_string(),
            "--cipher",
            cipher.word(),
        ]))?;
        let client = Program::start(
            Command::new(&this)
                .args(["relay-client", "--cipher", cipher.word(), &entry.to_string()])
                .args(vec![&outer; paths]),
        )?;
        Ok(Chain { programs: vec![client, server], entry })
    }

    /// Three forwarders, one behind the other; `one` makes the command of one.
    fn bridges(
        &self,
        sink: SocketAddr,
        one: impl Fn(SocketAddr, SocketAddr) -> Command,
    ) -> io::Result<Chain> {
        let (mut programs, mut entry) = (Vec::new(), sink);
        for _ in 0..3 {
            let at = free()?;
            programs.push(Program::start(&mut one(at, entry))?);
            entry = at;
        }
        Ok(Chain { programs, entry })
    }

    fn our_bridges(&self, sink: SocketAddr) -> io::Result<Chain> {
        self.bridges(sink, |at, to| {
            let mut command = Command::new(self.bin.join("mptunnel"));
            command.args(["bridge", "-l", &at.to_string(), "--to", &to.to_string()]);
            command
        })
    }

    fn socats(&self, sink: SocketAddr) -> io::Result<Chain> {
        self.bridges(sink, |at, to| {
            let mut command = Command::new("socat");
            command.arg(format!("udp4-listen:{},bind={},fork", at.port(), at.ip()));
            command.arg(format!("udp4:{to}"));
            command
        })
    }
}

fn search(
    sink: &mut Sink,
    chain: &Chain,
    plan: &Plan,
    source: Source,
    size: usize,
    hint: f64,
) -> io::Result<Highest> {
    load::highest(hint, |rate| {
        sink.probe(chain.entry, Probe { size, rate, duration: plan.probe, source })
    })
}

/// One search of each, turn by turn, each with what it found before as hint.
fn throughput(
    sink: &mut Sink,
    chains: [&Chain; 2],
    plan: &Plan,
    source: Source,
    size: usize,
    mut row: Row,
) -> io::Result<Row> {
    let mut hints = [60_000.0; 2];
    for _ in 0..plan.turns {
        let mut found = [0.0; 2];
        for (index, chain) in chains.into_iter().enumerate() {
            let highest = search(sink, chain, plan, source, size, hints[index])?;
            found[index] = highest.rate;
            if highest.rate > 0.0 {
                hints[index] = highest.rate;
            }
            if highest.source_limited && !row.name.contains('*') {
                row.name.push_str(" *");
            }
        }
        row.turns.push((found[0], found[1]));
    }
    Ok(row)
}

const RELAYS: &str = "The relay pair, mpclient and mpserver";

/// The relay pair beside the bare pair.
pub fn pair(
    place: &Place<'_>,
    plan: &Plan,
    ciphers: &[Cipher],
    rows: &mut Vec<Row>,
) -> io::Result<()> {
    let at = free()?;
    let mut sink = Sink::open(at)?;
    for cipher in ciphers {
        pair_with(place, plan, *cipher, at, &mut sink, rows)?;
    }
    Ok(())
}

fn pair_with(
    place: &Place<'_>,
    plan: &Plan,
    cipher: Cipher,
    at: SocketAddr,
    sink: &mut Sink,
    rows: &mut Vec<Row>,
) -> io::Result<()> {
    for paths in [1, 3] {
        let what = format!("{}, {}", cipher.name(), plural(paths));
        let ours = place.ours(paths, cipher, at)?.ready(sink)?;
        let floor = place.floor(paths, cipher, at)?.ready(sink)?;
        for (source, how) in [(Source::Joined, "GSO"), (Source::Single, "single")] {
            let most = source == Source::Joined && cipher == Cipher::Chacha20;
            let sizes = if most { plan.sizes } else { &plan.sizes[..1] };
            for size in sizes {
                let name = format!("{what}, {size} B, {how} source");
                let row = Row::new(RELAYS, name, Unit::Rate, "floor");
                rows.push(throughput(sink, [&ours, &floor], plan, source, *size, row)?);
            }
        }
        let steady =
            |size, rate| Probe { size, rate, duration: plan.steady, source: Source::Single };
        if cipher != Cipher::Chacha20 {
            // What follows hardly depends on the cipher.
            continue;
        }
        let named =
            |figure: &str, unit| Row::new(RELAYS, format!("{what}, {figure}"), unit, "floor");
        let mut half = named("512 B, 1,000/s: delay, p50", Unit::Microseconds);
        let mut most = named("512 B, 1,000/s: delay, p99", Unit::Microseconds);
        let mut cpu = named("1400 B, 5,000/s: CPU of both", Unit::Microseconds);
        for _ in 0..plan.turns {
            let (mut delays, mut costs) = (Vec::new(), Vec::new());
            for chain in [&ours, &floor] {
                delays.push(sink.probe(chain.entry, steady(512, 1000.0))?);
                let before = chain.cpu()?;
                let outcome = sink.probe(chain.entry, steady(1400, 5000.0))?;
                costs.push((chain.cpu()? - before).as_secs_f64() * 1e6 / outcome.arrived as f64);
            }
            let part = |part, of: &Outcome| of.delay(part).as_secs_f64() * 1e6;
            half.turns.push((part(0.5, &delays[0]), part(0.5, &delays[1])));
            most.turns.push((part(0.99, &delays[0]), part(0.99, &delays[1])));
            cpu.turns.push((costs[0], costs[1]));
        }
        rows.extend([half, most, cpu]);
        for (index, which) in ["client", "server"].into_iter().enumerate() {
            let mut memory = named(&format!("peak memory of the {which}"), Unit::Mebibytes);
            let of = |chain: &Chain| -> io::Result<f64> {
                Ok(chain.programs[index].peak_memory()? as f64 / f64::from(1 << 20))
            };
            memory.turns.push((of(&ours)?, of(&floor)?));
            rows.push(memory);
        }
    }
    Ok(())
}

/// Three bridges in a row beside three `socat`; nothing if there is no `socat`.
pub fn bridges(place: &Place<'_>, plan: &Plan, rows: &mut Vec<Row>) -> io::Result<()> {
    if !programs::installed("socat") {
        eprintln!("NOT MEASURED: bridges, for socat is not installed");
        return Ok(());
    }
    let at = free()?;
    let mut sink = Sink::open(at)?;
    let ours = place.our_bridges(at)?.ready(&mut sink)?;
    let socats = place.socats(at)?.ready(&mut sink)?;
    for size in plan.sizes {
        let name = format!("{size} B, GSO source");
        let row = Row::new("Three bridges in a row", name, Unit::Rate, "socat");
        rows.push(throughput(&mut sink, [&ours, &socats], plan, Source::Joined, *size, row)?);
    }
    Ok(())
}
