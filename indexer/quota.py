"""Quotas: how much a client may send for long, and how much at once (`telemetry.quota` in nektar.yaml).

What a request costs is known when it has been read, and it is paid for whatever becomes of it; whoever owes
something is refused before anything of the next one is read, until that is paid. So nothing that a client may
send at once is too large for its quota, and over time it is never exceeded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from opentelemetry import metrics

from indexer.budget import Budget, Recent
from indexer.clients import Client
from indexer.refusals import busy
from nektar.config import Quota

# Clients that are remembered: more than a Network has senders. Whoever comes from ever other addresses where
# nobody is asked for a token has a quota for each.
CLIENTS = 8_192
# Seconds that whoever owes something waits for at least: less is not worth a request.
LEAST = 0.1

_refused = metrics.get_meter("nektar").create_counter(
    "nektar.collector.over_quota", "{request}", "Requests refused since their sender sent too much, by kind"
)


class _Owed(NamedTuple):
    size: Budget  # in bytes, unpacked
    items: Budget


class Quotas:
    """What each client has left. Shared between threads."""

    def __init__(self, quota: Quota, clock: Callable[[], float] = time.monotonic) -> None:
        self._quota = quota
        self._clock = clock
        self._lock = threading.Lock()
        self._of = Recent[Client, _Owed](CLIENTS, self._whole)

    def check(self, client: Client) -> None:
        """Raises Refused where it has sent too much, until it may send again."""
        with self._lock:
            now, of = self._clock(), self._of[client]
            wait = max(of.size.wait(now), of.items.wait(now))
        if wait:
            _refused.add(1, {"sender": client.kind})
            quota = self._quota
            raise busy(
                f"expected at most {quota.bytes_per_second} bytes and {quota.items_per_second} spans, log "
                "records or data points a second (telemetry.quota); got more for a while",
                max(wait, LEAST),
            )

    def spend(self, client: Client, size: int, items: int) -> None:
        """It has sent so many bytes, and so many spans, log records or data points. What is negative is given
        back."""
        with self._lock:
            of = self._of[client]
            of.size.spend(size)
            of.items.spend(items)

    def _whole(self) -> _Owed:
        quota, now = self._quota, self._clock()
        return _Owed(
            Budget(quota.bytes_per_second * quota.burst, quota.burst, now),
            Budget(quota.items_per_second * quota.burst, quota.burst, now),
        )
