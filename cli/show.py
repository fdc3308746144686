"""How rows are shown: tables for people, one JSON object a line for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

# What a state means for whoever reads it: green is well, red wants someone to act, yellow is not decided.
COLOURS = {
    "signed": "green",
    "responded": "green",
    "final": "bold red",
    "missed": "red",
    "expired": "red",
    "challenged": "red",
    "late": "yellow",
    "unknown": "magenta",
    "pending": "cyan",
    "open": "cyan",
    "seen": "yellow",
    "safe": "yellow",
    "requested": "yellow",
    "executed": "red",
    "vetoed": "green",
    "void": "dim",
    "excused": "dim",
    "cancelled": "dim",
    "retracted": "dim",
}


def rows(
    records: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    as_json: bool,
    title: str = "",
    empty: str = "nothing yet",
) -> None:
    """Print records: all their keys as JSON, or `columns` as a table."""
    if as_json:
        for record in records:
            print(json.dumps(record))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=False)
    if not records:
        console.print(f"{title}: {empty}" if title else empty, style="dim")
        return
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        numeric = all(isinstance(record.get(column), int | float) for record in records)
        table.add_column(
            column.replace("_", " "), justify="right" if numeric else "left", overflow="fold", no_wrap=False
        )
    for record in records:
        table.add_row(
            *(Text(_cell(record.get(c)), style=COLOURS.get(str(record.get(c)), "")) for c in columns)
        )
    if not sys.stdout.isatty():
        console.width = 200
    console.print(table)


def fields(record: Mapping[str, Any]) -> None:
    """Print one record, a line a key."""
    for name, value in record.items():
        print(f"{name.replace('_', ' '):>18}  {_cell(value, lines=False)}")


def short(value: str, head: int = 10) -> str:
    """A hash or address as people compare them."""
    return value if len(value) <= head + 5 else f"{value[:head]}…{value[-4:]}"


def _cell(value: object, lines: bool = True) -> str:
    """A value as a terminal may get it: whatever is no character to be seen, such as ESC, with which others'
    text could move the cursor or rename the window, is shown as �. Lines stay `lines` where a table holds
    them in their column."""
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() or (lines and c == "\n") else "�" for c in text)
