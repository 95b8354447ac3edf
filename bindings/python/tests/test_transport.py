# SPDX-License-Identifier: BSD-2-Clause
"""Protocol classes for UDP, unchanged, over a tunnel."""

import asyncio

import pytest

import mptunnel as mpt
from conftest import ENOUGH
from mptunnel import aio

# The two classes of the asyncio manual, section "UDP Echo Server" and "UDP Echo Client", word for
# word except for the prints, which go to a list.
log: list[str] = []


class EchoServerProtocol(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        message = data.decode()
        log.append("Received %r" % message)
        self.transport.sendto(data, addr)


class EchoClientProtocol(asyncio.DatagramProtocol):
    def __init__(self, message, on_con_lost):
        self.message = message
        self.on_con_lost = on_con_lost
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        log.append("Send: " + self.message)
        self.transport.sendto(self.message.encode())

    def datagram_received(self, data, addr):
        log.append("Received: " + data.decode())
        self.transport.close()

    def error_received(self, exc):
        log.append("Error received: " + str(exc))

    def connection_lost(self, exc):
        log.append("Connection closed")
        self.on_con_lost.set_result(True)


def test_the_echo_protocols_of_the_asyncio_manual(key):
    log.clear()

    async def main():
        loop = asyncio.get_running_loop()
        server, _ = await aio.create_datagram_server(EchoServerProtocol, "127.0.0.1:0", key=key)
        at = "%s:%d" % server.get_extra_info("sockname")

        on_con_lost = loop.create_future()
        client, protocol = await aio.create_datagram_endpoint(
            lambda: EchoClientProtocol("Hello World!", on_con_lost), at, key=key
        )
        assert isinstance(protocol, EchoClientProtocol)
        assert client.get_extra_info("peername") == server.get_extra_info("sockname")
        assert isinstance(client.get_extra_info("mptunnel"), aio.Tunnel)
        assert await asyncio.wait_for(on_con_lost, ENOUGH)
        await client.wait_closed()
        server.close()
        await server.wait_closed()

    asyncio.run(main())
    assert log == [
        "Send: Hello World!",
        "Received 'Hello World!'",
        "Received: Hello World!",
        "Connection closed",
    ]


class Recorder(asyncio.DatagramProtocol):
    def __init__(self):
        self.received = asyncio.Queue()
        self.errors = []
        self.lost = []

    def datagram_received(self, data, addr):
        if data == b"fail":
            raise RuntimeError("a fault of the protocol")
        self.received.put_nowait((data, addr))

    def error_received(self, exc):
        self.errors.append(exc)

    def connection_lost(self, exc):
        self.lost.append(exc)


async def recorders(key):
    server, server_protocol = await aio.create_datagram_server(Recorder, "127.0.0.1:0", key=key)
    at = "%s:%d" % server.get_extra_info("sockname")
    client, client_protocol = await aio.create_datagram_endpoint(Recorder, f"mpt://{at}", key=key)
    return server, server_protocol, client, client_protocol


def test_the_address_of_a_client_is_its_peer(key):
    async def main():
        server, server_protocol, client, client_protocol = await recorders(key)
        client.sendto(b"a", client.get_extra_info("peername"))
        data, peer = await asyncio.wait_for(server_protocol.received.get(), ENOUGH)
        assert data == b"a" and isinstance(peer, mpt.Peer)
        server.sendto(b"b", peer)
        answer = await asyncio.wait_for(client_protocol.received.get(), ENOUGH)
        assert answer == (b"b", client.get_extra_info("peername"))

        with pytest.raises(ValueError, match="leads to"):
            client.sendto(b"x", ("192.0.2.1", 9))
        with pytest.raises(ValueError, match="mptunnel.Peer"):
            server.sendto(b"x")
        with pytest.raises(TypeError, match="bytes-like"):
            client.sendto("text")
        client.abort()
        server.abort()
        await client.wait_closed()
        await server.wait_closed()
        assert client_protocol.lost == [None] == server_protocol.lost
        client.sendto(b"too late")
        assert client_protocol.errors == []

    asyncio.run(main())


def test_what_cannot_be_sent_is_told_and_the_transport_goes_on(key):
    async def main():
        server, server_protocol, client, client_protocol = await recorders(key)
        client.sendto(bytes(65_508))
        server.sendto(b"x", 4711)
        assert isinstance(client_protocol.errors[0], mpt.PayloadTooLarge)
        assert isinstance(server_protocol.errors[0], mpt.UnknownPeer)
        client.sendto(b"still here")
        await asyncio.wait_for(server_protocol.received.get(), ENOUGH)
        client.close()
        server.close()
        await client.wait_closed()
        await server.wait_closed()

    asyncio.run(main())


def test_a_fault_of_the_protocol_goes_to_the_loop_and_the_next_datagram_comes(key):
    async def main():
        complaints = []
        asyncio.get_running_loop().set_exception_handler(lambda _, c: complaints.append(c))
        server, server_protocol, client, _ = await recorders(key)
        client.sendto(b"fail")
        while not complaints:
            await asyncio.sleep(0.002)
        assert isinstance(complaints[0]["exception"], RuntimeError)
        client.sendto(b"fine")
        data, _ = await asyncio.wait_for(server_protocol.received.get(), ENOUGH)
        assert data == b"fine"
        client.close()
        server.close()
        await client.wait_closed()
        await server.wait_closed()

    asyncio.run(main())


def test_an_endpoint_that_is_closed_below_its_transport_ends_it(key):
    async def main():
        server, _, client, client_protocol = await recorders(key)
        await client.get_extra_info("mptunnel").close()
        while not client_protocol.lost:
            await asyncio.sleep(0.002)
        assert client.is_closing()
        server.close()
        await server.wait_closed()

    asyncio.run(main())


def test_a_tunnel_that_does_not_come_up_is_closed_again(key):
    async def main():
        with pytest.raises(mpt.NotConnected):
            await aio.create_datagram_endpoint(Recorder, "127.0.0.1:9", key=key, ready=0.1)
        for wrong, kind in ((-1, ValueError), (float("nan"), ValueError), ("5", TypeError)):
            with pytest.raises(kind, match="^ready "):
                await aio.create_datagram_endpoint(Recorder, "127.0.0.1:9", key=key, ready=wrong)
        transport, protocol = await aio.create_datagram_endpoint(
            Recorder, "127.0.0.1:9", key=key, ready=0
        )
        transport.sendto(b"nobody hears")
        assert isinstance(protocol.errors[0], mpt.NotConnected)
        transport.close()
        await transport.wait_closed()

    asyncio.run(main())


def test_a_factory_of_something_else_is_refused(key):
    async def main():
        with pytest.raises(TypeError, match="DatagramProtocol"):
            await aio.create_datagram_server(asyncio.Protocol, "127.0.0.1:0", key=key)

    asyncio.run(main())
