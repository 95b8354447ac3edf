# SPDX-License-Identifier: BSD-2-Clause
"""Log lines of the library, passed on to `logging`.

The library's own threads never wait for Python: they put lines into a bounded queue. The thread
here sleeps until there are some, fetches them and hands them to the loggers `mptunnel.…`. It starts
with the first endpoint and is a daemon: it keeps no process alive.

The level of the loggers is read when an endpoint is made, and whenever lines come: set it before.
"""

import atexit
import logging
import os
import select
import threading
import traceback

from mptunnel import _mptunnel

_ROOT = "mptunnel"

_lock = threading.Lock()
_thread: threading.Thread | None = None


def start() -> None:
    """Begins to pass lines on, if that was not begun before."""
    global _thread
    _follow_level()
    with _lock:
        if _thread is None:
            descriptor = _mptunnel.log_fd()
            _thread = threading.Thread(
                target=_run, args=(descriptor,), name="mptunnel-log", daemon=True
            )
            _thread.start()


def flush() -> None:
    """Passes on the lines that are there now."""
    lines, dropped = _mptunnel.take_log()
    for when, level, target, text in lines:
        logger = logging.getLogger(target.replace("::", "."))
        if logger.isEnabledFor(level):
            record = logger.makeRecord(logger.name, level, "", 0, text, (), None)
            record.created = when
            record.msecs = when % 1 * 1000
            try:
                logger.handle(record)
            except Exception:
                # A fault of somebody's handler or filter: the next line comes all the same.
                if logging.raiseExceptions:
                    traceback.print_exc()
    if dropped:
        logging.getLogger(_ROOT).warning("%d log lines were lost: too many at a time", dropped)


def _run(descriptor: int) -> None:
    # The wait is Python's own: at the end of the interpreter such a thread just stays behind.
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while True:
        poll.poll()
        _follow_level()
        flush()


def _follow_level() -> None:
    """Lets the library make the lines that somebody wants, and no others."""
    known = list(logging.root.manager.loggerDict)  # in one step: others may add to it
    names = [name for name in known if name.startswith(_ROOT + ".")]
    loggers = [logging.getLogger(name) for name in (_ROOT, *names)]
    _mptunnel.set_log_level(min(logger.getEffectiveLevel() for logger in loggers))


def _in_child() -> None:
    """Begins anew: threads do not come along through `fork`."""
    global _lock, _thread
    _mptunnel.reset_log()
    _lock = threading.Lock()
    _thread = None


os.register_at_fork(after_in_child=_in_child)
atexit.register(flush)
