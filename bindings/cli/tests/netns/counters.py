# SPDX-License-Identifier: BSD-2-Clause
"""What the programs count is what passes on the links: to the packet and to the byte."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from lab import Failure, Host, Lab, Process, check, note
from meter import Application, Service
from scenario import SERVER_PORT, SERVICE_PORT, Network, scenario

WAYS = 3
# Small ones, ones that fill a packet, and ones that travel in three pieces.
SIZES = [60, 1200, 3000]
# Types of packets of sessions, PROTOCOL.md, section 4: CTRL, DATA and DATA_CLEAR. All others are
# of handshakes, which belong to no path: a server does not know yet who is there.
SESSION_TYPES = range(6, 9)
PROBE = 104  # bytes of a CTRL packet with a PING, which is padded


@dataclass(frozen=True)
class Count:
    """Packets of the tunnel, and the bytes of UDP payload in them."""

    packets: int = 0
    bytes: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.packets + other.packets, self.bytes + other.bytes)


class Capture(threading.Thread):
    """Counts the packets of sessions on one interface, as tcpdump would see them."""

    OUTGOING = 4  # PACKET_OUTGOING of linux/if_packet.h
    SOL_PACKET, STATISTICS = 263, 6  # linux/socket.h; PACKET_STATISTICS of linux/if_packet.h
    IPV4 = 0x0800  # ETH_P_IP of linux/if_ether.h: arrivals only
    ALL = 0x0003  # ETH_P_ALL
    BUFFER_FORCE = 33  # SO_RCVBUFFORCE of asm-generic/socket.h

    def __init__(self, host: Host, interface: str):
        super().__init__(daemon=True)
        with host.entered():
            # No protocol yet: nothing of another interface comes in before it is bound.
            self.raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self.raw.setsockopt(socket.SOL_SOCKET, self.BUFFER_FORCE, 32 << 20)
        self.raw.bind((interface, self.ALL))
        self.raw.settimeout(0.1)
        self.sent, self.received = Count(), Count()
        self.over = threading.Event()
        host.lab.closing.callback(self.close)
        self.start()

    def run(self) -> None:
        while not self.over.is_set():
            try:
                packet, address = self.raw.recvfrom(65_535)
            except TimeoutError:
                continue
            if address[1] == self.IPV4:
                self.count(packet, address[2] == self.OUTGOING)

    def count(self, packet: bytes, is_sent: bool) -> None:
        header = (packet[0] & 15) * 4
        if packet[9] != socket.IPPROTO_UDP:
            return
        source, target, length = struct.unpack_from("!HHH", packet, header)
        if SERVER_PORT not in (source, target):
            return
        if packet[header + 8] not in SESSION_TYPES:
            return
        one = Count(1, length - 8)
        if is_sent:
            self.sent += one
        else:
            self.received += one

    def lost(self) -> int:
        """Packets that this program was too slow for."""
        _, drops = struct.unpack("II", self.raw.getsockopt(self.SOL_PACKET, self.STATISTICS, 8))
        return drops

    def close(self) -> None:
        self.over.set()
        self.join()
        self.raw.close()


def status(host: Host, program: Process) -> dict:
    return json.loads(host.run(f"mptunnel status --json --control {program.pid}"))


def at_rest(captures: list[Capture], look: Callable[[], dict]) -> dict:
    """What `look` sees in a moment in which nothing passes."""

    def counts() -> list[tuple[Count, Count]]:
        return [(capture.sent, capture.received) for capture in captures]

    for _ in range(100):
        before = counts()
        time.sleep(0.03)
        seen = look()
        time.sleep(0.03)
        if counts() == before:
            return seen
    raise Failure("there is always something on the links")


class Comparison:
    """Of what was captured with what was counted."""

    def __init__(self) -> None:
        self.differing: list[str] = []

    def compare(self, what: str, captured: Count, counted: Count) -> None:
        print(f"    {what}: captured {captured}, counted {counted}", flush=True)
        if captured != counted:
            self.differing.append(what)


def counted(path: dict, what: str) -> Count:
    return Count(path[what], path[f"{what}_bytes"])


@scenario(limit_s=60)
def counters(lab: Lab) -> None:
    """The counters of both programs agree with a packet capture on every path, to the packet.

      c                                                   s
      application ─ mpclient ─┬─ b1: router ───────────┬─ mpserver ─ service
                              ├─ b2: loses one of ten ─┤
                              └─ b3: router ───────────┘
                              ▲                        ▲
                           capture                  capture

    From the first handshake on; in the middle of it a path is cut for a while.
    """
    net = Network(lab, ways=WAYS)
    net.route()
    net.middle[1].nft(
        "add table ip thief\n"
        "add chain ip thief on { type filter hook forward priority 0; }\n"
        'add rule ip thief on meta l4proto udp numgen random mod 10 == 0 counter drop comment "thief"'
    )
    ways = range(1, WAYS + 1)
    captures = [Capture(host, f"b{way}") for host in (net.client_host, net.server_host) for way in ways]
    service = Service(net.server_host, SERVICE_PORT)
    server = net.server()
    server.wait_log("listens on", 5)
    client = net.client(net.routed_paths())
    for way in ways:
        client.wait_log(f"path way{way} is up", 5)

    applications = [Application(net.client_host, service, size=size) for size in SIZES]
    for application in applications:
        application.wait_up(5)
        application.begin(300)
    time.sleep(0.4)
    note("what comes in the meantime leaves in one piece (UDP_SEGMENT)")
    client.freeze()
    time.sleep(0.1)
    client.thaw()
    note("way 3 is cut at the router, which says so to both ends")
    net.middle[2].nft(
        "add table ip wall\n"
        "add chain ip wall on { type filter hook forward priority 0; }\n"
        "add rule ip wall on meta l4proto udp reject with icmp host-unreachable"
    )
    time.sleep(0.5)
    net.middle[2].nft("delete table ip wall")
    time.sleep(0.5)
    for application in applications:
        application.finish()
        application.expect_clean()
    check(net.middle[1].dropped("thief") > 100, "way 2 has lost packets")

    def look() -> dict:
        (peer,) = (server_status := status(net.server_host, server))["peers"]
        return {
            "client": status(net.client_host, client)["paths"],
            "server": sorted(peer["paths"], key=lambda path: path["slot"]),
            "unattributed": server_status["unattributed"],
        }

    seen = at_rest(captures, look)
    lost = sum(capture.lost() for capture in captures)
    check(lost == 0, f"the captures have missed nothing ({lost})")
    comparison = Comparison()
    for way, capture, path in zip(ways, captures[:WAYS], seen["client"], strict=True):
        for what, captured in ("sent", capture.sent), ("received", capture.received):
            comparison.compare(f"mpclient way{way} {what}", captured, counted(path, what))
    unattributed = 0
    for way, capture, path in zip(ways, captures[WAYS:], seen["server"], strict=True):
        comparison.compare(f"mpserver way{way} sent", capture.sent, counted(path, "sent"))
        known = counted(path, "received")
        # The first packet from an address counts when it is read; what came with it is nobody's.
        early = capture.received.packets - known.packets
        known += Count(early, early * PROBE)
        comparison.compare(f"mpserver way{way} received, {early} early", capture.received, known)
        unattributed += early
    check(
        unattributed <= seen["unattributed"] < 10,
        f"{unattributed} packets came early, of {seen['unattributed']} from addresses yet unknown",
    )
    check(not comparison.differing, f"counters and captures agree {comparison.differing or ''}")
