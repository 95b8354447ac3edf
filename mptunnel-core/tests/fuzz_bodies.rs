// SPDX-License-Identifier: BSD-2-Clause
//! The bodies of the fuzz targets, without a fuzzer: each takes its seeds, and mutations of them.
//!
//! `MPTUNNEL_RUNS=n` makes n times as many mutations as usual. `MPTUNNEL_FUZZ_CORPUS=folder` runs what
//! a fuzzer has left in `folder/TARGET`, such as `fuzz/corpus` or `fuzz/artifacts`, and nothing else.

#[path = "../fuzz/src/bodies/mod.rs"]
mod bodies;

use bodies::{TARGETS, Target};
use mptunnel_core::sim::rng::Rng;

/// Inputs made of seeds, for each target.
const MUTATIONS: u64 = 60;

fn check(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("it is in the list");
    if let Some(folder) = std::env::var_os("MPTUNNEL_FUZZ_CORPUS") {
        let files = std::fs::read_dir(std::path::Path::new(&folder).join(name));
        for file in files.into_iter().flatten() {
            let path = file.expect("the folder can be read").path();
            run(target, &std::fs::read(path).expect("the file can be read"));
        }
        return;
    }
    let runs = std::env::var("MPTUNNEL_RUNS").ok().map_or(1, |n| n.parse().expect("a number"));
    let seeds = (target.seeds)();
    for seed in &seeds {
        run(target, seed);
    }
    let mut dice = Rng::new(1).fork(name);
    for _ in 0..MUTATIONS * runs {
        let mut input = seeds[below(&mut dice, seeds.len())].clone();
        for _ in 0..dice.range(1..6) {
            mutate(&mut input, &seeds[below(&mut dice, seeds.len())], &mut dice);
        }
        run(target, &input);
    }
}

/// Runs an input; prints it if that fails.
fn run(target: &Target, input: &[u8]) {
    struct Hint<'a>(&'a str, &'a [u8]);
    impl Drop for Hint<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let bytes: String = self.1.iter().map(|byte| format!("\\x{byte:02x}")).collect();
                eprintln!("{} failed with: printf '{bytes}'", self.0);
            }
        }
    }
    let _hint = Hint(target.name, input);
    (target.run)(input);
}

fn mutate(input: &mut Vec<u8>, other: &[u8], dice: &mut Rng) {
    if input.is_empty() {
        return input.extend(other);
    }
    let at = below(dice, input.len());
    match dice.range(0..5) {
        0 => input[at] ^= 1 << dice.range(0..8),
        1 => input[at] = dice.u64() as u8,
        2 => input.truncate(at),
        3 => drop(input.splice(at..at, other.iter().copied())),
        _ => drop(input.drain(at..(at + 8).min(input.len()))),
    }
}

fn below(dice: &mut Rng, end: usize) -> usize {
    dice.range(0..end as u64) as usize
}

macro_rules! check_all {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_target_is_checked_here() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

check_all! {
    config ctrl_frames datagram_client datagram_server fragments init legacy order pace resp
    two_peers window_ops
}
