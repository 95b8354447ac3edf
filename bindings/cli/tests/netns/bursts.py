# SPDX-License-Identifier: BSD-2-Clause
"""Bursts: through devices that cannot cut runs, and into buffers that are too small for them."""

import signal
import time
from pathlib import Path

from lab import Failure, Host, Lab, check, note
from meter import Service
from scenario import SERVER_PORT, SERVICE_PORT, Network, scenario

HERE = Path(__file__).resolve().parent
BURST = 64
ROUNDS = 50


def bursts(host: Host, size: int) -> int:
    """Sends bursts to the echo service and returns how many datagrams did not come back."""
    lost = 0
    with host.udp() as udp:
        udp.connect(("127.0.0.1", 3000))
        udp.settimeout(2)
        for round_ in range(ROUNDS):
            burst = {bytes([round_, number]) * (size // 2) for number in range(BURST)}
            for datagram in burst:
                udp.send(datagram)
            try:
                for _ in range(BURST):
                    answer = udp.recv(65_535)
                    check_known(answer in burst, len(answer))
                    burst.remove(answer)
            except TimeoutError:
                lost += len(burst)
    return lost


def check_known(known: bool, size: int) -> None:
    if not known:
        raise Failure(f"{size} bytes came back that were not sent, or twice")


@scenario(limit_s=40, alone=True)
def offload_refused(lab: Lab) -> None:
    """A kernel that refuses to cut runs (EIO): they go packet by packet, from the first one on.

      c                                              s
      application ─ mpclient ── b1: router ── mpserver ─ service

    Nothing is lost, and mpclient says what happened, once for each of its sockets.
    """
    net = Network(lab, ways=1)
    net.route()
    shim = lab.directory / "refuse_segments.so"
    lab.command(f"cc -shared -fPIC -o {shim} {HERE / 'refuse_segments.c'} -ldl")
    Service(net.server_host, SERVICE_PORT)
    config = lab.directory / "client.conf"
    config.write_text(net.routed_paths() + "\n")
    net.server_host.spawn(
        f"mpserver --key-file {net.key} {SERVER_PORT} 127.0.0.1 {SERVICE_PORT}", LD_PRELOAD=str(shim)
    )
    client = net.client_host.spawn(
        f"mpclient --key-file {net.key} {config}", LD_PRELOAD=str(shim)
    )
    client.wait_log("path .* is up", 5)
    # So that the bursts are there all at once when it looks.
    refused = "segmentation offload lost"
    for _ in range(10):
        client.freeze()
        with net.client_host.udp() as udp:
            for number in range(BURST):
                udp.sendto(bytes([number]) * 500, ("127.0.0.1", 3000))
        client.thaw()
        if refused in client.log():
            break
        time.sleep(0.1)
    client.wait_log(refused, 10)

    lost = bursts(net.client_host, 1000)

    check(lost == 0, f"{ROUNDS} bursts of {BURST} datagrams came back, once, {lost} missing")
    said = client.log().count(refused)
    check(1 <= said <= 2, f"mpclient, with two sockets, said so {said} times")


@scenario(limit_s=40, alone=True)
def offload_off(lab: Lab) -> None:
    """Without offloads, as for a driver that does them wrong: the same datagrams arrive.

      c                                              s
      application ─ mpclient ── b1: router ── mpserver ─ service
                    offload=off               offload=off
    """
    net = Network(lab, ways=1)
    net.route()
    Service(net.server_host, SERVICE_PORT)
    net.server("--offload off")
    net.client(net.routed_paths(), "--offload off").wait_log("path .* is up", 5)

    lost = bursts(net.client_host, 1000)

    check(lost == 0, f"{ROUNDS} bursts of {BURST} datagrams came back, once, {lost} missing")


@scenario(limit_s=40, alone=True)
def small_buffer(lab: Lab) -> None:
    """A burst that does not fit the socket is explained, with the remedy, when counters are asked for.

      c                                              s
      application ─ mpclient ── b1: router ── mpserver ─ service
                                              socket-buffer=64K, stopped for a moment
    """
    net = Network(lab, ways=1)
    net.route()
    Service(net.server_host, SERVICE_PORT)
    server = net.server("--socket-buffer 64K")
    client = net.client(net.routed_paths())
    client.wait_log("path .* is up", 5)
    server.wait_log("the system grants 64 KiB of socket buffer", 5)
    check(bursts(net.client_host, 100) == 0, "small bursts fit")
    server.send(signal.SIGUSR1)
    server.wait_log("counters:", 5)
    check("receive buffer" not in server.log(), "and nothing is said of them")

    server.freeze()
    with net.client_host.udp() as udp:
        for _ in range(1_000):
            udp.sendto(bytes(1400), ("127.0.0.1", 3000))
    time.sleep(0.2)
    server.thaw()
    note("counters")
    server.send(signal.SIGUSR1)

    server.wait_log(r"receive buffer of 64 KiB full.*net\.core\.rmem_max", 5)
