"""Names and texts as they stand in SQL. Apart from `schema`, since whoever only asks needs no pyarrow."""

from __future__ import annotations


def quoted(name: str) -> str:
    """An identifier for SQL."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(text: str) -> str:
    """A string for SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
