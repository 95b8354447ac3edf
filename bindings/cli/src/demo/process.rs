// SPDX-License-Identifier: BSD-2-Clause
//! The processes of the demo, and the lines that they write.

use std::env;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::DemoError;

/// Who is who among the processes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Who {
    Server,
    Client,
    /// The bridge of the tunnel on this path.
    Bridge(usize),
    /// The bridge that carries this path alone.
    Alone(usize),
}

/// A line that a process wrote, on either stream.
#[derive(Clone, Debug)]
pub struct Line {
    pub from: Who,
    pub at: Instant,
    pub text: String,
}

/// The programs, which are installed side by side.
pub struct Programs {
    own: PathBuf,
}

impl Programs {
    /// Looks beside the program that runs.
    pub fn find() -> Result<Programs, DemoError> {
        let own = env::current_exe()
            .map_err(|source| DemoError::System { what: "find its own program file", source })?;
        for name in ["mpserver", "mpclient"] {
            let file = own.with_file_name(name);
            if !file.is_file() {
                return Err(DemoError::Missing { name, file });
            }
        }
        Ok(Programs { own })
    }

    /// A program beside the one that runs.
    pub fn sibling(&self, name: &str) -> Command {
        isolated(Command::new(self.own.with_file_name(name)))
    }

    /// `mptunnel bridge`.
    pub fn bridge(&self) -> Command {
        let mut command = Command::new(&self.own);
        command.arg("bridge");
        isolated(command)
    }
}

/// Only its arguments count, whatever the user has set.
fn isolated(mut command: Command) -> Command {
    for variable in ["MPTUNNEL_ENCRYPT", "MPTUNNEL_KEY_FILE", "RUST_LOG", "JOURNAL_STREAM"] {
        command.env_remove(variable);
    }
    command
}

/// A running process. Dropping it kills it, and waits until it is gone.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts it. Its lines go to `lines`.
    pub fn start(
        who: Who,
        mut command: Command,
        lines: &Sender<Line>,
    ) -> Result<Process, DemoError> {
        let failed = |source| DemoError::Start { name: who.to_string(), source };
        let (reader, writer) = io::pipe().map_err(failed)?;
        let child = writer.try_clone().and_then(|copy| {
            command.stdin(Stdio::null()).stdout(writer).stderr(copy);
            command.spawn()
        });
        // It holds the writing ends, and the reader would never see the end of the lines.
        drop(command);
        let process = Process { child: child.map_err(failed)? };
        let lines = lines.clone();
        let pass_on = move || {
            for text in BufReader::new(reader).lines().map_while(Result::ok) {
                // It goes on without a receiver, so that the process never waits for the pipe.
                let _ = lines.send(Line { from: who, at: Instant::now(), text });
            }
        };
        // The thread ends with the process.
        thread::Builder::new().name("lines".to_owned()).spawn(pass_on).map_err(failed)?;
        Ok(process)
    }

    /// Asks for a line of counters.
    pub fn ask_for_counters(&self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGUSR1);
        }
    }

    /// How it ended, if it did.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // With SIGKILL, so that it cannot say goodbye. Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Who::Server => write!(f, "mpserver"),
            Who::Client => write!(f, "mpclient"),
            Who::Bridge(path) => write!(f, "bridge {}", path + 1),
            Who::Alone(path) => write!(f, "bridge of path {} alone", path + 1),
        }
    }
}
