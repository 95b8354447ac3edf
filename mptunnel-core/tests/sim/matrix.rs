// SPDX-License-Identifier: BSD-2-Clause
//! Every combination of loss, duplication, skew, number of paths and pattern of failure (G5).
//!
//! Each test plays 200 random cells of its pattern; `MPTUNNEL_RUNS=n` plays n times as many.
//! `MPTUNNEL_CELL=n MPTUNNEL_SEED=m` repeats one run.

use crate::support::*;
use mptunnel_core::proto::drop::DropReason;
use mptunnel_core::proto::time::Time;
use mptunnel_core::sim::link::LinkConfig;
use mptunnel_core::sim::rng::Rng;
use mptunnel_core::sim::world::Direction::{Down, Up};
use mptunnel_core::sim::world::{ClientNo, PathNo, PathSpec, World};
use std::time::Duration;

/// What happens to the paths.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pattern {
    /// Nothing.
    Steady,
    /// Some paths are dark every other second.
    Flap,
    /// Some paths lose everything that the server sends.
    UpOnly,
    /// Some paths lose everything that the client sends.
    DownOnly,
    /// All paths are dark for so many seconds.
    Dark(u32),
    /// The client's socket of one path takes nothing.
    SlowSocket,
    /// Some paths pass everything but DATA.
    GreyHole,
    /// The translator of some paths forgets them every 2 s.
    Rebind,
}

const LOSSES: [f64; 5] = [0.0, 0.01, 0.05, 0.2, 0.5];
const COPIES: [u32; 3] = [1, 2, 8];
const SKEWS_MS: [u64; 4] = [0, 10, 200, 2_000];
const PATHS: [usize; 4] = [1, 2, 4, 8];
/// Cells of one pattern.
const CELLS: u64 = 240;
const RTT: Duration = Duration::from_millis(100);

/// One combination.
#[derive(Clone, Copy, Debug)]
struct Cell {
    loss: f64,
    copies: u32,
    skew: Duration,
    paths: usize,
    pattern: Pattern,
}

impl Cell {
    /// Cell `number` of the 240 of a pattern.
    fn of(pattern: Pattern, number: u64) -> Cell {
        let mut rest = number as usize;
        let mut next = |count: usize| {
            let digit = rest % count;
            rest /= count;
            digit
        };
        Cell {
            loss: LOSSES[next(5)],
            copies: COPIES[next(3)],
            skew: Duration::from_millis(SKEWS_MS[next(4)]),
            paths: PATHS[next(4)],
            pattern,
        }
    }

    fn world(self, seed: u64) -> (World, ClientNo) {
        let paths = (0..self.paths).map(|index| {
            let skew = if index == 0 { Duration::ZERO } else { self.skew };
            PathSpec::both(LinkConfig {
                loss: self.loss,
                duplicate: 1.0,
                copies: self.copies - 1,
                delay: RTT / 2 + skew,
                ..LinkConfig::default()
            })
        });
        let (world, _, client) = tunnel_over(seed, paths.collect());
        (world, client)
    }

    /// Up to when recovery may take after this pattern, in 99 of 100 cases.
    fn recovery_limit(self) -> Duration {
        let long = self.pattern == Pattern::Dark(200);
        if self.loss <= 0.01 {
            return if long { 2 * S } else { S };
        }
        // Of the fastest path alone: a probe or an INIT, its answer, the confirmation and the
        // first datagram must pass, all in one round or in several.
        let passes = (1.0 - self.loss).powi(4);
        let rounds = (0.01f64).ln() / (1.0 - passes).ln();
        let interval = if long { 1_100 * MS } else { 550 * MS };
        interval.mul_f64(rounds.ceil()) + 2 * RTT
    }
}

/// What a run was like.
struct Run {
    seed: u64,
    cell: Cell,
    recovery: Duration,
    /// Datagrams sent upwards on all paths while nothing but chance took packets, and lost ones.
    fair: (u64, u64),
}

fn play(cell: Cell, seed: u64) -> Run {
    let (mut world, client) = cell.world(seed);
    let mut dice = world.dice("pattern");
    world.start_all();
    assert!(world.run_while_not(60 * S, |w| w.client(client).is_up()), "it comes up");
    world.stream_both_ways(client, RATE, 40);
    world.run_for(1_500 * MS);
    let fair_until = world.now();
    break_and_heal(&mut world, client, cell.pattern, &mut dice);

    let healed = world.now();
    let recovered = |w: &World| {
        let since = |way| {
            let later = w.ledger().of(client, way).filter(|d| d.sent_at >= healed);
            later.filter_map(|d| d.delivered_at).min()
        };
        since(Up).is_some() && since(Down).is_some()
    };
    let is_back = world.run_while_not(120 * S, recovered);
    assert!(is_back, "traffic flows again");
    let recovery = world.now().since(healed);
    world.run_for(S);
    world.stop_streams();
    world.run_for(cell.skew + 2 * RTT);

    world.verify();
    assert_exact(&world);
    Run { seed, cell, recovery, fair: fair_share(&world, client, cell, fair_until) }
}

