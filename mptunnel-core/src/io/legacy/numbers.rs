// SPDX-License-Identifier: BSD-2-Clause
//! The numbers of what is sent, and the file that keeps them over a restart.
//!
//! The file holds one number in decimal: no number above it was ever used. It is locked for as long
//! as the end lives, because two that share it would make each other's datagrams duplicates.

use crate::Error;
use crate::io::sys;
use crate::legacy::{Counter, LAST, NEAR_THE_END, Refusal};
use crate::sync::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What an orderly end adds to the last number used, for senders that were not done yet.
const IN_FLIGHT: u32 = 1 << 10;

/// The counter of one end.
pub(super) struct Numbers {
    counter: Counter,
    file: Option<Mutex<StateFile>>,
    warned: AtomicBool,
}

struct StateFile {
    file: File,
    path: PathBuf,
    /// What is in it.
    last: u32,
}

impl Numbers {
    /// Goes on where `path` says; without one from 1.
    pub(super) fn open(path: Option<&Path>) -> Result<Numbers, Error> {
        let file = path.map(StateFile::open).transpose()?;
        let counter = Counter::after(file.as_ref().map_or(0, |file| file.last));
        if file.is_none() {
            counter.reserve(LAST);
            log::warn!(
                target: "mptunnel::legacy",
                "there is no legacy-state: after a restart of this end a classic peer ignores it \
                 until the peer is restarted as well; name a file that this end may write"
            );
        }
        let numbers =
            Numbers { counter, file: file.map(Mutex::new), warned: AtomicBool::new(false) };
        // An unusable file is told now, and not at the first datagram.
        if numbers.top_up() { Ok(numbers) } else { Err(numbers.cannot_write()) }
    }

    /// The next number.
    #[inline]
    pub(super) fn take(&self) -> Result<u32, Error> {
        match self.counter.take() {
            Ok(id) => Ok(id),
            Err(Refusal::UsedUp) => Err(Error::Unsupported(USED_UP)),
            Err(Refusal::Unreserved) => self.take_of_next_block(),
        }
    }

    #[cold]
    fn take_of_next_block(&self) -> Result<u32, Error> {
        // Other threads may use the block up before this one has its turn.
        while self.top_up() {
            match self.counter.take() {
                Ok(id) => return Ok(id),
                Err(Refusal::UsedUp) => return Err(Error::Unsupported(USED_UP)),
                Err(Refusal::Unreserved) => {}
            }
        }
        Err(self.cannot_write())
    }

    /// Reserves the next block if it is time, and warns if there are few left; `false` if it cannot
    /// be written down. May wait for the disk: for the thread that keeps time.
    pub(super) fn top_up(&self) -> bool {
        if self.counter.used() >= NEAR_THE_END && !self.warned.swap(true, Relaxed) {
            log::warn!(
                target: "mptunnel::legacy",
                "the classic protocol counts to 2^31 and then stops: {} datagrams are left of this \
                 direction. Restart both ends in the next hours, this one with another legacy-state",
                LAST - self.counter.used()
            );
        }
        let (Some(_), Some(file)) = (self.counter.wants(), &self.file) else { return true };
        let mut file = file.lock();
        // Asked again: another thread may have done it meanwhile.
        let Some(last) = self.counter.wants() else { return true };
        let written = file.write(last);
        match &written {
            Ok(()) => self.counter.reserve(last),
            Err(error) => log::error!(
                target: "mptunnel::legacy", "cannot write {}: {error}", file.path.display()
            ),
        }
        written.is_ok()
    }

    /// Writes down what was really used: an orderly end costs no block.
    pub(super) fn close(&self) {
        if let Some(file) = &self.file {
            let mut file = file.lock();
            let used = self.counter.used().saturating_add(IN_FLIGHT).min(file.last);
            let _ = file.write(used);
        }
    }

    fn cannot_write(&self) -> Error {
        let path = self.file.as_ref().map_or_else(PathBuf::new, |file| file.lock().path.clone());
        Error::Config(format!("legacy-state: cannot write {}", path.display()))
    }
}

