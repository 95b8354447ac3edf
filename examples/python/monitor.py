#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Watches the paths of a tunnel, live: round trips as a picture in the terminal, or in a PNG file.

monitor.py mpt://HOST:PORT -k KEY_FILE -p if=eth0 -p if=wwan0
monitor.py mpt://HOST:PORT -k KEY_FILE --seconds 60 --png paths.png      # takes matplotlib
"""

import argparse
import shutil
import sys
import time
from collections import defaultdict

import mptunnel as mpt

BARS = " ▁▂▃▄▅▆▇█"
History = dict[str, list[tuple[float, float | None]]]
"""Seconds since the start and round trip in seconds, for each path."""


def picture(values: list[float | None], highest: float) -> str:
    """One character for each value; `x` where there was no answer."""
    steps = len(BARS) - 1
    return "".join(
        "x" if value is None else BARS[max(1, min(steps, round(steps * value / highest)))]
        for value in values
    )


def show(history: History, tunnel: mpt.Tunnel, width: int) -> list[str]:
    """The lines of the screen."""
    measured = [rtt for samples in history.values() for _, rtt in samples if rtt is not None]
    highest = max(measured, default=0.001)
    lines = [f"round trips up to {1000 * highest:.1f} ms"]
    for path in tunnel.paths:
        samples = [rtt for _, rtt in history[path.name]][-width:]
        stats = path.stats
        rtt = "-" if stats.rtt is None else f"{1000 * stats.rtt:.1f} ms"
        loss = "-" if stats.loss_in is None else f"{100 * stats.loss_in:.0f} %"
        lines.append(
            f"{path.name:24.24} {path.state:9} rtt {rtt:>9} loss {loss:>5} wins {stats.wins:>8}"
        )
        lines.append("  " + picture(samples, highest))
    return lines


def plot(history: History, file: str) -> None:
    """Draws all paths into a PNG file."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for name, samples in history.items():
        times = [at for at, _ in samples]
        # Where there was no answer, the line has a gap.
        values = [float("nan") if rtt is None else 1000 * rtt for _, rtt in samples]
        axes.plot(times, values, label=name, marker=".")
    axes.set(xlabel="seconds", ylabel="round trip, ms", title="mptunnel")
    axes.legend()
    figure.savefig(file)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Watch the paths of a tunnel.")
    parser.add_argument("uri")
    parser.add_argument("-k", "--key-file")
    parser.add_argument("-p", "--path", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--interval", type=float, default=0.25)
    parser.add_argument("--png", metavar="FILE")
    options = parser.parse_args()

    history: History = defaultdict(list)
    live = sys.stdout.isatty()
    # Idle paths are probed as often as they are drawn.
    with mpt.open(
        options.uri,
        key_file=options.key_file,
        paths=options.path,
        idle_interval=min(max(options.interval, 0.1), 20),
    ) as tunnel:
        tunnel.wait_ready(5)
        begin = time.monotonic()
        before = 0
        try:
            while (now := time.monotonic() - begin) < options.seconds:
                for path in tunnel.paths:
                    history[path.name].append((now, path.stats.last_rtt if path.up else None))
                if live:
                    lines = show(history, tunnel, shutil.get_terminal_size().columns - 4)
                    # Back to the first line, and over the old picture.
                    sys.stdout.write(f"\033[{before}F" if before else "")
                    sys.stdout.writelines(f"\033[K{line}\n" for line in lines)
                    sys.stdout.flush()
                    before = len(lines)
                time.sleep(options.interval)
        except KeyboardInterrupt:
            pass
        if not live:
            print(*show(history, tunnel, 76), sep="\n")
    if options.png:
        plot(history, options.png)
        print(f"wrote {options.png}")


if __name__ == "__main__":
    main()
