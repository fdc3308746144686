"""What a fold's changes look like on the bus.

A pure function of the log record that caused them: the same record gives the same bytes, in whatever batch
it was read. Rows travel as one Arrow batch per table, so that the store takes columns; findings one by one
as CloudEvents (https://github.com/cloudevents/spec, JSON, structured mode), so that anybody's tools do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from nektar import registered, trace
from nektar.bus.port import Message
from nektar.fold import Span
from nektar.log import AHEAD_HEADER, FINDINGS, ROWS, split
from nektar.model import Hash32, Network
from nektar.rows import Change, Finding, OperatorRow, ProgressRow, Row
from nektar.store.schema import columns, rows_to_ipc

# JavaScript and many JSON readers keep integers as doubles, exact up to here.
_EXACT = 2**53
# A block's time is whatever its header says; dates end with the year 9999.
_LAST_TIME = 253_402_300_799
_NO_HASH = Hash32(bytes(32))


def messages(
    network: Network,
    processor: str,
    offset: int,
    changes: Sequence[Change],
    traceparent: bytes = b"",
    *,
    ahead: bool = False,
) -> list[Message]:
    """The messages that carry what the record at `offset` of the Network's log changed, and go on with its
    `traceparent`; `ahead`: while the log's generation is catching up.

    Rows: a message per table, by name, `progress` last: who reads it has read what it speaks of. A row that
    is gone is sent as it was last, `is_deleted` set.
    Of an Operator, too, what its key is now (`registered.py`).
    Findings: an event each; `ID/OFFSET` names the version, since one record changes a finding once at most.
    Both in the order of their keys, so that no map's order and no hash seed is in them.
    """
    said: list[Message] = []
    tables: dict[str, list[tuple[Row, bool]]] = {}
    findings: list[Finding] = []
    for change in sorted(changes, key=_key):
        row = change.before if change.after is None else change.after
        if isinstance(row, Finding):
            findings.append(row)
        elif row is not None:
            tables.setdefault(row.table, []).append((row, change.after is None))
            if isinstance(row, OperatorRow):
                said += registered.messages(network.name, network.generation, change)
    headers = {"generation": str(network.generation).encode(), "processor": processor.encode()}
    headers |= trace.header(traceparent) | ({AHEAD_HEADER: b"1"} if ahead else {})
    for table, rows in sorted(tables.items(), key=lambda named: (named[0] == ProgressRow.table, named[0])):
        said += _carried(
            ROWS, network, rows_to_ipc(type(rows[0][0]), rows), headers | {"table": table.encode()}
        )
    for finding in findings:
        said += _carried(FINDINGS, network, cloud_event(network, finding, offset, traceparent), headers)
    return said


def progress(
    processor: str, before: Span | None, after: Span | None, *, ahead: bool = False, again: bool = False
) -> list[Change]:
    """How far the processor has come, as a change of its row; `again`: also where it has not moved."""
    if before == after and not again:
        return []
    return [Change(_progress(processor, before, ahead), _progress(processor, after, ahead))]


def cloud_event(network: Network, finding: Finding, offset: int, traceparent: bytes = b"") -> bytes:
    """A version of a finding as a CloudEvent: bytes are 0x…, integers from 2^53 on decimal strings.

    `traceparent` is its extension of that name (CloudEvents, Distributed Tracing), where there is one.
    """
    event = {
        "specversion": "1.0",
        "id": f"{finding.id.hex()}/{offset}",
        "source": f"/networks/{network.name}",
        "type": f"nektar.finding.{finding.status}",
        "subject": finding.id.hex(),
        "time": datetime.fromtimestamp(min(finding.block_time, _LAST_TIME), UTC).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        ),
        **({trace.TRACEPARENT: traceparent.decode()} if traceparent else {}),
        "datacontenttype": "application/json",
        "data": {name: _plain(getattr(finding, name)) for name in finding.__struct_fields__},
    }
    return json.dumps(event, separators=(",", ":")).encode()


def finding_of(event: bytes) -> Finding:
    """The finding in a CloudEvent's `data`. Raises ValueError, TypeError or KeyError for anything else."""
    data = json.loads(event)["data"]
    cells: dict[str, Any] = {}
    for name, column in columns(Finding).items():
        cell = data[name]
        if column.type.startswith("FixedString"):
            if not isinstance(cell, str) or not cell.startswith("0x"):
                raise ValueError(f"{name}: expected 0x…; got {cell!r:.80}")
            cell = bytes.fromhex(cell[2:])
        elif column.type.startswith(("UInt", "DateTime")):
            if not isinstance(cell, int | str):
                raise ValueError(f"{name}: expected an integer; got {cell!r:.80}")
            cell = int(cell)
        cells[name] = cell
    return Finding(**cells)


def _key(change: Change) -> tuple[Any, ...]:
    row = change.before if change.after is None else change.after
    return (row.table, *(getattr(row, name) for name in row.key)) if row else ("",)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    return str(value) if isinstance(value, int) and abs(value) >= _EXACT else value


def _progress(processor: str, head: Span | None, ahead: bool) -> ProgressRow | None:
    return ProgressRow(processor, head.last, head.hash or _NO_HASH, not ahead) if head else None


def _carried(stream: str, network: Network, value: bytes, headers: dict[str, bytes]) -> Iterator[Message]:
    for part, numbered in split(value):
        yield Message(stream, network.name.encode(), part, headers | numbered)
