"""Which logs an indexer writes when its filter changes: real anvils, the real bus, the role itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from indexer.known import Known
from indexer.logs import Logs, has_caught_up
from indexer.writer import NetworkLog, filter_hash
from nektar import generations
from nektar.bus.port import Fenced, partition_of
from nektar.bus.sqlite import SqliteBus
from nektar.config import Config, NetworkConfig, Provider
from nektar.generations import Generations
from nektar.log import AHEAD_HEADER, NETWORK, STANDS_HEADER, Mark, New, Record, key
from nektar.model import Block, BlockRef, Hash32, Level
from tests.indexer.rules import Reading, records
from tests.indexer.test_role import OneContract, World, network, running, until, world

HERE, THERE = "0x" + "11" * 20, "0x" + "22" * 20
BLOCK = Block(0, Hash32(b"\x01" * 32), Hash32(bytes(32)), 1, Level.PROVED, "p", "single:p")


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SqliteBus]:
    with SqliteBus(tmp_path / "bus") as opened:
        yield opened


def said(bus: SqliteBus) -> Generations:
    found = generations.read(bus, "net")
    assert found is not None
    return found


def headers(bus: SqliteBus, generation: int) -> list[str]:
    """Of each record of a log, whether it is `ahead`, `stands` or plain."""
    found = []
    for message in bus.read(NETWORK, partition_of("net", bus.partitions), 0, 10_000):
        if message.key == key("net", generation):
            names = [name for name in (AHEAD_HEADER, STANDS_HEADER) if name in message.headers]
            found.append(names[0].removeprefix("nektar-") if names else "")
    return found


def opened(bus: SqliteBus, address: str = HERE, **settings: int) -> Logs:
    return Logs(bus, network("net", address, **settings), OneContract())


def append(log: NetworkLog) -> None:
    log.append([New((BLOCK,), {}), Mark(BLOCK.ref, BLOCK.ref)])


def test_another_filter_begins_a_log_that_is_ahead_until_it_is_handed_over(bus: SqliteBus) -> None:
    with opened(bus) as logs:
        assert (logs.catching_up, logs.older) == (False, None)
        append(logs.goes_on.log)
    with opened(bus, THERE) as logs:
        assert logs.older is not None
        assert logs.older.network == network("net", HERE)
        assert (logs.goes_on.network.generation, logs.catching_up) == (2, True)
        append(logs.goes_on.log)
    with opened(bus, THERE) as logs:  # after a restart
        assert logs.catching_up
        logs.hand_over()
        assert not logs.catching_up
        assert said(bus).standing.number == 2
    with opened(bus, THERE) as logs:
        assert (logs.catching_up, logs.older, logs.goes_on.network.generation) == (False, None, 2)
        assert logs.goes_on.log.known.tip == BLOCK.ref
    assert headers(bus, 1) == ["", ""]
    assert headers(bus, 2) == ["ahead", "ahead", "stands"]


def test_a_change_that_is_taken_back_goes_on_with_the_older_log(bus: SqliteBus) -> None:
    with opened(bus) as logs:
        append(logs.goes_on.log)
    opened(bus, THERE).__exit__()
    with opened(bus) as logs:
        assert (logs.catching_up, logs.goes_on.network.generation) == (False, 1)
        assert logs.goes_on.log.known.tip == BLOCK.ref


def test_a_number_that_is_raised_by_hand_leaves_the_older_log(bus: SqliteBus) -> None:
    opened(bus).__exit__()
    with opened(bus, generation=5) as logs:
        assert (logs.catching_up, logs.older, logs.goes_on.network.generation) == (True, None, 5)


def test_a_log_of_an_earlier_version_goes_on_or_stands_until_another_has_caught_up(bus: SqliteBus) -> None:
    before = network("net", HERE, generation=3)
    with NetworkLog(bus, before, filter_hash(before, OneContract().abi())) as log:
        append(log)
    with opened(bus, THERE, generation=3) as logs:
        assert (logs.catching_up, logs.older, logs.goes_on.network.generation) == (True, None, 4)
    with opened(bus, HERE, generation=3) as logs:
        assert (logs.catching_up, logs.goes_on.network.generation) == (False, 3)
        assert logs.goes_on.log.known.tip == BLOCK.ref
    assert generations.configured(before, said(bus).standing, OneContract()) == before


def test_who_decides_fences_who_decided_before(bus: SqliteBus) -> None:
    first = opened(bus)
    with opened(bus, THERE), pytest.raises(Fenced):
        append(first.goes_on.log)
    first.__exit__()


def test_a_handover_just_before_the_fence_is_seen(bus: SqliteBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one before us reads as we decide, and hands over before we have its writers."""
    opened(bus).__exit__()
    first = opened(bus, THERE)
    append(first.goes_on.log)
    decide = Logs._decide

    def decide_late(self: Logs, filter_: bytes) -> Generations:
        found = decide(self, filter_)
        if first.catching_up:
            first.hand_over()
        return found

    monkeypatch.setattr(Logs, "_decide", decide_late)
    with opened(bus, THERE) as second:
        assert not second.catching_up
        assert second.goes_on.log.known.tip == BLOCK.ref
    assert headers(bus, 2) == ["ahead", "ahead", "stands"]
    first.__exit__()


