# SPDX-License-Identifier: BSD-2-Clause
"""Links that flap, addresses that change, NATs that forget, names that point elsewhere."""

import time

from lab import Lab, check, note
from meter import Application, Service, Tap, Way
from scenario import SERVER_PORT, SERVICE_PORT, Network, scenario

RATE = 500  # datagrams per second
SIZE = 700  # of the datagrams, in bytes: nothing else on the links has frames of this size
# How soon datagrams use a path again, in both directions, once it works, in seconds.
AGAIN_S = 2.0
FLAPS = 20
# How soon a name is looked up again once its bridge does not answer, in seconds: a path gets a new
# socket after 5 s without an answer, and names are not asked for more often than that.
NAME_S = 12.0
# A NAT, but for the rule that says where to. What comes from outside and belongs to no mapping is
# dropped: otherwise the kernel would take it for a connection to the NAT itself, and not give that
# port to anybody.
NAT = """\
add table ip nat
add chain ip nat out { type nat hook postrouting priority srcnat; }
add chain ip nat in { type filter hook input priority 0; }
add rule ip nat in iifname s meta l4proto udp drop"""


def start(net: Network, paths: str) -> tuple[Application, Way]:
    """Starts both ends and the traffic, and watches way 1."""
    service = Service(net.server_host, SERVICE_PORT)
    net.server()
    client = net.client(paths)
    application = Application(net.client_host, service, size=SIZE)
    application.wait_up(5)
    for way in range(1, len(net.middle) + 1):
        client.wait_log(f"path way{way} is up", 5)
    way_1 = net.way(1, SIZE)
    application.begin(RATE)
    check(way_1.within(time.monotonic(), 3) < 3, "datagrams use way 1")
    return application, way_1


def finish(application: Application) -> None:
    application.finish()
    application.expect_clean()
    application.expect_all()


@scenario(limit_s=90)
def link_flaps(lab: Lab) -> None:
    """A link goes down and up, twenty times: its path is back within two seconds each time.

      c                                              s
      application ─ mpclient ─┬─┤ ├─ b1: router ─┬─ mpserver ─ service
                              └────  b2: router ─┘

    With `if=` in the configuration, and the route lost with each flap, as it is in real life. The
    other path loses nothing.
    """
    net = Network(lab, ways=2)
    net.route()
    application, way_1 = start(net, net.routed_paths())
    slowest = 0.0
    for flap in range(FLAPS):
        net.client_host.ip("link set b1 down")
        # Down for between 50 and 800 ms: shorter and longer than a path takes to be given up.
        time.sleep((0.05, 0.1, 0.2, 0.4, 0.8)[flap % 5])
        net.client_host.ip("link set b1 up")
        net.client_host.ip("route replace 10.1.1.0/24 via 10.0.1.2")
        up = time.monotonic()
        again = way_1.within(up, 10)
        check(again < AGAIN_S, f"flap {flap + 1}: way 1 is in use again after {again:.3f} s")
        slowest = max(slowest, again)
    finish(application)
    print(f"    the slowest of {FLAPS} took {slowest:.3f} s")


@scenario(limit_s=60)
def addresses_change(lab: Lab) -> None:
    """An address is taken away, comes back, or is replaced by another.

      c                                              s
      application ─ mpclient ─┬───── b1: router ─┬─ mpserver ─ service
                10.0.1.1 or .9└───── b2: router ─┘

    As a modem or a DHCP server does it. The other path loses nothing.
    """
    net = Network(lab, ways=2)
    net.route()
    application, way_1 = start(net, net.routed_paths())

    def change(old: int, new: int, gone_s: float) -> None:
        net.client_host.ip(f"addr del 10.0.1.{old}/24 dev b1")
        time.sleep(gone_s)
        net.client_host.ip(f"addr add 10.0.1.{new}/24 dev b1")
        net.client_host.ip("route replace 10.1.1.0/24 via 10.0.1.2")
        again = way_1.within(time.monotonic(), 10)
        check(again < AGAIN_S, f"10.0.1.{new}: way 1 is in use again after {again:.3f} s")
        time.sleep(0.3)

    for old, new, gone_s in (1, 1, 0.2), (1, 1, 1.5), (1, 9, 0), (9, 1, 0.5), (1, 9, 1.5):
        change(old, new, gone_s)
    finish(application)


