"""Several Networks and generations in one partition: whatever the others do, each is put out exactly once."""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nektar import log
from nektar.bus.port import Message
from nektar.bus.sqlite import SqliteBus
from nektar.config import Config, NetworkConfig, Provider
from nektar.errors import NektarError
from nektar.health import Health
from nektar.log import CHECKPOINTS, NETWORK, ROWS, BrokenLog
from nektar.model import ChainEvent, Event, Network
from nektar.rows import Change, OperatorRow
from processors import following, share
from processors import runner as running
from processors.processor import Interpreter
from processors.replay import replay
from processors.runner import Runner
from processors.share import GROUP
from tests.nektar.logs import NETWORK as HOME
from tests.nektar.logs import Gossip, Plain
from tests.processors.dying import COMMITTED, FOLDED, INSIDE, POINTS, Died, DyingBus
from tests.processors.logs_on_bus import (
    RECORDS,
    open_bus,
    outputs,
    put_out,
    records,
    run_to_end,
    runner,
    write,
)

AWAY = msgspec.structs.replace(HOME, name="away")
AWAY_2 = msgspec.structs.replace(AWAY, generation=2)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CHECKPOINT_MARKS", 3)
    monkeypatch.setattr(running, "BATCH", 4)
    monkeypatch.setattr(share, "QUIET_SECONDS", -1.0)  # where the group's offset stands is of interest here


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SqliteBus]:
    with open_bus(tmp_path / "bus") as opened:
        yield opened


def write_in_turn(bus: SqliteBus, networks: Sequence[Network], first: int = 0, last: int = RECORDS) -> None:
    """Their logs' records from `first` to `last`, one of each in turn."""
    with bus.writer("indexer", 0) as writer:
        for i in range(first, last):
            writer.transaction(
                Message(NETWORK, log.key(network.name, network.generation), log.encode(records(n)[i]))
                for n, network in enumerate(networks)
            )


def assert_put_out_once(bus: SqliteBus, *networks: Network, count: int = RECORDS) -> None:
    """Every byte is there that the logs give, once and in order, and nothing else."""
    for network in networks:
        found = replay(bus, network, Plain(), Gossip())
        assert (found.difference, found.behind, found.records) == (None, 0, count), network


def committed(bus: SqliteBus) -> int:
    with runner(bus, [HOME]) as each:
        return each._consumer.committed(NETWORK, 0) or 0


# --- one that stops ---------------------------------------------------------------------------------


class Bug(Exception):
    """What nobody foresaw."""


class Picky(Plain):
    """An adapter, and below a fold, that can't take what happens in block `AT`."""

    def events(self, network: Network, tables: Mapping[str, bytes]) -> Sequence[ChainEvent]:
        events = super().events(network, tables)
        if network.name == AWAY.name and any(event.at and event.at.block >= AT for event in events):
            raise NektarError("the adapter does not know this event")
        return events


class Stubborn(Gossip):
    raised: Exception

    def step(self, state: Any, event: Event) -> tuple[Any, Sequence[Change]]:
        if getattr(event, "operator", None) == STRANGER:
            raise self.raised
        return super().step(state, event)


AT = 20
STRANGER = b"\x77" * 20


def strange(bus: SqliteBus, broken: str) -> None:
    """End AWAY's log with something that can't be folded."""
    from tests.nektar.logs import DIGESTS, G1, TASKS, Address, Signed, SignedBatch

    key = log.key(AWAY.name, AWAY.generation)
    with bus.writer("other", 0) as writer:
        match broken:
            case "record":
                writer.transaction([Message(NETWORK, key, b"not a record")])
            case _:
                said = Signed(None, TASKS[0], Address(STRANGER), DIGESTS[0], G1(bytes(64)))
                record = SignedBatch((said,))
                writer.transaction([Message(NETWORK, key, log.encode(record))])


