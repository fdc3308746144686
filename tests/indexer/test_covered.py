"""Of every byte that a root covers, every change is caught; and what no root covers is never taken."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from indexer import prove as proving
from indexer.prove import Contradiction, prove
from nektar.chain.receipt import read_receipt
from nektar.chain.transaction import read_transaction
from tests.nektar.chain.blocks import Given, Path_, corpora, put, values_in
from tests.nektar.chain.covered import changes, covered, cuts, is_covered

# Bytes that roots cover: a block below it is tried at each of them, a larger one at so many.
LARGE = 200_000
SAMPLE = 400
DESIGN = Path(__file__).parents[2] / "docs" / "DESIGN.md"

Changes = Callable[[Given, float, random.Random], Iterator[tuple[Path_, Given]]]


@contextmanager
def remembering(given: Given, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the block's own objects encode to is computed once: a change makes anew only those it is in."""

    def remembered(read: Callable[[Any], Any], objects: Sequence[Any]) -> Callable[[Any], Any]:
        known = {id(each): read(each) for each in objects}  # they live as long as `given`
        return lambda each: known.get(id(each)) or read(each)

    with monkeypatch.context() as patched:
        for name, read, objects in (
            ("read_transaction", read_transaction, given.block["transactions"]),
            ("read_receipt", read_receipt, given.receipts),
        ):
            patched.setattr(proving, name, remembered(read, objects))
        yield


class Tried(NamedTuple):
    """How many changes were tried, and those of which nobody noticed anything."""

    count: int
    uncaught: list[tuple[str, Path_]]


def tried(make: Changes, share: float, seed: int, monkeypatch: pytest.MonkeyPatch) -> Tried:
    rng, count, uncaught = random.Random(seed), 0, list[tuple[str, Path_]]()
    for given in corpora():
        total = sum(value.size for value in covered(given))
        of_it = share if total < LARGE else share * SAMPLE / total
        with remembering(given, monkeypatch):
            for path, told in make(given, of_it, rng):
                count += 1
                try:
                    prove(told.block, told.receipts)
                except Contradiction:
                    continue
                uncaught.append((given.name, path))
    return Tried(count, uncaught)


def cut(given: Given, share: float, rng: random.Random) -> Iterator[tuple[Path_, Given]]:
    for each in cuts(given):
        if rng.random() < share:
            yield each


@pytest.mark.parametrize(("make", "share"), [(changes, 0.012), (cut, 0.1)])
def test_a_change_is_caught_wherever_a_root_covers_it(
    make: Changes, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seeded share of what `make prove` tries."""
    count, uncaught = tried(make, share, 20_261_127, monkeypatch)
    assert not uncaught
    assert count > 1_500


@pytest.mark.slow
@pytest.mark.parametrize("make", [changes, cut])
def test_every_change_is_caught_wherever_a_root_covers_it(
    make: Changes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    count, uncaught = tried(make, 1.0, 5, monkeypatch)
    with capsys.disabled():
        seconds = time.monotonic() - started
        print(f"\n{make.__name__}: {count} tried, {count - len(uncaught)} caught, {seconds:.0f} s")
    assert not uncaught


# --- what no root covers ---


def documented() -> dict[str, str]:
    """The table of docs/DESIGN.md: what is done about each field that no root covers."""
    rows = re.findall(r"^\| `([a-z]\S+)` \| (compared|not taken)\b", DESIGN.read_text("utf-8"), re.MULTILINE)
    return dict(rows)


def pattern(path: Path_) -> str:
    """Where it stands in the answers, whatever the index."""
    return ".".join("[]" if isinstance(key, int) else key for key in path).replace(".[]", "[]")


def test_what_no_root_covers_is_compared_or_not_taken() -> None:
    rng, known, seen = random.Random(9), documented(), set()
    for given in corpora():
        if "large" in given.name:
            continue
        honest = prove(given.block, given.receipts)
        uncovered: dict[str, list[tuple[Path_, str]]] = {}
        for path, value in values_in(given):
            if isinstance(value, str) and not is_covered(given, path):
                name = pattern(path)
                assert name in known, f"{name}: no row in docs/DESIGN.md says what is done about it"
                uncovered.setdefault(name, []).append((path, value))
        for name, places in uncovered.items():
            seen.add(name)
            path, value = rng.choice(places)
            at = rng.randrange(2, len(value))
            digit = rng.choice([each for each in "0123456789abcdef" if each != value[at]])
            told = put(given, path, value[:at] + digit + value[at + 1 :])
            if known[name] == "compared":
                with pytest.raises(Contradiction):
                    prove(told.block, told.receipts)
            else:
                assert prove(told.block, told.receipts) == honest, path
    assert set(known) - seen <= {"block.totalDifficulty", "receipts[].logs[].removed"}, "rows of nothing"
