// SPDX-License-Identifier: BSD-2-Clause
//! The least that a sealed packet is: a number, a ciphertext, a tag; and a window that drops the
//! copies of a number before anything is opened.

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Bytes in front of the payload: the number, and as many as mptunnel's packets have besides.
pub const HEADER: usize = 16;
const TAG: usize = 16;

/// What seals the packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Cipher {
    /// ChaCha20-Poly1305, by `ring`.
    Chacha20,
    /// AES-256-GCM, by `ring`.
    Aes256gcm,
    /// Nothing does.
    None,
}

impl Cipher {
    /// Its name, short.
    pub fn name(self) -> &'static str {
        match self {
            Cipher::Chacha20 => "ChaCha20",
            Cipher::Aes256gcm => "AES-256",
            Cipher::None => "readable",
        }
    }

    /// The word for it in mptunnel's options.
    pub fn word(self) -> &'static str {
        match self {
            Cipher::Chacha20 => "chacha20",
            Cipher::Aes256gcm => "aes256gcm",
            Cipher::None => "none",
        }
    }
}

/// Seals and opens.
pub struct Key(Option<LessSafeKey>);

impl Key {
    /// A fixed key: there are no secrets here.
    pub fn new(cipher: Cipher) -> Self {
        let algorithm = match cipher {
            Cipher::Chacha20 => &CHACHA20_POLY1305,
            Cipher::Aes256gcm => &AES_256_GCM,
            Cipher::None => return Key(None),
        };
        let key = UnboundKey::new(algorithm, &[7; 32]).expect("both take keys of 32 bytes");
        Key(Some(LessSafeKey::new(key)))
    }

    /// Bytes of a packet that carries `payload` bytes.
    pub fn packet_len(&self, payload: usize) -> usize {
        HEADER + payload + if self.0.is_some() { TAG } else { 0 }
    }

    /// Writes packet `number` into `packet`, which has just the length.
    pub fn seal(&self, number: u64, payload: &[u8], packet: &mut [u8]) {
        let (header, rest) = packet.split_at_mut(HEADER);
        header[..8].copy_from_slice(&number.to_le_bytes());
        header[8..].fill(0);
        let (body, tag) = rest.split_at_mut(payload.len());
        body.copy_from_slice(payload);
        if let Some(key) = &self.0 {
            let made = key
                .seal_in_place_separate_tag(nonce(number), Aad::from(&*header), body)
                .expect("a datagram is short enough");
            tag.copy_from_slice(made.as_ref());
        }
    }

    /// The payload of `packet`, deciphered in place, if it is genuine and its number new.
    pub fn open<'p>(&self, seen: &mut Window, packet: &'p mut [u8]) -> Option<&'p [u8]> {
        let (header, rest) = packet.split_at_mut_checked(HEADER)?;
        let number = u64::from_le_bytes(*header.first_chunk()?);
        if !seen.is_new(number) {
            return None;
        }
        let payload = match &self.0 {
            Some(key) => key.open_in_place(nonce(number), Aad::from(&*header), rest).ok()?,
            None => rest,
        };
        seen.mark(number);
        Some(payload)
    }
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Which numbers were seen: one bit for each of the newest 262,144 (RFC 6479).
pub struct Window {
    words: Box<[u64; WORDS]>,
    newest: u64,
}

const WORDS: usize = 4096;

impl Default for Window {
    fn default() -> Self {
        Window { words: Box::new([0; WORDS]), newest: 0 }
    }
}

impl Window {
    /// Whether `number` was not marked. Numbers below the window count as marked.
    #[inline]
    pub fn is_new(&self, number: u64) -> bool {
        let (word, newest) = (number / 64, self.newest / 64);
        word > newest
            || (word + (WORDS as u64) > newest && self.words[place(word)] & bit(number) == 0)
    }

    /// Marks `number`.
    #[inline]
    pub fn mark(&mut self, number: u64) {
        let (word, newest) = (number / 64, self.newest / 64);
        if word > newest {
            for fresh in (newest + 1..=word).rev().take(WORDS) {
                self.words[place(fresh)] = 0;
            }
        }
        self.newest = self.newest.max(number);
        self.words[place(word)] |= bit(number);
    }
}

fn place(word: u64) -> usize {
    word as usize % WORDS
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_opens_once_and_only_unaltered() {
        for cipher in [Cipher::Chacha20, Cipher::Aes256gcm, Cipher::None] {
            let (key, mut seen) = (Key::new(cipher), Window::default());
            let mut packet = vec![0; key.packet_len(5)];
            key.seal(9, b"hello", &mut packet);
            let mut forged = packet.clone();
            *forged.last_mut().unwrap() ^= 1;

            if cipher != Cipher::None {
                assert!(key.open(&mut seen, &mut forged).is_none());
            }
            assert_eq!(key.open(&mut seen, &mut packet.clone()), Some(&b"hello"[..]));
            assert_eq!(key.open(&mut seen, &mut packet), None);
        }
    }

    #[test]
    fn the_window_forgets_what_is_too_old_and_nothing_else() {
        let mut seen = Window::default();
        let bits = WORDS as u64 * 64;
        for number in [0, 1, 63, 64, bits + 70, bits + 69] {
            assert!(seen.is_new(number), "{number}");
            seen.mark(number);
            assert!(!seen.is_new(number), "{number}");
        }
        assert!(!seen.is_new(2), "below the window");
        assert!(seen.is_new(bits), "within it, and never marked");
        seen.mark(9 * bits);
        assert!(seen.is_new(9 * bits - 1) && !seen.is_new(bits + 71));
    }
}
