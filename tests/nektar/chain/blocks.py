"""Real blocks that nobody here wrote, from the corpora; and what a lie in one looks like."""

from __future__ import annotations

import copy
import gzip
import json
import os
import random
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


def lies(given: Given, rng: random.Random, count: int) -> Iterator[tuple[Path_, Given]]:
    """`count` versions of `given` with one hex digit of one value changed, and where."""
    places = [("block", *path) for path in _hex_values(given.block)]
    places += [("receipts", *path) for path in _hex_values(given.receipts)]
    for path in rng.sample(places, min(count, len(places))):
        told = given._replace(**{str(path[0]): copy.deepcopy(getattr(given, str(path[0])))})
        holder: Any = getattr(told, str(path[0]))
        for step in path[1:-1]:
            holder = holder[step]
        value = holder[path[-1]]
        at = rng.randrange(2, len(value))
        digit = rng.choice([d for d in "0123456789abcdef" if d != value[at].lower()])
        holder[path[-1]] = value[:at] + digit + value[at + 1 :]
        yield path, told


def _hex_values(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _hex_values(each, (*path, key))
    elif isinstance(value, list):
        for i, each in enumerate(value):
            yield from _hex_values(each, (*path, i))
    elif isinstance(value, str) and value.startswith("0x") and len(value) > 2:
        yield path
