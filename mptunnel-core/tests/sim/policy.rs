// SPDX-License-Identifier: BSD-2-Clause
//! Policies over simulated links: what they carry, how fast they follow a change, and that one bad
//! path spoils nothing.

use crate::support::*;
use mptunnel_core::proto::config::ClientConfig;
use mptunnel_core::proto::sched::{Failback, Mode, Policy};
use mptunnel_core::proto::throttle::Rate;
use mptunnel_core::sim::link::{Fades, LinkConfig};
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{ClientNo, Datagram, Direction, PathSpec, ServerNo, World};
use std::time::Duration;

/// A tunnel whose client asks for `policy`; the server follows. Up for a while already.
fn tunnel_with(seed: u64, policy: Policy, paths: Vec<PathSpec>) -> (World, ServerNo, ClientNo) {
    let mut world = World::new(seed);
    let server = world.add_server(server_config);
    let client = world.add_client(server, paths, move || {
        let mut config = ClientConfig { name: Some("client".into()), ..client_config() };
        config.common.policy = policy;
        config
    });
    world.start_all();
    world.run_for(2 * S);
    (world, server, client)
}

fn mode(mode: Mode) -> Policy {
    Policy { mode, ..Policy::default() }
}

fn delay(ms: u32) -> LinkConfig {
    LinkConfig { delay: ms * MS, ..LinkConfig::default() }
}

/// A link of so many Mbit/s with 50 ms of buffer.
fn rated(mbit: u64) -> LinkConfig {
    let rate = mbit * 125_000;
    let buffer = usize::try_from(rate / 20).expect("it is small");
    LinkConfig { rate: std::num::NonZeroU64::new(rate), buffer, ..delay(10) }
}

fn weighing(link: LinkConfig, weight: u16) -> PathSpec {
    let mut spec = PathSpec::both(link);
    spec.settings.weight = weight;
    spec
}

fn backup(link: LinkConfig) -> PathSpec {
    let mut spec = PathSpec::both(link);
    spec.settings.backup = true;
    spec
}

/// Datagrams sent within a span of the run.
fn between(
    world: &World,
    client: ClientNo,
    way: Direction,
    from: Duration,
    to: Duration,
) -> impl Iterator<Item = &Datagram> {
    let end = world.now();
    world.ledger().of(client, way).filter(move |d| {
        let age = end.since(d.sent_at);
        age <= from && age > to
    })
}

/// The share that was lost of what was sent between `from` and `to` before now.
fn loss(world: &World, client: ClientNo, way: Direction, from: Duration, to: Duration) -> f64 {
    let (mut sent, mut lost) = (0u32, 0u32);
    for datagram in between(world, client, way, from, to) {
        sent += 1;
        lost += u32::from(datagram.delivered_at.is_none());
    }
    assert!(sent > 0);
    f64::from(lost) / f64::from(sent)
}

fn p99(world: &World, client: ClientNo, way: Direction, from: Duration, to: Duration) -> Duration {
    let latencies = between(world, client, way, from, to).filter_map(Datagram::latency);
    quantile(&mut latencies.collect::<Vec<_>>(), 0.99)
}

/// Copies per datagram.
fn copies(world: &World, client: ClientNo, way: Direction, from: Duration, to: Duration) -> f64 {
    let (mut sent, mut copies) = (0u32, 0u32);
    for datagram in between(world, client, way, from, to) {
        sent += 1;
        copies += datagram.copies;
    }
    f64::from(copies) / f64::from(sent)
}

/// Packets that were put into the links of a client's paths, one way, so far.
fn put_in(world: &World, client: ClientNo, way: Direction) -> Vec<u64> {
    let paths = world.client(client).paths.iter();
    paths
        .map(|path| if way == Up { path.counters().0.sent } else { path.counters().1.sent })
        .collect()
}

fn since(now: &[u64], before: &[u64]) -> Vec<u64> {
    now.iter().zip(before).map(|(now, before)| now - before).collect()
}

