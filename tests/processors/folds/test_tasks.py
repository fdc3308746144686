"""The duty ledger against the table that it stands for, read off the whole list of events."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import msgspec
import pytest
from immutables import Map

from nektar import checkpoint
from nektar.fold import Step
from nektar.model import (
    G1,
    Address,
    At,
    Attested,
    BlockClosed,
    Deadline,
    Event,
    GapPassed,
    Hash32,
    Level,
    OperatorDeregistered,
    OperatorSet,
    OperatorSetCommitted,
    Paused,
    Responded,
    ResponseChallenged,
    Task,
    TaskCancelled,
    TaskSubmitted,
    Unpaused,
)
from nektar.rows import DutyRow, DutyState, TaskRow, TaskState
from processors.folds.deadlines import UnsupportedDeadline
from processors.folds.tasks import Ledger, Tasks
from tests.processors.world import (
    NETWORK,
    OPERATORS,
    Rows,
    block,
    history,
    put,
    registered,
    set_of,
    task,
)
from tests.seeds import seeds

FOLD = Tasks()
SEEDS = seeds(64, 160)


# --- the oracle -------------------------------------------------------------------------------------


def oracle(events: Sequence[Event]) -> Rows:
    """Every row by the table, from all that happened. Too slow to ship, too simple to be wrong."""
    rows: Rows = {}
    for i, event in enumerate(events):
        if isinstance(event, TaskSubmitted):
            row = task_row(event.task, events[i:])
            rows["tasks", row.task_hash] = row
            for duty in duty_rows(event.task, events[:i], events[i:], events):
                rows["duties", duty.task_hash, duty.operator] = duty
    return rows


def passed(events: Sequence[Event]) -> int:
    last = -1
    for event in events:
        if isinstance(event, BlockClosed):
            last = event.block.number
        elif isinstance(event, GapPassed):
            last = event.last
    return last


def task_row(task: Task, later: Sequence[Event]) -> TaskRow:
    deadline, end = task.deadline.value, task.deadline.value + task.grace
    state, digest, responded, last = TaskState.OPEN, Hash32(bytes(32)), 0, 0
    for event in later:
        if isinstance(event, TaskCancelled) and event.task_hash == task.hash and event.at.block <= end:
            state = TaskState.CANCELLED
        if (
            isinstance(event, Responded)
            and event.task_hash == task.hash
            and event.at.block <= deadline
            and state is TaskState.OPEN
        ):
            state, digest = TaskState.RESPONDED, event.digest
            responded, last = event.at.block, event.challenge_deadline
        if (
            isinstance(event, ResponseChallenged)
            and event.task_hash == task.hash
            and event.at.block <= last
            and state is TaskState.RESPONDED
        ):
            state = TaskState.CHALLENGED
    if state is TaskState.OPEN and passed(later) >= deadline:
        state = TaskState.EXPIRED
    return TaskRow(
        *(task.hash, task.number, task.type, task.input, task.set_hash, task.submitter),
        *(task.submitted.block, "block", deadline, task.grace, state, digest, responded, last),
    )


def duty_rows(
    task: Task, earlier: Sequence[Event], later: Sequence[Event], events: Sequence[Event]
) -> list[DutyRow]:
    commits = [i for i, e in enumerate(earlier) if isinstance(e, OperatorSetCommitted)]
    named = [i for i in commits if earlier[i].set.hash == task.set_hash]  # type: ignore[union-attr]
    if not named:
        return []
    committed = earlier[named[-1]]
    assert isinstance(committed, OperatorSetCommitted)
    members = [member.operator for member in committed.set.members]
    rows = []
    for place, operator in enumerate(members):
        state, decided = duty(task, operator, place, committed, earlier[named[-1] :], later, events)
        rows.append(
            DutyRow(
                *(task.hash, operator, task.number, task.input, state),
                *(task.deadline.value, task.grace, decided),
            )
        )
    return rows


def duty(
    task: Task,
    operator: Address,
    place: int,
    committed: OperatorSetCommitted,
    since_commit: Sequence[Event],
    later: Sequence[Event],
    events: Sequence[Event],
) -> tuple[DutyState, int]:
    submitted, deadline = task.submitted.block, task.deadline.value
    end = deadline + task.grace
    about = [e for e in later if getattr(e, "task_hash", None) == task.hash]

    excused = [b for b in paused_blocks(events) if submitted <= b <= deadline]
    excused += [e.at.block for e in about if isinstance(e, TaskCancelled) and e.at.block <= end]
    for event in since_commit:
        if isinstance(event, OperatorDeregistered) and event.operator == operator:
            excused += [submitted] if event.effective <= submitted else []
    if excused:
        return DutyState.EXCUSED, min(excused)

    signed = [e.at.block for e in about if isinstance(e, Responded) and place not in e.non_signers]
    attested = [e.at.block for e in about if isinstance(e, Attested) and e.operator == operator]
    if in_time := [b for b in signed + attested if b <= deadline]:
        return DutyState.SIGNED, min(in_time)
    if late := [b for b in attested if deadline < b <= end]:
        return DutyState.LATE, min(late)
    if passed(later) < end:
        return DutyState.PENDING, submitted
    doubtful = [(e.first, e.last) for e in events if isinstance(e, GapPassed)]
    for event in events:
        if isinstance(event, BlockClosed) and event.block.level is not Level.PROVED:
            doubtful.append((event.block.number, event.block.number))
    if any(first <= end and last >= committed.at.block for first, last in doubtful):
        return DutyState.UNKNOWN, end
    return DutyState.MISSED, end


def paused_blocks(events: Sequence[Event]) -> set[int]:
    """Blocks within which the Network was paused, or at whose end. It is not where a Task is submitted."""
    found, paused = set(), False
    for event in events:
        match event:
            case Paused() | Unpaused():
                found.add(event.at.block)
                paused = isinstance(event, Paused)
            case TaskSubmitted():
                paused = False
            case BlockClosed(block=closed_) if paused:
                found.add(closed_.number)
            case GapPassed() if paused:
                found.update(range(event.first, event.last + 1))
    return found


# --- against it -------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(4))
def test_every_row_is_the_tables_after_every_block(part: int) -> None:
    met: set[str] = set()
    for seed in range(part, SEEDS, 4):
        rng = random.Random(f"tasks {seed}")
        events = history(rng, 24, pauses=seed % 3 == 0)
        state, rows = FOLD.initial(NETWORK), Rows()
        for i, event in enumerate(events):
            state, changes = FOLD.step(state, event)
            put(rows, changes)
            if isinstance(event, BlockClosed | GapPassed):
                assert rows == oracle(events[: i + 1]), f"seed {seed}, after {event}"
        met.update(row.state for row in rows.values() if isinstance(row, DutyRow | TaskRow))
        late = {e.task_hash: e.at.block for e in reversed(events) if isinstance(e, ResponseChallenged)}
        for row in rows.values():
            if isinstance(row, TaskRow) and row.state == "challenged":
                met.update(["challenged after the grace"] * (late[row.task_hash] > row.deadline + row.grace))
    assert met >= {*DutyState, *TaskState, "challenged after the grace"}


# --- what the table leaves to be said ---------------------------------------------------------------


def play(*events: Event) -> tuple[Ledger, Rows]:
    state, rows = FOLD.initial(NETWORK), Rows()
    for event in events:
        state, changes = FOLD.step(state, event)
        put(rows, changes)
    return state, rows


def closed(*numbers: int) -> list[Event]:
    return [BlockClosed(block(number)) for number in numbers]


MEMBERS = set_of((operator, i + 1) for i, operator in enumerate(OPERATORS[:2]))
ALICE, BOB = OPERATORS[:2]
BEGIN: list[Event] = [
    registered(At(1, 0, 0), ALICE, 1),
    registered(At(1, 1, 0), BOB, 2),
    OperatorSetCommitted(At(1, 2, 0), MEMBERS),
    *closed(1),
]
TASK = task(At(2, 0, 0), MEMBERS.hash, 1, deadline=4, grace=2)
DIGEST = Hash32(b"d" * 32)


def states(rows: Rows, of: Task = TASK) -> list[str]:
    return [row.state for o in (ALICE, BOB) if isinstance(row := rows["duties", of.hash, o], DutyRow)]


def test_a_deadline_that_is_no_block_stops_with_a_clear_error() -> None:
    other = msgspec.structs.replace(TASK, deadline=Deadline("epoch", 4))
    with pytest.raises(
        UnsupportedDeadline, match=r"task 1 .*: expected a deadline in blocks; got one in epochs"
    ):
        play(*BEGIN, TaskSubmitted(other.submitted, other))


def test_a_response_after_the_deadline_makes_nobody_signed_or_late() -> None:
    late = Responded(At(5, 0, 0), TASK.hash, DIGEST, ())
    _, rows = play(*BEGIN, TaskSubmitted(TASK.submitted, TASK), *closed(2, 3, 4), late, *closed(5, 6))
    assert states(rows) == ["missed", "missed"]
    row = rows["tasks", TASK.hash]
    assert isinstance(row, TaskRow)
    assert row.state == "expired"


def test_a_non_signer_that_no_set_could_have_is_nobody() -> None:
    odd = Responded(At(3, 0, 0), TASK.hash, DIGEST, (1, 2, 2**256 - 1))
    _, rows = play(*BEGIN, TaskSubmitted(TASK.submitted, TASK), odd, *closed(2, 3, 4, 5, 6))
    assert states(rows) == ["signed", "missed"]


def test_non_signers_are_known_by_their_keys_as_well() -> None:
    by_key = Responded(At(3, 0, 0), TASK.hash, DIGEST, (MEMBERS.members[1].key, G1(bytes(64))))
    _, rows = play(*BEGIN, TaskSubmitted(TASK.submitted, TASK), by_key, *closed(2, 3, 4, 5, 6))
    assert states(rows) == ["signed", "missed"]


def test_nobody_has_missed_a_task_whose_signers_are_not_told() -> None:
    untold = Responded(At(3, 0, 0), TASK.hash, DIGEST, None)
    attested = Attested(At(3, 1, 0), TASK.hash, BOB, DIGEST, True)
    state, rows = play(*BEGIN, TaskSubmitted(TASK.submitted, TASK), untold, attested, *closed(2, 3, 4, 5, 6))
    assert states(rows) == ["unknown", "signed"]
    row = rows["tasks", TASK.hash]
    assert isinstance(row, TaskRow)
    assert (row.state, row.response_digest) == ("responded", DIGEST)
    assert not state.tasks


def test_who_registers_again_owes_nothing_as_a_member_of_the_old_set() -> None:
    again = registered(At(3, 0, 0), BOB, 3)
    new = task(At(4, 0, 0), MEMBERS.hash, 2, deadline=6, grace=0)
    _, rows = play(
        *BEGIN,
        OperatorDeregistered(At(2, 0, 0), BOB, 3),
        *closed(2),
        again,
        *closed(3),
        TaskSubmitted(new.submitted, new),
        *closed(4, 5, 6),
    )
    assert states(rows, new) == ["missed", "excused"]


def test_an_end_of_a_pause_shows_that_there_was_one() -> None:
    _, rows = play(
        *BEGIN, TaskSubmitted(TASK.submitted, TASK), *closed(2, 3), Unpaused(At(4, 0, 0)), *closed(4)
    )
    assert states(rows) == ["excused", "excused"]
    _, rows = play(
        *BEGIN, TaskSubmitted(TASK.submitted, TASK), *closed(2, 3, 4), Paused(At(5, 0, 0)), *closed(5, 6)
    )
    assert states(rows) == ["missed", "missed"]  # after the deadline it is too late


HOLES: dict[str, list[Event]] = {
    "a gap": [GapPassed(2, 3)],
    "a block without receipts": [BlockClosed(block(2, level=Level.LINKED)), *closed(3)],
}
LATER = task(At(4, 0, 0), MEMBERS.hash, 2, deadline=6, grace=1)


@pytest.mark.parametrize("hole", HOLES)
def test_nobody_has_missed_a_task_before_which_it_may_have_left_unseen_until_a_set_is_committed(
    hole: str,
) -> None:
    after = [TaskSubmitted(LATER.submitted, LATER), *closed(4)]
    _, rows = play(*BEGIN, *HOLES[hole], *after, *closed(5, 6, 7))
    assert states(rows, LATER) == ["unknown", "unknown"]
    # Who did its duty did it, and what excuses is seen as ever.
    attested = Attested(At(5, 0, 0), LATER.hash, BOB, DIGEST, True)
    _, rows = play(*BEGIN, *HOLES[hole], *after, attested, *closed(5, 6, 7))
    assert states(rows, LATER) == ["unknown", "signed"]
    _, rows = play(*BEGIN, *HOLES[hole], *after, Paused(At(5, 0, 0)), *closed(5, 6, 7))
    assert states(rows, LATER) == ["excused", "excused"]
    # All members of a set that is committed anew are registered, be it the same.
    again = OperatorSetCommitted(At(4, 0, 0), MEMBERS)
    _, rows = play(*BEGIN, *HOLES[hole], again, *after, *closed(5, 6, 7))
    assert states(rows, LATER) == ["missed", "missed"]
    # Of one that is committed once the Task is there that says nothing of before.
    again = OperatorSetCommitted(At(5, 0, 0), MEMBERS)
    _, rows = play(*BEGIN, *HOLES[hole], *after, again, *closed(5, 6, 7))
    assert states(rows, LATER) == ["unknown", "unknown"]


def test_a_commitment_in_a_block_without_receipts_may_have_been_before_who_left() -> None:
    begun = [*BEGIN[:3], BlockClosed(block(1, level=Level.LINKED))]
    _, rows = play(*begun, *closed(2, 3), TaskSubmitted(LATER.submitted, LATER), *closed(4, 5, 6, 7))
    assert states(rows, LATER) == ["unknown", "unknown"]


@pytest.mark.parametrize("hole", HOLES)
def test_a_pause_whose_end_nobody_could_serve_has_ended_where_a_task_is_submitted(hole: str) -> None:
    begun = [*BEGIN[:3], Paused(At(1, 3, 0)), *closed(1), *HOLES[hole]]
    again = OperatorSetCommitted(At(4, 0, 0), MEMBERS)
    after = [TaskSubmitted(LATER.submitted, LATER), *closed(4, 5, 6, 7)]
    _, rows = play(*begun, again, *after)
    assert states(rows, LATER) == ["missed", "missed"]
    _, rows = play(*begun, *after)
    assert states(rows, LATER) == ["unknown", "unknown"]


@pytest.mark.parametrize("hole", HOLES)
def test_a_task_in_whose_time_a_pause_or_a_cancellation_may_have_been_is_missed_by_nobody(hole: str) -> None:
    open_ = task(At(1, 5, 5), MEMBERS.hash, 3, deadline=4, grace=1)
    _, rows = play(*BEGIN[:3], TaskSubmitted(open_.submitted, open_), *closed(1), *HOLES[hole], *closed(4, 5))
    assert states(rows, open_) == ["unknown", "unknown"]


def test_a_task_leaves_the_state_with_its_grace_and_takes_its_set_along() -> None:
    newer = set_of([(ALICE, 1)])
    begun = [*BEGIN, TaskSubmitted(TASK.submitted, TASK), *closed(2)]
    state, _ = play(*begun, OperatorSetCommitted(At(3, 0, 0), newer), *closed(3, 4, 5))
    assert set(state.registry.sets) == {MEMBERS.hash, newer.hash}
    for end in (closed(6), [GapPassed(6, 9)]):
        after, _ = play(*begun, OperatorSetCommitted(At(3, 0, 0), newer), *closed(3, 4, 5), *end)
        assert (len(after.tasks), len(after.due), set(after.registry.sets)) == (0, 0, {newer.hash})
        # What is said of it later, as no contract would, changes nothing.
        for event in (
            TaskCancelled(At(9, 0, 0), TASK.hash),
            Responded(At(9, 0, 0), TASK.hash, DIGEST, ()),
            Attested(At(9, 0, 0), TASK.hash, ALICE, DIGEST, True),
        ):
            assert FOLD.step(after, event) == (after, [])


def challenged(block: int, of: Task = TASK) -> list[Event]:
    return [ResponseChallenged(At(block, 0, 0), of.hash), *closed(block)]


def responded(until: int) -> list[Event]:
    """The Task of the deadline 4 and the end 6, responded to in block 3 without Bob."""
    told = Responded(At(3, 0, 0), TASK.hash, DIGEST, (1,), until)
    return [*BEGIN, TaskSubmitted(TASK.submitted, TASK), *closed(2), told, *closed(3)]


def row_of(rows: Rows) -> tuple[str, bytes, int, int]:
    row = rows["tasks", TASK.hash]
    assert isinstance(row, TaskRow)
    return row.state, row.response_digest, row.response_block, row.challenge_deadline


@pytest.mark.parametrize("block", [3, 4, 6, 7, 9])
def test_a_response_challenged_by_its_deadline_shows_it_and_who_signed_has_signed(block: int) -> None:
    before = [event for event in responded(9) if not isinstance(event, BlockClosed) or event.block.number < 3]
    passed_by = [event for number in range(3, block) for event in closed(number)]
    rest = [event for number in range(block + 1, 10) for event in closed(number)]
    _, rows = play(*before, *passed_by, *challenged(block), *rest)
    assert row_of(rows) == ("challenged", DIGEST, 3, 9)
    assert states(rows) == ["signed", "missed"]


def test_only_an_accepted_response_can_be_challenged_and_only_in_time() -> None:
    _, rows = play(*responded(4), *closed(4), *challenged(5))  # too late, though the grace is not over
    assert row_of(rows)[0] == "responded"
    _, rows = play(*responded(9), *closed(4, 5, 6, 7, 8, 9), *challenged(10))
    assert row_of(rows)[0] == "responded"
    _, rows = play(*BEGIN, TaskSubmitted(TASK.submitted, TASK), *closed(2), *challenged(3), *closed(4))
    assert row_of(rows) == ("expired", bytes(32), 0, 0)
    again = Responded(At(4, 0, 0), TASK.hash, Hash32(b"e" * 32), (), 20)
    _, rows = play(*responded(9)[:-1], *challenged(3), again, *closed(4))
    assert row_of(rows) == ("challenged", DIGEST, 3, 9)


def test_a_responded_task_stays_as_its_row_until_no_challenge_can_come() -> None:
    newer = OperatorSetCommitted(At(4, 0, 0), set_of([(ALICE, 1)]))
    begun = [*responded(9), newer, *closed(4, 5)]
    state, rows = play(*begun, *closed(6))
    assert (set(state.tasks), set(state.accepted), set(state.due)) == (set(), {TASK.hash}, {9})
    assert state.accepted[TASK.hash] == rows["tasks", TASK.hash]
    assert set(state.registry.sets) == {newer.set.hash}  # its own set has gone with its grace
    # The same Task can't come again, whatever the log says.
    assert FOLD.step(state, TaskSubmitted(TASK.submitted, TASK)) == (state, [])
    for end in (closed(7, 8, 9), [*challenged(7), *challenged(8), *closed(9)], [GapPassed(7, 9)]):
        after, _ = play(*begun, *closed(6), *end)
        assert (len(after.tasks), len(after.accepted), len(after.due)) == (0, 0, 0)
        assert FOLD.step(after, ResponseChallenged(At(10, 0, 0), TASK.hash)) == (after, [])
    for gap in (GapPassed(6, 8), GapPassed(6, 20)):  # the grace alone has passed, or all of it
        after, _ = play(*begun, gap)
        assert set(after.accepted) == ({TASK.hash} if gap.last < 9 else set())


def test_a_task_whose_set_is_not_known_is_told_of_without_duties() -> None:
    foreign = task(At(2, 0, 0), Hash32(bytes(32)), 1, deadline=3, grace=0)
    state, rows = play(
        *BEGIN,
        TaskSubmitted(foreign.submitted, foreign),
        Responded(At(2, 1, 0), foreign.hash, DIGEST, (0, 7)),
        Attested(At(2, 2, 0), foreign.hash, ALICE, DIGEST, True),
        Paused(At(2, 3, 0)),
        *closed(2, 3),
    )
    assert list(rows) == [("tasks", foreign.hash)]
    assert not state.tasks


# --- at the size of a large Network -----------------------------------------------------------------

MANY = 1000


def many() -> OperatorSet:
    """A thousand Operators."""
    return set_of([(Address(i.to_bytes(20, "big")), 1) for i in range(MANY)])


def large() -> tuple[Ledger, list[Task]]:
    """A thousand Operators and a hundred open tasks."""
    committed = many()
    state = FOLD.initial(NETWORK)
    state, _ = FOLD.step(state, OperatorSetCommitted(At(1, 0, 0), committed))
    tasks = [task(At(2, i, 0), committed.hash, i, 50 + i, 5) for i in range(100)]
    for each in tasks:
        state, _ = FOLD.step(state, TaskSubmitted(each.submitted, each))
    return state, tasks


def test_a_thousand_attestations_cost_about_what_one_response_does() -> None:
    state, (one, other, *_) = large()
    began = time.process_time()
    _, changes = FOLD.step(state, Responded(At(3, 0, 0), other.hash, DIGEST, ()))
    response = time.process_time() - began
    assert len(changes) == MANY + 1
    began = time.process_time()
    for i in range(MANY):
        event = Attested(At(3, i, 0), one.hash, Address(i.to_bytes(20, "big")), DIGEST, True)
        state, changes = FOLD.step(state, event)
        assert len(changes) == 1
    # Were the work of each attestation in proportion to the set, this would be some hundred times as much.
    assert time.process_time() - began < 20 * response + 0.05
    assert len(state.tasks[one.hash].decided) == 1


def test_the_state_of_a_large_network_is_a_few_bitmaps_and_one_set() -> None:
    state, tasks = large()
    alone = len(
        checkpoint.to_json(
            FOLD.step(
                FOLD.initial(NETWORK),
                OperatorSetCommitted(At(1, 0, 0), many()),
            )[0]
        )
    )
    for each in tasks:
        state, _ = FOLD.step(state, Responded(At(3, 0, 0), each.hash, DIGEST, (1, 5, 7)))
    written = checkpoint.to_json(state)
    assert len(written) - alone < 2500 * len(tasks)
    step = Step(0, None, state, Map(), -1, None)
    assert checkpoint.decode(checkpoint.encode(step), FOLD).state == state
