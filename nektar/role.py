"""What every role's process does the same way: stop when told, end with its supervisor, log to stderr."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

ROLES = ("indexer", "collector", "processors", "prosecutor", "store", "watchers")

# prctl(2): ask Linux to signal this process when its parent ends, however the parent ends.
_PR_SET_PDEATHSIG = 1


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set. Call it in the main thread.

    A handler runs between any two steps of that thread, also where it holds the event's own lock and would
    wait for itself for ever. So it only writes to a pipe, and a thread sets the event.
    """
    stop = threading.Event()
    told, tell = os.pipe()

    def on_signal(number: int, frame: FrameType | None) -> None:
        os.write(tell, b".")

    def wait() -> None:
        os.read(told, 1)
        stop.set()

    threading.Thread(target=wait, name="signals", daemon=True).start()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop


def ends_with_parent(number: int = signal.SIGTERM) -> Callable[[], None] | None:
    """What a child runs between fork and exec (`preexec_fn`) so that Linux signals it when this process ends,
    however it ends. None elsewhere: there a child outlives a parent that is killed."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # loaded here: between fork and exec little is allowed
    parent = os.getpid()

    def preexec() -> None:
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)

    return preexec


def give_up() -> None:
    """End this process as a kill would, from any thread: where one never ends, Python would wait for it. The
    role is started again, and loses nothing by it."""
    os._exit(1)


def log_to_stderr(role: str, level: int = logging.INFO) -> None:
    """One line an event: time, role, level, message."""
    logging.basicConfig(
        level=level,
        stream=sys.stderr,
        format=f"%(asctime)s {role} %(levelname).1s %(name)s: %(message)s",
        force=True,
    )
    for noisy in ("aiohttp", "asyncio", "urllib3", "uvicorn", "kafka"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
