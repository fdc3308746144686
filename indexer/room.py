"""Room: what requests under way may hold in memory together, of which each client leaves some to others."""

from __future__ import annotations

import threading
from collections import Counter

from indexer.clients import Client
from indexer.refusals import later


class Room:
    """So many bytes. A client holds at most as much as it leaves, so that others are taken whatever one of
    them does. Shared between threads."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._held: Counter[Client] = Counter()  # by those who hold any
        self._lock = threading.Lock()

    def take(self, size: int, client: Client) -> None:
        """Raises Refused."""
        with self._lock:
            if size > self._left:
                raise later("too many requests are under way")
            if self._held[client] + size > self._left - size:
                raise later("too many requests of this sender are under way")
            self._left -= size
            self._held[client] += size

    def free(self, size: int, client: Client) -> None:
        with self._lock:
            self._left += size
            self._held[client] -= size
            if not self._held[client]:
                del self._held[client]


class Share:
    """One request's part of it, until it is freed."""

    def __init__(self, room: Room, client: Client) -> None:
        self._room = room
        self.client = client
        self._taken = 0

    def take(self, size: int) -> None:
        """Raises Refused."""
        self._room.take(size, self.client)
        self._taken += size

    def given(self) -> Share:
        """The same, for whoever goes on with it: this one is free."""
        other = Share(self._room, self.client)
        self._taken, other._taken = 0, self._taken
        return other

    def free(self) -> None:
        self._room.free(self._taken, self.client)
        self._taken = 0
