// SPDX-License-Identifier: BSD-2-Clause
//! A running program, as lines of text.

use std::time::Duration;

use super::model::{Path, Status};
use crate::terminal::{self, Paint, Style, clipped, paint_of_loss, shortened};

/// Columns that the table needs at least.
pub(crate) const WIDTH: usize = 79;

/// A column: its title, its width, and what stands in it.
struct Column {
    title: &'static str,
    width: usize,
    cell: fn(&Path) -> String,
    /// The colour of a cell.
    paint: fn(&Path) -> Option<Paint>,
}

const fn column(title: &'static str, width: usize, cell: fn(&Path) -> String) -> Column {
    Column { title, width, cell, paint: |_| None }
}

/// Those that are always there.
static ALWAYS: &[Column] = &[
    Column {
        title: "state",
        width: 10,
        cell: |path| match (&*path.state, path.backup) {
            ("up", true) => "backup".to_owned(),
            (state, _) => state.to_owned(),
        },
        paint: |path| Some(paint_of_state(path)),
    },
    column("for", 6, |path| age(path.since)),
    column("RTT", 8, |path| millis_or(path.rtt)),
    column("jitter", 8, |path| millis_or(path.jitter.filter(|_| path.rtt.is_some()))),
    Column {
        title: "lost>",
        width: 6,
        cell: |path| percent_or(path.while_up(path.loss_out)),
        paint: |path| path.while_up(path.loss_out).map(paint_of_loss),
    },
    Column {
        title: "<lost",
        width: 6,
        cell: |path| percent_or(path.while_up(path.loss_in)),
        paint: |path| path.while_up(path.loss_in).map(paint_of_loss),
    },
    column("Mbit>", 6, |path| mbit_or(path.bits_out)),
    column("<Mbit", 6, |path| mbit_or(path.bits_in)),
    column("first", 6, |path| percent_or(path.first())),
];

/// Those that are there if the terminal is wide enough, the most useful first.
static IF_WIDE: &[Column] = &[
    column("RTT min", 9, |path| millis_or(path.min_rtt)),
    column("only", 6, |path| percent_or(path.only_out)),
    column("lead", 9, |path| millis_or(path.lead_out)),
    column("10s>", 6, |path| percent_or(path.loss_out_10s)),
    column("<10s", 6, |path| percent_or(path.loss_in_10s)),
    column("queue", 6, |path| count_or(path.queued)),
    column("address", 24, |path| path.remote.clone().unwrap_or_else(nothing)),
    column("packet", 8, |path| path.max_packet.to_string()),
    column("sent", 12, |path| path.sent.to_string()),
    column("received", 12, |path| path.received.to_string()),
    column("not taken", 11, |path| path.send_dropped.to_string()),
    column("RTT last", 10, |path| millis_or(path.last_rtt)),
];

/// What is above the table: which program, and how it is.
pub(crate) fn heading(style: Style, status: &Status, width: usize) -> Vec<String> {
    let Status { program, pid, .. } = status;
    let title = format!("{program} {pid}");
    let state = match (status.connected, status.is_server) {
        (true, true) => format!("{} client{}", status.peers, plural(status.peers)),
        (false, true) => "no client yet".to_owned(),
        (true, false) => match status.silent {
            None => "connected".to_owned(),
            Some(silent) => format!("NO ANSWER FROM THE SERVER for {}", age(silent)),
        },
        (false, false) => "NOT CONNECTED".to_owned(),
    };
    let paint = if status.connected && status.silent.is_none() { Paint::Green } else { Paint::Red };
    let facts = [
        status.cipher.clone().unwrap_or_default(),
        status.mode.clone(),
        format!("running for {}", age(status.uptime)),
        format!("version {}", status.version),
    ];
    // As many as there is room for: the last ones are of the least use.
    let mut room = width.saturating_sub(terminal::columns(&title) + 2 + terminal::columns(&state));
    let mut first = format!("{}: {}", style.paint(Paint::Bold, &title), style.paint(paint, &state));
    for fact in facts.iter().filter(|fact| !fact.is_empty()) {
        let Some(rest) = room.checked_sub(2 + terminal::columns(fact)) else { break };
        room = rest;
        first += &format!(", {fact}");
    }
    let listen = status.listen.join(", ");
    let flows = format!("{} application{}", status.flows, plural(status.flows));
    let second = format!(
        "{flows}, listens on {listen}; to the tunnel {}, from it {}",
        status.to_tunnel, status.from_tunnel
    );
    vec![first, clipped(&second, width)]
}

