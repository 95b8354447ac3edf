// SPDX-License-Identifier: BSD-2-Clause
//! One datagram: sixteen bytes of header, then the application's.
//!
//! ```text
//!   0        4        8        12       16
//!   | iv     | type   | id     | length | payload …      all numbers 32 bits, little-endian
//!            '------- with obfuscation: all of this is hidden -------
//! ```

use super::keystream::Keystream;
use crate::proto::drop::DropReason;

/// Bytes before the payload.
pub const HEADER_LEN: usize = 16;

/// Bytes of the largest payload: what fits a UDP datagram over IPv4 together with the header.
pub const MAX_PAYLOAD: usize = 65_507 - HEADER_LEN;

/// What a datagram is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A sign of life and nothing else. The classic programs understand it and never send it.
    Control,
    /// A datagram of the application.
    Data,
}

impl Kind {
    const fn number(self) -> u32 {
        match self {
            Kind::Control => 1,
            Kind::Data => 2,
        }
    }
}

/// A datagram whose header is sound.
#[derive(Debug, Eq, PartialEq)]
pub struct Opened<'d> {
    /// What it is for.
    pub kind: Kind,
    /// Its number, 1 or more if it is [`Kind::Data`]; of a [`Kind::Control`] it means nothing.
    pub id: u32,
    /// What it carries: exactly what was received.
    pub payload: &'d [u8],
}

/// Reads a datagram, in clear or not, and brings its payload back in place.
///
/// Type and length are 64 bits that have to be right, so the two forms are told apart without being
/// configured. A classic server sends whatever was in its memory as the seed of a datagram in clear:
/// what is sound as it stands is never changed.
///
/// # Errors
/// [`DropReason::BadLength`] below 16 bytes, [`DropReason::BadHeader`] if neither form is sound,
/// [`DropReason::Malformed`] for data with a number below 1. Nothing but the header is looked at
/// before it is known that the length in it is that of the datagram.
pub fn open(datagram: &mut [u8]) -> Result<Opened<'_>, DropReason> {
    let (header, payload) =
        datagram.split_first_chunk_mut::<HEADER_LEN>().ok_or(DropReason::BadLength)?;
    let [iv, typ, id, len] = words(header);
    let (kind, id) = match sound(typ, len, payload) {
        Some(kind) => (kind, id),
        None => {
            let mut keys = Keystream::new(iv);
            let [_, _, _, _, hidden @ ..] = header;
            keys.apply(hidden);
            let [_, typ, id, len] = words(header);
            let kind = sound(typ, len, payload).ok_or(DropReason::BadHeader)?;
            keys.apply(payload);
            (kind, id)
        }
    };
    // Signed on the wire: what is above counts as below zero there.
    let is_number = (1..=i32::MAX.unsigned_abs()).contains(&id);
    if kind == Kind::Data && !is_number {
        return Err(DropReason::Malformed);
    }
    Ok(Opened { kind, id, payload })
}

/// Writes the header of `packet`, whose payload stands behind it already, and hides all but the
/// seed if that is not 0.
///
/// A `packet` that is shorter than the header is left alone: there is no such packet.
pub fn seal(packet: &mut [u8], kind: Kind, id: u32, iv: u32) {
    let Some((header, payload)) = packet.split_first_chunk_mut::<HEADER_LEN>() else { return };
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let numbers = [iv, kind.number(), id, len];
    for (field, number) in header.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
        *field = number.to_le_bytes();
    }
    if iv != 0 {
        let mut keys = Keystream::new(iv);
        let [_, _, _, _, hidden @ ..] = header;
        keys.apply(hidden);
        keys.apply(payload);
    }
}

/// A sign of life.
pub fn ctl(iv: u32) -> [u8; HEADER_LEN] {
    let mut packet = [0; HEADER_LEN];
    seal(&mut packet, Kind::Control, 1, iv);
    packet
}

fn words(header: &[u8; HEADER_LEN]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(header.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

fn sound(typ: u32, len: u32, payload: &[u8]) -> Option<Kind> {
    let kind = [Kind::Control, Kind::Data].into_iter().find(|kind| kind.number() == typ)?;
    (usize::try_from(len) == Ok(payload.len())).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_sealed_opens_again(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            id in 1..=i32::MAX.unsigned_abs(),
            iv in prop_oneof![Just(0), any::<u32>()],
        ) {
            let mut packet = [vec![0; HEADER_LEN], payload.clone()].concat();
            seal(&mut packet, Kind::Data, id, iv);
            let opened = open(&mut packet);
            prop_assert_eq!(opened, Ok(Opened { kind: Kind::Data, id, payload: &payload }));
        }

        #[test]
        fn no_bytes_do_anything_but_open_or_be_refused(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..64),
            typ in 0u32..4, len in 0u32..64, plain: bool,
        ) {
            // Half of them with a header that is nearly right, else none would ever pass.
            if plain && bytes.len() >= HEADER_LEN {
                bytes[4..8].copy_from_slice(&typ.to_le_bytes());
                bytes[12..16].copy_from_slice(&len.to_le_bytes());
            }
            let before = bytes.clone();
            match open(&mut bytes) {
                Ok(opened) => prop_assert_eq!(opened.payload.len(), before.len() - HEADER_LEN),
                // Of what is refused, no more than the header was touched.
                Err(_) => prop_assert_eq!(bytes.get(HEADER_LEN..), before.get(HEADER_LEN..)),
            }
        }
    }

    #[test]
    fn a_packet_without_room_for_a_header_is_left_alone() {
        let mut packet = [7; HEADER_LEN - 1];
        seal(&mut packet, Kind::Data, 1, 1);
        assert_eq!(packet, [7; HEADER_LEN - 1]);
    }
}
