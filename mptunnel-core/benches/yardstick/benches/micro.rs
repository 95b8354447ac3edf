// SPDX-License-Identifier: BSD-2-Clause
//! The small parts of the data path, each beside the least that could do its work: `ours` and
//! `floor` of one group. `make bench` puts them into one table.

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use mptunnel_bench::hot::{Hot, Room};
use mptunnel_bench::seal::{Cipher, Key, Window};
use mptunnel_core::legacy::Keystream;
use mptunnel_core::proto::budget::MemoryBudget;
use mptunnel_core::proto::crypto::{self, AeadKey, Backend, SealingKey, Soft};
use mptunnel_core::proto::replay::ReplayWindow;
use mptunnel_core::proto::time::Time;
use mptunnel_core::proto::wire::{HEADER_LEN, Header, Kind};
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use std::hint::black_box;
use std::sync::Arc;

const SIZES: [usize; 3] = [64, 512, 1400];
const KEY: [u8; 32] = [7; 32];
const TAG: usize = 16;
const HEAD: [u8; HEADER_LEN] = [9; HEADER_LEN];

/// A cipher without anything of ours around it.
trait Raw {
    fn seal(&self, number: u64, packet: &mut [u8]);
    fn open(&self, number: u64, packet: &mut [u8]);
}

fn nonce(number: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&number.to_le_bytes());
    bytes
}

struct RawRing(LessSafeKey);

impl Raw for RawRing {
    fn seal(&self, number: u64, packet: &mut [u8]) {
        let (body, tag) = packet.split_last_chunk_mut::<TAG>().expect("there is room");
        let nonce = Nonce::assume_unique_for_key(nonce(number));
        let made = self.0.seal_in_place_separate_tag(nonce, Aad::from(&HEAD), body);
        tag.copy_from_slice(made.expect("it is short").as_ref());
    }

    fn open(&self, number: u64, packet: &mut [u8]) {
        let nonce = Nonce::assume_unique_for_key(nonce(number));
        self.0.open_in_place(nonce, Aad::from(&HEAD), packet).expect("it is genuine");
    }
}

impl Raw for ChaCha20Poly1305 {
    fn seal(&self, number: u64, packet: &mut [u8]) {
        let (body, tag) = packet.split_last_chunk_mut::<TAG>().expect("there is room");
        let made = self.encrypt_in_place_detached(&nonce(number).into(), &HEAD, body);
        tag.copy_from_slice(&made.expect("it is short"));
    }

    fn open(&self, number: u64, packet: &mut [u8]) {
        let (body, tag) = packet.split_last_chunk_mut::<TAG>().expect("there is a tag");
        let opened =
            self.decrypt_in_place_detached(&nonce(number).into(), &HEAD, body, (&*tag).into());
        opened.expect("it is genuine");
    }
}

/// `name` in a group of its own, so that the results stand side by side.
fn group<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    criterion.benchmark_group(name)
}

fn seal_and_open<B: Backend>(
    criterion: &mut Criterion,
    name: &str,
    key: &SealingKey<B>,
    raw: &impl Raw,
) {
    for size in SIZES {
        let mut packet = vec![0; size + TAG];
        let mut number = 0;
        let mut seal = group(criterion, &format!("seal, {name}, {size} B"));
        seal.bench_function("ours", |b| {
            b.iter(|| {
                number += 1;
                let (body, tag) = packet.split_last_chunk_mut::<TAG>().expect("there is room");
                *tag = key.seal_in_place(number, &HEAD, body).expect("it is short");
            });
        });
        seal.bench_function("floor", |b| {
            b.iter(|| {
                number += 1;
                raw.seal(number, &mut packet);
            });
        });
        seal.finish();

        // Opening destroys the packet: both copy it first.
        raw.seal(1, &mut packet);
        let mut copy = packet.clone();
        let mut open = group(criterion, &format!("copy and open in place, {name}, {size} B"));
        open.bench_function("ours", |b| {
            b.iter(|| {
                copy.copy_from_slice(&packet);
                key.open_in_place(black_box(1), &HEAD, &mut copy).expect("it is genuine");
            });
        });
        open.bench_function("floor", |b| {
            b.iter(|| {
                copy.copy_from_slice(&packet);
                raw.open(black_box(1), &mut copy);
            });
        });
        open.finish();
    }
}

