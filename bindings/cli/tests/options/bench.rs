// SPDX-License-Identifier: BSD-2-Clause
//! One option of one program, given in one way, and a tunnel in which its effect can be seen.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use mptunnel_core::options::{OptionSpec, Place};
use serde_json::Value;

use crate::support::{MPCLIENT, MPSERVER, MPTUNNEL, PATIENCE, Program, World, output, wait_until};
use crate::wire::Wire;

/// Which of the two programs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    Client,
    Server,
}

/// Both.
pub const END: [End; 2] = [End::Client, End::Server];

impl End {
    pub fn other(self) -> End {
        match self {
            End::Client => End::Server,
            End::Server => End::Client,
        }
    }

    pub fn place(self) -> Place {
        match self {
            End::Client => Place::ClientProgram,
            End::Server => Place::ServerProgram,
        }
    }

    pub fn program(self) -> &'static str {
        match self {
            End::Client => "mpclient",
            End::Server => "mpserver",
        }
    }
}

/// How an option is given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    File,
    Flag,
    /// By this variable.
    Environment(&'static str),
    /// By `mptunnel set`, while the program runs.
    Set,
}

impl Way {
    /// All ways in which an option can be given.
    pub fn of(spec: &OptionSpec) -> Vec<Way> {
        let variable = match spec.key {
            "encrypt" | "obfuscate" => Some("MPTUNNEL_ENCRYPT"),
            "key-file" => Some("MPTUNNEL_KEY_FILE"),
            _ => None,
        };
        let live = spec.live.then_some(Way::Set);
        let ways = [Way::File, Way::Flag].into_iter();
        ways.chain(variable.map(Way::Environment)).chain(live).collect()
    }
}

/// Options and their values.
pub type Options<'a> = &'a [(&'a str, &'a str)];

/// One option of one program, given in one way.
pub struct Case {
    pub key: &'static str,
    pub end: End,
    pub way: Way,
    pub world: World,
}

impl Case {
    pub fn new(key: &'static str, end: End, way: Way) -> Case {
        Case { key, end, way, world: World::new() }
    }

    /// Starts an mpserver with these options for a service at `target`.
    pub fn server(&self, target: SocketAddr, options: Options) -> Program {
        let target = target.port().to_string();
        self.start(End::Server, "", &["127.0.0.1:0", "127.0.0.1", &target], options)
    }

    /// Starts an mpclient with these options and these lines of paths.
    pub fn client(&self, paths: &str, options: Options) -> Program {
        let listen = if self.key == "listen" { &[][..] } else { &["127.0.0.1:0"] };
        self.start(End::Client, paths, listen, options)
    }

    /// Starts a program. The option in question is given in the way in question, all others as
    /// flags.
    fn start(&self, end: End, text: &str, words: &[&str], options: Options) -> Program {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let file = format!("{}-{}.conf", end.program(), COUNT.fetch_add(1, Relaxed));
        let (mut text, mut flags, mut variable) = (text.to_owned(), Vec::new(), None);
        let mut later = None;
        for (key, value) in options {
            let way = if (*key, end) == (self.key, self.end) { self.way } else { Way::Flag };
            match way {
                Way::File => text += &format!("{key} = {value}\n"),
                Way::Flag => flags.extend([format!("--{key}"), (*value).to_owned()]),
                Way::Environment(name) => {
                    variable = Some((name, value.replace("off", "0").replace("on", "1")));
                }
                Way::Set => later = Some((*key, *value)),
            }
        }
        let file = self.world.write(&file, &text);
        let mut arguments: Vec<&str> = words.to_vec();
        if end == End::Server {
            arguments.push("--config");
        }
        arguments.push(file.to_str().unwrap());
        arguments.extend(flags.iter().map(String::as_str));
        let program = if end == End::Server { MPSERVER } else { MPCLIENT };
        let mut command = self.world.command(program, &arguments);
        command.envs(variable);
        let program = Program::start(command);
        program.port();
        if let Some((key, value)) = later {
            let pid = program.pid().to_string();
            let arguments = ["set", key, value, "--control", &pid];
            let (code, _, error) = output(self.world.command(MPTUNNEL, &arguments));
            assert_eq!(code, Some(0), "{arguments:?}: {error}");
        }
        program
    }

    /// What `mptunnel status --json` prints of a running program, without a process for that.
    pub fn status(&self, program: &Program) -> Value {
        let socket = |name| format!("run/mptunnel/{name}-{}.sock", program.pid());
        let sockets = END.map(|end| self.world.root.join(socket(end.program())));
        let mut stream = sockets.iter().find_map(|path| UnixStream::connect(path).ok()).unwrap();
        stream.write_all(b"{\"ask\":\"status\"}\n").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        answer["ok"].take()
    }

