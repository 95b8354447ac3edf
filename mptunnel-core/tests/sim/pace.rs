// SPDX-License-Identifier: BSD-2-Clause
//! A path with a rate: packets wait at its near end, not for long, and nobody waits for them.

use crate::support::*;
use mptunnel_core::proto::client::PathSettings;
use mptunnel_core::proto::frame::LEARN_RATE;
use mptunnel_core::proto::pace::Queue;
use mptunnel_core::proto::throttle::Rate;
use mptunnel_core::sim::link::LinkConfig;
use mptunnel_core::sim::world::Direction::{self, Down, Up};
use mptunnel_core::sim::world::{ClientNo, Datagram, PathSpec, ServerNo, World};
use std::num::NonZeroU64;
use std::time::Duration;

/// Bytes per second of the slow link: 1 Mbit/s.
const SLOW: u64 = 125_000;

/// A link of 1 Mbit/s with 20 ms of delay and room for eight seconds, on a path that says so or
/// does not.
fn slow(rate: Rate) -> PathSpec {
    let up = LinkConfig {
        delay: 20 * MS,
        rate: NonZeroU64::new(SLOW),
        buffer: 1_000_000,
        ..LinkConfig::default()
    };
    let settings = PathSettings { rate, ..PathSettings::default() };
    PathSpec { up, settings, ..PathSpec::rtt(40 * MS) }
}

/// A tunnel over these paths, up and with all sizes found out.
fn over(paths: Vec<PathSpec>) -> (World, ClientNo) {
    let (mut world, _, client) = tunnel_over(1, paths);
    world.start_all();
    world.run_for(2 * S);
    (world, client)
}

/// Delivered datagrams that were sent upwards, and the longest way.
fn delivered(world: &World, client: ClientNo) -> (usize, Duration) {
    delivered_by(world, client, Up)
}

fn delivered_by(world: &World, client: ClientNo, way: Direction) -> (usize, Duration) {
    let latencies = world.ledger().of(client, way).filter_map(|d| d.latency());
    let latencies: Vec<_> = latencies.collect();
    (latencies.len(), latencies.into_iter().max().expect("something arrived"))
}

/// Copies that a path did not take.
fn dropped(world: &World, client: ClientNo, index: usize) -> u64 {
    let machine = world.client(client).client().expect("it runs");
    let path = machine.paths().nth(index).expect("it is there");
    machine.path_counts(path).tx_dropped
}

#[test]
fn twice_what_a_link_carries_fills_it_and_not_its_buffer() {
    let mut results = Vec::new();
    for rate in [Rate::Unknown, Rate::Told(SLOW)] {
        let (mut world, client) = over(vec![slow(rate)]);
        // 250 packets a second of 1,000 bytes, 1,028 with headers, where 121 pass.
        world.stream(client, Up, 250, 964);
        world.run_for(5 * S);
        world.stop_streams();
        let sent = world.ledger().of(client, Up).count();
        world.run_for(10 * S);
        world.verify();

        let (count, longest) = delivered(&world, client);
        assert_eq!(sent as u64, count as u64 + dropped(&world, client, 0), "{rate:?}");
        results.push((count, longest));
    }
    let [(_, unpaced), (count, paced)] = results[..] else { unreachable!() };
    assert!(unpaced > 2 * S, "{unpaced:?}");
    // 20 ms on the way, 8 ms through the link, 50 ms of waiting, 12 ms that the bucket lets go at
    // once, and a probe of the path's size that goes ahead of all.
    assert!(paced <= 102 * MS, "{paced:?}");
    assert!((595..=620).contains(&count), "{count} in five seconds");
}

#[test]
fn a_slow_path_delays_and_costs_nothing_beside_a_fast_one() {
    let (mut world, client) = over(vec![slow(Rate::Told(SLOW)), PathSpec::rtt(10 * MS)]);
    world.stream(client, Up, 1_000, 964);
    world.run_for(3 * S);
    world.stop_streams();
    world.run_for(S);

    world.verify();
    assert!(world.ledger().of(client, Up).all(|d| d.latency() == Some(5 * MS)));
    let lost = dropped(&world, client, 0);
    assert!((2_600..=2_680).contains(&lost), "{lost} copies");
    assert_eq!(dropped(&world, client, 1), 0);
}

