# SPDX-License-Identifier: BSD-2-Clause
"""asyncio: the same endpoints, awaitable."""

import asyncio
import gc
import time
import warnings
from contextlib import AsyncExitStack

import pytest

import mptunnel as mpt
from conftest import ENOUGH, address
from mptunnel import aio


async def pair(key, stack):
    """A server and a tunnel to it, connected, and the tunnel as the server sees it."""
    server = await stack.enter_async_context(aio.listen("127.0.0.1:0", key=key, timeout=ENOUGH))
    tunnel = await stack.enter_async_context(aio.open(address(server), key=key, timeout=ENOUGH))
    await tunnel.wait_ready()
    await tunnel.send(b"who am I")
    data, peer = await server.recv_from()
    assert data == b"who am I"
    while not all(path.up for path in (*peer.paths, *tunnel.paths)):
        await asyncio.sleep(0.002)
    return server, tunnel, peer


def aio_test(test):
    """Runs a coroutine function with a connected pair, in a loop that reports what it dislikes."""

    def run(key):
        async def main():
            loop = asyncio.get_running_loop()
            complaints = []
            loop.set_exception_handler(lambda _, context: complaints.append(context))
            async with AsyncExitStack() as stack:
                await test(*await pair(key, stack))
            assert complaints == []

        asyncio.run(main(), debug=False)

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


@aio_test
async def test_a_datagram_goes_there_and_back(server, tunnel, peer):
    assert await tunnel.send(b"ping") == 4
    assert await server.recv_from() == (b"ping", peer)
    assert await server.send_to(b"", peer) == 0
    assert await tunnel.recv() == b""

    buffer = bytearray(8)
    await tunnel.send(b"into")
    assert await server.recv_from_into(buffer) == (4, peer)
    await server.send_to(b"back", peer)
    assert await tunnel.recv_into(buffer) == 4
    assert buffer[:4] == b"back"

    assert await tunnel.send_many([b"1", b"2"]) == 2
    got = []
    while len(got) < 2:
        got += [data for data, _ in await server.recv_many()]
    assert sorted(got) == [b"1", b"2"]
    assert await server.send_many([b"3", b"4"], peer) == 2
    got = []
    while len(got) < 2:
        got += await tunnel.recv_many()
    assert sorted(got) == [b"3", b"4"]


@aio_test
async def test_iterating_gives_datagrams_until_the_end(server, tunnel, peer):
    async def echo():
        async for data, client in server:
            await server.send_to(data, client)

    task = asyncio.create_task(echo())
    for number in range(100):
        await tunnel.send(b"%d" % number)
        assert await tunnel.recv() == b"%d" % number
    await server.close()
    await asyncio.wait_for(task, ENOUGH)

    await tunnel.close()
    assert [data async for data in tunnel] == []


@aio_test
async def test_ten_thousand_wake_ups_lose_none(server, tunnel, peer):
    async def echo():
        for _ in range(5_000):
            data, client = await server.recv_from()
            await server.send_to(data, client)

    task = asyncio.create_task(echo())
    for number in range(5_000):
        await tunnel.send(b"%d" % number)
        assert await tunnel.recv() == b"%d" % number
    await task


@aio_test
async def test_timeouts_are_those_of_the_blocking_calls(server, tunnel, peer):
    with pytest.raises(mpt.WouldBlock):
        await tunnel.recv(timeout=0)
    begin = time.monotonic()
    with pytest.raises(mpt.TimedOut, match="timed out after 0.1 s"):
        await tunnel.recv(timeout=0.1)
    assert time.monotonic() - begin >= 0.1
    tunnel.settimeout(0.05)
    with pytest.raises(TimeoutError):
        await tunnel.recv()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await tunnel.recv(timeout=None)


@aio_test
async def test_a_timeout_is_a_number_of_seconds(server, tunnel, peer):
    await server.send_to(b"is not taken", peer)
    for wrong, kind in (
        ("1", TypeError),
        ([], TypeError),
        (-1, ValueError),
        (float("nan"), ValueError),
    ):
        for call in (
            tunnel.recv(timeout=wrong),
            tunnel.recv_many(timeout=wrong),
            tunnel.send(b"x", timeout=wrong),
            tunnel.send_many([b"x"], timeout=wrong),
            tunnel.wait_ready(wrong),
            tunnel.next_event(timeout=wrong),
            server.recv_from(timeout=wrong),
            server.wait_ready(wrong),
        ):
            with pytest.raises(kind, match="timeout"):
                await call
    assert await tunnel.recv(timeout=float("inf")) == b"is not taken"


@aio_test
async def test_a_cancelled_receive_has_taken_nothing(server, tunnel, peer):
    """Cancelled at every moment there is: before, while and after the datagram comes."""
    for number in range(300):
        task = asyncio.create_task(tunnel.recv())
        for _ in range(number % 5):
            await asyncio.sleep(0)
        await server.send_to(b"%d" % number, peer)
        for _ in range(number % 7):
            await asyncio.sleep(0)
        task.cancel()
        try:
            data = await task
        except asyncio.CancelledError:
            data = await tunnel.recv()
        assert data == b"%d" % number
    with pytest.raises(BlockingIOError):
        await tunnel.recv(timeout=0)


@aio_test
async def test_one_of_two_that_wait_is_cancelled_and_the_other_gets_the_datagram(
    server, tunnel, peer
):
    first, second = (asyncio.create_task(tunnel.recv()) for _ in range(2))
    await asyncio.sleep(0)
    await server.send_to(b"for one", peer)
    first.cancel()
    assert await asyncio.wait_for(second, ENOUGH) == b"for one"


