// SPDX-License-Identifier: BSD-2-Clause
//! `mptunnel demo`, as a user runs it.

// Tests with real processes wait for them in real time, and measure how long.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

#[test]
fn the_tunnel_beats_every_path_and_survives_what_is_killed() {
    let stage = Stage::enter();

    let outcome = stage.command(&["--seconds", "6", "--plain"]).output().unwrap();

    let text = String::from_utf8(outcome.stdout).unwrap();
    assert!(outcome.status.success(), "{text}{}", String::from_utf8_lossy(&outcome.stderr));
    assert!(text.is_ascii(), "{text}");
    let last = text.lines().last().unwrap();
    let numbers = numbers_of(
        last,
        &[
            "The tunnel delivered ",
            " % (",
            " % while it had a server) while the best single path delivered ",
            " %; it recovered ",
            " s after the server was back and ",
            " datagrams came twice.",
        ],
    );
    let [tunnel, with_server, best, recovery, twice] = numbers[..] else { panic!("{last}") };
    assert!(best < tunnel && tunnel <= with_server && with_server <= 100.0, "{last}");
    assert!(recovery <= 3.0 && twice == 0.0, "{last}");
    for line in [
        "kill -9: the bridge of path 2, in the tunnel and alone",
        "kill -9: mpserver",
        "mpclient says: the server was restarted; connected again",
        "the bridges of path 2 are back",
    ] {
        assert_eq!(text.matches(line).count(), 1, "{line}\n{text}");
    }
    // Lines of the table: all four got the same, and the tunnel removed copies.
    for (name, sent) in [("path 1 alone", 1200), ("path 2 alone", 1200), ("tunnel", 1200)] {
        let row = text.lines().rfind(|line| line.starts_with(name)).unwrap();
        assert!(row.split_whitespace().any(|word| word == sent.to_string()), "{row}");
    }
    let removed: u32 = text
        .lines()
        .rfind(|line| line.starts_with("tunnel "))
        .and_then(|row| row.split(' ').next_back()?.parse().ok())
        .unwrap();
    assert!((1200..4800).contains(&removed), "{text}");
    stage.assert_empty();
}

#[test]
fn an_interrupt_stops_all_that_was_started() {
    let stage = Stage::enter();
    let mut demo = stage.command(&["--seconds", "60", "--plain"]).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    // The traffic flows.
    assert!(lines.any(|line| line.unwrap().contains(" ms ")));

    kill(Pid::from_raw(demo.id() as i32), Signal::SIGINT).unwrap();

    let deadline = Instant::now() + Duration::from_secs(5);
    let status = loop {
        match demo.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => panic!("it does not end"),
            None => sleep(Duration::from_millis(5)),
        }
    };
    assert_eq!(status.code(), Some(1));
    assert!(errors_of(&mut demo).contains("interrupted"));
    stage.assert_empty();
}

#[test]
fn a_program_that_is_missing_is_named() {
    let stage = Stage::enter();
    let copy = stage.directory.path().join("mptunnel");
    fs::copy(env!("CARGO_BIN_EXE_mptunnel"), &copy).unwrap();

    let outcome = Command::new(&copy).arg("demo").output().unwrap();

    let text = String::from_utf8(outcome.stderr).unwrap();
    assert_eq!(outcome.status.code(), Some(1));
    let missing = copy.with_file_name("mpserver");
    assert!(text.contains(&format!("mpserver is missing: {}", missing.display())), "{text}");
    fs::remove_file(copy).unwrap();
    stage.assert_empty();
}

/// A directory for temporary files. One test at a time has one, so that none takes the machine
/// from another that measures.
struct Stage {
    directory: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Stage {
    fn enter() -> Stage {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Stage { directory: tempfile::tempdir().unwrap(), _alone: alone }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mptunnel"));
        command.arg("demo").args(words).env("TMPDIR", self.directory.path());
        // Settings of the user that the demo must not depend on.
        command.env("MPTUNNEL_ENCRYPT", "nonsense").env("RUST_LOG", "off");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Fails if there is still a file, or a process that was started with this directory.
    fn assert_empty(&self) {
        let directory = self.directory.path();
        let left: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()).collect();
        assert!(left.is_empty(), "{left:?}");
        #[cfg(target_os = "linux")]
        for process in fs::read_dir("/proc").unwrap() {
            let of_process = |name| fs::read(process.as_ref().unwrap().path().join(name));
            let environment = of_process("environ").unwrap_or_default();
            let words = of_process("cmdline").unwrap_or_default();
            assert!(!names(&environment, directory), "{}", String::from_utf8_lossy(&words));
        }
    }
}

#[cfg(target_os = "linux")]
fn names(environment: &[u8], directory: &Path) -> bool {
    let setting = format!("TMPDIR={}", directory.display());
    environment.split(|byte| *byte == 0).any(|variable| variable == setting.as_bytes())
}

/// The numbers between these texts, of which the line consists.
fn numbers_of(line: &str, texts: &[&str]) -> Vec<f64> {
    let mut rest = line.strip_prefix(texts[0]).unwrap_or_else(|| panic!("{line}"));
    let mut numbers = Vec::new();
    for text in &texts[1..] {
        let (number, after) = rest.split_once(text).unwrap_or_else(|| panic!("`{text}` in {line}"));
        numbers.push(number.parse().unwrap_or_else(|_| panic!("{number} in {line}")));
        rest = after;
    }
    assert_eq!(rest, "");
    numbers
}

fn errors_of(demo: &mut Child) -> String {
    let mut text = String::new();
    demo.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text
}
