# SPDX-License-Identifier: BSD-2-Clause
"""The one option table, from Python: every option is settable, a wrong value names the remedy."""

import base64
import typing
from datetime import timedelta
from pathlib import Path

import pytest

import mptunnel as mpt
from conftest import ENOUGH, address

KEY = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="

# keyword: value, what `get` answers.
GOOD: dict[str, tuple[object, str]] = {
    "mode": ("weighted", "weighted"),
    "target_loss": (1e-5, "0.00001"),
    "max_copies": (3, "3"),
    "budget": (150, "150"),
    "failback": ("better", "better"),
    "key_file": (Path("/dir/psk"), "/dir/psk"),
    "passphrase_file": ("/dir/words", "/dir/words"),
    "private_key_file": ("/dir/own", "/dir/own"),
    "peer_key": (bytes([1] * 32), KEY),
    "allowed_keys_file": (Path("/dir/list"), "/dir/list"),
    "allow_insecure_keys": (True, "on"),
    "tunnel_name": ("a tunnel", "a tunnel"),
    "name": ("a name", "a name"),
    "encrypt": (False, "off"),
    "probe_interval": (0.5, "500ms"),
    "idle_interval": (timedelta(seconds=2), "2s"),
    "rekey_interval": ("1m", "60s"),
    "window": (5000, "8192"),
    "window_memory": ("2MiB", "2MiB"),
    "max_payload": (1200, "1200"),
    "mtu": (1400, "1400"),
    "reorder": (0.05, "50ms"),
    "path_queue": (0.02, "20ms"),
    "reassembly_memory": (1 << 20, "1MiB"),
    "sessions": (7, "7"),
    "session_timeout": (30, "30s"),
    "handshake_rate": (9, "9"),
    "cookie_threshold": (0, "0"),
    "source_rate": (11, "11"),
    "source_burst": (12, "12"),
    "receive_queue": (1 << 17, "128KiB"),
    "socket_buffer": ("1M", "1MiB"),
    "threads": (2, "2"),
    "cipher": ("chacha20", "chacha20"),
    "offload": (False, "off"),
    "protocol": ("legacy", "legacy"),
    "obfuscate": (True, "on"),
    "legacy_state": (Path("/dir/numbers"), "/dir/numbers"),
    "legacy_timeout": (timedelta(minutes=2), "120s"),
}

# keyword: value that is wrong, what the message says.
BAD: dict[str, tuple[object, str]] = {
    "mode": ("quick", 'mode = "quick": expected '),
    "target_loss": (0.6, 'target-loss = "0.6": expected a share from 0.000000001 to 0.5'),
    "max_copies": (33, 'max-copies = "33": expected a whole number from 1 to 32, or 0: as many'),
    "budget": (-1, 'budget = "-1": expected a whole number from 1 to 3100 per cent, or 0: no limit'),
    "failback": ("soon", 'failback = "soon": expected one of always, better, never'),
    "key_file": (KEY, "key-file is the name of a file, but this looks like a key"),
    "passphrase_file": ("", 'passphrase-file = "": expected the name of a file'),
    "private_key_file": (KEY, "private-key-file is the name of a file"),
    "peer_key": ("short", 'peer-key = "short": expected a public key: 44 characters'),
    "allowed_keys_file": (KEY, "allowed-keys-file is the name of a file"),
    "allow_insecure_keys": (3, 'allow-insecure-keys = "3": expected on or off'),
    "tunnel_name": ("x" * 65, "expected a text of 1 to 64 bytes"),
    "name": ("", 'name = "": expected a text of 1 to 64 bytes'),
    "encrypt": ("perhaps", 'encrypt = "perhaps": expected on or off'),
    "probe_interval": (250, 'probe-interval = "250s": expected a duration from 50ms to 5s'),
    "idle_interval": (-1.0, 'idle-interval = "-1s": expected a duration from 100ms to 20s'),
    "rekey_interval": ("soon", 'rekey-interval = "soon": expected a duration'),
    "window": (1, 'window = "1": expected a whole number from 4096 to 4194304 packets'),
    "window_memory": (1, 'window-memory = "1": expected a size in bytes from 1MiB to 4GiB'),
    "max_payload": (65_508, 'max-payload = "65508": expected a whole number from 1 to 65507'),
    "mtu": (575, 'mtu = "575": expected a whole number from 576 to 65535 bytes, or 0: find out'),
    "reorder": (2, 'reorder = "2s": expected a duration from 1ms to 1s'),
    "path_queue": (0, 'path-queue = "0s": expected a duration from 1ms to 1s'),
    "reassembly_memory": (0, 'reassembly-memory = "0": expected a size in bytes'),
    "sessions": (0, 'sessions = "0": expected a whole number from 1 to'),
    "session_timeout": (0.5, 'session-timeout = "0.5s": expected a duration from 1s'),
    "handshake_rate": (True, 'handshake-rate = "on": expected a whole number'),
    "cookie_threshold": (-1, 'cookie-threshold = "-1": expected a whole number'),
    "source_rate": (1.5, 'source-rate = "1.5": expected a whole number'),
    "source_burst": (0, 'source-burst = "0": expected a whole number'),
    "receive_queue": ("lots", 'receive-queue = "lots": expected a size in bytes'),
    "cipher": ("rot13", 'cipher = "rot13": expected one of '),
    "offload": ("maybe", 'offload = "maybe": expected on or off'),
    "protocol": ("classic", 'protocol = "classic": expected one of mptunnel, legacy'),
    "obfuscate": (2, 'obfuscate = "2": expected on or off'),
    "legacy_state": (KEY, "legacy-state is the name of a file"),
    "legacy_timeout": (0.5, 'legacy-timeout = "0.5s": expected a duration from 1s to 3600s'),
    "threads": (1000, 'threads = "1000": expected a whole number from'),
    "socket_buffer": (1, 'socket-buffer = "1": expected a size in bytes'),
}

