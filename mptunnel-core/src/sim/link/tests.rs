// SPDX-License-Identifier: BSD-2-Clause

use proptest::prelude::*;

use super::*;

#[test]
fn a_perfect_link_delivers_everything_at_once_and_in_order() {
    let mut link = Link::new(LinkConfig::default(), 1);

    for number in 0..100 {
        link.send(ms(5), packet(number, 50));
    }

    assert_eq!(link.poll_timeout(), Some(ms(5)));
    assert_eq!(numbers(&drain(&mut link, ms(5))), (0..100).collect::<Vec<_>>());
    assert_eq!(link.poll_timeout(), None);
    assert_eq!(link.counters(), Counters { sent: 100, delivered: 100, ..Counters::default() });
}

#[test]
fn a_delayed_packet_arrives_exactly_when_due_and_not_before() {
    let mut link = Link::new(LinkConfig { delay: millis(30), ..LinkConfig::default() }, 1);

    link.send(ms(10), packet(1, 4));

    assert_eq!(link.poll_timeout(), Some(ms(40)));
    assert_eq!(link.poll(Time::from_micros(39_999)), None);
    assert!(link.poll(ms(40)).is_some());
}

#[test]
fn random_loss_takes_the_configured_share_independently() {
    let config = LinkConfig { loss: 0.3, ..LinkConfig::default() };

    let arrived = survivors(config, 7, 100_000);

    // σ = 145.
    assert!((69_300..70_700).contains(&arrived.len()), "{}", arrived.len());
    // Pairs of neighbours that both arrive: 0.49 of all, were losses independent.
    let pairs = arrived.windows(2).filter(|pair| pair[0] + 1 == pair[1]).count();
    assert!((48_000..50_000).contains(&pairs), "{pairs}");
}

#[test]
fn bursts_have_the_configured_length_and_share() {
    // Bad for 0.025 / 0.125 = 20 % of the packets, in gaps of 10 on average.
    let config = LinkConfig { burst: Some(Burst::gaps(0.025, 0.1)), ..LinkConfig::default() };

    let arrived = survivors(config, 3, 500_000);

    let gaps: Vec<u64> =
        arrived.windows(2).map(|pair| pair[1] - pair[0] - 1).filter(|&gap| gap > 0).collect();
    let lost: u64 = gaps.iter().sum();
    let share = lost as f64 / 500_000.0;
    let length = lost as f64 / gaps.len() as f64;
    assert!((0.19..0.21).contains(&share), "{share}");
    assert!((9.5..10.5).contains(&length), "{length}");
    // A geometric law, not a fixed length: 1 in 10 gaps is a single packet.
    let single = gaps.iter().filter(|&&gap| gap == 1).count() as f64 / gaps.len() as f64;
    assert!((0.08..0.12).contains(&single), "{single}");
}

#[test]
fn the_long_run_loss_of_every_preset_is_what_its_text_says() {
    let cases = [
        (LinkConfig::clean(), 0.0),
        (LinkConfig::lossy_wifi(), 0.038),
        (LinkConfig::cellular(), 0.010),
        (LinkConfig::satellite(), 0.011),
    ];
    for (preset, stated) in cases {
        assert!((preset.mean_loss() - stated).abs() < 0.0006, "{preset:?}");

        let unlimited = LinkConfig { rate: None, ..preset.clone() };
        let lost = 1.0 - survivors(unlimited, 11, 400_000).len() as f64 / 400_000.0;

        assert!((lost - stated).abs() < 0.002, "{lost} of {preset:?}");
    }
}

#[test]
fn a_packet_is_delayed_by_its_own_bytes_and_by_those_before_it() {
    // 1 Mbit/s: 125 bytes take 1 ms.
    let config = LinkConfig { delay: millis(10), rate: rate(125_000), ..LinkConfig::default() };
    let mut link = Link::new(config, 1);

    for number in 0..3 {
        link.send(ms(0), packet(number, 125));
    }

    let arrivals = run(&mut link);
    assert_eq!(times(&arrivals), [ms(11), ms(12), ms(13)]);
    link.send(ms(100), packet(3, 250));
    assert_eq!(times(&run(&mut link)), [ms(112)]);
}