#[test]
fn weighted_carries_the_sum_of_three_paths() {
    let paths = [10, 20, 30].map(|rate| weighing(rated(rate), rate as u16));
    let (mut world, _, client) = tunnel_with(1, mode(Mode::Weighted), paths.to_vec());
    // 57 Mbit/s of payload are 95 % of the sum, 97.5 % with what each packet adds.
    world.stream(client, Up, 5_090, 1_400);
    world.run_for(5 * S);

    let lost = loss(&world, client, Up, 4 * S, 200 * MS);
    let carried = 5_090.0 * 1_400.0 * 8.0 * (1.0 - lost) / 1e6;
    println!("{carried:.1} Mbit/s, {:.3} % lost", lost * 100.0);
    assert!(carried >= 0.93 * 60.0 && lost < 0.005, "{carried} {lost}");
}

#[test]
fn automatic_weights_find_out_what_three_paths_carry() {
    with_seeds("automatic_weights_find_out", 3, |seed| {
        let paths = [10, 20, 30].map(|rate| weighing(rated(rate), 0));
        let (mut world, _, client) = tunnel_with(seed, mode(Mode::Weighted), paths.to_vec());
        // 97.5 % of the sum with headers, of which equal shares would carry 50 of 60 Mbit/s.
        world.stream(client, Up, 5_090, 1_400);
        world.run_for(12 * S);

        let lost = loss(&world, client, Up, 4 * S, 200 * MS);
        println!("{:.3} % lost", lost * 100.0);
        assert!(lost < 0.001, "{lost}");
    });
}

#[test]
fn weights_that_are_wrong_or_too_much_traffic_cost_little_more_than_what_does_not_fit() {
    with_seeds("weights_that_are_wrong", 3, |seed| {
        for (weight, pps, bound) in [(1, 5_090, 0.05), (0, 6_000, 0.17), (0, 8_000, 0.38)] {
            let paths = [10, 20, 30].map(|rate| weighing(rated(rate), weight));
            let (mut world, _, client) = tunnel_with(seed, mode(Mode::Weighted), paths.to_vec());
            world.stream(client, Up, pps, 1_400);
            world.run_for(10 * S);

            // At 6,000 a second, 70.7 Mbit/s with headers, 14.5 % do not fit; at 8,000 35.8 %.
            let lost = loss(&world, client, Up, 4 * S, 200 * MS);
            println!("weight {weight}, {pps}/s: {:.3} % lost", lost * 100.0);
            assert!(lost < bound, "{weight} {pps}: {lost}");
        }
    });
}

/// Paths of 10, 20 and 30 Mbit/s with weights that may be wrong.
fn three_with(weights: [u16; 3]) -> Vec<PathSpec> {
    [10, 20, 30].into_iter().zip(weights).map(|(rate, w)| weighing(rated(rate), w)).collect()
}

#[test]
fn weights_that_are_wrong_for_long_cost_next_to_nothing() {
    with_seeds("weights_that_are_wrong_for_long", 1, |seed| {
        for weights in [[1, 1, 1], [3, 2, 1]] {
            let paths = three_with(weights);
            let (mut world, _, client) = tunnel_with(seed, mode(Mode::Weighted), paths);
            // 95 % of the sum.
            world.stream(client, Up, 5_090, 1_400);
            world.run_for(60 * S);

            let lost = loss(&world, client, Up, 30 * S, 200 * MS);
            println!("{weights:?}: {:.3} % lost", lost * 100.0);
            assert!(lost < 0.003, "{weights:?}: {lost}");
        }
    });
}

#[test]
fn a_path_that_was_slow_for_a_while_is_used_again_though_trials_had_become_rare() {
    with_seeds("a_path_that_was_slow_for_a_while", 1, |seed| {
        let paths = three_with([1, 1, 10]);
        let (mut world, _, client) = tunnel_with(seed, mode(Mode::Weighted), paths);
        let carried = |world: &mut World| {
            let before = put_in(world, client, Up)[2];
            world.run_for(S);
            put_in(world, client, Up)[2] - before
        };
        world.stream(client, Up, 4_286, 1_400);
        world.run_for(30 * S);
        let whole = carried(&mut world);

        world.set_link(path(client, 2), Up, rated(3));
        world.run_for(5 * S);
        let slow = carried(&mut world);
        world.set_link(path(client, 2), Up, rated(30));
        world.run_for(10 * S);
        let soon = carried(&mut world);
        world.run_for(6 * S);
        let later = carried(&mut world);

        println!("{whole}, then {slow}, {soon} after 10 s, {later} after 17 s");
        assert!(slow * 2 < whole, "{slow} of {whole}");
        assert!(soon * 3 > whole && later * 5 > whole * 4, "{soon} and {later} of {whole}");
    });
}

