"""Equivocation by members of quorums, against a version that verifies everything; and what it costs."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import pytest

from nektar.evidence.bundle import AggregateClaim, SignatureClaim, finding_id
from nektar.model import (
    At,
    BlockClosed,
    Event,
    GapPassed,
    Level,
    OperatorSetCommitted,
    Responded,
    Signed,
    TaskSubmitted,
    Unpaused,
)
from nektar.rows import Change, Finding
from processors.conditions import watch
from processors.conditions.equivocation import Equivocation, Watch
from tests.processors.conditions.test_equivocation import forgotten, is_true, signed_in
from tests.processors.conditions.test_invalid_response import Answering, is_of_no_set, is_sum, quorum
from tests.processors.world import (
    ANSWERS,
    CHAIN_ID,
    MANAGER,
    NETWORK,
    OPERATORS,
    Rows,
    block,
    history,
    put,
    registered,
    set_of,
    signed,
    task,
)
from tests.seeds import seeds

CONDITION = Equivocation()
FOLD = CONDITION.detect
SEEDS = seeds(24, 60)


# --- the oracle -------------------------------------------------------------------------------------


def oracle(events: Sequence[Event]) -> dict[bytes, tuple[bytes, bytes]]:
    """Finding id → (first digest, second digest), for all that ever happened."""
    found = {}
    sets = {e.set.hash: e.set for e in events if isinstance(e, OperatorSetCommitted)}
    lost = forgotten([Unpaused(At(0, 0, 0)) if is_of_no_set(e, sets) else e for e in events])
    for i, event in enumerate(events):
        if not isinstance(event, TaskSubmitted) or event.task.set_hash not in sets:
            continue
        members = sets[event.task.set_hash].members
        accepted = next(
            e for e in (*events[i:], None) if e is None or (is_accepted(e) and e.task_hash == event.task.hash)
        )
        for place, member in enumerate(members):
            said: list[bytes] = []
            for j, each in enumerate(events):
                if isinstance(each, Signed) and (j > i or each.at is None) and j not in lost:
                    signs = each.operator == member.operator and is_true(each, event, member.key)
                elif each is accepted and isinstance(each, Responded) and each.non_signers is not None:
                    signs = place not in each.non_signers and is_sum(each, event, [m.key for m in members])
                else:
                    continue
                said += [each.digest] if signs else []
            others = [digest for digest in said if digest != said[0]]
            if others:
                name = finding_id("equivocation", CHAIN_ID, MANAGER, event.task.hash, member.operator)
                found[name] = said[0], others[0]
    return found


def is_accepted(event: Event) -> bool:
    """Whether it says who signed."""
    return isinstance(event, Responded) and event.non_signers is not None


def as_proved(events: Sequence[Event]) -> list[Event]:
    """What a chain can show: of a proved block the contract has checked each quorum, so that a false one
    stands in linked blocks alone."""
    submitted = {e.task.hash: e for e in events if isinstance(e, TaskSubmitted)}
    sets = {e.set.hash: e.set for e in events if isinstance(e, OperatorSetCommitted)}
    false = {
        each.at.block
        for each in events
        if isinstance(each, Responded) and each.non_signers is not None
        if (about := submitted[each.task_hash]).task.set_hash in sets
        if not is_sum(each, about, [m.key for m in sets[about.task.set_hash].members])
    }
    replace = msgspec.structs.replace
    return [
        replace(e, block=replace(e.block, level=Level.LINKED))
        if isinstance(e, BlockClosed) and e.block.number in false
        else e
        for e in events
    ]


@pytest.mark.parametrize("part", range(3))
def test_what_is_found_is_what_was_signed_alone_and_in_quorums(part: int) -> None:
    together, linked = 0, 0
    for seed in range(part, SEEDS, 3):
        rng = random.Random(f"equivocation in quorum {seed}")
        events = as_proved(history(rng, 24, pauses=False, of=Answering))
        state, rows = FOLD.initial(NETWORK), Rows()
        for i, event in enumerate(events):
            state, changes = FOLD.step(state, event)
            put(rows, changes)
            if isinstance(event, BlockClosed | GapPassed) and (changes or i == len(events) - 1):
                found = [row for row in rows.values() if isinstance(row, Finding)]
                told = {finding.id: tuple(signed_in(finding)) for finding in found}
                assert told == oracle(events[: i + 1]), f"seed {seed}, after {event}"
        kinds = [{type(claim) for claim in CONDITION.claims(each).whole} for each in found]
        together += sum(AggregateClaim in each and SignatureClaim in each for each in kinds)
        linked += sum(
            AggregateClaim in k and f.level == Level.LINKED for k, f in zip(kinds, found, strict=True)
        )
    assert (together > 5, linked > 0) == (True, True)


# --- what it costs ----------------------------------------------------------------------------------

MEMBERS = set_of((operator, i + 1) for i, operator in enumerate(OPERATORS))
TASK = task(At(2, 0, 0), MEMBERS.hash, 1, deadline=6, grace=2)
SECRETS = list(range(1, len(OPERATORS) + 1))
BEGIN: list[Event] = [
    *(registered(At(1, i, 0), operator, i + 1) for i, operator in enumerate(OPERATORS)),
    OperatorSetCommitted(At(1, 9, 0), MEMBERS),
    BlockClosed(block(1)),
    TaskSubmitted(TASK.submitted, TASK),
    BlockClosed(block(2)),
    quorum(At(3, 0, 0), TASK.hash, SECRETS, (), ANSWERS[0]),
]


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> list[watch.Quorum]:
    """The quorums whose signatures were held against the sums of their members'."""
    summed: list[watch.Quorum] = []
    check = watch.is_quorums

    def counted(*given: object) -> bool:
        summed.append(given[-1])  # type: ignore[arg-type]
        return check(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(watch, "is_quorums", counted)
    return summed


def play(level: Level, *brought: Event) -> tuple[Watch, list[Finding]]:
    state, said = FOLD.initial(NETWORK), list[Change]()
    for event in (*BEGIN, BlockClosed(block(3, level=level)), *brought):
        state, changes = FOLD.step(state, event)
        said += changes
    return state, [change.after for change in said if isinstance(change.after, Finding)]


def by_all(answer: int, false: int = 0) -> list[Event]:
    """What each signs, with a secret that is its own or not."""
    return [
        signed(None, TASK.hash, operator, i + 1 + false, ANSWERS[answer])
        for i, operator in enumerate(OPERATORS)
    ]


@pytest.mark.parametrize("level", [Level.PROVED, Level.LINKED])
def test_who_signs_what_the_quorum_says_costs_no_sum_however_often(
    level: Level, sums: list[watch.Quorum]
) -> None:
    state, found = play(level, *by_all(0), *by_all(0))
    assert (sums, found) == ([], [])
    assert bool(state.tasks[TASK.hash].kept.held) == (level is Level.LINKED)


@pytest.mark.parametrize("level", [Level.PROVED, Level.LINKED])
def test_who_only_seems_to_contradict_the_quorum_costs_no_sum(level: Level, sums: list[watch.Quorum]) -> None:
    state, found = play(level, *by_all(1, false=1), *by_all(2, false=1))
    assert (sums, found, len(state.tasks[TASK.hash].kept.held)) == ([], [], 0)


def test_however_many_contradict_a_quorum_it_is_summed_once(sums: list[watch.Quorum]) -> None:
    _, found = play(Level.PROVED, *by_all(0), *by_all(1))
    assert [finding.operator for finding in found] == OPERATORS
    assert len(sums) == 1


def test_a_false_quorum_is_summed_once_and_says_of_nobody_that_they_signed(sums: list[watch.Quorum]) -> None:
    false = quorum(At(3, 0, 0), TASK.hash, SECRETS[:-1], (), ANSWERS[0])
    begun = [*BEGIN[:-1], false, BlockClosed(block(3, level=Level.LINKED))]
    state = FOLD.initial(NETWORK)
    for event in (*begun, *by_all(1)):
        state, changes = FOLD.step(state, event)
        assert changes == []
    assert len(sums) == 1
    assert len([change for event in by_all(2) for change in FOLD.step(state, event)[1]]) == len(OPERATORS)
    assert len(sums) == 1
