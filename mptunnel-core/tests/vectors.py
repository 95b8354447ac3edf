#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Makes every vector of mptunnel/1 a second time, from the inputs and the protocol alone.

Nothing of the Rust code takes part: Noise and HChaCha20 are written out here, the rest is Python
3.11 and the `cryptography` package (44 or newer, for Argon2id). The argument is a file with a block
of vectors, tests/data/vectors.txt or PROTOCOL.md:

    python3 vectors.py data/vectors.txt

It prints "all vectors agree" and exits with 0, or names those that do not and exits with 1.
"""

import hashlib
import hmac
import re
import struct
import sys

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

# Inputs, as the text beside the block states them.
PSK = bytes(range(32))
CLIENT_PSK = b"\x88" * 32
CLIENT_STATIC, SERVER_STATIC = b"\x66" * 32, b"\x77" * 32
CLIENT_EPHEMERAL, SERVER_EPHEMERAL = b"\x11" * 32, b"\x22" * 32
REFUSING_EPHEMERAL, REFUSING_CIPHER_EPHEMERAL = b"\x23" * 32, b"\x24" * 32
CLIENT_INDEX, SERVER_INDEX = struct.pack("<I", 0xA1A2A3A4), struct.pack("<I", 0xB1B2B3B4)
PEER_ID = b"\x33" * 16
CLIENT_BOOT_ID, SERVER_BOOT_ID = 0x0102030405060708, 0x1112131415161718
COOKIE_SECRET, COOKIE_NONCE = b"\x44" * 32, b"\x55" * 24
ADDRESS = bytes([10, 0, 0, 1]) + struct.pack(">H", 8080)
PASSPHRASE, TUNNEL_NAME = b"correct horse battery staple", b"home"

# Types.
INIT_PSK, INIT_KEY, RESP, COOKIE, NOSESSION, CTRL, DATA, DATA_CLEAR = range(1, 9)

# Features: AES-256-GCM offered or chosen, and nothing else accepted.
AES, ONLY_AES = 2, 6


# The primitives.


def h(*parts):
    return hashlib.blake2s(b"".join(parts)).digest()


def mac(key, message, size):
    return hashlib.blake2s(message, key=key, digest_size=size).digest()


def public(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private, peer):
    secret = X25519PrivateKey.from_private_bytes(private)
    return secret.exchange(X25519PublicKey.from_public_bytes(peer))


def nonce(number):
    return bytes(4) + struct.pack("<Q", number)


def seal(key, number, aad, plaintext, aead=ChaCha20Poly1305):
    return aead(key).encrypt(nonce(number), plaintext, aad)


def hchacha20(key, nonce16):
    """HChaCha20 (draft-irtf-cfrg-xchacha-03, section 2.2): ChaCha20 without the final addition."""
    state = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce16))

    def add_rotate(a, b, d, distance):
        state[a] = (state[a] + state[b]) & 0xFFFFFFFF
        word = state[d] ^ state[a]
        state[d] = (word << distance | word >> (32 - distance)) & 0xFFFFFFFF

    columns = [(i, i + 4, i + 8, i + 12) for i in range(4)]
    diagonals = [(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4) for i in range(4)]
    for a, b, c, d in 10 * (columns + diagonals):
        add_rotate(a, b, d, 16)
        add_rotate(c, d, b, 12)
        add_rotate(a, b, d, 8)
        add_rotate(c, d, b, 7)
    return struct.pack("<8I", *state[:4], *state[12:])


def xseal(key, nonce24, aad, plaintext):
    """XChaCha20-Poly1305."""
    subkey = hchacha20(key, nonce24[:16])
    return ChaCha20Poly1305(subkey).encrypt(bytes(4) + nonce24[16:], plaintext, aad)


class Noise:
    """The symmetric state of Noise (revision 34, section 5.2) with HKDF over HMAC-BLAKE2s."""

    def __init__(self, name, prologue):
        self.ck = self.h = h(name) if len(name) > 32 else name.ljust(32, b"\0")
        self.key, self.number = None, 0
        self.mix_hash(prologue)

    def hkdf(self, material, count):
        key = hmac.digest(self.ck, material, hashlib.blake2s)
        outputs, last = [], b""
        for i in range(1, count + 1):
            last = hmac.digest(key, last + bytes([i]), hashlib.blake2s)
            outputs.append(last)
        return outputs

    def mix_hash(self, data):
        self.h = h(self.h, data)

    def mix_key(self, material):
        self.ck, self.key = self.hkdf(material, 2)
        self.number = 0

    def mix_key_and_hash(self, material):
        self.ck, digest, self.key = self.hkdf(material, 3)
        self.number = 0
        self.mix_hash(digest)

    def ephemeral(self, private):
        """Token e: patterns with a psk mix the public key into the key as well."""
        self.mix_hash(public(private))
        self.mix_key(public(private))
        return public(private)

    def encrypt_and_hash(self, plaintext):
        ciphertext = seal(self.key, self.number, self.h, plaintext)
        self.number += 1
        self.mix_hash(ciphertext)
        return ciphertext

    def split(self):
        return self.hkdf(b"", 2)


# The messages.


def head(kind, index):
    return bytes([kind, 1, 0, 0]) + index


def init_payload(features):
    return (
        PEER_ID
        + struct.pack("<QIIH", CLIENT_BOOT_ID, 0, features, 1400)
        + bytes([2, 1, 18, 0, 0, 0])
        + struct.pack("<Q", 1_000_000)
        + bytes(16)
    )


def resp_payload(status, features, index, token):
    fields = struct.pack(
        "<BBHQQIHH", status, 18, 1400, SERVER_BOOT_ID, 1_000_000, features, 0, 0
    )
    return index + fields + token


def nn_psk0(prologue, features, server_ephemeral, payload):
    """Both messages and the keys of Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s."""
    noise = Noise(b"Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s", prologue)
    noise.mix_key_and_hash(PSK)
    first = noise.ephemeral(CLIENT_EPHEMERAL) + noise.encrypt_and_hash(init_payload(features))
    second = noise.ephemeral(server_ephemeral)
    noise.mix_key(dh(CLIENT_EPHEMERAL, public(server_ephemeral)))
    return first, second + noise.encrypt_and_hash(payload), noise.split()


def ik_psk2(prologue, features, psk, payload):
    """Both messages and the keys of Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s."""
    noise = Noise(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s", prologue)
    noise.mix_hash(public(SERVER_STATIC))
    first = noise.ephemeral(CLIENT_EPHEMERAL)
    noise.mix_key(dh(CLIENT_EPHEMERAL, public(SERVER_STATIC)))
    first += noise.encrypt_and_hash(public(CLIENT_STATIC))
    noise.mix_key(dh(CLIENT_STATIC, public(SERVER_STATIC)))
    first += noise.encrypt_and_hash(init_payload(features))
    # The server's side of the second message: its private keys, the client's public ones.
    second = noise.ephemeral(SERVER_EPHEMERAL)
    noise.mix_key(dh(SERVER_EPHEMERAL, public(CLIENT_EPHEMERAL)))
    noise.mix_key(dh(SERVER_EPHEMERAL, public(CLIENT_STATIC)))
    noise.mix_key_and_hash(psk)
    return first, second + noise.encrypt_and_hash(payload), noise.split()


def with_mac(message, key):
    return message + mac(key, message, 16)


def cookie_message(key, init, cookie):
    mac1 = init[-32:-16]
    return head(COOKIE, CLIENT_INDEX) + COOKIE_NONCE + xseal(key, COOKIE_NONCE, mac1, cookie)


def no_session(ctrl, token):
    return with_mac(head(NOSESSION, ctrl[4:8]) + ctrl[8:16] + ctrl[-24:-8], token)


def ping(t_tx):
    return struct.pack("<BBBBHIQQQ", 1, 32, 0, 0, 0, 1, t_tx, 0, 0)


def pong(t_tx):
    return struct.pack("<BBBBHIQIIQQ", 2, 40, 0, 0, 0, 1, t_tx, 250, 0, 0, 0)


class ChaCha20:
    """The keys of a session under ChaCha20-Poly1305: those of the handshake."""

    aead = ChaCha20Poly1305

    @staticmethod
    def packet_key(direction):
        return direction

    @staticmethod
    def clear_key(direction):
        return mac(direction, b"mpt1 clear", 32)


class Aes:
    """The keys of a session under AES-256-GCM."""

    aead = AESGCM

    @staticmethod
    def packet_key(direction):
        return mac(direction, b"mpt1 aes-256-gcm", 32)

    @staticmethod
    def clear_key(direction):
        return mac(direction, b"mpt1 aes-256-gcm clear", 32)


def packet(kind, index, number, cipher, direction, inner):
    header = head(kind, index) + struct.pack("<Q", number)
    return header + seal(cipher.packet_key(direction), number, header, inner, cipher.aead)


def ctrl_packet(index, cipher, direction, frames, mac1_key):
    sealed = packet(CTRL, index, 0, cipher, direction, frames.ljust(64, b"\0"))
    return sealed + mac(mac1_key, sealed, 8)


def clear_packet(index, cipher, direction, payload):
    message = head(DATA_CLEAR, index) + struct.pack("<Q", 2) + bytes(4) + payload
    return message + seal(cipher.clear_key(direction), 2, message, b"", cipher.aead)


# The vectors.


def add_split(made, suffix, cipher, keys):
    name = "" if cipher is ChaCha20 else "aes_"
    for way, direction in zip(("c2s", "s2c"), keys):
        made[f"k_{name}{way}{suffix}"] = cipher.packet_key(direction)
        made[f"k_{name}clear_{way}{suffix}"] = cipher.clear_key(direction)


def add_packets(made, mode, suffix, cipher, keys, towards_server, towards_client):
    """One packet of each kind and direction."""
    c2s, s2c = keys
    pong_ping = pong(1_050_000) + ping(7_000_000)

    def add(kind, way, data):
        made[kind + mode + way + suffix] = data

    add("CTRL", "", ctrl_packet(SERVER_INDEX, cipher, c2s, ping(1_050_000), towards_server))
    add("DATA", "", packet(DATA, SERVER_INDEX, 1, cipher, c2s, bytes(4) + b"hello"))
    add("DATA_CLEAR", "", clear_packet(SERVER_INDEX, cipher, c2s, b"hello"))
    add("CTRL", "_S2C", ctrl_packet(CLIENT_INDEX, cipher, s2c, pong_ping, towards_client))
    add("DATA", "_S2C", packet(DATA, CLIENT_INDEX, 1, cipher, s2c, bytes(4) + b"world"))
    add("DATA_CLEAR", "_S2C", clear_packet(CLIENT_INDEX, cipher, s2c, b"world"))


def psk_mode(made, cookie):
    made["key_id"] = key_id = h(b"mpt1 keyid", PSK)[:8]
    made["K_mac1"] = k_mac1 = h(b"mpt1 mac1", PSK)
    made["K_cookie"] = k_cookie = h(b"mpt1 cookie", PSK)
    made["K_reset"] = k_reset = h(b"mpt1 reset", PSK)
    made["token"] = token = mac(k_reset, SERVER_INDEX, 32)[:16]
    made["cookie"] = cookie
    made["init_payload"] = init_payload(0)
    made["resp_payload"] = resp_payload(0, 0, SERVER_INDEX, token)

    start = head(INIT_PSK, CLIENT_INDEX) + key_id
    prologue = b"mptunnel/1" + start

    def shake_hands(features, ephemeral, payload):
        """INIT with mac2 zero, RESP, and the session's keys."""
        first, second, keys = nn_psk0(prologue, features, ephemeral, payload)
        init = with_mac(start + first, k_mac1) + bytes(16)
        return init, with_mac(head(RESP, CLIENT_INDEX) + second, k_mac1), keys

    init, made["RESP"], keys = shake_hands(0, SERVER_EPHEMERAL, made["resp_payload"])
    made["INIT_PSK"] = init
    made["INIT_PSK_MAC2"] = with_mac(init[:-16], cookie)
    refusal = resp_payload(2, 0, bytes(4), bytes(16))
    _, made["RESP_REFUSED"], _ = shake_hands(0, REFUSING_EPHEMERAL, refusal)
    refusal = resp_payload(8, ONLY_AES, bytes(4), bytes(16))
    _, made["RESP_REFUSED_CIPHER"], _ = shake_hands(0, REFUSING_CIPHER_EPHEMERAL, refusal)
    made["COOKIE"] = cookie_message(k_cookie, init, cookie)
    add_split(made, "", ChaCha20, keys)
    add_packets(made, "", "", ChaCha20, keys, k_mac1, k_mac1)
    marked = struct.pack("<HBB", 0, 0x80 | 300 >> 8 << 1, 300 & 0xFF) + b"hello"
    made["DATA_MARKED"] = packet(DATA, SERVER_INDEX, 3, ChaCha20, keys[0], marked)
    made["NOSESSION"] = no_session(made["CTRL"], token)

    accepted = resp_payload(0, AES, SERVER_INDEX, token)
    made["INIT_PSK_AES"], made["RESP_AES"], keys = shake_hands(AES, SERVER_EPHEMERAL, accepted)
    add_split(made, "", Aes, keys)
    add_packets(made, "", "_AES", Aes, keys, k_mac1, k_mac1)


