"""docs/LIES.md: one part for a Network's role and one for bulk reading, each held to what a test sees.

At every change a part of the cells is tried, some of each line; with `make thorough` all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.seeds import seeds

PAGE = Path(__file__).parents[2] / "docs" / "LIES.md"
BULK = "\n## `nektar index`\n"  # with which the second part begins
WRITES = bool(os.environ.get("NEKTAR_WRITE"))

Found = Mapping[tuple[str, str], str]  # (lie, column) → what happened


def tried(lies: Sequence[str], columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The cells of a table that are tried now: all that are to be written."""
    of = 1 if WRITES else seeds(min(6, len(columns)), 1)
    for i, lie in enumerate(lies):
        yield from ((lie, column) for j, column in enumerate(columns) if (i + j) % of == 0)


def table(lies: Sequence[str], columns: Sequence[str], found: Found) -> str:
    """A table as it is to stand on the page: what was not tried is as it stands there."""
    head = f"| lie | {' | '.join(columns)} |"
    there = _there(head)
    lines = [head, "|---" * (len(columns) + 1) + "|"]
    for lie in lies:
        said = there.get(lie, [""] * len(columns))
        cells = (found.get((lie, column), said[at]) for at, column in enumerate(columns))
        lines.append(f"| {lie} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _there(head: str) -> dict[str, list[str]]:
    """The page's table with this head: lie → its cells."""
    _, _, below = PAGE.read_text("utf-8").partition(head + "\n")
    rows = [line.strip("| ").split(" | ") for line in below.partition("\n\n")[0].splitlines()[1:]]
    return {lie: cells for lie, *cells in rows}


def hold(told: str) -> None:
    """Hold one of the parts to what was seen. `NEKTAR_WRITE=1` writes it anew."""
    role, mark, rest = PAGE.read_text("utf-8").partition(BULK)
    parts = [role, mark + rest]
    if WRITES:
        parts[told.startswith(BULK)] = told
        PAGE.write_text("".join(parts), "utf-8")
    assert told == parts[told.startswith(BULK)]
