# SPDX-License-Identifier: BSD-2-Clause
"""Every method, used wrongly: closed, with wrong types, from two threads, copied, compared."""

import copy
import errno
import gc
import inspect
import pickle
import subprocess
import sys
import threading
import warnings
import weakref

import pytest

import mptunnel as mpt
from conftest import ENOUGH, address, threads_of_process, until

TUNNEL_CALLS = {
    "send": lambda t: t.send(b"x"),
    "send_many": lambda t: t.send_many([b"x"]),
    "recv": lambda t: t.recv(),
    "recv_into": lambda t: t.recv_into(bytearray(9)),
    "recv_many": lambda t: t.recv_many(),
    "recv_message": lambda t: t.recv_message(),
    "set_path": lambda t: t.set_path(1, "weight", "2"),
    "get": lambda t: t.get("window"),
    "set": lambda t: t.set("idle_interval", 3),
    "metrics": lambda t: t.metrics(),
    "wait_ready": lambda t: t.wait_ready(),
    "next_event": lambda t: t.next_event(),
    "interrupt": lambda t: t.interrupt(),
    "add_path": lambda t: t.add_path("if=lo"),
    "remove_path": lambda t: t.remove_path(1),
    "max_payload": lambda t: t.max_payload,
    "key_id": lambda t: t.key_id,
    "paths": lambda t: t.paths,
    "stats": lambda t: t.stats,
}
SERVER_CALLS = {
    "send_to": lambda s: s.send_to(b"x", 1),
    "send_many": lambda s: s.send_many([b"x"], 1),
    "recv_from": lambda s: s.recv_from(),
    "recv_from_into": lambda s: s.recv_from_into(bytearray(9)),
    "recv_many": lambda s: s.recv_many(),
    "recv_message": lambda s: s.recv_message(),
    "get": lambda s: s.get("window"),
    "set": lambda s: s.set("sessions", 3),
    "metrics": lambda s: s.metrics(),
    "wait_ready": lambda s: s.wait_ready(),
    "next_event": lambda s: s.next_event(),
    "interrupt": lambda s: s.interrupt(),
    "max_payload": lambda s: s.max_payload,
    "key_ids": lambda s: s.key_ids,
    "addresses": lambda s: s.addresses,
    "getsockname": lambda s: s.getsockname(),
    "peers": lambda s: s.peers,
    "stats": lambda s: s.stats,
}
# What works on a closed endpoint as well.
HARMLESS = {"close", "closed", "fileno", "settimeout", "gettimeout", "events"}


def names(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


def test_these_tables_have_every_method():
    assert set(TUNNEL_CALLS) | HARMLESS == names(mpt.Tunnel)
    assert set(SERVER_CALLS) | HARMLESS == names(mpt.Server)


@pytest.mark.parametrize("name", TUNNEL_CALLS)
def test_a_closed_tunnel_says_so(tunnel, name):
    tunnel.close()
    with pytest.raises(mpt.Closed) as caught:
        TUNNEL_CALLS[name](tunnel)
    assert isinstance(caught.value, ConnectionError)


@pytest.mark.parametrize("name", SERVER_CALLS)
def test_a_closed_server_says_so(server, name):
    server.close()
    with pytest.raises(mpt.Closed):
        SERVER_CALLS[name](server)


def test_what_a_closed_endpoint_still_answers(server, tunnel, peer):
    for endpoint in (tunnel, server):
        endpoint.close()
        endpoint.close()
        assert endpoint.closed
        assert endpoint.fileno() == -1
        assert list(endpoint.events()) == []
        endpoint.settimeout(1)
        assert endpoint.gettimeout() == 1
        assert "closed" in repr(endpoint)
        with endpoint:
            pass
    assert int(peer) == peer.id == 1
    for use in (lambda: peer.paths, lambda: peer.restarts, peer.dismiss):
        with pytest.raises(mpt.Closed):
            use()


@pytest.mark.parametrize("wrong", ["text", 7, None, [1, 2], object()])
def test_datagrams_are_bytes_like(server, tunnel, peer, wrong):
    for use in (
        lambda: tunnel.send(wrong),
        lambda: tunnel.send_many([b"fine", wrong]),
        lambda: server.send_to(wrong, peer),
        lambda: server.send_many([wrong], peer),
    ):
        with pytest.raises(TypeError, match="bytes-like"):
            use()
    # Nothing of a batch that is no batch was sent.
    with pytest.raises(BlockingIOError):
        server.recv_from(timeout=0)


def test_a_batch_is_iterable(server, tunnel, peer):
    for wrong in (7, None):
        with pytest.raises(TypeError, match="iterable"):
            tunnel.send_many(wrong)
        with pytest.raises(TypeError, match="iterable"):
            server.send_many(wrong, peer)


@pytest.mark.parametrize("wrong", [b"read only", memoryview(b"too"), "text", 7, None])
def test_a_buffer_is_writable(server, tunnel, wrong):
    with pytest.raises(TypeError, match="writable buffer|bytes-like"):
        tunnel.recv_into(wrong)
    with pytest.raises(TypeError, match="writable buffer|bytes-like"):
        server.recv_from_into(wrong)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [("1", TypeError), ([], TypeError), (-1, ValueError), (float("nan"), ValueError)],
)
def test_a_timeout_is_a_number_of_seconds(tunnel, server, key, wrong, kind):
    for use in (
        lambda: tunnel.recv(timeout=wrong),
        lambda: tunnel.send(b"x", timeout=wrong),
        lambda: tunnel.wait_ready(wrong),
        lambda: tunnel.next_event(timeout=wrong),
        lambda: tunnel.settimeout(wrong),
        lambda: server.recv_many(timeout=wrong),
        lambda: mpt.open("192.0.2.1:9", key=key, timeout=wrong),
        lambda: mpt.listen("127.0.0.1:0", key=key, timeout=wrong),
    ):
        with pytest.raises(kind, match="timeout"):
            use()