    /// Both programs, of which the one in question has the options `mine`, with `paths` between
    /// them that are up. `words` goes to every path.
    pub fn pair(&self, mine: Options, other: Options, words: &[&str]) -> Pair<'_> {
        let target = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let of = |end| if end == self.end { mine } else { other };
        let server = self.server(target.local_addr().unwrap(), of(End::Server));
        let wires: Vec<Wire> = words.iter().map(|_| Wire::to(server.address())).collect();
        let line =
            |(wire, words): (&Wire, &&str)| format!("127.0.0.1 {} {words}\n", wire.address.port());
        let paths: String = wires.iter().zip(words).map(line).collect();
        let client = self.client(&paths, of(End::Client));
        let app = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        app.connect(client.address()).unwrap();
        let pair = Pair { case: self, server, client, wires, app, target, flow: None };
        pair.server.expect_count(" is up", words.len());
        pair.client.expect_count(" is up", words.len());
        pair
    }
}

/// Both programs, an application in front of the client and a service behind the server.
pub struct Pair<'a> {
    pub case: &'a Case,
    pub server: Program,
    pub client: Program,
    pub wires: Vec<Wire>,
    pub app: UdpSocket,
    pub target: UdpSocket,
    /// Where the service answers to.
    flow: Option<SocketAddr>,
}

/// What opens a flow.
const HELLO: &[u8] = b"the first datagram";

impl Pair<'_> {
    /// The program in question.
    pub fn mine(&self) -> &Program {
        match self.case.end {
            End::Client => &self.client,
            End::Server => &self.server,
        }
    }

    /// What `mptunnel status --json` says of it.
    pub fn status(&self) -> Value {
        self.case.status(self.mine())
    }

    /// Its session, as it sees it: a member of the status of a client, or of its one client.
    pub fn session(&self) -> Value {
        let status = self.status();
        match self.case.end {
            End::Client => status,
            End::Server => status["peers"][0].clone(),
        }
    }

    /// Lets the application say something first: only then the service can send.
    pub fn open_flow(&mut self) {
        wait_until(
            || {
                let _ = self.app.send(HELLO);
                let got = receive(&self.target, Duration::from_millis(50));
                self.flow = got.map(|(_, from)| from);
                self.flow.is_some()
            },
            || "nothing arrives".to_owned(),
        );
    }

    /// Sends a datagram into the tunnel, that comes out at the side of `to`.
    pub fn send(&mut self, to: End, data: &[u8]) {
        if self.flow.is_none() {
            self.open_flow();
        }
        let sent = match to {
            End::Server => self.app.send(data),
            End::Client => self.target.send_to(data, self.flow.unwrap()),
        };
        sent.unwrap();
    }

    /// The next datagram that comes out at the side of `end`, if one comes in time.
    pub fn receive(&self, end: End, within: Duration) -> Option<Vec<u8>> {
        let socket = if end == End::Server { &self.target } else { &self.app };
        // A busy machine lets the flow be opened more than once, and the rest come late.
        let mut got = std::iter::from_fn(|| receive(socket, within)).map(|(data, _)| data);
        got.find(|data| data != HELLO)
    }

    /// Sends `data` and waits until it comes out at the side of `to`: what came out before it.
    pub fn send_through(&mut self, to: End, data: &[u8]) -> Vec<Vec<u8>> {
        self.send(to, data);
        let next = || self.receive(to, PATIENCE).expect("it comes out");
        std::iter::repeat_with(next).take_while(|got| got != data).collect()
    }

    /// Packets that the program in question has sent.
    fn sent(&self) -> u64 {
        let session = self.session();
        let paths = session["paths"].as_array().unwrap().clone();
        paths.iter().map(|path| path["sent"].as_u64().unwrap()).sum()
    }

    /// How many copies the program in question makes of a datagram, by a hundred of them.
    pub fn copies(&mut self) -> f64 {
        let to = self.case.end.other();
        let before = self.sent();
        for number in 0..100_u8 {
            self.send(to, &[number; 100]);
        }
        while self.receive(to, Duration::from_millis(50)).is_some() {}
        (self.sent() - before) as f64 / 100.0
    }

    /// Waits until the program in question makes no copies, but for some of probes and samples.
    pub fn expect_one_copy(&mut self) {
        wait_until(|| self.copies() < 1.2, || "there are more copies".to_owned());
    }

    /// Waits until so many packets came from one end one after the other, each within `gap`.
    pub fn expect_dense(&self, from: End, count: usize, gap: Duration) {
        let dense = |times: &[Instant]| times.windows(2).all(|two| two[1] - two[0] < gap);
        wait_until(
            || self.wires[0].times(from.other()).windows(count).any(dense),
            || {
                let times = self.wires[0].times(from.other());
                let gaps: Vec<_> = times.windows(2).map(|two| two[1] - two[0]).collect();
                format!("no {count} packets with less than {gap:?} between them: {gaps:?}")
            },
        );
    }
}

fn receive(socket: &UdpSocket, within: Duration) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = vec![0; 65_536];
    socket.set_read_timeout(Some(within)).unwrap();
    let (len, from) = socket.recv_from(&mut buffer).ok()?;
    buffer.truncate(len);
    Some((buffer, from))
}

/// Threads of a program whose name begins so.
pub fn threads(program: &Program, name: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap();
    let names =
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|task| task.starts_with(name)).count()
}
