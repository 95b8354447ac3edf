// SPDX-License-Identifier: BSD-2-Clause
//! Whether the server answers, and over which paths: a short handshake through the library, under
//! no name, so that a client that runs with the same settings keeps its session.
//!
//! What can be told apart, and what cannot (PROTOCOL.md, section 1: strangers get no answer):
//!
//! | seen | it is |
//! |---|---|
//! | answers on this path | bridge and server are fine |
//! | answers on others, none here | this bridge, or the way to it |
//! | the system or ICMP objects | nothing listens there, or no way there |
//! | no answer anywhere | the server, its key, or everything in between |
//! | a refusal | the server, with its reason |

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mptunnel_core::options::{PathSpec, Settings};
use mptunnel_core::{Error, Event, PathInfo, Tunnel};

use super::paths::Path;
use super::report::Finding;
use super::touch::Touch;
use crate::ping::millis;

/// What came of a handshake.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) connected: bool,
    /// The reason of a server that refuses.
    pub(crate) refused: Option<String>,
    /// What the two ends' logs call the key.
    pub(crate) key_id: String,
    /// What the library says of each path, in the order in which they were given.
    pub(crate) paths: Vec<PathAnswer>,
    took: Duration,
    cipher: &'static str,
}

/// What came of one path.
#[derive(Clone, Debug, Default)]
pub(crate) struct PathAnswer {
    pub(crate) up: bool,
    rtt: Option<Duration>,
    /// Why it is not up, as far as the library knows.
    why: Option<String>,
}

/// Connects over `paths` and waits for answers on all of them, `wait` at most, and not for those
/// that are `hopeless`.
///
/// # Errors
/// [`Error::Config`] for a key that cannot be used, [`Error::Io`] if the system gives nothing.
pub(crate) fn ask(
    settings: &Settings,
    paths: &[PathSpec],
    hopeless: &[bool],
    wait: Duration,
) -> Result<Answer, Error> {
    // Without a name the server takes this for another client than the one that runs.
    let settings = Settings { name: None, ..settings.clone() };
    let tunnel = Tunnel::builder().settings(settings).paths(paths.iter().cloned()).connect()?;
    let begin = Instant::now();
    let mut answer = Answer { key_id: tunnel.key_id().to_owned(), ..Answer::default() };
    let mut reasons = BTreeMap::new();
    let mut infos = tunnel.paths();
    while begin.elapsed() < wait && !answer.is_final(begin, &infos, hopeless) {
        match tunnel.next_event(Some(PATIENCE_PER_STEP)) {
            Ok(Event::Connected) => (answer.connected, answer.took) = (true, begin.elapsed()),
            Ok(Event::Refused(why)) => answer.refused = Some(why),
            Ok(Event::PathDown(id, _, why)) => drop(reasons.insert(id, why)),
            Ok(_) | Err(Error::TimedOut(_)) => {}
            Err(error) => return Err(error),
        }
        infos = tunnel.paths();
    }
    answer.cipher = tunnel.stats().cipher;
    answer.paths = infos
        .iter()
        .map(|info| PathAnswer {
            up: info.up,
            rtt: info.quality.min_rtt,
            why: reasons.get(&info.id).cloned().filter(|_| !info.up),
        })
        .collect();
    Ok(answer)
}

impl Answer {
    /// Whether waiting on would bring nothing more.
    fn is_final(&self, begin: Instant, infos: &[PathInfo], hopeless: &[bool]) -> bool {
        let settled = || infos.iter().zip(hopeless).all(|(path, hopeless)| path.up || *hopeless);
        let over = self.refused.is_some() || hopeless.iter().all(|hopeless| *hopeless);
        (over && begin.elapsed() > A_MOMENT) || (self.connected && settled())
    }
}

/// What is to be said of server and bridges. `touches` belong to `paths`, as `answer.paths` does,
/// and `filtered` tells where answers are dropped here.
pub(crate) fn judge(
    paths: &[Path],
    touches: &[Touch],
    filtered: &[Option<String>],
    answer: &Answer,
    wait: Duration,
) -> Vec<Finding> {
    let mut findings = vec![judge_server(touches, answer, wait)];
    let all = paths.iter().zip(touches).zip(filtered).zip(&answer.paths);
    for (((path, touch), filter), reached) in all {
        findings.push(match filter {
            Some(name) if !reached.up => Finding::fault(
                &path.name,
                format!("no answer through {}: {name} drops what comes back", path.to),
                "see filters above",
            ),
            _ => judge_path(path, touch, reached, answer),
        });
    }
    findings
}

