# SPDX-License-Identifier: BSD-2-Clause
"""Paths that die, or were dead from the start."""

import itertools
import time

from lab import Lab, check, note
from meter import Application, Service
from scenario import SERVICE_PORT, Network, scenario

RATE = 1_000  # datagrams per second
DEAD_S = 1.0  # how long a path stays dead
# How soon a tunnel is up if any path lives, in seconds.
UP_S = 1.5


@scenario(limit_s=30, alone=True)
def a_path_dies(lab: Lab) -> None:
    """A path that dies, in whatever way, loses nothing while another lives.

      c                                        s
      application ─ mpclient ─┬─ b1: socat ─┬─ mpserver ─ service
           1000 datagrams/s   ├─ b2: socat ─┤
                              └─ b3: socat ─┘

    Each of the three dies in turn while the others live: a bridge that stops reading, a firewall
    that drops, a cable that is cut on either side, a bridge that ends.
    """
    net = Network(lab, ways=3)
    service = Service(net.server_host, SERVICE_PORT)
    bridges = net.socats()
    net.server()
    net.client(net.bridged_paths())
    application = Application(net.client_host, service)
    application.wait_up(5)
    application.begin(RATE)
    time.sleep(0.5)

    note("a bridge that stops reading, and then sends on what has waited")
    bridges[0].freeze()
    time.sleep(DEAD_S)
    bridges[0].thaw()

    note("a firewall that drops")
    net.middle[1].nft(
        "add table ip dead\n"
        "add chain ip dead in { type filter hook input priority 0; policy drop; }"
    )
    time.sleep(DEAD_S)
    net.middle[1].nft("delete table ip dead")

    note("a firewall that refuses")
    net.middle[1].nft(
        "add table ip dead\n"
        "add chain ip dead in { type filter hook input priority 0; }\n"
        "add rule ip dead in meta l4proto udp reject with icmp type net-unreachable"
    )
    time.sleep(DEAD_S)
    net.middle[1].nft("delete table ip dead")

    for host, interface in (net.client_host, "b3"), (net.server_host, "b3"), (net.middle[2], "c"):
        note(f"a cable is cut at {host.name}")
        host.ip(f"link set {interface} down")
        time.sleep(DEAD_S)
        host.ip(f"link set {interface} up")
        time.sleep(0.5)

    note("a bridge that ends")
    bridges[2].kill()
    time.sleep(DEAD_S)

    application.finish()
    application.expect_clean()
    application.expect_all()


@scenario(limit_s=30)
def eight_paths(lab: Lab) -> None:
    """Of eight paths seven die one after the other, and nothing is lost.

      c                                        s
      application ─ mpclient ─┬─ b1: socat ─┬─ mpserver ─ service
                              ┆             ┆
                              └─ b8: socat ─┘
    """
    net = Network(lab, ways=8)
    service = Service(net.server_host, SERVICE_PORT)
    bridges = net.socats()
    net.server()
    client = net.client(net.bridged_paths())
    application = Application(net.client_host, service)
    application.wait_up(5)
    for way in range(1, 9):
        client.wait_log(f"path way{way} is up", 5)
    application.begin(RATE // 4)
    for bridge in bridges[:7]:
        time.sleep(0.2)
        bridge.freeze()
    time.sleep(1)
    application.finish()
    application.expect_clean()
    application.expect_all()


@scenario(limit_s=60)
def dead_at_start(lab: Lab) -> None:
    """Every subset of the paths is dead when mpclient starts: it connects if one lives.

      c                                                        s
      application ─ mpclient ─┬─ b1: socat, or port refused ─┬─ mpserver ─ service
                              ├─ b2: socat, or all dropped ──┤
                              └─ b3: socat, or no such host ─┘

    The dead ones come first in the file. Once none lives: mpclient waits, says so, and connects
    when a bridge appears.
    """
    net = Network(lab, ways=3)
    service = Service(net.server_host, SERVICE_PORT)
    net.socats()
    net.server()
    net.middle[1].nft(
        "add table ip dead\n"
        "add chain ip dead in { type filter hook input priority 0; }\n"
        "add rule ip dead in udp dport 4998 drop"
    )
    alive = net.bridged_paths().splitlines()
    dead = ["10.0.1.2 4999 name=way1", "10.0.2.2 4998 name=way2", "no.such.host 4003 name=way3"]

    for pattern in itertools.product((True, False), repeat=3):
        lines = [dead[i] for i in range(3) if not pattern[i]]
        lines += [alive[i] for i in range(3) if pattern[i]]
        client = net.client("\n".join(lines))
        application = Application(net.client_host, service)
        if any(pattern):
            application.wait_up(5)
            after = time.monotonic() - client.started
            check(after < UP_S, f"{sum(pattern)} of 3 paths live: up {after:.3f} s after the start")
            client.end()
            check(client.wait(4) == 0, "mpclient ends with status 0")

    note("no path lives")
    time.sleep(2)
    check(client.is_alive() and not application.up.is_set(), "mpclient waits")
    check("way3" in client.log(), "it says that a path does not resolve")
    net.middle[0].spawn("socat udp-listen:4999,fork udp4:10.1.1.2:2000")
    after = application.wait_up(10)
    check(after < 3, f"a bridge appears: up after {after:.3f} s")