#[test]
fn with_rates_wrong_weights_lose_nothing_that_the_paths_together_carry() {
    // Automatic shares begin with what is told.
    for (weight, longest) in [(0, 15 * MS), (1, 70 * MS)] {
        let paths = [10u16, 20, 30].map(|mbit| {
            let mut spec = weighing(rated(mbit.into()), weight);
            spec.settings.rate = Rate::Told(u64::from(mbit) * 125_000);
            spec
        });
        let (mut world, _, client) = tunnel_with(1, mode(Mode::Weighted), paths.to_vec());
        // Two thirds of it would fit the slowest path if each got a third.
        world.stream(client, Up, 5_000, 1_400);
        world.run_for(10 * S);
        // Four pieces each.
        world.stream(client, Up, 20, 5_000);
        world.run_for(5 * S);

        assert_eq!(loss(&world, client, Up, 15 * S, 200 * MS), 0.0, "weight {weight}");
        let p99 = p99(&world, client, Up, 2 * S, 200 * MS);
        println!("weight {weight}: {p99:?}");
        assert!(p99 < longest, "weight {weight}: {p99:?}");
    }
}

#[test]
fn when_a_path_drops_to_a_tenth_the_others_are_undisturbed_within_two_seconds() {
    for weights in [[10, 20, 30], [0, 0, 0]] {
        let rates = [10, 20, 30];
        let paths = rates.iter().zip(weights).map(|(rate, w)| weighing(rated(*rate), w)).collect();
        let (mut world, _, client) = tunnel_with(1, mode(Mode::Weighted), paths);
        // As much as the other two carry.
        world.stream(client, Up, 2_400, 1_400);
        world.run_for(4 * S);
        world.set_link(path(client, 2), Up, rated(3));
        world.run_for(10 * S);

        let first = loss(&world, client, Up, 10 * S, 8 * S);
        let rest = loss(&world, client, Up, 8 * S, 200 * MS);
        println!(
            "{weights:?}: {:.2} % in the first 2 s, {:.3} % then",
            first * 100.0,
            rest * 100.0
        );
        assert!(rest < 0.005, "{weights:?}: {rest}");
    }
}

#[test]
fn fastest_follows_the_better_path_within_a_second_and_ignores_noise() {
    let paths = vec![PathSpec::both(delay(20)), PathSpec::both(delay(30))];
    let (mut world, _, client) = tunnel_with(1, mode(Mode::Fastest), paths);
    world.stream_both_ways(client, 200, 200);
    world.run_for(3 * S);
    let carried = |world: &mut World, way| {
        let before = put_in(world, client, way);
        world.run_for(S);
        since(&put_in(world, client, way), &before)
    };
    for way in [Up, Down] {
        let used = carried(&mut world, way);
        assert!(used[0] > 190 && used[1] < 20, "{used:?}");
    }

    for way in [Up, Down] {
        world.set_link(path(client, 0), way, delay(60));
    }
    world.run_for(S);
    for way in [Up, Down] {
        let used = carried(&mut world, way);
        assert!(used[1] > 190 && used[0] < 20, "{way:?} {used:?}");
    }

    // Noise of 5 % around 30 ms on both.
    for index in 0..2 {
        for way in [Up, Down] {
            let noisy = LinkConfig { jitter: MS * 3 / 2, in_order: true, ..delay(30) };
            world.set_link(path(client, index), way, noisy);
        }
    }
    world.run_for(3 * S);
    let mut last = None;
    let mut changes = 0;
    for _ in 0..30 {
        let used = carried(&mut world, Up);
        let now = usize::from(used[1] > used[0]);
        changes += u32::from(last.is_some_and(|last| last != now));
        last = Some(now);
    }
    assert_eq!(changes, 0);
}

