// SPDX-License-Identifier: BSD-2-Clause
//! The frames inside a CTRL packet: `type u8, len u8, body`, zero-padded.

use super::arrivals::{Arrival, Report};
use super::codec::{Reader, Writer};
use super::drop::DropReason;
use super::sched::{Failback, Policy, Setting};
use super::wire::{CTRL_INNER_MIN, CTRL_OVERHEAD, MAX_PATHS};
use std::mem::discriminant;

/// PING flag: send no DATA on this path while another one that is not a backup is heard.
pub const PING_BACKUP: u8 = 1;

/// One frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Frame {
    /// "Are you there, on this path?"
    Ping(Ping),
    /// The answer to a PING.
    Pong(Pong),
    /// "Prove that you receive at this address."
    Challenge {
        /// Path slot, below 32.
        path: u8,
        /// What RESPONSE must echo.
        nonce: [u8; 8],
    },
    /// The answer to a CHALLENGE.
    Response {
        /// Path slot, below 32.
        path: u8,
        /// The bytes of the CHALLENGE.
        nonce: [u8; 8],
    },
    /// The end of a flow or of the session.
    Close {
        /// Why: one of the `CLOSE_*` codes.
        code: u16,
        /// Which flow; 0xffff is the session.
        flow: u16,
    },
    /// The server asks the client to rekey.
    RekeyRequest,
    /// The policy that counts for the sender.
    Setting(Setting),
    /// Which paths brought a sample of the datagrams.
    Arrivals(Report),
    /// The client says which share of the datagrams a path gets, and what it costs.
    Weight {
        /// Path slot, below 32.
        path: u8,
        /// What it costs to use.
        cost: u8,
        /// The weight; 0: as it is measured.
        weight: u16,
    },
    /// The client says what the link of a path carries to it.
    Rate {
        /// Path slot, below 32.
        path: u8,
        /// In kbit/s, headers of IP and UDP included; 0: packets leave as they come;
        /// [`LEARN_RATE`].
        kbit: u32,
    },
}

/// RATE: the client does not know, and the server shall find it out.
pub const LEARN_RATE: u32 = u32::MAX;

/// CLOSE: finished, final.
pub const CLOSE_FINISHED: u16 = 0;
/// CLOSE: going away, may come back.
pub const CLOSE_GOING_AWAY: u16 = 1;
/// CLOSE: the flow was refused because a limit is reached.
pub const CLOSE_LIMIT: u16 = 2;

/// The body of PING.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ping {
    /// Path slot, below 32.
    pub path: u8,
    /// [`PING_BACKUP`] or zero.
    pub flags: u8,
    /// Time until the sender's next PING on this path, in units of 10 ms; 0 = the active interval.
    pub next_10ms: u16,
    /// Per path and direction, from 1.
    pub seq: u32,
    /// The sender's clock, in microseconds.
    pub t_tx: u64,
    /// Packets sent on this path in this session before this one.
    pub tx_pkts: u64,
    /// Bytes of those packets.
    pub tx_bytes: u64,
}

/// The body of PONG.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pong {
    /// Path slot, below 32.
    pub path: u8,
    /// The PING's number.
    pub seq: u32,
    /// The PING's time.
    pub t_tx: u64,
    /// Microseconds between receiving the PING and sending this.
    pub hold_us: u32,
    /// When the PING came, by the clock of who sends this: the low 32 bits of microseconds. 0: not
    /// told.
    pub t_rx: u32,
    /// Packets received on this path in this session before that PING, duplicates included.
    pub rx_pkts: u64,
    /// Bytes of those packets.
    pub rx_bytes: u64,
}

/// The frames of one CTRL packet under construction, padded to the smallest inner.
#[derive(Default)]
pub struct FrameList {
    bytes: Vec<u8>,
}

impl FrameList {
    /// An empty list.
    pub fn new() -> Self {
        FrameList { bytes: Vec::with_capacity(128) }
    }

