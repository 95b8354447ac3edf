// SPDX-License-Identifier: BSD-2-Clause
//! A client under attack: see [`hostile`](super::hostile).

use super::hostile::{self, Victim};

pub fn run(data: &[u8]) {
    hostile::run(Victim::Client, data);
}

pub fn seeds() -> Vec<Vec<u8>> {
    hostile::seeds(Victim::Client)
}
