// SPDX-License-Identifier: BSD-2-Clause
//! The table, as text.

use std::time::Duration;

use super::play::{Event, Tone};
use super::scene::PATHS;
use super::tally::Report;
use super::traffic::RATE;
use super::verdict::percent;
use crate::terminal::{Paint, Style, clipped, paint_of_loss};

/// Columns that the table needs.
pub const WIDTH: usize = 79;
/// Cells of a timeline.
pub const TIMELINE: u32 = 16;

/// All that there is to see at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// Since the start.
    pub now: Duration,
    /// Each path alone.
    pub alone: Vec<Report>,
    /// The tunnel.
    pub tunnel: Report,
    /// Copies that the ends of the tunnel have removed.
    pub removed: Option<u64>,
    /// The path whose bridges are gone.
    pub path_down: Option<usize>,
    /// Whether mpserver is gone.
    pub server_down: bool,
    /// What happened so far.
    pub events: Vec<Event>,
}

/// What is said before the table.
pub fn heading(style: Style, total: Duration) -> Vec<String> {
    let seconds = total.as_secs();
    let title = style.paint(Paint::Bold, "mptunnel demo");
    let rest = format!(": {RATE} datagrams/s to an echo application and back, for {seconds} s");
    let paths = (1..).zip(&PATHS).map(|(path, kind)| format!("{path}: {}", kind.words));
    let paths = format!("path {}", paths.collect::<Vec<_>>().join(" · "));
    vec![format!("{title}{rest}"), style.paint(Paint::Dim, &style.spell(&paths))]
}

/// The table without events.
pub fn table(style: Style, view: &View) -> Vec<String> {
    let time = format!("{:.1} s", view.now.as_secs_f64());
    let titles = [&time, "over time", "sent", "delivered", "lost", "RTT", "twice", "removed"];
    let mut lines = vec![style.paint(Paint::Dim, &aligned(titles.map(String::from)).concat())];
    for (path, report) in view.alone.iter().enumerate() {
        let name = match view.path_down == Some(path) {
            true => (format!("path {}: down", path + 1), Some(Paint::Red)),
            false => (format!("path {} alone", path + 1), None),
        };
        lines.push(row(style, name, report, "-".to_owned()));
    }
    let name = match view.server_down {
        true => ("tunnel: down".to_owned(), Some(Paint::Red)),
        false => ("tunnel".to_owned(), Some(Paint::Bold)),
    };
    let removed = view.removed.map_or("?".to_owned(), |count| count.to_string());
    lines.push(row(style, name, &view.tunnel, removed));
    lines
}

/// What the columns mean.
pub fn legend(style: Style) -> Vec<String> {
    LEGEND.map(|line| style.paint(Paint::Dim, line)).into()
}

/// One event.
pub fn event(style: Style, event: &Event) -> String {
    let (paint, mark) = match event.tone {
        Tone::Bad => (Some(Paint::Red), "x"),
        Tone::Good => (Some(Paint::Green), "+"),
        Tone::Said => (None, " "),
    };
    let at = format!("{:>5.1} s ", event.at.as_secs_f64());
    // A line that the terminal wraps would make the table jump.
    let text = clipped(&format!("{mark} {}", style.spell(&event.text)), WIDTH - at.len());
    style.paint(Paint::Dim, &at) + &paint.map_or(text.clone(), |paint| style.paint(paint, &text))
}

/// One contender, with what is to be said of copies removed.
fn row(
    style: Style,
    (name, paint): (String, Option<Paint>),
    report: &Report,
    removed: String,
) -> String {
    let mut cells = aligned([
        name,
        timeline(style, &report.timeline),
        report.sent.to_string(),
        report.delivered.to_string(),
        report.loss.map_or(String::new(), percent),
        report.round_trip.map_or(String::new(), millis),
        report.twice.to_string(),
        removed,
    ]);
    // Only now, since colours do not count for the widths.
    let [name, _, _, _, loss, ..] = &mut cells;
    if let Some(paint) = paint {
        *name = style.paint(paint, name);
    }
    *loss = style.paint(paint_of_loss(report.loss.unwrap_or(0.0)), loss);
    cells.concat()
}

