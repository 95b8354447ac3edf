// SPDX-License-Identifier: BSD-2-Clause
//! Which paths brought a datagram: counted for a sparse sample of packet numbers, told to the
//! sender, and summed up there (PROTOCOL.md, "Arrivals").
//!
//! ```text
//!   sender                                      receiver
//!   SentLog: on which paths it went ── DATA ──► Arrivals: which paths brought it, and when
//!   Observed: pairs of paths, scores ◄─ CTRL ── Report
//! ```
//!
//! Loss on one path shows in the counters of its probes. What they cannot show is whether two paths
//! lose *together*, and what a path is worth beside the others.

use super::num::{approximate, micros, path_bit};
use super::time::Time;
use super::wire::MAX_PATHS;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// log2 of the step between two numbers of the sample, at least: a slow stream gets a dense sample.
pub const FINEST: u8 = 3;
/// The same at first.
const INITIAL: u8 = 6;
/// The same at most: 100 million packets per second still give the rate that is aimed at.
pub const COARSEST: u8 = 20;
/// Numbers that a receiver notes per second: below the first it halves the step, above the second
/// it doubles it.
const RATE: (f64, f64) = (30.0, 130.0);
/// Over how long the rate is measured.
const WINDOW: Duration = Duration::from_millis(500);
/// How long after its first copy a number waits for the others before it is told.
const HOLD: Duration = Duration::from_millis(500);
/// Numbers that wait at most; if there are more, the oldest are forgotten.
const WAITING: usize = 128;
/// Numbers in one report at most.
pub const PER_REPORT: usize = 20;
/// Numbers that a sender remembers.
const REMEMBERED: usize = 256;
/// No second copy came, or so late that it does not fit.
const NO_LEAD: u16 = u16::MAX;
/// Unit of [`Arrival::lead`].
const LEAD_UNIT_US: u64 = 16;

/// The numbers whose `log2` lowest bits are zero.
fn mask_of(log2: u8) -> u64 {
    1u64.checked_shl(log2.into()).map_or(u64::MAX, |step| step.saturating_sub(1))
}

/// What a receiver tells about one number of the sample.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Arrival {
    /// Which number: so many steps behind the first one of the report.
    pub step: u8,
    /// The slot of the path that brought it first, below 32.
    pub first: u8,
    /// How much later the second copy came, in units of 16 µs; 65,535: none came, or after more
    /// than a second.
    pub lead: u16,
    /// The slots of all paths that brought it, as bits.
    pub paths: u32,
}

impl Arrival {
    /// How much later the second copy came, if one came.
    pub fn lead(&self) -> Option<Duration> {
        let us = u64::from(self.lead).saturating_mul(LEAD_UNIT_US);
        (self.lead != NO_LEAD).then(|| Duration::from_micros(us))
    }
}

/// What a receiver tells about a stretch of the sample. Numbers of the stretch that are not listed
/// were not brought by any path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Report {
    /// The first number.
    pub base: u64,
    /// log2 of the step from one number to the next.
    pub log2: u8,
    /// Steps from the first number to the last.
    pub span: u8,
    len: u8,
    arrivals: [Arrival; PER_REPORT],
}

impl Report {
    /// An empty report.
    pub fn new(base: u64, log2: u8, span: u8) -> Self {
        Report { base, log2, span, len: 0, arrivals: [Arrival::default(); PER_REPORT] }
    }

    /// Adds a number; `false` if the report is full.
    pub fn push(&mut self, arrival: Arrival) -> bool {
        let Some(room) = self.arrivals.get_mut(usize::from(self.len)) else { return false };
        *room = arrival;
        self.len = self.len.saturating_add(1);
        true
    }

    /// What arrived, in the order of the numbers.
    pub fn arrivals(&self) -> &[Arrival] {
        self.arrivals.get(..usize::from(self.len)).unwrap_or_default()
    }

    fn number(&self, step: u8) -> u64 {
        let behind = u64::from(step).checked_shl(self.log2.into()).unwrap_or(0);
        self.base.saturating_add(behind)
    }
}

/// The receiver's side of one session. Packets of the sample take a lock, the others one load.
pub struct Arrivals {
    mask: AtomicU64,
    waiting: Mutex<Option<Box<Waiting>>>,
}

