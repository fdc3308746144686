"""Service levels against what the whole list of events says of every Duty and every miss."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from nektar import checkpoint
from nektar import fold as calculus
from nektar.log import Undo
from nektar.model import (
    Address,
    At,
    Attested,
    BlockClosed,
    Event,
    GapPassed,
    Hash32,
    Network,
    OperatorSetCommitted,
    Paused,
    Position,
    Responded,
    Task,
    TaskCancelled,
    TaskSubmitted,
    Unpaused,
)
from nektar.rows import Finding, ServiceRow
from processors.conditions.missed_duty import MissedDuty, Watch
from processors.folds.service_levels import Levels, ServiceLevels
from tests.processors import world
from tests.processors.conditions.test_missed_duty import careless, linked, network, record, relinked, taken
from tests.processors.folds.test_tasks import duty_rows
from tests.processors.folds.test_windows import STEPS, held
from tests.processors.world import OPERATORS, Rows, block, history, put, registered, set_of, task
from tests.seeds import seeds

FOLD = ServiceLevels()
SEEDS = seeds(24, 48)
WINDOWS = ("5m", "30m", "1h", "6h", "3d", "30d")
HOUR = 3_600


# --- the oracle -------------------------------------------------------------------------------------

Content = dict[bytes, tuple[tuple[int, ...], int]]


def oracle(events: Sequence[Event], of: Network) -> Iterator[tuple[int, dict[bytes, ServiceRow]]]:
    """(index, rows after it) of each end of a block or a gap, from all that happened up to it."""
    allowance, window = of.terms["miss_allowance"], of.terms["miss_window"]
    before: Content = {}
    rows: dict[bytes, ServiceRow] = {}
    for i, event in enumerate(events):
        if not isinstance(event, BlockClosed | GapPassed):
            continue
        times = times_of(events[: i + 1])
        now = max(times.values(), default=0)
        head = event.block.number if isinstance(event, BlockClosed) else event.last
        content = content_of(events[: i + 1], times, allowance, window)
        for operator in content.keys() | before.keys():
            if operator not in content:
                del rows[operator]
            elif content[operator] != before.get(operator):
                sums, left = content[operator]
                meets = meets_time(times, now, head, sums[-1], left, allowance, window)
                rows[operator] = ServiceRow(operator, *sums, left, now, meets)  # type: ignore[call-arg]
        before = content
        yield i, dict(rows)


def times_of(events: Sequence[Event]) -> dict[int, int]:
    """Block → its time, or the latest before it where that is later."""
    times: dict[int, int] = {}
    for event in events:
        if isinstance(event, BlockClosed):
            times[event.block.number] = max(event.block.time, *times.values(), 0)
    return times


def content_of(events: Sequence[Event], times: dict[int, int], allowance: int, window: int) -> Content:
    now = max(times.values(), default=0)
    sums: dict[bytes, Counter[str]] = {}
    for i, event in enumerate(events):
        if not isinstance(event, TaskSubmitted):
            continue
        for row in duty_rows(event.task, events[:i], events[i:], events):
            if row.state not in ("signed", "late", "missed"):
                continue
            stake, at = stake_of(event.task, row.operator, events[:i]), times[row.decided_block]
            for name in (name for name in WINDOWS if held(name, at, now)):
                of = sums.setdefault(row.operator, Counter())
                of[f"eligible {name}"] += stake
                of[f"failed {name}"] += stake * (row.state != "signed")
                of[f"missed {name}"] += row.state == "missed"
    misses = held_misses(events, allowance, window)
    return {
        operator: (
            (
                *(of[f"eligible {name}"] for name in WINDOWS),
                *(of[f"failed {name}"] for name in WINDOWS),
                of["missed 6h"],
            ),
            allowance - most_in_one_window(misses.get(operator, []), window),
        )
        for operator in sums.keys() | misses.keys()
        if any((of := sums.get(operator, Counter())).values()) or operator in misses
    }


def stake_of(about: Task, operator: bytes, earlier: Sequence[Event]) -> int:
    sets = [e.set for e in earlier if isinstance(e, OperatorSetCommitted) and e.set.hash == about.set_hash]
    (member,) = (each for each in sets[-1].members if each.operator == operator)
    return sum(position.amount for position in member.stake)


def held_misses(events: Sequence[Event], allowance: int, window: int) -> dict[bytes, list[int]]:
    """Operator → blocks of submission of those misses that one of a Task that is open, or to come, can lie in
    one window with."""
    passed = max(e.block.number if isinstance(e, BlockClosed) else e.last for e in ends(events))
    tasks = [e.task for e in events if isinstance(e, TaskSubmitted)]
    others = [each.submitted.block for each in tasks if each.deadline.value + each.grace > passed]
    found: dict[bytes, list[int]] = {}
    for miss in taken(events, allowance, window)[1]:
        if any(abs(each - miss.submitted) < window for each in (*others, passed + 1)):
            found.setdefault(miss.operator, []).append(miss.submitted)
    return found


def ends(events: Sequence[Event]) -> list[BlockClosed | GapPassed]:
    return [event for event in events if isinstance(event, BlockClosed | GapPassed)]


def most_in_one_window(submitted: Sequence[int], window: int) -> int:
    return max((sum(0 <= each - first < window for each in submitted) for first in submitted), default=0)


def meets_time(
    times: dict[int, int], now: int, head: int, missed: int, left: int, allowance: int, window: int
) -> int:
    """At the pace of the last 6 hours: since the first block in them, by the cell that holds it by now."""
    lately = [(number, time) for number, time in times.items() if held("6h", time, now)]
    if not lately or not missed:
        return 0
    first, began = min(lately)
    cell = 60 if held("5m", began, now) else 300 if held("1h", began, now) else 1_800
    span = allowance * (head - first + 1) / missed  # blocks from the first to the last of so many
    in_seconds = (left + 1) * (now - began // cell * cell) / missed
    return 0 if span >= window else now + -int(-in_seconds // 1)


def timed(events: Sequence[Event], rng: random.Random) -> list[Event]:
    """The same at other times: windows pass within a few blocks, and a clock goes back."""
    steps, now, told = (*STEPS[: rng.randrange(4, len(STEPS))], -30), 10**9 + rng.randrange(10**6), []
    for event in events:
        if isinstance(event, BlockClosed):
            now += rng.choice(steps)
            event = BlockClosed(msgspec.structs.replace(event.block, time=now))
        told.append(event)
    last = next(event.block for event in reversed(told) if isinstance(event, BlockClosed))
    over = msgspec.structs.replace(block(last.number + 1), time=now + 31 * 86_400)
    return [*told, BlockClosed(over)]


@pytest.mark.parametrize("part", range(4))
def test_every_row_is_what_all_that_happened_says_after_every_block(part: int) -> None:
    met = Counter[str]()
    for seed in range(part, SEEDS, 4):
        rng = random.Random(f"service levels {seed}")
        made = careless(rng, 30) if seed % 3 else history(rng, 30)
        events, of = timed(made, rng), network(rng.randrange(3), rng.choice((1, 4, 9, 1_000)))
        expected = dict(oracle(events, of))
        state, rows = FOLD.initial(of), Rows()
        for i, event in enumerate(events):
            state, changes = FOLD.step(state, event)
            assert all(change.before != change.after for change in changes)
            put(rows, changes)
            if i not in expected:
                assert not changes
                continue
            said = {row.operator: row for row in rows.values() if isinstance(row, ServiceRow)}
            assert said == expected[i], (seed, i)
            met["gone"] += sum(change.after is None for change in changes)
            met["meets"] += sum(row.meets_time > 0 for row in said.values())
            met["none left"] += sum(row.misses_left == 0 for row in said.values())
            met["less failed than eligible"] += sum(0 < r.failed_1h < r.eligible_1h for r in said.values())
            met["only long ago"] += sum(r.eligible_6h == 0 < r.eligible_30d for r in said.values())
    assert all(met[what] > seeds(0, 10) for what in met), met
    assert len(met) == 5


def test_a_reorg_leaves_what_the_surviving_chain_alone_would_at_whatever_times_its_blocks_were() -> None:
    of, undone = network(1, 9), 0
    for seed in range(24):
        rng = random.Random(f"service levels, undone {seed}")
        parts = linked(timed(careless(rng, 30), rng), salt=0)
        clock = 10**9
        for i, (made, those) in enumerate(parts):
            clock += rng.choice(STEPS[:8])
            parts[i] = (msgspec.structs.replace(made, time=clock), those)
        folded, rows = calculus.begin(FOLD, of), Rows()
        i = 0
        while i < len(parts):
            other = [
                (b, [e for e in those if not isinstance(e, Attested | Responded)])
                for b, those in parts[i : i + rng.randint(0, 6)]
            ]
            if i and other:  # first another fork, whose blocks come later
                other = [
                    (msgspec.structs.replace(b, time=parts[i][0].time + 10**4 * n), those)
                    for n, (b, those) in enumerate(relinked(other, parts[i - 1][0].hash, salt=1 + seed))
                ]
                folded, changes = calculus.apply(FOLD, folded, *record(other))
                put(rows, changes)
                back = Undo(tuple(made for made, _ in reversed(other)), {})
                folded, changes = calculus.apply(FOLD, folded, back)
                put(rows, changes)
                undone += len(other)
            step = rng.randint(1, 4)
            folded, changes = calculus.apply(FOLD, folded, *record(parts[i : i + step]))
            put(rows, changes)
            i += step
        straight, changes = calculus.apply(FOLD, calculus.begin(FOLD, of), *record(parts))
        alone = Rows()
        put(alone, changes)
        assert checkpoint.to_json(folded.state) == checkpoint.to_json(straight.state), seed
        assert rows == alone, seed
    assert undone > 100


# --- how many misses are left -----------------------------------------------------------------------


@pytest.mark.parametrize(("allowance", "window"), [(0, 5), (1, 9), (2, 9), (2, 1_000)])
def test_so_many_more_misses_find_nothing_and_one_more_does_where_none_lies_too_far_back(
    allowance: int, window: int
) -> None:
    of, detect = network(allowance, window), MissedDuty.detect
    near = some = 0
    for seed in range(30):
        rng = random.Random(f"left {seed}")
        events = [e for e in careless(rng, 30) if not isinstance(e, GapPassed | Paused | Unpaused)]
        state, watch = FOLD.initial(of), detect.initial(of)
        for event in events:
            state, _ = FOLD.step(state, event)
            watch, _ = detect.step(watch, event)
        head = next(e.block.number for e in reversed(events) if isinstance(e, BlockClosed))
        for operator in OPERATORS[:2]:
            left = state.misses.left(operator)
            misses = state.misses.of.get(operator, ())
            assert findings(watch, missing(state, head, operator, left), operator) == 0, seed
            some += left > 0
            if all(head + 1 - miss.submitted < window for miss in misses):
                assert findings(watch, missing(state, head, operator, left + 1), operator) == 1, seed
                near += 1
    assert near > 10
    assert some > 10 or not allowance


def missing(state: Levels, head: int, operator: Address, count: int) -> list[Event]:
    """So many Tasks of the block after `head` that the Operator misses, alone in their set; of all that are
    open nothing comes."""
    committed, at = set_of([(operator, 1)]), head + 1
    opened = sorted(state.misses.ledger.tasks)
    made: list[Event] = [TaskCancelled(At(at, 0, i), each) for i, each in enumerate(opened)]
    made.append(OperatorSetCommitted(At(at, 1, 0), committed))
    for i in range(count):
        each = task(At(at, 2 + i, 0), committed.hash, 10_000 + i, at, 0)
        made.append(TaskSubmitted(each.submitted, each))
    return [*made, BlockClosed(block(at))]


def findings(watch: Watch, events: Sequence[Event], operator: Address) -> int:
    """How many there are of this Operator."""
    found = 0
    for event in events:
        watch, said = MissedDuty.detect.step(watch, event)
        found += sum(isinstance(c.after, Finding) and c.after.operator == operator for c in said)
    return found


# --- by example -------------------------------------------------------------------------------------

ALICE, BOB = OPERATORS[:2]
MEMBERS = msgspec.structs.replace(
    (pair := set_of([(ALICE, 1), (BOB, 2)])),
    members=tuple(
        msgspec.structs.replace(member, stake=(Position("it", amount), Position("that", 1)))
        for member, amount in zip(pair.members, (29, 69), strict=True)
    ),
)
BEGIN: list[Event] = [
    registered(At(1, 0, 0), ALICE, 1),
    registered(At(1, 1, 0), BOB, 2),
    OperatorSetCommitted(At(1, 2, 0), MEMBERS),
]
TASK = task(At(2, 0, 0), MEMBERS.hash, 1, deadline=4, grace=2)
SUBMITTED = TaskSubmitted(TASK.submitted, TASK)
START = 1_800_000_000 - 1_800_000_000 % 86_400


def closed(number: int, after: int = 12) -> BlockClosed:
    """A block `after` seconds times its number from the start of a day."""
    return BlockClosed(msgspec.structs.replace(block(number), time=START + after * number))


def play(
    *events: Event, of: Network = world.NETWORK, after: int = 12
) -> tuple[Levels, dict[bytes, ServiceRow]]:
    """Where no ends of blocks are given, they come of themselves, up to the 6th."""
    state, rows = FOLD.initial(of), Rows()
    if not any(isinstance(event, BlockClosed | GapPassed) for event in events):
        numbered = sorted(((e.at.block, e) for e in events), key=lambda pair: pair[0])  # type: ignore[union-attr]
        events = tuple(
            event
            for number in range(1, 7)
            for event in (*(e for at, e in numbered if at == number), closed(number, after))
        )
    for event in events:
        state, changes = FOLD.step(state, event)
        put(rows, changes)
    return state, {row.operator: row for row in rows.values() if isinstance(row, ServiceRow)}


def test_a_duty_counts_by_the_stake_of_its_tasks_set_once_it_is_decided_and_late_is_not_on_time() -> None:
    signed = Attested(At(3, 0, 0), TASK.hash, ALICE, Hash32(bytes(32)), True)
    late = Attested(At(5, 0, 0), TASK.hash, BOB, Hash32(bytes(32)), True)
    _, rows = play(*BEGIN, SUBMITTED, signed, late)
    assert (rows[ALICE].eligible_5m, rows[ALICE].failed_5m) == (30, 0)
    assert (rows[BOB].eligible_30d, rows[BOB].failed_30d, rows[BOB].missed_6h) == (70, 70, 0)
    assert [row.misses_left for row in rows.values()] == [1, 1]
    assert rows[ALICE].time == START + 36  # nothing has changed since


def test_what_is_excused_after_it_was_counted_counts_no_more_and_leaves_no_row() -> None:
    signed = Responded(At(3, 0, 0), TASK.hash, Hash32(b"d" * 32), ())
    _, rows = play(*BEGIN, SUBMITTED, signed)
    assert len(rows) == 2
    for after in (12, 90, 4 * HOUR, 6 * 86_400):  # whichever cell it is in by then, or none
        cancelled = TaskCancelled(At(6, 0, 0), TASK.hash)
        state, rows = play(*BEGIN, SUBMITTED, signed, cancelled, after=after)
        assert rows == {}
        assert all(not cell.counts for cell in state.cells)


def test_an_hour_later_it_is_in_the_longer_windows_alone() -> None:
    events = [*BEGIN, closed(1), SUBMITTED, *(closed(number) for number in range(2, 7))]
    _, rows = play(*events, BlockClosed(msgspec.structs.replace(block(7), time=START + HOUR + 300)))
    row = rows[BOB]
    assert (row.failed_5m, row.failed_30m, row.failed_1h) == (0, 0, 0)
    assert (row.failed_6h, row.failed_3d, row.failed_30d, row.missed_6h) == (70, 70, 70, 1)
    _, rows = play(*events, BlockClosed(msgspec.structs.replace(block(7), time=START + 30 * 86_400)))
    assert [row.failed_30d for row in rows.values()] == [0, 0]  # they stay for the miss that still counts


def test_without_the_contracts_terms_nothing_is_said_of_misses() -> None:
    bare = msgspec.structs.replace(world.NETWORK, terms={})
    state, rows = play(*BEGIN, SUBMITTED, of=bare)
    assert [(r.failed_5m, r.misses_left, r.meets_time) for r in rows.values()] == [(30, -1, 0), (70, -1, 0)]
    assert not state.misses.of
    assert not state.misses.tasks


def test_the_pace_of_the_last_hours_says_about_when_the_condition_is_met() -> None:
    # A miss in the six blocks since the log began, 12 seconds each: the second one, which is too many, is due
    # as long after; but where so few blocks count together, never.
    _, rows = play(*BEGIN, SUBMITTED, of=network(1, 8))
    assert {(row.misses_left, row.meets_time) for row in rows.values()} == {(0, START + 72 + 60 + 12)}
    _, rows = play(*BEGIN, SUBMITTED, of=network(1, 6))
    assert {(row.misses_left, row.meets_time) for row in rows.values()} == {(0, 0)}
    _, rows = play(*BEGIN, SUBMITTED, of=network(2, 100))
    assert {(row.misses_left, row.meets_time) for row in rows.values()} == {(1, START + 72 + 2 * 72)}


def test_a_gap_moves_no_time_and_makes_no_miss() -> None:
    events = [*BEGIN, closed(1), SUBMITTED, closed(2), GapPassed(3, 8)]
    state, rows = play(*events)
    assert (rows, state.time) == ({}, START + 24)


# --- at the size of a large Network -----------------------------------------------------------------


def test_a_month_of_a_large_network_is_a_row_and_some_seventy_cells_an_operator() -> None:
    members = [(Address(i.to_bytes(20, "big")), 1) for i in range(100)]
    committed = set_of(members)
    state, rows = FOLD.initial(world.NETWORK), Rows()
    state, _ = FOLD.step(state, OperatorSetCommitted(At(1, 0, 0), committed))
    sizes, number = [], 1
    for minute in range(0, 33 * 24 * 60, 29):
        number += 1
        each = task(At(number, 0, 0), committed.hash, number, number, 0)
        state, _ = FOLD.step(state, TaskSubmitted(each.submitted, each))
        state, _ = FOLD.step(
            state, Responded(At(number, 1, 0), each.hash, Hash32(b"d" * 32), (number % 100,))
        )
        made = msgspec.structs.replace(block(number), time=START + 60 * minute)
        state, changes = FOLD.step(state, BlockClosed(made))
        put(rows, changes)
        assert len(changes) <= len(members)
        if minute > 31 * 24 * 60:
            sizes.append((len(state.cells), len(checkpoint.to_json(state)) / len(members)))
    assert max(cells for cells, _ in sizes) < 76
    assert max(size for _, size in sizes) < 6_000
    assert {row.missed_6h for row in state.rows.values()} == {0, 1}
