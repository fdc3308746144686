"""The duty ledger: every Task, and for every Operator in the set that it committed to, its Duty.

A Duty's state comes from verified blocks alone; the first row that holds counts:

| state | chain facts |
|---|---|
| excused | task cancelled, Network paused at some block from submission to deadline, or the Operator's deregistration took effect by the submission |
| signed | in the response's signers, or attested by the Operator itself, in a block ≤ deadline |
| late | attested in deadline < block ≤ deadline + grace |
| pending | none of these, and deadline + grace is not yet passed |
| unknown | none of these, and some block from submission to deadline + grace is not proved |
| missed | none of these, all those blocks proved |

"Paused at a block" is paused at its beginning or by an event in it. Nothing can change a Duty once deadline +
grace has passed, so that is when a Task leaves the state. What is kept of an open Task is a few facts, from
which each Duty is derived; a Task whose set was committed before the log begins has no duties here.
"""  # noqa: E501  a table's row is one line

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import msgspec
from immutables import Map

from nektar import operators
from nektar.errors import NektarError
from nektar.model import (
    Address,
    Attested,
    BlockClosed,
    Change,
    DutyRow,
    DutyState,
    Event,
    GapPassed,
    Hash32,
    Level,
    Network,
    OperatorSet,
    Paused,
    Responded,
    Task,
    TaskCancelled,
    TaskRow,
    TaskState,
    TaskSubmitted,
    Unpaused,
)
from nektar.operators import Registry

_NO_DIGEST = Hash32(bytes(32))


class UnsupportedDeadline(NektarError):
    """The ledger counts deadlines in blocks; this Network's are in another unit."""


class OpenTask(msgspec.Struct, frozen=True):
    """A Task whose grace is not over, and what the chain has shown of it. Bitmaps: over the set's index."""

    task: Task
    left: int = 0  # bitmap: Operators that had left by the submission
    voided: int | None = None  # block that cancelled it, or in which the Network was first seen paused
    cancelled: bool = False
    response: Hash32 = _NO_DIGEST
    responded: int | None = None  # block of the accepted response
    signers: int = 0  # bitmap
    attested: Map[int, int] = Map()  # index → block of its first attestation
    doubtful: bool = False  # some block since the submission is not proved

    @property
    def end(self) -> int:
        """The last block in which anything about it can change."""
        return self.task.deadline.value + self.task.grace


class Ledger(msgspec.Struct, frozen=True):
    """The fold's state."""

    registry: Registry = Registry()
    sets: Map[Hash32, OperatorSet] = Map()  # those that open tasks committed to
    tasks: Map[Hash32, OpenTask] = Map()
    ends: Map[int, tuple[Hash32, ...]] = Map()  # block → tasks whose grace ends with it
    paused: bool = False
    paused_in_block: bool = False


_Change: TypeAlias = Callable[[OpenTask, OperatorSet], OpenTask]


class Tasks:
    """The fold `tasks`: puts out TaskRow and DutyRow."""

    name = "tasks"
    state_type = Ledger

    def initial(self, network: Network) -> Ledger:
        """An empty ledger."""
        return Ledger()

    def step(self, state: Ledger, event: Event) -> tuple[Ledger, list[Change]]:
        """Raises UnsupportedDeadline for a Task whose deadline is not a block."""
        replace = msgspec.structs.replace
        match event:
            case TaskSubmitted():
                return _submitted(state, event.task)
            case Responded():
                return _about(state, event.task_hash, lambda t, s: _responded(t, s, event))
            case Attested():
                return _about(state, event.task_hash, lambda t, s: _attested(t, s, event))
            case TaskCancelled():
                return _about(
                    state,
                    event.task_hash,
                    lambda t, s: replace(t, cancelled=True, voided=_first(t.voided, event.at.block)),
                )
            case Paused():
                return replace(state, paused=True, paused_in_block=True), []
            case Unpaused():
                return replace(state, paused=False), []
            case BlockClosed():
                return _closed(state, event.block.number, event.block.level is Level.PROVED)
            case GapPassed():
                return _passed(state, event.last)
        registry = operators.step(state.registry, event)
        return (state if registry is state.registry else replace(state, registry=registry)), []


def duty(open_task: OpenTask, index: int, closing: bool = False) -> tuple[DutyState, int]:
    """(state, block that decided it) by the table above; `closing` says that deadline + grace has passed."""
    task, bit = open_task.task, 1 << index
    if open_task.voided is not None:
        return DutyState.EXCUSED, open_task.voided
    if open_task.left & bit:
        return DutyState.EXCUSED, task.submitted.block
    deadline = task.deadline.value
    shown = [open_task.attested[index]] if index in open_task.attested else []
    if open_task.responded is not None and open_task.signers & bit:
        shown.append(open_task.responded)
    if shown:
        return (DutyState.SIGNED if min(shown) <= deadline else DutyState.LATE), min(shown)
    if not closing:
        return DutyState.PENDING, task.submitted.block
    return (DutyState.UNKNOWN if open_task.doubtful else DutyState.MISSED), open_task.end


