"""The misses of Operators that can still make an offence: more than the contract allows in a window.

A miss is a Duty that the ledger of `tasks.py` calls missed: it is that fold which runs in here, and its word
is taken: it calls none missed of which the log may lack something.

The rule, by which anyone comes to the same offences:

* An Operator's misses are taken when their grace has passed, all that end with one block together.
* As soon as `allowance` + 1 of them lie in one window, they make an offence: sorted by their Tasks' numbers,
  the last Task was submitted less than `window` blocks after the first.
* Of several such choices it is the earliest: the lowest first number, then the lowest second, and so on. Then
  those that are left are looked at again.
* A miss counts for one offence only, and for none once the chain has counted it for a request
  (`MissCounted`).

A Task leaves the state when all its misses have counted, or when no Task that is open or to come can lie in
one window with it; with it go its misses and its set. So what is held is the open Tasks, as the ledger has
them, and those submitted less than a window before the oldest of these, or before the newest block: a bitmap
each, and for each Operator its misses among them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from immutables import Map

from nektar import operators
from nektar.model import (
    Address,
    At,
    Block,
    BlockClosed,
    BlockRef,
    Event,
    GapPassed,
    Hash32,
    MissCounted,
    Responded,
    Task,
    TaskSubmitted,
)
from nektar.rows import Change, DutyRow, DutyState
from processors.folds.tasks import Ledger, Tasks

_DUTIES = Tasks()


class Response(msgspec.Struct, frozen=True, array_like=True):
    """The response that was accepted, and where the chain says so."""

    at: At
    block: BlockRef
    digest: Hash32
    non_signers: tuple[int, ...]


class Owed(msgspec.Struct, frozen=True):
    """A Task whose duties can be proved to be missed."""

    task: Task
    block: BlockRef | None = None  # of the submission, once it is closed
    response: Response | None = None
    missed: int = 0  # bitmap over its set: misses that have not counted yet, once the grace has passed


class Miss(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One Operator's, of a Task that is held. Sorts by the Task's number."""

    number: int
    submitted: int  # block
    task: Hash32


class Misses(msgspec.Struct, frozen=True):
    """What is held. In a window of no blocks no misses lie, so none are."""

    allowance: int
    window: int  # blocks
    ledger: Ledger = Ledger()
    tasks: Map[Hash32, Owed] = Map()
    of: Map[Address, tuple[Miss, ...]] = Map()  # that have not counted yet, by rising number
    due: Map[int, Map[Hash32, None]] = Map()  # block → tasks of which it may be the last
    submitted: tuple[Hash32, ...] = ()  # in the block that is not closed yet
    responded: tuple[Responded, ...] = ()  # in that block

    def left(self, operator: Address) -> int:
        """So many more duties the Operator can miss, whichever of those that are open or to come, before one
        more makes an offence: of the misses held, the most in one window are used up."""
        misses = self.of.get(operator, ())
        most = first = 0
        for last, miss in enumerate(misses):
            while miss.submitted - misses[first].submitted >= self.window:
                first += 1
            most = max(most, last - first + 1)
        return self.allowance - most


class Offence(NamedTuple):
    """One miss more than is allowed, of one Operator; `held` is what was held right before they counted."""

    operator: Address
    misses: tuple[Miss, ...]
    held: Misses


def follow(state: Misses, event: Event) -> tuple[Misses, Sequence[Change], list[Offence]]:
    """What is held after an event, what the ledger says of Tasks and Duties, and what came to be an offence.

    Raises UnsupportedDeadline for a Task whose deadline is not a block.
    """
    before = state.ledger
    ledger, said = _DUTIES.step(before, event)
    if ledger is not before:
        state = msgspec.structs.replace(state, ledger=ledger)
    found: list[Offence] = []
    match event:
        case TaskSubmitted():
            state = _submitted(state, before, event.task)
        case Responded():
            state = _responded(state, event)
        case MissCounted():
            state = _counted(state, event.operator, [event.task_hash])
        case GapPassed():
            state = _ended(state, before, event.last, [e for e in before.due if e <= event.last])
            state = _passed(state, event.last, sorted(e for e in state.due if e <= event.last))
        case BlockClosed():
            missed: defaultdict[Hash32, list[Address]] = defaultdict(list)
            for change in said:
                if isinstance(row := change.after, DutyRow) and row.state == DutyState.MISSED:
                    missed[Hash32(row.task_hash)].append(Address(row.operator))
            state, found = _closed(state, before, event.block, missed)
    return state, said, found


