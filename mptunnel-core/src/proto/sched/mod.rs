// SPDX-License-Identifier: BSD-2-Clause
//! Policies: on which of the usable paths a datagram goes.
//!
//! A policy is a pure function of what is known about the paths. One file each; to add one, write
//! the file, add a variant to [`Mode`] and a case to [`Selector::plan`].

mod adaptive;
mod agree;
mod fastest;
mod gate;
mod redundant;
mod selector;
mod shares;
mod weighted;

pub use adaptive::Mix;
pub use agree::{Agreement, Setting};
pub use gate::Gate;
pub use selector::Selector;
pub use shares::Told;
pub use weighted::{Dealer, Stride, Turns};

use std::sync::Arc;
use std::time::Duration;

/// Packets of which it is known what became of them, and how many were lost. Estimates fade, so
/// these are no whole numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Packets.
    pub sent: f32,
    /// Of these, lost ones.
    pub lost: f32,
}

impl Measured {
    /// The share that was lost, 0 to 1; 0 if nothing is known.
    pub fn fraction(&self) -> f64 {
        if self.sent < 1.0 { 0.0 } else { f64::from(self.lost / self.sent).clamp(0.0, 1.0) }
    }

    /// What is certain of it: one standard deviation less, as if one packet more had arrived. A few
    /// packets prove little, and a single one nothing.
    pub fn at_least(&self) -> f64 {
        let sent = f64::from(self.sent + 1.0);
        let loss = (f64::from(self.lost) / sent).clamp(0.0, 1.0);
        loss - (loss * (1.0 - loss) / sent).sqrt()
    }
}

/// What a policy may know of a path that could be used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Candidate {
    /// The path slot, below 32.
    pub slot: u8,
    /// Joins only when no other path is up.
    pub backup: bool,
    /// Whether the other end has been heard on it lately.
    pub alive: bool,
    /// Probes in a row that were not answered.
    pub misses: u32,
    /// Whether anything has come on it since the first of them.
    pub heard: bool,
    /// Its share under [`Mode::Weighted`]; 0: as it is measured.
    pub weight: u16,
    /// What it costs to use: cheaper paths come first under [`Mode::Fastest`] and
    /// [`Mode::Adaptive`].
    pub cost: u8,
    /// The round trip to expect now, if there is a measurement.
    pub rtt: Option<Duration>,
    /// The shortest round trip.
    pub min_rtt: Option<Duration>,
    /// How long a datagram waits at this end.
    pub queue: Duration,
    /// What its link carries, if somebody told, in bytes per second.
    pub rate: Option<u64>,
    /// The share of what is sent that is lost, 0 to 1, over a few seconds.
    pub loss: f64,
    /// The same of the last probes.
    pub recent: Measured,
    /// The same over a quarter of a minute.
    pub lasting: Measured,
}

impl Candidate {
    /// Whether it has stopped to answer. A path on which something comes all the same may only have
    /// lost a few probes: one that is full loses many.
    fn is_silent(&self) -> bool {
        !self.alive || self.misses >= if self.heard { 3 } else { 2 }
    }

    /// Whether it is so sure that the path works that no backup has to stand in.
    fn covers(&self) -> bool {
        let doubts = if self.heard { 2 } else { 1 };
        !self.backup && self.alive && self.misses < doubts
    }
}

/// What a chosen path is worth to who wants fewer copies than the policy makes. Smaller is better;
/// fields are compared in the order in which they are written.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Rank {
    /// Whether it does not answer at present.
    pub down: bool,
    /// Smoothed round trip; the maximum until the first sample, so that an unmeasured path never
    /// beats a measured one.
    pub rtt: Duration,
    /// The path slot, below 32.
    pub slot: u8,
}

impl Rank {
    /// The rank of a path that is up or not, with this round trip.
    pub fn new(slot: u8, up: bool, rtt: Option<Duration>) -> Self {
        Rank { down: !up, rtt: rtt.unwrap_or(Duration::MAX), slot }
    }

    /// The slots of `ranks`, the best first.
    pub fn order(mut ranks: Vec<Rank>) -> Vec<u8> {
        ranks.sort_unstable();
        ranks.into_iter().map(|rank| rank.slot).collect()
    }
}

