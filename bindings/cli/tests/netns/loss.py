# SPDX-License-Identifier: BSD-2-Clause
"""Random loss on all paths at once: what arrives is what the product of the losses leaves."""

import math

from lab import Lab, check
from meter import SIGMAS, Application, Service
from scenario import SERVER_PORT, SERVICE_PORT, Network, scenario

RATE = 2_000  # datagrams per second
SECONDS = 5


def lossy(net: Network, percent: int) -> None:
    """Drops this share of the datagrams of each bridge, in each direction."""
    for way, middle in enumerate(net.middle, 1):
        drop = f"numgen random mod 1000 < {10 * percent} counter drop"
        middle.nft(
            "add table ip bad\n"
            "add chain ip bad in { type filter hook input priority 0; }\n"
            f'add rule ip bad in udp dport {4000 + way} counter comment "up"\n'
            f'add rule ip bad in udp dport {4000 + way} {drop} comment "lost up"\n'
            f'add rule ip bad in udp sport {SERVER_PORT} counter comment "down"\n'
            f'add rule ip bad in udp sport {SERVER_PORT} {drop} comment "lost down"'
        )


def measure(lab: Lab, percent: int) -> tuple[float, float]:
    """Sends numbered datagrams both ways, and returns the share delivered and its deviation."""
    net = Network(lab, ways=3)
    service = Service(net.server_host, SERVICE_PORT)
    net.socats()
    net.server()
    net.client(net.bridged_paths())
    application = Application(net.client_host, service)
    application.wait_up(5)
    lossy(net, percent)

    application.run_for(SECONDS, RATE)

    application.expect_clean()
    for way, middle in enumerate(net.middle, 1):
        for direction in "up", "down":
            all_ = middle.dropped(direction)
            share = 100 * middle.dropped(f"lost {direction}") / max(all_, 1)
            sigma = math.sqrt(percent * (100 - percent) / max(all_, 1))
            check(
                all_ > 5_000 and abs(share - percent) < SIGMAS * sigma + 0.1,
                f"bridge {way} really lost {share:.1f} % of {all_} {direction}wards",
            )
    up, down = len(application.there.at), len(application.back.at)
    trials = len(application.sent) + up
    expected = 1 - (percent / 100) ** 3
    sigma = math.sqrt(expected * (1 - expected) / trials)
    delivered = (up + down) / trials
    print(f"    delivered {100 * delivered:.3f} %, expected {100 * expected:.3f} %, "
          f"sigma {100 * sigma:.3f} %")
    return delivered, sigma


@scenario(limit_s=30)
def loss_10_percent(lab: Lab) -> None:
    """Three paths that lose 10 % each deliver 99.8 % and more.

      c                                                           s
      application ─ mpclient ─┬─ b1: socat, loses 10 % each way ─┬─ mpserver ─ service
                              ├─ b2: socat, loses 10 % each way ─┤
                              └─ b3: socat, loses 10 % each way ─┘

    A datagram is lost if all three copies are: one in a thousand.
    """
    delivered, _ = measure(lab, 10)
    check(delivered >= 0.998, f"{100 * delivered:.2f} % were delivered")


@scenario(limit_s=30)
def loss_30_percent(lab: Lab) -> None:
    """Three paths that lose 30 % each deliver 97 %.

      c                                                           s
      application ─ mpclient ─┬─ b1: socat, loses 30 % each way ─┬─ mpserver ─ service
                              ├─ b2: socat, loses 30 % each way ─┤
                              └─ b3: socat, loses 30 % each way ─┘

    A datagram is lost if all three copies are: 27 in a thousand.
    """
    delivered, sigma = measure(lab, 30)
    check(delivered >= 0.973 - SIGMAS * sigma, f"{100 * delivered:.2f} % were delivered")


@scenario(limit_s=30)
def bad_bridges(lab: Lab) -> None:
    """Bridges that lose, delay, reorder, repeat and alter what they carry.

      c                                                                         s
      application ─ mpclient ─┬─ b1: 10 % lost, 20 ± 10 ms ──────────────────┬─ mpserver ─ service
                              ├─ b2: 10 % lost, 5 ms, 10 % held back 30 ms ──┤
                              └─ b3: 10 % lost, 5 % twice, 5 % altered ──────┘

    An altered copy counts as a lost one. What is delivered is delivered once and unaltered.
    """
    net = Network(lab, ways=3)
    service = Service(net.server_host, SERVICE_PORT)
    net.bridge(1, "--loss 10% --delay 20 --jitter 10 --seed 1")
    net.bridge(2, "--loss 10% --delay 5 --reorder 10% --reorder-by 30 --seed 2")
    net.bridge(3, "--loss 10% --dup 5% --corrupt 5% --seed 3")
    server = net.server()
    net.client(net.bridged_paths())
    application = Application(net.client_host, service)
    application.wait_up(5)
    for path in range(3):
        server.wait_log(f"path {path} is up", 5)

    application.run_for(SECONDS, RATE // 2)

    application.expect_clean()
    up, down = len(application.there.at), len(application.back.at)
    trials = len(application.sent) + up
    expected = 1 - 0.1 * 0.1 * (1 - 0.9 * 0.95)
    sigma = math.sqrt(expected * (1 - expected) / trials)
    delivered = (up + down) / trials
    check(
        delivered >= expected - SIGMAS * sigma,
        f"{100 * delivered:.2f} % were delivered; {100 * expected:.2f} % are to be expected",
    )
