# SPDX-License-Identifier: BSD-2-Clause
"""python -m mptunnel: make a key, see whether a server answers and over which paths."""

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence

import mptunnel as mpt


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0 for success, 1 for failure, 2 for misuse."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        # What cannot be written any more is noticed here, and not by the interpreter's end.
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"mptunnel: {where}{error.strerror or error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mptunnel", description="A multipath UDP socket: tools."
    )
    parser.add_argument("--version", action="version", version=f"mptunnel {mpt.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    genkey = commands.add_parser("genkey", help="make a key for both ends")
    genkey.add_argument(
        "-o", "--output", metavar="FILE", help="write to a new file that only you can read"
    )
    genkey.set_defaults(run=_genkey)

    ping = commands.add_parser("ping", help="round trips over each path, line by line")
    _add_server(ping)
    ping.add_argument(
        "-c", "--count", type=_count, default=4, metavar="N", help="so many times, 0 for ever [4]"
    )
    ping.add_argument(
        "-i", "--interval", type=_seconds, default=1.0, metavar="S", help="seconds between [1]"
    )
    ping.set_defaults(run=_ping)

    status = commands.add_parser("status", help="connect, and show what is known of each path")
    _add_server(status)
    status.set_defaults(run=_status)
    return parser


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uri", help="mpt://HOST:PORT?KEY=VALUE, or HOST:PORT")
    parser.add_argument("-k", "--key-file", metavar="FILE", help="file with the shared key")
    parser.add_argument(
        "-p", "--path", action="append", default=[], metavar="WORDS", help="such as if=wwan0"
    )
    parser.add_argument(
        "-t", "--timeout", type=_seconds, default=5.0, metavar="S", help="to connect, seconds [5]"
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, 0 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 0 or more seconds")
    return seconds


def _open(options: argparse.Namespace) -> mpt.Tunnel:
    tunnel = mpt.open(options.uri, paths=options.path, key_file=options.key_file)
    try:
        tunnel.wait_ready(options.timeout)
    except BaseException:
        tunnel.close()
        raise
    return tunnel


def _genkey(options: argparse.Namespace) -> int:
    key = mpt.genkey()
    if options.output is None:
        print(key)
        return 0
    # Never over a file that is there, and never readable by others, not even for a moment.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(options.output, flags, 0o600), "w") as file:
        file.write(key + "\n")
    return 0


def _ping(options: argparse.Namespace) -> int:
    answered = False
    with _open(options) as tunnel:
        number = 0
        while True:
            number += 1
            for path in tunnel.paths:
                answered |= path.up
                print(f"{number} {path.name}: {_round_trip(path)}", flush=True)
            if number == options.count:
                return 0 if answered else 1
            time.sleep(options.interval)


def _round_trip(path: mpt.Path) -> str:
    if not path.up:
        return "no answer"
    return f"rtt={_ms(path.stats.last_rtt)} smoothed={_ms(path.stats.rtt)}"


def _status(options: argparse.Namespace) -> int:
    with _open(options) as tunnel:
        rows = [("PATH", "STATE", "RTT", "JITTER", "LOSS OUT", "LOSS IN", "SENT", "RECEIVED")]
        for path in tunnel.paths:
            stats = path.stats
            rows.append(
                (
                    path.name,
                    path.state,
                    _ms(stats.rtt),
                    _ms(stats.jitter),
                    _percent(stats.loss_out),
                    _percent(stats.loss_in),
                    str(stats.sent),
                    str(stats.received),
                )
            )
        print(f"connected, key {tunnel.key_id}, encrypted by {tunnel.stats.backend}")
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(map(str.ljust, row, widths)).rstrip())
        return 0


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.2f} ms"


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


if __name__ == "__main__":
    sys.exit(main())
