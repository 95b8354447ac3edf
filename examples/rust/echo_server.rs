// SPDX-License-Identifier: BSD-2-Clause
//! Sends every datagram back to the client that it came from.
//!
//! ```sh
//! mptunnel genpsk --output psk
//! cargo run --example echo_server -- 2000 psk
//! ```

use mptunnel_core::Server;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, port, key_file] = arguments.as_slice() else {
        return Err("usage: echo_server PORT KEY_FILE".into());
    };
    // From here on the library receives, on threads of its own: any number of clients.
    let server = Server::builder().key_file(key_file).port(port.parse()?).bind()?;
    println!("listening on {:?}", server.local_addrs());

    let mut buffer = vec![0; server.max_payload()];
    loop {
        // Each datagram comes once, whole and unaltered, by whichever path was the fastest.
        let (len, client) = server.recv_from(&mut buffer)?;
        match server.send_to(&buffer[..len], client) {
            Ok(()) => println!("{len} bytes back to {client}"),
            // It is lost, as any datagram may be, and the next one need not be.
            Err(error) => eprintln!("to {client}: {error}"),
        }
    }
}
