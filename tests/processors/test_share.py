"""Several folds of one partition: they read and put out together, and nobody waits for one that is behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nektar import log
from nektar.bus.port import Bus, Message
from nektar.bus.sqlite import SqliteBus
from nektar.errors import NektarError
from nektar.log import NETWORK, Mark
from nektar.model import Event, Network
from nektar.rows import Change
from processors import following
from processors import runner as running
from processors.processor import Interpreter
from processors.replay import replay
from processors.runner import Runner
from tests.nektar.logs import NETWORK as HOME
from tests.nektar.logs import Gossip, Plain
from tests.processors.dying import COMMITTED, FOLDED, Died, DyingBus
from tests.processors.logs_on_bus import open_bus, records, write
from tests.seeds import seeds

AWAY = msgspec.structs.replace(HOME, name="away")


class Other(Gossip):
    name = "other"


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SqliteBus]:
    with open_bus(tmp_path / "bus") as each:
        yield each


@pytest.fixture(autouse=True)
def in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BATCH", 8)
    monkeypatch.setattr(following, "CHECKPOINT_MARKS", 3)


def key_of(network: Network) -> bytes:
    return log.key(network.name, network.generation)


def folds(bus: Bus, *those: Gossip) -> Runner:
    return Runner(bus, those, [HOME], {key_of(HOME): Interpreter(HOME, Plain())})


def to_end(bus: Any, *those: Gossip, stops: bool = False) -> None:
    with folds(bus, *those) as each:
        while each.turn(0.0):
            pass
        assert bool(each.ended) is stops


def assert_put_out_once(bus: Bus, *those: Gossip) -> None:
    for fold in those:
        found = replay(bus, HOME, Plain(), fold)
        assert (found.difference, found.behind, found.records) == (None, 0, 60)


class Counted(DyingBus):
    """Counts the transactions that are done."""

    done = 0

    def passed(self, point: str) -> None:
        self.done += point == COMMITTED


def test_what_a_batch_says_is_one_transaction_of_all_folds(bus: SqliteBus) -> None:
    write(bus, HOME, records(10))
    counted: Any = Counted(bus, COMMITTED, 0)
    with folds(counted, Gossip(), Other()) as each:
        turns = 0
        while each.turn(0.0):
            turns += 1
    assert counted.done == turns > 1
    assert_put_out_once(bus, Gossip(), Other())


def test_nothing_waits_for_a_fold_that_comes_late(bus: SqliteBus) -> None:
    write(bus, HOME, records(10)[:48], part_bytes=700)
    to_end(bus, Gossip())
    write(bus, HOME, records(10)[48:], part_bytes=700)
    with folds(bus, Gossip(), Other()) as each:
        while each.reached.get(0, 0) < bus.end(NETWORK, 0):
            each.turn(0.0)
        assert replay(bus, HOME, Plain(), Gossip()).behind == 0
        assert replay(bus, HOME, Plain(), Other()).behind > 0
        assert each.level_at is None, "not all is level"
        while each.turn(0.0):
            pass
        assert each.level_at is not None
    assert_put_out_once(bus, Gossip(), Other())


@pytest.mark.parametrize("point", [FOLDED, COMMITTED])
def test_one_that_comes_late_puts_out_the_same_wherever_it_dies(point: str, bus: SqliteBus) -> None:
    """And while the log grows."""
    write(bus, HOME, records(10)[:30], part_bytes=700)
    to_end(bus, Gossip())
    deaths = 0
    for i, n in enumerate([1, 2, 1, 3, 1, 2]):
        write(bus, HOME, records(10)[30 + 5 * i : 35 + 5 * i], part_bytes=700)
        dying: Any = DyingBus(bus, point, n)
        try:
            to_end(dying, Gossip(), Other())
        except Died:
            deaths += 1
    assert deaths > 2
    to_end(bus, Gossip(), Other())
    assert_put_out_once(bus, Gossip(), Other())


class Broken(Gossip):
    name = "broken"

    def step(self, state: Any, event: Event) -> tuple[Any, Sequence[Change]]:
        raise NektarError("expected better")


def test_one_that_stops_before_it_has_come_to_where_others_are_leaves_them_what_they_have_read(
    bus: SqliteBus,
) -> None:
    """Half of a record, say, when it stops."""
    *before, last = records(10)
    write(bus, HOME, before)
    to_end(bus, Gossip())
    parts = list(log.split(log.encode(last), 50))
    with bus.writer("indexer", 0) as writer:
        writer.transaction(Message(NETWORK, key_of(HOME), part, headers) for part, headers in parts[:1])
    with folds(bus, Gossip(), Broken()) as each:
        while each.turn(0.0):
            pass
        assert [of.fold for of in each.stopped] == ["broken"]
        with bus.writer("indexer", 0) as writer:
            writer.transaction(Message(NETWORK, key_of(HOME), part, headers) for part, headers in parts[1:])
        while each.turn(0.0):
            pass
        assert [of.fold for of in each.stopped] == ["broken"]
    assert_put_out_once(bus, Gossip())


def test_where_a_record_can_not_be_put_out_nothing_that_rests_on_it_is_kept(
    bus: SqliteBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that says less goes on from there: no checkpoint is of a time after it."""
    monkeypatch.setattr(following, "CHECKPOINT_MARKS", 1)
    marks = [n for n, record in enumerate(records(10)) if isinstance(record, Mark)]
    for n in marks[:: seeds(3, 1)]:
        with open_bus(tmp_path / str(n)) as each:
            write(each, HOME, records(10))
            with monkeypatch.context() as patched:
                patched.setattr(following, "_check_size", Refusing(n))
                to_end(each, Gossip(), stops=True)
            to_end(each, Gossip())
            assert_put_out_once(each, Gossip())


class Refusing:
    """Of the n-th record that is folded it is too much."""

    def __init__(self, n: int) -> None:
        self._left = n

    def __call__(self, messages: object) -> None:
        self._left -= 1
        if self._left < 0:
            raise following.TooMuch("expected less")


def test_a_network_that_comes_late_in_the_middle_of_a_record_takes_its_other_parts(bus: SqliteBus) -> None:
    """What it has read by itself ends within a record, of which it reads the rest with the others."""
    write(bus, HOME, records(10))
    to_end(bus, Gossip())
    *before, last = records(11)
    write(bus, AWAY, before)
    parts = list(log.split(log.encode(last), 50))
    networks = [HOME, AWAY]
    with Runner(bus, [Gossip()], networks, {key_of(n): Interpreter(n, Plain()) for n in networks}) as each:
        for some in (parts[:1], parts[1:]):
            with bus.writer("indexer", 0) as writer:
                writer.transaction(Message(NETWORK, key_of(AWAY), part, headers) for part, headers in some)
            while each.turn(0.0):
                pass
    found = replay(bus, AWAY, Plain(), Gossip())
    assert (found.difference, found.behind, found.records) == (None, 0, 60)
