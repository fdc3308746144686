"""OTLP as it travels here: spans, log records and data points, in groups of one resource and one scope.

A message on the bus is what a client sends (opentelemetry-proto, `Export…ServiceRequest`), whoever wrote it:
our collector, or a stock one with its Kafka exporter. Requests of several messages join and split by group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from nektar.attributes import text
from nektar.errors import NektarError
from nektar.log import OTLP_LOGS, OTLP_METRICS, OTLP_SPANS

TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8

# Resources, scopes and metrics of a request, empty ones counted, which cost a client two bytes each and
# whoever reads them much more: a stock Collector's batch is of 8,192 spans, each of which may have a resource
# of its own.
MAX_GROUPS = 16_384
# Of a request, with what spans and data points have in lists of their own. Empty ones, too, take two bytes
# each; spans with ids and a time, as many as fit, are fewer.
MAX_ITEMS = 131_072
# Attributes of a request, with what stands in their lists and maps, before any of it is looked at: as many of
# 16 bytes, less than most that say something, as fit. Empty ones take VALUE_BYTES.
MAX_VALUES = 262_144
VALUE_BYTES = 2
# Counts and bounds of all buckets, eight bytes each in a row. Those of histograms take as much on the wire,
# and fewer fit; those of exponential ones may take a byte each.
MAX_BUCKETS = 1_048_576
# A row of the store repeats its resource and its scope, so that a small message may be a large insert, which
# takes up to ten times as much memory for a moment. A batch of 8,192 spans whose resource takes 3 KB in 40
# attributes is within this; one that is not is meant to hurt.
MAX_REPEATED_BYTES = 32 * 1024 * 1024
# What an attribute takes beside its text: lengths and ends, in each copy.
ATTRIBUTE_BYTES = 24


class BadRequest(NektarError):
    """Bytes that are no request of OTLP, or one that nobody should have to store."""


class Part(NamedTuple):
    """What items have in a list of their own."""

    name: str
    attributes: str  # what its attributes are called; empty: it has none


class Signal(NamedTuple):
    """A kind of telemetry, and what OTLP calls its parts."""

    name: str  # as in the path /v1/NAME
    stream: str
    request: type[Any]
    response: type[Any]
    resources: str
    scopes: str
    items: str
    parts: tuple[Part, ...] = ()
    held: str = ""  # what of a scope holds the items; empty: the scope itself


SPANS = Signal(
    "traces",
    OTLP_SPANS,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
    "resource_spans",
    "scope_spans",
    "spans",
    (Part("events", "attributes"), Part("links", "attributes")),
)
LOGS = Signal(
    "logs",
    OTLP_LOGS,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
    "resource_logs",
    "scope_logs",
    "log_records",
)
METRICS = Signal(
    "metrics",
    OTLP_METRICS,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
    "resource_metrics",
    "scope_metrics",
    "data_points",
    (Part("exemplars", "filtered_attributes"), Part("quantile_values", "")),
    "metrics",
)
SIGNALS = (SPANS, LOGS, METRICS)


class Group(NamedTuple):
    """Items of one resource and one scope: `ResourceSpans` and `ScopeSpans`, or their likes; data points of
    one `Metric`, too."""

    resource: Any
    scope: Any
    metric: Any  # None of other signals
    items: Any
    resource_bytes: int  # what the resource says

    @property
    def scope_bytes(self) -> int:
        """What the scope says."""
        return int(self.scope.scope.ByteSize()) + len(self.scope.schema_url.encode())

    @property
    def metric_bytes(self) -> int:
        """What the metric says of itself."""
        if self.metric is None:
            return 0
        said = (self.metric.name, self.metric.description, self.metric.unit)
        texts = sum(len(each.encode()) for each in said)
        return texts + sum(int(pair.ByteSize()) for pair in self.metric.metadata)

    @property
    def own_bytes(self) -> int:
        """What the group says beside its items, in bytes."""
        return self.resource_bytes + self.scope_bytes + self.metric_bytes


def parse(signal: Signal, body: bytes) -> Any:
    """The request in protobuf. Raises BadRequest."""
    request = signal.request()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise BadRequest(f"expected an {signal.request.__name__} in protobuf; {error}") from None
    return request


def groups(signal: Signal, request: Any) -> Iterator[Group]:
    """The groups that have items, in the request's order. What each costs, a resource costs once."""
    for resource in getattr(request, signal.resources):
        resource_bytes: int | None = None
        for scope in getattr(resource, signal.scopes):
            for metric, items in _lists(signal, scope):
                if not items:
                    continue
                if resource_bytes is None:
                    resource_bytes = resource.resource.ByteSize() + len(resource.schema_url.encode())
                yield Group(resource, scope, metric, items, resource_bytes)


def _lists(signal: Signal, scope: Any) -> Iterable[tuple[Any, Any]]:
    """(metric, its data points) of each metric; of other signals (None, the items)."""
    if signal is METRICS:
        return ((metric, data_points(metric)) for metric in scope.metrics)
    return ((None, getattr(scope, signal.items)),)


def data_points(metric: Any) -> Any:
    """The data points of a metric of whichever kind."""
    kind = metric.WhichOneof("data")
    return getattr(metric, kind).data_points if kind else ()


