// SPDX-License-Identifier: BSD-2-Clause
//! Sending: a number for each datagram, the same bytes over every lane.

use super::life::Life;
use super::numbers::Numbers;
use crate::io::clock;
use crate::io::errors::ErrorCounts;
use crate::io::outgoing::Outcome;
use crate::io::room::Room;
use crate::io::send::{CAPACITY, SendBatch};
use crate::io::socket::UdpSocket;
use crate::legacy::{HEADER_LEN, Kind, Usage, seal};
use crate::options::Settings;
use crate::proto::route::PathCounts;
use crate::sending::SendOptions;
use crate::sync::{Mutex, RwLock};
use crate::{Error, PathId};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// All packets of a batch go to every lane: they have this bit.
const ALL: u32 = 1;
/// Datagrams of one turn, so that what a full socket did not take can be told.
const AT_ONCE: usize = 512;

/// One way that copies go.
#[derive(Clone)]
pub(super) struct Lane {
    pub(super) path: PathId,
    pub(super) socket: Arc<UdpSocket>,
    /// Where to, and from which of our addresses; `None` for a connected socket.
    pub(super) to: Option<(SocketAddr, Option<IpAddr>)>,
    pub(super) usage: Arc<Usage>,
    /// Whether it is used only while there is no other.
    pub(super) backup: bool,
}

/// The ways there are.
#[derive(Default)]
pub(super) struct Lanes {
    pub(super) all: Vec<Lane>,
    /// Those that carry every datagram.
    chosen: Vec<Lane>,
}

impl Lanes {
    pub(super) fn new(all: Vec<Lane>) -> Self {
        let active = all.iter().any(|lane| !lane.backup);
        let chosen = all.iter().filter(|lane| !active || !lane.backup).cloned().collect();
        Lanes { all, chosen }
    }
}

/// What became of a part of a batch.
enum Turn {
    /// Nothing is left.
    Done,
    /// So many were taken. `full`: the others have to wait for room in the sockets of these.
    Sent { count: usize, full: Option<Vec<Lane>> },
}

/// The sending side of either end, for any number of threads.
pub(super) struct Outbound {
    lanes: RwLock<Arc<Lanes>>,
    pub(super) numbers: Numbers,
    max_payload: usize,
    obfuscate: bool,
    /// The state of the seeds' generator.
    seed: AtomicU64,
    /// Errors that sockets reported.
    pub(super) errors: ErrorCounts,
    /// What passed over paths that are gone.
    gone: Mutex<PathCounts>,
    /// Which lanes, for the thread that minds them. Bounded: one entry for each path and error.
    troubles: Mutex<Vec<(PathId, i32)>>,
}

