// SPDX-License-Identifier: BSD-2-Clause
//! mpclient: carry UDP applications to an mpserver over several paths at once.

fn main() -> std::process::ExitCode {
    mptunnel_cli::client::main()
}
