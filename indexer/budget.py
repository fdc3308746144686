"""So much in a while, and as much at once: what whoever sends may cost."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Budget:
    """`most` at once, which come again within `seconds`."""

    def __init__(self, most: float, seconds: float, now: float) -> None:
        self.most = most
        self._left = float(most)
        self._seconds = seconds
        self._at = now

    def take(self, now: float) -> bool:
        """Whether there is one left, which is gone then."""
        self._refill(now)
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """One that was taken cost nothing after all."""
        self._left += 1

    def wait(self, now: float) -> float:
        """Seconds until nothing is owed; 0: nothing is."""
        self._refill(now)
        return max(0.0, -self._left * self._seconds / self.most)

    def spend(self, amount: float) -> None:
        """Take so much, whether it is left or not: whoever takes more has to wait for longer. A negative
        amount is given back."""
        self._left -= amount

    def _refill(self, now: float) -> None:
        self._left = min(self.most, self._left + (now - self._at) * self.most / self._seconds)
        self._at = now


class Recent(Generic[K, V]):
    """Something for each, of those `most` who came last: whoever is forgotten begins anew."""

    def __init__(self, most: int, make: Callable[[], V]) -> None:
        self._most = most
        self._make = make
        self._of: OrderedDict[K, V] = OrderedDict()

    def __getitem__(self, key: K) -> V:
        if key not in self._of:
            self._of[key] = self._make()
            while len(self._of) > self._most:
                self._of.popitem(last=False)
        self._of.move_to_end(key)
        return self._of[key]

    def __len__(self) -> int:
        return len(self._of)
