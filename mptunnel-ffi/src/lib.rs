// SPDX-License-Identifier: BSD-2-Clause
//! The C interface, described in `include/mptunnel.h`, which is made from these files.
//!
//! - One file for each C type. `boundary.rs` is around every entry point, `registry.rs` behind
//!   every handle, `status.rs` has the numbers.
//! - A handle is not a pointer to anything: it is a number that is never used twice, and the table
//!   in `registry.rs` knows which ones are open. So a handle that was closed, that was never one,
//!   or that is of another type is an error and not a crash.
//! - What an entry point is given is checked before anything is done, and out-pointers are written
//!   last.

#![allow(
    non_camel_case_types,
    clippy::missing_safety_doc,
    reason = "these are the names of C, and the header says once what all pointers have to be"
)]

mod boundary;
mod callback;
mod config;
mod endpoint;
mod event;
mod list;
mod message;
mod path;
mod pointer;
mod registry;
mod stats;
mod status;
mod version;

#[cfg(feature = "inject-panic")]
pub use boundary::mpt_inject_panic;
pub use boundary::mpt_last_error;
pub use callback::{mpt_log_fn, mpt_socket_hook};
pub use config::*;
pub use endpoint::*;
pub use event::*;
pub use list::*;
pub use message::*;
pub use path::*;
pub use stats::*;
pub use status::{mpt_status, mpt_strerror};
pub use version::*;
