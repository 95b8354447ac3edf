# SPDX-License-Identifier: BSD-2-Clause
"""The walk-through of the classic README, with its own commands and real applications."""

import json
import re
import shutil
import time

from lab import Host, Lab, Process, check, note
from meter import Application, Service
from scenario import HELLO, SERVICE_PORT, Network, scenario


@scenario(limit_s=30)
def without_a_tunnel(lab: Lab) -> None:
    """What measures the tunnel sees losses, duplicates and altered datagrams where there are some.

      c                                                                       s
      application ── b1: mptunnel bridge, 5 % lost, 5 % twice, 5 % altered ── service
    """
    net = Network(lab, ways=1)
    service = Service(net.server_host, SERVICE_PORT)
    net.middle[0].spawn(
        f"mptunnel bridge --listen 4001 --to 10.1.1.2:{SERVICE_PORT} "
        "--loss 5% --dup 5% --corrupt 5%"
    ).wait_log("listening", 3)
    application = Application(net.client_host, service, ("10.0.1.2", 4001))
    application.run_for(1, 1_000)

    check(len(application.lost()) > 20, f"{len(application.lost())} lost")
    for name, end in ("there", application.there), ("back", application.back):
        check(len(end.copies) > 20, f"{len(end.copies)} delivered twice on the way {name}")
    altered = len(service.altered), len(application.foreign)
    check(min(altered) > 10, f"{altered[0]} altered on the way there, {altered[1]} on the way back")

    said = net.client_host.run(
        f"{HELLO}/hello_client.py 10.0.1.2 4001 --count 500 --rate 1000", ok=(1,)
    )
    check("duplicated 0" not in said and "altered 0" not in said, f"hello-counter: {said.strip()}")


@scenario(limit_s=60)
def walk_through(lab: Lab) -> None:
    """The commands of the classic README carry hello-counter, iperf3 and OpenVPN.

      c                                                                        s
      application ─ mpclient ─┬─ b1: socat udp-listen:4001,fork ─┬─ mpserver ─ service
                              ├─ b2: socat udp-listen:4002,fork ─┤  2000      127.0.0.1:1194
               127.0.0.1:3000 └─ b3: socat udp-listen:4003,fork ─┘
              10.9.0.1 ───────────── iperf3's TCP control connection ───────── 10.9.0.2

    mpserver makes the key at its first run; the user copies the file to the client.
    """
    net = Network(lab, ways=3)
    c, s = net.client_host, net.server_host
    lab.link(c, "10.9.0.1/24", s, "10.9.0.2/24")

    server = s.spawn("mpserver 2000 127.0.0.1 1194")
    net.socats()
    server.wait_log("first run: made a new key", 3)
    (c.home / ".config/mptunnel").mkdir(parents=True)
    key = c.home / ".config/mptunnel/psk"
    shutil.copy2(s.home / ".config/mptunnel/psk", key)
    check(key.stat().st_mode & 0o777 == 0o600, "nobody else can read the key")
    config = "10.0.1.2 4001\n# a comment\n\n10.0.2.2 4002\n10.0.3.2 4003\n"
    (c.home / "mpclient.conf").write_text(config)
    c.spawn("mpclient mpclient.conf").wait_log("path .* is up", 3)

    hello = s.spawn(f"{HELLO}/hello_server.py 1194")
    hello.wait_log("port 1194", 5)
    said = c.run(f"{HELLO}/hello_client.py 127.0.0.1 3000 --count 1000 --rate 1000")
    check("received 1000  lost 0 " in said, f"hello-counter: {said.strip()}")
    hello.end()
    hello.popen.wait()

    note("iperf3 talks TCP to the port that its UDP goes to")
    c.spawn("socat tcp-listen:3000,bind=127.0.0.1,fork,reuseaddr tcp4:10.9.0.2:1194", "control@c")
    for direction in "", "-R":
        iperf = s.spawn("iperf3 --server --forceflush --one-off --port 1194")
        iperf.wait_log("Server listening", 5)
        said = c.run(f"iperf3 -c 127.0.0.1 -p 3000 -u -b 8M -l 1200 -t 2 -J {direction}", 20)
        total = json.loads(said)["end"]["sum"]
        check(
            total["packets"] > 1_500 and total["lost_packets"] == 0,
            f"iperf3 -u {direction}: {total['packets']} datagrams, {total['lost_packets']} lost",
        )
        iperf.wait(5)

    s.run("openvpn --genkey secret static.key")
    shutil.copy2(s.home / "static.key", c.home)
    # OpenVPN 2.7 wants to be told that this is meant, in a word that 2.6 does not know.
    meant = "allow-deprecated-insecure-static-crypto"
    static = f"--secret static.key --cipher AES-256-CBC --ignore-unknown-option {meant} --{meant}"
    openvpn(c, s, static, static)

    for host, name in (c, "client"), (s, "server"):
        host.run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
            f"-subj /CN={name} -keyout tls.key -out tls.crt"
        )
    openvpn(
        c,
        s,
        f"--tls-client --cert tls.crt --key tls.key --peer-fingerprint {fingerprint(s)}",
        f"--tls-server --dh none --cert tls.crt --key tls.key --peer-fingerprint {fingerprint(c)}",
    )


def fingerprint(host: Host) -> str:
    said = host.run("openssl x509 -in tls.crt -noout -fingerprint -sha256")
    return said.strip().partition("=")[2]