/// Which paths carry each datagram.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Mode {
    /// Every path carries every datagram: it is lost only if all copies are.
    #[default]
    Redundant,
    /// Each datagram goes on one path, on each as often as its weight says.
    Weighted,
    /// Each datagram goes on the one path on which it is expected to arrive first.
    Fastest,
    /// As few copies as meet the target of residual loss.
    Adaptive,
}

impl Mode {
    /// The words for it in options.
    pub const WORDS: &'static [&'static str] = &["redundant", "weighted", "fastest", "adaptive"];
    const ALL: [Mode; 4] = [Mode::Redundant, Mode::Weighted, Mode::Fastest, Mode::Adaptive];

    /// The word for this mode in options, logs and statistics.
    pub const fn word(self) -> &'static str {
        match self {
            Mode::Redundant => "redundant",
            Mode::Weighted => "weighted",
            Mode::Fastest => "fastest",
            Mode::Adaptive => "adaptive",
        }
    }

    /// The mode with this word.
    pub fn of_word(word: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.word() == word)
    }

    /// Its number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Mode::Redundant => 0,
            Mode::Weighted => 1,
            Mode::Fastest => 2,
            Mode::Adaptive => 3,
        }
    }

    /// The mode with this number on the wire.
    pub fn of_code(code: u8) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.code() == code)
    }
}

/// When traffic returns from a backup path to the paths that came back.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Failback {
    /// As soon as one of them has been good for a while.
    #[default]
    Always,
    /// When one of them is also expected to be faster than the backup, by a tenth.
    Better,
    /// When the backup fails.
    Never,
}

impl Failback {
    /// The words for it in options.
    pub const WORDS: &'static [&'static str] = &["always", "better", "never"];
    const ALL: [Failback; 3] = [Failback::Always, Failback::Better, Failback::Never];

    /// The word for it in options.
    pub const fn word(self) -> &'static str {
        match self {
            Failback::Always => "always",
            Failback::Better => "better",
            Failback::Never => "never",
        }
    }

    /// The one with this word.
    pub fn of_word(word: &str) -> Option<Failback> {
        Failback::ALL.into_iter().find(|failback| failback.word() == word)
    }

    /// Its number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Failback::Always => 0,
            Failback::Better => 1,
            Failback::Never => 2,
        }
    }

    /// The one with this number on the wire; an unknown one is the first.
    pub fn of_code(code: u8) -> Failback {
        Failback::ALL.into_iter().find(|f| f.code() == code).unwrap_or_default()
    }
}

/// How paths are chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Which paths carry each datagram.
    pub mode: Mode,
    /// [`Mode::Adaptive`]: of a billion datagrams so many may be lost.
    pub target_loss_ppb: u32,
    /// [`Mode::Adaptive`]: copies of a datagram at most; 0: as many as there are paths.
    pub max_copies: u8,
    /// [`Mode::Adaptive`]: what copies may add, in per cent of the datagrams; 0: no limit.
    pub budget: u16,
    /// When traffic returns from a backup path.
    pub failback: Failback,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            mode: Mode::Redundant,
            target_loss_ppb: 100_000,
            max_copies: 0,
            budget: 0,
            failback: Failback::Always,
        }
    }
}

/// On which paths the next datagrams go.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// All paths on which any of them may go, as bits.
    pub chosen: u32,
    /// The paths that whoever wants fewer copies than the policy makes, or more, may choose from.
    pub usable: u32,
    /// How it is chosen among them.
    pub rule: Rule,
    /// Which datagrams also go elsewhere, so that the quality of paths stays known.
    pub sample: Sample,
}

/// How paths are chosen for one datagram after the other.
#[derive(Clone, Debug, Default)]
pub enum Rule {
    /// All datagrams on all of these paths.
    Same(u32),
    /// All on some, and some on more.
    Mixed(Mix),
    /// Each on the one path whose turn it is.
    Dealt(Arc<Dealer>),
    /// None.
    #[default]
    Nowhere,
}

/// A thin sample of datagrams that go on more paths than the policy needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sample {
    /// Those whose number has none of these bits.
    pub mask: u64,
    /// On these paths as well.
    pub paths: u32,
}

impl Default for Sample {
    fn default() -> Self {
        Sample { mask: u64::MAX, paths: 0 }
    }
}

