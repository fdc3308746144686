"""What makes blocks canonical: invented forks, false tags and pins, with one provider and with several."""

from __future__ import annotations

import asyncio
import copy
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from indexer import follow, quorum
from indexer.follow import Follower
from indexer.pin import NotPinned
from indexer.prove import Contradiction
from indexer.reconcile import ReorgBelowFinality
from indexer.source import Source
from indexer.writer import NetworkLog
from nektar.bus.sqlite import SqliteBus
from nektar.chain.abi import load
from nektar.chain.anchor import parse
from nektar.chain.rpc import Call, RpcError
from nektar.config import NetworkConfig
from nektar.health import Health
from nektar.log import Mark, Record
from nektar.model import Address, BlockRef
from tests.indexer.rules import Reading, records
from tests.indexer.world import ABI, CHAIN_ID, CONTRACT, Chain, Node
from tests.spans import Counted

pytestmark = pytest.mark.usefixtures("hurry")


class Teller(Node):
    """A provider that may call its head final, or nothing above some block, or never answer."""

    boasts = False
    hangs = False
    final_at: int | None = None

    @property
    def shown(self) -> tuple[list[Any], int, int]:
        blocks, safe, finalized = super().shown
        if self.final_at is not None:
            safe, finalized = min(safe, self.final_at), min(finalized, self.final_at)
        return (blocks, blocks[-1].number, blocks[-1].number) if self.boasts else (blocks, safe, finalized)

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        if self.hangs:
            await asyncio.Event().wait()
        return await super().batch(calls)


class Indexer:
    """An indexer of one Network with an anchor, that a test makes look."""

    def __init__(self, bus: SqliteBus, nodes: Sequence[Node], anchor: str, depth: int = 0) -> None:
        self.bus = bus
        self.log = NetworkLog(bus, NetworkConfig("net", CHAIN_ID, ("a",), {}), b"f" * 32)
        self.source = Source(nodes, CHAIN_ID, parse(anchor, len(nodes)), "net", depth)  # type: ignore[arg-type]
        contracts = {Address(CONTRACT): load(ABI)}
        self.health = Health()
        self.follower = Follower(self.log, self.source, contracts, 0.0, self.health)
        self.runner = asyncio.Runner()
        self.errors: list[Exception] = []

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            try:
                self.runner.run(self.follower.look())
            except (RpcError, Contradiction) as error:
                self.errors.append(error)

    @property
    def written(self) -> list[Record]:
        return records(self.bus, "net")

    @property
    def finals(self) -> list[BlockRef]:
        """All that was ever called final, in order."""
        return [record.finalized for record in self.written if isinstance(record, Mark)]

    @property
    def hashes(self) -> list[bytes]:
        return [block.hash for block in Reading(self.written).blocks]

    def __enter__(self) -> Indexer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.runner.run(self.source.close())
        self.log.close()
        self.runner.close()


def node(chain: Chain, name: str) -> Teller:
    return Teller(name, chain, random.Random(name))


def invented(blocks: int = 70) -> Chain:
    """Another chain, consistent from its genesis on."""
    fork = Chain(random.Random(2))
    fork.mine(blocks)
    return fork


def hashes(chain: Chain) -> list[bytes]:
    return [made.hash for made in chain.blocks]


def test_a_lone_providers_invented_fork_is_believed_and_its_anchor_says_whose_word_it_is(
    bus: SqliteBus, chain: Chain
) -> None:
    with Indexer(bus, [node(invented(), "liar")], "single") as indexer:
        indexer.look(3)
        assert not set(indexer.hashes[1:]) & set(hashes(chain))
        assert {block.anchor for block in Reading(indexer.written).blocks} == {"single:liar"}


def test_an_invented_fork_of_one_of_three_is_caught_by_two(
    bus: SqliteBus, chain: Chain, caplog: pytest.LogCaptureFixture, counted: Counted
) -> None:
    fork = invented()
    nodes = [node(fork, "liar"), node(chain, "b"), node(chain, "c")]
    with Indexer(bus, nodes, "quorum 2/3") as indexer:
        indexer.look(6)
        assert indexer.hashes == hashes(chain)
        assert indexer.finals
        assert {ref.hash for ref in indexer.finals} <= set(hashes(chain))
        assert indexer.finals[-1].number == chain.finalized
        assert {block.anchor for block in Reading(indexer.written).blocks} == {"quorum 2/3"}
    assert "net: finalized block 55: quorum 2/3 agree: b has 0x" in caplog.text
    assert f"liar has 0x{fork.blocks[55].hash.hex()}" in caplog.text
    assert counted("nektar.anchor.dissents")[("liar",)] >= 1