fn judge_server(touches: &[Touch], answer: &Answer, wait: Duration) -> Finding {
    if let Some(why) = &answer.refused {
        return Finding::fault("server", format!("answers, and refuses: {why}"), remedy(why));
    }
    if answer.connected {
        return Finding::ok(
            "server",
            format!(
                "answers, with key id {}, in {} ms; cipher {}",
                answer.key_id,
                answer.took.as_millis(),
                answer.cipher
            ),
        );
    }
    let seconds = wait.as_secs_f64();
    if touches.iter().all(Touch::is_refused) && !touches.is_empty() {
        return Finding::fault(
            "server",
            "not reached: nothing listens at the end of any path",
            "start mpserver or the bridges, or correct the ports in the configuration",
        );
    }
    Finding::fault(
        "server",
        format!(
            "no answer on any path within {seconds} s: mpserver is not running, its key is not \
             the one here (key id {}), or nothing gets there; a server is silent to strangers, so \
             these cannot be told apart from here",
            answer.key_id
        ),
        format!(
            "compare key id {} with the first line of mpserver's log, which also tells of tries \
             with another key; run mptunnel doctor there",
            answer.key_id
        ),
    )
}

fn remedy(why: &str) -> &'static str {
    if why.contains("public key") {
        "add the public key of this client (mptunnel pubkey) to the server's allowed-keys-file"
    } else if why.contains("limit") {
        "raise sessions= at the server, or end other clients"
    } else if why.contains("encryption") {
        "set encrypt (or MPTUNNEL_ENCRYPT) alike at both ends"
    } else if why.contains("cipher") {
        "set cipher=auto at both ends"
    } else if why.contains("version") {
        "upgrade the older of the two ends"
    } else {
        "see the log of mpserver"
    }
}

fn judge_path(path: &Path, touch: &Touch, reached: &PathAnswer, answer: &Answer) -> Finding {
    let (name, to) = (&path.name, &path.to);
    if reached.up {
        let ms = reached.rtt.map(|rtt| rtt.as_secs_f64() * 1e3);
        let ms = ms.map(|ms| format!(", round trip {} ms", millis(ms)));
        let text = format!("answers through {to}{}", ms.unwrap_or_default());
        return Finding::ok(name, text);
    }
    let refused = "refuses: nothing listens there";
    if touch.is_refused() || reached.why.as_ref().is_some_and(|why| why.contains(refused)) {
        return Finding::fault(
            name,
            format!("{to} {refused} (its host says so)"),
            format!(
                "start it there, such as: mptunnel bridge --listen {} --to SERVER:PORT; or correct \
                 the port",
                to.port()
            ),
        );
    }
    if let Some(error) = &touch.objection {
        let text = format!("cannot send to {to}: {error}");
        return Finding::fault(name, text, "see names and routes above");
    }
    if path.addresses.is_empty() {
        return Finding::fault(name, "not tried: it has no address", "see names above");
    }
    if path.exit.is_none() {
        return Finding::fault(name, "no way out of this machine", "see routes above");
    }
    if answer.connected {
        return Finding::fault(
            name,
            format!(
                "no answer through {to}, though the server answers on other paths: this bridge is \
                 down or forwards elsewhere, or UDP to it is blocked"
            ),
            format!(
                "at {}: is the bridge running, does its --to lead to the server, does a firewall \
                 let UDP port {} in?",
                to.host(),
                to.port()
            ),
        );
    }
    if answer.refused.is_some() {
        return Finding::ok(name, "not judged: the server refuses");
    }
    Finding::fault(
        name,
        format!("no answer through {to}, as on every path: this says nothing of the bridge"),
        "see server above",
    )
}

