# SPDX-License-Identifier: BSD-2-Clause
"""What a sender may wish, what may change while an endpoint runs, and what can be seen of it."""

import json
import threading

import pytest

import mptunnel as mpt
from conftest import ENOUGH, address, until


@pytest.fixture
def three(server, key):
    """A tunnel with three paths that are up."""
    paths = [f"to={address(server)} name=p{i}" for i in range(3)]
    with mpt.open(address(server), key=key, paths=paths, timeout=ENOUGH) as tunnel:
        tunnel.wait_ready()
        until(lambda: all(path.up for path in tunnel.paths))
        yield tunnel


def packets(tunnel):
    return {path.name: path.stats.sent for path in tunnel.paths}


def carried(tunnel, server, **wishes):
    """How many of 50 datagrams each path carried; its few probes make the rest."""
    before = packets(tunnel)
    for number in range(50):
        tunnel.send(b"%d" % number, **wishes)
    for _ in range(50):
        server.recv_from()
    return {name: (sent - before[name]) // 50 for name, sent in packets(tunnel).items()}


def test_without_wishes_all_paths_carry_a_datagram(server, three):
    assert carried(three, server) == {"p0": 1, "p1": 1, "p2": 1}


def test_copies_are_as_many_as_asked_for(server, three):
    # Which paths are the best may change between two datagrams; how many there are may not.
    before = sum(packets(three).values())
    for number in range(300):
        three.send(b"%d" % number, copies=2)
    assert 600 <= sum(packets(three).values()) - before < 700
    assert sorted(int(server.recv_from()[0]) for _ in range(300)) == list(range(300))
    assert carried(three, server, copies=9) == {"p0": 1, "p1": 1, "p2": 1}


def test_a_path_that_is_asked_for_carries_alone(server, three):
    second = three.paths[1]
    assert carried(three, server, path=second) == {"p0": 0, "p1": 1, "p2": 0}
    assert carried(three, server, path=three.paths[2].id) == {"p0": 0, "p1": 0, "p2": 1}
    three.send(b"by which", path=second)
    assert server.recv_message().path == second.slot + 1
    with pytest.raises(mpt.UnknownPath):
        three.send(b"x", path=4711)
    down = three.add_path("to=127.0.0.1:9 name=down")
    with pytest.raises(mpt.NoPath):
        three.send(b"x", path=down)


def test_a_flow_is_an_application_of_its_own(server, tunnel):
    assert tunnel.send(b"one", flow=1) == 3
    data, one = server.recv_from()
    assert (data, one.flow) == (b"one", 1)
    assert tunnel.send_many([b"two"], flow=65_534) == 1
    message = server.recv_message()
    assert (message.data, message.flow, message.peer.flow) == (b"two", 65_534, 65_534)
    assert one != message.peer and {one.id % (1 << 48)} == {peer.id for peer in server.peers}
    until(lambda: any(path.up for path in one.paths))

    server.send_to(b"to one", one)
    answer = tunnel.recv_message()
    assert (answer.data, answer.flow, answer.peer) == (b"to one", 1, None)
    for wrong, error in ((-1, OverflowError), (65_536, OverflowError), ("1", TypeError)):
        with pytest.raises(error):
            tunnel.send(b"x", flow=wrong)


def test_a_batch_has_wishes_as_well(server, three):
    before = packets(three)
    assert three.send_many([b"x"] * 200, path=three.paths[0]) == 200
    after = packets(three)
    assert after["p0"] - before["p0"] >= 200 > after["p1"] - before["p1"]
    assert three.send_many([b"y"] * 5, copies=1, deadline=0.5, timeout=0) == 5


def test_a_server_chooses_among_the_paths_of_its_client(server, three):
    three.send(b"who")
    _, peer = server.recv_from()
    until(lambda: sum(path.up for path in peer.paths) == 3)
    chosen = peer.paths[2]
    for number in range(20):
        server.send_to(b"%d" % number, peer, path=chosen, copies=1, deadline=1)
    slots = {path.id: path.slot for path in three.paths}
    assert {slots[three.recv_message().path] for _ in range(20)} == {chosen.slot}
    assert server.send_many([b"x"] * 3, peer, path=chosen.id) == 3


@pytest.mark.parametrize(
    ("wishes", "error"),
    [
        ({"copies": -1}, OverflowError),
        ({"copies": 256}, OverflowError),
        ({"copies": "2"}, TypeError),
        ({"path": "p0"}, TypeError),
        ({"deadline": 0}, ValueError),
        ({"deadline": -1}, ValueError),
        ({"deadline": float("nan")}, ValueError),
        ({"deadline": "soon"}, TypeError),
        ({"urgent": True}, TypeError),
    ],
)
def test_a_wish_that_makes_no_sense_is_an_error(tunnel, server, peer, wishes, error):
    for use in (
        lambda: tunnel.send(b"x", **wishes),
        lambda: tunnel.send_many([b"x"], **wishes),
        lambda: server.send_to(b"x", peer, **wishes),
        lambda: server.send_many([b"x"], peer, **wishes),
    ):
        with pytest.raises(error):
            use()


def test_a_live_option_changes_and_another_one_says_that_it_does_not(server, tunnel, key):
    assert tunnel.get("idle_interval") == "5s"
    tunnel.set("idle_interval", 0.2)
    assert tunnel.get("idle-interval") == "200ms"

    server.set("sessions", 1)
    assert server.get("sessions") == "1"
    with mpt.open(address(server), key=key) as second, pytest.raises(mpt.Refused) as caught:
        second.wait_ready(ENOUGH)
    assert isinstance(caught.value, ConnectionRefusedError)

    with pytest.raises(mpt.ConfigError, match="window"):
        tunnel.set("window", 8192)
    with pytest.raises(mpt.ConfigError, match="from 100ms to 20s"):
        tunnel.set("idle_interval", 0)
    with pytest.raises(mpt.ConfigError, match="not an option of a client"):
        tunnel.set("sessions", 3)
    with pytest.raises(LookupError, match="did you mean 'sessions'"):
        server.set("session", 3)
    with pytest.raises(TypeError, match="idle_interval"):
        tunnel.set("idle_interval", None)


def test_every_live_option_can_be_set_live_and_no_other(server, tunnel):
    for option in mpt.OPTIONS:
        for endpoint, mine in ((tunnel, option.client), (server, option.server)):
            if not mine:
                continue
            value = endpoint.get(option.keyword) or "1"
            if option.live:
                endpoint.set(option.keyword, value)
            else:
                with pytest.raises(mpt.ConfigError):
                    endpoint.set(option.keyword, value)


def test_a_path_changes_while_it_runs(three):
    first = three.paths[0]
    three.set_path(first, "role", "backup")
    three.set_path(first.id, "name", "spare")
    assert (three.paths[0].name, three.paths[0].backup) == ("spare", True)
    with pytest.raises(mpt.ConfigError, match="did you mean"):
        three.set_path(first, "rol", "backup")
    with pytest.raises(mpt.UnknownPath):
        three.set_path(4711, "role", "backup")


def test_metrics_are_json_or_prometheus(server, tunnel, peer):
    for endpoint, role in ((tunnel, "client"), (server, "server")):
        found = json.loads(endpoint.metrics())
        assert (found["role"], found["version"]) == (role, mpt.__version__)
        assert json.loads(endpoint.metrics("json")).keys() == found.keys()
        text = endpoint.metrics("prometheus")
        assert f'mptunnel_info{{role="{role}"' in text
        assert "# TYPE mptunnel_path_" in text
        with pytest.raises(ValueError, match="prometheus"):
            endpoint.metrics("xml")
        with pytest.raises(TypeError):
            endpoint.metrics(7)


def test_counters_say_what_became_of_packets(server, three):
    for _ in range(100):
        three.send(b"x")
        server.recv_from()
    # Two of three copies of each: the last ones may be on their way.
    until(lambda: server.stats.dropped("duplicate") >= 200)
    assert server.stats.connected and server.stats.dropped("no such reason") == 0


def test_what_is_measured_is_that_of_what_was_sent(server, three):
    three.send(b"x")
    _, peer = server.recv_from()
    before, sent = (peer.traffic, peer.session), 0

    def told() -> bool:
        nonlocal sent
        for _ in range(20):
            three.send(b"data")
            server.recv_from()
        sent += 20
        session = three.stats.session
        stats = [path.stats for path in three.paths]
        return session.residual_loss_out is not None and all(
            path.losses_out.last_1s.sent and path.worth_out.samples for path in stats
        )

    until(told)
    paths = [path.stats for path in three.paths]
    session = three.stats.session
    assert session.residual_loss_out == 0 and session.samples_out <= sent
    assert sum(path.worth_out.first for path in paths) <= session.samples_out
    for path in paths:
        assert path.worth_out.only <= path.worth_out.first <= path.worth_out.arrived
        assert path.worth_out.samples <= session.samples_out
        assert path.worth_out.mean_lead is None or path.worth_out.mean_lead >= 0
        assert path.queue is None
        for losses in (path.losses_out, path.losses_in):
            assert losses.last_1s.sent <= losses.last_10s.sent <= losses.total.sent
            assert losses.total.lost <= losses.total.sent
        assert 0 < path.losses_out.total.sent <= path.sent
        assert 0 <= path.losses_out.last_1s.fraction <= 1
    idle = mpt.Lost(sent=0, lost=0)
    assert idle.fraction is None and mpt.Lost(sent=8, lost=2).fraction == 0.25

    # Copies on the way come in the end.
    until(lambda: peer.traffic.received - before[0].received >= 3 * sent)
    until(lambda: peer.session.copies - before[1].copies >= 2 * sent)
    assert peer.session.first_packets - before[1].first_packets >= sent
    assert peer.session.first_bytes - before[1].first_bytes > sent * len(b"data")
    assert server.stats.session is None and server.stats.reorder == mpt.Reorder(
        held=0, given_up=0, late=0
    )
    first = peer.traffic
    whole = server.stats.traffic
    assert whole.received >= first.received and whole.sent >= first.sent > 0
    assert first.wins + first.duplicates == first.received
    assert three.stats.traffic.sent >= 3 * sent


def test_traffic_of_a_removed_path_still_counts(server, three):
    three.send(b"x")
    server.recv_from()
    before, removed = three.stats.traffic, three.paths[0]
    three.remove_path(removed)
    assert three.stats.traffic.sent >= before.sent
    assert removed.stats.sent > 0 and len(three.paths) == 2


def test_a_path_with_a_rate_has_a_queue(server, key):
    paths = [f"to={address(server)} rate=8 mtu=1500", f"to={address(server)}"]
    with mpt.open(address(server), key=key, paths=paths, timeout=ENOUGH) as tunnel:
        tunnel.wait_ready()
        until(lambda: all(path.up for path in tunnel.paths))

        def waits() -> bool:
            # It takes 15 ms to leave, in which this thread may be asleep: then another one.
            for _ in range(20):
                tunnel.send(bytes(1000))
            slow, fast = (path.stats for path in tunnel.paths)
            assert fast.queue is None
            return slow.queue.packets > 0 and slow.queue.bytes > 1000 and slow.queue.delay > 0

        until(waits)
        until(lambda: tunnel.paths[0].stats.queue.packets == 0)


def test_a_server_waits_for_its_first_client(key):
    with mpt.listen("127.0.0.1:0", key=key) as server:
        with pytest.raises(mpt.WouldBlock):
            server.wait_ready(0)
        with pytest.raises(mpt.TimedOut):
            server.wait_ready(0.05)
        ready = threading.Thread(target=server.wait_ready, args=(ENOUGH,))
        ready.start()
        with mpt.open(address(server), key=key):
            ready.join(ENOUGH)
            assert not ready.is_alive()
            assert len(server.peers) == 1
