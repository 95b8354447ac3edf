// SPDX-License-Identifier: BSD-2-Clause
//! No datagram allocates memory on its way through the sockets of both ends, on whatever thread.
//!
//! Timers do: a probe is built anew each time. So datagrams are counted in rounds of a millisecond
//! or two, of which few meet a timer: an allocation per datagram, or per batch, would show in all.

#![allow(clippy::disallowed_methods, reason = "these tests are about real sockets")]

use mptunnel_core::{Datagram, Handler, Server, Source, Tunnel};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The system's allocator, counting for all threads together.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is done by `System`, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above; `block` came from `System`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as above; `block` came from `System`.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The counter belongs to one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

const KEY: [u8; 32] = [7; 32];
const SOON: Duration = Duration::from_secs(15);
const PATHS: usize = 3;
/// Datagrams of a round: with all copies as many as the smallest socket buffer holds.
const ROUND: usize = 32;
const ROUNDS: usize = 1_000;
/// Until buffers have grown to what they need, and windows to what the rate asks for.
const WARM_UP: usize = 500;
/// Some more than there are.
const TIMERS_PER_SECOND: usize = 10;

struct Counter(Arc<AtomicU64>);

impl Handler for Counter {
    fn datagram(&mut self, _: &Source, _: &[u8]) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Both ends, with as few timers as possible.
fn endpoints(handler: Option<Counter>) -> (Server, Tunnel) {
    let mut server = Server::builder()
        .key(&KEY)
        .listen("127.0.0.1:0".parse().unwrap())
        .option("probe-interval", "5s");
    if let Some(handler) = handler {
        server = server.handler(handler);
    }
    let server = server.bind().unwrap();
    let mut tunnel = Tunnel::builder().key(&KEY).server(&server.local_addrs()[0].to_string());
    for index in 0..PATHS {
        tunnel = tunnel.path(&format!("name=p{index}"));
    }
    let tunnel = tunnel.connect().unwrap();
    tunnel.wait_ready(Some(SOON)).unwrap();
    let all_up = || {
        let peers = server.peers();
        let there = peers.iter().flat_map(|peer| &peer.paths).filter(|path| path.up).count();
        there == PATHS && tunnel.paths().iter().all(|path| path.up)
    };
    let deadline = Instant::now() + SOON;
    while !all_up() {
        assert!(Instant::now() < deadline, "all paths lead to the same port");
        std::thread::yield_now();
    }
    (server, tunnel)
}

/// Runs rounds of [`ROUND`] datagrams; `round` returns once they were delivered.
fn no_round_allocates(what: &str, mut round: impl FnMut(&[u8])) {
    let payloads = [vec![1; 64], vec![2; 512], vec![3; 1_400]];
    let mut payloads = payloads.iter().cycle();
    let mut next = || round(payloads.next().expect("it never ends"));
    (0..WARM_UP).for_each(|_| next());
    let (mut allocations, mut rounds) = (0, 0);
    let start = Instant::now();

    for _ in 0..ROUNDS {
        let before = ALLOCATIONS.load(Relaxed);
        next();
        let more = ALLOCATIONS.load(Relaxed) - before;
        allocations += more;
        rounds += usize::from(more > 0);
    }

    let datagrams = ROUND * ROUNDS;
    println!("{what}: {allocations} allocations in {rounds} rounds; {datagrams} datagrams");
    // The longer it takes on a machine that is busy, the more timers there are.
    let most = ROUNDS / 50 + TIMERS_PER_SECOND * start.elapsed().as_secs() as usize;
    assert!(rounds <= most, "{what}: {rounds} of {ROUNDS} rounds allocate, not {most}");
}

fn wait_for(delivered: &AtomicU64, count: u64) {
    let deadline = Instant::now() + SOON;
    while delivered.load(Relaxed) < count {
        assert!(Instant::now() < deadline, "a round fits the socket buffers");
        std::thread::yield_now();
    }
}

#[test]
fn no_datagram_on_its_way_to_a_handler_allocates() {
    let _alone = ALONE.lock();
    let delivered = Arc::<AtomicU64>::default();
    let (_server, tunnel) = endpoints(Some(Counter(delivered.clone())));
    let mut count = 0;

    no_round_allocates("a batch to a handler", |payload| {
        tunnel.send_batch([payload; ROUND]).unwrap();
        count += ROUND as u64;
        wait_for(&delivered, count);
    });
    no_round_allocates("one by one to a handler", |payload| {
        (0..ROUND).for_each(|_| tunnel.send(payload).unwrap());
        count += ROUND as u64;
        wait_for(&delivered, count);
    });
}

#[test]
fn no_datagram_through_the_queues_of_both_ends_allocates() {
    let _alone = ALONE.lock();
    let (server, tunnel) = endpoints(None);
    let mut slots = vec![Datagram::with_capacity(2_048); ROUND];
    let mut buffer = vec![0; 2_048];

    no_round_allocates("there and back", |payload| {
        tunnel.send_batch([payload; ROUND]).unwrap();
        let mut back = 0;
        while back < ROUND {
            let count = server.recv_batch(&mut slots, Some(SOON)).unwrap();
            let peer = slots[0].peer;
            server.send_batch_to(slots[..count].iter().map(Datagram::bytes), peer).unwrap();
            back += count;
        }
        for _ in 0..ROUND {
            assert_eq!(tunnel.recv_timeout(&mut buffer, SOON).unwrap(), payload.len());
        }
    });
}