struct Waiting {
    log2: u8,
    /// Everything below has been told, or never will be.
    next: u64,
    /// In the order of their first copies.
    numbers: VecDeque<Noted>,
    window_began: Time,
    window_count: u32,
}

#[derive(Clone, Copy)]
struct Noted {
    pn: u64,
    at: Time,
    paths: u32,
    first: u8,
    lead: u16,
}

impl Default for Arrivals {
    fn default() -> Self {
        Arrivals { mask: AtomicU64::new(mask_of(INITIAL)), waiting: Mutex::new(None) }
    }
}

impl Arrivals {
    /// Whether packet `pn` belongs to the sample.
    pub fn wants(&self, pn: u64) -> bool {
        pn & self.mask.load(Relaxed) == 0
    }

    /// The first copy of packet `pn` of the sample came on `path`.
    pub fn on_first(&self, now: Time, pn: u64, path: u8) {
        let mut waiting = self.waiting.lock();
        let waiting = waiting.get_or_insert_with(|| Box::new(Waiting::new(now)));
        if waiting.on_first(now, pn, path) {
            self.mask.store(mask_of(waiting.log2), Relaxed);
        }
    }

    /// Whether a copy of packet `pn` on `path` would tell something new: then it is worth opening.
    pub fn wants_copy(&self, pn: u64, path: u8) -> bool {
        let waiting = self.waiting.lock();
        let known = waiting.as_ref().and_then(|w| w.numbers.iter().rev().find(|n| n.pn == pn));
        known.is_some_and(|noted| noted.paths & path_bit(path) == 0)
    }

    /// An authentic copy of packet `pn` came on `path`.
    pub fn on_copy(&self, now: Time, pn: u64, path: u8) {
        let mut waiting = self.waiting.lock();
        let Some(waiting) = waiting.as_deref_mut() else { return };
        let Some(noted) = waiting.numbers.iter_mut().rev().find(|n| n.pn == pn) else { return };
        if noted.paths.count_ones() == 1 {
            let units = micros(now.since(noted.at)) / LEAD_UNIT_US;
            noted.lead = u16::try_from(units).unwrap_or(NO_LEAD);
        }
        noted.paths |= path_bit(path);
    }

    /// What can be told by now and was not told before. Nobody acknowledges it: a report that is
    /// lost takes its stretch of the sample with it.
    pub fn report(&self, now: Time) -> Option<Report> {
        self.waiting.lock().as_deref_mut()?.report(now)
    }
}

impl Waiting {
    fn new(now: Time) -> Self {
        Waiting {
            log2: INITIAL,
            next: 0,
            numbers: VecDeque::with_capacity(WAITING),
            window_began: now,
            window_count: 0,
        }
    }

    /// `true` if the step is another one now.
    fn on_first(&mut self, now: Time, pn: u64, path: u8) -> bool {
        if pn < self.next {
            return false;
        }
        if self.numbers.len() >= WAITING {
            self.numbers.pop_front();
        }
        let (paths, first) = (path_bit(path), path);
        self.numbers.push_back(Noted { pn, at: now, paths, first, lead: NO_LEAD });
        self.window_count = self.window_count.saturating_add(1);
        self.follow_rate(now, pn)
    }

    fn follow_rate(&mut self, now: Time, pn: u64) -> bool {
        let (few, many) = RATE;
        let elapsed = now.since(self.window_began);
        let most = many * WINDOW.as_secs_f64();
        let count = f64::from(self.window_count);
        if count > most && self.log2 < COARSEST {
            // Not after the window: a fast stream would have filled the memory by then.
            self.log2 = self.log2.saturating_add(1);
        } else if elapsed < WINDOW {
            return false;
        } else if count < few * elapsed.as_secs_f64() && self.log2 > FINEST {
            self.log2 = self.log2.saturating_sub(1);
            // Of the numbers before this one only every other one was noted.
            self.numbers.clear();
            self.next = pn.saturating_add(1);
        } else {
            (self.window_began, self.window_count) = (now, 0);
            return false;
        }
        (self.window_began, self.window_count) = (now, 0);
        let mask = mask_of(self.log2);
        self.numbers.retain(|noted| noted.pn & mask == 0);
        self.next = self.next.checked_next_multiple_of(mask.saturating_add(1)).unwrap_or(u64::MAX);
        true
    }

