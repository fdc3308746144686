"""Which logs an indexer writes when its filter changes: real anvils, the real bus, the role itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from indexer.known import Kept, Known
from indexer.logs import Logs, has_caught_up
from indexer.writer import NetworkLog
from nektar import generations
from nektar.bus.port import Fenced, partition_of
from nektar.bus.sqlite import SqliteBus
from nektar.config import Config, NetworkConfig, Provider
from nektar.generations import Generations
from nektar.log import AHEAD_HEADER, NETWORK, STANDS_HEADER, Mark, New, Record, encode, key
from nektar.model import Block, BlockRef, Hash32, Level
from tests.indexer.process import filter_hash
from tests.indexer.rules import Reading, records
from tests.indexer.test_carried import said as signed
from tests.indexer.test_carried import write
from tests.indexer.test_role import OneContract, World, network, running, until, world

Reached = tuple[int | None, int | None, int | None]
HERE, THERE, ELSEWHERE = ("0x" + byte * 20 for byte in ("11", "22", "33"))
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


def test_where_a_log_begins_is_said_for_who_reads_it(bus: SqliteBus) -> None:
    partition = partition_of("net", bus.partitions)
    with opened(bus) as logs:
        append(logs.goes_on.log)
    end = bus.end(NETWORK, partition)
    with opened(bus, THERE) as logs:
        append(logs.goes_on.log)
        logs.hand_over()
    with opened(bus, THERE):
        assert generations.begins(said(bus), 2, NETWORK) == end > 0
        assert generations.begins(said(bus), 1, NETWORK) == 0
    write(bus, 3, signed(1))
    with opened(bus, ELSEWHERE):
        assert generations.begins(said(bus), 3, NETWORK) == 0, "it has been written to already"


def test_a_change_that_is_taken_back_goes_on_with_the_older_log(bus: SqliteBus) -> None:
    with opened(bus) as logs:
        append(logs.goes_on.log)
    opened(bus, THERE).__exit__()
    with opened(bus) as logs:
        assert (logs.catching_up, logs.goes_on.network.generation) == (False, 1)
        assert logs.goes_on.log.known.tip == BLOCK.ref


def test_a_filter_that_brought_nothing_gives_way_at_once(bus: SqliteBus) -> None:
    """As an address without a contract, mended after the first start: nothing stands that could be shown."""
    first = opened(bus)
    write(bus, 1, signed(1))  # by telemetry, which does not wait for blocks
    with opened(bus, THERE) as logs:
        assert (logs.catching_up, logs.older, logs.goes_on.network.generation) == (False, None, 2)
        assert logs.carried is not None
        assert [each.record.value for each in logs.carried.due()] == [encode(signed(1))]
        append(logs.goes_on.log)
        with pytest.raises(Fenced):
            append(first.goes_on.log)
    first.__exit__()
    with opened(bus, ELSEWHERE) as logs:
        assert logs.catching_up
    assert headers(bus, 2) == ["", ""]


def test_a_number_that_is_raised_by_hand_leaves_the_older_log(bus: SqliteBus) -> None:
    with opened(bus) as logs:
        append(logs.goes_on.log)
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


def test_a_handover_by_another_who_begins_just_then_is_seen(
    bus: SqliteBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When we have decided, and have no writers of logs yet."""
    with opened(bus) as logs:
        append(logs.goes_on.log)
    others = list[Logs]()
    decide = Logs._decide

    def decide_early(self: Logs, filter_: bytes) -> Generations:
        found = decide(self, filter_)
        if not others:
            others.append(self)
            with opened(bus, THERE) as another:
                append(another.goes_on.log)
                another.hand_over()
        return found

    monkeypatch.setattr(Logs, "_decide", decide_early)
    with opened(bus, THERE) as logs:
        assert not logs.catching_up
        assert logs.goes_on.log.known.tip == BLOCK.ref
    assert headers(bus, 2) == ["ahead", "ahead", "stands"]


