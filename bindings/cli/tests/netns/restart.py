# SPDX-License-Identifier: BSD-2-Clause
"""kill -9, and keys that differ."""

import time

from lab import Lab, Process, check, note
from meter import Application, Service, Tap
from scenario import SERVICE_PORT, Network, scenario

RATE = 1_000  # datagrams per second
# How long after the start of a process traffic may still not flow, in seconds.
GAP_S = 1.0
# A bridge: the other path carries on, so nobody notices. This one has to be found again.
PATH_GAP_S = 3.0
SIZE = 700  # of the datagrams, in bytes: nothing else on the links has frames of this size
# Between two restarts: a client shakes hands once a second at most.
PAUSE_S = 1.2


@scenario(limit_s=60)
def restarts(lab: Lab) -> None:
    """mpserver, mpclient, both, or a bridge are killed under traffic and started again.

      c                                        s
      application ─ mpclient ─┬─ b1: socat ─┬─ mpserver ─ service
           1000 datagrams/s   └─ b2: socat ─┘

    Nobody tells the other side. Traffic flows again within a second of the start. A bridge comes
    back with a new source port towards mpserver.
    """
    net = Network(lab, ways=2)
    service = Service(net.server_host, SERVICE_PORT)
    bridges = net.socats()
    server = net.server()
    client = net.client(net.bridged_paths())
    application = Application(net.client_host, service, size=SIZE)
    application.wait_up(5)
    application.begin(RATE)

    def restarted(what: str, *started: Process) -> None:
        begin = max(process.started for process in started)
        gap = application.gap_within(begin, 5)
        check(gap < GAP_S, f"{what} restarted: traffic again after {gap:.3f} s")
        # It goes on, too.
        settled = time.monotonic()
        time.sleep(PAUSE_S)
        application.expect_all(settled, time.monotonic() - 0.2)

    time.sleep(PAUSE_S)
    for _ in range(3):
        server.kill()
        time.sleep(0.3)
        server = net.server()
        restarted("mpserver", server)
    for _ in range(3):
        client.kill()
        time.sleep(0.3)
        client = net.client(net.bridged_paths())
        restarted("mpclient", client)
    for _ in range(2):
        server.kill()
        client.kill()
        time.sleep(0.3)
        server = net.server()
        client = net.client(net.bridged_paths())
        restarted("both", server, client)

    for way in 1, 2, 1:
        path = net.way(way, SIZE)
        before = time.monotonic()
        bridges[way - 1].kill()
        time.sleep(0.3)
        bridges[way - 1] = net.socat(way)
        gap = path.within(bridges[way - 1].started, 10)
        check(gap < PATH_GAP_S, f"bridge {way} restarted: its path is back after {gap:.3f} s")
        server.wait_log(f"path {way - 1} (moved to|is up from) 10.1.{way}.1", 60)
        time.sleep(0.5)
        application.expect_all(before, time.monotonic() - 0.2)
    application.finish()
    application.expect_clean()


@scenario(limit_s=30)
def other_key(lab: Lab) -> None:
    """mpserver comes back with a new key: both ends say so, and nothing passes unencrypted.

      c                                        s
      application ─ mpclient ─┬─ b1: socat ─┬─ mpserver ─ service
                    old key   └─ b2: socat ─┘  new key

    Taps on c's interfaces look for a text that is in every datagram. The one on lo finds it.
    """
    net = Network(lab, ways=2)
    new_key = lab.directory / "new-psk"
    net.client_host.run(f"mptunnel genpsk --output {new_key}")
    service = Service(net.server_host, SERVICE_PORT)
    net.socats()
    server = net.server()
    client = net.client(net.bridged_paths())
    application = Application(net.client_host, service)
    application.wait_up(5)
    inside = Tap(net.client_host, "lo")
    outside = [Tap(net.client_host, "b1"), Tap(net.client_host, "b2")]
    application.begin(RATE)
    time.sleep(1)

    note("the server gets a new key")
    server.kill()
    server = net.server(key=new_key)
    restarted = time.monotonic()
    server.wait_log("key id [0-9a-f]{16}, which is not ours", 5)
    said = len(client.log())
    while "key" not in client.log()[said:] and time.monotonic() < restarted + 6:
        time.sleep(0.05)
    after = time.monotonic() - restarted
    check(after < 6, f"mpclient names the key as a possible reason after {after:.1f} s")
    check(application.gap_after(restarted) > 1e9, "no datagram passed between the two keys")
    check(server.is_alive() and client.is_alive(), "both are alive")

    note("the client gets it as well")
    client.kill()
    client = net.client(net.bridged_paths(), key=new_key)
    gap = application.gap_within(client.started, 5)
    check(gap < GAP_S, f"traffic again after {gap:.3f} s")
    application.finish()
    application.expect_clean()
    check(inside.in_the_clear > 1_000, f"the tap on lo saw the text {inside.in_the_clear} times")
    for way, tap in enumerate(outside, 1):
        seen = len(tap.sent) + len(tap.received)
        check(tap.in_the_clear == 0 and seen > 1_000, f"it is in none of {seen} frames on b{way}")
