# SPDX-License-Identifier: BSD-2-Clause
"""Datagrams of all sizes over links of all sizes, over IPv4 and IPv6."""

import time

from lab import Failure, Host, Lab, check, note
from meter import FILLER, Application, Service
from scenario import SERVER_PORT, SERVICE_PORT, Network, scenario

MTUS = [576, 1280, 1500, 9000]
SIZES = [0, 1, 1200, 1400, 1472, 9000, 60_000, 65_507]
ROUNDS = 3


def both_ways(host: Host, port: int, what: str, sizes: list[int] = SIZES) -> None:
    """Sends a datagram of each size to the echo service, and expects each back, whole."""
    with host.udp() as udp:
        udp.connect(("127.0.0.1", port))
        udp.settimeout(2)
        for round_ in range(ROUNDS):
            for size in sizes:
                datagram = FILLER[round_ : round_ + size]
                udp.send(datagram)
                try:
                    answer = udp.recv(65_535)
                except TimeoutError:
                    raise Failure(f"{what}: {size} bytes did not come back") from None
                if answer != datagram:
                    raise Failure(f"{what}: {size} bytes came back as {len(answer)}, or altered")
    check(True, f"{what}: {ROUNDS} times {', '.join(map(str, sizes))} bytes came back whole")


@scenario(limit_s=60)
def sizes(lab: Lab) -> None:
    """Datagrams of 0 to 65507 bytes pass whole over links with an MTU of 576 to 9000 bytes.

      c                                                     s
      application ─┬─ mpclient 3001 ── b1: router,  576 ─┬─ mpserver ─ service
                   ├─ mpclient 3002 ── b2: router, 1280 ─┤
                   ├─ mpclient 3003 ── b3: router, 1500 ─┤
                   ├─ mpclient 3004 ── b4: router, 9000 ─┤
                   └─ mpclient 3000 ── all of them ──────┘
    """
    net = Network(lab, ways=len(MTUS), mtus=MTUS)
    net.route()
    Service(net.server_host, SERVICE_PORT)
    net.server()
    paths = net.routed_paths().splitlines()
    clients = [
        net.client(path, f"--name way{way} {3000 + way}") for way, path in enumerate(paths, 1)
    ]
    clients.append(net.client(net.routed_paths(), "--name all"))
    for client in clients:
        client.wait_log("path .* is up", 5)

    for way, mtu in enumerate(MTUS, 1):
        both_ways(net.client_host, 3000 + way, f"MTU {mtu}")
    both_ways(net.client_host, 3000, "all of them")
    note("a second later, when the paths have been measured")
    time.sleep(1)
    for way, mtu in enumerate(MTUS, 1):
        both_ways(net.client_host, 3000 + way, f"MTU {mtu}")
    both_ways(net.client_host, 3000, "all of them")


@scenario(limit_s=60)
def small_link_in_the_middle(lab: Lab) -> None:
    """A link in the middle is smaller than those at the ends.

      c         1500                  1280         s
      application ─ mpclient ── b1: router ── mpserver ─ service

    The router says so by ICMP, in answer to the first packet that is too large: all others pass,
    whole, also when the link shrinks in use. Where it is mute, `mtu=` in the configuration of the
    client says so.
    """
    net = Network(lab, ways=1)
    net.route()
    router = net.middle[0]

    def shrink(mtu: int) -> None:
        router.ip(f"link set s mtu {mtu}")
        net.server_host.ip(f"link set b1 mtu {mtu}")

    shrink(1280)
    service = Service(net.server_host, SERVICE_PORT)
    net.server()
    client = net.client(net.routed_paths())
    for mtu, size in (1280, 1400), (800, 1200):
        shrink(mtu)
        application = Application(net.client_host, service, size=size)
        application.wait_up(5)
        began = time.monotonic()
        application.begin(200)
        gap = application.gap_within(began, 10)
        check(gap < 1, f"{mtu}: datagrams of {size} bytes pass after {gap:.3f} s")
        application.finish()
        application.expect_clean()
        both_ways(net.client_host, 3000, f"{mtu} in the middle")
    client.end()
    client.wait(4)

    note("the router is mute: a black hole for packets that are too large")
    router.nft(
        "add table ip mute\n"
        "add chain ip mute out { type filter hook output priority 0; }\n"
        "add rule ip mute out icmp type destination-unreachable drop"
    )
    # What both ends have learnt about the route is forgotten.
    shrink(700)
    for host in net.client_host, net.server_host:
        host.ip("route flush cache")
    net.client(net.routed_paths() + " mtu=700")
    application.wait_up(5)
    both_ways(net.client_host, 3000, "mtu=700")


@scenario(limit_s=60)
def ipv6_and_ipv4(lab: Lab) -> None:
    """IPv6 paths, and IPv4 and IPv6 beside each other and one behind the other.

      c                                                        s
      application ─ mpclient ─┬─ b1: router, IPv6 ──────────┬─ mpserver ─ service
                              ├─ b2: socat, IPv6 to IPv4 ───┤
                              └─ b3: socat, IPv4 to IPv6 ───┘

    Each of the three passes all sizes alone, as the other two are down. Nothing is lost while they
    go down and up.
    """
    net = Network(lab, ways=3)
    for way, middle in enumerate(net.middle, 1):
        left, right = f"fd00:0:{way}::", f"fd00:1:{way}::"
        net.client_host.ip(f"addr add {left}1/64 dev b{way} nodad")
        middle.ip(f"addr add {left}2/64 dev c nodad")
        middle.ip(f"addr add {right}1/64 dev s nodad")
        net.server_host.ip(f"addr add {right}2/64 dev b{way} nodad")
    router = net.middle[0]
    router.sysctl("net.ipv6.conf.all.forwarding", 1)
    net.server_host.ip("route add fd00:0:1::/64 via fd00:1:1::1")
    net.client_host.ip("route add fd00:1:1::/64 via fd00:0:1::2")
    # A cable that is cut takes IPv6 addresses with it unless told otherwise.
    for host in net.client_host, net.server_host, *net.middle:
        host.sysctl("net.ipv6.conf.all.keep_addr_on_down", 1)
    net.middle[1].spawn(f"socat udp6-listen:4002,fork udp4:10.1.2.2:{SERVER_PORT}")
    net.middle[2].spawn(f"socat udp4-listen:4003,fork udp6:[fd00:1:3::2]:{SERVER_PORT}")
    service = Service(net.server_host, SERVICE_PORT)
    net.server()
    client = net.client(
        f"fd00:1:1::2 {SERVER_PORT} name=way1\n"
        "[fd00:0:2::2] 4002 name=way2\n"
        "10.0.3.2 4003 name=way3"
    )
    application = Application(net.client_host, service)
    application.wait_up(5)
    for way in 1, 2, 3:
        client.wait_log(f"path way{way} is up", 5)

    application.begin(500)
    for alive in 1, 2, 3:
        cut = [way for way in (1, 2, 3) if way != alive]
        for way in cut:
            net.server_host.ip(f"link set b{way} down")
        both_ways(net.client_host, 3000, f"way {alive} alone")
        for way in cut:
            net.server_host.ip(f"link set b{way} up")
        net.server_host.ip("route replace fd00:0:1::/64 via fd00:1:1::1")
        net.client_host.ip("route replace fd00:1:1::/64 via fd00:0:1::2")
        # The neighbours have to be found again, and the next round trusts this way.
        time.sleep(2)
    application.finish()
    application.expect_clean()
    application.expect_all()
