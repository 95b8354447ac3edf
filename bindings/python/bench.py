#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Measures the Python interface on loopback: prints one JSON object.

    bench.py [--seconds S] [--size BYTES] [--batch N] [--paths N] [--cipher WORD]
             [--rate]

`batch_datagrams_per_s`: what arrives through `send_many` in one process and `recv_many` in another.
`send_datagrams_per_s`: single calls of `send` into a port that nobody reads, with an established
session: what the interface costs, and the encryption, and one system call. `send_empty_per_s`: the
same without bytes to encrypt. `udp_sendto_per_s`: what `socket.send` alone does here, into the same
port, for comparison.

With `--rate` it measures the first of these only and prints the figure by itself, as `make bench`
wants it.
"""

import argparse
import json
import multiprocessing
import socket
import sys
import time
from multiprocessing.connection import Connection

import mptunnel as mpt


def serve(pipe: Connection, key: str, cipher: str) -> None:
    """Counts what arrives, in a process of its own, from the first datagram to the last."""
    with mpt.listen("127.0.0.1:0", key=key, cipher=cipher, receive_queue="64MiB") as server:
        pipe.send(server.addresses[0])
        count, first, last = 0, 0.0, 0.0
        while True:
            try:
                received = server.recv_many(512, timeout=0.5)
            except TimeoutError:
                if pipe.poll():
                    break
                continue
            last = time.monotonic()
            first = first or last
            count += len(received)
        pipe.send((count, last - first, server.stats.queue_dropped + server.stats.kernel_dropped))


def batches(
    seconds: float, size: int, batch: int, paths: int, cipher: str
) -> dict[str, float]:
    """Through two endpoints in two processes."""
    key = mpt.genkey()
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=serve, args=(there, key, cipher))
    child.start()
    datagrams = [bytes(size)] * batch
    names = [f"name=p{number}" for number in range(paths)]
    with mpt.open("%s:%d" % here.recv(), key=key, cipher=cipher, paths=names) as tunnel:
        tunnel.wait_ready(5)
        while not all(path.state == "up" for path in tunnel.paths):
            time.sleep(0.01)
        sent = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sent += tunnel.send_many(datagrams, timeout=1)
        time.sleep(0.2)
        here.send("over")
        count, elapsed, dropped = here.recv()
    child.join()
    return {
        "batch_datagrams_per_s": count / elapsed,
        "batch_sent_per_s": sent / seconds,
        "batch_lost": 1 - count / sent,
        "batch_dropped_in_queues": dropped,
    }


def rate(call: object, seconds: float) -> float:
    """Calls per second of a function without arguments."""
    assert callable(call)
    count = 0
    begin = time.perf_counter()
    end = begin + seconds
    while True:
        # The clock is looked at once in so many calls.
        for _ in range(100):
            call()
        count += 100
        now = time.perf_counter()
        if now >= end:
            return count / (now - begin)


def wait_for_kill(pipe: Connection, key: str) -> None:
    """A server that will be stopped without a goodbye."""
    server = mpt.listen("127.0.0.1:0", key=key)
    pipe.send(server.addresses[0])
    while True:
        server.recv_from()


def singles(seconds: float, size: int) -> dict[str, float]:
    """Single calls into a port that nobody reads."""
    key = mpt.genkey()
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=wait_for_kill, args=(there, key))
    child.start()
    address = here.recv()
    with mpt.open("%s:%d" % address, key=key) as tunnel:
        tunnel.wait_ready(5)
        child.kill()
        child.join()
        # The port refuses nothing and keeps next to nothing: what arrives is dropped at once.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as null:
            null.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            null.bind(address)
            data = bytes(size)
            found = {
                "send_datagrams_per_s": rate(lambda: tunnel.send(data), seconds),
                "send_empty_per_s": rate(lambda: tunnel.send(b""), seconds),
            }
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
                plain.connect(address)
                sealed = bytes(size + OVERHEAD)
                found["udp_sendto_per_s"] = rate(lambda: plain.send(sealed), seconds)
    return found


OVERHEAD = 36
"""Bytes that the protocol adds to a datagram."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the Python interface.")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--size", type=int, default=1400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--paths", type=int, default=1)
    parser.add_argument("--cipher", default="auto")
    parser.add_argument("--rate", action="store_true")
    options = parser.parse_args()
    found: dict[str, float] = {"size": options.size, "batch": options.batch}
    found |= batches(
        options.seconds, options.size, options.batch, options.paths, options.cipher
    )
    if options.rate:
        print(round(found["batch_datagrams_per_s"]))
        return 0
    # While the paths are silent for less than a few seconds, all of them are used.
    found |= singles(min(options.seconds, 1.0), options.size)
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
