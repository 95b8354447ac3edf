// SPDX-License-Identifier: BSD-2-Clause
//! What an endpoint's threads hand to the application: datagrams and events, taken with or without
//! waiting, and one descriptor that tells when there is something.

mod delivery;
mod events;
mod monitor;
mod readiness;

pub(crate) use delivery::{DeliveryQueue, Limits, Meta, PopError, Received, Slot};
pub(crate) use events::EventQueue;
pub(crate) use monitor::WaitError;
pub(crate) use readiness::Readiness;
