// SPDX-License-Identifier: BSD-2-Clause
//! mptunnel: everything around a tunnel that is not the tunnel itself.

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use mptunnel_cli::bridge::{self, BridgeArgs};
use mptunnel_cli::change::{self, EventsArgs, GetArgs, PathArgs, SetArgs};
use mptunnel_cli::demo::{self, DemoArgs};
use mptunnel_cli::doctor::{self, DoctorArgs};
use mptunnel_cli::exit::{Exit, fail};
use mptunnel_cli::keygen::{self, GenerateArgs, PublicKeyArgs};
use mptunnel_cli::log::{self, Verbosity};
use mptunnel_cli::manual::{self, CompletionsArgs, ManArgs};
use mptunnel_cli::ping::{self, PingArgs};
use mptunnel_cli::status::{self, ExplainArgs, StatusArgs};

/// Tools for multipath UDP tunnels
///
/// The tunnel itself is the pair mpserver and mpclient: see `mpserver --help`.
#[derive(Parser)]
#[command(name = "mptunnel", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a shared key
    ///
    /// Makes a shared key and prints it, or writes it to a file that only you can read. Both ends
    /// of a tunnel need the same file, and whoever has it can join the tunnel. At its first run
    /// mpserver makes one by itself.
    #[command(after_help = GENPSK_EXAMPLE)]
    Genpsk(GenerateArgs),
    /// Make a private key
    ///
    /// Makes a private key and prints it, or writes it to a file that only you can read. Each end
    /// of a tunnel keeps its private key to itself and gives its public key, which `mptunnel
    /// pubkey` prints, to the other end.
    #[command(after_help = GENKEY_EXAMPLE)]
    Genkey(GenerateArgs),
    /// Print the public key of a private key
    #[command(after_help = PUBKEY_EXAMPLE)]
    Pubkey(PublicKeyArgs),
    Bridge(Box<BridgeArgs>),
    Demo(DemoArgs),
    Doctor(Box<DoctorArgs>),
    Ping(Box<PingArgs>),
    Status(StatusArgs),
    Explain(ExplainArgs),
    Path(PathArgs),
    Get(GetArgs),
    Set(SetArgs),
    Events(EventsArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log::init(match cli.command {
        // What the library has to say they tell themselves.
        Command::Doctor(_) | Command::Ping(_) => Verbosity::Errors,
        _ => Verbosity::Normal,
    });
    let keys = match cli.command {
        Command::Genpsk(args) | Command::Genkey(args) => keygen::generate(&args, io::stdout()),
        Command::Pubkey(args) => keygen::public_key(&args, io::stdin(), io::stdout()),
        Command::Bridge(args) => return bridge::run(*args),
        Command::Demo(args) => return demo::run(args),
        Command::Doctor(args) => return doctor::run(&args),
        Command::Ping(args) => return ping::run(&args),
        Command::Status(args) => return status::run(&args),
        Command::Explain(args) => return status::explain(&args),
        Command::Path(args) => return change::path(&args),
        Command::Get(args) => return change::get(&args),
        Command::Set(args) => return change::set(&args),
        Command::Events(args) => return change::events(&args),
        Command::Completions(args) => return manual::completions(&args, &Cli::command()),
        Command::Man(args) => return manual::man(&args, &Cli::command()),
    };
    match keys {
        Ok(()) => Exit::Success.into(),
        Err(error) => fail("mptunnel", &error, Exit::Failure),
    }
}

const EXAMPLES: &str = "\
Examples:
  A key for both ends:
      mptunnel genpsk -o psk

  A bridge, on a host between the two ends; it needs no key:
      mptunnel bridge --listen 4000 --to server.example:2000

  A bridge that loses a tenth of everything, to try things out:
      mptunnel bridge --listen 4000 --to 127.0.0.1:2000 --loss 10%

  See what a tunnel does on bad paths, in ten seconds:
      mptunnel demo

  Find out why a tunnel does not work, on either end, with the arguments that the program has:
      mptunnel doctor client.conf
      mptunnel doctor 2000 127.0.0.1 1194

  Round trip and loss over each path and over the tunnel, while you pull cables:
      mptunnel ping client.conf

  See how the mpclient or mpserver of this host is, and why a path is down:
      mptunnel status
      mptunnel explain lte

  Change it while it runs:
      mptunnel path add to=bridge4.example:4000 name=spare role=backup
      mptunnel set flows 100";

const GENPSK_EXAMPLE: &str = "\
Example:
  mptunnel genpsk -o psk && scp -p psk CLIENT:.config/mptunnel/psk";

const GENKEY_EXAMPLE: &str = "\
Example, on a client; what the last line prints belongs into the server's list of clients:
  mptunnel genkey -o private.key
  mptunnel pubkey private.key";

const PUBKEY_EXAMPLE: &str = "\
Example:
  mptunnel pubkey private.key";
