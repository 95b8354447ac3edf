// SPDX-License-Identifier: BSD-2-Clause
use super::*;

/// Counts upwards, so that every draw differs and every run is the same.
struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
    }
}

const HEAD: [u8; 16] = [1; 16];

fn psk(byte: u8) -> Psk {
    Psk::new([byte; 32]).unwrap()
}

fn secret(byte: u8) -> StaticSecret {
    StaticSecret::new([byte; 32]).unwrap()
}

fn start_psk() -> (Initiator, Vec<u8>) {
    Initiator::start(InitiatorKeys::Psk(&psk(5)), &HEAD, &[7; 64], &mut Counting(0)).unwrap()
}

fn start_key(psk: Option<&Psk>) -> (Initiator, Vec<u8>) {
    let (own, server) = (secret(5), secret(6).public());
    let keys = InitiatorKeys::Static { own: &own, server: &server, psk };
    Initiator::start(keys, &HEAD, &[7; 64], &mut Counting(0)).unwrap()
}

fn answer_psk(init: &[u8]) -> Result<Responder, NoiseError> {
    Responder::read(ResponderKeys::Psk(&psk(5)), &HEAD, init, &mut Counting(100))
}

fn answer_key(init: &[u8]) -> Result<Responder, NoiseError> {
    Responder::read(ResponderKeys::Static(&secret(6)), &HEAD, init, &mut Counting(100))
}

fn assert_same_keys(a: &SplitKeys, b: &SplitKeys) {
    assert_eq!(a.c2s.expose(), b.c2s.expose());
    assert_eq!(a.s2c.expose(), b.s2c.expose());
    assert_ne!(a.c2s.expose(), a.s2c.expose());
}

#[test]
fn psk_mode_agrees_on_keys_in_one_round_trip() {
    let (mut client, init) = start_psk();
    let server = answer_psk(&init).unwrap();
    assert_eq!((server.payload(), server.client(), init.len()), (&[7; 64], None, 112));

    let (server_keys, resp) = server.reply(None, &[8; 48]).unwrap();
    let (client_keys, payload) = client.finish(&resp).unwrap();

    assert_eq!((resp.len(), payload), (96, [8; 48]));
    assert_same_keys(&client_keys, &server_keys);
}

#[test]
fn key_mode_agrees_on_keys_and_tells_the_server_who_the_client_is() {
    for psk in [None, Some(&psk(9))] {
        let (mut client, init) = start_key(psk);
        let server = answer_key(&init).unwrap();
        assert_eq!((server.payload(), init.len()), (&[7; 64], 160));
        assert_eq!(server.client(), Some(secret(5).public()));

        let (server_keys, resp) = server.reply(psk, &[8; 48]).unwrap();
        let (client_keys, payload) = client.finish(&resp).unwrap();

        assert_eq!((resp.len(), payload), (96, [8; 48]));
        assert_same_keys(&client_keys, &server_keys);
    }
}

#[test]
fn two_forged_answers_do_not_spoil_the_attempt_for_the_genuine_one() {
    for (mut client, init, answer) in [
        (start_psk().0, start_psk().1, answer_psk as fn(&[u8]) -> Result<Responder, NoiseError>),
        (start_key(None).0, start_key(None).1, answer_key),
    ] {
        let (server_keys, resp) = answer(&init).unwrap().reply(None, &[8; 48]).unwrap();
        let mut wrong_tag = resp.clone();
        *wrong_tag.last_mut().unwrap() ^= 1;
        let mut wrong_ephemeral = resp.clone();
        wrong_ephemeral[..32].copy_from_slice(secret(77).public().as_bytes());

        assert_eq!(client.finish(&wrong_tag).err(), Some(NoiseError::Forged));
        assert_eq!(client.finish(&wrong_ephemeral).err(), Some(NoiseError::Forged));
        let (client_keys, _) = client.finish(&resp).unwrap();

        assert_same_keys(&client_keys, &server_keys);
    }
}

#[test]
fn an_attempt_finishes_once() {
    let (mut client, init) = start_psk();
    let (_, resp) = answer_psk(&init).unwrap().reply(None, &[8; 48]).unwrap();
    client.finish(&resp).unwrap();

    assert_eq!(client.finish(&resp).err(), Some(NoiseError::State));
}

#[test]
fn every_flipped_bit_of_an_init_is_refused() {
    for (init, answer) in [
        (start_psk().1, answer_psk as fn(&[u8]) -> Result<Responder, NoiseError>),
        (start_key(None).1, answer_key),
    ] {
        for bit in 0..init.len() * 8 {
            let mut altered = init.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            // X25519 ignores the top bit of a public key, the transcript does not.
            assert_eq!(answer(&altered).err(), Some(NoiseError::Forged), "bit {bit}");
        }
    }
}

#[test]
fn every_flipped_bit_of_an_answer_is_refused() {
    for (mut client, init, answer) in [
        (start_psk().0, start_psk().1, answer_psk as fn(&[u8]) -> Result<Responder, NoiseError>),
        (start_key(None).0, start_key(None).1, answer_key),
    ] {
        let (_, resp) = answer(&init).unwrap().reply(None, &[8; 48]).unwrap();
        for bit in 0..resp.len() * 8 {
            let mut altered = resp.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(client.finish(&altered).err(), Some(NoiseError::Forged), "bit {bit}");
        }
        assert!(client.finish(&resp).is_ok());
    }
}

