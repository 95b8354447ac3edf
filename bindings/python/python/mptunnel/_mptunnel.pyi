# SPDX-License-Identifier: BSD-2-Clause
from collections.abc import Iterable, Sequence
from types import EllipsisType
from typing import Literal, Self, final

from typing_extensions import Buffer, disjoint_base

from mptunnel._types import Event, Message, Path, Session, Stats, Traffic

__all__ = [
    "Peer",
    "Server",
    "Tunnel",
    "__version__",
    "generate_key",
    "log_fd",
    "option_table",
    "path_words",
    "reset_log",
    "set_log_level",
    "take_log",
]

__version__: str

@disjoint_base
class Tunnel:
    """The client's end: see `mptunnel.Tunnel`, which adds what Python says better."""
    def __new__(
        cls,
        uri: str,
        options: Sequence[tuple[str, str]],
        paths: Sequence[str],
        key: bytes | None,
        timeout: float | None,
    ) -> Self: ...
    def send(
        self,
        data: Buffer,
        *,
        flow: int = 0,
        copies: int = 0,
        path: Path | int | None = None,
        deadline: float | None = None,
        timeout: float | EllipsisType | None = ...,
    ) -> int:
        """Send one datagram of up to `max_payload` bytes, over all paths. Return its length.

        data
            Any bytes-like object, which is not kept.
        flow
            0 for a server that uses the library; 1 to 65534 behind an `mpserver`: each is an
            application of its own for the target there.
        copies
            Send over the so many best paths only; 0: as the policy says.
        path
            Send over this `Path` only, or the path with this id.
        deadline
            Seconds after which the datagram is of no use. It is never queued at this end: this
            bounds the wait for room.
        timeout
            Seconds to wait while *all* sockets are full. A send never waits for the network.

        Raises `NotConnected`, `NoPath` or `Refused`: nothing was sent, the tunnel goes on trying;
        `PayloadTooLarge`; `WouldBlock` or `TimedOut` while all sockets are full; `UnknownPath`;
        `Interrupted`, `Closed`, `Forked`, `Failed`. Any thread may call it at any time.
        """
    def send_many(
        self,
        datagrams: Iterable[Buffer],
        *,
        flow: int = 0,
        copies: int = 0,
        path: Path | int | None = None,
        deadline: float | None = None,
        timeout: float | EllipsisType | None = ...,
    ) -> int:
        """Send datagrams in order, in few system calls. Return how many were taken, the first ones.

        datagrams
            An iterable of bytes-like objects.
        flow, copies, path, deadline, timeout
            As for `send`, for all of them.

        Raises what `send` raises, if the first one could not be sent. Other threads run while a
        batch of more than 32 KiB is encrypted and sent.
        """
    def recv(self, *, timeout: float | EllipsisType | None = ...) -> bytes:
        """Take the next datagram, which is empty if an empty one was sent.

        Raises `TimedOut` after `timeout` seconds, or `WouldBlock` if that is 0; `Interrupted`,
        `Closed`, `Forked`, `Failed`. Any thread may call it at any time; each datagram goes to one
        of them.
        """
    def _recv_nowait(self) -> bytes | None:
        """Take the next datagram, or return `None` if there is none now."""
    def recv_into(self, buffer: Buffer, *, timeout: float | EllipsisType | None = ...) -> int:
        """Take the next datagram into the beginning of a writable buffer. Return its length.

        Raises `BufferTooSmall` if it does not fit: it is kept. Otherwise as `recv`.
        """
    def recv_message(self, *, timeout: float | EllipsisType | None = ...) -> Message:
        """Take the next datagram, with the path that brought it and the time of its arrival.

        Raises what `recv` raises.
        """
    def recv_many(
        self, max_count: int = 64, *, timeout: float | EllipsisType | None = ...
    ) -> list[bytes]:
        """Wait for a datagram, and take all that are there, at most `max_count`.

        Raises what `recv` raises.
        """
    def wait_ready(self, timeout: float | EllipsisType | None = ...) -> None:
        """Wait until there is a session and a path that answers.

        Raises `Refused` with the server's reason; after `timeout` seconds `NotConnected` with what
        is known of the reason; `Interrupted`, `Closed`, `Forked`, `Failed`.
        """
    def next_event(self, *, timeout: float | EllipsisType | None = ...) -> Event:
        """Take the next piece of news, the oldest first. See also `events`.

        From the first call on, events make the descriptor readable as well.

        Raises `TimedOut` after `timeout` seconds, or `WouldBlock` if that is 0; `Interrupted`,
        `Closed`, `Forked`.
        """
    def interrupt(self) -> None:
        """Make every call that waits at present, in any thread, raise `Interrupted`."""
    def settimeout(self, timeout: float | None) -> None:
        """Set the timeout of calls that give none, in seconds: `None` waits for ever, 0 never."""
    def gettimeout(self) -> float | None:
        """Return the timeout of calls that give none, in seconds; `None` waits for ever."""
    def fileno(self) -> int:
        """Return the descriptor for `select`, `poll` and event loops; -1 once closed.

        It is readable while `recv` with a timeout of 0 would return something, or `next_event` once
        that was called. Level-triggered. Nobody may read from it, write to it or close it.
        """
    def close(self) -> None:
        """Say goodbye and stop, within three seconds at most. Calls that wait raise `Closed`.

        Closing again does nothing.
        """
    def add_path(self, words: str) -> Path:
        """Add a path, described in the words of `open`. Return it as it is now, not connected yet.

        Raises `ConfigError` for wrong words, or if there are 32 paths.
        """
    def set_path(self, path: Path | int, word: str, value: str) -> None:
        """Change one word of a path while it runs, such as `t.set_path(path, "role", "backup")`.

        Raises `ConfigError` for a wrong word or value, `UnknownPath`.
        """
    def remove_path(self, path: Path | int) -> None:
        """Remove a path, a `Path` or its id, which is never used again.

        Raises `UnknownPath`.
        """
    def metrics(self, format: Literal["json", "prometheus"] = ...) -> str:
        """Return everything that can be seen of the tunnel as text: `"json"` or `"prometheus"`."""
    def _get(self, key: str) -> str | None:
        """The value of an option, as text."""
    def _set(self, key: str, value: str) -> None:
        """Change an option, given as text."""
    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
    @property
    def max_payload(self) -> int:
        """The largest datagram that can be sent, in bytes: what both ends accept."""
    @property
    def key_id(self) -> str:
        """The id of the key in use, for comparing both ends. Not secret."""
    @property
    def paths(self) -> tuple[Path, ...]:
        """All paths as they are now, a tuple of `Path`."""
    @property
    def stats(self) -> Stats:
        """Counters of the tunnel, a `Stats`."""

