// SPDX-License-Identifier: BSD-2-Clause
//! ChaCha20-Poly1305 of both backends, AES-256-GCM and XChaCha20-Poly1305 against Wycheproof and
//! published examples, and the backends against each other.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use mptunnel_core::proto::crypto::*;
use wycheproof::TestResult;
use wycheproof::aead::{Test, TestName, TestSet};

use crate::block::hex;

/// Calls `check` with each case of `name` for keys of 32 bytes whose nonce has `N` bytes. Those
/// with another nonce must be invalid, or (AES-GCM hashes them to 12 bytes) of another length only.
fn each_case<const N: usize>(name: TestName, check: impl Fn(&Test, &[u8; 32], &[u8; N])) -> usize {
    let mut cases = 0;
    for group in TestSet::load(name).unwrap().test_groups {
        assert_eq!(group.tag_size, 128);
        if group.key_size != 256 {
            assert_eq!(name, TestName::AesGcm);
            continue;
        }
        for test in group.tests {
            let key = test.key.first_chunk().unwrap();
            match <&[u8; N]>::try_from(test.nonce.as_slice()) {
                Ok(nonce) => check(&test, key, nonce),
                // The types admit no other nonce, which is how such a case is refused.
                Err(_) if name == TestName::AesGcm => continue,
                Err(_) => assert_eq!(test.result, TestResult::Invalid, "case {}", test.tc_id),
            }
            cases += 1;
        }
    }
    cases
}

fn chacha<B: Backend>(test: &Test, key: &[u8; 32], nonce: &[u8; 12]) {
    aead(&B::new(key), test, nonce);
}

fn aead<B: Backend>(backend: &B, test: &Test, nonce: &[u8; 12]) {
    let case = format!("{} case {}: {}", B::NAME, test.tc_id, test.comment);
    let tag: [u8; 16] = test.tag.as_slice().try_into().unwrap();
    let mut body = test.ct.to_vec();

    let opened = backend.open(nonce, &test.aad, &mut body, &tag);

    if test.result == TestResult::Invalid {
        assert_eq!(opened, Err(AeadError), "{case}");
    } else {
        assert_eq!((opened, &body), (Ok(()), &test.pt.to_vec()), "{case}");
        assert_eq!(backend.seal(nonce, &test.aad, &mut body), Ok(tag), "{case}");
        assert_eq!(body, *test.ct, "{case}");
    }
}

#[cfg(feature = "ring")]
#[test]
fn ring_passes_wycheproof() {
    assert_eq!(each_case(TestName::ChaCha20Poly1305, chacha::<Ring>), 325);
}

/// With keys of 32 bytes and nonces of 12, which are all that a packet can have.
#[cfg(feature = "ring")]
#[test]
fn aes_256_gcm_passes_wycheproof() {
    let check = |test: &Test, key: &[u8; 32], nonce: &[u8; 12]| {
        aead(&Ring::aes_256_gcm(key), test, nonce);
    };
    assert_eq!(each_case(TestName::AesGcm, check), 66);
}

