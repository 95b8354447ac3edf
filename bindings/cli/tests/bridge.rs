// SPDX-License-Identifier: BSD-2-Clause
//! `mptunnel bridge` as a user runs it: the real program between real sockets on loopback.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real time and real sockets"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn each_of_several_peers_on_several_ports_gets_its_own_answers() {
    let echo = Echo::start();
    let six = if UdpSocket::bind("[::1]:0").is_ok() { "[::1]:0" } else { "127.0.0.1:0" };
    let bridge = Bridge::start(&format!("-l 127.0.0.1:0 -l {six} -l 0 --to {}", echo.address));
    let everywhere = SocketAddr::from(([127, 0, 0, 1], bridge.ports[2].port()));
    let peers: Vec<UdpSocket> = [bridge.ports[0], bridge.ports[0], bridge.ports[1], everywhere]
        .into_iter()
        .map(connected)
        .collect();

    for round in 0..10_u8 {
        for (peer, socket) in peers.iter().enumerate() {
            socket.send(&[round, peer as u8]).unwrap();
        }
        for (peer, socket) in peers.iter().enumerate() {
            assert_eq!(receive(socket).as_deref(), Some(&[round, peer as u8][..]));
        }
    }

    let stats = bridge.stop();
    let peers: Vec<u64> = stats.iter().map(|port| port["peers"]).collect();
    assert_eq!(peers, [2, 1, 1]);
    assert!(stats[0]["up out"] == 20 && stats[0]["down out"] == 20, "{stats:?}");
}

#[test]
fn datagrams_of_all_sizes_pass_whole_both_ways() {
    let echo = Echo::start();
    let plain = Bridge::start(&format!("-l 127.0.0.1:0 --to {}", echo.address));
    let emulated = Bridge::start(&format!("-l 127.0.0.1:0 --to {} --delay 1", echo.address));

    for bridge in [plain, emulated] {
        let peer = connected(bridge.ports[0]);
        for size in [0, 1, 1200, 1400, 1472, 9000, 60_000, 65_507] {
            let datagram: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            peer.send(&datagram).unwrap();
            assert_eq!(receive(&peer), Some(datagram), "{size} bytes");
        }
    }
}

#[test]
fn loss_takes_its_share_and_the_seed_decides_which() {
    let arrived = |words: &str| {
        let sink = Sink::start();
        let words = format!("--to {} --dir up --loss 30% --stats 0.05{words}", sink.address);
        let mut bridge = Bridge::start(&format!("-l 127.0.0.1:0 {words}"));
        let seed = bridge.await_line(" --seed ").replace("random decisions by", "");
        send_numbers(&mut bridge);
        let stats = bridge.stop().remove(0);
        let numbers = sink.stop();
        assert_eq!(stats["up in"], NUMBERS);
        assert_eq!(stats["up lost"] + stats["up out"], NUMBERS);
        assert_eq!(stats["up out"], numbers.len() as u64);
        (seed, numbers)
    };

    let first = arrived(" --seed 7");

    // 350 expected, σ = 10.
    assert!((310..390).contains(&first.1.len()), "{}", first.1.len());
    assert_eq!(first, arrived(" --seed 7"));
    assert_ne!(first.1, arrived(" --seed 8").1);
    // Without one, a bridge is unlike all others, and says how to repeat what it does.
    let any = arrived("");
    assert_eq!(any, arrived(&any.0));
    assert_ne!(any, arrived(""));
}

#[test]
fn duplication_delivers_every_datagram_twice() {
    let sink = Sink::start();
    let words = "--dir up --loss 50% --dup 100% --stats 0.05";
    let mut bridge = Bridge::start(&format!("-l 127.0.0.1:0 --to {} {words}", sink.address));

    send_numbers(&mut bridge);

    let stats = bridge.stop().remove(0);
    let numbers = sink.stop();
    assert!(numbers.chunks(2).all(|pair| pair[0] == pair[1]), "{numbers:?}");
    assert_eq!(stats["up out"], 2 * stats["up duplicated"]);
    assert_eq!(stats["up out"], numbers.len() as u64);
}

