// SPDX-License-Identifier: BSD-2-Clause
//! What the programs mpclient, mpserver and mptunnel have in common. Their `main` functions are
//! thin; everything that can be tested without starting a process is here.

#![forbid(unsafe_code)]

pub mod bridge;
