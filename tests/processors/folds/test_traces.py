"""A Task's story: what befell it on the chain, and the spans of its trace."""

from __future__ import annotations

import json

import msgspec
import pytest

from nektar import telemetry
from nektar.model import (
    At,
    Attested,
    BlockClosed,
    Deadline,
    Event,
    GapPassed,
    Hash32,
    Responded,
    TaskCancelled,
    TaskSubmitted,
)
from nektar.rows import ChainSpan, Change, Row, TaskEventRow
from processors.folds.deadlines import UnsupportedDeadline
from processors.folds.traces import Stories, Traces
from tests.processors.world import CHAIN_ID, MANAGER, NETWORK, OPERATORS, ZERO, block, task

FOLD = Traces()
TASK = task(At(10, 0, 0), ZERO, 7, deadline=12, grace=1)
OTHER = task(At(11, 0, 0), ZERO, 8, deadline=12, grace=1)
TRACE, ROOT = telemetry.task_ids(CHAIN_ID, MANAGER, TASK.hash)
DIGEST = Hash32(b"\x05" * 32)


def told(events: list[Event]) -> tuple[Stories, list[Row]]:
    state, said = FOLD.initial(NETWORK), list[Change]()
    for event in events:
        state, changes = FOLD.step(state, event)
        said += changes
    assert all(change.before is None for change in said)
    return state, [change.after for change in said if change.after]


def test_each_event_is_a_row_and_a_span_under_the_tasks_root() -> None:
    state, said = told(
        [
            TaskSubmitted(At(10, 0, 0), TASK),
            BlockClosed(block(10)),
            Attested(At(11, 0, 1), TASK.hash, OPERATORS[0], DIGEST, True),
            Responded(At(11, 1, 2), TASK.hash, DIGEST, (1, 3)),
            BlockClosed(block(11)),
            BlockClosed(block(12)),
            BlockClosed(block(13)),
        ]
    )
    rows = [row for row in said if isinstance(row, TaskEventRow)]
    assert [(row.kind, row.block_number, row.log_index, row.operator) for row in rows] == [
        ("submitted", 10, 0, bytes(20)),
        ("attested", 11, 1, OPERATORS[0]),
        ("responded", 11, 2, bytes(20)),
    ]
    assert json.loads(rows[2].detail) == {"digest": "0x" + DIGEST.hex(), "non_signers": 2}
    spans = [row for row in said if isinstance(row, ChainSpan)]
    assert [(span.name, span.parent_id, span.started, span.ended) for span in spans] == [
        ("chain.submitted", ROOT, block(10).time, block(10).time),
        ("chain.attested", ROOT, block(11).time, block(11).time),
        ("chain.responded", ROOT, block(11).time, block(11).time),
        ("task", bytes(8), block(10).time, block(13).time),
    ]
    assert {span.trace_id for span in spans} == {TRACE}
    assert spans[3].span_id == ROOT
    assert len({span.span_id for span in spans}) == 4
    assert json.loads(spans[1].attributes)[telemetry.OPERATOR] == "0x" + OPERATORS[0].hex()
    assert (len(state.tasks), len(state.due), len(state.here)) == (0, 0, 0)


def test_tasks_end_apart_and_one_from_before_the_log_has_events_and_no_root() -> None:
    state, said = told(
        [
            TaskSubmitted(At(10, 0, 0), TASK),
            BlockClosed(block(10)),
            TaskSubmitted(At(11, 0, 0), OTHER),
            TaskCancelled(At(11, 0, 1), Hash32(b"\x09" * 32)),
            BlockClosed(block(11)),
        ]
    )
    assert [row.kind for row in said if isinstance(row, TaskEventRow)] == [
        "submitted",
        "submitted",
        "cancelled",
    ]
    assert set(state.tasks) == {TASK.hash, OTHER.hash}


def test_a_gap_over_the_end_ends_the_root_with_the_last_time_that_is_known() -> None:
    state, said = told(
        [TaskSubmitted(At(10, 0, 0), TASK), BlockClosed(block(10)), GapPassed(11, 20), BlockClosed(block(21))]
    )
    (root,) = [row for row in said if isinstance(row, ChainSpan) and row.name == "task"]
    assert (root.started, root.ended) == (block(10).time, block(10).time)
    assert not state.tasks


def test_a_deadline_that_is_no_block_stops_with_a_clear_error() -> None:
    other = msgspec.structs.replace(TASK, deadline=Deadline("timestamp", 1_800_000_000))
    with pytest.raises(UnsupportedDeadline, match="expected a deadline in blocks; got one in timestamps"):
        told([TaskSubmitted(other.submitted, other)])