#[test]
fn corruption_changes_one_bit() {
    let echo = Echo::start();
    let words = format!("-l 127.0.0.1:0 --to {} --dir down --corrupt 1", echo.address);
    let bridge = Bridge::start(&words);
    let peer = connected(bridge.ports[0]);

    peer.send(&[0; 100]).unwrap();

    let ones: u32 = receive(&peer).unwrap().iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(ones, 1);
}

#[test]
fn delay_applies_to_each_direction_and_not_to_the_other() {
    let echo = Echo::start();
    let round_trip = |dir: &str| {
        let words = format!("-l 127.0.0.1:0 --to {} --delay 200 --dir {dir}", echo.address);
        let bridge = Bridge::start(&words);
        let peer = connected(bridge.ports[0]);
        let start = Instant::now();
        peer.send(b"ping").unwrap();
        receive(&peer).unwrap();
        start.elapsed().as_millis()
    };

    assert!(round_trip("both") >= 400);
    for way in ["up", "down"] {
        // A machine that is busy may double some, but not all of them.
        let times = std::iter::repeat_with(|| round_trip(way)).take(40);
        let quick = times.inspect(|ms| assert!(*ms >= 200, "{way}: {ms}")).find(|ms| *ms < 400);
        assert!(quick.is_some(), "{way}: as much as both");
    }
}

#[test]
fn signals_begin_and_end_a_blackout() {
    let echo = Echo::start();
    let words = format!("-l 127.0.0.1:0 --to {} --stats 0.05", echo.address);
    // With an emulated link in each direction, and without.
    for words in [format!("{words} --delay 0.1"), words] {
        let mut bridge = Bridge::start(&words);
        let peer = connected(bridge.ports[0]);
        peer.send(b"before").unwrap();
        assert!(receive(&peer).is_some());

        bridge.signal(Signal::SIGUSR1);
        bridge.await_line("blackout begins");
        peer.send(b"lost").unwrap();
        bridge.await_line(" dark=1 ");
        bridge.signal(Signal::SIGUSR2);
        bridge.await_line("blackout ends");
        peer.send(b"after").unwrap();

        assert_eq!(receive(&peer).as_deref(), Some(&b"after"[..]));
        assert_eq!(bridge.stop()[0]["up dark"], 1);
    }
}

#[test]
fn a_blackout_begins_and_ends_by_the_clock() {
    let echo = Echo::start();
    let times = "--blackhole-after 0.3 --blackhole-for 2 --stats 0.05";
    let mut bridge = Bridge::start(&format!("-l 127.0.0.1:0 --to {} {times}", echo.address));
    let peer = connected(bridge.ports[0]);

    let start = Instant::now();
    peer.send(b"start").unwrap();
    assert!(receive(&peer).is_some());
    bridge.await_line("blackout begins");
    let began = start.elapsed();
    peer.send(b"lost").unwrap();
    bridge.await_line(" dark=1 ");
    bridge.await_line("blackout ends");

    assert!(began >= Duration::from_millis(300), "{began:?}");
    peer.send(b"after").unwrap();
    assert_eq!(receive(&peer).as_deref(), Some(&b"after"[..]));
    assert_eq!(bridge.stop()[0]["up dark"], 1);
}

#[test]
fn a_destination_that_is_closed_is_counted_and_used_once_it_is_back() {
    // An address that no other test uses, so that the port stays free.
    let address = UdpSocket::bind("127.0.0.99:0").unwrap().local_addr().unwrap();
    let mut bridge = Bridge::start(&format!("-l 127.0.0.1:0 --to {address} --stats 0.05"));
    let peer = connected(bridge.ports[0]);
    for number in 1..=5 {
        peer.send(b"nobody is there").unwrap();
        bridge.await_line(&format!(" refused={number} "));
    }

    let echo = Echo::at(address);
    peer.send(b"now").unwrap();

    assert_eq!(receive(&peer).as_deref(), Some(&b"now"[..]));
    drop(echo);
    let stats = bridge.stop().remove(0);
    assert_eq!((stats["up in"], stats["up out"], stats["up refused"]), (6, 6, 5));
}

