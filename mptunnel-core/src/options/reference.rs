// SPDX-License-Identifier: BSD-2-Clause
//! The reference documentation of all options, made from the table.

use std::fmt::Write;

use super::path::PATH_WORDS;
use super::spec::{Kind, OptionSpec};
use super::table::OPTIONS;

/// The reference of all options and path words, in Markdown.
pub fn reference_markdown() -> String {
    let mut text = String::from(HEAD);
    for spec in OPTIONS {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {} |",
            spec.key,
            value(spec),
            spec.default.map_or_else(|| "none".to_owned(), |default| format!("`{default}`")),
            if spec.live { "yes" } else { "no" },
            spec.scope,
            spec.help,
        );
    }
    text.push_str(PATH_HEAD);
    for word in PATH_WORDS {
        let _ = writeln!(
            text,
            "| `{}={}` | {} | {} |",
            word.key,
            word.placeholder.replace('|', "\\|"),
            word.expected,
            word.help
        );
    }
    text
}

/// The column `Value`: the kind of value with unit and range, but without examples.
fn value(spec: &OptionSpec) -> String {
    match spec.kind {
        Kind::Duration => format!("duration{}", spec.bounds()),
        Kind::Size => format!("size{}", spec.bounds()),
        _ => spec.expected(),
    }
}

const HEAD: &str = "\
## Options

Durations take `us`, `ms`, `s`, `m` and `h` (`250ms`, `1.5s`, `2m`); sizes are in bytes and take
`K`, `M` and `G` (powers of 1024, also written `KiB`, `MiB`, `GiB`) and `kB`, `MB` and `GB` (powers
of 1000); switches take `on`, `yes`, `true`, `1` and `off`, `no`, `false`, `0`. *Live* options can
be changed while an endpoint is running.

| Option | Value | Default | Live | For | Meaning |
|---|---|---|---|---|---|
";

const PATH_HEAD: &str = "
## Path words

A path is described by these words, between blanks or commas, in any order.

| Word | Value | Meaning |
|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_has_one_row_for_each_option_and_each_path_word() {
        let text = reference_markdown();

        for spec in OPTIONS {
            assert_eq!(text.matches(&format!("\n| `{}` |", spec.key)).count(), 1, "{}", spec.key);
        }
        for word in PATH_WORDS {
            assert_eq!(text.matches(&format!("\n| `{}=", word.key)).count(), 1, "{}", word.key);
        }
    }

    #[test]
    fn all_rows_of_a_table_have_the_same_number_of_columns() {
        let text = reference_markdown();
        let columns = |line: &str| line.replace("\\|", "").matches('|').count();
        for table in text.split("\n\n").filter(|block| block.starts_with('|')) {
            let width = columns(table.lines().next().unwrap());
            assert!(table.lines().all(|line| columns(line) == width), "{table}");
        }
    }

    #[test]
    fn a_row_reads_as_a_user_would_write_it() {
        let row = "| `probe-interval` | duration from 50ms to 5s (without unit: ms) | `250ms` | \
                   no | server | time between probes of a path in use; the server tells its \
                   clients |";
        assert!(reference_markdown().lines().any(|line| line == row));
    }
}