#[test]
fn a_path_whose_deep_buffer_fastest_fills_is_tried_ever_more_rarely_and_loses_nothing() {
    // Half of what is sent, behind two seconds of buffer: shorter than the other while empty.
    let narrow =
        LinkConfig { rate: std::num::NonZeroU64::new(100_000), buffer: 200_000, ..delay(10) };
    for seed in 1..=2 {
        let paths = vec![PathSpec::both(narrow.clone()), PathSpec::both(delay(25))];
        let (mut world, _, client) = tunnel_with(seed, mode(Mode::Fastest), paths);
        world.stream_both_ways(client, 200, 1_000);
        world.run_for(360 * S);
        for way in [Up, Down] {
            let lost = loss(&world, client, way, 359 * S, S);
            let slowest = p99(&world, client, way, 240 * S, S);
            println!("seed {seed} {way:?}: {:.3} % lost, p99 {slowest:?}", lost * 100.0);
            assert!(lost == 0.0, "{way:?}: {lost}");
            assert!(slowest <= 28 * MS, "{way:?}: {slowest:?}");
        }
        world.verify();
    }
}

#[test]
fn fastest_and_adaptive_leave_a_dear_path_alone_while_a_cheap_one_is_fit() {
    for chosen in [Mode::Fastest, Mode::Adaptive] {
        let mut dear = PathSpec::both(delay(10));
        dear.settings.cost = 1;
        let paths = vec![dear.clone(), PathSpec::both(delay(40))];
        let (mut world, _, client) = tunnel_with(1, mode(chosen), paths);
        world.stream_both_ways(client, 200, 200);
        // As long as adaptive takes to make fewer copies.
        world.run_for(20 * S);
        let carried = |world: &mut World| {
            let before = [Up, Down].map(|way| put_in(world, client, way));
            world.run_for(S);
            [(Up, &before[0]), (Down, &before[1])]
                .map(|(way, b)| since(&put_in(world, client, way), b))
        };
        for used in carried(&mut world) {
            assert!(used[0] < 20 && used[1] >= 200, "{chosen:?}: {used:?}");
        }

        for way in [Up, Down] {
            world.faults(path(client, 1), way).dark = true;
        }
        world.run_for(2 * S);
        for used in carried(&mut world) {
            assert!(used[0] >= 200, "{chosen:?}: {used:?}");
        }
    }
}

#[test]
fn a_backup_is_silent_takes_over_within_three_probe_intervals_and_returns_by_its_policy() {
    for chosen in [Mode::Redundant, Mode::Weighted, Mode::Fastest, Mode::Adaptive] {
        for (failback, slow, returns) in [
            (Failback::Always, true, true),
            (Failback::Better, true, false),
            (Failback::Better, false, true),
            (Failback::Never, false, false),
        ] {
            let what = format!("{chosen:?} {failback:?} {slow}");
            let paths = vec![PathSpec::both(delay(10)), backup(delay(20))];
            let policy = Policy { failback, ..mode(chosen) };
            let (mut world, _, client) = tunnel_with(1, policy, paths);
            world.stream_both_ways(client, 200, 100);
            world.run_for(3 * S);
            let before = [put_in(&world, client, Up), put_in(&world, client, Down)];
            world.run_for(5 * S);
            for (way, before) in [Up, Down].into_iter().zip(&before) {
                let used = since(&put_in(&world, client, way), before);
                // 1,000 datagrams, a 64th of them; 20 PINGs and as many PONGs.
                assert!((14 + 20..=17 + 46).contains(&used[1]), "{what}: {used:?}");
            }

            world.set_dark(path(client, 0), true);
            world.run_for(5 * S);
            for way in [Up, Down] {
                let gap = loss(&world, client, way, 5 * S, 200 * MS) * 4.8;
                assert!(gap < 0.750 + 0.03, "{what} {way:?}: {gap} s");
                assert_eq!(loss(&world, client, way, 4 * S, 200 * MS), 0.0, "{what} {way:?}");
            }

            if slow {
                world.set_link(path(client, 0), Up, delay(40));
            }
            world.set_dark(path(client, 0), false);
            // Until its loss in the outage is forgotten.
            world.run_for(20 * S);
            let before = [put_in(&world, client, Up), put_in(&world, client, Down)];
            world.run_for(S);
            for (way, before) in [Up, Down].into_iter().zip(&before) {
                let used = since(&put_in(&world, client, way), before);
                assert_eq!(used[1] < 50, returns, "{what} {way:?}: {used:?}");
                assert_eq!(loss(&world, client, way, 5 * S, 200 * MS), 0.0, "{what} {way:?}");
            }
        }
    }
}

