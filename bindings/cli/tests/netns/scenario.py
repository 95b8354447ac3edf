# SPDX-License-Identifier: BSD-2-Clause
"""The list of scenarios, and the two networks that most of them use."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab import Host, Lab, Process
from meter import Way

HELLO = Path(__file__).resolve().parents[4] / "examples" / "hello"
SERVER_PORT = 2000  # of mpserver
SERVICE_PORT = 9000  # of the application behind it


@dataclass(frozen=True)
class Scenario:
    """One row of `run --list`."""

    name: str
    title: str
    drawing: str
    limit_s: int
    # Whether it measures speed or delay, so that nothing may run beside it.
    alone: bool
    # Whether it is run only by its name: it takes minutes.
    on_demand: bool
    body: Callable[[Lab], None]


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    limit_s: int, alone: bool = False, on_demand: bool = False
) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:
    """Registers a scenario: its docstring is its title and its drawing."""

    def register(body: Callable[[Lab], None]) -> Callable[[Lab], None]:
        title, _, drawing = inspect.cleandoc(body.__doc__ or "").partition("\n")
        name = body.__name__
        title, drawing = title.rstrip("."), drawing.rstrip()
        SCENARIOS[name] = Scenario(name, title, drawing, limit_s, alone, on_demand, body)
        return body

    return register


class Network:
    """A client and a server host with several ways between them, one per host in the middle.

    ```text
                   10.0.1.1   10.0.1.2      10.1.1.1   10.1.1.2
      c  (mpclient) b1 ───────── c   b1   s ───────── b1  (mpserver)  s
                    b2 ───────── c   b2   s ───────── b2
                   10.0.2.1   10.0.2.2      10.1.2.1   10.1.2.2
    ```

    Interfaces are named after the host that they lead to.
    """

    def __init__(self, lab: Lab, ways: int, mtus: list[int] | None = None):
        self.lab = lab
        self.client_host = lab.host("c")
        self.server_host = lab.host("s")
        self.middle: list[Host] = []
        self.mtus = mtus or [1500] * ways
        self.key = lab.directory / "psk"
        for i, mtu in enumerate(self.mtus, 1):
            middle = lab.host(f"b{i}")
            lab.link(self.client_host, f"10.0.{i}.1/24", middle, f"10.0.{i}.2/24", mtu)
            lab.link(middle, f"10.1.{i}.1/24", self.server_host, f"10.1.{i}.2/24", mtu)
            self.middle.append(middle)
        self.client_host.run(f"mptunnel genpsk --output {self.key}")

    def route(self) -> None:
        """Makes the hosts in the middle routers: the paths lead to the server itself."""
        for i, middle in enumerate(self.middle, 1):
            middle.sysctl("net.ipv4.ip_forward", 1)
            self.client_host.ip(f"route add 10.1.{i}.0/24 via 10.0.{i}.2")
            self.server_host.ip(f"route add 10.0.{i}.0/24 via 10.1.{i}.1")

    def routed_paths(self) -> str:
        """A configuration with a path through each router."""
        ways = range(1, len(self.middle) + 1)
        return "\n".join(f"10.1.{i}.2 {SERVER_PORT} if=b{i} name=way{i}" for i in ways)

    def way(self, way: int, size: int) -> Way:
        """Watches datagrams of this size on a path."""
        return Way(self.client_host, f"b{way}", self.server_host, f"b{way}", size)

    def socat(self, way: int) -> Process:
        """A bridge, as in every README: one socket and one child for each sender."""
        return self.middle[way - 1].spawn(
            f"socat udp-listen:{4000 + way},fork udp4:10.1.{way}.2:{SERVER_PORT}",
            name=f"socat@b{way}",
        )

    def socats(self) -> list[Process]:
        return [self.socat(way) for way in range(1, len(self.middle) + 1)]

    def bridge(self, way: int, impairments: str = "") -> Process:
        """A bridge of our own, which can be a bad network as well."""
        return self.middle[way - 1].spawn(
            f"mptunnel bridge --listen {4000 + way} --to 10.1.{way}.2:{SERVER_PORT} {impairments}",
            name=f"mptunnel-bridge@b{way}",
        )

    def bridged_paths(self) -> str:
        """A configuration with a path through each bridge."""
        ways = range(1, len(self.middle) + 1)
        return "\n".join(f"10.0.{i}.2 {4000 + i} name=way{i}" for i in ways)

    def server(self, words: str = "", key: Path | None = None, port: int = SERVER_PORT) -> Process:
        return self.server_host.spawn(
            f"mpserver --key-file {key or self.key} {words} {port} 127.0.0.1 {SERVICE_PORT}"
        )

    def client(self, paths: str, words: str = "", key: Path | None = None) -> Process:
        """mpclient with this configuration file, on 127.0.0.1:3000 unless `words` say otherwise."""
        number = len(self.lab.processes) + 1
        config = self.lab.directory / f"client-{number}.conf"
        config.write_text(paths + "\n")
        print("".join(f"      {line}\n" for line in paths.splitlines()), end="", flush=True)
        return self.client_host.spawn(f"mpclient --key-file {key or self.key} {words} {config}")