# --- what events change -----------------------------------------------------------------------------


def _submitted(state: Misses, before: Ledger, task: Task) -> Misses:
    """Hold a Task and its set, where its misses could be proved: not of one whose hash is of nothing that
    could be shown."""
    if task.hash not in state.ledger.tasks or task.hash in before.tasks or task.hash in state.tasks:
        return state
    opened = state.ledger.tasks[task.hash]
    if not opened.everyone or not state.ledger.is_told_all(opened) or not task.preimage:
        return state
    state = _with_registry(state, operators.hold(state.ledger.registry, task.set_hash))
    return msgspec.structs.replace(
        state, tasks=state.tasks.set(task.hash, Owed(task)), submitted=(*state.submitted, task.hash)
    )


def _responded(state: Misses, event: Responded) -> Misses:
    """Keep a response that was accepted, until its block has a hash. Who signed one that does not say it by
    places in the set can't be shown to the contract, so nobody is found for such a Task."""
    owed = state.tasks.get(event.task_hash)
    if owed is None or event.at.block > owed.task.deadline.value:
        return state
    if event.non_signers is None or not all(isinstance(each, int) for each in event.non_signers):
        return _let_go(state, event.task_hash)
    return msgspec.structs.replace(state, responded=(*state.responded, event))


def _closed(
    state: Misses, before: Ledger, block: Block, missed: Mapping[Hash32, Sequence[Address]]
) -> tuple[Misses, list[Offence]]:
    """What happened in a block has a place; and with it the grace of some Tasks has passed, whose duties
    these Operators missed."""
    tasks = state.tasks
    for task_hash in state.submitted:
        if owed := tasks.get(task_hash):
            tasks = tasks.set(task_hash, msgspec.structs.replace(owed, block=block.ref))
    for responded in state.responded:
        if owed := tasks.get(responded.task_hash):
            places = tuple(each for each in responded.non_signers or () if isinstance(each, int))
            response = Response(responded.at, block.ref, responded.digest, places)
            tasks = tasks.set(responded.task_hash, msgspec.structs.replace(owed, response=response))
    state = msgspec.structs.replace(state, tasks=tasks, submitted=(), responded=())
    number = block.number
    state = _ended(state, before, number, [number] if number in before.due else [], missed)
    found: list[Offence] = []
    for operator in sorted({each for those in missed.values() for each in those}):
        while window := _window(state, operator):
            found.append(Offence(operator, window, state))
            state = _counted(state, operator, [miss.task for miss in window])
    return _passed(state, number, [number] if number in state.due else []), found


def _ended(
    state: Misses,
    before: Ledger,
    last: int,
    due: Iterable[int],
    missed: Mapping[Hash32, Sequence[Address]] = Map(),
) -> Misses:
    """The graces that ended with these blocks: take the misses, and let go of Tasks that have none."""
    for task_hash in sorted({each for block in due for each in before.due[block]}):
        if task_hash not in before.tasks or task_hash in state.ledger.tasks or task_hash not in state.tasks:
            continue
        if not (those := missed.get(task_hash)):
            state = _let_go(state, task_hash)
            continue
        owed, misses, who = state.tasks[task_hash], state.of, 0
        members = state.ledger.registry.held(owed.task.set_hash)
        miss = Miss(owed.task.number, owed.task.submitted.block, task_hash)
        for operator in those:
            place = members.place(operator)
            assert place is not None  # noqa: S101  the ledger says that it missed its duty
            who |= 1 << place
            misses = misses.set(operator, tuple(sorted((*misses.get(operator, ()), miss))))
        leaves = max(last, miss.submitted + state.window - 1)
        state = msgspec.structs.replace(
            state,
            tasks=state.tasks.set(task_hash, msgspec.structs.replace(owed, missed=who)),
            of=misses,
            due=_file(state.due, leaves, task_hash),
        )
    return state


