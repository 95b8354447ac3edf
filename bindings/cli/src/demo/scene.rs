// SPDX-License-Identifier: BSD-2-Clause
//! What the demo runs, all of it on loopback:
//!
//! ```text
//!           ┌ mpclient ─┬─ bridge 1 ─┬─ mpserver ┐
//!           │           ├─ bridge 2 ─┤           │
//!  traffic ─┤           └─ bridge 3 ─┘           ├─ echo application
//!           ├──────────── bridge of path 1 ──────┤
//!           ├──────────── bridge of path 2 ──────┤
//!           └──────────── bridge of path 3 ──────┘
//! ```

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{self, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use mptunnel_core::keyfile;
use mptunnel_core::sim::rng::Rng;
use tempfile::TempDir;

use super::process::{Line, Process, Programs, Who};
use super::{DemoError, Interrupt};

/// What a path does to datagrams, in each direction.
pub struct Impairment {
    /// For the user.
    pub words: &'static str,
    /// For `mptunnel bridge`.
    options: &'static [&'static str],
}

/// The three paths. Round trip, they lose 19 %, 36 % and 19 % of the datagrams.
pub const PATHS: [Impairment; 3] = [
    Impairment { words: "10 % lost, 20 ms", options: &["--loss", "10%", "--delay", "20"] },
    Impairment { words: "20 % lost, 35 ms", options: &["--loss", "20%", "--delay", "35"] },
    Impairment {
        words: "10 % in bursts, 60±10 ms",
        // Four datagrams in a row on average, so that it is ten percent after a few seconds.
        options: &["--burst", "2.8%,25%", "--delay", "60", "--jitter", "10"],
    },
];

/// All processes and what they need. Dropping it kills them and removes the directory.
pub struct Scene {
    programs: Programs,
    directory: TempDir,
    ports: Ports,
    echo: SocketAddr,
    seeds: Rng,
    /// Processes started so far.
    started: u32,
    processes: Vec<(Who, Process)>,
    lines: Receiver<Line>,
    to_lines: Sender<Line>,
    /// Lines that came while a certain one was waited for.
    backlog: VecDeque<Line>,
}

impl Scene {
    /// Makes the key, the configuration file, and room for the processes.
    pub fn new(programs: Programs, echo: SocketAddr, seed: u64) -> Result<Scene, DemoError> {
        let failed = |what| move |source| DemoError::System { what, source };
        let directory = tempfile::Builder::new()
            .prefix("mptunnel-demo-")
            .tempdir()
            .map_err(failed("make a directory for the key"))?;
        let ports = Ports::choose().map_err(failed("find free ports"))?;
        keyfile::create(&directory.path().join(KEY), &*keyfile::generate()?)?;
        let paths: String = (1..)
            .zip(ports.bridges)
            .map(|(path, port)| format!("{} {port} name={path}\n", Ipv4Addr::LOCALHOST))
            .collect();
        fs::write(directory.path().join(CONFIG), paths)
            .map_err(failed("write the configuration of mpclient"))?;
        let (to_lines, lines) = channel();
        Ok(Scene {
            programs,
            directory,
            ports,
            echo,
            seeds: Rng::new(seed),
            started: 0,
            processes: Vec::new(),
            lines,
            to_lines,
            backlog: VecDeque::new(),
        })
    }

    /// Starts all processes, and waits until they listen.
    pub fn start_all(&mut self, interrupt: &Interrupt) -> Result<(), DemoError> {
        let bridges = (0..PATHS.len()).flat_map(|path| [Who::Bridge(path), Who::Alone(path)]);
        for who in [Who::Server].into_iter().chain(bridges).chain([Who::Client]) {
            self.start(who)?;
            self.await_listening(who, interrupt)?;
        }
        Ok(())
    }

    /// Starts one process, which takes the place of its predecessor.
    pub fn start(&mut self, who: Who) -> Result<(), DemoError> {
        let command = self.command(who);
        self.started += 1;
        self.processes.push((who, Process::start(who, command, &self.to_lines)?));
        Ok(())
    }

    /// Kills one process.
    pub fn kill(&mut self, who: Who) {
        self.processes.retain(|(other, _)| *other != who);
    }

