"""The duty ledger: every Task, and for every Operator in the set that it committed to, its Duty.

A Duty's state comes from verified blocks alone; the first row that holds counts:

| state | chain facts |
|---|---|
| excused | task cancelled, Network paused at some block from submission to deadline, or the Operator's |
|         | deregistration took effect by the submission |
| signed  | in the response's signers, or attested by the Operator itself, in a block ≤ deadline |
| late    | attested in deadline < block ≤ deadline + grace |
| pending | none of these, and deadline + grace is not yet passed |
| unknown | none of these, and some block from the last commitment of the Task's set before its |
|         | submission to deadline + grace is not proved, or a response was accepted that does not tell |
|         | who signed it |
| missed  | none of these, all those blocks proved |

*Paused at a block* is paused at its end or at any time within it. *Passed* is a block once it is closed, or
a gap that it lies in.

What a block that is not proved may hide, or a gap, is what would have excused, or shown a Duty done: for as
long as nothing proved says how things stand again. Of who is registered a commitment says it, since all
members of the set are: so a deregistration can be hidden only since the last one. Of pauses the submission
itself does, since a Network that is paused takes none: whatever began before it has ended, seen or not.

A Task's own state is what the log shows: open, then responded, expired or cancelled; and challenged where its
accepted response was refuted by its challenge deadline. A challenge moves no Duty: who signed has signed.

Nothing can change a Duty once deadline + grace has passed, so that is when a Task leaves `tasks`, and its set
goes. One whose response can still be challenged then stays in `accepted`, as no more than its row, until its
challenge deadline has passed: for as long as the contract's own window. What is said of a Task later is
ignored, as is all about Tasks submitted before the log begins. Work per block is for the Tasks of which
something ends with it, and for those Operators whose duties move.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from immutables import Map

from nektar import operators
from nektar.model import (
    Address,
    Attested,
    BlockClosed,
    Event,
    GapPassed,
    Hash32,
    Level,
    Network,
    Paused,
    Responded,
    ResponseChallenged,
    Task,
    TaskCancelled,
    TaskSubmitted,
    Unpaused,
)
from nektar.operators import Registry
from nektar.rows import Change, DutyRow, DutyState, TaskRow, TaskState
from processors.folds.deadlines import require_blocks

_NO_DIGEST = Hash32(bytes(32))


class Decided(msgspec.Struct, frozen=True, array_like=True):
    """In this block, the duties of these Operators came to be in this state."""

    state: DutyState
    block: int
    who: int  # bitmap


class OpenTask(msgspec.Struct, frozen=True):
    """A Task whose grace is not over, and what the chain has shown of it. Bitmaps are over the set's places.

    Duties that no `Decided` holds are pending since the submission; of two that hold one, the later counts.
    """

    task: Task
    everyone: int  # 0 where the set was committed before the log begins: then no duty is known
    since: int = 0  # block of the set's last commitment before: what was lost of earlier ones matters no more
    decided: tuple[Decided, ...] = ()
    untold: bool = False  # a response was accepted, and who signed it is not known
    settled: int = 0  # all whom `decided` holds
    excused: int = 0  # those of them that are excused, which is for good
    state: TaskState = TaskState.OPEN
    response: Hash32 = _NO_DIGEST
    responded: int = 0  # block of the accepted response; 0: none
    challenge_deadline: int = 0  # last block in which it can be challenged

    @property
    def deadline(self) -> int:
        return self.task.deadline.value

    @property
    def end(self) -> int:
        """The last block in which a duty can change."""
        return self.task.deadline.value + self.task.grace


class Ledger(msgspec.Struct, frozen=True):
    """The fold's state."""

    registry: Registry = Registry()
    tasks: Map[Hash32, OpenTask] = Map()
    accepted: Map[Hash32, TaskRow] = Map()  # graces over, and responses that can still be challenged
    due: Map[int, Map[Hash32, None]] = Map()  # block → tasks of which something ends with it
    paused_at: int = -1  # newest block in which a pause began or ended
    doubtful: int = -1  # newest block that is not proved

    def is_told_all(self, opened: OpenTask) -> bool:
        """Whether every block by which a Duty of this Task may be excused, or shown to be done, is proved."""
        return self.doubtful < opened.since


class Tasks:
    """The fold `tasks`: puts out TaskRow and DutyRow."""

    name = "tasks"
    state_type = Ledger

    def initial(self, network: Network) -> Ledger:
        """An empty ledger."""
        return Ledger()

    def step(self, state: Ledger, event: Event) -> tuple[Ledger, list[Change]]:
        """Raises UnsupportedDeadline for a Task whose deadline is not a block."""
        match event:
            case TaskSubmitted():
                return _submitted(state, event.task)
            case Responded():
                return _responded(state, event)
            case ResponseChallenged():
                return _challenged(state, event)
            case Attested():
                return _attested(state, event)
            case TaskCancelled():
                return _cancelled(state, event)
            case Paused() | Unpaused():
                return _paused(state, event.at.block)
            case BlockClosed(block):
                number = block.number
                if block.level is not Level.PROVED:
                    state = msgspec.structs.replace(state, doubtful=number)
                return _pass(state, number, [number]) if number in state.due else (state, [])
            case GapPassed():
                state = msgspec.structs.replace(state, doubtful=event.last)
                return _pass(state, event.last, sorted(each for each in state.due if each <= event.last))
        registry = operators.step(state.registry, event)
        return (
            state if registry is state.registry else msgspec.structs.replace(state, registry=registry)
        ), []