fn ciphers(criterion: &mut Criterion) {
    for (name, algorithm, cipher) in [
        ("ChaCha20, ring", &CHACHA20_POLY1305, crypto::Cipher::ChaCha20Poly1305),
        ("AES-256, ring", &AES_256_GCM, crypto::Cipher::Aes256Gcm),
    ] {
        let raw = UnboundKey::new(algorithm, &KEY).expect("it has 32 bytes");
        seal_and_open(criterion, name, &AeadKey::of(cipher, &KEY), &RawRing(LessSafeKey::new(raw)));
    }
    let raw = ChaCha20Poly1305::new(&KEY.into());
    seal_and_open(criterion, "ChaCha20, portable", &SealingKey::<Soft>::new(&KEY), &raw);
}

fn window(criterion: &mut Criterion) {
    let budget = Arc::new(MemoryBudget::new(MemoryBudget::DEFAULT));
    let mut ours = ReplayWindow::new(18, 18, budget);
    let (mut floor, mut number) = (Window::default(), 0);
    let mut group = group(criterion, "window: look up and mark");
    group.bench_function("ours", |b| {
        b.iter(|| {
            number += 1;
            let known = ours.check(black_box(number));
            (known, ours.accept(Time::from_micros(number), number))
        });
    });
    group.bench_function("floor", |b| {
        b.iter(|| {
            number += 1;
            let known = floor.is_new(black_box(number));
            floor.mark(number);
            known
        });
    });
    group.finish();
}

fn header(criterion: &mut Criterion) {
    let header = Header { kind: Kind::Data, index: 7, pn: 9 };
    let mut datagram = [0; 64];
    let mut group = group(criterion, "header: write and read");
    group.bench_function("ours", |b| {
        b.iter(|| {
            datagram[..HEADER_LEN].copy_from_slice(&black_box(header).encode());
            let kind = Kind::of(black_box(&datagram));
            kind.ok().and_then(|kind| Header::decode(kind, &datagram))
        });
    });
    group.bench_function("floor", |b| {
        let bytes = header.encode();
        b.iter(|| {
            datagram[..HEADER_LEN].copy_from_slice(black_box(&bytes));
            *black_box(&datagram).first_chunk::<HEADER_LEN>().expect("it is longer")
        });
    });
    group.finish();
}

/// From the payload to the packet and back, and what a copy costs. The floor copies the payload,
/// seals it, looks the number up, opens and marks; its copies are only looked up.
fn whole(criterion: &mut Criterion) {
    let (mut hot, mut room) = (Hot::over(3), Room::default());
    let (key, mut seen, mut number) = (Key::new(Cipher::Chacha20), Window::default(), 0);
    for size in SIZES {
        let payload = vec![7; size];
        let mut packet = vec![0; key.packet_len(size)];
        let mut group = group(criterion, &format!("whole, {size} B"));
        group.bench_function("ours", |b| {
            b.iter(|| {
                hot.send(black_box(&payload), &mut room);
                hot.receive(&mut room.packet)
            });
        });
        group.bench_function("floor", |b| {
            b.iter(|| {
                number += 1;
                key.seal(number, black_box(&payload), &mut packet);
                key.open(&mut seen, &mut packet).expect("it is genuine").len()
            });
        });
        group.finish();
    }
    let payload = [7; 1400];
    hot.send(&payload, &mut room);
    let mut copy = room.packet.clone();
    hot.receive(&mut room.packet);
    let mut packet = vec![0; key.packet_len(1400)];
    number += 1;
    key.seal(number, &payload, &mut packet);
    key.open(&mut seen, &mut packet.clone());
    let mut group = group(criterion, "whole, a copy is dropped");
    group.bench_function("ours", |b| b.iter(|| hot.receive_copy(black_box(&mut copy))));
    group.bench_function("floor", |b| {
        b.iter(|| assert!(key.open(&mut seen, black_box(&mut packet)).is_none()));
    });
    group.finish();
}

/// The obfuscation of the classic mptunnel: by tables, and as `floor` shift by shift, as the classic
/// programs have it. Here the floor is the slower one.
fn keystream(criterion: &mut Criterion) {
    for size in SIZES {
        let mut packet = vec![0; size];
        let mut group = group(criterion, &format!("classic keystream, floor bit by bit, {size} B"));
        group.bench_function("ours", |b| {
            b.iter(|| Keystream::new(black_box(0x6b8b_4567)).apply(&mut packet));
        });
        group.bench_function("floor", |b| {
            b.iter(|| Keystream::new(black_box(0x6b8b_4567)).apply_bit_by_bit(&mut packet));
        });
        group.finish();
    }
}

criterion_group!(micro, ciphers, window, header, whole, keystream);
criterion_main!(micro);