    fn report(&mut self, now: Time) -> Option<Report> {
        let due = self.numbers.iter().filter(|n| n.at + HOLD <= now).map(|n| n.pn).max()?;
        let mut ready: Vec<Noted> =
            self.numbers.iter().filter(|n| n.pn <= due && n.pn >= self.next).copied().collect();
        ready.sort_unstable_by_key(|noted| noted.pn);
        let first = ready.first()?.pn;
        let steps = |from: u64, to: u64| to.saturating_sub(from) >> self.log2;
        // A long stretch without any number is an outage, which shows otherwise.
        let is_outage = self.next == 0 || steps(self.next, first) > u64::from(u8::MAX);
        let base = if is_outage { first } else { self.next };
        let mut report = Report::new(base, self.log2, 0);
        for noted in ready {
            let Ok(step) = u8::try_from(steps(base, noted.pn)) else { break };
            let Noted { paths, first, lead, .. } = noted;
            if !report.push(Arrival { step, first, lead, paths }) {
                break;
            }
            report.span = step;
        }
        let last = report.number(report.span);
        self.next = report.number(report.span.saturating_add(1)).max(last.saturating_add(1));
        self.numbers.retain(|noted| noted.pn > last);
        Some(report)
    }
}

/// The sender's side of one session: on which paths the numbers of the sample went.
///
/// A cell holds a part of the number and the paths. Senders and the control side share it without a
/// lock; a cell that is overwritten too early leaves one number out.
pub struct SentLog {
    mask: AtomicU64,
    cells: OnceLock<Box<[AtomicU64; REMEMBERED]>>,
}

impl Default for SentLog {
    fn default() -> Self {
        SentLog { mask: AtomicU64::new(mask_of(INITIAL)), cells: OnceLock::new() }
    }
}

impl SentLog {
    /// Whether packet `pn` may be asked for.
    pub fn wants(&self, pn: u64) -> bool {
        pn & self.mask.load(Relaxed) == 0
    }

    /// The receiver's step. There is no use in remembering more than it notes.
    fn follow(&self, log2: u8) {
        self.mask.store(mask_of(log2.clamp(FINEST, COARSEST)), Relaxed);
    }

    /// Packet `pn` goes on these paths. The first call takes memory, and no other one does.
    pub fn note(&self, pn: u64, paths: u32) {
        let cells = self.cells.get_or_init(|| Box::new([const { AtomicU64::new(0) }; REMEMBERED]));
        if let Some(cell) = self.cell(cells, pn) {
            cell.store(tag(pn) | u64::from(paths), Relaxed);
        }
    }

    /// On which paths packet `pn` went, if that is remembered; it is not from then on. A number is
    /// told once, and who tells it again and again shall neither be believed nor cost anything: the
    /// pairs of 32 paths are many.
    fn take(&self, pn: u64) -> Option<u32> {
        let cells = self.cells.get()?;
        let cell = self.cell(cells, pn)?;
        let value = cell.load(Relaxed);
        let paths = low_half(value);
        let known = value & !u64::from(u32::MAX) == tag(pn) && paths != 0;
        // Another number may come in between: that one stays.
        (known && cell.compare_exchange(value, 0, Relaxed, Relaxed).is_ok()).then_some(paths)
    }

    fn cell<'a>(&self, cells: &'a [AtomicU64; REMEMBERED], pn: u64) -> Option<&'a AtomicU64> {
        let step = pn >> self.mask.load(Relaxed).count_ones();
        cells.get(usize::try_from(step).unwrap_or(usize::MAX) % REMEMBERED)
    }
}

/// The part of a number that a cell of [`SentLog`] holds. It returns after 2^35 packets.
fn tag(pn: u64) -> u64 {
    pn.checked_shr(FINEST.into()).unwrap_or(0).wrapping_shl(32)
}

fn low_half(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0)
}

/// What the sample tells about one path in one direction. Sums only grow; all are of the sample,
/// and mean something in proportion to [`samples`](Self::samples).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Score {
    /// Datagrams that went on the path (of what we receive: that it brought).
    pub samples: u64,
    /// Of these, datagrams that it brought.
    pub arrived: u64,
    /// Datagrams that it brought before all other paths, or alone.
    pub first: u64,
    /// Datagrams that only this path brought, of those that went on others as well (of what we
    /// receive: all that only this path brought).
    pub only: u64,
    /// Datagrams that it brought first and of which a second copy came within a second.
    pub leads: u64,
    /// The sum of the times until the second copy, in microseconds.
    pub lead_us: u64,
}

