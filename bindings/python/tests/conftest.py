# SPDX-License-Identifier: BSD-2-Clause
"""What the tests share: a server and a tunnel to it, on loopback, in this process."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mptunnel as mpt

ROOT = Path(__file__).resolve().parents[3]
FIGURE = "figure"
ENOUGH = 10.0
"""Seconds that nothing here takes, on the slowest machine. A test that waits so long has failed."""


@pytest.fixture(scope="session")
def key() -> str:
    return mpt.genkey()


@pytest.fixture(scope="session")
def key_file(key: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "psk"
    file.write_text(key + "\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def server(key: str) -> Iterator[mpt.Server]:
    with mpt.listen("127.0.0.1:0", key=key, timeout=ENOUGH) as server:
        yield server


@pytest.fixture
def tunnel(server: mpt.Server, key: str) -> Iterator[mpt.Tunnel]:
    """Connected to `server`."""
    with mpt.open(address(server), key=key, timeout=ENOUGH) as tunnel:
        tunnel.wait_ready(ENOUGH)
        until(lambda: all(path.up for path in tunnel.paths))
        yield tunnel


@pytest.fixture
def peer(server: mpt.Server, tunnel: mpt.Tunnel) -> mpt.Peer:
    """The tunnel as the server sees it, ready for answers."""
    tunnel.send(b"who am I")
    data, peer = server.recv_from()
    assert data == b"who am I"
    until(lambda: any(path.up for path in peer.paths))
    return peer


@pytest.fixture
def echo(server: mpt.Server) -> Iterator[mpt.Server]:
    """A server that answers."""

    def run() -> None:
        with contextlib.suppress(mpt.Closed):
            while True:
                server.send_to(*server.recv_from(timeout=None))

    thread = threading.Thread(target=run)
    thread.start()
    yield server
    server.close()
    thread.join(ENOUGH)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Tells a measured figure at the end of the run, also of tests that pass."""
    # Reports carry these from the process that ran the test to the one that sums up.
    return lambda line: request.node.user_properties.append((FIGURE, line))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, line in report.user_properties if report.when == "call" else []:
            if name == FIGURE:
                terminalreporter.write_line(line)


def address(server: "mpt.Server | mpt.aio.Server") -> str:
    host, port = server.addresses[0]
    return f"{host}:{port}"


def until(condition: Callable[[], object], bound: float = ENOUGH) -> None:
    """Waits for something that comes without a signal."""
    end = time.monotonic() + bound
    while not condition():
        assert time.monotonic() < end, f"still not after {bound} s"
        time.sleep(0.002)


def run(*arguments: object, timeout: float = 30) -> "subprocess.CompletedProcess[str]":
    """Runs this Python with arguments, warnings being errors."""
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def threads_of_process() -> int:
    return len(os.listdir("/proc/self/task"))
