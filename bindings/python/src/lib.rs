// SPDX-License-Identifier: BSD-2-Clause
//! The extension module behind `import mptunnel`: endpoints of mptunnel-core as Python objects.
//!
//! The package in `python/mptunnel` is what users see. It adds to this module what is easier to say
//! in Python: typed results, keyword options, asyncio, logging. Rules that all of this keeps to:
//!
//! - No thread but those of Python ever takes the interpreter: mptunnel-core calls nobody, and its
//!   log lines wait in a queue until Python fetches them (`log`).
//! - A call first tries without waiting. Only to wait, or for a batch that takes long, it lets
//!   other Python threads run (`endpoint`).
//! - The main thread waits in slices, because that is where Python handles signals.

// The clock: these are the timeouts of Python's callers, not the protocol's.
#![allow(clippy::disallowed_methods, reason = "outside mptunnel-core time is what the clock says")]

mod arguments;
mod endpoint;
mod errors;
mod info;
mod log;
mod options;
mod server;
mod transfer;
mod tunnel;

use pyo3::prelude::*;

/// The part of mptunnel that is written in Rust. Use the package `mptunnel`.
#[pymodule]
mod _mptunnel {
    #[pymodule_export]
    use crate::log::{log_fd, reset_log, set_log_level, take_log};
    #[pymodule_export]
    use crate::options::{generate_key, option_table, path_words};
    #[pymodule_export]
    use crate::server::{Peer, Server};
    #[pymodule_export]
    use crate::tunnel::Tunnel;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::log::install();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
