"""Below a pinned block nothing is taken but its ancestors, whatever providers say."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from indexer import follow, pin
from indexer.headers import Link
from indexer.pin import Pin
from nektar.bus.sqlite import SqliteBus
from nektar.chain.rpc import Call
from nektar.model import BlockRef, Hash32
from tests.indexer.rules import Reading
from tests.indexer.test_quorum import Indexer, Teller, hashes, invented, node
from tests.indexer.world import Chain, Made, make

pytestmark = pytest.mark.usefixtures("hurry")


def pinned(chain: Chain, number: int) -> str:
    return f"pinned {number} 0x{chain.blocks[number].hash.hex()}"


class Forging(Teller):
    """A provider that has blocks of its own in some places of a chain, linked to the one before, each to the
    next, and to nothing after."""

    def __init__(self, *of: Any) -> None:
        super().__init__(*of)
        self.forged: Sequence[int] = ()

    @property
    def shown(self) -> tuple[list[Any], int, int]:
        blocks, safe, finalized = super().shown
        told: list[Made] = list(blocks)
        for number in self.forged:
            told[number] = make(number, told[number - 1].hash, b"forged", 1)
        return told, safe, finalized


def named(indexer: Indexer) -> set[str]:
    return {name for name, *_ in indexer.source.dissents._said}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("others", [(), ("honest",)], ids=["alone", "with an honest second provider"])
def test_nothing_but_its_ancestors_is_ever_on_the_log_and_who_serves_another_is_named(
    seed: int, others: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(follow, "SETTLED_DEPTH", rng.choice([8, 1024]))
    monkeypatch.setattr(follow, "BLOCKS_A_RECORD", rng.choice([4, 64]))
    monkeypatch.setattr(pin, "STRETCH", rng.choice([4, 16, 2048]))
    monkeypatch.setattr(pin, "HELD", rng.choice([2, 512]))
    chain = Chain(random.Random(seed))
    chain.mine(60)
    at = rng.randint(10, 58)
    first = rng.randint(1, at - 1)
    liar = Forging("liar", chain, rng)
    liar.forged = range(first, rng.randint(first, at - 1) + 1)
    nodes = [liar, *(node(chain, name) for name in others)]
    with SqliteBus(tmp_path / "bus") as bus, Indexer(bus, nodes, pinned(chain, at)) as indexer:
        for _ in range(4):
            indexer.look()
            blocks = Reading(indexer.written).blocks
            assert [block.hash for block in blocks] == hashes(chain)[: len(blocks)]
            assert {block.anchor for block in blocks if block.number <= at} <= {"pinned"}
        assert named(indexer) == {"liar"}
        if others:
            assert indexer.hashes == hashes(chain)
            return
        assert len(indexer.hashes) < first
        liar.forged = ()
        indexer.look()
        assert indexer.hashes == hashes(chain)


@pytest.mark.parametrize(
    "told",
    [
        lambda liar: liar.fall_behind(45),  # to below the pin, and to what the log calls final
        lambda liar: setattr(liar, "chain", invented()),
        lambda liar: setattr(liar, "final_at", 3),
        lambda liar: setattr(liar, "untagged", "null"),
        lambda liar: setattr(liar, "forged", range(5, 30)),
        lambda liar: setattr(liar, "lies", 1.0),
    ],
    ids=["behind", "another chain", "final far below", "no tags", "forged", "contradicting headers"],
)
def test_whatever_a_lone_provider_says_of_a_chain_that_is_pinned_stops_nothing(
    bus: SqliteBus, chain: Chain, told: Callable[[Forging], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a backfill, where the log's final block is below the pin."""
    monkeypatch.setattr(follow, "SETTLED_DEPTH", 8)
    monkeypatch.setattr(follow, "BLOCKS_A_RECORD", 4)
    liar = Forging("liar", chain, random.Random(3))
    liar.withheld = set(range(21, 61))
    calls = 0

    async def fails_soon(batch: Any, calls_: Sequence[Call]) -> Any:
        nonlocal calls
        calls += 1
        liar.fails = 1.0 if calls > 40 else 0.0
        return await batch(calls_)

    monkeypatch.setattr(Forging, "batch", lambda self, calls_: fails_soon(super(Forging, self).batch, calls_))
    with Indexer(bus, [liar], pinned(chain, 40)) as indexer:
        indexer.look()
        assert indexer.finals
        assert 0 < indexer.finals[-1].number < len(indexer.hashes) < 40
        liar.withheld, calls = set(), -1_000_000
        told(liar)
        indexer.look(3 * follow.SIGHTINGS)
        assert indexer.hashes == hashes(chain)[: len(indexer.hashes)]
        honest = Forging("liar", chain, random.Random(3))
        liar.__dict__.update(honest.__dict__)
        indexer.look(2)
        assert indexer.hashes == hashes(chain)