def test_a_timeout_beyond_all_bounds_is_for_ever(server, tunnel, peer):
    for timeout in (float("inf"), 1e300, 1e19, 10**400):
        tunnel.send(b"x", timeout=timeout, deadline=timeout)
        assert server.recv_from(timeout=timeout)[0] == b"x"
    tunnel.settimeout(10**400)
    assert tunnel.gettimeout() is None
    with pytest.raises(ValueError, match="timeout"):
        tunnel.recv(timeout=-(10**400))


def test_numbers_out_of_range_name_the_argument_and_the_range(tunnel, server, peer):
    for wrong in (-1, 1 << 63, 10**400):
        with pytest.raises(OverflowError, match="max_count must be a whole number from 0 to"):
            tunnel.recv_many(wrong)
        with pytest.raises(OverflowError, match="max_count must be a whole number from 0 to"):
            server.recv_many(wrong)
    # 65535 is all flows at once, in messages of the protocol.
    for wrong in (-1, 65_535, 65_536, 10**400):
        for send in (tunnel.send, lambda data, flow: tunnel.send_many([data], flow=flow)):
            with pytest.raises(OverflowError, match="flow must be a whole number from 0 to 65534"):
                send(b"x", flow=wrong)
    for wrong in (-1, 256, 10**400):
        with pytest.raises(OverflowError, match="copies must be a whole number from 0 to 255"):
            tunnel.send(b"x", copies=wrong)
        with pytest.raises(OverflowError, match="copies must be a whole number from 0 to 255"):
            server.send_to(b"x", peer, copies=wrong)
    for wrong in (1.5, "1", None):
        with pytest.raises(TypeError, match="max_count must be a whole number, not "):
            tunnel.recv_many(wrong)
        with pytest.raises(TypeError, match="flow must be a whole number, not "):
            tunnel.send(b"x", flow=wrong)
        with pytest.raises(TypeError, match="copies must be a whole number, not "):
            tunnel.send(b"x", copies=wrong)
    tunnel.send(b"x", flow=65_534, copies=255)


def test_a_peer_is_a_peer_of_this_server(server, tunnel, peer, key):
    for wrong in ("1", None, 1.5, -1, 1 << 64, ("127.0.0.1", 9)):
        with pytest.raises(TypeError, match="Peer or its id"):
            server.send_to(b"x", wrong)
    for unknown in (0, 4711):
        with pytest.raises(mpt.UnknownPeer) as caught:
            server.send_to(b"x", unknown)
        assert isinstance(caught.value, LookupError)
    with mpt.listen("127.0.0.1:0", key=key) as other, pytest.raises(mpt.UnknownPeer):
        other.send_to(b"x", peer)
    peer.dismiss()
    with pytest.raises(mpt.UnknownPeer):
        server.send_to(b"x", peer)
    with pytest.raises(mpt.UnknownPeer):
        peer.paths


