// SPDX-License-Identifier: BSD-2-Clause
use super::*;
use std::sync::atomic::AtomicUsize;

const NOW: Time = Time::from_micros(1_000_000);

/// One end; the other is made with the keys swapped.
pub(crate) fn end(tx: u8, rx: u8, clear: bool) -> Session {
    let key = |n: u8| AeadKey::new(&[n; 32]);
    Session::new(SessionSetup {
        local_index: u32::from(rx),
        remote_index: u32::from(tx),
        born: NOW,
        cipher: Cipher::ChaCha20Poly1305,
        tx: key(tx),
        rx: key(rx),
        clear: clear.then(|| (key(tx + 100), key(rx + 100))),
        guard_tx: Secret::new([tx; 32]),
        guard_rx: Secret::new([rx; 32]),
        token: [0; 16],
        max_payload: 65_507,
        window: ReplayWindow::new(12, 18, Arc::new(MemoryBudget::new(1 << 20))),
        reassembly_memory: 1 << 20,
        reassembly_shared: Arc::new(MemoryBudget::new(1 << 20)),
        route_seed: 1,
        confirmed: true,
        marks: false,
    })
}

fn data(from: &Session, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; payload.len() + 36];
    let pn = from.reserve().unwrap();
    from.seal_data(pn, 7, 0, &[], payload, &mut packet).unwrap();
    packet
}

fn open(at: &Session, now: Time, packet: &mut [u8]) -> Result<Vec<u8>, DropReason> {
    let kind = Kind::of(packet)?;
    let header = Header::decode(kind, packet).unwrap();
    match at.open(now, &header, packet)? {
        Inner::Data { flow: 7, kind: 0, mark: 0, body } => Ok(body.to_vec()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_copies_opened_by_several_threads_at_once_exactly_one_is_accepted() {
    let (client, server) = (end(1, 2, false), end(2, 1, false));
    let packets: Vec<Vec<u8>> = (0..4_000u32).map(|n| data(&client, &n.to_le_bytes())).collect();
    let accepted: Vec<AtomicUsize> = packets.iter().map(|_| AtomicUsize::new(0)).collect();

    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (packet, count) in packets.iter().zip(&accepted) {
                    if open(&server, NOW, &mut packet.clone()).is_ok() {
                        count.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });

    assert!(accepted.iter().all(|count| count.load(Relaxed) == 1));
}

#[test]
fn a_forged_packet_that_comes_first_does_not_hurt_the_genuine_one() {
    let (client, server) = (end(1, 2, false), end(2, 1, false));
    let genuine = data(&client, b"genuine");
    let mut forged = genuine.clone();
    forged[25] ^= 1;

    assert_eq!(open(&server, NOW, &mut forged), Err(DropReason::AuthFailed));
    assert_eq!(open(&server, NOW, &mut genuine.clone()).unwrap(), b"genuine");
    assert_eq!(open(&server, NOW, &mut genuine.clone()), Err(DropReason::Duplicate));
}

#[test]
fn a_clear_session_carries_readable_but_unforgeable_datagrams() {
    let (client, server) = (end(1, 2, true), end(2, 1, true));
    let mut packet = data(&client, b"readable");

    assert!(packet.windows(8).any(|w| w == b"readable"));
    let mut forged = packet.clone();
    forged[20] ^= 1;
    assert_eq!(open(&server, NOW, &mut forged), Err(DropReason::AuthFailed));
    assert_eq!(open(&server, NOW, &mut packet).unwrap(), b"readable");
}

#[test]
fn a_packet_of_the_other_mode_is_refused_before_it_is_opened() {
    for clear in [false, true] {
        let (client, server) = (end(1, 2, clear), end(2, 1, !clear));
        let refused = open(&server, NOW, &mut data(&client, b"x"));
        assert_eq!(refused, Err(DropReason::WrongMode));
    }
}

#[test]
fn a_key_opens_and_seals_until_180_s_and_no_longer() {
    let (client, server) = (end(1, 2, false), end(2, 1, false));
    let last = NOW + REJECT_AFTER.saturating_sub(Duration::from_micros(1));

    assert!(open(&server, last, &mut data(&client, b"x")).is_ok());
    assert!(client.seal_ctrl(last, vec![0; 64]).is_ok());
    let late = open(&server, NOW + REJECT_AFTER, &mut data(&client, b"x"));
    assert_eq!(late, Err(DropReason::KeyExpired));
    assert_eq!(
        client.seal_ctrl(NOW + REJECT_AFTER, vec![0; 64]).unwrap_err(),
        SealError::Exhausted
    );
}

#[test]
fn a_mark_travels_in_the_head_and_needs_no_room() {
    let (client, server) = (end(1, 2, false), end(2, 1, false));
    for (kind, mark) in [(0, 0), (1, 0), (9, 0), (0, 1), (1, 255), (1, 256), (0, MARKS)] {
        let head = DataHead { flow: 0xa5fe, kind, mark };
        let mut packet = vec![0; 37];
        let pn = client.reserve().unwrap();
        client.seal_with_head(pn, head, &[], b"x", &mut packet).unwrap();
        let header = Header::decode(Kind::Data, &packet).unwrap();

        let opened = server.open(NOW, &header, &mut packet).unwrap();

        assert_eq!(opened, Inner::Data { flow: 0xa5fe, kind, mark, body: b"x" });
    }
}

#[test]
fn at_the_limit_no_number_is_taken_and_the_counter_stays() {
    let numbers = PacketNumbers::starting_at(PN_LIMIT - 2, Cipher::ChaCha20Poly1305);
    assert_eq!(numbers.take(), Some(PN_LIMIT - 2));
    assert_eq!(numbers.take(), Some(PN_LIMIT - 1));
    for _ in 0..1 << 23 {
        assert_eq!(numbers.take(), None);
    }
    assert_eq!(numbers.next(), PN_LIMIT);
}

#[cfg(feature = "ring")]
#[test]
fn keys_of_aes_end_at_their_limit_in_which_large_packets_count_several_times() {
    let limit = Cipher::Aes256Gcm.limit();
    let numbers = PacketNumbers::starting_at(limit - 40, Cipher::Aes256Gcm);
    // A unit holds the tag as well.
    for (len, units) in [(0, 1), (2_032, 1), (2_033, 2), (4_080, 2), (4_081, 3), (65_475, 32)] {
        let before = numbers.used();
        assert!(numbers.take().is_some());
        numbers.charge(len);
        assert_eq!(numbers.used() - before, units, "{len}");
    }
    // 41 of 40: the last one was large.
    assert_eq!((numbers.take(), numbers.used()), (None, limit + 1));
    assert_eq!(numbers.next(), limit - 34);

    let numbers = PacketNumbers::starting_at(0, Cipher::ChaCha20Poly1305);
    numbers.take();
    numbers.charge(65_475);
    assert_eq!(numbers.used(), 1);
}

#[test]
fn room_of_another_size_than_the_packet_is_refused() {
    let client = end(1, 2, false);
    for len in [0, 15, 31, 35, 36, 38] {
        let mut room = vec![0; len];
        assert_eq!(
            client.seal_data(0, 0, 0, &[], b"x", &mut room),
            Err(SealError::BadRoom),
            "{len}"
        );
    }
}