/// The GCM specification of McGrew and Viega, test cases 14 and 16; in the second the tag covers
/// associated data as well. Its nonce does not begin with zeros, so it cannot be a packet number.
#[cfg(feature = "ring")]
#[test]
fn aes_256_gcm_gives_the_examples_of_its_specification() {
    let mut body = [0; 16];
    let tag = Ring::aes_256_gcm(&[0; 32]).seal(&[0; 12], &[], &mut body).unwrap();
    assert_eq!(body.to_vec(), hex("cea7403d4d606b6e074ec5d3baf39d18"));
    assert_eq!(tag.to_vec(), hex("d0d1c8a799996bf0265b98b5d48ab919"));

    let key = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
    let nonce: [u8; 12] = hex("cafebabefacedbaddecaf888").try_into().unwrap();
    let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let mut body = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                        1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
    let tag = Ring::aes_256_gcm(&key.try_into().unwrap()).seal(&nonce, &aad, &mut body).unwrap();
    assert_eq!(
        body,
        hex("522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
             8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662")
    );
    assert_eq!(tag.to_vec(), hex("76fc6ece0f4e1768cddf8853bb2d551b"));
}

#[test]
fn the_portable_backend_passes_wycheproof() {
    assert_eq!(each_case(TestName::ChaCha20Poly1305, chacha::<Soft>), 325);
}

#[test]
fn the_cipher_of_cookies_passes_wycheproof() {
    let check = |test: &Test, key: &[u8; 32], nonce: &[u8; 24]| {
        let cipher = XChaCha20Poly1305::new(key.into());
        let sealed = [test.ct.as_slice(), &test.tag].concat();
        let opened = cipher.decrypt(nonce.into(), Payload { msg: &sealed, aad: &test.aad });

        if test.result == TestResult::Invalid {
            assert!(opened.is_err(), "case {}: {}", test.tc_id, test.comment);
        } else {
            assert_eq!(opened.unwrap(), *test.pt, "case {}: {}", test.tc_id, test.comment);
            let again = cipher.encrypt(nonce.into(), Payload { msg: &test.pt, aad: &test.aad });
            assert_eq!(again.unwrap(), sealed, "case {}: {}", test.tc_id, test.comment);
        }
        // Through our own function, where the lengths are those of a cookie.
        if let (Ok(mac1), Ok(sealed)) = (test.aad.as_slice().try_into(), sealed.try_into()) {
            let cookie = open_cookie(key, nonce, mac1, &sealed);
            assert_eq!(cookie.is_ok(), test.result != TestResult::Invalid, "case {}", test.tc_id);
        }
    };

    assert_eq!(each_case(TestName::XChaCha20Poly1305, check), 315);
}

/// RFC 8439, section 2.8.2. Its nonce does not begin with zeros, so it cannot be a packet number.
fn rfc_8439<B: Backend>() {
    let key = std::array::from_fn(|i| 0x80 + i as u8);
    let nonce: [u8; 12] = hex("070000004041424344454647").try_into().unwrap();
    let aad = hex("50515253c0c1c2c3c4c5c6c7");
    let mut body = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
                     for the future, sunscreen would be it."
        .to_vec();

    let tag = B::new(&key).seal(&nonce, &aad, &mut body).unwrap();

    assert_eq!(tag.to_vec(), hex("1ae10b594f09e26a7e902ecbd0600691"));
    assert_eq!(body[..16], hex("d31a8d34648e60db7b86afbc53ef7ec2"));
    assert_eq!(body[96..], hex("3ff4def08e4b7a9de576d26586cec64b6116"));
}

#[test]
fn both_backends_give_the_example_of_rfc_8439() {
    rfc_8439::<Soft>();
    #[cfg(feature = "ring")]
    rfc_8439::<Ring>();
}

/// Random keys, numbers, headers and lengths: 100,000 packets, or as many as the environment
/// variable `MPTUNNEL_CROSS_PACKETS` says.
#[cfg(feature = "ring")]
#[test]
fn each_backend_opens_what_the_other_sealed_and_both_seal_the_same_bytes() {
    let packets = std::env::var("MPTUNNEL_CROSS_PACKETS").map_or(100_000, |n| n.parse().unwrap());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for n in 0..packets {
        let mut key = [0; 32];
        random.fill(&mut key);
        let (ring, soft) = (SealingKey::<Ring>::new(&key), SealingKey::<Soft>::new(&key));
        let pn = random.next();
        let mut header = [0; 48];
        random.fill(&mut header);
        let header = &header[..random.below(49)];
        let mut plain = vec![0; random.below(1_501)];
        random.fill(&mut plain);

        let (mut by_ring, mut by_soft) = (plain.clone(), plain.clone());
        let tag = ring.seal_in_place(pn, header, &mut by_ring).unwrap();
        assert_eq!(soft.seal_in_place(pn, header, &mut by_soft), Ok(tag), "packet {n}");
        assert_eq!(by_ring, by_soft, "packet {n}");

        by_ring.extend(tag);
        by_soft.extend(tag);
        assert_eq!(soft.open_in_place(pn, header, &mut by_ring), Ok(&mut *plain), "packet {n}");
        assert_eq!(ring.open_in_place(pn, header, &mut by_soft), Ok(&mut *plain), "packet {n}");
    }
}

/// xorshift64*: the same packets in every run.
#[cfg(feature = "ring")]
struct Random(u64);

#[cfg(feature = "ring")]
impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}
