// SPDX-License-Identifier: BSD-2-Clause
//! The server's state machine: many clients behind one or more sockets.
//!
//! - `handle_*` tells it what the network or the clock did; [`promote`](Server::promote) that the
//!   first packet under new keys has opened.
//! - `dismiss`, `close_flow`, `close` tell it what the application wants.
//! - `poll_*` asks what to do next. After any of the above, poll each until it is empty:
//!   [`poll_transmit`](Server::poll_transmit), [`poll_event`](Server::poll_event), and
//!   [`poll_timeout`](Server::poll_timeout) last.
//!
//! `now` never decreases from one call to the next. DATA does not pass through here: receivers use
//! the [`DataPlane`], senders the [`ViewCell`] of the peer.
//!
//! ```text
//!   INIT ──► pending ──── first packet under its keys ────► current ──► previous (30 s) ──► gone
//!              │ 20 s                                          │ nothing heard for 180 s
//!              └──► gone                                       └──► peer gone
//! ```

mod cache;
mod control;
mod handshake;
mod load;
mod peer;
mod slots;
mod timers;

use super::budget::MemoryBudget;
use super::config::{ServerConfig, ServerKey, ServerLimits};
use super::crypto::{KeySet, PublicKey};
use super::dataplane::DataPlane;
use super::entropy::{Entropy, random_u64};
use super::event::{PeerGoneReason, PeerId, ServerEvent, Transmit};
use super::frame::{CLOSE_FINISHED, CLOSE_GOING_AWAY, Frame, FrameList};
use super::limit::{CLOSES_PER_S, PerSecond};
use super::route::PathCounts;
use super::sched::Policy;
use super::session::Session;
use super::time::Time;
use super::view::ViewCell;
use super::wire::FLOW_ALL;
use cache::RespCache;
use load::Load;
pub use peer::Peer;
pub use slots::Slot;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The server's side of all its tunnels.
pub struct Server {
    config: ServerConfig,
    key_sets: Vec<KeySet>,
    boot_id: u64,
    entropy: Box<dyn Entropy>,
    plane: Arc<DataPlane>,
    budget: Arc<MemoryBudget>,
    /// Memory for unfinished datagrams.
    pieces: Arc<MemoryBudget>,

    cache: RespCache,
    load: Load,
    pending: HashMap<u32, Pending>,
    peers: HashMap<PeerId, Peer>,
    by_key: HashMap<PeerKey, PeerId>,
    next_peer: u64,
    deadlines: BTreeSet<(Time, PeerId)>,
    unknown_keys: PerSecond,
    refusals: PerSecond,
    /// What peers counted that are gone.
    gone: PathCounts,
    /// To whom something happened since somebody last looked; `None` if nobody did, or not for
    /// long.
    touched: Option<Touched>,
    /// How many such lists there were: the number of this one.
    looks: u32,
    closing: bool,
    /// Whether somebody sends what waits on paths with a rate, and whether somebody should.
    has_pacer: bool,
    wants_pacer: bool,

    transmits: VecDeque<Transmit>,
    events: VecDeque<ServerEvent>,
}

/// Who a peer is: what stays the same when it restarts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum PeerKey {
    /// The shared key's id and the id that the client gave itself.
    Psk([u8; 8], [u8; 16]),
    /// The client's public key.
    Static(PublicKey),
}

/// Peers to whom something happened other than that datagrams passed.
#[derive(Debug, Default)]
pub struct Touched {
    /// Each at most once; some may be gone.
    pub changed: Vec<PeerId>,
    /// Those that are gone.
    pub gone: Vec<PeerId>,
}

/// A session of which no packet has been seen yet. A replayed INIT never gets further.
struct Pending {
    session: Arc<Session>,
    peer: PeerKey,
    boot: u64,
}

