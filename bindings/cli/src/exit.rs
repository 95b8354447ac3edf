// SPDX-License-Identifier: BSD-2-Clause
//! How a program ends.

use std::error::Error;
use std::process::ExitCode;

/// Why a program ended, as its exit status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was asked to do.
    Success = 0,
    /// Something went wrong at run time: trying again may help.
    Failure = 1,
    /// Arguments, configuration or keys are wrong: trying again will not help. A service manager
    /// should not (`RestartPreventExitStatus=2` in a systemd unit).
    Usage = 2,
    /// There is no running program to look at or to change: start it first.
    NotRunning = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Tells on standard error why `program` ends, and returns `exit` for its `main`.
pub fn fail(program: &str, error: &dyn Error, exit: Exit) -> ExitCode {
    for line in describe(error).lines() {
        eprintln!("{program}: {line}");
    }
    exit.into()
}

/// An error and what caused it: `cannot read key file psk: No such file or directory (os error 2)`.
pub fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mptunnel_core::keyfile::{Privacy, read_key};

    use super::*;

    #[test]
    fn an_error_is_described_with_its_cause() {
        let error = read_key(Path::new("/nowhere/psk"), Privacy::Required).unwrap_err();

        assert_eq!(
            describe(&error),
            "cannot read key file /nowhere/psk: No such file or directory (os error 2)"
        );
    }
}
