#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Answers each numbered hello with the same bytes: one half of the hello-counter.

    hello_server.py PORT
"""

import socket
import sys

ANY_SIZE = 65_535  # no UDP datagram is larger


def main() -> None:
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.exit("usage: hello_server.py PORT")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("", int(sys.argv[1])))
        print(f"hello_server: port {server.getsockname()[1]}", flush=True)
        while True:
            hello, client = server.recvfrom(ANY_SIZE)
            server.sendto(hello, client)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
