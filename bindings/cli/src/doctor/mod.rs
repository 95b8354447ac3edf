// SPDX-License-Identifier: BSD-2-Clause
//! `mptunnel doctor`: looks for what keeps a tunnel from working, and tells the remedy.
//!
//! Whatever it finds it goes on with the rest, as far as that makes sense. It changes nothing, and
//! sends one datagram and a short handshake over each path.

#![allow(
    clippy::disallowed_methods,
    reason = "how long names and answers take is what this command measures"
)]

mod args;
mod host;
mod key;
mod names;
mod paths;
mod reach;
mod report;
mod route;
mod running;
mod server;
mod touch;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use mptunnel_core::options::{Credentials, PathSpec, Role, Settings};

pub use args::DoctorArgs;

use self::args::End;
use self::host::Interface;
use self::paths::Path;
use self::report::{Finding, Level, Report};
use self::touch::Touch;
use crate::args::{ClientArgs, ServerArgs};
use crate::config::Environment;
use crate::exit::describe;

/// Runs `mptunnel doctor`. The exit status is that of the worst finding.
pub fn run(args: &DoctorArgs) -> ExitCode {
    let environment = Environment::of_process();
    let role = match &args.end {
        End::Client(_) => "client",
        End::Server(_) => "server",
    };
    let mut report = Report::new(args.json, role);
    match &args.end {
        End::Client(client) => look_at_client(client, &environment, args.wait, &mut report),
        End::Server(server) => look_at_server(server, &environment, args.wait, &mut report),
    }
    ExitCode::from(report.close() as u8)
}

fn look_at_client(
    args: &ClientArgs,
    environment: &Environment,
    wait: Duration,
    report: &mut Report,
) {
    let file = args.config.display().to_string();
    let config = match args.load(environment) {
        Ok(config) => config,
        Err(error) => {
            report.section(CONFIGURATION, vec![wrong_configuration(&file, &error)]);
            return;
        }
    };
    let mut settings = config.settings;
    let text = format!("understood; {}", count(config.paths.len(), "path"));
    report.section(CONFIGURATION, vec![Finding::ok(file, text), port_for_applications(&settings)]);
    let legacy = is_legacy(&settings);
    let usable_key = !legacy && check_key(&mut settings, environment, Role::Client, report);
    report.section("Protocol", judge_protocol(legacy));

    report.busy("looking up names");
    let (addresses, findings) = names::resolve(config.paths.iter().filter_map(|p| p.to.as_ref()));
    report.section("Names", findings);

    let interfaces = host::interfaces();
    let mut paths = Vec::new();
    let mut findings = Vec::new();
    for spec in config.paths {
        let Some(to) = spec.to.clone() else { continue };
        let fits = |ip: &&std::net::IpAddr| spec.source.is_none_or(|s| s.is_ipv4() == ip.is_ipv4());
        let mut path = Path {
            name: spec.name.clone().unwrap_or_else(|| to.to_string()),
            addresses: addresses
                .get(to.host())
                .into_iter()
                .flatten()
                .filter(fits)
                .copied()
                .collect(),
            exit: None,
            spec,
            to,
        };
        findings.extend(paths::find_exit(&mut path, &interfaces));
        paths.push(path);
    }
    findings.extend(paths::shared_exits(&paths));
    report.section("Routes", findings);
    report.section("Socket buffers", host::buffers(settings.socket_buffer));

    let touches = touch_all(&paths);
    let filtered = paths::filtered_at(&paths, &interfaces);
    report.busy("asking the server over all paths");
    let (reached, up) = reach_all(&settings, usable_key, &paths, &touches, &filtered, wait);
    let is_up = |path| up.get(path) == Some(&true);
    report.section("Filters", paths::judge_filters(&paths, &filtered, is_up));
    report.section(SERVER, reached);
    report.section("MTU", paths::check_mtus(&paths, settings.mtu));
    let nat = reach::judge_nat(&paths, &touches, settings.idle_interval);
    report.section("Address translation", nat);
    report.section("Clock", clock());
}

/// Asks the server over all paths: what is to be said of it, and which paths are up.
fn reach_all(
    settings: &Settings,
    usable_key: bool,
    paths: &[Path],
    touches: &[Touch],
    filtered: &[Option<String>],
    wait: Duration,
) -> (Vec<Finding>, Vec<bool>) {
    let not_asked = |why: &str, remedy: &str| {
        let mut findings = vec![Finding::warning("server", format!("not asked: {why}"), remedy)];
        for (path, _) in paths.iter().zip(touches).filter(|(_, touch)| touch.is_refused()) {
            findings.push(Finding::fault(
                &path.name,
                format!("{} refuses: nothing listens there (its host says so)", path.to),
                "start the bridge or mpserver there, or correct the port",
            ));
        }
        findings
    };
    if is_legacy(settings) {
        let why = "the legacy protocol has nothing to ask with";
        return (not_asked(why, "see whether the application gets answers"), Vec::new());
    }
    if !usable_key {
        let findings = not_asked("without a key it would not answer", "see the key above");
        return (findings, Vec::new());
    }
    let static_keys =
        matches!(settings.credentials(Role::Client), Ok(Credentials::ClientKeys { .. }));
    if static_keys && !can_listen(settings.listen) {
        let why = "the server knows this client by its private key, and would take the session \
                   from the mpclient that seems to be running";
        return (not_asked(why, "stop mpclient, and run this again"), Vec::new());
    }
    let specs: Vec<PathSpec> = paths.iter().map(|path| path.spec.clone()).collect();
    let hopeless: Vec<bool> = paths
        .iter()
        .zip(touches)
        .map(|(path, touch)| path.exit.is_none() || touch.is_refused())
        .collect();
    match reach::ask(settings, &specs, &hopeless, wait) {
        Ok(answer) => {
            let up = answer.paths.iter().map(|path| path.up).collect();
            (reach::judge(paths, touches, filtered, &answer, wait), up)
        }
        Err(error) => {
            let text = format!("not asked: {}", describe(&error));
            (vec![Finding::fault("server", text, "correct the above")], Vec::new())
        }
    }
}

