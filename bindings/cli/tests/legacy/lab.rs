// SPDX-License-Identifier: BSD-2-Clause
//! Both ends, each ours or a classic one, and what lies between them.

use crate::support::{
    App, MPCLIENT, MPSERVER, PATIENCE, Program, Service, World, bridge, unused_port,
};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What a minute of the classic programs is here.
pub const MINUTE: Duration = Duration::from_millis(1_000);

/// Seconds of the classic programs in our time.
pub fn seconds(count: u32) -> Duration {
    MINUTE * count / 60
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Ours,
    Classic,
}

/// A tunnel with an echo behind it.
pub struct Lab {
    pub world: World,
    pub echo: Service,
    pub server_port: u16,
    pub client_port: u16,
    /// `MPTUNNEL_ENCRYPT` of both ends.
    pub encrypt: &'static str,
    pub config: String,
    /// What a minute is here. Who is silent for five seconds of it may be followed if he counts
    /// anew, and a machine that is busy may be late with copies by as much.
    pub minute: Duration,
    pub server: Option<Program>,
    pub client: Option<Program>,
    bridges: Vec<Program>,
}

impl Lab {
    /// Nothing runs yet.
    pub fn new(encrypt: &'static str) -> Lab {
        Lab {
            world: World::without_key(),
            echo: Service::echo(),
            server_port: unused_port(),
            client_port: unused_port(),
            encrypt,
            config: String::new(),
            minute: MINUTE,
            server: None,
            client: None,
            bridges: Vec::new(),
        }
    }

    /// Nothing runs yet, and no time has to pass: a minute is one.
    pub fn in_real_time(encrypt: &'static str) -> Lab {
        Lab { minute: Duration::from_secs(60), ..Lab::new(encrypt) }
    }

    /// Three bridges that lose so much, and both ends.
    pub fn start(self, server: Kind, client: Kind, loss: &str) -> Lab {
        let mut lab = self;
        lab.start_server(server);
        for seed in ["1", "2", "3"] {
            let words = ["--loss", loss, "--seed", seed];
            let bridge = bridge(&lab.world, lab.server_address(), &words);
            lab.config += &format!("127.0.0.1 {}\n", bridge.port());
            lab.bridges.push(bridge);
        }
        lab.start_client(client);
        lab
    }

    pub fn server_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.server_port).into()
    }

    /// A bridge of `socat`; `listen` are its words for that, such as `udp4-listen:PORT,fork`.
    pub fn socat(&mut self, options: &str) {
        let port = unused_port();
        let listen = format!("udp4-listen:{port},bind=127.0.0.1{options}");
        let to = format!("udp4:{}", self.server_address());
        let socat = self.world.start("/usr/bin/socat", &["-d", "-d", "-T", "20", &listen, &to]);
        socat.expect("listening on");
        self.config += &format!("127.0.0.1 {port}\n");
        self.bridges.push(socat);
    }

    pub fn start_server(&mut self, kind: Kind) {
        let (port, target) = (self.server_port.to_string(), self.echo.address.port().to_string());
        self.server = Some(match kind {
            Kind::Ours => {
                let at = format!("127.0.0.1:{port}");
                self.ours(MPSERVER, &[&at, "127.0.0.1", &target])
            }
            Kind::Classic => self.classic(&["server", &port, &target]),
        });
    }

    pub fn start_client(&mut self, kind: Kind) {
        let file = self.world.write("client.conf", &self.config);
        let (port, file) = (self.client_port.to_string(), file.to_str().unwrap().to_owned());
        self.client = Some(match kind {
            Kind::Ours => self.ours(MPCLIENT, &[&port, &file]),
            Kind::Classic => self.classic(&["client", &port, &file]),
        });
        // What is sent before there is a socket is lost.
        if kind == Kind::Ours {
            self.client().expect_count(" is up", self.config.matches("127.0.0.1").count());
        }
    }

    fn ours(&self, program: &str, args: &[&str]) -> Program {
        let mut command = self.world.command(program, args);
        command.arg("--legacy").arg(format!("--legacy-timeout={}ms", self.minute.as_millis()));
        command.env("MPTUNNEL_ENCRYPT", self.encrypt);
        let program = Program::start(command);
        program.port();
        program
    }

    fn classic(&self, args: &[&str]) -> Program {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/legacy/classic.py");
        let mut command = Command::new("python3");
        command.arg(script).args(args).args(["--encrypt", self.encrypt]);
        command.args(["--patience", &self.minute.as_secs_f64().to_string()]);
        let program = Program::start(command);
        program.port();
        program
    }

    /// Kills the server as a crash would, and starts it again.
    pub fn restart_server(&mut self, kind: Kind) {
        self.server.take().unwrap().kill();
        self.start_server(kind);
    }

    /// Kills the client as a crash would, and starts it again.
    pub fn restart_client(&mut self, kind: Kind) {
        self.client.take().unwrap().kill();
        self.start_client(kind);
    }

    /// An application of the client.
    pub fn app(&self) -> App {
        App::of((Ipv4Addr::LOCALHOST, self.client_port).into())
    }

    pub fn server(&self) -> &Program {
        self.server.as_ref().unwrap()
    }

    pub fn client(&self) -> &Program {
        self.client.as_ref().unwrap()
    }
}

/// Runs `test` with each of `cases` at the same time: they mostly wait.
pub fn at_once<T: Send>(cases: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    let test = &test;
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || test(case));
        }
    });
}

/// Sends one datagram and waits until it comes back.
pub fn ask(app: &App, datagram: &[u8]) {
    app.send(datagram);
    // Answers to earlier ones may still be on their way.
    let mut answers = std::iter::from_fn(|| app.receive(PATIENCE));
    assert!(answers.any(|answer| answer == datagram), "{} bytes do not come back", datagram.len());
}

/// How many of so many datagrams come back, each once.
pub fn answered(app: &App, count: u32) -> usize {
    // Answers to earlier datagrams may still be on their way: they do not count.
    static CALLS: AtomicU32 = AtomicU32::new(1);
    let call = CALLS.fetch_add(1, Relaxed).to_be_bytes();
    let mut answers = Vec::new();
    let mut take = |within| {
        let answer = app.receive(within);
        let any = answer.is_some();
        answers.extend(answer.filter(|answer| answer.len() == 8 && answer[..4] == call));
        (any, answers.len())
    };
    // Read meanwhile: the buffer of a socket holds 256 of them.
    for number in 0..count {
        app.send(&[call, number.to_be_bytes()].concat());
        take(Duration::from_millis(2));
    }
    let deadline = Instant::now() + PATIENCE;
    // What is lost never comes: the rest is there within moments.
    while Instant::now() < deadline {
        let (any, taken) = take(Duration::from_millis(500));
        if !any || taken == count as usize {
            break;
        }
    }
    let received = answers.len();
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), received, "something came twice");
    received
}
