// SPDX-License-Identifier: BSD-2-Clause
//! Traffic, restarts, and who may use the tunnel.

use crate::lab::Kind::{self, Classic, Ours};
use crate::lab::{Lab, MINUTE, answered, ask, at_once};
use crate::support::{MPCLIENT, MPSERVER, PATIENCE, output};
use nix::sys::signal::Signal;
use std::time::Duration;

/// Server and client.
const ONE_OF_OURS: [(Kind, Kind); 2] = [(Classic, Ours), (Ours, Classic)];
const ALL: [(Kind, Kind); 3] = [(Classic, Ours), (Ours, Classic), (Ours, Ours)];

#[test]
fn over_three_bridges_that_lose_thirty_per_cent_one_copy_is_enough() {
    let cases = ALL.into_iter().flat_map(|ends| [(ends, "0"), (ends, "1")]);
    at_once(cases, |((server, client), encrypt)| {
        let lab = Lab::in_real_time(encrypt).start(server, client, "30%");
        let app = lab.app();
        app.until_answered();

        // (1 - 0.3³)² of them: 284 of 300, give or take five standard deviations of 4.
        let count = answered(&app, 300);
        assert!(count >= 264, "{server:?} {client:?} {encrypt}: {count} of 300");
    });
}

#[test]
fn what_we_send_in_clear_is_taken_by_a_classic_peer_that_obfuscates() {
    at_once(ONE_OF_OURS, |(server, client)| {
        let mut lab = Lab::new("1");
        lab.start_server(server);
        lab.config = format!("127.0.0.1 {}\n", lab.server_port);
        lab.start_client(client);
        // The same, and ours with MPTUNNEL_ENCRYPT=0.
        lab.encrypt = "0";
        match server {
            Ours => lab.restart_server(server),
            Classic => lab.restart_client(client),
        }
        let app = lab.app();
        app.until_answered();
        assert_eq!(answered(&app, 50), 50, "{server:?} {client:?}");
    });
}

#[test]
fn a_restart_of_either_end_heals() {
    at_once(ALL, |(server, client)| {
        let mut lab = Lab::new("1");
        lab.minute = 6 * MINUTE;
        let mut lab = lab.start(server, client, "0%");
        let app = lab.app();
        app.until_answered();
        assert_eq!(answered(&app, 100), 100);

        lab.restart_client(client);
        let client_took = app.until_answered();
        assert_eq!(answered(&app, 50), 50, "{server:?} {client:?}: after the client's restart");
        lab.restart_server(server);
        let server_took = app.until_answered();
        assert_eq!(answered(&app, 50), 50, "{server:?} {client:?}: after the server's restart");

        // Five seconds of the classic clock, and what a machine that is busy takes.
        let bound = Duration::from_secs(3);
        assert!(client_took < bound && server_took < bound, "{client_took:?} {server_took:?}");
    });
}

#[test]
fn an_orderly_restart_of_our_end_goes_on_right_above_the_last_number() {
    let mut lab = Lab::in_real_time("0").start(Classic, Ours, "0%");
    let app = lab.app();
    app.until_answered();
    assert_eq!(answered(&app, 20), 20);
    let (status, _) = lab.client.as_mut().unwrap().stop(Signal::SIGTERM);
    assert!(status.success());

    let file =
        lab.world.root.join(format!(".local/state/mptunnel/legacy-client-{}", lab.client_port));
    let last: u32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    assert!((20..10_000).contains(&last), "{last}");
    lab.start_client(Ours);
    app.until_answered();
}

#[test]
fn a_second_application_is_refused_and_the_first_one_goes_on() {
    let lab = Lab::in_real_time("0").start(Classic, Ours, "0%");
    let (first, second) = (lab.app(), lab.app());
    first.until_answered();

    second.send(b"me too");
    lab.client().expect_line(&["warn", "is refused", "one application"], PATIENCE);
    assert_eq!(answered(&first, 20), 20);
    assert_eq!(second.receive(Duration::from_millis(50)), None);

    // Its place is free as soon as it is gone.
    drop(first);
    second.until_answered();
    lab.client().expect("takes its place");
}

