// SPDX-License-Identifier: BSD-2-Clause
//! Which way each path takes out of this machine, and what stands in it.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use mptunnel_core::options::{HostPort, PathSpec};

use super::host::Interface;
use super::report::{Finding, Level};
use super::route::{self, Query, Way};

/// One path, and what was found out about it.
pub(crate) struct Path {
    pub(crate) spec: PathSpec,
    pub(crate) name: String,
    pub(crate) to: HostPort,
    /// The addresses of `to` that it may use.
    pub(crate) addresses: Vec<IpAddr>,
    /// The way to the first of these that has one.
    pub(crate) exit: Option<Exit>,
}

/// How a path leaves this machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exit {
    pub(crate) to: IpAddr,
    pub(crate) interface: Interface,
    pub(crate) source: Option<IpAddr>,
    /// Bytes of the largest packet, as far as this machine knows.
    pub(crate) mtu: u32,
}

impl Exit {
    fn new(to: IpAddr, way: &Way, source: Option<IpAddr>, interfaces: &[Interface]) -> Exit {
        let interface = interfaces.iter().find(|interface| interface.index == way.interface);
        let interface = interface.cloned().unwrap_or_default();
        let mtu = way.mtu.unwrap_or(interface.mtu);
        Exit { to, source: source.or(way.source), mtu, interface }
    }
}

/// Looks for the way of a path; what is wrong with it, or how it is.
pub(crate) fn find_exit(path: &mut Path, interfaces: &[Interface]) -> Vec<Finding> {
    let spec = &path.spec;
    if let Some(finding) = check_interface(path, interfaces) {
        return vec![finding];
    }
    if let Some(source) = spec.source
        && !interfaces.iter().any(|interface| interface.addresses.contains(&source))
    {
        return vec![Finding::fault(
            &path.name,
            format!("no interface has the address {source} (src=)"),
            format!("use one of {}, or leave src= out", list(&addresses(interfaces, source))),
        )];
    }
    let index = |name: &String| interfaces.iter().find(|i| i.name == *name).map(|i| i.index);
    let interface = spec.interface.as_ref().and_then(index);
    let mut failure = None;
    for to in &path.addresses {
        let query = Query { to: *to, from: spec.source, interface, mark: spec.mark };
        match route::ask(&query) {
            Ok(way) => {
                let exit = Exit::new(*to, &way, spec.source, interfaces);
                let findings = describe(path, &exit, interfaces);
                path.exit = Some(exit);
                return findings;
            }
            Err(error) => failure = Some((*to, error)),
        }
    }
    // A name without an address was told among the names.
    failure.iter().map(|(to, error)| no_route(path, *to, error)).collect()
}

fn check_interface(path: &Path, interfaces: &[Interface]) -> Option<Finding> {
    let name = path.spec.interface.as_ref()?;
    let fault = |text: String, remedy: String| Some(Finding::fault(&path.name, text, remedy));
    let Some(interface) = interfaces.iter().find(|interface| interface.name == *name) else {
        let names: Vec<String> = interfaces.iter().map(|i| i.name.clone()).collect();
        return fault(
            format!("there is no interface {name} (if=)"),
            format!("correct if=: this machine has {}", list(&names)),
        );
    };
    if !interface.up {
        return fault(format!("{name} is down"), format!("ip link set {name} up"));
    }
    if !interface.running {
        return fault(format!("{name} has no carrier"), "plug it in, or connect it".to_owned());
    }
    if !path.addresses.is_empty() && !path.addresses.iter().any(|to| interface.has_family_of(*to)) {
        return fault(
            format!("{name} has no address of the family of {}", path.to.host()),
            format!("give it one: dhclient {name}, or ip address add ADDRESS dev {name}"),
        );
    }
    None
}

fn no_route(path: &Path, to: IpAddr, error: &io::Error) -> Finding {
    let through = path.spec.interface.as_ref().map(|name| format!(" through {name}"));
    let through = through.unwrap_or_default();
    let device = path.spec.interface.as_ref().map_or("INTERFACE", String::as_str);
    let six = if to.is_ipv6() { "-6 " } else { "" };
    if let (Some(source), Some(libc::EINVAL)) = (path.spec.source, error.raw_os_error()) {
        let text = format!("no route to {to}{through} from {source} (src=)");
        return Finding::fault(
            &path.name,
            text,
            "use an address of the interface, or leave it out",
        );
    }
    let text = match error.raw_os_error() {
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => format!("no route to {to}{through}"),
        _ => format!("no route to {to}{through}: {error}"),
    };
    let remedy = format!("ip {six}route add {to} via GATEWAY dev {device}");
    Finding::fault(&path.name, text, remedy)
}

