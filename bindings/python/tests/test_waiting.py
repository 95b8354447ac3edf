# SPDX-License-Identifier: BSD-2-Clause
"""Timeouts, Ctrl-C, other threads, interrupting and closing, the descriptor."""

import re
import select
import selectors
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import mptunnel as mpt
from conftest import ENOUGH, run, until


def test_a_timeout_is_a_timeout_error_and_zero_a_blocking_io_error(server, tunnel):
    for call in (tunnel.recv, server.recv_from, lambda **k: tunnel.recv_into(bytearray(9), **k)):
        with pytest.raises(mpt.WouldBlock) as caught:
            call(timeout=0)
        assert isinstance(caught.value, BlockingIOError)

        begin = time.monotonic()
        with pytest.raises(mpt.TimedOut, match="timed out after 120ms") as caught:
            call(timeout=0.12)
        assert isinstance(caught.value, TimeoutError)
        assert 0.12 <= time.monotonic() - begin < ENOUGH


def test_the_endpoint_has_a_timeout_for_calls_that_give_none(tunnel):
    tunnel.settimeout(0)
    assert tunnel.gettimeout() == 0
    with pytest.raises(BlockingIOError):
        tunnel.recv()

    tunnel.settimeout(0.05)
    assert tunnel.gettimeout() == 0.05
    with pytest.raises(TimeoutError):
        tunnel.recv()
    with pytest.raises(BlockingIOError):
        tunnel.recv(timeout=0)

    tunnel.settimeout(None)
    assert tunnel.gettimeout() is None


def test_what_is_not_connected_says_why(key):
    with mpt.open("127.0.0.1:9", key=key) as tunnel:
        with pytest.raises(mpt.NotConnected, match="not connected: .+") as caught:
            tunnel.wait_ready(0.3)
        assert isinstance(caught.value, ConnectionError)
        with pytest.raises(mpt.NotConnected):
            tunnel.wait_ready(0)
        with pytest.raises(ConnectionError):
            tunnel.send(b"x")


CTRL_C = """
import os, random, signal, sys, threading, time
import mptunnel as mpt

key = mpt.genkey()
with mpt.listen("127.0.0.1:0", key=key) as server:
    host, port = server.addresses[0]
    with mpt.open(f"{host}:{port}", key=key) as tunnel:
        idle = mpt.open("127.0.0.1:9", key=key)
        buffer = bytearray(10)
        calls = {
            "recv": tunnel.recv,
            "recv_into": lambda: tunnel.recv_into(buffer),
            "recv_many": tunnel.recv_many,
            "recv_from": server.recv_from,
            "next_event": lambda: list(server.events()),
            "wait_ready": idle.wait_ready,
        }
        tunnel.wait_ready(10)
        for name, call in calls.items():
            for _ in range(int(sys.argv[1])):
                sent = []

                def press():
                    # In the kernel, or just about to be: both have to work.
                    time.sleep(random.uniform(0.005, 0.15))
                    sent.append(time.monotonic())
                    os.kill(os.getpid(), signal.SIGINT)

                thread = threading.Thread(target=press)
                try:
                    thread.start()  # on a busy machine the signal may come while this waits
                    call()
                except KeyboardInterrupt:
                    print(name, 1000 * (time.monotonic() - sent[0]))
                thread.join()
        idle.close()
"""


def test_ctrl_c_ends_every_blocking_call_within_100_ms(figure):
    done = run("-c", CTRL_C, 8)

    assert done.returncode == 0, done.stderr
    times: dict[str, list[float]] = {}
    for line in done.stdout.splitlines():
        name, milliseconds = line.split()
        times.setdefault(name, []).append(float(milliseconds))
    assert len(times) == 6 and all(len(found) == 8 for found in times.values()), done.stdout
    everything = [found for some in times.values() for found in some]
    median, worst = statistics.median(everything), max(everything)
    figure(f"Ctrl-C: median {median:.0f} ms, worst {worst:.0f} ms of {len(everything)}")
    # The promise is 100 ms. On a machine that is busy with something else single calls may not get
    # the processor for long.
    assert median < 100
    assert worst < 1000 * ENOUGH


