// SPDX-License-Identifier: BSD-2-Clause
//! Single messages at the wrong moment: held back, out of order, from a peer that means harm.

mod pair;

mod closing;
mod endpoints;
mod events;
mod fragments;
mod handshake;
mod paths;
mod relays;
