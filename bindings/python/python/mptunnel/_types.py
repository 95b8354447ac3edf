# SPDX-License-Identifier: BSD-2-Clause
"""What can be seen of an endpoint: frozen objects, each a snapshot.

Times are in seconds, sizes in bytes. Counters only grow, and reading does not clear them.
"""

import errno
from dataclasses import dataclass
from enum import StrEnum

from mptunnel import _mptunnel

__all__ = [
    "Drop",
    "ErrorCount",
    "Event",
    "EventKind",
    "Losses",
    "Lost",
    "Message",
    "Option",
    "Pair",
    "Path",
    "PathState",
    "PathStats",
    "Queue",
    "Reorder",
    "Session",
    "Span",
    "Stats",
    "Traffic",
    "Worth",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Packets of which it is known what became of them.

    sent
        Packets sent of which the receiving end has told how many arrived, copies and control
        included.
    lost
        Of these, packets that did not arrive.
    """

    sent: int
    lost: int

    @property
    def fraction(self) -> float | None:
        """The fraction that was lost, 0 to 1; `None` if nothing was told of."""
        return self.lost / self.sent if self.sent else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """What was lost in one direction of a path, as the ends tell each other with their probes.

    last_1s
        Told of within the last 1.00 to 1.25 s. Nothing on a path that carries nothing but probes.
    last_10s
        Told of within the last 10 to 11 s, likewise.
    total
        Since there has been this path.
    """

    last_1s: Lost
    last_10s: Lost
    total: Lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What waits on a path whose `rate` is known or learnt, so that it leaves no faster than that.

    packets
        Packets that wait.
    bytes
        Bytes of these: UDP payload.
    delay
        How long a packet that is sent now would wait, seconds.
    rate
        Bytes per second that leave, headers of IPv4 and UDP included; `None` while there is no such
        bound: it is not learnt yet, or was forgotten.
    """

    packets: int
    bytes: int
    delay: float
    rate: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """What a path is worth beside the others, in one direction, by a sample of the datagrams.

    samples
        Datagrams of the sample that were sent on it (of what is received: that came on it).
    arrived
        Of these, datagrams that came on it.
    first
        Datagrams that came on it first.
    only
        Datagrams that came on no other path, though they were sent on others as well (of what is
        received: whether or not they were).
    mean_lead
        How much earlier than the second copy the first one came, on the mean, of those that came
        on it first, seconds; `None`: not measured yet.
    """

    samples: int
    arrived: int
    first: int
    only: int
    mean_lead: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What changed on a path within a span of time that ends now.

    length
        How long it is, seconds.
    sent
        Packets sent, copies and control included, handshakes not.
    sent_bytes
        Bytes of these.
    received
        Packets received.
    received_bytes
        Bytes of these.
    """

    length: float
    sent: int
    sent_bytes: int
    received: int
    received_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCount:
    """How often sockets reported one error.

    errno
        Which one, as in the module `errno`.
    count
        How often. It only grows.
    """

    errno: int
    count: int

    @property
    def name(self) -> str:
        """What the module `errno` calls it, such as `ECONNREFUSED`, or the number."""
        return errno.errorcode.get(self.errno, str(self.errno))


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStats:
    """What was measured on a path. `None`: not yet.

    rtt
        Smoothed round trip, seconds (RFC 6298).
    last_rtt
        The latest round trip, seconds.
    min_rtt
        The shortest round trip, seconds.
    jitter
        Jitter of what arrives, seconds (RFC 3550).
    loss_out
        Fraction lost on the way out, 0 to 1.
    loss_in
        Fraction lost on the way in, 0 to 1.
    sent
        Packets sent, copies and control included, handshakes not.
    sent_bytes
        Bytes of these.
    send_dropped
        Packets that the socket did not take.
    received
        Packets received.
    received_bytes
        Bytes of these.
    wins
        Packets that this path brought first.
    duplicates
        Packets that another path had brought before.
    losses_out
        What was lost of what this end sent, in the last second, in the last ten and ever.
    losses_in
        The same of what the other end sent.
    queue
        What waits to leave at the path's `rate`, or at a server at the `rate-down` that its client
        gave; `None` if it has none.
    worth_out
        What the path is worth to the datagrams that this end sends, as the other end tells.
    worth_in
        What it is worth to the datagrams that this end receives.
    errors
        Errors that its socket reported, by errno; none at a server, whose sockets are no path's
        own: see `Stats.errors`.
    last_1s
        What changed within the last second, 0.9 to 2.5 s; `None` unless somebody has looked about a
        second ago as well, at `paths`, `stats` or `metrics`.
    last_10s
        What changed within the last ten seconds, 9.5 to 13 s, likewise.
    """

    rtt: float | None
    last_rtt: float | None
    min_rtt: float | None
    jitter: float
    loss_out: float | None
    loss_in: float | None
    sent: int
    sent_bytes: int
    send_dropped: int
    received: int
    received_bytes: int
    wins: int
    duplicates: int
    losses_out: Losses
    losses_in: Losses
    queue: Queue | None
    worth_out: Worth
    worth_in: Worth
    errors: tuple[ErrorCount, ...]
    last_1s: Span | None
    last_10s: Span | None


class PathState(StrEnum):
    """What state a path is in.

    STARTING
        Nothing has answered on it yet; at a server: its address is not proven yet.
    UP
        It is in use, or ready to be.
    DOWN
        It has fallen silent, and is tried again and again.
    NO_SOCKET
        A tunnel's path that cannot be tried: its name does not resolve, its interface is missing.
        That is tried again and again.
    OTHER
        One that this version of the package has no name for; see `Path.reason`.
    """

    STARTING = "starting"
    UP = "up"
    DOWN = "down"
    NO_SOCKET = "no_socket"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One path, of a tunnel or of one client of a server.

    id
        Its number for calls: at a tunnel never used again, at a server the slot and 1.
    slot
        Its number on the wire, 0 to 31.
    name
        What the user calls it.
    words
        What describes it, as `add_path` takes it; empty at a server.
    up
        Whether probes are answered (tunnel) or heard (server).
    state
        What state it is in, a `PathState`, which compares with its word: `"up"`, `"down"`, …
    reason
        Why it is in that state, in words for a person.
    since
        How long `up` has been as it is, seconds.
    backup
        Whether it waits until no other path is up.
    remote
        Address and port of the other end of its socket; `None` while it has none.
    local
        Address and port that a tunnel's path sends from; `None` while it has no socket, and at a
        server.
    remote_before
        What `remote` was before it last changed; `None` if it never did.
    local_before
        What `local` was before it last changed, likewise.
    max_packet
        The largest packet that fits, bytes of UDP payload; 0 while there is no socket.
    stats
        What was measured.
    """

    id: int
    slot: int
    name: str
    words: str
    up: bool
    state: PathState
    reason: str
    since: float
    backup: bool
    remote: tuple[str, int] | None
    local: tuple[str, int] | None
    remote_before: tuple[str, int] | None
    local_before: tuple[str, int] | None
    max_packet: int
    stats: PathStats

    def __post_init__(self) -> None:
        # The library names the state as text.
        known = self.state in set(PathState)
        object.__setattr__(self, "state", PathState(self.state) if known else PathState.OTHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """How many packets were not delivered for one reason.

    reason
        `duplicate` for the copies that another path had brought, and so on.
    count
        How many.
    """

    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What went over all paths together, also over those that are gone: never less than before.

    sent
        Packets sent, copies and control included, handshakes not.
    sent_bytes
        Bytes of these.
    send_dropped
        Packets that sockets did not take.
    received
        Packets received.
    received_bytes
        Bytes of these.
    wins
        Packets that were the first of their copies.
    duplicates
        Packets that another path had brought before.
    """

    sent: int
    sent_bytes: int
    send_dropped: int
    received: int
    received_bytes: int
    wins: int
    duplicates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reorder:
    """What became of datagrams that were to be put in order (option `reorder`).

    held
        Waited for an earlier one.
    given_up
        Waited in vain: delivered without all earlier ones, because time or room was over.
    late
        Came after their turn, and were delivered out of order.
    """

    held: int
    given_up: int
    late: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """How much two paths lose together of what this end sends, by a sample of the latest datagrams
    that went on both.

    one
        The id of one of the paths.
    other
        The id of the other one.
    samples
        How many datagrams that is, 1 or more; older ones count less.
    lost_one
        Fraction of these that `one` lost, 0 to 1.
    lost_other
        Fraction that `other` lost, 0 to 1.
    lost_both
        Fraction that both lost, 0 to 1.
    correlation
        The correlation of their losses (phi of the 2×2 table), -1 to 1: 0 where they fail
        independently, 1 where always together; `None` until each has lost something.
    """

    one: int
    other: int
    samples: float
    lost_one: float
    lost_other: float
    lost_both: float
    correlation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One tunnel as a whole: the client's, or that of one client of a server.

    rekeys
        How often keys were renewed.
    peer_restarts
        How often the other end's process was another one than before.
    first_packets
        Packets received for the first time, on all paths together.
    first_bytes
        Bytes of these. Its growth is the goodput, heads of mptunnel and control included.
    copies
        Packets received again, and removed.
    late
        Packets that came when the window had passed them.
    residual_loss_out
        Fraction of the datagrams sent that came on no path, 0 to 1, as the other end tells of the
        latest 4,096 of a sample; `None` until it has told, as with a single path.
    samples_out
        Datagrams sent of which the other end has told what became of them.
    pairs
        Each pair of paths that datagrams of the sample went on; none with a single path, or while
        each datagram goes over one path only.
    """

    rekeys: int
    peer_restarts: int
    first_packets: int
    first_bytes: int
    copies: int
    late: int
    residual_loss_out: float | None
    samples_out: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Counters of a whole endpoint.

    connected
        Whether there is a session (tunnel), or any client (server).
    silent
        Seconds for which the server has not answered on any path, from 5 s on; `None` while it
        does, at a server, and under the legacy protocol. A session outlives about three minutes of
        this.
    traffic
        Of all paths, and of all clients, those that are gone included.
    session
        The tunnel as a whole; `None` at a server, where each `Peer` has its own.
    reorder
        What became of datagrams that were to be put in order.
    drops
        Copies removed and packets dropped, by reason.
    unattributed
        Packets from an address that is no path's.
    queue_dropped
        Datagrams that the application did not fetch in time.
    events_dropped
        Events that the application did not fetch in time.
    socket_errors
        Errors that sockets reported.
    errors
        These by errno, those of paths that are gone included.
    kernel_dropped
        Arrivals that the kernel dropped because a receive buffer was full.
    receive_buffer
        Bytes of receive buffer that the system granted to the first socket; 0 without a socket.
    mode
        The option `mode` that counts in both directions, which may have been set at the server;
        `None` at a server, where each `Peer` has its own, and under the legacy protocol.
    cipher
        What packets are sealed with: `chacha20-poly1305` or `aes-256-gcm`, `none` under the legacy
        protocol; `None` while there is no session, and at a server, where each `Peer` has its own.
    backend
        By which code of the library: `ring` or `soft`.
    """

    connected: bool
    silent: float | None
    traffic: Traffic
    session: Session | None
    reorder: Reorder
    drops: tuple[Drop, ...]
    unattributed: int
    queue_dropped: int
    events_dropped: int
    socket_errors: int
    errors: tuple[ErrorCount, ...]
    kernel_dropped: int
    receive_buffer: int
    mode: str | None
    cipher: str | None
    backend: str

    def dropped(self, reason: str) -> int:
        """How many packets were dropped for this reason."""
        return sum(drop.count for drop in self.drops if drop.reason == reason)


class EventKind(StrEnum):
    """What an event is about.

    CONNECTED
        There is a session where there was none.
    DISCONNECTED
        The session's keys have ended; the client goes on trying.
    SERVER_SILENT
        Nothing authentic has come from the server for `silence` seconds.
    SERVER_RESTARTED
        The server is another process than before.
    SERVER_GOING_AWAY
        The server goes away and may come back.
    REFUSED
        The server refused the client, for `reason`.
    SERVER_UNDER_LOAD
        The server asked for proof of address.
    CLOSED
        The peer ended the session for good.
    PATH_UP
        The tunnel's `path`, called `name`, answers.
    PATH_DOWN
        The tunnel's `path`, called `name`, does not answer, for `reason`.
    FLOW_CLOSED
        A `flow` ended, with `code`.
    PEER_UP
        The client `peer` connected.
    PEER_RESTARTED
        The process of the client `peer` is another one than before.
    PEER_GONE
        The client `peer` is gone, for `reason`.
    PEER_PATH_UP
        A `path` of the client `peer` is in use from `address`.
    PEER_PATH_MOVED
        A `path` of the client `peer` moved to `address`.
    PEER_PATH_SILENT
        A `path` of the client `peer` has gone quiet.
    UNKNOWN_KEY
        Somebody tried with the key `key_id`, which is not ours.
    PEER_REFUSED
        A client was refused, for `reason`.
    REKEYED
        Keys were renewed; nothing was lost.
    OTHER
        Something that this version of the package has no name for; see `text`.
    """

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    SERVER_SILENT = "server_silent"
    SERVER_RESTARTED = "server_restarted"
    SERVER_GOING_AWAY = "server_going_away"
    REFUSED = "refused"
    SERVER_UNDER_LOAD = "server_under_load"
    CLOSED = "closed"
    PATH_UP = "path_up"
    PATH_DOWN = "path_down"
    FLOW_CLOSED = "flow_closed"
    PEER_UP = "peer_up"
    PEER_RESTARTED = "peer_restarted"
    PEER_GONE = "peer_gone"
    PEER_PATH_UP = "peer_path_up"
    PEER_PATH_MOVED = "peer_path_moved"
    PEER_PATH_SILENT = "peer_path_silent"
    UNKNOWN_KEY = "unknown_key"
    PEER_REFUSED = "peer_refused"
    REKEYED = "rekeyed"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A piece of news. `str(event)` is a log line.

    kind
        What it is about.
    text
        The same in words.
    path
        The `id` of the path, among those of the tunnel or of the client `peer`.
    name
        The name of the path.
    peer
        The id of a server's client.
    reason
        Why.
    address
        Address and port of the client's path.
    flow
        The flow, for users of relays.
    code
        Why the flow ended: 2 for lack of room.
    key_id
        The id of a key; not secret.
    silence
        For how long, seconds.
    """

    kind: EventKind
    text: str
    path: int | None = None
    name: str | None = None
    peer: int | None = None
    reason: str | None = None
    address: tuple[str, int] | None = None
    flow: int | None = None
    code: int | None = None
    key_id: str | None = None
    silence: float | None = None

    def __post_init__(self) -> None:
        # The library names the kind as text.
        object.__setattr__(self, "kind", EventKind(self.kind))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A datagram, and what is known of it.

    data
        The datagram.
    time
        When its first copy arrived, seconds, on the clock of `time.monotonic`.
    path
        The id of the path that brought the first copy, if it is known.
    peer
        Who sent it; `None` at a tunnel.
    flow
        Which application behind an `mpclient` or `mpserver` sent it; 0 for one that uses the
        library.
    """

    data: bytes
    time: float
    path: int | None
    peer: "_mptunnel.Peer | None"
    flow: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting, as `open` and `listen` take it. `mptunnel.OPTIONS` has all of them.

    key
        Its name in URIs, files and flags, such as `idle-interval`.
    keyword
        Its name as a keyword, such as `idle_interval`.
    kind
        `choice`, `switch`, `duration`, `size`, `count`, `share`, `text`, `file`, `public-key` or
        `listen`.
    unit
        What a number in a *text* means when it has no unit. As a keyword, a number is in seconds
        for a duration, and otherwise in this unit.
    choices
        The words of a `choice`.
    default
        The default as text; `None`: not set.
    expected
        What a value looks like, with unit and range.
    help
        What it means.
    live
        Whether an open endpoint takes a new value.
    client
        Whether `open` takes it.
    server
        Whether `listen` takes it.
    """

    key: str
    keyword: str
    kind: str
    unit: str
    choices: tuple[str, ...]
    default: str | None
    expected: str
    help: str
    live: bool
    client: bool
    server: bool


for _name in __all__:
    globals()[_name].__module__ = "mptunnel"