/// The cells of a line, each as wide as its column: words begin, and numbers end, below each other.
fn aligned([name, timeline, numbers @ ..]: [String; 8]) -> [String; 8] {
    let [sent, delivered, lost, rtt, twice, removed] = numbers;
    [
        format!("{name:<14}"),
        format!("{timeline:<16}"),
        format!("{sent:>7}"),
        format!("{delivered:>10}"),
        format!("{lost:>9}"),
        format!("{rtt:>8}"),
        format!("{twice:>6}"),
        format!("{removed:>9}"),
    ]
}

/// A bar for each part of the time, as high as the share delivered.
fn timeline(style: Style, shares: &[f64]) -> String {
    let bars = if style.unicode { BARS } else { ASCII_BARS };
    let bar = |share: &f64| bars[(share * (bars.len() - 1) as f64).ceil() as usize];
    shares.iter().map(bar).collect()
}

/// Milliseconds, rounded.
pub fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

const LEGEND: [&str; 3] = [
    "Each datagram goes to all four. Loss and delay are those of each direction.",
    "over time: the share delivered. delivered: the echo came back. RTT: median.",
    "twice: echoes that came again. removed: copies, by mpserver and mpclient.",
];

/// From nothing to all, where the lowest bar is a single one that came.
const BARS: [char; 9] = ['_', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII_BARS: [char; 9] = ['_', '.', ':', '-', '=', '+', '*', '%', '#'];

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let report = |delivered, loss, twice| Report {
            sent: 2000,
            delivered,
            loss: Some(loss),
            round_trip: Some(Duration::from_micros(41_600)),
            twice,
            altered: 0,
            timeline: vec![1.0, 0.81, 0.001, 0.0],
        };
        View {
            now: Duration::from_secs(5),
            alone: vec![report(1620, 0.19, 0), report(800, 0.6, 2), Report::default()],
            tunnel: report(1990, 0.005, 0),
            removed: Some(3800),
            path_down: Some(1),
            server_down: false,
            events: Vec::new(),
        }
    }

    const PLAIN: Style = Style { colour: false, unicode: false };
    const RICH: Style = Style { colour: true, unicode: true };

    #[test]
    fn without_colours_it_is_plain_text_in_columns() {
        let lines = table(PLAIN, &view());

        assert_eq!(
            lines,
            [
                "5.0 s         over time          sent delivered     lost     RTT twice  removed",
                "path 1 alone  #%._               2000      1620   19.0 %   42 ms     0        -",
                "path 2: down  #%._               2000       800   60.0 %   42 ms     2        -",
                "path 3 alone                        0         0                      0        -",
                "tunnel        #%._               2000      1990    0.5 %   42 ms     0     3800",
            ]
        );
    }

    #[test]
    fn colours_do_not_move_the_columns() {
        let strip = |line: &String| {
            let parts = line.split('\x1b').map(|part| part.split_once('m').unwrap_or(("", part)).1);
            parts.collect::<String>()
        };

        let lines = table(RICH, &view());

        let unicode = Style { colour: false, unicode: true };
        assert_eq!(lines.iter().map(strip).collect::<Vec<_>>()[1..], table(unicode, &view())[1..]);
        assert!(lines[1].contains("\x1b[31m   19.0 %\x1b[0m"), "{:?}", lines[1]);
        assert!(lines[2].starts_with("\x1b[31mpath 2: down"), "{:?}", lines[2]);
        assert!(lines[4].contains("█▇▁_"), "{:?}", lines[4]);
    }

    #[test]
    fn every_line_fits_the_terminal() {
        let long = "mpclient says: ".repeat(20);
        let said = Event { at: Duration::from_secs(600), tone: Tone::Said, text: long };
        let lines = [
            heading(PLAIN, Duration::from_secs(600)),
            table(PLAIN, &view()),
            legend(PLAIN),
            vec![event(PLAIN, &said)],
        ];

        for line in lines.concat() {
            assert!(line.is_ascii() && line.len() <= WIDTH, "{} columns: {line}", line.len());
        }
        assert!(event(PLAIN, &said).ends_with("..."));
    }
}
