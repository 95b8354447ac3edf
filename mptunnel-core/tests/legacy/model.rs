// SPDX-License-Identifier: BSD-2-Clause
//! The codec against one written in another language from the description alone.

use crate::vectors::bytes;
use mptunnel_core::legacy::{HEADER_LEN, Kind, open, seal};
use std::process::Command;

const DATAGRAMS: usize = 100_000;

#[test]
fn a_hundred_thousand_random_datagrams_are_what_the_model_in_python_says() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/legacy/model.py");
    let output = Command::new("python3").args([script, &DATAGRAMS.to_string(), "6"]).output();
    let output = output.expect("python3 is installed, as .ci/run does");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();

    let (mut opened, mut refused) = (0, 0);
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let of = |word: &str| if word == "." { Vec::new() } else { bytes(word) };
        let datagram = of(words[0]);
        let mut ours = datagram.clone();
        match (open(&mut ours), &words[1..]) {
            (Ok(found), [kind, id, payload]) => {
                let (kind, id): (u32, i32) = (kind.parse().unwrap(), id.parse().unwrap());
                let expected = if kind == 1 { Kind::Control } else { Kind::Data };
                let payload = of(payload);
                assert_eq!((found.kind, found.id as i32), (expected, id), "{line}");
                assert_eq!(found.payload, payload, "{line}");

                // Made again it is the same, unless its seed meant nothing.
                let iv = u32::from_le_bytes(datagram[..4].try_into().unwrap());
                let is_clear = datagram[4..8] == kind.to_le_bytes();
                let mut made = [&[0; HEADER_LEN], &payload[..]].concat();
                seal(&mut made, expected, id as u32, if is_clear { 0 } else { iv });
                assert_eq!(made[4..], datagram[4..], "{line}");
                opened += 1;
            }
            (Err(_), ["-"]) => refused += 1,
            (ours, _) => panic!("{line}: {ours:?}"),
        }
    }
    assert_eq!(opened + refused, DATAGRAMS);
    assert!(opened > DATAGRAMS / 3 && refused > DATAGRAMS / 5, "{opened} and {refused}");
}
