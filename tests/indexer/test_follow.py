"""The loop against simulated chains, providers with faults, and deaths at every record."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from indexer import follow, source
from indexer.follow import Follower
from indexer.prove import Contradiction
from indexer.reconcile import ReorgBelowFinality
from indexer.source import Source
from indexer.writer import NetworkLog
from nektar.bus.sqlite import SqliteBus
from nektar.chain.abi import load
from nektar.chain.rpc import Call, RpcError
from nektar.config import NetworkConfig
from nektar.health import Health
from nektar.log import Gap, Mark, New, Record, Undo
from nektar.model import Address, Level
from tests.indexer.rules import Reading, records
from tests.indexer.world import ABI, CHAIN_ID, CONTRACT, Chain, Made, Node

CONTRACTS = {Address(CONTRACT): load(ABI)}
FILTER = b"f" * 32


def network(from_block: int = 0, name: str = "net") -> NetworkConfig:
    return NetworkConfig(name, CHAIN_ID, ("a",), {}, from_block=from_block)


class Killed(BaseException):
    """As kill -9: nothing that catches errors sees it."""


class Mortal(NetworkLog):
    """A log whose process may die just before or just after a record is committed."""

    chance = 0.0
    rng = random.Random(0)

    def append(self, records: Any, dead: Any = (), since: int = 0) -> None:
        before, after = (self.rng.random() < self.chance / 2 for _ in range(2))
        if before:
            raise Killed
        super().append(records, dead, since)
        if after:
            raise Killed


class Process:
    """An indexer of one Network that a test makes look at its chain, and that may die and come back."""

    def __init__(self, bus: SqliteBus, nodes: list[Node], config: NetworkConfig | None = None) -> None:
        self.bus, self.nodes, self.config = bus, nodes, config or network()
        self.deaths = 0
        self.errors: list[Exception] = []
        self.runner = asyncio.Runner()
        self.health = Health()
        self.start()

    def start(self, chance: float = 0.0, rng: random.Random | None = None) -> None:
        self.log = Mortal(self.bus, self.config, FILTER)
        self.log.chance, self.log.rng = chance, rng or random.Random(0)
        self.follower = Follower(self.log, Source(self.nodes, CHAIN_ID), CONTRACTS, 0.0, self.health)  # type: ignore[arg-type]

    def restart(self) -> None:
        self.log.close()
        self.start(self.log.chance, self.log.rng)

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            try:
                self.runner.run(self.follower.look())
            except (RpcError, Contradiction) as error:
                self.errors.append(error)
            except Killed:
                self.deaths += 1
                self.restart()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        self.log.close()
        self.runner.close()

    @property
    def written(self) -> list[Record]:
        return records(self.bus, self.config.name)

    @property
    def reading(self) -> Reading:
        return Reading(self.written)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "PAUSES_AFTER_NULL", (0.0, 0.0))
    monkeypatch.setattr(source, "PAUSES_AFTER_REFUSAL", (0.0,))


def assert_tells(reading: Reading, blocks: Iterable[Made]) -> None:
    """The log's surviving chain and rows are these blocks' and their logs'."""
    expected = list(blocks)
    assert [b.hash for b in reading.blocks] == [made.hash for made in expected]
    said = Counter((block_hash, what) for _, block_hash, what in reading.rows.elements())
    assert said == Counter((made.hash, what) for made in expected for what in made.whats)


def kinds(log: list[Record]) -> list[str]:
    return [type(record).__name__ for record in log]


def live_through(seed: int, folder: Path) -> tuple[Reading, Process]:
    """A random life of a chain, its providers and an indexer; what the log says in the end."""
    rng = random.Random(seed)
    chain = Chain(rng, safe=rng.randint(0, 3), final=rng.randint(3, 9))
    nodes = [Node(name, chain, rng, in_flight=rng.randint(1, 6)) for name in "ab"[: rng.randint(1, 2)]]
    config = network(from_block=rng.choice([0, 0, 7]))
    with SqliteBus(folder / "bus") as bus, Process(bus, nodes, config) as process:
        process.log.chance, process.log.rng = rng.choice([0.0, 0.1, 0.3]), rng
        for node in nodes:
            node.fails, node.nulls = rng.choice([0.0, 0.1]), rng.choice([0.0, 0.1])
            node.lies = rng.choice([0.0, 0.0, 0.02])
        chain.mine(rng.randint(0, 90))

        def reorg() -> None:
            if depth := rng.randint(0, chain.deepest):
                chain.reorg(depth, rng.randint(max(0, depth - 1), depth + 2))

        for _ in range(25):
            if rng.random() < 0.7:
                chain.mine(rng.randint(1, 3))
            if rng.random() < 0.3:
                reorg()
            for node in nodes:
                if rng.random() < 0.2 and chain.head > 4:
                    node.fall_behind(rng.randint(0, 3))
                elif rng.random() < 0.7:
                    node.catch_up()
                node.between = [reorg] if rng.random() < 0.2 else []
            process.look(rng.randint(0, 2))
            if rng.random() < 0.1:
                process.restart()
        for node in nodes:
            node.catch_up()
            node.between, node.fails, node.nulls, node.lies = [], 0, 0, 0
        process.log.chance = 0.0
        chain.mine(10)
        process.look(4)
        reading = process.reading
        assert_tells(reading, chain.blocks[config.from_block :])
        assert reading.finalized is not None
        assert reading.safe is not None
        assert (reading.finalized.number, reading.safe.number) == (chain.finalized, chain.safe)
        return reading, process


