# SPDX-License-Identifier: BSD-2-Clause
"""The protocol of the classic mptunnel, from Python: the same calls, and no keys."""

import logging
import socket
import struct

import pytest

import mptunnel as mpt
from conftest import ENOUGH, address, until


def test_both_ends_talk_through_the_same_calls(tmp_path):
    with mpt.listen("mpt-listen://127.0.0.1:0?protocol=legacy") as server:
        where = f"mpt://{address(server)}?protocol=legacy"
        state = tmp_path / "numbers"
        with mpt.open(where, legacy_state=state, paths=["name=a", "name=b"]) as tunnel:
            tunnel.wait_ready(ENOUGH)
            for data in (b"", b"hello", bytes(65_491)):
                tunnel.send(data)
                got, peer = server.recv_from(timeout=ENOUGH)
                assert got == data
                server.send_to(got, peer)
                assert tunnel.recv(timeout=ENOUGH) == data
            assert tunnel.max_payload == 65_491
            assert tunnel.key_id == "none"
        assert 3 <= int(state.read_text()) < 10_000


def test_a_datagram_of_the_classic_program_is_understood():
    with mpt.listen("127.0.0.1:0", protocol="legacy") as server:
        host, port = address(server).rsplit(":", 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as classic:
            # "ping0" as a classic client sends it first, with its keystream.
            ping = "67458b6b5a6a2af559d1f563a654807a0017544425"
            classic.sendto(bytes.fromhex(ping), (host, int(port)))
            assert server.recv_from(timeout=ENOUGH)[0] == b"ping0"
            classic.settimeout(ENOUGH)
            # A sign of life, in clear.
            assert classic.recv(100) == struct.pack("<IIII", 0, 1, 1, 0)


def test_a_key_is_refused_and_the_lack_of_protection_is_told(key, caplog):
    with pytest.raises(mpt.ConfigError, match="protocol = legacy has no keys"):
        mpt.open("192.0.2.1:9", protocol="legacy", key=key)
    with caplog.at_level(logging.WARNING, logger="mptunnel"):
        with mpt.open("192.0.2.1:9", protocol="legacy") as tunnel:
            tunnel.wait_ready(ENOUGH)
            # It comes from another thread.
            until(lambda: any("nothing is encrypted" in text for text in caplog.messages))
