"""Telemetry whose time no clock could have meant, kept for whoever looks why: on `nektar.dead`, in samples.

It is refused, and its client is told. Of each request the first few items are kept, and of each client, and
of all, so many requests an hour: enough to see whose clock is wrong by how much, and so little that a flood
of them fills no disk. What is not kept is counted, in the next letter of that client, too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from indexer.budget import Budget, Recent
from indexer.clients import Client
from indexer.otlp import FAR, Sample
from nektar.bus.port import Message
from nektar.log import DEAD
from nektar.otlp import Signal

# Letters an hour, of at most `otlp.SAMPLE_BYTES` each: of all clients together some 25 MB a day.
OF_ONE, OF_ALL, HOUR = 4, 64, 3_600.0
# Clients that are remembered.
CLIENTS = 8_192


@dataclass
class _Client:
    left: Budget
    untold: int = 0  # items that were refused since its last letter, and are in none


class Letters:
    """What was kept of whom. Shared between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._all = Budget(OF_ALL, HOUR, clock())
        self._of = Recent[Client, _Client](CLIENTS, lambda: _Client(Budget(OF_ONE, HOUR, clock())))

    def about(self, signal: Signal, client: Client, refused: int, sample: Sample) -> Message | None:
        """The letter about a request of which so many items were refused, if there is one."""
        with self._lock:
            of, now = self._of[client], self._clock()
            of.untold += refused - sample.count
            if not (sample.count and of.left.take(now) and self._all.take(now)):
                of.untold += sample.count
                return None
            untold, of.untold = of.untold, 0
        more = f"; {untold} more since the last letter" if untold else ""
        headers = client.sender.headers | {
            "reason": f"{refused} {signal.items}: {FAR}{more}".encode(),
            "network": client.sender.network.encode(),
        }
        key = f"collector {signal.stream} {client}".encode()
        return Message(DEAD, key, sample.request.SerializeToString(), headers)

    def give_back(self, client: Client) -> None:
        """A letter was not written after all."""
        with self._lock:
            self._of[client].left.give_back()
            self._all.give_back()
