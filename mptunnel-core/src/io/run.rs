// SPDX-License-Identifier: BSD-2-Clause
//! Which packets leave together: the bookkeeping of a send batch, without any system call.
//!
//! ```text
//!  buffer   │ 1400 │ 1400 │ 1400 │ 600 │ 1400 │ 1400 │ 64 │ …
//!  runs     └───── run 0 ─────────────┘└── run 1 ──────────┘     (one set of paths)
//! ```
//!
//! A run is what the kernel can cut by itself (`UDP_SEGMENT`): packets of one size side by side, of
//! which the last may be shorter, for one set of paths. Toward one path, runs of the same size join
//! further, over those for other paths that lie between: so a policy that deals packets out in
//! turn still sends few large messages.

/// Packets side by side in the buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Run {
    /// Where the first one starts.
    pub(super) start: usize,
    /// Bytes of all of them.
    pub(super) bytes: usize,
    /// Bytes of each but the last, which may be shorter.
    pub(super) segment: usize,
    /// How many there are.
    pub(super) packets: usize,
    /// One bit for each path that they go to.
    pub(super) paths: u32,
}

impl Run {
    /// Where in the buffer packet `index` lies: start and length.
    pub(super) fn packet(&self, index: usize) -> (usize, usize) {
        let offset = index * self.segment;
        (self.start + offset, self.segment.min(self.bytes - offset))
    }

    /// Whether all packets have the same size, so that another one may follow.
    fn is_even(&self) -> bool {
        self.bytes == self.segment * self.packets
    }

    /// Whether `next` may leave in one message with `self` ahead of it.
    pub(super) fn may_precede(&self, next: &Run) -> bool {
        // Only the last segment may be shorter than the others (udp(7), UDP_SEGMENT).
        let keeps_size = self.is_even() && next.segment <= self.segment;
        // A shorter packet ends the message, so there must be only one of it.
        let ends_short = next.segment == self.segment || next.packets == 1;
        // Segments have bytes: an empty datagram can only be a message of its own.
        let is_segment = next.segment > 0;
        // Older kernels refuse more than 64 segments with EINVAL, so that is where we stop.
        let has_slot = self.packets + next.packets <= MAX_SEGMENTS;
        // All segments together are one datagram until the kernel cuts it.
        let has_room = self.bytes + next.bytes <= MAX_RUN_BYTES;

        keeps_size && ends_short && is_segment && has_slot && has_room
    }

    /// Takes `next` behind itself, which [`may_precede`](Self::may_precede) allowed.
    pub(super) fn join(&mut self, next: &Run) {
        self.bytes += next.bytes;
        self.packets += next.packets;
    }
}

/// The runs of a batch.
#[derive(Debug)]
pub(super) struct Runs {
    runs: Vec<Run>,
    end: usize,
}

impl Runs {
    pub(super) fn new() -> Self {
        Runs { runs: Vec::with_capacity(MAX_RUNS), end: 0 }
    }

    /// Adds the packet of `len` bytes that follows what was added before.
    pub(super) fn push(&mut self, len: usize, paths: u32) {
        let next = Run { start: self.end, bytes: len, segment: len, packets: 1, paths };
        self.end += len;
        match self.runs.last_mut() {
            Some(open) if open.paths == paths && open.may_precede(&next) => open.join(&next),
            _ => self.runs.push(next),
        }
    }

    /// Bytes of all packets together: where the next one starts.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Whether there may be no room for one more packet.
    pub(super) fn is_full(&self) -> bool {
        self.runs.len() == MAX_RUNS
    }

    pub(super) fn as_slice(&self) -> &[Run] {
        &self.runs
    }

    /// The memory held, in runs.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.runs.capacity()
    }

    /// Forgets all packets and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.end = 0;
    }

    /// The number of packets for `path_bit` at `from` and behind it.
    pub(super) fn packets_from(&self, from: Cursor, path_bit: u32) -> usize {
        let runs = self.runs.get(from.run..).unwrap_or_default();
        let whole: usize =
            runs.iter().filter(|run| run.paths & path_bit != 0).map(|run| run.packets).sum();
        // A cursor stands inside a run only if that run is for the path.
        whole - from.packet
    }
}