#[test]
fn a_fast_bottleneck_keeps_its_rate_although_packets_take_less_than_a_microsecond() {
    // 1 Gbit/s: 64 bytes take 512 ns.
    let config = LinkConfig { rate: rate(125_000_000), buffer: 1 << 20, ..LinkConfig::default() };
    let mut link = Link::new(config, 1);

    for number in 0..10_000 {
        link.send(ms(0), packet(number, 64));
    }

    assert_eq!(run(&mut link).last().map(|last| last.0), Some(Time::from_micros(5_120)));
}

#[test]
fn a_full_buffer_drops_the_last_comer_and_an_idle_link_takes_any_packet() {
    let config = LinkConfig { rate: rate(125_000), buffer: 1000, ..LinkConfig::default() };
    let mut link = Link::new(config, 1);

    for number in 0..20 {
        link.send(ms(0), packet(number, 125));
    }

    assert_eq!(link.held_bytes(), 1000);
    assert_eq!(numbers(&run(&mut link)), (0..8).collect::<Vec<_>>());
    assert_eq!(link.counters().overflowed, 12);
    link.send(ms(50), packet(20, 5000));
    link.send(ms(50), packet(21, 4));
    assert_eq!(numbers(&run(&mut link)), [20]);
}

#[test]
fn what_the_wire_loses_has_used_its_share_of_the_rate() {
    let config = LinkConfig { loss: 1.0, rate: rate(125_000), ..LinkConfig::default() };
    let mut link = Link::new(config, 1);
    link.send(ms(0), packet(0, 1250));
    link.set_config(ms(0), LinkConfig { loss: 0.0, ..link.config().clone() });
    link.send(ms(0), packet(1, 1250));
    link.set_config(ms(0), LinkConfig { loss: 1.0, ..link.config().clone() });
    link.set_config(ms(10), LinkConfig { loss: 0.0, ..link.config().clone() });

    let arrivals = run(&mut link);

    // The first left at 10 ms into a wire that lost everything, the second 10 ms after it.
    assert_eq!((times(&arrivals), numbers(&arrivals)), (vec![ms(20)], vec![1]));
    assert_eq!(link.counters().lost_random, 1);
}

#[test]
fn a_new_rate_holds_for_what_waits_already() {
    // 1 kB/s, 100 ms for each packet.
    let config = LinkConfig { rate: rate(1000), ..LinkConfig::default() };
    let mut link = Link::new(config, 1);
    for number in 0..4 {
        link.send(ms(0), packet(number, 100));
    }

    // Half of packet 0 has passed; the other half and the rest pass ten times as fast.
    let faster = LinkConfig { rate: rate(10_000), ..link.config().clone() };
    link.set_config(ms(50), faster);
    assert_eq!(link.poll_timeout(), Some(ms(55)));
    let mut arrivals = vec![(ms(55), link.poll(ms(55)).unwrap())];
    link.set_config(ms(60), LinkConfig { rate: None, ..link.config().clone() });
    arrivals.extend(run(&mut link));

    assert_eq!(times(&arrivals), [ms(55), ms(60), ms(60), ms(60)]);
    assert_eq!(numbers(&arrivals), [0, 1, 2, 3]);
}

#[test]
fn jitter_spreads_arrivals_over_its_whole_range_and_reorders() {
    let config = LinkConfig { delay: millis(50), jitter: millis(20), ..LinkConfig::default() };
    let mut link = Link::new(config, 5);

    for number in 0..20_000 {
        link.send(ms(0), packet(number, 4));
    }

    let arrivals = run(&mut link);
    let at: Vec<f64> = arrivals.iter().map(|(at, _)| at.as_micros() as f64 / 1000.0).collect();
    let mean = at.iter().sum::<f64>() / at.len() as f64;
    assert!((30.0..30.1).contains(&at[0]) && (69.9..=70.0).contains(at.last().unwrap()), "{at:?}");
    assert!((49.7..50.3).contains(&mean), "{mean}");
    assert!(!numbers(&arrivals).is_sorted());
}

