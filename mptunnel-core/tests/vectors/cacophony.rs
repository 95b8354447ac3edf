// SPDX-License-Identifier: BSD-2-Clause
//! The published vectors of the two Noise patterns (those of the cacophony library, which `snow`
//! ships too) against `snow` as this crate builds it. Their prologue and payloads are not ours, so
//! `snow` is driven directly; the messages after the handshake are opened by our own AEAD, whose
//! nonce must therefore be that of Noise.

use mptunnel_core::proto::crypto::AeadKey;
use snow::Builder;

use crate::block::{self, Vectors};

fn vectors() -> Vectors {
    block::load(include_str!("../data/cacophony.txt"))
}

#[test]
fn the_psk_pattern_reproduces_the_published_messages() {
    let v = vectors();
    let psk = v["psk"].as_slice().try_into().unwrap();
    let pattern = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
    let builder = || {
        let builder = Builder::new(pattern.parse().unwrap());
        builder.prologue(&v["prologue"]).unwrap().psk(0, psk).unwrap()
    };

    converse(
        builder().fixed_ephemeral_key_for_testing_only(&v["init_ephemeral"]),
        builder().fixed_ephemeral_key_for_testing_only(&v["resp_ephemeral"]),
        "nn",
    );
}

#[test]
fn the_static_key_pattern_reproduces_the_published_messages() {
    let v = vectors();
    let psk = v["psk"].as_slice().try_into().unwrap();
    let pattern = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
    let builder = |own| {
        let builder = Builder::new(pattern.parse().unwrap()).prologue(&v["prologue"]).unwrap();
        builder.psk(2, psk).unwrap().local_private_key(own).unwrap()
    };
    let initiator = builder(&v["init_static"]).remote_public_key(&v["init_remote_static"]).unwrap();

    converse(
        initiator.fixed_ephemeral_key_for_testing_only(&v["init_ephemeral"]),
        builder(&v["resp_static"]).fixed_ephemeral_key_for_testing_only(&v["resp_ephemeral"]),
        "ik",
    );
}

/// Exchanges the two handshake messages and the four messages after them.
fn converse(initiator: Builder<'_>, responder: Builder<'_>, prefix: &str) {
    let v = vectors();
    let expected = |n| (&v[&format!("payload_{n}")], &v[&format!("{prefix}_{n}")]);
    let mut ends = [initiator.build_initiator().unwrap(), responder.build_responder().unwrap()];

    for (n, from) in [(0, 0), (1, 1)] {
        let (payload, ciphertext) = expected(n);
        let (mut message, mut received) = ([0; 256], [0; 256]);
        let len = ends[from].write_message(payload, &mut message).unwrap();
        assert_eq!(&message[..len], ciphertext, "message {n}");
        let len = ends[1 - from].read_message(&message[..len], &mut received).unwrap();
        assert_eq!(&received[..len], payload, "payload {n}");
    }

    let [initiator, responder] = &mut ends;
    assert_eq!(initiator.get_handshake_hash(), v[&format!("{prefix}_hash")]);
    let keys = initiator.dangerously_get_raw_split();
    assert_eq!(keys, responder.dangerously_get_raw_split());
    let keys = [AeadKey::new(&keys.0), AeadKey::new(&keys.1)];
    for (n, key, pn) in [(2, &keys[0], 0), (3, &keys[1], 0), (4, &keys[0], 1), (5, &keys[1], 1)] {
        let (payload, ciphertext) = expected(n);
        let opened = key.open_in_place(pn, &[], &mut ciphertext.clone()).map(|p| p.to_vec());
        assert_eq!(opened.as_ref(), Ok(payload), "message {n}");
    }
}
