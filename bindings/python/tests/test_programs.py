# SPDX-License-Identifier: BSD-2-Clause
"""python -m mptunnel, the examples, and other languages at the other end."""

import contextlib
import itertools
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import mptunnel as mpt
from conftest import ENOUGH, ROOT, address, run

EXAMPLES = ROOT / "examples" / "python"


@contextlib.contextmanager
def program(*command: object, stdin: int | None = None) -> Iterator["subprocess.Popen[str]"]:
    """A program that runs beside the test, and is told to end after it."""
    with subprocess.Popen(
        [str(word) for word in command],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        # A program that says nothing is ended, so that the test that reads from it is as well.
        timer = threading.Timer(30, child.kill)
        timer.start()
        try:
            yield child
        finally:
            timer.cancel()
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
                try:
                    child.wait(ENOUGH)
                except subprocess.TimeoutExpired:
                    child.kill()


def port_of(line: str) -> int:
    """The port of the address in a line such as `listening on [[::]:4000]`."""
    found = re.findall(r"\b(\d+)\)?\]?$", line.strip())
    assert found, line
    return int(found[0])


def python(*arguments: object) -> tuple[object, ...]:
    return (sys.executable, "-W", "error", *arguments)


def test_genkey_prints_a_key_or_makes_a_file_that_is_private(tmp_path):
    first, second = (run("-m", "mptunnel", "genkey") for _ in range(2))
    assert re.fullmatch(r"[A-Za-z0-9+/]{43}=\n", first.stdout)
    assert first.stdout != second.stdout

    file = tmp_path / "psk"
    assert run("-m", "mptunnel", "genkey", "-o", file).stdout == ""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = file.read_text()
    again = run("-m", "mptunnel", "genkey", "-o", file)
    assert (again.returncode, again.stderr) == (1, f"mptunnel: {file}: File exists\n")
    assert file.read_text() == content
    mpt.listen("127.0.0.1:0", key_file=file).close()


def test_ping_and_status_show_each_path(server, key_file):
    more = ("-k", key_file, "-p", "name=one", "-p", "name=two")
    ping = run("-m", "mptunnel", "ping", address(server), *more, "-c", "3", "-i", "0.3")
    assert ping.returncode == 0, ping.stderr
    lines = ping.stdout.splitlines()
    assert len(lines) == 6
    assert re.fullmatch(r"3 one: rtt=[0-9.]+ ms smoothed=[0-9.]+ ms", lines[4])
    assert lines[5].startswith("3 two: rtt=")

    status = run("-m", "mptunnel", "status", f"mpt://{address(server)}", *more)
    assert status.returncode == 0, status.stderr
    assert re.search(r"^one +(up|down) ", status.stdout, re.MULTILINE)
    assert "PATH  STATE" in status.stdout


def test_a_server_that_does_not_answer_is_a_failure_with_a_reason(key_file):
    for command in ("ping", "status"):
        done = run("-m", "mptunnel", command, "127.0.0.1:9", "-k", key_file, "-t", "0.3")
        assert done.returncode == 1
        assert done.stderr.startswith("mptunnel: not connected: ")
        assert "Traceback" not in done.stderr
    done = run("-m", "mptunnel", "status", "127.0.0.1:9")
    assert (done.returncode, "no key" in done.stderr) == (1, True)


def test_misuse_of_the_commands_shows_the_usage():
    for arguments in ([], ["no-such-command"], ["ping"]):
        done = run("-m", "mptunnel", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: python -m mptunnel")
    assert run("-m", "mptunnel", "--version").stdout == f"mptunnel {mpt.__version__}\n"


@pytest.mark.parametrize(
    ("flag", "wrong"),
    [("-t", "-1"), ("-t", "nan"), ("-i", "-1"), ("-i", "inf"), ("-i", "x"), ("-c", "-1")],
)
def test_a_number_that_makes_no_sense_shows_the_usage(flag, wrong, key_file):
    done = run("-m", "mptunnel", "ping", "127.0.0.1:9", "-k", key_file, f"{flag}{wrong}")
    assert done.returncode == 2
    assert f"argument {flag}/--" in done.stderr and "expected" in done.stderr


def test_ping_ends_with_ctrl_c(server, key_file):
    command = ("-m", "mptunnel", "ping", address(server), "-k", key_file, "-c", 0, "-i", 0.05)
    with program(*python(*command)) as child:
        assert child.stdout.readline().startswith("1 ")
        child.send_signal(signal.SIGINT)
        assert child.wait(ENOUGH) == 130
        assert "Traceback" not in child.stdout.read()


def client_output(*command: object) -> list[str]:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def is_echo(lines: list[str]) -> bool:
    return lines[:10] == [f"hello {n}" for n in range(1, 11)] and "first to arrive" in lines[10]


def test_the_echo_example_between_two_processes(key_file):
    with program(*python(EXAMPLES / "echo_server.py", 0, key_file)) as server:
        at = f"127.0.0.1:{port_of(server.stdout.readline())}"
        lines = client_output(*python(EXAMPLES / "echo_client.py", key_file, at, f"{at} name=b"))
        assert is_echo(lines)
        assert len(lines) == 12 and lines[11].startswith("b: sent ")


def test_the_chat_example_passes_lines_on(key_file):
    chat = EXAMPLES / "chat.py"
    with program(*python(chat, "serve", 0, key_file)) as server:
        at = f"127.0.0.1:{port_of(server.stdout.readline())}"
        pipe = subprocess.PIPE
        with program(*python(chat, "join", at, key_file, "ann"), stdin=pipe) as ann:
            assert ann.stdout.readline() == "connected\n"
            with program(*python(chat, "join", at, key_file, "bob"), stdin=pipe) as bob:
                assert bob.stdout.readline() == "connected\n"
                assert ann.stdout.readline() == "bob is here\n"
                bob.stdin.write("hello ann\n")
                bob.stdin.flush()
                assert ann.stdout.readline() == "bob: hello ann\n"
                ann.stdin.write("hello bob\n")
                ann.stdin.flush()
                assert bob.stdout.readline() == "ann: hello bob\n"
                bob.stdin.close()
                assert bob.wait(ENOUGH) == 0
            ann.stdin.close()
            assert ann.wait(ENOUGH) == 0


def test_the_monitor_example_draws_into_the_terminal_and_into_a_file(server, key_file, tmp_path):
    png = tmp_path / "paths.png"
    monitor = EXAMPLES / "monitor.py"
    lines = client_output(
        *python("-W", "ignore", monitor, f"mpt://{address(server)}", "-k", key_file),
        *("-p", "name=alpha", "-p", "to=127.0.0.1:9 name=beta", "--png", png),
        *("--seconds", "2", "--interval", "0.1"),
    )
    assert re.match(r"round trips up to [0-9.]+ ms", lines[0])
    assert re.match(r"alpha +up +rtt +[0-9.]+ ms", lines[1])
    assert re.fullmatch(r"  [▁▂▃▄▅▆▇█x]+", lines[2])
    assert re.match(r"beta +starting", lines[3]) and "x" in lines[4]
    assert lines[-1] == f"wrote {png}"
    assert png.read_bytes().startswith(b"\x89PNG\r\n")
    assert png.stat().st_size > 5_000


def built(name: str) -> Path:
    """What `make test-python` builds of Rust before the tests."""
    file = ROOT / "target" / "debug" / name
    assert file.exists(), f"{file} is missing: make test-python builds it"
    return file


def test_a_python_client_and_the_rust_server(key_file):
    with program(built("examples/echo_server"), 0, key_file) as server:
        at = f"127.0.0.1:{port_of(server.stdout.readline())}"
        assert is_echo(client_output(*python(EXAMPLES / "echo_client.py", key_file, at)))
        with mpt.open(at, key_file=key_file, timeout=ENOUGH) as tunnel:
            tunnel.wait_ready()
            for size in (0, 1, 1400, 65_507):
                data = os.urandom(size)
                tunnel.send(data)
                assert tunnel.recv() == data


def test_a_rust_client_and_the_python_server(key_file, echo):
    assert is_echo(client_output(built("examples/echo_client"), key_file, address(echo)))


PORTS = itertools.count(os.getpid() * 97)


def free_port() -> int:
    """A port below those that the kernel deals out: nobody else takes it meanwhile."""
    while True:
        port = 20_000 + next(PORTS) % 12_000
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, \
                contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def until_it_listens(child: "subprocess.Popen[str]") -> None:
    for line in child.stdout:
        if "listens on" in line:
            return
    pytest.fail("it ended")


def test_a_python_client_and_a_target_behind_mpserver(key_file):
    """Two flows of one tunnel are two applications for the target."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        target.settimeout(ENOUGH)
        port = free_port()
        mpserver = (built("mpserver"), f"127.0.0.1:{port}", *target.getsockname())
        with program(*mpserver, "--key-file", key_file) as child:
            until_it_listens(child)
            with mpt.open(f"127.0.0.1:{port}", key_file=key_file, timeout=ENOUGH) as tunnel:
                tunnel.wait_ready()
                sources = []
                for flow in (1, 2):
                    tunnel.send(b"from flow %d" % flow, flow=flow)
                    data, source = target.recvfrom(100)
                    assert data == b"from flow %d" % flow
                    sources.append(source)
                assert sources[0] != sources[1]
                for flow in (2, 1):
                    target.sendto(b"to flow %d" % flow, sources[flow - 1])
                    message = tunnel.recv_message()
                    assert (message.data, message.flow) == (b"to flow %d" % flow, flow)


def test_applications_behind_mpclient_and_the_python_server(key_file, echo, tmp_path):
    host, server_port = echo.addresses[0]
    (tmp_path / "mpclient.conf").write_text(f"{host} {server_port}\n")
    port = free_port()
    mpclient = (built("mpclient"), port, tmp_path / "mpclient.conf", "--key-file", key_file)
    with program(*mpclient) as child:
        until_it_listens(child)
        with contextlib.ExitStack() as stack:
            kinds = (socket.AF_INET, socket.SOCK_DGRAM)
            applications = [stack.enter_context(socket.socket(*kinds)) for _ in range(3)]
            for number, application in enumerate(applications):
                application.connect(("127.0.0.1", port))
                application.settimeout(0.2)
                # The first ones may come before there is a session.
                for _ in range(50):
                    application.send(b"from %d" % number)
                    with contextlib.suppress(TimeoutError):
                        assert application.recv(100) == b"from %d" % number
                        break
                else:
                    pytest.fail("no answer")