@disjoint_base
class Server:
    """The server's end: see `mptunnel.Server`, which adds what Python says better."""
    def __new__(
        cls,
        addr: str,
        options: Sequence[tuple[str, str]],
        key: bytes | None,
        timeout: float | None,
    ) -> Self: ...
    def send_to(
        self,
        data: Buffer,
        peer: Peer | int,
        *,
        copies: int = 0,
        path: Path | int | None = None,
        deadline: float | None = None,
        timeout: float | EllipsisType | None = ...,
    ) -> int:
        """Send one datagram to a client over all its paths. Return its length.

        data
            Any bytes-like object, which is not kept.
        peer
            The `Peer` that `recv_from` returned, or its id.
        copies
            Send over the so many best paths only; 0: as the policy says.
        path
            Send over this `Path` only, or the path with this id.
        deadline
            Seconds after which the datagram is of no use. It is never queued at this end: this
            bounds the wait for room.
        timeout
            Seconds to wait while *all* sockets are full. A send never waits for the network.

        Raises `UnknownPeer` if the client is gone; `NoPath`: nothing was sent; `PayloadTooLarge`;
        `WouldBlock` or `TimedOut` while all sockets are full; `Interrupted`, `Closed`, `Forked`,
        `Failed`. Any thread may call it at any time.
        """
    def send_many(
        self,
        datagrams: Iterable[Buffer],
        peer: Peer | int,
        *,
        copies: int = 0,
        path: Path | int | None = None,
        deadline: float | None = None,
        timeout: float | EllipsisType | None = ...,
    ) -> int:
        """Send datagrams to one client, in few system calls. Return how many were taken.

        datagrams
            An iterable of bytes-like objects.
        peer, copies, path, deadline, timeout
            As for `send_to`, for all of them.

        Raises what `send_to` raises, if the first one could not be sent. Other threads run while a
        batch of more than 32 KiB is encrypted and sent.
        """
    def recv_from(self, *, timeout: float | EllipsisType | None = ...) -> tuple[bytes, Peer]:
        """Take the next datagram of any client, and return it with its `Peer`.

        Raises `TimedOut` after `timeout` seconds, or `WouldBlock` if that is 0; `Interrupted`,
        `Closed`, `Forked`, `Failed`. Any thread may call it at any time; each datagram goes to one
        of them.
        """
    def _recv_from_nowait(self) -> tuple[bytes, Peer] | None:
        """Take the next datagram, or return `None` if there is none now."""
    def recv_from_into(
        self, buffer: Buffer, *, timeout: float | EllipsisType | None = ...
    ) -> tuple[int, Peer]:
        """Take the next datagram into the beginning of a writable buffer. Return its length.

        Raises `BufferTooSmall` if it does not fit: it is kept. Otherwise as `recv_from`.
        """
    def recv_message(self, *, timeout: float | EllipsisType | None = ...) -> Message:
        """Take the next datagram, with the path that brought it and the time of its arrival.

        Raises what `recv_from` raises.
        """
    def recv_many(
        self, max_count: int = 64, *, timeout: float | EllipsisType | None = ...
    ) -> list[tuple[bytes, Peer]]:
        """Wait for a datagram, and take those that are there, at most `max_count`.

        Raises what `recv_from` raises.
        """
    def wait_ready(self, timeout: float | EllipsisType | None = ...) -> None:
        """Wait until a client is connected and one of its paths is up.

        Raises `TimedOut` after `timeout` seconds, or `WouldBlock` if that is 0; `Interrupted`,
        `Closed`, `Forked`, `Failed`.
        """
    def next_event(self, *, timeout: float | EllipsisType | None = ...) -> Event:
        """Take the next piece of news, the oldest first. See also `events`.

        From the first call on, events make the descriptor readable as well.

        Raises `TimedOut` after `timeout` seconds, or `WouldBlock` if that is 0; `Interrupted`,
        `Closed`, `Forked`.
        """
    def interrupt(self) -> None:
        """Make every call that waits at present, in any thread, raise `Interrupted`."""
    def settimeout(self, timeout: float | None) -> None:
        """Set the timeout of calls that give none, in seconds: `None` waits for ever, 0 never."""
    def gettimeout(self) -> float | None:
        """Return the timeout of calls that give none, in seconds; `None` waits for ever."""
    def fileno(self) -> int:
        """Return the descriptor for `select`, `poll` and event loops; -1 once closed.

        It is readable while `recv_from` with a timeout of 0 would return something, or `next_event`
        once that was called. Level-triggered. Nobody may read from it, write to it or close it.
        """
    def close(self) -> None:
        """Say goodbye and stop, within three seconds at most. Calls that wait raise `Closed`.

        Closing again does nothing.
        """
    def metrics(self, format: Literal["json", "prometheus"] = ...) -> str:
        """Return everything that can be seen of the server as text: `"json"` or `"prometheus"`."""
    def _get(self, key: str) -> str | None:
        """The value of an option, as text."""
    def _set(self, key: str, value: str) -> None:
        """Change an option, given as text."""
    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
    @property
    def max_payload(self) -> int:
        """The largest datagram that this end accepts, in bytes; a client may accept less."""
    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of the keys in use, for comparing both ends. Not secret."""
    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Where it listens: a tuple of pairs, address and port."""
    @property
    def peers(self) -> tuple[Peer, ...]:
        """All clients, a tuple of `Peer`, in the order in which they came."""
    @property
    def stats(self) -> Stats:
        """Counters of the whole server, a `Stats`."""