#[test]
fn jitter_above_the_delay_never_delivers_before_the_packet_was_sent() {
    let config = LinkConfig { delay: millis(1), jitter: millis(20), ..LinkConfig::default() };
    let mut link = Link::new(config, 5);

    (0..1000).for_each(|number| link.send(ms(100), packet(number, 4)));

    assert!(run(&mut link).iter().all(|(at, _)| *at >= ms(100)));
}

#[test]
fn in_order_jitter_spreads_arrivals_over_its_range_but_none_overtakes() {
    let config = LinkConfig {
        delay: millis(50),
        jitter: millis(20),
        in_order: true,
        ..LinkConfig::default()
    };
    let mut link = Link::new(config, 5);

    // Ten packets each millisecond, for 20 s: dense enough to overtake, were the delay not kept
    // in order.
    (0..200_000).for_each(|number| link.send(ms(number / 10), packet(number, 4)));

    let arrivals = run(&mut link);
    assert!(numbers(&arrivals).is_sorted());
    let delays: Vec<f64> = arrivals
        .iter()
        .map(|(at, packet)| at.as_micros() as f64 / 1000.0 - (number_of(packet) / 10) as f64)
        .collect();
    let mean = delays.iter().sum::<f64>() / delays.len() as f64;
    let share = |range: std::ops::Range<f64>| {
        delays.iter().filter(|delay| range.contains(delay)).count() as f64 / delays.len() as f64
    };
    assert!(delays.iter().all(|delay| (30.0..=70.0).contains(delay)));
    // 250 levels: σ of the mean is about 0.6 ms.
    assert!((47.0..53.0).contains(&mean), "{mean}");
    assert!(share(30.0..40.0) > 0.1 && share(60.0..70.0) > 0.1);
}

#[test]
fn a_reordered_packet_is_overtaken_even_where_jitter_keeps_the_order() {
    let config = LinkConfig {
        reorder: 0.2,
        reorder_delay: millis(5),
        in_order: true,
        ..LinkConfig::default()
    };
    let mut link = Link::new(config, 5);

    (0..10_000).for_each(|number| link.send(ms(number), packet(number, 4)));

    let arrivals = run(&mut link);
    let late = arrivals.iter().filter(|(at, packet)| *at == ms(number_of(packet) + 5)).count();
    let prompt = arrivals.iter().filter(|(at, packet)| *at == ms(number_of(packet))).count();
    assert_eq!(late + prompt, 10_000);
    // σ = 40.
    assert!((1_800..2_200).contains(&late), "{late}");
    assert_eq!(link.counters().reordered, late as u64);
}

#[test]
fn duplication_makes_the_configured_number_of_copies() {
    let config = LinkConfig { duplicate: 0.5, copies: 7, ..LinkConfig::default() };
    let mut link = Link::new(config, 5);

    (0..10_000).for_each(|number| link.send(ms(0), packet(number, 4)));

    let mut copies = [0_u32; 10_000];
    run(&mut link).iter().for_each(|(_, packet)| copies[number_of(packet) as usize] += 1);
    assert!(copies.iter().all(|&n| n == 1 || n == 8));
    let eight = copies.iter().filter(|&&n| n == 8).count();
    // σ = 50.
    assert!((4_750..5_250).contains(&eight), "{eight}");
    assert_eq!(link.counters().duplicated, 7 * eight as u64);
}

#[test]
fn corruption_flips_exactly_one_bit_and_any_bit() {
    let mut link = Link::new(LinkConfig { corrupt: 1.0, ..LinkConfig::default() }, 9);
    let mut flipped = [false; 64];

    for _ in 0..2_000 {
        link.send(ms(0), vec![0_u8; 8]);
        let arrived = link.poll(ms(0)).unwrap();
        let bits = u64::from_le_bytes(arrived.try_into().unwrap());
        assert_eq!(bits.count_ones(), 1);
        flipped[bits.trailing_zeros() as usize] = true;
    }
    link.send(ms(0), Vec::new());

    assert!(flipped.iter().all(|&bit| bit));
    assert_eq!(link.poll(ms(0)), Some(Vec::new()), "an empty packet has no bit to flip");
    assert_eq!(link.counters().corrupted, 2_000);
}

