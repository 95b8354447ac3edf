#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Sends every datagram back to the client that it came from.

python -m mptunnel genkey -o psk
echo_server.py PORT KEY_FILE
"""

import sys

import mptunnel as mpt


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: echo_server.py PORT KEY_FILE")
    port, key_file = sys.argv[1:]
    # From here on the library receives, on threads of its own: any number of clients.
    with mpt.listen(port, key_file=key_file) as server:
        print("listening on", *server.addresses, flush=True)
        while True:
            # Each datagram comes once, whole and unaltered, by whichever path was the fastest.
            data, client = server.recv_from()
            try:
                server.send_to(data, client)
            except mpt.Error as error:
                # It is lost, as any datagram may be, and the next one need not be.
                print(f"to {client}: {error}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
