// SPDX-License-Identifier: BSD-2-Clause
//! What waits on its way: for those before it, and for its turn on a path with a rate.

use crate::{A_MOMENT, KEY, SOON, server, wait_for};
use mptunnel_core::{Handler, PathInfo, PeerId, SendOptions, Server, Source, Tunnel};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// A forwarder between one client and a server, which swallows the next packet with a datagram in
/// a direction when it is told to.
struct Forwarder {
    port: u16,
    swallow: Arc<[AtomicBool; 2]>,
    stop: Arc<AtomicBool>,
}

impl Forwarder {
    fn to(server: u16) -> Self {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (front, back) = (bind(), bind());
        back.connect(("127.0.0.1", server)).unwrap();
        let made = Forwarder {
            port: front.local_addr().unwrap().port(),
            swallow: Arc::default(),
            stop: Arc::default(),
        };
        let client = Arc::new(Mutex::new(None));
        for (way, from, to) in [(0, front.try_clone(), back.try_clone()), (1, Ok(back), Ok(front))]
        {
            let (from, to, client) = (from.unwrap(), to.unwrap(), client.clone());
            let (swallow, stop) = (made.swallow.clone(), made.stop.clone());
            from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 2_048];
                while !stop.load(Relaxed) {
                    let Ok((len, source)) = from.recv_from(&mut buffer) else { continue };
                    let is_data = matches!(buffer[0], 7 | 8);
                    if is_data && swallow[way].swap(false, Relaxed) {
                        continue;
                    }
                    // An end that has closed is no concern of this test.
                    let _ = match way {
                        0 => {
                            *client.lock().unwrap() = Some(source);
                            to.send(&buffer[..len])
                        }
                        _ => to.send_to(&buffer[..len], client.lock().unwrap().unwrap()),
                    };
                }
            });
        }
        made
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// Tells what comes, and when, on the receive thread.
struct Teller(mpsc::Sender<(Vec<u8>, Instant)>);

impl Handler for Teller {
    fn datagram(&mut self, _: &Source, bytes: &[u8]) {
        self.0.send((bytes.to_vec(), Instant::now())).unwrap();
    }
}

