# SPDX-License-Identifier: BSD-2-Clause
"""A slow link beside a fast one."""

import time

from lab import Lab, check, note
from meter import Application, Service, percentile
from scenario import SERVICE_PORT, Network, scenario

RATE = 500  # datagrams per second
SECONDS = 4
# How much later the slowest of a hundred may be than over the fast path alone, in milliseconds.
# What the machine does meanwhile is in both measurements.
LATER_MS = 5.0


@scenario(limit_s=40, alone=True)
def slow_link(lab: Lab) -> None:
    """A link of 8 kbit/s beside a fast one leaves the latency of the tunnel as it is.

      c                                                       s
      application ─ mpclient ─┬─ b1: socat, 8 kbit/s ─────┬─ mpserver ─ service
                              └─ b2: bridge, 10 ms ───────┘

    8 kbit/s are five of the 500 datagrams per second. The queue of the slow link holds a second's
    worth; what is on top is dropped there.
    """
    net = Network(lab, ways=2)
    service = Service(net.server_host, SERVICE_PORT)
    net.socat(1)
    net.bridge(2, "--delay 10")
    net.server()
    net.client(net.bridged_paths().splitlines()[1], "--name alone 3001")
    net.client(net.bridged_paths(), "--name both")
    alone = Application(net.client_host, service, ("127.0.0.1", 3001))
    both = Application(net.client_host, service)
    alone.wait_up(5)
    both.wait_up(5)

    note("both links are fast: the slow one is about to win every race")
    both.run_for(1, RATE)
    check(percentile(both.round_trips(), 0.5) < 10, "way 1 was in use, and fast")

    note("way 1 becomes slow, in both directions")
    for host, interface in (net.client_host, "b1"), (net.middle[0], "c"):
        net.lab.command(
            f"tc -n {host.name} qdisc add dev {interface} root tbf rate 8kbit burst 2000 latency 1s"
        )
    time.sleep(1)
    slow = time.monotonic()
    alone.begin(RATE)
    both.begin(RATE)
    time.sleep(SECONDS)
    alone.finish()
    both.finish()

    for application in alone, both:
        application.expect_clean()
        application.expect_all()
    for name, share in ("half", 0.5), ("99 of 100", 0.99):
        fast, tunnel = (percentile(a.round_trips(slow), share) for a in (alone, both))
        check(
            tunnel < fast + LATER_MS,
            f"{name} came back within {tunnel:.1f} ms; over the fast path alone {fast:.1f} ms",
        )


# Of the link whose buffer takes two seconds to empty, in Mbit/s; datagrams of 1,200 bytes per second
# that are three halves of it.
NARROW = 4
MANY = 600


@scenario(limit_s=40, alone=True)
def learnt_rates(lab: Lab) -> None:
    """With `rate=auto rate-down=auto` nothing waits in the buffers of a link that gets too much.

      c                                                                      s
      application ─ mpclient ─── b1: socat, 4 Mbit/s, 2 s of buffer ─── mpserver ─ service

    First with a path of which nothing is said, then with both words.
    """
    net = Network(lab, ways=1)
    service = Service(net.server_host, SERVICE_PORT)
    net.socat(1)
    net.server()
    for host, interface in (net.client_host, "b1"), (net.middle[0], "c"):
        net.lab.command(
            f"tc -n {host.name} qdisc add dev {interface} root tbf rate {NARROW}mbit burst 5000 latency 2s"
        )
    results = []
    for words in "", " rate=auto rate-down=auto":
        client = net.client(net.bridged_paths() + words)
        application = Application(net.client_host, service, size=1_200)
        application.wait_up(5)
        application.begin(MANY)
        time.sleep(4)
        late = time.monotonic()
        time.sleep(2)
        application.finish()
        results.append(application.round_trips(late))
        client.end()
        client.wait(5)
    as_they_come, paced = (percentile(trips, 0.99) for trips in results)
    check(as_they_come > 1_000, f"as they come: 99 of 100 within {as_they_come:.0f} ms")
    check(paced < 400, f"rates learnt: 99 of 100 within {paced:.0f} ms")
    # Of what fits, with all headers of the link and of ours.
    share = len(results[1]) * (1_200 + 36 + 28 + 14) * 8 / (2 * NARROW * 1e6)
    check(share > 0.8, f"{100 * share:.0f} % of the link is in use")