#[test]
fn what_the_mode_does_not_protect_is_said_once_at_the_start_of_each_end() {
    let lab = Lab::in_real_time("0").start(Ours, Ours, "0%");
    for program in [lab.server(), lab.client()] {
        program.expect("nothing is encrypted and nobody is authenticated");
        assert_eq!(program.count("nothing is encrypted"), 1);
        assert_eq!(program.count("encryption is off"), 0, "that is said of the other protocol");
        assert!(program.log().contains("key id none"), "{}", program.log());
        assert_eq!(program.count("legacy-state"), 0, "there is a place for it");
    }
    lab.app().until_answered();
}

#[test]
fn without_a_place_for_the_numbers_that_is_said() {
    let lab = Lab::new("0");
    let config = lab.world.write("c.conf", "127.0.0.1 9\n");
    let mut command =
        lab.world.command(MPCLIENT, &["0", config.to_str().unwrap(), "--legacy=bitforgebr"]);
    command.env_remove("HOME");
    let client = crate::support::Program::start(command);

    client.expect_line(&["warn", "there is no legacy-state"], PATIENCE);
}

#[test]
fn keys_and_the_classic_protocol_do_not_go_together() {
    let lab = Lab::new("0");
    let config = lab.world.write("c.conf", "127.0.0.1 9\nprotocol = legacy\nkey-file = psk\n");
    let code = |program, args: &[&str]| {
        let (code, _, text) = output(lab.world.command(program, args));
        (code, text)
    };

    let (status, text) = code(MPCLIENT, &["0", config.to_str().unwrap()]);
    assert_eq!(status, Some(2), "{text}");
    assert!(text.contains("remove key-file, or the protocol"), "{text}");
    let words = ["0", "127.0.0.1", "9", "--legacy", "--threads", "2"];
    assert_eq!(code(MPSERVER, &words).0, Some(2));
    let words = ["0", "127.0.0.1", "9", "--legacy", "--protocol", "mptunnel"];
    assert_eq!(code(MPSERVER, &words).0, Some(2));
}

#[test]
fn a_secured_end_has_nothing_to_say_to_a_classic_one() {
    let mut lab = Lab::in_real_time("0").start(Ours, Classic, "0%");
    lab.app().until_answered();
    lab.server.take().unwrap().kill();
    let (at, target) = (lab.server_address().to_string(), lab.echo.address.port().to_string());
    let server = lab.world.start(MPSERVER, &[&at, "127.0.0.1", &target]);
    server.port();

    let app = lab.app();
    app.send(b"in clear");
    assert_eq!(app.receive(Duration::from_millis(300)), None);
    server.signal(Signal::SIGUSR1);
    server.expect_line(&["counters:", "bad_"], PATIENCE);
}

/// The steps of the documentation: bridges of `socat`, both programs, an application.
fn walk_through(server: Kind, client: Kind) {
    let mut lab = Lab::in_real_time("0");
    lab.start_server(server);
    for _ in 0..3 {
        lab.socat(",fork");
    }
    lab.start_client(client);
    let app = lab.app();
    app.until_answered();
    for size in [0, 1, 1_400, 7_999] {
        ask(&app, &vec![7; size]);
    }
    assert_eq!(answered(&app, 100), 100);
}

#[test]
fn the_walk_through_works_with_legacy_on_the_client() {
    walk_through(Classic, Ours);
}

#[test]
fn the_walk_through_works_with_legacy_on_the_server() {
    walk_through(Ours, Classic);
}

#[test]
fn the_walk_through_works_with_legacy_on_both_ends() {
    walk_through(Ours, Ours);
}

#[test]
fn large_datagrams_keep_their_shape() {
    let mut lab = Lab::new("1");
    lab.start_server(Ours);
    lab.config = format!("127.0.0.1 {}\n", lab.server_port);
    for client in [Classic, Ours] {
        lab.client = None;
        lab.start_client(client);
        let app = lab.app();
        app.until_answered();
        for size in [8_001, 9_000, 60_000, 65_491] {
            ask(&app, &vec![7; size]);
        }
    }
}
