// SPDX-License-Identifier: BSD-2-Clause
//! The list of clients that a server with static keys lets in.

use std::path::Path;

use super::error::EntryProblem;
use super::{Key, KeyFileError, Privacy, Secrecy, decode, lines, read_key, read_text};

/// One client that a server lets in.
pub struct AllowedKey {
    /// Its static public key.
    pub public: [u8; 32],
    /// A key shared with this client alone, mixed into the handshake.
    pub psk: Option<Key>,
    /// What logs and statistics call it.
    pub name: Option<String>,
    /// The line of the file, from 1.
    pub line: usize,
}

/// Reads a list of allowed clients: lines `PUBLIC_KEY [psk=FILE] [name=TEXT]`. A relative `FILE` is
/// relative to the directory of the list. The list itself is no secret, but nobody else may write
/// to it. It may be empty: then nobody is let in.
///
/// # Errors
///
/// The list or one of its key files cannot be read, has the wrong permissions or is malformed, or a
/// key is in it twice.
pub fn read_allowed_keys(path: &Path, privacy: Privacy) -> Result<Vec<AllowedKey>, KeyFileError> {
    let text = read_text(path, privacy, Secrecy::Public)?;
    let mut clients: Vec<AllowedKey> = Vec::new();
    for (line, words) in lines(&text) {
        let problem = |problem| KeyFileError::Entry { path: path.to_owned(), line, problem };
        let mut words = words.split_whitespace();
        let public = words.next().and_then(decode).ok_or(problem(EntryProblem::PublicKey))?;
        if let Some(first) = clients.iter().find(|client| client.public == *public) {
            return Err(problem(EntryProblem::Duplicate { first: first.line }));
        }
        let mut client = AllowedKey { public: *public, psk: None, name: None, line };
        for word in words {
            match word.split_once('=') {
                Some(("psk", _)) if client.psk.is_some() => {
                    return Err(problem(EntryProblem::Repeated { word: "psk" }));
                }
                Some(("name", _)) if client.name.is_some() => {
                    return Err(problem(EntryProblem::Repeated { word: "name" }));
                }
                Some(("psk", file)) if !file.is_empty() => {
                    let file = path.parent().unwrap_or(Path::new("")).join(file);
                    client.psk = Some(read_key(&file, privacy)?);
                }
                Some(("name", name)) if !name.is_empty() => client.name = Some(name.to_owned()),
                _ => return Err(problem(EntryProblem::Word { word: word.to_owned() })),
            }
        }
        clients.push(client);
    }
    Ok(clients)
}