#[test]
fn copies_of_one_packet_are_corrupted_independently() {
    let config = LinkConfig { corrupt: 0.5, duplicate: 1.0, ..LinkConfig::default() };
    let mut link = Link::new(config, 9);
    let mut one_of_two = 0;

    for _ in 0..1_000 {
        link.send(ms(0), vec![0_u8; 8]);
        let damaged = drain(&mut link, ms(0)).iter().filter(|(_, p)| p != &[0; 8]).count();
        one_of_two += u32::from(damaged == 1);
    }

    // σ = 16.
    assert!((400..600).contains(&one_of_two), "{one_of_two}");
}

#[test]
fn a_packet_of_exactly_the_mtu_passes_and_one_byte_more_does_not() {
    let mut link = Link::new(LinkConfig { mtu: Some(1200), ..LinkConfig::default() }, 1);

    link.send(ms(0), packet(0, 1200));
    link.send(ms(0), packet(1, 1201));

    assert_eq!(numbers(&run(&mut link)), [0]);
    assert_eq!(link.counters().too_large, 1);
}

#[test]
fn a_blackout_loses_what_is_sent_during_it_and_nothing_else() {
    let up = LinkConfig { delay: millis(20), ..LinkConfig::default() };
    let mut link = Link::new(up.clone(), 1);

    link.send(ms(0), packet(0, 4));
    link.set_config(ms(10), LinkConfig { down: true, ..up.clone() });
    link.send(ms(15), packet(1, 4));
    link.set_config(ms(30), up);
    link.send(ms(30), packet(2, 4));

    let arrivals = run(&mut link);
    assert_eq!(numbers(&arrivals), [0, 2]);
    assert_eq!(times(&arrivals), [ms(20), ms(50)]);
    assert_eq!(link.counters().lost_down, 1);
}

#[test]
fn turning_one_impairment_on_does_not_change_the_decisions_of_another() {
    let base = LinkConfig { loss: 0.2, ..LinkConfig::default() };
    let more = LinkConfig {
        jitter: millis(3),
        delay: millis(5),
        reorder: 0.1,
        corrupt: 0.1,
        ..base.clone()
    };
    let lossier = LinkConfig { loss: 0.4, ..base.clone() };

    let mut with_more = Link::new(more, 42);
    (0..5_000).for_each(|number| with_more.send(ms(0), packet(number, 4)));
    run(&mut with_more);

    let arrived = survivors(base, 42, 5_000);
    assert_eq!(with_more.counters().delivered, arrived.len() as u64);
    // More loss loses more packets, and the same ones first.
    let fewer = survivors(lossier, 42, 5_000);
    assert!(fewer.iter().all(|number| arrived.binary_search(number).is_ok()));
    assert!(fewer.len() < arrived.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The same seed and inputs give the same packets at the same times, whether the caller polls
    /// at every opportunity or never looks until the end.
    #[test]
    fn a_run_repeats_exactly_however_often_it_is_polled(
        seed in any::<u64>(),
        config in configs(),
        script in proptest::collection::vec(steps(), 1..80),
    ) {
        let eager = replay(&config, seed, &script, true);
        let lazy = replay(&config, seed, &script, false);

        prop_assert_eq!(&eager, &replay(&config, seed, &script, true));
        prop_assert_eq!(eager, lazy);
    }

    /// No packet appears from nowhere or disappears unaccounted, at any point in time.
    #[test]
    fn every_packet_is_accounted_for(
        seed in any::<u64>(),
        config in configs(),
        script in proptest::collection::vec(steps(), 1..80),
    ) {
        let mut link = Link::new(config, seed);
        let mut now = ms(0);
        for step in script {
            step.apply(&mut link, &mut now);
            while link.poll(now).is_some() {}
            let counters = link.counters();
            prop_assert_eq!(
                counters.sent + counters.duplicated,
                counters.delivered + counters.lost() + link.held_packets() as u64
            );
        }
        run(&mut link);
        prop_assert_eq!((link.held_packets(), link.held_bytes()), (0, 0));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Send(usize),
    Rate(Option<NonZeroU64>),
    Down(bool),
}

impl Step {
    fn apply(&self, link: &mut Link<Vec<u8>>, now: &mut Time) {
        match *self {
            Step::Wait(us) => *now = *now + Duration::from_micros(us),
            Step::Send(len) => link.send(*now, vec![0xaa; len]),
            Step::Rate(rate) => link.set_config(*now, LinkConfig { rate, ..link.config().clone() }),
            Step::Down(down) => link.set_config(*now, LinkConfig { down, ..link.config().clone() }),
        }
    }
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..20_000_u64).prop_map(Step::Wait),
        6 => (0..1500_usize).prop_map(Step::Send),
        1 => prop::option::of(1..1_000_000_u64)
            .prop_map(|rate| Step::Rate(rate.and_then(NonZeroU64::new))),
        1 => any::<bool>().prop_map(Step::Down),
    ]
}

