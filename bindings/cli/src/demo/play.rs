// SPDX-License-Identifier: BSD-2-Clause
//! What happens in the demo and when, and what is to be told of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::DemoError;
use super::process::{Line, Who};
use super::scene::{Scene, says_listening};
use super::tally::Tally;
use crate::counters::copies_removed;

/// The plot, as far as it has come. All times count from the start of the traffic.
pub struct Play {
    start: Instant,
    steps: VecDeque<(Duration, Step)>,
    events: Vec<Event>,
    bridge_down: bool,
    outage: Outage,
    removed: Removed,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    KillBridge,
    StartBridge,
    KillServer,
    StartServer,
    AskForCounters,
}

/// Something that the user is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When it was.
    pub at: Duration,
    /// Whose news it is, and whether it is good.
    pub tone: Tone,
    /// What it was.
    pub text: String,
}

/// How to take an [`Event`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tone {
    /// The demo broke something.
    Bad,
    /// Something works again.
    Good,
    /// One of the programs said it.
    Said,
}

/// The time without a server.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outage {
    /// When it was killed.
    pub begin: Option<Duration>,
    /// When the next one had bound its socket.
    pub bound: Option<Duration>,
    /// When the first echo came through that one.
    pub first_echo: Option<Duration>,
}

impl Outage {
    /// How long it took from the moment that there was a server again.
    pub fn recovery(&self) -> Option<Duration> {
        Some(self.first_echo?.saturating_sub(self.bound?))
    }

    /// Whether there is no server.
    pub fn is_on(&self) -> bool {
        self.begin.is_some() && self.bound.is_none()
    }
}

/// Copies that the ends of the tunnel found to be copies, and removed.
#[derive(Clone, Copy, Debug, Default)]
struct Removed {
    client: Option<u64>,
    server: Option<u64>,
    /// By servers that are gone, as far as they had told.
    before: u64,
}

impl Play {
    /// A plot for `total`, which starts at `start`.
    pub fn new(start: Instant, total: Duration) -> Play {
        let steps = [
            (total / 3, Step::KillBridge),
            (total / 2 - SHORTLY, Step::AskForCounters),
            (total / 2, Step::KillServer),
            (total / 2 + SERVER_GONE_FOR, Step::StartServer),
            (total * 2 / 3, Step::StartBridge),
        ];
        // The last time is when no echo is expected any more.
        let halves = (0..=2 * total.as_secs()).map(|half| Duration::from_millis(500 * half + 450));
        let asking = halves.map(|at| (at, Step::AskForCounters));
        let mut steps: Vec<(Duration, Step)> = steps.into_iter().chain(asking).collect();
        steps.sort_by_key(|(at, _)| *at);
        Play {
            start,
            steps: steps.into(),
            events: Vec::new(),
            bridge_down: false,
            outage: Outage::default(),
            removed: Removed::default(),
        }
    }

    /// Does what is due.
    pub fn act(&mut self, scene: &mut Scene) -> Result<(), DemoError> {
        let now = self.start.elapsed();
        while let Some((_, step)) = self.steps.front().copied().filter(|(at, _)| *at <= now) {
            self.steps.pop_front();
            self.take(step, scene)?;
        }
        Ok(())
    }

    fn take(&mut self, step: Step, scene: &mut Scene) -> Result<(), DemoError> {
        let bridges = [Who::Bridge(VICTIM), Who::Alone(VICTIM)];
        match step {
            Step::KillBridge => {
                for who in bridges {
                    scene.kill(who);
                }
                self.bridge_down = true;
                self.tell(
                    Tone::Bad,
                    format!("kill -9: the bridge of path {}, in the tunnel and alone", VICTIM + 1),
                );
            }
            Step::StartBridge => {
                for who in bridges {
                    scene.start(who)?;
                }
            }
            Step::KillServer => {
                scene.kill(Who::Server);
                self.outage.begin = Some(self.start.elapsed());
                self.removed.before += self.removed.server.take().unwrap_or(0);
                self.tell(Tone::Bad, "kill -9: mpserver".to_owned());
            }
            Step::StartServer => scene.start(Who::Server)?,
            Step::AskForCounters => {
                scene.ask_for_counters(Who::Client);
                // Before it listens it may not know the signal, and would die of it.
                if !self.outage.is_on() {
                    scene.ask_for_counters(Who::Server);
                }
            }
        }
        Ok(())
    }

