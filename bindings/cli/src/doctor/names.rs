// SPDX-License-Identifier: BSD-2-Clause
//! Names: which addresses they have, of which family, and how long that takes to find out.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use mptunnel_core::options::HostPort;

use super::report::Finding;

/// A lookup that takes longer delays each start and each new address.
const SLOW: Duration = Duration::from_secs(1);
/// glibc asks each of up to three servers twice, for 5 s each (resolv.conf(5)); nobody waits for
/// all of that.
const PATIENCE: Duration = Duration::from_secs(6);

/// The addresses of each host, by name; none for one that does not resolve.
pub(crate) type Addresses = BTreeMap<String, Vec<IpAddr>>;

/// A lookup that is over, or not in time.
struct Lookup {
    host: String,
    took: Duration,
    /// `None`: no answer yet.
    outcome: Option<io::Result<Vec<IpAddr>>>,
}

/// Looks all names up side by side. Addresses need no looking up, and no finding.
pub(crate) fn resolve<'a>(
    places: impl IntoIterator<Item = &'a HostPort>,
) -> (Addresses, Vec<Finding>) {
    let mut addresses = Addresses::new();
    let mut lookups = Vec::new();
    for place in places {
        if addresses.contains_key(place.host()) {
            continue;
        }
        let known = place.socket_addr();
        addresses.insert(place.host().to_owned(), known.iter().map(SocketAddr::ip).collect());
        if known.is_none() {
            lookups.push((place.host().to_owned(), start(place.clone())));
        }
    }
    let begin = Instant::now();
    let mut findings = Vec::new();
    for (host, answer) in lookups {
        let lookup = match answer.recv_timeout(PATIENCE.saturating_sub(begin.elapsed())) {
            Ok((outcome, took)) => Lookup { host, took, outcome: Some(outcome) },
            Err(_) => Lookup { host, took: begin.elapsed(), outcome: None },
        };
        findings.push(judge(&lookup));
        if let Some(Ok(found)) = lookup.outcome {
            addresses.insert(lookup.host, found);
        }
    }
    (addresses, findings)
}

type Answer = (io::Result<Vec<IpAddr>>, Duration);

/// Looks one name up on a thread of its own, which is not waited for.
fn start(place: HostPort) -> Receiver<Answer> {
    let (sender, receiver) = channel();
    let begin = Instant::now();
    let look_up = move || {
        let found = (place.host(), place.port()).to_socket_addrs();
        let mut ips: Vec<IpAddr> = Vec::new();
        let found = found.map(|all| {
            for ip in all.map(|address| address.ip()) {
                if !ips.contains(&ip) {
                    ips.push(ip);
                }
            }
            ips
        });
        // Nobody may be waiting any more.
        let _ = sender.send((found, begin.elapsed()));
    };
    // Without a thread the sender is gone, which counts as no answer.
    let _ = thread::Builder::new().name("lookup".to_owned()).spawn(look_up);
    receiver
}

fn judge(lookup: &Lookup) -> Finding {
    let host = lookup.host.clone();
    let ms = lookup.took.as_millis();
    match &lookup.outcome {
        None => Finding::fault(
            host,
            format!("no answer from the name server within {} s", lookup.took.as_secs().max(1)),
            "check the servers in /etc/resolv.conf, or give an address in place of the name",
        ),
        Some(Err(error)) => Finding::fault(
            host,
            format!("does not resolve ({})", cause(error)),
            "check the spelling and the name server, or give an address in place of the name",
        ),
        Some(Ok(found)) if found.is_empty() => Finding::fault(
            host,
            "has no address",
            "give the name an A or AAAA record, or give an address in place of it",
        ),
        Some(Ok(found)) => {
            let family = |six| {
                let list: Vec<String> = found
                    .iter()
                    .filter(|ip| ip.is_ipv6() == six)
                    .map(ToString::to_string)
                    .collect();
                let name = if six { "IPv6" } else { "IPv4" };
                match list.is_empty() {
                    true => format!("no {name}"),
                    false => format!("{name} {}", list.join(", ")),
                }
            };
            let text = format!("{}; {} ({ms} ms)", family(false), family(true));
            if lookup.took > SLOW {
                return Finding::warning(
                    host,
                    format!("slow: {text}"),
                    "remove the name server that does not answer from /etc/resolv.conf, or give \
                     an address",
                );
            }
            Finding::ok(host, text)
        }
    }
}

/// What getaddrinfo(3) said, without what every such error begins with.
fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::report::Level;
    use super::*;

    fn lookup(ms: u64, outcome: Option<io::Result<&[&str]>>) -> Finding {
        let parse = |ips: &[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect();
        judge(&Lookup {
            host: "a.example".to_owned(),
            took: Duration::from_millis(ms),
            outcome: outcome.map(|outcome| outcome.map(parse)),
        })
    }

    #[test]
    fn both_families_are_told_and_slowness_is_warned_of() {
        let fine = lookup(12, Some(Ok(&["192.0.2.1", "2001:db8::1"])));
        assert_eq!(fine.text, "IPv4 192.0.2.1; IPv6 2001:db8::1 (12 ms)");
        assert_eq!(fine.level, Level::Ok);
        assert_eq!(lookup(3, Some(Ok(&["::1"]))).text, "no IPv4; IPv6 ::1 (3 ms)");
        assert_eq!(lookup(5_001, Some(Ok(&["192.0.2.1"]))).level, Level::Warning);
        assert_eq!(lookup(6_000, None).level, Level::Fault);
        assert_eq!(lookup(1, Some(Ok(&[]))).level, Level::Fault);
    }

    #[test]
    fn addresses_are_taken_as_they_are() {
        let place: HostPort = "192.0.2.1:9".parse().unwrap();

        let (addresses, findings) = resolve([&place, &place]);

        assert_eq!(addresses["192.0.2.1"], ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert!(findings.is_empty());
    }
}
