// SPDX-License-Identifier: BSD-2-Clause
//! The program mpclient: a thin shell around [`ClientRelay`].

use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::Duration;

use mptunnel_core::options::Settings;
use mptunnel_core::relay::{ClientRelay, ClientRelayConfig};
use mptunnel_core::{Error, Event, Tunnel};

use crate::args::ClientArgs;
use crate::config::{ClientConfig, Environment};
use crate::counters::Counters;
use crate::exit::{Exit, fail};
use crate::program::{self, Relay, Signals};
use crate::{keys, log as logging, reload};

const PROGRAM: &str = "mpclient";

/// Runs mpclient with the arguments of the process.
pub fn main() -> ExitCode {
    let args = match ClientArgs::parse_from(std::env::args_os()) {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    logging::init(args.verbosity);
    let environment = Environment::of_process();
    let mut in_force = match args.load(&environment) {
        Ok(config) => config,
        Err(error) => return fail(PROGRAM, &error, Exit::Usage),
    };
    let mut config = in_force.clone();
    if let Err(error) = keys::locate_for_client(&mut config.settings, &environment) {
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
    announce(&relay, &config);
    program::run(PROGRAM, &relay, &signals, || match args.load(&environment) {
        Ok(read) => reload(&relay, &mut in_force, read),
        Err(error) => reload::report_error(&error),
    })
}

/// Changes what differs between the configuration in force and the one that was read again.
fn reload(relay: &ClientRelay, in_force: &mut ClientConfig, read: ClientConfig) {
    let changes = reload::take_over(&mut in_force.settings, &read.settings);
    relay.set_flow_limits(in_force.settings.flows.into(), in_force.settings.flow_timeout);
    let paths_changed = reload::change_paths(relay.tunnel(), &mut in_force.paths, read.paths);
    reload::report(PROGRAM, &changes, paths_changed);
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
    fn readiness(&self) -> BorrowedFd<'_> {
        self.tunnel().as_fd()
    }

    fn next_event(&self) -> Result<Option<Event>, Error> {
        ClientRelay::next_event(self, Duration::ZERO)
    }

    fn verdict(&self) -> Error {
        self.tunnel().wait_ready(Some(Duration::ZERO)).err().unwrap_or(Error::Closed)
    }

    fn receive_buffer(&self) -> usize {
        self.tunnel().stats().receive_buffer
    }

    fn counters(&self) -> Counters {
        Counters::new(&self.stats(), &self.tunnel().stats())
    }

    fn close(&self) {
        ClientRelay::close(self);
    }
}