def key_mode(made, cookie):
    made["client_public"] = client = public(CLIENT_STATIC)
    made["server_public"] = server = public(SERVER_STATIC)
    made["key_id_key"] = key_id = h(b"mpt1 keyid", server)[:8]
    made["K_mac1_server"] = towards_server = h(b"mpt1 mac1", server)
    made["K_mac1_client"] = towards_client = h(b"mpt1 mac1", client)
    made["K_cookie_key"] = k_cookie = h(b"mpt1 cookie", server)
    made["K_reset_key"] = k_reset = h(b"mpt1 reset", SERVER_STATIC)
    made["token_key"] = token = mac(k_reset, SERVER_INDEX, 32)[:16]

    start = head(INIT_KEY, CLIENT_INDEX) + key_id
    for aes, features, cipher in (("", 0, ChaCha20), ("_AES", AES, Aes)):
        payload = resp_payload(0, features, SERVER_INDEX, token)
        for suffix, psk in (("_psk", CLIENT_PSK), ("", bytes(32))):
            first, second, keys = ik_psk2(b"mptunnel/1" + start, features, psk, payload)
            add_split(made, "_key" + suffix, cipher, keys)
            resp = with_mac(head(RESP, CLIENT_INDEX) + second, towards_client)
            made["RESP_KEY" + suffix.upper() + aes] = resp
            data = packet(DATA, SERVER_INDEX, 1, cipher, keys[0], bytes(4) + b"hello")
            made["DATA_KEY" + suffix.upper() + aes] = data
        made["INIT_KEY" + aes] = with_mac(start + first, towards_server) + bytes(16)
        add_packets(made, "_KEY", aes, cipher, keys, towards_server, towards_client)

    made["INIT_KEY_MAC2"] = with_mac(made["INIT_KEY"][:-16], cookie)
    made["COOKIE_KEY"] = cookie_message(k_cookie, made["INIT_KEY"], cookie)
    made["NOSESSION_KEY"] = no_session(made["CTRL_KEY"], token)


