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
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

# Inputs, as the text beside the block states them.
PSK = bytes(range(32))
CLIENT_PSK = b"\x88" * 32
CLIENT_STATIC, SERVER_STATIC = b"\x66" * 32, b"\x77" * 32
CLIENT_EPHEMERAL, SERVER_EPHEMERAL, REFUSING_EPHEMERAL = b"\x11" * 32, b"\x22" * 32, b"\x23" * 32
CLIENT_INDEX, SERVER_INDEX = struct.pack("<I", 0xA1A2A3A4), struct.pack("<I", 0xB1B2B3B4)
PEER_ID = b"\x33" * 16
CLIENT_BOOT_ID, SERVER_BOOT_ID = 0x0102030405060708, 0x1112131415161718
COOKIE_SECRET, COOKIE_NONCE = b"\x44" * 32, b"\x55" * 24
ADDRESS = bytes([10, 0, 0, 1]) + struct.pack(">H", 8080)
PASSPHRASE, TUNNEL_NAME = b"correct horse battery staple", b"home"

# Types.
INIT_PSK, INIT_KEY, RESP, COOKIE, NOSESSION, CTRL, DATA, DATA_CLEAR = range(1, 9)


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


def seal(key, number, aad, plaintext):
    return ChaCha20Poly1305(key).encrypt(nonce(number), plaintext, aad)


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


def init_payload():
    return (
        PEER_ID
        + struct.pack("<QIIH", CLIENT_BOOT_ID, 0, 0, 1400)
        + bytes([2, 1, 18, 0, 0, 0])
        + struct.pack("<Q", 1_000_000)
        + bytes(16)
    )


def resp_payload(status, index, token):
    fields = struct.pack("<BBHQQIHH", status, 18, 1400, SERVER_BOOT_ID, 1_000_000, 0, 0, 0)
    return index + fields + token


def nn_psk0(prologue, server_ephemeral, payload):
    """Both messages and the keys of Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s."""
    noise = Noise(b"Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s", prologue)
    noise.mix_key_and_hash(PSK)
    first = noise.ephemeral(CLIENT_EPHEMERAL) + noise.encrypt_and_hash(init_payload())
    second = noise.ephemeral(server_ephemeral)
    noise.mix_key(dh(CLIENT_EPHEMERAL, public(server_ephemeral)))
    return first, second + noise.encrypt_and_hash(payload), noise.split()


def ik_psk2(prologue, psk, payload):
    """Both messages and the keys of Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s."""
    noise = Noise(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s", prologue)
    noise.mix_hash(public(SERVER_STATIC))
    first = noise.ephemeral(CLIENT_EPHEMERAL)
    noise.mix_key(dh(CLIENT_EPHEMERAL, public(SERVER_STATIC)))
    first += noise.encrypt_and_hash(public(CLIENT_STATIC))
    noise.mix_key(dh(CLIENT_STATIC, public(SERVER_STATIC)))
    first += noise.encrypt_and_hash(init_payload())
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


def packet(kind, index, number, key, inner):
    header = head(kind, index) + struct.pack("<Q", number)
    return header + seal(key, number, header, inner)


def ctrl_packet(index, key, frames, mac1_key):
    sealed = packet(CTRL, index, 0, key, frames.ljust(64, b"\0"))
    return sealed + mac(mac1_key, sealed, 8)


def clear_packet(index, key, payload):
    message = head(DATA_CLEAR, index) + struct.pack("<Q", 2) + bytes(4) + payload
    return message + seal(mac(key, b"mpt1 clear", 32), 2, message, b"")


# The vectors.


def add_split(made, suffix, keys):
    for direction, key in zip(("c2s", "s2c"), keys):
        made[f"k_{direction}{suffix}"] = key
        made[f"k_clear_{direction}{suffix}"] = mac(key, b"mpt1 clear", 32)


def psk_mode(made, cookie):
    made["key_id"] = key_id = h(b"mpt1 keyid", PSK)[:8]
    made["K_mac1"] = k_mac1 = h(b"mpt1 mac1", PSK)
    made["K_cookie"] = k_cookie = h(b"mpt1 cookie", PSK)
    made["K_reset"] = k_reset = h(b"mpt1 reset", PSK)
    made["token"] = token = mac(k_reset, SERVER_INDEX, 32)[:16]
    made["cookie"] = cookie
    made["init_payload"] = init_payload()
    made["resp_payload"] = resp_payload(0, SERVER_INDEX, token)

    start = head(INIT_PSK, CLIENT_INDEX) + key_id
    prologue = b"mptunnel/1" + start
    first, second, keys = nn_psk0(prologue, SERVER_EPHEMERAL, made["resp_payload"])
    c2s, s2c = keys
    add_split(made, "", keys)
    core_and_mac1 = with_mac(start + first, k_mac1)
    made["INIT_PSK"] = core_and_mac1 + bytes(16)
    made["INIT_PSK_MAC2"] = with_mac(core_and_mac1, cookie)
    made["RESP"] = with_mac(head(RESP, CLIENT_INDEX) + second, k_mac1)
    refusal = resp_payload(2, bytes(4), bytes(16))
    _, second, _ = nn_psk0(prologue, REFUSING_EPHEMERAL, refusal)
    made["RESP_REFUSED"] = with_mac(head(RESP, CLIENT_INDEX) + second, k_mac1)
    made["COOKIE"] = cookie_message(k_cookie, made["INIT_PSK"], cookie)
    made["CTRL"] = ctrl_packet(SERVER_INDEX, c2s, ping(1_050_000), k_mac1)
    made["DATA"] = packet(DATA, SERVER_INDEX, 1, c2s, bytes(4) + b"hello")
    made["DATA_CLEAR"] = clear_packet(SERVER_INDEX, c2s, b"hello")
    frames = pong(1_050_000) + ping(7_000_000)
    made["CTRL_S2C"] = ctrl_packet(CLIENT_INDEX, s2c, frames, k_mac1)
    made["DATA_S2C"] = packet(DATA, CLIENT_INDEX, 1, s2c, bytes(4) + b"world")
    made["DATA_CLEAR_S2C"] = clear_packet(CLIENT_INDEX, s2c, b"world")
    made["NOSESSION"] = no_session(made["CTRL"], token)


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
    payload = resp_payload(0, SERVER_INDEX, token)
    for suffix, psk in (("", bytes(32)), ("_psk", CLIENT_PSK)):
        first, second, keys = ik_psk2(b"mptunnel/1" + start, psk, payload)
        add_split(made, "_key" + suffix, keys)
        resp = with_mac(head(RESP, CLIENT_INDEX) + second, towards_client)
        made["RESP_KEY" + suffix.upper()] = resp
        data = packet(DATA, SERVER_INDEX, 1, keys[0], bytes(4) + b"hello")
        made["DATA_KEY" + suffix.upper()] = data

    core_and_mac1 = with_mac(start + first, towards_server)
    made["INIT_KEY"] = core_and_mac1 + bytes(16)
    made["INIT_KEY_MAC2"] = with_mac(core_and_mac1, cookie)
    made["COOKIE_KEY"] = cookie_message(k_cookie, made["INIT_KEY"], cookie)
    c2s, s2c = made["k_c2s_key"], made["k_s2c_key"]
    made["CTRL_KEY"] = ctrl_packet(SERVER_INDEX, c2s, ping(1_050_000), towards_server)
    frames = pong(1_050_000) + ping(7_000_000)
    made["CTRL_KEY_S2C"] = ctrl_packet(CLIENT_INDEX, s2c, frames, towards_client)
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
