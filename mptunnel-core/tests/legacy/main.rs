// SPDX-License-Identifier: BSD-2-Clause
//! The wire format of the classic mptunnel and the behaviour of its ends, in virtual time.

mod behaviour;
mod endpoints;
mod faults;
mod model;
mod old;
mod vectors;
mod world;
