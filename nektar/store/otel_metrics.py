"""Metrics as rows: the data points of a message of OTLP as the columns of `otel_metrics_…`. Pure.

A table a kind of metric. A value is a float, whichever it was sent as, and a time is in whole seconds: so the
Collector's ClickHouse exporter has them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from nektar.arrow import pa
from nektar.otlp import METRICS, Group, groups
from nektar.senders import Sender
from nektar.store.otel_columns import (
    Groups,
    ids,
    lists,
    map_array,
    maps,
    numbers,
    offsets,
    seconds,
    texts,
)

# By what `Metric.data` calls the kind.
TABLES: Mapping[str, str] = {
    "gauge": "otel_metrics_gauge",
    "sum": "otel_metrics_sum",
    "histogram": "otel_metrics_histogram",
    "exponential_histogram": "otel_metrics_exponential_histogram",
    "summary": "otel_metrics_summary",
}

Columns = dict[str, pa.Array]


def columns(request: Any, sender: Sender) -> Iterator[tuple[str, Columns]]:
    """(table, its columns) of each kind that the request has."""
    of: dict[str, list[Group]] = defaultdict(list)
    for group in groups(METRICS, request):
        of[group.metric.WhichOneof("data")].append(group)
    for kind, of_kind in of.items():
        found = Groups(of_kind, sender)
        yield TABLES[kind], _common(found) | _KINDS[kind](found)


def _common(of: Groups) -> Columns:
    points = of.items
    dropped = numbers((each.scope.dropped_attributes_count for each in of.scopes), pa.uint32())
    return {
        "ResourceAttributes": of.resource(map_array(of.attributes)),
        "ResourceSchemaUrl": of.resource(texts(each.schema_url for each in of.resources)),
        "ScopeName": of.scope(texts(each.scope.name for each in of.scopes)),
        "ScopeVersion": of.scope(texts(each.scope.version for each in of.scopes)),
        "ScopeAttributes": of.scope(maps(each.scope.attributes for each in of.scopes)),
        "ScopeDroppedAttrCount": of.scope(dropped),
        "ScopeSchemaUrl": of.scope(texts(each.schema_url for each in of.scopes)),
        "ServiceName": of.resource(texts(said.get("service.name", "") for said in of.attributes)),
        "MetricName": of.metric(texts(each.name for each in of.metrics)),
        "MetricDescription": of.metric(texts(each.description for each in of.metrics)),
        "MetricUnit": of.metric(texts(each.unit for each in of.metrics)),
        "Attributes": maps(point.attributes for point in points),
        "StartTimeUnix": seconds(point.start_time_unix_nano for point in points),
        "TimeUnix": seconds(point.time_unix_nano for point in points),
        "Flags": numbers((point.flags for point in points), pa.uint32()),
    }


def _gauge(of: Groups) -> Columns:
    return {"Value": _values(of.items)} | _exemplars(of.items)


def _sum(of: Groups) -> Columns:
    monotonic = pa.array([each.sum.is_monotonic for each in of.metrics], pa.bool_())
    return _gauge(of) | _temporality(of, "sum") | {"IsMonotonic": of.metric(monotonic)}


def _histogram(of: Groups) -> Columns:
    buckets = {
        "BucketCounts": _counts(point.bucket_counts for point in of.items),
        "ExplicitBounds": _floats(point.explicit_bounds for point in of.items),
    }
    return _spread(of.items) | buckets | _exemplars(of.items) | _temporality(of, "histogram")


def _exponential_histogram(of: Groups) -> Columns:
    points = of.items
    buckets = {
        "Scale": numbers((point.scale for point in points), pa.int32()),
        "ZeroCount": numbers((point.zero_count for point in points), pa.uint64()),
        "PositiveOffset": numbers((point.positive.offset for point in points), pa.int32()),
        "PositiveBucketCounts": _counts(point.positive.bucket_counts for point in points),
        "NegativeOffset": numbers((point.negative.offset for point in points), pa.int32()),
        "NegativeBucketCounts": _counts(point.negative.bucket_counts for point in points),
    }
    return _spread(points) | buckets | _exemplars(points) | _temporality(of, "exponential_histogram")


def _summary(of: Groups) -> Columns:
    points = of.items
    ends = offsets(len(point.quantile_values) for point in points)
    quantiles = [each for point in points for each in point.quantile_values]
    return _counted(points) | {
        "ValueAtQuantiles.Quantile": lists(ends, numbers((q.quantile for q in quantiles), pa.float64())),
        "ValueAtQuantiles.Value": lists(ends, numbers((q.value for q in quantiles), pa.float64())),
    }


_KINDS: Mapping[str, Callable[[Groups], Columns]] = {
    "gauge": _gauge,
    "sum": _sum,
    "histogram": _histogram,
    "exponential_histogram": _exponential_histogram,
    "summary": _summary,
}


# --- parts of them ----------------------------------------------------------------------------------


def _counted(points: list[Any]) -> Columns:
    return {
        "Count": numbers((point.count for point in points), pa.uint64()),
        "Sum": numbers((point.sum for point in points), pa.float64()),
    }


def _spread(points: list[Any]) -> Columns:
    return _counted(points) | {
        "Min": numbers((point.min for point in points), pa.float64()),
        "Max": numbers((point.max for point in points), pa.float64()),
    }


def _temporality(of: Groups, kind: str) -> Columns:
    said = (getattr(each, kind).aggregation_temporality for each in of.metrics)
    return {"AggregationTemporality": of.metric(numbers(said, pa.int32()))}


def _exemplars(points: list[Any]) -> Columns:
    ends = offsets(len(point.exemplars) for point in points)
    exemplars = [each for point in points for each in point.exemplars]
    return {
        "Exemplars.FilteredAttributes": lists(ends, maps(each.filtered_attributes for each in exemplars)),
        "Exemplars.TimeUnix": lists(ends, seconds(each.time_unix_nano for each in exemplars)),
        "Exemplars.Value": lists(ends, _values(exemplars)),
        "Exemplars.SpanId": lists(ends, ids(each.span_id for each in exemplars)),
        "Exemplars.TraceId": lists(ends, ids(each.trace_id for each in exemplars)),
    }


def _values(of: Iterable[Any]) -> pa.Array:
    """What each says in `as_double` or `as_int`; 0 where it says nothing."""
    said = ((each, each.WhichOneof("value")) for each in of)
    return numbers((float(getattr(each, kind)) if kind else 0.0 for each, kind in said), pa.float64())


def _counts(of_points: Iterable[Any]) -> pa.Array:
    return _lists(of_points, pa.uint64())


def _floats(of_points: Iterable[Any]) -> pa.Array:
    return _lists(of_points, pa.float64())


def _lists(of_points: Iterable[Any], type_: pa.DataType) -> pa.Array:
    found = list(of_points)
    return lists(offsets(map(len, found)), numbers((each for of in found for each in of), type_))
