// SPDX-License-Identifier: BSD-2-Clause
//! mpserver: receive what mpclients send over several paths, and hand it to a UDP service.

fn main() -> std::process::ExitCode {
    mptunnel_cli::server::main()
}