#[test]
fn a_bridge_that_was_killed_serves_the_same_peer_after_a_restart() {
    let echo = Echo::start();
    let first = Bridge::start(&format!("-l 127.0.0.98:0 --to {}", echo.address));
    let port = first.ports[0];
    let peer = connected(port);
    peer.send(b"one").unwrap();
    assert!(receive(&peer).is_some());
    drop(first);

    let _second = Bridge::start(&format!("-l {port} --to {}", echo.address));
    peer.send(b"two").or_else(|_| peer.send(b"two")).unwrap();

    assert_eq!(receive(&peer).as_deref(), Some(&b"two"[..]));
}

#[test]
fn where_one_peer_too_many_comes_the_one_idle_longest_makes_room() {
    let echo = Echo::start();
    let mut bridge =
        Bridge::start(&format!("-l 127.0.0.1:0 --to {} --max-peers 2 --delay 1", echo.address));
    let peers: Vec<UdpSocket> = (0..3).map(|_| connected(bridge.ports[0])).collect();

    for peer in &peers {
        peer.send(b"hello").unwrap();
        assert!(receive(peer).is_some());
    }

    bridge.await_line("makes room");
    peers[0].send(b"back again").unwrap();
    assert_eq!(receive(&peers[0]).as_deref(), Some(&b"back again"[..]));
    let stats = bridge.stop().remove(0);
    assert_eq!((stats["peers"], stats["up in"], stats["down out"]), (2, 4, 4));
}

#[test]
fn idle_peers_are_forgotten_with_their_sockets() {
    let echo = Echo::start();
    let mut bridge =
        Bridge::start(&format!("-l 127.0.0.1:0 --to {} --idle 1 --stats 0.1", echo.address));
    let descriptors = format!("/proc/{}/fd", bridge.child.id());
    let open = || std::fs::read_dir(&descriptors).unwrap().count();
    let before = open();
    let mut most = before;
    for _ in 0..20 {
        let peer = connected(bridge.ports[0]);
        peer.send(b"hello").unwrap();
        assert!(receive(&peer).is_some());
        most = most.max(open());
    }
    assert!(most > before);

    bridge.await_line("peers=0 rejected=0 up in=20");

    assert_eq!(open(), before);
    assert_eq!(bridge.stop()[0]["down out"], 20);
}

#[test]
fn a_bridge_that_cannot_start_says_what_to_do() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let cases = [
        (format!("-l 127.0.0.1:{port} -t 127.0.0.1:1"), 1, "choose another"),
        ("-l 127.0.0.1:0 -t name.invalid:1".to_owned(), 1, "name server"),
        ("-l 127.0.0.1:0".to_owned(), 2, "--to"),
        ("-l 127.0.0.1:0 -t 127.0.0.1:1 --loss 110%".to_owned(), 2, "0% to 100%"),
    ];

    for (words, code, advice) in cases {
        let outcome = command(&words).output().unwrap();
        let text = String::from_utf8(outcome.stderr).unwrap();
        assert_eq!(outcome.status.code(), Some(code), "{text}");
        assert!(text.contains(advice), "{text}");
    }
}

/// A running bridge. Dropping it kills the process.
struct Bridge {
    child: Child,
    /// Where it listens, in the order of the options.
    ports: Vec<SocketAddr>,
    lines: Receiver<String>,
}

impl Bridge {
    fn start(words: &str) -> Bridge {
        let mut child = command(words).spawn().unwrap();
        let (sender, lines) = channel();
        pass_lines(child.stdout.take().unwrap(), sender.clone());
        pass_lines(child.stderr.take().unwrap(), sender);
        let mut bridge = Bridge { child, ports: Vec::new(), lines };
        for _ in words.split(' ').filter(|&word| word == "-l") {
            let line = bridge.await_line("listening on");
            let address = line.split(' ').nth(2).unwrap();
            bridge.ports.push(address.parse().unwrap());
        }
        bridge
    }