impl Score {
    /// How much earlier than the second copy the path brings what it brings first, on average.
    pub fn mean_lead(&self) -> Option<Duration> {
        self.lead_us.checked_div(self.leads).map(Duration::from_micros)
    }

    fn add(&mut self, path: u8, paths: u32, arrival: Option<&Arrival>, others_tried: bool) {
        self.samples = self.samples.saturating_add(1);
        if paths & path_bit(path) == 0 {
            return;
        }
        self.arrived = self.arrived.saturating_add(1);
        if paths == path_bit(path) && others_tried {
            self.only = self.only.saturating_add(1);
        }
        let Some(arrival) = arrival.filter(|a| a.first == path) else { return };
        self.first = self.first.saturating_add(1);
        if let Some(lead) = arrival.lead() {
            self.leads = self.leads.saturating_add(1);
            self.lead_us = self.lead_us.saturating_add(micros(lead));
        }
    }
}

/// How two paths lose, from datagrams that went on both of them. Counts fade: the last 4,096
/// datagrams weigh most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pair {
    /// Datagrams.
    pub sent: f32,
    /// Lost on the path with the lower slot.
    pub lost_low: f32,
    /// Lost on the path with the higher slot.
    pub lost_high: f32,
    /// Lost on both.
    pub lost_both: f32,
}

/// What a datagram's weight in [`Pair`] is multiplied by with each later one.
const FADE: f32 = 1.0 - 1.0 / 4_096.0;

impl Pair {
    /// The correlation of the losses (φ of the 2×2 table), -1 to 1; `None` until either path has
    /// lost something.
    pub fn correlation(&self) -> Option<f64> {
        let share = |count: f32| f64::from(count) / f64::from(self.sent);
        let (low, high, both) =
            (share(self.lost_low), share(self.lost_high), share(self.lost_both));
        let spread = (low * (1.0 - low) * high * (1.0 - high)).sqrt();
        (self.sent >= 1.0 && spread > 1e-9).then(|| ((both - low * high) / spread).clamp(-1.0, 1.0))
    }

    fn add(&mut self, low_arrived: bool, high_arrived: bool) {
        let count = |lost: bool| if lost { 1.0 } else { 0.0 };
        for (sum, more) in [
            (&mut self.sent, 1.0),
            (&mut self.lost_low, count(!low_arrived)),
            (&mut self.lost_high, count(!high_arrived)),
            (&mut self.lost_both, count(!low_arrived && !high_arrived)),
        ] {
            *sum = *sum * FADE + more;
        }
    }
}

/// What one end knows from the sample: of what it sends from the reports of the other end, of what
/// it receives from its own. It outlives sessions.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// By slot, grown as needed.
    outgoing: Vec<Score>,
    incoming: Vec<Score>,
    /// Of the slots `low` < `high`, at `high` (`high` - 1) / 2 + `low`.
    pairs: Vec<Pair>,
    samples: u64,
    residual: f64,
}

/// How much one datagram moves the mean of [`Observed::residual_loss`].
const RESIDUAL_STEP: f64 = 1.0 / 4_096.0;

impl Observed {
    /// The other end told what became of packets of the session of `log`.
    pub fn on_report(&mut self, log: &SentLog, report: &Report) {
        let mut arrivals = report.arrivals().iter().peekable();
        for step in 0..=report.span {
            let arrival = arrivals.next_if(|a| a.step == step);
            let Some(sent) = log.take(report.number(step)) else { continue };
            let arrived = arrival.map_or(0, |a| a.paths & sent);
            self.add(sent, arrived, arrival);
        }
        log.follow(report.log2);
    }

    /// This end tells the other one what has arrived.
    pub fn on_own_report(&mut self, report: &Report) {
        for arrival in report.arrivals() {
            for path in slots_of(arrival.paths) {
                update(&mut self.incoming, path.into(), |score| {
                    score.add(path, arrival.paths, Some(arrival), true);
                });
            }
        }
    }

