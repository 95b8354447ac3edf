#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a profile spent its time on, in a few words: `shares.py PERF_DATA...`, made by `perf record`."""

import re
import subprocess
import sys

# The first that matches names the share; a symbol of the kernel is marked with a k.
SHARES = (
    ("kernel: copies", r"k _copy_(from|to)_iter"),
    ("kernel: waking", r"k (finish_task_switch|_raw_spin_unlock_irqrestore|irqentry_exit|schedule|try_to_wake)"),
    ("kernel: the rest", r"k "),
    ("cipher", r". (ring|poly_hash|process_extra|(seal|open)_(avx|sse))"),
    ("copies", r". _*mem(cpy|move|set)"),
    ("mptunnel", r". "),
)

for file in sys.argv[1:]:
    command = ["perf", "report", "-i", file, "--no-children", "--sort", "symbol", "-g", "none"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    sums = dict.fromkeys((name for name, _ in SHARES), 0.0)
    for percent, symbol in re.findall(r"^\s+([\d.]+)%\s+\[(.\] .+?)\s", report, re.MULTILINE):
        symbol = symbol.replace("]", "")
        sums[next(name for name, pattern in SHARES if re.match(pattern, symbol))] += float(percent)
    print(file, *(f"{name} {share:.0f} %" for name, share in sums.items()), sep="  ")
