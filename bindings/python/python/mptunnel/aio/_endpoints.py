# SPDX-License-Identifier: BSD-2-Clause
"""Tunnels and servers whose methods are awaited."""

import asyncio
import collections
import contextlib
import errno
import select
from collections.abc import AsyncIterator, Callable, Iterable
from types import EllipsisType, TracebackType
from typing import Literal, Self, TypeVar, Unpack

from mptunnel import _endpoints, _options
from mptunnel._errors import Closed, Error, NotConnected, TimedOut, WouldBlock
from mptunnel._mptunnel import Peer
from mptunnel._options import ClientOptions, ServerOptions
from mptunnel._types import Event, Message, Path, Stats

_AT_ONCE = 64
# Datagrams taken one after the other before others have their turn: however many arrive, the loop
# stays responsive, and cancelling works.

_LOOK_AGAIN = 0.02
# Seconds. Datagrams that nobody takes keep the descriptor readable, so that it cannot tell of
# events: then who waits for these looks again so often.

_FULL = 0.001
# Seconds between attempts to send while all sockets are full: at 1 Gbit/s 80 packets leave one.

_MAX_EVENTS = 1024
# Events kept for who does not ask: as many as the library keeps itself.

_Timeout = float | EllipsisType | None
_Result = TypeVar("_Result")


