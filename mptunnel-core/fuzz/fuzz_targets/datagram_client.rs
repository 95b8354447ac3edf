// SPDX-License-Identifier: BSD-2-Clause
#![no_main]

use mptunnel_fuzz::{bodies, write_seeds};

libfuzzer_sys::fuzz_target!(
    init: write_seeds("datagram_client"),
    |data: &[u8]| bodies::datagram_client::run(data)
);
