"""What befell each key in the last five minutes to thirty days of a chain's own time, in little room.

What happened lies in cells of time, which get coarser with age: a cell that has left the last window of its
row becomes part of the one below that holds its time, and in the end it is forgotten.

| cells of | for windows of    | cells at most |
|----------|-------------------|---------------|
| 1 min    | 5 min             | 5             |
| 5 min    | 30 min and 1 h    | 12            |
| 30 min   | 6 h               | 12            |
| 6 h      | 3 d               | 12            |
| 1 d      | 30 d              | 30            |

So a window's end is as coarse as its cells: the one of 6 h holds the half hour that is passing and the eleven
before it. Cells begin with whole multiples of their length since 1970, so each lies in one of the next row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from immutables import Map

from nektar.model import Address

MINUTE, HOUR, DAY = 60, 3_600, 86_400


class Window(NamedTuple):
    """So many of the last seconds, in cells of `cell` seconds."""

    seconds: int
    cell: int

    def holds(self, began: int, now: int) -> bool:
        """Whether a cell that began then is in the window that ends now."""
        return began // self.cell > now // self.cell - self.seconds // self.cell


# The windows of the multi-window alerts of Google's SRE workbook ("Alerting on SLOs", table 5-8), a long one
# and a twelfth of it each, and the period of the error budget.
WINDOWS: Mapping[str, Window] = {
    "5m": Window(5 * MINUTE, MINUTE),
    "30m": Window(30 * MINUTE, 5 * MINUTE),
    "1h": Window(HOUR, 5 * MINUTE),
    "6h": Window(6 * HOUR, 30 * MINUTE),
    "3d": Window(3 * DAY, 6 * HOUR),
    "30d": Window(30 * DAY, DAY),
}
# Of each length of cells, the longest window that they are for.
_ROWS = tuple({each.cell: each for each in WINDOWS.values()}.values())


class Count(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Duties that were owed and are decided: their stake, that of those that failed, and how many were
    missed."""

    eligible: int = 0
    failed: int = 0
    missed: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.eligible + other.eligible, self.failed + other.failed, self.missed + other.missed)

    def __neg__(self) -> Count:
        return Count(-self.eligible, -self.failed, -self.missed)


NOTHING = Count()
Counts = Map[Address, Count]


class Cell(msgspec.Struct, frozen=True, array_like=True):
    """What befell in a stretch of time. Cells stand oldest first, and none of them begins with a later block
    than the next one."""

    row: int  # in the table
    began: int  # seconds since 1970
    first: int  # block
    counts: Counts = Map()


def at(cells: Sequence[Cell], block: int) -> int | None:
    """The place of the cell that holds this block; None where it has been forgotten."""
    place = bisect_right(cells, block, key=lambda cell: cell.first) - 1
    return place if place >= 0 else None


def holding(cell: Cell, now: int) -> list[int]:
    """The places of the windows that hold the cell."""
    return [place for place, window in enumerate(WINDOWS.values()) if window.holds(cell.began, now)]


def left(cells: Iterable[Cell], before: int, now: int) -> Iterator[tuple[Cell, list[int]]]:
    """Each cell that windows held before and do not now, with the places of these."""
    for cell in cells if before // MINUTE < now // MINUTE else ():
        still = holding(cell, now)
        if gone := [place for place in holding(cell, before) if place not in still]:
            yield cell, gone


def advanced(cells: Iterable[Cell], now: int, block: int) -> tuple[Cell, ...]:
    """The cells as they stand with a block of this time, the last of them the one that holds it."""
    kept: list[Cell] = []
    for cell in cells:
        aged: Cell | None = cell
        while aged and not _ROWS[aged.row].holds(aged.began, now):
            aged = _coarser(aged)
        if not aged:
            continue
        if kept and (kept[-1].row, kept[-1].began) == (aged.row, aged.began):
            kept[-1] = msgspec.structs.replace(kept[-1], counts=summed(kept[-1].counts, aged.counts))
        else:
            kept.append(aged)
    began = now - now % _ROWS[0].cell
    if not kept or (kept[-1].row, kept[-1].began) != (0, began):
        kept.append(Cell(0, began, block))
    return tuple(kept)


def _coarser(cell: Cell) -> Cell | None:
    """The cell as part of one of the next row; None after the last one."""
    row = cell.row + 1
    if row == len(_ROWS):
        return None
    return msgspec.structs.replace(cell, row=row, began=cell.began - cell.began % _ROWS[row].cell)


def summed(counts: Counts, more: Mapping[Address, Count]) -> Counts:
    """Both together; what comes to nothing is not held."""
    now = counts.mutate()
    for key, count in more.items():
        if (both := now.get(key, NOTHING) + count) != NOTHING:
            now[key] = both
        else:
            now.pop(key, None)
    return now.finish()
