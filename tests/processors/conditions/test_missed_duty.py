"""Missed duty against a version of itself that reads it off the whole list of events."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import msgspec
import pytest
from immutables import Map

from nektar import checkpoint
from nektar import fold as calculus
from nektar.evidence import sought
from nektar.evidence.bundle import finding_id
from nektar.evidence.sought import EventSought, StateSought
from nektar.evidence.verify import Accused, NotProved
from nektar.facts import Accepted, Fact, Member, Stored, Submitted
from nektar.fold import Step
from nektar.log import New, Undo
from nektar.model import (
    Address,
    At,
    Attested,
    Block,
    BlockClosed,
    BlockRef,
    ChainEvent,
    Event,
    GapPassed,
    Hash32,
    KeyRotated,
    Level,
    MissCounted,
    OperatorDeregistered,
    OperatorSetCommitted,
    Paused,
    Responded,
    ResponseChallenged,
    Task,
    TaskCancelled,
    TaskSubmitted,
    UnknownTerm,
    Unpaused,
)
from nektar.networks.encoding import padded, word
from nektar.rows import Change, DutyRow, DutyState, Finding
from processors.conditions.missed_duty import MissedDuty
from processors.folds.misses import Misses
from processors.folds.tasks import Tasks
from tests.processors import world
from tests.processors.folds.test_tasks import duty_rows
from tests.processors.world import (
    CHAIN_ID,
    MANAGER,
    OPERATORS,
    STRANGER,
    Rows,
    block,
    history,
    key_of,
    put,
    registered,
    set_of,
    task,
)
from tests.seeds import seeds

CONDITION = MissedDuty()
FOLD = CONDITION.detect
SEEDS = seeds(24, 60)


def network(allowance: int, window: int) -> world.Network:
    return msgspec.structs.replace(
        world.NETWORK, terms={"miss_allowance": allowance, "miss_window": window, "minimum": 1}
    )


# --- the oracle -------------------------------------------------------------------------------------


class Missed(NamedTuple):
    number: int
    submitted: int
    task: bytes
    operator: bytes


Found = dict[bytes, tuple[bytes, tuple[bytes, ...], int]]


def oracle(events: Sequence[Event], allowance: int, window: int) -> Found:
    """Finding id → (Operator, its Tasks by number, block)."""
    return taken(events, allowance, window)[0]


def taken(events: Sequence[Event], allowance: int, window: int) -> tuple[Found, list[Missed]]:
    """What the oracle finds, and the misses that have counted for nothing yet, be they ever so long ago."""
    ends: dict[int, list[Missed]] = defaultdict(list)
    for i, event in enumerate(events):
        if isinstance(event, TaskSubmitted):
            for row in duty_rows(event.task, events[:i], events[i:], events):
                if row.state == DutyState.MISSED:
                    missed = Missed(row.task_number, event.at.block, row.task_hash, row.operator)
                    ends[row.deadline + row.grace].append(missed)
    found: Found = {}
    left: list[Missed] = []
    for event in events:
        if isinstance(event, MissCounted):
            left = [m for m in left if (m.task, m.operator) != (event.task_hash, event.operator)]
        if isinstance(event, BlockClosed):
            left = sorted(left + ends.get(event.block.number, []))
            for operator in {each.operator for each in left}:
                while chosen := earliest([m for m in left if m.operator == operator], allowance + 1, window):
                    name = finding_id("missed_duty", CHAIN_ID, MANAGER, chosen[-1].task, operator)
                    found[name] = (operator, tuple(m.task for m in chosen), event.block.number)
                    left = [m for m in left if m not in chosen]
    return found, left


def earliest(misses: list[Missed], count: int, window: int) -> tuple[Missed, ...]:
    near = [c for c in combinations(misses, count) if 0 <= c[-1].submitted - c[0].submitted < window]
    return min(near, default=())


# --- against it -------------------------------------------------------------------------------------


def careless(rng: random.Random, blocks: int) -> list[Event]:
    """A history in which little is signed and few blocks are not proved, so that much is missed; and the
    chain counts misses of its own choice, that are none too."""
    told: list[Event] = []
    ended: list[tuple[Hash32, Address]] = []
    tasks: dict[Hash32, Task] = {}
    quiet = rng.random()
    for event in history(rng, blocks, pauses=rng.random() < 0.3):
        if isinstance(event, Responded | Attested | TaskCancelled) and rng.random() < quiet:
            continue
        if isinstance(event, GapPassed) and rng.random() < 0.7:
            told += [BlockClosed(block(number)) for number in range(event.first, event.last + 1)]
            continue
        if isinstance(event, TaskSubmitted):
            tasks[event.task.hash] = event.task
        if isinstance(event, BlockClosed):
            if rng.random() < 0.7:
                event = BlockClosed(msgspec.structs.replace(event.block, level=Level.PROVED))
            number = event.block.number
            if ended and rng.random() < 0.2:
                told.append(MissCounted(At(number, 9, 9), STRANGER, Hash32(bytes(32)), *rng.choice(ended)))
            for each in [t for t in tasks.values() if t.deadline.value + t.grace <= number]:
                ended += [(each.hash, operator) for operator in OPERATORS]
                del tasks[each.hash]
        told.append(event)
    return told


def tasks_of(finding: Finding) -> tuple[bytes, ...]:
    shown = sought.read(finding.facts)
    assert shown.subject == finding.task_hash
    return tuple(hash_of(claim.task) for claim in shown.whole)


def hash_of(preimage: bytes) -> bytes:
    return bytes(world.keccak(preimage))


def told(rows: Rows) -> Found:
    findings = [row for row in rows.values() if isinstance(row, Finding)]
    assert len(findings) == len(rows)
    assert {finding.level for finding in findings} <= {"proved"}
    return {f.id: (f.operator, tasks_of(f), f.block_number) for f in findings}


@pytest.mark.parametrize(("allowance", "window"), [(0, 1), (1, 4), (1, 100), (2, 6), (2, 9)])
def test_what_is_found_is_what_the_rule_says(allowance: int, window: int) -> None:
    count = 0
    for seed in range(SEEDS):
        events = careless(random.Random(f"missed {seed}"), 40)
        state, rows = FOLD.initial(network(allowance, window)), Rows()
        for event in events:
            state, changes = FOLD.step(state, event)
            put(rows, changes)
            if isinstance(event, BlockClosed | GapPassed):
                assert_tidy(
                    state.misses, event.block.number if isinstance(event, BlockClosed) else event.last
                )
        assert told(rows) == oracle(events, allowance, window), f"seed {seed}"
        count += len(rows)
    assert count > 2 * SEEDS


def assert_tidy(state: Misses, passed: int) -> None:
    """Misses, Tasks and sets are held for each other and nothing else, and those Tasks alone whose grace has
    passed that one which is open or to come can lie in one window with."""
    holds: dict[Hash32, int] = defaultdict(int)
    missed = {(miss.task, operator) for operator, misses in state.of.items() for miss in misses}
    opened = [each.task.submitted.block for each in state.ledger.tasks.values()]
    for owed in (*state.tasks.values(), *(each for each in state.ledger.tasks.values() if each.everyone)):
        holds[owed.task.set_hash] += 1
    for set_hash, committed in state.ledger.registry.sets.items():
        assert committed.holds == holds[set_hash]
    for task_hash, owed in state.tasks.items():
        members = enumerate(state.ledger.registry.held(owed.task.set_hash))
        these = {(task_hash, member.operator) for place, member in members if owed.missed >> place & 1}
        assert these == {each for each in missed if each[0] == task_hash}
        if task_hash not in state.ledger.tasks:
            assert these
            others = [*opened, passed + 1]
            assert any(abs(each - owed.task.submitted.block) < state.window for each in others)
    assert {task_hash for task_hash, _ in missed} <= {*state.tasks}


def test_it_says_missed_of_no_duty_of_which_the_ledger_does_not() -> None:
    for seed in range(SEEDS):
        events = careless(random.Random(f"ledger {seed}"), 30)
        state, rows = FOLD.initial(network(0, 1)), Rows()
        ledger, duties = Tasks().initial(world.NETWORK), Rows()
        for event in events:
            state, changes = FOLD.step(state, event)
            put(rows, changes)
            ledger, changes = Tasks().step(ledger, event)
            put(duties, changes)
        for finding in (row for row in rows.values() if isinstance(row, Finding)):
            row = duties["duties", finding.task_hash, finding.operator]
            assert isinstance(row, DutyRow)
            assert (row.state, row.decided_block) == (DutyState.MISSED, finding.block_number)


def test_reorgs_leave_what_the_surviving_chain_alone_would() -> None:
    found = 0
    for seed in range(SEEDS):
        rng = random.Random(f"missed, undone {seed}")
        parts = linked(careless(rng, 30), salt=0)
        folded, rows = calculus.begin(FOLD, NETWORK), Rows()
        i = 0
        while i < len(parts):
            # Some blocks of another fork first, in which nobody attests or everybody does.
            depth, kinds = rng.randint(0, 8), rng.choice([(Attested, Responded), (Paused,), ()])
            other = [(b, [e for e in those if not isinstance(e, kinds)]) for b, those in parts[i : i + depth]]
            other = relinked(other, parts[i - 1][0].hash if i else world.ZERO, salt=1 + seed)
            if i and other:
                folded, changes = calculus.apply(FOLD, folded, *record(other))
                put_all(rows, changes)
                undo = Undo(tuple(made for made, _ in reversed(other)), {})
                folded, changes = calculus.apply(FOLD, folded, undo)
                put_all(rows, changes)
            step = rng.randint(1, 4)
            folded, changes = calculus.apply(FOLD, folded, *record(parts[i : i + step]))
            put_all(rows, changes)
            i += step
        straight, changes = calculus.apply(FOLD, calculus.begin(FOLD, NETWORK), *record(parts))
        alone = Rows()
        put(alone, changes)
        assert checkpoint.to_json(folded.state) == checkpoint.to_json(straight.state), seed
        assert rows == alone, seed
        found += len(alone)
    assert found > 50


Part = tuple[Block, list[ChainEvent]]


def linked(events: Sequence[Event], salt: int) -> list[Part]:
    """Blocks of these events, one after the other; those of a gap are linked ones with nothing in them."""
    parts: list[Part] = []
    those: list[ChainEvent] = []
    for event in events:
        if isinstance(event, BlockClosed):
            parts.append((event.block, those))
            those = []
        elif isinstance(event, GapPassed):
            parts += [(block(n, level=Level.LINKED), []) for n in range(event.first, event.last + 1)]
        elif event.at is not None:
            those.append(event)
    return relinked(parts, world.ZERO, salt)


def relinked(parts: Sequence[Part], parent: Hash32, salt: int) -> list[Part]:
    made: list[Part] = []
    for before, those in parts:
        made.append((block(before.number, parent, before.level, salt), those))
        parent = made[-1][0].hash
    return made


def record(parts: Sequence[Part]) -> tuple[New, list[ChainEvent]]:
    return New(tuple(made for made, _ in parts), {}), [event for _, those in parts for event in those]


def put_all(rows: Rows, changes: Sequence[Change]) -> None:
    """As `put`; what was retracted is gone, and returns as if it were new."""
    put(rows, changes)
    for key in [key for key, row in rows.items() if isinstance(row, Finding) and row.status == "retracted"]:
        del rows[key]


# --- what the rule leaves to be said ----------------------------------------------------------------

NETWORK = network(1, 8)
ALICE, BOB = OPERATORS[:2]
MEMBERS = set_of([(ALICE, 1), (BOB, 2)])
DIGEST = Hash32(b"d" * 32)
BEGIN: list[Event] = [
    registered(At(1, 0, 0), ALICE, 1),
    registered(At(1, 1, 0), BOB, 2),
    OperatorSetCommitted(At(1, 2, 0), MEMBERS),
    BlockClosed(block(1)),
]


def submitted(number: int, at: int, deadline: int = 2, grace: int = 1) -> TaskSubmitted:
    """A Task with so many blocks until its deadline."""
    made = task(At(at, number, 0), MEMBERS.hash, number, at + deadline, grace)
    return TaskSubmitted(made.submitted, made)


def play(*events: Event, on: world.Network = NETWORK) -> tuple[Misses, list[Finding]]:
    """What is found where these happen, in blocks of their own, which are proved where that is not said."""
    state, said, number = FOLD.initial(on), list[Change](), 1
    for event in (*BEGIN, *events):
        upto = event.block.number if isinstance(event, BlockClosed) else event.at.block  # type: ignore[union-attr]
        while number < upto and number:
            state, changes = FOLD.step(state, BlockClosed(block(number)))
            said, number = [*said, *changes], number + 1
        state, changes = FOLD.step(state, event)
        said, number = [*said, *changes], number + isinstance(event, BlockClosed)
    assert all(change.before is None for change in said)
    return state.misses, [change.after for change in said if isinstance(change.after, Finding)]


def whom(findings: Sequence[Finding]) -> list[tuple[Address, int, int]]:
    return [(Address(f.operator), f.task_number, f.block_number) for f in findings]


ONE, TWO = submitted(1, 2), submitted(2, 3)
END = BlockClosed(block(9))
BOTH = [(ALICE, 2, 6), (BOB, 2, 6)]


def about(event: TaskSubmitted) -> Hash32:
    return event.task.hash


def test_two_misses_in_a_window_are_found_with_the_last_ones_grace() -> None:
    _, findings = play(ONE, TWO, END)
    assert whom(findings) == BOTH
    for finding in findings:
        assert finding.id == finding_id("missed_duty", CHAIN_ID, MANAGER, about(TWO), finding.operator)
        assert (finding.level, finding.task_hash) == ("proved", about(TWO))


def test_the_last_task_is_that_with_the_highest_number_whichever_ends_last() -> None:
    long = submitted(1, 2, deadline=10)
    _, findings = play(long, TWO, BlockClosed(block(14)))
    assert whom(findings) == [(ALICE, 2, 13), (BOB, 2, 13)]


def test_of_several_windows_it_is_the_earliest_and_a_miss_counts_once() -> None:
    _, findings = play(*(submitted(n, 1 + n) for n in range(1, 6)), BlockClosed(block(12)))
    assert [each for each in whom(findings) if each[0] == ALICE] == [(ALICE, 2, 6), (ALICE, 4, 8)]
    # All of them end together, the one with the lowest number too late for any before.
    ends = [submitted(n, 1 + n, deadline=8 - n) for n in range(1, 6)]
    _, findings = play(*ends, BlockClosed(block(12)))
    assert [(f.task_number, f.block_number) for f in findings if f.operator == ALICE] == [(2, 10), (4, 10)]


def test_a_window_is_so_many_blocks_of_submissions() -> None:
    assert whom(play(ONE, submitted(2, 9), BlockClosed(block(12)))[1]) == [(ALICE, 2, 12), (BOB, 2, 12)]
    assert play(ONE, submitted(2, 10), BlockClosed(block(13)))[1] == []


def test_what_the_chain_has_counted_counts_no_more() -> None:
    counted = MissCounted(At(6, 0, 0), STRANGER, Hash32(bytes(32)), about(ONE), ALICE)
    assert whom(play(ONE, TWO, counted, END)[1]) == [(BOB, 2, 6)]
    third = submitted(3, 4)
    assert whom(play(ONE, TWO, third, counted, END)[1]) == [(BOB, 2, 6), (ALICE, 3, 7)]


def test_who_was_framed_is_not_found() -> None:
    framed: dict[str, list[Event]] = {
        "attested in the last block of the grace": [Attested(At(5, 0, 0), about(ONE), ALICE, DIGEST, True)],
        "in a quorum that was challenged later": [
            Responded(At(3, 1, 0), about(ONE), DIGEST, (1,), 9),
            ResponseChallenged(At(4, 0, 0), about(ONE)),
        ],
    }
    for why, events in framed.items():
        happened = sorted([ONE, TWO, *events, END], key=place)
        assert whom(play(*happened)[1]) == BOTH[1:], why


def place(event: Event) -> tuple[int, int]:
    return (event.block.number, 99) if isinstance(event, BlockClosed) else (event.at.block, event.at.tx)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("events", "excused"),
    [
        ([Unpaused(At(2, 0, 0))], True),  # in the block of the submission, before it
        ([Paused(At(2, 0, 0)), Unpaused(At(2, 0, 1))], True),
        ([Paused(At(2, 8, 0)), Unpaused(At(2, 8, 1))], True),  # after it
        ([Paused(At(4, 0, 0)), Unpaused(At(4, 0, 1))], True),  # in the deadline's
        ([Paused(At(1, 8, 0)), Unpaused(At(1, 8, 1))], False),
        ([Paused(At(5, 0, 0))], False),
        ([TaskCancelled(At(4, 0, 0), submitted(1, 2).task.hash)], True),
        ([OperatorDeregistered(At(1, 8, 0), ALICE, 2)], True),
        ([OperatorDeregistered(At(2, 0, 0), ALICE, 3)], False),
        ([OperatorDeregistered(At(1, 8, 0), ALICE, 2), registered(At(1, 9, 0), ALICE, 7)], True),
        ([KeyRotated(At(1, 8, 0), ALICE, *key_of(7))], False),
    ],
)
def test_what_excuses_a_duty(events: list[Event], excused: bool) -> None:
    none, one = network(0, 1), submitted(1, 2)
    begun = [each for each in events if place(each) > (1, 2)]
    state, said = FOLD.initial(none), list[Change]()
    happened = sorted([*BEGIN, *begun, one, *(BlockClosed(block(n)) for n in range(2, 7))], key=place)
    for event in happened:
        state, changes = FOLD.step(state, event)
        said += changes
    assert (ALICE not in [c.after.operator for c in said if isinstance(c.after, Finding)]) is excused


@pytest.mark.parametrize("doubtful", [2, 3, 4, 5, 6])
def test_a_block_that_is_not_proved_or_a_gap_shows_no_miss(doubtful: int) -> None:
    for gap in (False, True):
        state, said = FOLD.initial(NETWORK), list[Change]()
        for event in (*BEGIN, ONE, *((TWO,) if doubtful == 2 else ())):
            state, _ = FOLD.step(state, event)
        for number in range(2, 12):
            if number == 3 != doubtful:
                state, _ = FOLD.step(state, TWO)
            if number == doubtful and gap:
                event: Event = GapPassed(number, number)
            else:
                level = Level.LINKED if number == doubtful else Level.PROVED
                event = BlockClosed(block(number, level=level))
            state, changes = FOLD.step(state, event)
            said += changes
        assert said == []
        assert not state.misses.of


def test_a_gap_after_the_commitment_hides_who_has_left_until_the_next() -> None:
    again = OperatorSetCommitted(At(7, 0, 0), MEMBERS)
    late = [submitted(1, 8), submitted(2, 9), BlockClosed(block(14))]
    doubt = BlockClosed(block(4, level=Level.LINKED))
    assert play(doubt, *late)[1] == []
    assert whom(play(doubt, again, *late)[1]) == [(ALICE, 2, 12), (BOB, 2, 12)]
    # In the block of the commitment itself it may have been before it.
    assert play(again, BlockClosed(block(7, level=Level.LINKED)), *late)[1] == []


def test_a_set_that_was_committed_before_the_log_begins_accuses_nobody() -> None:
    state, said = FOLD.initial(network(0, 1)), list[Change]()
    for event in (ONE, TWO, *(BlockClosed(block(n)) for n in range(2, 8))):
        state, changes = FOLD.step(state, event)
        said += changes
    assert (said, len(state.misses.tasks), len(state.misses.due)) == ([], 0, 0)


def test_of_a_response_that_does_not_tell_signers_by_places_nobody_is_found() -> None:
    for signers in (None, (key_of(1)[0],)):
        told = Responded(At(3, 1, 0), about(ONE), DIGEST, signers)
        state, findings = play(ONE, told, BlockClosed(block(9)), on=network(0, 1))
        assert (findings, len(state.tasks)) == ([], 0)


def test_a_task_whose_hash_is_of_nothing_that_can_be_shown_accuses_nobody() -> None:
    numbered = msgspec.structs.replace(ONE.task, preimage=b"")
    state, findings = play(TaskSubmitted(ONE.at, numbered), BlockClosed(block(9)), on=network(0, 1))
    assert (findings, len(state.tasks)) == ([], 0)


def test_a_response_after_the_deadline_is_none() -> None:
    late = Responded(At(5, 0, 0), about(ONE), DIGEST, ())
    _, findings = play(ONE, TWO, late, END)
    assert whom(findings) == BOTH


def test_misses_leave_with_the_last_task_that_could_lie_in_one_window_with_them() -> None:
    state, _ = play(ONE, BlockClosed(block(8)))
    assert (set(state.tasks), set(state.of)) == ({about(ONE)}, {ALICE, BOB})
    state, _ = play(ONE, BlockClosed(block(9)))  # the next is submitted in block 10
    assert (len(state.tasks), len(state.of), len(state.due)) == (0, 0, 0)
    long = submitted(2, 9, deadline=20)
    state, findings = play(ONE, long, BlockClosed(block(29)))
    assert (set(state.tasks), findings) == ({about(ONE), about(long)}, [])
    state, findings = play(ONE, long, BlockClosed(block(30)))
    assert whom(findings) == [(ALICE, 2, 30), (BOB, 2, 30)]
    assert (len(state.tasks), len(state.of), len(state.due)) == (0, 0, 0)
    assert [each.holds for each in state.ledger.registry.sets.values()] == [0]


def test_a_checkpoint_between_two_misses_loses_neither() -> None:
    held, _ = play(ONE, TWO, Responded(At(4, 0, 0), about(TWO), DIGEST, (0, 1)), BlockClosed(block(5)))
    state = msgspec.structs.replace(FOLD.initial(NETWORK), misses=held)
    step = Step(0, None, state, Map(), -1, None)
    again = checkpoint.decode(checkpoint.encode(step), FOLD).state
    assert again == state
    assert FOLD.step(again, BlockClosed(block(6))) == FOLD.step(state, BlockClosed(block(6)))
    assert len(FOLD.step(again, BlockClosed(block(6)))[1]) == 2


def test_a_configuration_without_the_contracts_terms_is_refused() -> None:
    with pytest.raises(UnknownTerm, match="expected miss_allowance"):
        FOLD.initial(msgspec.structs.replace(NETWORK, terms={}))


# --- claims -----------------------------------------------------------------------------------------


def test_what_is_sought_is_what_the_contract_asks() -> None:
    response = Responded(At(3, 5, 4), about(ONE), DIGEST, (0, 1))
    _, (finding, _) = play(ONE, TWO, response, END)
    shown = sought.read(finding.facts)
    events = [
        (e.place.number, e.place.transaction, e.place.log) for e in shown.fetch if isinstance(e, EventSought)
    ]
    assert events == [(2, 1, 0), (3, 5, 4), (3, 2, 0)]
    tasks, registry = [each for each in shown.fetch if isinstance(each, StateSought)]
    assert (tasks.contract, registry.contract) == ("task_manager", "operator_registry")
    every = ["_status.state", "_status.pauses", "_pauses", "attestedDigest"]
    assert [each.name for each in tasks.variables] == [*every, *every, "_status.recordHash"]
    assert [each.keys for each in tasks.variables[:4]] == [
        *((about(ONE),), (about(ONE),), (b"",)),
        (about(ONE), padded(ALICE)),
    ]
    assert [(each.name, len(each.keys[0])) for each in registry.variables] == [
        ("_keys.registration", 32),
        ("_ends", 0),
    ]
    assert [claim.index for claim in shown.whole] == [0, 0]


# --- what holds -------------------------------------------------------------------------------------

REF = BlockRef(6, Hash32(b"6" * 32))
TERMS = NETWORK.terms
ACCUSED = Accused(ALICE, about(TWO))


def facts(response: bool = False) -> list[Fact]:
    """Of Alice's misses of both Tasks, the first one with a response or not."""
    said: list[Fact] = []
    for each in (ONE, TWO):
        of, first, deadline = each.task, each.at.block, each.task.deadline.value
        said += [
            Submitted(of.preimage, BlockRef(first, Hash32(bytes([first]) * 32))),
            Member(of.hash, ALICE, 0, Hash32(b"k" * 32)),
            Stored("task_manager", "_status.state", (of.hash,), 2 if response else 1, REF),
            Stored("task_manager", "_status.pauses", (of.hash,), first, REF),
            Stored("task_manager", "_pauses", (word(first),), deadline + 1 if first == 2 else 0, REF),
            Stored("task_manager", "attestedDigest", (of.hash, padded(ALICE)), 0, REF),
            Accepted(of.hash, DIGEST, (0,), REF)
            if response
            else Stored("task_manager", "_status.recordHash", (of.hash,), 0, REF),
        ]
    said.append(Stored("operator_registry", "_keys.registration", (b"k" * 32,), 5, REF))
    said.append(Stored("operator_registry", "_ends", (word(5),), 0, REF))
    return said