def test_blocks_up_to_the_pin_are_final_whatever_is_called_so(bus: SqliteBus, chain: Chain) -> None:
    untagged = node(chain, "a")
    untagged.untagged = "error"
    with Indexer(bus, [untagged], pinned(chain, 40)) as indexer:
        indexer.look(2)
        assert indexer.finals[-1] == BlockRef(40, Hash32(chain.blocks[40].hash))
        assert indexer.hashes == hashes(chain)


def test_who_does_not_serve_the_pinned_block_is_not_believed(bus: SqliteBus, chain: Chain) -> None:
    liar, honest = node(invented(), "liar"), node(chain, "honest")
    liar.unpruned = 50
    honest.fails = 1.0
    with Indexer(bus, [liar, honest], pinned(chain, 40)) as indexer:
        indexer.look(4)
        assert not indexer.written
        honest.fails = 0.0
        indexer.look()
        assert indexer.hashes == hashes(chain)


def test_where_nobody_has_a_header_nothing_below_it_is_taken(bus: SqliteBus, chain: Chain) -> None:
    """Also the genesis block, which such a provider has: it could be another's."""
    pruned = node(chain, "pruned")
    pruned.unpruned = 20
    with Indexer(bus, [pruned], pinned(chain, 40)) as indexer:
        indexer.look(2)
        assert not indexer.written
        assert "docs/RUNBOOK.md#no-header-below-a-pinned-block" in str(indexer.errors[-1])
        assert str(indexer.errors[-1]).startswith("provider pruned: block 19: it has no header")
        pruned.unpruned = 0
        indexer.look()
        assert indexer.hashes == hashes(chain)


def test_a_provider_whose_headers_contradict_themselves_keeps_nobody_from_starting(
    bus: SqliteBus, chain: Chain
) -> None:
    liar, honest = node(chain, "liar"), node(chain, "honest")
    liar.lies = 1.0
    with Indexer(bus, [liar, honest], pinned(chain, 40)) as indexer:
        indexer.runner.run(indexer.source.check_chain())
        indexer.runner.run(indexer.source.without_code(sorted(honest.contracts), 0))
        indexer.look(2)
        assert indexer.hashes == hashes(chain)
        assert named(indexer) == {"liar"}


def test_a_restart_goes_on_below_the_pin(tmp_path: Path, chain: Chain) -> None:
    copied = copy.deepcopy(chain)
    flaky = node(chain, "a")
    with SqliteBus(tmp_path / "bus") as bus:
        for _ in range(40):
            flaky.fails = 0.1
            with Indexer(bus, [flaky], pinned(copied, 55)) as indexer:
                indexer.look()
        flaky.fails = 0.0
        with Indexer(bus, [flaky], pinned(copied, 55)) as indexer:
            indexer.look(2)
            assert indexer.hashes == hashes(chain)


# --- by itself ---


def link(number: int) -> Link:
    return Link(number, Hash32(number.to_bytes(32)), Hash32(max(0, number - 1).to_bytes(32)))


class Read:
    """What was read, of a chain of numbers."""

    def __init__(self) -> None:
        self.headers = 0

    async def links(self, first: int, top: BlockRef) -> list[Link]:
        assert top == link(top.number).ref
        self.headers += top.number - first + 1
        return [link(number) for number in range(first, top.number + 1)]


@pytest.mark.parametrize("seed", range(20))
def test_an_ancestor_is_known_whichever_was_asked_for_before(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, read = random.Random(seed), Read()
    monkeypatch.setattr(pin, "STRETCH", rng.randint(1, 9))
    monkeypatch.setattr(pin, "HELD", rng.randint(1, 4))
    at = rng.randint(0, 60)
    known = Pin("net", link(at).ref, 1, read.links)

    async def ask() -> None:
        for _ in range(30):
            number = rng.randint(0, at)
            assert await known.ancestor(number) == link(number).hash
            assert len(known._held) <= pin.HELD
        assert await known.ancestor(at + 1) is None

    asyncio.run(ask())


@pytest.mark.parametrize(("first", "held", "times"), [(0, 512, 1), (3, 512, 1), (0, 2, 2)])
def test_each_header_is_read_once_or_twice_where_there_are_very_many(
    first: int, held: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pin, "STRETCH", 10)
    monkeypatch.setattr(pin, "HELD", held)
    read = Read()
    known = Pin("net", link(205).ref, 1, read.links)

    async def ask() -> None:
        for number in range(first, 206):
            # As a backfill does, several at once.
            found = await asyncio.gather(*(known.ancestor(min(205, number + more)) for more in range(4)))
            assert found[0] == link(number).hash

    asyncio.run(ask())
    assert (times - 1) * 180 <= read.headers - (206 - first) <= (times - 1) * 206