@scenario(limit_s=60)
def source_comes_and_goes(lab: Lab) -> None:
    """A path with `src=` waits while there is no such address, and is back when it comes back.

      c                                                   s
      application ─ mpclient ─┬─ 10.0.1.1 ─ b1: router ─┬─ mpserver ─ service
                              └─ any ────── b2: router ─┘
    """
    net = Network(lab, ways=2)
    net.route()
    paths = f"10.1.1.2 {SERVER_PORT} src=10.0.1.1 name=way1\n10.1.2.2 {SERVER_PORT} name=way2"
    application, way_1 = start(net, paths)
    for gone_s in 0.2, 1.5:
        net.client_host.ip("addr del 10.0.1.1/24 dev b1")
        time.sleep(gone_s)
        net.client_host.ip("addr add 10.0.1.1/24 dev b1")
        net.client_host.ip("route replace 10.1.1.0/24 via 10.0.1.2")
        again = way_1.within(time.monotonic(), 10)
        check(again < AGAIN_S, f"way 1 is in use again after {again:.3f} s")
        time.sleep(0.3)
    finish(application)


@scenario(limit_s=60)
def nat_moves(lab: Lab) -> None:
    """A NAT forgets the client and gives it another port, or another address: the server follows.

      c                                             s
      application ─ mpclient ─┬─── b1: NAT ────┬─ mpserver ─ service
                              └─── b2: router ─┘

    Its table is emptied, as when a router restarts or a modem dials again.
    """
    net = Network(lab, ways=2)
    net.route()
    nat = net.middle[0]
    nat.nft(f"{NAT}\nadd rule ip nat out oifname s udp dport 2000 masquerade to :5000-5099")
    application, way_1 = start(net, net.routed_paths())
    server = lab.processes[0]
    server.wait_log("path 0 is up from 10.1.1.1:50", 1)

    for number, address in enumerate(("10.1.1.1", "10.1.1.7", "10.1.1.1", "10.1.1.1"), 1):
        ports = f"{5000 + 100 * number}-{5099 + 100 * number}"
        nat.nft(
            "flush chain ip nat out\n"
            f"add rule ip nat out oifname s udp dport 2000 masquerade to :{ports}"
        )
        nat.ip("addr flush dev s")
        nat.ip(f"addr add {address}/24 dev s")
        nat.run("conntrack -F")
        again = way_1.within(time.monotonic(), 10)
        check(again < AGAIN_S, f"{address}, {ports}: way 1 in use again after {again:.3f} s")
        server.wait_log(f"path 0 moved to {address}:5{number}", 60)
        time.sleep(0.3)
    finish(application)


@scenario(limit_s=60)
def nat_swaps(lab: Lab) -> None:
    """A NAT swaps the outer ports of two clients: each goes on getting its own replies.

      c                                                   s
      application 1 ─ mpclient, src=10.0.1.1 ─┬─ b1: NAT ─ mpserver ─ service
      application 2 ─ mpclient, src=10.0.1.3 ─┘

    The NAT gives them ports 5000 and 6000, then 6000 and 5000, and back.
    """
    net = Network(lab, ways=1)
    net.route()
    nat = net.middle[0]
    net.client_host.ip("addr add 10.0.1.3/24 dev b1")
    nat.nft(NAT)

    def ports(first: int, second: int) -> None:
        nat.nft(
            "flush chain ip nat out\n"
            f"add rule ip nat out ip saddr 10.0.1.1 udp dport 2000 masquerade to :{first}\n"
            f"add rule ip nat out ip saddr 10.0.1.3 udp dport 2000 masquerade to :{second}"
        )
        nat.run("conntrack -F")

    ports(5000, 6000)
    service = Service(net.server_host, SERVICE_PORT)
    server = net.server()
    net.client("10.1.1.2 2000 src=10.0.1.1", "--name one 3001")
    net.client("10.1.1.2 2000 src=10.0.1.3", "--name two 3002")
    applications = [
        Application(net.client_host, service, ("127.0.0.1", port)) for port in (3001, 3002)
    ]
    for application in applications:
        application.wait_up(5)
        application.begin(RATE)
    time.sleep(0.5)
    for first, second in (6000, 5000), (5000, 6000):
        ports(first, second)
        swapped = time.monotonic()
        for number, application in enumerate(applications, 1):
            gap = application.gap_within(swapped, 5)
            check(gap < 1, f"swapped: application {number} has answers again after {gap:.3f} s")
        settled = time.monotonic()
        time.sleep(1)
        for application in applications:
            application.expect_all(settled, time.monotonic() - 0.2)
    check(server.log().count("moved to") == 4, "mpserver saw each of them move twice")
    for application in applications:
        application.finish()
        application.expect_clean()


