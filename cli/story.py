"""`nektar tasks ID`: one Task's story. What the chain says, what became of each Duty and why, and the steps
of all who worked on it.

The chain's events have the blocks' clock; each step has its sender's own, so what is told of it is when it
began since that sender's first, and beside it which blocks the sender knew: of two clocks nothing is
compared. Who tells is whose token brought it, which alone is more than said; the service that it says to be
stands beside. Causes are what telemetry explains (`diagnoses`), and decide nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cli.settings import read_config
from cli.show import fields, rows, short
from nektar.config import Config
from nektar.errors import NektarError
from nektar.rows import DiagnosisRow, DutyRow, DutyState, TaskEventRow
from nektar.store.client import asking, parsed
from nektar.store.views import rows_where
from nektar.telemetry import CHAIN, task_ids

# What a story holds at most: events of the chain, and spans of each sender, so that a flood by one hides
# nothing that others say; of as many senders as a Network has Operators.
EVENTS, SPANS, ALL_SPANS = 1_000, 200, 20_000
# What somebody must look at comes first.
_DUTIES = (
    *(DutyState.MISSED, DutyState.UNKNOWN, DutyState.LATE),
    *(DutyState.PENDING, DutyState.EXCUSED, DutyState.SIGNED),
)
# So many Tasks are named where an id means several.
_NAMED = 3

Ask = Callable[..., list[dict[str, Any]]]
Record = Mapping[str, Any]

_TASK = """
SELECT *, multiIf(task_hash = {task:String}, '', toString(number) = {task:String}, 'number',
                  input = {task:String}, 'input', 'beginning') AS by
FROM tasks
WHERE task_hash = {task:String} OR toString(number) = {task:String} OR input = {task:String}
   OR startsWith(task_hash, {task:String}) AND startsWith({task:String}, '0x')
ORDER BY indexOf(['', 'number', 'input', 'beginning'], by), submitted_block DESC, network
LIMIT 1000
"""
_OF_TASK = "t.network = {network:String} AND t.task_hash = toFixedString(unhex({hash:String}), 32)"
_EVENTS = f"""
SELECT block_number AS block, block_time AS time, kind AS what, detail,
       if(replaceAll(operator, '0', '') = 'x', '', operator) AS operator
FROM ({rows_where(TaskEventRow, _OF_TASK)})
ORDER BY block, log_index, block_hash LIMIT {{events:UInt32}}
"""  # noqa: S608  all of it is written here and in the store's schema
_DUTIES_OF_TASK = f"""
SELECT d.operator AS operator, d.state AS state, d.decided_block AS block, w.cause AS cause,
       w.stage AS stage, w.blame AS blame, w.told_by AS told_by, w.spans AS spans
FROM ({rows_where(DutyRow, _OF_TASK)}) AS d
LEFT JOIN ({rows_where(DiagnosisRow, _OF_TASK)}) AS w ON w.operator = d.operator
ORDER BY indexOf({{states:Array(String)}}, state), operator
"""  # noqa: S608
# Where in time its spans lie is looked up first, since they are kept by date. Not with `<`: of a time in
# nanoseconds below one in seconds ClickHouse passes over what lies in the last of these.
_STEPS = """
SELECT toString(Timestamp) AS time, toUnixTimestamp64Nano(Timestamp) AS began, Duration AS took,
       concat(ResourceAttributes['nektar.sender'], if(of IN ('', {network:String}), '', concat(' of ', of)))
         AS sender,
       ServiceName AS service, SpanName AS step, SpanAttributes['nektar.operator'] AS operator,
       SpanAttributes['nektar.head.begun'] AS head_begun, SpanAttributes['nektar.head.ended'] AS head_ended,
       if(StatusCode != 'Error', '', coalesce(nullIf(SpanAttributes['error.type'], ''),
                                              nullIf(StatusMessage, ''), 'error')) AS error,
       SpanId AS span
FROM (
  SELECT *, ResourceAttributes['nektar.sender_network'] AS of FROM otel_traces
  WHERE TraceId IN {traces:Array(String)} AND ResourceAttributes['nektar.sender'] != {chain:String}
    AND Timestamp >= (
      SELECT min(Start) FROM otel_traces_trace_id_ts WHERE TraceId IN {traces:Array(String)}
    ) AND Timestamp <= (
      SELECT max(End) + 1 FROM otel_traces_trace_id_ts WHERE TraceId IN {traces:Array(String)}
    )
)
ORDER BY Timestamp, span LIMIT {spans:UInt32} BY sender LIMIT {all:UInt32}
"""


class NoSuchTask(NektarError):
    """What was asked for is not in the store, or is not one Task alone."""


def story(task: str, config_path: Path | None, directory: Path | None, as_json: bool) -> None:
    """The command. Raises NoSuchTask; what `ask` raises."""
    config, _ = read_config(config_path, directory)
    with asking(config) as answer:
        told = read(lambda sql, **params: parsed(answer(sql, "JSONEachRow", params)), config, task)
    if as_json:
        rows([told], [], as_json=True)
        return
    _show(told)


def read(ask: Ask, config: Config, task: str) -> dict[str, Any]:
    """The Task's row, with its `events`, `duties` and `steps`. Raises NoSuchTask."""
    found = _one(task, ask(_TASK, task=task.lower()))
    of = {"network": found["network"], "hash": found["task_hash"][2:]}
    traces = str(_traces(config, found))
    return {
        **found,
        "events": [
            {**event, "detail": json.loads(event["detail"])} for event in ask(_EVENTS, events=EVENTS, **of)
        ],
        "duties": ask(_DUTIES_OF_TASK, states=str([str(state) for state in _DUTIES]), **of),
        "steps": _since_first(
            ask(_STEPS, network=of["network"], traces=traces, chain=CHAIN, spans=SPANS, all=ALL_SPANS)
        ),
    }