def make():
    made = {}
    cookie = mac(COOKIE_SECRET, ADDRESS, 16)
    psk_mode(made, cookie)
    key_mode(made, cookie)
    salt = h(b"mpt1 psk salt", TUNNEL_NAME)[:16]
    kdf = Argon2id(salt=salt, length=32, iterations=3, lanes=4, memory_cost=64 * 1024)
    made["psk_passphrase"] = kdf.derive(PASSPHRASE)
    return made


def load(path):
    """Reads the first block of vectors in the file: name to bytes."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    fence = "`" * 3
    vectors, lengths, name = {}, {}, None
    for line in text.split(fence + "vectors\n")[1].split(fence)[0].splitlines():
        if match := re.match(r"\[(\w+) (\d+)\]", line):
            name = match[1]
            if name in vectors:
                raise ValueError(f"{name} twice")
            vectors[name], lengths[name] = b"", int(match[2])
        else:
            vectors[name] += bytes.fromhex(line)
    for name, data in vectors.items():
        if len(data) != lengths[name]:
            raise ValueError(f"{name} has {len(data)} bytes instead of {lengths[name]}")
    return vectors


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: vectors.py FILE")
    # The example of draft-irtf-cfrg-xchacha-03, section 2.2.1: is HChaCha20 right?
    example = hchacha20(bytes(range(32)), bytes.fromhex("000000090000004a0000000031415927"))
    if example != bytes.fromhex(
        "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    ):
        sys.exit("this script's HChaCha20 is wrong")

    found, made = load(sys.argv[1]), make()
    wrong = sorted(name for name in found.keys() | made.keys() if found.get(name) != made.get(name))
    for name in wrong:
        for source, vectors in (("the file has", found), ("expected", made)):
            value = vectors[name].hex() if name in vectors else "nothing"
            print(f"{name}: {source} {value}", file=sys.stderr)
    if wrong:
        sys.exit(f"{len(wrong)} of {len(made)} vectors do not agree")
    print(f"all vectors agree ({len(made)})")


if __name__ == "__main__":
    main()