@final
class Peer:
    """A client of a server, as the address of datagrams. Two for the same client are equal."""
    @property
    def id(self) -> int:
        """Its number, which no other client of this server ever has."""
    @property
    def flow(self) -> int:
        """Which application behind an mpclient; 0 for one that uses the library itself."""
    @property
    def restarts(self) -> int:
        """How often its process was restarted.

        Raises `UnknownPeer` if the client is gone.
        """
    @property
    def paths(self) -> tuple[Path, ...]:
        """Its paths as they are now, a tuple of `Path`.

        Raises `UnknownPeer` if the client is gone.
        """
    @property
    def traffic(self) -> Traffic:
        """What went over all its paths, those of its earlier processes included, a `Traffic`.

        Raises `UnknownPeer` if the client is gone.
        """
    @property
    def session(self) -> Session:
        """Its tunnel as a whole, a `Session`.

        Raises `UnknownPeer` if the client is gone.
        """
    @property
    def mode(self) -> str:
        """The option `mode` that counts for it, in both directions: it may have been set at its end.

        Raises `UnknownPeer` if the client is gone.
        """
    @property
    def cipher(self) -> str:
        """What its packets are sealed with: `chacha20-poly1305` or `aes-256-gcm`; `none` under the
        legacy protocol.

        Raises `UnknownPeer` if the client is gone.
        """
    @property
    def window(self) -> int:
        """How many packets its receive window remembers.

        Raises `UnknownPeer` if the client is gone.
        """
    def dismiss(self) -> None:
        """End its session, for good: the client is told, and does not try again."""
    def __int__(self) -> int: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

def generate_key() -> str:
    """A new key: 32 bytes from the system's random source, as 44 characters of base64."""

def option_table() -> list[tuple[str, str, str, list[str], str | None, str, str, bool, bool, bool]]:
    """The option table: what each option is called, takes and means."""

def path_words() -> list[tuple[str, str, str]]:
    """The words that describe a path: each with its form, what its value may be, and what it means."""

def log_fd() -> int:
    """The descriptor that is readable while `take_log` has something; made at the first call."""

def take_log() -> tuple[list[tuple[float, int, str, str]], int]:
    """All lines that are there, and how many there was no room for."""

def set_log_level(level: int) -> None:
    """Log lines from this level of `logging` on; the others cost nothing."""

def reset_log() -> None:
    """In the child, after a fork: an empty queue with a descriptor of its own."""