def test_a_fork_of_which_nothing_is_called_final_is_left_once_two_of_three_call_another_block_so(
    bus: SqliteBus, chain: Chain
) -> None:
    fork = copy.deepcopy(chain)
    fork.reorg(1, 12)
    chain.mine(2)
    assert fork.blocks[chain.head].hash != chain.blocks[chain.head].hash
    nodes = [node(fork, "liar"), node(chain, "b"), node(chain, "c")]
    nodes[0].final_at = chain.finalized
    with Indexer(bus, nodes, "quorum 2/3") as indexer:
        indexer.look(3)
        assert indexer.hashes == hashes(fork), "nothing says yet that it is none"
        chain.mine(8)
        fork.mine(1)
        indexer.look(4)
        assert indexer.hashes == hashes(chain)
        assert {ref.hash for ref in indexer.finals} <= set(hashes(chain))
        assert indexer.finals[-1].number == chain.finalized


def test_a_backfill_of_an_invented_fork_calls_none_of_it_final_on_the_way(
    bus: SqliteBus, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "SETTLED_DEPTH", 10)
    monkeypatch.setattr(follow, "BLOCKS_A_RECORD", 8)
    nodes = [node(invented(), "liar"), node(chain, "b"), node(chain, "c")]
    nodes[0].fall_behind(1)
    with Indexer(bus, nodes, "quorum 2/3") as indexer:
        indexer.source.pool.turn_from("b")
        indexer.source.pool.turn_from("c")
        indexer.look(8)
        assert {ref.hash for ref in indexer.finals} <= set(hashes(chain))
        assert indexer.hashes == hashes(chain)
        assert len(indexer.finals) > 3, "what is far below is called final on the way"


def test_a_false_tag_of_one_of_three_is_caught_by_two(bus: SqliteBus, chain: Chain) -> None:
    nodes = [node(chain, "liar"), node(chain, "b"), node(chain, "c")]
    nodes[0].boasts = True
    with Indexer(bus, nodes, "quorum 2/3") as indexer:
        indexer.look(3)
        assert indexer.finals[-1] == BlockRef(chain.finalized, chain.blocks[chain.finalized].hash)
        chain.reorg(4, 6)
        indexer.look(3)
        assert indexer.hashes == hashes(chain)


def test_a_false_tag_of_a_lone_provider_ends_its_network(bus: SqliteBus, chain: Chain) -> None:
    liar = node(chain, "liar")
    liar.boasts = True
    with Indexer(bus, [liar], "single") as indexer:
        indexer.look(2)
        assert indexer.finals[-1].number == chain.head
        chain.reorg(4, 6)
        with pytest.raises(ReorgBelowFinality):
            indexer.look(follow.SIGHTINGS)


def test_one_of_three_that_is_down_or_behind_changes_nothing(bus: SqliteBus, chain: Chain) -> None:
    nodes = [node(chain, "a"), node(chain, "b"), node(chain, "c")]
    with Indexer(bus, nodes, "quorum 2") as indexer:
        nodes[0].fails = 1.0
        indexer.look(3)
        assert indexer.finals[-1].number == chain.finalized
        nodes[0].fails = 0.0
        nodes[1].fall_behind(20)
        chain.mine(5)
        indexer.look(3)
        assert indexer.finals[-1].number == chain.finalized


