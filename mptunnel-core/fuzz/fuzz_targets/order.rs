// SPDX-License-Identifier: BSD-2-Clause
#![no_main]

use mptunnel_fuzz::{bodies, write_seeds};

libfuzzer_sys::fuzz_target!(
    init: write_seeds("order"),
    |data: &[u8]| bodies::order::run(data)
);
