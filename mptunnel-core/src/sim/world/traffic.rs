// SPDX-License-Identifier: BSD-2-Clause
//! Applications that send at a steady rate.

use super::agenda::Actor;
use super::{ClientNo, Direction, World};
use crate::proto::time::Time;
use std::time::Duration;

/// A stream of datagrams.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Through which tunnel.
    pub client: ClientNo,
    /// Which way.
    pub direction: Direction,
    /// Between two datagrams.
    pub interval: Duration,
    /// Length of each, in bytes.
    pub size: usize,
    /// Which application.
    pub flow: u16,
    /// After this nothing is sent.
    pub until: Time,
    /// Datagrams that were sent.
    pub sent: u64,
    /// Datagrams that the tunnel did not take.
    pub refused: u64,
}

/// A stream that was begun.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TrafficNo(usize);

impl World {
    /// Begins to send datagrams of `size` bytes, the first one now.
    pub fn stream(
        &mut self,
        client: ClientNo,
        direction: Direction,
        per_s: u32,
        size: usize,
    ) -> TrafficNo {
        let number = self.traffic.len();
        self.traffic.push(Traffic {
            client,
            direction,
            interval: Duration::from_secs(1) / per_s,
            size,
            flow: 0,
            until: Time::NEVER,
            sent: 0,
            refused: 0,
        });
        self.agenda.set(Actor::Traffic(number), Some(self.now));
        TrafficNo(number)
    }

    /// Streams both ways at the same rate.
    pub fn stream_both_ways(&mut self, client: ClientNo, per_s: u32, size: usize) {
        self.stream(client, Direction::Up, per_s, size);
        self.stream(client, Direction::Down, per_s, size);
    }

    /// Ends all streams.
    pub fn stop_streams(&mut self) {
        for (number, traffic) in self.traffic.iter_mut().enumerate() {
            traffic.until = self.now;
            self.agenda.set(Actor::Traffic(number), None);
        }
    }

    /// What a stream did so far.
    pub fn traffic(&self, number: TrafficNo) -> &Traffic {
        &self.traffic[number.0]
    }

    pub(super) fn send_due(&mut self, number: usize) {
        let Traffic { client, direction, interval, size, flow, until, .. } = self.traffic[number];
        if self.now >= until {
            return;
        }
        let sent = self.send(client, direction, flow, size).is_ok();
        let traffic = &mut self.traffic[number];
        traffic.sent += u64::from(sent);
        traffic.refused += u64::from(!sent);
        self.agenda.set(Actor::Traffic(number), Some(self.now + interval));
    }
}
