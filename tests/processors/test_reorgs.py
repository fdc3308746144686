"""Every fold through the calculus: after any reorgs, as if the surviving chain were all there was."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import pytest

from nektar import checkpoint
from nektar import fold as calculus
from nektar.fold import Fold
from nektar.log import New, SignedBatch, Undo
from nektar.model import Block, ChainEvent, Change, Finding, Signed
from processors.conditions.equivocation import Equivocation
from processors.folds.operators import Operators
from processors.folds.tasks import Tasks
from tests.processors.world import NETWORK, Rows, World, put

Part = tuple[Block, tuple[ChainEvent, ...]]
FOLDS = [Tasks(), Operators(), Equivocation.detect]


@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: fold.name)
def test_a_reorg_leaves_what_the_surviving_chain_alone_would(fold: Fold[Any]) -> None:
    for seed in range(15):
        rng = random.Random(f"reorgs {seed}")
        forks = [World(rng)]  # the Network after each block of the chain as it stands
        chain: list[Part] = []
        folded, rows = calculus.begin(fold, NETWORK), Rows()
        for _ in range(24):
            if len(chain) > 2 and rng.random() < 0.25:
                depth = rng.randint(1, min(6, len(chain) - 1))
                gone = [made for made, _ in reversed(chain[-depth:])]
                del chain[-depth:], forks[-depth:]
                folded, changes = calculus.apply(fold, folded, Undo(tuple(gone), {}))
                move(rows, changes)
            made: list[Part] = []
            for _ in range(rng.randint(1, 3)):
                forks.append(fork(forks[-1], rng))
                block, happened = forks[-1].next_block()
                made.append((block, tuple(happened)))
            chain += made
            folded, changes = calculus.apply(fold, folded, *record(made))
            move(rows, changes)
        straight, changes = calculus.apply(fold, calculus.begin(fold, NETWORK), *record(chain))
        alone = Rows()
        put(alone, changes)
        assert checkpoint.to_json(folded.state) == checkpoint.to_json(straight.state), seed
        assert rows == alone, seed


def test_what_telemetry_brought_outlives_the_block_that_stood_under_it() -> None:
    fold = Equivocation.detect
    for seed in range(20):
        rng = random.Random(f"telemetry {seed}")
        world = World(rng, pauses=False)
        parts = [world.next_block() for _ in range(6)]
        folded, _ = calculus.apply(
            fold, calculus.begin(fold, NETWORK), *record([(b, tuple(e)) for b, e in parts])
        )
        last, happened = world.next_block()
        messages = tuple(m for _ in range(12) if (m := world.telemetry()))
        new, events = record([(last, tuple(happened))])
        batch = SignedBatch(messages, "collector")
        ahead, _ = calculus.apply(fold, folded, new, events)
        ahead, _ = calculus.apply(fold, ahead, batch)
        back, _ = calculus.apply(fold, ahead, Undo((last,), {}))
        straight, _ = calculus.apply(fold, folded, batch)
        assert checkpoint.to_json(back.state) == checkpoint.to_json(straight.state)


def fork(world: World, rng: random.Random) -> World:
    """The same Network, which may go another way: what happens next is drawn anew, keys are not."""
    world.rng = random.Random()
    other = copy.deepcopy(world)
    world.rng = other.rng = rng
    return other


def record(parts: list[Part]) -> tuple[New, list[ChainEvent]]:
    events = [event for _, happened in parts for event in happened if not _telemetry(event)]
    return New(tuple(block for block, _ in parts), {}), events


def _telemetry(event: ChainEvent) -> bool:
    return isinstance(event, Signed) and event.at is None


def move(rows: Rows, changes: Sequence[Change]) -> None:
    """As `put`; what was retracted is gone, and returns as if it were new."""
    put(rows, changes)
    for key in [key for key, row in rows.items() if isinstance(row, Finding) and row.status == "retracted"]:
        del rows[key]
