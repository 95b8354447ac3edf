// SPDX-License-Identifier: BSD-2-Clause
//! The header is what cbindgen makes of the sources, whose order is that of the manual.

use mptunnel_core::options::PATH_WORDS;
use std::path::{Path, PathBuf};

/// In the order in which the header is to be read.
const SOURCES: &[&str] = &[
    "status", "endpoint", "config", "callback", "message", "path", "event", "stats", "list",
    "version", "boundary",
];

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/{name}.rs"))
}

fn generated() -> String {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("cbindgen.toml");
    let config = cbindgen::Config::from_file(config).unwrap();
    let builder = cbindgen::Builder::new().with_config(config);
    let builder = SOURCES.iter().fold(builder, |builder, name| builder.with_src(source(name)));
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    let header = String::from_utf8(header).unwrap();
    // cbindgen has one name for integers of the size of a pointer.
    header.replace("ptrdiff_t fd", "intptr_t fd").replace("ptrdiff_t mpt_fd(", "intptr_t mpt_fd(")
}

#[test]
fn the_header_is_that_of_the_sources() {
    let header = generated();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../include/mptunnel.h");
    // `make header` sets it.
    if std::env::var_os("MPTUNNEL_WRITE_HEADER").is_some() {
        std::fs::write(&file, &header).unwrap();
    }

    let committed = std::fs::read_to_string(&file).unwrap();

    assert!(header == committed, "include/mptunnel.h is not up to date: run `make header`");
}

#[test]
fn the_header_lists_every_word_of_a_path() {
    let header = generated();
    for word in PATH_WORDS {
        let listed = format!("{}={}", word.key, word.placeholder);
        let mut firsts = header.lines().map(|line| line.split_whitespace().nth(1));
        assert!(firsts.any(|first| first == Some(&listed)), "{listed}");
    }
}

#[test]
fn every_entry_point_is_declared_with_its_description_right_above() {
    let header = generated();
    let lines: Vec<&str> = header.lines().collect();
    let mut names = Vec::new();
    for name in SOURCES {
        let text = std::fs::read_to_string(source(name)).unwrap();
        let entries = text.split("extern \"C\" fn ").skip(1);
        let entries = entries.filter_map(|rest| rest.split_once('(').map(|(name, _)| name));
        names.extend(
            entries
                .filter(|n| n.starts_with("mpt_") && *n != "mpt_inject_panic")
                .map(str::to_owned),
        );
    }
    assert_eq!(names.len(), 46, "{names:?}");
    for name in names {
        let declares = |line: &&str| !line.starts_with(' ') && line.contains(&format!("{name}("));
        let at = lines.iter().position(declares).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(lines[at - 1], " */", "{name}");
    }
}
