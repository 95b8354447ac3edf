// SPDX-License-Identifier: BSD-2-Clause
//! Why a key file could not be used.

use std::io;
use std::path::PathBuf;

/// Why a key file could not be read or made. Each message names the file, and what to do about it
/// where that is not plain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be opened or read.
    #[error("cannot read key file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Other users can read or change a secret.
    #[error(
        "key file {path} is open to other users (mode {mode:04o}): run chmod 600 {path}",
        path = path.display()
    )]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Other users can change who is allowed.
    #[error(
        "other users can write to {path} (mode {mode:04o}): run chmod go-w {path}",
        path = path.display()
    )]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line is neither a key nor a comment.
    #[error(
        "{}:{line}: not a key: expected 44 characters of base64, as mptunnel genpsk prints them",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A key of zeros only is no secret.
    #[error("{}:{line}: a key of zeros is no key: make one with mptunnel genpsk", path.display())]
    Zero {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The same key again.
    #[error("{}:{line}: this key is listed already: remove one of the two lines", path.display())]
    Repeated {
        /// The file.
        path: PathBuf,
        /// The line of the second one, from 1.
        line: usize,
    },
    /// There is no key in the file.
    #[error("key file {} holds no key: make one with mptunnel genpsk", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// There are several keys where one is wanted.
    #[error("key file {} holds {count} keys where one is expected", path.display())]
    Several {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// The passphrase is too short to be safe.
    #[error(
        "the passphrase in {} is too short: its first line needs {} characters or more",
        path.display(),
        super::MIN_PASSPHRASE
    )]
    ShortPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// A word of the list of allowed clients is not understood.
    #[error("{}:{line}: {problem}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// The file is larger than any key file.
    #[error("{} is too large for a key file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not UTF-8.
    #[error("{} is not a key file: it is not text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// The name is taken; the file was left as it is.
    #[error("{} exists already and was not touched", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file or its directory cannot be made.
    #[error("cannot {step} {}", path.display())]
    Create {
        /// What was tried, such as `create directory`.
        step: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system has no randomness to give. There is no fallback.
    #[error("the system's random source failed{}", errno(.0))]
    Random(Option<i32>),
}

/// What is wrong with a line of the list of allowed clients.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryProblem {
    /// The line does not begin with a public key.
    #[error("expected PUBLIC_KEY [psk=FILE] [name=TEXT], the key as mptunnel pubkey prints it")]
    PublicKey,
    /// A word is neither `psk=FILE` nor `name=TEXT`, or has no value.
    #[error("unknown word {word:?}: expected psk=FILE or name=TEXT")]
    Word {
        /// The word.
        word: String,
    },
    /// A word is there twice.
    #[error("{word} is given twice")]
    Repeated {
        /// The word.
        word: &'static str,
    },
    /// The same public key again.
    #[error("this key is listed already in line {first}")]
    Duplicate {
        /// The line of the first one.
        first: usize,
    },
}

fn errno(code: &Option<i32>) -> String {
    code.map_or_else(String::new, |code| format!(" ({})", io::Error::from_raw_os_error(code)))
}
