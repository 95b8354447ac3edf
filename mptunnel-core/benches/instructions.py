#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Counts the instructions of the hot path and compares them with those in instructions.txt.

    python3 instructions.py HOTPATH            compare; exit status 1 if there are too many
    python3 instructions.py HOTPATH --write    make the counts of today the baseline

HOTPATH is the program of that name, built with --release. It runs under valgrind's callgrind, so
that the count is the same on an idle and on a busy machine. Counted are the instructions that stem
from Rust sources. Cipher and memcpy are assembly, chosen by what the processor can do: of these only
the calls are counted, with all other calls from Rust to something else, such as malloc.
"""

import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile

BASELINE = pathlib.Path(__file__).with_name("instructions.txt")
NAMES = ("send", "receive", "receive-copy", "window")
# TIMES in hotpath.rs, and how often it does the same uncounted before; call counts contain both.
TIMES, BEFORE = 1_000, 1_000
# More than this above the baseline is an error. Another compiler orders code differently.
TOLERANCE, OTHER_COMPILER = 0.03, 0.20


def count(hotpath, name):
    """Instructions and calls for one datagram."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "out")
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--compress-strings=no"]
        command += ["--compress-pos=no", "--collect-atstart=no", "--toggle-collect=*counted*", hotpath, name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"instructions: {' '.join(command)}: {done.stderr}")
        lines = out.read_text().splitlines()
    instructions, calls = sum_up(lines)
    return round(instructions / TIMES, 1), round(calls / (TIMES + BEFORE), 2)


def sum_up(lines):
    """What one profile has in Rust sources. Its format: valgrind's manual, "Callgrind Format Specification"."""
    instructions = calls = 0
    file = callee = ""
    called = None
    for line in lines:
        key, _, value = line.partition("=")
        if key in ("fl", "fi", "fe"):
            file, callee = value, value
        elif key in ("cfi", "cfl"):
            callee = value
        elif key == "calls":
            called = int(value.split()[0])
        elif re.match(r"\d+ \d+$", line):
            cost = int(line.split()[1])
            if called is None:
                instructions += cost if file.endswith(".rs") else 0
            elif cost > 0 and file.endswith(".rs") and not callee.endswith(".rs"):
                calls += called
            # The line behind "calls" says what the call cost, which is counted where it was spent.
            called, callee = None, file
    return instructions, calls


def baseline():
    """The counts by name, and the compiler and processor that they are of."""
    counts, origin = {}, ""
    for line in BASELINE.read_text().splitlines():
        if line.startswith("# of "):
            origin = line.removeprefix("# of ")
        elif line and not line.startswith("#"):
            name, instructions, calls = line.split()
            counts[name] = float(instructions), float(calls)
    return counts, origin


def main():
    hotpath = sys.argv[1]
    if not shutil.which("valgrind"):
        sys.exit("instructions: valgrind is missing (Debian package valgrind)")
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    here = f"rustc {rustc} {platform.machine()}"
    counts = {name: count(hotpath, name) for name in NAMES}
    # Calls of what has no line numbers are not found.
    if not all(instructions for instructions, _ in counts.values()):
        sys.exit(f"instructions: {hotpath} executes none; was it built without debug information?")
    if sys.argv[2:] == ["--write"]:
        text = "# SPDX-License-Identifier: BSD-2-Clause\n# Instructions and calls out of Rust for one datagram. `make bench-baseline`\n"
        text += f"# of {here}\n"
        text += "".join(f"{name:12} {found[0]:8} {found[1]:6}\n" for name, found in counts.items())
        BASELINE.write_text(text)
        print(text, end="")
        return
    before, origin = baseline()
    if origin.split()[-1] != platform.machine():
        print(f"NOT COMPARED: the baseline is of {origin}, this is {here}")
        return
    tolerance = TOLERANCE if origin == here else OTHER_COMPILER
    print(f"instructions: baseline of {origin}, this is {here}: at most {tolerance:.0%} more, no call more")
    worse = False
    for name, (instructions, calls) in counts.items():
        old_instructions, old_calls = before.get(name, (0, 0))
        change = instructions / old_instructions - 1 if old_instructions else float("inf")
        bad = change > tolerance or calls > old_calls + 0.05
        worse |= bad
        print(
            f"  {name:12} {instructions:8} instructions ({change:+.1%} of {old_instructions})"
            f" {calls:6} calls (before: {old_calls}) {'TOO MANY' if bad else 'ok'}"
        )
    if worse:
        sys.exit(
            "instructions: the hot path costs more than before. If that is the price of something"
            " worth it, say so in the commit and run `make bench-baseline`."
        )


if __name__ == "__main__":
    main()
