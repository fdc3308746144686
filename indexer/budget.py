"""So much in a while, and as much at once: what whoever sends may cost."""

from __future__ import annotations


class Budget:
    """`most` at once, which come again within `seconds`."""

    def __init__(self, most: float, seconds: float, now: float) -> None:
        self.most = most
        self._left = float(most)
        self._seconds = seconds
        self._at = now

    def take(self, now: float) -> bool:
        """Whether there is one left, which is gone then."""
        self._left = min(self.most, self._left + (now - self._at) * self.most / self._seconds)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """One that was taken cost nothing after all."""
        self._left += 1
