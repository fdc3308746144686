"""Every fold through the calculus: after any reorgs, as if the surviving chain were all there was."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest

from nektar import checkpoint, plugins
from nektar import fold as calculus
from nektar.fold import Fold
from nektar.log import Gap, Mark, New, Record, SignedBatch, ToldBatch, Undo
from nektar.model import (
    Block,
    BlockClosed,
    Brought,
    ChainEvent,
    Event,
    GapPassed,
    Heartbeat,
    Network,
    Signed,
    Told,
)
from nektar.rows import ONCE_FINAL, Change, Finding, FindingStatus
from processors.conditions.equivocation import Equivocation
from processors.conditions.invalid_response import InvalidResponse
from processors.conditions.missed_duty import MissedDuty
from processors.conditions.wrongful_slashing import WrongfulSlashing
from processors.folds.diagnosis import Diagnosis
from processors.folds.operators import Operators
from processors.folds.service_levels import ServiceLevels
from processors.folds.slashings import Slashings
from processors.folds.tasks import Tasks
from processors.folds.traces import Traces
from tests.processors.slashed import NETWORK, Slashed
from tests.processors.world import OPERATORS, Rows, World, history, put

Part = tuple[Block, tuple[ChainEvent, ...]]
CONDITIONS = [Equivocation.detect, InvalidResponse.detect, MissedDuty.detect, WrongfulSlashing.detect]
FOLDS = [Tasks(), Diagnosis(), Operators(), Slashings(), ServiceLevels(), Traces(), *CONDITIONS]
LIVES = 12


@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: fold.name)
def test_a_reorg_leaves_what_the_surviving_chain_alone_would(fold: Fold[Any]) -> None:
    for seed in range(15):
        rng = random.Random(f"reorgs {seed}")
        forks: list[World] = [Slashed(rng)]  # the Network after each block of the chain as it stands
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


@pytest.mark.parametrize("name", sorted({*plugins.names("nektar.conditions"), "tasks", "operators"}))
def test_what_explains_duties_moves_no_other_fold(name: str) -> None:
    fold: Fold[Any] = {"tasks": Tasks(), "operators": Operators()}.get(name) or plugins.load(
        "nektar.conditions", name
    )().detect
    network = msgspec.structs.replace(
        NETWORK,
        contracts={**NETWORK.contracts, **dict.fromkeys(("operator_registry", "delegation"), OPERATORS[3])},
        terms={**NETWORK.terms, "minimum": 5},
    )
    for seed in range(6):
        rng = random.Random(f"told {seed}")
        state = fold.initial(network)
        for event in history(rng, 12, of=Slashed):
            for told in (Heartbeat(OPERATORS[0], 1, 5), Slashed(rng).told()):
                assert fold.step(state, told) == (state, [])
            state, _ = fold.step(state, event)


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
        batch = SignedBatch(messages)
        ahead, _ = calculus.apply(fold, folded, new, events)
        ahead, _ = calculus.apply(fold, ahead, batch)
        back, _ = calculus.apply(fold, ahead, Undo((last,), {}))
        straight, _ = calculus.apply(fold, folded, batch)
        assert checkpoint.to_json(back.state) == checkpoint.to_json(straight.state)


class Written(NamedTuple):
    """A record, what happened in its blocks, and what of the log stands after it."""

    record: Record
    events: tuple[ChainEvent, ...]
    standing: tuple[Event, ...]


def life(
    rng: random.Random, records: int, of: type[World] = Slashed, kinds: str = "nnnnuummgss"
) -> list[Written]:
    """A log with all that a log can hold: blocks, undos, gaps, marks, and messages among them; of each kind
    as often as its letter stands in `kinds`, where t is what telemetry tells."""
    begun = of(rng)
    first, happened = begun.next_block()
    # Each with the Network as it was after it, which a message says nothing about.
    parts: list[tuple[Block | GapPassed | Brought, tuple[ChainEvent, ...], World]] = [
        (first, tuple(happened), begun)
    ]
    final = first.number
    log: list[Written] = []

    def write(record: Record, events: Sequence[ChainEvent] = ()) -> None:
        standing: list[Event] = []
        for what, those, _ in parts:
            standing += [*those, BlockClosed(what) if isinstance(what, Block) else what]
        log.append(Written(record, tuple(events), tuple(standing)))

    def brought(messages: list[Signed]) -> None:
        parts.extend((message, (), begun) for message in messages)
        if messages:
            write(SignedBatch(tuple(messages)))

    def told(messages: list[Told]) -> None:
        parts.extend((message, (), begun) for message in messages)
        write(ToldBatch(tuple(messages)))

    write(New((first,), {}), happened)
    while len(log) < records:
        places = [i for i, part in enumerate(parts) if not isinstance(part[0], Brought)]
        unfinal = [i for i in places if _first(parts[i][0]) > final]
        blocks = [b for i in unfinal if isinstance(b := parts[i][0], Block)]
        match rng.choice(kinds):
            case "u" if unfinal:
                gone = unfinal[-rng.randint(1, min(5, len(unfinal))) :]
                gaps = [i for i in gone if isinstance(parts[i][0], GapPassed)]
                gone = gone[gone.index(gaps[-1]) :] if gaps else gone
                taken = [parts[i][0] for i in reversed(gone)]
                parts[:] = [part for i, part in enumerate(parts) if i not in gone]
                gap = next(((g.first, g.last) for g in taken if isinstance(g, GapPassed)), None)
                write(Undo(tuple(b for b in taken if isinstance(b, Block)), {}, gap))
            case "m" if blocks:
                safe = rng.randrange(len(blocks))
                lowest = blocks[rng.randint(0, safe)]
                final = lowest.number
                write(Mark(blocks[safe].ref, lowest.ref))
            case "g" if rng.random() < 0.5:
                world = fork(_world(parts), rng)
                gap_ = world.gap()
                parts.append((gap_, (), world))
                write(Gap(gap_.first, gap_.last, world.parent, "no provider has them"))
            case "s":
                brought([m for _ in range(3) if (m := _world(parts).telemetry())])
            case "t":
                told([_world(parts).told() for _ in range(rng.randint(1, 12))])
            case "n":
                made: list[Part] = []
                coming: list[tuple[Block, tuple[ChainEvent, ...], World]] = []
                world = _world(parts)
                for _ in range(rng.randint(1, 3)):
                    world = fork(world, rng)
                    new, those = world.next_block()
                    made.append((new, tuple(those)))
                    coming.append((new, tuple(those), world))
                if rng.random() < 0.4:  # quicker than the indexer
                    brought([m for _ in range(4) if (m := world.telemetry())])
                    if "t" in kinds:
                        told([world.told() for _ in range(4)])
                parts += coming
                write(*record(made))
    return log


def _world(parts: Sequence[tuple[object, object, World]]) -> World:
    return next(world for what, _, world in reversed(parts) if not isinstance(what, Brought))


def _first(what: Block | GapPassed | Brought) -> int:
    assert not isinstance(what, Brought)
    return what.number if isinstance(what, Block) else what.first


@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: fold.name)
def test_whatever_a_log_holds_what_stands_is_what_the_rest_alone_would_leave(fold: Fold[Any]) -> None:
    for seed in range(LIVES):
        folded, rows = calculus.begin(fold, NETWORK), Rows()
        for offset, written in enumerate(life(random.Random(f"lives {seed}"), 20)):
            folded, changes = calculus.apply(fold, folded, written.record, written.events, offset)
            move(rows, changes)
            state, alone = fold.initial(NETWORK), Rows()
            for event in written.standing:
                state, said = fold.step(state, event)
                put(alone, said)
            assert checkpoint.to_json(folded.state) == checkpoint.to_json(state), (seed, offset)
            # What is known of a finding's block is the calculus's to say, and tested with it.
            seen = {
                key: msgspec.structs.replace(row, status=FindingStatus.SEEN)
                if isinstance(row, Finding)
                else row
                for key, row in rows.items()
                if not isinstance(row, ONCE_FINAL)
            }
            true_now = {key: row for key, row in alone.items() if not isinstance(row, ONCE_FINAL)}
            assert seen == true_now, (seed, offset)


@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: fold.name)
def test_from_any_checkpoint_the_rest_of_the_log_says_the_same(fold: Fold[Any]) -> None:
    for seed in range(LIVES):
        rng = random.Random(f"checkpoints {seed}")
        log = life(rng, 20)
        folded = calculus.begin(fold, NETWORK)
        said, saved = [], [checkpoint.encode(folded.steps[0])]
        for offset, written in enumerate(log):
            folded, changes = calculus.apply(fold, folded, written.record, written.events, offset)
            said.append(changes)
            saved.append(checkpoint.encode(folded.steps[0]))
            read = checkpoint.decode(saved[-1], fold)
            assert read.state == folded.steps[0].state
            assert checkpoint.encode(read) == saved[-1]
        at = rng.randrange(len(saved))
        step = checkpoint.decode(saved[at], fold)
        again = calculus.resume(step)
        for offset in range(step.offset, len(log)):
            record_, events = log[offset].record, log[offset].events
            if offset == step.offset and step.span:
                last = step.span.last
                blocks = record_.blocks if isinstance(record_, New) else ()
                if not (blocks := tuple(b for b in blocks if b.number > last)):
                    continue
                record_, events = New(blocks, {}), tuple(e for e in events if e.at and e.at.block > last)
            again, changes = calculus.apply(fold, again, record_, events, offset)
            if offset >= at:
                assert changes == said[offset], (seed, offset)
        assert checkpoint.to_json(again.state) == checkpoint.to_json(folded.state)


def test_what_is_said_once_final_is_what_the_final_chain_alone_says_and_nothing_ever_takes_it_back() -> None:
    fold, said_at_all = Traces(), 0
    for seed in range(2 * LIVES):
        folded, said = calculus.begin(fold, NETWORK), Rows()
        for offset, written in enumerate(life(random.Random(f"final {seed}"), 25)):
            folded, changes = calculus.apply(fold, folded, written.record, written.events, offset)
            put(said, [change for change in changes if isinstance(change.after or change.before, ONCE_FINAL)])
            final, alone, state = (
                folded.finalized.number if folded.finalized else -1,
                Rows(),
                fold.initial(NETWORK),
            )
            for event in written.standing:
                state, changes_ = fold.step(state, event)
                first = (
                    event.block.number if isinstance(event, BlockClosed) else getattr(event, "first", final)
                )
                if first <= final:
                    put(alone, [c for c in changes_ if isinstance(c.after, ONCE_FINAL)])
            assert said == alone, (seed, offset)
        said_at_all += len(said)
    assert said_at_all > 100


def retracted_in_lives(
    fold: Fold[Any],
    network: Network,
    lives: Iterable[Sequence[Written]],
    told: Callable[[Rows], object],
    oracle: Callable[[Sequence[Event]], object],
) -> int:
    """How many findings were retracted in these lives of a log, after each record of which `told` of what
    stands is what the oracle says of the chain that survives, and the state is that of this chain alone."""
    retracted = 0
    for number, life_ in enumerate(lives):
        folded, rows = calculus.begin(fold, network), Rows()
        for offset, written in enumerate(life_):
            folded, changes = calculus.apply(fold, folded, written.record, written.events, offset)
            retracted += sum(
                isinstance(change.after, Finding) and change.after.status == FindingStatus.RETRACTED
                for change in changes
            )
            move(rows, changes)
            assert told(rows) == oracle(written.standing), (number, offset)
            state = fold.initial(network)
            for event in written.standing:
                state, _ = fold.step(state, event)
            assert checkpoint.to_json(folded.state) == checkpoint.to_json(state), (number, offset)
    return retracted


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
