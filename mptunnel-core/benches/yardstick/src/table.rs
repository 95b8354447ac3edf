// SPDX-License-Identifier: BSD-2-Clause
//! Figures beside figures, and their ratios.

use std::fmt::{self, Write};

/// What a figure counts, and how it is printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Datagrams per second: more is better. All others are better when smaller.
    Rate,
    Nanoseconds,
    Microseconds,
    Mebibytes,
    /// Things that are counted.
    Number,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Rate => "k/s",
            Unit::Nanoseconds => "ns",
            Unit::Microseconds => "µs",
            Unit::Mebibytes => "MiB",
            Unit::Number => "",
        }
    }

    fn print(self, figure: f64) -> String {
        match self {
            Unit::Rate if figure < 10_000.0 => format!("{:.1}", figure / 1e3),
            Unit::Rate => format!("{:.0}", figure / 1e3),
            _ if figure < 100.0 => format!("{figure:.1}"),
            _ => format!("{figure:.0}"),
        }
    }
}

/// One thing measured in turns with another.
#[derive(Clone, Debug)]
pub struct Row {
    /// Rows of one group stand together.
    pub group: &'static str,
    pub name: String,
    pub unit: Unit,
    /// What it stands beside.
    pub beside: &'static str,
    /// Turn by turn: ours, and the other.
    pub turns: Vec<(f64, f64)>,
    /// Lowest and highest ratio, where the turns do not tell.
    pub spread: Option<(f64, f64)>,
}

impl Row {
    /// A row without figures yet.
    pub fn new(group: &'static str, name: String, unit: Unit, beside: &'static str) -> Row {
        Row { group, name, unit, beside, turns: Vec::new(), spread: None }
    }

    /// The median of the turns' ratios. What happens to the machine happens to both figures of a
    /// turn, so this is steadier than the ratio of the medians.
    pub fn ratio(&self) -> f64 {
        median(self.ratios())
    }

    fn ratios(&self) -> impl Iterator<Item = f64> {
        self.turns.iter().map(|(ours, other)| ours / other)
    }

    fn lowest_and_highest(&self) -> (f64, f64) {
        self.spread.unwrap_or_else(|| {
            (self.ratios().fold(f64::INFINITY, f64::min), self.ratios().fold(0.0, f64::max))
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { name, unit, beside, .. } = self;
        let ours = unit.print(median(self.turns.iter().map(|turn| turn.0)));
        let other = unit.print(median(self.turns.iter().map(|turn| turn.1)));
        let (low, high) = self.lowest_and_highest();
        let (ratio, unit) = (self.ratio(), unit.name());
        write!(
            f,
            "| {name:50} | {unit:3} | {ours:>7} | {other:>7} | {beside:8} | {ratio:5.2} | {:>11} |",
            format!("{low:.2}–{high:.2}")
        )
    }
}

/// The middle one of some figures; NaN of none.
pub fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.as_slice() {
        [] => f64::NAN,
        [.., _] if sorted.len() % 2 == 1 => sorted[sorted.len() / 2],
        _ => sorted[sorted.len() / 2 - 1..=sorted.len() / 2].iter().sum::<f64>() / 2.0,
    }
}

/// All rows as Markdown, a table for each group.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut group = "";
    for row in rows.iter().filter(|row| !row.turns.is_empty()) {
        if row.group != group {
            group = row.group;
            let _ = write!(
                text,
                "\n**{group}**\n\n| {:50} |     | mptunnel | the other | which is | ratio | of all turns |\n\
                 |---|---|--:|--:|---|--:|--:|\n",
                ""
            );
        }
        let _ = writeln!(text, "{row}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_median_of_the_turns() {
        let mut row = Row::new("g", "a name".into(), Unit::Rate, "floor");
        row.turns = vec![(90e3, 100e3), (450e3, 500e3), (10e3, 100e3)];
        assert_eq!(row.ratio(), 0.9);

        let text = markdown(&[row, Row::new("g", "empty".into(), Unit::Rate, "floor")]);

        assert!(
            text.contains("| k/s |      90 |     100 | floor    |  0.90 |   0.10–0.90 |"),
            "{text}"
        );
        assert!(!text.contains("empty"));
    }

    #[test]
    fn a_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median([4.0, 1.0, 3.0, 2.0].into_iter()), 2.5);
        assert_eq!(median([5.0].into_iter()), 5.0);
        assert!(median(std::iter::empty()).is_nan());
    }
}