/// A place among the packets of a batch.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Cursor {
    pub(super) run: usize,
    pub(super) packet: usize,
}

impl Cursor {
    /// Behind the last packet of any batch.
    pub(super) const END: Cursor = Cursor { run: usize::MAX, packet: 0 };
}

/// Segments of one send: what kernels before 6.9 allow (`UDP_MAX_SEGMENTS`); more was measured to
/// gain nothing.
pub(super) const MAX_SEGMENTS: usize = 64;

/// Bytes of one send, below what an IPv4 datagram can carry (65,507).
pub(super) const MAX_RUN_BYTES: usize = 65_000;

/// Runs of one batch: bounds the memory for packets that form none.
pub(crate) const MAX_RUNS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// The packets per run that packets of these sizes form.
    fn shape(sizes: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut runs = Runs::new();
        sizes.into_iter().for_each(|size| runs.push(size, 1));
        runs.as_slice().iter().map(|run| run.packets).collect()
    }

    #[test]
    fn equal_packets_form_one_run() {
        assert_eq!(shape([1400; 3]), [3]);
    }

    #[test]
    fn a_run_ends_with_its_first_shorter_packet() {
        assert_eq!(shape([1400, 1400, 600, 600]), [3, 1]);
        assert_eq!(shape([1400, 600, 1400]), [2, 1]);
    }

    #[test]
    fn a_longer_packet_begins_a_run() {
        assert_eq!(shape([600, 1400, 1400]), [1, 2]);
    }

    #[test]
    fn a_run_has_64_segments_and_the_65th_begins_the_next() {
        assert_eq!(shape([100; 64]), [64]);
        assert_eq!(shape([100; 65]), [64, 1]);
        assert_eq!(shape([100; 128]), [64, 64]);
        // A shorter one is a segment too.
        assert_eq!(shape([100; 63].into_iter().chain([50])), [64]);
        assert_eq!(shape([100; 64].into_iter().chain([50])), [64, 1]);
    }

    #[test]
    fn a_run_has_65_000_bytes_and_one_more_begins_the_next() {
        assert_eq!(shape([1300; 50]), [50]);
        assert_eq!(shape([1300; 51]), [50, 1]);
        assert_eq!(shape([32_500, 32_500]), [2]);
        assert_eq!(shape([32_501, 32_500]), [1, 1]);
        assert_eq!(shape([32_501, 32_499]), [2]);
        assert_eq!(shape([65_507, 1]), [1, 1]);
    }

    #[test]
    fn an_empty_packet_stands_alone() {
        assert_eq!(shape([0, 0]), [1, 1]);
        assert_eq!(shape([1400, 0, 1400]), [1, 1, 1]);
    }

    #[test]
    fn a_run_has_one_set_of_paths() {
        let mut runs = Runs::new();
        for paths in [1, 1, 3, 3, 1] {
            runs.push(1400, paths);
        }

        let seen: Vec<_> = runs.as_slice().iter().map(|run| (run.packets, run.paths)).collect();

        assert_eq!(seen, [(2, 1), (2, 3), (1, 1)]);
    }

    #[test]
    fn runs_lie_behind_each_other_and_cover_all_bytes() {
        let mut runs = Runs::new();
        for len in [1400, 1400, 600, 0, 1400] {
            runs.push(len, 1);
        }

        let mut end = 0;
        for run in runs.as_slice() {
            assert_eq!(run.start, end);
            let packets: Vec<_> = (0..run.packets).map(|index| run.packet(index)).collect();
            for (start, len) in packets {
                assert_eq!(start, end);
                end += len;
            }
        }
        assert_eq!((end, runs.end()), (4800, 4800));
    }

    #[test]
    fn the_packets_left_are_those_of_the_path() {
        let mut runs = Runs::new();
        for paths in [1, 1, 2, 3] {
            runs.push(1400, paths);
        }

        assert_eq!(runs.packets_from(Cursor::default(), 1), 3);
        assert_eq!(runs.packets_from(Cursor::default(), 2), 2);
        assert_eq!(runs.packets_from(Cursor { run: 0, packet: 1 }, 1), 2);
        assert_eq!(runs.packets_from(Cursor { run: 1, packet: 0 }, 1), 1);
        assert_eq!(runs.packets_from(Cursor::END, 1), 0);
    }
}
