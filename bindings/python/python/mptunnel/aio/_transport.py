# SPDX-License-Identifier: BSD-2-Clause
"""Endpoints below protocol classes that were written for sockets."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, Unpack

from mptunnel import _options
from mptunnel._errors import Closed, Error
from mptunnel._mptunnel import Peer
from mptunnel._options import ClientOptions, ServerOptions
from mptunnel.aio._endpoints import Server, Tunnel, listen, open

_ProtocolT = TypeVar("_ProtocolT", bound=asyncio.BaseProtocol)


class DatagramTransport(asyncio.DatagramTransport):
    """An endpoint as a transport, for protocols written for `loop.create_datagram_endpoint`.

    At a tunnel all datagrams come from and go to one address, host and port of the server. At a
    server the address of a client is its `mptunnel.Peer`. As with UDP, a datagram that cannot be
    sent is lost, and `error_received` tells why. `get_extra_info` knows `"mptunnel"` (the
    `mptunnel.aio` endpoint), `"peername"` (tunnel) and `"sockname"` (server).
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint: Tunnel | Server,
        protocol: asyncio.DatagramProtocol,
        peername: tuple[str, int] | None,
    ) -> None:
        extra: dict[str, object] = {"mptunnel": endpoint}
        if peername is not None:
            extra["peername"] = peername
        if isinstance(endpoint, Server):
            extra["sockname"] = endpoint.addresses[0]
        super().__init__(extra)
        self._loop = loop
        self._endpoint = endpoint
        self._protocol = protocol
        self._peername = peername
        self._closing: asyncio.Task[None] | None = None
        self._pump = loop.create_task(self._receive())

    def sendto(self, data: bytes | bytearray | memoryview, addr: Any = None) -> None:
        """Send a datagram; at a server to the client `addr`."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be a bytes-like object, not {type(data).__name__}")
        if self.is_closing():
            return
        endpoint = self._endpoint
        if isinstance(endpoint, Server) and not isinstance(addr, Peer | int):
            raise ValueError(f"a server sends to an mptunnel.Peer, not {addr!r}")
        if isinstance(endpoint, Tunnel) and addr not in (None, self._peername):
            raise ValueError(f"a tunnel leads to {self._peername!r} only, not to {addr!r}")
        try:
            if isinstance(endpoint, Server):
                endpoint._endpoint.send_to(data, addr, timeout=0)
            else:
                endpoint._endpoint.send(data, timeout=0)
        except Error as error:
            self._protocol.error_received(error)

    def close(self) -> None:
        """Close the endpoint; `connection_lost(None)` comes when that is done."""
        self._close(None)

    def abort(self) -> None:
        """The same as `close`: nothing is buffered here."""
        self._close(None)

    def is_closing(self) -> bool:
        """Whether the transport is closed or about to be."""
        return self._closing is not None

    async def wait_closed(self) -> None:
        """Wait until the endpoint is closed."""
        if self._closing is not None:
            await asyncio.shield(self._closing)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Pass datagrams to another protocol from now on."""
        if not isinstance(protocol, asyncio.DatagramProtocol):
            raise TypeError("an asyncio.DatagramProtocol is required")
        self._protocol = protocol

    def get_write_buffer_size(self) -> int:
        """Return 0: nothing is buffered here."""
        return 0

    async def _receive(self) -> None:
        endpoint = self._endpoint
        try:
            while True:
                if isinstance(endpoint, Server):
                    data, peer = await endpoint.recv_from(timeout=None)
                    self._deliver(data, peer)
                else:
                    data = await endpoint.recv(timeout=None)
                    self._deliver(data, self._peername)
        except Closed:
            self._close(None)
        except Error as error:
            self._close(error)

    def _deliver(self, data: bytes, addr: Any) -> None:
        try:
            self._protocol.datagram_received(data, addr)
        except Exception as error:
            # As for sockets: the loop reports it, and the next datagram comes all the same.
            self._loop.call_exception_handler(
                {
                    "message": "datagram_received() raised an exception",
                    "exception": error,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )

    def _close(self, error: Exception | None) -> None:
        if self._closing is None:
            self._closing = self._loop.create_task(self._finish(error))

    async def _finish(self, error: Exception | None) -> None:
        try:
            await self._endpoint.close()
        finally:
            self._pump.cancel()
            self._protocol.connection_lost(error)


async def create_datagram_endpoint(
    protocol_factory: Callable[[], _ProtocolT],
    uri: str,
    *,
    paths: Iterable[str] | None = None,
    key: str | bytes | None = None,
    ready: float | None = 5.0,
    **options: Unpack[ClientOptions],
) -> tuple[DatagramTransport, _ProtocolT]:
    """Open a tunnel below a protocol, as `loop.create_datagram_endpoint` opens a socket.

    Waits up to `ready` seconds for a session and a path that answers, `None` for ever, 0 not at
    all: until then what the protocol sends is lost. The other arguments are those of
    `mptunnel.open`. Raises what `open` and `wait_ready` raise.
    """
    ready = _options.seconds("ready", ready)
    tunnel = open(uri, paths=paths, key=key, **options)
    try:
        if ready is None or ready > 0:
            await tunnel.wait_ready(ready)
    except BaseException:
        await tunnel.close()
        raise
    return await _connect(tunnel, protocol_factory, _options.server_of(uri))


async def create_datagram_server(
    protocol_factory: Callable[[], _ProtocolT],
    addr: str | int,
    *,
    key: str | bytes | None = None,
    **options: Unpack[ServerOptions],
) -> tuple[DatagramTransport, _ProtocolT]:
    """Listen for tunnels below a protocol, as `loop.create_datagram_endpoint` binds a socket.

    The protocol gets an `mptunnel.Peer` as the address of each datagram, and sends to it. The
    arguments are those of `mptunnel.listen`.
    """
    return await _connect(listen(addr, key=key, **options), protocol_factory, None)


async def _connect(
    endpoint: Tunnel | Server,
    protocol_factory: Callable[[], _ProtocolT],
    peername: tuple[str, int] | None,
) -> tuple[DatagramTransport, _ProtocolT]:
    try:
        protocol = protocol_factory()
        if not isinstance(protocol, asyncio.DatagramProtocol):
            raise TypeError("the factory must make an asyncio.DatagramProtocol")
        transport = DatagramTransport(asyncio.get_running_loop(), endpoint, protocol, peername)
        protocol.connection_made(transport)
    except BaseException:
        await endpoint.close()
        raise
    return transport, protocol
