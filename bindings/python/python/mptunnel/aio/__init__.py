# SPDX-License-Identifier: BSD-2-Clause
"""mptunnel for asyncio: the same names as in `mptunnel`, awaitable.

    async with mptunnel.aio.open("mpt://vpn.example.org:4000", key_file="k") as t:
        await t.wait_ready(5)
        async for datagram in t:
            await t.send(datagram)

No thread waits: the event loop watches the descriptor of the endpoint. A call that is cancelled has
taken nothing, so no datagram is lost by it. An endpoint belongs to the loop that waits for it; call
its methods there, and no others of the same endpoint elsewhere.

`create_datagram_endpoint` and `create_datagram_server` carry protocol classes that were written for
`loop.create_datagram_endpoint`.
"""

from mptunnel.aio._endpoints import Server, Tunnel, listen, open
from mptunnel.aio._transport import (
    DatagramTransport,
    create_datagram_endpoint,
    create_datagram_server,
)

__all__ = [
    "DatagramTransport",
    "Server",
    "Tunnel",
    "create_datagram_endpoint",
    "create_datagram_server",
    "listen",
    "open",
]
