// SPDX-License-Identifier: BSD-2-Clause
//! Which endpoint a log message is about: for a host that has several and one logger.

use std::cell::Cell;

thread_local! {
    static CONTEXT: Cell<u64> = const { Cell::new(0) };
}

/// The number of this thread; 0 until one was set.
///
/// An endpoint's threads inherit that of the thread that opened it. So a logger that asks here
/// while it handles a record learns to whom the message belongs.
pub fn get() -> u64 {
    CONTEXT.get()
}

/// Sets the number of this thread, and returns the one before.
pub fn set(context: u64) -> u64 {
    CONTEXT.replace(context)
}

#[cfg(test)]
mod tests {
    use crate::io::thread;
    use std::sync::mpsc;

    #[test]
    fn a_thread_of_an_endpoint_has_the_number_of_the_thread_that_started_it() {
        let (tell, told) = mpsc::channel();
        assert_eq!(super::set(7), 0);

        thread::start("mpt-test", move || tell.send(super::get()).unwrap(), |_| ()).unwrap();
        assert_eq!(super::set(0), 7);

        assert_eq!(told.recv().unwrap(), 7);
    }
}
