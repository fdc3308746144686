"""Real blocks that nobody here wrote, from the corpora; and how a test alters them."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

FOLDER = Path(os.environ.get("NEKTAR_CORPORA") or Path(__file__).parents[4] / "shared" / "corpora") / "chain"

Path_ = tuple[str | int, ...]


class Given(NamedTuple):
    """What a provider answers of one block."""

    name: str
    block: dict[str, Any]
    receipts: list[dict[str, Any]]


@cache
def corpora() -> tuple[Given, ...]:
    """Every block of the corpora, in the order of the files' names; skips the test where there are none."""
    files = sorted(FOLDER.glob("*.json.gz"))
    if not files:
        pytest.skip(f"needs corpora: no blocks in {FOLDER}; name their folder in NEKTAR_CORPORA")
    found = []
    for file in files:
        with gzip.open(file) as stream:
            content = json.load(stream)
        for each in content.get("blocks") or [content]:
            name = f"{file.name.split('.')[0]}:{int(each['block']['number'], 16)}"
            found.append(Given(name, each["block"], each["receipts"]))
    return tuple(found)


def values_in(given: Given) -> Iterator[tuple[Path_, Any]]:
    """Everything that the provider said, whole and in parts, and where it stands."""
    yield from _values_in(given.block, ("block",))
    yield from _values_in(given.receipts, ("receipts",))


def _values_in(value: Any, path: Path_) -> Iterator[tuple[Path_, Any]]:
    yield path, value
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _values_in(each, (*path, key))


def put(given: Given, path: Path_, value: Any) -> Given:
    """`given` with `value` at `path`; what is not on the way there is shared."""
    return given._replace(**{str(path[0]): _put(getattr(given, str(path[0])), path[1:], value)})


def _put(holder: Any, path: Path_, value: Any) -> Any:
    if not path:
        return value
    copied = holder.copy()
    copied[path[0]] = _put(holder[path[0]], path[1:], value)
    return copied