@pytest.mark.parametrize("response", [False, True])
def test_all_of_it_holds_and_nothing_less(response: bool) -> None:
    whole = facts(response)
    CONDITION.holds(ACCUSED, whole, TERMS)
    for i in range(len(whole)):
        with pytest.raises(NotProved):
            CONDITION.holds(ACCUSED, whole[:i] + whole[i + 1 :], TERMS)


def altered() -> list[tuple[str, list[Fact]]]:
    """Facts that are all true somewhere, and do not add up."""
    found = []
    for response in (False, True):
        whole = facts(response)
        for i, fact in enumerate(whole):
            for change in changes_of(fact):
                name = f"{type(fact).__name__} {i}: {', '.join(change)}"
                found.append((name, [*whole[:i], msgspec.structs.replace(fact, **change), *whole[i + 1 :]]))
    return found


def changes_of(fact: Fact) -> list[dict[str, object]]:
    other = Hash32(b"o" * 32)
    match fact:
        case Submitted(at=at):
            other_task = TWO.task.preimage if fact.task == ONE.task.preimage else ONE.task.preimage
            return [{"task": other_task}, {"at": BlockRef(20, at.hash)}]
        case Accepted():
            return [{"task_hash": other}, {"non_signers": ()}, {"non_signers": (1, 2)}]
        case Member():
            return [{"task_hash": other}, {"operator": BOB}, {"key_hash": other}]
        case Stored(contract="task_manager"):
            end = 6 if fact.keys[0] in (about(TWO), word(3)) else 5
            wrong: dict[str, list[int]] = {
                "_status.state": [4],
                "_status.pauses": [fact.value + 2],
                "_pauses": [1, 2, 3, 4],
            }
            changed: list[dict[str, object]] = [
                {"value": value} for value in wrong.get(fact.name, [1, 1 << 255])
            ]
            changed += [{"at": BlockRef(end - 1, REF.hash)}, {"contract": "operator_registry"}]
            return [*changed, {"keys": (other, *fact.keys[1:])}, {"name": "_status.submittedBlock"}]
        case Stored(name="_ends"):
            early = BlockRef(2, REF.hash)
            ended = [{"value": value} for value in (1, 2, 3)]
            return [{"keys": (word(6),)}, {"contract": "delegation"}, {"at": early}, *ended]
        case Stored():
            return [{"keys": (other,)}, {"value": 0}, {"value": 6}, {"contract": "delegation"}]
    raise AssertionError(fact)


