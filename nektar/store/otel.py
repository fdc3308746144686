"""Telemetry as rows: a message of OTLP as the columns of `otel_traces` or `otel_logs`. Pure.

The columns and what stands in them are those of the OpenTelemetry Collector's ClickHouse exporter. Whatever
can be told of a span is kept; where a column can't hold it, it holds the nearest that it can.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nektar.arrow import pa
from nektar.attributes import attributes, text
from nektar.otlp import LOGS, SPANS, BadRequest, Signal, check_size, groups
from nektar.senders import Sender
from nektar.store.schema import literal
from nektar.telemetry import CHAIN, SENDER
from nektar.trace import GENERATION, NETWORK

TABLES: Mapping[Signal, str] = {SPANS: "otel_traces", LOGS: "otel_logs"}

# The tables have a partition for each date, and ClickHouse refuses an insert into more than a hundred: not
# only this one then, since whoever inserts can't tell it from merges that are behind.
MAX_DATES = 50
# DateTime64(9) ends in 2262.
_LAST = 2**63 - 1
_DAY = 86_400 * 10**9

_TEXT = pa.utf8()
_TIME = pa.timestamp("ns")
_KINDS = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")
_STATUSES = ("Unset", "Ok", "Error")
_FATAL = 24  # the highest severity


def rows(signal: Signal, request: Any, sender: Sender) -> pa.Table:
    """The rows of a request that `sender` brought. Raises BadRequest where they are too much for one."""
    check_size(signal, request)
    columns: dict[str, pa.Array] = _ROWS[signal](request, sender)
    table = pa.table(columns)
    dates = {time // _DAY for time in columns["Timestamp"].cast(pa.int64()).to_pylist()}
    if len(dates) > MAX_DATES:
        raise BadRequest(
            f"expected {signal.items} of at most {MAX_DATES} dates in a message; got {len(dates)}"
        )
    return table


def chain_spans(rows: pa.Table, network: str, generation: int) -> list[pa.Table]:
    """Rows of `rows.ChainSpan`, said of this generation of a Network's log, as rows of `otel_traces`, of few
    enough dates a table."""
    place = {NETWORK: network, GENERATION: str(generation)}
    days: dict[int, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        days.setdefault(int(row["started"].timestamp()) // 86_400, []).append(row)
    dates = sorted(days)
    return [
        _of_chain([row for date in dates[i : i + MAX_DATES] for row in days[date]], place)
        for i in range(0, len(dates), MAX_DATES)
    ]


def delete_chain_spans(network: str, below: int) -> str:
    """The statement that deletes a Network's chain spans of generations below this one."""
    return f"""
        DELETE FROM {TABLES[SPANS]}
        WHERE ServiceName = {literal(CHAIN)} AND ResourceAttributes[{literal(SENDER)}] = {literal(CHAIN)}
        AND SpanAttributes[{literal(NETWORK)}] = {literal(network)}
        AND toUInt32OrZero(SpanAttributes[{literal(GENERATION)}]) < {below:d}
    """  # noqa: S608


def _of_chain(spans: Sequence[Mapping[str, Any]], place: Mapping[str, str]) -> pa.Table:
    started = [int(span["started"].timestamp()) * 10**9 for span in spans]
    ended = [int(span["ended"].timestamp()) * 10**9 for span in spans]
    none = _offsets(0 for _ in spans)
    columns = {
        "Timestamp": _times(started),
        "TraceId": _ids(span["trace_id"] for span in spans),
        "SpanId": _ids(span["span_id"] for span in spans),
        "ParentSpanId": _ids(span["parent_id"] for span in spans),
        "SpanName": _texts(span["name"] for span in spans),
        "SpanKind": _texts("Internal" for _ in spans),
        "ServiceName": _texts(CHAIN for _ in spans),
        "ResourceAttributes": _map_array([{"service.name": CHAIN, SENDER: CHAIN} for _ in spans]),
        "SpanAttributes": _map_array([json.loads(span["attributes"]) | place for span in spans]),
        "Duration": pa.array([end - start for start, end in zip(started, ended, strict=True)], pa.uint64()),
        "StatusCode": _texts("Unset" for _ in spans),
    }
    columns |= {name: _texts("" for _ in spans) for name in ("TraceState", "ScopeName", "ScopeVersion")}
    columns["StatusMessage"] = _texts("" for _ in spans)
    for name, values in (("Events.Timestamp", _times(())), ("Events.Name", _texts(()))):
        columns[name] = _lists(none, values)
    for name in ("Links.TraceId", "Links.SpanId", "Links.TraceState"):
        columns[name] = _lists(none, _texts(()))
    for name in ("Events.Attributes", "Links.Attributes"):
        columns[name] = _lists(none, _map_array([]))
    return pa.table(columns)