/// Datagrams per second each way.
const RATE: u32 = 60;

fn break_and_heal(world: &mut World, client: ClientNo, pattern: Pattern, dice: &mut Rng) {
    let paths: Vec<PathNo> = world.paths_of(client).collect();
    let certain = dice.range(0..paths.len() as u64) as usize;
    let victims: Vec<PathNo> =
        paths.iter().filter(|path| path.index == certain || dice.chance(0.5)).copied().collect();
    let each = |world: &mut World, act: &dyn Fn(&mut World, PathNo)| {
        victims.iter().for_each(|path| act(world, *path));
    };
    match pattern {
        Pattern::Steady => world.run_for(2 * S),
        Pattern::Flap => {
            for dark in [true, false, true, false] {
                each(world, &|w, path| w.set_dark(path, dark));
                world.run_for(S);
            }
        }
        Pattern::UpOnly | Pattern::DownOnly => {
            let deaf = if pattern == Pattern::UpOnly { Down } else { Up };
            each(world, &|w, path| w.faults(path, deaf).dark = true);
            world.run_for(4 * S);
            each(world, &|w, path| w.faults(path, deaf).dark = false);
        }
        Pattern::Dark(seconds) => {
            world.set_all_dark(client, true);
            if seconds > 10 {
                // What is sent into the dark is lost anyway.
                world.stop_streams();
                world.stream_both_ways(client, 5, 40);
            }
            world.run_for(seconds * S);
            world.stop_streams();
            world.set_all_dark(client, false);
            world.stream_both_ways(client, RATE, 40);
        }
        Pattern::SlowSocket => {
            world.faults(paths[certain], Up).slow_socket = true;
            world.run_for(3 * S);
            world.faults(paths[certain], Up).slow_socket = false;
        }
        Pattern::GreyHole => {
            let set = |world: &mut World, grey| {
                for way in [Up, Down] {
                    each(world, &|w, path| w.faults(path, way).grey = grey);
                }
            };
            set(world, true);
            world.run_for(4 * S);
            set(world, false);
        }
        Pattern::Rebind => {
            for _ in 0..3 {
                each(world, &|w, path| w.rebind(path));
                world.run_for(2 * S);
            }
            each(world, &|w, path| w.rebind(path));
        }
    }
}

/// The set delivered is the set of which a copy arrived.
fn assert_exact(world: &World) {
    for datagram in world.ledger().all() {
        assert_eq!(datagram.arrived_at.is_some(), datagram.delivered_at.is_some(), "{datagram:?}");
        assert_eq!(datagram.arrived_at, datagram.delivered_at, "nothing is held back");
    }
}

/// Losses of the time before the pattern began, upwards, where every copy goes into a link.
fn fair_share(world: &World, client: ClientNo, cell: Cell, until: Time) -> (u64, u64) {
    let paths = cell.paths as u32;
    let before = world.ledger().of(client, Up).filter(|d| d.sent_at < until && d.copies == paths);
    let lost = before.clone().filter(|d| d.arrived_at.is_none()).count();
    (before.count() as u64, lost as u64)
}

fn play_pattern(test: &str, pattern: Pattern) {
    let runs = 200 * number_from("MPTUNNEL_RUNS").unwrap_or(1);
    let runs: Vec<Run> = match (number_from("MPTUNNEL_CELL"), number_from("MPTUNNEL_SEED")) {
        (Some(cell), seed) => vec![play_one(test, pattern, cell, seed.unwrap_or(0))],
        (None, Some(seed)) => (0..CELLS).map(|cell| play_one(test, pattern, cell, seed)).collect(),
        (None, None) => {
            let mut order = Rng::new(2_400).fork(test);
            (0..runs).map(|seed| play_one(test, pattern, order.range(0..CELLS), seed)).collect()
        }
    };
    assert_recovery(&runs);
    assert_chance(&runs);
}

fn play_one(test: &str, pattern: Pattern, cell: u64, seed: u64) -> Run {
    let what = format!("MPTUNNEL_CELL={cell} MPTUNNEL_SEED={seed}");
    let _hint = Hint { test, what };
    play(Cell::of(pattern, cell), seed)
}

