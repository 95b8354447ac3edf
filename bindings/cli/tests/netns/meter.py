# SPDX-License-Identifier: BSD-2-Clause
"""Measures a tunnel from outside: numbered datagrams, an echo service, and taps on the links.

All clocks are `time.monotonic()` of this one process, so times of different hosts compare.
"""

import contextlib
import math
import random
import socket
import struct
import threading
import time
import zlib
from collections import Counter

from lab import Failure, Host, check

# In every numbered datagram, so that a tap can see whether anything passes unencrypted.
MARK = b"this text is not to be seen on any link"
HEAD = struct.Struct("<HIH")  # stream, number, length
TAIL = struct.Struct("<I")  # CRC-32 of all before it
SMALLEST = len(MARK) + HEAD.size + TAIL.size
FILLER = random.Random(1).randbytes(65_536)
# What a datagram of the application is packed in on a link: Ethernet, IP, UDP and our own headers
# and tag, in bytes. Generous at the upper end; other packets of ours are smaller or much larger.
PACKING = range(42, 142)
PROBE = 0xFFFF_FFFF  # number of datagrams that only ask whether the tunnel is up
PUSHED = 0xFFFF_FFFE  # number of datagrams that the service sends by itself
ANY_SIZE = 65_535

# With random loss, how far from the expected share a result may be, in standard deviations. One in
# 30 000 correct runs lies further below.
SIGMAS = 4


def pack(stream: int, number: int, size: int) -> bytes:
    """A datagram whose every byte follows from these three."""
    size = max(size, SMALLEST)
    start = number % 1_000
    filler = FILLER[start : start + size - SMALLEST]
    body = MARK + HEAD.pack(stream, number, size) + filler
    return body + TAIL.pack(zlib.crc32(body))


def unpack(datagram: bytes) -> tuple[int, int] | None:
    """The stream and the number; `None` if anything is altered."""
    if len(datagram) < SMALLEST or not datagram.startswith(MARK):
        return None
    stream, number, size = HEAD.unpack_from(datagram, len(MARK))
    sum_ = TAIL.unpack_from(datagram, len(datagram) - TAIL.size)[0]
    if size != len(datagram) or sum_ != zlib.crc32(datagram[: -TAIL.size]):
        return None
    return stream, number