    /// Takes note of what a process said.
    pub fn hear(&mut self, line: Line) {
        let Some(at) = line.at.checked_duration_since(self.start) else { return };
        if let Some(count) = copies_removed(&line.text) {
            match line.from {
                Who::Client => self.removed.client = Some(count),
                Who::Server if !self.outage.is_on() => self.removed.server = Some(count),
                // The last words of the one that was killed.
                Who::Server => self.removed.before = count,
                Who::Bridge(_) | Who::Alone(_) => {}
            }
        } else if says_listening(&line) {
            match line.from {
                Who::Server => {
                    self.outage.bound = Some(at);
                    let gone = at.saturating_sub(self.outage.begin.unwrap_or(at)).as_secs_f64();
                    self.tell(Tone::Good, format!("mpserver listens again, after {gone:.2} s"));
                }
                Who::Bridge(path) => {
                    self.bridge_down = false;
                    let path = path + 1;
                    self.tell(Tone::Good, format!("the bridges of path {path} are back"));
                }
                Who::Client | Who::Alone(_) => {}
            }
        } else if matches!(line.from, Who::Client | Who::Server) {
            let message = message(&line.text);
            // The server does not know the names of paths, and its numbers differ from those here.
            let confusing = line.from == Who::Server && message.contains(": path ");
            if !confusing && !message.starts_with(ABOUT_BUFFERS) {
                let text = format!("{} says: {message}", line.from);
                self.events.push(Event { at, tone: Tone::Said, text });
            }
        }
    }

    /// Looks whether the tunnel carries again after its server was killed.
    pub fn watch(&mut self, tunnel: &Tally) {
        let Outage { begin: Some(begin), bound: Some(_), first_echo: None } = self.outage else {
            return;
        };
        self.outage.first_echo = tunnel.first_echo_since(begin);
        if let Some(recovery) = self.outage.recovery() {
            let text = format!(
                "echoes come again, {:.2} s after mpserver listened",
                recovery.as_secs_f64()
            );
            self.tell(Tone::Good, text);
        }
    }

    fn tell(&mut self, tone: Tone, text: String) {
        self.events.push(Event { at: self.start.elapsed(), tone, text });
    }

    /// What was told so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The path whose bridges are gone.
    pub fn path_down(&self) -> Option<usize> {
        self.bridge_down.then_some(VICTIM)
    }

    /// The time without a server.
    pub fn outage(&self) -> Outage {
        self.outage
    }

    /// Copies removed at both ends so far; `None` before the ends have told.
    pub fn copies_removed(&self) -> Option<u64> {
        let Removed { client, server, before } = self.removed;
        (client.is_some() || server.is_some())
            .then(|| client.unwrap_or(0) + server.unwrap_or(0) + before)
    }
}

/// A line of a log without its time and level.
fn message(line: &str) -> &str {
    line.splitn(3, ' ').nth(2).unwrap_or(line)
}

/// The path whose bridges are killed.
const VICTIM: usize = 1;
/// How long nobody starts the server again: what systemd waits by default (RestartSec in
/// systemd.service(5)).
const SERVER_GONE_FOR: Duration = Duration::from_millis(100);
/// What a process needs to answer, and more.
const SHORTLY: Duration = Duration::from_millis(100);
/// What the programs say where the system's limits are low, which does not matter here.
const ABOUT_BUFFERS: &str = "the system grants";
