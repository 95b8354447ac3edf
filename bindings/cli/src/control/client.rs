// SPDX-License-Identifier: BSD-2-Clause
//! How the tools talk to a running mpclient or mpserver.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::place::{PlaceError, Places, sockets_in};
use crate::exit::Exit;

/// How long a program may take to answer: it does in milliseconds unless it is stopped.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer: 64 MiB are 50,000 paths.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Which running program is meant.
#[derive(Args, Clone, Debug, Default)]
pub struct Which {
    /// Which program: its process id, `mpclient`, `mpserver`, or its control socket
    ///
    /// Not needed as long as only one runs.
    #[arg(long, global = true, value_name = "PROGRAM")]
    pub control: Option<String>,
}

/// Why a running program was not seen or not changed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is none.
    #[error("{}", none_found(.which, .hidden))]
    NotRunning {
        /// What was asked for.
        which: Option<String>,
        /// Directories that cannot be looked into.
        hidden: Vec<PathBuf>,
    },
    /// There are several.
    #[error("{}", several(.0))]
    Several(Vec<Found>),
    /// Nobody answers at the socket.
    #[error("cannot reach {}{}", .path.display(), hint(.source))]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The program closed the connection: it ended.
    #[error("{0} has ended")]
    Ended(String),
    /// The connection, the terminal or the output failed.
    #[error("the program does not answer any more")]
    Lost(#[source] io::Error),
    /// It answered with something else than was asked for.
    #[error("the program answers in a way that this version does not understand: {0}")]
    Strange(String),
    /// Nobody was asked: what was typed is wrong, for the reason in the text.
    #[error("{0}")]
    Usage(String),
    /// It did not do it, for the reason in the text.
    #[error("{text}")]
    Refused {
        /// Why.
        text: String,
        /// Whether the request was wrong and will stay so.
        is_usage: bool,
    },
}

impl ControlError {
    /// The exit status that tells this error.
    pub fn exit(&self) -> Exit {
        match self {
            ControlError::NotRunning { .. } | ControlError::Unreachable { .. } => Exit::NotRunning,
            ControlError::Several(_)
            | ControlError::Usage(_)
            | ControlError::Refused { is_usage: true, .. } => Exit::Usage,
            _ => Exit::Failure,
        }
    }
}

/// A running program.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its control socket.
    pub path: PathBuf,
    /// What it says of itself.
    pub about: Value,
}

impl Found {
    fn pid(&self) -> String {
        self.about["pid"].to_string()
    }

    fn program(&self) -> &str {
        self.about["program"].as_str().unwrap_or("?")
    }
}

/// A connection to a running program.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
    /// What the program says of itself.
    pub about: Value,
}

impl Connection {
    /// Connects to the program that is meant.
    ///
    /// # Errors
    ///
    /// There is none, there are several, or it does not answer.
    pub fn find(which: &Which) -> Result<Connection, ControlError> {
        Connection::find_in(which.control.as_deref(), None, &Places::of_process())
    }

