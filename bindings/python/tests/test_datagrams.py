# SPDX-License-Identifier: BSD-2-Clause
"""Datagrams there and back, in all the ways there are."""

import array
import time

import pytest

import mptunnel as mpt
from conftest import ENOUGH, address, until


def test_a_datagram_goes_there_and_back(server, tunnel, peer):
    assert tunnel.send(b"ping") == 4
    data, client = server.recv_from()
    assert (data, client) == (b"ping", peer)

    assert server.send_to(b"pong!", client) == 5
    assert tunnel.recv() == b"pong!"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        bytearray(b"bytearray"),
        memoryview(b"a view"),
        memoryview(b"every second")[::2],
        array.array("I", [1, 2, 3]),
        bytes(range(256)) * 255,
    ],
    ids=lambda data: type(data).__name__ + str(len(data)),
)
def test_whatever_has_a_buffer_is_sent_as_its_bytes(server, tunnel, peer, data):
    expected = bytes(data)

    assert tunnel.send(data) == len(expected)
    assert server.recv_from()[0] == expected
    assert server.send_to(data, peer) == len(expected)
    assert tunnel.recv() == expected


@pytest.mark.parametrize("size", [0, 1, 1399, 1400, 9000, 65_507])
def test_sizes_from_nothing_to_the_largest_pass_whole(server, tunnel, peer, size):
    data = bytes(i % 251 for i in range(size))

    tunnel.send(data)
    assert server.recv_from()[0] == data
    server.send_to(data, peer)
    assert tunnel.recv() == data


def test_one_byte_more_than_the_maximum_is_refused_with_the_maximum(tunnel):
    assert tunnel.max_payload == 65_507
    with pytest.raises(mpt.PayloadTooLarge, match="65508 bytes exceeds the maximum of 65507"):
        tunnel.send(bytes(65_508))


def test_recv_into_fills_the_beginning_of_any_writable_buffer(server, tunnel, peer):
    for buffer in (bytearray(b"........"), array.array("H", [0x2E2E] * 4)):
        server.send_to(b"abc", peer)
        assert tunnel.recv_into(buffer) == 3
        assert bytes(buffer) == b"abc....."

    tunnel.send(b"xyz")
    buffer = bytearray(3)
    assert server.recv_from_into(memoryview(buffer)) == (3, peer)
    assert buffer == b"xyz"


def test_a_datagram_that_does_not_fit_is_kept(server, tunnel, peer):
    server.send_to(b"abcd", peer)

    with pytest.raises(mpt.BufferTooSmall, match="the datagram has 4 bytes, the buffer holds 3"):
        tunnel.recv_into(bytearray(3), timeout=ENOUGH)
    assert tunnel.recv() == b"abcd"


def test_a_batch_arrives_as_it_was_sent(server, tunnel, peer):
    batch = [bytes([i % 256]) * (1 + 7 * i % 1400) for i in range(300)]

    assert tunnel.send_many(batch) == 300
    received = []
    while len(received) < 300:
        received += server.recv_many(128)
    assert sorted(data for data, _ in received) == sorted(batch)
    assert {client for _, client in received} == {peer}

    assert server.send_many(iter(batch), peer) == 300
    back = []
    while len(back) < 300:
        back += tunnel.recv_many()
    assert sorted(back) == sorted(batch)


def test_an_empty_batch_sends_nothing_and_takes_nothing(server, tunnel, peer):
    assert tunnel.send_many([]) == 0
    assert server.send_many((), peer) == 0
    assert tunnel.recv_many(0) == []
    assert server.recv_many(0) == []


def test_a_batch_that_goes_wrong_later_counts_what_was_taken(server, tunnel):
    batch = [b"x"] * 64 + [bytes(65_508)]

    assert tunnel.send_many(batch) == 64
    with pytest.raises(mpt.PayloadTooLarge):
        tunnel.send_many([bytes(65_508), b"x"])


def test_recv_many_takes_at_most_what_it_is_told(server, tunnel):
    tunnel.send_many([b"1", b"2", b"3"])
    received = []
    while len(received) < 3:
        batch = server.recv_many(2)
        assert 1 <= len(batch) <= 2
        received += batch


def test_many_paths_bring_each_datagram_once(server, key):
    paths = [f"to={address(server)} name=p{i}" for i in range(4)]
    with mpt.open(address(server), key=key, paths=paths, timeout=ENOUGH) as tunnel:
        tunnel.wait_ready()
        until(lambda: all(path.up for path in tunnel.paths))
        tunnel.send_many([b"%d" % i for i in range(100)])
        got = sorted(int(server.recv_from()[0]) for _ in range(100))
        assert got == list(range(100))
        with pytest.raises(BlockingIOError):
            server.recv_from(timeout=0)
        assert sum(path.stats.sent for path in tunnel.paths) > 400


def test_two_clients_each_get_their_own(server, key):
    with (
        mpt.open(address(server), key=key, timeout=ENOUGH) as a,
        mpt.open(address(server), key=key, timeout=ENOUGH) as b,
    ):
        for tunnel, name in ((a, b"a"), (b, b"b")):
            tunnel.wait_ready()
            tunnel.send(name)
        peers = dict(server.recv_from() for _ in range(2))
        assert len(set(peers.values())) == 2 == len({int(peer) for peer in peers.values()})
        assert set(server.peers) == set(peers.values())

        server.send_to(b"for a", peers[b"a"])
        server.send_to(b"for b", peers[b"b"].id)
        assert (a.recv(), b.recv()) == (b"for a", b"for b")


def test_monotonic_is_the_clock_of_messages(server, tunnel, peer):
    before = time.monotonic()
    server.send_to(b"when", peer)
    message = tunnel.recv_message()

    assert message.data == b"when"
    assert message.path == tunnel.paths[0].id
    assert message.peer is None
    assert before <= message.time <= time.monotonic()

    tunnel.send(b"who")
    assert server.recv_message().peer == peer
