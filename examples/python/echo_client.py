#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Sends ten numbered datagrams over all paths, and prints what comes back.

echo_client.py KEY_FILE HOST:PORT...
echo_client.py psk bridge1.example:4000 "bridge2.example:4000 if=wwan0"
"""

import sys

import mptunnel as mpt


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit("usage: echo_client.py KEY_FILE HOST:PORT...")
    key_file, *paths = sys.argv[1:]
    server = paths[0].split()[0]
    # One path for each argument, in the words of the configuration file.
    with mpt.open(server, key_file=key_file, paths=[f"to={path}" for path in paths]) as tunnel:
        # One path that answers is enough. The others join when they can, at any time.
        tunnel.wait_ready(5)
        for number in range(1, 11):
            tunnel.send(f"hello {number}".encode())
            try:
                print(tunnel.recv(timeout=1).decode())
            except TimeoutError:
                # Lost on all paths: datagrams are not sent again.
                print(f"hello {number} was lost")
        for path in tunnel.paths:
            stats = path.stats
            print(f"{path.name}: sent {stats.sent}, first to arrive {stats.wins}")


if __name__ == "__main__":
    main()
