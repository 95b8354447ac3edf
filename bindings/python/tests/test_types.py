# SPDX-License-Identifier: BSD-2-Clause
"""The types: what checkers, editors and `help` are told is what there is."""

import ast
import dataclasses
import inspect
import os
import pydoc
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

import mptunnel as mpt
from conftest import ROOT, run
from mptunnel import _mptunnel, aio

PACKAGE = Path(mpt.__file__).parent


CACHE = ROOT / "target" / "python" / "mypy"


def check(*arguments, cwd=ROOT / "bindings" / "python"):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env=os.environ | {"MYPY_CACHE_DIR": str(CACHE)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(150)
def test_the_package_and_the_examples_pass_mypy_strict():
    # As a user's program is checked: the installed package says itself that it is typed.
    examples = sorted((ROOT / "examples" / "python").glob("*.py"))
    assert len(examples) >= 4
    check("-m", "mypy", "--strict", "-p", "mptunnel")
    check("-m", "mypy", "--strict", *examples, "bench.py")


@pytest.mark.timeout(150)
def test_the_stubs_are_those_of_the_built_module():
    # It keeps its cache where it runs.
    check("-m", "mypy.stubtest", "mptunnel", cwd=CACHE.parent)


def test_the_stubs_have_the_docstrings_of_the_built_module():
    tree = ast.parse((PACKAGE / "_mptunnel.pyi").read_text())
    seen = 0

    def compare(node, thing):
        nonlocal seen
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                if child.name.startswith("__"):
                    continue
                actual = inspect.getdoc(getattr(thing, child.name))
                assert ast.get_docstring(child) == actual, child.name
                assert actual, child.name
                seen += 1
                if isinstance(child, ast.ClassDef):
                    compare(child, getattr(thing, child.name))

    compare(tree, _mptunnel)
    assert seen > 60


def test_a_program_with_wrong_types_is_told_so(tmp_path):
    program = tmp_path / "wrong.py"
    program.write_text(
        "import mptunnel as mpt\n"
        "t = mpt.open('h:1', key_file='k', idle_interval=2.5, paths=['if=lo'])\n"
        "n: int = t.send(b'x', copies=2, deadline=0.05)\n"
        "mpt.open('h:1', sessions=1)\n"  # 4
        "t.send('text')\n"  # 5
        "t.recv(timeout='1')\n"  # 6
        "t.paths[0].name = 'x'\n"  # 7
        "mpt.open('h:1', window='many')\n"  # 8
    )
    done = run("-m", "mypy", "--strict", "--cache-dir", CACHE, program, timeout=120)
    lines = [line.split(":")[1] for line in done.stdout.splitlines() if ": error:" in line]
    assert lines == ["4", "5", "6", "7", "8"], done.stdout


def test_help_shows_every_public_thing_with_words():
    for module in (mpt, aio):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.ismodule(thing) or name == "__version__":
                continue
            assert inspect.getdoc(thing), name
            if inspect.isclass(thing):
                for attribute in dir(thing):
                    if not attribute.startswith("_"):
                        found = inspect.getattr_static(thing, attribute)
                        if callable(found) or isinstance(found, property):
                            assert inspect.getdoc(found), f"{name}.{attribute}"
    text = pydoc.plain(pydoc.render_doc(mpt.Tunnel))
    signature = "data, *, flow=0, copies=0, path=None, deadline=None, timeout=Ellipsis"
    assert f"send(self, /, {signature})" in text
    assert "Seconds to wait while *all* sockets are full." in text
    assert "idle_interval" in pydoc.plain(pydoc.render_doc(mpt.open))


def test_help_lists_the_words_of_a_path_and_the_options_in_the_words_of_python():
    words = [word for word, _, _ in _mptunnel.path_words()]
    assert "to=HOST:PORT" in words and len(words) > 10
    for opened in (mpt.open, mpt.listen):
        whole = inspect.getdoc(opened)
        _, _, text = whole.partition("\nOptions as further keywords")
        side = "client" if opened is mpt.open else "server"
        for option in mpt.OPTIONS:
            assert (f"\n{option.keyword}\n    " in text) == getattr(option, side), option.keyword
            assert "-" not in option.key or option.key not in text, option.key
        # A number is in seconds, whatever it is in a text.
        assert "without unit" not in text
        assert max(map(len, whole.splitlines())) <= 100
    for word in words:
        assert f"\n{word}\n    " in inspect.getdoc(mpt.open), word


def test_help_describes_every_field_and_every_kind_of_event():
    kinds = [getattr(mpt, name) for name in mpt.__all__]
    kinds = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    assert len(kinds) == 17
    for kind in kinds:
        for field in dataclasses.fields(kind):
            assert f"\n{field.name}\n    " in inspect.getdoc(kind), f"{kind}.{field.name}"
    for words in (mpt.EventKind, mpt.PathState):
        for kind in words:
            assert f"\n{kind.name}\n    " in inspect.getdoc(words), kind


def test_asyncio_has_the_same_names():
    for blocking, awaitable in ((mpt.Tunnel, aio.Tunnel), (mpt.Server, aio.Server)):
        names = {name for name in dir(blocking) if not name.startswith("_")}
        # Whom it would interrupt is cancelled instead.
        found = {name for name in dir(awaitable) if not name.startswith("_")}
        assert names - {"interrupt"} == found


def test_the_wheel_is_for_every_python_from_3_11_and_says_what_it_is():
    found = distribution("mptunnel")
    assert found.version == mpt.__version__
    wheel = found.read_text("WHEEL")
    assert "Tag: cp311-abi3-" in wheel
    assert found.metadata["Requires-Python"] == ">=3.11"
    assert found.metadata["License-Expression"] == "BSD-2-Clause"
    assert "multipath UDP socket" in found.metadata.get_payload()
    files = {file.name for file in found.files}
    assert {"py.typed", "_mptunnel.pyi", "_mptunnel.abi3.so", "LICENSE"} <= files
    # The wheel is tested, and not the sources that it was made from.
    assert ROOT / "bindings" not in PACKAGE.parents
