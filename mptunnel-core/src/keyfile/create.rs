// SPDX-License-Identifier: BSD-2-Clause
//! Making keys and their files.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Key, KeyFileError, encode};

/// 32 bytes from the system's random source: a shared key, or a private key.
///
/// # Errors
///
/// The random source failed. There is no fallback.
pub fn generate() -> Result<Key, KeyFileError> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(key.as_mut()).map_err(|error| KeyFileError::Random(error.raw_os_error()))?;
    Ok(key)
}

/// Makes the file `path` with the key in it, readable for its owner only.
///
/// The key is written and synced under another name in the same directory and then linked to its
/// own, which fails if that name exists. So a reader sees the whole key or no file, a crash leaves
/// no half of one, and of several processes that do this at the same time exactly one succeeds.
///
/// # Errors
///
/// [`KeyFileError::Exists`] if there is something of that name, which is left untouched; another
/// one if the directory cannot be written to, or its file system has no hard links.
pub fn create(path: &Path, key: &[u8; 32]) -> Result<(), KeyFileError> {
    let failed = |step| move |source| KeyFileError::Create { step, path: path.to_owned(), source };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let draft = Draft(directory.join(draft_name()?));
    let mut text = encode(key);
    text.push('\n');
    let mut file = private().open(&draft.0).map_err(failed("create key file"))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed("write key file"))?;
    fs::hard_link(&draft.0, path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: path.to_owned() },
        _ => failed("create key file")(source),
    })?;
    drop(draft);
    // The name is durable only once its directory is (fsync(2)).
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("sync"))
}

/// Makes the directory `path` and those above it as far as they are missing, each for its owner
/// only. One that exists is left as it is.
///
/// # Errors
///
/// A directory cannot be made.
pub fn create_directory(path: &Path) -> Result<(), KeyFileError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| KeyFileError::Create {
        step: "create directory",
        path: path.to_owned(),
        source,
    })
}

/// A file that is removed again, whatever happens.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // It may never have been made; and if it cannot be removed, nobody could do more.
        let _ = fs::remove_file(&self.0);
    }
}

/// A name that no other process uses, not even one in another container on the same volume.
fn draft_name() -> Result<String, KeyFileError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| KeyFileError::Random(error.raw_os_error()))?;
    Ok(format!(".mptunnel-{:016x}", u64::from_le_bytes(bytes)))
}

/// Creates a file that must not exist yet (`O_EXCL`), mode 0600.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
