# SPDX-License-Identifier: BSD-2-Clause
"""Why a call did not do what was asked: one class for each error of the library.

What belongs to a path or a peer comes as an event instead, and what the network sent amiss is a
counter.
"""

from typing import ClassVar

__all__ = [
    "BufferTooSmall",
    "Closed",
    "ConfigError",
    "Error",
    "Failed",
    "Forked",
    "Interrupted",
    "NoPath",
    "NotConnected",
    "PayloadTooLarge",
    "Refused",
    "SystemFailure",
    "TimedOut",
    "UnknownPath",
    "UnknownPeer",
    "Unsupported",
    "WouldBlock",
]


class Error(OSError):
    """A call on an endpoint did not do what was asked.

    `errno` is the nearest error number of the system, `strerror` the library's words, and `code`
    the number that the C interface returns, negative and the same for ever.
    """

    code: ClassVar[int] = -40


class TimedOut(Error, TimeoutError):
    """Nothing happened within the timeout. The endpoint is still usable."""

    code = -2


class WouldBlock(Error, BlockingIOError):
    """Nothing is there now, and the timeout was 0; or every path's socket is full."""

    code = -1


class Interrupted(Error, InterruptedError):
    """Another thread called `interrupt`. The endpoint is still usable."""

    code = -3


class PayloadTooLarge(Error, ValueError):
    """The datagram is longer than both ends accept. Nothing was sent."""

    code = -4


class BufferTooSmall(Error, ValueError):
    """The next datagram is longer than the buffer. It is kept: call again with a larger one."""

    code = -4


class NotConnected(Error, ConnectionError):
    """There is no session yet, or not any more: nothing was sent. Attempts go on by themselves."""

    code = -20


class NoPath(Error, ConnectionError):
    """No path is usable now: nothing was sent. Paths are tried again by themselves."""

    code = -21


class UnknownPeer(Error, LookupError):
    """No such client is connected."""

    code = -22


class UnknownPath(Error, LookupError):
    """There is no such path."""

    code = -23


class Refused(Error, ConnectionRefusedError):
    """The server refused this client. The text says why and what to do."""

    code = -24


class Closed(Error, ConnectionError):
    """The endpoint was closed, by this side or for good by the other."""

    code = -30


class Forked(Error):
    """The endpoint was inherited through `fork`: open a new one in the child."""

    code = -31


class Failed(Error):
    """The endpoint broke an invariant of its own and stopped. Others are not affected; please
    report it."""

    code = -32


class ConfigError(Error, ValueError):
    """An option, path or key is wrong, missing or does not go with another. The text names it."""

    code = -12


class Unsupported(Error):
    """This kind of endpoint, or this build of the library, cannot do that."""

    code = -13


class SystemFailure(Error):
    """The system refused an operation for good. `errno` is the system's."""

    code = -40


for _name in __all__:
    globals()[_name].__module__ = "mptunnel"