#[test]
fn a_message_of_any_other_length_is_refused() {
    let (mut client, init) = start_psk();
    let (_, resp) = answer_psk(&init).unwrap().reply(None, &[8; 48]).unwrap();
    let padded = |message: &[u8], len: usize| {
        let mut message = message.to_vec();
        message.resize(len, 0);
        message
    };

    for len in (0..256).filter(|len| *len != 112) {
        assert_eq!(answer_psk(&padded(&init, len)).err(), Some(NoiseError::Length));
    }
    for len in (0..256).filter(|len| *len != 160) {
        assert_eq!(answer_key(&padded(&start_key(None).1, len)).err(), Some(NoiseError::Length));
    }
    for len in (0..256).filter(|len| *len != 96) {
        assert_eq!(client.finish(&padded(&resp, len)).err(), Some(NoiseError::Length));
    }
}

#[test]
fn a_low_order_ephemeral_is_refused_in_both_messages() {
    let (mut client, init) = start_psk();
    let (_, resp) = answer_psk(&init).unwrap().reply(None, &[8; 48]).unwrap();

    for point in LOW_ORDER {
        let (mut init, mut resp) = (init.clone(), resp.clone());
        init[..32].copy_from_slice(&point);
        resp[..32].copy_from_slice(&point);
        assert_eq!(answer_psk(&init).err(), Some(NoiseError::LowOrder));
        assert_eq!(client.finish(&resp).err(), Some(NoiseError::LowOrder));
    }
}

/// A client that claims a low-order static key. It needs no private key for that, since every
/// shared secret with it is zero.
struct LowOrderStatic;

impl Dh for LowOrderStatic {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, _: &[u8]) {}

    fn generate(&mut self, _: &mut dyn Random) -> Result<(), snow::Error> {
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &LOW_ORDER[2]
    }

    fn privkey(&self) -> &[u8] {
        &[0; 32]
    }

    fn dh(&self, _: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        out[..32].fill(0);
        Ok(())
    }
}

/// Gives out [`LowOrderStatic`] for the static key, which `snow` asks for first.
struct Evil(Cell<bool>);

impl CryptoResolver for Evil {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(Secret::new([1; 32])))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        if self.0.replace(true) {
            DefaultResolver.resolve_dh(choice)
        } else {
            Some(Box::new(LowOrderStatic))
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

#[test]
fn a_low_order_static_key_is_refused_although_its_message_verifies() {
    let mut client = Builder::with_resolver(IK_PSK2.parse().unwrap(), Box::new(Evil(false.into())))
        .prologue(&prologue(&HEAD))
        .unwrap()
        .local_private_key(&[1; 32])
        .unwrap()
        .remote_public_key(secret(6).public().as_bytes())
        .unwrap()
        .build_initiator()
        .unwrap();

    let init = write(&mut client, &[7; 64]).unwrap();

    assert_eq!(answer_key(&init).err(), Some(NoiseError::LowOrder));
}

#[test]
fn the_listed_points_and_no_others_near_them_give_a_zero_secret() {
    let dh = |public: &[u8; 32]| {
        let mut dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519).unwrap();
        dh.set(&[3; 32]);
        let mut shared = [0; 32];
        dh.dh(public, &mut shared).unwrap();
        shared
    };

    for point in LOW_ORDER {
        let mut top_bit_set = point;
        top_bit_set[31] |= 0x80;
        for encoding in [point, top_bit_set] {
            assert!(is_low_order(&encoding), "{encoding:02x?}");
            assert_eq!(dh(&encoding), [0; 32], "{encoding:02x?}");
        }
        let mut neighbour = point;
        neighbour[7] ^= 0x10;
        assert!(!is_low_order(&neighbour), "{neighbour:02x?}");
        assert_ne!(dh(&neighbour), [0; 32], "{neighbour:02x?}");
    }
}

#[test]
fn another_key_or_another_head_is_refused() {
    let (_, init) = start_psk();
    let read = |psk: &Psk, head: &[u8; 16]| {
        Responder::read(ResponderKeys::Psk(psk), head, &init, &mut Counting(0)).err()
    };

    assert_eq!(read(&psk(5), &HEAD), None);
    assert_eq!(read(&psk(6), &HEAD), Some(NoiseError::Forged));
    for byte in 0..16 {
        let mut head = HEAD;
        head[byte] ^= 1;
        assert_eq!(read(&psk(5), &head), Some(NoiseError::Forged), "byte {byte}");
    }
}

#[test]
fn in_key_mode_a_client_with_another_psk_refuses_the_answer() {
    let (mut client, init) = start_key(Some(&psk(9)));
    let answered_with =
        |psk: Option<&Psk>| answer_key(&init).unwrap().reply(psk, &[8; 48]).unwrap().1;

    assert_eq!(client.finish(&answered_with(None)).err(), Some(NoiseError::Forged));
    assert_eq!(client.finish(&answered_with(Some(&psk(10)))).err(), Some(NoiseError::Forged));
    assert!(client.finish(&answered_with(Some(&psk(9)))).is_ok());
}

#[test]
fn the_same_entropy_gives_the_same_bytes_and_other_entropy_gives_others() {
    let with_seed = |seed| {
        let keys = InitiatorKeys::Psk(&psk(5));
        Initiator::start(keys, &HEAD, &[7; 64], &mut Counting(seed)).map(|(_, init)| init).unwrap()
    };

    assert_eq!(with_seed(1), with_seed(1));
    assert_ne!(with_seed(1), with_seed(2));
}

#[test]
fn the_ephemeral_key_is_given_out_once() {
    let mut once = Once(Some(Secret::new([1; 32])));
    let mut out = [0; 32];

    assert!(once.try_fill_bytes(&mut out).is_ok());
    assert_eq!(out, [1; 32]);
    assert!(once.try_fill_bytes(&mut out).is_err());
}