#[test]
fn pieces_of_a_datagram_are_taken_together_or_not_at_all() {
    let (mut world, client) = over(vec![slow(Rate::Told(SLOW))]);
    for _ in 0..20 {
        // Three pieces: 34 ms of the link.
        world.send(client, Up, 0, 4_000).expect("there is a path");
        world.run_for(20 * MS);
    }
    world.run_for(3 * S);

    world.verify();
    let (count, longest) = delivered(&world, client);
    // 400 ms at 34 ms each, and what waited at the end.
    assert!((12..=15).contains(&count) && longest < 180 * MS, "{count} within {longest:?}");

    let large = world.send(client, Up, 0, 60_000).expect("there is a path");
    world.run_for(3 * S);
    assert!(world.ledger().get(large).delivered_at.is_some(), "half a second of the link");
}

#[test]
fn a_rate_may_change_and_an_idle_path_needs_no_timer() {
    let (mut world, client) = over(vec![slow(Rate::Told(SLOW / 10))]);
    world.stream(client, Up, 100, 964);
    world.run_for(2 * S);
    let before = delivered(&world, client).0;
    set_rate(&mut world, client, Rate::Told(SLOW));
    world.run_for(2 * S);
    world.stop_streams();
    world.run_for(S);
    let after = delivered(&world, client).0 - before;
    assert!((15..=30).contains(&before) && (185..=210).contains(&after), "{before}, {after}");

    world.run_for(30 * S);
    let wakeups = world.client_lifetime(client).expect("it runs").wakeups;
    world.run_for(60 * S);
    let wakeups = world.client_lifetime(client).expect("it runs").wakeups - wakeups;
    assert!(wakeups < 60, "{wakeups} wake-ups in a minute");
}

/// kbit/s of a link downwards, bytes per second of twice that, and bytes of a datagram that takes
/// 1 ms of the link with all headers.
const DOWN: u32 = 10_000;
const SIZE: usize = 1_186;
const SERVER: ServerNo = ServerNo(0);

/// A link of 10 Mbit/s to the client with 20 ms of delay and room for eight seconds; none upwards.
fn asymmetric(rate_down: u32) -> PathSpec {
    let down = LinkConfig {
        delay: 20 * MS,
        rate: NonZeroU64::new(1_250_000),
        buffer: 10_000_000,
        ..LinkConfig::default()
    };
    let settings = PathSettings { rate_down, ..PathSettings::default() };
    PathSpec { down, settings, ..PathSpec::rtt(40 * MS) }
}

/// What the client is told anew about its only path.
fn set_rate_down(world: &mut World, client: ClientNo, rate_down: u32) {
    set_path(world, client, PathSettings { rate_down, ..PathSettings::default() });
}

fn set_rate(world: &mut World, client: ClientNo, rate: Rate) {
    set_path(world, client, PathSettings { rate, ..PathSettings::default() });
}

fn set_path(world: &mut World, client: ClientNo, settings: PathSettings) {
    let now = world.client(client).local(world.now());
    let host = world.client_mut(client);
    let id = host.paths[0].id.expect("it runs");
    assert!(host.client_mut().expect("it runs").set_path(now, id, settings));
    world.settle();
}

/// What waits at the server on the client's first path; `None` if that has no rate there.
fn waiting(world: &World, client: ClientNo) -> Option<Queue> {
    let host = world.server(SERVER);
    let peer = host.server().expect("it runs").peer(host.peer_of(client)?)?;
    Some(peer.pace(0)?.waiting(host.local(world.now())))
}

#[test]
fn what_comes_down_waits_at_the_server_and_not_in_a_buffer_on_the_way() {
    let mut results = Vec::new();
    for rate_down in [0, DOWN] {
        let (mut world, client) = over(vec![asymmetric(rate_down)]);
        world.stream(client, Down, 2_000, SIZE);
        world.stream(client, Up, 100, 964);
        world.run_for(4 * S);
        world.stop_streams();
        let path = world.client(client).client().expect("it runs").paths().next().expect("one");
        let round_trip = path.probe.health.srtt().expect("it answers");
        world.run_for(10 * S);
        world.verify();

        let up = world.ledger().of(client, Up);
        assert!(up.clone().count() >= 400 && up.clone().all(|d| d.latency() == Some(20 * MS)));
        results.push((round_trip, delivered_by(&world, client, Down)));
    }
    let [(long, (_, unpaced)), (short, (count, paced))] = results[..] else { unreachable!() };
    assert!(long > S && unpaced > 3 * S, "{long:?}, {unpaced:?}");
    // CTRL does not wait for datagrams: it finds at most what the bucket lets go at once, and the
    // packet that the link is busy with.
    assert!((40 * MS..=50 * MS).contains(&short), "{short:?}");
    // 20 ms on the way, 50 ms of waiting, 5 ms that the bucket lets go at once, 1 ms of its own and
    // some of CTRL.
    assert!((70 * MS..=80 * MS).contains(&paced), "{paced:?}");
    assert!((3_990..=4_060).contains(&count), "{count} in four seconds");
}

