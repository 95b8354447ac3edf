// SPDX-License-Identifier: BSD-2-Clause
//! Files that hold keys: shared keys, private keys, passphrases, and the list of allowed clients.
//!
//! A key is 32 bytes in base64 (44 characters) on a line of its own. Blank lines and lines that
//! begin with `#` are skipped. A file that other users can read is refused, as ssh does, because
//! whoever reads the key *is* the peer. Files are created so that nobody ever sees half a key and
//! nothing is overwritten.
//!
//! Keys are wiped from memory when they are dropped. No error repeats what a file contains.

mod allowed;
mod create;
mod error;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

pub use allowed::{AllowedKey, read_allowed_keys};
pub use create::{create, create_directory, generate};
pub use error::{EntryProblem, KeyFileError};

/// A key. It is wiped when it is dropped.
pub type Key = Zeroizing<[u8; 32]>;

/// A passphrase. It is wiped when it is dropped.
pub type Passphrase = Zeroizing<String>;

/// What to do about a file that other users can read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Privacy {
    /// Refuse it.
    #[default]
    Required,
    /// Accept it: for mounted secrets whose permissions cannot be chosen.
    Ignored,
}

/// Reads the one key of a key file.
///
/// # Errors
///
/// The file cannot be read, is open to other users, or does not hold exactly one key. The message
/// names the file, the line and the remedy.
pub fn read_key(path: &Path, privacy: Privacy) -> Result<Key, KeyFileError> {
    only(path, read_keys(path, privacy)?)
}

/// Reads all keys of a file that may list several, one per line. The list is not empty and no key
/// is in it twice.
///
/// # Errors
///
/// As [`read_key`].
pub fn read_keys(path: &Path, privacy: Privacy) -> Result<Vec<Key>, KeyFileError> {
    parse_keys(path, &read_text(path, privacy, Secrecy::Secret)?)
}

/// Reads the one key that `source` holds. Messages call it `name`.
///
/// # Errors
///
/// As [`read_key`], except for the permissions.
pub fn read_key_from(source: impl Read, name: &Path) -> Result<Key, KeyFileError> {
    only(name, parse_keys(name, &read_to_end(source, name)?)?)
}

fn only(path: &Path, mut keys: Vec<Key>) -> Result<Key, KeyFileError> {
    if keys.len() > 1 {
        return Err(KeyFileError::Several { path: path.to_owned(), count: keys.len() });
    }
    keys.pop().ok_or_else(|| KeyFileError::Empty { path: path.to_owned() })
}

fn parse_keys(path: &Path, text: &str) -> Result<Vec<Key>, KeyFileError> {
    let mut keys: Vec<Key> = Vec::new();
    for (line, word) in lines(text) {
        let malformed = || KeyFileError::Malformed { path: path.to_owned(), line };
        let key = decode(word).ok_or_else(malformed)?;
        if *key == [0; 32] {
            return Err(KeyFileError::Zero { path: path.to_owned(), line });
        }
        if keys.contains(&key) {
            return Err(KeyFileError::Repeated { path: path.to_owned(), line });
        }
        keys.push(key);
    }
    if keys.is_empty() {
        return Err(KeyFileError::Empty { path: path.to_owned() });
    }
    Ok(keys)
}

/// Reads a passphrase: the first line of the file, without its line end, otherwise unchanged.
///
/// # Errors
///
/// The file cannot be read, is open to other users, is not UTF-8, or its first line has fewer than
/// [`MIN_PASSPHRASE`] characters.
pub fn read_passphrase(path: &Path, privacy: Privacy) -> Result<Passphrase, KeyFileError> {
    let text = read_text(path, privacy, Secrecy::Secret)?;
    let line = text.split('\n').next().unwrap_or_default();
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.chars().count() < MIN_PASSPHRASE {
        return Err(KeyFileError::ShortPassphrase { path: path.to_owned() });
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// `key` as 44 characters of base64.
pub fn encode(key: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(Base64::encode_string(key))
}

/// The key that `text` (44 characters of base64) stands for.
pub fn decode(text: &str) -> Option<Key> {
    if text.len() != KEY_CHARS {
        return None;
    }
    // 44 characters without padding would be 33 bytes: the decoder wants room for them.
    let mut bytes = Zeroizing::new([0; 33]);
    let key = Base64::decode(text, bytes.as_mut()).ok()?;
    Some(Zeroizing::new(key.try_into().ok()?))
}

/// Whether a file may be read by everybody and must only not be *written* by others.
#[derive(Clone, Copy, PartialEq)]
enum Secrecy {
    Secret,
    Public,
}

/// Reads a small file whose permissions are in order.
fn read_text(
    path: &Path,
    privacy: Privacy,
    secrecy: Secrecy,
) -> Result<Zeroizing<String>, KeyFileError> {
    let failed = |source| KeyFileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Asked of the open file, not of the name: nobody can swap the file in between.
    let metadata = file.metadata().map_err(failed)?;
    if privacy == Privacy::Required {
        check_permissions(path, &metadata, secrecy)?;
    }
    read_to_end(file, path)
}

fn read_to_end(source: impl Read, path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    // Room for everything that will be accepted: growing would leave copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE + 64));
    source
        .take(MAX_FILE_U64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| KeyFileError::Read { path: path.to_owned(), source })?;
    if bytes.len() > MAX_FILE {
        return Err(KeyFileError::TooLarge { path: path.to_owned() });
    }
    let text =
        std::str::from_utf8(&bytes).map_err(|_| KeyFileError::NotText { path: path.to_owned() })?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(unix)]
fn check_permissions(
    path: &Path,
    metadata: &std::fs::Metadata,
    secrecy: Secrecy,
) -> Result<(), KeyFileError> {
    use std::os::unix::fs::PermissionsExt;

    let mode = metadata.permissions().mode() & 0o7777;
    let forbidden = match secrecy {
        Secrecy::Secret => 0o066,
        Secrecy::Public => 0o022,
    };
    if mode & forbidden == 0 {
        return Ok(());
    }
    Err(match secrecy {
        Secrecy::Secret => KeyFileError::Readable { path: path.to_owned(), mode },
        Secrecy::Public => KeyFileError::Writable { path: path.to_owned(), mode },
    })
}

/// Elsewhere the permissions are not bits that could be looked at.
#[cfg(not(unix))]
fn check_permissions(_: &Path, _: &std::fs::Metadata, _: Secrecy) -> Result<(), KeyFileError> {
    Ok(())
}

/// The lines that say something, trimmed, with their numbers from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .map(str::trim)
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| (index + 1, line))
}

/// Characters of a passphrase, at least. Fewer can be guessed from one recorded handshake.
pub const MIN_PASSPHRASE: usize = 12;

/// Characters of 32 bytes in base64 with padding (RFC 4648, section 4).
const KEY_CHARS: usize = 44;

/// Bytes of the largest file that is read: some 10,000 allowed clients, and far from what
/// `/dev/zero` has to offer.
const MAX_FILE: usize = 1 << 20;
const MAX_FILE_U64: u64 = 1 << 20;

#[cfg(all(test, unix))]
mod tests;