fn describe(path: &Path, exit: &Exit, interfaces: &[Interface]) -> Vec<Finding> {
    let Exit { to, interface, .. } = exit;
    let from = exit.source.map(|source| format!(" from {source}")).unwrap_or_default();
    let text = format!("to {to} by {}{from}", interface.name);
    let holder = |source| interfaces.iter().find(|i| i.addresses.contains(&source));
    if let Some(source) = path.spec.source
        && let Some(holder) = holder(source).filter(|holder| holder.name != interface.name)
        && !interface.loopback
    {
        return vec![Finding::warning(
            &path.name,
            format!("{text}, though that address is {}'s: src= alone chooses no way", holder.name),
            format!("add if={} to the path, or a rule: ip rule add from {source}", holder.name),
        )];
    }
    vec![Finding::ok(&path.name, text)]
}

/// Which paths leave by one interface: they fail with it, all at once.
pub(crate) fn shared_exits(paths: &[Path]) -> Vec<Finding> {
    let mut users: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for path in paths {
        if let Some(exit) = path.exit.as_ref().filter(|exit| !exit.interface.loopback) {
            users.entry(&exit.interface.name).or_default().push(path.name.clone());
        }
    }
    let shared = users.into_iter().filter(|(_, names)| names.len() > 1);
    shared
        .map(|(interface, names)| {
            Finding::ok(
                interface,
                format!("{} paths leave by it and fail with it: {}", names.len(), names.join(", ")),
            )
        })
        .collect()
}

/// The interfaces whose reverse path filter drops what comes back, for each path (RFC 3704, section
/// 2.2): a strict one takes a packet only on the interface by which it would answer.
pub(crate) fn filtered_at(paths: &[Path], interfaces: &[Interface]) -> Vec<Option<String>> {
    let of_path = |path: &Path| {
        let exit = path.exit.as_ref().filter(|exit| exit.to.is_ipv4())?;
        // Answers come in where their address is, whichever way the questions left.
        let source = exit.source?;
        let entry = interfaces.iter().find(|i| i.addresses.contains(&source))?;
        if entry.rp_filter != STRICT || entry.loopback || exit.interface.loopback {
            return None;
        }
        let back = Query { to: exit.to, from: exit.source, interface: None, mark: None };
        let same = route::ask(&back).is_ok_and(|way| way.interface == entry.index);
        (!same).then(|| entry.name.clone())
    };
    paths.iter().map(of_path).collect()
}

/// What is to be said of these filters. `up`: whether a path is known to carry both ways.
pub(crate) fn judge_filters(
    paths: &[Path],
    filtered: &[Option<String>],
    up: impl Fn(usize) -> bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, (path, filter)) in paths.iter().zip(filtered).enumerate() {
        let (Some(name), Some(exit)) = (filter, &path.exit) else { continue };
        let text = format!(
            "a strict filter on {name} drops what comes back from {}: the route there is by \
             another interface",
            exit.to
        );
        let remedy = format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2");
        let level = if up(number) { Level::Warning } else { Level::Fault };
        findings.push(Finding { level, ..Finding::fault(&path.name, text, remedy) });
    }
    if findings.is_empty() && paths.iter().any(|path| path.exit.is_some()) {
        let exits = paths.iter().filter_map(|path| path.exit.as_ref());
        let text = match exits.clone().any(|exit| exit.interface.rp_filter == STRICT) {
            true => "strict, and no path is in its way",
            false => "not strict on the interfaces of the paths",
        };
        findings.push(Finding::ok("rp_filter", text));
    }
    findings
}

/// What fits each path in one packet. The MTU is asked for anew: a router may have told a smaller
/// one in between. `set`: the option `mtu`.
pub(crate) fn check_mtus(paths: &[Path], set: u16) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in paths {
        let Some(exit) = &path.exit else { continue };
        let index = Some(exit.interface.index).filter(|_| path.spec.interface.is_some());
        let query =
            Query { to: exit.to, from: exit.source, interface: index, mark: path.spec.mark };
        let learnt = route::ask(&query).ok().and_then(|way| way.mtu);
        findings.push(judge_mtu(&path.name, path.spec.mtu.unwrap_or(set), exit, learnt));
    }
    findings
}

fn judge_mtu(name: &str, set: u16, exit: &Exit, learnt: Option<u32>) -> Finding {
    let known = learnt.unwrap_or(exit.mtu);
    let interface = &exit.interface;
    let set = u32::from(set);
    if set > known && known > 0 {
        return Finding::warning(
            name,
            format!("mtu={set} has no effect: the way there takes {known} bytes"),
            "leave mtu= out: it is found out by itself",
        );
    }
    let text = match (set, known) {
        (_, 0) => "not known".to_owned(),
        (0, _) if known < interface.mtu => format!(
            "packets of up to {known} bytes: less than the {} of {}, and taken into account",
            interface.mtu, interface.name
        ),
        (0, _) => format!("packets of up to {known} bytes, as {} has it", interface.name),
        _ => format!("packets of up to {set} bytes, as mtu= says; the way there takes {known}"),
    };
    if (1..LEAST_MTU).contains(&known) {
        let why = format!("{text}; IPv6 asks for {LEAST_MTU}, and nearly all datagrams are split");
        return Finding::warning(name, why, format!("ip link set {} mtu 1500", interface.name));
    }
    Finding::ok(name, text)
}