@pytest.mark.parametrize("asked", [HERE, ELSEWHERE])
def test_who_was_fenced_hands_nothing_over(bus: SqliteBus, asked: str) -> None:
    """The one after it was asked for the older filter again, or for a third one: it opens other logs."""
    with opened(bus) as logs:
        append(logs.goes_on.log)
    changed = opened(bus, THERE)
    append(changed.goes_on.log)
    with opened(bus, asked) as again:
        with pytest.raises(Fenced):
            changed.hand_over()
        assert said(bus) == again.said
        assert said(bus).standing.number == 1
    changed.__exit__()
    assert headers(bus, 2) == ["ahead", "ahead"]


def test_what_was_signed_until_the_handover_stands_before_it(bus: SqliteBus) -> None:
    with opened(bus) as logs:
        append(logs.goes_on.log)
    with opened(bus, THERE) as logs:
        append(logs.goes_on.log)
        write(bus, 1, signed(1), signed(2))
        logs.hand_over()
        assert records(bus, "net", 2)[2:4] == [signed(1), signed(2)]
        assert headers(bus, 2) == ["ahead", "ahead", "ahead", "ahead", "stands"]
        write(bus, 1, signed(3))  # by who has not learned of it yet
    with opened(bus, THERE) as logs:
        assert logs.carried is not None
        assert [each.record.value for each in logs.carried.due()] == [encode(signed(3))]


@pytest.mark.parametrize(
    ("older", "newer", "caught_up"),
    [
        ((9, 7, 5), (9, 7, 5), True),
        ((9, 7, 5), (10, 8, 6), True),
        ((9, 7, 5), (8, 7, 5), False),
        ((9, 7, 5), (9, 6, 5), False),
        ((9, 7, 5), (9, 7, 4), False),
        ((9, None, None), (9, 0, 0), True),
        ((9, None, None), (8, 0, 0), False),
        ((None, None, None), (0, 0, 0), True),
        ((9, 7, 5), (9, None, None), False),
        ((None, None, None), (9, None, None), False),
    ],
)
def test_a_log_has_caught_up_when_it_knows_as_many_blocks_to_be_there_safe_and_final(
    older: Reached, newer: Reached, caught_up: bool
) -> None:
    assert has_caught_up(known(*older), known(*newer)) == caught_up
    assert has_caught_up(None, known(*newer)) == (newer[2] is not None)


def known(tip: int | None, safe: int | None, final: int | None) -> Known:
    def ref(number: int) -> BlockRef:
        return BlockRef(number, Hash32(b"\x01" * 32))

    unfinal = () if tip is None else (Kept(msgspec.structs.replace(BLOCK, number=tip), New((), {})),)
    if safe is None or final is None:
        return Known(0, None, unfinal)
    return Known(0, ref(final), unfinal, (ref(safe), ref(final)))


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


@pytest.mark.real
def test_a_typo_in_an_added_contract_leaves_the_older_log_followed(tmp_path: Path, bus: SqliteBus) -> None:
    with world() as there:
        there.say(2)

        def config(**added: str) -> Config:
            contracts = {"happening": there.address} | {f"happening/{n}": a for n, a in added.items()}
            of = msgspec.structs.replace(network("net", there.address), contracts=contracts)
            providers = {"net": Provider(there.chain.url)}
            return Config(providers=providers, networks=(of,), data_dir=str(tmp_path))

        def is_level() -> bool:
            written = Reading(records(bus, "net", 1)).blocks
            return bool(written) and "0x" + written[-1].hash.hex() == there.chain.head()[1]

        with running(config(), bus):
            until(is_level)
        with running(config(typo="0x" + "77" * 20), bus) as raised:
            until(lambda: said(bus).next is not None)
            for _ in range(3):
                there.say(1)
                until(is_level)
            assert not raised
        with running(config(), bus) as raised:  # taken back
            there.say(1)
            until(is_level)
            assert not raised
        assert said(bus).standing.number == 1


def without_the_handover(bus: SqliteBus, generation: int) -> list[Record]:
    """The log's records but for the mark that says again what the last one did."""
    so_far = headers(bus, generation)  # more may come meanwhile
    return [
        record
        for record, header in zip(records(bus, "net", generation), so_far, strict=False)
        if header != "stands"
    ]