    /// Appends `frame`.
    pub fn push(mut self, frame: Frame) -> Self {
        match frame {
            Frame::Ping(p) => self.put(
                0x01,
                &Writer::<32>::new()
                    .put(&[p.path, p.flags])
                    .put(&p.next_10ms.to_le_bytes())
                    .put(&p.seq.to_le_bytes())
                    .put(&p.t_tx.to_le_bytes())
                    .put(&p.tx_pkts.to_le_bytes())
                    .put(&p.tx_bytes.to_le_bytes())
                    .done(),
            ),
            Frame::Pong(p) => self.put(
                0x02,
                &Writer::<40>::new()
                    .put(&[p.path, 0, 0, 0])
                    .put(&p.seq.to_le_bytes())
                    .put(&p.t_tx.to_le_bytes())
                    .put(&p.hold_us.to_le_bytes())
                    .put(&p.t_rx.to_le_bytes())
                    .put(&p.rx_pkts.to_le_bytes())
                    .put(&p.rx_bytes.to_le_bytes())
                    .done(),
            ),
            Frame::Challenge { path, nonce } => {
                self.put(0x03, &Writer::<12>::new().put(&[path, 0, 0, 0]).put(&nonce).done())
            }
            Frame::Response { path, nonce } => {
                self.put(0x04, &Writer::<12>::new().put(&[path, 0, 0, 0]).put(&nonce).done())
            }
            Frame::Close { code, flow } => self.put(
                0x05,
                &Writer::<4>::new().put(&code.to_le_bytes()).put(&flow.to_le_bytes()).done(),
            ),
            Frame::RekeyRequest => self.put(0x06, &[]),
            Frame::Setting(s) => self.put(
                0x10,
                &Writer::<16>::new()
                    .put(&s.seq.to_le_bytes())
                    .put(&[u8::from(s.by_server) | u8::from(s.is_answer) << 1, s.mode])
                    .put(&[s.policy.failback.code(), s.policy.max_copies])
                    .put(&s.policy.target_loss_ppb.to_le_bytes())
                    .put(&s.policy.budget.to_le_bytes())
                    .done(),
            ),
            Frame::Weight { path, cost, weight } => self.put(
                0x12,
                &Writer::<4>::new().put(&[path, cost]).put(&weight.to_le_bytes()).done(),
            ),
            Frame::Rate { path, kbit } => self.put(
                0x13,
                &Writer::<8>::new().put(&[path, 0, 0, 0]).put(&kbit.to_le_bytes()).done(),
            ),
            Frame::Arrivals(report) => {
                let arrivals = report.arrivals();
                let count = u8::try_from(arrivals.len()).unwrap_or(0);
                let len = count.saturating_mul(ARRIVAL_LEN).saturating_add(ARRIVALS_HEAD_LEN);
                self.bytes.extend([0x11, len]);
                self.bytes.extend(report.base.to_le_bytes());
                self.bytes.extend([report.log2, report.span, count, 0]);
                for arrival in arrivals {
                    self.bytes.extend([arrival.step, arrival.first]);
                    self.bytes.extend(arrival.lead.to_le_bytes());
                    self.bytes.extend(arrival.paths.to_le_bytes());
                }
            }
        }
        self
    }

    fn put<const N: usize>(&mut self, code: u8, body: &[u8; N]) {
        // Every body that goes this way is a fixed array of at most 40 bytes.
        self.bytes.extend([code, u8::try_from(N).unwrap_or(u8::MAX)]);
        self.bytes.extend(body);
    }

    /// The inner of the CTRL packet.
    pub fn finish(self) -> Vec<u8> {
        self.finish_for(0)
    }

    /// The inner of a CTRL packet that has `packet` bytes, if the frames need no more.
    pub fn finish_for(mut self, packet: usize) -> Vec<u8> {
        let len = packet.saturating_sub(CTRL_OVERHEAD).max(CTRL_INNER_MIN);
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        self.bytes
    }
}

/// Reads all frames of an inner, unknown ones passed over. A frame that overruns the inner, one with
/// an impossible path, or a second one of a kind that speaks for a path makes the whole packet malformed: nothing of it is used.
pub fn parse(inner: &[u8]) -> Result<Vec<Frame>, DropReason> {
    let mut frames = Vec::new();
    let mut r = Reader(inner);
    while let Some(code) = r.u8() {
        if code == 0 {
            break;
        }
        let len = r.u8().ok_or(DropReason::Malformed)?;
        let body = r.take(usize::from(len)).ok_or(DropReason::Malformed)?;
        if matches!(code, 0x01..=0x06 | 0x10..=0x13) {
            let frame = parse_body(code, body).ok_or(DropReason::Malformed)?;
            // One packet speaks for one path: many PINGs in one would earn many paths' credit.
            let is_single = code <= 0x04 || code >= 0x10;
            if is_single && frames.iter().any(|f| discriminant(f) == discriminant(&frame)) {
                return Err(DropReason::Malformed);
            }
            frames.push(frame);
        }
    }
    Ok(frames)
}