class _Endpoint:
    """What both ends have in common: waiting for the descriptor.

    It stays with the loop until it is readable and nobody waits: it is level-triggered, and a loop
    that watches what nobody takes would spin.
    """

    def __init__(self, endpoint: _endpoints.Tunnel | _endpoints.Server) -> None:
        self._endpoint = endpoint
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched = -1
        self._receivers: collections.deque[asyncio.Future[None]] = collections.deque()
        self._listeners: collections.deque[asyncio.Future[None]] = collections.deque()
        self._later: asyncio.TimerHandle | None = None
        # Events that were fetched and not asked for; `None` before somebody asks for events.
        self._news: collections.deque[Event] | None = None
        self._in_a_row = 0
        self._closing = False

    async def next_event(self, *, timeout: _Timeout = ...) -> Event:
        """Wait for the next piece of news, the oldest first.

        Raises `TimedOut`, or `WouldBlock` for a timeout of 0; `Closed`.
        """
        return await self._until(self._event_nowait, self._listeners, timeout)

    async def events(self, *, timeout: float | None = None) -> AsyncIterator[Event]:
        """Iterate over the news, the oldest first.

        Ends when the endpoint is closed, or when nothing happened for `timeout` seconds.
        """
        while True:
            try:
                event = await self.next_event(timeout=timeout)
            except (Closed, TimedOut, WouldBlock):
                return
            yield event

    def settimeout(self, timeout: float | None) -> None:
        """Set the timeout of calls that give none, seconds; `None` waits for ever."""
        self._endpoint.settimeout(timeout)

    def gettimeout(self) -> float | None:
        """Return the timeout of calls that give none, seconds; `None` waits for ever."""
        return self._endpoint.gettimeout()

    def fileno(self) -> int:
        """Return the descriptor that the loop watches; -1 once closed."""
        return self._endpoint.fileno()

    def get(self, option: str) -> str | None:
        """Return the value of an option as text, or `None` if it is not set."""
        return self._endpoint.get(option)

    def set(self, option: str, value: object) -> None:
        """Change an option, as `mptunnel.Tunnel.set`."""
        self._endpoint.set(option, value)

    def metrics(self, format: Literal["json", "prometheus"] = "json") -> str:
        """Return everything that can be seen of the endpoint, as text."""
        return self._endpoint.metrics(format)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._endpoint.closed

    @property
    def max_payload(self) -> int:
        """The largest datagram that can be sent, in bytes."""
        return self._endpoint.max_payload

    @property
    def stats(self) -> Stats:
        """Counters of the endpoint."""
        return self._endpoint.stats

    async def close(self) -> None:
        """Say goodbye and stop, within three seconds at most. Calls that wait raise `Closed`.

        The goodbyes are said on a thread, so the loop goes on meanwhile.
        """
        # From here on nobody begins to wait: the number of the descriptor will soon be another's.
        self._closing = True
        self._unwatch()
        loop = asyncio.get_running_loop()
        closing = loop.run_in_executor(None, self._endpoint.close)
        try:
            await asyncio.shield(closing)
        finally:
            self._news = None
            self._wake_all()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._endpoint).replace("mptunnel.", "mptunnel.aio.", 1)

    async def _until(
        self,
        attempt: Callable[[], _Result | None],
        waiters: collections.deque[asyncio.Future[None]],
        timeout: _Timeout,
    ) -> _Result:
        """Waits until `attempt` has a result."""
        limit = self._limit(timeout)
        self._in_a_row += 1
        if self._in_a_row >= _AT_ONCE:
            self._in_a_row = 0
            await asyncio.sleep(0)
        # Nothing is awaited between an attempt and the return: what it took is never lost.
        if (result := attempt()) is not None:
            return result
        if limit is not None and limit <= 0:
            raise WouldBlock(errno.EAGAIN, "the call would have to wait")
        self._in_a_row = 0
        try:
            async with asyncio.timeout(limit):
                while True:
                    await self._wait(waiters)
                    if (result := attempt()) is not None:
                        return result
        except TimeoutError as error:
            if isinstance(error, Error):
                raise
            raise _timed_out(limit) from None

    async def _patiently(
        self,
        attempt: Callable[[], _Result],
        deadline: float | None,
        timeout: _Timeout,
    ) -> _Result:
        """Tries again while all sockets are full, which lasts for a few packets."""
        limit = self._limit(timeout)
        deadline = _options.seconds("deadline", deadline)
        if deadline is not None:
            limit = deadline if limit is None else min(limit, deadline)
        loop = asyncio.get_running_loop()
        end = None if limit is None else loop.time() + limit
        while True:
            try:
                return attempt()
            except WouldBlock:
                if end is not None and loop.time() >= end:
                    if limit == 0:
                        raise
                    raise _timed_out(limit) from None
            await asyncio.sleep(_FULL)

    def _limit(self, timeout: _Timeout) -> float | None:
        """The timeout of a call, by the rules of the blocking calls."""
        if isinstance(timeout, EllipsisType):
            return self._endpoint.gettimeout()
        return _options.seconds("timeout", timeout)

    async def _wait(self, waiters: collections.deque[asyncio.Future[None]]) -> None:
        """Waits until something may have changed."""
        loop = asyncio.get_running_loop()
        self._watch(loop)
        waiter = loop.create_future()
        waiters.append(waiter)
        try:
            await waiter
        finally:
            with contextlib.suppress(ValueError):
                waiters.remove(waiter)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            if self._receivers or self._listeners:
                raise RuntimeError(f"{self!r} is waited for by another event loop")
            self._unwatch()
            self._loop = loop
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._watched < 0:
            descriptor = self._endpoint.fileno()
            if self._closing or descriptor < 0:
                raise Closed(errno.EBADF, "the endpoint is closed")
            loop.add_reader(descriptor, self._on_readable)
            self._watched = descriptor

    def _unwatch(self) -> None:
        loop, self._loop = self._loop, None
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._watched >= 0:
            if loop is not None and not loop.is_closed():
                loop.remove_reader(self._watched)
            self._watched = -1

    def _on_readable(self) -> None:
        if self._news is not None:
            self._fetch_events()
        # One datagram, one receiver: if there are more of both, the loop calls again at once.
        if _wake_first(self._receivers):
            return
        if _is_readable(self._watched):
            # What is left is for nobody who waits.
            loop = self._loop
            self._unwatch()
            if loop is not None and self._listeners:
                self._loop = loop
                self._later = loop.call_later(_LOOK_AGAIN, self._look_again)

    def _look_again(self) -> None:
        self._later = None
        self._fetch_events()
        if self._loop is not None and (self._listeners or self._receivers):
            try:
                self._watch(self._loop)
            except Closed:
                self._wake_all()

    def _fetch_events(self) -> None:
        """Moves all news to this side, and wakes who waits for some."""
        if self._news is None:
            self._news = collections.deque(maxlen=_MAX_EVENTS)
        try:
            while (event := _or_none(self._next_event_now)) is not None:
                self._news.append(event)
                _wake(self._listeners)
        except Error:
            # It is over: who waits finds out by its own attempt.
            self._wake_all()

    def _next_event_now(self) -> Event:
        return self._endpoint.next_event(timeout=0)

    def _event_nowait(self) -> Event | None:
        self._fetch_events()
        if self._news:
            return self._news.popleft()
        return _or_none(self._next_event_now)

    def _wake_all(self) -> None:
        _wake(self._listeners)
        _wake(self._receivers)