#[test]
fn another_rate_counts_downwards_within_a_probe_and_none_as_well() {
    let (mut world, client) = over(vec![asymmetric(DOWN / 10)]);
    world.stream(client, Down, 2_000, SIZE);
    let mut before = 0;
    let mut a_second = |world: &mut World| {
        // The PING that tells it goes up within 20 ms, and what waits comes down.
        world.run_for(300 * MS);
        let from = delivered_by(world, client, Down).0;
        world.run_for(S);
        before = delivered_by(world, client, Down).0;
        before - from
    };
    let slow = a_second(&mut world);
    assert!((90..=110).contains(&slow), "{slow} in a second");
    set_rate_down(&mut world, client, DOWN / 2);
    let fast = a_second(&mut world);
    assert!((480..=510).contains(&fast), "{fast} in a second");
    assert!(waiting(&world, client).expect("it has a rate").packets > 20);

    set_rate_down(&mut world, client, 0);
    let all = a_second(&mut world);
    // The simulated link carries no headers of IP and UDP.
    assert!((1_015..=1_025).contains(&all), "{all} in a second: what the link carries");
    assert_eq!(waiting(&world, client), None);
    set_rate_down(&mut world, client, DOWN);
    world.run_for(100 * MS);
    assert!(waiting(&world, client).is_some());
    world.stop_streams();
    world.run_for(10 * S);
    world.verify();
    world.assert_drains();
}

#[test]
fn a_rate_ends_with_its_path_and_with_its_client_and_nothing_waits_for_them() {
    let (mut world, client) = over(vec![asymmetric(DOWN / 10), PathSpec::rtt(40 * MS)]);
    let wait = |world: &mut World| {
        world.stream(client, Down, 2_000, SIZE);
        world.run_for(S);
        assert!(waiting(world, client).expect("it has a rate").packets > 0);
    };
    wait(&mut world);
    // Another address: what waits goes there.
    world.rebind(path(client, 0));
    world.run_for(S);
    wait(&mut world);

    // Another path in its slot, of which nobody knows the rate.
    world.remove_path(path(client, 0));
    world.client_mut(client).paths[0].spec.settings.rate_down = 0;
    world.readd_path(path(client, 0));
    world.run_for(S);
    assert_eq!(waiting(&world, client), None);
    world.stop_streams();

    // It falls silent, and nobody sends there any more.
    set_rate_down(&mut world, client, DOWN / 10);
    world.run_for(S);
    wait(&mut world);
    world.set_dark(path(client, 0), true);
    world.run_for(40 * S);
    let left = waiting(&world, client).expect("it has a rate");
    assert_eq!((left.packets, left.bytes), (0, 0));
    world.set_dark(path(client, 0), false);
    world.run_for(10 * S);
    wait(&mut world);

    // Killed and come back with another opinion.
    world.kill_client(client);
    world.client_mut(client).paths[0].spec.settings.rate_down = 0;
    world.start_client(client);
    world.run_for(S);
    assert_eq!(waiting(&world, client), None);
    set_rate_down(&mut world, client, DOWN / 10);
    world.run_for(S);
    wait(&mut world);

    // The server is another one.
    world.kill_server(SERVER);
    world.start_server(SERVER);
    world.run_for(3 * S);
    wait(&mut world);
    world.stop_streams();
    world.stop_client(client);
    world.run_for(10 * S);
    assert_eq!(world.server(SERVER).server().expect("it runs").peer_count(), 0);
    world.assert_drains();
}

#[test]
fn a_server_wakes_up_for_nobody_when_nothing_waits() {
    let (mut world, client) = over(vec![asymmetric(DOWN)]);
    world.stream(client, Down, 2_000, SIZE);
    world.run_for(2 * S);
    world.stop_streams();
    world.run_for(60 * S);
    let wakeups = |world: &World| world.server_lifetime(SERVER).expect("it runs").wakeups;
    let before = wakeups(&world);
    world.run_for(60 * S);
    assert!(wakeups(&world) - before < 60, "{} in a minute", wakeups(&world) - before);
}

