# SPDX-License-Identifier: BSD-2-Clause
"""The two ends of a tunnel, blocking: what Python adds to the classes of the extension module."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import NoReturn, Self, Unpack

from mptunnel import _logging, _mptunnel, _options
from mptunnel._errors import Closed, TimedOut, WouldBlock
from mptunnel._options import ClientOptions, ServerOptions
from mptunnel._types import Event


class Tunnel(_mptunnel.Tunnel):
    """The client's end of a multipath tunnel; `mptunnel.open` makes one.

    Datagrams go over all paths; the first copy of each is delivered, whole and once, or none is.
    Whatever can be healed heals by itself: paths come and go, either end may be restarted.

    Any thread may call any method at any time. Calls that may wait take `timeout`: `None` waits for
    ever, 0 never, else seconds. Calls that give none take that of `settimeout`, at first `None`.
    While a call waits, other threads run and Ctrl-C works.

    Close it, or use it in a `with` statement: one that is forgotten warns with `ResourceWarning`.
    In a child after `fork` every call raises `Forked`: open a new one there.
    """

    __slots__ = ("__weakref__", "_pid")
    _pid: int

    def __new__(
        cls,
        uri: str,
        *,
        paths: Iterable[str] | None = None,
        key: str | bytes | None = None,
        timeout: float | None = None,
        **options: Unpack[ClientOptions],
    ) -> Self:
        """Open a tunnel: see `mptunnel.open`."""
        if not isinstance(uri, str):
            raise TypeError(
                f"uri must be a text such as 'mpt://HOST:PORT', not '{type(uri).__name__}'"
            )
        pairs = _options.pairs("open", options)
        words = _options.words(paths)
        _logging.start()
        self = super().__new__(cls, uri, pairs, words, _options.key_bytes(key), timeout)
        self._pid = os.getpid()
        return self

    def events(self, *, timeout: float | None = None) -> Iterator[Event]:
        """Iterate over the news of the tunnel, the oldest first.

        Ends when the tunnel is closed, or when nothing happened for `timeout` seconds; 0 gives what
        is there. The library keeps 1024 events for who does not ask.
        """
        return _events(self.next_event, timeout)

    def get(self, option: str) -> str | None:
        """Return the value of an option as text, or `None` if it is not set."""
        return self._get(_options.option_of(option).key)

    def set(self, option: str, value: object) -> None:
        """Change an option while the endpoint is open: one whose `live` is true in
        `mptunnel.OPTIONS`.

        Raises `ConfigError` for a wrong value, or an option that cannot change now.
        """
        found = _options.option_of(option)
        self._set(found.key, _options.text_of(found, value))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        _forgotten(self, self._pid)

    def __repr__(self) -> str:
        return f"<mptunnel.Tunnel {_state(self)}>"

    def __reduce__(self) -> NoReturn:
        _not_portable()


class Server(_mptunnel.Server):
    """The server's end of many tunnels, behind one port; `mptunnel.listen` makes one.

    Any thread may call any method at any time. Calls that may wait take `timeout`: `None` waits for
    ever, 0 never, else seconds. Calls that give none take that of `settimeout`, at first `None`.
    While a call waits, other threads run and Ctrl-C works.

    Close it, or use it in a `with` statement: one that is forgotten warns with `ResourceWarning`.
    In a child after `fork` every call raises `Forked`: open a new one there.
    """

    __slots__ = ("__weakref__", "_pid")
    _pid: int

    def __new__(
        cls,
        addr: str | int,
        *,
        key: str | bytes | None = None,
        timeout: float | None = None,
        **options: Unpack[ServerOptions],
    ) -> Self:
        """Listen for tunnels: see `mptunnel.listen`."""
        if isinstance(addr, bool) or not isinstance(addr, str | int):
            kind = type(addr).__name__
            raise TypeError(f"addr must be a text such as '[::]:4000' or a port, not '{kind}'")
        if isinstance(addr, int):
            addr = _options.bounded(addr)
        pairs = _options.pairs("listen", options)
        _logging.start()
        self = super().__new__(cls, str(addr), pairs, _options.key_bytes(key), timeout)
        self._pid = os.getpid()
        return self

    def events(self, *, timeout: float | None = None) -> Iterator[Event]:
        """Iterate over the news of the server and its clients, the oldest first.

        Ends when the server is closed, or when nothing happened for `timeout` seconds; 0 gives what
        is there. The library keeps 1024 events for who does not ask.
        """
        return _events(self.next_event, timeout)

    def get(self, option: str) -> str | None:
        """Return the value of an option as text, or `None` if it is not set."""
        return self._get(_options.option_of(option).key)

    def set(self, option: str, value: object) -> None:
        """Change an option while the endpoint is open: one whose `live` is true in
        `mptunnel.OPTIONS`.

        Raises `ConfigError` for a wrong value, or an option that cannot change now.
        """
        found = _options.option_of(option)
        self._set(found.key, _options.text_of(found, value))

    def getsockname(self) -> tuple[str, int]:
        """Return the first address that the server listens on, as `socket` does: host, port."""
        return self.addresses[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        _forgotten(self, self._pid)

    def __repr__(self) -> str:
        return f"<mptunnel.Server {_state(self)}>"

    def __reduce__(self) -> NoReturn:
        _not_portable()


def open(
    uri: str,
    *,
    paths: Iterable[str] | None = None,
    key: str | bytes | None = None,
    timeout: float | None = None,
    **options: Unpack[ClientOptions],
) -> Tunnel:
    """Open a tunnel to a server, and begin to connect. Returns at once: see `Tunnel.wait_ready`.

    uri
        `"mpt://HOST:PORT"`, with options and paths behind a question mark if you like:
        `"mpt://vpn.example.org:4000?key-file=/etc/mpt.key&path=if=eth0&path=if=wwan0"`.
        `"HOST:PORT"` alone does as well.
    paths
        The paths to use, each in words (see below), such as `"to=bridge1.example:4000 if=wwan0"`.
        With none (`None`) there is one path straight to the server, by whatever route there is. A
        path that cannot be opened now is no error: it waits and tries again.
    key
        The key that both ends share, in place of `key_file`: what `genkey` returned, or 32 bytes.
    timeout
        What `settimeout` would be told, seconds or `None`.

    Raises `ConfigError` for wrong options, a missing or unusable key, or no path at all;
    `SystemFailure` if the system has no threads, descriptors or randomness; `TypeError` for a
    keyword that does not exist.
    """
    return Tunnel(uri, paths=paths, key=key, timeout=timeout, **options)


def listen(
    addr: str | int,
    *,
    key: str | bytes | None = None,
    timeout: float | None = None,
    **options: Unpack[ServerOptions],
) -> Server:
    """Listen for tunnels. The server serves any number of clients behind one port.

    addr
        `"ADDR:PORT"` with an IP address, such as `"[::]:4000"`; a port alone listens on all
        addresses; port 0 lets the system choose (`Server.addresses` tells). Or
        `"mpt-listen://ADDR:PORT?key-file=/etc/mpt.key"`.
    key
        The key that both ends share, in place of `key_file`: what `genkey` returned, or 32 bytes.
    timeout
        What `settimeout` would be told, seconds or `None`.

    Raises `ConfigError` for wrong options, or a missing or unusable key; `SystemFailure` if the
    address cannot be bound; `TypeError` for a keyword that does not exist.
    """
    return Server(addr, key=key, timeout=timeout, **options)


def genkey() -> str:
    """Return a new key for both ends: 32 bytes from the system's random source, in base64.

    Keep it in a file that only you can read, for `key_file`; `python -m mptunnel genkey -o FILE`
    makes one. Whoever has the key *is* the peer.
    """
    return _mptunnel.generate_key()


open.__doc__ = f"{open.__doc__}\n{_options.path_manual()}\n\n{_options.manual('client')}\n"
listen.__doc__ = f"{listen.__doc__}\n{_options.manual('server')}\n"


def _events(next_event: Callable[..., Event], timeout: float | None) -> Iterator[Event]:
    while True:
        try:
            yield next_event(timeout=timeout)
        except (Closed, TimedOut, WouldBlock):
            return


def _state(endpoint: _mptunnel.Tunnel | _mptunnel.Server) -> str:
    return "closed" if endpoint.closed else f"fd={endpoint.fileno()}"


def _forgotten(
    endpoint: _mptunnel.Tunnel | _mptunnel.Server,
    pid: int,
    # Bound early: at the end of the interpreter, modules are emptied.
    warn: Callable[..., None] = warnings.warn,
    getpid: Callable[[], int] = os.getpid,
) -> None:
    """Closes an endpoint that nobody closed."""
    # In a forked child it is still the parent's.
    if endpoint.closed or pid != getpid():
        return
    warn(f"unclosed {endpoint!r}", ResourceWarning, stacklevel=2, source=endpoint)
    endpoint.close()


def _not_portable() -> NoReturn:
    raise TypeError("an endpoint cannot be pickled: open one in the other process")


for _thing in (Tunnel, Server, open, listen, genkey):
    _thing.__module__ = "mptunnel"
