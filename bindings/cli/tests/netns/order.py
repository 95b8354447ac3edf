# SPDX-License-Identifier: BSD-2-Clause
"""Order: what it is worth to TCP over unequal paths."""

import json

from classic import lay_wireguard
from lab import Host, Lab, check, note
from scenario import Network, scenario

RATE = 10  # Mbit/s of each path
MTU = 1380  # of WireGuard, so that its packets in ours fit 1,472 bytes
SECONDS = 4
START = 4  # seconds of TCP's beginning that do not count
# What is left of a packet on the path for the data of TCP: headers of IP and TCP with timestamps go
# off inside, 32 bytes of WireGuard and 36 of ours come on top.
MOST = 2 * RATE * (MTU - 52) / (MTU + 32 + 36)


@scenario(limit_s=60, alone=True, on_demand=True)
def tcp_in_order(lab: Lab) -> None:
    """TCP over two paths of 5 and 40 ms in mode weighted gets their sum if order is kept.

      c                                                            s
      wgc ─ mpclient ─┬─ b1: bridge,  5 ms, 10 Mbit/s ─┬─ mpserver ─ wgs
      iperf3          └─ b2: bridge, 40 ms, 10 Mbit/s ─┘          iperf3

    First without `--reorder 50ms`, then with it.
    """
    net = Network(lab, ways=2)
    c, s = net.client_host, net.server_host
    for way, delay in (1, 5), (2, 40):
        net.bridge(way, f"--delay {delay} --rate {RATE} --buffer 100000")
    rates = []
    for words in "", "--reorder 50ms":
        server = net.server(words)
        client = net.client(net.bridged_paths(), f"--mode weighted {words}")
        for way in 1, 2:
            client.wait_log(f"path way{way} is up", 5)
        if not rates:
            lay_wireguard(c, s, MTU)
            # The second connection is not to begin with what is remembered of the first.
            c.sysctl("net.ipv4.tcp_no_metrics_save", 1)
        rates.append(tcp(c, s))
        for program in client, server:
            program.end()
            program.wait(5)
    note(f"as it comes: {rates[0]:.1f} Mbit/s of TCP, {100 * rates[0] / MOST:.0f} %")
    share = rates[1] / MOST
    check(
        share >= 0.85,
        f"in order: {rates[1]:.1f} Mbit/s of TCP, {100 * share:.0f} % of the {MOST:.1f} Mbit/s "
        "that both paths carry",
    )


def tcp(c: Host, s: Host) -> float:
    """Mbit/s of one connection from c to s.

    It controls congestion as most do, by loss. BBR believes the shortest round trip that it ever
    saw: if that is of a handshake that took the short path both ways, its window stays too small.
    """
    c.run("ping -c 3 -i 0.2 -W 2 10.8.0.1")
    iperf = s.spawn("iperf3 --server --forceflush --one-off --bind 10.8.0.1")
    iperf.wait_log("Server listening", 5)
    said = c.run(f"iperf3 -c 10.8.0.1 -C cubic -O {START} -t {SECONDS} -J", 30)
    return json.loads(said)["end"]["sum_received"]["bits_per_second"] / 1e6
