#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A chat for asyncio: what one says, all others read. Start a server and some clients.

chat.py serve PORT KEY_FILE
chat.py join HOST:PORT KEY_FILE NAME [PATH...]
"""

import asyncio
import sys

import mptunnel as mpt


async def serve(port: str, key_file: str) -> None:
    """Passes every line on to all clients but the one that it came from."""
    async with mpt.aio.listen(port, key_file=key_file) as server:
        print("listening on", *server.addresses, flush=True)
        async for line, author in server:
            for peer in server.peers:
                if peer != author:
                    try:
                        await server.send_to(line, peer)
                    except mpt.Error as error:
                        print(f"to {peer}: {error}", file=sys.stderr)


async def join(server: str, key_file: str, name: str, *paths: str) -> None:
    """Sends the lines of standard input, and prints those of the others, until the input ends."""
    async with mpt.aio.open(server, key_file=key_file, paths=paths) as tunnel:
        await tunnel.wait_ready(5)
        reading = asyncio.create_task(show(tunnel))
        await tunnel.send(f"{name} is here".encode())
        print("connected", flush=True)
        stdin = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin
        )
        async for line in stdin:
            await tunnel.send(f"{name}: {line.decode().rstrip()}".encode())
        reading.cancel()


async def show(tunnel: mpt.aio.Tunnel) -> None:
    async for line in tunnel:
        print(line.decode(), flush=True)


def main() -> None:
    match sys.argv[1:]:
        case ["serve", port, key_file]:
            asyncio.run(serve(port, key_file))
        case ["join", server, key_file, name, *paths]:
            asyncio.run(join(server, key_file, name, *paths))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