impl Server {
    /// A server without peers. It shares `plane` with the receivers.
    pub fn new(config: ServerConfig, plane: Arc<DataPlane>, mut entropy: Box<dyn Entropy>) -> Self {
        let key_sets = config.keys.iter().map(ServerKey::key_set).collect();
        let boot_id = random_u64(&mut *entropy);
        let budget = Arc::new(MemoryBudget::new(config.common.window_memory));
        Server {
            load: Load::new(&config),
            config,
            key_sets,
            boot_id,
            entropy,
            plane,
            budget,
            pieces: Arc::new(MemoryBudget::new(MemoryBudget::DEFAULT)),
            cache: RespCache::default(),
            pending: HashMap::new(),
            peers: HashMap::new(),
            by_key: HashMap::new(),
            next_peer: 1,
            deadlines: BTreeSet::new(),
            unknown_keys: PerSecond::default(),
            refusals: PerSecond::default(),
            gone: PathCounts::default(),
            touched: None,
            looks: 0,
            closing: false,
            has_pacer: false,
            wants_pacer: false,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The ids of the keys that clients may use. Not secret.
    pub fn key_ids(&self) -> Vec<[u8; 8]> {
        self.key_sets.iter().map(|set| set.key_id).collect()
    }

    /// How long datagrams wait for those before them; zero: not at all.
    pub fn reorder(&self) -> Duration {
        self.config.common.reorder
    }

    /// One peer.
    pub fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(&id)
    }

    /// What was sent and received in all, with peers that are gone as well: never less than before.
    pub fn counts(&self) -> PathCounts {
        self.peers().fold(self.gone, |mut sum, peer| {
            sum += peer.counts();
            sum
        })
    }

    /// What was sent and received by peers that are gone.
    pub fn gone(&self) -> PathCounts {
        self.gone
    }

    /// To whom something happened since this was last called: their paths, measurements, counts of
    /// control packets. Whose datagrams pass is not among them. `None` if all have to be looked at.
    pub fn take_touched(&mut self) -> Option<Touched> {
        // Whoever is in an earlier list may be in this one: no peer has to be told.
        self.looks = self.looks.wrapping_add(1);
        self.touched.replace(Touched::default())
    }

    /// The peers that went since [`take_touched`](Self::take_touched) was called, or this. `None`
    /// if so many did that they were not counted.
    pub fn take_gone(&mut self) -> Option<Vec<PeerId>> {
        self.touched.as_mut().map(|touched| std::mem::take(&mut touched.gone))
    }

    /// Something happened to a peer.
    fn touch(&mut self, id: PeerId) {
        if let (Some(touched), Some(peer)) = (&mut self.touched, self.peers.get_mut(&id))
            && std::mem::replace(&mut peer.touched, self.looks) != self.looks
        {
            touched.changed.push(id);
            self.bound_touched();
        }
    }

    /// Nobody has looked for so long that looking at all is less than to remember.
    fn bound_touched(&mut self) {
        let most = self.peers.len().saturating_add(64);
        if self.touched.as_ref().is_some_and(|t| t.changed.len().max(t.gone.len()) > most) {
            self.touched = None;
        }
    }

    /// How many peers there are.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// All peers, in no order.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    /// What senders to this peer use.
    pub fn view(&self, id: PeerId) -> Option<Arc<ViewCell>> {
        self.peers.get(&id).map(|peer| peer.view.clone())
    }

    /// Sessions that wait for their first packet.
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// The next packet to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next piece of news.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// Whether the first path has come that has a rate: who asks has to send what waits in the
    /// [`Pace`](super::pace::Pace) of a path, and to say so by [`start_pacing`](Self::start_pacing).
    /// Until then packets leave as they come. A client that is not served so asks again.
    pub fn take_pacer_wish(&mut self) -> bool {
        std::mem::take(&mut self.wants_pacer)
    }

    /// Somebody sends what waits on paths with a rate, from now on.
    pub fn start_pacing(&mut self, now: Time) {
        self.has_pacer = true;
        for peer in self.peers.values_mut() {
            peer.start_pacing(now);
        }
    }

    /// Keeps to other limits from now on. Clients that are connected stay, even if they are too
    /// many.
    pub fn set_limits(&mut self, now: Time, limits: ServerLimits) {
        self.config.sessions = limits.sessions;
        self.config.session_timeout = limits.session_timeout;
        self.config.common.intervals.idle = limits.idle_interval;
        self.load.set_limits(&limits);
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.intervals.idle = limits.idle_interval;
            }
            self.reschedule(id);
        }
        self.handle_timeout(now);
    }

    /// Follows another policy from now on, with all clients, and tells them.
    pub fn set_policy(&mut self, now: Time, policy: Policy) {
        if std::mem::replace(&mut self.config.common.policy, policy) == policy {
            return;
        }
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.agreement.set(policy);
                peer.publish(now);
            }
            self.touch(id);
        }
    }

    /// Tells all clients that this server goes away and may come back; from now on new clients are
    /// refused. May be called again, to say it again.
    pub fn close(&mut self, now: Time) {
        self.closing = true;
        let mut ids: Vec<PeerId> = self.peers.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.send_close(now, id, CLOSE_GOING_AWAY, FLOW_ALL);
        }
    }

    /// Ends the session of one client, for good.
    pub fn dismiss(&mut self, now: Time, id: PeerId) {
        self.send_close(now, id, CLOSE_FINISHED, FLOW_ALL);
        // Keys that the client is about to use would bring it back.
        if let Some(peer) = self.peers.get(&id) {
            let (key, boot) = (peer.key, peer.boot);
            let mut unused = Vec::new();
            for (index, pending) in &self.pending {
                if pending.peer == key && pending.boot == boot {
                    unused.push(*index);
                }
            }
            for index in unused {
                self.forget_pending(index);
            }
        }
        self.remove_peer(id, PeerGoneReason::Dismissed);
    }

    /// Tells a client that one of its flows has ended, with one of the `CLOSE_*` codes; unless it
    /// was told of twenty this second.
    pub fn close_flow(&mut self, now: Time, id: PeerId, flow: u16, code: u16) {
        self.send_close(now, id, code, flow);
    }

    fn send_close(&mut self, now: Time, id: PeerId, code: u16, flow: u16) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if flow == FLOW_ALL || peer.flows_closed.take(now, CLOSES_PER_S) {
            let frames = FrameList::new().push(Frame::Close { code, flow });
            peer.send_everywhere(now, frames, &mut self.transmits);
            self.touch(id);
        }
    }

    fn remove_peer(&mut self, id: PeerId, why: PeerGoneReason) {
        let Some(peer) = self.peers.remove(&id) else { return };
        peer.give_up_but(0);
        self.gone += peer.counts();
        if let Some(touched) = &mut self.touched {
            touched.gone.push(id);
            self.bound_touched();
        }
        self.by_key.remove(&peer.key);
        self.deadlines.remove(&(peer.deadline, id));
        for session in peer.sessions() {
            self.plane.remove(session.local_index());
        }
        peer.view.set(None);
        self.tell(ServerEvent::PeerGone(id, why));
    }

    fn tell(&mut self, event: ServerEvent) {
        log::debug!(target: "mptunnel::server", "{event:?}");
        self.events.push_back(event);
    }

    /// Puts the peer where it belongs in the queue of deadlines.
    fn reschedule(&mut self, id: PeerId) {
        self.touch(id);
        let timeout = self.config.session_timeout;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let due = peer.next_deadline(timeout);
        if due != peer.deadline {
            self.deadlines.remove(&(peer.deadline, id));
            self.deadlines.insert((due, id));
            peer.deadline = due;
        }
    }
}
