# SPDX-License-Identifier: BSD-2-Clause
"""Keyword options: the one option table of the library, in Python's words."""

import base64
import difflib
import math
import os
import re
import textwrap
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TypedDict

from mptunnel import _mptunnel
from mptunnel._types import Option

OPTIONS: tuple[Option, ...] = tuple(
    Option(
        key=key,
        keyword=key.replace("-", "_"),
        kind=kind,
        unit=unit,
        choices=tuple(choices),
        default=default,
        expected=expected,
        help=text,
        live=live,
        client=client,
        server=server,
    )
    for (
        key,
        kind,
        unit,
        choices,
        default,
        expected,
        text,
        live,
        client,
        server,
    ) in _mptunnel.option_table()
)
"""All options, in the order in which the documentation lists them."""

_BY_KEYWORD = {option.keyword: option for option in OPTIONS}

Duration = str | float | timedelta
"""Seconds as a number, a `timedelta`, or a text with a unit such as `"250ms"`."""
Size = str | int
"""Bytes as a number, or a text such as `"4MiB"`."""
File = str | os.PathLike[str]
"""The name of a file."""


class _BothOptions(TypedDict, total=False):
    mode: str | None
    target_loss: float | str | None
    max_copies: int | None
    budget: int | None
    failback: str | None
    key_file: File | None
    passphrase_file: File | None
    private_key_file: File | None
    allow_insecure_keys: bool | None
    tunnel_name: str | None
    encrypt: bool | None
    idle_interval: Duration | None
    rekey_interval: Duration | None
    window: int | None
    window_memory: Size | None
    max_payload: int | None
    mtu: int | None
    reorder: Duration | None
    path_queue: Duration | None
    reassembly_memory: Size | None
    receive_queue: Size | None
    socket_buffer: Size | None
    cipher: str | None
    offload: bool | None
    protocol: str | None
    obfuscate: bool | None
    legacy_state: File | None
    legacy_timeout: Duration | None


class ClientOptions(_BothOptions, total=False):
    """The keywords of `open`; `None` leaves the default. `mptunnel.OPTIONS` explains them."""

    name: str | None
    peer_key: str | bytes | None


class ServerOptions(_BothOptions, total=False):
    """The keywords of `listen`; `None` leaves the default. `mptunnel.OPTIONS` explains them."""

    allowed_keys_file: File | None
    probe_interval: Duration | None
    sessions: int | None
    session_timeout: Duration | None
    handshake_rate: int | None
    cookie_threshold: int | None
    source_rate: int | None
    source_burst: int | None
    threads: int | None


def pairs(function: str, keywords: Mapping[str, object]) -> list[tuple[str, str]]:
    """The keywords of a call as keys and texts of the option table."""
    found = []
    for keyword, value in keywords.items():
        option = _BY_KEYWORD.get(keyword)
        if option is None:
            raise TypeError(unexpected(function, keyword))
        if value is not None:
            found.append((option.key, text_of(option, value)))
    return found


def unexpected(function: str, keyword: str) -> str:
    """What is wrong with a keyword that does not exist."""
    own = {"open": ["paths", "key", "timeout"], "listen": ["key", "timeout"]}[function]
    near = difflib.get_close_matches(keyword, [*_BY_KEYWORD, *own], n=1)
    meant = f": did you mean {near[0]!r}?" if near else "; see mptunnel.OPTIONS"
    return f"{function}() got an unexpected keyword argument {keyword!r}{meant}"