def test_peers_compare_by_what_they_mean(server, tunnel, peer):
    tunnel.send(b"x")
    _, same = server.recv_from()
    assert same == peer and same is not peer and hash(same) == hash(peer)
    assert peer in {same: 1}
    assert peer != 1 and peer != "1" and peer is not None
    assert repr(peer) == "<mptunnel.Peer 1>"
    with pytest.raises(AttributeError):
        peer.id = 2
    with pytest.raises(TypeError):
        mpt.Peer()


def test_a_path_is_a_path_of_this_tunnel(tunnel):
    with pytest.raises(mpt.UnknownPath) as caught:
        tunnel.remove_path(4711)
    assert isinstance(caught.value, LookupError)
    for wrong in ("1", None, -1, 1.5):
        with pytest.raises(TypeError, match="Path or its id"):
            tunnel.remove_path(wrong)
    with pytest.raises(mpt.ConfigError, match="did you mean"):
        tunnel.add_path("wieght=1")
    with pytest.raises(TypeError):
        tunnel.add_path(7)


def test_paths_come_and_go_while_the_tunnel_runs(server, tunnel):
    (first,) = tunnel.paths
    second = tunnel.add_path(f"to={address(server)} name=second role=backup")
    assert (second.name, second.backup) == ("second", True)
    assert second.words == f"to={address(server)} role=backup name=second"
    until(lambda: all(path.up for path in tunnel.paths))
    assert [path.id for path in tunnel.paths] == [first.id, second.id]

    tunnel.remove_path(first)
    tunnel.send(b"over the second")
    assert server.recv_from()[0] == b"over the second"
    tunnel.remove_path(second.id)
    assert tunnel.paths == ()
    with pytest.raises(mpt.NoPath):
        tunnel.send(b"over none")


def test_results_are_frozen_typed_objects(tunnel, server, peer):
    events = list(tunnel.events(timeout=0))
    results = [tunnel.paths[0], tunnel.paths[0].stats, tunnel.stats, *events]
    results += [tunnel.stats.drops[0], mpt.OPTIONS[0], peer.paths[0], peer.traffic, peer.session]
    results += [tunnel.stats.traffic, tunnel.stats.session, tunnel.stats.reorder]
    measured = tunnel.paths[0].stats
    results += [measured.losses_out, measured.losses_in.total, measured.worth_in]
    results += [mpt.ErrorCount(errno=1, count=2)]
    for result in results:
        assert type(result).__module__ == "mptunnel"
        name = type(result).__dataclass_fields__.__iter__().__next__()
        with pytest.raises(AttributeError):
            setattr(result, name, 1)
        with pytest.raises(TypeError):
            result.other = 1
        assert copy.copy(result) == result == pickle.loads(pickle.dumps(result))
        assert hash(result) == hash(copy.copy(result))
    assert [event.kind for event in events[:2]] == ["connected", "path_up"]
    assert str(events[0]) == "connected"


def test_what_has_to_be_a_text_says_so(tunnel, key):
    for wrong in (4000, ("127.0.0.1", 4000), None, b"127.0.0.1:4000"):
        with pytest.raises(TypeError, match="uri must be a text such as 'mpt://HOST:PORT', not"):
            mpt.open(wrong, key=key)
        with pytest.raises(TypeError, match="option must be a text such as 'window', not"):
            tunnel.get(wrong)
        with pytest.raises(TypeError, match="option must be a text such as 'window', not"):
            tunnel.set(wrong, 1)


def test_endpoints_are_neither_copied_nor_pickled_nor_decorated(tunnel, server):
    for endpoint in (tunnel, server):
        for copied in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot be pickled"):
                copied(endpoint)
        with pytest.raises(AttributeError):
            endpoint.timout = 3
        assert weakref.ref(endpoint)() is endpoint