def check_size(signal: Signal, request: Any) -> None:
    """Raises BadRequest where a request is of more parts than its bytes tell, or where resources and scopes,
    repeated for each item, are too much to store."""
    _check_groups(signal, request)
    with_items = list(groups(signal, request))
    items = sum(len(group.items) for group in with_items)
    if items <= MAX_ITEMS:  # else nobody looks into them
        items += sum(len(getattr(i, p.name, ())) for p in signal.parts for g in with_items for i in g.items)
    if items > MAX_ITEMS:
        counted = ", ".join((signal.items, *(part.name for part in signal.parts)))
        raise BadRequest(
            f"expected at most {MAX_ITEMS} of {counted}; got {items} or more: send smaller batches"
        )
    if signal is METRICS:
        _check_buckets(with_items)
    if request.ByteSize() > VALUE_BYTES * MAX_VALUES:  # else there is no room for more, and no need to count
        _check_values(signal, with_items)
    repeated = of_resource = 0
    weighed: Any = None
    for group in with_items:
        if group.resource is not weighed:
            weighed, of_resource = group.resource, _beside_its_bytes(group.resource.resource)
        repeated += len(group.items) * (group.own_bytes + of_resource + _beside_its_bytes(group.scope.scope))
    if repeated > MAX_REPEATED_BYTES:
        raise BadRequest(
            f"expected resources and scopes of at most {MAX_REPEATED_BYTES} bytes as text, {ATTRIBUTE_BYTES} "
            f"more an attribute, all counted for each of their {signal.items}; got {repeated}"
        )


def _check_groups(signal: Signal, request: Any) -> None:
    resources = getattr(request, signal.resources)
    count = len(resources)
    if count <= MAX_GROUPS:
        count += sum(len(getattr(resource, signal.scopes)) for resource in resources)
    if signal.held and count <= MAX_GROUPS:
        scopes = (scope for resource in resources for scope in getattr(resource, signal.scopes))
        count += sum(len(getattr(scope, signal.held)) for scope in scopes)
    if count > MAX_GROUPS:
        counted = " and ".join(filter(None, (signal.resources, signal.scopes, signal.held)))
        raise BadRequest(
            f"expected at most {MAX_GROUPS} of {counted} together, empty ones counted; got {count} or more"
        )


def _check_buckets(with_items: Iterable[Group]) -> None:
    count = 0
    for group in with_items:
        match group.metric.WhichOneof("data"):
            case "histogram":
                count += sum(len(p.bucket_counts) + len(p.explicit_bounds) for p in group.items)
            case "exponential_histogram":
                both = ((p.positive.bucket_counts, p.negative.bucket_counts) for p in group.items)
                count += sum(len(up) + len(down) for up, down in both)
    if count > MAX_BUCKETS:
        raise BadRequest(
            f"expected at most {MAX_BUCKETS} counts and bounds of buckets; got {count}: send smaller batches"
        )


def _check_values(signal: Signal, with_items: Sequence[Group]) -> None:
    values = 0
    for held in chain(_of_resources_and_scopes(with_items), _of_items(signal, with_items)):
        values += _counted(held)
        if values > MAX_VALUES:
            raise BadRequest(
                f"expected at most {MAX_VALUES} attributes, with what stands in their lists and maps; got "
                f"{values} or more: send smaller batches"
            )


def _of_resources_and_scopes(with_items: Iterable[Group]) -> Iterator[Any]:
    """The attributes of each, once."""
    seen: Any = None
    for group in with_items:
        if group.resource is not seen:
            seen = group.resource
            yield seen.resource.attributes
        yield group.scope.scope.attributes
        if group.metric is not None:
            yield group.metric.metadata


def _of_items(signal: Signal, with_items: Iterable[Group]) -> Iterator[Any]:
    """The attributes of each item and of its parts, and what a record's body holds."""
    parts = [part for part in signal.parts if part.attributes]
    for group in with_items:
        for item in group.items:
            if item.attributes:
                yield item.attributes
            for part in parts:
                for each in getattr(item, part.name, ()):
                    if said := getattr(each, part.attributes):
                        yield said
            if signal is LOGS and item.HasField("body"):
                yield (item.body,)


def _counted(held: Any) -> int:
    """How many values these are, with those in lists and maps; where they are more than MAX_VALUES, at least
    as many as that."""
    lists, count = [held], 0
    while lists and (count := count + len(lists[-1])) <= MAX_VALUES:
        lists.extend(filter(None, map(_within, lists.pop())))
    return count


def _within(value: Any) -> Any:
    """What stands in an attribute, or in a value, that is a list or a map; None where it is neither."""
    value = getattr(value, "value", value)
    match value.WhichOneof("value"):
        case "array_value":
            return value.array_value.values
        case "kvlist_value":
            return value.kvlist_value.values
    return None


def _beside_its_bytes(of: Any) -> int:
    """What the attributes of a resource or a scope take in a row beyond their bytes here."""
    others = (pair.value for pair in of.attributes if pair.value.WhichOneof("value") != "string_value")
    grown: int = sum(max(0, len(text(each).encode()) - each.ByteSize()) for each in others)
    return grown + ATTRIBUTE_BYTES * len(of.attributes)
