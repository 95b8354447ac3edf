// SPDX-License-Identifier: BSD-2-Clause
//! Every option of mpclient and mpserver seen by its effect on the running program, for each way in
//! which it can be given: in the configuration file, as a flag, in the environment, and where the
//! table says that it is live, by `mptunnel set`.
//!
//! An option without an entry in `effects::ALL` or `effects::ELSEWHERE` fails the suite.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real time and real sockets"
)]

#[path = "../support/mod.rs"]
mod support;

mod bench;
mod effects;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;

use bench::{Case, END, Way};
use mptunnel_core::options::{OPTIONS, OptionSpec};

/// The options that one of the two programs takes.
fn of_programs() -> impl Iterator<Item = &'static OptionSpec> {
    OPTIONS.iter().filter(|spec| END.iter().any(|end| spec.scope.covers(end.place())))
}

#[test]
fn every_option_of_a_program_has_an_effect_that_is_tested() {
    let mut tested: Vec<&str> = effects::ALL.iter().map(|(key, _)| *key).collect();
    for (key, source, test) in effects::ELSEWHERE {
        assert!(source.contains(&format!("fn {test}(")), "{key}: there is no {test}");
        tested.push(key);
    }
    tested.sort_unstable();
    let mut options: Vec<&str> = of_programs().map(|spec| spec.key).collect();
    options.sort_unstable();

    assert_eq!(tested, options);
}

/// How many are looked at together. They mostly wait.
const AT_ONCE: usize = 24;

#[test]
fn an_option_has_its_effect_in_each_program_from_wherever_it_is_given() {
    let mut cases = Vec::new();
    for (key, effect) in effects::ALL.iter().rev() {
        let spec = OptionSpec::find(key).unwrap();
        for end in END.into_iter().filter(|end| spec.scope.covers(end.place())) {
            cases.extend(Way::of(spec).into_iter().map(|way| (spec, end, way, effect)));
        }
    }
    let (cases, failures) = (Mutex::new(cases), Mutex::new(Vec::new()));

    let work = || {
        loop {
            let Some((spec, end, way, effect)) = cases.lock().unwrap().pop() else { return };
            let name = format!("{} of {} by {way:?}", spec.key, end.program());
            let case = Case::new(spec.key, end, way);
            if catch_unwind(AssertUnwindSafe(|| effect(&case))).is_err() {
                eprintln!("that was {name}");
                failures.lock().unwrap().push(name);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });

    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{failures:#?}");
}
