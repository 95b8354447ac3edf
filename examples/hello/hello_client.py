#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Sends numbered hellos and counts the answers: the other half of the hello-counter.

    hello_client.py HOST PORT [--count N] [--rate R] [--size BYTES] [--wait S]

An answer has to be the hello itself, byte for byte, and comes at most once. Exit status: 0 if that
was so, however many were lost; 1 if an answer was altered or came twice, or if none came at all.
"""

import argparse
import socket
import sys
import threading
import time

ANY_SIZE = 65_535  # no UDP datagram is larger


def hello(number: int, size: int) -> bytes:
    """The hello of this number: its text, and letters that it decides, up to `size` bytes."""
    text = b"hello %d " % number
    letters = bytes(97 + (number + i) % 26 for i in range(26))
    return (text + letters * (size // 26 + 1))[: max(size, len(text))]


class Counter(threading.Thread):
    """Counts the answers while the main thread sends."""

    def __init__(self, client: socket.socket, size: int) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.size = size
        self.seen: set[int] = set()
        self.duplicated = 0
        self.altered = 0

    def run(self) -> None:
        while True:
            try:
                self.count(self.client.recv(ANY_SIZE))
            except ConnectionRefusedError:
                pass  # nobody listens there yet: the hello that told us so counts as lost

    def count(self, answer: bytes) -> None:
        words = answer.split(b" ", 2)
        number = int(words[1]) if len(words) == 3 and words[1].isdigit() else -1
        if answer != hello(number, self.size):
            self.altered += 1
        elif number in self.seen:
            self.duplicated += 1
        else:
            self.seen.add(number)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Send numbered hellos and count the answers.")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--count", type=int, default=100, help="hellos to send [100]")
    parser.add_argument("--rate", type=float, default=100, help="hellos per second [100]")
    parser.add_argument("--size", type=int, default=64, help="bytes of each, if it fits [64]")
    parser.add_argument("--wait", type=float, default=1, help="seconds for the last answers [1]")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    family, kind, _, _, address = socket.getaddrinfo(
        args.host, args.port, type=socket.SOCK_DGRAM
    )[0]
    client = socket.socket(family, kind)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    client.connect(address)
    counter = Counter(client, args.size)
    counter.start()

    begin = time.monotonic()
    for number in range(args.count):
        time.sleep(max(0.0, begin + number / args.rate - time.monotonic()))
        try:
            client.send(hello(number, args.size))
        except ConnectionRefusedError:
            pass  # as above
    end = time.monotonic() + args.wait
    while time.monotonic() < end and len(counter.seen) < args.count:
        time.sleep(0.01)
    time.sleep(min(args.wait, 0.1))  # time for duplicates of the last answers

    received, lost = len(counter.seen), args.count - len(counter.seen)
    print(
        f"sent {args.count}  received {received}  lost {lost} "
        f"({100 * lost / max(args.count, 1):.2f} %)  "
        f"duplicated {counter.duplicated}  altered {counter.altered}"
    )
    return int(counter.duplicated > 0 or counter.altered > 0 or received == 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
