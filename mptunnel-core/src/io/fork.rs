// SPDX-License-Identifier: BSD-2-Clause
//! Telling a forked child from its parent.
//!
//! A child that sealed with the keys and counters it inherited would use nonces a second time. So
//! every sealing call asks first, and in the child answers "forked".

use std::io;
use std::ptr::{self, NonNull};

/// Knows whether the process is still the one that made it.
///
/// One page holds a sentinel and is marked `MADV_WIPEONFORK` (Linux 4.14, madvise(2)): the kernel
/// gives the child zeros there, whichever way the child was made, so asking costs one read of
/// memory. `pthread_atfork` would miss a bare `clone`. Where the kernel has no such mark, the
/// process id is compared, which costs a system call for each question.
///
/// A `vfork` child shares the memory and is not told apart; it may do nothing but `exec`. Nor is
/// the copy of a running virtual machine.
#[derive(Debug)]
pub struct ForkGuard {
    witness: Witness,
}

impl ForkGuard {
    /// Marks the calling process as the owner.
    ///
    /// # Errors
    /// `ENOMEM` if there is no page to be had.
    pub fn new() -> io::Result<Self> {
        let page = Page::map()?;
        let witness = match page.wipe_on_fork() {
            Ok(()) => {
                page.write(ALIVE);
                Witness::Page(page)
            }
            Err(error) => {
                log::debug!(target: "mptunnel::io", "no MADV_WIPEONFORK, using the pid: {error}");
                Witness::Pid(std::process::id())
            }
        };
        Ok(ForkGuard { witness })
    }

    /// Whether this process is a child of the one that made the guard.
    #[inline]
    pub fn is_child(&self) -> bool {
        match &self.witness {
            Witness::Page(page) => page.read() != ALIVE,
            Witness::Pid(pid) => std::process::id() != *pid,
        }
    }
}

#[derive(Debug)]
enum Witness {
    Page(Page),
    Pid(u32),
}

/// One private, anonymous, zeroed page of memory.
#[derive(Debug)]
struct Page {
    start: NonNull<u64>,
    len: usize,
}

// SAFETY: the page belongs to this value alone. It is written before the value is shared and only
// read afterwards, so any thread may read it, and any thread may be the one to unmap it.
unsafe impl Send for Page {}

// SAFETY: as above; `read` takes `&self` and nothing writes any more.
unsafe impl Sync for Page {}

impl Page {
    fn map() -> io::Result<Self> {
        // SAFETY: sysconf(3) takes no pointer.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let len = usize::try_from(size).map_err(|_| io::Error::last_os_error())?;

        // SAFETY: mmap(2) without an address to honour and without a file makes a new mapping,
        // which nothing else can refer to.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                // WIPEONFORK demands a private anonymous mapping (madvise(2)).
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap without MAP_FIXED avoids address 0");
        Ok(Page { start, len })
    }

    fn wipe_on_fork(&self) -> io::Result<()> {
        // SAFETY: start and length are those of the mapping that `self` owns; the advice changes
        // what a child finds there, not what this process does.
        let status =
            unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_WIPEONFORK) };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn write(&self, value: u64) {
        // SAFETY: the mapping is writable, aligned to a page, longer than a `u64`, and not shared
        // yet. Volatile, so that the store is in memory before any fork.
        unsafe { self.start.as_ptr().write_volatile(value) }
    }

    #[inline]
    fn read(&self) -> u64 {
        // SAFETY: the mapping is readable, aligned, initialised by the kernel, and lives as long as
        // `self`. Volatile, because the kernel changes it behind the compiler's back.
        unsafe { self.start.as_ptr().read_volatile() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: start and length are those that mmap returned, and this is the last use.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Any value but the zeros that a child finds.
const ALIVE: u64 = 0x6d70_7475_6e6e_656c;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_and_a_grandchild_know_that_they_are_not_the_owner() {
        let guard = ForkGuard::new().unwrap();
        assert!(matches!(guard.witness, Witness::Page(_)), "Linux 4.14 or newer");

        check(&guard);
    }

    #[test]
    fn comparing_process_ids_tells_a_child_as_well() {
        check(&ForkGuard { witness: Witness::Pid(std::process::id()) });
    }

    #[test]
    fn a_guard_made_in_the_child_belongs_to_the_child() {
        let code = in_child(|| match ForkGuard::new() {
            Ok(guard) if !guard.is_child() => 0,
            _ => 1,
        });

        assert_eq!(code, 0);
    }

    #[test]
    fn many_guards_come_and_go_without_leaving_mappings() {
        let before = mappings();
        for _ in 0..1_000 {
            assert!(!ForkGuard::new().unwrap().is_child());
        }
        // Other tests run beside this one and map a little, not a thousand pages.
        assert!(mappings() < before + 500, "{before} mappings before, {} after", mappings());
    }

    fn check(guard: &ForkGuard) {
        assert!(!guard.is_child());

        let code = in_child(|| {
            let grandchild = in_child(|| i32::from(!guard.is_child()));
            i32::from(!guard.is_child()) + 2 * grandchild
        });

        assert_eq!(code, 0, "1: the child, 2: the grandchild took itself for the owner");
        assert!(!guard.is_child(), "the parent is unaffected");
    }

    /// Runs `body` in a forked child and returns its exit status.
    fn in_child(body: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child only runs `body`, which takes no lock that another thread of this
        // process may have held at the fork, and leaves by `_exit`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
        if pid == 0 {
            let code = body();
            // SAFETY: ends the process at once; no destructor of the parent's values runs.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: `pid` is our child, and `status` a live local for waitpid(2) to write.
        let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
        assert_eq!(waited, pid);
        assert!(libc::WIFEXITED(status), "the child died: status {status:#x}");
        libc::WEXITSTATUS(status)
    }

    fn mappings() -> usize {
        std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
    }
}
