#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Stand-ins for the programs of the classic mptunnel, byte for byte, on real sockets.

    classic.py server LISTEN_PORT TARGET_PORT [--encrypt 0|1] [--patience SECONDS]
    classic.py client LISTEN_PORT CONFIG      [--encrypt 0|1] [--patience SECONDS]

Everything is on 127.0.0.1. PATIENCE is 60 s in the programs, and all their times are parts of it;
tests make it short. They follow the rules of the originals, the bad ones as well, but do not crash.
"""

import argparse
import bisect
import select
import socket
import struct
import sys
import time
from pathlib import Path

MODEL = Path(__file__).resolve().parents[4] / "mptunnel-core/tests/legacy"
sys.path.insert(0, str(MODEL))
sys.dont_write_bytecode = True

from model import CTL, DATA, HEADER, hide  # noqa: E402

LARGEST_WHOLE = 8000


class Rand:
    """rand() of glibc, which neither program ever seeds."""

    def __init__(self) -> None:
        words = [1]
        for _ in range(30):
            word = (16807 * words[-1]) % 2147483647
            words.append(word)
        words += words[:3]
        for index in range(34, 344):
            words.append((words[index - 31] + words[index - 3]) & 0xFFFFFFFF)
        self.words = words

    def next(self) -> int:
        self.words.append((self.words[-31] + self.words[-3]) & 0xFFFFFFFF)
        self.words.pop(0)
        return self.words[-1] >> 1


class Seen:
    """Which numbers came: `low` and all below, and those in the list."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.low = 0
        self.ids: list[int] = []
        self.since: dict[int, float] = {}
        self.swept = time.monotonic()

    def is_new(self, number: int) -> bool:
        now = time.monotonic()
        if now - self.swept > self.patience / 2:
            self.swept = now
            while self.ids and now - self.since[self.ids[0]] > self.patience / 2:
                self.low = self.ids.pop(0)
                del self.since[self.low]
        if number <= self.low or number in self.since:
            return False
        if number == self.low + 1 and not self.ids:
            self.low = number
        else:
            bisect.insort(self.ids, number)
            self.since[number] = now
        return True


class End:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.encrypt = arguments.encrypt
        self.patience = arguments.patience
        self.rand = Rand()
        self.seen = Seen(self.patience)
        self.number = 0

    def pack(self, payload: bytes, seed: int) -> bytes:
        packet = HEADER.pack(seed, DATA, self.number, len(payload)) + payload
        return hide(packet) if self.encrypt else packet

    def unpack(self, packet: bytes) -> bytes | None:
        """The payload of a new datagram. No length is checked, as in the programs."""
        packet = packet.ljust(HEADER.size, b"\0")
        plain = hide(packet) if self.encrypt else packet
        _, kind, number, length = struct.unpack_from("<Iiii", plain)
        if kind == CTL or kind != DATA or not self.seen.is_new(number):
            return None
        return plain[HEADER.size : HEADER.size + length].ljust(max(length, 0), b"\0")


class Server(End):
    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        self.bridges: dict[tuple, list[float]] = {}
        self.socket = bound(arguments.port)
        self.target = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.target.connect(("127.0.0.1", int(arguments.to)))

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self.socket, self.target], [], [])
            if self.socket in ready:
                packet, source = self.socket.recvfrom(65536)
                now = time.monotonic()
                # Before it is looked at.
                self.bridges.setdefault(source, [now, now])[1] = now
                payload = self.unpack(packet)
                if payload is not None:
                    ignoring_errors(self.target.send, payload)
            if self.target in ready:
                payload = ignoring_errors(self.target.recv, 65536)
                if payload is not None:
                    self.send(payload)

    def send(self, payload: bytes) -> None:
        if len(payload) > LARGEST_WHOLE:
            half = len(payload) // 2
            self.send(payload[:half])
            self.send(payload[half:])
            return
        self.number += 1
        # Without encryption the seed is what was in its memory.
        packet = self.pack(payload, self.rand.next() if self.encrypt else 0x43AB0B70)
        now = time.monotonic()
        for source, (sent, heard) in list(self.bridges.items()):
            if now - heard > 5 * self.patience or abs(heard - sent) > self.patience:
                del self.bridges[source]
                continue
            self.bridges[source][0] = now
            ignoring_errors(self.socket.sendto, packet, source)


class Bridge:
    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        self.open()

    def open(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(self.address)
        self.sent = 0.0
        self.heard: float | None = None


class Client(End):
    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments)
        lines = Path(arguments.to).read_text().splitlines()
        words = [line.split() for line in lines if line and not line.startswith("#")]
        self.bridges = [Bridge(host, int(port)) for host, port in words]
        self.socket = bound(arguments.port)
        self.application = None

    def run(self) -> None:
        while True:
            sockets = {bridge.socket: bridge for bridge in self.bridges}
            ready, _, _ = select.select([self.socket, *sockets], [], [])
            for found in ready:
                if found is self.socket:
                    # The last one that sent anything receives everything.
                    payload, self.application = self.socket.recvfrom(65536)
                    self.send(payload)
                    continue
                packet = ignoring_errors(found.recv, 65536)
                if packet is None:
                    continue
                sockets[found].heard = time.monotonic()
                payload = self.unpack(packet)
                if payload is not None and self.application is not None:
                    ignoring_errors(self.socket.sendto, payload, self.application)

    def send(self, payload: bytes) -> None:
        self.number += 1
        for bridge in self.bridges:
            if bridge.heard is not None and bridge.sent - bridge.heard > self.patience:
                bridge.socket.close()
                bridge.open()
                print(f"bridge {bridge.address[1]} has a new port", flush=True)
                break
        for bridge in self.bridges:
            # A seed of its own for each copy.
            packet = self.pack(payload, self.rand.next() if self.encrypt else 0)
            bridge.sent = time.monotonic()
            ignoring_errors(bridge.socket.send, packet)


def ignoring_errors(call, *arguments):
    try:
        return call(*arguments)
    except OSError:
        return None


def bound(port: str) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.bind(("127.0.0.1", int(port)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("end", choices=["server", "client"])
    parser.add_argument("port")
    parser.add_argument("to")
    parser.add_argument("--encrypt", type=lambda text: text != "0", default=True)
    parser.add_argument("--patience", type=float, default=60.0)
    arguments = parser.parse_args()
    rand = Rand()
    assert [rand.next() for _ in range(3)] == [0x6B8B4567, 0x327B23C6, 0x643C9869]
    end = Server(arguments) if arguments.end == "server" else Client(arguments)
    host, port = end.socket.getsockname()
    print(f"the classic {arguments.end} listens on {host}:{port}", flush=True)
    end.run()


if __name__ == "__main__":
    main()
