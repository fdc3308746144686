"""Random lives of a chain, its providers and an indexer: whatever happens, the surviving log is the chain.

Everything that `indexer/reconcile.py` knows of happens, often at once, and processes die at any await. Each
life is told by its seed; `make simulate` lives 500.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexer import follow, source
from indexer.known import Known
from indexer.prove import Contradiction
from indexer.reconcile import Extend, Look, ReorgBelowFinality, Step, TakeBack, View, Wait, reconcile
from nektar.bus.sqlite import SqliteBus
from nektar.chain.rpc import Unreachable
from tests.indexer.process import Process, assert_tells, network
from tests.indexer.rules import named
from tests.indexer.world import Chain, Made, Node

ROWS = tuple(f"row {number}" for number in range(1, 13))
HAPPENINGS = (
    *("reorg", "two reorgs at once", "reorg while down", "reorg between two answers", "reorg below final"),
    *("provider behind", "provider far behind", "provider on another fork", "provider on a fork below final"),
    *("null", "safe back", "contradiction", "no answer", "history that nobody serves"),
    *("death at a record", "death at an await", "restart", "block undone"),
)
STEPS = 25


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often what happened. Rows are those of the table in `indexer/reconcile.py`, read again here."""
    met = Counter[str]()

    def watched(known: Known, view: View) -> Step:
        try:
            step = reconcile(known, view)
        except ReorgBelowFinality:
            met["row 12"] += 1
            raise
        met[f"row {row(known, view, step)}"] += 1
        return step

    async def here_and_now(function: Callable[..., Any], *arguments: Any) -> Any:
        """A thread's work without the thread, so that a seed tells all."""
        await asyncio.sleep(0)
        done = function(*arguments)
        await asyncio.sleep(0)
        return done

    monkeypatch.setattr(follow, "reconcile", watched)
    monkeypatch.setattr(asyncio, "to_thread", here_and_now)
    monkeypatch.setattr(follow, "GAP_PATIENCE", 0.0)
    monkeypatch.setattr(follow, "STANDSTILL", 0.0)  # set by each life
    monkeypatch.setattr(source, "PAUSES_AFTER_NULL", (0.0, 0.0))
    monkeypatch.setattr(source, "PAUSES_AFTER_REFUSAL", (0.0,))
    return met


def row(known: Known, view: View, step: Step) -> int:
    """The row of the table that this is, which the step has to be the one of."""
    latest, tip = view.heads.latest, known.tip
    if tip is None:
        assert isinstance(step, Wait if latest.number < known.first else Extend)
        return 1 if latest.number < known.first else 2
    if known.base is not None and latest.number < known.base.number:
        assert isinstance(step, Wait)
        return 5
    at = min(latest.number, tip.number)
    ours, theirs = known.hash_at(at), view.at(at) if view.seen(at) else None
    if latest.number <= tip.number and (ours is None or theirs is None or ours == theirs.hash):
        assert isinstance(step, Wait)
        return 3 if latest.number == tip.number else 4
    if latest.number > tip.number:
        child = view.at(tip.number + 1) if view.seen(tip.number + 1) else None
        if not view.seen(tip.number + 1) or (child is not None and child.parent == tip.hash):
            assert isinstance(step, Extend)
            assert step.first == tip.number + 1
            return 7 if child else 6
        if child is None:
            assert isinstance(step, Wait)
            return 8
    if isinstance(step, TakeBack):
        stands = view.at(step.last) if view.seen(step.last) else None
        assert step.last == known.first - 1 or (stands and stands.hash == known.hash_at(step.last))
        assert known.base is None or step.last >= known.base.number
        return 10
    assert isinstance(step, Look | Wait)
    return 9 if isinstance(step, Look) else 11


