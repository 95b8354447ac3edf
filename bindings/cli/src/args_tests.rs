// SPDX-License-Identifier: BSD-2-Clause
//! Which command lines are taken, and what is said about others.

use mptunnel_core::options::Scope;

use super::*;

fn client(args: &[&str]) -> Result<ClientArgs, Error> {
    ClientArgs::parse_from([&["mpclient"], args].concat())
}

fn server(args: &[&str]) -> Result<ServerArgs, Error> {
    ServerArgs::parse_from([&["mpserver"], args].concat())
}

/// The message of a usage error, without the usage that clap adds.
fn message<T>(result: Result<T, Error>) -> String {
    let error = result.err().unwrap();
    assert_eq!(error.exit_code(), 2);
    assert!(error.use_stderr());
    let text = error.to_string();
    text.lines().next().unwrap().trim_start_matches("error: ").to_owned()
}

#[test]
fn the_classic_command_lines_are_taken() {
    let args = client(&["client.conf"]).unwrap();
    assert_eq!(args.config, Path::new("client.conf"));
    assert!(args.flags.is_empty());

    let args = client(&["3210", "client.conf"]).unwrap();
    assert_eq!(args.config, Path::new("client.conf"));
    assert_eq!(args.flags, [("listen", "3210".to_owned())]);

    let args = server(&["2000", "127.0.0.1", "1194"]).unwrap();
    assert_eq!((args.listen_address, args.listen_port), (None, 2000));
    assert_eq!(args.target, HostPort::new("127.0.0.1", 1194).unwrap());
}

#[test]
fn legacy_is_a_flag_with_or_without_the_name_of_a_program() {
    let protocol = ("protocol", "legacy".to_owned());
    for (flag, fork) in [
        ("--legacy", None),
        ("--legacy=greensea", Some(Fork::Greensea)),
        ("--legacy=bitforgebr", Some(Fork::Bitforgebr)),
    ] {
        // What follows it is a word of its own.
        let args = client(&[flag, "client.conf"]).unwrap();
        assert_eq!((&args.flags, args.fork), (&vec![protocol.clone()], fork));
        let args = server(&["1", "h", "2", flag]).unwrap();
        assert_eq!((&args.flags, args.fork), (&vec![protocol.clone()], fork));
    }
    assert_eq!(client(&["c", "--protocol", "legacy"]).unwrap().flags, [protocol]);
    assert!(message(client(&["c", "--legacy=other"])).contains("invalid value 'other'"));
    assert!(message(client(&["c", "--legacy", "--protocol", "legacy"])).contains("cannot be used"));
}

#[test]
fn a_listen_port_may_have_an_address() {
    let args = client(&["[::]:3210", "client.conf"]).unwrap();
    assert_eq!(args.flags, [("listen", "[::]:3210".to_owned())]);

    let args = server(&["192.0.2.1:2000", "::1", "1194"]).unwrap();
    assert_eq!(args.listen_address, Some([192, 0, 2, 1].into()));
    assert_eq!(args.target.to_string(), "[::1]:1194");
    assert_eq!(server(&["1", "[::1]", "2"]).unwrap().target.to_string(), "[::1]:2");
}

#[test]
fn every_option_of_the_table_is_a_flag_where_it_belongs_and_nowhere_else() {
    for spec in OPTIONS {
        let flag =
            |command: Command| command.get_arguments().any(|arg| arg.get_long() == Some(spec.key));

        let (client, server) = (flag(client_command()), flag(server_command()));

        assert_eq!(client, spec.scope.covers(Place::ClientProgram), "{}", spec.key);
        assert_eq!(server, spec.scope.covers(Place::ServerProgram), "{}", spec.key);
        assert!(client || server || spec.scope == Scope::LIBRARY, "{}", spec.key);
    }
}

#[test]
fn flags_keep_their_values_and_stand_anywhere() {
    let args = client(&["--mtu", "1400", "3000", "--encrypt=off", "client.conf", "-vv"]).unwrap();

    assert_eq!(
        args.flags,
        [("encrypt", "off".to_owned()), ("mtu", "1400".to_owned()), ("listen", "3000".to_owned()),]
    );
    assert_eq!(args.verbosity, Verbosity::Trace);
    assert_eq!(server(&["1", "h", "2", "-q"]).unwrap().verbosity, Verbosity::Warnings);
}

