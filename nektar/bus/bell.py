"""Bells: how a consumer learns at once of a commit in another process, and which consumers still live.

Each consumer keeps a FIFO open for reading. Whoever has committed writes a byte into every FIFO of the
bus, so that a waiting consumer sleeps without polling and wakes within a fraction of a millisecond. The
kernel closes a FIFO's reading end when its process dies, by kill -9 too, and refuses to open one for
writing that nobody reads (ENXIO). So a bell that can't be opened is a dead consumer: no process id that may
have been given to another, no clock, no start times, and it holds between containers on one machine.

A ring may be lost (its process dies after the commit), so waiting is bounded and consumers look again.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from contextlib import suppress
from pathlib import Path


class Bell:
    """A consumer's own bell, there from now until `close` or the death of the process."""

    def __init__(self, path: Path) -> None:
        """Hang it at `path`. Raises OSError, also where the file system has no FIFOs."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}")
        os.mkfifo(hidden)
        try:
            self._reading = os.open(hidden, os.O_RDONLY | os.O_NONBLOCK)
            # Our own writing end, so that the last ringer's leaving is not an end of file.
            self._writing = os.open(hidden, os.O_WRONLY | os.O_NONBLOCK)
            # Seen by others only now that it is read: who sees a bell that nobody reads sees a dead one.
            hidden.rename(path)
        except OSError:
            hidden.unlink(missing_ok=True)
            raise
        self._poll = select.poll()
        self._poll.register(self._reading, select.POLLIN)

    def wait(self, timeout: float) -> None:
        """Return when the bell has rung since the last `wait`, and after `timeout` s at the latest."""
        if self._poll.poll(max(0.0, timeout) * 1000):
            with suppress(BlockingIOError):  # somebody else has read it: it rang all the same
                os.read(self._reading, 65536)

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._reading)
        os.close(self._writing)


def alive(path: Path) -> bool:
    """Whether the consumer whose bell hung at `path` is still there."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return False
        raise
    return True


class Ringer:
    """Rings all bells in a directory. Safe to share between threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()

    def ring(self) -> None:
        """Wake every consumer. Never fails and never waits for one: a consumer looks again by itself."""
        with self._lock:
            self._ring()

    def _ring(self) -> None:
        try:
            names = {name for name in os.listdir(self._directory) if not name.startswith(".")}
        except OSError:
            return  # no consumer has ever been here
        for name in names.difference(self._open):
            try:
                self._open[name] = os.open(self._directory / name, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    (self._directory / name).unlink(missing_ok=True)
        for name, descriptor in list(self._open.items()):
            try:
                os.write(descriptor, b"\0")
            except BlockingIOError:
                pass  # it has rung 65536 times unheard: it will be heard
            except OSError:
                self._forget(name)
        for name in self._open.keys() - names:
            self._forget(name)

    def close(self) -> None:
        with self._lock:
            for name in list(self._open):
                self._forget(name)

    def _forget(self, name: str) -> None:
        descriptor = self._open.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)