def test_every_error_is_an_os_error_with_a_code_of_its_own():
    errors = [
        kind for kind in vars(mpt).values() if inspect.isclass(kind) and issubclass(kind, mpt.Error)
    ]
    assert len(errors) > 15
    for kind in errors:
        error = kind(5, "words")
        assert isinstance(error, OSError)
        assert (error.errno, error.strerror, error.code) == (5, "words", kind.code)
        assert kind.code < 0
        same = pickle.loads(pickle.dumps(error))
        assert (type(same), same.args) == (kind, error.args)
    # A datagram that does not fit is one number in C, whichever way it goes; and what has no class
    # of its own here is the system's.
    shared = {mpt.BufferTooSmall, mpt.Error}
    assert len({kind.code for kind in errors}) == len(errors) - len(shared)


def test_what_the_system_refuses_has_its_error_number(server, key):
    with pytest.raises(mpt.SystemFailure) as caught:
        mpt.listen(address(server), key=key)
    assert caught.value.errno == errno.EADDRINUSE
    assert address(server) in str(caught.value)


def test_a_forgotten_endpoint_warns_and_is_closed(key):
    before = threads_of_process()
    server = mpt.listen("127.0.0.1:0", key=key)
    at = server.addresses[0]
    with pytest.warns(ResourceWarning, match="unclosed <mptunnel.Server fd=") as caught:
        del server
        gc.collect()
    assert caught[0].source is not None
    assert threads_of_process() <= before + 1  # the thread of the log stays
    with mpt.listen("%s:%d" % at, key=key), warnings.catch_warnings():
        warnings.simplefilter("error")


def test_an_endpoint_is_collected_by_another_thread(key):
    """The last reference goes in a thread that never saw the endpoint, in a cycle."""

    class Holder:
        pass

    holder = Holder()
    holder.self = holder
    holder.tunnel = mpt.open("192.0.2.1:9", key=key)
    seen = weakref.ref(holder.tunnel)
    gc.disable()
    try:
        del holder
        assert seen() is not None
        caught = []

        def collect():
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                gc.collect()
            caught.extend(found)

        thread = threading.Thread(target=collect)
        thread.start()
        thread.join(ENOUGH)
    finally:
        gc.enable()
    assert seen() is None
    assert [warning.category for warning in caught] == [ResourceWarning]


def test_a_peer_outlives_its_server(key):
    with mpt.listen("127.0.0.1:0", key=key) as server:
        with mpt.open(address(server), key=key) as tunnel:
            tunnel.wait_ready(ENOUGH)
            tunnel.send(b"x")
            _, peer = server.recv_from(timeout=ENOUGH)
    del server
    gc.collect()
    with pytest.raises(mpt.Closed):
        peer.paths


def test_closing_from_many_threads_at_once_is_closing_once(key):
    with mpt.listen("127.0.0.1:0", key=key) as server:
        threads = [threading.Thread(target=server.close) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(ENOUGH)
        assert server.closed


def test_using_and_closing_at_the_same_time_ends_in_closed(server, tunnel, peer):
    outcomes = []

    def use(call):
        try:
            while True:
                call()
        except Exception as error:
            outcomes.append(error)

    calls = [
        lambda: tunnel.send(b"x"),
        lambda: tunnel.send_many([b"y"] * 100),
        lambda: tunnel.paths,
        lambda: tunnel.stats,
        lambda: tunnel.recv(timeout=None),
        lambda: tunnel.recv_into(bytearray(70_000), timeout=None),
        lambda: tunnel.fileno() >= 0 or tunnel.recv(),
    ]
    threads = [threading.Thread(target=use, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for _ in range(200):
        server.send_to(b"z", peer)
    tunnel.close()
    for thread in threads:
        thread.join(ENOUGH)
    assert len(outcomes) == len(calls)
    assert all(isinstance(outcome, mpt.Closed) for outcome in outcomes), outcomes


def test_a_buffer_cannot_be_resized_while_a_call_fills_it(server, tunnel, peer):
    buffer = bytearray(10)
    thread = threading.Thread(target=tunnel.recv_into, args=(buffer,))
    thread.start()

    def resized():
        try:
            buffer.append(0)
        except BufferError:
            return True
        buffer.pop()
        return False

    until(resized)
    server.send_to(b"0123456789", peer)
    thread.join(ENOUGH)
    assert buffer == b"0123456789"


def test_an_open_endpoint_does_not_keep_the_program_from_ending():
    program = "import mptunnel as m; s = m.listen('127.0.0.1:0', key=m.genkey())"
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0
    assert "ResourceWarning: unclosed <mptunnel.Server" in done.stderr
