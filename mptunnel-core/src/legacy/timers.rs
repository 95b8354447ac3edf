// SPDX-License-Identifier: BSD-2-Clause
//! How long things last. All of it follows from what a classic end bears.

use std::time::Duration;

/// The times of the mode, all parts of one: 60 s in the classic programs (option
/// `legacy-timeout`).
///
/// A classic *server* drops a source when the last datagram from it and the last one to it are more
/// than 60 s apart, at the moment when it wants to use it; and when nothing came from it for 300 s.
/// A classic *client* opens a new port when it has something to send and nothing came down for 60 s
/// before its last datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timers {
    patience: Duration,
}

impl Timers {
    /// Times for a peer whose patience is 60 s, or something else if it was built so.
    pub fn new(patience: Duration) -> Self {
        Timers { patience }
    }

    /// A client's source port on which nothing came down for so long is replaced: 45 s.
    pub fn rotate(self) -> Duration {
        self.part(3, 4)
    }

    /// A replaced port is listened on for so long: 60 s, until a classic server has left it.
    pub fn linger(self) -> Duration {
        self.patience
    }

    /// A client that receives and has sent nothing for so long says that it lives: 30 s.
    pub fn speak(self) -> Duration {
        self.part(1, 2)
    }

    /// A server that has sent a source nothing for so long says that it lives: 20 s.
    pub fn reassure(self) -> Duration {
        self.part(1, 3)
    }

    /// Between the first signs of life on a new port, of which some may be lost: half a second.
    pub fn announce(self) -> Duration {
        self.part(1, 120)
    }

    /// A source that was silent for so long is forgotten: 300 s.
    pub fn forget(self) -> Duration {
        self.part(5, 1)
    }

    /// A source that was silent for so long makes room for a new one if there is none left: 60 s.
    pub fn displace(self) -> Duration {
        self.patience
    }

    /// How long no number has come ahead of all others when a peer that counts behind them is taken
    /// for one that was restarted: 5 s if it counts where late copies may be (`inside` the window),
    /// 1 s below that. A slow path may bring numbers from there, for as long as fast ones go on.
    pub fn quiet(self, inside: bool) -> Duration {
        if inside { self.part(1, 12) } else { self.part(1, 60) }
    }

    fn part(self, times: u32, of: u32) -> Duration {
        self.patience.saturating_mul(times).checked_div(of).unwrap_or(self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_the_classic_programs_the_times_are_those_of_the_documentation() {
        let timers = Timers::new(Duration::from_secs(60));
        let seconds = [timers.rotate(), timers.linger(), timers.speak(), timers.reassure()];
        assert_eq!(seconds, [45, 60, 30, 20].map(Duration::from_secs));
        assert_eq!(timers.announce(), Duration::from_millis(500));
        assert_eq!(timers.forget(), Duration::from_secs(300));
        assert_eq!([timers.quiet(true), timers.quiet(false)], [5, 1].map(Duration::from_secs));
        assert_eq!(timers.displace(), Duration::from_secs(60));
    }
}
