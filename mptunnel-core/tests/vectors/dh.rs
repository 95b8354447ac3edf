// SPDX-License-Identifier: BSD-2-Clause
//! X25519 as `snow` does it for us, against Wycheproof.

use mptunnel_core::proto::crypto::is_low_order;
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use wycheproof::xdh::{TestName, TestSet};

/// Wycheproof 0.6 has 518 cases; fewer would mean that some are skipped.
const CASES: usize = 518;

#[test]
fn x25519_gives_the_shared_secrets_of_wycheproof() {
    let mut cases = 0;
    for group in TestSet::load(TestName::X25519).unwrap().test_groups {
        for test in group.tests {
            let mut dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519).unwrap();
            dh.set(&test.private_key);
            let mut shared = [0; 32];
            dh.dh(&test.public_key, &mut shared).unwrap();

            assert_eq!(shared, **test.shared_secret, "case {}: {}", test.tc_id, test.comment);
            let public = test.public_key.first_chunk().unwrap();
            assert_eq!(is_low_order(public), shared == [0; 32], "case {}", test.tc_id);
            cases += 1;
        }
    }
    assert_eq!(cases, CASES);
}
