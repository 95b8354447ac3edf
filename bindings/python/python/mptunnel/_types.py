# SPDX-License-Identifier: BSD-2-Clause
"""What can be seen of an endpoint: frozen objects, each a snapshot.

Times are in seconds, sizes in bytes. Counters only grow, and reading does not clear them.
"""

from dataclasses import dataclass
from enum import StrEnum

from mptunnel import _mptunnel

__all__ = ["Drop", "Event", "EventKind", "Message", "Option", "Path", "PathStats", "Stats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStats:
    """What was measured on a path. `None`: not yet."""

    rtt: float | None
    """Smoothed round trip, seconds (RFC 6298)."""
    last_rtt: float | None
    """The latest round trip, seconds."""
    min_rtt: float | None
    """The shortest round trip, seconds."""
    jitter: float
    """Jitter of what arrives, seconds (RFC 3550)."""
    loss_out: float | None
    """Fraction lost on the way out, 0 to 1."""
    loss_in: float | None
    """Fraction lost on the way in, 0 to 1."""
    sent: int
    """Packets sent, copies and control included."""
    sent_bytes: int
    """Bytes of these."""
    send_dropped: int
    """Packets that the socket did not take."""
    received: int
    """Packets received."""
    received_bytes: int
    """Bytes of these."""
    wins: int
    """Packets that this path brought first."""
    duplicates: int
    """Packets that another path had brought before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One path, of a tunnel or of one client of a server."""

    id: int
    """Its number for calls: at a tunnel never used again, at a server the slot and 1."""
    slot: int
    """Its number on the wire, 0 to 31."""
    name: str
    """What the user calls it."""
    words: str
    """What describes it, as `add_path` takes it; empty at a server."""
    up: bool
    """Whether probes are answered (tunnel) or heard (server)."""
    backup: bool
    """Whether it waits until no other path is up."""
    since: float
    """How long `up` has been as it is, seconds; 0 at a server."""
    remote: tuple[str, int] | None
    """Address and port of the other end of its socket; `None` while it has none."""
    max_packet: int
    """The largest packet that fits, bytes of UDP payload; 0 while there is no socket."""
    stats: PathStats
    """What was measured."""

    @property
    def state(self) -> str:
        """`"up"` or `"down"`."""
        return "up" if self.up else "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """How many packets were not delivered for one reason."""

    reason: str
    """`duplicate` for the copies that another path had brought, and so on."""
    count: int
    """How many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Counters of a whole endpoint."""

    connected: bool
    """Whether there is a session (tunnel), or any client (server)."""
    drops: tuple[Drop, ...]
    """Copies removed and packets dropped, by reason."""
    unattributed: int
    """Packets from an address that is no path's."""
    queue_dropped: int
    """Datagrams that the application did not fetch in time."""
    events_dropped: int
    """Events that the application did not fetch in time."""
    socket_errors: int
    """Errors that sockets reported."""
    kernel_dropped: int
    """Arrivals that the kernel dropped because a receive buffer was full."""
    receive_buffer: int
    """Bytes of receive buffer that the system granted to the first socket; 0 without a socket."""
    backend: str
    """Who encrypts."""

    def dropped(self, reason: str) -> int:
        """How many packets were dropped for this reason."""
        return sum(drop.count for drop in self.drops if drop.reason == reason)


class EventKind(StrEnum):
    """What an event is about."""

    CONNECTED = "connected"
    """There is a session where there was none."""
    DISCONNECTED = "disconnected"
    """The session's keys have ended; the client goes on trying."""
    SERVER_SILENT = "server-silent"
    """Nothing authentic has come from the server for `silence` seconds."""
    SERVER_RESTARTED = "server-restarted"
    """The server is another process than before."""
    SERVER_GOING_AWAY = "server-going-away"
    """The server goes away and may come back."""
    REFUSED = "refused"
    """The server refused the client, for `reason`."""
    SERVER_UNDER_LOAD = "server-under-load"
    """The server asked for proof of address."""
    CLOSED = "closed"
    """The peer ended the session for good."""
    PATH_UP = "path-up"
    """The tunnel's `path`, called `name`, answers."""
    PATH_DOWN = "path-down"
    """The tunnel's `path`, called `name`, does not answer, for `reason`."""
    FLOW_CLOSED = "flow-closed"
    """A `flow` ended, with `code`."""
    PEER_UP = "peer-up"
    """The client `peer` connected."""
    PEER_RESTARTED = "peer-restarted"
    """The process of the client `peer` is another one than before."""
    PEER_GONE = "peer-gone"
    """The client `peer` is gone, for `reason`."""
    PEER_PATH_UP = "peer-path-up"
    """A `path` of the client `peer` is in use from `address`."""
    PEER_PATH_MOVED = "peer-path-moved"
    """A `path` of the client `peer` moved to `address`."""
    PEER_PATH_SILENT = "peer-path-silent"
    """A `path` of the client `peer` has gone quiet."""
    UNKNOWN_KEY = "unknown-key"
    """Somebody tried with the key `key_id`, which is not ours."""
    PEER_REFUSED = "peer-refused"
    """A client was refused, for `reason`."""
    REKEYED = "rekeyed"
    """Keys were renewed; nothing was lost."""
    OTHER = "other"
    """Something that this version of the package has no name for; see `text`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A piece of news. `str(event)` is a log line."""

    kind: EventKind
    """What it is about."""
    text: str
    """The same in words."""
    path: int | None = None
    """The id of a tunnel's path, or the slot of a client's."""
    name: str | None = None
    """The name of the path."""
    peer: int | None = None
    """The id of a server's client."""
    reason: str | None = None
    """Why."""
    address: tuple[str, int] | None = None
    """Address and port of the client's path."""
    flow: int | None = None
    """The flow, for users of relays."""
    code: int | None = None
    """Why the flow ended: 2 for lack of room."""
    key_id: str | None = None
    """The id of a key; not secret."""
    silence: float | None = None
    """For how long, seconds."""

    def __post_init__(self) -> None:
        # The library names the kind as text.
        object.__setattr__(self, "kind", EventKind(self.kind))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A datagram, and what is known of it."""

    data: bytes
    """The datagram."""
    time: float
    """When its first copy arrived, seconds, on the clock of `time.monotonic`."""
    path: int | None
    """The id of the path that brought the first copy, if it is known."""
    peer: "_mptunnel.Peer | None"
    """Who sent it; `None` at a tunnel."""
    flow: int
    """Which application behind an `mpclient` or `mpserver` sent it; 0 for one that uses the
    library."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting, as `open` and `listen` take it. `mptunnel.OPTIONS` has all of them."""

    key: str
    """Its name in URIs, files and flags, such as `idle-interval`."""
    keyword: str
    """Its name as a keyword, such as `idle_interval`."""
    kind: str
    """`choice`, `switch`, `duration`, `size`, `count`, `text`, `file`, `public-key`, `listen`."""
    unit: str
    """What a number in a *text* means when it has no unit. As a keyword, a number is in seconds for
    a duration, and otherwise in this unit."""
    choices: tuple[str, ...]
    """The words of a `choice`."""
    default: str | None
    """The default as text; `None`: not set."""
    expected: str
    """What a value looks like, with unit and range."""
    help: str
    """What it means."""
    live: bool
    """Whether an open endpoint takes a new value."""
    client: bool
    """Whether `open` takes it."""
    server: bool
    """Whether `listen` takes it."""


for _name in __all__:
    globals()[_name].__module__ = "mptunnel"