LIBRARY = [option for option in mpt.OPTIONS if option.client or option.server]


def make(option: mpt.Option, **options: object) -> mpt.Tunnel | mpt.Server:
    if option.client:
        return mpt.open("192.0.2.1:9", **options)
    return mpt.listen("127.0.0.1:0", **options)


def test_the_tables_of_this_test_and_the_types_have_every_option():
    keywords = {option.keyword for option in LIBRARY}
    assert keywords == set(GOOD) == set(BAD)
    for side, options in (("client", mpt.ClientOptions), ("server", mpt.ServerOptions)):
        expected = {option.keyword for option in LIBRARY if getattr(option, side)}
        assert set(typing.get_type_hints(options)) == expected


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Key files of all kinds."""
    directory = tmp_path_factory.mktemp("credentials")
    contents = {
        "psk": mpt.genkey(),
        "open": mpt.genkey(),
        "words": "correct horse battery staple",
        # RFC 7748, section 6.1: Alice is the client, Bob the server.
        "alice": "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=",
        "bob": "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=",
        "allowed": "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo= name=alice",
    }
    for name, content in contents.items():
        (directory / name).write_text(content + "\n")
        (directory / name).chmod(0o644 if name == "open" else 0o600)
    return directory


BOB = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="


def credentials(files):
    """Which options make a key together: of a client, and of its server."""
    shared = {"key_file": files / "psk"}
    readable = {"key_file": files / "open", "allow_insecure_keys": True}
    passphrase = {"passphrase_file": files / "words", "tunnel_name": "a tunnel"}
    alice = {"private_key_file": str(files / "alice"), "peer_key": BOB}
    bob = {"private_key_file": files / "bob", "allowed_keys_file": files / "allowed"}
    pairs = [(shared, shared), (readable, readable), (passphrase, passphrase), (alice, bob)]
    return pairs


@pytest.mark.parametrize("option", LIBRARY, ids=lambda option: option.keyword)
def test_every_option_is_settable_and_answers_back(option, key, files):
    value, expected = GOOD[option.keyword]
    options = {"key": key, option.keyword: value}
    for pair in credentials(files):
        found = pair[0 if option.client else 1]
        if option.keyword in found:
            options, expected = found, str(found[option.keyword])
            if option.kind == "switch":
                expected = "on"
    if option.keyword == "protocol":
        # The classic protocol has no keys, and refuses one.
        del options["key"]
    with make(option, **options) as endpoint:
        assert endpoint.get(option.keyword) == endpoint.get(option.key) == expected
    with make(option, key=key, **{option.keyword: None}) as endpoint:
        assert endpoint.get(option.keyword) != expected or option.default == expected


@pytest.mark.parametrize("kind", range(4), ids=["shared", "readable", "passphrase", "key pairs"])
def test_every_kind_of_key_connects(files, kind):
    client, server = credentials(files)[kind]
    with mpt.listen("127.0.0.1:0", **server) as listening:
        with mpt.open(address(listening), **client) as tunnel:
            tunnel.wait_ready(ENOUGH)
            assert tunnel.key_id in listening.key_ids or kind == 3


def test_a_key_that_others_can_read_is_refused_unless_it_is_allowed(files):
    with pytest.raises(mpt.ConfigError, match="chmod|other users"):
        mpt.open("192.0.2.1:9", key_file=files / "open")


@pytest.mark.parametrize("option", LIBRARY, ids=lambda option: option.keyword)
def test_a_wrong_value_names_the_option_and_the_remedy(option, key):
    value, expected = BAD[option.keyword]
    with pytest.raises(mpt.ConfigError) as caught:
        make(option, key=key, **{option.keyword: value})
    assert expected in caught.value.strerror
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("option", LIBRARY, ids=lambda option: option.keyword)
def test_a_value_of_a_wrong_type_is_a_type_error(option, key):
    for value in ([1], {}, 1j, object()):
        with pytest.raises(TypeError, match=option.keyword):
            make(option, key=key, **{option.keyword: value})


@pytest.mark.parametrize("option", LIBRARY, ids=lambda option: option.keyword)
def test_a_number_beyond_all_bounds_names_the_option_in_a_line_that_can_be_read(option, key):
    if option.kind in ("text", "file"):
        return
    for value in (10**400, -(10**5000), float("nan"), float("inf")):
        with pytest.raises(mpt.ConfigError, match=rf'^\[Errno 22\] {option.key} = "') as caught:
            make(option, key=key, **{option.keyword: value})
        assert len(str(caught.value)) < 250 and ("expected" in str(caught.value))
    with pytest.raises(mpt.ConfigError, match='port "18446744073709551616": expected'):
        mpt.listen(10**5000, key=key)


def test_an_unknown_keyword_is_a_type_error_that_names_the_nearest(key):
    for call, word, nearest in [
        (mpt.open, "mdoe", "mode"),
        (mpt.open, "keyfile", "key_file"),
        (mpt.open, "idle_intervall", "idle_interval"),
        (mpt.open, "path", "paths"),
        (mpt.listen, "session", "sessions"),
        (mpt.listen, "time_out", "timeout"),
        (mpt.aio.open, "mdoe", "mode"),
    ]:
        message = f"unexpected keyword argument {word!r}: did you mean {nearest!r}?"
        with pytest.raises(TypeError) as caught:
            call("127.0.0.1:0", key=key, **{word: 1})
        assert message in str(caught.value)
    with pytest.raises(TypeError, match="'banana'; see mptunnel.OPTIONS"):
        mpt.open("192.0.2.1:9", banana=1)


def test_an_option_of_the_other_end_says_whose_it_is(key):
    for option in mpt.OPTIONS:
        value = GOOD.get(option.keyword, ("1",))[0]
        if not option.client:
            with pytest.raises(mpt.ConfigError, match=f"{option.key} is not an option of a client"):
                mpt.open("192.0.2.1:9", key=key, **{option.keyword: value})
        if not option.server:
            with pytest.raises(mpt.ConfigError, match=f"{option.key} is not an option of a server"):
                mpt.listen("127.0.0.1:0", key=key, **{option.keyword: value})


def test_keywords_go_before_what_the_uri_says_and_paths_add_up(key):
    uri = "mpt://192.0.2.1:9?window=4096&mtu=1400&path=name=a"
    with mpt.open(uri, key=key, window=8192, paths=["name=b", "to=192.0.2.2:9"]) as tunnel:
        assert (tunnel.get("window"), tunnel.get("mtu")) == ("8192", "1400")
        assert [path.name for path in tunnel.paths] == ["a", "b", "192.0.2.2:9"]
    with mpt.listen("mpt-listen://127.0.0.1:0?sessions=3", key=key) as server:
        assert server.get("sessions") == "3"


@pytest.mark.parametrize(
    ("call", "at", "message"),
    [
        (mpt.open, "http://h:1", "expected mpt://HOST:PORT for a client"),
        (mpt.open, "mpt-listen://[::]:1", "describes a server: use listen()"),
        (mpt.open, "", "uri is empty: expected mpt://HOST:PORT or HOST:PORT"),
        (mpt.listen, "", "addr is empty: expected ADDR:PORT, such as [::]:4000, or a port"),
        (mpt.open, "nowhere", "has no port"),
        (mpt.open, "mpt://h:1?wndow=1", 'did you mean "window"'),
        (mpt.listen, "mpt://h:1", "describes a client: use open()"),
        (mpt.listen, "host:4000", "IP address"),
        (mpt.listen, "127.0.0.1:66666", "expected a number from 0 to 65535"),
    ],
)
def test_an_address_that_is_none_says_what_is_expected(key, call, at, message):
    with pytest.raises(mpt.ConfigError) as caught:
        call(at, key=key)
    assert message in str(caught.value)


def test_an_address_is_a_text_or_a_port(key):
    for wrong in (None, ("127.0.0.1", 0), b"127.0.0.1:0", 4000.0, True):
        with pytest.raises(TypeError, match="addr must be .* or a port, not '"):
            mpt.listen(wrong, key=key)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("wieght=3", 'did you mean "weight="?'),
        ("mtu=1", "mtu=1"),
        ("to=h:1 to=h:2", "to="),
    ],
)
def test_a_path_that_is_none_says_what_is_wrong(key, words, message):
    with pytest.raises(mpt.ConfigError) as caught:
        mpt.open("192.0.2.1:9", key=key, paths=[words])
    assert message in str(caught.value)


def test_keys_are_never_repeated_in_messages(key):
    for wrong in (key[:-2], key + "x", b"31 bytes, which is one too few.", ""):
        with pytest.raises(ValueError) as caught:
            mpt.open("192.0.2.1:9", key=wrong)
        assert str(wrong)[:8] not in str(caught.value) or not wrong
    with pytest.raises(TypeError):
        mpt.open("192.0.2.1:9", key=17)


def test_who_has_no_key_is_told_both_ways_to_one():
    for call, at in ((mpt.open, "192.0.2.1:9"), (mpt.listen, "127.0.0.1:0")):
        with pytest.raises(mpt.ConfigError) as caught:
            call(at)
        for word in ("key_file=", "key=", "`python -m mptunnel genkey`"):
            assert word in str(caught.value)


def test_two_keys_are_refused(key, files):
    one, other = credentials(files)[2], credentials(files)[3]
    for options in (credentials(files)[0][0], one[0], other[0]):
        with pytest.raises(mpt.ConfigError, match="two keys"):
            mpt.open("192.0.2.1:9", key=key, **options)
    for options in (credentials(files)[0][1], one[1]):
        with pytest.raises(mpt.ConfigError, match="two keys"):
            mpt.listen("127.0.0.1:0", key=key, **options)
    # Clients of both kinds.
    with mpt.listen("127.0.0.1:0", key=key, **other[1]) as server:
        assert len(server.key_ids) == 2


def test_paths_are_several_texts_or_none(key):
    with mpt.open("192.0.2.1:9", key=key, paths=None) as tunnel:
        assert len(tunnel.paths) == 1
    for wrong in ("if=lo", 7, True, 1.5):
        with pytest.raises(TypeError, match="paths must be several texts"):
            mpt.open("192.0.2.1:9", key=key, paths=wrong)
    with pytest.raises(TypeError, match="a path is a text"):
        mpt.open("192.0.2.1:9", key=key, paths=[7])


def test_a_key_is_text_or_bytes_and_both_are_the_same(server, key):
    with mpt.open(address(server), key=base64.b64decode(key)) as tunnel:
        tunnel.wait_ready(ENOUGH)
        assert (tunnel.key_id,) == server.key_ids


def test_an_option_of_one_end_has_its_effect(key):
    with mpt.listen("127.0.0.1:0", key=key, max_payload=100) as server:
        with mpt.open(address(server), key=key) as tunnel:
            tunnel.wait_ready(ENOUGH)
            assert (server.max_payload, tunnel.max_payload) == (100, 100)
            with pytest.raises(mpt.PayloadTooLarge):
                tunnel.send(bytes(101))


def test_every_option_is_explained_by_help():
    def unwrapped(text):
        # Names of options are those of Python there.
        return "".join(text.split()).replace("-", "_")

    for option in LIBRARY:
        entry = f"    {option.keyword}\n        {option.help[0]}"
        for call, has in ((mpt.open, option.client), (mpt.listen, option.server)):
            assert (entry in call.__doc__) == has, option.keyword
            assert not has or unwrapped(option.help) in unwrapped(call.__doc__), option.keyword


def test_there_is_no_option_by_another_name(tunnel):
    with pytest.raises(LookupError, match="did you mean 'window'"):
        tunnel.get("wndow")