def openvpn(c: Host, s: Host, client_words: str, server_words: str) -> None:
    """Lays a VPN through the tunnel: ping, and a TCP transfer, inside it."""
    common = "--dev tun0 --proto udp --ping 1 --verb 3"
    ends: list[Process] = [
        s.spawn(f"openvpn {common} --lport 1194 --ifconfig 10.8.0.1 10.8.0.2 {server_words}"),
        c.spawn(
            f"openvpn {common} --nobind --remote 127.0.0.1 3000 --ifconfig 10.8.0.2 10.8.0.1 "
            f"{client_words}"
        ),
    ]
    for end in ends:
        end.wait_log("Initialization Sequence Completed", 15)
    said = c.run("ping -c 10 -i 0.1 -s 1400 10.8.0.1")
    check(" 0% packet loss" in said, f"ping inside OpenVPN: {said.strip().splitlines()[-1]}")
    iperf = s.spawn("iperf3 --server --forceflush --one-off --bind 10.8.0.1")
    iperf.wait_log("Server listening", 5)
    said = c.run("iperf3 -c 10.8.0.1 -t 2 -J", 20)
    mbit_per_s = json.loads(said)["end"]["sum_received"]["bits_per_second"] / 1e6
    # Far below what it does, and far above what a transfer that hangs and starts again would do.
    check(mbit_per_s > 10, f"TCP inside OpenVPN: {mbit_per_s:.0f} Mbit/s")
    iperf.wait(5)
    for end in ends:
        end.end()
        end.wait(5)


@scenario(limit_s=30)
def wireguard(lab: Lab) -> None:
    """WireGuard through the tunnel: a ping goes on while mpserver is killed and started again.

      c                                             s
      wgc ─ mpclient ─┬─ b1: socat ─┬─ mpserver ─ wgs
      10.8.0.2        └─ b2: socat ─┘             10.8.0.1
    """
    net = Network(lab, ways=2)
    c, s = net.client_host, net.server_host
    net.socats()
    server = net.server()
    net.client(net.bridged_paths()).wait_log("path .* is up", 5)
    lay_wireguard(c, s, mtu=1420)

    iperf = s.spawn("iperf3 --server --forceflush --one-off --bind 10.8.0.1")
    iperf.wait_log("Server listening", 5)
    said = c.run("iperf3 -c 10.8.0.1 -t 1 -J", 20)
    mbit_per_s = json.loads(said)["end"]["sum_received"]["bits_per_second"] / 1e6
    check(mbit_per_s > 10, f"TCP inside WireGuard: {mbit_per_s:.0f} Mbit/s")
    ping = c.spawn("ping -c 40 -i 0.05 -W 1 10.8.0.1")
    time.sleep(0.7)
    server.kill()
    net.server()
    ping.wait(10)
    received = re.search(r"(\d+) received", ping.log())
    count = int(received.group(1)) if received else 0
    check(count >= 20, f"{count} of 40 pings, one each 50 ms, came back in spite of the restart")


def lay_wireguard(c: Host, s: Host, mtu: int) -> None:
    """WireGuard between wgc, 10.8.0.2, and wgs, 10.8.0.1, by way of the tunnel at port 3000."""
    for host in c, s:
        wireguard_go = host.spawn(f"wireguard-go --foreground wg{host.name}", LOG_LEVEL="verbose")
        wireguard_go.wait_log("UAPI listener started", 5)
        host.run("sh -c 'umask 077; wg genkey > private; wg pubkey < private > public'")
    public = {host.name: (host.home / "public").read_text().strip() for host in (c, s)}
    for host, address, peer in (
        (c, "10.8.0.2", f"{public['s']} allowed-ips 10.8.0.1/32 endpoint 127.0.0.1:3000"),
        (s, "10.8.0.1", f"{public['c']} allowed-ips 10.8.0.2/32"),
    ):
        port = "listen-port 9000" if host is s else ""
        host.run(f"wg set wg{host.name} {port} private-key private peer {peer}")
        host.ip(f"addr add {address}/24 dev wg{host.name}")
        host.ip(f"link set wg{host.name} mtu {mtu} up")


@scenario(limit_s=30)
def plain_socat(lab: Lab) -> None:
    """A bridge without `fork` serves as long as the client keeps its port.

      c                                                       s
      application ─ mpclient ── b1: socat udp-listen:4001 ── mpserver ─ service

    socat without `fork` hears only the first port that sends to it: should mpclient ever open
    another socket for the path, the path would be dead. The firewall of s hides from socat that
    nobody listens while mpserver is down: it would end, as with any sender.
    """
    net = Network(lab, ways=1)
    net.server_host.nft(
        "add table ip hide\n"
        "add chain ip hide out { type filter hook output priority 0; }\n"
        "add rule ip hide out icmp type destination-unreachable counter drop comment \"hidden\""
    )
    service = Service(net.server_host, SERVICE_PORT)
    net.middle[0].spawn("socat udp-listen:4001 udp4:10.1.1.2:2000")
    server = net.server()
    net.client(net.bridged_paths())
    application = Application(net.client_host, service)
    check(application.wait_up(5) < 5, "the tunnel is up")
    ports = set(bound_ports(net.client_host))

    application.begin(rate=500)
    for _ in range(3):
        time.sleep(1)  # a client shakes hands once a second at most
        server.kill()
        server = net.server()
        gap = application.gap_within(server.started, 5)
        check(gap < 1, f"mpserver restarted: traffic again after {gap:.3f} s")
    application.finish()

    application.expect_clean()
    check(net.server_host.dropped("hidden") > 0, "mpserver was really away")
    check(set(bound_ports(net.client_host)) == ports, f"mpclient still uses the ports {ports}")


def bound_ports(host: Host) -> list[str]:
    """The ports of mpclient's own sockets."""
    said = host.run("ss --udp --all --numeric --processes --no-header")
    lines = [line for line in said.splitlines() if '"mpclient"' in line]
    return [match.group(1) for line in lines if (match := re.search(r":(\d+)\s", line))]