fn touch_all(paths: &[Path]) -> Vec<Touch> {
    let mut touched = Vec::new();
    let mut targets = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let Some(exit) = &path.exit else { continue };
        let headers = if exit.to.is_ipv4() { 28 } else { 48 };
        let len = match usize::try_from(exit.mtu).unwrap_or(0) {
            mtu @ 128..=MOST_TOUCHED => mtu - headers,
            _ => SMALL_TOUCH,
        };
        touched.push(number);
        targets.push((&path.spec, SocketAddr::new(exit.to, path.to.port()), len));
    }
    let mut touches: Vec<Touch> = paths.iter().map(|_| Touch::default()).collect();
    for (number, touch) in touched.into_iter().zip(touch::touch(&targets)) {
        touches[number] = touch;
    }
    touches
}

fn look_at_server(
    args: &ServerArgs,
    environment: &Environment,
    wait: Duration,
    report: &mut Report,
) {
    let file = args.config.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
    let mut settings = match args.load(environment) {
        Ok(config) => config.settings,
        Err(error) => {
            report.section(CONFIGURATION, vec![wrong_configuration(&file, &error)]);
            return;
        }
    };
    report.section(CONFIGURATION, vec![Finding::ok(file, "understood")]);
    let legacy = is_legacy(&settings);
    let usable_key = !legacy && check_key(&mut settings, environment, Role::Server, report);
    report.section("Protocol", judge_protocol(legacy));
    report.busy("looking up names");
    let (addresses, findings) = names::resolve([&args.target]);
    report.section("Names", findings);
    let interfaces: Vec<Interface> = host::interfaces();
    report.section("Target", server::target(&args.target, &addresses, &interfaces));
    report.busy("asking who listens");
    // Before it sees a client more: this one.
    let running = running::check(&settings, args.listen_port);
    report.section("Server", server::listen(args, &settings, usable_key, wait));
    report.section("Clients", running);
    report.section("Socket buffers", host::buffers(settings.socket_buffer));
    report.section("Descriptors", host::descriptors(settings.flows));
    report.section("Filters", server::filters(&interfaces));
    report.section("Clock", clock());
}

fn wrong_configuration(file: &str, error: &dyn std::error::Error) -> Finding {
    // `FILE:3: …` of each line, or `FILE: …`.
    let lines = describe(error)
        .replace(&format!(" {file}: "), ": ")
        .replace(&format!("{file}: "), "")
        .replace(&format!("{file}:"), "line ");
    let text = lines.lines().collect::<Vec<_>>().join("; ");
    Finding::fault(file, text, "correct it; nothing else was looked at")
}

fn check_key(
    settings: &mut Settings,
    environment: &Environment,
    role: Role,
    report: &mut Report,
) -> bool {
    let mut findings = key::check(settings, environment, role);
    let usable = findings.iter().all(|finding| finding.level != Level::Fault)
        && settings.credentials(role).is_ok_and(|found| found != Credentials::None);
    if !settings.encrypt {
        findings.push(Finding::warning(
            "",
            "encryption is off: everybody on the way can read what is carried",
            "leave encrypt and MPTUNNEL_ENCRYPT out, at both ends",
        ));
    }
    report.section("Key", findings);
    usable
}

/// Whether the ends speak the protocol of the classic mptunnel.
fn is_legacy(settings: &Settings) -> bool {
    settings.get("protocol").as_deref() == Some("legacy")
}

fn judge_protocol(legacy: bool) -> Vec<Finding> {
    let text = "legacy: no key is used, and everybody can read, change and forge what is carried";
    let remedy = "leave protocol out as soon as both ends are new";
    if legacy { vec![Finding::warning("protocol", text, remedy)] } else { Vec::new() }
}

fn port_for_applications(settings: &Settings) -> Finding {
    let at = settings.listen;
    match server::bind(at) {
        Ok(()) => Finding::ok(at.to_string(), "free for mpclient, which is not running"),
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => Finding::ok(
            at.to_string(),
            "in use, by a running mpclient as it seems, which this does not disturb",
        ),
        Err(error) => Finding::fault(
            at.to_string(),
            format!("mpclient could not listen there: {error}"),
            "choose another LISTEN_PORT",
        ),
    }
}

/// Whether the port for applications is free, so that no mpclient seems to be running.
pub(crate) fn can_listen(at: SocketAddr) -> bool {
    server::bind(at).is_ok()
}

fn clock() -> Vec<Finding> {
    vec![Finding::ok("", "not looked at: nothing in the protocol depends on what time it is")]
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

const CONFIGURATION: &str = "Configuration";
const SERVER: &str = "Server and paths";

/// Bytes of the largest MTU that a datagram is made to fill: jumbo frames. Loopback has more.
const MOST_TOUCHED: usize = 9216;
/// Bytes of a datagram that fits everywhere.
const SMALL_TOUCH: usize = 64;
