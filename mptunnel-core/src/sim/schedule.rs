// SPDX-License-Identifier: BSD-2-Clause
//! Things that are due at a time.

use std::collections::BTreeMap;

use crate::proto::time::Time;

/// A queue ordered by due time; what is due at the same time leaves in the order it came.
#[derive(Clone, Debug)]
pub struct Schedule<T> {
    items: BTreeMap<(Time, u64), T>,
    inserted: u64,
}

impl<T> Schedule<T> {
    /// An empty schedule.
    pub fn new() -> Self {
        Schedule { items: BTreeMap::new(), inserted: 0 }
    }

    /// Makes `item` due at `at`.
    pub fn insert(&mut self, at: Time, item: T) {
        self.items.insert((at, self.inserted), item);
        self.inserted += 1;
    }

    /// When the next item is due, or `None` if there is none.
    pub fn next(&self) -> Option<Time> {
        self.items.first_key_value().map(|(&(at, _), _)| at)
    }

    /// Takes the next item that is due at `now` or was due before.
    pub fn pop(&mut self, now: Time) -> Option<T> {
        let entry = self.items.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_leave_when_due_and_equals_in_the_order_they_came() {
        let at = Time::from_micros;
        let mut schedule = Schedule::new();
        schedule.insert(at(20), "late");
        schedule.insert(at(10), "first");
        schedule.insert(at(10), "second");

        assert_eq!(schedule.next(), Some(at(10)));
        assert_eq!(schedule.pop(at(9)), None);
        assert_eq!(schedule.pop(at(10)), Some("first"));
        assert_eq!(schedule.pop(at(10)), Some("second"));
        assert_eq!(schedule.pop(at(19)), None);
        assert_eq!(schedule.len(), 1);
        assert_eq!(schedule.pop(Time::NEVER), Some("late"));
        assert!(schedule.is_empty());
        assert_eq!(schedule.next(), None);
    }
}