    fn add(&mut self, sent: u32, arrived: u32, arrival: Option<&Arrival>) {
        self.samples = self.samples.saturating_add(1);
        let lost = if arrived == 0 { 1.0 } else { 0.0 };
        self.residual +=
            (lost - self.residual) * RESIDUAL_STEP.max(1.0 / approximate(self.samples));
        let several = sent.count_ones() > 1;
        for high in slots_of(sent) {
            update(&mut self.outgoing, high.into(), |score| {
                score.add(high, arrived, arrival, several);
            });
            for low in slots_of(sent).take_while(|low| *low < high) {
                let has = |slot| arrived & path_bit(slot) != 0;
                update(&mut self.pairs, pair_index(low, high), |pair| {
                    pair.add(has(low), has(high));
                });
            }
        }
    }

    /// What the sample tells about a path in the direction in which this end sends.
    pub fn outgoing(&self, path: u8) -> Score {
        self.outgoing.get(usize::from(path)).copied().unwrap_or_default()
    }

    /// What the sample tells about a path in the direction in which this end receives.
    pub fn incoming(&self, path: u8) -> Score {
        self.incoming.get(usize::from(path)).copied().unwrap_or_default()
    }

    /// How two paths lose what this end sends; all zero if nothing went on both.
    pub fn pair(&self, one: u8, other: u8) -> Pair {
        let index = pair_index(one.min(other), one.max(other));
        self.pairs.get(usize::from(index)).copied().unwrap_or_default()
    }

    /// The share of this end's datagrams that no path brought, over the last 4,096 of the sample.
    pub fn residual_loss(&self) -> Option<f64> {
        (self.samples > 0).then_some(self.residual)
    }

    /// Datagrams of the sample of which the other end has told what became of them.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The path in this slot is another one now.
    pub fn forget(&mut self, path: u8) {
        for scores in [&mut self.outgoing, &mut self.incoming] {
            update(scores, path.into(), |score| *score = Score::default());
        }
        for other in (0u8..).take(MAX_PATHS).filter(|other| *other != path) {
            let index = pair_index(path.min(other), path.max(other));
            if let Some(pair) = self.pairs.get_mut(usize::from(index)) {
                *pair = Pair::default();
            }
        }
    }
}

fn slots_of(paths: u32) -> impl Iterator<Item = u8> {
    (0u8..).take(MAX_PATHS).filter(move |slot| paths & path_bit(*slot) != 0)
}

/// Where the pair of these slots is, below 496.
fn pair_index(low: u8, high: u8) -> u16 {
    let high = u16::from(high);
    let before = high.saturating_mul(high.saturating_sub(1)) / 2;
    before.saturating_add(low.into())
}