const USED_UP: &str = "the classic protocol cannot count any further: restart both ends, this one \
                       with another file as legacy-state";

impl StateFile {
    fn open(path: &Path) -> Result<StateFile, Error> {
        let failed = |why: &str| Error::Config(format!("legacy-state: {}: {why}", path.display()));
        let told = |error: io::Error| failed(&error.to_string());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(told)?;
        if !sys::lock_file(file.as_fd()).map_err(told)? {
            return Err(failed("another end uses it: each needs a file of its own"));
        }
        let mut text = String::new();
        (&mut file).take(64).read_to_string(&mut text).map_err(told)?;
        let last = match text.trim() {
            "" => 0,
            number => number.parse().ok().filter(|last| *last <= LAST).ok_or_else(|| {
                failed("this is not what an mptunnel wrote: name another file, or remove it")
            })?,
        };
        Ok(StateFile { file, path: path.to_owned(), last })
    }

    /// One write of always the same length, so that there is never a half of a number.
    fn write(&mut self, last: u32) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(format!("{last:>10}\n").as_bytes())?;
        self.file.sync_data()?;
        self.last = last;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::legacy::BLOCK;
    use std::fs;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let name = format!("mptunnel-numbers-{}-{name}", std::process::id());
            Place(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn after_a_crash_the_next_process_goes_on_above_the_block() {
        let place = Place::new("crash");
        let numbers = Numbers::open(Some(&place.0)).unwrap();
        assert_eq!((numbers.take().unwrap(), numbers.take().unwrap()), (1, 2));
        drop(numbers);

        assert_eq!(Numbers::open(Some(&place.0)).unwrap().take().unwrap(), BLOCK + 1);
    }

    #[test]
    fn after_an_orderly_end_next_to_nothing_is_lost() {
        let place = Place::new("end");
        let numbers = Numbers::open(Some(&place.0)).unwrap();
        for _ in 0..5_000 {
            numbers.take().unwrap();
        }
        numbers.close();
        drop(numbers);

        assert_eq!(Numbers::open(Some(&place.0)).unwrap().take().unwrap(), 5_001 + IN_FLIGHT);
    }

    #[test]
    fn many_threads_take_numbers_across_blocks_and_none_twice() {
        let place = Place::new("threads");
        let numbers = Numbers::open(Some(&place.0)).unwrap();
        let mut all: Vec<u32> = std::thread::scope(|scope| {
            let take = || (0..BLOCK).map(|_| numbers.take().unwrap()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        all.sort_unstable();
        let taken = all.len();
        all.dedup();

        assert_eq!(all.len(), taken);
        let written: u32 = fs::read_to_string(&place.0).unwrap().trim().parse().unwrap();
        assert!(*all.last().unwrap() <= written);
    }

    #[test]
    fn a_file_in_use_or_of_somebody_else_is_refused() {
        let place = Place::new("refused");
        let first = Numbers::open(Some(&place.0)).unwrap();
        let error = |place: &Place| Numbers::open(Some(&place.0)).err().unwrap().to_string();
        assert!(error(&place).contains("another end uses it"), "{}", error(&place));
        drop(first);

        fs::write(&place.0, "precious text").unwrap();
        assert!(error(&place).contains("not what an mptunnel wrote"), "{}", error(&place));
        assert_eq!(fs::read_to_string(&place.0).unwrap(), "precious text");
        assert!(error(&Place("/nowhere/at/all".into())).contains("No such file"));
    }

    #[test]
    fn at_the_end_of_all_numbers_sending_is_refused_with_the_reason() {
        let place = Place::new("last");
        fs::write(&place.0, format!("{}\n", LAST - 1)).unwrap();
        let numbers = Numbers::open(Some(&place.0)).unwrap();

        assert_eq!(numbers.take().unwrap(), LAST);
        for _ in 0..3 {
            let error = numbers.take().unwrap_err().to_string();
            assert!(error.contains("cannot count any further"), "{error}");
        }
    }
}