def stubborn(bus: Any, raised: Exception, networks: Sequence[Network] = (HOME, AWAY)) -> Runner:
    fold = Stubborn()
    fold.raised = raised
    return Runner(
        bus,
        [fold],
        networks,
        {log.key(each.name, each.generation): Interpreter(each, Plain()) for each in networks},
    )


@pytest.mark.parametrize("broken", ["record", "fold", "bug"])
def test_a_network_that_cannot_go_on_stops_alone(
    broken: str, bus: SqliteBus, caplog: pytest.LogCaptureFixture
) -> None:
    raised = Bug("divided by zero") if broken == "bug" else NektarError("expected a deadline in blocks")
    write_in_turn(bus, [HOME, AWAY], 0, 20)
    strange(bus, broken)
    write_in_turn(bus, [HOME, AWAY], 20, 40)
    before_it = rows_of_first(bus, AWAY, 20)
    for life in range(2):
        caplog.clear()
        with stubborn(bus, raised) as each:
            while each.turn(0.0):
                pass
            assert each.ended is None
        (line,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        how = "stopped by a bug (Bug)" if broken == "bug" else "stopped"
        assert f"gossip, away: {how}: nektar.network, partition 0, offset 4" in line.getMessage()
        assert bool(line.exc_info) == (broken == "bug")
        assert committed(bus) == 40, "below what could not be read"
        home = replay(bus, HOME, Plain(), Gossip())
        assert (home.difference, home.behind, home.records) == (None, 0, 40 + 10 * life)
        assert len(put_out(bus, AWAY, ROWS)) == before_it
        write_in_turn(bus, [HOME], 40 + 10 * life, 50 + 10 * life)


class Loud(Gossip):
    """Makes much of little."""

    def step(self, state: Any, event: Event) -> tuple[Any, Sequence[Change]]:
        if getattr(event, "operator", None) != STRANGER:
            return super().step(state, event)
        return state, [Change(None, OperatorRow(STRANGER, b"k" * 64, "loud " * 10_000, 1, 1, True, 1, 0))]


def test_a_record_that_puts_out_more_than_a_transaction_holds_ends_its_log_and_no_other(
    bus: SqliteBus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MOST_PUT_OUT", 20_000)
    networks = [HOME, AWAY]
    write_in_turn(bus, networks, 0, 20)
    strange(bus, "much")
    write_in_turn(bus, networks, 20)
    interpreters = {log.key(each.name, each.generation): Interpreter(each, Plain()) for each in networks}
    for _ in range(2):
        with Runner(bus, [Loud()], networks, interpreters) as each:
            while each.turn(0.0):
                pass
            assert each.ended is None
    assert "gossip, away: stopped: nektar.network, partition 0, offset 40" in caplog.text
    assert "expected a record to put out at most 20000 bytes" in caplog.text
    assert_put_out_once(bus, HOME)


def rows_of_first(bus: SqliteBus, network: Network, count: int) -> int:
    """How many row messages the first records of a log make."""
    with open_bus(bus._directory.parent / "first") as other:
        write(other, network, records(1)[:count])
        run_to_end(other, [network])
        return len(put_out(other, network, ROWS))


@pytest.mark.parametrize("point", [point for point in POINTS if point != INSIDE])
def test_beside_one_that_stopped_the_others_survive_dying_at(point: str, bus: SqliteBus) -> None:
    write_in_turn(bus, [HOME, AWAY], 0, 20)
    strange(bus, "record")
    write_in_turn(bus, [HOME, AWAY], 20)
    deaths = 0
    for n in [1, 2, 3, 1, 5, 2, 1000]:
        dying: Any = DyingBus(bus, point, n)
        try:
            run_to_end(dying, [HOME, AWAY])
        except Died:
            deaths += 1
    assert deaths
    run_to_end(bus, [HOME, AWAY])
    assert_put_out_once(bus, HOME)
    assert len(put_out(bus, AWAY, ROWS)) == rows_of_first(bus, AWAY, 20)


def test_a_network_whose_checkpoint_cannot_be_read_stops_alone(
    bus: SqliteBus, caplog: pytest.LogCaptureFixture
) -> None:
    write_in_turn(bus, [HOME, AWAY], 0, 30)
    run_to_end(bus, [HOME, AWAY])
    before = outputs(bus, AWAY)
    with bus.writer(GROUP, 0) as writer:
        writer.transaction([Message(CHECKPOINTS, b"gossip/away/1", b"{}")])
    write_in_turn(bus, [HOME, AWAY], 30)
    run_to_end(bus, [HOME, AWAY])
    assert "gossip, away: stopped: generation 1: expected a checkpoint" in caplog.text
    assert_put_out_once(bus, HOME)
    assert outputs(bus, AWAY) == before
    assert committed(bus) == 60


def test_what_could_not_be_read_is_read_once_it_can_be(bus: SqliteBus) -> None:
    """By another version, say: nothing was passed over, and nothing is said twice."""
    write_in_turn(bus, [HOME, AWAY])
    networks = [HOME, AWAY]
    picky = Runner(
        bus,
        [Gossip()],
        networks,
        {log.key(each.name, each.generation): Interpreter(each, Picky()) for each in networks},
    )
    with picky:
        while picky.turn(0.0):
            pass
    found = replay(bus, AWAY, Plain(), Gossip())
    assert (found.difference, found.behind > 0) == (None, True)
    assert_put_out_once(bus, HOME)
    run_to_end(bus, networks)
    assert_put_out_once(bus, HOME, AWAY)


def test_the_role_ends_with_the_first_error_when_no_network_is_left(bus: SqliteBus) -> None:
    def run(networks: Sequence[Network], raised: list[BaseException], stop: threading.Event) -> None:
        configured = tuple(NetworkConfig(each.name, 31337, ("p",), {}) for each in networks)
        config = Config({"p": Provider("http://localhost")}, configured)
        try:
            running.run(config, [Gossip()], {each.name: Plain() for each in networks}, bus, stop, Health())
        except BaseException as error:
            raised.append(error)

    write_in_turn(bus, [HOME, AWAY], 0, 5)
    strange(bus, "record")
    raised: list[BaseException] = []
    run([AWAY], raised, threading.Event())
    assert isinstance(raised[0], BrokenLog)
    assert "offset 10 (away/1): expected a log record" in str(raised[0])
    with bus.writer("other", 0) as writer:
        writer.transaction([Message(NETWORK, log.key("home", 1), b"x", {log.PART_HEADER: b"1/2"})])
    raised.clear()
    run([HOME, AWAY], raised, threading.Event())
    assert "offset 10 (away/1): expected a log record" in str(raised[0])


# --- some that come, go and return ------------------------------------------------------------------


def test_networks_that_share_a_partition_do_not_touch_each_other(bus: SqliteBus) -> None:
    write_in_turn(bus, [HOME, AWAY])
    run_to_end(bus, [HOME, AWAY])
    assert_put_out_once(bus, HOME, AWAY)


@pytest.mark.parametrize("deaths", [0, 1, 4])
def test_a_network_configured_late_is_folded_from_its_beginning(deaths: int, bus: SqliteBus) -> None:
    write_in_turn(bus, [HOME, AWAY])
    run_to_end(bus, [HOME])
    before = outputs(bus, HOME)
    assert committed(bus) == bus.end(NETWORK, 0)
    for i in range(deaths):
        dying: Any = DyingBus(bus, (FOLDED, COMMITTED)[i % 2], 3)
        with pytest.raises(Died):
            run_to_end(dying, [HOME, AWAY])
    run_to_end(bus, [HOME, AWAY])
    assert outputs(bus, HOME) == before
    assert_put_out_once(bus, AWAY)


def test_a_network_that_was_out_of_the_configuration_for_a_while_misses_nothing(bus: SqliteBus) -> None:
    write_in_turn(bus, [HOME, AWAY], 0, 20)
    run_to_end(bus, [HOME, AWAY])
    write_in_turn(bus, [HOME, AWAY], 20, 40)  # while no processor runs
    run_to_end(bus, [HOME])
    run_to_end(bus, [HOME, AWAY])
    write_in_turn(bus, [HOME, AWAY], 40)
    run_to_end(bus, [HOME, AWAY])
    assert_put_out_once(bus, HOME, AWAY)


def test_a_generation_that_is_returned_to_misses_nothing(bus: SqliteBus) -> None:
    write_in_turn(bus, [HOME, AWAY, AWAY_2], 0, 20)
    run_to_end(bus, [HOME, AWAY])
    write_in_turn(bus, [HOME, AWAY, AWAY_2], 20, 40)
    run_to_end(bus, [HOME, AWAY_2])
    write_in_turn(bus, [HOME, AWAY, AWAY_2], 40)
    run_to_end(bus, [HOME, AWAY])
    run_to_end(bus, [HOME, AWAY_2])
    assert_put_out_once(bus, HOME, AWAY, AWAY_2)


def test_members_of_other_configurations_take_turns_and_pass_over_nothing(
    bus: SqliteBus, tmp_path: Path
) -> None:
    configurations = [[HOME], [HOME, AWAY], [AWAY_2]]
    for i in range(12):
        write_in_turn(bus, [HOME, AWAY, AWAY_2], 5 * i, 5 * i + 5)
        with open_bus(tmp_path / "bus") as other, runner(other, configurations[i % 3]) as each:
            for _ in range(i % 4 + 1):  # not to the end
                each.turn(0.0)
    for networks in configurations:
        run_to_end(bus, networks)
    assert_put_out_once(bus, HOME, AWAY, AWAY_2)


@pytest.mark.parametrize("point", [point for point in POINTS if point != INSIDE])
def test_whoever_comes_and_goes_and_whenever_the_role_dies_at(point: str, bus: SqliteBus) -> None:
    rng = random.Random(point)
    logs = [HOME, AWAY, AWAY_2]
    deaths = 0
    for i in range(12):
        write_in_turn(bus, logs, 5 * i, 5 * i + 5)
        for _ in range(2):
            configured = [HOME] * rng.randrange(2) + rng.choice([[], [AWAY], [AWAY_2]])
            dying: Any = DyingBus(bus, point, rng.randint(1, 4))
            with suppress(Died):
                run_to_end(dying, configured)
                continue
            deaths += 1
    assert deaths
    run_to_end(bus, [HOME, AWAY])
    run_to_end(bus, [AWAY_2])
    assert_put_out_once(bus, *logs)


def test_the_groups_offset_decides_nothing(bus: SqliteBus) -> None:
    rng = random.Random(3)
    for i in range(6):
        write_in_turn(bus, [HOME, AWAY], 10 * i, 10 * i + 10)
        with suppress(Died):
            dying: Any = DyingBus(bus, POINTS[-1], 2)
            run_to_end(dying, [HOME, AWAY])
        with sqlite3.connect(bus._path(0, False)) as connection:
            connection.execute("UPDATE offsets SET next = ?", (rng.choice([0, 7, 20 * i + 20]),))
        connection.close()
    run_to_end(bus, [HOME, AWAY])
    assert_put_out_once(bus, HOME, AWAY)


def test_what_is_put_out_is_not_guessed_at(bus: SqliteBus, caplog: pytest.LogCaptureFixture) -> None:
    write_in_turn(bus, [HOME], 0, 30)
    run_to_end(bus, [HOME])
    with sqlite3.connect(bus._path(0, False)) as connection:
        connection.execute("DELETE FROM messages WHERE key = ?", (b"gossip/home/1/put-out",))
    connection.close()
    with runner(bus, [HOME]) as each:
        each.turn(0.0)
        assert "how far the log is put out is gone" in str(each.ended)
