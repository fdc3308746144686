"""A panel: a question that a person asks, and the SQL that answers it. Written once, whatever draws it.

The SQL is ClickHouse's with the macros of Grafana's ClickHouse plugin (`macros.py`) and one variable,
`${network:singlequote}`: the chosen Networks, quoted, for `network IN (…)`. Where the honest answer is none,
a row says 0, so that nobody wonders whether a panel is broken; only a list of what is there (Operators,
processors) is empty where nothing is.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

Kind = Literal["stat", "bar", "timeseries", "table"]
"""stat: one number. bar: rows of a name and a number. timeseries: rows of a time and numbers. table: any."""

IN_NETWORK = "network IN (${network:singlequote})"


class Threshold(msgspec.Struct, frozen=True):
    """From `value` on (None: from the lowest) a number is shown in `color`."""

    value: float | None
    color: str


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """One panel. `unit` is Grafana's name of a unit; `width` is of 24, as Grafana's grid counts."""

    id: str
    title: str
    description: str
    kind: Kind
    sql: str
    unit: str = "none"
    thresholds: tuple[Threshold, ...] = ()
    width: int = 8


class Board(msgspec.Struct, frozen=True):
    """Panels that are looked at together, in reading order. `uid` is its address, which never changes."""

    uid: str
    title: str
    description: str
    panels: tuple[Panel, ...]

    def panel(self, id: str) -> Panel:
        """The panel of that id. Raises KeyError where there is none."""
        return {panel.id: panel for panel in self.panels}[id]


def counted(column: str, names: type[StrEnum], source: str) -> str:
    """SQL that counts the rows of `source` by `column`, and says 0 of each of `names` that has none."""
    listed = ", ".join(f"'{name}'" for name in names)
    return (
        f"SELECT {column}, sum(n) AS count\n"  # noqa: S608  all of it is written in this package
        f"FROM (\n"
        f"  SELECT arrayJoin([{listed}]) AS {column}, 0 AS n\n"
        f"  UNION ALL\n"
        f"  SELECT {column}, 1 AS n FROM {source}\n"
        f")\n"
        f"GROUP BY {column}\n"
        f"ORDER BY indexOf([{listed}], {column})"
    )
