# SPDX-License-Identifier: BSD-2-Clause
"""After fork: the child's handles say so, the parent's go on, and new ones work in the child."""

import gc
import logging
import multiprocessing
import os
import signal
import threading
import warnings

import pytest

import mptunnel as mpt
from conftest import ENOUGH, address, run
from test_misuse import SERVER_CALLS, TUNNEL_CALLS

# Python warns of forking a process with threads, which is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_child(body):
    """Runs `body` in a forked child; what it returned, or how it failed, as text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        # Whatever it waits for, the parent does not wait for ever.
        signal.alarm(20)
        try:
            os.close(reader)
            try:
                text = str(body())
                status = 0
            except BaseException as error:
                text = f"{type(error).__name__}: {error}"
            os.write(writer, text.encode())
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, text
    return text


def outcome(call, endpoint):
    try:
        return call(endpoint)
    except mpt.Error as error:
        return type(error).__name__


def test_every_call_in_the_child_says_forked(server, tunnel, peer):
    def child():
        wrong = []
        for endpoint, calls in ((tunnel, TUNNEL_CALLS), (server, SERVER_CALLS)):
            for name, call in calls.items():
                found = outcome(call, endpoint)
                if found != "Forked":
                    wrong.append((name, found))
        for use in (lambda p: p.paths, lambda p: p.restarts, lambda p: p.dismiss()):
            if outcome(use, peer) != "Forked":
                wrong.append(use)
        return wrong

    assert in_child(child) == "[]"

    tunnel.send(b"the parent goes on")
    assert server.recv_from()[0] == b"the parent goes on"
    server.send_to(b"both ways", peer)
    assert tunnel.recv() == b"both ways"


def test_closing_or_forgetting_in_the_child_leaves_the_parent_alone(server, tunnel, peer):
    endpoints = [mpt.open(address(server), key=mpt.genkey())]

    def child():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tunnel.close()
            server.close()
            endpoints.clear()
            gc.collect()
        return outcome(lambda t: t.recv(), tunnel)

    assert in_child(child) == "Closed"
    for number in range(20):
        tunnel.send(b"%d" % number)
        data, client = server.recv_from()
        server.send_to(data, client)
        assert tunnel.recv() == b"%d" % number
    endpoints[0].close()


def test_a_new_endpoint_works_in_the_child(server, tunnel, peer, key):
    at = address(server)

    def child():
        with mpt.open(at, key=key) as own:
            own.wait_ready(ENOUGH)
            own.send(b"from the child")
            return own.recv(timeout=ENOUGH).decode()

    pid_of_child = []

    def answer():
        data, client = server.recv_from()
        pid_of_child.append(data)
        server.send_to(b"hello child", client)

    thread = threading.Thread(target=answer)
    thread.start()
    assert in_child(child) == "hello child"
    thread.join(ENOUGH)
    assert pid_of_child == [b"from the child"]


def test_forking_while_the_library_logs_never_leaves_the_child_locked(key):
    """The queue of lines is locked for a moment, in threads that the child does not have."""
    logger = logging.getLogger("mptunnel")
    before = logger.level
    logger.setLevel(5)
    try:
        with mpt.listen("127.0.0.1:0", key=key) as server:
            tunnels = [mpt.open(address(server), key=key) for _ in range(5)]

            def child():
                with mpt.open("192.0.2.1:9", key=key) as own:
                    mpt._logging.flush()
                    return own.closed

            for _ in range(10):
                assert in_child(child) == "False"
            for tunnel in tunnels:
                tunnel.close()
    finally:
        logger.setLevel(before)


FORK_BETWEEN_HOOKS = """
import os, threading

def let_others_run():
    if mptunnel_is_there:
        thread = threading.Thread(target=mptunnel._logging.flush)
        thread.start()
        thread.join()

mptunnel_is_there = False
# What was registered first runs last, right before the fork.
os.register_at_fork(before=let_others_run)
import mptunnel
mptunnel_is_there = True
pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
"""


def test_other_threads_may_log_between_the_hooks_of_a_fork():
    """Hooks of others are Python code, in which other threads take their turn."""
    done = run("-W", "ignore::DeprecationWarning", "-c", FORK_BETWEEN_HOOKS)
    assert (done.returncode, done.stderr) == (0, "")


def work(at, key, number):
    """In a process of multiprocessing."""
    with mpt.open(at, key=key) as tunnel:
        tunnel.wait_ready(ENOUGH)
        tunnel.send(b"%d" % number)
        return int(tunnel.recv(timeout=ENOUGH))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_with_an_endpoint_in_each_process(server, tunnel, peer, key, method):
    def echo():
        for _ in range(4):
            server.send_to(*server.recv_from())

    thread = threading.Thread(target=echo)
    thread.start()
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        jobs = [pool.apply_async(work, (address(server), key, number)) for number in range(4)]
        assert sorted(job.get(30) for job in jobs) == [0, 1, 2, 3]
    thread.join(ENOUGH)
    assert not thread.is_alive()


def test_an_endpoint_is_not_passed_to_another_process(tunnel):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with pytest.raises(TypeError, match="cannot be pickled"):
            pool.apply(repr, (tunnel,))