def text_of(option: Option, value: object) -> str:
    """The value of an option as the text that the option table reads."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, int):
        value = bounded(value)
    match value:
        case str():
            return value
        case bool():
            # Wherever a switch does not belong, the table says what does.
            return "on" if value else "off"
        case int() | float() if option.kind == "duration" and math.isfinite(value):
            return f"{value:.6f}".rstrip("0").rstrip(".") + "s"
        case int():
            return str(value)
        case float():
            return repr(value)
        case bytes() if option.kind == "public-key":
            return base64.b64encode(value).decode()
        case os.PathLike():
            return os.fsdecode(value)
    kind = type(value).__name__
    raise TypeError(f"{option.keyword} must be {option.expected}, not {kind}")


def bounded(number: int) -> int:
    """The number, or one that is beyond every range as well and that somebody can read."""
    if isinstance(number, bool):
        return number
    return max(-(1 << 64), min(number, 1 << 64))


def key_bytes(key: str | bytes | None) -> bytes | None:
    """A key that was passed itself, as its 32 bytes."""
    if key is None:
        return None
    if isinstance(key, str):
        try:
            key = base64.b64decode(key.strip(), validate=True)
        except ValueError:
            key = b""
    elif not isinstance(key, bytes):
        raise TypeError(f"key must be text of genkey() or 32 bytes, not {type(key).__name__}")
    if len(key) != 32:
        # Never repeat it: exceptions end up in logs.
        raise ValueError("key: expected 32 bytes, or their 44 characters of base64 from genkey()")
    return key


def seconds(name: str, value: float | None) -> float | None:
    """A number of seconds that a caller passed as `name`; `None` is for ever."""
    if value is None:
        return None
    try:
        # Not a number is not 0 or more either.
        allowed = value >= 0
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{name} must be a number of seconds or None, not '{kind}'") from None
    if not allowed:
        raise ValueError(f"{name} = {value}: expected 0 or more seconds, or None")
    try:
        return float(value)
    except OverflowError:
        # Longer than anybody waits.
        return math.inf


def words(paths: Iterable[str] | None) -> list[str]:
    """The paths of a call."""
    if paths is None:
        return []
    expected = 'paths must be several texts, such as ["if=eth0", "if=wwan0"]'
    if isinstance(paths, str):
        raise TypeError(f"{expected}, not one")
    if not isinstance(paths, Iterable):
        raise TypeError(f"{expected}, not {type(paths).__name__}")
    found = list(paths)
    for path in found:
        if not isinstance(path, str):
            raise TypeError(f'a path is a text such as "if=eth0", not {type(path).__name__}')
    return found


def manual(side: str) -> str:
    """The options as a list, for docstrings."""
    lines = ["    Options as further keywords; durations are in seconds, or texts with a unit:", ""]
    for option in OPTIONS:
        if option.client if side == "client" else option.server:
            default = "" if option.default is None else f" [{option.default}]"
            # That of a number in a text; as keywords all are seconds.
            expected = re.sub(r" \(without unit: \w+\)", "", option.expected)
            lines += _entry(option.keyword, f"{option.help}: {expected}{default}")
    return "\n".join(lines)


def path_manual() -> str:
    """The words of a path as a list, for docstrings."""
    lines = ["    Words of a path, between blanks or commas, in any order:", ""]
    for word, expected, text in _mptunnel.path_words():
        lines += _entry(word, f"{text}: {expected}")
    return "\n".join(lines)


def _entry(name: str, text: str) -> list[str]:
    # Long ones first: key-file is a part of another.
    for option in sorted(OPTIONS, key=lambda option: -len(option.key)):
        if "-" in option.key:
            text = text.replace(option.key, option.keyword)
    indent = 8 * " "
    lines = textwrap.wrap(
        text, 100, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return [f"    {name}", *lines]


def option_of(option: str) -> Option:
    """An option, from its keyword or its key."""
    if not isinstance(option, str):
        raise TypeError(f"option must be a text such as 'window', not '{type(option).__name__}'")
    keyword = option.replace("-", "_")
    if keyword not in _BY_KEYWORD:
        near = difflib.get_close_matches(keyword, _BY_KEYWORD, n=1)
        meant = f": did you mean {near[0]!r}?" if near else "; see mptunnel.OPTIONS"
        raise LookupError(f"there is no option {option!r}{meant}")
    return _BY_KEYWORD[keyword]


def server_of(uri: str) -> tuple[str, int]:
    """Host and port of the server that a URI or `HOST:PORT` names."""
    authority = uri.partition("://")[2] or uri
    host, _, port = authority.partition("?")[0].rstrip("/").rpartition(":")
    return host.strip("[]"), int(port)
