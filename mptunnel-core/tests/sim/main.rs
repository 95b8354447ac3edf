// SPDX-License-Identifier: BSD-2-Clause
//! Whole tunnels in virtual time: one module for each subject.

mod addresses;
mod arrivals;
mod basics;
mod chaos;
mod cipher;
mod clocks;
mod close;
mod flood;
mod idle;
mod insider;
mod limits;
mod matrix;
mod memory;
mod modes;
mod observe;
mod pace;
mod paths;
mod peers;
mod pmtu;
mod policy;
mod rekey;
mod reorder;
mod restart;
mod sizes;
mod sockets;
mod support;
mod tamper;