@pytest.mark.parametrize("seeds", [range(start, start + 10) for start in range(0, 40, 10)], ids=str)
def test_the_surviving_log_is_the_chain_whatever_happens(seeds: range, tmp_path: Path) -> None:
    undone = deaths = lies = 0
    for seed in seeds:
        reading, process = live_through(seed, tmp_path / str(seed))
        undone += reading.undone
        deaths += process.deaths
        lies += sum(isinstance(error, Contradiction) for error in process.errors)
    assert undone
    assert deaths
    assert lies, "the seeds spare the code what they are meant to do to it"


@pytest.fixture
def chain() -> Chain:
    return Chain(random.Random(1))


def node(chain: Chain, name: str = "a") -> Node:
    return Node(name, chain, random.Random(name))


def test_a_backfill_is_few_records_and_the_head_is_one_record_a_look(bus: SqliteBus, chain: Chain) -> None:
    chain.mine(200)
    with Process(bus, [node(chain)]) as process:
        process.look()
        news = [len(r.blocks) for r in process.written if isinstance(r, New)]
        assert news == [64, 64, 64, 4, 5]  # up to finalized, then to the head
        before = len(process.written)
        chain.mine(3)
        process.look(3)
        assert kinds(process.written[before:]) == ["New", "Mark"]
        assert_tells(process.reading, chain.blocks)


def test_an_undo_says_the_rows_of_its_blocks_also_after_a_restart(bus: SqliteBus, chain: Chain) -> None:
    chain.mine(20)
    with Process(bus, [node(chain)]) as process:
        process.look()
        process.restart()
        chain.reorg(4, 6)
        process.look()
        (undo,) = (record for record in process.written if isinstance(record, Undo))
        assert [block.number for block in undo.blocks] == [20, 19, 18, 17]
        assert undo.tables
        assert_tells(process.reading, chain.blocks)  # Reading compares the rows


def test_a_reorg_while_the_process_was_down_is_seen_at_its_first_look(bus: SqliteBus, chain: Chain) -> None:
    chain.mine(20)
    with Process(bus, [node(chain)]) as process:
        process.look()
        process.log.close()
        chain.reorg(3, 1)
        chain.reorg(1, 2)  # shorter than before, and twice
        process.start()
        process.look()
        assert_tells(process.reading, chain.blocks)


class Turning(Node):
    """Its chain turns to another right after it has said what its heads are, once."""

    turn: Callable[[], None] | None = None

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        answers = await super().batch(calls)
        if self.turn and any("latest" in call.params for call in calls):
            turn, self.turn = self.turn, None
            turn()
        return answers


@pytest.mark.parametrize(("depth", "grow"), [(0, 0), (1, 1), (1, 3), (2, 2), (3, 1)])
def test_a_reorg_between_the_heads_and_their_blocks_is_taken_in_once(
    bus: SqliteBus, chain: Chain, depth: int, grow: int
) -> None:
    chain.mine(20)
    provider = Turning("a", chain, random.Random(1))
    with Process(bus, [provider]) as process:
        process.look()
        written = len(process.written)
        chain.mine(3)
        provider.turn = lambda: chain.reorg(depth, grow)
        process.look()
        assert not [record for record in process.written[written:] if isinstance(record, Undo)]
        process.look()
        assert_tells(process.reading, chain.blocks)


def test_a_provider_that_is_behind_undoes_nothing(bus: SqliteBus, chain: Chain) -> None:
    chain.mine(20)
    provider = node(chain)
    with Process(bus, [provider]) as process:
        process.look()
        before = process.reading
        for behind in (1, 4, 9, 19):
            provider.fall_behind(behind)
            process.look()
        after = process.reading
        assert (after.blocks, after.finalized, after.undone) == (before.blocks, before.finalized, 0)


