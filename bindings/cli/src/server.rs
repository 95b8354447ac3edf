// SPDX-License-Identifier: BSD-2-Clause
//! The program mpserver: a thin shell around [`ServerRelay`].

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mptunnel_core::options::{Place, Role, Settings};
use mptunnel_core::relay::{ServerRelay, ServerRelayConfig};
use mptunnel_core::{Error, Event, Server, Snapshot, Tunnel};

use crate::args::ServerArgs;
use crate::config::Environment;
use crate::control::server::Running;
use crate::counters::Counters;
use crate::exit::{Exit, fail};
use crate::program::{self, Relay, Signals};
use crate::target::Resolver;
use crate::{keys, legacy, log as logging, reload};

const PROGRAM: &str = "mpserver";

/// Descriptors that are not for flows: sockets, logs, what a library may open.
const OTHER_DESCRIPTORS: usize = 64;

/// Runs mpserver with the arguments of the process.
pub fn main() -> ExitCode {
    let args = match ServerArgs::parse_from(std::env::args_os()) {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    logging::init(args.verbosity);
    let environment = Environment::of_process();
    let in_force = match args.load(&environment) {
        Ok(config) => config.settings,
        Err(error) => return fail(PROGRAM, &error, Exit::Usage),
    };
    let mut settings = in_force.clone();
    if legacy::is_asked_for(&settings) {
        legacy::locate_state(&mut settings, &environment, Role::Server, args.listen_port);
    } else {
        match keys::locate_for_server(&mut settings, &environment) {
            // Not a record of the log: it is to be read and copied, however quiet the log is.
            Ok(Some(first_run)) => eprintln!("{PROGRAM}: {first_run}"),
            Ok(None) => {}
            Err(error) => return fail(PROGRAM, &error, Exit::Usage),
        }
    }
    program::harden();
    let descriptors = program::raise_descriptor_limit();
    let signals = match Signals::register() {
        Ok(signals) => signals,
        Err(error) => return fail(PROGRAM, &error, Exit::Failure),
    };
    let relay = match start(&args, &settings, descriptors) {
        Ok(relay) => Arc::new(relay),
        Err(error) => return program::not_started(PROGRAM, &error),
    };
    // Lives as long as the relay does.
    let _resolver = match Resolver::start(&args.target, &relay) {
        Ok(resolver) => resolver,
        Err(error) => return fail(PROGRAM, &error, Exit::Failure),
    };
    let running = match Running::start(PROGRAM, MpServer { relay, descriptors }, in_force) {
        Ok(running) => running,
        Err(error) => return fail(PROGRAM, &error, Exit::Failure),
    };
    // Whoever waits for this line finds everything there.
    announce(&running.operations.relay.relay, &args, &settings);
    program::run(&running.operations, &signals, || match args.load(&environment) {
        Ok(read) => running.operations.reload(&read.settings, None),
        Err(error) => reload::report_error(&error),
    })
}

/// The relay, and how many descriptors it may have.
struct MpServer {
    relay: Arc<ServerRelay>,
    descriptors: usize,
}

fn start(args: &ServerArgs, settings: &Settings, descriptors: usize) -> Result<ServerRelay, Error> {
    let builder = Server::builder().settings(settings.clone());
    let builder = match args.listen_address {
        Some(address) => builder.listen(SocketAddr::new(address, args.listen_port)),
        None => builder.port(args.listen_port),
    };
    let config = ServerRelayConfig {
        target: args.target.socket_addr(),
        flows_per_client: settings.flows.into(),
        flows: all_flows(settings, descriptors),
        flow_timeout: settings.flow_timeout,
        socket_buffer: usize::try_from(settings.socket_buffer).unwrap_or(usize::MAX),
        offload: settings.offload,
        threads: settings.threads,
    };
    ServerRelay::start(config, builder)
}

/// Flows of all clients together: each takes a descriptor.
fn all_flows(settings: &Settings, descriptors: usize) -> usize {
    let sessions = usize::try_from(settings.sessions).unwrap_or(usize::MAX);
    let wanted = sessions.saturating_mul(settings.flows.into());
    wanted.min(descriptors.saturating_sub(OTHER_DESCRIPTORS))
}

fn announce(relay: &ServerRelay, args: &ServerArgs, settings: &Settings) {
    let server = relay.server();
    let listen: Vec<String> = server.local_addrs().iter().map(ToString::to_string).collect();
    log::info!(
        "{PROGRAM} {} listens on {} for clients, key id {}, target {}",
        env!("CARGO_PKG_VERSION"),
        listen.join(", "),
        program::key_ids(server.key_ids()),
        args.target
    );
    program::warn_if_clear(settings);
}

impl Relay for MpServer {
    const PLACE: Place = Place::ServerProgram;
    const LIBRARY: Place = Place::ServerLibrary;

    fn readiness(&self) -> BorrowedFd<'_> {
        self.relay.server().as_fd()
    }

    fn next_event(&self) -> Result<Option<Event>, Error> {
        self.relay.next_event(Duration::ZERO)
    }

    fn verdict(&self) -> Error {
        let mut nothing = [];
        let answer = self.relay.server().recv_from_timeout(&mut nothing, Duration::ZERO);
        answer.err().unwrap_or(Error::Closed)
    }

    fn receive_buffer(&self) -> usize {
        self.relay.server().stats().receive_buffer
    }

    fn counters(&self) -> Counters {
        Counters::new(&self.relay.stats(), &self.relay.server().stats())
    }

    fn snapshot(&self) -> Snapshot {
        self.relay.snapshot()
    }

    fn listens_on(&self) -> Vec<SocketAddr> {
        self.relay.server().local_addrs().to_vec()
    }

    fn tunnel(&self) -> Option<&Tunnel> {
        None
    }

    fn set(&self, key: &str, value: &str) -> Result<(), Error> {
        self.relay.server().set(key, value)
    }

    fn take_limits(&self, settings: &Settings) {
        let all = all_flows(settings, self.descriptors);
        self.relay.set_flow_limits(settings.flows.into(), all, settings.flow_timeout);
    }

    fn close(&self) {
        self.relay.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_leave_descriptors_for_everything_else() {
        let mut settings = Settings::default();
        (settings.sessions, settings.flows) = (4, 10);

        assert_eq!(all_flows(&settings, 1_024), 40);
        assert_eq!(all_flows(&settings, 100), 36);
        assert_eq!(all_flows(&settings, 10), 0);
        (settings.sessions, settings.flows) = (u32::MAX, u16::MAX);
        assert_eq!(all_flows(&settings, 1 << 20), (1 << 20) - 64);
    }
}