# --- what events change -----------------------------------------------------------------------------


def _submitted(state: Ledger, task: Task) -> tuple[Ledger, list[Change]]:
    require_blocks(task)
    if task.hash in state.tasks or task.hash in state.accepted:
        return state, []
    block = task.submitted.block
    members = state.registry.held(task.set_hash) if task.set_hash in state.registry.sets else None
    opened = OpenTask(task, 0)
    if members is not None:
        opened = OpenTask(task, members.everyone, members.renewed)
        excused = members.everyone if state.paused_at == block else members.left_by(block)
        opened = _decide(opened, DutyState.EXCUSED, block, excused)
        state = msgspec.structs.replace(state, registry=operators.hold(state.registry, task.set_hash))
    state = msgspec.structs.replace(
        state,
        tasks=state.tasks.set(task.hash, opened),
        due=_file(state.due, max(opened.deadline, block), task.hash),
    )
    changes = [Change(None, _task_row(opened))]
    for place, member in enumerate(() if members is None else members):
        duty = DutyState.EXCUSED if opened.excused >> place & 1 else DutyState.PENDING
        changes.append(Change(None, _duty_row(task, member.operator, duty, block)))
    return state, changes


def _responded(state: Ledger, event: Responded) -> tuple[Ledger, list[Change]]:
    opened = state.tasks.get(event.task_hash)
    if opened is None or event.at.block > opened.deadline:
        return state, []
    if event.non_signers is None:
        after = msgspec.structs.replace(opened, untold=True)
    elif opened.everyone:
        signers = state.registry.held(opened.task.set_hash).all_but(event.non_signers)
        after = _decide(opened, DutyState.SIGNED, event.at.block, signers)
    else:
        after = opened
    if opened.state is TaskState.OPEN:
        after = msgspec.structs.replace(
            after,
            state=TaskState.RESPONDED,
            response=event.digest,
            responded=event.at.block,
            challenge_deadline=event.challenge_deadline,
        )
    return _moved(state, opened, after)


def _challenged(state: Ledger, event: ResponseChallenged) -> tuple[Ledger, list[Change]]:
    if (opened := state.tasks.get(event.task_hash)) is not None:
        if opened.state is not TaskState.RESPONDED or event.at.block > opened.challenge_deadline:
            return state, []
        return _moved(state, opened, msgspec.structs.replace(opened, state=TaskState.CHALLENGED))
    row = state.accepted.get(event.task_hash)
    if row is None or row.state == TaskState.CHALLENGED:
        return state, []
    now = msgspec.structs.replace(row, state=TaskState.CHALLENGED)
    accepted = state.accepted.set(event.task_hash, now)
    return msgspec.structs.replace(state, accepted=accepted), [Change(row, now)]


def _attested(state: Ledger, event: Attested) -> tuple[Ledger, list[Change]]:
    opened = state.tasks.get(event.task_hash)
    if opened is None or not opened.everyone or event.at.block > opened.end:
        return state, []
    place = state.registry.held(opened.task.set_hash).place(event.operator)
    if place is None:
        return state, []
    duty = DutyState.SIGNED if event.at.block <= opened.deadline else DutyState.LATE
    return _moved(state, opened, _decide(opened, duty, event.at.block, 1 << place))


def _cancelled(state: Ledger, event: TaskCancelled) -> tuple[Ledger, list[Change]]:
    opened = state.tasks.get(event.task_hash)
    if opened is None or event.at.block > opened.end:
        return state, []
    after = _decide(opened, DutyState.EXCUSED, event.at.block, opened.everyone)
    return _moved(state, opened, msgspec.structs.replace(after, state=TaskState.CANCELLED))


def _paused(state: Ledger, block: int) -> tuple[Ledger, list[Change]]:
    """A pause began or ended in this block, so at this block the Network was paused."""
    changes: list[Change] = []
    for task_hash in sorted(state.tasks):
        opened = state.tasks[task_hash]
        if block <= opened.deadline and opened.excused != opened.everyone:
            after = _decide(opened, DutyState.EXCUSED, block, opened.everyone)
            state, moved = _moved(state, opened, after)
            changes += moved
    return msgspec.structs.replace(state, paused_at=block), changes


