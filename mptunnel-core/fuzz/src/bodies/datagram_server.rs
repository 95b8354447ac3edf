// SPDX-License-Identifier: BSD-2-Clause
//! A server under attack: see [`hostile`](super::hostile).

use super::hostile::{self, Victim};

pub fn run(data: &[u8]) {
    hostile::run(Victim::Server, data);
}

pub fn seeds() -> Vec<Vec<u8>> {
    hostile::seeds(Victim::Server)
}
