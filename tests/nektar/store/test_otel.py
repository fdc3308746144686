"""Telemetry as rows: whatever a message holds, in the Collector's own columns."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from indexer import otlp_json
from nektar.arrow import pa
from nektar.otlp import LOGS, METRICS, SIGNALS, SPANS, BadRequest, Signal, groups
from nektar.senders import UNAUTHENTICATED, Sender
from nektar.store import otel_metrics
from nektar.store.otel import MAX_DATES, TABLES, rows, tables, text
from nektar.store.port import Store
from tests import otlp

NOW = 1_790_000_000 * 10**9
DAY = 86_400 * 10**9
ANY = st.sampled_from(SIGNALS).flatmap(lambda signal: st.tuples(st.just(signal), otlp.requests(signal)))


@pytest.fixture
def telemetry(store: Store) -> Iterator[Store]:
    """The store, with no telemetry in it."""
    yield store
    for table in (*TABLES.values(), *otel_metrics.TABLES.values(), "otel_traces_trace_id_ts"):
        store.command(f"TRUNCATE TABLE {table}")


def shown(store: Store, table: str, columns: str = "*") -> list[dict[str, Any]]:
    answer = store.read(f"SELECT {columns} FROM {table} ORDER BY ALL", "JSONEachRow")
    return [json.loads(line) for line in answer.splitlines()]


def test_a_span_stands_as_the_collector_would_write_it(telemetry: Store) -> None:
    request = otlp.spans(1, NOW, attributes=[("nektar.task.number", 7), ("text", "ä")])
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.parent_span_id, span.trace_state, span.kind = b"\2" * 8, "a=b", 2
    span.status.code, span.status.message = 2, "no answer"
    event = span.events.add(time_unix_nano=NOW - 5, name="signed")
    otlp.put(event.attributes, [("n", 1)])
    span.links.add(trace_id=b"\3" * 16, span_id=b"\4" * 8, trace_state="c=d")
    telemetry.insert("otel_traces", rows(SPANS, request, Sender("operator-1")), "a")
    assert shown(telemetry, "otel_traces") == [
        {
            "Timestamp": "2026-09-21 14:13:19.999000000",
            "TraceId": span.trace_id.hex(),
            "SpanId": span.span_id.hex(),
            "ParentSpanId": "02" * 8,
            "TraceState": "a=b",
            "SpanName": "step 0",
            "SpanKind": "Server",
            "ServiceName": "operator",
            "ResourceAttributes": {"service.name": "operator", **Sender("operator-1").attributes},
            "ScopeName": "devnet",
            "ScopeVersion": "1",
            "SpanAttributes": {"nektar.task.number": "7", "text": "ä"},
            "Duration": 1_000_000,
            "StatusCode": "Error",
            "StatusMessage": "no answer",
            "Events.Timestamp": ["2026-09-21 14:13:19.999999995"],
            "Events.Name": ["signed"],
            "Events.Attributes": [{"n": "1"}],
            "Links.TraceId": ["03" * 16],
            "Links.SpanId": ["04" * 8],
            "Links.TraceState": ["c=d"],
            "Links.Attributes": [{}],
        }
    ]


def test_a_log_record_stands_as_the_collector_would_write_it(telemetry: Store) -> None:
    request = otlp.records(1, NOW, attributes=[("k", "v")])
    group = request.resource_logs[0]
    group.schema_url, group.scope_logs[0].schema_url = "https://resource", "https://scope"
    group.scope_logs[0].scope.name, group.scope_logs[0].scope.version = "lib", "2"
    otlp.put(group.scope_logs[0].scope.attributes, [("s", 1)])
    record = group.scope_logs[0].log_records[0]
    record.flags, record.event_name = 0x101, "missed"
    telemetry.insert("otel_logs", rows(LOGS, request, Sender("operator-1")), "a")
    assert shown(telemetry, "otel_logs") == [
        {
            "Timestamp": "2026-09-21 14:13:20.000000000",
            "TimestampTime": "2026-09-21 14:13:20",
            "TraceId": record.trace_id.hex(),
            "SpanId": record.span_id.hex(),
            "TraceFlags": 1,
            "SeverityText": "INFO",
            "SeverityNumber": 9,
            "ServiceName": "operator",
            "Body": "record 0",
            "ResourceSchemaUrl": "https://resource",
            "ResourceAttributes": {"service.name": "operator", **Sender("operator-1").attributes},
            "ScopeSchemaUrl": "https://scope",
            "ScopeName": "lib",
            "ScopeVersion": "2",
            "ScopeAttributes": {"s": "1"},
            "LogAttributes": {"k": "v"},
            "EventName": "missed",
        }
    ]


def test_data_points_stand_as_the_collector_would_write_them(telemetry: Store) -> None:
    request = otlp.points(5, NOW)
    group = request.resource_metrics[0]
    group.schema_url, group.scope_metrics[0].schema_url = "https://resource", "https://scope"
    scope = group.scope_metrics[0].scope
    scope.dropped_attributes_count = 3
    otlp.put(scope.attributes, [("s", 1)])
    gauge, total, histogram, exponential, summary = group.scope_metrics[0].metrics
    gauge.description = "how it is"
    gauge.gauge.data_points[0].as_int = -(2**53)
    total.sum.is_monotonic = True
    point = total.sum.data_points[0]
    point.as_double, point.flags = 0.5, 1
    exemplar = point.exemplars.add(time_unix_nano=NOW + 1, as_int=7, trace_id=b"\3" * 16, span_id=b"\4" * 8)
    otlp.put(exemplar.filtered_attributes, [("f", "g")])
    point = histogram.histogram.data_points[0]
    point.sum, point.min, point.max = 6.5, 0.5, 5
    point.bucket_counts.extend([1, 2])
    point.explicit_bounds.append(1.5)
    point.exemplars.add()
    point = exponential.exponential_histogram.data_points[0]
    point.sum, point.scale, point.zero_count = 2, -3, 2**63
    point.positive.offset, point.negative.offset = -4, 5
    point.positive.bucket_counts.extend([1, 0])
    point = summary.summary.data_points[0]
    point.sum = 2
    point.quantile_values.add(quantile=0.5, value=math.inf)
    common = {
        "ResourceAttributes": {"service.name": "operator", **Sender("operator-1").attributes},
        "ResourceSchemaUrl": "https://resource",
        "ScopeName": "devnet",
        "ScopeVersion": "1",
        "ScopeAttributes": {"s": "1"},
        "ScopeDroppedAttrCount": 3,
        "ScopeSchemaUrl": "https://scope",
        "ServiceName": "operator",
        "MetricDescription": "",
        "MetricUnit": "s",
        "StartTimeUnix": "2026-09-21 14:13:19",
        "TimeUnix": "2026-09-21 14:13:20",
        "Flags": 0,
    }
    of = ("FilteredAttributes", "TimeUnix", "Value", "SpanId", "TraceId")
    no_exemplars: dict[str, Any] = {f"Exemplars.{name}": [] for name in of}
    spread = {"Count": 3, "Min": 0, "Max": 0, "AggregationTemporality": 2}
    expected = {
        "gauge": {"Value": -(2**53), "MetricDescription": "how it is", **no_exemplars},
        "sum": {
            "Value": 0.5,
            "Flags": 1,
            "Exemplars.FilteredAttributes": [{"f": "g"}],
            "Exemplars.TimeUnix": ["2026-09-21 14:13:20"],
            "Exemplars.Value": [7],
            "Exemplars.SpanId": ["04" * 8],
            "Exemplars.TraceId": ["03" * 16],
            "AggregationTemporality": 2,
            "IsMonotonic": True,
        },
        "histogram": {
            **spread,
            "Sum": 6.5,
            "Min": 0.5,
            "Max": 5,
            "BucketCounts": [1, 2],
            "ExplicitBounds": [1.5],
            "Exemplars.FilteredAttributes": [{}],
            "Exemplars.TimeUnix": ["1970-01-01 00:00:00"],
            "Exemplars.Value": [0],
            "Exemplars.SpanId": [""],
            "Exemplars.TraceId": [""],
        },
        "exponential_histogram": {
            **spread,
            **no_exemplars,
            "Sum": 2,
            "Scale": -3,
            "ZeroCount": 2**63,
            "PositiveOffset": -4,
            "PositiveBucketCounts": [1, 0],
            "NegativeOffset": 5,
            "NegativeBucketCounts": [],
        },
        "summary": {
            "Count": 3,
            "Sum": 2,
            "ValueAtQuantiles.Quantile": [0.5],
            "ValueAtQuantiles.Value": [None],  # what JSON has of an infinity
        },
    }
    for name, table in tables(METRICS, request, Sender("operator-1")).items():
        telemetry.insert(name, table, "a")
    for i, (kind, said) in enumerate(expected.items()):
        named = {"MetricName": f"{kind} of it", "Attributes": {"number": str(i)}}
        (row,) = shown(telemetry, otel_metrics.TABLES[kind])
        assert row == common | named | said


def test_what_a_scope_of_many_metrics_says_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    request = otlp.points(1, NOW, kinds=["gauge"])
    (scope,) = request.resource_metrics[0].scope_metrics
    otlp.put(scope.scope.attributes, [("k", 1)])
    scope.metrics.extend([scope.metrics[0]] * 50)
    read = list[int]()
    monkeypatch.setattr("nektar.attributes.text", lambda value: read.append(value.int_value) or "")
    tables(METRICS, request, Sender("me"))
    assert sorted(read) == [0] * 51 + [1]  # the data points' own, and the scope's


@pytest.mark.parametrize(
    "sender", [Sender("0x" + "a1" * 20, "operator", "home"), Sender("mallory"), UNAUTHENTICATED], ids=str
)
def test_who_sent_it_is_the_tokens_to_say(sender: Sender) -> None:
    said = [("nektar.sender", "eve"), ("nektar.sender_role", "observer"), ("nektar.sender_network", "away")]
    table = rows(SPANS, otlp.spans(1, NOW, resource=said), sender)
    assert table["ResourceAttributes"].to_pylist() == [
        [
            ("nektar.sender", sender.name),
            ("nektar.sender_role", sender.role),
            ("nektar.sender_network", sender.network),
        ]
    ]


def test_an_insert_that_comes_twice_is_stored_once_in_the_view_too(telemetry: Store) -> None:
    table = rows(SPANS, otlp.spans(9, NOW), Sender("me"))
    for token in ("a", "a", "b", "a"):
        telemetry.insert("otel_traces", table, token)
    for name in ("otel_traces", "otel_traces_trace_id_ts"):
        assert telemetry.rows(f"SELECT count() FROM {name}") == [(18,)]


def test_a_trace_is_found_by_its_table_of_times(telemetry: Store) -> None:
    request = otlp.spans(4, NOW)
    spans = request.resource_spans[0].scope_spans[0].spans
    for i, span in enumerate(spans):
        span.trace_id, span.start_time_unix_nano = b"\7" * 16, NOW - i * 10**9
    telemetry.insert("otel_traces", rows(SPANS, request, Sender("me")), "a")
    assert shown(telemetry, "otel_traces_trace_id_ts") == [
        {"TraceId": "07" * 16, "Start": "2026-09-21 14:13:17", "End": "2026-09-21 14:13:20"}
    ]


# --- what it may be like ----------------------------------------------------------------------------


@given(made=ANY)
def test_any_request_makes_rows_and_the_same_from_json(made: tuple[Signal, Any]) -> None:
    signal, request = made
    found = tables(signal, request, Sender("me"))
    assert sum(t.num_rows for t in found.values()) == sum(len(g.items) for g in groups(signal, request))
    for table in found.values():
        table.validate(full=True)
    again = tables(signal, otlp_json.parse(signal, otlp.to_json(request)), Sender("me"))
    assert again.keys() == found.keys()
    # By their bytes, since what is no number equals nothing.
    assert {name: ipc(table) for name, table in again.items()} == {n: ipc(t) for n, t in found.items()}


def ipc(table: pa.Table) -> bytes:
    with pa.BufferOutputStream() as sink:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue())


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_the_store_takes_any_rows(telemetry: Store, signal: Signal) -> None:
    taken, tokens = Counter[str](), count()

    @settings(max_examples=40)
    @given(otlp.requests(signal))
    def take(request: Any) -> None:
        for name, table in tables(signal, request, Sender("me")).items():
            if table.num_rows:
                telemetry.insert(name, table, str(next(tokens)))
                taken[name] += table.num_rows

    take()
    for name, rows_ in taken.items():
        assert telemetry.rows(f"SELECT count() FROM {name}") == [(rows_,)]


@pytest.mark.parametrize(
    ("start", "end", "shows", "duration"),
    [
        (0, 5, "1970-01-01 00:00:00.000000000", 5),
        (NOW, NOW - 1, "2026-09-21 14:13:20.000000000", 0),
        (NOW, 0, "2026-09-21 14:13:20.000000000", 0),
        (2**63, 2**64 - 1, "2262-04-11 23:47:16.854775807", 2**63 - 1),
        (0, 2**64 - 1, "1970-01-01 00:00:00.000000000", 2**64 - 1),
    ],
)
def test_times_that_nobody_should_send(
    telemetry: Store, start: int, end: int, shows: str, duration: int
) -> None:
    request = otlp.spans(1, NOW)
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.start_time_unix_nano, span.end_time_unix_nano = start, end
    telemetry.insert("otel_traces", rows(SPANS, request, Sender("me")), "a")
    (row,) = shown(telemetry, "otel_traces", "Timestamp, Duration")
    assert (row["Timestamp"], int(row["Duration"])) == (shows, duration)


def over(dates: int) -> Any:
    request = otlp.spans(dates, NOW)
    for i, span in enumerate(request.resource_spans[0].scope_spans[0].spans):
        span.start_time_unix_nano = NOW - i * DAY
    return request


def test_many_dates_are_refused_before_the_store_would(telemetry: Store) -> None:
    telemetry.insert("otel_traces", rows(SPANS, over(MAX_DATES), Sender("me")), "a")
    assert telemetry.rows("SELECT uniqExact(toDate(Timestamp)) FROM otel_traces") == [(MAX_DATES,)]
    with pytest.raises(BadRequest, match=f"at most {MAX_DATES} dates in a message; got 101"):
        rows(SPANS, over(101), Sender("me"))
    request = otlp.points(MAX_DATES + 1, NOW, kinds=["sum"])
    for i, point in enumerate(next(groups(METRICS, request)).items):
        point.time_unix_nano = NOW - i * DAY
    with pytest.raises(BadRequest, match=f"data_points of at most {MAX_DATES} dates in a message; got 51"):
        tables(METRICS, request, Sender("me"))


def test_ten_thousand_attributes_and_a_key_that_comes_twice(telemetry: Store) -> None:
    attributes = [(f"key {i}", i) for i in range(10_000)] + [("key 0", "last")]
    telemetry.insert("otel_traces", rows(SPANS, otlp.spans(1, NOW, attributes=attributes), Sender("me")), "a")
    asked = (
        "SELECT length(SpanAttributes), SpanAttributes['key 0'], SpanAttributes['key 9999'] FROM otel_traces"
    )
    assert telemetry.rows(asked) == [(10_000, "last", "9999")]


def test_resources_that_are_repeated_too_often_are_refused() -> None:
    with pytest.raises(BadRequest, match="for each of their spans"):
        rows(SPANS, otlp.spans(700, NOW, resource=[("t", "x" * 100_000)]), Sender("me"))


@pytest.mark.parametrize(
    ("value", "shows"),
    [
        ({}, ""),
        ({"string_value": "a"}, "a"),
        ({"bool_value": True}, "true"),
        ({"int_value": -(2**63)}, "-9223372036854775808"),
        ({"double_value": 1.0}, "1"),
        ({"double_value": 0.1}, "0.1"),
        ({"double_value": 1e-5}, "0.00001"),
        ({"double_value": 1.5e-9}, "1.5e-9"),
        ({"double_value": 1e21}, "1e+21"),
        ({"double_value": 123456789012345680000.0}, "123456789012345680000"),
        ({"double_value": math.nan}, "NaN"),
        ({"double_value": -math.inf}, "-Inf"),
        ({"bytes_value": b"\0\xff"}, "AP8="),
        ({"array_value": {"values": [{"int_value": 1}, {"string_value": "ä"}, {}]}}, '[1,"ä",null]'),
        (
            {"kvlist_value": {"values": [{"key": "b", "value": {"bool_value": False}}, {"key": "a"}]}},
            '{"a":null,"b":false}',
        ),
        ({"array_value": {"values": [{"double_value": math.nan}, {"bytes_value": b"a"}]}}, '["NaN","YQ=="]'),
    ],
)
def test_a_value_as_text(value: dict[str, Any], shows: str) -> None:
    assert text(AnyValue(**value)) == shows


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_a_resource_is_read_once_and_not_for_each_of_its_scopes(
    signal: Signal, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = otlp.some(signal, 1, NOW)
    (item,) = next(groups(signal, request)).items
    resource = getattr(request, signal.resources)[0]
    otlp.put(resource.resource.attributes, [(f"key {i}", i) for i in range(100)])
    scopes = getattr(resource, signal.scopes)
    for i in range(200):
        scope = scopes.add()
        if i % 10 == 0:
            otlp.items_in(signal, scope).add().CopyFrom(item)
    read = 0

    def counted(value: Any) -> str:
        nonlocal read
        read += 1
        return text(value)

    for module in ("nektar.attributes", "nektar.store.otel"):
        monkeypatch.setattr(f"{module}.text", counted)
    (table,) = tables(signal, request, Sender("operator-1")).values()
    assert table.num_rows == 21
    assert 100 <= read <= 100 + 21  # its numbers, and the records' bodies, or the data points' own
    assert {len(each) for each in table["ResourceAttributes"].to_pylist()} == {104}


def test_a_row_has_what_its_own_resource_and_scope_say() -> None:
    request = SPANS.request()
    for i in range(3):
        request.MergeFrom(otlp.spans(2, NOW, seed=i, resource=[("service.name", f"service {i}")]))
        request.resource_spans.add()  # without items
        scope = request.resource_spans[-2].scope_spans.add()
        scope.scope.name = f"scope {i}"
        scope.spans.extend(otlp.spans(1, NOW, seed=f"more {i}").resource_spans[0].scope_spans[0].spans)
    table = rows(SPANS, request, Sender("operator-1"))
    assert table["ServiceName"].to_pylist() == [f"service {i}" for i in range(3) for _ in range(3)]
    assert table["ScopeName"].to_pylist() == [n for i in range(3) for n in ("devnet", "devnet", f"scope {i}")]