/// What can be said of address translation. Neither bridges nor the server tell a client which
/// address they see.
pub(crate) fn judge_nat(paths: &[Path], touches: &[Touch], idle: Duration) -> Vec<Finding> {
    let mut translated = Vec::new();
    let mut direct = Vec::new();
    for (path, touch) in paths.iter().zip(touches) {
        let (Some(exit), Some(from)) = (&path.exit, touch.from) else { continue };
        if exit.interface.loopback {
            continue;
        }
        match (is_private(from), is_private(exit.to)) {
            (true, false) => translated.push(path.name.clone()),
            _ => direct.push(path.name.clone()),
        }
    }
    let mut findings = Vec::new();
    if !translated.is_empty() {
        findings.push(Finding::ok(
            translated.join(", "),
            format!(
                "behind address translation: a private address here, a public one there. Its kind \
                 cannot be told from here, and need not: all mappings are by path, kept by a probe \
                 every {} s at most (idle-interval), and followed when they change. mptunnel \
                 doctor at the server tells the address that it sees",
                idle.as_secs_f64()
            ),
        ));
    }
    if !direct.is_empty() {
        let text = "no address translation to be seen from here";
        findings.push(Finding::ok(direct.join(", "), text));
    }
    findings
}

/// Whether an address means something within one network only (RFC 1918, 6598, 3927, 4193, 4291).
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let carrier_grade = a == 100 && b & 0xc0 == 64;
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || carrier_grade
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

const PATIENCE_PER_STEP: Duration = Duration::from_millis(20);
/// After a refusal, or where nothing can come: for what is on its way all the same.
const A_MOMENT: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::host::Interface;
    use super::super::paths::Exit;
    use super::super::report::Level;
    use super::*;

    fn path(name: &str) -> Path {
        Path {
            spec: PathSpec::default(),
            name: name.to_owned(),
            to: "192.0.2.1:4000".parse().unwrap(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            exit: Some(Exit {
                to: "192.0.2.1".parse().unwrap(),
                interface: Interface::default(),
                source: None,
                mtu: 1500,
            }),
        }
    }

    /// The levels of the server and of two paths, of which the first one is as `first` says.
    fn levels(connected: bool, first: bool, refused: bool) -> (Vec<Level>, Vec<Finding>) {
        let error = || Some(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        let touches = [
            Touch { from: None, objection: if refused { error() } else { None } },
            Touch { from: None, objection: None },
        ];
        let up = |up| PathAnswer { up, ..PathAnswer::default() };
        let answer =
            Answer { connected, paths: vec![up(first), up(connected)], ..Answer::default() };
        let paths = [path("one"), path("two")];
        let filtered = [None, None];
        let findings = judge(&paths, &touches, &filtered, &answer, Duration::from_secs(4));
        (findings.iter().map(|finding| finding.level).collect(), findings)
    }

    #[test]
    fn a_dead_bridge_is_told_from_a_dead_server() {
        use Level::{Fault, Ok};

        assert_eq!(levels(true, true, false).0, [Ok, Ok, Ok]);
        let (levels_of_bridge, findings) = levels(true, false, false);
        assert_eq!(levels_of_bridge, [Ok, Fault, Ok]);
        assert!(findings[1].text.contains("though the server answers on other paths"));
        let (_, findings) = levels(true, false, true);
        assert!(findings[1].text.contains("nothing listens there"));
        let (levels_of_server, findings) = levels(false, false, false);
        assert_eq!(levels_of_server, [Fault, Fault, Fault]);
        assert!(findings[0].text.contains("its key is not the one here"));
        assert!(findings[1].text.contains("says nothing of the bridge"));
    }

    #[test]
    fn a_refusal_is_the_servers_word() {
        let answer = Answer {
            refused: Some("the server has reached its limit of sessions".to_owned()),
            paths: vec![PathAnswer::default()],
            ..Answer::default()
        };

        let touches = [Touch::default()];
        let wait = Duration::from_secs(4);
        let findings = judge(&[path("one")], &touches, &[None], &answer, wait);

        assert!(findings[0].remedy.as_ref().unwrap().contains("raise sessions="));
        assert_eq!(findings[1].level, Level::Ok);
    }

    #[test]
    fn private_addresses_are_known() {
        for ip in ["10.0.0.1", "172.31.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "fe80::1"] {
            assert!(is_private(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["100.128.0.1", "172.32.0.1", "198.51.100.1", "2001:db8::1"] {
            assert!(!is_private(ip.parse().unwrap()), "{ip}");
        }
    }
}
