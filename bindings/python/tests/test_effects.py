# SPDX-License-Identifier: BSD-2-Clause
"""Every option seen by its effect, set from Python and from C.

An option without a function here, and without a name in `ELSEWHERE`, fails the suite. From Rust they
are what C sets: `mpt_config_set` is `Config::set`, and `mpt_open` is `Endpoint::open`.
"""

import contextlib
import ctypes
import json
import os
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mptunnel as mpt
from conftest import ENOUGH, ROOT, until
from test_options import BOB
from test_programs import built

PATHS = ("name=a", "name=b")


class Refusal(Exception):
    """A call answered with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Python:
    """An endpoint of the package."""

    def __init__(self, role: str, at: str, paths: tuple[str, ...], options: dict[str, str]) -> None:
        keywords = {key.replace("-", "_"): value for key, value in options.items()}
        if role == "client":
            self.endpoint = self._call(lambda: mpt.open(at, paths=paths, **keywords))
        else:
            self.endpoint = self._call(lambda: mpt.listen(at, **keywords))

    @staticmethod
    def _call(call):
        try:
            return call()
        except mpt.Error as error:
            raise Refusal(error.code) from error

    def address(self) -> str:
        return "%s:%d" % self.endpoint.addresses[0]

    def ready(self, seconds: float) -> None:
        self._call(lambda: self.endpoint.wait_ready(seconds))

    def send(self, data: bytes) -> None:
        self._call(lambda: self.endpoint.send(data, timeout=1))

    def recv(self, seconds: float) -> bytes:
        if isinstance(self.endpoint, mpt.Server):
            return self._call(lambda: self.endpoint.recv_from(timeout=seconds))[0]
        return self._call(lambda: self.endpoint.recv(timeout=seconds))

    def state(self) -> dict:
        return json.loads(self.endpoint.metrics())

    def event(self) -> str:
        return str(self._call(lambda: self.endpoint.next_event(timeout=ENOUGH)))

    def max_payload(self) -> int:
        return self.endpoint.max_payload

    def get(self, key: str) -> str:
        return self.endpoint.get(key)

    def close(self) -> None:
        self.endpoint.close()


class Event(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("type", ctypes.c_int32),
        ("peer", ctypes.c_uint64),
        ("path", ctypes.c_uint32),
        ("code", ctypes.c_uint32),
        ("name", ctypes.c_char * 72),
        ("text", ctypes.c_char * 256),
    )


class C:
    """An endpoint of the shared library."""

    library: ctypes.CDLL | None = None

    def __init__(self, role: str, at: str, paths: tuple[str, ...], options: dict[str, str]) -> None:
        call = self._library()
        config = ctypes.c_void_p(call.mpt_config_new())
        self.handle = ctypes.c_void_p()
        try:
            for key, value in [*options.items(), *(("path", words) for words in paths)]:
                self._check(call.mpt_config_set(config, key.encode(), value.encode()))
            scheme = "mpt" if role == "client" else "mpt-listen"
            uri = f"{scheme}://{at}".encode()
            self._check(call.mpt_open(uri, config, ctypes.byref(self.handle)))
        finally:
            call.mpt_config_free(config)

    @classmethod
    def _library(cls) -> ctypes.CDLL:
        if cls.library is None:
            library = ctypes.CDLL(built("libmptunnel.so"))
            library.mpt_config_new.restype = ctypes.c_void_p
            for name in ("send", "recv", "metrics", "local_addr", "get"):
                getattr(library, f"mpt_{name}").restype = ctypes.c_ssize_t
            library.mpt_max_payload.restype = ctypes.c_size_t
            cls.library = library
        return cls.library

    @staticmethod
    def _check(status: int) -> int:
        if status < 0:
            raise Refusal(status)
        return status

    def _text(self, name: str, *arguments: object) -> str:
        room = ctypes.create_string_buffer(65_536)
        call = getattr(self._library(), name)
        self._check(call(self.handle, *arguments, room, ctypes.c_size_t(len(room))))
        return room.value.decode()

    def address(self) -> str:
        return self._text("mpt_local_addr")

    def ready(self, seconds: float) -> None:
        self._check(self._library().mpt_wait_ready(self.handle, int(seconds * 1e3)))

    def send(self, data: bytes) -> None:
        self._check(self._library().mpt_send(self.handle, data, ctypes.c_size_t(len(data)), 1000))

    def recv(self, seconds: float) -> bytes:
        room = ctypes.create_string_buffer(65_536)
        size, wait = ctypes.c_size_t(len(room)), int(seconds * 1e3)
        length = self._check(self._library().mpt_recv(self.handle, room, size, wait))
        return room.raw[:length]

    def state(self) -> dict:
        return json.loads(self._text("mpt_metrics", 1))

    def event(self) -> str:
        event = Event(struct_size=ctypes.sizeof(Event))
        wait = int(ENOUGH * 1e3)
        self._check(self._library().mpt_next_event(self.handle, ctypes.byref(event), wait))
        return event.text.decode()

    def max_payload(self) -> int:
        return self._library().mpt_max_payload(self.handle)

    def get(self, key: str) -> str:
        return self._text("mpt_get", key.encode())

    def close(self) -> None:
        self._library().mpt_close(self.handle)


class Bridge:
    """Carries between a client and a server, and does to packets what it is told."""

    def __init__(self, server: str) -> None:
        host, port = server.rsplit(":", 1)
        self.inner = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.outer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.inner.connect((host, int(port)))
        self.outer.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.outer.getsockname()[1]
        self.client = None
        self.seen: list[bytes] = []
        self.held: list[bytes] = []
        self.hold: Callable[[bytes], bool] = lambda _: False
        self.cut = False
        self._over = False
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        while not self._over:
            ready, _, _ = select.select([self.inner, self.outer], [], [], 0.05)
            for end in ready:
                # A server that is gone is told of once.
                with contextlib.suppress(ConnectionError):
                    data, source = end.recvfrom(65_535)
                    if self.cut:
                        continue
                    if end is self.inner:
                        self.outer.sendto(data, self.client)
                        continue
                    self.client = source
                    self.seen.append(data)
                    if self.hold(data):
                        self.held.append(data)
                    else:
                        self.inner.send(data)

    def release(self) -> None:
        while self.held:
            self.inner.send(self.held.pop())

    def close(self) -> None:
        self._over = True
        self._thread.join()
        self.inner.close()
        self.outer.close()


class World:
    """Endpoints in one language, with a key, that are closed in the end."""

    def __init__(self, kind: type[Python] | type[C], files: Path) -> None:
        self.kind = kind
        self.files = files
        self.stack = contextlib.ExitStack()

    def _add(self, thing):
        self.stack.callback(thing.close)
        return thing

    def listen(self, keys: bool = True, **options: object) -> Python | C:
        return self._add(self.kind("server", "127.0.0.1:0", (), self._texts(keys, options)))

    def open(
        self, server: object, paths: tuple[str, ...] = (), keys: bool = True, **options: object
    ) -> Python | C:
        at = server if isinstance(server, str) else server.address
        at = at if isinstance(at, str) else at()
        return self._add(self.kind("client", at, paths, self._texts(keys, options)))

    def bridge(self, server: Python | C) -> Bridge:
        return self._add(Bridge(server.address()))

    def _texts(self, keys: bool, options: dict[str, object]) -> dict[str, str]:
        found = {"key_file": self.files / "psk"} if keys else {}
        return {key.replace("_", "-"): str(value) for key, value in (found | options).items()}

    def connected(self, both: dict[str, object] | None = None, **options: object):
        """A server, and a client with options; `both` for both."""
        server = self.listen(**(both or {}))
        client = self.open(server, **(both or {}), **options)
        client.ready(ENOUGH)
        return server, client


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except Refusal:
        return True
    return False


def sent(endpoint: Python | C) -> list[int]:
    return [path["sent"] for path in endpoint.state()["paths"]]


def sends(endpoint: Python | C, more: int, within: float) -> bool:
    """Whether so many packets leave in this time."""
    (before,), end = sent(endpoint), time.monotonic() + within
    while time.monotonic() < end:
        if sent(endpoint)[0] >= before + more:
            return True
        time.sleep(0.01)
    return False


def passes(client: Python | C, server: Python | C, data: bytes) -> bool:
    """Whether a datagram comes through, behind what came before."""
    client.send(data)
    with contextlib.suppress(Refusal):
        while server.recv(0.02) != data:
            pass
        return True
    return False


def all_up(endpoint: Python | C) -> bool:
    return all(path["up"] for path in endpoint.state()["paths"])


def mode(world):
    server, client = world.connected(mode="redundant", paths=PATHS)
    until(lambda: all_up(client))
    before = sent(client)
    for _ in range(50):
        client.send(b"x")
    assert all(now >= then + 50 for now, then in zip(sent(client), before, strict=True))


def key_file(world):
    server = world.listen(key_file=world.files / "psk")
    world.open(server, key_file=world.files / "psk").ready(ENOUGH)
    other = world.open(server, key_file=world.files / "other")
    assert server.state()["key_ids"] != other.state()["key_ids"]
    until(lambda: server.state()["dropped"]["unknown_key"] > 0)
    assert refused(lambda: other.ready(0))


PASSPHRASE_ID = "75aa1288ed395625"
"""The id of the key that the passphrase of these tests makes, with the name "one"."""


def passphrase_file(world):
    words = {"passphrase_file": world.files / "words", "tunnel_name": "one"}
    assert world.listen(keys=False, **words).state()["key_ids"] == [PASSPHRASE_ID]


def tunnel_name(world):
    words = {"passphrase_file": world.files / "words", "tunnel_name": "two"}
    assert world.listen(keys=False, **words).state()["key_ids"] != [PASSPHRASE_ID]


def key_pair(world):
    keys = {"private_key_file": world.files / "bob", "allowed_keys_file": world.files / "allowed"}
    server = world.listen(keys=False, **keys)
    own = {"private_key_file": world.files / "alice", "peer_key": BOB}
    world.open(server, keys=False, **own).ready(ENOUGH)


def private_key_file(world):
    key_pair(world)


def peer_key(world):
    key_pair(world)
    own = {"private_key_file": world.files / "alice", "peer_key": "nonsense"}
    assert refused(lambda: world.open("127.0.0.1:9", keys=False, **own))


def allowed_keys_file(world):
    key_pair(world)
    nobody = world.files / "nobody"
    keys = {"private_key_file": world.files / "bob", "allowed_keys_file": nobody}
    server = world.listen(keys=False, **keys)
    own = {"private_key_file": world.files / "alice", "peer_key": BOB}
    with pytest.raises(Refusal) as caught:
        world.open(server, keys=False, **own).ready(ENOUGH)
    assert caught.value.status == mpt.Refused.code


def allow_insecure_keys(world):
    readable = {"key_file": world.files / "readable"}
    assert refused(lambda: world.listen(**readable))
    world.listen(**readable, allow_insecure_keys="on")


def name(world):
    server = world.listen()
    for restarts in range(2):
        world.open(server, name="one").ready(ENOUGH)
        until(lambda restarts=restarts: server.state()["peers"][0]["restarts"] == restarts)
    assert len(server.state()["peers"]) == 1


def is_readable(world, server, **options):
    """Whether a bridge sees what a client with these options sends to the server."""
    bridge = world.bridge(server)
    client = world.open(bridge, **options)
    client.ready(ENOUGH)
    client.send(b"who can read this")
    assert server.recv(ENOUGH) == b"who can read this"
    return any(b"who can read this" in packet for packet in bridge.seen)


def encrypt(world):
    assert not is_readable(world, world.listen(encrypt="on"), encrypt="on")
    assert is_readable(world, world.listen(encrypt="off"), encrypt="off")


def cipher(world):
    for value, expected in (("chacha20", "chacha20-poly1305"), ("aes256gcm", "aes-256-gcm")):
        _, client = world.connected({"cipher": value})
        assert client.state()["cipher"] == expected


def probe_interval(world):
    server = world.listen(probe_interval="50ms")
    client = world.open(server)
    client.ready(ENOUGH)
    client.send(b"in use")
    # Every 250 ms without the option.
    assert sends(client, 10, within=2.2)


def idle_interval(world):
    _, client = world.connected(idle_interval="100ms")
    # Every 5 s without the option.
    assert sends(client, 5, within=8)


def rekey_interval(world):
    _, client = world.connected(rekey_interval="100ms")
    while client.event() != "keys renewed":
        pass


def window(world):
    """A packet that lags behind by 5,000 is dropped, unless the window may grow so far."""
    found = []
    for value in (4_096, 16_384):
        server = world.listen(window=value)
        bridge = world.bridge(server)
        client = world.open(bridge)
        client.ready(ENOUGH)
        bridge.hold = lambda packet: len(packet) == 36 + 333
        client.send(bytes(333))
        until(lambda bridge=bridge: bridge.held)
        for _ in range(5_000):
            client.send(b"")
        until(lambda server=server, client=client: passes(client, server, b"last"))
        bridge.release()
        until(lambda server=server, client=client: passes(client, server, b"last"))
        found.append(server.state()["dropped"]["too_old"])
    assert found == [1, 0]


def max_payload(world):
    server = world.listen(max_payload=100)
    client = world.open(server)
    client.ready(ENOUGH)
    assert client.max_payload() == server.max_payload() == 100
    client.send(bytes(100))
    assert refused(lambda: client.send(bytes(101)))


def mtu(world):
    _, client = world.connected(mtu=1000)
    assert client.state()["paths"][0]["max_packet"] == 1000 - 28


def reorder(world):
    found = []
    for value in (0, "1s"):
        server = world.listen(reorder=value)
        bridge = world.bridge(server)
        client = world.open(bridge)
        client.ready(ENOUGH)
        bridge.hold = lambda packet: len(packet) == 36 + 333
        client.send(b"first")
        assert server.recv(ENOUGH) == b"first"
        client.send(bytes(333))
        client.send(b"third")
        until(lambda bridge=bridge: bridge.held)
        waits = refused(lambda server=server: server.recv(0.1))
        bridge.release()
        found.append((waits, [len(server.recv(ENOUGH)) for _ in range(1 + waits)]))
        held = server.state()["reorder"]["held"]
        if isinstance(server, Python):
            assert server.endpoint.stats.reorder == mpt.Reorder(held=held, given_up=0, late=0)
        assert held == int(waits)
    assert found == [(False, [333]), (True, [333, 5])]


def path_queue(world):
    found = []
    for value in ("1ms", "1s"):
        # Not the MTU of the loopback interface: finding it out would take all of the rate.
        _, client = world.connected(paths=("rate=1 mtu=1500",), path_queue=value)
        # 0.2 s of packets.
        for _ in range(20):
            client.send(bytes(1200))
        found.append(client.state()["paths"][0]["send_dropped"] > 0)
    assert found == [True, False]


def sessions(world):
    server = world.listen(sessions=1)
    world.open(server).ready(ENOUGH)
    with pytest.raises(Refusal) as caught:
        world.open(server).ready(ENOUGH)
    assert caught.value.status == mpt.Refused.code


def session_timeout(world):
    server = world.listen(session_timeout="1s")
    bridge = world.bridge(server)
    world.open(bridge).ready(ENOUGH)
    until(lambda: server.state()["peers"])
    bridge.cut = True
    until(lambda: not server.state()["peers"])


def limited(world, **options):
    """Clients come until the limit holds one of them up."""
    server = world.listen(**options)
    clients = []

    def one_more_is_too_many():
        clients.append(world.open(server))
        return server.state()["dropped"]["rate_limited"] > 0

    until(one_more_is_too_many)
    until(lambda: any(client.state()["connected"] for client in clients))


def handshake_rate(world):
    limited(world, handshake_rate=1)


def source_rate(world):
    limited(world, source_rate=1, source_burst=1, cookie_threshold=0)


def source_burst(world):
    # At one in a second it makes no difference how close together they come.
    limited(world, source_burst=1, source_rate=1, cookie_threshold=0)


def cookie_threshold(world):
    server = world.listen(cookie_threshold=0)
    client = world.open(server)
    assert client.event() == "the server is under load and checks addresses"


def receive_queue(world):
    server = world.listen(receive_queue="64KiB")
    client = world.open(server)
    client.ready(ENOUGH)
    for _ in range(100):
        client.send(bytes(1400))
    until(lambda: server.state()["queue_dropped"] > 0)


def sockets() -> set[int]:
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{entry}").startswith("socket:"):
                found.add(int(entry))
    return found


def offload(world):
    udp_gro, found = 104, []
    for value in ("on", "off"):
        before = sockets()
        world.listen(offload=value)
        (new,) = sockets() - before
        with socket.socket(fileno=os.dup(new)) as copy:
            found.append(copy.getsockopt(socket.IPPROTO_UDP, udp_gro))
    assert found == [1, 0]


def receivers() -> int:
    names = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            names.append((task / "comm").read_text())
    return sum(name.startswith("mpt-receive") for name in names)


def threads(world):
    before = receivers()
    world.listen(threads=3)
    # A thread gives itself its name.
    until(lambda: receivers() == before + 3)


def socket_buffer(world):
    server = world.listen(socket_buffer="64KiB")
    assert server.state()["receive_buffer"] == 65_536


SIGN_OF_LIFE = struct.pack("<IIII", 0, 1, 1, 0)
"""Of the classic mptunnel, in clear."""


def classic(world, server: Python | C) -> socket.socket:
    """A classic client, as far as a server knows."""
    plain = world.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    host, port = server.address().rsplit(":", 1)
    plain.connect((host, int(port)))
    plain.settimeout(ENOUGH)
    return plain


def protocol(world):
    server = world.listen(keys=False, protocol="legacy")
    # "ping0" as a classic client sends it first, with its keystream.
    ping = "67458b6b5a6a2af559d1f563a654807a0017544425"
    classic(world, server).send(bytes.fromhex(ping))
    assert server.recv(ENOUGH) == b"ping0"
    # Two clients of one server would count alike.
    server = world.listen(keys=False, protocol="legacy")
    client = world.open(server, keys=False, protocol="legacy")
    client.ready(ENOUGH)
    client.send(b"hello")
    assert server.recv(ENOUGH) == b"hello"
    # It has no keys.
    assert refused(lambda: world.listen(protocol="legacy"))


def obfuscate(world):
    legacy = {"keys": False, "protocol": "legacy"}
    assert is_readable(world, world.listen(**legacy), **legacy, obfuscate="off")
    assert not is_readable(world, world.listen(**legacy), **legacy, obfuscate="on")


def legacy_state(world):
    file = world.files / f"numbers-{world.kind.__name__}"
    file.write_text("1000\n")
    server = world.listen(keys=False, protocol="legacy")
    bridge = world.bridge(server)
    client = world.open(bridge, keys=False, protocol="legacy", legacy_state=file)
    client.ready(ENOUGH)
    client.send(b"x")
    assert server.recv(ENOUGH) == b"x"
    # Among signs of life.
    assert struct.pack("<IIII", 0, 2, 1_001, 1) + b"x" in bridge.seen
    assert int(file.read_text()) >= 1_001


def legacy_timeout(world):
    server = world.listen(keys=False, protocol="legacy", legacy_timeout="1s")
    plain = classic(world, server)
    plain.send(SIGN_OF_LIFE)
    # An answer at once, and another one every third of a second; every 20 s without the option.
    assert [plain.recv(100) for _ in range(3)] == [SIGN_OF_LIFE] * 3


EFFECTS = {
    check.__name__: check
    for check in (
        *(mode, key_file, passphrase_file, tunnel_name, private_key_file, peer_key),
        *(allowed_keys_file, allow_insecure_keys, name, encrypt, cipher, probe_interval),
        *(idle_interval, rekey_interval, window, max_payload, mtu, reorder, path_queue),
        *(sessions, session_timeout, handshake_rate, source_rate, source_burst, cookie_threshold),
        *(receive_queue, offload, threads, socket_buffer),
        *(protocol, obfuscate, legacy_state, legacy_timeout),
    )
}
"""A function for each option, in a world of one language."""

ELSEWHERE = {
    "target_loss": "four_independent_paths_of_5_percent_take_a_little_more_than_three_copies",
    "max_copies": "the_number_of_copies_and_the_budget_bound_it",
    "budget": "the_number_of_copies_and_the_budget_bound_it",
    "failback": "traffic_returns_from_a_backup_as_the_fail_back_policy_says",
    "window_memory": "the_memory_options_bound_what_windows_and_pieces_take",
    "reassembly_memory": "the_memory_options_bound_what_windows_and_pieces_take",
}
"""What no application sees, or only over minutes or lossy paths: the tests in mptunnel-core."""

ALONE = {"offload", "threads"}
"""What looks at the whole process."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    directory = tmp_path_factory.mktemp("effects")
    contents = {
        "psk": mpt.genkey(),
        "other": mpt.genkey(),
        "readable": mpt.genkey(),
        "words": "correct horse battery staple",
        # RFC 7748, section 6.1.
        "alice": "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=",
        "bob": "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=",
        "allowed": "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo= name=alice",
        "nobody": f"{BOB} name=bob",
    }
    for file, content in contents.items():
        (directory / file).write_text(content + "\n")
        (directory / file).chmod(0o644 if file == "readable" else 0o600)
    return directory


def test_every_option_of_a_library_has_an_effect_that_is_tested():
    options = {option.keyword for option in mpt.OPTIONS if option.client or option.server}
    assert options == set(EFFECTS) | set(ELSEWHERE)
    assert not set(EFFECTS) & set(ELSEWHERE)
    sources = [file.read_text() for file in (ROOT / "mptunnel-core" / "src").rglob("*.rs")]
    for test in ELSEWHERE.values():
        assert any(re.search(rf"#\[test\]\n +fn {test}\(", text) for text in sources), test


@pytest.mark.parametrize("option", EFFECTS)
def test_an_option_has_its_effect_from_each_language(option, keys):
    def check(kind: type[Python] | type[C]) -> None:
        world = World(kind, keys)
        with world.stack:
            EFFECTS[option](world)

    if option in ALONE:
        check(Python)
        check(C)
        return
    with ThreadPoolExecutor(2) as pool:
        for outcome in [pool.submit(check, kind) for kind in (Python, C)]:
            outcome.result()
