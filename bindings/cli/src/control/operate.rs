// SPDX-License-Identifier: BSD-2-Clause
//! What can be asked of a running program, and what it answers. The same for a signal and for a
//! request of the control socket.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mptunnel_core::options::{OPTIONS, OptionSpec, PathSpec, Settings};
use mptunnel_core::{Error, PathId, Snapshot, Tunnel};
use serde_json::{Value, json};

use super::events::EventLog;
use crate::program::Relay;
use crate::reload;

/// Why a server does not list, add, change or remove paths.
pub(crate) const NO_PATHS: &str = "mpserver has no paths of its own: it learns those of its \
     clients; ask the mpclient, or look at them with mptunnel status";

/// A running program, as its signals and its control socket see it.
pub(crate) struct Operations<R> {
    /// `mpclient` or `mpserver`.
    pub(crate) program: &'static str,
    /// What it runs.
    pub(crate) relay: R,
    /// What it did lately.
    pub(crate) events: EventLog,
    /// The options as they count now. Locked for as long as one is changed.
    in_force: Mutex<Settings>,
    started: Instant,
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It was done, and this is the result, as JSON.
    Done(String),
    /// The events from this number on are wanted: those that are remembered, and all new ones.
    Follow(u64),
}

/// Why a request was not done.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Refusal {
    /// `usage`: the request is wrong. `failed`: it may go well later.
    pub(crate) kind: &'static str,
    pub(crate) text: String,
}

impl Refusal {
    fn usage(text: impl ToString) -> Refusal {
        Refusal { kind: "usage", text: text.to_string() }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        let kind = match error {
            Error::Config(_) | Error::UnknownPath(_) | Error::Unsupported(_) => "usage",
            _ => "failed",
        };
        Refusal { kind, text: error.to_string() }
    }
}

impl<R: Relay> Operations<R> {
    #[allow(clippy::disallowed_methods, reason = "the time is shown and nothing depends on it")]
    pub(crate) fn new(
        program: &'static str,
        relay: R,
        settings: Settings,
        events: EventLog,
    ) -> Operations<R> {
        let in_force = Mutex::new(settings);
        Operations { program, relay, events, in_force, started: Instant::now() }
    }

    /// Answers one request.
    pub(crate) fn answer(&self, request: &Value) -> Result<Answer, Refusal> {
        let text = |key| request.get(key).and_then(Value::as_str);
        let word = |key| text(key).ok_or_else(|| Refusal::usage(format!("{key:?} is missing")));
        let done = |value: Value| Ok(Answer::Done(value.to_string()));
        match word("ask")? {
            "hello" => done(self.about()),
            "status" => Ok(Answer::Done(self.status(&self.relay.snapshot()))),
            "prometheus" => done(self.metrics().into()),
            "recent" => done(self.events.since(0).0.into()),
            "events" => {
                let now = self.events.since(u64::MAX).1;
                Ok(Answer::Follow(request.get("from").and_then(Value::as_u64).unwrap_or(now)))
            }
            "get" => self.get(text("key")).and_then(done),
            "set" => self.set(word("key")?, word("value")?).and_then(|()| done(Value::Null)),
            "path-add" => {
                let PathId(id) = self.tunnel()?.add_path_spec(self.new_path(word("words")?)?)?;
                log::info!("control: path {id} added");
                done(json!({ "id": id }))
            }
            "path-set" => {
                self.set_path(word("path")?, word("words")?)?;
                done(Value::Null)
            }
            "path-remove" => {
                let (id, name) = self.find_path(word("path")?)?;
                self.tunnel()?.remove_path(id)?;
                log::info!("control: path {name} removed");
                done(Value::Null)
            }
            other => Err(Refusal::usage(format!("{} knows no request {other:?}", self.program))),
        }
    }

    /// The snapshot as Prometheus text, and for how long the program has run.
    pub(crate) fn metrics(&self) -> String {
        format!(
            "{}# HELP mptunnel_uptime_seconds For how long the program has run.\n\
             # TYPE mptunnel_uptime_seconds gauge\n\
             mptunnel_uptime_seconds {}\n",
            self.relay.snapshot().to_prometheus(),
            self.started.elapsed().as_secs_f64()
        )
    }

    /// Which program this is.
    fn about(&self) -> Value {
        let listen: Vec<String> = self.relay.listens_on().iter().map(ToString::to_string).collect();
        json!({
            "program": self.program,
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "protocol": 1,
            "uptime_s": self.started.elapsed().as_secs_f64(),
            "listen": listen,
            "paths": self.relay.tunnel().map(|tunnel| tunnel.paths().len()),
        })
    }

    /// The snapshot, and which program it is of.
    fn status(&self, snapshot: &Snapshot) -> String {
        let about = json!({
            "program": self.program,
            "pid": std::process::id(),
            "uptime_s": self.started.elapsed().as_secs_f64(),
            "listen": self.about()["listen"],
        });
        // Two objects made one: with thousands of clients the second one is not parsed for that.
        let (about, snapshot) = (about.to_string(), snapshot.to_json());
        format!("{},{}", &about[..about.len() - 1], &snapshot[1..])
    }

