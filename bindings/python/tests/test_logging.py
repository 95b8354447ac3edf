# SPDX-License-Identifier: BSD-2-Clause
"""Log lines of the library arrive at `logging`, from a thread of Python, whatever the others do."""

import logging
import threading
import time

import pytest

import mptunnel as mpt
from conftest import ENOUGH, address, run, until


@pytest.fixture
def lines():
    """What arrives at the logger `mptunnel`, from level 5 on."""
    found = []

    class Keep(logging.Handler):
        def emit(self, record):
            found.append((record, threading.current_thread().name))

    logger = logging.getLogger("mptunnel")
    handler = Keep()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(5)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_lines_arrive_with_their_level_name_and_time(lines, key):
    begin = time.time()
    with mpt.listen("127.0.0.1:0", key=key) as server:
        with mpt.open(address(server), key=key) as tunnel:
            tunnel.wait_ready(ENOUGH)
            until(lambda: lines)
            records = [record for record, _ in lines]
            assert {record.name.split(".")[0] for record in records} == {"mptunnel"}
            assert {record.levelname for record in records} <= {
                "Level 5",
                "DEBUG",
                "INFO",
                "WARNING",
                "ERROR",
            }
            for record in records:
                assert record.getMessage()
                assert begin - 1 < record.created < time.time() + 1
            # Never a thread of the library: those have no Python.
            assert {thread for _, thread in lines} == {"mptunnel-log"}


def test_lines_arrive_while_all_python_threads_wait(lines, tunnel, server):
    waiting = threading.Thread(target=lambda: pytest.raises(mpt.Closed, tunnel.recv, timeout=None))
    waiting.start()
    tunnel.add_path(f"to={address(server)} name=second")

    def told() -> bool:
        with pytest.raises(TimeoutError):
            server.recv_from(timeout=0.3)
        return any("path second" in record.getMessage() for record, _ in lines)

    until(told)
    tunnel.close()
    waiting.join(ENOUGH)


def test_what_nobody_wants_to_hear_is_not_even_made(lines, key):
    logging.getLogger("mptunnel").setLevel(logging.CRITICAL)
    lines.clear()
    with mpt.listen("127.0.0.1:0", key=key) as server:
        with mpt.open(address(server), key=key) as tunnel:
            tunnel.wait_ready(ENOUGH)
    assert mpt._mptunnel.take_log() == ([], 0)
    assert lines == []


def test_a_child_logger_has_a_level_of_its_own(lines, key):
    logging.getLogger("mptunnel").setLevel(logging.CRITICAL)
    child = logging.getLogger("mptunnel.handshake")
    child.setLevel(5)
    try:
        mpt._logging._follow_level()
        with mpt.listen("127.0.0.1:0", key=key) as server:
            with mpt.open(address(server), key=key) as tunnel:
                tunnel.wait_ready(ENOUGH)
        mpt._logging.flush()
        assert {record.name for record, _ in lines} <= {"mptunnel.handshake"}
    finally:
        child.setLevel(logging.NOTSET)


def test_a_handler_that_fails_does_not_end_the_bridge(lines, server, tunnel, monkeypatch):
    # As in a program that runs for real; otherwise each failure is printed.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    failures = []

    class Failing(logging.Handler):
        def emit(self, record):
            failures.append(record)
            raise RuntimeError("a fault of the handler")  # not caught by the handler itself

    logger = logging.getLogger("mptunnel")
    handler = Failing()
    logger.addHandler(handler)
    try:
        for name in ("one", "two", "three"):
            tunnel.add_path(f"to={address(server)} name={name}")
            words = f"path {name}"
            until(lambda words=words: any(words in record.getMessage() for record in failures))
    finally:
        logger.removeHandler(handler)


def test_lines_of_the_last_moment_are_not_lost_at_the_end_of_the_program():
    program = (
        "import logging, mptunnel as mpt\n"
        "logging.basicConfig(level=5)\n"
        "mpt._logging.start = lambda: mpt._mptunnel.log_fd()  # nobody fetches them before\n"
        "mpt._logging._follow_level()\n"
        "key = mpt.genkey()\n"
        "with mpt.listen('127.0.0.1:0', key=key) as s:\n"
        "    with mpt.open('%s:%d' % s.addresses[0], key=key) as t:\n"
        "        t.wait_ready(5)\n"
    )
    done = run("-c", program)
    assert done.returncode == 0, done.stderr
    assert "DEBUG:mptunnel.client:SessionUp" in done.stderr
