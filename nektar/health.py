"""How far behind a role is and whether it moves: what `/healthz`, `/readyz` and the lag in `/metrics` say.

A role is made of parts that each deal with what a source brings: a Network's chain, a fold's log, what there
is to tell a watcher. A part says

* `level(part, at)`: all that its source had at `at` is dealt with. **Lag** is the time since. None: it moves,
  and that is not known yet;
* `moved(part)`: it has dealt with some of it, or waits as it should until there is more;
* `waits(part, why)`: something outside holds it up, which no restart of the role would mend;
* `ends(of, parts)`: these go no further, and a person has to mend something.

The role is **alive** while none of its parts has been silent for too long, and **ready** when all are level
or nearly so. A backfill is alive and not ready; so is a watcher whose receiver is down; what is stuck is
neither.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nektar.errors import NektarError

# A part that for so many seconds has said nothing is stuck: the longest single step (a record of hundreds of
# MB into the store) takes some ten.
STUCK_SECONDS = 60.0
# A part that lags more than these seconds is not ready. A chain's head is a slot (12 s) old at worst.
READY_SECONDS = 30.0


@dataclass
class _Part:
    level_at: float  # when it was opened, until it was level once
    seen_at: float
    allowed: float
    level: bool = False
    waiting: str = ""
    ended: str = ""


@dataclass
class Health:
    """What the parts of a role said last. Shared between threads. Times are seconds since 1970."""

    clock: Callable[[], float] = time.time
    _parts: dict[str, _Part] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def opened(self, part: str, allowed: float = READY_SECONDS) -> None:
        """The part has begun; it counts as lagging since now. It is ready with a lag up to `allowed` s."""
        with self._lock:
            now = self.clock()
            self._parts[part] = _Part(now, now, allowed)

    def level(self, part: str, at: float | None) -> None:
        with self._lock:
            of = self._of(part)
            of.seen_at, of.waiting = self.clock(), ""
            if at is not None:
                of.level_at, of.level = at, True

    def moved(self, part: str) -> None:
        with self._lock:
            of = self._of(part)
            of.seen_at, of.waiting = self.clock(), ""

    def waits(self, part: str, why: str) -> None:
        with self._lock:
            of = self._of(part)
            of.seen_at, of.waiting = self.clock(), why

    def ends(self, of: str, ended: Mapping[str, str]) -> None:
        """Of the parts called `of` and something, those have ended, for the reason given, and no others."""
        with self._lock:
            now = {of + name: why for name, why in ended.items()}
            before = [name for name, part in self._parts.items() if part.ended and name.startswith(of)]
            for name in before:
                if name not in now:
                    del self._parts[name]
            for name, why in now.items():  # one that had ended goes on lagging
                self._of(name).ended = why

    def closed(self, part: str) -> None:
        """The part is no more, and nothing is wrong with that."""
        with self._lock:
            self._parts.pop(part, None)

    def silence(self, part: str) -> float:
        """Seconds since the part said anything."""
        with self._lock:
            return self.clock() - self._of(part).seen_at

    def lags(self) -> dict[str, float]:
        """Part → seconds since it was level."""
        with self._lock:
            now = self.clock()
            return {name: max(0.0, now - part.level_at) for name, part in self._parts.items()}

    def stuck(self) -> list[str]:
        """What is wrong with parts that a restart may mend; empty: the role is alive."""
        with self._lock:
            now = self.clock()
            return [
                f"{name}: has neither moved nor been level for {now - part.seen_at:.0f} s"
                for name, part in self._parts.items()
                if not part.ended and now - part.seen_at > STUCK_SECONDS
            ]

    def behind(self) -> list[str]:
        """Why parts are not level; empty: the role is ready. It is not before it has parts."""
        with self._lock:
            now = self.clock()
            said = [line for name, part in self._parts.items() if (line := _behind(name, part, now))]
            return said if self._parts else ["it is starting"]

    def _of(self, part: str) -> _Part:
        now = self.clock()
        return self._parts.setdefault(part, _Part(now, now, READY_SECONDS))


def _behind(name: str, part: _Part, now: float) -> str:
    if part.ended:
        return f"{name}: ended: {part.ended}"
    lag = now - part.level_at
    if part.level and lag <= part.allowed:
        return ""
    how = f"{lag:.0f} s behind" if part.level else f"catching up, for {lag:.0f} s"
    return f"{name}: {how}: {part.waiting}" if part.waiting else f"{name}: {how}"


def words(error: Exception) -> str:
    """What a page says of an error by which a part ended: of a bug only its kind, whoever's words it has."""
    return str(error) if isinstance(error, NektarError) else f"a bug ({type(error).__name__}); see the log"
