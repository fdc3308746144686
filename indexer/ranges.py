"""Ranges of blocks: what of them is still to be read, and how many blocks to ask for at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

# Logs in an answer that are worth a request: more are a burden on both sides, fewer make many requests.
LOGS_WANTED = 1_000
# The same of bytes, where few logs are wanted of much that is served, as in a proof.
OCTETS_WANTED = 4_000_000
# What was empty so far may end at once, so a range grows by no more than this from one answer to the next.
GROWTH = 4
MOST_BLOCKS = 10_000
# After so many answers in a row to as many blocks as were served at last, twice as many are tried again: what
# was refused may have been fuller than what comes.
TRY_MORE_AFTER = 8


class Range(NamedTuple):
    """Consecutive blocks, first and last included."""

    first: int
    last: int

    @property
    def blocks(self) -> int:
        return self.last - self.first + 1

    def cut(self, blocks: int) -> tuple[Range, Range | None]:
        """The first so many blocks, and what is left."""
        if blocks >= self.blocks:
            return self, None
        return Range(self.first, self.first + blocks - 1), Range(self.first + blocks, self.last)


class Sizes:
    """How many blocks to ask a provider for next: as many as hold the wanted logs, or bytes, by what the
    last held."""

    def __init__(self, wanted: int = LOGS_WANTED, most: int = MOST_BLOCKS) -> None:
        self._wanted = wanted
        self._limit = most  # that never changes but by the provider's own word
        self._most = most  # that it serves, as far as is known
        self._well = 0  # answers in a row to as many
        self.next = 1

    def held(self, blocks: int, logs: int, octets: int = 0) -> None:
        """So many blocks held so many logs, in answers of so many bytes."""
        if blocks >= self._most:
            self._well += 1
            if self._well >= TRY_MORE_AFTER:
                self._most, self._well = min(self._limit, 2 * self._most), 0
        fitting = blocks * min(self._wanted / max(1, logs), OCTETS_WANTED / max(1, octets))
        self.next = max(1, min(int(fitting), max(self.next, blocks * GROWTH), self._most))

    def refused(self, blocks: int, served: int | None = None, limit: int | None = None) -> None:
        """So many blocks are too many. `served`: how many of these the provider would serve; `limit`: how
        many it ever serves, where it said so."""
        said = served or limit or blocks
        self._limit = min(self._limit, limit or self._limit)
        self._most = max(1, min(self._most, said if said < blocks else blocks // 2))
        self._well = 0
        self.next = min(self.next, self._most)


def missing(whole: Range, there: Iterable[Range]) -> list[Range]:
    """What of `whole` is in none of the ranges that are there, in order."""
    left, start = [], whole.first
    for each in sorted(there):
        if each.first > whole.last:
            break
        if each.first > start:
            left.append(Range(start, each.first - 1))
        start = max(start, each.last + 1)
    if start <= whole.last:
        left.append(Range(start, whole.last))
    return left


def shared(some: Iterable[Range], others: Iterable[Range]) -> list[Range]:
    """The blocks that are in both, in order."""
    others = joined(others)
    found = [
        Range(max(one.first, other.first), min(one.last, other.last))
        for one in joined(some)
        for other in others
    ]
    return [each for each in found if each.first <= each.last]


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The same blocks in as few ranges as hold them, in order."""
    found: list[Range] = []
    for each in sorted(ranges):
        if found and each.first <= found[-1].last + 1:
            found[-1] = Range(found[-1].first, max(found[-1].last, each.last))
        else:
            found.append(each)
    return found
