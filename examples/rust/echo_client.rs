// SPDX-License-Identifier: BSD-2-Clause
//! Sends ten numbered datagrams over all paths, and prints what comes back.
//!
//! ```sh
//! cargo run --example echo_client -- psk bridge1.example:4000 "bridge2.example:4000 if=wwan0"
//! ```

use mptunnel_core::{Error, Tunnel};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, key_file, paths @ ..] = arguments.as_slice() else {
        return Err("usage: echo_client KEY_FILE PATH...".into());
    };
    // One path for each argument, in the words of the configuration file.
    let builder = Tunnel::builder().key_file(key_file);
    let tunnel = paths.iter().fold(builder, |b, path| b.path(&format!("to={path}"))).connect()?;
    // One path that answers is enough. The others join when they can, at any time.
    tunnel.wait_ready(Some(Duration::from_secs(5)))?;

    let mut buffer = vec![0; tunnel.max_payload()];
    for number in 1..=10 {
        tunnel.send(format!("hello {number}").as_bytes())?;
        match tunnel.recv_timeout(&mut buffer, Duration::from_secs(1)) {
            Ok(len) => println!("{}", String::from_utf8_lossy(&buffer[..len])),
            // Lost on all paths: datagrams are not sent again.
            Err(Error::TimedOut(_)) => println!("hello {number} was lost"),
            Err(error) => return Err(error.into()),
        }
    }
    for path in tunnel.paths() {
        println!("{}: sent {}, first to arrive {}", path.name, path.sent, path.wins);
    }
    Ok(())
}
