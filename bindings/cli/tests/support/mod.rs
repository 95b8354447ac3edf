// SPDX-License-Identifier: BSD-2-Clause
//! Real programs on loopback, for tests: each in an environment of its own, on ports that the
//! system picks, and gone when the test is over, however it ends.

#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real time and real sockets"
)]

use std::fs;
use std::io::ErrorKind::{ConnectionRefused, Interrupted};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub const MPSERVER: &str = env!("CARGO_BIN_EXE_mpserver");
pub const MPCLIENT: &str = env!("CARGO_BIN_EXE_mpclient");
pub const MPTUNNEL: &str = env!("CARGO_BIN_EXE_mptunnel");

/// How long anything may take before a test gives up: generous, for machines that are busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A home directory of its own with a key in it, for the programs of one test.
pub struct World {
    pub root: PathBuf,
}

impl World {
    /// A world in which both ends find the same key.
    pub fn new() -> World {
        let world = World::without_key();
        let file = world.key_file();
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        mptunnel_core::keyfile::create(&file, &mptunnel_core::keyfile::generate().unwrap())
            .unwrap();
        world
    }

    /// A world in which nobody has run anything yet.
    pub fn without_key() -> World {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Relaxed);
        let name = format!("mptunnel-test-{}-{count}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir(&root).unwrap();
        fs::create_dir(root.join("run")).unwrap();
        World { root }
    }

    /// Where the programs look for the user's key.
    pub fn key_file(&self) -> PathBuf {
        self.root.join(".config/mptunnel/psk")
    }

    /// Writes a file that only its owner can read.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.root.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// A command that sees this world only.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(&self.root).env_clear().env("HOME", &self.root);
        command.env("XDG_RUNTIME_DIR", self.root.join("run"));
        command
    }

    /// Starts a program.
    pub fn start(&self, program: &str, args: &[&str]) -> Program {
        Program::start(self.command(program, args))
    }

    /// Starts an mpserver on any free port, for a target on loopback.
    pub fn server(&self, target: SocketAddr, args: &[&str]) -> Program {
        self.server_at(0, target, args)
    }

    /// Starts an mpserver on `port` and waits until it listens.
    pub fn server_at(&self, port: u16, target: SocketAddr, args: &[&str]) -> Program {
        let (port, host) = (port.to_string(), target.ip().to_string());
        let words = [port.as_str(), host.as_str(), &target.port().to_string()];
        let server = self.start(MPSERVER, &[&words, args].concat());
        server.port();
        server
    }

    /// Starts an mpclient on any free port, with a configuration file of this text, and waits
    /// until it listens.
    pub fn client(&self, config: &str, args: &[&str]) -> Program {
        let file = self.write("client.conf", config);
        let words = ["127.0.0.1:0", file.to_str().unwrap()];
        let client = self.start(MPCLIENT, &[&words, args].concat());
        client.port();
        client
    }

    /// Starts an mpclient with one path to `server`, and waits until both know of each other: what
    /// overtakes the first probe of a path has no way back.
    pub fn connected_client(&self, server: &Program) -> Program {
        let client = self.client(&format!("127.0.0.1 {}\n", server.port()), &[]);
        client.expect(" is up");
        client
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// A running program and what it has logged. Killed on drop.
pub struct Program {
    child: Child,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    news: Condvar,
}

impl Log {
    /// Takes the lines of `stream` until its end, on a thread of its own.
    fn collect(self: &Arc<Log>, stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                log.lines.lock().unwrap().push(line);
                log.news.notify_all();
            }
        })
    }
}

impl Program {
    pub fn start(mut command: Command) -> Program {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = Arc::new(Log::default());
        let readers = vec![
            log.collect(child.stdout.take().unwrap()),
            log.collect(child.stderr.take().unwrap()),
        ];
        Program { child, log, readers }
    }

