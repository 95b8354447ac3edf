// SPDX-License-Identifier: BSD-2-Clause
//! Who has to be looked at next.

use super::{ClientNo, Direction, PathNo, ServerNo};
use crate::proto::time::Time;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Something that does something by itself. At one moment they act in the order of this list.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Actor {
    /// One direction of one path.
    Lane(PathNo, Direction),
    /// A client's timer.
    Client(ClientNo),
    /// A server's timer.
    Server(ServerNo),
    /// An application that sends at a rate.
    Traffic(usize),
}

/// The actors and their next moments.
#[derive(Debug, Default)]
pub struct Agenda {
    queue: BinaryHeap<Reverse<(Time, Actor)>>,
    due: HashMap<Actor, Time>,
}

impl Agenda {
    /// `actor` has to be looked at `at`, or not at all.
    pub fn set(&mut self, actor: Actor, at: Option<Time>) {
        match at {
            None => {
                self.due.remove(&actor);
            }
            Some(at) => {
                if self.due.insert(actor, at) != Some(at) {
                    self.queue.push(Reverse((at, actor)));
                }
            }
        }
    }

    /// The next actor that is due at `end` or before.
    pub fn pop(&mut self, end: Time) -> Option<(Time, Actor)> {
        loop {
            let Reverse((at, actor)) = *self.queue.peek()?;
            if at > end {
                return None;
            }
            self.queue.pop();
            // An entry that does not agree with `due` was overtaken by another one.
            if self.due.get(&actor) == Some(&at) {
                self.due.remove(&actor);
                return Some((at, actor));
            }
        }
    }
}