fn parse_body(code: u8, body: &[u8]) -> Option<Frame> {
    let mut r = Reader(body);
    match (code, body.len()) {
        (0x01, 32) => Some(Frame::Ping(Ping {
            path: path(r.u8()?)?,
            flags: r.u8()?,
            next_10ms: r.u16()?,
            seq: r.u32()?,
            t_tx: r.u64()?,
            tx_pkts: r.u64()?,
            tx_bytes: r.u64()?,
        })),
        (0x02, 40) => {
            let path = path(r.u8()?)?;
            r.skip(3)?;
            Some(Frame::Pong(Pong {
                path,
                seq: r.u32()?,
                t_tx: r.u64()?,
                hold_us: r.u32()?,
                t_rx: r.u32()?,
                rx_pkts: r.u64()?,
                rx_bytes: r.u64()?,
            }))
        }
        (0x03 | 0x04, 12) => {
            let path = path(r.u8()?)?;
            r.skip(3)?;
            let nonce = r.array()?;
            Some(if code == 0x03 {
                Frame::Challenge { path, nonce }
            } else {
                Frame::Response { path, nonce }
            })
        }
        (0x05, 4) => Some(Frame::Close { code: r.u16()?, flow: r.u16()? }),
        (0x06, 0) => Some(Frame::RekeyRequest),
        (0x10, 16) => {
            let (seq, flags, mode) = (r.u32()?, r.u8()?, r.u8()?);
            let (failback, max_copies) = (Failback::of_code(r.u8()?), r.u8()?);
            let (target_loss_ppb, budget) = (r.u32()?, r.u16()?);
            let (by_server, is_answer) = (flags & 1 != 0, flags & 2 != 0);
            let policy =
                Policy { target_loss_ppb, max_copies, budget, failback, ..Policy::default() };
            Some(Frame::Setting(Setting { seq, by_server, is_answer, mode, policy }))
        }
        (0x12, 4) => {
            let path = path(r.u8()?)?;
            Some(Frame::Weight { path, cost: r.u8()?, weight: r.u16()? })
        }
        (0x13, 8) => {
            let path = path(r.u8()?)?;
            r.skip(3)?;
            Some(Frame::Rate { path, kbit: r.u32()? })
        }
        (0x11, len) => parse_arrivals(len, &mut r).map(Frame::Arrivals),
        _ => None,
    }
}

fn parse_arrivals(len: usize, r: &mut Reader<'_>) -> Option<Report> {
    let (base, log2, span, count) = (r.u64()?, r.u8()?, r.u8()?, r.u8()?);
    r.skip(1)?;
    let expected = count.checked_mul(ARRIVAL_LEN)?.checked_add(ARRIVALS_HEAD_LEN)?;
    let sane = log2 < 64 && len == usize::from(expected);
    let mut report = sane.then(|| Report::new(base, log2, span))?;
    for _ in 0..count {
        let (step, first) = (r.u8()?, path(r.u8()?)?);
        if !report.push(Arrival { step, first, lead: r.u16()?, paths: r.u32()? }) {
            return None;
        }
    }
    Some(report)
}

/// Length of ARRIVALS without its numbers, and of each of them.
const ARRIVALS_HEAD_LEN: u8 = 12;
const ARRIVAL_LEN: u8 = 8;

