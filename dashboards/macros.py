"""What Grafana and its ClickHouse plugin make of a panel's SQL before they send it. Pure.

The same as the plugin's `pkg/macros` for the macros that panels use, and as Grafana for the variable format
`${name:singlequote}`; so panels are run where there is no Grafana. What is not known here is refused: a
misspelt macro would reach the store as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

# Grafana asks for about as many points as a panel has pixels.
POINTS = 500

_VARIABLE = re.compile(r"\$\{(\w+):singlequote\}")
_MACRO = re.compile(r"\$__(\w+)(?:\(([^()]*)\))?")


class TimeRange(msgspec.Struct, frozen=True):
    """What the board's time picker says, in seconds since 1970, both ends included."""

    start: int
    end: int

    @property
    def interval(self) -> int:
        """Seconds between two points; the plugin takes no less than one."""
        return max(1, (self.end - self.start) // POINTS)


def expand(sql: str, range: TimeRange, variables: Mapping[str, Sequence[str]]) -> str:
    """The SQL that reaches the store. Raises ValueError for a macro or variable that is not known here."""

    def macro(found: re.Match[str]) -> str:
        name, column = found[1], found[2]
        match (name, column):
            case ("fromTime", None):
                return f"toDateTime({range.start})"
            case ("toTime", None):
                return f"toDateTime({range.end})"
            case ("interval_s", None):
                return str(range.interval)
            case ("timeFilter", str()):
                return f"{column} >= toDateTime({range.start}) AND {column} <= toDateTime({range.end})"
            case ("timeInterval", str()):
                return f"toStartOfInterval(toDateTime({column}), INTERVAL {range.interval} second)"
        raise ValueError(f"expected a macro of Grafana's ClickHouse plugin; got {found[0]!r}")

    def variable(found: re.Match[str]) -> str:
        if found[1] not in variables:
            raise ValueError(f"expected one of the variables {', '.join(variables)}; got {found[0]!r}")
        return ",".join("'" + value.replace("'", "\\'") + "'" for value in variables[found[1]])

    macros_done = _MACRO.sub(macro, sql)
    if "$" in _VARIABLE.sub("", macros_done):
        raise ValueError(f"expected variables as ${{name:singlequote}}; got {macros_done!r}")
    return _VARIABLE.sub(variable, macros_done)
