// SPDX-License-Identifier: BSD-2-Clause
//! Programs that are measured from outside: started, waited for, asked what they used, ended.

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running program; ends with this value.
pub struct Program {
    child: Child,
    name: String,
}

impl Program {
    /// Starts it, without standard input and output.
    pub fn start(command: &mut Command) -> io::Result<Program> {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = quiet.spawn();
        let name = format!("{command:?}");
        match child {
            Ok(child) => Ok(Program { child, name }),
            Err(error) => Err(io::Error::new(error.kind(), format!("{name}: {error}"))),
        }
    }

    /// Fails if it has ended by itself.
    pub fn check(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(io::Error::other(format!("{}: {status}", self.name))),
        }
    }

    /// The processor time of all its threads.
    pub fn cpu(&self) -> io::Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // "time on the processor, time waiting, slices" (proc-schedstat).
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
            nanoseconds += first.ok_or_else(|| io::Error::other("schedstat has no number"))?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// The most memory that it ever had resident, in bytes.
    pub fn peak_memory(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no VmHWM"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether `program` can be started.
pub fn installed(program: &str) -> bool {
    let mut command = Command::new(program);
    let quiet = command.arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_tells_its_time_and_its_memory_and_ends() {
        let mut program =
            Program::start(Command::new("sh").args(["-c", "while :; do :; done"])).unwrap();
        let id = program.child.id();
        while program.cpu().unwrap() < Duration::from_millis(20) {}
        assert!(program.peak_memory().unwrap() > 100 * 1024);

        program.check().unwrap();
        drop(program);

        assert!(!fs::exists(format!("/proc/{id}")).unwrap());
        assert!(Program::start(&mut Command::new("/no/such/program")).is_err());
        assert!(!installed("/no/such/program"));
    }
}
