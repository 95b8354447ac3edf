# SPDX-License-Identifier: BSD-2-Clause
"""What can be seen of an endpoint: the typed objects say what the JSON says, in Python and in C.

The library takes each of its structs apart into JSON, and the compiler sees to it that no field is
forgotten there. Here everything in the JSON has to be a typed member as well.
"""

import dataclasses
import errno
import json
import math
import re
from types import SimpleNamespace

import pytest

import mptunnel as mpt
from conftest import ENOUGH, ROOT, address, until
from test_effects import Bridge
from test_programs import free_port

HEADER = (ROOT / "include" / "mptunnel.h").read_text()


@pytest.fixture(scope="module")
def world(key):
    """A tunnel whose paths fail each in its own way, until that has been seen for a second.

    The bridges of the first two lose the same datagrams, the port of the third refuses, and the
    fourth has no interface.
    """
    with mpt.listen("127.0.0.1:0", key=key, timeout=ENOUGH, probe_interval=0.05) as server:
        bridges = [Bridge(address(server)) for _ in range(2)]
        for bridge in bridges:
            bridge.hold = lambda packet: len(packet) == 36 + 333
        try:
            paths = [f"to={bridges[0].address} name=first"]
            paths += [f"to={bridges[1].address} name=second rate=1000"]
            paths += [f"to=127.0.0.1:{free_port()} name=refused", "if=nowhere0 name=nowhere"]
            with mpt.open(address(server), key=key, paths=paths, timeout=ENOUGH) as tunnel:
                tunnel.wait_ready(ENOUGH)
                seen = SimpleNamespace(server=server, tunnel=tunnel, bridges=bridges)

                def known() -> bool:
                    # One of three: the sample is every 64th or so.
                    tunnel.send_many([bytes(100), bytes(333), bytes(100)] * 4)
                    for _, seen.peer in server.recv_many(timeout=ENOUGH):
                        pass
                    pairs, peers = tunnel.stats.session.pairs, server.peers
                    ends = [tunnel.paths[0], *(path for peer in peers for path in peer.paths)]
                    return (
                        all(path.stats.last_1s for path in ends)
                        and len(pairs) == 1
                        and pairs[0].samples > 20
                        and (pairs[0].correlation or 0) > 0.9
                    )

                until(known)
                yield seen
        finally:
            for bridge in bridges:
                bridge.close()


def lately(world) -> None:
    """Until somebody has looked at the tunnel a second ago, and something was sent since."""

    def seen() -> bool:
        world.tunnel.send(b"x")
        return world.tunnel.paths[0].stats.last_1s is not None

    until(seen)


def test_paths_that_lose_together_are_told(world):
    first, second, *_ = world.tunnel.paths
    stats = world.tunnel.stats
    (pair,) = stats.session.pairs

    assert (pair.one, pair.other) == (first.id, second.id)
    assert 0.9 < pair.correlation <= 1
    assert 0.1 < pair.lost_both <= min(pair.lost_one, pair.lost_other) < 0.6
    assert 0.1 < stats.session.residual_loss_out < 0.6
    assert world.peer.session.pairs == () or world.peer.session.pairs[0].lost_both <= 1


def test_a_path_has_a_state_and_a_reason(world):
    first, second, refused, nowhere = world.tunnel.paths

    assert first.state is second.state is mpt.PathState.UP
    assert first.state == "up" and first.reason
    assert refused.state is mpt.PathState.STARTING
    assert "nothing listens there" in refused.reason
    assert nowhere.state is mpt.PathState.NO_SOCKET
    assert "nowhere0" in nowhere.reason
    assert first.remote == ("127.0.0.1", int(world.bridges[0].address.rpartition(":")[2]))
    assert first.local[0] == "127.0.0.1" and nowhere.local is nowhere.remote is None
    assert first.remote_before is first.local_before is None
    (theirs, *_) = world.peer.paths
    assert theirs.state == "up" and theirs.local is None and theirs.reason
    assert theirs.since > 0


def test_a_path_counts_its_errors_by_number(world):
    first, _, refused, _ = world.tunnel.paths
    (found,) = refused.stats.errors

    assert (found.errno, found.name) == (errno.ECONNREFUSED, "ECONNREFUSED")
    assert found.count > 0 and first.stats.errors == ()
    assert mpt.ErrorCount(errno=9999, count=1).name == "9999"
    stats = world.tunnel.stats
    counts = {error.errno: error.count for error in stats.errors}
    assert found.count <= counts[errno.ECONNREFUSED] <= stats.socket_errors == sum(counts.values())


def test_a_path_tells_what_changed_within_the_last_second(world):
    lately(world)
    first, second, _, nowhere = world.tunnel.paths
    last = first.stats.last_1s

    assert 0.9 <= last.length <= 2.5
    assert 0 < last.sent <= first.stats.sent and last.sent_bytes > 36 * last.sent
    assert 0 < last.received and last.received_bytes > 0
    assert first.stats.last_10s is first.stats.queue is None
    assert second.stats.queue.rate == 125_000_000
    assert nowhere.stats.last_1s.sent == 0


