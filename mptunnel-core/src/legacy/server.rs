// SPDX-License-Identifier: BSD-2-Clause
//! The server's end: the sources of its one client.
//!
//! A source is learned from a sound datagram, and is all that there is to know of a client: two
//! clients cannot be told apart. A classic client opens a new port when it sends and has heard
//! nothing for 60 s; a bridge that serves the first port only (`socat` without `fork`) is dead
//! then. So every source that is sent nothing gets a sign of life, which the client counts as heard.

use super::receiver::{Arrival, Receiver, Run};
use super::timers::Timers;
use super::usage::Usage;
use crate::proto::drop::{DropCounters, DropReason};
use crate::proto::num::widen;
use crate::proto::time::Time;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Sources at a time. Whoever can send a datagram can be one, so there is an end to them.
pub const MAX_SOURCES: u8 = 32;

/// Where a datagram came from, and to which socket.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Remote {
    /// The number of the socket.
    pub socket: u32,
    /// The address of the bridge, or of the client.
    pub address: SocketAddr,
}

/// What happened or is to be done. Sources have numbers below [`MAX_SOURCES`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum News {
    /// There is a new source.
    Up(u8, Remote),
    /// A source is forgotten.
    Gone(u8, Remote),
    /// A source reaches us at another of our addresses: answers leave from there.
    Moved(u8),
    /// Send a sign of life to this source.
    Speak(u8),
    /// The client counts anew: it was restarted.
    Restarted,
}

/// One source.
#[derive(Debug)]
struct Source {
    remote: Remote,
    local: Option<IpAddr>,
    usage: Arc<Usage>,
    heard: Time,
    /// When a sign of life was asked for last.
    spoke: Time,
    run: Run,
}

/// The server's end of one tunnel. See the [module](super) for how it is driven.
#[derive(Debug)]
pub struct Server {
    timers: Timers,
    receiver: Receiver,
    sources: BTreeMap<u8, Source>,
    numbers: HashMap<Remote, u8>,
    /// The source of the datagram before, which is most often that of the next one.
    last: Option<(Remote, u8)>,
    news: VecDeque<News>,
    drops: Arc<DropCounters>,
}

impl Server {
    /// A server without a client. `window`: numbers that a late copy may lag behind.
    pub fn new(timers: Timers, window: u32, drops: Arc<DropCounters>) -> Self {
        Server {
            timers,
            receiver: Receiver::new(window, timers),
            sources: BTreeMap::new(),
            numbers: HashMap::new(),
            last: None,
            news: VecDeque::new(),
            drops,
        }
    }

    /// How many numbers its window remembers.
    pub fn window(&self) -> u32 {
        self.receiver.window()
    }

    /// All sources: number, where it is, the address of ours that it reaches, counters.
    pub fn sources(&self) -> impl Iterator<Item = (u8, Remote, Option<IpAddr>, &Arc<Usage>)> {
        self.sources.iter().map(|(number, s)| (*number, s.remote, s.local, &s.usage))
    }

    /// Takes a datagram, and returns its source and what is to be delivered of it. Afterwards there
    /// may be [news](Self::poll_news).
    pub fn receive<'d>(
        &mut self,
        now: Time,
        remote: Remote,
        local: Option<IpAddr>,
        datagram: &'d mut [u8],
    ) -> Option<(u8, &'d [u8])> {
        let bytes = widen(datagram.len());
        let known = match self.last {
            Some((last, number)) if last == remote => Some(number),
            _ => self.numbers.get(&remote).copied(),
        };
        let number = match known.or_else(|| self.free(now)) {
            Some(number) => number,
            None => {
                self.drops.count(DropReason::RateLimited);
                return None;
            }
        };
        let mut fresh = Run::default();
        let run = match self.sources.get_mut(&number) {
            Some(source) if known.is_some() => &mut source.run,
            _ => &mut fresh,
        };
        let arrival = self.receiver.receive(now, run, datagram);
        if let Arrival::Refused(reason) = arrival {
            // Nobody is registered, kept or displaced by what is not sound.
            self.drops.count(reason);
            return None;
        }
        if known.is_none() {
            self.register(now, number, remote, local, fresh);
        }
        self.last = Some((remote, number));
        if let Some(source) = self.sources.get_mut(&number) {
            source.heard = now;
            source.usage.on_heard(now, bytes, matches!(arrival, Arrival::Copy(_)));
            if local.is_some() && source.local != local {
                source.local = local;
                self.news.push_back(News::Moved(number));
            }
        }
        match arrival {
            Arrival::Data(payload) => Some((number, payload)),
            Arrival::Restarted(payload) => {
                self.news.push_back(News::Restarted);
                Some((number, payload))
            }
            Arrival::Copy(reason) => {
                self.drops.count(reason);
                None
            }
            Arrival::Control | Arrival::Refused(_) => None,
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        let timers = self.timers;
        let over = |source: &Source| source.heard + timers.forget() <= now;
        let gone = |(number, source): (&u8, &Source)| over(source).then_some(*number);
        let gone: Vec<u8> = self.sources.iter().filter_map(gone).collect();
        for number in gone {
            self.forget(number);
        }
        for (number, source) in &mut self.sources {
            if source.sign(timers) <= now {
                source.spoke = now;
                self.news.push_back(News::Speak(*number));
            }
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), at the latest.
    pub fn poll_timeout(&self) -> Time {
        let due =
            |source: &Source| source.sign(self.timers).min(source.heard + self.timers.forget());
        self.sources.values().map(due).min().unwrap_or(Time::NEVER)
    }

    /// The next piece of news.
    pub fn poll_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// A number for a new source: an unused one, or that of the source that was silent for longest,
    /// if that is long enough.
    fn free(&self, now: Time) -> Option<u8> {
        let unused = (0..MAX_SOURCES).find(|number| !self.sources.contains_key(number));
        unused.or_else(|| {
            let (number, oldest) = self.sources.iter().min_by_key(|(_, source)| source.heard)?;
            (now.since(oldest.heard) >= self.timers.displace()).then_some(*number)
        })
    }

    fn register(&mut self, now: Time, number: u8, remote: Remote, local: Option<IpAddr>, run: Run) {
        self.forget(number);
        let usage = Arc::default();
        let source = Source { remote, local, usage, heard: now, spoke: now, run };
        self.sources.insert(number, source);
        self.numbers.insert(remote, number);
        self.news.push_back(News::Up(number, remote));
        // At once: an end of ours learns from it that the way is open in both directions. It is no
        // longer than what asked for it.
        self.news.push_back(News::Speak(number));
    }

    fn forget(&mut self, number: u8) {
        if let Some(source) = self.sources.remove(&number) {
            self.numbers.remove(&source.remote);
            self.last = None;
            self.news.push_back(News::Gone(number, source.remote));
        }
    }
}

impl Source {
    /// When it is to be given a sign of life.
    fn sign(&self, timers: Timers) -> Time {
        self.usage.sent_at().unwrap_or(self.spoke).max(self.spoke) + timers.reassure()
    }
}