/// The titles of the table, and a line for each path.
pub(crate) fn table(style: Style, status: &Status, width: usize) -> Vec<String> {
    let longest = status.paths.iter().map(|path| path.name.chars().count()).max().unwrap_or(0);
    let fixed: usize = ALWAYS.iter().map(|column| column.width).sum();
    // Names are whole before there are more columns: what is left of the line is theirs.
    let who = if status.is_server { "client/path" } else { "path" };
    let name = longest.clamp(who.len(), width.max(WIDTH) - fixed);
    let mut columns: Vec<&Column> = ALWAYS.iter().collect();
    let mut used = fixed + name;
    for column in IF_WIDE {
        if used + column.width > width {
            break;
        }
        used += column.width;
        columns.push(column);
    }
    let mut titles = format!("{who:<name$}");
    for column in &columns {
        titles += &format!("{:>width$}", column.title, width = column.width);
    }
    let mut lines = vec![style.paint(Paint::Dim, &titles)];
    for path in &status.paths {
        let mut line = format!("{:<name$}", shortened(&path.name, name));
        for column in &columns {
            // One blank at least between the columns. Colours do not count for the width.
            let cell = clipped(&(column.cell)(path), column.width - 1);
            let cell = format!("{cell:>width$}", width = column.width);
            line += &(column.paint)(path).map_or(cell.clone(), |paint| style.paint(paint, &cell));
        }
        lines.push(line);
    }
    lines
}

/// Why those paths are not up that are not, and what else is amiss.
pub(crate) fn remarks(style: Style, status: &Status, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for path in status.paths.iter().filter(|path| path.state != "up") {
        let text = format!("{} {}: {}", path.name, path.verb_and_state(), path.reason);
        lines.push(style.paint(paint_of_state(path), &clipped(&text, width)));
    }
    if status.paths.is_empty() && !status.is_server {
        lines.push("no path: mptunnel path add to=HOST:PORT".to_owned());
    }
    if status.kernel_dropped > 0 {
        let text = format!(
            "{} bursts found a receive buffer full: sysctl -w net.core.rmem_max=16777216, restart",
            status.kernel_dropped
        );
        lines.push(style.paint(Paint::Yellow, &clipped(&text, width)));
    }
    let refused: u64 = status.paths.iter().map(|path| path.send_dropped).sum();
    if refused > 0 {
        let text = format!(
            "{refused} packets not taken: more was sent than a rate or a socket has room for"
        );
        lines.push(style.paint(Paint::Yellow, &clipped(&text, width)));
    }
    let dropped: Vec<String> =
        status.dropped.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let mut text = format!("{} copies removed", status.copies);
    if !dropped.is_empty() {
        text += &format!("; dropped: {}", dropped.join(", "));
    }
    lines.push(style.paint(Paint::Dim, &clipped(&text, width)));
    lines
}

/// What the columns mean.
pub(crate) fn legend(style: Style, width: usize) -> Vec<String> {
    let wide = LEGEND_IF_WIDE.iter().filter(|line| terminal::columns(line) <= width);
    let lines = LEGEND.iter().chain(wide.filter(|_| width > WIDTH + 60));
    lines.map(|line| style.paint(Paint::Dim, line)).collect()
}

/// Of the columns that a wide terminal has.
pub(super) const LEGEND_IF_WIDE: [&str; 2] = [
    "only: of a sample of what is sent here and elsewhere, the share that comes here only. lead: by how much it comes sooner here.",
    "10s: lost in the last 10 s. queue: packets that wait for the rate of the path. packet: the largest that fits, in bytes.",
];

pub(super) const LEGEND: [&str; 2] = [
    "> out, < in. lost: of the latest packets. Mbit: per second, in the last second.",
    "first: of what came on this path, the share that no other path brought before.",
];

fn paint_of_state(path: &Path) -> Paint {
    match &*path.state {
        "up" => Paint::Green,
        "starting" => Paint::Yellow,
        _ => Paint::Red,
    }
}

/// `s`, unless there is one.
pub(crate) fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn nothing() -> String {
    "-".to_owned()
}

/// A time on the way, or a dash.
pub(crate) fn millis_or(time: Option<Duration>) -> String {
    time.map_or_else(nothing, millis)
}

/// A fraction, or a dash.
pub(crate) fn percent_or(share: Option<f64>) -> String {
    share.map_or_else(nothing, percent)
}

/// Megabits per second, or a dash.
pub(crate) fn mbit_or(bits: Option<f64>) -> String {
    bits.map_or_else(nothing, mbit)
}

/// A count, or a dash.
pub(crate) fn count_or(count: Option<u64>) -> String {
    count.map_or_else(nothing, |count| count.to_string())
}

/// A fraction: `12.0%`, `100%`.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent >= 99.95 { "100%".to_owned() } else { format!("{percent:.1}%") }
}

/// A time on the way: `0.42 ms`, `41.5 ms`, `1043 ms`.
pub(crate) fn millis(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        ..0.995 => format!("{ms:.2} ms"),
        ..99.95 => format!("{ms:.1} ms"),
        _ => format!("{ms:.0} ms"),
    }
}

fn mbit(bits: f64) -> String {
    let mbit = bits / 1e6;
    match mbit {
        ..9.995 => format!("{mbit:.2}"),
        ..99.95 => format!("{mbit:.1}"),
        _ => format!("{mbit:.0}"),
    }
}