    fn get(&self, key: Option<&str>) -> Result<Value, Refusal> {
        let in_force = self.in_force();
        if let Some(key) = key {
            self.spec_of(key)?;
        }
        let wanted = |spec: &&OptionSpec| key.is_none_or(|key| key == spec.key);
        let here = OPTIONS.iter().filter(|spec| spec.scope.covers(R::PLACE)).filter(wanted);
        let row = |spec: &OptionSpec| {
            json!({
                "key": spec.key,
                "value": in_force.get(spec.key),
                "default": spec.default,
                "live": spec.live,
                "help": spec.help,
            })
        };
        Ok(here.map(row).collect())
    }

    fn set(&self, key: &str, value: &str) -> Result<(), Refusal> {
        let spec = self.spec_of(key)?;
        let mut in_force = self.in_force();
        let mut wanted = in_force.clone();
        wanted.set(key, value).map_err(Refusal::usage)?;
        if !spec.live {
            return Err(Refusal::usage(format!(
                "{key} counts only at the start: write {key} = {value} into the configuration \
                 file, or give --{key} {value}, and restart {}",
                self.program
            )));
        }
        self.put(&mut in_force, spec, value)?;
        log::info!("control: {key} = {value}");
        Ok(())
    }

    /// Changes one live option of everything that looks at it.
    fn put(&self, in_force: &mut Settings, spec: &OptionSpec, value: &str) -> Result<(), Error> {
        let mut changed = in_force.clone();
        changed.set(spec.key, value).map_err(|error| Error::Config(error.to_string()))?;
        if spec.scope.covers(R::LIBRARY) {
            self.relay.set(spec.key, value)?;
        }
        self.relay.take_limits(&changed);
        *in_force = changed;
        Ok(())
    }

    fn spec_of(&self, key: &str) -> Result<&'static OptionSpec, Refusal> {
        let Some(spec) = OptionSpec::find(key) else {
            // Setting it fails with a message that says which one may be meant.
            let unknown = Settings::default().set(key, "").err();
            return Err(Refusal::usage(
                unknown.map_or_else(|| key.to_owned(), |error| error.to_string()),
            ));
        };
        spec.check_place(R::PLACE).map_err(Refusal::usage)?;
        Ok(spec)
    }

    fn set_path(&self, path: &str, words: &str) -> Result<(), Refusal> {
        let tunnel = self.tunnel()?;
        let (id, name) = self.find_path(path)?;
        let words: Vec<(&str, &str)> = words
            .split_whitespace()
            .map(|word| word.split_once('=').ok_or_else(|| not_a_word(word)))
            .collect::<Result<_, _>>()?;
        // All of them or none: they are tried on a copy first.
        let info = tunnel.paths().into_iter().find(|path| path.id == id);
        let spec = info.and_then(|path| path.words.parse::<PathSpec>().ok());
        if let Some(mut spec) = spec {
            for (word, value) in &words {
                spec.set_word(word, value).map_err(Refusal::usage)?;
            }
        }
        for (word, value) in &words {
            tunnel.set_path(id, word, value)?;
            log::info!("control: path {name}: {word}={value}");
        }
        Ok(())
    }

    fn new_path(&self, words: &str) -> Result<PathSpec, Refusal> {
        let spec: PathSpec = words.parse().map_err(Refusal::usage)?;
        let name = spec.name.clone().or_else(|| spec.to.as_ref().map(ToString::to_string));
        let known = self.tunnel()?.paths();
        if let Some(name) = name.filter(|name| known.iter().any(|path| path.name == *name)) {
            return Err(Refusal::usage(format!(
                "there is a path {name} already: give the new one another name with name="
            )));
        }
        Ok(spec)
    }

    /// A path by its name, or by its number.
    fn find_path(&self, wanted: &str) -> Result<(PathId, String), Refusal> {
        let paths = self.tunnel()?.paths();
        let by_name = paths.iter().find(|path| path.name == wanted);
        let by_number = || paths.iter().find(|path| path.id.to_string() == wanted);
        if let Some(path) = by_name.or_else(by_number) {
            return Ok((path.id, path.name.clone()));
        }
        let names: Vec<&str> = paths.iter().map(|path| path.name.as_str()).collect();
        Err(Refusal::usage(format!("there is no path {wanted}: there are {}", names.join(", "))))
    }

    fn tunnel(&self) -> Result<&Tunnel, Refusal> {
        self.relay.tunnel().ok_or_else(|| Refusal::usage(NO_PATHS))
    }

    /// Takes over what differs in a configuration that was read again.
    pub(crate) fn reload(&self, settings: &Settings, paths: Option<Vec<PathSpec>>) {
        let mut in_force = self.in_force();
        let changes = reload::differing(&in_force, settings);
        for (spec, value) in &changes.live {
            if let Err(error) = self.put(&mut in_force, spec, value) {
                log::error!("{}: not changed: {error}", spec.key);
            }
        }
        let paths_changed = match (self.relay.tunnel(), paths) {
            (Some(tunnel), Some(paths)) => reload::change_paths(tunnel, &paths),
            _ => false,
        };
        reload::report(self.program, &changes, paths_changed);
    }

    fn in_force(&self) -> MutexGuard<'_, Settings> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_a_word(word: &str) -> Refusal {
    Refusal::usage(format!("{word:?} is not WORD=VALUE, such as role=backup"))
}
