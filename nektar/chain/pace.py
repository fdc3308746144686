"""How hard a provider may be asked: additive increase, multiplicative decrease, within configured limits.

Two things are bounded: requests in flight, which is what an overloaded server feels, and calls a second,
which is what a plan counts.

| what came of a request | in flight | calls a second |
|---|---|---|
| an answer, even a refusal | + 1 for each round of them | + 1 or a tenth of the last cut a second |
| a rate limit | halved | half of what was just asked, at most |
| a transient fault | halved | as before |

A second counts by how far it was used. Requests that were under way together fail together, so they cut once,
and so do all within a second of a rate limit. Neither bound falls to nothing, so whoever waits comes to
ask; and where the provider says how long to leave it alone, nobody asks until then.

Pure but for the clock it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from nektar.chain.faults import Fault, Kind
from nektar.config import Limits

CUT = 0.5
# What a cut took is won back in so many seconds of full use at most, where it is more than a few calls.
RECOVERY_SECONDS = 10.0
# Plans count by the second: who has asked too much in one is refused until it ends, however slow it is then.
SETTLE_SECONDS = 1.0
# Calls a second, or the configured limit where that is less. With fewer nobody could follow a chain's head.
SLOWEST = 4.0


class Sent(NamedTuple):
    """A request under way."""

    at: float
    calls: int


class Pace:
    """Of one provider. Whoever asks waits as `wait` says, calls `sent`, and `done` when it is over."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._in_flight = 0
        self._window = float(limits.in_flight)
        self._rate = limits.requests_per_second
        self._step = 1.0  # calls a second, gained in each second of full use
        self._next = float("-inf")  # when the next request may be sent
        self._cut_at = float("-inf")
        self._second = float("-inf")  # when the second began in which `_now` calls were sent
        self._now = self._before = 0

    @property
    def window(self) -> int:
        """How many requests may be in flight."""
        return int(self._window)

    @property
    def rate(self) -> float:
        """How many calls a second may be sent."""
        return self._rate

    def wait(self) -> float | None:
        """Seconds until a request may be sent; None: one that is under way has to be done first."""
        if self._in_flight >= self.window:
            return None
        return max(0.0, self._next - self._clock())

    def sent(self, calls: int) -> Sent:
        now = self._clock()
        self._in_flight += 1
        self._next = max(self._next, now) + calls / self._rate
        self._count(now, calls)
        return Sent(now, calls)

    def done(self, sent: Sent, fault: Fault | None = None) -> None:
        """The request is over. `fault`: what is wrong with its answer as a whole, if anything is."""
        self._in_flight -= 1
        if fault is None or fault.kind not in (Kind.RATE, Kind.TRANSIENT):
            self._window = min(self._limits.in_flight, self._window + 1 / self._window)
            gained = self._step * sent.calls / self._rate
            self._rate = min(self._limits.requests_per_second, self._rate + gained)
            return
        now = self._clock()
        self._next = max(self._next, now + fault.retry_after)
        if sent.at <= self._cut_at + (SETTLE_SECONDS if fault.kind is Kind.RATE else 0.0):
            return
        self._cut_at = now
        self._window = max(1.0, self._window * CUT)
        if fault.kind is Kind.RATE:
            self._count(now, 0)
            slowest = min(SLOWEST, self._limits.requests_per_second)
            self._rate = max(slowest, CUT * min(self._rate, max(self._now, self._before)))
            self._step = max(1.0, self._rate / RECOVERY_SECONDS)

    def _count(self, now: float, calls: int) -> None:
        """Keep how many calls were sent in this second and in the one before it."""
        if now - self._second >= 1:
            self._before = self._now if now - self._second < 2 else 0
            self._now, self._second = 0, now
        self._now += calls
