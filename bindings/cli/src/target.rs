// SPDX-License-Identifier: BSD-2-Clause
//! The address of mpserver's target, if it is given as a name: looked up at the start, and again
//! now and then, without holding up anything else.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use mptunnel_core::options::HostPort;
use mptunnel_core::relay::ServerRelay;

/// The first pause after a failure; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long an answer counts, and the longest pause.
const AGAIN: Duration = Duration::from_secs(60);

/// The thread that looks a name up. It ends after this was dropped; a lookup that hangs is not
/// waited for.
pub(crate) struct Resolver {
    _running: Option<Sender<()>>,
}

impl Resolver {
    /// Looks `target` up again and again and tells `relay`. Does nothing if it is an address.
    pub(crate) fn start(target: &HostPort, relay: &Arc<ServerRelay>) -> io::Result<Resolver> {
        if target.socket_addr().is_some() {
            return Ok(Resolver { _running: None });
        }
        let (running, over) = channel();
        let (target, relay) = (target.clone(), Arc::downgrade(relay));
        thread::Builder::new()
            .name("target".to_owned())
            .spawn(move || look_up(&target, &relay, &over))?;
        Ok(Resolver { _running: Some(running) })
    }
}

fn look_up(target: &HostPort, relay: &Weak<ServerRelay>, over: &Receiver<()>) {
    let mut known: Option<SocketAddr> = None;
    let mut pause = FIRST_PAUSE;
    let mut failing = false;
    loop {
        let wait = match resolve(target) {
            Ok(found) => {
                let address = choose(&found, known);
                let Some(relay) = relay.upgrade() else { return };
                if known != Some(address) {
                    log::info!("target {target} is at {address}");
                    relay.set_target(address);
                    known = Some(address);
                }
                (pause, failing) = (FIRST_PAUSE, false);
                AGAIN
            }
            Err(error) => {
                if !failing {
                    match known {
                        None => log::warn!(
                            "target {target} cannot be found ({error}): check the name and the \
                             name server, or give an address; trying again, datagrams are lost \
                             until then"
                        ),
                        Some(at) => log::warn!(
                            "target {target} cannot be found any more ({error}): staying at {at}"
                        ),
                    }
                }
                failing = true;
                let wait = pause;
                pause = (pause * 2).min(AGAIN);
                wait
            }
        };
        if over.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// The addresses of a name, at least one.
fn resolve(target: &HostPort) -> Result<Vec<SocketAddr>, String> {
    let found: Vec<SocketAddr> = (target.host(), target.port())
        .to_socket_addrs()
        .map_err(|error| error.to_string())?
        .collect();
    if found.is_empty() { Err("it has no address".to_owned()) } else { Ok(found) }
}

/// The address to use: the one in use if it is still among them, since name servers shuffle; else
/// an IPv4 address if there is one, because `localhost` was always 127.0.0.1 here; else the first.
fn choose(found: &[SocketAddr], known: Option<SocketAddr>) -> SocketAddr {
    let stays = known.filter(|known| found.contains(known));
    let ipv4 = || found.iter().find(|address| address.is_ipv4()).copied();
    stays.or_else(ipv4).unwrap_or(found[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(found: &[&str], known: Option<&str>) -> String {
        let found: Vec<SocketAddr> = found.iter().map(|text| text.parse().unwrap()).collect();
        choose(&found, known.map(|text| text.parse().unwrap())).to_string()
    }

    #[test]
    fn an_address_in_use_stays_as_long_as_the_name_has_it() {
        assert_eq!(chosen(&["192.0.2.1:1", "192.0.2.2:1"], Some("192.0.2.2:1")), "192.0.2.2:1");
        assert_eq!(chosen(&["192.0.2.1:1", "192.0.2.2:1"], Some("192.0.2.3:1")), "192.0.2.1:1");
        assert_eq!(chosen(&["192.0.2.1:1", "[::1]:1"], Some("[::1]:1")), "[::1]:1");
    }

    #[test]
    fn a_name_with_both_families_is_used_by_its_ipv4_address() {
        assert_eq!(chosen(&["[::1]:9", "127.0.0.1:9"], None), "127.0.0.1:9");
        assert_eq!(chosen(&["[::1]:9", "[::2]:9"], None), "[::1]:9");
    }
}