#[test]
fn nothing_waits_for_an_address_that_is_not_proven() {
    let mut mute = asymmetric(DOWN);
    mute.down.loss = 1.0;
    let (mut world, client) = over(vec![asymmetric(DOWN), mute]);
    world.stream(client, Down, 2_000, SIZE);
    world.run_for(S);

    let host = world.server(SERVER);
    let (machine, id) = (host.server().expect("it runs"), host.peer_of(client).expect("it is up"));
    let peer = machine.peer(id).expect("it is up");
    let view = machine.view(id).and_then(|view| view.get()).expect("it is up");
    for slot in [0, 1] {
        let target = view.targets.iter().find(|target| target.slot == slot).expect("it is heard");
        let (proven, its) = (target.credit.is_none(), peer.pace(slot).expect("its rate is told"));
        assert_eq!((proven, target.pace.is_some()), (slot == 0, slot == 0));
        assert_eq!(its.waiting(host.local(world.now())).packets > 0, slot == 0);
    }
}

/// A link upwards of so many Mbit/s with 20 ms of delay and room for two seconds, of whose rate
/// nobody knows.
fn unknown(mbit: u64) -> PathSpec {
    let up = LinkConfig {
        delay: 20 * MS,
        rate: NonZeroU64::new(mbit * 125_000),
        buffer: usize::try_from(mbit * 250_000).expect("it is small"),
        ..LinkConfig::default()
    };
    let settings = PathSettings { rate: Rate::Learnt, ..PathSettings::default() };
    PathSpec { up, settings, ..PathSpec::rtt(40 * MS) }
}

/// Datagrams that arrived upwards within the last `span`, and the longest way of 99 % of them.
fn lately(world: &World, client: ClientNo, span: Duration) -> (usize, Duration) {
    let now = world.now();
    let came = |d: &&Datagram| d.delivered_at.is_some_and(|at| now.since(at) < span);
    let arrived = world.ledger().of(client, Up).filter(came);
    let mut latencies: Vec<_> = arrived.filter_map(|d| d.latency()).collect();
    (latencies.len(), quantile(&mut latencies, 0.99))
}

#[test]
fn a_rate_that_is_learnt_fills_the_link_and_not_its_buffer() {
    // What fits, in packets a second, is 1,024 for each 10 Mbit/s.
    for (mbit, offered) in [(1, 200), (10, 1_200), (10, 2_000), (100, 20_000)] {
        let (mut world, client) = over(vec![unknown(mbit)]);
        world.stream(client, Up, offered, SIZE);
        world.run_for(12 * S);

        let (count, p99) = lately(&world, client, 8 * S);
        let part = count as f64 / (8.0 * 102.4 * mbit as f64);
        println!("{offered}/s over {mbit} Mbit/s: {:.1} % of it, {p99:?}", part * 100.0);
        // 20 ms on the way, 50 ms of waiting, and what it takes to see that there is a queue.
        assert!(part > 0.95 && p99 < 200 * MS, "{mbit} Mbit/s: {part}, {p99:?}");
        world.verify();
    }
}

#[test]
fn a_queue_that_was_there_before_the_rate_is_to_be_learnt_is_emptied() {
    let mut spec = unknown(10);
    spec.settings.rate = Rate::Unknown;
    let (mut world, client) = over(vec![spec]);
    world.stream(client, Up, 1_500, SIZE);
    world.run_for(8 * S);
    assert!(lately(&world, client, 2 * S).1 > 1_900 * MS, "the buffer is full");

    set_rate(&mut world, client, Rate::Learnt);
    world.run_for(8 * S);
    let (count, p99) = lately(&world, client, 2 * S);
    assert!(count > 1_950 && p99 < 200 * MS, "{count}, {p99:?}");
}

#[test]
fn a_rate_that_is_learnt_follows_the_link() {
    let (mut world, client) = over(vec![unknown(10)]);
    world.stream(client, Up, 1_500, SIZE);
    world.run_for(5 * S);

    world.set_link(path(client, 0), Up, unknown(1).up);
    // Two seconds until the first probe is through, and those that came before it.
    world.run_for(9 * S);
    let (count, p99) = lately(&world, client, 3 * S);
    assert!(count > 285 && p99 < 200 * MS, "{count}, {p99:?}");

    world.set_link(path(client, 0), Up, unknown(50).up);
    world.run_for(5 * S);
    let before = dropped(&world, client, 0);
    world.run_for(3 * S);
    assert_eq!(dropped(&world, client, 0), before);
}

