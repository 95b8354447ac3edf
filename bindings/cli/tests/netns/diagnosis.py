# SPDX-License-Identifier: BSD-2-Clause
"""What doctor and ping tell of links that are wrong or go down."""

import json
import signal
import time

from lab import Lab, check, note
from scenario import Network, scenario


@scenario(limit_s=20)
def doctor_sees_the_links(lab: Lab) -> None:
    """What only a machine with several links has: ways, filters, MTUs.

      c               10.0.1.2     10.1.1.2
      doctor ─┬─ b1 ─ router ────────────── s  mpserver
              └─ b2 ─ router, 1400 bytes ──┘

    Both routers lead to all addresses of s, but c itself would go to 10.1.1.2 by b1.
    """
    net = Network(lab, ways=2)
    net.route()
    net.client_host.ip("route add 10.1.1.0/24 via 10.0.2.2 metric 100")
    net.middle[1].ip("route add 10.1.1.0/24 via 10.1.2.2")
    net.middle[1].ip("link set s mtu 1400")
    for interface in "all", "b1", "b2":
        net.client_host.sysctl(f"net.ipv4.conf.{interface}.rp_filter", 1)
        net.server_host.sysctl(f"net.ipv4.conf.{interface}.rp_filter", 0)
    net.server().wait_log("listens on", 5)
    config = lab.directory / "client.conf"
    config.write_text(
        "10.1.1.2 2000 if=b1 name=one\n"
        "10.1.2.2 2000 if=b2 name=two\n"
        "10.1.1.2 2000 if=b2 name=astray\n"
        "10.1.1.2 2000 src=10.0.2.1 name=source\n"
        "10.9.9.9 2000 name=nowhere\n"
    )
    command = f"mptunnel doctor --json --wait 0.5 --key-file {net.key} {config}"
    report = json.loads(net.client_host.run(command, ok=(2,)))

    def said(about: str, subject: str) -> tuple[str, str, str]:
        """The level, the text and the remedy of the one finding in a section on a subject."""
        found = [f for f in report["findings"] if (f["check"], f["subject"]) == (about, subject)]
        check(len(found) == 1, f"{about} has one finding on {subject}")
        print(f"      {found[0]}")
        return found[0]["level"], found[0]["text"], found[0]["remedy"] or ""

    server = "Server and paths"
    for name in "one", "two":
        check(said(server, name)[0] == "ok", f"path {name} answers")
    level, text, remedy = said("Filters", "astray")
    check(level == "fault" and "strict filter on b2" in text, "the filter is found")
    check(remedy == "sysctl -w net.ipv4.conf.b2.rp_filter=2", "with its remedy")
    check("drops what comes back" in said(server, "astray")[1], "and explains the silence")
    level, text, remedy = said("Routes", "source")
    check(level == "warning" and "that address is b2's" in text, "src= alone is warned of")
    check("if=b2" in remedy, "with the remedy")
    check(said("Routes", "nowhere")[1] == "no route to 10.9.9.9", "a missing route is found")
    check("1400 bytes: less than the 1500 of b2" in said("MTU", "two")[1], "a router has less")
    check("as b1 has it" in said("MTU", "one")[1], "on the one path only")

    note("the remedy is one")
    net.client_host.sysctl("net.ipv4.conf.b2.rp_filter", 2)
    report = json.loads(net.client_host.run(command, ok=(2,)))
    check(said(server, "astray")[0] == "ok", "path astray answers")
    net.client_host.ip("link set b2 down")
    report = json.loads(net.client_host.run(command, ok=(2,)))
    check(said("Routes", "two")[1:] == ("b2 is down", "ip link set b2 up"), "a link is down")


@scenario(limit_s=20)
def ping_sees_a_cable_pulled(lab: Lab) -> None:
    """The cable of one path is pulled and put back: the tunnel loses nothing.

      c                                     s
      ping ─┬─ b1: mptunnel bridge ─┬─ mpserver
            └─ b2: mptunnel bridge ─┘
    """
    net = Network(lab, ways=2)
    for way in 1, 2:
        net.bridge(way)
    net.server().wait_log("listens on", 5)
    config = lab.directory / "client.conf"
    config.write_text(net.bridged_paths() + "\n")
    ping = net.client_host.spawn(f"mptunnel ping -i 0.1 --key-file {net.key} {config}")
    ping.wait_log(r"^ +0\.[3-9]", 5)
    net.middle[0].ip("link set c down")
    ping.wait_log(r"way1: OUTAGE since ", 5)
    time.sleep(0.3)
    net.middle[0].ip("link set c up")
    ping.wait_log(r"way1: answers again, after", 10)
    ping.send(signal.SIGINT)
    check(ping.wait(3) == 0, "it ends well")
    rows = {line.split()[0]: line.split() for line in ping.log().splitlines() if line}
    for name in "way1", "way2", "tunnel":
        print("      " + " ".join(rows[name]))
    check(rows["tunnel"][3] == "0.0", "nothing is lost over the tunnel")
    check(rows["way2"][3] == "0.0", "nor on the other path")
    # The kernel may keep what waits for a neighbour and send it later: late, and not lost.
    check(rows["way1"][-1] != "none", "and the outage of the one that was cut is told")
