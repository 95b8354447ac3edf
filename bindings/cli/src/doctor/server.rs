// SPDX-License-Identifier: BSD-2-Clause
//! What concerns a server: where it listens, what it hands to, and whether it runs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mptunnel_core::Tunnel;
use mptunnel_core::keyfile::{self, Privacy};
use mptunnel_core::options::{Credentials, HostPort, PathSpec, Role, Settings};
use socket2::{Domain, Protocol, Socket, Type};

use super::host::{self, Interface};
use super::names::Addresses;
use super::report::Finding;
use super::route::{self, Query};
use crate::args::ServerArgs;

/// Whether the port can be had, or who has it: an mpserver with this key, or another program.
pub(crate) fn listen(
    args: &ServerArgs,
    settings: &Settings,
    usable_key: bool,
    wait: Duration,
) -> Vec<Finding> {
    let port = args.listen_port;
    let at = match args.listen_address {
        Some(ip) => SocketAddr::new(ip, port),
        None => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
    };
    let error = match bind(at) {
        Ok(()) => {
            return vec![Finding::ok(at.to_string(), "free; mpserver is not running there")];
        }
        Err(error) => error,
    };
    let at = at.to_string();
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => vec![who_listens(args, settings, usable_key, wait)],
        Some(libc::EACCES) => vec![Finding::fault(
            at,
            "ports below 1024 need CAP_NET_BIND_SERVICE",
            "choose a higher port, or AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit",
        )],
        Some(libc::EADDRNOTAVAIL) => vec![Finding::fault(
            at,
            "no interface has that address",
            "give the port alone to listen on all addresses",
        )],
        _ => vec![Finding::fault(at, error.to_string(), "choose another address or port")],
    }
}

/// Tries to have `at`, for a moment.
pub(crate) fn bind(at: SocketAddr) -> io::Result<()> {
    let open = |at: SocketAddr| {
        let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
        if at.is_ipv6() {
            socket.set_only_v6(!at.ip().is_unspecified())?;
        }
        socket.bind(&at.into())
    };
    match open(at) {
        // A machine without IPv6.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) && at.is_ipv6() => {
            open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), at.port()))
        }
        other => other,
    }
}

/// Asks whoever has the port for a session.
fn who_listens(
    args: &ServerArgs,
    settings: &Settings,
    usable_key: bool,
    wait: Duration,
) -> Finding {
    let here = args.listen_address.filter(|ip| !ip.is_unspecified());
    let here = SocketAddr::new(here.unwrap_or(Ipv4Addr::LOCALHOST.into()), args.listen_port);
    let subject = here.to_string();
    let Some(key) = own_key(settings).filter(|_| usable_key) else {
        return Finding::ok(
            subject,
            "in use, by mpserver as it is to be hoped; asking it needs a shared key",
        );
    };
    let path = PathSpec { to: here.to_string().parse().ok(), ..PathSpec::default() };
    let own = Settings {
        key_file: None,
        passphrase_file: None,
        private_key_file: None,
        allowed_keys_file: None,
        ..settings.clone()
    };
    let tunnel = Tunnel::builder().settings(own).key(&key).paths([path]).connect();
    let ready = tunnel
        .and_then(|tunnel| tunnel.wait_ready(Some(wait)).map(|()| tunnel.key_id().to_owned()));
    match ready {
        Ok(id) => Finding::ok(subject, format!("mpserver is running and answers with key id {id}")),
        Err(error) => Finding::fault(
            subject,
            format!("in use, and whoever has it does not answer to this key ({error})"),
            format!(
                "ss -ulpn sport = :{} tells who; if it is mpserver, it has another key: restart it",
                args.listen_port
            ),
        ),
    }
}

/// The first of the shared keys.
fn own_key(settings: &Settings) -> Option<keyfile::Key> {
    let file = match settings.credentials(Role::Server) {
        Ok(Credentials::Psk { file }) => file,
        Ok(Credentials::ServerKeys { psk_file, .. }) => psk_file?,
        _ => return None,
    };
    let privacy = match settings.allow_insecure_keys {
        true => Privacy::Ignored,
        false => Privacy::Required,
    };
    keyfile::read_keys(file, privacy).ok()?.into_iter().next()
}

/// Whether the target can be reached, without a datagram that it might take for a client's.
pub(crate) fn target(
    target: &HostPort,
    addresses: &Addresses,
    interfaces: &[Interface],
) -> Vec<Finding> {
    let subject = target.to_string();
    let ips = addresses.get(target.host()).map(Vec::as_slice).unwrap_or_default();
    // As mpserver chooses: an IPv4 address if there is one.
    let Some(ip) = ips.iter().find(|ip| ip.is_ipv4()).or(ips.first()).copied() else {
        return Vec::new();
    };
    let query = Query { to: ip, from: None, interface: None, mark: None };
    let way = match route::ask(&query) {
        Ok(way) => way,
        Err(error) => {
            let remedy = format!("ip route add {ip} via GATEWAY");
            return vec![Finding::fault(subject, format!("no route to {ip}: {error}"), remedy)];
        }
    };
    let is_own = |ip: IpAddr| {
        ip.is_loopback() || interfaces.iter().any(|interface| interface.addresses.contains(&ip))
    };
    let by = interfaces.iter().find(|interface| interface.index == way.interface);
    let by = by.map_or("?", |interface| &interface.name);
    vec![match (is_own(ip), host::is_bound(ip, target.port())) {
        (true, Some(true)) => Finding::ok(subject, "a program of this machine listens there"),
        (true, Some(false)) => Finding::warning(
            subject,
            "nothing on this machine listens there: what clients send is lost",
            format!("start the service that is to have UDP port {}", target.port()),
        ),
        _ => Finding::ok(
            subject,
            format!("to {ip} by {by}; it is not asked, since it would take that for a client"),
        ),
    }]
}

/// Whether clients may be cut off by the reverse path filter.
pub(crate) fn filters(interfaces: &[Interface]) -> Vec<Finding> {
    let outside: Vec<&Interface> = interfaces
        .iter()
        .filter(|interface| interface.up && !interface.loopback)
        .filter(|interface| interface.addresses.iter().any(IpAddr::is_ipv4))
        .collect();
    let strict: Vec<&str> =
        outside.iter().filter(|i| i.rp_filter == 1).map(|i| i.name.as_str()).collect();
    if outside.len() < 2 || strict.is_empty() {
        return vec![Finding::ok("rp_filter", "drops nothing of clients here")];
    }
    vec![Finding::warning(
        "rp_filter",
        format!(
            "strict on {}, with {} interfaces in use: a client whose packets come in by another \
             one than answers leave by is cut off",
            strict.join(", "),
            outside.len()
        ),
        format!("sysctl -w net.ipv4.conf.{}.rp_filter=2, if that is so", strict[0]),
    )]
}