@aio_test
async def test_many_tasks_share_a_tunnel(server, tunnel, peer):
    tasks = [asyncio.create_task(tunnel.recv()) for _ in range(50)]
    await asyncio.sleep(0)
    await server.send_many([b"%d" % number for number in range(50)], peer)
    got = await asyncio.wait_for(asyncio.gather(*tasks), ENOUGH)
    assert sorted(map(int, got)) == list(range(50))


@aio_test
async def test_a_flood_leaves_the_others_their_turn(server, tunnel, peer):
    turns = 0

    async def bystander():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    await server.send_many([b"x"] * 2_000, peer)
    task = asyncio.create_task(bystander())
    for _ in range(2_000):
        await tunnel.recv()
    task.cancel()
    assert turns >= 20


@aio_test
async def test_events_come_while_datagrams_lie_unread(server, tunnel, peer):
    await server.send_to(b"unread", peer)
    loop = asyncio.get_running_loop()
    before = [event.kind async for event in tunnel.events(timeout=0)]
    assert mpt.EventKind.CONNECTED in before

    waiting = asyncio.create_task(tunnel.next_event())
    await asyncio.sleep(0.05)
    begin, spun = time.process_time(), loop.time()
    await asyncio.sleep(0.2)
    assert time.process_time() - begin < 0.5 * (loop.time() - spun), "the loop spins"
    path = tunnel.add_path(f"to={address(server)} name=second")
    event = await asyncio.wait_for(waiting, ENOUGH)
    assert (event.kind, event.path, event.name) == ("path_up", path.id, "second")
    assert await tunnel.recv() == b"unread"


@aio_test
async def test_unread_events_do_not_make_the_loop_spin_or_hide_datagrams(server, tunnel, peer):
    assert [event async for event in tunnel.events(timeout=0)]
    waiting = asyncio.create_task(tunnel.recv())
    tunnel.add_path(f"to={address(server)} name=second")
    while sum(path.up for path in tunnel.paths) < 2:
        await asyncio.sleep(0.002)
    begin = time.process_time()
    await asyncio.sleep(0.2)
    assert time.process_time() - begin < 0.1, "the loop spins"
    await server.send_to(b"data", peer)
    assert await asyncio.wait_for(waiting, ENOUGH) == b"data"
    assert (await tunnel.next_event(timeout=0)).kind == "path_up"


@aio_test
async def test_datagrams_that_nobody_wants_do_not_make_the_loop_spin(server, tunnel, peer):
    task = asyncio.create_task(tunnel.recv())
    await server.send_to(b"wanted", peer)
    assert await task == b"wanted"
    await server.send_to(b"unwanted", peer)
    await asyncio.sleep(0.05)
    begin = time.process_time()
    await asyncio.sleep(0.2)
    assert time.process_time() - begin < 0.1, "the loop spins"
    assert await tunnel.recv() == b"unwanted"


@aio_test
async def test_closing_ends_those_who_wait(server, tunnel, peer):
    tasks = [
        asyncio.create_task(tunnel.recv()),
        asyncio.create_task(tunnel.recv()),
        asyncio.create_task(server.recv_from()),
        asyncio.create_task(tunnel.recv_many()),
    ]
    await asyncio.sleep(0)
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    await asyncio.gather(tunnel.close(), server.close(), tunnel.close())
    ticking.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, mpt.Closed)
    assert tunnel.closed and tunnel.fileno() == -1
    with pytest.raises(mpt.Closed):
        await tunnel.recv()
    with pytest.raises(mpt.Closed):
        await tunnel.next_event()
    with pytest.raises(mpt.Closed):
        await tunnel.send(b"x")
    assert ticks >= 1


def test_what_is_not_connected_says_why(key):
    async def main():
        async with aio.open("127.0.0.1:9", key=key) as tunnel:
            with pytest.raises(mpt.NotConnected, match="not connected: .+"):
                await tunnel.wait_ready(0.2)
            with pytest.raises(mpt.NotConnected):
                await tunnel.wait_ready(0)

    asyncio.run(main())


def test_several_wait_for_readiness_and_for_events(key):
    async def main():
        async with aio.listen("127.0.0.1:0", key=key) as server:
            async with aio.open(address(server), key=key) as tunnel:
                ready = [asyncio.create_task(tunnel.wait_ready(ENOUGH)) for _ in range(5)]
                event = asyncio.create_task(tunnel.next_event(timeout=ENOUGH))
                begin = time.process_time()
                await asyncio.gather(*ready, event)
                assert time.process_time() - begin < 1, "those who wait keep waking each other"
                assert event.result().kind == "connected"

    asyncio.run(main())


def test_an_endpoint_moves_to_another_loop_when_nobody_waits(key):
    server = aio.listen("127.0.0.1:0", key=key)
    tunnel = aio.open(address(server), key=key)

    async def ping():
        await tunnel.wait_ready(ENOUGH)
        await tunnel.send(b"x")
        return (await server.recv_from(timeout=ENOUGH))[0]

    assert asyncio.run(ping()) == b"x"
    assert asyncio.run(ping()) == b"x"

    async def close():
        await tunnel.close()
        await server.close()

    asyncio.run(close())


def test_a_forgotten_endpoint_warns(key):
    async def main():
        aio.listen("127.0.0.1:0", key=key)

    with pytest.warns(ResourceWarning, match="unclosed <mptunnel.Server"):
        asyncio.run(main())
        gc.collect()


def test_cancelling_a_close_does_not_stop_it(key):
    async def main():
        server = aio.listen("127.0.0.1:0", key=key)
        task = asyncio.create_task(server.close())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not server.closed:
            await asyncio.sleep(0.001)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
        gc.collect()
