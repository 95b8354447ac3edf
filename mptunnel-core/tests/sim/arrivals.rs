// SPDX-License-Identifier: BSD-2-Clause
//! What the sample of datagrams tells about paths: which lose together, and what each is worth.

use crate::support::*;
use mptunnel_core::sim::link::{Fades, LinkConfig};
use mptunnel_core::sim::world::Direction::Up;
use mptunnel_core::sim::world::PathSpec;
use std::collections::VecDeque;

/// A path of `rtt` on which 5 % of the time is lost, with others of the same `cause`.
fn fading(rtt_ms: u32, cause: u64) -> PathSpec {
    let fades = Some(Fades { seed: cause, length: MS, share: 0.05 });
    PathSpec::both(LinkConfig { delay: rtt_ms * MS / 2, fades, ..LinkConfig::default() })
}

#[test]
fn both_ends_find_out_which_paths_lose_together_and_which_is_worth_what() {
    with_seeds("both_ends_find_out", 2, |seed| {
        let paths = vec![fading(20, 1), fading(40, 1), fading(30, 2), fading(50, 3)];
        let (mut world, server, client) = tunnel_over(seed, paths);
        world.start_all();
        world.run_for(S);
        world.stream_both_ways(client, 500, 200);
        world.run_for(20 * S);
        world.verify();

        let peer = world.server(server).peer_of(client).expect("it is known");
        let there = world.server(server).server().and_then(|s| s.peer(peer)?.observed());
        let here = world.client(client).client().and_then(|c| c.observed());
        for observed in [here.expect("reports came"), there.expect("reports came")] {
            // 500/s in steps of 8 or 16, of which few reports are lost.
            assert!((500..1_300).contains(&observed.samples()), "{}", observed.samples());
            let correlation = |a, b| observed.pair(a, b).correlation().expect("there are losses");
            assert!(correlation(0, 1) > 0.95, "{}", correlation(0, 1));
            for (a, b) in [(0, 2), (1, 2), (0, 3), (2, 3)] {
                assert!(correlation(a, b) < 0.3, "{a} {b}: {}", correlation(a, b));
            }
            let residual = observed.residual_loss().expect("there are samples");
            assert!(residual < 0.005, "{residual}");

            let scores: Vec<_> = (0..4).map(|slot| observed.outgoing(slot)).collect();
            assert!(scores.iter().all(|s| s.samples == observed.samples()));
            let share = |n: u64| n as f64 / observed.samples() as f64;
            assert!(share(scores[0].first) > 0.9, "the fastest path brings what it does not lose");
            assert!(share(scores[2].first) > 0.02, "and another one the rest");
            let lead = scores[0].mean_lead().expect("others came second");
            assert!(lead > 4 * MS && lead < 7 * MS, "5 ms before path 2: {lead:?}");
            assert!(scores.iter().all(|s| share(s.only) < 0.02));
            let back = observed.incoming(0);
            assert!(back.first as f64 / back.samples as f64 > 0.95);
        }
    });
}

#[test]
fn one_path_alone_is_not_told_about() {
    let (mut world, server, client) = tunnel(1, 1, 40 * MS);
    world.start_all();
    world.stream_both_ways(client, 500, 200);
    world.run_for(5 * S);

    let peer = world.server(server).peer_of(client).expect("it is known");
    assert!(world.server(server).server().and_then(|s| s.peer(peer)?.observed()).is_none());
    assert!(world.client(client).client().is_some_and(|c| c.observed().is_none()));
}

#[test]
fn forged_copies_of_the_sample_do_not_make_a_path_look_better() {
    let (mut world, server, client) = tunnel(1, 2, 20 * MS);
    world.start_all();
    world.run_for(S);
    // Path 1 carries probes and no data.
    world.faults(path(client, 1), Up).grey = true;
    world.capture();
    world.stream(client, Up, 500, 200);
    let forger = world.client(client).paths[1].outer;
    let mut waiting = VecDeque::new();
    for _ in 0..6_000 {
        world.run_for(MS);
        for captured in world.captured() {
            let mut bytes = captured.parcel.bytes().to_vec();
            if captured.path == path(client, 0) && captured.parcel.cargo.is_some() {
                *bytes.last_mut().expect("it is no empty packet") ^= 1;
                waiting.push_back((captured.at, bytes));
            }
        }
        // After the genuine one, which takes 10 ms.
        let due = world.now().before(11 * MS);
        while waiting.front().is_some_and(|(at, _)| *at <= due) {
            let (_, forged) = waiting.pop_front().expect("there is one");
            world.inject_at_server(server, forger, &forged);
        }
    }

    let observed = world.client(client).client().and_then(|c| c.observed()).expect("reports came");
    let (zero, one) = (observed.outgoing(0), observed.outgoing(1));
    assert!(zero.arrived > 50, "{zero:?}");
    assert_eq!(one.arrived, 0, "{one:?}");
}