fn lossy(seed: u64) -> PathSpec {
    // Far from each other, as the times are counted from there.
    let seed = (seed + 10) << 40;
    let fades = Some(Fades { seed, length: MS / 2, share: 0.05 });
    PathSpec::both(LinkConfig { fades, ..delay(20) })
}

#[test]
fn adaptive_meets_its_target_over_four_lossy_paths_with_fewer_than_four_copies() {
    let paths = vec![lossy(1), lossy(2), lossy(3), lossy(4)];
    let (mut world, _, client) = tunnel_with(1, mode(Mode::Adaptive), paths);
    world.stream(client, Up, 1_900, 100);
    world.run_for(70 * S);

    let lost = loss(&world, client, Up, 60 * S, 200 * MS);
    let copies = copies(&world, client, Up, 60 * S, 200 * MS);
    // What is lost in a minute is a handful. How often each number of copies is lost is known.
    let sent: Vec<_> = between(&world, client, Up, 60 * S, 200 * MS).collect();
    let expected = sent.iter().map(|d| 0.05f64.powf(d.copies.into())).sum::<f64>();
    let expected = expected / sent.len() as f64;
    println!("{lost:.2e} lost, {expected:.2e} expected, with {copies:.2} copies");
    assert!(lost <= 1e-4 && expected <= 1e-4, "{lost} {expected}");
    let doubt = 3.0 * (expected / sent.len() as f64).sqrt();
    assert!((lost - expected).abs() < doubt, "{lost} in place of {expected}");
    assert!(copies <= 3.5, "{copies}");
}

#[test]
fn adaptive_does_not_count_two_paths_twice_that_lose_together() {
    // What three independent copies lose is 1.25e-4: three are enough, the right three.
    let policy = Policy { target_loss_ppb: 250_000, ..mode(Mode::Adaptive) };
    let paths = vec![lossy(1), lossy(1), lossy(3), lossy(4)];
    let (mut world, _, client) = tunnel_with(1, policy, paths);
    world.stream(client, Up, 1_000, 100);
    world.run_for(30 * S);
    let before = put_in(&world, client, Up);
    world.run_for(10 * S);

    let used = since(&put_in(&world, client, Up), &before);
    let (least, most) = (used[0].min(used[1]), used[0].max(used[1]));
    println!("{used:?}");
    assert!(most > 9_000 && least < 1_500, "one of the two: {used:?}");
    assert!(used[2] > 9_000 && used[3] > 9_000, "{used:?}");
}

#[test]
fn adaptive_settles_at_one_copy_on_clean_paths() {
    let paths =
        vec![PathSpec::both(delay(30)), PathSpec::both(delay(20)), PathSpec::both(delay(25))];
    let (mut world, _, client) = tunnel_with(1, mode(Mode::Adaptive), paths);
    world.stream_both_ways(client, 500, 200);
    world.run_for(40 * S);

    for way in [Up, Down] {
        let copies = copies(&world, client, way, 10 * S, 200 * MS);
        println!("{copies:.4} copies");
        assert!(copies <= 1.02, "{way:?}: {copies}");
    }
}

