# SPDX-License-Identifier: BSD-2-Clause
"""Tunnels in tunnels, and in themselves."""

import time
from pathlib import Path

from lab import Lab, Process, check, note
from meter import Application, Service
from scenario import SERVICE_PORT, Network, scenario
from sizes import both_ways


@scenario(limit_s=40)
def tunnel_in_tunnel(lab: Lab) -> None:
    """A tunnel is the path of another tunnel.

      c                                                                   s
      application ─ mpclient ─┬─ mpclient ─┬─ b1: socat ─┬─ mpserver ─┬─ mpserver ─ service
                    3000      │  3001      └─ b2: socat ─┘  2000      │  2001
                              └──────────────── b3: socat ────────────┘

    The inner one has a path of its own beside it. Each loses one of its two paths in turn.
    """
    net = Network(lab, ways=3)
    other_key = lab.directory / "outer-psk"
    net.client_host.run(f"mptunnel genpsk --output {other_key}")
    service = Service(net.server_host, SERVICE_PORT)
    net.server(port=2001)
    net.server_host.spawn(f"mpserver --key-file {other_key} 2000 127.0.0.1 2001")
    bridges = [net.socat(1), net.socat(2)]
    bridges.append(net.middle[2].spawn("socat udp-listen:4003,fork udp4:10.1.3.2:2001"))
    net.client("10.0.1.2 4001\n10.0.2.2 4002", "3001", key=other_key)
    net.client("127.0.0.1 3001\n10.0.3.2 4003")
    application = Application(net.client_host, service)
    application.wait_up(5)
    time.sleep(1)
    application.begin(1_000)
    for bridge in bridges[0], bridges[2]:
        time.sleep(0.5)
        bridge.freeze()
    time.sleep(2)
    both_ways(net.client_host, 3000, "in the tunnel in the tunnel")
    application.finish()
    application.expect_clean()
    application.expect_all()


@scenario(limit_s=40)
def tunnel_into_itself(lab: Lab) -> None:
    """A path that leads back into the tunnel harms nothing but itself.

      c                                                 s
      application ─ mpclient ─┬─ b1: socat ─────────── mpserver ─ service
                    3000 ▲    └─ 127.0.0.1:3000 ─╮
                         ╰───────────────────────╯

    mpclient is an application of its own. What it sends on that path comes in again as a datagram
    to be sent. The loop may not multiply without end: the processors stay idle, memory stays flat,
    and the traffic of the real application passes.
    """
    net = Network(lab, ways=1)
    service = Service(net.server_host, SERVICE_PORT)
    net.socats()
    server = net.server()
    client = net.client("10.0.1.2 4001 name=way1\n127.0.0.1 3000 name=loop")
    application = Application(net.client_host, service)
    application.wait_up(5)
    application.run_for(2, 100)
    note("and then nobody says anything")
    time.sleep(1)
    before = {process.name: cpu_seconds(process) for process in (client, server)}
    time.sleep(2)
    for process in client, server:
        used = (cpu_seconds(process) - before[process.name]) / 2
        check(used < 0.3, f"{process.name} uses {100 * used:.0f} % of a processor")
        check(resident_mib(process) < 200, f"{process.name} has {resident_mib(process):.0f} MiB")
    application.expect_clean()
    application.expect_all()


def cpu_seconds(process: Process) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100  # utime and stime, in ticks of 10 ms


def resident_mib(process: Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@scenario(limit_s=40)
def target_leads_back(lab: Lab) -> None:
    """mpserver's target is the port that mpclient listens on: the loop ends by itself.

      c                                                 s
      application ─ mpclient ───── b1: socat ───────── mpserver
                    3000 ▲                               │ target
                         ╰───────────────────────────────╯

    Each turn comes from another port of s, so it is another flow; the limit of flows ends it, with
    a line in the log. Afterwards there is silence.
    """
    net = Network(lab, ways=1)
    lab.link(net.client_host, "10.9.0.1/24", net.server_host, "10.9.0.2/24")
    net.socats()
    server = net.server_host.spawn(f"mpserver --key-file {net.key} --flows 50 2000 10.9.0.1 3000")
    client = net.client(net.bridged_paths(), "--flows 100 10.9.0.1:3000")
    client.wait_log("path .* is up", 5)
    with net.client_host.udp() as application:
        for number in range(100):
            application.sendto(b"round and round %d" % number, ("10.9.0.1", 3000))
    server.wait_log("a new flow is refused", 5)
    time.sleep(1)
    before = {process.name: cpu_seconds(process) for process in (client, server)}
    time.sleep(1)
    for process in client, server:
        used = cpu_seconds(process) - before[process.name]
        check(used < 0.2, f"{process.name} uses {100 * used:.0f} % of a processor")