/// How long something has been so, in five columns at most: `59s`, `12m`, `3h07`, `5d03`, `365d`.
pub(crate) fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, _) => format!("{hours}h{:02}", minutes % 60),
        (1..100, _, _) => format!("{days}d{:02}", hours % 24),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLAIN: Style = Style { colour: false, unicode: false };

    fn client() -> Status {
        let path = |id: u64, name: &str, state: &str| {
            json!({
                "id": id, "slot": id - 1, "name": name, "state": state, "backup": id == 2,
                "reason": if state == "up" { "its probes are answered" } else { "no interface wwan0" },
                "since_us": 7_980_000_000_u64, "remote": "192.0.2.1:4000", "max_packet": 1_472,
                "rtt_us": 41_500, "min_rtt_us": 40_000, "last_rtt_us": 43_000, "jitter_us": 800,
                "loss_out": 0.1, "loss_in": 0.0, "sent": 1_000, "send_dropped": 2,
                "received": 900, "wins": 450, "duplicates": 450,
                "last_1s": { "length_us": 1_000_000, "sent_bytes": 125_000, "received_bytes": 12_500_000 },
            })
        };
        Status::of(&json!({
            "program": "mpclient", "pid": 4711, "version": "0.1.0", "uptime_s": 100_000.0,
            "role": "client", "connected": true, "cipher": "aes-256-gcm", "mode": "redundant",
            "listen": ["127.0.0.1:3000"], "dropped": {"duplicate": 77, "too_old": 1, "auth_fail": 0},
            "relay": {"flows": 1, "to_tunnel": 5, "from_tunnel": 6},
            "paths": [path(1, "bridge1.example:4000", "up"), path(2, "lte", "up"),
                      path(3, "c", "no_socket")],
        }))
    }

    #[test]
    fn a_client_fits_a_terminal_of_80_columns() {
        let status = client();

        let lines = [
            heading(PLAIN, &status, WIDTH),
            table(PLAIN, &status, WIDTH),
            remarks(PLAIN, &status, WIDTH),
        ]
        .concat();

        assert_eq!(
            lines,
            [
                "mpclient 4711: connected, aes-256-gcm, redundant, running for 1d03",
                "1 application, listens on 127.0.0.1:3000; to the tunnel 5, from it 6",
                "path                  state   for     RTT  jitter lost> <lost Mbit> <Mbit first",
                "bridge1...le:4000        up  2h13 41.5 ms 0.80 ms 10.0%  0.0%  1.00   100 50.0%",
                "lte                  backup  2h13 41.5 ms 0.80 ms 10.0%  0.0%  1.00   100 50.0%",
                "c                 no socket  2h13 41.5 ms 0.80 ms     -     -  1.00   100 50.0%",
                "c has no socket: no interface wwan0",
                "6 packets not taken: more was sent than a rate or a socket has room for",
                "77 copies removed; dropped: too_old 1",
            ]
        );
    }

    #[test]
    fn a_server_that_does_not_answer_is_no_connection_whatever_keys_there_are() {
        let status = Status { silent: Some(Duration::from_secs(29)), ..client() };

        let first = &heading(PLAIN, &status, WIDTH)[0];

        assert!(first.starts_with("mpclient 4711: NO ANSWER FROM THE SERVER for 29s, "), "{first}");
    }

    #[test]
    fn a_wide_terminal_shows_more_columns_and_whole_names() {
        for width in [79, 80, 100, 200] {
            let lines = table(PLAIN, &client(), width);
            assert!(lines.iter().all(|line| line.len() <= width), "{lines:#?}");
        }
        let lines = table(PLAIN, &client(), 200);
        assert!(lines[0].contains("address") && lines[0].contains("not taken"), "{}", lines[0]);
        assert!(lines[1].starts_with("bridge1.example:4000 "), "{}", lines[1]);
    }

    #[test]
    fn a_server_names_paths_by_client_and_number() {
        let status = Status::of(&json!({
            "program": "mpserver", "role": "server", "connected": true,
            "peers": [{"id": 7, "paths": [{"slot": 0, "state": "up"}, {"slot": 2, "state": "down"}]}],
        }));

        let names: Vec<&str> = status.paths.iter().map(|path| &*path.name).collect();

        assert_eq!(names, ["7/0", "7/2"]);
        assert_eq!(status.path("7/2").unwrap().state, "down");
        assert!(heading(PLAIN, &status, 80)[0].contains(": 1 client, "));
    }

    #[test]
    fn names_from_elsewhere_cannot_draw() {
        let status = Status::of(&json!({"paths": [{"name": "\u{1b}[31mx", "state": "up"}]}));

        assert_eq!(status.paths[0].name, "?[31mx");
    }

    #[test]
    fn times_take_five_columns_at_most() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_599, "59m"),
            (3_600, "1h00"),
            (86_399, "23h59"),
            (86_400, "1d00"),
            (8_639_999, "99d23"),
            (8_640_000, "100d"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }
}
