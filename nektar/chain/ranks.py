"""Which of several providers is asked first: the honest before the doubted, those that answer before those
that rest, and of these the quickest.

* Who contradicts a header, or itself, is **doubted** for `DOUBT_SECONDS`: asked only after all others. Of
  several that are doubted, the one that has been so for longest comes first.
* Who brings no answer **rests**: for a second, and twice as long with each failure in a row, up to
  `LONGEST_REST`; or for as long as it asks for. What was under way together fails together, and counts once.
* Of the others one is **preferred**, and stays so: another takes its place only if it is much quicker, and
  not twice within `DWELL_SECONDS`, so that two of about the same speed don't take turns. Where nothing was
  measured the order of the configuration holds.

Pure but for the clock it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

DOUBT_SECONDS = 600.0
FIRST_REST, LONGEST_REST = 1.0, 60.0
# Quicker by so much is much quicker: as a part of the preferred one's time, and in seconds.
MUCH, MARGIN = 0.5, 0.005
DWELL_SECONDS = 300.0
# The weight of what was just measured; what is older fades.
NEWEST = 0.2


@dataclass
class _Standing:
    place: int  # in the configuration
    doubted_until: float = 0.0
    rests_until: float = 0.0
    failures: int = 0
    failed_at: float = float("-inf")
    seconds: float = float("inf")  # that a small question takes; unknown until one was asked


class Ranks:
    """Of providers, by their names."""

    def __init__(self, names: Sequence[str], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._of = {name: _Standing(place) for place, name in enumerate(names)}
        self._preferred = names[0]
        self._turned_at = float("-inf")  # when another was last preferred for being quicker

    def order(self) -> list[str]:
        """All, best first."""
        now = self._clock()

        def rank(name: str) -> tuple[float, float, bool, float, int]:
            of = self._of[name]
            doubted, rests = (until if until > now else 0.0 for until in (of.doubted_until, of.rests_until))
            return doubted, rests, name != self._preferred, of.seconds, of.place

        self._preferred = min(self._of, key=rank)
        self._look_for_quicker(now)
        return sorted(self._of, key=rank)

    def is_well(self, name: str) -> bool:
        """It is neither doubted nor at rest."""
        of = self._of[name]
        return max(of.doubted_until, of.rests_until) <= self._clock()

    def served(self, name: str) -> None:
        """It brought what it was asked for."""
        self._of[name].failures = 0
        self._of[name].rests_until = 0.0

    def failed(self, name: str, asked_at: float, rest: float = 0.0) -> None:
        """What it was asked at `asked_at` brought nothing; it asked to be left alone for `rest` seconds."""
        of, now = self._of[name], self._clock()
        if asked_at > of.failed_at:
            of.failed_at = now
            pause = min(LONGEST_REST, FIRST_REST * 2.0 ** min(of.failures, 30))
            of.failures += 1
            of.rests_until = max(of.rests_until, now + pause)
        of.rests_until = max(of.rests_until, now + rest)

    def doubt(self, name: str) -> None:
        self._of[name].doubted_until = self._clock() + DOUBT_SECONDS

    def doubted(self, name: str) -> bool:
        return self._of[name].doubted_until > self._clock()

    def measured(self, name: str, seconds: float) -> None:
        """A small question took so long."""
        of = self._of[name]
        known = of.seconds != float("inf")
        of.seconds = (1 - NEWEST) * of.seconds + NEWEST * seconds if known else seconds

    def _look_for_quicker(self, now: float) -> None:
        """Prefer the quickest of those in no worse a state than the preferred one, if it is much quicker."""
        of = self._of[self._preferred]
        if now - self._turned_at < DWELL_SECONDS or not self.is_well(self._preferred):
            return
        well = list(filter(self.is_well, self._of))
        quickest = min(well, key=lambda name: (self._of[name].seconds, self._of[name].place))
        seconds = self._of[quickest].seconds
        if seconds < MUCH * of.seconds and of.seconds - seconds > MARGIN and of.seconds != float("inf"):
            self._preferred, self._turned_at = quickest, now