#[test]
fn a_wrong_value_is_told_with_flag_value_unit_and_range() {
    assert_eq!(
        message(client(&["client.conf", "--window", "1"])),
        "--window \"1\": expected a whole number from 4096 to 4194304 packets"
    );
    assert_eq!(
        message(client(&["client.conf", "--mtu", "-1"])),
        "--mtu \"-1\": expected a whole number from 576 to 65535 bytes, or 0: find out"
    );
    assert_eq!(
        message(client(&["x", "client.conf"])),
        "LISTEN_PORT \"x\": expected PORT, ADDR:PORT or [IPV6]:PORT, such as 3000, 0.0.0.0:3000 or \
         [::1]:3000"
    );
    assert_eq!(
        message(server(&["70000", "h", "1"])),
        "LISTEN_PORT: port \"70000\": expected a number from 0 to 65535"
    );
    assert_eq!(
        message(server(&["1", "h", "0"])),
        "TARGET_HOST TARGET_PORT: port \"0\": expected a number from 1 to 65535"
    );
    assert_eq!(
        message(server(&["1", "a b", "1"])),
        "TARGET_HOST TARGET_PORT: \"a b\" is neither an IP address nor a host name"
    );
}

#[test]
fn missing_superfluous_and_contradicting_arguments_are_usage_errors() {
    assert!(message(client(&[])).starts_with("CONFIG is missing: name a file"));
    assert!(message(client(&["--mtu", "0"])).starts_with("CONFIG is missing: name a file"));
    assert!(message(client(&["1", "c", "x"])).contains("unexpected argument 'x'"));
    assert_eq!(message(client(&["3000"])), "CONFIG is missing: \"3000\" is a port and not a file");
    assert_eq!(
        message(client(&["3000", "c", "--listen", "3001"])),
        "LISTEN_PORT and --listen say the same: keep one of them"
    );
    assert!(message(client(&["c", "-v", "-q"])).contains("cannot be used with"));
    assert!(message(client(&["c", "--mtu", "0", "--mtu", "0"])).contains("multiple times"));
    assert!(message(server(&["2000", "h"])).contains("required arguments were not provided"));
    assert!(message(server(&["2000", "h", "1", "x"])).contains("unexpected argument 'x'"));
    assert!(message(client(&["c", "--sessions", "1"])).contains("unexpected argument"));
}

#[test]
fn a_key_on_the_command_line_is_refused_and_not_repeated() {
    let key = mptunnel_core::keyfile::encode(&[7; 32]);

    let error = client(&["c", "--key-file", &key]).unwrap_err().to_string();

    assert!(error.contains("--key-file: key-file is the name of a file"), "{error}");
    assert!(!error.contains(key.as_str()), "{error}");
}

#[test]
fn help_and_version_go_to_standard_output_and_succeed() {
    for args in [["--help"], ["-h"], ["--version"], ["-V"]] {
        let error = client(&args).unwrap_err();
        assert_eq!((error.exit_code(), error.use_stderr()), (0, false), "{args:?}");
    }
    let version = server(&["--version"]).unwrap_err().to_string();
    assert_eq!(version, format!("mpserver {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_long_help_teaches_with_examples_and_tells_every_option_with_its_default() {
    for (mut command, place) in
        [(client_command(), Place::ClientProgram), (server_command(), Place::ServerProgram)]
    {
        let help = command.render_long_help().to_string();
        let flat = help.split_whitespace().collect::<Vec<_>>().join(" ");

        assert!(help.contains("Example"), "{help}");
        for spec in OPTIONS.iter().filter(|spec| spec.scope.covers(place)) {
            let words = super::help(spec).split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flat.contains(&words), "{words} is missing in\n{help}");
        }
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
}

#[test]
fn the_short_help_leaves_the_table_to_the_long_one() {
    let help = client_command().render_help().to_string();

    assert!(!help.contains("--rekey-interval"));
    assert!(help.contains("CONFIG"));
}

#[test]
fn the_usage_line_is_the_classic_one() {
    assert!(
        client_command()
            .render_usage()
            .to_string()
            .contains("mpclient [OPTIONS] [LISTEN_PORT] <CONFIG>")
    );
    assert!(
        server_command()
            .render_usage()
            .to_string()
            .contains("mpserver [OPTIONS] <LISTEN_PORT> <TARGET_HOST> <TARGET_PORT>")
    );
}