def test_ctrl_c_ends_a_program_that_waits_and_closes_its_endpoints():
    program = (
        "import mptunnel as mpt\n"
        "with mpt.listen('127.0.0.1:0', key=mpt.genkey()) as server:\n"
        "    print('ready', flush=True)\n"
        "    server.recv_from()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=ENOUGH)
    assert child.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "ResourceWarning" not in errors


def test_a_signal_handler_that_returns_does_not_end_the_wait(server, tunnel, peer):
    seen = []

    def on_alarm(number, frame):
        # The handler may use the endpoint that the interrupted call waits for.
        seen.append(number)
        server.send_to(b"after the alarm", peer)

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert tunnel.recv() == b"after the alarm"
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen == [signal.SIGALRM]


def test_other_threads_run_while_one_waits(tunnel):
    waiting = threading.Thread(target=lambda: pytest.raises(mpt.Closed, tunnel.recv, timeout=None))
    waiting.start()
    count, end = 0, time.monotonic() + 0.2
    while time.monotonic() < end:
        count += 1
    assert waiting.is_alive()
    assert count > 10_000
    tunnel.close()
    waiting.join(ENOUGH)
    assert not waiting.is_alive()


def test_other_threads_run_while_the_main_thread_waits(tunnel):
    count = 0

    def work():
        nonlocal count
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            count += 1

    thread = threading.Thread(target=work)
    thread.start()
    with pytest.raises(TimeoutError):
        tunnel.recv(timeout=0.3)
    thread.join()
    assert count > 10_000


def blocked(*calls):
    """Threads that each wait in one of the calls; what came of them, and when."""
    outcomes = []

    def wait(call):
        try:
            outcome = call()
        except Exception as error:
            outcome = error
        outcomes.append((outcome, time.monotonic()))

    threads = [threading.Thread(target=wait, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    until(lambda: all(map(is_asleep, threads)))
    return threads, outcomes


def is_asleep(thread):
    """Whether a thread slept all through 10 ms in which nobody kept it from running."""

    def status():
        text = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
        return re.findall(r"^State:\s+(\w)|_switches:\s+(\d+)", text, re.MULTILINE)

    before = status()
    time.sleep(0.01)
    return before[0][0] == "S" and status() == before


@pytest.mark.parametrize("how", ["interrupt", "close"])
def test_interrupt_and_close_end_what_waits_in_other_threads(key, server, tunnel, how, figure):
    silent = mpt.open("127.0.0.1:9", key=key)
    calls = {
        tunnel: [
            tunnel.recv,
            tunnel.recv,
            lambda: tunnel.recv_into(bytearray(9)),
            tunnel.recv_many,
            lambda: next(tunnel.events()),
        ],
        server: [server.recv_from, server.recv_many],
        silent: [lambda: silent.wait_ready(None)],
    }
    worst = 0.0
    for endpoint, waiting in calls.items():
        endpoint.settimeout(None)
        list(endpoint.events(timeout=0))
        threads, outcomes = blocked(*waiting)
        assert not outcomes

        begin = time.monotonic()
        getattr(endpoint, how)()
        for thread in threads:
            thread.join(ENOUGH)
        assert len(outcomes) == len(waiting)
        worst = max(worst, *(when - begin for _, when in outcomes))
        for outcome, _ in outcomes:
            # The iterator over events ends when the endpoint is closed.
            expected = mpt.Interrupted if how == "interrupt" else (mpt.Closed, StopIteration)
            assert isinstance(outcome, expected), outcome
    figure(f"{how}: the slowest of 8 waiting calls returned after {1000 * worst:.1f} ms")
    # The promise is 50 ms; a machine that is busy with something else gets some more.
    assert worst < 0.5

    if how == "interrupt":
        with pytest.raises(mpt.WouldBlock):
            tunnel.recv(timeout=0)
    silent.close()


def test_an_interrupt_reaches_the_main_thread(tunnel):
    over = threading.Event()

    def interrupt():
        # Until it is noticed: the first one may come before the call has begun.
        while not over.wait(0.02):
            tunnel.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(InterruptedError):
        tunnel.recv()
    over.set()
    thread.join()


def test_the_descriptor_is_readable_exactly_while_there_is_something(server, tunnel, peer):
    poll = select.poll()
    poll.register(tunnel, select.POLLIN)
    assert poll.poll(50) == []

    server.send_to(b"1", peer)
    assert poll.poll(1000 * ENOUGH) == [(tunnel.fileno(), select.POLLIN)]
    assert poll.poll(0) == [(tunnel.fileno(), select.POLLIN)]
    tunnel.recv(timeout=0)
    assert poll.poll(0) == []


@pytest.mark.parametrize("kind", [selectors.EpollSelector, selectors.PollSelector])
def test_ten_thousand_wake_ups_lose_none(server, tunnel, peer, kind):
    with kind() as selector:
        selector.register(server, selectors.EVENT_READ, server)
        selector.register(tunnel, selectors.EVENT_READ, tunnel)
        for number in range(5_000):
            # One datagram there and one back: each makes an empty queue readable.
            tunnel.send(b"%d" % number)
            assert [key.data for key, _ in selector.select(ENOUGH)] == [server]
            data, client = server.recv_from(timeout=0)
            server.send_to(data, client)
            assert [key.data for key, _ in selector.select(ENOUGH)] == [tunnel]
            assert tunnel.recv(timeout=0) == b"%d" % number


def test_many_threads_share_a_tunnel_and_lose_nothing(server, tunnel):
    each, senders = 500, 4
    received = []

    def send(sender):
        for number in range(each):
            tunnel.send(b"%d %d" % (sender, number))

    def receive():
        while True:
            data, _ = server.recv_from()
            if data == b"end":
                return
            received.append(data)

    receivers = [threading.Thread(target=receive) for _ in range(3)]
    threads = [threading.Thread(target=send, args=(i,)) for i in range(senders)]
    for thread in receivers + threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(received) == each * senders)
    for _ in receivers:
        tunnel.send(b"end")
    for thread in receivers:
        thread.join(ENOUGH)
    everything = (b"%d %d" % (s, n) for s in range(senders) for n in range(each))
    assert sorted(received) == sorted(everything)


def test_a_daemon_thread_that_waits_does_not_disturb_the_end_of_the_program():
    program = (
        "import threading, time, mptunnel as mpt\n"
        "server = mpt.listen('127.0.0.1:0', key=mpt.genkey())\n"
        "thread = threading.Thread(target=server.recv_from, daemon=True)\n"
        "thread.start()\n"
        "thread.join(0.1)\n"
        "print('over')\n"
    )
    # Whoever leaves a thread in a call leaves the endpoint open as well.
    done = run("-W", "ignore", "-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")
