"""What is said of Operators' keys on the bus: what the chain that stands says, and as of when."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from nektar import log, operators, registered
from nektar.bus.port import Bus, read_all
from nektar.log import CHECKPOINTS, LEVEL_HEADER, Mark, New, Record, Undo
from nektar.model import G1, Address, Block, ChainEvent
from nektar.operators import Registry
from processors import outputs, share
from processors.folds.operators import Operators
from processors.following import Following
from processors.processor import Interpreter
from processors.runner import Runner
from tests.nektar.logs import Plain, tables
from tests.processors.logs_on_bus import open_bus, write
from tests.processors.world import NETWORK, World

Part = tuple[Block, list[ChainEvent]]


class Chain:
    """A chain that reorgs at random above its finalized block, and the log of it."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"keys {seed}")
        self._forks = [World(self._rng)]
        self._parts: list[Part] = []
        self._final = 0  # blocks that no reorg takes away

    def grow(self, records: int) -> list[Record]:
        return [record for _ in range(records) for record in self._next()]

    def _next(self) -> Iterable[Record]:
        rng = self._rng
        if rng.random() < 0.3 and (depth := rng.randint(0, len(self._parts) - self._final)):
            gone = [block for block, _ in reversed(self._parts[-depth:])]
            del self._parts[-depth:], self._forks[-depth:]
            yield Undo(tuple(gone), {})
        made = []
        for _ in range(rng.randint(1, 3)):
            self._forks.append(copy.deepcopy(self._forks[-1]))
            self._forks[-1].rng = rng
            made.append(self._forks[-1].next_block())
        self._parts += made
        yield New(tuple(block for block, _ in made), tables([event for _, each in made for event in each]))
        if rng.random() < 0.3:
            self._final = rng.randint(max(1, self._final), len(self._parts))
            final = self._parts[self._final - 1][0].ref
            yield Mark(final, final, tuple(block for block, _ in self._parts[self._final :]))

    @property
    def keys(self) -> dict[Address, G1]:
        """Of whoever is registered on the chain as it stands."""
        registry = Registry()
        for _, events in self._parts:
            for event in events:
                registry = operators.step(registry, event)
        return {a: each.key for a, each in registry.operators.items() if not each.deregistered}


def level_at(time: int) -> dict[str, bytes]:
    return {LEVEL_HEADER: b"%d" % time}


def fold(bus: Bus) -> None:
    """All there is, and what is due then."""
    key = log.key(NETWORK.name, NETWORK.generation)
    with Runner(bus, [Operators()], [NETWORK], {key: Interpreter(NETWORK, Plain())}) as runner:
        while runner.turn(0.0):
            pass
        runner.turn(0.0)


def said(bus: Bus) -> tuple[dict[Address, G1], int | None]:
    """The keys as they were last said, and as of when."""
    keys, time = dict[Address, G1](), None
    for message in read_all(bus, CHECKPOINTS, 0):
        if (each := registered.read(message)) is None:
            continue
        assert (each.network, each.generation) == (NETWORK.name, NETWORK.generation)
        if each.operator is None:
            time = each.time
        elif each.key:
            keys[each.operator] = each.key
        else:
            keys.pop(each.operator, None)
    return keys, time


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may wait is put out with each turn."""
    monkeypatch.setattr(share, "QUIET_SECONDS", 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_after_any_reorgs_and_restarts_they_are_those_of_the_chain_that_stands(
    seed: int, tmp_path: Path
) -> None:
    chain = Chain(seed)
    with open_bus(tmp_path / "bus") as bus:
        write(bus, NETWORK, chain.grow(10))
        fold(bus)
        assert said(bus) == (chain.keys, None)  # the chain is being read
        for time in range(1, 5):
            write(bus, NETWORK, chain.grow(10))
            write(bus, NETWORK, chain.grow(1), said=level_at(time))
            fold(bus)
            assert said(bus) == (chain.keys, time)
        write(bus, NETWORK, chain.grow(5))
        fold(bus)
        assert said(bus) == (chain.keys, 4)


@pytest.mark.parametrize("level_before", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_where_an_earlier_version_has_said_none_or_some_all_are_said_once_the_log_is_level(
    seed: int, level_before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Chain(seed)
    with open_bus(tmp_path / "bus") as bus:
        with monkeypatch.context() as earlier:
            earlier.setattr(Following, "_keys", lambda following: [])
            write(bus, NETWORK, chain.grow(10))
            fold(bus)
            some = said(bus)
            assert some == (chain.keys, None)
            earlier.setattr(outputs.registered, "messages", lambda *changed: [])
            write(bus, NETWORK, chain.grow(30), said=level_at(1) if level_before else {})
            fold(bus)
            assert said(bus) == some != (chain.keys, None)
        if not level_before:
            fold(bus)
            assert said(bus)[1] is None
            write(bus, NETWORK, chain.grow(1), said=level_at(1))
        fold(bus)
        assert said(bus) == (chain.keys, 1)


def test_nothing_is_said_of_keys_by_another_fold_or_before_the_first_block(tmp_path: Path) -> None:
    with open_bus(tmp_path / "bus") as bus:
        fold(bus)
        assert said(bus) == ({}, None)
        assert not registered.is_said(bus, NETWORK.name, NETWORK.generation)
