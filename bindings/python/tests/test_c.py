# SPDX-License-Identifier: BSD-2-Clause
"""The C interface at the other end, and its numbers."""

import os
import re
import subprocess
from pathlib import Path

import pytest

import mptunnel as mpt
from conftest import ENOUGH, ROOT, address
from test_programs import built, client_output, port_of, program

# The names in C of what Python calls by a class.
NAMES = {
    mpt.WouldBlock: "MPT_EAGAIN",
    mpt.TimedOut: "MPT_ETIMEDOUT",
    mpt.Interrupted: "MPT_EINTR",
    mpt.PayloadTooLarge: "MPT_EMSGSIZE",
    mpt.BufferTooSmall: "MPT_EMSGSIZE",
    mpt.ConfigError: "MPT_ECONFIG",
    mpt.Unsupported: "MPT_ENOTSUP",
    mpt.NotConnected: "MPT_ENOTCONN",
    mpt.NoPath: "MPT_ENOPATH",
    mpt.UnknownPeer: "MPT_EPEER",
    mpt.UnknownPath: "MPT_EPATH",
    mpt.Refused: "MPT_EREFUSED",
    mpt.Closed: "MPT_ECLOSED",
    mpt.Forked: "MPT_EFORKED",
    mpt.Failed: "MPT_EPANIC",
    mpt.SystemFailure: "MPT_ESYSTEM",
}


def test_exceptions_have_the_numbers_of_the_c_header():
    header = (ROOT / "include" / "mptunnel.h").read_text()
    numbers = {name: int(number) for name, number in re.findall(r"(MPT_E\w+) = (-\d+)", header)}
    assert {kind: kind.code for kind in NAMES} == {
        kind: numbers[name] for kind, name in NAMES.items()
    }
    classes = {kind for kind in vars(mpt).values() if isinstance(kind, type)}
    assert {kind for kind in classes if issubclass(kind, mpt.Error)} - {mpt.Error} == set(NAMES)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Compiles an example in C against the library that cargo built."""
    directory = tmp_path_factory.mktemp("c")
    # Programs look for the library by its soname.
    (directory / "libmptunnel.so.0").symlink_to(built("libmptunnel.so"))
    (directory / "libmptunnel.so").symlink_to(built("libmptunnel.so"))

    def compile(name: str) -> Path:
        source = ROOT / "examples" / "c" / f"{name}.c"
        command = ["cc", source, "-o", directory / name, "-I", ROOT / "include", "-pthread"]
        command += [f"-L{directory}", f"-Wl,-rpath,{directory}", "-lmptunnel"]
        subprocess.run(command, check=True, timeout=60)
        return directory / name

    return compile


def test_a_python_client_and_the_c_server(compiled, key_file):
    uri = f"mpt-listen://127.0.0.1:0?key-file={key_file}"
    with program(compiled("echo_server"), uri, stdin=subprocess.PIPE) as server:
        at = f"127.0.0.1:{port_of(server.stdout.readline())}"
        with mpt.open(at, key_file=key_file, timeout=ENOUGH) as tunnel:
            tunnel.wait_ready()
            for size in (0, 1, 1400, 65_507):
                data = os.urandom(size)
                tunnel.send(data)
                assert tunnel.recv() == data
        server.stdin.close()
        assert server.wait(ENOUGH) == 0


def test_a_c_client_and_the_python_server(compiled, key_file, echo):
    uri = f"mpt://{address(echo)}?key-file={key_file}&path=name=a&path=name=b"
    assert client_output(compiled("echo_client"), uri, 5) == [
        f"datagram {number} came back" for number in range(5)
    ]
