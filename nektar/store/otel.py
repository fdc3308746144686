"""Telemetry as rows: a message of OTLP as columns of `otel_traces`, `otel_logs` or `otel_metrics_…`. Pure.

The columns and what stands in them are those of the OpenTelemetry Collector's ClickHouse exporter. Whatever
can be told of a span is kept; where a column can't hold it, it holds the nearest that it can.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nektar.arrow import pa
from nektar.attributes import text
from nektar.otlp import LOGS, METRICS, SPANS, BadRequest, Signal, check_size, groups
from nektar.senders import Sender
from nektar.store import otel_metrics
from nektar.store.otel_columns import Groups, ids, lists, map_array, maps, offsets, texts, times
from nektar.store.schema import literal
from nektar.telemetry import CHAIN, SENDER
from nektar.trace import GENERATION, NETWORK

TABLES: Mapping[Signal, str] = {SPANS: "otel_traces", LOGS: "otel_logs"}  # of those that have one

# The tables have a partition for each date, and ClickHouse refuses an insert into more than a hundred: not
# only this one then, since whoever inserts can't tell it from merges that are behind.
MAX_DATES = 50
_DAY = 86_400

_KINDS = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")
_STATUSES = ("Unset", "Ok", "Error")
_FATAL = 24  # the highest severity


def tables(signal: Signal, request: Any, sender: Sender) -> dict[str, pa.Table]:
    """The rows of a request that `sender` brought, by table. Raises BadRequest where they are too much for
    one message."""
    check_size(signal, request)
    if signal is METRICS:
        found = dict(otel_metrics.columns(request, sender))
    else:
        found = {TABLES[signal]: _COLUMNS[signal](request, sender)}
    made = {name: pa.table(columns) for name, columns in found.items()}
    for table in made.values():
        if (count := len(dates(table))) > MAX_DATES:
            raise BadRequest(
                f"expected {signal.items} of at most {MAX_DATES} dates in a message; got {count}"
            )
    return made


def dates(table: pa.Table) -> set[int]:
    """The days since 1970 on which its rows lie, each a partition of the store's."""
    # Whole seconds: only dates are asked for.
    (when,) = (name for name in ("Timestamp", "TimeUnix") if name in table.column_names)
    seconds = table.column(when).cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    return {second // _DAY for second in seconds.to_pylist()}


def rows(signal: Signal, request: Any, sender: Sender) -> pa.Table:
    """The same of a signal that has one table."""
    return tables(signal, request, sender)[TABLES[signal]]


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
    none = offsets(0 for _ in spans)
    columns = {
        "Timestamp": times(started),
        "TraceId": ids(span["trace_id"] for span in spans),
        "SpanId": ids(span["span_id"] for span in spans),
        "ParentSpanId": ids(span["parent_id"] for span in spans),
        "SpanName": texts(span["name"] for span in spans),
        "SpanKind": texts("Internal" for _ in spans),
        "ServiceName": texts(CHAIN for _ in spans),
        "ResourceAttributes": map_array([{"service.name": CHAIN, SENDER: CHAIN} for _ in spans]),
        "SpanAttributes": map_array([json.loads(span["attributes"]) | place for span in spans]),
        "Duration": pa.array([end - start for start, end in zip(started, ended, strict=True)], pa.uint64()),
        "StatusCode": texts("Unset" for _ in spans),
    }
    columns |= {name: texts("" for _ in spans) for name in ("TraceState", "ScopeName", "ScopeVersion")}
    columns["StatusMessage"] = texts("" for _ in spans)
    for name, values in (("Events.Timestamp", times(())), ("Events.Name", texts(()))):
        columns[name] = lists(none, values)
    for name in ("Links.TraceId", "Links.SpanId", "Links.TraceState"):
        columns[name] = lists(none, texts(()))
    for name in ("Events.Attributes", "Links.Attributes"):
        columns[name] = lists(none, map_array([]))
    return pa.table(columns)


def _spans(request: Any, sender: Sender) -> dict[str, pa.Array]:
    of = Groups(groups(SPANS, request), sender)
    spans = of.items
    events = [event for span in spans for event in span.events]
    links = [link for span in spans for link in span.links]
    of_events = offsets(len(span.events) for span in spans)
    of_links = offsets(len(span.links) for span in spans)
    return {
        "Timestamp": times(span.start_time_unix_nano for span in spans),
        "TraceId": ids(span.trace_id for span in spans),
        "SpanId": ids(span.span_id for span in spans),
        "ParentSpanId": ids(span.parent_span_id for span in spans),
        "TraceState": texts(span.trace_state for span in spans),
        "SpanName": texts(span.name for span in spans),
        "SpanKind": texts(_named(_KINDS, span.kind) for span in spans),
        "ServiceName": of.resource(texts(said.get("service.name", "") for said in of.attributes)),
        "ResourceAttributes": of.resource(map_array(of.attributes)),
        "ScopeName": of.scope(texts(each.scope.name for each in of.scopes)),
        "ScopeVersion": of.scope(texts(each.scope.version for each in of.scopes)),
        "SpanAttributes": maps(span.attributes for span in spans),
        "Duration": pa.array(
            [max(0, span.end_time_unix_nano - span.start_time_unix_nano) for span in spans], pa.uint64()
        ),
        "StatusCode": texts(_named(_STATUSES, span.status.code) for span in spans),
        "StatusMessage": texts(span.status.message for span in spans),
        "Events.Timestamp": lists(of_events, times(event.time_unix_nano for event in events)),
        "Events.Name": lists(of_events, texts(event.name for event in events)),
        "Events.Attributes": lists(of_events, maps(event.attributes for event in events)),
        "Links.TraceId": lists(of_links, ids(link.trace_id for link in links)),
        "Links.SpanId": lists(of_links, ids(link.span_id for link in links)),
        "Links.TraceState": lists(of_links, texts(link.trace_state for link in links)),
        "Links.Attributes": lists(of_links, maps(link.attributes for link in links)),
    }


def _records(request: Any, sender: Sender) -> dict[str, pa.Array]:
    of = Groups(groups(LOGS, request), sender)
    records = of.items
    return {
        "Timestamp": times(record.time_unix_nano or record.observed_time_unix_nano for record in records),
        "TraceId": ids(record.trace_id for record in records),
        "SpanId": ids(record.span_id for record in records),
        "TraceFlags": pa.array([record.flags & 0xFF for record in records], pa.uint8()),
        "SeverityText": texts(record.severity_text for record in records),
        "SeverityNumber": pa.array(
            [n if 0 <= (n := record.severity_number) <= _FATAL else 0 for record in records], pa.uint8()
        ),
        "ServiceName": of.resource(texts(said.get("service.name", "") for said in of.attributes)),
        "Body": texts(text(record.body) for record in records),
        "ResourceSchemaUrl": of.resource(texts(each.schema_url for each in of.resources)),
        "ResourceAttributes": of.resource(map_array(of.attributes)),
        "ScopeSchemaUrl": of.scope(texts(each.schema_url for each in of.scopes)),
        "ScopeName": of.scope(texts(each.scope.name for each in of.scopes)),
        "ScopeVersion": of.scope(texts(each.scope.version for each in of.scopes)),
        "ScopeAttributes": of.scope(maps(each.scope.attributes for each in of.scopes)),
        "LogAttributes": maps(record.attributes for record in records),
        "EventName": texts(record.event_name for record in records),
    }


_COLUMNS: Mapping[Signal, Callable[[Any, Sender], dict[str, pa.Array]]] = {SPANS: _spans, LOGS: _records}


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else ""