def test_both_ends_tell_mode_and_cipher(world):
    here, there = world.tunnel.stats, world.server.stats

    assert here.mode == world.peer.mode == "redundant"
    assert here.cipher == world.peer.cipher in ("chacha20-poly1305", "aes-256-gcm")
    assert there.mode is there.cipher is None
    assert world.peer.window >= 4096
    unknown = dataclasses.replace(world.tunnel.paths[0], state="sideways")
    assert unknown.state is mpt.PathState.OTHER


def plain(thing):
    """A typed object as the JSON would have it, but for times."""
    match thing:
        case tuple([str(host), int(port)]):
            return f"{host}:{port}"
        case tuple([mpt.Drop(), *_]):
            return {drop.reason: drop.count for drop in thing}
        case tuple([mpt.ErrorCount(), *_]):
            return {error.name: error.count for error in thing}
        case tuple():
            return [plain(one) for one in thing]
        case mpt.PathState():
            return str(thing)
        case _ if not dataclasses.is_dataclass(thing):
            return thing
    members = {f.name: plain(getattr(thing, f.name)) for f in dataclasses.fields(thing)}
    match thing:
        case mpt.Path():
            members |= members.pop("stats")
        case mpt.Stats():
            members["dropped"] = members.pop("drops")
        case mpt.Queue():
            members["rate_bytes_per_s"] = members.pop("rate")
        case mpt.Lost():
            members["fraction"] = thing.fraction
    return members


def differences(here, there, at=""):
    """Where a typed object (there) and its JSON (here) differ."""
    if isinstance(here, dict) and here and isinstance(there, dict):
        times = {key.removesuffix("_us"): key for key in here}
        for key in times.keys() ^ there.keys():
            yield f"{at}.{key} is in one of them only"
        for key in times.keys() & there.keys():
            name, value = times[key], there[key]
            if name != key and value is not None:
                value *= 1e6
            yield from differences(here[name], value, f"{at}.{name}")
    elif isinstance(here, list) and isinstance(there, list) and len(here) == len(there):
        for number, (one, other) in enumerate(zip(here, there, strict=True)):
            yield from differences(one, other, f"{at}[{number}]")
    elif at.endswith((".since_us", ".length_us", ".delay_us")):
        # These pass while one is asked after the other.
        if not math.isclose(here, there, abs_tol=1e6):
            yield f"{at}: {here} and {there}"
    elif isinstance(here, float | int) and isinstance(there, float | int):
        # Rounded down to a microsecond.
        if not math.isclose(here, there, rel_tol=1e-9, abs_tol=1 if at.endswith("_us") else 0):
            yield f"{at}: {here} and {there}"
    elif (here or None) != (there or None):
        yield f"{at}: {here!r} and {there!r}"


def same(look):
    """Both ways to look say the same, as soon as nothing happens in between."""
    found = []

    def compare() -> bool:
        found[:] = differences(*look())
        return not found

    try:
        until(compare)
    except AssertionError:
        raise AssertionError("\n".join(found)) from None


def test_the_typed_objects_of_a_tunnel_have_all_that_its_json_has(world):
    def look():
        text = json.loads(world.tunnel.metrics())
        typed = plain(world.tunnel.stats) | {
            "role": "client",
            "version": mpt.__version__,
            "key_ids": [world.tunnel.key_id],
            "paths": plain(world.tunnel.paths),
        }
        return text, typed

    same(look)


def test_the_typed_objects_of_a_server_have_all_that_its_json_has(world):
    def look():
        text = json.loads(world.server.metrics())
        names = ("id", "restarts", "mode", "cipher", "window", "traffic", "session", "paths")
        peers = [{n: plain(getattr(peer, n)) for n in names} for peer in world.server.peers]
        stats = plain(world.server.stats)
        # That of each peer.
        assert stats.pop("session") is None
        own = {"role": "server", "version": mpt.__version__, "peers": peers}
        return text, stats | own | {"key_ids": list(world.server.key_ids)}

    same(look)


def members_of(struct: str) -> set[str]:
    body = re.search(rf"typedef struct {struct} {{\n(.*?)\n}} {struct};", HEADER, re.S).group(1)
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
    return set(re.findall(r"(\w+)(?:\[\d+\])?;", body))


def leaves(thing, at=""):
    """The names of all values in a JSON object, those in nested objects with dots."""
    for key, value in thing.items():
        if isinstance(value, dict) and key not in ("dropped", "errors"):
            yield from leaves(value, f"{at}{key}.")
        else:
            yield at + key


