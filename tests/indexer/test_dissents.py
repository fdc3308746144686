"""What a Network's providers said that can't be: from the indexer by the bus into the store, once each."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer import follow
from indexer.dissents import CONTRADICTION, MOST, NOT_FINAL, Dissents
from indexer.writer import NetworkLog
from nektar.bus.port import partition_of
from nektar.bus.sqlite import SqliteBus
from nektar.config import NetworkConfig
from nektar.log import AHEAD_HEADER, ROWS
from nektar.store.client import open_store
from nektar.store.coverage import DISSENT
from nektar.store.migrate import migrate
from nektar.store.port import Store
from processors.sink import Sink
from tests.indexer.process import Process, assert_tells
from tests.indexer.test_quorum import Indexer, invented, node
from tests.indexer.world import CHAIN_ID, Chain, Node

pytestmark = pytest.mark.usefixtures("hurry")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"chdb://{tmp_path / 'store'}") as opened:
        migrate(opened, [])
        yield opened


def stored(store: Store, bus: SqliteBus) -> list[tuple[Any, ...]]:
    """What the table says, once the sink has all that is on the bus."""
    with Sink(store, bus, {}) as sink:
        while sink.turn(0.0):
            pass
    asked = "SELECT provider, lie, block_number, block_hash, proved_by, why FROM dissent ORDER BY ALL"
    return store.rows(asked)


def test_a_contradiction_is_recorded_once_with_its_provider_its_block_and_why(
    bus: SqliteBus, store: Store, chain: Chain
) -> None:
    honest = Node("honest", chain, random.Random(2))
    liar = Node("liar", chain, random.Random(1))
    with Process(bus, [liar, honest]) as process:
        process.look()
        chain.mine(1)
        liar.lies = 1.0
        process.look(3)
        assert_tells(process.reading, chain.blocks)
    [(provider, lie, number, block_hash, proved_by, why)] = stored(store, bus)
    assert (provider, lie, number, block_hash, proved_by) == ("liar", CONTRADICTION, 60, f"0x{'00' * 32}", "")
    assert why.startswith("provider liar: block ")
    [(network, *shown)] = store.rows(DISSENT)
    assert (network, shown) == ("net", ["liar", CONTRADICTION, 1, 60, 60, why])


def test_what_a_lone_liar_said_is_recorded_while_its_network_waits(
    bus: SqliteBus, store: Store, chain: Chain
) -> None:
    liar = Node("liar", chain, random.Random(1))
    with Process(bus, [liar]) as process:
        process.look()
        written = len(process.written)
        chain.mine(1)
        liar.lies = 1.0
        process.look(4)
        assert len(process.written) == written
    assert [row[:3] for row in stored(store, bus)] == [("liar", CONTRADICTION, 60)]


def test_who_has_another_block_than_the_quorum_agrees_to_be_final_is_recorded_with_its_hash(
    bus: SqliteBus, store: Store, chain: Chain
) -> None:
    fork = invented()
    with Indexer(bus, [node(fork, "liar"), node(chain, "b"), node(chain, "c")], "quorum 2/3") as indexer:
        indexer.look(6)
    [row] = stored(store, bus)
    said, agreed = (f"0x{each.blocks[55].hash.hex()}" for each in (fork, chain))
    assert row == ("liar", NOT_FINAL, 55, said, "quorum 2/3", f"block 55: quorum 2/3 have {agreed}")


def test_who_shows_a_reorg_below_finality_is_recorded(bus: SqliteBus, store: Store, chain: Chain) -> None:
    wanders, honest = Node("wanders", chain, random.Random(1)), Node("honest", chain, random.Random(2))
    with Process(bus, [wanders, honest]) as process:
        process.look()
        wanders.wander(10, 20)
        process.look(3)
    [(provider, lie, number, block_hash, *_)] = stored(store, bus)
    assert (provider, lie, number) == ("wanders", NOT_FINAL, chain.finalized)
    assert block_hash == f"0x{wanders.shown[0][number].hash.hex()}"


def test_a_block_that_is_not_the_one_called_final_is_recorded(
    bus: SqliteBus, store: Store, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "differs", lambda block, said: block.number == said.number)
    with Process(bus, [Node("liar", chain, random.Random(1))]) as process:
        process.look()
    [(provider, lie, number, *_, why)] = stored(store, bus)
    assert (provider, lie, number) == ("liar", CONTRADICTION, chain.finalized)
    assert "is called finalized" in why


def test_a_store_that_has_all_dissent_is_not_behind_and_reads_nothing_again(
    bus: SqliteBus, store: Store, chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    liar = Node("liar", chain, random.Random(1))
    liar.lies = 1.0
    with Process(bus, [liar]) as process:
        process.look()
    with caplog.at_level(logging.INFO):
        assert len(stored(store, bus)) == len(stored(store, bus)) == 1
    assert "may lack rows" not in caplog.text


def test_what_a_log_says_that_catches_up_brings_no_generation_to_stand(bus: SqliteBus) -> None:
    dissents = Dissents()
    dissents.add("liar", CONTRADICTION, 7, "why")
    network = NetworkConfig("net", CHAIN_ID, ("a",), {}, generation=2)
    with NetworkLog(bus, network, b"f" * 32, ahead=True) as log:
        log.append([], dissent=dissents.take())
    [message] = bus.read(ROWS, partition_of("net", bus.partitions), 0)
    assert (message.headers["generation"], message.headers[AHEAD_HEADER]) == (b"2", b"1")


def test_what_is_kept_of_lies_is_bounded_and_each_is_told_once() -> None:
    dissents = Dissents()
    for number in range(2 * MOST):
        dissents.add("liar", CONTRADICTION, number, "x" * 10_000)
    taken = dissents.take()
    assert [row.block_number for row in taken] == list(range(MOST))
    assert {len(row.why) for row in taken} == {400}
    for number in (MOST - 1, MOST, MOST):
        dissents.add("liar", CONTRADICTION, number, "")
    assert [row.block_number for row in dissents.take()] == [MOST]
