// SPDX-License-Identifier: BSD-2-Clause
//! Errors that sockets reported, counted by path and by number.

use crate::PathId;
use crate::sync::Mutex;
use std::collections::BTreeMap;
use std::io;

/// Counters of errors. Only who met one takes the lock.
#[derive(Default)]
pub(crate) struct ErrorCounts {
    /// By path and errno; by path 0 those of no path, and of paths that are gone.
    by_path: Mutex<BTreeMap<(PathId, i32), u64>>,
}

impl ErrorCounts {
    /// Counts an error of a path; of path 0 where sockets are no path's own.
    pub(crate) fn count(&self, path: PathId, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or(0);
        *self.by_path.lock().entry((path, errno)).or_default() += 1;
    }

    /// The path is gone; its errors stay among all of them.
    pub(crate) fn forget(&self, path: PathId) {
        let mut by_path = self.by_path.lock();
        for ((of, errno), count) in std::mem::take(&mut *by_path) {
            let of = if of == path { PathId(0) } else { of };
            *by_path.entry((of, errno)).or_default() += count;
        }
    }

    /// Those of a path, by errno.
    pub(crate) fn of(&self, path: PathId) -> Vec<(i32, u64)> {
        let by_path = self.by_path.lock();
        by_path.range((path, i32::MIN)..=(path, i32::MAX)).map(|((_, e), n)| (*e, *n)).collect()
    }

    /// All errors there ever were, by errno.
    pub(crate) fn all(&self) -> Vec<(i32, u64)> {
        let mut all = BTreeMap::new();
        for ((_, errno), count) in &*self.by_path.lock() {
            *all.entry(*errno).or_default() += count;
        }
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_path_and_number_and_outlive_the_path() {
        let counts = ErrorCounts::default();
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        let unreachable = io::Error::from_raw_os_error(libc::ENETUNREACH);
        for (path, error) in [(1, &refused), (1, &refused), (1, &unreachable), (2, &refused)] {
            counts.count(PathId(path), error);
        }

        let of_1 = counts.of(PathId(1));
        counts.forget(PathId(1));

        assert_eq!(of_1, [(libc::ENETUNREACH, 1), (libc::ECONNREFUSED, 2)]);
        assert_eq!(counts.of(PathId(1)), []);
        assert_eq!(counts.of(PathId(2)), [(libc::ECONNREFUSED, 1)]);
        assert_eq!(counts.all(), [(libc::ENETUNREACH, 1), (libc::ECONNREFUSED, 3)]);
    }
}
