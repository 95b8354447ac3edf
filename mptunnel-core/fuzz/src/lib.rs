// SPDX-License-Identifier: BSD-2-Clause
//! The [bodies] of the fuzz targets, and what only the fuzzer needs of them.

pub mod bodies;

use std::path::Path;

/// Writes the inputs that a target begins with where the fuzzer is about to look for inputs: to
/// `TARGET/` below the folder that `MPTUNNEL_FUZZ_SEEDS` names, if it names one.
///
/// # Panics
/// If that folder cannot be written to.
pub fn write_seeds(target: &str) {
    let Some(folder) = std::env::var_os("MPTUNNEL_FUZZ_SEEDS") else { return };
    let folder = Path::new(&folder).join(target);
    std::fs::create_dir_all(&folder).expect("a folder for seeds");
    let known = bodies::TARGETS.iter().find(|known| known.name == target);
    for (number, seed) in (known.expect("a known target").seeds)().iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number:03}")), seed).expect("room for a seed");
    }
}
