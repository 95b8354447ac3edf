// SPDX-License-Identifier: BSD-2-Clause
//! Reading and writing a block of vectors: lines of `[name length] remark`, each followed by the
//! bytes in hexadecimal, 32 to a line, all between a fence marked `vectors` and the next fence.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Name to bytes.
pub type Vectors = BTreeMap<String, Vec<u8>>;

/// Reads the first block in `text`.
pub fn load(text: &str) -> Vectors {
    let block = text.split("```vectors\n").nth(1).expect("a fence marked vectors");
    let block = block.split("```").next().expect("a closing fence");
    let mut vectors = Vectors::new();
    let mut name = String::new();
    let mut lengths = BTreeMap::new();
    for line in block.lines() {
        if let Some(head) = line.strip_prefix('[') {
            let (head, _remark) = head.split_once(']').expect("a closing bracket");
            let (new_name, len) = head.split_once(' ').expect("a name and a length");
            name = new_name.to_owned();
            lengths.insert(name.clone(), len.parse::<usize>().expect("a length"));
            assert!(vectors.insert(name.clone(), Vec::new()).is_none(), "{name} twice");
        } else {
            vectors.get_mut(&name).expect("a name before bytes").extend(hex(line));
        }
    }
    for (name, bytes) in &vectors {
        assert_eq!(bytes.len(), lengths[name], "length of {name}");
    }
    vectors
}

/// Writes one vector as it stands in a block.
pub fn render(name: &str, remark: &str, bytes: &[u8]) -> String {
    let mut text = format!("[{name} {}] {remark}", bytes.len()).trim_end().to_owned();
    for line in bytes.chunks(32) {
        text.push('\n');
        for byte in line {
            write!(text, "{byte:02x}").expect("a String takes everything");
        }
    }
    text.push('\n');
    text
}

/// The bytes of a string of hexadecimal digits.
pub fn hex(digits: &str) -> Vec<u8> {
    assert_eq!(digits.len() % 2, 0, "{digits}");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}