class Tunnel(_Endpoint):
    """The client's end of a multipath tunnel, for asyncio; `mptunnel.aio.open` makes one.

    Iterating over it gives the datagrams that arrive, until it is closed.
    """

    _endpoint: _endpoints.Tunnel

    async def send(
        self,
        data: bytes | bytearray | memoryview,
        *,
        flow: int = 0,
        copies: int = 0,
        path: Path | int | None = None,
        deadline: float | None = None,
        timeout: _Timeout = ...,
    ) -> int:
        """Send one datagram, as `mptunnel.Tunnel.send`. Waits only while all sockets are full."""
        return await self._patiently(
            lambda: self._endpoint.send(
                data, flow=flow, copies=copies, path=path, deadline=deadline, timeout=0
            ),
            deadline,
            timeout,
        )

    async def send_many(
        self,
        datagrams: Iterable[bytes | bytearray | memoryview],
        *,
        flow: int = 0,
        copies: int = 0,
        path: Path | int | None = None,
        deadline: float | None = None,
        timeout: _Timeout = ...,
    ) -> int:
        """Send a batch, as `mptunnel.Tunnel.send_many`. Returns how many were taken."""
        batch = list(datagrams)
        return await self._patiently(
            lambda: self._endpoint.send_many(
                batch, flow=flow, copies=copies, path=path, deadline=deadline, timeout=0
            ),
            deadline,
            timeout,
        )

    async def recv(self, *, timeout: _Timeout = ...) -> bytes:
        """Wait for the next datagram.

        Raises `TimedOut`, or `WouldBlock` for a timeout of 0; `Closed`, `Forked`, `Failed`.
        """
        return await self._until(self._endpoint._recv_nowait, self._receivers, timeout)

    async def recv_into(self, buffer: bytearray | memoryview, *, timeout: _Timeout = ...) -> int:
        """Wait for the next datagram, and put it to the beginning of a buffer. Returns its length.

        Raises `BufferTooSmall`: the datagram is kept. Otherwise as `recv`.
        """
        return await self._until(
            lambda: _or_none(lambda: self._endpoint.recv_into(buffer, timeout=0)),
            self._receivers,
            timeout,
        )

    async def recv_many(self, max_count: int = 64, *, timeout: _Timeout = ...) -> list[bytes]:
        """Wait for a datagram, and take those that are there, at most `max_count`."""
        return await self._until(
            lambda: _or_none(lambda: self._endpoint.recv_many(max_count, timeout=0)),
            self._receivers,
            timeout,
        )

    async def recv_message(self, *, timeout: _Timeout = ...) -> Message:
        """Wait for the next datagram, and return it with its path and time of arrival."""
        return await self._until(
            lambda: _or_none(lambda: self._endpoint.recv_message(timeout=0)),
            self._receivers,
            timeout,
        )

    async def wait_ready(self, timeout: _Timeout = ...) -> None:
        """Wait until there is a session and a path that answers.

        Raises `Refused` with the server's reason; after the timeout `NotConnected` with what is
        known of the reason; `Closed`.
        """
        last: NotConnected | None = None

        def attempt() -> bool | None:
            nonlocal last
            # Events tell when to look again. They are kept for who asks for them.
            self._fetch_events()
            try:
                self._endpoint.wait_ready(0)
            except NotConnected as error:
                last = error
                return None
            return True

        try:
            await self._until(attempt, self._listeners, timeout)
        except (TimedOut, WouldBlock) as error:
            raise last or error from None

    @property
    def key_id(self) -> str:
        """The id of the key in use, for comparing both ends. Not secret."""
        return self._endpoint.key_id

    @property
    def paths(self) -> tuple[Path, ...]:
        """All paths as they are now."""
        return self._endpoint.paths

    def add_path(self, words: str) -> Path:
        """Add a path, as `mptunnel.Tunnel.add_path`."""
        return self._endpoint.add_path(words)

    def remove_path(self, path: Path | int) -> None:
        """Remove a path, as `mptunnel.Tunnel.remove_path`."""
        self._endpoint.remove_path(path)

    def set_path(self, path: Path | int, word: str, value: str) -> None:
        """Change a word of a path, as `mptunnel.Tunnel.set_path`."""
        self._endpoint.set_path(path, word, value)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.recv(timeout=None)
        except Closed:
            raise StopAsyncIteration from None


