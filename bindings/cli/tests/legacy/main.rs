// SPDX-License-Identifier: BSD-2-Clause
//! `--legacy`: our programs with the classic ones, of which `classic.py` has the rules, and with
//! each other. The minute of the classic programs is a second here.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real time and real sockets"
)]

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod lab;
mod silence;
mod talk;
