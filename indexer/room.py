"""Room: what requests under way may hold in memory together, of which each sender leaves some to others."""

from __future__ import annotations

import threading
from collections import Counter

from indexer.refusals import later
from nektar.senders import Sender


class Room:
    """So many bytes. A sender holds at most as much as it leaves, so that others are taken whatever one of
    them does. Shared between threads."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._held: Counter[Sender] = Counter()  # by sender
        self._lock = threading.Lock()

    def take(self, size: int, sender: Sender) -> None:
        """Raises Refused."""
        with self._lock:
            if size > self._left:
                raise later("too many requests are under way")
            if self._held[sender] + size > self._left - size:
                raise later("too many requests of this sender are under way")
            self._left -= size
            self._held[sender] += size

    def free(self, size: int, sender: Sender) -> None:
        with self._lock:
            self._left += size
            self._held[sender] -= size


class Share:
    """One request's part of it, until it is freed."""

    def __init__(self, room: Room, sender: Sender) -> None:
        self._room = room
        self.sender = sender
        self._taken = 0

    def take(self, size: int) -> None:
        """Raises Refused."""
        self._room.take(size, self.sender)
        self._taken += size

    def free(self) -> None:
        self._room.free(self._taken, self.sender)
        self._taken = 0