def _one(asked: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The Task that is meant: of what is called so in the same way. Networks on one contract have the same
    ones, of which the first is told."""
    if not found:
        raise NoSuchTask(
            f"task: expected a task's hash, how it begins, its number or its input; found none for {asked!r}"
        )
    by = found[0]["by"]
    named = {each["task_hash"]: each for each in reversed(found) if each["by"] == by}
    if len(named) > 1:
        some = ", ".join(
            f"{short(each['task_hash'])} ({each['network']}, block {each['submitted_block']})"
            for each in [*named.values()][: -_NAMED - 1 : -1]
        )
        more = ", …" if len(named) > _NAMED else ""
        raise NoSuchTask(
            f"task: {len(named)} tasks have the {by} {asked}: {some}{more}; name one by its hash"
        )
    return {name: value for name, value in named.popitem()[1].items() if name != "by"}


def _traces(config: Config, task: Record) -> list[str]:
    """The Task's traces: one for each contract of its Network that may be its own."""
    return [
        task_ids(network.chain_id, bytes.fromhex(address[2:]), bytes.fromhex(task["task_hash"][2:]))[0].hex()
        for network in config.networks
        if network.name == task["network"]
        for name, address in network.contracts.items()
        if name.partition("/")[0] == "task_manager"  # of several, `task_manager/NAME`
    ]


def _since_first(steps: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps, with when each began since its sender's first and what it took, in ms."""
    first: dict[str, int] = {}
    found = []
    for step in steps:
        began, took = int(step.pop("began")), int(step.pop("took"))
        since = began - first.setdefault(step["sender"], began)
        found.append({**step, "at_ms": round(since / 1e6, 1), "took_ms": round(took / 1e6, 1)})
    return found


# --- for people -------------------------------------------------------------------------------------


def _show(told: Record) -> None:
    fields(_heading(told))
    print()
    _table("on the chain", _events(told["events"]), ["block", "time", "after_s", "what", "by"])
    print()
    columns = ["operator", "state", "block", "cause", "stage", "blame", "told_by"]
    _table("duties", [{**duty, "told_by": _tellers(duty)} for duty in told["duties"]], columns)
    print()
    columns = ["sender", "at_ms", "took_ms", "step", "head", "of", "error"]
    title = f"steps since each sender's first, {SPANS} of each at most"
    _table(title, _steps(told), columns, empty="nobody reported any")


def _table(title: str, records: Sequence[Record], columns: Sequence[str], empty: str = "none") -> None:
    """Without the columns of which there is nothing."""
    used = [column for column in columns if any(record[column] != "" for record in records)]
    rows(records, used, as_json=False, title=title, empty=empty)


def _heading(told: Record) -> dict[str, Any]:
    unit = "" if told["deadline_unit"] == "block" else f"{told['deadline_unit']} "
    response = "none"
    if told["response_block"]:
        response = f"{told['response_digest']} in block {told['response_block']}"
        response += f", can be challenged until {unit}{told['challenge_deadline']}"
    return {
        "task": f"{told['number']} of {told['network']}",
        "task_hash": told["task_hash"],
        "input": told["input"],
        "state": told["state"],
        "submitted": f"in block {told['submitted_block']} by {told['submitter']}",
        "due": f"by {unit}{told['deadline']}, late until {unit}{told['deadline'] + told['grace']}",
        "response": response,
    }


def _events(events: Sequence[Record]) -> list[dict[str, Any]]:
    times = [datetime.fromisoformat(event["time"]) for event in events]
    return [
        {
            **event,
            "after_s": int((time - times[0]).total_seconds()),
            "what": _what(event),
            "by": event["operator"],
        }
        for event, time in zip(events, times, strict=True)
    ]


def _what(event: Record) -> str:
    match event["what"], event["detail"]:
        case "responded", {"non_signers": int(count)} if count:
            return f"responded, {count} did not sign"
        case "attested", {"kept": False}:
            return "attested once more"
    return str(event["what"])


def _tellers(duty: Record) -> str:
    """On whose word its cause rests, by their names."""
    names = [teller.partition("/")[2] for teller in duty["told_by"].split(",")]
    return ", ".join("itself" if name == duty["operator"] else name for name in names)


def _steps(told: Record) -> list[dict[str, Any]]:
    """By sender: Operators in the order of their duties, then whoever else. Each is named once, with each
    service that it says to be."""
    order = {duty["operator"]: place for place, duty in enumerate(told["duties"])}
    shown: list[dict[str, Any]] = []
    before: tuple[str, str] | None = None
    for step in sorted(told["steps"], key=lambda s: (order.get(s["sender"], len(order)), s["sender"])):
        sender, service = step["sender"], step["service"]
        named = sender if service in (sender, "") else f"{sender} ({service})"
        heads = dict.fromkeys(head for head in (step["head_begun"], step["head_ended"]) if head)
        shown.append(
            {
                **step,
                "sender": "" if before == (sender, service) else named,
                "head": "–".join(heads),
                "of": "" if step["operator"] == sender else short(step["operator"]),
            }
        )
        before = sender, service
    return shown