def _spans(request: Any, sender: Sender) -> dict[str, pa.Array]:
    of = _Groups(SPANS, request, sender)
    spans = of.items
    events = [event for span in spans for event in span.events]
    links = [link for span in spans for link in span.links]
    of_events = _offsets(len(span.events) for span in spans)
    of_links = _offsets(len(span.links) for span in spans)
    return {
        "Timestamp": _times(span.start_time_unix_nano for span in spans),
        "TraceId": _ids(span.trace_id for span in spans),
        "SpanId": _ids(span.span_id for span in spans),
        "ParentSpanId": _ids(span.parent_span_id for span in spans),
        "TraceState": _texts(span.trace_state for span in spans),
        "SpanName": _texts(span.name for span in spans),
        "SpanKind": _texts(_named(_KINDS, span.kind) for span in spans),
        "ServiceName": of.resource(_texts(said.get("service.name", "") for said in of.attributes)),
        "ResourceAttributes": of.resource(_map_array(of.attributes)),
        "ScopeName": of.scope(_texts(each.scope.name for each in of.scopes)),
        "ScopeVersion": of.scope(_texts(each.scope.version for each in of.scopes)),
        "SpanAttributes": _maps(span.attributes for span in spans),
        "Duration": pa.array(
            [max(0, span.end_time_unix_nano - span.start_time_unix_nano) for span in spans], pa.uint64()
        ),
        "StatusCode": _texts(_named(_STATUSES, span.status.code) for span in spans),
        "StatusMessage": _texts(span.status.message for span in spans),
        "Events.Timestamp": _lists(of_events, _times(event.time_unix_nano for event in events)),
        "Events.Name": _lists(of_events, _texts(event.name for event in events)),
        "Events.Attributes": _lists(of_events, _maps(event.attributes for event in events)),
        "Links.TraceId": _lists(of_links, _ids(link.trace_id for link in links)),
        "Links.SpanId": _lists(of_links, _ids(link.span_id for link in links)),
        "Links.TraceState": _lists(of_links, _texts(link.trace_state for link in links)),
        "Links.Attributes": _lists(of_links, _maps(link.attributes for link in links)),
    }


def _records(request: Any, sender: Sender) -> dict[str, pa.Array]:
    of = _Groups(LOGS, request, sender)
    records = of.items
    return {
        "Timestamp": _times(record.time_unix_nano or record.observed_time_unix_nano for record in records),
        "TraceId": _ids(record.trace_id for record in records),
        "SpanId": _ids(record.span_id for record in records),
        "TraceFlags": pa.array([record.flags & 0xFF for record in records], pa.uint8()),
        "SeverityText": _texts(record.severity_text for record in records),
        "SeverityNumber": pa.array(
            [n if 0 <= (n := record.severity_number) <= _FATAL else 0 for record in records], pa.uint8()
        ),
        "ServiceName": of.resource(_texts(said.get("service.name", "") for said in of.attributes)),
        "Body": _texts(text(record.body) for record in records),
        "ResourceSchemaUrl": of.resource(_texts(each.schema_url for each in of.resources)),
        "ResourceAttributes": of.resource(_map_array(of.attributes)),
        "ScopeSchemaUrl": of.scope(_texts(each.schema_url for each in of.scopes)),
        "ScopeName": of.scope(_texts(each.scope.name for each in of.scopes)),
        "ScopeVersion": of.scope(_texts(each.scope.version for each in of.scopes)),
        "ScopeAttributes": of.scope(_maps(each.scope.attributes for each in of.scopes)),
        "LogAttributes": _maps(record.attributes for record in records),
        "EventName": _texts(record.event_name for record in records),
    }


_ROWS: Mapping[Signal, Callable[[Any, Sender], dict[str, pa.Array]]] = {SPANS: _spans, LOGS: _records}


class _Groups:
    """What resources and scopes say once and each of their rows repeats: read once, repeated by Arrow."""

    def __init__(self, signal: Signal, request: Any, sender: Sender) -> None:
        self.items: list[Any] = []
        self.resources: list[Any] = []
        self.scopes: list[Any] = []
        resource_of: list[int] = []  # of each row
        scope_of: list[int] = []
        for group in groups(signal, request):
            if not self.resources or self.resources[-1] is not group.resource:
                self.resources.append(group.resource)
            self.scopes.append(group.scope)
            self.items += group.items
            resource_of += [len(self.resources) - 1] * len(group.items)
            scope_of += [len(self.scopes) - 1] * len(group.items)
        # The sender stands there whatever it says of itself.
        self.attributes = [attributes(r.resource.attributes) | sender.attributes for r in self.resources]
        self._resource_of = pa.array(resource_of, pa.int32())
        self._scope_of = pa.array(scope_of, pa.int32())

    def resource(self, of_resources: pa.Array) -> pa.Array:
        """For each row, what its resource has."""
        return of_resources.take(self._resource_of)

    def scope(self, of_scopes: pa.Array) -> pa.Array:
        """For each row, what its scope has."""
        return of_scopes.take(self._scope_of)


# --- columns ----------------------------------------------------------------------------------------


def _times(nanoseconds: Iterable[int]) -> pa.Array:
    return pa.array([min(each, _LAST) for each in nanoseconds], pa.int64()).cast(_TIME)


def _ids(ids: Iterable[bytes]) -> pa.Array:
    return pa.array([each.hex() if any(each) else "" for each in ids], _TEXT)


def _texts(texts: Iterable[str]) -> pa.Array:
    return pa.array(list(texts), _TEXT)


def _maps(of_rows: Iterable[Any]) -> pa.Array:
    return _map_array([attributes(each) for each in of_rows])


def _map_array(maps: list[dict[str, str]]) -> pa.Array:
    keys = pa.array([key for each in maps for key in each], _TEXT)
    values = pa.array([value for each in maps for value in each.values()], _TEXT)
    return pa.MapArray.from_arrays(_offsets(map(len, maps)), keys, values)


def _lists(offsets: pa.Array, values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(offsets, values)


def _offsets(lengths: Iterable[int]) -> pa.Array:
    ends = [0]
    for length in lengths:
        ends.append(ends[-1] + length)
    return pa.array(ends, pa.int32())


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else ""