# Where names in C are others than the last part of those in JSON. None: left out.
IN_C_OF_A_PATH = {
    "losses_{d}.last_1s.sent": "known_{d}_1s",
    "losses_{d}.last_1s.lost": None,  # loss_out_1s of known_out_1s
    "losses_{d}.last_1s.fraction": "loss_{d}_1s",
    "losses_{d}.last_10s.sent": "known_{d}_10s",
    "losses_{d}.last_10s.lost": None,
    "losses_{d}.last_10s.fraction": "loss_{d}_10s",
    "losses_{d}.total.sent": "known_{d}",
    "losses_{d}.total.lost": "lost_{d}",
    "losses_{d}.total.fraction": None,  # lost_out of known_out
    "worth_{d}.samples": "samples_{d}",
    "worth_{d}.arrived": "arrived_{d}",
    "worth_{d}.first": "first_{d}",
    "worth_{d}.only": "only_{d}",
    "worth_{d}.mean_lead_us": "lead_{d}_us",
}
IN_C_OF_A_PATH = {
    key.format(d=way): name and name.format(d=way)
    for way in ("out", "in")
    for key, name in IN_C_OF_A_PATH.items()
} | {
    "worth_in.arrived": None,  # samples_in
    "queue.packets": "queue_packets",
    "queue.bytes": "queue_bytes",
    "queue.delay_us": "queue_us",
    **{
        f"last_{span}.{key}": f"{key}_{span}" if key != "length_us" else f"last_{span}_us"
        for span in ("1s", "10s")
        for key in ("length_us", "sent", "sent_bytes", "received", "received_bytes")
    },
}
IN_C_OF_AN_ENDPOINT = {
    "role": None,  # that of the URI
    "version": "mpt_version",
    "key_ids": "mpt_key_ids",
    "backend": "mpt_build_info",
    "dropped": "mpt_drop_list",
    "errors": "mpt_error_list",
    "paths": "mpt_path_list",
    "peers": "mpt_peer_list",
    "id": "mpt_peer_list",
    "reorder.held": "reorder_held",
    "reorder.given_up": "reorder_given_up",
    "reorder.late": "reorder_late",
    "session.peer_restarts": "restarts",
    "session.copies": "duplicates",
    "session.pairs": "mpt_pair_list",
}


def in_c(thing, names):
    found = {key: names.get(key, key.rpartition(".")[2]) for key in leaves(thing)}
    return {name for name in found.values() if name is not None}


def test_the_structs_of_c_have_all_that_the_json_has(world):
    lately(world)
    client = json.loads(world.tunnel.metrics())
    server = json.loads(world.server.metrics())
    path, pair = client["paths"][1], client["session"]["pairs"][0]
    assert path["queue"] and path["last_1s"] and path["last_10s"] is None
    path["last_10s"] = path["last_1s"]

    own = {"struct_size", "reserved"}
    assert in_c(path, IN_C_OF_A_PATH) == members_of("mpt_path_info") - own - {"peer", "reserved2"}
    assert in_c(pair, {}) == members_of("mpt_pair_info") - own
    found = set().union(*(in_c(x, IN_C_OF_AN_ENDPOINT) for x in (client, server, *server["peers"])))
    functions = {name for name in found if name.startswith("mpt_")}
    assert found - functions == members_of("mpt_stats_t") - own - {"peers"} - {"dropped"}
    assert functions <= set(re.findall(r"\b(mpt_\w+)\(", HEADER))


def test_a_path_that_is_cut_is_down_and_says_for_how_long(world):
    # The last one: what it does to the world is not undone.
    world.bridges[1].cut = True
    until(lambda: world.tunnel.paths[1].state == mpt.PathState.DOWN)
    second = world.tunnel.paths[1]

    assert second.reason.startswith("no probe was answered")
    assert not second.up and second.since < ENOUGH
    # And one that moves says where it was.
    world.tunnel.set_path(second, "to", address(world.server))
    until(lambda: world.tunnel.paths[1].remote == world.server.addresses[0])
    moved = world.tunnel.paths[1]
    assert "%s:%d" % moved.remote_before == world.bridges[1].address
    until(lambda: any(path.remote_before for path in world.peer.paths))


def test_events_have_the_words_of_every_language_and_the_ids_of_their_paths(server, tunnel, peer):
    words = {name.lower() for name in re.findall(r"\bMPT_EVENT_([A-Z_]+) = \d+", HEADER)}
    assert {kind.value for kind in mpt.EventKind} == words

    def first(end: mpt.Server | mpt.Tunnel, kind: str) -> mpt.Event:
        while (event := end.next_event(timeout=ENOUGH)).kind != kind:
            pass
        return event

    there, here = first(server, "peer_path_up"), first(tunnel, "path_up")
    assert (there.peer, there.path) == (peer.id, peer.paths[0].id)
    assert (here.peer, here.path) == (None, tunnel.paths[0].id)
