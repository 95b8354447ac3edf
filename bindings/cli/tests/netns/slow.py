# SPDX-License-Identifier: BSD-2-Clause
"""Slow links: beside a fast one, and with a deep buffer."""

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


@scenario(limit_s=40, alone=True, on_demand=True)
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


LINK_MBIT = 10
BUFFER = 4_000_000  # bytes that wait in front of the link: 3.2 s of it
BULK = 1_200  # bytes of a datagram of the flow that fills it
BULK_RATE = 2 * LINK_MBIT * 1_000_000 // (8 * BULK)  # of them per second: twice what the link carries
CALM_RATE = 50  # datagrams per second of a flow beside it
# Round trips of that flow, in milliseconds: a datagram waits 50 ms at most to be sent, and the rest
# is what this machine does. Without a rate it waits in the buffer.
CALM_MS = 150
FULL_MS = 1_000


@scenario(limit_s=30)
def deep_buffer_down(lab: Lab) -> None:
    """With `rate-down=` the buffer of a slow link to the client stays empty.

      c                                                              s
      bulk, calm ─ mpclient ─── b1: 10 Mbit/s down, 3.2 s of buffer ─┬─ mpserver ─ service
      bulk, calm ─ mpclient ─── b2: the same ────────────────────────┘

    The answers to each bulk flow are twice what its link carries. The first client says how much
    that is, the second one does not.
    """
    net = Network(lab, ways=2)
    net.route()
    service = Service(net.server_host, SERVICE_PORT)
    for middle in net.middle:
        lab.command(
            f"tc -n {middle.name} qdisc add dev c root "
            f"tbf rate {LINK_MBIT}mbit burst 5000 limit {BUFFER}"
        )
    net.server()
    paths = net.routed_paths().splitlines()
    net.client(f"{paths[0]} rate-down={LINK_MBIT}", "--name told")
    net.client(paths[1], "--name untold 3001")
    clients = []
    for port in 3000, 3001:
        to = ("127.0.0.1", port)
        bulk = Application(net.client_host, service, to, size=BULK)
        clients.append((bulk, Application(net.client_host, service, to)))
    for _, calm in clients:
        calm.wait_up(5)

    note("twice what the links carry")
    for bulk, calm in clients:
        bulk.begin(BULK_RATE)
        calm.begin(CALM_RATE)
    time.sleep(1.5)
    late = time.monotonic()
    time.sleep(1)
    for bulk, _ in clients:
        bulk.finish(drain=0)
    for _, calm in clients:
        calm.finish()
    (told_bulk, told), (_, untold) = clients
    carried = len(told_bulk.round_trips(late)) * BULK * 8 / 1e6
    check(carried > 0.8 * LINK_MBIT, f"with rate-down= the link carries {carried:.1f} Mbit/s")
    slowest, fastest = percentile(told.round_trips(late), 0.95), untold.round_trips(late)[0]
    check(
        slowest < CALM_MS,
        f"with rate-down= 95 of 100 round trips beside that take up to {slowest:.0f} ms",
    )
    check(fastest > FULL_MS, f"without it none takes less than {fastest:.0f} ms")
