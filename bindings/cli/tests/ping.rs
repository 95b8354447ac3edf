// SPDX-License-Identifier: BSD-2-Clause
//! `mptunnel ping` as a user runs it, with real programs on loopback.

mod support;

use std::fs;
use std::io::Cursor;

use nix::sys::signal::Signal;
use support::{MPTUNNEL, PATIENCE, Program, Service, World, bridge, output, wait_until};

/// A line of the summary: sent, answered, and the whole line.
struct Row {
    sent: u32,
    answered: u32,
    line: String,
}

fn row(text: &str, name: &str) -> Row {
    let line = text.lines().rfind(|line| line.split_whitespace().next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned();
    let word = |at: usize| line.split_whitespace().nth(at).unwrap().parse().unwrap();
    Row { sent: word(1), answered: word(2), line }
}

/// A server for `echo` with two bridges, and the configuration file of its clients.
fn two_bridges(world: &World, echo: &Service) -> (Program, [Program; 2], String) {
    let server = world.server(echo.address, &[]);
    let bridges = [(); 2].map(|()| bridge(world, server.address(), &[]));
    let [one, two] = [0, 1].map(|at| bridges[at].port());
    let config = format!("127.0.0.1 {one} name=one\n127.0.0.1 {two} name=two\n");
    let file = world.write("client.conf", &config);
    (server, bridges, file.to_str().unwrap().to_owned())
}

#[test]
fn a_bridge_killed_in_the_middle_is_lost_on_its_path_and_not_over_the_tunnel() {
    let world = World::new();
    let echo = Service::echo();
    let (_server, [one, two], file) = two_bridges(&world, &echo);
    let mut ping = world.start(MPTUNNEL, &["ping", "-i", "0.05", "--echo", &file]);
    // Some rounds with both.
    let answered = |name: &str| {
        let of_rounds = |line: &&str| line.contains(&format!("  {name} "));
        ping.log().lines().filter(of_rounds).filter(|line| !line.contains(" lost")).count()
    };
    wait_until(|| answered("two") >= 5, || ping.log());

    two.kill();
    let told = ping.expect("two: OUTAGE since ");
    ping.expect_line(&["path two is down: ", "nothing listens there"], PATIENCE);
    ping.signal(Signal::SIGINT);

    assert!(ping.wait().success(), "{}", ping.log());
    ping.expect("min/avg/max/mdev");
    let text = ping.log();
    let [first, second, tunnel] = ["one", "two", "tunnel"].map(|name| row(&text, name));
    assert!(second.answered >= 3 && second.answered + 5 <= second.sent, "{text}");
    for whole in [first, tunnel] {
        assert!(whole.sent >= 10 && whole.answered == whole.sent, "{text}");
        assert!(whole.line.contains(" 0.0 %") && whole.line.ends_with("none"), "{text}");
    }
    // The moment at which it began, not the one at which it was noticed.
    let moments: Vec<f64> = told
        .split(" s")
        .filter_map(|part| part.split_whitespace().next_back()?.parse().ok())
        .collect();
    assert!(moments[0] - moments[1] >= 0.4, "{told}");
    drop(one);
}

#[test]
fn as_many_rounds_as_asked_for_and_with_quiet_the_summary_only() {
    let world = World::new();
    let echo = Service::echo();
    let (_server, _bridges, file) = two_bridges(&world, &echo);
    let args = ["ping", "-q", "-c", "5", "-i", "0.02", &file];
    let mut all_came = || {
        let (status, out, err) = output(world.command(MPTUNNEL, &args));
        assert_eq!((status, err.as_str()), (Some(0), ""), "{out}");
        assert!(out.starts_with("\n5 rounds, one every 20 ms; tunnel: first answer over any path"));
        assert_eq!(out.lines().count(), 7, "{out}");
        let rows = ["one", "two", "tunnel"].map(|name| row(&out, name));
        assert!(rows.iter().all(|row| row.sent == 5), "{out}");
        rows.iter().all(|row| row.answered == 5)
    };

    // A machine that is busy may be late with the last answers: then once more.
    wait_until(&mut all_came, || "there is loss in all runs".to_owned());
}

#[test]
fn a_target_that_does_not_echo_is_all_loss_with_echo() {
    let world = World::new();
    let mute = Service::start(|_, _| None);
    let (_server, _bridges, file) = two_bridges(&world, &mute);
    let args = ["ping", "-q", "--echo", "-c", "3", "-i", "0.02", &file];

    let (status, out, _) = output(world.command(MPTUNNEL, &args));

    assert_eq!(status, Some(1), "{out}");
    assert_eq!(row(&out, "one").answered, 3, "{out}");
    assert_eq!(row(&out, "tunnel").answered, 0, "{out}");
}

#[test]
fn a_refusal_says_why_and_names_the_doctor() {
    let world = World::new();
    let echo = Service::echo();
    let (_server, _bridges, file) = two_bridges(&world, &echo);

    let args = ["ping", "-c", "1", "--encrypt", "off", &file];
    let (status, _, err) = output(world.command(MPTUNNEL, &args));

    assert_eq!(status, Some(1), "{err}");
    assert!(err.contains("encryption is off at the client and on at the server"), "{err}");
    assert!(err.contains("mptunnel doctor ") && err.contains("client.conf"), "{err}");
}

#[test]
fn the_plot_is_a_picture_with_the_colours_of_the_paths_or_a_drawing_with_their_names() {
    let world = World::new();
    let echo = Service::echo();
    let server = world.server(echo.address, &[]);
    let one = bridge(&world, server.address(), &[]);
    let two = bridge(&world, server.address(), &["--loss", "40%", "--seed", "1"]);
    let config = format!("127.0.0.1 {} name=one\n127.0.0.1 {} name=two\n", one.port(), two.port());
    let file = world.write("client.conf", &config).display().to_string();
    let plot = |name: &str| {
        let args = ["ping", "-q", "-c", "20", "-i", "0.02", "--plot", name, &file];
        let (status, out, err) = output(world.command(MPTUNNEL, &args));
        assert_eq!((status, err.as_str()), (Some(0), ""), "{out}");
        assert!(out.ends_with(&format!("plotted to {name}\n")), "{out}");
        fs::read(world.root.join(name)).unwrap()
    };

    let picture = plot("a.png");
    let mut reader = png::Decoder::new(Cursor::new(picture)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.color_type), (1200, png::ColorType::Rgb));
    let count = |colour: [u8; 3]| pixels.chunks(3).filter(|pixel| **pixel == colour).count();
    // Path one is drawn, and what is lost on path two stands in its strip.
    assert!(count([0, 114, 178]) > 500 && count([200, 30, 40]) > 2_000);

    let drawing = String::from_utf8(plot("a.svg")).unwrap();
    assert!(drawing.starts_with("<svg ") && drawing.ends_with("</svg>\n"), "{drawing}");
    for words in ["\none\n", "\ntwo\n", "\ntunnel\n", "0.0 % lost, avg ", "round trip, ms"] {
        assert!(drawing.contains(words), "{words}");
    }
}

#[test]
fn a_plot_that_cannot_be_written_is_told_before_anything_is_measured() {
    let world = World::new();
    let file = world.write("client.conf", "127.0.0.1 9\n");
    let args = ["ping", "--plot", "nowhere/a.png", file.to_str().unwrap()];

    let (status, out, err) = output(world.command(MPTUNNEL, &args));

    assert_eq!((status, out.as_str()), (Some(2), ""));
    assert!(err.contains("cannot write nowhere/a.png: No such file"), "{err}");
}
