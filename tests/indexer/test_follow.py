"""The loop, one thing after another; `test_simulation.py` lets everything happen at once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from indexer import follow, source
from indexer.reconcile import ReorgBelowFinality
from nektar.bus.port import partition_of, read_all
from nektar.bus.sqlite import SqliteBus
from nektar.chain.announced import Announced
from nektar.chain.rpc import Call
from nektar.log import LEVEL_HEADER, NETWORK, Gap, Mark, New, Record, Undo
from nektar.model import Level
from tests.indexer.process import Process, assert_tells, network
from tests.indexer.world import Chain, Node


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "PAUSES_AFTER_NULL", (0.0, 0.0))
    monkeypatch.setattr(source, "PAUSES_AFTER_REFUSAL", (0.0,))


def kinds(log: list[Record]) -> list[str]:
    return [type(record).__name__ for record in log]


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


def test_records_with_which_the_log_is_level_say_as_of_when(bus: SqliteBus, chain: Chain) -> None:
    def levels() -> list[bytes | None]:
        """Of each message of the log what it says of that."""
        partition = partition_of("net", bus.partitions)
        return [message.headers.get(LEVEL_HEADER) for message in read_all(bus, NETWORK, partition)]

    chain.mine(200)
    before = int(time.time())
    with Process(bus, [node(chain)]) as process:
        process.look()
        assert kinds(process.written)[-2:] == ["New", "Mark"]
        *earlier, new, marked = levels()
        assert set(earlier) == {None}
        assert new == marked is not None
        assert before <= int(new) <= time.time()
        chain.safe += 1  # a mark alone says nothing of that
        process.look()
        assert levels()[-1] is None
        chain.reorg(2, 3)
        process.look()
        undo = kinds(process.written).index("Undo")
        assert kinds(process.written)[undo:] == ["Undo", "Mark", "New", "Mark"]
        assert [bool(level) for level in levels()[undo:]] == [False, False, True, True]


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


def test_a_provider_that_stands_still_is_turned_from_where_another_goes_on(
    bus: SqliteBus, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.mine(20)
    stale, honest = node(chain, "stale"), node(chain, "honest")
    with Process(bus, [stale, honest]) as process:
        process.look()
        stale.fall_behind(2)
        chain.mine(3)
        process.look(5)
        assert process.log.known.next == 21, "for a moment it may"
        monkeypatch.setattr(follow, "STANDSTILL", 0.0)
        process.look(2)
        assert_tells(process.reading, chain.blocks)


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


def test_a_provider_that_is_down_bears_no_witness_against_finality(bus: SqliteBus, chain: Chain) -> None:
    chain.mine(20)
    liar, honest = node(chain, "a"), node(chain, "b")
    with Process(bus, [liar, honest]) as process:
        process.look()
        fork = Chain(random.Random(2))
        fork.mine(30)
        liar.chain, honest.fails = fork, 1.0
        process.look(20)
        honest.chain, honest.fails = fork, 0.0
        with pytest.raises(ReorgBelowFinality):
            process.look(20)
        assert_tells(process.reading, chain.blocks)


def test_blocks_whose_receipts_are_withheld_are_linked_unless_their_blooms_prove_absence(
    bus: SqliteBus, chain: Chain
) -> None:
    chain.mine(20)
    provider = node(chain)
    provider.withheld = set(range(4, 20))
    busy = {made.number for made in chain.blocks if made.whats}
    assert provider.withheld & busy
    assert provider.withheld - busy
    with Process(bus, [provider]) as process:
        process.look()
        reading = process.reading
        assert {b.number for b in reading.blocks if b.level is Level.LINKED} == provider.withheld & busy
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
        assert blocks[4].anchor == "single:pruned"  # by whose word it is the block that stands there


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


def test_a_chain_that_stands_still_costs_no_more_than_public_endpoints_give_by_default(
    bus: SqliteBus, chain: Chain
) -> None:
    class Counting(Node):
        calls = 0

        async def batch(self, calls: Sequence[Call]) -> list[Any]:
            self.calls += len(calls)
            return await super().batch(calls)

    provider = Counting("a", chain, random.Random(2))
    chain.mine(30)
    with Process(bus, [provider]) as process:
        process.look()
        before = provider.calls
        process.look(10)
        a_look = (provider.calls - before) / 10
    assert 0 < a_look * 86_400 / network().poll < 150_000  # a day


def test_what_is_announced_and_not_there_yet_is_looked_for_soon_and_else_as_often_as_is_polled(
    bus: SqliteBus, chain: Chain
) -> None:
    chain.mine(30)
    told = Announced({})
    with Process(bus, [node(chain)]) as process:
        process.look()
        process.follower._announced, process.follower._poll = told, 60.0
        told.newest = chain.head + 1
        assert process.follower._until_next_look() == 60.0  # nobody announces now
        told._open.add("a")
        assert process.follower._until_next_look() == follow.FIRST_PAUSE
        told.newest = chain.head
        assert process.follower._until_next_look() == 60.0