class Reader(threading.Thread):
    """Reads one socket until it is told to stop."""

    def __init__(self, udp: socket.socket):
        super().__init__(daemon=True)
        self.udp = udp
        self.udp.settimeout(0.1)
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            # Refused: the tunnel's end is just not there. A lost datagram is counted as such.
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                self.take()

    def take(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.over.set()
        self.join()
        self.udp.close()


class Arrivals:
    """Which numbers of one stream arrived, and when."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}
        self.copies: Counter[int] = Counter()

    def add(self, number: int, now: float) -> None:
        if number in self.at:
            self.copies[number] += 1
        else:
            self.at[number] = now


class Service(Reader):
    """The application's server: sends everything back, and writes down what came."""

    def __init__(self, host: Host, port: int, address: str = "0.0.0.0", tag: bytes = b""):
        super().__init__(host.udp(address, port))
        self.tag = tag
        self.streams: dict[int, Arrivals] = {}
        self.senders: set[tuple[str, int]] = set()
        self.altered: list[bytes] = []
        host.lab.closing.callback(self.close)
        self.start()

    def take(self) -> None:
        datagram, sender = self.udp.recvfrom(ANY_SIZE)
        now = time.monotonic()
        self.senders.add(sender[:2])
        if datagram.startswith(MARK[:8]):
            known = unpack(datagram)
            if known is None:
                self.altered.append(datagram)
                return
            stream, number = known
            if number != PROBE:
                self.stream(stream).add(number, now)
        self.udp.sendto(datagram + self.tag, sender)

    def push(self, stream: int, to: tuple[str, int]) -> None:
        """Sends something that nobody asked for."""
        self.udp.sendto(pack(stream, PUSHED, 0), to)

    def stream(self, stream: int) -> Arrivals:
        return self.streams.setdefault(stream, Arrivals())


class Application(Reader):
    """The application's client: sends numbered datagrams at a steady rate, takes the answers."""

    count = 0

    def __init__(
        self,
        host: Host,
        service: Service,
        to: tuple[str, int] = ("127.0.0.1", 3000),
        size: int = 200,
    ):
        udp = host.udp("::" if ":" in to[0] else "0.0.0.0")
        udp.connect(to)
        super().__init__(udp)
        Application.count += 1
        self.stream = Application.count
        self.service = service
        self.size = size
        self.sent: dict[int, float] = {}
        self.back = Arrivals()
        self.up = threading.Event()
        self.pushed = threading.Event()
        self.foreign: list[bytes] = []
        self.sender: threading.Thread | None = None
        self.enough = threading.Event()
        host.lab.closing.callback(self.close)
        self.start()

    def close(self) -> None:
        self.enough.set()
        if self.sender:
            self.sender.join()
        super().close()

    def take(self) -> None:
        datagram = self.udp.recv(ANY_SIZE)
        now = time.monotonic()
        known = unpack(datagram)
        if known is None or known[0] != self.stream:
            self.foreign.append(datagram)
        elif known[1] == PROBE:
            self.up.set()
        elif known[1] == PUSHED:
            self.pushed.set()
        else:
            self.back.add(known[1], now)

    def send(self, datagram: bytes) -> None:
        # Refused: mpclient is just not there. That is a loss like any other.
        with contextlib.suppress(ConnectionRefusedError):
            self.udp.send(datagram)

    def wait_up(self, timeout: float) -> float:
        """Asks until an answer comes, and returns after how many seconds that was."""
        begin = time.monotonic()
        self.up.clear()
        while not self.up.wait(0.01):
            waited = time.monotonic() - begin
            if waited > timeout:
                raise Failure(f"the tunnel was not up within {timeout} s")
            self.send(pack(self.stream, PROBE, 0))
        return time.monotonic() - begin

    def begin(self, rate: float) -> None:
        """Sends until `finish`."""
        self.enough.clear()
        self.sender = threading.Thread(target=self.pace, args=(rate,), daemon=True)
        self.sender.start()

    def pace(self, rate: float) -> None:
        begin = time.monotonic()
        first = len(self.sent)
        while not self.enough.is_set():
            number = len(self.sent)
            now = time.monotonic()
            early = begin + (number - first) / rate - now
            if early > 0:
                time.sleep(early)
                now = time.monotonic()
            self.sent[number] = now
            self.send(pack(self.stream, number, self.size))

    def finish(self, drain: float = 0.5) -> None:
        """Stops sending and waits for the last answers."""
        self.enough.set()
        if self.sender:
            self.sender.join()
        deadline = time.monotonic() + drain
        while time.monotonic() < deadline and len(self.back.at) < len(self.sent):
            time.sleep(0.01)
        time.sleep(0.05)  # for copies that are one too many

    def run_for(self, seconds: float, rate: float) -> None:
        self.begin(rate)
        time.sleep(seconds)
        self.finish()

    @property
    def there(self) -> Arrivals:
        """What arrived at the service."""
        return self.service.stream(self.stream)

    def lost(self, begin: float = -math.inf, end: float = math.inf) -> list[int]:
        """The datagrams sent in this span of time whose answer never came."""
        sent = self.sent.copy()  # because the sender adds to it meanwhile
        return [n for n, at in sent.items() if begin <= at < end and n not in self.back.at]

    def expect_clean(self) -> None:
        """No datagram was delivered twice or altered, in either direction."""
        check(bool(self.back.at), f"{len(self.sent)} sent, {len(self.back.at)} came back")
        twice = len(self.there.copies) + len(self.back.copies)
        check(twice == 0, f"none was delivered twice ({twice})")
        altered = len(self.service.altered) + len(self.foreign)
        check(altered == 0, f"none was altered ({altered})")

    def expect_all(self, begin: float = -math.inf, end: float = math.inf) -> None:
        """Every datagram sent in this span of time came back."""
        sent = sum(begin <= at < end for at in self.sent.copy().values())
        lost = self.lost(begin, end)
        check(sent > 0, f"{sent} datagrams were sent")
        check(not lost, f"none was lost ({f'{len(lost)}, the first is {lost[0]}' if lost else 0})")

    def gap_after(self, moment: float) -> float:
        """Seconds from this moment to the next answer to a datagram sent after it."""
        later = [at for n, at in self.back.at.copy().items() if self.sent[n] >= moment]
        return min(later) - moment if later else math.inf

    def gap_within(self, moment: float, timeout: float) -> float:
        """As `gap_after`, while sending goes on: waits for that answer."""
        while time.monotonic() < moment + timeout:
            if any(self.sent[n] >= moment for n in list(self.back.at.copy())[-100:]):
                break
            time.sleep(0.01)
        return self.gap_after(moment)

    def round_trips(self, begin: float = -math.inf) -> list[float]:
        """Milliseconds from sending to the answer, in order of size, of those sent from `begin`."""
        pairs = ((self.sent[n], at) for n, at in self.back.at.copy().items())
        return sorted(1_000 * (at - sent) for sent, at in pairs if sent >= begin)


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def frames_of(size: int) -> range:
    """The lengths of the frames that carry a datagram of this size."""
    return range(size + PACKING.start, size + PACKING.stop)


class Tap(threading.Thread):
    """Sees all frames on one interface, as tcpdump does."""

    OUTGOING = 4  # PACKET_OUTGOING of linux/if_packet.h
    ALL = 0x0003  # ETH_P_ALL of linux/if_ether.h

    def __init__(self, host: Host, interface: str, sizes: range = range(ANY_SIZE)):
        """`sizes`: the lengths in bytes of the frames that count."""
        super().__init__(daemon=True)
        with host.entered():
            self.raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(self.ALL))
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.raw.bind((interface, self.ALL))
        self.raw.settimeout(0.1)
        self.sizes = sizes
        self.sent: list[float] = []
        self.received: list[float] = []
        self.in_the_clear = 0
        self.over = threading.Event()
        host.lab.closing.callback(self.close)
        self.start()

    def run(self) -> None:
        while not self.over.is_set():
            # The interface may be down for a while: ENETDOWN.
            with contextlib.suppress(OSError):
                frame, address = self.raw.recvfrom(ANY_SIZE)
                self.in_the_clear += MARK in frame
                if len(frame) in self.sizes:
                    way = self.sent if address[2] == self.OUTGOING else self.received
                    way.append(time.monotonic())

    def close(self) -> None:
        self.over.set()
        self.join()
        self.raw.close()


class Way:
    """Tells when datagrams of the application pass one way between two hosts, in both directions.

    What counts is what comes in at either end: an end may well go on sending to a dead address.
    """

    def __init__(self, a: Host, a_interface: str, b: Host, b_interface: str, size: int):
        self.ends = Tap(a, a_interface, frames_of(size)), Tap(b, b_interface, frames_of(size))

    def after(self, moment: float) -> float:
        """Seconds from this moment until datagrams came in at both ends."""
        first = [
            min((at for at in end.received[-5_000:] if at >= moment), default=math.inf)
            for end in self.ends
        ]
        return max(first) - moment

    def within(self, moment: float, timeout: float) -> float:
        """As `after`, while traffic goes on: waits for these datagrams."""
        while self.after(moment) == math.inf and time.monotonic() < moment + timeout:
            time.sleep(0.01)
        return self.after(moment)