def _window(state: Misses, operator: Address) -> tuple[Miss, ...] | None:
    """The earliest misses that make an offence. They lie beside each other, since no other choice of them
    lies closer."""
    misses, count = state.of.get(operator, ()), state.allowance + 1
    for i in range(len(misses) - count + 1):
        if 0 <= misses[i + count - 1].submitted - misses[i].submitted < state.window:
            return misses[i : i + count]
    return None


def _counted(state: Misses, operator: Address, tasks: Iterable[Hash32]) -> Misses:
    """An Operator's misses of these Tasks count no more; those that are not held never did."""
    for task_hash in tasks:
        owed = state.tasks.get(task_hash)
        if owed is None or not owed.missed:
            continue
        place = state.ledger.registry.held(owed.task.set_hash).place(operator)
        if place is None or not owed.missed >> place & 1:
            continue
        left = owed.missed & ~(1 << place)
        state = msgspec.structs.replace(state, of=_without(state.of, operator, task_hash))
        if left:
            owed = msgspec.structs.replace(owed, missed=left)
            state = msgspec.structs.replace(state, tasks=state.tasks.set(task_hash, owed))
        else:
            state = _let_go(state, task_hash)
    return state


def _passed(state: Misses, last: int, due: Iterable[int]) -> Misses:
    """Blocks up to `last` have passed: Tasks that no other can lie in one window with any more leave. Those
    to come are submitted later; of those that are open, some may last for long."""
    for block in due:
        for task_hash in sorted(state.due[block]):
            if (owed := state.tasks.get(task_hash)) is None:
                continue
            submitted = owed.task.submitted.block
            near = [
                opened.end
                for opened in state.ledger.tasks.values()
                if abs(opened.task.submitted.block - submitted) < state.window
            ]
            if near:
                state = msgspec.structs.replace(state, due=_file(state.due, max(last + 1, *near), task_hash))
                continue
            misses = state.of
            for place, member in enumerate(state.ledger.registry.held(owed.task.set_hash)):
                if owed.missed >> place & 1:
                    misses = _without(misses, member.operator, task_hash)
            state = _let_go(msgspec.structs.replace(state, of=misses), task_hash)
        state = msgspec.structs.replace(state, due=state.due.delete(block))
    return state


def _without(
    misses: Map[Address, tuple[Miss, ...]], operator: Address, task_hash: Hash32
) -> Map[Address, tuple[Miss, ...]]:
    left = tuple(miss for miss in misses[operator] if miss.task != task_hash)
    return misses.set(operator, left) if left else misses.delete(operator)


def _let_go(state: Misses, task_hash: Hash32) -> Misses:
    """The state without a Task none of whose misses is left."""
    registry = operators.release(state.ledger.registry, state.tasks[task_hash].task.set_hash)
    return msgspec.structs.replace(_with_registry(state, registry), tasks=state.tasks.delete(task_hash))


def _with_registry(state: Misses, registry: operators.Registry) -> Misses:
    """The ledger holds the sets of open Tasks, what is held here those of its own."""
    return msgspec.structs.replace(state, ledger=msgspec.structs.replace(state.ledger, registry=registry))


def _file(due: Map[int, Map[Hash32, None]], block: int, task_hash: Hash32) -> Map[int, Map[Hash32, None]]:
    return due.set(block, due.get(block, Map()).set(task_hash, None))
