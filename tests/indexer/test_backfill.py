from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer import backfill
from indexer.backfill import blocks, gap_end, records
from indexer.source import Served, Source
from nektar.chain.abi import load
from nektar.model import Address
from tests.indexer.rules import rows
from tests.indexer.world import ABI, CHAIN_ID, CONTRACT, Chain, Node

CONTRACTS = {Address(CONTRACT): load(ABI)}


class Counted(Source):
    """A source that takes its time, and counts who waits for it."""

    def __init__(self, node: Node) -> None:
        super().__init__([node], CHAIN_ID)  # type: ignore[list-item]
        self.now = self.most = 0
        self.rng = random.Random(3)

    async def block(self, number: int, *, settled: bool) -> Served | None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            for _ in range(self.rng.randint(0, 5)):
                await asyncio.sleep(0)
            return await super().block(number, settled=settled)
        finally:
            self.now -= 1


def chain_of(length: int) -> Chain:
    chain = Chain(random.Random(1))
    chain.mine(length - 1)
    return chain


def test_blocks_come_in_order_however_late_each_is_and_a_bounded_number_is_asked_for() -> None:
    source = Counted(Node("a", chain_of(60), random.Random(2), in_flight=5))

    async def all_of_them() -> list[int]:
        return [served.proved.number async for served in blocks(source, 3, 55, settled=False)]

    assert asyncio.run(all_of_them()) == list(range(3, 56))
    assert source.most == 5
    assert source.now == 0


def test_blocks_end_where_there_is_none_and_nothing_is_left_asked_for() -> None:
    source = Counted(Node("a", chain_of(20), random.Random(2), in_flight=8))

    async def all_of_them() -> int:
        return len([served async for served in blocks(source, 0, 40, settled=False)])

    assert asyncio.run(all_of_them()) == 20
    assert source.now == 0


class Holes:
    """A source that serves all but some numbers."""

    def __init__(self, absent: range) -> None:
        self.absent = absent
        self.asked = 0

    async def served(self, number: int) -> bool:
        self.asked += 1
        return number not in self.absent


@given(st.integers(0, 10**8), st.integers(1, 10**7), st.integers(0, 10**7))
def test_a_gap_is_exactly_the_blocks_that_are_absent(first: int, length: int, served: int) -> None:
    source = Holes(range(first, first + length))
    found = asyncio.run(gap_end(source, first, first + length + served))  # type: ignore[arg-type]
    assert found == first + length - 1
    assert source.asked < 60


def test_records_are_cut_until_their_tables_fit_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = chain_of(40)
    source = Source([Node("a", chain, random.Random(2))], CHAIN_ID)  # type: ignore[list-item]

    async def all_of_them() -> list[Served]:
        return [served async for served in blocks(source, 0, 39, settled=False)]

    batch = asyncio.run(all_of_them())
    (whole,), _ = records(CONTRACTS, batch)
    monkeypatch.setattr(backfill, "PART_BYTES", 14_000)
    cut, _ = records(CONTRACTS, batch)
    assert len(cut) > 2
    assert tuple(b for new in cut for b in new.blocks) == whole.blocks
    parts = rows({})
    for new in cut:
        parts += rows(new.tables)
    assert parts == rows(whole.tables)