#[test]
fn the_end_that_answers_finds_a_dead_way_as_soon_as_the_one_that_asks() {
    // Whenever the next probe of the idle tunnel is due.
    for (asks, idle) in [Up, Down].into_iter().flat_map(|way| (6..11).map(move |s| (way, s * S))) {
        let answers = if asks == Up { Down } else { Up };
        let paths = vec![PathSpec::both(delay(1)), PathSpec::both(delay(20))];
        let (mut world, _, client) = tunnel_with(1, mode(Mode::Fastest), paths);
        world.run_for(idle);
        world.stream(client, asks, 100, 200);
        world.run_for(20 * MS);
        world.stream(client, answers, 100, 200);
        world.run_for(S);
        world.faults(path(client, 0), answers).dark = true;
        world.run_for(4 * S);

        let lost = loss(&world, client, answers, 4 * S, 200 * MS) * 3.8;
        println!("{lost:.2} s of datagrams lost {answers:?} after {idle:?}");
        assert!(lost < 1.1, "{lost} s of datagrams lost {answers:?} after {idle:?}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Evil {
    FullSocket,
    Bloat,
    Loss,
}

/// Makes path 0 bad in both directions.
fn spoil(world: &mut World, client: ClientNo, evil: Evil) {
    for way in [Up, Down] {
        match evil {
            Evil::FullSocket => world.faults(path(client, 0), way).slow_socket = true,
            Evil::Bloat => world.set_link(path(client, 0), way, delay(2_010)),
            Evil::Loss => {
                world.set_link(path(client, 0), way, LinkConfig { loss: 0.5, ..delay(10) });
            }
        }
    }
}

#[test]
fn beside_a_clean_path_a_bad_one_spoils_nothing_in_any_mode() {
    for chosen in [Mode::Redundant, Mode::Fastest, Mode::Adaptive, Mode::Weighted] {
        for evil in [Evil::FullSocket, Evil::Bloat, Evil::Loss] {
            let what = format!("{chosen:?} {evil:?}");
            // Attractive until it is bad.
            let paths = vec![PathSpec::both(delay(10)), PathSpec::both(delay(20))];
            let (mut world, _, client) = tunnel_with(1, mode(chosen), paths);
            world.stream_both_ways(client, 400, 200);
            world.run_for(3 * S);
            spoil(&mut world, client, evil);
            // As late answers come, the path looks different: nothing may be fooled by that.
            world.run_for(13 * S);
            for way in [Up, Down] {
                // A second after the change on.
                let lost = loss(&world, client, way, 12 * S, 3 * S);
                let slowest = p99(&world, client, way, 12 * S, 3 * S);
                println!("{what} {way:?}: {:.3} % lost, p99 {slowest:?}", lost * 100.0);
                let allowed = if chosen == Mode::Weighted { 0.005 } else { 0.0 };
                assert!(lost <= allowed, "{what} {way:?}: {lost}");
                assert!(slowest <= 22 * MS, "{what} {way:?}: {slowest:?}");
            }
        }
    }
}

#[test]
fn a_setting_at_either_end_counts_at_both_and_outlives_a_restart() {
    let paths = vec![weighing(delay(10), 3), weighing(delay(10), 1)];
    let (mut world, server, client) = tunnel_with(1, mode(Mode::Weighted), paths);
    let policies = |world: &World| {
        let peer = world.server(server).peer_of(client).expect("it is known");
        let there = world.server(server).server().and_then(|s| s.peer(peer)).expect("it is here");
        let here = world.client(client).client().expect("it runs");
        assert!(here.agreement().is_agreed() && there.agreement().is_agreed());
        (here.agreement().policy().mode, there.agreement().policy().mode)
    };
    assert_eq!(policies(&world), (Mode::Weighted, Mode::Weighted));
    // The server deals what it sends by the client's weights.
    world.stream(client, Down, 400, 200);
    world.run_for(2 * S);
    let before = put_in(&world, client, Down);
    world.run_for(2 * S);
    let used = since(&put_in(&world, client, Down), &before);
    assert!((600..650).contains(&used[0]) && (200..250).contains(&used[1]), "{used:?}");

    world.with_server(server, |machine, now| machine.set_policy(now, mode(Mode::Fastest)));
    world.run_for(S);
    assert_eq!(policies(&world), (Mode::Fastest, Mode::Fastest));

    world.kill_server(server);
    world.start_server(server);
    world.run_for(3 * S);
    assert_eq!(policies(&world), (Mode::Weighted, Mode::Weighted), "the client's own");
    world.verify();
}