@scenario(limit_s=60)
def nat_forgets(lab: Lab) -> None:
    """NATs that forget a mapping after an idle second, and never give the same port again.

      c                                       s
      application ─ mpclient ─┬─ b1: NAT ─┬─ mpserver ─ service
                              └─ b2: NAT ─┘

    With `idle-interval` below that the mappings live. With the default of 5 s they do not, and the
    tunnel recovers as soon as the client's side says something.
    """
    net = Network(lab, ways=2)
    net.route()
    for nat in net.middle:
        nat.nft(f"{NAT}\nadd rule ip nat out oifname s udp dport 2000 masquerade fully-random")
        nat.sysctl("net.netfilter.nf_conntrack_udp_timeout", 1)
        nat.sysctl("net.netfilter.nf_conntrack_udp_timeout_stream", 1)
    service = Service(net.server_host, SERVICE_PORT)
    net.server()
    client = net.client(net.routed_paths(), "--idle-interval 500ms")
    application = Application(net.client_host, service)
    application.wait_up(5)
    note("the service speaks first, after a pause")
    for _ in range(2):
        time.sleep(2.5)
        service.push(application.stream, next(iter(service.senders)))
        check(application.pushed.wait(1), "what the service sent has arrived")
        application.pushed.clear()

    client.end()
    client.wait(4)
    net.client(net.routed_paths())
    application.wait_up(5)
    note("the application speaks first, after a pause")
    for _ in range(2):
        time.sleep(2.5)
        began = time.monotonic()
        application.begin(RATE)
        gap = application.gap_within(began, 5)
        check(gap < 1, f"the first answer came after {gap:.3f} s")
        time.sleep(1)
        application.finish()
        application.expect_all(began + 0.5)
    application.expect_clean()


@scenario(limit_s=60)
def icmp_storm(lab: Lab) -> None:
    """A bridge is gone, and its host answers every datagram with an ICMP error.

      c                                            s
      application ─ mpclient ─┬─ b1: nothing ──┬─ mpserver ─ service
         2000 datagrams/s     └─ b2: socat ────┘

    Errors of all kinds, without the rate limit that hosts usually have. The other path loses
    nothing, and once there is a bridge again its path is in use.
    """
    net = Network(lab, ways=2)
    gone = net.middle[0]
    gone.sysctl("net.ipv4.icmp_ratelimit", 0)
    service = Service(net.server_host, SERVICE_PORT)
    bridges = net.socats()
    net.server()
    net.client(net.bridged_paths())
    application = Application(net.client_host, service, size=SIZE)
    application.wait_up(5)
    way_1 = net.way(1, SIZE)
    errors = Tap(net.client_host, "b1", range(SIZE))
    application.begin(2_000)
    time.sleep(0.5)
    for kind in "port", "host", "net", "admin", "prot":
        before = len(errors.received)
        bridges[0].kill()
        if kind != "port":
            reject = {"admin": "admin-prohibited"}.get(kind, f"{kind}-unreachable")
            gone.nft(
                "add table ip refuse\n"
                "add chain ip refuse in { type filter hook input priority 0; }\n"
                f"add rule ip refuse in udp dport 4001 reject with icmp {reject}"
            )
        time.sleep(1)
        count = len(errors.received) - before
        check(count > 300, f"{count} ICMP errors ({kind}) arrived in a second")
        if kind != "port":
            gone.nft("delete table ip refuse")
        bridges[0] = net.socat(1)
        again = way_1.within(bridges[0].started, 10)
        check(again < AGAIN_S, f"way 1 is in use again after {again:.3f} s")
    finish(application)


@scenario(limit_s=60)
def name_moves(lab: Lab) -> None:
    """The name of a bridge points to another address: mpclient looks it up again.

      c                                              s
      application ─ mpclient ─┬─ b1, then b3: socat ─┬─ mpserver ─ service
                              └─ b2: socat ──────────┘

    The bridge at the old address is gone at the same time. The other path loses nothing.
    """
    net = Network(lab, ways=3)
    lab.names({"bridge.test": "10.0.1.2"})
    service = Service(net.server_host, SERVICE_PORT)
    bridges = net.socats()
    net.middle[2].spawn("socat udp-listen:4001,fork udp4:10.1.3.2:2000")
    net.server()
    client = net.client("bridge.test 4001 name=way1\n10.0.2.2 4002 name=way2")
    application = Application(net.client_host, service, size=SIZE)
    application.wait_up(5)
    client.wait_log("path way1 is up", 5)
    application.begin(RATE)
    way_3 = net.way(3, SIZE)
    lab.names({"bridge.test": "10.0.3.2"})
    bridges[0].kill()
    again = way_3.within(time.monotonic(), 30)
    check(again < NAME_S, f"the bridge at the new address is in use after {again:.3f} s")
    finish(application)