@pytest.mark.parametrize(
    ("older", "newer", "caught_up"),
    [(5, 4, False), (5, 5, True), (5, 6, True), (None, 0, True), (5, None, False), (None, None, False)],
)
def test_a_log_has_caught_up_when_it_knows_as_much_to_be_final(
    older: int | None, newer: int | None, caught_up: bool
) -> None:
    def known(final: int | None) -> Known:
        return Known(0, None if final is None else BlockRef(final, Hash32(b"\x01" * 32)))

    assert has_caught_up(known(older), known(newer)) == caught_up
    assert has_caught_up(None, known(newer)) == (newer is not None)


@pytest.mark.real
def test_both_logs_follow_the_chain_until_the_newer_one_has_caught_up(tmp_path: Path, bus: SqliteBus) -> None:
    with world() as there:
        other = World(there.chain)
        other.account = there.account
        for _ in range(60):
            there.say(2)

        def config(**settings: object) -> Config:
            contracts = {"happening": there.address, "happening/other": other.address}
            of = network("net", there.address, **settings)
            return Config(
                providers={"net": Provider(there.chain.url)},
                networks=(of if not settings else msgspec.structs.replace(of, contracts=contracts),),
                data_dir=str(tmp_path),
            )

        def tip(generation: int) -> str | None:
            blocks = Reading(without_the_handover(bus, generation)).blocks
            return "0x" + blocks[-1].hash.hex() if blocks else None

        with running(config(), bus):
            until(lambda: tip(1) == there.chain.head()[1])
        changed: NetworkConfig = config(poll=0.03).networks[0]
        with running(msgspec.structs.replace(config(), networks=(changed,)), bus):
            until(lambda: said(bus).standing.number == 2)
            there.say(1)
            there.reorg(2)
            until(lambda: tip(2) == there.chain.head()[1])
        hashes, _ = there.truth
        reading = Reading(without_the_handover(bus, 2))
        assert ["0x" + block.hash.hex() for block in reading.blocks] == hashes
        assert headers(bus, 2).count("stands") == 1
        handover = headers(bus, 2).index("stands")
        assert set(headers(bus, 2)[:handover]) == {"ahead"}
        assert set(headers(bus, 2)[handover + 1 :]) == {""}
        assert set(headers(bus, 1)) == {""}


def without_the_handover(bus: SqliteBus, generation: int) -> list[Record]:
    """The log's records but for the mark that says again what the last one did."""
    return [
        record
        for record, header in zip(records(bus, "net", generation), headers(bus, generation), strict=True)
        if header != "stands"
    ]