class Server(_Endpoint):
    """The server's end of many tunnels, for asyncio; `mptunnel.aio.listen` makes one.

    Iterating over it gives pairs of a datagram and its client, until it is closed.
    """

    _endpoint: _endpoints.Server

    async def send_to(
        self,
        data: bytes | bytearray | memoryview,
        peer: Peer | int,
        *,
        copies: int = 0,
        path: Path | int | None = None,
        deadline: float | None = None,
        timeout: _Timeout = ...,
    ) -> int:
        """Send one datagram to a client, as `mptunnel.Server.send_to`."""
        return await self._patiently(
            lambda: self._endpoint.send_to(
                data, peer, copies=copies, path=path, deadline=deadline, timeout=0
            ),
            deadline,
            timeout,
        )

    async def send_many(
        self,
        datagrams: Iterable[bytes | bytearray | memoryview],
        peer: Peer | int,
        *,
        copies: int = 0,
        path: Path | int | None = None,
        deadline: float | None = None,
        timeout: _Timeout = ...,
    ) -> int:
        """Send a batch to a client, as `mptunnel.Server.send_many`."""
        batch = list(datagrams)
        return await self._patiently(
            lambda: self._endpoint.send_many(
                batch, peer, copies=copies, path=path, deadline=deadline, timeout=0
            ),
            deadline,
            timeout,
        )

    async def recv_from(self, *, timeout: _Timeout = ...) -> tuple[bytes, Peer]:
        """Wait for the next datagram of any client.

        Raises `TimedOut`, or `WouldBlock` for a timeout of 0; `Closed`, `Forked`, `Failed`.
        """
        return await self._until(self._endpoint._recv_from_nowait, self._receivers, timeout)

    async def recv_from_into(
        self, buffer: bytearray | memoryview, *, timeout: _Timeout = ...
    ) -> tuple[int, Peer]:
        """Wait for the next datagram, and put it to the beginning of a buffer.

        Raises `BufferTooSmall`: the datagram is kept. Otherwise as `recv_from`.
        """
        return await self._until(
            lambda: _or_none(lambda: self._endpoint.recv_from_into(buffer, timeout=0)),
            self._receivers,
            timeout,
        )

    async def recv_many(
        self, max_count: int = 64, *, timeout: _Timeout = ...
    ) -> list[tuple[bytes, Peer]]:
        """Wait for a datagram, and take those that are there, at most `max_count`."""
        return await self._until(
            lambda: _or_none(lambda: self._endpoint.recv_many(max_count, timeout=0)),
            self._receivers,
            timeout,
        )

    async def recv_message(self, *, timeout: _Timeout = ...) -> Message:
        """Wait for the next datagram, and return it with its client, path and time of arrival."""
        return await self._until(
            lambda: _or_none(lambda: self._endpoint.recv_message(timeout=0)),
            self._receivers,
            timeout,
        )

    async def wait_ready(self, timeout: _Timeout = ...) -> None:
        """Wait until a client is connected and one of its paths is up.

        Raises `TimedOut`, or `WouldBlock` for a timeout of 0; `Closed`.
        """

        def attempt() -> bool | None:
            # Events tell when to look again. They are kept for who asks for them.
            self._fetch_events()
            try:
                self._endpoint.wait_ready(0)
            except (WouldBlock, TimedOut):
                return None
            return True

        await self._until(attempt, self._listeners, timeout)

    def getsockname(self) -> tuple[str, int]:
        """Return the first address that the server listens on: host, port."""
        return self._endpoint.getsockname()

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of the keys in use, for comparing both ends. Not secret."""
        return self._endpoint.key_ids

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Where it listens: host and port."""
        return self._endpoint.addresses

    @property
    def peers(self) -> tuple[Peer, ...]:
        """All clients."""
        return self._endpoint.peers

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[bytes, Peer]:
        try:
            return await self.recv_from(timeout=None)
        except Closed:
            raise StopAsyncIteration from None


def open(
    uri: str,
    *,
    paths: Iterable[str] | None = None,
    key: str | bytes | None = None,
    timeout: float | None = None,
    **options: Unpack[ClientOptions],
) -> Tunnel:
    """Open a tunnel for asyncio. Returns at once; the arguments are those of `mptunnel.open`."""
    return Tunnel(_endpoints.open(uri, paths=paths, key=key, timeout=timeout, **options))


def listen(
    addr: str | int,
    *,
    key: str | bytes | None = None,
    timeout: float | None = None,
    **options: Unpack[ServerOptions],
) -> Server:
    """Listen for tunnels, for asyncio. The arguments are those of `mptunnel.listen`."""
    return Server(_endpoints.listen(addr, key=key, timeout=timeout, **options))


def _timed_out(limit: float | None) -> TimedOut:
    return TimedOut(errno.ETIMEDOUT, f"timed out after {limit} s")


def _or_none(attempt: Callable[[], _Result]) -> _Result | None:
    try:
        return attempt()
    except WouldBlock:
        return None


def _wake_first(waiters: collections.deque[asyncio.Future[None]]) -> bool:
    while waiters:
        waiter = waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
            return True
    return False


def _wake(waiters: collections.deque[asyncio.Future[None]]) -> None:
    while _wake_first(waiters):
        pass


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
