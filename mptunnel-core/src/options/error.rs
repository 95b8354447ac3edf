// SPDX-License-Identifier: BSD-2-Clause
//! Why an option was not taken.

use super::spec::{OptionSpec, Place};

/// Why an option was not set. The settings are unchanged.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// There is no such option. `nearest` is what was probably meant.
    #[error("unknown option {key:?}{}", suggestion(.nearest))]
    Unknown {
        /// The key as it was given.
        key: String,
        /// The known key that it resembles.
        nearest: Option<&'static str>,
    },
    /// The value has the wrong form or is out of range.
    #[error("{key} = {value:?}: expected {expected}")]
    Value {
        /// The option.
        key: &'static str,
        /// The value as it was given.
        value: String,
        /// The form, unit and range of its values.
        expected: String,
    },
    /// A key was given where the name of a file that holds one belongs. It is not repeated here.
    #[error(
        "{key} is the name of a file, but this looks like a key: keep it in a file of its own, \
         since other users can read a command line"
    )]
    KeyInsteadOfFile {
        /// The option.
        key: &'static str,
    },
    /// The option exists, but not here.
    #[error("{key} is not an option of {place}: it belongs to {owner}")]
    Elsewhere {
        /// The option.
        key: &'static str,
        /// Where it was given.
        place: Place,
        /// Who has it.
        owner: String,
    },
    /// The option exists, but this build is without it.
    #[error("{key} needs a build of mptunnel with the cargo feature {feature:?}")]
    NotBuilt {
        /// The option.
        key: &'static str,
        /// The cargo feature that brings it.
        feature: &'static str,
    },
}

impl OptionError {
    pub(super) fn value(spec: &OptionSpec, value: &str) -> OptionError {
        OptionError::Value { key: spec.key, value: value.to_owned(), expected: spec.expected() }
    }
}

/// The end of a message about an unknown word.
pub(super) fn suggestion(nearest: &Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |known| format!(": did you mean {known:?}?"))
}
