// SPDX-License-Identifier: BSD-2-Clause
//! The table on a screen of its own, drawn again and again, with the latest events below it.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::flag;

use super::model::Status;
use super::table;
use crate::control::client::{Connection, ControlError};
use crate::terminal::{self, Canvas, Paint, Style, clipped, harmless};

/// Rows that are always there, beside the paths: heading, titles, gaps, the keys.
const EVENTS_FROM: usize = 3;

/// Shows the program until q or a signal. If it ends before, its last state stays in sight.
pub(super) fn show(program: &mut Connection, interval: Duration) -> Result<(), ControlError> {
    let mut last = None;
    let shown = draw(program, interval, &mut last);
    match (&shown, last) {
        (Err(ControlError::Ended(_)), Some(status)) => super::print_once(&status).and(shown),
        _ => shown,
    }
}

fn draw(
    program: &mut Connection,
    interval: Duration,
    last: &mut Option<Status>,
) -> Result<(), ControlError> {
    let over = Arc::new(AtomicBool::new(false));
    let resized = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register(signal, over.clone()).map_err(ControlError::Lost)?;
    }
    flag::register(SIGWINCH, resized.clone()).map_err(ControlError::Lost)?;
    let _keys = Keys::take();
    let mut canvas = Canvas::open_full().map_err(ControlError::Lost)?;
    let mut screen = Screen { style: Style::of_terminal(), offset: 0 };
    while !over.load(Relaxed) {
        let status = &*last.insert(super::ask(program)?);
        let events = program.ask(&json!({ "ask": "recent" }))?;
        let due = now() + interval;
        loop {
            let (columns, rows) = terminal::size().unwrap_or((table::WIDTH, 24));
            let lines = screen.lines(status, &events, columns, rows);
            canvas.redraw(&lines).map_err(ControlError::Lost)?;
            match wait(due) {
                Some(b'q' | b'Q' | 0x03 | 0x04) => return Ok(()),
                Some(key) => screen.scroll(key, status.paths.len(), rows),
                None if over.load(Relaxed) || now() >= due => break,
                // The window has another size.
                None => {}
            }
        }
    }
    Ok(())
}

struct Screen {
    style: Style,
    /// Paths that are above the screen.
    offset: usize,
}

impl Screen {
    fn scroll(&mut self, key: u8, paths: usize, rows: usize) {
        let page = rows.saturating_sub(10).max(1);
        self.offset = match key {
            b'j' => self.offset + 1,
            b'k' => self.offset.saturating_sub(1),
            b' ' => self.offset + page,
            b'b' => self.offset.saturating_sub(page),
            b'g' => 0,
            _ => self.offset,
        }
        .min(paths.saturating_sub(1));
    }

    /// Fewer lines than there are rows.
    fn lines(&self, status: &Status, events: &Value, columns: usize, rows: usize) -> Vec<String> {
        let style = self.style;
        let mut lines = table::heading(style, status, columns);
        lines.push(String::new());
        let mut table = table::table(style, status, columns);
        let titles = table.remove(0);
        let remarks = table::remarks(style, status, columns);
        // What is left for paths: not all of it is, so that remarks and events are seen as well.
        let room = rows.saturating_sub(lines.len() + 1 + 1 + 2 + remarks.len().min(6)).max(1);
        let shown = table.len().saturating_sub(self.offset).min(room);
        let hidden = table.len() - shown;
        lines.push(titles);
        lines.extend(table.into_iter().skip(self.offset).take(shown));
        if hidden > 0 {
            let from = self.offset + 1;
            let text = format!(
                "paths {from} to {} of {}: j and k, space and b scroll",
                self.offset + shown,
                status.paths.len()
            );
            lines.push(style.paint(Paint::Dim, &text));
        }
        lines.push(String::new());
        lines.extend(remarks.into_iter().take(rows.saturating_sub(lines.len() + 2)));
        if rows > lines.len() + EVENTS_FROM {
            lines.push(String::new());
            let room = rows - lines.len() - 2;
            let events = events.as_array().map_or(&[][..], Vec::as_slice);
            let latest = &events[events.len().saturating_sub(room.saturating_sub(3))..];
            lines.extend(latest.iter().map(|event| line_of(style, event, columns)));
            // Away from the events, at the bottom.
            let legend = table::legend(style, columns);
            if lines.len() + legend.len() + 2 < rows {
                lines.resize(rows - legend.len() - 2, String::new());
                lines.extend(legend);
            }
        }
        lines.truncate(rows.saturating_sub(2));
        lines.push(style.paint(Paint::Dim, "q quits; mptunnel explain PATH says why"));
        lines
    }
}

/// One event.
fn line_of(style: Style, event: &Value, columns: usize) -> String {
    // Only the time of day: the events of a screen are of today.
    let time = event["time"].as_str().and_then(|time| time.get(11..19)).unwrap_or("?");
    let text = harmless(event["text"].as_str().unwrap_or("?"));
    let text = clipped(&format!("{time} {text}"), columns);
    match event["level"].as_str() {
        Some("warn" | "error") => style.paint(Paint::Yellow, &text),
        Some("debug") => style.paint(Paint::Dim, &text),
        _ => text,
    }
}

/// Waits for a key until `due`; `None` if there was none, or the wait was interrupted.
fn wait(due: Instant) -> Option<u8> {
    let left = due.saturating_duration_since(now());
    let millis = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
    let stdin = io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let is_ready = poll(&mut fds, PollTimeout::from(millis)).is_ok_and(|ready| ready > 0);
    if !is_ready {
        return None;
    }
    let mut key = [0; 1];
    match stdin.lock().read(&mut key) {
        Ok(1) => Some(key[0]),
        // The terminal is gone.
        _ => Some(b'q'),
    }
}

#[allow(clippy::disallowed_methods, reason = "it draws for people, in real time")]
fn now() -> Instant {
    Instant::now()
}

/// The keyboard without echo and without waiting for the end of a line, until this is dropped.
struct Keys(Option<Termios>);

impl Keys {
    fn take() -> Keys {
        let stdin = io::stdin();
        let Ok(before) = tcgetattr(&stdin) else { return Keys(None) };
        let mut raw = before.clone();
        raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        Keys(tcsetattr(&stdin, SetArg::TCSANOW, &raw).ok().map(|()| before))
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}
