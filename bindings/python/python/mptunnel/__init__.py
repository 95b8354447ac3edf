# SPDX-License-Identifier: BSD-2-Clause
"""A multipath UDP socket: every datagram over every path, encrypted once, delivered once.

    import mptunnel as mpt

    with mpt.listen("[::]:4000", key_file="k") as server:
        data, peer = server.recv_from()
        server.send_to(data, peer)

    with mpt.open("mpt://vpn.example.org:4000", key_file="k", paths=["if=eth0", "if=wwan0"]) as t:
        t.wait_ready(5)
        t.send(b"hi")
        print(t.recv(timeout=1.0))
        for path in t.paths:
            print(path.name, path.state, path.stats.rtt)

Method names and timeouts are those of `socket`: `None` waits for ever, 0 never, else seconds. Any
thread may call anything at any time. Errors are subclasses of `mptunnel.Error`, which is an
`OSError`. `mptunnel.aio` has the same for asyncio. Logs go to `logging.getLogger("mptunnel")`.

`help(mptunnel.open)` lists all options, and `python -m mptunnel --help` a few commands.
"""

from mptunnel import aio
from mptunnel._endpoints import Server, Tunnel, genkey, listen, open
from mptunnel._errors import (
    BufferTooSmall,
    Closed,
    ConfigError,
    Error,
    Failed,
    Forked,
    Interrupted,
    NoPath,
    NotConnected,
    PayloadTooLarge,
    Refused,
    SystemFailure,
    TimedOut,
    UnknownPath,
    UnknownPeer,
    Unsupported,
    WouldBlock,
)
from mptunnel._mptunnel import Peer, __version__
from mptunnel._options import OPTIONS, ClientOptions, ServerOptions
from mptunnel._types import (
    Drop,
    ErrorCount,
    Event,
    EventKind,
    Losses,
    Lost,
    Message,
    Option,
    Pair,
    Path,
    PathState,
    PathStats,
    Queue,
    Reorder,
    Session,
    Span,
    Stats,
    Traffic,
    Worth,
)

__all__ = [
    "OPTIONS",
    "BufferTooSmall",
    "ClientOptions",
    "Closed",
    "ConfigError",
    "Drop",
    "Error",
    "ErrorCount",
    "Event",
    "EventKind",
    "Failed",
    "Forked",
    "Interrupted",
    "Losses",
    "Lost",
    "Message",
    "NoPath",
    "NotConnected",
    "Option",
    "Pair",
    "Path",
    "PathState",
    "PathStats",
    "PayloadTooLarge",
    "Peer",
    "Queue",
    "Refused",
    "Reorder",
    "Server",
    "ServerOptions",
    "Session",
    "Span",
    "Stats",
    "SystemFailure",
    "TimedOut",
    "Traffic",
    "Tunnel",
    "UnknownPath",
    "UnknownPeer",
    "Unsupported",
    "Worth",
    "WouldBlock",
    "__version__",
    "aio",
    "genkey",
    "listen",
    "open",
]