#[test]
fn neither_jitter_nor_loss_nor_a_full_way_back_nor_a_longer_way_is_taken_for_too_much() {
    let jittery = LinkConfig { jitter: 20 * MS, ..unknown(10).up };
    let lossy = LinkConfig { loss: 0.2, ..unknown(10).up };
    let paths = [
        PathSpec { up: jittery, ..unknown(10) },
        PathSpec { up: lossy, ..unknown(10) },
        PathSpec { down: unknown(10).up, ..unknown(10) },
    ];
    for spec in paths {
        let (mut world, client) = over(vec![spec]);
        world.stream(client, Up, 500, SIZE);
        world.stream(client, Down, 1_500, SIZE);
        world.run_for(20 * S);
        assert_eq!(dropped(&world, client, 0), 0);
    }

    let (mut world, client) = over(vec![unknown(10)]);
    world.stream(client, Up, 500, SIZE);
    world.run_for(3 * S);
    let up = LinkConfig { delay: 80 * MS, ..unknown(10).up };
    world.set_link(path(client, 0), Up, up);
    // It looks like a queue, until sending less does not make it shorter.
    world.run_for(3 * S);
    let before = dropped(&world, client, 0);
    assert!(before < 500, "{before}");
    world.run_for(20 * S);
    assert_eq!(dropped(&world, client, 0), before);
}

#[test]
fn jitter_that_is_taken_for_too_much_slows_a_path_down_a_little_and_not_for_long() {
    let jittery = LinkConfig { delay: 60 * MS, jitter: 60 * MS, in_order: true, ..unknown(20).up };
    for seed in 0..4 {
        let spec = PathSpec { up: jittery.clone(), ..unknown(20) };
        let (mut world, _, client) = tunnel_over(seed, vec![spec]);
        world.start_all();
        // A quarter of what the link carries.
        world.stream(client, Up, 500, SIZE);
        world.run_for(60 * S);
        let lost = dropped(&world, client, 0);
        println!("{lost} of 30,000");
        assert!(lost < 1_500, "seed {seed}: {lost} of 30,000");
    }
}

#[test]
fn a_backup_that_carries_probes_and_samples_learns_nothing_from_their_jitter() {
    let up = LinkConfig { delay: 60 * MS, jitter: 60 * MS, ..unknown(10).up };
    let settings = PathSettings { backup: true, ..unknown(10).settings };
    let backup = PathSpec { up, settings, ..unknown(10) };
    for seed in 0..6 {
        let (mut world, _, client) = tunnel_over(seed, vec![unknown(20), backup.clone()]);
        world.start_all();
        world.stream(client, Up, 500, SIZE);
        world.run_for(30 * S);
        world.set_dark(path(client, 0), true);
        world.run_for(5 * S);
        let lost = dropped(&world, client, 1);
        assert!(lost < 500, "seed {seed}: {lost} of 2,500");
    }
}

#[test]
fn a_server_learns_what_a_link_carries_to_its_client() {
    let (mut world, client) = over(vec![asymmetric(LEARN_RATE)]);
    world.stream(client, Down, 2_000, SIZE);
    world.run_for(4 * S);
    let before = delivered_by(&world, client, Down).0;
    world.run_for(8 * S);
    let count = delivered_by(&world, client, Down).0 - before;
    let path = world.client(client).client().expect("it runs").paths().next().expect("one");
    let round_trip = path.probe.health.srtt().expect("it answers");
    assert!(count > 7_900 && round_trip < 120 * MS, "{count} {round_trip:?}");

    // The client may change its mind.
    set_rate_down(&mut world, client, DOWN / 2);
    world.run_for(300 * MS);
    let before = delivered_by(&world, client, Down).0;
    world.run_for(S);
    let count = delivered_by(&world, client, Down).0 - before;
    assert!((480..=520).contains(&count), "{count} in a second");
    set_rate_down(&mut world, client, 0);
    world.run_for(300 * MS);
    assert_eq!(waiting(&world, client), None);
    world.stop_streams();
    world.run_for(10 * S);
    world.verify();
    world.assert_drains();
}
