// SPDX-License-Identifier: BSD-2-Clause
//! Fixed bytes: made by hand and by the classic programs, accepted and refused.

use mptunnel_core::legacy::{HEADER_LEN, Kind, Opened, open, seal};
use mptunnel_core::proto::drop::DropReason;

pub fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// A name, the datagram, and what it is: kind, id, payload.
const SOUND: &[(&str, &str, Kind, u32, &[u8])] = &[
    ("V1", "67458b6b 5a6a2af5 59d1f563 a654807a 181b564f7a", Kind::Data, 1, b"hello"),
    (
        "V2",
        "01000000 45253d73 ae48bca2 34f7afdc c13ec713ea6cce4492df2101a23d3d70",
        Kind::Data,
        2,
        &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    ),
    ("V3", "efbeadde 5951e8bc 299877ac 62f561bf", Kind::Control, 7, b""),
    ("V4", "00000000 02000000 03000000 04000000 7a65726f", Kind::Data, 3, b"zero"),
    (
        "V5",
        "c6237b32 35909f55 beb26ade dd67acaa f91a0818c4d865",
        Kind::Data,
        0x7fff_ffff,
        b"MPUDP\x00\xff",
    ),
    // What a classic client sends after its start: its seeds are the same everywhere.
    ("L1", "67458b6b 5a6a2af5 59d1f563 a654807a 0017544425", Kind::Data, 1, b"ping0"),
    ("L2", "c6237b32 35909f55 404d95a1 df67acaa c423333ba4", Kind::Data, 1, b"ping0"),
    ("L3", "69983c64 f0ec8492 55cdad71 2e3846c4 2600abe36c", Kind::Data, 2, b"ping1"),
    ("C1", "00000000 01000000 01000000 00000000", Kind::Control, 1, b""),
    ("C2", "00000000 02000000 05000000 00000000", Kind::Data, 5, b""),
    ("C4", "67458b6b 596a2af5 59d1f563 a354807a", Kind::Control, 1, b""),
];

#[test]
fn sound_datagrams_are_opened_and_made_byte_for_byte() {
    for (name, hex, kind, id, payload) in SOUND {
        let datagram = bytes(hex);

        let opened = Opened { kind: *kind, id: *id, payload };
        assert_eq!(open(&mut datagram.clone()), Ok(opened), "{name}");

        let iv = u32::from_le_bytes(datagram[..4].try_into().unwrap());
        let mut made = [&[0; HEADER_LEN], *payload].concat();
        seal(&mut made, *kind, *id, iv);
        assert_eq!(made, datagram, "{name}");
    }
}

#[test]
fn a_seed_that_means_nothing_changes_nothing() {
    // C3: a classic server without obfuscation sends what was in its memory.
    let mut datagram = bytes("700bab43 02000000 01000000 05000000 68656c6c6f");
    let opened = Opened { kind: Kind::Data, id: 1, payload: b"hello" };
    assert_eq!(open(&mut datagram), Ok(opened));
}

/// X3 to X10, each with why it is refused.
pub const REFUSED: &[(&str, &str, DropReason)] = &[
    ("X3", "01000000 45253d73 ad48bca2 db0850a3", DropReason::BadHeader),
    ("X4", "00000000 02000000 01000000 ffffff7f", DropReason::BadHeader),
    ("X5", "00000000 02000000 01000000 58020000 4142", DropReason::BadHeader),
    ("X6", "00000000 02000000 01000000 ffffffff 4142", DropReason::BadHeader),
    ("X7", "00000000 02000000 01000000 01000000 4142", DropReason::BadHeader),
    ("X8", "00000000 00000000 01000000 02000000 4142", DropReason::BadHeader),
    ("X9", "00000000 03000000 01000000 02000000 4142", DropReason::BadHeader),
    ("X10", "00000000 02000000 00000000 02000000 4142", DropReason::Malformed),
    ("X10, negative", "00000000 02000000 ffffffff 02000000 4142", DropReason::Malformed),
    ("X10, lowest", "00000000 02000000 00000080 02000000 4142", DropReason::Malformed),
];

/// X11: sound, with a number that leaves no room above it.
pub const POISON: &str = "00000000 02000000 ffffff7f 01000000 78";

#[test]
fn datagrams_that_are_not_sound_are_refused() {
    for (name, hex, reason) in REFUSED {
        assert_eq!(open(&mut bytes(hex)), Err(*reason), "{name}");
    }
    // X1 and X2: everything that is shorter than a header, whatever is in it.
    for (_, hex, ..) in SOUND {
        for len in 0..HEADER_LEN {
            assert_eq!(open(&mut bytes(hex)[..len].to_vec()), Err(DropReason::BadLength));
        }
    }
    for byte in 0..=255 {
        assert_eq!(open(&mut [byte]), Err(DropReason::BadLength));
    }
    // X11 is as good as any other.
    let opened = Opened { kind: Kind::Data, id: 0x7fff_ffff, payload: b"x" };
    assert_eq!(open(&mut bytes(POISON)), Ok(opened));
}