    fn command(&self, who: Who) -> Command {
        let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string();
        let in_directory = |name| self.directory.path().join(name);
        let bridge = |path: usize, port: u16, to: String| {
            let mut command = self.programs.bridge();
            command.args(["--listen", &at(port), "--to", &to]).args(PATHS[path].options);
            // Another one for each process: twins, and one that comes back, have their own luck.
            let seed = self.seeds.fork(&format!("process {}", self.started)).u64();
            command.args(["--seed", &seed.to_string()]);
            command
        };
        match who {
            Who::Server => {
                let mut command = self.programs.sibling("mpserver");
                let [host, port] = [self.echo.ip().to_string(), self.echo.port().to_string()];
                command.args([&at(self.ports.server), &host, &port]);
                command.arg("--key-file").arg(in_directory(KEY));
                command
            }
            Who::Client => {
                let mut command = self.programs.sibling("mpclient");
                command.arg(at(self.ports.client)).arg(in_directory(CONFIG));
                command.arg("--key-file").arg(in_directory(KEY));
                command
            }
            Who::Bridge(path) => bridge(path, self.ports.bridges[path], at(self.ports.server)),
            Who::Alone(path) => bridge(path, self.ports.alone[path], self.echo.to_string()),
        }
    }

    /// Where datagrams enter each path alone, and the tunnel at last.
    pub fn entrances(&self) -> Vec<SocketAddr> {
        let ports = self.ports.alone.into_iter().chain([self.ports.client]);
        ports.map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect()
    }

    /// Asks an end of the tunnel for a line of counters.
    pub fn ask_for_counters(&self, of: Who) {
        for (_, process) in self.processes.iter().filter(|(who, _)| *who == of) {
            process.ask_for_counters();
        }
    }

    /// The next line that a process wrote, if there is one before the timeout.
    pub fn next_line(&mut self, timeout: Duration) -> Option<Line> {
        self.backlog.pop_front().or_else(|| self.lines.recv_timeout(timeout).ok())
    }

    /// Waits for the line with which a process says that it listens.
    fn await_listening(&mut self, who: Who, interrupt: &Interrupt) -> Result<(), DemoError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            interrupt.check()?;
            if let Ok(line) = self.lines.recv_timeout(GLANCE) {
                let found = line.from == who && says_listening(&line);
                self.backlog.push_back(line);
                if found {
                    return Ok(());
                }
            } else {
                self.check(interrupt)?;
                if Instant::now() > deadline {
                    return Err(DemoError::Silent { name: who.to_string(), patience: PATIENCE });
                }
            }
        }
    }

    /// Fails if a process has ended by itself.
    pub fn check(&mut self, interrupt: &Interrupt) -> Result<(), DemoError> {
        let ended = |(who, process): &mut (Who, Process)| {
            process.exit_status().map(|status| (*who, status))
        };
        let Some((who, status)) = self.processes.iter_mut().find_map(ended) else {
            return Ok(());
        };
        // What it said last, and a signal that was meant for all, may be still on their way.
        let mut said = Vec::new();
        while let Some(line) = self.next_line(GLANCE) {
            said.extend((line.from == who).then_some(line.text));
        }
        interrupt.check()?;
        Err(DemoError::Ended { name: who.to_string(), status, said: said.join("\n") })
    }
}

/// Whether a process says that its socket is bound.
pub fn says_listening(line: &Line) -> bool {
    let word = match line.from {
        Who::Server | Who::Client => " listens on ",
        Who::Bridge(_) | Who::Alone(_) => "listening on ",
    };
    line.text.contains(word)
}

/// Where everything listens.
struct Ports {
    server: u16,
    client: u16,
    bridges: [u16; 3],
    alone: [u16; 3],
}

impl Ports {
    /// Free ports. They have to be free again when a killed process comes back, and so they are
    /// below those that systems give to whoever asks for any port: 32768 and above by
    /// ip_local_port_range of ip(7), 49152 and above by RFC 6335.
    fn choose() -> io::Result<Ports> {
        // Demos that run at the same time begin their search at different places.
        let first = 20_000 + u16::try_from(process::id() % 700).expect("below 700") * 16;
        let mut held = Vec::new();
        for port in first..32_768 {
            if held.len() == 8 {
                break;
            }
            held.extend(UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|s| (port, s)));
        }
        let ports: Vec<u16> = held.iter().map(|(port, _)| *port).collect();
        match ports[..] {
            [server, client, a, b, c, d, e, f] => {
                Ok(Ports { server, client, bridges: [a, b, c], alone: [d, e, f] })
            }
            _ => Err(io::ErrorKind::AddrInUse.into()),
        }
    }
}

/// How long a process may take until it listens.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for a line before looking at other things.
const GLANCE: Duration = Duration::from_millis(50);
const KEY: &str = "psk";
const CONFIG: &str = "mpclient.conf";
