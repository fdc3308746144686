"""What others plug in by entry points: Network adapters and conditions.

An entry point's name is what `nektar.yaml` and findings call it. This is the one module that may look
packages up at run time; the floors hold everywhere else.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from nektar.errors import NektarError


class UnknownPlugin(NektarError):
    """No installed package offers this name; the message lists the names that exist."""

    exit_code = 2


def names(group: str) -> list[str]:
    """The names on offer in `group`, sorted."""
    return sorted({point.name for point in entry_points(group=group)})


def load(group: str, name: str) -> Any:
    """The object that entry point `name` of `group` stands for.

    Raises UnknownPlugin where there is none.
    """
    for point in entry_points(group=group):
        if point.name == name:
            return point.load()
    known = ", ".join(names(group)) or "none installed"
    raise UnknownPlugin(f"{group}: expected one of {known}; got {name!r}")