fn path(id: u8) -> Option<u8> {
    (usize::from(id) < MAX_PATHS).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Frame> {
        let mut report = Report::new(1 << 40, 6, 200);
        assert!(report.push(Arrival { step: 0, first: 3, lead: 500, paths: 0b1001 }));
        assert!(report.push(Arrival { step: 200, first: 31, lead: u16::MAX, paths: 1 << 31 }));
        let mut all = SIMPLE.to_vec();
        all.push(Frame::Arrivals(report));
        let policy = Policy {
            target_loss_ppb: 77,
            max_copies: 3,
            budget: 250,
            failback: Failback::Never,
            ..Policy::default()
        };
        let setting = Setting { seq: 9, by_server: true, is_answer: true, mode: 3, policy };
        all.push(Frame::Setting(setting));
        all.push(Frame::Weight { path: 31, cost: 255, weight: 65_535 });
        all.push(RATE);
        all
    }

    const SIMPLE: [Frame; 6] = [
        Frame::Ping(Ping {
            path: 31,
            flags: PING_BACKUP,
            next_10ms: 25,
            seq: 7,
            t_tx: 1,
            tx_pkts: 2,
            tx_bytes: 3,
        }),
        Frame::Pong(Pong {
            path: 0,
            seq: 7,
            t_tx: 1,
            hold_us: 9,
            t_rx: 4,
            rx_pkts: 2,
            rx_bytes: 3,
        }),
        Frame::Challenge { path: 3, nonce: [1; 8] },
        Frame::Response { path: 3, nonce: [2; 8] },
        Frame::Close { code: CLOSE_LIMIT, flow: FLOW },
        Frame::RekeyRequest,
    ];
    const FLOW: u16 = 513;
    const RATE: Frame = Frame::Rate { path: 31, kbit: 1_000_000_000 };

    #[test]
    fn every_frame_survives_the_wire() {
        let inner = all().iter().fold(FrameList::new(), |list, frame| list.push(*frame)).finish();

        assert_eq!(parse(&inner).unwrap(), all());
    }

    #[test]
    fn a_lone_frame_is_padded_to_the_smallest_inner() {
        assert_eq!(FrameList::new().push(Frame::RekeyRequest).finish().len(), CTRL_INNER_MIN);
    }

    #[test]
    fn unknown_frames_are_passed_over_by_their_length() {
        let mut inner = vec![0x17, 3, 9, 9, 9];
        inner.extend(FrameList::new().push(SIMPLE[4]).finish());

        assert_eq!(parse(&inner).unwrap(), [SIMPLE[4]]);
    }

    #[test]
    fn a_report_with_another_count_or_an_impossible_path_spoils_the_packet() {
        let mut report = Report::new(64, 3, 1);
        assert!(report.push(Arrival { step: 1, first: 2, lead: 0, paths: 0b100 }));
        let good = FrameList::new().push(Frame::Arrivals(report)).finish();
        assert_eq!(parse(&good).unwrap(), [Frame::Arrivals(report)]);

        for (at, value) in [(1, 12), (1, 28), (2 + 8, 64), (2 + 10, 2), (2 + 13, 32)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(parse(&bad), Err(DropReason::Malformed), "{at}");
        }
    }

    #[test]
    fn a_rate_has_the_bytes_of_the_protocol_and_no_others() {
        let good = FrameList::new().push(RATE).finish();
        assert_eq!(good[..11], [0x13, 8, 31, 0, 0, 0, 0x00, 0xca, 0x9a, 0x3b, 0]);

        let mut unknown = good.clone();
        unknown[3..6].fill(0xff);
        assert_eq!(parse(&unknown).unwrap(), [RATE], "zeros are not looked at");
        let twice = FrameList::new().push(RATE).push(Frame::Rate { path: 3, kbit: 0 }).finish();
        let (mut far, mut long) = (good.clone(), good.clone());
        (far[2], long[1]) = (32, 9);
        for bad in [far, long, twice] {
            assert_eq!(parse(&bad), Err(DropReason::Malformed), "{bad:02x?}");
        }
    }

    #[test]
    fn a_frame_that_overruns_or_repeats_or_names_an_impossible_path_spoils_the_packet() {
        let good = FrameList::new().push(SIMPLE[2]).finish();
        let mut far = good.clone();
        far[2] = 32;
        let mut long = good.clone();
        long[1] = 63;
        let mut odd = good.clone();
        odd[1] = 11;

        let twice = FrameList::new().push(SIMPLE[2]).push(SIMPLE[2]).finish();

        for bad in [far, long, odd, twice, vec![0x05]] {
            assert_eq!(parse(&bad), Err(DropReason::Malformed), "{bad:02x?}");
        }
    }
}