@pytest.mark.parametrize(("name", "these"), altered(), ids=lambda each: each if isinstance(each, str) else "")
def test_nothing_altered_holds(name: str, these: list[Fact]) -> None:
    with pytest.raises(NotProved):
        CONDITION.holds(ACCUSED, these, TERMS)


def test_more_or_others_than_the_rule_asks_for_do_not_hold() -> None:
    whole = facts()
    half = len(whole) // 2 - 1
    third = submitted(3, 4)
    for accused, these, terms in (
        (Accused(BOB, about(TWO)), whole, TERMS),
        (Accused(ALICE, about(ONE)), whole, TERMS),
        (ACCUSED, whole[half:-2] + whole[:half] + whole[-2:], TERMS),  # the Tasks in another order
        (ACCUSED, whole[:half] + whole, TERMS),  # one of them twice
        (ACCUSED, [*whole, Submitted(third.task.preimage, REF)], TERMS),
        (ACCUSED, whole, TERMS | {"miss_allowance": 0}),
        (ACCUSED, whole, TERMS | {"miss_allowance": 2}),
        (ACCUSED, whole, TERMS | {"miss_window": 1}),
        (ACCUSED, whole, {"miss_allowance": 1}),
        (ACCUSED, whole, {"miss_window": 8}),
    ):
        with pytest.raises(NotProved):
            CONDITION.holds(accused, these, terms)


def test_an_end_after_the_submission_excuses_from_nothing() -> None:
    *whole, ends = facts()
    assert isinstance(ends, Stored)
    CONDITION.holds(ACCUSED, [*whole, msgspec.structs.replace(ends, value=4)], TERMS)