class Life:
    """One life, as its seed tells it."""

    def __init__(self, seed: int, bus: SqliteBus, met: Counter[str]) -> None:
        self.rng = rng = random.Random(seed)
        self.met = met
        self.chain = Chain(rng, safe=rng.randint(0, 3), final=rng.randint(3, 9))
        self.chain.mine(rng.randint(0, 90))
        self.nodes = [Node(name, self.chain, rng, rng.randint(1, 6)) for name in "abc"[: rng.randint(1, 3)]]
        self.first = rng.choice([0, 0, 7, self.chain.head + 3])
        self.pruned = self.chain.finalized if seed % 10 == 0 else 0
        # At once, each look at a chain that stands still is at another provider's: many small reorgs.
        follow.STANDSTILL = 0.0 if seed % 6 == 0 else 30.0
        self.ends_below_final = seed % 7 == 0
        for node in self.nodes:
            node.dawdles = True
            node.unpruned = self.pruned
            node.fails, node.lies = rng.choice([0.0, 0.1]), rng.choice([0.0, 0.0, 0.02])
            # Nothing waits here, so a null that comes again and again would be history that nobody serves.
            node.nulls = 0.0 if self.pruned else rng.choice([0.0, 0.1])
        # Who says what can't be: those that lie, or that have shown a fork below what they had called final.
        self.to_be_named = {node.name for node in self.nodes if node.lies}
        self.process = Process(bus, self.nodes, network(from_block=self.first))
        self.process.log.chance, self.process.log.rng = rng.choice([0.0, 0.1, 0.3]), rng

    def live(self) -> None:
        with self.process:
            for _ in range(STEPS):
                self.turn()
            self.recover()
            if self.ends_below_final:
                self.end_below_final()
        self.account()

    def turn(self) -> None:
        rng, chain = self.rng, self.chain
        if rng.random() < 0.7:
            chain.mine(rng.randint(1, 3))
        if rng.random() < 0.3:
            self.reorg()
            if rng.random() < 0.3:
                self.reorg()
                self.met["two reorgs at once"] += 1
        if rng.random() < 0.1 and chain.safe > chain.finalized:
            chain.safe -= rng.randint(1, chain.safe - chain.finalized)
            self.met["safe back"] += 1
        for node in self.nodes:
            self.turn_of(node)
        # One provider alone that shows another chain below what is final would end the Network, as it should.
        if all(node.disputes(number) for node in self.nodes for number in [chain.finalized]):
            rng.choice(self.nodes).catch_up()
        for _ in range(rng.randint(0, 2)):
            deaths = self.process.deaths
            if rng.random() < 0.15:
                self.process.look(dies_after=rng.randint(1, 60))
                self.met["death at an await"] += self.process.deaths - deaths
            else:
                self.process.look()
                self.met["death at a record"] += self.process.deaths - deaths
        if rng.random() < 0.1:
            self.met["restart"] += 1
            self.process.log.close()
            if rng.random() < 0.5:
                self.reorg()
                self.met["reorg while down"] += 1
            self.process.start(self.process.log.chance, rng)

    def turn_of(self, node: Node) -> None:
        rng, chain = self.rng, self.chain
        what = rng.random()
        if what < 0.15:
            blocks = rng.randint(0, min(3, chain.head))
            node.fall_behind(blocks)
            self.met["provider behind"] += 1
        elif what < 0.2 and chain.head > chain.deepest + 4:
            node.fall_behind(chain.deepest + rng.randint(1, 3))
            self.met["provider far behind"] += 1
        elif what < 0.3:
            node.wander(rng.randint(0, chain.deepest), rng.randint(1, 4))
            self.met["provider on another fork"] += 1
        elif what < 0.35 and len(self.nodes) > 1 and chain.head > chain.deepest + 4:
            depth = chain.deepest + rng.randint(1, 3)
            node.wander(depth, depth + rng.randint(0, 3))
            self.to_be_named.add(node.name)
            self.met["provider on a fork below final"] += 1
        elif what < 0.8:
            node.catch_up()
        node.between = []
        if rng.random() < 0.2:
            node.between = [self.reorg_between]

    def reorg(self) -> None:
        if depth := self.rng.randint(0, self.chain.deepest):
            self.chain.reorg(depth, self.rng.randint(max(0, depth - 1), depth + 2))
            self.met["reorg"] += 1

    def reorg_between(self) -> None:
        self.reorg()
        self.met["reorg between two answers"] += 1

    def recover(self) -> None:
        """All is well again, and nothing of it is to be seen any more."""
        self.met["null"] += sum(node.nulls > 0 for node in self.nodes)
        for node in self.nodes:
            node.catch_up()
            node.between, node.fails, node.nulls, node.lies = [], 0, 0, 0
        self.process.log.chance = 0.0
        self.process.look(6)
        # Also where the chain is shorter now. One that ends in a block of ours looks like a provider behind.
        heads = {block.hash for block in self.process.reading.blocks}
        assert self.chain.head < self.first or self.chain.blocks[-1].hash in heads
        self.chain.mine(10)
        self.process.look(6)
        self.assert_told(self.chain.blocks)
        reading = self.process.reading
        assert reading.finalized is not None
        assert reading.safe is not None
        assert (reading.finalized.number, reading.safe.number) == (self.chain.finalized, self.chain.safe)
        known = self.process.log.known
        self.process.restart()
        again = self.process.log.known
        assert (again.base, again.marked) == (known.base, known.marked)
        assert [each.ref for each in again.unfinal] == [each.ref for each in known.unfinal]

    def assert_told(self, blocks: list[Made]) -> None:
        gaps = [entry for entry in self.process.reading.chain if isinstance(entry, tuple)]
        missing = {number for first, last in gaps for number in range(first, last + 1)}
        assert missing == {n for n in range(max(1, self.first), self.pruned)}
        self.met["history that nobody serves"] += len(gaps)
        assert_tells(self.process.reading, [m for m in blocks[self.first :] if m.number not in missing])

    def end_below_final(self) -> None:
        """The chain itself breaks its word: the Network stops, and its log stays as it is."""
        stood = list(self.chain.blocks)
        depth = self.chain.deepest + self.rng.randint(1, 3)
        self.chain.reorg(depth, depth + self.rng.randint(0, 3))
        self.to_be_named |= {node.name for node in self.nodes}
        with pytest.raises(ReorgBelowFinality, match=r"docs/RUNBOOK\.md#reorg-below-finality"):
            self.process.look(follow.SIGHTINGS * len(self.nodes))
        self.met["reorg below final"] += 1
        self.assert_told(stood)

    def account(self) -> None:
        errors = self.process.errors
        self.met["contradiction"] += sum(isinstance(error, Contradiction) for error in errors)
        self.met["no answer"] += sum(isinstance(error, Unreachable) for error in errors)
        self.met["block undone"] += self.process.reading.undone
        assert {name for name, _ in named(self.process.bus, "net")} <= self.to_be_named


def live_through(seeds: range, folder: Path, met: Counter[str]) -> None:
    for seed in seeds:
        with SqliteBus(folder / str(seed)) as bus:
            try:
                Life(seed, bus, met).live()
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
    missing = [each for each in (*ROWS, *HAPPENINGS) if not met[each]]
    assert not missing, f"never met in these lives: {missing}"
    assert set(met) == {*ROWS, *HAPPENINGS}


def test_the_surviving_log_is_the_chain_whatever_happens(tmp_path: Path, met: Counter[str]) -> None:
    live_through(range(60), tmp_path, met)


@pytest.mark.slow
def test_the_surviving_log_is_the_chain_in_five_hundred_lives(
    tmp_path: Path, met: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    live_through(range(500), tmp_path, met)
    with capsys.disabled():
        print(f"\n500 lives, {time.monotonic() - started:.0f} s")
        for each in (*ROWS, *HAPPENINGS):
            print(f"{met[each]:>7} × {each}")