    /// The first line that contains all of `words`, which it waits for.
    pub fn expect_line(&self, words: &[&str], within: Duration) -> String {
        let deadline = Instant::now() + within;
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            let found = lines.iter().find(|line| words.iter().all(|word| line.contains(word)));
            if let Some(line) = found {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no line with {words:?} in\n{}", lines.join("\n"));
            lines = self.log.news.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// The first line that contains `words`, which it waits for.
    pub fn expect(&self, words: &str) -> String {
        self.expect_line(&[words], PATIENCE)
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        self.log.lines.lock().unwrap().join("\n")
    }

    /// How many lines contain `words` so far.
    pub fn count(&self, words: &str) -> usize {
        self.log.lines.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    }

    /// Waits until `words` were logged `times` times.
    pub fn expect_count(&self, words: &str, times: usize) {
        wait_until(
            || self.count(words) >= times,
            || format!("{words:?} less than {times} times in\n{}", self.log()),
        );
    }

    /// The port that the program listens on, as its first line tells it: `listens on` of mpserver
    /// and mpclient, `listening on` of a bridge.
    pub fn port(&self) -> u16 {
        let line = self.expect("listen");
        let address = line.split(" on ").nth(1).unwrap().split([' ', ',']).next().unwrap();
        let address: SocketAddr = address.parse().unwrap_or_else(|_| panic!("{line}"));
        address.port()
    }

    /// Its address on loopback.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port()).into()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Kills the program as a crash would, without giving it a chance.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends the program with `signal`: how, and after how long.
    pub fn stop(&mut self, signal: Signal) -> (ExitStatus, Duration) {
        let begin = Instant::now();
        self.signal(signal);
        (self.wait(), begin.elapsed())
    }

    /// Waits for the end of the program, and for all that it has logged.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until(
            || {
                status = self.child.try_wait().unwrap();
                status.is_some() && self.readers.iter().all(JoinHandle::is_finished)
            },
            || "the program does not end".to_owned(),
        );
        status.unwrap()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Waits until it has no more descriptors open than `before`. Some are open for a moment only,
    /// such as a socket that asks for the MTU of a route.
    pub fn expect_descriptors(&self, before: usize) {
        wait_until(
            || self.descriptors() <= before,
            || format!("{} descriptors are open, and were {before}", self.descriptors()),
        );
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end: its exit status, and what it wrote to standard output and error.
pub fn output(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Waits until `done`, and panics with `otherwise` if that never happens.
pub fn wait_until(mut done: impl FnMut() -> bool, otherwise: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{}", otherwise());
        thread::sleep(Duration::from_millis(5));
    }
}

/// A UDP service on loopback that answers each datagram with what `reply` makes of it. Stops on
/// drop.
pub struct Service {
    pub address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Answers each datagram with itself.
    pub fn echo() -> Service {
        Service::start(|datagram, _| Some(datagram.to_vec()))
    }

    pub fn start(
        mut reply: impl FnMut(&[u8], SocketAddr) -> Option<Vec<u8>> + Send + 'static,
    ) -> Service {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let address = socket.local_addr().unwrap();
        let stopping = Arc::new(AtomicBool::new(false));
        let over = stopping.clone();
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !over.load(Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                if let Some(answer) = reply(&buffer[..len], from) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Service { address, stopping, thread: Some(thread) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stopping.store(true, Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

/// An application: a socket that sends to one address and receives from there only.
pub struct App {
    pub socket: UdpSocket,
}

impl App {
    /// An application that uses what listens at `address`.
    pub fn of(address: SocketAddr) -> App {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(address).unwrap();
        App { socket }
    }

    pub fn send(&self, datagram: &[u8]) {
        // An error here is what ICMP said about an earlier datagram, while the other end is away.
        let _ = self.socket.send(datagram);
    }

    /// The next datagram, if one comes in time.
    pub fn receive(&self, within: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + within;
        let mut buffer = vec![0; 65_536];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            match self.socket.recv(&mut buffer) {
                Ok(len) => return Some(buffer[..len].to_vec()),
                // What ICMP says of an earlier datagram; a process that was stopped and goes on.
                Err(error) if matches!(error.kind(), ConnectionRefused | Interrupted) => {}
                Err(_) => return None,
            }
        }
    }

    /// Sends and returns what comes back.
    #[track_caller]
    pub fn ask(&self, datagram: &[u8]) -> Vec<u8> {
        self.send(datagram);
        self.receive(PATIENCE).expect("an answer comes back")
    }

    /// Sends datagrams, one every millisecond, until one of them comes back: how long that took.
    #[track_caller]
    pub fn until_answered(&self) -> Duration {
        // Answers to earlier calls may still be on their way: they do not count.
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let datagram = CALLS.fetch_add(1, Relaxed).to_le_bytes();
        let begin = Instant::now();
        loop {
            self.send(&datagram);
            while let Some(answer) = self.receive(Duration::from_millis(1)) {
                if answer == datagram {
                    return begin.elapsed();
                }
            }
            assert!(begin.elapsed() < PATIENCE, "nothing comes back");
        }
    }
}

/// A port of loopback that nothing listens on, below those that the kernel deals out: nobody else
/// takes it meanwhile.
pub fn unused_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id() * 97 + TAKEN.fetch_add(1, Relaxed);
        let port = u16::try_from(20_000 + number % 12_000).unwrap();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A bridge to `to` on any free port: the program `mptunnel bridge`.
pub fn bridge(world: &World, to: SocketAddr, args: &[&str]) -> Program {
    let to = to.to_string();
    let words = ["bridge", "--listen", "127.0.0.1:0", "--to", to.as_str()];
    world.start(MPTUNNEL, &[&words, args].concat())
}

/// Whether the file can be read by its owner only.
pub fn is_private(path: &Path) -> bool {
    fs::metadata(path).unwrap().permissions().mode() & 0o777 == 0o600
}
