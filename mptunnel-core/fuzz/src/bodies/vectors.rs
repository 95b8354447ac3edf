// SPDX-License-Identifier: BSD-2-Clause
//! The project's own vectors as seeds, and the keys that they are made with.

use mptunnel_core::proto::crypto::{Psk, StaticSecret};

const FILE: &str = include_str!("../../../tests/data/vectors.txt");

/// A name and its bytes, in the order of the file.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let block = FILE.split("```vectors\n").nth(1).and_then(|rest| rest.split("```").next());
    let mut vectors: Vec<(&str, Vec<u8>)> = Vec::new();
    for line in block.expect("a block of vectors").lines() {
        if let Some(head) = line.strip_prefix('[') {
            vectors.push((head.split(' ').next().expect("a name"), Vec::new()));
        } else if let Some((_, bytes)) = vectors.last_mut() {
            let byte = |at| u8::from_str_radix(&line[at..at + 2], 16).expect("hexadecimal digits");
            bytes.extend((0..line.len()).step_by(2).map(byte));
        }
    }
    vectors
}

/// Those that are datagrams: their names are in capitals.
pub fn datagrams() -> Vec<Vec<u8>> {
    let is_datagram = |name: &str, bytes: &[u8]| {
        name.starts_with(|c: char| c.is_ascii_uppercase()) && bytes.get(1..4) == Some(&[1, 0, 0])
    };
    all().into_iter().filter(|(name, bytes)| is_datagram(name, bytes)).map(|(_, b)| b).collect()
}

pub fn psk() -> Psk {
    Psk::new(std::array::from_fn(|i| i as u8)).expect("not all zero")
}

pub fn client_static() -> StaticSecret {
    StaticSecret::new([0x66; 32]).expect("not all zero")
}

pub fn server_static() -> StaticSecret {
    StaticSecret::new([0x77; 32]).expect("not all zero")
}