def test_safe_may_go_back_and_a_mark_says_so(bus: SqliteBus, chain: Chain) -> None:
    chain.mine(20)
    with Process(bus, [node(chain)]) as process:
        process.look()
        chain.safe -= 2
        process.look()
        mark = process.written[-1]
        assert isinstance(mark, Mark)
        assert (mark.safe.number, mark.finalized.number) == (16, 15)


def test_a_reorg_below_finality_stops_the_network_once_it_is_certain(bus: SqliteBus, chain: Chain) -> None:
    chain.mine(20)
    provider = node(chain)
    with Process(bus, [provider]) as process:
        process.look()
        fork = Chain(random.Random(2))
        fork.mine(30)
        for _ in range(2):
            provider.chain = fork
            process.look(2)  # seen twice, and then gone: a node behind a balancer
            provider.chain = chain
            process.look()
        provider.chain = fork
        process.look(2)
        with pytest.raises(ReorgBelowFinality, match=r"block 15: .*docs/RUNBOOK\.md#reorg-below-finality"):
            process.look()
        assert_tells(process.reading, chain.blocks)


def test_one_of_two_providers_on_another_chain_stops_nothing(bus: SqliteBus, chain: Chain) -> None:
    chain.mine(20)
    liar, honest = node(chain, "a"), node(chain, "b")
    with Process(bus, [liar, honest]) as process:
        process.look()
        fork = Chain(random.Random(2))
        fork.mine(30)
        liar.chain = fork
        chain.mine(2)
        process.look(20)
        assert_tells(process.reading, chain.blocks)


def test_blocks_whose_receipts_are_withheld_are_linked_with_their_logs(bus: SqliteBus, chain: Chain) -> None:
    chain.mine(20)
    provider = node(chain)
    provider.withheld = {4, 5, 6, 19}
    with Process(bus, [provider]) as process:
        process.look()
        reading = process.reading
        assert {b.number for b in reading.blocks if b.level is Level.LINKED} == provider.withheld
        assert {b.level for b in reading.blocks} == {Level.LINKED, Level.PROVED}
        assert_tells(reading, chain.blocks)


def test_receipts_that_another_provider_serves_prove_the_block(bus: SqliteBus, chain: Chain) -> None:
    chain.mine(9)
    pruned, archive = node(chain, "pruned"), node(chain, "archive")
    pruned.withheld = {4, 5}
    with Process(bus, [pruned, archive]) as process:
        process.look()
        blocks = process.reading.blocks
        assert {b.level for b in blocks} == {Level.PROVED}
        assert {b.number for b in blocks if b.provider == "archive"} == {4, 5}
        assert blocks[4].anchor == "single:archive"


def test_a_fault_of_the_connection_never_makes_a_block_linked(bus: SqliteBus, chain: Chain) -> None:
    chain.mine(40)
    provider = node(chain)
    provider.fails = 0.5
    with Process(bus, [provider]) as process:
        while process.log.known.next <= 40:
            process.look()
        assert process.errors
        assert {b.level for b in process.reading.blocks} == {Level.PROVED}


def test_history_that_nobody_serves_is_a_gap_and_the_rest_follows_on_it(
    bus: SqliteBus, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.mine(60)
    provider = node(chain)
    provider.unpruned = 38
    with Process(bus, [provider]) as process:
        process.look()
        assert process.log.known.next == 1, "a gap is for good, and not for a moment's absence"
        monkeypatch.setattr(follow, "GAP_PATIENCE", 0.0)
        process.look()
        (gap,) = (record for record in process.written if isinstance(record, Gap))
        assert (gap.first, gap.last, gap.last_hash) == (1, 37, chain.blocks[37].hash)
        assert process.reading.chain[1] == (1, 37)
        process.restart()
        chain.reorg(3, 4)
        process.look()
        assert_tells(process.reading, [chain.blocks[0], *chain.blocks[38:]])


def test_a_lie_is_named_and_another_provider_is_asked(
    bus: SqliteBus, chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    chain.mine(30)
    liar, honest = node(chain, "liar"), node(chain, "honest")
    liar.lies = 1.0
    with Process(bus, [liar, honest]) as process:
        process.look()
        assert "provider liar: " in caplog.text
        assert {block.provider for block in process.reading.blocks} == {"honest"}
        assert_tells(process.reading, chain.blocks)


def test_a_lie_of_the_only_provider_gets_nothing_onto_the_log(bus: SqliteBus, chain: Chain) -> None:
    chain.mine(30)
    liar = node(chain, "liar")
    with Process(bus, [liar]) as process:
        process.look()
        before = len(process.written)
        liar.lies = 1.0
        chain.mine(3)
        process.look(3)
        assert len(process.errors) == 3
        assert all(str(error).startswith("provider liar: ") for error in process.errors)
        assert len(process.written) == before