    /// Waits for a line that contains `text`, on either stream.
    fn await_line(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(e) => panic!("no line with `{text}`: {e}"),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Ends the bridge as a user would, and returns the final counters of each listening port.
    fn stop(mut self) -> Vec<BTreeMap<String, u64>> {
        self.signal(Signal::SIGTERM);
        let stats = (0..self.ports.len()).map(|_| counters(&self.await_line("final"))).collect();
        assert!(self.wait().success());
        stats
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status,
                None if Instant::now() > deadline => panic!("the bridge does not end"),
                None => sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mptunnel"));
    command.arg("bridge").args(words.split(' ')).env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn pass_lines(stream: impl Read + Send + 'static, to: Sender<String>) {
    thread::spawn(move || {
        // Ends with the process, or with the test that no longer listens.
        BufReader::new(stream).lines().map_while(Result::ok).all(|line| to.send(line).is_ok())
    });
}

/// `up in=3` becomes `"up in": 3`; what precedes the directions goes by its own name.
fn counters(line: &str) -> BTreeMap<String, u64> {
    let zeros = ["lost", "dark", "refused", "duplicated"].map(|name| (format!("up {name}"), 0));
    let mut counters = BTreeMap::from(zeros);
    let mut direction = String::new();
    for word in line.split(' ') {
        match word.split_once('=') {
            Some((name, count)) => {
                counters.insert(format!("{direction}{name}"), count.parse().unwrap());
            }
            None if word == "up" || word == "down" => direction = format!("{word} "),
            None => {}
        }
    }
    counters
}

/// Sends back whatever comes, until dropped.
struct Echo {
    address: SocketAddr,
    server: Server<()>,
}

impl Echo {
    fn start() -> Echo {
        Echo::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn at(address: SocketAddr) -> Echo {
        let socket = UdpSocket::bind(address).unwrap();
        let address = socket.local_addr().unwrap();
        let server = Server::start(socket, (), |_, socket, datagram, from| {
            socket.send_to(datagram, from).unwrap();
        });
        Echo { address, server }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.server.stop();
    }
}

/// Keeps the numbers that come, as [`send_numbers`] writes them.
struct Sink {
    address: SocketAddr,
    server: Server<Vec<u32>>,
}

impl Sink {
    fn start() -> Sink {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20).unwrap();
        let address = socket.local_addr().unwrap();
        let server = Server::start(socket, Vec::new(), |numbers, _, datagram, _| {
            numbers.push(u32::from_le_bytes(datagram.try_into().unwrap()));
        });
        Sink { address, server }
    }

    /// The numbers in the order they came.
    fn stop(mut self) -> Vec<u32> {
        self.server.stop().unwrap()
    }
}

/// A thread that handles what a socket receives.
struct Server<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Server<T> {
    fn start(
        socket: UdpSocket,
        mut state: T,
        handle: impl Fn(&mut T, &UdpSocket, &[u8], SocketAddr) + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            loop {
                match socket.recv_from(&mut buffer) {
                    Ok((len, from)) => handle(&mut state, &socket, &buffer[..len], from),
                    // Everything sent before the stop is handled first.
                    Err(_) if stopping.load(Relaxed) => return state,
                    Err(_) => {}
                }
            }
        });
        Server { stop, thread: Some(thread) }
    }

    fn stop(&mut self) -> Option<T> {
        self.stop.store(true, Relaxed);
        self.thread.take().map(|thread| thread.join().unwrap())
    }
}

/// Sends the numbers below [`NUMBERS`] through a bridge that tells what it does, and waits until it
/// has taken them.
fn send_numbers(bridge: &mut Bridge) {
    let socket = connected(bridge.ports[0]);
    for number in 0..NUMBERS as u32 {
        socket.send(&number.to_le_bytes()).unwrap();
    }
    bridge.await_line(&format!(" up in={NUMBERS} "));
}

fn connected(to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(to).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Option<Vec<u8>> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = vec![0; 65_536];
    loop {
        match socket.recv(&mut buffer) {
            Ok(len) => return Some(buffer[..len].to_vec()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return None,
            // The answer to what was sent while nobody listened.
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
            Err(e) => panic!("{e}"),
        }
    }
}

/// So few that the receive buffers, 768 bytes of each for a datagram, hold them all however slow
/// the machine is.
const NUMBERS: u64 = 500;

const PATIENCE: Duration = Duration::from_secs(15);