def test_without_a_quorum_finality_stands_still_and_blocks_do_not(
    bus: SqliteBus, chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [node(chain, "a"), node(chain, "b"), node(chain, "c")]
    with Indexer(bus, nodes, "quorum 2/3") as indexer:
        indexer.look(2)
        before = indexer.finals[-1]
        nodes[1].fails = nodes[2].fails = 1.0
        chain.mine(5)
        indexer.look(3)
        assert indexer.finals[-1] == before
        assert indexer.hashes == hashes(chain)
        nodes[1].fails = 0.0
        indexer.look(2)
        assert indexer.finals[-1].number == chain.finalized


def test_two_that_dissent_are_both_named_and_nothing_is_final(
    bus: SqliteBus, chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    fork = invented(60)
    with Indexer(bus, [node(chain, "a"), node(fork, "b")], "quorum 2/2") as indexer:
        indexer.look(3)
        assert not indexer.finals
        assert indexer.hashes == hashes(chain)
    (line,) = [
        record for record in caplog.records if record.name == "indexer.quorum" and "55" in record.message
    ]
    assert line.levelno == logging.ERROR
    assert line.message == (
        f"net: finalized block 55: fewer than 2 agree: a has 0x{chain.blocks[55].hash.hex()}, "
        f"b has 0x{fork.blocks[55].hash.hex()}"
    )


def test_a_slow_witness_delays_finality_and_no_block(
    bus: SqliteBus, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quorum, "MOMENT", 0.01)
    monkeypatch.setattr(quorum, "PATIENCE", 0.2)
    nodes = [node(chain, "a"), node(chain, "b"), node(chain, "c")]
    nodes[2].hangs = True
    with Indexer(bus, nodes, "quorum 2/3") as indexer:
        indexer.look()
        assert indexer.hashes == hashes(chain)
        assert not indexer.finals

        async def until_they_agree() -> None:
            witnesses = indexer.source._witnesses
            assert witnesses is not None
            assert witnesses._round is not None
            await witnesses._round

        indexer.runner.run(until_they_agree())
        indexer.look()
        assert indexer.finals[-1].number == chain.finalized


@pytest.mark.parametrize("seed", range(20))
def test_nothing_but_the_chains_blocks_becomes_final_whatever_one_of_three_says(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(follow, "SETTLED_DEPTH", rng.choice([8, 1024]))
    monkeypatch.setattr(follow, "BLOCKS_A_RECORD", rng.choice([4, 64]))
    chain, fork = Chain(random.Random(seed)), invented(120)
    chain.mine(rng.randint(5, 60))
    nodes = [node(chain, name) for name in "abc"]
    liar = rng.choice(nodes)
    final: set[bytes] = set()
    with SqliteBus(tmp_path / "bus") as bus, Indexer(bus, nodes, "quorum 2/3") as indexer:
        for _ in range(30):
            chain.mine(rng.randint(0, 3))
            if rng.random() < 0.3 and (depth := rng.randint(0, chain.deepest)):
                chain.reorg(depth, rng.randint(max(0, depth - 1), depth + 2))
            final |= {made.hash for made in chain.blocks[: chain.finalized + 1]}
            liar.boasts = rng.random() < 0.3
            liar.chain = fork if rng.random() < 0.4 else chain
            for each in nodes:
                each.fails = 0.1
            indexer.look(rng.randint(0, 3))
        liar.chain, liar.boasts = chain, False
        for each in nodes:
            each.fails = 0.0
        chain.mine(8)
        indexer.look(8)
        assert indexer.hashes == hashes(chain)
        final |= {made.hash for made in chain.blocks[: chain.finalized + 1]}
        assert {ref.hash for ref in indexer.finals} <= final
        assert indexer.finals[-1].number == chain.finalized


def pin(chain: Chain, number: int) -> str:
    return f"pinned {number} 0x{chain.blocks[number].hash.hex()}"


def test_a_provider_whose_chain_lacks_the_pinned_block_is_not_followed(bus: SqliteBus, chain: Chain) -> None:
    nodes = [node(invented(), "liar"), node(chain, "honest")]
    with Indexer(bus, nodes, pin(chain, 30)) as indexer:
        indexer.look(2)
        blocks = Reading(indexer.written).blocks
        assert [block.hash for block in blocks] == hashes(chain)
        assert {block.anchor for block in blocks if block.number <= 30} == {"pinned"}
        assert {block.anchor for block in blocks if block.number > 30} == {"single:honest"}


def test_where_no_provider_has_the_pinned_block_the_network_ends_before_anything_is_written(
    bus: SqliteBus, chain: Chain
) -> None:
    nodes = [node(chain, "a"), node(chain, "b")]
    with Indexer(bus, nodes, pin(invented(), 30)) as indexer:
        with pytest.raises(
            NotPinned, match=r"block 30: 0x[0-9a-f]{64} is pinned; got 0x[0-9a-f]{64} from every"
        ):
            indexer.runner.run(indexer.source.check_chain())
        assert not indexer.written
        with pytest.raises(NotPinned, match=r"\(a, b\): mend `anchor` or `rpc`"):
            indexer.look()
        assert not indexer.written


def test_one_that_is_down_is_waited_for_and_not_taken_for_one_without_the_pinned_block(
    bus: SqliteBus, chain: Chain
) -> None:
    down = node(chain, "down")
    down.fails = 1.0
    with Indexer(bus, [node(invented(), "liar"), down], pin(chain, 30)) as indexer:
        indexer.runner.run(indexer.source.check_chain())
        indexer.look(2)
        assert len(indexer.errors) == 2
        assert not indexer.written
        down.fails = 0.0
        indexer.look(2)
        assert indexer.hashes == hashes(chain)


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_pin_that_a_provider_has_yet_to_come_to_is_waited_for(
    bus: SqliteBus, chain: Chain, is_ours: bool
) -> None:
    whole = copy.deepcopy(chain)
    whole.mine(5)
    behind = node(chain, "a")
    with Indexer(bus, [behind], pin(whole if is_ours else invented(), 62)) as indexer:
        indexer.look(2)
        assert not indexer.written
        says = "provider a: it does not serve block 62, or not yet, which is pinned"
        assert {str(error) for error in indexer.errors} == {says}
        behind.chain = whole
        if is_ours:
            indexer.look()
            assert indexer.hashes == hashes(whole)
        else:
            with pytest.raises(NotPinned):
                indexer.look()
