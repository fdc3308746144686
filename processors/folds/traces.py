"""What befell each Task on the chain: as rows that are true now and, once final, as spans of its trace.

The trace is the one that Operators' own spans stand in (nektar/telemetry.py). Its root, the span `task`,
lasts from the submission to the end of the grace; each event is a span `chain.KIND` under it that lasts no
time, since all of a block happens at once. A Task submitted before the log begins has events, and no root.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec
from immutables import Map

from nektar import telemetry
from nektar.model import (
    Address,
    At,
    Attested,
    Block,
    BlockClosed,
    Event,
    GapPassed,
    Hash32,
    Network,
    Responded,
    ResponseChallenged,
    Task,
    TaskCancelled,
    TaskSubmitted,
)
from nektar.rows import ChainSpan, Change, TaskEventRow
from processors.folds.deadlines import require_blocks

_NOBODY = Address(bytes(20))
_NO_PARENT = bytes(8)


class Happened(msgspec.Struct, frozen=True, array_like=True):
    """An event of the block that is not closed yet."""

    at: At
    kind: str
    task_hash: Hash32
    operator: Address
    detail: str


class Open(msgspec.Struct, frozen=True, array_like=True):
    """A Task whose grace is not over."""

    number: int
    started: int  # time of the submission's block


class Stories(msgspec.Struct, frozen=True):
    """The fold's state."""

    chain_id: int
    contract: Address  # the TaskManager, which the trace id names
    here: tuple[Happened, ...] = ()
    tasks: Map[Hash32, Open] = Map()
    due: Map[int, tuple[Hash32, ...]] = Map()  # block → tasks whose grace ends with it
    submitted: tuple[Task, ...] = ()  # in the block that is not closed yet
    time: int = 0  # of the newest closed block


class Traces:
    """The fold `traces`: puts out TaskEventRow and ChainSpan."""

    name = "traces"
    state_type = Stories

    def initial(self, network: Network) -> Stories:
        """Nothing has happened. Raises UnknownContract where the configuration has no task manager."""
        return Stories(network.chain_id, network.contract("task_manager"))

    def step(self, state: Stories, event: Event) -> tuple[Stories, list[Change]]:
        """Work per block is for its own events and for the Tasks whose grace ends with it.

        Raises UnsupportedDeadline for a Task whose deadline is not a block.
        """
        match event:
            case BlockClosed(block=block):
                return _closed(state, block)
            case GapPassed():
                return _over(state, sorted(each for each in state.due if each <= event.last))
            case TaskSubmitted(task=task):
                require_blocks(task)
                state = msgspec.structs.replace(state, submitted=(*state.submitted, task))
        if happened := _happened(event):
            state = msgspec.structs.replace(state, here=(*state.here, happened))
        return state, []


def _happened(event: Event) -> Happened | None:
    """What an event says about a Task; None where it is about none."""
    match event:
        case TaskSubmitted(at=at, task=task):
            detail: dict[str, object] = {
                "deadline": task.deadline.value,
                "grace": task.grace,
                "input": task.input,
                "number": task.number,
            }
            return Happened(at, "submitted", task.hash, _NOBODY, _canonical(detail))
        case Responded(at=at, task_hash=task_hash):
            detail = {"digest": _hex(event.digest)}
            if event.non_signers is not None:
                detail["non_signers"] = len(event.non_signers)
            return Happened(at, "responded", task_hash, _NOBODY, _canonical(detail))
        case Attested(at=at, task_hash=task_hash, operator=operator):
            detail = {"digest": _hex(event.digest), "kept": event.kept}
            return Happened(at, "attested", task_hash, operator, _canonical(detail))
        case ResponseChallenged(at=at, task_hash=task_hash):
            return Happened(at, "challenged", task_hash, _NOBODY, _canonical({}))
        case TaskCancelled(at=at, task_hash=task_hash):
            return Happened(at, "cancelled", task_hash, _NOBODY, _canonical({}))
    return None


def _closed(state: Stories, block: Block) -> tuple[Stories, list[Change]]:
    changes: list[Change] = []
    for happened in state.here:
        changes.append(Change(None, _row(happened, block)))
        changes.append(Change(None, _span(state, happened, block)))
    tasks, due = state.tasks, state.due
    for task in state.submitted:
        if task.hash not in tasks:
            end = max(task.deadline.value + task.grace, block.number)
            tasks = tasks.set(task.hash, Open(task.number, block.time))
            due = due.set(end, (*due.get(end, ()), task.hash))
    state = msgspec.structs.replace(state, here=(), submitted=(), tasks=tasks, due=due, time=block.time)
    state, over = _over(state, [block.number] if block.number in due else [])
    return state, [*changes, *over]


def _over(state: Stories, blocks: Iterable[int]) -> tuple[Stories, list[Change]]:
    """The grace of the Tasks due at these blocks is over: the state without them, and their roots."""
    changes: list[Change] = []
    tasks, due = state.tasks, state.due
    for block in blocks:
        for task_hash in due[block]:
            changes.append(Change(None, _root(state, task_hash, tasks[task_hash])))
            tasks = tasks.delete(task_hash)
        due = due.delete(block)
    return (msgspec.structs.replace(state, tasks=tasks, due=due) if changes else state), changes


# --- rows and spans ---------------------------------------------------------------------------------


def _row(happened: Happened, block: Block) -> TaskEventRow:
    return TaskEventRow(
        task_hash=happened.task_hash,
        block_hash=block.hash,
        log_index=happened.at.log,
        block_number=block.number,
        block_time=block.time,
        kind=happened.kind,
        operator=happened.operator,
        detail=happened.detail,
    )


def _span(state: Stories, happened: Happened, block: Block) -> ChainSpan:
    trace, root = telemetry.task_ids(state.chain_id, state.contract, happened.task_hash)
    attributes = _identity(state, happened.task_hash) | {
        "nektar.block.number": str(block.number),
        "nektar.block.hash": _hex(block.hash),
        "nektar.detail": happened.detail,
    }
    if happened.operator != _NOBODY:
        attributes[telemetry.OPERATOR] = _hex(happened.operator)
    return ChainSpan(
        trace_id=trace,
        span_id=telemetry.chain_span_id(trace, block.hash, happened.at.log),
        parent_id=root,
        name=f"chain.{happened.kind}",
        started=block.time,
        ended=block.time,
        attributes=_canonical(attributes),
    )


def _root(state: Stories, task_hash: Hash32, opened: Open) -> ChainSpan:
    trace, root = telemetry.task_ids(state.chain_id, state.contract, task_hash)
    attributes = _identity(state, task_hash) | {telemetry.TASK_NUMBER: str(opened.number)}
    return ChainSpan(
        trace_id=trace,
        span_id=root,
        parent_id=_NO_PARENT,
        name="task",
        started=opened.started,
        ended=max(opened.started, state.time),
        attributes=_canonical(attributes),
    )


def _identity(state: Stories, task_hash: Hash32) -> dict[str, str]:
    return {
        telemetry.CHAIN_ID: str(state.chain_id),
        telemetry.CONTRACT: _hex(state.contract),
        telemetry.TASK_HASH: _hex(task_hash),
    }


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _hex(octets: bytes) -> str:
    return "0x" + octets.hex()
