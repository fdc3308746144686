"""Providers that don't agree: nobody honest is named or left for good; a liar is, where that can be told."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from indexer import follow
from indexer.reconcile import ReorgBelowFinality
from nektar.bus.sqlite import SqliteBus
from nektar.chain.rpc import Call
from tests.indexer import rules
from tests.indexer.test_quorum import Indexer, Teller, hashes, invented, node
from tests.indexer.world import Chain, Made, make

pytestmark = pytest.mark.usefixtures("hurry")


class Forging(Teller):
    """A provider that has some blocks of its own, each on the one before, and nothing right after them; and
    that does not answer for some blocks."""

    def __init__(self, *of: Any) -> None:
        super().__init__(*of)
        self.forged, self.withheld_after = range(0), 0
        self.fails_for = range(0)
        self.calls_final: Chain | None = None  # whose block it is that it calls so
        self._forgeries: dict[int, Made] = {}

    @property
    def shown(self) -> tuple[list[Any], int, int]:
        blocks, safe, finalized = super().shown
        told: list[Made] = list(blocks)
        for number in self.forged:
            made = self._forgeries.get(number) or make(number, told[number - 1].hash, b"forged", 1)
            self._forgeries[number] = told[number] = made
        return told, safe, finalized

    def _find(self, which: str) -> Made | None:
        made = super()._find(which)
        if which == "finalized" and made is not None and self.calls_final is not None:
            return self.calls_final.blocks[made.number]
        hidden = range(self.forged.stop, self.forged.stop + self.withheld_after)
        return None if made is not None and made.number in hidden and which.startswith("0x") else made

    def _by_hash(self, text: str) -> Made | None:
        mine = {"0x" + made.hash.hex(): made for made in self._forgeries.values()}
        return mine.get(text) or super()._by_hash(text)

    def numbers(self, calls: Sequence[Call]) -> set[int]:
        firsts = [call.params[0] for call in calls if call.params]
        return {
            int(each, 16)
            for each in firsts
            if isinstance(each, str) and each.startswith("0x") and len(each) < 66
        }

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        was = self.fails
        self.fails = 1.0 if self.numbers(calls) & set(self.fails_for) else was
        try:
            return await super().batch(calls)
        finally:
            self.fails = was


def named(indexer: Indexer) -> set[str]:
    return {name for name, _ in rules.named(indexer.bus, "net")}


def forging(chain: Chain, first: int, last: int, withheld_after: int = 0) -> Forging:
    liar = Forging("liar", chain, random.Random(3))
    liar.forged, liar.withheld_after = range(first, last + 1), withheld_after
    return liar


@pytest.mark.parametrize("others", [("honest",), ("honest", "other")])
@pytest.mark.parametrize("anchor", ["single", "quorum"])
@pytest.mark.parametrize("seed", range(8))
def test_forged_blocks_in_the_midst_of_a_chain_are_laid_to_nobody_honest_and_hold_nobody_up(
    seed: int, anchor: str, others: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is another provider that serves what comes after them, and none of them is its parent."""
    rng = random.Random(seed)
    monkeypatch.setattr(follow, "STANDSTILL", 0.0)
    monkeypatch.setattr(follow, "BLOCKS_A_RECORD", rng.choice([4, 64]))
    chain = Chain(random.Random(seed))
    chain.mine(60)
    first = rng.randint(1, 50)
    liar = forging(chain, first, first + rng.randint(0, 2), rng.randint(0, 3))
    nodes = [liar, *(node(chain, name) for name in others)]
    anchor = anchor if anchor == "single" else f"quorum {len(nodes) // 2 + 1}/{len(nodes)}"
    with SqliteBus(tmp_path / "bus") as bus, Indexer(bus, nodes, anchor) as indexer:
        indexer.look(8)
        assert indexer.hashes == hashes(chain)
        assert named(indexer) == {"liar"}
        assert {ref.hash for ref in indexer.finals} <= set(hashes(chain))


def test_a_forged_block_and_nothing_after_it_is_laid_to_who_served_it_once_the_chain_is_final_above(
    bus: SqliteBus, chain: Chain
) -> None:
    nodes = [forging(chain, 20, 20, withheld_after=3), node(chain, "honest")]
    with Indexer(bus, nodes, "single") as indexer:
        indexer.look()
        assert "provider honest: block 21 0x" in str(indexer.errors[0])
        assert "of provider liar" in str(indexer.errors[0])
        assert named(indexer) == set(), "it may be honest's chain that is none"
        indexer.look(2)
        assert indexer.hashes == hashes(chain)
        assert named(indexer) == {"liar"}