#[test]
fn what_waits_for_a_lost_datagram_is_delivered_in_time_to_queue_and_handler() {
    /// As long as it may be: a machine that is busy must not take it for the time between two
    /// datagrams.
    const HOLD: Duration = Duration::from_secs(1);
    let (told, tells) = mpsc::channel();
    let server = Server::builder()
        .key(&KEY)
        .option("reorder", "1s")
        .listen("127.0.0.1:0".parse().unwrap())
        .handler(Teller(told))
        .bind()
        .unwrap();
    let forwarder = Forwarder::to(server.local_addrs()[0].port());
    let tunnel = Tunnel::builder()
        .key(&KEY)
        .option("reorder", "1000")
        .path(&format!("to=127.0.0.1:{}", forwarder.port))
        .connect()
        .unwrap();
    tunnel.wait_ready(Some(SOON)).unwrap();
    let mut buffer = [0; 64];
    let heard = |n: u8| {
        let (bytes, at) = tells.recv_timeout(SOON).unwrap();
        assert_eq!(bytes, [n]);
        at
    };

    // The handler at the server, whose thread sleeps in a read.
    tunnel.send(&[1]).unwrap();
    heard(1);
    forwarder.swallow[0].store(true, Relaxed);
    let start = Instant::now();
    for n in 2..5 {
        tunnel.send(&[n]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(heard(3).duration_since(start) >= HOLD);
    heard(4);
    wait_for(|| server.stats().reorder.given_up == 1);
    assert_eq!((server.stats().reorder.held, server.stats().reorder.late), (2, 0));

    // The queue at the client.
    let peer = server.peers()[0].id;
    server.send_to(&[1], peer).unwrap();
    assert_eq!(tunnel.recv_timeout(&mut buffer, SOON).unwrap(), 1);
    forwarder.swallow[1].store(true, Relaxed);
    let start = Instant::now();
    for n in 2..5 {
        server.send_to(&[n], peer).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    tunnel.recv_timeout(&mut buffer, SOON).unwrap();
    assert_eq!(buffer[0], 3);
    assert!(start.elapsed() >= HOLD);
    tunnel.recv_timeout(&mut buffer, SOON).unwrap();
    assert_eq!(buffer[0], 4);
    wait_for(|| tunnel.stats().reorder.given_up == 1);
}

#[test]
fn a_path_with_a_rate_sends_what_waits_later_and_drops_what_would_come_too_late() {
    let (server, port) = server();
    let tunnel = Tunnel::builder()
        .key(&KEY)
        .path(&format!("to=127.0.0.1:{port} rate=8 mtu=1500"))
        .connect()
        .unwrap();
    wait_for(|| tunnel.paths().iter().all(|path| path.up));
    let path = || tunnel.paths()[0].clone();
    let mut buffer = [0; 2_000];
    let mut receive = || server.recv_from_timeout(&mut buffer, A_MOMENT).is_ok();
    let all = [&[7; 1_000][..]; 200];
    keeps_to_8_mbit_per_second(|| tunnel.send_batch(all).unwrap(), &mut receive, path);

    // Whoever waits for room gets it: more than would fit.
    let patient = SendOptions::new().timeout(Some(SOON));
    wait_for(|| {
        let start = Instant::now();
        let rest = all.into_iter().take(100);
        assert_eq!(tunnel.send_batch_with(rest, PeerId(0), &patient).unwrap(), 100);
        assert!(start.elapsed() >= Duration::from_millis(40), "{:?}", start.elapsed());
        arrivals(&mut receive, path) > 60
    });

    tunnel.set_path(path().id, "rate", "800").unwrap();
    wait_for(|| {
        tunnel.send_batch(all).unwrap();
        arrivals(&mut receive, path) == 200
    });
}

/// How many datagrams arrive until nothing waits on `path` any more.
fn arrivals(mut receive: impl FnMut() -> bool, path: impl Fn() -> PathInfo) -> u64 {
    let mut received = 0;
    wait_for(|| {
        let waits = path().queue.is_some_and(|queue| queue.packets > 0);
        let came = receive();
        received += u64::from(came);
        !waits && !came
    });
    received
}

/// Of 200 datagrams of 1,000 bytes that are sent at once no more leave than 8 Mbit/s have room for,
/// and the rest is dropped.
fn keeps_to_8_mbit_per_second(
    send: impl Fn(),
    mut receive: impl FnMut() -> bool,
    path: impl Fn() -> PathInfo,
) {
    // 1,064 bytes with headers of 1,000,000 per second: 5 leave at once, 47 within 50 ms. What a
    // machine that is busy would send too late is dropped as well: then once more.
    wait_for(|| {
        let (before, start) = (path().send_dropped, Instant::now());
        send();
        let sending = u64::try_from(start.elapsed().as_millis()).unwrap();
        let received = arrivals(&mut receive, &path);
        assert_eq!(received + path().send_dropped - before, 200);
        assert!(received <= 52 + sending, "{received} of 200 in {sending} ms");
        let least = Duration::from_millis(received.saturating_sub(5));
        assert!(start.elapsed() >= least, "{received} in {:?}", start.elapsed());
        received >= 20
    });
}

#[test]
fn what_waits_on_a_path_with_a_rate_is_seen_while_it_waits() {
    let (server, port) = server();
    let tunnel = Tunnel::builder()
        .key(&KEY)
        .path(&format!("to=127.0.0.1:{port} rate=8 mtu=1500 name=slow"))
        .path(&format!("to=127.0.0.1:{port} name=fast"))
        .connect()
        .unwrap();
    wait_for(|| tunnel.paths().iter().all(|path| path.up));
    let datagrams = vec![[7; 1_000]; 20];

    // It takes 15 ms to leave, in which this thread may be asleep: then another one.
    wait_for(|| {
        tunnel.send_batch(datagrams.iter().map(|datagram| &datagram[..])).unwrap();
        let [slow, fast] = &tunnel.paths()[..] else { panic!("two paths") };
        let queue = slow.queue.unwrap();
        assert!(queue.packets <= 60 && (queue.packets == 0) == (queue.bytes == 0), "{queue:?}");
        assert!(queue.bytes.div_ceil(queue.packets.max(1)) < 1_100, "{queue:?}");
        assert!(fast.queue.is_none(), "it has no rate");
        queue.bytes >= 1_000 && queue.delay > Duration::ZERO
    });
    wait_for(|| tunnel.paths()[0].queue.unwrap().packets == 0);

    let peer = server.peers()[0].id;
    assert!(server.paths(peer).unwrap().iter().all(|path| path.queue.is_none()));
}

#[test]
fn a_server_keeps_to_the_rate_that_its_client_names_and_drops_what_would_come_too_late() {
    // Finding out the MTU of the loopback interface would take all of the rate.
    let builder = Server::builder().key(&KEY).option("mtu", "1500");
    let server = builder.listen("127.0.0.1:0".parse().unwrap()).bind().unwrap();
    let port = server.local_addrs()[0].port();
    let paths =
        [format!("to=127.0.0.1:{port} rate-down=8 mtu=1500"), format!("to=127.0.0.1:{port}")];
    let tunnel = Tunnel::builder().key(&KEY).path(&paths[0]).connect().unwrap();
    wait_for(|| tunnel.paths().iter().all(|path| path.up));
    wait_for(|| server.peers().first().is_some_and(|peer| peer.paths[0].queue.is_some()));
    let peer = server.peers()[0].id;
    let path = |slot: usize| server.paths(peer).unwrap()[slot].clone();
    let mut buffer = [0; 2_000];
    let mut receive = || tunnel.recv_timeout(&mut buffer, A_MOMENT).is_ok();
    let all = [&[7; 1_000][..]; 200];
    keeps_to_8_mbit_per_second(
        || server.send_batch_to(all, peer).unwrap(),
        &mut receive,
        || path(0),
    );

    // Whoever waits for room gets it, more than would fit, and another client knows nothing of it.
    let other = Tunnel::builder().key(&KEY).path(&paths[1]).connect().unwrap();
    wait_for(|| server.peers().iter().any(|its| its.id != peer && its.paths[0].up));
    let other_peer = server.peers().iter().find(|its| its.id != peer).unwrap().id;
    let patient = SendOptions::new().timeout(Some(SOON));
    wait_for(|| {
        let rest = all.into_iter().take(100);
        assert_eq!(server.send_batch_with(rest, peer, &patient).unwrap(), 100);
        server.send_to(b"at once", other_peer).unwrap();
        assert_eq!(other.recv_timeout(&mut [0; 100], SOON).unwrap(), 7);
        arrivals(&mut receive, || path(0)) > 60
    });
    assert!(server.paths(other_peer).unwrap()[0].queue.is_none());

    // Another rate, and what waits is seen until it has left.
    let id = tunnel.paths()[0].id;
    tunnel.set_path(id, "rate-down", "0.5").unwrap();
    wait_for(|| {
        server.send_batch_to(all.into_iter().take(4), peer).unwrap_or_default();
        path(0).queue.unwrap().packets > 0
    });
    wait_for(|| path(0).queue.unwrap().packets == 0);
    tunnel.set_path(id, "rate-down", "800").unwrap();
    wait_for(|| {
        let before = path(0).send_dropped;
        server.send_batch_to(all, peer).unwrap_or_default();
        path(0).send_dropped == before
    });
}
