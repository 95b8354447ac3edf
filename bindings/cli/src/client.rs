// SPDX-License-Identifier: BSD-2-Clause
//! The program mpclient: a thin shell around [`ClientRelay`].

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::Duration;

use mptunnel_core::options::{Place, Role, Settings};
use mptunnel_core::relay::{ClientRelay, ClientRelayConfig};
use mptunnel_core::{Error, Event, Snapshot, Tunnel};

use crate::args::ClientArgs;
use crate::config::{ClientConfig, Environment};
use crate::control::server::Running;
use crate::counters::Counters;
use crate::exit::{Exit, fail};
use crate::program::{self, Relay, Signals};
use crate::{keys, legacy, log as logging, reload};

const PROGRAM: &str = "mpclient";

/// Runs mpclient with the arguments of the process.
pub fn main() -> ExitCode {
    let args = match ClientArgs::parse_from(std::env::args_os()) {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    logging::init(args.verbosity);
    let environment = Environment::of_process();
    let in_force = match args.load(&environment) {
        Ok(config) => config,
        Err(error) => return fail(PROGRAM, &error, Exit::Usage),
    };
    let mut config = in_force.clone();
    if legacy::is_asked_for(&config.settings) {
        let port = config.settings.listen.port();
        legacy::locate_state(&mut config.settings, &environment, Role::Client, port);
    } else if let Err(error) = keys::locate_for_client(&mut config.settings, &environment) {
        return fail(PROGRAM, &error, Exit::Usage);
    }
    program::harden();
    program::raise_descriptor_limit();
    let signals = match Signals::register() {
        Ok(signals) => signals,
        Err(error) => return fail(PROGRAM, &error, Exit::Failure),
    };
    let relay = match start(&config) {
        Ok(relay) => relay,
        Err(error) => return program::not_started(PROGRAM, &error),
    };
    let running = match Running::start(PROGRAM, relay, in_force.settings) {
        Ok(running) => running,
        Err(error) => return fail(PROGRAM, &error, Exit::Failure),
    };
    // Whoever waits for this line finds everything there.
    announce(&running.operations.relay, &config);
    program::run(&running.operations, &signals, || match args.load(&environment) {
        Ok(read) => running.operations.reload(&read.settings, Some(read.paths)),
        Err(error) => reload::report_error(&error),
    })
}

fn start(config: &ClientConfig) -> Result<ClientRelay, Error> {
    let builder =
        Tunnel::builder().settings(config.settings.clone()).paths(config.paths.iter().cloned());
    ClientRelay::start(relay_config(&config.settings), builder)
}

fn relay_config(settings: &Settings) -> ClientRelayConfig {
    ClientRelayConfig {
        listen: settings.listen,
        flows: settings.flows.into(),
        flow_timeout: settings.flow_timeout,
        socket_buffer: usize::try_from(settings.socket_buffer).unwrap_or(usize::MAX),
        offload: settings.offload,
    }
}

fn announce(relay: &ClientRelay, config: &ClientConfig) {
    let names: Vec<&str> = config.paths.iter().map(reload::name).collect();
    log::info!(
        "{PROGRAM} {} listens on {} for applications, key id {}, {} path{}: {}",
        env!("CARGO_PKG_VERSION"),
        relay.local_addr(),
        relay.tunnel().key_id(),
        names.len(),
        if names.len() == 1 { "" } else { "s" },
        names.join(", ")
    );
    program::warn_if_clear(&config.settings);
}

impl Relay for ClientRelay {
    const PLACE: Place = Place::ClientProgram;
    const LIBRARY: Place = Place::ClientLibrary;

    fn readiness(&self) -> BorrowedFd<'_> {
        ClientRelay::tunnel(self).as_fd()
    }

    fn next_event(&self) -> Result<Option<Event>, Error> {
        ClientRelay::next_event(self, Duration::ZERO)
    }

    fn verdict(&self) -> Error {
        ClientRelay::tunnel(self).wait_ready(Some(Duration::ZERO)).err().unwrap_or(Error::Closed)
    }

    fn receive_buffer(&self) -> usize {
        ClientRelay::tunnel(self).stats().receive_buffer
    }

    fn counters(&self) -> Counters {
        Counters::new(&self.stats(), &ClientRelay::tunnel(self).stats())
    }

    fn snapshot(&self) -> Snapshot {
        ClientRelay::snapshot(self)
    }

    fn listens_on(&self) -> Vec<SocketAddr> {
        vec![self.local_addr()]
    }

    fn tunnel(&self) -> Option<&Tunnel> {
        Some(ClientRelay::tunnel(self))
    }

    fn set(&self, key: &str, value: &str) -> Result<(), Error> {
        ClientRelay::tunnel(self).set(key, value)
    }

    fn take_limits(&self, settings: &Settings) {
        self.set_flow_limits(settings.flows.into(), settings.flow_timeout);
    }

    fn close(&self) {
        ClientRelay::close(self);
    }
}