def test_who_is_a_block_apart_in_a_chain_that_somebody_else_calls_final_is_not_named(
    bus: SqliteBus, chain: Chain
) -> None:
    """The liar calls everything final, and an honest provider serves what a reorg then takes away."""
    liar, honest = Forging("liar", chain, random.Random(1)), node(chain, "honest")
    liar.boasts, liar.fails_for = True, range(1, 100)
    turns = [lambda: chain.reorg(4, 6)]

    class Turning(Teller):
        async def batch(self, calls: Sequence[Call]) -> list[Any]:
            if turns and any(call.params[0] == hex(58) for call in calls if call.params):
                turns.pop()()
            return await super().batch(calls)

    honest.__class__ = Turning
    honest.limits = type(honest.limits)(in_flight=1)
    with Indexer(bus, [liar, honest], "single") as indexer:
        indexer.look(4)
        assert not turns
        assert "it is no child of" in str(indexer.errors)
        assert named(indexer) <= {"liar"}
        liar.boasts, liar.fails_for = False, range(0)
        indexer.look(4)
        assert indexer.hashes == hashes(chain)
        assert named(indexer) <= {"liar"}


@pytest.mark.parametrize("is_alone", [True, False])
@pytest.mark.parametrize(
    "is_there", [True, False], ids=["where the log has one", "where the log has none yet"]
)
def test_another_block_that_is_called_final_is_laid_to_who_calls_it_so(
    bus: SqliteBus, chain: Chain, is_alone: bool, is_there: bool
) -> None:
    liar, honest = Forging("liar", chain, random.Random(1)), node(chain, "honest")
    with Indexer(bus, [liar] if is_alone else [liar, honest], "single") as indexer:
        if is_there:
            indexer.look()
        liar.calls_final = invented()
        indexer.look(4)
        assert named(indexer) == {"liar"}
        assert is_there or is_alone or indexer.hashes == hashes(chain)
        liar.calls_final = None
        chain.mine(3)
        indexer.look(2)
        assert indexer.hashes == hashes(chain)
        assert indexer.finals[-1].number == chain.finalized


def test_a_block_that_somebody_else_calls_another_is_not_laid_to_who_serves_it(
    bus: SqliteBus, chain: Chain
) -> None:
    liar, honest = Forging("liar", chain, random.Random(1)), node(chain, "honest")
    liar.calls_final, liar.fails_for = invented(), range(1, 60)
    with Indexer(bus, [liar, honest], "single") as indexer:
        indexer.look()
        assert "is called finalized by provider liar" in str(indexer.errors[0])
        indexer.look(2)
        assert indexer.hashes == hashes(chain)
        assert named(indexer) == set()


def test_where_the_log_is_of_one_who_lied_nobody_is_named_who_has_another_final_block(
    bus: SqliteBus, chain: Chain
) -> None:
    liar, honest = node(invented(60), "liar"), node(chain, "honest")
    with Indexer(bus, [liar, honest], "single") as indexer:
        indexer.look(2)
        assert indexer.finals
        liar.fails = 1.0
        indexer.look(4)
        assert named(indexer) == set(), "it is one's word against the other's"
        liar.fails, liar.chain = 0.0, chain
        with pytest.raises(ReorgBelowFinality):
            indexer.look(4 * follow.SIGHTINGS)
        assert named(indexer) == {"liar"}, "who had called another one final itself"


def test_a_reorg_deeper_than_a_depth_that_is_no_providers_word_is_laid_to_nobody(
    bus: SqliteBus, chain: Chain
) -> None:
    nodes = [node(chain, "a"), node(chain, "b")]
    for each in nodes:
        each.untagged = "null"
    with Indexer(bus, nodes, "single", depth=8) as indexer:
        indexer.look(2)
        assert indexer.finals[-1].number == 52
        chain.reorg(20, 25)
        with pytest.raises(ReorgBelowFinality):
            indexer.look(4 * follow.SIGHTINGS)
        assert named(indexer) == set()


@pytest.mark.parametrize("seed", range(6))
def test_under_a_quorum_who_was_down_during_a_reorg_and_catches_up_while_it_is_asked_is_not_named(
    bus: SqliteBus, seed: int
) -> None:
    """It is asked first, and serves a block that the others had taken back before it served the next."""
    chain = Chain(random.Random(seed))
    chain.mine(60)

    class Late(Teller):
        until = hex(57 + seed // 2)

        async def batch(self, calls: Sequence[Call]) -> list[Any]:
            answers = await super().batch(calls)
            if any(call.params[:1] == (self.until,) for call in calls):
                self.catch_up()
            return answers

    late = Late("late", chain, random.Random(9), in_flight=1 + seed % 2)
    late.fall_behind(0)
    chain.reorg(2, 40)
    with Indexer(bus, [late, node(chain, "a"), node(chain, "b")], "quorum 2/3") as indexer:
        indexer.look(4)
        assert indexer.hashes == hashes(chain)
        assert named(indexer) == set()