prop_compose! {
    fn configs()(
        loss in 0.0..0.5_f64,
        bursts in any::<bool>(),
        delay in 0..30_u64,
        jitter in 0..30_u64,
        in_order in any::<bool>(),
        others in 0.0..0.5_f64,
        limited in prop::option::of(1_000..1_000_000_u64),
        mtu in prop::option::of(1_000..1_500_usize),
    ) -> LinkConfig {
        LinkConfig {
            loss,
            burst: bursts.then(|| Burst::gaps(0.1, 0.3)),
            delay: millis(delay),
            jitter: millis(jitter),
            in_order,
            reorder: others,
            duplicate: others,
            copies: 2,
            corrupt: others,
            rate: limited.and_then(NonZeroU64::new),
            buffer: 8_000,
            mtu,
            ..LinkConfig::default()
        }
    }
}

/// Arrivals of a whole run. An eager caller polls exactly at each `poll_timeout`; a lazy one looks
/// once at the end, and so sees the order only.
fn replay(config: &LinkConfig, seed: u64, script: &[Step], eager: bool) -> Vec<Vec<u8>> {
    let mut link = Link::new(config.clone(), seed);
    let mut now = ms(0);
    let mut arrived = Vec::new();
    for step in script {
        let before = now;
        step.apply(&mut link, &mut now);
        while eager && let Some(at) = link.poll_timeout().filter(|&at| at <= now) {
            arrived.extend(link.poll(at.max(before)));
        }
    }
    arrived.extend(run(&mut link).into_iter().map(|(_, packet)| packet));
    arrived
}

/// Advances exactly from timeout to timeout until the link is empty.
fn run(link: &mut Link<Vec<u8>>) -> Vec<(Time, Vec<u8>)> {
    let mut arrivals = Vec::new();
    let mut last = None;
    while let Some(now) = link.poll_timeout() {
        assert!(last < Some(now), "a link polled at {last:?} asked to be polled at {now:?} again");
        arrivals.extend(drain(link, now));
        last = Some(now);
    }
    arrivals
}

fn drain(link: &mut Link<Vec<u8>>, now: Time) -> Vec<(Time, Vec<u8>)> {
    std::iter::from_fn(|| link.poll(now).map(|packet| (now, packet))).collect()
}

/// The numbers of those of `count` packets, sent 1 ms apart, that arrive.
fn survivors(config: LinkConfig, seed: u64, count: u64) -> Vec<u64> {
    let mut link = Link::new(config, seed);
    let mut arrived = Vec::new();
    for number in 0..count {
        link.send(ms(number), packet(number, 8));
        arrived.extend(drain(&mut link, ms(number)));
    }
    arrived.extend(run(&mut link));
    let mut numbers = numbers(&arrived);
    numbers.sort_unstable();
    numbers
}

fn packet(number: u64, len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    packet[..4].copy_from_slice(&u32::try_from(number).unwrap().to_le_bytes());
    packet
}

fn number_of(packet: &[u8]) -> u64 {
    u64::from(u32::from_le_bytes(packet[..4].try_into().unwrap()))
}

fn numbers(arrivals: &[(Time, Vec<u8>)]) -> Vec<u64> {
    arrivals.iter().map(|(_, packet)| number_of(packet)).collect()
}

fn times(arrivals: &[(Time, Vec<u8>)]) -> Vec<Time> {
    arrivals.iter().map(|(at, _)| *at).collect()
}

fn ms(ms: u64) -> Time {
    Time::from_micros(ms * 1000)
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn rate(bytes_per_s: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(bytes_per_s)
}