    /// Connects to the mpclient that is meant: a single one is, however many mpservers run.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub fn find_client(which: &Which) -> Result<Connection, ControlError> {
        let only = Some("mpclient");
        Connection::find_in(which.control.as_deref(), only, &Places::of_process())
    }

    fn find_in(
        which: Option<&str>,
        only: Option<&str>,
        places: &Places,
    ) -> Result<Connection, ControlError> {
        if let Some(path) = which.filter(|which| which.contains('/') || Path::new(which).exists()) {
            return Connection::open(Path::new(path));
        }
        let (mut found, mut hidden) = (Vec::new(), Vec::new());
        for directory in places.all() {
            match sockets_in(&directory) {
                // One that is gone by now, or that was left behind, is none.
                Ok(sockets) => found.extend(sockets.iter().filter_map(|path| {
                    let connection = Connection::open(path).ok()?;
                    Some((
                        Found { path: path.clone(), about: connection.about.clone() },
                        connection,
                    ))
                })),
                Err(PlaceError::Directory(directory, _)) => hidden.push(directory),
                Err(error) => log::warn!("{error}"),
            }
        }
        if let Some(which) = which {
            found.retain(|(program, _)| program.pid() == which || program.program() == which);
        } else if let Some(only) = only
            && found.iter().any(|(program, _)| program.program() == only)
        {
            found.retain(|(program, _)| program.program() == only);
        }
        match found.len() {
            0 => Err(ControlError::NotRunning { which: which.map(str::to_owned), hidden }),
            1 => Ok(found.remove(0).1),
            _ => {
                Err(ControlError::Several(found.into_iter().map(|(program, _)| program).collect()))
            }
        }
    }

    /// Connects to the program with this control socket.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn open(path: &Path) -> Result<Connection, ControlError> {
        let unreachable = |source| ControlError::Unreachable { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).map_err(unreachable)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(unreachable)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(unreachable)?;
        let mut connection = Connection { stream: BufReader::new(stream), about: Value::Null };
        connection.about = connection.ask(&json!({ "ask": "hello" }))?;
        Ok(connection)
    }

    /// Asks, and returns the answer.
    ///
    /// # Errors
    ///
    /// The program refused, or is gone.
    pub fn ask(&mut self, request: &Value) -> Result<Value, ControlError> {
        let line = format!("{request}\n");
        self.stream.get_mut().write_all(line.as_bytes()).map_err(|error| self.lost(error))?;
        let mut answer = self.line()?;
        if let Some(text) = answer.get("error").and_then(Value::as_str) {
            let is_usage = answer["kind"] == "usage";
            return Err(ControlError::Refused { text: text.to_owned(), is_usage });
        }
        match answer.get_mut("ok") {
            Some(result) => Ok(result.take()),
            None => Err(ControlError::Strange(answer.to_string())),
        }
    }

    /// Follows the events, from number `from` on or from now on: calls `each` with every one until
    /// it says that this is enough.
    ///
    /// # Errors
    ///
    /// The program refused, or is gone.
    pub fn follow(
        &mut self,
        from: Option<u64>,
        mut each: impl FnMut(&Value) -> io::Result<bool>,
    ) -> Result<(), ControlError> {
        let request = match from {
            Some(from) => json!({ "ask": "events", "from": from }),
            None => json!({ "ask": "events" }),
        };
        self.ask(&request)?;
        self.stream.get_ref().set_read_timeout(None).map_err(ControlError::Lost)?;
        loop {
            let line = self.line()?;
            if !each(&line["event"]).map_err(ControlError::Lost)? {
                return Ok(());
            }
        }
    }

    /// What an error of the connection means.
    fn lost(&self, error: io::Error) -> ControlError {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match error.kind() {
            BrokenPipe | ConnectionReset | UnexpectedEof => {
                let program = self.about["program"].as_str().unwrap_or("the program");
                let pid = self.about["pid"].as_u64().map_or(String::new(), |pid| format!(" {pid}"));
                ControlError::Ended(format!("{program}{pid}"))
            }
            _ => ControlError::Lost(error),
        }
    }

    fn line(&mut self) -> Result<Value, ControlError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(LONGEST_ANSWER);
        bounded.read_until(b'\n', &mut line).map_err(|error| self.lost(error))?;
        if line.is_empty() {
            return Err(self.lost(io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_slice(&line).map_err(|error| ControlError::Strange(error.to_string()))
    }
}

fn none_found(which: &Option<String>, hidden: &[PathBuf]) -> String {
    let mut text = match which {
        Some(which) => format!("no program {which} runs here"),
        None => "no mpclient and no mpserver runs here".to_owned(),
    };
    match hidden {
        [] => text.push_str(
            ", or none with a control socket: it has one unless it was started with --control off; \
             one that was started with --control FILE is found with --control FILE",
        ),
        hidden => {
            let names: Vec<String> = hidden.iter().map(|d| d.display().to_string()).collect();
            let _ = write!(
                text,
                " that you may look at; there may be others in {}: try it with sudo",
                names.join(", ")
            );
        }
    }
    text
}

fn several(found: &[Found]) -> String {
    let mut text = "several programs run here: choose one with --control".to_owned();
    for program in found {
        let listen = program.about["listen"].as_array().into_iter().flatten();
        let listen: Vec<&str> = listen.filter_map(Value::as_str).collect();
        let pid = program.pid();
        let _ =
            write!(text, "\n  --control {pid:<8} {} on {}", program.program(), listen.join(", "));
    }
    text
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (it belongs to another user: try it with sudo)",
        io::ErrorKind::ConnectionRefused => " (the program is gone)",
        _ => "",
    }
}
