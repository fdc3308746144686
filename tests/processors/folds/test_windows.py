"""Sums over windows of time against the list of all that ever befell."""

from __future__ import annotations

import random
from itertools import pairwise

import msgspec
import pytest
from immutables import Map

from nektar.model import Address
from processors.folds import windows
from processors.folds.windows import WINDOWS, Cell, Count

KEYS = [Address(bytes([i]) * 20) for i in range(3)]
# Seconds from one block to the next: on a quick chain, a slow one, one that stood still for a while, or long.
STEPS = (0, 1, 12, 45, 61, 300, 1_700, 3_600, 22_000, 90_000, 300_000, 3_000_000)


def held(name: str, happened: int, now: int) -> bool:
    """Whether the window holds what happened then: it begins with a cell, as many back as it has."""
    seconds, cell = WINDOWS[name]
    return now // cell * cell + cell - seconds <= happened


@pytest.mark.parametrize("seed", range(40))
def test_cells_hold_what_befell_in_each_window_and_nothing_else(seed: int) -> None:
    rng = random.Random(f"windows {seed}")
    most = rng.randrange(3, len(STEPS) + 1)
    cells: tuple[Cell, ...] = ()
    sums = {name: Map[Address, Count]() for name in WINDOWS}
    befell: list[tuple[int, int, Address, Count]] = []  # (block, time, …)
    now = rng.randrange(10**9)
    for block in range(120):
        before, now = now, now + rng.choice(STEPS[:most])
        if cells:
            for cell, places in windows.left(cells, before, now):
                for name in [list(WINDOWS)[place] for place in places]:
                    less = {key: -count for key, count in cell.counts.items()}
                    sums[name] = windows.summed(sums[name], less)
        cells = windows.advanced(cells, now, block)
        of = rng.choice([block, block, rng.randrange(block + 1)])  # more of an earlier block, or of this one
        time = next((at for number, at, *_ in befell if number == of), now if of == block else None)
        if time is not None:
            key, count = rng.choice(KEYS), Count(rng.randrange(-9, 9), 1, 1)
            befell.append((of, time, key, count))
            if (place := windows.at(cells, of)) is not None:
                cell = cells[place]
                more = windows.summed(cell.counts, {key: count})
                cells = (*cells[:place], msgspec.structs.replace(cell, counts=more), *cells[place + 1 :])
                for at in windows.holding(cell, now):
                    name = list(WINDOWS)[at]
                    sums[name] = windows.summed(sums[name], {key: count})
            else:
                assert not held("30d", time, now)
        for name in WINDOWS:
            expected = Map[Address, Count]()
            for _, at_, key, count in befell:
                if held(name, at_, now):
                    expected = windows.summed(expected, {key: count})
            assert sums[name] == expected, (name, block)
        assert [cell.first for cell in cells] == sorted({cell.first for cell in cells})
        assert len(cells) <= 5 + 12 + 12 + 12 + 30 + 4  # of each row one more may be of the passing cell


def test_windows_end_where_their_cells_do_and_each_lies_in_one_of_the_next_row() -> None:
    lengths = sorted({window.cell for window in WINDOWS.values()})
    assert all(longer % shorter == 0 for shorter, longer in pairwise(lengths))
    assert all(window.seconds % window.cell == 0 for window in WINDOWS.values())
    assert [window.seconds for window in WINDOWS.values()] == sorted(w.seconds for w in WINDOWS.values())