/// The addresses of the family of `like` that packets could come from.
fn addresses(interfaces: &[Interface], like: IpAddr) -> Vec<String> {
    let all = interfaces.iter().filter(|i| !i.loopback).flat_map(|i| &i.addresses);
    all.filter(|ip| ip.is_ipv4() == like.is_ipv4()).map(ToString::to_string).collect()
}

fn list(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// Of rp_filter.
const STRICT: u8 = 1;
/// Bytes that every link with IPv6 carries (RFC 8200, section 5).
const LEAST_MTU: u32 = 1280;

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, index: u32, address: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            index,
            up: true,
            running: true,
            addresses: vec![address.parse().unwrap()],
            mtu: 1500,
            ..Interface::default()
        }
    }

    fn path(words: &str, addresses: &[&str]) -> Path {
        let spec: PathSpec = words.parse().unwrap();
        Path {
            name: spec.name.clone().unwrap_or_else(|| "p".to_owned()),
            to: spec.to.clone().unwrap(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            exit: None,
            spec,
        }
    }

    fn exit(interface: Interface) -> Exit {
        Exit { to: "198.51.100.1".parse().unwrap(), mtu: interface.mtu, source: None, interface }
    }

    #[test]
    fn an_interface_that_cannot_carry_the_path_is_told_with_the_remedy() {
        let mut ethernet = interface("eth0", 2, "192.0.2.7");
        let find = |words: &str, all: &[Interface]| {
            let mut path = path(&format!("to=b:1 {words}"), &["2001:db8::1"]);
            let finding = find_exit(&mut path, all).remove(0);
            assert_eq!(finding.level, Level::Fault);
            (finding.text, finding.remedy.unwrap())
        };

        let (text, remedy) = find("if=wwan0", &[ethernet.clone()]);
        assert_eq!(text, "there is no interface wwan0 (if=)");
        assert_eq!(remedy, "correct if=: this machine has eth0");
        let (text, _) = find("if=eth0", &[ethernet.clone()]);
        assert_eq!(text, "eth0 has no address of the family of b");
        let (text, remedy) = find("src=192.0.2.9", &[ethernet.clone()]);
        assert_eq!(text, "no interface has the address 192.0.2.9 (src=)");
        assert_eq!(remedy, "use one of 192.0.2.7, or leave src= out");
        ethernet.running = false;
        assert_eq!(find("if=eth0", &[ethernet.clone()]).0, "eth0 has no carrier");
        ethernet.up = false;
        assert_eq!(find("if=eth0", &[ethernet]).1, "ip link set eth0 up");
    }

    #[test]
    fn a_source_address_of_another_interface_is_warned_of() {
        let all = [interface("eth0", 2, "192.0.2.7"), interface("wwan0", 3, "203.0.113.9")];
        let path = path("to=b:1 src=203.0.113.9", &["198.51.100.1"]);
        let mut exit = exit(all[0].clone());
        exit.source = path.spec.source;

        let finding = describe(&path, &exit, &all).remove(0);

        assert_eq!(finding.level, Level::Warning);
        assert!(finding.text.contains("that address is wwan0's"), "{}", finding.text);
        assert!(finding.remedy.unwrap().starts_with("add if=wwan0"));
    }

    #[test]
    fn paths_that_fail_together_are_told() {
        let mut paths = ["a", "b", "c"].map(|name| path(&format!("to=b:1 name={name}"), &[]));
        for (path, name) in paths.iter_mut().zip(["eth0", "wwan0", "eth0"]) {
            path.exit = Some(exit(interface(name, 2, "192.0.2.7")));
        }

        let findings = shared_exits(&paths);

        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].subject, "eth0");
        assert_eq!(findings[0].text, "2 paths leave by it and fail with it: a, c");
    }

    #[test]
    fn an_mtu_without_effect_or_too_small_is_warned_of() {
        let level = |set, learnt| {
            let finding = judge_mtu("p", set, &exit(interface("eth0", 2, "192.0.2.7")), learnt);
            finding.level
        };

        assert_eq!(level(0, None), Level::Ok);
        assert_eq!(level(1400, None), Level::Ok);
        assert_eq!(level(9000, None), Level::Warning);
        assert_eq!(level(1500, Some(1400)), Level::Warning);
        assert_eq!(level(0, Some(1280)), Level::Ok);
        assert_eq!(level(0, Some(1279)), Level::Warning);
    }
}