impl PartialEq for Plan {
    fn eq(&self, other: &Plan) -> bool {
        let same_rule = match (&self.rule, &other.rule) {
            (Rule::Same(one), Rule::Same(other)) => one == other,
            (Rule::Mixed(one), Rule::Mixed(other)) => one == other,
            (Rule::Dealt(one), Rule::Dealt(other)) => Arc::ptr_eq(one, other),
            (Rule::Nowhere, Rule::Nowhere) => true,
            _ => false,
        };
        let values = |plan: &Plan| (plan.chosen, plan.usable, plan.sample);
        same_rule && values(self) == values(other)
    }
}

impl Plan {
    /// All datagrams on these paths, without a sample.
    pub fn all_on(paths: u32) -> Self {
        Plan { chosen: paths, usable: paths, rule: Rule::Same(paths), sample: Sample::default() }
    }

    /// The paths of the packet with this number.
    pub fn pick(&self, number: u64, turns: &mut Turns) -> u32 {
        let paths = match &self.rule {
            Rule::Same(paths) => *paths,
            Rule::Mixed(mix) => mix.pick(number),
            Rule::Dealt(dealer) => {
                turns.turn(dealer).map_or(0, crate::proto::num::path_bit) & self.chosen
            }
            Rule::Nowhere => 0,
        };
        if number & self.sample.mask == 0 { paths | self.sample.paths } else { paths }
    }

    /// The paths that carry the traffic, as bits: not those that only get a sample.
    pub fn carriers(&self) -> u32 {
        match &self.rule {
            Rule::Same(paths) => *paths,
            Rule::Mixed(mix) => mix.base | mix.more,
            Rule::Dealt(_) => self.chosen & !self.sample.paths,
            Rule::Nowhere => 0,
        }
    }

    /// Whether each datagram goes on one path only, not always the same.
    pub fn is_dealt(&self) -> bool {
        matches!(self.rule, Rule::Dealt(_))
    }

    /// A batch is over.
    pub fn end(&self, turns: &mut Turns) {
        if let Rule::Dealt(dealer) = &self.rule {
            turns.give_back(dealer);
        }
    }
}

impl Mix {
    /// The paths of the packet with this number. Numbers are scattered evenly (multiplication by
    /// the golden ratio), also those of one sample alone.
    fn pick(&self, number: u64) -> u32 {
        let [.., low, high] = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        if u16::from_le_bytes([low, high]) < self.share { self.base | self.more } else { self.base }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_path_that_answers_comes_first_and_an_unmeasured_one_behind_all_measured() {
        let rank = |slot, up, ms: Option<u64>| Rank::new(slot, up, ms.map(Duration::from_millis));
        let order = Rank::order(vec![
            rank(0, true, None),
            rank(1, true, Some(80)),
            rank(2, false, Some(1)),
            rank(3, true, Some(20)),
            rank(4, true, Some(20)),
        ]);

        assert_eq!(order, [3, 4, 1, 0, 2]);
    }

    #[test]
    fn words_and_codes_are_those_of_the_same_mode() {
        for (word, mode) in Mode::WORDS.iter().zip(Mode::ALL) {
            assert_eq!((Mode::of_word(word), Mode::of_code(mode.code())), (Some(mode), Some(mode)));
        }
        for (word, failback) in Failback::WORDS.iter().zip(Failback::ALL) {
            assert_eq!(Failback::of_word(word), Some(failback));
            assert_eq!(Failback::of_code(failback.code()), failback);
        }
        assert_eq!((Mode::of_code(4), Mode::of_word("mixed")), (None, None));
    }

    #[test]
    fn a_share_of_the_numbers_is_spread_evenly_in_the_sample_as_well() {
        let mix = Mix { base: 0b01, more: 0b10, share: 16_384 };
        for step in [1u64, 8, 64, 256] {
            let picks = (0..4_000).map(|n| mix.pick(n * step));
            let more = picks.filter(|paths| *paths == 0b11).count();
            assert!((950..=1_050).contains(&more), "{more} in steps of {step}");
        }
    }

    #[test]
    fn a_sample_goes_on_more_paths() {
        let mut plan = Plan::all_on(0b01);
        plan.sample = Sample { mask: 63, paths: 0b10 };
        let picks: Vec<u32> = (0..130).map(|n| plan.pick(n, &mut Turns::default())).collect();
        assert_eq!(picks.iter().filter(|paths| **paths == 0b11).count(), 3);
        assert!(picks.iter().all(|paths| paths & 1 == 1));
    }
}
