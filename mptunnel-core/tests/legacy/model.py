# SPDX-License-Identifier: BSD-2-Clause
"""The datagrams of the classic mptunnel, made a second time: independent of the Rust code.

    python3 model.py COUNT SEED

prints COUNT datagrams, each a line of four words in hexadecimal or decimal: the datagram, its type,
its number, its payload; or the datagram and `-` if a receiver has to refuse it. An empty text is
written as `.`. Nothing but the standard library is needed.
"""

import random
import struct
import sys

HEADER = struct.Struct("<IIii")
CTL, DATA = 1, 2


def clock32(state: int) -> int:
    """Thirty-two steps of the shift register x^32 + x^30 + x^26 + x^25 + 1, lowest bit first."""
    for _ in range(32):
        feedback = state ^ (state >> 2) ^ (state >> 6) ^ (state >> 7)
        state = (state >> 1) | ((feedback & 1) << 31)
    return state


# The steps are linear: a state is the sum of what becomes of its two halves.
LOW = [0] * 65536
HIGH = [0] * 65536
for bit in range(16):
    low, high = clock32(1 << bit), clock32(1 << (bit + 16))
    for value in range(1 << bit):
        LOW[value | 1 << bit] = LOW[value] ^ low
        HIGH[value | 1 << bit] = HIGH[value] ^ high


def keystream(seed: int, length: int) -> bytes:
    keys = bytearray()
    for _ in range(length):
        seed = LOW[seed & 0xFFFF] ^ HIGH[seed >> 16]
        keys.append(seed % 255)
    return bytes(keys)


def hide(datagram: bytes) -> bytes:
    """Adds the keystream of the first four bytes to the others; a second time undoes it."""
    (seed,) = struct.unpack_from("<I", datagram)
    if seed == 0:
        return datagram
    length = len(datagram) - 4
    keys = int.from_bytes(keystream(seed, length), "little")
    rest = int.from_bytes(datagram[4:], "little") ^ keys
    return datagram[:4] + rest.to_bytes(length, "little")


def pack(kind: int, number: int, payload: bytes, seed: int = 0) -> bytes:
    return hide(HEADER.pack(seed, kind, number, len(payload)) + payload)


def unpack(datagram: bytes) -> tuple[int, int, bytes] | None:
    """Type, number and payload of a datagram that a careful receiver accepts."""
    if len(datagram) < HEADER.size:
        return None
    for plain in (datagram, hide(datagram)):
        _, kind, number, length = HEADER.unpack_from(plain)
        if kind in (CTL, DATA) and length == len(datagram) - HEADER.size:
            if kind == DATA and number <= 0:
                return None
            return kind, number, plain[HEADER.size :]
    return None


def samples(count: int, seed: int):
    rng = random.Random(seed)
    for _ in range(count):
        size = rng.choice((0, 1, 2, 3, 4, 5, 7, 8, 12, 20, 33))
        kind = rng.choice((CTL, DATA, DATA, DATA, DATA, 0, 3, rng.getrandbits(32)))
        number = rng.choice((1, 2**31 - 1, rng.randrange(1, 2**31), rng.randrange(-(2**31), 2**31)))
        shown = rng.choice((0, rng.getrandbits(32), rng.getrandbits(32)))
        datagram = pack(kind, number, rng.randbytes(size), shown)
        match rng.randrange(12):
            case 0:
                datagram = datagram[: rng.randrange(len(datagram) + 1)]
            case 1:
                datagram += rng.randbytes(rng.randrange(1, 5))
            case 2:
                at = rng.randrange(len(datagram))
                datagram = datagram[:at] + rng.randbytes(1) + datagram[at + 1 :]
            case 3:
                # In clear with a seed that means nothing, as a classic server sends it.
                datagram = rng.randbytes(4) + pack(kind, number, rng.randbytes(size))[4:]
            case 4:
                datagram = rng.randbytes(rng.randrange(40))
        yield datagram


def main() -> None:
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    for state in (1, 0x6B8B4567, 0xDEADBEEF, 0xFFFFFFFF):
        assert LOW[state & 0xFFFF] ^ HIGH[state >> 16] == clock32(state)
    lines = []
    for datagram in samples(count, seed):
        found = unpack(datagram)
        if found is None:
            lines.append(f"{datagram.hex() or '.'} -")
        else:
            kind, number, payload = found
            lines.append(f"{datagram.hex()} {kind} {number} {payload.hex() or '.'}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