/// Changes the entry at `index` of a table that grows as needed.
fn update<T: Clone + Default>(table: &mut Vec<T>, index: u16, change: impl FnOnce(&mut T)) {
    let index = usize::from(index);
    if table.len() <= index {
        table.resize(index.saturating_add(1), T::default());
    }
    if let Some(entry) = table.get_mut(index) {
        change(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const START: Time = Time::from_micros(1_000_000);

    /// Datagrams in steps of 10 ms: each is brought by the paths that `arrived` says.
    fn brought(arrivals: &Arrivals, count: u64, arrived: impl Fn(u64) -> u32) -> Time {
        let mut now = START;
        for pn in (0..count).filter(|pn| arrivals.wants(*pn)) {
            let mut paths = slots_of(arrived(pn));
            if let Some(first) = paths.next() {
                arrivals.on_first(now, pn, first);
            }
            for path in paths {
                assert!(arrivals.wants_copy(pn, path));
                arrivals.on_copy(now + 3 * MS, pn, path);
                assert!(!arrivals.wants_copy(pn, path));
            }
            now = now + 10 * MS;
        }
        now
    }

    #[test]
    fn what_no_path_brought_is_missing_in_the_report_and_counts_as_lost_on_all() {
        let (arrivals, log, mut observed) =
            (Arrivals::default(), SentLog::default(), Observed::default());
        (0..1_280).filter(|pn| log.wants(*pn)).for_each(|pn| log.note(pn, 0b11));
        // Numbers 0, 64 … 1216; 640 is lost, 320 came on path 1 only.
        let now = brought(&arrivals, 1_280, |pn| match pn {
            640 => 0,
            320 => 0b10,
            _ => 0b11,
        });
        assert_eq!(arrivals.report(START + 499 * MS), None, "the second copies may be on the way");

        while let Some(report) = arrivals.report(now + HOLD) {
            observed.on_report(&log, &report);
        }

        let pair = observed.pair(1, 0);
        assert_eq!((observed.samples(), pair.lost_both.round()), (20, 1.0));
        assert_eq!((pair.lost_low.round(), pair.lost_high.round()), (2.0, 1.0));
        assert!(pair.correlation().unwrap() > 0.5);
        let (low, high) = (observed.outgoing(0), observed.outgoing(1));
        assert_eq!((low.samples, low.arrived, low.first, low.only), (20, 18, 18, 0));
        assert_eq!((high.samples, high.arrived, high.first, high.only), (20, 19, 1, 1));
        assert_eq!(low.mean_lead(), Some(Duration::from_micros(3_000 / 16 * 16)));
        assert!((observed.residual_loss().unwrap() - 0.05).abs() < 1e-9);
    }

    #[test]
    fn a_report_that_is_lost_leaves_a_gap_and_no_false_losses() {
        let (arrivals, log, mut observed) =
            (Arrivals::default(), SentLog::default(), Observed::default());
        (0..3_840).filter(|pn| log.wants(*pn)).for_each(|pn| log.note(pn, 0b11));
        let now = brought(&arrivals, 3_840, |_| 0b11) + HOLD;

        let reports: Vec<Report> = std::iter::from_fn(|| arrivals.report(now)).collect();
        assert_eq!(reports.iter().map(|r| r.arrivals().len()).collect::<Vec<_>>(), [20, 20, 20]);
        observed.on_report(&log, &reports[0]);
        observed.on_report(&log, &reports[2]);

        assert_eq!((observed.samples(), observed.residual_loss()), (40, Some(0.0)));
    }

    /// 31 paths make 465 pairs: 104 bytes that were believed each time cost 0.4 ms each time.
    #[test]
    fn what_is_told_again_counts_for_nothing_and_costs_nothing() {
        let (log, mut observed) = (SentLog::default(), Observed::default());
        (0..1_280).filter(|pn| log.wants(*pn)).for_each(|pn| log.note(pn, 0b11));
        let report = Report::new(0, 6, 19);

        for _ in 0..3 {
            observed.on_report(&log, &report);
        }

        assert_eq!((observed.samples(), log.take(64)), (20, None));
    }

    #[test]
    fn the_step_follows_the_rate_of_packets() {
        for (per_s, expected) in [(100u64, 3), (500, 4), (2_000, 6), (30_000, 8), (1_000_000, 13)] {
            let arrivals = Arrivals::default();
            let mut noted = 0;
            for pn in 0..per_s * 4 {
                if arrivals.wants(pn) {
                    arrivals.on_first(START + Duration::from_micros(pn * 1_000_000 / per_s), pn, 0);
                    noted += u64::from(pn >= per_s * 3);
                }
            }
            assert_eq!(arrivals.mask.load(Relaxed).count_ones(), expected, "{per_s}");
            assert!(noted <= 130, "{noted} of {per_s} per second");
        }
    }

    #[test]
    fn a_sender_forgets_what_is_not_asked_for_and_never_mixes_numbers_up() {
        let log = SentLog::default();
        for pn in (0..800_000u64).step_by(64) {
            log.note(pn, 1 << (pn / 64 % 32));
        }
        for pn in (0..800_000u64).step_by(64) {
            let remembered = (800_000 - pn) / 64 <= REMEMBERED as u64;
            let expected = remembered.then_some(1 << (pn / 64 % 32));
            assert_eq!(log.take(pn), expected, "{pn}");
        }
    }

    #[test]
    fn numbers_that_nobody_asks_for_are_bounded() {
        let arrivals = Arrivals::default();
        for pn in (0..1u64 << 20).step_by(1 << 13) {
            arrivals.on_first(START + Duration::from_micros(pn), pn << 10, 3);
        }
        let waiting = arrivals.waiting.lock();
        assert!(waiting.as_ref().unwrap().numbers.len() <= WAITING);
    }

    #[test]
    fn a_path_that_takes_over_a_slot_begins_with_nothing() {
        let mut observed = Observed::default();
        (0..10).for_each(|_| observed.add(0b111, 0b001, None));

        observed.forget(1);

        assert_eq!((observed.outgoing(1), observed.pair(0, 1)), Default::default());
        assert_eq!(observed.outgoing(2).samples, 10);
        assert!(observed.pair(0, 2).sent > 9.9 && observed.pair(1, 2).sent == 0.0);
    }
}
