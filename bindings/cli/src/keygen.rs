// SPDX-License-Identifier: BSD-2-Clause
//! `mptunnel genkey`, `mptunnel pubkey` and `mptunnel genpsk`, used as those of wg(8) are.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use mptunnel_core::keyfile::{self, KeyFileError, Privacy};
use mptunnel_core::proto::crypto::{KeyError, StaticSecret};

/// Why no key came out.
#[derive(Debug, thiserror::Error)]
pub enum KeygenError {
    /// A key file cannot be read or made.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// What was read is no private key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key cannot be written to standard output.
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

#[allow(missing_docs, reason = "documentation would become the text of --help")]
#[derive(Args, Clone, Debug)]
pub struct GenerateArgs {
    /// Write to a new file that only you can read; an existing one is left untouched
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[allow(missing_docs, reason = "documentation would become the text of --help")]
#[derive(Args, Clone, Debug)]
pub struct PublicKeyArgs {
    /// File with the private key [default: standard input]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Runs `genkey` or `genpsk`: both are 32 bytes from the system's random source.
///
/// # Errors
///
/// The random source fails, the file exists or cannot be made, or `out` cannot be written to.
pub fn generate(args: &GenerateArgs, mut out: impl Write) -> Result<(), KeygenError> {
    let key = keyfile::generate()?;
    match &args.output {
        Some(file) => keyfile::create(file, &key)?,
        None => print(&key, &mut out)?,
    }
    Ok(())
}

/// Runs `pubkey`.
///
/// # Errors
///
/// The key cannot be read, or `out` cannot be written to.
pub fn public_key(
    args: &PublicKeyArgs,
    input: impl Read,
    mut out: impl Write,
) -> Result<(), KeygenError> {
    let private = match &args.file {
        Some(file) => keyfile::read_key(file, Privacy::Required)?,
        None => keyfile::read_key_from(input, Path::new("standard input"))?,
    };
    print(StaticSecret::new(*private)?.public().as_bytes(), &mut out)?;
    Ok(())
}

fn print(key: &[u8; 32], out: &mut impl Write) -> io::Result<()> {
    out.write_all(keyfile::encode(key).as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_key_is_printed_on_a_line_of_its_own_and_differs_each_time() {
        let mut printed = [Vec::new(), Vec::new()];
        for out in &mut printed {
            generate(&GenerateArgs { output: None }, out).unwrap();
        }

        assert!(printed.iter().all(|key| key.len() == 45 && key.ends_with(b"=\n")));
        assert_ne!(printed[0], printed[1]);
    }

    #[test]
    fn a_key_goes_to_a_new_file_and_never_over_an_old_one() {
        let name = format!("mptunnel-keygen-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        let args = GenerateArgs { output: Some(file.clone()) };
        let mut out = Vec::new();

        generate(&args, &mut out).unwrap();
        let first = fs::read(&file).unwrap();
        let again = generate(&args, &mut out);
        let second = fs::read(&file).unwrap();
        let key = keyfile::read_key(&file, Privacy::Required);
        fs::remove_file(&file).unwrap();

        assert!(key.is_ok());
        assert!(matches!(again, Err(KeygenError::File(KeyFileError::Exists { .. }))));
        assert_eq!(first, second);
        assert!(out.is_empty(), "a key that goes to a file is not printed as well");
    }

    /// RFC 7748, section 6.1: Alice's keys.
    #[test]
    fn the_public_key_is_that_of_x25519_and_comes_from_standard_input() {
        let private = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n";
        let mut out = Vec::new();

        public_key(&PublicKeyArgs { file: None }, private.as_bytes(), &mut out).unwrap();

        assert_eq!(out, b"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n");
    }

    #[test]
    fn what_is_no_private_key_has_no_public_one() {
        let mut out = Vec::new();

        let error = public_key(&PublicKeyArgs { file: None }, &b"secret"[..], &mut out);

        let message = error.unwrap_err().to_string();
        assert!(message.starts_with("standard input:1: not a key"), "{message}");
        assert!(out.is_empty());
    }
}