impl Outbound {
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| Error::Io {
            op: "random numbers".to_owned(),
            source: std::io::Error::other(error.to_string()),
        })?;
        Ok(Outbound {
            lanes: RwLock::default(),
            numbers: Numbers::open(settings.legacy_state.as_deref())?,
            max_payload: super::max_payload(settings),
            obfuscate: settings.obfuscate,
            seed: AtomicU64::new(u64::from_le_bytes(seed)),
            errors: ErrorCounts::default(),
            gone: Mutex::default(),
            troubles: Mutex::default(),
        })
    }

    pub(super) fn lanes(&self) -> Arc<Lanes> {
        self.lanes.read().clone()
    }

    pub(super) fn publish(&self, lanes: Vec<Lane>) {
        *self.lanes.write() = Arc::new(Lanes::new(lanes));
    }

    /// A seed for what is sent: 0 unless it is to be hidden. Nothing depends on its quality, since
    /// it travels in clear (splitmix64: Steele, Lea, Flood, OOPSLA 2014).
    pub(super) fn iv(&self) -> u32 {
        if !self.obfuscate {
            return 0;
        }
        let mut mixed = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed >> 32) as u32).max(1)
    }

    /// Sends datagrams over the lanes that carry all of them.
    pub(super) fn send<'d>(
        &self,
        life: &Life,
        batch: &mut SendBatch,
        datagrams: impl Iterator<Item = &'d [u8]>,
    ) -> Result<Outcome, Error> {
        life.check()?;
        self.send_over(life, &self.lanes().chosen, batch, datagrams)
    }

    /// As `sending::send_all`: in order, with wishes, and waiting for room if that is wished.
    pub(super) fn send_all<'d>(
        &self,
        life: &Life,
        batch: &Mutex<SendBatch>,
        room: &Room,
        datagrams: impl Iterator<Item = &'d [u8]> + Clone,
        options: &SendOptions,
    ) -> Result<usize, Error> {
        let begun = room.begun();
        let mut patience = None;
        let mut rest = datagrams;
        let mut taken = 0;
        loop {
            let turn = self.send_some(life, batch, &rest, options);
            let (sent, lanes) = match turn {
                Ok(Turn::Done) => return Ok(taken),
                Ok(Turn::Sent { count, full }) => (count, full),
                Err(_) if taken > 0 => return Ok(taken),
                Err(error) => return Err(error),
            };
            if sent > 0 {
                taken += sent;
                rest.nth(sent - 1);
                // Most calls end here: another turn would look everything up once more for nothing.
                if rest.clone().next().is_none() {
                    return Ok(taken);
                }
            }
            let Some(lanes) = lanes else { continue };
            if options.patience() == Some(Duration::ZERO) {
                return if taken > 0 { Ok(taken) } else { Err(Error::WouldBlock) };
            }
            let patience = patience.get_or_insert_with(|| room.patience(begun, options.patience()));
            let sockets: Vec<&UdpSocket> = lanes.iter().map(|lane| &*lane.socket).collect();
            match patience.wait(&sockets) {
                Ok(true) => {}
                _ if taken > 0 => return Ok(taken),
                Ok(false) => return Err(Error::TimedOut(options.patience().unwrap_or_default())),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends what fits one batch.
    fn send_some<'d>(
        &self,
        life: &Life,
        batch: &Mutex<SendBatch>,
        datagrams: &(impl Iterator<Item = &'d [u8]> + Clone),
        options: &SendOptions,
    ) -> Result<Turn, Error> {
        life.check()?;
        let lanes = self.wished(options)?;
        let (mut count, mut bytes) = (0, 0);
        for datagram in datagrams.clone().take(AT_ONCE) {
            let len = datagram.len();
            if len > self.max_payload {
                if count == 0 {
                    return Err(Error::PayloadTooLarge { len, max: self.max_payload });
                }
                break;
            }
            bytes += len + HEADER_LEN;
            if count > 0 && bytes > CAPACITY {
                break;
            }
            count += 1;
        }
        if count == 0 {
            return Ok(Turn::Done);
        }
        let some = datagrams.clone().take(count);
        let outcome = self.send_over(life, &lanes, &mut batch.lock(), some)?;
        if outcome.copies == 0 && outcome.dropped > 0 && !outcome.full {
            return Err(Error::NoPath);
        }
        let all = !outcome.full || outcome.most >= count;
        let count = if all { count } else { outcome.most };
        Ok(Turn::Sent { count, full: (!all).then_some(lanes) })
    }

    /// The lanes that the options choose.
    fn wished(&self, options: &SendOptions) -> Result<Vec<Lane>, Error> {
        let lanes = self.lanes();
        match (options.path, options.copies) {
            (Some(path), _) => {
                let lane = lanes.all.iter().find(|lane| lane.path == path);
                lane.map(|lane| vec![lane.clone()]).ok_or(Error::NoPath)
            }
            (None, 0) => Ok(lanes.chosen.clone()),
            (None, copies) => {
                // Nothing is measured in this protocol: those first that were heard last.
                let mut best = lanes.chosen.clone();
                best.sort_by_key(|lane| std::cmp::Reverse(lane.usage.heard_at()));
                best.truncate(copies.into());
                Ok(best)
            }
        }
    }

    fn send_over<'d>(
        &self,
        life: &Life,
        lanes: &[Lane],
        batch: &mut SendBatch,
        datagrams: impl Iterator<Item = &'d [u8]>,
    ) -> Result<Outcome, Error> {
        if lanes.is_empty() {
            return Err(Error::NoPath);
        }
        let mut outcome = Outcome::default();
        let mut refusal = None;
        batch.clear();
        for datagram in datagrams {
            let len = datagram.len();
            if len > self.max_payload {
                refusal.get_or_insert(Error::PayloadTooLarge { len, max: self.max_payload });
                continue;
            }
            let id = match self.numbers.take() {
                Ok(id) => id,
                Err(error) => {
                    refusal.get_or_insert(error);
                    break;
                }
            };
            if !batch.has_room(len + HEADER_LEN) {
                self.flush(life, lanes, batch, &mut outcome);
            }
            let packet = batch.room(len + HEADER_LEN).expect("an empty batch has room for any");
            packet[HEADER_LEN..].copy_from_slice(datagram);
            seal(packet, Kind::Data, id, self.iv());
            batch.commit(len + HEADER_LEN, ALL);
        }
        self.flush(life, lanes, batch, &mut outcome);
        match refusal {
            Some(refusal) if outcome.copies == 0 => Err(refusal),
            _ => Ok(outcome),
        }
    }

    fn flush(&self, life: &Life, lanes: &[Lane], batch: &mut SendBatch, outcome: &mut Outcome) {
        if batch.is_empty() {
            return;
        }
        let now = clock::now();
        let mut most = 0;
        for lane in lanes {
            let report = batch.send(&lane.socket, ALL, lane.to);
            let lost = report.dropped + report.too_big;
            lane.usage.on_sent(now, report.packets as u64, report.bytes as u64, lost as u64);
            if let Some(error) = &report.error {
                self.on_error(life, lane.path, error);
            }
            outcome.copies += report.packets;
            outcome.dropped += lost;
            outcome.full |= report.full;
            most = most.max(report.packets);
        }
        outcome.most += most;
        batch.clear();
    }

    /// Sends one packet that is made already.
    pub(super) fn send_one(&self, life: &Life, batch: &mut SendBatch, lane: &Lane, packet: &[u8]) {
        let report = batch.send_one(&lane.socket, packet, lane.to);
        let lost = report.dropped + report.too_big;
        let (packets, bytes) = (report.packets as u64, report.bytes as u64);
        lane.usage.on_sent(clock::now(), packets, bytes, lost as u64);
        if let Some(error) = &report.error {
            self.on_error(life, lane.path, error);
        }
    }

    /// Keeps what passed over a path that is no more, and what went wrong there.
    pub(super) fn keep(&self, path: PathId, usage: &Usage) {
        *self.gone.lock() += usage.counts();
        self.errors.forget(path);
    }

    /// What passed over the paths that are gone and these.
    pub(super) fn counts<'u>(&self, paths: impl Iterator<Item = &'u Arc<Usage>>) -> PathCounts {
        let mut all = *self.gone.lock();
        paths.for_each(|usage| all += usage.counts());
        all
    }

    /// Notes an error, for the thread that minds the sockets.
    pub(super) fn on_error(&self, life: &Life, path: PathId, error: &std::io::Error) {
        self.errors.count(path, error);
        let trouble = (path, error.raw_os_error().unwrap_or(0));
        let mut troubles = self.troubles.lock();
        if !troubles.contains(&trouble) {
            troubles.push(trouble);
            life.wake.set();
        }
    }

    pub(super) fn take_troubles(&self) -> Vec<(PathId, i32)> {
        std::mem::take(&mut *self.troubles.lock())
    }
}