def _submitted(state: Ledger, task: Task) -> tuple[Ledger, list[Change]]:
    if task.deadline.unit != "block":
        raise UnsupportedDeadline(
            f"task {task.number}: expected a deadline in blocks; got {task.deadline.unit}"
        )
    members = state.registry.newest
    if members is None or members.hash != task.set_hash:
        return state, []  # its set was committed before the log begins
    left = 0
    for index, member in enumerate(members.members):
        if state.registry.left_by(member.operator, task.submitted.block):
            left |= 1 << index
    after = OpenTask(task, left)
    state = msgspec.structs.replace(
        state,
        sets=state.sets.set(task.set_hash, members),
        tasks=state.tasks.set(task.hash, after),
        ends=state.ends.set(after.end, (*state.ends.get(after.end, ()), task.hash)),
    )
    changes = [Change(None, _task_row(after))]
    changes += [Change(None, _duty_row(after, members, i)) for i in range(len(members.members))]
    return state, changes


def _about(state: Ledger, task_hash: Hash32, change: _Change) -> tuple[Ledger, list[Change]]:
    """What an event changes about one open task. One that is not open (submitted before the log begins, or
    long closed) has nothing to change."""
    before = state.tasks.get(task_hash)
    if before is None:
        return state, []
    members = state.sets[before.task.set_hash]
    after = change(before, members)
    if after == before:
        return state, []
    return msgspec.structs.replace(state, tasks=state.tasks.set(task_hash, after)), list(
        _changes(before, after, members)
    )


def _responded(task: OpenTask, members: OperatorSet, event: Responded) -> OpenTask:
    if task.responded is not None:
        return task
    signers = (1 << len(members.members)) - 1
    for index in event.non_signers:
        signers &= ~(1 << index)
    return msgspec.structs.replace(task, response=event.digest, responded=event.at.block, signers=signers)


def _attested(task: OpenTask, members: OperatorSet, event: Attested) -> OpenTask:
    index = _index(members, event.operator)
    if index is None or index in task.attested or event.at.block > task.end:
        return task
    return msgspec.structs.replace(task, attested=task.attested.set(index, event.at.block))


def _closed(state: Ledger, number: int, proved: bool) -> tuple[Ledger, list[Change]]:
    """All of a block has been said: what holds at its end."""
    changes: list[Change] = []
    if state.paused_in_block:
        for task_hash, open_task in _in_order(state.tasks):
            if open_task.voided is None and number <= open_task.task.deadline.value:
                state, voided = _about(
                    state, task_hash, lambda t, s: msgspec.structs.replace(t, voided=number)
                )
                changes += voided
    if state.paused_in_block != state.paused:
        state = msgspec.structs.replace(state, paused_in_block=state.paused)
    if not proved:
        state = _doubt(state)
    if number in state.ends:
        state, ended = _end(state, [number])
        changes += ended
    return state, changes


def _passed(state: Ledger, last: int) -> tuple[Ledger, list[Change]]:
    """Blocks up to `last` can't be had: nothing negative may rest on them."""
    state = _doubt(state)
    return _end(state, sorted(end for end in state.ends if end <= last))


def _doubt(state: Ledger) -> Ledger:
    tasks = state.tasks
    for task_hash, open_task in state.tasks.items():
        if not open_task.doubtful:
            tasks = tasks.set(task_hash, msgspec.structs.replace(open_task, doubtful=True))
    return msgspec.structs.replace(state, tasks=tasks)


def _end(state: Ledger, blocks: Iterable[int]) -> tuple[Ledger, list[Change]]:
    """Close the tasks whose grace ends with these blocks, and let go of them."""
    tasks, ends = state.tasks, state.ends
    changes: list[Change] = []
    for block in blocks:
        for task_hash in ends[block]:
            open_task = tasks[task_hash]
            members = state.sets[open_task.task.set_hash]
            changes += _changes(open_task, open_task, members, closing=True)
            tasks = tasks.delete(task_hash)
        ends = ends.delete(block)
    needed = {t.task.set_hash for t in tasks.values()}
    sets = Map({h: s for h, s in state.sets.items() if h in needed})
    return msgspec.structs.replace(state, tasks=tasks, ends=ends, sets=sets), changes


def _changes(
    before: OpenTask, after: OpenTask, members: OperatorSet, closing: bool = False
) -> Iterator[Change]:
    task_rows = _task_row(before), _task_row(after, closing)
    if task_rows[0] != task_rows[1]:
        yield Change(*task_rows)
    for index in range(len(members.members)):
        if duty(before, index) != duty(after, index, closing):
            yield Change(_duty_row(before, members, index), _duty_row(after, members, index, closing))


def _task_row(open_task: OpenTask, closing: bool = False) -> TaskRow:
    task = open_task.task
    if open_task.cancelled:
        state = TaskState.CANCELLED
    elif open_task.responded is not None:
        state = TaskState.RESPONDED
    else:
        state = TaskState.EXPIRED if closing else TaskState.OPEN
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
        state=state,
        response_digest=open_task.response,
        response_block=open_task.responded or 0,
    )


def _duty_row(open_task: OpenTask, members: OperatorSet, index: int, closing: bool = False) -> DutyRow:
    task = open_task.task
    state, block = duty(open_task, index, closing)
    return DutyRow(
        task_hash=task.hash,
        operator=members.members[index].operator,
        task_number=task.number,
        task_input=task.input,
        state=state,
        deadline=task.deadline.value,
        grace=task.grace,
        decided_block=block,
    )


def _index(members: OperatorSet, operator: Address) -> int | None:
    return next((i for i, m in enumerate(members.members) if m.operator == operator), None)


def _first(block: int | None, other: int) -> int:
    return other if block is None else min(block, other)


def _in_order(tasks: Map[Hash32, OpenTask]) -> list[tuple[Hash32, OpenTask]]:
    return sorted(tasks.items(), key=lambda pair: pair[0])