/// 99 of 100 runs recover within their limits.
fn assert_recovery(runs: &[Run]) {
    for loss in LOSSES {
        let of_loss = runs.iter().filter(|run| run.cell.loss == loss);
        let mut recovery: Vec<Duration> = of_loss.clone().map(|run| run.recovery).collect();
        let slow = of_loss.filter(|run| run.recovery > run.cell.recovery_limit()).count();
        if recovery.is_empty() {
            continue;
        }
        let reached = [0.5, 0.99, 1.0].map(|share| quantile(&mut recovery, share));
        println!("loss {loss}: {} runs, p50, p99, max {reached:?}", recovery.len());
        let worst = runs.iter().filter(|run| run.recovery > run.cell.recovery_limit());
        let worst: Vec<_> = worst.map(|run| (run.seed, run.cell, run.recovery)).collect();
        assert!(slow <= recovery.len() / 100, "too slow: {worst:?}");
    }
}

/// The simulator's own chances: losses are where the product of the paths' losses puts them.
fn assert_chance(runs: &[Run]) {
    let mut beyond = 0;
    let mut judged = 0;
    for run in runs {
        let (sent, lost) = (run.fair.0 as f64, run.fair.1 as f64);
        let p = run.cell.loss.powi(run.cell.paths as i32);
        if p == 0.0 {
            assert_eq!(run.fair.1, 0, "{:?}", run.cell);
        }
        // Of rarer events a normal distribution says nothing.
        if sent * p >= 5.0 {
            let sigmas = (lost - sent * p).abs() / (sent * p * (1.0 - p)).sqrt();
            assert!(sigmas < 5.0, "{lost} of {sent} lost in {:?}", run.cell);
            judged += 1;
            beyond += usize::from(sigmas > 3.0);
        }
    }
    assert!(beyond <= 1 + judged * 7 / 1_000, "{beyond} of {judged} runs beyond 3 σ");
}

#[test]
fn steady_paths_deliver_exactly_what_arrives() {
    play_pattern("steady_paths_deliver_exactly_what_arrives", Pattern::Steady);
}

#[test]
fn flapping_paths_cost_only_their_own_copies() {
    play_pattern("flapping_paths_cost_only_their_own_copies", Pattern::Flap);
}

#[test]
fn paths_that_carry_upwards_only_still_carry_that() {
    play_pattern("paths_that_carry_upwards_only_still_carry_that", Pattern::UpOnly);
}

#[test]
fn paths_that_carry_downwards_only_still_carry_that() {
    play_pattern("paths_that_carry_downwards_only_still_carry_that", Pattern::DownOnly);
}

#[test]
fn five_dark_seconds_are_over_within_a_second() {
    play_pattern("five_dark_seconds_are_over_within_a_second", Pattern::Dark(5));
}

#[test]
fn a_dark_minute_is_over_within_a_second() {
    play_pattern("a_dark_minute_is_over_within_a_second", Pattern::Dark(60));
}

#[test]
fn darkness_beyond_the_life_of_the_keys_is_over_within_two_seconds() {
    let test = "darkness_beyond_the_life_of_the_keys_is_over_within_two_seconds";
    play_pattern(test, Pattern::Dark(200));
}

#[test]
fn a_socket_that_takes_nothing_costs_only_its_own_copies() {
    play_pattern("a_socket_that_takes_nothing_costs_only_its_own_copies", Pattern::SlowSocket);
}

#[test]
fn grey_holes_cost_only_their_own_copies() {
    play_pattern("grey_holes_cost_only_their_own_copies", Pattern::GreyHole);
}

#[test]
fn rebinding_translators_are_followed_within_a_second() {
    play_pattern("rebinding_translators_are_followed_within_a_second", Pattern::Rebind);
}

#[test]
fn at_100_kpps_and_2_s_of_skew_no_copy_is_too_old() {
    let paths = [0, 2_000].map(|skew| {
        let delay = RTT / 2 + Duration::from_millis(skew);
        // One in a hundred exists on the slow path only.
        let loss = if skew == 0 { 0.01 } else { 0.0 };
        PathSpec::both(LinkConfig { loss, delay, ..LinkConfig::default() })
    });
    let (mut world, server, client) = tunnel_over(1, paths.into());
    world.start_all();
    // Until the slow path has answered, it carries no data.
    world.run_for(6 * S);
    world.stream(client, Up, 100_000, 16);
    world.run_for(4 * S);
    world.stop_streams();
    world.run_for(3 * S);

    world.verify();
    let lost = world.ledger().all().iter().filter(|d| d.delivered_at.is_none()).count();
    let drops = &world.server(server).plane().expect("it runs").drops;
    assert_eq!((lost, drops.of(DropReason::TooOld)), (0, 0));
    assert!(world.ledger().all().len() >= 400_000);
}
