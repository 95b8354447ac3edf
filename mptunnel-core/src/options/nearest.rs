// SPDX-License-Identifier: BSD-2-Clause
//! The known word that a misspelt one was probably meant to be.

/// The candidate nearest to `word`, if it is near enough to be worth suggesting: at most one
/// mistake in three letters, at least one and at most three mistakes.
pub fn nearest(
    word: &str,
    candidates: impl IntoIterator<Item = &'static str>,
) -> Option<&'static str> {
    let word: Vec<char> = word.chars().take(MAX_WORD).flat_map(char::to_lowercase).collect();
    let allowed = (word.len() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(mistakes, _)| *mistakes <= allowed)
        .min_by_key(|(mistakes, _)| *mistakes)
        .map(|(_, candidate)| candidate)
}

/// The number of letters to insert, remove, replace or swap with their neighbour that turns `from`
/// into `to` (optimal string alignment).
fn distance(from: &[char], to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for i in 0..from.len() {
        let mut row = vec![i + 1];
        for j in 0..to.len() {
            let replaced = above[j] + usize::from(from[i] != to[j]);
            let mut best = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from[i] == to[j - 1] && from[i - 1] == to[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[to.len()]
}

/// Letters looked at: longer than any key, and short enough that a hostile file costs nothing.
const MAX_WORD: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserted_removed_replaced_and_swapped_letters_are_one_mistake_each() {
        let distance = |a: &str, b| distance(&a.chars().collect::<Vec<_>>(), b);

        assert_eq!(distance("weight", "weight"), 0);
        assert_eq!(distance("wieght", "weight"), 1);
        assert_eq!(distance("weght", "weight"), 1);
        assert_eq!(distance("weightt", "weight"), 1);
        assert_eq!(distance("waight", "weight"), 1);
        assert_eq!(distance("", "weight"), 6);
        assert_eq!(distance("weight", ""), 6);
        assert_eq!(distance("role", "weight"), 6);
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        assert_eq!(nearest("wieght", ["weight", "role"]), Some("weight"));
        assert_eq!(nearest("ROLE", ["weight", "role"]), Some("role"));
        assert_eq!(nearest("banana", ["weight", "role"]), None);
        assert_eq!(nearest("", ["weight", "if"]), None);
    }
}