def _pass(state: Ledger, last: int, due: Iterable[int]) -> tuple[Ledger, list[Change]]:
    """Blocks up to `last` have passed: what ended with those that are `due`."""
    changes: list[Change] = []
    for block in due:
        for task_hash in sorted(state.due[block]):
            if (opened := state.tasks.get(task_hash)) is None:
                state = msgspec.structs.replace(state, accepted=state.accepted.delete(task_hash))
                continue
            after = opened
            if opened.state is TaskState.OPEN:
                after = msgspec.structs.replace(after, state=TaskState.EXPIRED)
            if opened.end > last:  # the deadline alone has passed
                state = msgspec.structs.replace(state, due=_file(state.due, opened.end, task_hash))
                state, moved = _moved(state, opened, after)
            else:
                certain = state.is_told_all(opened) and not opened.untold
                duty = DutyState.MISSED if certain else DutyState.UNKNOWN
                after = _decide(after, duty, opened.end, opened.everyone)
                state, moved = _moved(state, opened, after)
                state = _closed(state, after, last)
            changes += moved
        state = msgspec.structs.replace(state, due=state.due.delete(block))
    return state, changes


def _closed(state: Ledger, opened: OpenTask, last: int) -> Ledger:
    """The ledger once nothing can change a task's duties any more, and at most a challenge its row."""
    registry, task_hash = state.registry, opened.task.hash
    if opened.everyone:
        registry = operators.release(registry, opened.task.set_hash)
    state = msgspec.structs.replace(state, tasks=state.tasks.delete(task_hash), registry=registry)
    if opened.state is not TaskState.RESPONDED or opened.challenge_deadline <= last:
        return state
    return msgspec.structs.replace(
        state,
        accepted=state.accepted.set(task_hash, _task_row(opened)),
        due=_file(state.due, opened.challenge_deadline, task_hash),
    )


# --- how they change it -----------------------------------------------------------------------------


def _decide(opened: OpenTask, duty: DutyState, block: int, who: int) -> OpenTask:
    """The task once the duties of `who` are in this state, where no stronger fact holds them already:
    being excused is stronger than all else, and of anything else the first counts."""
    excused = duty is DutyState.EXCUSED
    who &= ~(opened.excused if excused else opened.settled)
    if not who:
        return opened
    decided = opened.decided
    if decided and (decided[-1].state, decided[-1].block) == (duty, block):
        decided = (*decided[:-1], Decided(duty, block, decided[-1].who | who))
    else:
        decided = (*decided, Decided(duty, block, who))
    return msgspec.structs.replace(
        opened,
        decided=decided,
        settled=opened.settled | who,
        excused=opened.excused | who if excused else opened.excused,
    )


def _moved(state: Ledger, before: OpenTask, after: OpenTask) -> tuple[Ledger, list[Change]]:
    """The ledger with what became of an open task, and the rows that this changes."""
    if after is before:
        return state, []
    changes = []
    if (row := _task_row(before)) != (now := _task_row(after)):
        changes.append(Change(row, now))
    task = after.task
    moved = (after.settled & ~before.settled) | (after.excused & ~before.excused)
    if moved:
        members = state.registry.held(task.set_hash)
        newest = after.decided[-1]
        for place in _places(moved):
            operator = members[place].operator
            changes.append(
                Change(
                    _duty_row(task, operator, *_standing(before, place)),
                    _duty_row(task, operator, newest.state, newest.block),
                )
            )
    return msgspec.structs.replace(state, tasks=state.tasks.set(task.hash, after)), changes


def _standing(opened: OpenTask, place: int) -> tuple[DutyState, int]:
    """A duty's state and the block that put it there."""
    if opened.settled >> place & 1:
        for decided in reversed(opened.decided):
            if decided.who >> place & 1:
                return decided.state, decided.block
    return DutyState.PENDING, opened.task.submitted.block


def _places(bitmap: int) -> Iterator[int]:
    while bitmap:
        low = bitmap & -bitmap
        yield low.bit_length() - 1
        bitmap ^= low


def _file(due: Map[int, Map[Hash32, None]], block: int, task_hash: Hash32) -> Map[int, Map[Hash32, None]]:
    return due.set(block, due.get(block, Map()).set(task_hash, None))


# --- rows -------------------------------------------------------------------------------------------


def _task_row(opened: OpenTask) -> TaskRow:
    task = opened.task
    return TaskRow(
        task_hash=task.hash,
        number=task.number,
        type=task.type,
        input=task.input,
        set_hash=task.set_hash,
        submitter=task.submitter,
        submitted_block=task.submitted.block,
        deadline_unit=task.deadline.unit,
        deadline=task.deadline.value,
        grace=task.grace,
        state=opened.state,
        response_digest=opened.response,
        response_block=opened.responded,
        challenge_deadline=opened.challenge_deadline,
    )


def _duty_row(task: Task, operator: Address, state: DutyState, block: int) -> DutyRow:
    return DutyRow(
        task_hash=task.hash,
        operator=operator,
        task_number=task.number,
        task_input=task.input,
        state=state,
        deadline=task.deadline.value,
        grace=task.grace,
        decided_block=block,
    )
